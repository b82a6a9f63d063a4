"""The report: what is on the page, that everybody can read it, and that it does what it says in a browser."""

from __future__ import annotations

import base64
import importlib.util
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

import infoplace as ip
from infoplace.report import write_report

VOID = {"br", "hr", "img", "input", "link", "meta"}
SIDE = 16
EVIL = "<script>alert(1)</script>"


# ---- a small reader of pages -----------------------------------------------------------------------------------------


class Node:
    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []

    def get(self, name: str) -> str:
        return self.attributes.get(name) or ""

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str, kind: str = "") -> list[Node]:
        return [node for node in self.walk() if node.tag == tag and (not kind or kind in node.get("class").split())]

    def one(self, identifier: str) -> Node:
        (found,) = [node for node in self.walk() if node.get("id") == identifier]
        return found

    @property
    def text(self) -> str:
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join(" ".join(parts).split())


class Page(HTMLParser):
    """The tree of a page; a tag that is left open or closed twice is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self.here = Node("", {}, None)
        self.feed(text)
        self.close()
        assert self.here is self.root, f"<{self.here.tag}> is left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        node = Node(tag, dict(attrs), self.here)
        self.here.children.append(node)
        if tag not in VOID:
            self.here = node

    def handle_endtag(self, tag: str) -> None:
        assert self.here.tag == tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        self.here.children.append(data)


def read(path: Path) -> Node:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    return Page(text).root


def table(page: Node, caption: str, number: int = 0) -> list[list[str]]:
    """The texts of a table's rows, its heads first."""
    found = [node for node in page.all("table") if node.all("caption")[0].text.startswith(caption)]
    rows = found[number].all("tr")
    return [[cell.text for cell in row.walk() if cell.tag in ("td", "th")] for row in rows]


def pixels(image: Node) -> numpy.ndarray:
    """RGBA of an image in a data URI."""
    head, _, content = image.get("src").partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.mode == "RGBA"
        return numpy.array(picture)


# ---- runs to report on -----------------------------------------------------------------------------------------------

TWO = {
    "blocks": {
        "z_g": {"dim": 3, "reads": ["x"]},
        "z_l": {"dim": 2, "beta": 2.0, "prior": {"mixture": {"components": 3}}},
    },
    "observations": {"x": {}, "x_hat": {"blocks": ["z_l"], "transform": ["grayscale", "blur"], "weight": 0.5}},
}
THREE = {
    "blocks": {"a": {"dim": 2}, "b": {"dim": 2}, "c": {"dim": 1}},
    "observations": {
        "x": {},
        "shuffled": {"blocks": ["b", "c"], "transform": {"patch_shuffle": {"n": 4}}, "redraw": True},
        "flat": {"blocks": ["c"], "transform": "grayscale", "of": "shuffled"},
    },
}


def score(changed: str | None, how: str, factor: str, value: float) -> dict[str, Any]:
    fixed = {"metric": "accuracy", "real": 0.9, "chance": 0.1}
    return {
        "changed": changed,
        "how": how,
        "factor": factor,
        "score": value,
        **fixed,
        "normalised": (value - 0.1) / 0.8,
    }


def placed(block: str, probe: str, value: float) -> dict[str, Any]:
    controls = {"chance": 0.1, "untrained": 0.31, "shuffled": 0.11, "normalised": (value - 0.1) / 0.9}
    where = {"block": block, "factor": "digit", "probe": probe, "metric": "accuracy"}
    return {**where, "score": value, "low": value - 0.02, "high": value + 0.02, **controls}


BITS = {
    "bits_per_dim": 4.4131,
    "standard_error": 0.0012,
    "elbo_bits_per_dim": 4.5,
    "samples": 64,
    "images": 200,
    "dims": 768,
}
EVALUATION = {
    "infoplace": "0.1.0",
    "date": "2026-11-22",
    "machine": {"device": "cpu"},
    "data": {"source": "images", "name": "images", "split": "test", "images": 1234, "fingerprint": "0123456789abcdef"},
    "settings": {"seed": 5, "latents": "posterior means"},
    "factors": {"digit": {"block": "z_g", "given": None}, EVIL: {"block": None, "given": None}},
    "predictors": {"digit": {"metric": "accuracy", "real": 0.9, "chance": 0.1}},
    "skipped": {"something": "it was <b>not</b> there"},
    "tables": {
        "swap": [
            score(None, "kept", "digit", 0.88),
            score("z_g", "prior", "digit", 0.12),
            score("z_l", "prior", "digit", 0.83),
            score(None, "kept", EVIL, 0.5),
        ],
        "kept_crossed": [{"factor": "digit", "block": "z_g", "how": "prior", "kept": 0.9125, "crossed": -0.0251}],
        "placement": [
            placed(block, probe, value) for probe in ("linear", "mlp") for block, value in (("z_g", 0.97), ("z_l", 0.14))
        ],
        "placement_summary": [{"probe": "linear", "factor": "all", "leakage": 0.04, "redundancy": None}],
        "kl": [{"block": "z_g", "nats": 62.34, "standard_error": 0.12, "bits": 89.9, "dims": 3, "active": None}],
        "bits_per_dim": [{"observation": "x", **BITS}],
        "disentanglement": [{"metric": "mig", "score": 0.125}, {"metric": "sap_blocks", "score": float("nan")}],
        "my_own": [{"what": EVIL, "value": 0.25, "count": 7}],
    },
}  # fmt: skip


CLUSTERED = {
    "blocks": {"z_g": {"dim": 3, "prior": {"mixture": {"components": 4, "y": "enumerate"}}}, "z_l": {"dim": 2}},
    "observations": {"x": {}, "x_hat": {"blocks": ["z_l"], "transform": {"patch_shuffle": {"n": 4}}}},
}


