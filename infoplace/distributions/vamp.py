"""The VampPrior: a block's prior as a mixture of its own posteriors."""

from __future__ import annotations

import torch
from pyro.distributions import Categorical, Delta, MixtureSameFamily
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from infoplace.distributions.likelihoods import check_integer
from infoplace.distributions.priors import BlockEncoder, Prior, register_prior
from infoplace.errors import DeclarationError

__all__ = ["VampPrior"]

_EXAMPLES = 64


@register_prior("vamp")
class VampPrior(Prior):
    """A mixture of the block's own posteriors, ``p(z) = 1/K sum_k q(z | u_k)``, at learned pseudo-inputs ``u_k``.

    The prior that is best for the bound is the average of the posteriors over all data; the pseudo-inputs stand for the
    data there (Tomczak and Welling, 2018, "VAE with a VampPrior", equation 9). The block's encoder makes the prior too,
    so what it learns changes both; every step of training encodes the K pseudo-inputs besides the batch. The paper has
    K = 500.

    Pseudo-inputs are what the encoder reads: likelihoods give it their data's values, and classes one-hot. They are real
    numbers without bounds, ``pair.model.priors[block].inputs``, one tensor `[K, *shape]` for each read. They start in the
    middle of the values that the read's likelihood draws at raw 0, with as wide a spread (grey values: around 0.5, with a
    standard deviation of about 0.25), half of whose variance whole channels share, so that they differ in colour and in
    texture. Copy some of the data over them to start from it.

    The encoder reads them in evaluation mode always: batch normalisation learns its statistics from the data alone, and
    the prior has no dropout. The KL of the block is estimated from the draw of ``z``. The class of a sample is which
    pseudo-input its ``z`` belongs to, by Bayes' rule.

    Args:
        components: how many pseudo-inputs there are (K), at least 2.

    Raises:
        DeclarationError: a parameter out of its range.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> partition = Partition({"z": Block(2, prior=VampPrior(components=3))}, {"x": Observation()})
    >>> pair = make_pair(partition, (1, 8, 8))
    >>> pair.model.priors["z"]().component_distribution.mean.shape
    torch.Size([3, 2])
    >>> pair.model.priors["z"].inputs[0].shape
    torch.Size([3, 1, 8, 8])
    """

    components: int = 50

    def __post_init__(self) -> None:
        check_integer(self, "components", least=2, instead="; for one normal use 'standard_normal'")

    @property
    def classes(self) -> int:
        """The number of pseudo-inputs."""
        return self.components

    @property
    def reads_encoder(self) -> bool:
        """True."""
        return True

    def build(self, dim: int) -> nn.Module:
        raise DeclarationError(
            "vamp: this prior is made of a block's encoder, so a pair builds it: ip.make_pair(partition, data_shape); "
            "build_on(dim, encoder) takes an encoder"
        )

    def build_on(self, dim: int, encoder: BlockEncoder) -> nn.Module:
        self._check_dim(dim)
        return _Vamp(self.components, dim, encoder)


class _Vamp(nn.Module):
    def __init__(self, components: int, dim: int, encoder: BlockEncoder) -> None:
        super().__init__()
        self.count, self.dim = components, dim
        self.encoder = encoder
        self.inputs = nn.ParameterList([_spread(components, example) for example in encoder.examples(_EXAMPLES)])
        # A constant: it follows the module to its device, and stays out of its state.
        self.register_buffer("logits", torch.zeros(components), persistent=False)

    def components(self) -> TorchDistributionMixin:
        """``q(z | u_k)``, `[K]` of vectors `[dim]`."""
        q = self.encoder(*self.inputs)
        expected = (self.count,), (self.dim,)
        if isinstance(q, Delta) or (tuple(q.batch_shape), tuple(q.event_shape)) != expected:
            raise DeclarationError(
                f"vamp: the prior mixes the encoder's posteriors of {self.count} pseudo-inputs, which takes densities "
                f"over [{self.dim}]; the encoder returns a {type(q).__name__} with batch shape {list(q.batch_shape)} and "
                f"event shape {list(q.event_shape)}; return Normal(mean, scale).to_event(1), or use another prior"
            )
        return q

    def forward(self) -> TorchDistributionMixin:
        return MixtureSameFamily(Categorical(logits=self.logits), self.components())

    def responsibilities(self, z: Tensor) -> TorchDistributionMixin:
        return Categorical(logits=self.components().log_prob(z.unsqueeze(-2)))


def _spread(components: int, examples: Tensor) -> nn.Parameter:
    """Pseudo-inputs with the mean and the spread of the examples, half of their variance that of whole channels."""
    shape = examples.shape[1:]
    channels = torch.randn(components, *shape[:1], *(1 for _ in shape[1:]))
    noise = (channels + torch.randn(components, *shape)) / 2**0.5
    return nn.Parameter(examples.mean() + examples.std() * noise)
