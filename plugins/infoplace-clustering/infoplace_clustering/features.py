"""Features of images that nothing was learned for: histograms of oriented gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from infoplace.errors import DataError
from numpy.typing import NDArray

from infoplace_clustering.base import check_input, check_whole, progress_over

__all__ = ["hog_features"]


def hog_features(
    images: Any, *, orientations: int = 9, cell: int = 8, block: int = 2, progress: bool = False
) -> NDArray[np.float32]:
    """Histograms of oriented gradients, normalised block by block.

    Of each pixel the channel with the largest gradient counts. The directions of the gradients, without their signs, are
    counted in every cell; every block of cells is divided by its length, clipped at 0.2, and divided again ("L2-Hys"). Source:
    Dalal and Triggs, "Histograms of oriented gradients for human detection" (2005), whose defaults these are; computed by
    scikit-image.

    Args:
        images: `[N, channels, height, width]`, float in [0, 1] or uint8: a tensor or an array.
        orientations: how many directions are told apart between 0 and 180 degrees.
        cell: the side of a cell in pixels. Pixels beyond the last whole cell are not read.
        block: the side of a block in cells; blocks overlap, one starts at every cell.
        progress: whether to show a progress bar.

    Returns:
        float32 `[N, D]` in [0, 1], with `D = blocks_down * blocks_across * block^2 * orientations`.

    Raises:
        DataError: no images, values outside [0, 1], or images smaller than one block.
        DeclarationError: a setting that cannot mean anything.

    >>> hog_features(np.zeros((2, 3, 32, 32))).shape
    (2, 324)
    """
    orientations = check_whole("orientations", orientations, 1)
    cell, block = check_whole("cell", cell, 1), check_whole("block", block, 1)
    pixels = check_input(images, "images", images_only=True).numpy()
    height, width = pixels.shape[2:]
    if min(height, width) < cell * block:
        raise DataError(
            f"images are {height} x {width} pixels, and a block of {block} x {block} cells of {cell} pixels needs "
            f"{cell * block} x {cell * block}; give larger images, or a smaller cell"
        )
    return np.stack(
        [_histograms(image, orientations, cell, block) for image in progress_over(pixels, "gradients", progress)]
    )


def _histograms(image: NDArray[np.float32], orientations: int, cell: int, block: int) -> NDArray[np.float32]:
    from skimage.feature import hog

    found = hog(image, orientations, (cell, cell), (block, block), "L2-Hys", channel_axis=0)
    return found.astype(np.float32)
