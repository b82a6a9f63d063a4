"""The results on disk: one form, every promised claim, and a page that is rendered from them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
RESULTS = sorted((FOLDER / "results").glob("*.json"))
PROMISED = {
    "core_speed": {
        "patch_shuffle_speedup_128_float32",
        "patch_shuffle_speedup_4096_float32",
        "patch_shuffle_speedup_4096_uint8",
        "step_time_ratio",
        "step_memory_ratio",
        "import_time_ratio",
    },
    "demo": {
        "demo_train_seconds",
        "digit_accuracy_reconstruction",
        "digit_accuracy_z_l_resampled",
        "digit_accuracy_z_g_resampled",
        "colour_r2_z_g_resampled",
        "colour_r2_z_l_resampled",
    },
}


@pytest.fixture(scope="module")
def results_file():
    spec = importlib.util.spec_from_file_location("results_file", FOLDER / "results_file.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_has_the_one_form(path):
    result = json.loads(path.read_text())
    assert result["name"] == path.stem
    assert {"name", "command", "commit", "date", "machine", "claims"} <= set(result)
    assert {"device", "cores", "torch"} <= set(result["machine"])
    for claim in result["claims"]:
        assert set(claim) == {"name", "value", "spread", "runs", "unit", "goal", "context"}
        assert claim["goal"] == "" or claim["goal"][:2] in (">=", "<=")


@pytest.mark.parametrize("name", list(PROMISED))
def test_every_promised_claim_is_there(name):
    result = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    assert {claim["name"] for claim in result["claims"]} >= PROMISED[name]


def test_the_page_is_rendered_from_the_files(results_file):
    assert (FOLDER / "RESULTS.md").read_text(encoding="utf-8") == results_file.render()


@pytest.mark.parametrize(
    ("value", "goal", "reached"), [(1.2, "<=1.2", True), (1.21, "<=1.2", False), (2, ">=2", True), (1.9, ">=2", False)]
)
def test_goals(results_file, value, goal, reached):
    assert results_file.met(value, goal) is reached


def test_the_readme_says_what_the_demo_measured():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    claims = {c["name"]: c for c in json.loads((FOLDER / "results" / "demo.json").read_text())["claims"]}
    said = {
        "digit_accuracy_reconstruction": "classifier: {:.2f} on reconstructions",
        "digit_accuracy_z_l_resampled": "kept: {:.2f} | gone:",
        "digit_accuracy_z_g_resampled": "| gone: {:.2f} |",
        "colour_r2_z_l_resampled": "correlation | gone: {:.2f} |",
        "colour_r2_z_g_resampled": "| kept: {:.2f} |",
        "demo_train_seconds": "Training takes {:.0f} seconds",
    }
    for name, text in said.items():
        assert text.format(claims[name]["value"]) in readme, name
    assert f"mean of {claims['demo_train_seconds']['runs']} seeds" in readme
