"""Likelihoods and priors: exact against float64 references, and the laws that every one of them keeps."""

from __future__ import annotations

import copy
import json
import math
import pickle

import mpmath
import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Categorical, MixtureSameFamily, Normal
from scipy.special import expit, log_expit
from torch.distributions import kl_divergence

from infoplace.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Likelihood,
    Prior,
    describe_likelihood,
    describe_prior,
    list_likelihoods,
    list_priors,
    make_likelihood,
    make_prior,
    register_likelihood,
    register_prior,
)
from infoplace.errors import DataError, DeclarationError, UnknownNameError

GREYS = torch.arange(256) / 255


@pytest.fixture(autouse=True)
def _same_draws_every_time():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# ---- references --------------------------------------------------------------------------------------------------------


def log_bin(k: np.ndarray, mean: np.ndarray, scale: np.ndarray, bins: int = 256) -> np.ndarray:
    """Log-probability of bin `k` in float64, as the difference of two log-CDFs taken in the nearer tail."""
    last = bins - 1
    a, b = ((k + 0.5) / last - mean) / scale, ((k - 0.5) / last - mean) / scale
    high, low = np.where(b > 0, -b, a), np.where(b > 0, -a, b)
    inside = log_expit(high) + np.log(-np.expm1(log_expit(low) - log_expit(high)))
    return np.where(k == 0, log_expit(a), np.where(k == last, log_expit(-b), inside))


def log_bin_exact(k: int, mean: float, scale: float, bins: int = 256) -> float:
    """The same with 200 digits, straight from the definition."""
    with mpmath.workdps(200):
        last = mpmath.mpf(bins - 1)

        def cdf(edge):
            return 1 / (1 + mpmath.exp(-(edge / last - mpmath.mpf(mean)) / mpmath.mpf(scale)))

        upper = mpmath.mpf(1) if k == bins - 1 else cdf(k + mpmath.mpf("0.5"))
        lower = mpmath.mpf(0) if k == 0 else cdf(k - mpmath.mpf("0.5"))
        return float(mpmath.log(upper - lower))


def test_the_float64_reference_agrees_with_two_hundred_digits():
    for scale in (0.01, 0.1, 1.0, 10.0):
        for mean in (-0.3, 0.0, 0.5, 1.2):
            for k in (0, 1, 100, 254, 255):
                exact = log_bin_exact(k, mean, scale)
                assert log_bin(np.array(k), np.array(mean), np.array(scale)) == pytest.approx(
                    exact, rel=1e-9, abs=1e-10
                )


# ---- DiscretizedLogistic -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", np.logspace(-4, 1, 26).tolist())
def test_log_prob_is_exact_and_its_gradients_are_finite(scale):
    scale = torch.tensor(scale)
    on_the_grid = torch.tensor([0.0, 0.5 / 255, 1 / 255, 128 / 255, 254.5 / 255, 1.0])
    mean = torch.cat([torch.linspace(-2, 3, 120), on_the_grid])[:, None].requires_grad_()
    scales = scale.expand(len(mean), 1).clone().requires_grad_()
    ours = DiscretizedLogistic(mean, scales).log_prob(GREYS)
    exact = log_bin(np.arange(256.0), mean.detach().double().numpy(), scale.double().numpy())
    error = np.abs(ours.detach().double().numpy() - exact)
    assert (error <= 1e-3 + 4e-7 * np.abs(exact)).all()
    assert (ours.detach().double().exp().sum(-1) - 1).abs().max() < 1e-5
    for gradient in torch.autograd.grad(ours.sum(), (mean, scales)):
        assert gradient.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    mean = torch.linspace(-0.5, 1.5, 9, dtype=torch.float64)[:, None].requires_grad_()
    scale = torch.tensor([0.02, 0.3, 2.0], dtype=torch.float64).requires_grad_()
    for value in (0.0, 1 / 255, 0.6, 1.0):
        grid = torch.tensor(value, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda m, s, x=grid: DiscretizedLogistic(m, s).log_prob(x), (mean, scale))


def test_a_mean_far_from_the_value_is_still_pulled_towards_it():
    mean = torch.tensor([-2.0, 3.0], requires_grad=True)
    DiscretizedLogistic(mean, 1e-3).log_prob(torch.tensor([128 / 255, 128 / 255])).sum().backward()
    assert mean.grad == pytest.approx(torch.tensor([1e3, -1e3]), rel=1e-4)


