"""What a report knows of each run: what its folder holds, read once and checked."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infoplace.errors import DataError, RunFolderError, join_names
from infoplace.files import read_text
from infoplace.pair import Pair, load_pair
from infoplace.partition import Partition
from infoplace.recipe import load_recipe

__all__ = ["Run", "check_comparable", "common_source", "read_runs"]

COLUMNS: dict[str, str] = {
    "swap": "changed how factor metric score real chance normalised",
    "kept_crossed": "factor block how kept crossed",
    "placement": "block factor probe metric score low high chance untrained shuffled normalised",
    "placement_summary": "probe factor leakage redundancy",
    "kl": "block nats standard_error bits dims active",
    "bits_per_dim": "observation bits_per_dim standard_error elbo_bits_per_dim samples images dims",
    "disentanglement": "metric score",
    "clustering": "block factor classes metric value",
    "clustering_labels": "block factor cluster share majority",
    "clustering_confusion": "block factor label cluster images",
}
"""The tables of ``evaluation.json`` that have a picture or a layout of their own, and the columns these need."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        path: its folder, as it was given.
        label: its name on the page, which no other run there has.
        pair: the trained pair.
        recipe: the text of ``recipe.yaml``, or None.
        source: the data it was trained on, or None where the folder does not say.
        described: ``run.json``, or what ``pair.json`` knows of the versions.
        evaluation: ``evaluation.json``, or None where nothing was measured.
        history: the rows of ``metrics.csv``; empty where there is none.
    """

    path: Path
    label: str
    pair: Pair
    recipe: str | None
    source: str | None
    described: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    history: Sequence[Mapping[str, float]]

    @property
    def partition(self) -> Partition:
        """What was declared."""
        return self.pair.partition

    def table(self, name: str) -> list[Mapping[str, Any]]:
        """The rows of a table of the evaluation; none where it was not measured."""
        return [] if self.evaluation is None else self.evaluation["tables"].get(name, [])


def read_runs(paths: Sequence[str | Path], device: str) -> list[Run]:
    """Read the folders.

    Raises:
        RunFolderError: no folder, the same one twice, one that holds no run, or a file in it that is damaged.
    """
    if isinstance(paths, (str, Path)):
        raise RunFolderError(f"the runs are a list of run folders; write [{str(paths)!r}]")
    folders = [Path(path) for path in paths]
    if not folders:
        raise RunFolderError("there is no run to report on; name a run folder that infoplace train wrote")
    resolved = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise RunFolderError(f"the run {folder} is named twice; name each run of a report once")
    return [_read_run(folder, label, device) for folder, label in zip(folders, _labels(resolved), strict=True)]


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents as it takes to tell them apart."""
    depth = 1
    while True:
        labels = ["/".join(part.strip("/") for part in folder.parts[-depth:]) or "run" for folder in folders]
        if len(set(labels)) == len(folders):
            return labels
        depth += 1


def _read_run(folder: Path, label: str, device: str) -> Run:
    pair = load_pair(folder, device=device)
    recipe_file, run_file, evaluation_file = (folder / name for name in ("recipe.yaml", "run.json", "evaluation.json"))
    recipe = source = None
    if recipe_file.is_file():
        recipe, source = read_text(recipe_file, "recipe"), load_recipe(recipe_file).data
    if run_file.is_file():
        described = _read_json(run_file, "infoplace train")
    else:
        known = _read_json(folder / "pair.json", "pair.save")
        described = {key: known.get(key) for key in ("python", "torch", "pyro", "infoplace")}
    return Run(
        path=folder,
        label=label,
        pair=pair,
        recipe=recipe,
        source=source,
        described=described,
        evaluation=_read_evaluation(evaluation_file) if evaluation_file.is_file() else None,
        history=_read_history(folder / "metrics.csv"),
    )


