"""A partition and networks make a pair: a Pyro model and its guide, and what people do with them."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import Predictive
from pyro.params import param_with_module_name
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace.distributions import make_likelihood, make_prior
from infoplace.errors import DataError, DeclarationError, RunFolderError, check_keys, did_you_mean, join_names
from infoplace.files import make_folder, read_tensors, replacing, tensor_bytes
from infoplace.missing import leave_out
from infoplace.modes import evaluating
from infoplace.names import READ_SUFFIX, class_name
from infoplace.networks import Network, make_network
from infoplace.partition import Block, Covariate, Partition, Shapes

__all__ = ["Pair", "load_pair", "make_pair"]

Networks = str | Network | Mapping[str, Any]
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


class _Model(_Named):
    """``p(blocks) p(observations | blocks)``."""

    def __init__(
        self,
        partition: Partition,
        shapes: Mapping[str, tuple[int, ...]],
        decoders: Mapping[str, nn.Module],
        guide: _Guide,
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


class _Guide(_Named):
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

    def __init__(self, guide: _Guide, block: str) -> None:
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


def _build_prior(name: str, block: Block, guide: _Guide) -> nn.Module:
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


class Pair(nn.Module):
    """A partition's Pyro model and guide, with the networks inside. Made by :func:`make_pair`.

    ``pair.model`` and ``pair.guide`` are modules for ``pyro.infer.SVI`` or an objective; both take what
    ``pair.partition.observe(batch)`` returns. The pair itself is a module: ``pair.parameters()``, ``pair.to("cuda")``.

    Attributes:
        partition: the declaration.
        data_shape: the shape of one sample, or ``{source: shape}``.
        model: ``p(blocks) p(observations | blocks)``; ``model(None, size=16)`` draws from the prior.
        guide: ``q(blocks | observations)``.
    """

    def __init__(self, partition: Partition, data_shape: Shapes, networks: Networks = "small") -> None:
        super().__init__()
        if not isinstance(partition, Partition):
            raise DeclarationError(f"a pair is made from an ip.Partition; got {type(partition).__name__}")
        shapes = partition.shapes(data_shape)
        self.partition = partition
        self.data_shape: Shapes = (
            {name: tuple(shape) for name, shape in data_shape.items()}
            if isinstance(data_shape, Mapping)
            else tuple(data_shape)
        )
        self.shapes = shapes
        self.networks = _Networks(partition, networks)
        encoders, decoders = self.networks.build(shapes)
        guide = _Guide(partition, shapes, encoders)
        self.model = _Model(partition, shapes, decoders, guide)
        self.guide = guide

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    # ---- reading and generating --------------------------------------------------------------------------------------

    def encode(self, observations: Observations) -> dict[str, TorchDistributionMixin]:
        """The posteriors of all blocks.

        Args:
            observations: what ``partition.observe(batch)`` returned, on the pair's device.

        Returns:
            ``{block: Normal}``, each `[batch, dim]`, differentiable; a distribution of another kind, which an encoder of
            your own returned, as it is.

        Raises:
            DataError: observations that are missing, of another shape, or on another device.

        >>> from infoplace import Block, Observation, Partition, make_pair
        >>> partition = Partition({"z": Block(2)}, {"x": Observation()})
        >>> pair = make_pair(partition, (3, 16, 16))
        >>> pair.encode(partition.observe(torch.zeros(5, 3, 16, 16)))["z"].mean.shape
        torch.Size([5, 2])
        """
        observations, _ = check_observations(self.partition, self.shapes, observations, self)
        posteriors = {name: self.guide.posteriors(name, observations)[0] for name in self.partition.blocks}
        # A vector's normal, as the guide draws it, is handed out as the normals of its dimensions.
        stock = {
            name: isinstance(q, dist.Independent) and isinstance(q.base_dist, dist.Normal)
            for name, q in posteriors.items()
        }
        return {name: q.base_dist if stock[name] else q for name, q in posteriors.items()}

    def classify(self, observations: Observations) -> dict[str, TorchDistributionMixin]:
        """The classes of all blocks whose prior is a mixture: which cluster each sample belongs to.

        Args:
            observations: what ``partition.observe(batch)`` returned, on the pair's device.

        Returns:
            ``{block: Categorical}``, each `[batch]` over the prior's classes, differentiable: ``q(y|x)`` as the block's
            encoder says it, or, where the prior sums ``y`` out, Bayes' rule ``p(y|z)`` at the posterior's mean. Empty where
            no prior is a mixture.

        Raises:
            DataError: observations that are missing, of another shape, or on another device.

        >>> from infoplace import Block, Observation, Partition, make_pair
        >>> partition = Partition({"z": Block(2, prior={"mixture": {"components": 3}})}, {"x": Observation()})
        >>> pair = make_pair(partition, (3, 16, 16))
        >>> pair.classify(partition.observe(torch.zeros(5, 3, 16, 16)))["z"].probs.shape
        torch.Size([5, 3])
        """
        observations, _ = check_observations(self.partition, self.shapes, observations, self)
        found = {}
        for name, block in self.partition.blocks.items():
            if make_prior(block.prior).classes:
                posterior, q_class = self.guide.posteriors(name, observations)
                if q_class is None:
                    prior: Any = self.model.priors[name]
                    q_class = prior.responsibilities(posterior.mean)
                found[name] = dist.Categorical(logits=q_class.logits)
        return found

    def decode(self, latents: Mapping[str, Tensor], observation: str) -> TorchDistributionMixin:
        """An observation's likelihood, given the blocks it hangs on, and the covariates that its decoder reads.

        Args:
            latents: ``{block: [..., dim]}``, and ``{covariate: [batch, *shape]}`` as a batch holds them; leading dimensions
                broadcast. What the observation does not hang on may be there or not.
            observation: its name.

        Returns:
            A distribution over the observation's shape, differentiable.

        Raises:
            DeclarationError: an unknown observation.
            DataError: a block that is missing or has another size.
        """
        self._check_observation(observation)
        needed = self.partition.observations[observation].blocks or ()
        self._check_latents(latents, needed)
        covariates = self.partition.covariates_into(observation)
        given = self._covariates({name: latents[name] for name in covariates if name in latents}, covariates)
        return self.model.likelihood(observation, {**latents, **given})

    @torch.no_grad()
    def reconstruct(self, observations: Observations, sample: bool = False) -> dict[str, Tensor]:
        """What the pair makes of observations, encoded and decoded; in evaluation mode, without gradients.

        Args:
            observations: what ``partition.observe(batch)`` returned.
            sample: decode a draw from the posteriors instead of their means.

        Returns:
            ``{observation: [batch, *shape]}``: the mean of each likelihood (for classes, the likeliest).
        """
        return self.resample(observations, blocks=(), sample=sample)

    @torch.no_grad()
    def resample(self, observations: Observations, blocks: Sequence[str], sample: bool = False) -> dict[str, Tensor]:
        """As :meth:`reconstruct`, with some blocks drawn from their prior instead: the paper's swap test.

        Args:
            observations: what ``partition.observe(batch)`` returned.
            blocks: the blocks to draw from their prior.
            sample: decode a draw from the posteriors of the other blocks instead of their means.

        Returns:
            ``{observation: [batch, *shape]}``: the mean of each likelihood.

        Raises:
            DeclarationError: an unknown block.
        """
        if isinstance(blocks, str):
            raise DeclarationError(f"blocks is a list of names; write blocks=({blocks!r},)")
        for block in blocks:
            self._check_block(block)
        with evaluating(self):
            posteriors = self.encode(observations)
            latents = {name: q.sample() if sample else q.mean for name, q in posteriors.items()}
            for block in blocks:
                latents[block] = self.sample_prior(block, latents[block].shape[0])
            return self._points({**latents, **self.model.covariates(observations)})

    @torch.no_grad()
    def sample(self, size: int, /, **held: Tensor) -> dict[str, Tensor]:
        """Generate from the prior, some blocks held; in evaluation mode, without gradients.

        Args:
            size: how many.
            held: ``block=[size, dim]`` or ``[1, dim]``: the blocks not to draw; and every covariate, ``[size, *shape]`` or
                ``[1, *shape]``, as a batch holds it.

        Returns:
            ``{observation: [size, *shape]}``: the mean of each likelihood.

        Raises:
            DeclarationError: an unknown block.
            DataError: a held block of another size.

        >>> from infoplace import Block, Observation, Partition, make_pair
        >>> pair = make_pair(Partition({"z": Block(2)}, {"x": Observation()}), (3, 16, 16))
        >>> pair.sample(4, z=torch.zeros(1, 2))["x"].shape
        torch.Size([4, 3, 16, 16])
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise DeclarationError(f"sample(size) takes a whole number of at least 1; got {size!r}")
        given = self._covariates(
            {name: held.pop(name) for name in self.partition.covariates if name in held},
            self.partition.covariates,
            size,
        )
        for name in held:
            self._check_block(name)
        self._check_latents(held, tuple(held))
        for name, value in held.items():
            if value.ndim != 2 or value.shape[0] not in (1, size):
                raise DataError(
                    f"{name} is held at shape {list(value.shape)}; sample({size}) takes [{size}, dim] or [1, dim]"
                )
        with evaluating(self):
            latents = {
                name: held[name].expand(size, -1) if name in held else self.sample_prior(name, size)
                for name in self.partition.blocks
            }
            return self._points({**latents, **given})

    @torch.no_grad()
    def sample_prior(self, block: str, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of one block from its prior, `[size, dim]`, on the pair's device.

        Args:
            block: its name.
            size: how many.
            generator: seeds the draw; left out, torch's global state is used.
        """
        self._check_block(block)
        if generator is None:
            return self.model.priors[block]().sample((size,))
        # Distributions take no generator, so one draw of it seeds a fork of the global state.
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        with seeded(seed, self.device):
            return self.model.priors[block]().sample((size,))

    def predictive(self, num_samples: int, parallel: bool = False) -> Predictive:
        """Posterior predictive draws: ``pair.predictive(100)(observations)``.

        Returns:
            A ``pyro.infer.Predictive`` that maps observations to ``{site: [num_samples, batch, *shape]}`` for every
            block and observation, drawn anew (not the data handed back). ``parallel=True`` draws all at once, which is
            faster and takes ``num_samples`` times the memory.
        """
        return Predictive(
            poutine.uncondition(self.model),
            guide=self.guide,
            num_samples=num_samples,
            return_sites=(*self.partition.blocks, *self.partition.observations),
            parallel=parallel,
        )

    def _points(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        points = {}
        for name, observation in self.partition.observations.items():
            likelihood = self.model.likelihood(name, latents)
            points[name] = make_likelihood(observation.likelihood).point(likelihood)
        return points

    def _check_block(self, name: str) -> None:
        if name not in self.partition.blocks:
            raise DeclarationError(
                f"there is no block {name!r}.{did_you_mean(name, self.partition.blocks)} "
                f"The blocks are {join_names(self.partition.blocks)}"
            )

    def _check_observation(self, name: str) -> None:
        if name not in self.partition.observations:
            raise DeclarationError(
                f"there is no observation {name!r}.{did_you_mean(name, self.partition.observations)} "
                f"The observations are {join_names(self.partition.observations)}"
            )

    def _check_latents(self, latents: Mapping[str, Tensor], needed: Sequence[str]) -> None:
        for name in needed:
            dim = self.partition.blocks[name].dim
            value = latents.get(name)
            if value is None:
                raise DataError(
                    f"the latents hold {join_names(latents)} and not {name!r}, which is needed: [batch, {dim}]"
                )
            if not isinstance(value, Tensor):
                raise DataError(
                    f"{name} must be a tensor [batch, {dim}]; got {type(value).__name__} (its .mean, perhaps?)"
                )
            if value.ndim < 2 or value.shape[-1] != dim:
                raise DataError(f"{name} must be [batch, {dim}]; got {list(value.shape)}")
            if value.dtype != next(self.parameters()).dtype:
                own = str(next(self.parameters()).dtype)
                raise DataError(f"{name} is {value.dtype} and the pair {own}; convert it: {name}.to({own})")
            if value.device != self.device:
                raise DataError(
                    f"{name} is on {value.device} and the pair on {self.device}; move it: {name}.to(pair.device)"
                )

    def _covariates(
        self, given: Mapping[str, Tensor], needed: Mapping[str, Covariate], size: int | None = None
    ) -> dict[str, Tensor]:
        """What networks read of covariates, checked; for ``size`` samples, where that is said."""
        found = {}
        for name, covariate in needed.items():
            example = ["batch" if size is None else size, *covariate.shape]
            if name not in given:
                raise DataError(
                    f"the covariate {name!r} is not given, and nothing generates it; pass it too: {name}=tensor {example}"
                )
            value = given[name]
            if (
                not isinstance(value, Tensor)
                or value.ndim != 1 + len(covariate.shape)
                or value.shape[1:] != covariate.shape
            ):
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise DataError(f"the covariate {name!r} must be {example}; got {got}")
            if size is not None and len(value) not in (1, size):
                raise DataError(f"the covariate {name!r} has {len(value)} samples; sample({size}) takes {size} or 1")
            covariate.check(value, name)
            encoded = covariate.encode(value.to(self.device))
            found[name] = encoded if size is None else encoded.expand(size, -1)
        return found

    # ---- saving -----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the pair into a folder: ``partition.yaml``, ``weights.safetensors`` and ``pair.json``.

        The folder may exist; a pair in it is replaced, file by file, each at once. Networks of your own are saved by
        their weights; :func:`load_pair` asks for them by name.

        Returns:
            The folder.

        Raises:
            RunFolderError: it cannot be written.
        """
        from infoplace import __version__

        folder = make_folder(path)
        weights = tensor_bytes(tensors_of(self))
        shape = self.data_shape
        description = {
            "infoplace": __version__,
            "torch": torch.__version__,
            "pyro": pyro.__version__,
            "python": platform.python_version(),
            "data_shape": {k: list(v) for k, v in shape.items()} if isinstance(shape, Mapping) else list(shape),
            "networks": self.networks.to_spec(),
            "partition": self.partition.to_dict(),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        # All three are written before any of them takes its place, and the description takes it last.
        with (
            replacing(folder / "pair.json") as description_file,
            replacing(folder / "weights.safetensors") as weights_file,
            replacing(folder / "partition.yaml") as partition_file,
        ):
            partition_file.write_text(self.partition.to_yaml(), encoding="utf-8")
            weights_file.write_bytes(weights)
            description_file.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        return folder


def make_pair(partition: Partition, data_shape: Shapes, networks: Networks = "small") -> Pair:
    """Make a partition's Pyro model and guide.

    Args:
        partition: the declaration.
        data_shape: the shape of one sample without the batch, ``(3, 32, 32)``; where the batch is a dict of several
            sources, ``{source: shape}``.
        networks: a registered network (a name, a spec, a :class:`~infoplace.networks.Network`), or
            ``{"encoders": {block: module}, "decoders": {observation: module}}`` in part or whole; the rest is made by
            the network under the key ``"network"``, ``"small"`` where it is left out.
            An encoder is called with what its block reads, each `[N, *shape]`, and returns `[N, 2 * dim]` (means, then
            raw scales, which go through a softplus) or a distribution over `[dim]`. A decoder is called with the joined
            blocks `[N, dims]` and returns the likelihood's raw parameters `[N, *raw_shape]` or a distribution over the
            observation's shape. `N` is the batch times whatever particles or enumerated values there are.

    Returns:
        The pair, on the CPU.

    Raises:
        DeclarationError: a shape that a transform or network cannot take, or a module whose output does not fit.

    >>> from infoplace import Block, Observation, Partition
    >>> pair = make_pair(Partition({"z": Block(8)}, {"x": Observation()}), data_shape=(3, 32, 32))
    >>> pair.model(None, size=2)["x"].shape
    torch.Size([2, 3, 32, 32])
    """
    return Pair(partition, data_shape, networks)


def load_pair(path: str | Path, networks: Networks | None = None, device: str | torch.device = "cpu") -> Pair:
    """Load a pair that :meth:`Pair.save` wrote. It trains on as its own.

    Args:
        path: the folder.
        networks: ``{"encoders": {...}, "decoders": {...}}`` with the modules of your own that the pair was made with;
            nothing is ever imported by a name found in the folder.
        device: where to put it: ``"auto"`` (an accelerator if there is one), ``"cpu"`` or ``"cuda"``.

    Raises:
        RunFolderError: a folder that is missing, half-written or of another program.
        DeclarationError: modules of your own are missing (they are named), or do not fit the weights.
    """
    folder = Path(path)
    description_file, weights_file = folder / "pair.json", folder / "weights.safetensors"
    if not folder.is_dir():
        raise RunFolderError(f"there is no folder {folder}; give one that pair.save(...) or infoplace train wrote")
    for file in (description_file, weights_file):
        if not file.is_file():
            there = join_names(sorted(item.name for item in folder.iterdir()))
            raise RunFolderError(f"{folder} holds no {file.name}, so no whole pair was saved there; it holds {there}")
    try:
        description = json.loads(description_file.read_text(encoding="utf-8"))
        shape, spec, digest = (description[key] for key in ("data_shape", "networks", "weights_sha256"))
        partition_spec = description["partition"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{description_file} is not what pair.save(...) writes ({error!r}); save the pair again"
        ) from error
    if hashlib.sha256(weights_file.read_bytes()).hexdigest() != digest:
        raise RunFolderError(
            f"{weights_file} is not the file that pair.json speaks of: it was cut short or changed; save the pair again"
        )
    device = resolve_device(device)
    try:
        data_shape = {k: tuple(v) for k, v in shape.items()} if isinstance(shape, Mapping) else tuple(shape)
        made = {"network": spec["network"], **{role: list(spec[role]) for role in ("encoders", "decoders")}}
    except (KeyError, TypeError) as error:
        raise RunFolderError(
            f"{description_file} is not what pair.save(...) writes ({error!r}); save the pair again"
        ) from error
    partition = Partition.from_dict(partition_spec)
    pair = Pair(partition, data_shape, _Networks.restore(partition, made, networks))
    load_tensors(pair, read_tensors(weights_file)[0], f"the weights in {folder}")
    return pair.to(device)


_ROLES = ("encoders", "decoders", "network")


def _holds_modules(given: Mapping[str, Any]) -> bool:
    inner = [part for part in given.values() if isinstance(part, Mapping)]
    return any(isinstance(module, nn.Module) for part in inner for module in part.values())


class _Networks:
    """Which network makes which encoder and decoder."""

    def __init__(self, partition: Partition, given: Networks) -> None:
        self.partition = partition
        self.own: dict[str, dict[str, nn.Module]] = {"encoders": {}, "decoders": {}}
        if isinstance(given, Mapping) and (set(_ROLES) & set(given) or _holds_modules(given)):
            check_keys(given, _ROLES, "networks")
            self.network = make_network(given.get("network", "small"))
            for role, known in (("encoders", partition.blocks), ("decoders", partition.observations)):
                for name, module in (given.get(role) or {}).items():
                    kind = "block" if role == "encoders" else "observation"
                    if name not in known:
                        raise DeclarationError(
                            f"networks[{role!r}] names {name!r}, and there is no such {kind}.{did_you_mean(name, known)} "
                            f"There are {join_names(known)}"
                        )
                    if not isinstance(module, nn.Module):
                        raise DeclarationError(
                            f"networks[{role!r}][{name!r}] must be a torch.nn.Module; got {type(module).__name__}"
                        )
                    self.own[role][name] = module
        else:
            self.network = make_network(given)

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        read_by: dict[str, dict[str, tuple[int, ...]]] = {}
        outputs_of: dict[str, int] = {}
        for name, block in self.partition.blocks.items():
            reads = {}
            for read in block.reads or ():
                observation = self.partition.observations[read]
                example = make_likelihood(observation.likelihood).round(torch.zeros(1, *shapes[read]))
                reads[read] = tuple(observation.features(example, shapes[read]).shape[1:])
            covariates = self.partition.covariates_into(name)
            reads |= {other: (covariate.width,) for other, covariate in covariates.items()}
            own = self.own["encoders"].get(name)
            prior = make_prior(block.prior)
            outputs = 2 * block.dim + (prior.classes if prior.draws_class else 0)
            if own is None:
                read_by[name], outputs_of[name] = reads, outputs
                continue
            _check_own(
                own,
                [torch.zeros(2, *shape) for shape in reads.values()],
                (outputs,),
                (block.dim,),
                f"the encoder of {name!r}",
                "" if outputs == 2 * block.dim else f"its prior draws a class, whose {prior.classes} logits come last",
            )
        joined_by: dict[str, dict[str, int]] = {}
        raw_shapes: dict[str, tuple[int, ...]] = {}
        for name, observation in self.partition.observations.items():
            joined = {block: self.partition.blocks[block].dim for block in observation.blocks or ()}
            joined |= {other: covariate.width for other, covariate in self.partition.covariates_into(name).items()}
            raw_shape = make_likelihood(observation.likelihood).raw_shape(shapes[name])
            own = self.own["decoders"].get(name)
            if own is None:
                joined_by[name], raw_shapes[name] = joined, raw_shape
                continue
            inputs = torch.zeros(2, sum(joined.values()))
            _check_own(own, [inputs], raw_shape, shapes[name], f"the decoder of {name!r}")
        encoders = self.own["encoders"] | (self.network.encoders(read_by, outputs_of) if read_by else {})
        decoders = self.own["decoders"] | (self.network.decoders(joined_by, raw_shapes) if joined_by else {})
        return (
            {name: encoders[name] for name in self.partition.blocks},
            {name: decoders[name] for name in self.partition.observations},
        )

    def to_spec(self) -> dict[str, Any]:
        return {"network": self.network.to_spec(), **{role: sorted(modules) for role, modules in self.own.items()}}

    @classmethod
    def restore(cls, partition: Partition, spec: Mapping[str, Any], given: Networks | None) -> dict[str, Any]:
        """The ``networks`` argument for a saved spec, with the user's own modules in their places."""
        if given is not None and not (isinstance(given, Mapping) and set(given) <= {"encoders", "decoders"}):
            raise DeclarationError(
                "load_pair takes your own modules as networks={'encoders': {block: module}, 'decoders': {observation: "
                f"module}}; the rest is in the folder. Got {given!r}"
            )
        own = {role: dict((given or {}).get(role) or {}) for role in ("encoders", "decoders")}
        missing = {role: [name for name in spec[role] if name not in own[role]] for role in own}
        if any(missing.values()):
            example = ", ".join(
                f"{role!r}: {{{', '.join(f'{name!r}: ...' for name in names)}}}"
                for role, names in missing.items()
                if names
            )
            raise DeclarationError(
                f"this pair was made with modules of your own, which a folder cannot hold; pass them: "
                f"load_pair(path, networks={{{example}}})"
            )
        surplus = [name for role in own for name in own[role] if name not in spec[role]]
        if surplus:
            raise DeclarationError(
                f"this pair was saved with stock networks for {join_names(surplus)}; leave those out"
            )
        return {"network": spec["network"], **own}


def _check_own(
    module: nn.Module,
    inputs: Sequence[Tensor],
    raw_shape: tuple[int, ...],
    event: tuple[int, ...],
    label: str,
    raw_only: str = "",
) -> None:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    sizes = ", ".join(str(list(value.shape)) for value in inputs)
    try:
        with torch.no_grad(), evaluating(module):
            output = module(*(value.to(device) for value in inputs))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise DeclarationError(f"{label} fails on input of shape {sizes}: {error}") from error
    if isinstance(output, torch.distributions.Distribution) and not raw_only:
        if tuple(output.event_shape) != tuple(event) or tuple(output.batch_shape) != (2,):
            raise DeclarationError(
                f"{label} returns a distribution with batch shape {list(output.batch_shape)} and event shape "
                f"{list(output.event_shape)} for {sizes}; expected [2] and {list(event)} "
                f"(end it with .to_event({len(event)}))"
            )
    elif not isinstance(output, Tensor) or tuple(output.shape) != (2, *raw_shape):
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise DeclarationError(
            f"{label} returns {got} for input of shape {sizes}; expected {[2, *raw_shape]}"
            + (f" ({raw_only})" if raw_only else f", or a distribution over {list(event)}")
        )


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What a module's ``state_dict`` holds, each shared tensor once."""
    kept = module.state_dict().keys()
    named = itertools.chain(module.named_parameters(), module.named_buffers())
    return {name: value for name, value in named if name in kept}


@torch.no_grad()
def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy saved tensors into a module's, in place.

    Raises:
        DeclarationError: they are not those of this module; nothing was copied.
    """
    own = tensors_of(module)
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not there" for name in tensors if name not in own]
    problems += [
        f"{name} is {list(value.shape)} and should be {list(own[name].shape)}"
        for name, value in tensors.items()
        if name in own and value.shape != own[name].shape
    ]
    if problems:
        raise DeclarationError(f"{what} do not fit the partition and networks: {'; '.join(problems[:3])}")
    for name, value in own.items():
        value.copy_(tensors[name])


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that a name means: ``"auto"`` is an accelerator if there is one.

    Raises:
        DeclarationError: no such device, or none here.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise DeclarationError(f"device must be one of 'auto', 'cpu', 'cuda'; got {str(device)!r}")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise DeclarationError("device='cuda', and torch finds no CUDA device here; use device='cpu' or 'auto'")
    return found


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random state set from a seed inside the block, and as it was afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


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
