"""Plugins: writing a new one, and a list of those that are installed.

:func:`new_plugin` writes a complete package with one working thing of a kind, its tests and its entry point, to be changed
from there; :func:`installed_plugins` says which plugins there are and whether they load. The command line has both.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from string import Template
from typing import Any

import infoplace as ip
from infoplace.errors import (
    DeclarationError,
    InfoplaceError,
    RunFolderError,
    did_you_mean,
)
from infoplace.files import make_folder
from infoplace.registry import BUILT_IN, FIRST_PARTY

__all__ = ["KINDS", "Plugin", "installed_plugins", "new_plugin"]

LONGEST = 40
"""A longer name would make lines longer than :data:`WIDTH`."""
WIDTH = 120
"""Of a line, in characters."""


def _describe(kind: str) -> Callable[[str], Any]:
    """The public function that looks a name of this kind up, and loads the plugin that has it."""
    return getattr(ip, f"describe_{kind}")


# ---- what is installed -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed distribution."""

    kind: str
    name: str
    distribution: str
    """The distribution that brings it; where that is not known, its module."""
    version: str
    """Empty where it is not known."""
    error: str | None
    """Why it cannot be used, in one line; None for one that loads."""


def installed_plugins() -> list[Plugin]:
    """What installed distributions offer, by kind and name. Each is loaded, to see whether it can be.

    One that fails to load has the reason as its :attr:`Plugin.error`, and so has one whose name a built-in or another
    plugin holds.

    >>> all(plugin.kind in KINDS for plugin in installed_plugins())
    True
    """
    disabled = os.environ.get("INFOPLACE_DISABLE_PLUGINS", "") not in ("", "0")
    found = []
    for kind in KINDS:
        for entry in metadata.entry_points(group=f"infoplace.{kind}s"):
            distribution, version = entry.value.partition(":")[0], ""
            if entry.dist is not None:
                distribution, version = entry.dist.name, entry.dist.version
            source = f"{distribution} {version}" if version else entry.value
            error = (
                "not loaded, because INFOPLACE_DISABLE_PLUGINS is set" if disabled else _failure(kind, entry, source)
            )
            found.append(Plugin(kind, entry.name, distribution, version, error))
    return sorted(found, key=lambda plugin: (list(KINDS).index(plugin.kind), plugin.name, plugin.distribution))


def _failure(kind: str, entry: metadata.EntryPoint, source: str) -> str | None:
    try:
        owner = _describe(kind)(entry.name).owner
    except InfoplaceError as error:
        text = str(error).removeprefix(f"the {kind} {entry.name!r} of {source} ")
        return text.partition("\n")[0]
    if owner == source:
        return None
    # One that registers itself while it is imported is known by its class.
    with suppress(Exception):  # hidden, and broken besides
        loaded = entry.load()
        if owner == f"{loaded.__module__}.{loaded.__qualname__}":
            return None
    return f"hidden by {owner}, which has the name already"


# ---- writing a new one -------------------------------------------------------------------------------------------------


