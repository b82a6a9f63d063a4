"""A pair and an objective as one traced and compiled loss.

``torch.compile`` of a Pyro loss breaks into many graphs at Pyro's handlers and ends up slower than eager. Tracing the whole
loss once with ``make_fx`` looks straight through the handlers; what is left is one graph of plain tensor operations, which
compiles as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call

from infoplace.errors import DataError, DeclarationError
from infoplace.objectives import Objective
from infoplace.pair import Pair

__all__ = ["CompiledLoss", "compile"]

_Layout = tuple[tuple[str, torch.Size, torch.dtype, torch.device], ...]


class _Loss(nn.Module):
    """The loss and its terms, as a module whose parameters can be swapped while it is traced."""

    def __init__(self, pair: Pair, objective: Objective) -> None:
        super().__init__()
        self.pair = pair
        self.own = objective.module
        self.objective = objective

    def forward(self, observations: Mapping[str, Tensor], levels: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with self.objective.at(levels):
            return self.objective.evaluate(self.pair.model, self.pair.guide, observations)


class CompiledLoss(nn.Module):
    """The loss of a pair under an objective, traced and compiled. Made by :func:`compile`.

    Called with observations it returns the loss, as the module ``objective(pair.model, pair.guide)`` does: a scalar in
    nats, summed over the batch, differentiable. In training mode with gradients enabled it takes a step of the objective's
    schedule. Its parameters are the pair's and the objective's own.

    A graph is traced for each shape of the observations, for training and evaluation mode, with and without gradients, and
    for each precision of autocast; batches of one size (a loader with ``drop_last=True``) need one.
    """

    def __init__(self, pair: Pair, objective: Objective, backend: str | Callable[..., Any]) -> None:
        super().__init__()
        self.loss = _Loss(pair, objective)
        self.backend = backend
        self._graphs: dict[tuple[_Layout, torch.dtype | None, tuple[bool, ...]], Callable[..., Any]] = {}

    @property
    def objective(self) -> Objective:
        """The objective."""
        return self.loss.objective

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """The differentiable loss, a scalar. See :meth:`evaluate`."""
        return self.evaluate(observations)[0]

    def evaluate(self, observations: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The differentiable loss and its detached terms.

        Args:
            observations: what ``partition.observe(batch)`` returned, on the pair's device.

        Raises:
            DataError: observations that do not fit the pair.
        """
        loss, terms = self._run(observations)
        if self.training and torch.is_grad_enabled():
            self.objective.advance()
        return loss, terms

    def prepare(self, observations: Mapping[str, Tensor]) -> None:
        """Trace and compile the loss for training on batches of this size; the schedule stays where it is.

        Args:
            observations: as :meth:`evaluate` takes them.

        Raises:
            DataError: observations that do not fit the pair.
        """
        buffers = {name: value.clone() for name, value in self.loss.named_buffers()}
        with torch.enable_grad(), torch.random.fork_rng(devices=self._cuda()):
            self._run(observations)
        with torch.no_grad():
            for name, value in self.loss.named_buffers():
                value.copy_(buffers[name])

    def _cuda(self) -> list[torch.device]:
        device = self.loss.pair.device
        return [device] if device.type == "cuda" else []

    def _run(self, observations: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.loss.pair.device
        levels = [torch.as_tensor(level, device=device) for level in self.objective.levels]
        parameters, buffers = dict(self.loss.named_parameters()), dict(self.loss.named_buffers())
        graph = self._graph(parameters, buffers, dict(observations), levels)
        return graph(parameters, buffers, dict(observations), levels)

    def _graph(self, *inputs: Any) -> Callable[..., Any]:
        # Importing the tracer takes about as long as the rest of the package.
        from torch.fx.experimental.proxy_tensor import make_fx

        parameters, buffers, observations, levels = inputs
        layout = tuple((name, value.shape, value.dtype, value.device) for name, value in observations.items())
        # Where a loss switches gradients off for a part of it, the graph switches them on again as they were when traced.
        kind = self.loss.pair.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = (layout, precision, (torch.is_grad_enabled(), *(module.training for module in self.modules())))
        if key not in self._graphs:
            # The trace draws, and Pyro's store would keep its swapped parameters; validation would read values.
            with (
                torch.random.fork_rng(devices=self._cuda()),
                pyro.get_param_store().scope(),
                pyro.validation_enabled(False),
            ):
                # Before dispatch, or the trace would forget where gradients stop. It runs everything once: what counts runs,
                # in a buffer, counts on a copy.
                copies = {name: value.clone() for name, value in buffers.items()}
                traced = make_fx(lambda *values: self._call(*values), pre_dispatch=True)(
                    parameters, copies, observations, levels
                )
            self._graphs[key] = torch.compile(traced, backend=self.backend, fullgraph=True)
        return self._graphs[key]

    def _call(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        observations: dict[str, Tensor],
        levels: list[Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return functional_call(self.loss, {**parameters, **buffers}, (observations, levels))


def compile(
    pair: Pair,
    objective: Objective,
    observations: Mapping[str, Tensor] | None = None,
    *,
    backend: str | Callable[..., Any] = "inductor",
) -> CompiledLoss:
    """Trace and compile the loss of a pair under an objective.

    Args:
        pair: the pair, on the device it will train on.
        objective: the objective.
        observations: what ``partition.observe(batch)`` returned for a batch of the size to train with; given, the loss is
            traced and compiled now, otherwise on the first call.
        backend: ``torch.compile``'s. The default needs a C++ compiler on a CPU, and Triton on a GPU.

    Returns:
        A module to call with observations.

    Raises:
        DeclarationError: not a pair and an objective.
        DataError: observations that do not fit the pair.

    >>> from infoplace import Block, Observation, Partition, make_objective, make_pair
    >>> pair = make_pair(Partition({"z": Block(2)}, {"x": Observation()}), (1, 8, 8))
    >>> loss = compile(pair, make_objective("elbo"), backend="eager")
    >>> loss(pair.partition.observe(torch.zeros(4, 1, 8, 8))).backward()
    """
    if not isinstance(pair, Pair) or not isinstance(objective, Objective):
        raise DeclarationError(
            "compile takes a pair and an objective, as compile(pair, ip.make_objective('elbo')); got "
            f"{type(pair).__name__} and {type(objective).__name__}"
        )
    loss = CompiledLoss(pair, objective, backend)
    if observations is not None:
        if not isinstance(observations, Mapping):
            raise DataError(f"compile takes what partition.observe(batch) returns; got {type(observations).__name__}")
        loss.prepare(observations)
    return loss
