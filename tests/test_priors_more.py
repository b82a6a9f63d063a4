"""Two learned priors: a normalising flow, and a mixture of the block's own posteriors."""

from __future__ import annotations

import copy
import importlib
import json
import math
import pickle
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from torch import Tensor, nn

import infoplace as ip
from infoplace import Block, Observation, Partition
from infoplace.distributions import Prior, make_prior
from infoplace.distributions.flows import FlowPrior
from infoplace.distributions.vamp import VampPrior

FLOWS = [{"kind": "coupling"}, {"kind": "autoregressive"}, {"transforms": 1}, {"transforms": 3, "hidden": (5,)}]
PRIORS = {
    "coupling": {"flow": {"hidden": [8, 8]}},
    "autoregressive": {"flow": {"kind": "autoregressive", "hidden": [8]}},
    "vamp": {"vamp": {"components": 5}},
}


def flow(dim: int, dtype: torch.dtype = torch.float64, **parameters) -> nn.Module:
    """A flow that is well away from the identity."""
    torch.manual_seed(1)
    module = FlowPrior(**{"hidden": (16,), **parameters}).build(dim).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def vectors(prior, dim: int = 2, networks="small") -> ip.Pair:
    torch.manual_seed(0)
    partition = Partition({"z": Block(dim, prior=prior)}, {"x": Observation(likelihood="normal")})
    return ip.make_pair(partition, (3,), networks=networks)


def images(prior, dim: int = 2, networks="small") -> ip.Pair:
    torch.manual_seed(0)
    partition = Partition({"z": Block(dim, prior=prior)}, {"x": Observation()})
    return ip.make_pair(partition, (1, 8, 8), networks=networks)


def batch(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 1, 8, 8), generator=generator).float() / 255


def data(count: int = 6) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(7))


