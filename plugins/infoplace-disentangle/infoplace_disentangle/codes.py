"""The codes of a batch: what the guide drew for its images, block by block, and how likely each is under every posterior."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from infoplace.errors import DataError, DeclarationError, did_you_mean, join_names
from infoplace.evidence import Evidence, Latent
from infoplace.objectives import Objective, check, is_whole, label
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal, constraints

__all__ = ["Code", "check_blocks", "check_whole", "images", "join", "over_batch", "read_codes"]


@dataclass(frozen=True, eq=False)
class Code:
    """One block's codes in one run of the guide."""

    objective: Objective
    latent: Latent
    particles: int
    axis: int
    """Which dimension of the site's batch shape the images lie along."""

    @property
    def value(self) -> Tensor:
        """What was drawn, `[particles, images, dims]`."""
        return self.by_image(self.latent.value)

    @property
    def prior(self) -> Any:
        """The model's distribution at the site."""
        return self.latent.prior

    def by_image(self, tensor: Tensor) -> Tensor:
        """A tensor of the site's batch shape and any further dimensions, as `[particles, images, dims]`."""
        moved = tensor.movedim(self.axis, 0)
        return moved.reshape(len(moved), self.particles, -1).transpose(0, 1)

    def log_densities(self) -> tuple[Tensor, Tensor]:
        """How likely each image's code is under each image's posterior.

        Returns:
            `log q(z_i | x_j)` in nats, `[i, j, particles]`, and the same of each dimension alone, `[i, j, particles, dims]`.

        Raises:
            DeclarationError: a posterior whose single dimensions have no density in closed form.
        """
        marginals = self._marginals()
        # Codes along a new leftmost dimension, against all posteriors along the images' own.
        codes = self.latent.value.movedim(self.axis, 0).unsqueeze(self.axis + 1)
        images = len(codes)
        by_dim = marginals.log_prob(codes).movedim(self.axis + 1, 1)
        by_dim = by_dim.reshape(images, images, self.particles, -1)
        posterior = self.latent.posterior
        if not posterior.event_shape or isinstance(posterior, Independent):
            return by_dim.sum(-1), by_dim
        joint = posterior.log_prob(codes).movedim(self.axis + 1, 1)
        return joint.reshape(images, images, self.particles), by_dim

    def _marginals(self) -> Any:
        """The posterior of every dimension alone, over the site's batch shape and its event's dimensions."""
        inner = _inner(self.latent.posterior)
        if not inner.event_shape:
            return inner
        if isinstance(inner, (MultivariateNormal, LowRankMultivariateNormal)):
            return Normal(inner.mean, inner.variance.sqrt())
        raise DeclarationError(
            f"{label(self.objective)}: the density of a single dimension of block {self.latent.name!r} has no closed form, as "
            f"its posterior is {type(inner).__name__}; use a normal posterior, independent (.to_event(1)) or MultivariateNormal, "
            "or leave the block out with blocks=[...]"
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """The posterior's means, `[particles, images, dims]`, and covariances, `[particles, images, dims, dims]`.

        Raises:
            DeclarationError: a posterior without them in closed form.
        """
        inner = _inner(self.latent.posterior)
        try:
            mean = self.by_image(inner.mean)
            if inner.event_shape:
                covariance = self.by_image(inner.covariance_matrix)
                return mean, covariance.unflatten(-1, (mean.shape[-1], mean.shape[-1]))
            return mean, torch.diag_embed(self.by_image(inner.variance))
        except (AttributeError, NotImplementedError) as error:
            raise DeclarationError(
                f"{label(self.objective)}: the mean and the covariance of block {self.latent.name!r} have no closed form, as its "
                f"posterior is {type(inner).__name__}; use a normal posterior, independent (.to_event(1)) or "
                "MultivariateNormal, or leave the block out with blocks=[...]"
            ) from error


def _inner(posterior: Any) -> Any:
    while isinstance(posterior, Independent):
        posterior = posterior.base_dist
    return posterior


def check_blocks(objective: Objective, blocks: Sequence[str] | None) -> list[str] | None:
    """The blocks that an objective is told to read, checked; None for all.

    Raises:
        DeclarationError: not a list of different names.
    """
    listed = isinstance(blocks, (list, tuple)) and len(blocks) > 0 and all(isinstance(name, str) for name in blocks)
    right = blocks is None or (listed and len(set(blocks)) == len(blocks))
    check(objective, "blocks", right, "a list of different blocks' names, or None for all", blocks)
    return None if blocks is None else list(blocks)


def read_codes(
    objective: Objective, evidence: Evidence, blocks: Sequence[str] | None, least: int = 2
) -> list[dict[str, Code]]:
    """The codes of the blocks, run by run.

    Args:
        objective: what reads them, for messages.
        evidence: what the model and the guide showed.
        blocks: the blocks' names; None for every latent site whose values are vectors of real numbers.
        least: how many images there must be.

    Raises:
        DeclarationError: a block that is not there, or that has no one code an image.
        DataError: fewer images than ``least``.
    """
    latents = evidence.passes[0].latents
    if blocks is None:
        blocks = [name for name, one in latents.items() if one.prior is not None and _is_real(one.posterior)]
        if not blocks:
            raise DeclarationError(
                f"{label(objective)}: no latent site holds vectors of real numbers; the latent sites: {join_names(latents)}"
            )
    for name in blocks:
        if name not in latents:
            raise DeclarationError(
                f"{label(objective)}: blocks names {name!r}, which is no latent site.{did_you_mean(name, latents)} "
                f"The latent sites: {join_names(latents)}"
            )
    found = [{name: _code(objective, evidence, one.latents[name], least) for name in blocks} for one in evidence.passes]
    for codes in found:
        sizes = {name: code.value.shape[1] for name, code in codes.items()}
        if len(set(sizes.values())) > 1:
            raise DeclarationError(
                f"{label(objective)}: the blocks differ in their number of images ({sizes}); name blocks of one plate with "
                "blocks=[...]"
            )
    return found


def _is_real(posterior: Any) -> bool:
    support = getattr(posterior, "support", None)
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.real))


