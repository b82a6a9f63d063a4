"""The swap explorer: a reader chooses the image that each block is taken from, and sees the decoded mixture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from infoplace.report.markup import Html, element, join
from infoplace.report.parts import code, image_of, note, panels
from infoplace.report.pictures import GAP, LEAD, Choice, Mixtures, Picture, RunPictures
from infoplace.report.runs import Run

__all__ = ["explorers"]


@dataclasses.dataclass(frozen=True)
class _Member:
    """A run in an explorer; ``sprite`` is the identifier of the picture that holds its mixtures."""

    run: Run
    mixtures: Mixtures
    sprite: str


def explorers(runs: Sequence[Run], choice: Choice, pictures: Sequence[RunPictures]) -> Html:
    """An explorer for all runs that have the same blocks, since one choice then says what to show of each of them.

    Args:
        runs: the runs.
        choice: the images to choose from.
        pictures: of each run.
    """
    groups: dict[tuple[str, ...], list[_Member]] = {}
    parts: list[Any] = []
    for index, (run, drawn) in enumerate(zip(runs, pictures, strict=True), 1):
        if drawn.mixtures is None:
            parts.append(note(f"{run.label} has too many blocks for a picture of all their mixtures."))
        else:
            member = _Member(run, drawn.mixtures, f"sprite-{index}")
            groups.setdefault(drawn.mixtures.blocks, []).append(member)
    if groups:
        parts.append(
            element(
                "p",
                "Each block can be taken from an image of its own. Where information is in its place, what is seen of an "
                "image follows its block and nothing else.",
            )
        )
    several = len(runs) > 1
    for index, members in enumerate(groups.values(), 1):
        grids = panels([member.run for member in members], 3, _grids(members, several))
        parts += [_explorer(choice, members, f"explorer-{index}", several), element("div", grids, class_="static")]
    return join(parts)


def _explorer(choice: Choice, members: Sequence[_Member], identifier: str, several: bool) -> Html:
    mixtures, sprite = members[0].mixtures, members[0].sprite
    blocks, (width, height) = mixtures.blocks, mixtures.tile
    columns = mixtures.count if mixtures.count <= 8 else -(-mixtures.count // 2)
    fieldsets = []
    for place, block in enumerate(blocks):
        options = []
        for index, name in enumerate(choice.names[: mixtures.count]):
            key = f"{identifier}-{place}-{index}"
            chosen = index == min(place, mixtures.count - 1)
            options.append(
                element(
                    "label",
                    element("input", type="radio", id=key, name=f"{identifier}-{place}", value=index, checked=chosen),
                    element("canvas", width=width, height=height, data_sprite=sprite, data_source=index,
                            aria_hidden="true"),
                    element("span", name, class_="unseen"),
                    for_=key,
                )
            )  # fmt: skip
        legend = element("legend", code(block), " from")
        choices = element("div", options, class_="choices", style=f"--columns:{columns}")
        fieldsets.append(element("fieldset", legend, choices, data_block=block))
    sources = [
        element(
            "figure",
            element("canvas", width=width, height=height, data_sprite=sprite, data_chosen=place, role="img",
                    aria_label=f"The image that {block} is from"),
            element("figcaption", code(block), " from"),
            class_="source",
        )
        for place, block in enumerate(blocks)
    ]  # fmt: skip
    results = [
        element(
            "figure",
            element("canvas", width=width, height=height, data_sprite=member.sprite,
                    data_mixture=True, role="img", aria_label=f"The mixture, decoded by {member.run.label}"),
            element("figcaption", element("strong", member.run.label) if several else "mixture"),
            class_="mixture",
        )
        for member in members
    ]  # fmt: skip
    hidden = [
        element("img", src=member.mixtures.sprite.uri, alt="", id=member.sprite, hidden=True)
        for member in members
        if member.mixtures.grids
    ]
    return element(
        "div",
        element(
            "div",
            element("div", sources, class_="sources"),
            element("div", results, class_="results"),
            element("p", class_="status", role="status"),
            class_="stage",
        ),
        element("div", fieldsets, class_="controls"),
        hidden,
        class_="explorer",
        data_explorer=True,
        data_count=mixtures.count,
        data_gap=GAP,
        data_lead=LEAD,
        hidden=True,
    )


def _grids(members: Sequence[_Member], several: bool) -> Callable[[Run, str], Html]:
    """The mixtures as plain pictures, for print and where no script runs; they are the explorer's own source."""
    found = {member.run.label: member for member in members}

    def grids(run: Run, which: str) -> Html:
        member = found[run.label]
        mixtures, name = member.mixtures, f", {run.label}" if several else ""
        if len(mixtures.blocks) == 1:
            return _grid_figure(mixtures.sprite, f"Images, and their reconstructions below{name}", id=member.sprite)
        if len(mixtures.blocks) == 2:
            across, down = mixtures.blocks
            words = f"{across} of the image above, {down} of the image at the left{name}"
            return _grid_figure(mixtures.sprite, words, id=member.sprite)
        return join(
            _grid_figure(picture, f"{block} of the image above, the other blocks of the image at the left{name}")
            for block, picture in mixtures.grids.items()
        )

    return grids


def _grid_figure(picture: Picture, words: str, **attributes: Any) -> Html:
    image = image_of(picture, f"Grid of mixtures: {words}", class_="pixels", **attributes)
    return element("figure", image, element("figcaption", f"{words}."))
