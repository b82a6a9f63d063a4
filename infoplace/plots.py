"""Pictures: image grids, the paper's figures, swaps, loss curves and bars.

Images are ``[N, channels, height, width]`` with 1 or 3 channels, uint8 or float in [0, 1], and are enlarged by whole
numbers, so that a pixel stays a square. Every function returns a matplotlib ``Figure`` of its own: none of them touches
pyplot, its current figure or its settings, so they work in a notebook, a server or a worker alike. :func:`save` writes
one.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, is_whole, join_names
from infoplace.files import make_folder, replacing

if TYPE_CHECKING:
    import numpy
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "Clustered",
    "cluster_samples",
    "confusion",
    "contact_sheet",
    "cross_decode",
    "figure1b",
    "image_grid",
    "latent_variation",
    "loss_curves",
    "save",
    "swap_bars",
    "swap_grid",
    "sweep_lines",
    "variation_grids",
]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""


@runtime_checkable
class Clustered(Protocol):
    """What :func:`confusion` draws; :func:`infoplace.metrics.clustering` returns one."""

    @property
    def confusion(self) -> Tensor:
        """How many samples of each label are in each cluster, ``[labels, clusters]``."""

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of its rows."""

    @property
    def majority(self) -> Any:
        """Its ``predict(clusters)`` gives the label of each cluster, ``[N]`` for ``[N]``."""

    def arranged(self) -> Tensor:
        """The order in which the clusters are drawn, int64 ``[clusters]``."""


Decode = Callable[[dict[str, Tensor]], Tensor]
DrawPrior = Callable[[str, int, torch.Generator | None], Tensor]

_DPI = 144
_INK = "#222222"
_FAINT = "#888888"
_TEXT = 8.0
_LINE = round(_DPI * 1.6 * _TEXT / 72)
"""Pixels that a line of text takes."""


def image_grid(images: Tensor, columns: int | None = None, gap: int = 1) -> numpy.ndarray:
    """Images side by side on white, row by row, as one array.

    Args:
        images: ``[N, channels, height, width]``, 1 or 3 channels, uint8 or float in [0, 1].
        columns: images in a row; about the square root of N when None.
        gap: white pixels between images.

    Returns:
        uint8 ``[rows * (height + gap) - gap, columns * (width + gap) - gap, 3]``.

    Raises:
        DataError: images of another rank, type or range.
        DeclarationError: ``columns`` or ``gap`` is no count.

    >>> image_grid(torch.zeros(6, 1, 8, 8), columns=3).shape
    (17, 26, 3)
    """
    pixels = _pixels(images, "images")
    count, _, height, width = pixels.shape
    if columns is None:
        columns = math.ceil(math.sqrt(count))
    _check_count("columns", columns, 1)
    _check_count("gap", gap, 0)
    rows = math.ceil(count / columns)
    grid = torch.full((rows * columns, 3, height + gap, width + gap), 255, dtype=torch.uint8)
    grid[:count, :, :height, :width] = pixels
    grid = grid.reshape(rows, columns, 3, height + gap, width + gap).permute(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * (height + gap), columns * (width + gap), 3)
    return grid[: grid.shape[0] - gap, : grid.shape[1] - gap].contiguous().numpy()


def figure1b(x: Tensor, x_hat: Tensor, x_reconstruction: Tensor, x_hat_reconstruction: Tensor) -> Figure:
    """The paper's Figure 1b: images and their transforms above, the reconstruction of each below.

    Args:
        x: the data, ``[N, channels, height, width]``, uint8 or float in [0, 1]; 8 to 12 read well.
        x_hat: the transformed data, ``N`` images.
        x_reconstruction: of ``x``, ``N`` images.
        x_hat_reconstruction: of ``x_hat``, ``N`` images.

    Raises:
        DataError: images of another rank, type or range, or not as many of each.

    >>> images = torch.rand(8, 3, 32, 32)
    >>> figure = figure1b(images, images, images, images)
    """
    rows = {
        "x": x,
        "x_hat": x_hat,
        "x, reconstructed": x_reconstruction,
        "x_hat, reconstructed": x_hat_reconstruction,
    }
    counts = {name: len(images) for name, images in rows.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"every row must have as many images; got {counts}")
    grids = [image_grid(images, columns=max(1, counts["x"])) for images in rows.values()]
    return _mosaic([[grid] for grid in grids], row_labels=list(rows), gap=0.35)


