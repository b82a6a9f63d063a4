"""A pair: a Pyro model and guide for any partition, what people do with them, and how they are saved."""

from __future__ import annotations

import copy
import json
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

import infoplace as ip
from infoplace import Block, Observation, Partition


def two_blocks(**x_hat) -> Partition:
    return Partition(
        {"z_g": Block(3), "z_l": Block(2)},
        {
            "x": Observation(blocks=("z_g", "z_l")),
            "x_hat": Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 4}}, **x_hat),
        },
    )


def images(count: int = 6, shape: tuple[int, ...] = (3, 16, 16)) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, *shape), generator=generator).float() / 255


def labelled() -> Partition:
    return Partition(
        {"z": Block(3), "y_only": Block(2)},
        {
            "image": Observation(blocks=("z", "y_only"), source="image"),
            "label": Observation(blocks=("z",), source="label", likelihood={"categorical": {"classes": 4}}),
        },
    )


PARTITIONS = {
    "one block": (Partition({"z": Block(3)}, {"x": Observation()}), (3, 16, 16)),
    "two blocks": (two_blocks(), (3, 16, 16)),
    "redraw": (two_blocks(redraw=True), (3, 16, 16)),
    "three blocks, two auxiliaries": (
        Partition(
            {"colour": Block(2), "texture": Block(2), "layout": Block(3)},
            {
                "x": Observation(),
                "shuffled": Observation(blocks=("colour", "texture"), transform={"patch_shuffle": {"n": 4}}),
                "palette": Observation(blocks=("colour",), transform="histogram", weight=0.5),
            },
        ),
        (3, 16, 16),
    ),
    "derived of derived": (
        Partition(
            {"z": Block(3), "w": Block(2)},
            {
                "x": Observation(),
                "grey": Observation(blocks=("z",), transform="grayscale"),
                "shuffled": Observation(blocks=("w",), of="grey", transform={"patch_shuffle": {"n": 8}}),
            },
        ),
        (3, 16, 16),
    ),
    "mixture prior, block beta": (
        Partition({"z": Block(3, prior={"mixture": {"components": 4}}, beta=2.0)}, {"x": Observation()}),
        (1, 8, 8),
    ),
    "vectors": (Partition({"z": Block(3)}, {"x": Observation(likelihood="normal")}), (5,)),
    "signals": (
        Partition(
            {"z": Block(3), "w": Block(2)},
            {
                "x": Observation(likelihood="laplace"),
                "x_hat": Observation(
                    blocks=("w",), transform={"patch_shuffle": {"n": 8, "dims": 1}}, likelihood="laplace"
                ),
            },
        ),
        (2, 32),
    ),
    "images and labels": (labelled(), {"image": (1, 8, 8), "label": ()}),
}


def batch_for(partition: Partition, data_shape, count: int = 6):
    if isinstance(data_shape, dict):
        return {"image": images(count, data_shape["image"]), "label": torch.arange(count) % 4}
    return images(count, data_shape)


@pytest.fixture(params=list(PARTITIONS))
def case(request):
    partition, data_shape = PARTITIONS[request.param]
    torch.manual_seed(0)
    pyro.clear_param_store()
    pair = ip.make_pair(partition, data_shape)
    return pair, partition.observe(batch_for(partition, data_shape))