def _code(objective: Objective, evidence: Evidence, latent: Latent, least: int) -> Code:
    posterior, shape = latent.posterior, latent.kl.shape
    if latent.prior is None:
        raise DeclarationError(
            f"{label(objective)}: {latent.name!r} is a site that only the guide has; name the model's with blocks=[...]"
        )
    if posterior.has_enumerate_support:
        raise DeclarationError(
            f"{label(objective)}: {latent.name!r} is a class ({type(posterior).__name__}), and codes are vectors of real "
            "numbers; leave it out of blocks"
        )
    if posterior.batch_shape != shape:
        raise DeclarationError(
            f"{label(objective)}: the posterior of {latent.name!r} hangs on a class that is summed over, so an image has one "
            "code a class; let it not hang on the class, or leave it out with blocks=[...]"
        )
    particles = evidence.particles if len(evidence.passes) == 1 else 1
    first = 1 if particles > 1 else 0
    wide = [axis for axis in range(first, len(shape)) if shape[axis] > 1]
    if len(wide) > 1:
        raise DeclarationError(
            f"{label(objective)}: block {latent.name!r} is in several plates (batch shape {list(shape)}), and these statistics "
            "are over one, the images'; put what is not an image's own into the event with .to_event(...)"
        )
    count = shape[wide[0]] if wide else 1
    if count < least:
        raise DataError(
            f"{label(objective)}: the batch has {count} image{'s' * (count > 1)} (block {latent.name!r} has batch shape "
            f"{list(shape)}), and its statistics are over a batch of at least {least}; use larger batches, inside a "
            "pyro.plate, or drop the last"
        )
    return Code(objective, latent, particles, wide[0])


def join(codes: dict[str, Code]) -> Tensor:
    """The blocks' codes side by side, `[particles, images, dims of all]`."""
    return torch.cat([code.value for code in codes.values()], dim=-1)


def images(evidence: Evidence, name: str) -> Any:
    """How many images the sums over the batch stand for: more than the batch holds where a plate draws a part of its data."""
    return evidence.count[name]


def over_batch(evidence: Evidence, name: str, values: Iterable[Tensor]) -> Tensor:
    """What is known of an image on average, as a sum over the batch with an unbiased gradient.

    Args:
        evidence: what the model and the guide showed.
        name: one of the blocks that were read.
        values: `[particles]` for each pass.
    """
    totals = []
    for one, value in zip(evidence.passes, values, strict=True):
        latent = one.latents[name]
        depth = latent.kl.ndim
        # Every image's value hangs on every draw in the batch, so a draw that cannot be reparameterised answers for the whole
        # batch; but for its own particle alone, which is what the leftmost plate says where particles are vectorised.
        plates = [plate for plate in latent.plates if len(value) > 1 and plate.dim == -depth]
        totals.append(one.total(value.reshape(-1, *[1] * (depth - 1)), plates))
    return torch.stack(totals).sum() / evidence.particles * images(evidence, name)


def check_whole(objective: Objective, parameter: str, value: Any, least: int) -> None:
    """Refuse what is no integer of at least ``least``.

    Raises:
        DeclarationError: it is not.
    """
    right = is_whole(value) and value >= least
    check(objective, parameter, right, f"an integer, at least {least}", value)