@pytest.mark.parametrize("bins", [2, 32, 65536])
def test_bins_sets_the_grid(bins):
    values = torch.arange(bins) / (bins - 1)
    grey = DiscretizedLogistic(0.4, 0.2, bins=bins)
    exact = log_bin(np.arange(float(bins)), np.float64(np.float32(0.4)), np.float64(np.float32(0.2)), bins)
    assert grey.log_prob(values).double().numpy() == pytest.approx(exact, abs=1e-4)
    assert grey.support.check(grey.sample((1000,))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_parameters_are_computed_in_float32(dtype):
    mean = torch.linspace(-1, 2, 7).to(dtype).requires_grad_()
    scale = torch.full((7,), 0.01).to(dtype).requires_grad_()
    ours = DiscretizedLogistic(mean, scale).log_prob(GREYS[:, None])
    wide = DiscretizedLogistic(mean.detach().float(), scale.detach().float()).log_prob(GREYS[:, None])
    assert ours.dtype == torch.float32
    assert torch.equal(ours, wide)
    for gradient in torch.autograd.grad(ours.mean(), (mean, scale)):
        assert gradient.isfinite().all()


def test_draws_have_the_distributions_frequencies():
    mean, scale = torch.tensor([-0.05, 0.3, 1.0]), torch.tensor([0.1, 0.004, 0.02])
    draws = DiscretizedLogistic(mean, scale).sample((100_000,))
    for column, m, s in zip(draws.T, mean.double().numpy(), scale.double().numpy(), strict=True):
        counts = torch.bincount((column * 255).round().long(), minlength=256).double().numpy()
        expected = np.exp(log_bin(np.arange(256.0), m, s)) * len(column)
        common = expected > 5
        chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
        assert chi_square < common.sum() + 5 * math.sqrt(2 * common.sum())


def test_mean_and_variance_against_the_sum_over_bins():
    mean = torch.cat([torch.linspace(-2, 3, 101), torch.linspace(0.4, 0.6, 101)])[:, None]
    scale = torch.logspace(-4, 1, 26)
    p = np.exp(log_bin(np.arange(256.0), mean.double().numpy()[..., None], scale.double().numpy()[:, None]))
    values = np.arange(256) / 255
    exact = (p * values).sum(-1)
    variance = (p * (values - exact[..., None]) ** 2).sum(-1)
    grey = DiscretizedLogistic(mean, scale)
    error = np.abs(grey.mean.double().numpy() - exact) * 255
    assert error.max() < 0.5
    assert error[:, scale.numpy() >= 1 / 255].max() < 0.02
    assert grey.variance.double().numpy() == pytest.approx(variance, rel=1e-3, abs=1e-7)


def test_cdf_against_the_logistic():
    grey = DiscretizedLogistic(0.3, 0.05)
    edges = (np.arange(256) + 0.5) / 255
    expected = np.append(expit((edges[:-1] - np.float32(0.3)) / np.float32(0.05)), 1.0)
    assert grey.cdf(GREYS).double().numpy() == pytest.approx(expected, abs=1e-6)
    assert grey.cdf(GREYS) == pytest.approx(grey.log_prob(GREYS).exp().cumsum(0), abs=1e-5)


def test_support_is_the_grid():
    support = DiscretizedLogistic(0.5, 0.1).support
    assert support.is_discrete
    assert support.event_dim == 0
    assert support.check(GREYS).all()
    assert support.check(GREYS.double()).all()
    assert support.check(GREYS.half()).all()
    assert support.check(torch.tensor([0, 1])).all()
    assert not support.check(torch.tensor([math.nan, math.inf, -1 / 255, 256 / 255, 2.0, 255.0, 0.5])).any()


@pytest.mark.parametrize("value", [0.5, 128.0, math.nan, -0.1])
def test_a_value_off_the_grid_raises_under_validation_only(value):
    value = torch.tensor(value)
    with pytest.raises(ValueError, match=r"within the support \(Grid\(k/255 in \[0, 1\]\)\)"):
        DiscretizedLogistic(0.5, 0.1, validate_args=True).log_prob(value)
    DiscretizedLogistic(0.5, 0.1, validate_args=False).log_prob(value)


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="scale"):
        DiscretizedLogistic(0.5, 0.0, validate_args=True)
    with pytest.raises(DeclarationError, match="DiscretizedLogistic: bins must be an integer from 2 to 65536; got 1"):
        DiscretizedLogistic(0.5, 0.1, bins=1)
    with pytest.raises(DeclarationError, match=r"must be \[\.\.\., components\]; got single numbers"):
        DiscretizedLogisticMixture(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0))


