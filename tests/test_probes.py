"""Predictors on small made-up images whose factor is known, and their files and error texts."""

from __future__ import annotations

import json
import math
import os
import types

import pytest
import torch

from infoplace.errors import DataError, DeclarationError, RunFolderError, UnknownNameError
from infoplace.probes import (
    Classifier,
    Regressor,
    check_images,
    load_predictor,
    train_classifier,
    train_regressor,
)
from infoplace.probes import images as images_module
from infoplace.probes.cache import cache_folder, predictor_for


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
        changes = [{"steps": 7}, {"batch_size": 17}, {"augment": False}, {"widths": (32, 64, 65)}]
        for name in ("crop", "flip", "blur", "brightness", "noise"):
            changes.append({"augment": name})
        for change in changes:
            changed = train_classifier(images, labels, **{**options, **change})(images.float() / 255)
            assert (changed - reference).abs().max() > 1e-3

    def test_true_names_the_default_augmentations_and_their_order_is_fixed(self):
        images, labels, _ = bars(100, seed=0)
        by_bool, by_name = (
            train_classifier(images, labels, steps=4, batch_size=16, augment=augment)(images.float() / 255)
            for augment in (True, ("noise", "blur", "brightness"))
        )
        torch.testing.assert_close(by_bool, by_name)

    def test_a_residual_network_reads_labels_and_colours(self):
        images, labels, colours = bars(500, seed=0)
        options = {"network": "residual", "widths": (8, 16, 16), "steps": 40, "batch_size": 32}
        held_out, their_labels, their_colours = bars(200, seed=1)
        assert train_classifier(images, labels, **options).score(held_out, their_labels) > 0.95
        assert train_regressor(images, colours, **options).score(held_out, their_colours) > 0.9

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


class TestAugmentations:
    def test_a_crop_is_one_of_the_shifted_images(self):
        draw = torch.Generator().manual_seed(0)
        images = torch.rand(60, 2, 8, 16, generator=draw)
        cropped = images_module._augment(images, ("crop",), draw)
        found = set()
        for image, crop in zip(images, cropped, strict=True):
            # Along each axis, the places a shifted pixel comes from: the edge is mirrored without being repeated.
            possible = [
                (down, right)
                for down in (-1, 0, 1)
                for right in (-2, -1, 0, 1, 2)
                if torch.equal(crop, image[:, mirrored(8, down)][:, :, mirrored(16, right)])
            ]
            assert len(possible) == 1
            found.add(possible[0])
        assert len(found) > 10

    def test_a_flip_mirrors_about_half_of_the_images(self):
        draw = torch.Generator().manual_seed(0)
        images = torch.rand(400, 1, 8, 8, generator=draw)
        flipped = images_module._augment(images, ("flip",), draw)
        mirrored_ones = (flipped == images.flip(3)).flatten(1).all(1)
        assert 150 < mirrored_ones.sum() < 250
        assert torch.equal(flipped[~mirrored_ones], images[~mirrored_ones])

    def test_blur_brightness_and_noise_have_amounts_of_their_own(self):
        draw = torch.Generator().manual_seed(0)
        images = torch.rand(400, 1, 8, 8, generator=draw) * 0.4 + 0.3
        spread = images.flatten(1).std(1)
        blurred, brightened, noisy = (
            images_module._augment(images, (name,), draw) for name in ("blur", "brightness", "noise")
        )
        assert ((blurred.flatten(1).std(1) < spread + 1e-6) & (blurred.flatten(1).std(1) > 0.2 * spread)).all()
        shift = (brightened - images).flatten(1)
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-6, rtol=0)
        assert -0.1 <= shift.min() < -0.09
        assert 0.09 < shift.max() <= 0.1
        amounts = (noisy - images).flatten(1).std(1)
        assert amounts.min() < 0.005
        assert 0.04 < amounts.max() < 0.07


def mirrored(side, shift):
    """For each pixel of a shifted axis the pixel it shows."""
    places = torch.arange(side) + shift
    return torch.where(places < 0, -places, torch.where(places >= side, 2 * (side - 1) - places, places))


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

    def test_network_widths_and_labels_come_back(self, tmp_path):
        images = torch.rand(4, 3, 16, 16)
        classifier = Classifier((3, 16, 16), 3, widths=(4, 8), network="residual").eval()
        classifier.labels.copy_(torch.tensor([-1, 4, 90]))
        classifier.save(tmp_path)
        back = load_predictor(tmp_path)
        assert torch.equal(back(images), classifier(images))
        assert set(back.predict(images).tolist()) <= {-1, 4, 90}

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


