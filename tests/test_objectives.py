"""Objectives: against Pyro's own estimators, against exact answers, and by their laws."""

from __future__ import annotations

import copy
import functools
import json
import math
import pickle
import warnings
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal, AutoNormalMessenger
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.objectives import (
    BetaElbo,
    Capacity,
    Elbo,
    Evidence,
    FreeBits,
    Objective,
    ObjectiveModule,
    Term,
    WeightedSum,
    describe_objective,
    list_objectives,
    make_objective,
    register_objective,
)

BATCH, DATA, CODE = 5, 4, 3


@pytest.fixture(autouse=True)
def _float64_and_a_clean_store() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(before)
    pyro.clear_param_store()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(BATCH, DATA, generator=torch.Generator().manual_seed(1))


# ---- models and guides that know nothing of infoplace -------------------------------------------------------------------


class Program(nn.Module):
    """A model or a guide: linear maps, and a subclass's forward."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.loc = nn.Linear(CODE, DATA)
        self.code = nn.Linear(DATA, 2 * CODE)
        self.second = nn.Linear(CODE, 2 * CODE)
        self.logits = nn.Linear(DATA, CODE)
        self.table = nn.Parameter(torch.empty(CODE, CODE))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))

    def normal(self, parameters: Tensor) -> dist.Distribution:
        mean, raw = parameters.chunk(2, -1)
        return dist.Normal(mean, torch.nn.functional.softplus(raw) + 0.1).to_event(1)

    @staticmethod
    def unit() -> dist.Distribution:
        return dist.Normal(torch.zeros(CODE), torch.ones(CODE)).to_event(1)


class PlainModel(Program):
    beta: float | None = None

    def forward(self, x: Tensor) -> None:
        infer = {} if self.beta is None else {"beta": self.beta}
        with pyro.plate("batch", len(x), dim=-1):
            z = pyro.sample("z", self.unit(), infer=infer)
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class PlainGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("z", self.normal(self.code(x)))


class ScaledModel(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            with poutine.scale(scale=2.5):
                z = pyro.sample("z", self.unit())
            with poutine.scale(scale=0.3):
                pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class ScaledGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1), poutine.scale(scale=2.5):
            pyro.sample("z", self.normal(self.code(x)))


class MaskedModel(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1), poutine.mask(mask=x[:, 0] > -0.5):
            z = pyro.sample("z", self.unit())
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class MaskedGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1), poutine.mask(mask=x[:, 0] > -0.5):
            pyro.sample("z", self.normal(self.code(x)))


class SubsampledModel(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), subsample_size=2, dim=-1) as chosen:
            z = pyro.sample("z", self.unit())
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x[chosen])


class SubsampledGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), subsample_size=2, dim=-1) as chosen:
            pyro.sample("z", self.normal(self.code(x[chosen])))


class HierarchicalModel(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            top = pyro.sample("top", self.unit())
            z = pyro.sample("z", self.normal(self.second(top)))
            pyro.sample("x", dist.Normal(self.loc(z) + top.sum(-1, True), 0.7).to_event(1), obs=x)


class HierarchicalGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            top = pyro.sample("top", self.normal(self.code(x)))
            pyro.sample("z", self.normal(self.second(top) + self.code(x)))


class UpwardGuide(Program):
    """Draws ``z`` before ``top``: the closed form of z's KL would be wrong."""

    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            z = pyro.sample("z", self.normal(self.code(x)))
            pyro.sample("top", self.normal(self.second(z)))


class MixtureModel(Program):
    """A prior whose KL has no closed form."""

    def forward(self, x: Tensor) -> None:
        prior = dist.MixtureSameFamily(
            dist.Categorical(logits=self.table[0]), dist.Normal(self.table, torch.ones(CODE)).to_event(1)
        )
        with pyro.plate("batch", len(x), dim=-1):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class DiscreteModel(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.table[0]))
            z = pyro.sample("z", dist.Normal(self.table[y], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class DiscreteGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.logits(x)))
            pyro.sample("z", self.normal(self.code(x) + self.second(self.table[y])))


class GlobalModel(Program):
    """A global latent outside the plate, and a discrete one inside a second plate."""

    def forward(self, x: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("batch", len(x), dim=-1):
            z = pyro.sample("z", self.unit())
            with pyro.plate("rows", 2, dim=-2):
                flag = pyro.sample("flag", dist.Bernoulli(0.3))
                mean = self.loc(z) + shift.unsqueeze(-1) + flag.unsqueeze(-1)
                pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=torch.stack([x, x + 1]))


class GlobalGuide(Program):
    def forward(self, x: Tensor) -> None:
        pyro.sample("shift", dist.Normal(self.table[0, 0], 0.4))
        with pyro.plate("batch", len(x), dim=-1):
            z = pyro.sample("z", self.normal(self.code(x)))
            with pyro.plate("rows", 2, dim=-2):
                pyro.sample("flag", dist.Bernoulli(logits=z.sum(-1)))


class PositiveModel(Program):
    """A latent with bounded support: automatic guides draw it through an auxiliary site."""

    def forward(self, x: Tensor) -> None:
        width = pyro.sample("width", dist.LogNormal(0.0, 1.0))
        pyro.deterministic("double", 2 * width)
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("x", dist.Normal(self.table[0, 0], width).expand([DATA]).to_event(1), obs=x)


CASES = {
    "plain": (PlainModel, PlainGuide),
    "scaled": (ScaledModel, ScaledGuide),
    "masked": (MaskedModel, MaskedGuide),
    "subsampled": (SubsampledModel, SubsampledGuide),
    "hierarchical": (HierarchicalModel, HierarchicalGuide),
    "mixture": (MixtureModel, PlainGuide),
    "discrete": (DiscreteModel, DiscreteGuide),
    "global": (GlobalModel, GlobalGuide),
    "upward": (HierarchicalModel, UpwardGuide),
}
REPARAMETERISED = ["plain", "scaled", "masked", "subsampled", "hierarchical", "mixture"]
PARTICLES = {
    "one": {},
    "looped": {"num_particles": 3},
    "vectorised": {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 2},
}


def make_case(name: str) -> tuple[nn.Module, nn.Module]:
    model, guide = CASES[name]
    return model(1), guide(2)


