"""Writing files so that nothing is ever half-written: the whole file appears under its name, or the old one stays."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infoplace.errors import InfoplaceError, RunFolderError

__all__ = ["make_folder", "replacing"]


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
    except Exception as error:
        reason = _system_reason(error)
        if reason is None:
            raise
        raise RunFolderError(f"cannot write {path}: {reason}; free some space or choose another folder") from error
    finally:
        with suppress(OSError):  # where the folder itself is in the way, there is nothing to remove
            temporary.unlink()


def _system_reason(error: Exception) -> str | None:
    """What the system said against a write, or None for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # safetensors writes in Rust: its own exception holds the system's words as text only.
    found = re.search(r"([^:]+) \(os error \d+\)", str(error))
    return found[1].strip() if found else None


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
