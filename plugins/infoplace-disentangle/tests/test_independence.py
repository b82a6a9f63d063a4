"""HSIC and CLUB: against the papers' formulas in loops, closed forms, and by what they tell apart."""

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

from infoplace_disentangle import Club, Hsic


def gram(codes: np.ndarray) -> np.ndarray:
    count = len(codes)
    distances = np.array([[math.dist(codes[i], codes[j]) for j in range(count)] for i in range(count)])
    between = sorted(distances[i, j] for i in range(count) for j in range(i))
    bandwidth = between[(len(between) - 1) // 2]
    return np.exp(-(distances**2) / (2 * bandwidth**2))


def hsic(k: np.ndarray, l: np.ndarray, biased: bool) -> float:  # noqa: E741 (the paper's name)
    m = len(k)
    if biased:
        h = np.eye(m) - 1 / m
        return np.trace(k @ h @ l @ h) / (m - 1) ** 2
    k, l = k - np.eye(m), l - np.eye(m)  # noqa: E741
    ones = np.ones(m)
    whole = ones @ k @ ones * (ones @ l @ ones) / ((m - 1) * (m - 2))
    return (np.trace(k @ l) + whole - 2 / (m - 2) * (ones @ k @ l @ ones)) / (m * (m - 3))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("particles", "vectorised"), [(1, False), (2, True)])
def test_hsic_is_the_papers_formula(biased, particles, vectorised):
    model, guide, x = Model(), Guide(), data()
    objective = Hsic(biased=biased, num_particles=particles, vectorize_particles=vectorised)
    terms = run(objective, model, guide, x)
    runs = drawn(guide, x, particles=particles, vectorised=vectorised)
    value = np.mean([hsic(gram(one["a"][0]), gram(one["b"][0]), biased) for one in runs])
    assert list(terms) == ["hsic/a/b", "loss"]
    assert terms["hsic/a/b"] == pytest.approx(BATCH * value, rel=1e-9)
    assert terms["loss"] == pytest.approx(terms["hsic/a/b"])


def test_the_unbiased_estimate_is_the_mean_over_four_different_images():
    # HSIC = E k(1,2) l(1,2) + E k(1,2) l(3,4) - 2 E k(1,2) l(1,3), as a mean over all images that differ.
    import itertools

    rng = np.random.default_rng(0)
    k, l = (gram(rng.standard_normal((6, 2))) for _ in range(2))  # noqa: E741
    fours = list(itertools.permutations(range(6), 4))
    value = np.mean([k[a, b] * l[a, b] + k[a, b] * l[c, d] - 2 * k[a, b] * l[a, c] for a, b, c, d in fours])
    assert hsic(k, l, biased=False) == pytest.approx(value, rel=1e-9)