def new_plugin(name: str, folder: str | Path = ".", kind: str = "transform") -> Path:
    """Write a plugin: a package that can be installed, with one working thing of a kind, and tests that pass.

    Args:
        name: the distribution's name, as ``"infoplace-swirl"``. The package is named likewise, with underscores
            (``infoplace_swirl``), and the thing without a leading ``infoplace`` (``swirl``).
        folder: where the plugin's own folder is made; made too, where it does not exist.
        kind: what it adds: one of :data:`KINDS`.

    Returns:
        The plugin's folder, ``folder / name``.

    Raises:
        DeclarationError: a name or a kind that cannot be, or a name that is taken.
        RunFolderError: the plugin's folder exists, or cannot be written. Nothing is left half-written.

    >>> import tempfile
    >>> folder = new_plugin("infoplace-swirl", tempfile.mkdtemp())
    >>> sorted(path.name for path in folder.iterdir())
    ['.gitignore', 'README.md', 'infoplace_swirl', 'pyproject.toml', 'tests']
    """
    if kind not in KINDS:
        raise DeclarationError(
            f"there is no kind of plugin {kind!r}.{did_you_mean(kind, KINDS)} Known: {', '.join(KINDS)}"
        )
    package, thing = _names(name, kind)
    parent = make_folder(folder)
    target = parent / name
    if target.exists() or target.is_symlink():
        raise RunFolderError(f"{target} exists already; choose another name or another folder, or remove it first")
    temporary = parent / f".{name}.{os.getpid()}.partial"
    try:
        for path, text in _files(name, package, thing, kind).items():
            file = temporary / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        os.rename(temporary, target)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {target}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _names(name: Any, kind: str) -> tuple[str, str]:
    """The package's and the thing's name for a distribution's."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*", name):
        raise DeclarationError(
            f"a plugin's name is letters, digits and single hyphens, as 'infoplace-swirl'; got {name!r}"
        )
    if len(name) > LONGEST:
        raise DeclarationError(f"a plugin's name has at most {LONGEST} characters; {name!r} has {len(name)}")
    package = name.lower().replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise DeclarationError(
            f"{name!r} would make a package {package!r}, which is a word of Python; choose another name"
        )
    if util.find_spec(package) is not None:
        raise DeclarationError(f"a package {package!r} is installed already; choose another name")
    thing = package.removeprefix("infoplace_")
    if not thing.isidentifier() or keyword.iskeyword(thing):
        thing = package
    holder = _holder(f"infoplace.{kind}s", thing)
    if holder is not None:
        raise DeclarationError(f"there is a {kind} {thing!r} already, from {holder}; choose another name")
    return package, thing


def _holder(group: str, thing: str) -> str | None:
    """Which distribution has a name; nothing is imported to find out, or a plugin would take seconds to begin."""
    if thing in BUILT_IN[group]:
        return "infoplace"
    for entry in metadata.entry_points(group=group):
        if entry.name == thing:
            return entry.dist.name if entry.dist is not None else entry.value
    return next((package for package, names in FIRST_PARTY.get(group, {}).items() if thing in names), None)


def _files(name: str, package: str, thing: str, kind: str) -> dict[str, str]:
    """Every file of a plugin, by its path in the plugin's folder."""
    article, suffix = ("An" if kind == "objective" else "A"), kind.capitalize()
    # With the kind at its end it is no other name's shadow (Tensor, None), and no test case (Test...).
    made = "".join(part.capitalize() for part in thing.split("_")).removesuffix(suffix) + suffix
    imported = f"from {package}.{thing} import {made}"
    if len(imported) > WIDTH:
        imported = f"from {package}.{thing} import (\n    {made},\n)"
    needs = ["infoplace", "torch>=2.11"] + ["pyro-ppl>=1.9.1"] * (kind in ("likelihood", "prior"))
    values = {
        "name": name,
        "package": package,
        "thing": thing,
        "kind": kind,
        "a_kind": f"{article} {kind}",
        "made": made,
        "imported": imported,
        "needs": ", ".join(f'"{need}"' for need in needs),
        "use": Template(KINDS[kind].use).substitute(thing=thing),
    }
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        ".gitignore": IGNORED,
        f"{package}/__init__.py": PACKAGE,
        f"{package}/{thing}.py": KINDS[kind].module,
        f"{package}/py.typed": "",
        f"tests/test_{thing}.py": KINDS[kind].tests,
    }
    return {path: Template(text).substitute(values) for path, text in texts.items()}


@dataclass(frozen=True)
class Start:
    """What a new plugin of a kind starts from."""

    module: str
    tests: str
    use: str
    """How the thing is named in use, for the README."""


IGNORED = """\
.venv/
__pycache__/
*.egg-info/
/dist/
.mypy_cache/
.pytest_cache/
.ruff_cache/
"""

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "$name"
description = "The $kind $thing for infoplace"
readme = "README.md"
requires-python = ">=3.11"
dynamic = ["version"]
dependencies = [$needs]

[project.optional-dependencies]
dev = ["pytest>=8", "ruff>=0.8", "mypy>=1.13"]

# The name that specs and recipes use, and the class behind it; one line for each thing that the plugin adds.
[project.entry-points."infoplace.${kind}s"]
$thing = "$package:$made"

[tool.hatch.version]
path = "$package/__init__.py"

[tool.hatch.build.targets.wheel]
packages = ["$package"]

