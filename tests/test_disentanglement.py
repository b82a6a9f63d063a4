"""MIG, SAP and DCI against disentanglement_lib's own numbers, and against codes whose score is known.

How the reference numbers came about: disentanglement-lib 1.5 from the package index, alone in a fresh environment
with gin-config 0.3.0, scikit-learn 1.9.1 and numpy 2.4.6, its module gin.tf (which loads TensorFlow, of which these metrics
use nothing) replaced by gin's own ``configurable`` and ``REQUIRED``. Its functions ``_compute_mig``, ``_compute_sap``,
``compute_score_matrix``, ``_compute_dci``, ``disentanglement`` and ``completeness`` were called on the arrays of `arrays()`,
20 bins, split as `dci` and `sap` document it.
"""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch

from infoplace.errors import DataError, DeclarationError, PluginError
from infoplace.metrics import disentanglement
from infoplace.metrics.disentanglement import dci, mig, sap

COUNT = 240


def arrays():
    """Codes `[240, 4]` and factors from a formula, so that no generator of random numbers is behind the references."""

    def wave(k):
        i = np.arange(1, COUNT + 1)
        return 2 * ((i * i * k * 0.6180339887498949) % 1.0) - 1

    a, b, c, d = (wave(k) for k in (1.0, 1.7, 2.3, 3.1))
    codes = np.stack([a + 0.3 * d, b - 0.2 * c, 0.5 * c + 0.8 * d, 0.4 * a + 0.1 * b + c], 1)
    digit = np.floor((a + 1) * 2).astype(int).clip(0, 3)
    return codes, {"digit": digit, "side": (b > 0.2).astype(int)}, {"shade": c, "tilt": a}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TestAgainstDisentanglementLib:
    def test_mig_of_labels(self):
        codes, labels, _ = arrays()
        assert mig(codes, labels).scores == {"mig": pytest.approx(0.6068731424094396, abs=1e-12)}

    def test_mig_with_a_binned_value(self):
        codes, labels, values = arrays()
        found = mig(codes, {**labels, "shade": values["shade"]})
        assert found.scores["mig"] == pytest.approx(0.442721502584313, abs=1e-12)
        expected = [
            [0.9536333, 0.07928947, 0.86559373],
            [0.12841708, 0.55071064, 0.84323894],
            [0.11892393, 0.06288004, 0.90639441],
            [0.24193842, 0.05783005, 1.24609428],
        ]
        assert np.allclose(found.matrix, expected, atol=1e-8)

    def test_sap_of_labels(self):
        codes, labels, _ = arrays()
        found = sap(codes, labels)
        assert found.scores["sap"] == pytest.approx(0.2395833333333333, abs=1e-12)
        expected = [[0.5, 0.58333333], [0.27083333, 0.91666667], [0.25, 0.41666667], [0.35416667, 0.5]]
        assert np.allclose(found.matrix, expected, atol=1e-8)

    def test_sap_of_values(self):
        codes, _, values = arrays()
        assert sap(codes, values).scores["sap"] == pytest.approx(0.6827240931091132, abs=1e-12)

    def test_dci_of_known_importances(self, monkeypatch):
        importances = iter(np.array([[0.7, 0.1, 0.15, 0.05], [0.05, 0.9, 0.05, 0.0], [0.0, 0.2, 0.5, 0.3]]))

        class Known:
            def fit(self, codes, values):
                self.feature_importances_ = next(importances)
                return self

            def predict(self, codes):
                return np.zeros(len(codes))

        monkeypatch.setattr(disentanglement, "_predictor", lambda *_: Known())
        codes, labels, values = arrays()
        scores = dci(codes, {**labels, "shade": values["shade"]}).scores
        assert scores["dci_disentanglement"] == pytest.approx(0.47683988402603944, abs=1e-12)
        assert scores["dci_completeness"] == pytest.approx(0.43774897232871324, abs=1e-12)

    def test_dci_with_gradient_boosting(self):
        # Ties between splits are broken at random: over 40 runs the library gave 0.7153 to 0.7329 for disentanglement,
        # 0.5885 to 0.5964 for completeness, and 0.8333 to 0.8438 for informativeness_test.
        codes, labels, _ = arrays()
        scores = dci(codes, labels, predictor="boosting").scores
        assert 0.705 < scores["dci_disentanglement"] < 0.743
        assert 0.578 < scores["dci_completeness"] < 0.607
        assert 0.822 < scores["dci_informativeness"] < 0.855


def grid(repeats=8):
    """Every pair of 6 rows and 6 columns, equally often: independent factors."""
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6)).repeat(repeats, 1)
    return pairs[torch.randperm(len(pairs), generator=generator())]


