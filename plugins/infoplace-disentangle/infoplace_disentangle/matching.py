"""The codes of a whole batch matched to the prior: by their covariance, and by their maximum mean discrepancy from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from infoplace.errors import DeclarationError
from infoplace.evidence import Evidence, Term
from infoplace.objectives import Objective, amount, check, is_finite, label, register_objective
from torch import Tensor

from infoplace_disentangle.codes import Code, check_blocks, join, over_batch, read_codes

__all__ = ["DipVae", "InfoVae", "kernel", "squared_distances"]


@register_objective("dip_vae")
class DipVae(Objective):
    """The ELBO and the distance of the codes' covariance from the identity, off its diagonal and on it.

    ``-log p(x|z) + KL + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2``, the last two times the images. ``C``
    is the covariance over the batch (divided by its size) of the posteriors' means for kind ``"I"``; for kind ``"II"`` it is that
    of the codes, the means' plus the mean of the posteriors' covariances. It is over all dimensions of all blocks. The terms
    are ``"covariance/off_diagonal"`` and ``"covariance/diagonal"``; their gradient does not hang on the draw. Every KL counts
    as in ``elbo``.

    Kumar, Sattigeri and Balakrishnan, 2018, "Variational inference of disentangled latent concepts from unlabeled
    observations", equations 6 and 7.

    Args:
        kind: ``"I"`` or ``"II"``.
        lambda_od: the weight of the entries off the diagonal, at least 0.
        lambda_d: the weight of the diagonal, at least 0.
        blocks: the latent sites whose covariance it is; None for all that are vectors of real numbers.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`infoplace.Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is not there, or whose
            posterior has no mean or covariance in closed form.
        DataError: a batch of one image.

    >>> import torch
    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z": Block(3)}, {"x": Observation()}), (1, 8, 8))
    >>> terms = DipVae(kind="II").terms(pair.model, pair.guide, pair.partition.observe(torch.zeros(4, 1, 8, 8)))
    >>> sorted(terms)
    ['covariance/diagonal', 'covariance/off_diagonal', 'kl/z', 'log_likelihood/x', 'loss']
    """

    def __init__(
        self,
        kind: str = "I",
        lambda_od: float = 10.0,
        lambda_d: float = 10.0,
        blocks: Sequence[str] | None = None,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        check(self, "kind", kind in ("I", "II"), "'I' or 'II'", kind)
        self.kind = kind
        self.lambda_od: float = amount(self, "lambda_od", lambda_od)
        self.lambda_d: float = amount(self, "lambda_d", lambda_d)
        self.blocks = check_blocks(self, blocks)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """The terms of ``elbo``, and the two distances at their weights."""
        found = read_codes(self, evidence, self.blocks)
        covariances = [self._covariance(codes) for codes in found]
        off = 1 - torch.eye(covariances[0].shape[-1], dtype=covariances[0].dtype, device=covariances[0].device)
        distances = [
            ((one * off).square().sum((-2, -1)), (one.diagonal(dim1=-2, dim2=-1) - 1).square().sum(-1))
            for one in covariances
        ]
        name = next(iter(found[0]))
        off_diagonal, diagonal = (over_batch(evidence, name, values) for values in zip(*distances, strict=True))
        return {
            **evidence.likelihood_terms(),
            **evidence.kl_terms(1.0),
            "covariance/off_diagonal": Term(off_diagonal, self.lambda_od),
            "covariance/diagonal": Term(diagonal, self.lambda_d),
        }

    def _covariance(self, codes: dict[str, Code]) -> Tensor:
        """`[particles, dims of all, dims of all]`."""
        moments = [code.moments() for code in codes.values()]
        means = torch.cat([mean for mean, _ in moments], dim=-1)
        centred = means - means.mean(1, keepdim=True)
        # Without autocast, whose few digits are for networks.
        with torch.autocast(means.device.type, enabled=False):
            covariance = centred.transpose(1, 2) @ centred / means.shape[1]
        if self.kind == "II":
            inner = [covariances.mean(1) for _, covariances in moments]
            covariance = covariance + torch.stack(
                [torch.block_diag(*(one[particle] for one in inner)) for particle in range(len(covariance))]
            )
        return covariance


KERNELS = ("rbf", "imq")


@register_objective("info_vae")
class InfoVae(Objective):
    """The bound whose KL is moved over to the whole batch's codes, as a maximum mean discrepancy from the prior.

    ``-log p(x|z) + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + lambda - 1) MMD(q(z), p(z))``.

    ``MMD = E k(z, z') - 2 E k(z, p) + E k(p, p')`` is the squared maximum mean discrepancy between the codes of the batch and as
    many draws ``p`` from the prior, over all dimensions of all blocks together, times the images; the term is ``"mmd"``. The
    kernel is ``exp(-d^2 / 2 h^2)`` (``"rbf"``) or ``2 h^2 / (2 h^2 + d^2)`` (``"imq"``) of the distance d. The default bandwidth
    ``h^2 = dims`` makes ``2 h^2`` the expected squared distance of two draws from a standard normal. ``alpha=1`` is the MMD-VAE,
    which has no KL; ``alpha=0, lambda_=1`` is the ELBO.

    Draws from the prior are constants: a prior that is learned learns from its KL. Where model and guide are called with a
    dict of observations, as an infoplace pair is, the prior is drawn from by running the model, so that a prior that hangs on
    a class is drawn with its class; of other models, the prior of each block is taken as the run left it.

    Zhao, Song and Ermon, 2019, "InfoVAE: balancing learning and inference in variational autoencoders", equation 6 and section
    3.2 (MMD); the bandwidth of ``"imq"`` is that of Tolstikhin et al., 2018, "Wasserstein auto-encoders", section 4.

    Args:
        alpha: how much of the KL is taken away, at most 1.
        lambda_: the weight of the divergence between codes and prior; at least ``1 - alpha``.
        kernel: ``"rbf"`` or ``"imq"``.
        bandwidth: h, above 0, in the codes' units; None for the square root of the number of dimensions.
        biased: count the pairs of a code with itself: never negative then, and above 0 on average where codes and prior agree.
        blocks: the latent sites to match; None for all that are vectors of real numbers.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`infoplace.Objective`.

    Raises:
        DeclarationError: a parameter out of its range; when it is first evaluated, a block that is not there.
        DataError: a batch of one image.

    >>> import torch
    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z": Block(3)}, {"x": Observation()}), (1, 8, 8))
    >>> objective = InfoVae(alpha=1.0, lambda_=100.0, kernel="imq")
    >>> sorted(objective.terms(pair.model, pair.guide, pair.partition.observe(torch.zeros(4, 1, 8, 8))))
    ['kl/z', 'log_likelihood/x', 'loss', 'mmd']
    """

    def __init__(
        self,
        alpha: float = 0.0,
        lambda_: float = 1000.0,
        kernel: str = "rbf",
        bandwidth: float | None = None,
        biased: bool = False,
        blocks: Sequence[str] | None = None,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        check(self, "alpha", is_finite(alpha) and alpha <= 1, "a finite number, at most 1", alpha)
        enough = is_finite(lambda_) and lambda_ >= 1 - alpha
        check(self, "lambda_", enough, f"a finite number, at least 1 - alpha = {1 - alpha:g}", lambda_)
        check(self, "kernel", kernel in KERNELS, "'rbf' or 'imq'", kernel)
        wide = bandwidth is None or (is_finite(bandwidth) and bandwidth > 0)
        check(self, "bandwidth", wide, "a finite number above 0, or None", bandwidth)
        check(self, "biased", isinstance(biased, bool), "True or False", biased)
        self.alpha = float(alpha)
        self.lambda_ = float(lambda_)
        self.kernel = kernel
        self.bandwidth = None if bandwidth is None else float(bandwidth)
        self.biased = biased
        self.blocks = check_blocks(self, blocks)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """Every log-likelihood at weight -1, every KL at ``1 - alpha`` times the site's own beta, and the discrepancy."""
        found = read_codes(self, evidence, self.blocks)
        values = [self._discrepancy(join(codes), _prior_draws(evidence, codes)) for codes in found]
        return {
            **evidence.likelihood_terms(),
            **evidence.kl_terms(1 - self.alpha),
            "mmd": Term(over_batch(evidence, next(iter(found[0])), values), self.alpha + self.lambda_ - 1),
        }

    def _discrepancy(self, codes: Tensor, draws: Tensor) -> Tensor:
        """`[particles]`, of two sets of codes `[particles, images, dims]`."""
        width = float(codes.shape[-1]) if self.bandwidth is None else self.bandwidth**2
        within = [self._mean(kernel(self.kernel, squared_distances(one, one), width)) for one in (codes, draws)]
        across = kernel(self.kernel, squared_distances(codes, draws), width).mean((-2, -1))
        return within[0] - 2 * across + within[1]

    def _mean(self, gram: Tensor) -> Tensor:
        if self.biased:
            return gram.mean((-2, -1))
        count = gram.shape[-1]
        return (gram.sum((-2, -1)) - count) / (count * (count - 1))


@torch.no_grad()
def _prior_draws(evidence: Evidence, codes: dict[str, Code]) -> Tensor:
    """As many draws from the prior as there are codes, `[particles, images, dims of all]`."""
    if not evidence.source.observations:
        for name, code in codes.items():
            if code.prior.batch_shape != code.latent.kl.shape:
                raise DeclarationError(
                    f"{label(code.objective)}: the prior of {name!r} hangs on a class that is summed over, and a model can "
                    "only be run to draw from it where it is called with one dict of observations; leave the block out "
                    "with blocks=[...]"
                )
        return torch.cat([code.by_image(code.prior.sample()) for code in codes.values()], dim=-1)
    priors = evidence.source.likelihoods({}, codes)
    shapes = {name: code.value.shape for name, code in codes.items()}
    return torch.cat([priors[name].sample(shape[:1]).reshape(shape) for name, shape in shapes.items()], dim=-1)


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """`[..., i, j]` between `[..., i, dims]` and `[..., j, dims]`, from differences: a product of matrices would lose digits."""
    return (left.unsqueeze(-2) - right.unsqueeze(-3)).square().sum(-1)


def kernel(name: str, squared: Tensor, width: float | Tensor) -> Tensor:
    """A kernel of squared distances; ``width`` is the squared bandwidth, and the kernel is 1 at distance 0."""
    if name == "rbf":
        return torch.exp(-squared / (2 * width))
    return 2 * width / (2 * width + squared)
