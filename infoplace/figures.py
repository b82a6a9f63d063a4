"""The pictures of a run: what :mod:`infoplace.plots` draws, of a pair and some images."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infoplace import plots
from infoplace.distributions import make_prior
from infoplace.errors import DataError, DeclarationError, did_you_mean, join_names
from infoplace.files import make_folder
from infoplace.metrics import ClusteringTable, clustering
from infoplace.modes import evaluating
from infoplace.pair import Pair, seeded

__all__ = [
    "MOST_CLUSTERS",
    "class_blocks",
    "cluster_images",
    "decoder_of",
    "draw_figures",
    "image_observation",
    "observed_batches",
]

MOST_CLUSTERS = 40
"""Blocks with more classes get no picture of every class."""

_MOST_LABELS = 100


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
    """``{block: [n, dim]}`` to the mean images of an observation, `[n, channels, height, width]` in [0, 1].

    Covariates that the decoder reads are 0 for all of them (the first class, or the number 0).
    """
    reference = {
        other: torch.zeros(1, *covariate.shape, dtype=torch.float32 if covariate.classes is None else torch.int64)
        for other, covariate in pair.partition.covariates_into(name).items()
    }

    @torch.no_grad()
    def decode(latents: dict[str, Tensor]) -> Tensor:
        return pair.decode({**reference, **latents}, name).mean.clamp(0, 1)

    return decode


def observed_batches(
    pair: Pair, data: Any, seed: int, batch_size: int = 500
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """What a pair observes of every image of a set, batch by batch, each with the number of its first image.

    Args:
        pair: the pair.
        data: an ``infoplace.data.ImageData``; its factors are the sources of the same name.
        seed: of the transforms.
        batch_size: images at once.
    """
    generator = torch.Generator().manual_seed(seed)
    sources = pair.partition.sources
    for start in range(0, len(data), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(data)), device=data.device)
        images = data.batch(indices).to(pair.device)
        batch: Any = images
        if len(sources) > 1:
            batch = {
                name: data.factors[name][indices].to(pair.device) if name in data.factors else images
                for name in sources
            }
        yield start, pair.partition.observe(batch, generator)


def class_blocks(pair: Pair) -> dict[str, int]:
    """The blocks whose prior draws a class, and how many classes each has.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> prior = {"mixture": {"components": 3, "y": "enumerate"}}
    >>> class_blocks(make_pair(Partition({"z": Block(2, prior=prior)}, {"x": Observation()}), (1, 8, 8)))
    {'z': 3}
    """
    priors = {name: make_prior(block.prior) for name, block in pair.partition.blocks.items()}
    return {name: prior.classes for name, prior in priors.items() if prior.draws_class}


@torch.no_grad()
def cluster_images(
    pair: Pair,
    name: str,
    block: str,
    *,
    rows: int = 4,
    columns: int = 4,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images of an observation, generated from every class of a block: ``z ~ p(z|y)``, the other blocks from their priors.

    Args:
        pair: the pair.
        name: an observation that hangs on the block.
        block: a block whose prior draws a class.
        rows: draws of the other blocks, the same for every class; where there are no others, there is one row.
        columns: draws of the block itself, for each class.
        generator: makes the draws repeatable; left out, torch's global state seeds them.

    Returns:
        Mean images, `[classes, rows, columns, channels, height, width]` in [0, 1].

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> blocks = {"z_g": Block(2, prior={"mixture": {"components": 3, "y": "enumerate"}}), "z_l": Block(2)}
    >>> cluster_images(make_pair(Partition(blocks, {"x": Observation()}), (1, 8, 8)), "x", "z_g", rows=2).shape
    torch.Size([3, 2, 4, 1, 8, 8])
    """
    known = class_blocks(pair)
    if block not in known:
        raise DeclarationError(
            f"{block!r} is no block whose prior draws a class.{did_you_mean(block, known)} Those are {join_names(known)}"
        )
    if name not in pair.partition.observations or block not in (pair.partition.observations[name].blocks or ()):
        hanging = [other for other, item in pair.partition.observations.items() if block in (item.blocks or ())]
        raise DeclarationError(
            f"{name!r} is no observation that hangs on {block!r}.{did_you_mean(name, hanging)} Those are {join_names(hanging)}"
        )
    count = known[block]
    others = [other for other in pair.partition.observations[name].blocks or () if other != block]
    rows = rows if others else 1
    # Distributions take no generator, so one draw of it seeds a fork of the global state.
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (1,), generator=generator, device=device))
    classes = torch.arange(count, device=pair.device).repeat_interleave(columns)
    prior: Any = pair.model.priors[block]
    with evaluating(pair):
        with seeded(seed, pair.device):
            own = prior.given(classes).sample()
        latents = {block: own.reshape(count, 1, columns, -1).expand(-1, rows, -1, -1).flatten(0, 2)}
        for other in others:
            drawn = pair.sample_prior(other, rows, generator)
            latents[other] = drawn[None, :, None].expand(count, -1, columns, -1).flatten(0, 2)
        return decoder_of(pair, name)(latents).unflatten(0, (count, rows, columns))


