"""`amplitude_flatten` and `amplitude_swap`: another amplitude spectrum, so that texture goes and phases stay.

Where things are in an image is mostly in its phases (Oppenheim and Lim, "The importance of phase in signals", 1981), and
these two leave them alone. A frequency that a sample does not have has no phase, and stays absent.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from infoplace.errors import DataError, DeclarationError
from infoplace.transforms import draw_uniform
from torch import Tensor

from infoplace_spectral.base import SpatialTransform
from infoplace_spectral.spectrum import directions, from_spectrum, radial_frequency, to_spectrum

__all__ = ["AmplitudeFlatten", "AmplitudeSwap"]


class AmplitudeFlatten(SpatialTransform):
    """Gives every sample amplitudes in proportion to `f ** -alpha` at the frequency `f`: texture goes, phases stay.

    Each channel keeps its mean and its variance, and so the sum of its squared amplitudes (Parseval); how that is spread over
    the frequencies is the same for all samples afterwards. ``alpha=1`` is about what natural images have (Field, "Relations
    between the statistics of natural images and the response properties of cortical cells", 1987), ``alpha=0`` a flat
    spectrum, as white noise has: edges stay, and surfaces go. Each sample is changed on its own; `fit` shrinks it afterwards
    where needed.

    Raises:
        DeclarationError: `alpha` is not from 0 to 4.

    >>> x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 4 + 0.375
    >>> y = AmplitudeFlatten(alpha=0.0)(x)
    >>> torch.allclose(x.std((2, 3)), y.std((2, 3)))
    True
    """

    alpha: float = 1.0

    destroys = "texture"
    stochastic = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("alpha", 0, 4)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape.

        Raises:
            DeclarationError: samples of a single frequency beside the mean, which nothing would change.
        """
        shape = super().output_shape(shape)
        if len(radial_frequency(shape[-self.dims :]).unique()) < 3:
            raise DeclarationError(
                f"{self.label} takes samples of at least two frequencies beside the mean; got shape {shape}, which has "
                "one; give samples of at least 4 values along a side"
            )
        return shape

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        sides, spatial = tuple(x.shape[-self.dims :]), tuple(range(-self.dims, 0))
        frequency = radial_frequency(sides)
        amplitude = torch.where(frequency > 0, frequency, torch.inf).pow(-self.alpha).to(x.device)
        amplitude[(0,) * self.dims] = 0

        def flattened(values: Tensor) -> Tensor:
            mean = values.mean(spatial, keepdim=True)
            # Without the mean, faint coefficients stand out from the rounding errors of large ones.
            deviation = values - mean
            texture = from_spectrum(
                directions(to_spectrum(deviation, self.dims), self.dims) * amplitude.to(values), sides
            )
            # A flat channel has neither, and any scale of its texture, which is 0, will do.
            least = torch.finfo(values.dtype).tiny
            power = deviation.square().sum(spatial, keepdim=True).clamp(min=least)
            scale = (power / texture.square().sum(spatial, keepdim=True).clamp(min=least)).sqrt()
            return mean + scale * texture

        return self.in_range(x, flattened)


class AmplitudeSwap(SpatialTransform):
    """Gives every sample the amplitudes of another sample of its batch, the mean among them: texture and colour go.

    **Samples see each other**, as in no other transform, which :attr:`mixes_samples` says: what a sample becomes depends
    on which others are in its batch. So a result cannot be computed again from the sample and the seed alone; a batch of one
    is refused; and blocks that model the result have to model the texture of an image that the data term knows nothing of.
    `amplitude_flatten` destroys texture too, and treats each sample on its own; take that one unless the mean colour has to
    go as well, or results have to look like data.

    Who gives amplitudes to whom is drawn freshly for every batch: the samples are put in a random circle, and each takes
    those of the next. No sample keeps its own, and all others are equally likely. Channels take those of the same channel.
    Swapping all amplitudes is what Chen et al., "Amplitude-phase recombination" (2021), do to train with.

    Raises:
        DataError: from the call, a batch of one sample.

    >>> x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 4 + torch.tensor([0.2, 0.5]).view(2, 1, 1, 1)
    >>> y = AmplitudeSwap(fit="clip")(x)
    >>> torch.allclose(y.mean((1, 2, 3)), x.mean((1, 2, 3)).flip(0))
    True
    """

    destroys = "texture, mean colour"
    stochastic = True

    mixes_samples: ClassVar[bool] = True
    """That what becomes of a sample depends on the others of its batch."""

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if len(x) < 2:
            raise DataError(
                f"{self.label} takes a batch of at least 2 samples, which swap amplitudes; got 1; give more at once, or "
                "use amplitude_flatten, which treats each sample on its own"
            )
        circle = draw_uniform((len(x),), x, generator).argsort()
        giver = torch.empty_like(circle)
        giver[circle] = circle.roll(-1)
        sides = tuple(x.shape[-self.dims :])
        mean = (radial_frequency(sides) == 0).to(x.device)

        def swapped(values: Tensor) -> Tensor:
            coefficients = to_spectrum(values, self.dims)
            # A black sample has no direction at frequency 0, and takes a mean all the same.
            direction = torch.where(mean, 1, directions(coefficients, self.dims))
            return from_spectrum(direction * coefficients[giver].abs(), sides)

        return self.in_range(x, swapped)
