"""Encoders and decoders of signals `[channels, length]`: strided residual convolutions, as deep as the length asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from infoplace import Network, register_network
from infoplace.errors import DeclarationError, is_whole
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv1d"]

_MOST_CELLS = 16
"""How many positions along the time are left at most where the convolutions meet the dense layers."""

_STRIDE = 4

Shape = tuple[int, ...]


@register_network("conv1d")
class Conv1d(Network):
    """Strided residual convolutions for signals `[channels, length]`, made for lengths of 256 to 16384.

    The encoder shortens a signal to a quarter, again and again, until at most 16 positions are left, with residual blocks
    in between, and the decoder does the reverse; a signal of 4 times the length has one stage more. Widths are alike at every
    length. The mean and the logarithm of the spread of every channel are read apart from its shape. Lengths that the strides do
    not divide are padded with what is at their end, and what is decoded is cut. Vectors and numbers (labels, say) go
    through dense layers.

    Args:
        width: channels at a quarter of the length; twice and then four times as many further down.
        depth: residual blocks at every length.
        hidden: width of the dense layers.

    >>> network = Conv1d(width=8, hidden=16)
    >>> network.encoder({"x": (1, 1000)}, 6)(torch.rand(2, 1, 1000)).shape
    torch.Size([2, 6])
    >>> network.decoder(3, (2, 1000))(torch.zeros(5, 3)).shape
    torch.Size([5, 2, 1000])
    """

    width: int = 32
    depth: int = 1
    hidden: int = 256

    def __post_init__(self) -> None:
        for field in ("width", "depth", "hidden"):
            value = getattr(self, field)
            if not is_whole(value) or value < 1:
                raise DeclarationError(
                    f"{self.spec_name or type(self).__name__}: {field} must be a whole number of at least 1; got {value!r}"
                )

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        for name, shape in reads.items():
            self._check_shape(shape, f"the read {name!r}")
        trunks = [
            _SignalTrunk(shape, self.width, self.depth) if len(shape) == 2 else _VectorTrunk(shape, self.hidden)
            for shape in reads.values()
        ]
        return _Encoder(trunks, self.hidden, outputs)

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        self._check_shape(raw_shape, "what is to be decoded")
        if len(raw_shape) < 2:
            dense = _dense(inputs, self.hidden, self.hidden)
            return nn.Sequential(
                dense, nn.Linear(self.hidden, math.prod(raw_shape)), nn.Unflatten(1, (*raw_shape, 1)[:1])
            )
        return _SignalDecoder(inputs, raw_shape, self.width, self.depth, self.hidden)

    def _check_shape(self, shape: Shape, what: str) -> None:
        if len(shape) > 2:
            raise DeclarationError(
                f"{self.spec_name or type(self).__name__}: {what} has shape {shape}; this network takes signals [channels, "
                "length], vectors [length] and numbers (); for images and volumes use networks='small'"
            )


def _stages(length: int) -> int:
    """How often a length is divided by the stride until few enough positions are left."""
    return max(0, math.ceil(math.log(length / _MOST_CELLS, _STRIDE) - 1e-9))


def _channels(width: int, stages: int) -> list[int]:
    """The channels at every length, from the longest; there are no layers at full length, where they cost most."""
    return [width * min(2**stage, 4) for stage in range(max(1, stages))]


def _groups(channels: int) -> int:
    """The most groups, up to eight, of four channels or more: a single number would be normalised to nothing."""
    return next(groups for groups in (8, 4, 2, 1) if groups == 1 or channels % (4 * groups) == 0)


def _dense(inputs: int, *widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.SiLU()]
        inputs = width
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """Two normalised convolutions beside a straight way (He et al., 2016, with the activation first)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [
                nn.GroupNorm(_groups(channels), channels),
                nn.SiLU(),
                nn.Conv1d(channels, channels, 3, padding=1),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _SignalTrunk(nn.Module):
    """`[N, channels, length]` to features `[N, features]`."""

    def __init__(self, shape: Shape, width: int, depth: int) -> None:
        super().__init__()
        channels, length = shape
        stages = _stages(length)
        cells = math.ceil(length / _STRIDE**stages)
        self.lack = cells * _STRIDE**stages - length
        layers: list[nn.Module] = [] if stages else [nn.Conv1d(channels, width, 3, padding=1)]
        widths, above = _channels(width, stages), channels
        for here in widths:
            if stages:
                # Every output sees two strides of the input, so that nothing falls between two of them.
                layers.append(nn.Conv1d(above, here, 2 * _STRIDE, stride=_STRIDE, padding=_STRIDE // 2))
            layers += [_Residual(here) for _ in range(depth)]
            above = here
        self.features = widths[-1] * cells + 2 * channels
        self.layers = nn.Sequential(*layers, nn.GroupNorm(_groups(widths[-1]), widths[-1]), nn.SiLU(), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(2)
        spread = (x - mean[..., None]).square().mean(2).add(1e-6).log() / 2
        padded = F.pad(x, (0, self.lack), mode="replicate") if self.lack else x
        return torch.cat([self.layers(4 * padded - 2), 4 * mean - 2, spread + 2], dim=1)


class _VectorTrunk(nn.Module):
    """A vector or a number, `[N, *shape]`, to features `[N, features]`."""

    def __init__(self, shape: Shape, hidden: int) -> None:
        super().__init__()
        self.features = hidden
        self.layers = _dense(math.prod(shape), hidden)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x.reshape(len(x), -1))
        return features


class _Encoder(nn.Module):
    """A trunk for every read, their features joined, and two dense layers."""

    def __init__(self, trunks: list[_SignalTrunk | _VectorTrunk], hidden: int, outputs: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)
        self.head = nn.Sequential(_dense(sum(trunk.features for trunk in trunks), hidden), nn.Linear(hidden, outputs))

    def forward(self, *reads: Tensor) -> Tensor:
        features = [trunk(read) for trunk, read in zip(self.trunks, reads, strict=True)]
        outputs: Tensor = self.head(torch.cat(features, dim=1))
        return outputs


class _SignalDecoder(nn.Module):
    """Dense layers to a few positions, then longer and longer: `[N, inputs]` to `[N, channels, length]`."""

    def __init__(self, inputs: int, raw_shape: Shape, width: int, depth: int, hidden: int) -> None:
        super().__init__()
        channels, self.length = raw_shape
        stages = _stages(self.length)
        widths = _channels(width, stages)[::-1]
        self.first = widths[0]
        self.dense = nn.Sequential(
            _dense(inputs, hidden), nn.Linear(hidden, self.first * math.ceil(self.length / _STRIDE**stages))
        )
        layers: list[nn.Module] = []
        for here, below in zip(widths, [*widths[1:], channels], strict=True):
            layers += [_Residual(here) for _ in range(depth)]
            layers += [nn.GroupNorm(_groups(here), here), nn.SiLU()]
            if stages:
                layers += [nn.Conv1d(here, _STRIDE * below, 3, padding=1), _Interleave()]
            else:
                layers.append(nn.Conv1d(here, below, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        cells = self.dense(codes)
        signals: Tensor = self.layers(cells.view(len(codes), self.first, -1))
        return signals[..., : self.length]


class _Interleave(nn.Module):
    """Channels become positions, `[N, stride * C, length]` to `[N, C, stride * length]`: a pixel shuffle of signals."""

    def forward(self, x: Tensor) -> Tensor:
        split = x.view(len(x), -1, _STRIDE, x.shape[2])
        return split.transpose(2, 3).reshape(len(x), -1, _STRIDE * x.shape[2])
