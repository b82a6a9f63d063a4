"""The one form of every benchmark's result: `write` makes `results/<name>.json`, and `python benchmarks/results_file.py`
renders RESULTS.md from all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "RESULTS.md"


def write(
    name: str,
    command: str,
    claims: list[dict[str, Any]],
    notes: str = "",
    device: str = "cpu",
    machine: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> Path:
    """Write one benchmark's claims, with the commit, the date and the machine they were measured on.

    Args:
        name: the file's name without its ending.
        command: what a reader types to measure them again.
        claims: dicts with `name`, `value`, `spread`, `runs`, `unit`, `goal` and `context`.
        notes: a paragraph on what the numbers say and what they do not; Markdown.
        device: where it ran.
        machine: what it ran on, where that is not this machine.
        folder: where the file goes; `results/` if left out. It is there whole or not at all.
    """
    import torch

    from infoplace import files, training

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=PAGE.parent, check=True
    ).stdout.strip()
    result = {
        "name": name,
        "command": command,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine or training.machine(torch.device(device)),
        "claims": claims,
        "notes": notes,
    }
    path = files.make_folder(folder or FOLDER) / f"{name}.json"
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def met(value: float, goal: str) -> bool:
    """Whether a value reaches a goal such as `>=0.93` or `<=1.2`.

    >>> met(0.94, ">=0.93"), met(1.3, "<=1.2")
    (True, False)
    """
    bound = float(goal[2:])
    return value >= bound if goal.startswith(">=") else value <= bound


def render() -> str:
    """RESULTS.md from the files in `results/`."""
    lines = [
        "# Results",
        "",
        "Rendered from `benchmarks/results/*.json` by `python benchmarks/results_file.py`; each section's command measures",
        "its numbers again. `value` is a mean (a median for timings), `±` the standard deviation over the runs.",
    ]
    for path in sorted(FOLDER.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        machine = result["machine"]
        lines += [
            "",
            f"## {result['name']}",
            "",
            f"`{result['command']}`, {result['date']}, commit {result['commit']}; {machine['device']}, "
            f"{machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}.",
        ]
        # Claims that differ by a change alone are a table of the notes: a row for each change.
        claims = [claim for claim in result["claims"] if "change" not in claim["context"]]
        if claims:
            lines += ["", "| claim | value | runs | unit | goal | met |", "| --- | --- | --- | --- | --- | --- |"]
        for claim in claims:
            goal = claim["goal"]
            reached = "" if not goal else ("yes" if met(claim["value"], goal) else "**no**")
            spread = f" ± {claim['spread']:g}" if claim["spread"] else ""
            lines.append(
                f"| `{claim['name']}` | {claim['value']:g}{spread} | {claim['runs']} | {claim['unit']} | {goal} | {reached} |"
            )
        if result.get("notes"):
            lines += ["", result["notes"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(str(PAGE) + "\n")
