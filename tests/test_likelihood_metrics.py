"""Bounds on a likelihood that is known exactly, and KLs against their formulas."""

from __future__ import annotations

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

import infoplace as ip
from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.metrics.likelihood import Bound, bits_per_dim, block_kl

WEIGHTS = torch.tensor([[1.0, 0.5], [-0.7, 0.3], [0.2, 0.9]])
NOISE = 0.6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(count=40):
    z = torch.randn(count, 2, generator=generator(3))
    return {"x": z @ WEIGHTS.T + NOISE * torch.randn(count, 3, generator=generator(4))}


def exact(x):
    """`log p(x)` of `z ~ N(0, I)`, `x | z ~ N(Wz, s^2 I)`."""
    covariance = WEIGHTS @ WEIGHTS.T + NOISE**2 * torch.eye(3)
    return torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)


def posterior(x):
    precision = torch.eye(2) + WEIGHTS.T @ WEIGHTS / NOISE**2
    covariance = torch.linalg.inv(precision)
    return dist.MultivariateNormal(x @ WEIGHTS @ covariance / NOISE**2, covariance)


def plate(observations):
    return pyro.plate("batch", len(observations["x"]))


def model(observations, scale=1.0, **ignored):
    with plate(observations), poutine.scale(scale=scale):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHTS.T, NOISE).to_event(1), obs=observations["x"])


def perfect(observations, scale=1.0):
    with plate(observations), poutine.scale(scale=scale):
        pyro.sample("z", posterior(observations["x"]))


def poor(observations):
    with plate(observations):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.5).to_event(1))


def of_two(observations):
    """The linear model with a second latent that x does not hang on, and a second observation that hangs on it."""
    with plate(observations):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
        other = pyro.sample("other", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z @ WEIGHTS.T, NOISE).to_event(1), obs=observations["x"])
        pyro.sample("side", dist.Normal(other, 1.0), obs=observations["x"][:, 0])


def guide_of_two(observations):
    perfect(observations)
    with pyro.plate("again", len(observations["x"])):
        pyro.sample("other", dist.Normal(2.0, 0.3))