def shared(mixing: float):
    """Two blocks of one dimension each, standard normals of that correlation."""

    def guide(x):
        with pyro.plate("batch", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("b", dist.Normal(mixing * a, math.sqrt(1 - mixing**2)).to_event(1))

    return guide


def test_hsic_tells_dependent_blocks_from_independent_ones():
    x, seeds = torch.zeros(64), range(30)
    values = {rho: [run(Hsic(), shared(0.0), shared(rho), x, s)["loss"] / 64 for s in seeds] for rho in (0.0, 0.5, 0.9)}
    spread = np.std(values[0.0]) / math.sqrt(len(seeds))
    assert abs(np.mean(values[0.0])) < 4 * spread
    assert np.mean(values[0.5]) > 10 * spread
    assert np.mean(values[0.9]) > 2 * np.mean(values[0.5])
    assert 0.05 < np.mean([run(Hsic(), shared(0.0), shared(0.9999), x, s)["loss"] / 64 for s in seeds]) < 0.15


def test_hsic_is_the_same_for_codes_of_any_scale():
    guide, x = Guide(), data(12)

    def scaled(x):
        with pyro.plate("batch", len(x), dim=-1):
            for name in DIMS:
                q = guide.posterior(name, x).base_dist
                pyro.sample(name, dist.Normal(10 * q.loc, 10 * q.scale).to_event(1))

    once, tenfold = (run(Hsic(), Model(), one, x)["loss"] for one in (guide, scaled))
    assert once == pytest.approx(tenfold, rel=1e-9)


@pytest.mark.parametrize("make", [Hsic, lambda: Hsic(biased=True), lambda: Club(["a", "b"], [2, 3], 8)])
def test_gradients(make):
    directional_check(make(), Model(), Guide(), data())


def test_club_is_the_papers_formula():
    model, guide, x = Model(), Guide(), data()
    objective = Club(["b", "a"], [3, 2], width=8, layers=1)
    terms = run(objective, model, guide, x)
    codes = drawn(guide, x)[0]
    given, said = codes["b"][0], codes["a"][0]
    w1, b1, w2, b2 = (one.detach().numpy() for one in objective.module.parameters())

    def log_density(code: np.ndarray, at: np.ndarray) -> float:
        hidden = w1 @ at + b1
        out = w2 @ np.where(hidden > 0, hidden, 0.2 * hidden) + b2
        value = 0.0
        for d in range(2):
            log_variance = 10 * math.tanh(out[2 + d] / 10)
            value -= 0.5 * ((code[d] - out[d]) ** 2 / math.exp(log_variance) + log_variance + math.log(2 * math.pi))
        return value

    matched = sum(log_density(said[i], given[i]) for i in range(BATCH)) / BATCH
    crossed = sum(log_density(said[j], given[i]) for i in range(BATCH) for j in range(BATCH)) / BATCH**2
    assert terms["club/b/a"] == pytest.approx(BATCH * (matched - crossed), rel=1e-9)
    assert terms["club_fit/b/a"] == pytest.approx(-BATCH * matched, rel=1e-9)
    assert terms["loss"] == pytest.approx(terms["club/b/a"])


def test_clubs_fit_sends_no_gradient_into_the_guide_and_its_bound_none_into_the_network():
    guide, x = Guide(), data()
    objective = Club(["a", "b"], [2, 3], 8)
    weights = list(objective.module.parameters())
    pyro.set_rng_seed(7)
    ours = torch.autograd.grad(objective.differentiable_loss(Model(), guide, x), weights)
    codes = {name: torch.from_numpy(one[0]) for name, one in drawn(guide, x)[0].items()}
    mean, log_variance = objective.module(codes["a"]).chunk(2, -1)
    q = torch.distributions.Normal(mean, (5 * torch.tanh(log_variance / 10)).exp())
    theirs = torch.autograd.grad(-q.log_prob(codes["b"]).sum(), weights)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_club_approaches_the_closed_form_of_correlated_normals_and_bounds_their_information():
    # With the true conditional, the bound on two normals of correlation r is r^2 / (1 - r^2).
    rho, x = 0.7, torch.zeros(96)
    objective = Club(["a", "b"], [1, 1], 16, 1)
    optimiser = torch.optim.Adam(objective.module.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        objective.differentiable_loss(shared(0.0), shared(rho), x).backward()
        optimiser.step()
    bound = np.mean([run(objective, shared(0.0), shared(rho), x, seed)["club/a/b"] for seed in range(40)]) / 96
    assert bound == pytest.approx(rho**2 / (1 - rho**2), abs=0.12)
    assert bound > -0.5 * math.log(1 - rho**2)
    apart = np.mean([run(objective, shared(0.0), shared(0.0), x, seed)["club/a/b"] for seed in range(40)]) / 96
    assert abs(apart) < 0.1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Hsic(["a"]), r"blocks must be at least two blocks' names; got \['a'\]"),
        (lambda: Hsic(["a", "a"]), "blocks must be a list of different blocks' names, or None for all"),
        (lambda: Hsic("ab"), "blocks must be a list of different blocks' names"),
        (lambda: Hsic(biased=0), "biased must be True or False; got 0"),
        (lambda: Club(["a"], [2, 3]), r"blocks must be two blocks' names, as \['z_g', 'z_l'\]"),
        (lambda: Club(["a", "b"], 5), "dims must be the two blocks' numbers of dimensions"),
        (lambda: Club(["a", "b"], [2, 0]), r"dims\[1\] must be an integer, at least 1; got 0"),
        (lambda: Club(["a", "b"], [2, 3], width=0), "width must be an integer, at least 1"),
        (lambda: Club(["a", "b"], [2, 3], layers=0), "layers must be an integer, at least 1"),
    ],
)
def test_parameters_are_checked(make, says):
    with pytest.raises(DeclarationError, match=says):
        make()


@pytest.mark.parametrize(("biased", "count"), [(True, 1), (False, 3)])
def test_too_few_images_are_refused(biased, count):
    with pytest.raises(DataError, match=f"the batch has {count} image"):
        Hsic(biased=biased).terms(Model(), Guide(), data(count))


def test_one_block_alone_is_refused():
    def one(x):
        with pyro.plate("batch", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(DeclarationError, match="it compares two blocks, and 'z' is the only one"):
        Hsic().terms(one, one, torch.zeros(5))


def test_club_refuses_blocks_of_another_size_and_a_batch_of_one():
    with pytest.raises(
        DeclarationError, match=r"dims=\[3, 2\], and the blocks 'a', 'b' have 2 and 3 dimensions; say dims"
    ):
        Club(["a", "b"], [3, 2]).terms(Model(), Guide(), data())
    with pytest.raises(DataError, match="the batch has 1 image"):
        Club(["a", "b"], [2, 3]).terms(Model(), Guide(), data(1))
