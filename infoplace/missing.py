"""Values that are not there: NaN among numbers, and -1 among classes."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Independent
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from infoplace.errors import DataError

__all__ = ["filled", "known", "leave_out", "with_known"]


def known(value: Tensor) -> Tensor:
    """Which values are there: those that are not NaN, or, among integers, not below 0.

    >>> known(torch.tensor([0.5, float("nan")])), known(torch.tensor([2, -1]))
    (tensor([ True, False]), tensor([ True, False]))
    """
    return ~value.isnan() if value.is_floating_point() else value >= 0


def filled(value: Tensor) -> Tensor:
    """A copy with 0, which every stock likelihood can score, for what is missing.

    >>> filled(torch.tensor([2, -1]))
    tensor([2, 0])
    """
    return torch.where(known(value), value, torch.zeros_like(value))


def leave_out(likelihood: TorchDistributionMixin, value: Tensor, name: str) -> tuple[Any, Tensor]:
    """A likelihood that scores what is there of a value, and the value with the rest filled.

    What is missing is summed or integrated out: the elements of a stock likelihood are independent given the blocks, so that
    leaves their factors out.

    Args:
        likelihood: batch shape `[*]`, event shape that of one sample.
        value: `[*, *event_shape]`.
        name: what to call it in the message.

    Raises:
        DataError: a likelihood that does not say the probability of single elements.

    >>> from pyro.distributions import Normal
    >>> likelihood, value = leave_out(Normal(torch.zeros(1, 2), 1.0).to_event(1), torch.tensor([[0.0, float("nan")]]), "x")
    >>> likelihood.log_prob(value)
    tensor([-0.9189])
    """
    mask, dims = known(value), len(likelihood.event_shape)
    if dims == 0:
        return likelihood.mask(mask), filled(value)
    if isinstance(likelihood, Independent) and likelihood.reinterpreted_batch_ndims == dims:
        return likelihood.base_dist.mask(mask).to_event(dims), filled(value)
    raise DataError(
        f"{name} may be missing in part, and its decoder returns a {type(likelihood).__name__}, which scores a sample as a "
        f"whole; let it return element-wise distributions with .to_event({dims}), or raw parameters"
    )


def with_known(features: Tensor, value: Tensor) -> Tensor:
    """What an encoder reads of a value that may be missing: features, 0 where it is, and which of them are there.

    Args:
        features: what the likelihood's ``encode`` makes of the filled value: `[*, *shape]`, or `[*, k, *shape]`.
        value: `[*, *shape]` with a leading batch dimension.

    Returns:
        `[*, first + 1 or 2 first, ...]`: the mask is appended along the first dimension of a sample's features.

    >>> with_known(torch.tensor([[0.5], [0.0]]), torch.tensor([[0.5], [float("nan")]]))
    tensor([[0.5000, 1.0000],
            [0.0000, 0.0000]])
    """
    mask = known(value).to(features.dtype)
    if features.ndim == 1:
        features, mask = features.unsqueeze(1), mask.unsqueeze(1)
    elif features.ndim > mask.ndim:
        mask = mask.unsqueeze(1)
    return torch.cat([features * mask, mask], dim=1)
