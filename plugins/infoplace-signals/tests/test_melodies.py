"""The melodies are what their factors say, by their spectra; and signals are kept as infoplace keeps images."""

from __future__ import annotations

import math

import infoplace as ip
import numpy as np
import pytest
import torch
from infoplace.errors import DataError, UnknownNameError
from infoplace.evaluation import encodings

from infoplace_signals import KEYS, NOTES, ORDERS, SAMPLE_RATE, TIMBRES, SignalData, melodies


@pytest.fixture(scope="module")
def data() -> SignalData:
    return melodies(300, seed=3)


def spectra(data: SignalData) -> np.ndarray:
    """Of every note, `[melodies, 4, frequencies]`, in steps of 1 Hz."""
    waves = data.signals.double().numpy().reshape(len(data), 4, -1) / 255 - 0.5
    return np.abs(np.fft.rfft(waves * np.hanning(waves.shape[2]), SAMPLE_RATE))


def strength(spectrum: np.ndarray, hertz: float) -> float:
    around = round(hertz)
    return float(spectrum[around - 6 : around + 7].max())


def test_every_note_sounds_at_its_frequency_with_its_harmonics(data: SignalData) -> None:
    found = spectra(data)
    for index in range(60):
        timbre = TIMBRES[int(data.factors["timbre"][index])]
        for position, note in enumerate(ORDERS[int(data.factors["melody"][index])]):
            hertz = 262.0 * 2 ** ((int(data.factors["key"][index]) + NOTES[note]) / 12)
            spectrum = found[index, position]
            # Those near the highest frequency are left to the test of what is above it.
            sounding = [n for n in range(len(timbre.harmonics)) if (n + 1) * hertz < SAMPLE_RATE / 2 - 20]
            heights = [strength(spectrum, (n + 1) * hertz) for n in sounding]
            for height, amplitude in zip(heights, [timbre.harmonics[n] for n in sounding], strict=True):
                # Harmonics of 0 leave what leaks from their neighbours.
                assert height / max(heights) == pytest.approx(amplitude / max(timbre.harmonics), abs=0.06)


def test_nothing_comes_back_from_above_the_highest_frequency() -> None:
    data = melodies(200, noise=0.0)
    clarinets = data.subset(((data.factors["timbre"] == 1) & (data.factors["key"] == KEYS - 1)).nonzero().squeeze(1))
    for spectrum, melody in zip(spectra(clarinets), clarinets.factors["melody"], strict=True):
        note = spectrum[ORDERS[int(melody)].index(3)]
        hertz = 262.0 * 2 ** ((KEYS - 1 + NOTES[3]) / 12)
        assert 5 * hertz > SAMPLE_RATE / 2
        assert strength(note, SAMPLE_RATE - 5 * hertz) < 0.02 * strength(note, hertz)


def test_all_factors_occur_and_are_drawn_apart(data: SignalData) -> None:
    for name, count in (("melody", 24), ("timbre", 4), ("key", KEYS)):
        values = data.factors[name]
        assert values.unique().tolist() == list(range(count))
    codes = torch.stack([data.factors[name].double() for name in ("melody", "timbre", "key", "loudness")])
    assert (torch.corrcoef(codes) - torch.eye(4)).abs().max() < 0.2


def test_timbres_begin_and_fade_as_they_say(data: SignalData) -> None:
    waves = (data.signals.double() / 255 - 0.5).view(len(data), 4, 512)
    loud = waves.square().mean(1)
    for index, timbre in enumerate(TIMBRES):
        mine = loud[data.factors["timbre"] == index].mean(0).sqrt()
        early, late = mine[64:128].mean(), mine[384:448].mean()
        expected = math.exp(-(320 / SAMPLE_RATE) / timbre.decay)
        attack = min(1.0, (96 / SAMPLE_RATE) / timbre.attack)
        assert (late / early).item() == pytest.approx(expected / attack, rel=0.15)


def test_loudness_is_the_peak(data: SignalData) -> None:
    flutes = data.factors["timbre"] == 0
    peaks = (data.signals[flutes].double() / 255 - 0.5).abs().amax((1, 2))
    # A tenth of a second harmonic adds or takes up to a tenth.
    assert (peaks / data.factors["loudness"][flutes] - 1).abs().max() < 0.12