class TestEveryPartition:
    def test_sites_of_model_and_guide(self, case):
        pair, observations = case
        model = poutine.trace(pair.model).get_trace(observations)
        guide = poutine.trace(pair.guide).get_trace(observations)
        latent = [name for name in model.stochastic_nodes if name != "_batch"]
        assert latent == list(pair.partition.blocks)
        assert set(model.observation_nodes) == set(pair.partition.observations)
        assert [name for name in guide.stochastic_nodes if name != "_batch"] == list(pair.partition.blocks)
        model.compute_log_prob()
        for name in pair.partition.observations:
            assert model.nodes[name]["log_prob"].shape == (6,)
            assert model.nodes[name]["fn"].event_shape == pair.shapes[name]

    def test_every_parameter_exists_at_once_and_gets_a_gradient(self, case):
        pair, observations = case
        before = {name for name, _ in pair.named_parameters()}
        ip.make_objective("elbo")(pair.model, pair.guide)(observations).backward()
        assert {name for name, _ in pair.named_parameters()} == before
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pair.parameters())

    def test_runs_without_observations(self, case):
        pair, _ = case
        drawn = pair.model(None, size=4)
        assert set(drawn) == {*pair.partition.blocks, *pair.partition.observations}
        for name, shape in pair.shapes.items():
            assert drawn[name].shape == (4, *shape)
        again = {name: drawn[name] for name in pair.partition.observations}
        trace = poutine.trace(pair.model).get_trace(again)
        assert torch.isfinite(trace.log_prob_sum())

    def test_an_observation_left_out_is_drawn(self, case):
        pair, observations = case
        name = list(pair.partition.observations)[-1]
        rest = {key: value for key, value in observations.items() if key != name}
        if not rest:
            pytest.skip("the partition has a single observation")
        trace = poutine.trace(pair.model).get_trace(rest)
        assert not trace.nodes[name]["is_observed"]
        assert trace.nodes[name]["value"].shape == (6, *pair.shapes[name])

    def test_encode_decode_reconstruct_resample_sample(self, case):
        pair, observations = case
        posteriors = pair.encode(observations)
        assert {k: tuple(q.shape()) for k, q in posteriors.items()} == {
            k: (6, b.dim) for k, b in pair.partition.blocks.items()
        }
        means = {name: q.mean for name, q in posteriors.items()}
        shown = pair.reconstruct(observations)
        block = next(iter(pair.partition.blocks))
        for name, shape in pair.shapes.items():
            likelihood = pair.decode(means, name)
            assert (*likelihood.batch_shape, *likelihood.event_shape) == (6, *shape)
            assert shown[name].shape == (6, *shape)
            assert pair.resample(observations, blocks=(block,))[name].shape == (6, *shape)
            assert pair.sample(3)[name].shape == (3, *shape)

    def test_vectorised_particles_agree_with_looped_ones(self, case):
        pair, observations = case
        pair.eval()
        looped = ip.make_objective("elbo", num_particles=64)
        vectorised = ip.make_objective("elbo", num_particles=64, vectorize_particles=True)
        torch.manual_seed(0)
        one, two = (float(o.loss(pair.model, pair.guide, observations)) for o in (looped, vectorised))
        assert one == pytest.approx(two, rel=0.02)

    def test_saved_and_loaded_pairs_agree(self, case, tmp_path):
        pair, observations = case
        loaded = ip.load_pair(pair.save(tmp_path / "run"))
        assert loaded.partition == pair.partition
        assert loaded.data_shape == pair.data_shape
        pair.eval(), loaded.eval()
        for name, posterior in pair.encode(observations).items():
            torch.testing.assert_close(loaded.encode(observations)[name].mean, posterior.mean)


