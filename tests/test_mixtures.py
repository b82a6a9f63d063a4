"""Blocks whose prior is a mixture: against Pyro's enumeration, closed forms written out, and the paper's equation 11."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn import functional as F

import infoplace as ip
from infoplace import Block, Observation, Partition
from infoplace.distributions import make_prior
from infoplace.metrics import bits_per_dim, block_kl

BATCH, DATA, CLASSES = 5, 4, 3
WAYS = ("marginal", "enumerate", "gumbel")


@pytest.fixture(autouse=True)
def _float64_and_a_clean_store() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(before)
    pyro.clear_param_store()


def mixture(y: str, classes: int = CLASSES, **parameters) -> dict:
    return {"mixture": {"components": classes, "y": y, **parameters}}


def vectors(*priors, betas=None) -> Partition:
    """Blocks ``z``, ``w``, ... with these priors, all under one vector."""
    names = ("z", "w", "v")[: len(priors)]
    betas = betas or [1.0] * len(priors)
    blocks = {name: Block(2 + i, prior=priors[i], beta=betas[i]) for i, name in enumerate(names)}
    return Partition(blocks, {"x": Observation(likelihood={"normal": {"scale": 1.0}})})


def paper(**parameters) -> Partition:
    """The paper's equations 7 to 10."""
    return Partition(
        {"z_g": Block(3, prior={"mixture": {"components": CLASSES, **parameters}}), "z_l": Block(2)},
        {
            "x": Observation(blocks=("z_g", "z_l")),
            "x_hat": Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 4}}),
        },
    )


def unsettle(module: nn.Module, seed: int = 5) -> None:
    """Move every parameter off its start, so that no weight is equal to another by construction."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


class Flat(nn.Linear):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(torch.cat([each.flatten(1) for each in inputs], 1))


def linear(partition: Partition, shape: tuple[int, ...]) -> dict:
    """One linear map for each encoder and decoder."""
    encoders, decoders, size = {}, {}, math.prod(shape)
    for name, block in partition.blocks.items():
        prior = make_prior(block.prior)
        encoders[name] = Flat(size * len(block.reads), 2 * block.dim + prior.classes * prior.draws_class)
    for name, item in partition.observations.items():
        raw = item.likelihood.raw_shape(shape)
        inputs = sum(partition.blocks[block].dim for block in item.blocks)
        decoders[name] = nn.Sequential(nn.Linear(inputs, math.prod(raw)), nn.Unflatten(1, raw))
    return {"encoders": encoders, "decoders": decoders}


def make(partition: Partition, shape: tuple[int, ...] = (DATA,), **own) -> ip.Pair:
    torch.manual_seed(0)
    networks = linear(partition, shape)
    for role, modules in own.items():
        networks[role].update(modules)
    pair = ip.make_pair(partition, shape, networks)
    unsettle(pair)
    return pair


def data(shape: tuple[int, ...] = (DATA,), count: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if len(shape) == 1:
        return torch.randn(count, *shape, generator=generator)
    return torch.randint(0, 256, (count, *shape), generator=generator).to(torch.get_default_dtype()) / 255


def observed(pair: ip.Pair, count: int = BATCH) -> dict[str, Tensor]:
    return pair.partition.observe(data(pair.data_shape, count), torch.Generator().manual_seed(2))


def value_and_gradients(objective, model, guide, *args, seed: int = 3) -> tuple[float, dict[str, Tensor]]:
    modules = {"model": model, "guide": guide}
    for module in modules.values():
        module.zero_grad()
    pyro.set_rng_seed(seed)
    loss = objective.differentiable_loss(model, guide, *args)
    loss.backward()
    gradients = {
        f"{role}.{name}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for role, module in modules.items()
        for name, p in module.named_parameters()
    }
    return loss.item(), gradients


def same(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-9, abs=1e-9)
    assert set(one[1]) == set(other[1])
    assert any(gradient.abs().max() > 1e-6 for gradient in one[1].values())
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


class Weighted(Messenger):
    """Scales named sites: what ``infer={"beta": ...}`` stands for, in Pyro's own words."""

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = weights

    def _pyro_sample(self, message) -> None:
        message["scale"] = message["scale"] * self.weights.get(message["name"], 1.0)


class Wrapped(nn.Module):
    """A module under a Pyro handler, its parameters where they were."""

    def __init__(self, inner: nn.Module, handler) -> None:
        super().__init__()
        self.inner, self.handler = inner, handler

    def forward(self, *args):
        return self.handler(self.inner)(*args)

    def named_parameters(self, *args, **kwargs):
        return self.inner.named_parameters(*args, **kwargs)


# ---- programs that know nothing of infoplace ---------------------------------------------------------------------------


class Program(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.loc = nn.Linear(2, DATA)
        self.code = nn.Linear(DATA, 4)
        self.logits = nn.Linear(DATA, CLASSES)
        self.second = nn.Linear(DATA, CLASSES)
        self.means = nn.Parameter(torch.empty(CLASSES, 2))
        self.rows = nn.Parameter(torch.empty(CLASSES, CLASSES))
        self.prior_logits = nn.Parameter(torch.empty(CLASSES))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))

    def normal(self, x: Tensor, shift: Tensor | float = 0.0) -> dist.Distribution:
        mean, raw = self.code(x).chunk(2, -1)
        return dist.Normal(mean + shift, (F.softplus(raw) + 0.1) * torch.ones_like(mean + shift)).to_event(1)


class ClassModel(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
            z = pyro.sample("z", dist.Normal(self.means[y], 0.8).to_event(1))
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class ClassGuide(Program):
    """``q(z|x,y)`` hangs on ``y``: every class has its own draw."""

    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.logits(x)), infer={"enumerate": "parallel"})
            pyro.sample("z", self.normal(x, self.means[y]))


class DirectModel(ClassModel):
    """The data hang on the class itself too."""

    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
            z = pyro.sample("z", dist.Normal(self.means[y], 0.8).to_event(1))
            pyro.sample("x", dist.Normal(self.loc(z + self.means[y]), 0.7).to_event(1), obs=x)


class ChainModel(Program):
    """A second class hangs on the first, in model and guide."""

    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
            w = pyro.sample("w", dist.Categorical(logits=self.rows[y]))
            z = pyro.sample("z", dist.Normal(self.means[w], 0.8).to_event(1))
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class ChainGuide(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.logits(x)), infer={"enumerate": "parallel"})
            w = pyro.sample(
                "w", dist.Categorical(logits=self.second(x) + self.rows[y]), infer={"enumerate": "parallel"}
            )
            pyro.sample("z", self.normal(x, self.means[w]))


