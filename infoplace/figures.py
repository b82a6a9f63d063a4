"""The pictures of a run: what :mod:`infoplace.plots` draws, of a pair and some images."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infoplace import plots
from infoplace.errors import DataError
from infoplace.files import make_folder
from infoplace.pair import Pair, evaluating

__all__ = ["decoder_of", "draw_figures", "image_observation"]


def image_observation(pair: Pair) -> str:
    """The pair's first given observation that is an image, `[channels, height, width]`.

    Raises:
        DataError: there is none, so there is no picture to draw.
    """
    for name, observation in pair.partition.observations.items():
        if not observation.derived and len(pair.shapes[name]) == 3 and pair.shapes[name][0] in (1, 3):
            return name
    raise DataError(
        f"this pair generates no grey or colour images (its shapes: {pair.shapes}), so there is none to draw"
    )


def decoder_of(pair: Pair, name: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """``{block: [n, dim]}`` to the mean images of an observation, `[n, channels, height, width]` in [0, 1]."""

    @torch.no_grad()
    def decode(latents: dict[str, Tensor]) -> Tensor:
        return pair.decode(latents, name).mean.clamp(0, 1)

    return decode


@torch.no_grad()
def draw_figures(pair: Pair, data: Any, out: str | Path, seed: int = 0, log: str | Path | None = None) -> list[Path]:
    """Draw a pair's pictures into a folder.

    ``figure1b.png`` (data, transformed data, both reconstructions), ``figure2.png`` (for every block, that block drawn a
    hundred times and the others once), ``mixtures.png`` (the first block of one image with the others of another) and
    ``loss.png``.

    Args:
        pair: the pair.
        data: an ``infoplace.data.ImageData`` of at least ten images; images that were not trained on.
        out: the folder.
        seed: of the transforms and the draws.
        log: the run's ``metrics.csv``; without it there is no ``loss.png``.

    Returns:
        The files.

    Raises:
        DataError: the pair generates no images, or there are too few.
    """
    if len(data) < 10:
        raise DataError(f"the pictures show ten images, and {data.name} {data.split} holds {len(data)}")
    shown = image_observation(pair)
    with evaluating(pair):
        return _draw(pair, data, shown, Path(out), seed, log)


def _draw(pair: Pair, data: Any, shown: str, folder: Path, seed: int, log: str | Path | None) -> list[Path]:
    generator = torch.Generator().manual_seed(seed)
    decode = decoder_of(pair, shown)
    source = pair.partition.observations[shown].source
    factors = {name: data.factors[name][:10] for name in pair.partition.sources if name in data.factors}
    batch = {**factors, str(source): data.batch(torch.arange(10))}
    observations = pair.partition.observe({name: value.to(pair.device) for name, value in batch.items()}, generator)
    reconstruction = pair.reconstruct(observations)
    make_folder(folder)
    written: list[Path] = []

    for name, observation in pair.partition.observations.items():
        if observation.derived and pair.shapes[name] == pair.shapes[shown]:
            pictures = (observations[shown], observations[name], reconstruction[shown], reconstruction[name])
            figure = plots.figure1b(*(picture.cpu().clamp(0, 1) for picture in pictures))
            file = "figure1b.png" if not written else f"figure1b_{name}.png"
            alt = f"Ten images of {data.name}, their transforms {name}, and the reconstructions of both"
            written.append(plots.save(figure, folder / file, alt=alt))

    blocks = list(pair.partition.observations[shown].blocks or ())
    if len(blocks) > 1:
        grids = {}
        for block in blocks:
            others = [other for other in blocks if other != block]
            images = plots.latent_variation(decode, pair.sample_prior, fixed=others, varied=block, generator=generator)
            grids[f"{block} varied, {' and '.join(others)} fixed"] = images.cpu()
        alt = "Grids of a hundred generated images; in each one block varies and the others are fixed"
        written.append(plots.save(plots.variation_grids(grids), folder / "figure2.png", alt=alt))

        means = {name: posterior.mean for name, posterior in pair.encode(observations).items()}
        rows = {name: means[name][5:10] for name in blocks[1:]}
        mixtures = plots.cross_decode(decode, {blocks[0]: means[blocks[0]][:5]}, rows)
        images = observations[shown].cpu()
        label = " and ".join(blocks[1:])
        figure = plots.swap_grid(images[:5], images[5:10], mixtures.cpu(), columns=blocks[0], rows=label)
        alt = f"Mixtures of images: {blocks[0]} from the top row, {label} from the left column"
        written.append(plots.save(figure, folder / "mixtures.png", alt=alt))

    if log is not None and Path(log).is_file():
        with Path(log).open(newline="", encoding="utf-8") as file_:
            history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file_)]
        if history:
            rows_ = [{key: row[key] for key in row if key not in ("learning_rate", "seconds")} for row in history]
            alt = "Each named term of the objective over the training steps"
            written.append(plots.save(plots.loss_curves(rows_), folder / "loss.png", alt=alt))
    return written
