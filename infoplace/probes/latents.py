"""Probes on frozen latents: how much of a factor a simple predictor can read off one block.

A probe sees plain arrays ``[N, dim]``, whatever made them. A *linear* probe asks whether the factor lies open: it is the
least-squares or logistic regression, at its optimum. An *mlp* probe (two hidden layers) asks whether it is there at all.
Where a factor is labels, a probe minimises the cross-entropy; where it is values, the squared error of the standardised
values.

A placement matrix needs many probes of the same latents: every factor, and the controls beside it. :func:`fit_probes`
fits them as one ensemble: batched matrix products over independent weights, the same first weights and the same order of
the samples for each, so a probe comes out as it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, is_whole, join_names
from infoplace.probes.images import one_cycle

__all__ = ["LATENT_PROBES", "LatentProbes", "as_factor", "as_latents", "fit_probes"]

LATENT_PROBES = ("linear", "mlp")
"""The kinds of probe of frozen latents."""

PENALTY = 1e-4
"""Of the linear probes: ``PENALTY / 2`` times the squared weights, for standardised inputs, is added to the mean loss."""

DROPOUT = 0.2
"""The share of an mlp's hidden units that rest in a step."""

PEAK = 1e-2
"""The highest learning rate of an mlp's cycle."""

_PREDICTED_AT_ONCE = 10_000

Layers = tuple[tuple[Tensor, Tensor], ...]


def as_latents(values: Any, name: str = "latents") -> Tensor:
    """One block of latents as a float64 tensor ``[N, dim]``, detached, on its own device.

    Args:
        values: ``[N, dim]``: a tensor, or anything that ``numpy.asarray`` takes.
        name: what to call it in an error.

    Raises:
        DataError: another rank, empty, no numbers, or a value that is not finite.

    >>> as_latents([[0, 1], [2, 3], [4, 5]]).shape
    torch.Size([3, 2])
    """
    tensor = _tensor(values, name)
    if tensor.ndim != 2:
        advice = "; a single dimension is values[:, None]" if tensor.ndim == 1 else ""
        raise DataError(f"{name} must be [N, dim], one row for each sample; got {list(tensor.shape)}{advice}")
    if not tensor.numel():
        raise DataError(f"{name} is empty, {list(tensor.shape)}; give at least one sample and one dimension")
    return _finite(tensor.double(), name)


def as_factor(values: Any, count: int | None = None, name: str = "factor") -> Tensor:
    """A factor as labels, int64 ``[N]``, or as values, float64 ``[N]`` or ``[N, channels]``; detached.

    Whole-number (and true-or-false) types are labels, floating-point ones values.

    Args:
        values: ``[N]`` or ``[N, channels]``: a tensor, or anything that ``numpy.asarray`` takes.
        count: the N that is expected; any when None.
        name: what to call it in an error.

    Raises:
        DataError: another length or rank, empty, no numbers, or a value that is not finite.

    >>> as_factor([3, 1, 3]), as_factor([0.5, 1.0])
    (tensor([3, 1, 3]), tensor([0.5000, 1.0000], dtype=torch.float64))
    """
    tensor = _tensor(values, name)
    values_given = tensor.is_floating_point()
    if tensor.ndim not in ((1, 2) if values_given else (1,)) or (tensor.ndim == 2 and not tensor.shape[1]):
        form = "[N] or [N, channels] for values" if values_given else "[N] for labels"
        raise DataError(f"{name} must be {form}, one row for each sample; got {list(tensor.shape)}")
    if count is not None and len(tensor) != count:
        raise DataError(f"{name} has {len(tensor)} samples and the latents have {count}; give one row for each latent")
    if not len(tensor):
        raise DataError(f"{name} is empty; give at least one sample")
    return _finite(tensor.double(), name) if values_given else tensor.long()


