"""The table of experiment 2: a line for each method and number of clusters, the claims, the words and the pictures."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import published
import results_file
import torch
from experiment2_plan import (
    BLOCK,
    COLOURS,
    MIDDLE,
    MIDDLE_TOLD,
    OURS,
    PAPER,
    RIVALS,
    SCORES,
    SIZES,
    Material,
    Task,
    as_today,
    effort_of,
    ours_recipe,
    paper_recipe,
    read_by,
    recipe_name,
    recipe_of_ours,
    settings_of,
)
from torch import Tensor

import infoplace as ip
from infoplace import files, plots
from infoplace.figures import cluster_images, image_observation
from infoplace.metrics.clustering import ClusteringTable, clustering

FACTORS = ("count", "left", "right", "colour", "polarity")
ACCURACIES = {"majority": "majority", "hungarian": "Hungarian"}
LINES = "lines.json"
Rows = list[dict[str, Any]]
"""What each seed was measured to be, the first seed first."""


@dataclasses.dataclass(frozen=True)
class Line:
    """What all seeds of a task were measured to be, in a form that is kept beside the results."""

    method: str
    k: int
    change: str
    seeds: int
    settings: dict[str, Any]
    """What the result hangs on, but for the seed; the recipe's is that of the first run."""
    scores: dict[str, list[float]]
    """Mean and standard deviation over the seeds."""
    chosen: dict[str, float] | None
    """The scores of the seed with the best bound on held-out training images; None where there is no bound."""
    agree: float | None
    """The mean ARI between the clusters of two seeds on held-out training images; None of one seed."""
    commit: str
    date: str
    machine: dict[str, Any]

    def mean(self, score: str) -> float:
        """The mean of a score over the seeds."""
        return self.scores[score][0]

    def percent(self, score: str) -> str:
        """Mean and standard deviation in percent."""
        mean, spread = (100 * value for value in self.scores[score])
        return f"{mean:.1f}" + (f" ± {spread:.1f}" if self.seeds > 1 else "")

    def length(self) -> str:
        """How long a run learned."""
        if self.method.startswith("kmeans"):
            return ""
        recipe = self.settings["recipe"]
        return f"{recipe['training']['steps']} steps" if recipe else f"x {self.settings['effort']:g}"


def line_of(task: Task, rows: Rows, settings: dict[str, Any]) -> Line:
    """The line of a task, of what its seeds were measured to be."""
    scores = [*SCORES, "seconds", "one_cluster"]
    scores += [name for name in ("calibration_error", *(f"nmi_{factor}" for factor in FACTORS)) if name in rows[0]]
    values = {score: [float(row[score]) for row in rows] for score in scores}
    best = best_of(rows)
    return Line(
        method=task.method,
        k=task.k,
        change=task.change,
        seeds=len(rows),
        settings=settings,
        scores={
            score: [
                round(statistics.mean(found), 4),
                round(statistics.stdev(found), 4) if len(found) > 1 else 0.0,
            ]
            for score, found in values.items()
        },
        chosen={"seed": best["seed"], **{score: round(best[score], 4) for score in scores}}
        if "bound" in best
        else None,
        agree=agreed(rows),
        commit=rows[0]["commit"],
        date=rows[-1]["date"],
        machine=rows[0]["machine"],
    )


def lines_of(
    plan: Mapping[str, Task], found: Mapping[str, Rows], kept: Path, data: Material, options: argparse.Namespace
) -> dict[str, Line]:
    """The lines of the tasks that are measured: of the runs that are there, or kept of runs with the same settings.

    A kept line goes when there are as many seeds again.
    """
    there = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    result = {}
    for name, task in plan.items():
        settings = settings_of(task, 0, data, options)
        del settings["seed"]
        own = Line(**there[name]) if name in there else None
        if own is not None and as_today(own.settings) != settings:
            own = None
        rows = found.get(name, [])
        if rows and (own is None or len(rows) >= own.seeds):
            own = line_of(task, rows, settings)
        if own is not None:
            result[name] = own
    return result


def write(
    plan: Mapping[str, Task], found: Mapping[str, Rows], data: Material, command: str, options: argparse.Namespace
) -> Path:
    """Write the lines, the pictures and the results file."""
    name = results_name(options.data)
    folder = files.make_folder(results_file.FOLDER / name)
    lines = lines_of(plan, found, folder / LINES, data, options)
    if not lines:
        raise SystemExit(f"no finished run of {options.data} in {options.runs}; run {command}")
    files.write_json(folder / LINES, {key: dataclasses.asdict(line) for key, line in lines.items()})
    text = notes(plan, lines, data, draw(lines, found, data, folder), options)
    newest = max(lines.values(), key=lambda line: line.date)
    return results_file.write(name, command, list(claims(lines, options)), text, machine=newest.machine)


