"""The declaration: blocks of latent variables, the observations that hang on them, and what the two make together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from infoplace.distributions import Likelihood, Prior, make_likelihood, make_prior
from infoplace.errors import DataError, DeclarationError, check_keys, did_you_mean, is_whole, join_names
from infoplace.files import once_each, read_text, read_yaml
from infoplace.missing import filled, with_known
from infoplace.names import READ_SUFFIX, class_name
from infoplace.transforms import Transform, make_transform

__all__ = ["Block", "Covariate", "Observation", "Partition", "Shapes"]

Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]
"""One data shape, or one for each source."""

_MERMAID_WORDS = frozenset(
    [
        "call",
        "class",
        "classDef",
        "click",
        "default",
        "end",
        "flowchart",
        "graph",
        "href",
        "linkStyle",
        "style",
        "subgraph",
    ]
)
_TAKEN = frozenset(dir(nn.ModuleDict()))
Item = TypeVar("Item")


def _names(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        raise DeclarationError(f"{where} is a list of names; write ({value!r},) for a single one")
    if not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise DeclarationError(f"{where} is a list of names; got {value!r}")
    if not value:
        raise DeclarationError(f"{where} is empty; name at least one, or leave it out for the default")
    repeated = sorted({name for name in value if value.count(name) > 1})
    if repeated:
        raise DeclarationError(f"{where} names {join_names(repeated)} twice")
    return tuple(value)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DeclarationError(f"{where} must be a number; got {value!r}")
    return float(value)


@dataclasses.dataclass(frozen=True)
class Block:
    """A named group of latent dimensions with one prior.

    Args:
        dim: the number of dimensions, at least 1.
        prior: a registered prior: a name, a spec or a :class:`~infoplace.distributions.Prior`.
        beta: multiplies the objective's weight on this block's KL divergence; at least 0. It travels on the block's site
            as ``infer={"beta": beta}``.
        reads: the observations that the block's encoder reads. Left out, the derived observations that hang on the block
            where there are any, otherwise the given ones (the paper's ``q(z_g|x) q(z_l|x_hat)``).

    Raises:
        DeclarationError: a size, weight, prior or name that cannot be.

    >>> Block(64).dim
    64
    """

    dim: int
    prior: Prior | str | Mapping[str, Any] = "standard_normal"
    beta: float = 1.0
    reads: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not is_whole(self.dim) or self.dim < 1:
            raise DeclarationError(f"a block's dim must be a whole number of at least 1; got {self.dim!r}")
        beta = _number(self.beta, "a block's beta")
        if not 0 <= beta < float("inf"):
            raise DeclarationError(f"a block's beta must be at least 0; got {self.beta!r}")
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "prior", make_prior(self.prior))
        if self.reads is not None:
            object.__setattr__(self, "reads", _names(self.reads, "a block's reads"))
        self.to_spec()  # a prior that cannot be written down is refused now, not when a trained pair is saved

    def to_spec(self) -> dict[str, Any]:
        """The block as plain values, every default resolved."""
        return {
            "dim": self.dim,
            "prior": make_prior(self.prior).to_spec(),
            "beta": self.beta,
            "reads": None if self.reads is None else list(self.reads),
        }


@dataclasses.dataclass(frozen=True)
class Observation:
    """What is generated: the data itself, or a transform of it. It hangs on some blocks and has a likelihood.

    Args:
        blocks: the blocks it is generated from; left out, all of them.
        transform: what it is derived by: a name, a spec, a list of them (applied left to right) or a
            :class:`~infoplace.transforms.Transform`. Left out, the observation is given.
        source: the key of the batch it comes from, where the batch is a dict of several given things. Left out, the
            observation's own name.
        of: the observation it is derived from. Left out, the given one, where there is just one.
        likelihood: a registered likelihood: a name, a spec or a :class:`~infoplace.distributions.Likelihood`.
        weight: weights its log-likelihood; above 0.
        missing: values may be missing: NaN among numbers, -1 among classes. They are left out of the likelihood, which sums or
            integrates them out, and an encoder reads 0 for them and, beside the values, which of them are there.
        redraw: draw the transform twice: the guide reads ``<name>_read``, the model explains the other draw, so a latent
            cannot spend itself on what differs between draws.

    Raises:
        DeclarationError: a name, weight or spec that cannot be, or options that contradict each other.

    >>> Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 8}}).weight
    1.0
    """

    blocks: tuple[str, ...] | None = None
    transform: Transform | str | Mapping[str, Any] | Sequence[Any] | None = None
    source: str | None = None
    of: str | None = None
    likelihood: Likelihood | str | Mapping[str, Any] = "discretized_logistic"
    weight: float = 1.0
    redraw: bool = False
    missing: bool = False

    def __post_init__(self) -> None:
        if self.blocks is not None:
            object.__setattr__(self, "blocks", _names(self.blocks, "an observation's blocks"))
        for key in ("source", "of"):
            value = getattr(self, key)
            if value is not None and not isinstance(value, str):
                raise DeclarationError(f"an observation's {key} is one name; got {value!r}")
        if self.source is not None and self.of is not None:
            raise DeclarationError(
                f"an observation has source={self.source!r} and of={self.of!r}; give one: source= takes it from the "
                "batch, of= derives it from another observation"
            )
        if self.of is not None and self.transform is None:
            raise DeclarationError(f"an observation derived of={self.of!r} needs a transform=")
        if not isinstance(self.redraw, bool):
            raise DeclarationError(f"redraw is True or False; got {self.redraw!r}")
        if not isinstance(self.missing, bool):
            raise DeclarationError(f"missing is True or False; got {self.missing!r}")
        if self.redraw and self.transform is None:
            raise DeclarationError("redraw=True draws a transform twice, and this observation has none; add transform=")
        weight = _number(self.weight, "an observation's weight")
        if not 0 < weight < float("inf"):
            raise DeclarationError(f"an observation's weight must be above 0; got {self.weight!r}")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "likelihood", make_likelihood(self.likelihood))
        if self.transform is not None:
            transform = make_transform(self.transform)
            if self.redraw and not transform.stochastic:
                raise DeclarationError(
                    f"redraw=True draws a transform twice, and {transform!r} is not random; leave redraw out"
                )
            object.__setattr__(self, "transform", transform)
        self.to_spec()  # a transform that cannot be written down is refused now, not when a trained pair is saved

    @property
    def derived(self) -> bool:
        """Whether it is computed by a transform, rather than given in the batch."""
        return self.transform is not None

    def to_spec(self) -> dict[str, Any]:
        """The observation as plain values, every default resolved."""
        return {
            "blocks": None if self.blocks is None else list(self.blocks),
            "transform": None if self.transform is None else make_transform(self.transform).to_spec(),
            "source": self.source,
            "of": self.of,
            "likelihood": make_likelihood(self.likelihood).to_spec(),
            "weight": self.weight,
            "redraw": self.redraw,
            "missing": self.missing,
        }

    def features(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """What an encoder reads of its value, `[batch, *shape]`: as the likelihood encodes it, and what is missing of it."""
        likelihood = make_likelihood(self.likelihood)
        if not self.missing:
            return likelihood.encode(value, shape)
        return with_known(likelihood.encode(filled(value), shape), value)


@dataclasses.dataclass(frozen=True)
class Covariate:
    """What networks read and nobody generates: the batch of an experiment, a dose, which camera it was.

    Args:
        classes: how many there are, where it is one of several classes: integers from 0, `[batch]`. Networks read them one-hot.
        dim: how many numbers there are, where it is a vector: floats `[batch, dim]`. With neither, it is one number: floats
            `[batch]`.
        into: the blocks whose encoders read it and the observations whose decoders read it; left out, all of them.
        source: the key of the batch it comes from; left out, its own name.

    Raises:
        DeclarationError: a number or name that cannot be, or both ``classes`` and ``dim``.

    >>> Covariate(classes=3).width, Covariate(dim=2).shape, Covariate().shape
    (3, (2,), ())
    """

    classes: int | None = None
    dim: int | None = None
    into: tuple[str, ...] | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        for key, least in (("classes", 2), ("dim", 1)):
            value = getattr(self, key)
            if value is not None and (not is_whole(value) or value < least):
                raise DeclarationError(f"a covariate's {key} must be a whole number of at least {least}; got {value!r}")
        if self.classes is not None and self.dim is not None:
            raise DeclarationError(
                f"a covariate has classes={self.classes} and dim={self.dim}; give one: classes= for one class of several, "
                "dim= for a vector of numbers"
            )
        if self.into is not None:
            object.__setattr__(self, "into", _names(self.into, "a covariate's into"))
        if self.source is not None and not isinstance(self.source, str):
            raise DeclarationError(f"a covariate's source is one name; got {self.source!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample's value."""
        return () if self.dim is None else (self.dim,)

    @property
    def width(self) -> int:
        """How many numbers a network reads."""
        return self.classes or self.dim or 1

    def encode(self, value: Tensor) -> Tensor:
        """What networks read of values `[batch, *shape]`: `[batch, width]`."""
        if self.classes is None:
            return value.reshape(len(value), self.width)
        return (value.unsqueeze(1) == torch.arange(self.classes, device=value.device)).to(torch.get_default_dtype())

    def check_type(self, value: Tensor, name: str) -> None:
        """Check the type of values, without reading them.

        Raises:
            DataError: floats for classes, or integers for numbers.
        """
        if self.classes is not None and (value.is_floating_point() or value.dtype == torch.bool):
            raise DataError(f"{name}: a covariate's classes are integers; got {value.dtype}; use {name}.long()")
        if self.classes is None and not value.is_floating_point():
            raise DataError(
                f"{name}: a covariate without classes= is made of floats; got {value.dtype}; use {name}.float(), or declare "
                "Covariate(classes=...)"
            )

    def check(self, value: Tensor, name: str) -> None:
        """Check values `[batch, *shape]`.

        Raises:
            DataError: another type, NaN, or a class that is not there.
        """
        self.check_type(value, name)
        if self.classes is None:
            if not value.isfinite().all():
                raise DataError(f"{name}: a covariate's values must be finite; some are NaN or infinite")
        elif not ((value >= 0) & (value < self.classes)).all():
            raise DataError(
                f"{name}: classes are 0 to {self.classes - 1}; got {value.min().item()} to {value.max().item()}"
            )

    def to_spec(self) -> dict[str, Any]:
        """The covariate as plain values, every default resolved."""
        return {
            "classes": self.classes,
            "dim": self.dim,
            "into": None if self.into is None else list(self.into),
            "source": self.source,
        }