def cluster_tables(block: str = "z_g", count: int = 4) -> dict[str, list[dict[str, Any]]]:
    """As the metric ``clustering`` writes them: cluster 2 is digit 0, 0 and 3 are digit 7, and no image is in 1."""
    where = {"block": block, "factor": "digit"}
    scores = {"majority": 0.9, "hungarian": 0.75, "nmi": 0.655, "ari": -0.004, "one_cluster": 0.5, "clusters_used": 3,
              "clusters_effective": 2.5, "calibration_error": 0.125}  # fmt: skip
    binned = {"block": block, "factor": "ground (10 bins)", "classes": count, "metric": "nmi", "value": 0.02}
    shares = {2: (0.5, 0), 0: (0.495, 7), 3: (0.005, 7), 1: (0.0, 7)}
    inside = {(0, 2): 90, (7, 2): 10, (7, 0): 99, (7, 3): 1}
    return {
        "clustering": [
            *({**where, "classes": count, "metric": metric, "value": value} for metric, value in scores.items()),
            binned,
        ],
        "clustering_labels": [
            {**where, "cluster": cluster, "share": share, "majority": label, "hungarian": None}
            for cluster, (share, label) in shares.items()
        ],
        "clustering_confusion": [
            {**where, "label": label, "cluster": cluster, "images": number}
            for (label, cluster), number in inside.items()
        ],
    }


def images(folder: Path, count: int = 40, side: int = SIDE, channels: int = 3) -> Path:
    """Bright squares on dark grounds, with the class they are drawn by."""
    generator = numpy.random.default_rng(0)
    drawn = generator.integers(0, 90, (count, side, side, channels), dtype=numpy.uint8)
    labels = numpy.arange(count) % 4
    for index, label in enumerate(labels):
        drawn[index, 3 * label : 3 * label + 4, 2:9] = generator.integers(150, 256, channels)
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        numpy.savez(folder / f"{split}.npz", images=drawn, digit=labels)
    return folder