def value_and_gradients(elbo, model, guide, *args, seed: int = 3) -> tuple[float, list[Tensor]]:
    parameters = [*model.parameters(), *guide.parameters()]
    pyro.set_rng_seed(seed)
    loss = elbo.differentiable_loss(model, guide, *args)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss.item(), [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def assert_same(left, right) -> None:
    assert left[0] == pytest.approx(right[0], abs=1e-8, rel=1e-10)
    for one, other in zip(left[1], right[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)
    assert any(gradient.abs().max() > 1e-3 for gradient in left[1])


# ---- equal to Pyro where Pyro is right ----------------------------------------------------------------------------------


class TestEqualsPyro:
    @pytest.mark.parametrize("particles", PARTICLES)
    @pytest.mark.parametrize("case", CASES)
    def test_sampled_equals_trace_elbo(self, case: str, particles: str, x: Tensor) -> None:
        model, guide = make_case(case)
        ours = value_and_gradients(Elbo(kl="sampled", **PARTICLES[particles]), model, guide, x)
        assert_same(ours, value_and_gradients(Trace_ELBO(**PARTICLES[particles]), model, guide, x))

    @pytest.mark.parametrize("particles", PARTICLES)
    @pytest.mark.parametrize("case", REPARAMETERISED)
    def test_analytic_equals_trace_mean_field_elbo(self, case: str, particles: str, x: Tensor) -> None:
        model, guide = make_case(case)
        ours = value_and_gradients(Elbo(**PARTICLES[particles]), model, guide, x)
        assert_same(ours, value_and_gradients(TraceMeanField_ELBO(**PARTICLES[particles]), model, guide, x))

    def test_the_closed_form_and_the_estimate_differ_for_one_draw(self, x: Tensor) -> None:
        model, guide = make_case("plain")
        pyro.set_rng_seed(0)
        closed = Elbo().terms(model, guide, x)
        pyro.set_rng_seed(0)
        sampled = Elbo(kl="sampled").terms(model, guide, x)
        assert closed["log_likelihood/x"] == sampled["log_likelihood/x"]
        assert closed["kl/z"] != sampled["kl/z"]

    def test_without_validation(self, x: Tensor) -> None:
        model, guide = make_case("hierarchical")
        with pyro.validation_enabled(False):
            ours = value_and_gradients(Elbo(), model, guide, x)
            assert_same(ours, value_and_gradients(TraceMeanField_ELBO(), model, guide, x))

    @pytest.mark.parametrize("case", ["discrete", "global"])
    def test_beta_with_score_functions_equals_scaled_trace_elbo(self, case: str, x: Tensor) -> None:
        model, guide = make_case(case)
        latents = set(Elbo().terms(model, guide, x)) - {"log_likelihood/x", "loss"}
        names = {name.removeprefix("kl/") for name in latents}

        class ScaleLatents(poutine.messenger.Messenger):
            def _pyro_sample(self, message) -> None:
                if message["name"] in names:
                    message["scale"] = message["scale"] * 3.0

        scaled = [ScaleLatents()(program) for program in (model, guide)]
        for owner, wrapped in zip((model, guide), scaled, strict=True):
            wrapped.parameters = owner.parameters
        reference = value_and_gradients(Trace_ELBO(), *scaled, x)
        assert_same(value_and_gradients(BetaElbo(beta=3.0, kl="sampled"), model, guide, x), reference)

    @pytest.mark.parametrize("guide", [AutoNormal, AutoDelta, AutoNormalMessenger])
    def test_automatic_guides_equal_trace_elbo(self, guide, x: Tensor) -> None:
        model = PositiveModel(1)
        automatic = guide(model)
        automatic(x)
        ours = value_and_gradients(Elbo(), model, automatic, x)
        assert_same(ours, value_and_gradients(Trace_ELBO(), model, automatic, x))

    def test_svi_takes_the_same_steps(self, x: Tensor) -> None:
        def train(elbo) -> tuple[list[float], list[Tensor]]:
            pyro.clear_param_store()
            model, guide = make_case("plain")

            def registered_model(x: Tensor) -> None:
                pyro.module("model", model)
                model(x)

            def registered_guide(x: Tensor) -> None:
                pyro.module("guide", guide)
                guide(x)

            pyro.set_rng_seed(5)
            svi = SVI(registered_model, registered_guide, pyro.optim.Adam({"lr": 0.01}), loss=elbo)
            losses = [svi.step(x) for _ in range(4)] + [svi.evaluate_loss(x)]
            return losses, [p.detach().clone() for p in [*model.parameters(), *guide.parameters()]]

        ours, theirs = train(Elbo()), train(TraceMeanField_ELBO())
        assert ours[0] == pytest.approx(theirs[0], abs=1e-8)
        for one, other in zip(ours[1], theirs[1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)

    @pytest.mark.parametrize("module_local_params", [False, True])
    def test_pyro_modules_train_in_both_settings(self, module_local_params: bool, x: Tensor) -> None:
        class Guide(PyroModule):
            def __init__(self) -> None:
                super().__init__()
                self.mean = nn.Parameter(torch.zeros(CODE))
                self.scale = PyroParam(torch.ones(CODE), constraints.positive)

            def forward(self, x: Tensor) -> None:
                with pyro.plate("batch", len(x), dim=-1):
                    pyro.sample("z", dist.Normal(self.mean, self.scale).to_event(1))

        with pyro.settings.context(module_local_params=module_local_params):
            guide, model = Guide(), PlainModel(1)
            loss = Elbo()(model, guide)
            assert {name for name, _ in loss.named_parameters() if name.startswith("guide")} == {
                "guide.mean",
                "guide.scale_unconstrained",
            }
            optimiser = torch.optim.SGD(loss.parameters(), lr=1e-3)
            loss(x).backward()
            optimiser.step()
            assert guide.mean.abs().max() > 0


# ---- exact answers ------------------------------------------------------------------------------------------------------


class TestExact:
    def test_linear_gaussian(self, x: Tensor) -> None:
        """With the exact posterior the sampled loss is -log p(x) whatever is drawn, and the KL has its textbook form."""
        weight, noise = torch.randn(DATA, CODE), 0.6
        precision = torch.eye(CODE) + weight.T @ weight / noise**2
        covariance = precision.inverse()

        def model(x: Tensor) -> None:
            with pyro.plate("batch", len(x)):
                z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(CODE), torch.eye(CODE)))
                pyro.sample("x", dist.Normal(z @ weight.T, noise).to_event(1), obs=x)

        def guide(x: Tensor) -> None:
            with pyro.plate("batch", len(x)):
                pyro.sample("z", dist.MultivariateNormal(x @ weight @ covariance / noise**2, covariance))

        marginal = weight @ weight.T + noise**2 * torch.eye(DATA)
        quadratic = (x @ marginal.inverse() * x).sum()
        evidence = -0.5 * (quadratic + BATCH * (marginal.logdet() + DATA * math.log(2 * math.pi)))
        assert Elbo(kl="sampled").loss(model, guide, x) == pytest.approx(-evidence.item(), abs=1e-8)

        mean = x @ weight @ covariance / noise**2
        divergence = 0.5 * (BATCH * (covariance.trace() - CODE - covariance.logdet()) + (mean**2).sum())
        assert Elbo().terms(model, guide, x)["kl/z"].item() == pytest.approx(divergence.item(), abs=1e-8)

    def test_closed_forms_with_a_discrete_latent_are_unbiased(self, x: Tensor) -> None:
        """q(y) KL(z | y) by enumeration against the score-function gradient, over many particles."""

        class Model(DiscreteModel):
            def forward(self, x: Tensor) -> None:
                with pyro.plate("batch", len(x), dim=-1):
                    y = pyro.sample("y", dist.Categorical(logits=self.table[0]))
                    z = pyro.sample("z", dist.Normal(self.table[y], 1.0).to_event(1))
                    pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x[:, 0])

        model, guide = Model(1), DiscreteGuide(2)
        parameters = [model.table, guide.logits.weight, guide.second.weight]
        q_y = torch.distributions.Categorical(logits=guide.logits(x))
        exact = torch.distributions.kl_divergence(q_y, torch.distributions.Categorical(logits=model.table[0])).sum()
        for y in range(CODE):
            q_z = guide.normal(guide.code(x) + guide.second(guide.table[y])).base_dist
            kl = torch.distributions.kl_divergence(q_z, torch.distributions.Normal(model.table[y], 1.0)).sum(-1)
            expected = 0.5 * ((x[:, 0] - q_z.mean.sum(-1)) ** 2 + q_z.variance.sum(-1) + math.log(2 * math.pi))
            exact = exact + (q_y.probs[:, y] * (kl + expected)).sum()
        right = torch.autograd.grad(exact, parameters)

        estimates = []
        objective = Elbo(num_particles=500, vectorize_particles=True)
        for _ in range(40):
            loss = objective.differentiable_loss(model, guide, x)
            estimates.append(torch.cat([g.flatten() for g in (loss[None], *torch.autograd.grad(loss, parameters))]))
        stacked = torch.stack([estimate.detach() for estimate in estimates])
        error = stacked.mean(0) - torch.cat([exact.detach()[None], *(g.flatten() for g in right)])
        standard = stacked.std(0) / math.sqrt(len(stacked))
        assert (error.abs() < 5 * standard + 1e-9).all()
        assert error.norm() < 0.05 * torch.cat([g.flatten() for g in right]).norm()

    def test_terms_are_sums_over_the_batch(self, x: Tensor) -> None:
        model, guide = make_case("plain")
        terms = Elbo().terms(model, guide, x)
        posterior = guide.normal(guide.code(x)).base_dist
        kl = 0.5 * (posterior.variance + posterior.mean**2 - 1 - posterior.variance.log())
        assert terms["kl/z"].item() == pytest.approx(kl.sum().item())
        assert terms["loss"].item() == pytest.approx((terms["kl/z"] - terms["log_likelihood/x"]).item())


