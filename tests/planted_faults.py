"""Faulty transforms, likelihoods, priors, objectives and pairs, each with the law that must catch it.

``FAULTS`` maps a fault's name to that law and to what checks the faulty thing; a thunk that raises no ``LawError``, or that of
another law, has not caught its fault. ``CUDA_FAULTS`` are those that show on a GPU alone. No pytest is needed here.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import infoplace as ip
from infoplace import distributions, networks, objectives, transforms
from infoplace.distributions import Likelihood, Prior
from infoplace.objectives import Objective, Term
from infoplace.testing import check_likelihood, check_objective, check_pair, check_prior, check_transform
from infoplace.transforms import Transform, draw_uniform

Fault = tuple[str, Callable[[], None]]
FAULTS: dict[str, Fault] = {}
CUDA_FAULTS: dict[str, Fault] = {}

REGISTRIES = {
    Transform: transforms.base._registry,
    Likelihood: distributions.likelihoods._likelihoods,
    Prior: distributions.priors._priors,
    Objective: objectives.base._registry,
    ip.Network: networks._registry,
}


@contextmanager
def registered(implementation: type) -> Iterator[None]:
    """A class registered under a name for a while."""
    (registry,) = (one for base, one in REGISTRIES.items() if issubclass(implementation, base))
    fields = ("_implementations", "_owners", "_presets")
    before = {field: dict(getattr(registry, field)) for field in fields}
    registry.register(f"planted_{implementation.__name__}", implementation)
    try:
        yield
    finally:
        for field, value in before.items():
            setattr(registry, field, value)


def planted(
    kind: str, law: str, what: str, check: Callable[[Any], None], table: dict[str, Fault] = FAULTS, **given: Any
):
    """Plant a class: an object of it, made with ``given``, is checked while the class is registered."""

    def decorate(implementation: type) -> type:
        def thunk() -> None:
            with registered(implementation):
                check(implementation(**given))

        assert f"{kind}: {what}" not in table
        table[f"{kind}: {what}"] = law, thunk
        return implementation

    return decorate


# ---- transforms ------------------------------------------------------------------------------------------------------

transform = functools.partial(planted, "transform", check=check_transform)
wide = functools.partial(check_transform, shape=(3, 8, 8), batch=4)


class SoundTransform(Transform):
    """Darkens every image by a random amount of up to `most`: no fault."""

    most: float = 0.5
    destroys = "brightness"
    stochastic = True

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        amount = 1 - self.most * self.draw(x, generator)
        return self.in_floats(x, lambda values: values * amount.view(-1, *(1 for _ in x.shape[1:])).to(values))

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return draw_uniform((len(x),), x, generator)


class SoundAndCertain(Transform):
    """Halves every value: no fault."""

    destroys = "brightness"
    stochastic = False

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.in_floats(x, self.change)

    def change(self, x: Tensor) -> Tensor:
        return x / 2


class Rejects(SoundTransform):
    """Draws for each sample until it likes what it drew, and looks at the sample for that: no fault, whatever the batch."""

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        found = []
        for sample in x.double():
            amount = draw_uniform((1,), x, generator)
            while amount < 0.5 * sample.mean() / sample.max().clamp(min=1):
                amount = draw_uniform((1,), x, generator)
            found.append(amount)
        return torch.cat(found)


@transform(law="says_what_it_is", what="destroys is empty")
class SaysNothing(SoundTransform):
    destroys = " "


@transform(law="says_what_it_is", what="stochastic is no bool")
class SaysPerhaps(SoundTransform):
    stochastic = "sometimes"  # type: ignore[assignment]


@transform(law="says_what_it_is", what="axes is a string")
class AxesString(SoundTransform):
    axes = "height width"  # type: ignore[assignment]


@transform(law="output_shape_is_as_declared", what="declares half the side")
class WrongShape(SoundAndCertain):
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] // 2)


@transform(law="output_shape_is_as_declared", what="squeezes a batch of one")
class Squeezes(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        return (x / 2).squeeze()


@transform(law="output_shape_is_as_declared", what="declares a list")
class ListShape(SoundAndCertain):
    def output_shape(self, shape: tuple[int, ...]) -> Any:
        return list(super().output_shape(shape))


@transform(law="output_shape_is_as_declared", what="refuses videos that output_shape takes")
class FourDimensions(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.view(batch, channels, height * width).flip(1).view(batch, channels, height, width)


@transform(law="type_and_device_are_kept", what="gives float32 for all floats")
class Narrows(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x.float() / 2 if x.is_floating_point() else x // 2


@transform(law="type_and_device_are_kept", what="gives floats for uint8")
class Widens(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x / 2


@transform(law="range_is_kept", what="sharpens beyond white")
class Oversharp(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if not x.is_floating_point():
            return super().apply(x, generator)
        mean = x.flatten(1).mean(1).view(-1, *(1 for _ in x.shape[1:]))
        return mean + 1.5 * (x - mean)


@transform(law="range_is_kept", what="divides by the contrast of a black image")
class Stretches(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        low, high = (bound.view(-1, *(1 for _ in x.shape[1:])) for bound in x.flatten(1).aminmax(dim=1))
        return (x - low) / (high - low)


@transform(law="input_is_not_modified", what="works in place")
class InPlace(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        x[..., 0] = 0
        return x.clone()


@transform(law="output_has_memory_of_its_own", what="returns its input")
class ReturnsInput(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x


@transform(law="output_has_memory_of_its_own", what="returns a view of its input")
class ReturnsView(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x.transpose(-1, -2).transpose(-1, -2)


@transform(law="output_has_memory_of_its_own", what="reuses one buffer")
class ReusesBuffer(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        made = super().apply(x, generator)
        buffers = self.__dict__.setdefault("buffers", {})
        return buffers.setdefault((made.shape, made.dtype), torch.empty_like(made)).copy_(made)


@transform(law="same_seed_gives_the_same", what="ignores the generator")
class IgnoresGenerator(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.rand(len(x), dtype=torch.float64)


@transform(law="same_seed_gives_the_same", what="draws with numpy")
class DrawsWithNumpy(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.from_numpy(np.random.random(len(x)))  # noqa: NPY002


@transform(law="same_seed_gives_the_same", what="remembers how often it was called")
class Remembers(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        calls = self.__dict__.setdefault("calls", [0])
        calls[0] += 1
        return x / (1 + calls[0])


@transform(law="global_randomness_is_left_alone", what="seeds torch itself")
class SeedsTorch(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is not None:
            torch.manual_seed(int(torch.randint(1000, (1,), generator=generator)))
        return torch.rand(len(x), dtype=torch.float64)


@transform(law="global_randomness_is_left_alone", what="throws a die of Python's besides")
class ThrowsDie(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        random.random()
        return super().draw(x, generator)


@transform(law="torch_is_drawn_from_without_a_generator", what="makes the same generator for every call")
class OwnGenerator(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return super().draw(x, generator or torch.Generator().manual_seed(0))


@transform(law="torch_is_drawn_from_without_a_generator", what="asks the system for a seed")
class SystemSeed(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        return super().draw(x, generator)


@transform(law="stochastic_is_as_declared", what="is random and says it is not")
class SaysCertain(SoundTransform):
    stochastic = False


@transform(law="stochastic_is_as_declared", what="says it is random and is not")
class SaysRandom(SoundAndCertain):
    stochastic = True


@transform(law="every_sample_is_drawn_for", what="draws once for the whole batch")
class DrawsOnce(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return draw_uniform((1,), x, generator).expand(len(x))


@transform(law="samples_are_independent", what="subtracts the mean of the batch")
class BatchMean(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        return x - 0.1 * x.mean()


@transform(law="samples_are_independent", what="divides by the brightest value of the batch")
class BatchMaximum(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        return x / x.max().clamp(min=1e-3)


@transform(law="samples_are_independent", what="mixes in a random other sample")
class MixesUp(SoundTransform):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        partner = draw_uniform((len(x),), x, generator).argsort()
        amount = self.most * self.draw(x, generator).view(-1, *(1 for _ in x.shape[1:]))
        return self.in_floats(x, lambda values: values + amount.to(values) * (values[partner] - values))


@transform(law="samples_are_independent", what="carries something over to the next sample")
class CarriesOver(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        return torch.cat([x[:1], 0.9 * x[1:] + 0.1 * x[:-1]])


@transform(law="samples_are_independent", what="says that it mixes samples and does not")
class SaysMixing(SoundAndCertain):
    mixes_samples = True


@transform(law="uint8_agrees_with_floats", what="lets uint8 run over")
class RunsOver(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x + 26 if x.dtype == torch.uint8 else (x + 26 / 255).clamp(0, 1)


@transform(law="uint8_agrees_with_floats", what="cuts uint8 off in place of rounding")
class CutsOff(SoundAndCertain):
    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return (x * 0.7).to(x.dtype)


@transform(law="memory_layout_does_not_matter", what="views what may not be contiguous")
class Views(SoundAndCertain):
    def change(self, x: Tensor) -> Tensor:
        return (x.view(len(x), -1) / 2).view(x.shape)


@transform(law="bad_input_is_refused", what="takes an empty batch")
class TakesNothing(SoundAndCertain):
    def __call__(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return self.apply(x, generator)


@transform(law="bad_input_is_refused", what="takes sides of 0")
class TakesEmptySides(SoundAndCertain):
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(shape)


class Unregistered(SoundAndCertain):
    pass


FAULTS["transform: is registered under no name"] = "spec_comes_back_equal", lambda: check_transform(Unregistered())


@transform(law="spec_comes_back_equal", what="turns its parameter into another at each making", percent=50.0)
class Percent(SoundTransform):
    percent: float = 50.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "percent", self.percent / 100)

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.percent * super().draw(x, generator)


@transform(law="spec_comes_back_equal", what="has a tuple that comes back a list", range=(0.2, 0.9))
class TupleOfRange(SoundTransform):
    range: tuple[float, ...] = (0.2, 0.9)

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.range[0] + (self.range[1] - self.range[0]) * super().draw(x, generator)


@transform(law="spec_comes_back_equal", what="has a tensor as a parameter", weights=torch.tensor([0.3, 0.6]))
class TensorParameter(SoundAndCertain):
    weights: Any = None

    def change(self, x: Tensor) -> Tensor:
        return x * self.weights.sum().to(x)


@transform(law="spec_comes_back_equal", what="draws a secret when it is made")
class Secret(SoundAndCertain):
    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", random.random())

    def change(self, x: Tensor) -> Tensor:
        return x * self.secret  # type: ignore[attr-defined]


@transform(law="copies_are_equal", what="keeps a lambda")
class KeepsLambda(SoundAndCertain):
    def __post_init__(self) -> None:
        object.__setattr__(self, "function", lambda x: x / 2)


@transform(law="copies_are_equal", what="is pickled without its parameter", most=0.25)
class ForgetsMost(SoundTransform):
    def __reduce__(self) -> Any:
        return type(self), ()


@transform(law="every_parameter_matters", what="does not use a number")
class UnusedNumber(SoundTransform):
    strength: float = 0.5


@transform(law="every_parameter_matters", what="does not use a switch")
class UnusedSwitch(SoundTransform):
    hard: bool = False


@transform(law="every_parameter_matters", what="overwrites what it is given", most=0.5)
class Overwrites(SoundTransform):
    def __post_init__(self) -> None:
        object.__setattr__(self, "most", 0.5)


@transform(law="cpu_and_cuda_agree", what="makes its draws on the CPU and leaves them there", table=CUDA_FAULTS)
class StaysOnCpu(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        device = "cpu" if generator is None else generator.device
        return torch.rand(len(x), generator=generator, dtype=torch.float64, device=device)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        amount = self.most * self.draw(x, generator).view(-1, *(1 for _ in x.shape[1:]))
        return self.in_floats(x, lambda values: torch.minimum(values, 1 - amount.to(values.dtype)))


@transform(
    law="cpu_and_cuda_agree", what="draws with the device of the batch, whatever the generator", table=CUDA_FAULTS
)
class DrawsElsewhere(SoundTransform):
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        seed = torch.initial_seed() if generator is None else generator.initial_seed()
        own = torch.Generator(x.device).manual_seed(seed)
        return torch.rand(len(x), generator=own, dtype=torch.float64, device=x.device)


# ---- likelihoods -----------------------------------------------------------------------------------------------------

likelihood = functools.partial(planted, "likelihood", check=check_likelihood)


class Bent(dist.TorchDistribution):
    """A distribution with some of its ways replaced."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - as torch has it

    def __init__(self, base: Any, **ways: Callable[..., Any]) -> None:
        self.base, self.ways = base, ways
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:  # type: ignore[override]
        return self.base.support

    @property
    def mean(self) -> Tensor:
        return self.ways.get("mean", lambda base: base.mean)(self.base)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self.base.sample(torch.Size(sample_shape))
        return self.ways["sample"](self.base, drawn) if "sample" in self.ways else drawn

    def log_prob(self, value: Tensor) -> Tensor:
        score = self.base.log_prob(value)
        return self.ways["log_prob"](self.base, value, score) if "log_prob" in self.ways else score

    def expand(self, batch_shape: Any, _instance: Any = None) -> Bent:
        return Bent(self.base.expand(torch.Size(batch_shape)), **self.ways)


