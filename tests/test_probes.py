"""Predictors on small made-up images whose factor is known, and their files and error texts."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

from infoplace.errors import DataError, DeclarationError, RunFolderError
from infoplace.probes import (
    Classifier,
    Regressor,
    check_images,
    load_predictor,
    train_classifier,
    train_regressor,
)


def bars(count, seed, side=12):
    """Noisy images with one bright row; its place is the label, 0..3, and the ground colour is free."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=draw)
    colours = 0.1 + 0.4 * torch.rand(count, 3, generator=draw)
    images = colours[:, :, None, None].expand(-1, 3, side, side).clone()
    images[torch.arange(count), :, 1 + 3 * labels] += 0.4
    images += 0.05 * torch.randn(images.shape, generator=draw)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8), labels, colours


@pytest.fixture(scope="module")
def trained():
    """A classifier and a regressor of the same made-up images."""
    images, labels, colours = bars(1000, seed=0)
    return (
        train_classifier(images, labels, classes=4, steps=60, batch_size=32),
        train_regressor(images, colours, steps=60, batch_size=32),
    )


class TestTraining:
    def test_reads_labels_and_colours_of_images_it_never_saw(self, trained):
        classifier, regressor = trained
        images, labels, colours = bars(500, seed=1)
        assert classifier.score(images, labels) > 0.99
        assert regressor.score(images, colours) > 0.95
        assert (regressor.predict(images) - colours).abs().mean() < 0.05

    def test_bytes_and_floats_are_read_alike(self, trained):
        images, _, _ = bars(40, seed=2)
        for predictor in trained:
            torch.testing.assert_close(predictor.predict(images), predictor.predict(images.float() / 255))

    def test_a_batch_size_changes_nothing(self, trained):
        images, _, _ = bars(40, seed=2)
        for predictor in trained:
            torch.testing.assert_close(predictor.predict(images), predictor.predict(images, batch_size=7))

    def test_predicting_leaves_mode_and_gradients_alone(self, trained):
        images, _, _ = bars(10, seed=2)
        classifier = trained[0]
        state = {key: value.clone() for key, value in classifier.state_dict().items()}
        classifier.train()
        assert not classifier.predict(images).requires_grad
        assert classifier.training
        classifier.eval()
        assert all(torch.equal(value, state[key]) for key, value in classifier.state_dict().items())

    def test_the_seed_decides_and_torchs_own_is_left_alone(self):
        images, labels, _ = bars(100, seed=0)
        before = torch.get_rng_state()
        one, same, other = (
            train_classifier(images, labels, steps=4, batch_size=16, seed=seed)(images.float() / 255)
            for seed in (3, 3, 4)
        )
        assert torch.equal(torch.get_rng_state(), before)
        torch.testing.assert_close(one, same)
        assert (one - other).abs().max() > 0.01

    def test_every_option_changes_the_result(self):
        images, labels, _ = bars(100, seed=0)
        options = {"steps": 6, "batch_size": 16, "augment": True}
        reference = train_classifier(images, labels, **options)(images.float() / 255)
        for change in ({"steps": 7}, {"batch_size": 17}, {"augment": False}):
            changed = train_classifier(images, labels, **{**options, **change})(images.float() / 255)
            assert (changed - reference).abs().max() > 1e-3

    def test_images_are_not_modified(self):
        images, labels, colours = bars(64, seed=0)
        floats = images.float() / 255
        copy = floats.clone()
        train_classifier(floats, labels, steps=2, batch_size=16)
        train_regressor(floats, colours, steps=2, batch_size=16)
        assert torch.equal(floats, copy)

    def test_progress_is_told_every_ten_steps_and_at_the_end(self):
        images, labels, _ = bars(64, seed=0)
        heard = []
        train_classifier(images, labels, steps=13, batch_size=8, progress=lambda *told: heard.append(told))
        assert [(step, steps) for step, steps, _ in heard] == [(10, 13), (13, 13)]
        assert all(math.isfinite(loss) for _, _, loss in heard)

    def test_trains_inside_no_grad(self):
        images, labels, _ = bars(64, seed=0)
        with torch.no_grad():
            train_classifier(images, labels, steps=2, batch_size=8)

    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 33, 21), (4, 64, 64)])
    def test_takes_any_image_shape(self, shape):
        images = torch.rand(6, *shape)
        assert train_classifier(images, torch.arange(6), steps=1, batch_size=4).predict(images).shape == (6,)
        assert train_regressor(images, torch.rand(6, 2), steps=1, batch_size=4).predict(images).shape == (6, 2)
        assert train_regressor(images, torch.rand(6), steps=1, batch_size=4).predict(images).shape == (6,)

    @pytest.mark.parametrize("gain", [1e-3, 1e4])
    def test_targets_keep_their_units(self, gain):
        images, _, colours = bars(500, seed=0)
        regressor = train_regressor(images, gain * (colours[:, 0] - 2), steps=40, batch_size=32)
        assert (regressor.predict(images) / gain + 2 - colours[:, 0]).abs().mean() < 0.06

    def test_a_constant_target_is_predicted_and_scores_nothing(self):
        images, _, _ = bars(50, seed=0)
        regressor = train_regressor(images, torch.full((50,), 3.0), steps=2, batch_size=8)
        torch.testing.assert_close(regressor.predict(images), torch.full((50,), 3.0), atol=1e-3, rtol=0)


