"""Filters by frequency: `low_pass`, `high_pass` and `band_stop`.

Frequencies are in cycles per sample and measured from 0 in any direction (see :mod:`infoplace_spectral.spectrum`), so a
cut-off of 0.125 lies at a wavelength of 8 pixels. A sharp edge takes frequencies away whole, and rings: next to a step,
values swing. A Gaussian edge does not ring, but multiplies by a number that is nowhere 0 (but at single frequencies), so what
it dims is lost only where it falls below what the likelihood resolves.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar

import torch
from infoplace.errors import DeclarationError
from torch import Tensor

from infoplace_spectral.base import SpatialTransform, check_choice
from infoplace_spectral.spectrum import from_spectrum, radial_frequency, to_spectrum

__all__ = ["EDGES", "BandStop", "HighPass", "LowPass", "RadialFilter"]

EDGES = ("sharp", "gaussian")
"""What ``edge`` may be."""

_HAIR = 1e-9
"""So that a frequency that is a cut-off but for rounding counts as equal to it."""


class RadialFilter(SpatialTransform):
    """Multiplies every Fourier coefficient by a gain that depends on its frequency alone.

    A subclass defines :meth:`gain`, names its cut-offs in :attr:`cutoffs` for messages, and sets :attr:`grey` where it takes
    the mean away.

    Raises:
        DeclarationError: `edge` is none of :data:`EDGES`, or what :class:`~infoplace_spectral.SpatialTransform` refuses.
    """

    _: KW_ONLY
    edge: str = "sharp"

    destroys = "some frequencies"
    stochastic = False

    cutoffs: ClassVar[tuple[str, ...]] = ("cutoff",)
    """The parameters that say which frequencies are removed."""
    grey: ClassVar[float] = 0.0
    """What is added to every value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "edge", EDGES)

    def gain(self, frequency: Tensor) -> Tensor:
        """What coefficients of these frequencies, in cycles per sample, are multiplied by; of the same shape."""
        raise NotImplementedError(f"{type(self).__name__} defines no gain(self, frequency)")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape.

        Raises:
            DeclarationError: nothing of a sample of this shape would be removed, or nothing would be left.
        """
        shape = super().output_shape(shape)
        frequency = radial_frequency(shape[-self.dims :])
        gain = self.gain(frequency)
        values = ", ".join(f"{key}={getattr(self, key):g}" for key in self.cutoffs)
        if bool((gain == 1).all()):
            lowest, highest = frequency[frequency > 0].min(), frequency.max()
            raise DeclarationError(
                f"{self.label}: {values} removes nothing from a sample of shape {shape}, whose frequencies lie from "
                f"{lowest:.3g} to {highest:.3g} cycles per sample; move it to where some are"
            )
        if not bool(gain.any()):
            raise DeclarationError(
                f"{self.label}: {values} leaves nothing of a sample of shape {shape}, whose highest frequency is "
                f"{frequency.max():.3g} cycles per sample; give less"
            )
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        sides = tuple(x.shape[-self.dims :])
        gain = self.gain(radial_frequency(sides)).to(x.device)

        def filtered(values: Tensor) -> Tensor:
            return from_spectrum(to_spectrum(values, self.dims) * gain.to(values.dtype), sides) + self.grey

        return self.in_range(x, filtered)


class LowPass(RadialFilter):
    """Removes frequencies above `cutoff` cycles per sample: fine detail goes, shading stays.

    With a sharp edge, frequencies up to the cut-off stay as they are. With a Gaussian one the frequency `f` is multiplied by
    `2 ** -(f / cutoff)**2`, half at the cut-off.

    Raises:
        DeclarationError: `cutoff` is not above 0 and at most 0.5.

    >>> x = torch.tensor([0.4, 0.6]).repeat(4) + torch.tensor([0.1, 0.1, 0.1, 0.1, -0.1, -0.1, -0.1, -0.1])
    >>> LowPass(cutoff=0.125, dims=1)(x[None, None])
    tensor([[[0.5500, 0.6207, 0.6207, 0.5500, 0.4500, 0.3793, 0.3793, 0.4500]]])
    """

    cutoff: float = 0.125

    destroys = "fine detail"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("cutoff", 0, 0.5, positive=True)

    def gain(self, frequency: Tensor) -> Tensor:
        if self.edge == "gaussian":
            return torch.exp2(-((frequency / self.cutoff) ** 2))
        return (frequency <= self.cutoff + _HAIR).to(frequency.dtype)


class HighPass(RadialFilter):
    """Removes frequencies up to `cutoff` cycles per sample, the mean among them: shading goes, fine detail stays, on grey.

    What is left is shown about 0.5, so the mean of every channel is 0.5. With a sharp edge, frequencies above the cut-off
    stay as they are. With a Gaussian one the frequency `f` is multiplied by `1 - 2 ** -(f / cutoff)**2`, half at the
    cut-off. What `low_pass` with the same parameters leaves and what this one leaves add up to the sample.

    Raises:
        DeclarationError: `cutoff` is not above 0 and at most 0.5.

    >>> x = torch.tensor([0.4, 0.6]).repeat(4) + torch.tensor([0.1, 0.1, 0.1, 0.1, -0.1, -0.1, -0.1, -0.1])
    >>> HighPass(cutoff=0.4, dims=1)(x[None, None])
    tensor([[[0.4000, 0.6000, 0.4000, 0.6000, 0.4000, 0.6000, 0.4000, 0.6000]]])
    """

    cutoff: float = 0.125

    destroys = "shading"
    grey = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("cutoff", 0, 0.5, positive=True)

    def gain(self, frequency: Tensor) -> Tensor:
        if self.edge == "gaussian":
            return 1 - torch.exp2(-((frequency / self.cutoff) ** 2))
        return (frequency > self.cutoff + _HAIR).to(frequency.dtype)


class BandStop(RadialFilter):
    """Removes the frequencies from `low` to `high` cycles per sample: detail of one scale goes.

    With a sharp edge, all others stay as they are. With a Gaussian one the frequency `f` is multiplied by
    `1 - 2 ** -((f**2 - low * high) / (f * (high - low)))**2`: half at `low` and `high`, 0 at their geometric mean, 1 at
    frequency 0. It is the Gaussian band-reject filter of Gonzalez and Woods, "Digital image processing", scaled so that the
    edges are where `low` and `high` say.

    Raises:
        DeclarationError: `low` is not above 0, or not below `high`, or `high` is above 0.5.

    >>> time = torch.arange(8)
    >>> kept, removed = torch.sin(2 * torch.pi * time / 8), torch.sin(2 * torch.pi * 2 * time / 8)
    >>> y = BandStop(low=0.2, high=0.3, dims=1)((0.5 + 0.2 * kept + 0.2 * removed)[None, None])
    >>> torch.allclose(y, 0.5 + 0.2 * kept, atol=1e-6)
    True
    """

    low: float = 0.125
    high: float = 0.25

    destroys = "detail of one scale"
    cutoffs = ("low", "high")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("low", 0, 0.5, positive=True)
        self.check_number("high", 0, 0.5, positive=True)
        if self.low >= self.high:
            raise DeclarationError(f"{self.label}: low must be below high; got low={self.low:g} and high={self.high:g}")

    def gain(self, frequency: Tensor) -> Tensor:
        if self.edge == "gaussian":
            # At frequency 0 the distance is infinite, and the gain 1.
            distance = (frequency**2 - self.low * self.high) / (frequency * (self.high - self.low))
            return 1 - torch.exp2(-(distance**2))
        outside = (frequency < self.low - _HAIR) | (frequency > self.high + _HAIR)
        return outside.to(frequency.dtype)
