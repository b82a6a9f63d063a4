"""The laws of transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from infoplace.errors import DataError, DeclarationError
from infoplace.testing.laws import (
    Laws,
    LawTests,
    broken,
    check_copies,
    check_parameters,
    check_spec,
    close,
    every_device,
    furthest,
    generator,
    inapplicable,
    random_states,
    run_by,
    same,
    seeded,
    stirred,
)
from infoplace.testing.statistics import differ_in_distribution
from infoplace.transforms import Transform, make_transform

__all__ = ["TransformLaws", "check_transform"]

_MANY, _VERY_MANY = 48, 1024
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclasses.dataclass
class _Case:
    transform: Transform
    shape: tuple[int, ...]
    batch: int
    seed: int

    def images(self, count: int | None = None, dtype: torch.dtype = torch.float32, seed: int = 7) -> Tensor:
        """Half of them noise, half of them smooth, all of them values k/255: `[count, *shape]`."""
        count = self.batch if count is None else count
        noise = torch.randint(0, 256, (count, *self.shape), generator=generator(self.seed + seed))
        ramp = torch.linspace(0, 255, noise[:1].numel()).view(1, *self.shape)
        shift = torch.randint(0, 256, (count, *(1 for _ in self.shape)), generator=generator(self.seed + seed + 1))
        smooth = (ramp + shift).remainder(256).long()
        even = (torch.arange(count) % 2 == 0).view(-1, *(1 for _ in self.shape))
        x = torch.where(even, noise, smooth)
        return x.to(torch.uint8) if dtype == torch.uint8 else (x.double() / 255).to(dtype)

    @property
    def mixes(self) -> bool:
        """Whether the transform says that its samples see each other."""
        return self.transform.mixes_samples

    def __call__(self, x: Tensor, seed: int = 0) -> Tensor:
        return self.transform(x, generator=generator(self.seed + seed))

    def takes(self, dtype: torch.dtype) -> bool:
        """Whether a type is taken; refusing one is done by a DataError."""
        try:
            self(self.images(2, dtype))
        except DataError:
            return False
        return True

    def behaviour(self, transform: Transform) -> Any:
        shape = transform.output_shape(self.shape)
        x = self.images(max(16, self.batch))
        said = transform.destroys, transform.stochastic, transform.axes
        return shape, said, [transform(x, generator=generator(self.seed + seed)) for seed in range(3)]


_LAWS: Laws[_Case] = Laws("transform")


def check_transform(transform: Any, shape: tuple[int, ...] = (3, 16, 16), *, batch: int = 5, seed: int = 0) -> None:
    """Try every law of transforms.

    Args:
        transform: a transform, a name or a spec.
        shape: the shape of the samples to try it on, one that it takes.
        batch: how many samples at once, at least 3.
        seed: of the data and of the draws; with one seed, the outcome is always the same.

    Raises:
        LawError: a law that is broken.
        DeclarationError: no transform, a shape that it does not take, or too small a batch.
        UnknownNameError: an unknown name.

    >>> check_transform({"patch_shuffle": {"n": 4}}, shape=(3, 8, 8))
    >>> from infoplace.testing import LawError
    >>> from infoplace.transforms import Transform
    >>> class WashedOut(Transform):
    ...     "Brings every image to the mean brightness of the batch."
    ...     destroys = "everything"
    ...     stochastic = False
    ...     def apply(self, x, generator):
    ...         return torch.full_like(x, x.float().mean())
    >>> try:
    ...     check_transform(WashedOut())
    ... except LawError as error:
    ...     print(error.law)
    samples_are_independent
    """
    case = _case(transform, shape, batch, seed)
    _LAWS.check(case, repr(case.transform))


def _case(transform: Any, shape: tuple[int, ...], batch: int, seed: int) -> _Case:
    made = make_transform(transform)
    if batch < 3:
        raise DeclarationError(
            f"laws need a batch of at least 3 samples, to see whether they meddle; got batch={batch}"
        )
    if isinstance(made.axes, tuple):
        made.output_shape(tuple(shape))  # a shape that it does not take is the caller's mistake, and no law's
    return _Case(made, tuple(shape), batch, seed)


# ---- what it says of itself ------------------------------------------------------------------------------------------


@_LAWS.law
def says_what_it_is(case: _Case) -> None:
    """``destroys`` is a phrase, ``stochastic`` a bool, ``axes`` names."""
    destroys = getattr(case.transform, "destroys", None)
    if not isinstance(destroys, str) or not destroys.strip():
        broken(f'destroys is {destroys!r}; write what is gone afterwards in the class body, as destroys = "colour"')
    stochastic = getattr(case.transform, "stochastic", None)
    if not isinstance(stochastic, bool):
        broken(f"stochastic is {stochastic!r}; write stochastic = True or stochastic = False in the class body")
    if not isinstance(case.mixes, bool):
        broken(
            f"mixes_samples is {case.mixes!r}; write mixes_samples = True where samples see each other, or leave it out"
        )
    axes = case.transform.axes
    if not isinstance(axes, tuple) or not all(isinstance(axis, str) for axis in axes):
        broken(f'axes is {axes!r}; name the last dimensions of a sample, as axes = ("channels", "height", "width")')


# ---- shapes, types, values -------------------------------------------------------------------------------------------


@_LAWS.law
def output_shape_is_as_declared(case: _Case) -> None:
    """A batch has the declared shape: of one sample, of several, and of every shape that is not refused."""
    shapes = [case.shape, (2, *case.shape), (1, *case.shape)]
    for shape in shapes:
        try:
            declared = case.transform.output_shape(shape)
        except DeclarationError:
            continue
        if not isinstance(declared, tuple) or not all(type(side) is int for side in declared):
            broken(f"output_shape({shape}) is {declared!r}; return a tuple of integers")
        for count in (1, case.batch):
            x = dataclasses.replace(case, shape=shape).images(count)
            try:
                y = case(x)
            except Exception as error:
                if count == 1 and case.mixes and isinstance(error, DataError):
                    continue  # one sample alone has nothing to mix with
                broken(
                    f"output_shape({shape}) is taken, and a batch of {count} raised {type(error).__name__} ({error}); let "
                    "output_shape refuse the shape, or let apply take it"
                )
            if tuple(y.shape) != (count, *declared):
                broken(
                    f"output_shape({shape}) is {declared}, and a batch of {count} came out as {tuple(y.shape)}; make "
                    "output_shape and apply agree"
                )


@_LAWS.law
def type_and_device_are_kept(case: _Case) -> None:
    """Values come back in the type and on the device that they came in; float32 and float64 are taken."""
    for dtype in (*_FLOATS, torch.uint8):
        x = case.images(dtype=dtype)
        try:
            y = case(x)
        except DataError:
            if dtype in (torch.float32, torch.float64):
                raise
            continue
        if y.dtype != dtype:
            broken(f"{dtype} came in and {y.dtype} came out; end apply with .to(x.dtype)")
        if y.device != x.device:
            broken(f"{x.device} came in and {y.device} came out; make new tensors with device=x.device")


@_LAWS.law
def range_is_kept(case: _Case) -> None:
    """Floats in [0, 1] give finite floats in [0, 1]; black, white and single bright values included."""
    plain = case.images(8)
    spots = torch.zeros_like(plain)
    spots.flatten(1)[:, ::7] = 1
    for name, x in (
        ("noise", plain),
        ("black", plain * 0),
        ("white", plain * 0 + 1),
        ("spots", spots),
        ("edges", 1 - spots),
    ):
        for dtype in _FLOATS:
            if dtype not in (torch.float32, torch.float64) and not case.takes(dtype):
                continue
            y = case(x.to(dtype)).double()
            if not y.isfinite().all():
                broken(f"{name} images in {dtype} gave NaN or infinite values; look at divisions and logarithms of 0")
            if y.min() < 0 or y.max() > 1:
                broken(
                    f"{name} images of values in [0, 1] gave {y.min():.4g} to {y.max():.4g} in {dtype}; end apply with "
                    ".clamp(0, 1)"
                )


# ---- memory ----------------------------------------------------------------------------------------------------------


@_LAWS.law
def input_is_not_modified(case: _Case) -> None:
    """The batch is afterwards what it was."""
    for dtype in (torch.float32, torch.uint8):
        if dtype == torch.uint8 and not case.takes(dtype):
            continue
        x = case.images(dtype=dtype)
        before = x.clone()
        case(x)
        if not same(x, before):
            broken(
                f"the {dtype} batch that came in was changed; use x.clone() first, or functions without a trailing _"
            )


@_LAWS.law
def output_has_memory_of_its_own(case: _Case) -> None:
    """Writing to the output changes neither the input nor an earlier output."""
    for dtype in (torch.float32, torch.uint8):
        if dtype == torch.uint8 and not case.takes(dtype):
            continue
        x = case.images(dtype=dtype)
        y = case(x)
        if y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            broken("the output shares its memory with the input; return x.clone() where nothing changes")
        before = y.clone()
        case(1 - x if dtype.is_floating_point else 255 - x, seed=1)
        if not same(y, before):
            broken("a second call changed the first one's output; make a new tensor in every call, and keep none")


# ---- randomness ------------------------------------------------------------------------------------------------------


@_LAWS.law
def same_seed_gives_the_same(case: _Case) -> None:
    """The generator's state decides the result, whatever else was drawn or computed before."""
    x = case.images()
    with stirred(1):
        first = case(x)
    with stirred(2):
        case(case.images(seed=8), seed=5)
        second = case(x)
    if not same(first, second):
        broken(
            f"two calls with generators of one seed gave values {furthest(first, second):.3g} apart; draw every random number "
            "with generator=generator, and keep nothing between calls"
        )


