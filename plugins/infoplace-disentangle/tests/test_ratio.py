"""FactorVAE: its terms from the discriminator's own numbers, where gradients go, and what it learns of Gaussian codes."""

from __future__ import annotations

import copy
import math

import infoplace as ip
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from disentangle_cases import (
    BATCH,
    DIMS,
    Guide,
    Model,
    data,
    directional_check,
    drawn,
    float64_and_a_clean_store,  # noqa: F401 (a fixture)
    run,
)
from infoplace import Block, Observation, Partition, make_objective, make_pair
from infoplace.errors import DataError, DeclarationError
from pyro.infer import SVI

from infoplace_disentangle import Club, FactorVae


def objective(**changes) -> FactorVae:
    return FactorVae(**{"dims": 5, "gamma": 4.0, "width": 8, "layers": 2, **changes})


def logit(module: torch.nn.Module, code: np.ndarray) -> float:
    """The discriminator's output for one code, layer by layer."""
    weights = [one.detach().numpy() for one in module.parameters()]
    hidden = code
    for place in range(0, len(weights), 2):
        hidden = weights[place] @ hidden + weights[place + 1]
        if place + 2 < len(weights):
            hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    return float(hidden[0])


def test_the_terms_are_the_papers_formulas(monkeypatch):
    model, guide, x = Model({"b": 2.0}), Guide(), data()
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.tensor(noise).expand_as(like))
    noise = np.random.default_rng(0).random((BATCH, 5))
    discriminating = objective()
    terms = run(discriminating, model, guide, x)
    codes = np.concatenate([drawn(guide, x)[0][name][0] for name in DIMS], axis=1)
    permuted = np.stack([codes[np.argsort(noise[:, d]), d] for d in range(5)], axis=1)
    correlation, loss = 0.0, 0.0
    for i in range(BATCH):
        real, fake = logit(discriminating.module, codes[i]), logit(discriminating.module, permuted[i])
        d_real, d_fake = 1 / (1 + math.exp(-real)), 1 / (1 + math.exp(-fake))
        correlation += math.log(d_real / (1 - d_real))
        loss -= 0.5 * (math.log(d_real) + math.log(1 - d_fake))
    assert terms["total_correlation"] == pytest.approx(correlation, rel=1e-9)
    assert terms["discriminator"] == pytest.approx(loss, rel=1e-9)
    bound = -terms["log_likelihood/x"] + terms["kl/a"] + 2 * terms["kl/b"]
    assert terms["loss"] == pytest.approx(bound + 4 * correlation, rel=1e-9)


def test_each_dimension_is_permuted_on_its_own_and_within_a_particle():
    from infoplace_disentangle.ratio import _permuted

    codes = torch.randn(2, 50, 3)
    mixed = _permuted(codes)
    assert torch.equal(mixed.sort(1).values, codes.sort(1).values)
    order = [[(codes[p, :, d] == mixed[p, i, d]).nonzero().item() for i in range(50)] for p in (0, 1) for d in range(3)]
    assert len({tuple(one) for one in order}) == 6


def test_the_bounds_gradient_reaches_the_guide_and_the_discriminators_loss_its_own_weights_alone():
    model, guide, x = Model(), Guide(), data()
    discriminating = objective(gamma=4.0)
    directional_check(discriminating, model, guide, x)

    weights = list(discriminating.module.parameters())
    pyro.set_rng_seed(7)
    loss = discriminating.differentiable_loss(model, guide, x)
    ours = torch.autograd.grad(loss, weights)

    def fit() -> float:
        return run(discriminating, model, guide, x)["discriminator"]

    # Whatever gamma is, the discriminator's loss counts once.
    rng, step = np.random.default_rng(1), 1e-6
    directions = [torch.from_numpy(rng.standard_normal(tuple(one.shape))) for one in weights]
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for one, direction in zip(weights, directions, strict=True):
                one += sign * step * direction
            found.append(fit())
            for one, direction in zip(weights, directions, strict=True):
                one -= sign * step * direction
    slope = sum(float((g * d).sum()) for g, d in zip(ours, directions, strict=True))
    assert slope == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-5)


