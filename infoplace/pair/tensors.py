"""Devices, seeds, and the tensors of a module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from infoplace.errors import DeclarationError

__all__ = ["load_tensors", "resolve_device", "seeded", "tensors_of"]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What a module's ``state_dict`` holds, each shared tensor once."""
    kept = module.state_dict().keys()
    named = itertools.chain(module.named_parameters(), module.named_buffers())
    return {name: value for name, value in named if name in kept}


@torch.no_grad()
def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy saved tensors into a module's, in place.

    Raises:
        DeclarationError: they are not those of this module; nothing was copied.
    """
    own = tensors_of(module)
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not there" for name in tensors if name not in own]
    problems += [
        f"{name} is {list(value.shape)} and should be {list(own[name].shape)}"
        for name, value in tensors.items()
        if name in own and value.shape != own[name].shape
    ]
    if problems:
        raise DeclarationError(f"{what} do not fit the partition and networks: {'; '.join(problems[:3])}")
    for name, value in own.items():
        value.copy_(tensors[name])


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that a name means: ``"auto"`` is an accelerator if there is one.

    Raises:
        DeclarationError: no such device, or none here.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise DeclarationError(f"device must be one of 'auto', 'cpu', 'cuda'; got {str(device)!r}")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise DeclarationError("device='cuda', and torch finds no CUDA device here; use device='cpu' or 'auto'")
    return found


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random state set from a seed inside the block, and as it was afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
