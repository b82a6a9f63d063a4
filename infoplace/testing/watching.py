"""Ways of running an objective or a pair so that what it does can be seen, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Fixed", "Reads", "scoped"]


@contextmanager
def scoped() -> Iterator[None]:
    """Pyro's parameter store afterwards as it was."""
    with pyro.get_param_store().scope():
        yield


class Fixed(TorchFunctionMode):
    """Keeps what ``detach`` and ``no_grad`` regions gave, so that a second run can take the same values for them.

    A gradient leaves those values out on purpose; finite differences would count them.
    """

    def __init__(self, kept: list[tuple[Any, Tensor]] | None = None) -> None:
        super().__init__()
        self.kept: list[tuple[Any, Tensor]] = [] if kept is None else kept
        self.position: int | None = None if kept is None else 0

    def again(self) -> Fixed:
        """For a second run: the same values in the same order."""
        return Fixed(self.kept)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        stops = func is Tensor.detach or func is torch.detach or not torch.is_grad_enabled()
        if not stops or not isinstance(result, Tensor) or any(result is one for one in args):
            return result
        if self.position is None:
            self.kept.append((func, result.detach().clone()))
            return result
        self.position += 1
        if self.position > len(self.kept):
            return result
        before, value = self.kept[self.position - 1]
        return value.clone() if before is func and value.shape == result.shape else result


class Reads(TorchDispatchMode):
    """Lists the operations whose result is a number, or whose shape is one."""

    names: ClassVar[tuple[str, ...]] = (
        *("_local_scalar_dense", "item", "is_nonzero", "equal"),
        *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.names:
            self.found.append(name)
        elif name == "index" and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]):
            self.found.append("a boolean mask")
        return func(*args, **(kwargs or {}))
