"""What all transforms of this package share: over which dimensions they work, and how results come to lie in [0, 1].

A transform that changes a spectrum gives values outside [0, 1] even where all of its input lay inside. Clipping them is a
change of its own: it puts energy back at frequencies that were taken away, and alters amplitudes that were to be kept. So
the default is another one, and `fit` names all three:

| `fit` | what it does to a sample | what is kept exactly |
| --- | --- | --- |
| ``"shrink"`` | multiplies the deviations from each channel's mean by one factor, the largest up to 1 that fits | \
each channel's mean; the amplitudes at all other frequencies up to that factor |
| ``"shift"`` | shrinks only where the values span more than 1, and then adds one number to all values | \
the amplitudes at all other frequencies up to that factor, which is larger here |
| ``"clip"`` | sets values below 0 to 0, and above 1 to 1 | the values inside |

None of them looks at anything but the transformed sample, so none of them gives back what the transform destroyed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY

import torch
from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, join_names
from infoplace.transforms import Transform
from torch import Tensor

__all__ = [
    "FITS",
    "SpatialTransform",
    "check_choice",
    "fit_range",
]

FITS = ("shrink", "shift", "clip")
"""What ``fit`` may be."""

_SIDES = ("depth", "height", "width")

_SLACK = 32
"""Rounding errors of a Fourier transform, in units of the type's precision; a channel that is 1 throughout has them too."""


def check_choice(transform: Transform, field: str, options: Iterable[str]) -> None:
    """Refuse a parameter that is none of ``options``.

    Raises:
        UnknownNameError: it is none of them.
    """
    value, options = getattr(transform, field), tuple(options)
    if value not in options:
        raise UnknownNameError(
            f"{transform.label}: {field} must be one of {join_names(options)}; got {value!r}."
            f"{did_you_mean(value, options)}"
        )


class SpatialTransform(Transform):
    """A transform over the last `dims` dimensions of every sample, whose results are brought into [0, 1] by `fit`.

    ``dims=1`` takes `[batch, channels, length]`, ``dims=2`` `[batch, channels, height, width]` and ``dims=3``
    `[batch, channels, depth, height, width]`; more dimensions may stand before the channels and are treated as channels.
    A subclass defines ``apply``, mostly through :meth:`in_range`, and checks its own parameters after ``super()``'s.

    Raises:
        DeclarationError: `dims` is not 1, 2 or 3, or `fit` is none of :data:`FITS`.
    """

    _: KW_ONLY
    dims: int = 2
    fit: str = "shrink"

    def __post_init__(self) -> None:
        self.check_integer("dims", 1, 3)
        check_choice(self, "fit", FITS)
        sides = ("length",) if self.dims == 1 else _SIDES[-self.dims :]
        object.__setattr__(self, "axes", ("channels", *sides))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape.

        Raises:
            DeclarationError: fewer dimensions than `dims` and the channels, or a single value in each channel.
        """
        shape = super().output_shape(shape)
        if math.prod(shape[-self.dims :]) == 1:
            raise DeclarationError(
                f"{self.label} takes samples of at least 2 values a channel; got shape {shape}, which has 1; "
                "leave it out"
            )
        return shape

    def in_range(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of a batch as floats, brought into [0, 1] by :attr:`fit` and given back in the batch's type.

        Args:
            x: `[batch, ..., *sides]`, floats in [0, 1] or uint8 in 0..255. Half precision is computed with in float32.
            function: from floats to floats of the same shape; it may return any finite numbers.

        Returns:
            the shape and type of ``x``. uint8 is rounded, which adds up to half a grey level of noise.

        Raises:
            DataError: values of another type.
        """
        if x.dtype == torch.uint8:
            values = x.float() / 255
        elif x.is_floating_point():
            values = x if x.dtype == torch.float64 else x.float()
        else:
            raise DataError(
                f"{self.label} takes floats in [0, 1] or uint8 in 0..255; got {x.dtype}; "
                "use x.to(torch.uint8), or x.float() / 255 for pixels"
            )
        fitted = fit_range(function(values.contiguous()), self.fit, self.dims)
        return (fitted * 255).round().to(torch.uint8) if x.dtype == torch.uint8 else fitted.to(x.dtype)


def fit_range(values: Tensor, fit: str = "shrink", dims: int = 2) -> Tensor:
    """Bring the values of every sample into [0, 1], each sample on its own.

    With `m` the mean of a channel and `y` its values, ``"shrink"`` gives `m + c (y - m)` with the largest `c` up to 1 that
    suits all channels of the sample, ``"shift"`` gives `c y + b` with `c = 1 / max(1, max(y) - min(y))` and the `b`
    nearest to 0, and ``"clip"`` gives `min(max(y, 0), 1)`.

    Args:
        values: `[batch, ..., *sides]`, floats.
        fit: one of :data:`FITS`.
        dims: how many dimensions the sides are.

    Returns:
        the same shape, in [0, 1]. With ``"shrink"``, a channel whose mean lies outside [0, 1] becomes flat, at 0 or 1.

    Raises:
        UnknownNameError: ``fit`` is none of :data:`FITS`.

    >>> fit_range(torch.tensor([[[-0.5, 0.5, 0.75, 0.25]]]), dims=1)
    tensor([[[0.0000, 0.3333, 0.4167, 0.2500]]])
    >>> fit_range(torch.tensor([[[-0.5, 0.5, 0.75, 0.25]]]), "shift", dims=1)
    tensor([[[0.0000, 0.8000, 1.0000, 0.6000]]])
    >>> fit_range(torch.tensor([[[-0.5, 0.5, 0.75, 0.25]]]), "clip", dims=1)
    tensor([[[0.0000, 0.5000, 0.7500, 0.2500]]])
    """
    if fit not in FITS:
        raise UnknownNameError(f"fit must be one of {join_names(FITS)}; got {fit!r}.{did_you_mean(fit, FITS)}")
    one_each = (-1, *([1] * (values.ndim - 1)))
    if fit == "shrink":
        spatial = tuple(range(-dims, 0))
        slack = _SLACK * torch.finfo(values.dtype).eps
        mean = values.mean(spatial, keepdim=True)
        deviation = values - mean
        above = (1 - mean + slack) / deviation.amax(spatial, keepdim=True).clamp(min=slack)
        below = (mean + slack) / (-deviation).amax(spatial, keepdim=True).clamp(min=slack)
        factor = torch.minimum(above, below).flatten(1).amin(1).clamp(0, 1)
        values = mean + factor.view(one_each) * deviation
    elif fit == "shift":
        flat = values.flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        scale = (high - low).clamp(min=1)
        offset = (-low / scale).clamp(min=0) - (high / scale - 1).clamp(min=0)
        values = values / scale.view(one_each) + offset.view(one_each)
    return values.clamp(0, 1)
