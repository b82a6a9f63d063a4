"""The discretized logistic and its mixture: ordinary Pyro distributions over grey values."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import Categorical
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from infoplace.errors import DeclarationError, is_whole

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticMixture"]

_OPEN = 1e12
"""How many bins wide an open tail is taken to be. For scales below 1e7, its far edge then counts for exactly nothing."""

_MOST_BINS = 65536
"""The finest grid (16-bit images): on it, float32 still tells every bin from its neighbours."""


class Grid(constraints.Constraint):
    """The values `k / (bins - 1)` in [0, 1], up to the rounding of the value's own dtype."""

    is_discrete = True
    event_dim = 0

    def __init__(self, bins: int) -> None:
        self.bins = bins

    def __repr__(self) -> str:
        return f"Grid(k/{self.bins - 1} in [0, 1])"

    def slack(self, dtype: torch.dtype) -> float:
        """How far from a grid value a number may lie, in bins. At 0.5 or more, ``dtype`` cannot tell bins apart."""
        # Rounding to a dtype moves a number in [0, 1] by at most eps / 4; twice that also allows for one operation on it.
        eps = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
        return max(1e-3, 0.5 * eps * (self.bins - 1))

    def check(self, value: Tensor) -> Tensor:
        """Whether each value lies on the grid; never true of NaN."""
        scaled = wide(value) * (self.bins - 1)
        nearest = scaled.round().clamp_(0, self.bins - 1)
        return nearest.sub_(scaled).abs_() <= min(self.slack(value.dtype), 0.25)


