"""A pair, and how it is made and loaded."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import Predictive
from torch import Tensor, nn

from infoplace.distributions import make_likelihood, make_prior
from infoplace.errors import DataError, DeclarationError, RunFolderError, did_you_mean, is_whole, join_names
from infoplace.files import make_folder, read_tensors, replacing, tensor_bytes
from infoplace.modes import evaluating
from infoplace.pair.making import Networks, PairNetworks
from infoplace.pair.modules import Observations, PairGuide, PairModel, check_observations
from infoplace.pair.tensors import load_tensors, resolve_device, seeded, tensors_of
from infoplace.partition import Covariate, Partition, Shapes

__all__ = ["Pair", "load_pair", "make_pair"]


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
        self.networks = PairNetworks(partition, networks)
        encoders, decoders = self.networks.build(shapes)
        guide = PairGuide(partition, shapes, encoders)
        self.model = PairModel(partition, shapes, decoders, guide)
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
        if not is_whole(size) or size < 1:
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
    pair = Pair(partition, data_shape, PairNetworks.restore(partition, made, networks))
    load_tensors(pair, read_tensors(weights_file)[0], f"the weights in {folder}")
    return pair.to(device)