class _Frozen(Mapping[str, Item]):
    """A mapping that cannot be changed, and that can be copied, pickled and hashed."""

    def __init__(self, items: Mapping[str, Item]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Item:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


@dataclasses.dataclass(frozen=True)
class Partition:
    """The blocks and the observations: the whole declaration of which latent variable carries which information.

    Frozen and hashable; equality goes by the canonical spec. Names, references and cycles are checked here; shapes when
    a pair is made. What was left out is resolved, so ``partition.observations["x"].blocks`` always says which blocks.

    Args:
        blocks: ``{name: Block}``.
        observations: ``{name: Observation}``.
        covariates: ``{name: Covariate}``; a batch is then a dict that holds them.

    Raises:
        DeclarationError: an unknown, unused, duplicate or bad name, no given observation, a block with nothing to read,
            a cycle of derivations.

    >>> partition = Partition(
    ...     blocks={"z_g": Block(64), "z_l": Block(64)},
    ...     observations={
    ...         "x": Observation(blocks=("z_g", "z_l")),
    ...         "x_hat": Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 8}}),
    ...     },
    ... )
    >>> sorted(partition.observe(torch.zeros(2, 3, 32, 32)))
    ['x', 'x_hat']
    >>> Partition.from_yaml(partition.to_yaml()) == partition
    True
    """

    blocks: Mapping[str, Block]
    observations: Mapping[str, Observation]
    covariates: Mapping[str, Covariate] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        blocks = _items(self.blocks, "blocks", Block, "ip.Block(64)")
        observations = _items(self.observations, "observations", Observation, 'ip.Observation(blocks=("z",))')
        covariates = _items(self.covariates, "covariates", Covariate, "ip.Covariate(classes=3)", least=0)
        shared = sorted(set(blocks) & set(observations))
        if shared:
            raise DeclarationError(f"{join_names(shared)} names both a block and an observation; rename one of them")
        shared = sorted(set(covariates) & {*blocks, *observations})
        if shared:
            raise DeclarationError(
                f"{join_names(shared)} names a covariate and a block or an observation; what is generated is no covariate: "
                "rename one of them"
            )
        if all(observation.derived for observation in observations.values()):
            raise DeclarationError(
                "every observation is derived by a transform, so nothing models the data itself; add one without a "
                f"transform that hangs on all the blocks: 'x': ip.Observation(blocks={tuple(blocks)!r})"
            )
        for name, observation in observations.items():
            observations[name] = _resolve_observation(name, observation, blocks, observations)
            if observation.redraw and name + READ_SUFFIX in {*blocks, *observations, *covariates}:
                raise DeclarationError(
                    f"{name + READ_SUFFIX!r} is the name of {name!r}'s second draw (redraw=True); rename that one"
                )
        object.__setattr__(self, "_order", _derivation_order(observations))
        for name, block in blocks.items():
            if make_prior(block.prior).draws_class and class_name(name) in {*blocks, *observations, *covariates}:
                raise DeclarationError(
                    f"{class_name(name)!r} is the site of the class that {name!r} has (its prior draws one); rename that one"
                )
            blocks[name] = _resolve_block(name, block, observations)
        for name, covariate in covariates.items():
            covariates[name] = _resolve_covariate(name, covariate, blocks, observations)
        object.__setattr__(self, "blocks", _Frozen(blocks))
        object.__setattr__(self, "covariates", _Frozen(covariates))
        object.__setattr__(self, "observations", _Frozen(observations))

    @property
    def sources(self) -> tuple[str, ...]:
        """What a batch must hold: one name means that the batch may be the tensor itself."""
        return tuple(dict.fromkeys([*self.modelled_sources, *(str(c.source) for c in self.covariates.values())]))

    @property
    def modelled_sources(self) -> tuple[str, ...]:
        """Those that observations come from: what ``data_shape`` says the shapes of."""
        return tuple(dict.fromkeys(o.source for o in self.observations.values() if o.source is not None))

    def covariates_into(self, name: str) -> dict[str, Covariate]:
        """The covariates that the encoder of a block, or the decoder of an observation, reads."""
        return {other: covariate for other, covariate in self.covariates.items() if name in (covariate.into or ())}

    # ---- observing --------------------------------------------------------------------------------------------------

    def observe(
        self, batch: Tensor | Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Everything that is observed of a batch: the given values, and one draw of every derived one.

        Model and guide then see the same draw. Derived values are rounded to the grid of the likelihood that scores
        them; an observation with ``redraw=True`` adds ``<name>_read``, drawn independently. Values are checked while
        Pyro's validation is on; types always.

        Args:
            batch: `[batch, *data_shape]`, or ``{source: tensor}`` where the partition has several sources or covariates. Pixels
                are floats in [0, 1].
            generator: the source of randomness; left out, torch's global one.

        Returns:
            ``{observation: [batch, *shape]}``, and the covariates.

        Raises:
            DataError: a batch that is empty, of the wrong type, incomplete, or (under validation) out of range.

        >>> partition = Partition({"z": Block(2)}, {"x": Observation(), "blurred": Observation(transform="blur")})
        >>> partition.observe(torch.rand(4, 3, 8, 8).mul(255).round().div(255))["blurred"].shape
        torch.Size([4, 3, 8, 8])
        """
        given = self._sources_of(batch)
        check_values = is_validation_enabled()
        values: dict[str, Tensor] = {}
        for name in self._order:  # type: ignore[attr-defined]
            observation = self.observations[name]
            likelihood = make_likelihood(observation.likelihood)
            base = values[observation.of] if observation.of is not None else given[str(observation.source)]
            if observation.transform is None:
                if check_values:
                    likelihood.check(filled(base) if observation.missing else base, name)
                else:
                    likelihood.check_type(base, name)
                values[name] = base
                continue
            transform = make_transform(observation.transform)
            values[name] = likelihood.round(transform(base, generator=generator))
            if observation.redraw:
                values[name + READ_SUFFIX] = likelihood.round(transform(base, generator=generator))
        for name, covariate in self.covariates.items():
            values[name] = given[str(covariate.source)]
            (covariate.check if check_values else covariate.check_type)(values[name], name)
        return {name: values[name] for name in self.observed_names}

    @property
    def observed_names(self) -> tuple[str, ...]:
        """The keys of :meth:`observe`, in order."""
        names: list[str] = []
        for name, observation in self.observations.items():
            names += [name, name + READ_SUFFIX] if observation.redraw else [name]
        return (*names, *self.covariates)

    def read_name(self, name: str) -> str:
        """The key of :meth:`observe` under which an encoder finds an observation: its second draw where it has one."""
        return name + READ_SUFFIX if self.observations[name].redraw else name

    def check(self, batch: Tensor | Mapping[str, Tensor]) -> None:
        """Check a batch's values: range, grid, NaN. :meth:`observe` does so itself while Pyro's validation is on.

        Raises:
            DataError: the first value that no likelihood could have drawn.
        """
        given = self._sources_of(batch)
        for name, observation in self.observations.items():
            if not observation.derived:
                value = given[str(observation.source)]
                make_likelihood(observation.likelihood).check(filled(value) if observation.missing else value, name)
        for name, covariate in self.covariates.items():
            covariate.check(given[str(covariate.source)], name)

    def _sources_of(self, batch: Any) -> Mapping[str, Tensor]:
        sources = self.sources
        if isinstance(batch, Tensor):
            if len(sources) > 1:
                example = ", ".join(f"{source!r}: ..." for source in sources)
                raise DataError(f"this partition has {len(sources)} sources, so a batch is a dict: {{{example}}}")
            batch = {sources[0]: batch}
        if not isinstance(batch, Mapping):
            advice = (
                "A data loader's batch is a list of tensors: pass the one that is meant, as batch[0]"
                if isinstance(batch, (list, tuple))
                else "A numpy array becomes one with torch.from_numpy(array)"
            )
            raise DataError(
                f"a batch is a tensor [batch, ...] or a dict of tensors; got {type(batch).__name__}. {advice}"
            )
        size: int | None = None
        for source in sources:
            if source not in batch:
                raise DataError(
                    f"the batch has no {source!r}.{did_you_mean(source, map(str, batch))} It holds {join_names(batch)}"
                )
            value = batch[source]
            if not isinstance(value, Tensor):
                raise DataError(f"{source} must be a tensor [batch, ...]; got {type(value).__name__}")
            if value.ndim == 0:
                raise DataError(f"{source} must be a tensor [batch, ...]; got a single number")
            if value.shape[0] == 0:
                raise DataError(f"{source} is an empty batch of shape {list(value.shape)}; give at least one sample")
            if size is not None and value.shape[0] != size:
                raise DataError(
                    f"{source} has {value.shape[0]} samples and the source before it {size}; they must agree"
                )
            size = value.shape[0]
        return batch

    # ---- shapes -----------------------------------------------------------------------------------------------------

    def shapes(self, data_shape: Shapes) -> dict[str, tuple[int, ...]]:
        """Each observation's shape without the batch dimension.

        Args:
            data_shape: the shape of one sample, or ``{source: shape}``.

        Raises:
            DeclarationError: a shape that is missing, is not one, or that a transform cannot take.

        >>> partition = Partition({"z": Block(2)}, {"x": Observation(), "small": Observation(transform="blur")})
        >>> partition.shapes((3, 32, 32))
        {'x': (3, 32, 32), 'small': (3, 32, 32)}
        """
        given = self._source_shapes(data_shape)
        shapes: dict[str, tuple[int, ...]] = {}
        for name in self._order:  # type: ignore[attr-defined]
            observation = self.observations[name]
            shape = shapes[observation.of] if observation.of is not None else given[str(observation.source)]
            if observation.transform is not None:
                try:
                    shape = make_transform(observation.transform).output_shape(shape)
                except DeclarationError as error:
                    raise DeclarationError(f"observation {name!r}: {error}") from error
            shapes[name] = tuple(shape)
        return {name: shapes[name] for name in self.observations}

    def _source_shapes(self, data_shape: Shapes) -> dict[str, tuple[int, ...]]:
        sources = self.modelled_sources
        if not isinstance(data_shape, Mapping):
            if len(sources) > 1:
                example = ", ".join(f"{source!r}: (...)" for source in sources)
                raise DeclarationError(f"this partition has {len(sources)} sources: data_shape={{{example}}}")
            data_shape = {sources[0]: data_shape}
        shapes = {}
        for source in sources:
            if source not in data_shape:
                raise DeclarationError(f"data_shape has no {source!r}; it holds {join_names(data_shape)}")
            shape = data_shape[source]
            sizes_fit = isinstance(shape, (tuple, list, torch.Size)) and all(
                is_whole(size) and size > 0 for size in shape
            )
            if not sizes_fit:
                raise DeclarationError(
                    f"the data shape of {source!r} is a tuple of sizes without the batch, as (3, 32, 32); got {shape!r}"
                )
            shapes[source] = tuple(shape)
        unknown = sorted(set(data_shape) - set(sources))
        if unknown:
            raise DeclarationError(f"data_shape names {join_names(unknown)}, and the sources are {join_names(sources)}")
        return shapes

    # ---- writing and reading ----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The canonical spec: plain dicts, lists, strings and numbers, every default resolved."""
        return {
            "blocks": {name: block.to_spec() for name, block in self.blocks.items()},
            "observations": {name: observation.to_spec() for name, observation in self.observations.items()},
            "covariates": {name: covariate.to_spec() for name, covariate in self.covariates.items()},
        }

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> Partition:
        """The partition that a spec means.

        Raises:
            DeclarationError: an unknown or missing key, or anything that the constructors refuse.

        >>> Partition.from_dict({"blocks": {"z": {"dim": 2}}, "observations": {"x": {"blocks": ["z"]}}}).sources
        ('x',)
        """
        if not isinstance(spec, Mapping):
            raise DeclarationError(f"a partition is written as {{blocks: ..., observations: ...}}; got {spec!r}")
        check_keys(spec, ("blocks", "observations", "covariates"), "a partition")
        parts: dict[str, dict[str, Any]] = {}
        for part, item in (("blocks", Block), ("observations", Observation), ("covariates", Covariate)):
            given = spec.get(part, {} if item is Covariate else None)
            if not isinstance(given, Mapping):
                raise DeclarationError(f"a partition's {part} are written as {{name: {{...}}}}; got {given!r}")
            parts[part] = {}
            for name, fields in given.items():
                where = f"{part}.{name}"
                if not isinstance(fields, Mapping):
                    raise DeclarationError(f"{where} is written as {{key: value}}; got {fields!r}")
                check_keys(fields, [field.name for field in dataclasses.fields(item)], where)
                if item is Block and "dim" not in fields:
                    raise DeclarationError(f"{where} needs its number of dimensions: {name}: {{dim: 64}}")
                try:
                    parts[part][name] = item(**fields)
                except DeclarationError as error:
                    raise type(error)(f"{where}: {error}") from error
        return cls(parts["blocks"], parts["observations"], parts["covariates"])

    def to_json(self) -> str:
        """The canonical spec as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Partition:
        """The partition in JSON text. Raises as :meth:`from_dict`, and for text that is not JSON."""
        try:
            spec = json.loads(text, object_pairs_hook=once_each)
        except json.JSONDecodeError as error:
            raise DeclarationError(f"the partition is not JSON: {error}") from error
        return cls.from_dict(spec)

    def to_yaml(self) -> str:
        """The canonical spec as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120)

    @classmethod
    def from_yaml(cls, text: str) -> Partition:
        """The partition in YAML text. Raises as :meth:`from_dict`, and for text that is not YAML."""
        try:
            spec = read_yaml(text)
        except yaml.YAMLError as error:
            raise DeclarationError(f"the partition is not YAML: {error}") from error
        return cls.from_dict(spec)

    @classmethod
    def from_file(cls, path: str | Path) -> Partition:
        """The partition in a ``.yaml``, ``.yml`` or ``.json`` file.

        Raises:
            RunFolderError: the file cannot be read.
            DeclarationError: what :meth:`from_yaml` or :meth:`from_json` refuses; the file is named.
        """
        text = read_text(path, "partition")
        try:
            return cls.from_json(text) if Path(path).suffix == ".json" else cls.from_yaml(text)
        except DeclarationError as error:
            raise type(error)(f"{path}: {error}") from error

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Partition) else NotImplemented

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    # ---- showing ----------------------------------------------------------------------------------------------------

    def diagram(self) -> str:
        """The graph as Mermaid text: blocks are circles, observations boxes, covariates hexagons, dotted arrows transforms.

        >>> print(Partition({"z": Block(2)}, {"x": Observation()}).diagram())
        flowchart LR
            z(("z<br/>2 dims"))
            x["x<br/>discretized_logistic"]
            z --> x
        """
        lines = ["flowchart LR"]
        for name, block in self.blocks.items():
            prior = make_prior(block.prior).spec_name
            note = "" if prior == "standard_normal" else f"<br/>{prior}"
            lines.append(f'    {_node(name)}(("{name}<br/>{block.dim} dims{note}"))')
        for name, observation in self.observations.items():
            lines.append(f'    {_node(name)}["{name}<br/>{make_likelihood(observation.likelihood).spec_name}"]')
        for name, covariate in self.covariates.items():
            kind = f"{covariate.classes} classes" if covariate.classes else f"{covariate.width} numbers"
            lines.append(f'    {_node(name)}{{{{"{name}<br/>{kind if covariate.width > 1 else "a number"}"}}}}')
        raw = dict.fromkeys(str(o.source) for o in self.observations.values() if o.derived and o.of is None)
        origins = {source: f"source-{number}" for number, source in enumerate(raw)}
        lines += [f'    {node}[/"{_quoted(source)}"/]' for source, node in origins.items()]
        for name, observation in self.observations.items():
            lines += [f"    {_node(block)} --> {_node(name)}" for block in observation.blocks or ()]
            lines += [f"    {_node(covariate)} --> {_node(name)}" for covariate in self.covariates_into(name)]
        for name, observation in self.observations.items():
            if observation.transform is not None:
                label = _quoted(_transform_label(make_transform(observation.transform)))
                origin = origins[str(observation.source)] if observation.of is None else _node(observation.of)
                lines.append(f'    {origin} -. "{label}" .-> {_node(name)}')
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        diagram = self.diagram()
        return {
            "text/vnd.mermaid": diagram,
            "text/markdown": f"```mermaid\n{diagram}\n```",
            "text/plain": repr(self),
        }


