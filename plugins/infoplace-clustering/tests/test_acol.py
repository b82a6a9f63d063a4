"""ACOL with GAR: its terms by hand, its pseudo-labels against NumPy, and easy images that it must find."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from infoplace.errors import DataError, DeclarationError, TrainingError
from infoplace.metrics.clustering import fit_mapping
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from infoplace_clustering.acol import ACOL, activity_ratios, parent_log_probabilities, pseudo_images

QUICK = {"n_clusters": 3, "epochs": 6, "batch_size": 50, "channels": (8, 8), "feature_size": 64, "children": 4}
QUICK |= {"kmeans_starts": 3, "device": "cpu"}
TINY = {**QUICK, "epochs": 2, "channels": (4, 4), "feature_size": 16}


def figures(n=300, side=12, seed=0):
    """An L, a square ring or a dot, of any brightness and under noise, and which of them each is.

    The L looks different under each of the 8 pseudo-labels, and the others the same.
    """
    random = np.random.default_rng(seed)
    kinds = np.arange(n) % 3
    drawn = np.zeros((3, 8, 8))
    drawn[0, :, :2] = drawn[0, 6:, :5] = 1
    drawn[1] = 1
    drawn[1, 2:6, 2:6] = 0
    drawn[2, 2:6, 2:6] = 1
    images = 0.2 * random.random((n, 1, side, side))
    images[:, :, 2:10, 2:10] += random.uniform(0.4, 0.8, (n, 1, 1, 1)) * drawn[kinds, None]
    return images.astype(np.float32), kinds


def accuracy(clusters, kinds):
    return fit_mapping(clusters, kinds, "hungarian", clusters_count=3).accuracy(clusters, kinds)


def outputs(batch=6, parents=3, children=4, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, parents, children))


def ratio_by_hand(matrix):
    k = len(matrix)
    off = sum(matrix[i][j] for i, j in itertools.permutations(range(k), 2))
    return off / ((k - 1) * sum(matrix[i][i] for i in range(k)))


class TestFormulas:
    def test_affinity_and_balance(self):
        z = outputs()
        affinity, balance = activity_ratios(torch.from_numpy(z))
        for parent in range(3):
            b = np.maximum(z[:, parent], 0)
            u = b.T @ b
            v = np.diag(u)[None]
            assert affinity[parent].item() == pytest.approx(ratio_by_hand(u), rel=1e-12)
            assert balance[parent].item() == pytest.approx(ratio_by_hand(v.T @ v), rel=1e-12)

    def test_units_that_agree(self):
        affinity, balance = activity_ratios(torch.rand(8, 2, 1).expand(8, 2, 5))
        torch.testing.assert_close(affinity, torch.ones(2))
        torch.testing.assert_close(balance, torch.ones(2))

    def test_one_unit_alone(self):
        z = torch.full((8, 2, 5), -1.0)
        z[:, :, 3] = 2
        affinity, balance = activity_ratios(z)
        assert affinity.tolist() == balance.tolist() == [0, 0]

    def test_scale_does_not_matter(self):
        z = torch.from_numpy(outputs())
        torch.testing.assert_close(activity_ratios(7 * z), activity_ratios(z))

    def test_a_silent_parent_has_finite_gradients(self):
        z = (-torch.rand(4, 2, 3)).requires_grad_()
        affinity, balance = activity_ratios(z)
        assert affinity.tolist() == balance.tolist() == [0, 0]
        (affinity - balance).sum().backward()
        assert z.grad.tolist() == torch.zeros(4, 2, 3).tolist()

    def test_units_that_agree_a_little_less_are_driven_apart(self):
        z = (1 + 0.1 * torch.eye(3)[:, None]).requires_grad_()
        activity_ratios(z)[0].sum().backward()
        assert (torch.diagonal(z.grad[:, 0]) < 0).all()
        assert (z.grad[:, 0][~torch.eye(3, dtype=torch.bool)] > 0).all()

    def test_probabilities_of_parents(self):
        z = 3 * outputs()
        by_hand = softmax(z.reshape(6, 12), axis=1).reshape(6, 3, 4).sum(2)
        np.testing.assert_allclose(parent_log_probabilities(torch.from_numpy(z)).exp(), by_hand, rtol=1e-12)

    def test_the_loss_of_a_batch(self):
        images, _ = figures(40)
        images = torch.from_numpy(images)
        weights = {"affinity_weight": 0.7, "balance_weight": 0.4, "penalty_weight": 0.01}
        method = ACOL(**TINY, **weights).fit(images)
        pseudo = torch.arange(40) % 8
        with torch.no_grad():
            loss, cross_entropy, affinity, balance, penalty, accuracy = (
                term.item() for term in method._terms(method._prepared(images), pseudo)
            )
            z = method.network_(pseudo_images(method._prepared(images), pseudo)).double().numpy()
        p = softmax(z.reshape(40, 32), axis=1).reshape(40, 8, 4).sum(2)
        b = np.maximum(z, 0)
        u = [b[:, parent].T @ b[:, parent] for parent in range(8)]
        assert cross_entropy == pytest.approx(-np.mean(np.log(p[np.arange(40), pseudo])), rel=1e-5)
        assert affinity == pytest.approx(np.mean([ratio_by_hand(each) for each in u]), rel=1e-5)
        assert balance == pytest.approx(np.mean([ratio_by_hand(np.outer(d, d)) for d in map(np.diag, u)]), rel=1e-5)
        assert penalty == pytest.approx(np.sum(z**2), rel=1e-5)
        assert accuracy == pytest.approx(np.mean(p.argmax(1) == pseudo.numpy()))
        assert loss == pytest.approx(cross_entropy + 0.7 * affinity + 0.4 * (1 - balance) + 0.01 * penalty, rel=1e-5)


class TestPseudoLabels:
    def test_against_numpy(self):
        images = np.random.default_rng(0).random((16, 2, 5, 5))
        found = pseudo_images(torch.from_numpy(images), torch.arange(16) % 8).numpy()
        for index, image in enumerate(images):
            turned = np.rot90(np.moveaxis(image, 0, 2), index % 4)
            expected = np.fliplr(turned) if index % 8 >= 4 else turned
            np.testing.assert_array_equal(np.moveaxis(found[index], 0, 2), expected)

    def test_flipping_first_makes_the_same_eight_images(self):
        image = torch.arange(16.0).reshape(1, 1, 4, 4)
        ours = pseudo_images(image.expand(8, 1, 4, 4), torch.arange(8))
        others = [torch.rot90(each, k, dims=(2, 3)) for each in (image, image.flip(3)) for k in range(4)]
        assert {tuple(each.flatten().tolist()) for each in ours} == {tuple(each.flatten().tolist()) for each in others}
        assert len({tuple(each.flatten().tolist()) for each in ours}) == 8

    def test_given_images_are_left_alone(self):
        images = torch.rand(8, 1, 4, 4)
        before = images.clone()
        pseudo_images(images, torch.arange(8))
        assert torch.equal(images, before)

    @pytest.mark.parametrize(("count", "shown"), [(1, 12), (3, 36), (8, 96)])
    def test_an_epoch_shows_an_image_under_so_many_labels(self, count, shown, monkeypatch):
        seen = []
        terms = ACOL._terms

        def watched(self, images, pseudo):
            seen.extend(zip(images.flatten(1).sum(1).tolist(), pseudo.tolist(), strict=True))
            return terms(self, images, pseudo)

        monkeypatch.setattr(ACOL, "_terms", watched)
        settings = {**TINY, "epochs": 1, "transforms_per_epoch": count, "standardise": False, "batch_size": 7}
        ACOL(**settings).fit(figures(12)[0])
        assert len(seen) == shown == len(set(seen))
        assert {sum(value == other for other, _ in seen) for value, _ in seen} == {count}

    def test_labels_are_drawn_anew_in_every_epoch(self, monkeypatch):
        seen = []
        terms = ACOL._terms

        def watched(self, images, pseudo):
            seen.append(dict(zip(images.flatten(1).sum(1).tolist(), pseudo.tolist(), strict=True)))
            return terms(self, images, pseudo)

        monkeypatch.setattr(ACOL, "_terms", watched)
        ACOL(**{**TINY, "standardise": False}).fit(figures(40)[0])
        assert seen[0].keys() == seen[1].keys()
        assert seen[0] != seen[1]


class TestLearning:
    def test_easy_images(self):
        images, kinds = figures()
        method = ACOL(**QUICK).fit(images)
        assert accuracy(method.labels_, kinds) > 0.95
        new, kinds = figures(seed=1)
        assert accuracy(method.predict(new), kinds) > 0.95
        features = method.transform(new)
        assert (features.dtype, features.shape) == (np.float32, (300, 64))
        assert features.min() >= 0
        np.testing.assert_array_equal(method.kmeans_.predict(features), method.predict(new))

    def test_it_learns_the_pseudo_labels(self):
        images, kinds = figures()
        shifts = np.random.default_rng(0).integers(-2, 3, (100, 2))
        images = [np.roll(image, shift, axis=(1, 2)) for image, shift in zip(images[kinds == 0], shifts, strict=True)]
        settings = {**QUICK, "n_clusters": 2, "epochs": 20, "transforms_per_epoch": 8, "learning_rate": 0.003}
        rows = ACOL(**settings).fit(np.stack(images)).history_
        assert rows[-1]["pseudo_accuracy"] > 0.8 > 0.25 > rows[0]["pseudo_accuracy"]
        assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]

    def test_a_heavy_affinity_makes_units_specialise(self):
        images, _ = figures(150)
        light, heavy = (ACOL(**QUICK, affinity_weight=weight).fit(images).history_[-1] for weight in (0.0, 10.0))
        assert heavy["affinity"] < 0.5 * light["affinity"]

    def test_images_are_standardised(self):
        images, _ = figures(30)
        method = ACOL(**TINY).fit(images)
        seen = []
        method.network_.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        method.predict(images)
        centred = images - images.mean(0)
        by_hand = centred - centred.mean((1, 2, 3), keepdims=True)
        by_hand /= by_hand.std((1, 2, 3), keepdims=True)
        np.testing.assert_allclose(seen[0], by_hand, atol=1e-5)

    def test_images_that_are_all_alike_stay_finite(self):
        images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(9, 1, 1, 1)
        images[::2, :, 0, 0] = 0
        images[::4, :, 1, 1] = 1
        assert np.isfinite(ACOL(**TINY).fit(images).transform(images)).all()

    def test_the_network_is_the_published_one(self):
        images = np.random.default_rng(0).random((12, 3, 32, 32))
        method = ACOL(2, epochs=1, device="cpu").fit(images)
        sizes = [tuple(parameter.shape) for parameter in method.network_.parameters() if parameter.ndim > 1]
        convolutions = [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3)]
        assert sizes == [*convolutions, (2048, 64 * 8 * 8), (160, 2048)]
        assert method.transform(images).shape == (12, 2048)

    @pytest.mark.parametrize(
        "change",
        [
            {"epochs": 3},
            {"batch_size": 20},
            {"learning_rate": 0.01},
            {"children": 5},
            {"channels": (4, 5)},
            {"feature_size": 17},
            {"dropout": (0.2, 0.3, 0.0)},
            {"affinity_weight": 1.0},
            {"balance_weight": 0.0},
            {"penalty_weight": 0.1},
            {"transforms_per_epoch": 8},
            {"standardise": False},
            {"seed": 1},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_every_setting_matters(self, change):
        images, _ = figures(40)
        usual, changed = (ACOL(**each).fit(images).transform(images) for each in (TINY, {**TINY, **change}))
        assert usual.shape != changed.shape or np.abs(usual - changed).max() > 1e-6

    def test_starts_and_clusters_reach_kmeans(self):
        images, _ = figures(40)
        method = ACOL(**TINY).set_params(kmeans_starts=7, n_clusters=5).fit(images)
        assert (method.kmeans_.n_init, len(method.kmeans_.cluster_centers_)) == (7, 5)

    def test_same_seed_same_features_and_random_states_are_left_alone(self):
        images, _ = figures(40)
        numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        method = ACOL(**TINY).fit(images)
        np.testing.assert_array_equal(clone(method).fit(images).transform(images), method.transform(images))
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), torch_state)

    def test_history(self, capsys):
        rows = ACOL(**TINY, progress=True).fit(figures(40)[0]).history_
        assert [row["epoch"] for row in rows] == [1, 2]
        for row in rows:
            ratios = 0.1 * row["affinity"] + 1 - row["balance"]
            assert row["loss"] == pytest.approx(row["cross_entropy"] + ratios + 1e-6 * row["penalty"], abs=1e-5)
        assert "ACOL" in capsys.readouterr().out

    def test_a_loss_that_is_not_finite(self):
        with pytest.raises(TrainingError, match="the loss is nan after epoch 1; use a smaller learning rate"):
            ACOL(**TINY, learning_rate=1e30).fit(figures(150)[0])


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epochs": 0}, "epochs must be a whole number of 1 or more; got 0"),
            ({"batch_size": 0}, "batch_size must be a whole number of 1 or more; got 0"),
            ({"learning_rate": 0}, "learning_rate must be a number above 0; got 0"),
            ({"children": 1}, "children must be a whole number of 2 or more; got 1"),
            ({"channels": (8,)}, r"channels must be 2 numbers, as \(32, 64\); got \(8,\)"),
            ({"channels": (8, 0)}, r"channels\[1\] must be a whole number of 1 or more; got 0"),
            ({"feature_size": 0}, "feature_size must be a whole number of 1 or more; got 0"),
            ({"dropout": 0.5}, r"dropout must be 3 numbers, as \(0.2, 0.3, 0.5\); got 0.5"),
            ({"dropout": (0, 0, 1)}, r"dropout\[2\] must be a number of 0 or more and at most 0.95; got 1"),
            ({"affinity_weight": -1}, "affinity_weight must be a number of 0 or more; got -1"),
            ({"balance_weight": -1}, "balance_weight must be a number of 0 or more; got -1"),
            ({"penalty_weight": -1}, "penalty_weight must be a number of 0 or more; got -1"),
            ({"transforms_per_epoch": 9}, "transforms_per_epoch must be a whole number from 1 to 8; got 9"),
            ({"kmeans_starts": 0}, "kmeans_starts must be a whole number of 1 or more; got 0"),
        ],
    )
    def test_settings(self, change, message):
        with pytest.raises(DeclarationError, match=f"^{message}$"):
            ACOL(**{**TINY, **change}).fit(figures(20)[0])

    @pytest.mark.parametrize("shape", [[9, 1, 8, 10], [9, 3, 3, 3]])
    def test_images_that_cannot_be_turned_and_pooled(self, shape):
        with pytest.raises(DataError, match=r"must be square, 4 pixels or more a side; got X of shape \[9, "):
            ACOL(**TINY).fit(np.zeros(shape))

    def test_vectors(self):
        with pytest.raises(DataError, match=r"X must be images \[N, channels, height, width\]; got shape \[9, 4\]"):
            ACOL(**TINY).fit(np.zeros((9, 4)))

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            ACOL().transform(figures(20)[0])
