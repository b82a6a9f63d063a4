"""The paper's Figure 2 on CIFAR-10, over beta: `python benchmarks/cifar10.py --data path/to/cifar10`.

Trains the recipe `cifar10` once for each beta (a run that is there already is not trained again, and one that was cut short
goes on), draws its grids on test images, probes both blocks for the class, and writes `results/cifar10.json`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import results_file

import infoplace as ip
from infoplace.data import load
from infoplace.evaluation import EVALUATION, evaluate
from infoplace.figures import draw_figures
from infoplace.recipe import shipped_recipes
from infoplace.training import CHECKPOINT

ROWS = 20
PICTURES = results_file.FOLDER / "cifar10"
METRICS = [{"placement": {"probes": ["linear"]}}, "kl"]


def run(beta: float, options: argparse.Namespace) -> Path:
    """Train and measure one beta, as far as that is not done yet."""
    recipe = ip.load_recipe(shipped_recipes()["cifar10"])
    recipe = dataclasses.replace(
        recipe,
        data=options.data,
        objective=ip.make_objective("beta_elbo", beta=beta),
        settings=dataclasses.replace(recipe.settings, steps=options.steps),
    )
    folder = options.runs / f"beta_{beta:g}"
    if not (folder / "run.json").is_file():
        train = load(options.data, "train")
        resume = (folder / CHECKPOINT).is_file()
        ip.train(recipe, train, train.shape, folder, resume=resume, device=options.device, progress=False)
    if not (folder / EVALUATION).is_file():
        evaluate(folder, factors={"label": "z_g"}, metrics=METRICS, device=options.device)
    return folder


def claims_of(beta: float, folder: Path, steps: int) -> list[dict[str, Any]]:
    """The terms of the objective at the end of the training, and what a probe reads of the class."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)][-ROWS:]
    seconds = json.loads((folder / "run.json").read_text(encoding="utf-8"))["seconds"]
    context = {"data": "cifar10", "beta": beta, "steps": steps, "seconds": round(seconds)}
    terms = [
        {
            "name": f"beta_{beta:g}_{name.replace('/', '_')}",
            "value": round(statistics.mean(row[name] for row in rows), 2),
            "spread": round(statistics.stdev(row[name] for row in rows), 2),
            "runs": 1,
            "unit": f"nats an image, mean of the last {ROWS} logged training batches",
            "goal": "",
            "context": context,
        }
        for name in ("log_likelihood/x", "log_likelihood/x_hat", "kl/z_g", "kl/z_l")
    ]
    tables = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))["tables"]
    probes = [
        {
            "name": f"beta_{beta:g}_class_from_{row['block']}",
            "value": round(row["score"], 4),
            "spread": round((row["high"] - row["low"]) / 3.92, 4),
            "runs": 1,
            "unit": "accuracy of a linear probe on test images, chance 0.1; the spread is the bootstrap's",
            "goal": "",
            "context": context,
        }
        for row in tables["placement"]
    ]
    return terms + probes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="the set's name or its folder")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--betas", type=float, nargs="+", default=[1.0, 5.0, 20.0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    claims = []
    for beta in options.betas:
        folder = run(beta, options)
        shown = load(options.data, "test", limit=256)
        draw_figures(ip.load_pair(folder), shown, PICTURES / f"beta_{beta:g}")
        claims += claims_of(beta, folder, options.steps)
    words = (PICTURES / "words.md").read_text(encoding="utf-8").strip()
    grids = [
        f"![Beta {beta:g}: two grids of a hundred generated images; on the left z_g varies, on the right z_l]"
        f"(results/cifar10/beta_{beta:g}/figure2.png)"
        for beta in options.betas
    ]
    mixtures = (
        "![Mixtures of test images at the largest beta: z_g of the image above, z_l of the image at the left]"
        f"(results/cifar10/beta_{max(options.betas):g}/mixtures.png)"
    )
    command = "python benchmarks/cifar10.py --data path/to/cifar10"
    notes = "\n\n".join([words, *grids, mixtures])
    print(results_file.write("cifar10", command, claims, notes, device=str(ip.load_pair(folder).device)))
