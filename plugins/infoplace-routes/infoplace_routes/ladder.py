"""A variational ladder autoencoder: the depth of the way to a block places the information (Zhao, Song and Ermon, 2017).

Bottom up, ``h_l = g_l(h_{l-1})`` from ``h_0 = x``, and ``q(z_l | x)`` is read off ``h_l``. Top down, ``t_L = u_L(v_L(z_L))`` and
``t_l = u_l([t_{l+1}; v_l(z_l)])``, and ``p(x | z)`` is made of ``t_1`` ("Learning hierarchical features from deep generative
models", the variational ladder autoencoder). The prior is flat and the blocks are independent in it: nothing but the depth
tells them apart, so what takes few layers to tell and to draw goes to the shallow blocks, and what takes many to the deep ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from infoplace import DeclarationError, Network
from torch import Tensor, nn

from infoplace_routes.checks import check_whole

__all__ = ["Ladder"]

Shape = tuple[int, ...]
_TOGETHER = (
    "ladder: its encoders share a trunk and its decoder takes the blocks in one after the other, so it makes those of all "
    "blocks at once; give it as the networks of a whole pair, make_pair(partition, shape, networks='ladder')"
)


def _groups(channels: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _dense(inputs: int, hidden: int, outputs: int, depth: int) -> list[nn.Module]:
    """``depth`` hidden layers and a linear one."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.SiLU()]
        inputs = hidden
    return [*layers, nn.Linear(inputs, outputs)]


class _Residual(nn.Module):
    """Two normalised 3x3 convolutions beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(_groups(width), width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Trunk(nn.Module):
    """Features of an image at every depth, `[N, width, height / (cell 2**rung), width / (cell 2**rung)]`; all blocks share it."""

    def __init__(self, channels: int, width: int, cell: int, rungs: int) -> None:
        super().__init__()
        # Normalised only on the way down to the deeper rungs: the shallowest sees colour and contrast as they are.
        steps: list[nn.Module] = [
            nn.Sequential(nn.PixelUnshuffle(cell), nn.Conv2d(channels * cell**2, width, 1), nn.SiLU())
        ]
        for _ in range(rungs - 1):
            down = nn.Conv2d(width, width, 3, stride=2, padding=1)
            steps.append(nn.Sequential(down, _Residual(width), nn.SiLU()))
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor, rung: int) -> Tensor:
        features = x * 2 - 1
        for step in self.steps[: rung + 1]:
            features = step(features)
        return features


class _RungEncoder(nn.Module):
    """The encoder of one block: the trunk up to its rung, and as many hidden layers as the rung is deep."""

    def __init__(self, trunk: _Trunk, rung: int, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.rung = rung
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x, self.rung))


class _LadderDecoder(nn.Module):
    """The joined blocks `[N, inputs]` to raw parameters `[N, *raw_shape]`: the deepest block first, the shallowest last."""

    def __init__(
        self, dims: Sequence[int], places: Sequence[int], inject: Sequence[nn.Module], steps: Sequence[nn.Module],
        paint: nn.Module,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dims = list(dims)
        """The blocks' sizes, in the order in which they are joined."""
        self.places = list(places)
        """For each rung, which of the joined blocks is its own."""
        self.inject = nn.ModuleList(inject)
        self.steps = nn.ModuleList(steps)
        self.paint = paint

    def forward(self, codes: Tensor) -> Tensor:
        parts = codes.split(self.dims, dim=1)
        state: Tensor | None = None
        for rung in reversed(range(len(self.dims))):
            own = self.inject[rung](parts[self.places[rung]])
            if state is None:
                state = own
            else:
                wider = state.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
                state = torch.cat([wider, own], dim=1)
            state = self.steps[rung](state)
        return self.paint(state)


