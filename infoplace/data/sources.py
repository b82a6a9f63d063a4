"""One call for every source of images: the rendered street numbers, torchvision's sets, and files of your own."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infoplace.data.formats import (
    IMAGE_SUFFIXES,
    Decoding,
    Part,
    open_folder,
    open_mat,
    open_npz,
    open_parquet,
    part_of_arrays,
)
from infoplace.data.images import ImageData
from infoplace.data.rendering import SIZES, street_numbers
from infoplace.errors import DataError, UnknownNameError, did_you_mean, is_whole, join_names

__all__ = ["DATA_SETS", "load"]

#: The sets that have a name; anything else is a path.
DATA_SETS = ("street_numbers", "street_numbers/easy", "street_numbers/full", "svhn", "cifar10", "mnist")

_TORCHVISION = {"svhn": ("train", "extra", "test"), "cifar10": ("train", "test"), "mnist": ("train", "test")}
_SPLIT_WORDS = {"train": "train", "training": "train", "extra": "extra", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val"), "validation"
)
_FILE_SUFFIXES = (".parquet", ".mat", ".npz")


@dataclasses.dataclass(frozen=True)
class _Options:
    limit: int | None = None
    holdout: float | None = None
    resize: int | tuple[int, int] | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise DataError(f"load: holdout must be a share between 0 and 1, such as 0.1; got {self.holdout!r}.")
        if self.channels not in (None, 1, 3):
            raise DataError(f"load: channels must be 1 (grey) or 3 (colour); got {self.channels!r}.")
        if self.resize is not None:
            size = (self.resize, self.resize) if isinstance(self.resize, int) else tuple(self.resize)
            if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
                raise DataError(
                    f"load: resize must be a side in pixels or a pair (height, width); got {self.resize!r}."
                )
            object.__setattr__(self, "resize", size)

    @property
    def decoding(self) -> Decoding:
        resize = self.resize
        return Decoding(resize if isinstance(resize, tuple) else None, self.channels)


def load(
    spec: str | os.PathLike[str],
    split: str = "train",
    download: bool = False,
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> ImageData:
    """Images from a named set or a path, read into memory as bytes.

    Named sets: ``"street_numbers/easy"`` and ``"street_numbers/full"`` are drawn
    (:func:`~infoplace.data.street_numbers`; ``"street_numbers"`` alone is the full one); ``"svhn"``, ``"cifar10"`` and
    ``"mnist"`` are read from ``root``: Parquet files in a folder of that name, otherwise torchvision's files.

    Paths: a ``.parquet``, ``.mat`` (SVHN's cropped digits) or ``.npz`` file; a folder of such files; a folder of
    images, or of one sub-folder a class. The split of a file or sub-folder is the word its name begins with (``train``,
    ``validation``, ``test``, ``extra``, as in ``test-00000-of-00001.parquet``); without such a word it is ``train``.

    Args:
        spec: the name or the path. A ``pathlib.Path`` is always a path, whatever its name.
        split: a split of the set, or several joined by ``+``, such as ``"train+extra"``.
        download: whether torchvision may fetch a set that is missing. Nothing is fetched without it.
        root: the folder of the named sets; the environment variable ``INFOPLACE_DATA`` if not given, and without that
            ``~/.cache/infoplace``.
        options: ``limit``, at most so many images, evenly spaced over the split (for street numbers the first ones).
            For street numbers ``size`` and ``seed``. For the other sets ``holdout``, the share of ``train`` that becomes
            ``validation`` where the set has none of its own, such as 0.1: chosen at random, always the same ones, and
            left out of ``train`` by the same option; without it ``train`` is whole and there is no ``validation``. For
            encoded images (Parquet and folders) ``resize``, a side or `(height, width)` in pixels to which they are
            cropped about the centre and resized, and ``channels``, 1 for grey or 3 for colour.

    Returns:
        The images; known factors under the names they have in the source, classes as ``"label"``.

    Raises:
        UnknownNameError: if there is no set or split of that name.
        DataError: if files are missing, unreadable, empty or of several sizes, or an option does not fit.

    Example:
        >>> load("street_numbers/easy", "test", size=3).shape
        (3, 32, 32)
        >>> load("street_number/easy")
        Traceback (most recent call last):
            ...
        infoplace.errors.DataError: street_number/easy: no such file or folder. Did you mean 'street_numbers/easy'?
    """
    name = os.fspath(spec)
    may_be_name = isinstance(spec, str)
    if may_be_name and (name == "street_numbers" or name.startswith("street_numbers/")):
        return _load_street_numbers(name, split, options)
    allowed = [field.name for field in dataclasses.fields(_Options)]
    _check_options(name, options, allowed)
    settings = _Options(**options)
    limit = _checked_limit(name, settings.limit)
    if may_be_name and name in _TORCHVISION:
        openers = _named_splits(name, download, root, settings)
    else:
        openers = _path_splits(name, settings)
    parts = [_open_split(name, each, openers, settings) for each in split.split("+")]

    total = sum(len(indices) for _, indices in parts)
    if total == 0:
        raise DataError(f"{name}: the {split!r} split holds no images.")
    kept = torch.arange(total) if limit is None or limit >= total else torch.arange(limit) * total // limit
    pieces: list[tuple[Tensor, dict[str, Tensor]]] = []
    start = 0
    for part, indices in parts:
        inside = kept[(kept >= start) & (kept < start + len(indices))] - start
        start += len(indices)
        if len(inside) > 0:
            pieces.append(part.read(indices[inside]))
    return _join(pieces, _title(name), split)


def _load_street_numbers(name: str, split: str, options: Mapping[str, Any]) -> ImageData:
    _check_options(name, options, ["limit", "size", "seed"])
    preset = name.partition("/")[2] or "full"
    size, limit = options.get("size"), _checked_limit(name, options.get("limit"))
    if limit is not None and split in SIZES:
        size = min(limit, SIZES[split] if size is None else size)
    return street_numbers(split, size=size, preset=preset, seed=options.get("seed", 0))


def _check_options(name: str, options: Mapping[str, Any], allowed: list[str]) -> None:
    for option in options:
        if option not in allowed:
            raise DataError(
                f"{name}: no option {option!r}.{did_you_mean(option, allowed)} This set takes {join_names(allowed)}."
            )


def _checked_limit(name: str, limit: object) -> int | None:
    if limit is None or (is_whole(limit) and limit > 0):
        return limit
    raise DataError(f"{name}: limit must be a positive number of images; got {limit!r}.")


_Openers = dict[str, Callable[[], Part]]


def _open_split(name: str, split: str, openers: _Openers, settings: _Options) -> tuple[Part, Tensor]:
    """One split, and the ascending indices of its images that are asked for."""
    has_validation = "validation" in openers
    if settings.holdout is not None and has_validation:
        raise DataError(f"{name}: this set has a validation split of its own; leave holdout out.")
    can_hold_out = "train" in openers and not has_validation
    if split == "validation" and can_hold_out and settings.holdout is None:
        raise DataError(
            f"{name}: this set has no validation split; give holdout=0.1 to both load(..., 'train', holdout=0.1) and "
            "load(..., 'validation', holdout=0.1) to keep a tenth of the training images for it."
        )
    if settings.holdout is not None and can_hold_out and split in ("train", "validation"):
        part = openers["train"]()
        held_out = round(part.count * settings.holdout)
        if not 0 < held_out < part.count:
            raise DataError(
                f"{name}: holdout={settings.holdout:g} of {part.count} images leaves none for one of 'train' and "
                "'validation'."
            )
        order = torch.randperm(part.count, generator=torch.Generator().manual_seed(0))
        chosen = order[-held_out:] if split == "validation" else order[:-held_out]
        return part, chosen.sort().values
    if split not in openers:
        raise UnknownNameError(f"{name}: no split {split!r}. Available: {join_names(openers)}.")
    part = openers[split]()
    return part, torch.arange(part.count)


def _named_splits(name: str, download: bool, root: str | os.PathLike[str] | None, settings: _Options) -> _Openers:
    folder = Path(root if root is not None else os.environ.get("INFOPLACE_DATA", "~/.cache/infoplace")).expanduser()
    files = _files_by_split(folder / name, ".parquet")
    if files:
        return _file_openers(files, settings)
    _refuse_decoding(name, settings)

    def opener(split: str) -> Callable[[], Part]:
        return lambda: _torchvision_part(name, split, download, folder)

    return {split: opener(split) for split in _TORCHVISION[name]}


def _torchvision_part(name: str, split: str, download: bool, folder: Path) -> Part:
    from torchvision import datasets

    if download:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        if name == "svhn":
            svhn = datasets.SVHN(str(folder), split=split, download=download)
            return part_of_arrays(svhn.data, {"label": np.asarray(svhn.labels)}, folder)
        kind = datasets.CIFAR10 if name == "cifar10" else datasets.MNIST
        read = kind(str(folder), train=split == "train", download=download)
    except ImportError as error:
        raise DataError(f"{name}: reading its .mat files needs scipy; type: pip install 'infoplace[svhn]'") from error
    # torchvision raises RuntimeError for missing and damaged files, and whatever urllib raises when it downloads.
    except (OSError, RuntimeError) as error:
        if download:
            raise DataError(
                f"{name}: the download to {folder} failed ({error}). Try again with a network connection, put "
                f"torchvision's files or Parquet files ({folder / name}/train-*.parquet) there by hand, or use "
                "'street_numbers', which needs none."
            ) from error
        raise DataError(
            f"{name}: torchvision's files of the {split!r} split are not in {folder}, or damaged, and there is no "
            f"Parquet in {folder / name}. Type load({name!r}, {split!r}, download=True) to fetch them (on a command line "
            "--download), or root=... to read them from elsewhere."
        ) from error
    images = np.asarray(read.data)
    images = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images[:, None]
    return part_of_arrays(images, {"label": np.asarray(read.targets)}, folder)


def _path_splits(name: str, settings: _Options) -> _Openers:
    path = Path(name).expanduser()
    if not path.exists():
        if len(path.parts) == 1 and not path.suffix:
            raise UnknownNameError(
                f"load: no data set, file or folder {name!r}.{did_you_mean(name, DATA_SETS)} "
                f"Data sets: {join_names(DATA_SETS)}; anything else is a path."
            )
        raise DataError(f"{name}: no such file or folder.{did_you_mean(name, DATA_SETS)}")
    if path.is_file():
        if path.suffix.lower() not in _FILE_SUFFIXES:
            advice = " Give the folder that the image is in." if path.suffix.lower() in IMAGE_SUFFIXES else ""
            raise DataError(
                f"{name}: files ending in {', '.join(_FILE_SUFFIXES)} and folders of images can be read.{advice}"
            )
        return _file_openers({_split_of(path) or "train": [path]}, settings)
    for suffix in _FILE_SUFFIXES:
        # The hubs keep Parquet files in a folder `data` of the repository.
        files = _files_by_split(path, suffix) or _files_by_split(path / "data", suffix)
        if files:
            return _file_openers(files, settings)
    splits = {_split_of(sub): sub for sub in sorted(path.iterdir()) if sub.is_dir()}
    folders = {split: sub for split, sub in splits.items() if split is not None} or {"train": path}

    def opener(folder: Path) -> Callable[[], Part]:
        return lambda: open_folder(folder, settings.decoding)

    return {split: opener(folder) for split, folder in folders.items()}


def _files_by_split(folder: Path, suffix: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []:
        found.setdefault(_split_of(path) or "train", []).append(path)
    return found


def _file_openers(files: dict[str, list[Path]], settings: _Options) -> _Openers:
    def opener(paths: list[Path]) -> Callable[[], Part]:
        suffix = paths[0].suffix.lower()
        if suffix == ".parquet":
            return lambda: open_parquet(paths, settings.decoding)
        _refuse_decoding(str(paths[0]), settings)
        if len(paths) > 1:
            raise DataError(
                f"{paths[0].parent}: several {suffix} files make one split ({join_names(path.name for path in paths)}); "
                "name one of them."
            )
        return lambda: (open_mat if suffix == ".mat" else open_npz)(paths[0])

    return {split: opener(paths) for split, paths in files.items()}


def _refuse_decoding(name: str, settings: _Options) -> None:
    if settings.resize is not None or settings.channels is not None:
        raise DataError(f"{name}: resize and channels are for Parquet and image folders; these images are arrays.")


def _split_of(path: Path) -> str | None:
    """The split that a file's or folder's name begins with.

    >>> _split_of(Path("test_32x32.mat")), _split_of(Path("val")), _split_of(Path("trains.npz"))
    ('test', 'validation', None)
    """
    match = re.match(r"([a-z]+)(?![a-z0-9])", path.name.lower())
    return _SPLIT_WORDS.get(match[1]) if match else None


def _title(name: str) -> str:
    return name if name in DATA_SETS else Path(name).name or name


def _join(pieces: list[tuple[Tensor, dict[str, Tensor]]], name: str, split: str) -> ImageData:
    first_images, first_factors = pieces[0]
    for images, factors in pieces[1:]:
        if images.shape[1:] != first_images.shape[1:] or factors.keys() != first_factors.keys():
            raise DataError(
                f"{name}: the splits of {split!r} do not fit together: shapes {list(first_images.shape[1:])} and "
                f"{list(images.shape[1:])}, factors {join_names(first_factors)} and {join_names(factors)}."
            )
    factors = {key: torch.cat([piece[key] for _, piece in pieces]) for key in first_factors}
    return ImageData(torch.cat([images for images, _ in pieces]), factors, name=name, split=split)