class GlobalModel(Program):
    """One class for the whole batch, outside the plate."""

    def forward(self, x: Tensor) -> None:
        y = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
        with pyro.plate("batch", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.means[y], 0.8).to_event(1))
            pyro.sample("x", dist.Normal(self.loc(z), 0.7).to_event(1), obs=x)


class GlobalGuide(Program):
    def forward(self, x: Tensor) -> None:
        y = pyro.sample("y", dist.Categorical(logits=self.prior_logits), infer={"enumerate": "parallel"})
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("z", self.normal(x, self.means[y]))


class MaskedModel(ClassModel):
    def forward(self, x: Tensor) -> None:
        with poutine.mask(mask=x[:, 0] > -0.5):
            super().forward(x)


class MaskedGuide(ClassGuide):
    def forward(self, x: Tensor) -> None:
        with poutine.mask(mask=x[:, 0] > -0.5):
            super().forward(x)


class ScaledModel(ClassModel):
    def forward(self, x: Tensor) -> None:
        with poutine.scale(scale=2.5):
            super().forward(x)


class ScaledGuide(ClassGuide):
    def forward(self, x: Tensor) -> None:
        with poutine.scale(scale=2.5):
            super().forward(x)


PROGRAMS = {
    "q(z|x,y)": (ClassModel, ClassGuide),
    "p(x|z,y)": (DirectModel, ClassGuide),
    "a class under a class": (ChainModel, ChainGuide),
    "a global class": (GlobalModel, GlobalGuide),
    "masked": (MaskedModel, MaskedGuide),
    "scaled": (ScaledModel, ScaledGuide),
}
PARTICLES = {
    "one": {},
    "looped": {"num_particles": 3},
    "vectorised": {"num_particles": 3, "vectorize_particles": True},
}
particles = pytest.mark.parametrize("options", list(PARTICLES.values()), ids=list(PARTICLES))


class TestAgainstPyrosEnumeration:
    @particles
    @pytest.mark.parametrize("name", list(PROGRAMS))
    def test_programs_of_ones_own(self, name, options):
        model, guide = (program(seed) for program, seed in zip(PROGRAMS[name], (1, 2), strict=True))
        reference = TraceEnum_ELBO(max_plate_nesting=1, **options)
        mine = ip.make_objective("elbo", kl="sampled", **options)
        x = data()
        same(*(value_and_gradients(objective, model, guide, x) for objective in (mine, reference)))

    @particles
    def test_a_pair(self, options):
        pair = make(vectors(mixture("enumerate")))
        reference = TraceEnum_ELBO(max_plate_nesting=1, **options)
        mine = ip.make_objective("elbo", kl="sampled", **options)
        same(*(value_and_gradients(o, pair.model, pair.guide, observed(pair)) for o in (mine, reference)))

    @particles
    def test_two_blocks_that_draw_a_class(self, options):
        pair = make(vectors(mixture("enumerate"), mixture("enumerate", 4), "standard_normal"))
        reference = TraceEnum_ELBO(max_plate_nesting=1, **options)
        mine = ip.make_objective("elbo", kl="sampled", **options)
        same(*(value_and_gradients(o, pair.model, pair.guide, observed(pair)) for o in (mine, reference)))

    def test_the_betas_of_sites_scale_them(self):
        pair = make(vectors(mixture("enumerate", y_beta=0.25), "standard_normal", betas=[7.0, 3.0]))
        weights = Weighted({"z": 7.0, "z_y": 0.25, "w": 3.0})
        mine = value_and_gradients(ip.make_objective("elbo", kl="sampled"), pair.model, pair.guide, observed(pair))
        wrapped = [Wrapped(half, weights) for half in (pair.model, pair.guide)]
        same(mine, value_and_gradients(TraceEnum_ELBO(max_plate_nesting=1), *wrapped, observed(pair)))

    def test_the_objectives_beta_multiplies_that_of_the_site(self):
        pair = make(vectors(mixture("enumerate", y_beta=0.25), "standard_normal", betas=[7.0, 3.0]))
        mine = value_and_gradients(
            ip.make_objective("beta_elbo", beta={"z": 2.0, "z_y": 40.0}, kl="sampled"),
            pair.model,
            pair.guide,
            observed(pair),
        )
        wrapped = [Wrapped(half, Weighted({"z": 14.0, "z_y": 10.0, "w": 3.0})) for half in (pair.model, pair.guide)]
        same(mine, value_and_gradients(TraceEnum_ELBO(max_plate_nesting=1), *wrapped, observed(pair)))

    @pytest.mark.parametrize(
        "handler", [poutine.scale(scale=0.3), poutine.mask(mask=torch.arange(BATCH) != 2)], ids=["scale", "mask"]
    )
    def test_a_pair_under_a_handler(self, handler):
        pair = make(vectors(mixture("enumerate")))
        wrapped = [Wrapped(half, handler) for half in (pair.model, pair.guide)]
        mine = value_and_gradients(ip.make_objective("elbo", kl="sampled"), *wrapped, observed(pair))
        same(mine, value_and_gradients(TraceEnum_ELBO(max_plate_nesting=1), *wrapped, observed(pair)))
        plain = value_and_gradients(ip.make_objective("elbo", kl="sampled"), pair.model, pair.guide, observed(pair))
        assert mine[0] != pytest.approx(plain[0], rel=1e-3)

    def test_an_image_counts_once_however_many_classes(self):
        pair = make(vectors(mixture("enumerate")))
        seen = []

        class Spy(ip.Objective):
            def weigh(self, evidence):
                seen.append(evidence.count)
                return evidence.kl_terms(1.0)

        Spy(num_particles=2, vectorize_particles=True).loss(pair.model, pair.guide, observed(pair))
        assert seen == [{"z_y": BATCH, "z": BATCH}]

    def test_decoders_run_once_for_all_classes(self):
        rows = []

        class Counting(nn.Linear):
            def forward(self, z: Tensor) -> Tensor:
                rows.append(len(z))
                return super().forward(z)

        pair = make(vectors(mixture("enumerate")), decoders={"x": Counting(2, DATA)})
        rows.clear()
        ip.make_objective("elbo").loss(pair.model, pair.guide, observed(pair))
        assert rows == [BATCH]

    def test_a_draw_that_cannot_be_reparameterised_beside_an_enumerated_one(self):
        """Its score-function gradient averages to the gradient of the exact sum over both."""

        class Model(Program):
            def forward(self, x: Tensor) -> None:
                with pyro.plate("batch", len(x), dim=-1):
                    y = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
                    flag = pyro.sample("flag", dist.Bernoulli(0.4))
                    mean = self.loc(self.means[y] + flag.unsqueeze(-1))
                    pyro.sample("x", dist.Normal(mean, 1.5).to_event(1), obs=x)

        class Guide(Program):
            enumerated = False

            def forward(self, x: Tensor) -> None:
                infer = {"enumerate": "parallel"}
                with pyro.plate("batch", len(x), dim=-1):
                    pyro.sample("y", dist.Categorical(logits=self.logits(x)), infer=infer)
                    flag = dist.Bernoulli(logits=self.second(x)[:, 0])
                    pyro.sample("flag", flag, infer=infer if self.enumerated else {})

        model, guide, x = Model(1), Guide(2), data(count=2)
        draws = [
            value_and_gradients(ip.make_objective("elbo"), model, guide, x, seed=seed)[1]["guide.second.weight"][0]
            for seed in range(150)
        ]
        guide.enumerated = True
        exact = value_and_gradients(TraceEnum_ELBO(max_plate_nesting=1), model, guide, x)
        same(value_and_gradients(ip.make_objective("elbo", kl="sampled"), model, guide, x), exact)
        mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / math.sqrt(len(draws))
        assert ((mean - exact[1]["guide.second.weight"][0]).abs() < 4 * error + 1e-9).all()