class TestAgainstPyro:
    """The paper's objective, from Pyro's own ELBOs, on this library's pairs."""

    @pytest.fixture
    def double(self):
        torch.manual_seed(0)
        pair = ip.make_pair(two_blocks(), (3, 16, 16)).double()
        return pair, pair.partition.observe(images().double(), torch.Generator().manual_seed(1))

    @pytest.mark.parametrize(("kl", "reference"), [("sampled", Trace_ELBO()), ("analytic", TraceMeanField_ELBO())])
    def test_value_and_gradient(self, double, kl, reference):
        pair, observations = double
        results = []
        for objective in (ip.make_objective("elbo", kl=kl), reference):
            pair.zero_grad()
            torch.manual_seed(3)
            loss = objective.differentiable_loss(pair.model, pair.guide, observations)
            loss.backward()
            results.append((loss.item(), {n: p.grad.clone() for n, p in pair.named_parameters()}))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-12, abs=1e-8)
        for name, gradient in results[0][1].items():
            torch.testing.assert_close(gradient, results[1][1][name], rtol=1e-8, atol=1e-8)

    def test_equation_6_by_hand(self, double):
        """log p(x|z_g,z_l) + log p(x_hat|z_l) - beta KL, written out with torch alone."""
        pair, observations = double
        torch.manual_seed(3)
        loss = ip.make_objective("beta_elbo", beta=20.0).differentiable_loss(pair.model, pair.guide, observations)
        torch.manual_seed(3)
        posteriors = pair.encode(observations)
        latents = {name: q.rsample() for name, q in posteriors.items()}
        log_likelihood = sum(pair.decode(latents, name).log_prob(observations[name]).sum() for name in ("x", "x_hat"))
        kl = sum(0.5 * (q.mean**2 + q.variance - q.variance.log() - 1).sum() for q in posteriors.values())
        assert loss.item() == pytest.approx((20 * kl - log_likelihood).item(), rel=1e-12)

    def test_a_weight_scales_its_log_likelihood_and_a_beta_its_kl(self):
        plain = Partition({"z": Block(2)}, {"x": Observation()})
        weighted = Partition({"z": Block(2, beta=5.0)}, {"x": Observation(weight=3.0)})
        batch, losses = images(4, (1, 8, 8)), []
        for partition in (plain, weighted):
            torch.manual_seed(0)
            pair = ip.make_pair(partition, (1, 8, 8))
            torch.manual_seed(1)
            losses.append(ip.make_objective("elbo").terms(pair.model, pair.guide, partition.observe(batch)))
        assert losses[1]["log_likelihood/x"].item() == pytest.approx(3 * losses[0]["log_likelihood/x"].item(), rel=1e-5)
        assert losses[1]["kl/z"].item() == pytest.approx(losses[0]["kl/z"].item(), rel=1e-5)
        expected = 5 * losses[0]["kl/z"].item() - 3 * losses[0]["log_likelihood/x"].item()
        assert losses[1]["loss"].item() == pytest.approx(expected, rel=1e-5)


class TestTrainingSideBySide:
    """Pairs, copies and loaded pairs train each on their own, in Pyro's loop and in torch's."""

    def trains(self, pair: ip.Pair, others: list[ip.Pair], how: str) -> None:
        observations = pair.partition.observe(images())
        before = [copy.deepcopy(other.state_dict()) for other in (pair, *others)]
        objective = ip.make_objective("elbo")
        if how == "svi":
            svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), loss=objective)
            for _ in range(2):
                svi.step(observations)
        else:
            loss = objective(pair.model, pair.guide)
            optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
            loss(observations).backward()
            optimiser.step()
        for name, parameter in pair.named_parameters():
            assert not torch.equal(parameter, before[0][name]), name
        for other, state in zip(others, before[1:], strict=True):
            for name, value in other.state_dict().items():
                assert torch.equal(value, state[name]), name

    @pytest.mark.parametrize("how", ["svi", "torch"])
    @pytest.mark.parametrize("local", [False, True])
    def test_two_pairs_a_copy_a_pickle_and_a_loaded_one(self, how, local, tmp_path):
        pyro.clear_param_store()
        with pyro.settings.context(module_local_params=local):
            first, second = (ip.make_pair(two_blocks(), (3, 16, 16)) for _ in range(2))
            self.trains(first, [second], how)
            copied = copy.deepcopy(first)
            unpickled = pickle.loads(pickle.dumps(first))
            loaded = ip.load_pair(first.save(tmp_path / "run"))
            pairs = [first, second, copied, unpickled, loaded]
            for pair in pairs:
                self.trains(pair, [other for other in pairs if other is not pair], how)


@pytest.mark.parametrize("how", ["svi", "torch"])
def test_frozen_parameters_stay_and_nobody_warns(how):
    pair = ip.make_pair(two_blocks(), (3, 16, 16))
    pair.guide.requires_grad_(False)
    observations, before = pair.partition.observe(images()), copy.deepcopy(pair.state_dict())
    objective = ip.make_objective("elbo")
    if how == "svi":
        SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), loss=objective).step(observations)
    else:
        loss = objective(pair.model, pair.guide)
        optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
        loss(observations).backward()
        optimiser.step()
    changed = {name for name, value in pair.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("model.")}


class Encoder(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, *reads: Tensor) -> Tensor:
        return self.linear(torch.cat([read.flatten(1) for read in reads], dim=1))


class NormalEncoder(Encoder):
    def forward(self, *reads: Tensor) -> dist.Distribution:
        mean, scale = super().forward(*reads).chunk(2, dim=-1)
        return dist.Normal(mean, scale.exp()).to_event(1)


