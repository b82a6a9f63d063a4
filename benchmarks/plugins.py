"""What it takes to begin a plugin, and what the laws catch.

python benchmarks/plugins.py

Times `infoplace new-plugin` as a process of its own and the writing alone, and counts how many planted faults
(`tests/planted_faults.py`) the laws of `infoplace.testing` catch, each by the law that is named for it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import results_file

from infoplace.scaffold import new_plugin
from infoplace.testing import LawError

COMMAND = "python benchmarks/plugins.py"
ROUNDS = 5


def seconds(action: Callable[[], Any]) -> float:
    """How long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def beginnings(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of the command as a whole, and of the writing alone."""
    whole, writing = [], []
    for turn in range(ROUNDS):
        command = [sys.executable, "-m", "infoplace", "new-plugin", f"infoplace-a{turn}", "--out", str(folder)]
        whole.append(seconds(lambda command=command: subprocess.run(command, check=True, capture_output=True)))
        writing.append(seconds(lambda turn=turn: new_plugin(f"infoplace-b{turn}", folder)))
    return whole, writing


def caught() -> tuple[list[str], int]:
    """The faults that were not caught by the law named for them, and how many were planted."""
    os.environ.setdefault("INFOPLACE_DISABLE_PLUGINS", "1")
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from planted_faults import FAULTS

    missed = []
    for name, (law, check) in FAULTS.items():
        try:
            check()
        except LawError as error:
            if law in str(error):
                continue
        missed.append(name)
    return missed, len(FAULTS)


def claim(name: str, values: list[float], unit: str, goal: str = "", **context: Any) -> dict[str, Any]:
    """One claim; times are medians."""
    return results_file.claim(name, values, unit, goal, context, middle=statistics.median, digits=3)


def main() -> None:
    """Measure, and write the results."""
    with tempfile.TemporaryDirectory() as folder:
        whole, writing = beginnings(Path(folder))
    missed, planted = caught()
    for name in missed:
        print(f"not caught: {name}")
    claims = [
        claim("new_plugin_seconds", whole, "s", "<=1", measures="the whole command, Python's start included"),
        claim("new_plugin_writing_seconds", writing, "s"),
        claim("laws_faults_caught", [planted - len(missed)], "faults", f">={planted}"),
        claim("laws_faults_planted", [planted], "faults"),
    ]
    print(
        results_file.write(
            "plugins", COMMAND, claims, "Each fault counts as caught if the law that is named for it says so."
        )
    )


if __name__ == "__main__":
    main()
