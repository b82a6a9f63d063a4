"""The phase vocoder, and reading a signal between its samples: for a batch in which every signal has a speed of its own.

The phase vocoder takes the short-time spectrum of a signal, moves on through its frames at another speed, and lets the
phase of every peak of the spectrum grow as fast as the signal's own: the pace changes, the frequencies stay (Flanagan and
Golden, "Phase vocoder", 1966). The frequencies around a peak keep their phases to it, so that a peak stays one sine and an
onset one onset: the identity phase locking of Laroche and Dolson, "Improved phase vocoder time-scale modification of
audio", 1999, section III-B. Stretched and then read faster or slower, a signal changes its pitch and keeps its pace.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["OVERLAP", "read_between", "stretch"]

OVERLAP = 4
"""How many windows cover every sample: neighbours are a quarter of a window apart."""

_TAPS = 16
"""How many samples around a position are weighed for the value there."""


def stretch(
    signals: Tensor, speed: Tensor, start: Tensor, length: int, window: int, highest: Tensor | None = None
) -> Tensor:
    """Signals at another pace and their own frequencies.

    What is read beyond a signal's end is its last frame, held.

    Args:
        signals: `[batch, channels, time]`, floats; best without their mean, which the lowest frequencies would pick up.
        speed: `[batch]`, above 0: 2 is twice as fast.
        start: `[batch]`, the sample that the result begins with, from 0.
        length: how long the result is, in samples.
        window: samples in a frame, a multiple of :data:`OVERLAP`.
        highest: `[batch]`, frequencies from which on nothing is kept, as a share of the highest there is; None keeps all.

    Returns:
        `[batch, channels, length]`. At speed 1 from the start it is the signal itself.

    >>> wave = torch.sin(torch.arange(512) * 2 * math.pi / 16).view(1, 1, -1)
    >>> slower = stretch(wave, torch.tensor([0.5]), torch.tensor([0.0]), 1024, window=128)
    >>> int(torch.fft.rfft(slower).abs().argmax()) == 1024 // 16
    True
    """
    count, channels, time = signals.shape
    hop = window // OVERLAP
    hann = torch.hann_window(window, dtype=signals.dtype, device=signals.device)
    spectrum = torch.stft(
        signals.reshape(-1, time), window, hop, window=hann, center=True, pad_mode="reflect", return_complex=True
    )
    if highest is not None:
        share = torch.linspace(0, 1, spectrum.shape[1], device=signals.device, dtype=torch.float64)
        kept = (share < highest[:, None]) | (highest[:, None] >= 1)
        spectrum = spectrum * kept.repeat_interleave(channels, 0)[:, :, None]
    frames, last = length // hop + 1, spectrum.shape[2] - 1
    steps = torch.arange(frames, device=signals.device, dtype=torch.float64)
    speed, start = (each.double().repeat_interleave(channels)[:, None] for each in (speed, start))
    place = (start / hop + speed * steps).clamp(max=last)
    before = place.floor().clamp(max=last - 1).long()
    after = (place - before)[:, None].to(signals.dtype)
    size, angle = spectrum.abs(), spectrum.angle().double()
    size = (1 - after) * _at(size, before) + after * _at(size, before + 1)
    # From one frame of the result to the next, as from a frame to the next in the middle between their places.
    between = (place + (speed - 1) / 2).floor().clamp(0, last - 1).long()
    moved = _moved(_at(angle, between), _at(angle, between + 1))
    peak, angle = _nearest_peak(size.detach()), _at(angle, place.round().long())
    apart = angle - angle.gather(1, peak)
    phase = angle[..., 0]
    phases = [phase]
    for step in range(1, frames):
        phase = (phase + moved[..., step - 1]).gather(1, peak[..., step]) + apart[..., step]
        phases.append(phase)
    turned = torch.stack(phases, dim=2).remainder(2 * math.pi).to(signals.dtype)
    result = torch.istft(torch.polar(size, turned), window, hop, window=hann, center=True, length=length)
    return result.view(count, channels, length)


def _at(values: Tensor, frame: Tensor) -> Tensor:
    """The frames `[batch, frames]` of `[batch, frequencies, time]`."""
    return values.gather(2, frame[:, None].expand(-1, values.shape[1], -1))


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """How far the phase of every frequency moves over a quarter of a window, for angles `[batch, frequencies, frames]`.

    Whole turns are not to be seen in the angles; they are those that the middle of the frequency's bin would make.
    """
    bins = torch.arange(before.shape[1], device=before.device, dtype=before.dtype)[:, None]
    nominal = bins * (2 * math.pi / OVERLAP)
    rest = after - before - nominal
    return nominal + rest - 2 * math.pi * (rest / (2 * math.pi)).round()


def _nearest_peak(size: Tensor) -> Tensor:
    """For each frequency of `[batch, frequencies, frames]` the nearest that is louder than its two neighbours either side.

    In a frame without any, such as silence, each is its own.
    """
    count = size.shape[1]
    highest = F.max_pool1d(size.mT.flatten(0, 1)[:, None], 5, stride=1, padding=2)[:, 0]
    loud = highest.view(size.shape[0], size.shape[2], count).mT
    bins = torch.arange(count, device=size.device)[:, None].expand(size.shape)
    peaks = (size == loud) & (size > 0)
    below = torch.where(peaks, bins, -count).cummax(1).values
    above = torch.where(peaks, bins, 2 * count).flip(1).cummin(1).values.flip(1)
    nearest = torch.where(bins - below <= above - bins, below, above)
    return torch.where(peaks.any(1, keepdim=True), nearest, bins)


def read_between(signals: Tensor, places: Tensor) -> Tensor:
    """The values of signals between their samples, by a windowed sinc.

    The weights of the 16 samples around a place are ``sinc(d) cos(pi d / 16)^2`` of their distances ``d`` in samples; at a
    sample itself this is the sample. Beyond the ends the first and the last sample are repeated.

    Args:
        signals: `[batch, channels, time]`, floats, with nothing above the highest frequency that the places can show.
        places: `[batch, length]`, in samples from 0.

    Returns:
        `[batch, channels, length]`.

    >>> read_between(torch.tensor([[[0.0, 1.0, 4.0]]]), torch.tensor([[2.0, 1.0]])).round(decimals=4)
    tensor([[[4., 1.]]])
    """
    first = places.floor()
    between = (places - first).to(signals.dtype)
    result = signals.new_zeros(len(signals), signals.shape[1], places.shape[1])
    for tap in range(1 - _TAPS // 2, _TAPS // 2 + 1):
        distance = between - tap
        weight = torch.sinc(distance) * torch.cos(distance * (math.pi / _TAPS)).square()
        index = (first.long() + tap).clamp(0, signals.shape[2] - 1)
        result = result + weight[:, None] * signals.gather(2, index[:, None].expand(result.shape))
    return result