# ---- DiscretizedLogisticMixture ----------------------------------------------------------------------------------------


def mixture_parameters(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(*shape, 4), torch.rand(*shape, 4), 0.01 + 0.1 * torch.rand(*shape, 4)


def test_mixture_log_prob_is_the_log_of_the_weighted_sum():
    logits, means, scales = mixture_parameters(6)
    ours = DiscretizedLogisticMixture(logits, means, scales).log_prob(GREYS[:, None])
    weights = logits.double().softmax(-1).numpy()
    p = np.exp(log_bin(np.arange(256.0)[:, None, None], means.double().numpy(), scales.double().numpy()))
    assert ours.double().numpy() == pytest.approx(np.log((weights * p).sum(-1)), abs=1e-4)
    assert ours.exp().sum(0) == pytest.approx(torch.ones(6), abs=1e-5)


def test_mixture_agrees_with_pyros_own():
    logits, means, scales = mixture_parameters(6)
    ours = DiscretizedLogisticMixture(logits, means, scales)
    pyros = MixtureSameFamily(Categorical(logits=logits), DiscretizedLogistic(means, scales))
    assert torch.allclose(ours.log_prob(GREYS[:, None]), pyros.log_prob(GREYS[:, None]), atol=1e-5)
    assert torch.allclose(ours.mean, pyros.mean, atol=1e-6)
    draws = ours.sample((20_000,))
    assert ours.support.check(draws).all()
    assert (draws.mean(0) - pyros.mean).abs().max() < 0.02
    assert (draws.var(0) - pyros.variance).abs().max() < 0.01


def test_mixture_gradients_are_finite_far_from_the_data():
    parameters = [torch.full((256, 4), v, requires_grad=True) for v in (0.0, 3.0, 1e-4)]
    DiscretizedLogisticMixture(*parameters).log_prob(GREYS).sum().backward()
    assert all(p.grad.isfinite().all() for p in parameters)


# ---- what both distributions keep --------------------------------------------------------------------------------------

DISTRIBUTIONS = {
    "logistic": lambda *shape, **kw: DiscretizedLogistic(torch.rand(*shape), 0.1 + torch.rand(*shape), **kw),
    "mixture": lambda *shape, **kw: DiscretizedLogisticMixture(*mixture_parameters(*shape), **kw),
}


@pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
class TestDistributionLaws:
    def test_shapes(self, make):
        grey = make(3, 2)
        assert (grey.batch_shape, grey.event_shape, grey.shape()) == ((3, 2), (), (3, 2))
        assert grey.shape((5,)) == grey.sample((5,)).shape == (5, 3, 2)
        assert grey.log_prob(grey.sample((5,))).shape == (5, 3, 2)
        assert grey.mean.shape == (3, 2)
        assert not grey.has_enumerate_support
        assert not grey.has_rsample

    def test_expand_repeats(self, make):
        grey = make(2)
        wide = grey.expand((4, 3, 2))
        values = grey.sample((4, 3))
        assert type(wide) is type(grey)
        assert wide.batch_shape == (4, 3, 2)
        assert torch.equal(wide.log_prob(values), grey.log_prob(values))
        assert wide.sample().shape == (4, 3, 2)
        assert grey.expand_by((3,)).batch_shape == (3, 2)

    def test_expand_keeps_validation_and_bins(self, make):
        coarse = make(2, bins=4, validate_args=True).expand((3, 2))
        assert torch.isin(coarse.sample((50,)), torch.arange(4) / 3).all()
        with pytest.raises(ValueError, match="support"):
            coarse.log_prob(torch.full((3, 2), 0.5))
        make(2, bins=4, validate_args=False).expand((3, 2)).log_prob(torch.full((3, 2), 0.5))

    def test_to_event_and_mask(self, make):
        grey = make(3, 2)
        value = grey.sample()
        image = grey.to_event(2)
        assert image.event_shape == (3, 2)
        assert image.support.check(value)
        assert torch.allclose(image.log_prob(value), grey.log_prob(value).sum())
        mask = torch.tensor([True, False])
        assert torch.equal(grey.mask(mask).log_prob(value), grey.log_prob(value) * mask)

    def test_float64_is_kept(self, make):
        grey = make(2)
        for name in grey.arg_constraints:
            setattr(grey, name, getattr(grey, name).double())
        assert grey.sample().dtype == grey.log_prob(grey.sample()).dtype == grey.mean.dtype == torch.float64

    def test_copies(self, make):
        grey = make(2)
        value = grey.sample()
        for again in (copy.deepcopy(grey), pickle.loads(pickle.dumps(grey))):
            assert torch.equal(again.log_prob(value), grey.log_prob(value))


# ---- the laws of a likelihood ------------------------------------------------------------------------------------------

LIKELIHOODS = [
    make_likelihood("discretized_logistic"),
    make_likelihood("discretized_logistic", bins=2),
    make_likelihood("discretized_logistic", bins=32),
    make_likelihood("discretized_logistic_mixture"),
    make_likelihood("discretized_logistic_mixture", components=2, bins=16),
    make_likelihood("normal"),
    make_likelihood("normal", scale=0.1),
    make_likelihood("laplace"),
    make_likelihood("laplace", scale=2),
    make_likelihood("bernoulli"),
    make_likelihood("categorical"),
    make_likelihood("categorical", classes=2),
]
SHAPES = [(), (5,), (3, 4, 2)]
LEADS = [(), (2,), (2, 3)]


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=repr)
class TestLikelihoodLaws:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("lead", LEADS, ids=str)
    def test_shapes(self, likelihood, shape, lead):
        k = likelihood.parameters_per_value
        raw_shape = likelihood.raw_shape(shape)
        assert raw_shape == ((k * shape[0], *shape[1:]) if shape else (k,))
        distribution = likelihood(torch.randn(*lead, *raw_shape), shape)
        assert (distribution.batch_shape, distribution.event_shape) == (lead, shape)
        value = distribution.sample()
        assert value.shape == (*lead, *shape)
        assert distribution.log_prob(value).shape == lead
        assert likelihood.point(distribution).shape == (*lead, *shape)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_draws_are_what_it_scores(self, likelihood, shape):
        draws = likelihood(torch.randn(50, *likelihood.raw_shape(shape)), shape).sample()
        likelihood.check(draws, "x")
        assert torch.equal(likelihood.round(draws), draws)

    def test_round_lands_on_what_it_scores_and_stays(self, likelihood):
        x = torch.linspace(-0.2, 1.2, 999)
        if type(likelihood).__name__.startswith("Categorical"):
            x = torch.tensor([0, 1])
        before = x.clone()
        rounded = likelihood.round(x)
        likelihood.check(rounded, "x")
        assert torch.equal(likelihood.round(rounded), rounded)
        assert rounded.dtype == x.dtype
        assert torch.equal(x, before)

    @pytest.mark.parametrize("size", [1.0, 60.0])
    def test_log_prob_and_gradients_are_finite(self, likelihood, size):
        shape = (3, 4, 2)
        values = likelihood(torch.randn(20, *likelihood.raw_shape(shape)), shape).sample()
        raw = (size * torch.randn(20, *likelihood.raw_shape(shape))).requires_grad_()
        log_prob = likelihood(raw, shape).log_prob(values)
        log_prob.sum().backward()
        assert log_prob.isfinite().all()
        assert raw.grad.isfinite().all()

    def test_every_raw_number_matters_to_its_own_value_alone(self, likelihood):
        shape = (3, 2)
        raw = torch.randn(likelihood.raw_shape(shape), requires_grad=True)
        distribution = likelihood(raw, shape)
        value = distribution.sample()
        elements = distribution.base_dist.log_prob(value)
        for row in range(3):
            (gradient,) = torch.autograd.grad(elements[row, 1], raw, retain_graph=True)
            groups = gradient.reshape(likelihood.parameters_per_value, *shape)
            assert (groups[:, row, 1] != 0).all()
            groups[:, row, 1] = 0
            assert (groups == 0).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_raw_is_widened(self, likelihood, dtype):
        raw = torch.randn(4, *likelihood.raw_shape((3,))).to(dtype)
        narrow, wide = likelihood(raw, (3,)), likelihood(raw.float(), (3,))
        value = wide.sample()
        assert torch.equal(narrow.log_prob(value), wide.log_prob(value))

    def test_spec_round_trip(self, likelihood):
        spec = likelihood.to_spec()
        again = make_likelihood(json.loads(json.dumps(spec)))
        assert again == likelihood
        assert hash(again) == hash(likelihood)
        assert pickle.loads(pickle.dumps(likelihood)) == likelihood

    def test_scored_in_a_pyro_plate(self, likelihood):
        shape = (3, 2)
        raw = torch.randn(7, *likelihood.raw_shape(shape))
        values = likelihood(raw, shape).sample()

        def model(observed=None):
            with pyro.plate("images", 7):
                return pyro.sample("x", likelihood(raw, shape), obs=observed)

        site = poutine.trace(model).get_trace(values).nodes["x"]
        assert site["fn"].log_prob(values).shape == (7,)
        assert poutine.trace(model).get_trace(values).log_prob_sum().isfinite()
        assert model().shape == (7, *shape)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_encode_gives_floats_with_a_batch_in_front(self, likelihood, shape):
        x = likelihood(torch.randn(6, *likelihood.raw_shape(shape)), shape).sample()
        features = likelihood.encode(x, shape)
        assert features.is_floating_point()
        assert len(features) == 6

    def test_refuses_raw_of_another_shape(self, likelihood):
        wanted = ", ".join(map(str, likelihood.raw_shape((3, 8, 8))))
        with pytest.raises(
            DataError, match=r"got shape \(2, 3, 8, 7\); let the decoder end in raw_shape\(data_shape\)"
        ):
            likelihood(torch.zeros(2, 3, 8, 7), (3, 8, 8))
        with pytest.raises(DataError, match=rf"needs raw parameters \[\.\.\., {wanted}\]"):
            likelihood(torch.zeros(8), (3, 8, 8))

    def test_refuses_a_data_shape_that_is_none(self, likelihood):
        with pytest.raises(DeclarationError, match=r"a data shape is made of positive integers; got \(3, 0\)"):
            likelihood.raw_shape((3, 0))

    def test_check_refuses_nan_and_what_is_no_tensor(self, likelihood):
        with pytest.raises(DataError, match=r"^x: "):
            likelihood.check(torch.tensor([0.0, math.nan]), "x")
        with pytest.raises(DataError, match=r"x: expected a torch.Tensor; got a list; use torch.as_tensor\(x\)"):
            likelihood.check([0.0], "x")

    def test_check_accepts_an_empty_tensor(self, likelihood):
        x = likelihood(torch.randn(1, *likelihood.raw_shape((3,))), (3,)).sample()
        likelihood.check(x[:0], "x")