@final
@dataclass(frozen=True)
class LatentProbes:
    """An ensemble of fitted probes, one for each target. Made by :func:`fit_probes`."""

    layers: Layers
    """Weights ``[probes, inputs, outputs]`` and biases ``[probes, 1, outputs]``; ReLU between layers."""

    centres: Tensor
    """Training means of the inputs, ``[probes, 1, dim]``."""

    gains: Tensor
    """1 / training deviations of the inputs, ``[probes, 1, dim]``; 0 where a dimension was constant."""

    targets: tuple[_Labels | _Values, ...]

    def __len__(self) -> int:
        """How many probes there are."""
        return len(self.targets)

    @torch.no_grad()
    def predict(self, latents: Any) -> list[Tensor]:
        """What every probe reads off the latents.

        Args:
            latents: ``[N, dim]`` for all probes, or a list with one such array for each.

        Returns:
            for each probe labels ``[N]`` (int64, among those of its training) or values ``[N]`` or ``[N, channels]``
            in the units of its training, float64; on the CPU.

        Raises:
            DataError: latents of another width or length, empty, or not finite.

        >>> probes = fit_probes([[-1.0], [1.0], [-2.0], [2.0]], [[7, 8, 7, 8], [-3.0, 3.0, -6.0, 6.0]], probe="linear")
        >>> labels, values = probes.predict([[5.0]])
        >>> labels, values.round(decimals=1)
        (tensor([8]), tensor([15.], dtype=torch.float64))
        """
        matrices, member = _matrices(latents, len(self), self.centres.device)
        dim = self.centres.shape[-1]
        if matrices.shape[-1] != dim:
            raise DataError(f"latents have {matrices.shape[-1]} dimensions; the probes were trained on {dim}")
        parts = []
        for batch in matrices.split(_PREDICTED_AT_ONCE, dim=1):
            inputs = (batch[member] - self.centres) * self.gains
            parts.append(_forward(inputs.to(self.layers[0][0].dtype), self.layers).double().cpu())
        outputs = torch.cat(parts, dim=1)
        return [target.read(output) for target, output in zip(self.targets, outputs, strict=True)]


