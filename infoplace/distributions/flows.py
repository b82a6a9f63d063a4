"""A normalising flow as a block's prior: a density of any shape, learned with the model."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Normal, TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from infoplace.distributions.likelihoods import check_integer, full_precision
from infoplace.distributions.priors import Prior, register_prior
from infoplace.errors import DeclarationError, did_you_mean, import_optional, join_names

__all__ = ["FlowPrior"]

KINDS = ("coupling", "autoregressive")


@register_prior("flow")
class FlowPrior(Prior):
    """A learned normalising flow, ``log p(z) = log N(f(z); 0, 1) + log |det df/dz|``: a density of any shape.

    ``f`` is made of affine transforms, ``z_i * exp(a_i) + b_i``, whose scales and shifts a network says from other
    dimensions of ``z``; from one transform to the next these change places. It starts as the identity, so that the prior
    starts as the standard normal. Each scale stays between 0.001 and 1000.

    - ``"coupling"``: one half of the dimensions, given the other one (Dinh et al., 2017, "Density estimation using Real
      NVP"). Scoring runs every network once, drawing twice.
    - ``"autoregressive"``: each dimension, given those before it (Papamakarios et al., 2017, "Masked autoregressive flow
      for density estimation"), which says more with as many transforms. Scoring runs every network once, drawing once for
      each dimension.

    Objectives score the prior and never draw from it, so that training costs the same either way. The KL of the block is
    estimated from the draw of ``z``. The transforms and their networks are those of zuko, which
    ``pip install 'infoplace[flows]'`` installs.

    Args:
        kind: ``"coupling"`` or ``"autoregressive"``.
        transforms: how many there are, at least 1; a coupling needs 2 to change every dimension given others.
        hidden: the widths of each network's hidden layers.

    Raises:
        DeclarationError: a parameter out of its range.

    >>> prior = FlowPrior(transforms=2, hidden=(16,)).build(3)
    >>> round(prior().log_prob(torch.zeros(3)).item(), 4)
    -2.7568
    >>> prior().rsample((5,)).shape
    torch.Size([5, 3])
    """

    kind: str = "coupling"
    transforms: int = 4
    hidden: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DeclarationError(
                f"flow: kind must be one of {join_names(KINDS)}; got {self.kind!r}.{did_you_mean(self.kind, KINDS)}"
            )
        check_integer(self, "transforms", least=1, instead="; for no transform use 'standard_normal'")
        given: Any = self.hidden
        whole = isinstance(given, (list, tuple)) and all(type(width) is int and width >= 1 for width in given)
        if not whole or not given:
            raise DeclarationError(
                f"flow: hidden must be the widths of the hidden layers, each an integer of at least 1, as [128, 128]; "
                f"got {given!r}"
            )
        self._set("hidden", tuple(given))

    def build(self, dim: int) -> nn.Module:
        """As :meth:`Prior.build` says.

        Raises:
            DeclarationError: ``dim`` is not an integer of at least 2.
            PluginError: zuko is not installed.
        """
        self._check_dim(dim)
        if dim == 1:
            raise DeclarationError(
                "flow: an affine flow of a single dimension is a normal again; give the block 2 dimensions or more, or "
                "use prior={'mixture': {'components': 10}}"
            )
        zuko = _zuko()
        passes = 2 if self.kind == "coupling" else dim
        ascending = torch.arange(dim)
        # A coupling is autoregressive in two steps. Unlike zuko's own, this one looks no mask up while it runs, which
        # would make a GPU wait and could not be compiled.
        layers = [
            zuko.flows.MaskedAutoregressiveTransform(
                dim,
                passes=passes,
                order=ascending if index % 2 == 0 else ascending.flip(0),
                hidden_features=self.hidden,
            )
            for index in range(self.transforms)
        ]
        for layer in layers:
            nn.init.zeros_(layer.hyper[-1].weight)
            nn.init.zeros_(layer.hyper[-1].bias)
        return _Flow(dim, zuko.lazy.LazyComposedTransform(*layers))


class _Flow(nn.Module):
    def __init__(self, dim: int, transform: nn.Module) -> None:
        super().__init__()
        # Constants: they follow the module to its device, and stay out of its state.
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.ones(dim), persistent=False)
        self.transform = transform

    def forward(self) -> TorchDistributionMixin:
        return _FlowDistribution(Normal(self.loc, self.scale).to_event(1), self.transform())


class _FlowDistribution(TorchDistribution):
    """What a transform maps to ``base``, a distribution over vectors."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - as torch has it
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: TorchDistributionMixin, transform: Any, validate_args: bool | None = None) -> None:
        self.base, self.transform = base, transform
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self.base.rsample(Size(sample_shape))
        with full_precision(drawn):
            return self.transform.inv(drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        with full_precision(value):
            mapped, log_determinant = self.transform.call_and_ladj(value)
            return self.base.log_prob(mapped) + log_determinant

    def expand(self, batch_shape: Any, _instance: Any = None) -> TorchDistributionMixin:
        return _FlowDistribution(self.base.expand(Size(batch_shape)), self.transform, self._validate_args)


def _zuko() -> Any:
    """zuko, imported without what its import changes: it switches the validation of all of torch's distributions off."""
    settings = {name: vars(Distribution)[name] for name in ("_validate_args", "arg_constraints")}
    try:
        return import_optional("zuko", "the prior 'flow'", "zuko", "flows")
    finally:
        for name, value in settings.items():
            setattr(Distribution, name, value)
