"""Priors: what builds the module that gives a block its prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

import torch
from pyro.distributions import Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from infoplace.errors import DeclarationError, is_whole
from infoplace.registry import Configurable, Description, Registry

__all__ = ["BlockEncoder", "Prior", "describe_prior", "list_priors", "make_prior", "register_prior"]


class BlockEncoder(Protocol):
    """A block's own encoder, as :meth:`Prior.build_on` is given it.

    It is no module, so what keeps it as an attribute does not count, save or train the encoder's weights a second time; a
    copy of the pair keeps prior and encoder together.
    """

    def __call__(self, *inputs: Tensor) -> TorchDistributionMixin:
        """``q(z | inputs)``, `[N]` of vectors `[dim]`, differentiable in the inputs and in the encoder's weights.

        The encoder runs in evaluation mode.

        Args:
            inputs: for each read, `[N, *shape]`, what the encoder reads (after ``Likelihood.encode``).
        """

    def examples(self, count: int) -> tuple[Tensor, ...]:
        """What the encoder reads of meaningless data: for each read, `[count, *shape]`, on the CPU.

        They are encoded draws of the read's likelihood at raw 0: of the right shape, in the middle of its values.
        """


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

    @property
    def reads_encoder(self) -> bool:
        """Whether the prior is made of the block's own encoder: then a pair calls :meth:`build_on`, not :meth:`build`."""
        return False

    def build_on(self, dim: int, encoder: BlockEncoder) -> nn.Module:
        """The module as :meth:`build` describes it, for a prior that reads the block's encoder; what such a subclass defines.

        Args:
            dim: the block's size.
            encoder: maps what the block reads to its posterior. Keep it as it is, as a plain attribute.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no build_on(self, dim, encoder)")

    @property
    def classes(self) -> int:
        """How many classes the prior mixes, ``p(z) = sum_y p(z|y) p(y)``; 0 for a prior that is no mixture.

        The module that :meth:`build` makes of such a prior has a method ``responsibilities(z)``, which gives ``p(y|z)``
        as a ``Categorical`` over the classes for ``z`` of shape `[..., dim]`.
        """
        return 0

    @property
    def draws_class(self) -> bool:
        """Whether the class is a latent variable of its own, at a site that model and guide draw.

        The module that :meth:`build` makes of such a prior also has ``class_prior()``, which gives ``p(y)``,
        ``given(y)``, which gives ``p(z|y)`` with the batch shape of ``y``, and ``advance()``, which the model calls after it
        drew a class (for a temperature that falls, say).
        """
        return False

    @property
    def class_beta(self) -> float:
        """What multiplies the objective's weight on ``KL(q(y|x) || p(y))``, for a prior that draws its class."""
        return 1.0

    def build_class_posterior(self) -> nn.Module:
        """The module that maps an encoder's ``logits`` `[..., classes]` to ``q(y|x)``; for a prior that draws its class.

        It has an ``advance()`` too, which the guide calls after it drew a class.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no build_class_posterior(self)")

    def _check_dim(self, dim: Any) -> None:
        if not is_whole(dim) or dim < 1:
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

    >>> register_prior("mixture", components=30, alias="thirty_clusters").components
    30
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

    >>> make_prior({"mixture": {"components": 30}}).components
    30
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
    mixture (prior): A learned mixture of diagonal normals, ``p(z) = sum_y p(z|y) p(y)``: clusters.
      parameter components: int = 10
      parameter y: str = 'marginal'
      parameter y_beta: float = 1.0
      parameter temperature: float | None = None
      parameter final_temperature: float | None = None
      parameter anneal_steps: int = 0
      parameter straight_through: bool = False
      from infoplace.distributions.mixtures.MixturePrior
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
