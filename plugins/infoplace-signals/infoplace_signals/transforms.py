"""Transforms of signals: each destroys one thing that a melody, a voice or a sensor's reading is made of.

A signal is `[channels, length]`, floats in [0, 1] or uint8 in 0..255: audio swings about 1/2, other readings lie where they
lie. Every transform draws anew for every sample, treats a sample's channels alike, and gives back the type it was given.

>>> import torch
>>> from infoplace import make_transform
>>> shuffle = make_transform("segment_shuffle", n=256, fade=16)
>>> shuffle(torch.rand(4, 1, 2048), generator=torch.Generator().manual_seed(0)).shape
torch.Size([4, 1, 2048])
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from infoplace import register_transform
from infoplace.errors import DeclarationError, is_whole
from infoplace.transforms import draw_uniform
from torch import Tensor
from torch.nn import functional as F

from infoplace_signals.base import SignalTransform
from infoplace_signals.vocoder import OVERLAP, read_between, stretch

__all__ = [
    "BandShuffle",
    "EnvelopeRemoval",
    "LogSpectrogram",
    "PitchShift",
    "SegmentShuffle",
    "TempoShift",
    "TimeReverse",
]

_MOST_SAMPLES = 2**24
"""The longest segment or window; float32 numbers the samples up to here."""


# ---- time ------------------------------------------------------------------------------------------------------------


@register_transform("segment_shuffle")
class SegmentShuffle(SignalTransform):
    """Permutes segments of `n` samples, freshly for every signal, and blends `fade` samples on either side of a joint.

    Every permutation of a signal's segments is equally likely. What is inside a segment survives; when it comes does not.

    With ``fade=0`` segments are moved as they are, values of any type, and where two of them meet there is a jump, in
    audio a click. With a fade the jump is gone: over ``fade`` samples on either side of a joint, each segment gives way to
    its neighbour by a raised cosine, ``sin(pi u / 2)^2`` with u from 0 to 1, and goes on beyond its own end as its mirror
    image. What follows a segment in the original is not used for it, so that nothing tells where it stood.

    Args:
        n: samples in a segment; it divides the length.
        fade: samples on either side of a joint, at most half a segment.

    >>> import torch
    >>> x = torch.arange(6.0).view(1, 1, 6) / 5
    >>> shuffled = SegmentShuffle(n=2)(x, generator=torch.Generator().manual_seed(1))
    >>> shuffled.sort().values.equal(x)
    True
    """

    n: int = 256
    fade: int = 0

    destroys = "order in time"
    stochastic = True

    def __post_init__(self) -> None:
        self.check_integer("n", 1, _MOST_SAMPLES)
        fade = self.fade
        if not is_whole(fade) or not 0 <= fade <= self.n // 2:
            raise DeclarationError(
                f"{self.label}: fade must be a whole number from 0 (none) to {self.n // 2}, half of n={self.n}; got {fade!r}"
            )

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        self.check_divides("n", self.n, shape)
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        order = draw_uniform((len(x), x.shape[-1] // self.n), x, generator).argsort(1)

        def shuffled(signal: Tensor) -> Tensor:
            segments = signal.reshape(len(signal), -1, order.shape[1], self.n)
            moved = segments.gather(2, order[:, None, :, None].expand(segments.shape))
            return (self._blended(moved) if self.fade else moved).view(signal.shape)

        return self.in_floats(x, shuffled) if self.fade else shuffled(x)

    def _blended(self, segments: Tensor) -> Tensor:
        """`[batch, channels, segments, n]` with every joint faded."""
        fade, u = self.fade, torch.arange(self.fade, dtype=torch.float64) + self.fade + 0.5
        own = (torch.sin(u * (math.pi / 4 / fade)).square()).to(segments)  # from 1/2 at the joint to 1
        heads, tails = segments[:, :, 1:, :fade], segments[:, :, :-1, -fade:]
        blended = segments.clone()
        blended[:, :, 1:, :fade] = own * heads + (1 - own) * tails.flip(-1)
        blended[:, :, :-1, -fade:] = own.flip(-1) * tails + (1 - own.flip(-1)) * heads.flip(-1)
        return blended


@register_transform("time_reverse")
class TimeReverse(SignalTransform):
    """Plays every signal forwards or backwards, each equally likely.

    Backwards alone would be a bijection, and destroy nothing: it is not knowing which that destroys the direction. A signal
    and its mirror image come out alike. Values of any type are moved as they are.

    >>> import torch
    >>> x = torch.tensor([[[0.0, 0.5, 1.0]]]).expand(20, 1, 3)
    >>> len(TimeReverse()(x, generator=torch.Generator().manual_seed(0)).unique(dim=0))
    2
    """

    destroys = "direction of time"
    stochastic = True

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        backwards = draw_uniform((len(x),), x, generator) < 0.5
        return torch.where(backwards.view(-1, *([1] * (x.ndim - 1))), x.flip(-1), x)


class _Vocoded(SignalTransform):
    """What the transforms by the phase vocoder share: a window, and the mean, which is put aside meanwhile."""

    def check_window(self) -> None:
        self.check_multiple("window", 16, _MOST_SAMPLES, OVERLAP)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        window = getattr(self, "window", 0)
        self.check_length(shape, window, f"window={window}")
        return shape

    def vocoded(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """``change`` of the signals, `[batch, channels, length]` without their means."""

        def changed(signal: Tensor) -> Tensor:
            frames = signal.reshape(len(signal), -1, signal.shape[-1])
            mean = frames.mean(-1, keepdim=True)
            return (change(frames - mean) + mean).view(signal.shape)

        return self.in_floats(x, changed)


@register_transform("tempo_shift")
class TempoShift(_Vocoded):
    """Slows every signal down by a random factor from 1 to `factor`, at its own pitch, and keeps a random part of it.

    The factor is uniform in its logarithm. The part is as long as the signal was and begins anywhere; so nothing tells
    the factor, and the tempo is not to be had back. A faster signal would end early, and its end would tell: hence only
    slower ones, of which some end or beginning is lost. Frequencies stay (phase vocoder; onsets are blurred over a window).

    Args:
        factor: the largest factor, above 1 and at most 16.
        window: samples in a frame of the short-time spectrum, a multiple of 4: some periods of the lowest frequency.

    >>> import torch
    >>> TempoShift(window=64)(torch.rand(3, 1, 256)).shape
    torch.Size([3, 1, 256])
    """

    factor: float = 2.0
    window: int = 256

    destroys = "tempo"
    stochastic = True

    def __post_init__(self) -> None:
        self.check_number("factor", 1, 16, positive=True)
        self.check_window()

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        draws = draw_uniform((2, len(x)), x, generator)
        length, speed = x.shape[-1], self.factor ** -draws[0]
        start = draws[1] * length * (1 - speed)
        return self.vocoded(x, lambda signals: stretch(signals, speed, start, length, self.window))


@register_transform("pitch_shift")
class PitchShift(_Vocoded):
    """Multiplies every signal's frequencies by a random factor, up to `semitones` up or down, at its own pace.

    The factor is ``2**(s / 12)`` with s uniform between ``-semitones`` and ``semitones``. All frequencies of a signal move
    together, so its intervals stay, and what stood at which time stays; only the height is gone. The signal is stretched by
    the phase vocoder and read faster or slower. What would rise above the highest frequency there is, is left out, and
    after a shift down nothing is left at the top: of a signal that fills all its spectrum, that edge tells the shift.

    Args:
        semitones: the largest shift either way, above 0 and at most 48; 12 of them double a frequency.
        window: samples in a frame of the short-time spectrum, a multiple of 4: some periods of the lowest frequency.

    >>> import torch
    >>> PitchShift(window=64)(torch.rand(3, 1, 256)).shape
    torch.Size([3, 1, 256])
    """

    semitones: float = 12.0
    window: int = 256

    destroys = "pitch"
    stochastic = True

    def __post_init__(self) -> None:
        self.check_number("semitones", 0, 48, positive=True)
        self.check_window()

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        draws = draw_uniform((len(x),), x, generator)
        factor = 2 ** ((2 * draws - 1) * (self.semitones / 12))
        length, longest = x.shape[-1], math.ceil(x.shape[-1] * 2 ** (self.semitones / 12))
        places = factor[:, None] * torch.arange(length, device=x.device, dtype=torch.float64)

        def shifted(signals: Tensor) -> Tensor:
            from_start = torch.zeros_like(factor)
            stretched = stretch(signals, 1 / factor, from_start, longest, self.window, highest=1 / factor)
            return read_between(stretched, places)

        return self.vocoded(x, shifted)


# ---- frequency and loudness ------------------------------------------------------------------------------------------

_EMPTY = 1e-9
"""A band with less than this share of a signal's energy (90 dB below it) is rounding, and is not amplified."""