class Decoder(nn.Module):
    def __init__(self, inputs: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, math.prod(shape)), nn.Unflatten(1, shape))

    def forward(self, codes: Tensor) -> Tensor:
        return self.net(codes)


class LaplaceDecoder(Decoder):
    def forward(self, codes: Tensor) -> dist.Distribution:
        return dist.Laplace(super().forward(codes), 0.1).to_event(3)


class TestOwnNetworks:
    def test_in_part_the_rest_is_stock(self):
        encoder = Encoder(3 * 16 * 16, 6)
        pair = ip.make_pair(two_blocks(), (3, 16, 16), networks={"encoders": {"z_g": encoder}})
        assert pair.guide.encoders["z_g"] is encoder
        assert len(list(pair.guide.encoders["z_l"].parameters())) > 2

    @pytest.mark.parametrize("particles", [1, 5])
    def test_modules_that_return_distributions_are_used_as_they_are(self, particles):
        modules = {
            "encoders": {"z_g": NormalEncoder(3 * 16 * 16, 6)},
            "decoders": {"x": LaplaceDecoder(5, (3, 16, 16))},
        }
        pair = ip.make_pair(two_blocks(), (3, 16, 16), networks=modules)
        observations = pair.partition.observe(images())
        assert isinstance(pair.decode(_means(pair, observations), "x").base_dist, dist.Laplace)
        objective = ip.make_objective("elbo", num_particles=particles, vectorize_particles=True)
        objective(pair.model, pair.guide)(observations).backward()
        assert all(p.grad is not None for p in pair.parameters())

    def test_leading_dimensions_of_a_returned_distribution_are_restored(self):
        pair = ip.make_pair(two_blocks(), (3, 16, 16), networks={"decoders": {"x": LaplaceDecoder(5, (3, 16, 16))}})
        codes = {"z_g": torch.randn(4, 6, 3), "z_l": torch.randn(6, 2)}
        together = pair.decode(codes, "x")
        assert together.batch_shape == (4, 6)
        value = images()
        for index in range(4):
            alone = pair.decode({"z_g": codes["z_g"][index], "z_l": codes["z_l"]}, "x")
            torch.testing.assert_close(together.log_prob(value)[index], alone.log_prob(value))

    def test_several_reads_come_in_the_declared_order(self):
        seen = []

        class Spy(Encoder):
            def forward(self, *reads: Tensor) -> Tensor:
                seen.append([tuple(read.shape) for read in reads])
                return super().forward(*reads)

        partition = Partition(
            {"z": Block(2, reads=("grey", "x"))},
            {"x": Observation(), "grey": Observation(transform={"grayscale": {"channels": 1}})},
        )
        pair = ip.make_pair(partition, (3, 8, 8), networks={"encoders": {"z": Spy(64 + 192, 4)}})
        pair.encode(partition.observe(images(5, (3, 8, 8))))
        assert seen[-1] == [(5, 1, 8, 8), (5, 3, 8, 8)]

    def test_loading_asks_for_them_by_name(self, tmp_path):
        encoder = Encoder(3 * 16 * 16, 6)
        pair = ip.make_pair(two_blocks(), (3, 16, 16), networks={"encoders": {"z_g": encoder}})
        folder = pair.save(tmp_path / "run")
        with pytest.raises(ip.DeclarationError, match=r"networks=\{'encoders': \{'z_g': \.\.\.\}\}"):
            ip.load_pair(folder)
        loaded = ip.load_pair(folder, networks={"encoders": {"z_g": Encoder(3 * 16 * 16, 6)}})
        observations = pair.partition.observe(images())
        torch.testing.assert_close(loaded.encode(observations)["z_g"].mean, pair.encode(observations)["z_g"].mean)
        with pytest.raises(ip.DeclarationError, match="do not fit"):
            ip.load_pair(folder, networks={"encoders": {"z_g": nn.Sequential(nn.Flatten(), nn.Linear(768, 6))}})

    @pytest.mark.parametrize(
        ("networks", "text"),
        [
            ({"encoders": {"zg": Encoder(1, 1)}}, "no such block. Did you mean 'z_g'"),
            ({"decoders": {"y": Decoder(1, (1,))}}, "no such observation"),
            ({"encoder": {}, "decoders": {}}, "networks has no 'encoder'. Did you mean 'encoders'"),
            ({"encoder": {"z_g": Encoder(768, 6)}}, "networks has no 'encoder'. Did you mean 'encoders'"),
            ({"encoders": {"z_g": lambda x: x}}, "must be a torch.nn.Module"),
            ({"encoders": {"z_g": Encoder(768, 7)}}, r"the encoder of 'z_g' returns \[2, 7\].*expected \[2, 6\]"),
            ({"encoders": {"z_g": Encoder(700, 6)}}, r"the encoder of 'z_g' fails on input of shape \[2, 3, 16, 16\]"),
            ({"decoders": {"x": Decoder(5, (3, 16, 16))}}, r"the decoder of 'x' returns .*expected \[2, 6, 16, 16\]"),
            ("smal", "Did you mean 'small'"),
        ],
    )
    def test_what_does_not_fit_is_refused_when_the_pair_is_made(self, networks, text):
        with pytest.raises(ip.DeclarationError, match=text):
            ip.make_pair(two_blocks(), (3, 16, 16), networks=networks)

    def test_a_distribution_that_lacks_to_event(self):
        class Bare(Decoder):
            def forward(self, codes: Tensor) -> dist.Distribution:
                return dist.Laplace(super().forward(codes), 0.1)

        with pytest.raises(ip.DeclarationError, match=r"end it with \.to_event\(3\)"):
            ip.make_pair(two_blocks(), (3, 16, 16), networks={"decoders": {"x": Bare(5, (3, 16, 16))}})


