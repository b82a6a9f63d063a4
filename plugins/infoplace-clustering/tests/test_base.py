"""What every estimator keeps: scikit-learn's rules, seeds, refusals; and the helpers that the methods are written with."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from infoplace.errors import DataError, DeclarationError, TrainingError
from sklearn.base import clone, is_clusterer
from sklearn.exceptions import NotFittedError

from infoplace_clustering import ACOL, DEC, IMSAT, PixelKMeans
from infoplace_clustering.base import (
    DeepClusterer,
    apply_batched,
    batches,
    check_clusters,
    check_input,
    check_number,
    check_whole,
    place,
    progress_over,
    record,
)

CPU = torch.device("cpu")


class Drawn(DeepClusterer):
    """Samples drawn at random are the centres: all that the base class needs of a method."""

    def __init__(self, n_clusters=2, *, size=1, seed=0, device="cpu", fails=False):
        self.n_clusters = n_clusters
        self.size = size
        self.seed = seed
        self.device = device
        self.fails = fails

    def _check_parameters(self):
        check_whole("size", self.size, 1)

    def _fit(self, x, device):
        if self.fails:
            raise TrainingError("it went wrong")
        self.centres_ = x[torch.randperm(len(x))[: self.n_clusters]]

    def _labels(self, x):
        return torch.cdist(x, self.centres_).argmin(1)


class Images(Drawn):
    images_only = True
    flatten = False

    def _labels(self, x):
        return torch.cdist(x.flatten(1), self.centres_.flatten(1)).argmin(1)


def images(n=24, side=12, seed=0):
    return np.random.default_rng(seed).random((n, 1, side, side), dtype=np.float32)


ESTIMATORS = [
    Drawn(3),
    Images(3),
    PixelKMeans(3, n_init=2),
    PixelKMeans(3, features="pca", n_components=4, n_init=2),
    DEC(
        3,
        widths=(32, 4),
        pretrain_steps=3,
        finetune_steps=3,
        weight_scale=0.2,
        tolerance=1,
        update_interval=2,
        device="cpu",
    ),
    IMSAT(3, hidden=(8,), epochs=2, batch_size=8, device="cpu"),
    ACOL(3, epochs=1, batch_size=24, channels=(2, 2), feature_size=8, children=2, device="cpu"),
]


@pytest.fixture(params=ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def estimator(request):
    return clone(request.param)


class TestEveryEstimator:
    def test_keeps_its_parameters(self, estimator):
        assert is_clusterer(estimator)
        parameters = estimator.get_params()
        copy = clone(estimator)
        assert copy is not estimator
        assert copy.get_params() == parameters
        assert copy.set_params(seed=7, n_clusters=4).get_params() == {**parameters, "seed": 7, "n_clusters": 4}
        assert type(estimator)().n_clusters == (2 if isinstance(estimator, Drawn) else 10)

    def test_sets_what_scikit_learn_names(self, estimator):
        x = images()
        parameters = estimator.get_params()
        assert estimator.fit(x) is estimator
        assert estimator.get_params() == parameters
        assert estimator.labels_.dtype == np.int64
        assert estimator.labels_.shape == (24,)
        assert estimator.n_features_in_ == 144
        assert set(estimator.labels_) <= {0, 1, 2}
        for row in estimator.history_:
            assert {"epoch", "loss", "seconds"} <= set(row)

    def test_predicts_its_own_labels(self, estimator):
        x = images()
        labels = estimator.fit_predict(x)
        np.testing.assert_array_equal(labels, estimator.labels_)
        np.testing.assert_array_equal(labels, estimator.predict(x))
        np.testing.assert_array_equal(labels[:5], estimator.predict(torch.from_numpy(x[:5])))
        assert estimator.predict(x[:1]).dtype == np.int64

    def test_same_seed_same_labels_whatever_was_drawn_before(self, estimator):
        x = images()
        labels = estimator.fit(x).labels_
        torch.rand(3)
        np.testing.assert_array_equal(labels, estimator.fit(x).labels_)
        np.testing.assert_array_equal(labels, clone(estimator).fit(x).labels_)

    def test_another_seed_is_another_result(self, estimator):
        x = images()
        found = [clone(estimator).set_params(seed=seed).fit_predict(x) for seed in range(6)]
        assert len({labels.tobytes() for labels in found}) > 1

    def test_leaves_random_states_and_data_alone(self, estimator):
        x = images()
        kept, torch_state, numpy_state = x.copy(), torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
        estimator.fit(x).predict(x)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert pickle.dumps(np.random.get_state()) == numpy_state  # noqa: NPY002
        np.testing.assert_array_equal(x, kept)

    def test_never_reads_y(self, estimator):
        x = images()
        labels = estimator.fit(x).labels_
        np.testing.assert_array_equal(labels, clone(estimator).fit(x, object()).labels_)

    def test_survives_pickling(self, estimator):
        x = images()
        estimator.fit(x)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).predict(x), estimator.labels_)

    def test_bytes_are_the_same_images(self, estimator):
        x = (images() * 255).astype(np.uint8)
        labels = estimator.fit_predict(x)
        np.testing.assert_array_equal(labels, clone(estimator).fit_predict(x.astype(np.float32) / 255))

    def test_is_not_fitted_before_it_is(self, estimator):
        for method in ("predict", "predict_proba", "transform"):
            if hasattr(estimator, method):
                with pytest.raises(NotFittedError, match="not fitted yet"):
                    getattr(estimator, method)(images())

    def test_refuses_other_samples_at_predict(self, estimator):
        estimator.fit(images())
        with pytest.raises(DataError) as error:
            estimator.predict(images(side=10))
        name = type(estimator).__name__
        assert str(error.value) == (
            f"X has shape [24, 1, 10, 10], and {name} was fitted to [N, 1, 12, 12]; give samples of that shape, or fit again"
        )

    def test_refuses_numbers_of_clusters(self, estimator):
        for count, kind, message in (
            (1, DeclarationError, "n_clusters must be a whole number of 2 or more; got 1"),
            (2.5, DeclarationError, "n_clusters must be a whole number of 2 or more; got 2.5"),
            (30, DataError, "n_clusters is 30 and X has 24 samples; give at least as many samples as clusters"),
        ):
            with pytest.raises(kind) as error:
                estimator.set_params(n_clusters=count).fit(images())
            assert str(error.value) == message

    def test_refuses_bad_seeds(self, estimator):
        for seed in (-1, 2**32, 0.5, None):
            with pytest.raises(DeclarationError, match="seed must be a whole number from 0 to 4294967295; got"):
                estimator.set_params(seed=seed).fit(images())

    def test_refuses_values_outside_their_range(self, estimator):
        for method in ("fit", "predict"):
            estimator.fit(images())
            with pytest.raises(DataError, match=r"values in \[0, 1\], or uint8; got values from 0 to 255; scale"):
                getattr(estimator, method)(np.linspace(0, 255, 24 * 144).reshape(24, 1, 12, 12))
            x = images()
            x[4, 0, 3, 3] = np.nan
            with pytest.raises(DataError, match="X has values that are NaN or infinite, first in sample 4; remove"):
                getattr(estimator, method)(x)


class TestFit:
    def test_parameters_of_the_method_are_checked_first(self):
        with pytest.raises(DeclarationError, match="size must be a whole number of 1 or more; got 0"):
            Drawn(size=0).fit(images())

    def test_unknown_device(self):
        with pytest.raises(DeclarationError, match="device must be one of 'auto', 'cpu', 'cuda'; got 'tpu'"):
            Drawn(device="tpu").fit(images())

    def test_a_second_fit_that_fails_leaves_nothing_fitted(self):
        drawn = Drawn().fit(images())
        with pytest.raises(TrainingError):
            drawn.set_params(fails=True).fit(images())
        with pytest.raises(NotFittedError):
            drawn.predict(images())

    def test_a_refused_second_fit_changes_nothing(self):
        drawn = Drawn().fit(images())
        with pytest.raises(DataError):
            drawn.fit(images()[0])
        assert drawn.predict(images()).shape == (24,)

    def test_vectors_and_images_of_one_size_are_one_thing_to_a_method_that_flattens(self):
        x = images()
        drawn = Drawn().fit(x)
        np.testing.assert_array_equal(drawn.predict(x.reshape(24, 144)), drawn.labels_)

    def test_a_method_of_images_refuses_vectors(self):
        with pytest.raises(DataError) as error:
            Images().fit(np.zeros((4, 144)))
        assert str(error.value) == "X must be images [N, channels, height, width]; got shape [4, 144]"

    def test_a_method_of_images_refuses_another_shape_of_as_many_pixels(self):
        fitted = Images().fit(images())
        with pytest.raises(DataError, match=r"X has shape \[24, 1, 6, 24\], and Images was fitted to \[N, 1, 12, 12\]"):
            fitted.predict(images().reshape(24, 1, 6, 24))


class TestCheckInput:
    @pytest.mark.parametrize(
        "given",
        [
            [[0, 1], [2, 3]],
            np.array([[0, 1], [2, 3]], dtype=np.int16),
            np.array([[0, 1], [2, 3]], dtype=np.uint8),
            np.array([[1, 0], [3, 2]], dtype=np.float64)[:, ::-1],
            torch.tensor([[0, 1], [2, 3]]),
            torch.tensor([[0.0, 1], [2, 3]], dtype=torch.bfloat16, requires_grad=True),
        ],
        ids=["list", "int16", "uint8", "reversed", "int64", "bfloat16"],
    )
    def test_vectors_come_as_they_are(self, given):
        found = check_input(given)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert found.tolist() == [[0, 1], [2, 3]]

    def test_read_only_arrays(self):
        given = np.ones((2, 3), np.float32)
        given.flags.writeable = False
        assert torch.equal(check_input(given), torch.ones(2, 3))

    def test_a_float32_array_is_not_copied(self):
        given = np.ones((2, 3), np.float32)
        assert check_input(given).data_ptr() == given.ctypes.data

    def test_rounding_at_the_ends_of_the_range(self):
        assert check_input(torch.full((1, 1, 1, 1), 1.00005)).item() == pytest.approx(1.00005)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                np.zeros((2, 5, 5)),
                "X must be images [N, channels, height, width] or vectors [N, features]; got shape [2, 5, 5]; grey images get "
                "their channel by X[:, None]",
            ),
            (
                np.zeros(3),
                "X must be images [N, channels, height, width] or vectors [N, features]; got shape [3]",
            ),
            (np.zeros((0, 3)), "X is empty: it has shape [0, 3]; give at least one sample"),
            (torch.zeros(2, 0), "X is empty: it has shape [2, 0]; give at least one sample"),
            ("words", "X must be a tensor or an array of numbers; got str of <U5"),
            ([[1, 2], [3]], "X must be a tensor or an array of numbers; got list of object"),
            (torch.zeros(2, 2, dtype=torch.complex64), "X must hold real numbers; got torch.complex64"),
            (np.array([[1e300]]), "X has values that are NaN or infinite, first in sample 0; remove or replace them"),
            (
                torch.tensor([[[[-0.5, 1.0]]]]),
                "X must be images with values in [0, 1], or uint8; got values from -0.5 to 1; scale them first, such as by "
                "dividing by 255",
            ),
        ],
    )
    def test_refusals(self, given, message):
        with pytest.raises(DataError) as error:
            check_input(given)
        assert str(error.value) == message


class TestNumbers:
    def test_clusters_may_be_as_many_as_samples(self):
        check_clusters(np.int64(3), 3)
        with pytest.raises(DataError, match="n_clusters is 4 and X has 3 samples"):
            check_clusters(4, 3)

    @pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None])
    def test_whole(self, value):
        with pytest.raises(DeclarationError) as error:
            check_whole("epochs", value, 1)
        assert str(error.value) == f"epochs must be a whole number of 1 or more; got {value!r}"

    def test_whole_within_bounds(self):
        assert type(check_whole("seed", np.uint8(4), 0, 4)) is int
        with pytest.raises(DeclarationError, match="seed must be a whole number from 0 to 4; got 5"):
            check_whole("seed", 5, 0, 4)

    @pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "1", None])
    def test_number(self, value):
        with pytest.raises(DeclarationError) as error:
            check_number("weight", value)
        assert str(error.value) == f"weight must be a number of 0 or more; got {value!r}"

    def test_number_within_bounds(self):
        assert check_number("weight", 0) == 0
        assert check_number("weight", np.float32(0.5), most=1, open_above=True) == 0.5
        assert check_number("weight", 1, most=1) == 1
        for value, bounds, span in (
            (0, {"open_below": True}, "above 0"),
            (2, {"most": 1}, "of 0 or more and at most 1"),
            (1, {"most": 1, "open_above": True}, "of 0 or more and below 1"),
        ):
            with pytest.raises(DeclarationError, match=f"weight must be a number {span}; got {value}"):
                check_number("weight", value, **bounds)


class TestLoops:
    @pytest.mark.parametrize(("n", "size"), [(7, 3), (6, 3), (2, 5), (1, 1)])
    def test_every_number_comes_once(self, n, size):
        for generator in (None, torch.Generator().manual_seed(0)):
            found = list(batches(n, size, generator))
            assert torch.cat(found).sort().values.tolist() == list(range(n))
            assert all(len(batch) == size for batch in found[:-1])

    def test_orders(self):
        generator = torch.Generator().manual_seed(0)
        first, second = (torch.cat(list(batches(50, 8, generator))).tolist() for _ in range(2))
        again = torch.cat(list(batches(50, 8, torch.Generator().manual_seed(0)))).tolist()
        assert first == again
        assert first != second
        assert torch.cat(list(batches(50, 8))).tolist() == list(range(50))

    def test_a_smaller_last_batch_is_left_out_unless_it_is_all(self):
        assert [len(batch) for batch in batches(7, 3, drop_last=True)] == [3, 3]
        assert [len(batch) for batch in batches(6, 3, drop_last=True)] == [3, 3]
        assert [len(batch) for batch in batches(2, 3, drop_last=True)] == [2]

    def test_applied_in_batches_is_applied_at_once(self):
        x = torch.rand(11, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        found = apply_batched(lambda part: part.sum(1), place(x, CPU), CPU, batch_size=4)
        torch.testing.assert_close(found, x.detach().sum(1))
        assert not found.requires_grad

    def test_progress_shows_only_where_it_is_asked_for(self, capsys):
        assert list(progress_over([3, 4], "learning", True)) == [3, 4]
        assert "learning" in capsys.readouterr().out
        assert list(progress_over([3, 4], "learning", False)) == [3, 4]
        assert capsys.readouterr().out == ""

    def test_a_row_of_history(self):
        history = []
        record(history, 1, time.perf_counter() - 2, 0.5, "layer 1", entropy=0.1)
        seconds = history[0].pop("seconds")
        assert history == [{"phase": "layer 1", "epoch": 1, "loss": 0.5, "entropy": 0.1}]
        assert 2 <= seconds < 60

    @pytest.mark.parametrize("loss", [float("nan"), float("inf")])
    def test_a_loss_that_is_not_finite(self, loss):
        with pytest.raises(TrainingError) as error:
            record([], 3, time.perf_counter(), loss, "layer 1")
        assert str(error.value) == f"the loss is {loss} after epoch 3 of layer 1; use a smaller learning rate"
        with pytest.raises(TrainingError, match="after epoch 3; use a smaller"):
            record([], 3, time.perf_counter(), loss)


def test_the_example_of_the_readme_runs(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(readme.split("```python\n")[1].split("```")[0], names)
    assert capsys.readouterr().out.count("100 test samples; mappings fitted on training samples") == 4
    assert names["codes"].shape == names["probabilities"].shape == (100, 10)