def results_name(data: str) -> str:
    """The results file of a data set; the full street numbers are the street numbers.

    >>> results_name("street_numbers/full"), results_name("street_numbers/easy")
    ('clustering_street_numbers', 'clustering_street_numbers_easy')
    """
    plain = data.removesuffix("/full").rstrip("/").removeprefix("/")
    return "clustering_" + "".join(letter if letter.isalnum() else "_" for letter in plain)


def best_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the best bound on held-out training images; where there is no bound, the first."""
    return max(rows, key=lambda row: row.get("bound", -row["seed"]))


def agreed(rows: list[dict[str, Any]]) -> float | None:
    """How alike the clusters of any two seeds are: the mean ARI over their pairs, on held-out training images."""
    from sklearn.metrics import adjusted_rand_score

    held = [files.read_tensors(row["folder"] / "clusters.safetensors")[0]["held_out"].numpy() for row in rows]
    pairs = [adjusted_rand_score(left, right) for left, right in itertools.combinations(held, 2)]
    return round(statistics.mean(pairs), 4) if pairs else None


# ---- claims ----------------------------------------------------------------------------------------------------------


def goals(options: argparse.Namespace) -> dict[str, str]:
    """What each claim should reach; the published numbers of MNIST, where nothing was cut, and the paper's of SVHN."""
    name = results_name(options.data)
    if name == "clustering_mnist":
        own = {"ours_k10_hungarian": ">=0.95", "ours_k30_majority": ">=0.97"}
        theirs = published.METHODS
        cut = options.images is not None or min(effort_of(method, options) for method in theirs) < 1
        return own if cut else own | {f"{method}_k10_hungarian": one.goal for method, one in theirs.items()}
    if name == "clustering_street_numbers":
        leads = {f"ours_k{k}_{score}_lead": ">=0.1" for k in SIZES for score in ("majority", "hungarian")}
        return {"ours_k10_hungarian": ">=0.77", "ours_k30_majority": ">=0.77", **leads}
    if name == "clustering_svhn":
        (mean, spread), best = PAPER["ours_paper_k30"], max(accuracy for accuracy, _ in PAPER.values())
        return {"ours_paper_k30_majority": f">={mean - spread:.3g}", "ours_k30_majority": f">={best:.3g}"}
    return {}


def claim(
    name: str, line: Line, score: str, context: Mapping[str, Any], options: argparse.Namespace, less: float = 0.0
) -> dict[str, Any]:
    """One number over the seeds, less another one."""
    units = {"clusters_used": "clusters", "nmi": "NMI", "nmi_colour": "NMI", "nmi_count": "NMI", "ari": "ARI"}
    goal = "" if line.change else goals(options).get(name, "")
    mean, spread = line.scores[score]
    return results_file.summary(
        name, round(mean - less, 4), spread, line.seeds, units.get(score, "fraction"), goal, context
    )


