"""Probes of frozen latents, and the placement matrix that they make."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.metrics.placing import PlacementTable, placement
from infoplace.probes.latents import PENALTY, LatentProbes, as_factor, as_latents, fit_probes


def draws(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def labels(classes, count):
        return torch.randint(classes, (count,), generator=generator)

    return normal, labels


def measure(latents, factors, untrained=None, **options):
    """Placement with the first half for training and the second for the test."""

    def half(parts, second):
        return {name: part[len(part) // 2 :] if second else part[: len(part) // 2] for name, part in parts.items()}

    if untrained is not None:
        options["untrained"] = half(untrained, 0), half(untrained, 1)
    return placement(half(latents, 0), half(factors, 0), half(latents, 1), half(factors, 1), **options)


def squared(one, two):
    return np.corrcoef(np.asarray(one), np.asarray(two))[0, 1] ** 2


class TestLinearProbe:
    def test_values_are_least_squares(self):
        normal, _ = draws()
        z = normal(300, 5) @ normal(5, 5) + 3
        values = z @ normal(5, 2) + normal(300, 2) - 7
        (found,) = fit_probes(z, [values], probe="linear").predict(z)
        design = np.hstack([z.double().numpy(), np.ones((300, 1))])
        expected = design @ np.linalg.lstsq(design, values.double().numpy(), rcond=None)[0]
        assert np.abs(found.numpy() - expected).max() < 0.01 * values.std()

    def test_values_are_the_penalised_optimum_of_an_independent_solver(self):
        normal, _ = draws(1)
        z = normal(200, 4)
        z[:, 3] = z[:, 2] + 1e-2 * normal(200)  # near collinear: here the penalty counts
        values = z[:, 3] - z[:, 2] + normal(200)
        (found,) = fit_probes(z, [values], probe="linear").predict(z)
        # A penalty is least squares with rows added: sqrt(N * PENALTY) on the diagonal, answers of 0.
        scaled = ((z - z.mean(0)) / z.std(0, correction=0)).double().numpy()
        goal = ((values - values.mean()) / values.std(correction=0)).double().numpy()
        rows = np.vstack([scaled, math.sqrt(200 * PENALTY) * np.eye(4)])
        weight = np.linalg.lstsq(rows, np.concatenate([goal, np.zeros(4)]), rcond=None)[0]
        expected = scaled @ weight * values.std(correction=0).item() + values.mean().item()
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)

    def test_labels_are_the_optimum_of_an_independent_optimiser(self):
        from scipy.optimize import minimize
        from scipy.special import logsumexp

        normal, labels = draws(2)
        label = labels(3, 400)
        z = normal(400, 4) + one_hot(label, 4)
        z[:, 3] = z[:, 0] + 0.1 * z[:, 3]
        scaled = ((z - z.mean(0)) / z.std(0, correction=0)).double().numpy()

        def objective(flat):
            weight, bias = flat[:12].reshape(4, 3), flat[12:]
            logits = scaled @ weight + bias
            loss = (logsumexp(logits, axis=1) - logits[np.arange(400), label.numpy()]).mean()
            return loss + PENALTY / 2 * (weight**2).sum()

        best = minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-7, "maxiter": 1000})
        probes = fit_probes(z, [label], probe="linear")
        weight, bias = probes.layers[0]
        found = np.concatenate([weight.flatten().numpy(), bias.flatten().numpy()])
        assert objective(found) < best.fun + 1e-7
        expected = (scaled @ best.x[:12].reshape(4, 3) + best.x[12:]).argmax(1)
        assert (probes.predict(z)[0].numpy() == expected).mean() > 0.99

    def test_separable_labels_are_all_right(self):
        _, labels = draws()
        label = labels(10, 500)
        (found,) = fit_probes(one_hot(label, 10), [label], probe="linear").predict(one_hot(label, 10))
        assert torch.equal(found, label)


@pytest.fixture(scope="module")
def company():
    """Latents, targets of every form, and their mlp probes, fitted together."""
    normal, _ = draws(3)
    z = normal(900, 6)
    targets = [
        (z[:, 0] > 0).long(),
        100 * z[:, :3].sin() + 50,
        10 * (z[:, :4].argmax(1)) - 10,
        z[:, 1] * z[:, 2],
    ]
    return z, targets, fit_probes(z, targets)


class TestEnsemble:
    def test_every_probe_answers_in_the_form_of_its_target(self, company):
        z, targets, probes = company
        found = probes.predict(z[:7])
        assert len(probes) == 4
        assert [part.shape for part in found] == [part[:7].shape for part in targets]
        assert [part.is_floating_point() for part in found] == [False, True, False, True]
        assert set(probes.predict(z)[2].tolist()) == {-10, 0, 10, 20}

    def test_reads_what_is_there(self, company):
        z, targets, probes = company
        found = probes.predict(z)
        assert (found[0] == targets[0]).float().mean() > 0.95
        assert (found[1] - targets[1]).abs().mean() < 30
        assert (found[2] == targets[2]).float().mean() > 0.9
        assert squared(found[3], targets[3]) > 0.8

    @pytest.mark.parametrize("place", range(4))
    @pytest.mark.parametrize("probe", ["linear", "mlp"])
    def test_a_probe_comes_out_as_it_would_alone(self, company, place, probe):
        z, targets, _ = company
        together = fit_probes(z, targets, probe=probe, steps=15).predict(z)[place]
        alone = fit_probes(z, [targets[place]], probe=probe, steps=15).predict(z)[0]
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)

    def test_each_probe_may_have_inputs_of_its_own(self):
        normal, _ = draws(4)
        one, two = normal(300, 2), normal(300, 2)
        targets = [one[:, 0], one[:, 0], two[:, 1]]
        for probe in ("linear", "mlp"):
            found = fit_probes([one, two, two], targets, probe=probe).predict([one, two, two])
            scores = [squared(part, target) for part, target in zip(found, targets, strict=True)]
            assert scores[0] > 0.95
            assert scores[1] < 0.2
            assert scores[2] > 0.95

    @pytest.mark.parametrize("probe", ["linear", "mlp"])
    def test_units_and_constant_dimensions_make_no_difference(self, probe):
        normal, _ = draws(5)
        z = normal(300, 3).double()
        value = z[:, 0] + z[:, 1]
        plain = fit_probes(z, [value], probe=probe).predict(z)[0]
        changed = 1000 * z - 5e4
        np.testing.assert_allclose(fit_probes(changed, [value], probe=probe).predict(changed)[0], plain, atol=1e-3)
        with_constant = torch.cat([z, torch.full((300, 1), 0.1)], dim=1)
        elsewhere = torch.cat([z, torch.full((300, 1), 99.0)], dim=1)
        probes = fit_probes(with_constant, [value], probe=probe)
        assert torch.equal(probes.predict(with_constant)[0], probes.predict(elsewhere)[0])

    def test_the_seed_decides_and_torchs_own_is_left_alone(self, company):
        z, targets, _ = company
        before = torch.get_rng_state()
        one, same, other = (fit_probes(z, targets, steps=30, seed=seed).predict(z) for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(first, second) for first, second in zip(one, same, strict=True))
        assert not torch.equal(same[3], other[3])

    @pytest.mark.parametrize("change", [{"hidden": 16}, {"steps": 30}, {"batch_size": 100}, {"weight_decay": 0.0}])
    def test_every_option_changes_an_mlp(self, company, change):
        z, targets, _ = company
        options = {"steps": 40, **change}
        one, two = (fit_probes(z, targets[3:], **each).predict(z)[0] for each in ({"steps": 40}, options))
        assert (one - two).abs().max() > 1e-3

    @pytest.mark.parametrize("probe", ["linear", "mlp"])
    def test_a_constant_target_and_a_handful_of_samples_are_no_trouble(self, probe):
        z = [[0.0], [1.0], [2.0]]
        value, label = fit_probes(z, [[0.1, 0.1, 0.1], [4, 4, 4]], probe=probe).predict(z)
        np.testing.assert_allclose(value, 0.1, atol=1e-4)
        assert label.tolist() == [4, 4, 4]

    @pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
    def test_fits_where_gradients_are_off(self, guard):
        with guard():
            z = torch.linspace(-1, 1, 60)[:, None]
            for probe in ("linear", "mlp"):
                label = (z[:, 0] > 0).long()
                found = fit_probes(z, [label, z[:, 0]], probe=probe, steps=50).predict(z)
                assert (found[0] == label).float().mean() > 0.9
                assert not found[1].requires_grad

    def test_arrays_lists_and_tensors_are_alike(self):
        normal, labels = draws(6)
        z, label = normal(50, 2), labels(2, 50)
        read_only = z.numpy().copy()
        read_only.flags.writeable = False
        forms = [(z, label), (read_only, label.numpy().astype(np.uint16)), (z.tolist(), label.tolist())]
        forms += [(z.numpy().astype(">f4"), label.numpy().astype(">i8")), (z.requires_grad_(), label.bool())]
        found = [fit_probes(one, [two], probe="linear").predict(one)[0] for one, two in forms]
        assert all(torch.equal(found[0], each) for each in found[1:])

    def test_shuffled_labels_are_read_at_chance(self):
        normal, labels = draws(7)
        z, even, rare, value = normal(7000, 64), labels(10, 7000), labels(10, 7000) // 7, normal(7000)
        for probe in ("linear", "mlp"):
            probes = fit_probes(z[:2000], [even[:2000], rare[:2000], value[:2000]], probe=probe)
            found = probes.predict(z[2000:])
            assert abs((found[0] == even[2000:]).float().mean() - 0.1) < 0.02
            # The commonest label is what learning noise by heart would lose first.
            assert (found[1] == rare[2000:]).float().mean() > 0.7 - 0.03
            assert squared(found[2], value[2000:]) < 0.005


@pytest.fixture(scope="module")
def perfect():
    """A digit and a colour: each in a block of its own, both in both blocks, and in neither."""
    normal, labels = draws(10)
    digit, colour = labels(5, 1200), normal(1200, 3)
    code = {"z_g": one_hot(digit, 5).float(), "z_l": colour}
    noise = {"z_g": normal(1200, 5), "z_l": normal(1200, 3)}
    both = torch.cat([code["z_g"], colour], 1)
    factors = {"digit": digit, "colour": colour}
    return {
        "apart": measure(code, factors, untrained=noise),
        "both": measure({"z_g": both, "z_l": both}, factors),
        "noise": measure(noise, factors, untrained=code, probes=["linear"]),
    }


class TestKnownAnswers:
    @pytest.mark.parametrize("probe", ["linear", "mlp"])
    def test_a_perfect_code_scores_one(self, perfect, probe):
        table = perfect["apart"]
        least = 1 - 1e-6 if probe == "linear" else 0.98
        for block, factor in (("z_g", "digit"), ("z_l", "colour")):
            row = table.row(block, factor, probe)
            assert row["score"] >= least
            assert row["normalised"] >= least
            assert row["low"] <= row["score"] <= row["high"] <= 1
        for found in (table.leakage({"digit": "z_g", "colour": "z_l"}, probe), table.redundancy(probe)):
            assert set(found) == {"digit", "colour", "all"}
            assert max(found.values()) < 0.08  # four deviations of 600 guesses, normalised

    @pytest.mark.parametrize("probe", ["linear", "mlp"])
    def test_the_wrong_carriers_are_all_leakage(self, perfect, probe):
        leakage = perfect["apart"].leakage({"digit": "z_l", "colour": "z_g"}, probe)
        assert min(leakage.values()) > 0.95

    @pytest.mark.parametrize("probe", ["linear", "mlp"])
    def test_a_factor_in_both_blocks_is_redundant(self, perfect, probe):
        assert min(perfect["both"].redundancy(probe).values()) > 0.95
        assert min(perfect["both"].leakage({"digit": "z_g", "colour": "z_l"}, probe).values()) > 0.95

    def test_noise_scores_chance_and_leaks_nothing(self, perfect):
        table = perfect["noise"]
        for block in ("z_g", "z_l"):
            row = table.row(block, "digit", "linear")
            assert row["low"] <= 0.2 <= row["high"]
            assert row["chance"] == pytest.approx(0.22, abs=0.02)
            assert table.row(block, "colour", "linear")["high"] < 0.03
        assert max(table.leakage({"digit": "z_g", "colour": "z_l"}, "linear").values()) < 0.08

    def test_the_controls_are_told_apart(self, perfect):
        # The "untrained" latents of the noise are the perfect code.
        assert perfect["noise"].row("z_g", "digit", "linear")["untrained"] == 1
        assert perfect["apart"].row("z_g", "digit")["untrained"] < 0.27
        assert perfect["both"].row("z_g", "digit")["untrained"] is None
        for table in perfect.values():
            for row in table.rows():
                assert abs(row["shuffled"] - row["chance"]) < 0.07

    def test_a_gaussian_channel_tells_what_it_must(self):
        normal, _ = draws(11)
        gains = (0.3, 1.0, 3.0)
        values = normal(8000, len(gains))
        latents = {
            f"gain {a}": torch.stack([a * values[:, i] + normal(8000), normal(8000)], 1) for i, a in enumerate(gains)
        }
        factors = {f"value {i}": values[:, i] for i in range(len(gains))}
        table = measure(latents, factors, probes=["linear"])
        for i, a in enumerate(gains):
            information = 0.5 * math.log(1 + a**2)
            best = 1 - math.exp(-2 * information)
            row = table.row(f"gain {a}", f"value {i}", "linear")
            # The sampling error of a squared correlation of Gaussians, to first order.
            deviation = 2 * math.sqrt(best) * (1 - best) / math.sqrt(4000)
            assert abs(row["score"] - best) < 3 * deviation
            assert row["low"] < best < row["high"]
            assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.25)
            assert row["normalised"] == row["score"]

    def test_an_mlp_comes_near_the_bound_of_a_gaussian_channel_and_not_above(self):
        normal, _ = draws(12)
        value = normal(8000)
        row = measure({"z": (value + normal(8000))[:, None]}, {"value": value}, probes=["mlp"]).row("z", "value")
        assert 0.48 < row["score"] < 0.53
        assert row["shuffled"] < 0.005

    def test_an_exclusive_or_is_there_and_no_line_tells_it(self):
        normal, _ = draws(13)
        z = normal(6000, 4)
        factors = {"alike": (z[:, 0] * z[:, 1] > 0).long()}
        table = measure({"z": z}, factors)
        assert table.score("z", "alike", "linear") < 0.55
        assert table.score("z", "alike", "mlp") > 0.95

    def test_an_interval_is_as_wide_as_the_binomial_says(self):
        normal, labels = draws(14)
        label = labels(2, 8000)
        latents = {"z": label[:, None] + 0.7 * normal(8000, 1)}
        row = measure(latents, {"label": label}, probes=["linear"], bootstrap=1000).row("z", "label", "linear")
        share = row["score"]
        assert share == pytest.approx(0.5 * (1 + math.erf(0.5 / 0.7 / math.sqrt(2))), abs=0.02)
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 4000), rel=0.1)

    def test_an_interval_of_several_channels_is_that_of_a_plain_loop(self):
        normal, _ = draws(15)
        true = normal(1200, 2)
        latents = true + torch.tensor([0.5, 2.0]) * normal(1200, 2)
        table = measure({"z": latents}, {"pair": true}, probes=["linear"], bootstrap=1000)
        (found,) = fit_probes(latents[:600], [true[:600]], probe="linear").predict(latents[600:])
        draw, scores = np.random.default_rng(0), []
        for _ in range(1000):
            chosen = draw.integers(600, size=600)
            scores.append(np.mean([squared(found[chosen, c], true[600:][chosen, c]) for c in range(2)]))
        row = table.row("z", "pair", "linear")
        width = np.subtract(*np.percentile(scores, [97.5, 2.5]))
        assert [row["low"], row["high"]] == pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=0.1 * width)


@pytest.fixture(scope="module")
def parts():
    normal, labels = draws(20)
    label = labels(3, 400)
    z_g = one_hot(label, 3) + 0.6 * normal(400, 3)
    value = normal(400)
    return {"z_g": z_g, "z_l": value[:, None] + normal(400, 2)}, {"digit": label, "ground": value}


class TestPlacement:
    def test_the_rows_are_tidy_and_plain(self, parts):
        told = []
        table = measure(*parts, untrained=parts[0], probes=["linear"], progress=lambda *each: told.append(each))
        rows = table.rows()
        assert json.loads(json.dumps(rows)) == rows
        assert [(row["block"], row["factor"]) for row in rows] == [
            (block, factor) for block in ("z_g", "z_l") for factor in ("digit", "ground")
        ]
        assert all(
            list(row)
            == [
                *("block", "factor", "probe", "metric", "score", "low", "high", "chance"),
                *("untrained", "shuffled", "normalised"),
            ]
            for row in rows
        )
        assert [row["metric"] for row in rows[:2]] == ["accuracy", "squared_correlation"]
        for row in rows:
            assert row["untrained"] == row["score"]
            assert row["normalised"] == pytest.approx((row["score"] - row["chance"]) / (1 - row["chance"]))
        label = parts[1]["digit"][200:]
        assert rows[0]["chance"] == max(label.bincount()).item() / 200
        assert told == [(1, 2, "z_g, linear probes"), (2, 2, "z_l, linear probes")]
        assert PlacementTable(tuple(rows)) == table

    def test_the_seed_decides_and_torchs_own_is_left_alone(self, parts):
        before = torch.get_rng_state()
        one, same, other = (measure(*parts, probes=["linear"], seed=seed) for seed in (3, 3, 4))
        assert torch.equal(torch.get_rng_state(), before)
        assert one == same
        assert one.score("z_g", "digit", "linear") == other.score("z_g", "digit", "linear")
        assert [row["shuffled"] for row in one.rows()] != [row["shuffled"] for row in other.rows()]
        assert [row["low"] for row in one.rows()] != [row["low"] for row in other.rows()]

    def test_more_shuffles_and_resamples_change_only_what_they_should(self, parts):
        plain = measure(*parts, probes=["linear"]).rows()
        shuffled = measure(*parts, probes=["linear"], shuffles=4).rows()
        resampled = measure(*parts, probes=["linear"], bootstrap=50).rows()
        for one, two, three in zip(plain, shuffled, resampled, strict=True):
            assert one["score"] == two["score"] == three["score"]
            assert one["shuffled"] != two["shuffled"]
            assert one["shuffled"] == three["shuffled"]
            assert one["low"] != three["low"]

    def test_arrays_and_lists_are_taken(self, parts):
        latents, factors = parts
        arrays = {name: part.numpy() for name, part in latents.items()}, {n: p.numpy() for n, p in factors.items()}
        lists = {name: part.tolist() for name, part in latents.items()}, {n: p.tolist() for n, p in factors.items()}
        expected = measure(latents, factors, probes=["linear"])
        assert measure(*arrays, probes=["linear"]) == expected
        assert measure(*lists, probes=["linear"]).score("z_g", "digit", "linear") == expected.score(
            "z_g", "digit", "linear"
        )

    def test_a_label_that_training_never_has_is_wrong(self):
        label = torch.tensor([0, 1] * 20)
        test = label.clone()
        test[:10] = 7
        table = placement(
            {"z": one_hot(label, 2)}, {"f": label}, {"z": one_hot(label, 2)}, {"f": test}, probes=["linear"]
        )
        assert table.score("z", "f", "linear") == 0.75
        assert table.row("z", "f", "linear")["chance"] == 0.375

    def test_a_constant_block_scores_chance_and_nothing(self, parts):
        table = measure({"z": torch.ones(400, 2)}, parts[1])
        for probe in ("linear", "mlp"):
            assert table.score("z", "digit", probe) < 0.45
            row = table.row("z", "ground", probe)
            assert (row["score"], row["low"], row["high"]) == (0, 0, 0)


def made(scores, shuffled=0.0, untrained=None, probe="mlp", chance=0.0):
    """A table of given scores, ``{block: {factor: score}}``."""
    rows = [
        {
            "block": block,
            "factor": factor,
            "probe": probe,
            "metric": "accuracy",
            "score": score,
            "low": score - 0.01,
            "high": score + 0.01,
            "chance": chance,
            "untrained": untrained,
            "shuffled": shuffled,
            "normalised": (score - chance) / (1 - chance),
        }
        for block, factors in scores.items()
        for factor, score in factors.items()
    ]
    return PlacementTable(tuple(rows))


THREE = {
    "z_g": {"digit": 0.9, "ground": 0.3},
    "z_l": {"digit": 0.2, "ground": 0.8},
    "z_c": {"digit": 0.4, "ground": 0.1},
}


class TestTable:
    def test_leakage_is_the_largest_elsewhere_and_redundancy_the_second_largest(self):
        table = made(THREE)
        assert table.leakage({"digit": "z_g", "ground": "z_l"}) == pytest.approx(
            {"digit": 0.4, "ground": 0.3, "all": 0.35}
        )
        assert table.leakage({"digit": "z_l"}) == pytest.approx({"digit": 0.9, "all": 0.9})
        assert table.redundancy() == pytest.approx({"digit": 0.4, "ground": 0.3, "all": 0.35})

    def test_both_are_counted_above_the_floor_and_not_below_zero(self):
        table = made(THREE, shuffled=0.35)
        assert table.redundancy() == pytest.approx({"digit": 0.05, "ground": 0.0, "all": 0.025})
        # With chance 0.2, 0.4 is a quarter of the way to 1 and the floor of 0.3 an eighth.
        table = made(THREE, shuffled=0.3, chance=0.2)
        assert table.redundancy()["digit"] == pytest.approx(0.25 - 0.125)

    def test_a_floor_below_chance_adds_nothing(self):
        assert made(THREE, shuffled=0.0, chance=0.2).redundancy()["digit"] == pytest.approx(0.25)

    def test_matrix(self):
        table = made(THREE)
        assert table.matrix() == (("z_g", "z_l", "z_c"), ("digit", "ground"), [[0.9, 0.3], [0.2, 0.8], [0.4, 0.1]])

    def test_summary_has_a_row_for_every_factor_and_their_mean(self):
        rows = made(THREE).summary({"ground": "z_l"})
        assert [(row["probe"], row["factor"]) for row in rows] == [("mlp", "digit"), ("mlp", "ground"), ("mlp", "all")]
        assert [row["leakage"] for row in rows] == [None, pytest.approx(0.3), pytest.approx(0.3)]
        assert [row["redundancy"] for row in rows] == pytest.approx([0.4, 0.3, 0.35])
        assert [row["leakage"] for row in made(THREE).summary()] == [None] * 3

    def test_summary_of_one_block_leaves_both_out(self):
        rows = made({"z": {"digit": 0.5}}).summary({"digit": "z"})
        assert [(row["leakage"], row["redundancy"]) for row in rows] == [(None, None)] * 2

    def test_the_text_has_every_number(self):
        text = str(made(THREE, shuffled=0.123, untrained=0.456))
        lines = text.splitlines()
        assert lines[0].split() == ["mlp", "probes", "digit", "ground"]
        assert lines[1].split() == ["z_g", "0.900", "[0.890,", "0.910]", "0.300", "[0.290,", "0.310]"]
        assert lines[2].split() == ["untrained", "encoder", "0.456", "0.456"]
        assert lines[3].split() == ["shuffled", "factor", "0.123", "0.123"]
        assert lines[-2].split() == ["chance", "0.000", "0.000"]
        assert lines[0].index("ground") == lines[1].index("0.300") == lines[2].rindex("0.456")
        assert "untrained encoder  -" in str(made(THREE))

    @pytest.mark.parametrize(
        ("call", "kind", "text"),
        [
            (lambda t: t.score("zg", "digit"), UnknownNameError, "no block 'zg'; it has 'z_g', 'z_l', 'z_c'. Did you"),
            (lambda t: t.score("z_g", "digits"), UnknownNameError, "no factor 'digits'; it has 'digit', 'ground'. Did"),
            (lambda t: t.score("z_g", "digit", "linear"), UnknownNameError, "no probe 'linear'; it has 'mlp'."),
            (lambda t: t.matrix("mpl"), UnknownNameError, "no probe 'mpl'; it has 'mlp'. Did you mean 'mlp'?"),
            (lambda t: t.redundancy("mpl"), UnknownNameError, "no probe 'mpl'"),
            (lambda t: t.leakage({"digit": "z_g"}, "mpl"), UnknownNameError, "no probe 'mpl'"),
            (
                lambda t: t.leakage({"digits": "z_g"}),
                UnknownNameError,
                "carriers name the factor 'digits'; the table has 'digit', 'ground'. Did you mean 'digit'?",
            ),
            (
                lambda t: t.summary({"digit": "z_k"}),
                UnknownNameError,
                "carriers name the block 'z_k'; the table has 'z_g', 'z_l', 'z_c'. Did you mean",
            ),
            (lambda t: t.leakage({}), DeclarationError, "leakage needs the block of at least one factor"),
            (
                lambda t: made({"z": {"digit": 0.5}}).redundancy(),
                DeclarationError,
                "redundancy compares blocks and the table has 'z' only; measure two or more",
            ),
            (
                lambda t: made({"z": {"digit": 0.5}}).leakage({"digit": "z"}),
                DeclarationError,
                "leakage compares blocks",
            ),
        ],
    )
    def test_what_it_lacks_is_named(self, call, kind, text):
        with pytest.raises(kind) as error:
            call(made(THREE))
        assert text in str(error.value)


Z = torch.arange(12.0).reshape(6, 2).sin()
F = torch.tensor([0, 1, 0, 1, 2, 2])
LATENTS, FACTORS = {"z_g": Z, "z_l": Z[:, :1]}, {"digit": F, "ground": Z[:, 0]}


def place(train=LATENTS, factors=FACTORS, test=LATENTS, held=FACTORS, **options):
    return placement(train, factors, test, held, **{"probes": ["linear"], **options})


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "kind", "text"),
        [
            (
                lambda: place(factors={**FACTORS, "digit": F[:5]}),
                DataError,
                "train_factors['digit'] has 5 samples and the latents have 6; give one row for each latent",
            ),
            (lambda: place(held={**FACTORS, "ground": Z[:4]}), DataError, "test_factors['ground'] has 4 samples"),
            (
                lambda: place(factors={**FACTORS, "digit": F * 0}),
                DataError,
                "train_factors['digit'] is constant, so nothing can be read of it",
            ),
            (lambda: place(held={**FACTORS, "ground": torch.ones(6)}), DataError, "test_factors['ground'] is constant"),
            (
                lambda: place(factors={"c": Z * torch.tensor([0, 1])}, held={"c": Z}),
                DataError,
                "train_factors['c'] is constant in one of its channels",
            ),
            (
                lambda: place(factors={"id": torch.arange(6)}, held={"id": torch.arange(6) + 6}),
                DataError,
                "factor 'id' has 12 classes and there are 6 training and 6 test samples",
            ),
            (
                lambda: place(train={**LATENTS, "z_g": Z.where(Z > 0, math.nan)}),
                DataError,
                "train_latents['z_g'] holds NaN or infinite values",
            ),
            (
                lambda: place(held={**FACTORS, "ground": Z[:, 0] / 0}),
                DataError,
                "test_factors['ground'] holds NaN or infinite values",
            ),
            (
                lambda: place(test={**LATENTS, "z_g": Z[:, :1]}),
                DataError,
                "train_latents['z_g'] has 2 dimensions and test_latents['z_g'] has 1; both must come from one encoder",
            ),
            (
                lambda: place(train={**LATENTS, "z_l": Z[:3]}),
                DataError,
                "['z_l'] has 3 samples and train_latents['z_g']",
            ),
            (lambda: place(train={**LATENTS, "z_g": Z[:, 0]}), DataError, "must be [N, dim], one row for each sample"),
            (lambda: place(test={**LATENTS, "z_g": Z[:0]}), DataError, "test_latents['z_g'] is empty, [0, 2]"),
            (lambda: place(train={}), DataError, "train_latents must be a dict {block: array} with at least one block"),
            (lambda: place(held=F), DataError, "test_factors must be a dict {factor: array} with at least one factor"),
            (lambda: place(held={**FACTORS, "digit": F.float()}), DataError, "'digit' is labels in train_factors and"),
            (lambda: place(held={**FACTORS, "ground": Z}), DataError, "values [N] in train_factors and values [N, 2]"),
            (lambda: place(factors={"all": F}, held={"all": F}), DataError, "a factor is named 'all'"),
            (lambda: place(factors={**FACTORS, "digit": list("abcdef")}), DataError, "is no array of numbers"),
            (lambda: place(train={**LATENTS, "z_g": [[1.0], [2.0, 3.0]]}), DataError, "is no array of numbers"),
            (
                lambda: place(test={"z_g": Z, "zl": Z}),
                UnknownNameError,
                "has the block 'zl' and train_latents has not; it has 'z_g', 'z_l'. Did you mean 'z_l'?",
            ),
            (
                lambda: place(factors={"digit": F}),
                UnknownNameError,
                "test_factors has the factor 'ground' and train_factors has not",
            ),
            (
                lambda: place(untrained=({"z_g": Z}, LATENTS)),
                UnknownNameError,
                "train_latents has the block 'z_l' and untrained[0] has not",
            ),
            (
                lambda: place(untrained=(LATENTS, {"z_g": Z, "z_l": Z})),
                DataError,
                "untrained[1]['z_l'] is [6, 2] and test_latents['z_l'] is [6, 1]",
            ),
            (lambda: place(untrained=LATENTS), DataError, "untrained must be a pair (train latents, test latents)"),
            (lambda: place(untrained=(Z, Z)), DataError, "untrained[0] must be a dict {block: array}; got a Tensor"),
            (lambda: place(untrained=[LATENTS]), DataError, "untrained must be a pair"),
            (
                lambda: place(probes=["linaer"]),
                UnknownNameError,
                "probes name 'linaer'; there are 'linear', 'mlp'. Did you mean 'linear'?",
            ),
            (
                lambda: place(probes="linear"),
                DeclarationError,
                "probes must list some of 'linear', 'mlp'; got 'linear'",
            ),
            (lambda: place(shuffles=0), DeclarationError, "shuffles must be a whole number of 1 or more; got 0"),
            (lambda: place(bootstrap=19), DeclarationError, "bootstrap must be a whole number of 20 or more; got 19"),
        ],
    )
    def test_of_placement(self, call, kind, text):
        with pytest.raises(kind) as error:
            call()
        assert text in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("call", "kind", "text"),
        [
            (
                lambda: fit_probes(Z, [F], probe="mpl"),
                UnknownNameError,
                "no probe 'mpl'; there are 'linear', 'mlp'. Did",
            ),
            (lambda: fit_probes(Z, [F], steps=0), DeclarationError, "steps must be a positive whole number; got 0"),
            (lambda: fit_probes(Z, [F], hidden=True), DeclarationError, "hidden must be a positive whole number"),
            (
                lambda: fit_probes(Z, [F], batch_size=2.0),
                DeclarationError,
                "batch_size must be a positive whole number",
            ),
            (
                lambda: fit_probes(Z, [F], weight_decay=-1),
                DeclarationError,
                "weight_decay must be a number of 0 or more",
            ),
            (lambda: fit_probes(Z, F), DataError, "write [factor] for one"),
            (lambda: fit_probes(Z, []), DataError, "targets must be a list of one factor or more"),
            (lambda: fit_probes(Z, [F[:3]]), DataError, "targets[0] has 3 samples and the latents have 6"),
            (lambda: fit_probes([Z, Z], [F]), DataError, "latents list 2 arrays and there are 1 probes"),
            (lambda: fit_probes([Z, Z[:, :1]], [F, F]), DataError, "latents[1] is [6, 1] and latents[0] is [6, 2]"),
            (lambda: fitted().predict(Z[:, :1]), DataError, "latents have 1 dimensions; the probes were trained on 2"),
            (lambda: as_factor(F[:, None]), DataError, "must be [N] for labels, one row for each sample; got [6, 1]"),
            (lambda: as_factor(Z[:, :0]), DataError, "must be [N] or [N, channels] for values"),
            (lambda: as_factor([]), DataError, "factor is empty"),
            (lambda: as_factor(Z[:, 0] * 1j), DataError, "expected real numbers"),
            (lambda: as_latents(Z[0]), DataError, "got [2]; a single dimension is values[:, None]"),
        ],
    )
    def test_of_probes(self, call, kind, text):
        with pytest.raises(kind) as error:
            call()
        assert text in str(error.value)


def fitted() -> LatentProbes:
    return fit_probes(Z, [F], probe="linear")
