"""What the transforms of signals share: their shape, checks of their parameters, and computing in floats in [0, 1]."""

from __future__ import annotations

from infoplace import Transform
from infoplace.errors import DeclarationError

__all__ = ["SignalTransform"]


class SignalTransform(Transform):
    """A transform of signals `[channels, length]`: floats in [0, 1], or uint8 in 0..255.

    More dimensions may stand before the channels. What is drawn for a sample holds for all its channels.

    >>> import torch
    >>> class Quieter(SignalTransform):
    ...     "Halves the swing about 1/2."
    ...     destroys = "loudness"
    ...     stochastic = False
    ...     def apply(self, x, generator):
    ...         return self.in_floats(x, lambda signal: signal / 2 + 0.25)
    >>> Quieter()(torch.tensor([[[0.0, 1.0]]]))
    tensor([[[0.2500, 0.7500]]])
    """

    axes = ("channels", "length")

    def check_multiple(self, field: str, low: int, high: int, of: int) -> None:
        """Refuse a parameter that is no multiple of ``of`` from ``low`` to ``high``.

        Raises:
            DeclarationError: it is none.
        """
        self.check_integer(field, low, high)
        if getattr(self, field) % of:
            raise DeclarationError(f"{self.label}: {field} must be a multiple of {of}; got {getattr(self, field)!r}")

    def check_length(self, shape: tuple[int, ...], least: int, why: str) -> None:
        """Refuse a signal shorter than ``least``; ``why`` ends the message, as in ``"window=256"``.

        Raises:
            DeclarationError: it is shorter.
        """
        if shape[-1] < least:
            raise DeclarationError(
                f"{self.label}: a signal of length {shape[-1]} (shape {shape}) is too short for {why}; it takes at least {least}"
            )

    def check_divides(self, field: str, step: int, shape: tuple[int, ...], factor: int = 1) -> None:
        """Refuse a length that ``step``, which is what ``field`` stands for, does not divide.

        Args:
            field: the parameter to name.
            step: what has to divide the length.
            shape: a sample's shape.
            factor: ``step`` is this many times the parameter.

        Raises:
            DeclarationError: it does not divide it; the message names the nearest values that do.
        """
        length = shape[-1]
        if length % step == 0:
            return
        fitting = [value for value in range(1, length // factor + 1) if length % (factor * value) == 0]
        below = [value for value in fitting if factor * value < step][-1:]
        above = [value for value in fitting if factor * value > step][:1]
        nearest = " and ".join(str(value) for value in below + above)
        advice = f"{nearest} would" if nearest else f"cut or pad the signals to a multiple of {step}"
        divided = f"{step} ({factor} times {field})" if factor > 1 else f"{field}={step}"
        raise DeclarationError(
            f"{self.label}: {divided} does not divide the length {length} of a sample of shape {shape}; {advice}"
        )
