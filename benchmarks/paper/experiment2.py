"""The paper's experiment 2: clusters without labels, and the whole of its Table 1 on one data set.

python benchmarks/paper/experiment2.py --data mnist                      # everything: train, measure, draw, write the results
python benchmarks/paper/experiment2.py --data svhn --only ours dec_k10   # some of it; such commands can run side by side
python benchmarks/paper/experiment2.py --data svhn --only                # nothing new: gather what is there

Every method learns from the same training images, once for 10 clusters and once for 30. A method, number of clusters and seed
is one folder under --runs; what is there already is not measured again, and a training that was cut short goes on. --images
and --effort cut all methods alike; --effort-of is for what is cheap enough to learn for longer. Results go to
`benchmarks/results/clustering_<data>.json`, pictures to a folder of that name.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "plugins" / "infoplace-clustering"))

import infoplace_clustering as others
import results_file
import torch
from experiment1 import changed, factors_of, recipe_of
from torch import Tensor

import infoplace as ip
from infoplace import files, plots, training
from infoplace.data import ImageData, load
from infoplace.evaluation import class_probabilities, encodings
from infoplace.figures import cluster_images, image_observation, observed_batches
from infoplace.metrics.clustering import ClusteringTable, clustering
from infoplace.modes import evaluating
from infoplace.pair import resolve_device, seeded

COMMAND = "python benchmarks/paper/experiment2.py"
SIZES = (10, 30)
BETAS = (1, 10, 20, 30, 40, 50, 60)
BLOCK = "z_g"
KMEANS_STARTS = 20
COLOURS = 10
HELD_OUT = 2000
SCORES = ("majority", "hungarian", "nmi", "ari", "clusters_used")

OURS = ("ours", "ours_paper", "ours_without_auxiliary")
RIVALS = ("dec", "dec_hog", "imsat", "imsat_hog", "acol_gar")
PLAIN = ("kmeans_pixels", "kmeans_pca", "kmeans_z_g")
MIDDLE = ("dec_middle", "imsat_middle", "acol_gar_middle", "kmeans_pixels_middle")
"""What is told where to look, as ours is by an observation whose middle is covered: it sees the middle alone."""
MIDDLE_TOLD = (
    "`ours` is told where the digit of interest stands: its block z_s explains the images with their middle covered. So are the "
    "rows `_middle`, by images of which only that middle is left"
)
KINDS = ("images", "hog", "middle")
RECIPES = {"mnist": "experiment2_mnist"}
"""The recipe of ours, where it is not `experiment2`."""

PAPER = {
    "ours_paper_k30": "58.2 ± 5.6",
    "dec_hog_k10": "11.9 ± 0.4",
    "imsat_hog_k10": "57.3 ± 3.9",
    "acol_gar_k10": "76.8 ± 1.3",
}
"""The paper's Table 1, of SVHN, in percent, at the row that is most alike."""
MNIST = {"dec": 0.843, "imsat": 0.984, "acol_gar": 0.983}
"""What the methods' own papers state of MNIST with one cluster a digit."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One row of the table: a method and a number of clusters."""

    method: str
    k: int
    seeds: int
    recipe: dict[str, Any] | None = None
    """What infoplace trains; of k-means on z_g, the recipe of the run whose means it reads."""
    estimator: dict[str, Any] | None = None
    """What another method is built with."""
    change: str = ""

    @property
    def family(self) -> str:
        """Whose effort is its own."""
        if self.recipe is None:
            return read_by(self.method)[0]
        return "ours_paper" if self.method.startswith(("ours_paper", "beta_")) else "ours"

    @property
    def name(self) -> str:
        """Its folder, and the beginning of its claims' names."""
        return f"{self.method}_k{self.k}"


@dataclasses.dataclass(frozen=True)
class Material:
    """The images and labels of one experiment, the same for every method."""

    train: ImageData
    held_out: ImageData
    """Training images that no method learns from: the bound is measured on them."""
    test: ImageData
    label: str
    fingerprint: str
    middle: ip.Transform | None = None
    """The transform that leaves only what ours covers; None where ours covers nothing."""

    def features(self, kind: str, split: str) -> Any:
        """What a method reads of a split: its images, their middles, or their histograms of oriented gradients."""
        images = getattr(self, split).images
        if kind == "hog":
            return self._hog(split)
        return images if self.middle is None or kind == "images" else self.middle(images)

    @functools.cache  # noqa: B019 (there is one of it, as long as the programme runs)
    def _hog(self, split: str) -> Any:
        print(f"computing the HOG features of the {split.replace('_', '-')} images", flush=True)
        return others.hog_features(getattr(self, split).images)