@_LAWS.law
def samples_are_independent(case: _Case) -> None:
    """What a sample becomes does not hang on the other samples of its batch, unless ``mixes_samples`` says so."""
    x = 0.2 + 0.5 * case.images()  # so that others can be darker and brighter
    for position in (0, len(x) - 1):
        for name, others in (("black", x * 0), ("white", x * 0 + 1), ("other images", case.images(seed=9))):
            changed = others.clone()
            changed[position] = x[position]
            y, z = case(x)[position], case(changed)[position]
            if close(y, z):
                continue
            if case.mixes:
                return
            # The number of draws may hang on the data; then one seed means other draws, and only their distribution must
            # stay the same.
            if case.transform.stochastic and not _other_distribution(case, x, changed, position):
                continue
            broken(
                f"sample {position} came out up to {furthest(y, z):.3g} away when the other samples of its batch became {name}; "
                "compute over the dimensions after the first alone, as x.flatten(1).mean(1), never x.mean()"
            )
    if case.mixes:
        broken("mixes_samples is True, and nothing changes with the other samples of a batch; leave it out")


def _other_distribution(case: _Case, x: Tensor, changed: Tensor, position: int) -> bool:
    count = 48
    ys = torch.stack([case(x, 100 + seed)[position].flatten() for seed in range(count)])
    zs = torch.stack([case(changed, 100 + count + seed)[position].flatten() for seed in range(count)])
    return differ_in_distribution(ys.double(), zs.double(), case.seed)


