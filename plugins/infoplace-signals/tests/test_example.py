"""The worked case runs from beginning to end. What it finds takes minutes, and is not looked at here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "melody_and_timbre.py"


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the examples are in a checkout of infoplace only")
def test_melody_and_timbre_runs(capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location("melody_and_timbre", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    example.main(["--steps", "4", "--size", "200"])
    printed = capsys.readouterr().out
    assert "200 melodies to train on, 50 to measure on, each [64, 16]" in printed
    for heading in (
        "linear probes",
        "mlp probes",
        "Found in the wrong block",
        "reconstruction",
        "z_melody from other image",
    ):
        assert heading in printed
