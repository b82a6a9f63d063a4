"""k-means on pixels, or on their principal components: what a clustering has to beat."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from infoplace.errors import DataError, UnknownNameError, did_you_mean, join_names
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from infoplace_clustering.base import DeepClusterer, check_whole, record

__all__ = ["PixelKMeans"]

FEATURES = ("pixels", "pca")
"""What ``features`` may be."""


class PixelKMeans(TransformerMixin, DeepClusterer):
    """k-means on the pixels themselves, or on their principal components; images are read as vectors.

    Lloyd's iterations from k-means++ starts (scikit-learn's ``KMeans``), of which the one with the least distances is kept.
    It runs on the CPU. Vectors of any kind may be given, such as :func:`~infoplace_clustering.hog_features`.

    Args:
        n_clusters: how many clusters there are.
        features: ``"pixels"``, or ``"pca"`` for the principal components.
        n_components: how many principal components, for ``"pca"``.
        n_init: how many starts.
        seed: what the starts are drawn from.

    Attributes:
        kmeans_: the fitted ``sklearn.cluster.KMeans``.
        pca_: the fitted ``sklearn.decomposition.PCA``, or None for ``"pixels"``.
        history_: one row: the iterations of the start that was kept, and the mean squared distance of a sample to its
            centre.

    >>> PixelKMeans(2).fit_predict([[0.0], [0.1], [4.0]]).tolist() in ([0, 0, 1], [1, 1, 0])
    True
    """

    device: str | torch.device = "cpu"

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        features: str = "pixels",
        n_components: int = 50,
        n_init: int = 20,
        seed: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.features = features
        self.n_components = n_components
        self.n_init = n_init
        self.seed = seed

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803 (scikit-learn's name)
        """What the distances are taken of, float32 `[N, D]`: the pixels, or their principal components.

        Args:
            X: as :meth:`fit` takes it, with as many numbers a sample.

        Raises:
            sklearn.exceptions.NotFittedError: nothing was learned yet.
            DataError: ``X`` is of another shape or range than in :meth:`fit`, or is not finite.
        """
        return self._features(self._checked(X))

    def _check_parameters(self) -> None:
        if self.features not in FEATURES:
            raise UnknownNameError(
                f"features must be one of {join_names(FEATURES)}; got {self.features!r}."
                f"{did_you_mean(self.features, FEATURES)}"
            )
        check_whole("n_components", self.n_components, 1)
        check_whole("n_init", self.n_init, 1)

    def _fit(self, x: Tensor, device: torch.device) -> None:
        started = time.perf_counter()
        self.pca_ = None
        if self.features == "pca":
            if self.n_components > min(x.shape):
                raise DataError(
                    f"n_components is {self.n_components}, and X has {x.shape[0]} samples of {x.shape[1]} numbers, which have "
                    f"no more than {min(x.shape)} principal components; set n_components={min(x.shape)} or less"
                )
            self.pca_ = PCA(self.n_components, random_state=self.seed).fit(x.numpy())
        self.kmeans_ = KMeans(self.n_clusters, n_init=self.n_init, random_state=self.seed).fit(self._features(x))
        record(self.history_, self.kmeans_.n_iter_, started, float(self.kmeans_.inertia_) / len(x))

    def _labels(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.kmeans_.predict(self._features(x)))

    def _features(self, x: Tensor) -> NDArray[np.float32]:
        return x.numpy() if self.pca_ is None else self.pca_.transform(x.numpy())
