"""The transforms that come with the package."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from infoplace.errors import DeclarationError, is_whole
from infoplace.transforms.base import IMAGE, Transform, draw_uniform, register_transform

SPATIAL = ("depth", "height", "width")


# ---- moving pixels --------------------------------------------------------------------------------------------------


@register_transform("patch_shuffle")
class PatchShuffle(Transform):
    """Permutes patches of `n` pixels a side over the last `dims` dimensions, freshly for every sample.

    Every permutation of a sample's patches is equally likely, and channels move together. ``dims=1`` cuts
    `[batch, ..., length]` into segments, ``dims=2`` cuts images into squares, ``dims=3`` cuts
    `[batch, channels, depth, height, width]` into cubes. What is inside a patch survives; how patches lie to each other
    does not. It is the ``g`` of section 2.2 of the paper, "Explicit information placement on latent variables using
    auxiliary generative modelling task". Values of any type are moved as they are.

    >>> from infoplace import make_transform
    >>> x = torch.arange(6.0).view(1, 6) / 5
    >>> segments = make_transform("patch_shuffle", n=2, dims=1)
    >>> segments(x, generator=torch.Generator().manual_seed(1)).sort().values.equal(x)
    True
    """

    n: int = 8
    dims: int = 2

    destroys = "global structure"
    stochastic = True
    axes = IMAGE

    def __post_init__(self) -> None:
        self.check_integer("n", 1)
        self.check_integer("dims", 1, 3)
        self._set("axes", ("length",) if self.dims == 1 else ("channels", *SPATIAL[-self.dims :]))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        _check_tiling(self, "n", shape, self.dims)
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return _shuffle_patches(x, self.n, self.dims, generator)


@register_transform("histogram")
class Histogram(Transform):
    """Shuffles every pixel of an image, freshly for every sample: only the palette stays.

    The same as `patch_shuffle` with ``n=1``.
    """

    destroys = "spatial structure"
    stochastic = True
    axes = IMAGE

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return _shuffle_patches(x, 1, 2, generator)


@register_transform("rotate90")
class Rotate90(Transform):
    """Turns every square image by 0, 90, 180 or 270 degrees, each equally likely."""

    destroys = "orientation"
    stochastic = True
    axes = IMAGE

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        height, width = shape[-2:]
        if height != width:
            raise DeclarationError(
                f"{self.label} takes square images; got height {height} and width {width} in shape {shape}; "
                f"crop or pad them to {min(height, width)} x {min(height, width)}, say"
            )
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        side = x.shape[-1]
        positions = torch.arange(side * side, device=x.device).view(side, side)
        turned = torch.stack([torch.rot90(positions, quarter) for quarter in range(4)]).flatten(1)
        quarters = (draw_uniform((len(x),), x, generator) * 4).long()
        return _take(x, turned[quarters])


@register_transform("channel_shuffle")
class ChannelShuffle(Transform):
    """Permutes the channels of every image, each permutation equally likely."""

    destroys = "channel order"
    stochastic = True
    axes = IMAGE

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        if shape[-3] < 2:
            raise DeclarationError(
                f"{self.label} takes images of at least 2 channels; got {shape[-3]} in shape {shape}, "
                "where nothing can be shuffled; leave it out"
            )
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        order = draw_uniform((len(x), x.shape[-3]), x, generator).argsort(1)
        frames = x.flatten(1, -4) if x.ndim > 4 else x.unsqueeze(1)
        index = order.view(len(x), 1, -1, 1, 1).expand(frames.shape)
        return frames.gather(2, index).view(x.shape)


@register_transform("mask")
class Mask(Transform):
    """Blanks a `share` of the patches of `n` x `n` pixels to zero, chosen freshly for every sample.

    The number of blanked patches is the share of all patches, rounded, and at least one. Channels are blanked together.
    """

    share: float = 0.5
    n: int = 8

    destroys = "part of the image"
    stochastic = True
    axes = IMAGE

    def __post_init__(self) -> None:
        self.check_number("share", 0, 1, positive=True)
        self.check_integer("n", 1)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        _check_tiling(self, "n", shape, 2)
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        rows, columns = x.shape[-2] // self.n, x.shape[-1] // self.n
        hidden = max(1, round(self.share * rows * columns))
        order = draw_uniform((len(x), rows * columns), x, generator).argsort(1)
        mask = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :hidden], True)
        pixels = _enlarge(mask.view(len(x), rows, columns), self.n)
        return x.masked_fill(pixels.view(len(x), *([1] * (x.ndim - 3)), *pixels.shape[-2:]), 0)


@register_transform("cover")
class Cover(Transform):
    """Blanks a rectangle in the middle of every image to zero, or with `outside` all but that rectangle.

    The rectangle has the share `width` of the image's width and `height` of its height, in whole pixels, rounded, and at
    least one. An observation that is covered in the middle says what the surroundings are and nothing of what they surround.

    >>> from infoplace import make_transform
    >>> make_transform("cover", width=0.5, height=1.0)(torch.ones(1, 1, 2, 4))
    tensor([[[[1., 0., 0., 1.],
              [1., 0., 0., 1.]]]])
    """

    width: float = 0.5
    height: float = 0.5
    outside: bool = False

    destroys = "the middle"
    stochastic = False
    axes = IMAGE

    def __post_init__(self) -> None:
        self.check_number("width", 0, 1, positive=True)
        self.check_number("height", 0, 1, positive=True)
        self.check_flag("outside")
        if self.width == self.height == 1:
            raise DeclarationError(
                f"{self.label}: width and height are both 1, so nothing or everything is covered; give less"
            )

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        spans = []
        for side, share in zip(x.shape[-2:], (self.height, self.width), strict=True):
            length = max(1, round(share * side))
            start = (side - length) // 2
            spans.append(slice(start, start + length))
        inside = torch.zeros(x.shape[-2:], dtype=torch.bool, device=x.device)
        inside[spans[0], spans[1]] = True
        return x.masked_fill(~inside if self.outside else inside, 0)


# ---- changing values ------------------------------------------------------------------------------------------------


@register_transform("grayscale")
class Grayscale(Transform):
    """Turns red, green and blue into brightness, on `channels` equal channels (1 or 3).

    The brightness is ITU-R BT.601's, ``0.299 red + 0.587 green + 0.114 blue``.

    >>> from infoplace import make_transform
    >>> make_transform("grayscale")(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
    tensor([0.2990, 0.2990, 0.2990])
    """

    channels: int = 3

    destroys = "colour"
    stochastic = False
    axes = IMAGE

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or not is_whole(self.channels):
            raise DeclarationError(f"{self.label}: channels must be 1 or 3; got {self.channels!r}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        _check_colour(self, shape)
        return (*shape[:-3], self.channels, *shape[-2:])

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        from kornia.color import rgb_to_grayscale

        return self.in_floats(x, rgb_to_grayscale).repeat_interleave(self.channels, dim=-3)


@register_transform("jitter")
class Jitter(Transform):
    """Changes brightness, contrast, saturation and hue of every image by random amounts.

    Brightness, contrast and saturation are multiplied by factors drawn uniformly from
    ``[max(0, 1 - amount), 1 + amount]``; the hue is turned by up to `hue` full turns either way (0.5: any hue), as a
    rotation of the two colour axes of YIQ, the NTSC television standard's colour space. Contrast is about the mean
    brightness of the sample. Values are clipped to the range.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.5

    destroys = "colour"
    stochastic = True
    axes = IMAGE

    def __post_init__(self) -> None:
        for field in ("brightness", "contrast", "saturation"):
            self.check_number(field, 0)
        self.check_number("hue", 0, 0.5)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        _check_colour(self, shape)
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        draws = draw_uniform((4, len(x)), x, generator)

        def factor(draw: Tensor, amount: float) -> Tensor:
            low = max(0.0, 1 - amount)
            return low + draw * (1 + amount - low)

        brightness, contrast = factor(draws[0], self.brightness), factor(draws[1], self.contrast)
        saturation = factor(draws[2], self.saturation)
        angle = (2 * draws[3] - 1) * self.hue * 2 * math.pi
        to_yiq = torch.tensor(_YIQ, dtype=draws.dtype, device=x.device)
        turn = torch.zeros(len(x), 3, 3, dtype=draws.dtype, device=x.device)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
        turn[:, 2, 1] = saturation * angle.sin()
        turn[:, 1, 2] = -turn[:, 2, 1]
        recolour = torch.linalg.solve(to_yiq, turn @ to_yiq)

        def change(image: Tensor) -> Tensor:
            one_each = (-1, *([1] * (image.ndim - 1)))
            grey = torch.einsum("c,b...chw->b...hw", to_yiq[0].to(image), image).flatten(1).mean(1).view(one_each)
            recoloured = torch.einsum("bdc,b...chw->b...dhw", recolour.to(image), image)
            contrasted = grey + (recoloured - grey) * contrast.to(image).view(one_each)
            return contrasted * brightness.to(image).view(one_each)

        return self.in_floats(x, change)


@register_transform("blur")
class Blur(Transform):
    """Blurs with a Gaussian of standard deviation `sigma` pixels.

    The kernel reaches three standard deviations; the border's pixels are repeated outwards.
    """

    sigma: float = 2.0

    destroys = "fine detail"
    stochastic = False
    axes = IMAGE

    def __post_init__(self) -> None:
        self.check_number("sigma", 0, positive=True)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        from kornia.filters import gaussian_blur2d

        size = 2 * math.ceil(3 * self.sigma) + 1

        def blurred(image: Tensor) -> Tensor:
            frames = image.reshape(-1, *image.shape[-3:])
            return gaussian_blur2d(frames, (size, size), (self.sigma, self.sigma), "replicate").view(image.shape)

        return self.in_floats(x, blurred)


@register_transform("posterize")
class Posterize(Transform):
    """Rounds every value to the nearest of `levels` evenly spaced ones, 0 and 1 among them.

    >>> from infoplace import make_transform
    >>> make_transform("posterize", levels=3)(torch.tensor([[0.1, 0.3, 0.9]]))
    tensor([[0.0000, 0.5000, 1.0000]])
    """

    levels: int = 4

    destroys = "shading"
    stochastic = False

    def __post_init__(self) -> None:
        self.check_integer("levels", 2, 256)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.in_floats(x, lambda values: (values * (self.levels - 1)).round() / (self.levels - 1))


@register_transform("downsample")
class Downsample(Transform):
    """Replaces every square of `factor` x `factor` pixels by its mean, at the same image size."""

    factor: int = 4

    destroys = "fine detail"
    stochastic = False
    axes = IMAGE

    def __post_init__(self) -> None:
        self.check_integer("factor", 2)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        _check_tiling(self, "factor", shape, 2)
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        def coarse(image: Tensor) -> Tensor:
            frames = image.reshape(-1, *image.shape[-3:])
            return _enlarge(F.avg_pool2d(frames, self.factor), self.factor).view(image.shape)

        return self.in_floats(x, coarse)


@register_transform("edges")
class Edges(Transform):
    """Keeps how steeply each channel changes: the Sobel gradient's magnitude.

    A step from 0 to 1 along an axis gives 1; larger values, at corners, are clipped to 1.
    """

    destroys = "flat colour and shading"
    stochastic = False
    axes = IMAGE

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        from kornia.filters import sobel

        # kornia's normalised Sobel gives 1/2 for a full step.
        return self.in_floats(x, lambda image: 2 * sobel(image.reshape(-1, *image.shape[-3:])).view(image.shape))


@register_transform("noise")
class Noise(Transform):
    """Adds Gaussian noise of standard deviation `std` to every value, clipped to the range.

    ``std`` is in units of the range: 0.1 is 25.5 of 255.
    """

    std: float = 0.1

    destroys = "faint detail"
    stochastic = True

    def __post_init__(self) -> None:
        self.check_number("std", 0, positive=True)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        def noisy(values: Tensor) -> Tensor:
            device = values.device if generator is None else generator.device
            noise = torch.randn(values.shape, generator=generator, device=device, dtype=values.dtype)
            return values + self.std * noise.to(values.device)

        return self.in_floats(x, noisy)


@register_transform("affine")
class Affine(Transform):
    """Turns, shifts, scales and slants every image at random, about its middle.

    The angle is up to `degrees` either way, the shift up to `shift` times the side along each axis, the scale between
    `1 / (1 + scale)` and `1 + scale`, the slant of upright lines up to `slant` degrees; all are uniform, the scale in its
    logarithm. Values are interpolated linearly, and
    the border's pixels are repeated outwards. Small changes of pose keep what an image shows.

    >>> from infoplace import make_transform
    >>> make_transform("affine", degrees=5.0)(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    degrees: float = 10.0
    shift: float = 0.1
    scale: float = 0.1
    slant: float = 0.0

    destroys = "pose"
    stochastic = True
    axes = IMAGE

    def __post_init__(self) -> None:
        self.check_number("degrees", 0, 180)
        self.check_number("shift", 0, 1)
        self.check_number("scale", 0)
        self.check_number("slant", 0, 80)
        if self.degrees == self.shift == self.scale == self.slant == 0:
            raise DeclarationError(
                f"{self.label}: degrees, shift, scale and slant are all 0, so nothing is changed; use 'identity'"
            )

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        turn, size, right, down, lean = 2 * draw_uniform((5, len(x)), x, generator) - 1
        angle, zoom = turn * math.radians(self.degrees), (size * math.log1p(self.scale)).exp()
        height, width = x.shape[-2:]
        # The grid runs from -1 to 1 over either side, so a turn of an oblong image also stretches.
        cos, sin, ratio = angle.cos() / zoom, angle.sin() / zoom, height / width
        slope = (lean * math.radians(self.slant)).tan()
        rows = [
            *(cos, (cos * slope + sin) * ratio, 2 * self.shift * right),
            *(-sin / ratio, cos - sin * slope, 2 * self.shift * down),
        ]
        maps = torch.stack(rows, dim=1).view(-1, 2, 3)

        def moved(image: Tensor) -> Tensor:
            frames = image.reshape(len(image), -1, height, width)
            grid = F.affine_grid(maps.to(image), [*frames.shape], align_corners=False)
            return F.grid_sample(frames, grid, padding_mode="border", align_corners=False).view(image.shape)

        return self.in_floats(x, moved)


# ---- shared by several ----------------------------------------------------------------------------------------------

# Red, green and blue to brightness and the two colour axes of NTSC television (Y, I, Q).
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))

# No wider than 8 bytes: a 16-byte word must lie on a 16-byte boundary, which memory from elsewhere need not.
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def _shuffle_patches(x: Tensor, n: int, dims: int, generator: torch.Generator | None) -> Tensor:
    """``x`` with its patches of ``n`` elements a side over the last ``dims`` dimensions permuted in every sample."""
    grid = [side // n for side in x.shape[-dims:]]
    order = draw_uniform((len(x), math.prod(grid)), x, generator).argsort(1)
    words = _as_words(x, n)
    patch = [n] * (dims - 1) + [words.shape[-1] // grid[-1]]
    # Every word's position, as [grid_1, patch_1, grid_2, patch_2, ...]: a patch's first word plus an offset inside it.
    interleaved = [side for pair in zip(grid, patch, strict=True) for side in pair]
    positions = torch.arange(math.prod(interleaved), device=x.device).view(interleaved)
    first = positions[(slice(None), 0) * dims].flatten()
    inside = positions[(0, slice(None)) * dims]
    coarse = [side for count in grid for side in (count, 1)]
    fine = [side for count in patch for side in (1, count)]
    index = first[order].view(len(x), *coarse) + inside.view(fine)
    moved = _take(words, index.flatten(1))
    return moved if words.dtype == x.dtype else moved.view(x.dtype)


def _as_words(x: Tensor, n: int) -> Tensor:
    """``x`` with every run of ``n`` elements seen as words of up to 8 bytes, which a gather moves several times faster.

    A tensor that needs its gradient stays as it is, for a view as another type cuts the graph.
    """
    x = x.contiguous()
    if not x.requires_grad:
        for size, dtype in _WORDS.items():
            offset = x.storage_offset() * x.element_size()
            if x.element_size() < size and n * x.element_size() % size == 0 and offset % size == 0:
                return x.view(dtype)
    return x


def _take(x: Tensor, index: Tensor) -> Tensor:
    """The last dimensions of ``x`` rearranged as ``index`` `[batch, size]` says: where each value comes from.

    ``size`` is the number of values in those dimensions; the dimensions before them share their sample's index.
    """
    values = x.reshape(len(x), -1, index.shape[1])
    return values.gather(2, index[:, None].expand(values.shape)).view(x.shape)


def _enlarge(x: Tensor, factor: int) -> Tensor:
    return x.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def _check_tiling(transform: Transform, field: str, shape: tuple[int, ...], dims: int) -> None:
    size, sides = getattr(transform, field), shape[-dims:]
    if any(side % size for side in sides):
        common = math.gcd(*sides)
        divisors = [str(d) for d in range(1, common + 1) if common % d == 0]
        named = " and ".join(f"{name} {side}" for name, side in zip(transform.axes[-dims:], sides, strict=True))
        raise DeclarationError(
            f"{transform.label}: {field}={size} does not divide {named} of a sample of shape {shape}; "
            f"{field} can be {', '.join(divisors)}"
        )


def _check_colour(transform: Transform, shape: tuple[int, ...]) -> None:
    if shape[-3] != 3:
        advice = "it has no colour to lose, so leave this out" if shape[-3] == 1 else "give red, green and blue alone"
        raise DeclarationError(
            f"{transform.label} takes images of 3 channels (red, green, blue); got {shape[-3]} in shape {shape}; "
            f"{advice}"
        )