# ---- the closed form is taken where it is right -------------------------------------------------------------------------


class TestClosedForm:
    def test_out_of_order_latents_are_sampled_with_a_warning(self, x: Tensor) -> None:
        model, guide = make_case("upward")
        with pytest.warns(UserWarning, match="the KL of 'z' is sampled .* the model draws 'top' before it"):
            ours = value_and_gradients(Elbo(), model, guide, x)
        pyro.set_rng_seed(3)
        with pytest.warns(UserWarning, match="the KL of 'z' is sampled"):
            terms = Elbo().terms(model, guide, x)
        pyro.set_rng_seed(3)
        sampled = Elbo(kl="sampled").terms(model, guide, x)
        assert terms["kl/z"] == sampled["kl/z"]
        assert terms["kl/top"] != sampled["kl/top"]
        assert math.isfinite(ours[0])

    def test_a_scale_on_the_models_site_alone_counts(self, x: Tensor) -> None:
        model, guide = ScaledModel(1), PlainGuide(2)
        with pytest.warns(UserWarning, match="its scale or mask differ between model and guide"):
            ours = value_and_gradients(Elbo(), model, guide, x)
        assert_same(ours, value_and_gradients(Trace_ELBO(), model, guide, x))

    def test_sampling_on_purpose_does_not_warn(self, x: Tensor) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Elbo(kl="sampled").loss(HierarchicalModel(1), UpwardGuide(2), x)

    def test_no_latent_log_density_is_computed(self, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[tuple[int, ...]] = []
        score = dist.Independent.log_prob

        def counted(self, value: Tensor) -> Tensor:
            calls.append(tuple(self.event_shape))
            return score(self, value)

        monkeypatch.setattr(dist.Independent, "log_prob", counted)
        Elbo().loss(*make_case("plain"), x)
        assert calls == [(DATA,)]


# ---- the named objectives -----------------------------------------------------------------------------------------------


class TwoBlocks(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            z_g = pyro.sample("z_g", self.unit(), infer={"beta": 2.0})
            z_l = pyro.sample("z_l", self.unit())
            pyro.sample("x", dist.Normal(self.loc(z_g + z_l), 0.7).to_event(1), obs=x)


class TwoBlocksGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("z_g", self.normal(self.code(x)))
            pyro.sample("z_l", self.normal(self.code(2 - x)))


@pytest.fixture
def blocks() -> tuple[nn.Module, nn.Module]:
    return TwoBlocks(1), TwoBlocksGuide(2)


def terms_of(objective: Objective, pair: tuple[nn.Module, nn.Module], x: Tensor) -> dict[str, float]:
    pyro.set_rng_seed(7)
    return {name: value.item() for name, value in objective.terms(*pair, x).items()}


INSTANCES = [
    make_objective("elbo"),
    make_objective("elbo", num_particles=2, kl="sampled"),
    make_objective("beta_elbo", beta=20.0, warmup=10),
    make_objective("beta_elbo", beta={"z_g": 2, "z_l": 0.5}, warmup=4, cycles=3, hold=2),
    make_objective("capacity", gamma=5, stop=3.0, steps=7),
    make_objective("capacity", start=1.0, stop={"z_g": 1.0, "z_l": 4.0}, steps=0),
    make_objective("free_bits", nats=3.0, beta=2.0),
    make_objective("free_bits", nats={"z_l": 30.0}, num_particles=2, vectorize_particles=True),
    make_objective("elbo") + 0.5 * make_objective("beta_elbo", beta=4.0, warmup=3),
    0.1 * make_objective("capacity", steps=5) + make_objective("free_bits"),
]


@pytest.mark.parametrize("objective", INSTANCES, ids=lambda objective: json.dumps(objective.to_spec())[:60])
class TestLaws:
    def test_comes_back_from_its_spec(self, objective: Objective) -> None:
        spec = json.loads(json.dumps(objective.to_spec()))
        again = make_objective(spec)
        assert again == objective
        assert hash(again) == hash(objective)
        assert again.to_spec() == spec
        assert type(objective).__name__ in repr(objective)

    def test_terms_weigh_up_to_the_loss(self, objective: Objective, blocks, x: Tensor) -> None:
        captured: list[dict[str, Term]] = []
        weigh = type(objective).weigh

        class Spy(type(objective)):
            def weigh(self, evidence: Evidence) -> dict[str, Term]:
                captured.append(weigh(self, evidence))
                return captured[-1]

        watched = copy.copy(objective)
        watched.__class__ = Spy
        terms = terms_of(watched, blocks, x)
        (weighed,) = captured
        total = sum(float(term.weight) * term.value.item() for term in weighed.values())
        assert terms["loss"] == pytest.approx(total, abs=1e-9)
        assert set(terms) == {*weighed, "loss"}
        assert {"log_likelihood/x", "kl/z_g", "kl/z_l"} <= set(terms)

    def test_three_ways_to_the_same_loss(self, objective: Objective, blocks, x: Tensor) -> None:
        expected = terms_of(objective, blocks, x)["loss"]
        pyro.set_rng_seed(7)
        assert objective.loss(*blocks, x) == pytest.approx(expected)
        pyro.set_rng_seed(7)
        assert objective.differentiable_loss(*blocks, x).item() == pytest.approx(expected)
        pyro.set_rng_seed(7)
        loss, terms = copy.deepcopy(objective)(*blocks).evaluate(x)
        assert loss.requires_grad
        assert loss.item() == pytest.approx(expected)
        assert not any(value.requires_grad for value in terms.values())

    def test_gradient_matches_finite_differences(self, objective: Objective, blocks, x: Tensor) -> None:
        weight = blocks[1].code.weight
        _, gradients = value_and_gradients(objective, *blocks, x)
        index = [id(p) for p in [*blocks[0].parameters(), *blocks[1].parameters()]].index(id(weight))
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[0, 0] += sign * 1e-5
            pyro.set_rng_seed(3)
            ends.append(objective.loss(*blocks, x))
            with torch.no_grad():
                weight[0, 0] -= sign * 1e-5
        assert gradients[index][0, 0].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-5)

    def test_state_comes_back(self, objective: Objective) -> None:
        trained, fresh = copy.deepcopy(objective), copy.deepcopy(objective)
        for _ in range(3):
            trained.advance()
        state = json.loads(json.dumps(trained.state_dict()))
        fresh.load_state_dict(state)
        assert fresh.levels == trained.levels
        assert fresh.state_dict() == {"steps_taken": [3] * len(objective.parts)}

    def test_pickles(self, objective: Objective) -> None:
        assert pickle.loads(pickle.dumps(objective)) == objective


class TestBeta:
    def test_one_beta_and_the_sites_own(self, blocks, x: Tensor) -> None:
        terms = terms_of(BetaElbo(beta=3.0), blocks, x)
        expected = -terms["log_likelihood/x"] + 3 * (2 * terms["kl/z_g"] + terms["kl/z_l"])
        assert terms["loss"] == pytest.approx(expected)

    def test_a_beta_for_each_block(self, blocks, x: Tensor) -> None:
        terms = terms_of(BetaElbo(beta={"z_g": 5.0}), blocks, x)
        expected = -terms["log_likelihood/x"] + 5 * 2 * terms["kl/z_g"] + terms["kl/z_l"]
        assert terms["loss"] == pytest.approx(expected)

    def test_the_guides_infer_is_not_the_models(self, x: Tensor) -> None:
        class Guide(PlainGuide):
            def forward(self, x: Tensor) -> None:
                with pyro.plate("batch", len(x), dim=-1):
                    pyro.sample("z", self.normal(self.code(x)), infer={"beta": 9.0})

        model = PlainModel(1)
        model.beta = 4.0
        terms = terms_of(Elbo(), (model, Guide(2)), x)
        assert terms["loss"] == pytest.approx(-terms["log_likelihood/x"] + 4 * terms["kl/z"])

    def test_unknown_block(self, blocks, x: Tensor) -> None:
        with pytest.raises(DeclarationError) as error:
            BetaElbo(beta={"zg": 5.0}).loss(*blocks, x)
        assert str(error.value) == (
            "beta_elbo: beta names 'zg', which is no latent site. Did you mean 'z_g'? The latent sites: 'z_g', 'z_l'"
        )

    @pytest.mark.parametrize("bad", [-1.0, math.inf, "high", True])
    def test_a_bad_beta_on_a_site(self, bad, x: Tensor) -> None:
        model = PlainModel(1)
        model.beta = bad
        with pytest.raises(DeclarationError, match=r"site 'z': infer=.* must be a finite number, at least 0; got"):
            Elbo().loss(model, PlainGuide(2), x)


class TestSchedule:
    def test_linear_warm_up_step_by_step(self, x: Tensor) -> None:
        objective = BetaElbo(beta=8.0, warmup=4)
        pair = make_case("plain")
        module = objective(*pair)
        weights = []
        for _ in range(6):
            _, terms = module.evaluate(x)
            weights.append(((terms["loss"] + terms["log_likelihood/x"]) / terms["kl/z"]).item())
        assert weights == pytest.approx([2, 4, 6, 8, 8, 8])
        assert objective.schedule_steps == 4

    def test_cyclical_warm_up_step_by_step(self) -> None:
        objective = BetaElbo(warmup=2, cycles=3, hold=1)
        levels = [objective.schedule(step) for step in range(12)]
        assert levels == [0.5, 1, 1, 0.5, 1, 1, 0.5, 1, 1, 1, 1, 1]
        assert objective.schedule_steps == 8
        assert BetaElbo(warmup=3, cycles=2).schedule_steps == 9

    @pytest.mark.parametrize("name", ["elbo", "free_bits", "beta_elbo"])
    def test_without_a_schedule(self, name: str) -> None:
        objective = make_objective(name)
        assert objective.schedule_steps == 0
        assert objective.level == 1.0

    def test_capacity_step_by_step(self, blocks, x: Tensor) -> None:
        objective = Capacity(gamma=2.0, start=1.0, stop=5.0, steps=4)
        for capacity in (2.0, 3.0, 4.0, 5.0, 5.0):
            terms = terms_of(objective, blocks, x)
            distance = abs(2 * terms["kl/z_g"] + terms["kl/z_l"] - capacity * BATCH)
            assert terms["capacity"] == pytest.approx(distance)
            assert terms["loss"] == pytest.approx(-terms["log_likelihood/x"] + 2 * distance)
            objective.advance()

    def test_training_advances(self, x: Tensor) -> None:
        model, guide = RegisteredModel(1), RegisteredGuide(2)
        objective = BetaElbo(warmup=10)
        SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective).step(x)
        assert objective.steps_taken == 1
        objective(model, guide)(x)
        assert objective.steps_taken == 2

    def test_evaluation_does_not_advance(self, x: Tensor) -> None:
        model, guide = RegisteredModel(1), RegisteredGuide(2)
        objective = BetaElbo(warmup=10)
        module = objective(model, guide)
        SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective).evaluate_loss(x)
        objective.terms(model, guide, x)
        objective.loss(model, guide, x)
        objective.differentiable_loss(model, guide, x)
        with torch.no_grad():
            module(x)
        module.eval()
        module(x)
        module.evaluate(x)
        assert objective.steps_taken == 0

    def test_a_failed_step_does_not_advance(self, x: Tensor) -> None:
        model, guide = RegisteredModel(1), RegisteredGuide(2)
        objective = BetaElbo(beta={"nobody": 1.0}, warmup=10)
        with pytest.raises(DeclarationError):
            objective.loss_and_grads(model, guide, x)
        assert objective.steps_taken == 0

    def test_the_modules_state_holds_it(self, x: Tensor) -> None:
        module = BetaElbo(warmup=10)(*make_case("plain"))
        module(x)
        module(x)
        fresh = BetaElbo(warmup=10)(*make_case("plain"))
        fresh.load_state_dict(module.state_dict())
        assert fresh.objective.steps_taken == 2

    def test_a_sum_advances_each_part_once(self, x: Tensor) -> None:
        part = BetaElbo(warmup=10)
        total = part + Capacity(steps=20) + 2 * part
        total(*make_case("plain"))(x)
        assert part.steps_taken == 1
        assert total.state_dict() == {"steps_taken": [1, 1]}
        assert total.schedule_steps == 20

    @pytest.mark.parametrize(
        "state", [{}, {"steps_taken": [1, 2]}, {"steps_taken": [-1]}, {"steps_taken": [0.5]}, None]
    )
    def test_a_state_of_another_objective(self, state) -> None:
        with pytest.raises(DeclarationError, match=r"an objective of 1 part\(s\) has a state like"):
            Elbo().load_state_dict(state)

    def test_levels_can_be_set_for_a_while(self, x: Tensor) -> None:
        objective = BetaElbo(beta=4.0, warmup=10)
        pair = make_case("plain")
        with objective.at([torch.tensor(0.5)]):
            assert objective.levels == (torch.tensor(0.5),)
            terms = terms_of(objective, pair, x)
        assert terms["loss"] == pytest.approx(2 * terms["kl/z"] - terms["log_likelihood/x"])
        assert objective.levels == (0.1,)
        with (
            pytest.raises(DeclarationError, match=r"at\(\) needs 1 levels, one for each part; got 2"),
            objective.at([1, 2]),
        ):
            pass


