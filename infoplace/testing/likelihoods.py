"""The laws of likelihoods."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from infoplace.distributions import Likelihood, make_likelihood
from infoplace.errors import DataError, DeclarationError
from infoplace.testing.laws import (
    Laws,
    LawTests,
    broken,
    check_copies,
    check_gradient,
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
from infoplace.testing.statistics import (
    SIGMAS,
    Density,
    of_one_number,
)

__all__ = ["LikelihoodLaws", "check_likelihood"]

_DRAWS = 4000


@dataclasses.dataclass
class _Case:
    likelihood: Likelihood
    shape: tuple[int, ...]
    batch: int
    seed: int

    def raw(
        self, *leading: int, shape: tuple[int, ...] | None = None, dtype: Any = torch.float32, seed: int = 1
    ) -> Tensor:
        """Standard normal raw numbers: `[*leading, *raw_shape]`."""
        size = (*leading, *self.likelihood.raw_shape(self.shape if shape is None else shape))
        return torch.randn(size, generator=generator(self.seed + seed), dtype=torch.float64).to(dtype)

    def __call__(self, raw: Tensor, shape: tuple[int, ...] | None = None) -> Any:
        return self.likelihood(raw, self.shape if shape is None else shape)

    def draw(
        self, raw: Tensor, *, count: tuple[int, ...] = (), shape: tuple[int, ...] | None = None, seed: int = 2
    ) -> Tensor:
        with seeded(self.seed + seed):
            return self(raw, shape).sample(torch.Size(count))

    @functools.cached_property
    def densities(self) -> list[Density]:
        """The distributions of a few numbers of a few samples."""
        return _densities(self)

    def behaviour(self, likelihood: Likelihood) -> Any:
        other = dataclasses.replace(self, likelihood=likelihood)
        raw = other.raw(self.batch)
        drawn = other.draw(raw)
        distribution = other(raw)
        return (
            likelihood.raw_shape(self.shape),
            drawn,
            distribution.log_prob(drawn),
            likelihood.encode(drawn, self.shape),
            likelihood.point(distribution),
        )


_LAWS: Laws[_Case] = Laws("likelihood")


def check_likelihood(likelihood: Any, shape: tuple[int, ...] = (1, 4, 4), *, batch: int = 4, seed: int = 0) -> None:
    """Try every law of likelihoods.

    Args:
        likelihood: a likelihood, a name or a spec.
        shape: the shape of the data to try it on, one that it takes; small, for densities are summed up.
        batch: how many samples at once, at least 2.
        seed: of the raw numbers and of the draws; with one seed, the outcome is always the same.

    Raises:
        LawError: a law that is broken.
        DeclarationError: no likelihood, a shape that it does not take, or too small a batch.
        UnknownNameError: an unknown name.

    >>> check_likelihood({"categorical": {"classes": 3}}, shape=(2,))
    """
    case = _case(likelihood, shape, batch, seed)
    _LAWS.check(case, repr(case.likelihood))


def _case(likelihood: Any, shape: tuple[int, ...], batch: int, seed: int) -> _Case:
    made = make_likelihood(likelihood)
    if batch < 2:
        raise DeclarationError(
            f"laws need a batch of at least 2 samples, to see whether they meddle; got batch={batch}"
        )
    made.raw_shape(tuple(shape))  # a shape that it does not take is the caller's mistake, and no law's
    return _Case(made, tuple(shape), batch, seed)


# ---- shapes and types ------------------------------------------------------------------------------------------------


@_LAWS.law
def shapes_are_as_declared(case: _Case) -> None:
    """Raw `[*, *raw_shape]` gives batch shape `[*]` and event shape the data's, for all shapes that are taken."""
    count = case.likelihood.parameters_per_value
    if type(count) is not int or count < 1:
        broken(f"parameters_per_value is {count!r}; return how many raw numbers describe one number of the data")
    for shape in {case.shape: None, (): None, (3,): None, (2, *case.shape): None}:
        try:
            raw_shape = case.likelihood.raw_shape(shape)
        except DeclarationError:
            continue
        for leading in ((), (case.batch,), (2, case.batch)):
            raw = torch.zeros(*leading, *raw_shape)
            # Whether draws can be scored is another law's question.
            with pyro.validation_enabled(False), seeded(case.seed):
                distribution = case(raw, shape)
                found = tuple(distribution.batch_shape), tuple(distribution.event_shape)
                if found != (leading, shape):
                    broken(
                        f"raw numbers {list(raw.shape)} for data of shape {shape} gave batch shape {list(found[0])} and event "
                        f"shape {list(found[1])}, where {list(leading)} and {list(shape)} are due; let distribution(raw, dim) "
                        "take the parameters apart along dim, and return one distribution for each number"
                    )
                drawn = distribution.sample()
                point, score = case.likelihood.point(distribution), distribution.log_prob(drawn)
            for what, value, due in (
                ("a draw", drawn, (*leading, *shape)),
                ("its log-probability", score, leading),
                ("the point", point, (*leading, *shape)),
            ):
                if tuple(value.shape) != due:
                    broken(f"{what} has shape {list(value.shape)} for data of shape {shape}; {list(due)} is due")
            if not point.double().isfinite().all():
                broken("the point is not finite at raw 0; return a value that can be shown, as the mean or the mode")


