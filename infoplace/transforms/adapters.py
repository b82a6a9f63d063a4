"""Adapters: any augmentation of kornia, any transform of torchvision and any callable as an infoplace transform.

>>> import torch
>>> from infoplace.transforms import make_transform
>>> turn = from_kornia("RandomRotation", degrees=180.0, p=1.0, destroys="orientation")
>>> turn(torch.rand(4, 3, 16, 16), generator=torch.Generator().manual_seed(0)).shape
torch.Size([4, 3, 16, 16])

By name, or made already, an augmentation can be written to a file as every stock transform:

>>> from torchvision.transforms import v2
>>> flip = from_torchvision(v2.RandomHorizontalFlip(p=1.0), destroys="handedness")
>>> flip.to_spec()["torchvision"]
{'name': 'RandomHorizontalFlip', 'parameters': {'p': 1.0}, 'destroys': 'handedness', 'stochastic': True}
>>> make_transform(flip.to_spec()) == flip
True

Neither library takes a generator. So each call draws one seed from ``generator`` (or from torch's own), seeds the global
generators of torch, NumPy and Python with it while the library works, and puts them back as they were. The result depends on
the seed alone, on one device; a thread that draws from the global generators meanwhile gets in the way.
"""

from __future__ import annotations

import copy
import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from infoplace.errors import DataError, DeclarationError, UnknownNameError, check_keys, did_you_mean
from infoplace.registry import plain
from infoplace.transforms.base import Transform, register_transform

__all__ = ["KorniaTransform", "TorchvisionTransform", "from_callable", "from_kornia", "from_torchvision"]

IMAGE = ("channels", "height", "width")
VOLUME = ("channels", "depth", "height", "width")
UNSAID = "what its augmentation destroys"
MIXES = "mixes the images of a batch, and a transform treats each sample on its own"
LEAVES = "leaves [0, 1] and destroys nothing, so it is no transform"
HOLDS = "holds others, which a spec cannot; put transforms one after the other with compose(...)"


# ---- seeds -------------------------------------------------------------------------------------------------------------


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's, NumPy's and Python's global generators at ``seed`` inside the block, and as they were after it."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one is what others draw from)
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would also seed the GPUs whose state is not kept here.
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _draw_seed(x: Tensor, generator: torch.Generator | None) -> int:
    device = x.device if generator is None else generator.device
    return int(torch.randint(2**62, (1,), generator=generator, device=device))


# ---- the two libraries -------------------------------------------------------------------------------------------------


