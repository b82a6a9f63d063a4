"""Training a pair: a loop to read in one sitting, with its progress, logs, checkpoints and run folder.

Nothing here is needed to train a pair: its model and guide go into any Pyro or torch loop. :func:`fit` is the loop that
``infoplace train`` runs.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyro
import torch
import yaml
from torch import Tensor, nn

from infoplace.clusters import check_start, clusters_used, start_mixture
from infoplace.distributions import make_prior
from infoplace.errors import (
    DataError,
    DeclarationError,
    RunFolderError,
    TrainingError,
    check_keys,
    is_whole,
    join_names,
)
from infoplace.files import locked, make_folder, read_tensors, replacing, write_json, write_tensors
from infoplace.names import class_name
from infoplace.objectives import Objective, make_objective
from infoplace.objectives.agreement import Agreement
from infoplace.pair import Pair, check_observations, load_tensors, resolve_device, seeded, tensors_of
from infoplace.partition import Partition
from infoplace.recipe import AGREEMENT_FITS, Recipe, Settings

__all__ = ["Resident", "fit", "machine", "train"]

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.csv"

TENSORBOARD = "tensorboard"
_WATCHED = 256
_FITTED = 10_000
"""How many samples the clusters are counted on, and how many a mixture is fitted to."""
WRITTEN = ("recipe.yaml", METRICS, TENSORBOARD, "partition.yaml", "pair.json", "weights.safetensors")
"""What a run writes before its first checkpoint is whole."""


class Resident(Protocol):
    """Data held on one device, from which batches are taken by index; ``infoplace.data.ImageData`` is one."""

    factors: Mapping[str, Tensor]

    def __len__(self) -> int: ...
    def to(self, device: torch.device | str) -> Resident: ...
    def batch(self, indices: Tensor) -> Tensor: ...


class _Batches:
    """The batch of every step, a function of the seed and the step alone, so that a resumed run sees what it would have.

    An epoch is a permutation; a step that crosses its end takes the rest from the next one.
    """

    def __init__(self, data: Any, partition: Partition, settings: Settings, device: torch.device, rank: int) -> None:
        self.sources = partition.sources
        self.device = device
        self.size = settings.batch_size
        self.seed = settings.seed
        self.rank = rank
        self.data = self._resident(data)
        self._epoch = -1
        self._order: Tensor | None = None
        if self.count == 0:
            raise DataError("there is no data to train on: it holds 0 samples")

    def _resident(self, data: Any) -> Any:
        if isinstance(data, Tensor):
            data = {self.sources[0]: data}
        if isinstance(data, Mapping):
            counts = {name: len(value) for name, value in data.items()}
            if len(set(counts.values())) != 1:
                raise DataError(f"the data's tensors must have one length; got {counts}")
            self.count = next(iter(counts.values()))
            return {name: value.to(self.device) for name, value in data.items()}
        if hasattr(data, "batch") and hasattr(data, "factors"):
            self.count = len(data)
            return data.to(self.device)
        raise DataError(
            f"fit takes an infoplace.data.ImageData, a tensor [samples, ...] or a dict of them; got {type(data).__name__} "
            "(a loader goes into a loop of your own: svi.step(partition.observe(x)))"
        )

    def _indices(self, step: int) -> Tensor:
        picked: list[Tensor] = []
        position, wanted = step * self.size, self.size
        while wanted:
            epoch, offset = divmod(position, self.count)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(_mixed("order", self.seed, self.rank, epoch))
                self._order, self._epoch = torch.randperm(self.count, generator=generator).to(self.device), epoch
            assert self._order is not None
            part = self._order[offset : offset + wanted]
            picked.append(part)
            position += len(part)
            wanted -= len(part)
        return torch.cat(picked)

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """The batch at these indices, ``{source: tensor}``; images go to the source that no factor is named after."""
        if isinstance(self.data, dict):
            return {name: value[indices] for name, value in self.data.items()}
        factors = {name: self.data.factors[name] for name in self.sources if name in self.data.factors}
        images = [name for name in self.sources if name not in factors]
        if len(images) > 1:
            raise DataError(
                f"the partition takes {join_names(self.sources)} from the batch, and the data know "
                f"{join_names(self.data.factors)} beside the images; name the sources after those"
            )
        batch = {name: values[indices] for name, values in factors.items()}
        return batch | {name: self.data.batch(indices) for name in images}

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.take(self._indices(step))


class _Observed:
    """Observations that Fabric leaves alone: in mixed precision it would round the tensors it is given, grey values too."""

    def __init__(self, observations: dict[str, Tensor]) -> None:
        self.observations = observations


class _Step(nn.Module):
    """The loss per sample of one batch of observations, as the module that Fabric wraps."""

    def __init__(self, pair: Pair, objective: Objective) -> None:
        super().__init__()
        self.loss = objective(pair.model, pair.guide)

    def forward(self, observed: _Observed, samples: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = self.loss.evaluate(observed.observations)
        return loss / samples, terms


def fit(
    pair: Pair,
    data: Any,
    objective: Objective | str | Mapping[str, Any] = "elbo",
    settings: Settings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    progress: bool = True,
    **changes: Any,
) -> list[dict[str, float]]:
    """Train a pair with AdamW on Lightning Fabric.

    Every random number of a step comes from the seed and the step's number, so a resumed run ends where an uninterrupted
    one would, and torch's global state is as it was afterwards. Values are checked once, before the first step. A new run
    starts the objective's schedule anew.

    Args:
        pair: the pair; it is trained in place, and ends on the device it was trained on, in evaluation mode.
        data: an ``infoplace.data.ImageData``, a tensor `[samples, *data_shape]` or a dict of tensors by source. It is
            moved to the device once.
        objective: what to minimise.
        settings: how long and how; ``changes`` are changes to it, as in ``fit(pair, data, steps=500)``.
        out: the run folder for the pair (with every checkpoint) and logs (``metrics.csv``, and TensorBoard's where it is
            installed).
        resume: go on from the checkpoint in ``out``, with the same partition, objective and settings; only ``steps`` may
            grow, which stretches the learning rate's schedule.
        device: ``"auto"`` (an accelerator if there is one), ``"cpu"`` or ``"cuda"``.
        processes: how many processes train together, each on ``batch_size`` samples of its own a step.
        progress: show a progress bar.

    Returns:
        The log: one dict for every ``log_every`` steps, with ``step``, ``loss`` and every named term per sample (nats),
        ``learning_rate`` and ``seconds``.

    Raises:
        DataError: data that do not fit the pair.
        DeclarationError: settings that cannot be.
        RunFolderError: a folder that holds a run already, or none to resume.
        TrainingError: the loss is no longer a number; the last checkpoint is kept.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> pair = make_pair(Partition({"z": Block(2)}, {"x": Observation()}), (1, 8, 8))
    >>> log = fit(pair, torch.zeros(16, 1, 8, 8), steps=2, batch_size=4, log_every=1, device="cpu", progress=False)
    >>> [row["step"] for row in log]
    [1, 2]
    """
    if not isinstance(pair, Pair):
        raise DeclarationError(
            f"fit trains an infoplace.Pair, as ip.make_pair(...) makes it; got {type(pair).__name__}"
        )
    settings = _changed(settings, changes)
    objective = make_objective(objective)
    folder = None if out is None else Path(out)
    if resume and folder is None:
        raise RunFolderError("resume=True goes on from a checkpoint; say where it is with out=...")
    with _one_run(folder, resume) if folder is not None else nullcontext():
        fabric = _fabric(device, processes, settings.precision)
        return _fit(pair, data, objective, settings, fabric, folder, resume, progress)


def _fit(
    pair: Pair,
    data: Any,
    objective: Objective,
    settings: Settings,
    fabric: Any,
    folder: Path | None,
    resume: bool,
    progress: bool,
) -> list[dict[str, float]]:
    rank, writes = fabric.global_rank, fabric.global_rank == 0
    batches = _Batches(data, pair.partition, settings, fabric.device, rank)
    pair.to(fabric.device)
    _check_batches(batches, pair)
    if settings.mixture_starts and not pair.guide.class_posteriors:
        raise DeclarationError(
            f"mixture_start={list(settings.mixture_starts)} starts the mixture of a block whose class is a latent variable, and "
            "there is none; leave it out, or declare prior={'mixture': {'components': 10, 'y': 'enumerate'}}"
        )
    for name in pair.guide.class_posteriors if settings.mixture_starts else ():
        check_start(pair, name, min(_FITTED, batches.count))
        if settings.mixture_fit in AGREEMENT_FITS and _agreement(objective, name) is None:
            raise DeclarationError(
                f"mixture_fit={settings.mixture_fit!r} fits the classes of {name!r} by the agreement on {class_name(name)!r}, "
                "and there is none in the objective; add one, or say mixture_fit='kmeans'"
            )
    length = max(part.schedule_steps for part in objective.parts)
    if length > settings.steps and writes:
        warnings.warn(
            f"the objective's warm-up takes {length} steps and the training {settings.steps}: it will end before the "
            "weights reach their final values; shorten the warm-up or train longer",
            stacklevel=3,
        )
    if settings.channels_last:
        pair.to(memory_format=torch.channels_last)
    step_module = _Step(pair, objective).to(fabric.device)
    optimiser = torch.optim.AdamW(
        step_module.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=fabric.device.type == "cuda",
    )
    run = _Run(folder, pair, step_module, optimiser, objective, settings)
    if resume:
        first = run.load()
    else:
        first = 0
        # The schedule of an objective that was used before starts anew.
        objective.load_state_dict({"steps_taken": [0] * len(objective.parts)})
    module, wrapped_optimiser = fabric.setup(step_module, optimiser)
    module.train()

    watched = _Clusters(pair, batches)
    done, loss = first, torch.zeros(())
    log = _Log(folder if writes else None, first)
    bar = _Bar(settings.steps, first, progress and writes)
    try:
        with seeded(0, fabric.device), bar, pyro.validation_enabled(False):
            for step in range(first, settings.steps):
                torch.manual_seed(_mixed("step", settings.seed, rank, step))
                rate = settings.learning_rate_at(step)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                if step in settings.mixture_starts:
                    _start_mixtures(pair, batches, objective, settings, fabric)
                observations = pair.partition.observe(batches[step])
                if settings.channels_last:
                    observations = {name: _by_pixel(value) for name, value in observations.items()}
                observed = _Observed(observations)
                wrapped_optimiser.zero_grad()
                loss, terms = module(observed, settings.batch_size)
                fabric.backward(loss)
                if settings.clip is not None:
                    fabric.clip_gradients(module, wrapped_optimiser, max_norm=settings.clip, error_if_nonfinite=False)
                wrapped_optimiser.step()

                done = step + 1
                if done % settings.log_every == 0 or done in (1, settings.steps):
                    row = {key: float(value) / settings.batch_size for key, value in terms.items()}
                    run.check(done, row["loss"])
                    row |= watched(pair)
                    bar.update(done, row)
                    if done != 1 or settings.log_every == 1:
                        log.add(done, row, rate)
                if writes and folder is not None and (done % settings.checkpoint_every == 0 or done == settings.steps):
                    # The loss above is of the weights before this step's update; the checkpoint holds those after it.
                    with torch.no_grad():
                        run.check(done, float(step_module(observed, settings.batch_size)[0]))
                    run.save(done)
    except KeyboardInterrupt:
        if writes and folder is not None and done > first and loss.isfinite():
            run.save(done)
        raise
    finally:
        log.close()
        pair.eval()
    return log.rows


class _Clusters:
    """How many classes are in use among the first samples, for the log."""

    def __init__(self, pair: Pair, batches: _Batches) -> None:
        self.batch: dict[str, Tensor] | None = None
        if any(make_prior(block.prior).draws_class for block in pair.partition.blocks.values()):
            self.batch = batches.take(torch.arange(min(_WATCHED, batches.count), device=batches.device))

    def __call__(self, pair: Pair) -> dict[str, float]:
        if self.batch is None:
            return {}
        return {f"clusters_used/{name}": float(used) for name, used in clusters_used(pair, self.batch).items()}


def _agreement(objective: Objective, block: str) -> Agreement | None:
    """The part of an objective that is about the class of a block."""
    parts = (part for part in objective.parts if isinstance(part, Agreement) and part.site == class_name(block))
    return next(parts, None)


def _start_mixtures(pair: Pair, batches: _Batches, objective: Objective, settings: Settings, fabric: Any) -> None:
    batch = batches.take(torch.arange(min(_FITTED, batches.count), device=batches.device))
    for name in pair.guide.class_posteriors:
        start_mixture(pair, batch, name, settings.mixture_fit, settings.seed, _agreement(objective, name))
        if fabric.world_size > 1:
            # Every process fitted the same, but the last digits may differ, and gradients alone are kept equal.
            with torch.no_grad():
                for part in (pair.model.priors[name], pair.guide.encoders[name]):
                    for parameter in part.parameters():
                        parameter.copy_(fabric.broadcast(parameter.detach().clone()))


def _by_pixel(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


# ---- the pieces of the loop ------------------------------------------------------------------------------------------


def _mixed(*parts: object) -> int:
    """A seed that is as good as independent for every combination of parts."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big")