@_LAWS.law
def draws_are_in_the_support(case: _Case) -> None:
    """Whatever is drawn can be scored: it passes ``check``, rounding leaves it, and its log-probability is finite."""
    for factor in (1.0, 4.0):
        raw = case.raw(max(case.batch, 16)) * factor
        x = case.draw(raw)
        distribution = case(raw)
        if not bool(distribution.support.check(x).all()):
            broken("draws lie outside the distribution's own support; let sample() give what log_prob() takes")
        try:
            case.likelihood.check(x, "x")
        except DataError as error:
            broken(f"check refuses the likelihood's own draws ({error}); let both mean one support")
        rounded = case.likelihood.round(x)
        if rounded.dtype != x.dtype or not close(rounded, x):
            broken(
                f"round moves the likelihood's own draws by up to {furthest(rounded, x):.3g}; it is to leave what can be scored"
            )
        log_prob = distribution.log_prob(x)
        if not log_prob.isfinite().all():
            broken(
                "log-probabilities of its own draws are not finite; look at what is drawn at the edges of the support"
            )


@_LAWS.law
def wrong_raw_shapes_are_refused(case: _Case) -> None:
    """Raw numbers of another shape get a DataError, and a data shape of no size a DeclarationError."""
    first, *rest = case.likelihood.raw_shape(case.shape)
    for size in ((case.batch, first + 1, *rest), tuple(rest)):
        try:
            case(torch.zeros(size))
        except DataError:
            continue
        except Exception as error:
            broken(
                f"raw numbers of shape {list(size)} raised {type(error).__name__} ({error}); raise a DataError there"
            )
        broken(f"raw numbers of shape {list(size)} were taken; leave __call__ to the base, which checks them")
    try:
        case.likelihood.raw_shape((0, *case.shape))
    except DeclarationError:
        return
    broken("raw_shape took a data shape with a side of 0; let it begin with super().raw_shape(data_shape)")


@_LAWS.law
def seed_decides_the_draws(case: _Case) -> None:
    """Draws come from torch's global generator, anew each time; scoring draws nothing."""
    raw = case.raw(case.batch)
    with stirred(1):
        first = case.draw(raw, count=(64,))
    with stirred(2):
        second = case.draw(raw, count=(64,))
    if not same(first, second):
        broken("torch.manual_seed does not decide the draws; draw with torch alone")
    with seeded(case.seed):
        one, other = case(raw).sample(torch.Size((64,))), case(raw).sample(torch.Size((64,)))
        before = random_states()
        case(raw).log_prob(one[0])
        case.likelihood.point(case(raw))
        if random_states() != before:
            broken("scoring values draws random numbers; log_prob and point are to be functions of the raw numbers")
    if same(one, other):
        broken("two draws of 64 batches are equal; draw anew each time")