class TestBound:
    @pytest.mark.parametrize("samples", [1, 2, 7, 64])
    def test_with_the_exact_posterior_it_is_exact_for_every_number_of_samples(self, samples):
        found = bits_per_dim(model, perfect, data(), "x", samples=samples, batch_size=50)
        truth = exact(data()["x"])
        assert found.nats == pytest.approx(truth.mean().item(), abs=1e-5)
        assert found.elbo_nats == pytest.approx(truth.mean().item(), abs=1e-5)
        assert found.bits_per_dim == pytest.approx(-truth.mean().item() / (3 * math.log(2)), abs=1e-5)
        error = truth.std().item() / math.sqrt(40) / (3 * math.log(2))
        assert found.standard_error == pytest.approx(error, abs=1e-5)
        assert (found.samples, found.images, found.dims) == (samples, 40, 3)

    def test_with_a_poor_guide_it_rises_to_the_exact_value(self):
        truth = exact(data()["x"]).mean().item()
        bounds = [bits_per_dim(model, poor, data(), "x", samples=k).nats for k in (1, 4, 32, 4000)]
        assert bounds == sorted(bounds)
        assert bounds[0] < truth - 1
        assert bounds[2] < truth
        assert bounds[3] == pytest.approx(truth, abs=0.03)

    def test_one_sample_is_the_evidence_lower_bound(self):
        found = bits_per_dim(model, poor, data(), "x", samples=2000)
        # E_q log p(x|z) - KL(q || p) for z ~ N(0, 1.5^2).
        x = data()["x"]
        square = (x**2).sum(1) + 1.5**2 * (WEIGHTS**2).sum()
        expected = -0.5 * square / NOISE**2 - 3 * math.log(NOISE * math.sqrt(2 * math.pi))
        expected = expected - 2 * (0.5 * (1.5**2 - 1) - math.log(1.5))
        assert found.elbo_nats == pytest.approx(expected.mean().item(), abs=0.15)
        one = bits_per_dim(model, poor, data(), "x", samples=1)
        assert one.nats == one.elbo_nats
        assert found.elbo_bits_per_dim > found.bits_per_dim

    def test_a_scale_does_not_change_it(self):
        plain = bits_per_dim(model, perfect, data(), "x", samples=3)

        def scaled(observations):
            model(observations, scale=0.1)

        def scaled_guide(observations):
            perfect(observations, scale=7.0)

        assert bits_per_dim(scaled, scaled_guide, data(), "x", samples=3) == plain

    def test_latents_that_the_site_does_not_hang_on_drop_out(self):
        truth = exact(data()["x"]).mean().item()
        chosen = bits_per_dim(of_two, guide_of_two, data(), "x", samples=5, latents=("z",))
        assert chosen.nats == pytest.approx(truth, abs=1e-5)
        everything = bits_per_dim(of_two, guide_of_two, data(), "x", samples=5)
        assert everything.nats < truth - 0.5

    @pytest.mark.parametrize("batch_size", [1, 7, 64, 10_000])
    def test_no_run_has_more_rows_than_asked_for(self, batch_size):
        rows = []

        def counting(observations):
            rows.append(len(observations["x"]))
            model(observations)

        found = bits_per_dim(counting, perfect, data(10), "x", samples=9, batch_size=batch_size)
        assert max(rows) <= batch_size
        assert sum(rows) == 90
        assert found.nats == pytest.approx(exact(data(10)["x"]).mean().item(), abs=1e-5)

    def test_the_seed_decides_and_torch_keeps_its_own(self):
        before = torch.get_rng_state()
        first, again, other = (bits_per_dim(model, poor, data(), "x", samples=2, seed=seed) for seed in (0, 0, 1))
        assert first == again
        assert first != other
        assert torch.equal(before, torch.get_rng_state())

    def test_modules_run_in_evaluation_mode_and_keep_their_own(self):
        seen = []

        class Guide(nn.Module):
            def __init__(self):
                super().__init__()
                self.drop = nn.Dropout()

            def forward(self, observations):
                seen.append((self.drop.training, torch.is_grad_enabled()))
                perfect(observations)

        guide = Guide()
        bits_per_dim(model, guide, data(), "x", samples=1)
        block_kl(model, guide.forward, data())
        assert set(seen) == {(False, False)}
        assert guide.training
        assert guide.drop.training
        guide.drop.eval()
        block_kl(model, guide, data())
        assert (guide.training, guide.drop.training) == (True, False)

    def test_the_row(self):
        found = bits_per_dim(model, perfect, data(), "x", samples=3)
        (row,) = found.rows()
        assert json.loads(json.dumps(row)) == row
        assert list(row) == [
            "observation", "bits_per_dim", "standard_error", "elbo_bits_per_dim", "samples", "images", "dims",
        ]  # fmt: skip
        assert row["bits_per_dim"] == found.bits_per_dim
        assert f"x: {found.bits_per_dim:.4f} bits per dim" in str(found)

    def test_a_single_image_has_no_standard_error(self):
        found = bits_per_dim(model, perfect, data(1), "x", samples=3)
        assert math.isnan(found.standard_error)
        assert found.rows()[0]["standard_error"] is None
        assert Bound("x", -math.inf, 0.0, -math.inf, 1, 2, 3).rows()[0]["bits_per_dim"] is None

    def test_evenly_likely_grey_values_take_eight_bits(self):
        def grey(observations):
            with plate(observations):
                pyro.sample("z", dist.Normal(0.0, 1.0))
                logits = torch.zeros(len(observations["x"]), 5, 256)
                pyro.sample("x", dist.Categorical(logits=logits).to_event(1), obs=observations["x"])

        def guide(observations):
            with plate(observations):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        found = bits_per_dim(grey, guide, {"x": torch.randint(256, (6, 5), generator=generator())}, "x", samples=2)
        assert found.bits_per_dim == pytest.approx(8, abs=1e-5)


