"""The Pyro model and guide of a partition, as modules."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.params import param_with_module_name
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace.distributions import make_likelihood, make_prior
from infoplace.errors import DataError, DeclarationError, did_you_mean, join_names
from infoplace.missing import leave_out
from infoplace.modes import evaluating
from infoplace.names import READ_SUFFIX, class_name
from infoplace.partition import Block, Partition

__all__ = ["PLATE", "Observations", "PairGuide", "PairModel", "check_observations"]

Observations = Mapping[str, Tensor]

PLATE = "_batch"
_SCALE_FLOOR = 1e-5
_fresh_number = itertools.count()


class _Named(nn.Module):
    """A module whose parameters Pyro knows under a name no other module of this process has.

    Pairs that shared a name, or a copy that kept its original's, would silently not train under ``pyro.infer.SVI``; so
    the name is drawn anew whenever the module is made, copied or unpickled.
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role
        self._name = f"infoplace.{role}.{next(_fresh_number)}"

    def __getstate__(self) -> dict[str, Any]:
        # Pyro's parameter store leaves a weak reference on what it hands out, which no pickle takes; it is set anew.
        for parameter in self.parameters():
            vars(parameter).pop("unconstrained", None)
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._name = f"infoplace.{self._role}.{next(_fresh_number)}"

    def _register(self) -> None:
        # What pyro.module does, without its warning of every frozen parameter at every step.
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                pyro.param(param_with_module_name(self._name, name), parameter)