def _transform_label(transform: Transform) -> str:
    ((name, parameters),) = transform.to_spec().items()
    if name == "compose":
        return ", ".join(_transform_label(make_transform(part)) for part in parameters["transforms"])
    values = ", ".join(f"{key}={value}" for key, value in parameters.items())
    return f"{name}({values})"


def _quoted(text: str) -> str:
    return text.replace('"', "'")


def _node(name: str) -> str:
    # A word of Mermaid's own would end the picture; no name has a hyphen, so none is taken twice.
    return f"node-{name}" if name in _MERMAID_WORDS else name


def _items(given: Any, part: str, item: type[Item], example: str, least: int = 1) -> dict[str, Item]:
    if not isinstance(given, Mapping) or len(given) < least:
        raise DeclarationError(
            f"a partition's {part} are a dict{' with at least one entry' if least else ''}, {{name: {example}}}; got {given!r}"
        )
    for name, value in given.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise DeclarationError(
                f"{name!r} cannot be a name in {part}: use letters, digits and underscores, a letter first, as in 'z_g'"
            )
        if name in _TAKEN:
            raise DeclarationError(f"{name!r} cannot be a name in {part}: torch's modules use it; try {name + '_'!r}")
        if not isinstance(value, item):
            raise DeclarationError(f"{part}[{name!r}] must be an ip.{item.__name__}, as {example}; got {value!r}")
    return dict(given)


