"""The drawings of a report, as SVG elements that take their colours from the page: the partition, bars and curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from infoplace.distributions import make_likelihood, make_prior
from infoplace.partition import Partition
from infoplace.report.markup import Html, element, in_words
from infoplace.transforms import make_transform

__all__ = ["Bar", "Column", "bars", "curves", "partition_graph", "shades", "transform_words"]

_CHARACTER = 6.3
"""Width of a character of the drawings' text in their own units, on the safe side."""

_LINE = 15.0
_LONGEST = 26


def _drawing(identifier: str, title: str, description: str, size: tuple[float, float], *children: Any) -> Html:
    """An SVG that screen readers announce by its title and describe by its description."""
    width, height = size
    return element(
        "svg",
        element("title", title, id=f"{identifier}-title"),
        element("desc", description, id=f"{identifier}-desc"),
        *children,
        class_="drawing",
        role="img",
        aria_labelledby=f"{identifier}-title {identifier}-desc",
        viewBox=f"0 0 {_at(width)} {_at(height)}",
        style=f"width:{_at(width)}px;min-width:{_at(min(width, max(260.0, 0.75 * width)))}px",
    )


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, words: str, kind: str, anchor: str = "middle") -> Html:
    return element("text", words, x=_at(x), y=_at(y), class_=kind, text_anchor=anchor)


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


# ---- the partition ---------------------------------------------------------------------------------------------------


def transform_words(partition: Partition, name: str) -> list[str]:
    """An observation's transform as lines of text: what is applied, one after the other, with its parameters.

    >>> from infoplace.partition import Block, Observation
    >>> partition = Partition({"z": Block(2)}, {"x": Observation(), "y": Observation(transform="grayscale")})
    >>> transform_words(partition, "x"), transform_words(partition, "y")
    ([], ['grayscale(channels=3)'])
    """
    transform = partition.observations[name].transform
    return [] if transform is None else _spec_words(make_transform(transform).to_spec())


def _spec_words(spec: Mapping[str, Any]) -> list[str]:
    ((name, parameters),) = spec.items()
    if name == "compose":
        return [line for part in parameters["transforms"] for line in _spec_words(part)]
    values = ", ".join(f"{key}={value}" for key, value in parameters.items())
    return [f"{name}({values})" if values else name]


@dataclasses.dataclass
class _Node:
    """A box of the graph: its name, what stands below it, and where its middle and its top are."""

    name: str
    lines: list[str]
    kind: str
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    def wanted(self) -> float:
        return max(96.0, max(len(_short(line)) for line in [self.name, *self.lines]) * _CHARACTER + 22)

    def draw(self) -> Html:
        left, rounding = self.x - self.width / 2, self.height / 2 if self.kind.startswith("block") else 4
        box = element(
            "rect",
            x=_at(left), y=_at(self.y), width=_at(self.width), height=_at(self.height), rx=_at(rounding),
        )  # fmt: skip
        first = self.y + (self.height - _LINE * len(self.lines)) / 2 + 4.5
        words = [_text(self.x, first, _short(self.name), "node-name")]
        for index, line in enumerate(self.lines, 1):
            words.append(_text(self.x, first + index * _LINE, _short(line), "node-note"))
        return element("g", box, words, class_=f"node {self.kind}")