class TestCapacity:
    def test_of_each_block(self, blocks, x: Tensor) -> None:
        objective = Capacity(gamma=3.0, stop={"z_g": 1.0, "z_l": 4.0}, steps=0)
        terms = terms_of(objective, blocks, x)
        assert terms["capacity/z_g"] == pytest.approx(abs(terms["kl/z_g"] - BATCH))
        assert terms["capacity/z_l"] == pytest.approx(abs(terms["kl/z_l"] - 4 * BATCH))
        expected = -terms["log_likelihood/x"] + 3 * (2 * terms["capacity/z_g"] + terms["capacity/z_l"])
        assert terms["loss"] == pytest.approx(expected)

    def test_every_block_is_named(self, blocks, x: Tensor) -> None:
        with pytest.raises(DeclarationError, match="stop names 'z_g' and leaves out 'z_l', whose KL would not count"):
            Capacity(stop={"z_g": 1.0}).loss(*blocks, x)
        with pytest.raises(DeclarationError, match="capacity: stop names 'z_x', which is no latent site"):
            Capacity(stop={"z_x": 1.0}).loss(*blocks, x)

    def test_an_image_is_what_scale_and_mask_leave(self, x: Tensor) -> None:
        objective = Capacity(gamma=1.0, stop=2.0, steps=0)
        for case, images in (("masked", int((x[:, 0] > -0.5).sum())), ("subsampled", BATCH), ("scaled", 2.5 * BATCH)):
            terms = terms_of(objective, make_case(case), x)
            assert terms["capacity"] == pytest.approx(abs(terms["kl/z"] - 2.0 * images))

    def test_does_not_depend_on_how_particles_are_run(self, x: Tensor) -> None:
        pair = make_case("plain")
        one = terms_of(Capacity(stop=9.0, steps=0), pair, x)
        for options in (PARTICLES["looped"], PARTICLES["vectorised"]):
            many = terms_of(Capacity(stop=9.0, steps=0, **options), pair, x)
            assert many["capacity"] == pytest.approx(one["capacity"])

    def test_with_score_functions(self, x: Tensor) -> None:
        """At C = 0 and a positive estimate, gamma |KL| is gamma KL, gradient included."""
        pair = make_case("discrete")
        terms = terms_of(Elbo(kl="sampled"), pair, x)
        assert terms["kl/y"] + terms["kl/z"] > 0
        ours = value_and_gradients(Capacity(gamma=3.0, stop=0.0, steps=0, kl="sampled"), *pair, x, seed=7)
        assert_same(ours, value_and_gradients(BetaElbo(beta=3.0, kl="sampled"), *pair, x, seed=7))


