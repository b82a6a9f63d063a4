"""What an objective is, and the registry of objectives."""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import pyro
import torch
from pyro.infer import ELBO
from pyro.infer.elbo import ELBOModule
from pyro.infer.util import is_validation_enabled
from pyro.util import warn_if_nan
from torch import Tensor, nn

from infoplace.errors import DeclarationError, did_you_mean, is_finite, is_whole, join_names
from infoplace.evidence import Evidence, Source, Term, read_pass, sample_sites, trace_pair
from infoplace.registry import Description, Registry, Specified

__all__ = [
    "Objective",
    "ObjectiveModule",
    "WeightedSum",
    "amount",
    "by_block",
    "check",
    "describe_objective",
    "label",
    "list_objectives",
    "make_objective",
    "ramp",
    "register_objective",
]

PARTICLES = "num_particles_vectorized"
_fresh_number = itertools.count()


# ---- objectives --------------------------------------------------------------------------------------------------------

Registered = TypeVar("Registered", bound="type[Objective]")


class Objective(Specified, ELBO):
    """What stochastic variational inference minimises: a sum of named, weighted terms.

    A subclass takes its parameters in ``__init__``, keeps each as an attribute, and says in :meth:`weigh` what the loss is
    made of; :meth:`schedule` and ``schedule_steps`` make it change while training goes on; a network of its own goes into
    ``self.module``.

    The KL of a latent site is taken in closed form where torch knows one for the pair of distributions, the model and
    the guide draw their latents in one order, and the site's scale and mask are the same in both; otherwise it is estimated
    from the draw. So it equals ``TraceMeanField_ELBO`` where that is right, and with ``kl="sampled"`` ``Trace_ELBO``. A
    latent that cannot be reparameterised takes the score-function gradient of ``Trace_ELBO``.

    A site of the guide that says ``infer={"enumerate": "parallel"}`` is summed over exactly, as ``TraceEnum_ELBO`` does: every
    other value is averaged over it under the guide, and the gradient is that of the sum.

    A schedule advances in training only: one step with each ``SVI.step`` (:meth:`loss_and_grads`), and one with each call
    of the :class:`ObjectiveModule` in training mode with gradients enabled; never in :meth:`loss` (``SVI.evaluate_loss``),
    :meth:`differentiable_loss` or :meth:`terms`.

    Args:
        num_particles: draws from the guide to average over.
        vectorize_particles: draw them all at once, along a new leftmost batch dimension.
        max_plate_nesting: how many plate dimensions model and guide use; read only where particles are vectorised or a site
            is enumerated.
        kl: ``"analytic"`` or ``"sampled"``.

    Raises:
        DeclarationError: a parameter out of its range.

    >>> class Distortion(Objective):
    ...     "The negative log-likelihood alone."
    ...     def weigh(self, evidence):
    ...         return {**evidence.likelihood_terms(), **evidence.kl_terms(0.0)}
    >>> isinstance(Distortion(num_particles=4), pyro.infer.ELBO)
    True
    """

    module: nn.Module | None = None
    """The objective's own parameters, made in ``__init__``; trained with the model's and the guide's."""

    def __init__(
        self,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        check(
            self, "num_particles", is_whole(num_particles) and num_particles >= 1, "a positive integer", num_particles
        )
        check(self, "vectorize_particles", isinstance(vectorize_particles, bool), "True or False", vectorize_particles)
        nesting = max_plate_nesting
        check(self, "max_plate_nesting", is_whole(nesting) and nesting >= 0, "an integer, at least 0", nesting)
        check(self, "kl", kl in ("analytic", "sampled"), "'analytic' or 'sampled'", kl)
        super().__init__(num_particles=num_particles, vectorize_particles=vectorize_particles)
        # Pyro keeps the particles' own dimension in this attribute too; here it is what the user said.
        self.max_plate_nesting = max_plate_nesting
        self.kl = kl
        self.steps_taken = 0
        self._held: float | Tensor | None = None
        self._name = f"infoplace.objective.{next(_fresh_number)}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy under its original's name would never be trained by SVI: Pyro would go on handing out the original's.
        self.__dict__.update(state)
        self._name = f"infoplace.objective.{next(_fresh_number)}"

    # ---- what a subclass says -----------------------------------------------------------------------------------------

    @abstractmethod
    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """The loss's terms by name; the loss is the sum of weight times value.

        Args:
            evidence: what the model and the guide showed.
        """

    @property
    def schedule_steps(self) -> int:
        """How many training steps the schedule takes to reach its end; 0 without one."""
        return 0

    def schedule(self, step: int) -> float:
        """How far the schedule is at ``step`` (0 is the first training step), from 0 to 1."""
        return 1.0

    # ---- the schedule's state -----------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Objective, ...]:
        """The objectives that this one adds up; itself, if it is no sum. A schedule belongs to a part."""
        return (self,)

    @property
    def level(self) -> float | Tensor:
        """Where the schedule is: ``schedule(steps_taken)``, or what :meth:`at` sets."""
        return self.schedule(self.steps_taken) if self._held is None else self._held

    @property
    def levels(self) -> tuple[float | Tensor, ...]:
        """The :attr:`level` of every part."""
        return tuple(part.level for part in self.parts)

    @contextmanager
    def at(self, levels: Sequence[float | Tensor]) -> Iterator[None]:
        """Set the schedules at ``levels``, one for each of :attr:`parts`, inside the ``with`` block.

        Weights are Python numbers, so a traced loss holds those of the step it was traced at. Trace it inside
        ``with objective.at(tensors)``, and give it :attr:`levels` as inputs at every step.

        Raises:
            DeclarationError: not as many levels as parts.
        """
        if len(levels) != len(self.parts):
            raise DeclarationError(f"at() needs {len(self.parts)} levels, one for each part; got {len(levels)}")
        before: list[float | Tensor | None] = [part._held for part in self.parts]
        try:
            for part, level in zip(self.parts, levels, strict=True):
                part._held = level
            yield
        finally:
            for part, restored in zip(self.parts, before, strict=True):
                part._held = restored

    def advance(self) -> None:
        """Take one step in every part's schedule. ``SVI.step`` and the :class:`ObjectiveModule` do it by themselves."""
        for part in self.parts:
            part.steps_taken += 1

    def state_dict(self) -> dict[str, list[int]]:
        """The schedules' state, as plain numbers."""
        return {"steps_taken": [part.steps_taken for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that :meth:`state_dict` returned.

        Raises:
            DeclarationError: a state of another form, or of an objective with another number of parts.
        """
        steps = state.get("steps_taken") if isinstance(state, Mapping) else None
        whole = isinstance(steps, (list, tuple)) and all(is_whole(step) and step >= 0 for step in steps)
        if not whole or len(steps) != len(self.parts):  # type: ignore[arg-type]
            raise DeclarationError(
                f"an objective of {len(self.parts)} part(s) has a state like "
                f"{{'steps_taken': {[0] * len(self.parts)}}}; got {state!r}"
            )
        for part, step in zip(self.parts, steps, strict=True):  # type: ignore[arg-type]
            part.steps_taken = step

    # ---- the loss -----------------------------------------------------------------------------------------------------

    def evaluate(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The differentiable loss and, from the same run, its terms. Reads no value, so it never waits for a device.

        Args:
            model: a Pyro model.
            guide: a Pyro guide.
            args: what both are called with.
            kwargs: what both are called with.

        Returns:
            The loss, a scalar, and its detached terms as :meth:`terms` returns them.

        Raises:
            DeclarationError: model and guide do not fit each other, or name no site that a parameter names.
            DataError: a value that a site's distribution cannot score.
        """
        loss, terms, _ = self._evaluate(model, guide, args, kwargs)
        return loss, terms

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss, a scalar whose gradient is an unbiased estimate. See :meth:`evaluate`."""
        return self._evaluate(model, guide, args, kwargs)[0]

    def terms(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """What the loss is made of: raw, unweighted values in nats, summed over the batch.

        Returns:
            ``"log_likelihood/<site>"`` of each observed site, ``"kl/<site>"`` of each latent one, what the objective adds,
            and the weighted sum ``"loss"``; each a scalar.

        Raises:
            DeclarationError, DataError: see :meth:`evaluate`.
        """
        with torch.no_grad():
            return self._evaluate(model, guide, args, kwargs)[1]

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The loss as a number, for ``SVI.evaluate_loss``; the schedule stays where it is."""
        with torch.no_grad():
            loss = self._evaluate(model, guide, args, kwargs)[0].item()
        warn_if_nan(loss, "loss")
        return loss

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The loss as a number, its gradient in the parameters, and one step of the schedule: for ``SVI.step``.

        Raises:
            DeclarationError: the loss has a gradient and Pyro knows no parameter to train; or see :meth:`evaluate`.
        """
        if self.module is not None:
            pyro.module(self._name, self.module)
        loss, _, traces = self._evaluate(model, guide, args, kwargs)
        trains = self.module is not None or any(_param_sites(traces))
        # The traces hold every site's tensors; nothing of them is needed while the backward pass runs.
        del traces
        if loss.requires_grad:
            if not trains:
                raise DeclarationError(
                    "SVI trains the parameters that pyro.param, pyro.module or a PyroModule names, and neither the model "
                    'nor the guide names any. Call pyro.module("model", self) at the start of forward, or train the '
                    "module objective(model, guide) with a torch optimiser"
                )
            loss.backward(retain_graph=self.retain_graph)
        self.advance()
        number = loss.item()
        warn_if_nan(number, "loss")
        return number

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> ObjectiveModule:
        """The loss of this model and guide as an ``nn.Module`` for any torch optimiser.

        Raises:
            DeclarationError: neither is an ``nn.Module`` or a method of one, so there would be nothing to train.
        """
        return ObjectiveModule(model, guide, self)

    def _get_trace(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        particles = self.vectorize_particles and self.num_particles > 1
        return trace_pair(model, guide, args, kwargs, self.max_plate_nesting + particles)

    def _get_traces(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any
    ) -> Iterator[tuple[Any, Any]]:
        if not (self.vectorize_particles and self.num_particles > 1):
            for _ in range(self.num_particles):
                yield self._get_trace(model, guide, args, kwargs)
            return
        dim = -self.max_plate_nesting - 1
        many_model, many_guide = (pyro.plate(PARTICLES, self.num_particles, dim=dim)(fn) for fn in (model, guide))
        traces = self._get_trace(many_model, many_guide, args, kwargs)
        for trace in traces:
            for name, site in sample_sites(trace).items():
                deepest = min((plate.dim for plate in site["cond_indep_stack"] if plate.vectorized), default=0)
                if deepest < dim:
                    raise DeclarationError(
                        f"site {name!r} is in more plates than max_plate_nesting={self.max_plate_nesting} allows, and the "
                        f"particles took the dimension of one; say max_plate_nesting={-deepest - 1} or more"
                    )
        yield traces

    def _evaluate(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor], list[tuple[Any, Any]]]:
        traces = list(self._get_traces(model, guide, args, kwargs))
        passes = [read_pass(model_trace, guide_trace, self.kl) for model_trace, guide_trace in traces]
        observations = args[0] if len(args) == 1 and isinstance(args[0], Mapping) else {}
        terms = self.weigh(Evidence.of(Source(model, guide, observations), passes, self.num_particles))
        if not terms:
            raise DeclarationError(
                f"{label(self)}: there is nothing to weigh; the model and the guide draw and observe no site"
            )
        minimised = [term.value * term.weight for term in terms.values() if not _is_zero(term.weight)]
        loss = sum(minimised[1:], minimised[0]) if minimised else next(iter(terms.values())).value * 0.0
        values = {name: term.value.detach() for name, term in terms.items()}
        return loss, {**values, "loss": loss.detach()}, traces

    # ---- adding and scaling -------------------------------------------------------------------------------------------

    def __add__(self, other: object) -> Objective:
        return WeightedSum([self, other]) if isinstance(other, Objective) else NotImplemented

    def __radd__(self, other: object) -> Objective:
        # The built-in sum() starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, weight: object) -> Objective:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            return NotImplemented
        return WeightedSum([self], [weight])

    __rmul__ = __mul__


class ObjectiveModule(ELBOModule):
    """An objective's loss of one model and guide, as an ``nn.Module``. Made by calling an objective.

    Its parameters are the model's, the guide's and the objective's own; its ``state_dict`` holds the schedule's state too.
    A method of a module (``pair.model.forward``) brings its module along.

    Args:
        model: a Pyro model: an ``nn.Module``, a method of one, or (if the guide is one) a function without parameters.
        guide: a Pyro guide, likewise.
        objective: the objective.

    Raises:
        DeclarationError: neither is a module or a method of one.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], objective: Objective) -> None:
        owners = {"model": _owner(model), "guide": _owner(guide)}
        if not any(owners.values()):
            raise DeclarationError(
                "objective(model, guide) is an nn.Module made of two, but "
                f"{_named(model)} and {_named(guide)} are functions, so it would have no parameters. Make one of them an "
                "nn.Module, or train them with pyro.infer.SVI(model, guide, optimiser, loss=objective)"
            )
        super().__init__(model, guide, objective)
        self._functions = [role for role, owner in owners.items() if owner is None]
        for role, owner in owners.items():
            if owner is not None and owner is not getattr(self, role):
                self.add_module(f"{role}_owner", owner)
        if objective.module is not None:
            self.add_module("own", objective.module)

    @property
    def objective(self) -> Objective:
        """The objective."""
        return self.elbo

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The differentiable loss, a scalar. See :meth:`evaluate`."""
        return self.evaluate(*args, **kwargs)[0]

    def evaluate(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The differentiable loss and its detached terms, from one run of the model and the guide.

        In training mode with gradients enabled, the objective's schedule then takes one step.

        Args:
            args: what the model and the guide are called with.
            kwargs: what the model and the guide are called with.

        Raises:
            DeclarationError, DataError: see :meth:`Objective.evaluate`. Also, under Pyro's validation: a function has
                parameters (``pyro.param``) that this module lacks.
        """
        loss, terms, traces = self.objective._evaluate(self.model, self.guide, args, kwargs)
        if self._functions and is_validation_enabled():
            self._check_reached(traces)
        if self.training and torch.is_grad_enabled():
            self.objective.advance()
        return loss, terms

    def get_extra_state(self) -> dict[str, Any]:
        """The schedule's state, for ``state_dict``."""
        return self.objective.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up the schedule's state, for ``load_state_dict``."""
        self.objective.load_state_dict(state)

    def _check_reached(self, traces: list[tuple[Any, Any]]) -> None:
        known = {id(parameter) for parameter in self.parameters()}
        missed = [
            site["name"]
            for site in _param_sites(traces)
            if id(site["value"].unconstrained()) not in known and site["value"].unconstrained().requires_grad
        ]
        if missed:
            raise DeclarationError(
                f"the {' and the '.join(self._functions)} of this objective is a function whose parameters "
                f"{join_names(dict.fromkeys(missed))} a torch optimiser would miss; make it an nn.Module, or train with "
                "pyro.infer.SVI(model, guide, optimiser, loss=objective)"
            )


def _param_sites(traces: list[tuple[Any, Any]]) -> Iterator[Any]:
    return (site for pair in traces for trace in pair for site in trace.nodes.values() if site["type"] == "param")


def _owner(fn: Any) -> nn.Module | None:
    """The module that ``fn`` is, is a method of, or wraps in Pyro's handlers."""
    if isinstance(fn, nn.Module):
        return fn
    if isinstance(fn, functools.partial):
        return next((owner for inner in (fn.func, *fn.args) if (owner := _owner(inner)) is not None), None)
    owner = getattr(fn, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def _named(fn: Any) -> str:
    return repr(getattr(fn, "__qualname__", type(fn).__name__))


def _is_zero(weight: float | Tensor) -> bool:
    return not torch.is_tensor(weight) and weight == 0.0


def label(objective: Objective) -> str:
    """What messages call an objective: its registered name, or else its class's."""
    return objective.spec_name or type(objective).__name__


def check(objective: Objective, parameter: str, right: bool, expected: str, got: object) -> None:
    """Refuse a parameter that is not ``right``; ``expected`` is what the message asks for.

    Raises:
        DeclarationError: it is not right.
    """
    if not right:
        raise DeclarationError(f"{label(objective)}: {parameter} must be {expected}; got {got!r}")


def amount(objective: Objective, parameter: str, value: Any, by_block: bool = False) -> Any:
    """A number at least 0, or one for each block, checked and made float.

    Raises:
        DeclarationError: it is none.
    """
    if by_block and isinstance(value, Mapping):
        check(objective, parameter, bool(value), "a number or a dict of at least one block", value)
        return {str(name): amount(objective, f"{parameter}[{name!r}]", one) for name, one in value.items()}
    kinds = ", or a dict of one for each block" if by_block else ""
    check(objective, parameter, is_finite(value) and value >= 0, f"a finite number, at least 0{kinds}", value)
    return float(value)


def by_block(
    objective: Objective, parameter: str, value: float | Mapping[str, float], default: float, evidence: Evidence
) -> dict[str, float]:
    """``value`` for each latent site of ``evidence``."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(evidence.kl, value)
    for name in value:
        if name not in evidence.kl:
            raise DeclarationError(
                f"{label(objective)}: {parameter} names {name!r}, which is no latent site."
                f"{did_you_mean(name, evidence.kl)} The latent sites: {join_names(evidence.kl)}"
            )
    return {name: value.get(name, default) for name in evidence.kl}


def ramp(step: int, length: int) -> float:
    return 1.0 if step >= length else (step + 1) / length


# ---- the registry ------------------------------------------------------------------------------------------------------

_registry: Registry[Objective] = Registry("objective", Objective, "infoplace.objectives")  # type: ignore[type-abstract]


@overload
def register_objective(
    name: str, implementation: None = None, /, *, overwrite: bool = False
) -> Callable[[Registered], Registered]: ...
@overload
def register_objective(name: str, implementation: Registered, /, *, overwrite: bool = False) -> Registered: ...
@overload
def register_objective(
    name: str, /, *, alias: str | None = None, overwrite: bool = False, **parameters: Any
) -> Objective: ...
def register_objective(
    name: str,
    implementation: Any = None,
    /,
    *,
    alias: str | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Any:
    """Configure a known objective, or register a new one.

    With parameters, they become what the bare name means from now on, and the configured objective is returned. With a
    class (or as a decorator, from the name alone), the class is registered and returned.

    Args:
        name: the objective's name.
        implementation: a class derived from :class:`Objective`.
        alias: a second name to keep the parameters under, leaving ``name`` as it was.
        overwrite: take a name that another owner holds.
        parameters: the objective's parameters.

    Raises:
        DeclarationError: parameters that the objective refuses, a name that another owner holds, or a class that is not an
            objective.
        UnknownNameError: parameters for an unknown name.

    >>> register_objective("beta_elbo", alias="strict_elbo", beta=20.0).beta
    20.0
    """
    register: Any = _registry.register
    return register(name, implementation, alias=alias, overwrite=overwrite, **parameters)


def make_objective(spec: Any, /, **parameters: Any) -> Objective:
    """The objective that a spec means.

    Args:
        spec: a name, `{name: {parameter: value}}`, or an objective (returned as it is).
        parameters: more parameters, which win over the spec's.

    Raises:
        DeclarationError: a spec of another form, or parameters that the objective refuses.
        UnknownNameError: an unknown name.

    >>> make_objective({"beta_elbo": {"beta": {"z_g": 20.0}}}, warmup=1000).schedule_steps
    1000
    """
    return _registry.make(spec, **parameters)


def list_objectives() -> list[str]:
    """Every objective's name: the built-ins, the session's own and those of installed plugins.

    >>> "beta_elbo" in list_objectives()
    True
    """
    return _registry.names()


def describe_objective(name: str) -> Description:
    """What an objective does and takes.

    Raises:
        UnknownNameError: an unknown name.

    >>> print(describe_objective("free_bits").summary)
    The ELBO in which a block's KL counts from a floor upwards: each block may use ``nats`` nats an image for free.
    """
    return _registry.describe(name)


@register_objective("sum")
class WeightedSum(Objective):
    """Several objectives, weighted and added up, from one run of the model and the guide. ``a + 0.5 * b`` makes one.

    Terms of one name and one raw value become one, their weights added; other terms that share a name are told apart as
    ``name``, ``name#2``. The objectives stay the objects they were: their schedules advance with the sum, and their
    parameters are the sum's.

    Args:
        objectives: the objectives or their specs. They agree in ``num_particles``, ``vectorize_particles``,
            ``max_plate_nesting`` and ``kl``, as there is one run for all.
        weights: a finite number for each; all 1 by default.

    Raises:
        DeclarationError: no objectives, not as many weights, or objectives that disagree.

    >>> total = make_objective("elbo") + 2 * make_objective("free_bits")
    >>> make_objective(total.to_spec()) == total
    True
    """

    def __init__(self, objectives: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        listed = isinstance(objectives, (list, tuple)) and len(objectives) > 0
        check(self, "objectives", listed, "a list of at least one objective or spec", objectives)
        made = [make_objective(objective) for objective in objectives]
        given = [1.0] * len(made) if weights is None else weights
        counted = isinstance(given, (list, tuple)) and len(given) == len(made) and all(map(is_finite, given))
        check(self, "weights", counted, f"{len(made)} finite number(s), one for each objective", given)
        shares: dict[int, tuple[Objective, float]] = {}
        for objective, weight in zip(made, given, strict=True):
            inner = objective.weights if isinstance(objective, WeightedSum) else (1.0,)
            for part, share in zip(objective.parts, inner, strict=True):
                # One object added twice is one part: its schedule must not advance twice.
                shares[id(part)] = (part, weight * share + shares.get(id(part), (part, 0.0))[1])
        self.objectives: tuple[Objective, ...] = tuple(part for part, _ in shares.values())
        self.weights: tuple[float, ...] = tuple(float(weight) for _, weight in shares.values())
        first = self.objectives[0]
        options = ("num_particles", "vectorize_particles", "max_plate_nesting", "kl")
        for part in self.objectives[1:]:
            for option in options:
                if getattr(part, option) != getattr(first, option):
                    raise DeclarationError(
                        f"sum: {label(first)} has {option}={getattr(first, option)!r} and {label(part)} has "
                        f"{option}={getattr(part, option)!r}; one run serves all, so give both the same"
                    )
        super().__init__(**{option: getattr(first, option) for option in options})
        modules = [part.module for part in self.objectives if part.module is not None]
        self.module = nn.ModuleList(modules) if modules else None

    @property
    def parts(self) -> tuple[Objective, ...]:
        """The objectives that are added up."""
        return self.objectives

    @property
    def schedule_steps(self) -> int:
        """The longest part's schedule, in training steps."""
        return max(part.schedule_steps for part in self.objectives)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every part's terms, each weight multiplied by the part's."""
        merged: dict[str, Term] = {}
        for part, factor in zip(self.objectives, self.weights, strict=True):
            for name, term in part.weigh(evidence).items():
                weight = term.weight * factor
                key = name
                for number in itertools.count(2):
                    known = merged.get(key)
                    if known is None or known.value is term.value:
                        break
                    key = f"{name}#{number}"
                merged[key] = Term(term.value, weight if known is None else known.weight + weight)
        return merged
