"""DIP-VAE and InfoVAE: against the papers' formulas in loops, and by what they tell apart."""

from __future__ import annotations

import math

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
from infoplace.errors import DataError, DeclarationError

from infoplace_disentangle import DipVae, InfoVae


@pytest.mark.parametrize("kind", ["I", "II"])
@pytest.mark.parametrize("posterior", ["independent", "correlated"])
def test_dip_vae_is_the_papers_formula(kind, posterior):
    model, guide, x = Model(), Guide(posterior), data()
    terms = run(DipVae(kind, 2.0, 3.0), model, guide, x)
    covariances = [guide.posterior(name, x) for name in DIMS]
    means = np.concatenate([q.mean.detach().numpy() for q in covariances], axis=1)
    total = np.zeros((5, 5))
    for i in range(5):
        for j in range(5):
            product = sum(means[n, i] * means[n, j] for n in range(BATCH)) / BATCH
            total[i, j] = product - means[:, i].sum() * means[:, j].sum() / BATCH**2
    if kind == "II":
        start = 0
        for q in covariances:
            size = q.mean.shape[1]
            for n in range(BATCH):
                one = np.diag(q.variance[n].detach().numpy())
                if posterior == "correlated":
                    one = q.covariance_matrix[n].detach().numpy()
                total[start : start + size, start : start + size] += one / BATCH
            start += size
    off = sum(total[i, j] ** 2 for i in range(5) for j in range(5) if i != j) * BATCH
    diagonal = sum((total[i, i] - 1) ** 2 for i in range(5)) * BATCH
    assert terms["covariance/off_diagonal"] == pytest.approx(off, rel=1e-9)
    assert terms["covariance/diagonal"] == pytest.approx(diagonal, rel=1e-9)
    bound = -terms["log_likelihood/x"] + terms["kl/a"] + terms["kl/b"]
    assert terms["loss"] == pytest.approx(bound + 2 * off + 3 * diagonal, rel=1e-9)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_dip_vaes_gradient_hangs_on_no_draw(kind):
    guide, x = Guide(), data()
    directional_check(DipVae(kind), Model(), guide, x)
    found = []
    for seed in (1, 2):
        pyro.set_rng_seed(seed)
        apart = DipVae(kind, 2.0, 3.0).differentiable_loss(Model(), guide, x)
        pyro.set_rng_seed(seed)
        plain = DipVae(kind, 0.0, 0.0).differentiable_loss(Model(), guide, x)
        found.append(torch.autograd.grad(apart - plain, list(guide.encode.values())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_dip_vae_of_white_codes_is_0():
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

    def pair(scale):
        def site(x):
            with pyro.plate("batch", len(x), dim=-1):
                pyro.sample("z", dist.Normal(x * scale, math.sqrt(1 - scale**2) + 1e-6).to_event(1))

        return site

    for kind, scale in (("I", 1.0), ("II", 0.6)):
        terms = DipVae(kind).terms(pair(0.0), pair(scale), x)
        assert terms["covariance/off_diagonal"] == pytest.approx(0, abs=1e-9)
        assert terms["covariance/diagonal"] == pytest.approx(0, abs=1e-9)


def kernel(name, left, right, squared_width):
    d = sum((a - b) ** 2 for a, b in zip(left, right, strict=True))
    return math.exp(-d / (2 * squared_width)) if name == "rbf" else 2 * squared_width / (2 * squared_width + d)


@pytest.mark.parametrize("name", ["rbf", "imq"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_info_vae_is_the_papers_formula(name, biased, bandwidth, monkeypatch):
    model, guide, x = Model({"b": 2.0}), Guide(), data()
    draws = []
    sample = dist.Independent.sample
    monkeypatch.setattr(dist.Independent, "sample", lambda self, *a: draws.append(sample(self, *a)) or draws[-1])
    objective = InfoVae(0.25, 3.0, name, bandwidth, biased)
    terms = run(objective, model, guide, x)
    codes = np.concatenate([drawn(guide, x)[0][block][0] for block in DIMS], axis=1)
    prior = torch.cat(draws[:2], -1).numpy()
    width = 5.0 if bandwidth is None else bandwidth**2
    value = 0.0
    pairs = [(i, j) for i in range(BATCH) for j in range(BATCH) if biased or i != j]
    for i, j in pairs:
        value += (kernel(name, codes[i], codes[j], width) + kernel(name, prior[i], prior[j], width)) / len(pairs)
    for i in range(BATCH):
        for j in range(BATCH):
            value -= 2 * kernel(name, codes[i], prior[j], width) / BATCH**2
    assert terms["mmd"] == pytest.approx(BATCH * value, rel=1e-9)
    kl = 0.75 * terms["kl/a"] + 1.5 * terms["kl/b"]
    assert terms["loss"] == pytest.approx(-terms["log_likelihood/x"] + kl + 2.25 * terms["mmd"], rel=1e-9)


def sites(mean: float):
    def guide(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.full((3,), mean), 1.0).to_event(1))

    return guide


@pytest.mark.parametrize("name", ["rbf", "imq"])
def test_the_discrepancy_of_equal_distributions_is_0_on_average_and_grows_with_their_distance(name):
    size, x = 100, torch.zeros(100)
    objective = InfoVae(kernel=name)
    equal = [run(objective, sites(0.0), sites(0.0), x, seed)["mmd"] / size for seed in range(40)]
    assert abs(np.mean(equal)) < 4 * np.std(equal) / math.sqrt(40)
    values = [run(objective, sites(0.0), sites(mean), x)["mmd"] / size for mean in (0.5, 1.0, 2.0)]
    assert 0.01 < values[0] < values[1] < values[2]


def test_the_rbf_discrepancy_of_two_normals_is_that_of_the_closed_form():
    # E exp(-d^2 / 2h^2) of d ~ N(m, 2) is sqrt(h^2 / (h^2 + 2)) exp(-m^2 / (2 (h^2 + 2))) in each dimension.
    size, h2, mean = 800, 3.0, 1.0
    value = run(InfoVae(), sites(0.0), sites(mean), torch.zeros(size))["mmd"] / size
    same = (h2 / (h2 + 2)) ** 1.5
    assert value == pytest.approx(2 * same - 2 * same * math.exp(-3 * mean**2 / (2 * (h2 + 2))), abs=0.02)


@pytest.mark.parametrize("objective", [InfoVae(0.5, 3.0), InfoVae(1.0, 3.0, "imq", 0.7, True)])
def test_gradients_of_the_discrepancy(objective):
    directional_check(objective, Model(), Guide(), data())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DipVae("III"), "kind must be 'I' or 'II'; got 'III'"),
        (lambda: DipVae(lambda_od=-1.0), "lambda_od must be a finite number, at least 0"),
        (lambda: DipVae(lambda_d=math.nan), "lambda_d must be a finite number, at least 0"),
        (lambda: InfoVae(alpha=1.5), "alpha must be a finite number, at most 1; got 1.5"),
        (lambda: InfoVae(alpha=-1.0, lambda_=1.0), "lambda_ must be a finite number, at least 1 - alpha = 2; got 1.0"),
        (lambda: InfoVae(kernel="linear"), "kernel must be 'rbf' or 'imq'; got 'linear'"),
        (lambda: InfoVae(bandwidth=0.0), "bandwidth must be a finite number above 0, or None; got 0.0"),
        (lambda: InfoVae(biased=1), "biased must be True or False; got 1"),
    ],
)
def test_parameters_are_checked(make, says):
    with pytest.raises(DeclarationError, match=says):
        make()


def test_a_posterior_without_moments_is_refused():
    class Flow(Guide):
        def posterior(self, name, x):
            return dist.TransformedDistribution(
                super().posterior(name, x), [dist.transforms.AffineTransform(0.0, 2.0, event_dim=1)]
            )

    with pytest.raises(DeclarationError, match="mean and the covariance of block 'a' have no closed form"):
        DipVae().terms(Model(), Flow(), data())


@pytest.mark.parametrize("objective", [DipVae(), InfoVae()])
def test_a_batch_of_one_is_refused(objective):
    with pytest.raises(DataError, match=r"the batch has 1 image \(block 'a' has batch shape \[1\]\)"):
        objective.terms(Model(), Guide(), data(1))
