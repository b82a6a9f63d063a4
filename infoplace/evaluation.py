"""Measuring a run: everything that says where information went, as tables in the run folder.

:func:`evaluate` loads a run and the data it was trained on, builds the subject that the metrics look at, and writes
``evaluation.json`` and a CSV for each table. The parts are there for a loop of one's own: :func:`encodings` and
:func:`subject_of`.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infoplace.data import load
from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, join_names
from infoplace.figures import class_blocks, decoder_of, image_observation, observed_batches
from infoplace.files import make_folder, replacing, write_json
from infoplace.metrics import (
    LackingError,
    Metric,
    Subject,
    Tables,
    accuracy,
    chance,
    make_metric,
    squared_correlation,
)
from infoplace.modes import evaluating
from infoplace.pair import Pair, load_pair, make_pair, seeded
from infoplace.probes import Predictor, predictor_for
from infoplace.recipe import Factor, Recipe, load_recipe
from infoplace.training import machine

__all__ = [
    "EVALUATION",
    "METRICS",
    "Evaluation",
    "class_probabilities",
    "encodings",
    "evaluate",
    "progress_bar",
    "subject_of",
]

EVALUATION = "evaluation.json"
METRICS = ("swap", "placement", "kl", "bits_per_dim", "disentanglement")
"""What a run is measured with when nothing else is asked for; where a prior draws a class, also with ``clustering``."""

_PLAIN = ("kl", "bits_per_dim", "disentanglement")
"""Metrics that need neither training images nor predictors."""

_PROBING = ("placement", "clustering")
"""Metrics that need training images and no predictors, as the swap test needs predictors only; others get both."""

_DETAILS = ("clustering_labels", "clustering_confusion")
"""Tables that are too long to be printed with the others."""

OBSERVED = 2000
"""Images whose observations are kept for the metrics of the model itself."""

Report = Callable[[str, int, int], None]
"""``report(what, done, total)``"""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a run was measured to be: the content of its ``evaluation.json``.

    Attributes:
        tables: ``{table: rows}``, each row a dict of plain values.
        described: everything else: versions, machine, data, settings, factors, predictors, and what was skipped and why.
    """

    tables: Tables
    described: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return {**self.described, "tables": self.tables}

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``evaluation.json`` and ``evaluation_<table>.csv`` into a folder, each at once, in place of an earlier one.

        Returns:
            The files.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        folder = make_folder(folder)
        written = []
        for stale in folder.glob("evaluation_*.csv"):
            if stale.stem.removeprefix("evaluation_") not in self.tables:
                stale.unlink()
        for table, rows in self.tables.items():
            if not rows:
                continue
            path = folder / f"evaluation_{table}.csv"
            columns = list(dict.fromkeys(key for row in rows for key in row))
            with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
            written.append(path)
        path = folder / EVALUATION
        write_json(path, self.to_dict(), indent=1)
        return [path, *written]

    def __str__(self) -> str:
        """Every table, in columns, but those with a row for every cluster."""
        parts = []
        for table, rows in self.tables.items():
            if rows and table not in _DETAILS:
                parts.append(f"{table}\n{_columns(rows)}")
        parts += [f"{metric}: skipped, {reason}" for metric, reason in self.described.get("skipped", {}).items()]
        return "\n\n".join(parts)