[tool.ruff]
line-length = 120
target-version = "py311"

[tool.ruff.lint]
select = ["E", "F", "W", "I", "B", "UP", "C4", "SIM", "RUF", "PT", "N", "PIE", "RET", "TID", "NPY"]
ignore = ["N812", "RUF002", "RUF003"]

[tool.ruff.lint.pycodestyle]
max-line-length = 130

[tool.mypy]
python_version = "3.11"
files = ["$package"]
disallow_untyped_defs = true
disallow_incomplete_defs = true
warn_unused_ignores = true
warn_redundant_casts = true
no_implicit_optional = true

[[tool.mypy.overrides]]
module = ["pyro.*"]
ignore_missing_imports = true
follow_imports = "skip"

[tool.pytest.ini_options]
testpaths = ["tests", "$package"]
addopts = "-q --strict-markers --doctest-modules"
xfail_strict = true
filterwarnings = ["error"]
"""

README = """\
# $name

$a_kind for infoplace, by the name `$thing`: see `$package/$thing.py`.

## Install

```sh
pip install -e '.[dev]'
infoplace plugins
```

The entry point in `pyproject.toml` makes the name known. It is read when the package is installed: install again when you
change it, and not when you change code.

## Use

$use

## Test

```sh
python -m pytest
ruff check . && ruff format --check . && mypy
```

The tests hold it to the laws of `infoplace.testing`, and to values worked out by hand.
"""

PACKAGE = '''\
"""$a_kind for infoplace: `$thing`."""

$imported

__version__ = "0.1.0"

__all__ = ["$made"]
'''

TRANSFORM = Start(
    module='''\
"""The transform `$thing`."""

from __future__ import annotations

import infoplace as ip
import torch
from infoplace.transforms import draw_uniform
from torch import Tensor

__all__ = ["$made"]


class $made(ip.Transform):
    """Mirrors every image left to right with probability `share`.

    Args:
        share: the probability, from 0 to 1.

    Raises:
        DeclarationError: a share outside [0, 1].

    >>> $made(share=1.0)(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[[[1., 0.]]]])
    """

    share: float = 0.5

    destroys = "handedness"
    stochastic = True
    axes = ("channels", "height", "width")

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ip.DeclarationError(f"share must lie in [0, 1]; got {self.share!r}")

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = draw_uniform((len(x), *(1 for _ in x.shape[1:])), x, generator)
        return torch.where(drawn < self.share, x.flip(-1), x)
''',
    tests='''\
"""The transform `$thing`: infoplace's laws, and images worked out by hand."""

from __future__ import annotations

from typing import Any, ClassVar

import infoplace as ip
import pytest
import torch
from infoplace.testing import TransformLaws

NAME = "$thing"


class TestLaws(TransformLaws):
    specs: ClassVar[list[Any]] = [NAME, {NAME: {"share": 0.9}}]


def test_a_share_of_one_mirrors_every_image() -> None:
    x = torch.tensor([[[[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]]]])
    assert ip.make_transform(NAME, share=1.0)(x).tolist() == x[..., [2, 1, 0]].tolist()


def test_a_share_of_zero_leaves_every_image() -> None:
    x = torch.rand(8, 1, 2, 3)
    assert torch.equal(ip.make_transform(NAME, share=0.0)(x), x)


def test_about_half_of_the_images_are_mirrored() -> None:
    x = torch.tensor([0.0, 1.0]).expand(1000, 1, 1, 2)
    made = ip.make_transform(NAME)(x, generator=torch.Generator().manual_seed(0))
    assert 400 < made[..., 0].sum() < 600


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ip.DeclarationError, match="share must lie in"):
        ip.make_transform(NAME, share=share)
''',
    use="""\
```python
import infoplace as ip

observation = ip.Observation(blocks=("z_l",), transform={"$thing": {"share": 0.5}})
```""",
)

OBJECTIVE = Start(
    module='''\
"""The objective `$thing`."""

from __future__ import annotations

import infoplace as ip
from infoplace.objectives import Evidence, Term

__all__ = ["$made"]


