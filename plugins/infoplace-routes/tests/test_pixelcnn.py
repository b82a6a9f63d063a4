from __future__ import annotations

import itertools
import math

import infoplace as ip
import numpy as np
import pyro
import pytest
import torch
from infoplace.testing import check_pair
from torch import nn

from infoplace_routes import AutoregressiveLogistic, FieldNetwork, PixelCNN


def talkative(channels, field, width=6, depth=1):
    """A network whose pixels do say something: every weight drawn, none zero."""
    network = FieldNetwork(channels, field, width, depth).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7)
    return network


def likelihood_of(network, sizes, bins, batch=()):
    context = torch.randn(*batch, network.context, *sizes, dtype=torch.float64)
    return AutoregressiveLogistic(context, network, bins)


def every_image(channels, sizes, bins):
    count = channels * math.prod(sizes)
    grey = torch.tensor(list(itertools.product(range(bins), repeat=count)), dtype=torch.float64)
    return grey.reshape(-1, channels, *sizes) / (bins - 1)


# ---- the field -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pixel_sees_its_field_and_nothing_else(field, channels):
    network, (height, width) = talkative(channels, field), (6, 7)
    context = torch.randn(1, network.context, height, width, dtype=torch.float64)
    x = torch.rand(1, channels, height, width, dtype=torch.float64, requires_grad=True)
    raw = network(x, context)
    for row, column in itertools.product(range(height), range(width)):
        (gradient,) = torch.autograd.grad(raw[0, :, row, column].square().sum(), x, retain_graph=True)
        seen = {(int(i), int(j)) for i, j in (gradient[0].abs().amin(0) > 0).nonzero()}
        touched = {(int(i), int(j)) for i, j in (gradient[0].abs().amax(0) > 0).nonzero()}
        wanted = {
            (i, j)
            for i, j in itertools.product(range(row - field, row + 1), range(column - field, column + field + 1))
            if (i < row or j < column) and 0 <= i < height and 0 <= j < width
        }
        assert seen == touched == wanted


@pytest.mark.parametrize("field", [1, 2, 4])
def test_how_many_pixels_are_seen(field):
    visible = FieldNetwork(1, field, 2, 0).visible
    assert len(visible) == len(set(visible)) == PixelCNN(field=field).pixels_seen == 2 * field * (field + 1)
    assert all(row < 0 or (row == 0 and column < 0) for row, column in visible)


def test_a_pixels_probability_hangs_on_no_later_pixel_or_channel():
    likelihood = likelihood_of(talkative(3, 2), (4, 5), bins=16)
    x = torch.randint(0, 16, (3, 4, 5)).double().div(15).requires_grad_()
    scores = likelihood.pixel_log_prob(x)
    for row, column in itertools.product(range(4), range(5)):
        (gradient,) = torch.autograd.grad(scores[row, column], x, retain_graph=True)
        hangs = gradient != 0
        later = torch.arange(20).reshape(4, 5) > row * 5 + column
        assert not hangs[:, later].any()
        # Of its own pixel: red and green move the channels after them, blue moves none.
        assert hangs[:, row, column].tolist() == [True, True, False]


# ---- probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "sizes", "bins"), [(1, (2, 2), 3), (2, (1, 2), 3), (3, (1, 2), 2), (1, (3, 2), 2)]
)
def test_the_probabilities_of_all_images_sum_to_one(channels, sizes, bins):
    likelihood = likelihood_of(talkative(channels, 1), sizes, bins)
    total = likelihood.log_prob(every_image(channels, sizes, bins)).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("channels", "sizes"), [(1, (2, 2)), (2, (1, 2)), (1, (1, 4))])
def test_draws_have_their_probabilities(channels, sizes):
    likelihood = likelihood_of(talkative(channels, 1), sizes, bins=2)
    images, draws = every_image(channels, sizes, 2), 20_000
    probability = likelihood.log_prob(images).exp()
    drawn = likelihood.sample((draws,)).reshape(draws, 1, -1)
    share = (drawn == images.reshape(1, len(images), -1)).all(-1).double().mean(0)
    assert share.sum().item() == pytest.approx(1)
    error = (probability * (1 - probability) / draws).sqrt()
    assert ((share - probability).abs() < 4.5 * error + 1e-9).all()


