"""The main job in one call: render street numbers, train the paper's experiment 1, and measure what went where."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from infoplace.data import load
from infoplace.errors import RunFolderError
from infoplace.figures import decoder_of, draw_figures
from infoplace.files import replacing
from infoplace.metrics import SwapTable, swap
from infoplace.pair import Pair, evaluating, load_pair
from infoplace.probes import Predictor, train_classifier, train_regressor
from infoplace.recipe import Recipe, load_recipe, shipped_recipes
from infoplace.training import CHECKPOINT, train

__all__ = ["Demo", "measure", "run_demo", "street_number_predictors"]


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo made and measured."""

    pair: Pair
    steps: int
    train_seconds: float
    table: SwapTable
    pictures: tuple[Path, ...]


def street_number_predictors(data: Any, device: str | torch.device = "cpu") -> dict[str, Predictor]:
    """Predictors of the digit and of the ground colour, trained on real training images.

    Args:
        data: the training split of a street-number set.
        device: where to train them.
    """
    return {
        "digit": train_classifier(data.images, data.factors["digit"], classes=10, steps=150, device=device),
        "ground": train_regressor(data.images, data.factors["ground"], device=device),
    }


@torch.no_grad()
def measure(
    pair: Pair, data: Any, predictors: dict[str, Predictor], *, seed: int = 0, generator_seed: int = 1
) -> SwapTable:
    """The swap test on street numbers: digit and ground colour with each block resampled from its prior.

    Posterior means are decoded, and the likelihood's mean is scored; images are in [0, 1] throughout.

    Args:
        pair: a pair with an observation ``x``.
        data: test images, which neither pair nor predictors have seen.
        predictors: as :func:`street_number_predictors` makes them.
        seed: of the transforms.
        generator_seed: of the draws from the priors.
    """
    transforms = torch.Generator().manual_seed(seed)
    encoded: dict[str, list[torch.Tensor]] = {}
    with evaluating(pair):
        for start in range(0, len(data), 500):
            images = data.batch(torch.arange(start, min(start + 500, len(data)))).to(pair.device)
            for name, posterior in pair.encode(pair.partition.observe(images, transforms)).items():
                encoded.setdefault(name, []).append(posterior.mean)
        return swap(
            {name: torch.cat(means) for name, means in encoded.items()},
            decoder_of(pair, "x"),
            pair.sample_prior,
            data.images,
            {name: data.factors[name] for name in ("digit", "ground")},
            predictors,
            how=("prior",),
            generator=torch.Generator().manual_seed(generator_seed),
        )


def run_demo(
    out: str | Path, *, device: str = "auto", seed: int = 0, size: int = 10_000, recipe: Recipe | None = None
) -> Demo:
    """Train ``recipes/demo.yaml`` into a folder, draw its pictures, and print what was kept and what crossed.

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
    recipe = recipe or load_recipe(shipped_recipes()["demo"])
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
    predictors = street_number_predictors(training, pair.device)
    table = measure(pair, test, predictors, seed=seed)
    with replacing(folder / "swap.json") as temporary:
        temporary.write_text(json.dumps(table.rows(), indent=2) + "\n", encoding="utf-8")
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
