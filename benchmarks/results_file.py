"""The one form of every benchmark's result: `write` makes `results/<name>.json` of what `claim` gives, and
`python benchmarks/results_file.py` renders RESULTS.md from all of them; and what keeps runs of different settings apart."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "RESULTS.md"


def claim(
    name: str,
    values: Sequence[float],
    unit: str,
    goal: str = "",
    context: Mapping[str, Any] | None = None,
    middle: Callable[[Sequence[float]], float] = statistics.mean,
    digits: int = 4,
) -> dict[str, Any]:
    """One number over its runs, as `write` takes it.

    Args:
        name: what is claimed.
        values: the number of every run.
        unit: of the values.
        goal: a bound as `>=0.93`; empty for none.
        context: what the number hangs on.
        middle: what the value is of the runs'; the spread is their standard deviation.
        digits: decimals kept.

    >>> claim("accuracy", [0.5, 0.7], "fraction")["value"]
    0.6
    """
    spread = round(statistics.stdev(values), digits) if len(values) > 1 else 0.0
    return summary(name, round(middle(values), digits), spread, len(values), unit, goal, context)


def summary(
    name: str,
    value: float,
    spread: float,
    runs: int,
    unit: str,
    goal: str = "",
    context: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A claim whose runs were summed up before: `value` is their middle, `spread` their standard deviation."""
    return {
        "name": name,
        "value": value,
        "spread": spread,
        "runs": runs,
        "unit": unit,
        "goal": goal,
        "context": dict(context or {}),
    }


def check_settings(
    path: Path, settings: Mapping[str, Any], long: Sequence[str] = (), today: Callable[[Any], Any] | None = None
) -> None:
    """Stop at a file that tells of other settings, before anything is trained, measured or gathered beside it.

    Args:
        path: the file; it holds settings, or has them under the key `settings`. None there is fine.
        settings: what they should be.
        long: settings that the message names without their values.
        today: writes what is there as it would be written today.

    Raises:
        SystemExit: they differ; the message says in what.
    """
    if not path.is_file():
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    there = there.get("settings", there)
    if today is not None:
        there = today(there)
    differ = [key for key in settings if there.get(key) != settings[key]]
    if differ:
        short = "; ".join(f"{key}: {there.get(key)} there, {settings[key]} now" for key in differ if key not in long)
        raise SystemExit(
            f"{path.parent} holds a run of other settings ({short or ', '.join(differ)}); repeat the options that it was made "
            "with, or choose another folder with --runs"
        )


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """End the programme with what infoplace says of its input, and without a traceback.

    Raises:
        SystemExit: for an InfoplaceError, with its message.
    """
    from infoplace.errors import InfoplaceError

    try:
        yield
    except InfoplaceError as error:
        raise SystemExit(str(error)) from error


def commit() -> str:
    """The commit that is checked out, in short."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, cwd=PAGE.parent, check=True).stdout.strip()


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

    result = {
        "name": name,
        "command": command,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine or training.machine(torch.device(device)),
        "claims": claims,
        "notes": notes,
    }
    path = files.make_folder(folder or FOLDER) / f"{name}.json"
    files.write_json(path, result)
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