# ---- what each likelihood means ----------------------------------------------------------------------------------------


def test_discretized_logistic_starts_mid_grey_with_a_wide_scale():
    element = make_likelihood("discretized_logistic")(torch.zeros(6, 1, 1), (3, 1, 1)).base_dist
    assert element.loc == pytest.approx(torch.full((3, 1, 1), 0.5))
    assert element.scale == pytest.approx(torch.full((3, 1, 1), 0.15))


def test_raw_groups_are_contiguous_means_first():
    raw = torch.arange(12.0).view(4, 3) / 100
    element = make_likelihood("discretized_logistic")(raw, (2, 3)).base_dist
    assert torch.equal(element.loc, raw[:2] + 0.5)
    assert element.scale == pytest.approx(0.15 * raw[2:].exp(), rel=1e-2)


@pytest.mark.parametrize("bins", [2, 256])
@pytest.mark.parametrize("name", ["discretized_logistic", "discretized_logistic_mixture"])
def test_grey_scales_are_bounded(name, bins):
    likelihood = make_likelihood(name, bins=bins)
    for raw, bound in ((-90.0, math.exp(-2) / (bins - 1)), (90.0, 100.0)):
        element = likelihood(torch.full((likelihood.parameters_per_value,), raw), ())
        scale = element.scale if name == "discretized_logistic" else element.scales
        assert scale.log().numpy() == pytest.approx(math.log(bound), abs=1e-3)


