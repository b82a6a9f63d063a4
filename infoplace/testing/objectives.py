"""The laws of objectives."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyro
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from infoplace.errors import DataError, DeclarationError, join_names
from infoplace.evidence import Evidence, Term
from infoplace.objectives import Objective, make_objective
from infoplace.pair import Pair, make_pair
from infoplace.partition import Block, Observation, Partition
from infoplace.testing.laws import (
    Laws,
    LawTests,
    broken,
    check_copies,
    check_parameters,
    check_spec,
    compare_gradient,
    every_device,
    generator,
    inapplicable,
    run_by,
    same,
    seeded,
    stirred,
)
from infoplace.testing.watching import Fixed, Reads, scoped

__all__ = ["ObjectiveLaws", "check_objective"]

_OF_ALL = tuple(inspect.signature(Objective.__init__).parameters)[1:]
"""The parameters that every objective has: they say how it is computed, and need not change what it is."""


@functools.cache
def small_pair(seed: int = 0, classes: int = 0) -> Pair:
    """A pair of affine maps and hyperbolic tangents: two blocks of two dimensions, images of 3 x 4 x 4 and their shuffle.

    It is made once, and is not to be changed.

    Args:
        seed: of its weights.
        classes: how many classes ``z_g`` has, at the site ``z_g_y``; 0 for a standard normal prior.
    """
    prior: Any = {"mixture": {"components": classes, "y": "enumerate"}} if classes else "standard_normal"
    partition = Partition(
        {"z_g": Block(2, prior=prior), "z_l": Block(2)},
        {
            "x": Observation(blocks=("z_g", "z_l")),
            "x_hat": Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 2}}),
        },
    )
    with seeded(seed):

        def encoder(outputs: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Linear(6, outputs))

        def decoder(inputs: int) -> nn.Module:
            return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, 96), nn.Unflatten(1, (6, 4, 4)))

        networks = {
            "encoders": {"z_g": encoder(4 + classes), "z_l": encoder(4)},
            "decoders": {"x": decoder(4), "x_hat": decoder(2)},
        }
        return make_pair(partition, (3, 4, 4), networks)


def small_observations(pair: Pair, seed: int = 0, batch: int = 6) -> dict[str, Tensor]:
    """What :func:`small_pair` observes of random images."""
    images = torch.randint(0, 256, (batch, 3, 4, 4), generator=generator(seed + 7)).float() / 255
    return pair.partition.observe(images, generator=generator(seed))


@dataclasses.dataclass(frozen=True)
class Average:
    """A mean over draws, and its standard error."""

    mean: float
    error: float

    def surely_above(self, other: Average, factor: float) -> bool:
        """Whether its size exceeds ``factor`` times that of another, by more than chance."""
        return abs(self.mean) - 3 * self.error > factor * (abs(other.mean) + 3 * other.error) + 1e-6


@dataclasses.dataclass
class _Case:
    objective: Objective
    pair: Pair
    observations: dict[str, Tensor]
    seed: int

    def fresh(self, objective: Objective | None = None, step: int | None = 0) -> Objective:
        """A copy of the objective, its schedule at a step; for None, where it is."""
        copied = copy.deepcopy(self.objective if objective is None else objective)
        for part in copied.parts:
            part.steps_taken = part.steps_taken if step is None else step
        return copied

    def weighed(
        self,
        objective: Objective | None = None,
        *,
        step: int | None = 0,
        seed: int = 0,
        observations: Mapping[str, Tensor] | None = None,
        levels: Sequence[Any] | None = None,
    ) -> tuple[Tensor, dict[str, Term], dict[str, Tensor]]:
        """The loss, the terms with their weights as :meth:`Objective.weigh` gave them, and the terms as reported."""
        one = self.fresh(objective, step)
        kept: dict[str, Term] = {}

        def weigh(evidence: Evidence) -> dict[str, Term]:
            found = type(one).weigh(one, evidence)
            kept.update(found)
            return found

        one.weigh = weigh  # type: ignore[method-assign]
        seen = self.observations if observations is None else observations
        given = {name: value.clone() for name, value in seen.items()}
        with seeded(self.seed + seed), scoped():
            if levels is None:
                loss, reported = one.evaluate(self.pair.model, self.pair.guide, given)
            else:
                with one.at(levels):
                    loss, reported = one.evaluate(self.pair.model, self.pair.guide, given)
        detached = {name: Term(term.value.detach(), _number(term.weight)) for name, term in kept.items()}
        return loss.detach(), detached, reported

    def behaviour(self, objective: Objective) -> Any:
        """The terms and weights, here and there along the schedule."""
        last = objective.schedule_steps
        seen: list[Any] = [last]
        for step in sorted({0, last // 2, last}):
            loss, kept, _ = self.weighed(objective, step=step)
            seen.append(
                [loss.detach(), {name: (term.value.detach(), float(term.weight)) for name, term in kept.items()}]
            )
        return seen

    @functools.cached_property
    def once(self) -> dict[str, Average]:
        """Each term and the loss, of the objective as it is."""
        return self.averages(self.objective)

    def averages(self, objective: Objective, observations: Mapping[str, Tensor] | None = None) -> dict[str, Average]:
        """Each term and the loss, on average over some draws."""
        with pyro.validation_enabled(False):
            runs = [
                self.weighed(objective, step=objective.schedule_steps, seed=seed, observations=observations)[2]
                for seed in range(5)
            ]
        found = {}
        for name in runs[0]:
            values = torch.stack([run[name].double() for run in runs])
            found[name] = Average(float(values.mean()), float(values.std()) / math.sqrt(len(runs)))
        return found

    def modules(self, objective: Objective) -> nn.ModuleDict:
        parts: dict[str, nn.Module] = {"pair": self.pair}
        if objective.module is not None:
            parts["objective"] = objective.module
        return nn.ModuleDict(parts)


def _number(weight: Any) -> float:
    return float(weight.detach()) if isinstance(weight, Tensor) else float(weight)


_LAWS: Laws[_Case] = Laws("objective")


def check_objective(
    objective: Any, pair: Pair | None = None, observations: Mapping[str, Tensor] | None = None, *, seed: int = 0
) -> None:
    """Try every law of objectives, in float64.

    Left out, the pair is a small one with the blocks ``z_g`` and ``z_l`` and the observations ``x`` and ``x_hat``, images of
    3 x 4 x 4 and their shuffled patches; ``z_g`` has three classes, at the site ``z_g_y``, where the objective asks for that.

    Args:
        objective: an objective, a name or a spec.
        pair: what to try it on, as :func:`infoplace.make_pair` gives it; it stays as it is.
        observations: what ``pair.partition.observe(batch)`` returned, for the pair that is given.
        seed: of the draws; with one seed, the outcome is always the same.

    Raises:
        LawError: a law that is broken.
        DeclarationError: no objective, one that asks for sites which the pair lacks, or a pair without observations.
        UnknownNameError: an unknown name.

    >>> check_objective({"beta_elbo": {"beta": 4.0, "warmup": 10}})
    """
    case = _case(objective, pair, observations, seed)
    _LAWS.check(case, repr(case.objective))


def _case(objective: Any, pair: Pair | None, observations: Mapping[str, Tensor] | None, seed: int) -> _Case:
    made = make_objective(objective)
    if made.module is not None:
        module = copy.deepcopy(made.module).double()  # as the pair that it is tried on
        made = copy.deepcopy(made)
        made.module = module
    if (pair is None) != (observations is None):
        raise DeclarationError(
            "pair and observations go together; give both, as check_objective(objective, pair, pair.partition.observe(batch)), "
            "or neither"
        )
    if pair is not None and observations is not None:
        tried = [(pair, dict(observations))]
    else:
        tried = [(one, small_observations(one, seed)) for one in (small_pair(seed), small_pair(seed, classes=3))]
    refusals = []
    for one, seen in tried:
        wide = copy.deepcopy(one).cpu().double().eval()
        exact = {
            name: value.cpu().double() if value.is_floating_point() else value.cpu() for name, value in seen.items()
        }
        case = _Case(made, wide, exact, seed)
        try:
            case.weighed()
        except (DeclarationError, DataError) as error:
            refusals.append(error)
            continue
        except Exception:
            return case  # the laws will say what it is
        return case
    raise refusals[0]


# ---- terms -----------------------------------------------------------------------------------------------------------


@_LAWS.law
def loss_is_the_sum_of_its_terms(case: _Case) -> None:
    """The loss is the sum of weight times value over the terms, all of them finite numbers of one element."""
    for step in sorted({0, case.objective.schedule_steps}):
        loss, kept, reported = case.weighed(step=step)
        for name, term in kept.items():
            if not isinstance(name, str) or not isinstance(term.value, Tensor) or term.value.dim() != 0:
                shape = list(term.value.shape) if isinstance(term.value, Tensor) else type(term.value).__name__
                broken(f"the term {name!r} is {shape}; sum it up to a tensor without dimensions")
            if not term.value.isfinite():
                broken(f"the term {name!r} is {term.value.item()} on random weights; look at logarithms and divisions")
        total = sum(term.weight * float(term.value) for term in kept.values())
        if not math.isclose(float(loss), total, rel_tol=1e-7, abs_tol=1e-7):
            broken(f"the loss is {float(loss):.8g} and its terms, weighted, sum to {total:.8g}; say all of it in weigh")
        if set(reported) != {*kept, "loss"}:
            broken(
                f"terms() reports {join_names(sorted(reported))} and weigh gives {join_names(sorted(kept))}; override weigh alone"
            )
        for name, value in reported.items():
            due = loss if name == "loss" else kept[name].value
            if value.requires_grad or not same(value, due):
                broken(
                    f"terms() reports {name!r} as {float(value):.8g}, where it is {float(due):.8g}; leave terms() to the "
                    "base, which detaches them"
                )


@_LAWS.law
def seed_decides_the_loss(case: _Case) -> None:
    """One seed of torch gives one loss, whatever else was drawn or computed before."""
    with stirred(1):
        first = case.weighed()[0]
    with stirred(2):
        case.weighed(seed=5)
        second = case.weighed()[0]
    if not same(first, second):
        broken(
            f"one seed gives {first.item():.8g} and then {second.item():.8g}; draw with torch alone, and keep nothing between "
            "calls"
        )


@_LAWS.law
def looking_changes_nothing(case: _Case) -> None:
    """``loss``, ``terms`` and ``differentiable_loss`` change no parameter, buffer, gradient, mode, observation or schedule."""
    one = case.fresh()
    one_modules = case.modules(one)
    given = {name: value.clone() for name, value in case.observations.items()}

    def state() -> dict[str, Any]:
        return {
            "a parameter or buffer": {name: value.detach().clone() for name, value in _tensors(one_modules)},
            "a gradient": [None if p.grad is None else p.grad.clone() for p in one_modules.parameters()],
            "a module's training mode": [module.training for module in one_modules.modules()],
            "the observations": {name: value.clone() for name, value in given.items()},
            "the schedule": one.state_dict(),
        }

    before = state()
    for way in ("loss", "terms", "differentiable_loss", "evaluate"):
        with seeded(case.seed), scoped():
            getattr(one, way)(case.pair.model, case.pair.guide, given)
        after = state()
        changed = [what for what in before if not same(before[what], after[what])]
        if changed:
            broken(f"{way} changed {' and '.join(changed)}; let weigh only read what it is given")


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@_LAWS.law
def terms_are_raw(case: _Case) -> None:
    """``log_likelihood/<site>`` and ``kl/<site>`` are what they say, unweighted: those of the plain ELBO."""
    options = {name: getattr(case.objective, name) for name in _OF_ALL}
    plain = case.weighed(make_objective("elbo", **options))[2]
    for name, value in case.weighed()[2].items():
        if (
            name in plain
            and name != "loss"
            and not math.isclose(float(value), float(plain[name]), rel_tol=1e-6, abs_tol=1e-6)
        ):
            broken(
                f"its term {name!r} is {float(value):.6g}, where {float(plain[name]):.6g} is due; put what it is multiplied by "
                "into the weight, or give what is another thing another name"
            )


@_LAWS.law
def all_ways_agree(case: _Case) -> None:
    """``loss``, ``differentiable_loss``, ``terms``, ``loss_and_grads`` and the module give one number for one seed."""
    model, guide, given = case.pair.model, case.pair.guide, case.observations
    due = float(case.weighed()[0])

    def through(way: str) -> float:
        one = case.fresh()
        with seeded(case.seed), scoped():
            if way == "terms":
                return float(one.terms(model, guide, given)["loss"])
            if way == "the module":
                return float(one(model, guide)(given).detach())
            value = getattr(one, way)(model, guide, given)
            return float(value.detach() if isinstance(value, Tensor) else value)

    for way in ("loss", "differentiable_loss", "terms", "the module", "loss_and_grads"):
        found = through(way)
        if not math.isclose(found, due, rel_tol=1e-9, abs_tol=1e-9):
            broken(
                f"{way} gives {found:.8g} where evaluate gives {due:.8g}, with one seed; override weigh and nothing else"
            )
    for parameter in case.pair.parameters():
        parameter.grad = None


@_LAWS.law
def loss_is_summed_over_the_batch(case: _Case) -> None:
    """Four times the images give about four times the loss and each term: nats are summed over the batch."""
    more = {name: torch.cat([value] * 4) for name, value in case.observations.items()}
    once, fourfold = case.once, case.averages(case.objective, more)
    for name, average in once.items():
        if average.surely_above(fourfold[name], factor=0.5):
            what = "the loss" if name == "loss" else f"the term {name!r}"
            broken(
                f"{what} is {average.mean:.5g} for a batch and {fourfold[name].mean:.5g} for four times as many images; sum over "
                "the batch, or multiply a mean by the number of images, or the weights hang on the batch size"
            )


@_LAWS.law
def particles_are_averaged(case: _Case) -> None:
    """Four particles, one by one or at once, give about what one gives."""
    parameters = case.objective.spec_parameters()
    if not {"num_particles", "vectorize_particles"} <= set(parameters):
        inapplicable("it takes no num_particles")
    values = {key: getattr(case.objective, key) for key in parameters}

    def with_particles(count: int, at_once: bool) -> dict[str, Average]:
        with seeded(case.seed):
            made = type(case.objective)(**{**values, "num_particles": count, "vectorize_particles": at_once})
        if case.objective.module is not None and made.module is not None:
            made.module.load_state_dict(case.objective.module.state_dict())
            made.module.double()
        return case.averages(made)

    one = case.once if case.objective.num_particles == 1 else with_particles(1, False)
    for at_once in (False, True):
        four = with_particles(4, at_once)
        if four.keys() != one.keys():
            broken(
                f"with four particles the terms are {join_names(sorted(four))}, with one {join_names(sorted(one))}; "
                "let names hang on sites alone"
            )
        for name, average in one.items():
            if four[name].surely_above(average, factor=2) or average.surely_above(four[name], factor=2):
                broken(
                    f"{name!r} is {average.mean:.5g} with one particle and {four[name].mean:.5g} with four, drawn "
                    f"{'at once' if at_once else 'one by one'}; sum over evidence.passes and divide by evidence.particles"
                )


# ---- gradients -------------------------------------------------------------------------------------------------------


@_LAWS.law
def gradients_are_right(case: _Case) -> None:
    """For one seed, the gradient is that of finite differences; what ``detach`` or ``no_grad`` holds fixed stays fixed."""
    one = case.fresh()
    modules = case.modules(one)
    inputs = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in inputs]

    def loss() -> Tensor:
        with seeded(case.seed):
            return one.differentiable_loss(case.pair.model, case.pair.guide, case.observations)

    with scoped():
        loss()  # Pyro knows the parameters from here on
        with Fixed() as fixed:
            value = loss()

        def moved(values: Tensor) -> Tensor:
            with torch.no_grad():
                for parameter, part in zip(inputs, values.split([one.numel() for one in inputs]), strict=True):
                    parameter.copy_(part.view_as(parameter))
            with fixed.again():
                return loss()

        try:
            compare_gradient(value, inputs, moved, case.seed, "the loss")
        finally:
            with torch.no_grad():
                for parameter, before in zip(inputs, start, strict=True):
                    parameter.copy_(before)


@_LAWS.law
def gradient_reaches_something(case: _Case) -> None:
    """The loss has a finite gradient in some parameter of the pair, and in each of the objective's own."""
    one = case.fresh(step=case.objective.schedule_steps)
    reached, own = 0, {name: False for name, _ in _own(one)}
    for seed in range(3):
        with seeded(case.seed + seed), scoped():
            loss = one.differentiable_loss(case.pair.model, case.pair.guide, case.observations)
        if not loss.requires_grad:
            continue
        parameters = [parameter for parameter in case.pair.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if any(part is not None and not part.isfinite().all() for part in gradients):
            broken("the loss has a gradient that is not finite; look at logarithms, roots and divisions")
        reached += sum(part is not None and bool(part.abs().sum() > 0) for part in gradients)
        for name, parameter in _own(one):
            (part,) = torch.autograd.grad(loss, [parameter], retain_graph=True, allow_unused=True)
            own[name] |= part is not None and bool(part.abs().sum() > 0)
    if not reached:
        broken(
            "the loss has no gradient in any parameter of the pair; let a term with a weight hang on what the pair computes"
        )
    idle = [name for name, found in own.items() if not found]
    if idle:
        broken(f"the objective's own {join_names(idle)} get no gradient; use them in a term with a weight")


def _own(objective: Objective) -> list[tuple[str, nn.Parameter]]:
    return (
        []
        if objective.module is None
        else [item for item in objective.module.named_parameters() if item[1].requires_grad]
    )


# ---- training --------------------------------------------------------------------------------------------------------


@_LAWS.law
def schedule_is_kept(case: _Case) -> None:
    """A schedule runs from step to step in training alone, ends where it says, and is set by ``at`` and its state."""
    last = case.objective.schedule_steps
    if type(last) is not int or last < 0:
        broken(f"schedule_steps is {last!r}; return a number of steps, 0 without a schedule")
    for part in case.objective.parts:
        end = part.schedule_steps
        levels = [
            float(part.schedule(step)) for step in sorted({0, 1, end // 2, max(end - 1, 0), end, end + 1, 10 * end + 7})
        ]
        if not all(0 <= level <= 1 for level in levels):
            broken(f"schedule goes from {min(levels):.4g} to {max(levels):.4g}; keep it in 0..1, and multiply in weigh")
        if not math.isclose(levels[-1], float(part.schedule(end))):
            broken(f"schedule still changes after schedule_steps={end}; let schedule_steps say when it ends")
    model, guide, given = case.pair.model, case.pair.guide, case.observations
    module = case.fresh()(model, guide)
    objective: Objective = module.objective
    for mode, due in ((True, 1), (False, 1)):
        module.train(mode)
        with seeded(case.seed), scoped():
            module(given)
        if any(part.steps_taken != due for part in objective.parts):
            broken(
                "the module's call does not take one step of the schedule in training, none in evaluation; leave it to the base"
            )
    case.pair.eval()
    restored = case.fresh(step=3)
    restored.load_state_dict(case.fresh(step=1).state_dict())
    if not same(case.weighed(restored, step=None)[0], case.weighed(step=1)[0]):
        broken("load_state_dict of state_dict() gives another loss; keep the schedule's state in steps_taken")
    for step in sorted({0, last // 2, last}):
        steps = case.fresh(step=step)
        levels_there = [torch.tensor(float(level), dtype=torch.float64) for level in steps.levels]
        due_loss = case.weighed(step=step)[0]
        found = case.weighed(step=last + 1, levels=levels_there)[0]
        if not math.isclose(float(found), float(due_loss), rel_tol=1e-9):
            broken(
                f"at the level of step {step} the loss is {float(found):.6g}, and at that step {float(due_loss):.6g}; read "
                "self.level in weigh, not self.schedule(self.steps_taken), or a compiled loss keeps the first step's weights"
            )


@_LAWS.law
def svi_trains_with_it(case: _Case) -> None:
    """``pyro.infer.SVI`` with it changes parameters, takes one step of the schedule, and gives a finite loss."""
    one, pair = case.fresh(), copy.deepcopy(case.pair)
    modules = nn.ModuleDict({"pair": pair, **({"own": one.module} if one.module is not None else {})})
    before = {name: value.detach().clone() for name, value in modules.named_parameters()}
    with seeded(case.seed), scoped():
        svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), loss=one)
        loss = svi.step(case.observations)
        svi.step(case.observations)
    if not isinstance(loss, float) or not math.isfinite(loss):
        broken(f"SVI.step gives {loss!r}; a finite float is due")
    if all(same(before[name], value.detach()) for name, value in modules.named_parameters()):
        broken("two steps of SVI change no parameter; let loss_and_grads be the base's")
    if any(part.steps_taken != 2 for part in one.parts):
        broken("two steps of SVI are not two steps of the schedule; let loss_and_grads be the base's")


@_LAWS.law
def no_value_is_read(case: _Case) -> None:
    """Computing the loss reads no number off a tensor, so it waits for no GPU and can be compiled."""

    def reads(objective: Objective) -> list[str]:
        with pyro.validation_enabled(False), seeded(case.seed), scoped(), Reads() as seen:
            objective.evaluate(case.pair.model, case.pair.guide, case.observations)
        return seen.found

    if reads(make_objective("elbo")):
        inapplicable("the pair reads values itself")
    found = reads(case.fresh())
    if found:
        broken(
            f"weigh reads values ({', '.join(dict.fromkeys(found))}); use torch.where and clamp in place of if, and no .item(), "
            "float(tensor) or boolean mask"
        )


# ---- specs and copies --------------------------------------------------------------------------------------------------


@_LAWS.law
def spec_comes_back_equal(case: _Case) -> None:
    """``to_spec()`` survives JSON and means the same objective."""
    # An objective's own network starts at random, so only what its parameters say can come back.
    own = case.objective.module is not None
    check_spec(
        case.objective, make_objective, "register_objective", (lambda one: one.levels) if own else case.behaviour
    )


@_LAWS.law
def copies_are_equal(case: _Case) -> None:
    """Pickled or copied, it is the same objective, at the same step of its schedule."""
    check_copies(case.fresh(), case.behaviour)
    moved = case.fresh(step=5)
    if [part.steps_taken for part in copy.deepcopy(moved).parts] != [part.steps_taken for part in moved.parts]:
        broken("a copy is at another step of its schedule; keep steps_taken in the state that is copied")


@_LAWS.law
def every_parameter_matters(case: _Case) -> None:
    """Changing a parameter changes a term, a weight or the schedule."""
    check_parameters(case.objective, case.behaviour, leave_out=_OF_ALL)


@_LAWS.law
def cpu_and_cuda_agree(case: _Case) -> None:
    """On a GPU the terms are there, and about those of the CPU."""
    for device in every_device():
        moved = dataclasses.replace(
            case,
            objective=case.fresh(),
            pair=copy.deepcopy(case.pair).to(device),
            observations={name: value.to(device) for name, value in case.observations.items()},
        )
        if moved.objective.module is not None:
            moved.objective.module.to(device)
        for name, value in moved.weighed()[2].items():
            if value.device.type != device:
                broken(
                    f"the term {name!r} is on {value.device} for a pair on {device}; make new tensors with device=..."
                )
        ours, theirs = case.once, moved.averages(moved.objective)
        for name, average in ours.items():
            gap = abs(average.mean - theirs[name].mean)
            if not gap <= 0.2 * abs(average.mean) + 8 * (average.error + theirs[name].error) + 1e-3:
                broken(
                    f"{name!r} is {average.mean:.5g} on the CPU and {theirs[name].mean:.5g} on {device}, on average "
                    "over draws; make what weigh needs on the device of what it is given"
                )


@run_by(_LAWS)
class ObjectiveLaws(LawTests):
    """The laws of objectives as tests: subclass it in a file of tests, and every law runs on everything in ``specs``.

    >>> class TestMine(ObjectiveLaws):
    ...     specs = ["elbo", {"free_bits": {"nats": 2.0}}]
    >>> TestMine().test_terms_are_raw("elbo")
    """

    pair: ClassVar[Pair | None] = None
    """What to try them on; left out, a small one."""
    observations: ClassVar[Mapping[str, Tensor] | None] = None
    """What the pair observed."""
    specs: ClassVar[Sequence[Any]] = ()

    def _case(self, spec: Any) -> tuple[_Case, str]:
        case = _case(spec, self.pair, self.observations, self.seed)
        return case, repr(case.objective)
