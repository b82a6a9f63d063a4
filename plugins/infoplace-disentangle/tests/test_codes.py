"""Which codes are read, of which pairs; and what every objective does alike."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from disentangle_cases import (
    DIMS,
    Guide,
    Model,
    data,
    directional_check,
    float64_and_a_clean_store,  # noqa: F401 (a fixture)
    run,
)
from infoplace import Block, Observation, Partition, make_objective, make_pair
from infoplace.errors import DataError, DeclarationError
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from infoplace_disentangle import BetaTcvae, Club, DipVae, FactorVae, Hfvae, Hsic, InfoVae

N = 50
NAMED = {
    "beta_tcvae": lambda blocks, **o: BetaTcvae(N, blocks=blocks, **o),
    "hfvae": lambda blocks, **o: Hfvae(N, blocks=blocks, **o),
    "factor_vae": lambda blocks, **o: FactorVae(5, blocks=blocks, width=8, layers=1, **o),
    "dip_vae": lambda blocks, **o: DipVae(blocks=blocks, **o),
    "info_vae": lambda blocks, **o: InfoVae(blocks=blocks, **o),
    "hsic": lambda blocks, **o: Hsic(blocks=blocks, **o),
    "club": lambda blocks, **o: Club(blocks=blocks or ["a", "b"], dims=[2, 3], width=8, layers=1, **o),
}
every_objective = pytest.mark.parametrize("make", NAMED.values(), ids=NAMED)


@every_objective
def test_a_block_that_is_not_there(make):
    with pytest.raises(
        DeclarationError, match=r"blocks names 'bb', which is no latent site\. Did you mean 'b'\? The latent"
    ):
        make(["a", "bb"]).terms(Model(), Guide(), data())


@every_objective
def test_a_batch_of_one_or_no_plate(make):
    with pytest.raises(
        DataError, match=r"the batch has 1 image \(block 'a' has batch shape \[1\]\).*at least [24]; use larger"
    ):
        make(["a", "b"]).terms(Model(), Guide(), data(1))


@pytest.mark.parametrize("name", ["beta_tcvae", "hfvae", "dip_vae", "hsic", "club"])
def test_particles_one_after_another_are_averaged(name):
    model, guide, x = Model(), Guide(), data()
    many = run(NAMED[name](None, num_particles=3), model, guide, x)
    pyro.set_rng_seed(7)
    singles = [NAMED[name](None).terms(model, guide, x) for _ in range(3)]
    assert many == pytest.approx({term: float(sum(one[term] for one in singles) / 3) for term in many}, rel=1e-9)


def test_classes_are_left_out_and_refused_where_they_are_named():
    def site(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("y", dist.Categorical(logits=torch.zeros(3)), infer={"enumerate": "parallel"})
            for name, size in DIMS.items():
                pyro.sample(name, dist.Normal(torch.zeros(size), 1.0).to_event(1))

    assert "hsic/a/b" in run(Hsic(), site, site, data())
    with pytest.raises(DeclarationError, match="'y' is a class"):
        Hsic(["a", "y"]).terms(site, site, data())


def test_posteriors_that_hang_on_a_class_that_is_summed_over_are_refused():
    means = torch.tensor([[0.0, 0.0], [1.0, 1.0]])

    def site(x):
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=torch.zeros(2)), infer={"enumerate": "parallel"})
            pyro.sample("a", dist.Normal(means[y], 1.0).to_event(1))

    with pytest.raises(DeclarationError, match="the posterior of 'a' hangs on a class that is summed over"):
        DipVae().terms(site, site, data())


def test_sites_in_several_plates_are_refused():
    def site(x):
        with pyro.plate("time", 3, dim=-2), pyro.plate("batch", len(x), dim=-1):
            pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(DeclarationError, match=r"block 'a' is in several plates \(batch shape \[3, 6\]\)"):
        DipVae(max_plate_nesting=2).terms(site, site, data())


def test_a_plate_of_one_beside_the_images_is_none():
    def site(x):
        with pyro.plate("one", 1, dim=-1), pyro.plate("batch", len(x), dim=-2):
            for name, size in DIMS.items():
                pyro.sample(name, dist.Normal(torch.zeros(1, size), 1.0).to_event(1))

    def flat(x):
        with pyro.plate("batch", len(x), dim=-1):
            for name, size in DIMS.items():
                pyro.sample(name, dist.Normal(torch.zeros(size), 1.0).to_event(1))

    for make in NAMED.values():
        deep, shallow = make(None, max_plate_nesting=2), make(None)
        assert run(deep, site, site, data()) == pytest.approx(run(shallow, flat, flat, data()), rel=1e-9)


def test_blocks_of_different_plates_are_refused():
    def site(x):
        for count, name in enumerate(DIMS):
            with pyro.plate(f"plate_{name}", len(x) + count, dim=-1):
                pyro.sample(name, dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(DeclarationError, match=r"differ in their number of images \({'a': 6, 'b': 7}\)"):
        Hsic().terms(site, site, data())


def test_a_model_without_vectors_of_real_numbers_is_refused():
    def site(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("y", dist.Categorical(logits=torch.zeros(3)), infer={"enumerate": "parallel"})

    with pytest.raises(DeclarationError, match="no latent site holds vectors of real numbers; the latent sites: 'y'"):
        DipVae().terms(site, site, data())


def test_sites_of_the_guide_alone_are_refused():
    def model(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def guide(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})

    with pytest.raises(DeclarationError, match="'u' is a site that only the guide has"):
        DipVae(blocks=["a", "u"]).terms(model, guide, data())


def test_scalar_sites_are_codes_of_one_dimension():
    def guide(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("a", dist.Normal(x[:, 0], 0.5))
            pyro.sample("b", dist.Normal(x[:, 1], 0.5))

    def wide(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("a", dist.Normal(x[:, :1], 0.5).to_event(1))
            pyro.sample("b", dist.Normal(x[:, 1:2], 0.5).to_event(1))

    for make in (NAMED["hfvae"], NAMED["dip_vae"], NAMED["info_vae"], NAMED["hsic"]):
        assert run(make(None), guide, guide, data()) == pytest.approx(run(make(None), wide, wide, data()), rel=1e-9)


class Sign(dist.Bernoulli):
    """1 or -1: a number that cannot be reparameterised."""

    has_enumerate_support = False
    support = dist.constraints.real

    def log_prob(self, value):
        return super().log_prob((value + 1) / 2)

    def sample(self, *args):
        return 2 * super().sample(*args) - 1


@pytest.mark.parametrize("vectorised", [True, False])
def test_a_draw_that_cannot_be_reparameterised_takes_the_score_functions_gradient(vectorised):
    weight, count = torch.nn.Parameter(torch.tensor(1.5)), 4

    def guide(x):
        with pyro.plate("batch", count, dim=-1):
            pyro.sample("a", Sign(logits=weight, validate_args=False))

    def model(x):
        with pyro.plate("batch", count, dim=-1):
            pyro.sample("a", dist.Normal(0.0, 1e-6))

    particles = 20_000 if vectorised else 1
    objective = InfoVae(1.0, 1.0, "imq", 1.0, num_particles=particles, vectorize_particles=vectorised, kl="sampled")
    pyro.set_rng_seed(2)
    loss = objective.differentiable_loss(model, guide, None)
    (ours,) = torch.autograd.grad(loss, weight)
    p = torch.sigmoid(weight)
    if vectorised:
        # The prior is at 0: of an image, MMD = E k(a, a') - 2 k(1, 0) + 1, and k(1, -1) = 1/3.
        (theirs,) = torch.autograd.grad(count * (1 - 2 * p * (1 - p) * (1 - 1 / 3)), weight)
        assert float(ours) == pytest.approx(float(theirs), abs=0.1)
        assert float(theirs) > 0.5
    else:
        pyro.set_rng_seed(2)
        ones = int((pyro.poutine.trace(guide).get_trace(None).nodes["a"]["value"] > 0).sum())
        assert 0 < ones < count
        assert float(ours) == pytest.approx(float((loss * (ones - count * p)).detach()), rel=1e-9)


def partition(prior) -> Partition:
    return Partition(
        {"z_g": Block(2, prior=prior), "z_l": Block(3)},
        {"x": Observation(), "x_hat": Observation(blocks=("z_l",), transform="grayscale")},
    )


PRIORS = [
    "standard_normal",
    {"mixture": {"components": 3}},
    {"mixture": {"components": 3, "y": "enumerate"}},
    {"mixture": {"components": 3, "y": "gumbel"}},
]


@pytest.mark.parametrize("prior", PRIORS, ids=["normal", "marginal", "enumerate", "gumbel"])
def test_every_objective_trains_an_infoplace_pair(prior):
    torch.set_default_dtype(torch.float32)
    pair = make_pair(partition(prior), (3, 8, 8))
    observations = pair.partition.observe(torch.rand(5, 3, 8, 8).round())
    elbo = float(run(make_objective("elbo"), pair.model, pair.guide, observations)["loss"])
    for kind in (BetaTcvae, Hfvae):
        terms = run(kind(N, beta=1.0), pair.model, pair.guide, observations)
        assert terms["loss"] == pytest.approx(elbo, rel=1e-5)
    total = (
        BetaTcvae(N) + Hfvae(N) + FactorVae(5, width=8, layers=1) + DipVae() + InfoVae()
        + 10 * Hsic() + Club(["z_g", "z_l"], [2, 3], 8, 1)
    )  # fmt: skip
    loss = total(pair.model, pair.guide)
    loss(observations).backward()
    trained = {name for name, weight in loss.named_parameters() if weight.grad is not None}
    assert all(torch.isfinite(weight.grad).all() for weight in loss.parameters() if weight.grad is not None)
    assert any(name.startswith("own") for name in trained)
    assert any("encoders" in name for name in trained)


def test_the_prior_of_a_class_is_drawn_with_its_class(monkeypatch):
    """With the classes' means far apart, draws from p(z) are of all of them, whatever q(y|x) is."""
    torch.set_default_dtype(torch.float32)
    drawn = []
    from infoplace_disentangle import matching

    inner = matching._prior_draws
    monkeypatch.setattr(matching, "_prior_draws", lambda *args: drawn.append(inner(*args)) or drawn[-1])
    for y in ("enumerate", "marginal"):
        pair = make_pair(partition({"mixture": {"components": 3, "y": y}}), (3, 8, 8))
        with torch.no_grad():
            pair.model.priors["z_g"].means.copy_(torch.tensor([[-100.0, 0.0], [0.0, 0.0], [100.0, 0.0]]))
        run(InfoVae(blocks=["z_g"]), pair.model, pair.guide, pair.partition.observe(torch.zeros(300, 3, 8, 8)))
        shares = [(drawn[-1][0, :, 0] / 100).round().eq(place).float().mean() for place in (-1, 0, 1)]
        assert all(0.2 < float(share) < 0.45 for share in shares), y
        assert drawn[-1].shape == (1, 300, 2)


