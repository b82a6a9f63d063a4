"""The errors that infoplace raises, and what each promises.

Every message says what is wrong, where, what came, what was expected and what to type instead. All of them derive from
:class:`InfoplaceError`, so ``except InfoplaceError`` catches whatever the library says of a user's input, and nothing else.
They are no ``ValueError``, because Pyro's handlers would append a page of shapes to the sentence of one.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterable
from typing import Any, TypeGuard

__all__ = [
    "DataError",
    "DeclarationError",
    "InfoplaceError",
    "PluginError",
    "RunFolderError",
    "TrainingError",
    "UnknownNameError",
    "check_keys",
    "did_you_mean",
    "import_optional",
    "is_finite",
    "is_whole",
    "join_names",
]


class InfoplaceError(Exception):
    """What infoplace says of a user's input. Nothing was changed and nothing was half-written when it is raised."""


class DeclarationError(InfoplaceError):
    """A declaration (a partition, a spec, a parameter, a recipe) that cannot mean anything; raised when it is built."""


class UnknownNameError(DeclarationError, LookupError):
    """A name that nothing is registered under; the message lists what exists and what was probably meant."""


class DataError(InfoplaceError):
    """A tensor, batch or data file of the wrong shape, type, range or device; raised before anything is computed on it."""


class RunFolderError(InfoplaceError, OSError):
    """A run folder that is missing, incomplete or in the way; raised before anything in it is changed."""


class TrainingError(InfoplaceError, ArithmeticError):
    """Training that went wrong by its numbers (a loss that is not finite); the last good checkpoint is kept."""


class PluginError(InfoplaceError, ImportError):
    """An installed plugin that fails to load, or two that claim one name; its own error is chained."""


def join_names(names: Iterable[object]) -> str:
    """The names in quotes, joined by commas, or ``(none)``.

    >>> join_names(["x", "x_hat"])
    "'x', 'x_hat'"
    """
    return ", ".join(repr(str(name)) for name in names) or "(none)"


def did_you_mean(name: object, options: Iterable[str]) -> str:
    """A sentence naming the closest of ``options``, with a space before it, or nothing when none is close.

    >>> did_you_mean("patchshuffle", ["patch_shuffle", "blur"])
    " Did you mean 'patch_shuffle'?"
    >>> did_you_mean("swirl", ["patch_shuffle", "blur"])
    ''
    """
    close = difflib.get_close_matches(str(name), list(options), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def import_optional(module: str, user: str, package: str = "scikit-learn", extra: str = "metrics") -> Any:
    """A module of a package that comes with one of infoplace's extras.

    Args:
        module: the module's name.
        user: what needs it, as the message's subject.
        package: what the module is of.
        extra: the extra that brings it.

    Raises:
        PluginError: it is not installed; the message says what to type.

    >>> import_optional("no_such_module", "clustering")
    Traceback (most recent call last):
    infoplace.errors.PluginError: clustering needs scikit-learn, which is not installed; type: pip install 'infoplace[metrics]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(
            f"{user} needs {package}, which is not installed; type: pip install 'infoplace[{extra}]'"
        ) from error


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, and no bool, as parameters and settings need it.

    >>> is_whole(3), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number, and no bool.

    >>> is_finite(3), is_finite(0.5), is_finite(float("nan")), is_finite(True)
    (True, True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_keys(given: Iterable[object], known: Iterable[str], where: str) -> None:
    """Refuse keys that are not known.

    Raises:
        DeclarationError: the first unknown key, what was probably meant, and what there is.

    >>> check_keys({"dim": 2}, ["dim", "prior"], "blocks.z")
    """
    known = list(known)
    for key in given:
        if key not in known:
            raise DeclarationError(f"{where} has no {key!r}.{did_you_mean(key, known)} It takes: {', '.join(known)}")
