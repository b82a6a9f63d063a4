"""The laws of pairs."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI
from torch import Tensor

from infoplace.distributions import make_prior
from infoplace.errors import DeclarationError, InfoplaceError, join_names
from infoplace.objectives import make_objective
from infoplace.pair import Pair, load_pair, make_pair
from infoplace.partition import Partition
from infoplace.testing.laws import (
    Laws,
    LawTests,
    broken,
    close,
    every_device,
    furthest,
    generator,
    run_by,
    same,
    seeded,
    stirred,
)
from infoplace.testing.watching import scoped

__all__ = ["PairLaws", "check_pair"]

Batch = Tensor | Mapping[str, Tensor]


@dataclasses.dataclass
class _Case:
    pair: Pair
    batch: Batch
    seed: int

    @property
    def partition(self) -> Partition:
        return self.pair.partition

    @property
    def size(self) -> int:
        return len(self.batch if isinstance(self.batch, Tensor) else next(iter(self.batch.values())))

    def observe(self, seed: int = 0, batch: Batch | None = None) -> dict[str, Tensor]:
        given = self.batch if batch is None else batch
        return self.partition.observe(given, generator=generator(self.seed + seed))

    def moved(self, seed: int = 0) -> Pair:
        """A copy with its parameters moved at random, as after some training: what starts at zero is not so any more."""
        copied = copy.deepcopy(self.pair)
        source = generator(self.seed + seed)
        with torch.no_grad():
            for parameter in copied.parameters():
                width = parameter.shape[-1] if parameter.dim() > 1 else 1
                parameter.add_(0.1 * width**-0.5 * torch.randn(parameter.shape, generator=source))
        return copied

    def latents(self, pair: Pair | None = None, seed: int = 1, *leading: int) -> dict[str, Tensor]:
        """A value of every block, `[*leading, batch, dim]`, from its prior."""
        pair = self.pair if pair is None else pair
        count = math.prod(leading) * self.size
        with seeded(self.seed + seed):
            return {
                name: pair.sample_prior(name, count).view(*leading, self.size, block.dim)
                for name, block in self.partition.blocks.items()
            }

    def behaviour(self, pair: Pair) -> dict[str, Tensor]:
        """What a pair says of the batch: posteriors, classes, reconstructions, draws."""
        pair.eval()
        observations, device = self.observe(), pair.device
        observations = {name: value.to(device) for name, value in observations.items()}
        seen: dict[str, Tensor] = {}
        with torch.no_grad(), scoped():
            for name, posterior in pair.encode(observations).items():
                with seeded(self.seed):
                    seen[f"the posterior of {name!r}"] = posterior.mean
                    seen[f"a draw of {name!r}"] = posterior.sample()
            for name, classes in pair.classify(observations).items():
                seen[f"the classes of {name!r}"] = classes.probs
            latents = {name: value.to(device) for name, value in self.latents().items()}
            for name in self.partition.observations:
                seen[f"the likelihood of {name!r}"] = pair.decode(latents, name).log_prob(observations[name])
            for name in self.partition.blocks:
                seen[f"the prior of {name!r}"] = _prior(pair, name).log_prob(latents[name])
            for name, value in pair.reconstruct(observations).items():
                seen[f"the reconstruction of {name!r}"] = value
        return seen


def _prior(pair: Pair, block: str) -> Any:
    return pair.model.priors[block]()


_LAWS: Laws[_Case] = Laws("pair")


def check_pair(pair: Any, batch: Batch, *, seed: int = 0) -> None:
    """Try every law of pairs.

    Args:
        pair: a pair, as :func:`infoplace.make_pair` gives it, which stays as it is; or a partition or its spec, of which one
            is made with stock networks.
        batch: data for it, `[batch, *shape]` or ``{source: tensor}``, at least 3 samples; a small one.
        seed: of the draws; with one seed, the outcome is always the same.

    Raises:
        LawError: a law that is broken.
        DeclarationError: no pair, or too small a batch.
        DataError: a batch that the pair does not take.

    >>> from infoplace import Block, Observation, Partition
    >>> partition = Partition({"z": Block(2)}, {"x": Observation(likelihood="normal")})
    >>> check_pair(partition, torch.randn(4, 5))
    """
    _LAWS.check(_case(pair, batch, seed), "the pair")


def _case(pair: Any, batch: Batch, seed: int) -> _Case:
    if not isinstance(pair, (Pair, Partition, Mapping)):
        raise DeclarationError(f"laws of pairs need a pair, or a partition to make one of; got {type(pair).__name__}")
    if isinstance(pair, Pair):
        made = pair
    else:
        partition = pair if isinstance(pair, Partition) else Partition.from_dict(pair)
        with seeded(seed):
            made = make_pair(
                partition,
                tuple(batch.shape[1:])
                if isinstance(batch, Tensor)
                else {name: tuple(value.shape[1:]) for name, value in batch.items()},
            )
    case = _Case(made, batch, seed)
    if case.size < 3:
        raise DeclarationError(f"laws need a batch of at least 3 samples, to see whether they meddle; got {case.size}")
    case.observe()  # a batch that it does not take is the caller's mistake, and no law's
    try:
        # The caller's pair stays as it is. One that cannot be copied is tried as it is, and the laws will say so.
        case.pair = copy.deepcopy(made).cpu().eval()
    except Exception:
        made.eval()
    return case


# ---- shapes ----------------------------------------------------------------------------------------------------------


@_LAWS.law
def shapes_are_as_declared(case: _Case) -> None:
    """Posteriors are over the blocks, likelihoods over the observations, and every picture has its observation's shape."""
    pair, observations = case.pair, case.observe()
    blocks, shapes, size = case.partition.blocks, case.partition.shapes(pair.data_shape), case.size

    def expect(what: str, found: Any, due: tuple[int, ...]) -> None:
        if tuple(found) != due:
            broken(f"{what} has shape {list(found)}; {list(due)} is due")

    posteriors = pair.encode(observations)
    if set(posteriors) != set(blocks):
        broken(f"encode gives {join_names(posteriors)}; the blocks are {join_names(blocks)}")
    for name, posterior in posteriors.items():
        expect(f"the posterior of {name!r}", posterior.batch_shape + posterior.event_shape, (size, blocks[name].dim))
    for leading in ((), (2,)):
        latents = case.latents(None, 1, *leading)
        for name, shape in shapes.items():
            likelihood = pair.decode(latents, name)
            expect(f"the likelihood's batch of {name!r}", likelihood.batch_shape, (*leading, size))
            expect(f"the likelihood's event of {name!r}", likelihood.event_shape, shape)
    first = next(iter(blocks))
    with seeded(case.seed), scoped():
        made = {
            "reconstruct": (pair.reconstruct(observations), size),
            "resample": (pair.resample(observations, blocks=(first,)), size),
            "sample": (pair.sample(5), 5),
            "model(None, size=4)": (pair.model(None, size=4), 4),
        }
        predicted = pair.predictive(2)(observations)
    for way, (values, count) in made.items():
        for name, shape in shapes.items():
            expect(f"{name!r} of {way}", values[name].shape, (count, *shape))
            if not values[name].double().isfinite().all():
                broken(f"{name!r} of {way} has values that are not finite; look at divisions and exponentials")
    for name, shape in shapes.items():
        expect(f"{name!r} of predictive(2)", predicted[name].shape, (2, size, *shape))


