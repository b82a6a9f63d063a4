"""What the sections of a report have in common: notes, tables, numbers and words."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from infoplace.errors import is_finite
from infoplace.report.markup import Html, element, join
from infoplace.report.pictures import Picture
from infoplace.report.runs import Run

__all__ = [
    "NONE",
    "WAYS",
    "cell",
    "change_words",
    "code",
    "date_words",
    "framed_table",
    "image_of",
    "note",
    "panels",
    "score",
    "share",
    "spaced",
    "suffix",
    "unmeasured",
]

NONE = "\u2013"
"""What stands where there is no number."""

WAYS = {"prior": "from its prior", "other image": "of another image"}
"""What a block is replaced with in the swap test."""


def date_words(date: str) -> str:
    """An ISO date as it is spoken; any other text as it is."""
    try:
        day = datetime.datetime.fromisoformat(date)
    except ValueError:
        return date
    return f"{day.day} {day:%B %Y}"


def note(*children: Any) -> Html:
    """A sentence that says why something is not there."""
    return element("p", *children, class_="note")


def code(words: str) -> Html:
    """A name or a command as it is typed."""
    return element("code", words)


def panels(runs: Sequence[Run], level: int, make: Callable[[Run, str], Any]) -> Html:
    """What is made of each run, side by side under its name; without the name where there is one run."""
    if len(runs) == 1:
        return join([make(runs[0], "run-1")])
    made = [
        element("div", element(f"h{level}", run.label), make(run, f"run-{index}"), class_="run")
        for index, run in enumerate(runs, 1)
    ]
    return element("div", made, class_="runs")


def cell(content: Any, **attributes: Any) -> Html:
    """A table's cell with attributes of its own."""
    return element("td", content, **attributes)


def framed_table(
    identifier: str,
    caption: str,
    columns: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    above: Sequence[Any] = (),
    whose: str = "",
    quiet: bool = False,
) -> Html:
    """A table that scrolls inside its own frame where the screen is narrow.

    Args:
        identifier: of its caption.
        caption: what it shows.
        columns: the heads.
        rows: each begins with its own head; cells that are no ``<td>`` become one.
        above: ``(words, columns)`` of a row over the heads, after the first.
        whose: what sets the caption apart from that of another run, for those who hear it and not see where it stands.
        quiet: leave the caption to those too, because a heading right above says the same.
    """
    head = element("tr", [element("th", column, scope="col") for column in columns])
    if above:
        spans = [element("th", words, scope="colgroup", colspan=span) for words, span in above]
        head = join([element("tr", element("td"), spans), head])
    body = []
    for first, *cells in rows:
        made = [each if isinstance(each, Html) and each.startswith("<td") else cell(each) for each in cells]
        body.append(element("tr", element("th", first, scope="row"), made))
    words = element("span", caption, element("span", whose, class_="unseen"), class_="unseen" if quiet else None)
    content = [element("caption", words, id=identifier), element("thead", head), element("tbody", body)]
    return element(
        "div", element("table", content), class_="scroll", role="group", aria_labelledby=identifier, tabindex="0"
    )


def suffix(run: Run, runs: Sequence[Run]) -> str:
    """What sets a caption of this run apart from those of the others."""
    return f" ({run.label})" if len(runs) > 1 else ""


def score(value: Any, digits: int = 2) -> str:
    """A number with so many digits, a dash where there is none, and any other value as it is."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    if not is_finite(value):
        return str(value)
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "\u2212")


def share(value: Any) -> float:
    """A value cut to [0, 1], for the length of a bar or the depth of a shade; 0 for what is no number."""
    return round(min(max(float(value), 0.0), 1.0), 3) if is_finite(value) else 0.0


def spaced(name: Any) -> str:
    """A name that was written with underscores."""
    return str(name).replace("_", " ")


def change_words(block: Any, how: Any) -> str:
    """What the swap test did to an image."""
    return "reconstruction" if block is None else f"{block} {WAYS.get(str(how), str(how))}"


def image_of(picture: Picture, alt: str, **attributes: Any) -> Html:
    """A picture with its alternative text."""
    return element("img", src=picture.uri, alt=alt, width=picture.width, height=picture.height, **attributes)


def unmeasured(run: Run) -> Html:
    """That a run has no evaluation, and what makes one."""
    return note(f"{run.label} has not been measured yet; ", code(f"infoplace evaluate {run.path}"), " fills this in.")