def moons(count: int, seed: int) -> Tensor:
    """Two half circles, one in the other: about zero mean and unit variance."""
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], -1)
    points[: count // 2] = torch.tensor([1.0, 0.5]) - points[: count // 2]
    points += 0.07 * torch.randn(count, 2, generator=generator)
    return (points - torch.tensor([0.5, 0.25])) / torch.tensor([0.87, 0.5])


def grid(dim: int, bound: float, steps: int) -> tuple[Tensor, float]:
    """Midpoints of cells that fill a cube, and a cell's volume."""
    width = 2 * bound / steps
    axis = torch.arange(steps, dtype=torch.float64) * width - bound + width / 2
    return torch.cartesian_prod(*[axis] * dim).reshape(-1, dim), width**dim


def fit(module: nn.Module, parameters, steps: int, rate: float) -> float:
    """Maximum likelihood on two moons; how many nats better than the standard normal on held-out points."""
    seen, held_out = moons(400, 0), moons(1000, 1)
    optimiser = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (-module().log_prob(seen).mean()).backward()
        optimiser.step()
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(held_out).sum(-1)
    with torch.no_grad():
        return (module().log_prob(held_out) - normal).mean().item()


# ---- what any prior keeps ----------------------------------------------------------------------------------------------


@pytest.fixture(params=list(PRIORS))
def pair(request):
    pyro.clear_param_store()
    return vectors(PRIORS[request.param])


class TestLaws:
    def test_shapes_in_and_out_of_a_plate(self, pair):
        prior = pair.model.priors["z"]()
        assert (prior.batch_shape, prior.event_shape) == ((), (2,))
        assert prior.sample((4, 3)).shape == (4, 3, 2)
        values = torch.randn(4, 3, 2)
        assert prior.log_prob(values).shape == (4, 3)
        wide = prior.expand((3,))
        assert (wide.batch_shape, wide.event_shape) == ((3,), (2,))
        assert wide.sample((4,)).shape == (4, 3, 2)
        torch.testing.assert_close(wide.log_prob(values), prior.log_prob(values))
        torch.testing.assert_close(wide.log_prob(values[0, 0]), prior.log_prob(values[0, 0]).expand(3))
        site = poutine.trace(pair.model).get_trace(None, size=7).nodes["z"]
        assert site["value"].shape == (7, 2)
        assert site["fn"].log_prob(site["value"]).shape == (7,)

    def test_a_value_of_another_size_is_refused_under_validation(self, pair):
        with pytest.raises(ValueError, match="size"):
            pair.model.priors["z"]().log_prob(torch.zeros(4, 3))

    def test_draws_agree_with_the_density(self, pair):
        pair.double()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in pair.model.priors.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            prior = pair.model.priors["z"]()
            points, cell = grid(2, 12.0, 300)
            weights = prior.log_prob(points).exp() * cell
            drawn = prior.sample((20_000,))
        assert weights.sum().item() == pytest.approx(1.0, abs=1e-3)
        for of in (lambda z: z, lambda z: z.square(), lambda z: z.prod(-1, keepdim=True), torch.sin):
            values = of(drawn)
            spread = values.std(0) / math.sqrt(len(drawn))
            assert ((values.mean(0) - (weights[:, None] * of(points)).sum(0)).abs() < 5 * spread).all()

    def test_every_parameter_gets_a_gradient_and_float64_is_kept(self, pair):
        pair.double()
        observations = pair.partition.observe(data().double())
        loss = ip.make_objective("elbo")(pair.model, pair.guide)(observations)
        assert loss.dtype == torch.float64
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in pair.parameters())
        assert pair.sample_prior("z", 3).dtype == torch.float64

    @pytest.mark.parametrize("particles", [1, 5])
    def test_the_kl_is_the_difference_of_log_densities_at_the_draws(self, pair, particles):
        observations = pair.partition.observe(data())
        objective = ip.make_objective("elbo", num_particles=particles, vectorize_particles=particles > 1)
        torch.manual_seed(3)
        kl = objective.terms(pair.model, pair.guide, observations)["kl/z"]
        torch.manual_seed(3)
        posterior = pair.encode(observations)["z"].to_event(1)
        z = posterior.rsample((particles,))
        expected = (posterior.log_prob(z) - pair.model.priors["z"]().log_prob(z)).sum() / particles
        assert kl.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)

    @pytest.mark.parametrize("how", ["svi", "torch"])
    def test_trains(self, pair, how):
        observations, objective = pair.partition.observe(data()), ip.make_objective("elbo")
        before = copy.deepcopy(pair.state_dict())
        loss = objective(pair.model, pair.guide)
        svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), loss=objective)
        optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
        for _ in range(3):
            if how == "svi":
                svi.step(observations)
            else:
                optimiser.zero_grad()
                loss(observations).backward()
                optimiser.step()
        unchanged = {name for name, _ in pair.named_parameters() if torch.equal(pair.state_dict()[name], before[name])}
        assert not unchanged

    def test_compiled_as_one_graph(self, pair):
        observations, objective = pair.partition.observe(data()), ip.make_objective("elbo")
        torch.manual_seed(0)
        expected = objective(pair.model, pair.guide)(observations)
        expected.backward()
        gradients = {name: p.grad.clone() for name, p in pair.named_parameters()}
        pair.zero_grad()
        compiled = ip.compile(pair, objective, observations, backend="eager")
        torch.manual_seed(0)
        loss = compiled(observations)
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        for name, parameter in pair.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)

    def test_copied_pickled_and_saved_pairs_score_alike(self, pair, tmp_path):
        values = torch.randn(5, 2)
        expected = pair.model.priors["z"]().log_prob(values)
        SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.0}), loss=ip.make_objective("elbo")).step(
            pair.partition.observe(data())
        )
        again = [
            copy.deepcopy(pair),
            pickle.loads(pickle.dumps(pair)),
            ip.load_pair(pair.save(tmp_path / "run")),
        ]
        for other in again:
            torch.testing.assert_close(other.model.priors["z"]().log_prob(values), expected)
        assert again[2].partition == pair.partition

    def test_prior_draws_follow_their_generator(self, pair):
        one, two = (pair.sample_prior("z", 4, torch.Generator().manual_seed(5)) for _ in range(2))
        assert one.shape == (4, 2)
        assert torch.equal(one, two)
        assert pair.sample(3)["x"].shape == (3, 3)

    def test_spec_round_trip(self, pair):
        prior = pair.partition.blocks["z"].prior
        assert make_prior(json.loads(json.dumps(prior.to_spec()))) == prior
        assert Partition.from_dict(pair.partition.to_dict()) == pair.partition

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_on_a_gpu(self, pair):
        values = torch.randn(5, 2)
        expected = pair.model.priors["z"]().log_prob(values)
        pair.to("cuda")
        torch.testing.assert_close(
            pair.model.priors["z"]().log_prob(values.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3
        )
        assert pair.sample_prior("z", 3).is_cuda
        observations = {name: value.cuda() for name, value in pair.partition.observe(data()).items()}
        ip.make_objective("elbo")(pair.model, pair.guide)(observations).backward()
        assert all(p.grad.is_cuda and p.grad.isfinite().all() for p in pair.parameters())


# ---- flow --------------------------------------------------------------------------------------------------------------


class TestFlow:
    @pytest.mark.parametrize("parameters", FLOWS, ids=str)
    @pytest.mark.parametrize("dim", [2, 5])
    def test_change_of_variables(self, parameters, dim):
        """The density, from the Jacobian of what maps a value to the base and from the base's own density."""
        module = flow(dim, **parameters)
        value = torch.randn(dim, dtype=torch.float64)
        transform = module.transform()
        jacobian = torch.autograd.functional.jacobian(transform, value)
        base = torch.distributions.Normal(0.0, 1.0).log_prob(transform(value)).sum()
        expected = base + torch.linalg.slogdet(jacobian).logabsdet
        assert module().log_prob(value).item() == pytest.approx(expected.item(), abs=1e-10)

    @pytest.mark.parametrize("parameters", FLOWS, ids=str)
    def test_a_draw_is_mapped_back_to_the_base_and_carries_gradients(self, parameters):
        module = flow(5, **parameters)
        torch.manual_seed(4)
        drawn = module().rsample((50,))
        torch.manual_seed(4)
        base = torch.randn(50, 5, dtype=torch.float64)
        torch.testing.assert_close(module.transform()(drawn), base, rtol=1e-5, atol=1e-6)
        drawn.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        assert not module().sample().requires_grad

    @pytest.mark.parametrize("parameters", FLOWS, ids=str)
    def test_it_starts_as_the_standard_normal(self, parameters):
        prior = FlowPrior(**parameters).build(6)()
        values = 3 * torch.randn(20, 6)
        torch.testing.assert_close(prior.log_prob(values), torch.distributions.Normal(0, 1).log_prob(values).sum(-1))

    def test_what_each_kind_lets_a_dimension_depend_on(self):
        value = torch.randn(4, dtype=torch.float64)
        coupling, autoregressive = (
            torch.autograd.functional.jacobian(flow(4, kind=kind, transforms=1).transform(), value) != 0
            for kind in ("coupling", "autoregressive")
        )
        lower = torch.ones(4, 4).tril().bool()
        assert torch.equal(autoregressive, lower)
        assert coupling.int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
        every = torch.autograd.functional.jacobian(flow(4, transforms=3).transform(), value) != 0
        assert every.all()

    def test_hidden_and_transforms_set_the_networks(self):
        sizes = [tuple(p.shape) for p in FlowPrior(transforms=2, hidden=(7, 9)).build(3).parameters() if p.dim() == 2]
        assert sizes == [(7, 3), (9, 7), (6, 9)] * 2

    @pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
    def test_it_learns_a_bent_density(self, kind):
        torch.manual_seed(0)
        module = FlowPrior(kind=kind, hidden=(32, 32)).build(2)
        assert fit(module, module.parameters(), 150, 1e-2) > 0.4

    def test_far_values_and_wild_weights_stay_finite(self):
        module = flow(4, torch.float32)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(50)
        values = (1e3 * torch.randn(10, 4)).requires_grad_()
        module().log_prob(values).sum().backward()
        assert values.grad.isfinite().all()

    def test_mixed_precision_leaves_it_alone(self):
        module, values = flow(4, torch.float32), torch.randn(10, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = module().log_prob(values)
            torch.manual_seed(0)
            drawn = module().rsample((3,))
        torch.manual_seed(0)
        assert torch.equal(mixed, module().log_prob(values))
        assert torch.equal(drawn, module().rsample((3,)))

    def test_importing_zuko_leaves_validation_as_it_was(self, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
            monkeypatch.delitem(sys.modules, name)
        before = torch.distributions.Distribution._validate_args
        assert FlowPrior().build(2)().event_shape == (2,)
        assert "zuko" in sys.modules
        assert torch.distributions.Distribution._validate_args is before
        assert isinstance(vars(torch.distributions.Distribution)["arg_constraints"], property)

    def test_without_zuko(self, monkeypatch):
        def missing(name):
            raise ModuleNotFoundError(f"No module named {name!r}")

        monkeypatch.setattr(importlib, "import_module", missing)
        with pytest.raises(ip.PluginError, match=r"needs zuko.*pip install 'infoplace\[flows\]'"):
            FlowPrior().build(2)

    @pytest.mark.parametrize(
        ("parameters", "text"),
        [
            ({"kind": "couplings"}, "kind must be one of 'coupling', 'autoregressive'.*Did you mean 'coupling'"),
            ({"transforms": 0}, "transforms must be an integer of at least 1; got 0"),
            ({"hidden": ()}, r"hidden must be the widths.*got \(\)"),
            ({"hidden": 64}, "hidden must be the widths.*got 64"),
            ({"hidden": (64, 0)}, r"each an integer of at least 1, as \[128, 128\]"),
            ({"hidden": (True,)}, "hidden must be the widths"),
        ],
    )
    def test_bad_parameters(self, parameters, text):
        with pytest.raises(ip.DeclarationError, match=text):
            make_prior("flow", **parameters)

    def test_bad_sizes(self):
        with pytest.raises(ip.DeclarationError, match="give the block 2 dimensions or more"):
            FlowPrior().build(1)
        with pytest.raises(ip.DeclarationError, match="dim must be a positive integer; got 0"):
            FlowPrior().build(0)


# ---- vamp --------------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """The mean is what the first numbers say, with a learned slope; with batch normalisation and dropout, if asked for."""

    def __init__(self, dim: int = 2, stochastic: bool = False, family=None) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(dim))
        self.raw_scale = nn.Parameter(torch.full((dim,), -1.0))
        self.layers = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)) if stochastic else nn.Identity()
        self.family = family

    def forward(self, x: Tensor):
        mean = self.slope * self.layers(x)[:, : len(self.slope)]
        scale = self.raw_scale.expand_as(mean)
        if self.family is None:
            return torch.cat([mean, scale], -1)
        return self.family(mean, scale.exp())


