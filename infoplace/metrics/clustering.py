"""Scores of a clustering against known labels, with every mapping from clusters to labels fitted on training samples.

Two numbers are called "accuracy" of a clustering, and they are not alike. *Majority* accuracy gives each cluster the label
that is commonest in it, many clusters to one label: it only grows with the number of clusters, and is 1 when every sample
is a cluster of its own. *Hungarian* accuracy gives each label one cluster and each cluster one label. :func:`clustering`
gives both, beside two scores that need no mapping (NMI and ARI), what one single cluster would score, how many clusters
are in use, and how far the probabilities of the clusters can be trusted.

A mapping that is fitted on the samples that it is scored on has seen their labels. Here it is fitted on training samples
(:func:`fit_mapping`), and stays as it is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infoplace.errors import DataError, DeclarationError, did_you_mean, import_optional, is_whole, join_names
from infoplace.probes.latents import as_factor, as_latents

__all__ = ["NO_LABEL", "ClusterMap", "ClusteringTable", "clustering", "fit_mapping"]

KINDS = ("majority", "hungarian")

NO_LABEL = torch.iinfo(torch.int64).min
"""What :meth:`ClusterMap.predict` says of a cluster without a label: the least int64, which no label should be."""

CALIBRATION_BINS = 15

_SUM_TOLERANCE = 1e-3
"""How far probabilities may be from a sum of 1: enough for half precision."""


@dataclass(frozen=True)
class ClusterMap:
    """A fixed mapping from clusters to labels. Made by :func:`fit_mapping`.

    Attributes:
        kind: ``"majority"`` (many clusters to one label) or ``"hungarian"`` (one to one).
        labels: the label of each cluster, None for a cluster that has none.
    """

    kind: str
    labels: tuple[int | None, ...]

    def __len__(self) -> int:
        """How many clusters there are."""
        return len(self.labels)

    def predict(self, clusters: Any) -> Tensor:
        """The label of each sample's cluster, int64 ``[N]``; :data:`NO_LABEL` where the cluster has none.

        Args:
            clusters: whole numbers ``[N]`` from 0 to k - 1: a tensor, or anything that ``numpy.asarray`` takes.

        Raises:
            DataError: no whole numbers ``[N]``, empty, or a cluster outside the mapping.

        >>> fit_mapping([0, 0, 1, 2], [7, 7, 7, 3]).predict([2, 1, 0])
        tensor([3, 7, 7])
        """
        given = _whole(clusters, "clusters")
        _check_range(given, len(self), "clusters")
        named = torch.tensor([NO_LABEL if label is None else label for label in self.labels])
        return named[torch.from_numpy(given)]

    def accuracy(self, clusters: Any, labels: Any) -> float:
        """The share of samples, in [0, 1], whose cluster has their label; one without a label is wrong.

        Args:
            clusters: as :meth:`predict` takes them.
            labels: whole numbers ``[N]``. A label that the mapping was not fitted with is wrong.

        Raises:
            DataError: no whole numbers ``[N]``, empty, of two lengths, or a cluster outside the mapping.

        >>> fit_mapping([0, 0, 1, 2], [7, 7, 7, 3]).accuracy([2, 1, 0, 0], [3, 3, 7, 7])
        0.75
        """
        predicted, true = self.predict(clusters).numpy(), _whole(labels, "labels")
        _check_lengths("clusters", len(predicted), "labels", len(true))
        return float(np.mean(predicted == true))


@dataclass(frozen=True, eq=False)
class ClusteringTable:
    """What :func:`clustering` found.

    Attributes:
        scores: ``{metric: value}``; see :func:`clustering` for the metrics.
        confusion: how many test samples of each label are in each cluster, int64 ``[labels, clusters]``.
        labels: the labels of its rows, ascending.
        majority: the many-to-one mapping that was scored.
        hungarian: the one-to-one mapping that was scored.
    """

    scores: Mapping[str, float]
    confusion: Tensor
    labels: tuple[int, ...]
    majority: ClusterMap
    hungarian: ClusterMap

    @property
    def clusters(self) -> int:
        """How many clusters there are, in use or not."""
        return len(self.majority)

    def rows(self) -> list[dict[str, Any]]:
        """One row a metric: ``metric``, ``value``."""
        return [{"metric": metric, "value": value} for metric, value in self.scores.items()]

    def arranged(self) -> Tensor:
        """The order of the clusters in which ``confusion[:, order]`` has its blocks along the diagonal, int64 ``[k]``.

        By label of the majority mapping, then by test samples, the largest first, then by number; clusters without a
        test sample come last. As the label is the one that was fitted in training, what stands outside the blocks is
        just what the majority accuracy counts as wrong. Figure 4 of the paper is such a picture.

        >>> labels, clusters = [4, 4, 4, 9, 9, 9], [0, 2, 2, 1, 1, 1]
        >>> table = clustering(clusters, labels, clusters, labels, clusters=4)
        >>> table.arranged()
        tensor([2, 0, 1, 3])
        >>> table.confusion[:, table.arranged()]
        tensor([[2, 1, 0, 0],
                [0, 0, 3, 0]])
        """
        sizes, named = self.confusion.sum(0).tolist(), self.majority.predict(torch.arange(self.clusters)).tolist()
        order = sorted(range(self.clusters), key=lambda cluster: (not sizes[cluster], named[cluster], -sizes[cluster]))
        return torch.tensor(order)

    def __str__(self) -> str:
        """The metrics, one a line."""
        width = max(len(metric) for metric in self.scores)
        lines = [f"{'clusters':<{width}}  {self.clusters}"]
        for metric, value in self.scores.items():
            lines.append(f"{metric:<{width}}  {value if isinstance(value, int) else format(value, '.3f')}")
        return "\n".join([*lines, f"{int(self.confusion.sum())} test samples; mappings fitted on training samples"])


def fit_mapping(
    clusters: Any,
    labels: Any,
    kind: Literal["majority", "hungarian"] = "majority",
    clusters_count: int | None = None,
) -> ClusterMap:
    """Give each cluster the label that fits training samples best.

    ``"majority"``: each cluster gets the label that is commonest in it (of equally common ones, the least); a cluster
    without a training sample gets the commonest label of all.

    ``"hungarian"``: the one-to-one assignment under which most training samples are right (Kuhn, "The Hungarian method
    for the assignment problem", 1955; SciPy's ``linear_sum_assignment``). With more clusters than labels some clusters
    have no label, with fewer some labels have no cluster; their samples are wrong. Pairs that not one training sample
    supports are arbitrary and left out, so a cluster without a training sample has no label.

    Args:
        clusters: the cluster of each training sample, whole numbers ``[N]`` from 0 to k - 1: a tensor, or anything that
            ``numpy.asarray`` takes.
        labels: the label of each, any whole numbers ``[N]``.
        kind: ``"majority"`` or ``"hungarian"``.
        clusters_count: k, from 2 to N. None takes the highest cluster + 1.

    Raises:
        DataError: no whole numbers ``[N]``, empty, of two lengths, a cluster outside 0 to k - 1, one label only, or more
            clusters than samples.
        DeclarationError: an unknown kind, or a k below 2.
        PluginError: ``"hungarian"``, and SciPy is not installed.

    >>> clusters, labels = [0, 0, 1, 1, 1, 2, 2], [7, 7, 7, 7, 7, 3, 7]
    >>> fit_mapping(clusters, labels, clusters_count=4).labels
    (7, 7, 3, 7)
    >>> fit_mapping(clusters, labels, "hungarian", clusters_count=4).labels
    (None, 7, 3, None)
    """
    if kind not in KINDS:
        raise DeclarationError(
            f"a mapping's kind must be one of {join_names(KINDS)}; got {kind!r}.{did_you_mean(kind, KINDS)}"
        )
    given, true = _pair(clusters, labels, "clusters", "labels")
    count = _cluster_count("clusters_count", clusters_count, {"clusters": given})
    return _fit(kind, given, true, count)


def clustering(
    train_clusters: Any,
    train_labels: Any,
    test_clusters: Any,
    test_labels: Any,
    *,
    clusters: int | None = None,
    probabilities: Any = None,
) -> ClusteringTable:
    """Score a clustering of test samples, with mappings from clusters to labels that are fitted on training samples.

    The metrics, all of the test samples:

    - ``majority``, ``hungarian``: the accuracies under the two mappings of :func:`fit_mapping`.
    - ``nmi``: the mutual information of clusters and labels over the arithmetic mean of their entropies, in [0, 1]
      (scikit-learn's default; other normalisations give other numbers).
    - ``ari``: the adjusted Rand index (Hubert and Arabie, "Comparing partitions", 1985): 0 is chance, 1 is equal,
      less than 0 is worse than chance.
    - ``one_cluster``: what a single cluster scores: the test share of the label that is commonest in training.
    - ``clusters_used``: how many clusters hold a test sample.
    - ``clusters_effective``: `exp(H)` of the clusters' shares of the test samples: how many clusters of equal size have
      that entropy.
    - ``calibration_error``, where probabilities are given: the expected calibration error of Guo et al., "On calibration
      of modern neural networks" (2017), equation 3, over 15 bins of equal width: how far confidence and accuracy are
      apart, in [0, 1]. A sample's answer is the majority mapping's label of its cluster; the confidence in it is the
      probability of all clusters that have this label.

    Args:
        train_clusters: the cluster of each training sample, whole numbers ``[N]`` from 0 to k - 1: a tensor, or anything
            that ``numpy.asarray`` takes.
        train_labels: the label of each, any whole numbers ``[N]``.
        test_clusters: the same for M other samples, ``[M]``.
        test_labels: the label of each, ``[M]``. A label that training never has counts as wrong.
        clusters: k, 2 or more, and at most N and M. None takes it from the probabilities, or else the highest cluster + 1.
        probabilities: ``[M, k]``: `q(y|x)` of each test sample, in [0, 1] with a sum of 1.

    Raises:
        DataError: no whole numbers ``[N]``, empty, of two lengths, a cluster outside 0 to k - 1, one label only, more
            clusters than samples, or probabilities of another shape, range or sum, or not finite.
        DeclarationError: a k below 2.
        PluginError: scikit-learn is not installed, which brings SciPy.

    >>> table = clustering([0, 0, 1, 1, 2, 2], [5, 5, 8, 8, 8, 8], [0, 1, 1, 2], [5, 5, 8, 8])
    >>> print(table)
    clusters            3
    majority            0.750
    hungarian           0.500
    nmi                 0.400
    ari                 -0.286
    one_cluster         0.500
    clusters_used       3
    clusters_effective  2.828
    4 test samples; mappings fitted on training samples
    """
    train, train_true = _pair(train_clusters, train_labels, "train_clusters", "train_labels")
    test, test_true = _pair(test_clusters, test_labels, "test_clusters", "test_labels")
    shares = None if probabilities is None else _probabilities(probabilities, len(test), clusters)
    told = shares.shape[1] if shares is not None and clusters is None else clusters
    count = _cluster_count("clusters", told, {"train_clusters": train, "test_clusters": test})
    majority, hungarian = (_fit(kind, train, train_true, count) for kind in KINDS)
    names = np.unique(np.concatenate([train_true, test_true]))
    confusion = _counts(test, test_true, names, count)
    sizes = confusion.sum(0)
    used = sizes[sizes > 0] / len(test)
    scores: dict[str, float] = {
        "majority": majority.accuracy(test, test_true),
        "hungarian": hungarian.accuracy(test, test_true),
        **_agreement(test, test_true),
        "one_cluster": float(np.mean(test_true == _commonest(train_true))),
        "clusters_used": len(used),
        "clusters_effective": math.exp(-float(used @ np.log(used))),
    }
    if shares is not None:
        named = majority.predict(np.arange(count)).numpy()
        answer = named[test]
        confidence = np.sum(shares * (named == answer[:, None]), axis=1)
        scores["calibration_error"] = _calibration_error(confidence, answer == test_true)
    return ClusteringTable(scores, torch.from_numpy(confusion), tuple(names.tolist()), majority, hungarian)


# ---- the parts of the scores -----------------------------------------------------------------------------------------


def _fit(kind: str, clusters: NDArray[np.int64], labels: NDArray[np.int64], count: int) -> ClusterMap:
    names = np.unique(labels)
    counts = _counts(clusters, labels, names, count)
    if kind == "majority":
        named = np.where(counts.sum(0) > 0, names[counts.argmax(0)], _commonest(labels))
        return ClusterMap(kind, tuple(named.tolist()))
    rows, columns = import_optional("scipy.optimize", "clustering", "SciPy").linear_sum_assignment(
        counts, maximize=True
    )
    pairs = {column: names[row] for row, column in zip(rows, columns, strict=True) if counts[row, column]}
    return ClusterMap(kind, tuple(int(pairs[cluster]) if cluster in pairs else None for cluster in range(count)))


def _counts(
    clusters: NDArray[np.int64], labels: NDArray[np.int64], names: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """How many samples of each label of ``names`` (ascending) are in each cluster, ``[labels, clusters]``."""
    cells = np.searchsorted(names, labels) * count + clusters
    return np.bincount(cells, minlength=len(names) * count).reshape(len(names), count)


def _commonest(labels: NDArray[np.int64]) -> int:
    """The commonest label; of equally common ones, the least."""
    names, counts = np.unique(labels, return_counts=True)
    return int(names[counts.argmax()])


def _agreement(clusters: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """NMI and ARI, which need no mapping."""
    module = import_optional("sklearn.metrics", "clustering")
    with warnings.catch_warnings():
        # Of few samples in many clusters it asks whether they are values of a regression.
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        return {
            "nmi": float(module.normalized_mutual_info_score(labels, clusters, average_method="arithmetic")),
            "ari": float(module.adjusted_rand_score(labels, clusters)),
        }


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """`sum_b |B_b| / N * |accuracy(B_b) - confidence(B_b)|` over the bins ``((b - 1) / 15, b / 15]``."""
    bins = np.ceil(confidence * CALIBRATION_BINS).clip(1, CALIBRATION_BINS).astype(np.int64) - 1
    return float(np.abs(np.bincount(bins, right - confidence)).sum() / len(bins))


# ---- reading what was given ------------------------------------------------------------------------------------------


def _whole(values: Any, what: str) -> NDArray[np.int64]:
    tensor = as_factor(values, name=what)
    if tensor.is_floating_point():
        raise DataError(f"{what} must be whole numbers [N]; got floats {list(tensor.shape)}; give a type such as int64")
    return tensor.cpu().numpy()


def _pair(clusters: Any, labels: Any, clusters_name: str, labels_name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    given, true = _whole(clusters, clusters_name), _whole(labels, labels_name)
    _check_lengths(clusters_name, len(given), labels_name, len(true))
    if (true == true[0]).all():
        raise DataError(
            f"{labels_name} is constant ({true[0]}), so no clustering can be told from another by it; "
            "give samples of two labels or more"
        )
    return given, true


def _check_lengths(left: str, left_count: int, right: str, right_count: int) -> None:
    if left_count != right_count:
        raise DataError(
            f"{left} has {left_count} samples and {right} has {right_count}; give one of each for each sample"
        )


def _check_range(clusters: NDArray[np.int64], count: int, what: str) -> None:
    wrong = clusters[(clusters < 0) | (clusters >= count)]
    if len(wrong):
        raise DataError(f"{what} holds {wrong[0]}; {count} clusters are numbered from 0 to {count - 1}")


def _cluster_count(option: str, given: int | None, assignments: Mapping[str, NDArray[np.int64]]) -> int:
    """The number of clusters, after checking the assignments against it."""
    if given is not None and (not is_whole(given) or given < 2):
        raise DeclarationError(f"{option} must be a whole number, 2 or more; got {given!r}")
    for name, clusters in assignments.items():
        if clusters.min() < 0:
            raise DataError(f"{name} holds {clusters.min()}; clusters are numbered from 0")
    count = given if given is not None else max(int(clusters.max()) for clusters in assignments.values()) + 1
    if count == 1:
        raise DataError(
            f"every sample is in cluster 0, which does not tell how many clusters there are; give {option}=k, 2 or more"
        )
    for name, clusters in assignments.items():
        _check_range(clusters, count, name)
        if count > len(clusters):
            raise DataError(
                f"there are {count} clusters and {name} has {len(clusters)} samples; "
                "give as many samples as clusters, or more"
            )
    return count


def _probabilities(probabilities: Any, samples: int, clusters: int | None) -> NDArray[np.float64]:
    array = as_latents(probabilities, "probabilities").cpu().numpy()
    if len(array) != samples or (clusters is not None and array.shape[1] != clusters):
        raise DataError(
            f"probabilities must be [{samples}, {'k' if clusters is None else clusters}], "
            f"a row for each test sample and a column for each cluster; got {list(array.shape)}"
        )
    if array.min() < 0 or array.max() > 1 + _SUM_TOLERANCE:
        raise DataError(
            f"probabilities must lie in [0, 1]; got {array.min():.3g} to {array.max():.3g}; logits need a softmax first"
        )
    sums = array.sum(1)
    worst = sums[np.abs(sums - 1).argmax()]
    if abs(worst - 1) > _SUM_TOLERANCE:
        raise DataError(f"each row of probabilities must sum to 1; one sums to {worst:.3g}")
    return array
