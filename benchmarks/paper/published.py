"""The other methods of Table 1 against what their own papers state of MNIST, at the length they were published with.

python benchmarks/paper/published.py                  # all of them: hours on a GPU, days on a CPU
python benchmarks/paper/published.py --only imsat     # one; the others' numbers stay as they are in the results file
python benchmarks/paper/published.py --precision medium   # bfloat16 products, where a processor has them

As in the papers, a method learns from all 70,000 images, ten clusters, and is scored on the same ones, one cluster a digit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "plugins" / "infoplace-clustering"))

import infoplace_clustering as others
import results_file
import torch

from infoplace import training
from infoplace.data import load
from infoplace.metrics.clustering import clustering
from infoplace.pair import resolve_device

COMMAND = "python benchmarks/paper/published.py"
NAME = "published"


@dataclasses.dataclass(frozen=True)
class Published:
    """A method, and the accuracy its paper states of MNIST with the spread that it states, where it states one."""

    estimator: Any
    source: str
    accuracy: float
    spread: float = 0.0

    @property
    def goal(self) -> str:
        """Within the stated spread."""
        return f">={self.accuracy - self.spread:.3g}"

    @property
    def stated(self) -> str:
        """What the paper states, in percent."""
        return f"{100 * self.accuracy:.1f}" + (f" ± {100 * self.spread:.1f}" if self.spread else "")


METHODS = {
    "dec": Published(others.DEC, "Xie et al., 2016", 0.843),
    "imsat": Published(others.IMSAT, "Hu et al., 2017 (VAT)", 0.984, 0.004),
    "acol_gar": Published(others.ACOL, "Kilinc and Uysal, 2018", 0.983),
}


def measure(name: str, seeds: int, images: torch.Tensor, labels: torch.Tensor, device: str, progress: bool) -> Any:
    """The claim of one method, over its seeds."""
    method, scores, seconds = METHODS[name], [], []
    for seed in range(seeds):
        started = time.perf_counter()
        found = torch.from_numpy(method.estimator(10, seed=seed, device=device, progress=progress).fit_predict(images))
        seconds.append(time.perf_counter() - started)
        scores.append(clustering(found, labels, found, labels, clusters=10).scores["hungarian"])
        print(f"{name}, seed {seed}: {scores[-1]:.4f} after {seconds[-1]:.0f} s", flush=True)
    context = {
        "data": "mnist", "images": len(images), "source": method.source, "published": method.accuracy,
        "published_spread": method.spread, "seconds": round(sum(seconds) / len(seconds)), "commit": results_file.commit(),
        "date": time.strftime("%Y-%m-%d"), "device": str(resolve_device(device)),
        "precision": torch.get_float32_matmul_precision(),
    }  # fmt: skip
    return results_file.claim(f"{name}_mnist_hungarian", scores, "fraction", method.goal, context)


def measured() -> dict[str, dict[str, Any]]:
    """The claims that are in the results file, by method."""
    path = results_file.FOLDER / f"{NAME}.json"
    claims = json.loads(path.read_text(encoding="utf-8"))["claims"] if path.is_file() else []
    return {claim["name"].removesuffix("_mnist_hungarian"): claim for claim in claims}


def notes(claims: Mapping[str, dict[str, Any]]) -> str:
    """What stands below the claims, which come by method."""
    told = [
        f"{name}: {METHODS[name].stated}% in {METHODS[name].source}; here on {claim['context']['date']} at "
        f"{claim['context']['commit']}, {claim['context']['seconds']} s on one {claim['context']['device']}, by "
        f"`{COMMAND} --only {name} --seeds {claim['runs']} --precision {claim['context']['precision']}`"
        for name, claim in claims.items()
    ]
    absent = [name for name in METHODS if name not in claims]
    return (
        "MNIST, all 70,000 images learned from and scored on, ten clusters, one to one, with the settings and the length of the "
        f"methods' papers. {'. '.join(told)}." + (f" Not measured yet: {', '.join(absent)}." if absent else "")
    )


@results_file.plain_errors()
def main() -> None:
    """Measure the methods that are asked for, and write them beside the others' numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS), help="methods to measure")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each")
    parser.add_argument("--download", action="store_true", help="fetch MNIST if it is not there")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--precision",
        choices=["highest", "high", "medium"],
        default="highest",
        help="of float32 matrix products, as torch.set_float32_matmul_precision names it",
    )
    parser.add_argument("--progress", action="store_true", help="show progress bars")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds must be 1 or more; got {options.seeds}")
    torch.set_float32_matmul_precision(options.precision)
    parts = [load("mnist", split, download=options.download) for split in ("train", "test")]
    images, labels = torch.cat([p.images for p in parts]), torch.cat([p.factors["label"] for p in parts])
    claims = measured() | {
        name: measure(name, options.seeds, images, labels, options.device, options.progress) for name in options.only
    }
    machine = training.machine(resolve_device(options.device))
    print(results_file.write(NAME, COMMAND, list(claims.values()), notes(claims), machine=machine))


if __name__ == "__main__":
    main()
