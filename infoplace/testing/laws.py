"""What a law is, how laws are run and reported, and the pytest bases that run each as a test of its own."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from infoplace.errors import DeclarationError, InfoplaceError, join_names
from infoplace.registry import Specified
from infoplace.testing.statistics import directional_derivatives

__all__ = ["LawError", "Laws"]

Case = TypeVar("Case")
Law = Callable[[Any], None]


class LawError(AssertionError):
    """A law that an object breaks: which one, what was seen, and what to do about it, in one sentence.

    >>> error = LawError("Blur(sigma=2.0)", "range_is_kept", "values up to 1.3 came out; end apply with .clamp(0, 1)")
    >>> print(error)
    Blur(sigma=2.0) breaks the law 'range_is_kept': values up to 1.3 came out; end apply with .clamp(0, 1)
    >>> error.law
    'range_is_kept'
    """

    def __init__(self, subject: str, law: str, seen: str) -> None:
        super().__init__(subject, law, seen)
        self.subject, self.law, self.seen = subject, law, seen

    def __str__(self) -> str:
        return f"{self.subject} breaks the law {self.law!r}: {self.seen}"


class _BrokenError(Exception):
    """What a law's function says when the law is broken; it need not know its own name."""


class _InapplicableError(Exception):
    """A law that says nothing about this object, or that this machine cannot try."""


def broken(seen: str) -> NoReturn:
    raise _BrokenError(seen)


def inapplicable(reason: str) -> NoReturn:
    raise _InapplicableError(reason)


class Laws(Generic[Case]):
    """The laws of one kind of object, in the order in which they are tried.

    Args:
        kind: the kind's name, for messages.

    >>> laws = Laws("number")
    >>> @laws.law
    ... def is_even(number):
    ...     if number % 2:
    ...         broken("it is odd; add 1")
    >>> laws.check(4, "four")
    >>> laws.check(3, "three")
    Traceback (most recent call last):
    infoplace.testing.laws.LawError: three breaks the law 'is_even': it is odd; add 1
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._laws: dict[str, Law] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The laws' names."""
        return tuple(self._laws)

    def law(self, function: Law) -> Law:
        """Make a law of a function of a case, which calls :func:`broken` where the law is; its name is the function's."""
        self._laws[function.__name__] = function
        return function

    def statement(self, name: str) -> str:
        """What a law says: the first line of its docstring."""
        return (self._laws[name].__doc__ or "").partition("\n")[0]

    def check(self, case: Case, subject: str) -> None:
        """Try every law; those that do not apply pass.

        Raises:
            LawError: the first law that is broken.
        """
        for name in self._laws:
            self.try_law(name, case, subject)

    def try_law(self, name: str, case: Case, subject: str) -> str | None:
        """Try one law. The random state of torch, numpy and Python is afterwards what it was.

        Returns:
            None if it holds; the reason, if it does not apply.

        Raises:
            LawError: it is broken, or trying it raised an error.
        """
        with randomness_restored():
            try:
                self._laws[name](case)
            except _InapplicableError as reason:
                return str(reason)
            except _BrokenError as seen:
                raise LawError(subject, name, str(seen)) from seen.__cause__
            except Exception as error:
                first = str(error).strip().partition("\n")[0] or "no message"
                raise LawError(subject, name, f"trying it raised {type(error).__name__}: {first}") from error
        return None


# ---- pytest ------------------------------------------------------------------------------------------------------------


