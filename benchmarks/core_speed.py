"""Every speed claim of the core in one run: `python benchmarks/core_speed.py` writes `results/core_speed.json`."""

from __future__ import annotations

import import_time
import patch_shuffle
import results_file
import step

if __name__ == "__main__":
    claims = [*patch_shuffle.measure(), *step.measure(), *import_time.measure()]
    print(results_file.write("core_speed", "python benchmarks/core_speed.py", claims))