class TestKnownAnswers:
    def test_one_dimension_a_factor_is_perfect(self):
        pairs = grid()
        codes, factors = pairs.float(), {"row": pairs[:, 0], "column": pairs[:, 1].float()}
        found = mig(codes, factors)
        assert found.scores["mig"] == pytest.approx(1)
        assert found.matrix[0, 0].item() == pytest.approx(math.log(6))
        # The squared correlation is 1; the machine reads off one-against-all which of 6 rows it is less well.
        assert sap(codes, {"column": factors["column"]}).scores["sap"] == pytest.approx(1)
        scores = dci(codes, factors).scores
        assert scores == {name: pytest.approx(1, abs=0.01) for name in scores}
        assert list(scores) == ["dci_disentanglement", "dci_completeness", "dci_informativeness"]

    def test_a_code_that_says_nothing(self):
        pairs = grid(60)
        codes = torch.rand(len(pairs), 3, generator=generator(1))
        factors = {"row": pairs[:, 0], "column": pairs[:, 1].float()}
        assert mig(codes, factors).scores["mig"] < 0.02
        assert sap(codes, factors).scores["sap"] < 0.03
        scores = dci(codes, factors).scores
        assert scores["dci_disentanglement"] < 0.1
        assert scores["dci_completeness"] < 0.1
        assert scores["dci_informativeness"] < 0.15

    def test_a_constant_dimension_says_nothing(self):
        pairs = grid()
        codes = torch.stack([pairs[:, 0].float(), torch.zeros(len(pairs))], 1)
        assert mig(codes, {"row": pairs[:, 0]}).scores["mig"] == pytest.approx(1)
        assert sap(codes, {"row": pairs[:, 0].float()}).scores["sap"] == pytest.approx(1)

    def test_a_code_of_constants(self):
        pairs = grid()
        codes = torch.zeros(len(pairs), 2)
        scores = dci(codes, {"row": pairs[:, 0].float(), "column": pairs[:, 1].float()}).scores
        assert scores == {name: pytest.approx(0, abs=1e-9) for name in scores}

    def test_a_factor_held_twice_has_no_gap_but_has_one_over_blocks(self):
        pairs = grid().float()
        codes = {"z_g": pairs[:, [0, 0]], "z_l": pairs[:, [1, 1]]}
        factors = {"row": pairs[:, 0], "column": pairs[:, 1]}
        for score in (mig, sap):
            name = score.__name__
            scores = score(codes, factors).scores
            assert scores == {name: pytest.approx(0), f"{name}_blocks": pytest.approx(1)}
        scores = dci(codes, factors).scores
        assert scores["dci_completeness"] == pytest.approx(0.5, abs=0.15)
        assert scores["dci_completeness_blocks"] == pytest.approx(1, abs=0.01)

    def test_a_binary_symmetric_channel(self):
        # A bit that is flipped once in ten: I = ln 2 - H(0.1), and the second dimension is noise of known count.
        bit = torch.arange(2000) % 2
        flipped = bit ^ (torch.arange(2000) // 2 % 10 == 0).long()
        other = torch.arange(2000) // 2 % 2
        expected = math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9)
        found = mig(torch.stack([flipped, other], 1).float(), {"bit": bit})
        assert found.matrix[0, 0].item() == pytest.approx(expected, abs=1e-12)
        assert found.scores["mig"] == pytest.approx(expected / math.log(2), abs=1e-12)

    def test_bins_matter(self):
        values = torch.linspace(0, 1, 1000)
        codes = torch.stack([values, (values * 20) % 1], 1)
        for bins in (2, 5, 20):
            assert mig(codes, {"place": values}, bins=bins).matrix[0, 0].item() == pytest.approx(math.log(bins))


class TestForm:
    def test_every_channel_is_a_factor(self):
        pairs = grid()
        found = mig(pairs.float(), {"ground": pairs.float(), "row": pairs[:, :1]})
        assert found.factors == ("ground[0]", "ground[1]", "row")
        assert found.dims == ("codes[0]", "codes[1]")

    def test_arrays_and_tensors_blocks_and_joined_agree(self):
        codes, labels, _ = arrays()
        tensors = {name: torch.from_numpy(value) for name, value in labels.items()}
        for score in (mig, sap, dci):
            joined, blocks = (
                score(codes, labels).scores,
                score({"z_g": torch.from_numpy(codes[:, :2]), "z_l": torch.from_numpy(codes[:, 2:])}, tensors),
            )
            assert {name: blocks.scores[name] for name in joined} == joined
            assert blocks.dims == ("z_g[0]", "z_g[1]", "z_l[0]", "z_l[1]")
            assert {name.removesuffix("_blocks") for name in blocks.scores} == set(joined)

    def test_the_rows(self):
        codes, labels, values = arrays()
        for score in (mig, sap, dci):
            found = score({"z_g": codes[:, :2], "z_l": codes[:, 2:]}, {**labels, **values})
            assert json.loads(json.dumps(found.rows())) == found.rows()
            assert [row["metric"] for row in found.rows()] == list(found.scores)
            detail = found.factor_rows()
            assert json.loads(json.dumps(detail)) == detail
            assert {tuple(row) for row in detail} == {("metric", "factor", "score", "best", "second")}
            text = str(found)
            assert all(f"{score:.3f}" in text for score in found.scores.values())

    def test_the_average_of_the_factors_is_the_score(self):
        codes, labels, values = arrays()
        for score in (mig, sap):
            found = score(codes, {**labels, **values})
            assert np.mean([row["score"] for row in found.factor_rows()]) == pytest.approx(found.rows()[0]["score"])
        first = mig(codes, labels).factor_rows()[0]
        assert (first["factor"], first["best"], first["second"]) == ("digit", "codes[0]", "codes[3]")

    def test_one_factor_is_disentangled_from_nothing(self):
        codes, labels, _ = arrays()
        assert list(dci(codes, {"side": labels["side"]}).scores) == ["dci_completeness", "dci_informativeness"]

    def test_the_seed_and_the_share_choose_the_split(self):
        codes, labels, _ = arrays()
        for score in (sap, dci):
            same, again, other, half = (
                score(codes, labels, **options).scores for options in ({}, {}, {"seed": 1}, {"train_share": 0.5})
            )
            assert same == again
            assert same != other
            assert same != half

    def test_no_global_randomness_is_used(self):
        codes, labels, _ = arrays()

        def states():
            numpy_state = np.random.get_state()  # noqa: NPY002 (scikit-learn draws from it unless told otherwise)
            return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2]

        before = states()
        sap(codes, labels)
        dci(codes, labels)
        assert states() == before


