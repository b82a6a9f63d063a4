"""Likelihoods and priors, and the distributions behind them.

:class:`DiscretizedLogistic` and :class:`DiscretizedLogisticMixture` are ordinary Pyro distributions over grey values. A
:class:`Likelihood` turns a decoder's raw output into a distribution over the data; a :class:`Prior` builds the module that
gives a block's prior. Both have names, which :func:`make_likelihood` and :func:`make_prior` look up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch
import torch.nn.functional as F
from pyro.distributions import Bernoulli, Categorical, Laplace, MixtureSameFamily, Normal
from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from infoplace.errors import DataError, DeclarationError
from infoplace.registry import Configurable, Description, Registry

__all__ = [
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Likelihood",
    "Prior",
    "describe_likelihood",
    "describe_prior",
    "list_likelihoods",
    "list_priors",
    "make_likelihood",
    "make_prior",
    "register_likelihood",
    "register_prior",
]

_OPEN = 1e12
"""How many bins wide an open tail is taken to be. For scales below 1e7, its far edge then counts for exactly nothing."""

_MOST_BINS = 65536
"""The finest grid (16-bit images): on it, float32 still tells every bin from its neighbours."""


# ---- distributions over grey values ------------------------------------------------------------------------------------


class _Grid(constraints.Constraint):
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
        scaled = _wide(value) * (self.bins - 1)
        nearest = scaled.round().clamp_(0, self.bins - 1)
        return nearest.sub_(scaled).abs_() <= min(self.slack(value.dtype), 0.25)


def _wide(x: Tensor) -> Tensor:
    """``x`` in float64 if that is what it is, and in float32 otherwise: half precision is too coarse for 256 bins."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _check_bins(bins: Any, where: str) -> None:
    if not isinstance(bins, int) or isinstance(bins, bool) or not 2 <= bins <= _MOST_BINS:
        raise DeclarationError(f"{where}: bins must be an integer from 2 to {_MOST_BINS}; got {bins!r}")


def _log_bin(value: Tensor, loc: Tensor, scale: Tensor, bins: int) -> Tensor:
    """Log-probability that a logistic falls into the bin of ``value``.

    With `a` and `b` the standardised upper and lower edge of the bin, `sigmoid(a) - sigmoid(b)` equals
    `sigmoid(a) sigmoid(-b) (1 - exp(b - a))`, whose logarithm neither cancels nor underflows. The first and the last bin
    take the open tails: with the far edge `_OPEN` bins away, the factors that it enters are exactly one.
    """
    last = bins - 1
    index = (_wide(value.detach()) * last).round_()
    loc, scale = _wide(loc), _wide(scale)
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
    loc, scale = _wide(loc), _wide(scale)
    tiny = torch.finfo(loc.dtype).eps / 2
    uniform = torch.rand_like(loc).clamp_(tiny, 1 - tiny)
    return _to_grid(loc + scale * uniform.logit(), bins)


def _to_grid(x: Tensor, bins: int) -> Tensor:
    return (x * (bins - 1)).round().clamp(0, bins - 1) / (bins - 1)


def _clipped_mean(loc: Tensor, scale: Tensor) -> Tensor:
    """The mean of a logistic clipped to [0, 1]: the integral of its survival function, `sigmoid((loc - x) / scale)`."""
    loc, scale = _wide(loc), _wide(scale)
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
        _check_bins(bins, "DiscretizedLogistic")
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
        return _Grid(self.bins)

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
        loc, scale = _wide(self.loc), _wide(self.scale)
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
        index = (_wide(value) * (self.bins - 1)).round()
        below = torch.sigmoid(((index + 0.5) / (self.bins - 1) - _wide(self.loc)) / _wide(self.scale))
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
        _check_bins(bins, "DiscretizedLogisticMixture")
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
        return _Grid(self.bins)

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the components' means, as near as :attr:`DiscretizedLogistic.mean` is."""
        weights = _wide(self.logits).softmax(-1)
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
        return torch.logsumexp(components + _wide(self.logits).log_softmax(-1), -1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own default)
        """Draws `[*sample_shape, *batch_shape]` on the grid."""
        with torch.no_grad():
            chosen = Categorical(logits=_wide(self.logits), validate_args=False).sample(torch.Size(sample_shape))
            shape = (*chosen.shape, self.logits.shape[-1])
            loc, scale = (
                p.expand(shape).gather(-1, chosen.unsqueeze(-1)).squeeze(-1) for p in (self.means, self.scales)
            )
            return _draw(loc, scale, self.bins)


