"""Modules in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(*parts: Any) -> Iterator[None]:
    """Evaluation mode inside the block; every submodule's own mode afterwards.

    Args:
        parts: modules, or methods of modules; any other callable has no mode, and is left alone.

    >>> layer = nn.Dropout()
    >>> with evaluating(layer, layer.forward, len):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    owners = [getattr(part, "__self__", part) for part in parts]
    with ExitStack() as stack:
        for owner in owners:
            if isinstance(owner, nn.Module):
                stack.callback(_restore, {child: child.training for child in owner.modules()})
                owner.eval()
        yield


def _restore(modes: dict[nn.Module, bool]) -> None:
    for child, mode in modes.items():
        child.training = mode