def test_mixture_means_start_spread():
    element = make_likelihood("discretized_logistic_mixture", components=4)(torch.zeros(12), ())
    assert element.means == pytest.approx(torch.tensor([1, 3, 5, 7]) / 8)
    assert torch.equal(element.logits, torch.zeros(4))


@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_fixed_and_learned_scales(name):
    fixed = make_likelihood(name, scale=0.25)(torch.tensor([3.0]), ())
    assert (fixed.mean.item(), fixed.scale.item()) == (3.0, 0.25)
    learned = make_likelihood(name)(torch.tensor([[3.0, 0.0], [3.0, 0.5], [3.0, -90.0], [3.0, 90.0]]), ())
    assert torch.equal(learned.mean, torch.full((4,), 3.0))
    assert learned.scale == pytest.approx(torch.tensor([1.0, math.exp(0.5), 1e-3, 1e3]), rel=1e-2)


def test_bernoulli_point_is_the_probability():
    likelihood = make_likelihood("bernoulli")
    assert likelihood.point(likelihood(torch.tensor([2.0]), (1,))) == pytest.approx(torch.tensor([2.0]).sigmoid())


def test_categorical_points_at_the_likeliest_class_and_encodes_one_hot():
    likelihood = make_likelihood("categorical", classes=4)
    logits = torch.randn(6, 4)
    assert torch.equal(likelihood.point(likelihood(logits, ())), logits.argmax(-1))
    grid = torch.randn(6, 4 * 2, 3)
    assert torch.equal(likelihood.point(likelihood(grid, (2, 3))), grid.view(6, 4, 2, 3).argmax(1))
    classes = torch.randint(4, (6, 2, 3))
    features = likelihood.encode(classes, (2, 3))
    assert features.shape == (6, 4, 2, 3)
    assert torch.equal(features.argmax(1), classes)
    assert torch.equal(features.sum(1), torch.ones(6, 2, 3))


