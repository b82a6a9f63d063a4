"""A training run as a file: the partition, the networks, the objective, the data and the settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from infoplace.errors import DeclarationError, check_keys, did_you_mean, is_finite, is_whole, join_names
from infoplace.files import read_text, read_yaml
from infoplace.networks import Network, make_network
from infoplace.objectives import Objective, make_objective
from infoplace.pair import Pair, make_pair, seeded
from infoplace.partition import Partition
from infoplace.registry import plain

__all__ = ["Factor", "Recipe", "Settings", "load_recipe", "shipped_recipes"]

SCHEDULES = ("one_cycle", "cosine", "constant")
PRECISIONS = ("32-true", "bf16-mixed")
AGREEMENT_FITS = ("agreement", "merged_agreement")
MIXTURE_FITS = ("kmeans", "gaussian_mixture", *AGREEMENT_FITS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long and how a pair is trained.

    Args:
        steps: optimiser steps.
        batch_size: samples a step, of each process.
        learning_rate: AdamW's peak learning rate.
        schedule: ``"one_cycle"`` (up over the first tenth, down to nothing by a cosine), ``"cosine"`` (down only) or
            ``"constant"``.
        betas: AdamW's decay rates of the first and second moment.
        weight_decay: AdamW's.
        clip: the largest norm of the gradient of the loss per sample; None does not clip.
        precision: ``"32-true"``, or ``"bf16-mixed"`` for networks in bfloat16, where the hardware is faster at it.
        channels_last: keep images and kernels in memory by pixel, which convolutions on accelerators prefer.
        seed: of the networks' start, the order of the data, the transforms and the samples.
        log_every: steps between two rows of the log.
        checkpoint_every: steps between two checkpoints.
        mixture_start: the step or steps, counted from 0, before which every block whose class is a latent variable gets its
            mixture fitted to its posterior means (:func:`infoplace.clusters.start_mixture`), each time anew; None leaves
            it to the training.
        mixture_fit: by what: ``"kmeans"``, ``"gaussian_mixture"``, or, where an agreement is part of the objective,
            ``"agreement"`` or ``"merged_agreement"``.

    Raises:
        DeclarationError: a value that cannot be.

    >>> Settings(steps=100).schedule
    'one_cycle'
    """

    steps: int = 10_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "one_cycle"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip: float | None = None
    precision: str = "32-true"
    channels_last: bool = False
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 1000
    mixture_start: int | tuple[int, ...] | None = None
    mixture_fit: str = "kmeans"

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "log_every", "checkpoint_every"):
            value = getattr(self, key)
            if not is_whole(value) or value < 1:
                raise DeclarationError(f"{key} must be a whole number of at least 1; got {value!r}")
        if not is_whole(self.seed) or not 0 <= self.seed < 2**32:
            raise DeclarationError(f"seed must be a whole number from 0 to 2**32 - 1; got {self.seed!r}")
        _set_float(self, "learning_rate", above=0.0)
        _set_float(self, "weight_decay", least=0.0)
        if self.clip is not None:
            _set_float(self, "clip", above=0.0)
        starts = self.mixture_starts
        if not all(is_whole(start) and 0 <= start < self.steps for start in starts):
            raise DeclarationError(
                f"mixture_start must be a step, from 0 to below the number of steps ({self.steps}), a list of them, or left "
                f"out; got {self.mixture_start!r}; on the command line, --set mixture_start={self.steps // 4}, "
                f"--set 'mixture_start=[{self.steps // 4}, {self.steps // 2}]' or --set mixture_start=null"
            )
        object.__setattr__(self, "mixture_start", starts or None)
        for key, known in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("mixture_fit", MIXTURE_FITS)):
            value = getattr(self, key)
            if value not in known:
                raise DeclarationError(
                    f"{key} must be one of {join_names(known)}; got {value!r}.{did_you_mean(value, known)}"
                )
        betas = self.betas
        if not isinstance(betas, (tuple, list)) or len(betas) != 2 or not all(_is_rate(beta) for beta in betas):
            raise DeclarationError(f"betas must be two numbers in [0, 1), as [0.9, 0.95]; got {betas!r}")
        object.__setattr__(self, "betas", tuple(float(beta) for beta in betas))
        if not isinstance(self.channels_last, bool):
            raise DeclarationError(f"channels_last must be true or false; got {self.channels_last!r}")

    @property
    def mixture_starts(self) -> tuple[int, ...]:
        """The steps of ``mixture_start``, none for None.

        >>> Settings(mixture_start=100).mixture_starts
        (100,)
        """
        start = self.mixture_start
        return () if start is None else tuple(start) if isinstance(start, (list, tuple)) else (start,)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0.

        >>> Settings(steps=100, learning_rate=1.0).learning_rate_at(10)
        1.0
        """
        progress = step / max(self.steps, 1)
        if self.schedule == "constant":
            return self.learning_rate
        rise = 0.1 if self.schedule == "one_cycle" else 0.0
        if progress < rise:
            return self.learning_rate * (0.04 + 0.96 * progress / rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def _is_rate(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _set_float(settings: Settings, key: str, above: float | None = None, least: float | None = None) -> None:
    value = getattr(settings, key)
    if not is_finite(value) or (above is not None and value <= above) or (least is not None and value < least):
        bound = f"above {above:g}" if above is not None else f"of at least {least:g}"
        raise DeclarationError(f"{key} must be a number {bound}; got {getattr(settings, key)!r}")
    object.__setattr__(settings, key, float(value))


@dataclasses.dataclass(frozen=True)
class Factor:
    """A known factor of the data, and where the declaration means it to go.

    Args:
        block: the block that should carry it; None measures it and expects nothing.
        given: a discrete factor that tells something of this one (polarity of a ground colour): the swap test then also
            holds the score given that factor.
    """

    block: str | None = None
    given: str | None = None

    @classmethod
    def from_spec(cls, name: str, spec: Any) -> Factor:
        """A block's name, ``{block: z_l, given: polarity}``, or None. Raises DeclarationError for anything else."""
        if spec is None or isinstance(spec, str):
            return cls(spec)
        if not isinstance(spec, Mapping):
            raise DeclarationError(
                f"factors: {name} is written as the block that should carry it, as {name}: z_g; got {spec!r}"
            )
        check_keys(spec, ("block", "given"), f"factors: {name}")
        for key, value in spec.items():
            if value is not None and not isinstance(value, str):
                raise DeclarationError(f"factors: {name}: {key} is a name; got {value!r}")
        return cls(**spec)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A whole training run as a file: the partition, the networks, the objective, the data, the settings and the factors.

    ``factors`` says which block each known factor of the data is meant to go to, as ``{"digit": "z_g"}``; training does not
    read it, ``infoplace evaluate`` holds the run against it.

    >>> recipe = Recipe.from_dict({
    ...     "partition": {"blocks": {"z": {"dim": 2}}, "observations": {"x": {}}},
    ...     "objective": {"beta_elbo": {"beta": 4.0}},
    ...     "training": {"steps": 100},
    ... })
    >>> recipe.settings.steps, recipe.objective.beta
    (100, 4.0)
    """

    partition: Partition
    networks: Network | str | Mapping[str, Any] = "small"
    objective: Objective | str | Mapping[str, Any] = "elbo"
    data: str | None = None
    settings: Settings = dataclasses.field(default_factory=Settings)
    factors: Mapping[str, Factor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.factors, Mapping):
            raise DeclarationError(f"a recipe's factors are written as {{digit: z_g, ...}}; got {self.factors!r}")
        factors = {
            str(name): factor if isinstance(factor, Factor) else Factor.from_spec(str(name), factor)
            for name, factor in self.factors.items()
        }
        for name, factor in factors.items():
            if factor.block is not None and factor.block not in self.partition.blocks:
                raise DeclarationError(
                    f"factors: {name} should be carried by {factor.block!r}, and the partition has "
                    f"{join_names(self.partition.blocks)}.{did_you_mean(factor.block, self.partition.blocks)}"
                )
        object.__setattr__(self, "factors", factors)
        if isinstance(self.networks, Mapping) and {"encoders", "decoders"} & set(self.networks):
            raise DeclarationError(
                "a recipe is a file, which cannot hold modules of your own; make the pair with them, train it with "
                "ip.fit(pair, ...) and keep it with pair.save(...)"
            )
        object.__setattr__(self, "networks", make_network(self.networks))
        object.__setattr__(self, "objective", make_objective(self.objective))

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> Recipe:
        """The recipe that plain values mean.

        Raises:
            DeclarationError: an unknown key, or anything that the parts refuse.
        """
        known = ("partition", "networks", "objective", "data", "training", "factors")
        if not isinstance(spec, Mapping):
            raise DeclarationError(f"a recipe is written as {{partition: ..., training: ...}}; got {spec!r}")
        check_keys(spec, known, "a recipe")
        if "partition" not in spec:
            raise DeclarationError("a recipe needs a partition: {blocks: ..., observations: ...}")
        data = spec.get("data")
        if data is not None and not isinstance(data, str):
            raise DeclarationError(f"a recipe's data is a name or a path, as street_numbers/easy; got {data!r}")
        return cls(
            partition=Partition.from_dict(spec["partition"]),
            networks=spec.get("networks", "small"),
            objective=spec.get("objective", "elbo"),
            data=data,
            settings=settings_from(spec.get("training") or {}),
            factors=spec.get("factors") or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, every default resolved."""
        return {
            "partition": self.partition.to_dict(),
            "networks": make_network(self.networks).to_spec(),
            "objective": make_objective(self.objective).to_spec(),
            "data": self.data,
            "training": plain(dataclasses.asdict(self.settings)),
            "factors": {name: dataclasses.asdict(factor) for name, factor in self.factors.items()},
        }

    def make_pair(self, data_shape: Any) -> Pair:
        """The pair, its start drawn from the recipe's seed without touching torch's global state."""
        with seeded(self.settings.seed, torch.device("cpu")):
            return make_pair(self.partition, data_shape, self.networks)


def settings_from(spec: Any) -> Settings:
    """Settings from a recipe's ``training`` section. Raises DeclarationError for an unknown key or a bad value."""
    if not isinstance(spec, Mapping):
        raise DeclarationError(f"a recipe's training is written as {{steps: ..., batch_size: ...}}; got {spec!r}")
    check_keys(spec, [field.name for field in dataclasses.fields(Settings)], "a recipe's training")
    return Settings(**spec)


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        RunFolderError: the file cannot be read.
        DeclarationError: it is not YAML, or not a recipe; the file is named.
    """
    text = read_text(path, "recipe")
    try:
        return Recipe.from_dict(read_yaml(text))
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except DeclarationError as error:
        raise type(error)(f"{path}: {error}") from error


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with infoplace: name to file.

    >>> "experiment1" in shipped_recipes()
    True
    """
    # A wheel holds them beside the modules; a checkout keeps them at its top.
    here = Path(__file__).parent
    folder = next(f for f in (here / "recipes", here.parent / "recipes") if f.is_dir())
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
