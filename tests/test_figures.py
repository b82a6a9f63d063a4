"""The pictures of a run, for pairs of every kind."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import infoplace as ip
from infoplace.data import ImageData
from infoplace.figures import draw_figures


def data(count: int = 12, channels: int = 3) -> ImageData:
    images = torch.randint(0, 256, (count, channels, 16, 16), generator=torch.Generator().manual_seed(0))
    return ImageData(images.to(torch.uint8), {"digit": torch.arange(count) % 10}, name="noise", split="test")


PARTITIONS = {
    "two blocks": (
        ip.Partition(
            {"z_g": ip.Block(3), "z_l": ip.Block(2)},
            {"x": ip.Observation(), "x_hat": ip.Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 4}})},
        ),
        (3, 16, 16),
        {"figure1b.png", "figure2.png", "mixtures.png"},
    ),
    "one block": (ip.Partition({"z": ip.Block(3)}, {"x": ip.Observation()}), (3, 16, 16), set()),
    "three blocks, two auxiliaries, a label": (
        ip.Partition(
            {"a": ip.Block(2), "b": ip.Block(2), "c": ip.Block(2)},
            {
                "image": ip.Observation(blocks=("a", "b", "c")),
                "digit": ip.Observation(blocks=("a",), likelihood="categorical"),
                "shuffled": ip.Observation(blocks=("b", "c"), of="image", transform={"patch_shuffle": {"n": 4}}),
                "palette": ip.Observation(blocks=("c",), of="image", transform="histogram"),
            },
        ),
        {"image": (3, 16, 16), "digit": ()},
        {"figure1b.png", "figure1b_palette.png", "figure2.png", "mixtures.png"},
    ),
    "grey images": (
        ip.Partition(
            {"z_g": ip.Block(3), "z_l": ip.Block(2)},
            {"x": ip.Observation(), "x_hat": ip.Observation(blocks=("z_l",), transform="blur")},
        ),
        (1, 16, 16),
        {"figure1b.png", "figure2.png", "mixtures.png"},
    ),
}


@pytest.mark.parametrize("name", list(PARTITIONS))
def test_what_is_drawn(name, tmp_path):
    partition, shape, expected = PARTITIONS[name]
    pair = ip.make_pair(partition, shape)
    channels = 1 if name == "grey images" else 3
    written = draw_figures(pair, data(channels=channels), tmp_path / "pictures")
    assert {path.name for path in written} == expected
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert picture.info["Description"]


def test_the_seed_decides_the_draws(tmp_path):
    partition, shape, _ = PARTITIONS["two blocks"]
    pair = ip.make_pair(partition, shape)
    files = [draw_figures(pair, data(), tmp_path / str(n), seed=seed)[1] for n, seed in enumerate((1, 1, 2))]
    one, two, other = (Image.open(file).tobytes() for file in files)
    assert one == two
    assert one != other


def test_the_loss_is_drawn_from_the_log(tmp_path):
    partition, shape, _ = PARTITIONS["one block"]
    (tmp_path / "metrics.csv").write_text("step,loss,learning_rate,seconds\n1,5.0,0.1,1\n2,4.0,0.1,2\n")
    written = draw_figures(ip.make_pair(partition, shape), data(), tmp_path, log=tmp_path / "metrics.csv")
    assert [path.name for path in written] == ["loss.png"]


def test_what_cannot_be_drawn_is_said(tmp_path):
    partition, shape, _ = PARTITIONS["two blocks"]
    with pytest.raises(ip.DataError, match="show ten images, and noise test holds 9"):
        draw_figures(ip.make_pair(partition, shape), data(9), tmp_path / "pictures")
    vectors = ip.make_pair(ip.Partition({"z": ip.Block(2)}, {"x": ip.Observation(likelihood="normal")}), (5,))
    with pytest.raises(ip.DataError, match="generates no grey or colour images"):
        draw_figures(vectors, data(), tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()