class Ladder(Network):
    """A variational ladder: shallow blocks take what is told in few layers, deep blocks what takes many.

    The first block that is declared is the shallowest and the last the deepest, unless `order` says otherwise. The shallowest
    reads and writes the image in cells of `cell` pixels, and is one linear map away from them; every further rung halves the
    grid, with three convolutions, and has one more hidden layer. The blocks share the trunk that reads.

    All blocks read one and the same image, and every observation is that image and hangs on all of them. Depth alone
    places: an auxiliary observation would do so, too, and is refused.

    Args:
        order: the blocks from the shallowest to the deepest; None takes them as they are declared.
        width: channels of the convolutions.
        channels: channels at the joint of the shallowest rung with its linear map; the deeper rungs have `width` there.
        hidden: width of the dense layers.
        cell: the side of the cells, in pixels. ``cell * 2**(blocks - 1)`` divides the image's height and width.

    Raises:
        DeclarationError: a parameter out of its range, or, when the modules are made, a partition that it cannot serve.

    >>> Ladder(order=("z_l", "z_g")).rungs(("z_g", "z_l"))
    ('z_l', 'z_g')
    """

    order: tuple[str, ...] | None = None
    width: int = 64
    channels: int = 16
    hidden: int = 256
    cell: int = 4

    def __post_init__(self) -> None:
        for key in ("width", "channels", "hidden", "cell"):
            check_whole("ladder", key, getattr(self, key))
        if self.order is not None:
            names = isinstance(self.order, (list, tuple)) and all(isinstance(name, str) for name in self.order)
            if not names or len(set(self.order)) != len(self.order):
                raise DeclarationError(
                    "ladder: order must be a list of different blocks, from the shallowest to the deepest, as "
                    f"['z_l', 'z_g']; got {self.order!r}"
                )
            object.__setattr__(self, "order", tuple(self.order))

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        """Refused, as a rung is one of several.

        Raises:
            DeclarationError: always.
        """
        raise DeclarationError(_TOGETHER)

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        """Refused, as the blocks come in one after the other.

        Raises:
            DeclarationError: always.
        """
        raise DeclarationError(_TOGETHER)

    def rungs(self, blocks: Sequence[str]) -> tuple[str, ...]:
        """The blocks from the shallowest to the deepest.

        Args:
            blocks: their names, as they are declared.

        Raises:
            DeclarationError: a single block, or an `order` that names others.
        """
        if len(blocks) < 2:
            raise DeclarationError(
                f"ladder: depth tells blocks apart, and there is one, {_names(blocks)}; declare at least two blocks, or use the "
                "network 'small'"
            )
        order = tuple(blocks) if self.order is None else self.order
        if sorted(order) != sorted(blocks):
            raise DeclarationError(
                f"ladder: order names {_names(order)}, and the blocks are {_names(blocks)}; name each of them once"
            )
        return order

    def encoders(self, reads: Mapping[str, Mapping[str, Shape]], outputs: Mapping[str, int]) -> dict[str, nn.Module]:
        """The encoders of all blocks.

        Args:
            reads: ``{block: {observation: shape}}``.
            outputs: ``{block: how many numbers its encoder gives for a sample}``.

        Raises:
            DeclarationError: blocks that do not all read one image, or sizes that cannot be halved often enough.

        >>> x = {"x": (3, 16, 16)}
        >>> encoders = Ladder().encoders({"z_l": x, "z_g": x}, {"z_l": 8, "z_g": 16})
        >>> [encoder(torch.zeros(5, 3, 16, 16)).shape[1] for encoder in encoders.values()]
        [8, 16]
        """
        rungs = self.rungs(tuple(reads))
        first, *others = [dict(read) for read in reads.values()]
        if len(first) != 1 or any(read != first for read in others):
            told = "; ".join(f"{block!r} reads {_names(tuple(read))}" for block, read in reads.items())
            raise DeclarationError(
                f"ladder: all blocks climb one trunk, so all read one and the same observation, and here {told}; declare a "
                "single observation, without covariates"
            )
        (shape,) = first.values()
        grids = self._grids(shape, len(rungs), f"what the blocks read, {next(iter(first))!r},")
        trunk = _Trunk(shape[0], self.width, self.cell, len(rungs))
        made: dict[str, nn.Module] = {}
        for rung, block in enumerate(rungs):
            channels, size = self._joint(rung, grids[rung])
            head = nn.Sequential(
                nn.Conv2d(self.width, channels, 1),
                nn.Flatten(),
                *([nn.LayerNorm(size)] if rung > 0 else []),
                *_dense(size, self.hidden, outputs[block], depth=rung),
            )
            made[block] = _RungEncoder(trunk, rung, head)
        return {block: made[block] for block in reads}

    def decoders(
        self, inputs: Mapping[str, Mapping[str, int]], raw_shapes: Mapping[str, Shape]
    ) -> dict[str, nn.Module]:
        """The decoders of all observations.

        Args:
            inputs: ``{observation: {block: dimensions}}``, in the order in which the blocks are joined.
            raw_shapes: ``{observation: shape}``, of what each decoder gives for a sample.

        Raises:
            DeclarationError: an observation that does not hang on all blocks, or sizes that cannot be halved often enough.

        >>> decoders = Ladder().decoders({"x": {"z_l": 4, "z_g": 8}}, {"x": (6, 16, 16)})
        >>> decoders["x"](torch.zeros(5, 12)).shape
        torch.Size([5, 6, 16, 16])
        """
        blocks = {block for dims in inputs.values() for block in dims}
        for name, dims in inputs.items():
            if set(dims) != blocks:
                raise DeclarationError(
                    f"ladder: depth alone places the information, so every observation hangs on all blocks, and {name!r} hangs "
                    f"on {_names(tuple(dims))}; declare {{'x': ip.Observation()}} alone"
                )
        return {
            name: self._decoder(dims, raw_shapes[name], f"the raw parameters of {name!r}")
            for name, dims in inputs.items()
        }

    def _decoder(self, dims: Mapping[str, int], raw_shape: Shape, what: str) -> nn.Module:
        rungs = self.rungs(tuple(dims))
        grids = self._grids(raw_shape, len(rungs), what)
        inject: list[nn.Module] = []
        steps: list[nn.Module] = []
        for rung, block in enumerate(rungs):
            channels, size = self._joint(rung, grids[rung])
            inject.append(
                nn.Sequential(
                    *_dense(dims[block], self.hidden, size, depth=rung),
                    nn.Unflatten(1, (channels, *grids[rung])),
                    nn.Conv2d(channels, self.width, 1),
                )
            )
            joined = self.width if block == rungs[-1] else 2 * self.width
            layers: list[nn.Module] = [nn.Conv2d(joined, self.width, 3, padding=1)]
            if rung > 0:
                layers.append(_Residual(self.width))
            steps.append(nn.Sequential(*layers, nn.SiLU()))
        places = [list(dims).index(block) for block in rungs]
        paint = nn.Sequential(nn.Conv2d(self.width, raw_shape[0] * self.cell**2, 1), nn.PixelShuffle(self.cell))
        return _LadderDecoder(list(dims.values()), places, inject, steps, paint)

    def _joint(self, rung: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Channels at a rung's joint with its dense layers, and how many numbers they are."""
        channels = self.channels if rung == 0 else self.width
        return channels, channels * grid[0] * grid[1]

    def _grids(self, shape: Shape, rungs: int, what: str) -> list[tuple[int, int]]:
        """The grid of every rung, `(height, width)`, from the shallowest to the deepest."""
        if len(shape) != 3:
            raise DeclarationError(
                f"ladder: {what} has shape {tuple(shape)}; it takes images [channels, height, width]; for others use the "
                "network 'small'"
            )
        step = self.cell * 2 ** (rungs - 1)
        height, width = shape[1:]
        if height % step or width % step:
            smaller = next(
                (cell for cell in range(self.cell - 1, 0, -1) if _divides(cell * step // self.cell, shape)), 0
            )
            advice = f"cell={smaller} would do" if smaller else f"pad or resize the images to a multiple of {step}"
            raise DeclarationError(
                f"ladder: {what} is {height}x{width}, and {rungs} blocks with cells of {self.cell} pixels take sizes that "
                f"{step} divides; {advice}"
            )
        return [(height // (self.cell * 2**rung), width // (self.cell * 2**rung)) for rung in range(rungs)]


def _divides(step: int, shape: Shape) -> bool:
    return shape[1] % step == 0 and shape[2] % step == 0
