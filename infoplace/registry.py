"""One registry for every kind of named, configurable thing.

A *kind* (transform, likelihood, prior, network, objective) is a base class and a :class:`Registry`. A *spec* is how a
configured object is written down: ``{"patch_shuffle": {"n": 8}}``, or the bare name for its defaults. Names are looked up
among the built-ins and what the session registered, then among installed entry points, which are scanned on the first
miss or listing and never at import.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, ClassVar, Generic, TypeVar, dataclass_transform, overload

from infoplace.errors import DeclarationError, PluginError, UnknownNameError, did_you_mean, join_names

__all__ = ["Configurable", "Description", "Registry", "Specified", "plain"]

Implementation = TypeVar("Implementation", bound="Specified")
Registered = TypeVar("Registered", bound="type[Specified]")


def plain(value: Any, where: str = "a spec") -> Any:
    """``value`` as JSON and YAML can hold it: tuples become lists, specified objects become their specs.

    Args:
        value: a parameter's value.
        where: what holds it, for the error.

    Raises:
        DeclarationError: the value has no such form (a function, a tensor).

    >>> plain({"size": (3, 3)})
    {'size': [3, 3]}
    """
    if isinstance(value, Specified):
        return value.to_spec()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value)  # numpy's float64 is a float too, and YAML has no form for it
    if isinstance(value, Mapping):
        return {str(key): plain(item, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where) for item in value]
    raise DeclarationError(
        f"{where} holds a {type(value).__name__}, which cannot be written to a file; "
        "use numbers, strings, booleans, lists, dicts or named specs"
    )


class Specified:
    """An object that a spec describes in full: its registered name and its parameters.

    Equality, hash and ``repr`` go by the spec. The parameters are those of ``__init__``, each kept as the attribute of
    the same name.
    """

    spec_name: ClassVar[str | None] = None
    """The name this class is registered under; set by the registry."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A subclass of a registered class would otherwise be written down, and come back, as its parent.
        cls.spec_name = None

    @classmethod
    def spec_parameters(cls) -> dict[str, inspect.Parameter]:
        """The parameters a spec may give, in order."""
        parameters = inspect.signature(cls).parameters.values()
        return {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    def to_spec(self) -> dict[str, Any]:
        """The canonical spec, ``{name: {parameter: value}}``, every parameter resolved.

        Raises:
            DeclarationError: the class is registered under no name.
        """
        if self.spec_name is None:
            name = type(self).__name__
            raise DeclarationError(f"{name} is registered under no name, so it has no spec; register the class first")
        values = {key: plain(getattr(self, key), f"{self.spec_name}.{key}") for key in self.spec_parameters()}
        return {self.spec_name: values}

    def _identity(self) -> str:
        return json.dumps(self.to_spec(), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Specified) or self.spec_name is None or other.spec_name is None:
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return id(self) if self.spec_name is None else hash(self._identity())

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={getattr(self, key, '?')!r}" for key in self.spec_parameters())
        return f"{type(self).__name__}({values})"


@dataclass_transform(frozen_default=True)
class Configurable(Specified):
    """A specified object that never changes: each subclass becomes a frozen dataclass, its fields the parameters.

    Check the fields in ``__post_init__``; set a field there with :meth:`_set`.

    Raises:
        DeclarationError: a subclass writes an ``__init__`` of its own.

    >>> class Scale(Configurable):
    ...     factor: float = 2.0
    >>> Scale(factor=3.0)
    Scale(factor=3.0)
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            raise DeclarationError(
                f"{cls.__name__} defines __init__, but its parameters are class fields. Instead of\n"
                "    def __init__(self, n=8): self.n = n\n"
                "write\n"
                "    n: int = 8\n"
                "and check the value in __post_init__"
            )
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)

    def _set(self, field: str, value: Any) -> None:
        """Set a field from ``__post_init__`` (a list to a tuple, say)."""
        object.__setattr__(self, field, value)


@dataclasses.dataclass(frozen=True)
class Description:
    """What a registry knows of a name; ``str()`` of it is meant to be read."""

    kind: str
    name: str
    summary: str
    """The first line of the implementation's docstring."""
    parameters: dict[str, str]
    """Each parameter as it would be written in a signature."""
    owner: str
    """The module and class, or the installed distribution, that brought it."""
    details: dict[str, str] = dataclasses.field(default_factory=dict)
    """What the kind adds (for a transform: what it destroys, whether it is random)."""

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.kind}): {self.summary}"]
        lines += [f"  {key}: {value}" for key, value in self.details.items()]
        lines += [f"  parameter {text}" for text in self.parameters.values()]
        return "\n".join([*lines, f"  from {self.owner}"])


