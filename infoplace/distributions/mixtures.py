"""A mixture as a block's prior: a discrete variable, and three ways of handling it."""

from __future__ import annotations

import math

import torch
from pyro.distributions import Categorical, MixtureSameFamily, Normal, RelaxedOneHotCategorical
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import kl_divergence, register_kl
from torch.distributions.utils import clamp_probs
from torch.nn import functional as F

from infoplace.distributions.likelihoods import bounded_exp, bounded_exp_inverse, check_integer, full_precision
from infoplace.distributions.priors import Prior, register_prior
from infoplace.errors import DeclarationError, did_you_mean, is_finite, join_names

__all__ = ["GumbelSoftmax", "MixturePrior", "StraightThroughGumbelSoftmax"]


_NO_SAMPLES = torch.Size()


class GumbelSoftmax(RelaxedOneHotCategorical):
    """A relaxed class: a point on the simplex, whose KL divergence from another is that of the two classes.

    Its density is the Concrete one (Maddison et al., 2017, equation 10). The KL between two of them is by definition that
    of the categorical distributions they relax, which is what equation 11 of the paper has; a difference of their log
    densities estimates another number.

    Args:
        temperature: above 0, a scalar.
        logits: `[..., classes]`.

    >>> q, p = (GumbelSoftmax(torch.tensor(0.4), logits=torch.tensor(logits)) for logits in ([0.0, 0.0], [0.0, 1.0]))
    >>> round(float(kl_divergence(q, p)), 4)
    0.1201
    """

    def rsample(self, sample_shape: torch.Size = _NO_SAMPLES) -> Tensor:
        # At a low temperature an entry underflows to 0, where the density is no number.
        return clamp_probs(super().rsample(sample_shape))


class StraightThroughGumbelSoftmax(GumbelSoftmax):
    """As :class:`GumbelSoftmax`, with its draws rounded to one class; gradients are those of the relaxed draw.

    The density of a draw is that of the relaxed one that it was rounded from. Pyro has the same, with an autograd function
    whose gradient a traced and compiled loss would lose.

    >>> y = StraightThroughGumbelSoftmax(torch.tensor(0.4), logits=torch.zeros(5, 3)).rsample()
    >>> y.detach().sum(-1)
    tensor([1., 1., 1., 1., 1.])
    """

    def rsample(self, sample_shape: torch.Size = _NO_SAMPLES) -> Tensor:
        relaxed = super().rsample(sample_shape)
        rounded = F.one_hot(relaxed.argmax(-1), relaxed.shape[-1]).to(relaxed)
        draw = relaxed + (rounded - relaxed).detach()
        # A tensor's own attribute goes with it from the guide to the model.
        draw._relaxed = relaxed  # type: ignore[attr-defined]
        return draw

    def sample(self, sample_shape: torch.Size = _NO_SAMPLES) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(getattr(value, "_relaxed", value))


@register_kl(GumbelSoftmax, GumbelSoftmax)
def _kl_of_classes(q: RelaxedOneHotCategorical, p: RelaxedOneHotCategorical) -> Tensor:
    return kl_divergence(Categorical(logits=q.logits), Categorical(logits=p.logits))


WAYS = ("marginal", "enumerate", "gumbel")
_GUMBEL_TEMPERATURE = 0.4


