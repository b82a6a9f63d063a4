"""The demo from rendering to the printed table, with a training of a few steps."""

from __future__ import annotations

import dataclasses
import json

import pytest

import infoplace as ip
from infoplace import demo
from infoplace.recipe import shipped_recipes


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """The demo's recipe and predictors, cut to a few steps; what they then score is not tested."""
    monkeypatch.setattr(demo, "PREDICTOR_STEPS", 2)
    monkeypatch.setenv("INFOPLACE_CACHE", str(tmp_path / "cache"))
    recipe = ip.load_recipe(shipped_recipes()["experiment1"])
    return dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, steps=3, batch_size=8))


def test_everything_is_made_and_printed(quick, tmp_path, capsys):
    made = demo.run_demo(tmp_path / "demo", device="cpu", size=50, recipe=quick)
    printed = capsys.readouterr().out
    assert "digit, which belongs in z_g:   kept" in printed
    assert "colour, which belongs in z_l:  kept" in printed
    assert {path.name for path in made.pictures} == {"figure1b.png", "figure2.png", "mixtures.png", "loss.png"}
    for path in made.pictures:
        assert path.is_file()
        assert str(path) in printed
    rows = json.loads((tmp_path / "demo" / "swap.json").read_text())
    assert {(row["changed"], row["factor"]) for row in rows} >= {(None, "digit"), ("z_l", "digit"), ("z_g", "ground")}
    assert ip.load_pair(tmp_path / "demo").partition == quick.partition
    weights = (tmp_path / "demo" / "weights.safetensors").read_bytes()
    again = demo.run_demo(tmp_path / "demo", device="cpu", size=50, recipe=quick)
    assert "is finished; measuring it again" in capsys.readouterr().out
    assert again.table.rows() == made.table.rows()
    assert (tmp_path / "demo" / "weights.safetensors").read_bytes() == weights
    with pytest.raises(ip.RunFolderError, match="holds a run of another recipe or seed"):
        demo.run_demo(tmp_path / "demo", device="cpu", size=50, recipe=quick, seed=4)
