"""Networks that an objective brings along, and how they learn beside the model and the guide."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from infoplace.errors import DataError
from infoplace.objectives import Objective, label
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["apply", "frozen", "perceptron", "with_gradient_of"]


def perceptron(inputs: int, width: int, layers: int, outputs: int) -> nn.Module:
    """A perceptron with ``layers`` hidden layers of leaky rectifiers.

    It starts the same every time, and torch's random state stays as it was: an objective is made anew from its spec.
    """
    sizes = [inputs, *[width] * layers]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs as well
        hidden = [(nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.2)) for fan_in, fan_out in itertools.pairwise(sizes)]
        return nn.Sequential(*itertools.chain.from_iterable(hidden), nn.Linear(sizes[-1], outputs))


def apply(objective: Objective, module: nn.Module, value: Tensor) -> Tensor:
    """The network's output, with gradients in its weights and in ``value``; it computes in the dtype of ``value``.

    Raises:
        DataError: the network is on another device than the codes.
    """
    weights = dict(module.named_parameters())
    device = next(iter(weights.values())).device
    if device != value.device:
        raise DataError(
            f"{label(objective)}: the codes are on {value.device} and the objective's network is on {device}; move it: "
            f"objective.module.to({str(value.device)!r})"
        )
    return _call(module, weights, value)


def frozen(module: nn.Module, value: Tensor) -> Tensor:
    """As :func:`apply`, with gradients in ``value`` alone."""
    return _call(module, {name: weight.detach() for name, weight in module.named_parameters()}, value)


def _call(module: nn.Module, weights: Mapping[str, Tensor], value: Tensor) -> Tensor:
    # Without autocast, whose few digits are too coarse for log densities and their ratios.
    with torch.autocast(value.device.type, enabled=False):
        return functional_call(module, {name: weight.to(value.dtype) for name, weight in weights.items()}, (value,))


def with_gradient_of(value: Tensor, learning: Tensor, weight: float) -> Tensor:
    """``value``, and beside its own gradient that of ``learning``, so that at ``weight`` the latter counts once.

    The value stays as it is: what a network learns by is no part of the loss that it is used in.
    """
    return value + (learning - learning.detach()) / weight
