"""ACOL with GAR: clusters that appear inside the classes of a made-up classification task.

The method of Kilinc and Uysal, "Learning latent representations in neural networks for clustering through pseudo
supervision and graph-based activity regularization" (2018). Every image takes one of 8 pseudo-labels and is turned and
flipped accordingly; a network learns to tell the 8 apart. Its output layer (the auto-clustering output layer, ACOL) has
20 units for each of the 8 parents, and the probability of a parent is the sum over its units. Two terms (graph-based
activity regularisation, GAR) make the units of a parent specialise: few of them are active together, and all of them are
active about as often. What they specialise in are the kinds of images. The features before that layer are then
clustered by k-means.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from infoplace.errors import DataError, DeclarationError
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace_clustering.base import (
    DeepClusterer,
    apply_batched,
    batches,
    check_number,
    check_whole,
    place,
    progress_over,
    record,
)

__all__ = ["ACOL", "activity_ratios", "parent_log_probabilities", "pseudo_images"]

PARENTS = 8
"""How many pseudo-labels there are: four rotations, each as it is and flipped."""

LEARNING = (
    "epochs",
    "batch_size",
    "learning_rate",
    "children",
    "channels",
    "feature_size",
    "dropout",
    "affinity_weight",
    "balance_weight",
    "penalty_weight",
    "transforms_per_epoch",
    "standardise",
    "seed",
)
"""The parameters that the network hangs on."""

_SMALLEST_SIDE = 4
_EPSILON = 1e-7


class ACOL(TransformerMixin, DeepClusterer):
    """The auto-clustering output layer with graph-based activity regularisation, and k-means on its features.

    Kilinc and Uysal (2018). With `Z` the 8 x 20 outputs before the softmax, the loss of a batch is

        cross-entropy + 0.1 affinity + 1 (1 - balance) + 1e-6 |Z|^2,

    affinity and balance (:func:`activity_ratios`) averaged over the 8 parents and `|Z|^2` summed over the batch. The
    network: two convolutions of 32 channels, pooling, two of 64, pooling, a fully connected layer of 2048 units (the
    features F), and Z; every convolution is 3 x 3 and every layer but Z has a ReLU.

    What these formulas leave open is done as in the authors' code for street view house numbers: dropout of 0.2, 0.3 and
    0.5 after the poolings and the features; Glorot's uniform weights; Adam at 0.001; images have the mean training image
    taken away, and are then each brought to mean 0 and standard deviation 1. An epoch of that code shows every image under
    all of the 8 pseudo-labels, in random order, where the paper's abstract gives each image one random label. Here an epoch
    shows every image under one label that is drawn anew, which costs an eighth; ``transforms_per_epoch=8`` is that code's.

    Rotations before the flip, or after it, make the same 8 images: only two labels change their places. A 6 that is turned
    into a 9 is no harm, since it has another parent than a 9 that was not turned.

    Args:
        n_clusters: how many clusters k-means seeks, 2 or more.
        epochs: passes over the data.
        batch_size: images a step.
        learning_rate: Adam's.
        children: how many units a parent has, 2 or more.
        channels: the channels of the first and the second pair of convolutions.
        feature_size: how many features F there are.
        dropout: the dropped share after the first pooling, the second, and the features; each from 0 to 0.95.
        affinity_weight: of the affinity.
        balance_weight: of 1 - balance.
        penalty_weight: of `|Z|^2`.
        transforms_per_epoch: under how many of the 8 pseudo-labels an epoch shows each image.
        standardise: whether to take the mean training image away and bring every image to mean 0 and deviation 1.
        kmeans_starts: from how many starts k-means seeks.
        memory: where the network is kept, a folder or a ``joblib.Memory``, as scikit-learn's ``memory``; a fit with the same
            images and settings then begins with k-means, whatever ``n_clusters`` is. None keeps nothing.
        seed: of the weights, the order of the images, the pseudo-labels, dropout and k-means.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: whether to show a progress bar.

    Attributes:
        labels_: the cluster of each image that was learned from, int64 `[N]`.
        n_features_in_: how many numbers an image has.
        history_: one dict an epoch: ``epoch``, ``loss``, its terms ``cross_entropy``, ``affinity``, ``balance`` and
            ``penalty`` (`|Z|^2`), each without its weight, ``pseudo_accuracy`` and ``seconds``.
        network_: the trained network, from standardised images to Z, `[N, 8, children]`.
        kmeans_: scikit-learn's k-means of the features.

    Raises:
        DataError: from :meth:`fit`, data that cannot be clustered, among them images that are not square.
        DeclarationError: from :meth:`fit`, a parameter that cannot mean anything.

    Example:
        >>> images = torch.zeros(20, 1, 8, 8)
        >>> images[:10, :, 1:3, 1:6], images[10:, :, :7, 2:7] = 1.0, 0.5
        >>> images += 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
        >>> method = ACOL(n_clusters=2, epochs=2, channels=(4, 4), feature_size=16, device="cpu").fit(images / 2)
        >>> method.labels_.shape, method.transform(images / 2).shape
        ((20,), (20, 16))
    """

    images_only = True
    flatten = False

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        epochs: int = 400,
        batch_size: int = 400,
        learning_rate: float = 0.001,
        children: int = 20,
        channels: tuple[int, int] = (32, 64),
        feature_size: int = 2048,
        dropout: tuple[float, float, float] = (0.2, 0.3, 0.5),
        affinity_weight: float = 0.1,
        balance_weight: float = 1.0,
        penalty_weight: float = 1e-6,
        transforms_per_epoch: int = 1,
        standardise: bool = True,
        kmeans_starts: int = 10,
        memory: Any = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        progress: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.children = children
        self.channels = channels
        self.feature_size = feature_size
        self.dropout = dropout
        self.affinity_weight = affinity_weight
        self.balance_weight = balance_weight
        self.penalty_weight = penalty_weight
        self.transforms_per_epoch = transforms_per_epoch
        self.standardise = standardise
        self.kmeans_starts = kmeans_starts
        self.memory = memory
        self.seed = seed
        self.device = device
        self.progress = progress

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803 (scikit-learn's name)
        """The features F of images as they are (neither turned nor flipped), float32 `[N, feature_size]`, 0 or more.

        Args:
            X: images as :meth:`fit` takes them, of the same shape.

        Raises:
            sklearn.exceptions.NotFittedError: nothing was learned yet.
            DataError: ``X`` is of another shape or range than in :meth:`fit`, or is not finite.
        """
        return self._features(self._checked(X)).numpy()

    def _check_parameters(self) -> None:
        check_whole("epochs", self.epochs, 1)
        check_whole("batch_size", self.batch_size, 1)
        check_number("learning_rate", self.learning_rate, open_below=True)
        check_whole("children", self.children, 2)  # affinity and balance compare the units of one parent
        for name, values, example in (
            ("channels", self.channels, (32, 64)),
            ("dropout", self.dropout, (0.2, 0.3, 0.5)),
        ):
            if not isinstance(values, tuple | list) or len(values) != len(example):
                raise DeclarationError(f"{name} must be {len(example)} numbers, as {example}; got {values!r}")
        for index, channels in enumerate(self.channels):
            check_whole(f"channels[{index}]", channels, 1)
        for index, share in enumerate(self.dropout):
            check_number(f"dropout[{index}]", share, most=0.95)
        check_whole("feature_size", self.feature_size, 1)
        check_number("affinity_weight", self.affinity_weight)
        check_number("balance_weight", self.balance_weight)
        check_number("penalty_weight", self.penalty_weight)
        check_whole("transforms_per_epoch", self.transforms_per_epoch, 1, PARENTS)
        check_whole("kmeans_starts", self.kmeans_starts, 1)

    def _fit(self, x: Tensor, device: torch.device) -> None:
        if x.shape[2] != x.shape[3] or x.shape[2] < _SMALLEST_SIDE:
            raise DataError(
                f"ACOL turns images by quarters, so they must be square, {_SMALLEST_SIDE} pixels or more a side; got X of "
                f"shape {list(x.shape)}; crop or resize them first"
            )
        self._mean = x.mean(0)
        weights = self._remembered(LEARNING, x.numpy(), device)
        network = self._network(x, device)
        network.load_state_dict(weights)
        self.network_ = network.eval()
        features = self._features(x).numpy()
        # Of several threads whichever is done first adds first, and the last bits of a centre depend on it.
        with threadpool_limits(1):
            self.kmeans_ = KMeans(self.n_clusters, n_init=self.kmeans_starts, random_state=self.seed).fit(features)

    def _network(self, x: Tensor, device: torch.device) -> _Network:
        network = _Network(x.shape[1], x.shape[2], self.channels, self.feature_size, self.children, self.dropout)
        return network.to(memory_format=torch.channels_last).to(device)

    def _learn(self, x: Tensor, device: torch.device) -> _Network:
        """The network that tells pseudo-labels apart."""
        self._mean = x.mean(0)
        self.network_ = network = self._network(x, device)
        optimiser = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        order = torch.Generator().manual_seed(self.seed)
        learned = place(self._prepared(x), device)
        for epoch in progress_over(range(1, self.epochs + 1), "ACOL", self.progress):
            started, shown = time.perf_counter(), len(x) * self.transforms_per_epoch
            pseudo = torch.rand(len(x), PARENTS, generator=order).argsort(1)[:, : self.transforms_per_epoch].flatten()
            totals = torch.zeros(6, device=device)
            network.train()
            for index in batches(shown, self.batch_size, order):
                images = learned[index // self.transforms_per_epoch].to(device)
                terms = self._terms(images, pseudo[index].to(device))
                optimiser.zero_grad()
                terms[0].backward()
                optimiser.step()
                totals += torch.stack(terms).detach() * len(index)
            loss, cross_entropy, affinity, balance, penalty, accuracy = (totals / shown).tolist()
            record(
                self.history_,
                epoch,
                started,
                loss,
                cross_entropy=cross_entropy,
                affinity=affinity,
                balance=balance,
                penalty=penalty,
                pseudo_accuracy=accuracy,
            )
        return network

    def _terms(self, images: Tensor, pseudo: Tensor) -> tuple[Tensor, ...]:
        """The loss of a batch, its terms without their weights, and the share of pseudo-labels that is right."""
        z = self.network_(pseudo_images(images, pseudo))
        logs = parent_log_probabilities(z)
        cross_entropy = F.nll_loss(logs, pseudo)
        ratios = activity_ratios(z)
        affinity, balance, penalty = ratios[0].mean(), ratios[1].mean(), z.square().sum()
        loss = (
            cross_entropy
            + self.affinity_weight * affinity
            + self.balance_weight * (1 - balance)
            + self.penalty_weight * penalty
        )
        return loss, cross_entropy, affinity, balance, penalty, (logs.argmax(1) == pseudo).float().mean()

    def _prepared(self, x: Tensor) -> Tensor:
        if not self.standardise:
            return x
        x = x - self._mean.to(x.device)
        deviation, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (deviation + 1e-8)

    def _features(self, x: Tensor) -> Tensor:
        device = next(self.network_.parameters()).device
        return apply_batched(lambda batch: self.network_.features(self._prepared(batch)), x, device)

    def _labels(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.kmeans_.predict(self._features(x).numpy()))


# ---- the pseudo-labels and the terms of the loss ---------------------------------------------------------------------


def pseudo_images(images: Tensor, pseudo: Tensor) -> Tensor:
    """Each image as its pseudo-label says: turned by `label % 4` quarters to the left, then flipped if the label is 4 or more.

    A flip exchanges left and right.

    Args:
        images: `[batch, channels, side, side]`, any values; not modified.
        pseudo: the labels, whole numbers `[batch]` from 0 to 7.

    Returns:
        Of the images' shape and type.

    >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
    >>> pseudo_images(image, torch.tensor([1])).tolist(), pseudo_images(image, torch.tensor([4])).tolist()
    ([[[[2, 4], [1, 3]]]], [[[[2, 1], [4, 3]]]])
    """
    changed = torch.empty_like(images)
    for label in range(PARENTS):
        chosen = pseudo == label
        turned = torch.rot90(images[chosen], label % 4, dims=(2, 3))
        changed[chosen] = turned.flip(3) if label >= 4 else turned
    return changed


def parent_log_probabilities(z: Tensor) -> Tensor:
    """The log-probabilities of the parents: a softmax over all units, summed over the units of each parent.

    Args:
        z: outputs before the softmax, `[batch, parents, children]`.

    Returns:
        `[batch, parents]`, in nats.

    >>> parent_log_probabilities(torch.zeros(1, 4, 5)).exp()
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    return torch.logsumexp(z, dim=2) - torch.logsumexp(z, dim=(1, 2))[:, None]