def a_pair(weight=1.0):
    partition = ip.Partition(
        {"z_g": ip.Block(3), "z_l": ip.Block(2)},
        {
            "x": ip.Observation(blocks=("z_g", "z_l"), weight=weight),
            "x_hat": ip.Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 4}}),
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pair = ip.make_pair(partition, (1, 16, 16))
    images = torch.randint(0, 256, (6, 1, 16, 16), generator=generator(2)).float() / 255
    return pair, partition.observe(images, generator=generator())


class TestPair:
    def test_the_bound_agrees_with_one_made_by_hand(self):
        pair, observations = a_pair(weight=0.25)
        pair.eval()
        samples = 500
        for name, blocks in (("x", ("z_g", "z_l")), ("x_hat", ("z_l",))):
            found = bits_per_dim(pair.model, pair.guide, observations, name, samples=samples, latents=blocks)
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(5)
                q = {block: each for block, each in pair.encode(observations).items() if block in blocks}
                z = {block: each.sample((samples,)) for block, each in q.items()}
                weights = pair.decode(z, name).log_prob(observations[name]).double()
                for block, value in z.items():
                    ratio = torch.distributions.Normal(0, 1).log_prob(value) - q[block].log_prob(value)
                    weights += ratio.sum(-1).double()
            bits = 256 * math.log(2)
            assert found.dims == 256
            noise = 5 * math.sqrt(2) * weights.std(0).mean().item() / math.sqrt(weights.numel())
            assert noise / bits < 0.15
            assert found.elbo_nats == pytest.approx(weights.mean().item(), abs=noise)
            # The highest of 500 weights varies little from one set of draws to another, but it does.
            bound = (weights.logsumexp(0) - math.log(samples)).mean().item()
            assert found.bits_per_dim == pytest.approx(-bound / bits, abs=0.04)
            assert found.bits_per_dim < found.elbo_bits_per_dim - 0.1
            assert 6 < found.bits_per_dim < 20

    def test_its_kl_is_that_of_its_posteriors(self):
        pair, observations = a_pair()
        pair.eval()
        found = block_kl(pair.model, pair.guide, observations, batch_size=4)
        for block, q in pair.encode(observations).items():
            each = torch.distributions.kl_divergence(q, torch.distributions.Normal(0, 1)).detach()
            row = found.row(block)
            assert row["nats"] == pytest.approx(each.sum(1).mean().item(), rel=1e-5)
            assert row["standard_error"] == pytest.approx(each.sum(1).std().item() / math.sqrt(6), rel=1e-4)
            assert row["dims"] == each.shape[1]
            assert row["active"] == (each.mean(0) > 0.01).sum()
        assert [row["block"] for row in found.rows()] == ["z_g", "z_l"]
        assert found.sampled == ()

    def test_a_mixture_prior_is_sampled(self):
        partition = ip.Partition({"z": ip.Block(2, prior={"mixture": {"components": 3}})}, {"x": ip.Observation()})
        pair = ip.make_pair(partition, (1, 16, 16))
        observations = partition.observe(torch.zeros(3, 1, 16, 16))
        found = block_kl(pair.model, pair.guide, observations, samples=20)
        assert found.sampled == ("z",)
        assert found.row("z")["active"] is None
        assert "sampled" in str(found)


def normal_pair(mean, scale, weight=1.0):
    def model(observations):
        with plate(observations), poutine.scale(scale=weight):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1).to_event(1))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=observations["x"])

    def guide(observations):
        with plate(observations):
            pyro.sample("z", dist.Normal(mean + observations["x"][:, None], scale).to_event(1))

    return model, guide


