"""The pictures of a report: a run's images as PNG files in data URIs."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

import torch
from torch import Tensor

from infoplace.errors import DataError
from infoplace.figures import MOST_CLUSTERS, class_blocks, cluster_images, decoder_of, image_observation
from infoplace.modes import evaluating
from infoplace.pair import Pair
from infoplace.plots import cross_decode, latent_variation

__all__ = ["Choice", "Mixtures", "Picture", "RunPictures", "choose_images", "draw"]

GAP = 1
LEAD = 3
"""Pixels between images, and further ones between the sources and their mixtures."""

MOST_MIXTURES = 400
MOST_PIXELS = 2_500_000
ROW = 10
VARIED = 64


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Choice:
    """The images that the page shows.

    Attributes:
        batch: ``{source: [n, ...]}``, as a partition observes it.
        names: what each image is called, such as ``"image 3, digit 7"``.
    """

    batch: dict[str, Tensor]
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Mixtures:
    """Every mixture of a few images, with one block of each.

    Attributes:
        blocks: which blocks are mixed.
        count: how many images each block can come from.
        tile: the width and the height of one image.
        sprite: the images above, all mixtures below: where ``n`` is the sum of (number of the i-th block's image) times
            ``count ** i``, the mixture is in column ``n % count`` and row ``n // count``. Left of the rows are the
            images that these take their block from, where there are two blocks.
        grids: where there are more than two blocks, a picture for each: that block from the column's image, the
            others from the row's.
    """

    blocks: tuple[str, ...]
    count: int
    tile: tuple[int, int]
    sprite: Picture
    grids: dict[str, Picture]


@dataclasses.dataclass(frozen=True)
class RunPictures:
    """The pictures of one run.

    Attributes:
        mixtures: for the swap explorer; None where there are too many blocks.
        rows: ``(observation, reconstructed, picture)``, each a row of images.
        variations: ``{block: picture}``, a grid in which that block varies.
        clusters: ``{block: pictures}``, generated images of each of its classes; none where they are not asked for.
    """

    mixtures: Mixtures | None
    rows: tuple[tuple[str, bool, Picture], ...]
    variations: dict[str, Picture]
    clusters: dict[str, tuple[Picture, ...]]


def choose_images(data: Any, pair: Pair, images: int, seed: int) -> Choice:
    """Images of as many classes as there are, in random order.

    Args:
        data: an ``infoplace.data.ImageData``.
        pair: the pair they are for.
        images: how many each block is to be chosen from; as many are taken as there are.
        seed: of the choice.

    Raises:
        DataError: fewer than two images, or images of another shape.
    """
    shown = image_observation(pair)
    if data.shape != pair.shapes[shown]:
        raise DataError(
            f"the run takes images of {list(pair.shapes[shown])}, and {data.name} holds {list(data.shape)}; show images "
            "of that shape with --data"
        )
    if len(data) < 2:
        raise DataError(f"a report mixes at least two images, and {data.name} {data.split} holds {len(data)}")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    classes = next(
        (name for name, values in data.factors.items() if values.ndim == 1 and not values.is_floating_point()), None
    )
    if classes is not None:
        # One of each class comes first, then the second of each, and so on.
        seen: dict[int, int] = {}
        turns = []
        for value in data.factors[classes][order].tolist():
            turns.append(seen.get(value, 0))
            seen[value] = turns[-1] + 1
        order = order[torch.argsort(torch.tensor(turns), stable=True)]
    order = order[: max(images, ROW)]
    names = [f"image {number}" for number in range(1, len(order) + 1)]
    if classes is not None:
        values = data.factors[classes][order].tolist()
        names = [f"{name}, {classes} {value}" for name, value in zip(names, values, strict=True)]
    source = str(pair.partition.observations[shown].source)
    factors = {name: data.factors[name][order] for name in pair.partition.sources if name in data.factors}
    return Choice({**factors, source: data.batch(order)}, tuple(names))


@torch.no_grad()
def draw(pair: Pair, choice: Choice, images: int, seed: int, clusters: bool = False) -> RunPictures:
    """A run's pictures.

    Args:
        pair: the pair.
        choice: the images to show.
        images: how many of them each block is chosen from, or as many as :data:`MOST_MIXTURES` allows.
        seed: of the transforms and of the draws from the priors.
        clusters: whether images of every class of the blocks whose prior draws one are among them.
    """
    shown = image_observation(pair)
    blocks = tuple(pair.partition.observations[shown].blocks or ())
    decode = decoder_of(pair, shown)
    generator = torch.Generator().manual_seed(seed)
    with evaluating(pair):
        batch = {name: value.to(pair.device) for name, value in choice.batch.items()}
        # The choice was made for the first run of the page; another may call its only source by another name.
        alone = len(pair.partition.sources) == 1
        observations = pair.partition.observe(next(iter(batch.values())) if alone else batch, generator)
        means = {name: posterior.mean for name, posterior in pair.encode(observations).items()}
        rows = []
        for name, values in pair.reconstruct(observations).items():
            if len(pair.shapes[name]) == 3 and pair.shapes[name][0] in (1, 3):
                for reconstructed, pictures in ((False, observations[name]), (True, values)):
                    rows.append((name, reconstructed, _grid(_pixels(pictures[:ROW]), columns=ROW)))
        variations = {}
        if len(blocks) > 1:
            for block in blocks:
                others = [other for other in blocks if other != block]
                varied = latent_variation(
                    decode, pair.sample_prior, fixed=others, varied=block, count=VARIED, generator=generator
                )
                variations[block] = _grid(_pixels(varied), columns=round(VARIED**0.5))
        sources = _pixels(observations[shown])
        _, height, width = sources.shape[1:]
        count = _count(min(images, len(sources)), len(blocks), height * width)
        mixtures = None
        if count >= 2:
            chosen = {block: means[block][:count] for block in blocks}
            mixtures = _mixtures(decode, chosen, sources[:count])
        classes = {}
        for block, count_ in class_blocks(pair).items() if clusters else ():
            if block in blocks and count_ <= MOST_CLUSTERS:
                found = cluster_images(pair, shown, block, generator=generator)
                classes[block] = tuple(_grid(_pixels(grid.flatten(0, 1)), columns=grid.shape[1]) for grid in found)
    return RunPictures(mixtures, tuple(rows), variations, classes)


def _count(images: int, blocks: int, pixels: int) -> int:
    """Images for each block, so that there are not too many mixtures, nor too many pixels in them."""
    while images > 1 and images**blocks > MOST_MIXTURES:
        images -= 1
    while images > 2 and images**blocks * pixels > MOST_PIXELS:
        images -= 1
    return images


def _mixtures(decode: Any, means: dict[str, Tensor], sources: Tensor) -> Mixtures:
    blocks, count = tuple(means), len(sources)
    number = torch.arange(count ** len(blocks))
    latents = {block: means[block][number // count**place % count] for place, block in enumerate(blocks)}
    everything = _pixels(decode(latents))
    grids = {}
    if len(blocks) > 2:
        for block in blocks:
            others = {other: means[other] for other in blocks if other != block}
            mixed = _pixels(cross_decode(decode, {block: means[block]}, others))
            grids[block] = _framed(mixed, sources, left=True)
    sprite = _framed(everything, sources, left=len(blocks) == 2)
    height, width = sources.shape[-2:]
    return Mixtures(blocks, count, (width, height), sprite, grids)


def _pixels(images: Tensor) -> Tensor:
    """uint8 ``[N, 3, height, width]`` on the CPU, of images in [0, 1]."""
    return images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().expand(-1, 3, -1, -1)


def _grid(images: Tensor, columns: int) -> Picture:
    rows = -(-len(images) // columns)
    canvas = _canvas(images, min(columns, len(images)), rows)
    _paste(canvas, images, columns, (0, 0))
    return _png(canvas)


def _framed(images: Tensor, sources: Tensor, left: bool) -> Picture:
    """Images in rows, the sources of the columns above them, and perhaps those of the rows at the left."""
    count = len(sources)
    height, width = sources.shape[-2:]
    inside = (width + GAP + LEAD, height + GAP + LEAD)
    canvas = _canvas(images, count, len(images) // count, inside)
    _paste(canvas, sources, count, (inside[0], 0))
    if left:
        _paste(canvas, sources, 1, (0, inside[1]))
    _paste(canvas, images, count, inside)
    return _png(canvas)


def _canvas(images: Tensor, columns: int, rows: int, inside: tuple[int, int] = (0, 0)) -> Tensor:
    """Transparent pixels, `[height, width, 4]`, so that gaps show the page."""
    height, width = images.shape[-2:]
    shape = (inside[1] + rows * (height + GAP) - GAP, inside[0] + columns * (width + GAP) - GAP, 4)
    return torch.zeros(shape, dtype=torch.uint8)


def _paste(canvas: Tensor, images: Tensor, columns: int, at: tuple[int, int]) -> None:
    height, width = images.shape[-2:]
    for index, image in enumerate(images):
        x, y = at[0] + index % columns * (width + GAP), at[1] + index // columns * (height + GAP)
        canvas[y : y + height, x : x + width, :3] = image.permute(1, 2, 0)
        canvas[y : y + height, x : x + width, 3] = 255


def _png(canvas: Tensor) -> Picture:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(canvas.numpy()).save(buffer, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Picture(uri, canvas.shape[1], canvas.shape[0])