def test_log_prob_is_the_formula():
    channels, (height, width), bins, field = 3, (3, 4), 8, 1
    network = talkative(channels, field, width=5, depth=1)
    likelihood = likelihood_of(network, (height, width), bins)
    grey = torch.randint(0, bins, (channels, height, width))
    look, (_, hidden, _, last) = network.look, network.mix
    w, b = look.weight.detach().numpy(), look.bias.detach().numpy()
    w1, b1 = hidden.weight.detach().numpy()[:, :, 0, 0], hidden.bias.detach().numpy()
    w2, b2 = last.weight.detach().numpy()[:, :, 0, 0], last.bias.detach().numpy()
    x, context = grey.numpy() / (bins - 1), likelihood.context.numpy()

    def silu(v):
        return v / (1 + np.exp(-v))

    def sigmoid(v):
        return 0.0 if v == -math.inf else 1 / (1 + math.exp(-v))

    # Bounds of the stock likelihood's scale, by its documentation: exp(-2) bins, 100, and 0.15 at raw 0.
    low, high, start = math.log(math.exp(-2) / (bins - 1)), math.log(100), math.log(0.15)
    at_zero = (start - low) / (high - low)

    total = 0.0
    for i, j in itertools.product(range(height), range(width)):
        seen = b.copy()
        for row, column in ((-1, -1), (-1, 0), (-1, 1), (0, -1)):
            if i + row >= 0 and 0 <= j + column < width:
                pixel = np.append(x[:, i + row, j + column] - 0.5, 1.0)
                seen = seen + w[:, :, row + field, column + field] @ pixel
        said = w2 @ silu(w1 @ silu(seen + context[6:, i, j]) + b1) + b2
        red_green, red_blue, green_blue = np.tanh(said[6:])
        red, green, blue = x[:, i, j]
        means = 0.5 + context[:3, i, j] + said[:3]
        means[1] += red_green * (red - 0.5)
        means[2] += red_blue * (red - 0.5) + green_blue * (green - 0.5)
        for channel, value in enumerate((red, green, blue)):
            raw = context[3 + channel, i, j] + said[3 + channel]
            scale = math.exp(low + (high - low) * sigmoid(raw * 4 / (high - low) + math.log(at_zero / (1 - at_zero))))
            step = 0.5 / (bins - 1)
            upper = math.inf if value == 1 else (value + step - means[channel]) / scale
            lower = -math.inf if value == 0 else (value - step - means[channel]) / scale
            # On the side where both are small, so that nothing cancels.
            if lower > 0:
                upper, lower = -lower, -upper
            total += math.log(sigmoid(upper) - sigmoid(lower))
    assert likelihood.log_prob(grey.double() / (bins - 1)).item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("field", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_is_the_means_given_itself(channels, field):
    network = talkative(channels, field)
    likelihood = likelihood_of(network, (5, 6), bins=256, batch=(2,))
    picture = likelihood.mean
    raw = network(picture, likelihood.context)
    shift = torch.zeros_like(picture)
    for later, earlier in itertools.combinations(reversed(range(channels)), 2):
        coefficient = raw[:, 2 * channels + later * (later - 1) // 2 + earlier].tanh()
        shift[:, later] += coefficient * (picture[:, earlier] - 0.5)
    moved = torch.cat([raw[:, :channels] + shift, raw[:, channels : 2 * channels]], dim=1)
    stock = ip.make_likelihood("discretized_logistic")(moved, (channels, 5, 6))
    torch.testing.assert_close(stock.mean, picture, atol=1e-10, rtol=0)


def test_untrained_it_is_the_network_underneath():
    decoder = PixelCNN(field=2).decoder(4, (6, 8, 8))
    codes, x = torch.randn(5, 4), torch.randint(0, 256, (5, 3, 8, 8)) / 255
    likelihood = decoder(codes)
    stock = ip.make_likelihood("discretized_logistic")(decoder.start(codes)[:, :6], (3, 8, 8))
    torch.testing.assert_close(likelihood.log_prob(x), stock.log_prob(x))
    torch.testing.assert_close(likelihood.mean, stock.mean)


def test_the_pixels_keep_what_their_neighbours_tell():
    """Rows of one grey value each: the first pixel of a row costs log 4, and those beside it nothing."""
    network = FieldNetwork(1, 1, 16, 1)
    context = torch.zeros(network.context, 4, 4)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(200):
        x = torch.randint(0, 4, (64, 1, 4, 1), generator=generator).expand(64, 1, 4, 4) / 3
        loss = -AutoregressiveLogistic(context, network, bins=4).log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    apart, least = 16 * math.log(4), 4 * math.log(4)
    assert least - 0.1 < loss.item() < least + 0.1 * (apart - least)


# ---- as a distribution -----------------------------------------------------------------------------------------------


def test_leading_dimensions_broadcast():
    network = talkative(2, 1)
    likelihood = likelihood_of(network, (3, 3), bins=8, batch=(4, 1))
    x = torch.randint(0, 8, (5, 2, 3, 3)).double() / 7
    scores = likelihood.log_prob(x)
    assert scores.shape == (4, 5)
    alone = AutoregressiveLogistic(likelihood.context[2, 0], network, 8).log_prob(x[3])
    assert scores[2, 3].item() == pytest.approx(alone.item(), rel=1e-10)
    expanded = likelihood.expand((4, 5))
    assert expanded.batch_shape == (4, 5)
    torch.testing.assert_close(expanded.log_prob(x), scores)
    assert expanded.sample((2,)).shape == (2, 4, 5, 2, 3, 3)
    assert expanded.mean.shape == (4, 5, 2, 3, 3)


def test_draws_are_scored_and_other_values_refused():
    likelihood = likelihood_of(talkative(1, 1), (3, 3), bins=256, batch=(2,))
    with pyro.validation_enabled(True):
        assert likelihood.support.check(likelihood.sample()).all()
        checked = AutoregressiveLogistic(likelihood.context, likelihood.network, 256)
        assert checked.log_prob(checked.sample()).isfinite().all()
        with pytest.raises(ValueError, match="within the support"):
            checked.log_prob(torch.full((2, 1, 3, 3), 0.5001, dtype=torch.float64))
        with pytest.raises(ValueError, match="context"):
            AutoregressiveLogistic(likelihood.context * math.nan, likelihood.network, 256)


# ---- as a network ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(two_blocks):
    return ip.make_pair(two_blocks, (3, 16, 16), networks={"pixelcnn": {"field": 2}})


def test_a_pixelcnn_keeps_the_laws_of_pairs(two_blocks, images):
    check_pair(ip.make_pair(two_blocks, (3, 8, 8), networks="pixelcnn"), images[:3, :, :8, :8])


def test_the_usual_things_of_a_pair(pair, two_blocks, images):
    observations = two_blocks.observe(images)
    assert pair.reconstruct(observations)["x"].shape == images.shape
    assert pair.resample(observations, blocks=("z_l",))["x"].shape == images.shape
    draws = pair.predictive(2)(observations)["x"]
    assert draws.shape == (2, *images.shape)
    two_blocks.check(draws[0])
    grid = pair.decode({"z_g": torch.randn(1, 3, 5), "z_l": torch.randn(2, 1, 3)}, "x")
    assert grid.batch_shape == (2, 3)
    assert grid.mean.shape == (2, 3, 3, 16, 16)
    assert pair.model(None, size=2)["x"].shape == (2, 3, 16, 16)


def test_particles_drawn_at_once_are_those_drawn_in_turn(pair, two_blocks, images):
    pair.double()
    posterior = {"z_l": torch.randn(3, 6, 3).double(), "z_g": torch.randn(3, 6, 5).double()}
    x = (images * 255).round().double() / 255
    together = pair.decode(posterior, "x").log_prob(x)
    apart = [pair.decode({name: value[k] for name, value in posterior.items()}, "x").log_prob(x) for k in range(3)]
    torch.testing.assert_close(together, torch.stack(apart))
    objective = ip.make_objective("elbo", num_particles=2, vectorize_particles=True)
    assert math.isfinite(objective.loss(pair.model, pair.guide, {"x": x}))


def test_a_step_lowers_the_loss_and_trains_the_pixels(pair, images, descend):
    losses = descend(pair, images)
    assert losses[-1] < 0.98 * losses[0]
    assert pair.model.decoders["x"].network.mix[-1].weight.abs().max() > 0


def test_compiled_it_is_the_same(pair, two_blocks, images):
    observations = two_blocks.observe(images)
    objective = ip.make_objective("elbo")
    compiled = ip.compile(pair, objective, backend="eager")
    torch.manual_seed(3)
    traced = compiled(observations)
    torch.manual_seed(3)
    assert traced.item() == pytest.approx(objective(pair.model, pair.guide)(observations).item(), rel=1e-5)


def test_saved_and_loaded(pair, two_blocks, images, tmp_path):
    pair.save(tmp_path / "run")
    loaded = ip.load_pair(tmp_path / "run")
    observations = two_blocks.observe(images)
    assert torch.equal(pair.reconstruct(observations)["x"], loaded.reconstruct(observations)["x"])
    assert loaded.model.decoders["x"].network.field == 2


def test_what_is_no_image_gets_the_decoder_underneath():
    label = ip.Observation(likelihood={"categorical": {"classes": 4}})
    partition = ip.Partition({"z": ip.Block(3)}, {"x": ip.Observation(), "label": label})
    pair = ip.make_pair(partition, {"x": (1, 8, 8), "label": ()}, networks="pixelcnn")
    decoded = {name: pair.decode({"z": torch.zeros(2, 3)}, name) for name in ("x", "label")}
    assert isinstance(decoded["x"], AutoregressiveLogistic)
    assert decoded["label"].probs.shape == (2, 4)


def test_specs_come_back():
    network = ip.make_network("pixelcnn", field=3, base={"small": {"width": 32}})
    assert ip.make_network(network.to_spec()) == network
    assert network.to_spec()["pixelcnn"]["base"] == ip.make_network("small", width=32).to_spec()
    assert network != ip.make_network("pixelcnn", field=2, base={"small": {"width": 32}})


def test_every_parameter_changes_what_it_should():
    def made(**parameters):
        return PixelCNN(**parameters).decoder(4, (2, 8, 8))

    assert made(field=3).network.look.kernel_size == (4, 7)
    assert made(width=5).network.look.out_channels == 5
    assert len(made(depth=3).network.mix) == len(made(depth=0).network.mix) + 6
    assert made(bins=16)(torch.zeros(1, 4)).bins == 16
    sizes = [
        sum(p.numel() for p in made(base=base).start.parameters()) for base in ("small", {"small": {"hidden": 32}})
    ]
    assert sizes[0] > sizes[1]


def test_bad_input(refuses):
    with refuses("pixelcnn: field must be a whole number of at least 1; got 0; a decoder that sees no pixel is that"):
        ip.make_network("pixelcnn", field=0)
    for key, value, least in (("field", 1.5, 1), ("width", 0, 1), ("depth", -1, 0), ("bins", 1, 2)):
        with refuses(f"pixelcnn: {key} must be a whole number of at least {least}; got {value!r}"):
            ip.make_network("pixelcnn", **{key: value})
    with refuses("smal", "small", kind=ip.UnknownNameError):
        ip.make_network("pixelcnn", base="smal")
    categorical = ip.Observation(likelihood={"categorical": {"classes": 3}})
    with refuses("pixelcnn: raw parameters of shape (3, 8, 8) are not two a value", "declare likelihood='discretized"):
        ip.make_pair(ip.Partition({"z": ip.Block(2)}, {"x": categorical}), (1, 8, 8), networks="pixelcnn")
    with refuses("pixelcnn: raw parameters of shape (2, 9) are no image's"):
        PixelCNN().decoder(3, (2, 9))