def _columns(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(key for row in rows for key in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@torch.no_grad()
def encodings(
    pair: Pair, data: Any, *, samples: bool = False, seed: int = 0, batch_size: int = 500
) -> dict[str, Tensor]:
    """The blocks of every image of a set.

    Args:
        pair: the pair.
        data: an ``infoplace.data.ImageData``.
        samples: draw from the posteriors; their means when False.
        seed: of the transforms, and of the draws.
        batch_size: images encoded at once.

    Returns:
        ``{block: [N, dim]}``, on the pair's device.

    Raises:
        DataError: images that the pair does not take.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z": Block(2)}, {"x": Observation()}), (3, 32, 32))
    >>> encodings(pair, load("street_numbers/easy", "test", size=5))["z"].shape
    torch.Size([5, 2])
    """
    found: dict[str, list[Tensor]] = {}
    with evaluating(pair), seeded(seed, pair.device):
        for _, observations in observed_batches(pair, data, seed, batch_size):
            for name, posterior in pair.encode(observations).items():
                found.setdefault(name, []).append(posterior.sample() if samples else posterior.mean)
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def class_probabilities(pair: Pair, data: Any, *, seed: int = 0, batch_size: int = 500) -> dict[str, Tensor]:
    """How probable each class is for every image of a set, for all blocks whose prior draws a class.

    Args:
        pair: the pair.
        data: an ``infoplace.data.ImageData``.
        seed: of the transforms.
        batch_size: images encoded at once.

    Returns:
        ``{block: [N, classes]}``, ``q(y|x)``, on the pair's device; empty where no prior draws a class.

    Raises:
        DataError: images that the pair does not take.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> prior = {"mixture": {"components": 3, "y": "enumerate"}}
    >>> pair = make_pair(Partition({"z": Block(2, prior=prior)}, {"x": Observation()}), (3, 32, 32))
    >>> class_probabilities(pair, load("street_numbers/easy", "test", size=5))["z"].shape
    torch.Size([5, 3])
    """
    found: dict[str, list[Tensor]] = {name: [] for name in class_blocks(pair)}
    if not found:
        return {}
    with evaluating(pair):
        for _, observations in observed_batches(pair, data, seed, batch_size):
            classes = pair.classify(observations)
            for name, parts in found.items():
                parts.append(classes[name].probs)
    return {name: torch.cat(parts) for name, parts in found.items()}


def subject_of(
    pair: Pair,
    test: Any,
    factors: Mapping[str, Factor],
    *,
    train: Any = None,
    predictors: Mapping[str, Predictor] | None = None,
    samples: bool = False,
    untrained: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Subject:
    """What the metrics look at, of a pair and its data.

    Args:
        pair: the trained pair.
        test: an ``infoplace.data.ImageData`` of images that neither pair nor predictors were trained on.
        factors: which factors of the data are measured, and which block should carry each.
        train: training images for the probes.
        predictors: ``{factor: predictor}`` for the swap test.
        samples: use draws from the posteriors; their means when False.
        untrained: also encode with an untrained pair of the same networks (its means), the probes' control.
        seed: of every random choice.
        progress: handed on to the metrics.

    Raises:
        DataError: images that the pair does not take.
        UnknownNameError: a factor that the data lack, or a block that the pair lacks.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z": Block(2)}, {"x": Observation()}), (3, 32, 32))
    >>> subject = subject_of(pair, load("street_numbers/easy", "test", size=5), {"digit": Factor("z")})
    >>> [(row["block"], row["dims"]) for row in make_metric("kl").tables(subject)["kl"]]
    [('z', 2)]
    """
    _check_factors(factors, test, pair)
    observed: dict[str, list[Tensor]] = {}
    for start, observations in observed_batches(pair, test, seed):
        if start >= OBSERVED:
            break
        for name, value in observations.items():
            observed.setdefault(name, []).append(value)

    def both(of: Pair, samples: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return encodings(of, train, samples=samples, seed=seed + 1), encodings(of, test, samples=samples, seed=seed)

    controls = None
    if train is not None and untrained and not any(pair.networks.own.values()):
        with seeded(seed + 1, torch.device("cpu")):
            fresh = make_pair(pair.partition, pair.data_shape, pair.networks.network).to(pair.device)
        # Its means: draws from a posterior that nobody trained are mostly noise, and no hard thing to beat.
        controls = both(fresh, samples=False)
    train_classes = None if train is None else class_probabilities(pair, train, seed=seed + 1)
    try:
        shown = image_observation(pair)
    except DataError:
        shown = None
    return Subject(
        latents=encodings(pair, test, samples=samples, seed=seed),
        factors={name: test.factors[name] for name in factors},
        train_latents=None if train is None else encodings(pair, train, samples=samples, seed=seed + 1),
        train_factors=None if train is None else {name: train.factors[name] for name in factors},
        samples=None if train is None else both(pair, samples=True),
        untrained=controls,
        classes=class_probabilities(pair, test, seed=seed),
        train_classes=train_classes,
        carriers={name: factor.block for name, factor in factors.items() if factor.block is not None},
        given={name: factor.given for name, factor in factors.items() if factor.given is not None},
        images=test.images,
        predictors=predictors,
        decode=None if shown is None else decoder_of(pair, shown),
        prior=pair.sample_prior,
        model=pair.model,
        guide=pair.guide,
        observations={name: torch.cat(parts) for name, parts in observed.items()},
        hangs_on={name: tuple(o.blocks or ()) for name, o in pair.partition.observations.items()},
        described="posterior samples" if samples else "posterior means",
        seed=seed,
        device=pair.device,
        progress=progress,
    )


def _check_factors(factors: Mapping[str, Factor], data: Any, pair: Pair) -> None:
    for name, factor in factors.items():
        for wanted in (name, factor.given):
            if wanted is not None and wanted not in data.factors:
                raise UnknownNameError(
                    f"{data.name} has no factor {wanted!r}; it has {join_names(data.factors) or 'none'}."
                    f"{did_you_mean(wanted, data.factors)}"
                )
        if factor.block is not None and factor.block not in pair.partition.blocks:
            raise UnknownNameError(
                f"{name} should be carried by {factor.block!r}, and the pair has no such block; it has "
                f"{join_names(pair.partition.blocks)}.{did_you_mean(factor.block, pair.partition.blocks)}"
            )
        if factor.given is not None and factor.given not in factors:
            raise DeclarationError(
                f"{name} is measured given {factor.given!r}, which is not measured itself; add it to the factors"
            )


def evaluate(
    run: str | Path,
    *,
    data: str | None = None,
    split: str = "test",
    factors: Mapping[str, Any] | None = None,
    metrics: Sequence[Metric | str | Mapping[str, Any]] | None = None,
    images: int | None = None,
    probe_images: int = 10_000,
    samples: bool = False,
    seed: int = 0,
    device: str = "auto",
    cache: str | Path | bool | None = None,
    out: str | Path | None = None,
    report: Report | None = None,
) -> Evaluation:
    """Measure a run and write what was found into its folder.

    Args:
        run: the run folder.
        data: a set's name or a path; what the run was trained on when None.
        split: the images to measure on; never those it was trained on.
        factors: ``{factor: block}`` as in a recipe's ``factors``; those of the run's recipe when None, and all that the
            data have where it names none.
        metrics: names, specs or metrics; :data:`METRICS`, and ``clustering`` where a prior draws a class, as far as they
            apply, when None.
        images: at most so many images of the split; all when None.
        probe_images: at most so many training images for the probes of :func:`~infoplace.metrics.placement` and the mappings
            of :func:`~infoplace.metrics.clustering`.
        samples: decode and probe draws from the posteriors; their means when False.
        seed: of every random choice.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        cache: where predictors are kept; see :func:`~infoplace.probes.predictor_for`.
        out: the folder to write to; the run folder when None.
        report: called as ``report(what, done, total)`` while it works.

    Returns:
        What was written. An earlier evaluation in the folder is replaced, all of it.

    Raises:
        RunFolderError: not a run folder, or it cannot be written.
        DataError, UnknownNameError, DeclarationError: data, factors, blocks or metrics that do not fit; nothing is
            written then.

    >>> import tempfile
    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> folder = make_pair(Partition({"z": Block(2)}, {"x": Observation()}), (3, 32, 32)).save(tempfile.mkdtemp())
    >>> found = evaluate(folder, data="street_numbers/easy", images=20, metrics=["kl"], device="cpu")
    >>> [path.name for path in sorted(folder.glob("evaluation*"))]
    ['evaluation.json', 'evaluation_kl.csv']
    """
    folder = Path(run)
    asked = None if metrics is None else _named(metrics)
    say = report or (lambda what, done, total: None)
    pair = load_pair(folder, device=device)
    stock = METRICS + (("clustering",) if class_blocks(pair) else ())
    chosen = {name: make_metric(name) for name in stock} if asked is None else asked
    if "clustering" in chosen and not class_blocks(pair):
        raise DeclarationError(
            f"clustering measures blocks whose prior draws a class, and none of {join_names(pair.partition.blocks)} has such "
            "a prior; train a pair with one, as z_g: {dim: 16, prior: {mixture: {components: 30, y: enumerate}}}"
        )
    recipe = load_recipe(folder / "recipe.yaml") if (folder / "recipe.yaml").is_file() else None
    source = data or (recipe.data if recipe is not None else None)
    if source is None:
        raise DeclarationError("the run does not say what it was trained on; say which data to measure with --data")
    if "train" in split.split("+"):
        raise DeclarationError(f"split {split!r} holds what the pair was trained on; measure on 'test' or 'validation'")
    make_folder(folder if out is None else out)
    say("reading the data", 0, 1)
    test = load(source, split, limit=images)
    wanted = _factors(recipe, factors, test)
    _check_factors(wanted, test, pair)
    probed, decoded = (bool(wanted) and not set(chosen) <= {*_PLAIN, *others} for others in (("swap",), _PROBING))
    train = load(source, "train") if probed or decoded else None
    predictors: dict[str, Predictor] = {}
    if train is not None and decoded:
        for done, name in enumerate(wanted):
            say(f"predictor of {name}", done, len(wanted))
            predictors[name] = predictor_for(train, name, seed=0, device=str(pair.device), cache=cache)
    say("encoding", 0, 1)
    if train is not None and len(train) > probe_images:
        train = train.subset(torch.arange(probe_images) * len(train) // probe_images)
    subject = subject_of(
        pair, test, wanted,
        train=train if probed else None,
        predictors=predictors or None,
        samples=samples,
        untrained=not set(chosen) <= {*_PLAIN, "swap", "clustering"},
        seed=seed,
    )  # fmt: skip
    tables: Tables = {}
    skipped: dict[str, str] = {}
    with evaluating(pair):
        for done, (name, metric) in enumerate(chosen.items()):
            say(name, done, len(chosen))

            def inner(part: int, parts: int, name: str = name, done: int = done) -> None:
                say(name, done * parts + part, len(chosen) * parts)

            try:
                found = metric.tables(dataclasses.replace(subject, progress=inner))
            except LackingError as error:
                # Asked for by name, it has to work; otherwise a set without labels is measured as far as it goes.
                if metrics is not None:
                    raise
                skipped[name] = str(error)
                continue
            for table, rows in found.items():
                if table in tables:
                    raise DeclarationError(f"two metrics write a table {table!r}; ask for one of them at a time")
                tables[table] = [{key: _finite(value) for key, value in row.items()} for row in rows]
    say("done", 1, 1)
    where = machine(pair.device)
    described = {
        "infoplace": where["infoplace"],
        "date": time.strftime("%Y-%m-%d"),
        "machine": where,
        "data": {
            "source": source,
            "name": test.name,
            "split": split,
            "images": len(test),
            "fingerprint": hashlib.sha256(test.images.cpu().numpy().tobytes()).hexdigest()[:16],
        },
        "weights_sha256": json.loads((folder / "pair.json").read_text(encoding="utf-8"))["weights_sha256"],
        "settings": {
            "seed": seed,
            "latents": subject.described,
            "probe_images": 0 if subject.train_latents is None else probe_images,
            "metrics": [metric.to_spec() for metric in chosen.values()],
        },
        "factors": {name: dataclasses.asdict(factor) for name, factor in wanted.items()},
        "predictors": {
            name: {
                "metric": predictor.metric,
                "real": _real(predictor, test.images, test.factors[name]),
                "chance": chance(test.factors[name]) if predictor.metric == "accuracy" else 0.0,
            }
            for name, predictor in predictors.items()
        },
        "skipped": skipped,
    }
    evaluation = Evaluation(tables, described)
    evaluation.save(folder if out is None else out)
    return evaluation


def _real(predictor: Predictor, images: Tensor, true: Tensor) -> float:
    """A predictor's score on real images; a label that training never had counts as wrong, as in the swap test."""
    score = accuracy if predictor.metric == "accuracy" else squared_correlation
    return score(true, predictor.predict(images))


def _finite(value: Any) -> Any:
    """JSON has no NaN: a score that could not be computed is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _named(metrics: Sequence[Metric | str | Mapping[str, Any]]) -> dict[str, Metric]:
    made = [make_metric(metric) for metric in metrics]
    if not made:
        raise DeclarationError(f"there is no metric to measure with; leave it out for {join_names(METRICS)}")
    named = {str(metric.spec_name): metric for metric in made}
    if len(named) < len(made):
        raise DeclarationError(
            f"a metric is asked for twice; evaluate with one at a time: {join_names(map(repr, made))}"
        )
    return named


def _factors(recipe: Recipe | None, given: Mapping[str, Any] | None, data: Any) -> dict[str, Factor]:
    """The factors that were asked for, those of the recipe, or all that vary."""
    if given is not None:
        return {
            name: factor if isinstance(factor, Factor) else Factor.from_spec(name, factor)
            for name, factor in given.items()
        }
    if recipe is not None and recipe.factors:
        return dict(recipe.factors)
    return {name: Factor() for name, values in data.factors.items() if bool((values != values[:1]).any())}


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Report]:
    """A bar in a terminal, a line for each new thing elsewhere; gives what :func:`evaluate` takes as ``report``."""
    if not shown:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = ""

        def line(what: str, done: int, total: int) -> None:
            nonlocal last
            if what != last:
                print(what, file=sys.stderr, flush=True)
            last = what

        yield line
        return
    columns = (BarColumn(20), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
