"""Readers of image files: hub-style Parquet, the SVHN authors' ``.mat``, ``.npz`` archives and folders of images.

Each reader opens one split and gives a :class:`Part`: how many images it has, and how to read some of them. Only the
images asked for are decoded.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from infoplace.errors import DataError, join_names

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "Decoding",
    "Part",
    "open_folder",
    "open_mat",
    "open_npz",
    "open_parquet",
    "part_of_arrays",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# Pillow's modes whose values are 8 bits a channel, and what they are read as.
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_COLOUR_MODES = frozenset({"CMYK", "HSV", "LAB", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr"})


@dataclasses.dataclass(frozen=True)
class Part:
    """One split, open for reading.

    Args:
        count: number of images.
        read: ascending indices `[n]` -> the images, uint8 `[n, channels, height, width]`, and their factors.
    """

    count: int
    read: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How encoded images become arrays.

    Args:
        resize: `(height, width)` to crop about the centre and resize to; as they are if not given.
        channels: 1 for grey, 3 for colour; what the files say if not given.
    """

    resize: tuple[int, int] | None = None
    channels: int | None = None

    def decode_all(self, encoded: Iterable[tuple[str, BinaryIO | Path]], source: str) -> Tensor:
        """Encoded images, each with words for where it is, -> uint8 `[n, channels, height, width]`."""
        images: list[np.ndarray] = []
        first = ""
        for where, file in encoded:
            image = self._decode(file, where)
            if images and image.shape != images[0].shape:
                advice = "give resize=side or resize=(height, width)"
                if image.shape[1:] == images[0].shape[1:]:
                    advice = "give channels=1 or channels=3"
                raise DataError(
                    f"{source}: the images must share one size; {where} is {_size(image)} while {first} is "
                    f"{_size(images[0])}. Take it out, or {advice}."
                )
            first = first or where
            images.append(image)
        return torch.from_numpy(np.stack(images))

    def _decode(self, file: BinaryIO | Path, where: str) -> np.ndarray:
        from PIL import Image, ImageOps

        try:
            with Image.open(file) as opened:
                image: Image.Image = opened.convert(self._mode(opened.mode, where))
        except DataError:
            raise
        # Pillow answers a broken file with any of these, and a very large one with its own DecompressionBombError.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{where}: this is not an image that can be read ({error}).") from error
        if self.resize is not None:
            height, width = self.resize
            image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
        array = np.array(image)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def _mode(self, mode: str, where: str) -> str:
        if mode not in _GREY_MODES | _COLOUR_MODES:
            raise DataError(
                f"{where}: images of 8 bits a channel are expected; this one has Pillow's mode {mode!r}. "
                "Convert it to 8 bits first."
            )
        channels = self.channels or (1 if mode in _GREY_MODES else 3)
        return "L" if channels == 1 else "RGB"


def open_parquet(files: Sequence[Path], decoding: Decoding) -> Part:
    """The files of one split of a hub-style Parquet set, in the order given.

    The column ``image`` (or ``img``) holds `{bytes, path}` or bytes; every other column of numbers becomes a factor.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("Reading Parquet needs pyarrow; type: pip install 'infoplace[parquet]'") from error

    counts: list[int] = []
    for file in files:
        try:
            counts.append(pq.read_metadata(file).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: this is not a Parquet file that can be read ({_one_line(error)}).") from error
    schema = pq.read_schema(files[0])
    image_column = next((name for name in ("image", "img") if name in schema.names), None)
    if image_column is None:
        raise DataError(
            f"{files[0]}: a column 'image' or 'img' with encoded images is expected; the columns are "
            f"{join_names(schema.names)}."
        )
    numbers = [
        field.name
        for field in schema
        if field.name != image_column
        and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_boolean(field.type))
    ]

    def read(indices: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        values: dict[str, list[Any]] = {name: [] for name in numbers}

        def encoded() -> Iterable[tuple[str, BinaryIO | Path]]:
            start = 0
            for file, count in zip(files, counts, strict=True):
                rows = indices[(indices >= start) & (indices < start + count)] - start
                start += count
                if len(rows) == 0:
                    continue
                yield from _parquet_rows(file, rows, image_column, values)

        images = decoding.decode_all(encoded(), str(files[0].parent))
        return images, {name: _factor(np.array(column), name, files[0]) for name, column in values.items()}

    return Part(sum(counts), read)


def _parquet_rows(
    file: Path, rows: Tensor, image_column: str, values: dict[str, list[Any]]
) -> Iterable[tuple[str, BinaryIO | Path]]:
    """The encoded images at ascending ``rows`` of a file; appends the other columns to ``values`` on the way."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = 0
    try:
        # A batch at a time, so that a set larger than the memory can be read in part.
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024, columns=[image_column, *values]):
            wanted = rows[(rows >= start) & (rows < start + len(batch))]
            if len(wanted) > 0:
                taken = batch.take(pa.array((wanted - start).tolist()))
                for name, column in values.items():
                    column.extend(taken.column(name).to_pylist())
                    if taken.column(name).null_count:
                        raise DataError(f"{file}: column {name!r} has rows without a value.")
                for row, cell in zip(wanted.tolist(), taken.column(image_column).to_pylist(), strict=True):
                    yield _parquet_cell(cell, file, row)
            start += len(batch)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{file}: this Parquet file cannot be read ({_one_line(error)}).") from error


