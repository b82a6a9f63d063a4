"""New plugins of every kind pass the checks that they come with, and what is installed is listed with what is wrong with it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import infoplace as ip
from infoplace import scaffold
from infoplace.errors import DeclarationError, InfoplaceError, RunFolderError
from infoplace.scaffold import KINDS, Plugin, installed_plugins, new_plugin
from infoplace.transforms import Transform

ROOT = Path(__file__).parent.parent
LONG = "x-" + "abcdefghij-" * 3 + "ab"


def message(action: Callable[[], object], error: type[InfoplaceError] = DeclarationError) -> str:
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) is error
    return str(caught.value)


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def install(folder: Path, site: Path) -> None:
    """Puts next to the package what an installer would: so it is found as a distribution, with its entry points."""
    about = project(folder)["project"]
    info = site / f"{about['name'].replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: 0.1.0\n")
    lines = []
    for group, entries in about["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plugins")
    return {kind: new_plugin(f"infoplace-my-{kind}", folder, kind) for kind in KINDS}


# ---- what is written ---------------------------------------------------------------------------------------------------

RUN = """
import json, sys, warnings
import pytest
from infoplace.scaffold import installed_plugins
done = {}
for folder in sys.argv[1:]:
    done[folder] = int(pytest.main(["-c", f"{folder}/pyproject.toml", "--rootdir", folder, folder, "-p", "no:cacheprovider"]))
