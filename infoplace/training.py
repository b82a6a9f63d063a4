"""Training a pair: a loop to read in one sitting, with its progress, logs, checkpoints and run folder.

Nothing here is needed to train a pair: its model and guide go into any Pyro or torch loop. :func:`fit` is the loop that
``infoplace train`` runs.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import platform
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pyro
import torch
import yaml
from torch import Tensor, nn

from infoplace.errors import (
    DataError,
    DeclarationError,
    InfoplaceError,
    RunFolderError,
    TrainingError,
    check_keys,
    join_names,
)
from infoplace.files import make_folder, read_tensors, replacing, write_tensors
from infoplace.objectives import Objective, make_objective
from infoplace.pair import Pair, check_observations, load_tensors, seeded, tensors_of
from infoplace.partition import Partition
from infoplace.recipe import Recipe, Settings

__all__ = ["Resident", "fit", "machine", "train"]

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.csv"

DEVICES = ("auto", "cpu", "cuda", "mps")


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
        self.seed = settings.seed + 1_000_003 * rank
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
            f"fit takes an infoplace.data.ImageData, a tensor [samples, ...] or a dict of them; got {type(data).__name__}"
        )

    def _indices(self, step: int) -> Tensor:
        picked: list[Tensor] = []
        position, wanted = step * self.size, self.size
        while wanted:
            epoch, offset = divmod(position, self.count)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed((self.seed * 7_919 + epoch) % 2**62)
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


class _Step(nn.Module):
    """One observation and its loss per sample, as the module that Fabric wraps."""

    def __init__(self, pair: Pair, objective: Objective) -> None:
        super().__init__()
        self.loss = objective(pair.model, pair.guide)

    def forward(self, observations: dict[str, Tensor], samples: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = self.loss.evaluate(observations)
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
    one would, and torch's global state is as it was afterwards. Values are checked once, before the first step.

    Args:
        pair: the pair; it is trained in place and ends on the CPU's or accelerator's side it was trained on.
        data: an ``infoplace.data.ImageData``, a tensor `[samples, *data_shape]` or a dict of tensors by source. It is
            moved to the device once.
        objective: what to minimise.
        settings: how long and how; ``changes`` are changes to it, as in ``fit(pair, data, steps=500)``.
        out: the run folder for checkpoints and logs (``metrics.csv``, and TensorBoard's where it is installed).
        resume: go on from the checkpoint in ``out``.
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
    settings = _changed(settings or Settings(), changes)
    objective = make_objective(objective)
    fabric = _fabric(device, processes, settings.precision)
    rank = fabric.global_rank
    folder = None if out is None else make_folder(out)
    checkpoint_file = None if folder is None else folder / CHECKPOINT
    _check_folder(folder, resume)

    batches = _Batches(data, pair.partition, settings, fabric.device, rank)
    pair.to(fabric.device)
    _check_batches(batches, pair)
    length = max(part.schedule_steps for part in objective.parts)
    if length > settings.steps and rank == 0:
        warnings.warn(
            f"the objective's warm-up takes {length} steps and the training {settings.steps}: it will end before the "
            "weights reach their final values; shorten the warm-up or train longer",
            stacklevel=2,
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
    first = 0
    if resume:
        if checkpoint_file is None:
            raise RunFolderError("resume=True goes on from a checkpoint; say where it is with out=...")
        first = _load_checkpoint(checkpoint_file, step_module, optimiser, objective, settings)
    module, optimiser_ = fabric.setup(step_module, optimiser)
    module.train()

    done, loss = first, torch.zeros(())
    log = _Log(folder if rank == 0 else None, first)
    bar = _Bar(settings.steps, first, progress and rank == 0)
    try:
        with seeded(0, fabric.device), bar, pyro.validation_enabled(False):
            for step in range(first, settings.steps):
                torch.manual_seed((settings.seed * 1_000_003 + rank * 7_919 + step) % 2**62)
                rate = settings.learning_rate_at(step)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                observations = pair.partition.observe(batches[step])
                if settings.channels_last:
                    observations = {k: _by_pixel(v) for k, v in observations.items()}
                optimiser_.zero_grad()
                loss, terms = module(observations, settings.batch_size)
                fabric.backward(loss)
                if settings.clip is not None:
                    fabric.clip_gradients(module, optimiser_, max_norm=settings.clip, error_if_nonfinite=False)
                optimiser_.step()

                done = step + 1
                if done % settings.log_every == 0 or done in (1, settings.steps):
                    row = {key: float(value) / settings.batch_size for key, value in terms.items()}
                    if not math.isfinite(row["loss"]):
                        raise TrainingError(_diverged(done, settings, checkpoint_file))
                    bar.update(done, row)
                    if done != 1 or settings.log_every == 1:
                        log.add(done, row, rate)
                if checkpoint_file is not None and (done % settings.checkpoint_every == 0 or done == settings.steps):
                    if not loss.isfinite():
                        raise TrainingError(_diverged(done, settings, checkpoint_file))
                    if rank == 0:
                        _save_checkpoint(checkpoint_file, step_module, optimiser, objective, settings, done)
    except KeyboardInterrupt:
        if checkpoint_file is not None and rank == 0 and loss.isfinite():
            _save_checkpoint(checkpoint_file, step_module, optimiser, objective, settings, done)
        raise
    finally:
        log.close()
    pair.eval()
    return log.rows


def _by_pixel(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


# ---- the pieces of the loop ------------------------------------------------------------------------------------------


def _changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    check_keys(changes, [field.name for field in dataclasses.fields(Settings)], "fit")
    return dataclasses.replace(settings, **changes)


def _check_folder(folder: Path | None, resume: bool) -> None:
    if folder is None:
        return
    held = (folder / CHECKPOINT).exists()
    if held and not resume:
        raise RunFolderError(f"{folder} holds a run already; go on with it (resume, --resume) or choose another folder")
    if resume and not held:
        raise RunFolderError(f"{folder} holds no {CHECKPOINT} to resume; leave resume out to start anew")


def _fabric(device: str, processes: int, precision: str) -> Any:
    from lightning_fabric import Fabric

    if device not in DEVICES:
        raise DeclarationError(f"device must be one of {join_names(DEVICES)}; got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeclarationError("device='cuda', and torch finds no CUDA device here; use device='cpu' or 'auto'")
    if device == "mps" and not torch.backends.mps.is_available():
        raise DeclarationError("device='mps', and torch finds none here; use device='cpu' or 'auto'")
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise DeclarationError(f"processes must be a whole number of at least 1; got {processes!r}")
    if device == "cpu":
        # Lightning warns that an accelerator is there and unused; here it was asked for.
        fabric = _quiet(lambda: Fabric(accelerator="cpu", devices=processes, precision=precision))
    else:
        fabric = Fabric(accelerator=device, devices=processes, precision=precision)
    if processes > 1:
        fabric.launch()
    return fabric


def _quiet(call: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def _check_batches(batches: _Batches, pair: Pair) -> None:
    """Check that the pair takes the batches, and the values of the first few thousand samples."""
    for start in range(0, min(batches.count, 4096), 1024):
        indices = torch.arange(start, min(start + 1024, batches.count), device=batches.device)
        batch = batches.take(indices)
        pair.partition.check(batch)
        if start == 0:
            generator = torch.Generator().manual_seed(0)
            observations = pair.partition.observe({name: value[:2] for name, value in batch.items()}, generator)
            check_observations(pair.partition, pair.shapes, observations, pair)


def _diverged(step: int, settings: Settings, checkpoint: Path | None) -> str:
    kept = ""
    if checkpoint is not None and checkpoint.exists():
        kept = f" The last good checkpoint is kept in {checkpoint}."
    return (
        f"the loss is no longer a number at step {step} (learning rate {settings.learning_rate:g}); lower the learning "
        f"rate or clip the gradients (clip: 1000.0).{kept}"
    )


class _Log:
    """The rows of ``metrics.csv`` and of TensorBoard, and in memory."""

    def __init__(self, folder: Path | None, first: int) -> None:
        self.rows: list[dict[str, float]] = []
        self.started = time.perf_counter()
        self.before = 0.0
        self.file = None
        self.board = None
        if folder is None:
            return
        path = folder / METRICS
        if first and path.exists():
            with path.open(newline="") as file:
                read = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
            # Rows after the checkpoint belong to steps that are done again.
            self.rows = [row for row in read if row["step"] <= first]
            self.before = self.rows[-1]["seconds"] if self.rows else 0.0
        try:
            self.file = path.open("w", newline="")
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error
        self.writer: csv.DictWriter[str] | None = None
        for row in self.rows:
            self._write(row)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def add(self, step: int, terms: Mapping[str, float], rate: float) -> None:
        seconds = self.before + time.perf_counter() - self.started
        row = {"step": step, **terms, "learning_rate": rate, "seconds": round(seconds, 2)}
        self.rows.append(row)
        self._write(row)
        if self.board is not None:
            for key, value in terms.items():
                self.board.add_scalar(key, value, step)

    def _write(self, row: Mapping[str, float]) -> None:
        if self.file is None:
            return
        try:
            if self.writer is None:
                self.writer = csv.DictWriter(self.file, list(row))
                self.writer.writeheader()
            self.writer.writerow({key: f"{value:.6g}" if key != "step" else int(value) for key, value in row.items()})
            self.file.flush()
        except OSError as error:
            raise RunFolderError(f"cannot write {self.file.name}: {error.strerror or error}") from error

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()


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


def _save_checkpoint(
    path: Path, module: _Step, optimiser: torch.optim.Optimizer, objective: Objective, settings: Settings, done: int
) -> None:
    tensors = {f"module.{name}": value for name, value in tensors_of(module).items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    described = {"step": done, "objective": objective.state_dict(), "settings": dataclasses.asdict(settings)}
    write_tensors(path, tensors, json.dumps(described))


def _load_checkpoint(
    path: Path, module: _Step, optimiser: torch.optim.Optimizer, objective: Objective, settings: Settings
) -> int:
    try:
        tensors, text = read_tensors(path)
        described = json.loads(text)
    except (RunFolderError, ValueError) as error:
        raise RunFolderError(f"{path} is not a whole checkpoint ({error}); remove it to start anew") from error
    for key in ("seed", "batch_size"):
        before, now = described["settings"][key], getattr(settings, key)
        if before != now:
            raise RunFolderError(
                f"{path} was written with {key} {before}, and this run has {now}; resume with the same"
            )
    saved = {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
    load_tensors(module, saved, f"the weights in {path}")
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    objective.load_state_dict(described["objective"])
    return int(described["step"])


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
    pair = recipe.make_pair(data_shape)
    existed = Path(out).exists()
    folder = make_folder(out)
    _check_folder(folder, resume)
    started = time.time()
    try:
        if is_main_process():
            with replacing(folder / "recipe.yaml") as temporary:
                temporary.write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False, width=120), encoding="utf-8")
        log = fit(
            pair, data, recipe.objective, recipe.settings,
            out=folder, resume=resume, device=device, processes=processes, progress=progress,
        )  # fmt: skip
    except InfoplaceError:
        # A run that never took a step leaves nothing behind.
        if not (folder / CHECKPOINT).exists():
            for name in ("recipe.yaml", METRICS):
                (folder / name).unlink(missing_ok=True)
            if not existed and not any(folder.iterdir()):
                folder.rmdir()
        raise
    if not is_main_process():
        return pair
    pair.save(folder)
    described = {
        "data": recipe.data,
        "steps": recipe.settings.steps,
        "seconds": log[-1]["seconds"],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(started)),
        "device": str(pair.device),
        "machine": machine(),
    }
    with replacing(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return pair


def is_main_process() -> bool:
    """Whether this is the process that writes, of those that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def machine() -> dict[str, Any]:
    """What a result was computed on: the device, the cores and the versions."""
    import lightning_fabric

    from infoplace import __version__

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "lightning_fabric": lightning_fabric.__version__,
        "infoplace": __version__,
    }