# ---- what both kinds share ---------------------------------------------------------------------------------------------


def _check_integer(configurable: Any, field: str, least: int, instead: str = "") -> None:
    value = getattr(configurable, field)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DeclarationError(
            f"{configurable.spec_name}: {field} must be an integer of at least {least}; got {value!r}{instead}"
        )


# ---- likelihoods -------------------------------------------------------------------------------------------------------


class Likelihood(Configurable):
    """What turns a decoder's raw output into a distribution over one observation.

    A subclass defines :attr:`parameters_per_value` and :meth:`distribution`; one whose values are not simply finite
    floats also :meth:`check`, and :meth:`round`, :meth:`point` and :meth:`encode` where they differ.

    >>> likelihood = make_likelihood("discretized_logistic")
    >>> likelihood.raw_shape((3, 32, 32))
    (6, 32, 32)
    >>> likelihood(torch.zeros(16, 6, 32, 32), (3, 32, 32)).event_shape
    torch.Size([3, 32, 32])
    """

    @property
    def parameters_per_value(self) -> int:
        """How many raw numbers `k` it takes to describe one number of the data."""
        raise NotImplementedError(f"{type(self).__name__} defines no parameters_per_value")

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        """The element-wise distribution, batch shape `[*, *data_shape]`; what a subclass defines.

        Args:
            raw: `[*, k, *data_shape]`, any real numbers, float32 or float64.
            dim: where the `k` is, counted from the end: `raw.unbind(dim)` gives the parameters one by one.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no distribution(self, raw, dim)")

    def raw_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a decoder's output for one sample: the first dimension is `k` times as long as the data's.

        The `k` parameters are `k` contiguous groups along it: `(C, H, W)` gives `(k*C, H, W)`, `(d,)` gives `(k*d,)` and
        `()` gives `(k,)`.

        Args:
            data_shape: a sample's shape.

        Raises:
            DeclarationError: sizes that are not positive integers.
        """
        if not all(isinstance(size, int) and size > 0 for size in data_shape):
            raise DeclarationError(f"{self._name}: a data shape is made of positive integers; got {data_shape!r}")
        first, *rest = data_shape or (1,)
        return (self.parameters_per_value * first, *rest)

    def __call__(self, raw: Tensor, data_shape: tuple[int, ...]) -> TorchDistributionMixin:
        """The distribution that a decoder's output describes.

        Args:
            raw: `[*, *raw_shape(data_shape)]`, any real numbers, of any float type (half precision is widened).
            data_shape: a sample's shape.

        Returns:
            A Pyro distribution with batch shape `[*]` and event shape ``data_shape``.

        Raises:
            DataError: ``raw`` of another shape.
        """
        expected = self.raw_shape(data_shape)
        lead = raw.dim() - len(expected)
        if lead < 0 or tuple(raw.shape[lead:]) != expected:
            raise DataError(
                f"{self._name}: data of shape {tuple(data_shape)} needs raw parameters [..., {', '.join(map(str, expected))}]; "
                f"got shape {tuple(raw.shape)}; let the decoder end in raw_shape(data_shape)"
            )
        groups = _wide(raw).reshape(*raw.shape[:lead], self.parameters_per_value, *data_shape)
        return self.distribution(groups, -1 - len(data_shape)).to_event(len(data_shape))

    def point(self, distribution: TorchDistributionMixin) -> Tensor:
        """The value that stands for a distribution when one has to be shown, `[*, *data_shape]`: its mean."""
        return distribution.mean

    def round(self, x: Tensor) -> Tensor:
        """``x`` moved to the values that the likelihood can score; ``x`` itself where these are all real numbers.

        Args:
            x: `[*, *data_shape]`.
        """
        return x

    def check(self, x: Tensor, name: str) -> None:
        """Check that the likelihood can score ``x``. On a GPU, this waits for it.

        Args:
            x: `[*, *data_shape]`.
            name: what to call ``x`` in the message.

        Raises:
            DataError: not a tensor, the wrong dtype, NaN or infinite values, or values outside the support.
        """
        self._check_floats(x, name)
        self._check_finite(x, name)

    def encode(self, x: Tensor, data_shape: tuple[int, ...]) -> Tensor:
        """``x`` as the features that an encoder reads: ``x`` itself, unless the subclass says otherwise.

        Args:
            x: `[*, *data_shape]`.
            data_shape: a sample's shape.
        """
        return x

    # ---- for subclasses ------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self.spec_name or type(self).__name__

    def _check_floats(self, x: Any, name: str, advice: str = "use x.float()") -> None:
        self._check_tensor(x, name)
        if not x.is_floating_point():
            raise DataError(f"{name}: {self._name} scores floating-point values; got {x.dtype}; {advice}")

    def _check_tensor(self, x: Any, name: str) -> None:
        if not isinstance(x, Tensor):
            raise DataError(f"{name}: expected a torch.Tensor; got a {type(x).__name__}; use torch.as_tensor(x)")

    def _check_finite(self, x: Tensor, name: str) -> None:
        finite = x.isfinite()
        if not finite.all():
            count = int((~finite).sum())
            raise DataError(
                f"{name}: {count} of {x.numel()} values are NaN or infinite; every value must be finite; "
                "torch.nan_to_num(x) replaces them"
            )


