"""The paper's experiment 1, both ways: which block carries the digit, and which the colour.

python benchmarks/paper/experiment1.py                       # everything: train, measure, draw, write the results
python benchmarks/paper/experiment1.py --only best paper     # some of it; several such commands can run side by side
python benchmarks/paper/experiment1.py --only                # nothing new: gather what is there

A run that is there already is not trained again, and one that was cut short goes on. The tasks are `best` (the recipe
`experiment1`), `paper` (the paper's own), `grayscale`, `three_blocks`, the sweeps `beta_*` and `patch_*`, and the
ablations, each one change of the best recipe. Results go to `benchmarks/results/experiment1.json` and
`experiment1_ablation.json`, pictures to `benchmarks/results/experiment1/`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import results_file

import infoplace as ip
from infoplace import plots
from infoplace.data import load
from infoplace.evaluation import EVALUATION, evaluate, progress_bar
from infoplace.figures import draw_figures
from infoplace.recipe import shipped_recipes
from infoplace.training import CHECKPOINT

COMMAND = "python benchmarks/paper/experiment1.py"
PICTURES = results_file.FOLDER / "experiment1"
BETAS = (1, 5, 10, 20, 40)
SIDES = (1, 2, 4, 8, 16)
EVERYTHING = ("swap", "placement", "kl", "bits_per_dim")


@dataclasses.dataclass(frozen=True)
class Task:
    """One row of the experiment: a recipe, how many seeds, and what it is measured with."""

    recipe: dict[str, Any]
    seeds: int
    metrics: tuple[str, ...] = ("swap", "placement", "kl")
    change: str = ""


def recipe_of(name: str, data: str | None, **training: Any) -> dict[str, Any]:
    """A shipped recipe as plain values, on other data or with other training settings."""
    recipe = ip.load_recipe(shipped_recipes()[name]).to_dict()
    recipe["data"] = data or recipe["data"]
    recipe["training"].update(training)
    return recipe


def changed(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with other values at dotted paths; a path that is not there is an error."""
    result = copy.deepcopy(dict(recipe))
    for path, value in changes.items():
        *inner, last = path.split(".")
        place = result
        for key in inner:
            place = place[key]
        if last not in place:
            raise KeyError(path)
        place[last] = value
    return result


