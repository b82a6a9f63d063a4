"""Reading and writing files.

What is written appears whole under its name, or the old file stays; what is read names nothing twice.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from infoplace.errors import DeclarationError, InfoplaceError, RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "locked",
    "make_folder",
    "once_each",
    "read_tensors",
    "read_text",
    "read_yaml",
    "replacing",
    "tensor_bytes",
    "write_json",
    "write_tensors",
]

LOCK = "run.lock"
"""The file that says, while it is locked, that a run is writing into its folder."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; when the block ends well it takes the place of ``path``, otherwise it is removed.

    Raises:
        RunFolderError: the file cannot be written (a full disk, a missing permission); ``path`` is as it was.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "notes.txt") as temporary:
    ...     _ = temporary.write_text("done")
    >>> (folder / "notes.txt").read_text()
    'done'
    """
    path = Path(path)
    # The suffix stays, because writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except InfoplaceError:
        raise
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):  # where the folder itself is in the way, there is nothing to remove
            temporary.unlink()


def write_json(path: str | Path, value: Any, indent: int = 2) -> None:
    """Write plain values as JSON, to a file that is there whole or as it was before.

    Raises:
        RunFolderError: see :func:`replacing`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.json"
    >>> write_json(path, {"steps": 10})
    >>> path.read_text().split()
    ['{', '"steps":', '10', '}']
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def make_folder(path: str | Path) -> Path:
    """Make a folder and its parents, where they do not exist yet.

    Raises:
        RunFolderError: it cannot be made, or a file has its name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RunFolderError(f"{folder} is a file, and a folder is needed; choose another name") from error
    except OSError as error:
        raise RunFolderError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    return folder


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep a folder to one run, as long as the block lasts; the lock ends with the process, however that ends.

    Raises:
        RunFolderError: another run has the folder, or nothing can be written there.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with locked(folder), locked(folder):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    infoplace.errors.RunFolderError: another run is writing into ...; wait until it ends, or choose another folder
    """
    from filelock import FileLock, Timeout

    path = Path(folder) / LOCK
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"another run is writing into {folder}; wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    try:
        yield
    finally:
        # Before it is given back: afterwards the file may be another run's. Windows removes no file that is open.
        with suppress(OSError):
            path.unlink()
        lock.release()


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of entries whose names must differ; parsers of JSON and YAML would silently take the last of two.

    Raises:
        DeclarationError: a name that is there twice.

    >>> once_each([("z_g", 1), ("z_l", 2)])
    {'z_g': 1, 'z_l': 2}
    """
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise DeclarationError(f"{key!r} is written {count} times in one place; rename or remove all but one")
    return dict(pairs)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers, and names that differ: PyYAML's own takes 1e-3 for text, and the last of two entries."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        once_each([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """The plain values in YAML text.

    Raises:
        DeclarationError: a key that is written twice in one place.
        yaml.YAMLError: text that is not YAML.

    >>> read_yaml("z: {dim: 2, beta: 1e-3}")
    {'z': {'dim': 2, 'beta': 0.001}}
    """
    return yaml.load(text, Loader=_Loader)


def read_text(path: str | Path, what: str) -> str:
    """A file's text.

    Args:
        path: the file.
        what: what it should hold, for the error.

    Raises:
        RunFolderError: it cannot be read, or is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RunFolderError(f"cannot read the {what} {path}: it is not UTF-8 text") from error


def tensor_bytes(tensors: Mapping[str, Tensor], description: str = "") -> bytes:
    """Tensors as the content of a safetensors file, with a text in its header."""
    from safetensors.torch import save

    # safetensors' own writer makes files that only their owner can read.
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(held, {"infoplace": description})


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], description: str = "") -> None:
    """Write tensors as one safetensors file, with a text in its header.

    Raises:
        RunFolderError: it cannot be written; a file that was there is as it was.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(tensor_bytes(tensors, description))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a safetensors file, on the CPU, and the text in its header.

    Raises:
        RunFolderError: it cannot be read, or was cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            return tensors, (file.metadata() or {}).get("infoplace", "")
    except (SafetensorError, OSError) as error:
        raise RunFolderError(f"{path} is not a whole file of tensors ({error})") from error