@register_prior("mixture")
class MixturePrior(Prior):
    """A learned mixture of diagonal normals, ``p(z) = sum_y p(z|y) p(y)``: clusters.

    The class ``y`` is handled in one of three ways:

    - ``"marginal"``: it is summed out in the prior, and ``q(y|x)`` is ``p(y|z)`` by Bayes' rule. The block's KL is
      estimated from the draw of ``z``.
    - ``"enumerate"``: it is a latent variable of its own, at the site ``<block>_y``. The block's encoder says ``q(y|x)``
      too, and an objective takes the exact sum over the classes: ``sum_y q(y|x) KL(q(z|x) || p(z|y)) + KL(q(y|x) ||
      p(y))``. The posterior of ``z`` does not depend on ``y``, so decoders run once. Pyro's ``TraceEnum_ELBO`` does the
      same.
    - ``"gumbel"``: as above with a relaxed draw of ``y`` in place of the sum (the paper's way): means and scales of the
      classes are averaged with its entries. ``KL(q(y|x) || p(y))`` is that of the classes, equation 11 of the paper;
      with ``kl="sampled"`` it is that of the relaxed densities.

    The weights start equal; the means start at random, spread so that the whole mixture has about unit variance, as the
    standard normal has. The standard deviations stay between 0.01 and 100.

    Jang et al., 2017, "Categorical reparameterization with Gumbel-Softmax"; Maddison et al., 2017, "The Concrete
    distribution".

    Args:
        components: how many normals are mixed (k), at least 2.
        y: ``"marginal"``, ``"enumerate"`` or ``"gumbel"``.
        y_beta: multiplies the objective's weight on ``KL(q(y|x) || p(y))``, at least 0; not for ``"marginal"``. It travels
            on the site as ``infer={"beta": y_beta}``.
        temperature: of the relaxed draws, above 0; only for ``"gumbel"``, 0.4 if left out.
        final_temperature: what the temperature goes to, geometrically, over ``anneal_steps``; left out, it is constant.
        anneal_steps: over how many runs of the guide in training the temperature goes there; looking at posteriors or at the loss
            without gradients is none.
        straight_through: whether relaxed draws are rounded to one class, their gradients kept.

    Raises:
        DeclarationError: a parameter out of its range, or one that the chosen way of handling ``y`` has no use for.

    >>> MixturePrior(components=3).build(8)().component_distribution.mean.shape
    torch.Size([3, 8])
    >>> MixturePrior(components=3, y="enumerate").build(8).given(torch.tensor([2, 0])).batch_shape
    torch.Size([2])
    """

    components: int = 10
    y: str = "marginal"
    y_beta: float = 1.0
    temperature: float | None = None
    final_temperature: float | None = None
    anneal_steps: int = 0
    straight_through: bool = False

    def __post_init__(self) -> None:
        check_integer(self, "components", least=2, instead="; for one normal use 'standard_normal'")
        if self.y not in WAYS:
            raise DeclarationError(
                f"mixture: y must be one of {join_names(WAYS)}; got {self.y!r}.{did_you_mean(str(self.y), WAYS)}"
            )
        self._check_amount("y_beta", zero=True)
        if self.y == "marginal" and self.y_beta != 1.0:
            raise DeclarationError(
                "mixture: y_beta weighs the KL of y, and y='marginal' has none of its own; leave it out, or say y='enumerate'"
            )
        if self.y == "gumbel":
            if self.temperature is None:
                self._set("temperature", _GUMBEL_TEMPERATURE)
            for name in ("temperature", "final_temperature"):
                if getattr(self, name) is not None:
                    self._check_amount(name)
            check_integer(self, "anneal_steps", least=0)
            if (self.final_temperature is None) != (self.anneal_steps == 0):
                raise DeclarationError(
                    "mixture: final_temperature and anneal_steps go together; give both, as final_temperature=0.1, "
                    "anneal_steps=2000, or neither for a constant temperature"
                )
            if not isinstance(self.straight_through, bool):
                raise DeclarationError(
                    f"mixture: straight_through must be true or false; got {self.straight_through!r}"
                )
            return
        for name, unused in (
            ("temperature", None),
            ("final_temperature", None),
            ("anneal_steps", 0),
            ("straight_through", False),
        ):
            if getattr(self, name) != unused:
                raise DeclarationError(
                    f"mixture: {name} is for relaxed draws of y, and y={self.y!r} draws none; leave it out, or say y='gumbel'"
                )

    def _check_amount(self, field: str, zero: bool = False) -> None:
        value = getattr(self, field)
        if not is_finite(value) or value < 0 or (value == 0 and not zero):
            raise DeclarationError(f"mixture: {field} must be {'at least' if zero else 'above'} 0; got {value!r}")
        self._set(field, float(value))

    @property
    def classes(self) -> int:
        """The number of components."""
        return self.components

    @property
    def draws_class(self) -> bool:
        """Whether ``y`` is a site: unless it is summed out."""
        return self.y != "marginal"

    @property
    def class_beta(self) -> float:
        """``y_beta``."""
        return self.y_beta

    def build(self, dim: int) -> nn.Module:
        self._check_dim(dim)
        return _NormalMixture(self.components, dim, self._relaxed() if self.y == "gumbel" else None)

    def build_class_posterior(self) -> nn.Module:
        return self._relaxed() if self.y == "gumbel" else _Exact()

    def _relaxed(self) -> _Relaxed:
        assert self.temperature is not None  # left out, it was set when the prior was made
        start = self.temperature
        end = start if self.final_temperature is None else self.final_temperature
        return _Relaxed(start, end, self.anneal_steps, self.straight_through)


