"""The clusters of blocks whose prior draws a class: their scores, which label each of them has, and samples of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from infoplace.errors import is_finite
from infoplace.figures import MOST_CLUSTERS, class_blocks
from infoplace.report.drawing import Column, shades
from infoplace.report.markup import Html, element, in_words, join
from infoplace.report.parts import (
    NONE,
    cell,
    code,
    framed_table,
    image_of,
    note,
    panels,
    score,
    share,
    suffix,
)
from infoplace.report.pictures import RunPictures
from infoplace.report.runs import Run

__all__ = ["clusters", "has_clusters"]

ACCURACIES = {"majority": "majority", "hungarian": "one to one", "one_cluster": "one cluster"}
OTHERS = {"nmi": "NMI", "ari": "ARI"}


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """The clusters of a block against a factor.

    Attributes:
        factor: its name.
        order: the clusters in the order in which they are shown.
        labels: the label of each under the majority mapping.
        shares: each one's share of the test images.
        images: ``{(label, cluster): test images}``.
    """

    factor: str
    order: Sequence[int]
    labels: Mapping[int, str]
    shares: Mapping[int, float]
    images: Mapping[tuple[str, int], float]


def has_clusters(runs: Sequence[Run]) -> bool:
    """Whether the clusters of any run were measured."""
    return any(run.table("clustering") for run in runs)


def clusters(runs: Sequence[Run], pictures: Sequence[RunPictures]) -> Html:
    """The section on clusters.

    Args:
        runs: the runs, of which some have a table ``clustering``.
        pictures: of each run; none where the runs generate no images.
    """
    drawn = dict(zip((run.label for run in runs), pictures, strict=True)) if pictures else {}

    def scores(run: Run, which: str) -> Html:
        if not run.table("clustering"):
            return note("Not measured.")
        return join(_scores(run, f"{which}-{n}", block, suffix(run, runs)) for n, block in enumerate(_blocks(run)))

    def confusion(run: Run, which: str) -> Html:
        made = [_confusion(run, f"{which}-{n}", block, suffix(run, runs)) for n, block in enumerate(_blocks(run))]
        return join(made) if any(made) else note("No factor of labels was measured.")

    def samples(run: Run, which: str) -> Html:
        return join(_samples(run, block, drawn[run.label], suffix(run, runs)) for block in _blocks(run))

    parts: list[Any] = [
        element("p", "An image is in the cluster that is most probable for it. The two accuracies read a label off the cluster, "
                "by a mapping fitted on training images: ", element("em", "majority"), " gives each cluster its commonest "
                "label, ", element("em", "one to one"), " (Hungarian) gives each label one cluster. One cluster is what a single "
                "cluster would score. NMI and ARI need no mapping."),
        panels(runs, 3, scores),
        element("h3", "Labels against clusters"),
        element("p", "The stronger the colour of a box, the more images of that label in that cluster; above are the clusters' "
                "shares of the images, in percent. The clusters are arranged by their majority label, the unused ones last."),
        panels(runs, 4, confusion),
    ]  # fmt: skip
    if drawn:
        parts += [
            element("h3", "Samples of each cluster"),
            element("p", "Generated images. Each picture shows one cluster: the block with the clusters is drawn anew from that "
                    "cluster for every column, and the other blocks from their priors for every row, alike in all pictures."),
            panels(runs, 4, samples),
        ]  # fmt: skip
    return join(parts)


def _blocks(run: Run) -> list[str]:
    return list(dict.fromkeys(str(row["block"]) for row in run.table("clustering")))


def _scores(run: Run, which: str, block: str, name: str) -> Html:
    found: dict[str, dict[str, Any]] = {}
    classes: Any = None
    for row in run.table("clustering"):
        if str(row["block"]) == block:
            found.setdefault(str(row["factor"]), {})[str(row["metric"])] = row["value"]
            classes = row["classes"]
    rows = []
    for factor, values in found.items():
        cells: list[Any] = [
            cell(score(values.get(metric)), class_="meter kept", style=f"--share:{share(values.get(metric))}")
            if metric != "one_cluster"
            else score(values.get(metric))
            for metric in ACCURACIES
        ]
        cells += [score(values.get(metric)) for metric in OTHERS]
        used = (
            NONE
            if "clusters_used" not in values
            else f"{score(values['clusters_used'], 0)}\u00a0of\u00a0{score(classes, 0)}"
        )
        rows.append([factor, *cells, used, score(values.get("calibration_error"))])
    heads = ["factor", *ACCURACIES.values(), *OTHERS.values(), "clusters used", "calibration error"]
    return framed_table(f"{which}-clusters", f"Clusters of {block}", heads, rows, whose=name)


def _labelled(run: Run, block: str) -> _Labelled | None:
    """The clusters against the factor that the block should carry, or another one."""
    rows = [row for row in run.table("clustering_labels") if str(row["block"]) == block]
    factors = list(dict.fromkeys(str(row["factor"]) for row in rows))
    meant = run.evaluation["factors"] if run.evaluation is not None else {}
    declared = [key for key, value in meant.items() if isinstance(value, Mapping) and value.get("block") == block]
    chosen = next((name for name in (*declared, "digit", "label", *factors) if name in factors), None)
    if chosen is None:
        return None
    here = [row for row in rows if str(row["factor"]) == chosen and is_finite(row["cluster"])]
    images = {
        (score(row["label"], 0), int(row["cluster"])): float(row["images"])
        for row in run.table("clustering_confusion")
        if (str(row["block"]), str(row["factor"])) == (block, chosen)
        and is_finite(row["cluster"])
        and is_finite(row["images"])
    }
    return _Labelled(
        factor=chosen,
        order=[int(row["cluster"]) for row in here],
        labels={int(row["cluster"]): score(row["majority"], 0) for row in here},
        shares={int(row["cluster"]): float(row["share"]) if is_finite(row["share"]) else 0.0 for row in here},
        images=images,
    )


def _confusion(run: Run, which: str, block: str, name: str) -> Html | None:
    found = _labelled(run, block)
    if found is None or not found.images:
        return None
    columns = [Column(str(cluster), found.shares[cluster], found.labels[cluster]) for cluster in found.order]
    labels = sorted({label for label, _ in found.images}, key=lambda label: (len(label), label))
    values = [[found.images.get((label, cluster), 0.0) for cluster in found.order] for label in labels]
    title = f"{found.factor} against clusters of {block}{name}"
    drawing = shades(values, labels, columns, f"{which}-confusion", title, found.factor)
    most = max(max(row) for row in values)
    return element(
        "figure",
        element("div", drawing, class_="scroll", role="group", tabindex="0", aria_label=title),
        element("figcaption", element("strong", found.factor), " against the clusters of ", code(block),
                f"; the strongest colour is {score(most, 0)} images."),
    )  # fmt: skip


def _samples(run: Run, block: str, pictures: RunPictures, name: str) -> Html:
    drawn = pictures.clusters.get(block)
    if drawn is None:
        count = class_blocks(run.pair).get(block, 0)
        if count > MOST_CLUSTERS:
            return note(f"{block} has {count} clusters, too many for a picture of each.")
        return note(f"No image is generated from the clusters of {block}.")
    found = _labelled(run, block)
    order = range(len(drawn)) if found is None else [number for number in found.order if 0 <= number < len(drawn)]
    figures = []
    for number in order:
        words = ""
        if found is not None:
            used = found.shares[number] > 0
            words = (
                f"{found.factor} {found.labels[number]}, {score(100 * found.shares[number], 1)}%" if used else "unused"
            )
        alt = f"Generated images of cluster {number} of {block}{name}" + (f": {words}" if words else "")
        image = image_of(drawn[number], alt, class_="pixels")
        caption = element("figcaption", element("strong", f"cluster {number}"), element("br"), words)
        figures.append(element("figure", image, caption))
    others = [other for other in pictures.variations if other != block]
    along = f"{block} along the columns" + (f", {in_words(others)} along the rows." if others else ".")
    return join([element("p", along, class_="legend"), element("div", figures, class_="cluster-samples")])