@register_transform("band_shuffle")
class BandShuffle(SignalTransform):
    """Permutes what is in `bands` equally wide frequency bands, freshly for every signal: their contents or energies.

    With ``what="contents"`` the bands themselves change places: what swings in one goes on swinging, as loud and as long,
    at another frequency. The rhythm survives; pitch and spectral shape do not. With ``what="energies"`` every band stays
    where it is and takes on the energy of another: pitch survives, the spectral envelope (timbre) does not. Bands 90 dB below
    the whole hold rounding only, and stay empty.

    The bands divide the Fourier spectrum of the whole signal. The mean and the highest frequency stay as they were, and
    values outside [0, 1] are clipped.

    Args:
        bands: how many there are, at least 2; twice as many divide the length.
        what: ``"contents"`` or ``"energies"``.

    >>> import torch
    >>> BandShuffle(bands=4, what="energies").destroys
    'spectral envelope'
    """

    bands: int = 8
    what: str = "contents"

    destroys = "pitch and spectral envelope"
    stochastic = True

    def __post_init__(self) -> None:
        self.check_integer("bands", 2, _MOST_SAMPLES)
        if self.what not in ("contents", "energies"):
            raise DeclarationError(f"{self.label}: what must be 'contents' or 'energies'; got {self.what!r}")
        if self.what == "energies":
            object.__setattr__(self, "destroys", "spectral envelope")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(shape)
        self.check_divides("bands", 2 * self.bands, shape, factor=2)
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        order = draw_uniform((len(x), self.bands), x, generator).argsort(1)

        def changed(signal: Tensor) -> Tensor:
            frames = signal.reshape(len(signal), -1, signal.shape[-1])
            mean = frames.mean(-1, keepdim=True)
            spectrum = torch.fft.rfft(frames - mean)
            split = spectrum[..., :-1].unflatten(-1, (self.bands, -1))
            moved = self._moved(split, order[:, None, :, None])
            # The lowest frequency is the mean, which is put back below.
            low = torch.cat([torch.zeros_like(moved[..., :1]), moved[..., 1:]], dim=-1)
            spectrum = torch.cat([low, spectrum[..., -1:]], dim=-1)
            return (torch.fft.irfft(spectrum, n=signal.shape[-1]) + mean).view(signal.shape)

        return self.in_floats(x, changed)

    def _moved(self, bands: Tensor, order: Tensor) -> Tensor:
        """The spectrum `[batch, channels, length / 2]` after a permutation of `[batch, channels, bands, length / 2 / bands]`."""
        if self.what == "contents":
            return bands.gather(2, order.expand(bands.shape)).flatten(2)
        energy = bands.abs().square().sum(-1, keepdim=True)
        filled = energy > _EMPTY * energy.sum(2, keepdim=True)
        gain = (energy.gather(2, order.expand(energy.shape)) / torch.where(filled, energy, 1.0)).sqrt()
        return (bands * torch.where(filled, gain, 0.0)).flatten(2)


