"""Deep embedded clustering: its formulas by hand, its parts against known answers, and easy sets that it must find."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from infoplace.errors import DataError, DeclarationError, TrainingError
from infoplace.metrics.clustering import fit_mapping
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from infoplace_clustering import DEC
from infoplace_clustering.dec import _Network, soft_assignment, target_distribution

QUICK = {"widths": (32, 4), "pretrain_steps": 150, "finetune_steps": 150, "weight_scale": 0.1, "update_interval": 20}
QUICK |= {"device": "cpu", "batch_size": 64}


def blobs(n=300, features=20, seed=0):
    kinds = np.arange(n) % 3
    places = 2 * np.random.default_rng(100).normal(size=(3, features))
    return places[kinds] + np.random.default_rng(seed).normal(size=(n, features)), kinds


def quarters(n=300, side=8, seed=0):
    """Images whose left half, upper half or lower right quarter is bright, under noise, and which of them each is."""
    random = np.random.default_rng(seed)
    kinds = np.arange(n) % 3
    bright = np.zeros((3, 1, side, side))
    bright[0, :, :, : side // 2] = bright[1, :, : side // 2] = bright[2, :, side // 2 :, side // 2 :] = 0.6
    return (bright[kinds] + 0.4 * random.random((n, 1, side, side))).astype(np.float32), kinds


def accuracy(clusters, kinds):
    return fit_mapping(clusters, kinds, "hungarian", clusters_count=3).accuracy(clusters, kinds)


def tiny(n=6, clusters=3, code=2, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, code)), random.normal(size=(clusters, code))


def assigned_by_hand(codes, centres):
    q = np.empty((len(codes), len(centres)))
    for i, z in enumerate(codes):
        kernels = [1 / (1 + sum((a - b) ** 2 for a, b in zip(z, mu, strict=True))) for mu in centres]
        q[i] = [kernel / sum(kernels) for kernel in kernels]
    return q


def target_by_hand(q):
    p = np.empty_like(q)
    sizes = [sum(row[j] for row in q) for j in range(q.shape[1])]
    for i, row in enumerate(q):
        weights = [row[j] ** 2 / sizes[j] for j in range(q.shape[1])]
        p[i] = [weight / sum(weights) for weight in weights]
    return p


class TestFormulas:
    def test_soft_assignment(self):
        codes, centres = tiny()
        found = soft_assignment(torch.from_numpy(codes), torch.from_numpy(centres))
        np.testing.assert_allclose(found, assigned_by_hand(codes, centres), rtol=1e-12)

    def test_target(self):
        q = assigned_by_hand(*tiny())
        np.testing.assert_allclose(target_distribution(torch.from_numpy(q)), target_by_hand(q), rtol=1e-12)

    def test_assignments_far_from_every_centre_are_even_and_finite(self):
        found = soft_assignment(torch.tensor([[1e9, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [2 / 3, 1 / 3]]))

    def test_assignments_know_distances_only(self):
        codes, centres = map(torch.from_numpy, tiny())
        turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
        moved = soft_assignment(codes @ turn + 3, centres @ turn + 3)
        torch.testing.assert_close(moved, soft_assignment(codes, centres))

    def test_target_is_surer_and_favours_small_clusters(self):
        even = target_distribution(torch.tensor([[0.7, 0.3], [0.3, 0.7]]))
        torch.testing.assert_close(even, torch.tensor([[0.49, 0.09], [0.09, 0.49]]) / 0.58)
        crowded = target_distribution(torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.9, 0.1]]))
        assert crowded[0, 1] > 0.5 > crowded[0, 0]


def fitted(x, **parameters):
    settings = {"widths": (2,), "weight_scale": 0.5, "pretrain_steps": 5, "finetune_steps": 5, "momentum": 0.0}
    settings |= {"max_steps": 1, "tolerance": 1, "batch_size": len(x), "device": "cpu", **parameters}
    return DEC(3, **settings).fit(x)


class TestLearning:
    def test_a_step_follows_the_gradients_of_the_paper(self):
        """Equations 4 and 5, from what one step with a rate and with twice that rate leave behind."""
        x, _ = blobs(60)
        rate = 0.5
        once, twice = (fitted(x, learning_rate=factor * rate).network_.state_dict() for factor in (1, 2))
        before = {key: (2 * once[key] - twice[key]).double().numpy() for key in once}
        step = {key: ((once[key] - twice[key]) / rate).double().numpy() for key in once}
        weight, bias, centres = (before[key] for key in ("stack.0.up.weight", "stack.0.up.bias", "centres"))
        scaled = x / math.sqrt(np.mean(x**2))
        codes = scaled @ weight.T + bias
        q = assigned_by_hand(codes, centres)
        p = target_by_hand(q)
        apart = codes[:, None] - centres
        pull = 2 * ((p - q) / (1 + (apart**2).sum(2)))[:, :, None] * apart
        to_codes, to_centres = pull.sum(1) / len(x), -pull.sum(0) / len(x)
        np.testing.assert_allclose(step["centres"], to_centres, atol=2e-5)
        np.testing.assert_allclose(step["stack.0.up.weight"], to_codes.T @ scaled, atol=2e-5)
        np.testing.assert_allclose(step["stack.0.up.bias"], to_codes.sum(0), atol=2e-5)
        np.testing.assert_array_equal(step["stack.0.down.weight"], 0)
        assert np.abs(to_centres).max() > 1e-3
        assert np.abs(to_codes.T @ scaled).max() > 1e-3

    def test_the_loss_is_the_divergence_from_the_target(self):
        x, _ = blobs(60)
        method = fitted(x, learning_rate=1e-9)
        q = assigned_by_hand(method.transform(x).astype(float), method.network_.centres.detach().double().numpy())
        p = target_by_hand(q)
        assert method.history_[-1]["loss"] == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)), rel=1e-4)

    def test_a_linear_autoencoder_finds_the_first_principal_component(self):
        random = np.random.default_rng(0)
        x = random.normal(size=(200, 6)) * [3, 1, 1, 1, 1, 1] @ np.linalg.qr(random.normal(size=(6, 6)))[0]
        method = fitted(x, widths=(1,), dropout=0.0, pretrain_steps=300, finetune_steps=0, pretrain_learning_rate=0.5)
        first = np.linalg.svd(x - x.mean(0))[2][0]
        assert abs(np.corrcoef(method.transform(x)[:, 0], x @ first)[0, 1]) > 0.999

    def test_the_autoencoder_restores_better_and_better(self):
        x, _ = blobs()
        rows = DEC(3, **QUICK).fit(x).history_
        for phase in ("layer 1", "layer 2", "finetune"):
            losses = [row["loss"] for row in rows if row["phase"] == phase]
            assert losses[-1] < 0.8 * losses[0], phase
            assert [row["epoch"] for row in rows if row["phase"] == phase] == list(range(1, 31))
        targets = [row for row in rows if row["phase"] == "clustering"]
        assert all(0 <= row["changed"] <= 1 for row in targets)
        assert targets[-1]["changed"] < 0.001

    def test_the_loss_of_the_autoencoder_is_half_the_mean_square_of_what_is_missed(self):
        """A first loss, with weights near zero: half the mean square of the scaled samples, which is 1."""
        x, _ = blobs(60)
        rows = fitted(x, weight_scale=1e-6, pretrain_steps=1).history_
        assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-4)

    @pytest.mark.parametrize(
        "change",
        [
            {"pretrain_steps": 6},
            {"finetune_steps": 6},
            {"pretrain_learning_rate": 0.2},
            {"learning_rate_drop": 3},
            {"dropout": 0.0},
            {"weight_scale": 0.4},
            {"momentum": 0.5},
            {"batch_size": 32},
            {"learning_rate": 0.02},
            {"max_steps": 2, "update_interval": 2},
            {"widths": (3,)},
            {"seed": 1},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_every_setting_matters(self, change):
        x, _ = blobs(60)
        plain, changed = fitted(x).transform(x), fitted(x, **change).transform(x)
        assert plain.shape != changed.shape or np.abs(plain - changed).max() > 1e-5

    def test_values_are_dropped_below_and_above_a_layer_but_never_of_the_code(self):
        first, last = _Network((50, 40, 30), 3, 0.5).layers()
        for layer in (first, last):
            layer.decode = lambda above: above
        zeros = [
            float((layer.restored(torch.ones(300, 40 + 10 * layer.first), 0.5) == 0).float().mean())
            for layer in (first, last)
        ]
        assert zeros[0] == pytest.approx(0.75, abs=0.05)  # half by the ReLU, and half of the rest
        assert zeros[1] == 0
        alike = torch.ones(2, 40)
        assert torch.equal(*last.restored(alike, 0.0))
        assert not torch.equal(*last.restored(alike, 0.5))

    def test_nothing_is_dropped_end_to_end(self):
        x, _ = blobs(60)
        some, none = (fitted(x, widths=(8, 2), pretrain_steps=0, dropout=share).transform(x) for share in (0.5, 0.0))
        np.testing.assert_array_equal(some, none)

    def test_steps_are_counted(self):
        x = np.random.default_rng(0).normal(size=(400, 20))
        with pytest.warns(ConvergenceWarning, match="DEC took max_steps=50 steps, and .*% of the labels still changed"):
            method = fitted(x, max_steps=50, update_interval=20, tolerance=1e-9, learning_rate=1.0, batch_size=32)
        assert method.n_steps_ == 50
        assert [row["epoch"] for row in method.history_ if row["phase"] == "clustering"] == [1, 2, 3]
        assert fitted(x, max_steps=50, update_interval=20, tolerance=1).n_steps_ == 20

    def test_samples_are_scaled_to_a_mean_square_of_one(self):
        x, _ = blobs(60)
        method = fitted(x)
        assert np.mean((x * method.scale_) ** 2) == pytest.approx(1, abs=1e-5)
        larger = fitted(x * 8)
        assert larger.scale_ == pytest.approx(method.scale_ / 8)
        np.testing.assert_allclose(larger.transform(x * 8), method.transform(x), atol=1e-5)
        np.testing.assert_allclose(method.transform(x[:5]), method.transform(x)[:5], atol=1e-6)

    def test_more_starts_of_k_means(self, monkeypatch):
        x, _ = blobs(60)
        given = []

        def spied(clusters, **settings):
            given.append(settings)
            return found(clusters, **settings)

        from infoplace_clustering import dec

        found = dec.KMeans
        monkeypatch.setattr(dec, "KMeans", spied)
        fitted(x, n_init=3, seed=5)
        assert given == [{"n_init": 3, "random_state": 5}]


class TestClusters:
    @pytest.mark.parametrize("data", [blobs, quarters])
    def test_finds_easy_clusters(self, data):
        x, kinds = data()
        method = DEC(3, **QUICK).fit(x)
        assert accuracy(method.labels_, kinds) > 0.95
        held_out, kinds = data(n=90, seed=1)
        assert accuracy(method.predict(held_out), kinds) > 0.95

    def test_probabilities_are_those_of_the_codes(self):
        x, _ = quarters()
        method = DEC(3, **QUICK).fit(x)
        codes, probabilities = method.transform(x), method.predict_proba(x)
        assert codes.shape == (300, 4)
        assert codes.dtype == probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        np.testing.assert_array_equal(probabilities.argmax(1), method.labels_)
        centres = method.network_.centres.detach().numpy()
        np.testing.assert_allclose(probabilities, assigned_by_hand(codes, centres), atol=1e-4)

    def test_fit_transform_is_fit_and_transform(self):
        x, _ = blobs(60)
        method = DEC(3, **QUICK)
        np.testing.assert_array_equal(method.fit_transform(x), clone(method).fit(x).transform(x))

    def test_samples_that_are_all_alike(self):
        with pytest.warns(ConvergenceWarning, match="distinct clusters"):
            method = fitted(np.zeros((5, 4)))
        assert method.scale_ == 1
        assert np.isfinite(method.predict_proba(np.zeros((5, 4)))).all()

    def test_shows_progress(self, capsys):
        fitted(blobs(60)[0], progress=True)
        shown = capsys.readouterr().out
        assert all(phase in shown for phase in ("layer 1", "finetune", "clustering"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            (
                {"widths": ()},
                "widths must be the units of the encoder's layers, such as (500, 500, 2000, 10); got ()",
            ),
            (
                {"widths": 500},
                "widths must be the units of the encoder's layers, such as (500, 500, 2000, 10); got 500",
            ),
            ({"widths": (5, 0)}, "widths[1] must be a whole number of 1 or more; got 0"),
            ({"pretrain_steps": -1}, "pretrain_steps must be a whole number of 0 or more; got -1"),
            ({"finetune_steps": 1.5}, "finetune_steps must be a whole number of 0 or more; got 1.5"),
            ({"learning_rate_drop": 0}, "learning_rate_drop must be a whole number of 1 or more; got 0"),
            ({"n_init": 0}, "n_init must be a whole number of 1 or more; got 0"),
            ({"batch_size": 0}, "batch_size must be a whole number of 1 or more; got 0"),
            ({"update_interval": 0}, "update_interval must be a whole number of 1 or more; got 0"),
            ({"max_steps": 0}, "max_steps must be a whole number of 1 or more; got 0"),
            ({"pretrain_learning_rate": 0}, "pretrain_learning_rate must be a number above 0; got 0"),
            ({"learning_rate": -1}, "learning_rate must be a number above 0; got -1"),
            ({"weight_scale": 0}, "weight_scale must be a number above 0; got 0"),
            ({"momentum": 1}, "momentum must be a number of 0 or more and below 1; got 1"),
            ({"dropout": 1.0}, "dropout must be a number of 0 or more and below 1; got 1.0"),
            ({"tolerance": 0}, "tolerance must be a number above 0 and at most 1; got 0"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_parameters(self, parameters, message):
        with pytest.raises(DeclarationError) as error:
            DEC(3, **parameters).fit(blobs(60)[0])
        assert str(error.value) == message

    def test_a_loss_that_is_not_finite(self):
        with pytest.raises(TrainingError, match=r"the loss is (inf|nan) after epoch \d+ of layer 1; use a smaller"):
            fitted(blobs(60)[0], pretrain_learning_rate=1e20)

    def test_another_number_of_features(self):
        x, _ = blobs(60)
        with pytest.raises(DataError, match=r"X has shape \[60, 19\], and DEC was fitted to \[N, 20\]; give samples"):
            fitted(x).transform(x[:, 1:])