class TestKL:
    def test_the_formula(self):
        mean, scale = torch.tensor([2.0, 0.0, -0.1]), torch.tensor([0.5, 1.0, 1.0])
        found = block_kl(*normal_pair(mean, scale), {"x": torch.zeros(4)})
        expected = (0.5 * (mean**2 + scale**2 - 1) - scale.log()).sum().item()
        (row,) = found.rows()
        assert row["nats"] == pytest.approx(expected)
        assert row["bits"] == pytest.approx(expected / math.log(2))
        assert (row["standard_error"], row["dims"]) == (0.0, 3)
        assert row["active"] == 1  # the third has 0.005 nat
        assert json.loads(json.dumps(row)) == row
        assert list(row) == ["block", "nats", "standard_error", "bits", "dims", "active"]

    def test_it_is_averaged_over_the_images_before_a_dim_counts_as_active(self):
        mean, scale = torch.zeros(3), torch.ones(3)
        x = torch.tensor([0.0] * 9 + [1.0])  # 0.5 nat a dim for one image of ten: 0.05 on average
        (row,) = block_kl(*normal_pair(mean, scale), {"x": x}, batch_size=3).rows()
        assert row["nats"] == pytest.approx(0.15)
        assert row["standard_error"] == pytest.approx(0.15)
        assert row["active"] == 3
        (row,) = block_kl(*normal_pair(mean, scale), {"x": x / 3}, batch_size=3).rows()
        assert row["active"] == 0

    def test_a_scale_does_not_change_it(self):
        mean, scale = torch.tensor([2.0, 0.0, -0.1]), torch.tensor([0.5, 1.0, 1.0])
        plain, scaled = (
            block_kl(*normal_pair(mean, scale, weight), {"x": torch.zeros(4)}).rows() for weight in (1.0, 0.2)
        )
        assert plain == scaled

    def test_what_has_no_closed_form_is_sampled(self):
        q = posterior(data()["x"])
        p = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
        expected = torch.distributions.kl_divergence(q, p).mean().item()
        found = block_kl(model, perfect, data(), samples=2000)
        row = found.row("z")
        assert found.sampled == ("z",)
        assert row["nats"] == pytest.approx(expected, abs=0.03)
        assert row["active"] is None

    def test_latents_in_another_order_are_sampled_in_silence(self):
        def model(observations):
            with plate(observations):
                a = pyro.sample("a", dist.Normal(0.0, 1.0))
                pyro.sample("b", dist.Normal(a, 1.0))

        def guide(observations):
            with plate(observations):
                b = pyro.sample("b", dist.Normal(0.0, 2.0))
                pyro.sample("a", dist.Normal(b, 1.0))

        found = block_kl(model, guide, {"x": torch.zeros(5)}, samples=20_000, batch_size=100_000)
        assert found.sampled == ("b",)
        # E log q(b) - log p(b|a) with a - b ~ N(0, 1) and b ~ N(0, 4).
        assert found.row("b")["nats"] == pytest.approx(-math.log(2) - 0.5 + 0.5, abs=0.01)

    def test_what_only_the_guide_has_is_left_out(self):
        model, guide = normal_pair(torch.zeros(3), torch.ones(3))

        def with_auxiliary(observations):
            with pyro.plate("own", len(observations["x"])):
                pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            guide(observations)

        assert [row["block"] for row in block_kl(model, with_auxiliary, {"x": torch.zeros(4)}).rows()] == ["z"]

    def test_an_unknown_row(self):
        found = block_kl(*normal_pair(torch.zeros(3), torch.ones(3)), {"x": torch.zeros(4)})
        with pytest.raises(UnknownNameError, match="the table has no block 'zz'; it has 'z'"):
            found.row("zz")

    def test_text_of_a_single_image(self):
        found = block_kl(*normal_pair(torch.zeros(3), torch.ones(3)), {"x": torch.zeros(1)})
        assert str(found).startswith("z  0.000 nats, 0.000 bits; 3 dims, 0 active\n")


