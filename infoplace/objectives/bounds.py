"""The bounds that come with the package."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from infoplace.errors import DeclarationError, is_whole, join_names
from infoplace.evidence import Evidence, Term
from infoplace.objectives.base import Objective, amount, by_block, check, label, ramp, register_objective

__all__ = ["BetaElbo", "Capacity", "Elbo", "FreeBits"]


@register_objective("elbo")
class Elbo(Objective):
    """The negative evidence lower bound, ``-sum log p(x | z) + sum KL(q(z) || p(z))``.

    A block's own beta (``infer={"beta": ...}`` on the model's site) multiplies its KL here too; :meth:`Objective.terms`
    has the raw values.

    Kingma and Welling, 2014, "Auto-encoding variational Bayes", equation 3.

    Args:
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`Objective`.
    """

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every log-likelihood at weight -1 and every KL at the site's own beta."""
        return {**evidence.likelihood_terms(), **evidence.kl_terms(1.0)}


@register_objective("beta_elbo")
class BetaElbo(Objective):
    """The negative ELBO with weighted KLs: ``-sum log p(x | z) + sum beta KL(q(z) || p(z))``, with an optional warm-up.

    The weight of a block's KL is ``beta`` (or ``beta[block]``) times the block's own beta (``infer={"beta": ...}`` on the
    model's site) times the warm-up. The warm-up rises linearly: at training step ``t`` (from 0) it is
    ``min(1, (t + 1) / warmup)``. With ``cycles`` above 1 the rise is repeated, with ``hold`` steps at 1 after each.

    Higgins et al., 2017, "beta-VAE", equation 4; Fu et al., 2019, "Cyclical annealing schedule", section 4.1 (there, a rise
    and the hold after it are of one length).

    Args:
        beta: at least 0, one for all blocks or one for each; a block that the dict leaves out has 1.
        warmup: training steps of one rise; 0 for none.
        cycles: how many rises.
        hold: training steps at full weight between rises; as many as ``warmup`` by default.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is no latent site.

    >>> objective = BetaElbo(beta=2.0, warmup=4)
    >>> [objective.schedule(step) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    >>> [BetaElbo(warmup=2, cycles=2, hold=1).schedule(step) for step in range(6)]
    [0.5, 1.0, 1.0, 0.5, 1.0, 1.0]
    """

    def __init__(
        self,
        beta: float | Mapping[str, float] = 1.0,
        warmup: int = 0,
        cycles: int = 1,
        hold: int | None = None,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        self.beta: float | dict[str, float] = amount(self, "beta", beta, by_block=True)
        check(self, "warmup", is_whole(warmup) and warmup >= 0, "a number of steps, at least 0", warmup)
        check(self, "cycles", is_whole(cycles) and cycles >= 1, "a positive integer", cycles)
        held = hold is None or (is_whole(hold) and hold >= 0)
        check(self, "hold", held, "a number of steps, at least 0, or None", hold)
        if cycles > 1 and warmup == 0:
            raise DeclarationError(
                f"{label(self)}: cycles={cycles} repeats a warm-up, and warmup is 0; say warmup=1000"
            )
        if cycles == 1 and hold is not None:
            raise DeclarationError(f"{label(self)}: hold={hold} is between two rises, and there is one; say cycles=4")
        self.warmup = warmup
        self.cycles = cycles
        self.hold = hold

    @property
    def schedule_steps(self) -> int:
        """The steps until the weight stays at its full value."""
        return self.warmup * self.cycles + self._between * (self.cycles - 1)

    @property
    def _between(self) -> int:
        return self.warmup if self.hold is None else self.hold

    def schedule(self, step: int) -> float:
        """The warm-up's factor at a step, above 0 and at most 1."""
        return 1.0 if step >= self.schedule_steps else ramp(step % (self.warmup + self._between), self.warmup)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every log-likelihood at weight -1 and every KL at the weight of the present step."""
        beta = by_block(self, "beta", self.beta, 1.0, evidence)
        return {
            **evidence.likelihood_terms(),
            **evidence.kl_terms({name: self.level * one for name, one in beta.items()}),
        }


@register_objective("capacity")
class Capacity(Objective):
    """The controlled-capacity objective: ``-sum log p(x | z) + gamma |KL - C|``, with C rising while training goes on.

    C rises linearly from ``start`` to ``stop``: at training step ``t`` (from 0) it is ``start + (stop - start) *
    min(1, (t + 1) / steps)``. It is in nats an image, that is, for each element of the latent's batch shape (counted by
    its scale and mask where it has them), so C is multiplied by that count before it meets the summed KL.

    With one number for ``stop``, the KL is the sum over all blocks, each times its own beta (``infer={"beta": ...}``), and C
    is counted over the images of the block in the most plates; the term is ``"capacity"``. With a dict, each block has a C and
    a term ``"capacity/<block>"`` of its own, at ``gamma`` times its own beta.

    Burgess et al., 2018, "Understanding disentangling in beta-VAE", equation 8; the defaults are theirs.

    Args:
        gamma: the weight of the distance, at least 0.
        start: C before the first step, in nats an image; at least 0.
        stop: C at the end, in nats an image; at least 0; one number, or a dict that names every block.
        steps: training steps from ``start`` to ``stop``; 0 to have ``stop`` at once.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, blocks that are not the latent sites.

    >>> objective = Capacity(stop={"z_g": 30.0, "z_l": 10.0}, steps=4)
    >>> [objective.capacity("z_l", objective.schedule(step)) for step in range(5)]
    [2.5, 5.0, 7.5, 10.0, 10.0]
    """

    def __init__(
        self,
        gamma: float = 1000.0,
        start: float = 0.0,
        stop: float | Mapping[str, float] = 25.0,
        steps: int = 100_000,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        self.gamma: float = amount(self, "gamma", gamma)
        self.start: float = amount(self, "start", start)
        self.stop: float | dict[str, float] = amount(self, "stop", stop, by_block=True)
        check(self, "steps", is_whole(steps) and steps >= 0, "a number of steps, at least 0", steps)
        self.steps = steps

    @property
    def schedule_steps(self) -> int:
        """The steps until C is at ``stop``."""
        return self.steps

    def schedule(self, step: int) -> float:
        """How much of the way from ``start`` to ``stop`` C has come at a step."""
        return ramp(step, self.steps)

    def capacity(self, block: str, level: float | Tensor) -> float | Tensor:
        """C in nats an image at ``level`` of the way, of a block or (with one number for ``stop``) of all."""
        stop = self.stop[block] if isinstance(self.stop, dict) else self.stop
        return self.start + (stop - self.start) * level

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every log-likelihood at weight -1, and the distances of the KLs from C at ``gamma``; KLs at 0."""
        terms = {**evidence.likelihood_terms(), **evidence.kl_terms(0.0)}
        if isinstance(self.stop, dict):
            _no_auxiliary(self, evidence)
            by_block(self, "stop", self.stop, 0.0, evidence)
            for name, kl in evidence.kl.items():
                if name not in self.stop:
                    raise DeclarationError(
                        f"{label(self)}: stop names {join_names(self.stop)} and leaves out {name!r}, whose KL would not "
                        "count at all; give it a capacity too"
                    )
                distance = (kl - self.capacity(name, self.level) * evidence.count[name]).abs()
                terms[f"capacity/{name}"] = Term(distance, self.gamma * evidence.beta[name])
        elif evidence.kl:
            widest = max(evidence.kl, key=lambda name: _elements(evidence, name))
            total = torch.stack([kl * evidence.beta[name] for name, kl in evidence.kl.items()]).sum()
            distance = (total - self.capacity(widest, self.level) * evidence.count[widest]).abs()
            terms["capacity"] = Term(distance, self.gamma)
        return terms