def test_float16_greys_are_rounded_and_accepted():
    likelihood = make_likelihood("discretized_logistic")
    likelihood.check(GREYS.half(), "x")
    assert torch.equal(likelihood.round(GREYS.half()), GREYS.half())


CHECK_MESSAGES = [
    (
        "discretized_logistic",
        torch.tensor([0.0, 255.0]),
        "x: values must lie in [0, 1] on the grid k/255; got 0 to 255. Pixels in 0..255? Divide by 255: x.float() / 255",
    ),
    (
        "discretized_logistic",
        torch.tensor([-1.0, 1.0]),
        "x: values must lie in [0, 1] on the grid k/255; got -1 to 1. Values in -1..1? Use (x + 1) / 2",
    ),
    (
        "discretized_logistic",
        torch.tensor([-3.0, 1.0]),
        "x: values must lie in [0, 1] on the grid k/255; got -3 to 1. Clip or rescale: x.clamp(0, 1)",
    ),
    (
        "discretized_logistic",
        torch.tensor([0.0, 0.5, 1.0]),
        "x: values must lie in [0, 1] on the grid k/255; 1 of 3 lie between two grid values, 0.5 for one. "
        "Round them first: (x * 255).round() / 255",
    ),
    (
        "discretized_logistic",
        torch.tensor([0, 255], dtype=torch.uint8),
        "x: discretized_logistic scores floating-point values; got torch.uint8; for pixels in 0..255 use x.float() / 255",
    ),
    (
        "discretized_logistic",
        torch.zeros(2, dtype=torch.bfloat16),
        "x: torch.bfloat16 is too coarse to tell 256 grey values apart; keep the data in torch.float32",
    ),
    (
        "discretized_logistic",
        torch.tensor([0.0, math.nan]),
        "x: 1 of 2 values are NaN or infinite; every value must be finite; torch.nan_to_num(x) replaces them",
    ),
    (
        "normal",
        torch.tensor([0.0, math.inf]),
        "x: 1 of 2 values are NaN or infinite; every value must be finite; torch.nan_to_num(x) replaces them",
    ),
    ("laplace", torch.tensor([1]), "x: laplace scores floating-point values; got torch.int64; use x.float()"),
    (
        "bernoulli",
        torch.tensor([0.0, 0.3]),
        "x: bernoulli scores the values 0 and 1 only; got values from 0 to 0.3. Round values in [0, 1] with "
        "(x >= 0.5).float(), or score grey values with likelihood='discretized_logistic'",
    ),
    ("categorical", torch.tensor([1.0]), "x: categorical scores integer classes; got torch.float32; use x.long()"),
    (
        "categorical",
        torch.tensor([0, 11]),
        "x: classes must lie in 0..9; got 0 to 11; say how many there are: {'categorical': {'classes': 12}}",
    ),
    ("categorical", torch.tensor([-1, 4]), "x: classes must lie in 0..9; got -1 to 4; number them from 0"),
]


