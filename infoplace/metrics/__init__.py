"""Numbers that say where information went.

- The swap test (:func:`swap`): change one block, decode, and read every factor off the image.
- Scores: :func:`accuracy`, :func:`squared_correlation`, :func:`partial_squared_correlation`, and what they are compared
  with, :func:`chance` and :func:`normalised`.

Nothing here knows how the latents were made: blocks are named tensors, decoders and priors are callables.
"""

from infoplace.metrics.scores import (
    accuracy,
    chance,
    normalised,
    partial_squared_correlation,
    squared_correlation,
)
from infoplace.metrics.swapping import CHANGES, Decode, DrawPrior, ReadsFactor, SwapTable, swap

__all__ = [
    "CHANGES",
    "Decode",
    "DrawPrior",
    "ReadsFactor",
    "SwapTable",
    "accuracy",
    "chance",
    "normalised",
    "partial_squared_correlation",
    "squared_correlation",
    "swap",
]