class $made(ip.Objective):
    """The negative ELBO plus ``weight`` times the squared posterior means, summed over the blocks and the batch.

    Args:
        weight: at least 0.

    Raises:
        DeclarationError: a negative weight.

    >>> $made(weight=2.0).weight
    2.0
    """

    def __init__(self, weight: float = 0.1) -> None:
        if not weight >= 0:
            raise ip.DeclarationError(f"weight must be at least 0; got {weight!r}")
        super().__init__()
        self.weight = float(weight)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        means = [latent.posterior.mean for run in evidence.passes for latent in run.latents.values()]
        squares = sum(mean.square().sum() for mean in means) / evidence.particles
        terms = {**evidence.likelihood_terms(), **evidence.kl_terms(1.0)}
        return {**terms, "squared_means": Term(squares, self.weight)}
''',
    tests='''\
"""The objective `$thing`: infoplace's laws, and its terms worked out by hand."""

from __future__ import annotations

from typing import Any, ClassVar

import infoplace as ip
import pytest
import torch
from infoplace.testing import ObjectiveLaws

NAME = "$thing"


class TestLaws(ObjectiveLaws):
    specs: ClassVar[list[Any]] = [{NAME: {"weight": 2.0}}]


def test_it_is_the_elbo_and_the_squared_means() -> None:
    blocks = {"a": ip.Block(2), "b": ip.Block(3)}
    partition = ip.Partition(blocks=blocks, observations={"x": ip.Observation(likelihood="normal")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pair = ip.make_pair(partition, data_shape=(4,))
        observed = partition.observe(torch.randn(5, 4))
        torch.manual_seed(1)
        terms = ip.make_objective(NAME, weight=2.0).terms(pair.model, pair.guide, observed)
        torch.manual_seed(1)
        elbo = ip.make_objective("elbo").terms(pair.model, pair.guide, observed)
        squares = sum(posterior.mean.square().sum() for posterior in pair.encode(observed).values())
    assert torch.allclose(terms["squared_means"], squares)
    assert torch.allclose(terms["loss"], elbo["loss"] + 2 * squares)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ip.DeclarationError, match="weight must be at least 0"):
        ip.make_objective(NAME, weight=-1.0)
''',
    use="""\
```python
import infoplace as ip

objective = ip.make_objective("$thing", weight=0.1)
```""",
)

LIKELIHOOD = Start(
    module='''\
"""The likelihood `$thing`."""

from __future__ import annotations

import infoplace as ip
import torch
from pyro.distributions import StudentT
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

__all__ = ["$made"]


class $made(ip.Likelihood):
    """Real numbers, each Student-t around a mean: as a normal, with tails that a few outliers do not stretch.

    The raw number of a value is its mean.

    Args:
        scale: the scale, above 0, in units of the data.
        freedom: the degrees of freedom, above 2; the more, the closer to a normal.

    Raises:
        DeclarationError: a parameter out of its range.

    >>> $made(scale=0.5)(torch.zeros(3), (3,)).mean
    tensor([0., 0., 0.])
    """

    scale: float = 1.0
    freedom: float = 4.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ip.DeclarationError(f"scale must be above 0; got {self.scale!r}")
        if not self.freedom > 2:
            raise ip.DeclarationError(f"freedom must be above 2; got {self.freedom!r}")

    @property
    def parameters_per_value(self) -> int:
        return 1

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        mean = raw.squeeze(dim)
        return StudentT(torch.full_like(mean, self.freedom), mean, torch.full_like(mean, self.scale))
''',
    tests='''\
"""The likelihood `$thing`: infoplace's laws, and its density worked out by hand."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import infoplace as ip
import pytest
import torch
from infoplace.testing import LikelihoodLaws

NAME = "$thing"


class TestLaws(LikelihoodLaws):
    specs: ClassVar[list[Any]] = [NAME, {NAME: {"scale": 0.2, "freedom": 9.0}}]


def test_its_density_is_student_t() -> None:
    likelihood = ip.make_likelihood(NAME, scale=2.0, freedom=3.0)
    log_prob = likelihood(torch.tensor([0.5]), (1,)).log_prob(torch.tensor([2.5])).item()
    constant = math.lgamma(2.0) - math.lgamma(1.5) - math.log(math.sqrt(3 * math.pi) * 2.0)
    assert log_prob == pytest.approx(constant - 2.0 * math.log(1 + 1 / 3), abs=1e-6)


@pytest.mark.parametrize(("name", "value"), [("scale", 0.0), ("freedom", 2.0)])
def test_a_parameter_out_of_its_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ip.DeclarationError, match=f"{name} must be above"):
        ip.make_likelihood(NAME, **{name: value})
''',
    use="""\
```python
import infoplace as ip

observation = ip.Observation(likelihood={"$thing": {"scale": 0.5}})
```""",
)

PRIOR = Start(
    module='''\
"""The prior `$thing`."""

from __future__ import annotations

import infoplace as ip
import torch
from pyro.distributions import Laplace
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

__all__ = ["$made"]


class $made(ip.Prior):
    """Independent Laplace distributions around 0: of a draw's coordinates most are small, and a few are large.

    Args:
        scale: the mean absolute value of a coordinate, above 0.

    Raises:
        DeclarationError: a scale that is not above 0.

    >>> $made(scale=0.5).build(2)().stddev
    tensor([0.7071, 0.7071])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ip.DeclarationError(f"scale must be above 0; got {self.scale!r}")

    def build(self, dim: int) -> nn.Module:
        if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
            raise ip.DeclarationError(f"a block's dim must be a positive integer; got {dim!r}")
        return _Laplace(dim, self.scale)


class _Laplace(nn.Module):
    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        # Constants: they follow the module to its device, and stay out of its state.
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.full((dim,), scale), persistent=False)

    def forward(self) -> TorchDistributionMixin:
        return Laplace(self.loc, self.scale).to_event(1)
