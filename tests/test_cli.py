"""The command line, as a user types it."""

from __future__ import annotations

import subprocess
import sys

import numpy
import pytest
import yaml
from PIL import Image

import infoplace as ip
from infoplace.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder; gives its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["infoplace", *map(str, arguments)])
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        else:
            status = 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def recipe(tmp_path):
    spec = {
        "partition": {
            "blocks": {"z_g": {"dim": 4}, "z_l": {"dim": 3}},
            "observations": {
                "x": {"blocks": ["z_g", "z_l"]},
                "x_hat": {"blocks": ["z_l"], "transform": {"patch_shuffle": {"n": 4}}},
            },
        },
        "objective": {"beta_elbo": {"beta": 2.0}},
        "training": {"steps": 4, "batch_size": 8, "log_every": 2},
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


@pytest.fixture
def data(tmp_path):
    images = numpy.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=numpy.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    numpy.savez(folder / "train.npz", images=images, label=numpy.arange(40) % 10)
    numpy.savez(folder / "test.npz", images=images[:12], label=numpy.arange(12) % 10)
    return folder


def test_version_and_help(run):
    assert run("--version")[1] == f"infoplace {ip.__version__}\n"
    status, out, _ = run("--help")
    assert status == 0
    for command in ("demo", "train", "sample", "evaluate", "report", "transforms"):
        assert command in out


def test_python_m_infoplace_and_the_console_script_are_the_same():
    for command in ([sys.executable, "-m", "infoplace"], [sys.executable.replace("python", "infoplace")]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"infoplace {ip.__version__}\n"


def test_train_then_sample_then_use(run, recipe, data, tmp_path):
    status, out, err = run("train", recipe, "--data", data, "--out", "run", "--device", "cpu", "--set", "steps=6")
    assert (status, err) == (0, "")
    assert "step 6/6" in out
    pair = ip.load_pair(tmp_path / "run")
    assert pair.partition.blocks["z_g"].dim == 4
    status, out, err = run("sample", "run", "--out", "pictures")
    assert (status, err) == (0, "")
    for name in ("figure1b.png", "figure2.png", "mixtures.png", "loss.png"):
        assert name in out
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert min(picture.size) > 100


def test_a_run_is_evaluated_and_reported(run, recipe, data, tmp_path, monkeypatch):
    monkeypatch.setattr("infoplace.probes.cache.CLASSIFIER_STEPS", 2)
    monkeypatch.setenv("INFOPLACE_CACHE", str(tmp_path / "cache"))
    assert run("train", recipe, "--data", data, "--out", "run", "--device", "cpu")[0] == 0
    measured = ("--metric", "swap", "--metric", "{kl: {images: 5}}", "--device", "cpu")
    status, out, err = run("evaluate", "run", "--factor", "label=z_g", *measured)
    assert status == 0
    assert "predictor of label" in err
    assert "kept_crossed" in out
    rows = (tmp_path / "run" / "evaluation_kept_crossed.csv").read_text().splitlines()
    assert rows[0] == "factor,block,how,kept,crossed"
    assert rows[1].startswith("label,z_g,prior,")
    status, out, err = run("report", "run", "--out", "page.html")
    assert (status, err, out) == (0, "", "page.html\n")
    page = (tmp_path / "page.html").read_text()
    assert "z_g" in page
    status, _, err = run("report", "run", "--out", "page.html")
    assert status == 2
    assert "page.html exists; choose another name, or replace it" in err
    assert (tmp_path / "page.html").read_text() == page
    assert run("report", "run", "--out", "page.html", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("--factor", "label=z_q"),
            "label should be carried by 'z_q', and the pair has no such block; it has 'z_g', 'z_l'",
        ),
        (("--factor", "lable"), "has no factor 'lable'; it has 'label'. Did you mean 'label'"),
        (("--metric", "swop"), "Did you mean 'swap'"),
        (("--split", "train"), "split 'train' holds what the pair was trained on"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(run, recipe, data, tmp_path, arguments, text):
    assert run("train", recipe, "--data", data, "--out", "run", "--device", "cpu")[0] == 0
    status, _, err = run("evaluate", "run", "--device", "cpu", *arguments)
    assert status == 2
    *progress, error = err.splitlines()
    assert error.startswith("infoplace: ")
    assert text in error
    assert progress in ([], ["reading the data"])
    assert not list((tmp_path / "run").glob("evaluation*"))


def test_resume_goes_on(run, recipe, data):
    assert run("train", recipe, "--data", data, "--out", "run", "--device", "cpu")[0] == 0
    status, _, err = run("train", recipe, "--data", data, "--out", "run", "--device", "cpu")
    assert status == 2
    assert "holds a run already" in err
    assert "--resume" in err
    more = ("--set", "steps=8", "--set", "learning_rate=1e-3")
    status, out, _ = run("train", recipe, "--data", data, "--out", "run", "--device", "cpu", "--resume", *more)
    assert status == 0
    assert "for 8 steps" in out
    status, _, err = run("sample", "run", "--device", "gpu")
    assert status == 2
    assert "device must be one of 'auto', 'cpu', 'cuda'; got 'gpu'" in err


def test_two_processes_train_together(recipe, data, tmp_path):
    command = [sys.executable, "-m", "infoplace", "train", recipe, "--data", data, "--out", "run", "--device", "cpu"]
    done = subprocess.run(
        [*map(str, command), "--processes", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.count("trained ") == 1
    assert done.stdout.count("40 images") == 1
    together, alone = ip.load_pair(tmp_path / "run"), ip.load_recipe(recipe).make_pair((3, 16, 16))
    assert together.partition == alone.partition
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


def test_transforms_are_listed(run):
    status, out, _ = run("transforms")
    assert status == 0
    assert "patch_shuffle" in out
    assert "global structure" in out
    status, out, _ = run("transforms", "--destroys", "colour")
    assert "grayscale" in out
    assert "rotate90" not in out


def test_preview_draws_a_contact_sheet(run, data, tmp_path):
    status, out, err = run(
        "transforms", "preview", "patch_shuffle", "-p", "n=4", "--data", data, "--count", "8", "--out", "sheet.png"
    )
    assert (status, out, err) == (0, "sheet.png\n", "")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert min(picture.size) > 100


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "none.yaml", "--out", "run"], "there is no recipe none.yaml; give a file, or one of the shipped"),
        (["train", "mine.yaml", "--out", "run"], "names no data; say what to train on: --data"),
        (["train", "mine.yaml", "--out", "run", "--data", "nowhere"], "no data set, file or folder 'nowhere'"),
        (["train", "mine.yaml", "--out", "run", "--data", "images", "--split", "tset"], "'test'"),
        (["train", "mine.yaml", "--out", "run", "--data", "images", "--set", "step=3"], "Did you mean 'steps'"),
        (["train", "mine.yaml", "--out", "run", "--data", "images", "--set", "steps"], "--set takes name=value"),
        (["train", "mine.yaml", "--out", "run", "--data", "images", "--device", "gpu"], "device must be one of"),
        (["train", "mine.yaml", "--out", "mine.yaml", "--data", "images"], "is a file, and a folder is needed"),
        (["sample", "nowhere"], "there is no folder nowhere"),
        (["sample", "images"], "holds no pair.json"),
        (["sample", "images", "--device", "gpu"], "holds no pair.json"),
        (["transforms", "--destroys", "colur"], "no transform destroys 'colur'; those there are destroy"),
        (["transforms", "preview", "patchshuffle"], "Did you mean 'patch_shuffle'"),
        (["transforms", "preview", "patch_shuffle", "-p", "n=5", "--data", "images"], "1, 2, 4, 8, 16"),
        (["transforms", "preview", "patch_shuffle", "-p", "m=5", "--data", "images"], "no parameter 'm'"),
        (["transforms", "preview", "blur", "--data", "images", "--out", "sheet.gif"], ".png"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_left(run, recipe, data, tmp_path, arguments, text):
    before = sorted(tmp_path.rglob("*"))
    status, _, err = run(*arguments)
    assert status == 2
    assert text in err
    assert err.startswith("infoplace: ")
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unreadable_image_is_named(run, recipe, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "good.png")
    (folder / "bad.png").write_bytes(b"not an image")
    status, _, err = run("train", recipe, "--out", "run", "--data", folder)
    assert status == 2
    assert "bad.png" in err
    assert not (tmp_path / "run").exists()