@register_transform("envelope_removal")
class EnvelopeRemoval(SignalTransform):
    """Divides every channel by its own loudness around each sample, so that it swings evenly from beginning to end.

    With ``d = x - mean``, the loudness is the root of the mean of ``d^2`` over the ``window`` samples around (fewer at the
    ends), and what comes out is ``1/2 + level * d / sqrt(loudness^2 + floor^2)``. Attack, decay, accents and the overall
    loudness are gone, and so are the mean and how loud the channels are to each other. What is much quieter than the floor
    stays quiet. Values outside [0, 1] are clipped.

    Args:
        window: samples that the loudness is taken over, at least 2 (an even number counts as the next odd one): a period of
            the lowest frequency or more, or the waveform itself is flattened.
        level: the swing that is left, a standard deviation in units of the range, above 0 and at most 1/2.
        floor: the swing that counts as silence, in units of the range, above 0 and at most 1/2.

    >>> import torch
    >>> quiet, loud = (0.5 + swing * torch.sin(torch.arange(512.0) / 2).view(1, 1, -1) for swing in (0.1, 0.4))
    >>> bool((EnvelopeRemoval()(quiet) - EnvelopeRemoval()(loud)).abs().max() < 0.01)
    True
    """

    window: int = 256
    level: float = 0.15
    floor: float = 0.01

    destroys = "amplitude envelope"
    stochastic = False

    def __post_init__(self) -> None:
        self.check_integer("window", 2, _MOST_SAMPLES)
        self.check_number("level", 0, 0.5, positive=True)
        self.check_number("floor", 0, 0.5, positive=True)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        length, half = x.shape[-1], self.window // 2
        sample = torch.arange(length, device=x.device)
        begin, end = (sample - half).clamp(min=0), (sample + half + 1).clamp(max=length)

        def even(signal: Tensor) -> Tensor:
            swing = signal - signal.mean(-1, keepdim=True)
            sums = F.pad(swing.double().square().cumsum(-1), (1, 0))
            power = ((sums[..., end] - sums[..., begin]) / (end - begin)).clamp(min=0)
            return 0.5 + self.level * swing / (power + self.floor**2).sqrt().to(swing)

        return self.in_floats(x, even)