class TestFreeBits:
    def test_the_floor_is_of_the_batch_mean_of_a_block(self, blocks, x: Tensor) -> None:
        raw = terms_of(Elbo(), blocks, x)
        low, high = sorted((raw["kl/z_g"] / BATCH, raw["kl/z_l"] / BATCH))
        floor = (low + high) / 2
        terms = terms_of(FreeBits(nats=floor), blocks, x)
        for name in ("z_g", "z_l"):
            assert terms[f"free_bits/{name}"] == pytest.approx(max(raw[f"kl/{name}"], floor * BATCH))
            assert terms[f"kl/{name}"] == raw[f"kl/{name}"]

    def test_no_gradient_below_the_floor(self, x: Tensor) -> None:
        model, guide = make_case("plain")
        kept = value_and_gradients(FreeBits(nats=1000.0), model, guide, x)[1]
        ignored = value_and_gradients(BetaElbo(beta=0.0), model, guide, x)[1]
        for one, other in zip(kept, ignored, strict=True):
            torch.testing.assert_close(one, other)

    def test_zero_nats_is_the_elbo(self, x: Tensor) -> None:
        pair = make_case("plain")
        assert_same(value_and_gradients(FreeBits(nats=0.0), *pair, x), value_and_gradients(Elbo(), *pair, x))
        beta = value_and_gradients(BetaElbo(beta=2.0), *pair, x)
        assert_same(value_and_gradients(FreeBits(nats=0.0, beta=2.0), *pair, x), beta)

    def test_left_out_blocks_have_no_floor(self, blocks, x: Tensor) -> None:
        terms = terms_of(FreeBits(nats={"z_g": 1000.0}), blocks, x)
        assert terms["free_bits/z_g"] == pytest.approx(1000 * BATCH)
        assert terms["free_bits/z_l"] == terms["kl/z_l"]
        with pytest.raises(DeclarationError, match="free_bits: nats names 'z', which is no latent site"):
            FreeBits(nats={"z": 1.0}).loss(*blocks, x)

    def test_masked_images_do_not_count(self, x: Tensor) -> None:
        terms = terms_of(FreeBits(nats=1000.0), make_case("masked"), x)
        assert terms["free_bits/z"] == pytest.approx(1000 * int((x[:, 0] > -0.5).sum()))

    def test_blocks_drawn_through_auxiliary_sites(self, x: Tensor) -> None:
        model = PositiveModel(1)
        guide = AutoNormal(model)
        guide(x)
        with pytest.raises(DeclarationError, match=r"auxiliary sites \('width_unconstrained'\); use elbo"):
            FreeBits().loss(model, guide, x)


class TestSums:
    def test_values_add(self, blocks, x: Tensor) -> None:
        a, b = BetaElbo(beta=3.0), Capacity(stop=2.0, steps=0)
        total = 0.5 * a + b * 2
        expected = 0.5 * terms_of(a, blocks, x)["loss"] + 2 * terms_of(b, blocks, x)["loss"]
        assert terms_of(total, blocks, x)["loss"] == pytest.approx(expected)

    def test_terms_merge(self, blocks, x: Tensor) -> None:
        terms = terms_of(Elbo() + Elbo(), blocks, x)
        assert set(terms) == {"log_likelihood/x", "kl/z_g", "kl/z_l", "loss"}
        assert terms["loss"] == pytest.approx(2 * terms_of(Elbo(), blocks, x)["loss"])

    def test_other_terms_of_one_name_stay_apart(self, blocks, x: Tensor) -> None:
        one, two = Capacity(gamma=1.0, stop=2.0, steps=0), Capacity(gamma=1.0, stop=7.0, steps=0)
        terms = terms_of(one + two, blocks, x)
        assert terms["capacity"] == terms_of(one, blocks, x)["capacity"]
        assert terms["capacity#2"] == terms_of(two, blocks, x)["capacity"]

    def test_one_trace_for_the_whole_sum(self, x: Tensor) -> None:
        runs = {"model": 0, "guide": 0}
        model, guide = make_case("plain")
        model.register_forward_hook(lambda *_: runs.__setitem__("model", runs["model"] + 1))
        guide.register_forward_hook(lambda *_: runs.__setitem__("guide", runs["guide"] + 1))
        (Elbo() + 2 * BetaElbo(beta=2.0) + FreeBits() + Capacity()).loss(model, guide, x)
        assert runs == {"model": 1, "guide": 1}

    def test_sums_of_sums_are_flat(self) -> None:
        a, b, c = Elbo(), BetaElbo(), FreeBits()
        total = 2 * (a + 3 * b) + c + a
        assert total.parts == (a, b, c)
        assert total.weights == (3.0, 6.0, 1.0)
        assert sum([a, b, c]) == a + b + c

    def test_parts_must_agree(self) -> None:
        with pytest.raises(DeclarationError) as error:
            Elbo(num_particles=2) + FreeBits()
        assert str(error.value) == (
            "sum: elbo has num_particles=2 and free_bits has num_particles=1; one run serves all, so give both the same"
        )

    @pytest.mark.parametrize("other", [3, "elbo", None])
    def test_only_objectives_add(self, other) -> None:
        with pytest.raises(TypeError):
            Elbo() + other

    @pytest.mark.parametrize("other", ["2", None, True])
    def test_only_numbers_scale(self, other) -> None:
        with pytest.raises(TypeError):
            Elbo() * other

    def test_bad_sums(self) -> None:
        with pytest.raises(DeclarationError, match="sum: objectives must be a list of at least one"):
            WeightedSum([])
        with pytest.raises(DeclarationError, match=r"sum: weights must be 1 finite number\(s\), one for each"):
            WeightedSum(["elbo"], [1.0, 2.0])
        with pytest.raises(DeclarationError, match="sum: weights must be"):
            Elbo() * math.nan

    def test_written_as_a_spec(self) -> None:
        total = make_objective({"sum": {"objectives": ["elbo", {"free_bits": {"nats": 2.0}}], "weights": [1, 0.5]}})
        assert total == Elbo() + 0.5 * FreeBits(nats=2.0)