class LawTests:
    """What the pytest bases share: every law is a test method, run on everything in ``specs``."""

    specs: ClassVar[Sequence[Any]] = ()
    """What to try: specs, names or objects."""
    seed: ClassVar[int] = 0
    _cases: ClassVar[dict[int, tuple[Any, tuple[Any, str]]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._cases = {}

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run every law on every spec; pytest calls it when it collects the class."""
        if "spec" in metafunc.fixturenames:
            if not self.specs:
                raise DeclarationError(f'{type(self).__name__} tries nothing; set specs = ["name", ...] in its body')
            metafunc.parametrize("spec", list(self.specs), ids=unique([short(spec) for spec in self.specs]))

    def try_law(self, laws: Laws[Any], name: str, spec: Any) -> str | None:
        """As :meth:`Laws.try_law`. What one law has worked out serves the next, unless it was broken."""
        if id(spec) not in self._cases:
            self._cases[id(spec)] = spec, self._case(spec)
        try:
            return laws.try_law(name, *self._cases[id(spec)][1])
        except LawError:
            del self._cases[id(spec)]
            raise

    def _case(self, spec: Any) -> tuple[Any, str]:
        raise NotImplementedError


Tests = TypeVar("Tests", bound=type[LawTests])


def run_by(laws: Laws[Any]) -> Callable[[Tests], Tests]:
    """Give a base one test method for each law, ``test_<law>``."""

    def decorate(base: Tests) -> Tests:
        for name in laws.names:
            setattr(base, f"test_{name}", _method(laws, name))
        return base

    return decorate


def _method(laws: Laws[Any], name: str) -> Callable[[LawTests, Any], None]:
    def test(self: LawTests, spec: Any) -> None:
        reason = self.try_law(laws, name, spec)
        if reason is not None:
            import pytest

            pytest.skip(reason)

    test.__name__ = f"test_{name}"
    test.__doc__ = laws.statement(name)
    return test


def short(spec: Any) -> str:
    """A spec as a test's id.

    >>> short({"patch_shuffle": {"n": 8}})
    'patch_shuffle-n=8'
    >>> short(["grayscale", "blur"])
    'grayscale+blur'
    """
    if isinstance(spec, Specified):
        changed = {}
        for key, parameter in spec.spec_parameters().items():
            value = getattr(spec, key, None)
            if value is not parameter.default and value != parameter.default:
                changed[key] = value
        return short({spec.spec_name or type(spec).__name__: changed})
    if isinstance(spec, str):
        return spec
    if isinstance(spec, (list, tuple)):
        return "+".join(short(part) for part in spec)
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, given),) = spec.items()
        values = [f"{key}={_value(value)}" for key, value in given.items()] if isinstance(given, Mapping) else []
        return "-".join([str(name), *values])
    return type(spec).__name__.lower()


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value and not all(isinstance(item, (int, float)) for item in value):
        return short(value)
    return str(value).replace(" ", "")


def unique(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found


# ---- randomness --------------------------------------------------------------------------------------------------------


def generator(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The state of every global source of randomness, comparable by ``==``."""
    states = {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "numpy's": repr([np.asarray(part).tolist() for part in np.random.get_state()]),  # noqa: NPY002
        "Python's": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["CUDA's"] = b"".join(state.numpy().tobytes() for state in torch.cuda.get_rng_state_all())
    return states


@contextmanager
def randomness_restored() -> Iterator[None]:
    """The global random state afterwards as it was before."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def set_seed(seed: int) -> None:
    """Seed torch's global generators."""
    # torch.manual_seed keeps a stack trace of every call for devices that are not there.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generators set from a seed, and as they were afterwards."""
    with torch.random.fork_rng():
        set_seed(seed)
        yield


@contextmanager
def stirred(seed: int) -> Iterator[None]:
    """Every global source of randomness in another state, and as it was afterwards: nothing should hang on it."""
    with randomness_restored():
        set_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield


# ---- comparing ---------------------------------------------------------------------------------------------------------


def same(left: Any, right: Any) -> bool:
    """Whether two nested values are equal: tensors in shape, type and every element (NaN equals NaN)."""
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return False
        alike = left.shape == right.shape and left.dtype == right.dtype and left.device == right.device
        return alike and bool(((left == right) | ((left != left) & (right != right))).all())
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def furthest(left: Tensor, right: Tensor) -> float:
    """The largest difference of two tensors; infinite where only one of them is finite, or their shapes differ."""
    if left.shape != right.shape:
        return float("inf")
    a, b = left.detach().cpu().double(), right.detach().cpu().double()
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    return float(gap.nan_to_num(float("inf")).max()) if gap.numel() else 0.0


def close(left: Tensor, right: Tensor, relative: float = 1e-5, absolute: float = 1e-6) -> bool:
    """Whether two tensors agree but for rounding."""
    if left.shape != right.shape:
        return False
    a, b = left.detach().cpu().double(), right.detach().cpu().double()
    return bool(torch.isclose(a, b, rtol=relative, atol=absolute, equal_nan=True).all())


# ---- specs and parameters ------------------------------------------------------------------------------------------------


def check_spec(thing: Specified, make: Callable[[Any], Any], register: str, behaviour: Callable[[Any], Any]) -> None:
    """The law of specs, for any kind: written down, through JSON and back, it is the same thing."""
    if thing.spec_name is None:
        broken(f"its class is registered under no name, so a run cannot be saved; write @{register}('a_name') above it")
    try:
        spec = thing.to_spec()
        text = json.dumps(spec)
    except (InfoplaceError, TypeError, ValueError, AttributeError) as error:
        broken(
            f"its spec cannot be written as JSON ({error}); keep parameters that are numbers, strings, lists or specs"
        )
    try:
        back = make(json.loads(text))
    except InfoplaceError as error:
        broken(f"its own spec {text} is refused ({error}); let the constructor take what it turned its parameters into")
    if type(back) is not type(thing):
        broken(f"its spec {text} comes back as a {type(back).__name__}; register its own class under a name of its own")
    again = back.to_spec()
    if again != spec or back != thing or hash(back) != hash(thing):
        broken(
            f"its spec {text} comes back as {json.dumps(again)}; keep each parameter as the attribute of its name, in a "
            "form that the constructor leaves as it is"
        )
    for key in thing.spec_parameters():
        ours, theirs = getattr(thing, key), getattr(back, key)
        if ours != theirs:
            broken(
                f"{key}={ours!r} comes back from JSON as {theirs!r}; turn it into one form when it is made "
                "(a list into a tuple, a spec into what it means)"
            )
    if not same(behaviour(thing), behaviour(back)):
        broken(f"what comes back from its spec {text} gives another result; keep nothing that the spec does not say")


def unused_parameters(thing: Specified, behaviour: Callable[[Any], Any], leave_out: Sequence[str] = ()) -> list[str]:
    """The parameters (numbers and booleans) that change nothing: neither as things are, nor with another one changed too."""
    parameters = {key: one for key, one in thing.spec_parameters().items() if key not in leave_out}
    values = {key: getattr(thing, key) for key in thing.spec_parameters()}

    def seen(given: Mapping[str, Any]) -> Any:
        with seeded(0):  # what is drawn when a thing is made must not pass for what a parameter changes
            return behaviour(type(thing)(**given))

    def others(given: dict[str, Any], key: str) -> Iterator[tuple[dict[str, Any], Any]]:
        for value in variations(given[key], str(parameters[key].annotation)):
            changed = {**given, key: value}
            try:
                yield changed, seen(changed)
            except Exception:
                continue  # a refused value says nothing, whatever the refusal

    def idle(given: dict[str, Any], before: Any, key: str, tries: int | None = None) -> bool:
        afters = [after for _, after in itertools.islice(others(given, key), tries)]
        return bool(afters) and all(same(before, after) for after in afters)

    before = seen(values)
    return [
        key
        for key in parameters
        if idle(values, before, key)
        and all(
            idle(given, after, key, tries=3)
            for other in parameters
            if other != key
            for given, after in itertools.islice(others(values, other), 2)
        )
    ]


def check_parameters(thing: Specified, behaviour: Callable[[Any], Any], leave_out: Sequence[str] = ()) -> None:
    """The law of parameters, for any kind: each changes something."""
    unused = unused_parameters(thing, behaviour, leave_out)
    if unused:
        broken(f"nothing changes with {join_names(unused)}; use each parameter, or take it out")


def check_copies(thing: Specified, behaviour: Callable[[Any], Any]) -> None:
    """The law of copies, for any kind: pickled or copied, it is equal and does the same."""
    before = behaviour(thing)
    for way, copied in (("pickle", lambda one: pickle.loads(pickle.dumps(one))), ("copy.deepcopy", copy.deepcopy)):
        try:
            back = copied(thing)
        except Exception as error:
            broken(
                f"{way} fails ({type(error).__name__}: {error}); define the class at the top of a module, and keep no lambda, "
                "lock, open file or generator as an attribute"
            )
        # What is registered under no name equals nothing else; another law says so.
        equal = back == thing or (thing.spec_name is None and type(back) is type(thing))
        if not equal or not same(before, behaviour(back)):
            broken(f"what {way} gives is not the same thing; keep all that it needs in its parameters")


def check_gradient(function: Callable[[Tensor], Tensor], at: Tensor, seed: int, what: str) -> None:
    """The law of gradients, for any kind: backward gives what finite differences give.

    Args:
        function: from a vector to a number.
        at: `[d]`, float64.
        seed: of the directions in which it is tried.
        what: what is differentiated, for the message.
    """
    point = at.detach().clone().requires_grad_()
    compare_gradient(function(point), [point], function, seed, what)


def compare_gradient(
    value: Tensor, inputs: Sequence[Tensor], function: Callable[[Tensor], Tensor], seed: int, what: str
) -> None:
    """As :func:`check_gradient`, for a number and the tensors it came from; ``function`` takes all these in one vector."""
    if not value.requires_grad:
        broken(f"{what} has no gradient; compute it with torch, without .item(), .detach() or torch.no_grad()")
    parts = torch.autograd.grad(value, inputs, allow_unused=True)
    gradient = torch.cat(
        [(torch.zeros_like(one) if part is None else part).flatten() for one, part in zip(inputs, parts, strict=True)]
    )
    at = torch.cat([one.detach().flatten() for one in inputs])
    directions = torch.randint(0, 2, (4, len(at)), generator=generator(seed)).to(at) * 2 - 1
    numeric = directional_derivatives(function, at, directions)
    analytic = directions @ gradient
    allowed = 2e-3 * torch.maximum(analytic.abs(), numeric.abs()) + 1e-4 * gradient.norm() + 1e-6
    excess = (analytic - numeric).abs() - allowed
    if not bool((excess <= 0).all()):
        worst = int(excess.nan_to_num(float("inf")).argmax())
        broken(
            f"the gradient of {what} is {analytic[worst]:.6g} in a direction where finite differences give "
            f"{numeric[worst]:.6g}; look for .item(), .data, a detach() that should not be there, or a backward of your own"
        )


def variations(value: Any, annotation: str = "") -> list[Any]:
    """Other values to try in place of a parameter's.

    >>> variations(True), variations(4)
    ([False], [5, 3, 8, 2, 6, 1, 40, 0])
    """
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        others = [value + 1, value - 1, 2 * value, value // 2, value + 2, 1, 10 * value, 0]
        return [other for index, other in enumerate(others) if other != value and other not in others[:index]]
    if isinstance(value, float):
        near = [value * 1.5, value * 0.5, value + 0.1, value - 0.1, value * 1.1, value * 10, value / 10, 0.0, 1.0]
        return [other for index, other in enumerate(near) if other != value and other not in near[:index]]
    if value is None:
        return [0.5, 2.0] * ("float" in annotation) + [2, 3] * ("int" in annotation)
    if isinstance(value, (list, tuple)) and value:
        return [type(value)([other, *value[1:]]) for other in variations(value[0])]
    if isinstance(value, Mapping) and value:
        first, *_ = value
        return [{**value, first: other} for other in variations(value[first])]
    return []


def every_device() -> list[str]:
    """The accelerators to compare the CPU with."""
    if not torch.cuda.is_available():
        inapplicable("it needs a CUDA device, and torch finds none here")
    return ["cuda"]