def _parquet_cell(cell: object, file: Path, row: int) -> tuple[str, BinaryIO | Path]:
    where = f"{file}, row {row}"
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(content, bytes):
        return where, io.BytesIO(content)
    if isinstance(cell, dict) and cell.get("path"):
        return where, file.parent / str(cell["path"])
    raise DataError(
        f"{where}: the image must be bytes, or a struct with 'bytes' or 'path'; got {type(content).__name__}."
    )


def open_mat(file: Path) -> Part:
    """The SVHN authors' cropped digits: `X` `[32, 32, 3, images]` and `y` `[images, 1]`, where 10 stands for 0."""
    try:
        import scipy.io
    except ImportError as error:
        raise DataError("Reading .mat files needs scipy; type: pip install 'infoplace[svhn]'") from error
    try:
        content = scipy.io.loadmat(str(file))
    # Damage shows as whatever the bytes happen to look like to scipy.
    except Exception as error:
        raise DataError(f"{file}: this is not a MATLAB file that can be read ({_one_line(error)}).") from error
    missing = [name for name in ("X", "y") if name not in content]
    if missing:
        there = sorted(name for name in content if not name.startswith("__"))
        raise DataError(
            f"{file}: the arrays 'X' (images) and 'y' (labels) of SVHN's cropped digits are expected; the file has "
            f"{join_names(there)}."
        )
    images, labels = content["X"], content["y"].reshape(-1).astype(np.int64)
    if images.ndim != 4 or images.shape[2] != 3 or images.dtype != np.uint8 or images.shape[3] != len(labels):
        raise DataError(
            f"{file}: 'X' must be uint8 [height, width, 3, images] with one entry of 'y' for each image; got "
            f"{images.dtype} {list(images.shape)} and {len(labels)} labels."
        )
    labels[labels == 10] = 0
    return part_of_arrays(images.transpose(3, 2, 0, 1), {"label": labels}, file)


def open_npz(file: Path) -> Part:
    """An archive with ``images`` or ``x``, and factors: every other array, one entry an image."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: this is not an .npz archive that can be read ({_one_line(error)}).") from error
    name = next((name for name in ("images", "x") if name in arrays), None)
    if name is None:
        raise DataError(f"{file}: an array 'images' or 'x' is expected; the file has {join_names(arrays)}.")
    images = _channels_first(_as_bytes(arrays.pop(name), name, file), name, file)
    return part_of_arrays(images, arrays, file)


def _as_bytes(images: np.ndarray, name: str, file: Path) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(
            f"{file}: {name!r} must be uint8 (0..255) or float (0..1); got {images.dtype}. Store it with "
            f"{name}={name}.astype(numpy.uint8) if its values are 0..255."
        )
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # also where there is a NaN
        advice = f" Divide by 255, or store {name}.astype(numpy.uint8)." if 1 < high <= 255 and low >= 0 else ""
        raise DataError(f"{file}: {name!r} is float, so its values must be in [0, 1]; got {low:g} to {high:g}.{advice}")
    return np.rint(images * 255).astype(np.uint8)


def _channels_first(images: np.ndarray, name: str, file: Path) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4:
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first != last:
            return images if first else images.transpose(0, 3, 1, 2)
    raise DataError(
        f"{file}: {name!r} must have the shape [images, height, width, channels] or [images, channels, height, width] "
        f"with 1 or 3 channels, or [images, height, width]; got {list(images.shape)}."
    )


def open_folder(folder: Path, decoding: Decoding) -> Part:
    """A folder of images, or of one sub-folder a class; classes are numbered in the order of their names."""
    flat = sorted(path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    classes = {sub.name: _images_below(sub) for sub in sorted(_visible(folder)) if sub.is_dir()}
    classes = {name: paths for name, paths in classes.items() if paths}
    if flat and classes:
        raise DataError(
            f"{folder}: images lie beside class folders ({flat[0].name!r} beside {next(iter(classes))!r}); put every "
            "image into a class folder, or all of them into one folder without classes."
        )
    paths = flat or [path for members in classes.values() for path in members]
    labels = torch.tensor([label for label, members in enumerate(classes.values()) for _ in members], dtype=torch.int64)
    if not paths:
        raise DataError(f"{folder}: no images here; files ending in {', '.join(sorted(IMAGE_SUFFIXES))} are read.")

    def read(indices: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = [paths[index] for index in indices.tolist()]
        images = decoding.decode_all(((str(path), path) for path in chosen), str(folder))
        factors = {"label": labels[indices]} if classes else {}
        return images, factors

    return Part(len(paths), read)


def _visible(folder: Path) -> list[Path]:
    # Leaves out what file managers and archivers add: .DS_Store, ._name, __MACOSX.
    return [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]


def _images_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(_visible(folder)):
        if path.is_dir():
            found.extend(_images_below(path))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
    return found


def part_of_arrays(images: np.ndarray, factors: dict[str, np.ndarray], source: Path) -> Part:
    """A part that is in memory already: uint8 `[n, channels, height, width]` and arrays of `n` entries."""
    checked = {name: _factor(values, name, source) for name, values in factors.items()}
    for name, values in checked.items():
        if len(values) != len(images):
            raise DataError(
                f"{source}: {name!r} must have one entry for each of the {len(images)} images; got {len(values)}."
            )
    held = torch.from_numpy(np.ascontiguousarray(images))
    return Part(len(held), lambda indices: (held[indices], {name: values[indices] for name, values in checked.items()}))


def _factor(values: np.ndarray, name: str, source: Path) -> Tensor:
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise DataError(
            f"{source}: factor {name!r} must be an array of numbers, one entry an image; got {values.dtype} of shape "
            f"{list(values.shape)}."
        )
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _size(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
