"""What the clustering methods have in common: the estimator's outside, checks of what it is given, seeds, devices, progress.

A method is a class that derives from :class:`DeepClusterer` and says how it learns (``_fit``) and how it names the cluster
of a sample (``_labels``). Everything else, from the checks of the data to scikit-learn's attributes, is done here once.
"""

from __future__ import annotations

import abc
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from infoplace.errors import DataError, DeclarationError, TrainingError
from infoplace.pair import resolve_device, seeded
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, check_memory
from torch import Tensor

__all__ = [
    "DeepClusterer",
    "apply_batched",
    "batches",
    "check_clusters",
    "check_input",
    "check_number",
    "check_whole",
    "place",
    "progress_over",
    "record",
]

Item = TypeVar("Item")
Estimator = TypeVar("Estimator", bound="DeepClusterer")

LARGEST_SEED = 2**32 - 1
"""What NumPy's random state takes, which k-means is seeded with."""

BATCH = 1000
"""How many samples pass a network at once where nothing is learned."""

_OVERSHOOT = 1e-4
"""How far outside [0, 1] rounding may take a pixel."""


class DeepClusterer(ClusterMixin, BaseEstimator, abc.ABC):
    """A clustering method with scikit-learn's interface that learns from a tensor on any device.

    A subclass's ``__init__`` keeps its parameters unchanged under their own names; among them are ``n_clusters``, ``seed``
    and ``device``. It gives ``_fit`` and ``_labels``, and may give ``_check_parameters``. Both get a float32 tensor on the
    CPU, `[N, features]` where ``flatten`` is set and `[N, channels, height, width]` where ``images_only`` is, and run with
    torch's random state set from ``seed``, which is afterwards as it was before. What ``_fit`` leaves in attributes whose
    names end in ``_`` is what ``_labels`` works from; its network is ``network_``.

    Attributes:
        labels_: the cluster of each sample that was learned from, int64 `[N]`, from 0 to ``n_clusters`` - 1.
        n_features_in_: how many numbers a sample has.
        history_: one dict an epoch: ``epoch``, ``loss`` and its named terms, ``seconds``.
    """

    images_only: ClassVar[bool] = False
    """Whether the method reads images only, and no vectors."""

    flatten: ClassVar[bool] = True
    """Whether the method reads a sample as one vector, whatever its shape."""

    n_clusters: int
    seed: int
    device: str | torch.device

    labels_: NDArray[np.int64]
    n_features_in_: int
    history_: list[dict[str, Any]]

    def fit(self: Estimator, X: Any, y: object = None) -> Estimator:  # noqa: N803 (scikit-learn's name)
        """Learn the clusters.

        Args:
            X: images `[N, channels, height, width]`, float in [0, 1] or uint8 in 0..255, or, where the method takes them,
                vectors `[N, features]` of any finite numbers: a tensor, or anything that ``numpy.asarray`` takes.
            y: never read; it is there so that the method fits into scikit-learn's pipelines.

        Returns:
            The estimator itself.

        Raises:
            DataError: ``X`` is of another shape or range, is not finite, or has fewer samples than there are clusters.
            DeclarationError: a parameter that cannot mean anything.
            TrainingError: the loss is no longer finite.
        """
        x = check_input(X, images_only=self.images_only)
        check_clusters(self.n_clusters, len(x))
        check_whole("seed", self.seed, 0, LARGEST_SEED)
        self._check_parameters()
        device = resolve_device(self.device)
        # An estimator whose second fit was interrupted counts as not fitted, rather than as fitted to half of each.
        self.__dict__.pop("labels_", None)
        self._shape_in = tuple(x.shape[1:])
        self.n_features_in_ = math.prod(self._shape_in)
        self.history_ = []
        x = x.flatten(1) if self.flatten else x
        with seeded(self.seed, device):
            self._fit(x, device)
            self.labels_ = self._numbers(x)
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:  # noqa: N803 (scikit-learn's name)
        """The cluster of each sample, int64 `[N]`, from 0 to ``n_clusters`` - 1.

        Args:
            X: as :meth:`fit` takes it, with as many numbers a sample.

        Raises:
            sklearn.exceptions.NotFittedError: nothing was learned yet.
            DataError: ``X`` is of another shape or range than in :meth:`fit`, or is not finite.
        """
        return self._numbers(self._checked(X))

    def _checked(self, X: Any) -> Tensor:  # noqa: N803 (scikit-learn's name)
        """The tensor that ``_labels`` takes, checked against what was learned from."""
        check_is_fitted(self, "labels_")
        x = check_input(X, images_only=self.images_only)
        given = tuple(x.shape[1:])
        fits = math.prod(given) == self.n_features_in_ if self.flatten else given == self._shape_in
        if not fits:
            learned = ", ".join(["N", *map(str, self._shape_in)])
            raise DataError(
                f"X has shape {list(x.shape)}, and {type(self).__name__} was fitted to [{learned}]; give samples of that "
                "shape, or fit again"
            )
        return x.flatten(1) if self.flatten else x

    def _numbers(self, x: Tensor) -> NDArray[np.int64]:
        with torch.no_grad():
            return self._labels(x).cpu().numpy().astype(np.int64)

    def _remembered(self, parameters: Sequence[str], x: NDArray[np.float32], device: torch.device) -> dict[str, Tensor]:
        """The weights of what ``_learn`` learns, kept in ``memory`` where there is one; its history becomes the estimator's.

        ``_learn`` takes a tensor and a device and returns a module. Nothing but ``parameters`` may matter to it.

        Raises:
            DeclarationError: a memory that is none.
        """
        memory: Any = getattr(self, "memory", None)
        try:
            kept = check_memory(memory if memory is None or hasattr(memory, "cache") else os.fspath(memory))
        except (TypeError, ValueError) as error:
            raise DeclarationError(f"memory must be a folder, a joblib.Memory or None; got {memory!r}") from error
        learn = kept.cache(_learned, ignore=["progress"])
        settings = {name: getattr(self, name) for name in parameters}
        weights, self.history_ = learn(type(self), settings, x, str(device), getattr(self, "progress", False))
        return {name: torch.from_numpy(value) for name, value in weights.items()}

    def _check_parameters(self) -> None:
        """Raise a DeclarationError at a parameter that cannot mean anything; before anything is learned."""
        return

    @abc.abstractmethod
    def _fit(self, x: Tensor, device: torch.device) -> None:
        """Learn from ``x``, which is on the CPU, on ``device``."""

    @abc.abstractmethod
    def _labels(self, x: Tensor) -> Tensor:
        """The cluster of each sample, whole numbers `[N]`; without gradients, in batches, in evaluation mode."""