# ---- parameters, modules, SVI -------------------------------------------------------------------------------------------


class RegisteredModel(PlainModel):
    def forward(self, x: Tensor) -> None:
        pyro.module("registered_model", self)
        super().forward(x)


class RegisteredGuide(PlainGuide):
    def forward(self, x: Tensor) -> None:
        pyro.module("registered_guide", self)
        super().forward(x)


class Balanced(Objective):
    """The ELBO over a learned noise level, plus that level: a toy with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.ParameterDict({"level": nn.Parameter(torch.zeros(()))})

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        level = self.module["level"]
        return {
            **{name: Term(t.value, t.weight * (-level).exp()) for name, t in evidence.likelihood_terms().items()},
            **evidence.kl_terms(1.0),
            "level": Term(level * 1.0, 10.0),
        }


class TestParameters:
    def test_of_the_objective_train_with_torch(self, x: Tensor) -> None:
        objective = Balanced()
        loss = objective(*make_case("plain"))
        assert "own.level" in dict(loss.named_parameters())
        optimiser = torch.optim.SGD(loss.parameters(), lr=0.01)
        loss(x).backward()
        optimiser.step()
        assert objective.module["level"] != 0

    @pytest.mark.parametrize("scaled", [False, True])
    def test_of_the_objective_train_with_svi(self, scaled: bool, x: Tensor) -> None:
        part = Balanced()
        objective = 2 * part + Elbo() if scaled else part
        model, guide = RegisteredModel(1), RegisteredGuide(2)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=objective)
        svi.step(x)
        svi.step(x)
        assert part.module["level"].abs() > 0.005
        assert not torch.equal(model.loc.weight, RegisteredModel(1).loc.weight)

    def test_a_copy_trains_its_own(self, x: Tensor) -> None:
        first = Balanced()
        model, guide = RegisteredModel(1), RegisteredGuide(2)
        SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=first).step(x)
        second = copy.deepcopy(first)
        before = first.module["level"].item()
        SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=second).step(x)
        assert first.module["level"].item() == before
        assert second.module["level"].item() != before

    def test_the_modules_parameters_are_the_models_and_the_guides(self) -> None:
        model, guide = make_case("plain")
        found = {id(p) for p in Elbo()(model, guide).parameters()}
        assert found == {id(p) for p in [*model.parameters(), *guide.parameters()]}

    def test_bound_methods_bring_their_module(self, x: Tensor) -> None:
        model, guide = make_case("plain")
        scaled = poutine.scale(guide.forward, scale=2.0)
        loss = Elbo()(model.forward, scaled)
        found = {id(p) for p in loss.parameters()}
        assert found == {id(p) for p in [*model.parameters(), *guide.parameters()]}
        with pytest.warns(UserWarning, match="its scale or mask differ"):
            loss(x).backward()
        assert model.loc.weight.grad is not None
        twin = copy.deepcopy(Elbo()(model.forward, guide))
        assert twin.model.__self__ is twin.model_owner
        assert twin.model_owner is not model

    def test_functions_have_no_parameters(self) -> None:
        def model(x: Tensor) -> None: ...

        def guide(x: Tensor) -> None: ...

        with pytest.raises(DeclarationError) as error:
            Elbo()(model, functools.partial(guide))
        assert "so it would have no parameters. Make one of them an nn.Module, or train them with" in str(error.value)
        assert "model" in str(error.value)

    def test_a_functions_parameters_would_be_missed(self, x: Tensor) -> None:
        def model(x: Tensor) -> None:
            shift = pyro.param("shift", torch.zeros(DATA))
            with pyro.plate("batch", len(x), dim=-1):
                z = pyro.sample("z", Program.unit())
                pyro.sample("x", dist.Normal(z.sum(-1, True) + shift, 1.0).to_event(1), obs=x)

        loss = Elbo()(model, PlainGuide(2))
        with pytest.raises(
            DeclarationError, match="the model of this objective is a function whose parameters 'shift'"
        ):
            loss(x)
        svi = SVI(model, RegisteredGuide(2), pyro.optim.Adam({"lr": 0.1}), loss=Elbo())
        svi.step(x)
        assert pyro.param("shift").abs().max() > 0

    def test_a_function_without_parameters_is_fine(self, x: Tensor) -> None:
        def model(x: Tensor) -> None:
            with pyro.plate("batch", len(x), dim=-1):
                z = pyro.sample("z", Program.unit())
                pyro.sample("x", dist.Normal(z.sum(-1, True), 1.0).expand([len(x), DATA]).to_event(1), obs=x)

        loss = Elbo()(model, PlainGuide(2))
        loss(x).backward()
        assert isinstance(loss, ObjectiveModule)

    def test_svi_says_when_it_would_train_nothing(self, x: Tensor) -> None:
        svi = SVI(*make_case("plain"), pyro.optim.Adam({"lr": 0.1}), loss=Elbo())
        with pytest.raises(DeclarationError, match=r'names any. Call pyro.module\("model", self\) at the start'):
            svi.step(x)

    def test_nan_warns_as_pyro_does(self, x: Tensor) -> None:
        model, guide = RegisteredModel(1), RegisteredGuide(2)
        with pyro.validation_enabled(False), pytest.warns(UserWarning, match="Encountered NaN: loss"):
            Elbo().loss(model, guide, x * math.nan)


# ---- tracing and devices ------------------------------------------------------------------------------------------------


class Unread(TorchDispatchMode):
    """Raises where a tensor's value is read into Python."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            raise AssertionError(f"{function} reads a value")
        return function(*args, **(kwargs or {}))