def partition_graph(partition: Partition, identifier: str) -> Html:
    """The declaration, from top to bottom: what is observed, the blocks whose encoders read it, what they generate.

    Args:
        partition: the declaration.
        identifier: of the drawing; no other on the page has it.
    """
    depth, parent = _derivations(partition)
    observed = {name: _Node(name, _observed_lines(partition, name), "observed") for name in depth}
    blocks = {
        name: _Node(name, _block_lines(partition, name), f"block block-{number % 6}")
        for number, name in enumerate(partition.blocks)
    }
    generated = {
        name: _Node(name, _generated_lines(partition, name), "generated")
        for name in depth
        if name in partition.observations
    }
    labels = {name: _label_lines(partition, name) for name in depth if parent[name] is not None}
    boxes = [*observed.values(), *blocks.values(), *generated.values()]
    width = max(box.wanted() for box in boxes)
    label_width = max((len(_short(line)) for lines in labels.values() for line in lines), default=0) * _CHARACTER
    pitch = max(width, label_width) + 28
    total = pitch * max(len(observed), len(blocks), len(generated))

    column = {name: index for index, name in enumerate(observed)}
    # A block stands below what it reads, as far as that goes.
    reading = {name: [column[read] for read in block.reads or ()] for name, block in partition.blocks.items()}
    order = sorted(blocks, key=lambda name: sum(reading[name]) / len(reading[name]))
    between = 34 + _LINE * max((len(lines) for lines in labels.values()), default=0)
    height = 16 + _LINE * max(len(box.lines) + 1 for box in observed.values())
    top = 2.0
    for name, box in observed.items():
        _place(box, column[name], len(observed), total, top + depth[name] * (height + between), width, height)
    end = top + max(depth.values()) * (height + between) + height
    block_height = 20 + _LINE * max(len(box.lines) + 1 for box in blocks.values())
    for index, name in enumerate(order):
        _place(blocks[name], index, len(blocks), total, end + 64, width, block_height)
    below = end + 64 + block_height
    generated_height = 16 + _LINE * max(len(box.lines) + 1 for box in generated.values())
    for index, box in enumerate(generated.values()):
        _place(box, index, len(generated), total, below + 64, width, generated_height)

    arrows: list[Html] = []
    texts: list[Html] = []
    for name, lines in labels.items():
        box, origin = observed[name], observed[str(parent[name])]
        side = 1 if box.x > origin.x else -1
        start, level = origin.x + side * origin.width / 2, origin.y + origin.height / 2
        corner = box.x - side * 10
        bend = f"M{_at(start)} {_at(level)}H{_at(corner)}q{side * 10} 0 {side * 10} 10V{_at(box.y - 2)}"
        arrows.append(_arrow(bend, "derives", identifier))
        first = box.y - 16 - _LINE * (len(lines) - 1)
        plate = max(len(_short(line)) for line in lines) * _CHARACTER
        texts.append(
            element(
                "rect",
                x=_at(box.x - plate / 2), y=_at(first - 13), width=_at(plate), height=_at(_LINE * len(lines) + 4),
                class_="plate",
            )
        )  # fmt: skip
        texts += [_text(box.x, first + i * _LINE, _short(line), "edge-label") for i, line in enumerate(lines)]
    for name, block in partition.blocks.items():
        for read in block.reads or ():
            arrows.append(_arrow(_curve(observed[read], blocks[name], end), "reads", identifier))
    for name, box in generated.items():
        for block_name in partition.observations[name].blocks or ():
            arrows.append(_arrow(_curve(blocks[block_name], box, below), "generates", identifier))
    height_in_all = below + 64 + generated_height + 8
    marker = element(
        "defs",
        element(
            "marker",
            element("path", d="M0 0L8 4L0 8z", class_="arrow-head"),
            id=f"{identifier}-arrow", viewBox="0 0 8 8", refX="7", refY="4",
            markerWidth="7", markerHeight="7", orient="auto",
        ),
    )  # fmt: skip
    return _drawing(
        identifier,
        "The partition as a graph",
        describe(partition),
        (total, height_in_all),
        marker,
        arrows,
        [box.draw() for box in boxes],
        texts,
    )


def describe(partition: Partition) -> str:
    """The declaration in sentences."""
    sentences = []
    for name in partition.observations:
        transform, origin = in_words(transform_words(partition, name) or ["nothing"]), _origin(partition, name)
        if origin is not None:
            sentences.append(f"{name} is derived from {origin} by {transform}.")
    for name, block in partition.blocks.items():
        sentences.append(f"The encoder of {name} reads {in_words(list(block.reads or ()))}.")
    for name, observation in partition.observations.items():
        sentences.append(f"{name} is generated from {in_words(list(observation.blocks or ()))}.")
    return " ".join(sentences)


def _origin(partition: Partition, name: str) -> str | None:
    """What an observation is derived from: another one, or a source of the batch."""
    observation = partition.observations[name]
    return (observation.of or f"{observation.source} of the batch") if observation.derived else None


def _derivations(partition: Partition) -> tuple[dict[str, int], dict[str, str | None]]:
    """How often each observation was transformed, and from what; each follows what it is derived from.

    Between an origin and what is derived from it stand only further descendants, one step lower, so the arrows between
    them cross nothing.
    """
    parent: dict[str, str | None] = {}
    for name in partition.observations:
        origin = _origin(partition, name)
        if origin is not None and origin not in partition.observations:
            parent.setdefault(origin, None)
        parent[name] = origin
    depth: dict[str, int] = {}

    def walk(name: str, level: int) -> None:
        depth[name] = level
        for child, origin in parent.items():
            if origin == name:
                walk(child, level + 1)

    for name, origin in parent.items():
        if origin is None:
            walk(name, 0)
    return depth, parent


def _observed_lines(partition: Partition, name: str) -> list[str]:
    observation = partition.observations.get(name)
    if observation is None:
        return []
    if observation.redraw:
        return ["two draws: one read"]
    return ["derived"] if observation.derived else ["given"]


def _block_lines(partition: Partition, name: str) -> list[str]:
    block = partition.blocks[name]
    lines = [f"{block.dim} dimensions", str(make_prior(block.prior).spec_name).replace("_", " ")]
    return lines if block.beta == 1 else [*lines, f"β {block.beta:g}"]