@register_objective("free_bits")
class FreeBits(Objective):
    """The ELBO in which a block's KL counts from a floor upwards: each block may use ``nats`` nats an image for free.

    ``-sum log p(x | z) + beta sum_blocks max(mean_images KL, nats) * images``: the version whose maximum is taken of the KL of
    a whole block (not of each dimension), averaged over the minibatch (not for each image). An image is an element of the
    block's batch shape, counted by its scale and mask where it has them. The block's own beta (``infer={"beta": ...}``)
    multiplies its term ``"free_bits/<block>"``.

    Kingma et al., 2016, "Improved variational inference with inverse autoregressive flow", equation 15.

    Args:
        nats: the floor in nats an image, at least 0; one for every block, or a dict, whose left-out blocks have 0.
        beta: the weight of the floored KLs, at least 0.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is no latent site.
    """

    def __init__(
        self,
        nats: float | Mapping[str, float] = 0.5,
        beta: float = 1.0,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        self.nats: float | dict[str, float] = amount(self, "nats", nats, by_block=True)
        self.beta: float = amount(self, "beta", beta)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every log-likelihood at weight -1, and the floored KLs at ``beta`` times the sites' own; KLs at 0."""
        _no_auxiliary(self, evidence)
        nats = by_block(self, "nats", self.nats, 0.0, evidence)
        floored = {
            f"free_bits/{name}": Term(kl.clamp(min=nats[name] * evidence.count[name]), self.beta * evidence.beta[name])
            for name, kl in evidence.kl.items()
        }
        return {**evidence.likelihood_terms(), **evidence.kl_terms(0.0), **floored}


def _no_auxiliary(objective: Objective, evidence: Evidence) -> None:
    if evidence.auxiliary:
        raise DeclarationError(
            f"{label(objective)}: the KL of a block cannot be told where the guide draws it through auxiliary sites "
            f"({join_names(sorted(evidence.auxiliary))}); use elbo, beta_elbo, or a guide without them"
        )


def _elements(evidence: Evidence, name: str) -> int:
    return max(one.latents[name].kl.numel() for one in evidence.passes if name in one.latents)