# ---- the closed form -----------------------------------------------------------------------------------------------------


def normal_kl(mean: Tensor, scale: Tensor, to_mean: Tensor, to_scale: Tensor) -> Tensor:
    """The divergence of diagonal normals, summed over the last dimension."""
    return (to_scale.log() - scale.log() + (scale**2 + (mean - to_mean) ** 2) / (2 * to_scale**2) - 0.5).sum(-1)


def class_kl(q: Tensor, p: Tensor) -> Tensor:
    """The divergence of classes from their logits, each `[..., classes]`."""
    return (q.softmax(-1) * (q.log_softmax(-1) - p.log_softmax(-1))).sum(-1)


def by_hand(pair: ip.Pair, observations: dict[str, Tensor], name: str = "z") -> tuple[Tensor, Tensor]:
    """``sum_y q(y|x) KL(q(z|x) || p(z|y))`` and ``KL(q(y|x) || p(y))``, each `[batch]`."""
    q, prior, logits = (
        pair.encode(observations)[name],
        pair.model.priors[name],
        pair.classify(observations)[name].logits,
    )
    each = normal_kl(q.mean.unsqueeze(1), q.stddev.unsqueeze(1), prior.means, prior.scales)
    return (logits.softmax(-1) * each).sum(-1), class_kl(logits, prior.logits)


class TestTheClosedForm:
    def test_terms(self):
        pair = make(vectors(mixture("enumerate"), mixture("enumerate", 4)))
        observations = observed(pair)
        terms = ip.make_objective("elbo").terms(pair.model, pair.guide, observations)
        for name in ("z", "w"):
            of_block, of_class = by_hand(pair, observations, name)
            assert terms[f"kl/{name}"].item() == pytest.approx(of_block.sum().item(), rel=1e-10)
            assert terms[f"kl/{name}_y"].item() == pytest.approx(of_class.sum().item(), rel=1e-10)

    def test_loss_and_gradient(self):
        pair = make(vectors(mixture("enumerate", y_beta=0.5), betas=[3.0]))
        observations = observed(pair)
        mine = value_and_gradients(ip.make_objective("beta_elbo", beta=2.0), pair.model, pair.guide, observations)

        class Hand:
            @staticmethod
            def differentiable_loss(model, guide, observations):
                z = pair.encode(observations)["z"].rsample()
                of_block, of_class = by_hand(pair, observations)
                log_likelihood = pair.decode({"z": z}, "x").log_prob(observations["x"])
                return (6 * of_block + 1 * of_class - log_likelihood).sum()

        # The same numbers are drawn: the class takes none where all its values are there.
        same(mine, value_and_gradients(Hand, pair.model, pair.guide, observations))

    def test_sampled_divergences_average_to_it(self):
        pair = make(vectors(mixture("enumerate")))
        observations = observed(pair)
        of_block, of_class = by_hand(pair, observations)
        objective = ip.make_objective("elbo", kl="sampled", num_particles=20, vectorize_particles=True)
        draws = [objective.terms(pair.model, pair.guide, observations) for _ in range(50)]
        values = torch.stack([terms["kl/z"] for terms in draws])
        error = values.std().item() / math.sqrt(len(values))
        assert error > 0
        assert abs(values.mean().item() - of_block.sum().item()) < 3.5 * error
        # Nothing is drawn of the class, so its own divergence is exact.
        for terms in draws[:2]:
            assert terms["kl/z_y"].item() == pytest.approx(of_class.sum().item(), rel=1e-10)

    def test_it_is_no_less_than_the_marginal_divergence(self):
        """``KL(q(y) q(z|x) || p(y) p(z|y)) >= KL(q(z|x) || p(z))``, equal where ``q(y)`` is Bayes' rule at every z."""
        pair = make(vectors(mixture("enumerate")))
        observations = observed(pair)
        of_block, of_class = by_hand(pair, observations)
        q, prior = pair.encode(observations)["z"], pair.model.priors["z"]()
        z = q.sample((4000,))
        marginal = (q.log_prob(z).sum(-1) - prior.log_prob(z)).mean(0)
        assert (of_block + of_class > marginal - 0.05).all()


# ---- relaxed draws -------------------------------------------------------------------------------------------------------


def equation_11(pair: ip.Pair, observations: dict[str, Tensor], drawn: dict[str, Tensor]) -> dict[str, float]:
    """Its terms, from the draws of ``y``, ``z_g`` and ``z_l``, with torch alone."""
    q, prior = pair.encode(observations), pair.model.priors["z_g"]
    y = drawn["z_g_y"]
    mean, scale = (torch.einsum("bk,kd->bd", y, table) for table in (prior.means, prior.scales))
    latents = {name: drawn[name] for name in ("z_g", "z_l")}
    return {
        "log_likelihood/x": pair.decode(latents, "x").log_prob(observations["x"]).sum().item(),
        "log_likelihood/x_hat": pair.decode(latents, "x_hat").log_prob(observations["x_hat"]).sum().item(),
        "kl/z_g": normal_kl(q["z_g"].mean, q["z_g"].stddev, mean, scale).sum().item(),
        "kl/z_l": normal_kl(q["z_l"].mean, q["z_l"].stddev, torch.zeros(2), torch.ones(2)).sum().item(),
        "kl/z_g_y": class_kl(pair.classify(observations)["z_g"].logits, prior.logits).sum().item(),
    }


