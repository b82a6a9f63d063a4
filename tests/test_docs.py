"""The documentation: its code runs and prints what it says, its commands exist, its tables are whole, its links lead on."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
import typer
import yaml

import infoplace as ip
from infoplace.cli import app
from infoplace.files import read_yaml
from infoplace.registry import Registry

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GUIDE = [page for page in PAGES if page.parent.name != "reference"]
RUN = [*GUIDE, ROOT / "README.md"]
CONFIGURATION = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)

# A fence of another kind would be run by nobody.
LANGUAGES = {"python", "text", "mermaid", "yaml", "sh", "toml"}
OUTPUT = ("text", "mermaid")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HIDDEN_MODULES = (
    {
        "infoplace.__main__",
        "infoplace.cli",
        "infoplace.data.formats",
        "infoplace.files",
        "infoplace.missing",
        "infoplace.modes",
        "infoplace.names",
        "infoplace.pair.making",
        "infoplace.pair.modules",
    }
    | {
        f"infoplace.report.{part}"
        for part in ("clusters", "drawing", "explorer", "markup", "measured", "page", "parts", "pictures", "runs")
    }
    | {
        f"infoplace.testing.{part}"
        for part in ("laws", "likelihoods", "objectives", "pairs", "priors", "statistics", "transforms", "watching")
    }
)


@dataclass(frozen=True)
class Fenced:
    language: str
    text: str
    line: int


def fenced(page: Path) -> list[Fenced]:
    text = page.read_text(encoding="utf-8")
    return [Fenced(found[1], found[2], text[: found.start()].count("\n") + 2) for found in FENCE.finditer(text)]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=named)
each_run_page = pytest.mark.parametrize("page", RUN, ids=named)


@pytest.fixture(autouse=True)
def globals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("infoplace.")]
    registries = {id(v): v for module in modules for v in vars(module).values() if isinstance(v, Registry)}.values()
    for registry in registries:
        for field in ("_implementations", "_owners"):
            monkeypatch.setattr(registry, field, dict(getattr(registry, field)))
        monkeypatch.setattr(registry, "_presets", {})
    pyro.clear_param_store()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    pyro.clear_param_store()
    monkeypatch.undo()
    for registry in registries:
        for name, implementation in registry._implementations.items():
            implementation.spec_name = name


# ---- what is between the fences ---------------------------------------------------------------------------------------


@each_page
def test_every_fence_is_of_a_kind_that_is_checked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(fenced(page))
    assert {block.language for block in fenced(page)} <= LANGUAGES


@each_run_page
def test_the_code_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("_".join(page.relative_to(ROOT).with_suffix("").parts))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if page.name == "README.md":
        # It shows the reader's own loop, over the reader's own data.
        module.__dict__["loader"] = torch.randint(0, 256, (2, 8, 3, 32, 32)) / 255
    blocks = fenced(page)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language != "python":
            continue
        # The empty lines make the line numbers of a traceback those of the page.
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), module.__dict__)
        shown = following.text if following is not None and following.language in OUTPUT else ""
        printed = capsys.readouterr().out
        assert printed == shown, f"{page}:{block.line} prints this:\n{printed}"


def yaml_blocks() -> list[Any]:
    return [
        pytest.param(b.text, id=f"{named(page)}:{b.line}")
        for page in PAGES
        for b in fenced(page)
        if b.language == "yaml"
    ]


@pytest.mark.parametrize("text", yaml_blocks())
def test_yaml_is_a_partition_or_a_recipe(text: str) -> None:
    spec = read_yaml(text)
    if "partition" in spec:
        ip.Recipe.from_dict(spec)
    else:
        ip.Partition.from_yaml(text)


def shell_lines() -> list[Any]:
    pages = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [
        pytest.param(line.partition("#")[0].strip(), id=f"{named(page)}: {line}")
        for page in pages
        for block in fenced(page)
        if block.language == "sh"
        for line in block.text.splitlines()
    ]


def without_effect(command: Any) -> Any:
    command.callback = None
    for child in getattr(command, "commands", {}).values():
        without_effect(child)
    return command


@pytest.mark.parametrize("line", shell_lines())
def test_commands_and_their_options_exist(line: str) -> None:
    program, *arguments = shlex.split(line) or [""]
    if program == "infoplace":
        without_effect(typer.main.get_command(app)).main(arguments, prog_name="infoplace", standalone_mode=False)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets)


def test_a_command_that_is_not_there_would_be_noticed() -> None:
    for line in ("infoplace trian demo", "infoplace train demo --out runs --step 3", "infoplace train demo"):
        with pytest.raises(Exception, match=r"No such|Missing"):
            test_commands_and_their_options_exist(line)


# ---- tables and names -------------------------------------------------------------------------------------------------


def table(page: Path, header: str) -> list[list[str]]:
    """The rows of the table whose header begins so, as cells."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_table_of_transforms_is_whole() -> None:
    written = table(DOCS / "guide" / "transforms.md", "| name | destroys")
    expected = []
    for name in ip.list_transforms():
        described = ip.describe_transform(name)
        if described.owner.startswith("infoplace."):
            random = "as its parts" if name == "compose" else described.details["random"].partition(",")[0]
            parameters = ", ".join(f"`{text}`" for text in described.parameters.values())
            expected.append([f"`{name}`", described.details["destroys"], random, parameters])
    assert written == expected


