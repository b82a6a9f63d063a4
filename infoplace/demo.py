"""The main job in one call: render street numbers, train the paper's experiment 1, and measure what went where."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from infoplace.data import load
from infoplace.errors import RunFolderError
from infoplace.evaluation import subject_of
from infoplace.figures import draw_figures
from infoplace.files import write_json
from infoplace.metrics import SwapTable, make_metric
from infoplace.pair import Pair, load_pair
from infoplace.probes import predictor_for
from infoplace.recipe import Recipe, load_recipe, shipped_recipes
from infoplace.training import CHECKPOINT, train

__all__ = ["Demo", "run_demo"]

PREDICTOR_STEPS = 150
"""Enough to read the easy digits and colours off an image, in seconds."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo made and measured."""

    pair: Pair
    steps: int
    train_seconds: float
    table: SwapTable
    pictures: tuple[Path, ...]


def run_demo(
    out: str | Path, *, device: str = "auto", seed: int = 0, size: int = 10_000, recipe: Recipe | None = None
) -> Demo:
    """Train ``recipes/experiment1.yaml`` into a folder, draw its pictures, and print what was kept and what crossed.

    A run that was cut short goes on; a finished one is measured and drawn again.

    Args:
        out: the run folder.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        seed: seeds the training.
        size: test images to measure on.
        recipe: another recipe of blocks ``z_g`` and ``z_l`` on street numbers.

    Raises:
        RunFolderError: the folder holds a run of another recipe or seed.
    """
    recipe = recipe or load_recipe(shipped_recipes()["experiment1"])
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, seed=seed))
    folder = Path(out)
    finished, started = (folder / "run.json").is_file(), (folder / CHECKPOINT).is_file()
    if started and load_recipe(folder / "recipe.yaml") != recipe:
        raise RunFolderError(f"{folder} holds a run of another recipe or seed; choose another folder with --out")
    print(f"rendering street numbers ({recipe.data})")
    training, test = load(str(recipe.data), "train"), load(str(recipe.data), "test", size=size)
    if finished and started:
        print(f"the run in {folder} is finished; measuring it again")
        pair = load_pair(folder, device=device)
    else:
        print(f"training on {len(training)} images for {recipe.settings.steps} steps; the run goes to {folder}")
        pair = train(recipe, training, training.shape, folder, resume=started, device=device)
    seconds = float(json.loads((folder / "run.json").read_text(encoding="utf-8"))["seconds"])
    pictures = draw_figures(pair, test, folder, seed=seed, log=folder / "metrics.csv")
    print(f"trained in {seconds:.0f} s; training the predictors of digit and ground colour on real images")
    predictors = {
        name: predictor_for(training, name, steps=PREDICTOR_STEPS, device=pair.device) for name in recipe.factors
    }
    subject = subject_of(pair, test, recipe.factors, predictors=predictors, seed=seed)
    rows = make_metric("swap", how="prior").tables(subject)["swap"]
    write_json(folder / "swap.json", rows)
    table = SwapTable(tuple(rows), tuple(subject.latents))
    print()
    print(table)
    print()
    print(
        f"digit, which belongs in z_g:   kept {table.kept('digit', 'z_g'):.2f} with z_l resampled, "
        f"crossed {table.crossed('digit', 'z_g'):.2f} with z_g resampled"
    )
    print(
        f"colour, which belongs in z_l:  kept {table.kept('ground', 'z_l'):.2f} with z_g resampled, "
        f"crossed {table.crossed('ground', 'z_l'):.2f} with z_l resampled"
    )
    print("(kept is best at 1, crossed at 0: a score between chance and what real images give)")
    print()
    for picture in pictures:
        print(picture)
    return Demo(pair, recipe.settings.steps, seconds, table, tuple(pictures))