def trained(out: Path, partition: dict[str, Any], source: Path, shape: tuple[int, ...] = (3, SIDE, SIDE)) -> Path:
    settings = {"steps": 3, "batch_size": 8, "log_every": 1}
    recipe = ip.Recipe.from_dict({"partition": partition, "data": str(source), "training": settings})
    data = torch.rand(16, *shape, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
    pair = ip.train(recipe, data, shape, out, device="cpu", progress=False)
    # What three steps have learned is one grey; larger weights make mixtures that differ.
    with torch.no_grad():
        for parameter in pair.model.decoders.parameters():
            parameter.mul_(1.5)
    pair.save(out)
    return out


def evaluated(run: Path, **changes: Any) -> Path:
    (run / "evaluation.json").write_text(json.dumps(EVALUATION | changes))
    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def source(place: Path) -> Path:
    return images(place / "images")


@pytest.fixture(scope="module")
def two(place: Path, source: Path) -> Path:
    return evaluated(trained(place / "two", TWO, source))


@pytest.fixture(scope="module")
def three(place: Path, source: Path) -> Path:
    return trained(place / "three", THREE, source)


@pytest.fixture(scope="module")
def other(place: Path, two: Path) -> Path:
    """A second run of the same declaration, whose name could be taken for a tag."""
    return Path(shutil.copytree(two, place / f"b{EVIL.replace('/', '')}&\"c'"))


@pytest.fixture(scope="module")
def written(place: Path, two: Path) -> Path:
    return write_report([two], place / "one.html", images=5)


@pytest.fixture(scope="module")
def page(written: Path) -> Node:
    return read(written)


@pytest.fixture(scope="module")
def several(place: Path, two: Path, other: Path, three: Path) -> Path:
    return write_report([two, other, three], place / "several.html", images=4)


@pytest.fixture(scope="module")
def clustered(place: Path, source: Path) -> Path:
    return evaluated(trained(place / "clustered", CLUSTERED, source), tables=cluster_tables())


@pytest.fixture(scope="module")
def clusters(place: Path, clustered: Path) -> Path:
    return write_report([clustered], place / "clusters.html", images=3)


@pytest.fixture(scope="module")
def clusters_twice(place: Path, clustered: Path, two: Path) -> Path:
    """Beside a run of the same declaration, and one that has no clusters."""
    again = Path(shutil.copytree(clustered, place / "again"))
    return write_report([clustered, two, again], place / "clusters_twice.html", images=3)


# ---- what everybody can read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["written", "several", "clusters", "clusters_twice"])
def test_the_page_is_accessible(name, request):
    page = read(request.getfixturevalue(name))
    nodes = list(page.walk())
    identifiers = [node.get("id") for node in nodes if "id" in node.attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert page.all("html")[0].get("lang") == "en"
    assert page.all("title")[0].text
    levels = [int(node.tag[1]) for node in nodes if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for node in nodes:
        for reference in (node.get("aria-labelledby") + " " + node.get("for")).split():
            assert reference in identifiers
        if node.tag == "a":
            assert node.get("href").removeprefix("#") in identifiers
        if node.tag == "img":
            assert node.get("alt") or "hidden" in node.attributes
        if node.tag == "svg":
            assert node.get("role") == "img"
            assert [child.tag for child in node.children[:2]] == ["title", "desc"]
            assert all(child.text for child in node.children[:2])
        if node.tag == "canvas":
            assert node.get("aria-hidden") == "true" or (node.get("role") == "img" and node.get("aria-label"))
        if node.tag == "table":
            assert node.all("caption")[0].text
            assert all(head.get("scope") for head in node.all("th"))
            assert len({len(row) for row in table(node, "")[-2:]}) == 1
        if node.get("tabindex") == "0":
            assert node.get("role") == "group"
            assert node.get("aria-label") or node.get("aria-labelledby")
    labelled = [node.get("for") for node in page.all("label") if node.text]
    inputs = [node.get("id") for node in page.all("input")]
    assert inputs
    assert sorted(labelled) == sorted(inputs)
    assert all(node.all("legend")[0].text for node in page.all("fieldset"))
    assert page.all("a")[0].get("class") == "skip"
    captions = [node.all("caption")[0].text for node in page.all("table")]
    assert len(set(captions)) == len(captions)


@pytest.mark.parametrize("name", ["written", "several"])
def test_the_page_is_one_file_and_needs_no_network(name, request):
    path = request.getfixturevalue(name)
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|@import|url\((?!#)|fetch|XMLHttp|\bsrcset|<link|<base", text)
    for node in read(path).walk():
        assert node.get("src").startswith("data:image/png;base64,") or "src" not in node.attributes
    assert "default-src 'none'" in read(path).all("meta")[2].get("content")


def colours(css: str) -> dict[str, tuple[float, float, float]]:
    found = re.findall(r"--([a-z0-9-]+): #([0-9a-f]{6});", css)
    return {name: tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, code in found}


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_is_high_enough_in_both_schemes():
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    css = files("infoplace.report").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = css.split("(prefers-color-scheme: dark)")
    light_colours = colours(light)
    dark_colours = colours(dark.split("*, *::before")[0])
    assert dark_colours.keys() == light_colours.keys()
    for scheme in (light_colours, dark_colours, light_colours | {"paper": (1.0, 1.0, 1.0)}):
        grounds = (scheme["paper"], scheme["surface"])
        for name in ("ink", "muted", "accent"):
            assert min(contrast(scheme[name], ground) for ground in grounds) >= 4.5
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            heat = tuple(share * h + (1 - share) * s for h, s in zip(scheme["heat"], scheme["surface"], strict=True))
            assert contrast(scheme["ink"], heat) >= 4.5
        drawn = [name for name in scheme if name.startswith("block-")]
        assert len(drawn) == 6
        for name in ("edge", "kept", "crossed", "plain", *drawn):
            assert min(contrast(scheme[name], ground) for ground in grounds) >= 3


# ---- what is on the page ---------------------------------------------------------------------------------------------


def test_what_was_declared_is_drawn_and_written(page):
    section = page.one("declared")
    assert table(section, "Blocks")[1:] == [
        ["z_g", "3", "standard normal", "1", "x"],
        ["z_l", "2", "mixture (components=3)", "2", "x_hat"],
    ]
    rows = table(section, "Observations")
    assert rows[1][:4] == ["x", "z_g and z_l", "given", "nothing"]
    assert rows[2][0:2] == ["x_hat", "z_l"]
    assert re.fullmatch(r"grayscale\(.*\), then blur\(.*\) of x", rows[2][2])
    assert rows[2][3] == ip.compose("grayscale", "blur").destroys
    assert rows[2][5] == "0.5"
    (graph,) = section.all("svg")
    arrows = {kind: len(graph.all("path", kind)) for kind in ("derives", "reads", "generates")}
    assert arrows == {"derives": 1, "reads": 2, "generates": 3}
    names = [node.text for node in graph.all("text", "node-name")]
    assert sorted(names) == ["x", "x", "x_hat", "x_hat", "z_g", "z_l"]
    assert "The encoder of z_l reads x_hat." in graph.all("desc")[0].text
    assert "grayscale" in [node.text for node in graph.all("text", "edge-label")]


def test_the_graph_of_a_chain_of_derivations_has_no_two_boxes_in_one_place(several):
    graph = read(several).one("declared").all("svg")[2]
    boxes = [node for group in graph.all("g", "node") for node in group.all("rect")]
    places = [[float(box.get(key)) for key in ("x", "y", "width", "height")] for box in boxes]
    assert len(places) == 3 + 3 + 3
    for (x, y, width, height), (left, top, _, _) in itertools.combinations(sorted(places), 2):
        assert left >= x + width or abs(top - y) >= height
    _, _, total, high = map(float, graph.get("viewbox").split())
    assert all(x >= 0 and y >= 0 and x + width <= total and y + height <= high for x, y, width, height in places)


def test_what_was_measured_is_in_the_tables(page):
    assert table(page, "Kept and crossed")[1] == [
        "digit in z_g; blocks replaced from their priors",
        "0.91",
        "\u22120.03",
    ]
    swap = {row[0]: row[1] for row in table(page, "Score of each factor")[1:]}
    assert swap == {
        "chance": "0.100",
        "real images": "0.900",
        "reconstruction": "0.880 (0.97)",
        "z_g from its prior": "0.120 (0.02)",
        "z_l from its prior": "0.830 (0.91)",
    }
    placement = table(page, "Linear probe")
    assert placement[0] == ["factor", "z_g", "z_l"]
    assert placement[1][1] == "◆ (meant) 0.97 0.95 to 0.99 untrained 0.31 shuffled 0.11"
    assert placement[1][2] == "0.14 0.12 to 0.16 untrained 0.31 shuffled 0.11"
    shade = [float(cell.get("style").removeprefix("--share:")) for cell in page.all("td", "heat")]
    assert shade == pytest.approx([0.967, 0.044] * 2)
    assert table(page, "Leakage and redundancy")[-1] == ["all factors", "0.04", "\u2013"]
    assert table(page, "KL divergence")[1] == ["z_g", "62.3 ± 0.1", "89.9", "\u2013", "3"]
    assert table(page, "Bits per dimension")[1] == ["x", "4.4131 ± 0.0012", "4.5000", "64", "200", "768"]
    scores = [
        ["mutual information gap (MIG)", "0.125"],
        ["separated attribute predictability (SAP), over blocks", "\u2013"],
    ]
    assert table(page, "Disentanglement")[1:] == scores
    assert table(page, "my own") == [["what", "value", "count"], [EVIL, "0.250", "7"]]
    words = page.one("measured").text
    assert "Measured on 1,234 test images of images on 22 November 2026, with posterior means, seed 5." in words
    assert "Not measured: something, because it was <b>not</b> there." in words


def test_the_bars_are_as_long_as_the_scores(page):
    figure = page.one("measured").all("figure")[0]
    values = [float(node.text) for node in figure.all("text", "bar-value")]
    assert values == [0.9, 0.88, 0.12, 0.83]
    lengths = [float(node.get("width")) for node in figure.all("rect", "bar")]
    assert lengths == pytest.approx([value * lengths[0] / 0.9 for value in values], abs=0.1)
    (line,) = figure.all("line", "chance")
    axis = float(figure.all("line", "axis")[0].get("x1"))
    assert float(line.get("x1")) - axis == pytest.approx(0.1 * lengths[0] / 0.9, abs=0.1)


def test_a_bar_without_a_number_says_so(page):
    described = {node.all("title")[0].text: node.all("desc")[0].text for node in page.one("measured").all("svg")}
    assert described[f"Swap test of {EVIL}"] == (
        "real images 0.90, reconstruction 0.50, z_g from its prior not known, z_l from its prior not known; chance 0.10."
    )


@pytest.mark.parametrize(
    ("latents", "words"),
    [("samples", "Read off draws from the posteriors."), ("means", "Read off posterior means."), (None, None)],
)
def test_the_placement_says_what_was_probed(place, two, latents, words):
    run = Path(shutil.copytree(two, place / f"probed {latents}"))
    specs = [{"swap": {}}, {"placement": {"latents": latents}}] if latents else []
    evaluated(run, settings=EVALUATION["settings"] | {"metrics": specs})
    text = read(write_report([run], place / f"probed {latents}.html", images=2)).one("measured").text
    assert words in text if words else "Read off" not in text


def test_runs_may_call_their_source_by_another_name(place, two, source):
    partition = {"blocks": {"z": {"dim": 2}}, "observations": {"picture": {}}}
    run = trained(place / "pictured", partition, source)
    page = read(write_report([two, run], place / "sources.html", images=2))
    assert "picture, reconstructed" in page.one("samples").text


def test_a_run_that_was_not_measured_says_how_to(place, three):
    page = read(write_report([three], place / "unmeasured.html", images=2))
    assert f"infoplace evaluate {three}" in page.one("measured").text
    assert f"infoplace evaluate {three}" in page.one("brief").text
    assert not page.one("measured").all("table")


def test_tables_may_be_missing(place, two):
    run = Path(shutil.copytree(two, place / "partly"))
    evaluated(run, tables={"kl": EVALUATION["tables"]["kl"], "swap": []})
    page = read(write_report([run], place / "partly.html", images=2))
    assert [node.text for node in page.one("measured").all("h3")] == ["KL divergence of each block"]
    assert "KL divergence" not in page.one("brief").text


def test_training_and_settings(page, two):
    lines = page.one("training").all("path", "curve")
    terms = [row[0] for row in table(page, "The last recorded step")[1:]]
    assert sorted(terms) == sorted(
        ["loss", "log-likelihood of x", "log-likelihood of x_hat", "KL divergence of z_g", "KL divergence of z_l"]
    )
    assert len(lines) == len(terms)
    settings = page.one("settings")
    assert "".join(map(str, settings.all("pre")[0].all("code")[0].children)) == (two / "recipe.yaml").read_text()
    entries = dict(zip((n.text for n in settings.all("dt")), (n.text for n in settings.all("dd")), strict=True))
    assert entries["torch"] == torch.__version__
    assert entries["folder"] == str(two)
    assert entries["time"].startswith("3 steps in ")


def test_what_comes_from_files_is_text(several, other):
    text = several.read_text(encoding="utf-8")
    assert EVIL not in text
    assert text.count("<script>") == 1
    page = read(several)
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert other.name in page.all("h1")[0].text
    assert all(not name.startswith("on") for node in page.walk() for name in node.attributes)


def test_several_runs_are_side_by_side(several, two, other, three):
    page = read(several)
    names = [two.name, other.name, three.name]
    for panels in page.all("div", "runs"):
        assert {node.children[0].text for node in panels.all("div", "run")} <= set(names)
    assert [node.text for node in page.one("declared").all("div", "runs")[0].all("h3")] == names
    assert table(page, "Kept and crossed")[0] == ["", *names]
    explorers = [node for node in page.walk() if "data-explorer" in node.attributes]
    mixtures = [[n for n in explorer.all("canvas") if "data-mixture" in n.attributes] for explorer in explorers]
    assert [len(each) for each in mixtures] == [2, 1]
    captions = [node.text for explorer in explorers for node in explorer.all("figure", "mixture")]
    assert captions == names
    assert [node.text for node in page.one("training").all("li")] == names
    assert f"infoplace evaluate {three}" in page.one("measured").text


def test_folders_of_one_name_are_told_apart(place, two):
    twin = Path(shutil.copytree(two, place / "elsewhere" / "two"))
    page = read(write_report([two, twin], place / "twins.html", images=2))
    assert page.all("h1")[0].text == f"{place.name}/two and elsewhere/two"
    assert "All runs share one declaration." in page.one("declared").text


# ---- pictures --------------------------------------------------------------------------------------------------------


def tiles(picture: numpy.ndarray, explorer: Node) -> Any:
    """A function from column and row of a sprite to the image there; row -1 holds the sources."""
    canvas = explorer.all("canvas")[0]
    width, height = int(canvas.get("width")), int(canvas.get("height"))
    gap, lead = int(explorer.get("data-gap")), int(explorer.get("data-lead"))

    def tile(column: int, row: int) -> torch.Tensor:
        x = 0 if column < 0 else width + gap + lead + column * (width + gap)
        y = 0 if row < 0 else height + gap + lead + row * (height + gap)
        cut = picture[y : y + height, x : x + width]
        assert cut.shape == (height, width, 4)
        assert (cut[..., 3] == 255).all()
        return torch.from_numpy(cut[..., :3].copy()).permute(2, 0, 1)

    return tile


def decoded(pair: ip.Pair, latents: dict[str, torch.Tensor]) -> torch.Tensor:
    """Bytes of what a pair decodes, `[N, 3, height, width]`."""
    with torch.no_grad():
        return pair.decode(latents, "x").mean.clamp(0, 1).mul(255).round().to(torch.uint8).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("count", [5, 12])
def test_every_mixture_is_what_the_pair_decodes(place, two, count):
    page = read(write_report([two], place / f"mixtures{count}.html", images=count))
    (explorer,) = [node for node in page.walk() if "data-explorer" in node.attributes]
    assert int(explorer.get("data-count")) == count
    tile = tiles(pixels(page.one("sprite-1")), explorer)
    sources = torch.stack([tile(index, -1) for index in range(count)])
    assert all(bool((tile(-1, index) == sources[index]).all()) for index in range(count))
    pair = ip.load_pair(two)
    with torch.no_grad():
        means = {k: q.mean for k, q in pair.encode(pair.partition.observe(sources / 255)).items()}
    for down in range(count):
        expected = decoded(pair, {"z_g": means["z_g"], "z_l": means["z_l"][[down] * count]})
        found = torch.stack([tile(across, down) for across in range(count)])
        assert (found.int() - expected.int()).abs().max() <= 1
    assert len({bytes(tile(index, 0).numpy()) for index in range(count)}) == count


def test_three_blocks_of_grey_oblong_images(place):
    partition = {"blocks": THREE["blocks"], "observations": {"x": {}}}
    shape = (1, 8, 12)
    source = place / "oblong"
    source.mkdir()
    numpy.savez(
        source / "test.npz", images=numpy.random.default_rng(1).integers(0, 256, (30, 8, 12), dtype=numpy.uint8)
    )
    run = trained(place / "oblong run", partition, source, shape)
    page = read(write_report([run], place / "oblong.html"))
    (explorer,) = [node for node in page.walk() if "data-explorer" in node.attributes]
    count = int(explorer.get("data-count"))
    assert count == 7
    tile = tiles(pixels(page.one("sprite-1")), explorer)
    sources = torch.stack([tile(index, -1)[:1] for index in range(count)])
    pair = ip.load_pair(run)
    with torch.no_grad():
        means = {k: q.mean for k, q in pair.encode(pair.partition.observe(sources / 255)).items()}
    for a, b, c in ((0, 0, 0), (6, 6, 6), (1, 4, 2), (5, 0, 3)):
        expected = decoded(pair, {"a": means["a"][[a]], "b": means["b"][[b]], "c": means["c"][[c]]})[0]
        assert (tile(a, b + count * c).int() - expected.int()).abs().max() <= 1
    grids = [node.get("alt") for node in page.one("explorer").all("img") if "hidden" not in node.attributes]
    assert len(grids) == 3
    assert grids[1].startswith("Grid of mixtures: b of the image above, the other blocks of the image at the left")


def test_one_block_and_very_many(place, source):
    one = trained(place / "single", {"blocks": {"z": {"dim": 2}}, "observations": {"x": {}}}, source)
    page = read(write_report([one], place / "single.html"))
    assert len(page.one("explorer").all("fieldset")) == 1
    assert "There is one block" in page.one("samples").text
    blocks = {f"z{index}": {"dim": 1} for index in range(9)}
    many = trained(place / "many", {"blocks": blocks, "observations": {"x": {}}}, source)
    page = read(write_report([many], place / "many.html"))
    assert "many has too many blocks" in page.one("explorer").text
    assert not page.one("explorer").all("input")
    assert len(page.one("samples").all("div", "grids")[0].all("img")) == 9


def test_the_images_are_of_as_many_classes_as_there_are(page):
    (explorer,) = [node for node in page.walk() if "data-explorer" in node.attributes]
    names = [node.text for node in explorer.all("fieldset")[0].all("label")]
    assert len(names) == 5
    assert [name.partition(",")[0] for name in names] == [f"image {number}" for number in range(1, 6)]
    assert {name.rpartition(" ")[2] for name in names[:4]} == {"0", "1", "2", "3"}


def test_rows_and_grids_of_samples(page):
    section = page.one("samples")
    strips = section.all("figure", "strip")
    assert [node.text for node in strips[:2]] == ["x, the data", "x, reconstructed"]
    assert len(strips) == 4
    assert pixels(strips[0].all("img")[0]).shape == (SIDE, 10 * (SIDE + 1) - 1, 4)
    grids = {node.text: pixels(node.all("img")[0]) for node in section.all("div", "grids")[0].all("figure")}
    assert list(grids) == ["z_g varies, z_l fixed.", "z_l varies, z_g fixed."]
    assert all(grid.shape == (8 * (SIDE + 1) - 1,) * 2 + (4,) for grid in grids.values())


def test_clusters_have_a_section_where_they_were_measured(clusters, page):
    assert "clusters" not in [node.get("id") for node in page.all("section")]
    section = read(clusters).one("clusters")
    assert table(section, "Clusters of z_g") == [
        ["factor", "majority", "one to one", "one cluster", "NMI", "ARI", "clusters used", "calibration error"],
        ["digit", "0.90", "0.75", "0.50", "0.66", "0.00", "3 of 4", "0.12"],
        ["ground (10 bins)", *["\u2013"] * 3, "0.02", *["\u2013"] * 3],
    ]
    assert "clustering" not in read(clusters).one("measured").text
    assert table(read(clusters).one("declared"), "Blocks")[1][2] == "mixture (components=4, y=enumerate)"


def test_labels_are_drawn_against_arranged_clusters(clusters):
    section = read(clusters).one("clusters")
    (drawing,) = section.all("svg")
    assert drawing.all("title")[0].text == "digit against clusters of z_g"
    assert drawing.all("desc")[0].text == (
        "cluster 2, 50%: mostly 0; cluster 0, 50%: mostly 7; cluster 3, <1%: mostly 7. Unused: 1."
    )
    boxes = {node.all("title")[0].text: node for node in drawing.all("rect", "shade")}
    assert {text: float(node.get("fill-opacity")) for text, node in boxes.items()} == {
        "digit 0, cluster 2: 90": 0.91,
        "digit 7, cluster 2: 10": 0.10,
        "digit 7, cluster 0: 99": 1.0,
        "digit 7, cluster 3: 1": 0.03,
    }
    assert boxes["digit 0, cluster 2: 90"].get("x") == boxes["digit 7, cluster 2: 10"].get("x")
    places = [float(boxes[f"digit 7, cluster {n}"].get("x")) for n in ("2: 10", "0: 99", "3: 1")]
    assert places == sorted(places)
    assert len(drawing.all("line", "axis")) == 2  # between the labels, and before what is unused
    assert "the strongest colour is 99 images" in section.text


def test_every_cluster_has_samples(clusters, clustered):
    section = read(clusters).one("clusters")
    figures = section.all("div", "cluster-samples")[0].all("figure")
    assert [node.text for node in figures] == [
        "cluster 2 digit 0, 50.0%", "cluster 0 digit 7, 49.5%", "cluster 3 digit 7, 0.5%", "cluster 1 unused"
    ]  # fmt: skip
    pictures = [pixels(node.all("img")[0]) for node in figures]
    assert all(picture.shape == (4 * (SIDE + 1) - 1,) * 2 + (4,) for picture in pictures)
    assert all((one != another).any() for one, another in itertools.combinations(pictures, 2))
    assert figures[3].all("img")[0].get("alt") == "Generated images of cluster 1 of z_g: unused"
    assert "z_g along the columns, z_l along the rows." in section.text


def test_runs_with_and_without_clusters_side_by_side(clusters_twice):
    page = read(clusters_twice)
    section = page.one("clusters")
    assert [node.text for node in section.all("h3")] == [
        "clustered", "two", "again", "Labels against clusters", "Samples of each cluster"
    ]  # fmt: skip
    assert "Not measured." in section.text
    assert len(section.all("svg")) == 2
    assert len(section.all("img")) == 8
    compared = {row[0]: row[1:] for row in table(page, "Other measures")}
    assert compared["majority accuracy of digit, clusters of z_g"] == ["0.90", "\u2013", "0.90"]


def test_clusters_of_many_classes_of_no_labels_or_of_no_images(place, clustered, source):
    many = json.loads(json.dumps(CLUSTERED))
    many["blocks"]["z_g"]["prior"]["mixture"]["components"] = 41
    run = evaluated(trained(place / "forty-one", many, source), tables=cluster_tables(count=41))
    section = read(write_report([run], place / "forty-one.html", images=2)).one("clusters")
    assert "z_g has 41 clusters, too many for a picture of each." in section.text
    assert len(section.all("svg")) == 1
    bare = Path(shutil.copytree(clustered, place / "unlabelled"))
    evaluated(bare, tables={"clustering": cluster_tables()["clustering"][-1:]})
    section = read(write_report([bare], place / "unlabelled.html", images=2)).one("clusters")
    assert "No factor of labels was measured." in section.text
    assert [node.text for node in section.all("strong")] == [f"cluster {number}" for number in range(4)]
    partition = {
        "blocks": {"z": {"dim": 2, "prior": {"mixture": {"components": 4, "y": "enumerate"}}}},
        "observations": {"x": {"likelihood": "normal"}},
    }
    run = evaluated(trained(place / "vector clusters", partition, Path("nowhere"), (5,)), tables=cluster_tables("z"))
    section = read(write_report([run], place / "vector clusters.html")).one("clusters")
    assert section.all("svg")
    assert not section.all("img")


def test_the_seed_decides_what_is_shown(place, two):
    def sources(name: str, **options: Any) -> list[str]:
        return [node.get("src") for node in read(write_report([two], place / name, images=2, **options)).all("img")]

    assert sources("a.html", seed=1) == sources("b.html", seed=1)
    assert sources("c.html", seed=2) != sources("b.html", seed=1, overwrite=True)


def test_a_pair_of_no_images_is_reported_without_pictures(place):
    partition = {"blocks": {"z": {"dim": 2}}, "observations": {"x": {"likelihood": "normal"}}}
    run = trained(place / "vectors", partition, Path("nowhere"), (5,))
    page = read(write_report([run], place / "vectors.html"))
    assert "generates no grey or colour images" in page.one("explorer").text
    assert "generates no grey or colour images" in page.one("samples").text
    assert not page.all("img")
    assert page.one("training").all("svg")


def test_a_saved_pair_alone_is_reported_on_given_data(place, source):
    pair = ip.make_pair(ip.Partition.from_dict(TWO), (3, SIDE, SIDE))
    run = pair.save(place / "saved")
    with pytest.raises(ip.DataError, match="saved does not say what it was trained on; say which images to show with"):
        write_report([run], place / "saved.html")
    page = read(write_report([run], place / "saved.html", data=str(source), images=2))
    assert "No training log" in page.one("training").text
    assert page.one("settings").all("pre")[0].get("aria-label") == "The partition of saved"


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def changed(two: Path, to: Path, **files_: str) -> Path:
    run = Path(shutil.copytree(two, to))
    for name, text in files_.items():
        (run / name.replace("_json", ".json").replace("_csv", ".csv").replace("_yaml", ".yaml")).write_text(text)
    return run


def test_what_is_wrong_is_one_sentence_and_nothing_is_written(tmp_path, two, source):
    recipe = (two / "recipe.yaml").read_text()
    twisted = json.loads(json.dumps(EVALUATION))
    twisted["data"]["fingerprint"] = "fedcba9876543210"
    no_column = json.loads(json.dumps(EVALUATION))
    del no_column["tables"]["kl"][0]["nats"]
    nested = json.loads(json.dumps(EVALUATION))
    nested["tables"]["swap"][0]["factor"] = ["digit"]
    small = images(tmp_path / "small", side=8)
    single = images(tmp_path / "single", count=1)
    grey = trained(tmp_path / "grey", {"blocks": {"z": {"dim": 1}}, "observations": {"x": {}}}, source, (1, 8, 8))
    moved = changed(two, tmp_path / "moved", recipe_yaml=recipe.replace(str(source), "cifar10"))
    measured = changed(two, tmp_path / "measured", evaluation_json=json.dumps(twisted))
    runs: list[tuple[list[Any] | str, dict[str, Any], type[Exception], str]] = [
        ([], {}, ip.RunFolderError, "there is no run to report on; name a run folder that infoplace train wrote"),
        ("run", {}, ip.RunFolderError, "the runs are a list of run folders; write \\['run'\\]"),
        ([tmp_path / "none"], {}, ip.RunFolderError, "there is no folder .*none"),
        ([source], {}, ip.RunFolderError, "holds no pair.json"),
        ([two, two.parent / "images" / ".." / "two"], {}, ip.RunFolderError, "is named twice; name each run"),
        ([two, moved], {}, ip.DataError, "compares runs on the same images, and .*two was trained on .*images, .*moved on"
         " cifar10; write a report for each, or show all of them on one set with --data"),
        ([two, grey], {}, ip.DataError, r"two takes \[3, 16, 16\], .*grey \[1, 8, 8\]; write a report for each"),
        ([two, measured], {}, ip.DataError, "two was measured on 1234 test images of images .fingerprint 0123456789abcdef.,"
         " .*measured on 1234 .*fedcba9876543210.; measure all of them on one set"),
        ([two], {"data": "nowhere"}, ip.UnknownNameError, "no data set, file or folder 'nowhere'"),
        ([two], {"split": "tset"}, ip.UnknownNameError, "'test'"),
        ([two], {"data": str(small)}, ip.DataError, r"takes images of \[3, 16, 16\], and .* holds \[3, 8, 8\]"),
        ([two], {"data": str(single)}, ip.DataError, "mixes at least two images, and .* test holds 1"),
        ([two], {"images": 1}, ip.DataError, "images must be a whole number of at least 2; got 1"),
        ([two], {"device": "gpu"}, ip.DeclarationError, "device must be one of"),
        ([changed(two, tmp_path / "e1", evaluation_json="{")], {}, ip.RunFolderError, "e1/evaluation.json is not what "
         "infoplace evaluate writes .*; run that again"),
        ([changed(two, tmp_path / "e2", evaluation_json="[]")], {}, ip.RunFolderError, "no dict of named values"),
        ([changed(two, tmp_path / "e3", evaluation_json="{}")], {}, ip.RunFolderError, "no tables of rows"),
        ([changed(two, tmp_path / "e4", evaluation_json=json.dumps(no_column))], {}, ip.RunFolderError,
         "a row of its table 'kl' has no 'nats'"),
        ([changed(two, tmp_path / "e5", evaluation_json='{"tables": {}, "data": 3}')], {}, ip.RunFolderError,
         "'data' is no dict of named values"),
        ([changed(two, tmp_path / "e6", evaluation_json=json.dumps(nested))], {}, ip.RunFolderError,
         "a 'factor' of its table 'swap' is no plain value"),
        ([changed(two, tmp_path / "m1", metrics_csv="step,loss\n1,x\n")], {}, ip.RunFolderError, "m1/metrics.csv is damaged"),
        ([changed(two, tmp_path / "m2", metrics_csv="loss\n1\n")], {}, ip.RunFolderError, "a row has no 'step'"),
        ([changed(two, tmp_path / "r1", run_json="nothing")], {}, ip.RunFolderError, "r1/run.json is not what"),
    ]  # fmt: skip
    for given, options, error, text in runs:
        with pytest.raises(error, match=text) as caught:
            write_report(given, tmp_path / "out" / "page.html", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_a_target_that_exists_or_is_no_page(tmp_path, two):
    target = tmp_path / "page.html"
    target.write_text("mine")
    with pytest.raises(ip.RunFolderError, match=r"page.html exists; choose another name, or replace it with overwrite"):
        write_report([two], target)
    with pytest.raises(ip.RunFolderError, match="there is no folder"):
        write_report([tmp_path / "none"], target, overwrite=True)
    assert target.read_text() == "mine"
    assert write_report([two], target, images=2, overwrite=True) == target
    assert read(target).all("h1")
    with pytest.raises(ip.RunFolderError, match=r"a report is one page, which ends in .html; got 'page.pdf'"):
        write_report([two], tmp_path / "page.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


# ---- in a browser ----------------------------------------------------------------------------------------------------

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = [
    name
    for name, found in (
        ("chromium", CHROMIUM),
        ("chromedriver", DRIVER),
        ("selenium", importlib.util.find_spec("selenium")),
    )
    if not found
]
in_browser = pytest.mark.skipif(bool(MISSING), reason=f"a headless browser needs {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    # Both paths are given, so selenium looks for nothing and downloads nothing.
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-device-scale-factor=1"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def look(browser: Any, path: Path, width: int = 1200, scheme: str = "light", media: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features_ = [{"name": name, "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features_})
    browser.get(path.as_uri())
    ready = "return document.readyState === 'complete' && document.documentElement.className === 'js'"
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(ready))


def seen(browser: Any, canvas: Any) -> torch.Tensor:
    """The image that a canvas shows on the screen: the middle of each of its pixels in a screenshot, `[3, SIDE, SIDE]`."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    with Image.open(io.BytesIO(canvas.screenshot_as_png)) as picture:
        shot = numpy.array(picture.convert("RGB"))
    middles = [((numpy.arange(SIDE) + 0.5) * shot.shape[axis] / SIDE).astype(int) for axis in (0, 1)]
    assert shot.shape[0] >= 8 * SIDE
    return torch.from_numpy(shot[middles[0]][:, middles[1]]).permute(2, 0, 1)


def shown_mixture(browser: Any, page: Node, run: Path) -> Any:
    """A function of an image's number for each block: asserts that their mixture, newly decoded, is on the screen."""
    (explorer,) = [node for node in page.walk() if "data-explorer" in node.attributes]
    tile = tiles(pixels(page.one("sprite-1")), explorer)
    sources = torch.stack([tile(index, -1) for index in range(5)])
    pair = ip.load_pair(run)
    with torch.no_grad():
        means = {k: q.mean for k, q in pair.encode(pair.partition.observe(sources / 255)).items()}

    def check(z_g: int, z_l: int) -> None:
        expected = decoded(pair, {"z_g": means["z_g"][[z_g]], "z_l": means["z_l"][[z_l]]})[0]
        found = seen(browser, browser.find_element("css selector", "canvas[data-mixture]"))
        assert (found.int() - expected.int()).abs().max() <= 2
        for place, number in enumerate((z_g, z_l)):
            canvas = browser.find_element("css selector", f"canvas[data-chosen='{place}']")
            drawn = browser.execute_script("return arguments[0].toDataURL()", canvas)
            image = numpy.array(Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2]))).convert("RGB"))
            assert (torch.from_numpy(image).permute(2, 0, 1) == sources[number]).all()
        status = browser.find_element("css selector", "[role=status]").text
        assert re.fullmatch(rf"Shown: z_g from image {z_g + 1}, digit \d; z_l from image {z_l + 1}, digit \d\.", status)

    return check


@in_browser
def test_choosing_an_image_shows_its_mixture(browser, written, page, two):
    from selenium.webdriver.common.keys import Keys

    look(browser, written)
    check = shown_mixture(browser, page, two)
    check(0, 1)
    browser.find_element("css selector", "label[for='explorer-1-0-3']").click()
    check(3, 1)
    browser.find_element("css selector", "label[for='explorer-1-1-4']").click()
    check(3, 4)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("id") == "explorer-1-1-4"
    focused.send_keys(Keys.ARROW_LEFT)
    check(3, 3)
    browser.switch_to.active_element.send_keys(Keys.ARROW_UP)
    check(3, 2)
    browser.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "explorer-1-0-3"
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    check(4, 2)
    outline = "return getComputedStyle(document.activeElement.closest('label')).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    assert browser.get_log("browser") == []


@in_browser
def test_one_choice_holds_for_all_runs_of_the_same_blocks(browser, several):
    look(browser, several)
    hidden = browser.find_elements("css selector", "img[hidden]")
    assert len(hidden) == 1
    assert not hidden[0].is_displayed()
    data = "return [...document.querySelectorAll('canvas[data-mixture]')].map((canvas) => canvas.toDataURL())"
    before = browser.execute_script(data)
    browser.find_element("css selector", "label[for='explorer-1-0-2']").click()
    after = browser.execute_script(data)
    # The second run is a copy of the first; the third has other blocks and an explorer of its own.
    assert before[0] == before[1] != after[0] == after[1]
    assert before[2] == after[2]
    browser.find_element("css selector", "label[for='explorer-2-2-3']").click()
    assert browser.execute_script(data)[2] != after[2]
    assert browser.get_log("browser") == []


@in_browser
@pytest.mark.parametrize("name", ["written", "several", "clusters", "clusters_twice"])
def test_nothing_is_wider_than_a_phone(browser, name, request):
    path = request.getfixturevalue(name)
    for width in (360, 320):
        look(browser, path, width)
        size = "return [innerWidth, document.documentElement.scrollWidth - document.documentElement.clientWidth]"
        assert browser.execute_script(size) == [width, 0]
    frames = "return [...document.querySelectorAll('.scroll')].map((f) => [f.scrollWidth > f.clientWidth, f.tabIndex])"
    found = browser.execute_script(frames)
    assert any(wide for wide, _ in found)
    assert all(index == (0 if wide else -1) for wide, index in found)


@in_browser
@pytest.mark.skipif(
    importlib.util.find_spec("axe_playwright_python") is None,
    reason="the check needs axe-playwright-python's copy of axe",
)
@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        ("written", "light", 360),
        ("written", "dark", 1200),
        ("several", "light", 1200),
        ("clusters", "dark", 360),
        ("clusters_twice", "light", 1200),
    ],
)
def test_axe_finds_nothing(browser, name, scheme, width, request):
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    look(browser, request.getfixturevalue(name), width, scheme)
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]] == []
    assert len(found["passes"]) > 20


@in_browser
def test_print_shows_the_grid_of_all_mixtures_on_white(browser, written):
    look(browser, written, scheme="dark", media="print")
    display = "return getComputedStyle(document.querySelector(arguments[0])).display"
    assert browser.execute_script(display, ".explorer") == "none"
    assert browser.execute_script(display, ".static") == "block"
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(ground) == "rgb(255, 255, 255)"
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
    assert 2 <= printed.count(b"/Type /Page\n") <= 20


@in_browser
def test_without_a_script_the_grid_stands_in_for_the_explorer(browser, written):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(written.as_uri())
        assert not browser.find_element("css selector", ".explorer").is_displayed()
        grid = browser.find_element("id", "sprite-1")
        assert grid.is_displayed()
        assert grid.size["width"] > 5 * SIDE
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
