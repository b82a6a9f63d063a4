"""Transforms for infoplace that destroy phases, frequencies, amplitudes or the layout of wavelet coefficients.

Each works on series, images and volumes. Installed, they are known to infoplace by name; see the README for one example
of each.
"""

from infoplace_spectral.amplitude import AmplitudeFlatten, AmplitudeSwap
from infoplace_spectral.base import SpatialTransform, fit_range
from infoplace_spectral.filters import BandStop, HighPass, LowPass, RadialFilter
from infoplace_spectral.phase import PhaseScramble
from infoplace_spectral.spectrum import amplitude_spectrum, radial_frequency
from infoplace_spectral.wavelet import WaveletShuffle, haar, inverse_haar

__version__ = "0.1.0"

__all__ = [
    "AmplitudeFlatten",
    "AmplitudeSwap",
    "BandStop",
    "HighPass",
    "LowPass",
    "PhaseScramble",
    "RadialFilter",
    "SpatialTransform",
    "WaveletShuffle",
    "amplitude_spectrum",
    "fit_range",
    "haar",
    "inverse_haar",
    "radial_frequency",
]
