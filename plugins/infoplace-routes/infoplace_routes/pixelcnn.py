"""An autoregressive decoder with a small field of view: it keeps the local part, and leaves the global part to the latents.

``p(x | z) = prod_i p(x_i | the pixels before i that the field holds, z)``: what a pixel's neighbours tell of it costs the latents
nothing, so they have no use for it (Chen et al., 2016, "Variational lossy autoencoder", section 3.1; Gulrajani et al., 2016,
"PixelVAE"). How much the decoder keeps is chosen by the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from infoplace import DeclarationError, DiscretizedLogistic, Network, make_likelihood, make_network
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from infoplace_routes.checks import check_whole

__all__ = ["AutoregressiveLogistic", "FieldNetwork", "PixelCNN"]

Shape = tuple[int, ...]


class FieldNetwork(nn.Module):
    """What the pixels before a pixel say of it, together with what the latents say.

    One masked convolution sees the field, and further layers work on each pixel alone, so the field is seen as a whole, without
    the blind spot of stacked masked convolutions (van den Oord et al., 2016, "Conditional image generation with PixelCNN
    decoders", section 2.2). The last layer starts at zero: at first the pixels say nothing.

    Args:
        channels: the image's channels.
        field: how far it sees, in pixels, at least 1: ``field`` rows above, in each of them ``field`` pixels to either side, and
            ``field`` pixels to the left in the pixel's own row.
        width: the channels of the hidden layers.
        depth: how many hidden layers work on each pixel alone, after the one that sees the field.

    >>> network = FieldNetwork(channels=3, field=1, width=8, depth=0)
    >>> network.visible
    ((-1, -1), (-1, 0), (-1, 1), (0, -1))
    >>> network(torch.zeros(2, 3, 4, 4), torch.zeros(2, 14, 4, 4)).shape
    torch.Size([2, 9, 4, 4])
    """

    mask: Tensor

    def __init__(self, channels: int, field: int, width: int, depth: int) -> None:
        super().__init__()
        self.channels, self.field = channels, field
        self.raw = 2 * channels
        """How many raw parameters of logistics a pixel has."""
        self.context = self.raw + width
        """How many channels the latents give: raw parameters to start from, and what the hidden layers read."""
        outputs = self.raw + channels * (channels - 1) // 2
        # The further input channel says where the image is, so that its edge is no grey pixel.
        self.look = nn.Conv2d(channels + 1, width, (field + 1, 2 * field + 1))
        mask = torch.ones(field + 1, 2 * field + 1)
        mask[field, field:] = 0
        self.register_buffer("mask", mask, persistent=False)
        layers: list[nn.Module] = [nn.SiLU()]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 1), nn.SiLU()]
        last = nn.Conv2d(width, outputs, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.mix = nn.Sequential(*layers, last)

    @property
    def visible(self) -> tuple[tuple[int, int], ...]:
        """The pixels that are seen, `(rows, columns)` from the pixel itself."""
        rows, columns = self.mask.nonzero(as_tuple=True)
        return tuple(
            (int(row) - self.field, int(column) - self.field) for row, column in zip(rows, columns, strict=True)
        )

    def frame(self, x: Tensor) -> Tensor:
        """Images with the channel that says where they are, and a border of the field above and to both sides.

        Args:
            x: `[N, channels, height, width]`.

        Returns:
            `[N, channels + 1, height + field, width + 2 field]`.
        """
        inside = torch.ones_like(x[:, :1])
        return F.pad(torch.cat([x - 0.5, inside], dim=1), (self.field, self.field, self.field, 0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """The raw parameters of every pixel, given the pixels before it.

        Args:
            x: `[N, channels, height, width]`, values in [0, 1].
            context: `[N, context, height, width]`.

        Returns:
            `[N, outputs, height, width]`: means, scales, and how much each channel's mean follows the channels before it.
        """
        return self.combine(F.conv2d(self.frame(x), self.look.weight * self.mask, self.look.bias), context)

    def combine(self, seen: Tensor, context: Tensor) -> Tensor:
        """As :meth:`forward`, given what the masked convolution saw, `[N, width, ...]`."""
        said = self.mix(seen + context[:, self.raw :])
        return torch.cat([context[:, : self.raw] + said[:, : self.raw], said[:, self.raw :]], dim=1)

    def see(self, framed: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What the masked convolution sees from some pixels alone.

        Args:
            framed: what :meth:`frame` returned.
            rows: `[pixels]`.
            columns: `[pixels]`.

        Returns:
            `[N, width, 1, pixels]`.
        """
        down = torch.arange(self.field + 1, device=rows.device)[:, None]
        across = torch.arange(2 * self.field + 1, device=rows.device)
        patches = framed[:, :, rows[:, None, None] + down, columns[:, None, None] + across]
        bias: Any = self.look.bias
        return torch.einsum("ncpij,wcij->nwp", patches, self.look.weight * self.mask).add(bias[:, None]).unsqueeze(2)


class AutoregressiveLogistic(TorchDistribution):
    """`p(x) = prod_i prod_c p(x_ic | the pixels of the field before i, the channels of i before c)`: grey values, in order.

    Pixels come row by row from the top left. Each value is a discretized logistic; a channel's mean is shifted by the values of
    the channels before it in the same pixel, ``a * (value - 1/2)`` for each with ``a`` between -1 and 1 (Salimans et al., 2017,
    "PixelCNN++", equation 3). A batch shape of any length, and the event shape `(channels, height, width)`.

    :meth:`log_prob` runs the network once, on the image itself. :meth:`sample` and :attr:`mean` have to go pixel by pixel; all
    pixels whose fields are complete are done at once, which takes ``width + (field + 1) (height - 1)`` steps.

    Args:
        context: what the latents say, `[*, network.context, height, width]`.
        network: what the pixels say.
        bins: how many grey values `k/(bins - 1)` there are.
        validate_args: check parameters and values; by default as Pyro is set.

    Raises:
        ValueError: under validation, a context that is not finite, and values that are no grey values.

    >>> network = FieldNetwork(channels=1, field=1, width=4, depth=0)
    >>> likelihood = AutoregressiveLogistic(torch.zeros(5, 6, 2, 2), network, bins=4)
    >>> likelihood.batch_shape, likelihood.event_shape
    (torch.Size([5]), torch.Size([1, 2, 2]))
    >>> likelihood.log_prob(likelihood.sample()).shape
    torch.Size([5])
    """

    arg_constraints = {"context": constraints.independent(constraints.real, 3)}  # noqa: RUF012 (torch declares it so)

    def __init__(
        self, context: Tensor, network: FieldNetwork, bins: int = 256, validate_args: bool | None = None
    ) -> None:
        self.context = context
        self.network = network
        self.bins = bins
        batch, (height, width) = context.shape[:-3], context.shape[-2:]
        super().__init__(batch, torch.Size((network.channels, height, width)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> AutoregressiveLogistic:
        """The same distribution with its batch shape expanded to ``batch_shape``."""
        new = self._get_checked_instance(AutoregressiveLogistic, _instance)
        shape = torch.Size(batch_shape)
        new.context, new.network, new.bins = (
            self.context.expand(*shape, *self.context.shape[-3:]),
            self.network,
            self.bins,
        )
        super(AutoregressiveLogistic, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=3)
    def support(self) -> constraints.Constraint:
        """The values `k/(bins - 1)` in [0, 1]."""
        one = torch.zeros(())
        return constraints.independent(DiscretizedLogistic(one, one + 1, bins=self.bins).support, 3)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of images in nats, `[*sample_shape, *batch_shape]`.

        Args:
            value: `[*sample_shape, *batch_shape, channels, height, width]`, numbers `k/(bins - 1)` in [0, 1].

        Raises:
            ValueError: under validation, values off the grid, or another shape.
        """
        return self.pixel_log_prob(value).sum((-2, -1))

    def pixel_log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of every pixel (its channels summed) given those before it, `[*, height, width]`.

        Takes what :meth:`log_prob` takes, and raises as it does.
        """
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-3])
        x = value.expand(*shape, *self.event_shape).reshape(-1, *self.event_shape)
        context = self.context.expand(*shape, *self.context.shape[-3:]).reshape(-1, *self.context.shape[-3:])
        raw = self._wide(self.network(x, context))
        shifts = [self._shift(raw, x[:, :channel]) for channel in range(self.network.channels)]
        logistics = self._logistics(raw, torch.stack(shifts, dim=1))
        return logistics.log_prob(x).sum(1).reshape(*shape, *self.event_shape[1:])

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own default)
        """Draws `[*sample_shape, *batch_shape, channels, height, width]` on the grid, each pixel given those before it."""
        shape = torch.Size(sample_shape) + self.batch_shape
        context = self.context.expand(*shape, *self.context.shape[-3:])
        return self._in_order(context, lambda logistic: logistic.sample())

    @property
    def mean(self) -> Tensor:
        """The picture that stands for the distribution, `[*batch_shape, channels, height, width]`, in [0, 1].

        Every value is the mean of its own conditional given the values before it that were chosen so. It is a function of the
        latents alone and free of noise. Where the pixels say something of each other, it is not the average of many draws, which
        has no closed form. Without gradients.
        """
        return self._in_order(self.context, lambda logistic: logistic.mean)

    # ---- one step -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _wide(raw: Tensor) -> Tensor:
        # Half precision is for the network: its few digits are too coarse for 256 grey values.
        return raw if raw.dtype == torch.float64 else raw.float()

    def _shift(self, raw: Tensor, before: Tensor) -> Tensor:
        """How far a channel's mean is moved by the channels ``before`` it, `[N, channels before, ...]` -> `[N, ...]`."""
        channel = before.shape[1]
        start = self.network.raw + channel * (channel - 1) // 2
        return (raw[:, start : start + channel].tanh() * (before - 0.5)).sum(1)

    def _logistics(self, raw: Tensor, shift: Tensor, channel: int | None = None) -> DiscretizedLogistic:
        """The conditionals of all channels, `[N, channels, ...]`, or of one, `[N, 1, ...]`."""
        channels = self.network.channels
        means, scales = raw[:, :channels], raw[:, channels : 2 * channels]
        if channel is not None:
            means, scales = means[:, channel : channel + 1], scales[:, channel : channel + 1]
        raw_pair = torch.stack([means + shift, scales], dim=1)
        stock = make_likelihood("discretized_logistic", bins=self.bins)
        return stock.distribution(raw_pair, -raw_pair.ndim + 1)

    @torch.no_grad()
    def _in_order(self, context: Tensor, choose: Callable[[DiscretizedLogistic], Tensor]) -> Tensor:
        """An image whose every value is what ``choose`` makes of its conditional, given the values before it."""
        leading, (height, width) = context.shape[:-3], context.shape[-2:]
        network, field, channels = self.network, self.network.field, self.network.channels
        context = context.reshape(-1, *context.shape[-3:])
        image = context.new_full((context.shape[0], channels, height, width), 0.5, dtype=self._wide(context).dtype)
        framed = network.frame(image)
        all_rows = torch.arange(height, device=context.device)
        # Pixel (i, j) sees nothing of time j + (field + 1) i and later, so all pixels of one time are done together.
        for time in range(width + (field + 1) * (height - 1)):
            columns = time - (field + 1) * all_rows
            rows = all_rows[max(0, -((width - 1 - time) // (field + 1))) : time // (field + 1) + 1]
            columns = columns[rows]
            seen = network.see(framed, rows, columns)
            raw = self._wide(network.combine(seen, context[:, :, rows, columns].unsqueeze(2)))
            values = raw[:, :0]
            for channel in range(channels):
                logistic = self._logistics(raw, self._shift(raw, values).unsqueeze(1), channel)
                values = torch.cat([values, choose(logistic)], dim=1)
            image[:, :, rows, columns] = values[:, :, 0]
            framed[:, :channels, rows + field, columns + field] = values[:, :, 0] - 0.5
        return image.reshape(*leading, *self.event_shape)


class _Decoder(nn.Module):
    """The joined blocks `[N, inputs]` to an :class:`AutoregressiveLogistic` over `[channels, height, width]`."""

    def __init__(self, start: nn.Module, network: FieldNetwork, bins: int) -> None:
        super().__init__()
        self.start = start
        self.network = network
        self.bins = bins

    def forward(self, codes: Tensor) -> AutoregressiveLogistic:
        return AutoregressiveLogistic(self.start(codes), self.network, self.bins)


class PixelCNN(Network):
    """Another network, and on top of its decoder of images one that sees the pixels before each pixel.

    The encoders are those of `base`. A decoder of images is one of `base` too, which gives the raw parameters of a discretized
    logistic for every value and a few hidden channels; a :class:`FieldNetwork` adds what the pixels of the field say. Untrained,
    it says nothing, and the pair is what `base` would make. What is no image (a label, a vector) gets the decoder of `base`.
    The channels of a pixel come in their order, red before green before blue.

    For observations with the likelihood ``discretized_logistic``, whose ``bins`` are to be those of this network.

    Args:
        field: how many pixels it sees in each direction, at least 1: so many rows above, so many pixels to either side in them,
            and so many to the left; ``2 field (field + 1)`` pixels in all.
        base: the network underneath: a name, a spec or a network.
        width: channels of the layers that see the pixels.
        depth: further layers, each on one pixel alone.
        bins: how many grey values there are.

    Raises:
        DeclarationError: a parameter out of its range, or, when a pair is made, a shape that it cannot take.

    >>> PixelCNN(field=2).pixels_seen
    12
    >>> decoder = PixelCNN(field=2).decoder(8, (6, 16, 16))
    >>> decoder(torch.zeros(4, 8)).event_shape
    torch.Size([3, 16, 16])
    """

    field: int = 1
    base: Any = "small"
    width: int = 16
    depth: int = 1
    bins: int = 256

    def __post_init__(self) -> None:
        advice = "a decoder that sees no pixel is that of the network underneath, such as 'small'"
        check_whole("pixelcnn", "field", self.field, advice=advice if self.field == 0 else "")
        check_whole("pixelcnn", "width", self.width)
        check_whole("pixelcnn", "depth", self.depth, least=0)
        check_whole("pixelcnn", "bins", self.bins, least=2)
        object.__setattr__(self, "base", make_network(self.base))

    @property
    def pixels_seen(self) -> int:
        """How many pixels before a pixel are seen, away from the image's edges."""
        return 2 * self.field * (self.field + 1)

    def encoder(self, reads: Mapping[str, Shape], outputs: int) -> nn.Module:
        """The encoder of `base`, which reads whatever that reads."""
        return self.base.encoder(reads, outputs)

    def decoder(self, inputs: int, raw_shape: Shape) -> nn.Module:
        """A module from joined blocks `[N, inputs]` to an :class:`AutoregressiveLogistic`, or the decoder of `base`.

        Args:
            inputs: how many numbers it is given for a sample.
            raw_shape: `(2 channels, height, width)` for an image.

        Raises:
            DeclarationError: an image with another likelihood, a grid that is no image, or what `base` refuses.
        """
        if len(raw_shape) < 2:
            return self.base.decoder(inputs, raw_shape)
        if len(raw_shape) != 3:
            raise DeclarationError(
                f"pixelcnn: raw parameters of shape {tuple(raw_shape)} are no image's; it decodes images [channels, height, "
                "width]; for other grids use its base network"
            )
        if raw_shape[0] % 2:
            raise DeclarationError(
                f"pixelcnn: raw parameters of shape {tuple(raw_shape)} are not two a value, so the observation's likelihood is "
                "not the discretized logistic that this decoder gives; declare likelihood='discretized_logistic'"
            )
        network = FieldNetwork(raw_shape[0] // 2, self.field, self.width, self.depth)
        return _Decoder(self.base.decoder(inputs, (network.context, *raw_shape[1:])), network, self.bins)