@_LAWS.law
def seed_decides_the_draws(case: _Case) -> None:
    """One seed of torch gives the same draws of model, guide, ``sample`` and ``resample``; the next are others."""
    observations = case.observe()
    first = next(iter(case.partition.blocks))
    ways = {
        "the model": lambda: case.pair.model(None, size=4),
        "the guide": lambda: case.pair.guide(observations),
        "sample": lambda: case.pair.sample(4),
        "resample": lambda: case.pair.resample(observations, blocks=(first,), sample=True),
    }
    with torch.no_grad(), scoped():
        for way, draw in ways.items():
            with stirred(1), seeded(case.seed):
                one, next_one = draw(), draw()
            with stirred(2), seeded(case.seed):
                again = draw()
            if not same(one, again):
                broken(
                    f"torch.manual_seed does not decide what {way} draws; draw with torch alone, and keep nothing between calls"
                )
            if same(one, next_one):
                broken(f"{way} draws the same twice in a row; draw anew each time")


@_LAWS.law
def leading_dimensions_are_kept(case: _Case) -> None:
    """Decoding particles or enumerated values at once gives what decoding them one by one gives."""
    observations = case.observe()
    latents = case.latents(None, 1, 2)
    for name in case.partition.observations:
        at_once = case.pair.decode(latents, name).log_prob(observations[name])
        each = torch.stack(
            [
                case.pair.decode({block: value[index] for block, value in latents.items()}, name).log_prob(
                    observations[name]
                )
                for index in range(2)
            ]
        )
        if not close(at_once, each, relative=1e-4, absolute=1e-3):
            broken(
                f"two particles of {name!r} decoded at once have log-likelihoods up to {furthest(at_once, each):.3g} away from "
                "those decoded one by one; treat rows alike, wherever they stand"
            )