class TestFiles:
    def test_comes_back_equal(self, trained, tmp_path):
        images, _, _ = bars(20, seed=2)
        for predictor in trained:
            predictor.save(tmp_path / predictor.kind)
            back = load_predictor(tmp_path / predictor.kind)
            assert type(back) is type(predictor)
            assert not back.training
            assert torch.equal(back.predict(images), predictor.predict(images))
            assert sorted(path.name for path in (tmp_path / predictor.kind).iterdir()) == [
                "predictor.json",
                "weights.safetensors",
            ]

    def test_scalar_targets_come_back_scalar(self, tmp_path):
        regressor = Regressor((1, 8, 8))
        regressor.save(tmp_path)
        assert load_predictor(tmp_path).predict(torch.rand(3, 1, 8, 8)).shape == (3,)

    def test_a_missing_or_damaged_file_is_named(self, tmp_path):
        with pytest.raises(RunFolderError, match=r"holds no predictor: predictor\.json is missing"):
            load_predictor(tmp_path)
        Classifier((1, 8, 8), 3).save(tmp_path)
        description = json.loads((tmp_path / "predictor.json").read_text())
        (tmp_path / "predictor.json").write_text(json.dumps({**description, "classes": 4}))
        with pytest.raises(RunFolderError, match=r"cannot be read .*train and save it again"):
            load_predictor(tmp_path)
        (tmp_path / "predictor.json").write_text(json.dumps({**description, "kind": "oracle"}))
        with pytest.raises(RunFolderError, match="cannot be read"):
            load_predictor(tmp_path)
        (tmp_path / "predictor.json").write_text(json.dumps(description))
        (tmp_path / "weights.safetensors").write_bytes(b"nonsense")
        with pytest.raises(RunFolderError, match="cannot be read"):
            load_predictor(tmp_path)
        (tmp_path / "weights.safetensors").unlink()
        with pytest.raises(RunFolderError, match=r"holds no predictor: weights\.safetensors is missing"):
            load_predictor(tmp_path)

    def test_a_file_in_the_way_of_the_folder_is_named(self, tmp_path):
        (tmp_path / "taken").write_text("")
        with pytest.raises(RunFolderError, match=r"taken is a file, and a folder is needed; choose another name"):
            Classifier((1, 8, 8), 3).save(tmp_path / "taken")


GOOD = torch.zeros(6, 3, 8, 8)
LABELS = torch.arange(6) % 2