def fit_probes(
    latents: Any,
    targets: Sequence[Any],
    *,
    probe: str = "mlp",
    hidden: int = 64,
    steps: int = 300,
    batch_size: int = 512,
    weight_decay: float = 1.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> LatentProbes:
    """Fit one probe for each target, all of them at once.

    Inputs are standardised with the training mean and deviation; a constant dimension becomes 0. A linear probe is the
    minimum of the mean cross-entropy, or half the mean squared error of the standardised values, plus
    :data:`PENALTY` / 2 times the squared weights: in closed form for values, by L-BFGS for labels. An mlp probe is
    trained by AdamW under one cycle of the learning rate, with dropout, and keeps the weights that did best on a tenth of
    the samples, held back: where there is nothing to find, it answers with the commonest label or the mean.

    Args:
        latents: ``[N, dim]`` for all probes, or a list with one such array for each (of one N and dim). An object that
            is repeated in the list is held in memory once.
        targets: for each probe labels ``[N]`` (whole numbers, any) or values ``[N]`` or ``[N, channels]`` in any units.
        probe: ``"linear"`` or ``"mlp"``.
        hidden: width of the two hidden layers of an mlp.
        steps: updates of an mlp.
        batch_size: samples a step of an mlp.
        weight_decay: of an mlp's weights, times the learning rate of the step.
        seed: of an mlp's first weights and the order of the samples; torch's own seed is left alone.
        device: where to fit; the probes stay there.

    Raises:
        DataError: latents or targets of the wrong shape, length or type, empty, or not finite.
        DeclarationError: an option out of its range.
        UnknownNameError: an unknown kind of probe.

    >>> z = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> alike = (z[:, 0] * z[:, 1] > 0).long()  # no line tells it
    >>> linear, mlp = (fit_probes(z, [alike], probe=kind).predict(z)[0] for kind in ("linear", "mlp"))
    >>> (linear == alike).float().mean() < 0.65, (mlp == alike).float().mean() > 0.95
    (tensor(True), tensor(True))
    """
    if probe not in LATENT_PROBES:
        raise UnknownNameError(
            f"there is no probe {probe!r}; there are {join_names(LATENT_PROBES)}.{did_you_mean(probe, LATENT_PROBES)}"
        )
    for name, value in (("hidden", hidden), ("steps", steps), ("batch_size", batch_size)):
        if not is_whole(value) or value < 1:
            raise DeclarationError(f"{name} must be a positive whole number; got {value!r}")
    if isinstance(weight_decay, bool) or not isinstance(weight_decay, (int, float)) or not 0 <= weight_decay < math.inf:
        raise DeclarationError(f"weight_decay must be a number of 0 or more; got {weight_decay!r}")
    if isinstance(targets, (Tensor, np.ndarray, Mapping, str)) or not len(targets):
        raise DataError("targets must be a list of one factor or more, one for each probe; write [factor] for one")
    matrices, member = _matrices(latents, len(targets), device)
    factors = [as_factor(values, matrices.shape[1], f"targets[{index}]") for index, values in enumerate(targets)]
    # Fitting needs gradients wherever it is called from.
    with torch.inference_mode(False), torch.enable_grad():
        centres = matrices.mean(1, keepdim=True)
        deviations = matrices.std(1, correction=0, keepdim=True)
        # Less than a float32 can hold beside the mean is rounding: such a dimension is constant.
        gains = torch.where(deviations <= 1e-7 * centres.abs(), 0.0, 1 / deviations)
        inputs = (matrices - centres) * gains
        known, goals = zip(*(_standardised(factor.to(device)) for factor in factors), strict=True)
        if probe == "linear":
            layers = _fit_linear(inputs, member, goals, known)
        else:
            layers = _fit_mlp(inputs, member, _Goals(goals, known), hidden, steps, batch_size, weight_decay, seed)
    return LatentProbes(layers, centres[member], gains[member], known)


@dataclass(frozen=True)
class _Labels:
    """Outputs that are logits of the distinct labels of the training, in order."""

    classes: Tensor

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def read(self, outputs: Tensor) -> Tensor:
        return self.classes[outputs[:, : self.outputs].argmax(1)]


@dataclass(frozen=True)
class _Values:
    """Outputs that are standardised values."""

    mean: Tensor
    deviation: Tensor
    single: bool
    """They were ``[N]``, not ``[N, channels]``."""

    @property
    def outputs(self) -> int:
        return len(self.mean)

    def read(self, outputs: Tensor) -> Tensor:
        values = outputs[:, : self.outputs] * self.deviation + self.mean
        return values.squeeze(1) if self.single else values


def _standardised(factor: Tensor) -> tuple[_Labels | _Values, Tensor]:
    """How outputs stand for the factor; class numbers ``[N]``, or values of mean 0 and deviation 1 ``[N, channels]``."""
    if not factor.is_floating_point():
        classes, numbers = factor.unique(return_inverse=True)
        return _Labels(classes.cpu()), numbers
    columns = factor.reshape(len(factor), -1)
    mean, deviation = columns.mean(0), columns.std(0, correction=0)
    # What is left of a constant is rounding, and must not be blown up.
    safe = torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)
    return _Values(mean.cpu(), safe.cpu(), factor.ndim == 1), (columns - mean) / safe


def _forward(inputs: Tensor, layers: Sequence[tuple[Tensor, Tensor]], masks: Sequence[Tensor] = ()) -> Tensor:
    """Outputs ``[probes, n, outputs]`` for standardised inputs ``[probes, n, dim]``; masks are of the hidden layers."""
    for index, (weight, bias) in enumerate(layers):
        if index:
            inputs = inputs.relu() * masks[index - 1] if masks else inputs.relu()
        inputs = torch.baddbmm(bias, inputs, weight)
    return inputs


