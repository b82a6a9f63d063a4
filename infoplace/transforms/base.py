"""What a transform is, and the registry of transforms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, overload

import torch
from torch import Tensor

from infoplace.errors import DataError, DeclarationError, is_whole
from infoplace.registry import Configurable, Description, Registry

__all__ = [
    "IMAGE",
    "Transform",
    "compose",
    "describe_transform",
    "draw_uniform",
    "list_transforms",
    "make_transform",
    "register_transform",
]

IMAGE = ("channels", "height", "width")


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
        if not is_whole(value) or value < low or (high is not None and value > high):
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

    def check_flag(self, field: str) -> None:
        """Refuse a parameter that is neither true nor false; for ``__post_init__``.

        Raises:
            DeclarationError: it is neither.
        """
        value = getattr(self, field)
        if not isinstance(value, bool):
            raise DeclarationError(f"{self.label}: {field} must be true or false; got {value!r}")

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
      from infoplace.transforms.stock.Blur
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


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
