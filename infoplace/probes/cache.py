"""Predictors that are trained once: :func:`predictor_for` keeps what it trained in a folder, and finds it there again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from infoplace.errors import DataError, RunFolderError, UnknownNameError, did_you_mean, join_names
from infoplace.files import make_folder
from infoplace.probes.images import (
    CLASSIFIER_STEPS,
    REGRESSOR_STEPS,
    TRAINING_VERSION,
    Classifier,
    Progress,
    Regressor,
    augmentations,
    check_network,
    check_training,
    check_values,
    load_predictor,
    train_classifier,
    train_regressor,
)

__all__ = ["LabelledImages", "cache_folder", "predictor_for"]


class LabelledImages(Protocol):
    """What :func:`predictor_for` reads of its data; :class:`infoplace.data.ImageData` has it."""

    @property
    def images(self) -> Tensor:
        """``[N, channels, height, width]``, uint8 or float in [0, 1]."""

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """Name -> whole numbers ``[N]``, or floats ``[N]`` or ``[N, channels]``."""

    @property
    def name(self) -> str:
        """What the set is called in errors."""

    @property
    def split(self) -> str:
        """Which part of the set this is; several joined by ``+``."""


def cache_folder() -> Path:
    """Where predictors are kept unless a call says otherwise.

    The environment variable ``INFOPLACE_CACHE``; without it ``infoplace`` in ``XDG_CACHE_HOME``, and without that
    ``~/.cache/infoplace``.
    """
    if own := os.environ.get("INFOPLACE_CACHE"):
        return Path(own).expanduser()
    platform = os.environ.get("XDG_CACHE_HOME")
    return (Path(platform) if platform else Path("~/.cache").expanduser()) / "infoplace"


def predictor_for(
    data: LabelledImages,
    factor: str,
    *,
    cache: str | os.PathLike[str] | bool | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch_size: int = 128,
    network: str = "small",
    widths: Iterable[int] | None = None,
    augment: bool | str | Iterable[str] | None = None,
    progress: Progress | None = None,
) -> Classifier | Regressor:
    """The predictor of one factor: read from the cache, or trained and kept there.

    Whole numbers make a :class:`Classifier`, which gives back the factor's own labels whatever they are (a street
    number's ``left`` runs from -1 to 9); floats make a :class:`Regressor`.

    A cached predictor is one of the very same images and factor, of the same settings and of this version of the
    training, on whichever device it was trained. One whose files are damaged is trained anew and replaced; processes
    that train the same one at a time each leave whole files.

    Args:
        data: real training images and their factors, such as :func:`infoplace.data.load` gives. Images are
            ``[N, channels, height, width]``, uint8 or float in [0, 1].
        factor: which factor to read.
        cache: the folder to keep predictors in, in its sub-folder ``predictors``; None or True for
            :func:`cache_folder`, False to train without one.
        steps: updates; None for 1000 (a classifier) or 400 (a regressor).
        seed: of the training.
        device: where to train, and where the predictor is returned.
        batch_size: images a step.
        network: ``"small"`` or ``"residual"``; see :func:`train_classifier`.
        widths: channels of the network's layers; None for its own.
        augment: as for :func:`train_classifier`; None for its default of the kind: blur, brightness and noise for a
            classifier, none for a regressor.
        progress: called as ``progress(step, steps, loss)`` every 10 steps and after the last; not at all for a
            predictor that is found.

    Raises:
        DataError: test images, which nothing may be trained on that measures on them; a factor of the wrong length,
            rank or type, that is constant, or that has as many classes as there are images; images of another type or
            range.
        UnknownNameError: a factor that the data do not have.
        DeclarationError: a setting that cannot mean anything.
        RunFolderError: the cache cannot be written.

    >>> import tempfile, types
    >>> images = torch.zeros(64, 1, 8, 8)
    >>> images[32:] = 1.0
    >>> data = types.SimpleNamespace(
    ...     images=images, factors={"side": torch.arange(64) // 32 * 2 - 1}, name="halves", split="train"
    ... )
    >>> predictor_for(data, "side", steps=30, cache=tempfile.mkdtemp()).predict(images[[0, 63]])
    tensor([-1,  1])
    """
    shape = check_training(data.images, 1 if steps is None else steps, batch_size)
    values = _factor(data, factor)
    if steps is None:
        steps = REGRESSOR_STEPS if values.is_floating_point() else CLASSIFIER_STEPS
    labels, targets = (None, values) if values.is_floating_point() else values.long().unique(return_inverse=True)
    kind = "regressor" if labels is None else "classifier"
    settings: dict[str, Any] = {
        "steps": steps,
        "seed": seed,
        "batch_size": batch_size,
        "network": network,
        "widths": check_network(kind, network, widths, shape),
        "augment": augmentations(labels is not None if augment is None else augment),
    }
    folder = None
    if cache is not False:
        root = cache_folder() if cache is None or cache is True else Path(cache)
        folder = root / "predictors" / _fingerprint(data.images, values, {"version": TRAINING_VERSION, **settings})
        try:
            return load_predictor(folder, device)
        except RunFolderError:  # it was never trained, or its files are damaged
            pass
        try:
            # Now, and not when the minutes of training are spent.
            make_folder(folder)
        except RunFolderError as error:
            raise RunFolderError(f"{error}; give cache=, set INFOPLACE_CACHE, or train with cache=False") from error
    predictor: Classifier | Regressor
    if labels is None:
        predictor = train_regressor(data.images, targets, device=device, progress=progress, **settings)
    else:
        predictor = train_classifier(
            data.images, targets, classes=len(labels), device=device, progress=progress, **settings
        )
        predictor.labels.copy_(labels)
    if folder is not None:
        predictor.save(folder)
    return predictor


def _factor(data: LabelledImages, factor: str) -> Tensor:
    """The factor's values, when a predictor of it can be trained on these data."""
    if "test" in data.split.lower().split("+"):
        raise DataError(
            f"{data.name}: a predictor must not be trained on the {data.split!r} split, because what it says of test "
            "images would be worth nothing; give the training images, such as load(..., 'train')"
        )
    if factor not in data.factors:
        raise UnknownNameError(
            f"{data.name} has no factor {factor!r}.{did_you_mean(factor, data.factors)} "
            f"Available: {join_names(data.factors)}"
        )
    values, count = data.factors[factor], len(data.images)
    where = f"factor {factor!r} of {data.name}"
    if not isinstance(values, Tensor):
        raise DataError(f"{where} must be a tensor; got a {type(values).__name__}; use torch.as_tensor")
    if values.ndim not in ((1, 2) if values.is_floating_point() else (1,)) or len(values) != count:
        shapes = f"[{count}] or [{count}, channels]" if values.is_floating_point() else f"[{count}]"
        raise DataError(f"{where} must be {shapes}, one entry for each image; got {list(values.shape)}")
    if values.is_floating_point():
        check_values(values, data.images)
    constant = (values == values[0]).reshape(count, -1).all(0)
    if constant.any():
        channel = f" in channel {int(constant.int().argmax())}" if values.ndim == 2 else ""
        raise DataError(
            f"{where} is the same in all {count} images{channel}; there is nothing to predict, leave it out"
        )
    if not values.is_floating_point() and len(classes := values.unique()) == count:
        raise DataError(
            f"{where} has {len(classes)} classes in {count} images; a classifier needs more images than classes, and "
            "values that are measured, not named, must be floats"
        )
    return values


def _fingerprint(images: Tensor, values: Tensor, settings: Mapping[str, object]) -> str:
    """A name for the predictor of these tensors and settings; another byte anywhere gives another name."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (images, values):
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
