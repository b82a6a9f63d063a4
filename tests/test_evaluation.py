"""Measuring a run from its folder: the tables, the files, what is asked for, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest
import torch
import yaml

import infoplace as ip
from infoplace.data import ImageData, load
from infoplace.evaluation import (
    EVALUATION,
    class_probabilities,
    encodings,
    evaluate,
    progress_bar,
    subject_of,
)
from infoplace.metrics import LackingError, Metric, Subject, list_metrics, make_metric, register_metric
from infoplace.probes import Predictor, train_classifier, train_regressor
from infoplace.recipe import Factor

SPEC = {
    "data": "street_numbers/easy",
    "partition": {
        "blocks": {"z_g": {"dim": 4}, "z_l": {"dim": 3}},
        "observations": {
            "x": {"blocks": ["z_g", "z_l"]},
            "x_hat": {"blocks": ["z_l"], "transform": {"patch_shuffle": {"n": 8}}, "redraw": True},
        },
    },
    "objective": {"beta_elbo": {"beta": 2.0}},
    "training": {"steps": 2, "batch_size": 8},
    "factors": {"digit": "z_g", "ground": {"block": "z_l", "given": "count"}, "count": None},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps on 200 images, and a small set's name that stands for the data."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    recipe = ip.Recipe.from_dict(SPEC)
    train = load("street_numbers/easy", "train", size=200)
    ip.train(recipe, train, train.shape, folder, device="cpu", progress=False)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Data of a few images and predictors of a few steps, so that the whole of an evaluation takes a second."""

    def few(source, split="train", limit=None, **options):
        data = load(source, split, size=min(limit or 60, {"train": 200}.get(split, 60)))
        constant = torch.zeros(len(data), dtype=torch.int64)
        return dataclasses.replace(data, factors={**data.factors, "constant": constant})

    def quick(data, factor, **options) -> Predictor:
        values = data.factors[factor]
        if values.is_floating_point():
            return train_regressor(data.images, values, steps=2)
        return train_classifier(data.images, values, steps=2)

    monkeypatch.setattr("infoplace.evaluation.load", few)
    monkeypatch.setattr("infoplace.evaluation.predictor_for", quick)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_is_measured_and_written(trained, small, tmp_path):
    told = []
    found = evaluate(
        trained, device="cpu", out=tmp_path, report=lambda what, done, total: told.append((what, done, total))
    )
    written = json.loads((tmp_path / EVALUATION).read_text())
    assert written == found.to_dict()
    assert set(written["tables"]) == {
        "swap", "kept_crossed", "placement", "placement_summary", "kl", "bits_per_dim", "disentanglement"
    }  # fmt: skip
    for table, rows in written["tables"].items():
        with (tmp_path / f"evaluation_{table}.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        assert len(read) == len(rows) > 0
        assert {key: "" if value is None else str(value) for key, value in rows[0].items()} == read[0]
        assert table in str(found)
    assert {row["factor"] for row in written["tables"]["placement"]} == {"digit", "ground", "count"}
    assert {row["block"] for row in written["tables"]["kl"]} == {"z_g", "z_l"}
    assert {row["observation"] for row in written["tables"]["bits_per_dim"]} == {"x", "x_hat"}
    assert {(row["factor"], row["block"]) for row in written["tables"]["kept_crossed"]} == {
        ("digit", "z_g"), ("ground", "z_l"), ("ground given count", "z_l")
    }  # fmt: skip
    assert written["data"]["split"] == "test"
    assert written["factors"]["ground"] == {"block": "z_l", "given": "count"}
    assert {what for what, _, _ in told} >= {"swap", "placement", "predictor of digit"}
    assert all(0 <= done <= total for _, done, total in told)


def test_the_same_seed_gives_the_same_numbers_and_samples_give_others(trained, small, tmp_path):
    once, again, drawn = (
        evaluate(trained, device="cpu", out=tmp_path, metrics=["swap"], samples=samples, seed=3).tables["swap"]
        for samples in (False, False, True)
    )
    assert once == again
    assert once != drawn


def test_a_metric_of_ones_own_is_measured_beside_the_built_in_ones(trained, small, tmp_path):
    @register_metric("spread_of_blocks", overwrite=True)
    class Spread(Metric):
        """The mean standard deviation of each block's dimensions."""

        def tables(self, subject):
            (latents,) = subject.need("spread_of_blocks", "latents")
            return {"spread": [{"block": name, "spread": float(z.std(0).mean())} for name, z in latents.items()]}

    assert "spread_of_blocks" in list_metrics()
    found = evaluate(trained, device="cpu", out=tmp_path, metrics=["spread_of_blocks", {"kl": {"images": 20}}])
    assert set(found.tables) == {"spread", "kl"}
    assert (tmp_path / "evaluation_spread.csv").is_file()


def test_images_without_factors_are_measured_as_far_as_it_goes(trained, small, monkeypatch, tmp_path):
    bare = load("street_numbers/easy", "test", size=30)
    monkeypatch.setattr("infoplace.evaluation.load", lambda *a, **k: dataclasses.replace(bare, factors={}))
    found = evaluate(trained, device="cpu", out=tmp_path, factors={})
    assert set(found.tables) == {"kl", "bits_per_dim"}
    assert set(found.described["skipped"]) == {"swap", "placement", "disentanglement"}
    assert "swap: skipped, swap needs 'factors'" in str(found)
    with pytest.raises(LackingError, match="swap needs 'factors', 'predictors', which this subject lacks"):
        evaluate(trained, device="cpu", out=tmp_path, factors={}, metrics=["swap"])


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"factors": {"digit": "z_q"}},
            ip.UnknownNameError,
            "digit should be carried by 'z_q', and the pair has no such",
        ),
        ({"factors": {"digits": "z_g"}}, ip.UnknownNameError, "has no factor 'digits'.*Did you mean 'digit'"),
        ({"factors": {"ground": {"block": "z_l", "given": "polarity"}}}, ip.DeclarationError, "add it to the factors"),
        ({"factors": {"constant": None}}, ip.DataError, r"'constant'\] is constant, so nothing can be read of it"),
        ({"metrics": ["swop"]}, ip.UnknownNameError, "Did you mean 'swap'"),
        ({"metrics": []}, ip.DeclarationError, "there is no metric to measure with"),
        ({"split": "train"}, ip.DeclarationError, "what the pair was trained on"),
        ({"split": "test+train"}, ip.DeclarationError, "what the pair was trained on"),
        ({"metrics": ["kl", {"kl": {"images": 5}}]}, ip.DeclarationError, "a metric is asked for twice"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_is_written(trained, small, options, error, text):
    before = files(trained)
    with pytest.raises(error, match=text):
        evaluate(trained, device="cpu", **options)
    assert files(trained) == before


def test_an_evaluation_takes_the_place_of_an_earlier_one(trained, small, tmp_path):
    evaluate(trained, device="cpu", out=tmp_path, metrics=["kl", "disentanglement"])
    found = evaluate(trained, device="cpu", out=tmp_path, metrics=["bits_per_dim"])
    assert {path.name for path in tmp_path.iterdir()} == {EVALUATION, "evaluation_bits_per_dim.csv"}
    assert found.described["weights_sha256"] == json.loads((trained / "pair.json").read_text())["weights_sha256"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ip.RunFolderError, match="there is no folder"):
        evaluate(tmp_path / "none")


def test_a_pair_without_a_recipe_asks_for_its_data(trained, small, tmp_path):
    ip.load_pair(trained).save(tmp_path / "bare")
    with pytest.raises(ip.DeclarationError, match="say which data to measure with --data"):
        evaluate(tmp_path / "bare", device="cpu")
    found = evaluate(
        tmp_path / "bare", device="cpu", data="street_numbers/easy", factors={"digit": "z_g"}, metrics=["kl"]
    )
    assert found.described["factors"] == {"digit": {"block": "z_g", "given": None}}


def test_encodings_leave_the_global_state_and_the_pair_alone(trained):
    pair = ip.load_pair(trained).train()
    data = load("street_numbers/easy", "test", size=30)
    state = torch.get_rng_state()
    means, again = encodings(pair, data, batch_size=7), encodings(pair, data, batch_size=30)
    samples = encodings(pair, data, samples=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert pair.training
    assert {name: tuple(z.shape) for name, z in means.items()} == {"z_g": (30, 4), "z_l": (30, 3)}
    assert torch.allclose(means["z_g"], again["z_g"], atol=1e-5)
    assert not torch.equal(means["z_g"], samples["z_g"])


def test_the_subject_of_a_pair_on_images_and_labels(trained):
    """Two sources: the label is handed to the pair beside the image, and the transforms of both are observed."""
    partition = ip.Partition(
        {"z": ip.Block(3)},
        {
            "x": ip.Observation(source="x"),
            "label": ip.Observation(source="label", likelihood={"categorical": {"classes": 3}}),
        },
    )
    pair = ip.make_pair(partition, {"x": (1, 8, 8), "label": ()})
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    data = ImageData(images, {"label": torch.arange(20) % 3}, split="test")
    subject = subject_of(pair, data, {"label": Factor("z")}, train=data)
    assert subject.latents["z"].shape == (20, 3)
    assert set(subject.observations) == {"x", "label"}
    assert subject.hangs_on == {"x": ("z",), "label": ("z",)}
    assert subject.untrained is not None
    assert not torch.allclose(subject.untrained[1]["z"], subject.latents["z"])


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """A pair whose ``z_g`` draws one of four classes, and whose ``z_l`` sums its classes out; nobody trained it."""
    prior = {"mixture": {"components": 4, "y": "enumerate"}}
    blocks = {"z_g": ip.Block(4, prior=prior), "z_l": ip.Block(3, prior={"mixture": {"components": 5}})}
    return ip.make_pair(ip.Partition(blocks, {"x": ip.Observation()}), (3, 32, 32)).save(
        tmp_path_factory.mktemp("clustered") / "run"
    )


def test_classes_that_a_prior_draws_are_measured_without_being_asked_for(clustered, small, tmp_path):
    options = {
        "data": "street_numbers/easy",
        "factors": {"digit": "z_g", "ground": None},
        "device": "cpu",
        "out": tmp_path,
    }
    found = evaluate(clustered, **options)
    rows = found.tables["clustering"]
    assert {row["block"] for row in rows} == {"z_g"}
    assert {row["classes"] for row in rows} == {4}
    assert {row["factor"] for row in rows} == {"digit", "ground (10 bins)"}
    assert {"clustering": {"bins": 10}} in found.described["settings"]["metrics"]
    assert (tmp_path / "evaluation_clustering_confusion.csv").is_file()
    assert "clustering_confusion" not in str(found)
    assert "one_cluster" in str(found)
    alone = evaluate(clustered, **options, metrics=["clustering"])
    assert alone.tables["clustering"] == rows
    assert alone.described["predictors"] == {}


def test_fewer_images_than_classes(clustered, small, tmp_path):
    options = {
        "data": "street_numbers/easy",
        "factors": {"digit": "z_g"},
        "device": "cpu",
        "out": tmp_path,
        "images": 3,
    }
    with pytest.raises(LackingError, match="'z_g' has 4 classes and there are 3 test images"):
        evaluate(clustered, **options, metrics=["clustering"])


def test_class_probabilities_are_those_of_the_pair(clustered):
    pair = ip.load_pair(clustered)
    data = load("street_numbers/easy", "test", size=30)
    found = class_probabilities(pair, data, batch_size=7)
    assert list(found) == ["z_g"]
    with torch.no_grad():
        expected = pair.eval().classify(pair.partition.observe(data.batch(torch.arange(30))))["z_g"].probs
    assert torch.allclose(found["z_g"], expected, atol=1e-5)


def test_no_clusters_are_measured_where_no_prior_draws_a_class(trained, small, tmp_path):
    with pytest.raises(
        ip.DeclarationError, match="blocks whose prior draws a class, and none of 'z_g', 'z_l' has such a"
    ):
        evaluate(trained, device="cpu", out=tmp_path, metrics=["clustering"])
    assert class_probabilities(ip.load_pair(trained), load("street_numbers/easy", "test", size=3)) == {}


def test_progress_is_a_line_for_each_new_thing_where_there_is_no_terminal(capsys):
    with progress_bar() as report:
        for done in range(3):
            report("swap", done, 3)
        report("kl", 0, 1)
    assert capsys.readouterr().err == "swap\nkl\n"
    with progress_bar(shown=False) as report:
        report("swap", 0, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"swap": {"how": ["priors"]}}, "how must list some of 'prior', 'other image'"),
        ({"kl": {"images": 0}}, "kl: images must be a whole number of at least 1"),
        ({"bits_per_dim": {"samples": 0}}, "samples must be a whole number of at least 1"),
        ({"placement": {"bootstrap": True}}, "bootstrap must be a whole number"),
        ({"clustering": {"bins": 1}}, "clustering: bins must be a whole number of at least 2; got 1"),
    ],
)
def test_a_metric_checks_its_parameters(spec, text):
    with pytest.raises(ip.DeclarationError, match=text):
        make_metric(spec)


def test_a_metric_round_trips_through_its_spec():
    for name in ("swap", "placement", "kl", "bits_per_dim", "disentanglement", "clustering"):
        metric = make_metric(name)
        assert make_metric(yaml.safe_load(yaml.safe_dump(metric.to_spec()))) == metric
        with pytest.raises(LackingError, match=f"{name} needs"):
            metric.tables(Subject())