class TestErrors:
    @pytest.mark.parametrize(
        ("images", "text"),
        [
            (torch.rand(3, 8, 8), r"must be [N, channels, height, width]; got [3, 8, 8]"),
            (
                torch.full((2, 3, 8, 8), 255.0),
                "hold values from 255 to 255; float pixels must lie in [0, 1]; divide by 255",
            ),
            (torch.full((2, 3, 8, 8), -0.5), "shift and scale"),
            (torch.full((2, 3, 8, 8), math.nan), "hold NaN"),
            (torch.full((2, 3, 8, 8), math.inf), "float pixels must lie in [0, 1]"),
            (torch.zeros(2, 3, 8, 8, dtype=torch.int32), "are torch.int32; expected uint8 in 0..255 or float"),
            ([[0.0]], "must be a tensor; got a list"),
        ],
    )
    def test_bad_images(self, images, text):
        for call in (
            lambda: check_images(images),
            lambda: train_classifier(images, torch.zeros(2, dtype=torch.long)),
            lambda: train_regressor(images, torch.zeros(2)),
            lambda: Classifier((3, 8, 8), 2).predict(images),
        ):
            with pytest.raises(DataError) as error:
                call()
            assert text in str(error.value)

    @pytest.mark.parametrize(
        ("call", "kind", "text"),
        [
            (lambda: train_classifier(GOOD, LABELS.float()), DataError, "whole numbers; got torch.float32"),
            (lambda: train_classifier(GOOD, [0, 1]), DataError, "got list"),
            (lambda: train_classifier(GOOD, LABELS[:5]), DataError, "labels must be [6], one for each image; got [5]"),
            (lambda: train_classifier(GOOD, LABELS + 1, classes=2), DataError, "run from 1 to 2; expected 0..1"),
            (lambda: train_classifier(GOOD, LABELS - 1), DataError, "run from -1 to 0; expected 0 and up"),
            (lambda: train_classifier(GOOD, LABELS, classes=1), DeclarationError, "at least 2; got 1"),
            (
                lambda: train_classifier(GOOD, LABELS, steps=0),
                DeclarationError,
                "steps must be a positive whole number",
            ),
            (
                lambda: train_classifier(GOOD, LABELS, batch_size=True),
                DeclarationError,
                "batch_size must be a positive",
            ),
            (lambda: train_classifier(GOOD[:1], LABELS[:1]), DataError, "trained on 1 images; give at least 2"),
            (lambda: train_classifier(GOOD[..., :7], LABELS), DataError, "images of 8x7 pixels are too small"),
            (lambda: train_regressor(GOOD, LABELS), DataError, "a float tensor; got torch.int64"),
            (lambda: train_regressor(GOOD, torch.zeros(5)), DataError, "targets must be [6] or [6, channels]"),
            (lambda: train_regressor(GOOD, torch.full((6,), math.nan)), DataError, "targets hold NaN"),
            (lambda: Classifier((3, 8, 8), 2).predict(GOOD[:0]), DataError, "images are empty"),
            (lambda: Classifier((3, 8, 9), 2).predict(GOOD), DataError, "[3, 8, 8] each; expected [3, 8, 9]"),
            (lambda: Classifier((3, 8, 8), 2).score(GOOD, LABELS + 1), DataError, "labels run from 1 to 2"),
        ],
    )
    def test_bad_targets_and_options(self, call, kind, text):
        with pytest.raises(kind) as error:
            call()
        assert text in str(error.value)


@pytest.mark.skipif("INFOPLACE_DATA" not in os.environ, reason="INFOPLACE_DATA, a folder with mnist/, is not set")
def test_reads_handwritten_digits():
    import io

    import numpy as np
    import pyarrow.parquet as parquet
    from PIL import Image

    splits = []
    for split, count in (("train", 2000), ("test", 300)):
        path = next((Path(os.environ["INFOPLACE_DATA"]) / "mnist").glob(f"{split}-*.parquet"))
        rows = parquet.read_table(path).slice(0, count).to_pydict()
        images = np.stack([np.array(Image.open(io.BytesIO(row["bytes"]))) for row in rows["image"]])
        splits.append((torch.from_numpy(images)[:, None], torch.tensor(rows["label"])))
    (images, labels), test = splits
    assert train_classifier(images, labels, classes=10, steps=40, batch_size=64).score(*test) > 0.8
