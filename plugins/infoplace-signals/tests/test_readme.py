"""What the README shows runs, and prints what it says; what the package offers by name is there, and is listed."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import infoplace as ip
import pytest
import torch

import infoplace_signals

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_code_runs_and_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = FENCE.findall(README.read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    ran = 0
    with torch.random.fork_rng(devices=[]):
        for (language, text), (following, expected) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            if language == "python":
                exec(compile(text, str(README), "exec"), names)
                printed = capsys.readouterr().out
                assert printed == (expected if following == "text" else "")
                ran += 1
    assert ran == 3


def test_every_entry_point_leads_to_the_class_of_that_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offered = project["entry-points"]
    assert set(offered) == {"infoplace.transforms", "infoplace.networks"}
    for group, base in (("infoplace.transforms", ip.Transform), ("infoplace.networks", ip.Network)):
        for name, place in offered[group].items():
            module, _, attribute = place.partition(":")
            implementation = getattr(importlib.import_module(module), attribute)
            assert issubclass(implementation, base)
            assert implementation.spec_name == name
            assert getattr(infoplace_signals, attribute) is implementation
    assert project["version"] == infoplace_signals.__version__


def test_the_table_of_transforms_is_whole() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (yes|no) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    stock = [getattr(infoplace_signals, name) for name in infoplace_signals.__all__]
    transforms = [one for one in stock if isinstance(one, type) and issubclass(one, ip.Transform) and one.spec_name]
    assert {name for name, _, _ in rows} == {one.spec_name for one in transforms}
    for name, destroys, random in rows:
        transform = ip.make_transform(name)
        assert destroys.startswith(transform.destroys)
        assert (random == "yes") == transform.stochastic
