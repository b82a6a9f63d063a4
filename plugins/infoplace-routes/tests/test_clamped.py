from __future__ import annotations

import itertools

import infoplace as ip
import numpy as np
import pytest
import torch
from infoplace.testing import check_pair

from infoplace_routes import Clamped, ClampedEncoder, clamped_batches, varying

SHAPE = (3, 8, 8)


@pytest.fixture
def small_images(images):
    return images[:, :, :8, :8]


@pytest.fixture
def pair(two_blocks):
    return ip.make_pair(two_blocks, SHAPE, networks={"clamped": {"invariance": 0.5}})


def gradients(pair, observations):
    """What reaches the outputs of each wrapped encoder, and those outputs."""
    outputs = {}
    hooks = [
        encoder.encoder.register_forward_hook(lambda module, given, out, name=name: outputs.__setitem__(name, out))
        for name, encoder in pair.guide.encoders.items()
    ]
    torch.manual_seed(4)
    ip.make_objective("elbo")(pair.model, pair.guide)(observations)
    loss = ip.make_objective("elbo").differentiable_loss(pair.model, pair.guide, observations)
    found = dict(zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True))
    for hook in hooks:
        hook.remove()
    return found, {name: value.detach() for name, value in outputs.items()}


def test_the_other_blocks_are_at_their_batch_mean(pair, two_blocks, small_images):
    observations = two_blocks.observe(small_images)
    free = pair.encode(observations)
    raw = pair.guide.encoders["z_l"].encoder(observations["x"]).detach().numpy()
    with varying(pair, "z_g"):
        held = pair.encode(observations)
    assert torch.equal(held["z_g"].mean, free["z_g"].mean)
    assert torch.equal(held["z_g"].scale, free["z_g"].scale)
    expected = np.tile(raw.mean(0), (6, 1))
    np.testing.assert_allclose(held["z_l"].mean.detach().numpy(), expected[:, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        held["z_l"].scale.detach().numpy(), np.log1p(np.exp(expected[:, 3:])) + 1e-5, rtol=1e-5, atol=1e-6
    )


def test_the_gradient_of_a_clamped_block_is_its_difference_from_the_mean(pair, two_blocks, small_images):
    observations = two_blocks.observe(small_images)
    with varying(pair, "z_g"):
        found, outputs = gradients(pair, observations)
    numbers = outputs["z_l"].numpy()
    np.testing.assert_allclose(found["z_l"].numpy(), 0.5 * (numbers - numbers.mean(0)), rtol=1e-4, atol=1e-7)
    # The block that varies gets what the decoder sends back, which is another thing.
    difference = 0.5 * (outputs["z_g"] - outputs["z_g"].mean(0))
    assert (found["z_g"] - difference).abs().max() > 0.1


def test_that_gradient_is_of_half_the_squared_distance():
    outputs = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    encoder = ClampedEncoder(torch.nn.Identity(), invariance=0.3)
    encoder.clamped = True
    (found,) = torch.autograd.grad(encoder(outputs).pow(3).sum(), outputs)
    distance = 0.5 * (outputs - outputs.mean(0)).square().sum()
    (expected,) = torch.autograd.grad(0.3 * distance, outputs)
    torch.testing.assert_close(found, expected)


def test_unclamped_it_is_the_network_underneath(pair, two_blocks, small_images):
    plain = ip.make_pair(two_blocks, SHAPE)
    state = {name.replace(".encoder.", "."): value for name, value in pair.state_dict().items()}
    plain.load_state_dict(state)
    observations = two_blocks.observe(small_images)
    for block in two_blocks.blocks:
        assert torch.equal(pair.encode(observations)[block].mean, plain.encode(observations)[block].mean)
    with varying(pair, "z_l"):
        assert [encoder.clamped for encoder in pair.guide.encoders.values()] == [False, True]
    assert not any(encoder.clamped for encoder in pair.guide.encoders.values())


def test_an_error_inside_and_a_block_inside_another_leave_it_as_it_was(pair):
    def clamped():
        return [encoder.clamped for encoder in pair.guide.encoders.values()]

    with varying(pair, "z_l"):
        with varying(pair, "z_g"):
            assert clamped() == [True, False]
        assert clamped() == [False, True]
    with pytest.raises(KeyError), varying(pair, "z_l"):
        raise KeyError
    assert clamped() == [False, False]


def test_the_swap_test_is_never_clamped(pair, two_blocks, small_images):
    observations = two_blocks.observe(small_images)
    expected = pair.reconstruct(observations)["x"]
    with varying(pair, "z_g"):
        assert torch.equal(pair.reconstruct(observations)["x"], expected)


def test_a_clamped_network_keeps_the_laws_of_pairs(pair, small_images):
    check_pair(pair, small_images)


def test_clamped_steps_lower_the_loss(pair, small_images, descend):
    with varying(pair, "z_g"):
        losses = descend(pair, small_images)
    assert losses[-1] < 0.98 * losses[0]


def test_clamping_teaches_a_block_not_to_see_what_varies(two_blocks, descend):
    """Images of one grey value, and only the other block may explain it: the clamped one comes to ignore it."""
    pair = ip.make_pair(two_blocks, SHAPE, networks={"clamped": {"invariance": 20.0}})
    x = torch.linspace(0, 255, 8).round().div(255).reshape(-1, 1, 1, 1).expand(8, *SHAPE)
    observations = two_blocks.observe(x)

    def spread():
        return {name: q.mean.std(0).mean().item() for name, q in pair.encode(observations).items()}

    before = spread()
    with varying(pair, "z_g"):
        descend(pair, x, steps=40)
    after = spread()
    assert after["z_l"] < 0.2 * before["z_l"]
    assert after["z_g"] > before["z_g"]


def test_a_compiled_loss_is_refused(pair, two_blocks, small_images, refuses):
    compiled = ip.compile(pair, ip.make_objective("elbo"), backend="eager")
    with refuses("clamped: which block varies changes from batch to batch", "not with infoplace.compile"):
        compiled(two_blocks.observe(small_images))


def test_saved_and_loaded(pair, two_blocks, small_images, tmp_path):
    pair.save(tmp_path / "run")
    loaded = ip.load_pair(tmp_path / "run")
    observations = two_blocks.observe(small_images)
    assert torch.equal(pair.reconstruct(observations)["x"], loaded.reconstruct(observations)["x"])
    assert loaded.guide.encoders["z_l"].invariance == 0.5


def test_specs_come_back():
    network = ip.make_network("clamped", base={"small": {"width": 32}}, invariance=1)
    assert ip.make_network(network.to_spec()) == network
    assert network.to_spec()["clamped"]["invariance"] == 1.0
    assert Clamped().invariance == 0.01


def test_bad_pairs_and_parameters(pair, two_blocks, refuses):
    for value in (-1.0, float("nan"), float("inf"), "much", True):
        with refuses(f"clamped: invariance must be a finite number of at least 0; got {value!r}"):
            ip.make_network("clamped", invariance=value)
    with refuses("varying: there is no block 'z'; the blocks are 'z_l', 'z_g'"), varying(pair, "z"):
        pass
    single = ip.make_pair(ip.Partition({"z": ip.Block(2)}, {"x": ip.Observation()}), SHAPE, networks="clamped")
    with refuses("varying: 'z' is the only block, so there is none to clamp"), varying(single, "z"):
        pass
    with (
        refuses("varying: the encoder of 'z_l' cannot be clamped; make the pair with networks='clamped'"),
        varying(ip.make_pair(two_blocks, SHAPE), "z_l"),
    ):
        pass
    with (
        refuses("the pair is in evaluation mode, in which nothing is clamped; type pair.train()"),
        varying(pair.eval(), "z_l"),
    ):
        pass


# ---- the batches -----------------------------------------------------------------------------------------------------


def product_factors():
    """Every combination of three digits, four slants and five colours, four times."""
    rows = torch.tensor(list(itertools.product(range(3), range(4), range(5))) * 4)
    colours = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    return {"digit": rows[:, 0], "slant": rows[:, 1] / 3.0, "colour": colours[rows[:, 2]]}


def taken(count, *arguments, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return list(itertools.islice(clamped_batches(*arguments, generator=generator, **options), count))


GROUPS = {"z_g": ["digit", "slant"], "z_l": ["colour"]}


def test_with_every_combination_there_the_match_is_exact():
    factors = product_factors()
    batches = taken(20, factors, GROUPS, batch_size=12)
    for batch in batches:
        held = [name for block, names in GROUPS.items() if block != batch.vary for name in names]
        assert list(batch.mismatch) == held
        assert all(value == pytest.approx(0, abs=1e-12) for value in batch.mismatch.values())
        assert all(len(factors[name][batch.indices].unique(dim=0)) == 1 for name in held)
        assert len(batch.indices.unique()) == 12
    assert {batch.vary for batch in batches} == {"z_g", "z_l"}
    # The matching images are drawn, not always the first of them.
    assert len({tuple(batch.indices.tolist()) for batch in batches}) == 20
    varied = [factors["digit"][batch.indices].unique().numel() for batch in batches if batch.vary == "z_g"]
    assert max(varied) == 3


def test_otherwise_the_nearest_are_taken():
    rng = np.random.default_rng(0)
    digit, ground = rng.integers(0, 10, 400), rng.random((400, 3)) * [1.0, 10.0, 0.1]
    factors = {"digit": torch.tensor(digit), "ground": torch.tensor(ground), "free": torch.rand(400)}
    (batch,) = taken(1, factors, {"z_g": ["digit"], "z_l": ["ground"]}, batch_size=16, shares={"z_g": 1, "z_l": 0})
    indices = batch.indices.numpy()
    # By hand: distances from the sample that is in every batch, in units of each channel's own standard deviation.
    scaled = ground / ground.std(0)
    nearest = [set(np.square(scaled - scaled[anchor]).sum(1).argsort()[:16]) for anchor in indices]
    assert set(indices) in nearest
    assert batch.vary == "z_g"
    expected = (ground[indices].var(0) / ground.var(0)).mean()
    assert batch.mismatch["ground"] == pytest.approx(expected, rel=1e-9)
    assert batch.mismatch["ground"] < 0.3


def test_classes_match_before_measured_values_do():
    digit = torch.tensor([0, 0, 0, 1, 1, 1])
    slant = torch.tensor([0.0, 5.0, 9.0, 0.0, 5.0, 9.0])
    factors = {"digit": digit, "slant": slant, "ground": torch.rand(6)}
    for batch in taken(
        10, factors, {"z_g": ["digit", "slant"], "z_l": ["ground"]}, batch_size=3, shares={"z_g": 0, "z_l": 1}
    ):
        assert len(digit[batch.indices].unique()) == 1
        assert batch.mismatch["digit"] == 0


def test_shares_say_how_often_a_block_varies():
    batches = taken(200, product_factors(), GROUPS, batch_size=4, shares={"z_g": 10, "z_l": 1})
    assert 0.8 < sum(batch.vary == "z_g" for batch in batches) / 200 < 1.0


def test_the_same_generator_gives_the_same_batches():
    one, other = (taken(5, product_factors(), GROUPS, batch_size=4, seed=3) for _ in range(2))
    assert all(torch.equal(a.indices, b.indices) and a.vary == b.vary for a, b in zip(one, other, strict=True))
    before = torch.random.get_rng_state()
    taken(1, product_factors(), GROUPS, batch_size=4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_street_numbers_have_near_matches():
    from infoplace.data import street_numbers

    data = street_numbers("train", size=1000, preset="easy")
    groups = {"z_g": ["digit", "typeface"], "z_l": ["ground"]}
    for batch in taken(6, data.factors, groups, batch_size=8):
        assert data.batch(batch.indices).shape == (8, 3, 32, 32)
        assert max(batch.mismatch.values()) < 0.2


def test_bad_factors_and_groups(refuses):
    factors = product_factors()
    data = {"kind": ip.DataError}
    with refuses("one group varies while the others are held, so there are at least two"):
        clamped_batches(factors, {"z_g": ["digit"]})
    with refuses("the group 'z_l' names no factor"):
        clamped_batches(factors, {"z_g": ["digit"], "z_l": []})
    with refuses("'digit' is named twice; a factor belongs to one block"):
        clamped_batches(factors, {"z_g": ["digit"], "z_l": ["digit"]})
    with refuses("'z_l' names the factor 'ground', and the data know 'digit', 'slant', 'colour'", **data):
        clamped_batches(factors, {"z_g": ["digit"], "z_l": "ground"})
    with refuses("the factors differ in their number of samples: {'digit': 240, 'slant': 3}", **data):
        clamped_batches({**factors, "slant": torch.rand(3)}, {"z_g": ["digit"], "z_l": ["slant"]})
    with refuses("the factor 'digit' is constant in these data, so no batch can vary it; leave it out", **data):
        clamped_batches({**factors, "digit": torch.zeros(240)}, GROUPS)
    with refuses("the factor 'slant' holds NaN or infinite values", **data):
        clamped_batches({**factors, "slant": torch.full((240,), torch.nan)}, GROUPS)
    with refuses("the factor 'slant' must be a tensor [samples] or [samples, values]; got list", **data):
        clamped_batches({**factors, "slant": [1.0]}, GROUPS)
    with refuses("the factors have 240 samples, and a batch 500; take batch_size=240 or less", **data):
        clamped_batches(factors, GROUPS, batch_size=500)
    with refuses("clamped_batches: batch_size must be a whole number of at least 2; got 1"):
        clamped_batches(factors, GROUPS, batch_size=1)
    with refuses("shares names ['z_g'], and the groups are ['z_g', 'z_l']; give each a share"):
        clamped_batches(factors, GROUPS, shares={"z_g": 1})
    with refuses("shares must be finite, at least 0 and not all 0"):
        clamped_batches(factors, GROUPS, shares={"z_g": 0, "z_l": 0})