def drawn_by(guide, observations, seed: int = 3) -> dict[str, Tensor]:
    pyro.set_rng_seed(seed)
    trace = poutine.trace(guide).get_trace(observations)
    return {name: trace.nodes[name]["value"].detach() for name in trace.stochastic_nodes if name != "_batch"}


class TestRelaxedDraws:
    @pytest.mark.parametrize("straight_through", [False, True])
    def test_equation_11_term_by_term(self, straight_through):
        pair = make(paper(y="gumbel", straight_through=straight_through), (1, 8, 8))
        observations = observed(pair)
        expected = equation_11(pair, observations, drawn_by(pair.guide, observations))
        objective = ip.make_objective("beta_elbo", beta={"z_g": 40.0, "z_l": 40.0, "z_g_y": 1.0})
        pyro.set_rng_seed(3)
        terms = {name: value.item() for name, value in objective.terms(pair.model, pair.guide, observations).items()}
        loss = terms.pop("loss")
        assert terms == pytest.approx(expected, rel=1e-9)
        assert loss == pytest.approx(
            -expected["log_likelihood/x"]
            - expected["log_likelihood/x_hat"]
            + 40 * (expected["kl/z_g"] + expected["kl/z_l"])
            + expected["kl/z_g_y"],
            rel=1e-9,
        )

    @pytest.mark.parametrize(("y_beta", "weight"), [(1.0, 40.0), (0.025, 1.0), (2.5, 100.0), (0.0, 0.0)])
    def test_y_beta_multiplies_the_objectives(self, y_beta, weight):
        pair = make(paper(y="gumbel", y_beta=y_beta), (1, 8, 8))
        observations = observed(pair)
        terms = equation_11(pair, observations, drawn_by(pair.guide, observations))
        pyro.set_rng_seed(3)
        loss = ip.make_objective("beta_elbo", beta=40.0).loss(pair.model, pair.guide, observations)
        expected = 40 * (terms["kl/z_g"] + terms["kl/z_l"]) + weight * terms["kl/z_g_y"]
        assert loss == pytest.approx(expected - terms["log_likelihood/x"] - terms["log_likelihood/x_hat"], rel=1e-9)

    @pytest.mark.parametrize(
        ("kl", "reference"),
        [("analytic", TraceMeanField_ELBO()), ("sampled", Trace_ELBO())],
        ids=["analytic", "sampled"],
    )
    def test_against_pyro(self, kl, reference):
        pair = make(vectors(mixture("gumbel"), mixture("gumbel", 4)))
        mine = ip.make_objective("elbo", kl=kl)
        same(*(value_and_gradients(o, pair.model, pair.guide, observed(pair)) for o in (mine, reference)))

    @pytest.mark.parametrize("straight_through", [False, True])
    @particles
    def test_sampled_divergences_run(self, straight_through, options):
        pair = make(vectors(mixture("gumbel", straight_through=straight_through)))
        objective = ip.make_objective("elbo", kl="sampled", **options)
        loss, gradients = value_and_gradients(objective, pair.model, pair.guide, observed(pair))
        assert math.isfinite(loss)
        assert all(gradient.isfinite().all() for gradient in gradients.values())

    def test_the_sampled_divergence_is_that_of_the_relaxed_densities(self):
        pair = make(paper(y="gumbel", temperature=0.7), (1, 8, 8))
        observations = observed(pair)
        y = drawn_by(pair.guide, observations)["z_g_y"]
        pyro.set_rng_seed(3)
        found = ip.make_objective("elbo", kl="sampled").terms(pair.model, pair.guide, observations)["kl/z_g_y"]
        q, p = (
            torch.distributions.RelaxedOneHotCategorical(torch.tensor(0.7), logits=logits)
            for logits in (pair.classify(observations)["z_g"].logits, pair.model.priors["z_g"].logits)
        )
        assert found.item() == pytest.approx((q.log_prob(y) - p.log_prob(y)).sum().item(), rel=1e-9)

    @pytest.mark.parametrize("straight_through", [False, True])
    def test_the_registered_divergence_is_that_of_the_classes(self, straight_through):
        spec = make_prior(mixture("gumbel", temperature=0.7, straight_through=straight_through))
        generator = torch.Generator().manual_seed(4)
        one, other = (torch.randn(6, CLASSES, generator=generator) for _ in range(2))
        q, p = (spec.build_class_posterior()(logits) for logits in (one, other))
        torch.testing.assert_close(torch.distributions.kl_divergence(q, p), class_kl(one, other))
        assert torch.distributions.kl_divergence(q, q).abs().max() < 1e-12

    def test_straight_through_draws_are_one_class_and_have_gradients(self):
        posterior = make_prior(mixture("gumbel", straight_through=True)).build_class_posterior()
        logits = torch.randn(200, CLASSES, requires_grad=True)
        y = posterior(logits).rsample()
        assert ((y == 0) | (y == 1)).all()
        assert (y.sum(-1) == 1).all()
        (y * torch.arange(1.0, CLASSES + 1)).sum().backward()
        assert logits.grad.abs().sum() > 0

    def test_straight_through_classes_are_drawn_as_often_as_they_are_likely(self):
        posterior = make_prior(mixture("gumbel", straight_through=True)).build_class_posterior()
        logits = torch.tensor([0.0, 1.0, -1.0])
        shares = posterior(logits).rsample((20_000,)).mean(0)
        torch.testing.assert_close(shares, logits.softmax(-1), atol=0.015, rtol=0)

    @pytest.mark.parametrize("how", ["sample", "rsample", "__call__"])
    def test_straight_through_draws_are_one_class_however_they_are_drawn(self, how):
        posterior = make_prior(mixture("gumbel", straight_through=True)).build_class_posterior()
        y = getattr(posterior(torch.zeros(50, CLASSES)), how)()
        assert set(y.unique().tolist()) == {0.0, 1.0}

    def test_relaxed_draws_lie_inside_the_simplex_and_sharpen_as_the_temperature_falls(self):
        sharpest = []
        for temperature in (5.0, 0.5, 0.05):
            posterior = make_prior(mixture("gumbel", temperature=temperature)).build_class_posterior()
            y = posterior(torch.zeros(500, CLASSES)).rsample()
            torch.testing.assert_close(y.sum(-1), torch.ones(500))
            sharpest.append(y.max(-1).values.mean().item())
        assert 1 / CLASSES < sharpest[0] < 0.6 < sharpest[1] < sharpest[2]

    def test_one_hot_weights_give_that_class(self):
        prior = make_prior(mixture("gumbel")).build(2)
        unsettle(prior)
        for index, row in enumerate(torch.eye(CLASSES)):
            given, exact = prior.given(row), prior.given(torch.tensor(index))
            torch.testing.assert_close(given.mean, exact.mean)
            torch.testing.assert_close(given.stddev, exact.stddev)


