"""phase_scramble against numpy's Fourier transform and the distributions it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import infoplace_spectral as spectral
from infoplace_spectral import PhaseScramble

SHAPES = [(3, 16), (3, 15), (3, 8, 6), (3, 7, 10), (2, 4, 6, 5), (2, 3, 5, 7)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples(shape: tuple[int, ...], batch: int = 4, contrast: float = 1.0) -> NDArray[np.float64]:
    return 0.5 + contrast * (np.random.default_rng(0).random((batch, *shape)) - 0.5)


def coefficients(x: NDArray[Any], dims: int) -> NDArray[np.complex128]:
    return np.fft.fftn(x, axes=tuple(range(-dims, 0)))


def run(transform: PhaseScramble, x: NDArray[Any], seed: int = 1) -> NDArray[Any]:
    return transform(torch.from_numpy(x), generator=seeded(seed)).numpy()


def turns(shape: tuple[int, ...], strength: float = 1.0, batch: int = 4000, **more: Any) -> NDArray[np.float64]:
    """By how much every phase of many samples was turned, in full turns: `[batch, channels, *sides]`."""
    dims = len(shape) - 1
    x = np.broadcast_to(samples(shape, 1, 0.02), (batch, *shape)).copy()
    y = run(PhaseScramble(strength=strength, dims=dims, **more), x)
    return np.angle(coefficients(y, dims) / coefficients(x, dims)) / (2 * np.pi)


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_amplitudes_and_means_stay(shape: tuple[int, ...], per_channel: bool, strength: float) -> None:
    dims = len(shape) - 1
    x = samples(shape, contrast=0.05)
    y = run(PhaseScramble(strength=strength, per_channel=per_channel, dims=dims), x)
    np.testing.assert_allclose(np.abs(coefficients(y, dims)), np.abs(coefficients(x, dims)), atol=1e-12)
    np.testing.assert_allclose(y.mean(tuple(range(-dims, 0))), x.mean(tuple(range(-dims, 0))), atol=1e-14)
    np.testing.assert_allclose((y**2).sum(), (x**2).sum(), rtol=1e-12)  # Parseval
    assert np.abs(y - x).max() > 0.01


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_samples_of_full_contrast_all_amplitudes_have_one_factor(shape: tuple[int, ...]) -> None:
    dims = len(shape) - 1
    x = (samples(shape) > 0.5).astype(float)
    for fit in ("shrink", "shift"):
        y = run(PhaseScramble(dims=dims, fit=fit), x)
        before = np.abs(coefficients(x, dims)).reshape(*x.shape[:-dims], -1)[..., 1:]
        after = np.abs(coefficients(y, dims)).reshape(*x.shape[:-dims], -1)[..., 1:]
        for sample_before, sample_after in zip(before, after, strict=True):
            seen = sample_before > 1e-6
            factors = sample_after[seen] / sample_before[seen]
            assert np.ptp(factors) < 1e-9
            assert 0.1 < factors.max() < 0.99
        if fit == "shrink":
            np.testing.assert_allclose(y.mean(tuple(range(-dims, 0))), x.mean(tuple(range(-dims, 0))), atol=1e-12)


def test_channels_turn_together_and_keep_their_covariance() -> None:
    shape = (3, 8, 8)
    x = samples(shape, contrast=0.05)
    x[:, 1] += 0.5 * (x[:, 0] - 0.5)
    f, g = coefficients(x, 2), coefficients(run(PhaseScramble(), x), 2)
    np.testing.assert_allclose(g[:, 0] * g[:, 1].conj(), f[:, 0] * f[:, 1].conj(), atol=1e-10)
    covariances = [np.cov(sample.reshape(3, -1)) for sample in x]
    kept = [np.cov(sample.reshape(3, -1)) for sample in run(PhaseScramble(), x)]
    np.testing.assert_allclose(kept, covariances, atol=1e-15)
    lost = [np.cov(sample.reshape(3, -1)) for sample in run(PhaseScramble(per_channel=True), x)]
    assert abs(np.array(lost) - covariances)[:, 0, 1].max() > 1e-5


def test_frames_of_a_video_turn_together() -> None:
    x = np.repeat(samples((1, 2, 6, 6), contrast=0.05), 3, axis=1)
    y = run(PhaseScramble(), x)
    np.testing.assert_allclose(y[:, 1:], y[:, :1].repeat(2, axis=1), atol=1e-14)
    assert np.abs(np.diff(run(PhaseScramble(per_channel=True), x), axis=1)).min(axis=(2, 3, 4)).max() > 0


@pytest.mark.parametrize("shape", [(2, 7), (2, 6), (1, 4, 5), (1, 4, 3, 2)], ids=str)
@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_turns_are_uniform_over_the_strength_and_signs_change_with_half_of_it(
    shape: tuple[int, ...], strength: float
) -> None:
    found = turns(shape, strength)
    sides = shape[1:]
    error = 5 / np.sqrt(len(found))
    for place in np.ndindex(*sides):
        turn = found[(slice(None), 0, *place)]
        opposite = tuple(-index % side for index, side in zip(place, sides, strict=True))
        if not any(place):
            np.testing.assert_allclose(turn, 0, atol=1e-9)
        elif opposite == place:
            changed = np.abs(turn) > 0.25
            np.testing.assert_allclose(np.abs(turn), 0.5 * changed, atol=1e-9)
            assert changed.mean() == pytest.approx(strength / 2, abs=error)
        else:
            assert np.abs(turn).max() <= strength / 2 + 1e-9
            ranks = np.sort(turn) / strength + 0.5
            uniform = (np.arange(len(turn)) + 0.5) / len(turn)
            assert np.abs(ranks - uniform).max() < 2 / np.sqrt(len(turn))  # Kolmogorov and Smirnov, p of about 0.0007
            back = found[(slice(None), 0, *opposite)]
            np.testing.assert_allclose(np.exp(2j * np.pi * (turn + back)), 1, atol=1e-9)


def test_different_frequencies_turn_independently() -> None:
    found = np.exp(2j * np.pi * turns((1, 5, 5)).reshape(4000, 25)[:, 1:13])
    together = np.abs(found.T @ found.conj()) / len(found)
    assert (together - np.eye(12)).max() < 5 / np.sqrt(len(found))


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_on_average_a_known_share_stays_in_place(strength: float) -> None:
    x = np.broadcast_to(samples((1, 9), 1, 0.02), (20000, 1, 9)).copy()
    y = run(PhaseScramble(strength=strength, dims=1), x)
    left = (y.mean(0) - 0.5 - (x[0] - 0.5).mean()) / (x[0] - x[0].mean())
    weights = (x[0] - x[0].mean()) ** 2
    assert (left * weights).sum() / weights.sum() == pytest.approx(np.sinc(strength), abs=0.02)


def test_more_strength_leaves_less() -> None:
    x = samples((1, 16, 16), 64, 0.05)

    def correlation(strength: float) -> float:
        y = run(PhaseScramble(strength=strength), x)
        return float(
            np.corrcoef((x - x.mean((2, 3), keepdims=True)).ravel(), (y - y.mean((2, 3), keepdims=True)).ravel())[0, 1]
        )

    found = [correlation(strength) for strength in (0.1, 0.3, 0.5, 0.7, 1.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.97
    assert abs(found[-1]) < 0.03


def test_what_clipping_does_to_the_amplitudes_is_bounded_by_what_is_clipped() -> None:
    x = samples((1, 16, 16), 16)
    exact = run(PhaseScramble(), 0.5 + (x - 0.5) / 10) * 10 - 4.5
    y = run(PhaseScramble(fit="clip"), x)
    np.testing.assert_allclose(y, exact.clip(0, 1), atol=1e-10)
    error = np.abs(coefficients(y, 2)) - np.abs(coefficients(x, 2))
    # Parseval: the spectrum moves by no more than the values did.
    moved = ((y - exact) ** 2).sum((1, 2, 3)) * 256
    assert ((error**2).sum((1, 2, 3)) <= moved + 1e-9).all()
    assert moved.max() > 0.1


def test_uint8_keeps_amplitudes_to_the_rounding() -> None:
    x = torch.from_numpy(samples((3, 16, 16), contrast=0.2) * 255).round().to(torch.uint8)
    y = PhaseScramble()(x, generator=seeded())
    error = spectral.amplitude_spectrum(x) - spectral.amplitude_spectrum(y)
    # Rounding noise of variance 1/12 of a grey level, spread over 256 frequencies.
    assert error.square().mean().sqrt() * 255 < np.sqrt(1 / 12 / 256) * 1.1