''',
    tests='''\
"""The prior `$thing`: infoplace's laws, and its density worked out by hand."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import infoplace as ip
import pytest
import torch
from infoplace.testing import PriorLaws

NAME = "$thing"


class TestLaws(PriorLaws):
    specs: ClassVar[list[Any]] = [NAME, {NAME: {"scale": 0.5}}]


def test_its_density_is_laplace() -> None:
    prior = ip.make_prior(NAME, scale=0.5).build(2)()
    log_prob = prior.log_prob(torch.tensor([1.0, -0.25])).item()
    assert log_prob == pytest.approx(-(1.0 + 0.25) / 0.5 - 2 * math.log(2 * 0.5), abs=1e-6)


def test_a_scale_and_a_size_that_cannot_be_are_refused() -> None:
    with pytest.raises(ip.DeclarationError, match="scale must be above 0"):
        ip.make_prior(NAME, scale=0.0)
    with pytest.raises(ip.DeclarationError, match="dim must be a positive integer"):
        ip.make_prior(NAME).build(0)
''',
    use="""\
```python
import infoplace as ip

block = ip.Block(16, prior={"$thing": {"scale": 1.0}})
```""",
)

NETWORK = Start(
    module='''\
"""The network `$thing`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import infoplace as ip
import torch
from torch import Tensor, nn

__all__ = ["$made"]

Shape = tuple[int, ...]


class $made(ip.Network):
    """One hidden layer each way, for data of any shape.

    Args:
        width: how wide the layer is.

    Raises:
        DeclarationError: a width that is no positive integer.

    >>> $made(width=8).decoder(3, (2, 4, 4))(torch.zeros(5, 3)).shape
    torch.Size([5, 2, 4, 4])
    """

    width: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) or self.width < 1:
            raise ip.DeclarationError(f"width must be a positive integer; got {self.width!r}")

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        return _Encoder(self._layers(sum(math.prod(shape) for shape in reads.values()), outputs))

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        return nn.Sequential(self._layers(inputs, math.prod(raw_shape)), nn.Unflatten(1, raw_shape))

    def _layers(self, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, self.width), nn.SiLU(), nn.Linear(self.width, outputs))


class _Encoder(nn.Module):
    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, *reads: Tensor) -> Tensor:
        return self.layers(torch.cat([read.reshape(len(read), -1) for read in reads], dim=1))
''',
    tests='''\
"""The network `$thing`: a pair that is made of it keeps infoplace's laws."""

from __future__ import annotations

import infoplace as ip
import pytest
import torch
from infoplace.testing import check_pair

NAME = "$thing"