class TestTracing:
    @pytest.mark.parametrize("objective", INSTANCES, ids=lambda objective: json.dumps(objective.to_spec())[:60])
    def test_no_value_is_read(self, objective: Objective, blocks, x: Tensor) -> None:
        module = copy.deepcopy(objective)(*blocks)
        with pyro.validation_enabled(False), Unread():
            module(x).backward()

    def test_a_traced_loss_takes_the_schedule_as_input(self, x: Tensor) -> None:
        model, guide = make_case("plain")
        objective = BetaElbo(beta=2.0, warmup=10)

        def loss(x: Tensor, level: Tensor) -> Tensor:
            with objective.at([level]):
                return objective.differentiable_loss(model, guide, x)

        with pyro.validation_enabled(False):
            traced = make_fx(loss)(x, torch.tensor(0.1))
        for level in (0.1, 0.7):
            pyro.set_rng_seed(4)
            found = traced(x, torch.tensor(level))
            pyro.set_rng_seed(4)
            torch.testing.assert_close(found, loss(x, torch.tensor(level)))
        assert not any("local_scalar" in str(node.target) for node in traced.graph.nodes)
        assert objective.steps_taken == 0


# ---- sites that do not fit ----------------------------------------------------------------------------------------------


class TestMisfits:
    def check(self, model, guide, match: str, error=DeclarationError, objective: Objective | None = None) -> None:
        with pytest.raises(error, match=match):
            (objective or Elbo()).loss(model, guide, torch.zeros(BATCH, DATA))

    def test_a_site_that_the_model_lacks(self) -> None:
        def guide(x: Tensor) -> None:
            PlainGuide(2)(x)
            pyro.sample("extra", dist.Normal(0.0, 1.0))

        self.check(
            PlainModel(1),
            guide,
            r"the guide has a site 'extra' that the model lacks \(the model's latent sites: 'z'\).*'is_auxiliary': True",
        )

    def test_a_misspelt_site(self) -> None:
        def model(x: Tensor) -> None:
            pyro.sample("z_global", dist.Normal(0.0, 1.0))

        def guide(x: Tensor) -> None:
            pyro.sample("z_globl", dist.Normal(0.0, 1.0))

        self.check(model, guide, "Did you mean 'z_global'")

    def test_a_site_that_the_guide_lacks(self) -> None:
        def guide(x: Tensor) -> None: ...

        self.check(
            PlainModel(1), guide, r"a latent site 'z' that the guide lacks \(the guide's sites: \(none\)\). Draw it"
        )

    def test_a_site_to_enumerate(self) -> None:
        def model(x: Tensor) -> None:
            pyro.sample("y", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})

        self.check(model, lambda x: None, "these objectives do not enumerate, pyro.infer.TraceEnum_ELBO does")

    def test_an_observed_site_drawn_in_the_guide(self) -> None:
        def guide(x: Tensor) -> None:
            PlainGuide(2)(x)
            pyro.sample("x", dist.Normal(x, 1.0).to_event(2))

        self.check(PlainModel(1), guide, "site 'x' is drawn in the guide and observed in the model")

    def test_a_latent_observed_in_the_guide(self) -> None:
        def guide(x: Tensor) -> None:
            with pyro.plate("batch", len(x), dim=-1):
                pyro.sample("z", Program.unit(), obs=torch.zeros(len(x), CODE))

        self.check(PlainModel(1), guide, "site 'z' is observed in the guide and latent in the model; drop obs=")

    @pytest.mark.parametrize("validated", [True, False])
    def test_to_event_missing_in_one(self, validated: bool) -> None:
        def model(x: Tensor) -> None:
            pyro.sample("z", dist.Normal(torch.zeros(BATCH, CODE), 1.0).to_event(2))

        def guide(x: Tensor) -> None:
            pyro.sample("z", dist.Normal(torch.zeros(BATCH, CODE), 1.0).to_event(1))

        with pyro.validation_enabled(validated):
            self.check(
                model,
                guide,
                r"site 'z': the model's event shape is \(5, 3\) and the guide's is \(3,\); end the guide's "
                r"distribution in .to_event\(1\), as the model's does",
            )

    def test_events_of_two_sizes(self) -> None:
        def model(x: Tensor) -> None:
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

        def guide(x: Tensor) -> None:
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

        self.check(model, guide, r"is \(2,\) and the guide's is \(3,\); make them of one size")

    def test_to_event_missing_in_both(self) -> None:
        def program(x: Tensor) -> None:
            with pyro.plate("rows", BATCH, dim=-2), pyro.plate("columns", CODE, dim=-1):
                pyro.sample("w", dist.Normal(torch.zeros(BATCH, CODE), 1.0))
            pyro.sample("z", dist.Normal(torch.zeros(BATCH, CODE), 1.0))

        self.check(
            program,
            program,
            r"site 'z': its batch shape is \(5, 3\) and its plates cover \(none\); end the distribution in .to_event\(2\)",
        )

    def test_different_plates(self) -> None:
        def guide(x: Tensor) -> None:
            pyro.sample("z", Program.unit())

        self.check(
            PlainModel(1), guide, r"the model's batch shape is \(5,\) and the guide's is \(\); put it inside the same"
        )

    def test_a_value_outside_its_support(self) -> None:
        def model(x: Tensor) -> None:
            with pyro.plate("batch", len(x), dim=-1):
                z = pyro.sample("z", Program.unit())
                pyro.sample("x", dist.Bernoulli(logits=z).to_event(1), obs=torch.full((len(x), CODE), 0.5))

        self.check(model, PlainGuide(2), "site 'x': its distribution .* cannot score the value of shape", DataError)

    def test_more_plates_than_the_particles_leave_room_for(self) -> None:
        def program(x: Tensor) -> None:
            with pyro.plate("inner", 3), pyro.plate("outer", 2):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        crowded = Elbo(num_particles=2, vectorize_particles=True)
        self.check(program, program, "say max_plate_nesting=2 or more", objective=crowded)
        roomy = Elbo(num_particles=2, vectorize_particles=True, max_plate_nesting=2)
        assert roomy.loss(program, program, torch.zeros(1)) == 0.0

    def test_nothing_to_weigh(self) -> None:
        self.check(lambda x: None, lambda x: None, "elbo: there is nothing to weigh; the model and the guide draw")


