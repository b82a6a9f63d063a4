"""The total correlation by the density-ratio trick: a discriminator between codes and codes whose dimensions were shuffled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from infoplace.errors import DeclarationError, join_names
from infoplace.evidence import Evidence, Term
from infoplace.objectives import Objective, check, is_finite, label, register_objective
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace_disentangle.codes import check_blocks, check_whole, images, join, over_batch, read_codes
from infoplace_disentangle.own import apply, frozen, perceptron, with_gradient_of

__all__ = ["FactorVae"]


@register_objective("factor_vae")
class FactorVae(Objective):
    """The ELBO and a total correlation by the density-ratio trick: ``-log p(x|z) + KL + gamma E log(D(z) / (1 - D(z)))``.

    ``D(z)`` is the discriminator's probability that a code was drawn by the guide, and not put together of several codes of
    the batch, each dimension permuted on its own. The codes are those of all blocks side by side. Every KL counts as in
    ``elbo``.

    The discriminator is the objective's ``module``: it is trained by the optimiser that trains the model and the guide, in
    the same step. It descends on its own loss, ``-E[log D(z)] / 2 - E[log(1 - D(permuted z))] / 2`` on the batch's codes, through
    which no gradient reaches the guide; and the total correlation is taken with its weights held, so that no gradient of the
    bound reaches it. Its loss is a gradient alone, and adds nothing to the value of the bound. The terms are
    ``"total_correlation"`` at ``gamma`` and ``"discriminator"``, its loss, which is reported (``log 2`` an image where it cannot
    tell). A negative factor in a sum of objectives would make it ascend.

    Kim and Mnih, 2018, "Disentangling by factorising", equations 2 and 3 and algorithm 2; the discriminator is theirs, with one
    logit in place of two. There, it sees another batch than the bound, after the bound's step, and has an Adam of its own.

    Args:
        dims: how many dimensions the blocks have together.
        gamma: the weight of the total correlation, above 0.
        blocks: the latent sites; None for all that are vectors of real numbers.
        width: units in each of the discriminator's hidden layers.
        layers: how many hidden layers there are.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`infoplace.Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is not there, or blocks of
            another size than ``dims``.
        DataError: a batch of one image; the discriminator is on another device than the codes.

    >>> import torch
    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z": Block(3)}, {"x": Observation()}), (1, 8, 8))
    >>> loss = FactorVae(dims=3, width=16, layers=2)(pair.model, pair.guide)
    >>> loss(pair.partition.observe(torch.zeros(4, 1, 8, 8))).backward()
    >>> [name for name, weight in loss.named_parameters() if name.startswith("own") and weight.grad is None]
    []
    """

    module: nn.Module

    def __init__(
        self,
        dims: int,
        gamma: float = 10.0,
        blocks: Sequence[str] | None = None,
        width: int = 1000,
        layers: int = 6,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        check_whole(self, "dims", dims, 2)
        check(self, "gamma", is_finite(gamma) and gamma > 0, "a finite number above 0", gamma)
        check_whole(self, "width", width, 1)
        check_whole(self, "layers", layers, 1)
        self.dims = dims
        self.gamma = float(gamma)
        self.blocks = check_blocks(self, blocks)
        self.width = width
        self.layers = layers
        self.module = perceptron(dims, width, layers, 1)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """The terms of ``elbo``, and the total correlation at ``gamma``; the discriminator's loss at 0."""
        correlations, losses = [], []
        found = read_codes(self, evidence, self.blocks)
        for codes in found:
            joined = join(codes)
            if joined.shape[-1] != self.dims:
                raise DeclarationError(
                    f"{label(self)}: dims={self.dims}, and the blocks {join_names(codes)} have {joined.shape[-1]} dimensions "
                    f"together; say dims={joined.shape[-1]}, or name other blocks"
                )
            held = joined.detach()
            drawn, permuted = (apply(self, self.module, one) for one in (held, _permuted(held)))
            losses.append((F.softplus(-drawn).mean() + F.softplus(permuted).mean()) / 2)
            correlations.append(frozen(self.module, joined).mean((1, 2)))
        name = next(iter(found[0]))
        loss = torch.stack(losses).mean() * images(evidence, name)
        correlation = over_batch(evidence, name, correlations)
        return {
            **evidence.likelihood_terms(),
            **evidence.kl_terms(1.0),
            "total_correlation": Term(with_gradient_of(correlation, loss, self.gamma), self.gamma),
            "discriminator": Term(loss.detach(), 0.0),
        }


def _permuted(codes: Tensor) -> Tensor:
    """Codes `[particles, images, dims]`, each dimension's permuted among the images of a particle."""
    return codes.gather(1, torch.rand_like(codes).argsort(1))
