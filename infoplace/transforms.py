"""Transforms: maps that destroy information, so that what is left can be modelled from some of the latent blocks alone.

A transform ``g`` is usually random and usually many-to-one (a bijection destroys nothing). It works per sample on a
batch ``[batch, ...]``, draws anew for every sample, never modifies its input and gives the same result for the same
generator state. Values are floats in [0, 1] or uint8 in 0..255 and come back in the type they came in.

>>> import torch
>>> import infoplace.transforms as transforms
>>> shuffle = transforms.make_transform("patch_shuffle", n=8)
>>> shuffle(torch.rand(4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).shape
torch.Size([4, 3, 32, 32])
>>> transforms.compose("grayscale", {"patch_shuffle": {"n": 8}}).destroys
'colour, global structure'

A transform of one's own is a class with ``destroys``, ``stochastic`` and ``apply``; its fields are its parameters:

>>> class Mirror(transforms.Transform):
...     "Mirrors every image left to right with probability `share`."
...     share: float = 0.5
...     destroys = "handedness"
...     stochastic = True
...     axes = ("channels", "height", "width")
...
...     def apply(self, x, generator):
...         chosen = transforms.draw_uniform((len(x), 1, 1, 1), x, generator) < self.share
...         return torch.where(chosen, x.flip(-1), x)
>>> Mirror(share=1.0)(torch.arange(4.0).view(1, 1, 1, 4) / 3)
tensor([[[[1.0000, 0.6667, 0.3333, 0.0000]]]])
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from infoplace.errors import DataError, DeclarationError
from infoplace.registry import Configurable, Description, Registry

__all__ = [
    "Transform",
    "compose",
    "describe_transform",
    "draw_uniform",
    "list_transforms",
    "make_transform",
    "register_transform",
]

IMAGE = ("channels", "height", "width")
SPATIAL = ("depth", "height", "width")


class Transform(Configurable):
    """A map that destroys information, applied to each sample of a batch.

    A subclass sets :attr:`destroys` and :attr:`stochastic`, defines :meth:`apply` and, where the output's shape
    differs from the input's or not every shape can be taken, :meth:`output_shape`. Its class fields are its parameters;
    they are checked in ``__post_init__``.

    Raises:
        DeclarationError: a subclass defines :meth:`apply` and does not say what it destroys or whether it is random.
    """

    destroys: ClassVar[str]
    """What is gone afterwards, as a phrase: "global structure", "colour"."""
    stochastic: ClassVar[bool]
    """Whether it draws at random, anew for every sample."""
    mixes_samples: ClassVar[bool] = False
    """Whether a sample's result hangs on the other samples of its batch, as where images swap parts."""
    axes: ClassVar[tuple[str, ...]] = ()
    """The last dimensions that a sample must have, by name; more may stand before them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        missing = [name for name in ("destroys", "stochastic") if not hasattr(cls, name)]
        if "apply" in cls.__dict__ and missing:
            raise DeclarationError(
                f"the transform {cls.__name__} does not set {' and '.join(missing)}; write in its class body\n"
                '    destroys = "colour"\n'
                "    stochastic = False"
            )

    @property
    def label(self) -> str:
        """What messages call it: its registered name, or else its class's."""
        return self.spec_name or type(self).__name__

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one transformed sample, for the shape of one sample (both without the batch dimension).

        Args:
            shape: a sample's shape, as in `(channels, height, width)`.

        Raises:
            DeclarationError: a shape that this transform cannot take; the message says what to change.

        >>> make_transform("grayscale", channels=1).output_shape((3, 32, 32))
        (1, 32, 32)
        """
        if len(shape) < len(self.axes) or not all(isinstance(side, int) and side > 0 for side in shape):
            wanted = f"shape ({_listed(self.axes)}), all of them positive" if self.axes else "positive sizes"
            advice = "; for images without channels use (1, height, width)" if self.axes == IMAGE else ""
            raise DeclarationError(f"{self.label} takes samples of {wanted}; got {tuple(shape)}{advice}")
        return tuple(shape)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Transform a checked, non-empty batch; what a subclass defines. It must not write to ``x``."""
        raise NotImplementedError(f"{type(self).__name__} defines no apply(self, x, generator)")

    def __call__(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Transform a batch.

        Args:
            x: `[batch, *shape]`, floats in [0, 1] or uint8 in 0..255, on any device.
            generator: where the randomness comes from, on any device; by default torch's own of the device of ``x``.

        Returns:
            `[batch, *output_shape(shape)]`, of the type and on the device of ``x``.

        Raises:
            DataError: something other than a batch of samples that this transform takes.
        """
        self._check_batch(x, generator)
        try:
            expected = self.output_shape(tuple(x.shape[1:]))
        except DeclarationError as error:
            raise DataError(f"{error} (in a batch of shape {tuple(x.shape)})") from error
        result = self.apply(x, generator)
        if result.shape != (len(x), *expected):
            raise DeclarationError(
                f"{self.label} declares the output shape {expected} for one sample of shape {tuple(x.shape[1:])}, but "
                f"returned {tuple(result.shape)} for a batch of {len(x)}; make its output_shape and apply agree"
            )
        return result

    def _check_batch(self, x: Any, generator: Any) -> None:
        batch = f"a batch [{_listed(('batch', *self.axes)) if self.axes else 'batch, ...'}]"
        if not isinstance(x, Tensor):
            raise DataError(
                f"{self.label} takes {batch} as a torch.Tensor; got a {type(x).__name__}; use torch.as_tensor(x)"
            )
        shape = tuple(x.shape)
        if not shape:
            raise DataError(f"{self.label} takes {batch}; got a single number; use x.reshape(1)")
        if len(shape) < 1 + len(self.axes):
            if len(shape) == len(self.axes):
                kind = "image" if self.axes == IMAGE else "sample"
                got = f"a single {kind} of shape {shape}; add a batch dimension with x[None]"
                if "channels" in self.axes:
                    got += f" (or, if this is a batch of {kind}s without channels, add that dimension with x[:, None])"
            else:
                got = f"shape {shape}, which has {1 + len(self.axes) - len(shape)} dimensions too few"
            raise DataError(f"{self.label} takes {batch}; got {got}")
        if len(x) == 0:
            raise DataError(f"{self.label} got an empty batch of shape {shape}; give it at least one sample")
        if not (generator is None or isinstance(generator, torch.Generator)):
            raise DataError(
                f"{self.label}: generator must be a torch.Generator; got {generator!r}; "
                "use torch.Generator().manual_seed(seed)"
            )

    # ---- for subclasses: checking parameters, and computing in floats -----------------------------------------------

    def check_integer(self, field: str, low: int, high: int | None = None) -> None:
        """Refuse a parameter that is no integer from ``low`` (to ``high``); for ``__post_init__``.

        Raises:
            DeclarationError: it is none.
        """
        value = getattr(self, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            if high is not None:
                wanted = f"an integer from {low} to {high}"
            else:
                wanted = "a positive integer" if low == 1 else f"an integer of at least {low}"
            raise DeclarationError(f"{self.label}: {field} must be {wanted}; got {value!r}")

    def check_number(self, field: str, low: float, high: float = math.inf, *, positive: bool = False) -> None:
        """Refuse a parameter that is no number from ``low`` to ``high``, and keep it as a float; for ``__post_init__``.

        Args:
            field: the parameter's name.
            low: the least value.
            high: the largest.
            positive: whether ``low`` itself is refused.

        Raises:
            DeclarationError: it is none.
        """
        value = getattr(self, field)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high or not math.isfinite(value) or (positive and value == low):
            above = f"above {low:g}" if positive else f"of at least {low:g}"
            upper = f" and at most {high:g}" if math.isfinite(high) else ""
            raise DeclarationError(f"{self.label}: {field} must be a number {above}{upper}; got {value!r}")
        self._set(field, float(value))  # so that 2 in a YAML file and 2.0 in Python give equal specs

    def in_floats(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of ``x`` as floats in [0, 1], clipped to [0, 1] and given back in the type of ``x``; for ``apply``.

        Raises:
            DataError: ``x`` is neither of floats nor of uint8.
        """
        if x.dtype == torch.uint8:
            return (function(x.float() / 255).clamp(0, 1) * 255).round().to(torch.uint8)
        if not x.is_floating_point():
            raise DataError(
                f"{self.label} takes floats in [0, 1] or uint8 in 0..255; got {x.dtype}; "
                "use x.to(torch.uint8), or x.float() / 255 for pixels"
            )
        # Half precision is too coarse for sums over pixels, and the CPU has few kernels for it.
        working = x if x.dtype in (torch.float32, torch.float64) else x.float()
        return function(working).clamp(0, 1).to(x.dtype)


_registry: Registry[Transform] = Registry("transform", Transform, "infoplace.transforms")
Registered = TypeVar("Registered", bound=type[Transform])


@overload
def register_transform(
    name: str, implementation: None = None, /, *, overwrite: bool = False
) -> Callable[[Registered], Registered]: ...
@overload
def register_transform(name: str, implementation: Registered, /, *, overwrite: bool = False) -> Registered: ...
@overload
def register_transform(
    name: str, /, *, alias: str | None = None, overwrite: bool = False, **parameters: Any
) -> Transform: ...
def register_transform(
    name: str,
    implementation: Any = None,
    /,
    *,
    alias: str | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Any:
    """Configure a known transform, or register a new one.

    With parameters, they become what the bare name means from now on, and the configured transform is returned. With a
    class (or as a decorator, from the name alone), the class is registered and returned.

    Args:
        name: the transform's name.
        implementation: a class derived from :class:`Transform`.
        alias: a second name to keep the parameters under, leaving ``name`` as it was.
        overwrite: take a name that another owner holds.
        parameters: the transform's parameters.

    Raises:
        DeclarationError: parameters that the transform refuses, a name that another owner holds, or a class that is not
            a transform.
        UnknownNameError: parameters for an unknown name.

    >>> register_transform("patch_shuffle", n=8)
    PatchShuffle(n=8, dims=2)
    >>> make_transform("patch_shuffle").to_spec()
    {'patch_shuffle': {'n': 8, 'dims': 2}}
    """
    register: Any = _registry.register
    return register(name, implementation, alias=alias, overwrite=overwrite, **parameters)


def make_transform(spec: Any, /, **parameters: Any) -> Transform:
    """The transform that a spec means.

    Args:
        spec: a name, `{name: {parameter: value}}`, a transform (returned as it is), or a list of these, which are
            composed from left to right.
        parameters: more parameters, which win over the spec's.

    Raises:
        DeclarationError: a spec of another form, or parameters that the transform refuses.
        UnknownNameError: an unknown name.

    >>> make_transform({"blur": {"sigma": 1.5}})
    Blur(sigma=1.5)
    >>> make_transform(["grayscale", {"patch_shuffle": {"n": 8}}]).output_shape((3, 32, 32))
    (3, 32, 32)
    """
    if isinstance(spec, (list, tuple)):
        if parameters:
            raise DeclarationError(
                f"parameters ({', '.join(parameters)}) cannot go to a list of transforms; write them in the spec of "
                'one: [{"patch_shuffle": {"n": 8}}, ...]'
            )
        return compose(*spec)
    return _registry.make(spec, **parameters)


def list_transforms(destroys: str | None = None) -> list[str]:
    """The names of all transforms, sorted: stock ones, the session's own, aliases and installed plugins.

    Args:
        destroys: keep only those whose ``destroys`` has this phrase in it, in any case.

    >>> list_transforms(destroys="global structure")
    ['patch_shuffle']
    """
    names = _registry.names()
    if destroys is None:
        return names
    return [name for name in names if destroys.casefold() in _registry.get(name).destroys.casefold()]


def describe_transform(name: str) -> Description:
    """What a transform does, what it destroys, whether it is random, what it takes, and its parameters.

    Raises:
        UnknownNameError: nothing has the name.

    >>> print(describe_transform("blur"))
    blur (transform): Blurs with a Gaussian of standard deviation `sigma` pixels.
      destroys: fine detail
      random: no
      in: [batch, channels, height, width]
      parameter sigma: float = 2.0
      from infoplace.transforms.Blur
    """
    implementation = _registry.get(name)
    details = {
        "destroys": implementation.destroys,
        "random": "yes, anew for every sample" if implementation.stochastic else "no",
        "in": f"[{_listed(('batch', *implementation.axes))}]" if implementation.axes else "[batch, ...]",
    }
    return dataclasses.replace(_registry.describe(name), details=details)


def compose(*specs: Any) -> Transform:
    """The transforms one after the other, from left to right.

    Args:
        specs: transforms, names, specs or lists of them; composed ones among them are flattened.

    Raises:
        DeclarationError: no transform at all, or a spec that means none.
        UnknownNameError: an unknown name.

    >>> compose("grayscale", {"patch_shuffle": {"n": 8}}).to_spec()
    {'compose': {'transforms': [{'grayscale': {'channels': 3}}, {'patch_shuffle': {'n': 8, 'dims': 2}}]}}
    """
    return Compose(transforms=specs)


@register_transform("compose")
class Compose(Transform):
    """Applies `transforms` one after the other, from left to right.

    Its ``destroys``, ``stochastic`` and ``axes`` are those of its parts together.
    """

    transforms: tuple[Any, ...]

    destroys = "what its parts destroy"
    stochastic = True

    def __post_init__(self) -> None:
        if not isinstance(self.transforms, (list, tuple)) or not self.transforms:
            raise DeclarationError(
                f"compose: transforms must be a list of at least one transform; got {self.transforms!r}; "
                'write compose("grayscale", "blur")'
            )
        parts: list[Transform] = []
        for spec in self.transforms:
            part = make_transform(spec)
            parts.extend(part.transforms if isinstance(part, Compose) else [part])
        self._set("transforms", tuple(parts))
        phrases = dict.fromkeys(part.destroys for part in parts if not isinstance(part, Identity))
        self._set("destroys", ", ".join(phrases) or Identity.destroys)
        self._set("stochastic", any(part.stochastic for part in parts))
        self._set("axes", parts[0].axes)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for index, part in enumerate(self.transforms):
            try:
                shape = part.output_shape(shape)
            except DeclarationError as error:
                names = " -> ".join(each.label for each in self.transforms)
                raise DeclarationError(f"transform {index} ({part.label}) of compose ({names}): {error}") from error
        return tuple(shape)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        for part in self.transforms:
            x = part(x, generator=generator)
        return x


@register_transform("identity")
class Identity(Transform):
    """Gives back a copy."""

    destroys = "nothing"
    stochastic = False

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x.clone()


# ---- moving pixels --------------------------------------------------------------------------------------------------


@register_transform("patch_shuffle")
class PatchShuffle(Transform):
    """Permutes patches of `n` pixels a side over the last `dims` dimensions, freshly for every sample.

    Every permutation of a sample's patches is equally likely, and channels move together. ``dims=1`` cuts
    `[batch, ..., length]` into segments, ``dims=2`` cuts images into squares, ``dims=3`` cuts
    `[batch, channels, depth, height, width]` into cubes. What is inside a patch survives; how patches lie to each other
    does not. It is the ``g`` of section 2.2 of the paper, "Explicit information placement on latent variables using
    auxiliary generative modelling task". Values of any type are moved as they are.

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
        if not isinstance(self.outside, bool):
            raise DeclarationError(f"{self.label}: outside must be true or false; got {self.outside!r}")
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

    >>> make_transform("grayscale")(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
    tensor([0.2990, 0.2990, 0.2990])
    """

    channels: int = 3

    destroys = "colour"
    stochastic = False
    axes = IMAGE

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or not isinstance(self.channels, int) or isinstance(self.channels, bool):
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


def draw_uniform(shape: tuple[int, ...], x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform float64 draws in [0, 1), drawn on the generator's device and moved to the device of ``x``.

    What the random transforms draw with: a CPU generator serves data on a GPU, and gives it what it gives data on the
    CPU. float64, so that two draws are practically never equal and ``argsort`` of them is a uniform permutation.

    Args:
        shape: the shape of the draws.
        x: the batch, for its device.
        generator: the generator, or None for torch's own of that device.

    >>> draw_uniform((2, 3), torch.zeros(2, 5), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    device = x.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float64).to(x.device)


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


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
