"""Short synthetic melodies of which every factor is known: the order of the notes, the timbre, the key."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch
from infoplace.errors import DataError, UnknownNameError, did_you_mean, is_whole, join_names
from numpy.typing import NDArray

from infoplace_signals.data import SignalData

__all__ = ["KEYS", "NOTES", "ORDERS", "SAMPLE_RATE", "TIMBRES", "Timbre", "melodies"]

SAMPLE_RATE = 4096
"""Samples a second."""

NOTES = (0, 4, 7, 12)
"""The four notes of every melody, in semitones above its key: a broken major chord."""

ORDERS = tuple(itertools.permutations(range(len(NOTES))))
"""The 24 melodies: which of :data:`NOTES` comes first, second, third and fourth."""

KEYS = 3
"""How many keys there are, a semitone apart: too few for a note of one key to be another note of the next."""

_LOWEST = 262.0
"""The lowest note, in hertz: about C4."""

_SPLITS = ("train", "validation", "test")

_RENDERED_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class Timbre:
    """What an instrument sounds like: its harmonics, and how a note begins and fades.

    Args:
        name: what it is called.
        harmonics: the amplitudes of the fundamental and its multiples; only their proportions count.
        attack: seconds until a note is at its loudest.
        decay: seconds until it has fallen to 1/e of that.

    >>> TIMBRES[0].name
    'flute'
    """

    name: str
    harmonics: tuple[float, ...]
    attack: float
    decay: float


TIMBRES = (
    Timbre("flute", (1.0, 0.1), attack=0.03, decay=10.0),
    Timbre("clarinet", (1.0, 0.0, 0.5, 0.0, 0.35), attack=0.004, decay=10.0),
    Timbre("piano", (1.0, 0.7, 0.5, 0.35, 0.25), attack=0.002, decay=0.06),
    Timbre("viola", (1.0, 0.2, 0.1, 0.8, 0.6), attack=0.02, decay=0.1),
)
"""The four timbres, each only loosely like its name."""

_HARMONICS = np.array([(*timbre.harmonics, *[0.0] * (5 - len(timbre.harmonics))) for timbre in TIMBRES])


def melodies(
    size: int = 8000, seed: int = 0, *, split: str = "train", note_samples: int = 512, noise: float = 0.001
) -> SignalData:
    """Draw melodies of four notes.

    Every melody has the same four notes, a broken chord in its key, once each; the melodies differ in their order alone.
    So what is left of a melody when its notes are shuffled is its key and its timbre, and nothing of the order. Every note is
    a sum of up to five harmonics, each beginning at a phase of its own, under an envelope; a melody is more or less loud.

    The same arguments give the same bytes. The splits of one seed share no random numbers.

    Args:
        size: how many there are.
        seed: which draw of the set, at least 0.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        note_samples: samples in a note, an even number of at least 64; a melody is four times as long, at
            :data:`SAMPLE_RATE` samples a second.
        noise: standard deviation of white noise, where the range is 1.

    Returns:
        Signals `[size, 1, 4 * note_samples]`, bytes about 127.5, with these factors, `[size]`: integers ``melody`` (an index
        into :data:`ORDERS`), ``timbre`` (into :data:`TIMBRES`) and ``key`` (0..2, semitones above 262 Hz); a float
        ``loudness`` (the peak of a note with one harmonic, where the range is 1).

    Raises:
        DataError: a size, a seed, a number of samples or a noise that cannot be.
        UnknownNameError: no such split.

    >>> data = melodies(3, seed=1, split="test")
    >>> data
    SignalData('melodies', split='test', signals=3, shape=(1, 2048), factors: melody, timbre, key, loudness, device='cpu')
    >>> [int(data.factors[name].max()) < count for name, count in (("melody", 24), ("timbre", 4), ("key", KEYS))]
    [True, True, True]
    """
    _check(size, seed, split, note_samples, noise)
    draw = np.random.default_rng([_SPLITS.index(split), seed])
    melody, timbre, key = (draw.integers(count, size=size) for count in (len(ORDERS), len(TIMBRES), KEYS))
    loudness = draw.uniform(0.22, 0.28, size)
    parts = []
    for start in range(0, size, _RENDERED_AT_ONCE):
        rows = slice(start, start + _RENDERED_AT_ONCE)
        waves = loudness[rows, None] * _waves(melody[rows], timbre[rows], key[rows], note_samples, draw)
        waves += noise * draw.standard_normal(waves.shape)
        parts.append(np.clip(np.rint(255 * (0.5 + waves)), 0, 255).astype(np.uint8))
    factors = {"melody": melody, "timbre": timbre, "key": key, "loudness": loudness.astype(np.float32)}
    return SignalData(
        torch.from_numpy(np.concatenate(parts)[:, None]),
        {name: torch.from_numpy(values) for name, values in factors.items()},
        name="melodies",
        split=split,
    )


def _waves(
    melody: NDArray[np.int64],
    timbre: NDArray[np.int64],
    key: NDArray[np.int64],
    samples: int,
    draw: np.random.Generator,
) -> NDArray[np.float64]:
    """`[melodies, 4 * samples]` about 0."""
    semitones = np.array(NOTES)[np.array(ORDERS)[melody]] + key[:, None]
    fundamental = _LOWEST * 2.0 ** (semitones / 12)
    time = np.arange(samples) / SAMPLE_RATE
    amplitudes = _HARMONICS / np.sqrt(np.square(_HARMONICS).sum(1, keepdims=True))
    waves = np.zeros((*fundamental.shape, samples))
    for index in range(amplitudes.shape[1]):
        frequency = (index + 1) * fundamental
        # What is too high for the sampling rate would come back as another frequency.
        amplitude = np.where(frequency < SAMPLE_RATE / 2, amplitudes[timbre, index][:, None], 0.0)
        phase = draw.uniform(0, 2 * np.pi, frequency.shape)
        waves += amplitude[..., None] * np.sin(2 * np.pi * frequency[..., None] * time + phase[..., None])
    envelopes = np.stack([np.minimum(1, time / timbre.attack) * np.exp(-time / timbre.decay) for timbre in TIMBRES])
    release = np.minimum(1, (samples - np.arange(samples)) / (samples / 16))
    waves *= (envelopes * release)[timbre][:, None]
    return waves.reshape(len(waves), -1)


def _check(size: int, seed: int, split: str, note_samples: int, noise: float) -> None:
    for name, value, least in (("size", size, 1), ("seed", seed, 0), ("note_samples", note_samples, 64)):
        if not is_whole(value) or value < least:
            raise DataError(f"melodies: {name} must be a whole number of at least {least}; got {value!r}")
    if note_samples % 2:
        raise DataError(f"melodies: note_samples must be an even number; got {note_samples}")
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise <= 1:
        raise DataError(f"melodies: noise must be a number from 0 to 1; got {noise!r}")
    if split not in _SPLITS:
        raise UnknownNameError(
            f"melodies: no split {split!r}.{did_you_mean(str(split), _SPLITS)} Available: {join_names(_SPLITS)}"
        )
