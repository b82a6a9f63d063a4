"""Likelihoods: what turns a decoder's raw output into a distribution over the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import torch
from pyro.distributions import Bernoulli, Categorical, Laplace, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from infoplace.distributions.grey import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Grid,
    check_bins,
    to_grid,
    wide,
)
from infoplace.errors import DataError, DeclarationError, is_whole
from infoplace.registry import Configurable, Description, Registry

__all__ = [
    "Likelihood",
    "describe_likelihood",
    "list_likelihoods",
    "make_likelihood",
    "register_likelihood",
]


def check_integer(configurable: Any, field: str, least: int, instead: str = "") -> None:
    value = getattr(configurable, field)
    if not is_whole(value) or value < least:
        raise DeclarationError(
            f"{configurable.spec_name}: {field} must be an integer of at least {least}; got {value!r}{instead}"
        )


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
        groups = wide(raw).reshape(*raw.shape[:lead], self.parameters_per_value, *data_shape)
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

    def check_type(self, x: Tensor, name: str) -> None:
        """Check the type of ``x``, without reading its values.

        Args:
            x: `[*, *data_shape]`.
            name: what to call ``x`` in the message.

        Raises:
            DataError: not a tensor, or the wrong dtype.
        """
        if not isinstance(x, Tensor):
            raise DataError(f"{name}: expected a torch.Tensor; got a {type(x).__name__}; use torch.as_tensor(x)")
        if not x.is_floating_point():
            advice = self._type_advice
            raise DataError(f"{name}: {self._name} scores floating-point values; got {x.dtype}; {advice}")

    def check(self, x: Tensor, name: str) -> None:
        """Check that the likelihood can score ``x``. On a GPU, this waits for it.

        Args:
            x: `[*, *data_shape]`.
            name: what to call ``x`` in the message.

        Raises:
            DataError: not a tensor, the wrong dtype, NaN or infinite values, or values outside the support.
        """
        self.check_type(x, name)
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

    @property
    def _type_advice(self) -> str:
        return "use x.float()"

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
      from infoplace.distributions.likelihoods.BernoulliLikelihood
    """
    return _likelihoods.describe(name)


@contextmanager
def full_precision(value: Tensor) -> Iterator[None]:
    """Without autocast on the device of ``value``: its few digits are for networks, not for densities."""
    with torch.autocast(value.device.type, enabled=False):
        yield


def bounded_exp(raw: Tensor, least: float, most: float, start: float) -> Tensor:
    """A scale between ``least`` and ``most`` that equals ``start`` at raw 0 and follows `start * exp(raw)` near it.

    The logarithm is a sigmoid of ``raw`` with a slope of at most one, so that a wild step of the optimiser neither
    overflows nor ends where there is no gradient.
    """
    low, high, shift = _log_range(least, most, start)
    return (torch.sigmoid(raw * (4 / (high - low)) + shift) * (high - low) + low).exp()


def bounded_exp_inverse(scale: Tensor, least: float, most: float, start: float) -> Tensor:
    """The raw value whose :func:`bounded_exp` is ``scale``; a scale outside the bounds is taken just inside."""
    low, high, shift = _log_range(least, most, start)
    share = ((scale.log() - low) / (high - low)).clamp(1e-4, 1 - 1e-4)
    return (share.logit() - shift) * ((high - low) / 4)


def _log_range(least: float, most: float, start: float) -> tuple[float, float, float]:
    low, high = math.log(least), math.log(most)
    at_zero = (math.log(start) - low) / (high - low)
    return low, high, math.log(at_zero / (1 - at_zero))


class _GreyLikelihood(Likelihood):
    """What the two likelihoods over grey values share."""

    bins: int = 256

    def __post_init__(self) -> None:
        check_bins(self.bins, self._name)

    def _scale(self, raw: Tensor) -> Tensor:
        return bounded_exp(raw, least=math.exp(-2) / (self.bins - 1), most=100.0, start=0.15)

    def round(self, x: Tensor) -> Tensor:
        self.check_type(x, "x")
        return to_grid(wide(x), self.bins).to(x.dtype)

    def check(self, x: Tensor, name: str) -> None:
        self.check_type(x, name)
        grid = Grid(self.bins)
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
    def _type_advice(self) -> str:
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
        check_integer(self, "components", least=2, instead="; for one component use 'discretized_logistic'")

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
        return mean, bounded_exp(scale, least=1e-3, most=1e3, start=1.0)


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
        self.check_type(x, "x")
        return (x >= 0.5).to(x.dtype)

    def check(self, x: Tensor, name: str) -> None:
        self.check_type(x, name)
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
        check_integer(self, "classes", least=2)

    @property
    def parameters_per_value(self) -> int:
        return self.classes

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        return Categorical(logits=raw.movedim(dim, -1))

    def point(self, distribution: TorchDistributionMixin) -> Tensor:
        return distribution.mode

    def check_type(self, x: Tensor, name: str) -> None:
        if not isinstance(x, Tensor):
            raise DataError(f"{name}: expected a torch.Tensor; got a {type(x).__name__}; use torch.as_tensor(x)")
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise DataError(f"{name}: categorical scores integer classes; got {x.dtype}; use x.long()")

    def check(self, x: Tensor, name: str) -> None:
        self.check_type(x, name)
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