def _means(pair: ip.Pair, observations: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: q.mean.detach() for name, q in pair.encode(observations).items()}


class TestUse:
    @pytest.fixture
    def pair(self):
        torch.manual_seed(0)
        return ip.make_pair(two_blocks(redraw=True), (3, 16, 16))

    def test_the_guide_reads_the_second_draw(self, pair):
        observations = pair.partition.observe(images())
        before = pair.encode(observations)["z_l"].mean
        other = {**observations, "x_hat": observations["x_hat"].flip(0)}
        torch.testing.assert_close(pair.encode(other)["z_l"].mean, before)
        other = {**observations, "x_hat_read": observations["x_hat_read"].flip(0)}
        assert not torch.allclose(pair.encode(other)["z_l"].mean, before)

    def test_an_auxiliary_observation_depends_on_its_own_blocks_alone(self, pair):
        observations = pair.partition.observe(images())
        pair.eval()
        kept = pair.reconstruct(observations)
        changed = pair.resample(observations, blocks=("z_g",))
        torch.testing.assert_close(changed["x_hat"], kept["x_hat"])
        assert not torch.allclose(changed["x"], kept["x"])

    def test_looking_needs_no_evaluation_mode_and_leaves_the_mode(self, pair):
        observations = pair.partition.observe(images())
        pair.train()
        one = pair.reconstruct(observations)["x"]
        assert pair.training
        assert pair.model.decoders["x"].training
        assert not one.requires_grad
        pair.eval()
        torch.testing.assert_close(pair.reconstruct(observations)["x"], one)

    def test_held_blocks_stay(self, pair):
        held = torch.randn(1, 2)
        drawn = pair.sample(5, z_l=held)
        torch.testing.assert_close(drawn["x_hat"], drawn["x_hat"][:1].expand(5, -1, -1, -1))
        assert not torch.allclose(drawn["x"][0], drawn["x"][1])

    def test_prior_draws_follow_their_generator_and_leave_the_global_state(self, pair):
        state = torch.get_rng_state()
        one, two = (pair.sample_prior("z_g", 4, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(one, two)
        assert torch.equal(torch.get_rng_state(), state)
        assert not torch.equal(pair.sample_prior("z_g", 4), one)

    @pytest.mark.parametrize("parallel", [False, True])
    def test_predictive_draws_anew(self, pair, parallel):
        observations = pair.partition.observe(images())
        drawn = pair.predictive(3, parallel=parallel)(observations)
        assert {k: tuple(v.shape) for k, v in drawn.items()} == {
            "z_g": (3, 6, 3),
            "z_l": (3, 6, 2),
            "x": (3, 6, 3, 16, 16),
            "x_hat": (3, 6, 3, 16, 16),
        }
        assert not torch.equal(drawn["x"][0], observations["x"])
        assert not torch.equal(drawn["x"][0], drawn["x"][1])

    def test_conditioning_a_block(self, pair):
        value = torch.zeros(4, 3)
        conditioned = poutine.condition(pair.model, data={"z_g": value})
        assert torch.equal(conditioned(None, size=4)["z_g"], value)

    def test_importance_sampling_with_the_model_uncondition(self, pair):
        observations = pair.partition.observe(images())
        drawn = poutine.uncondition(pair.model)(observations)
        assert not torch.equal(drawn["x"], observations["x"])


OBSERVATIONS = {"x": torch.zeros(2, 3, 16, 16), "x_hat": torch.zeros(2, 3, 16, 16)}


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: p.model(torch.zeros(2, 3, 16, 16)), ip.DataError, r"what partition\.observe\(batch\) returns"),
        (lambda p: p.model(None), ip.DataError, r"pair\.model\(None, size=16\)"),
        (lambda p: p.model(OBSERVATIONS, size=3), ip.DataError, "size=3, and the observations hold 2 samples"),
        (lambda p: p.guide(None), ip.DataError, "the guide reads observations"),
        (lambda p: p.encode({"x": torch.zeros(2, 3, 16, 16)}), ip.DataError, "block 'z_l' reads 'x_hat'"),
        (
            lambda p: p.encode({**OBSERVATIONS, "x": torch.zeros(2, 1, 16, 16)}),
            ip.DataError,
            r"x has shape \[2, 1, 16, 16\], and this pair takes \[batch, 3, 16, 16\]",
        ),
        (lambda p: p.encode({"x": torch.zeros(3, 16, 16)}), ip.DataError, r"single sample.*x\[None\]"),
        (lambda p: p.encode({"xhat": torch.zeros(2, 3, 16, 16)}), ip.DataError, "Did you mean 'x_hat'"),
        (
            lambda p: p.encode({**OBSERVATIONS, "x": torch.zeros(3, 3, 16, 16)}),
            ip.DataError,
            "differ in their number of samples",
        ),
        (
            lambda p: p.encode({**OBSERVATIONS, "x": torch.zeros(1, 2, 3, 16, 16)}),
            ip.DataError,
            r"x has shape \[1, 2, 3, 16, 16\], and this pair takes \[batch, 3, 16, 16\]",
        ),
        (
            lambda p: p.encode({k: v.double() for k, v in OBSERVATIONS.items()}),
            ip.DataError,
            "x is float64 and the pair",
        ),
        (lambda p: p.model(None, size=0), ip.DataError, "size must be at least 1"),
        (
            lambda p: p.decode({"z_g": torch.zeros(2, 3), "z_l": torch.zeros(5, 2)}, "x"),
            ip.DataError,
            r"do not go together: their leading shapes are \[\[2\], \[5\]\]",
        ),
        (lambda p: p.sample(2, z_l=torch.zeros(1, 2).double()), ip.DataError, "convert it"),
        (lambda p: p.model({"x": torch.zeros(0, 3, 16, 16)}), ip.DataError, "the batch is empty"),
        (lambda p: p.decode({"z_g": torch.zeros(2, 3)}, "x"), ip.DataError, "not 'z_l'"),
        (lambda p: p.decode({"z_l": torch.zeros(2, 3)}, "x_hat"), ip.DataError, r"z_l must be \[batch, 2\]"),
        (lambda p: p.decode({"z_l": dist.Normal(0, 1)}, "x_hat"), ip.DataError, r"its \.mean, perhaps"),
        (lambda p: p.decode({}, "xx"), ip.DeclarationError, "no observation 'xx'. Did you mean 'x'"),
        (lambda p: p.resample(OBSERVATIONS, blocks="z_l"), ip.DeclarationError, r"blocks=\('z_l',\)"),
        (lambda p: p.resample(OBSERVATIONS, blocks=("z_x",)), ip.DeclarationError, "no block 'z_x'"),
        (lambda p: p.sample(0), ip.DeclarationError, "at least 1"),
        (lambda p: p.sample(4, z_l=torch.zeros(3, 2)), ip.DataError, r"takes \[4, dim\] or \[1, dim\]"),
        (lambda p: p.sample(4, w=torch.zeros(4, 2)), ip.DeclarationError, "no block 'w'"),
    ],
)
def test_misuse_is_named(call, error, text):
    pair = ip.make_pair(two_blocks(), (3, 16, 16))
    with pytest.raises(error, match=text):
        call(pair)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((3, 15, 16), "observation 'x_hat': patch_shuffle"),
        ((3, 0, 16), "tuple of sizes without the batch"),
        (16, "tuple of sizes"),
        ({"y": (3, 16, 16)}, "data_shape has no 'x'"),
        ({"x": (3, 16, 16), "y": (3,)}, "names 'y'"),
    ],
)
def test_shapes_that_cannot_be(shape, text):
    with pytest.raises(ip.DeclarationError, match=text):
        ip.make_pair(two_blocks(), shape)


class TestSavedFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        return ip.make_pair(two_blocks(), (3, 16, 16)).save(tmp_path / "run")

    def test_what_is_in_it(self, folder):
        assert sorted(f.name for f in folder.iterdir()) == ["pair.json", "partition.yaml", "weights.safetensors"]
        assert Partition.from_file(folder / "partition.yaml") == two_blocks()
        assert "torch" in json.loads((folder / "pair.json").read_text())

    def test_saving_again_replaces_the_pair(self, folder):
        other = ip.make_pair(two_blocks(), (3, 16, 16))
        other.save(folder)
        observations = other.partition.observe(images())
        other.eval()
        loaded = ip.load_pair(folder).eval()
        torch.testing.assert_close(loaded.encode(observations)["z_g"].mean, other.encode(observations)["z_g"].mean)

    def test_no_folder(self, tmp_path):
        with pytest.raises(ip.RunFolderError, match="there is no folder"):
            ip.load_pair(tmp_path / "nothing")

    @pytest.mark.parametrize("name", ["pair.json", "weights.safetensors"])
    def test_a_missing_file_is_named(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(ip.RunFolderError, match=f"holds no {name}"):
            ip.load_pair(folder)

    def test_weights_cut_short(self, folder):
        file = folder / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ip.RunFolderError, match="cut short or changed"):
            ip.load_pair(folder)

    def test_a_description_that_is_no_json(self, folder):
        (folder / "pair.json").write_text("{")
        with pytest.raises(ip.RunFolderError, match=r"is not what pair\.save"):
            ip.load_pair(folder)

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "run").write_text("")
        with pytest.raises(ip.RunFolderError, match="is a file"):
            ip.make_pair(two_blocks(), (3, 16, 16)).save(tmp_path / "run")

    def test_a_full_disk_leaves_the_saved_pair_whole(self, folder, monkeypatch):
        before = {f.name: f.read_bytes() for f in folder.iterdir()}

        def full(*arguments, **keywords):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("infoplace.files.os.replace", full)
        with pytest.raises(ip.RunFolderError, match="No space left on device"):
            ip.make_pair(two_blocks(), (3, 16, 16)).save(folder)
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    def test_data_left_on_the_cpu_is_named(self):
        pair = ip.make_pair(two_blocks(), (3, 16, 16)).to("cuda")
        with pytest.raises(ip.DataError, match=r"x is on cpu and the pair on cuda:0"):
            pair.model(pair.partition.observe(images()))

    def test_agrees_with_the_cpu(self, tmp_path):
        pair = ip.make_pair(two_blocks(), (3, 16, 16)).eval()
        observations = pair.partition.observe(images())
        expected = pair.reconstruct(observations)["x"]
        pair.to("cuda")
        got = pair.reconstruct({k: v.cuda() for k, v in observations.items()})["x"]
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-3, atol=1e-3)
        assert ip.load_pair(pair.save(tmp_path / "run"), device="cuda").device.type == "cuda"


def test_data_on_another_device_is_named():
    pair = ip.make_pair(two_blocks(), (3, 16, 16))
    with pytest.raises(ip.DataError, match=r"x is on meta and the pair on cpu; move the batch: batch.to\('cpu'\)"):
        pair.model({"x": torch.zeros(2, 3, 16, 16, device="meta")})