print()
print(json.dumps([done, [[each.kind, each.name, each.distribution, each.version, each.error] for each in installed_plugins()]]))
"""


def test_every_kind_passes_its_own_tests_and_is_found_when_installed(plugins: dict[str, Path], tmp_path: Path) -> None:
    for folder in plugins.values():
        install(folder, tmp_path)
    path = os.pathsep.join(map(str, [tmp_path, *plugins.values(), ROOT]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("INFOPLACE_DISABLE_PLUGINS", None)
    run = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, plugins.values())],
        capture_output=True, text=True, check=False, timeout=900, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    done, found = json.loads(run.stdout.splitlines()[-1])
    assert done == dict.fromkeys(map(str, plugins.values()), 0), run.stdout
    passed = [int(number) for number in re.findall(r"(\d+) passed", run.stdout)]
    assert len(passed) == len(plugins)
    assert min(passed) >= 4
    mine = [each for each in found if each[1].startswith("my_")]
    assert mine == [[kind, f"my_{kind}", f"infoplace-my-{kind}", "0.1.0", None] for kind in KINDS]


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not installed")
def test_every_kind_passes_ruff_however_long_its_name(plugins: dict[str, Path], tmp_path: Path) -> None:
    folders = [*plugins.values()]
    for number, kind in enumerate(KINDS):
        folders.append(new_plugin(f"q{number}", tmp_path, kind))
        long = f"{LONG}-{kind[:2]}"
        assert len(long) == scaffold.LONGEST
        folders.append(new_plugin(long, tmp_path, kind))
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    for arguments in (["check"], ["format", "--check"]):
        run = subprocess.run(
            [str(ruff), *arguments, "--no-cache", *map(str, folders)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout
    shared, own = (project(folder)["tool"]["ruff"] for folder in (ROOT, folders[0]))
    assert own == shared


def test_every_kind_passes_mypy(plugins: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    own = {kind: project(folder)["tool"]["mypy"] for kind, folder in plugins.items()}
    options = {key: value for key, value in own["prior"].items() if key not in ("files", "overrides")}
    assert all(own[kind] == {**own["prior"], "files": [f"infoplace_my_{kind}"]} for kind in KINDS)
    shared = project(ROOT)["tool"]["mypy"]
    assert options == {key: value for key, value in shared.items() if key not in ("files", "overrides")}
    # Without torch's own types, which take mypy longer to read than all the rest.
    lines = ["[mypy]", *(f"{key} = {value}" for key, value in options.items())]
    lines += ["[mypy-torch.*,pyro.*,yaml.*]", "ignore_missing_imports = true", "follow_imports = skip"]
    lines += ["[mypy-infoplace.*]", "follow_imports = silent"]
    (tmp_path / "mypy.ini").write_text("\n".join(lines))
    packages = [str(folder / f"infoplace_my_{kind}") for kind, folder in plugins.items()]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", os.devnull, *packages],
        capture_output=True, text=True, check=False, timeout=900, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout


def test_a_plugin_is_whole(plugins: dict[str, Path]) -> None:
    for kind, folder in plugins.items():
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert found == sorted([
            ".gitignore", "README.md", "pyproject.toml", f"infoplace_my_{kind}/__init__.py", f"infoplace_my_{kind}/my_{kind}.py",
            f"infoplace_my_{kind}/py.typed", f"tests/test_my_{kind}.py",
        ])  # fmt: skip
        about = project(folder)
        assert about["project"]["entry-points"] == {
            f"infoplace.{kind}s": {f"my_{kind}": f"infoplace_my_{kind}:My{kind.capitalize()}"}
        }
        # The groups are those that the registries read.
        assert getattr(ip, f"list_{kind}s")
        text = "".join((folder / path).read_text(encoding="utf-8") for path in found)
        assert "$" not in text
        assert "TODO" not in text
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert f"`my_{kind}`" in readme
        assert ("pyro-ppl" in str(about["project"]["dependencies"])) is ("from pyro" in text)


@pytest.mark.parametrize(
    ("name", "package", "thing", "made"),
    [
        ("infoplace-swirl", "infoplace_swirl", "swirl", "SwirlTransform"),
        ("Infoplace-Half-Turn2", "infoplace_half_turn2", "half_turn2", "HalfTurn2Transform"),
        ("swirls", "swirls", "swirls", "SwirlsTransform"),
        ("infoplace-none", "infoplace_none", "none", "NoneTransform"),
        ("infoplace-class", "infoplace_class", "infoplace_class", "InfoplaceClassTransform"),
        ("infoplace-3d", "infoplace_3d", "infoplace_3d", "Infoplace3dTransform"),
        ("infoplace-transform", "infoplace_transform", "transform", "Transform"),
    ],
)
def test_names(name: str, package: str, thing: str, made: str, tmp_path: Path) -> None:
    folder = new_plugin(name, tmp_path / "new" / "folder")
    assert folder == tmp_path / "new" / "folder" / name
    entries = project(folder)["project"]["entry-points"]["infoplace.transforms"]
    assert entries == {thing: f"{package}:{made}"}
    source = (folder / package / f"{thing}.py").read_text(encoding="utf-8")
    assert f"class {made}(ip.Transform):" in source
    ast.parse(source)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("swirl plugin", "transform", "a plugin's name is letters, digits and single hyphens, as 'infoplace-swirl'; got 'swirl"),
        ("../swirl", "transform", "a plugin's name is letters, digits and single hyphens"),
        ("infoplace--swirl", "transform", "a plugin's name is letters, digits and single hyphens"),
        ("infoplace_swirl", "transform", "a plugin's name is letters, digits and single hyphens"),
        ("", "transform", "a plugin's name is letters, digits and single hyphens"),
        ("3d", "transform", "a plugin's name is letters, digits and single hyphens"),
        (None, "transform", "a plugin's name is letters, digits and single hyphens"),
        (LONG + "-long", "transform", f"a plugin's name has at most 40 characters; '{LONG}-long' has 42"),
        ("class", "transform", "'class' would make a package 'class', which is a word of Python; choose another name"),
        ("random", "transform", "'random' would make a package 'random', which is a word of Python; choose another name"),
        ("torch", "transform", "a package 'torch' is installed already; choose another name"),
        ("infoplace", "transform", "a package 'infoplace' is installed already; choose another name"),
        ("infoplace-blur", "transform", "there is a transform 'blur' already, from infoplace; choose another name"),
        ("infoplace-swap", "metric", "there is a metric 'swap' already, from infoplace; choose another name"),
        ("infoplace-low-pass", "transform", "there is a transform 'low_pass' already, from infoplace-spectral; choose"),
        ("infoplace-swirl", "transfrom", "there is no kind of plugin 'transfrom'. Did you mean 'transform'? Known: transform,"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name: Any, kind: str, text: str, tmp_path: Path) -> None:
    assert message(lambda: new_plugin(name, tmp_path / "new", kind)).startswith(text)
    assert list(tmp_path.rglob("*.py")) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "infoplace-swirl").mkdir()
    assert message(lambda: new_plugin("infoplace-swirl", tmp_path), RunFolderError) == (
        f"{tmp_path / 'infoplace-swirl'} exists already; choose another name or another folder, or remove it first"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["infoplace-swirl"]
    (tmp_path / "file").write_text("")
    assert "is a file, and a folder is needed" in message(
        lambda: new_plugin("infoplace-swirl", tmp_path / "file"), RunFolderError
    )


@pytest.mark.parametrize("step", ["write_text", "rename"])
def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((Path, "write_text") if step == "write_text" else (os, "rename")), full)
    assert message(lambda: new_plugin("infoplace-swirl", tmp_path), RunFolderError) == (
        f"cannot write {tmp_path / 'infoplace-swirl'}: No space left on device; free some space or choose another folder"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_module_imports_nothing_that_is_slow() -> None:
    tree = ast.parse(Path(scaffold.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "infoplace", "infoplace.errors", "infoplace.files", "infoplace.registry",
    }  # fmt: skip


# ---- what is installed -------------------------------------------------------------------------------------------------


def make_swirl() -> type[Transform]:
    class Swirl(Transform):
        """Swirls."""

        destroys = "direction"
        stochastic = False

    return Swirl


class Distribution:
    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version


class EntryPoint:
    """As much of importlib's as is used."""

    def __init__(self, name: str, result: Any, distribution: str | None = "swirls") -> None:
        self.name, self.result, self.value = name, result, f"{name}_package:Class"
        self.dist = Distribution(distribution, "1.2") if distribution else None

    def load(self) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    from infoplace.transforms.base import _registry

    monkeypatch.delenv("INFOPLACE_DISABLE_PLUGINS", raising=False)
    for field in ("_implementations", "_owners", "_presets"):
        monkeypatch.setattr(_registry, field, dict(getattr(_registry, field)))

    def offer(*entries: EntryPoint) -> None:
        monkeypatch.setattr(_registry, "_entry_points", None)
        found = {"infoplace.transforms": list(entries)}
        monkeypatch.setattr(metadata, "entry_points", lambda *, group: found.get(group, []))

    return offer