@pytest.mark.parametrize(("name", "x", "message"), CHECK_MESSAGES, ids=lambda v: None if isinstance(v, str) else "")
def test_check_says_what_to_type_instead(name, x, message):
    with pytest.raises(DataError) as caught:
        make_likelihood(name).check(x, "x")
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["discretized_logistic", "bernoulli"])
def test_round_refuses_integers(name):
    with pytest.raises(DataError, match=r"scores floating-point values; got torch\.uint8"):
        make_likelihood(name).round(torch.zeros(2, dtype=torch.uint8))


PARAMETER_MESSAGES = [
    (make_likelihood, "discretized_logistic", {"bins": 1}, "bins must be an integer from 2 to 65536; got 1"),
    (make_likelihood, "discretized_logistic", {"bins": 256.0}, "bins must be an integer from 2 to 65536; got 256.0"),
    (
        make_likelihood,
        "discretized_logistic_mixture",
        {"components": 1},
        "components must be an integer of at least 2; got 1; for one component use 'discretized_logistic'",
    ),
    (make_likelihood, "discretized_logistic_mixture", {"bins": 1}, "bins must be an integer from 2 to 65536; got 1"),
    (
        make_likelihood,
        "normal",
        {"scale": 0},
        "scale must be a number above 0, or None to learn one for every value; got 0",
    ),
    (
        make_likelihood,
        "laplace",
        {"scale": "wide"},
        "scale must be a number above 0, or None to learn one for every value; got 'wide'",
    ),
    (make_likelihood, "categorical", {"classes": True}, "classes must be an integer of at least 2; got True"),
    (
        make_prior,
        "mixture",
        {"components": 1},
        "components must be an integer of at least 2; got 1; for one normal use 'standard_normal'",
    ),
]


@pytest.mark.parametrize(("make", "name", "parameters", "message"), PARAMETER_MESSAGES)
def test_parameters_are_checked(make, name, parameters, message):
    with pytest.raises(DeclarationError) as caught:
        make(name, **parameters)
    assert str(caught.value) == f"{name}: {message}"


# ---- priors ------------------------------------------------------------------------------------------------------------

PRIORS = [make_prior("standard_normal"), make_prior("mixture"), make_prior("mixture", components=2)]


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
class TestPriorLaws:
    @pytest.mark.parametrize("dim", [1, 7])
    def test_shapes(self, prior, dim):
        distribution = prior.build(dim)()
        assert (distribution.batch_shape, distribution.event_shape) == ((), (dim,))
        draws = distribution.sample((5,))
        assert draws.shape == (5, dim)
        assert distribution.log_prob(draws).shape == (5,)
        assert distribution.expand((4,)).sample().shape == (4, dim)

    def test_starts_with_about_unit_variance(self, prior):
        draws = prior.build(200)().sample((2000,))
        assert draws.var().item() == pytest.approx(1, abs=0.25)
        assert draws.mean().item() == pytest.approx(0, abs=0.1)

    def test_follows_its_module(self, prior):
        module = prior.build(3).double()
        assert module().sample().dtype == torch.float64
        assert copy.deepcopy(module)().event_shape == (3,)

    def test_state_round_trip(self, prior):
        module, other = prior.build(3), prior.build(3)
        other.load_state_dict(module.state_dict())
        z = torch.randn(4, 3)
        assert torch.equal(module().log_prob(z), other().log_prob(z))

    def test_every_parameter_learns(self, prior):
        module = prior.build(3)
        z = (3 * torch.randn(50, 3)).requires_grad_()
        module().log_prob(z).sum().backward()
        assert z.grad.isfinite().all()
        assert all((p.grad.isfinite() & (p.grad != 0)).all() for p in module.parameters())

    def test_in_a_pyro_plate(self, prior):
        module = prior.build(3)

        def model():
            with pyro.plate("batch", 6):
                return pyro.sample("z", module())

        trace = poutine.trace(model).get_trace()
        trace.compute_log_prob()
        assert trace.nodes["z"]["log_prob"].shape == (6,)

    def test_spec_round_trip(self, prior):
        assert make_prior(json.loads(json.dumps(prior.to_spec()))) == prior

    @pytest.mark.parametrize("dim", [0, 2.0, True])
    def test_refuses_a_dim_that_is_none(self, prior, dim):
        with pytest.raises(DeclarationError, match="a block's dim must be a positive integer; got"):
            prior.build(dim)