_SCALES: dict[str, float] = {"least": 0.01, "most": 100.0, "start": 0.8}


class _NormalMixture(nn.Module):
    def __init__(self, components: int, dim: int, relaxed: _Relaxed | None) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(0.6 * torch.randn(components, dim))
        self.raw_scales = nn.Parameter(torch.zeros(components, dim))
        self.classes = _Exact() if relaxed is None else relaxed

    @property
    def scales(self) -> Tensor:
        # 0.6 and 0.8: the variances between and within the components add up to one.
        return bounded_exp(self.raw_scales, **_SCALES)

    def forward(self) -> TorchDistributionMixin:
        return MixtureSameFamily(Categorical(logits=self.logits), Normal(self.means, self.scales).to_event(1))

    def class_prior(self) -> TorchDistributionMixin:
        return self.classes(self.logits)

    def advance(self) -> None:
        """Count a draw of the class, in training."""
        self.classes.advance()

    def given(self, y: Tensor) -> TorchDistributionMixin:
        if y.is_floating_point():
            with full_precision(y):
                return Normal(y @ self.means, y @ self.scales).to_event(1)
        return Normal(self.means[y], self.scales[y]).to_event(1)

    def responsibilities(self, z: Tensor) -> TorchDistributionMixin:
        components = Normal(self.means, self.scales).to_event(1)
        return Categorical(logits=self.logits.log_softmax(-1) + components.log_prob(z.unsqueeze(-2)))

    @torch.no_grad()
    def start_at(self, shares: Tensor, means: Tensor, scales: Tensor) -> None:
        """Set the classes: shares `[k]`, means and scales `[k, dim]`."""
        self.logits.copy_(shares.log())
        self.means.copy_(means)
        self.raw_scales.copy_(bounded_exp_inverse(scales, **_SCALES))


class _Exact(nn.Module):
    """The class as it is: to be drawn, or summed over."""

    def advance(self) -> None:
        """It has no schedule."""

    def forward(self, logits: Tensor) -> TorchDistributionMixin:
        return Categorical(logits=logits)


class _Relaxed(nn.Module):
    """Relaxed draws whose temperature changes with every draw in training."""

    drawn: Tensor

    def __init__(self, start: float, end: float, steps: int, straight_through: bool) -> None:
        super().__init__()
        self.start, self.end, self.steps, self.straight_through = start, end, steps, straight_through
        # Part of the state: a run that is resumed goes on at the temperature that it had.
        self.register_buffer("drawn", torch.zeros(()))

    def temperature(self, like: Tensor) -> Tensor:
        if self.steps == 0:
            return torch.full((), self.start, dtype=like.dtype, device=like.device)
        share = (self.drawn / self.steps).clamp(max=1.0).to(like.dtype)
        return self.start * torch.exp(share * math.log(self.end / self.start))

    def forward(self, logits: Tensor) -> TorchDistributionMixin:
        relaxed = StraightThroughGumbelSoftmax if self.straight_through else GumbelSoftmax
        return relaxed(self.temperature(logits), logits=logits)

    def advance(self) -> None:
        """Count a draw, in training: not where gradients are switched off, for a look at the loss."""
        if self.training and self.steps and torch.is_grad_enabled():
            self.drawn += 1