@register_transform("log_spectrogram")
class LogSpectrogram(SignalTransform):
    """How loud each frequency is at each time, in decibels: `[channels, length]` to `[channels * window / 2, length / hop]`.

    The result is again a signal, `[frequencies, time]` in [0, 1]: 1 is a sine that swings over the whole range, and 0 is
    ``decibels`` below that and less. The frequencies of a channel stand together, from the first above 0 to the highest.
    Frames are Hann windows, ``hop`` samples apart, the first about the middle of the first ``hop`` samples; the signal is
    mirrored at its ends. Where the phase of a sound is arbitrary, a likelihood of its samples one by one learns next to
    nothing of it; of this it does.

    Args:
        window: samples in a frame, an even number of at least 8.
        hop: samples between two frames, an even number that divides the length, at most the window.
        decibels: the range, above 0 and at most 200.

    >>> import torch
    >>> LogSpectrogram(window=128, hop=64).output_shape((1, 2048))
    (64, 32)
    """

    window: int = 128
    hop: int = 64
    decibels: float = 60.0

    destroys = "phase"
    stochastic = False

    def __post_init__(self) -> None:
        self.check_multiple("window", 8, _MOST_SAMPLES, 2)
        self.check_multiple("hop", 2, self.window, 2)
        self.check_number("decibels", 0, 200, positive=True)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        *leading, channels, length = super().output_shape(shape)
        self.check_divides("hop", self.hop, shape)
        self.check_length(shape, self.window, f"window={self.window}")
        return (*leading, channels * (self.window // 2), length // self.hop)

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        def levels(signal: Tensor) -> Tensor:
            frames = signal.reshape(-1, 1, signal.shape[-1])
            frames = frames - frames.mean(-1, keepdim=True)
            side = (self.window - self.hop) // 2
            cut = F.pad(frames, (side, side), mode="reflect").squeeze(1).unfold(-1, self.window, self.hop)
            hann = torch.hann_window(self.window, dtype=cut.dtype, device=cut.device)
            # A sine of amplitude 1/2 has half the window's sum, times its amplitude, in its own frequency.
            size = torch.fft.rfft(cut * hann)[..., 1:].abs() / (hann.sum() / 4)
            decibels = 20 * size.clamp(min=1e-12).log10()
            shape = (len(signal), *self.output_shape(tuple(signal.shape[1:])))
            return (1 + decibels / self.decibels).mT.reshape(shape)

        return self.in_floats(x, levels)