def _changed(settings: Settings | None, changes: Mapping[str, Any]) -> Settings:
    settings = Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        raise DeclarationError(
            f"settings is an ip.Settings, or keywords: fit(pair, data, steps=500); got {type(settings).__name__}"
        )
    check_keys(changes, [field.name for field in dataclasses.fields(Settings)], "fit")
    return dataclasses.replace(settings, **changes)


def check_folder(folder: Path, resume: bool) -> None:
    """Check that a run may go to a folder. Raises RunFolderError."""
    held = (folder / CHECKPOINT).exists()
    if held and not resume:
        raise RunFolderError(f"{folder} holds a run already; go on with it (resume, --resume) or choose another folder")
    if resume and not held:
        raise RunFolderError(f"{folder} holds no {CHECKPOINT} to resume; leave resume out to start anew")


@contextmanager
def _one_run(folder: Path, resume: bool) -> Iterator[None]:
    """A folder for one run, and for no other meanwhile; what fails before the first checkpoint leaves it as it was."""
    if not is_main_process():
        check_folder(folder, resume)
        yield
        return
    existed = folder.exists()
    make_folder(folder)
    try:
        with locked(folder):
            before = {path.name for path in folder.iterdir()}
            try:
                check_folder(folder, resume)
                yield
            except BaseException:
                if not (folder / CHECKPOINT).exists():
                    # By name, never all that is new: somebody else may be writing into the folder too.
                    for name in sorted(set(WRITTEN) - before):
                        path = folder / name
                        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                raise
    except BaseException:
        if not existed:
            with suppress(OSError):  # it holds what somebody else wrote
                folder.rmdir()
        raise


