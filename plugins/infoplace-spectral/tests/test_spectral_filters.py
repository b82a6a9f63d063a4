"""The filters against numpy's Fourier transform, sinusoids and Parseval's theorem."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from infoplace.errors import DataError, DeclarationError
from numpy.typing import NDArray

from infoplace_spectral import BandStop, HighPass, LowPass, amplitude_spectrum, radial_frequency

SHAPES = [(2, 16), (2, 15), (3, 8, 8), (2, 7, 10), (1, 4, 6, 9), (2, 8, 5, 4)]


def samples(shape: tuple[int, ...], contrast: float = 1.0) -> NDArray[np.float64]:
    return 0.5 + contrast * (np.random.default_rng(0).random((3, *shape)) - 0.5)


def frequencies(sides: tuple[int, ...]) -> NDArray[np.float64]:
    """The frequency of every coefficient of numpy's full transform."""
    found = np.zeros(sides)
    for place in np.ndindex(*sides):
        along = [np.fft.fftfreq(side)[index] for side, index in zip(sides, place, strict=True)]
        found[place] = np.linalg.norm(along)
    return found


def coefficients(x: Any, dims: int) -> NDArray[np.complex128]:
    return np.fft.fftn(np.asarray(x), axes=tuple(range(-dims, 0)))