def tasks(options: argparse.Namespace) -> dict[str, Task]:
    """All of them, in the order in which they run."""
    shorter = {} if options.steps is None else {"steps": options.steps}
    best = recipe_of("experiment1", options.data, **shorter)
    paper = recipe_of("paper_experiment1", options.data or best["data"], steps=options.paper_steps)
    paper["factors"] = best["factors"]
    shuffle = "partition.observations.x_hat.transform"
    logistics = {"discretized_logistic_mixture": {"components": 5, "bins": 256}}
    twice = copy.deepcopy(best)
    draws = twice["partition"]["observations"]
    draws["x_hat"]["weight"] = 0.5
    draws["x_hat_2"] = {**copy.deepcopy(draws["x_hat"]), "redraw": False}
    twice["partition"]["blocks"]["z_l"]["reads"] = ["x_hat"]
    beta = best["objective"]["beta_elbo"]["beta"]
    ablations = {
        "standard normal prior of z_l": {"partition.blocks.z_l.prior": "standard_normal"},
        "no second draw": {"partition.observations.x_hat.redraw": False, "partition.blocks.z_l.reads": ["x_hat"]},
        "the paper's networks": {"networks": "paper"},
        "beta of z_g halved, of z_l doubled": {"partition.blocks.z_g.beta": 0.5, "partition.blocks.z_l.beta": 2.0},
        "beta of z_g doubled, of z_l halved": {"partition.blocks.z_g.beta": 2.0, "partition.blocks.z_l.beta": 0.5},
        "z_l of 4 dimensions": {"partition.blocks.z_l.dim": 4},
        "z_l of 32 dimensions": {"partition.blocks.z_l.dim": 32},
        "mixture of five logistics": {
            "partition.observations.x.likelihood": logistics,
            "partition.observations.x_hat.likelihood": logistics,
        },
        "KL warm-up over a quarter": {"objective.beta_elbo.warmup": best["training"]["steps"] // 4},
        "z_g of 64 dimensions": {"partition.blocks.z_g.dim": 64},
        "z_g also reads x_hat": {"partition.blocks.z_g.reads": ["x", "x_hat"]},
    }
    plan = {
        "best": Task(best, options.seeds, EVERYTHING),
        "paper": Task(paper, options.seeds, EVERYTHING),
        "grayscale": Task(recipe_of("grayscale", options.data, **shorter), options.seeds, EVERYTHING),
        "three_blocks": Task(recipe_of("three_blocks", options.data, **shorter), options.seeds, EVERYTHING),
    }
    if load(best["data"], "test", limit=1).shape[0] == 1:
        print("the images are grey, so the two tasks that take colour away are left out", file=sys.stderr)
        del plan["grayscale"], plan["three_blocks"]
    for value in BETAS:
        plan[f"beta_{value}"] = Task(
            changed(best, {"objective.beta_elbo.beta": float(value)}), options.sweep_seeds, change=f"beta {value}"
        )
    for side in SIDES:
        plan[f"patch_{side}"] = Task(
            changed(best, {shuffle: {"patch_shuffle": {"n": side}}}), options.sweep_seeds, change=f"patch side {side}"
        )
    recipes = {change: changed(best, values) for change, values in ablations.items()}
    recipes["two draws of x_hat, of half the weight each"] = twice
    for change, recipe in recipes.items():
        name = "ablation_" + "".join(c if c.isalnum() else "_" for c in change)
        plan[name] = Task(recipe, options.sweep_seeds, change=change)
    # What is the best recipe itself is not trained twice.
    same = {
        "beta_" + f"{beta:g}",
        f"patch_{best['partition']['observations']['x_hat']['transform']['patch_shuffle']['n']}",
    }
    return {name: task for name, task in plan.items() if name not in same}


def factors_of(recipe: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """The recipe's factors as far as the data have them; a class label stands in for the digit."""
    found = {name: factor for name, factor in recipe["factors"].items() if name in data.factors}
    if "digit" not in data.factors and "label" in data.factors and "digit" in recipe["factors"]:
        found["label"] = recipe["factors"]["digit"]
    varying = {name: bool((data.factors[name] != data.factors[name][:1]).any()) for name in found}
    for name, factor in found.items():
        if factor["given"] is not None and not varying.get(factor["given"], False):
            found[name] = {**factor, "given": None}
    return {name: factor for name, factor in found.items() if varying[name]}


def recipe_for(task: Task, seed: int) -> ip.Recipe:
    """The task's recipe with a seed."""
    return ip.Recipe.from_dict(changed(task.recipe, {"training.seed": seed}))


def check_recipe(folder: Path, recipe: ip.Recipe) -> None:
    """Stop at a folder of another recipe, before anything is trained, measured or gathered in it."""
    if (folder / "recipe.yaml").is_file() and ip.load_recipe(folder / "recipe.yaml") != recipe:
        raise SystemExit(f"{folder} holds a run of another recipe; remove it, or choose another folder with --runs")


def measured(folder: Path, task: Task, options: argparse.Namespace) -> dict[str, Any] | None:
    """The folder's evaluation, if it is of these weights, metrics and number of images."""
    if not (folder / EVALUATION).is_file() or not (folder / "run.json").is_file():
        return None
    evaluation = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    weights = json.loads((folder / "pair.json").read_text(encoding="utf-8"))["weights_sha256"]
    metrics = [ip.make_metric(metric).to_spec() for metric in task.metrics]
    same = (
        evaluation.get("weights_sha256") == weights
        and evaluation["settings"]["metrics"] == metrics
        and evaluation["data"]["images"] == options.images
    )
    return evaluation if same else None


def run(name: str, task: Task, seed: int, options: argparse.Namespace) -> None:
    """Train and measure one run, as far as that is not done yet."""
    folder = options.runs / name / f"seed{seed}"
    recipe = recipe_for(task, seed)
    check_recipe(folder, recipe)
    if not (folder / "run.json").is_file():
        print(f"training {name}, seed {seed}: {recipe.settings.steps} steps", flush=True)
        train = load(str(recipe.data), "train", download=options.download)
        ip.train(
            recipe, train, train.shape, folder,
            resume=(folder / CHECKPOINT).is_file(), device=options.device, progress=options.progress,
        )  # fmt: skip
    if measured(folder, task, options) is None:
        print(f"measuring {name}, seed {seed}", flush=True)
        test = load(str(recipe.data), "test", download=options.download, limit=options.images)
        with progress_bar(options.progress) as report:
            evaluate(
                folder, factors=factors_of(task.recipe, test), metrics=task.metrics, images=options.images,
                device=options.device, report=report,
            )  # fmt: skip


# ---- gathering ---------------------------------------------------------------------------------------------------------


def evaluations(plan: Mapping[str, Task], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What the finished runs of each task were measured to be."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, task in plan.items():
        for seed in range(task.seeds):
            folder = options.runs / name / f"seed{seed}"
            check_recipe(folder, recipe_for(task, seed))
            evaluation = measured(folder, task, options)
            if evaluation is not None:
                found.setdefault(name, []).append({**evaluation, "folder": folder})
    return found


def swapped(evaluation: Mapping[str, Any], factor: str, block: str | None, key: str = "score") -> float:
    """A factor's score with a block drawn from its prior; of the reconstruction for None. `key` may be `normalised`."""
    rows = evaluation["tables"]["swap"]
    return next(
        row[key]
        for row in rows
        if (row["factor"], row["changed"]) == (factor, block) and row["how"] in ("kept", "prior")
    )


def kept_crossed(evaluation: Mapping[str, Any], factor: str, which: str) -> float:
    """`kept` or `crossed` of a factor that has a block, with draws from the prior."""
    rows = evaluation["tables"]["kept_crossed"]
    return next(row[which] for row in rows if (row["factor"], row["how"]) == (factor, "prior"))


def two_block(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of Figure 3 and of the other way round."""
    digit = "digit" if "digit" in evaluation["factors"] else "label"
    values = {
        "classifier_accuracy": evaluation["predictors"][digit]["real"],
        "digit_accuracy_reconstruction": swapped(evaluation, digit, None),
        "digit_accuracy_z_l_resampled": swapped(evaluation, digit, "z_l"),
        "digit_accuracy_z_g_resampled": swapped(evaluation, digit, "z_g"),
        "digit_kept": kept_crossed(evaluation, digit, "kept"),
        "digit_crossed": kept_crossed(evaluation, digit, "crossed"),
    }
    if "ground" in evaluation["factors"]:
        given = evaluation["factors"]["ground"]["given"]
        values["colour_kept"] = kept_crossed(evaluation, "ground", "kept")
        values["colour_crossed"] = kept_crossed(evaluation, f"ground given {given}" if given else "ground", "crossed")
    for row in evaluation["tables"].get("placement_summary", []):
        names = {digit: "digit_leakage", "ground": "colour_leakage"}
        if row["probe"] == "mlp" and row["factor"] in names:
            values[names[row["factor"]]] = row["leakage"]
    if "polarity" in evaluation["factors"]:
        # Wherever it goes: the block whose loss costs it most carries it, and it is kept with the other one resampled.
        values["polarity_kept"] = max(swapped(evaluation, "polarity", block, "normalised") for block in ("z_g", "z_l"))
        values["polarity_z_g_resampled"] = swapped(evaluation, "polarity", "z_g", "normalised")
        values["polarity_z_l_resampled"] = swapped(evaluation, "polarity", "z_l", "normalised")
    return values


def by_factor(evaluation: Mapping[str, Any], prefix: str, names: Mapping[str, str]) -> dict[str, float]:
    """Kept and crossed of every factor that has a block, under a claim's name."""
    return {
        f"{prefix}_{names.get(factor, factor)}_{which}": kept_crossed(evaluation, factor, which)
        for factor, declared in evaluation["factors"].items()
        if declared["block"] is not None
        for which in ("kept", "crossed")
    }


GOALS = {
    "classifier_accuracy": "",
    "digit_accuracy_reconstruction": ">=0.98",
    "digit_accuracy_z_l_resampled": ">=0.963",
    "digit_accuracy_z_g_resampled": "<=0.117",
    "digit_kept": ">=0.97",
    "digit_crossed": "<=0.02",
    "colour_kept": ">=0.95",
    "colour_crossed": "<=0.05",
    "grayscale_shape_kept": ">=0.95",
    "grayscale_shape_crossed": "<=0.05",
    "grayscale_colour_kept": ">=0.95",
    "grayscale_colour_crossed": "<=0.05",
}


def claims_of(
    values: list[dict[str, float]], context: Mapping[str, Any], prefix: str = "", goals: bool = True
) -> Iterator[dict[str, Any]]:
    """One claim for each number, over the seeds."""
    for name in values[0]:
        found = [value[name] for value in values]
        unit = "fraction" if "accuracy" in name else "of what real images give"
        goal = GOALS.get(prefix + name, "") if goals else ""
        yield results_file.claim(prefix + name, found, unit, goal, {**context, "seeds": len(found)})


def gather(plan: Mapping[str, Task], options: argparse.Namespace) -> None:
    """Write both results files and the pictures from the runs that are finished."""
    found = evaluations(plan, options)
    if "best" not in found:
        raise SystemExit(f"no finished run of the best recipe in {options.runs}; run {COMMAND} --only best")
    machine = found["best"][0]["machine"]
    data = found["best"][0]["data"]
    claims: list[dict[str, Any]] = []
    for name, prefix in (("best", ""), ("paper", "paper_")):
        if name in found:
            steps = plan[name].recipe["training"]["steps"]
            context = {"data": data["source"], "images": data["images"], "recipe": name, "steps": steps}
            claims += claims_of([two_block(e) for e in found[name]], context, prefix)
    names = {"ground_chroma": "colour", "ground_luminance": "brightness"}
    for name, prefix, own in (
        ("grayscale", "grayscale", {**names, "digit": "shape", "label": "shape"}),
        ("three_blocks", "three_block", names),
    ):
        if name in found:
            context = {"data": data["source"], "images": data["images"], "recipe": name}
            claims += claims_of([by_factor(e, prefix, own) for e in found[name]], context)
    claims += spreads(sweep(found, plan, "beta"))
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw(plan, found)
    print(results_file.write("experiment1", COMMAND, claims, notes(plan, found), machine=machine))
    rows = []
    for name, task in plan.items():
        if name in found and (task.change or name == "best"):
            context = {"change": task.change or "none: the best recipe", "data": data["source"]}
            rows += claims_of([two_block(e) for e in found[name]], context, goals=False)
    print(results_file.write("experiment1_ablation", COMMAND, rows, ablation_notes(plan, found), machine=machine))
    write_matrices(found)


def sweep(
    found: Mapping[str, list[dict[str, Any]]], plan: Mapping[str, Task], kind: str
) -> dict[float, list[dict[str, Any]]]:
    """``{value: evaluations}`` of a sweep; the best recipe takes its place in it."""
    best = plan["best"].recipe
    own = (
        best["objective"]["beta_elbo"]["beta"]
        if kind == "beta"
        else best["partition"]["observations"]["x_hat"]["transform"]["patch_shuffle"]["n"]
    )
    rows = {float(own): found["best"]}
    rows |= {float(name.split("_")[1]): value for name, value in found.items() if name.startswith(kind + "_")}
    return dict(sorted(rows.items()))


def spreads(rows: Mapping[float, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """How far kept and crossed move over beta: the largest difference between the means at two of its values."""
    result = []
    for name in ("digit_kept", "digit_crossed", "colour_kept", "colour_crossed"):
        means = [
            statistics.mean(two_block(e)[name] for e in found) for found in rows.values() if name in two_block(found[0])
        ]
        if len(means) > 1:
            result.append(
                {
                    "name": f"beta_spread_{name}",
                    "value": round(max(means) - min(means), 4),
                    "spread": 0.0,
                    "runs": sum(map(len, rows.values())),
                    "unit": "largest minus smallest of the means",
                    "goal": "",
                    "context": {"betas": list(rows)},
                }
            )
    return result


# ---- pictures ----------------------------------------------------------------------------------------------------------


def draw(plan: Mapping[str, Task], found: Mapping[str, list[dict[str, Any]]]) -> None:
    """The paper's three figures, and the sweeps."""
    for name in ("best", "paper", "grayscale", "three_blocks", *(name for name in found if name.startswith("beta_"))):
        if name not in found:
            continue
        folder = found[name][0]["folder"]
        recipe = ip.load_recipe(folder / "recipe.yaml")
        draw_figures(ip.load_pair(folder), load(str(recipe.data), "test", limit=256), PICTURES / name)
        if name.startswith("beta_"):
            for picture in (PICTURES / name).glob("*.png"):
                if picture.name != "figure2.png":
                    picture.unlink()
            continue
        tables = [evaluation["tables"]["swap"] for evaluation in found[name]]
        alt = f"Bars: scores of every factor on real images, on reconstructions and with each block resampled; {name}"
        plots.save(plots.swap_bars(tables, how="prior"), PICTURES / name / "figure3.png", alt=alt)
    for kind, label in (("beta", "beta"), ("patch", "side of a patch, in pixels")):
        rows = sweep(found, plan, kind)
        if len(rows) > 1:
            measured = {value: [two_block(e) for e in evaluations_] for value, evaluations_ in rows.items()}
            alt = f"Lines: what is kept and what crosses, for digit and colour, over the {label}"
            plots.save(plots.sweep_lines(kept_lines(measured), label), PICTURES / f"{kind}_sweep.png", alt=alt)


def kept_lines(measured: Mapping[float, list[dict[str, float]]]) -> dict[str, dict[float, list[float]]]:
    """``{line: {value: one number for each seed}}`` of kept and crossed."""
    names = ("digit_kept", "digit_crossed", "colour_kept", "colour_crossed")
    return {
        name.replace("_", " "): {value: [row[name] for row in rows] for value, rows in measured.items()}
        for name in names
        if all(name in row for rows in measured.values() for row in rows)
    }


def write_matrices(found: Mapping[str, list[dict[str, Any]]]) -> None:
    """The placement matrix of each task, first seed, as CSV beside the pictures."""
    for name in ("best", "paper", "grayscale", "three_blocks"):
        rows = found[name][0]["tables"].get("placement") if name in found else None
        if not rows:
            continue
        with (PICTURES / f"placement_{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


# ---- words -------------------------------------------------------------------------------------------------------------


def matrix(name: str, found: Mapping[str, list[dict[str, Any]]], probe: str = "mlp") -> list[str]:
    """A placement matrix as Markdown: the mean over the seeds, in brackets the score of the untrained encoder."""
    tables = [[row for row in e["tables"].get("placement", []) if row["probe"] == probe] for e in found.get(name, [])]
    if not tables or not tables[0]:
        return []
    blocks = list(dict.fromkeys(row["block"] for row in tables[0]))
    factors = list(dict.fromkeys(row["factor"] for row in tables[0]))
    nats = {
        block: statistics.mean(row["nats"] for e in found[name] for row in e["tables"]["kl"] if row["block"] == block)
        for block in blocks
    }
    lines = [
        f"| {name}, {probe} probes | {' | '.join(factors)} | KL, nats |",
        f"| --- |{' --- |' * (len(factors) + 1)}",
    ]
    for block in blocks:
        cells = []
        for factor in factors:
            rows = [row for table in tables for row in table if (row["block"], row["factor"]) == (block, factor)]
            score, low, high, untrained, shuffled = (
                statistics.mean(row[key] if row[key] is not None else math.nan for row in rows)
                for key in ("score", "low", "high", "untrained", "shuffled")
            )
            cells.append(f"{score:.3f} ({low:.3f} to {high:.3f}; {untrained:.2f}; {shuffled:.2f})")
        lines.append(f"| {block} | {' | '.join(cells)} | {nats[block]:.1f} |")
    return [*lines, ""]


def notes(plan: Mapping[str, Task], found: Mapping[str, list[dict[str, Any]]]) -> str:
    """What stands below the table in RESULTS.md."""
    best = found["best"][0]
    lines = [
        f"Data: {best['data']['source']}, {best['data']['images']} test images; {best['settings']['latents']} are decoded and "
        "the likelihood's mean is scored, in [0, 1] throughout. The predictors see training images only. Spreads are over "
        "seeds. Kept and crossed are normalised: 0 is chance (0 for a squared correlation), 1 what real images give.",
        "",
        "The paper's Figure 3, on SVHN with a classifier of 95%: 86% on reconstructions, 80% with z_l resampled, 11% with z_g "
        "resampled, which is 0.82 kept and 0.01 crossed. It is another data set, and its classifier had seen the test images.",
        "",
        "| | real images | reconstruction | z_l resampled | z_g resampled | kept | crossed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| the paper, SVHN | 0.95 | 0.86 | 0.80 | 0.11 | 0.82 | 0.01 |",
    ]
    keys = (
        "classifier_accuracy",
        "digit_accuracy_reconstruction",
        "digit_accuracy_z_l_resampled",
        "digit_accuracy_z_g_resampled",
        "digit_kept",
        "digit_crossed",
    )
    whole = ip.load_recipe(shipped_recipes()["paper_experiment1"]).settings.steps
    for name, title in (
        ("paper", f"the paper's recipe, {{steps:,}} of its {whole:,} steps"),
        ("best", "the recipe `experiment1`, {steps:,} steps"),
    ):
        if name in found:
            title = title.format(steps=plan[name].recipe["training"]["steps"]) + f", seeds: {len(found[name])}"
            values = [two_block(e) for e in found[name]]
            means = " | ".join(f"{statistics.mean(value[key] for value in values):.3f}" for key in keys)
            lines.append(f"| {title} | {means} |")
    lines += [
        "",
        "Placement matrices, of draws from the posteriors: held-out score of a small MLP, in brackets its 95% bootstrap "
        "interval, the score of the same probe on the means of an untrained encoder, and of a shuffled "
        "factor. Accuracy for labels, squared correlation for values.",
        "",
    ]
    for name in ("best", "paper", "grayscale", "three_blocks"):
        lines += matrix(name, found)
    pictures = [
        ("best/figure1b.png", "Test images, their shuffled versions, and the reconstructions of both"),
        ("best/figure3.png", "Scores on real images, reconstructions, and with each block resampled"),
        ("best/figure2.png", "Beta 20: one block varied a hundred times, the other fixed, and the other way round"),
        ("best/mixtures.png", "Mixtures of test images: z_g from the image above, z_l from the image at the left"),
        ("paper/figure3.png", "The same bars for the paper's own recipe"),
        ("beta_sweep.png", "Kept and crossed over beta"),
        ("patch_sweep.png", "Kept and crossed over the side of the patches"),
        ("grayscale/mixtures.png", "Grayscale task: shape of the image above, colour of the image at the left"),
        ("three_blocks/figure2.png", "Three blocks: each varied with the other two fixed"),
    ]
    lines += [f"![{alt}](results/experiment1/{path})\n" for path, alt in pictures if (PICTURES / path).is_file()]
    return "\n".join(lines).rstrip()


def ablation_notes(plan: Mapping[str, Task], found: Mapping[str, list[dict[str, Any]]]) -> str:
    """Every change of the best recipe beside the best recipe, as a table."""
    names = {
        "digit_accuracy_reconstruction": "digit, reconstruction",
        "digit_kept": "digit kept",
        "digit_crossed": "digit crossed",
        "colour_kept": "colour kept",
        "colour_crossed": "colour crossed",
        "digit_leakage": "digit, leakage",
        "colour_leakage": "colour, leakage",
        "polarity_z_g_resampled": "polarity, z_g resampled",
        "polarity_z_l_resampled": "polarity, z_l resampled",
    }
    first = two_block(found["best"][0])
    columns = {key: title for key, title in names.items() if key in first}
    lines = [
        "Each row is one change of the recipe `experiment1`, with everything else as it is, and the mean over its seeds. "
        "Leakage is what a small MLP reads of a factor off draws of the block that should not have it, between chance and 1: "
        "it also counts what the decoder does not use.",
        "",
        f"| change | seeds | {' | '.join(columns.values())} |",
        f"| --- | --- |{' --- |' * len(columns)}",
    ]
    for name, task in plan.items():
        if name in found and (task.change or name == "best"):
            values = [two_block(e) for e in found[name]]
            means = " | ".join(f"{statistics.mean(value[key] for value in values):.3f}" for key in columns)
            lines.append(f"| {task.change or 'none'} | {len(values)} | {means} |")
    return "\n".join(lines)


@results_file.plain_errors()
def main() -> None:
    """Run what is asked for, then gather what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a set of infoplace.data, or a path; the recipes' own if left out")
    parser.add_argument("--download", action="store_true", help="fetch svhn, cifar10 or mnist if they are not there")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiment1"), help="where the runs go")
    parser.add_argument("--seeds", type=int, default=4, help="seeds of each task")
    parser.add_argument("--sweep-seeds", type=int, default=1, help="seeds of each sweep and ablation")
    parser.add_argument(
        "--paper-steps", type=int, default=5_000, help="steps of the paper's own recipe, 1,000,000 there"
    )
    parser.add_argument("--steps", type=int, help="steps of all other recipes, for a quick look; their own if left out")
    parser.add_argument("--images", type=int, default=10_000, help="test images to measure on")
    parser.add_argument("--only", nargs="*", help="names or beginnings of names of tasks; none: gather only")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--progress", action="store_true", help="show progress bars")
    parser.add_argument("--list", action="store_true", help="list the tasks and stop")
    options = parser.parse_args()
    plan = tasks(options)
    if options.list:
        print("\n".join(plan))
        return
    chosen = [name for name in plan if options.only is None or any(name.startswith(start) for start in options.only)]
    for unknown in options.only or []:
        if not any(name.startswith(unknown) for name in plan):
            parser.error(f"no task begins with {unknown!r}; --list lists them")
    # All first seeds come first, so that a run that is cut short has a bit of everything.
    for seed in range(max(options.seeds, options.sweep_seeds)):
        for name in chosen:
            if seed < plan[name].seeds:
                run(name, plan[name], seed, options)
    if not options.only:
        gather(plan, options)


if __name__ == "__main__":
    main()
