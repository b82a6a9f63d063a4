"""Scores against independent references, and swap tables whose every number is known beforehand."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch

from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.metrics import (
    LackingError,
    Subject,
    SwapTable,
    accuracy,
    chance,
    clustering,
    make_metric,
    normalised,
    partial_squared_correlation,
    squared_correlation,
    swap,
)

COUNT = 400


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Digit:
    """Reads the label that `paint` writes into the first pixel."""

    metric = "accuracy"

    def predict(self, images):
        return (images[:, 0, 0, 0] * 10).round().long().clamp(0, 9)


class Ground:
    """Reads the colour that `paint` writes into the second pixel."""

    metric = "squared_correlation"

    def predict(self, images):
        return images[:, :, 0, 1]


def paint(digit, ground):
    images = torch.full((len(digit), 3, 8, 8), 0.5)
    images[:, :, 0, 0] = digit[:, None] / 10
    images[:, :, 0, 1] = ground
    return images


@pytest.fixture
def world():
    """Images whose digit and ground colour are known; the ground is brighter for polarity 1."""
    draw = generator(1)
    digit = torch.arange(COUNT) % 10
    polarity = torch.randint(2, (COUNT,), generator=draw)
    ground = 0.4 * polarity[:, None] + 0.5 * torch.rand(COUNT, 3, generator=draw)
    return {"digit": digit, "ground": ground, "polarity": polarity}


def table_of(world, latents, decode, prior, **options):
    factors = {key: world[key] for key in ("digit", "ground", "polarity")}
    images = paint(world["digit"], world["ground"])
    predictors = {"digit": Digit(), "ground": Ground()}
    options = {"generator": generator(), **options}
    return swap(latents, decode, prior, images, factors, predictors, **options)


def placed(world, **options):
    """Perfect placement: z_g is the digit, z_l is the colour."""

    def prior(block, n, generator):
        if block == "z_g":
            return torch.randint(10, (n, 1), generator=generator).float()
        return torch.rand(n, 3, generator=generator)

    latents = {"z_g": world["digit"][:, None].float(), "z_l": world["ground"]}
    return table_of(world, latents, lambda z: paint(z["z_g"][:, 0], z["z_l"]), prior, **options)


class TestScores:
    @pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
    def test_squared_correlation_agrees_with_numpy(self, shape):
        true = torch.randn(shape, generator=generator())
        predicted = 0.3 * true + torch.randn(shape, generator=generator(1))
        columns = zip(true.reshape(50, -1).T.numpy(), predicted.reshape(50, -1).T.numpy(), strict=True)
        expected = np.mean([np.corrcoef(a.astype(float), b.astype(float))[0, 1] ** 2 for a, b in columns])
        assert squared_correlation(true, predicted) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("gain", [-3.0, 1e-3, 250.0])
    def test_gain_and_offset_do_not_matter(self, gain):
        true = torch.randn(30, 2, generator=generator()).double()
        assert squared_correlation(true, gain * true + 7) == pytest.approx(1.0)

    @pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
    def test_a_constant_tells_nothing(self, value):
        true = torch.randn(30, 3, generator=generator())
        constant = torch.full((30, 3), value)
        assert squared_correlation(true, constant) == 0.0
        assert squared_correlation(constant, true) == 0.0
        half = torch.stack([true[:, 0], constant[:, 0]], 1)
        assert squared_correlation(true[:, :2], half) == pytest.approx(0.5)

    @pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32])
    def test_partial_correlation_agrees_with_regression_on_the_group(self, dtype):
        group = torch.randint(2, (200,), generator=generator())
        true = group + 0.5 * torch.randn(200, generator=generator(1))
        predicted = group + 0.3 * true + 0.2 * torch.randn(200, generator=generator(2))
        design = np.stack([np.ones(200), group.numpy()], 1)
        residuals = [
            v - design @ np.linalg.lstsq(design, v, rcond=None)[0]
            for v in (true.double().numpy(), predicted.double().numpy())
        ]
        expected = np.corrcoef(*residuals)[0, 1] ** 2
        assert partial_squared_correlation(true, predicted, group.to(dtype)) == pytest.approx(expected, abs=1e-12)

    def test_partial_correlation_sees_only_what_the_group_does_not_tell(self):
        group = torch.arange(90) % 3
        true = group[:, None] + 0.1 * torch.randn(90, 2, generator=generator())
        group_means = torch.stack([true[group == g].mean(0) for g in range(3)])[group]
        assert squared_correlation(true, group_means) > 0.9
        assert partial_squared_correlation(true, group_means, group) == 0.0
        assert partial_squared_correlation(true, true - group_means, group) == pytest.approx(1.0)

    def test_one_group_makes_it_the_plain_one(self):
        true, predicted = torch.rand(40, generator=generator()), torch.rand(40, generator=generator(1))
        plain = squared_correlation(true, predicted)
        assert partial_squared_correlation(true, predicted, torch.zeros(40)) == pytest.approx(plain)

    def test_accuracy_and_chance(self):
        labels = torch.tensor([3, 3, 3, 1, 2])
        assert accuracy(labels, torch.tensor([3, 3, 1, 1, 1])) == pytest.approx(0.6)
        assert chance(labels) == pytest.approx(0.6)
        assert chance(labels == 3) == pytest.approx(0.6)

    def test_normalised(self):
        assert normalised(0.95, 0.95, 0.1) == 1.0
        assert normalised(0.1, 0.95, 0.1) == 0.0
        assert normalised(0.0, 0.6, 0.1) == pytest.approx(-0.2)
        assert math.isnan(normalised(0.1, 0.1, 0.1))

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: squared_correlation(torch.rand(3), torch.rand(4)), "got true [3] and predicted [4]"),
            (lambda: squared_correlation(torch.rand(1), torch.rand(1)), "N of 2 or more"),
            (lambda: squared_correlation(torch.rand(3), torch.full((3,), math.nan)), "predicted holds NaN"),
            (lambda: partial_squared_correlation(torch.rand(4), torch.rand(4), torch.rand(4)), "bin a continuous"),
            (lambda: partial_squared_correlation(torch.rand(4), torch.rand(4), torch.zeros(3)), "must be [4]"),
            (lambda: accuracy(torch.zeros(2, 2), torch.zeros(2, 2)), "two label tensors [N]"),
            (lambda: accuracy(torch.zeros(0), torch.zeros(0)), "two label tensors [N]"),
            (lambda: chance(torch.zeros(0)), "N of 1 or more"),
        ],
    )
    def test_errors_say_what_came(self, call, text):
        with pytest.raises(DataError) as error:
            call()
        assert text in str(error.value)


class TestSwap:
    @pytest.mark.parametrize("how", ["prior", "other image"])
    def test_perfect_placement_keeps_all_and_crosses_nothing(self, world, how):
        table = placed(world, given={"ground": "polarity"}, how=(how,))
        assert table.score("digit") == 1.0
        for factor, carrier in (("digit", "z_g"), ("ground", "z_l"), ("ground given polarity", "z_l")):
            assert table.kept(factor, carrier) == pytest.approx(1.0)
            assert table.crossed(factor, carrier) == pytest.approx(0.0, abs=0.06)

    def test_a_code_that_repeats_everything_in_one_block_places_all_of_it_there(self, world):
        everything = torch.cat([world["digit"][:, None].float(), world["ground"]], 1)
        table = table_of(
            world,
            {"z_g": everything, "z_l": torch.zeros(COUNT, 2)},
            lambda z: paint(z["z_g"][:, 0], z["z_g"][:, 1:]),
            lambda block, n, g: torch.rand(n, 4 if block == "z_g" else 2, generator=g),
        )
        assert table.kept("ground", carrier="z_l") == pytest.approx(0.0, abs=0.06)
        assert table.crossed("ground", carrier="z_l") == pytest.approx(1.0)
        assert table.crossed("digit", carrier="z_g") == pytest.approx(0.0, abs=0.06)

    def test_an_entangled_code_loses_a_factor_with_either_block(self, world):
        shift = torch.randint(10, (COUNT,), generator=generator(5))
        table = table_of(
            world,
            {"z_g": (world["digit"] + shift)[:, None].float(), "z_l": shift[:, None].float()},
            lambda z: paint((z["z_g"] - z["z_l"])[:, 0] % 10, torch.zeros(len(z["z_g"]), 3)),
            lambda block, n, g: torch.randint(10, (n, 1), generator=g).float(),
        )
        assert table.score("digit") == 1.0
        assert table.kept("digit", carrier="z_g") == pytest.approx(0.0, abs=0.06)
        assert table.crossed("digit", carrier="z_g") == pytest.approx(0.0, abs=0.06)
        assert table.score("ground") == 0.0

    def test_polarity_kept_in_the_other_block_is_not_colour_that_crossed(self, world):
        """z_g carries digit and polarity, so the plain score crosses where the partial one does not."""
        group = 0.4 * world["polarity"][:, None]
        table = table_of(
            world,
            {"z_g": torch.cat([world["digit"][:, None].float(), group], 1), "z_l": world["ground"] - group},
            lambda z: paint(z["z_g"][:, 0], z["z_g"][:, 1:] + z["z_l"]),
            lambda block, n, g: torch.rand(n, 2 if block == "z_g" else 3, generator=g) * 0.5,
            given={"ground": "polarity"},
            how=("prior",),
        )
        assert table.crossed("ground", carrier="z_l") > 0.2
        assert table.crossed("ground given polarity", carrier="z_l") == pytest.approx(0.0, abs=0.06)

    def test_rows_are_tidy_and_serialise(self, world):
        table = placed(world)
        rows = table.rows()
        assert len(rows) == (1 + 2 * 2) * 2
        assert {(row["changed"], row["how"]) for row in rows} == {
            (None, "kept"),
            *((block, how) for block in ("z_g", "z_l") for how in ("prior", "other image")),
        }
        for row in rows:
            assert list(row) == ["changed", "how", "factor", "score", "metric", "real", "chance", "normalised"]
            assert row["normalised"] == normalised(row["score"], row["real"], row["chance"])
        assert {row["chance"] for row in rows if row["factor"] == "digit"} == {0.1}
        assert json.loads(json.dumps(rows)) == rows
        writer = csv.DictWriter(io.StringIO(), rows[0])
        writer.writerows(rows)

    def test_the_same_seed_gives_the_same_table_whatever_the_batch(self, world):
        assert placed(world).rows() == placed(world, batch_size=33).rows()
        assert placed(world).rows() != placed(world, generator=generator(9)).rows()

    def test_another_image_is_never_the_same_one(self, world):
        seen = []

        def decode(z):
            seen.append(z)
            return paint(world["digit"], world["ground"])

        index = torch.arange(COUNT)[:, None].float()
        table_of(world, {"z_g": index, "z_l": index}, decode, None, how=("other image",))
        kept, changed_g, changed_l = seen
        assert torch.equal(kept["z_g"], index)
        assert torch.equal(changed_g["z_l"], index)
        assert torch.equal(changed_l["z_g"], index)
        for moved in (changed_g["z_g"], changed_l["z_l"]):
            assert (moved != index).all()
            assert torch.equal(moved.sort(0).values, index)

    def test_one_block_alone_is_carrier_of_all(self, world):
        table = table_of(
            world,
            {"z": world["digit"][:, None].float()},
            lambda z: paint(z["z"][:, 0], world["ground"][: len(z["z"])]),
            lambda block, n, g: torch.randint(10, (n, 1), generator=g).float(),
        )
        assert table.kept("digit", carrier="z") == 1.0

    def test_three_blocks_keep_the_worst_of_the_other_two(self, world):
        table = table_of(
            world,
            {"z_g": world["digit"][:, None].float(), "z_l": world["ground"], "z_s": torch.zeros(COUNT, 1)},
            lambda z: paint((z["z_g"][:, 0] + z["z_s"][:, 0]) % 10, z["z_l"]),
            lambda block, n, g: (
                torch.randint(10, (n, 3 if block == "z_l" else 1), generator=g) / (10 if block == "z_l" else 1)
            ),
            how=("prior",),
        )
        worst = min(table.row("digit", block)["normalised"] for block in ("z_l", "z_s"))
        assert table.kept("digit", carrier="z_g") == worst < 0.1

    def test_the_table_reads_as_text(self, world):
        lines = str(placed(world, given={"ground": "polarity"}, described="posterior samples")).splitlines()
        assert lines[0].split() == ["digit", "norm.", "ground", "norm.", "ground", "given", "polarity", "norm."]
        assert lines[1].split()[:3] == ["chance", "0.100", "0.00"]
        assert lines[3].split()[:3] == ["reconstruction", "1.000", "1.00"]
        assert [line.split("  ")[0] for line in lines[4:8]] == [
            "z_g from its prior",
            "z_l from its prior",
            "z_g from other image",
            "z_l from other image",
        ]
        assert lines[-1].endswith("unchanged blocks hold posterior samples")
        assert len({len(line) for line in lines[:-1]}) == 1

    def test_a_predictor_no_better_than_chance_measures_nothing(self, world):
        class Blind(Digit):
            def predict(self, images):
                return torch.zeros(len(images), dtype=torch.long)

        images = paint(world["digit"], world["ground"])
        table = swap(
            {"z": torch.zeros(COUNT, 1)},
            lambda z: images[: len(z["z"])],
            lambda block, n, g: torch.zeros(n, 1),
            images,
            {"digit": world["digit"]},
            {"digit": Blind()},
        )
        assert math.isnan(table.kept("digit", "z"))
        assert "-" in str(table).splitlines()[3].split()

    def test_gradients_are_left_alone(self, world):
        weight = torch.ones((), requires_grad=True)
        table_of(
            world,
            {"z": world["ground"]},
            lambda z: paint(torch.zeros(len(z["z"])), z["z"] * weight),
            lambda block, n, g: torch.rand(n, 3, generator=g),
        )
        assert weight.grad is None

    @pytest.mark.parametrize(
        ("change", "kind", "text"),
        [
            ({"how": ("shuffle",)}, DeclarationError, "how must list some of 'prior', 'other image'; got ('shuffle',)"),
            ({"how": "prior"}, DeclarationError, "how must list"),
            ({"batch_size": 0}, DeclarationError, "batch_size must be a positive whole number; got 0"),
            ({"latents": {}}, DeclarationError, "needs a block and a predictor"),
            ({"latents": {"z": torch.zeros(7, 2)}}, DataError, "latents['z'] must be [10, dim]"),
            ({"images": torch.rand(10, 3, 8, 8) * 255}, DataError, "divide by 255"),
            ({"factors": {"digti": torch.zeros(10).long()}}, UnknownNameError, "Did you mean 'digti'?"),
            ({"factors": {"digit": torch.zeros(9).long()}}, DataError, "factors['digit'] must be [10]"),
            (
                {"factors": {"digit": torch.full((10,), 3)}},
                DataError,
                "factors['digit'] is constant, so nothing can be",
            ),
            ({"given": {"digit": "digit"}}, DeclarationError, "scored by squared_correlation"),
            ({"prior": lambda block, n, g: torch.zeros(n, 5)}, DataError, "gave [10, 5]; expected [10, 2]"),
            ({"decode": lambda z: torch.rand(3, 3, 8, 8)}, DataError, "decode gave 3 images for 10 latents"),
            ({"decode": lambda z: torch.rand(10, 1, 8, 8)}, DataError, "decoded images are [1, 8, 8] each"),
            ({"decode": lambda z: torch.randn(10, 3, 8, 8)}, DataError, "images.clamp(0, 1)"),
            ({"decode": lambda z: torch.full((10, 3, 8, 8), math.nan)}, DataError, "decoded images hold NaN"),
        ],
    )
    def test_errors_say_what_came(self, change, kind, text):
        arguments = {
            "latents": {"z": torch.zeros(10, 2)},
            "decode": lambda z: torch.zeros(len(z["z"]), 3, 8, 8),
            "prior": lambda block, n, g: torch.zeros(n, 2),
            "images": torch.zeros(10, 3, 8, 8),
            "factors": {"digit": torch.arange(10)},
            "predictors": {"digit": Digit()},
        }
        with pytest.raises(kind) as error:
            swap(**{**arguments, **change})
        assert text in str(error.value)

    def test_a_constant_channel_is_refused(self):
        with pytest.raises(
            DataError, match=r"factors\['ground'\] is constant in one of its channels, so nothing can be"
        ):
            swap(
                {"z": torch.zeros(10, 2)},
                lambda z: torch.zeros(len(z["z"]), 3, 8, 8),
                lambda block, n, g: torch.zeros(n, 2),
                torch.zeros(10, 3, 8, 8),
                {"ground": torch.linspace(0, 1, 10)[:, None] * torch.tensor([1.0, 0.0, 1.0])},
                {"ground": Ground()},
            )

    @pytest.mark.parametrize(
        ("spec", "text"),
        [
            ({"swap": {"how": 5}}, "swap: how must list some of 'prior', 'other image'; got 5"),
            ({"swap": {"how": []}}, "swap: how must list some of"),
            ({"placement": {"probes": 5}}, "placement: probes must list some of 'linear', 'mlp'; got 5"),
            ({"placement": {"probes": ["lineer"]}}, r"placement: probes must list some of .*; got \['lineer'\]"),
            ({"placement": {"bootstrap": 19}}, "placement: bootstrap must be a whole number of at least 20; got 19"),
        ],
    )
    def test_a_metric_by_name_is_checked_when_it_is_made(self, spec, text):
        with pytest.raises(DeclarationError, match=text):
            make_metric(spec)

    def test_one_choice_may_be_written_without_a_list(self):
        assert make_metric("swap", how="prior") == make_metric("swap", how=["prior"])
        assert make_metric("placement", probes="linear") == make_metric("placement", probes=["linear"])

    def test_a_predictor_of_the_wrong_shape_is_named(self, world):
        class Wrong(Digit):
            def predict(self, images):
                return torch.zeros(len(images), 2)

        with pytest.raises(DataError, match=r"the predictor of 'digit' gave \[10, 2\] for 10 images; expected \[10\]"):
            swap(
                {"z": torch.zeros(10, 2)},
                lambda z: torch.zeros(10, 3, 8, 8),
                lambda block, n, g: torch.zeros(n, 2),
                torch.zeros(10, 3, 8, 8),
                {"digit": torch.arange(10)},
                {"digit": Wrong()},
            )

    def test_an_unknown_row_says_what_there_is(self, world):
        table = placed(world, how=("prior",))
        assert isinstance(table, SwapTable)
        with pytest.raises(
            UnknownNameError, match=r"no factor 'digits'; it has 'digit', 'ground'. Did you mean 'digit'"
        ):
            table.score("digits")
        with pytest.raises(UnknownNameError, match="no block 'z_i'; it has 'z_g', 'z_l'"):
            table.crossed("digit", "z_i")
        with pytest.raises(UnknownNameError, match="z_g is 'other image'; it has 'prior'"):
            table.score("digit", "z_g", "other image")


class TestClusteringByName:
    """The metric ``clustering``: which factors get which scores, and what the tables say."""

    def subject(self, count=300, **changes):
        draw = generator(3)
        digit = torch.arange(count) % 5
        colour = torch.rand(count, 3, generator=draw)
        noise = torch.randn(count, 8, generator=draw)
        logits = 4 * torch.nn.functional.one_hot(digit + (digit == 4) * 2, 8) + noise
        factors = {"digit": digit, "colour": colour, "number": torch.arange(count)}
        half = count // 2
        test, train = slice(0, half), slice(half, count)
        given = {
            "classes": {"z": logits[test].softmax(1)},
            "train_classes": {"z": logits[train].softmax(1)},
            "factors": {name: values[test] for name, values in factors.items()},
            "train_factors": {name: values[train] for name, values in factors.items()},
        }
        return Subject(**(given | changes))

    def test_labels_get_the_scores_of_the_function(self):
        subject = self.subject()
        tables = make_metric("clustering").tables(subject)
        expected = clustering(
            subject.train_classes["z"].argmax(1),
            subject.train_factors["digit"],
            subject.classes["z"].argmax(1),
            subject.factors["digit"],
            probabilities=subject.classes["z"],
        )
        rows = [row for row in tables["clustering"] if row["factor"] == "digit"]
        assert {row["metric"]: row["value"] for row in rows} == dict(expected.scores)
        assert {(row["block"], row["classes"]) for row in rows} == {("z", 8)}
        labels = tables["clustering_labels"]
        assert [row["cluster"] for row in labels] == expected.arranged().tolist()
        assert {row["cluster"]: row["majority"] for row in labels} == dict(enumerate(expected.majority.labels))
        assert {row["cluster"]: row["hungarian"] for row in labels} == dict(enumerate(expected.hungarian.labels))
        assert sum(row["share"] for row in labels) == pytest.approx(1)
        counts = torch.zeros_like(expected.confusion)
        for row in tables["clustering_confusion"]:
            counts[expected.labels.index(row["label"]), row["cluster"]] = row["images"]
        assert torch.equal(counts, expected.confusion)
        json.dumps(tables, allow_nan=False)

    def test_values_are_put_into_bins_and_numbers_of_something_are_left_out(self):
        tables = make_metric("clustering").tables(self.subject())
        assert {row["factor"] for row in tables["clustering"]} == {"digit", "colour (10 bins)"}
        assert [row["metric"] for row in tables["clustering"] if row["factor"] == "colour (10 bins)"] == ["nmi"]
        assert {row["factor"] for row in tables["clustering_labels"]} == {"digit"}

    def test_bins_are_those_of_the_training_values(self):
        """Four colours far apart, which the clusters follow: the bins find them, and NMI is 1."""
        which = torch.arange(80) % 4
        colour = torch.eye(4)[which][:, :3] + 0.01 * torch.rand(80, 3, generator=generator())
        classes = {"z": torch.eye(4)[which]}
        subject = Subject(
            classes=classes, train_classes=classes, factors={"ink": colour}, train_factors={"ink": colour.flip(0)}
        )
        (row,) = make_metric("clustering", bins=4).tables(subject)["clustering"]
        assert row == {"block": "z", "factor": "ink (4 bins)", "classes": 4, "metric": "nmi", "value": pytest.approx(1)}

    def test_the_same_seed_gives_the_same_bins(self):
        once, again = (make_metric("clustering", bins=6).tables(self.subject(seed=1)) for _ in range(2))
        assert once == again

    @pytest.mark.parametrize(
        ("changes", "error", "text"),
        [
            ({"classes": {}}, LackingError, "clustering needs 'classes', which this subject lacks"),
            ({"train_classes": None}, LackingError, "clustering needs 'train_classes'"),
            (
                {"classes": {"z": torch.full((6, 8), 0.125)}},
                LackingError,
                "'z' has 8 classes and there are 6 test images",
            ),
            (
                {"train_classes": {"z": torch.full((5, 8), 0.125)}},
                LackingError,
                "'z' has 8 classes and there are 5 training images; give as many images as classes, or more",
            ),
            (
                {"factors": {"digit": torch.zeros(150).long()}},
                DataError,
                "'digit' has one value in all 150 test images",
            ),
            (
                {"factors": {"digit": torch.arange(9)}},
                DataError,
                "'digit' has 9 images and the classes of 'z' have 150",
            ),
            ({"factors": {"number": torch.arange(150)}}, LackingError, "of at most 100 labels; got 'number'"),
        ],
    )
    def test_what_cannot_be_measured_is_said(self, changes, error, text):
        with pytest.raises(error, match=text):
            make_metric("clustering").tables(self.subject(**changes))
