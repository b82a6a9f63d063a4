"""The paper's experiment 2: clusters without labels, and the whole of its Table 1 on one data set.

python benchmarks/paper/experiment2.py --data mnist                      # everything: train, measure, draw, write the results
python benchmarks/paper/experiment2.py --data svhn --only ours dec_k10   # some of it; such commands can run side by side
python benchmarks/paper/experiment2.py --data svhn --only                # nothing new: gather what is there

Every method learns from the same training images, once for 10 clusters and once for 30. A method, number of clusters and seed
is one folder under --runs; what is there already is not measured again, and a training that was cut short goes on. --images
and --effort cut all methods alike; --effort-of is for what is cheap enough to learn for longer. Results go to
`benchmarks/results/clustering_<data>.json`, pictures to a folder of that name, and there the lines of the table, too: a line
that was measured elsewhere, with the same settings, stays until it is measured again with as many seeds.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "plugins" / "infoplace-clustering"))

import experiment2_table
import infoplace_clustering as others
import results_file
import torch
from experiment2_plan import (
    BLOCK,
    COLOURS,
    MIDDLE,
    RIVALS,
    Material,
    Task,
    agreement_of,
    as_today,
    bound_of,
    chosen_of,
    material,
    read_by,
    recipe_of_ours,
    settings_of,
    tasks,
)
from experiment2_table import Rows, results_name, scored
from torch import Tensor

import infoplace as ip
from infoplace import files, training
from infoplace.data import ImageData
from infoplace.evaluation import class_probabilities, encodings
from infoplace.figures import observed_batches
from infoplace.modes import evaluating
from infoplace.pair import resolve_device, seeded

COMMAND = "python benchmarks/paper/experiment2.py"


# ---- one run -----------------------------------------------------------------------------------------------------------


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Stop at a folder of other settings, before anything is trained, measured or gathered in it."""
    results_file.check_settings(folder / "settings.json", settings, ("recipe", "estimator"), as_today)


def folder_of(task: Task, seed: int, options: argparse.Namespace) -> Path:
    """Where a run is."""
    return options.runs / results_name(options.data) / task.name / f"seed{seed}"


def run(task: Task, seed: int, data: Material, options: argparse.Namespace) -> None:
    """Train and measure one run, as far as that is not done yet."""
    folder, settings = folder_of(task, seed, options), settings_of(task, seed, data, options)
    check_settings(folder, settings)
    if (folder / "result.json").is_file():
        return
    source = folder_of(replace(task, method="ours"), seed, options) / "run"
    if task.method == "kmeans_z_g" and not (source / "run.json").is_file():
        print(
            f"leaving out {task.name}, seed {seed}: {source} is not trained yet; ask for it again afterwards",
            flush=True,
        )
        return
    if task.method == "kmeans_z_g":
        check_settings(source.parent, {**settings, "estimator": None})
    print(f"{task.name}, seed {seed}", flush=True)
    files.make_folder(folder)
    files.write_json(folder / "settings.json", settings)
    if task.method == "kmeans_z_g":
        found, more = clustered_by_kmeans(task, source, seed, data, options)
    elif task.recipe is not None:
        found, more = clustered_by_recipe(settings["recipe"], folder / "run", data, options)
    else:
        found, more = clustered_by_estimator(task, seed, data, options)
    probabilities = found.pop("probabilities", None)
    table = scored(found, data, task.k, probabilities)
    result = {"method": task.method, "k": task.k, "seed": seed, "settings": settings, **table.scores, **more}
    result |= {f"nmi_{name}": nmi(found["test"], values) for name, values in other_factors(data).items()}
    result["machine"] = training.machine(resolve_device(options.device))
    result |= {"commit": results_file.commit(), "date": time.strftime("%Y-%m-%d")}
    files.write_tensors(folder / "clusters.safetensors", found)
    files.write_json(folder / "result.json", result)
    print(
        f"  majority {table.scores['majority']:.3f}, Hungarian {table.scores['hungarian']:.3f}, {more['seconds']:.0f} s",
        flush=True,
    )


