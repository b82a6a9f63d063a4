"""The KL of a batch's codes taken apart: what they say of the image, how they hang together, and each dimension's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from infoplace.errors import DataError, DeclarationError, did_you_mean, join_names
from infoplace.evidence import Evidence, Term
from infoplace.objectives import Objective, amount, check, label, register_objective
from torch import Tensor

from infoplace_disentangle.codes import Code, check_blocks, check_whole, over_batch, read_codes

__all__ = ["BetaTcvae", "Hfvae"]

ESTIMATORS = ("weighted", "stratified", "averaged")


class _Decomposition(Objective):
    """What takes the KL of some blocks apart by estimates of the aggregated posterior ``q(z) = mean_n q(z|x_n)``."""

    def __init__(
        self,
        dataset_size: int,
        estimator: str,
        blocks: Sequence[str] | None,
        num_particles: int,
        vectorize_particles: bool,
        max_plate_nesting: int,
        kl: str,
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        check_whole(self, "dataset_size", dataset_size, 2)
        check(self, "estimator", estimator in ESTIMATORS, f"one of {join_names(ESTIMATORS)}", estimator)
        self.dataset_size = dataset_size
        self.estimator = estimator
        self.blocks = check_blocks(self, blocks)

    def _parts(self, evidence: Evidence) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mutual information, total correlation between the blocks, and within each; summed over the batch."""
        if evidence.auxiliary:
            raise DeclarationError(
                f"{label(self)}: the aggregated posterior of a block cannot be told where the guide draws it through auxiliary "
                f"sites ({join_names(sorted(evidence.auxiliary))}); use a guide without them"
            )
        found = read_codes(self, evidence, self.blocks)
        rows = [self._decompose(codes) for codes in found]
        names = list(found[0])
        information, between, *within = (
            over_batch(evidence, names[0], [row[place] for row in rows]) for place in range(2 + len(names))
        )
        return information, between, dict(zip(names, within, strict=True))

    def _decompose(self, codes: dict[str, Code]) -> list[Tensor]:
        """What :meth:`_parts` sums up, for an image on average: each `[particles]`."""
        densities = {name: code.log_densities() for name, code in codes.items()}
        joint = torch.stack([pairs for pairs, _ in densities.values()]).sum(0)
        if len(joint) > self.dataset_size:
            raise DataError(
                f"{label(self)}: the batch has {len(joint)} images and dataset_size is {self.dataset_size}; say of how many "
                f"images the training data are, as dataset_size={max(10 * len(joint), 1000)}"
            )
        weights = self._log_weights(joint)
        log_q = _aggregate(joint, weights)
        log_q_blocks = {name: _aggregate(pairs, weights) for name, (pairs, _) in densities.items()}
        log_q_dims = {name: _aggregate(by_dim, weights).sum(-1) for name, (_, by_dim) in densities.items()}
        own = joint.diagonal(dim1=0, dim2=1).transpose(0, 1)
        return [
            (own - log_q).mean(0),
            (log_q - torch.stack(list(log_q_blocks.values())).sum(0)).mean(0),
            *((log_q_blocks[name] - log_q_dims[name]).mean(0) for name in codes),
        ]

    def _log_weights(self, like: Tensor) -> Tensor:
        """The logarithms of what `q(z_i | x_j)` counts in the estimate of `q(z_i)`, `[i, j]`."""
        batch, size = len(like), self.dataset_size
        others = batch - 1
        if self.estimator == "weighted":
            weights = like.new_full((batch, batch), 1 / (batch * size))
        else:
            own = torch.eye(batch, dtype=like.dtype, device=like.device)
            if self.estimator == "averaged":
                weights = own / size + (1 - own) * (size - 1) / (size * others)
            else:
                last = own.roll(1, dims=1)
                weights = own / size + last * (size - others) / (size * others) + (1 - own - last) / others
        return weights.log()

    def _terms(
        self, evidence: Evidence, blocks: Sequence[str], parts: Mapping[str, tuple[Tensor, float]], rest: float
    ) -> dict[str, Term]:
        """The loss's terms: ``parts`` of the blocks' KL at their weights, and what remains of it at the weight ``rest``."""
        common = min(evidence.beta[name] for name in blocks)
        if common == 0.0:
            free = next(name for name in blocks if evidence.beta[name] == 0.0)
            raise DeclarationError(
                f"{label(self)}: the beta of block {free!r} is 0, and the smallest beta weighs the whole decomposition; leave "
                "the block out with blocks=[...]"
            )
        kl = torch.stack([evidence.kl[name] for name in blocks]).sum()
        remainder = kl - torch.stack([value for value, _ in parts.values()]).sum()
        return {
            **evidence.likelihood_terms(),
            **{
                f"kl/{name}": Term(value, evidence.beta[name] - (common if name in blocks else 0.0))
                for name, value in evidence.kl.items()
            },
            **{name: Term(value, common * weight) for name, (value, weight) in parts.items()},
            "dimension_wise_kl": Term(remainder, common * rest),
        }