def test_standard_normal_has_the_analytic_divergence_and_no_parameters():
    module = make_prior("standard_normal").build(5)
    mean, scale = torch.randn(4, 5), 0.1 + torch.rand(4, 5)
    expected = (0.5 * (mean**2 + scale**2 - 1) - scale.log()).sum(-1)
    assert torch.allclose(kl_divergence(Normal(mean, scale).to_event(1), module()), expected, atol=1e-5)
    assert not list(module.parameters())
    assert not module.state_dict()


def test_mixture_prior_is_the_weighted_sum_of_its_components():
    module = make_prior("mixture", components=3).build(2)
    with torch.no_grad():
        module.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
    z = torch.randn(10, 2)
    components = module().component_distribution
    p = components.log_prob(z[:, None]).double().exp() * module.logits.detach().double().softmax(0)
    assert torch.allclose(module().log_prob(z).double(), p.sum(-1).log(), atol=1e-5)


@pytest.mark.parametrize(("raw", "bound"), [(-100.0, 0.01), (100.0, 100.0)])
def test_mixture_prior_scales_are_bounded(raw, bound):
    module = make_prior("mixture").build(2)
    with torch.no_grad():
        module.raw_scales.fill_(raw)
    assert module().component_distribution.stddev.log().detach().numpy() == pytest.approx(math.log(bound), abs=1e-3)


# ---- the registries ----------------------------------------------------------------------------------------------------


def test_stock_names():
    stock = {"bernoulli", "categorical", "discretized_logistic", "discretized_logistic_mixture", "laplace", "normal"}
    assert stock <= set(list_likelihoods())
    assert {"mixture", "standard_normal"} <= set(list_priors())


def test_unknown_names_and_parameters_say_what_was_meant():
    with pytest.raises(UnknownNameError, match=r"no likelihood named 'gaussian'\. Known: .*normal"):
        make_likelihood("gaussian")
    with pytest.raises(UnknownNameError, match=r"no prior named 'standardnormal'\. Did you mean 'standard_normal'\?"):
        make_prior("standardnormal")
    with pytest.raises(DeclarationError, match=r"normal has no parameter 'scales'\. Did you mean 'scale'\?"):
        make_likelihood("normal", scales=1.0)


def test_describe_names_parameters():
    assert "components: int = 5" in str(describe_likelihood("discretized_logistic_mixture"))
    assert "components: int = 10" in str(describe_prior("mixture"))


def test_own_kinds_are_registered_like_the_stock_ones(monkeypatch):
    # A fresh registry behind the same functions, so that nothing stays behind.
    from infoplace.distributions import likelihoods, priors

    monkeypatch.setattr(likelihoods, "_likelihoods", copy.deepcopy(likelihoods._likelihoods))
    monkeypatch.setattr(priors, "_priors", copy.deepcopy(priors._priors))

    @register_likelihood("unit_normal")
    class UnitNormal(Likelihood):
        """Normal with unit scale."""

        parameters_per_value = 1

        def distribution(self, raw, dim):
            return Normal(raw.squeeze(dim), 1.0)

    @register_prior("wide")
    class Wide(Prior):
        """A wide normal."""

        def build(self, dim):
            return make_prior("standard_normal").build(dim)

    assert make_likelihood("unit_normal")(torch.zeros(4, 3), (3,)).event_shape == (3,)
    assert make_prior("wide").build(2)().event_shape == (2,)
    assert register_likelihood("normal", scale=0.5).to_spec() == make_likelihood("normal").to_spec()
    assert register_prior("mixture", components=4, alias="four") == make_prior("four")
    assert make_prior("mixture").to_spec()["mixture"]["components"] == 10
    with pytest.raises(DeclarationError, match="got an implementation and parameters at once"):
        register_prior("wide", Wide, components=3)
    with pytest.raises(DeclarationError, match=r"needs a class derived from infoplace\.Likelihood"):
        register_likelihood("broken", Wide)


@pytest.mark.parametrize(
    "call", [lambda: Likelihood().parameters_per_value, lambda: Likelihood().distribution(None, -1)]
)
def test_a_bare_likelihood_says_what_is_missing(call):
    with pytest.raises(NotImplementedError, match="Likelihood defines no"):
        call()


def test_a_bare_prior_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="Prior defines no build"):
        Prior().build(3)
