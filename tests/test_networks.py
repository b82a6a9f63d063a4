"""What every network keeps, for every shape it takes; what its parameters do; what it refuses, and in which words."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from infoplace import networks
from infoplace.errors import DeclarationError, UnknownNameError
from infoplace.networks import Network, describe_network, list_networks, make_network, register_network

# Narrow ones, so that the laws run in seconds; the sizes that ship are looked at on their own.
NETWORKS = [
    {"small": {"width": 16, "channels": 4, "hidden": 32, "maps": 3}},
    {"small": {"width": 8, "channels": 3, "hidden": 16, "maps": 1, "depth": 2}},
    {"paper": {"width": 4}},
    {"resnet": {"width": 8, "depth": 1, "hidden": 16}},
    {"resnet": {"width": 4, "depth": 2, "hidden": 16}},
]
SHAPES = [
    (3, 32, 32),
    (1, 28, 28),
    (3, 64, 64),
    (3, 20, 36),
    (2, 17, 5),
    (1, 3, 3),
    (2, 1, 1),
    (1, 1, 40),
    (4, 100),
    (1, 7),
    (2, 6, 5, 9),
    (12,),
    (1,),
]


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def all_reached(module: nn.Module) -> list[str]:
    """The parameters whose gradient is missing, not finite, or nothing but zero."""
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    return [name for name, grad in grads.items() if grad is None or not grad.isfinite().all() or not grad.any()]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=NETWORKS, ids=lambda spec: next(iter(spec)))
def network(request) -> Network:
    return make_network(request.param)


class TestEveryNetwork:
    @pytest.mark.parametrize("shape", [*SHAPES, ()], ids=str)
    def test_an_encoder_reads_the_shape(self, network, shape):
        encoder = network.encoder({"x": shape}, 6)
        assert encoder(torch.rand(5, *shape)).shape == (5, 6)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_a_decoder_makes_the_shape(self, network, shape):
        decoder = network.decoder(6, shape)
        assert decoder(torch.randn(5, 6)).shape == (5, *shape)

    def test_several_reads_of_different_kinds_are_joined(self, network):
        reads = {"x": (3, 16, 16), "wave": (2, 30), "label": (10,), "age": ()}
        encoder = network.encoder(reads, 6)
        values = [torch.rand(4, *shape) for shape in reads.values()]
        output = encoder(*values)
        assert output.shape == (4, 6)
        for index, value in enumerate(values):
            changed = list(values)
            changed[index] = torch.rand_like(value)
            assert not torch.allclose(encoder(*changed), output), f"the encoder does not look at {list(reads)[index]}"

    @pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 17, 5), (2, 50), (6,)], ids=str)
    def test_gradients_reach_every_parameter(self, network, shape):
        encoder, decoder = network.encoder({"x": shape, "label": (4,)}, 6), network.decoder(6, shape)
        codes = encoder(torch.rand(8, *shape), torch.rand(8, 4))
        raw = decoder(codes)
        (raw * torch.randn_like(raw)).sum().backward()
        assert all_reached(encoder) == []
        assert all_reached(decoder) == []

    def test_every_sample_is_on_its_own(self, network):
        # Also in training mode, and whatever the batch: the pair decodes [particles * batch, dims] at once.
        x, z = torch.rand(6, 3, 16, 16), torch.randn(6, 5)
        for module, value in ((network.encoder({"x": (3, 16, 16)}, 6), x), (network.decoder(5, (6, 16, 16)), z)):
            together = module.train()(value)
            alone = torch.cat([module.eval()(one) for one in value.split(1)])
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_flat_images_and_far_codes_give_finite_numbers(self, network):
        encoder, decoder = network.encoder({"x": (3, 16, 16)}, 6), network.decoder(3, (6, 16, 16))
        for value in (0.0, 0.5, 1.0):
            x = torch.full((2, 3, 16, 16), value, requires_grad=True)
            output = encoder(x)
            output.sum().backward()
            assert output.isfinite().all()
            assert x.grad.isfinite().all()
        assert decoder(torch.tensor([[0.0, 0.0, 0.0], [1e3, -1e3, 1e3]])).isfinite().all()

    def test_neither_the_input_nor_the_parameters_change_in_a_call(self, network):
        encoder = network.encoder({"x": (3, 16, 16)}, 6)
        x = torch.rand(4, 3, 16, 16)
        before, state = x.clone(), copy.deepcopy(encoder.state_dict())
        encoder(x)
        assert torch.equal(x, before)
        assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())

    def test_memory_by_pixel_gives_the_same_numbers(self, network):
        encoder, decoder = network.encoder({"x": (3, 16, 16)}, 6), network.decoder(6, (6, 16, 16))
        x, z = torch.rand(4, 3, 16, 16), torch.randn(4, 6)
        codes, raw = encoder(x), decoder(z)
        by_pixel = x.contiguous(memory_format=torch.channels_last)
        encoder.to(memory_format=torch.channels_last)
        decoder.to(memory_format=torch.channels_last)
        torch.testing.assert_close(encoder(by_pixel), codes, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decoder(z), raw, rtol=1e-4, atol=1e-5)

    def test_modules_run_in_float64_and_survive_copies_and_pickles(self, network):
        decoder = network.decoder(6, (6, 12, 12)).double()
        z = torch.randn(2, 6, dtype=torch.float64)
        for twin in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
            assert torch.equal(twin(z), decoder(z))

    def test_a_start_is_moderate(self, network):
        # Raw numbers far from 0 would start a likelihood at saturated means or absurd scales.
        codes = network.encoder({"x": (3, 32, 32)}, 16)(torch.rand(64, 3, 32, 32))
        raw = network.decoder(16, (6, 32, 32))(torch.randn(64, 16))
        assert codes.abs().mean() < 3
        assert raw.abs().mean() < 1
        assert raw.std() > 1e-3

    def test_specs_round_trip(self, network):
        again = make_network(network.to_spec())
        assert again == network
        assert hash(again) == hash(network)
        assert pickle.loads(pickle.dumps(network)) == network

    def test_a_shape_of_too_many_dimensions_is_refused(self, network):
        with pytest.raises(DeclarationError) as error:
            network.encoder({"x": (10,), "film": (3, 8, 8, 8, 8)}, 6)
        assert str(error.value) == (
            f"{network.spec_name}: the read 'film' has shape (3, 8, 8, 8, 8); this network takes numbers (), vectors "
            "[length], and grids [channels, ...] of one to three dimensions; for others give modules of your own: "
            "networks={'encoders': {block: module}, 'decoders': {observation: module}}"
        )
        with pytest.raises(DeclarationError, match=r"what is to be decoded has shape \(6, 8, 8, 8, 8\)"):
            network.decoder(6, (6, 8, 8, 8, 8))


def two_blocks(network: Network) -> int:
    """The weights of the paper's first experiment, with 32 and 16 dimensions."""
    x, raw = (3, 32, 32), (6, 32, 32)
    modules = (
        network.encoder({"x": x}, 64),
        network.encoder({"x_hat": x}, 32),
        network.decoder(48, raw),
        network.decoder(16, raw),
    )
    return sum(weights(module) for module in modules)


