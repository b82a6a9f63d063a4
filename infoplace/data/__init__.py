"""Where data comes from: rendered street numbers with every factor known, and real sets in their usual formats."""

from __future__ import annotations

from infoplace.data.images import ImageData
from infoplace.data.rendering import STREET_NUMBER_PRESETS, TYPEFACES, StreetNumbers, luminance, street_numbers
from infoplace.data.sources import DATA_SETS, load

__all__ = [
    "DATA_SETS",
    "STREET_NUMBER_PRESETS",
    "TYPEFACES",
    "ImageData",
    "StreetNumbers",
    "load",
    "luminance",
    "street_numbers",
]