@pytest.mark.parametrize(
    ("page", "names", "describe"),
    [
        ("declaring", ip.list_likelihoods, ip.describe_likelihood),
        ("declaring", ip.list_priors, ip.describe_prior),
        ("objectives", ip.list_objectives, ip.describe_objective),
        ("pairs", ip.list_networks, ip.describe_network),
    ],
)
def test_the_guide_names_all_that_is_stock(page: str, names: Any, describe: Any) -> None:
    text = (DOCS / "guide" / f"{page}.md").read_text(encoding="utf-8")
    stock = [name for name in names() if describe(name).owner.startswith("infoplace.")]
    assert [name for name in stock if f"`{name}`" not in text] == []


@each_page
def test_the_names_in_prose_exist(page: Path) -> None:
    owners = {
        "ip": ip,
        "pair": ip.Pair,
        "partition": ip.Partition,
        "table": importlib.import_module("infoplace.metrics").SwapTable,
    }
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        for owner, name in re.findall(
            r"(?<![\w.])(ip|pair|partition|table)\.([a-z]\w*)(?!\w*\.(?:yaml|json|md))", code
        ):
            known = {*dir(owners[owner]), *inspect.get_annotations(owners[owner]), "model", "guide", "json", "yaml"}
            assert name in known, f"{page}: {code}"


# ---- links and the site -----------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in headings}


def found(path: str) -> bool:
    """Whether a dotted path leads to a module, or to something in one."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            item: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            item = getattr(item, name, None)
        return item is not None
    return False


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            other = (page.parent / file).resolve() if file else page
            assert other in PAGES, f"{page}: {target}"
            assert not anchor or anchor in anchors(other), f"{page}: {target}"
    for target in re.findall(r"\]\[([\w.]+)\]", prose(page)):
        assert found(target), f"{page}: {target}"


def pages_of(navigation: Any) -> list[str]:
    if isinstance(navigation, str):
        return [navigation]
    items = navigation.values() if isinstance(navigation, dict) else navigation
    return [page for item in items for page in pages_of(item)]


def test_the_site_shows_every_page_once() -> None:
    assert sorted(pages_of(CONFIGURATION["nav"])) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_the_reference_has_every_module() -> None:
    shown = [
        name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(shown) == len(set(shown))
    assert [name for name in shown if not found(name)] == []
    modules = {module.name for module in pkgutil.walk_packages(ip.__path__, "infoplace.")}
    assert modules - HIDDEN_MODULES == set(shown)
