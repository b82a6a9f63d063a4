"""The laws of priors."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from infoplace.distributions import Prior, make_prior
from infoplace.errors import DeclarationError
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
from infoplace.testing.statistics import SIGMAS, Density, of_one_number

__all__ = ["PriorLaws", "check_prior"]

_DRAWS = 4000


class _Reader:
    """Stands for a block's encoder, where a prior reads one: a smooth map of four numbers, with weights of its own."""

    def __init__(self, dim: int, seed: int) -> None:
        self.weights = torch.randn(4, dim, generator=generator(seed), dtype=torch.float64)

    def __call__(self, *inputs: Tensor) -> Any:
        (x,) = inputs
        mean = torch.tanh(x @ self.weights.to(x))
        return dist.Normal(mean, 0.5 + 0.25 * mean.square()).to_event(1)

    def examples(self, count: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, 4),)


@dataclasses.dataclass
class _Case:
    prior: Prior
    dim: int
    batch: int
    seed: int

    def build(self, prior: Prior | None = None, seed: int = 0, shift: float = 0.0) -> nn.Module:
        """The prior's module; with ``shift``, its parameters moved at random, as after some training."""
        prior = self.prior if prior is None else prior
        with seeded(self.seed + seed):
            module = (
                prior.build_on(self.dim, _Reader(self.dim, self.seed)) if prior.reads_encoder else prior.build(self.dim)
            )
        if not isinstance(module, nn.Module):
            return module  # which a law says
        source = generator(self.seed + seed + 1)
        with torch.no_grad():
            for parameter in module.parameters():
                width = parameter.shape[-1] if parameter.dim() > 1 else 1
                parameter.add_(shift * width**-0.5 * torch.randn(parameter.shape, generator=source))
        return module

    def draws(self, module: nn.Module, count: int, seed: int = 2) -> Tensor:
        with seeded(self.seed + seed), torch.no_grad():
            return module().sample(torch.Size((count,)))

    @functools.cached_property
    def densities(self) -> list[Density]:
        """The density as it is built, and with its parameters moved."""
        found = []
        for shift in (0.0, 0.3):
            module = self.build(shift=shift).double()
            draws = self.draws(module, _DRAWS).double()
            distribution = module()
            if distribution.support.is_discrete:
                inapplicable("its draws are discrete")
            found.append(Density(distribution.log_prob, draws, distribution.support, seed=self.seed))
        return found

    def behaviour(self, prior: Prior) -> Any:
        """All that can be seen of a prior: in its module's first steps of training, too."""
        module = self.build(prior, shift=0.3)
        points = self.draws(module, self.batch)
        seen = [
            prior.classes,
            prior.draws_class,
            prior.class_beta,
            prior.reads_encoder,
            {name: list(value.shape) for name, value in module.named_parameters()},
            points,
            module().log_prob(points),
        ]
        if prior.draws_class:
            posterior: Any = prior.build_class_posterior()
            logits = torch.randn(self.batch, prior.classes, generator=generator(self.seed + 3))
            any_module: Any = module
            for _ in range(3):
                with seeded(self.seed):
                    for q in (any_module.class_prior(), posterior(logits)):
                        drawn = q.sample()
                        seen += [drawn, q.log_prob(drawn)]
                any_module.advance()
                posterior.advance()
        return seen


_LAWS: Laws[_Case] = Laws("prior")


def check_prior(prior: Any, dim: int = 3, *, batch: int = 6, seed: int = 0) -> None:
    """Try every law of priors.

    A prior that reads a block's encoder is tried with a small one.

    Args:
        prior: a prior, a name or a spec.
        dim: the size of the block to try it on, one that it takes; small, for densities are integrated.
        batch: how many points at once, at least 2.
        seed: of what is drawn; with one seed, the outcome is always the same.

    Raises:
        LawError: a law that is broken.
        DeclarationError: no prior, a size that it does not take, or too small a batch.
        UnknownNameError: an unknown name.

    >>> check_prior("standard_normal", dim=2)
    """
    case = _case(prior, dim, batch, seed)
    _LAWS.check(case, repr(case.prior))


def _case(prior: Any, dim: int, batch: int, seed: int) -> _Case:
    if batch < 2:
        raise DeclarationError(f"laws need a batch of at least 2 points, to see whether they meddle; got batch={batch}")
    case = _Case(make_prior(prior), dim, batch, seed)
    try:
        case.build()
    except DeclarationError:
        raise  # a size that it does not take is the caller's mistake, and no law's
    except Exception:
        return case  # the laws will say what it is
    return case


# ---- shapes ----------------------------------------------------------------------------------------------------------