class TestParameters:
    @pytest.mark.parametrize(
        ("name", "parameter"),
        [
            ("small", "width"),
            ("small", "depth"),
            ("small", "channels"),
            ("small", "hidden"),
            ("small", "maps"),
            ("paper", "width"),
            ("resnet", "width"),
            ("resnet", "depth"),
            ("resnet", "hidden"),
        ],
    )
    def test_more_means_more_weights_in_encoder_and_decoder(self, name, parameter):
        base = {"resnet": {"width": 8}}.get(name, {})
        few = make_network(name, **base)
        many = make_network(name, **base | {parameter: getattr(few, parameter) + 4})
        if parameter != "maps":
            assert weights(many.encoder({"x": (3, 16, 16)}, 6)) > weights(few.encoder({"x": (3, 16, 16)}, 6))
        assert weights(many.decoder(6, (6, 16, 16))) > weights(few.decoder(6, (6, 16, 16)))

    def test_small_has_about_a_million_weights(self):
        assert 0.8e6 < two_blocks(make_network("small")) < 1.5e6

    def test_paper_has_the_layers_of_the_paper(self):
        network = make_network("paper")
        encoder, decoder = network.encoder({"x": (3, 32, 32)}, 256), network.decoder(256, (6, 32, 32))
        layers = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
        assert [(m.kernel_size[0], m.stride[0], m.out_channels) for m in layers] == [
            (6, 2, 32),
            (6, 2, 64),
            (4, 2, 128),
        ]
        assert encoder.head.in_features == decoder[0].out_features == 128 * 4 * 4
        assert [m.mode for m in decoder if isinstance(m, nn.Upsample)] == ["bilinear"] * 3

    def test_resnet_is_the_largest(self):
        assert two_blocks(make_network("resnet")) > 5 * two_blocks(make_network("small"))

    @pytest.mark.parametrize(
        ("spec", "text"),
        [
            ({"small": {"width": 0}}, "small: width must be a whole number of at least 1; got 0"),
            ({"small": {"depth": -1}}, "small: depth must be a whole number of at least 0; got -1"),
            ({"small": {"depth": True}}, "small: depth must be a whole number of at least 0; got True"),
            ({"small": {"maps": 2.0}}, "small: maps must be a whole number of at least 1; got 2.0"),
            ({"paper": {"width": "32"}}, "paper: width must be a whole number of at least 1; got '32'"),
            ({"resnet": {"hidden": 0}}, "resnet: hidden must be a whole number of at least 1; got 0"),
        ],
    )
    def test_impossible_sizes_are_refused(self, spec, text):
        with pytest.raises(DeclarationError) as error:
            make_network(spec)
        assert str(error.value) == text


