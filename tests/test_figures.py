"""The pictures of a run, for pairs of every kind."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import infoplace as ip
from infoplace import plots
from infoplace.data import ImageData
from infoplace.figures import class_blocks, cluster_images, draw_figures


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


def clustered(y="enumerate", components=3, blocks=("z_g",), others=("z_l",)):
    prior = {"mixture": {"components": components, "y": y}}
    declared = {name: ip.Block(3, prior=prior) for name in blocks} | {name: ip.Block(2) for name in others}
    return ip.make_pair(ip.Partition(declared, {"x": ip.Observation()}), (3, 16, 16))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"figure4.png", "figure6.png"}),
        ({"y": "gumbel"}, {"figure4.png", "figure6.png"}),
        ({"y": "marginal"}, set()),
        ({"components": 41}, set()),
        ({"others": ()}, {"figure4.png", "figure6.png"}),
        ({"blocks": ("z_g", "z_c")}, {"figure4.png", "figure6.png", "figure4_z_c.png", "figure6_z_c.png"}),
    ],
)
def test_clusters_are_drawn_where_a_prior_draws_a_class(options, expected, tmp_path):
    written = draw_figures(clustered(**options), data(), tmp_path)
    assert {path.name for path in written if path.name[6] in "46"} == expected
    for path in written:
        with Image.open(path) as picture:
            assert picture.info["Description"]


@pytest.mark.parametrize(
    ("factors", "declared", "against"),
    [
        (("digit", "shape"), {"shape": "z_g"}, "shape"),
        (("digit", "shape"), {"shape": "z_l"}, "digit"),
        (("label", "shape"), {}, "label"),
        (("label", "value"), {"value": "z_g"}, "label"),
        (("digit", "one"), {"one": "z_g"}, "digit"),
        (("shape",), {}, None),
        ((), {}, None),
    ],
)
def test_clusters_are_set_against_the_declared_factor_or_the_label(factors, declared, against, tmp_path, monkeypatch):
    known = {
        **{name: torch.arange(12) % 3 for name in ("digit", "label", "shape")},
        "value": torch.rand(12),
        "one": torch.zeros(12, dtype=torch.int64),
    }
    seen = {}
    monkeypatch.setattr(
        plots, "confusion", lambda table, label: seen.update(label=label) or plots.loss_curves({"a": [1.0]})
    )
    held = ImageData(data().images, {name: known[name] for name in factors}, name="noise", split="test")
    names = [path.name for path in draw_figures(clustered(), held, tmp_path, factors=declared)]
    assert seen.get("label") == against
    assert ("figure4.png" in names) == (against is not None)
    assert "figure6.png" in names


def test_a_cluster_that_holds_no_image_is_drawn_and_said_to_be_unused(tmp_path, monkeypatch):
    pair = clustered(components=4)
    with torch.no_grad():
        pair.guide.encoders["z_g"].register_forward_hook(lambda module, inputs, output: rising(output))
    seen = {}

    def kept(images, titles, title):
        seen.update(images=images, titles=titles, title=title)
        return plots.loss_curves({"a": [1.0]})

    monkeypatch.setattr(plots, "cluster_samples", kept)
    draw_figures(pair, data(), tmp_path)
    assert seen["images"].shape == (4, 4, 4, 3, 16, 16)
    assert seen["titles"][0].startswith("cluster 3\ndigit 0, 100.0%")
    assert seen["titles"][1:] == [f"cluster {number}\nunused" for number in (0, 1, 2)]
    assert seen["title"] == "z_g along the columns, z_l along the rows"


def rising(output):
    """An encoder's output whose last four numbers, the logits of the classes, rise."""
    return torch.cat([output[:, :-4], torch.arange(4.0).expand(len(output), -1)], dim=1)


def test_images_of_a_cluster_come_from_its_normal_and_share_the_other_blocks():
    pair = clustered()
    assert class_blocks(pair) == {"z_g": 3}
    decoded = {}
    pair.model.decoders["x"].register_forward_pre_hook(lambda module, inputs: decoded.update(z=inputs[0]))
    with torch.no_grad():
        pair.model.priors["z_g"].means.copy_(torch.tensor([[-9.0] * 3, [0.0] * 3, [9.0] * 3]))
    state = torch.get_rng_state()
    images = cluster_images(pair, "x", "z_g", rows=2, columns=5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert images.shape == (3, 2, 5, 3, 16, 16)
    z = decoded["z"].reshape(3, 2, 5, 5)
    assert (z[..., :3].mean((1, 2, 3)) - torch.tensor([-9.0, 0.0, 9.0])).abs().max() < 1.5
    assert torch.equal(z[:, 0, :, :3], z[:, 1, :, :3])  # a column is one draw of z_g
    assert len(z[:, 0, :, :3].flatten(0, 1).unique(dim=0)) == 15
    rows = z[..., 3:]  # a row is one draw of z_l, in every cluster
    assert torch.equal(rows, rows[:1, :, :1].expand_as(rows))
    assert not torch.equal(rows[0, 0], rows[0, 1])
    again = cluster_images(pair, "x", "z_g", rows=2, columns=5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


def test_one_block_alone_gives_one_row_and_few_images_are_refused(tmp_path):
    pair = clustered(components=13, others=())
    assert cluster_images(pair, "x", "z_g").shape[:3] == (13, 1, 4)
    with pytest.raises(
        ip.DataError, match="shows the 13 clusters of z_g, and noise test holds 12 images; give as many"
    ):
        draw_figures(pair, data(), tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()
