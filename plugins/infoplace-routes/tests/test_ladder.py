from __future__ import annotations

import copy
from typing import ClassVar

import infoplace as ip
import pytest
import torch
from infoplace.testing import PairLaws

from infoplace_routes import Ladder

SHAPE = (3, 16, 16)
READS = {"x": SHAPE}


@pytest.fixture
def pair(two_blocks):
    return ip.make_pair(two_blocks, SHAPE, networks="ladder")


def made(partition, **parameters):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ip.make_pair(partition, SHAPE, networks={"ladder": parameters})


class TestLaws(PairLaws):
    specs: ClassVar = [
        made(ip.Partition({"z_l": ip.Block(3), "z_g": ip.Block(5)}, {"x": ip.Observation()}), hidden=32, width=16)
    ]
    batch = torch.randint(0, 256, (3, *SHAPE), generator=torch.Generator().manual_seed(1)) / 255


@pytest.mark.parametrize(
    ("dims", "shape", "parameters"),
    [
        ((3, 5), (3, 16, 24), {}),
        ((2, 3, 4), (1, 16, 16), {"width": 12, "hidden": 16}),
        ((1, 2, 3, 4), (3, 32, 32), {"channels": 2, "width": 16}),
        ((3, 5), (1, 28, 28), {"cell": 2}),
    ],
)
def test_posteriors_and_likelihoods_have_their_shapes(dims, shape, parameters):
    partition = ip.Partition({f"z_{k}": ip.Block(dim) for k, dim in enumerate(dims)}, {"x": ip.Observation()})
    pair = ip.make_pair(partition, shape, networks={"ladder": parameters})
    posteriors = pair.encode(partition.observe(torch.zeros(2, *shape)))
    assert [q.mean.shape[1] for q in posteriors.values()] == list(dims)
    assert pair.sample(2)["x"].shape == (2, *shape)


def test_the_shallow_rung_sees_one_cell_and_the_deep_one_more():
    encoders = Ladder(width=8).encoders({"a": READS, "b": READS}, {"a": 2, "b": 2})
    x = torch.rand(1, *SHAPE, requires_grad=True)
    seen = {}
    for rung in (0, 1):
        features = encoders["a"].trunk(x, rung)
        (gradient,) = torch.autograd.grad(features[0, :, 1, 1].square().sum(), x)
        seen[rung] = gradient.abs().sum((0, 1)) > 0
    # Cells of four pixels: the second one in each direction is pixels 4 to 7.
    only = torch.zeros(16, 16, dtype=torch.bool)
    only[4:8, 4:8] = True
    assert torch.equal(seen[0], only)
    assert seen[1].sum() > 100


def test_all_blocks_share_one_trunk_and_deeper_heads_are_deeper():
    encoders = Ladder().encoders({"a": READS, "b": READS, "c": READS}, {"a": 2, "b": 4, "c": 6})
    assert encoders["a"].trunk is encoders["b"].trunk is encoders["c"].trunk
    linear = [sum(isinstance(layer, torch.nn.Linear) for layer in encoder.head) for encoder in encoders.values()]
    assert linear == [1, 2, 3]
    encoders["c"](torch.rand(2, *SHAPE)).sum().backward()
    reached = [all(p.grad is not None for p in step.parameters()) for step in encoders["a"].trunk.steps]
    assert reached == [True, True, True]


def test_a_shared_trunk_counts_once(pair):
    trunk = pair.guide.encoders["z_l"].trunk
    assert trunk is pair.guide.encoders["z_g"].trunk
    names = [name for name, _ in pair.named_parameters() if "trunk" in name]
    assert len(names) == len(list(trunk.parameters()))


def changes(decoder, codes, part, width):
    moved = codes.clone()
    moved[:, part : part + width] += 1
    return not torch.allclose(decoder(moved), decoder(codes))


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_deep_block_enters_before_the_shallow_one(order):
    network = Ladder(order=order, width=8)
    decoder = network.decoders({"x": {"a": 2, "b": 3}}, {"x": (6, 16, 16)})["x"]
    codes = torch.randn(2, 5)
    assert changes(decoder, codes, 0, 2)
    assert changes(decoder, codes, 2, 3)
    # Without the deepest step nothing is left of the deepest block, and the shallow one is still drawn.
    for parameter in decoder.steps[1].parameters():
        torch.nn.init.zeros_(parameter)
    assert changes(decoder, codes, 0, 2) == (order[0] == "a")
    assert changes(decoder, codes, 2, 3) == (order[0] == "b")


def test_an_observation_may_name_the_blocks_in_another_order(two_blocks):
    turned = ip.Partition(dict(two_blocks.blocks), {"x": ip.Observation(blocks=("z_g", "z_l"))})
    one = ip.make_pair(two_blocks, SHAPE, networks={"ladder": {"order": ["z_l", "z_g"]}})
    other = ip.make_pair(turned, SHAPE, networks={"ladder": {"order": ["z_l", "z_g"]}})
    other.load_state_dict(one.state_dict())
    latents = {"z_l": torch.randn(4, 3), "z_g": torch.randn(4, 5)}
    assert torch.equal(one.decode(latents, "x").mean, other.decode(latents, "x").mean)


