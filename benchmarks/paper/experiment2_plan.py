"""What experiment 2 runs: every method, its settings, and the images it learns from."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import infoplace_clustering as others
import torch
from experiment1 import changed, factors_of, recipe_of

import infoplace as ip
from infoplace.data import ImageData, load

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
OPEN = "_open"
"""What the name of a recipe ends in whose number of classes is an upper bound: that of ours with the larger number."""

PAPER = {
    "ours_paper_k30": (0.582, 0.056),
    "dec_hog_k10": (0.119, 0.004),
    "imsat_hog_k10": (0.573, 0.039),
    "acol_gar_k10": (0.768, 0.013),
}
"""The paper's Table 1, of SVHN, accuracy and spread, at the row that is most alike."""


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
            return self.method
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
    every = load(options.data, "train", download=options.download, limit=options.images)
    test = load(options.data, "test", download=options.download)
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
    """The factor on a method's steps or epochs: its own one, where it or the method whatever it reads was given one."""
    own = dict(options.effort_of)
    return float(own.get(method, own.get(read_by(method)[0], options.effort)))


def recipe_of_ours(options: argparse.Namespace, k: int = min(SIZES)) -> dict[str, Any]:
    """The recipe of ours for the data and a number of classes."""
    return recipe_of(recipe_name(options, k), options.data)


def recipe_name(options: argparse.Namespace, k: int = min(SIZES)) -> str:
    """The name of that recipe."""
    return RECIPES.get(options.data, "experiment2") + (OPEN if k > min(SIZES) else "")


def middle_of(recipe: Mapping[str, Any]) -> ip.Transform | None:
    """The other side of what a recipe covers: the transform that leaves the middle alone."""
    for observation in recipe["partition"]["observations"].values():
        transform = observation.get("transform")
        if isinstance(transform, Mapping) and "cover" in transform:
            return ip.make_transform({"cover": {**transform["cover"], "outside": True}})
    return None


def ours_recipe(options: argparse.Namespace, k: int) -> dict[str, Any]:
    """The recipe of ours with k classes and its steps cut by the effort."""
    recipe = recipe_of_ours(options, k)
    own = recipe["training"]["steps"]
    steps = scaled(options.steps or own, effort_of("ours", options))
    starts = ip.Settings(**recipe["training"]).mixture_starts
    recipe["training"]["mixture_start"] = [min(round(start * steps / own), steps - 1) for start in starts]
    recipe["training"]["steps"] = steps
    return with_classes(recipe, k)


def with_classes(recipe: Mapping[str, Any], k: int) -> dict[str, Any]:
    """The recipe with k classes."""
    return changed(recipe, {"partition.blocks.z_g.prior.mixture.components": k})


def paper_recipe(options: argparse.Namespace, k: int, beta: float | None = None) -> dict[str, Any]:
    """The recipe `paper_experiment2` with k classes, its own beta or another one."""
    recipe = recipe_of(
        "paper_experiment2", options.data, steps=scaled(options.paper_steps, effort_of("ours_paper", options))
    )
    recipe["factors"] = carried(recipe_of_ours(options)["factors"], recipe)
    recipe = with_classes(recipe, k)
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
    # Without an agreement, none can say which classes the training starts from.
    alone = changed(recipe, {"objective": dict(bound_of(recipe)), "training.mixture_fit": "kmeans"})
    starts = recipe["training"]["mixture_start"]
    found = {}
    if middle_of(recipe):
        found["no_surroundings"] = ("without z_s and what it explains", without_surroundings(recipe))
    if len(starts) > 1:
        found["start_once"] = ("one start of the classes", changed(recipe, {"training.mixture_start": starts[:1]}))
    return found | {
        "gumbel": ("relaxed draws of the class, temperature 0.4, for the exact sum", changed(recipe, gumbel)),
        "no_agreement": ("without agreement, the classes started by k-means", alone),
        "no_redraw": ("agreement without redraw: changes of pose only", redraw_less),
        "no_view": ("agreement without view: other colours only", view_less),
        "no_start": ("without a start of the classes", changed(recipe, {"training.mixture_start": None})),
        "no_agreement_no_auxiliary": (
            "without agreement, started by k-means, and without x_hat",
            without_auxiliary(alone),
        ),
    }


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
        even = with_classes(ours_recipe(options, small), large)
        change = f"{large} classes evenly used, by `{recipe_name(options)}`"
        plan.append(Task("ablation_even", large, options.sweep_seeds, recipe=even, change=change))
        for name, (change, recipe) in ablations(ours_recipe(options, small)).items():
            plan.append(Task(f"ablation_{name}", small, options.sweep_seeds, recipe=recipe, change=change))
    return {task.name: task for task in plan}


def chosen_of(plan: Mapping[str, Task], only: list[str] | None) -> list[str]:
    """The names of the tasks that are asked for: by method, or by method and number of clusters."""
    for asked in only or []:
        if not any(asked in (name, task.method) for name, task in plan.items()):
            raise SystemExit(f"there is no method or task {asked!r}; --list lists them (with --sweep, the sweeps too)")
    return [name for name, task in plan.items() if only is None or name in only or task.method in only]


# ---- what a result hangs on ----------------------------------------------------------------------------------------------


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


def as_today(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that were written earlier, as they would be written today: what had no name yet is as it was."""
    recipe = settings.get("recipe")
    return {**settings, "recipe": recipe and json.loads(json.dumps(ip.Recipe.from_dict(recipe).to_dict()))}
