"""Priors: what builds the module that gives a block its prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch
from pyro.distributions import Categorical, MixtureSameFamily, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from infoplace.distributions.likelihoods import bounded_exp, check_integer
from infoplace.errors import DeclarationError
from infoplace.registry import Configurable, Description, Registry

__all__ = ["Prior", "describe_prior", "list_priors", "make_prior", "register_prior"]


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
      from infoplace.distributions.priors.MixturePrior
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
        check_integer(self, "components", least=2, instead="; for one normal use 'standard_normal'")

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
        components = Normal(self.means, bounded_exp(self.raw_scales, least=0.01, most=100.0, start=0.8)).to_event(1)
        return MixtureSameFamily(Categorical(logits=self.logits), components)