@_LAWS.law
def samples_are_independent(case: _Case) -> None:
    """The log-probability of a sample does not hang on the other samples of its batch."""
    raw, others = case.raw(case.batch), case.raw(case.batch, seed=3) * 3
    x, y = case.draw(raw), case.draw(others)
    before = case(raw).log_prob(x)
    for position in (0, case.batch - 1):
        others[position], y[position] = raw[position], x[position]
        after = case(others).log_prob(y)
        if not close(before[position], after[position], relative=1e-4, absolute=1e-4):
            broken(
                f"the log-probability of sample {position} moved by {furthest(before[position], after[position]):.3g} when the "
                "other samples of its batch changed; compute over the data's dimensions alone"
            )


@_LAWS.law
def leading_dimensions_are_kept(case: _Case) -> None:
    """Particles, enumerated values and broadcasts give what a flat batch gives."""
    raw = case.raw(2, case.batch)
    x = case.draw(raw)
    each = case(raw).log_prob(x)
    flat = case(raw.flatten(0, 1)).log_prob(x.flatten(0, 1)).view(2, case.batch)
    alone = torch.stack([case(raw[i, j]).log_prob(x[i, j]) for i in range(2) for j in range(case.batch)]).view_as(each)
    wide = case(raw[0]).expand(torch.Size((2, case.batch))).log_prob(x)
    for what, one, other in (
        ("where leading dimensions are flattened", each, flat),
        ("where samples are taken one by one", each, alone),
        ("where a distribution is expanded over a plate", wide, case(raw[:1].expand_as(raw)).log_prob(x)),
    ):
        if not close(one, other, relative=1e-4, absolute=1e-4):
            broken(
                f"log-probabilities are up to {furthest(one, other):.3g} away {what}; index parameters from the end, with the "
                "dim that distribution(raw, dim) is given"
            )