def temperature_of(pair: ip.Pair) -> float:
    """That of a draw in evaluation mode, which changes nothing."""
    training = pair.training
    pair.eval()
    trace = poutine.trace(pair.guide).get_trace(observed(pair))
    pair.train(training)
    return trace.nodes["z_y"]["fn"].temperature.item()


ANNEALED = {"temperature": 2.0, "final_temperature": 0.5, "anneal_steps": 4}


def temperatures(posterior, count):
    """The temperature of each of several draws."""
    found = []
    for _ in range(count):
        found.append(posterior(torch.zeros(CLASSES)).temperature.item())
        posterior.advance()
    return found


class TestTemperature:
    def test_left_out_it_is_the_papers_constant(self):
        pair = make(vectors(mixture("gumbel")))
        for _ in range(3):
            pair.guide(observed(pair))
            assert temperature_of(pair) == 0.4

    def test_it_falls_geometrically_to_its_end_and_stays(self):
        posterior = make_prior(mixture("gumbel", **ANNEALED)).build_class_posterior()
        found = temperatures(posterior, 7)
        expected = [2.0 * 0.25 ** (step / 4) for step in range(4)] + [0.5] * 3
        assert found == pytest.approx(expected)

    def test_it_may_rise(self):
        rising = make_prior(mixture("gumbel", temperature=0.5, final_temperature=2.0, anneal_steps=2))
        assert temperatures(rising.build_class_posterior(), 4) == pytest.approx([0.5, 1, 2, 2])

    def test_one_step_of_training_is_one_step_of_it(self):
        pair = make(vectors(mixture("gumbel", **ANNEALED)))
        observations = observed(pair)
        svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), loss=ip.make_objective("elbo"))
        for step in range(6):
            assert temperature_of(pair) == pytest.approx(2.0 * 0.25 ** (min(step, 4) / 4))
            svi.step(observations)

    def test_prior_and_posterior_are_at_one_temperature(self):
        pair = make(vectors(mixture("gumbel", **ANNEALED)))
        for _ in range(3):
            ip.make_objective("elbo").terms(pair.model, pair.guide, observed(pair))
            nodes = [poutine.trace(half).get_trace(observed(pair)).nodes for half in (pair.guide, pair.model)]
            assert nodes[0]["z_y"]["fn"].temperature == nodes[1]["z_y"]["fn"].temperature

    def test_evaluation_does_not_advance_it(self):
        pair = make(vectors(mixture("gumbel", **ANNEALED))).eval()
        for _ in range(3):
            ip.make_objective("elbo").loss(pair.model, pair.guide, observed(pair))
        assert temperature_of(pair) == 2.0

    @pytest.mark.parametrize("look", ["encode", "classify"])
    def test_looking_at_posteriors_draws_nothing_and_does_not_advance_it(self, look):
        pair = make(vectors(mixture("gumbel", **ANNEALED))).train()
        getattr(pair, look)(observed(pair))
        assert temperature_of(pair) == 2.0

    def test_a_saved_pair_goes_on_at_its_temperature(self, tmp_path):
        pair = make(vectors(mixture("gumbel", **ANNEALED))).float()
        observations = {name: value.float() for name, value in observed(pair).items()}
        for _ in range(3):
            ip.make_objective("elbo").differentiable_loss(pair.model, pair.guide, observations)
        assert "guide.class_posteriors.z.drawn" in pair.state_dict()
        torch.set_default_dtype(torch.float32)
        loaded = ip.load_pair(pair.save(tmp_path / "run"), linear(pair.partition, (DATA,)))
        assert temperature_of(loaded) == pytest.approx(2.0 * 0.25**0.75, rel=1e-5)
        ip.make_objective("elbo").differentiable_loss(loaded.model, loaded.guide, observations)
        assert temperature_of(loaded) == pytest.approx(0.5)

    def test_a_look_without_gradients_and_draws_from_the_prior_alone_do_not_count(self):
        pair = make(vectors(mixture("gumbel", **ANNEALED)))
        ip.make_objective("elbo").terms(pair.model, pair.guide, observed(pair))
        pair.model(None, size=3)
        counters = [value for name, value in pair.named_buffers() if name.endswith("drawn")]
        assert [value.item() for value in counters] == [0.0, 0.0]

    def test_a_state_dict_and_a_copy_carry_it(self):
        pair, other = (make(vectors(mixture("gumbel", **ANNEALED))) for _ in range(2))
        pair.guide(observed(pair))
        other.load_state_dict(pair.state_dict())
        for each in (other, copy.deepcopy(pair)):
            assert temperature_of(each) == pytest.approx(2.0 * 0.25**0.25)


# ---- summed out -----------------------------------------------------------------------------------------------------------