def material(options: argparse.Namespace) -> Material:
    """Load the data, and hold some of the training images out."""
    every = load(options.data, "train", limit=options.images)
    test = load(options.data, "test")
    label = next((name for name in ("digit", "label") if name in every.factors), None)
    if label is None:
        raise SystemExit(f"{options.data} has no factor 'digit' or 'label', so clusters cannot be scored on it")
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
    held = min(HELD_OUT, len(every) // 10)
    if held < max(SIZES):
        raise SystemExit(f"{len(every)} training images are too few; give {10 * max(SIZES)} or more with --images")
    digest = hashlib.sha256()
    for data in (every, test):
        digest.update(data.images.numpy().tobytes())
        digest.update(data.factors[label].numpy().tobytes())
    train, held_out = every.subset(order[held:].sort().values), every.subset(order[:held].sort().values)
    return Material(train, held_out, test, label, digest.hexdigest()[:16], middle_of(recipe_of_ours(options)))


# ---- the plan ----------------------------------------------------------------------------------------------------------


def scaled(published: int, effort: float) -> int:
    """Steps or epochs under an effort, at least one."""
    return max(1, round(published * effort))


def read_by(method: str) -> tuple[str, str]:
    """A method without what it reads, and what it reads.

    >>> read_by("imsat_hog"), read_by("kmeans_pixels"), read_by("acol_gar_middle")
    (('imsat', 'hog'), ('kmeans_pixels', 'images'), ('acol_gar', 'middle'))
    """
    for kind in KINDS:
        if method.endswith(f"_{kind}"):
            return method.removesuffix(f"_{kind}"), kind
    return method, "images"


def effort_of(method: str, options: argparse.Namespace) -> float:
    """The factor on a method's steps or epochs: its own one, where it was given one."""
    return float(dict(options.effort_of).get(read_by(method)[0], options.effort))


def recipe_of_ours(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe of ours for the data."""
    return recipe_of(recipe_name(options), options.data)


def recipe_name(options: argparse.Namespace) -> str:
    """The name of that recipe."""
    return RECIPES.get(options.data, "experiment2")


def middle_of(recipe: Mapping[str, Any]) -> ip.Transform | None:
    """The other side of what a recipe covers: the transform that leaves the middle alone."""
    for observation in recipe["partition"]["observations"].values():
        transform = observation.get("transform")
        if isinstance(transform, Mapping) and "cover" in transform:
            return ip.make_transform({"cover": {**transform["cover"], "outside": True}})
    return None


def ours_recipe(options: argparse.Namespace, k: int) -> dict[str, Any]:
    """The recipe of ours with k classes and its steps cut by the effort."""
    recipe = recipe_of_ours(options)
    own = recipe["training"]["steps"]
    steps = scaled(options.steps or own, effort_of("ours", options))
    starts = ip.Settings(**recipe["training"]).mixture_starts
    recipe["training"]["mixture_start"] = [min(round(start * steps / own), steps - 1) for start in starts]
    recipe["training"]["steps"] = steps
    return changed(recipe, {"partition.blocks.z_g.prior.mixture.components": k})


def paper_recipe(options: argparse.Namespace, k: int, beta: float | None = None) -> dict[str, Any]:
    """The recipe `paper_experiment2` with k classes, its own beta or another one."""
    recipe = recipe_of(
        "paper_experiment2", options.data, steps=scaled(options.paper_steps, effort_of("ours_paper", options))
    )
    recipe["factors"] = carried(recipe_of_ours(options)["factors"], recipe)
    recipe = changed(recipe, {"partition.blocks.z_g.prior.mixture.components": k})
    if beta is not None:
        recipe["objective"]["beta_elbo"]["beta"] |= {"z_g": float(beta), "z_l": float(beta)}
    return recipe


def without_auxiliary(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with x alone, which all blocks read."""
    result = changed(recipe, {})
    partition = result["partition"]
    partition["observations"] = {"x": partition["observations"]["x"]}
    for block in partition["blocks"].values():
        block["reads"] = ["x"]
    return result


def without_surroundings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without the observation whose middle is covered, and without the block that this one alone asks for."""
    result = changed(recipe, {})
    del result["partition"]["blocks"]["z_s"], result["partition"]["observations"]["x_s"]
    result["partition"]["observations"]["x"]["blocks"].remove("z_s")
    del bound_of(result)["beta_elbo"]["beta"]["z_s"]
    agreement_of(result)["redraw"].remove("z_s")
    result["factors"] = carried(result["factors"], result)
    return result


def carried(factors: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The factors whose block a recipe has."""
    blocks = recipe["partition"]["blocks"]
    return {name: one for name, one in factors.items() if (one["block"] if isinstance(one, Mapping) else one) in blocks}


def agreement_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe's agreement."""
    return next(part["agreement"] for part in recipe["objective"]["sum"]["objectives"] if "agreement" in part)


def bound_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's objective without what is added to the bound."""
    objective = recipe["objective"]
    parts = objective["sum"]["objectives"] if "sum" in objective else [objective]
    return next(part for part in parts if "beta_elbo" in part)


def ablations(recipe: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """``{name: (change, recipe)}``: one change of the recipe each, and the paper's point with nothing in its way."""
    gumbel = {"partition.blocks.z_g.prior.mixture.y": "gumbel", "partition.blocks.z_g.prior.mixture.temperature": 0.4}
    redraw_less, view_less = changed(recipe, {}), changed(recipe, {})
    agreement_of(redraw_less)["redraw"] = []
    agreement_of(view_less)["view"] = None
    alone = changed(recipe, {"objective": dict(bound_of(recipe))})
    uncovered = {"no_surroundings": ("without z_s and what it explains", without_surroundings(recipe))}
    starts = recipe["training"]["mixture_start"]
    once = {"start_once": ("one start of the classes", changed(recipe, {"training.mixture_start": starts[:1]}))}
    return (
        (uncovered if middle_of(recipe) else {})
        | (once if len(starts) > 1 else {})
        | {
            "gumbel": ("relaxed draws of the class, temperature 0.4, for the exact sum", changed(recipe, gumbel)),
            "no_agreement": ("without agreement", alone),
            "no_redraw": ("agreement without redraw: changes of pose only", redraw_less),
            "no_view": ("agreement without view: other colours only", view_less),
            "no_start": ("without a start of the classes", changed(recipe, {"training.mixture_start": None})),
            "no_agreement_no_auxiliary": ("without agreement and without x_hat", without_auxiliary(alone)),
        }
    )


def estimator_of(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """A method's settings: the published ones, with steps and epochs cut by the effort."""
    effort, seen = effort_of(method, options), 1 + options.copies
    settings: dict[str, Any] = {
        "dec": {
            "pretrain_steps": scaled(50_000, effort),
            "finetune_steps": scaled(100_000, effort),
            "learning_rate_drop": scaled(20_000, effort),
            "max_steps": scaled(100_000, effort),
        },
        # An epoch over images and their copies has the more steps.
        "imsat": {"epochs": scaled(50, effort / seen)},
        "acol_gar": {"epochs": scaled(400, effort / seen)},
        "kmeans_pixels": {"n_init": KMEANS_STARTS},
        "kmeans_pca": {"features": "pca", "n_components": 50, "n_init": KMEANS_STARTS},
    }
    return dict(settings[read_by(method)[0]])


def tasks(options: argparse.Namespace) -> dict[str, Task]:
    """All of them, in the order in which they run."""
    plan: list[Task] = []
    for k in SIZES:
        ours = ours_recipe(options, k)
        recipes = {
            "ours": ours,
            "ours_paper": paper_recipe(options, k),
            "ours_without_auxiliary": without_auxiliary(ours),
        }
        plan += [Task(method, k, options.seeds, recipe=recipes[method]) for method in OURS]
        for method in (*RIVALS, *PLAIN[:2], *(MIDDLE if middle_of(ours) else ())):
            plan.append(Task(method, k, options.other_seeds, estimator=estimator_of(method, options)))
        plan.append(Task("kmeans_z_g", k, options.seeds, recipe=ours, estimator={"n_init": KMEANS_STARTS}))
    if options.sweep:
        small, large = SIZES
        own = bound_of(paper_recipe(options, large))["beta_elbo"]["beta"][BLOCK]
        for beta in BETAS:
            if beta != own:
                recipe = paper_recipe(options, large, beta)
                plan.append(Task(f"beta_{beta}", large, options.sweep_seeds, recipe=recipe, change=f"beta {beta}"))
        for name, (change, recipe) in ablations(ours_recipe(options, small)).items():
            plan.append(Task(f"ablation_{name}", small, options.sweep_seeds, recipe=recipe, change=change))
    return {task.name: task for task in plan}


def chosen_of(plan: Mapping[str, Task], only: list[str] | None) -> list[str]:
    """The names of the tasks that are asked for: by method, or by method and number of clusters."""
    for asked in only or []:
        if not any(asked in (name, task.method) for name, task in plan.items()):
            raise SystemExit(f"there is no method or task {asked!r}; --list lists them (with --sweep, the sweeps too)")
    return [name for name, task in plan.items() if only is None or name in only or task.method in only]


# ---- one run -----------------------------------------------------------------------------------------------------------


def settings_of(task: Task, seed: int, data: Material, options: argparse.Namespace) -> dict[str, Any]:
    """All that a result hangs on, as JSON would give it back."""
    recipe = None
    if task.recipe is not None:
        recipe = changed(task.recipe, {"training.seed": seed})
        recipe["factors"] = factors_of(task.recipe, data.train)
        recipe = ip.Recipe.from_dict(recipe).to_dict()
    name, kind = read_by(task.method)
    copies = options.copies if task.method in (*RIVALS, *MIDDLE) and not name.startswith("kmeans") else 0
    settings = {
        "data": options.data,
        "fingerprint": data.fingerprint,
        "images": len(data.train) + len(data.held_out),
        "effort": effort_of(task.family, options),
        "copies": copies,
        "view": agreement_of(recipe_of_ours(options))["view"] if copies else None,
        "middle": None if kind != "middle" or data.middle is None else data.middle.to_spec(),
        "k": task.k,
        "seed": seed,
        "recipe": recipe,
        "estimator": task.estimator,
    }
    return dict(json.loads(json.dumps(settings)))


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Stop at a folder of other settings, before anything is trained, measured or gathered in it."""

    def today(there: dict[str, Any]) -> dict[str, Any]:
        # What had no name yet when it was written is as it was.
        recipe = there.get("recipe")
        return there | {"recipe": recipe and json.loads(json.dumps(ip.Recipe.from_dict(recipe).to_dict()))}

    results_file.check_settings(folder / "settings.json", settings, ("recipe", "estimator"), today)


def folder_of(task: Task, seed: int, options: argparse.Namespace) -> Path:
    """Where a run is."""
    return options.runs / results_name(options.data) / task.name / f"seed{seed}"


def run(task: Task, seed: int, data: Material, options: argparse.Namespace) -> None:
    """Train and measure one run, as far as that is not done yet."""
    folder, settings = folder_of(task, seed, options), settings_of(task, seed, data, options)
    check_settings(folder, settings)
    if (folder / "result.json").is_file():
        return
    source = folder_of(dataclasses.replace(task, method="ours"), seed, options) / "run"
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
    files.write_tensors(folder / "clusters.safetensors", found)
    files.write_json(folder / "result.json", result)
    print(
        f"  majority {table.scores['majority']:.3f}, Hungarian {table.scores['hungarian']:.3f}, {more['seconds']:.0f} s",
        flush=True,
    )


def scored(found: Mapping[str, Tensor], data: Material, k: int, probabilities: Tensor | None = None) -> ClusteringTable:
    """Scores on the test images, with mappings fitted on training images."""
    train, test = data.train.factors[data.label], data.test.factors[data.label]
    return clustering(found["train"], train, found["test"], test, clusters=k, probabilities=probabilities)


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
    more = {"seconds": time.perf_counter() - started}
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


# ---- gathering ---------------------------------------------------------------------------------------------------------


Found = Mapping[str, list[dict[str, Any]]]


def results_name(data: str) -> str:
    """The results file of a data set; the full street numbers are the street numbers.

    >>> results_name("street_numbers/full"), results_name("street_numbers/easy")
    ('clustering_street_numbers', 'clustering_street_numbers_easy')
    """
    plain = data.removesuffix("/full").rstrip("/").removeprefix("/")
    return "clustering_" + "".join(letter if letter.isalnum() else "_" for letter in plain)


def results(plan: Mapping[str, Task], data: Material, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What the finished runs of each task were measured to be."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, task in plan.items():
        for seed in range(task.seeds):
            folder = folder_of(task, seed, options)
            check_settings(folder, settings_of(task, seed, data, options))
            if (folder / "result.json").is_file():
                result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
                found.setdefault(name, []).append({**result, "folder": folder})
    return found


def best_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the best bound on held-out training images; where there is no bound, the first."""
    return max(rows, key=lambda row: row.get("bound", -row["seed"]))


def mean_of(rows: list[dict[str, Any]], score: str) -> float:
    """The mean of a score over the seeds."""
    return statistics.mean(row[score] for row in rows)


def agreed(rows: list[dict[str, Any]]) -> float | None:
    """How alike the clusters of any two seeds are: the mean ARI over their pairs, on held-out training images."""
    from sklearn.metrics import adjusted_rand_score

    held = [files.read_tensors(row["folder"] / "clusters.safetensors")[0]["held_out"].numpy() for row in rows]
    pairs = [adjusted_rand_score(left, right) for left, right in itertools.combinations(held, 2)]
    return statistics.mean(pairs) if pairs else None


def goals(options: argparse.Namespace) -> dict[str, str]:
    """What each claim should reach; the published numbers of MNIST, where nothing was cut."""
    name, whole = (
        results_name(options.data),
        options.images is None and min(effort_of(method, options) for method in MNIST) >= 1,
    )
    if name == "clustering_mnist":
        published = {"dec": ">=0.843", "imsat": ">=0.98", "acol_gar": ">=0.983"} if whole else {}
        own = {"ours_k10_hungarian": ">=0.95", "ours_k30_majority": ">=0.97"}
        return own | {f"{method}_k10_hungarian": goal for method, goal in published.items()}
    if name == "clustering_street_numbers":
        leads = {f"ours_k{k}_{score}_lead": ">=0.1" for k in SIZES for score in ("majority", "hungarian")}
        return {"ours_k10_hungarian": ">=0.77", "ours_k30_majority": ">=0.77", **leads}
    return {}


def claim(name: str, values: list[float], context: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One number over the seeds."""
    units = {"clusters_used": "clusters", "nmi": "NMI", "nmi_colour": "NMI", "nmi_count": "NMI", "ari": "ARI"}
    unit = next((unit for score, unit in units.items() if name.endswith(f"_{score}")), "fraction")
    goal = goals(options).get(name, "") if "change" not in context else ""
    return results_file.claim(name, values, unit, goal, context)


def claims(plan: Mapping[str, Task], found: Found, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every method's scores, by how much ours leads, and what its clusters follow besides."""
    for name, rows in found.items():
        task, settings = plan[name], rows[0]["settings"]
        context: dict[str, Any] = {"change": task.change} if task.change else {}
        context |= {key: settings[key] for key in ("data", "images", "effort", "k")}
        context |= {"one_cluster": round(rows[0]["one_cluster"], 4), "seconds": round(mean_of(rows, "seconds"), 1)}
        calibration = ["calibration_error"] if "calibration_error" in rows[0] else []
        for score in (*SCORES, *calibration):
            more: dict[str, Any] = {}
            if "bound" in rows[0]:
                more = {"chosen_seed": best_of(rows)["seed"], "chosen": round(best_of(rows)[score], 4)}
            if (options.data, task.k, score) == ("mnist", 10, "hungarian") and task.method in MNIST:
                more["published"] = MNIST[task.method]
            yield claim(f"{name}_{score}", [row[score] for row in rows], {**context, **more}, options)
        for factor in ("colour", "count"):
            if task.method in OURS and f"nmi_{factor}" in rows[0]:
                prefix = task.method if task.k == min(SIZES) else name
                yield claim(f"{prefix}_nmi_{factor}", [row[f"nmi_{factor}"] for row in rows], context, options)
    for k, score in itertools.product(SIZES, ("majority", "hungarian")):
        methods = (*RIVALS, *MIDDLE[:3])
        rivals = {name: mean_of(found[name], score) for m in methods if (name := f"{m}_k{k}") in found}
        if f"ours_k{k}" in found and rivals:
            best = max(rivals, key=lambda name: rivals[name])
            values = [row[score] - rivals[best] for row in found[f"ours_k{k}"]]
            yield claim(f"ours_k{k}_{score}_lead", values, {"data": options.data, "k": k, "ahead_of": best}, options)


def gather(plan: Mapping[str, Task], data: Material, options: argparse.Namespace) -> None:
    """Write the results file and the pictures from the runs that are finished."""
    found = results(plan, data, options)
    if not found:
        raise SystemExit(f"no finished run of {options.data} in {options.runs}; run {COMMAND} --data {options.data}")
    missing = [
        f"{name} ({len(found.get(name, []))} of {task.seeds})"
        for name, task in plan.items()
        if len(found.get(name, [])) < task.seeds
    ]
    if missing:
        print(f"not finished, and so not in the results as planned: {', '.join(missing)}", file=sys.stderr)
    name = results_name(options.data)
    pictures = draw(found, data, results_file.FOLDER / name)
    machine = next(iter(found.values()))[0]["machine"]
    text = notes(plan, found, data, pictures, options)
    print(results_file.write(name, command(options), list(claims(plan, found, options)), text, machine=machine))


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


# ---- pictures and words ------------------------------------------------------------------------------------------------


def draw(found: Found, data: Material, folder: Path) -> list[tuple[str, str]]:
    """Figures 4 and 6 of the runs with the best bounds: ``(path, what it shows)``."""
    written = []
    for method, k in (("ours", 30), ("ours", 10), ("ours_paper", 30), ("ours_without_auxiliary", 10)):
        name = f"{method}_k{k}"
        if name not in found:
            continue
        row = best_of(found[name])
        clusters = files.read_tensors(row["folder"] / "clusters.safetensors")[0]
        table = scored(clusters, data, k)
        order, sizes = table.arranged(), table.confusion.sum(0)
        titles = [
            f"cluster {number}\n"
            + (
                f"{data.label} {table.majority.labels[number]}, {100 * sizes[number] / sizes.sum():.1f}%"
                if sizes[number]
                else "unused"
            )
            for number in order.tolist()
        ]
        pair = ip.load_pair(row["folder"] / "run")
        images = cluster_images(pair, image_observation(pair), BLOCK, generator=torch.Generator().manual_seed(0))
        rest = " and ".join(block for block in pair.partition.blocks if block != BLOCK)
        figures = {
            "figure4": (
                plots.confusion(table, label=data.label),
                "labels against clusters of the test images, clusters re-arranged",
            ),
            "figure6": (
                plots.cluster_samples(images[order], titles, title=f"{BLOCK} along the columns, {rest} along the rows"),
                f"generated images of every cluster; {BLOCK} varies along the columns, {rest} along the rows",
            ),
        }
        files.make_folder(folder)
        for figure, (drawn, words) in figures.items():
            alt = f"{name}, the seed with the best bound: {words}"
            plots.save(drawn, folder / f"{figure}_{name}.png", alt=alt)
            written.append((f"{folder.name}/{figure}_{name}.png", alt))
    return written


def spread_of(rows: list[dict[str, Any]], score: str) -> str:
    """Mean and standard deviation in percent."""
    values = [100 * row[score] for row in rows]
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def row_of(first: str, rows: list[dict[str, Any]], last: list[str]) -> str:
    """A line of a table with all scores."""
    plain = [f"{mean_of(rows, 'nmi'):.3f}", f"{mean_of(rows, 'ari'):.3f}", f"{mean_of(rows, 'clusters_used'):.1f}"]
    cells = [
        first,
        str(rows[0]["k"]),
        str(len(rows)),
        spread_of(rows, "majority"),
        spread_of(rows, "hungarian"),
        *plain,
        *last,
    ]
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
    own = recipe_of_ours(options)["training"]["steps"]
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
        "methods have the settings of their "
        f"publications, `ours` the recipe `{recipe_name(options)}`, `ours_paper` the paper's beta of 40 and temperature of 0.4; "
        "no row of a sweep takes a place in the table. Small shifts and rotations are the view of the agreement of `ours`; "
        + theirs
        + (". " + MIDDLE_TOLD if data.middle else "")
        + ". Among the seeds of one setting "
        "the bound on held-out training images chooses: `by the bound`, beside mean and standard deviation over all seeds. "
        "`seeds agree` is the mean ARI between the clusters of two seeds on held-out training images, which needs no label.",
    ]


def length_of(row: Mapping[str, Any]) -> str:
    """How long a run learned."""
    settings = row["settings"]
    if row["method"].startswith("kmeans"):
        return ""
    return f"{settings['recipe']['training']['steps']} steps" if settings["recipe"] else f"x {settings['effort']:g}"


def one_cluster(data: Material) -> float:
    """What a single cluster scores."""
    commonest = data.train.factors[data.label].bincount().argmax()
    return float((data.test.factors[data.label] == commonest).float().mean())


def notes(
    plan: Mapping[str, Task], found: Found, data: Material, pictures: list[tuple[str, str]], options: argparse.Namespace
) -> str:
    """What stands below the table in RESULTS.md."""
    lines = told(data, options)
    absent = [name for name, task in plan.items() if len(found.get(name, [])) < task.seeds]
    if absent:
        lines += ["", f"Not measured yet, or with fewer seeds than planned: {', '.join(absent)}."]
    published = "published, MNIST, %" if options.data == "mnist" else "the paper, SVHN, %"
    lines += header("method", "length", "by the bound: majority, Hungarian", "seeds agree", "seconds", published)
    for name, rows in found.items():
        task = plan[name]
        if task.change:
            continue
        best, same = best_of(rows), agreed(rows)
        bound = f"{100 * best['majority']:.1f}, {100 * best['hungarian']:.1f}" if "bound" in best else ""
        theirs = PAPER.get(name, "")
        if options.data == "mnist":
            theirs = f"{100 * MNIST[task.method]:.1f}" if task.method in MNIST and task.k == 10 else ""
        lines.append(
            row_of(
                task.method,
                rows,
                [
                    length_of(rows[0]),
                    bound,
                    "" if same is None else f"{same:.3f}",
                    f"{mean_of(rows, 'seconds'):.0f}",
                    theirs,
                ],
            )
        )
    if options.data == "mnist":
        lines += ["", "The published numbers are of the methods' own papers, with one cluster for each digit."]
    else:
        lines += [
            "",
            "The paper's Table 1 is of SVHN, another data set, beside the row that is most alike: its k=30 and ACOL's "
            "are the majority vote, IMSAT's and DEC's were reached on GIST features, IMSAT's one to one. Here HOG features stand "
            "in for GIST.",
        ]
    factors = [
        name
        for name in ("count", "left", "right", "colour", "polarity")
        if f"nmi_{name}" in next(iter(found.values()))[0]
    ]
    if factors:
        lines += [
            "",
            f"What the clusters follow, as NMI on the test images: the {data.label}; how many digits are shown; the "
            f"digits to its left and right; the ground's colour (k-means of training colours, {COLOURS} bins); whether the ink "
            "is the brighter one. "
            "The paper's Figure 5 shows clusters that follow the number of digits.",
            "",
            f"| method | k | {' | '.join([data.label, *factors])} |",
            f"|{' --- |' * (3 + len(factors))}",
        ]
        for name, rows in found.items():
            cells = [f"{mean_of(rows, score):.3f}" for score in ("nmi", *(f"nmi_{factor}" for factor in factors))]
            lines.append(f"| {plan[name].change or plan[name].method} | {plan[name].k} | {' | '.join(cells)} |")
    for beginning, own, title, text in (
        ("beta_", "ours_paper_k30", "beta 40, the paper's", "The paper's recipe over beta:"),
        (
            "ablation_",
            "ours_k10",
            "none: ours",
            f"Each row is one change of the recipe `{recipe_name(options)}`, with everything else as it is:",
        ),
    ):
        changes = {name: rows for name, rows in found.items() if name.startswith(beginning)}
        if not changes:
            continue
        lines += ["", text, *header("change", "seconds")]
        table = {title: found[own]} if own in found else {}
        table |= {plan[name].change: rows for name, rows in changes.items()}
        if beginning == "ablation_" and "ours_without_auxiliary_k10" in found:
            table["without x_hat"] = found["ours_without_auxiliary_k10"]
        lines += [row_of(change, rows, [f"{mean_of(rows, 'seconds'):.0f}"]) for change, rows in table.items()]
    lines += ["", *(f"![{alt}](results/{path})\n" for path, alt in pictures)]
    return "\n".join(lines).rstrip()


# ---- the command -------------------------------------------------------------------------------------------------------


DEFAULTS: dict[str, Any] = {"images": None, "effort": 1.0, "steps": None, "paper_steps": 3000, "copies": 0}
DEFAULTS |= {"seeds": 4, "other_seeds": 1, "sweep_seeds": 1}
FAMILIES = ("ours", "ours_paper", "dec", "imsat", "acol_gar")


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