@_LAWS.law
def types_are_kept(case: _Case) -> None:
    """Densities have the raw numbers' precision; half precision is widened to float32."""
    for dtype, due in (
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        raw = case.raw(case.batch, dtype=dtype)
        x = case.draw(raw)
        log_prob = case(raw).log_prob(x)
        if log_prob.dtype != due:
            broken(f"raw numbers in {dtype} gave log-probabilities in {log_prob.dtype}; {due} is due")
        if x.dtype.is_floating_point and x.dtype != due:
            broken(f"raw numbers in {dtype} gave draws in {x.dtype}; {due} is due")


# ---- values ----------------------------------------------------------------------------------------------------------


@_LAWS.law
def rounding_gives_what_can_be_scored(case: _Case) -> None:
    """``round`` of any grey values passes ``check``, keeps its type, and rounding again changes nothing."""
    x = torch.rand(case.batch, *case.shape, generator=generator(case.seed))
    x.flatten()[:2] = torch.tensor([0.0, 1.0])[: x.numel()]
    try:
        case.likelihood.check_type(x, "x")
    except DataError:
        inapplicable("it scores no floats")
    before = x.clone()
    rounded = case.likelihood.round(x)
    if not same(x, before):
        broken("round changed its input; use functions without a trailing _")
    if rounded.dtype != x.dtype or rounded.shape != x.shape:
        broken(f"round gave {rounded.dtype} {list(rounded.shape)} for {x.dtype} {list(x.shape)}; keep both")
    try:
        case.likelihood.check(rounded, "x")
    except DataError as error:
        broken(
            f"check refuses what round gave for values in [0, 1] ({error}); a transform's output is rounded, then scored"
        )
    again = case.likelihood.round(rounded)
    if not close(again, rounded):
        broken(
            f"rounding twice moves values by up to {furthest(again, rounded):.3g} more than rounding once; round to what stays"
        )


@_LAWS.law
def bad_values_are_refused(case: _Case) -> None:
    """``check`` answers NaN, infinity, other types and values outside the support by a DataError."""
    raw = case.raw(case.batch)
    x, support = case.draw(raw), case(raw).support
    bad: dict[str, Any] = {"a list": x.tolist()}
    if x.dtype.is_floating_point:
        bad["integers"] = x.round().long()
        candidates = [
            float("nan"),
            float("inf"),
            -float("inf"),
            -1e4,
            -7.3,
            -1.0,
            -0.5,
            -0.004,
            0.3337,
            1.004,
            1.5,
            2.0,
            300.5,
        ]
    else:
        bad["floats"] = x.float()
        candidates = [-1, 2, 1000, 10**6]
    for value in candidates:
        one = x.clone()
        one.view(-1)[0] = value
        if not bool(support.check(one).all()) or value != value or value in (float("inf"), -float("inf")):
            bad[f"the value {value}"] = one
    for what, given in bad.items():
        try:
            case.likelihood.check(given, "x")
        except DataError:
            continue
        except Exception as error:
            broken(f"check answered {what} by {type(error).__name__} ({error}); raise a DataError there")
        broken(f"check let {what} pass; raise DataError there, or training ends in NaN")


@_LAWS.law
def features_are_floats_per_sample(case: _Case) -> None:
    """``encode`` gives an encoder floats of one shape, whatever the batch, and other features for other values."""
    x = case.draw(case.raw(case.batch))
    features = case.likelihood.encode(x, case.shape)
    if not features.is_floating_point() or features.shape[:1] != x.shape[:1]:
        broken(
            f"encode gave {features.dtype} {list(features.shape)} for a batch {list(x.shape)}; floats [batch, ...] are due"
        )
    if not features.isfinite().all():
        broken("encode gave values that are not finite; look at divisions and logarithms")
    # What a pair does to find out the shape of the features.
    blank = case.likelihood.encode(case.likelihood.round(torch.zeros(1, *case.shape)), case.shape)
    if blank.shape[1:] != features.shape[1:]:
        broken(
            f"encode gave {list(blank.shape[1:])} for a sample of zeros and {list(features.shape[1:])} for draws; "
            "let the shape hang on the data's shape alone, for a pair finds it out that way"
        )
    for position in range(case.batch):
        one = case.likelihood.encode(x[position : position + 1], case.shape)
        if not close(one[0], features[position]):
            broken("encode gives a sample other features in a batch than alone; compute over the data's dimensions")
    for i in range(1, case.batch):
        if not same(x[i], x[0]) and same(features[i], features[0]):
            broken("encode gives two different samples equal features; an encoder could not tell them apart")


# ---- densities -------------------------------------------------------------------------------------------------------


@_LAWS.law
def densities_sum_to_one(case: _Case) -> None:
    """Probabilities sum to 1 over all values; densities integrate to 1."""
    for density in case.densities:
        total, allowed = density.total()
        if not abs(total - 1) <= allowed:
            kind = "probabilities of all values sum" if density.discrete else "density integrates"
            broken(f"the {kind} to {total:.5g} in place of 1; look at the normaliser in log_prob")


@_LAWS.law
def draws_follow_log_prob(case: _Case) -> None:
    """Values are drawn as often as ``log_prob`` says."""
    for density in case.densities:
        deviate = density.deviate()
        if deviate > SIGMAS:
            broken(
                f"{_DRAWS} draws lie {deviate:.1f} standard deviations away from what log_prob says; let sample() and "
                "log_prob() use the same parameters"
            )


@_LAWS.law
def mean_is_that_of_the_draws(case: _Case) -> None:
    """``mean``, where there is one, is the mean of draws."""
    raw = case.raw(case.batch, dtype=torch.float64)
    try:
        mean = case(raw).mean
    except (NotImplementedError, AttributeError):
        inapplicable("its distribution has no mean")
    if mean.isnan().any():
        inapplicable("its distribution has no mean")
    x = case.draw(raw, count=(_DRAWS,)).double()
    # A mean may leave out that values are rounded to a grid, which moves it by less than half a step; and it counts what is
    # too rare to be drawn.
    allowed = SIGMAS * x.std(0) / _DRAWS**0.5 + 0.02 * x.std(0) + 0.25 * _step(x) + 15 / _DRAWS * (x.max() - x.min())
    gap = (x.mean(0) - mean.double()).abs()
    if not bool((gap <= allowed).all()):
        worst = int((gap - allowed).nan_to_num(float("inf")).argmax())
        broken(
            f"mean says {mean.flatten()[worst]:.4g} where {_DRAWS} draws have the mean {x.mean(0).flatten()[worst]:.4g}; let "
            "mean be that of the distribution, or not be there at all and point say what to show"
        )


@_LAWS.law
def extreme_raw_numbers_stay_finite(case: _Case) -> None:
    """Log-probabilities and their gradients are finite however far the raw numbers go."""
    x = case.draw(case.raw(case.batch) * 3)
    for size in (10.0, 100.0, 1000.0):
        for seed in range(4):
            raw = (case.raw(case.batch, seed=10 + seed).sign() * size).requires_grad_()
            log_prob = case(raw).log_prob(x)
            if not log_prob.isfinite().all():
                broken(
                    f"raw numbers of size {size:g} gave a log-probability of {_worst(log_prob)}; bound scales and logits"
                )
            (gradient,) = torch.autograd.grad(log_prob.sum(), raw)
            if not gradient.isfinite().all():
                broken(f"raw numbers of size {size:g} gave a gradient of {_worst(gradient)}; bound scales and logits")


@_LAWS.law
def gradients_are_right(case: _Case) -> None:
    """The gradient of ``log_prob`` in the raw numbers is that of finite differences, in float64."""
    raw = case.raw(case.batch, dtype=torch.float64)
    x = case.draw(raw)

    def log_prob(values: Tensor) -> Tensor:
        return case(values.view_as(raw)).log_prob(x).sum()

    check_gradient(log_prob, raw.flatten(), case.seed, "log_prob in the raw numbers")


@_LAWS.law
def every_raw_number_matters(case: _Case) -> None:
    """Each raw number of a decoder changes the log-probability of some value."""
    raw = case.raw(48, dtype=torch.float64)
    x = case.draw(raw)
    raw.requires_grad_()
    (gradient,) = torch.autograd.grad(case(raw).log_prob(x).sum(), raw)
    idle = int((gradient.abs().sum(0) == 0).sum())
    if idle:
        broken(
            f"{idle} of {gradient[0].numel()} raw numbers have no gradient; lower parameters_per_value, or use them all"
        )


# ---- specs and copies --------------------------------------------------------------------------------------------------


@_LAWS.law
def spec_comes_back_equal(case: _Case) -> None:
    """``to_spec()`` survives JSON and means the same likelihood."""
    check_spec(case.likelihood, make_likelihood, "register_likelihood", case.behaviour)


@_LAWS.law
def copies_are_equal(case: _Case) -> None:
    """Pickled or copied, it is the same likelihood."""
    check_copies(case.likelihood, case.behaviour)


@_LAWS.law
def every_parameter_matters(case: _Case) -> None:
    """Changing a parameter changes the raw shape, the draws, their log-probability, their features or the point."""
    check_parameters(case.likelihood, case.behaviour)


@_LAWS.law
def cpu_and_cuda_agree(case: _Case) -> None:
    """A GPU gives the same log-probabilities and features, and draws where the raw numbers are."""
    for device in every_device():
        raw = case.raw(case.batch)
        x = case.draw(raw)
        ours, theirs = case(raw).log_prob(x), case(raw.to(device)).log_prob(x.to(device))
        if not close(ours, theirs, relative=1e-4, absolute=1e-3):
            broken(
                f"log-probabilities on {device} are up to {furthest(ours, theirs):.3g} away from those on the CPU; compute in "
                "one type on both"
            )
        drawn = case.draw(raw.to(device))
        features = case.likelihood.encode(drawn, case.shape)
        case.likelihood.check(drawn, "x")
        for what, value in (
            ("draws", drawn),
            ("features", features),
            ("the point", case.likelihood.point(case(raw.to(device)))),
        ):
            if value.device.type != device:
                broken(
                    f"{what} are on {value.device} for raw numbers on {device}; make new tensors with device=raw.device"
                )


def _worst(values: Tensor) -> str:
    return str(values[~values.isfinite()].flatten()[0].item())


def _step(x: Tensor) -> float:
    """The smallest gap between different values, where there are few of these; 0 for continuous ones."""
    values = x.flatten().unique()
    return float(values.diff().min()) if 1 < len(values) < x.numel() / 4 else 0.0


# ---- the densities behind a likelihood ------------------------------------------------------------------------------


def _densities(case: _Case) -> list[Density]:
    """The distributions of a few numbers of a few samples; of small samples as a whole, where numbers hang together."""
    raw = case.raw(6, dtype=torch.float64)
    raw[3:] *= 2
    base: Any = case(raw)
    while isinstance(base, dist.Independent):
        base = base.base_dist
    if base.event_shape:
        return _joint_densities(case)
    drawn = case.draw(raw, count=(_DRAWS,))
    values = _values(case, base, drawn)
    if values is not None and len(values) > 1000 and drawn[0, 0].numel() > 1:
        # Every value is scored under every number's distribution at once.
        return _densities(dataclasses.replace(case, shape=_least_shape(case)))
    found = []
    for sample in range(len(raw)):
        place = torch.unravel_index(torch.tensor(7 * sample % drawn[0, 0].numel()), drawn.shape[2:])
        own: Any = (slice(None), sample, *(int(index) for index in place))
        every = (-1, *(1 for _ in base.batch_shape))

        def log_prob(x: Tensor, own: Any = own, every: Any = every) -> Tensor:
            return base.log_prob(x.to(drawn.dtype).view(every))[own]

        points = None if values is None else values[:, None]
        found.append(Density(log_prob, drawn[own][:, None].double(), base.support, points, values, case.seed))
    return found


def _joint_densities(case: _Case) -> list[Density]:
    shape = _least_shape(case)
    raw = 0.5 * case.raw(2, shape=shape, dtype=torch.float64)
    drawn = case.draw(raw, count=(_DRAWS,), shape=shape)
    found = []
    for sample in range(len(raw)):
        one = case(raw[sample], shape)

        def log_prob(x: Tensor, one: Any = one) -> Tensor:
            return one.log_prob(x.to(drawn.dtype).view(-1, *shape))

        points = values = None
        if one.has_enumerate_support:
            points = one.enumerate_support().flatten(1).double()
        else:
            values = _values(case, one, drawn)
            size = math.prod(shape)
            if values is not None and len(values) ** size <= 20_000:
                points = torch.cartesian_prod(*[values] * size).view(-1, size)
        own = drawn[:, sample].reshape(_DRAWS, -1).double()
        found.append(Density(log_prob, own, one.support, points, values, case.seed))
    return found


def _least_shape(case: _Case) -> tuple[int, ...]:
    """The smallest data of the same number of dimensions that the likelihood takes."""
    ones = tuple(1 for _ in case.shape)
    for shape in (ones, (*case.shape[:1], *ones[1:])):
        try:
            case.draw(case.raw(1, shape=shape), shape=shape)
        except DeclarationError:
            continue
        return shape
    return case.shape


def _values(case: _Case, distribution: Any, drawn: Tensor) -> Tensor | None:
    """All values of one number, ascending, where they are finitely many or the rest of them is rare; otherwise None."""
    if distribution.has_enumerate_support:
        return distribution.enumerate_support(expand=False).flatten().double()
    if not distribution.support.is_discrete:
        return None
    whole = torch.arange(-64, 4097)
    if drawn.is_floating_point():
        fine = torch.linspace(-0.25, 1.25, 400_001, dtype=torch.float64)
        candidates = torch.cat([fine, whole.double()]).view(-1, *(1 for _ in case.shape))
        candidates = case.likelihood.round(candidates).flatten().unique()
    else:
        candidates = whole
    allowed = of_one_number(distribution.support).check(candidates)
    return candidates[allowed].double().unique()


@run_by(_LAWS)
class LikelihoodLaws(LawTests):
    """The laws of likelihoods as tests: subclass it in a file of tests, and every law runs on everything in ``specs``.

    >>> class TestMine(LikelihoodLaws):
    ...     specs = ["normal", {"discretized_logistic": {"bins": 16}}]
    >>> TestMine().test_spec_comes_back_equal("normal")
    """

    shape: ClassVar[tuple[int, ...]] = (1, 4, 4)
    """The shape of the data to try them on."""
    batch: ClassVar[int] = 4
    specs: ClassVar[Sequence[Any]] = ()

    def _case(self, spec: Any) -> tuple[_Case, str]:
        case = _case(spec, self.shape, self.batch, self.seed)
        return case, repr(case.likelihood)