def _resolve_observation(
    name: str, observation: Observation, blocks: Mapping[str, Block], observations: Mapping[str, Observation]
) -> Observation:
    for block in observation.blocks or ():
        if block not in blocks:
            raise DeclarationError(
                f"observation {name!r} hangs on {block!r}, and there is no such block.{did_you_mean(block, blocks)} "
                f"The blocks are {join_names(blocks)}"
            )
    resolved = dataclasses.replace(observation, blocks=observation.blocks or tuple(blocks))
    if observation.of is not None:
        if observation.of not in observations:
            raise DeclarationError(
                f"observation {name!r} is derived of={observation.of!r}, and there is no such observation."
                f"{did_you_mean(observation.of, observations)} The observations are {join_names(observations)}"
            )
        return _missing_alike(name, resolved, observations[observation.of])
    if observation.source is not None:
        return resolved
    if not observation.derived:
        return dataclasses.replace(resolved, source=name)
    given = [other for other, item in observations.items() if not item.derived]
    if len(given) != 1:
        raise DeclarationError(
            f"observation {name!r} is derived by a transform, and there are {len(given)} given observations to derive it "
            f"from ({join_names(given)}); say which with of=..., or take it from the batch with source=..."
        )
    return _missing_alike(name, dataclasses.replace(resolved, of=given[0]), observations[given[0]])