Registered = TypeVar("Registered", bound=type[Likelihood])
_likelihoods: Registry[Likelihood] = Registry("likelihood", Likelihood, "infoplace.likelihoods")


@overload
def register_likelihood(
    name: str, implementation: None = None, /, *, overwrite: bool = False
) -> Callable[[Registered], Registered]: ...
@overload
def register_likelihood(name: str, implementation: Registered, /, *, overwrite: bool = False) -> Registered: ...
@overload
def register_likelihood(
    name: str, /, *, alias: str | None = None, overwrite: bool = False, **parameters: Any
) -> Likelihood: ...
def register_likelihood(
    name: str,
    implementation: Any = None,
    /,
    *,
    alias: str | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Any:
    """Configure a known likelihood, or register a new one.

    With parameters, they become what the bare name means from now on, and the configured likelihood is returned. With a
    class (or as a decorator, from the name alone), the class is registered and returned.

    Args:
        name: the likelihood's name.
        implementation: a class derived from :class:`Likelihood`.
        alias: a second name to keep the parameters under, leaving ``name`` as it was.
        overwrite: take a name that another owner holds.
        parameters: the likelihood's parameters.

    Raises:
        DeclarationError: parameters that the likelihood refuses, a name that another owner holds, or a class that is
            not a likelihood.
        UnknownNameError: parameters for an unknown name.

    >>> register_likelihood("discretized_logistic", bins=32, alias="five_bit")
    DiscretizedLogisticLikelihood(bins=32)
    """
    register: Callable[..., Any] = (
        _likelihoods.register
    )  # its overloads leave out the mistakes that it has messages for
    return register(name, implementation, alias=alias, overwrite=overwrite, **parameters)


def make_likelihood(spec: Any, /, **parameters: Any) -> Likelihood:
    """The likelihood that a spec means.

    Args:
        spec: a name, `{name: {parameter: value}}`, or a likelihood (returned as it is).
        parameters: more parameters, which win over the spec's.

    Raises:
        DeclarationError: a spec of another form, or parameters that the likelihood refuses.
        UnknownNameError: an unknown name.

    >>> make_likelihood({"normal": {"scale": 0.1}}).to_spec()
    {'normal': {'scale': 0.1}}
    """
    return _likelihoods.make(spec, **parameters)


def list_likelihoods() -> list[str]:
    """The names of all likelihoods, sorted: stock ones, the session's own, aliases and installed plugins.

    >>> "discretized_logistic" in list_likelihoods()
    True
    """
    return _likelihoods.names()


def describe_likelihood(name: str) -> Description:
    """What a likelihood is and which parameters it takes.

    Raises:
        UnknownNameError: nothing has the name.

    >>> print(describe_likelihood("bernoulli"))
    bernoulli (likelihood): Values 0 and 1; the raw number is the logit of 1.
      from infoplace.distributions.BernoulliLikelihood
    """
    return _likelihoods.describe(name)


def _bounded_exp(raw: Tensor, least: float, most: float, start: float) -> Tensor:
    """A scale between ``least`` and ``most`` that equals ``start`` at raw 0 and follows `start * exp(raw)` near it.

    The logarithm is a sigmoid of ``raw`` with a slope of at most one, so that a wild step of the optimiser neither
    overflows nor ends where there is no gradient.
    """
    low, high = math.log(least), math.log(most)
    at_zero = (math.log(start) - low) / (high - low)
    shift = math.log(at_zero / (1 - at_zero))
    return (torch.sigmoid(raw * (4 / (high - low)) + shift) * (high - low) + low).exp()


class _GreyLikelihood(Likelihood):
    """What the two likelihoods over grey values share."""

    bins: int = 256

    def __post_init__(self) -> None:
        _check_bins(self.bins, self._name)

    def _scale(self, raw: Tensor) -> Tensor:
        return _bounded_exp(raw, least=math.exp(-2) / (self.bins - 1), most=100.0, start=0.15)

    def round(self, x: Tensor) -> Tensor:
        self._check_floats(x, "x", self._advice)
        return _to_grid(_wide(x), self.bins).to(x.dtype)

    def check(self, x: Tensor, name: str) -> None:
        self._check_floats(x, name, self._advice)
        grid = _Grid(self.bins)
        if grid.slack(x.dtype) >= 0.5:
            raise DataError(
                f"{name}: {x.dtype} is too coarse to tell {self.bins} grey values apart; keep the data in torch.float32"
            )
        good = grid.check(x)
        if good.all():
            return
        self._check_finite(x, name)
        last, low, high = self.bins - 1, x.min().item(), x.max().item()
        if low < 0 or high > 1:
            advice = "Clip or rescale: x.clamp(0, 1)"
            if low >= 0 and high <= max(last, 255):
                advice = f"Pixels in 0..{last}? Divide by {last}: x.float() / {last}"
            elif low >= -1 and high <= 1:
                advice = "Values in -1..1? Use (x + 1) / 2"
            raise DataError(
                f"{name}: values must lie in [0, 1] on the grid k/{last}; got {low:.6g} to {high:.6g}. {advice}"
            )
        stray = x[~good].flatten()[0].item()
        raise DataError(
            f"{name}: values must lie in [0, 1] on the grid k/{last}; {int((~good).sum())} of {x.numel()} lie between two "
            f"grid values, {stray:.6g} for one. Round them first: (x * {last}).round() / {last}"
        )

    @property
    def _advice(self) -> str:
        return f"for pixels in 0..{self.bins - 1} use x.float() / {self.bins - 1}"


@register_likelihood("discretized_logistic")
class DiscretizedLogisticLikelihood(_GreyLikelihood):
    """Grey values `k/(bins-1)` in [0, 1], each a discretized logistic with its own mean and scale.

    Two raw numbers a value: `mean = raw + 1/2`, so that raw 0 is mid-grey; and the scale, which is 0.15 at raw 0, follows
    `0.15 * exp(raw)` near it, and stays between `exp(-2)` bins, where all the mass is in one bin already, and 100.

    Args:
        bins: how many grey values there are, from 2 to 65536.

    >>> make_likelihood("discretized_logistic")(torch.zeros(2, 1, 1), (1, 1, 1)).mean
    tensor([[[0.5000]]])
    """

    @property
    def parameters_per_value(self) -> int:
        return 2

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        mean, scale = raw.unbind(dim)
        return DiscretizedLogistic(mean + 0.5, self._scale(scale), bins=self.bins)


@register_likelihood("discretized_logistic_mixture")
class DiscretizedLogisticMixtureLikelihood(_GreyLikelihood):
    """Grey values `k/(bins-1)` in [0, 1], each a mixture of discretized logistics.

    Three times ``components`` raw numbers a value: the logits of the weights, the means and the scales. At raw 0 the
    weights are equal, the means divide [0, 1] evenly (equal means would stay equal), and the scales are 0.15, bounded
    as those of ``discretized_logistic``.

    Args:
        components: how many logistics are mixed, at least 2.
        bins: how many grey values there are, from 2 to 65536.

    >>> make_likelihood("discretized_logistic_mixture").raw_shape((3, 32, 32))
    (45, 32, 32)
    """

    components: int = 5
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_integer(self, "components", least=2, instead="; for one component use 'discretized_logistic'")

    @property
    def parameters_per_value(self) -> int:
        return 3 * self.components

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        logits, means, scales = (
            group.movedim(dim, -1) for group in raw.unflatten(dim, (3, self.components)).unbind(dim - 1)
        )
        spread = (torch.arange(self.components, dtype=raw.dtype, device=raw.device) + 0.5) / self.components
        return DiscretizedLogisticMixture(logits, means + spread, self._scale(scales), bins=self.bins)


class _LocationScaleLikelihood(Likelihood):
    """What normal and laplace share: a mean, and a scale that is fixed or learned."""

    scale: float | None = None

    def __post_init__(self) -> None:
        scale = self.scale
        if scale is None:
            return
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if not number or not 0 < scale < math.inf:
            raise DeclarationError(
                f"{self._name}: scale must be a number above 0, or None to learn one for every value; got {scale!r}"
            )
        self._set("scale", float(scale))

    @property
    def parameters_per_value(self) -> int:
        return 2 if self.scale is None else 1

    def _mean_and_scale(self, raw: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        if self.scale is not None:
            mean = raw.squeeze(dim)
            return mean, torch.full_like(mean, self.scale)
        mean, scale = raw.unbind(dim)
        # An unbounded density would reward a scale of zero wherever the data is constant.
        return mean, _bounded_exp(scale, least=1e-3, most=1e3, start=1.0)


@register_likelihood("normal")
class NormalLikelihood(_LocationScaleLikelihood):
    """Real numbers, each normal around a mean.

    The first raw number of a value is its mean. With a learned scale there is a second: the standard deviation is 1 at
    raw 0, follows `exp(raw)` near it, and stays between 0.001 and 1000, so bring the data to about unit size.

    Args:
        scale: the standard deviation, above 0, in units of the data; None learns one for every value.

    >>> make_likelihood("normal", scale=0.5)(torch.zeros(3), (3,)).base_dist.scale
    tensor([0.5000, 0.5000, 0.5000])
    """

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        return Normal(*self._mean_and_scale(raw, dim))


@register_likelihood("laplace")
class LaplaceLikelihood(_LocationScaleLikelihood):
    """Real numbers, each Laplace-distributed around a mean.

    The raw numbers are those of ``normal``, with the Laplace scale (the mean absolute deviation) in place of the standard
    deviation.

    Args:
        scale: the mean absolute deviation, above 0, in units of the data; None learns one for every value.

    >>> make_likelihood("laplace").raw_shape((3,))
    (6,)
    """

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        return Laplace(*self._mean_and_scale(raw, dim))


@register_likelihood("bernoulli")
class BernoulliLikelihood(Likelihood):
    """Values 0 and 1; the raw number is the logit of 1.

    Its point is the probability of 1.

    >>> make_likelihood("bernoulli").round(torch.tensor([0.2, 0.5]))
    tensor([0., 1.])
    """

    @property
    def parameters_per_value(self) -> int:
        return 1

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        return Bernoulli(logits=raw.squeeze(dim))

    def round(self, x: Tensor) -> Tensor:
        self._check_floats(x, "x")
        return (x >= 0.5).to(x.dtype)

    def check(self, x: Tensor, name: str) -> None:
        self._check_floats(x, name)
        if ((x == 0) | (x == 1)).all():
            return
        self._check_finite(x, name)
        raise DataError(
            f"{name}: bernoulli scores the values 0 and 1 only; got values from {x.min().item():.6g} to "
            f"{x.max().item():.6g}. Round values in [0, 1] with (x >= 0.5).float(), or score grey values with "
            "likelihood='discretized_logistic'"
        )


@register_likelihood("categorical")
class CategoricalLikelihood(Likelihood):
    """Classes 0 to `classes - 1`, as integers; the raw numbers of a value are the classes' logits.

    Its point is the likeliest class; its probabilities are the distribution's ``probs``. An encoder reads classes
    one-hot, along a new first dimension: `(classes, *data_shape)`.

    Args:
        classes: how many there are, at least 2.

    >>> make_likelihood("categorical", classes=3).encode(torch.tensor([0, 2]), ())
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """

    classes: int = 10

    def __post_init__(self) -> None:
        _check_integer(self, "classes", least=2)

    @property
    def parameters_per_value(self) -> int:
        return self.classes

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        return Categorical(logits=raw.movedim(dim, -1))

    def point(self, distribution: TorchDistributionMixin) -> Tensor:
        return distribution.mode

    def check(self, x: Tensor, name: str) -> None:
        self._check_tensor(x, name)
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise DataError(f"{name}: categorical scores integer classes; got {x.dtype}; use x.long()")
        if x.numel() == 0:
            return
        low, high = int(x.min()), int(x.max())
        if low < 0 or high >= self.classes:
            advice = (
                f"say how many there are: {{'categorical': {{'classes': {high + 1}}}}}"
                if low >= 0
                else "number them from 0"
            )
            raise DataError(f"{name}: classes must lie in 0..{self.classes - 1}; got {low} to {high}; {advice}")

    def encode(self, x: Tensor, data_shape: tuple[int, ...]) -> Tensor:
        classes = torch.arange(self.classes, device=x.device).view(-1, *(1 for _ in data_shape))
        return (x.unsqueeze(x.dim() - len(data_shape)) == classes).to(torch.get_default_dtype())


# ---- priors ------------------------------------------------------------------------------------------------------------


class Prior(Configurable):
    """What a block's latent is distributed as before any data is seen. A subclass defines :meth:`build`.

    >>> make_prior("standard_normal").build(64)().event_shape
    torch.Size([64])
    """

    def build(self, dim: int) -> nn.Module:
        """The module whose call without arguments gives the distribution; what a subclass defines.

        Args:
            dim: the block's size.

        Returns:
            A module with all its parameters and buffers; `forward()` gives a Pyro distribution with batch shape `()` and
            event shape `(dim,)`, on the module's device.

        Raises:
            DeclarationError: ``dim`` is not a positive integer.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no build(self, dim)")

    def _check_dim(self, dim: Any) -> None:
        if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
            raise DeclarationError(f"{self.spec_name}: a block's dim must be a positive integer; got {dim!r}")


RegisteredPrior = TypeVar("RegisteredPrior", bound=type[Prior])
_priors: Registry[Prior] = Registry("prior", Prior, "infoplace.priors")


@overload
def register_prior(
    name: str, implementation: None = None, /, *, overwrite: bool = False
) -> Callable[[RegisteredPrior], RegisteredPrior]: ...
@overload
def register_prior(name: str, implementation: RegisteredPrior, /, *, overwrite: bool = False) -> RegisteredPrior: ...
@overload
def register_prior(name: str, /, *, alias: str | None = None, overwrite: bool = False, **parameters: Any) -> Prior: ...
def register_prior(
    name: str,
    implementation: Any = None,
    /,
    *,
    alias: str | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Any:
    """Configure a known prior, or register a new one.

    With parameters, they become what the bare name means from now on, and the configured prior is returned. With a class
    (or as a decorator, from the name alone), the class is registered and returned.

    Args:
        name: the prior's name.
        implementation: a class derived from :class:`Prior`.
        alias: a second name to keep the parameters under, leaving ``name`` as it was.
        overwrite: take a name that another owner holds.
        parameters: the prior's parameters.

    Raises:
        DeclarationError: parameters that the prior refuses, a name that another owner holds, or a class that is not a
            prior.
        UnknownNameError: parameters for an unknown name.

    >>> register_prior("mixture", components=30, alias="thirty_clusters")
    MixturePrior(components=30)
    """
    register: Callable[..., Any] = _priors.register  # its overloads leave out the mistakes that it has messages for
    return register(name, implementation, alias=alias, overwrite=overwrite, **parameters)


def make_prior(spec: Any, /, **parameters: Any) -> Prior:
    """The prior that a spec means.

    Args:
        spec: a name, `{name: {parameter: value}}`, or a prior (returned as it is).
        parameters: more parameters, which win over the spec's.

    Raises:
        DeclarationError: a spec of another form, or parameters that the prior refuses.
        UnknownNameError: an unknown name.

    >>> make_prior({"mixture": {"components": 30}})
    MixturePrior(components=30)
    """
    return _priors.make(spec, **parameters)


def list_priors() -> list[str]:
    """The names of all priors, sorted: stock ones, the session's own, aliases and installed plugins.

    >>> "standard_normal" in list_priors()
    True
    """
    return _priors.names()


def describe_prior(name: str) -> Description:
    """What a prior is and which parameters it takes.

    Raises:
        UnknownNameError: nothing has the name.

    >>> print(describe_prior("mixture"))
    mixture (prior): A learned mixture of diagonal normals: clusters.
      parameter components: int = 10
      from infoplace.distributions.MixturePrior
    """
    return _priors.describe(name)


@register_prior("standard_normal")
class StandardNormalPrior(Prior):
    """Independent standard normals: the paper's prior.

    >>> make_prior("standard_normal").build(2)().mean
    tensor([0., 0.])
    """

    def build(self, dim: int) -> nn.Module:
        self._check_dim(dim)
        return _StandardNormal(dim)


class _StandardNormal(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        # Constants: they follow the module to its device, and stay out of its state.
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.ones(dim), persistent=False)

    def forward(self) -> TorchDistributionMixin:
        return Normal(self.loc, self.scale).to_event(1)


@register_prior("mixture")
class MixturePrior(Prior):
    """A learned mixture of diagonal normals: clusters.

    The weights start equal; the means start at random, spread so that the whole mixture has about unit variance, as the
    standard normal has. The standard deviations stay between 0.01 and 100.

    Args:
        components: how many normals are mixed, at least 2.

    >>> make_prior("mixture", components=3).build(8)().component_distribution.mean.shape
    torch.Size([3, 8])
    """

    components: int = 10

    def __post_init__(self) -> None:
        _check_integer(self, "components", least=2, instead="; for one normal use 'standard_normal'")

    def build(self, dim: int) -> nn.Module:
        self._check_dim(dim)
        return _NormalMixture(self.components, dim)


class _NormalMixture(nn.Module):
    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(0.6 * torch.randn(components, dim))
        self.raw_scales = nn.Parameter(torch.zeros(components, dim))

    def forward(self) -> TorchDistributionMixin:
        # 0.6 and 0.8: the variances between and within the components add up to one.
        components = Normal(self.means, _bounded_exp(self.raw_scales, least=0.01, most=100.0, start=0.8)).to_event(1)
        return MixtureSameFamily(Categorical(logits=self.logits), components)
