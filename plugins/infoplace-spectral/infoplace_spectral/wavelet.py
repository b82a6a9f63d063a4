"""`wavelet_shuffle`, and the Haar transform that it stands on.

The orthonormal Haar transform replaces every pair of neighbours `a, b` along a side by `(a + b) / sqrt(2)` and
`(a - b) / sqrt(2)`. Done along all sides, it gives `2 ** dims` bands of half the size: one of sums, the approximation, and the
others of differences, the details. The next level does the same to the approximation (Mallat, "A theory for multiresolution
signal decomposition", 1989). Sums of squares are kept.
"""

from __future__ import annotations

import math

import torch
from infoplace.errors import DataError, DeclarationError, is_whole
from infoplace.transforms import draw_uniform
from torch import Tensor

from infoplace_spectral.base import SpatialTransform

__all__ = ["WaveletShuffle", "haar", "inverse_haar"]


class WaveletShuffle(SpatialTransform):
    """Moves the Haar coefficients of every band to random places in it, freshly for every sample: the layout of detail goes.

    What there is at each scale and in each direction stays, to the value: a band keeps its histogram and its energy.
    Where it is goes, at each scale on its own. After `levels` levels the approximation, means over blocks of `2 ** levels` a
    side, stays where it is, unless `coarse` shuffles it like a band. Sides have to be divisible by `2 ** levels`.

    Every band is shuffled on its own, and the channels of a sample move together, so a coefficient keeps its colour;
    `per_channel` shuffles each channel on its own. Bands keep their histograms up to the factor by which `fit` shrinks, and
    with ``fit="clip"`` about.

    Raises:
        DeclarationError: `levels` is not an integer of at least 1, or `coarse` or `per_channel` is not true or false.

    >>> x = torch.tensor([0.6, 0.4, 0.5, 0.5]).view(1, 1, 4)
    >>> WaveletShuffle(levels=1, dims=1)(x, generator=torch.Generator().manual_seed(0))
    tensor([[[0.5000, 0.5000, 0.6000, 0.4000]]])
    """

    levels: int = 3
    coarse: bool = False
    per_channel: bool = False

    destroys = "layout of detail"
    stochastic = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_integer("levels", 1)
        self.check_flag("coarse")
        self.check_flag("per_channel")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape.

        Raises:
            DeclarationError: sides that `2 ** levels` does not divide, or with bands of a single coefficient only.
        """
        shape = super().output_shape(shape)
        problem = _indivisible(shape, self.levels, self.dims)
        if problem:
            raise DeclarationError(f"{self.label}: {problem}")
        if max(shape[-self.dims :]) == 2:
            raise DeclarationError(
                f"{self.label} takes samples of at least 4 values along a side; got shape {shape}, whose bands have a "
                "single coefficient each"
            )
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        def shuffled(values: Tensor) -> Tensor:
            approximation, details = haar(values, self.levels, self.dims)
            moved = [self._shuffle(bands, generator) for bands in details]
            if self.coarse:
                approximation = self._shuffle(approximation[None], generator)[0]
            return inverse_haar(approximation, moved, self.dims)

        return self.in_range(x, shuffled)

    def _shuffle(self, bands: Tensor, generator: torch.Generator | None) -> Tensor:
        """`[bands, batch, ..., *sides]` with the places in every band of every sample permuted."""
        count, batch, *between = bands.shape[: -self.dims]
        channels = between if self.per_channel else [1] * len(between)
        flat = bands.flatten(-self.dims)
        order = draw_uniform((batch, count, *channels, flat.shape[-1]), bands, generator).argsort(-1).transpose(0, 1)
        return flat.gather(-1, order.expand(flat.shape)).view(bands.shape)


def haar(x: Tensor, levels: int = 1, dims: int = 2) -> tuple[Tensor, list[Tensor]]:
    """The orthonormal Haar transform over the last ``dims`` dimensions.

    Args:
        x: `[..., *sides]`, floats.
        levels: how often the approximation is split, 1 or more.
        dims: how many dimensions the sides are.

    Returns:
        the approximation `[..., *sides / 2 ** levels]`, and for each level, the finest first, its details
        `[2 ** dims - 1, ..., *sides / 2 ** level]`. Details at index `i` are differences along those sides, counted from
        the first, whose bits are set in `i + 1`, and sums along the others.

    Raises:
        DataError: ``levels`` that is no such number, or sides that ``2 ** levels`` does not divide.

    >>> approximation, details = haar(torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
    >>> [round(value, 4) for value in (approximation.item(), *details[0].flatten().tolist())]
    [3.0, 1.0, 1.0, 1.0]
    """
    if not is_whole(levels) or levels < 1:
        raise DataError(f"haar: levels must be an integer of at least 1; got {levels!r}")
    if x.ndim < dims or not x.is_floating_point():
        raise DataError(f"haar takes floats of at least {dims} dimensions; got {x.dtype} of shape {tuple(x.shape)}")
    problem = _indivisible(tuple(x.shape), levels, dims)
    if problem:
        raise DataError(f"haar: {problem}")
    details = []
    for _ in range(levels):
        bands = x[None]
        for axis in range(-dims, 0):
            even, odd = bands.unflatten(axis, (-1, 2)).unbind(axis)
            bands = torch.cat([even + odd, even - odd]) * math.sqrt(0.5)
        x = bands[0]
        details.append(bands[1:])
    return x, details


def inverse_haar(approximation: Tensor, details: list[Tensor], dims: int = 2) -> Tensor:
    """The values that :func:`haar` gives this approximation and these details for.

    Args:
        approximation: `[..., *sides]`.
        details: for each level, the finest first, `[2 ** dims - 1, ..., *sides of that level]`.
        dims: how many dimensions the sides are.

    Raises:
        DataError: details that do not fit the approximation.

    >>> x = torch.rand(3, 8, 4)
    >>> torch.allclose(inverse_haar(*haar(x, levels=2)), x, atol=1e-6)
    True
    """
    values = approximation
    for level, finer in reversed(list(enumerate(details))):
        expected = (2**dims - 1, *values.shape)
        if tuple(finer.shape) != expected:
            raise DataError(
                f"inverse_haar: the details of level {level + 1} must have shape {expected}; got {tuple(finer.shape)}"
            )
        bands = torch.cat([values[None], finer])
        for axis in range(-1, -dims - 1, -1):
            sums, differences = bands.chunk(2)
            pairs = torch.stack([sums + differences, sums - differences], axis)
            bands = pairs.flatten(axis - 1, axis) * math.sqrt(0.5)
        values = bands[0]
    return values


def _indivisible(shape: tuple[int, ...], levels: int, dims: int) -> str:
    """What is wrong with the sides, or nothing."""
    sides = shape[-dims:]
    if all(side % 2**levels == 0 for side in sides):
        return ""
    common = math.gcd(*sides)
    most = (common & -common).bit_length() - 1
    choices = "1" if most == 1 else f"1 to {most}"
    advice = f"levels can be {choices}" if most else "crop or pad them to even sides"
    listed = " x ".join(str(side) for side in sides)
    return f"levels={levels} needs sides that {2**levels} divides; got {listed} in shape {shape}; {advice}"