# ---- what hangs on what ----------------------------------------------------------------------------------------------


@_LAWS.law
def samples_are_independent(case: _Case) -> None:
    """In evaluation mode, what is made of a sample does not hang on the other samples of its batch."""
    observations, latents = case.observe(), case.latents()
    with torch.no_grad():
        before = case.pair.encode(observations)
        scores = {
            name: case.pair.decode(latents, name).log_prob(observations[name]) for name in case.partition.observations
        }
        for position, other in ((0, 1), (0, case.size - 1), (case.size - 1, 0)):
            # All the others become one of them.
            picked = torch.full((case.size,), other)
            picked[position] = position
            changed = {name: value[picked] for name, value in observations.items()}
            after = case.pair.encode(changed)
            for name in before:
                _unmoved(
                    f"the posterior of {name!r}", before[name].mean[position], after[name].mean[position], position
                )
            moved = {name: value[picked] for name, value in latents.items()}
            for name, score in scores.items():
                again = case.pair.decode(moved, name).log_prob(changed[name])
                _unmoved(f"the likelihood of {name!r}", score[position], again[position], position)


def _unmoved(what: str, before: Tensor, after: Tensor, position: int) -> None:
    if not close(before, after, relative=1e-4, absolute=1e-4):
        broken(
            f"{what} of sample {position} moved by {furthest(before, after):.3g} when other samples of its batch changed, in "
            "evaluation mode; compute over the dimensions after the first alone"
        )


@_LAWS.law
def arrows_are_those_declared(case: _Case) -> None:
    """A block's posterior hangs on what it reads and on nothing else; a likelihood on its blocks and on nothing else."""
    pair, partition = case.moved().eval(), case.partition
    observations = case.observe()
    order = torch.arange(case.size).roll(1)
    with torch.no_grad():
        before = {name: q.mean for name, q in pair.encode(observations).items()}
        for key in partition.observed_names:
            after = {name: q.mean for name, q in pair.encode({**observations, key: observations[key][order]}).items()}
            for name, block in partition.blocks.items():
                reads = key in [partition.read_name(read) for read in block.reads or ()]
                _arrow(f"the posterior of {name!r}", key, reads, before[name], after[name])
        latents, others = case.latents(pair), case.latents(pair, 2)
        for name, observation in partition.observations.items():
            one = pair.decode(latents, name).log_prob(observations[name])
            for source in partition.blocks:
                other = pair.decode({**latents, source: others[source]}, name).log_prob(observations[name])
                _arrow(f"the likelihood of {name!r}", source, source in (observation.blocks or ()), one, other)


def _arrow(what: str, source: str, declared: bool, before: Tensor, after: Tensor) -> None:
    moved = furthest(before, after)
    if not declared and moved > 1e-4:
        broken(
            f"{what} moved by {moved:.3g} when {source!r} changed, which it is not declared to hang on; then information is not "
            "where the partition puts it"
        )
    if declared and moved == 0:
        broken(
            f"{what} is declared to hang on {source!r}, and stays the same when that changes; let its network use it"
        )


@_LAWS.law
def log_prob_is_the_sum_of_its_parts(case: _Case) -> None:
    """The model scores observations and blocks as its priors and likelihoods do, each observation at its weight."""
    pair, partition, observations = case.pair, case.partition, case.observe()
    with torch.no_grad(), seeded(case.seed), scoped():
        drawn = pair.guide(observations)
        trace = poutine.trace(poutine.condition(pair.model, drawn)).get_trace(observations)
        found = float(trace.log_prob_sum())
    latents = {name: drawn[name] for name in partition.blocks}
    due = torch.zeros(())
    with torch.no_grad():
        for name, block in partition.blocks.items():
            prior: Any = pair.model.priors[name]
            if make_prior(block.prior).draws_class:
                # The site of a class comes before its block's, and is the one that the block does not name.
                (site,) = (key for key in drawn if key.startswith(f"{name}_") and key not in partition.blocks)
                due = due + prior.class_prior().log_prob(drawn[site]).sum()
                due = due + prior.given(drawn[site]).log_prob(drawn[name]).sum()
            else:
                due = due + prior().log_prob(drawn[name]).sum()
        for name, observation in partition.observations.items():
            due = due + observation.weight * pair.decode(latents, name).log_prob(observations[name]).sum()
    if not math.isclose(found, float(due), rel_tol=1e-4, abs_tol=1e-2):
        broken(
            f"the model's log-probability is {found:.7g}, and those of its priors and likelihoods sum to {float(due):.7g}; "
            "let decode and the model use one likelihood, and each observation its weight"
        )