def run(transform: Any, x: NDArray[Any]) -> NDArray[Any]:
    return transform(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("sides", [(7,), (8,), (4, 5), (5, 4), (3, 4, 6)])
def test_radial_frequencies_and_amplitudes_are_numpys(sides: tuple[int, ...]) -> None:
    half = (..., slice(sides[-1] // 2 + 1))
    np.testing.assert_allclose(radial_frequency(sides).numpy(), frequencies(sides)[half], atol=1e-15)
    x = np.random.default_rng(1).random((2, *sides))
    expected = np.abs(coefficients(x, len(sides)))[half] / np.prod(sides)
    np.testing.assert_allclose(amplitude_spectrum(torch.from_numpy(x), len(sides)).numpy(), expected, atol=1e-15)
    pixels = torch.from_numpy(x * 255).round().to(torch.uint8)
    whole = amplitude_spectrum(pixels.double() / 255, len(sides))
    torch.testing.assert_close(amplitude_spectrum(pixels, len(sides)).double(), whole, rtol=0, atol=1e-6)


GAINS = [
    (LowPass, {"cutoff": 0.21}, lambda f: f <= 0.21),
    (LowPass, {"cutoff": 0.2, "edge": "gaussian"}, lambda f: 0.5 ** ((f / 0.2) ** 2)),
    (HighPass, {"cutoff": 0.31}, lambda f: f > 0.31),
    (HighPass, {"cutoff": 0.31, "edge": "gaussian"}, lambda f: 1 - 0.5 ** ((f / 0.31) ** 2)),
    (BandStop, {"low": 0.11, "high": 0.31}, lambda f: (f < 0.11) | (f > 0.31)),
    (
        BandStop,
        {"low": 0.1, "high": 0.3, "edge": "gaussian"},
        lambda f: 1 - 0.5 ** (np.divide(f**2 - 0.03, 0.2 * f, out=np.full_like(f, -np.inf), where=f > 0) ** 2),
    ),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("filter_", "parameters", "gain"), GAINS)
def test_each_is_a_product_in_numpys_spectrum(filter_: Any, parameters: Any, gain: Any, shape: tuple[int, ...]) -> None:
    dims = len(shape) - 1
    x = samples(shape, contrast=0.1)
    changed = coefficients(x, dims) * gain(frequencies(shape[1:]))
    expected = np.fft.ifftn(changed, axes=tuple(range(-dims, 0)))
    np.testing.assert_allclose(expected.imag, 0, atol=1e-15)
    grey = 0.5 if filter_ is HighPass else 0
    np.testing.assert_allclose(run(filter_(**parameters, dims=dims), x), expected.real + grey, atol=1e-14)


@pytest.mark.parametrize("fit", ["shrink", "shift"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_removed_is_gone_even_from_samples_of_full_contrast(shape: tuple[int, ...], fit: str) -> None:
    dims = len(shape) - 1
    x = (samples(shape) > 0.6).astype(float)
    frequency = frequencies(shape[1:])
    for transform, removed in [
        (LowPass(cutoff=0.21, dims=dims, fit=fit), frequency > 0.21),
        (HighPass(cutoff=0.31, dims=dims, fit=fit), (frequency <= 0.31) & (frequency > 0)),
        (BandStop(low=0.11, high=0.31, dims=dims, fit=fit), (frequency >= 0.11) & (frequency <= 0.31)),
    ]:
        y = run(transform, x)
        assert y.min() >= 0
        assert y.max() <= 1
        before, after = np.abs(coefficients(x, dims)), np.abs(coefficients(y, dims))
        assert removed.any()
        assert after[..., removed].max() < 1e-12
        kept = ~removed & (frequency > 0)
        for sample_before, sample_after in zip(before[..., kept], after[..., kept], strict=True):
            seen = sample_before > 1e-6
            assert np.ptp(sample_after[seen] / sample_before[seen]) < 1e-9


def test_clipping_puts_back_what_was_removed() -> None:
    x = (samples((1, 16, 16)) > 0.6).astype(float)
    left = np.abs(coefficients(run(LowPass(cutoff=0.2, fit="clip"), x), 2))[..., frequencies((16, 16)) > 0.2]
    assert left.max() > 0.1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("edge", ["sharp", "gaussian"])
def test_low_and_high_add_up_to_the_sample(shape: tuple[int, ...], edge: str) -> None:
    dims = len(shape) - 1
    x = samples(shape, contrast=0.1)
    low = run(LowPass(cutoff=0.23, edge=edge, dims=dims), x)
    high = run(HighPass(cutoff=0.23, edge=edge, dims=dims), x) - 0.5
    np.testing.assert_allclose(low + high, x, atol=1e-14)
    np.testing.assert_allclose(high.mean(tuple(range(-dims, 0))), 0, atol=1e-15)
    if edge == "sharp":  # they share no frequency, so their energies add up as well (Parseval)
        np.testing.assert_allclose((low**2).sum() + (high**2).sum(), (x**2).sum(), rtol=1e-13)


def waves(shape: tuple[int, ...], *cycles: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Sinusoids of amplitude 0.1 with so many cycles along the sides: `[1, 1, *sides]` each."""
    places = np.indices(shape)
    turns = [sum(c * p / s for c, p, s in zip(each, places, shape, strict=True)) for each in cycles]
    return [0.1 * np.sin(2 * np.pi * turn + 0.3)[None, None] for turn in turns]


@pytest.mark.parametrize(
    ("shape", "slow", "middle", "fast"),
    [
        ((20,), (1,), (4,), (9,)),
        ((20, 10), (1, 0), (3, 1), (4, 4)),  # 0.05; 0.18; 0.45
        ((10, 20, 8), (0, 1, 0), (1, 2, 1), (4, 4, 2)),  # 0.05; 0.19; 0.51
    ],
)
def test_sinusoids(shape: tuple[int, ...], slow: Any, middle: Any, fast: Any) -> None:
    dims = len(shape)
    a, b, c = waves(shape, slow, middle, fast)
    x = 0.4 + a + b + c
    np.testing.assert_allclose(run(LowPass(cutoff=0.1, dims=dims), x), 0.4 + a, atol=1e-14)
    np.testing.assert_allclose(run(LowPass(cutoff=0.3, dims=dims), x), 0.4 + a + b, atol=1e-14)
    np.testing.assert_allclose(run(HighPass(cutoff=0.3, dims=dims), x), 0.5 + c, atol=1e-14)
    np.testing.assert_allclose(run(BandStop(low=0.1, high=0.3, dims=dims), x), 0.4 + a + c, atol=1e-14)


def test_a_gaussian_edge_halves_a_sinusoid_at_the_cut_off() -> None:
    (a,) = waves((16, 16), (4, 0))
    b, gone, c = waves((16,), (2,), (4,), (8,))
    np.testing.assert_allclose(run(LowPass(cutoff=0.25, edge="gaussian"), 0.4 + a), 0.4 + a / 2, atol=1e-14)
    np.testing.assert_allclose(run(HighPass(cutoff=0.25, edge="gaussian"), 0.4 + a), 0.5 + a / 2, atol=1e-14)
    stop = BandStop(low=0.125, high=0.5, edge="gaussian", dims=1)
    np.testing.assert_allclose(run(stop, 0.4 + b + gone + c), 0.4 + (b + c) / 2, atol=1e-14)


def test_a_frequency_equal_to_a_cut_off_is_not_lost_to_rounding() -> None:
    for count, side in itertools.product(range(1, 30), range(3, 60)):
        if 2 * count >= side:
            continue
        f = radial_frequency((side,))
        assert LowPass(cutoff=count / side, dims=1).gain(f)[count] == 1
        assert HighPass(cutoff=count / side, dims=1).gain(f)[count] == 0
        assert LowPass(cutoff=count / side, dims=1).gain(f).sum() == count + 1
        if count > 1:
            assert BandStop(low=1 / side, high=count / side, dims=1).gain(f)[1 : count + 1].sum() == 0


def test_nor_is_one_across_the_sides() -> None:
    for side in range(10, 40):
        f = radial_frequency((side, side))
        assert LowPass(cutoff=5 / side).gain(f)[3, 4] == 1
        assert HighPass(cutoff=5 / side).gain(f)[4, 3] == 0
        assert BandStop(low=1 / side, high=5 / side).gain(f)[3, 4] == 0


def test_channels_and_frames_are_filtered_one_by_one() -> None:
    x = samples((2, 3, 8, 8))
    transform = LowPass(cutoff=0.2, fit="clip")
    y = run(transform, x)
    for frame, channel in itertools.product(range(2), range(3)):
        part = np.ascontiguousarray(x[:, frame, channel])[:, None]
        np.testing.assert_allclose(y[:, frame, channel], run(transform, part)[:, 0], atol=1e-15)


def test_filters_that_would_remove_nothing_or_everything_are_refused() -> None:
    with pytest.raises(
        DeclarationError,
        match=r"^LowPass: cutoff=0.5 removes nothing from a sample of shape \(1, 9\), whose frequencies lie from "
        r"0.111 to 0.444 cycles per sample; move it to where some are$|^low_pass: cutoff=0.5 removes nothing",
    ):
        LowPass(cutoff=0.5, dims=1).output_shape((1, 9))
    with pytest.raises(
        DeclarationError, match=r"low=0.26, high=0.27 removes nothing from a sample of shape \(3, 4, 4\)"
    ):
        BandStop(low=0.26, high=0.27).output_shape((3, 4, 4))
    with pytest.raises(
        DataError, match=r"cutoff=0.5 leaves nothing of a sample of shape \(1, 8\), whose highest frequency is 0.5"
    ):
        HighPass(cutoff=0.5, dims=1)(torch.rand(2, 1, 8))
    assert LowPass(cutoff=0.5).output_shape((1, 9, 9)) == (1, 9, 9)  # the corners go
    flat = LowPass(cutoff=0.01)(torch.rand(2, 1, 9, 9))
    torch.testing.assert_close(flat, flat.mean((2, 3), keepdim=True).expand_as(flat))