def _read_json(path: Path, writer: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, "file"))
    except ValueError as error:
        raise RunFolderError(f"{path} is not what {writer} writes ({error}); run that again") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} is not what {writer} writes (no dict of named values); run that again")
    return content


def _read_evaluation(path: Path) -> dict[str, Any]:
    content = _read_json(path, "infoplace evaluate")
    tables = content.get("tables")
    fine = isinstance(tables, dict) and all(
        isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in tables.values()
    )
    if not isinstance(tables, dict) or not fine:
        raise RunFolderError(f"{path} is not what infoplace evaluate writes (no tables of rows); run that again")
    for name, rows in tables.items():
        for column in COLUMNS.get(name, "").split():
            if any(column not in row for row in rows):
                raise RunFolderError(
                    f"{path} is not what infoplace evaluate writes (a row of its table {name!r} has no {column!r}); "
                    "run that again"
                )
            if any(isinstance(row[column], (list, dict)) for row in rows):
                raise RunFolderError(
                    f"{path} is not what infoplace evaluate writes (a {column!r} of its table {name!r} is no plain "
                    "value); run that again"
                )
    for part in ("data", "machine", "settings", "factors", "predictors", "skipped"):
        if not isinstance(content.setdefault(part, {}), dict):
            raise RunFolderError(
                f"{path} is not what infoplace evaluate writes ({part!r} is no dict of named values); run that again"
            )
    return content


def _read_history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(_lines(path))]
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); remove it to leave the training curves out") from error
    if any(not math.isfinite(row.get("step", math.nan)) for row in rows):
        raise RunFolderError(f"{path} is damaged (a row has no 'step'); remove it to leave the training curves out")
    return rows


def _lines(path: Path) -> list[str]:
    return read_text(path, "log").splitlines()


def common_source(runs: Sequence[Run], data: str | None) -> str:
    """The data that the pictures of all runs are made of.

    Raises:
        DataError: a run does not say what it was trained on.
    """
    if data is not None:
        return data
    for run in runs:
        if run.source is None:
            raise DataError(
                f"the run {run.path} does not say what it was trained on; say which images to show with --data"
            )
    return str(runs[0].source)


def check_comparable(runs: Sequence[Run], data: str | None) -> None:
    """Check that the runs take data of one shape, and that their pictures and numbers are of the same images.

    Args:
        runs: the runs.
        data: what to show, where that is not what the runs were trained on.

    Raises:
        DataError: the first two that differ.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.pair.data_shape != first.pair.data_shape:
            raise DataError(
                f"a report compares runs on the same images, and {first.path} takes {_shape(first)}, {run.path} "
                f"{_shape(run)}; write a report for each"
            )
    trained = [run for run in runs if run.source is not None and data is None]
    for run in trained[1:]:
        if run.source != trained[0].source:
            raise DataError(
                f"a report compares runs on the same images, and {trained[0].path} was trained on {trained[0].source}, "
                f"{run.path} on {run.source}; write a report for each, or show all of them on one set with --data"
            )
    measured = [run for run in runs if run.evaluation is not None]
    for run in measured[1:]:
        (one, where), (other, elsewhere) = _measured_on(measured[0]), _measured_on(run)
        if one != other:
            raise DataError(
                f"a report compares runs on the same images, and {measured[0].path} was measured on {where}, "
                f"{run.path} on {elsewhere}; measure all of them on one set with infoplace evaluate"
            )


def _shape(run: Run) -> str:
    shape = run.pair.data_shape
    if isinstance(shape, Mapping):
        return join_names(f"{name} {list(sizes)}" for name, sizes in shape.items())
    return str(list(shape))


def _measured_on(run: Run) -> tuple[Any, str]:
    data = run.evaluation["data"] if run.evaluation is not None else {}
    name = f"{data.get('images', 'some')} {data.get('split', '')} images of {data.get('name', 'a set without a name')}"
    return data.get("fingerprint"), f"{' '.join(name.split())} (fingerprint {data.get('fingerprint', 'none')})"
