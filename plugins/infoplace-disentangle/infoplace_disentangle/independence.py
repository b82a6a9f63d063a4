"""What can be added to a bound so that whole blocks are independent: HSIC, and the CLUB bound on what two of them share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from infoplace.errors import DeclarationError, join_names
from infoplace.evidence import Evidence, Term
from infoplace.objectives import Objective, check, label, register_objective
from torch import Tensor, nn

from infoplace_disentangle.codes import check_blocks, check_whole, images, over_batch, read_codes
from infoplace_disentangle.matching import kernel, squared_distances
from infoplace_disentangle.own import apply, frozen, perceptron, with_gradient_of

__all__ = ["Club", "Hsic"]


@register_objective("hsic")
class Hsic(Objective):
    """How dependent two blocks are, by the Hilbert-Schmidt independence criterion: 0 where they are independent. An addition.

    ``K`` and ``L`` are the Gram matrices of two blocks' codes over the ``m`` images of a batch, by the kernel
    ``exp(-d^2 / 2 h^2)`` whose bandwidth h is the median distance of two images of the batch; so it is the same for codes of
    any scale, and the gradient is that of the median, too. The biased estimate is ``tr(K H L H) / (m - 1)^2`` with
    ``H = I - 1/m``. The unbiased one takes the matrices without their diagonals: ``[tr(K L) + (1'K1)(1'L1) / ((m - 1)(m - 2)) -
    2 (1'K L1) / (m - 2)] / (m (m - 3))``, and may come out negative.
    The term of two blocks, ``"hsic/<one>/<other>"``, is that times the images, at weight 1; add it to a bound with a factor:
    ``beta_elbo + 1000 * hsic``. It is no number of nats, and never large: about 0.1 an image for blocks that are equal.

    Gretton et al., 2005, "Measuring statistical dependence with Hilbert-Schmidt norms", definition of the empirical HSIC; Song et
    al., 2012, "Feature selection via dependence maximization", the unbiased estimate.

    Args:
        blocks: the latent sites, at least two; every two of them are compared. None for all that are vectors of real numbers.
        biased: take the biased estimate.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`infoplace.Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is not there, or one alone.
        DataError: a batch of one image, or of fewer than four for the unbiased estimate.

    >>> import torch
    >>> from infoplace import Block, Observation, Partition, make_objective, make_pair
    >>> pair = make_pair(Partition({"z_g": Block(2), "z_l": Block(3)}, {"x": Observation()}), (1, 8, 8))
    >>> objective = make_objective("elbo") + 1000 * Hsic()
    >>> [name for name in objective.terms(pair.model, pair.guide, pair.partition.observe(torch.zeros(4, 1, 8, 8)))][-2:]
    ['hsic/z_g/z_l', 'loss']
    """

    def __init__(
        self,
        blocks: Sequence[str] | None = None,
        biased: bool = False,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        self.blocks = check_blocks(self, blocks)
        check(self, "blocks", self.blocks is None or len(self.blocks) > 1, "at least two blocks' names", blocks)
        check(self, "biased", isinstance(biased, bool), "True or False", biased)
        self.biased = biased

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """The criterion of every two blocks at weight 1."""
        found = read_codes(self, evidence, self.blocks, least=2 if self.biased else 4)
        if len(found[0]) < 2:
            raise DeclarationError(
                f"{label(self)}: it compares two blocks, and {join_names(found[0])} is the only one; declare another"
            )
        grams = [{name: _gram(code.value) for name, code in codes.items()} for codes in found]
        criterion = _biased if self.biased else _unbiased
        return {
            f"hsic/{one}/{other}": Term(
                over_batch(evidence, one, [criterion(gram[one], gram[other]) for gram in grams]), 1.0
            )
            for one, other in itertools.combinations(found[0], 2)
        }


def _gram(codes: Tensor) -> Tensor:
    """`[particles, images, images]` of codes `[particles, images, dims]`."""
    squared = squared_distances(codes, codes)
    first, second = torch.triu_indices(codes.shape[1], codes.shape[1], 1, device=codes.device)
    median = squared[:, first, second].median(-1).values.clamp(min=torch.finfo(codes.dtype).tiny)
    return kernel("rbf", squared, median[:, None, None])


def _biased(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 (the paper's name)
    centred = k - k.mean(-1, keepdim=True) - k.mean(-2, keepdim=True) + k.mean((-2, -1), keepdim=True)
    return (centred * l).sum((-2, -1)) / (k.shape[-1] - 1) ** 2


def _unbiased(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 (the paper's name)
    m = k.shape[-1]
    apart = 1 - torch.eye(m, dtype=k.dtype, device=k.device)
    k, l = k * apart, l * apart  # noqa: E741
    trace = (k * l).sum((-2, -1))
    totals = k.sum((-2, -1)) * l.sum((-2, -1)) / ((m - 1) * (m - 2))
    rows = (k.sum(-1) * l.sum(-1)).sum(-1) * 2 / (m - 2)
    return (trace + totals - rows) / (m * (m - 3))


_LOG_VARIANCE = 10.0


@register_objective("club")
class Club(Objective):
    """An upper bound on the mutual information of two blocks, in nats: ``E log q(b|a) - E E log q(b'|a)``. An addition.

    ``q(b|a)`` is a normal whose mean and variance a small network says of the first block's code ``a``. It is the objective's
    ``module``, and learns by the likelihood of the second block's codes, by the optimiser that trains the model and the guide
    and in the same step: its loss ``-E log q(b|a)`` sends no gradient into the guide, and the bound none into the network; its
    loss adds nothing to the value of what is minimised. The term ``"club/<a>/<b>"`` is the bound times the images at weight 1,
    to be added with a factor: ``beta_elbo + 10 * club``; ``"club_fit/<a>/<b>"`` is the network's loss, which is reported.

    It bounds the mutual information from above where ``q`` is near the true conditional, and says little before ``q`` has
    learnt. A negative factor would make the network unlearn.

    Cheng et al., 2020, "CLUB: a contrastive log-ratio upper bound of mutual information", section 3.2 (vCLUB), with the mean over
    all pairs of a batch.

    Args:
        blocks: the two blocks' names, ``[a, b]``.
        dims: their numbers of dimensions.
        width: units in the network's hidden layers.
        layers: how many hidden layers there are.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`infoplace.Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is not there, or of another
            size.
        DataError: a batch of one image; the network is on another device than the codes.

    >>> import torch
    >>> from infoplace import Block, Observation, Partition, make_objective, make_pair
    >>> pair = make_pair(Partition({"z_g": Block(2), "z_l": Block(3)}, {"x": Observation()}), (1, 8, 8))
    >>> objective = make_objective("elbo") + 10 * Club(["z_g", "z_l"], dims=[2, 3])
    >>> [name for name in objective.terms(pair.model, pair.guide, pair.partition.observe(torch.zeros(4, 1, 8, 8)))][-3:]
    ['club/z_g/z_l', 'club_fit/z_g/z_l', 'loss']
    """

    module: nn.Module

    def __init__(
        self,
        blocks: Sequence[str],
        dims: Sequence[int],
        width: int = 64,
        layers: int = 2,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        names = check_blocks(self, blocks)
        check(self, "blocks", names is not None and len(names) == 2, "two blocks' names, as ['z_g', 'z_l']", blocks)
        listed = isinstance(dims, (list, tuple)) and len(dims) == 2
        check(self, "dims", listed, "the two blocks' numbers of dimensions, as [64, 64]", dims)
        for place, one in enumerate(dims):
            check_whole(self, f"dims[{place}]", one, 1)
        check_whole(self, "width", width, 1)
        check_whole(self, "layers", layers, 1)
        self.blocks = list(blocks)
        self.dims = list(dims)
        self.width = width
        self.layers = layers
        self.module = perceptron(dims[0], width, layers, 2 * dims[1])

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """The bound at weight 1, and the network's loss at 0."""
        bounds, losses = [], []
        for codes in read_codes(self, evidence, self.blocks):
            given, said = (code.value for code in codes.values())
            if [given.shape[-1], said.shape[-1]] != self.dims:
                raise DeclarationError(
                    f"{label(self)}: dims={self.dims}, and the blocks {join_names(codes)} have {given.shape[-1]} and "
                    f"{said.shape[-1]} dimensions; say dims={[given.shape[-1], said.shape[-1]]}"
                )
            fitted = _normal(apply(self, self.module, given.detach()))
            losses.append(-_log_density(fitted, said.detach()).mean())
            held = _normal(frozen(self.module, given))
            pairs = _log_density((held[0].unsqueeze(2), held[1].unsqueeze(2)), said.unsqueeze(1))
            bounds.append(pairs.diagonal(dim1=1, dim2=2).mean(-1) - pairs.mean((1, 2)))
        first, second = self.blocks
        loss = torch.stack(losses).mean() * images(evidence, first)
        bound = over_batch(evidence, first, bounds)
        return {
            f"club/{first}/{second}": Term(with_gradient_of(bound, loss, 1.0), 1.0),
            f"club_fit/{first}/{second}": Term(loss.detach(), 0.0),
        }


def _normal(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance; the latter is bounded, so that no code is infinitely surprising."""
    mean, log_variance = raw.chunk(2, dim=-1)
    return mean, _LOG_VARIANCE * torch.tanh(log_variance / _LOG_VARIANCE)


def _log_density(normal: tuple[Tensor, Tensor], value: Tensor) -> Tensor:
    mean, log_variance = normal
    squared = (value - mean).square() * (-log_variance).exp()
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)