# ---- training --------------------------------------------------------------------------------------------------------


@_LAWS.law
def every_parameter_trains(case: _Case) -> None:
    """The ELBO gives each parameter that is to be trained a finite gradient."""
    pair = case.moved().train()
    objective = make_objective("elbo")
    for seed in range(3):
        with seeded(case.seed + seed), scoped():
            loss = objective.differentiable_loss(pair.model, pair.guide, case.observe(seed))
            if not loss.isfinite():
                broken(f"the ELBO's loss is {loss.item()} on nearly untrained weights; look at the decoder's scales")
            loss.backward()
    for name, parameter in pair.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0):
            broken(f"the ELBO gives {name} no gradient; use it, freeze it with requires_grad_(False), or take it out")
        if not parameter.grad.isfinite().all():
            broken(f"the ELBO gives {name} a gradient that is not finite; look at logarithms, roots and divisions")


@_LAWS.law
def copies_train_on_their_own(case: _Case) -> None:
    """Copied or pickled, it says the same; and training the copy changes the copy alone."""
    before = case.behaviour(case.pair)
    for way, copied in (("copy.deepcopy", copy.deepcopy), ("pickle", lambda one: pickle.loads(pickle.dumps(one)))):
        try:
            back = copied(case.pair)
        except Exception as error:
            broken(f"{way} fails ({type(error).__name__}: {error}); keep no lambda, lock or hook in its networks")
        _same_behaviour(f"what {way} gives", before, case.behaviour(back))
        with seeded(case.seed), scoped():
            # The original trains first, so that Pyro knows its parameters.
            SVI(case.pair.model, case.pair.guide, pyro.optim.Adam({"lr": 0.0}), make_objective("elbo")).step(
                case.observe()
            )
            SVI(back.model, back.guide, pyro.optim.Adam({"lr": 1e-2}), make_objective("elbo")).step(case.observe())
        case.pair.eval()
        _same_behaviour("the original after the copy was trained", before, case.behaviour(case.pair))
        if all(
            same(one.detach(), other.detach())
            for one, other in zip(back.parameters(), case.pair.parameters(), strict=True)
        ):
            broken(
                f"SVI does not train what {way} gives: Pyro hands out the original's parameters; use the pair's own copying"
            )


