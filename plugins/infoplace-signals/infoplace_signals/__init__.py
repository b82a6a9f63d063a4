"""Signals for infoplace: what destroys a melody, a pitch or a tempo, networks of one dimension, and melodies to try them on.

A signal is `[channels, length]`, floats in [0, 1] or uint8 in 0..255. Once the package is installed, infoplace finds its
transforms and networks by name:

- transforms: ``segment_shuffle``, ``time_reverse``, ``tempo_shift``, ``pitch_shift``, ``band_shuffle``, ``envelope_removal``
  and ``log_spectrogram``;
- networks: ``conv1d``.

:func:`melodies` draws data of which every factor is known; :class:`SignalData` holds signals of your own.
"""

from infoplace_signals.base import SignalTransform
from infoplace_signals.data import SignalData
from infoplace_signals.melodies import KEYS, NOTES, ORDERS, SAMPLE_RATE, TIMBRES, Timbre, melodies
from infoplace_signals.networks import Conv1d
from infoplace_signals.transforms import (
    BandShuffle,
    EnvelopeRemoval,
    LogSpectrogram,
    PitchShift,
    SegmentShuffle,
    TempoShift,
    TimeReverse,
)

__version__ = "0.1.0"

__all__ = [
    "KEYS",
    "NOTES",
    "ORDERS",
    "SAMPLE_RATE",
    "TIMBRES",
    "BandShuffle",
    "Conv1d",
    "EnvelopeRemoval",
    "LogSpectrogram",
    "PitchShift",
    "SegmentShuffle",
    "SignalData",
    "SignalTransform",
    "TempoShift",
    "Timbre",
    "TimeReverse",
    "melodies",
]