def activity_ratios(z: Tensor) -> tuple[Tensor, Tensor]:
    """The affinity and the balance of the units of each parent over a batch (Kilinc and Uysal, 2018).

    With `B = ReLU(Z)` of one parent, `[batch, k]`, `U = B'B`, and `V = v'v` of the row `v = diag U`:

        affinity = (sum U - tr U) / ((k - 1) tr U),      balance = (sum V - tr V) / ((k - 1) tr V).

    Affinity is 0 where no two units are active for one sample, and 1 where all units always agree. Balance is 1 where all
    units are equally active over the batch, and 0 where one unit alone is. Both are 0 where no unit is active at all.

    Args:
        z: outputs before the softmax, `[batch, parents, children]`, with two children or more.

    Returns:
        Affinity and balance, each `[parents]`, in [0, 1].

    >>> affinity, balance = activity_ratios(torch.eye(3)[:, None])
    >>> affinity.tolist(), balance.tolist()
    ([0.0], [1.0])
    """
    active = z.relu()
    u = torch.einsum("npk,npl->pkl", active, active)
    v = u.diagonal(dim1=1, dim2=2)
    return _off_to_on(u), _off_to_on(v[:, :, None] * v[:, None, :])


def _off_to_on(matrices: Tensor) -> Tensor:
    trace = matrices.diagonal(dim1=1, dim2=2).sum(1)
    off = matrices.sum((1, 2)) - trace
    return off / ((matrices.shape[1] - 1) * trace).clamp_min(_EPSILON)


class _Network(nn.Module):
    """From images `[N, channels, side, side]` to features `[N, feature_size]` and on to Z, `[N, 8, children]`."""

    def __init__(
        self,
        channels_in: int,
        side: int,
        channels: tuple[int, int],
        feature_size: int,
        children: int,
        dropout: tuple[float, float, float],
    ) -> None:
        super().__init__()
        first, second = channels
        self.features = nn.Sequential(
            nn.Conv2d(channels_in, first, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout[0]),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout[1]),
            nn.Flatten(),
            nn.Linear(second * (side // 4) ** 2, feature_size),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout[2])
        self.units = nn.Linear(feature_size, PARENTS * children)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0]))

    def forward(self, images: Tensor) -> Tensor:
        return self.units(self.dropout(self.features(images))).unflatten(1, (PARENTS, -1))