def mixture_log_prob(prior: nn.Module, z: Tensor) -> Tensor:
    """``log p(y) + log p(z|y)``, `[..., classes]`, with elementary functions."""
    standard = (z.unsqueeze(-2) - prior.means) / prior.scales
    log_normal = (-0.5 * standard**2 - prior.scales.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    return prior.logits.log_softmax(-1) + log_normal


class TestSummedOut:
    @pytest.mark.parametrize("y", WAYS)
    def test_the_prior_of_the_block_is_the_log_sum_over_classes(self, y):
        prior = make_prior(mixture(y)).build(2)
        unsettle(prior)
        z = torch.randn(6, 2)
        torch.testing.assert_close(prior().log_prob(z), mixture_log_prob(prior, z).logsumexp(-1))

    def test_no_site_for_the_class(self):
        pair = make(vectors(mixture("marginal")))
        assert set(ip.make_objective("elbo").terms(pair.model, pair.guide, observed(pair))) == {
            "log_likelihood/x",
            "kl/z",
            "loss",
        }
        assert set(pair.model(None, size=2)) == {"z", "x"}

    def test_its_state_is_what_it_was(self):
        prior = make_prior(mixture("marginal")).build(2)
        assert list(prior.state_dict()) == ["logits", "means", "raw_scales"]
        assert not any("class_posteriors" in name for name in make(vectors(mixture("marginal"))).state_dict())

    def test_classify_is_bayes_rule_at_the_posteriors_mean(self):
        pair = make(vectors(mixture("marginal")))
        observations = observed(pair)
        found = pair.classify(observations)["z"]
        joint = mixture_log_prob(pair.model.priors["z"], pair.encode(observations)["z"].mean)
        torch.testing.assert_close(found.probs, joint.exp() / joint.exp().sum(-1, keepdim=True))

    def test_responsibilities_take_any_leading_shape(self):
        prior = make_prior(mixture("enumerate")).build(2)
        unsettle(prior)
        z = torch.randn(3, 6, 2)
        found = prior.responsibilities(z)
        assert found.probs.shape == (3, 6, CLASSES)
        torch.testing.assert_close(found.probs, mixture_log_prob(prior, z).softmax(-1))

    @pytest.mark.parametrize("y", ["enumerate", "gumbel"])
    def test_classify_is_what_the_encoder_says(self, y):
        encoder = nn.Linear(DATA, 2 * 2 + CLASSES)
        pair = make(vectors(mixture(y)), encoders={"z": encoder})
        observations = observed(pair)
        raw = observations["x"] @ encoder.weight.T + encoder.bias
        torch.testing.assert_close(pair.classify(observations)["z"].probs, raw[:, 4:].softmax(-1))
        torch.testing.assert_close(pair.encode(observations)["z"].mean, raw[:, :2])

    def test_only_blocks_with_a_mixture_are_classified(self):
        pair = make(vectors("standard_normal"))
        assert pair.classify(observed(pair)) == {}
        pair = make(vectors("standard_normal", mixture("enumerate"), mixture("marginal", 4)))
        found = pair.classify(observed(pair))
        assert {name: tuple(q.probs.shape) for name, q in found.items()} == {"w": (BATCH, 3), "v": (BATCH, 4)}

    def test_classes_are_differentiable(self):
        for y in WAYS:
            pair = make(vectors(mixture(y)))
            pair.classify(observed(pair))["z"].logits[:, 0].sum().backward()
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in pair.guide.parameters())


# ---- pairs ------------------------------------------------------------------------------------------------------------------

PRIORS = {
    "marginal": mixture("marginal"),
    "enumerate": mixture("enumerate"),
    "gumbel": mixture("gumbel"),
    "straight through": mixture("gumbel", straight_through=True),
    "annealed": mixture("gumbel", **ANNEALED),
}
every_way = pytest.mark.parametrize("prior", list(PRIORS.values()), ids=list(PRIORS))


def images_pair(prior: dict) -> ip.Pair:
    torch.set_default_dtype(torch.float32)
    return make(paper(**prior["mixture"]), (1, 8, 8))


@every_way
class TestPairs:
    def test_shapes(self, prior):
        pair = images_pair(prior)
        observations = observed(pair)
        posteriors = pair.encode(observations)
        assert {name: tuple(q.shape()) for name, q in posteriors.items()} == {"z_g": (BATCH, 3), "z_l": (BATCH, 2)}
        means = {name: q.mean for name, q in posteriors.items()}
        for name in ("x", "x_hat"):
            likelihood = pair.decode(means, name)
            assert (*likelihood.batch_shape, *likelihood.event_shape) == (BATCH, 1, 8, 8)
            assert pair.sample(3)[name].shape == (3, 1, 8, 8)
            assert pair.resample(observations, blocks=("z_g",))[name].shape == (BATCH, 1, 8, 8)
            assert pair.reconstruct(observations)[name].shape == (BATCH, 1, 8, 8)
        assert pair.sample_prior("z_g", 4).shape == (4, 3)
        assert pair.classify(observations)["z_g"].probs.shape == (BATCH, CLASSES)

    def test_draws_from_the_prior(self, prior):
        pair = images_pair(prior)
        drawn = pair.model(None, size=3)
        shapes = {name: tuple(value.shape) for name, value in drawn.items()}
        y = prior["mixture"]["y"]
        of_class = {"marginal": {}, "enumerate": {"z_g_y": (3,)}, "gumbel": {"z_g_y": (3, CLASSES)}}[y]
        assert shapes == {**of_class, "z_g": (3, 3), "z_l": (3, 2), "x": (3, 1, 8, 8), "x_hat": (3, 1, 8, 8)}

    @pytest.mark.parametrize("parallel", [False, True])
    def test_predictive(self, prior, parallel):
        pair = images_pair(prior)
        drawn = pair.predictive(2, parallel=parallel)(observed(pair))
        assert {name: tuple(value.shape) for name, value in drawn.items()} == {
            "z_g": (2, BATCH, 3),
            "z_l": (2, BATCH, 2),
            "x": (2, BATCH, 1, 8, 8),
            "x_hat": (2, BATCH, 1, 8, 8),
        }

    @pytest.mark.parametrize("whose", ["infoplace", "pyro"])
    def test_training_reaches_every_parameter(self, prior, whose):
        pair = images_pair(prior)
        reference = {
            "marginal": Trace_ELBO(),
            "enumerate": TraceEnum_ELBO(max_plate_nesting=1),
            "gumbel": TraceMeanField_ELBO(),
        }
        loss = ip.make_objective("elbo") if whose == "infoplace" else reference[prior["mixture"]["y"]]
        before = {name: parameter.clone() for name, parameter in pair.named_parameters()}
        svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), loss=loss)
        assert math.isfinite(svi.step(observed(pair)))
        for name, parameter in pair.named_parameters():
            assert not torch.equal(parameter, before[name]), name

    def test_saved_and_loaded(self, prior, tmp_path):
        torch.set_default_dtype(torch.float32)
        pair = ip.make_pair(paper(**prior["mixture"]), (1, 8, 8))
        loaded = ip.load_pair(pair.save(tmp_path / "run"))
        assert loaded.partition == pair.partition
        pair.eval(), loaded.eval()
        observations = observed(pair)
        assert torch.equal(loaded.classify(observations)["z_g"].logits, pair.classify(observations)["z_g"].logits)
        losses = []
        for one in (pair, loaded):
            pyro.set_rng_seed(3)
            losses.append(ip.make_objective("elbo").loss(one.model, one.guide, observations))
        assert losses[0] == losses[1]

    def test_specs_come_back(self, prior):
        partition = paper(**prior["mixture"])
        assert Partition.from_yaml(partition.to_yaml()) == partition
        assert Partition.from_json(partition.to_json()) == partition
        for key, value in prior["mixture"].items():
            assert partition.to_dict()["blocks"]["z_g"]["prior"]["mixture"][key] == value


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "marginal"])
def test_compiled_it_is_the_same(name):
    eager, traced = (make(vectors(PRIORS[name])) for _ in range(2))
    objective = ip.make_objective("beta_elbo", beta=2.0)
    compiled = ip.compile(traced, objective, backend="eager")
    observations = observed(eager)
    for step in range(3):
        results = []
        for pair, loss in ((eager, objective(eager.model, eager.guide)), (traced, compiled)):
            pair.zero_grad()
            torch.manual_seed(step)
            value = loss(observations)
            value.backward()
            results.append((value.detach(), {name: p.grad.clone() for name, p in pair.named_parameters()}))
        torch.testing.assert_close(results[0], results[1])
    # A temperature that falls is part of the state.
    torch.testing.assert_close(dict(eager.state_dict()), dict(traced.state_dict()))