@_LAWS.law
def shapes_are_as_declared(case: _Case) -> None:
    """``build(dim)`` gives a module whose call gives one distribution over vectors of ``dim`` numbers."""
    module = case.build()
    if not isinstance(module, nn.Module):
        broken(f"build({case.dim}) gives a {type(module).__name__}; return a torch.nn.Module")
    distribution = module()
    found = tuple(distribution.batch_shape), tuple(distribution.event_shape)
    if found != ((), (case.dim,)):
        broken(
            f"its module gives batch shape {list(found[0])} and event shape {list(found[1])}; [] and [{case.dim}] are due, so "
            "end it with .to_event(1)"
        )
    for leading in ((), (case.batch,), (2, case.batch)):
        with seeded(case.seed):
            drawn = distribution.sample(torch.Size(leading))
        if tuple(drawn.shape) != (*leading, case.dim):
            broken(f"sample({list(leading)}) has shape {list(drawn.shape)}; {[*leading, case.dim]} is due")
        score = distribution.log_prob(drawn)
        if tuple(score.shape) != leading:
            broken(f"log_prob of values {list(drawn.shape)} has shape {list(score.shape)}; {list(leading)} is due")
    drawn = case.draws(module, case.batch)
    plate = distribution.expand(torch.Size((case.batch,)))
    if tuple(plate.batch_shape) != (case.batch,) or not close(plate.log_prob(drawn), distribution.log_prob(drawn)):
        broken("expand to a plate's size gives another density; a pair draws a whole batch that way")


@_LAWS.law
def bad_sizes_are_refused(case: _Case) -> None:
    """A block's size that is no positive integer gets a DeclarationError."""
    for dim in (0, -1, 2.5, True, "3"):
        try:
            if case.prior.reads_encoder:
                case.prior.build_on(dim, _Reader(case.dim, case.seed))  # type: ignore[arg-type]
            else:
                case.prior.build(dim)  # type: ignore[arg-type]
        except DeclarationError:
            continue
        except Exception as error:
            broken(
                f"dim={dim!r} raised {type(error).__name__} ({error}) in place of a DeclarationError; check it first"
            )
        broken(f"dim={dim!r} was taken; raise DeclarationError for what is no positive integer")


@_LAWS.law
def all_is_made_when_it_is_built(case: _Case) -> None:
    """A call makes no parameter or buffer, changes none, and draws nothing: the density is a function of the parameters."""
    module = case.build()
    before = _state(module)
    points = case.draws(case.build(), 1)
    with seeded(case.seed):
        state = random_states()
        first = module()
        one = first.log_prob(points)
        if random_states() != state:
            broken("the module's call or log_prob draws random numbers; draw in build, and keep what was drawn")
    after = _state(module)
    if before.keys() != after.keys():
        broken(f"a call made {sorted(after.keys() - before.keys())}; make every parameter and buffer in build")
    if not same(before, after):
        broken("a call changed the module's parameters or buffers; let it only read them")
    with stirred(1):
        other = module().log_prob(points)
    if not same(one, other):
        broken("two calls give two densities; keep nothing between calls")


@_LAWS.law
def seed_decides_the_draws(case: _Case) -> None:
    """Draws come from torch's global generator, anew each time."""
    module = case.build(shift=0.3)
    with stirred(1):
        first = case.draws(module, 64)
    with stirred(2):
        second = case.draws(module, 64)
    if not same(first, second):
        broken("torch.manual_seed does not decide the draws; draw with torch alone")
    with seeded(case.seed):
        one, other = module().sample(torch.Size((64,))), module().sample(torch.Size((64,)))
    if same(one, other) or len(one.unique(dim=0)) < 2:
        broken("64 draws are equal, or come again in the same order; draw anew each time")


@_LAWS.law
def samples_are_independent(case: _Case) -> None:
    """The log-density of a point does not hang on the other points of its batch."""
    module = case.build(shift=0.3)
    points, others = case.draws(module, case.batch), case.draws(module, case.batch, seed=3) * 2
    support = module().support
    if not bool(support.check(others).all()):
        others = case.draws(module, case.batch, seed=4)
    for mode in (True, False):
        module.train(mode)
        before = module().log_prob(points)
        others[0] = points[0]
        after = module().log_prob(others)
        if not close(before[0], after[0], relative=1e-4, absolute=1e-4):
            broken(
                f"the log-density of a point moved by {furthest(before[0], after[0]):.3g} when the other points of its batch "
                "changed; use no batch normalisation in a density"
            )


# ---- densities -------------------------------------------------------------------------------------------------------