class TestBadInput:
    codes = torch.rand(20, 3, generator=generator())
    side = torch.arange(20) % 2

    @pytest.mark.parametrize("score", [mig, sap, dci])
    @pytest.mark.parametrize(
        ("codes", "factors", "text"),
        [
            (
                codes,
                {"side": side[:15]},
                r"factor 'side' has shape \[15\], and the codes hold 20 samples; expected \[20\]",
            ),
            (codes, {"side": side * 0}, r"factor 'side' is constant \(0\).*leave it out"),
            (codes, {"side": torch.ones(20, 2)}, r"factor 'side\[0\]' is constant \(1.0\)"),
            (codes, {"side": torch.arange(20)}, r"factor 'side' has 20 classes in 20 samples.* as floats"),
            (codes, {"side": side / 0.0}, "factor 'side' holds values that are not finite"),
            (codes, {"side": ["a"] * 20}, "factor 'side' must be a tensor or numpy array of numbers; got list"),
            (codes, {"side": np.array(["a"] * 20)}, "got an array of <U1"),
            (codes, {}, "there are no factors"),
            ({}, {"side": side}, "there are no codes"),
            (codes[:, 0], {"side": side}, r"codes 'codes' have shape \[20\]; expected \[20, dim\]"),
            ({"a": codes, "b": codes[:9]}, {"side": side}, r"codes 'b' have shape \[9, 3\]; expected \[20, dim\]"),
            (
                codes[:, :1],
                {"side": side},
                "compares the dimensions of a code with each other; give codes of 2 or more",
            ),
        ],
    )
    def test_one_sentence(self, score, codes, factors, text):
        with pytest.raises(DataError, match=f"^{score.__name__}.*{text}"):
            score(codes, factors)

    @pytest.mark.parametrize("score", [sap, dci])
    @pytest.mark.parametrize("share", [0, 1.0, -1, True, "half"])
    def test_shares(self, score, share):
        with pytest.raises(DeclarationError, match="train_share must lie between 0 and 1; got"):
            score(self.codes, {"side": self.side}, train_share=share)

    @pytest.mark.parametrize("score", [sap, dci])
    def test_too_few_samples_to_hold_out(self, score):
        with pytest.raises(
            DataError, match=r"of 4 samples, train_share=0.8 leaves none to hold out; give more samples"
        ):
            score(self.codes[:4], {"side": self.side[:4]})

    @pytest.mark.parametrize("score", [sap, dci])
    def test_a_rare_class_that_does_not_train(self, score):
        held_out = torch.randperm(20, generator=generator())[-1]
        rare = torch.zeros(20, dtype=torch.long)
        rare[held_out] = 1
        with pytest.raises(DataError, match="factor 'rare' is constant among the 16 samples that train"):
            score(self.codes, {"rare": rare})

    @pytest.mark.parametrize("bins", [1, 2.0, True])
    def test_bins(self, bins):
        with pytest.raises(DeclarationError, match=f"bins must be a whole number, 2 or more; got {bins}"):
            mig(self.codes, {"side": self.side}, bins=bins)

    def test_an_unknown_predictor(self):
        with pytest.raises(
            DeclarationError, match=r"one of 'forest', 'boosting'; got 'forrest'. Did you mean 'forest'"
        ):
            dci(self.codes, {"side": self.side}, predictor="forrest")

    @pytest.mark.parametrize(("score", "module"), [(sap, "sklearn.svm"), (dci, "sklearn.ensemble")])
    def test_scikit_learn_is_missing(self, monkeypatch, score, module):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(
            PluginError, match=rf"{score.__name__} needs scikit-learn.*pip install 'infoplace\[metrics\]'"
        ):
            score(self.codes, {"side": self.side})
        assert "mig" in mig(self.codes, {"side": self.side}).scores