def _same_behaviour(whose: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    for what, value in before.items():
        if not close(value, after[what], relative=1e-4, absolute=1e-4):
            broken(
                f"{whose} differs in {what} by up to {furthest(value, after[what]):.3g}; keep what matters in parameters and "
                "persistent buffers, and share them with nothing"
            )


@_LAWS.law
def looking_changes_nothing(case: _Case) -> None:
    """``encode``, ``decode``, ``reconstruct``, ``resample`` and ``sample`` change no parameter, buffer, gradient or mode."""
    pair, observations = case.pair, case.observe()
    given = {name: value.clone() for name, value in observations.items()}
    first = next(iter(case.partition.blocks))
    latents = case.latents()
    ways = {
        "reconstruct": lambda: pair.reconstruct(given),
        "resample": lambda: pair.resample(given, blocks=(first,)),
        "sample": lambda: pair.sample(2),
    }
    in_evaluation = {
        "encode": lambda: pair.encode(given),
        "decode": lambda: [pair.decode(latents, name) for name in case.partition.observations],
        "classify": lambda: pair.classify(given),
    }

    def state() -> dict[str, Any]:
        return {
            "a parameter": [parameter.detach().clone() for parameter in pair.parameters()],
            "a buffer": [buffer.clone() for buffer in pair.buffers()],
            "a gradient": [
                None if parameter.grad is None else parameter.grad.clone() for parameter in pair.parameters()
            ],
            "a module's training mode": [module.training for module in pair.modules()],
            "the observations": [given[name].clone() for name in given],
        }

    for mode, calls in ((True, ways), (False, {**ways, **in_evaluation})):
        pair.train(mode)
        for way, call in calls.items():
            before = state()
            with seeded(case.seed):
                call()
            after = state()
            changed = [what for what in before if not same(before[what], after[what])]
            if changed:
                broken(f"{way} changed {' and '.join(changed)}; let a network in evaluation mode only read")
    pair.eval()


@_LAWS.law
def saving_brings_it_back(case: _Case) -> None:
    """``save`` and ``load_pair`` give the same pair: declaration, shapes, weights, and what it says of data."""
    pair = case.moved().eval()
    with tempfile.TemporaryDirectory() as folder:
        try:
            saved = pair.save(Path(folder) / "pair")
            described = json.loads((saved / "pair.json").read_text(encoding="utf-8"))["networks"]
            # Modules of the user's own come back by their weights, in modules that start out otherwise.
            other = case.moved(seed=5)
            own: dict[str, Any] = {
                "encoders": {name: other.guide.encoders[name] for name in described["encoders"]},
                "decoders": {name: other.model.decoders[name] for name in described["decoders"]},
            }
            own = copy.deepcopy(own)  # together, since they may share parts
            with seeded(case.seed + 5):
                back = load_pair(saved, own if any(own.values()) else None)
        except InfoplaceError as error:
            broken(f"save and load_pair fail ({error}); make all parameters when the networks are made")
    if back.partition != pair.partition or back.data_shape != pair.data_shape:
        broken("what load_pair gives has another partition or data shape; leave save to the base")
    _same_behaviour("what load_pair gives", case.behaviour(pair), case.behaviour(back.eval()))


@_LAWS.law
def double_precision_works(case: _Case) -> None:
    """``pair.double()`` computes in float64 throughout, with what it computes in float32 up to rounding."""
    pair = copy.deepcopy(case.pair).double().eval()
    narrow = case.observe()
    wide = {name: value.double() if value.is_floating_point() else value for name, value in narrow.items()}
    with torch.no_grad():
        ours, theirs = case.pair.encode(narrow), pair.encode(wide)
        for name, posterior in theirs.items():
            if posterior.mean.dtype != torch.float64:
                broken(
                    f"the posterior of {name!r} is in {posterior.mean.dtype} in a pair in float64; cast nothing to float32"
                )
            if not close(ours[name].mean, posterior.mean, relative=1e-2, absolute=1e-3):
                broken(
                    f"the posterior of {name!r} in float64 is another than in float32; make constants buffers, and cast nothing"
                )
        latents = {name: value.double() for name, value in case.latents().items()}
        for name in case.partition.observations:
            if pair.decode(latents, name).log_prob(wide[name]).dtype != torch.float64:
                broken(f"the log-likelihood of {name!r} is not in float64 in a pair in float64; make constants buffers")


@_LAWS.law
def cpu_and_cuda_agree(case: _Case) -> None:
    """Moved to a GPU and back, it says the same; there, too."""
    for device in every_device():
        before = case.behaviour(case.pair)
        moved = copy.deepcopy(case.pair).to(device)
        for what, value in case.behaviour(moved).items():
            if value.device.type != device:
                broken(
                    f"{what} is on {value.device} in a pair on {device}; make constants buffers, so that they move with it"
                )
            if what.startswith("a draw"):
                continue
            scale = float(before[what].detach().abs().max()) + 1
            if furthest(before[what], value) > 0.01 * scale:
                broken(
                    f"{what} on {device} is up to {furthest(before[what], value):.3g} away from that on the CPU; compute "
                    "in one type on both"
                )
        _same_behaviour("the pair, moved there and back,", before, case.behaviour(moved.cpu()))


@run_by(_LAWS)
class PairLaws(LawTests):
    """The laws of pairs as tests: subclass it in a file of tests, and every law runs on everything in ``specs``.

    ``specs`` holds pairs, or partitions and their specs, of which pairs with stock networks are made.

    >>> from infoplace import Block, Observation, Partition
    >>> class TestMine(PairLaws):
    ...     specs = [Partition({"z": Block(2)}, {"x": Observation(likelihood="normal")})]
    ...     batch = torch.linspace(-1, 1, 20).view(4, 5)
    >>> TestMine().test_shapes_are_as_declared(TestMine.specs[0])
    """

    batch: ClassVar[Batch | None] = None
    """Data for them, `[batch, *shape]` or ``{source: tensor}``."""
    specs: ClassVar[Sequence[Any]] = ()

    def _case(self, spec: Any) -> tuple[_Case, str]:
        if self.batch is None:
            raise DeclarationError(f"{type(self).__name__} has no data; set batch = a tensor [batch, ...] in its body")
        return _case(spec, self.batch, self.seed), "the pair"