def _fabric(device: str, processes: int, precision: str) -> Any:
    from lightning_fabric import Fabric

    resolved = resolve_device(device)
    if not is_whole(processes) or processes < 1:
        raise DeclarationError(f"processes must be a whole number of at least 1; got {processes!r}")
    devices = processes if resolved.index is None else [resolved.index]
    with warnings.catch_warnings():
        # Lightning warns that an accelerator is there and unused; here the processor was asked for.
        warnings.filterwarnings("ignore", message=".*available but not used.*")
        fabric = Fabric(accelerator=resolved.type, devices=devices, precision=precision)
    if processes > 1:
        fabric.launch()
    return fabric


def _check_batches(batches: _Batches, pair: Pair) -> None:
    """Check that the pair takes the batches, and every value of the data."""
    for start in range(0, batches.count, 4096):
        indices = torch.arange(start, min(start + 4096, batches.count), device=batches.device)
        batch = batches.take(indices)
        if start == 0:
            generator = torch.Generator().manual_seed(0)
            with pyro.validation_enabled(False):
                observations = pair.partition.observe({name: value[:2] for name, value in batch.items()}, generator)
            check_observations(pair.partition, pair.shapes, observations, pair)
        pair.partition.check(batch)


class _Log:
    """The rows of ``metrics.csv`` and of TensorBoard, and in memory."""

    def __init__(self, folder: Path | None, first: int) -> None:
        self.rows: list[dict[str, float]] = []
        self.started = time.perf_counter()
        self.before = 0.0
        self.file: TextIO | None = None
        self.board: Any = None
        if folder is None:
            return
        path = folder / METRICS
        if first:
            # Rows after the checkpoint belong to steps that are done again.
            self.rows = [row for row in _read_rows(path) if row["step"] <= first]
            self.before = self.rows[-1]["seconds"] if self.rows else 0.0
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            self._write(file, self.rows, header=True)
        self.file = path.open("a", newline="")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(folder / TENSORBOARD), purge_step=first + 1)

    def add(self, step: int, terms: Mapping[str, float], rate: float) -> None:
        seconds = self.before + time.perf_counter() - self.started
        row = {"step": step, **terms, "learning_rate": rate, "seconds": round(seconds, 2)}
        self.rows.append(row)
        if self.file is not None:
            try:
                self._write(self.file, [row], header=len(self.rows) == 1)
                self.file.flush()
            except OSError as error:
                raise RunFolderError(
                    f"cannot write {self.file.name}: {error.strerror or error}; free some space, then resume"
                ) from error
        if self.board is not None:
            for key, value in terms.items():
                self.board.add_scalar(key, value, step)

    @staticmethod
    def _write(file: TextIO, rows: list[dict[str, float]], header: bool) -> None:
        if not rows:
            return
        writer = csv.DictWriter(file, list(rows[0]))
        if header:
            writer.writeheader()
        for row in rows:
            writer.writerow({key: int(value) if key == "step" else f"{value:.6g}" for key, value in row.items()})

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()