def test_the_first_declared_block_is_the_shallowest(pair):
    assert [pair.guide.encoders[block].rung for block in ("z_l", "z_g")] == [0, 1]


def test_a_step_lowers_the_loss(pair, images, descend):
    losses = descend(pair, images)
    assert losses[-1] < 0.98 * losses[0]


def test_the_prior_stays_flat(pair):
    assert {name: type(prior()).__name__ for name, prior in pair.model.priors.items()} == {
        "z_l": "Independent",
        "z_g": "Independent",
    }
    assert sum(p.numel() for p in pair.model.priors.parameters()) == 0


def test_a_copy_has_its_own_trunk(pair, images):
    copied = copy.deepcopy(pair)
    encoders = copied.guide.encoders
    assert encoders["z_l"].trunk is encoders["z_g"].trunk is not pair.guide.encoders["z_l"].trunk


def test_specs_come_back():
    network = ip.make_network("ladder", order=["z_l", "z_g"], width=32)
    assert ip.make_network(network.to_spec()) == network
    assert network.to_spec()["ladder"]["order"] == ["z_l", "z_g"]
    assert ip.make_network("ladder").order is None


def test_a_prior_that_draws_a_class_gets_its_logits():
    mixture = ip.Block(4, prior={"mixture": {"components": 3, "y": "enumerate"}})
    partition = ip.Partition({"z_l": ip.Block(2), "z_g": mixture}, {"x": ip.Observation()})
    pair = ip.make_pair(partition, SHAPE, networks="ladder")
    assert pair.classify(partition.observe(torch.zeros(2, *SHAPE)))["z_g"].probs.shape == (2, 3)


def test_about_as_large_as_small():
    partition = ip.Partition({"z_l": ip.Block(12), "z_g": ip.Block(32)}, {"x": ip.Observation()})
    sizes = {
        name: sum(p.numel() for p in ip.make_pair(partition, (3, 32, 32), networks=name).parameters())
        for name in ("small", "ladder")
    }
    assert 0.8 < sizes["ladder"] / sizes["small"] < 1.1


def test_a_recipe_can_name_it(two_blocks, tmp_path):
    recipe = ip.Recipe(two_blocks, networks={"ladder": {"width": 16, "hidden": 32}})
    pair = ip.Recipe.from_dict(recipe.to_dict()).make_pair(SHAPE).eval()
    pair.save(tmp_path / "run")
    loaded = ip.load_pair(tmp_path / "run")
    assert loaded.guide.encoders["z_l"].trunk is loaded.guide.encoders["z_g"].trunk
    x = two_blocks.observe(torch.zeros(2, *SHAPE))
    assert torch.equal(loaded.encode(x)["z_l"].mean, pair.encode(x)["z_l"].mean)


def test_bad_parameters(refuses):
    for key in ("width", "channels", "hidden", "cell"):
        with refuses(f"ladder: {key} must be a whole number of at least 1; got 0"):
            ip.make_network("ladder", **{key: 0})
    for order in ("z_l", ["z_l", "z_l"], [1, 2]):
        with refuses("ladder: order must be a list of different blocks, from the shallowest to the deepest"):
            ip.make_network("ladder", order=order)


def test_bad_partitions(two_blocks, refuses):
    def make(partition, shape, **parameters):
        return ip.make_pair(partition, shape, networks={"ladder": parameters})

    blocks = {"z_l": ip.Block(3), "z_g": ip.Block(5)}
    one = ip.Partition({"z": ip.Block(3)}, {"x": ip.Observation()})
    with refuses("ladder: depth tells blocks apart, and there is one, 'z'; declare at least two"):
        make(one, SHAPE)
    with refuses("ladder: order names 'z_l', 'other', and the blocks are 'z_l', 'z_g'; name each of them once"):
        make(two_blocks, SHAPE, order=("z_l", "other"))
    with refuses("is 15x16, and 2 blocks with cells of 4 pixels take sizes that 8 divides; pad or resize"):
        make(two_blocks, (3, 15, 16))
    with refuses("is 28x28, and 2 blocks with cells of 4 pixels take sizes that 8 divides; cell=2 would do"):
        make(two_blocks, (1, 28, 28))
    auxiliary = ip.Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 4}})
    by_x = {name: ip.Block(block.dim, reads=("x",)) for name, block in blocks.items()}
    with refuses("depth alone places the information", "'x_hat' hangs on 'z_l'; declare"):
        make(ip.Partition(by_x, {"x": ip.Observation(), "x_hat": auxiliary}), SHAPE)
    two = ip.Partition(blocks, {"x": ip.Observation(), "y": ip.Observation()})
    with refuses("all blocks climb one trunk", "'z_l' reads 'x', 'y'"):
        make(two, {"x": SHAPE, "y": SHAPE})
    with refuses("what the blocks read, 'x', has shape (12,); it takes images [channels, height, width]"):
        make(two_blocks, (12,))


def test_as_a_part_of_another_network_it_says_what_to_type(two_blocks, refuses):
    with refuses("ladder: its encoders share a trunk", "make_pair(partition, shape, networks='ladder')"):
        ip.make_pair(two_blocks, SHAPE, networks={"clamped": {"base": "ladder"}})
    with refuses("it makes those of all blocks at once"):
        Ladder().decoder(8, (6, 16, 16))