def wide(x: Tensor) -> Tensor:
    """``x`` in float64 if that is what it is, and in float32 otherwise: half precision is too coarse for 256 bins."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def check_bins(bins: Any, where: str) -> None:
    if not is_whole(bins) or not 2 <= bins <= _MOST_BINS:
        raise DeclarationError(f"{where}: bins must be an integer from 2 to {_MOST_BINS}; got {bins!r}")


def _log_bin(value: Tensor, loc: Tensor, scale: Tensor, bins: int) -> Tensor:
    """Log-probability that a logistic falls into the bin of ``value``.

    With `a` and `b` the standardised upper and lower edge of the bin, `sigmoid(a) - sigmoid(b)` equals
    `sigmoid(a) sigmoid(-b) (1 - exp(b - a))`, whose logarithm neither cancels nor underflows. The first and the last bin
    take the open tails: with the far edge `_OPEN` bins away, the factors that it enters are exactly one.
    """
    last = bins - 1
    index = (wide(value.detach()) * last).round_()
    loc, scale = wide(loc), wide(scale)
    # Edges are counted in bins, where they are exact numbers: neighbours then share them to the last bit, and the bins
    # sum to one. relu(...) is 1 in an edge bin and 0 elsewhere. What takes no gradient is updated in place, and signs are
    # chosen so as to negate little: on a CPU, fresh memory costs more here than arithmetic.
    minus_upper = F.relu(index - (last - 1)).mul_(-_OPEN).sub_(index).sub_(0.5)
    lower = F.relu(1 - index).mul_(-_OPEN).add_(index).sub_(0.5)
    inverse = (scale * last).reciprocal()
    minus_a = torch.add(minus_upper, loc, alpha=last) * inverse
    b = torch.add(lower, loc, alpha=-last) * inverse
    inside = torch.expm1(minus_upper.add_(lower) * inverse).neg().log()
    return inside - (F.softplus(minus_a) + F.softplus(b))


def _draw(loc: Tensor, scale: Tensor, bins: int) -> Tensor:
    """One logistic draw for each element, rounded to the grid."""
    loc, scale = wide(loc), wide(scale)
    tiny = torch.finfo(loc.dtype).eps / 2
    uniform = torch.rand_like(loc).clamp_(tiny, 1 - tiny)
    return to_grid(loc + scale * uniform.logit(), bins)


def to_grid(x: Tensor, bins: int) -> Tensor:
    return (x * (bins - 1)).round().clamp(0, bins - 1) / (bins - 1)


def _clipped_mean(loc: Tensor, scale: Tensor) -> Tensor:
    """The mean of a logistic clipped to [0, 1]: the integral of its survival function, `sigmoid((loc - x) / scale)`."""
    loc, scale = wide(loc), wide(scale)
    return (scale * (F.softplus(loc / scale) - F.softplus((loc - 1) / scale))).clamp(0, 1)


class DiscretizedLogistic(TorchDistribution):
    """`P(k/n) = sigmoid(((k + 1/2)/n - mean) / scale) - sigmoid(((k - 1/2)/n - mean) / scale)`, with `n = bins - 1`.

    A logistic distribution rounded to the nearest of the grey values `0, 1/n, ..., 1`; the first and the last take the
    tails. Element-wise: the batch shape is that of ``mean`` and ``scale`` broadcast together, the event shape is `()`.
    The log-probability is exact to float32 rounding, and its gradients are finite and nowhere cut off, however far the
    mean is from the value and however small the scale.

    The parameters are kept as :attr:`loc` and :attr:`scale`; :attr:`mean` is the distribution's mean, which differs from
    ``loc`` near 0 and 1 and outside, where a tail is clipped.

    Args:
        mean: the logistic's location, any real number, in units of the values (black 0, white 1).
        scale: the logistic's scale, above 0, in the same units; one bin is `1/n` wide. The standard deviation of a
            logistic is 1.81 times its scale.
        bins: how many grey values there are, from 2 to 65536; 256 for 8-bit images.
        validate_args: check parameters and values; by default as Pyro is set.

    Raises:
        DeclarationError: ``bins`` out of range.
        ValueError: under validation, a scale that is not positive, a NaN, or a value off the grid (pixels in 0..255).

    The distribution is that of Kingma et al., "Improved variational inference with inverse autoregressive flow" (2016),
    which the paper names as its likelihood.

    >>> grey = DiscretizedLogistic(torch.tensor([0.0, 0.5]), 0.1)
    >>> grey.log_prob(torch.tensor([0.0, 128 / 255]))
    tensor([-0.6834, -4.6251])
    >>> grey.mean
    tensor([0.0693, 0.5000])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012 (torch declares it so)

    def __init__(
        self, mean: Tensor | float, scale: Tensor | float, bins: int = 256, validate_args: bool | None = None
    ) -> None:
        check_bins(bins, "DiscretizedLogistic")
        self.loc, self.scale = broadcast_all(mean, scale)
        self.bins = bins
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """The same distribution with its batch shape expanded to ``batch_shape``."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.loc, new.scale, new.bins = self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.bins
        super(DiscretizedLogistic, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The values `k/(bins - 1)` in [0, 1]."""
        return Grid(self.bins)

    @property
    def mean(self) -> Tensor:
        """The mean, in [0, 1] and differentiable: `scale * (softplus(loc/scale) - softplus((loc - 1)/scale))`.

        This is the mean of the logistic clipped to [0, 1], before it is rounded to the grid. Rounding moves it by less
        than half a bin (the limit of small scales), and by less than a fiftieth of one for scales of a bin and more.
        """
        return _clipped_mean(self.loc, self.scale)

    @property
    def variance(self) -> Tensor:
        """The variance, summed over all bins: exact, at the price of ``2 * bins`` passes over the parameters."""
        last = self.bins - 1
        loc, scale = wide(self.loc), wide(self.scale)
        mean = sum(torch.sigmoid((loc - (k - 0.5) / last) / scale) for k in range(1, self.bins)) / last
        variance = torch.zeros_like(loc)
        for k in range(self.bins):
            value = torch.full_like(loc, k / last)
            variance = variance + (value - mean).square() * _log_bin(value, loc, scale, self.bins).exp()
        return variance

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of grey values in nats, float32 (float64 if the parameters are).

        Args:
            value: `[*sample_shape, *batch_shape]`, numbers `k/(bins - 1)` in [0, 1].

        Raises:
            ValueError: under validation, values off the grid.
        """
        if self._validate_args:
            self._validate_sample(value)
        return _log_bin(value, self.loc, self.scale, self.bins)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of ``value`` or anything darker. Takes what :meth:`log_prob` takes."""
        if self._validate_args:
            self._validate_sample(value)
        index = (wide(value) * (self.bins - 1)).round()
        below = torch.sigmoid(((index + 0.5) / (self.bins - 1) - wide(self.loc)) / wide(self.scale))
        return torch.where(index < self.bins - 1, below, 1.0)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own default)
        """Draws `[*sample_shape, *batch_shape]` on the grid."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            return _draw(self.loc.expand(shape), self.scale.expand(shape), self.bins)


class DiscretizedLogisticMixture(TorchDistribution):
    """`P(k/n) = sum_i softmax(logits)_i DiscretizedLogistic(means_i, scales_i)(k/n)`, components in the last dimension.

    Element-wise: the batch shape is that of ``logits``, ``means`` and ``scales`` broadcast together, less the last
    dimension; the event shape is `()`.

    Args:
        logits: `[*batch_shape, components]`, the unnormalised log-weights.
        means: `[*batch_shape, components]`, the locations, in units of the values.
        scales: `[*batch_shape, components]`, above 0, in the same units.
        bins: how many grey values there are, from 2 to 65536.
        validate_args: check parameters and values; by default as Pyro is set.

    Raises:
        DeclarationError: ``bins`` out of range, or parameters without a dimension of components.
        ValueError: under validation, a scale that is not positive, a NaN, or a value off the grid.

    The form is that of Salimans et al., "PixelCNN++" (2017), each channel on its own.

    >>> grey = DiscretizedLogisticMixture(torch.zeros(2), torch.tensor([0.2, 0.8]), torch.full((2,), 0.01))
    >>> grey.mean
    tensor(0.5000)
    >>> grey.log_prob(torch.tensor([0.2, 0.8]))
    tensor([-3.0187, -3.0187])
    """

    arg_constraints = {  # noqa: RUF012 (torch declares it so)
        "logits": constraints.real_vector,
        "means": constraints.real_vector,
        "scales": constraints.independent(constraints.positive, 1),
    }

    def __init__(
        self, logits: Tensor, means: Tensor, scales: Tensor, bins: int = 256, validate_args: bool | None = None
    ) -> None:
        check_bins(bins, "DiscretizedLogisticMixture")
        self.logits, self.means, self.scales = broadcast_all(logits, means, scales)
        if self.logits.dim() == 0:
            raise DeclarationError(
                "DiscretizedLogisticMixture: logits, means and scales must be [..., components]; got single numbers; "
                "for one component use DiscretizedLogistic"
            )
        self.bins = bins
        super().__init__(self.logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogisticMixture:
        """The same distribution with its batch shape expanded to ``batch_shape``."""
        new = self._get_checked_instance(DiscretizedLogisticMixture, _instance)
        shape = (*batch_shape, self.logits.shape[-1])
        new.logits, new.means, new.scales = (p.expand(shape) for p in (self.logits, self.means, self.scales))
        new.bins = self.bins
        super(DiscretizedLogisticMixture, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The values `k/(bins - 1)` in [0, 1]."""
        return Grid(self.bins)

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the components' means, as near as :attr:`DiscretizedLogistic.mean` is."""
        weights = wide(self.logits).softmax(-1)
        return (weights * _clipped_mean(self.means, self.scales)).sum(-1).clamp(0, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of grey values in nats, float32 (float64 if the parameters are).

        Args:
            value: `[*sample_shape, *batch_shape]`, numbers `k/(bins - 1)` in [0, 1].

        Raises:
            ValueError: under validation, values off the grid.
        """
        if self._validate_args:
            self._validate_sample(value)
        components = _log_bin(value.unsqueeze(-1), self.means, self.scales, self.bins)
        return torch.logsumexp(components + wide(self.logits).log_softmax(-1), -1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own default)
        """Draws `[*sample_shape, *batch_shape]` on the grid."""
        with torch.no_grad():
            chosen = Categorical(logits=wide(self.logits), validate_args=False).sample(torch.Size(sample_shape))
            shape = (*chosen.shape, self.logits.shape[-1])
            loc, scale = (
                p.expand(shape).gather(-1, chosen.unsqueeze(-1)).squeeze(-1) for p in (self.means, self.scales)
            )
            return _draw(loc, scale, self.bins)