class SoundNormal(Likelihood):
    """A normal of learned mean and scale: no fault."""

    least: float = 0.1

    @property
    def parameters_per_value(self) -> int:
        return 2

    def scale(self, raw: Tensor) -> Tensor:
        return self.least + torch.sigmoid(raw)

    def distribution(self, raw: Tensor, dim: int) -> Any:
        mean, scale = raw.unbind(dim)
        return dist.Normal(mean, self.scale(scale))


class SoundGrid(Likelihood):
    """Five grey values, each with a probability of its own: no fault."""

    @property
    def parameters_per_value(self) -> int:
        return 1

    def distribution(self, raw: Tensor, dim: int) -> Any:
        return distributions.DiscretizedLogistic(raw.squeeze(dim) + 0.5, torch.full_like(raw.squeeze(dim), 0.2), bins=5)

    def round(self, x: Tensor) -> Tensor:
        return (x * 4).round().clamp(0, 4) / 4

    def check(self, x: Tensor, name: str) -> None:
        self.check_type(x, name)
        if not bool(self.distribution(torch.zeros(1), 0).support.check(x).all()):
            raise ip.DataError(f"{name}: values must be k/4; got others")


@likelihood(law="shapes_are_as_declared", what="takes the parameters apart along the first dimension")
class UnbindsFirst(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        mean, scale = raw.movedim(dim, 0).unbind(-1) if raw.shape[-1] == 2 else raw[:2]
        return dist.Normal(mean, self.scale(scale))


@likelihood(law="shapes_are_as_declared", what="has a point for each row only")
class RowPoint(SoundNormal):
    def point(self, distribution: Any) -> Tensor:
        return distribution.mean.mean(-1)


@likelihood(law="shapes_are_as_declared", what="counts its parameters in halves")
class HalfParameter(SoundNormal):
    @property
    def parameters_per_value(self) -> Any:
        return 2.0


@likelihood(law="wrong_raw_shapes_are_refused", what="reshapes whatever it is given")
class ReshapesAll(SoundNormal):
    def __call__(self, raw: Tensor, data_shape: tuple[int, ...]) -> Any:
        try:
            return super().__call__(raw, data_shape)
        except ip.DataError:
            return dist.Normal(raw.flatten(1), 1.0).to_event(1)


@likelihood(law="seed_decides_the_draws", what="draws with numpy")
class DrawsNumpy(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        def sample(base: Any, drawn: Tensor) -> Tensor:
            return base.loc + base.scale * torch.as_tensor(np.random.standard_normal(drawn.shape)).to(drawn)  # noqa: NPY002

        return Bent(super().distribution(raw, dim), sample=sample)


@likelihood(law="seed_decides_the_draws", what="adds noise to what it scores")
class Dequantises(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        return Bent(
            super().distribution(raw, dim),
            log_prob=lambda base, value, score: base.log_prob(value + 0.1 * torch.rand_like(value)),
        )


@likelihood(law="samples_are_independent", what="centres the means of a batch")
class CentresBatch(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        base = super().distribution(raw, dim)
        if base.loc.dim() < 4:
            return base
        return dist.Normal(base.loc - 0.1 * base.loc.mean(-4, keepdim=True), base.scale)


@likelihood(law="leading_dimensions_are_kept", what="uses the first particle's scale for all")
class FirstParticle(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        base = super().distribution(raw, dim)
        return base if base.loc.dim() < 5 else dist.Normal(base.loc, base.scale[:1].expand_as(base.scale))


@likelihood(law="types_are_kept", what="computes in float32 always")
class Single(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        return super().distribution(raw.float(), dim)


@likelihood(law="draws_are_in_the_support", what="draws between its grey values")
class DrawsBetween(SoundGrid):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        return Bent(super().distribution(raw, dim), sample=lambda base, drawn: (drawn + 0.1).clamp(max=1))


@likelihood(law="draws_are_in_the_support", what="refuses its own draws")
class RefusesItself(SoundNormal):
    def check(self, x: Tensor, name: str) -> None:
        super().check(x, name)
        if x.min() < 0:
            raise ip.DataError(f"{name}: values must be positive")


@likelihood(law="rounding_gives_what_can_be_scored", what="rounds to another grid than it scores")
class OtherGrid(SoundGrid):
    def round(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


@likelihood(law="rounding_gives_what_can_be_scored", what="rounds in place")
class RoundsInPlace(SoundGrid):
    def round(self, x: Tensor) -> Tensor:
        return x.mul_(4).round_().clamp_(0, 4).div_(4)


@likelihood(law="bad_values_are_refused", what="lets NaN pass")
class TakesNan(SoundNormal):
    def check(self, x: Tensor, name: str) -> None:
        self.check_type(x, name)


@likelihood(law="bad_values_are_refused", what="lets values off its grid pass")
class TakesAll(SoundGrid):
    def check(self, x: Tensor, name: str) -> None:
        Likelihood.check(self, x, name)


@likelihood(law="bad_values_are_refused", what="answers by an assertion")
class Asserts(SoundNormal):
    def check(self, x: Tensor, name: str) -> None:
        assert isinstance(x, Tensor)
        super().check(x, name)


@likelihood(law="features_are_floats_per_sample", what="encodes as integers")
class EncodesIntegers(SoundGrid):
    def encode(self, x: Tensor, data_shape: tuple[int, ...]) -> Tensor:
        return (4 * x).round().long()


@likelihood(law="features_are_floats_per_sample", what="normalises the features by the batch")
class EncodesBatch(SoundNormal):
    def encode(self, x: Tensor, data_shape: tuple[int, ...]) -> Tensor:
        return (x - x.mean()) / (1 + x.abs().max())


@likelihood(law="features_are_floats_per_sample", what="encodes nothing of the sample")
class EncodesNothing(SoundNormal):
    def encode(self, x: Tensor, data_shape: tuple[int, ...]) -> Tensor:
        return torch.zeros_like(x)


@likelihood(law="densities_sum_to_one", what="leaves the normaliser of the scale out")
class NoNormaliser(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        return Bent(super().distribution(raw, dim), log_prob=lambda base, value, score: score + base.scale.log())


@likelihood(law="densities_sum_to_one", what="loses the tails of its edge values")
class LosesTails(SoundGrid):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        def log_prob(base: Any, value: Tensor, score: Tensor) -> Tensor:
            upper, lower = (((value + edge - base.loc) / base.scale).sigmoid() for edge in (0.125, -0.125))
            return (upper - lower).clamp(min=1e-30).log()

        return Bent(super().distribution(raw, dim), log_prob=log_prob)


@likelihood(law="densities_sum_to_one", what="scores a joint distribution with one normaliser too many")
class JointTwice(SoundNormal):
    def __call__(self, raw: Tensor, data_shape: tuple[int, ...]) -> Any:
        base = super().__call__(raw, data_shape)
        numbers = math.prod(data_shape)
        return Bent(base, log_prob=lambda base, value, score: score - 0.5 - 0.0 * numbers)


@likelihood(law="draws_follow_log_prob", what="draws with a wider scale than it scores")
class DrawsWider(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        return Bent(super().distribution(raw, dim), sample=lambda base, drawn: base.loc + 1.2 * (drawn - base.loc))


@likelihood(law="draws_follow_log_prob", what="never draws the darkest value")
class NeverBlack(SoundGrid):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        return Bent(super().distribution(raw, dim), sample=lambda base, drawn: drawn.clamp(min=0.25))


@likelihood(law="draws_follow_log_prob", what="draws the numbers of a sample in another order than it scores them")
class DrawsReversed(SoundNormal):
    def __call__(self, raw: Tensor, data_shape: tuple[int, ...]) -> Any:
        base = super().__call__(raw, data_shape)
        return Bent(base, sample=lambda base, drawn: drawn.flip(-1) if data_shape[-1:] > (1,) else drawn + 0.3)


@likelihood(law="mean_is_that_of_the_draws", what="gives the location of a clipped distribution for its mean")
class LocationForMean(SoundGrid):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        return Bent(super().distribution(raw, dim), mean=lambda base: base.loc)


@likelihood(law="extreme_raw_numbers_stay_finite", what="takes the exponential of the raw scale")
class Explodes(SoundNormal):
    def scale(self, raw: Tensor) -> Tensor:
        return raw.exp()


@likelihood(law="gradients_are_right", what="holds the scale out of the gradient")
class DetachedScale(SoundNormal):
    def scale(self, raw: Tensor) -> Tensor:
        return self.least + torch.sigmoid(raw.detach()) + 0 * raw


class WrongBackward(torch.autograd.Function):
    """The sine, with a sign slip in its derivative."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return -gradient * x.cos()


@likelihood(law="gradients_are_right", what="has a backward with a sign slip")
class SignSlip(SoundNormal):
    def distribution(self, raw: Tensor, dim: int) -> Any:
        base = super().distribution(raw, dim)
        return dist.Normal(WrongBackward.apply(base.loc), base.scale)


@likelihood(law="every_raw_number_matters", what="asks for a parameter that it does not use")
class AsksTooMuch(SoundNormal):
    @property
    def parameters_per_value(self) -> int:
        return 3

    def distribution(self, raw: Tensor, dim: int) -> Any:
        return super().distribution(raw.narrow(dim, 0, 2), dim)


FAULTS["likelihood: is registered under no name"] = (
    "spec_comes_back_equal",
    lambda: check_likelihood(type("Nameless", (SoundNormal,), {})()),
)


@likelihood(law="spec_comes_back_equal", what="halves its parameter at each making", least=0.2)
class Halves(SoundNormal):
    def __post_init__(self) -> None:
        object.__setattr__(self, "least", self.least / 2)


@likelihood(law="copies_are_equal", what="keeps a lambda")
class LikelihoodLambda(SoundNormal):
    def __post_init__(self) -> None:
        object.__setattr__(self, "function", lambda x: x)


@likelihood(law="every_parameter_matters", what="does not use its parameter")
class IdleParameter(SoundNormal):
    power: int = 2


@likelihood(law="cpu_and_cuda_agree", what="makes a constant on the CPU", table=CUDA_FAULTS)
class ConstantOnCpu(SoundNormal):
    def scale(self, raw: Tensor) -> Tensor:
        return self.least + torch.sigmoid(raw) * torch.ones(raw.shape)


# ---- priors ----------------------------------------------------------------------------------------------------------

prior = functools.partial(planted, "prior", check=check_prior)


class Bell(nn.Module):
    """A normal of learned mean and scale."""

    def __init__(self, dim: int, least: float) -> None:
        super().__init__()
        self.least = least
        self.mean = nn.Parameter(torch.randn(dim))
        self.raw = nn.Parameter(torch.zeros(dim))

    def scale(self) -> Tensor:
        return self.least + torch.sigmoid(self.raw)

    def forward(self) -> Any:
        return dist.Normal(self.mean, self.scale()).to_event(1)


def check_size(dim: Any) -> None:
    if type(dim) is not int or dim < 1:
        raise ip.DeclarationError(f"dim must be a positive integer; got {dim!r}")


class SoundPrior(Prior):
    """A normal of learned mean and scale: no fault."""

    least: float = 0.5
    module = Bell

    def build(self, dim: int) -> nn.Module:
        check_size(dim)
        return self.module(dim, self.least)


@prior(law="shapes_are_as_declared", what="forgets to_event")
class ForgetsEvent(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            return dist.Normal(self.mean, self.scale())


@prior(law="shapes_are_as_declared", what="gives no module")
class NoModule(SoundPrior):
    def build(self, dim: int) -> Any:
        check_size(dim)
        return lambda: dist.Normal(torch.zeros(dim), 1.0).to_event(1)


@prior(law="bad_sizes_are_refused", what="takes any size")
class AnySize(SoundPrior):
    def build(self, dim: int) -> nn.Module:
        return self.module(int(dim), self.least)


@prior(law="all_is_made_when_it_is_built", what="makes a parameter on the first call")
class Lazy(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            if not hasattr(self, "late"):
                self.late = nn.Parameter(torch.zeros_like(self.mean))
            return dist.Normal(self.mean + self.late, self.scale()).to_event(1)


@prior(law="all_is_made_when_it_is_built", what="draws anew at each call")
class DrawsAtCall(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            return dist.Normal(self.mean + 0.1 * torch.randn_like(self.mean), self.scale()).to_event(1)


@prior(law="all_is_made_when_it_is_built", what="counts its calls")
class CountsCalls(SoundPrior):
    class module(Bell):  # noqa: N801
        def __init__(self, dim: int, least: float) -> None:
            super().__init__(dim, least)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self) -> Any:
            self.calls += 1
            return super().forward()


@prior(law="seed_decides_the_draws", what="draws with numpy")
class PriorNumpy(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            def sample(base: Any, drawn: Tensor) -> Tensor:
                standard = torch.as_tensor(np.random.standard_normal(drawn.shape)).to(drawn)  # noqa: NPY002
                return self.mean.detach() + self.scale().detach() * standard

            return Bent(super().forward(), sample=sample)


@prior(law="samples_are_independent", what="normalises points by their batch")
class BatchNormalised(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            def log_prob(base: Any, value: Tensor, score: Tensor) -> Tensor:
                return score if value.dim() < 2 else base.log_prob(value - 0.1 * value.mean(-2, keepdim=True))

            return Bent(super().forward(), log_prob=log_prob)


@prior(law="density_integrates_to_one", what="leaves a log-determinant out", least=0.2)
class NoDeterminant(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            return Bent(super().forward(), log_prob=lambda base, value, score: score + self.scale().log().sum())


@prior(law="density_integrates_to_one", what="has weights that do not sum to one")
class LooseWeights(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            def log_prob(base: Any, value: Tensor, score: Tensor) -> Tensor:
                other = dist.Normal(-self.mean, self.scale()).to_event(1).log_prob(value)
                return torch.logaddexp(score, other - 1.0)

            return Bent(super().forward(), log_prob=log_prob)


@prior(law="draws_follow_log_prob", what="draws with a narrower scale than it scores")
class DrawsNarrower(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            return Bent(super().forward(), sample=lambda base, drawn: self.mean + 0.8 * (drawn - self.mean))


@prior(law="draws_follow_log_prob", what="draws its dimensions together and scores them apart")
class DrawsTogether(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            def sample(base: Any, drawn: Tensor) -> Tensor:
                standard = (drawn - self.mean) / self.scale()
                standard = torch.cat([standard[..., :1], 0.8 * standard[..., :1] + 0.6 * standard[..., 1:]], dim=-1)
                return self.mean + self.scale() * standard

            return Bent(super().forward(), sample=sample)


@prior(law="far_points_stay_finite", what="takes the logarithm of a sum of exponentials")
class LogOfSum(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            return Bent(super().forward(), log_prob=lambda base, value, score: score.exp().log())


@prior(law="gradients_are_right", what="holds the scale out of the gradient")
class PriorDetached(SoundPrior):
    class module(Bell):  # noqa: N801
        def scale(self) -> Tensor:
            return self.least + torch.sigmoid(self.raw.detach()) + 0 * self.raw


@prior(law="gradients_are_right", what="computes in float32 always")
class PriorSingle(SoundPrior):
    class module(Bell):  # noqa: N801
        def forward(self) -> Any:
            return dist.Normal(self.mean.float(), self.scale().float()).to_event(1)


@prior(law="every_parameter_trains", what="has a parameter that it does not use")
class IdleWeights(SoundPrior):
    class module(Bell):  # noqa: N801
        def __init__(self, dim: int, least: float) -> None:
            super().__init__(dim, least)
            self.idle = nn.Parameter(torch.zeros(dim))


@prior(law="state_comes_back", what="draws a constant that its state leaves out")
class LosesConstant(SoundPrior):
    class module(Bell):  # noqa: N801
        def __init__(self, dim: int, least: float) -> None:
            super().__init__(dim, least)
            self.register_buffer("shift", torch.randn(dim), persistent=False)

        def forward(self) -> Any:
            return dist.Normal(self.mean + self.shift, self.scale()).to_event(1)


class Clusters(nn.Module):
    """A mixture of three normals, whose class is drawn."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, 1.0, -1.0]))
        self.means = nn.Parameter(torch.randn(3, dim))

    def forward(self) -> Any:
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), dist.Normal(self.means, 1.0).to_event(1))

    def class_prior(self) -> Any:
        return dist.Categorical(logits=self.logits)

    def given(self, y: Tensor) -> Any:
        return dist.Normal(self.means[y], 1.0).to_event(1)

    def responsibilities(self, z: Tensor) -> Any:
        return dist.Categorical(logits=self.logits + dist.Normal(self.means, 1.0).to_event(1).log_prob(z[..., None, :]))

    def advance(self) -> None:
        """It has no schedule."""


class ClassPosterior(nn.Module):
    """The class, as its logits say it."""

    def forward(self, logits: Tensor) -> Any:
        return dist.Categorical(logits=logits)

    def advance(self) -> None:
        """It has no schedule."""


class SoundClusters(Prior):
    """A mixture of three normals: no fault."""

    module = Clusters

    @property
    def classes(self) -> int:
        return 3

    @property
    def draws_class(self) -> bool:
        return True

    def build(self, dim: int) -> nn.Module:
        check_size(dim)
        return self.module(dim)

    def build_class_posterior(self) -> nn.Module:
        return ClassPosterior()


@prior(law="classes_agree", what="leaves the classes' shares out of Bayes' rule")
class NoShares(SoundClusters):
    class module(Clusters):  # noqa: N801
        def responsibilities(self, z: Tensor) -> Any:
            return dist.Categorical(logits=dist.Normal(self.means, 1.0).to_event(1).log_prob(z[..., None, :]))


@prior(law="classes_agree", what="has classes that do not add up to the whole")
class OtherClasses(SoundClusters):
    class module(Clusters):  # noqa: N801
        def given(self, y: Tensor) -> Any:
            return dist.Normal(self.means[y], 1.1).to_event(1)


FAULTS["prior: is registered under no name"] = (
    "spec_comes_back_equal",
    lambda: check_prior(type("NamelessPrior", (SoundPrior,), {})()),
)


@prior(law="spec_comes_back_equal", what="halves its parameter at each making")
class PriorHalves(SoundPrior):
    def __post_init__(self) -> None:
        object.__setattr__(self, "least", self.least / 2)


@prior(law="copies_are_equal", what="has a module with a lambda")
class PriorLambda(SoundPrior):
    class module(Bell):  # noqa: N801
        def __init__(self, dim: int, least: float) -> None:
            super().__init__(dim, least)
            self.function = lambda x: x


@prior(law="every_parameter_matters", what="does not use its parameter")
class PriorIdle(SoundPrior):
    temperature: float = 1.0


@prior(law="cpu_and_cuda_agree", what="has a constant that is no buffer", table=CUDA_FAULTS)
class PriorConstant(SoundPrior):
    class module(Bell):  # noqa: N801
        def __init__(self, dim: int, least: float) -> None:
            super().__init__(dim, least)
            self.shift = torch.ones(dim)

        def forward(self) -> Any:
            return dist.Normal(self.mean + self.shift, self.scale()).to_event(1)


# ---- objectives ------------------------------------------------------------------------------------------------------

objective = functools.partial(planted, "objective", check=check_objective)


class SoundObjective(objectives.Elbo):
    """The ELBO with a penalty on the size of what was drawn: no fault."""

    def __init__(
        self,
        strength: float = 0.5,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        self.strength = float(strength)

    def penalty(self, evidence: Any) -> Tensor:
        """Summed over the batch, averaged over the particles."""
        drawn = [latent.value.square().sum() for one in evidence.passes for latent in one.latents.values()]
        return torch.stack(drawn).sum() / evidence.particles

    def weigh(self, evidence: Any) -> dict[str, Term]:
        return {**super().weigh(evidence), "penalty": Term(self.penalty(evidence), self.strength)}


@objective(law="loss_is_the_sum_of_its_terms", what="adds something to the loss besides its terms")
class AddsToLoss(SoundObjective):
    def evaluate(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().evaluate(*args, **kwargs)
        return loss + 1.0, terms


@objective(law="loss_is_the_sum_of_its_terms", what="has a term for each image")
class TermForEach(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        return evidence.passes[0].latents["z_g"].value.square().sum(-1)


@objective(law="loss_is_the_sum_of_its_terms", what="takes the logarithm of 0")
class LogOfZero(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        return (0 * super().penalty(evidence)).log()


@objective(law="seed_decides_the_loss", what="draws with numpy")
class ObjectiveNumpy(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        return super().penalty(evidence) * (1 + np.random.random())  # noqa: NPY002


@objective(law="seed_decides_the_loss", what="keeps a running mean between calls")
class RunningMean(SoundObjective):
    running = 0.0

    def penalty(self, evidence: Any) -> Tensor:
        now = super().penalty(evidence)
        type(self).running = 0.9 * type(self).running + 0.1 * float(now.detach())
        return now - type(self).running


@objective(law="looking_changes_nothing", what="writes to the observations")
class WritesObservations(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        now = super().penalty(evidence)
        evidence.source.observations["x"].mul_(0.5)
        return now


@objective(law="looking_changes_nothing", what="takes a step of its schedule whenever it is looked at")
class StepsAtLook(SoundObjective):
    def weigh(self, evidence: Any) -> dict[str, Term]:
        found = super().weigh(evidence)
        self.steps_taken += 1
        return found


@objective(law="looking_changes_nothing", what="leaves the model in evaluation mode")
class LeavesEvaluation(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        evidence.source.model.eval() if evidence.source.model.training else evidence.source.model.train()
        return super().penalty(evidence)


@objective(law="terms_are_raw", what="multiplies the weight into its KLs")
class WeightedKl(SoundObjective):
    def weigh(self, evidence: Any) -> dict[str, Term]:
        kl = {f"kl/{name}": Term(value * self.strength, 1.0) for name, value in evidence.kl.items()}
        return {**evidence.likelihood_terms(), **kl}


@objective(law="all_ways_agree", what="divides the number by the batch in loss alone")
class DividesLoss(SoundObjective):
    def loss(self, *args: Any, **kwargs: Any) -> float:
        return super().loss(*args, **kwargs) / len(args[2]["x"])


@objective(law="all_ways_agree", what="has a gradient of its own in differentiable_loss")
class OtherDifferentiable(SoundObjective):
    def differentiable_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().differentiable_loss(*args, **kwargs) * 2


@objective(law="loss_is_summed_over_the_batch", what="averages a term over the batch")
class AveragesBatch(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        return super().penalty(evidence) / len(evidence.passes[0].latents["z_g"].value)


@objective(law="particles_are_averaged", what="sums a term over the particles")
class SumsParticles(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        return super().penalty(evidence) * evidence.particles


@objective(law="particles_are_averaged", what="divides by the passes, which are fewer than particles at once")
class CountsPasses(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        return super().penalty(evidence) * evidence.particles / len(evidence.passes)


@objective(law="gradients_are_right", what="computes a term with numpy")
class TermOfNumpy(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        now = super().penalty(evidence)
        return now + torch.from_numpy(np.sin(now.data.numpy()[None]))[0] * 10


@objective(law="gradients_are_right", what="has a backward with a sign slip")
class SlipInTerm(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        return 30 * WrongBackward.apply(super().penalty(evidence) / 100)


@objective(law="gradient_reaches_something", what="detaches all that it weighs")
class DetachesAll(SoundObjective):
    def weigh(self, evidence: Any) -> dict[str, Term]:
        return {
            name: Term(term.value.detach() + 0 * term.value, term.weight)
            for name, term in super().weigh(evidence).items()
        }


@objective(law="gradient_reaches_something", what="has a network that it does not use")
class IdleNetwork(SoundObjective):
    def __init__(self, num_particles: int = 1, vectorize_particles: bool = False) -> None:
        super().__init__(0.5, num_particles, vectorize_particles)
        self.module = nn.Linear(2, 2).double()


class Warm(SoundObjective):
    """With a penalty that grows in ten steps: no fault."""

    @property
    def schedule_steps(self) -> int:
        return 10

    def schedule(self, step: int) -> float:
        return min(1.0, (step + 1) / 11)

    def weigh(self, evidence: Any) -> dict[str, Term]:
        found = super().weigh(evidence)
        return {**found, "penalty": Term(found["penalty"].value, self.strength * self.level)}


@objective(law="schedule_is_kept", what="reads its step in place of its level")
class ReadsStep(Warm):
    def weigh(self, evidence: Any) -> dict[str, Term]:
        found = super().weigh(evidence)
        return {**found, "penalty": Term(found["penalty"].value, self.strength * self.schedule(self.steps_taken))}


@objective(law="schedule_is_kept", what="goes on after the end that it says")
class GoesOn(Warm):
    @property
    def schedule_steps(self) -> int:
        return 5


@objective(law="schedule_is_kept", what="rises above 1")
class RisesAbove(Warm):
    def schedule(self, step: int) -> float:
        return 3 * super().schedule(step)


@objective(law="schedule_is_kept", what="leaves its step out of its state")
class LeavesStepOut(Warm):
    def state_dict(self) -> Any:
        return {"steps_taken": [0]}


@objective(law="svi_trains_with_it", what="forgets the backward pass")
class ForgetsBackward(SoundObjective):
    def loss_and_grads(self, *args: Any, **kwargs: Any) -> float:
        self.advance()
        return self.loss(*args, **kwargs)


@objective(law="svi_trains_with_it", what="forgets the schedule in loss_and_grads")
class ForgetsStep(SoundObjective):
    def loss_and_grads(self, *args: Any, **kwargs: Any) -> float:
        loss = super().loss_and_grads(*args, **kwargs)
        self.steps_taken -= 1
        return loss


@objective(law="no_value_is_read", what="asks a tensor a question")
class AsksTensor(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        now = super().penalty(evidence)
        return now if now > 1 else now * 0 + 1


FAULTS["objective: is registered under no name"] = (
    "spec_comes_back_equal",
    lambda: check_objective(type("NamelessObjective", (SoundObjective,), {})()),
)


@objective(law="spec_comes_back_equal", what="halves its parameter at each making")
class ObjectiveHalves(SoundObjective):
    def __init__(self, strength: float = 0.5, num_particles: int = 1, vectorize_particles: bool = False) -> None:
        super().__init__(strength / 2, num_particles, vectorize_particles)


@objective(law="copies_are_equal", what="keeps a lambda")
class ObjectiveLambda(SoundObjective):
    def __init__(self, strength: float = 0.5, num_particles: int = 1, vectorize_particles: bool = False) -> None:
        super().__init__(strength, num_particles, vectorize_particles)
        self.function = lambda x: x


@objective(law="every_parameter_matters", what="does not use its parameter")
class ObjectiveIdle(SoundObjective):
    def __init__(self, gamma: float = 3.0, num_particles: int = 1, vectorize_particles: bool = False) -> None:
        super().__init__(0.5, num_particles, vectorize_particles)
        self.gamma = gamma


@objective(law="cpu_and_cuda_agree", what="makes a constant on the CPU", table=CUDA_FAULTS)
class ObjectiveOnCpu(SoundObjective):
    def penalty(self, evidence: Any) -> Tensor:
        value = evidence.passes[0].latents["z_g"].value
        return super().penalty(evidence) + (value * torch.ones(value.shape)).mean() * 0


# ---- pairs -----------------------------------------------------------------------------------------------------------

Linear = functools.partial(nn.Linear, 48, 4)


def images(count: int = 5) -> Tensor:
    """Grey values k/255, `[count, 3, 4, 4]`."""
    source = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 3, 4, 4), generator=source).float() / 255


def declaration() -> ip.Partition:
    return ip.Partition(
        {"z_g": ip.Block(2, reads=("x", "x_hat")), "z_l": ip.Block(2)},
        {
            "x": ip.Observation(blocks=("z_g", "z_l")),
            "x_hat": ip.Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 2}}),
        },
    )


class Encodes(nn.Module):
    """An encoder of one or two images: no fault."""

    def __init__(self, reads: int = 1) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(48 * reads, 6), nn.Linear(6, 4)

    def features(self, *reads: Tensor) -> Tensor:
        return torch.cat([read.flatten(1) for read in reads], dim=1)

    def forward(self, *reads: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(self.features(*reads))))


class Decodes(nn.Module):
    """A decoder of images: no fault."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, 6), nn.Linear(6, 96)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(z))).view(-1, 6, 4, 4)


def pair_of(kind: type[ip.Pair] = ip.Pair, **modules: Any) -> ip.Pair:
    """A pair of small networks, some of them replaced: ``z_g``, ``z_l``, ``x`` and ``x_hat``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "z_g": lambda: Encodes(2),
            "z_l": Encodes,
            "x": lambda: Decodes(4),
            "x_hat": lambda: Decodes(2),
            **modules,
        }
        given = {
            "encoders": {name: made[name]() for name in ("z_g", "z_l")},
            "decoders": {name: made[name]() for name in ("x", "x_hat")},
        }
        return kind(declaration(), (3, 4, 4), given)


def plant_pair(law: str, what: str, table: dict[str, Fault] = FAULTS, role: str = "z_l") -> Any:
    """Plant a network, in the place of ``role``, or a kind of pair."""

    def decorate(made: type) -> type:
        def thunk() -> None:
            whole = issubclass(made, ip.Pair)
            check_pair(pair_of(made) if whole else pair_of(**{role: made}), images())

        assert f"pair: {what}" not in table
        table[f"pair: {what}"] = law, thunk
        return made

    return decorate


@plant_pair("shapes_are_as_declared", "reconstructs without the channels")
class NoChannels(ip.Pair):
    def reconstruct(self, observations: Any, sample: bool = False) -> dict[str, Tensor]:
        return {name: value.mean(1) for name, value in super().reconstruct(observations, sample).items()}


@plant_pair("shapes_are_as_declared", "samples pixels that are not finite")
class SamplesInfinity(ip.Pair):
    def sample(self, size: int, /, **held: Tensor) -> dict[str, Tensor]:
        return {name: value / 0 for name, value in super().sample(size, **held).items()}


@plant_pair("seed_decides_the_draws", "has an encoder that throws Python's dice")
class EncoderDice(Encodes):
    def forward(self, *reads: Tensor) -> Tensor:
        return super().forward(*reads) + random.random()


@plant_pair("leading_dimensions_are_kept", "has a decoder that looks at the place in the batch", role="x_hat")
class LooksAtPlace(Decodes):
    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + 0.1 * torch.arange(len(z), dtype=z.dtype, device=z.device).view(-1, 1, 1, 1)


@plant_pair("samples_are_independent", "has an encoder that centres the batch")
class CentresFeatures(Encodes):
    def features(self, *reads: Tensor) -> Tensor:
        x = super().features(*reads)
        return x - x.mean(0)


@plant_pair("samples_are_independent", "has batch normalisation that stays in training mode")
class StaysInTraining(Encodes):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(48, track_running_stats=False)

    def features(self, *reads: Tensor) -> Tensor:
        return self.norm(super().features(*reads))


@plant_pair("arrows_are_those_declared", "has an encoder that ignores one of its reads", role="z_g")
class IgnoresRead(Encodes):
    def __init__(self) -> None:
        super().__init__(2)

    def features(self, *reads: Tensor) -> Tensor:
        return super().features(reads[0], 0 * reads[1])


@plant_pair("arrows_are_those_declared", "has a decoder that ignores a block", role="x")
class IgnoresBlock(Decodes):
    def __init__(self) -> None:
        super().__init__(4)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z * z.new_tensor([0.0, 0.0, 1.0, 1.0]))


@plant_pair("arrows_are_those_declared", "lets a block read what it is not declared to read")
class Peeks(ip.Pair):
    def encode(self, observations: Any) -> dict[str, Any]:
        found = super().encode(observations)
        found["z_l"] = dist.Normal(found["z_l"].mean + observations["x"].flatten(1).mean(1, keepdim=True), 1.0)
        return found


@plant_pair("log_prob_is_the_sum_of_its_parts", "decodes at another temperature than it is trained at")
class Tempered(ip.Pair):
    def decode(self, latents: Any, observation: str) -> Any:
        return super().decode({name: 0.9 * value for name, value in latents.items()}, observation)


@plant_pair("every_parameter_trains", "has a layer that nothing goes through")
class IdleLayer(Encodes):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(3, 3)


@plant_pair("every_parameter_trains", "cuts the gradient of its features")
class CutsGradient(Encodes):
    def forward(self, *reads: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(self.features(*reads))).detach())


@plant_pair("copies_train_on_their_own", "has a network with a lambda")
class NetworkLambda(Encodes):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda x: x


@plant_pair("copies_train_on_their_own", "has a network that a copy shares")
class SharesItself(Encodes):
    def __deepcopy__(self, memo: Any) -> SharesItself:
        return self


@plant_pair("copies_train_on_their_own", "keeps the name under which Pyro knows it")
class KeepsName(ip.Pair):
    def __deepcopy__(self, memo: Any) -> ip.Pair:
        made = pair_of(KeepsName)
        made.load_state_dict(self.state_dict())
        made.model._name, made.guide._name = self.model._name, self.guide._name
        return made


@plant_pair("looking_changes_nothing", "has an encoder that counts")
class EncoderCounts(Encodes):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, *reads: Tensor) -> Tensor:
        self.seen += len(reads[0])
        return super().forward(*reads)


@plant_pair("looking_changes_nothing", "ends in evaluation mode")
class EndsInEvaluation(ip.Pair):
    def sample(self, size: int, /, **held: Tensor) -> dict[str, Tensor]:
        self.eval()
        return super().sample(size, **held)


class NotSaved(Encodes):
    """An encoder with a random constant that its state leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.randn(48), persistent=False)

    def features(self, *reads: Tensor) -> Tensor:
        return super().features(*reads) + self.shift


class LosesNetwork(ip.Network):
    """Networks of which a folder does not hold all."""

    def encoder(self, reads: Any, outputs: int) -> nn.Module:
        return Encodes(2) if len(reads) == 2 else NotSaved()

    def decoder(self, inputs: int, raw_shape: Any) -> nn.Module:
        return Decodes(inputs)


def check_loses_network() -> None:
    with registered(LosesNetwork):
        check_pair(ip.make_pair(declaration(), (3, 4, 4), LosesNetwork()), images())


FAULTS["pair: has a random constant that is not saved"] = "saving_brings_it_back", check_loses_network


@plant_pair("saving_brings_it_back", "saves the weights that it was made with")
class SavesOld(ip.Pair):
    def save(self, path: Any) -> Any:
        return pair_of().save(path)


@plant_pair("double_precision_works", "has a constant that is no buffer")
class ConstantSingle(Encodes):
    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.eye(48)

    def features(self, *reads: Tensor) -> Tensor:
        return super().features(*reads) @ self.mix


@plant_pair("cpu_and_cuda_agree", "has a constant that stays on the CPU", table=CUDA_FAULTS)
class ConstantStays(Encodes):
    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.eye(48)

    def features(self, *reads: Tensor) -> Tensor:
        x = super().features(*reads)
        return x @ self.mix.to(x.dtype)