def _learned(
    kind: type[Any], settings: dict[str, Any], x: NDArray[np.float32], device: str, progress: bool
) -> tuple[dict[str, NDArray[np.float32]], list[dict[str, Any]]]:
    """The weights that an estimator with these settings learns before it looks for clusters, and its history."""
    method = kind(**settings, progress=progress)
    method.history_ = []
    with seeded(method.seed, torch.device(device)):
        module = method._learn(torch.from_numpy(x), torch.device(device))
    return {name: value.cpu().numpy() for name, value in module.state_dict().items()}, method.history_


# ---- checks of what is given -----------------------------------------------------------------------------------------


def check_input(x: Any, name: str = "X", images_only: bool = False) -> Tensor:
    """What was given as a float32 tensor on the CPU; images in [0, 1], vectors as they are.

    Args:
        x: images `[N, channels, height, width]`, float in [0, 1] or uint8 in 0..255, or vectors `[N, features]` of any
            finite numbers: a tensor, or anything that ``numpy.asarray`` takes. It is never modified, and shares its memory
            with the result where it can.
        name: what messages call it.
        images_only: whether vectors are refused.

    Raises:
        DataError: no numbers, another number of dimensions, empty, values that are not finite, or images outside [0, 1].

    >>> check_input([[0, 2], [1, 3]])
    tensor([[0., 2.],
            [1., 3.]])
    >>> check_input(torch.full((1, 1, 1, 2), 255, dtype=torch.uint8))
    tensor([[[[1., 1.]]]])
    """
    given = x.detach().cpu() if isinstance(x, Tensor) else _from_array(x, name)
    if given.is_complex():
        raise DataError(f"{name} must hold real numbers; got {given.dtype}")
    shapes = "images [N, channels, height, width]" + ("" if images_only else " or vectors [N, features]")
    if given.ndim not in ((4,) if images_only else (2, 4)):
        grey = f"; grey images get their channel by {name}[:, None]" if given.ndim == 3 else ""
        raise DataError(f"{name} must be {shapes}; got shape {list(given.shape)}{grey}")
    if given.numel() == 0:
        raise DataError(f"{name} is empty: it has shape {list(given.shape)}; give at least one sample")
    tensor = given.to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        where = int((~torch.isfinite(tensor.flatten(1))).any(1).nonzero()[0])
        raise DataError(f"{name} has values that are NaN or infinite, first in sample {where}; remove or replace them")
    if given.ndim == 2:
        return tensor
    if given.dtype == torch.uint8:
        return tensor / 255
    low, high = float(tensor.min()), float(tensor.max())
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise DataError(
            f"{name} must be images with values in [0, 1], or uint8; got values from {low:.4g} to {high:.4g}; scale them "
            "first, such as by dividing by 255"
        )
    return tensor


def check_clusters(n_clusters: object, samples: int) -> None:
    """Raise unless there can be so many clusters of so many samples.

    Raises:
        DeclarationError: no whole number of 2 or more.
        DataError: more clusters than samples.

    >>> check_clusters(10, 3)
    Traceback (most recent call last):
        ...
    infoplace.errors.DataError: n_clusters is 10 and X has 3 samples; give at least as many samples as clusters
    """
    if check_whole("n_clusters", n_clusters, 2) > samples:
        raise DataError(
            f"n_clusters is {n_clusters} and X has {samples} samples; give at least as many samples as clusters"
        )


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The value as an int, where it is a whole number within its bounds.

    Raises:
        DeclarationError: anything else.

    >>> check_whole("batch_size", 0, 1)
    Traceback (most recent call last):
        ...
    infoplace.errors.DeclarationError: batch_size must be a whole number of 1 or more; got 0
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        span = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise DeclarationError(f"{name} must be a whole number {span}; got {value!r}")
    return int(value)