@torch.no_grad()
def draw_figures(
    pair: Pair,
    data: Any,
    out: str | Path,
    seed: int = 0,
    log: str | Path | None = None,
    factors: Mapping[str, str | None] | None = None,
) -> list[Path]:
    """Draw a pair's pictures into a folder.

    ``figure1b.png`` (data, transformed data, both reconstructions), ``figure2.png`` (for every block, that block drawn a
    hundred times and the others once), ``mixtures.png`` (the first block of one image with the others of another) and
    ``loss.png``.

    For a block whose prior draws one of at most 40 classes also ``figure4.png`` (labels against clusters, which are arranged
    by the labels of these very images: a picture, no score), where the data have labels, and ``figure6.png`` (generated
    images of every class). Of a second such block they are ``figure4_<block>.png`` and ``figure6_<block>.png``.

    Args:
        pair: the pair.
        data: an ``infoplace.data.ImageData`` of at least ten images; images that were not trained on.
        out: the folder.
        seed: of the transforms and the draws.
        log: the run's ``metrics.csv``; without it there is no ``loss.png``.
        factors: ``{factor: block}``, which block should carry which factor. ``figure4.png`` shows the first one of its block
            that is labels (2 to 100 whole numbers), and otherwise ``"digit"`` or ``"label"``.

    Returns:
        The files.

    Raises:
        DataError: the pair generates no images, or there are too few.
    """
    if len(data) < 10:
        raise DataError(f"the pictures show ten images, and {data.name} {data.split} holds {len(data)}")
    shown = image_observation(pair)
    blocks = {name: count for name, count in class_blocks(pair).items() if count <= MOST_CLUSTERS}
    labels = {block: _labels_for(block, data, factors or {}) for block in blocks}
    for block, count in blocks.items():
        if labels[block] is not None and len(data) < count:
            raise DataError(
                f"figure 4 shows the {count} clusters of {block}, and {data.name} {data.split} holds {len(data)} images; "
                "give as many images as clusters, or more"
            )
    with evaluating(pair):
        return [
            *_draw(pair, data, shown, Path(out), seed, log),
            *_draw_clusters(pair, data, shown, Path(out), seed, labels),
        ]


def _labels_for(block: str, data: Any, factors: Mapping[str, str | None]) -> str | None:
    """The factor that the clusters of a block are set against."""
    labels = [
        name
        for name, values in data.factors.items()
        if values.ndim == 1 and not values.is_floating_point() and 2 <= len(values.unique()) <= _MOST_LABELS
    ]
    declared = [factor for factor, carrier in factors.items() if carrier == block]
    return next((name for name in (*declared, "digit", "label") if name in labels), None)


def _draw_clusters(
    pair: Pair, data: Any, shown: str, folder: Path, seed: int, labels: Mapping[str, str | None]
) -> list[Path]:
    if not labels:
        return []
    found: dict[str, list[Tensor]] = {block: [] for block in labels}
    for _, observations in observed_batches(pair, data, seed):
        for block, classes in pair.classify(observations).items():
            if block in found:
                found[block].append(classes.probs.argmax(-1).cpu())
    written = []
    for index, (block, factor) in enumerate(labels.items()):
        ending = f"_{block}.png" if index else ".png"
        clusters = torch.cat(found[block])
        table = None
        if factor is not None:
            true = data.factors[factor]
            table = clustering(clusters, true, clusters, true, clusters=class_blocks(pair)[block])
            words = (
                f"Clusters of {block} against the {factor} of {len(data)} images of {data.name}: darker boxes hold more"
            )
            figure = plots.confusion(table, label=factor)
            written.append(plots.save(figure, folder / f"figure4{ending}", alt=words))
        if block in (pair.partition.observations[shown].blocks or ()):
            generator = torch.Generator().manual_seed(seed)
            images = cluster_images(pair, shown, block, generator=generator).cpu()
            order, titles = _cluster_titles(clusters, len(images), factor, table)
            others = [other for other in pair.partition.observations[shown].blocks or () if other != block]
            along = f"{block} along the columns" + (f", {' and '.join(others)} along the rows" if others else "")
            figure = plots.cluster_samples(images[order], titles, title=along)
            words = f"Generated images of every cluster of {block}; {along}; unused is what none of {len(data)} images is in"
            written.append(plots.save(figure, folder / f"figure6{ending}", alt=words))
    return written


def _cluster_titles(
    clusters: Tensor, count: int, factor: str | None, table: ClusteringTable | None
) -> tuple[Tensor, list[str]]:
    """The order in which clusters are shown, and what stands over each."""
    sizes = torch.bincount(clusters, minlength=count)
    order = torch.argsort(sizes == 0, stable=True) if table is None else table.arranged()
    titles = []
    for number in order.tolist():
        words = "unused"
        if sizes[number]:
            share = f"{100 * float(sizes[number]) / len(clusters):.1f}%"
            words = share if table is None else f"{factor} {table.majority.labels[number]}, {share}"
        titles.append(f"cluster {number}\n{words}")
    return order, titles


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
