"""`phase_scramble`: random phases, so that the layout goes and the amplitude spectrum stays."""

from __future__ import annotations

import math

import torch
from infoplace.transforms import draw_uniform
from torch import Tensor

from infoplace_spectral.base import SpatialTransform
from infoplace_spectral.spectrum import from_spectrum, to_spectrum

__all__ = ["PhaseScramble"]


class PhaseScramble(SpatialTransform):
    """Turns the phase of every frequency at random, freshly for every sample: the layout goes, the amplitudes stay.

    To the phase of each frequency a number is added that is uniform over `strength` times a full turn, centred at 0. At
    ``strength=1`` all phases are equally likely: nothing is left of where things were. Below that, `sin(pi s) / (pi s)` of
    each coefficient stays in place on average, with `s` the strength. Opposite frequencies turn oppositely, so values stay
    real; a frequency that is its own opposite has only a sign, which changes with probability `strength / 2`. The mean has
    no phase and stays.

    All channels of a sample turn alike, so the phases between them stay, and with them the colours and how they are
    correlated; `per_channel` draws for each channel on its own. Every amplitude stays as it is but for `fit`: ``"shrink"``
    and ``"shift"`` multiply all of them (without the mean) by one factor a sample, ``"clip"`` changes their proportions.

    That the same random phases, added to several series, keep their cross-spectra is shown by Prichard and Theiler,
    "Generating surrogate data for time series with several simultaneously measured variables" (1994).

    Raises:
        DeclarationError: `strength` is not above 0 and at most 1, or `per_channel` is not true or false.

    >>> from infoplace_spectral import amplitude_spectrum
    >>> x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 4 + 0.375
    >>> y = PhaseScramble()(x, generator=torch.Generator().manual_seed(1))
    >>> torch.allclose(amplitude_spectrum(x), amplitude_spectrum(y), atol=1e-6), torch.allclose(x, y, atol=0.1)
    (True, False)
    """

    strength: float = 1.0
    per_channel: bool = False

    destroys = "layout"
    stochastic = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("strength", 0, 1, positive=True)
        self.check_flag("per_channel")

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        turn = _random_turns(x, self.dims, self.strength, self.per_channel, generator)

        def scrambled(values: Tensor) -> Tensor:
            coefficients = to_spectrum(values, self.dims)
            return from_spectrum(coefficients * turn.to(coefficients.dtype), tuple(x.shape[-self.dims :]))

        return self.in_range(x, scrambled)


def _random_turns(
    x: Tensor, dims: int, strength: float, per_channel: bool, generator: torch.Generator | None
) -> Tensor:
    """Complex numbers of absolute value 1, `[batch, channels or 1s, *sides[:-1], sides[-1] // 2 + 1]`."""
    sides, between = x.shape[-dims:], x.shape[1:-dims]
    channels = between if per_channel else [1] * len(between)
    draws = draw_uniform((len(x), *channels, *sides), x, generator)
    spatial = tuple(range(-dims, 0))
    opposite = draws.flip(spatial).roll([1] * dims, spatial)
    # The difference of two uniform numbers, modulo 1, is uniform; and the opposite frequency has minus it.
    phase = 2 * math.pi * strength * (torch.remainder(draws - opposite + 0.5, 1) - 0.5)
    own = torch.ones(sides, dtype=torch.bool, device=x.device)
    for axis, side in enumerate(sides):
        place = torch.arange(side, device=x.device)
        own &= ((place == 0) | (2 * place == side)).view(-1, *([1] * (dims - 1 - axis)))
    own[(0,) * dims] = False
    phase = torch.where(own & (draws < strength / 2), math.pi, phase)[..., : sides[-1] // 2 + 1]
    return torch.polar(torch.ones_like(phase), phase)
