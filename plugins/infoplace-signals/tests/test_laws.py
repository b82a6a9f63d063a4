"""The laws that every transform of infoplace keeps, run on those of this package."""

from __future__ import annotations

from typing import Any, ClassVar

from infoplace.testing import TransformLaws

import infoplace_signals  # noqa: F401 - registers the names, where the package is not installed


class TestTransformsOfSignals(TransformLaws):
    shape = (2, 256)
    specs: ClassVar[list[Any]] = [
        {"segment_shuffle": {"n": 32}},
        {"segment_shuffle": {"n": 32, "fade": 8}},
        "time_reverse",
        {"tempo_shift": {"factor": 2.0, "window": 64}},
        {"pitch_shift": {"semitones": 7.0, "window": 64}},
        "band_shuffle",
        {"band_shuffle": {"bands": 4, "what": "energies"}},
        {"envelope_removal": {"window": 33}},
        {"log_spectrogram": {"window": 64, "hop": 32}},
    ]