def _read_rows(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        return [{**row, "step": int(row["step"])} for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); remove it to go on without the earlier rows") from error


class _Bar:
    """Progress with the named terms: a bar in a terminal, a line every tenth of the way elsewhere."""

    def __init__(self, steps: int, first: int, shown: bool) -> None:
        self.steps = steps
        self.first = first
        self.shown = shown
        self.progress: Any = None
        self.started = time.perf_counter()
        self.next_line = 0

    def __enter__(self) -> _Bar:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            console = Console()
            if console.is_terminal:
                columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
                self.progress = Progress(*columns, console=console)
                self.progress.start()
                self.task = self.progress.add_task("", total=self.steps, completed=self.first)
        return self

    def update(self, done: int, row: Mapping[str, float]) -> None:
        if not self.shown:
            return
        text = "  ".join(f"{key} {value:.1f}" for key, value in row.items())
        if self.progress is not None:
            self.progress.update(self.task, completed=done, description=text)
        elif done >= self.next_line or done == self.steps:
            print(f"step {done}/{self.steps}  {time.perf_counter() - self.started:.0f} s  {text}", flush=True)
            self.next_line = done + max(self.steps // 10, 1)

    def __exit__(self, *exception: object) -> None:
        if self.progress is not None:
            self.progress.stop()


class _Run:
    """A training's state, and the folder it is kept in."""

    def __init__(
        self,
        folder: Path | None,
        pair: Pair,
        module: _Step,
        optimiser: torch.optim.Optimizer,
        objective: Objective,
        settings: Settings,
    ) -> None:
        self.folder = folder
        self.pair = pair
        self.module = module
        self.optimiser = optimiser
        self.objective = objective
        self.settings = settings

    @property
    def checkpoint(self) -> Path:
        return Path(self.folder or ".") / CHECKPOINT

    def described(self) -> dict[str, Any]:
        """What a run must share with the one it resumes."""
        settings = dataclasses.asdict(self.settings)
        spec = None if self.objective.spec_name is None else self.objective.to_spec()
        return json.loads(json.dumps({"objective": spec, "partition": self.pair.partition.to_dict(), **settings}))

    def check(self, step: int, loss: float) -> None:
        """Raise TrainingError for a loss that is no number."""
        if math.isfinite(loss):
            return
        kept = ""
        if self.folder is not None and self.checkpoint.exists():
            kept = f" The last good checkpoint is kept in {self.checkpoint}."
        raise TrainingError(
            f"the loss is no longer a number at step {step} (learning rate {self.settings.learning_rate:g}); lower the "
            f"learning rate or clip the gradients (clip: 1000.0).{kept}"
        )

    def save(self, done: int) -> None:
        """Write the pair, and the checkpoint to go on from."""
        if self.folder is None:
            return
        tensors = {f"module.{name}": value for name, value in tensors_of(self.module).items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        described = {"step": done, "schedule": self.objective.state_dict(), "run": self.described()}
        self.pair.save(self.folder)
        write_tensors(self.checkpoint, tensors, json.dumps(described))

    def load(self) -> int:
        """Take up the checkpoint; returns the steps it has done. Nothing is changed when it does not fit."""
        path = self.checkpoint
        try:
            tensors, text = read_tensors(path)
            saved = json.loads(text)
            done, before = int(saved["step"]), dict(saved["run"])
        except (RunFolderError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path} is not a whole checkpoint ({error}); remove it to start anew") from error
        now = self.described()
        for key, value in now.items():
            if key in ("steps", "log_every", "checkpoint_every"):
                continue
            if before.get(key) != value:
                raise RunFolderError(
                    f"{path} was written with {key} {_short(before.get(key))}, and this run has {_short(value)}; resume "
                    "with the same, or start anew in another folder"
                )
        if done > self.settings.steps:
            raise RunFolderError(
                f"{path} has {done} steps behind it, and this run has {self.settings.steps}; resume with as many or more"
            )
        weights = {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
        load_tensors(self.module, weights, f"the weights in {path}")
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.objective.load_state_dict(saved["schedule"])
        return done


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


# ---- a whole run -----------------------------------------------------------------------------------------------------


def train(
    recipe: Recipe,
    data: Any,
    data_shape: Any,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    progress: bool = True,
) -> Pair:
    """Train a recipe into a run folder, which then holds everything needed to use the pair.

    The folder holds ``recipe.yaml`` (every default resolved), the pair as :meth:`~infoplace.Pair.save` writes it,
    ``metrics.csv``, TensorBoard's log, ``checkpoint.safetensors`` and ``run.json`` (versions, machine, time).

    Args:
        recipe: what to train.
        data: as :func:`fit` takes it.
        data_shape: as :func:`~infoplace.make_pair` takes it.
        out: the folder.
        resume: go on from the folder's checkpoint.
        device: as for :func:`fit`.
        processes: as for :func:`fit`.
        progress: show a progress bar.

    Returns:
        The trained pair, in evaluation mode.

    Raises:
        InfoplaceError: as :func:`fit` does.
    """
    folder = Path(out)
    with _one_run(folder, resume):
        pair = recipe.make_pair(data_shape)
        started = time.time()
        if is_main_process() and not resume:
            _write_recipe(recipe, folder)
        fabric = _fabric(device, processes, recipe.settings.precision)
        objective = make_objective(recipe.objective)
        log = _fit(pair, data, objective, recipe.settings, fabric, folder, resume, progress)
        if not is_main_process():
            return pair
        _write_recipe(recipe, folder)
        described = {
            "data": recipe.data,
            "steps": recipe.settings.steps,
            "seconds": log[-1]["seconds"] if log else 0.0,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(started)),
            "machine": machine(pair.device),
        }
        write_json(folder / "run.json", described)
    return pair


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    with replacing(folder / "recipe.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False, width=120), encoding="utf-8")


def is_main_process() -> bool:
    """Whether this is the process that writes, of those that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def machine(device: torch.device) -> dict[str, Any]:
    """What a result was computed on: the device, the cores and the versions."""
    import lightning_fabric

    from infoplace import __version__

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "lightning_fabric": lightning_fabric.__version__,
        "infoplace": __version__,
    }