def _missing_alike(name: str, observation: Observation, origin: Observation) -> Observation:
    if origin.missing and not observation.missing:
        raise DeclarationError(
            f"observation {name!r} is derived from one whose values may be missing (missing=True), so its own may be, too; "
            "add missing=True"
        )
    return observation


def _resolve_covariate(
    name: str, covariate: Covariate, blocks: Mapping[str, Block], observations: Mapping[str, Observation]
) -> Covariate:
    readers = (*blocks, *observations)
    for reader in covariate.into or ():
        if reader not in readers:
            raise DeclarationError(
                f"covariate {name!r} goes into {reader!r}, and there is no such block or observation."
                f"{did_you_mean(reader, readers)} There are {join_names(readers)}"
            )
    return dataclasses.replace(covariate, into=covariate.into or readers, source=covariate.source or name)


def _resolve_block(name: str, block: Block, observations: Mapping[str, Observation]) -> Block:
    hanging = [other for other, item in observations.items() if name in (item.blocks or ())]
    if not hanging:
        raise DeclarationError(
            f"no observation hangs on block {name!r}; name it in an observation's blocks, or remove it"
        )
    if block.reads is None:
        reads = [other for other in hanging if observations[other].derived] or hanging
        return dataclasses.replace(block, reads=tuple(reads))
    for read in block.reads:
        if read not in observations:
            raise DeclarationError(
                f"block {name!r} reads {read!r}, and there is no such observation.{did_you_mean(read, observations)} "
                f"The observations are {join_names(observations)}"
            )
    return block


def _derivation_order(observations: Mapping[str, Observation]) -> tuple[str, ...]:
    order: list[str] = []
    for start in observations:
        path: list[str] = []
        name: str | None = start
        while name is not None and name not in order:
            if name in path:
                cycle = " -> ".join([*path[path.index(name) :], name])
                raise DeclarationError(f"the observations are derived from each other in a circle: {cycle}")
            path.append(name)
            name = observations[name].of
        order += reversed(path)
    return tuple(order)
