"""The page: its sections and their words."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from infoplace import __version__
from infoplace.distributions import Prior, make_likelihood, make_prior
from infoplace.errors import is_finite
from infoplace.partition import Partition
from infoplace.report.clusters import clusters, has_clusters
from infoplace.report.drawing import curves, number, partition_graph, transform_words
from infoplace.report.explorer import explorers
from infoplace.report.markup import Html, element, in_words, join
from infoplace.report.measured import brief, measured
from infoplace.report.parts import (
    NONE,
    code,
    date_words,
    framed_table,
    image_of,
    note,
    panels,
    score,
    spaced,
    suffix,
)
from infoplace.report.pictures import Choice, RunPictures
from infoplace.report.runs import Run
from infoplace.transforms import make_transform

__all__ = ["Shown", "page"]


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a page is made of.

    Attributes:
        runs: the runs.
        data: what the images are called, or None where that is not known.
        split: the split they come from.
        choice: the images; None where the runs generate none.
        pictures: of each run, where there are images.
        why_none: why there are no images.
    """

    runs: Sequence[Run]
    data: str | None
    split: str
    choice: Choice | None
    pictures: Sequence[RunPictures]
    why_none: str


def page(shown: Shown) -> str:
    """The whole page as text."""
    runs = shown.runs
    sections = [
        ("brief", "In brief", brief(runs)),
        ("declared", "What was declared", _declared(runs)),
        ("explorer", "Swap explorer", _explorer(shown)),
        ("measured", "What was measured", measured(runs)),
        *([("clusters", "Clusters", clusters(runs, shown.pictures))] if has_clusters(runs) else []),
        ("samples", "Samples", _samples(shown)),
        ("training", "Training", _training(runs)),
        ("settings", "Versions and settings", _settings(runs)),
    ]
    names = in_words([run.label for run in runs])
    style, script = _asset("page.css"), _asset("page.js")
    links = [element("li", element("a", title, href=f"#{name}")) for name, title, _ in sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="generator", content=f"infoplace {__version__}"),
        element("title", f"{names} · infoplace report"),
        element("style", Html(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the content", class_="skip", href="#content"),
        element(
            "header",
            element("p", "infoplace report", class_="kicker"),
            element("h1", names),
            element("p", _introduction(shown), class_="lede"),
            element("nav", element("ul", links), aria_label="Sections"),
        ),
        element(
            "main",
            [
                element("section", element("h2", title, id=f"{name}-title"), content, id=name)
                for name, title, content in sections
            ],
            id="content",
            tabindex="-1",
        ),
        element(
            "footer",
            element("p", f"Written by infoplace {__version__} on {date_words(datetime.date.today().isoformat())}."),
        ),
        element("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return "\n" + files("infoplace.report").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Nothing is loaded from anywhere, and no script runs but the page's own."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _introduction(shown: Shown) -> str:
    count = len(shown.runs)
    start = "One run" if count == 1 else f"{count} runs, side by side"
    if shown.data is None:
        return f"{start}."
    if shown.choice is None:
        return f"{start}, on {shown.data}."
    images = next(value for value in shown.choice.batch.values() if value.ndim == 4)
    channels, height, width = images.shape[1:]
    kind = "in colour" if channels == 3 else "in grey"
    same = ", on the same images" if count > 1 else ""
    return f"{start}{same}: {shown.data}, {shown.split} split, {height} \u00d7 {width} pixels {kind}."


def _declared(runs: Sequence[Run]) -> Html:
    if all(run.partition == runs[0].partition for run in runs):
        shared = element("p", "All runs share one declaration.") if len(runs) > 1 else None
        return join([shared, _declaration(runs[0].partition, "run-1", "")])
    return panels(runs, 3, lambda run, which: _declaration(run.partition, which, suffix(run, runs)))


def _declaration(partition: Partition, which: str, name: str) -> Html:
    graph = element(
        "figure",
        element("div", partition_graph(partition, f"{which}-graph"), class_="scroll", role="group", tabindex="0",
                aria_label=f"Graph of the partition{name}"),
        element("figcaption", "Dotted: a transform derives an observation. Dashed: an encoder reads it. ",
                "Solid: a decoder generates it."),
    )  # fmt: skip
    blocks = [
        [
            code(key),
            block.dim,
            _spec(_named_parameters(make_prior(block.prior))),
            f"{block.beta:g}",
            in_words(block.reads or ()),
        ]
        for key, block in partition.blocks.items()
    ]
    observations = []
    for key, observation in partition.observations.items():
        transform = "given"
        destroys = "nothing"
        if observation.transform is not None:
            steps = ", then ".join(transform_words(partition, key))
            origin = observation.of or f"{observation.source} of the batch"
            transform = f"{steps} of {origin}" + ("; drawn twice" if observation.redraw else "")
            destroys = make_transform(observation.transform).destroys
        observations.append(
            [
                *(code(key), in_words(observation.blocks or ()), transform, destroys),
                *(_spec(make_likelihood(observation.likelihood).to_spec()), f"{observation.weight:g}"),
            ]
        )
    heads = ["block", "dimensions", "prior", "β", "reads"]
    block_table = framed_table(f"{which}-blocks", "Blocks", heads, blocks, whose=name)
    heads = ["observation", "generated from", "transform", "destroys", "likelihood", "weight"]
    observation_table = framed_table(f"{which}-observations", "Observations", heads, observations, whose=name)
    return element("div", graph, block_table, element("div", observation_table, class_="wide"), class_="declaration")


def _named_parameters(prior: Prior) -> dict[str, Any]:
    """A prior's spec with its first parameter, and those others that are not as they would be if left out."""
    ((name, parameters),) = prior.to_spec().items()
    first = next(iter(parameters), None)
    return {
        name: {
            key: value for key, value in parameters.items() if key == first or value != getattr(type(prior), key, None)
        }
    }


def _spec(spec: Mapping[str, Any]) -> str:
    ((name, parameters),) = spec.items()
    values = ", ".join(f"{key}={value}" for key, value in parameters.items())
    return f"{spaced(name)} ({values})" if values else spaced(name)


def _explorer(shown: Shown) -> Html:
    if shown.choice is None:
        return note(f"There is nothing to choose from: {shown.why_none}.")
    return explorers(shown.runs, shown.choice, shown.pictures)


def _samples(shown: Shown) -> Html:
    if shown.choice is None:
        return note(f"There are no pictures: {shown.why_none}.")
    pictures = dict(zip((run.label for run in shown.runs), shown.pictures, strict=True))

    def rows(run: Run, which: str) -> Html:
        strips = []
        for observation, reconstructed, picture in pictures[run.label].rows:
            derived = " and ".join(transform_words(run.partition, observation)) or "the data"
            words = f"{observation}, reconstructed" if reconstructed else f"{observation}, {derived}"
            alt = f"A row of images: {words}{suffix(run, shown.runs)}"
            strips.append(
                element("figure", element("figcaption", words), image_of(picture, alt, class_="pixels"), class_="strip")
            )
        return element("div", strips, class_="strips")

    def variations(run: Run, which: str) -> Html:
        found = pictures[run.label].variations
        if not found:
            return note("There is one block, so nothing can be held while it varies.")
        figures = []
        for block, picture in found.items():
            others = in_words([other for other in found if other != block])
            words = f"{block} varies, {others} fixed"
            image = image_of(picture, f"Grid of generated images: {words}{suffix(run, shown.runs)}", class_="pixels")
            figures.append(element("figure", image, element("figcaption", f"{words}.")))
        return element("div", figures, class_="grids")

    return join([
        element("h3", "Data and reconstructions"),
        panels(shown.runs, 4, rows),
        element("h3", "One block at a time"),
        element("p", "Every image of a grid shares one draw of the fixed blocks from their priors and has its own draw of "
                "the varying one."),
        panels(shown.runs, 4, variations),
    ])  # fmt: skip


def _training(runs: Sequence[Run]) -> Html:
    terms = list(dict.fromkeys(key for run in runs for row in run.history for key in row))
    terms = [term for term in terms if term not in ("step", "learning_rate", "seconds")]
    if not terms:
        return note("No training log (metrics.csv) was kept, so there are no curves.")
    parts: list[Any] = [
        element("p", "Every named term of the objective, in nats for each sample. The axes are made for what comes after "
                "the first twentieth of the steps.")
    ]  # fmt: skip
    if len(runs) > 1:
        keys = [
            element("li", element("span", class_=f"key line-{index % 6}", aria_hidden="true"), run.label)
            for index, run in enumerate(runs)
        ]
        parts.append(element("ul", keys, class_="key-list", aria_label="Lines"))
    figures, table = [], []
    for index, term in enumerate(terms):
        lines = {run.label: [(row["step"], row[term]) for row in run.history if term in row] for run in runs}
        drawing = curves(lines, f"curve-{index}", f"{_term(term)} over the steps")
        figures.append(element("figure", element("figcaption", _term(term)), drawing))
        table.append([_term(term), *(number(points[-1][1]) if points else NONE for points in lines.values())])
    parts.append(element("div", figures, class_="small-multiples"))
    heads = ["term", *(run.label if len(runs) > 1 else "value" for run in runs)]
    parts.append(framed_table("training-table", "The last recorded step", heads, table))
    return join(parts)


def _term(term: str) -> str:
    kind, slash, name = term.partition("/")
    kind = {"kl": "KL divergence", "log_likelihood": "log-likelihood"}.get(kind, spaced(kind))
    return f"{kind} of {name}" if slash else kind


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _settings(runs: Sequence[Run]) -> Html:
    def panel(run: Run, which: str) -> Html:
        described = run.described
        versions = described.get("machine", described)
        entries = {"folder": run.path, "trained on": run.source}
        if is_finite(described.get("seconds")):
            entries["time"] = f"{score(described.get('steps'), 0)} steps in {_duration(described['seconds'])}"
        if "started" in described:
            entries["started"] = str(described["started"]).replace("T", ", ")
        if isinstance(versions, Mapping):
            entries |= {spaced(key): value for key, value in versions.items() if not isinstance(value, (dict, list))}
        entries["weights"] = f"{sum(parameter.numel() for parameter in run.pair.parameters()):,}"
        items = [
            element("div", element("dt", key), element("dd", value))
            for key, value in entries.items()
            if value is not None
        ]
        text, what = (run.recipe, "recipe") if run.recipe is not None else (run.partition.to_yaml(), "partition")
        label = f"The {what} of {run.label}"
        return join([
            element("dl", items),
            element("p", f"The {what}:", class_="legend"),
            element("pre", code(text), tabindex="0", role="group", aria_label=label),
        ])  # fmt: skip

    return panels(runs, 3, panel)
