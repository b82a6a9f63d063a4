"""Clustering scores of clusterings whose scores are known, and mappings that keep to the training samples."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys

import numpy as np
import pytest
import torch

from infoplace.errors import DataError, DeclarationError, PluginError
from infoplace.metrics.clustering import NO_LABEL, ClusterMap, clustering, fit_mapping

ACCURACIES = ("majority", "hungarian")


def digits(seed=0, samples=2000, labels=10):
    return np.random.default_rng(seed).integers(labels, size=samples)


class TestKnownAnswers:
    def test_perfect_clusters_under_other_names(self):
        labels = digits()
        names = np.random.default_rng(1).permutation(10)
        table = clustering(names[labels], labels * 7 - 20, names[labels[:500]], labels[:500] * 7 - 20)
        for metric in (*ACCURACIES, "nmi", "ari"):
            assert table.scores[metric] == pytest.approx(1, abs=1e-12), metric
        assert table.scores["clusters_used"] == 10

    def test_one_cluster_for_all(self):
        train, test = np.array([3] * 6 + [4] * 4), np.array([3] * 3 + [4] * 7)
        table = clustering(np.zeros(10, int), train, np.zeros(10, int), test, clusters=10)
        expected = {"majority": 0.3, "hungarian": 0.3, "nmi": 0, "ari": 0, "one_cluster": 0.3}
        expected |= {"clusters_used": 1, "clusters_effective": 1}
        assert table.scores == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("seed", range(5))
    def test_random_clusters(self, seed):
        labels, clusters = digits(seed, 4000), digits(seed + 100, 4000)
        scores = clustering(clusters[:2000], labels[:2000], clusters[2000:], labels[2000:]).scores
        assert abs(scores["ari"]) < 0.005
        assert 0 < scores["nmi"] < 0.02
        assert scores["majority"] == pytest.approx(0.1, abs=0.03)
        assert scores["hungarian"] == pytest.approx(0.1, abs=0.03)

    def test_each_label_in_three_clusters(self):
        labels = np.repeat(np.arange(10), 30)
        clusters = labels * 3 + np.tile([0, 1, 2], 100)
        scores = clustering(clusters, labels, clusters, labels).scores
        assert scores["majority"] == 1
        assert scores["hungarian"] == pytest.approx(1 / 3)
        # H(cluster) = ln 30 and H(label) = I = ln 10.
        assert scores["nmi"] == pytest.approx(2 * math.log(10) / (math.log(10) + math.log(30)))
        assert scores["clusters_effective"] == pytest.approx(30)

    def test_two_labels_in_each_cluster(self):
        labels = np.tile(np.arange(10), 20)
        scores = clustering(labels // 2, labels, labels // 2, labels).scores
        assert scores["majority"] == scores["hungarian"] == 0.5

    def test_nmi_and_ari_by_hand(self):
        clusters, labels = [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1]
        scores = clustering(clusters, labels, clusters, labels).scores
        # I = 2/3 ln 2, the entropies are ln 3 and ln 2.
        assert scores["nmi"] == pytest.approx(4 * math.log(2) / (3 * math.log(6)))
        # Pairs together in both 2, in labels 6, in clusters 3, of 15: (2 - 6*3/15) / ((6 + 3)/2 - 6*3/15).
        assert scores["ari"] == pytest.approx(8 / 33)

    def test_the_share_of_the_commonest_training_label(self):
        # In the test samples 1 is commoner.
        table = clustering([0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 1])
        assert table.scores["one_cluster"] == 0.25

    def test_clusters_in_use_are_those_of_test_samples(self):
        table = clustering([0, 1, 2, 3], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1])
        assert table.scores["clusters_used"] == 2
        assert table.scores["clusters_effective"] == pytest.approx(4 / 3**0.75)
        assert table.clusters == 4

    def test_fewer_samples_than_scikit_learn_likes(self):
        clusters = np.arange(30)
        scores = clustering(clusters, clusters % 3, clusters, clusters % 3).scores
        assert (scores["majority"], scores["hungarian"]) == (1, 0.1)


class TestMapping:
    @pytest.mark.parametrize("metric", ACCURACIES)
    def test_is_not_fitted_on_test_samples(self, metric):
        train, test = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])
        clusters = np.array([0, 0, 1, 1])
        assert clustering(clusters, train, clusters, test).scores[metric] == 0
        assert clustering(clusters, test, clusters, test).scores[metric] == 1

    @pytest.mark.parametrize(("labels", "clusters"), [(4, 4), (3, 5), (5, 3)])
    def test_hungarian_is_the_best_of_all_one_to_one_mappings(self, labels, clusters):
        draw = np.random.default_rng(labels)
        for _ in range(5):
            true, given = draw.integers(labels, size=60), draw.integers(clusters, size=60)
            true[:labels], given[:clusters] = np.arange(labels), np.arange(clusters)
            names = [*range(labels), *[-1] * clusters]
            every = {order[:clusters] for order in itertools.permutations(names, clusters)}
            best = max(np.mean(np.array(order)[given] == true) for order in every)
            mapping = fit_mapping(given, true, "hungarian")
            assert mapping.accuracy(given, true) == best
            used = [label for label in mapping.labels if label is not None]
            assert len(used) == len(set(used)) == min(labels, clusters)

    def test_more_clusters_than_labels_leaves_clusters_without_one(self):
        mapping = fit_mapping([0, 0, 0, 1, 1, 2], [5, 5, 5, 5, 5, 9], "hungarian")
        assert mapping == ClusterMap("hungarian", (5, None, 9))
        assert mapping.predict([1, 0, 2]).tolist() == [NO_LABEL, 5, 9]
        assert mapping.accuracy([1, 1, 0, 2], [5, 9, 5, 9]) == 0.5

    def test_fewer_clusters_than_labels_leaves_labels_without_one(self):
        mapping = fit_mapping([0, 0, 0, 1, 1, 1], [5, 5, 6, 7, 7, 6], "hungarian")
        assert mapping.labels == (5, 7)
        assert mapping.accuracy([0, 1], [6, 6]) == 0

    def test_clusters_that_training_never_has(self):
        clusters, labels = [0, 0, 2, 2, 2], [1, 1, -4, -4, -4]
        assert fit_mapping(clusters, labels, "majority", clusters_count=5).labels == (1, -4, -4, -4, -4)
        assert fit_mapping(clusters, labels, "hungarian", clusters_count=5).labels == (1, None, -4, None, None)

    def test_pair_without_a_sample_is_no_pair(self):
        # Cluster 1 has one sample of label 0, which is worth more to cluster 0; it has none of label 1.
        assert fit_mapping([0] * 15 + [1], [0] * 10 + [1] * 5 + [0], "hungarian").labels == (0, None)

    def test_ties_go_to_the_least_label(self):
        assert fit_mapping([0, 0, 1, 1], [8, 3, 8, 3], clusters_count=3).labels == (3, 3, 3)

    def test_label_that_only_test_samples_have_is_wrong(self):
        table = clustering([0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 6])
        assert table.scores["majority"] == table.scores["hungarian"] == 0.75
        assert table.labels == (0, 1, 6)
        assert table.confusion.tolist() == [[2, 0], [0, 1], [0, 1]]

    def test_table_keeps_the_mappings_and_they_are_fixed(self):
        table = clustering([0, 0, 1, 2], [4, 4, 4, 6], [0, 1, 2], [4, 4, 6])
        assert table.majority.labels == (4, 4, 6)
        assert table.hungarian.labels == (4, None, 6)
        with pytest.raises(dataclasses.FrozenInstanceError):
            table.majority.labels = (0,)


class TestCalibration:
    labels = np.tile([0, 1], 5000)

    def error(self, answers, probabilities, labels=labels):
        return clustering(labels, labels, answers, labels, probabilities=probabilities).scores["calibration_error"]

    def test_calibrated(self):
        draw = np.random.default_rng(0)
        confidence = draw.uniform(0.5, 1, len(self.labels))
        answers = np.where(draw.uniform(size=len(self.labels)) < confidence, self.labels, 1 - self.labels)
        probabilities = np.full((len(self.labels), 2), 1 - confidence[:, None])
        probabilities[np.arange(len(self.labels)), answers] = confidence
        assert self.error(answers, probabilities) < 0.015

    def test_overconfident(self):
        # 60% of the answers are right, and each is given with 90%.
        answers = np.where(np.arange(len(self.labels)) % 10 < 6, self.labels, 1 - self.labels)
        probabilities = np.where(answers[:, None] == np.arange(2), 0.9, 0.1)
        assert self.error(answers, probabilities) == pytest.approx(0.3)

    def test_bins_do_not_cancel(self):
        # Half of the answers are right with 0.8, half with 0.4, and each is given with 0.6 or with 0.65.
        places = np.arange(len(self.labels))
        low = places < 5000
        answers = np.where(places % 10 < np.where(low, 8, 4), self.labels, 1 - self.labels)
        given = np.where(low, 0.6, 0.65)[:, None]
        # 9/15 = 0.6: the one below the edge, the other above.
        error = self.error(answers, np.where(answers[:, None] == np.arange(2), given, 1 - given))
        assert error == pytest.approx((0.2 + 0.25) / 2)

    def test_certain_and_right(self):
        assert self.error(self.labels, np.eye(2)[self.labels]) == 0

    def test_clusters_of_one_label_add_up(self):
        labels = np.repeat([0, 1], 60)
        clusters = labels * 3 + np.tile([0, 1, 2], 40)
        probabilities = np.where(labels[:, None] == np.arange(6) // 3, 0.9 / 3, 0.1 / 3)
        scores = clustering(
            clusters, labels, clusters, labels, probabilities=torch.tensor(probabilities).float()
        ).scores
        assert scores["calibration_error"] == pytest.approx(0.1, abs=1e-6)

    def test_is_left_out_without_probabilities(self):
        assert "calibration_error" not in clustering([0, 1], [0, 1], [0, 1], [0, 1]).scores


class TestTable:
    def test_rows_are_plain(self):
        table = clustering([0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], probabilities=np.eye(2)[[0, 1, 0]])
        rows = json.loads(json.dumps(table.rows()))
        assert rows == table.rows()
        assert [row["metric"] for row in rows] == [
            "majority",
            "hungarian",
            "nmi",
            "ari",
            "one_cluster",
            "clusters_used",
            "clusters_effective",
            "calibration_error",
        ]
        assert "hungarian           1.000" in str(table)
        assert "clusters_used       2\n" in str(table)

    def test_arranged(self):
        # Clusters 4 and 0 are of label 3, the others but the empty 2 of label 8; 5 is the largest.
        clusters = np.array([4, 4, 0, 1, 5, 5, 3, 3, 3, 2])
        labels = np.array([3, 3, 3, 8, 8, 8, 8, 8, 8, 3])
        kept = np.arange(9)
        table = clustering(clusters, labels, clusters[kept], labels[kept])
        order = table.arranged()
        assert order.tolist() == [4, 0, 3, 5, 1, 2]
        assert table.confusion[:, order].tolist() == [[2, 1, 0, 0, 0, 0], [0, 0, 3, 2, 1, 0]]

    def test_arranged_goes_by_the_training_label(self):
        table = clustering([0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1])
        assert table.arranged().tolist() == [1, 0]

    @pytest.mark.parametrize(
        "form", [torch.tensor, np.array, list, lambda values: torch.tensor(values, dtype=torch.uint8)]
    )
    def test_forms(self, form):
        table = clustering(*(form(part) for part in ([0, 1, 1], [4, 6, 6], [0, 1], [4, 6])))
        assert table.scores["majority"] == 1
        assert table.confusion.tolist() == [[1, 0], [0, 1]]


GOOD = {
    "train_clusters": [0, 1, 1, 0],
    "train_labels": [4, 6, 6, 4],
    "test_clusters": [0, 1, 0],
    "test_labels": [4, 6, 4],
}


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "kind", "text"),
        [
            ({"train_labels": [4, 6]}, DataError, "train_clusters has 4 samples and train_labels has 2"),
            ({"test_labels": [4, 6]}, DataError, "test_clusters has 3 samples and test_labels has 2"),
            ({"test_clusters": np.zeros(0, int)}, DataError, "test_clusters is empty"),
            ({"train_clusters": []}, DataError, "train_clusters is empty"),
            ({"train_labels": [4] * 4}, DataError, r"train_labels is constant \(4\).*give samples of two labels"),
            ({"test_labels": [6] * 3}, DataError, r"test_labels is constant \(6\)"),
            (
                {"test_clusters": [0.0, 1.0, 0.5]},
                DataError,
                r"test_clusters must be whole numbers \[N\]; got floats \[3\]",
            ),
            ({"train_labels": [4, 6, math.nan, 4]}, DataError, "train_labels.*finite"),
            ({"train_clusters": [[0], [1], [1], [0]]}, DataError, r"train_clusters must be .*\[4, 1\]"),
            ({"train_clusters": ["a", "b", "b", "a"]}, DataError, "train_clusters is no array of numbers"),
            ({"test_clusters": [0, 2, 0], "clusters": 2}, DataError, "test_clusters holds 2; 2 clusters.*from 0 to 1"),
            ({"train_clusters": [0, 1, -1, 0]}, DataError, "train_clusters holds -1; clusters are numbered from 0"),
            ({"train_clusters": [-1] * 4, "test_clusters": [-1] * 3}, DataError, "train_clusters holds -1"),
            ({"clusters": 1}, DeclarationError, "clusters must be a whole number, 2 or more; got 1"),
            ({"clusters": 2.0}, DeclarationError, "2 or more; got 2.0"),
            ({"clusters": True}, DeclarationError, "2 or more; got True"),
            ({"clusters": 5}, DataError, "there are 5 clusters and train_clusters has 4 samples; give as many samples"),
            ({"clusters": 4}, DataError, "there are 4 clusters and test_clusters has 3 samples"),
            (
                {"train_clusters": [0] * 4, "test_clusters": [0] * 3},
                DataError,
                "every sample is in cluster 0.*give clusters=k",
            ),
            ({"probabilities": np.full((2, 2), 0.5)}, DataError, r"must be \[3, k\], a row for .*; got \[2, 2\]"),
            ({"probabilities": np.full((3, 2), 0.5), "clusters": 3}, DataError, r"must be \[3, 3\].*; got \[3, 2\]"),
            ({"probabilities": np.full(3, 0.5)}, DataError, r"probabilities must be \[N, dim\].*\[3\]"),
            (
                {"probabilities": np.full((3, 2), 0.4)},
                DataError,
                "each row of probabilities must sum to 1; one sums to 0.8",
            ),
            ({"probabilities": np.array([[2.0, -1.0]] * 3)}, DataError, r"lie in \[0, 1\]; got -1 to 2; logits need"),
            ({"probabilities": np.full((3, 2), math.nan)}, DataError, "probabilities.*finite"),
        ],
    )
    def test_one_sentence_each(self, change, kind, text):
        with pytest.raises(kind, match=text):
            clustering(**{**GOOD, **change})

    def test_of_a_mapping(self):
        with pytest.raises(
            DeclarationError, match=r"one of 'majority', 'hungarian'; got 'hungary'. Did you mean 'hung"
        ):
            fit_mapping([0, 1], [0, 1], "hungary")
        with pytest.raises(DeclarationError, match="clusters_count must be a whole number, 2 or more; got 1"):
            fit_mapping([0, 1], [0, 1], clusters_count=1)
        with pytest.raises(DataError, match="labels is constant"):
            fit_mapping([0, 1], [3, 3])
        mapping = fit_mapping([0, 1], [0, 1])
        with pytest.raises(DataError, match="clusters holds 2; 2 clusters are numbered from 0 to 1"):
            mapping.predict([0, 2])
        with pytest.raises(DataError, match="clusters has 2 samples and labels has 1"):
            mapping.accuracy([0, 1], [0])

    @pytest.mark.parametrize(("module", "package"), [("sklearn.metrics", "scikit-learn"), ("scipy.optimize", "SciPy")])
    def test_package_is_missing(self, monkeypatch, module, package):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(PluginError, match=rf"clustering needs {package}.*pip install 'infoplace\[metrics\]'"):
            clustering(**GOOD)

    def test_majority_needs_no_scipy(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "scipy.optimize", None)
        assert fit_mapping([0, 1], [4, 6]).labels == (4, 6)