def variation_grids(grids: Mapping[str, Tensor], columns: int = 10) -> Figure:
    """The paper's Figure 2: square grids side by side, a caption under each.

    Args:
        grids: ``{caption: images}``, images ``[N, channels, height, width]``, uint8 or float in [0, 1]; 100 of each is
            the paper's. :func:`latent_variation` makes them.
        columns: images in a row.

    Raises:
        DataError: images of another rank, type or range.
        DeclarationError: no grid, or ``columns`` is no count.

    >>> images = torch.rand(100, 3, 32, 32)
    >>> figure = variation_grids({"z_l varied, z_g fixed": images, "z_g varied, z_l fixed": images})
    """
    if not grids:
        raise DeclarationError("variation_grids needs at least one grid and got none; give {caption: images}")
    arrays = [image_grid(images, columns) for images in grids.values()]
    return _mosaic([arrays], captions=list(grids), gap=1.0)


@torch.no_grad()
def latent_variation(
    decode: Decode,
    prior: DrawPrior,
    *,
    fixed: str | Sequence[str],
    varied: str | Sequence[str],
    count: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images that share one draw of some blocks, each with its own draw of the others, all from the prior.

    Args:
        decode: ``{block: [n, dim]}`` to images ``[n, channels, height, width]``.
        prior: ``(block, n, generator)`` to ``n`` draws of that block's prior, ``[n, dim]``.
        fixed: the block or blocks that are the same in every image.
        varied: the block or blocks that are drawn for each image. Together they are all the blocks there are.
        count: how many images.
        generator: makes the draws repeatable; it is handed to ``prior``.

    Returns:
        What ``decode`` gives for ``count`` latents.

    Raises:
        DeclarationError: a block is both fixed and varied, or ``count`` is no count.

    >>> decode = lambda z: (z["z_g"] + z["z_l"]).sigmoid().reshape(-1, 1, 4, 4)
    >>> prior = lambda block, n, generator: torch.randn(n, 16, generator=generator)
    >>> latent_variation(decode, prior, fixed="z_g", varied="z_l", count=25).shape
    torch.Size([25, 1, 4, 4])
    """
    _check_count("count", count, 1)
    held, free = ([names] if isinstance(names, str) else list(names) for names in (fixed, varied))
    both = sorted(set(held) & set(free))
    if both:
        raise DeclarationError(f"{join_names(both)} cannot be fixed and varied at once; name each block once")
    latents = {block: prior(block, 1, generator).expand(count, -1) for block in held}
    latents |= {block: prior(block, count, generator) for block in free}
    return decode(latents)


@torch.no_grad()
def cross_decode(decode: Decode, columns: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
    """Images that combine the blocks of every column source with those of every row source.

    Args:
        decode: ``{block: [n, dim]}`` to images ``[n, channels, height, width]``.
        columns: ``{block: [M, dim]}``, the blocks that come from the column sources.
        rows: ``{block: [K, dim]}``, the other blocks, which come from the row sources.

    Returns:
        ``[K * M, channels, height, width]``, row by row, as :func:`swap_grid` takes them.

    Raises:
        DeclarationError: a block is in both, or one of the two is empty.

    >>> decode = lambda z: torch.cat([z["z_g"], z["z_l"]], 1).reshape(-1, 1, 1, 2)
    >>> cross_decode(decode, {"z_g": torch.zeros(3, 1)}, {"z_l": torch.ones(2, 1)}).shape
    torch.Size([6, 1, 1, 2])
    """
    both = sorted(set(columns) & set(rows))
    if both or not columns or not rows:
        raise DeclarationError(
            f"each block comes from the columns or from the rows, and each has one at least; "
            f"got columns {join_names(columns)} and rows {join_names(rows)}"
        )
    across, down = len(next(iter(columns.values()))), len(next(iter(rows.values())))
    latents = {block: values.repeat(down, 1) for block, values in columns.items()}
    return decode(latents | {block: values.repeat_interleave(across, 0) for block, values in rows.items()})


def swap_grid(
    column_sources: Tensor,
    row_sources: Tensor,
    mixtures: Tensor,
    *,
    columns: str = "z_g",
    rows: str = "z_l",
) -> Figure:
    """Mixtures of images: the first row gives one block, the first column the other.

    Where the information is in its place, every column shows the digit at its top and every row the colours at its left.

    Args:
        column_sources: ``[M, channels, height, width]``, uint8 or float in [0, 1], the images above the columns.
        row_sources: ``[K, channels, height, width]``, the images left of the rows.
        mixtures: ``[K * M, channels, height, width]``, row by row; :func:`cross_decode` makes them.
        columns: what comes from the first row, for the label.
        rows: what comes from the first column, for the label.

    Raises:
        DataError: images of another rank, type, range or size, or not ``K * M`` mixtures.

    >>> figure = swap_grid(torch.rand(5, 3, 32, 32), torch.rand(4, 3, 32, 32), torch.rand(20, 3, 32, 32))
    """
    across, down = len(column_sources), len(row_sources)
    if len(mixtures) != across * down:
        raise DataError(
            f"{down} row sources and {across} column sources make {down * across} mixtures; got {len(mixtures)}"
        )
    sizes = {tuple(images.shape[-2:]) for images in (column_sources, row_sources, mixtures)}
    if len(sizes) > 1:
        raise DataError(f"sources and mixtures must be of one size; got {sorted(sizes)}")
    top, left, inside = image_grid(column_sources, across), image_grid(row_sources, 1), image_grid(mixtures, across)
    return _mosaic(
        [[None, top], [left, inside]], column_label=f"{columns} from", row_labels=["", f"{rows} from"], gap=0.5
    )


def contact_sheet(
    before: Tensor, after: Tensor, title: str = "", *, columns: int = 8, labels: tuple[str, str] = ("before", "after")
) -> Figure:
    """Pairs for a look at a transform: each image above what became of it.

    Args:
        before: ``[N, channels, height, width]``, uint8 or float in [0, 1].
        after: ``N`` images, of any size.
        title: a line above the picture.
        columns: pairs in a row.
        labels: what the two rows of every band are called.

    Raises:
        DataError: images of another rank, type or range, or not as many of each.
        DeclarationError: ``columns`` is no count.

    >>> images = torch.rand(16, 3, 32, 32)
    >>> figure = contact_sheet(images, images.flip(-1), "a mirror, which destroys nothing")
    """
    _check_count("columns", columns, 1)
    if len(before) != len(after):
        raise DataError(f"each image needs its pair; got {len(before)} before and {len(after)} after")
    columns = min(columns, max(1, len(before)))
    bands, names = [], []
    for start in range(0, max(1, len(before)), columns):
        for name, images in zip(labels, (before, after), strict=True):
            bands.append([image_grid(images[start : start + columns], columns)])
            names.append(name)
    return _mosaic(bands, row_labels=names, title=title, gap=0.35, pairs=True)


def loss_curves(
    history: Sequence[Mapping[str, float]] | Mapping[str, Sequence[float]], steps: Sequence[int] | None = None
) -> Figure:
    """One small panel for each term of an objective over the steps.

    Args:
        history: ``[{term: value, ...}, ...]``, one dict for each recorded step, or ``{term: [value, ...]}``. A term may
            be missing in some of the dicts. A key ``"step"`` gives the steps and is no term.
        steps: the recorded steps, in order; those of ``history``, else 0, 1, ... when None.

    Raises:
        DataError: nothing to draw, or not as many values as steps.

    >>> figure = loss_curves([{"step": 10, "loss": 3.0, "kl/z_g": 1.0}, {"step": 20, "loss": 2.0, "kl/z_g": 1.5}])
    """
    from matplotlib.figure import Figure

    series = _series(history)
    recorded = series.pop("step", None)
    length = max((len(values) for values in series.values()), default=0)
    if not length:
        raise DataError("loss_curves has nothing to draw; give [{term: value}, ...] or {term: [value, ...]}")
    places = [float(step) for step in (recorded or range(length) if steps is None else steps)]
    for term, values in series.items():
        if len(values) != len(places):
            raise DataError(f"loss_curves: {term!r} has {len(values)} values for {len(places)} steps")
    rows = math.ceil(len(series) / 4)
    columns = math.ceil(len(series) / rows)
    figure = Figure(figsize=(2.3 * columns, 1.6 * rows + 0.2), dpi=_DPI, facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for index, panel in enumerate(panels.flat):
        if index >= len(series):
            panel.set_visible(False)
            continue
        term = list(series)[index]
        points = [(x, y) for x, y in zip(places, series[term], strict=True) if math.isfinite(y)]
        mark = "o" if len(points) == 1 else None
        panel.plot(*zip(*points, strict=True) if points else ((), ()), color=COLOURS[0], lw=1.2, marker=mark, ms=3)
        panel.set_title(_words(term), fontsize=_TEXT, color=_INK, loc="left")
        if index + columns >= len(series):
            panel.set_xlabel("step", fontsize=_TEXT - 1, color=_INK)
            panel.tick_params(labelbottom=True)
        _sober(panel)
    return figure


def swap_bars(
    runs: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
    *,
    factors: Sequence[str] | None = None,
    how: str | None = None,
) -> Figure:
    """The paper's Figure 3 for every factor: its score on real images, reconstructed, and with each block changed.

    A bar is the mean over the runs (seeds), its whisker one standard deviation to each side, a dot one run; the dashed
    line is chance.

    Args:
        runs: the rows of one swap table, or a list of such lists, one for each run. A row has ``changed``, ``how``,
            ``factor``, ``score``, ``metric``, ``real`` and ``chance``.
        factors: which, in this order; all of them when None.
        how: ``"prior"`` or ``"other image"``; both where there are both, when None.

    Raises:
        DataError: no rows, or runs with different rows.
        UnknownNameError: a factor or a change that the rows do not have.

    >>> row = {"factor": "digit", "metric": "accuracy", "real": 0.95, "chance": 0.1}
    >>> figure = swap_bars([
    ...     row | {"changed": None, "how": "kept", "score": 0.86},
    ...     row | {"changed": "z_l", "how": "prior", "score": 0.80},
    ...     row | {"changed": "z_g", "how": "prior", "score": 0.11},
    ... ])
    """
    from matplotlib.figure import Figure

    tables: list[list[Mapping[str, Any]]]
    tables = [list(runs)] if runs and isinstance(runs[0], Mapping) else [list(run) for run in runs]  # type: ignore[arg-type]
    if not tables or not all(tables):
        raise DataError("swap_bars has no rows to draw; give the rows of a swap table, or a list of them")
    keys = [[(row["factor"], row["changed"], row["how"]) for row in table] for table in tables]
    if any(set(key) != set(keys[0]) for key in keys):
        raise DataError("swap_bars: the runs have different rows; draw runs of one partition and one set of factors")
    ways = dict.fromkeys(way for _, _, way in keys[0] if way != "kept")
    if how is not None and how not in ways:
        raise UnknownNameError(f"no row has how={how!r}; the rows have {join_names(ways)}.{did_you_mean(how, ways)}")
    known = list(dict.fromkeys(factor for factor, _, _ in keys[0]))
    for factor in factors or ():
        if factor not in known:
            raise UnknownNameError(
                f"no row has the factor {factor!r}; the rows have {join_names(known)}.{did_you_mean(factor, known)}"
            )
    chosen = list(factors or known)
    wanted = [(block, way) for block, way in dict.fromkeys(key[1:] for key in keys[0]) if way in ("kept", how or way)]
    names = ["real images", *(_change_name(block, way) for block, way in wanted)]
    # A colour for each block, whatever it is replaced with.
    blocks = list(dict.fromkeys(block for block, _ in wanted))
    colours = [COLOURS[6], *(COLOURS[blocks.index(block) % 6] for block, _ in wanted)]
    figure = Figure(figsize=(0.4 + 2.3 * len(chosen), 2.7), dpi=_DPI, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    for panel, factor in zip(panels, chosen, strict=True):
        found = [{(r["changed"], r["how"]): r for r in table if r["factor"] == factor} for table in tables]
        first = next(iter(found[0].values()))
        bars = [[next(iter(rows.values()))["real"] for rows in found]]
        bars += [[rows[change]["score"] for rows in found] for change in wanted]
        values = torch.tensor(bars, dtype=torch.float64)
        spread = values.std(1) if len(tables) > 1 else None
        drawn = panel.bar(range(len(bars)), values.mean(1).numpy(), width=0.7, color=colours)
        for bar, (_, way) in zip(drawn[1:], wanted, strict=True):
            if way == "other image":
                bar.set_alpha(0.55)
        if spread is not None:
            panel.errorbar(
                range(len(bars)),
                values.mean(1).numpy(),
                spread.numpy(),
                fmt="none",
                ecolor=_INK,
                elinewidth=1,
                capsize=3,
            )
            for place, scores in enumerate(bars):
                panel.plot([place] * len(scores), scores, ".", color=_INK, ms=3, alpha=0.6)
        for place, mean in enumerate(values.mean(1).tolist()):
            top = mean + (spread[place].item() if spread is not None else 0.0)
            panel.text(place, top + 0.015, f"{mean:.2f}", ha="center", va="bottom", fontsize=_TEXT - 1, color=_INK)
        if first["chance"] > 0:
            panel.axhline(first["chance"], color=_FAINT, lw=0.8, ls="--", zorder=3)
            panel.text(len(bars) - 0.45, first["chance"], " chance", fontsize=_TEXT - 2, color=_FAINT, va="center")
        panel.set_title(f"{_words(factor)}\n{_words(first['metric'])}", fontsize=_TEXT, color=_INK)
        panel.set_xticks(range(len(bars)), names, rotation=35, ha="right", rotation_mode="anchor")
        panel.set_ylim(0, 1.12)
        panel.set_yticks([0, 0.25, 0.5, 0.75, 1])
        _sober(panel)
    return figure


def sweep_lines(lines: Mapping[str, Mapping[float, Sequence[float]]], label: str, lowest: float = -0.05) -> Figure:
    """Scores over a setting: a line for each score through its means, a dot for each run.

    The settings are set out evenly, in order, since they mostly grow by factors.

    Args:
        lines: ``{score: {setting: [one number for each run]}}``.
        label: what the setting is.
        lowest: where the vertical axis begins, for scores whose best is 1.

    Raises:
        DataError: nothing to draw, a setting without a run, or lines over different settings.

    >>> figure = sweep_lines({"kept": {1: [0.98, 0.97], 10: [0.96, 0.97]}, "crossed": {1: [0.0, 0.01], 10: [0.02, 0.0]}}, "beta")
    """
    from matplotlib.figure import Figure

    settings = [sorted(line) for line in lines.values()]
    if not settings or not settings[0]:
        raise DataError("sweep_lines has nothing to draw; give {score: {setting: [number, ...]}}")
    if any(other != settings[0] for other in settings):
        raise DataError("sweep_lines: the lines have different settings; measure every score at each of them")
    empty = [(name, setting) for name, line in lines.items() for setting, values in line.items() if not len(values)]
    if empty:
        raise DataError(f"sweep_lines: {empty[0][0]!r} has no number at {empty[0][1]:g}")
    figure = Figure(figsize=(5.2, 3.0), dpi=_DPI, facecolor="white", layout="constrained")
    panel = figure.subplots()
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % 6]
        runs = [(place, value) for place, setting in enumerate(settings[0]) for value in line[setting]]
        means = [sum(line[setting]) / len(line[setting]) for setting in settings[0]]
        panel.plot(range(len(means)), means, color=colour, lw=1.4, ls=("-", "--", ":")[index // 2 % 3])
        panel.plot(*zip(*runs, strict=True), ".", color=colour, ms=5)
        panel.plot([], [], color=colour, lw=1.4, ls=("-", "--", ":")[index // 2 % 3], marker=".", label=_words(name))
    panel.set_xticks(range(len(settings[0])), [f"{setting:g}" for setting in settings[0]])
    panel.set_xlabel(label, fontsize=_TEXT, color=_INK)
    panel.set_ylim(min(lowest, panel.get_ylim()[0]), max(1.05, panel.get_ylim()[1]))
    figure.legend(loc="outside right center", frameon=False, fontsize=_TEXT - 1)
    _sober(panel)
    return figure


def confusion(table: Clustered, *, label: str = "label", title: str = "") -> Figure:
    """The paper's Figure 4: labels against clusters; the darker a box, the more samples of that label in that cluster.

    The clusters are re-arranged, so that those of one label stand together, between thin lines; above each is its share of
    the samples in percent. Clusters without a sample come last.

    Args:
        table: what :func:`infoplace.metrics.clustering` returns.
        label: what the labels are, for the vertical axis.
        title: a line above the picture.

    Raises:
        DataError: something else than such a table.

    >>> from infoplace.metrics import clustering
    >>> labels, clusters = [4, 4, 4, 9, 9, 9], [0, 2, 2, 1, 1, 1]
    >>> figure = confusion(clustering(clusters, labels, clusters, labels, clusters=4), label="digit")
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    if not isinstance(table, Clustered):
        raise DataError(f"confusion draws what metrics.clustering returns; got a {type(table).__name__}")
    order = table.arranged().cpu()
    counts = table.confusion.cpu()[:, order]
    rows, columns = counts.shape
    sizes, named = counts.sum(0), table.majority.predict(order).tolist()
    shares = (100 * sizes / sizes.sum().clamp(min=1)).tolist()
    box = 0.25 if columns <= 40 else max(0.12, 10 / columns)
    # A quarter of an inch holds two digits; where boxes are narrower, numbers are turned.
    turned = 90 if box < 0.25 or columns > 100 else 0
    left, right, above, below, gap = 0.62, 0.95, 0.3 if title else 0.12, 0.5, 0.06
    wide, tall, bar = box * columns, 0.25 * rows, 0.55
    width, height = left + wide + right, above + bar + gap + tall + below
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    top = figure.add_axes((left / width, (below + tall + gap) / height, wide / width, bar / height))
    panel = figure.add_axes((left / width, below / height, wide / width, tall / height))
    scale = figure.add_axes(((left + wide + 0.15) / width, below / height, 0.1 / width, tall / height))

    used = [place for place in range(columns) if sizes[place]]
    top.bar(used, [shares[place] for place in used], width=0.8, color=COLOURS[0])
    highest = max(shares)
    for place, share in enumerate(shares):
        words = "0" if not sizes[place] else f"{share:.0f}" if share >= 0.95 else "<1"
        style: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": _TEXT - 2, "rotation": turned}
        top.text(place, share + 0.03 * highest, words, color=_INK if sizes[place] else _FAINT, **style)
    top.set_xlim(-0.5, columns - 0.5)
    top.set_ylim(0, 1.4 * highest)
    top.set_xticks([])
    top.set_yticks([])
    top.spines[["top", "right", "left"]].set_visible(False)
    top.spines["bottom"].set_color(_FAINT)
    top.set_ylabel("share, %", fontsize=_TEXT - 1, color=_INK, rotation=0, ha="right", va="center")

    shades = LinearSegmentedColormap.from_list("shades", ["#ffffff", COLOURS[0], "#001a2e"])
    drawn = panel.imshow(counts.numpy(), cmap=shades, vmin=0, aspect="auto", interpolation="nearest")
    for place in range(1, columns):
        if named[place] != named[place - 1] or bool(sizes[place]) != bool(sizes[place - 1]):
            panel.axvline(place - 0.5, color=_FAINT, lw=0.6)
    panel.set_xticks(range(columns), [str(number) for number in order.tolist()], rotation=turned)
    panel.set_yticks(range(rows), [str(name) for name in table.labels])
    panel.tick_params(labelsize=_TEXT - 1, colors=_INK, length=0, pad=2)
    for place, tick in enumerate(panel.get_xticklabels()):
        if not sizes[place]:
            tick.set_color(_FAINT)
    panel.set_xlabel("cluster", fontsize=_TEXT, color=_INK)
    panel.set_ylabel(_words(label), fontsize=_TEXT, color=_INK)
    panel.spines[:].set_color(_FAINT)

    figure.colorbar(drawn, cax=scale)
    scale.set_ylabel("samples", fontsize=_TEXT - 1, color=_INK)
    scale.tick_params(labelsize=_TEXT - 2, colors=_INK, color=_FAINT, length=2)
    scale.spines[:].set_color(_FAINT)
    if title:
        figure.text(left / width, 1 - 0.16 / height, title, fontsize=_TEXT, color=_INK, va="center", fontweight="bold")
    return figure


def cluster_samples(images: Tensor, titles: Sequence[str] | None = None, *, across: int = 5, title: str = "") -> Figure:
    """The paper's Figures 5 and 6: a small grid of generated images for every cluster, a title over each.

    Args:
        images: ``[clusters, rows, columns, channels, height, width]``, uint8 or float in [0, 1]: in the paper the block with
            the clusters varies along the columns, and the other block along the rows, the same draws in every cluster.
        titles: one for each cluster, of one line or two; ``"cluster 0"``, ``"cluster 1"``, ... when None.
        across: how many grids stand side by side.
        title: a line above the picture.

    Raises:
        DataError: images of another rank, type or range, or not as many titles as clusters.
        DeclarationError: ``across`` is no count.

    >>> figure = cluster_samples(torch.rand(3, 2, 4, 1, 8, 8), ["cluster 0", "cluster 1", "cluster 2: unused"])
    """
    _check_count("across", across, 1)
    if not isinstance(images, Tensor) or images.ndim != 6 or not images.numel():
        given = list(images.shape) if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise DataError(
            f"cluster_samples takes a tensor [clusters, rows, columns, channels, height, width] with 1 or more of each; "
            f"got {given}"
        )
    names = [f"cluster {number}" for number in range(len(images))] if titles is None else list(titles)
    if len(names) != len(images):
        raise DataError(f"cluster_samples: there are {len(images)} clusters and {len(names)} titles; give one for each")
    grids: list[numpy.ndarray | None] = [image_grid(grid.flatten(0, 1), columns=grid.shape[1]) for grid in images]
    across = min(across, len(grids))
    empty = -len(grids) % across
    grids, names = [*grids, *[None] * empty], [*names, *[""] * empty]
    starts = range(0, len(grids), across)
    return _mosaic(
        [grids[start : start + across] for start in starts],
        headings=[names[start : start + across] for start in starts],
        title=title,
        gap=0.6,
    )


def save(figure: Figure, path: str | os.PathLike[str], alt: str = "") -> Path:
    """Write a figure as PNG or SVG, by the path's ending; the file appears when it is whole.

    Args:
        figure: any matplotlib figure.
        path: where to; missing folders are made, an existing file is replaced.
        alt: a sentence that describes the picture, kept in the file.

    Returns:
        The path.

    Raises:
        DeclarationError: another ending.
        RunFolderError: the file cannot be written.

    >>> import tempfile
    >>> save(contact_sheet(torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)), tempfile.mkdtemp() + "/pairs.png").name
    'pairs.png'
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise DeclarationError(f"a picture is saved as .png or .svg; got {path.name!r}")
    metadata: dict[str, str | None] = {"Description": alt} if alt else {}
    if path.suffix == ".svg":
        metadata["Date"] = None  # the same figure gives the same file
    make_folder(path.parent)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi="figure", metadata=metadata)
    return path


def _check_count(name: str, value: Any, least: int) -> None:
    if not is_whole(value) or value < least:
        raise DeclarationError(f"{name} must be a whole number of at least {least}; got {value!r}")


def _pixels(images: Tensor, name: str) -> Tensor:
    """uint8 ``[N, 3, height, width]`` on the CPU."""
    if not isinstance(images, Tensor):
        raise DataError(f"{name} must be a tensor; got a {type(images).__name__}; use torch.as_tensor")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise DataError(
            f"{name} must be [N, channels, height, width] with N of 1 or more and 1 or 3 channels; "
            f"got {list(images.shape)}; add a missing dimension with images[None] or images[:, None]"
        )
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise DataError(f"{name} are {images.dtype}; expected uint8 in 0..255 or float in [0, 1]")
        low, high = (value.item() for value in images.aminmax())
        if math.isnan(low):
            raise DataError(f"{name} hold NaN; look for the step that divides by zero")
        if low < -1e-3 or high > 1 + 1e-3:
            advice = "divide by 255" if low >= 0 and high > 2 else "shift and scale, or images.clamp(0, 1) for a mean"
            raise DataError(f"{name} hold values from {low:.3g} to {high:.3g}; expected [0, 1]; {advice}")
        images = images.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return images.expand(-1, 3, -1, -1)


def _mosaic(
    cells: Sequence[Sequence[numpy.ndarray | None]],
    *,
    row_labels: Sequence[str] = (),
    captions: Sequence[str] = (),
    headings: Sequence[Sequence[str]] = (),
    column_label: str = "",
    title: str = "",
    gap: float,
    pairs: bool = False,
) -> Figure:
    """Arrays in rows and columns, each enlarged by one whole number and placed on whole pixels of the figure.

    ``headings`` are texts over each cell. ``gap`` is the space between cells in lines of text. With ``pairs``,
    every second row is set closer to the one above.
    """
    import numpy as np
    from matplotlib.figure import Figure

    columns = range(len(cells[0]))
    across = [max(array.shape[1] for row in cells if (array := row[column]) is not None) for column in columns]
    # About 1,000 pixels across, and a pixel of the image at most 8 of the picture: a row of photographs, or 3 icons.
    scale = max(1, min(8, round(1000 / sum(across))))
    space = round(gap * _LINE)
    widths = [scale * width for width in across]
    heights = [max(array.shape[0] * scale for array in row if array is not None) for row in cells]
    longest = max((len(label) for label in row_labels), default=0)
    left = round(longest * _TEXT * 0.52 * _DPI / 72) + _LINE if longest else space or _LINE // 2
    above = (round(1.3 * _LINE) if title else 0) + (_LINE if column_label else 0) + _LINE // 2
    letters = [max(8, int((width + space) / (_TEXT * 0.55 * _DPI / 72)) - 2) for width in widths]
    captions = [textwrap.fill(caption, count) for caption, count in zip(captions, letters, strict=False)]
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    below = (round((lines + 0.2) * _LINE) if captions else 0) + _LINE // 2
    gaps = [max(2, space // 4) if pairs and index % 2 else space for index in range(len(cells))]
    gaps[0] = 0
    if headings:
        most = [max(heading.count("\n") + 1 for heading in row) for row in headings]
        gaps = [before + round((count + 0.2) * _LINE) for before, count in zip(gaps, most, strict=True)]
    total_width = left + sum(widths) + space * (len(widths) - 1) + _LINE // 2
    total_height = above + sum(heights) + sum(gaps) + below
    figure = Figure(figsize=(total_width / _DPI, total_height / _DPI), dpi=_DPI, facecolor="white")

    def text(x: float, y: float, words: str, **style: Any) -> None:
        figure.text(x / total_width, 1 - y / total_height, words, fontsize=_TEXT, color=_INK, **style)

    y = above
    for index, row in enumerate(cells):
        y += gaps[index]
        x = left
        for column, (width, array) in enumerate(zip(widths, row, strict=True)):
            if array is not None:
                pixels = np.repeat(np.repeat(array, scale, 0), scale, 1)
                tall, wide = pixels.shape[:2]
                box = (x / total_width, 1 - (y + tall) / total_height, wide / total_width, tall / total_height)
                axes = figure.add_axes(box)
                axes.imshow(pixels, interpolation="nearest", aspect="auto")
                axes.set_axis_off()
                if headings:
                    text(x, y - 0.15 * _LINE, headings[index][column], ha="left", va="bottom")
                if captions and index == len(cells) - 1:
                    text(x + wide / 2, y + tall + 0.35 * _LINE, captions[column], ha="center", va="top")
            x += width + space
        if row_labels:
            text(left - _LINE // 2, y + heights[index] / 2, row_labels[index], ha="right", va="center")
        y += heights[index]
    if column_label:
        middle = left + sum(widths[:-1]) + space * (len(widths) - 1) + widths[-1] / 2
        text(middle, above - 0.55 * _LINE, column_label, ha="center", va="center")
    if title:
        text(left, 0.85 * _LINE, title, ha="left", va="center", fontweight="bold")
    return figure


def _series(history: Sequence[Mapping[str, float]] | Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    if not isinstance(history, Mapping):
        terms = dict.fromkeys(term for record in history for term in record)
        history = {term: [record.get(term, math.nan) for record in history] for term in terms}
    series = {}
    for term, values in history.items():
        try:
            series[str(term)] = [float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"loss_curves: {term!r} holds something that is no number ({error}); leave it out"
            ) from error
    return series


def _change_name(block: str | None, way: str) -> str:
    if block is None:
        return "reconstruction"
    return f"{block} resampled" if way == "prior" else f"{block} of another"


def _words(name: str) -> str:
    return str(name).replace("squared_correlation", "squared correlation").replace("partial_", "partial ")


def _sober(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(_FAINT)
    panel.tick_params(labelsize=_TEXT - 1, colors=_INK, color=_FAINT, length=2.5)
    panel.yaxis.get_offset_text().set_fontsize(_TEXT - 1)
