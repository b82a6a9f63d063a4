"""Networks: what makes the stock encoders and decoders of a pair, for images, signals, volumes, vectors and numbers.

An encoder is called with what its block reads, each `[N, *shape]`, and gives `[N, outputs]`. A decoder is called with the
joined blocks, `[N, inputs]`, and gives the raw parameters of a likelihood, `[N, *raw_shape]`. Every parameter is made when
the module is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace.errors import DeclarationError, is_whole
from infoplace.registry import Configurable, Description, Registry

__all__ = ["Network", "describe_network", "list_networks", "make_network", "register_network"]

Shape = tuple[int, ...]
Registered = TypeVar("Registered", bound="type[Network]")


class Network(Configurable):
    """What makes encoders and decoders. A subclass says how, in :meth:`encoder` and :meth:`decoder`.

    One whose modules share parts, or differ by the block that they are for, defines :meth:`encoders` or :meth:`decoders`
    instead, which make those of all blocks and observations.

    >>> class Linear(Network):
    ...     "One affine map each way."
    ...     def encoder(self, reads, outputs):
    ...         return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(next(iter(reads.values()))), outputs))
    ...     def decoder(self, inputs, raw_shape):
    ...         return nn.Sequential(nn.Linear(inputs, math.prod(raw_shape)), nn.Unflatten(1, raw_shape))
    >>> register_network("linear_example", Linear)().decoder(3, (2, 8, 8))(torch.zeros(5, 3)).shape
    torch.Size([5, 2, 8, 8])
    """

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        """A module from what a block reads to the parameters of its posterior.

        Args:
            reads: name -> shape of one sample, in the order in which the module is called with them.
            outputs: how many numbers it gives for a sample.

        Raises:
            DeclarationError: a shape that this network cannot read.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no encoder(self, reads, outputs)")

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        """A module from joined blocks to the raw parameters of a likelihood.

        Args:
            inputs: how many numbers it is given for a sample.
            raw_shape: the shape of what it gives for a sample.

        Raises:
            DeclarationError: a shape that this network cannot make.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no decoder(self, inputs, raw_shape)")

    def encoders(self, reads: Mapping[str, Mapping[str, Shape]], outputs: Mapping[str, int]) -> dict[str, nn.Module]:
        """The encoder of every block: here one :meth:`encoder` each, made in order.

        Args:
            reads: ``{block: {name: shape of one sample}}``, each in the order in which the module is called with them.
            outputs: ``{block: how many numbers its encoder gives for a sample}``.

        Raises:
            DeclarationError: what this network cannot read.

        >>> encoders = make_network("small").encoders({"z": {"x": (3, 16, 16)}}, {"z": 8})
        >>> encoders["z"](torch.zeros(5, 3, 16, 16)).shape
        torch.Size([5, 8])
        """
        return {block: self.encoder(read, outputs[block]) for block, read in reads.items()}

    def decoders(
        self, inputs: Mapping[str, Mapping[str, int]], raw_shapes: Mapping[str, Shape]
    ) -> dict[str, nn.Module]:
        """The decoder of every observation: here one :meth:`decoder` each, made in order.

        Args:
            inputs: ``{observation: {block or covariate: its dimensions}}``, in the order in which they are joined.
            raw_shapes: ``{observation: shape of what its decoder gives for a sample}``.

        Raises:
            DeclarationError: what this network cannot make.

        >>> decoders = make_network("small").decoders({"x": {"z_l": 3, "z_g": 5}}, {"x": (6, 16, 16)})
        >>> decoders["x"](torch.zeros(5, 8)).shape
        torch.Size([5, 6, 16, 16])
        """
        return {name: self.decoder(sum(joined.values()), raw_shapes[name]) for name, joined in inputs.items()}


_registry: Registry[Network] = Registry("network", Network, "infoplace.networks")


@overload
def register_network(
    name: str, implementation: None = None, /, *, overwrite: bool = False
) -> Callable[[Registered], Registered]: ...
@overload
def register_network(name: str, implementation: Registered, /, *, overwrite: bool = False) -> Registered: ...
@overload
def register_network(
    name: str, /, *, alias: str | None = None, overwrite: bool = False, **parameters: Any
) -> Network: ...
def register_network(
    name: str, implementation: Any = None, /, *, alias: str | None = None, overwrite: bool = False, **parameters: Any
) -> Any:
    """Register a network of your own, or set the defaults of a known one.

    With a class (or, with the name alone, as a decorator) it registers the class. With parameters it checks them, makes
    them what the bare name (or ``alias``) means, and returns the network.

    Raises:
        DeclarationError: a class that is no network, a name of another owner, or bad parameters.
        UnknownNameError: parameters for a name that is not registered.

    >>> register_network("small", width=32, alias="tiny").width
    32
    """
    register: Any = _registry.register  # its overloads leave out the mistakes that it has messages for
    return register(name, implementation, alias=alias, overwrite=overwrite, **parameters)


def make_network(spec: Any, /, **parameters: Any) -> Network:
    """The network that a spec means: a name, ``{name: {parameter: value}}``, or a network.

    Raises:
        DeclarationError: a spec of another form, or bad parameters.
        UnknownNameError: an unknown name.

    >>> make_network({"small": {"width": 32}}).to_spec()["small"]["width"]
    32
    """
    return _registry.make(spec, **parameters)


def list_networks() -> list[str]:
    """The names of all networks, sorted.

    >>> {"paper", "resnet", "small"} <= set(list_networks())
    True
    """
    return _registry.names()


def describe_network(name: str) -> Description:
    """What is known of a network. Raises UnknownNameError for an unknown name.

    >>> describe_network("paper").name
    'paper'
    """
    return _registry.describe(name)


# ---- pieces ----------------------------------------------------------------------------------------------------------

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _convolution(dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    return CONVOLUTIONS[dims - 1](inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2)


def _groups(channels: int) -> int:
    """The most groups, up to eight, that divide the channels."""
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


class _Pad(nn.Module):
    """Sizes that ``multiple`` does not divide are padded with what is at their end, up to :attr:`sizes`."""

    def __init__(self, sizes: Shape, multiple: int) -> None:
        super().__init__()
        self.sizes = tuple(math.ceil(size / multiple) * multiple for size in sizes)
        lacking = [padded - size for padded, size in zip(self.sizes, sizes, strict=True)]
        self.padding = [amount for lack in reversed(lacking) for amount in (0, lack)] if any(lacking) else None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.padding is None else F.pad(x, self.padding, mode="replicate")


class _Cut(nn.Module):
    """The inverse of padding: the first positions along every dimension, `[N, C, *padded]` to `[N, C, *sizes]`."""

    def __init__(self, sizes: Shape) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        for dimension, size in enumerate(self.sizes, start=2):
            x = x.narrow(dimension, 0, size)
        return x


class _Cells(nn.Module):
    """Cells of ``side`` positions along every dimension become channels: `[N, C, *sizes]` to `[N, C * side**d, *cells]`.

    On images that ``side`` divides, this is :class:`torch.nn.PixelUnshuffle`.
    """

    def __init__(self, sizes: Shape, side: int) -> None:
        super().__init__()
        self.side = side
        self.pad = _Pad(sizes, side)
        self.cells = tuple(size // side for size in self.pad.sizes)

    def forward(self, x: Tensor) -> Tensor:
        x, dims = self.pad(x), len(self.cells)
        split = x.reshape(*x.shape[:2], *(n for cells in self.cells for n in (cells, self.side)))
        order = (0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2))
        return split.permute(order).reshape(x.shape[0], -1, *self.cells)


class _Uncells(nn.Module):
    """The inverse: `[N, C * side**d, *cells]` to `[N, C, *sizes]`, cut to the sizes."""

    def __init__(self, sizes: Shape, side: int) -> None:
        super().__init__()
        self.dims = len(sizes)
        self.side = side
        self.cut = _Cut(sizes)

    def forward(self, x: Tensor) -> Tensor:
        dims, cells = self.dims, x.shape[2:]
        split = x.reshape(x.shape[0], -1, *([self.side] * dims), *cells)
        order = (0, 1, *(d for index in range(dims) for d in (2 + dims + index, 2 + index)))
        return self.cut(split.permute(order).reshape(*split.shape[:2], *(n * self.side for n in cells)))


class _Trunk(nn.Module):
    """What reads one observation: `[N, *shape]` to features `[N, features]` and to what passes by, `[N, direct]`."""

    features: int
    direct: int


class _Encoder(nn.Module):
    """A trunk for every read, their features joined, and a head; what passes by a trunk goes straight to the end, too."""

    def __init__(self, trunks: Sequence[_Trunk], width: int, outputs: int) -> None:
        super().__init__()
        features, direct = sum(trunk.features for trunk in trunks), sum(trunk.direct for trunk in trunks)
        self.trunks = nn.ModuleList(trunks)
        self.head = nn.Sequential(
            nn.Linear(features + direct, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, outputs)
        )
        self.direct = nn.Linear(direct, outputs)

    def forward(self, *reads: Tensor) -> Tensor:
        features, direct = zip(*(trunk(read) for trunk, read in zip(self.trunks, reads, strict=True)), strict=True)
        passed = torch.cat(direct, dim=1)
        return self.head(torch.cat([*features, passed], dim=1)) + self.direct(passed)


class _VectorTrunk(_Trunk):
    """A vector or a number: one layer, and all of it passes by."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.features, self.direct = width, math.prod(shape)
        self.layers = nn.Sequential(nn.Linear(self.direct, width), nn.LayerNorm(width), nn.SiLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.reshape(x.shape[0], -1)
        return self.layers(x), x


class _Reshape(nn.Module):
    """`[N, numbers]` to `[N, *shape]`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


class _VectorDecoder(nn.Module):
    """Two hidden layers, and a straight way past them."""

    def __init__(self, inputs: int, width: int, raw_shape: Shape) -> None:
        super().__init__()
        outputs = math.prod(raw_shape)
        self.hidden = nn.Sequential(
            nn.Linear(inputs, width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, outputs),
        )  # fmt: skip
        self.direct = nn.Linear(inputs, outputs)
        self.reshape = _Reshape(raw_shape)

    def forward(self, codes: Tensor) -> Tensor:
        return self.reshape(self.hidden(codes) + self.direct(codes))


def _check_sizes(network: Network, **sizes: int) -> None:
    for key, value in sizes.items():
        if not is_whole(value) or value < 1:
            raise DeclarationError(f"{network.spec_name}: {key} must be a whole number of at least 1; got {value!r}")


def _check_shape(network: Network, shape: Shape, what: str) -> None:
    if len(shape) > 4:
        raise DeclarationError(
            f"{network.spec_name}: {what} has shape {shape}; this network takes numbers (), vectors [length], and grids "
            "[channels, ...] of one to three dimensions; for others give modules of your own: "
            "networks={'encoders': {block: module}, 'decoders': {observation: module}}"
        )


def _encoder(
    network: Network, reads: Mapping[str, Shape], outputs: int, hidden: int, grid_trunk: Callable[[Shape], _Trunk]
) -> _Encoder:
    """An encoder with ``grid_trunk`` for every grid among the reads, and dense layers for vectors and numbers."""
    trunks: list[_Trunk] = []
    for name, shape in reads.items():
        _check_shape(network, shape, f"the read {name!r}")
        trunks.append(_VectorTrunk(shape, hidden) if len(shape) < 2 else grid_trunk(shape))
    return _Encoder(trunks, hidden, outputs)


# ---- small -----------------------------------------------------------------------------------------------------------


def _cell_side(sizes: Shape) -> int:
    """Cells of 4 positions a side, larger ones where there would be more than 8 along a side."""
    return max(4, 2 ** math.ceil(math.log2(max(sizes) / 8)))


class _SmallTrunk(_Trunk):
    """Cells, one layer for each, a few channels of every cell; mean, spread and skewness pass by.

    The grid is read with its mean, its spread and the sign of its brightness's skewness taken out, so that shape is seen
    apart from colour, contrast and polarity: a dark figure on a light ground looks like a light one on a dark ground.
    """

    def __init__(self, shape: Shape, width: int, depth: int, channels: int) -> None:
        super().__init__()
        dims, side = len(shape) - 1, _cell_side(shape[1:])
        cells = _Cells(shape[1:], side)
        layers: list[nn.Module] = [cells, _convolution(dims, shape[0] * side**dims, width, 1)]
        for _ in range(depth):
            layers += [nn.GroupNorm(_groups(width), width), nn.SiLU(), _convolution(dims, width, width, 3)]
        layers += [nn.GroupNorm(_groups(width), width), nn.SiLU(), _convolution(dims, width, channels, 1), nn.Flatten()]
        self.features, self.direct = channels * math.prod(cells.cells), 2 * shape[0] + 1
        self.layers = nn.Sequential(*layers, nn.LayerNorm(self.features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.flatten(2)
        mean = flat.mean(2)
        # Tensor.var takes some four times as long on a CPU.
        variance = (flat - mean.unsqueeze(2)).square().mean(2) + 1e-4
        # One spread for all channels keeps the hue of what differs from the mean.
        common = variance.mean(1, keepdim=True).sqrt()
        ones = (1,) * (x.ndim - 2)
        normal = (x - mean.reshape(*mean.shape, *ones)) / common.reshape(-1, 1, *ones)
        # The ground is most of a picture, so what stands out from it pulls the third moment to its own side. Brightness
        # alone changes its sign: the hues of a figure and its ground do not depend on which of them is the brighter.
        brightness = normal.mean(1, keepdim=True)
        skewness = brightness.flatten(1).pow(3).mean(1)
        change = torch.where(skewness < 0, -2.0, 0.0).to(x.dtype)
        passed = [(mean - 0.5) * 4, variance.log() / 2 + 2, skewness.clamp(-2, 2).unsqueeze(1)]
        return self.layers(normal + change.reshape(-1, 1, *ones) * brightness), torch.cat(passed, dim=1)


class _SmallDecoder(nn.Module):
    """A few full-resolution maps, and for every sample the raw parameters' share of each: shapes, times colours."""

    def __init__(
        self, inputs: int, raw_shape: Shape, width: int, depth: int, channels: int, hidden: int, maps: int
    ) -> None:
        super().__init__()
        dims, side = len(raw_shape) - 1, _cell_side(raw_shape[1:])
        cells = tuple(math.ceil(size / side) for size in raw_shape[1:])
        layers: list[nn.Module] = [
            nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.SiLU(),
            nn.Linear(hidden, channels * math.prod(cells)), _Reshape((channels, *cells)),
            nn.GroupNorm(_groups(channels), channels), _convolution(dims, channels, width, 3),
        ]  # fmt: skip
        for _ in range(depth):
            layers += [nn.GroupNorm(_groups(width), width), nn.SiLU(), _convolution(dims, width, width, 3)]
        layers += [nn.GroupNorm(_groups(width), width), nn.SiLU(), _convolution(dims, width, maps * side**dims, 1)]
        self.maps = nn.Sequential(*layers, _Uncells(raw_shape[1:], side))
        self.shares = nn.Sequential(
            nn.Linear(inputs, hidden // 2), nn.SiLU(), nn.Linear(hidden // 2, raw_shape[0] * (maps + 1))
        )
        self.raw_shape = raw_shape
        self.count = maps

    def forward(self, codes: Tensor) -> Tensor:
        maps = self.maps(codes).flatten(2) / math.sqrt(self.count)
        shares = self.shares(codes).reshape(-1, self.raw_shape[0], self.count + 1)
        return torch.baddbmm(shares[..., -1:], shares[..., :-1], maps).reshape(-1, *self.raw_shape)


@register_network("small")
class Small(Network):
    """About a million weights for 32x32 images: good digits and colours in minutes on two processor cores.

    Grids (images `[channels, height, width]`, signals `[channels, length]`, volumes) are read and written in cells, with
    few convolutions at full resolution. The encoder sees shape apart from colour, contrast and polarity; the decoder makes
    maps and, for each sample, their colours. Vectors and numbers go through two layers.

    Args:
        width: channels of the convolutions.
        depth: further 3x3 convolutions in encoder and decoder.
        channels: channels of every cell at the joint with the dense layers.
        hidden: width of the dense layers.
        maps: full-resolution maps that the decoder mixes.
    """

    width: int = 64
    depth: int = 0
    channels: int = 16
    hidden: int = 256
    maps: int = 8

    def __post_init__(self) -> None:
        _check_sizes(self, width=self.width, channels=self.channels, hidden=self.hidden, maps=self.maps)
        if not is_whole(self.depth) or self.depth < 0:
            raise DeclarationError(f"{self.spec_name}: depth must be a whole number of at least 0; got {self.depth!r}")

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        return _encoder(
            self, reads, outputs, self.hidden, lambda shape: _SmallTrunk(shape, self.width, self.depth, self.channels)
        )

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        _check_shape(self, raw_shape, "what is to be decoded")
        if len(raw_shape) < 2:
            return _VectorDecoder(inputs, self.hidden, raw_shape)
        return _SmallDecoder(inputs, raw_shape, self.width, self.depth, self.channels, self.hidden, self.maps)


# ---- paper -----------------------------------------------------------------------------------------------------------


class _PaperTrunk(_Trunk):
    """Three convolutions of stride two, or one dense layer for a vector; nothing passes by."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.direct = 0
        if len(shape) < 2:
            self.features = 4 * width
            self.layers = nn.Sequential(nn.Linear(math.prod(shape), self.features), nn.ReLU())
            return
        dims, pad = len(shape) - 1, _Pad(shape[1:], 8)
        self.features = 4 * width * math.prod(size // 8 for size in pad.sizes)
        self.layers = nn.Sequential(
            pad,
            _convolution(dims, shape[0], width, 6, stride=2), nn.ReLU(),
            _convolution(dims, width, 2 * width, 6, stride=2), nn.ReLU(),
            _convolution(dims, 2 * width, 4 * width, 4, stride=2), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x if x.ndim > 1 else x.unsqueeze(1))


class _PaperEncoder(nn.Module):
    def __init__(self, trunks: Sequence[_PaperTrunk], outputs: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)
        self.head = nn.Linear(sum(trunk.features for trunk in trunks), outputs)

    def forward(self, *reads: Tensor) -> Tensor:
        return self.head(torch.cat([trunk(read) for trunk, read in zip(self.trunks, reads, strict=True)], dim=1))


@register_network("paper")
class Paper(Network):
    """The paper's networks, as its authors' public code has them: 2.5 million weights for two blocks of 128 dimensions.

    Encoder: convolutions 6/stride 2/32, 6/stride 2/64, 4/stride 2/128 with ReLU, then a dense layer. Decoder: a dense layer
    to an eighth of the sizes and 128 channels, then three times upsampling (bilinear for images) and a convolution. Sizes
    that eight does not divide are padded, and what is decoded is cut. Vectors and numbers go through one dense layer.

    Args:
        width: channels of the first convolution; the others have two and four times as many.
    """

    width: int = 32

    def __post_init__(self) -> None:
        _check_sizes(self, width=self.width)

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        for name, shape in reads.items():
            _check_shape(self, shape, f"the read {name!r}")
        return _PaperEncoder([_PaperTrunk(shape, self.width) for shape in reads.values()], outputs)

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        _check_shape(self, raw_shape, "what is to be decoded")
        channels = 4 * self.width
        if len(raw_shape) < 2:
            dense = nn.Linear(channels, math.prod(raw_shape))
            return nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(), dense, _Reshape(raw_shape))
        dims, grid = len(raw_shape) - 1, tuple(math.ceil(size / 8) for size in raw_shape[1:])
        layers: list[nn.Module] = [
            nn.Linear(inputs, channels * math.prod(grid)),
            nn.ReLU(),
            _Reshape((channels, *grid)),
        ]
        for outputs in (2 * self.width, self.width, self.width):
            layers.append(nn.Upsample(scale_factor=2, mode=("linear", "bilinear", "trilinear")[dims - 1]))
            layers += [_convolution(dims, channels, outputs, 3), nn.ReLU()]
            channels = outputs
        return nn.Sequential(*layers, _convolution(dims, channels, raw_shape[0], 3), _Cut(raw_shape[1:]))


# ---- resnet ----------------------------------------------------------------------------------------------------------


class _Residual(nn.Module):
    """Two normalised 3x3 convolutions beside a straight way (He et al., 2016, with the activation first)."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_groups(inputs), inputs), nn.SiLU(), _convolution(dims, inputs, outputs, 3),
            nn.GroupNorm(_groups(outputs), outputs), nn.SiLU(), _convolution(dims, outputs, outputs, 3),
        )  # fmt: skip
        self.direct = nn.Identity() if inputs == outputs else _convolution(dims, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.direct(x) + self.layers(x)


class _ResnetTrunk(_Trunk):
    def __init__(self, shape: Shape, width: int, depth: int) -> None:
        super().__init__()
        dims, sizes, channels = len(shape) - 1, shape[1:], width
        layers: list[nn.Module] = [_convolution(dims, shape[0], width, 3)]
        while max(sizes) > 4:
            layers += [_Residual(dims, channels, channels) for _ in range(depth)]
            layers.append(_convolution(dims, channels, min(2 * channels, 4 * width), 3, stride=2))
            channels = min(2 * channels, 4 * width)
            sizes = tuple((size + 1) // 2 for size in sizes)
        layers += [
            _Residual(dims, channels, channels),
            nn.GroupNorm(_groups(channels), channels),
            nn.SiLU(),
            nn.Flatten(),
        ]
        self.layers = nn.Sequential(*layers)
        self.features, self.direct = channels * math.prod(sizes), shape[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layers(x), x.flatten(2).mean(2)


@register_network("resnet")
class Resnet(Network):
    """Residual networks for an accelerator: tens of millions of weights for 32x32 images.

    Grids are halved down to 4 positions a side and doubled up again, with residual blocks at every size. Vectors and
    numbers go through two layers.

    Args:
        width: channels at full resolution; up to four times as many below.
        depth: residual blocks at every size.
        hidden: width of the dense layers.
    """

    width: int = 64
    depth: int = 2
    hidden: int = 512

    def __post_init__(self) -> None:
        _check_sizes(self, width=self.width, depth=self.depth, hidden=self.hidden)

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        return _encoder(self, reads, outputs, self.hidden, lambda shape: _ResnetTrunk(shape, self.width, self.depth))

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        _check_shape(self, raw_shape, "what is to be decoded")
        if len(raw_shape) < 2:
            return _VectorDecoder(inputs, self.hidden, raw_shape)
        dims = len(raw_shape) - 1
        doublings = max(0, math.ceil(math.log2(max(raw_shape[1:]) / 4)))
        cells = tuple(math.ceil(size / 2**doublings) for size in raw_shape[1:])
        channels = min(2**doublings, 4) * self.width
        layers: list[nn.Module] = [
            nn.Linear(inputs, self.hidden), nn.LayerNorm(self.hidden), nn.SiLU(),
            nn.Linear(self.hidden, channels * math.prod(cells)), _Reshape((channels, *cells)),
        ]  # fmt: skip
        for remaining in reversed(range(doublings)):
            outputs = min(2**remaining, 4) * self.width
            layers += [_Residual(dims, channels, outputs), nn.Upsample(scale_factor=2)]
            layers += [_Residual(dims, outputs, outputs) for _ in range(self.depth - 1)]
            channels = outputs
        layers += [_Residual(dims, channels, channels), nn.GroupNorm(_groups(channels), channels), nn.SiLU()]
        return nn.Sequential(*layers, _convolution(dims, channels, raw_shape[0], 3), _Cut(raw_shape[1:]))
