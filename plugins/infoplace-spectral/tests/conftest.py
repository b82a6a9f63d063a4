"""The transforms under their names, whether this package is installed or merely importable."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest
from infoplace.errors import UnknownNameError
from infoplace.transforms import make_transform, register_transform

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    for name, place in PROJECT["entry-points"]["infoplace.transforms"].items():
        module, _, attribute = place.partition(":")
        try:
            make_transform(name)
        except UnknownNameError:
            register_transform(name, getattr(importlib.import_module(module), attribute))