# ---- options, names -----------------------------------------------------------------------------------------------------


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "parameters", "message"),
        [
            ("elbo", {"num_particles": 0}, "elbo: num_particles must be a positive integer; got 0"),
            ("elbo", {"vectorize_particles": 1}, "elbo: vectorize_particles must be True or False; got 1"),
            ("elbo", {"max_plate_nesting": -1}, "elbo: max_plate_nesting must be an integer, at least 0; got -1"),
            ("elbo", {"kl": "exact"}, "elbo: kl must be 'analytic' or 'sampled'; got 'exact'"),
            (
                "beta_elbo",
                {"beta": -1},
                "beta_elbo: beta must be a finite number, at least 0, or a dict of one for each block; got -1",
            ),
            ("beta_elbo", {"beta": {}}, "beta_elbo: beta must be a number or a dict of at least one block; got {}"),
            (
                "beta_elbo",
                {"beta": {"z": "x"}},
                "beta_elbo: beta['z'] must be a finite number, at least 0; got 'x'",
            ),
            ("beta_elbo", {"warmup": 0.5}, "beta_elbo: warmup must be a number of steps, at least 0; got 0.5"),
            ("beta_elbo", {"cycles": 0}, "beta_elbo: cycles must be a positive integer; got 0"),
            (
                "beta_elbo",
                {"cycles": 2},
                "beta_elbo: cycles=2 repeats a warm-up, and warmup is 0; say warmup=1000",
            ),
            (
                "beta_elbo",
                {"warmup": 5, "hold": 5},
                "beta_elbo: hold=5 is between two rises, and there is one; say cycles=4",
            ),
            (
                "beta_elbo",
                {"warmup": 5, "cycles": 2, "hold": -1},
                "beta_elbo: hold must be a number of steps, at least 0, or None; got -1",
            ),
            ("capacity", {"gamma": {"z": 1}}, "capacity: gamma must be a finite number, at least 0; got {'z': 1}"),
            ("capacity", {"start": -1.0}, "capacity: start must be a finite number, at least 0; got -1.0"),
            ("capacity", {"steps": -1}, "capacity: steps must be a number of steps, at least 0; got -1"),
            (
                "free_bits",
                {"nats": math.nan},
                "free_bits: nats must be a finite number, at least 0, or a dict of one for each block; got nan",
            ),
            ("free_bits", {"beta": True}, "free_bits: beta must be a finite number, at least 0; got True"),
        ],
    )
    def test_are_checked_when_built(self, name: str, parameters: dict, message: str) -> None:
        with pytest.raises(DeclarationError) as error:
            make_objective(name, **parameters)
        assert str(error.value) == message

    def test_num_particles_averages(self, x: Tensor) -> None:
        pair = make_case("plain")
        one = [Elbo().loss(*pair, x) for _ in range(60)]
        many = [Elbo(num_particles=25, vectorize_particles=True).loss(*pair, x) for _ in range(60)]
        spread = torch.tensor(one).std() / torch.tensor(many).std()
        assert 3 < spread < 8

    @pytest.mark.parametrize("nesting", [1, 3])
    def test_max_plate_nesting_places_the_particles(self, nesting: int, x: Tensor) -> None:
        shapes: list[torch.Size] = []

        class Spy(Elbo):
            def weigh(self, evidence: Evidence) -> dict[str, Term]:
                shapes.append(evidence.passes[0].latents["z"].value.shape)
                return super().weigh(evidence)

        Spy(num_particles=2, vectorize_particles=True, max_plate_nesting=nesting).loss(*make_case("plain"), x)
        assert shapes == [torch.Size([2, *[1] * (nesting - 1), BATCH, CODE])]

    def test_vectorize_particles_runs_once(self, x: Tensor) -> None:
        for vectorised, expected in ((False, 4), (True, 1)):
            runs: list[int] = []
            model, guide = make_case("plain")
            guide.register_forward_hook(lambda *_, runs=runs: runs.append(1))
            Elbo(num_particles=4, vectorize_particles=vectorised).loss(model, guide, x)
            assert len(runs) == expected


class TestNames:
    def test_the_built_in_ones(self) -> None:
        assert {"elbo", "beta_elbo", "capacity", "free_bits", "sum"} <= set(list_objectives())

    def test_unknown_names_and_parameters(self) -> None:
        with pytest.raises(UnknownNameError, match=r"no objective named 'betaelbo'. Did you mean 'beta_elbo'"):
            make_objective("betaelbo")
        with pytest.raises(DeclarationError, match=r"beta_elbo has no parameter 'warm_up'. Did you mean 'warmup'"):
            make_objective("beta_elbo", warm_up=3)

    def test_describe(self) -> None:
        described = describe_objective("beta_elbo")
        assert described.kind == "objective"
        assert described.parameters["warmup"] == "warmup: int = 0"
        assert "KL(q(z) || p(z))" in described.summary

    def test_one_of_ones_own(self, x: Tensor) -> None:
        @register_objective("test_distortion")
        class Distortion(Objective):
            """The negative log-likelihood alone."""

            def weigh(self, evidence: Evidence) -> dict[str, Term]:
                return {**evidence.likelihood_terms(), **evidence.kl_terms(0.0)}

        objective = make_objective("test_distortion", num_particles=2)
        terms = terms_of(objective, make_case("plain"), x)
        assert terms["loss"] == pytest.approx(-terms["log_likelihood/x"])
        assert make_objective(objective.to_spec()) == objective
        assert (0.5 * objective + Elbo(num_particles=2)).to_spec()["sum"]["weights"] == [0.5, 1.0]

    def test_unregistered_is_usable(self, x: Tensor) -> None:
        class Nameless(Elbo):
            spec_name = None

        objective = Nameless()
        assert objective != Nameless()
        assert math.isfinite(objective.loss(*make_case("plain"), x))


# ---- infoplace's own pairs ----------------------------------------------------------------------------------------------


class TestPairs:
    @pytest.fixture
    def pair(self):
        import infoplace as ip

        partition = ip.Partition(
            blocks={"z_g": ip.Block(3, prior={"mixture": {"components": 2}}), "z_l": ip.Block(2, beta=4.0)},
            observations={
                "x": ip.Observation(blocks=("z_g", "z_l"), likelihood="normal"),
                "x_hat": ip.Observation(blocks=("z_l",), transform="histogram", likelihood="normal", weight=0.5),
            },
        )
        return ip.make_pair(partition, data_shape=(1, 8, 8)).double().eval()

    @pytest.fixture
    def observations(self, pair) -> dict[str, Tensor]:
        return pair.partition.observe(torch.rand(BATCH, 1, 8, 8), generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("particles", PARTICLES)
    def test_equal_pyro(self, particles: str, pair, observations) -> None:
        options = PARTICLES[particles]
        for beta, kl, reference in ((0.25, "analytic", TraceMeanField_ELBO), (0.25, "sampled", Trace_ELBO)):
            ours = value_and_gradients(
                BetaElbo(beta={"z_l": beta}, kl=kl, **options), pair.model, pair.guide, observations
            )
            assert_same(ours, value_and_gradients(reference(**options), pair.model, pair.guide, observations))

    def test_the_blocks_own_beta(self, pair, observations) -> None:
        terms = terms_of(BetaElbo(beta=2.0), (pair.model, pair.guide), observations)
        likelihood = terms["log_likelihood/x"] + terms["log_likelihood/x_hat"]
        assert terms["loss"] == pytest.approx(2 * terms["kl/z_g"] + 8 * terms["kl/z_l"] - likelihood)

    def test_the_whole_module_can_be_traced(self, pair, observations) -> None:
        loss = BetaElbo(beta=2.0)(pair.model, pair.guide)
        parameters = dict(loss.named_parameters())

        def call(parameters: dict[str, Tensor], observations: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(loss, parameters, (observations,))

        with pyro.validation_enabled(False):
            traced = make_fx(call)(parameters, observations)
            pyro.set_rng_seed(4)
            found = traced(parameters, observations)
            pyro.set_rng_seed(4)
            torch.testing.assert_close(found, loss(observations))

    def test_trains_both_ways(self, pair, observations) -> None:
        first = [p.detach().clone() for p in pair.parameters()]
        objective = BetaElbo(warmup=2)
        SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective).step(observations)
        second = [p.detach().clone() for p in pair.parameters()]
        loss = objective(pair.model, pair.guide)
        optimiser = torch.optim.Adam(loss.parameters(), lr=1e-3)
        optimiser.zero_grad()
        loss(observations).backward()
        optimiser.step()
        assert objective.steps_taken == 2
        assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert all(not torch.equal(a, b) for a, b in zip(second, pair.parameters(), strict=True))