def made_up(count=300, seed=0, split="train", **factors):
    """A set of bars with a label that has gaps and starts below 0, and their colours."""
    images, labels, colours = bars(count, seed)
    known = {"bar": torch.tensor([-1, 0, 3, 9])[labels], "colour": colours, "red": colours[:, 0]}
    return types.SimpleNamespace(images=images, factors={**known, **factors}, name="bars", split=split)


class Training:
    """A progress callback that tells whether anything was trained."""

    def __init__(self):
        self.heard = 0

    def __call__(self, step, steps, loss):
        self.heard += 1


def trains(*arguments, **options):
    told = Training()
    predictor = predictor_for(*arguments, progress=told, **{"steps": 2, "batch_size": 16, **options})
    return predictor, told.heard > 0


class TestCache:
    def test_labels_with_gaps_and_below_zero_are_the_factors_own(self, tmp_path):
        test = made_up(seed=1, split="test")
        for _ in ("trained", "found"):
            classifier, _ = trains(made_up(1000), "bar", steps=60, batch_size=32, cache=tmp_path)
            assert classifier.score(test.images, test.factors["bar"]) > 0.99
            assert set(classifier.predict(test.images).tolist()) == {-1, 0, 3, 9}
        with pytest.raises(DataError, match="labels run from -1 to 8; expected -1, 0, 3, 9"):
            classifier.score(test.images, test.factors["bar"].clamp_max(8))

    def test_floats_make_a_regressor_of_their_own_shape(self):
        data = made_up(500)
        colour, red = (predictor_for(data, name, steps=60, batch_size=32, cache=False) for name in ("colour", "red"))
        assert colour.score(data.images, data.factors["colour"]) > 0.9
        assert red.predict(data.images).shape == (500,)

    def test_trains_once_for_the_same_images_factor_and_settings(self, tmp_path):
        one, trained_one = trains(made_up(), "bar", cache=tmp_path)
        two, trained_two = trains(made_up(), "bar", cache=str(tmp_path))
        assert (trained_one, trained_two) == (True, False)
        assert torch.equal(one.predict(made_up().images), two.predict(made_up().images))
        assert not two.training

    def test_anything_else_is_trained_by_itself(self, tmp_path):
        trains(made_up(), "bar", cache=tmp_path)
        brighter = made_up()
        brighter.images[0, 0, 0, 0] ^= 1
        relabelled = made_up()
        relabelled.factors["bar"][0] = 0 if relabelled.factors["bar"][0] else 3
        for data in (brighter, relabelled):
            assert trains(data, "bar", cache=tmp_path)[1]
        assert trains(made_up(), "red", cache=tmp_path)[1]
        for change in (
            {"steps": 3},
            {"seed": 1},
            {"batch_size": 17},
            {"widths": (8, 8)},
            {"network": "residual", "widths": (4, 4)},
            {"augment": False},
        ):
            assert trains(made_up(), "bar", cache=tmp_path, **change)[1], change
        assert not trains(made_up(), "bar", cache=tmp_path, augment=("noise", "blur", "brightness"))[1]

    def test_a_newer_training_leaves_old_predictors_alone(self, tmp_path, monkeypatch):
        trains(made_up(), "bar", cache=tmp_path)
        monkeypatch.setattr("infoplace.probes.cache.TRAINING_VERSION", -1)
        assert trains(made_up(), "bar", cache=tmp_path)[1]

    @pytest.mark.parametrize("file", ["predictor.json", "weights.safetensors"])
    def test_a_damaged_predictor_is_trained_anew_and_replaced(self, tmp_path, file):
        trains(made_up(), "bar", cache=tmp_path)
        (path,) = tmp_path.glob(f"predictors/*/{file}")
        path.write_bytes(path.read_bytes()[:20])
        assert trains(made_up(), "bar", cache=tmp_path)[1]
        assert not trains(made_up(), "bar", cache=tmp_path)[1]

    def test_without_a_cache_nothing_is_kept(self, tmp_path, monkeypatch):
        monkeypatch.setenv("INFOPLACE_CACHE", str(tmp_path / "cache"))
        assert [trains(made_up(), "bar", cache=False)[1] for _ in range(2)] == [True, True]
        assert not (tmp_path / "cache").exists()
        assert [trains(made_up(), "bar")[1] for _ in range(2)] == [True, False]
        assert (tmp_path / "cache" / "predictors").is_dir()

    def test_where_predictors_are_kept(self, tmp_path, monkeypatch):
        monkeypatch.setenv("INFOPLACE_CACHE", str(tmp_path))
        assert cache_folder() == tmp_path
        monkeypatch.delenv("INFOPLACE_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "infoplace"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "infoplace"

    def test_two_may_train_the_same_at_a_time(self, tmp_path):
        inside = []

        def meanwhile(step, steps, loss):
            inside.append(trains(made_up(), "bar", cache=tmp_path))

        outside = predictor_for(made_up(), "bar", cache=tmp_path, steps=2, batch_size=16, progress=meanwhile)
        assert [trained for _, trained in inside] == [True]
        found, trained = trains(made_up(), "bar", cache=tmp_path)
        assert not trained
        for predictor in (outside, inside[0][0]):
            assert torch.equal(predictor.predict(made_up().images), found.predict(made_up().images))
        assert sorted(path.name for path in tmp_path.glob("predictors/*/*")) == [
            "predictor.json",
            "weights.safetensors",
        ]

    def test_a_cache_that_cannot_be_written_is_named_before_the_training(self, tmp_path):
        (tmp_path / "taken").write_text("")
        told = Training()
        with pytest.raises(RunFolderError, match=r"taken.*or train with cache=False"):
            predictor_for(made_up(), "bar", cache=tmp_path / "taken", progress=told)
        assert not told.heard

    @pytest.mark.parametrize(
        ("data", "factor", "kind", "text"),
        [
            (made_up(split="test"), "bar", DataError, "bars: a predictor must not be trained on the 'test' split"),
            (made_up(split="train+test"), "bar", DataError, "must not be trained on the 'train+test' split"),
            (made_up(), "bra", UnknownNameError, "bars has no factor 'bra'. Did you mean 'bar'? Available: 'bar', "),
            (
                made_up(left=torch.zeros(299)),
                "left",
                DataError,
                "'left' of bars must be [300] or [300, channels], one entry for each image; got [299]",
            ),
            (made_up(pair=torch.zeros(300, 2).long()), "pair", DataError, "must be [300], one entry for each image"),
            (
                made_up(digits=torch.full((300,), 7)),
                "digits",
                DataError,
                "'digits' of bars is the same in all 300 images",
            ),
            (made_up(place=torch.rand(300, 2) * torch.tensor([1.0, 0.0])), "place", DataError, "images in channel 1;"),
            (made_up(place=torch.full((300,), math.nan)), "place", DataError, "targets hold NaN"),
            (
                made_up(number=list(range(300))),
                "number",
                DataError,
                "'number' of bars must be a tensor; got a list; use",
            ),
            (made_up(number=torch.arange(300)), "number", DataError, "has 300 classes in 300 images"),
        ],
    )
    def test_bad_factors(self, data, factor, kind, text):
        with pytest.raises(kind) as error:
            predictor_for(data, factor, cache=False)
        assert text in str(error.value)


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
            (lambda: train_classifier(GOOD, LABELS, classes=7), DataError, "6 images cannot teach 7 classes"),
            (
                lambda: train_classifier(GOOD, LABELS, network="smal"),
                UnknownNameError,
                "no network 'smal'. Did you mean 'small'? Available: 'small', 'residual'",
            ),
            (
                lambda: train_classifier(GOOD, LABELS, augment=("crop", "flips")),
                UnknownNameError,
                "no augmentation 'flips'. Did you mean 'flip'? Available: 'crop', 'flip', 'blur', ",
            ),
            (lambda: train_classifier(GOOD, LABELS, widths=(8, 0)), DeclarationError, "got (8, 0)"),
            (lambda: train_regressor(GOOD, torch.rand(6), widths=()), DeclarationError, "widths must be positive"),
            (
                lambda: train_classifier(GOOD, LABELS, widths=(8, 8, 8, 8)),
                DeclarationError,
                "widths (8, 8, 8, 8) halve the side 4 times, and images of 8x8 pixels have not that many",
            ),
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
    from infoplace.data import load

    train, test = load("mnist", "train", limit=2000), load("mnist", "test", limit=300)
    assert (
        predictor_for(train, "label", steps=40, batch_size=64, cache=False).score(test.images, test.factors["label"])
        > 0.8
    )