def _fit_linear(inputs: Tensor, member: Tensor, goals: Sequence[Tensor], known: Sequence[_Labels | _Values]) -> Layers:
    """Each probe by itself, in float64: a convex problem has one answer, and L-BFGS finds it in some 30 steps."""
    _, _, dim = inputs.shape
    outputs = max(target.outputs for target in known)
    weights = inputs.new_zeros(len(known), dim, outputs)
    biases = inputs.new_zeros(len(known), 1, outputs)
    for index, (source, goal, target) in enumerate(zip(member.tolist(), goals, known, strict=True)):
        own = inputs[source]
        if isinstance(target, _Values):
            # Inputs and goals have mean 0, so no bias is needed.
            weights[index, :, : target.outputs] = _ridge(own, goal)
        else:
            weight, bias = _logistic(own, goal, target.outputs)
            weights[index, :, : target.outputs], biases[index, 0, : target.outputs] = weight, bias
    return ((weights, biases),)


def _ridge(inputs: Tensor, goal: Tensor) -> Tensor:
    products = inputs.T @ inputs / len(inputs)
    products.diagonal().add_(PENALTY)
    return torch.linalg.solve(products, inputs.T @ goal / len(inputs))


def _logistic(inputs: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    weight = inputs.new_zeros(inputs.shape[1], classes, requires_grad=True)
    bias = inputs.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=200,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(torch.addmm(bias, inputs, weight), labels) + PENALTY / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()


def _fit_mlp(
    inputs: Tensor,
    member: Tensor,
    goals: _Goals,
    hidden: int,
    steps: int,
    batch_size: int,
    weight_decay: float,
    seed: int,
) -> Layers:
    """All probes at once, in float32. Each keeps the weights that did best on a tenth of the samples, held back."""
    inputs = inputs.float()
    count, dim = inputs.shape[1:]
    probes, outputs, device = len(member), goals.outputs, inputs.device
    draw = torch.Generator().manual_seed(seed)
    layers = []
    for before, after, last in ((dim, hidden, False), (hidden, hidden, False), (hidden, outputs, True)):
        # A last layer of zeros, and nothing drawn for it: a start that does not depend on the widest probe's outputs.
        start = (
            torch.zeros(before, after) if last else torch.randn(before, after, generator=draw) * math.sqrt(2 / before)
        )
        weight = start.to(device).repeat(probes, 1, 1).requires_grad_()
        layers.append((weight, torch.zeros(probes, 1, after, device=device, requires_grad=True)))
    groups = [
        {"params": [weight for weight, _ in layers], "weight_decay": weight_decay},
        {"params": [bias for _, bias in layers], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95))
    shuffled = torch.randperm(count, generator=draw)
    held, fitted = shuffled[: count // 10].to(device), shuffled[count // 10 :]
    size = min(batch_size, len(fitted))
    order = torch.empty(0, dtype=torch.long)
    best = torch.full((probes,), math.inf, device=device)
    kept = [(weight.detach().clone(), bias.detach().clone()) for weight, bias in layers]
    for step in range(steps):
        if len(order) < size:
            order = fitted[torch.randperm(len(fitted), generator=draw)]
        chosen, order = order[:size].to(device), order[size:]
        for group in optimizer.param_groups:
            group["lr"] = PEAK * one_cycle(step, steps)
        # One mask for all probes, so that none depends on how many there are.
        masks = [
            (torch.rand(len(chosen), hidden, generator=draw) >= DROPOUT).float().to(device) / (1 - DROPOUT)
            for _ in layers[1:]
        ]
        # The sum over the probes: none of them changes another's gradient.
        loss = goals.losses(_forward(inputs[:, chosen][member], layers, masks), chosen).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 20 == 0 or step + 1 == steps:
            with torch.no_grad():
                losses = goals.losses(_forward(inputs[:, held][member], layers), held)
                # Too few samples leave none to hold back, and their mean is NaN: then the last weights are kept.
                better = (losses < best) | losses.isnan()
                best = torch.where(better, losses, best)
                for now, then in zip(layers, kept, strict=True):
                    for fresh, stored in zip(now, then, strict=True):
                        stored[better] = fresh[better]
    return tuple(kept)


@final
class _Goals:
    """What the probes should say, stacked for one loss: labels apart from values, padded to the widest probe."""

    def __init__(self, goals: Sequence[Tensor], known: Sequence[_Labels | _Values]) -> None:
        device = goals[0].device
        self.outputs = max(target.outputs for target in known)
        self.sizes = torch.tensor([target.outputs for target in known], device=device)
        self.own = torch.arange(self.outputs, device=device) < self.sizes[:, None, None]
        kinds = [isinstance(target, _Labels) for target in known]
        self.labelled, self.valued = (
            torch.tensor([place for place, is_label in enumerate(kinds) if is_label == wanted], device=device).long()
            for wanted in (True, False)
        )
        self.labels = [goals[place] for place in self.labelled.tolist()]
        self.values = [
            F.pad(goals[place], (0, self.outputs - goals[place].shape[1])).float() for place in self.valued.tolist()
        ]

    def losses(self, results: Tensor, chosen: Tensor) -> Tensor:
        """Each probe's mean loss ``[probes]``, for outputs ``[probes, n, outputs]`` of the samples ``chosen``."""
        losses = results.new_zeros(len(results))
        if self.labels:
            logits = results.masked_fill(~self.own, -math.inf)[self.labelled]
            labels = torch.stack([labels[chosen] for labels in self.labels])
            entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            losses = losses.index_copy(0, self.labelled, entropy.view(labels.shape).mean(1))
        if self.values:
            values = torch.stack([values[chosen] for values in self.values])
            errors = ((results[self.valued] - values) * self.own[self.valued]).square().sum(2).mean(1)
            losses = losses.index_copy(0, self.valued, errors / self.sizes[self.valued] / 2)
        return losses


def _matrices(latents: Any, probes: int, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """The distinct matrices ``[matrices, N, dim]``, and which of them each probe has, ``[probes]``."""
    alone = not isinstance(latents, (list, tuple)) or _rank(latents) < 3
    given = [latents] * probes if alone else list(latents)
    if len(given) != probes:
        raise DataError(f"latents list {len(given)} arrays and there are {probes} probes; give one array for each")
    places: dict[int, int] = {}
    matrices: list[Tensor] = []
    for index, each in enumerate(given):
        if id(each) not in places:
            places[id(each)] = len(matrices)
            name = "latents" if alone else f"latents[{index}]"
            matrices.append(as_latents(each, name).to(device))
            if matrices[-1].shape != matrices[0].shape:
                raise DataError(
                    f"{name} is {list(matrices[-1].shape)} and latents[0] is {list(matrices[0].shape)}; "
                    "probes that are fitted together need latents of one shape"
                )
    return torch.stack(matrices), torch.tensor([places[id(each)] for each in given], device=device)


def _rank(values: Any) -> int:
    """Of a nested list: its depth, an array inside counting its own dimensions."""
    rank = 0
    while isinstance(values, (list, tuple)) and len(values):
        rank, values = rank + 1, values[0]
    return rank + getattr(values, "ndim", 0)


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        try:
            # A copy: torch warns of arrays that must not be written to.
            tensor = torch.from_numpy(_native(np.array(values)))
        except (TypeError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise DataError(f"{name} is no array of numbers ({cause}); give a tensor or a numpy array") from error
    if tensor.is_complex():
        raise DataError(f"{name} is {tensor.dtype}; expected real numbers")
    return tensor


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """In one of the types and byte orders that torch has."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _finite(tensor: Tensor, name: str) -> Tensor:
    if not tensor.isfinite().all():
        raise DataError(f"{name} holds NaN or infinite values; remove those samples first")
    return tensor