@dataclasses.dataclass(frozen=True)
class _Preset:
    name: str
    parameters: dict[str, Any]


def _owner(implementation: type) -> str:
    return f"{implementation.__module__}.{implementation.__qualname__}"


class Registry(Generic[Implementation]):
    """The names of one kind: implementations, presets, and the entry points of installed plugins.

    Args:
        kind: the kind's name in messages ("transform").
        base: the class every implementation derives from.
        group: the entry-point group that plugins use ("infoplace.transforms").
    """

    def __init__(self, kind: str, base: type[Implementation], group: str) -> None:
        self.kind = kind
        self.base = base
        self.group = group
        self._implementations: dict[str, type[Implementation]] = {}
        self._owners: dict[str, str] = {}
        self._presets: dict[str, _Preset] = {}
        self._entry_points: dict[str, list[metadata.EntryPoint]] | None = None

    # ---- registering ----------------------------------------------------------------------------------------------

    @overload
    def register(
        self, name: str, implementation: None = None, /, *, overwrite: bool = False
    ) -> Callable[[Registered], Registered]: ...
    @overload
    def register(self, name: str, implementation: Registered, /, *, overwrite: bool = False) -> Registered: ...
    @overload
    def register(self, name: str, /, *, alias: str | None = None, **parameters: Any) -> Implementation: ...

    def register(
        self,
        name: str,
        implementation: Any = None,
        /,
        *,
        alias: str | None = None,
        overwrite: bool = False,
        **parameters: Any,
    ) -> Any:
        """Register an implementation, or set the defaults of a known name.

        ``register(name, cls)`` registers ``cls`` and returns it; ``register(name)`` alone is the decorator form.
        ``register(name, **parameters)`` checks the parameters, makes them what the bare name means (or what ``alias``
        means, leaving ``name`` as it was) and returns the configured object.

        Raises:
            DeclarationError: a bad name, a class that is not of this kind, a name that another owner holds, or a
                parameter that the implementation refuses.
            UnknownNameError: parameters for a name that nothing is registered under.
        """
        self._check_name(name)
        if alias is not None:
            self._check_name(alias)
        if implementation is not None and (parameters or alias is not None):
            raise DeclarationError(
                f"register_{self.kind}({name!r}, ...) got an implementation and parameters at once; register the "
                f"implementation first, then configure it: register_{self.kind}({name!r}, {_keywords(parameters)})"
            )
        if parameters or alias is not None:
            return self._configure(name, alias, parameters, overwrite)
        if implementation is None:
            return lambda decorated: self._add(name, decorated, overwrite)
        return self._add(name, implementation, overwrite)

    def _check_name(self, name: object) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise DeclarationError(
                f"a {self.kind}'s name must be letters, digits and underscores, as in 'patch_shuffle'; got {name!r}"
            )

    def _add(self, name: str, implementation: Any, overwrite: bool) -> Any:
        if not (isinstance(implementation, type) and issubclass(implementation, self.base)):
            raise DeclarationError(
                f"register_{self.kind}({name!r}, ...) needs a class derived from infoplace.{self.base.__name__}; "
                f"got {implementation!r}"
            )
        owner, known = _owner(implementation), self._owners.get(name)
        if known is None and name in self._presets:
            known = f"an alias of {self._presets[name].name!r}"
        if known is not None and known != owner and not overwrite:
            raise DeclarationError(
                f"the {self.kind} name {name!r} belongs to {known}, and {owner} asks for it too; choose another name, "
                "or pass overwrite=True to replace it"
            )
        self._implementations[name] = implementation
        self._owners[name] = owner
        self._presets.pop(name, None)
        implementation.spec_name = name
        return implementation

    def _configure(self, name: str, alias: str | None, parameters: dict[str, Any], overwrite: bool) -> Implementation:
        # From the class's own defaults, so that a preset depends on this call alone and not on those before it.
        configured = self.make({name: parameters} if parameters else name)
        canonical = configured.spec_name
        if canonical is None:
            raise DeclarationError(f"the {self.kind} {name!r} has lost its registered name; register its class again")
        target = alias if alias is not None else name
        if alias is not None:
            if alias in self._implementations:
                raise DeclarationError(
                    f"the alias {alias!r} is a {self.kind} already, from {self._owners[alias]}; choose another name"
                )
            known = self._presets.get(alias)
            if known is not None and known.name != canonical and not overwrite:
                raise DeclarationError(
                    f"the alias {alias!r} means {known.name!r} already, and {canonical!r} asks for it too; choose another "
                    "name, or pass overwrite=True to replace it"
                )
        self._presets[target] = _Preset(canonical, configured.to_spec()[canonical])
        return configured

    # ---- looking up -----------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every name, sorted: built-ins, the session's own, aliases and installed plugins.

        A plugin that fails to load is left out with a warning.
        """
        found = set(self._implementations) | set(self._presets)
        for name in self._scan():
            if name not in found:
                try:
                    self._load(name)
                except PluginError as error:
                    warnings.warn(f"left out of the list: {error}", stacklevel=3)
                else:
                    found.add(name)
        return sorted(found)

    def get(self, name: str) -> type[Implementation]:
        """The class behind a name or an alias.

        Raises:
            UnknownNameError: nothing has the name.
            PluginError: the plugin that has it fails to load.
        """
        if name in self._implementations:
            return self._implementations[name]
        if name in self._presets:
            return self.get(self._presets[name].name)
        if name in self._scan():
            return self._load(name)
        known = sorted({*self._implementations, *self._presets, *self._scan()})
        hint = did_you_mean(name, known) or _elsewhere(self.group, name)
        raise UnknownNameError(f"there is no {self.kind} named {name!r}.{hint} Known: {', '.join(known) or '(none)'}")

    def make(self, spec: Any, /, **parameters: Any) -> Implementation:
        """The configured object that ``spec`` means.

        Args:
            spec: an object of this kind (returned as it is), a name, or ``{name: {parameter: value}}``.
            parameters: more parameters, which win over the spec's.

        Raises:
            DeclarationError: a spec of another form, or parameters that the implementation does not take.
            UnknownNameError: an unknown name.
        """
        if isinstance(spec, self.base):
            if parameters:
                raise DeclarationError(
                    f"{spec!r} is configured already; give its name to change {_keywords(parameters)}"
                )
            return spec
        name, given = self._parse(spec)
        implementation = self.get(name)
        # A dict says all that it means, so that nothing saved depends on a preset; an alias is nothing but its preset.
        if name in self._presets and (isinstance(spec, str) or name not in self._implementations):
            given = {**self._presets[name].parameters, **given}
        given = {**given, **parameters}
        label = self._presets[name].name if name in self._presets else name
        self._check_parameters(label, implementation, given)
        try:
            return implementation(**given)
        except DeclarationError as error:
            if str(error).startswith(label):
                raise
            raise type(error)(f"{label}: {error}") from error

    def _parse(self, spec: Any) -> tuple[str, dict[str, Any]]:
        if isinstance(spec, str):
            return spec, {}
        if isinstance(spec, Mapping) and len(spec) == 1:
            ((name, given),) = spec.items()
            if given is None:
                given = {}
            if isinstance(name, str) and isinstance(given, Mapping):
                return name, {str(key): value for key, value in given.items()}
        raise DeclarationError(f"a {self.kind} is written as a name or as {{name: {{parameter: value}}}}; got {spec!r}")

    def _check_parameters(self, name: str, implementation: type[Implementation], given: Mapping[str, Any]) -> None:
        known = implementation.spec_parameters()
        for key in given:
            if key not in known:
                takes = ", ".join(known) if known else "no parameters"
                raise DeclarationError(f"{name} has no parameter {key!r}.{did_you_mean(key, known)} It takes: {takes}")
        missing = [key for key, p in known.items() if p.default is p.empty and key not in given]
        if missing:
            raise DeclarationError(
                f"{name} needs {join_names(missing)}: {name}({', '.join(f'{key}=...' for key in missing)})"
            )

    def describe(self, name: str) -> Description:
        """What is known of a name. Raises as :meth:`get` does."""
        implementation = self.get(name)
        preset = self._presets[name].parameters if name in self._presets else {}
        parameters = {}
        for key, parameter in implementation.spec_parameters().items():
            default = preset.get(key, parameter.default)
            annotation = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
            parameters[key] = f"{key}{annotation}" + ("" if default is parameter.empty else f" = {default!r}")
        summary = (inspect.getdoc(implementation) or "").partition("\n")[0]
        own = self._presets[name].name if name in self._presets else name
        return Description(self.kind, name, summary, parameters, self._owners[own])

    # ---- plugins --------------------------------------------------------------------------------------------------

    def _scan(self) -> dict[str, list[metadata.EntryPoint]]:
        if self._entry_points is None:
            found: dict[str, list[metadata.EntryPoint]] = {}
            if os.environ.get("INFOPLACE_DISABLE_PLUGINS", "") in ("", "0"):
                for entry_point in metadata.entry_points(group=self.group):
                    found.setdefault(entry_point.name, []).append(entry_point)
            self._entry_points = found
        return self._entry_points

    def _load(self, name: str) -> type[Implementation]:
        candidates = self._scan()[name]
        if len(candidates) > 1:
            sources = " and ".join(_distribution(candidate) for candidate in candidates)
            raise PluginError(f"the {self.kind} name {name!r} is claimed by {sources}; uninstall one of them")
        (candidate,) = candidates
        source = _distribution(candidate)
        try:
            implementation = candidate.load()
        except Exception as error:
            raise PluginError(f"the {self.kind} {name!r} of {source} fails to load: {error}") from error
        if not (isinstance(implementation, type) and issubclass(implementation, self.base)):
            raise PluginError(
                f"the {self.kind} {name!r} of {source} is {implementation!r}, not a class derived from "
                f"infoplace.{self.base.__name__}"
            )
        self._implementations[name] = implementation
        self._owners[name] = source
        implementation.spec_name = name
        return self._implementations[name]


BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "infoplace.transforms": (
        "affine", "blur", "channel_shuffle", "compose", "cover", "downsample", "edges", "grayscale", "histogram",
        "identity", "jitter", "kornia", "mask", "noise", "patch_shuffle", "posterize", "rotate90", "torchvision",
    ),
    "infoplace.objectives": ("agreement", "balance", "beta_elbo", "capacity", "elbo", "free_bits", "sum"),
    "infoplace.likelihoods": (
        "bernoulli", "categorical", "discretized_logistic", "discretized_logistic_mixture", "laplace", "normal",
    ),
    "infoplace.priors": ("flow", "mixture", "standard_normal", "vamp"),
    "infoplace.networks": ("paper", "resnet", "small"),
    "infoplace.metrics": ("bits_per_dim", "clustering", "disentanglement", "kl", "placement", "swap"),
}  # fmt: skip
"""The package's own names by entry-point group, for those that must know them before anything is imported."""