def test_what_is_installed_is_listed_with_what_is_wrong(offer: Callable[..., None]) -> None:
    swirl = make_swirl()
    offer(
        EntryPoint("swirl", swirl),
        EntryPoint("broken", ImportError("no module named 'cupy'\nand more")),
        EntryPoint("wrong", int, distribution=None),
        EntryPoint("blur", swirl),
        EntryPoint("grayscale", RuntimeError("never seen")),
        EntryPoint("twice", swirl),
        EntryPoint("twice", swirl, distribution="eddies"),
    )
    hidden = "hidden by infoplace.transforms.stock.Blur, which has the name already"
    claimed = "the transform name 'twice' is claimed by swirls 1.2 and eddies 1.2; uninstall one of them"
    assert installed_plugins() == [
        Plugin("transform", "blur", "swirls", "1.2", hidden),
        Plugin("transform", "broken", "swirls", "1.2", "fails to load: no module named 'cupy'"),
        Plugin("transform", "grayscale", "swirls", "1.2", hidden.replace("Blur", "Grayscale")),
        Plugin("transform", "swirl", "swirls", "1.2", None),
        Plugin("transform", "twice", "eddies", "1.2", claimed),
        Plugin("transform", "twice", "swirls", "1.2", claimed),
        Plugin(
            "transform", "wrong", "wrong_package", "", "is <class 'int'>, not a class derived from infoplace.Transform"
        ),
    ]


def test_one_that_registers_itself_is_no_stranger_to_itself(offer: Callable[..., None]) -> None:
    swirl = make_swirl()
    offer(EntryPoint("swirl", swirl))
    ip.register_transform("swirl", swirl)
    assert installed_plugins() == [Plugin("transform", "swirl", "swirls", "1.2", None)]


def test_disabled_plugins_are_listed_and_not_loaded(
    offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(EntryPoint("swirl", RuntimeError("loaded")))
    monkeypatch.setenv("INFOPLACE_DISABLE_PLUGINS", "1")
    (found,) = installed_plugins()
    assert found.error == "not loaded, because INFOPLACE_DISABLE_PLUGINS is set"


def test_a_name_that_a_plugin_holds_is_taken(offer: Callable[..., None], tmp_path: Path) -> None:
    offer(EntryPoint("swirl", make_swirl()), EntryPoint("broken", ImportError("no module named 'cupy'")))
    assert message(lambda: new_plugin("infoplace-swirl", tmp_path)) == (
        "there is a transform 'swirl' already, from swirls; choose another name"
    )
    assert message(lambda: new_plugin("infoplace-broken", tmp_path)) == (
        "there is a transform 'broken' already, from swirls; choose another name"
    )
