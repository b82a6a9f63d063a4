"""What DEC and ACOL learn before any cluster is kept where they are told to, and learned once."""

from __future__ import annotations

import numpy as np
import pytest
from infoplace.errors import DeclarationError

from infoplace_clustering import ACOL, DEC

PARAMETERS = {
    DEC: {"widths": (16, 4), "pretrain_steps": 10, "finetune_steps": 10, "update_interval": 10, "tolerance": 0.9},
    ACOL: {"epochs": 1, "batch_size": 20, "channels": (4, 4), "feature_size": 16, "children": 4, "kmeans_starts": 2},
}
CHANGE = {DEC: {"dropout": 0.5}, ACOL: {"children": 5}}

pytestmark = pytest.mark.parametrize("method", [DEC, ACOL], ids=lambda method: method.__name__)


def images(seed=0):
    return np.random.default_rng(seed).random((40, 1, 8, 8), dtype=np.float32)


def made(method, clusters, **changes):
    return method(clusters, **{**PARAMETERS[method], "device": "cpu", **changes})


def test_another_number_of_clusters_learns_nothing_again(method, tmp_path, monkeypatch):
    alone = made(method, 4).fit(images())
    learn, calls = method._learn, []
    monkeypatch.setattr(method, "_learn", lambda *arguments: calls.append(1) or learn(*arguments))
    first = made(method, 3, memory=tmp_path).fit(images())
    assert len(calls) == 1
    second = made(method, 4, memory=str(tmp_path)).fit(images())
    assert len(calls) == 1
    assert np.array_equal(second.labels_, alone.labels_)
    assert np.array_equal(second.transform(images(1)), alone.transform(images(1)))
    # The epochs before the clusters are those of the first fit, the times too.
    shared = sum(row.get("phase") != "clustering" for row in first.history_)
    assert second.history_[:shared] == first.history_[:shared]


def test_other_samples_settings_or_seeds_are_learned_anew(method, tmp_path, monkeypatch):
    learn, calls = method._learn, []
    monkeypatch.setattr(method, "_learn", lambda *arguments: calls.append(1) or learn(*arguments))
    made(method, 3, memory=str(tmp_path)).fit(images())
    made(method, 3, memory=str(tmp_path)).fit(images(1))
    made(method, 3, memory=str(tmp_path), seed=1).fit(images())
    made(method, 3, memory=str(tmp_path), **CHANGE[method]).fit(images())
    assert len(calls) == 4


def test_without_a_memory_every_fit_learns(method, monkeypatch):
    learn, calls = method._learn, []
    monkeypatch.setattr(method, "_learn", lambda *arguments: calls.append(1) or learn(*arguments))
    estimator = made(method, 3).fit(images())
    estimator.fit(images())
    assert len(calls) == 2


def test_what_is_no_memory_is_refused(method):
    with pytest.raises(DeclarationError, match=r"memory must be a folder, a joblib\.Memory or None; got 3"):
        made(method, 3, memory=3).fit(images())