@_LAWS.law
def global_randomness_is_left_alone(case: _Case) -> None:
    """With a generator, no global source of randomness is drawn from or seeded."""
    x = case.images()
    before = random_states()
    case(x)
    touched = [name for name, state in random_states().items() if before.get(name, state) != state]
    if touched:
        broken(
            f"{' and '.join(touched)} global random state changed, and a generator was given; draw with generator=generator"
        )


@_LAWS.law
def torch_is_drawn_from_without_a_generator(case: _Case) -> None:
    """Without a generator, torch.manual_seed decides the result, and each call draws anew."""
    x = case.images()

    def calls(count: int) -> list[Tensor]:
        return [case.transform(x) for _ in range(count)]

    with stirred(1), seeded(3):
        first = calls(1)[0]
    with stirred(2), seeded(3):
        again = calls(1)[0]
    if not same(first, again):
        broken(
            "without a generator, torch.manual_seed does not decide the result; draw with torch and generator=None then, not "
            "with numpy, random, or a generator of your own"
        )
    if (
        case.transform.stochastic
        and _varies(case)
        # Of equal samples, those that see each other make nothing new.
        and not _varies_between(lambda: case.transform(case.images(_MANY) if case.mixes else _copies(case, _MANY)))
    ):
        broken(
            "without a generator, every call gives the same; pass generator=None on to torch, which then uses its own"
        )


