"""Who may import whom, and that importing the package is light and changes nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import infoplace

PACKAGE = Path(infoplace.__file__).parent
HEAVY = {
    "PIL",
    "kornia",
    "lightning_fabric",
    "matplotlib",
    "pyarrow",
    "rich",
    "scipy",
    "sklearn",
    "tensorboard",
    "torchvision",
    "typer",
    "zuko",
}

_PARTITION = {"errors", "missing", "names", "files", "registry", "transforms", "distributions"}
_PAIR = _PARTITION | {"modes", "networks", "partition"}
_RECIPE = {"errors", "files", "networks", "objectives", "pair", "partition", "registry"}
MAY_IMPORT = {
    "errors": set(),
    "modes": set(),
    "missing": {"errors"},
    "names": set(),
    "files": {"errors"},
    "registry": {"errors"},
    "transforms": {"errors", "registry"},
    "distributions": {"errors", "registry"},
    "networks": {"errors", "registry"},
    "evidence": {"errors", "modes"},
    "objectives": {"errors", "evidence", "modes", "names", "registry", "transforms"},
    "probes": {"errors", "files"},
    "metrics": {"errors", "evidence", "modes", "probes", "registry"},
    "data": {"errors"},
    "plots": {"errors", "files"},
    "partition": _PARTITION,
    "pair": _PAIR,
    "recipe": _RECIPE,
    "step": {"errors", "objectives", "pair"},
    "clusters": {"distributions", "errors", "modes", "names", "objectives", "pair", "recipe"},
    "training": _RECIPE | {"clusters", "distributions", "names", "recipe", "step"},
}
"""Each part, and the parts of the package that it may import; its own folder's files always."""

ON_TOP = {"figures", "evaluation", "report", "demo", "scaffold", "testing"}
"""These may import anything but the command line, and nobody but the command line imports them."""


def parts() -> dict[str, list[Path]]:
    """Every part of the package (a file, or a folder of files) and its files."""
    found: dict[str, list[Path]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        found.setdefault(file.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(file)
    return found


def inside(file: Path) -> Iterator[tuple[str, str]]:
    """The package's own parts that a file imports, anywhere in it; a name of the package itself has part ``""``."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively; write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "infoplace":
                is_part = bool(rest) and rest[0] in parts()
                yield (rest[0] if is_part else ""), name


def at_the_top(node: ast.AST) -> Iterator[str]:
    """The packages imported when a module is, leaving out functions and what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield str(child.module).partition(".")[0]
        else:
            yield from at_the_top(child)


@pytest.mark.parametrize("part", [part for part in parts() if part not in ("__init__", "__main__", "cli")])
def test_a_part_imports_only_what_is_below_it(part: str) -> None:
    assert part in MAY_IMPORT or part in ON_TOP, f"say in this file which parts {part} may import"
    allowed = set(parts()) - {"__init__", "__main__", "cli"} if part in ON_TOP else MAY_IMPORT[part] | {part}
    for file in parts()[part]:
        for other, name in inside(file):
            fine = other in allowed or name == "infoplace.__version__" or (part in ON_TOP and not other)
            assert fine, f"{file} imports {name}; it may import {', '.join(sorted(allowed))}"


def test_the_order_has_no_circle() -> None:
    done: set[str] = set()
    while left := set(MAY_IMPORT) - done:
        ready = {part for part in left if MAY_IMPORT[part] <= done}
        assert ready, f"{left} import each other in a circle"
        done |= ready


def test_the_package_imports_nothing_that_is_on_top() -> None:
    assert {other for other, _ in inside(PACKAGE / "__init__.py")} <= set(MAY_IMPORT)


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_large_packages_are_imported_where_they_are_used(file: Path) -> None:
    allowed = {"rich", "typer"} if file == PACKAGE / "cli.py" else set()
    assert set(at_the_top(ast.parse(file.read_text(encoding="utf-8")))) & HEAVY <= allowed


@pytest.mark.parametrize("statement", ["import infoplace", "import infoplace.cli, infoplace.scaffold"])
def test_torch_waits_until_something_is_asked_for(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in ('numpy', 'pyro', 'torch') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "[]"


def test_a_misspelt_name_is_an_error_that_names_the_nearest() -> None:
    code = "import infoplace; infoplace.make_piar"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert run.stderr.splitlines()[-1] == (
        "AttributeError: module 'infoplace' has no attribute 'make_piar'. Did you mean: 'make_pair'?"
    )


def test_the_public_names_exist_and_are_sorted() -> None:
    assert infoplace.__all__ == sorted(infoplace.__all__)
    assert len(set(infoplace.__all__)) == len(infoplace.__all__)
    for name in infoplace.__all__:
        assert getattr(infoplace, name).__doc__, f"{name} has no docstring"


LOOK = """
import json, logging, os, random, sys, threading, warnings
import numpy, pyro, torch
import pyro.distributions.distribution, pyro.infer.util, pyro.poutine.runtime

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "grad mode": torch.is_grad_enabled(),
        "torch randomness": torch.get_rng_state().sum().item(),
        "numpy randomness": str(numpy.random.get_state()),
        "python randomness": hash(random.getstate()),
        "threads of torch": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        "cuda started": torch.cuda.is_initialized(),
        "torch validation": torch.distributions.Distribution._validate_args,
        "pyro settings": {key: str(value) for key, value in pyro.settings.get().items()},
        "pyro validation": pyro.infer.util.is_validation_enabled(),
        "pyro parameters": sorted(pyro.get_param_store().keys()),
        "pyro handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "warnings": [str(each) for each in warnings.filters],
        "logging": [str(each) for each in logging.getLogger().handlers],
        "environment": dict(os.environ),
        "threads": threading.active_count(),
        "print": str(numpy.get_printoptions()) + str(torch._tensor_str.PRINT_OPTS),
        "hooks": str([sys.excepthook, sys.displayhook]),
        "path": sys.path,
    }

before, modules = state(), set(sys.modules)
import infoplace
for name in infoplace.__all__:
    getattr(infoplace, name)  # imports the module that it is from
after = state()
print(json.dumps([before, after, sorted({name.partition(".")[0] for name in set(sys.modules) - modules})]))
"""


@pytest.fixture(scope="module")
def seen() -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """The state of a fresh process before and after the import, and the top-level packages that it brought in."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    before, after, brought = json.loads(run.stdout)
    return before, after, set(brought)


def test_importing_the_package_changes_no_global(seen: tuple[dict[str, Any], dict[str, Any], set[str]]) -> None:
    before, after, _ = seen
    assert after == before


def test_importing_the_package_imports_no_large_package(seen: tuple[dict[str, Any], dict[str, Any], set[str]]) -> None:
    *_, brought = seen
    assert "infoplace" in brought
    assert brought & HEAVY == set()
