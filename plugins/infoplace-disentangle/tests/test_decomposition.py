"""beta-TCVAE and HFVAE: against the papers' formulas in loops, closed forms of Gaussian codes, and the ELBO."""

from __future__ import annotations

import itertools
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
    normal_log_density,
    run,
)
from infoplace import make_objective
from infoplace.errors import DataError, DeclarationError

from infoplace_disentangle import BetaTcvae, Hfvae

N = 50
ESTIMATORS = ["weighted", "stratified", "averaged"]


def weight(estimator: str, i: int, j: int, batch: int, size: int) -> float:
    """How much image j counts in the estimate for image i, as the papers say it."""
    if estimator == "weighted":
        return 1 / (size * batch)
    others = batch - 1
    if i == j:
        return 1 / size
    if estimator == "averaged":
        return (size - 1) / (size * others)
    return (size - others) / (size * others) if j == (i + 1) % batch else 1 / others


def logs(codes: dict, estimator: str, size: int) -> dict[str, np.ndarray]:
    """log q(z|x), log q(z), log q(z_b) and log q(z_bj) of every image, one at a time."""
    batch = len(codes["a"][0])
    q_x, q, blocks, dims = np.zeros(batch), np.zeros(batch), np.zeros((batch, 2)), np.zeros((batch, 2, 3))
    prior = np.zeros(batch)
    for i in range(batch):
        total = 0.0
        per_block, per_dim = [0.0, 0.0], np.zeros((2, 3))
        for j in range(batch):
            w = weight(estimator, i, j, batch, size)
            product = 1.0
            for b, name in enumerate(DIMS):
                z, mean, scale = codes[name]
                block = 1.0
                for d in range(DIMS[name]):
                    density = math.exp(normal_log_density(z[i, d], mean[j, d], scale[j, d]))
                    block *= density
                    per_dim[b, d] += w * density
                per_block[b] += w * block
                product *= block
            total += w * product
            if i == j:
                q_x[i] = math.log(product)
        q[i] = math.log(total)
        for b, name in enumerate(DIMS):
            blocks[i, b] = math.log(per_block[b])
            for d in range(DIMS[name]):
                dims[i, b, d] = math.log(per_dim[b, d])
                prior[i] += normal_log_density(codes[name][0][i, d], 0.0, 1.5)
    return {"q_x": q_x, "q": q, "blocks": blocks, "dims": dims, "prior": prior}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("particles", "vectorised"), [(1, False), (3, False), (3, True)])