def _generated_lines(partition: Partition, name: str) -> list[str]:
    observation = partition.observations[name]
    lines = [str(make_likelihood(observation.likelihood).spec_name).replace("_", " ")]
    if observation.redraw:
        lines.append("the other draw")
    return lines if observation.weight == 1 else [*lines, f"weight {observation.weight:g}"]


def _label_lines(partition: Partition, name: str) -> list[str]:
    lines = []
    for words in transform_words(partition, name):
        transform, _, parameters = words.partition("(")
        lines += [transform, parameters.removesuffix(")")] if parameters else [transform]
    return lines


def _place(box: _Node, index: int, count: int, total: float, y: float, width: float, height: float) -> None:
    box.x, box.y, box.width, box.height = (index + 0.5) * total / count, y, width, height


def _curve(start: _Node, stop: _Node, bottom: float) -> str:
    """From one box's lower edge straight down to where its row ends, then in a curve to the other's upper edge."""
    middle = (bottom + stop.y) / 2
    return (
        f"M{_at(start.x)} {_at(start.y + start.height)}V{_at(bottom)}"
        f"C{_at(start.x)} {_at(middle)} {_at(stop.x)} {_at(middle)} {_at(stop.x)} {_at(stop.y - 2)}"
    )


def _arrow(path: str, kind: str, identifier: str) -> Html:
    return element("path", d=path, class_=f"arrow {kind}", marker_end=f"url(#{identifier}-arrow)")


# ---- bars ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar: its label, its value in [0, 1] and the class of its colour."""

    label: str
    value: float
    kind: str

    @property
    def words(self) -> str:
        """The value as it is written; empty where it is no number."""
        return f"{self.value:.2f}" if math.isfinite(self.value) else ""


def bars(values: Sequence[Bar], identifier: str, title: str, chance: float = 0.0) -> Html:
    """Horizontal bars from 0 to 1 with their numbers, and a dashed line at chance.

    Args:
        values: the bars, from top to bottom.
        identifier: of the drawing.
        title: what is drawn.
        chance: where the line is; none at 0.
    """
    label = max(len(bar.label) for bar in values) * _CHARACTER + 8
    span, step = 150.0, 23.0
    bottom = step * len(values) + 2
    width = label + span + 40
    drawn, words = [element("line", x1=_at(label), x2=_at(label), y1="0", y2=_at(bottom), class_="axis")], []
    for index, bar in enumerate(values):
        middle = index * step + step / 2
        length = span * min(max(bar.value, 0.0), 1.0) if bar.words else 0.0
        box = {"x": _at(label), "y": _at(middle - 7), "width": _at(length), "height": "14"}
        drawn.append(element("rect", **box, class_=f"bar {bar.kind}"))
        value = bar.words or "\u2013"
        words.append(_text(label - 8, middle + 4, bar.label, "bar-label", "end"))
        words.append(_text(label + length + 6, middle + 4, value, "bar-value", "start"))
    if chance > 0:
        x = label + span * chance
        drawn.append(element("line", x1=_at(x), x2=_at(x), y1="0", y2=_at(bottom), class_="chance"))
        words.append(_text(x, bottom + 12, f"chance {chance:.2f}", "tick", "middle"))
    numbers = ", ".join(f"{bar.label} {bar.words or 'not known'}" for bar in values)
    description = f"{numbers}; chance {chance:.2f}." if chance > 0 else f"{numbers}."
    return _drawing(identifier, title, description, (width, bottom + (16 if chance > 0 else 4)), drawn, words)


# ---- shades -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of :func:`shades`: a cluster, its share of the images in [0, 1], and the label it is taken for."""

    name: str
    share: float
    label: str

    @property
    def words(self) -> str:
        """The share in percent."""
        percent = 100 * self.share
        return "0" if percent <= 0 else "<1" if percent < 0.95 else f"{percent:.0f}"


