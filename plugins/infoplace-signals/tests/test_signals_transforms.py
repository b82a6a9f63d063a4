"""What each transform of signals does to sines, bursts and noise, against SciPy, NumPy and plain arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from infoplace import compose, describe_transform, make_transform
from infoplace.errors import DataError, DeclarationError
from infoplace.transforms import draw_uniform
from scipy import signal as reference

from infoplace_signals import (
    BandShuffle,
    EnvelopeRemoval,
    LogSpectrogram,
    PitchShift,
    SegmentShuffle,
    SignalTransform,
    TempoShift,
    TimeReverse,
)
from infoplace_signals.vocoder import read_between, stretch

LENGTH = 4096


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sine(cycles: float, length: int = LENGTH, swing: float = 0.3, phase: float = 0.3) -> torch.Tensor:
    """`[length]` about 1/2, with so many cycles."""
    time = torch.arange(length, dtype=torch.float64) / length
    return (0.5 + swing * torch.sin(2 * math.pi * cycles * time + phase)).float()


def frequency(wave: torch.Tensor) -> float:
    """The strongest frequency of `[length]`, in cycles a sample, between the frequencies of the spectrum."""
    values = (wave - wave.mean()).double().numpy()
    spectrum = np.abs(np.fft.rfft(values * np.hanning(len(values)), 16 * len(values)))
    return float(spectrum.argmax() / (16 * len(values)))


def largest_step(wave: torch.Tensor) -> float:
    return wave.diff().abs().max().item()


# ---- segment_shuffle ---------------------------------------------------------------------------------------------------


def test_segments_are_permuted_and_nothing_else() -> None:
    x = torch.randint(0, 256, (3, 2, 40), dtype=torch.uint8)
    shuffled = SegmentShuffle(n=8)(x, generator=seeded())
    for before, after in zip(x, shuffled, strict=True):
        segments = [tuple(before[:, start : start + 8].flatten().tolist()) for start in range(0, 40, 8)]
        assert sorted(segments) == sorted(tuple(after[:, s : s + 8].flatten().tolist()) for s in range(0, 40, 8))


def test_without_a_fade_it_is_patch_shuffle_of_one_dimension() -> None:
    x = torch.rand(4, 2, 60)
    assert SegmentShuffle(n=5)(x, generator=seeded()).equal(
        make_transform("patch_shuffle", n=5, dims=1)(x, generator=seeded())
    )


def test_every_order_is_equally_likely() -> None:
    x = torch.arange(3.0).repeat_interleave(2).view(1, 1, 6).expand(1200, 1, 6) / 2
    orders, counts = SegmentShuffle(n=2)(x, generator=seeded()).unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 150  # 200 expected, with a standard deviation of 13
    assert counts.max() < 250


def blended_by_hand(segments: np.ndarray, fade: int) -> np.ndarray:
    """`[segments, n]` joined, sample by sample as the docstring says it."""
    count, n = segments.shape
    result = segments.copy()
    for k, i in itertools.product(range(count), range(n)):
        for other, offset, mirrored in ((k - 1, i, n - 1 - i), (k + 1, n - 1 - i, n - 1 - i)):
            if 0 <= other < count and offset < fade:
                u = (fade + offset + 0.5) / (2 * fade)
                own = math.sin(math.pi * u / 2) ** 2
                result[k, i] = own * segments[k, i] + (1 - own) * segments[other, mirrored]
    return result.reshape(-1)


@pytest.mark.parametrize("fade", [1, 3, 5])
def test_a_fade_blends_each_segment_with_the_mirror_image_of_its_neighbour(fade: int) -> None:
    x = torch.rand(2, 1, 40, dtype=torch.float64)
    plain = SegmentShuffle(n=10)(x, generator=seeded()).view(2, 4, 10).numpy()
    faded = SegmentShuffle(n=10, fade=fade)(x, generator=seeded())
    for segments, result in zip(plain, faded[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(result, blended_by_hand(segments, fade), atol=1e-12)


def test_a_fade_takes_the_clicks_out() -> None:
    x = sine(37.3).expand(6, 1, LENGTH)
    plain, faded = (SegmentShuffle(n=256, fade=fade)(x, generator=seeded()) for fade in (0, 64))
    own = largest_step(x[0, 0])
    for hard, soft in zip(plain[:, 0], faded[:, 0], strict=True):
        assert largest_step(hard) > 5 * own
        assert largest_step(soft) < 1.5 * own


def test_a_constant_stays_constant_under_a_fade() -> None:
    x = torch.full((1, 1, 64), 0.7)
    torch.testing.assert_close(SegmentShuffle(n=16, fade=8)(x), x)


@pytest.mark.parametrize("fade", [0, 3])
def test_what_comes_out_tells_nothing_of_the_order_that_went_in(fade: int) -> None:
    segments = torch.rand(3, 6)
    possible = []
    for order in ([0, 1, 2], [2, 0, 1]):
        x = segments[order].reshape(1, 1, 18).expand(200, 1, 18)
        possible.append(SegmentShuffle(n=6, fade=fade)(x, generator=seeded()).unique(dim=0))
    assert len(possible[0]) == 6
    torch.testing.assert_close(*possible)


# ---- time_reverse ------------------------------------------------------------------------------------------------------


def test_half_of_the_signals_are_reversed_and_the_others_are_not() -> None:
    x = torch.rand(1000, 2, 7)
    y = TimeReverse()(x, generator=seeded())
    same = (y == x).flatten(1).all(1)
    assert ((y == x.flip(-1)).flatten(1).all(1) ^ same).all()
    assert 430 < int(same.sum()) < 570


def test_a_signal_and_its_reverse_come_out_alike() -> None:
    x = torch.rand(1, 1, 9).expand(40, 1, 9)
    forwards, backwards = (TimeReverse()(each, generator=seeded()).unique(dim=0) for each in (x, x.flip(-1)))
    assert len(forwards) == 2
    assert forwards.equal(backwards)


# ---- the phase vocoder -------------------------------------------------------------------------------------------------


def test_at_its_own_speed_a_signal_is_itself() -> None:
    x = torch.randn(2, 3, 1000, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(stretch(x, torch.ones(2), torch.zeros(2), 1000, 128), x)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0, 1.7])
def test_a_chirp_rises_at_the_new_pace(speed: float) -> None:
    time = np.arange(LENGTH)
    start, rise = 0.02, 0.06 / LENGTH
    chirp = np.sin(2 * np.pi * (start * time + rise / 2 * time**2))
    kept = int(0.9 * LENGTH / max(1.0, speed))
    stretched = stretch(torch.tensor(chirp)[None, None], torch.tensor([speed]), torch.zeros(1), kept, 256)[0, 0].numpy()
    inside = slice(kept // 8, -kept // 8)
    found = np.diff(np.unwrap(np.angle(reference.hilbert(stretched))))[inside] / (2 * np.pi)
    expected = start + rise * speed * (time[:kept] + 0.5)[inside]
    smooth = np.ones(64) / 64
    np.testing.assert_allclose(
        np.convolve(found, smooth, "valid"), np.convolve(expected[: len(found)], smooth, "valid"), rtol=0.03
    )


def test_a_stretched_sine_keeps_its_loudness() -> None:
    wave = sine(100)[None, None] - 0.5
    slower = stretch(wave, torch.tensor([0.6]), torch.tensor([100.0]), LENGTH, 256)
    assert slower[..., 300:-300].std().item() == pytest.approx(wave.std().item(), rel=0.01)


def test_between_the_samples_of_a_sine_is_the_sine() -> None:
    length, cycles = 512, 40.0
    places = torch.linspace(20.0, 490.0, 333, dtype=torch.float64)[None]
    wave = torch.sin(2 * math.pi * cycles * torch.arange(length, dtype=torch.float64) / length)
    expected = np.sin(2 * math.pi * cycles * places.numpy() / length)
    np.testing.assert_allclose(read_between(wave[None, None], places)[0].numpy(), expected, atol=2e-3)


def factors_of(low: float, high: float, count: int, rows: int) -> np.ndarray:
    """Numbers uniform in their logarithm, from the draws that the transforms take of ``seeded()``."""
    draws = draw_uniform((rows, count) if rows > 1 else (count,), torch.zeros(count, 1), seeded())
    return (low * (high / low) ** (draws[0] if rows > 1 else draws)).numpy()


def test_a_slower_tempo_keeps_the_pitch() -> None:
    x = torch.stack([sine(cycles) for cycles in (80, 200, 500)])[:, None]
    slower = TempoShift(factor=2.0)(x, generator=seeded())
    for before, after in zip(x[:, 0], slower[:, 0], strict=True):
        assert frequency(after) == pytest.approx(frequency(before), rel=3e-3)


def test_a_slower_tempo_spaces_the_beats_wider() -> None:
    beats, gap, length = torch.zeros(LENGTH), 256, LENGTH
    beats[gap // 2 :: gap] = 1
    tone = 0.4 * torch.sin(torch.arange(length) * 2 * math.pi / 8)
    decaying = torch.from_numpy(np.convolve(beats.numpy(), np.exp(-np.arange(200) / 20))[:length]).float()
    x = (0.5 + decaying * tone).expand(8, 1, length)
    slower = TempoShift(factor=2.0, window=64)(x, generator=seeded())
    expected = factors_of(1.0, 2.0, 8, rows=2)
    for wave, factor in zip(slower[:, 0].numpy(), expected, strict=True):
        loudness = np.convolve((wave - 0.5) ** 2, np.hanning(65), "same")
        rhythm = np.abs(np.fft.rfft(loudness - loudness.mean(), 16 * length))
        found = 16 * length / (100 + rhythm[100:2000].argmax())
        assert found == pytest.approx(gap * factor, rel=0.03)


def test_the_part_that_is_kept_begins_anywhere() -> None:
    rising = torch.linspace(0, 1, LENGTH)
    x = (0.5 + 0.4 * rising * (sine(500) - 0.5)).expand(64, 1, LENGTH)
    slower = TempoShift(factor=2.0)(x, generator=seeded())
    begin = slower[:, 0, 200:600].std(1) / x[0, 0, -400:].std()
    assert begin.min() < 0.15
    assert begin.max() > 0.4


def test_a_shift_multiplies_every_frequency_by_one_factor() -> None:
    x = torch.stack([sine(cycles) for cycles in (150, 300, 600, 900) * 4])[:, None]
    shifted = PitchShift(semitones=7.0)(x, generator=seeded())
    expected = factors_of(2 ** (-7 / 12), 2 ** (7 / 12), 16, rows=1)
    assert expected.max() > 1.2 > 0.8 > expected.min()
    for before, after, factor in zip(x[:, 0], shifted[:, 0], expected, strict=True):
        assert frequency(after) / frequency(before) == pytest.approx(factor, rel=3e-3)
        assert after[200:-200].std().item() == pytest.approx(before.std().item(), rel=0.03)


def test_intervals_survive_a_shift() -> None:
    chord = (sine(400) + sine(600) - 0.5) / 2 + 0.25
    shifted = PitchShift(semitones=4.0)(chord.expand(4, 1, LENGTH), generator=seeded())
    for wave in shifted[:, 0]:
        spectrum = np.abs(np.fft.rfft((wave - wave.mean()).numpy() * np.hanning(LENGTH), 8 * LENGTH))
        peaks, _ = reference.find_peaks(spectrum, height=spectrum.max() / 3, distance=400)
        assert len(peaks) == 2
        assert peaks[1] / peaks[0] == pytest.approx(1.5, rel=0.01)


def test_a_shift_leaves_a_burst_where_it_was() -> None:
    window = torch.from_numpy(np.exp(-(((np.arange(LENGTH) - 1500) / 200) ** 2))).float()
    x = (0.5 + window * (sine(500) - 0.5)).expand(6, 1, LENGTH)
    for wave in PitchShift(semitones=7.0)(x, generator=seeded())[:, 0].double().numpy():
        energy = (wave - 0.5) ** 2
        assert (energy * np.arange(LENGTH)).sum() / energy.sum() == pytest.approx(1500, abs=40)


def test_what_would_rise_above_the_highest_frequency_is_left_out() -> None:
    x = sine(0.45 * LENGTH).expand(16, 1, LENGTH)
    factors = factors_of(0.5, 2.0, 16, rows=1)
    quiet = PitchShift()(x, generator=seeded())[:, 0, 200:-200].std(1).numpy()
    assert (factors > 1.2).sum() > 3
    assert quiet[factors > 1.2].max() < 0.003
    assert quiet[factors < 1.0].min() > 0.1


def test_channels_are_shifted_together() -> None:
    wave = sine(300)
    y = PitchShift()(torch.stack([wave, wave]).expand(3, 2, LENGTH), generator=seeded())
    assert y[:, 0].equal(y[:, 1])
    assert not torch.allclose(y[0, 0], y[1, 0], atol=0.05)


# ---- band_shuffle ------------------------------------------------------------------------------------------------------


def bands_of(wave: np.ndarray, bands: int) -> np.ndarray:
    """The Fourier coefficients of `[length]`, but for the mean and the highest, `[bands, coefficients]`."""
    spectrum = np.fft.rfft(wave.astype(np.float64) - wave.mean())[:-1]
    return spectrum.reshape(bands, -1)


def test_the_contents_of_the_bands_change_places() -> None:
    x = 0.5 + 0.02 * torch.randn(4, 2, 256, dtype=torch.float64, generator=seeded())
    y = BandShuffle(bands=4)(x, generator=seeded())
    for before, after in zip(x.numpy(), y.numpy(), strict=True):
        orders = set()
        for channel in range(2):
            source, result = bands_of(before[channel], 4), bands_of(after[channel], 4)
            matches = [
                order
                for order in itertools.permutations(range(4))
                if np.allclose(source[list(order)].reshape(-1)[1:], result.reshape(-1)[1:], atol=1e-9)
            ]
            assert len(matches) == 1
            orders.update(matches)
            assert after[channel].mean() == pytest.approx(before[channel].mean())
        assert len(orders) == 1


def test_a_sine_moves_by_whole_bands_and_keeps_its_loudness() -> None:
    x = sine(75, length=1024).expand(60, 1, 1024)
    y = BandShuffle(bands=8)(x, generator=seeded())
    places = [round(frequency(wave) * 1024) for wave in y[:, 0]]
    assert {(place - 75) % 64 for place in places} == {0}
    assert {place // 64 for place in places} == set(range(8))
    torch.testing.assert_close(y.std(-1), x.std(-1), rtol=1e-3, atol=0.0)


def test_the_rhythm_survives_the_contents_changing_places() -> None:
    time = np.arange(1024)
    beating = 0.5 + 0.2 * (1 + np.cos(2 * np.pi * 4 * time / 1024)) / 2 * np.sin(2 * np.pi * 100 * time / 1024)
    y = BandShuffle(bands=8)(torch.from_numpy(beating).expand(5, 1, 1024), generator=seeded())
    expected = np.abs(reference.hilbert(beating - 0.5))
    for wave in y[:, 0].numpy():
        np.testing.assert_allclose(np.abs(reference.hilbert(wave - 0.5)), expected, atol=2e-3)


def test_the_energies_of_the_bands_are_permuted_and_their_contents_scaled() -> None:
    shape = torch.linspace(2, 0.2, 128, dtype=torch.float64)
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn(3, 1, 254, dtype=torch.float64, generator=seeded())) * shape)
    x = (0.5 + 0.02 * torch.nn.functional.pad(noise, (0, 2))).clamp(0, 1)
    y = BandShuffle(bands=4, what="energies")(x, generator=seeded())
    moved = 0
    for before, after in zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True):
        source, result = bands_of(before, 4), bands_of(after, 4)
        energies = [np.square(np.abs(each)).sum(1) for each in (source, result)]
        np.testing.assert_allclose(np.sort(energies[1]), np.sort(energies[0]), rtol=1e-6)
        moved += not np.allclose(energies[0], energies[1], rtol=1e-3)
        for one, other in zip(source, result, strict=True):
            inside = np.abs(one) > 1e-6
            gains = other[inside] / one[inside]
            np.testing.assert_allclose(gains, gains[0].real, rtol=1e-6)
    assert moved


def test_a_band_of_rounding_is_not_amplified() -> None:
    x = sine(75, length=1024).expand(20, 1, 1024)
    y = BandShuffle(bands=8, what="energies")(x, generator=seeded())
    spectra = np.abs(np.fft.rfft(y[:, 0].numpy() - 0.5))
    assert spectra[:, np.arange(513) != 75].max() < 1e-3 * spectra.max()


# ---- envelope_removal --------------------------------------------------------------------------------------------------


def test_the_loudness_around_every_sample_is_divided_out() -> None:
    x = torch.rand(2, 2, 90, dtype=torch.float64)
    y = EnvelopeRemoval(window=20, level=0.1, floor=0.05)(x).numpy()
    for before, after in zip(x.reshape(4, 90).numpy(), y.reshape(4, 90), strict=True):
        swing = before - before.mean()
        for i in range(90):
            around = swing[max(0, i - 10) : i + 11]
            expected = 0.5 + 0.1 * swing[i] / math.sqrt(np.mean(around**2) + 0.05**2)
            assert after[i] == pytest.approx(min(1.0, max(0.0, expected)))


def test_a_beating_sine_swings_evenly_afterwards() -> None:
    time = np.arange(LENGTH)
    beating = (1 + 0.8 * np.sin(2 * np.pi * 3 * time / LENGTH)) * np.sin(2 * np.pi * 256 * time / LENGTH)
    y = EnvelopeRemoval(window=64)(torch.from_numpy(0.5 + 0.2 * beating)[None, None])[0, 0].numpy()
    before, after = (np.abs(reference.hilbert(wave))[200:-200] for wave in (beating, y - 0.5))
    assert before.std() / before.mean() > 0.5
    assert after.std() / after.mean() < 0.05
    assert after.mean() == pytest.approx(0.15 * math.sqrt(2), rel=0.02)


def test_loudness_and_offset_are_gone() -> None:
    quiet, loud = (offset + swing * (sine(200) - 0.5)[None, None] for offset, swing in ((0.2, 0.5), (0.6, 1.2)))
    torch.testing.assert_close(EnvelopeRemoval()(quiet), EnvelopeRemoval()(loud), atol=2e-3, rtol=0)


def test_silence_stays_quiet() -> None:
    y = EnvelopeRemoval(floor=0.01)(sine(200, swing=1e-4)[None, None])
    assert (y - 0.5).abs().max() < 0.15 * 0.01 * 1.1


# ---- log_spectrogram ---------------------------------------------------------------------------------------------------


def test_it_is_the_short_time_spectrum_in_decibels() -> None:
    x = torch.rand(2, 1, 512, dtype=torch.float64)
    y = LogSpectrogram(window=64, hop=32, decibels=50)(x).numpy()
    for before, after in zip(x[:, 0].numpy(), y, strict=True):
        padded = np.pad(before - before.mean(), 16, mode="reflect")
        _, _, spectrum = reference.stft(
            padded, window="hann", nperseg=64, noverlap=32, boundary=None, padded=False, scaling="spectrum"
        )
        # SciPy's "spectrum" divides by the window's sum; a sine that swings over the whole range gives 1/4 there.
        expected = np.clip(1 + 20 * np.log10(4 * np.abs(spectrum[1:])) / 50, 0, 1)
        np.testing.assert_allclose(after, expected, atol=1e-9)


def test_a_sine_over_the_whole_range_is_one_and_fainter_ones_are_fewer_decibels() -> None:
    for swing, level in ((0.5, 1.0), (0.05, 1 - 20 / 60), (0.5e-4, 0.0)):
        y = LogSpectrogram(window=128, hop=64)(sine(16 * 10, length=2048, swing=swing)[None, None])
        assert y.shape == (1, 64, 32)
        assert y[0, :, 4:-4].argmax(0).eq(9).all() or level == 0
        assert y[0, 9, 4:-4].mean().item() == pytest.approx(level, abs=0.005)


def test_time_and_channels_stay_where_they_are() -> None:
    x = torch.full((1, 2, 1024), 0.5)
    x[0, 1, 512:] = sine(128, length=512)
    y = LogSpectrogram(window=64, hop=64)(x)
    assert y.shape == (1, 64, 16)
    assert y[0, :32].max() == 0
    assert y[0, 32:, :8].max() == 0
    assert y[0, 32:, 9:].amax(0).min() > 0.9


def test_the_phase_is_gone() -> None:
    waves = torch.stack([sine(200, phase=phase) for phase in (0.0, 1.0, 2.5)])[:, None]
    spectra = LogSpectrogram(window=256, hop=64, decibels=40)(waves)[..., 4:-4]
    assert (spectra - spectra[:1]).abs().max() < 0.01
    assert (waves - waves[:1]).abs().max() > 0.2


# ---- all of them -------------------------------------------------------------------------------------------------------

EVERY = [
    SegmentShuffle(n=32),
    SegmentShuffle(n=32, fade=8),
    TimeReverse(),
    TempoShift(window=64),
    PitchShift(window=64),
    BandShuffle(),
    BandShuffle(what="energies"),
    EnvelopeRemoval(window=32),
    LogSpectrogram(window=64, hop=32),
]
IN_FLOATS = [transform for transform in EVERY if transform not in (SegmentShuffle(n=32), TimeReverse())]
every = pytest.mark.parametrize("transform", EVERY, ids=repr)


@every
def test_bytes_give_what_floats_give(transform: SignalTransform) -> None:
    x = torch.randint(0, 256, (3, 2, 256), dtype=torch.uint8)
    y = transform(x, generator=seeded())
    assert y.dtype == torch.uint8
    expected = transform(x.float() / 255, generator=seeded()) * 255
    assert (y - expected).abs().max() <= 0.501


@every
def test_half_precision_comes_back_as_such(transform: SignalTransform) -> None:
    x = torch.rand(2, 1, 256).half()
    y = transform(x, generator=seeded())
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), transform(x.float(), generator=seeded()), atol=1e-3, rtol=0)


@every
def test_dimensions_before_the_channels_are_taken_along(transform: SignalTransform) -> None:
    x = torch.rand(2, 3, 4, 256)
    y = transform(x, generator=seeded())
    flat = transform(x.view(2, 12, 256), generator=seeded())
    assert y.shape == (2, *transform.output_shape((3, 4, 256)))
    torch.testing.assert_close(y.reshape(flat.shape), flat)


@every
def test_gradients_flow_and_are_finite(transform: SignalTransform) -> None:
    x = (0.3 + 0.4 * torch.rand(2, 1, 256)).requires_grad_()
    transform(x, generator=seeded()).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_they_go_by_name_and_compose() -> None:
    both = compose({"segment_shuffle": {"n": 64}}, {"log_spectrogram": {"window": 64, "hop": 64}})
    assert both.destroys == "order in time, phase"
    assert both.output_shape((1, 1024)) == (32, 16)
    assert describe_transform("tempo_shift").details["destroys"] == "tempo"
    assert make_transform("band_shuffle", what="energies").destroys == "spectral envelope"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("segment_shuffle", {"n": 0}, "segment_shuffle: n must be an integer from 1 to 16777216; got 0"),
        ("segment_shuffle", {"n": 8, "fade": 5}, "fade must be a whole number from 0 (none) to 4, half of n=8; got 5"),
        (
            "segment_shuffle",
            {"fade": True},
            "fade must be a whole number from 0 (none) to 128, half of n=256; got True",
        ),
        ("tempo_shift", {"factor": 1.0}, "tempo_shift: factor must be a number above 1 and at most 16; got 1.0"),
        ("tempo_shift", {"factor": math.nan}, "factor must be a number above 1 and at most 16; got nan"),
        ("tempo_shift", {"window": 30}, "tempo_shift: window must be a multiple of 4; got 30"),
        ("pitch_shift", {"semitones": 0}, "pitch_shift: semitones must be a number above 0 and at most 48; got 0"),
        ("pitch_shift", {"window": 8}, "pitch_shift: window must be an integer from 16 to 16777216; got 8"),
        ("band_shuffle", {"bands": 1}, "band_shuffle: bands must be an integer from 2 to 16777216; got 1"),
        ("band_shuffle", {"what": "both"}, "band_shuffle: what must be 'contents' or 'energies'; got 'both'"),
        (
            "envelope_removal",
            {"window": 1},
            "envelope_removal: window must be an integer from 2 to 16777216; got 1",
        ),
        (
            "envelope_removal",
            {"level": 0.6},
            "envelope_removal: level must be a number above 0 and at most 0.5; got 0.6",
        ),
        (
            "envelope_removal",
            {"floor": "1"},
            "envelope_removal: floor must be a number above 0 and at most 0.5; got '1'",
        ),
        ("log_spectrogram", {"window": 63}, "log_spectrogram: window must be a multiple of 2; got 63"),
        ("log_spectrogram", {"hop": 256}, "log_spectrogram: hop must be an integer from 2 to 128; got 256"),
        (
            "log_spectrogram",
            {"decibels": -1},
            "log_spectrogram: decibels must be a number above 0 and at most 200; got -1",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        make_transform(name, **parameters)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (
            SegmentShuffle(n=48),
            (1, 1, 256),
            "segment_shuffle: n=48 does not divide the length 256 of a sample of shape",
        ),
        (SegmentShuffle(n=48), (1, 1, 256), "shape (1, 256); 32 and 64 would"),
        (SegmentShuffle(n=300), (1, 1, 256), "shape (1, 256); 256 would"),
        (
            BandShuffle(bands=5),
            (1, 1, 256),
            "band_shuffle: 10 (2 times bands) does not divide the length 256 of a sample",
        ),
        (BandShuffle(bands=5), (1, 1, 256), "shape (1, 256); 4 and 8 would"),
        (BandShuffle(bands=2), (1, 1, 255), "shape (1, 255); cut or pad the signals to a multiple of 4"),
        (TempoShift(), (1, 1, 128), "tempo_shift: a signal of length 128 (shape (1, 128)) is too short for window=256"),
        (TempoShift(), (1, 1, 128), "too short for window=256; it takes at least 256"),
        (
            LogSpectrogram(),
            (1, 1, 64),
            "log_spectrogram: a signal of length 64 (shape (1, 64)) is too short for window=128",
        ),
        (LogSpectrogram(hop=60), (1, 1, 1024), "hop=60 does not divide the length 1024"),
        (TimeReverse(), (1, 256), "add a batch dimension with x[None]"),
    ],
)
def test_signals_that_do_not_fit_are_refused(transform: SignalTransform, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        transform(torch.rand(shape))
    assert message in str(caught.value)


@pytest.mark.parametrize("transform", IN_FLOATS, ids=repr)
def test_whole_numbers_that_are_no_bytes_are_refused(transform: SignalTransform) -> None:
    with pytest.raises(DataError, match=r"takes floats in \[0, 1\] or uint8 in 0..255; got torch.int16"):
        transform(torch.zeros(1, 1, 256, dtype=torch.int16))