def test_beta_tcvae_is_the_papers_formula(estimator, particles, vectorised):
    model, guide, x = Model(), Guide(), data()
    objective = BetaTcvae(
        N, 0.5, 7.0, 1.5, estimator, num_particles=particles, vectorize_particles=vectorised, kl="sampled"
    )
    terms = run(objective, model, guide, x)
    runs = [logs(codes, estimator, N) for codes in drawn(guide, x, particles=particles, vectorised=vectorised)]
    expected = {
        "index_code_mi": sum((one["q_x"] - one["q"]).sum() for one in runs) / particles,
        "total_correlation": sum(one["q"].sum() - one["dims"].sum() for one in runs) / particles,
        "dimension_wise_kl": sum(one["dims"].sum() - one["prior"].sum() for one in runs) / particles,
    }
    for name, value in expected.items():
        assert terms[name] == pytest.approx(value, rel=1e-9), name
    weighed = 0.5 * expected["index_code_mi"] + 7 * expected["total_correlation"] + 1.5 * expected["dimension_wise_kl"]
    assert terms["loss"] == pytest.approx(weighed - terms["log_likelihood/x"], rel=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_hfvae_is_the_papers_formula(estimator):
    model, guide, x = Model(), Guide(), data()
    objective = Hfvae(N, 0.5, 7.0, {"a": 3.0}, estimator, kl="sampled")
    terms = run(objective, model, guide, x)
    one = logs(drawn(guide, x)[0], estimator, N)
    expected = {
        "index_code_mi": (one["q_x"] - one["q"]).sum(),
        "total_correlation": one["q"].sum() - one["blocks"].sum(),
        "total_correlation/a": one["blocks"][:, 0].sum() - one["dims"][:, 0].sum(),
        "total_correlation/b": one["blocks"][:, 1].sum() - one["dims"][:, 1].sum(),
        "dimension_wise_kl": one["dims"].sum() - one["prior"].sum(),
    }
    for name, value in expected.items():
        assert terms[name] == pytest.approx(value, rel=1e-9), name
    weighed = sum(w * v for w, v in zip([0.5, 7.0, 3.0, 1.0, 1.0], expected.values(), strict=True))
    assert terms["loss"] == pytest.approx(weighed - terms["log_likelihood/x"], rel=1e-9)


@pytest.mark.parametrize("estimator", ["stratified", "averaged"])
def test_these_estimates_of_the_aggregated_posterior_are_unbiased(estimator):
    size, batch = 5, 3
    densities = np.random.default_rng(0).random(size)  # q(z | x_n) of one z that was drawn for image 0
    estimates = []
    for others in itertools.permutations(range(1, size), batch - 1):
        order = [0, *others]
        estimates.append(sum(weight(estimator, 0, j, batch, size) * densities[n] for j, n in enumerate(order)))
    assert np.mean(estimates) == pytest.approx(densities.mean(), rel=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("kind", [BetaTcvae, Hfvae])
def test_with_every_weight_at_1_it_is_the_elbo(estimator, kl, kind):
    model, guide, x = Model({"a": 2.0, "b": 3.0}), Guide("correlated"), data()
    options = {"beta": 1.0, "estimator": estimator, "kl": kl}
    losses = [make_objective("elbo", kl=kl), kind(N, **options)]
    found = []
    for objective in losses:
        pyro.set_rng_seed(7)
        loss = objective.differentiable_loss(model, guide, x)
        found.append((loss, *torch.autograd.grad(loss, list(guide.encode.values()))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_gaussian_codes_have_the_total_correlation_and_the_information_of_the_closed_form():
    size, noise = 800, 0.5
    mixing = torch.tensor([[1.0, 0.6], [0.0, 0.8]])

    class Codes(torch.nn.Module):
        def forward(self, x):
            with pyro.plate("batch", len(x), dim=-1):
                pyro.sample("z", dist.Normal(x @ mixing, noise).to_event(1))

    def model(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    x = torch.randn(size, 2)
    terms = run(BetaTcvae(size, estimator="averaged"), model, Codes(), x)
    covariance = mixing.T @ mixing + noise**2 * torch.eye(2)
    correlation = 0.5 * float(covariance.diag().log().sum() - covariance.logdet())
    information = 0.5 * float(covariance.logdet() - 2 * math.log(noise**2))
    assert terms["total_correlation"] / size == pytest.approx(correlation, abs=0.05)
    assert terms["index_code_mi"] / size == pytest.approx(information, abs=0.08)


def test_weighted_values_hold_the_constants_that_the_docstring_names():
    model, guide, x = Model(), Guide(), data()
    weighted = run(BetaTcvae(N, estimator="weighted"), model, guide, x)
    # With N images in a batch of N, `averaged` is the batch's mean density.
    plain = run(BetaTcvae(BATCH, estimator="averaged"), model, guide, x)
    constant = BATCH * math.log(N)
    assert weighted["index_code_mi"] == pytest.approx(plain["index_code_mi"] + constant)
    assert weighted["total_correlation"] == pytest.approx(plain["total_correlation"] + 4 * constant)


@pytest.mark.parametrize("kind", ["independent", "correlated"])
@pytest.mark.parametrize("objective", [BetaTcvae(N, 0.5, 7.0, 1.5), Hfvae(N, 0.5, 7.0, {"a": 3.0})])
def test_gradients(objective, kind):
    directional_check(objective, Model(), Guide(kind), data())


def test_a_multivariate_normal_posterior_without_correlation_is_an_independent_one():
    model, x = Model(), data()
    terms = [run(Hfvae(N, kl="sampled"), model, Guide(kind), x) for kind in ("independent", "diagonal")]
    assert terms[0] == pytest.approx(terms[1], rel=1e-9)


def test_a_correlated_posterior_is_scored_jointly_and_by_its_marginals():
    model, guide, x = Model(), Guide("correlated"), data()
    terms = run(Hfvae(N, estimator="averaged", blocks=["b"]), model, guide, x)
    z, mean, scale = drawn(guide, x)[0]["b"]
    covariance = guide.posterior("b", x).covariance_matrix.detach().numpy()
    value = 0.0
    for i in range(BATCH):
        joint, single = 0.0, np.zeros(3)
        for j in range(BATCH):
            gap, w = z[i] - mean[j], weight("averaged", i, j, BATCH, N)
            density = math.exp(-0.5 * gap @ np.linalg.solve(covariance[j], gap))
            joint += w * density / math.sqrt((2 * math.pi) ** 3 * np.linalg.det(covariance[j]))
            for d in range(3):
                single[d] += w * math.exp(normal_log_density(z[i, d], mean[j, d], scale[j, d]))
        value += math.log(joint) - np.log(single).sum()
    assert terms["total_correlation/b"] == pytest.approx(value, rel=1e-9)


def test_the_smallest_beta_multiplies_the_terms_and_the_rest_weighs_a_blocks_own_kl():
    model, guide, x = Model({"a": 2.0, "b": 3.0}), Guide(), data()
    terms = run(BetaTcvae(N, 0.5, 7.0, 1.5), model, guide, x)
    parts = 0.5 * terms["index_code_mi"] + 7 * terms["total_correlation"] + 1.5 * terms["dimension_wise_kl"]
    assert terms["loss"] == pytest.approx(-terms["log_likelihood/x"] + 2 * parts + terms["kl/b"], rel=1e-9)


def test_blocks_that_are_left_out_count_as_in_the_elbo():
    model, guide, x = Model({"b": 3.0}), Guide(), data()
    terms = run(BetaTcvae(N, 1.0, 7.0, 1.0, blocks=["a"]), model, guide, x)
    expected = -terms["log_likelihood/x"] + terms["kl/a"] + 6 * terms["total_correlation"] + 3 * terms["kl/b"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-9)


def test_a_scaled_plate_scales_every_term():
    x = data()
    once, twice = (run(Hfvae(N), Model(scale=s), Guide(scale=s), x) for s in (1.0, 2.5))
    assert twice == pytest.approx({name: 2.5 * value for name, value in once.items()}, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: BetaTcvae(1), DeclarationError, "dataset_size must be an integer, at least 2; got 1"),
        (lambda: BetaTcvae(True), DeclarationError, "dataset_size must be an integer"),
        (lambda: BetaTcvae(9, beta=-1.0), DeclarationError, "beta must be a finite number, at least 0; got -1.0"),
        (lambda: BetaTcvae(9, estimator="exact"), DeclarationError, "one of 'weighted', 'stratified', 'averaged'"),
        (lambda: Hfvae(9, gamma={}), DeclarationError, "gamma must be a number or a dict of at least one block"),
    ],
)
def test_parameters_are_checked(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_a_dataset_smaller_than_the_batch_is_refused():
    with pytest.raises(DataError, match="the batch has 6 images and dataset_size is 5; say of how many"):
        BetaTcvae(5).terms(Model(), Guide(), data())


def test_a_block_of_beta_0_is_refused():
    with pytest.raises(DeclarationError, match=r"the beta of block 'b' is 0.*leave the block out"):
        BetaTcvae(N).terms(Model({"b": 0.0}), Guide(), data())


def test_gammas_of_unknown_blocks_are_refused():
    with pytest.raises(DeclarationError, match=r"gamma names 'bb', which is no block taken apart\. Did you mean 'b'"):
        Hfvae(N, gamma={"bb": 2.0}).terms(Model(), Guide(), data())


def test_a_posterior_without_marginals_in_closed_form_is_refused():
    class Flow(Guide):
        def posterior(self, name, x):
            return dist.TransformedDistribution(
                super().posterior(name, x), [dist.transforms.AffineTransform(0.0, 2.0, event_dim=1)]
            )

    with pytest.raises(
        DeclarationError, match="block 'a' has no closed form, as its posterior is TransformedDistribution"
    ):
        BetaTcvae(N).terms(Model(), Flow(), data())


def test_auxiliary_sites_are_refused():
    def guide(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            for name, size in DIMS.items():
                pyro.sample(name, dist.Normal(torch.zeros(size), 1.0).to_event(1))

    with pytest.raises(DeclarationError, match=r"through auxiliary sites \('u'\)"):
        BetaTcvae(N).terms(Model(), guide, data())