def own(prior=None, **parameters) -> ip.Pair:
    return vectors(prior or {"vamp": {"components": 6}}, networks={"encoders": {"z": Encoder(**parameters)}})


class TestVamp:
    @pytest.mark.parametrize("dim", [1, 2])
    def test_density_by_hand_and_that_it_integrates_to_one(self, dim):
        pair = images({"vamp": {"components": 3}}, dim).double().eval()
        points, cell = grid(dim, 10.0, 200)
        with torch.no_grad():
            prior = pair.model.priors["z"]()
            q = pair.encode({"x": pair.model.priors["z"].inputs[0]})["z"]
            one_by_one = [
                torch.distributions.Normal(q.mean[k], q.stddev[k]).log_prob(points).sum(-1).exp() for k in range(3)
            ]
            assert prior.log_prob(points).exp() == pytest.approx(sum(one_by_one) / 3, abs=1e-12)
            assert (prior.log_prob(points).exp().sum() * cell).item() == pytest.approx(1.0, abs=1e-4)

    def test_classify_is_bayes_rule(self):
        pair = images({"vamp": {"components": 4}})
        observations = pair.partition.observe(batch())
        q = pair.encode({"x": pair.model.priors["z"].inputs[0]})["z"]
        z = pair.encode(observations)["z"].mean
        joint = torch.stack([torch.distributions.Normal(q.mean[k], q.stddev[k]).log_prob(z).sum(-1) for k in range(4)])
        found = pair.classify(observations)["z"]
        assert found.batch_shape == (6,)
        torch.testing.assert_close(found.probs, (joint.exp() / joint.exp().sum(0)).T, rtol=1e-4, atol=1e-6)
        assert make_prior(pair.partition.blocks["z"].prior).classes == 4
        assert not make_prior(pair.partition.blocks["z"].prior).draws_class

    def test_the_encoder_is_counted_named_and_saved_once(self):
        plain, vamp = images("standard_normal"), images({"vamp": {"components": 5}})
        added = {name: tuple(p.shape) for name, p in vamp.state_dict().items() if name not in plain.state_dict()}
        assert added == {"model.priors.z.inputs.0": (5, 1, 8, 8)}
        parameters = list(vamp.parameters())
        assert len(parameters) == len({id(p) for p in parameters}) == len(list(plain.parameters())) + 1
        assert not {id(p) for p in vamp.model.parameters()} & {id(p) for p in vamp.guide.parameters()}
        assert [name for name, _ in vamp.named_children()] == ["model", "guide"]

    @pytest.mark.parametrize("how", ["deepcopy", "pickle", "load"])
    def test_the_priors_of_a_copy_and_of_its_original_read_their_own_encoders(self, how, tmp_path):
        pair, values = images({"vamp": {"components": 4}}), torch.randn(5, 2)
        again = {
            "deepcopy": copy.deepcopy,
            "pickle": lambda p: pickle.loads(pickle.dumps(p)),
            "load": lambda p: ip.load_pair(p.save(tmp_path / "run")),
        }[how](pair)
        before = pair.model.priors["z"]().log_prob(values)
        for changed, other in ((pair, again), (again, pair)):
            kept = other.model.priors["z"]().log_prob(values)
            with torch.no_grad():
                for parameter in changed.guide.encoders["z"].parameters():
                    parameter.add_(0.1)
            assert torch.equal(other.model.priors["z"]().log_prob(values), kept)
            assert not torch.allclose(changed.model.priors["z"]().log_prob(values), before)
        loss = again.model.priors["z"]().log_prob(values).sum()
        loss.backward()
        assert all(p.grad is not None for p in again.guide.encoders["z"].parameters())
        assert all(p.grad is None for p in pair.parameters())

    def test_the_encoder_learns_from_the_prior(self):
        pair = own()
        pair.model.priors["z"]().log_prob(torch.randn(9, 2)).sum().backward()
        assert pair.guide.encoders["z"].slope.grad.abs().min() > 0
        assert pair.guide.encoders["z"].raw_scale.grad.abs().min() > 0
        gradient = pair.model.priors["z"].inputs[0].grad
        assert (gradient[:, :2] != 0).all()
        assert (gradient[:, 2] == 0).all()

    def test_pseudo_inputs_start_in_the_middle_with_a_spread(self):
        (inputs,) = images({"vamp": {"components": 200}}).model.priors["z"].inputs
        assert inputs.shape == (200, 1, 8, 8)
        assert inputs.mean().item() == pytest.approx(0.5, abs=0.05)
        assert inputs.std().item() == pytest.approx(0.25, abs=0.03)
        assert inputs.flatten(1).mean(1).std().item() == pytest.approx(0.25 / math.sqrt(2), abs=0.03)
        (inputs,) = vectors({"vamp": {"components": 500}}).model.priors["z"].inputs
        assert inputs.mean().item() == pytest.approx(0.0, abs=0.3)
        assert inputs.std().item() == pytest.approx(1.0, abs=0.2)

    def test_several_reads_images_and_classes(self):
        torch.manual_seed(0)
        partition = Partition(
            {"z": Block(2, prior={"vamp": {"components": 5}}, reads=("image", "label"))},
            {
                "image": Observation(source="image"),
                "label": Observation(source="label", likelihood={"categorical": {"classes": 4}}),
            },
        )
        pair = ip.make_pair(partition, {"image": (1, 8, 8), "label": ()})
        image, label = pair.model.priors["z"].inputs
        assert (image.shape, label.shape) == ((5, 1, 8, 8), (5, 4))
        observations = partition.observe({"image": batch(), "label": torch.arange(6) % 4})
        ip.make_objective("elbo")(pair.model, pair.guide)(observations).backward()
        assert all(p.grad is not None for p in pair.parameters())

    def test_batch_normalisation_and_dropout_see_the_data_alone(self):
        pair = own(stochastic=True).train()
        encoder = pair.guide.encoders["z"]
        norm = encoder.layers[0]
        assert norm.num_batches_tracked == 0
        values, x = torch.randn(5, 2), 3 + 2 * torch.randn(64, 3)
        scores = [pair.model.priors["z"]().log_prob(values) for _ in range(3)]
        assert torch.equal(scores[0], scores[1])
        assert encoder.training
        assert norm.training
        assert norm.num_batches_tracked == 0
        ip.make_objective("elbo")(pair.model, pair.guide)(pair.partition.observe(x))
        assert norm.num_batches_tracked == 1
        torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(0))
        pair.eval()
        kept = pair.model.priors["z"]().log_prob(values)
        assert torch.equal(pair.train().model.priors["z"]().log_prob(values), kept)

    @pytest.mark.parametrize("family", [dist.Laplace, dist.Normal])
    def test_an_encoder_that_returns_distributions_over_vectors(self, family):
        pair = own(family=lambda mean, scale: family(mean, scale).to_event(1))
        values = torch.randn(5, 2)
        encoder, (inputs,) = pair.guide.encoders["z"], pair.model.priors["z"].inputs
        reference = getattr(torch.distributions, family.__name__)(
            encoder.slope * inputs[:, :2], encoder.raw_scale.exp()
        )
        expected = reference.log_prob(values[:, None]).sum(-1).logsumexp(-1) - math.log(6)
        torch.testing.assert_close(pair.model.priors["z"]().log_prob(values), expected)
        observations = pair.partition.observe(torch.randn(4, 3))
        ip.make_objective("elbo")(pair.model, pair.guide)(observations).backward()
        assert pair.sample_prior("z", 3).shape == (3, 2)

    def test_an_encoder_without_a_density_is_refused_when_the_pair_is_made(self):
        with pytest.raises(
            ip.DeclarationError, match=r"block 'z': vamp: .*takes densities over \[2\].*returns a Delta"
        ):
            own(family=lambda mean, scale: dist.Delta(mean, event_dim=1))

    def test_an_encoder_whose_posterior_loses_the_batch_is_refused(self):
        def one_for_all(mean, scale):
            return dist.Normal(mean[:2], scale[:2]).to_event(1)

        with pytest.raises(ip.DeclarationError, match=r"batch shape \[2\] and event shape \[2\]"):
            own(family=one_for_all)

    def test_pseudo_inputs_alone_learn_a_bent_density(self):
        pair = own({"vamp": {"components": 20}})
        pair.guide.requires_grad_(False)
        prior = pair.model.priors["z"]
        assert fit(prior, prior.parameters(), 150, 0.05) > 0.2

    def test_components_set_how_many_there_are(self):
        assert images({"vamp": {"components": 7}}).model.priors["z"]().mixture_distribution.probs.shape == (7,)
        with pytest.raises(
            ip.DeclarationError, match="components must be an integer of at least 2; got 1; for one normal"
        ):
            make_prior("vamp", components=1)

    def test_it_is_built_on_an_encoder(self):
        with pytest.raises(ip.DeclarationError, match="a pair builds it"):
            VampPrior().build(2)

        class Mine(Prior):
            pass

        assert not Mine().reads_encoder
        with pytest.raises(NotImplementedError, match="Mine defines no build_on"):
            Mine().build_on(2, None)
