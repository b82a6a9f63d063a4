"""`from infoplace import *` against `import pyro`, each in a fresh interpreter, in turn.

`import infoplace` alone imports next to nothing, and each name its module when it is first used; here all of them are used.

Run it alone (`python benchmarks/import_time.py`), or all speed claims with `python benchmarks/core_speed.py`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

ROUNDS = 20


STATEMENTS = {"infoplace": "from infoplace import *", "pyro": "import pyro"}


def seconds(package: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", STATEMENTS[package]], check=True)
    return time.perf_counter() - start


def measure() -> list[dict[str, Any]]:
    """The claim `import_time_ratio`."""
    for package in STATEMENTS:
        seconds(package)
    times = []
    for turn in range(ROUNDS):
        # The second of two has warmer file caches, so they take turns at it.
        if turn % 2:
            times.append((seconds("infoplace"), seconds("pyro")))
        else:
            pyro_time = seconds("pyro")
            times.append((seconds("infoplace"), pyro_time))
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    ratio = medians[0] / medians[1]
    print(f"import: infoplace {medians[0]:.2f} s, pyro {medians[1]:.2f} s, ratio {ratio:.3f}")
    return [
        {
            "name": "import_time_ratio",
            "value": round(ratio, 3),
            "spread": round(statistics.stdev(a / b for a, b in times), 3),
            "runs": ROUNDS,
            "unit": "times pyro's",
            "goal": "<=1.15",
            "context": {"infoplace_s": round(medians[0], 2), "pyro_s": round(medians[1], 2)},
        }
    ]


if __name__ == "__main__":
    measure()