@_LAWS.law
def stochastic_is_as_declared(case: _Case) -> None:
    """``stochastic = False`` gives one result for all seeds; ``stochastic = True`` gives several."""
    if case.transform.stochastic:
        if not _varies(case):
            broken(
                f"stochastic is True, and {_VERY_MANY} samples came out the same for two seeds; say stochastic = False, "
                "or draw at random with generator=generator"
            )
        return
    x = case.images()
    with stirred(1):
        first = case(x)
    for seed in range(1, 9):
        with stirred(seed + 1):
            other = case(x, seed)
        if not same(first, other):
            broken(
                f"stochastic is False, and two seeds gave values {furthest(first, other):.3g} apart; say stochastic = True in "
                "the class body"
            )


@_LAWS.law
def every_sample_is_drawn_for(case: _Case) -> None:
    """Equal samples in one batch come out differently, where the transform is random at all."""
    if not case.transform.stochastic:
        inapplicable("it is not random")
    if case.mixes or not _varies(case):
        inapplicable("its samples see each other" if case.mixes else "it gives one result for all seeds")
    for count in (_MANY, _VERY_MANY):
        y = case(_copies(case, count))
        if not same(y, y[:1].expand_as(y)):
            return
    broken(
        f"seeds differ, and {_VERY_MANY} equal samples of one batch came out the same: one draw serves all of them; draw "
        "len(x) times, as draw_uniform((len(x), 1, 1, 1), x, generator) does"
    )


def _copies(case: _Case, count: int) -> Tensor:
    return case.images(1).expand(count, *case.shape).clone()


def _varies_between(call: Any, times: int = 4) -> bool:
    first = call()
    return any(not same(first, call()) for _ in range(times))


def _varies(case: _Case) -> bool:
    """Whether some of many images comes out differently with another seed."""
    x = case.images(_MANY)
    first = case(x)
    if any(not same(first, case(x, seed)) for seed in range(1, 16)):
        return True
    many = case.images(_VERY_MANY)
    return not same(case(many), case(many, 1))


# ---- other input ------------------------------------------------------------------------------------------------------


@_LAWS.law
def uint8_agrees_with_floats(case: _Case) -> None:
    """uint8 in 0..255 gives what the same values as floats give, up to one rounding; or it is refused by a DataError."""
    if not case.takes(torch.uint8):
        inapplicable("it refuses uint8")
    x = case.images(dtype=torch.uint8)
    # A composition rounds after each of its parts, so these are looked at one by one.
    for part in getattr(case.transform, "transforms", None) or (case.transform,):
        y = part(x, generator=generator(case.seed))
        z = part(x.float() / 255, generator=generator(case.seed)) * 255
        gap = furthest(y.float(), z)
        if gap > 0.51:
            broken(
                f"uint8 images gave values {gap:.3g} of 255 away from what the same floats gave; compute in x.float() / 255, "
                "then multiply by 255, round and clamp, with the same draws"
            )
        x = y


@_LAWS.law
def memory_layout_does_not_matter(case: _Case) -> None:
    """A batch that is not contiguous, or starts inside a larger tensor, gives the same."""
    # Kernels add up in another order along other strides. In double precision that stays far below what a mistake does.
    double = torch.float64
    x = case.images(dtype=double if case.takes(double) else torch.float32)
    expected = case(x)
    layouts = {
        "a transposed view": x.transpose(0, -1).contiguous().transpose(0, -1),
        "a slice of a larger tensor": torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
        "every other sample of a batch": x.repeat_interleave(2, dim=0)[::2],
    }
    if x.dim() == 4:
        layouts["channels_last memory"] = x.to(memory_format=torch.channels_last)
    for name, layout in layouts.items():
        try:
            y = case(layout)
        except RuntimeError as error:
            broken(f"{name} fails ({str(error).partition(chr(10))[0]}); use reshape in place of view")
        if not close(y, expected):
            broken(
                f"{name} gave values {furthest(y, expected):.3g} away from those of the same images laid out "
                "plainly; index by dimension, not by memory"
            )