def check_number(
    name: str,
    value: Any,
    least: float = 0.0,
    most: float = math.inf,
    open_below: bool = False,
    open_above: bool = False,
) -> float:
    """The value as a float, where it is a finite number within its bounds.

    Args:
        name: what the message calls it.
        value: what to check.
        least: the lower bound.
        most: the upper bound.
        open_below: whether the lower bound itself is refused.
        open_above: whether the upper bound itself is refused.

    Raises:
        DeclarationError: anything else.

    >>> check_number("learning_rate", 0, open_below=True)
    Traceback (most recent call last):
        ...
    infoplace.errors.DeclarationError: learning_rate must be a number above 0; got 0
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    outside = not number or not math.isfinite(value) or value < least or value > most
    if outside or (open_below and value == least) or (open_above and value == most):
        span = f"above {least:g}" if open_below else f"of {least:g} or more"
        span += "" if math.isinf(most) else f" and {'below' if open_above else 'at most'} {most:g}"
        raise DeclarationError(f"{name} must be a number {span}; got {value!r}")
    return float(value)


def _from_array(x: Any, name: str) -> Tensor:
    try:
        array = np.asarray(x)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} must be a tensor or an array of numbers; got {type(x).__name__} of {array.dtype}")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such with its place
        return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


# ---- loops -----------------------------------------------------------------------------------------------------------


def batches(
    n: int, batch_size: int, generator: torch.Generator | None = None, drop_last: bool = False
) -> Iterator[Tensor]:
    """The numbers from 0 to n - 1 in batches, int64 `[batch]`, on the CPU: in random order once with a generator.

    Args:
        n: how many samples there are.
        batch_size: how many are in a batch; the last batch may be smaller.
        generator: draws the order; None keeps the samples' own.
        drop_last: whether to leave out a last batch that is smaller, unless it is the only one.

    >>> [batch.tolist() for batch in batches(5, 2)]
    [[0, 1], [2, 3], [4]]
    >>> [batch.tolist() for batch in batches(5, 2, drop_last=True)]
    [[0, 1], [2, 3]]
    """
    order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
    for first in range(0, n, batch_size):
        if drop_last and first > 0 and first + batch_size > n:
            return
        yield order[first : first + batch_size]


def place(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, where it takes no more than half of the memory that is free there; otherwise as it is.

    Where data stay on the CPU, a batch of them moves by ``x[index].to(device)``, which does nothing to those that moved.

    >>> place(torch.zeros(2), torch.device("cpu")).device
    device(type='cpu')
    """
    if device.type == "cuda" and x.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return x
    return x.to(device)


def apply_batched(
    function: Callable[[Tensor], Tensor], x: Tensor, device: torch.device, batch_size: int = BATCH
) -> Tensor:
    """A function of samples applied to all of them in batches on a device, without gradients; the result is on the CPU.

    >>> apply_batched(lambda batch: batch * 2, torch.arange(3), torch.device("cpu"), batch_size=2)
    tensor([0, 2, 4])
    """
    with torch.no_grad():
        return torch.cat([function(part.to(device)).cpu() for part in x.split(batch_size)])


def progress_over(iterable: Sequence[Item] | Iterable[Item], label: str, enabled: bool) -> Iterable[Item]:
    """The same items, with a progress bar on the terminal where it is enabled.

    One bar at a time: a loop inside another one has none of its own.

    >>> list(progress_over(range(3), "learning", enabled=False))
    [0, 1, 2]
    """
    if not enabled:
        return iterable
    from rich.progress import track

    return track(iterable, description=label)


def record(
    history: list[dict[str, Any]], epoch: int, started: float, loss: float, phase: str | None = None, **terms: float
) -> None:
    """Add an epoch to a history: ``epoch``, ``loss``, its named terms, ``seconds``, and the phase where there are several.

    Args:
        history: the list to add to.
        epoch: from 1.
        started: what ``time.perf_counter()`` said when the epoch began.
        loss: the mean loss of a sample over the epoch.
        phase: the name of the part of the training that the epoch belongs to.
        terms: the parts of the loss under their names, and anything else that is worth knowing.

    Raises:
        TrainingError: the loss is NaN or infinite.

    >>> history = []
    >>> record(history, 1, time.perf_counter(), 0.5, entropy=0.1)
    >>> [(row["epoch"], row["loss"], row["entropy"]) for row in history]
    [(1, 0.5, 0.1)]
    """
    if not math.isfinite(loss):
        where = f" of {phase}" if phase else ""
        raise TrainingError(f"the loss is {loss} after epoch {epoch}{where}; use a smaller learning rate")
    row: dict[str, Any] = {} if phase is None else {"phase": phase}
    history.append({**row, "epoch": epoch, "loss": loss, **terms, "seconds": time.perf_counter() - started})