def shades(
    values: Sequence[Sequence[float]],
    labels: Sequence[str],
    columns: Sequence[Column],
    identifier: str,
    title: str,
    factor: str,
) -> Html:
    """Boxes in rows and columns, the stronger in colour the larger their value, with each column's share above it.

    Args:
        values: at least 0, a row for each label.
        labels: the names of the rows.
        columns: of each row.
        identifier: of the drawing.
        title: what is drawn.
        factor: what the labels are.
    """
    box, bar = 23.0, 34.0
    left = max(len(name) for name in (*labels, "share, %", factor)) * _CHARACTER + 10
    top, bottom = 16 + bar, 16 + bar + 6 + box * len(labels)
    right = left + box * len(columns)
    most = max(max(row) for row in values) or 1.0
    highest = max(column.share for column in columns) or 1.0
    drawn: list[Html] = []
    words = [
        _text(left - 8, top - 4, "share, %", "tick", "end"),
        _text(left - 8, bottom + 15, "cluster", "tick", "end"),
    ]
    for place, column in enumerate(columns):
        x, length = left + box * place, bar * max(0.0, column.share) / highest
        spot = {"x": _at(x + 3), "y": _at(top - length), "width": _at(box - 6), "height": _at(length)}
        drawn.append(element("rect", **spot, class_="share"))
        words.append(_text(x + box / 2, top - length - 4, column.words, "tick"))
        words.append(_text(x + box / 2, bottom + 15, column.name, "bar-label"))
        before = columns[place - 1] if place else column
        if (column.label, column.share > 0) != (before.label, before.share > 0):
            drawn.append(element("line", x1=_at(x), x2=_at(x), y1=_at(top + 6), y2=_at(bottom), class_="axis"))
    for row, (name, across) in enumerate(zip(labels, values, strict=True)):
        y = top + 6 + box * row
        words.append(_text(left - 8, y + box / 2 + 4, name, "bar-label", "end"))
        for place, (column, value) in enumerate(zip(columns, across, strict=True)):
            if value > 0:
                spot = {
                    "x": _at(left + box * place + 1),
                    "y": _at(y + 1),
                    "width": _at(box - 2),
                    "height": _at(box - 2),
                }
                said = element("title", f"{factor} {name}, cluster {column.name}: {value:,.0f}")
                drawn.append(
                    element("rect", said, **spot, class_="shade", fill_opacity=f"{max(0.03, value / most):.2f}")
                )
    frame = {"x": _at(left), "y": _at(top + 6), "width": _at(right - left), "height": _at(bottom - top - 6)}
    used = [f"cluster {column.name}, {column.words}%: mostly {column.label}" for column in columns if column.share > 0]
    unused = [column.name for column in columns if column.share <= 0]
    description = "; ".join(used) + (f". Unused: {', '.join(unused)}." if unused else ".")
    return _drawing(
        identifier, title, description, (right + 4, bottom + 22), element("rect", **frame, class_="frame"), drawn, words
    )


# ---- curves ----------------------------------------------------------------------------------------------------------


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], identifier: str, title: str) -> Html:
    """One term over the steps, a line for each run.

    The axis is made for what comes after the first twentieth of the steps, because a loss falls so far at first that
    nothing else could be seen; what lies outside is cut off.

    Args:
        lines: ``{run: [(step, value), ...]}``.
        identifier: of the drawing.
        title: what is drawn.
    """
    width, height, left, bottom, top = 280.0, 150.0, 52.0, 24.0, 8.0
    known = {run: [p for p in points if math.isfinite(p[1])] for run, points in lines.items()}
    last = max((points[-1][0] for points in known.values() if points), default=1.0)
    shown = [y for points in known.values() for x, y in points if x >= last / 20]
    low, high, ticks = _scale(min(shown, default=0.0), max(shown, default=1.0))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - 8) * x / last,
            top + (height - bottom - top) * (high - y) / (high - low),
        )

    parts: list[Html] = [
        element(
            "clipPath",
            element(
                "rect", x=_at(left), y=_at(top - 2), width=_at(width - left), height=_at(height - bottom - top + 3)
            ),
            id=f"{identifier}-clip",
        )
    ]
    for tick in ticks:
        y = place(0, tick)[1]
        parts.append(element("line", x1=_at(left), x2=_at(width - 8), y1=_at(y), y2=_at(y), class_="grid"))
        parts.append(_text(left - 6, y + 4, number(tick), "tick", "end"))
    parts.append(_text(left, height - 6, "0", "tick", "middle"))
    parts.append(_text(width - 8, height - 6, f"{last:,.0f} steps", "tick", "end"))
    for index, points in enumerate(known.values()):
        thinned = points[:: max(1, len(points) // 300)]
        path = "L".join(f"{_at(x)} {_at(y)}" for x, y in (place(*point) for point in thinned))
        if path:
            kind = f"curve line-{index % 6}"
            parts.append(element("path", d=f"M{path}", class_=kind, clip_path=f"url(#{identifier}-clip)"))
    ends = [f"{run} {number(points[0][1])} to {number(points[-1][1])}" for run, points in known.items() if points]
    description = f"From the first to the last recorded step: {'; '.join(ends) or 'nothing was recorded'}."
    return _drawing(identifier, title, description, (width, height), parts)


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round numbers around the values, and three to five of them as ticks."""
    if high - low < 1e-9 * max(abs(high), abs(low), 1.0):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 3
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, last * step, [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A number of any size, with a true minus sign.

    >>> number(-15254.1), number(0.25), number(12.5)
    ('−15,254', '0.25', '12.5')
    """
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return digits.replace("-", "\u2212")