def test_the_discriminator_approaches_the_total_correlation_of_correlated_normals():
    correlation, batch = 0.8, 384
    factor = torch.linalg.cholesky(torch.tensor([[1.0, correlation], [correlation, 1.0]]))

    def guide(x):
        with pyro.plate("batch", batch, dim=-1):
            pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), scale_tril=factor))

    def model(x):
        with pyro.plate("batch", batch, dim=-1):
            pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))

    discriminating = FactorVae(2, width=24, layers=2)
    before = float(discriminating.terms(model, guide, None)["total_correlation"]) / batch
    optimiser = torch.optim.Adam(discriminating.module.parameters(), 0.005)
    for _ in range(200):
        optimiser.zero_grad()
        discriminating.differentiable_loss(model, guide, None).backward()
        optimiser.step()
    after = np.mean([float(discriminating.terms(model, guide, None)["total_correlation"]) for _ in range(20)]) / batch
    truth = -0.5 * math.log(1 - correlation**2)
    assert abs(before) < 0.2
    assert after == pytest.approx(truth, abs=0.08)


@pytest.mark.parametrize("make", [objective, lambda: Club(["a", "b"], [2, 3], 8)])
def test_svi_trains_the_network_beside_the_model(make):
    model, guide, own = Model(), Guide(), make()
    total = make_objective("elbo") + 2 * own
    before = copy.deepcopy(own.module.state_dict())
    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=total).step(data())
    assert all(not torch.equal(value, before[name]) for name, value in own.module.state_dict().items())


@pytest.mark.parametrize("make", [objective, lambda: Club(["a", "b"], [2, 3], 8)])
def test_looking_at_terms_trains_nothing(make):
    own = make()
    before = copy.deepcopy(own.module.state_dict())
    run(own, Model(), Guide(), data())
    assert all(torch.equal(value, before[name]) for name, value in own.module.state_dict().items())


def test_the_network_is_in_the_losss_state_and_no_part_of_the_spec():
    first = objective()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    second = make_objective(first.to_spec())
    assert torch.equal(torch.get_rng_state(), state)
    assert second == first
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        next(first.module.parameters()).add_(1.0)
    assert second == first
    second(Model(), Guide()).load_state_dict(first(Model(), Guide()).state_dict())
    assert torch.equal(next(first.module.parameters()), next(second.module.parameters()))


def test_a_run_that_is_resumed_goes_on_with_its_discriminator(tmp_path):
    torch.set_default_dtype(torch.float32)
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()
    options = {"batch_size": 8, "schedule": "constant", "device": "cpu", "progress": False, "log_every": 2}

    def new():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pair = make_pair(Partition({"z": Block(2)}, {"x": Observation()}), (1, 8, 8))
        return pair, FactorVae(2, width=8, layers=2)

    pair, whole = new()
    ip.fit(pair, x, whole, steps=4, **options)
    pair, half = new()
    ip.fit(pair, x, half, steps=2, out=tmp_path / "run", **options)
    pair, resumed = new()
    ip.fit(pair, x, resumed, steps=4, out=tmp_path / "run", resume=True, **options)
    for one, other in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FactorVae(1), "dims must be an integer, at least 2; got 1"),
        (lambda: FactorVae(2, gamma=0.0), "gamma must be a finite number above 0; got 0.0"),
        (lambda: FactorVae(2, width=0), "width must be an integer, at least 1; got 0"),
        (lambda: FactorVae(2, layers=0), "layers must be an integer, at least 1; got 0"),
    ],
)
def test_parameters_are_checked(make, says):
    with pytest.raises(DeclarationError, match=says):
        make()


def test_blocks_of_another_size_are_refused():
    with pytest.raises(
        DeclarationError, match="dims=4, and the blocks 'a', 'b' have 5 dimensions together; say dims=5"
    ):
        objective(dims=4).terms(Model(), Guide(), data())


def test_a_batch_of_one_is_refused():
    with pytest.raises(DataError, match="the batch has 1 image"):
        objective().terms(Model(), Guide(), data(1))


def test_a_network_computes_in_the_dtype_of_the_codes():
    narrow, wide = objective(), objective()
    narrow.module.float()
    terms = [run(one, Model(), Guide(), data()) for one in (narrow, wide)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)


def test_a_network_on_another_device_is_refused():
    discriminating = objective()
    discriminating.module.to("meta")
    says = r"the codes are on cpu and the objective's network is on meta; move it: objective\.module\.to\('cpu'\)"
    with pytest.raises(DataError, match=says):
        discriminating.terms(Model(), Guide(), data())