class TestCells:
    def test_they_are_pixel_unshuffle_and_pixel_shuffle_on_images(self):
        x = torch.rand(2, 3, 12, 8)
        assert torch.equal(networks._Cells((12, 8), 4)(x), nn.functional.pixel_unshuffle(x, 4))
        y = torch.rand(2, 32, 3, 2)
        assert torch.equal(networks._Uncells((12, 8), 4)(y), nn.functional.pixel_shuffle(y, 4))

    @pytest.mark.parametrize("sizes", [(5,), (8, 3), (1, 1), (4, 7, 9)], ids=str)
    @pytest.mark.parametrize("side", [1, 2, 4])
    def test_one_undoes_the_other(self, sizes, side):
        x = torch.rand(2, 3, *sizes)
        cells = networks._Cells(sizes, side)(x)
        assert cells.shape == (2, 3 * side ** len(sizes), *(math.ceil(size / side) for size in sizes))
        assert torch.equal(networks._Uncells(sizes, side)(cells), x)


class TestWhatSmallSees:
    def seen(self, x):
        torch.manual_seed(0)
        return networks._SmallTrunk((3, 16, 16), width=16, depth=0, channels=4)(x)

    def test_shape_is_seen_apart_from_brightness_and_contrast(self):
        x = torch.rand(4, 3, 16, 16) ** 3
        (features, passed), (other_features, other_passed) = self.seen(x), self.seen(0.1 + 0.4 * x)
        torch.testing.assert_close(other_features, features, rtol=0.02, atol=0.02)
        # Nothing is lost: the mean and the spread of each channel pass by.
        assert (other_passed - passed)[:, :6].abs().max(0).values.min() > 0.1

    def test_shape_is_seen_apart_from_polarity_and_hue_stays(self):
        x = torch.rand(4, 3, 16, 16) ** 3
        deviation = x - x.mean((2, 3), keepdim=True)
        brightness = deviation.mean(1, keepdim=True)
        (features, passed), (other_features, other_passed) = self.seen(x), self.seen(x - 2 * brightness)
        torch.testing.assert_close(other_features, features, rtol=0.02, atol=0.02)
        # Which of figure and ground is the brighter passes by.
        assert (passed[:, 6] > 0.1).all()
        assert (other_passed[:, 6] < -0.1).all()
        # Other hues are another picture.
        assert (self.seen(x - 2 * (deviation - brightness))[0] - features).abs().max() > 0.1

    def test_a_batch_of_codes_learns_an_image_each(self):
        network = make_network({"small": {"width": 16, "hidden": 64}})
        decoder = network.decoder(8, (3, 16, 16))
        z, target = torch.randn(8, 8), torch.rand(8, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        optimiser = torch.optim.Adam(decoder.parameters(), lr=5e-3)
        for _ in range(150):
            loss = (decoder(z) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert loss < 0.1 * target.var()


class TestRegistry:
    def test_the_stock_ones_are_listed_and_described(self):
        assert {"paper", "resnet", "small"} <= set(list_networks())
        text = str(describe_network("small"))
        assert text.startswith("small (network): About a million weights")
        assert "parameter width: int = 64" in text

    def test_an_unknown_name_says_what_was_meant(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'resnet'"):
            make_network("resnets")

    def test_an_unknown_parameter_says_what_was_meant(self):
        with pytest.raises(DeclarationError, match="Did you mean 'width'"):
            make_network("small", widht=3)

    def test_a_network_of_ones_own_can_be_registered(self):
        class Affine(Network):
            """One affine map each way."""

            def encoder(self, reads, outputs):
                (shape,) = reads.values()
                return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))

            def decoder(self, inputs, raw_shape):
                return nn.Sequential(nn.Linear(inputs, math.prod(raw_shape)), nn.Unflatten(1, raw_shape))

        register_network("affine_for_tests", Affine)
        network = make_network("affine_for_tests")
        assert network.encoder({"x": (3, 4, 4)}, 2)(torch.rand(5, 3, 4, 4)).shape == (5, 2)
        assert network.to_spec() == {"affine_for_tests": {}}

    def test_one_without_a_decoder_says_so(self):
        class Half(Network):
            """Reads only."""

        with pytest.raises(NotImplementedError, match=r"Half defines no decoder\(self, inputs, raw_shape\)"):
            Half().decoder(2, (3, 4, 4))
        with pytest.raises(NotImplementedError, match=r"Half defines no encoder\(self, reads, outputs\)"):
            Half().encoder({"x": (3, 4, 4)}, 2)