class TestBadInput:
    @pytest.mark.parametrize(
        ("site", "text"),
        [
            ("sde", r"the model has no observed site 'sde'; it observes 'x', 'side'. Did you mean 'side'\?"),
            ("z", r"the model has no observed site 'z' \(it is a latent one\); it observes 'x', 'side'"),
        ],
    )
    def test_sites(self, site, text):
        with pytest.raises(UnknownNameError, match=text):
            bits_per_dim(of_two, guide_of_two, data(), site)

    @pytest.mark.parametrize("name", ["othr", "x"])
    def test_latents(self, name):
        with pytest.raises(UnknownNameError, match=f"no latent site '{name}'; they have 'z', 'other'"):
            bits_per_dim(of_two, guide_of_two, data(), "x", latents=("z", name))
        with pytest.raises(DeclarationError, match=r"latents is a list of names; write latents=\('z',\)"):
            bits_per_dim(of_two, guide_of_two, data(), "x", latents="z")
        with pytest.raises(DeclarationError, match=r"without the latents that 'x' hangs on the number is no bound"):
            bits_per_dim(of_two, guide_of_two, data(), "x", latents=())

    @pytest.mark.parametrize(
        ("observations", "text"),
        [
            ({}, r"the observations are empty \(\{\}\)"),
            ({"x": torch.zeros(0, 3)}, r"the observations are empty \(\{'x': 0\}\)"),
            ({"x": torch.zeros(2, 3), "y": torch.zeros(3)}, r"differ in their number of samples: \{'x': 2, 'y': 3\}"),
            (torch.zeros(2, 3), "takes observations as a dict"),
            ({"x": [1.0]}, "takes observations as a dict"),
        ],
    )
    def test_observations(self, observations, text):
        for name, call in (
            ("bits_per_dim", lambda: bits_per_dim(model, perfect, observations, "x")),
            ("block_kl", lambda: block_kl(model, perfect, observations)),
        ):
            with pytest.raises(DataError, match=f"^{name}.*{text}"):
                call()

    @pytest.mark.parametrize("value", [0, -1, 1.5, True])
    def test_numbers(self, value):
        for name in ("samples", "batch_size"):
            with pytest.raises(DataError, match=f"{name} must be a whole number, 1 or more; got {value}"):
                bits_per_dim(model, perfect, data(), "x", **{name: value})
            with pytest.raises(DataError, match=f"{name} must be a whole number, 1 or more; got {value}"):
                block_kl(model, perfect, data(), **{name: value})

    def test_a_latent_without_a_batch(self):
        def shared(observations):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
            with plate(observations):
                pyro.sample("x", dist.Normal(WEIGHTS @ z, NOISE).to_event(1), obs=observations["x"])

        def guide(observations):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))

        text = r"site 'z' has batch shape \[\] for 5 samples; expected \[5\]: put it inside a pyro.plate"
        with pytest.raises(DeclarationError, match=text):
            bits_per_dim(shared, guide, data(5), "x", samples=1)
        with pytest.raises(DeclarationError, match=text):
            block_kl(shared, guide, data(5))

    def test_a_model_and_guide_that_do_not_go_together(self):
        with pytest.raises(DeclarationError, match="the model has a latent site 'other' that the guide lacks"):
            bits_per_dim(of_two, perfect, data(), "x")
        with pytest.raises(DeclarationError, match="the model has a latent site 'other' that the guide lacks"):
            block_kl(of_two, perfect, data())

    def test_a_masked_site(self):
        pair = normal_pair(torch.zeros(3), torch.ones(3))

        def masked(observations):
            with poutine.mask(mask=torch.tensor([True, False])):
                pair[0](observations)

        with pytest.raises(DataError, match="site 'x' is masked; give only images where it is observed"):
            bits_per_dim(masked, pair[1], {"x": torch.zeros(2)}, "x", samples=1)

    def test_not_a_number(self):
        class Broken(dist.Normal):
            def log_prob(self, value):
                return super().log_prob(value) * math.nan

        def broken(observations):
            with plate(observations):
                pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", Broken(0.0, 1.0), obs=observations["x"])

        def guide(observations):
            with plate(observations):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        with pytest.raises(DataError, match="the log-probability of 'x', or of a latent, is NaN"):
            bits_per_dim(broken, guide, {"x": torch.zeros(2)}, "x")