FIRST_PARTY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "infoplace.transforms": {
        "infoplace-spectral": (
            "amplitude_flatten", "amplitude_swap", "band_stop", "high_pass", "low_pass", "phase_scramble", "wavelet_shuffle",
        ),
        "infoplace-signals": (
            "band_shuffle", "envelope_removal", "log_spectrogram", "pitch_shift", "segment_shuffle", "tempo_shift",
            "time_reverse",
        ),
    },
    "infoplace.objectives": {
        "infoplace-disentangle": ("beta_tcvae", "club", "dip_vae", "factor_vae", "hfvae", "hsic", "info_vae"),
    },
    "infoplace.networks": {
        "infoplace-routes": ("clamped", "ladder", "pixelcnn"),
        "infoplace-signals": ("conv1d",),
    },
}  # fmt: skip
"""The names that the project's own plugins bring, by entry-point group and distribution."""


def _elsewhere(group: str, name: str) -> str:
    """A sentence saying which of the project's own plugins has the name, or one close to it, with a space before it."""
    packages = {known: package for package, names in FIRST_PARTY.get(group, {}).items() for known in names}
    close = difflib.get_close_matches(str(name), packages, n=1, cutoff=0.8)
    if not close:
        return ""
    package = packages[close[0]]
    return f" {close[0]!r} is in {package}, which is not installed; type: pip install {package}."


def _distribution(entry_point: metadata.EntryPoint) -> str:
    distribution = entry_point.dist
    return f"{distribution.name} {distribution.version}" if distribution is not None else entry_point.value


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _keywords(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in parameters.items())