class Normals(nn.Linear):
    def forward(self, x: Tensor) -> dist.Distribution:
        mean, scale = super().forward(x).chunk(2, -1)
        return dist.Normal(mean, scale.exp()).to_event(1)


class TestNetworksAndNames:
    @pytest.mark.parametrize("y", ["enumerate", "gumbel"])
    @pytest.mark.parametrize("network", ["small", "paper", "resnet"])
    def test_stock_networks(self, y, network):
        torch.set_default_dtype(torch.float32)
        partition = Partition({"z": Block(2, prior=mixture(y))}, {"x": Observation()})
        pair = ip.make_pair(partition, (1, 16, 16), network)
        observations = partition.observe(data((1, 16, 16), 2))
        assert math.isfinite(ip.make_objective("elbo").loss(pair.model, pair.guide, observations))

    @pytest.mark.parametrize("y", ["enumerate", "gumbel"])
    def test_an_encoder_of_the_wrong_size(self, y):
        text = (
            r"the encoder of 'z' returns \[2, 4\] for input of shape \[2, 4\]; expected \[2, 7\] "
            r"\(its prior draws a class, whose 3 logits come last\)"
        )
        with pytest.raises(ip.DeclarationError, match=text):
            make(vectors(mixture(y)), encoders={"z": nn.Linear(DATA, 4)})

    def test_an_encoder_that_returns_a_distribution(self):
        encoders = {"z": Normals(DATA, 4)}
        text = (
            r"the encoder of 'z' returns Independent .*expected \[2, 7\] \(its prior draws a class, whose 3 logits come"
        )
        with pytest.raises(ip.DeclarationError, match=text):
            make(vectors(mixture("enumerate")), encoders=encoders)
        assert set(make(vectors(mixture("marginal")), encoders=encoders).encode({"x": data()})) == {"z"}

    @pytest.mark.parametrize("y", ["enumerate", "gumbel"])
    def test_the_site_of_a_class_is_taken(self, y):
        text = r"'z_y' is the site of the class that 'z' has \(its prior draws one\); rename that one"
        with pytest.raises(ip.DeclarationError, match=text):
            Partition({"z": Block(2, prior=mixture(y)), "z_y": Block(1)}, {"x": Observation()})
        with pytest.raises(ip.DeclarationError, match=text):
            Partition({"z": Block(2, prior=mixture(y))}, {"z_y": Observation()})

    def test_it_is_free_where_the_class_is_summed_out(self):
        partition = Partition({"z": Block(2, prior=mixture("marginal")), "z_y": Block(1)}, {"x": Observation()})
        assert list(partition.blocks) == ["z", "z_y"]

    def test_the_spec_from_before_means_what_it_meant(self):
        spec = {"blocks": {"z": {"dim": 2, "prior": {"mixture": {"components": 30}}}}, "observations": {"x": {}}}
        partition = Partition.from_dict(spec)
        prior = make_prior(partition.blocks["z"].prior)
        assert (prior.classes, prior.y, prior.draws_class) == (30, "marginal", False)
        assert make_prior(prior.to_spec()) == prior


# ---- metrics ----------------------------------------------------------------------------------------------------------------


class TestMetrics:
    def test_block_kl_is_the_closed_form(self):
        pair = make(vectors(mixture("enumerate"), "standard_normal"))
        observations = observed(pair)
        table = block_kl(pair.model, pair.guide, observations, samples=3000)
        of_block, of_class = by_hand(pair, observations)
        assert [row["block"] for row in table.rows()] == ["z_y", "z", "w"]
        assert table.sampled == ()
        assert table.row("z_y")["nats"] == pytest.approx(of_class.mean().item(), rel=1e-9)
        # The class of each sample is drawn, so the block's number is an average over draws.
        assert table.row("z")["nats"] == pytest.approx(of_block.mean().item(), rel=0.05)

    def test_bits_per_dim_with_one_sample_is_the_bound(self):
        pair = make(vectors(mixture("enumerate")))
        observations = observed(pair)
        found = bits_per_dim(pair.model, pair.guide, observations, "x", samples=2000)
        objective = ip.make_objective("elbo", num_particles=2000, vectorize_particles=True)
        exact = -objective.loss(pair.model.eval(), pair.guide.eval(), observations) / BATCH
        assert found.elbo_nats == pytest.approx(exact, rel=0.03)
        assert found.nats > found.elbo_nats
        assert math.isfinite(found.bits_per_dim)
        assert found.dims == DATA

    def test_many_samples_approach_the_exact_likelihood(self):
        """A linear decoder under a mixture of normals has a closed-form ``p(x)``: a mixture of normals."""
        encoder, decoder = nn.Linear(DATA, 2 * 2 + CLASSES), nn.Linear(2, DATA)
        pair = make(vectors(mixture("enumerate")), encoders={"z": encoder}, decoders={"x": decoder})
        prior, observations = pair.model.priors["z"], observed(pair)
        with torch.no_grad():
            # Wide enough to reach all of p(z|x), and the same for every image.
            encoder.weight.zero_()
            encoder.bias.copy_(torch.tensor([0.0, 0.0, 1.5, 1.5, 0.0, 0.0, 0.0]))
            components = torch.distributions.MultivariateNormal(
                prior.means @ decoder.weight.T + decoder.bias,
                torch.eye(DATA) + torch.einsum("id,kd,jd->kij", decoder.weight, prior.scales**2, decoder.weight),
            )
            each = prior.logits.log_softmax(-1) + components.log_prob(observations["x"].unsqueeze(1))
            exact = each.logsumexp(-1).mean().item()
        found = bits_per_dim(pair.model, pair.guide, observations, "x", samples=5000, batch_size=50_000)
        assert found.elbo_nats < found.nats
        assert found.nats == pytest.approx(exact, abs=0.05)