@pytest.mark.parametrize("shape", [(1, 4, 4), (5,), ()])
def test_a_pair_of_it_keeps_the_laws(shape: tuple[int, ...]) -> None:
    partition = ip.Partition(blocks={"z": ip.Block(2)}, observations={"x": ip.Observation(likelihood="normal")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pair = ip.make_pair(partition, data_shape=shape, networks={"network": {NAME: {"width": 8}}})
        check_pair(pair, torch.randn(4, *shape))


def test_an_encoder_reads_everything_it_is_given() -> None:
    encoder = ip.make_network(NAME, width=8).encoder({"x": (2, 3), "y": ()}, outputs=4)
    x, y = torch.zeros(5, 2, 3), torch.zeros(5)
    base = encoder(x, y)
    assert base.shape == (5, 4)
    assert not torch.equal(encoder(x + 1, y), base)
    assert not torch.equal(encoder(x, y + 1), base)


def test_a_width_that_cannot_be_is_refused() -> None:
    with pytest.raises(ip.DeclarationError, match="width must be a positive integer"):
        ip.make_network(NAME, width=0)
''',
    use="""\
```python
import infoplace as ip

partition = ip.Partition(blocks={"z": ip.Block(16)}, observations={"x": ip.Observation()})
pair = ip.make_pair(partition, data_shape=(3, 32, 32), networks="$thing")
```""",
)

METRIC = Start(
    module='''\
"""The metric `$thing`."""

from __future__ import annotations

import infoplace as ip
from infoplace.metrics import Subject, Tables

__all__ = ["$made"]


class $made(ip.Metric):
    """How many dimensions of each block are in use: those that vary over the images by more than ``least``.

    Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", where ``least`` is 0.01.

    Args:
        least: the variance above which a dimension counts.

    Raises:
        DeclarationError: a negative variance.

    >>> import torch
    >>> subject = Subject(latents={"z": torch.tensor([[0.0, 5.0], [1.0, 5.0]])})
    >>> $made().tables(subject)["$thing"]
    [{'block': 'z', 'dimensions': 2, 'in_use': 1}]
    """

    least: float = 0.01

    def __post_init__(self) -> None:
        if not self.least >= 0:
            raise ip.DeclarationError(f"least must be at least 0; got {self.least!r}")

    def tables(self, subject: Subject) -> Tables:
        (latents,) = subject.need("$thing", "latents")
        rows = []
        for block, z in latents.items():
            in_use = int((z.var(0, correction=0) > self.least).sum())
            rows.append({"block": block, "dimensions": z.shape[1], "in_use": in_use})
        return {"$thing": rows}
''',
    tests='''\
"""The metric `$thing`: tables worked out by hand."""

from __future__ import annotations

import infoplace as ip
import pytest
import torch
from infoplace.metrics import LackingError, Subject

NAME = "$thing"


def test_dimensions_that_vary_are_counted() -> None:
    # Variances: 1, 0.25, 0 and, of the other block, 4.
    z_g = torch.tensor([[1.0, 0.5, 3.0], [-1.0, -0.5, 3.0]])
    subject = Subject(latents={"z_g": z_g, "z_l": torch.tensor([[2.0], [-2.0]])})
    for least, expected in ((0.01, [2, 1]), (0.25, [1, 1]), (2.0, [0, 1])):
        rows = ip.make_metric(NAME, least=least).tables(subject)[NAME]
        assert [row["in_use"] for row in rows] == expected
        assert [(row["block"], row["dimensions"]) for row in rows] == [("z_g", 3), ("z_l", 1)]


def test_a_subject_without_latents_is_refused() -> None:
    with pytest.raises(LackingError, match="needs 'latents'"):
        ip.make_metric(NAME).tables(Subject())


def test_a_negative_variance_is_refused() -> None:
    with pytest.raises(ip.DeclarationError, match="least must be at least 0"):
        ip.make_metric(NAME, least=-1.0)
''',
    use="""\
```sh
infoplace evaluate runs/first --metric $thing
```""",
)

KINDS: dict[str, Start] = {
    "transform": TRANSFORM,
    "objective": OBJECTIVE,
    "likelihood": LIKELIHOOD,
    "prior": PRIOR,
    "network": NETWORK,
    "metric": METRIC,
}
"""The kinds of things that a plugin may add, and what a new one of each starts from."""