class PairModel(_Named):
    """``p(blocks) p(observations | blocks)``."""

    def __init__(
        self,
        partition: Partition,
        shapes: Mapping[str, tuple[int, ...]],
        decoders: Mapping[str, nn.Module],
        guide: PairGuide,
    ) -> None:
        super().__init__("model")
        self.partition = partition
        self.shapes = dict(shapes)
        self.priors = nn.ModuleDict({name: _build_prior(name, b, guide) for name, b in partition.blocks.items()})
        self.decoders = nn.ModuleDict(decoders)

    def forward(self, observations: Observations | None = None, size: int | None = None) -> dict[str, Tensor]:
        """Draw, or score, every block and observation.

        Args:
            observations: what :meth:`Partition.observe` returned; an observation that is left out is drawn. None draws
                all of them.
            size: the number of samples, where nothing is observed.

        Returns:
            The blocks' and the observations' values, and the class ``<block>_y`` of a block whose prior draws one.
        """
        self._register()
        observations, count = check_observations(self.partition, self.shapes, observations, self)
        if count is None and size is None:
            raise DataError("nothing is observed, so say how many to draw: pair.model(None, size=16)")
        if size is not None and size < 1:
            raise DataError(f"size must be at least 1; got {size}")
        if None not in (count, size) and count != size:
            raise DataError(f"size={size}, and the observations hold {count} samples; leave size out")
        given = self.covariates(observations)
        values: dict[str, Tensor] = {}
        with pyro.plate(PLATE, size if count is None else count, dim=-1):
            latents = dict(given)
            for name, block in self.partition.blocks.items():
                prior: Any = self.priors[name]
                spec = make_prior(block.prior)
                if spec.draws_class:
                    site = class_name(name)
                    values[site] = pyro.sample(site, prior.class_prior(), infer={"beta": spec.class_beta})
                    if count is not None:
                        # Draws from the prior alone are no training.
                        prior.advance()
                    distribution = prior.given(values[site])
                else:
                    distribution = prior()
                values[name] = latents[name] = pyro.sample(name, distribution, infer={"beta": block.beta})
            for name, observation in self.partition.observations.items():
                likelihood, value = self.likelihood(name, latents), observations.get(name)
                if observation.missing and value is not None:
                    likelihood, value = leave_out(likelihood, value, name)
                with poutine.scale(scale=observation.weight):
                    values[name] = pyro.sample(name, likelihood, obs=value)
        return values

    def covariates(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What networks read of the covariates, `[batch, width]` each.

        Raises:
            DataError: one that is not there.
        """
        found = {}
        for name, covariate in self.partition.covariates.items():
            if name not in given:
                raise DataError(
                    f"the covariate {name!r} is not given, and nothing generates it; pass it beside the others: "
                    f"{{{name!r}: tensor of shape {['batch', *covariate.shape]}}}"
                )
            found[name] = covariate.encode(given[name])
        return found

    def likelihood(self, name: str, latents: Mapping[str, Tensor]) -> TorchDistributionMixin:
        """``p(observation | its blocks and covariates)``; any leading dimensions before `[batch, dim]` are kept.

        ``latents`` holds the blocks, and the covariates as networks read them.
        """
        observation = self.partition.observations[name]
        needed = (*(observation.blocks or ()), *self.partition.covariates_into(name))
        sizes = [latents[other].shape[:-1] for other in needed]
        try:
            leading = torch.broadcast_shapes(*sizes)
        except RuntimeError as error:
            raise DataError(
                f"the blocks of {name!r} do not go together: their leading shapes are {[list(size) for size in sizes]}"
            ) from error
        joined = torch.cat([latents[other].expand(*leading, latents[other].shape[-1]) for other in needed], dim=-1)
        output = self.decoders[name](joined.reshape(-1, joined.shape[-1]))
        if isinstance(output, torch.distributions.Distribution):
            return _with_leading(output, leading)
        raw = output.reshape(*leading, *output.shape[1:])
        return make_likelihood(observation.likelihood)(raw, self.shapes[name])


class PairGuide(_Named):
    """``q(blocks | what each block reads)``."""

    def __init__(
        self,
        partition: Partition,
        shapes: Mapping[str, tuple[int, ...]],
        encoders: Mapping[str, nn.Module],
    ) -> None:
        super().__init__("guide")
        self.partition = partition
        self.shapes = dict(shapes)
        self.encoders = nn.ModuleDict(encoders)
        priors = {name: make_prior(block.prior) for name, block in partition.blocks.items()}
        self.class_posteriors = nn.ModuleDict(
            {name: prior.build_class_posterior() for name, prior in priors.items() if prior.draws_class}
        )

    def forward(self, observations: Observations, size: int | None = None) -> dict[str, Tensor]:
        """Draw every block, and its class where its prior has one, given what :meth:`Partition.observe` returned.

        ``size`` is there because Pyro calls model and guide alike; the observations already say it.
        """
        self._register()
        observations, count = check_observations(self.partition, self.shapes, observations, self)
        if count is None:
            raise DataError("the guide reads observations; pass what partition.observe(batch) returns")
        values: dict[str, Tensor] = {}
        with pyro.plate(PLATE, count, dim=-1):
            for name in self.partition.blocks:
                posterior, q_class = self.posteriors(name, observations)
                if q_class is not None:
                    infer = {"enumerate": "parallel"} if q_class.has_enumerate_support else {}
                    values[class_name(name)] = pyro.sample(class_name(name), q_class, infer=infer)
                    posterior_of_class: Any = self.class_posteriors[name]
                    posterior_of_class.advance()
                values[name] = pyro.sample(name, posterior)
        return values

    def posteriors(
        self, name: str, observations: Observations
    ) -> tuple[TorchDistributionMixin, TorchDistributionMixin | None]:
        """``q(block | what it reads)``, `[batch]` of vectors `[dim]`; and ``q(its class | what it reads)``, `[batch]`."""
        features = []
        for read in self.partition.blocks[name].reads or ():
            key = self.partition.read_name(read)
            if key not in observations:
                raise DataError(
                    f"block {name!r} reads {key!r}, and the observations hold {join_names(observations)}; "
                    "pass what partition.observe(batch) returns"
                )
            features.append(self.partition.observations[read].features(observations[key], self.shapes[read]))
        for key, covariate in self.partition.covariates_into(name).items():
            if key not in observations:
                raise DataError(
                    f"the encoder of {name!r} reads the covariate {key!r}, and the observations hold "
                    f"{join_names(observations)}; pass what partition.observe(batch) returns"
                )
            features.append(covariate.encode(observations[key]))
        return self.read(name, features)

    def read(
        self, name: str, features: Sequence[Tensor]
    ) -> tuple[TorchDistributionMixin, TorchDistributionMixin | None]:
        """As :meth:`posteriors`, given what the block's encoder reads, each `[batch, *shape]`."""
        output = self.encoders[name](*features)
        if isinstance(output, torch.distributions.Distribution):
            return output, None
        if output.dtype in (torch.bfloat16, torch.float16):
            # Mixed precision is for the networks: its few digits are too coarse for a posterior.
            output = output.float()
        dim = self.partition.blocks[name].dim
        mean, scale, logits = output.split([dim, dim, output.shape[-1] - 2 * dim], dim=-1)
        # Softplus keeps the scale's gradient alive on both sides; it starts near 0.7 for an encoder that says nothing.
        posterior = dist.Normal(mean, F.softplus(scale) + _SCALE_FLOOR).to_event(1)
        return posterior, self.class_posteriors[name](logits) if name in self.class_posteriors else None


class _BlockEncoder:
    """The guide's encoder of one block, for the prior of that block (see ``BlockEncoder``).

    Whatever copies or pickles a pair as a whole meets the guide here as well, and copies it once.
    """

    def __init__(self, guide: PairGuide, block: str) -> None:
        self.guide, self.block = guide, block

    def __call__(self, *inputs: Tensor) -> TorchDistributionMixin:
        with evaluating(self.guide.encoders[self.block]):
            return self.guide.read(self.block, inputs)[0]

    def examples(self, count: int) -> tuple[Tensor, ...]:
        partition, found = self.guide.partition, []
        for read in partition.blocks[self.block].reads or ():
            likelihood, shape = make_likelihood(partition.observations[read].likelihood), self.guide.shapes[read]
            drawn = likelihood(torch.zeros(count, *likelihood.raw_shape(shape)), shape).sample()
            found.append(partition.observations[read].features(drawn, shape))
        for covariate in partition.covariates_into(self.block).values():
            classes = covariate.classes
            value = torch.randn(count, *covariate.shape) if classes is None else torch.randint(classes, (count,))
            found.append(covariate.encode(value))
        return tuple(found)


def _build_prior(name: str, block: Block, guide: PairGuide) -> nn.Module:
    prior = make_prior(block.prior)
    if not prior.reads_encoder:
        return prior.build(block.dim)
    try:
        module = prior.build_on(block.dim, _BlockEncoder(guide, name))
        # An encoder of the user's own may be on its device already; and what the prior cannot use is refused now.
        module.to(next((p.device for p in guide.encoders[name].parameters()), torch.device("cpu")))
        with torch.no_grad():
            module()
    except DeclarationError as error:
        raise DeclarationError(f"block {name!r}: {error}") from error
    return module


def check_observations(
    partition: Partition, shapes: Mapping[str, tuple[int, ...]], observations: Observations | None, module: nn.Module
) -> tuple[Observations, int | None]:
    """The observations and how many samples they hold; names, shapes and device are checked, no value is read."""
    if observations is None:
        return {}, None
    if not isinstance(observations, Mapping):
        raise DataError(
            f"model and guide take what partition.observe(batch) returns, a dict of observations; got "
            f"{type(observations).__name__}"
        )
    parameter = next(module.parameters(), None)
    counts = {}
    for key, value in observations.items():
        if key not in partition.observed_names:
            raise DataError(
                f"there is no observation {key!r}.{did_you_mean(key, partition.observed_names)} "
                f"The observations are {join_names(partition.observed_names)}"
            )
        if key in partition.covariates:
            shape = partition.covariates[key].shape
        else:
            shape = shapes[key] if key in shapes else shapes[key.removesuffix(READ_SUFFIX)]
        if tuple(value.shape) == shape:
            raise DataError(f"{key} is a single sample of shape {list(shape)}; add the batch dimension: {key}[None]")
        if tuple(value.shape[1:]) != shape:
            raise DataError(
                f"{key} has shape {list(value.shape)}, and this pair takes [{', '.join(['batch', *map(str, shape)])}]; "
                "reshape the batch, or make the pair with its data_shape"
            )
        if parameter is not None and value.is_floating_point() and value.dtype != parameter.dtype:
            own, given = (str(dtype).removeprefix("torch.") for dtype in (parameter.dtype, value.dtype))
            raise DataError(f"{key} is {given} and the pair {own}; convert the batch: batch.to(torch.{own})")
        if parameter is not None and value.device != parameter.device:
            raise DataError(
                f"{key} is on {value.device} and the pair on {parameter.device}; move the batch: "
                f"batch.to({str(parameter.device)!r})"
            )
        counts[key] = value.shape[0]
    if not counts:
        return {}, None
    if len(set(counts.values())) > 1:
        raise DataError(f"the observations differ in their number of samples: {counts}")
    count = next(iter(counts.values()))
    if count == 0:
        raise DataError("the batch is empty; give at least one sample")
    return observations, count


def _with_leading(distribution: Any, leading: Sequence[int]) -> Any:
    """A distribution over a flattened batch `[N]`, as one over the leading dimensions that were flattened."""
    if tuple(distribution.batch_shape[:1]) == tuple(leading) and len(leading) == 1:
        return distribution
    flat = tuple(distribution.batch_shape)
    restored = copy.copy(distribution)
    for key, value in vars(distribution).items():
        if isinstance(value, torch.distributions.Distribution):
            restored.__dict__[key] = _with_leading(value, leading)
        elif isinstance(value, Tensor) and tuple(value.shape[: len(flat)]) == flat:
            restored.__dict__[key] = value.reshape(*leading, *value.shape[1:])
    restored._batch_shape = torch.Size((*leading, *flat[1:]))
    return restored
