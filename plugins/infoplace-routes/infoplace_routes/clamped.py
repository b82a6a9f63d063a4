"""Clamped batches: while one factor varies, every block but one is held at its batch mean (Kulkarni et al., 2015).

A batch is chosen in which the factors of one block vary and the others are as good as constant. The encoders of the other blocks
give their mean over the batch, so the decoder learns to explain what varies by that block alone; and in place of the
gradient that comes back they get their difference from the mean, which teaches them not to see what varies ("Deep convolutional
inverse graphics network", sections 3.1 and 3.2).

**This uses the known factors of the training data**, as labels would be used. The other routes, and the auxiliary task of
infoplace, do not: a comparison with them has to say so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from infoplace import DataError, DeclarationError, Network, Pair, make_network
from torch import Tensor, nn

from infoplace_routes.checks import check_whole

__all__ = ["Clamped", "ClampedBatch", "ClampedEncoder", "clamped_batches", "varying"]

Shape = tuple[int, ...]


# ---- the network -----------------------------------------------------------------------------------------------------


class _Clamp(torch.autograd.Function):
    """The mean over the batch; backwards, the difference from it in place of the gradient."""

    @staticmethod
    def forward(context: Any, outputs: Tensor, invariance: float) -> Tensor:
        mean = outputs.mean(0, keepdim=True)
        context.save_for_backward(outputs - mean)
        context.invariance = invariance
        return mean.expand_as(outputs).clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (difference,) = context.saved_tensors
        return context.invariance * difference, None


class ClampedEncoder(nn.Module):
    """An encoder that can be clamped: :func:`varying` does it.

    While it is clamped and in training mode, it gives the mean of its outputs over the batch for every sample, and the
    gradient of its outputs is ``invariance * (outputs - mean)``, whatever comes back: that of ``invariance / 2`` times their
    squared distance from their mean. Otherwise it is the encoder that it wraps.

    Args:
        encoder: what it wraps.
        invariance: the factor.

    >>> encoder = ClampedEncoder(nn.Identity(), invariance=0.5)
    >>> encoder.clamped = True
    >>> x = torch.tensor([[1.0], [3.0]], requires_grad=True)
    >>> y = encoder(x)
    >>> (10 * y).sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([[2.0], [2.0]], [[-0.5], [0.5]])
    """

    def __init__(self, encoder: nn.Module, invariance: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.invariance = invariance
        self.clamped = False

    def forward(self, *reads: Tensor) -> Tensor:
        """The encoder's outputs, `[N, outputs]`, or their mean `N` times.

        Raises:
            DeclarationError: it is being traced, by ``infoplace.compile``.
        """
        tracer = sys.modules.get("torch.fx.experimental.proxy_tensor")
        if tracer is not None and tracer.get_proxy_mode() is not None:
            raise DeclarationError(
                "clamped: which block varies changes from batch to batch, and a compiled loss would keep what it was traced "
                "with; train with the objective itself, not with infoplace.compile"
            )
        outputs = self.encoder(*reads)
        return _Clamp.apply(outputs, self.invariance) if self.clamped and self.training else outputs


class Clamped(Network):
    """Another network, whose encoders can be held at their batch mean while one factor varies.

    Encoders and decoders are those of `base`; without :func:`varying`, the pair is what `base` makes.

    Args:
        base: the network underneath: a name, a spec or a network.
        invariance: what multiplies the difference from the mean that clamped blocks get as their gradient; at least 0. It is in
            units of the loss that is differentiated: a loss summed over the batch, as objectives give it. Divide it by the batch
            size where you divide the loss by that.

    Raises:
        DeclarationError: a parameter out of its range.

    >>> Clamped(invariance=0.1).encoder({"x": (3, 16, 16)}, 8)(torch.zeros(5, 3, 16, 16)).shape
    torch.Size([5, 8])
    """

    base: Any = "small"
    invariance: float = 0.01

    def __post_init__(self) -> None:
        value = self.invariance
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise DeclarationError(f"clamped: invariance must be a finite number of at least 0; got {value!r}")
        object.__setattr__(self, "invariance", float(value))
        object.__setattr__(self, "base", make_network(self.base))

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        """The encoder of `base`, in a :class:`ClampedEncoder`."""
        return ClampedEncoder(self.base.encoder(reads, outputs), self.invariance)

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        """The decoder of `base`."""
        return self.base.decoder(inputs, raw_shape)


@contextmanager
def varying(pair: Pair, block: str) -> Iterator[None]:
    """Inside the ``with`` block, all blocks but one are clamped.

    Args:
        pair: a pair in training mode, made with the network ``"clamped"``.
        block: the block whose factors vary in the batch.

    Raises:
        DeclarationError: a block that is not there, a single block, encoders of another network, or a pair in evaluation mode.

    >>> import infoplace as ip
    >>> partition = ip.Partition({"z_g": ip.Block(4), "z_l": ip.Block(4)}, {"x": ip.Observation()})
    >>> pair = ip.make_pair(partition, (3, 16, 16), networks=Clamped())
    >>> with varying(pair, "z_g"):
    ...     posteriors = pair.encode(partition.observe(torch.rand(5, 3, 16, 16).mul(255).round() / 255))
    >>> posteriors["z_l"].mean.std(0).max().item(), posteriors["z_g"].mean.std(0).min().item() > 0
    (0.0, True)
    """
    encoders: Any = pair.guide.encoders
    blocks = tuple(pair.partition.blocks)
    names = ", ".join(map(repr, blocks))
    if block not in blocks:
        raise DeclarationError(f"varying: there is no block {block!r}; the blocks are {names}")
    if len(blocks) < 2:
        raise DeclarationError(f"varying: {block!r} is the only block, so there is none to clamp; declare at least two")
    other = [name for name in blocks if not isinstance(encoders[name], ClampedEncoder)]
    if other:
        raise DeclarationError(
            f"varying: the encoder of {other[0]!r} cannot be clamped; make the pair with networks='clamped', or with "
            "networks={'clamped': {'base': ...}} for a network other than 'small'"
        )
    if not pair.training:
        raise DeclarationError(
            "varying: the pair is in evaluation mode, in which nothing is clamped; type pair.train()"
        )
    before = {name: encoders[name].clamped for name in blocks}
    try:
        for name in blocks:
            encoders[name].clamped = name != block
        yield
    finally:
        for name, clamped in before.items():
            encoders[name].clamped = clamped


# ---- the batches -----------------------------------------------------------------------------------------------------


class ClampedBatch(NamedTuple):
    """A batch in which the factors of one block vary."""

    vary: str
    """The block."""
    indices: Tensor
    """`[batch]`, which samples."""
    mismatch: dict[str, float]
    """How far each held factor is from constant: of classes, the share that is not the most frequent one; of measured
    values, their variance in the batch over that in the data (about 1 is not held at all). 0 is constant."""


def clamped_batches(
    factors: Mapping[str, Tensor],
    groups: Mapping[str, Sequence[str]],
    batch_size: int = 32,
    *,
    shares: Mapping[str, float] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[ClampedBatch]:
    """Batches, without end, in each of which the factors of one block vary and those of the others are (nearly) constant.

    A block is drawn, then a sample, and the batch is that sample with those nearest to it in the factors of all other blocks:
    the fewest differing classes first, and then the smallest distance in the measured values, each in units of its standard
    deviation. With every combination of factors in the data, the match is exact; otherwise it is as near as the data have it, and
    :attr:`ClampedBatch.mismatch` says how near. Factors in no group are left alone.

    Args:
        factors: name -> `[samples]` or `[samples, values]`, such as ``ImageData.factors``; integers are classes, floats measured.
        groups: block -> its factors.
        batch_size: samples in a batch, at least 2.
        shares: how often each block varies, in proportion; all alike by default.
        generator: where the choices come from; torch's global one by default.

    Raises:
        DeclarationError: fewer than two groups, a factor in two of them, or shares that cannot be.
        DataError: an unknown factor, a factor that is constant, factors that differ in their number of samples or hold NaN,
            or fewer samples than a batch has.

    >>> digit, ground = torch.arange(12) % 3, torch.arange(12) // 3 / 3.0
    >>> batches = clamped_batches({"digit": digit, "ground": ground}, {"z_g": ["digit"], "z_l": ["ground"]}, batch_size=3)
    >>> batch = next(batches)
    >>> held = ground if batch.vary == "z_g" else digit
    >>> held[batch.indices].unique().numel(), list(batch.mismatch.values())
    (1, [0.0])
    """
    groups = {block: (names,) if isinstance(names, str) else tuple(names) for block, names in groups.items()}
    weights = _check_groups(groups, shares)
    count = _check_factors(factors, groups)
    check_whole("clamped_batches", "batch_size", batch_size, least=2)
    if count < batch_size:
        raise DataError(
            f"clamped_batches: the factors have {count} samples, and a batch {batch_size}; take batch_size={count} or less"
        )
    return _batches(factors, groups, batch_size, weights, generator)


def _check_groups(groups: Mapping[str, Sequence[str]], shares: Mapping[str, float] | None) -> Tensor:
    if len(groups) < 2:
        raise DeclarationError(
            "clamped_batches: one group varies while the others are held, so there are at least two, as "
            f"{{'z_g': ['digit'], 'z_l': ['ground']}}; got {dict(groups)!r}"
        )
    empty = [block for block, names in groups.items() if not names]
    if empty:
        raise DeclarationError(f"clamped_batches: the group {empty[0]!r} names no factor; name one, or leave it out")
    named = [name for names in groups.values() for name in names]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise DeclarationError(f"clamped_batches: {twice[0]!r} is named twice; a factor belongs to one block")
    if shares is None:
        return torch.ones(len(groups))
    if set(shares) != set(groups):
        raise DeclarationError(
            f"clamped_batches: shares names {sorted(shares)}, and the groups are {sorted(groups)}; give each a share"
        )
    weights = torch.tensor([float(shares[block]) for block in groups])
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0):
        raise DeclarationError(
            f"clamped_batches: shares must be finite, at least 0 and not all 0; got {dict(shares)!r}"
        )
    return weights


def _check_factors(factors: Mapping[str, Tensor], groups: Mapping[str, Sequence[str]]) -> int:
    counts: dict[str, int] = {}
    for block, names in groups.items():
        for name in names:
            if name not in factors:
                known = ", ".join(map(repr, factors)) or "(none)"
                raise DataError(f"clamped_batches: {block!r} names the factor {name!r}, and the data know {known}")
            values = factors[name]
            if not isinstance(values, Tensor) or values.ndim not in (1, 2):
                got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise DataError(
                    f"clamped_batches: the factor {name!r} must be a tensor [samples] or [samples, values]; got {got}"
                )
            if values.is_floating_point() and not values.isfinite().all():
                raise DataError(
                    f"clamped_batches: the factor {name!r} holds NaN or infinite values; leave those samples out"
                )
            counts[name] = len(values)
    if len(set(counts.values())) > 1:
        raise DataError(f"clamped_batches: the factors differ in their number of samples: {counts}")
    for name in counts:
        if (factors[name] == factors[name][:1]).all():
            raise DataError(
                f"clamped_batches: the factor {name!r} is constant in these data, so no batch can vary it; leave it out"
            )
    return next(iter(counts.values()))


def _batches(
    factors: Mapping[str, Tensor],
    groups: Mapping[str, Sequence[str]],
    batch_size: int,
    weights: Tensor,
    generator: torch.Generator | None,
) -> Iterator[ClampedBatch]:
    blocks = list(groups)
    held = {vary: [name for block in blocks if block != vary for name in groups[block]] for vary in blocks}
    columns = {name: _columns(factors[name]) for names in groups.values() for name in names}
    count = len(next(iter(columns.values())))
    place = "cpu" if generator is None else generator.device
    while True:
        vary = blocks[int(torch.multinomial(weights.to(place), 1, generator=generator))]
        order = torch.randperm(count, generator=generator, device=place)
        # The order is random, so that no sample is preferred among those that match alike; the first of it is the one to match.
        anchor = int(order[0])
        differing, distance = torch.zeros(2, count, dtype=torch.float64)
        for name in held[vary]:
            values = columns[name]
            if values.is_floating_point():
                distance += (values - values[anchor]).square().sum(1).cpu()
            else:
                differing += (values != values[anchor]).any(1).cpu()
        score = (differing * (1 + distance.max()) + distance)[order.cpu()]
        score[0] = -1.0
        near = score.topk(batch_size, largest=False).indices
        indices = order.cpu()[near].to(next(iter(columns.values())).device)
        yield ClampedBatch(vary, indices, {name: _mismatch(columns[name], indices) for name in held[vary]})


def _columns(values: Tensor) -> Tensor:
    """`[samples, values]`; measured values in units of their standard deviation in the data, in float64."""
    columns = values.reshape(len(values), -1)
    if not columns.is_floating_point():
        return columns
    columns = columns.double()
    spread = columns.std(0, correction=0)
    return columns / torch.where(spread > 0, spread, 1.0)


def _mismatch(columns: Tensor, indices: Tensor) -> float:
    chosen = columns[indices]
    if columns.is_floating_point():
        return float(chosen.var(0, correction=0).mean())
    _, counts = chosen.unique(dim=0, return_counts=True)
    return 1 - int(counts.max()) / len(chosen)