def test_the_same_arguments_give_the_same_bytes_and_others_do_not() -> None:
    first, again = melodies(5, seed=1), melodies(5, seed=1)
    assert first.signals.equal(again.signals)
    for other in (melodies(5, seed=2), melodies(5, seed=1, split="test")):
        assert not first.signals.equal(other.signals)
    assert melodies(2, note_samples=128, noise=0.0).shape == (1, 512)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "melodies: size must be a whole number of at least 1; got 0"),
        ({"seed": -1}, "melodies: seed must be a whole number of at least 0; got -1"),
        ({"note_samples": 32}, "melodies: note_samples must be a whole number of at least 64; got 32"),
        ({"note_samples": 65}, "melodies: note_samples must be an even number; got 65"),
        ({"noise": math.nan}, "melodies: noise must be a number from 0 to 1; got nan"),
    ],
)
def test_melodies_that_cannot_be_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        melodies(**arguments)
    assert str(caught.value) == message


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UnknownNameError) as caught:
        melodies(split="tests")
    assert str(caught.value) == (
        "melodies: no split 'tests'. Did you mean 'test'? Available: 'train', 'validation', 'test'"
    )


# ---- SignalData --------------------------------------------------------------------------------------------------------


def test_a_batch_is_bytes_divided_by_255_and_floats_as_they_are() -> None:
    signals = torch.randint(0, 256, (6, 2, 9), dtype=torch.uint8)
    data = SignalData(signals, {"label": torch.arange(6)})
    assert data.batch([4, 0]).equal(signals[[4, 0]].float() / 255)
    floats = SignalData(signals.double() / 255)
    assert floats.batch(torch.tensor([1])).dtype == torch.float64
    few = data.subset([5, 2])
    assert few.signals.equal(signals[[5, 2]])
    assert few.factors["label"].tolist() == [5, 2]
    assert (len(few), few.shape, few.device) == (2, (2, 9), torch.device("cpu"))
    assert few.to("cpu").signals.equal(few.signals)


def test_transformed_once_and_in_the_same_type() -> None:
    data = melodies(3)
    spectra = data.transformed({"log_spectrogram": {"window": 128, "hop": 128}})
    assert (spectra.signals.dtype, spectra.shape, spectra.name) == (torch.uint8, (64, 16), "melodies")
    assert spectra.factors["key"].equal(data.factors["key"])
    one, other = (data.transformed("time_reverse", torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert one.signals.equal(other.signals)


def test_infoplace_trains_on_it_and_encodes_it() -> None:
    data = SignalData(torch.randint(0, 256, (20, 1, 64), dtype=torch.uint8), {"label": torch.arange(20) % 2})
    partition = ip.Partition(
        {"z": ip.Block(2)}, {"x": ip.Observation(), "label": ip.Observation(likelihood={"categorical": {"classes": 2}})}
    )
    shapes = {"x": data.shape, "label": ()}
    pair = ip.make_pair(partition, shapes, networks={"conv1d": {"width": 8, "hidden": 16}})
    ip.fit(pair, data, steps=2, batch_size=4, device="cpu", progress=False)
    assert encodings(pair, data)["z"].shape == (20, 2)


@pytest.mark.parametrize(
    ("signals", "factors", "message"),
    [
        ([1, 2], {}, "mine: signals must be a tensor [signals, channels, length]; got list"),
        (torch.zeros(3, 4), {}, "got [3, 4]; signals of one channel need signals.unsqueeze(1)"),
        (torch.zeros(0, 1, 4), {}, "mine: signals must have the shape [signals, channels, length], none of them 0"),
        (torch.zeros(3, 1, 4, dtype=torch.int16), {}, "must be uint8 in 0..255 or floats in [0, 1]; got torch.int16"),
        (torch.full((3, 1, 4), -0.5), {}, "must lie in [0, 1]; got -0.5 to -0.5; audio in [-1, 1] becomes (signals + 1) / 2"),
        (torch.full((3, 1, 4), math.nan), {}, "must lie in [0, 1]; got nan to nan"),
        (torch.zeros(3, 1, 4), {"label": [1, 2, 3]}, "mine: factor 'label' must be a tensor; got list"),
        (torch.zeros(3, 1, 4), {"label": torch.zeros(2)}, "must have one entry for each of the 3 signals; got the shape [2]"),
        (torch.zeros(3, 1, 4), {"label": torch.zeros(3, device="meta")}, "factor 'label' is on meta and the signals are on cpu"),
    ],
)  # fmt: skip
def test_sets_that_cannot_be_are_refused(signals: object, factors: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        SignalData(signals, factors, name="mine")  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([3], "mine: index 3 is outside 0..2"),
        ([-1], "mine: index -1 is outside 0..2"),
        ([0.5], "mine: indices must be a list or tensor [batch] of integers; got torch.float32"),
        (torch.tensor([True, False, True]), "for a mask write mask.nonzero().squeeze(1)"),
    ],
)
def test_indices_that_cannot_be_are_refused(indices: list, message: str) -> None:
    with pytest.raises(DataError) as caught:
        SignalData(torch.zeros(3, 1, 4), name="mine").batch(indices)
    assert message in str(caught.value)


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(DataError, match="none of them 0"):
        SignalData(torch.zeros(3, 1, 4)).subset([])
