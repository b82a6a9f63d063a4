"""Scores: accuracy, squared correlation, the partial one, chance, and what is left after normalising."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from infoplace.errors import DataError
from infoplace.probes import accuracy, squared_correlation

__all__ = ["accuracy", "chance", "normalised", "partial_squared_correlation", "squared_correlation"]


def chance(labels: Tensor) -> float:
    """The best accuracy that one constant answer reaches: the share of the commonest label.

    Args:
        labels: whole numbers ``[N]``.

    Raises:
        DataError: not one-dimensional, or empty.

    >>> chance(torch.tensor([0, 1, 1, 2]))
    0.5
    """
    if labels.ndim != 1 or not len(labels):
        raise DataError(f"chance needs labels [N], N of 1 or more; got {list(labels.shape)}")
    return labels.unique(return_counts=True)[1].max().item() / len(labels)


def normalised(score: float, real: float, chance: float) -> float:
    """``(score - chance) / (real - chance)``: 0 at chance, 1 at what the predictor reaches on real images.

    NaN when ``real`` is no better than ``chance``: such a predictor measures nothing.

    >>> round(normalised(0.80, real=0.95, chance=0.10), 2)
    0.82
    """
    return (score - chance) / (real - chance) if real > chance else math.nan


def partial_squared_correlation(true: Tensor, predicted: Tensor, given: Tensor) -> float:
    """What a prediction tells of the truth beyond what a third, discrete factor tells already: in [0, 1].

    The squared correlation (see :func:`squared_correlation`) of the residuals that are left of both when the mean of
    their group, the samples of equal ``given``, is taken away. A ground colour may be half known from which of ink and
    ground is brighter; this is the other half.

    Args:
        true: ``[N]`` or ``[N, channels]``.
        predicted: the same shape.
        given: ``[N]``, discrete: 2 groups or some more, each of 2 samples or more on average.

    Raises:
        DataError: the shapes differ, a value is not finite, or ``given`` is not discrete.

    >>> brightness, group = torch.tensor([1.0, 2.0, 11.0, 12.0]), torch.tensor([0, 0, 1, 1])
    >>> partial_squared_correlation(brightness, 10.0 * group, group)  # tells the group and nothing else
    0.0
    >>> round(partial_squared_correlation(brightness, brightness, group), 9)
    1.0
    """
    if given.ndim != 1 or given.shape != true.shape[:1]:
        raise DataError(f"given must be [{len(true)}], one value for each sample; got {list(given.shape)}")
    groups, index = given.cpu().unique(return_inverse=True)
    if 2 * len(groups) > len(given):
        raise DataError(
            f"given has {len(groups)} distinct values in {len(given)} samples; it must be discrete: "
            "bin a continuous factor first"
        )
    return squared_correlation(*(_residual(values, index, len(groups)) for values in (true, predicted)))


def _residual(values: Tensor, index: Tensor, groups: int) -> Tensor:
    columns = values.detach().double().cpu().reshape(len(values), -1)
    counts = torch.bincount(index, minlength=groups).unsqueeze(1)
    means = torch.zeros(groups, columns.shape[1]).double().index_add_(0, index, columns) / counts
    residual = columns - means[index]
    # Rounding is all that is left where the group says everything, and rounding correlates with anything.
    residual[:, residual.norm(dim=0) <= 1e-12 * columns.norm(dim=0)] = 0.0
    return residual.reshape(values.shape)
