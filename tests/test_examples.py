"""The examples: each runs with few steps, and prints and returns what it promises; the full runs' numbers are in the files."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
import pytest
import torch

import infoplace as ip
from infoplace.metrics import PlacementTable
from infoplace.registry import Registry
from infoplace.testing import check_likelihood

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
NEEDS = {"lightning_trainer": "lightning", "melody_and_timbre": "infoplace_signals"}
"""What an example needs beside infoplace itself."""

Load = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def globals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples seed torch, register things and fill Pyro's store, as scripts may."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("infoplace.")]
    registries = {id(v): v for module in modules for v in vars(module).values() if isinstance(v, Registry)}.values()
    for registry in registries:
        for field in ("_implementations", "_owners"):
            monkeypatch.setattr(registry, field, dict(getattr(registry, field)))
    pyro.clear_param_store()
    with torch.random.fork_rng(devices=[]):
        yield
    pyro.clear_param_store()


def skip_if_lacking(name: str) -> None:
    module = NEEDS.get(name)
    if module is not None and importlib.util.find_spec(module) is None:
        pytest.skip(f"examples/{name}.py needs {module}, which is not installed")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def loaded(name: str) -> ModuleType:
        skip_if_lacking(name)
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return loaded


def checked_table(table: PlacementTable, blocks: set[str], factors: set[str], printed: str) -> None:
    assert (set(table.blocks), set(table.factors)) == (blocks, factors)
    assert str(table) in printed
    assert all(row["low"] <= row["score"] <= row["high"] for row in table.rows())


def checked_descent(before_after: list[Mapping[str, float]], what: str, printed: str) -> None:
    before, after = before_after
    assert after[what] < 0.98 * before[what]
    lines = [line.rsplit(maxsplit=2) for line in printed.splitlines()]
    for name in after:
        assert [name, f"{before[name]:.1f}", f"{after[name]:.1f}"] in [[line[0].strip(), *line[1:]] for line in lines]


# ---- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_steps_and_nothing_else_is_needed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    skip_if_lacking(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert "[--steps STEPS]" in printed


@pytest.mark.parametrize("name", NAMES)
def test_it_is_listed_and_says_how_it_is_run(name: str) -> None:
    assert f"[`{name}.py`]({name}.py)" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"python examples/{name}.py" in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


# ---- one by one --------------------------------------------------------------------------------------------------------


def test_batch_effect(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("batch_effect").main(steps=4, cells=400)
    checked_table(table, {"z, not told", "z, told"}, {"cell type", "batch"}, capsys.readouterr().out)


def test_the_counts_of_batch_effect_have_a_lawful_likelihood(load: Load) -> None:
    module = load("batch_effect")
    check_likelihood("negative_binomial", shape=(4,))
    raw = torch.tensor([[0.7, -0.2, 1.1, 0.3]]).double()  # two log means, two log dispersions
    counts = torch.arange(400.0).double()[:, None].expand(-1, 2)
    found = ip.make_likelihood("negative_binomial").distribution(raw.unflatten(1, (2, 2)), -2)
    probabilities = found.log_prob(counts).exp()
    torch.testing.assert_close(probabilities.sum(0), torch.ones(2).double())
    mean, dispersion = raw[0, :2].exp(), raw[0, 2:].exp()
    torch.testing.assert_close((probabilities * counts).sum(0), mean)
    variance = (probabilities * (counts - mean).square()).sum(0)
    torch.testing.assert_close(variance, mean + mean.square() / dispersion)
    with pytest.raises(ip.DataError, match="counts are 0, 1, 2"):
        module.declare(told=False).observe(torch.full((2, 50), 0.5))


def test_colour_and_shape(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    module = load("colour_and_shape")
    table = module.main(steps=2, size=200)
    checked_table(table, {"z_shape", "z_colour"}, set(module.CARRIERS), capsys.readouterr().out)


def test_three_blocks(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    module = load("three_blocks")
    table = module.main(steps=2, size=200)
    checked_table(table, {"z_layout", "z_colour", "z_texture"}, set(module.CARRIERS), capsys.readouterr().out)


def test_own_guide(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("own_guide").main(steps=60)
    checked_table(table, {"z_place", "z_height"}, {"place", "height"}, capsys.readouterr().out)


def test_the_rows_of_own_guide_hold_what_is_said_of_them(load: Load) -> None:
    rows, known = load("own_guide").rows(500, torch.Generator().manual_seed(0))
    assert torch.equal(rows.unflatten(1, (6, 2)).mean(2).argmax(1), known["place"])
    correlation = torch.corrcoef(torch.stack([rows.amax(1), known["height"]]))[0, 1]
    assert correlation > 0.95


def test_torch_loop(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    found = load("torch_loop").main(steps=5, size=100)
    checked_descent(found, "loss", capsys.readouterr().out)


def test_pyro_svi(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    found = load("pyro_svi").main(steps=5, size=100)
    printed = capsys.readouterr().out
    checked_descent(found, "beta_elbo, beta 4", printed)
    for values in found:
        assert values["elbo"] == pytest.approx(values["TraceMeanField_ELBO"], rel=1e-5)
        assert values["elbo"] < values["beta_elbo, beta 4"]
    assert "posterior predictive draws of x: [5, 200, 3, 32, 32]" in printed


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and about torch
def test_lightning_trainer(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    found = load("lightning_trainer").main(steps=5, size=200)
    checked_descent(found, "loss", capsys.readouterr().out)


def test_lightning_trainer_says_what_is_missing(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "lightning_trainer.py"), run_name="__main__")
    message = "this example needs Lightning's Trainer, which infoplace does not install; type: pip install lightning"
    assert end.value.code == message


def test_plugin_in_ten_lines(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    log: list[dict[str, Any]] = load("plugin_in_ten_lines").main(steps=8, size=100)
    printed = capsys.readouterr().out
    assert "row_shuffle keeps the laws; it destroys what stands above what" in printed
    assert [row["step"] for row in log] == [2, 4, 6, 8]
    assert log[-1]["loss"] < log[0]["loss"]
    assert printed.splitlines()[-1].split()[:2] == ["8", f"{log[-1]['loss']:.0f}"]


def test_the_transform_of_plugin_in_ten_lines_moves_whole_rows(load: Load) -> None:
    load("plugin_in_ten_lines")
    images = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    shuffled = ip.make_transform("row_shuffle")(images, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(shuffled, images)
    for before, after in zip(images, shuffled, strict=True):
        rows = [sorted(image.transpose(0, 1).flatten(1).tolist()) for image in (before, after)]
        assert rows[0] == rows[1]


def test_melody_and_timbre(load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    skip_if_lacking("melody_and_timbre")
    monkeypatch.setattr(sys, "argv", ["melody_and_timbre.py", "--steps", "2", "--size", "200"])
    runpy.run_path(str(EXAMPLES / "melody_and_timbre.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("z_melody", "z_timbre", "melody", "timbre", "key", "chance"))