@_LAWS.law
def bad_input_is_refused(case: _Case) -> None:
    """An empty batch, empty sides, too few dimensions, no tensor and no generator each get a DataError."""
    x = case.images()
    flat = x.flatten()[0] if not case.transform.axes else x.flatten()[: len(x)]
    bad = {
        f"an empty batch of shape {(0, *case.shape)}": lambda: case.transform(x[:0]),
        "samples with a side of 0": lambda: case.transform(x[..., :0]),
        "a list": lambda: case.transform(x.tolist()),  # type: ignore[arg-type]
        "generator=0": lambda: case.transform(x, generator=0),  # type: ignore[arg-type]
        f"a tensor of shape {tuple(flat.shape)}": lambda: case.transform(flat),
    }
    for what, call in bad.items():
        try:
            call()
        except DataError:
            continue
        except Exception as error:
            broken(
                f"{what} raised {type(error).__name__} ({error}) in place of a DataError; define apply and leave __call__ to "
                "the base, and let output_shape begin with super().output_shape(shape)"
            )
        broken(
            f"{what} was taken; define apply and leave __call__ to the base, and let output_shape begin with "
            "super().output_shape(shape)"
        )


# ---- specs and copies --------------------------------------------------------------------------------------------------


@_LAWS.law
def spec_comes_back_equal(case: _Case) -> None:
    """``to_spec()`` survives JSON and means the same transform."""
    check_spec(case.transform, make_transform, "register_transform", case.behaviour)


@_LAWS.law
def copies_are_equal(case: _Case) -> None:
    """Pickled or copied, it is the same transform: a data loader sends it to other processes."""
    check_copies(case.transform, case.behaviour)


@_LAWS.law
def every_parameter_matters(case: _Case) -> None:
    """Changing a parameter changes the output or its shape."""
    check_parameters(case.transform, case.behaviour)


# ---- devices ---------------------------------------------------------------------------------------------------------


@_LAWS.law
def cpu_and_cuda_agree(case: _Case) -> None:
    """A GPU gives what the CPU gives, for one generator on either device; the batch stays where it is."""
    for device in every_device():
        for dtype in (torch.float32, torch.uint8):
            if not case.takes(dtype):
                continue
            x = case.images(dtype=dtype)
            for home in ("cpu", device):
                ours = case.transform(x, generator=generator(case.seed, home))
                theirs = case.transform(x.to(device), generator=generator(case.seed, home))
                if theirs.device.type != device:
                    broken(f"a batch on {device} came out on {theirs.device}; make new tensors with device=x.device")
                step = 1.01 if dtype == torch.uint8 else 1e-4
                # A value at the edge of a step may fall on either side of it.
                share = ((ours.double() - theirs.cpu().double()).abs() > step).double().mean().item()
                if share > 0.01:
                    broken(
                        f"with a generator on {home}, {share:.0%} of the values on {device} differ from those on the CPU; draw "
                        "on the generator's device and move the draws, as draw_uniform does"
                    )


@run_by(_LAWS)
class TransformLaws(LawTests):
    """The laws of transforms as tests: subclass it in a file of tests, and every law runs on everything in ``specs``.

    >>> class TestMine(TransformLaws):
    ...     specs = ["grayscale", {"patch_shuffle": {"n": 4}}]
    ...     shape = (3, 8, 8)
    >>> TestMine().test_range_is_kept("grayscale")
    """

    shape: ClassVar[tuple[int, ...]] = (3, 16, 16)
    """The shape of the samples to try them on."""
    batch: ClassVar[int] = 5
    specs: ClassVar[Sequence[Any]] = ()

    def _case(self, spec: Any) -> tuple[_Case, str]:
        case = _case(spec, self.shape, self.batch, self.seed)
        return case, repr(case.transform)