@_LAWS.law
def density_integrates_to_one(case: _Case) -> None:
    """The density integrates to 1, as it is built and with its parameters moved."""
    for density in case.densities:
        total, allowed = density.total()
        if not abs(total - 1) <= allowed:
            broken(
                f"its density integrates to {total:.5g} in place of 1; look at the normaliser and the log-determinants"
            )


@_LAWS.law
def draws_follow_log_prob(case: _Case) -> None:
    """Points are drawn as often as ``log_prob`` says, as it is built and with its parameters moved."""
    for density in case.densities:
        deviate = density.deviate()
        if not deviate <= SIGMAS:
            broken(
                f"{_DRAWS} draws lie {deviate:.1f} standard deviations away from what log_prob says; let sample() and "
                "log_prob() use the same parameters"
            )


@_LAWS.law
def far_points_stay_finite(case: _Case) -> None:
    """Log-densities and gradients of points far out are finite: an encoder may put a posterior there."""
    module = case.build(shift=0.3)
    for size in (10.0, 100.0, 1000.0):
        points = (
            case.draws(module, case.batch)
            + size * torch.randn(case.batch, case.dim, generator=generator(case.seed)).sign()
        )
        if not bool(module().support.check(points).all()):
            inapplicable("its support is not the whole space")
        points.requires_grad_()
        score = module().log_prob(points)
        (gradient,) = torch.autograd.grad(score.sum(), points)
        if not (score.isfinite().all() and gradient.isfinite().all()):
            broken(
                f"points {size:g} away from the draws have log-densities or gradients that are not finite; bound scales"
            )


@_LAWS.law
def gradients_are_right(case: _Case) -> None:
    """The gradient of ``log_prob``, in the point and in the parameters, is that of finite differences, in float64."""
    module = case.build(shift=0.3).double()
    points = case.draws(module, case.batch)
    if points.dtype != torch.float64 or module().log_prob(points).dtype != torch.float64:
        broken("its module in double() does not compute in float64; make constants buffers, or of the parameters' type")
    if of_one_number(module().support).event_dim == 0:
        check_gradient(
            lambda z: module().log_prob(z.view_as(points)).sum(), points.flatten(), case.seed, "log_prob in the point"
        )
    parameters = dict(module.named_parameters())
    if not parameters:
        return
    sizes = [parameter.numel() for parameter in parameters.values()]
    start = torch.cat([parameter.detach().flatten() for parameter in parameters.values()])

    def log_prob(values: Tensor) -> Tensor:
        parts = {
            name: part.view_as(parameters[name]) for name, part in zip(parameters, values.split(sizes), strict=True)
        }
        return torch.func.functional_call(
            _Scored(module), {f"module.{name}": part for name, part in parts.items()}, (points,)
        )

    check_gradient(log_prob, start, case.seed, "log_prob in the prior's parameters")


class _Scored(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, points: Tensor) -> Tensor:
        return self.module().log_prob(points).sum()


@_LAWS.law
def every_parameter_trains(case: _Case) -> None:
    """Scoring points gives each of the module's parameters a gradient."""
    module = case.build(shift=0.3)
    if not list(module.parameters()):
        inapplicable("it has nothing to train")
    # Points that the density did not draw, so that moving towards them changes everything.
    points = case.draws(module, 256)
    moved = 1.3 * points + 0.4
    points = moved if bool(module().support.check(moved).all()) else case.draws(case.build(seed=5, shift=0.6), 256)
    module().log_prob(points).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)):
            broken(f"scoring points gives {name} no gradient; use it in the density, or make it a buffer")


@_LAWS.law
def state_comes_back(case: _Case) -> None:
    """``state_dict`` holds all that a module built anew lacks."""
    module = case.build(shift=0.3)
    points = case.draws(module, case.batch)
    other = case.build(seed=7)
    try:
        other.load_state_dict(module.state_dict())
    except (RuntimeError, KeyError) as error:
        broken(
            f"a module built anew does not take its state_dict ({str(error).partition(chr(10))[0]}); make its state in build"
        )
    if not close(other().log_prob(points), module().log_prob(points)):
        broken(
            "a module built anew with its state_dict is another density; keep what build draws in parameters or persistent "
            "buffers"
        )