def clustered_by_recipe(
    spec: Mapping[str, Any], folder: Path, data: Material, options: argparse.Namespace
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train a recipe; the clusters by split, and what else is known of the run."""
    recipe = ip.Recipe.from_dict(spec)
    if not (folder / "run.json").is_file():
        ip.train(
            recipe, data.train, data.train.shape, folder,
            resume=(folder / training.CHECKPOINT).is_file(), device=options.device, progress=options.progress,
        )  # fmt: skip
    pair = ip.load_pair(folder).to(resolve_device(options.device))
    splits = {"train": data.train, "held_out": data.held_out, "test": data.test}
    probabilities = {name: class_probabilities(pair, images)[BLOCK].cpu() for name, images in splits.items()}
    clusters = {name: values.argmax(1) for name, values in probabilities.items()}
    seconds = json.loads((folder / "run.json").read_text(encoding="utf-8"))["seconds"]
    more = {"seconds": seconds, **bounds(pair, bound_of(spec), data.held_out)}
    return {**clusters, "probabilities": probabilities["test"]}, more


@torch.no_grad()
def bounds(pair: ip.Pair, objective: Mapping[str, Any], images: ImageData) -> dict[str, float]:
    """Nats per image: the bound that was trained on, with its weights, and the plain one."""
    made = ip.make_objective(objective)
    weighted = plain = 0.0
    with evaluating(pair), seeded(0, pair.device):
        for _, observations in observed_batches(pair, images, 0):
            terms = made.terms(pair.model, pair.guide, observations)
            weighted -= float(terms["loss"])
            plain += sum(float(value) for name, value in terms.items() if name.startswith("log_likelihood/"))
            plain -= sum(float(value) for name, value in terms.items() if name.startswith("kl/"))
    return {"bound": weighted / len(images), "elbo": plain / len(images)}


def clustered_by_kmeans(
    task: Task, source: Path, seed: int, data: Material, options: argparse.Namespace
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """k-means on the posterior means of the global block of the run in ``source``."""
    pair = ip.load_pair(source).to(resolve_device(options.device))
    splits = {"train": data.train, "held_out": data.held_out, "test": data.test}
    means = {name: encodings(pair, images)[BLOCK].cpu() for name, images in splits.items()}
    method = others.PixelKMeans(task.k, seed=seed, **(task.estimator or {}))
    return fitted(method, lambda split: means[split], means["train"])


def clustered_by_estimator(
    task: Task, seed: int, data: Material, options: argparse.Namespace
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fit another method; the clusters by split, and how long it took."""
    name, kind = read_by(task.method)
    shown: dict[str, Any] = {"device": options.device, "progress": options.progress}
    classes = {"dec": others.DEC, "imsat": others.IMSAT, "acol_gar": others.ACOL}
    if name in ("dec", "acol_gar"):
        # What these two learn before they look for clusters is the same for any number of them.
        shown["memory"] = options.runs / results_name(options.data) / "memory"
    method: Any = others.PixelKMeans(task.k, seed=seed, **(task.estimator or {})) if name not in classes else (
        classes[name](task.k, seed=seed, **(task.estimator or {}), **shown)
    )  # fmt: skip
    learned = data.features(kind, "train")
    if name in classes and options.copies:
        extra = moved(data.train, agreement_of(recipe_of_ours(options))["view"], options.copies, seed)
        if kind == "hog":
            extra = torch.from_numpy(others.hog_features(extra))
        elif kind == "middle" and data.middle is not None:
            extra = data.middle(extra)
        learned = torch.cat([torch.as_tensor(learned), extra])
    return fitted(method, lambda split: data.features(kind, split), learned)


def moved(data: ImageData, view: Any, copies: int, seed: int) -> Tensor:
    """So many versions of every image under a transform, uint8."""
    transform, generator = ip.make_transform(view), torch.Generator().manual_seed(seed)
    parts = [
        transform(images, generator=generator).mul(255).round().to(torch.uint8)
        for _ in range(copies)
        for images in data.batches(1000, shuffle=False, drop_last=False)
    ]
    return torch.cat(parts)


def fitted(method: Any, of: Callable[[str], Any], learned: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fit a method in scikit-learn's style, and ask it for the cluster of every image."""
    started = time.perf_counter()
    method.fit(learned)
    # What was kept of an earlier fit took its time then.
    epochs = sum(row["seconds"] for row in getattr(method, "history_", []))
    more = {"seconds": max(time.perf_counter() - started, epochs)}
    found = {split: torch.from_numpy(method.predict(of(split))) for split in ("train", "held_out", "test")}
    if hasattr(method, "predict_proba"):
        found["probabilities"] = torch.from_numpy(method.predict_proba(of("test")))
    return found, more


@functools.cache
def other_factors(data: Material) -> dict[str, Tensor]:
    """What else clusters may follow, as classes of the test images: as far as the data have it."""
    from sklearn.cluster import KMeans

    train, test = data.train.factors, data.test.factors
    found = {name: test[name] for name in ("count", "left", "right", "polarity") if name in test}
    if "ground" in test:
        colours = KMeans(COLOURS, n_init=10, random_state=0).fit(train["ground"].numpy())
        found["colour"] = torch.from_numpy(colours.predict(test["ground"].numpy()))
    return {name: values for name, values in found.items() if len(values.unique()) > 1}


def nmi(clusters: Tensor, labels: Tensor) -> float:
    """Normalised mutual information, the arithmetic way."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(labels.numpy(), clusters.numpy()))


# ---- gathering -------------------------------------------------------------------------------------------------------


def results(plan: Mapping[str, Task], data: Material, options: argparse.Namespace) -> dict[str, Rows]:
    """What the finished runs of each task were measured to be."""
    found: dict[str, Rows] = {}
    for name, task in plan.items():
        for seed in range(task.seeds):
            folder = folder_of(task, seed, options)
            check_settings(folder, settings_of(task, seed, data, options))
            if (folder / "result.json").is_file():
                result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
                found.setdefault(name, []).append({**result, "folder": folder})
    return found


def gather(plan: Mapping[str, Task], data: Material, options: argparse.Namespace) -> None:
    """Write the results file and the pictures from the runs that are finished, and the lines that were kept."""
    print(experiment2_table.write(plan, results(plan, data, options), data, command(options), options))


def command(options: argparse.Namespace) -> str:
    """What measures these numbers again."""
    words = [COMMAND, "--data", options.data]
    for key in ("images", "effort", "steps", "paper_steps", "copies", "seeds", "other_seeds", "sweep_seeds"):
        value = getattr(options, key)
        if value != DEFAULTS[key]:
            words += [f"--{key.replace('_', '-')}", str(value)]
    if options.effort_of:
        words += ["--effort-of", *(f"{method}={effort:g}" for method, effort in options.effort_of)]
    return " ".join([*words, "--sweep"] if options.sweep else words)


# ---- the command -------------------------------------------------------------------------------------------------------


DEFAULTS: dict[str, Any] = {"images": None, "effort": 1.0, "steps": None, "paper_steps": 3000, "copies": 0}
DEFAULTS |= {"seeds": 4, "other_seeds": 1, "sweep_seeds": 1}
FAMILIES = ("ours", "ours_paper", *RIVALS, *(method for method in MIDDLE if not method.startswith("kmeans")))
"""What --effort-of can name; `imsat` is `imsat_hog` and `imsat_middle`, too, where those are not named."""


def own_effort(text: str) -> tuple[str, float]:
    """What stands after --effort-of.

    >>> own_effort("imsat=0.5")
    ('imsat', 0.5)
    """
    family, _, number = text.partition("=")
    try:
        effort = float(number)
    except ValueError:
        effort = 0.0
    if family not in FAMILIES or not effort > 0:
        raise argparse.ArgumentTypeError(f"write METHOD=NUMBER, of {', '.join(FAMILIES)}, as imsat=0.5; got {text!r}")
    return family, effort


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="street_numbers/full", help="a set of infoplace.data, or a path")
    parser.add_argument("--download", action="store_true", help="fetch svhn, cifar10 or mnist if they are not there")
    parser.add_argument("--images", type=int, help="training images used, the same for every method; all if left out")
    parser.add_argument(
        "--effort", type=float, help="a factor on every method's epochs or steps; 1: published, or the recipe's"
    )
    parser.add_argument(
        "--effort-of",
        nargs="+",
        type=own_effort,
        default=[],
        metavar="METHOD=NUMBER",
        help="another effort for some of them",
    )
    parser.add_argument("--steps", type=int, help="steps of ours at effort 1; the recipe's own if left out")
    parser.add_argument("--paper-steps", type=int, help="steps of ours_paper at effort 1; 1,000,000 in the paper")
    parser.add_argument(
        "--copies", type=int, help="versions of every image, under the view of ours, that DEC, IMSAT and ACOL see too"
    )
    parser.add_argument("--seeds", type=int, help="seeds of ours, ours_paper, ours_without_auxiliary and kmeans_z_g")
    parser.add_argument("--other-seeds", type=int, help="seeds of every other method")
    parser.add_argument(
        "--sweep", action="store_true", help="also the sweep of beta and the changes of ours, one by one"
    )
    parser.add_argument("--sweep-seeds", type=int, help="seeds of each of those")
    parser.add_argument("--only", nargs="*", help="methods, or methods with _k10 or _k30; none: gather only")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiment2"), help="where the runs go")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--progress", action="store_true", help="show progress bars")
    parser.add_argument("--list", action="store_true", help="list the tasks and stop")
    parser.set_defaults(**DEFAULTS)
    options = parser.parse_args(arguments)
    if not options.effort > 0:
        parser.error(f"--effort must be a number above 0; got {options.effort:g}")
    for key in ("images", "steps", "paper_steps", "seeds", "other_seeds", "sweep_seeds"):
        if getattr(options, key) is not None and getattr(options, key) < 1:
            parser.error(f"--{key.replace('_', '-')} must be 1 or more; got {getattr(options, key)}")
    if options.copies < 0:
        parser.error(f"--copies must be 0 or more; got {options.copies}")
    return options


@results_file.plain_errors()
def main() -> None:
    """Run what is asked for, then gather what is there."""
    options = parsed()
    plan = tasks(options)
    if options.list:
        print("\n".join(plan))
        return
    chosen = chosen_of(plan, options.only)
    data = material(options)
    # All first seeds come first, so that a command that is cut short has a bit of everything.
    for seed in range(max(options.seeds, options.other_seeds, options.sweep_seeds)):
        for name in chosen:
            if seed < plan[name].seeds:
                run(plan[name], seed, data, options)
    if not options.only:
        gather(plan, data, options)


if __name__ == "__main__":
    main()