def test_a_prior_on_a_class_of_a_model_that_cannot_be_run_again_is_refused():
    means = torch.tensor([[0.0, 0.0], [1.0, 1.0]])

    def model(x):
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=torch.zeros(2)))
            pyro.sample("a", dist.Normal(means[y], 1.0).to_event(1))

    def guide(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("y", dist.Categorical(logits=torch.zeros(2)), infer={"enumerate": "parallel"})
            pyro.sample("a", dist.Normal(x[:, :2], 1.0).to_event(1))

    with pytest.raises(
        DeclarationError, match="the prior of 'a' hangs on a class that is summed over, and a model can only"
    ):
        InfoVae().terms(model, guide, data())
    assert run(BetaTcvae(N, beta=1.0), model, guide, data())["loss"] == pytest.approx(
        run(make_objective("elbo"), model, guide, data())["loss"], rel=1e-9
    )


def test_the_traced_loss_is_the_eager_one():
    """What ``infoplace.compile`` compiles: the same value and gradients, those of an objective's own network too."""
    x, loss = data(), (2 * FactorVae(5, width=8, layers=1) + InfoVae())(Model(), Guide())
    weights = dict(loss.named_parameters())

    def eager(parameters, seen):
        return functional_call(loss, parameters, (seen,))

    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        traced = make_fx(eager, pre_dispatch=True)(weights, x)
        found = []
        for function in (eager, traced):
            pyro.set_rng_seed(3)
            value = function(weights, x)
            found.append((value.detach(), *torch.autograd.grad(value, list(weights.values()), allow_unused=True)))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    assert sum(one is not None for one in found[0]) > 4


def test_mixed_precision_leaves_densities_in_full():
    torch.set_default_dtype(torch.float32)
    pair = make_pair(partition("standard_normal"), (3, 8, 8))
    observations = pair.partition.observe(torch.rand(5, 3, 8, 8).round())
    for objective in (BetaTcvae(N), FactorVae(5, width=8, layers=1), DipVae("II"), InfoVae(), Hsic()):
        with torch.autocast("cpu", torch.bfloat16):
            terms = objective.terms(pair.model, pair.guide, observations)
        own = {
            name: one for name, one in terms.items() if name.partition("/")[0] not in ("kl", "log_likelihood", "loss")
        }
        assert all(one.dtype == torch.float32 and one.isfinite() for one in own.values())


@every_objective
def test_gradients_flow_through_several_particles(make):
    directional_check(make(None, num_particles=2, vectorize_particles=True), Model(), Guide(), data())
