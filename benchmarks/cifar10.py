"""The paper's Figure 2 on CIFAR-10: draws a run's pictures and writes `results/cifar10.json`.

infoplace train recipes/cifar10.yaml --data path/to/cifar10 --out runs/cifar10
python benchmarks/cifar10.py runs/cifar10 --data path/to/cifar10
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path

import results_file

import infoplace as ip
from infoplace.data import load
from infoplace.figures import draw_figures

ROWS = 20

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="cifar10")
    options = parser.parse_args()
    pair = ip.load_pair(options.run)
    recipe = ip.load_recipe(options.run / "recipe.yaml")
    folder = results_file.FOLDER / "cifar10"
    draw_figures(pair, load(options.data, "test", limit=256), folder, log=options.run / "metrics.csv")
    with (options.run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)][-ROWS:]
    run = json.loads((options.run / "run.json").read_text(encoding="utf-8"))
    context = {
        "data": "cifar10",
        "steps": recipe.settings.steps,
        "batch_size": recipe.settings.batch_size,
        "objective": recipe.objective.to_spec(),
        "seconds": run["seconds"],
        "average": f"of the last {ROWS} logged training batches",
    }
    claims = [
        {
            "name": name.replace("/", "_"),
            "value": round(statistics.mean(row[name] for row in rows), 2),
            "spread": round(statistics.stdev(row[name] for row in rows), 2),
            "runs": 1,
            "unit": "nats an image",
            "goal": "",
            "context": context,
        }
        for name in ("log_likelihood/x", "log_likelihood/x_hat", "kl/z_g", "kl/z_l")
    ]
    notes = (
        f"One run of {recipe.settings.steps:,} steps in {run['seconds'] / 60:.0f} minutes. "
        "What can be seen in the grids: with z_g fixed and z_l varied the layout stays, where it is light and where dark, "
        "while hue, brightness and contrast change in all of it; with z_l fixed and z_g varied the blobs move and change "
        "their outline while the palette stays the same few greys, browns and blues. The mixtures say the same of real "
        "test images. What cannot be seen: objects. At beta 20 the blocks keep some 60 nats of an image, and what they decode "
        "to is blurred to a few large patches, as the paper says of its own samples; nothing here shows whether z_g tells a "
        "ship from a truck.\n\n"
        "![Two grids of a hundred generated images: on the left z_g varies, on the right z_l](results/cifar10/figure2.png)\n\n"
        "![Mixtures of test images: z_g of the image above, z_l of the image at the left](results/cifar10/mixtures.png)"
    )
    command = "infoplace train recipes/cifar10.yaml --data cifar10 --out runs/cifar10; python benchmarks/cifar10.py runs/cifar10"
    print(results_file.write("cifar10", command, claims, notes))
