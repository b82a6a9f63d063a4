"""k-means on what has an obvious answer, and features against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.metrics.clustering import fit_mapping

from infoplace_clustering import PixelKMeans, hog_features


def shapes(n=90, side=16, seed=0):
    """Images of upright, level and slanting bars at random places, and which of them each is."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:side, :side]
    kinds = np.arange(n) % 3
    places = random.integers(side, size=n)
    grids = [across, down, across + down]
    pixels = np.stack([(grids[kind] + place) % 8 < 3 for kind, place in zip(kinds, places, strict=True)])
    return (0.7 * pixels + 0.3 * random.random(pixels.shape)).astype(np.float32)[:, None], kinds


def blobs(n=120, seed=0):
    random = np.random.default_rng(seed)
    kinds = np.arange(n) % 3
    return random.normal(size=(3, 20))[kinds] * 4 + random.normal(size=(n, 20)), kinds


def accuracy(clusters, kinds):
    return fit_mapping(clusters, kinds, "hungarian", clusters_count=3).accuracy(clusters, kinds)


class TestPixelKMeans:
    @pytest.mark.parametrize("features", ["pixels", "pca"])
    def test_finds_blobs(self, features):
        x, kinds = blobs()
        assert accuracy(PixelKMeans(3, features=features, n_components=2).fit_predict(x), kinds) == 1

    def test_loss_is_the_mean_squared_distance_to_the_nearest_mean(self):
        x, _ = blobs()
        method = PixelKMeans(3).fit(x)
        means = np.stack([x[method.labels_ == cluster].mean(0) for cluster in range(3)])
        distances = ((x[:, None] - means) ** 2).sum(2)
        np.testing.assert_array_equal(method.labels_, distances.argmin(1))
        (row,) = method.history_
        assert row["loss"] == pytest.approx(distances.min(1).mean(), rel=1e-5)
        assert row["epoch"] >= 1

    def test_components_are_those_of_the_largest_variance(self):
        x, _ = blobs()
        method = PixelKMeans(3, features="pca", n_components=4).fit(x)
        found = method.transform(x)
        left, values, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.abs(found), np.abs(left * values)[:, :4], rtol=1e-3, atol=1e-3)

    def test_pixels_are_their_own_features(self):
        x, _ = shapes(6)
        np.testing.assert_array_equal(PixelKMeans(2).fit(x).transform(x), x.reshape(6, -1))

    def test_more_starts_are_never_worse(self):
        x = np.random.default_rng(0).random((200, 5))
        few, many = (PixelKMeans(12, n_init=starts).fit(x).history_[0]["loss"] for starts in (1, 20))
        assert many < few

    def test_refusals(self):
        x, _ = blobs()
        for parameters, kind, message in (
            (
                {"features": "pcs"},
                UnknownNameError,
                "features must be one of 'pixels', 'pca'; got 'pcs'. Did you mean 'pca'?",
            ),
            ({"n_init": 0}, DeclarationError, "n_init must be a whole number of 1 or more; got 0"),
            ({"n_components": 0}, DeclarationError, "n_components must be a whole number of 1 or more; got 0"),
            (
                {"features": "pca"},
                DataError,
                "n_components is 50, and X has 120 samples of 20 numbers, which have no more than 20 principal components; set "
                "n_components=20 or less",
            ),
        ):
            with pytest.raises(kind) as error:
                PixelKMeans(3, **parameters).fit(x)
            assert str(error.value) == message


class TestHog:
    def test_tells_directions_where_pixels_do_not(self):
        x, kinds = shapes()
        assert accuracy(PixelKMeans(3).fit_predict(hog_features(x)), kinds) > 0.95

    def test_direction_of_a_slope(self):
        """A slope has one direction, so one orientation holds everything; turned by a quarter, it is four of eight on."""
        slope = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (16, 1))
        across, down = hog_features(np.stack([slope, slope.T])[:, None], orientations=8).reshape(2, 4, 8).sum(1)
        assert np.count_nonzero(across) == np.count_nonzero(down) == 1
        assert (across.argmax() - down.argmax()) % 8 == 4

    def test_blocks_are_normalised(self):
        x, _ = shapes()
        found = hog_features(0.5 * x).reshape(len(x), -1, 4 * 9)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-3)
        np.testing.assert_allclose(found, hog_features(0.25 * x + 0.5).reshape(found.shape), atol=1e-3)

    def test_of_colours_the_one_with_the_largest_gradient_counts(self):
        grey, _ = shapes(4)
        coloured = np.concatenate([0.2 * grey, grey, np.full_like(grey, 0.5)], axis=1)
        np.testing.assert_allclose(hog_features(coloured), hog_features(grey), atol=1e-6)

    def test_bytes_are_the_same_images(self):
        x = torch.from_numpy((shapes(3)[0] * 255).astype(np.uint8))
        np.testing.assert_array_equal(hog_features(x), hog_features(x / 255))

    def test_size(self):
        for parameters, size in (({}, 324), ({"cell": 4}, 49 * 36), ({"block": 1}, 144), ({"orientations": 4}, 144)):
            assert hog_features(torch.zeros(2, 3, 32, 32), **parameters).shape == (2, size)

    def test_shows_progress(self, capsys):
        hog_features(np.zeros((2, 1, 16, 16)), progress=True)
        assert "gradients" in capsys.readouterr().out

    def test_refusals(self):
        with pytest.raises(DataError) as error:
            hog_features(np.zeros((2, 1, 12, 30)))
        assert str(error.value) == (
            "images are 12 x 30 pixels, and a block of 2 x 2 cells of 8 pixels needs 16 x 16; give larger images, or a "
            "smaller cell"
        )
        with pytest.raises(
            DataError, match=r"images must be images \[N, channels, height, width\]; got shape \[2, 9\]"
        ):
            hog_features(np.zeros((2, 9)))
        for name in ("orientations", "cell", "block"):
            with pytest.raises(DeclarationError, match=f"{name} must be a whole number of 1 or more; got 0"):
                hog_features(np.zeros((2, 1, 16, 16)), **{name: 0})