@_LAWS.law
def classes_agree(case: _Case) -> None:
    """A mixture's ``responsibilities``, ``class_prior`` and ``given`` are those of one joint distribution."""
    count, module = case.prior.classes, case.build(shift=0.3)
    if type(count) is not int or count < 0:
        broken(f"classes is {count!r}; return how many the prior mixes, 0 if it is no mixture")
    if not count:
        if case.prior.draws_class:
            broken("it draws a class and says it has none; let classes say how many")
        inapplicable("it is no mixture")
    points: Tensor = case.draws(module, case.batch)
    mixture: Any = module
    found = mixture.responsibilities(points)
    if tuple(found.batch_shape) != (case.batch,) or found.logits.shape[-1] != count:
        broken(
            f"responsibilities of {list(points.shape)} gives {list(found.logits.shape)}; [{case.batch}, {count}] is due"
        )
    if not case.prior.draws_class:
        return
    logits = mixture.class_prior().logits.log_softmax(-1)
    each = torch.stack([mixture.given(torch.full((case.batch,), y)).log_prob(points) for y in range(count)], dim=-1)
    joint = logits + each
    if not close(joint.logsumexp(-1), module().log_prob(points), relative=1e-4, absolute=1e-4):
        broken(
            "the sum over the classes of p(y) p(z|y) is not p(z); let class_prior() and given(y) use the same parameters"
        )
    if not close(joint.softmax(-1), found.logits.softmax(-1), relative=1e-3, absolute=1e-4):
        broken(
            "responsibilities(z) is not p(y|z); let it be class_prior() times given(y), normalised, as Bayes' rule has it"
        )
    posterior = case.prior.build_class_posterior()
    q = posterior(torch.randn(case.batch, count, generator=generator(case.seed)))
    if tuple(q.batch_shape) != (case.batch,):
        broken(f"build_class_posterior()(logits) has batch shape {list(q.batch_shape)}; [{case.batch}] is due")
    for part in (module, posterior):
        if not callable(getattr(part, "advance", None)):
            broken("the module or the class's posterior has no advance(); give both one, which may do nothing")


# ---- specs and copies --------------------------------------------------------------------------------------------------


@_LAWS.law
def spec_comes_back_equal(case: _Case) -> None:
    """``to_spec()`` survives JSON and means the same prior."""
    check_spec(case.prior, make_prior, "register_prior", case.behaviour)


@_LAWS.law
def copies_are_equal(case: _Case) -> None:
    """Pickled or copied, the prior and its module are the same, and the copy's parameters are its own."""
    check_copies(case.prior, case.behaviour)
    module = case.build(shift=0.3)
    points = case.draws(module, case.batch)
    before = module().log_prob(points).detach()
    for way, copied in (("copy.deepcopy", copy.deepcopy), ("pickle", lambda one: pickle.loads(pickle.dumps(one)))):
        try:
            back = copied(module)
        except Exception as error:
            broken(f"{way} of its module fails ({type(error).__name__}: {error}); keep no lambda or lock in it")
        if not close(back().log_prob(points), before):
            broken(
                f"what {way} gives of its module is another density; keep all that it needs in parameters and buffers"
            )
        with torch.no_grad():
            for parameter in back.parameters():
                parameter += 1
        if not close(module().log_prob(points), before):
            broken(f"changing the parameters of what {way} gives changes the original's density; share none")


@_LAWS.law
def every_parameter_matters(case: _Case) -> None:
    """Changing one of the prior's parameters changes the density, the draws, the classes or what is trained."""
    check_parameters(case.prior, case.behaviour)


@_LAWS.law
def cpu_and_cuda_agree(case: _Case) -> None:
    """A module moved to a GPU gives the same log-densities, and draws there."""
    for device in every_device():
        if case.prior.reads_encoder:
            inapplicable("its encoder stays on the CPU here")
        module = case.build(shift=0.3)
        points = case.draws(module, case.batch)
        ours = module().log_prob(points)
        moved = copy.deepcopy(module).to(device)
        theirs = moved().log_prob(points.to(device))
        if not close(ours, theirs, relative=1e-4, absolute=1e-3):
            broken(
                f"log-densities on {device} are up to {furthest(ours, theirs):.3g} away from those on the CPU; compute in "
                "one type on both"
            )
        if case.draws(moved, 2).device.type != device:
            broken(f"the module is on {device} and draws on the CPU; make constants buffers, so that they move with it")


def _state(module: nn.Module) -> dict[str, Tensor]:
    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: value.detach().clone() for name, value in found.items()}


@run_by(_LAWS)
class PriorLaws(LawTests):
    """The laws of priors as tests: subclass it in a file of tests, and every law runs on everything in ``specs``.

    >>> class TestMine(PriorLaws):
    ...     specs = ["standard_normal", {"mixture": {"components": 3}}]
    >>> TestMine().test_state_comes_back("standard_normal")
    """

    dim: ClassVar[int] = 3
    """The size of the block to try them on."""
    batch: ClassVar[int] = 6
    specs: ClassVar[Sequence[Any]] = ()

    def _case(self, spec: Any) -> tuple[_Case, str]:
        case = _case(spec, self.dim, self.batch, self.seed)
        return case, repr(case.prior)