def _as_tuples(value: Any) -> Any:
    """Lists as tuples: both libraries take these everywhere, and kornia takes no list for a pair."""
    if isinstance(value, Mapping):
        return {key: _as_tuples(item) for key, item in value.items()}
    return tuple(_as_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _as_plain(value: Any, where: str) -> Any:
    """A parameter as a spec can hold it."""
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.numel() <= 16:
        if value.dim() == 0:
            # A float32's own shortest digits: 0.8, not 0.800000011920929.
            return float(str(value.numpy(force=True))) if value.is_floating_point() else value.item()
        return tuple(_as_plain(item, where) for item in value)
    if isinstance(value, (list, tuple)):
        return tuple(_as_plain(item, where) for item in value)
    plain(value, where)
    return value


def _taken(made: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class that have a name."""
    star = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in inspect.signature(made).parameters.items() if p.kind not in star}


class _Adapter(Transform):
    """An object of another library, made by name or given, and run with a seed."""

    name: str = ""
    parameters: Any = None
    # The base class has these for a whole class; here every object says its own.
    destroys: str = UNSAID  # type: ignore[misc]
    stochastic: bool = True  # type: ignore[misc]
    module: Any = None

    library: ClassVar[str]
    home: ClassVar[str]
    """The public module that names are looked up in."""
    refused: ClassVar[dict[str, str]]
    """Classes there that make no transform, and why."""
    _why_not: ClassVar[str | None] = None
    """Of a given object: why it has no spec."""
    _shapes: ClassVar[dict[tuple[int, ...], tuple[int, ...]]] = {}

    @classmethod
    def spec_parameters(cls) -> dict[str, inspect.Parameter]:
        """The parameters a spec may give, in order: an object is none of them, and the name is needed."""
        known = super().spec_parameters()
        known["name"] = known["name"].replace(default=inspect.Parameter.empty)
        return {name: known[name] for name in ("name", "parameters", "destroys", "stochastic")}

    def __post_init__(self) -> None:
        if not isinstance(self.destroys, str) or not self.destroys:
            raise DeclarationError(f"{self.library}: destroys must be a phrase, as 'pose'; got {self.destroys!r}")
        if not isinstance(self.stochastic, bool):
            raise DeclarationError(f"{self.library}: stochastic must be True or False; got {self.stochastic!r}")
        self._set("_shapes", {})
        if self.module is None:
            made = self._class(self.name)
            self._set("parameters", self._resolved(made))
            self._set("module", self._build(made, self.parameters))
        else:
            self._check_given(self.module)
            self._take(self.module)
        if self.destroys == UNSAID:
            self._set("destroys", f"what {self.name} destroys")
        self._set("axes", self._axes())
        self._check_independent()

    # ---- what the libraries differ in ----------------------------------------------------------------------------------

    @classmethod
    def _classes(cls) -> dict[str, type[nn.Module]]:
        """The library's public classes that make a transform."""
        raise NotImplementedError

    @classmethod
    def _check_given(cls, module: Any) -> None:
        raise NotImplementedError

    def _check_independent(self) -> None:
        """Refuse an object that draws once for a whole batch."""

    def _axes(self) -> tuple[str, ...]:
        return IMAGE

    def _places(self) -> list[Mapping[str, Any]]:
        """Where the object keeps what it was made with."""
        return [self.module.__dict__]

    @classmethod
    def _run(cls, module: Any, x: Tensor) -> Any:
        raise NotImplementedError

    # ---- making one ----------------------------------------------------------------------------------------------------

    @classmethod
    def _class(cls, name: Any) -> type[nn.Module]:
        classes = cls._classes()
        if isinstance(name, str) and name in cls.refused:
            raise DeclarationError(f"{cls.library}: {name} {cls.refused[name]}")
        if isinstance(name, str) and name in classes:
            return classes[name]
        raise UnknownNameError(
            f"{cls.library}: {cls.home} has no transform named {name!r}.{did_you_mean(name, classes)} Give the name of a "
            f"class there, as {next(iter(classes))!r}"
        )

    def _resolved(self, made: type[nn.Module]) -> dict[str, Any]:
        """Every parameter: those given, and the defaults of the others, so that a later default changes no saved run."""
        given = {} if self.parameters is None else self.parameters
        where = f"{self.library}: {self.name}"
        if not isinstance(given, Mapping):
            raise DeclarationError(f"{where}: parameters must be a dict, as {{'p': 1.0}}; got {given!r}")
        known = _taken(made)
        check_keys(given, known, where)
        for name, parameter in known.items():
            if name not in given and parameter.default is parameter.empty:
                raise DeclarationError(f"{where} needs {name!r}; write parameters={{{name!r}: ...}}")
        return {name: _as_plain(given.get(name, p.default), f"{where}.{name}") for name, p in known.items()}

    @classmethod
    def _build(cls, made: type[nn.Module], parameters: Mapping[str, Any]) -> nn.Module:
        try:
            return made(**{name: _as_tuples(value) for name, value in parameters.items()})
        except Exception as error:  # what they raise is of any kind
            raise DeclarationError(f"{cls.library}: {made.__name__} refuses its parameters: {error}") from error

    def _take(self, module: nn.Module) -> None:
        """Take an object that was made already, and find the parameters that would make it again."""
        # Whoever gave it may go on to change it, and it keeps what it drew last.
        self._set("module", copy.deepcopy(module))
        self._set("name", type(module).__name__)
        where = f"{self.library}: {self.name}"
        lost = DeclarationError(f"{where}: what it was made with cannot be read off it")
        try:
            made = self._class(self.name)
            if made is not type(module):
                raise DeclarationError(f"{where} is not the one in {self.home}")
            known = _taken(made)
            found = {name: place[name] for name in known for place in reversed(self._places()) if name in place}
            unread = [known[name].default for name in known if name not in found]
            if inspect.Parameter.empty in unread:
                raise lost
            self._set("parameters", {name: _as_plain(value, f"{where}.{name}") for name, value in found.items()})
            self._set("parameters", self._resolved(made))
            again = self._build(made, self.parameters)
            # What cannot be read off the object has its default in the other, so it is seen whether both do the same.
            if not self._alike(again, strictly=bool(unread)):
                raise lost
        except DeclarationError as error:
            self._set("parameters", None)
            self._set("_why_not", str(error))
        else:
            self._set("module", again)

    def _alike(self, other: nn.Module, strictly: bool) -> bool:
        """Whether another object does what this one's does on some noise; or, if not strictly, both fail on it and look alike."""
        shape = (3, 32, 32) if self._axes() == IMAGE else (3, 8, 16, 16)
        x = torch.rand((4, *shape), generator=torch.Generator().manual_seed(0))
        results: list[Any] = []
        for module in (copy.deepcopy(self.module), copy.deepcopy(other)):
            if isinstance(module.__dict__.get("p"), float):
                module.p = 1.0
            try:
                with _seeded(0, x.device):
                    results.append(self._run(module, x.clone()))
            except Exception as error:  # noise of this size may not suit it
                results.append(error)
        one, two = results
        if isinstance(one, Tensor) and isinstance(two, Tensor):
            return torch.equal(one, two)
        return not strictly and type(one) is type(two) and repr(self.module) == repr(other)

    def to_spec(self) -> dict[str, Any]:
        """The canonical spec, with every parameter resolved.

        Raises:
            DeclarationError: it was made of an object whose parameters are not plain values, or cannot be read off it.
        """
        if self._why_not is not None:
            raise DeclarationError(
                f"{self._why_not}; so it has no spec. Give its name and plain parameters, as from_{self.library}"
                f"('{self.name}', ..., destroys=...), or register it with from_callable(..., name='my_transform')"
            )
        return super().to_spec()

    def __eq__(self, other: object) -> bool:
        if self._why_not is None and not (isinstance(other, _Adapter) and other._why_not is not None):
            return super().__eq__(other)
        return self is other

    def __hash__(self) -> int:
        return super().__hash__() if self._why_not is None else id(self)

    # ---- running it ----------------------------------------------------------------------------------------------------

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one transformed sample, found by transforming one.

        Raises:
            DeclarationError: a shape that it cannot take.
        """
        shape = super().output_shape(shape)
        if shape not in self._shapes:
            with _seeded(0, torch.device("cpu")):
                self._shapes[shape] = tuple(self._work(torch.full((1, *shape), 0.5)).shape[1:])
        return self._shapes[shape]

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        with _seeded(_draw_seed(x, generator), x.device):
            return self.in_floats(x, self._work)

    def _work(self, x: Tensor) -> Tensor:
        where = f"{self.library}: {self.name}"
        try:
            result = self._run(self.module, x.clone())  # some write to what they are given
        except DeclarationError:
            raise
        except Exception as error:  # what they raise is of any kind
            line = str(error).partition("\n")[0] or type(error).__name__
            raise DeclarationError(f"{where} cannot take samples of shape {tuple(x.shape[1:])}: {line}") from error
        if not isinstance(result, Tensor):
            raise DeclarationError(f"{where} returned a {type(result).__name__}, not a tensor")
        if result.dtype != x.dtype:
            raise DeclarationError(f"{where} returned {result.dtype} for {x.dtype}; a transform keeps the type")
        return result


@register_transform("kornia")
class KorniaTransform(_Adapter):
    """Applies the augmentation `name` of kornia, made with `parameters`.

    uint8 is converted to floats in [0, 1] for it and back, and what it makes is clipped to [0, 1]. Most augmentations have
    ``p=0.5`` and leave half of the images as they are: give ``p=1.0`` to destroy something in all of them. What kornia draws
    once for a batch (the order in which `ColorJitter` works) is alike for its images.

    Args:
        name: the class's name in `kornia.augmentation`.
        parameters: what it is made with, as plain values; the names of options as text (``"bilinear"``).
        destroys: what is gone afterwards, as a phrase.
        stochastic: whether it draws at random.
        module: in place of ``name`` and ``parameters``, an augmentation that was made already.

    Raises:
        UnknownNameError: no augmentation has the name.
        DeclarationError: parameters that it refuses; a container; one that mixes the images of a batch, draws once for all
            of them, or leaves [0, 1].

    >>> from infoplace.transforms import make_transform
    >>> make_transform({"kornia": {"name": "CenterCrop", "parameters": {"size": 8}}}).output_shape((3, 16, 16))
    (3, 8, 8)
    """

    library = "kornia"
    home = "kornia.augmentation"
    refused: ClassVar[dict[str, str]] = {
        "AugmentationSequential": HOLDS,
        "Denormalize": LEAVES,
        "ImageSequential": HOLDS,
        "Normalize": LEAVES,
        "PatchMix": MIXES,
        "PatchSequential": HOLDS,
        "RandomCutMixV2": MIXES,
        "RandomDissolving": "fetches a network from elsewhere, which no spec may ask for",
        "RandomMixUpV2": MIXES,
        "RandomMosaic": MIXES,
        "RandomTransplantation": MIXES,
        "RandomTransplantation3D": MIXES,
        "VideoSequential": HOLDS,
    }

    @classmethod
    def _single(cls, made: type) -> bool:
        """Whether a class treats each image of a batch on its own."""
        from kornia import augmentation as ka

        if issubclass(made, ka.MixAugmentationBaseV2):
            return issubclass(made, ka.RandomJigsaw)
        return issubclass(made, (ka.AugmentationBase2D, ka.AugmentationBase3D))

    @classmethod
    def _classes(cls) -> dict[str, type[nn.Module]]:
        from kornia import augmentation as ka

        public = {name: item for name, item in sorted(vars(ka).items()) if "AugmentationBase" not in name}
        return {name: item for name, item in public.items() if isinstance(item, type) and cls._single(item)}

    @classmethod
    def _check_given(cls, module: Any) -> None:
        name = type(module).__name__
        if name in cls.refused:
            raise DeclarationError(f"kornia: {name} {cls.refused[name]}")
        if not cls._single(type(module)):
            raise DeclarationError(
                f"from_kornia takes an augmentation of kornia.augmentation, or the name of one; got {module!r}"
            )

    def _check_independent(self) -> None:
        # Those that draw nothing (CenterCrop) are the same on a batch, and have no such parameter.
        if self.module.same_on_batch and "same_on_batch" in _taken(type(self.module)):
            wrong = "same_on_batch=True; leave it out"
        elif self.module.p_batch not in (0, 1):
            wrong = f"p_batch={self.module.p_batch!r}; use p="
        else:
            return
        raise DeclarationError(f"kornia: a transform draws anew for every sample, and {self.name} has {wrong}")

    def _axes(self) -> tuple[str, ...]:
        from kornia import augmentation as ka

        return VOLUME if isinstance(self.module, ka.AugmentationBase3D) else IMAGE

    def _places(self) -> list[Mapping[str, Any]]:
        generator = self.module._param_generator
        drawn = dict(getattr(generator, "__dict__", {}))
        drawn |= {name: factor for factor, name, *_ in getattr(generator, "samplers", ())}
        return [*super()._places(), self.module.flags, drawn, {n.removesuffix("_factor"): v for n, v in drawn.items()}]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) > len(self.axes):
            wanted = f"samples of shape ({', '.join(self.axes)})"
            raise DeclarationError(f"kornia: {self.name} takes {wanted}; got {tuple(shape)}")
        return super().output_shape(shape)

    @classmethod
    def _run(cls, module: Any, x: Tensor) -> Any:
        return module(x)


@register_transform("torchvision")
class TorchvisionTransform(_Adapter):
    """Applies the transform `name` of torchvision (of `torchvision.transforms.v2`), made with `parameters`.

    torchvision draws once a call, so it is called for one sample after the other. That costs some 20 to 500 microseconds for
    a small image on a CPU, and more on a GPU; kornia's augmentations and the stock transforms work on whole batches. uint8 is
    converted to floats in [0, 1] for it and back, and what it makes is clipped to [0, 1].

    Args:
        name: the class's name in `torchvision.transforms.v2`.
        parameters: what it is made with, as plain values; the names of options as text (``"bilinear"``).
        destroys: what is gone afterwards, as a phrase.
        stochastic: whether it draws at random.
        module: in place of ``name`` and ``parameters``, a transform that was made already.

    Raises:
        UnknownNameError: no transform has the name.
        DeclarationError: parameters that it refuses; one that mixes images or leaves [0, 1]; by name, one that holds others.

    >>> from infoplace.transforms import make_transform
    >>> make_transform({"torchvision": {"name": "Grayscale"}}).output_shape((3, 16, 16))
    (1, 16, 16)
    """

    library = "torchvision"
    home = "torchvision.transforms.v2"
    refused: ClassVar[dict[str, str]] = {
        "Compose": HOLDS,
        "CutMix": MIXES,
        "JPEG": "takes bytes alone, and is about to leave torchvision; use RandomJPEG of kornia",
        "Lambda": HOLDS,
        "LinearTransformation": LEAVES,
        "MixUp": MIXES,
        "Normalize": LEAVES,
        "RandomApply": HOLDS,
        "RandomChoice": HOLDS,
        "RandomOrder": HOLDS,
    }

    @classmethod
    def _classes(cls) -> dict[str, type[nn.Module]]:
        from torchvision.transforms import v2

        public = {name: item for name, item in sorted(vars(v2).items()) if isinstance(item, type)}
        return {
            name: item for name, item in public.items() if issubclass(item, v2.Transform) and item is not v2.Transform
        }

    @classmethod
    def _check_given(cls, module: Any) -> None:
        from torchvision.transforms import v2

        name = type(module).__name__
        if not isinstance(module, v2.Transform):
            raise DeclarationError(
                "from_torchvision takes a transform of torchvision.transforms.v2, or the name of one (those of "
                f"torchvision.transforms have their like there); got {module!r}"
            )
        if cls.refused.get(name, HOLDS) != HOLDS:
            raise DeclarationError(f"torchvision: {name} {cls.refused[name]}")

    @classmethod
    def _build(cls, made: type[nn.Module], parameters: Mapping[str, Any]) -> nn.Module:
        from torchvision.transforms import v2

        # Options that not every version takes as text; what is none of them is left to the class to refuse.
        options = {"interpolation": v2.InterpolationMode, "policy": v2.AutoAugmentPolicy}
        given = dict(parameters)
        for name in options.keys() & given.keys():
            given[name] = next((each for each in options[name] if each.value == given[name]), given[name])
        return super()._build(made, given)

    @classmethod
    def _run(cls, module: Any, x: Tensor) -> Any:
        made = [module(sample) for sample in x]
        where = f"torchvision: {type(module).__name__}"
        for each in made:
            if not isinstance(each, Tensor):
                raise DeclarationError(f"{where} makes a {type(each).__name__} of a sample, not a tensor")
        return _stack(made, where)


def _stack(samples: list[Tensor], where: str) -> Tensor:
    shapes = sorted({tuple(sample.shape) for sample in samples})
    if len(shapes) > 1:
        raise DeclarationError(
            f"{where} gives samples of different shapes, {shapes[0]} and {shapes[1]}; they must be alike to make a batch"
        )
    return torch.stack(samples)


def _adapt(adapter: type[_Adapter], given: Any, parameters: dict[str, Any], **said: Any) -> Transform:
    if isinstance(given, str):
        return adapter(name=given, parameters=parameters, **said)
    if parameters:
        raise DeclarationError(
            f"from_{adapter.library}: a {type(given).__name__} that was made already takes no {', '.join(parameters)}; "
            "give its name to change that"
        )
    return adapter(module=given, **said)


def from_kornia(augmentation: Any, /, *, destroys: str, stochastic: bool = True, **parameters: Any) -> Transform:
    """An augmentation of kornia as a transform. See :class:`KorniaTransform`.

    Args:
        augmentation: an object of `kornia.augmentation`, or a class's name there.
        destroys: what is gone afterwards, as a phrase: "pose".
        stochastic: whether it draws at random; False for one that only crops or resizes.
        parameters: with a name, what the augmentation is made with.

    Raises:
        UnknownNameError: no augmentation has the name.
        DeclarationError: something that is no augmentation, or none that treats each sample on its own.

    >>> from_kornia("RandomAffine", degrees=10, p=1.0, destroys="pose").destroys
    'pose'
    """
    return _adapt(KorniaTransform, augmentation, parameters, destroys=destroys, stochastic=stochastic)


def from_torchvision(transform: Any, /, *, destroys: str, stochastic: bool = True, **parameters: Any) -> Transform:
    """A transform of torchvision, version 2, as an infoplace transform. See :class:`TorchvisionTransform`.

    Args:
        transform: an object of `torchvision.transforms.v2`, or a class's name there.
        destroys: what is gone afterwards, as a phrase: "handedness".
        stochastic: whether it draws at random; False for one that only crops or resizes.
        parameters: with a name, what the transform is made with.

    Raises:
        UnknownNameError: no transform has the name.
        DeclarationError: something that is no such transform, or none that treats each sample on its own.

    >>> from_torchvision("Resize", size=[8, 8], destroys="fine detail", stochastic=False).output_shape((3, 16, 16))
    (3, 8, 8)
    """
    return _adapt(TorchvisionTransform, transform, parameters, destroys=destroys, stochastic=stochastic)


# ---- callables ---------------------------------------------------------------------------------------------------------


class _Callable(Transform):
    """What :func:`from_callable` derives a class from."""

    destroys = UNSAID
    stochastic = True

    _call: ClassVar[Any]
    _make: ClassVar[Any]
    _shape: ClassVar[Any]
    _per_sample: ClassVar[bool]
    _as_floats: ClassVar[bool]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        return shape if self._shape is None else tuple(self._shape(shape))

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.stochastic:
            return self._convert(x)
        with _seeded(_draw_seed(x, generator), x.device):
            return self._convert(x)

    def _convert(self, x: Tensor) -> Tensor:
        return self.in_floats(x, self._run) if self._as_floats else self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        given = x.clone()  # a function may write to what it is given
        made = [self._call(sample) for sample in given] if self._per_sample else [self._call(given)]
        for each in made:
            if not isinstance(each, Tensor):
                raise DeclarationError(
                    f"{self.label}: the function returned a {type(each).__name__}, not a torch.Tensor"
                )
            if each.dtype != x.dtype:
                raise DataError(
                    f"{self.label}: the function returned {each.dtype} for {x.dtype}; return the type that came, or convert "
                    "pixels to floats and back with from_callable(..., in_floats=True)"
                )
        return _stack(made, f"{self.label}: the function") if self._per_sample else made[0]

    def to_spec(self) -> dict[str, Any]:
        if self.spec_name is None:
            raise DeclarationError(
                f"from_callable: the function {type(self).__name__} cannot be written to a file; give it a name, "
                "from_callable(..., name='my_transform'), and make it in every session that reads the file"
            )
        return super().to_spec()

    # The class is made as it goes, so pickle would not find it: another process makes it again.
    def __reduce__(self) -> Any:
        return self._make, ()

    def __copy__(self) -> Transform:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Transform:
        return self


def from_callable(
    function: Callable[[Tensor], Tensor],
    /,
    *,
    destroys: str,
    stochastic: bool,
    name: str | None = None,
    axes: tuple[str, ...] = (),
    shape: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None,
    per_sample: bool = False,
    in_floats: bool = False,
) -> Transform:
    """Any callable from tensors to tensors as a transform.

    Where it is random, the global generators of torch, NumPy and Python are seeded while it works; generators of its own
    (``np.random.default_rng()``) are out of reach.

    Args:
        function: takes a batch `[batch, *shape]` and returns one of the same type.
        destroys: what is gone afterwards, as a phrase.
        stochastic: whether it draws at random, anew for every sample.
        name: registers it, so that a partition can hold it and a file can name it. A file holds the name alone, so make it
            in every session that reads the file; a cell that is run twice replaces it.
        axes: the last dimensions that a sample must have, by name, as `("channels", "height", "width")`.
        shape: the shape of a transformed sample for that of a sample; left out, it stays.
        per_sample: call it for one sample `[*shape]` after the other, for a function that draws once a call.
        in_floats: give it floats in [0, 1] whatever comes (uint8 is divided by 255), clip what it returns to [0, 1], and
            convert that back. Otherwise it gets what comes, of any type.

    Raises:
        DeclarationError: something that is no function, or a name that another transform holds.

    >>> darken = from_callable(lambda x: x / 2, destroys="brightness", stochastic=False, in_floats=True)
    >>> darken(torch.tensor([[200, 100]], dtype=torch.uint8))
    tensor([[100,  50]], dtype=torch.uint8)
    """
    if not callable(function) or isinstance(function, (type, Transform)):
        raise DeclarationError(f"from_callable takes a function from a tensor to a tensor; got {function!r}")
    if not isinstance(destroys, str) or not destroys:
        raise DeclarationError(f"from_callable: destroys must be a phrase, as 'pose'; got {destroys!r}")
    if not isinstance(stochastic, bool):
        raise DeclarationError(f"from_callable: stochastic must be True or False; got {stochastic!r}")
    source: Any = function if hasattr(function, "__qualname__") else type(function)
    again = functools.partial(
        from_callable, function, destroys=destroys, stochastic=stochastic, name=name, axes=axes, shape=shape,
        per_sample=per_sample, in_floats=in_floats,
    )  # fmt: skip
    members = {
        # The function's own, so that it may be made again under its name, and nothing else may take that.
        "__module__": source.__module__,
        "__qualname__": source.__qualname__,
        "__doc__": inspect.getdoc(source) or f"Calls {source.__qualname__}.",
        "destroys": destroys,
        "stochastic": stochastic,
        "axes": tuple(axes),
        "_call": staticmethod(function),
        "_make": staticmethod(again),
        "_shape": None if shape is None else staticmethod(shape),
        "_per_sample": per_sample,
        "_as_floats": in_floats,
    }
    made: type[_Callable] = type(source.__name__, (_Callable,), members)
    if name is not None:
        register_transform(name, made)
    return made()