def claims(lines: Mapping[str, Line], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every method's scores, by how much ours leads, and what its clusters follow besides."""
    for name, line in lines.items():
        context: dict[str, Any] = {"change": line.change} if line.change else {}
        context |= {key: line.settings[key] for key in ("data", "images", "effort", "k")}
        context |= {"one_cluster": line.mean("one_cluster"), "seconds": round(line.mean("seconds"), 1)}
        context |= {"commit": line.commit, "date": line.date}
        for score in (*SCORES, *(["calibration_error"] if "calibration_error" in line.scores else [])):
            more: dict[str, Any] = {}
            if line.chosen:
                more = {"chosen_seed": line.chosen["seed"], "chosen": line.chosen[score]}
            if (options.data, line.k, score) == ("mnist", 10, "hungarian") and line.method in published.METHODS:
                more["published"] = published.METHODS[line.method].accuracy
            yield claim(f"{name}_{score}", line, score, {**context, **more}, options)
        for factor in ("colour", "count"):
            if line.method in OURS and f"nmi_{factor}" in line.scores:
                prefix = line.method if line.k == min(SIZES) else name
                yield claim(f"{prefix}_nmi_{factor}", line, f"nmi_{factor}", context, options)
    for k, score in itertools.product(SIZES, ACCURACIES):
        found = rivals(lines, k, score)
        if f"ours_k{k}" in lines and found:
            best = max(found.values(), key=lambda line: line.mean(score))
            context = {"data": options.data, "k": k, "ahead_of": f"{best.method}_k{k}"}
            yield claim(f"ours_k{k}_{score}_lead", lines[f"ours_k{k}"], score, context, options, less=best.mean(score))


def rivals(lines: Mapping[str, Line], k: int, score: str) -> dict[str, Line]:
    """Of each other method, whatever it reads, the line with the best mean."""
    found: dict[str, Line] = {}
    for line in lines.values():
        name = read_by(line.method)[0]
        if line.k == k and line.method in (*RIVALS, *MIDDLE) and name in RIVALS:
            found[name] = max(found.get(name, line), line, key=lambda one: one.mean(score))
    return found


def leads(lines: Mapping[str, Line]) -> list[str]:
    """By how much ours is ahead of each other method, as a table."""
    table = []
    for k, score in itertools.product(SIZES, ACCURACIES):
        found = rivals(lines, k, score)
        if f"ours_k{k}" in lines and found:
            own = lines[f"ours_k{k}"].mean(score)
            ahead = {name: f"{100 * (own - line.mean(score)):+.1f} ({line.method})" for name, line in found.items()}
            cells = [ahead.get(name, "") for name in published.METHODS]
            table.append(f"| {k} | {ACCURACIES[score]} | {' | '.join(cells)} |")
    if not table:
        return []
    names = " | ".join(published.METHODS)
    words = "By how many points `ours` is ahead of the best row of each other method:"
    return ["", words, "", f"| k | score | {names} |", f"|{' --- |' * (2 + len(published.METHODS))}", *table]


# ---- pictures and words ----------------------------------------------------------------------------------------------


def scored(found: Mapping[str, Tensor], data: Material, k: int, probabilities: Tensor | None = None) -> ClusteringTable:
    """Scores on the test images, with mappings fitted on training images."""
    train, test = data.train.factors[data.label], data.test.factors[data.label]
    return clustering(found["train"], train, found["test"], test, clusters=k, probabilities=probabilities)


def draw(lines: Mapping[str, Line], found: Mapping[str, Rows], data: Material, folder: Path) -> list[tuple[str, str]]:
    """Figures 4 and 6 of the runs with the best bounds: ``(path, what it shows)``; of a line that was kept, as they are."""
    shown = []
    for method, k in (("ours", 30), ("ours", 10), ("ours_paper", 30), ("ours_without_auxiliary", 10)):
        name = f"{method}_k{k}"
        if name not in lines:
            continue
        rest = " and ".join(block for block in lines[name].settings["recipe"]["partition"]["blocks"] if block != BLOCK)
        alts = {
            "figure4": "labels against clusters of the test images, clusters re-arranged",
            "figure6": f"generated images of every cluster in use; {BLOCK} varies along the columns, {rest} along the rows",
        }
        figures = pictures(best_of(found[name]), data, k, rest) if len(found.get(name, [])) == lines[name].seeds else {}
        for figure, words in alts.items():
            path, alt = folder / f"{figure}_{name}.png", f"{name}, the seed with the best bound: {words}"
            if figure in figures:
                plots.save(figures[figure], path, alt=alt)
            if path.is_file():
                shown.append((f"{folder.name}/{path.name}", alt))
    return shown


def pictures(row: Mapping[str, Any], data: Material, k: int, rest: str) -> dict[str, Any]:
    """Figures 4 and 6 of one run."""
    table = scored(files.read_tensors(row["folder"] / "clusters.safetensors")[0], data, k)
    sizes = table.confusion.sum(0)
    used = [number for number in table.arranged().tolist() if sizes[number]]
    titles = [
        f"cluster {number}\n{data.label} {table.majority.labels[number]}, {100 * sizes[number] / sizes.sum():.1f}%"
        for number in used
    ]
    pair = ip.load_pair(row["folder"] / "run")
    images = cluster_images(pair, image_observation(pair), BLOCK, generator=torch.Generator().manual_seed(0))
    return {
        "figure4": plots.confusion(table, label=data.label),
        "figure6": plots.cluster_samples(
            images[used], titles, title=f"{BLOCK} along the columns, {rest} along the rows"
        ),
    }


def row_of(first: str, line: Line, last: list[str]) -> str:
    """A line of a table with all scores."""
    plain = [f"{line.mean('nmi'):.3f}", f"{line.mean('ari'):.3f}", f"{line.mean('clusters_used'):.1f}"]
    cells = [first, str(line.k), str(line.seeds), line.percent("majority"), line.percent("hungarian"), *plain, *last]
    return f"| {' | '.join(cells)} |"


def header(first: str, *last: str) -> list[str]:
    """The head of such a table."""
    cells = [first, "k", "seeds", "majority, %", "Hungarian, %", "NMI", "ARI", "clusters used", *last]
    return ["", f"| {' | '.join(cells)} |", f"|{' --- |' * len(cells)}"]


def told(data: Material, options: argparse.Namespace) -> list[str]:
    """What was measured, on what, and by which rule."""
    part = "all training images" if options.images is None else "a part of the training images"
    ours, paper = (
        recipe["training"]["steps"] for recipe in (ours_recipe(options, min(SIZES)), paper_recipe(options, max(SIZES)))
    )
    own, (small, large) = recipe_of_ours(options)["training"]["steps"], SIZES
    theirs = f"DEC, IMSAT and ACOL learn from {options.copies} such versions of every image besides" if options.copies else (
        "the others see images as they are, but for ACOL's rotations and flips and IMSAT's perturbations; the change `agreement "
        "without view` has none, either"
    )  # fmt: skip
    return [
        f"Data: {options.data}. Every method learns from the same {len(data.train)} images ({part}; {len(data.held_out)} more "
        f"are held out from all of them, for the bound), without labels, and is scored on {len(data.test)} test images. "
        "Mappings from clusters to labels are fitted on training images: the majority vote gives each cluster the label that is "
        "commonest in it, the Hungarian one gives each label one cluster. One single cluster scores "
        f"{100 * one_cluster(data):.1f}%. Seconds are those of the learning alone.",
        "",
        "What was cut: `length` is the factor on the epochs or steps of a method's publication, or the steps. `ours` takes "
        f"{ours} steps, and {own} in its recipe; `ours_paper` takes {paper}, and the paper took 1,000,000.",
        "",
        "Settings: in this table nothing is chosen by labels, nor by the bounds of different settings, which are not comparable. "
        "Before it, while the recipes of `ours` were being made, their clusters were compared with labels of training and "
        "validation images (never of test images): that is how it was seen that clusters of street numbers followed the "
        "neighbouring digits, at which betas they followed colours, and that a fresh fit to a trained encoder's means parts "
        "digits that one class holds, which is why the classes are started more than once. This table stood with one start "
        "before, so its score on test images was known by then; nothing was read off it but that it fell short. The other "
        f"methods have the settings of their publications, `ours` the recipe `{recipe_name(options)}` for {small} clusters and "
        f"`{recipe_name(options, large)}` for {large}, `ours_paper` the paper's beta of 40 and temperature of 0.4; no row of a "
        f"sweep takes a place in the table. With {large} clusters, `ours` takes their number for an upper bound and leaves empty "
        "what does not pay: `clusters used` says how many are left, and one to one its score is that of so many. What a cluster "
        "must be worth, two weights, was set on the means of one training run for each data set, among four pairs, as the one "
        "at which mergers are free up to the number that is taken and cost much from there; the labels of training images were "
        f"printed beside. Known of test images by then: that {large} clusters evenly used fell short on MNIST, and what mergers "
        "alone give, one seed each. That two clusters of street numbers then collected what fits nowhere, for which classes are "
        "dissolved since, was seen on training images. Small shifts and rotations are the view of the agreement of `ours`; "
        + theirs
        + (". " + MIDDLE_TOLD if data.middle else "")
        + ". Among the seeds of one setting "
        "the bound on held-out training images chooses: `by the bound`, beside mean and standard deviation over all seeds. "
        "`seeds agree` is the mean ARI between the clusters of two seeds on held-out training images, which needs no label.",
    ]


def one_cluster(data: Material) -> float:
    """What a single cluster scores."""
    commonest = data.train.factors[data.label].bincount().argmax()
    return float((data.test.factors[data.label] == commonest).float().mean())


def measured_where(lines: Mapping[str, Line]) -> str:
    """Which lines were measured when, and with what."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, line in lines.items():
        groups.setdefault((line.date, line.commit, line.machine["torch"]), []).append(name)
    told = [
        f"on {date} at {commit} with torch {version}: {', '.join(names)}"
        for (date, commit, version), names in sorted(groups.items())
    ]
    return f"Measured {'; '.join(told)}. Seconds of different days are of different machines."


def notes(
    plan: Mapping[str, Task],
    lines: Mapping[str, Line],
    data: Material,
    shown: list[tuple[str, str]],
    options: argparse.Namespace,
) -> str:
    """What stands below the table in RESULTS.md."""
    words = [*told(data, options), "", measured_where(lines)]
    absent = [name for name, task in plan.items() if name not in lines or lines[name].seeds < task.seeds]
    if absent:
        words += ["", f"Not measured yet, or with fewer seeds than planned: {', '.join(absent)}."]
    stated = "published, and here at that length, %" if options.data == "mnist" else "the paper, SVHN, %"
    whole = published.measured()
    words += header("method", "length", "by the bound: majority, Hungarian", "seeds agree", "seconds", stated)
    for name, line in lines.items():
        if line.change:
            continue
        best = line.chosen
        bound = f"{100 * best['majority']:.1f}, {100 * best['hungarian']:.1f}" if best else ""
        theirs = "{:.1f} ± {:.1f}".format(*(100 * part for part in PAPER[name])) if name in PAPER else ""
        if options.data == "mnist":
            source = published.METHODS.get(line.method) if line.k == min(SIZES) else None
            theirs = source.stated if source else ""
            if source and line.method in whole:
                theirs += f", here {100 * whole[line.method]['value']:.1f}"
        agree = "" if line.agree is None else f"{line.agree:.3f}"
        words.append(row_of(line.method, line, [line.length(), bound, agree, f"{line.mean('seconds'):.0f}", theirs]))
    asked = {goal for name, goal in goals(options).items() if name.endswith("_lead")}
    best = max((line.mean("majority") for k in SIZES for line in rivals(lines, k, "majority").values()), default=0.0)
    words += leads(lines)
    if asked and 1 - best < float(max(asked)[2:]):
        words += [
            "",
            f"The best other method has {100 * best:.1f}% by the majority vote, so that no one can lead it by the "
            f"{100 * float(max(asked)[2:]):.0f} points that the goals ask for.",
        ]
    if options.data == "mnist":
        words += [
            "",
            "The published numbers are of the methods' own papers, one to one with ten clusters; those here at that length are "
            "measured by `python benchmarks/paper/published.py`, on all 70,000 images as in the papers, as far as there are any.",
        ]
    else:
        words += [
            "",
            "The paper's Table 1 is of SVHN, another data set, beside the row that is most alike: its k=30 and ACOL's "
            "are the majority vote, IMSAT's and DEC's were reached on GIST features, IMSAT's one to one. Here HOG features stand "
            "in for GIST.",
        ]
    factors = [name for name in FACTORS if f"nmi_{name}" in next(iter(lines.values())).scores]
    if factors:
        words += [
            "",
            f"What the clusters follow, as NMI on the test images: the {data.label}; how many digits are shown; the "
            f"digits to its left and right; the ground's colour (k-means of training colours, {COLOURS} bins); whether the ink "
            "is the brighter one. "
            "The paper's Figure 5 shows clusters that follow the number of digits.",
            "",
            f"| method | k | {' | '.join([data.label, *factors])} |",
            f"|{' --- |' * (3 + len(factors))}",
        ]
        for line in lines.values():
            cells = [f"{line.mean(score):.3f}" for score in ("nmi", *(f"nmi_{factor}" for factor in factors))]
            words.append(f"| {line.change or line.method} | {line.k} | {' | '.join(cells)} |")
    for beginning, own, title, text in (
        ("beta_", ["ours_paper_k30"], "beta 40, the paper's", "The paper's recipe over beta:"),
        (
            "ablation_",
            [f"ours_k{k}" for k in SIZES],
            "none: ours",
            f"Each row is one change of the recipe `{recipe_name(options)}` (with k={max(SIZES)}, of "
            f"`{recipe_name(options, max(SIZES))}`), with everything else as it is:",
        ),
    ):
        changes = [(line.change, line) for name, line in lines.items() if name.startswith(beginning)]
        if not changes:
            continue
        words += ["", text, *header("change", "seconds")]
        table = [(title, lines[name]) for name in own if name in lines] + changes
        if beginning == "ablation_":
            table += [
                ("without x_hat", lines[name]) for k in SIZES if (name := f"ours_without_auxiliary_k{k}") in lines
            ]
        words += [row_of(change, line, [f"{line.mean('seconds'):.0f}"]) for change, line in table]
    words += ["", *(f"![{alt}](results/{path})\n" for path, alt in shown)]
    return "\n".join(words).rstrip()