def _aggregate(log_densities: Tensor, log_weights: Tensor) -> Tensor:
    """`log q(z_i)`, `[i, ...]`, of `log q(z_i | x_j)`, `[i, j, ...]`."""
    return (log_densities + log_weights.reshape(*log_weights.shape, *[1] * (log_densities.ndim - 2))).logsumexp(1)


@register_objective("beta_tcvae")
class BetaTcvae(_Decomposition):
    """The ELBO with its KL taken apart: ``-log p(x|z) + alpha I(z; n) + beta TC(z) + gamma sum_j KL(q(z_j) || p(z_j))``.

    With ``q(z) = mean_n q(z|x_n)`` over the training data, the KL of the codes is the sum of the index-code mutual information
    ``I(z; n) = E log q(z|x_n) / q(z)``, the total correlation ``TC(z) = E log q(z) / prod_j q(z_j)`` over all dimensions of all
    blocks, and the dimension-wise KL. The terms are ``"index_code_mi"``, ``"total_correlation"`` and ``"dimension_wise_kl"``. The
    first two are estimated from the batch; the third is what remains of the KL. So with ``alpha = beta = gamma = 1`` the
    loss is that of ``elbo``, and with ``kl="sampled"`` every term is the paper's. A prior whose dimensions are not
    independent (a mixture) leaves its own dependence in the third.

    ``q(z_i)`` of a batch of M out of N images is estimated as a sum over the batch of ``w_j q(z_i|x_j)``:

    - ``"weighted"`` (minibatch-weighted sampling): ``w_j = 1 / (N M)``, the batch's mean density over N. So the mutual
      information has a constant ``log N`` in it, and the total correlation of d dimensions ``(d - 1) log N``, which have no
      gradient; the third term makes up for both.
    - ``"stratified"`` (minibatch-stratified sampling): ``1 / N`` for ``j = i``, ``(N - M + 1) / (N (M - 1))`` for the image after
      ``i`` and ``1 / (M - 1)`` for the others; the estimate of ``q(z_i)`` is unbiased.
    - ``"averaged"``: the mean of the latter over the orders of the batch: ``1 / N`` for ``j = i`` and ``(N - 1) / (N (M - 1))``
      for the others. Unbiased too, and it does not hang on the order.

    The blocks' own betas (``infer={"beta": ...}``): the smallest multiplies the three terms, and what a block has above it
    weighs its KL. It is assumed that the guide draws the blocks independently, given the data.

    Chen et al., 2018, "Isolating sources of disentanglement in variational autoencoders", equations 2 to 4 and appendix C.

    Args:
        dataset_size: N, how many images the training data are; at least 2, and no smaller than a batch.
        alpha: the weight of the mutual information, at least 0.
        beta: the weight of the total correlation, at least 0.
        gamma: the weight of the dimension-wise KL, at least 0.
        estimator: ``"weighted"``, ``"stratified"`` or ``"averaged"``.
        blocks: the latent sites to take apart; None for all that are vectors of real numbers. The KL of the others counts as
            in ``elbo``.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`infoplace.Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is not there, of beta 0, or
            with a posterior whose single dimensions have no density in closed form.
        DataError: a batch of one image, or of more than ``dataset_size``.

    >>> import torch
    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z": Block(3)}, {"x": Observation()}), (1, 8, 8))
    >>> objective = BetaTcvae(dataset_size=100, beta=6.0)
    >>> terms = objective.terms(pair.model, pair.guide, pair.partition.observe(torch.zeros(4, 1, 8, 8)))
    >>> sorted(terms)
    ['dimension_wise_kl', 'index_code_mi', 'kl/z', 'log_likelihood/x', 'loss', 'total_correlation']
    """

    def __init__(
        self,
        dataset_size: int,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        estimator: str = "weighted",
        blocks: Sequence[str] | None = None,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(dataset_size, estimator, blocks, num_particles, vectorize_particles, max_plate_nesting, kl)
        self.alpha: float = amount(self, "alpha", alpha)
        self.beta: float = amount(self, "beta", beta)
        self.gamma: float = amount(self, "gamma", gamma)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every log-likelihood at weight -1, and the three parts of the KL at theirs."""
        information, between, within = self._parts(evidence)
        correlation = torch.stack([between, *within.values()]).sum()
        parts = {"index_code_mi": (information, self.alpha), "total_correlation": (correlation, self.beta)}
        return self._terms(evidence, list(within), parts, self.gamma)


@register_objective("hfvae")
class Hfvae(_Decomposition):
    """The ELBO with its KL taken apart in two levels: the total correlation between the blocks, and that within each.

    ``-log p(x|z) + alpha I(z; n) + beta TC(blocks) + sum_b gamma_b TC(b) + sum_j KL(q(z_j) || p(z_j))``, where
    ``TC(blocks) = E log q(z) / prod_b q(z_b)`` is over whole blocks and ``TC(b) = E log q(z_b) / prod_j q(z_bj)`` over the
    dimensions of one. The terms are ``"index_code_mi"``, ``"total_correlation"``, ``"total_correlation/<block>"`` and
    ``"dimension_wise_kl"``. A large ``beta`` with a small ``gamma`` makes blocks independent whose dimensions may hang together.

    The estimates are those of :class:`BetaTcvae`, and so are what is said there of a prior whose dimensions are not
    independent (the paper subtracts its total correlation from the blocks'), of the blocks' own betas and of the guide.

    Esmaeili et al., 2019, "Structured disentangled representations", the objective in section 3; the authors' code estimates
    ``q(z)`` as ``"averaged"`` does.

    Args:
        dataset_size: N, how many images the training data are; at least 2, and no smaller than a batch.
        alpha: the weight of the mutual information, at least 0.
        beta: the weight of the total correlation between the blocks, at least 0.
        gamma: that of the total correlation within a block, at least 0; one for all blocks or one for each; a block that the
            dict leaves out has 1.
        estimator: ``"weighted"``, ``"stratified"`` or ``"averaged"``.
        blocks: the latent sites to take apart; None for all that are vectors of real numbers.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`infoplace.Objective`.

    Raises:
        DeclarationError, DataError: as :class:`BetaTcvae` does.

    >>> import torch
    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z_g": Block(2), "z_l": Block(3)}, {"x": Observation()}), (1, 8, 8))
    >>> objective = Hfvae(dataset_size=100, beta=10.0, gamma={"z_l": 0.5})
    >>> terms = objective.terms(pair.model, pair.guide, pair.partition.observe(torch.zeros(4, 1, 8, 8)))
    >>> [name for name in terms if name.startswith("total")]
    ['total_correlation', 'total_correlation/z_g', 'total_correlation/z_l']
    """

    def __init__(
        self,
        dataset_size: int,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float | Mapping[str, float] = 1.0,
        estimator: str = "averaged",
        blocks: Sequence[str] | None = None,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(dataset_size, estimator, blocks, num_particles, vectorize_particles, max_plate_nesting, kl)
        self.alpha: float = amount(self, "alpha", alpha)
        self.beta: float = amount(self, "beta", beta)
        self.gamma: float | dict[str, float] = amount(self, "gamma", gamma, by_block=True)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every log-likelihood at weight -1, and the parts of the KL at theirs."""
        information, between, within = self._parts(evidence)
        gamma = self.gamma if isinstance(self.gamma, dict) else dict.fromkeys(within, self.gamma)
        for name in gamma:
            if name not in within:
                raise DeclarationError(
                    f"{label(self)}: gamma names {name!r}, which is no block taken apart.{did_you_mean(name, within)} "
                    f"The blocks: {join_names(within)}"
                )
        parts = {
            "index_code_mi": (information, self.alpha),
            "total_correlation": (between, self.beta),
            **{f"total_correlation/{name}": (value, gamma.get(name, 1.0)) for name, value in within.items()},
        }
        return self._terms(evidence, list(within), parts, 1.0)