# ---- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"components": 1}, "mixture: components must be .*2.*for one normal use 'standard_normal'"),
        ({"y": "sum"}, "mixture: y must be one of 'marginal', 'enumerate'(,| and| or) .*'gumbel'; got 'sum'"),
        ({"y_beta": 2.0}, "mixture: y_beta weighs the KL of y, and y='marginal' has none of its own; leave it out"),
        ({"y": "enumerate", "y_beta": -1.0}, "mixture: y_beta must be at least 0; got -1.0"),
        ({"y": "enumerate", "y_beta": math.nan}, "mixture: y_beta must be at least 0; got nan"),
        ({"y": "enumerate", "y_beta": True}, "mixture: y_beta must be at least 0; got True"),
        ({"y": "enumerate", "temperature": 0.4}, "temperature is for relaxed draws of y, and y='enumerate' draws none"),
        (
            {"temperature": 0.4},
            "temperature is for relaxed draws of y, and y='marginal' draws none; leave it out, or say",
        ),
        ({"anneal_steps": 4}, "anneal_steps is for relaxed draws"),
        ({"straight_through": True}, "straight_through is for relaxed draws"),
        ({"y": "enumerate", "final_temperature": 0.4}, "final_temperature is for relaxed draws"),
        ({"y": "gumbel", "temperature": 0.0}, "mixture: temperature must be above 0; got 0.0"),
        ({"y": "gumbel", "temperature": "cold"}, "mixture: temperature must be above 0; got 'cold'"),
        (
            {"y": "gumbel", "final_temperature": 0.1},
            "final_temperature and anneal_steps go together; give both, as final_",
        ),
        ({"y": "gumbel", "anneal_steps": 10}, "final_temperature and anneal_steps go together"),
        ({"y": "gumbel", "final_temperature": -1.0, "anneal_steps": 10}, "final_temperature must be above 0; got -1.0"),
        ({"y": "gumbel", "anneal_steps": -1}, "mixture: anneal_steps must be"),
        ({"y": "gumbel", "straight_through": 1}, "mixture: straight_through must be true or false; got 1"),
        ({"y": "gumble"}, "mixture: y must be one of .*got 'gumble'"),
    ],
)
def test_priors_that_cannot_be(parameters, text):
    with pytest.raises(ip.DeclarationError, match=text):
        make_prior("mixture", **parameters)


class DeepModel(Program):
    rows_there = 2

    def forward(self, x: Tensor) -> None:
        with pyro.plate("rows", self.rows_there, dim=-2), pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
            many = x.expand(self.rows_there, *x.shape)
            pyro.sample("x", dist.Normal(self.loc(self.means[y]), 0.7).to_event(1), obs=many)


class DeepGuide(Program):
    rows_there = 2

    def forward(self, x: Tensor) -> None:
        with pyro.plate("rows", self.rows_there, dim=-2), pyro.plate("batch", len(x), dim=-1):
            pyro.sample("y", dist.Categorical(logits=self.logits(x)), infer={"enumerate": "parallel"})


class FlagModel(Program):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
            flag = pyro.sample("flag", dist.Bernoulli(0.4))
            mean = self.loc(self.means[y] + flag.unsqueeze(-1))
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)


class FlagGuide(Program):
    infer: dict = {}  # noqa: RUF012

    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.logits(x)), infer={"enumerate": "parallel"})
            pyro.sample("flag", dist.Bernoulli(logits=self.means[y].sum(-1)), infer=self.infer)


class TestEnumerationThatCannotBe:
    @pytest.mark.parametrize("rows", [2, CLASSES])
    def test_more_plates_than_were_said(self, rows):
        model, guide, x = DeepModel(1), DeepGuide(2), data()
        model.rows_there = guide.rows_there = rows
        text = r"in more plates than the objective's max_plate_nesting allows.*'y'.*say max_plate_nesting=2 or more"
        with pytest.raises(ip.DeclarationError, match=text):
            ip.make_objective("elbo").loss(model, guide, x)
        mine = ip.make_objective("elbo", max_plate_nesting=2, kl="sampled")
        same(*(value_and_gradients(o, model, guide, x) for o in (mine, TraceEnum_ELBO(max_plate_nesting=2))))

    def test_all_classes_enumerated_the_closed_form_is_the_sum(self):
        """Here one hangs on the other in the guide alone, so their batch shapes differ; nothing is left to draw."""
        model, guide, x = FlagModel(1), FlagGuide(2), data()
        guide.infer = {"enumerate": "parallel"}
        mine = ip.make_objective("elbo", kl="analytic")
        same(*(value_and_gradients(o, model, guide, x) for o in (mine, TraceEnum_ELBO(max_plate_nesting=1))))

    @pytest.mark.parametrize("kl", ["analytic", "sampled"])
    def test_a_draw_that_hangs_on_all_values_and_cannot_be_reparameterised(self, kl):
        text = (
            "site 'flag' cannot be reparameterised, and its posterior hangs on 'y', whose values are all taken at once; "
            "let it be enumerated too"
        )
        with pytest.raises(ip.DeclarationError, match=text):
            ip.make_objective("elbo", kl=kl).differentiable_loss(FlagModel(1), FlagGuide(2), data())

    def test_a_class_that_the_guide_lacks(self):
        pair = make(vectors(mixture("enumerate")))
        blocked = Wrapped(pair.guide, lambda fn: poutine.block(fn, hide=["z_y"]))
        with pytest.raises(ip.DeclarationError, match="the model has a latent site 'z_y' that the guide lacks"):
            ip.make_objective("elbo").loss(pair.model, blocked, observed(pair))

    def test_a_beta_for_a_class_that_there_is_none_of(self):
        pair = make(vectors(mixture("marginal")))
        with pytest.raises(ip.DeclarationError, match="beta names 'z_y', which is no latent site"):
            ip.make_objective("beta_elbo", beta={"z_y": 1.0}).loss(pair.model, pair.guide, observed(pair))
