"""IMSAT: its terms by hand, its perturbations against known answers, and easy sets that it must find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from infoplace.errors import DeclarationError, TrainingError, UnknownNameError
from infoplace.metrics.clustering import fit_mapping
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from torch import nn

from infoplace_clustering import imsat
from infoplace_clustering.imsat import (
    IMSAT,
    adversarial_direction,
    information_terms,
    neighbour_distances,
    perturbation_loss,
    random_direction,
)

QUICK = {"n_clusters": 3, "hidden": (64,), "epochs": 30, "batch_size": 50, "device": "cpu"}


def blobs(n=300, features=20, seed=0):
    kinds = np.arange(n) % 3
    places = 2 * np.random.default_rng(100).normal(size=(3, features))
    return places[kinds] + np.random.default_rng(seed).normal(size=(n, features)), kinds


def halves(n=300, side=8, seed=0):
    """Images whose left half, upper half or lower right quarter is bright, under noise, and which of them each is."""
    kinds = np.arange(n) % 3
    bright = np.zeros((3, 1, side, side))
    bright[0, :, :, : side // 2] = bright[1, :, : side // 2] = bright[2, :, side // 2 :, side // 2 :] = 0.6
    return (bright[kinds] + 0.4 * np.random.default_rng(seed).random((n, 1, side, side))).astype(np.float32), kinds


def accuracy(clusters, kinds):
    return fit_mapping(clusters, kinds, "hungarian", clusters_count=3).accuracy(clusters, kinds)


def logits(batch=7, clusters=4, seed=0):
    return 2 * np.random.default_rng(seed).normal(size=(batch, clusters))


class TestFormulas:
    def test_entropies(self):
        z = logits()
        p = softmax(z, axis=1)
        conditional, marginal = information_terms(torch.from_numpy(z))
        assert conditional.item() == pytest.approx(np.mean([-np.sum(row * np.log(row)) for row in p]), rel=1e-12)
        assert marginal.item() == pytest.approx(-np.sum(p.mean(0) * np.log(p.mean(0))), rel=1e-12)

    def test_mutual_information_is_zero_where_samples_do_not_matter(self):
        conditional, marginal = information_terms(torch.tensor([[1.0, 2.0, 5.0]]).expand(6, 3))
        torch.testing.assert_close(conditional, marginal)

    def test_entropies_of_sure_clusters_are_finite_and_have_gradients(self):
        z = torch.tensor([[300.0, 0.0], [300.0, 0.0]], requires_grad=True)
        sum(information_terms(z)).backward()
        assert torch.isfinite(z.grad).all()

    def test_perturbation(self):
        z, moved = logits(), logits(seed=1)
        p, q = softmax(z, axis=1), softmax(moved, axis=1)
        by_hand = np.mean(np.sum(p * np.log(p / q), axis=1))
        assert perturbation_loss(torch.from_numpy(z), torch.from_numpy(moved)).item() == pytest.approx(
            by_hand, rel=1e-12
        )

    def test_no_gradient_passes_through_the_unperturbed_probabilities(self):
        z, moved = (torch.from_numpy(logits(seed=seed)).requires_grad_() for seed in (0, 1))
        perturbation_loss(z, moved).backward()
        assert z.grad is None
        by_hand = (softmax(logits(seed=1), axis=1) - softmax(logits(), axis=1)) / len(z)
        np.testing.assert_allclose(moved.grad, by_hand, atol=1e-12)

    @pytest.mark.parametrize("regulariser", ["vat", "rpt"])
    def test_the_loss_is_the_weighted_sum_of_its_terms(self, regulariser):
        x, _ = blobs(60)
        settings = {**QUICK, "epochs": 2, "information_weight": 0.3, "marginal_weight": 1.7, "regulariser": regulariser}
        for row in IMSAT(**settings).fit(x).history_:
            information = row["conditional_entropy"] - 1.7 * row["marginal_entropy"]
            assert row["loss"] == pytest.approx(row["perturbation"] + 0.3 * information, abs=1e-5)
            assert row["perturbation"] > 0


class TestDirections:
    def test_the_adversary_finds_the_eigenvector(self):
        """For small steps the divergence is quadratic: its curvature is J'(diag p - pp')J, for logits Jx + b."""
        random = np.random.default_rng(0)
        jacobian, offset = random.normal(size=(4, 6)), random.normal(size=4)
        p = softmax(offset)
        curvature = jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
        strongest = np.linalg.eigh(curvature)[1][:, -1]

        def network(x):
            return x @ torch.from_numpy(jacobian).T + torch.from_numpy(offset)

        x = torch.zeros(3, 6, dtype=torch.float64)
        torch.manual_seed(0)
        found = adversarial_direction(network, x, network(x), xi=1e-4, iterations=60)
        np.testing.assert_allclose(np.abs(found.numpy() @ strongest), 1, atol=1e-3)

    def test_one_iteration_changes_more_than_chance(self):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 5))
        x = torch.randn(50, 30)
        z = network(x)
        found, random = adversarial_direction(network, x, z), random_direction(x)
        changed, by_chance = (perturbation_loss(z, network(x + direction)) for direction in (found, random))
        assert changed > 2 * by_chance
        torch.testing.assert_close(found.norm(dim=1), torch.ones(50))
        assert not found.requires_grad
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_gradients_too_small_to_be_squared_still_give_a_direction(self):
        weight = torch.tensor([[3e-15, 0.0], [0.0, 4e-15]])
        x = torch.zeros(1, 2)
        found = adversarial_direction(lambda x: x @ weight, x, x @ weight + torch.tensor([[0.0, 1.0]]))
        torch.testing.assert_close(found.norm(dim=1), torch.ones(1))

    def test_a_network_that_never_changes_has_no_direction(self):
        x = torch.ones(2, 3)
        found = adversarial_direction(lambda x: 0 * x, x, torch.zeros(2, 3))
        assert found.tolist() == torch.zeros(2, 3).tolist()

    def test_random_directions_are_even(self):
        torch.manual_seed(0)
        drawn = random_direction(torch.zeros(20_000, 3))
        torch.testing.assert_close(drawn.mean(0), torch.zeros(3), atol=0.02, rtol=0)
        torch.testing.assert_close(drawn.T @ drawn / 20_000, torch.eye(3) / 3, atol=0.02, rtol=0)


class TestNeighbours:
    @pytest.mark.parametrize("neighbour", [1, 10])
    def test_distances_are_exact(self, neighbour, monkeypatch):
        monkeypatch.setattr(imsat, "_ROWS", 64)
        monkeypatch.setattr(imsat, "_COLUMNS", 50)
        x = np.random.default_rng(0).normal(size=(333, 5)).astype(np.float32) + 100
        known = NearestNeighbors(n_neighbors=neighbour).fit(x.astype(float)).kneighbors()[0][:, -1]
        np.testing.assert_allclose(neighbour_distances(torch.from_numpy(x), neighbour), known, rtol=1e-4)

    def test_copies_are_at_no_distance(self):
        x = torch.full((12, 300), 0.1).add_(torch.linspace(0, 1, 300))
        assert neighbour_distances(x, 10).tolist() == [0.0] * 12

    def test_blocks_of_their_usual_size(self):
        x = torch.arange(9000.0)[:, None]
        distances = neighbour_distances(x, 2)
        assert distances[[0, 1, 8500, 8999]].tolist() == [2, 1, 1, 2]

    def test_few_samples_take_the_farthest(self):
        assert neighbour_distances(torch.tensor([[0.0], [1.0], [5.0]])).tolist() == [5, 4, 5]


class TestLearning:
    @pytest.mark.parametrize("regulariser", ["vat", "rpt"])
    @pytest.mark.parametrize("data", [blobs, halves])
    def test_easy_sets(self, data, regulariser):
        method = IMSAT(**QUICK, regulariser=regulariser).fit(data()[0])
        assert accuracy(method.labels_, data()[1]) > 0.95
        new, kinds = data(seed=1)
        assert accuracy(method.predict(new), kinds) > 0.95
        shares = method.predict_proba(new)
        assert (shares.dtype, shares.shape) == (np.float32, (300, 3))
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
        np.testing.assert_array_equal(shares.argmax(1), method.predict(new))

    def test_vectors_at_any_scale_and_place(self):
        x, kinds = blobs()
        assert accuracy(IMSAT(**QUICK).fit(1e-3 * x + 5).labels_, kinds) > 0.95

    def test_images_come_in_from_minus_one_to_one(self):
        images, _ = halves(20)
        method = IMSAT(**QUICK).set_params(epochs=1).fit(images)
        seen = []
        method.network_.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        method.predict(np.stack([np.zeros((1, 8, 8)), np.ones((1, 8, 8))]))
        assert seen[0].tolist() == [[-1.0] * 64, [1.0] * 64]

    def test_perturbed_passes_leave_the_running_averages(self):
        """After one step they hold a tenth of that batch's statistics, and nothing of the perturbed ones."""
        x, _ = blobs(50)
        after = IMSAT(**QUICK).set_params(epochs=1, radius=50.0, learning_rate=1e-12).fit(x).network_
        scaled = torch.from_numpy((x - x.mean(0)) / np.sqrt(np.mean((x - x.mean(0)) ** 2))).float()
        before = after[0](scaled)
        torch.testing.assert_close(after[1].running_mean, 0.1 * before.mean(0), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(after[1].running_var, 0.9 + 0.1 * before.var(0), atol=1e-6, rtol=1e-4)
        assert after[1].num_batches_tracked == 1

    def test_the_weights_start_as_published(self):
        x = np.random.default_rng(0).normal(size=(40, 500))
        network = IMSAT(**QUICK).set_params(epochs=1, hidden=(400, 400), learning_rate=1e-12).fit(x).network_
        for layer, scale in zip(network[::3], (0.1, 0.1, 1e-4), strict=True):
            assert layer.weight.std().item() == pytest.approx(scale * np.sqrt(2 / layer.in_features), rel=0.1)
            assert layer.bias.abs().max().item() < 1e-11

    def test_a_last_batch_of_one_is_left_out(self):
        x, _ = blobs(51)
        assert len(IMSAT(**QUICK).fit(x).labels_) == 51

    @pytest.mark.parametrize(
        "change",
        [
            {"regulariser": "rpt"},
            {"epochs": 3},
            {"batch_size": 30},
            {"learning_rate": 0.01},
            {"hidden": (32, 32)},
            {"information_weight": 1.0},
            {"marginal_weight": 1.0},
            {"radius": 1.0},
            {"neighbour": 1},
            {"xi": 0.1},
            {"power_iterations": 3},
            {"seed": 1},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_every_setting_matters(self, change):
        x, _ = blobs(60)
        settings = {**QUICK, "epochs": 2}
        usual, changed = (IMSAT(**each).fit(x).predict_proba(x) for each in (settings, settings | change))
        assert np.abs(usual - changed).max() > 1e-6

    def test_same_seed_same_clusters_and_random_states_are_left_alone(self):
        x, _ = blobs(60)
        method = IMSAT(**QUICK).set_params(epochs=2)
        numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        first = method.fit(x).predict_proba(x)
        np.testing.assert_array_equal(clone(method).fit(x).predict_proba(x), first)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), torch_state)

    def test_history(self, capsys):
        x, _ = blobs(60)
        rows = IMSAT(**QUICK, progress=True).fit(x).history_
        assert [row["epoch"] for row in rows] == list(range(1, 31))
        assert rows[-1]["loss"] < rows[0]["loss"]
        assert "IMSAT" in capsys.readouterr().out

    def test_a_loss_that_is_not_finite(self):
        with pytest.raises(TrainingError, match="the loss is nan after epoch 1; use a smaller learning rate"):
            IMSAT(**QUICK).set_params(learning_rate=1e30).fit(blobs(150)[0])


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epochs": 0}, "epochs must be a whole number of 1 or more; got 0"),
            ({"batch_size": 1}, "batch_size must be a whole number of 2 or more; got 1"),
            ({"learning_rate": 0}, "learning_rate must be a number above 0; got 0"),
            ({"hidden": ()}, r"hidden must be the widths of one or more layers, as \(1200, 1200\); got \(\)"),
            ({"hidden": 1200}, r"hidden must be the widths of one or more layers, as \(1200, 1200\); got 1200"),
            ({"hidden": (9, 0)}, r"hidden\[1\] must be a whole number of 1 or more; got 0"),
            ({"information_weight": -1}, "information_weight must be a number of 0 or more; got -1"),
            ({"marginal_weight": -1}, "marginal_weight must be a number of 0 or more; got -1"),
            ({"radius": float("nan")}, "radius must be a number of 0 or more; got nan"),
            ({"neighbour": 0}, "neighbour must be a whole number of 1 or more; got 0"),
            ({"xi": 0.0}, "xi must be a number above 0; got 0.0"),
            ({"power_iterations": 0}, "power_iterations must be a whole number of 1 or more; got 0"),
        ],
    )
    def test_settings(self, change, message):
        with pytest.raises(DeclarationError, match=f"^{message}$"):
            IMSAT(**{**QUICK, **change}).fit(blobs(30)[0])

    def test_regulariser(self):
        with pytest.raises(UnknownNameError, match=r"must be one of 'vat', 'rpt'; got 'vta'. Did you mean 'vat'\?"):
            IMSAT(regulariser="vta").fit(blobs(30)[0])

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            IMSAT().predict_proba(blobs(30)[0])
