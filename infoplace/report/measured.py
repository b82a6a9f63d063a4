"""What was measured: the tables of a run's evaluation, with their pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infoplace.errors import is_finite
from infoplace.report.drawing import Bar, bars
from infoplace.report.markup import Html, element, join
from infoplace.report.parts import (
    NONE,
    cell,
    change_words,
    code,
    date_words,
    framed_table,
    note,
    panels,
    score,
    share,
    spaced,
    suffix,
    unmeasured,
)
from infoplace.report.runs import COLUMNS, Run

__all__ = ["brief", "measured"]

MOST_BARS = 6
"""Factors whose swap test is drawn; the table has them all."""

WAYS_OF_ALL = {"prior": "from their priors", "other image": "by another image's"}
PROBES = {"linear": "Linear probe", "mlp": "Small network as probe"}
SCORES = {
    "mig": "mutual information gap (MIG)",
    "dci_disentanglement": "DCI disentanglement",
    "dci_completeness": "DCI completeness",
    "dci_informativeness": "DCI informativeness",
    "sap": "separated attribute predictability (SAP)",
}
CLUSTERING = {"majority": "majority accuracy", "hungarian": "one-to-one accuracy", "nmi": "NMI"}


def brief(runs: Sequence[Run]) -> Html:
    """What was kept and what crossed, and the other single numbers of several runs."""
    parts: list[Any] = [unmeasured(run) for run in runs if run.evaluation is None]
    tables: list[Any] = []
    keys = dict.fromkeys(
        (str(row["factor"]), str(row["block"]), str(row["how"])) for run in runs for row in run.table("kept_crossed")
    )
    if keys:
        parts.append(
            element(
                "p",
                "A factor is ",
                element("em", "kept"),
                " where it survives that a block which should not carry it is replaced, the lowest where there are several, "
                "and it has ",
                element("em", "crossed"),
                " where it survives that its own block is replaced. Both are scaled to what its predictor reaches: 0 is "
                "chance, 1 is real images. Kept is best at 1, crossed at 0.",
            )
        )
        rows = []
        for key in keys:
            factor, block, how = key
            row: list[Any] = [[factor, element("small", f"in {block}; blocks replaced {WAYS_OF_ALL.get(how, how)}")]]
            for run in runs:
                found = {(str(r["factor"]), str(r["block"]), str(r["how"])): r for r in run.table("kept_crossed")}
                for measure in ("kept", "crossed"):
                    value = found.get(key, {}).get(measure)
                    row.append(cell(score(value), class_=f"meter {measure}", style=f"--share:{share(value)}"))
            rows.append(row)
        above = [(run.label, 2) for run in runs] if len(runs) > 1 else ()
        columns = ["factor", *["kept", "crossed"] * len(runs)]
        tables.append(framed_table("brief-table", "Kept and crossed", columns, rows, above=above))
    elif any(run.evaluation is not None for run in runs):
        parts.append(
            element("p", "What is kept and what crosses is known where a swap test was made of factors that are declared "
                    "for a block, and there was none; what was measured is below.")
        )  # fmt: skip
    if len(runs) > 1:
        tables.append(_compared(runs))
    return join([parts, element("div", tables, class_="tables")])


def _compared(runs: Sequence[Run]) -> Html | None:
    """The single numbers of every run, side by side."""
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        for row in run.table("placement_summary"):
            if row["factor"] == "all":
                for measure in ("leakage", "redundancy"):
                    name = f"{measure}, {PROBES.get(str(row['probe']), str(row['probe'])).lower()}"
                    found.setdefault(name, {})[run.label] = score(row[measure])
        for row in run.table("kl"):
            found.setdefault(f"KL divergence of {row['block']}, nats", {})[run.label] = score(row["nats"], 1)
        for row in run.table("bits_per_dim"):
            name = f"bits per dimension of {row['observation']}"
            found.setdefault(name, {})[run.label] = score(row["bits_per_dim"], 3)
        for row in run.table("disentanglement"):
            found.setdefault(_metric(row), {})[run.label] = score(row["score"])
        declared = _factors(run)
        for row in run.table("clustering"):
            factor, block, metric = (str(row[key]) for key in ("factor", "block", "metric"))
            if metric in CLUSTERING and declared.get(factor, {}).get("block") == block:
                found.setdefault(f"{CLUSTERING[metric]} of {factor}, clusters of {block}", {})[run.label] = score(
                    row["value"]
                )
    if not found:
        return None
    rows = [[name, *(values.get(run.label, NONE) for run in runs)] for name, values in found.items()]
    return framed_table("compared-table", "Other measures, run by run", ["measure", *(run.label for run in runs)], rows)


def _metric(row: Mapping[str, Any]) -> str:
    name = str(row["metric"])
    base = name.removesuffix("_blocks")
    return SCORES.get(base, spaced(base)) + (", over blocks" if base != name else "")


def measured(runs: Sequence[Run]) -> Html:
    """Every table of the evaluations, with pictures of those that are known."""
    if all(run.evaluation is None for run in runs):
        return join(unmeasured(run) for run in runs)
    own: list[tuple[str, str, Callable[[Run, str, str], Any], str]] = [
        ("swap", "Swap test", _swap, "One block is replaced at a time, the image is decoded, and a predictor that was "
         "trained on real images reads every factor off the result. In brackets: scaled so that chance is 0 and real "
         "images are 1."),
        ("placement", "Placement", _placement, "How well each factor can be read from each block by a probe, on images "
         "that it was not trained on; the bootstrap interval below, then the same probe on an untrained encoder and on "
         "a shuffled factor. The shade is the score scaled from chance to 1."),
        ("kl", "KL divergence of each block", _kl, "The divergence of a block's posterior from its prior bounds what "
         "it can tell of an image, on average; active are the dimensions that take part in it."),
        ("bits_per_dim", "Bits per dimension", _bits, "An importance-weighted bound on how many bits each value of an "
         "observation costs; lower is better."),
        ("disentanglement", "Disentanglement", _disentanglement, "The literature's scores, which ask for one dimension "
         "for each factor; over blocks they ask for one block. 1 is best."),
    ]  # fmt: skip
    said = {_how_measured(run, "") for run in runs}
    parts: list[Any] = list(said) if len(said) == 1 else [panels(runs, 3, _how_measured)]
    for table, title, make, words in own:
        if any(run.table(table) for run in runs):
            parts += [element("h3", title), element("p", words), _measurement(runs, table, make)]
    known = {*COLUMNS, "placement_summary", "kept_crossed"}
    others = dict.fromkeys(
        name for run in runs if run.evaluation for name in run.evaluation["tables"] if name not in known
    )
    for name in others:
        if any(run.table(name) for run in runs):

            def plain(run: Run, which: str, label: str, name: str = name) -> Html:
                return _plain_table(run.table(name), f"{which}-other-{list(others).index(name)}", spaced(name), label)

            parts += [element("h3", spaced(name).capitalize()), _measurement(runs, name, plain)]
    return join(parts)


def _measurement(runs: Sequence[Run], table: str, make: Callable[[Run, str, str], Any]) -> Html:
    def panel(run: Run, which: str) -> Any:
        if not run.table(table):
            return note("Not measured.")
        return make(run, which, suffix(run, runs))

    return panels(runs, 4, panel)


def _how_measured(run: Run, which: str) -> Html:
    if run.evaluation is None:
        return unmeasured(run)
    data, settings = run.evaluation["data"], run.evaluation["settings"]
    images, latents = data.get("images", "an unknown number of"), settings.get("latents")
    words = [f"Measured on {score(images, 0)} {data.get('split', '')} images of {data.get('name', 'unknown data')}"]
    if "date" in run.evaluation:
        words.append(f" on {date_words(str(run.evaluation['date']))}")
    if latents:
        words.append(f", with {latents}")
    if "seed" in settings:
        words.append(f", seed {settings['seed']}")
    skipped = [f" Not measured: {name}, because {reason}." for name, reason in run.evaluation["skipped"].items()]
    return element("p", "".join(words), ".", skipped)


def _swap(run: Run, which: str, name: str) -> Html:
    rows = run.table("swap")
    factors = list(dict.fromkeys(row["factor"] for row in rows))
    changes = list(dict.fromkeys((row["changed"], row["how"]) for row in rows))
    found = {(row["factor"], row["changed"], row["how"]): row for row in rows}
    declared = {row["factor"] for row in run.table("kept_crossed")}
    drawn = [factor for factor in factors if factor in declared] if len(factors) > MOST_BARS else factors
    pictures = []
    for index, factor in enumerate((drawn or factors)[:MOST_BARS]):
        first = next(row for row in rows if row["factor"] == factor)
        lines = [Bar("real images", _value(first["real"]), "bar-real")]
        for changed, how in changes:
            row = found.get((factor, changed, how))
            lines.append(Bar(change_words(changed, how), _value(row and row["score"]), _colour(run, changed)))
        title = f"Swap test of {factor}{name}"
        drawing = bars(lines, f"{which}-swap-{index}", title, max(0.0, _value(first["chance"], 0.0)))
        caption = element("figcaption", element("strong", factor), f", {spaced(first['metric'])}")
        pictures.append(element("figure", caption, drawing))
    first_rows = {factor: next(row for row in rows if row["factor"] == factor) for factor in factors}
    table: list[list[Any]] = [
        [words, *(score(first_rows[factor][key], 3) for factor in factors)]
        for words, key in (("chance", "chance"), ("real images", "real"))
    ]
    for changed, how in changes:
        cells: list[Any] = []
        for factor in factors:
            row = found.get((factor, changed, how))
            cells.append([score(row["score"], 3), element("small", f"({score(row['normalised'])})")] if row else NONE)
        table.append([change_words(changed, how), *cells])
    heads = ["change", *([str(factor), element("small", spaced(first_rows[factor]["metric"]))] for factor in factors)]
    return join([
        element("div", pictures, class_="small-multiples"),
        framed_table(f"{which}-swap", "Score of each factor after each change", heads, table, whose=name),
    ])  # fmt: skip


def _value(value: Any, otherwise: float = math.nan) -> float:
    return float(value) if is_finite(value) else otherwise


def _colour(run: Run, block: Any) -> str:
    blocks = list(run.partition.blocks)
    return f"bar-{blocks.index(block) % 6}" if block in blocks else "bar-kept"


def _placement(run: Run, which: str, name: str) -> Html:
    rows = run.table("placement")
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    meant = {key: value.get("block") for key, value in _factors(run).items()}
    parts = []
    probed = _probed(run)
    read = None if probed is None else element("p", f"Read off {probed}.", class_="legend")
    for index, probe in enumerate(dict.fromkeys(row["probe"] for row in rows)):
        title = PROBES.get(str(probe), str(probe))
        table = []
        here = [row for row in rows if row["probe"] == probe]
        for factor in dict.fromkeys(row["factor"] for row in here):
            found = {row["block"]: row for row in here if row["factor"] == factor}
            first = next(iter(found.values()))
            note = f"{spaced(first['metric'])}, chance {score(first['chance'])}"
            cells = [_placed(found.get(block), meant.get(str(factor)) == block) for block in blocks]
            table.append([[str(factor), element("small", note)], *cells])
        heads = ["factor", *map(str, blocks)]
        parts.append(framed_table(f"{which}-placement-{index}", title, heads, table, whose=name))
    legend = None
    if any(meant.values()):
        legend = element("p", element("span", "◆", class_="mark"), " the block that should carry the factor",
                         class_="legend")  # fmt: skip
    return join([element("div", parts, class_="tables"), read, legend, _summary(run, which, name)])


def _probed(run: Run) -> str | None:
    """What the probes of the placement matrix were fitted on, where the evaluation says so."""
    settings = run.evaluation["settings"] if run.evaluation is not None else {}
    metrics = settings.get("metrics")
    for spec in metrics if isinstance(metrics, list) else ():
        options = spec.get("placement") if isinstance(spec, dict) else None
        if isinstance(options, dict) and options.get("latents") == "samples":
            return "draws from the posteriors"
        if isinstance(options, dict) and options.get("latents") == "means":
            return str(settings.get("latents", "posterior means"))
    return None


def _placed(row: Mapping[str, Any] | None, meant: bool) -> Html:
    if row is None:
        return cell(NONE)
    mark = [element("span", "◆", class_="mark", aria_hidden="true"), element("span", "(meant) ", class_="unseen")]
    return cell(
        [
            mark if meant else None,
            element("strong", score(row["score"])),
            element("small", f"{score(row['low'])} to {score(row['high'])}"),
            element("small", f"untrained {score(row['untrained'])}"),
            element("small", f"shuffled {score(row['shuffled'])}"),
        ],
        class_="heat",
        style=f"--share:{share(row['normalised'])}",
    )


def _factors(run: Run) -> dict[str, Mapping[str, Any]]:
    found = run.evaluation["factors"] if run.evaluation is not None else {}
    return {name: value for name, value in found.items() if isinstance(value, Mapping)}


def _summary(run: Run, which: str, name: str) -> Html | None:
    rows = run.table("placement_summary")
    if not rows:
        return None
    probes = list(dict.fromkeys(str(row["probe"]) for row in rows))
    found = {(str(row["factor"]), str(row["probe"])): row for row in rows}
    table = []
    for factor in dict.fromkeys(str(row["factor"]) for row in rows):
        picked = [found.get((factor, probe), {}) for probe in probes]
        cells = [score(row.get(measure)) for row in picked for measure in ("leakage", "redundancy")]
        table.append(["all factors" if factor == "all" else factor, *cells])
    heads = ["factor", *["leakage", "redundancy"] * len(probes)]
    above = [(PROBES.get(probe, probe), 2) for probe in probes]
    words = "Leakage: found in a block that should not have it. Redundancy: found in several blocks. 0 is best."
    return join([framed_table(f"{which}-summary", "Leakage and redundancy", heads, table, above=above, whose=name),
                 element("p", words, class_="legend")])  # fmt: skip


def _with_error(row: Mapping[str, Any], value: str, digits: int) -> str:
    error = score(row["standard_error"], digits)
    return score(row[value], digits) + ("" if error == NONE else f"\u00a0±\u00a0{error}")


def _kl(run: Run, which: str, name: str) -> Html:
    rows = run.table("kl")
    most = max((_value(row["nats"], 0.0) for row in rows), default=0.0) or 1.0
    table = [
        [
            code(str(row["block"])),
            cell(
                _with_error(row, "nats", 1), class_="meter", style=f"--share:{share(_value(row['nats'], 0.0) / most)}"
            ),
            score(row["bits"], 1),
            score(row["active"], 0),
            score(row["dims"], 0),
        ]
        for row in rows
    ]
    heads = ["block", "nats ± standard error", "bits", "active", "dimensions"]
    return framed_table(f"{which}-kl", "KL divergence of each block", heads, table, whose=name, quiet=True)


def _bits(run: Run, which: str, name: str) -> Html:
    table = [
        [
            *(code(str(row["observation"])), _with_error(row, "bits_per_dim", 4), score(row["elbo_bits_per_dim"], 4)),
            *(score(row["samples"], 0), score(row["images"], 0), score(row["dims"], 0)),
        ]
        for row in run.table("bits_per_dim")
    ]
    heads = ["observation", "bits per dimension ± standard error", "by the ELBO", "samples", "images", "dimensions"]
    return framed_table(f"{which}-bits", "Bits per dimension", heads, table, whose=name, quiet=True)


def _disentanglement(run: Run, which: str, name: str) -> Html:
    table = [[_metric(row), score(row["score"], 3)] for row in run.table("disentanglement")]
    return framed_table(
        f"{which}-disentanglement", "Disentanglement", ["score", "value"], table, whose=name, quiet=True
    )


def _plain_table(rows: Sequence[Mapping[str, Any]], identifier: str, caption: str, whose: str) -> Html:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [[score(row.get(key), 0 if isinstance(row.get(key), int) else 3) for key in columns] for row in rows]
    return framed_table(identifier, caption, [spaced(column) for column in columns], table, whose=whose, quiet=True)
