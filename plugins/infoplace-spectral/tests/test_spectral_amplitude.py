"""amplitude_flatten and amplitude_swap against numpy's Fourier transform."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from infoplace.errors import DeclarationError
from numpy.typing import NDArray

from infoplace_spectral import AmplitudeFlatten, AmplitudeSwap

SHAPES = [(2, 16), (2, 15), (3, 8, 6), (2, 7, 10), (2, 4, 6, 5), (2, 3, 5, 7)]


def samples(shape: tuple[int, ...], batch: int = 4, contrast: float = 1.0) -> NDArray[np.float64]:
    return 0.5 + contrast * (np.random.default_rng(0).random((batch, *shape)) - 0.5)


def coefficients(x: NDArray[Any], dims: int) -> NDArray[np.complex128]:
    return np.fft.fftn(x, axes=tuple(range(-dims, 0)))


def frequencies(sides: tuple[int, ...]) -> NDArray[np.float64]:
    grid = np.meshgrid(*[np.fft.fftfreq(side) for side in sides], indexing="ij")
    return np.sqrt(sum(along**2 for along in grid))


def run(transform: Any, x: NDArray[Any], seed: int = 1) -> NDArray[Any]:
    return transform(torch.from_numpy(x), generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flattened_amplitudes_are_the_power_law_and_phases_stay(shape: tuple[int, ...], alpha: float) -> None:
    dims = len(shape) - 1
    spatial = tuple(range(-dims, 0))
    x = samples(shape, contrast=0.02)
    y = run(AmplitudeFlatten(alpha=alpha, dims=dims), x)
    before, after = coefficients(x, dims), coefficients(y, dims)
    law = frequencies(shape[1:])
    moving = law > 0
    levels = np.abs(after)[..., moving] * law[moving] ** alpha
    np.testing.assert_allclose(levels, levels[..., :1].repeat(levels.shape[-1], -1), rtol=1e-9)
    np.testing.assert_allclose(
        after[..., moving] / before[..., moving] * np.abs(before / after)[..., moving], 1, atol=1e-9
    )
    np.testing.assert_allclose(y.mean(spatial), x.mean(spatial), atol=1e-14)
    np.testing.assert_allclose(y.var(spatial), x.var(spatial), rtol=1e-10)
    np.testing.assert_allclose((np.abs(after) ** 2).sum(spatial), (np.abs(before) ** 2).sum(spatial), rtol=1e-12)


def test_flattening_twice_is_flattening_once() -> None:
    x = samples((1, 8, 8), contrast=0.05)
    once = run(AmplitudeFlatten(alpha=1.5), x)
    np.testing.assert_allclose(run(AmplitudeFlatten(alpha=1.5), once), once, atol=1e-13)
    np.testing.assert_allclose(run(AmplitudeFlatten(alpha=1.5), run(AmplitudeFlatten(alpha=0.0), x)), once, atol=1e-13)


def test_an_impulse_has_a_flat_spectrum_already() -> None:
    x = np.full((1, 1, 6, 6), 0.2)
    x[0, 0, 2, 3] = 0.7
    np.testing.assert_allclose(run(AmplitudeFlatten(alpha=0.0), x), x, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_frequency_that_a_sample_does_not_have_stays_absent(dtype: Any) -> None:
    stripes = np.broadcast_to(0.4 + 0.2 * np.random.default_rng(2).random((2, 1, 1, 32)), (2, 1, 32, 32)).astype(dtype)
    y = run(AmplitudeFlatten(alpha=0.0), np.ascontiguousarray(stripes))
    np.testing.assert_allclose(y, y[:, :, :1].repeat(32, axis=2), atol=1e-6)
    assert y.std() > 0.01
    sinusoid = 0.5 + 0.3 * np.sin(2 * np.pi * 3 * np.arange(16) / 16).astype(dtype)[None, None]
    np.testing.assert_allclose(run(AmplitudeFlatten(alpha=2.0, dims=1), sinusoid), sinusoid, atol=1e-6)


def test_samples_with_a_single_frequency_are_refused() -> None:
    message = r"AmplitudeFlatten|amplitude_flatten"
    with pytest.raises(
        DeclarationError, match=rf"^({message}) takes samples of at least two frequencies beside the mean; got"
    ):
        AmplitudeFlatten(dims=1).output_shape((3, 3))
    assert AmplitudeFlatten(dims=1).output_shape((3, 4)) == (3, 4)
    assert AmplitudeFlatten().output_shape((3, 2, 2)) == (3, 2, 2)


# ---- swapping ----------------------------------------------------------------------------------------------------------


def givers(x: NDArray[Any], y: NDArray[Any], dims: int) -> list[int]:
    """Whose amplitudes each result has, by comparing spectra."""
    before, after = np.abs(coefficients(x, dims)), np.abs(coefficients(y, dims))
    gaps = np.abs(after[:, None] - before[None]).reshape(len(x), len(x), -1).max(-1)
    assert (gaps.min(1) < 1e-10).all()
    return gaps.argmin(1).tolist()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_sample_takes_the_amplitudes_of_another_and_keeps_its_phases(shape: tuple[int, ...]) -> None:
    dims = len(shape) - 1
    x = samples(shape, 5, contrast=0.02) + np.linspace(-0.1, 0.1, 5).reshape(5, *([1] * len(shape)))
    y = run(AmplitudeSwap(dims=dims), x)
    found = givers(x, y, dims)
    assert sorted(found) == list(range(5))
    assert all(giver != taker for taker, giver in enumerate(found))
    before, after = coefficients(x, dims), coefficients(y, dims)
    np.testing.assert_allclose(np.angle(after / before), 0, atol=1e-9)
    np.testing.assert_allclose(y.mean(tuple(range(2, x.ndim))), x[found].mean(tuple(range(2, x.ndim))), atol=1e-14)


def test_all_circles_are_equally_likely() -> None:
    x = samples((1, 6), 4, contrast=0.02)
    found = Counter(tuple(givers(x, run(AmplitudeSwap(dims=1), x, seed), 1)) for seed in range(600))
    assert len(found) == 6  # 3! circles of 4
    assert min(found.values()) > 60


def test_swapping_two_samples_twice_gives_them_back() -> None:
    x = samples((3, 8, 8), 2, contrast=0.02)
    np.testing.assert_allclose(run(AmplitudeSwap(), run(AmplitudeSwap(), x)), x, atol=1e-13)


def test_a_black_sample_takes_a_mean_and_a_flat_one_gives_nothing_else() -> None:
    x = samples((1, 8, 8), 2, contrast=0.2)
    x[0] = 0
    y = run(AmplitudeSwap(), x)
    np.testing.assert_allclose(y[0], x[1].mean(), atol=1e-14)
    np.testing.assert_allclose(y[1], 0, atol=1e-14)
