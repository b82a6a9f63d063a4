"""The discrete Fourier transform of samples, and where its frequencies lie.

A sample is taken to repeat itself beyond its borders, as every discrete Fourier transform takes it. The frequency of a
coefficient is the length of its vector of frequencies along the sides, in cycles per sample: up to 0.5 along a side, and up
to `0.5 sqrt(dims)` in the corners.
"""

from __future__ import annotations

import math

import torch
from infoplace.errors import DataError
from torch import Tensor

__all__ = ["amplitude_spectrum", "directions", "from_spectrum", "radial_frequency", "to_spectrum"]

_NOTHING = 32
"""Amplitudes below this many times the precision times a channel's largest one are rounding errors and have no phase."""


def to_spectrum(x: Tensor, dims: int) -> Tensor:
    """The coefficients of real values over their last ``dims`` dimensions, without the redundant half of the last one.

    Args:
        x: `[..., *sides]`, float32 or float64.
        dims: how many dimensions the sides are.

    Returns:
        complex `[..., *sides[:-1], sides[-1] // 2 + 1]`.
    """
    return torch.fft.rfftn(x, dim=tuple(range(-dims, 0)))


def from_spectrum(coefficients: Tensor, sides: tuple[int, ...]) -> Tensor:
    """The real values `[..., *sides]` that have the coefficients which :func:`to_spectrum` gives.

    Args:
        coefficients: complex `[..., *sides[:-1], sides[-1] // 2 + 1]`.
        sides: the sides of the values, which the coefficients alone do not tell.
    """
    return torch.fft.irfftn(coefficients, s=sides, dim=tuple(range(-len(sides), 0)))


def directions(coefficients: Tensor, dims: int) -> Tensor:
    """Each coefficient divided by its absolute value; 0 for one that is nothing but rounding.

    Args:
        coefficients: complex `[..., *frequencies]`.
        dims: how many dimensions the frequencies are.
    """
    size = coefficients.abs()
    least = _NOTHING * torch.finfo(size.dtype).eps * size.amax(tuple(range(-dims, 0)), keepdim=True)
    return coefficients.sgn() * (size > least)


def radial_frequency(sides: tuple[int, ...]) -> Tensor:
    """The frequency of every coefficient of :func:`to_spectrum`, in cycles per sample.

    Args:
        sides: the sides of a sample.

    Returns:
        float64 `[*sides[:-1], sides[-1] // 2 + 1]`, from 0 to `0.5 sqrt(len(sides))`.

    >>> radial_frequency((8,))
    tensor([0.0000, 0.1250, 0.2500, 0.3750, 0.5000], dtype=torch.float64)
    >>> radial_frequency((2, 2))
    tensor([[0.0000, 0.5000],
            [0.5000, 0.7071]], dtype=torch.float64)
    """
    counts = [torch.arange(side, dtype=torch.float64) for side in sides]
    nearest = [torch.minimum(count, side - count) / side for count, side in zip(counts, sides, strict=True)]
    nearest[-1] = nearest[-1][: sides[-1] // 2 + 1]
    grid = torch.meshgrid(*nearest, indexing="ij")
    return torch.stack(grid).square().sum(0).sqrt()


def amplitude_spectrum(x: Tensor, dims: int = 2) -> Tensor:
    """The absolute values of the Fourier coefficients, divided by the number of values: what the filters change.

    A sinusoid of amplitude `a` has `a / 2` at its frequency (and at the opposite one, unless that is the same); a constant
    `a` has `a` at frequency 0.

    Args:
        x: `[..., *sides]`, floats in [0, 1] or uint8 in 0..255, which is divided by 255.
        dims: how many dimensions the sides are.

    Returns:
        `[..., *sides[:-1], sides[-1] // 2 + 1]`, its frequencies as :func:`radial_frequency` gives them.

    Raises:
        DataError: values of another type, or fewer dimensions than ``dims``.

    >>> amplitude_spectrum(torch.tensor([[0.5, 1.0, 0.5, 0.0]]), dims=1)
    tensor([[0.5000, 0.2500, 0.0000]])
    """
    if x.ndim < dims:
        raise DataError(f"the amplitude spectrum over {dims} dimensions needs as many; got shape {tuple(x.shape)}")
    if x.dtype == torch.uint8:
        x = x.float() / 255
    elif not x.is_floating_point():
        raise DataError(f"the amplitude spectrum is of floats or uint8; got {x.dtype}; use x.float()")
    values = x if x.dtype == torch.float64 else x.float()
    return to_spectrum(values, dims).abs() / math.prod(x.shape[-dims:])
