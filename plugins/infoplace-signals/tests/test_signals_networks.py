"""``conv1d``: every shape it takes, what its parameters do, what it refuses, and that a pair of signals trains with it."""

from __future__ import annotations

from pathlib import Path

import infoplace as ip
import pytest
import torch
from infoplace.errors import DeclarationError
from torch import nn

from infoplace_signals import Conv1d

NARROW = Conv1d(width=8, hidden=16)
SHAPES = [(1, 1), (2, 5), (1, 16), (1, 17), (3, 64), (1, 100), (2, 256), (1, 1000), (64, 32), (1, 4096), (12,), (1,)]


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("shape", [*SHAPES, ()], ids=str)
def test_encoders_read_and_decoders_make_every_shape(shape: tuple[int, ...]) -> None:
    encoder = NARROW.encoder({"x": shape}, 6)
    assert encoder(torch.rand(3, *shape)).shape == (3, 6)
    decoder = NARROW.decoder(4, shape or (2,))
    assert decoder(torch.randn(3, 4)).shape == (3, *(shape or (2,)))


@pytest.mark.parametrize("shape", [(2, 5), (2, 100), (1, 1000), (7,)], ids=str)
def test_every_weight_is_reached_by_a_gradient(shape: tuple[int, ...]) -> None:
    for module, inputs in (
        (NARROW.encoder({"x": shape}, 6), torch.rand(4, *shape)),
        (NARROW.decoder(4, shape), torch.randn(4, 4)),
    ):
        module(inputs).square().sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize("length", [40, 100, 1000])
def test_every_sample_of_a_signal_is_read_and_written(length: int) -> None:
    signals = torch.rand(2, 1, length, requires_grad=True)
    NARROW.encoder({"x": (1, length)}, 6)(signals).square().sum().backward()
    assert signals.grad is not None
    assert (signals.grad != 0).all()
    decoder = NARROW.decoder(4, (2, length))
    assert (decoder(torch.randn(1, 4)) != decoder(torch.randn(1, 4))).all()


def test_signals_of_a_batch_are_read_apart() -> None:
    encoder, signals = NARROW.encoder({"x": (1, 300)}, 6).eval(), torch.rand(3, 1, 300)
    torch.testing.assert_close(encoder(signals)[:1], encoder(signals[:1]))


def test_several_reads_are_joined_in_their_order() -> None:
    reads = {"x": (1, 64), "y": (2, 50), "label": (10,), "age": ()}
    encoder = NARROW.encoder(reads, 6)
    values = [torch.rand(4, *shape) for shape in reads.values()]
    output = encoder(*values)
    for index, value in enumerate(values):
        changed = list(values)
        changed[index] = value + 0.3
        assert not torch.allclose(encoder(*changed), output)


def test_loudness_and_offset_are_told() -> None:
    encoder = Conv1d(width=8, hidden=16).encoder({"x": (1, 256)}, 6)
    wave = 0.4 * torch.sin(torch.arange(256.0) / 3)
    codes = encoder(torch.stack([0.5 + wave, 0.5 + wave / 2, 0.4 + wave / 2])[:, None])
    assert torch.pdist(codes).min() > 1e-3


@pytest.mark.parametrize(
    ("length", "cells"), [(1, 1), (16, 16), (17, 5), (64, 16), (65, 5), (256, 16), (2048, 8), (16384, 16)]
)
def test_a_signal_is_quartered_until_16_positions_are_left(length: int, cells: int) -> None:
    encoder = NARROW.encoder({"x": (1, length)}, 2)
    sizes: list[int] = []
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv1d):
            layer.register_forward_hook(lambda _layer, _inputs, output: sizes.append(output.shape[2]))
    encoder(torch.rand(1, 1, length))
    assert sizes[-1] == cells


def test_the_parameters_change_what_they_name() -> None:
    shape, size = (1, 1024), weights(NARROW.encoder({"x": (1, 1024)}, 4))
    assert weights(Conv1d(width=16, hidden=16).encoder({"x": shape}, 4)) > 2 * size
    assert weights(Conv1d(width=8, hidden=32).encoder({"x": shape}, 4)) > size
    assert weights(Conv1d(width=8, hidden=16, depth=2).decoder(4, shape)) > weights(NARROW.decoder(4, shape))


def test_a_decoded_label_is_a_vector() -> None:
    assert NARROW.decoder(4, (10,))(torch.randn(2, 4)).shape == (2, 10)


@pytest.mark.parametrize("field", ["width", "depth", "hidden"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_sizes_that_cannot_be_are_refused(field: str, value: object) -> None:
    with pytest.raises(DeclarationError, match=f"conv1d: {field} must be a whole number of at least 1; got {value!r}"):
        ip.make_network("conv1d", **{field: value})


def test_images_are_refused_by_name() -> None:
    with pytest.raises(DeclarationError) as caught:
        NARROW.encoder({"x": (3, 32, 32)}, 4)
    assert str(caught.value) == (
        "conv1d: the read 'x' has shape (3, 32, 32); this network takes signals [channels, length], vectors [length] and "
        "numbers (); for images and volumes use networks='small'"
    )
    with pytest.raises(DeclarationError, match="conv1d: what is to be decoded has shape"):
        NARROW.decoder(4, (6, 32, 32))


def test_a_pair_of_signals_trains_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    partition = ip.Partition(
        blocks={"z_order": ip.Block(4), "z_rest": ip.Block(4)},
        observations={
            "x": ip.Observation(),
            "x_hat": ip.Observation(blocks=("z_rest",), transform={"segment_shuffle": {"n": 64}}),
        },
    )
    pair = ip.make_pair(partition, (1, 256), networks={"conv1d": {"width": 8, "hidden": 16}})
    phase = torch.rand(64, 1, 1)
    signals = (127.5 + 100 * torch.sin(torch.arange(256) / 10 + 6.3 * phase)).round() / 255
    log = ip.fit(pair, signals, steps=30, batch_size=16, learning_rate=5e-3, log_every=1, device="cpu", progress=False)
    first, last = (sum(row["loss"] for row in part) for part in (log[:5], log[-5:]))
    assert last < 0.9 * first
    pair.save(tmp_path / "run")
    again, observations = ip.load_pair(tmp_path / "run"), partition.observe(signals[:2])
    for name, posterior in pair.encode(observations).items():
        torch.testing.assert_close(again.encode(observations)[name].mean, posterior.mean)
