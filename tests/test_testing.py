"""The laws: each catches the faults planted for it, and all stock things, and some unusual ones without a fault, keep them."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any, ClassVar

import planted_faults as planted
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.distributions import constraints

import infoplace as ip
from infoplace import testing
from infoplace.distributions import Likelihood, Prior
from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.objectives import Objective
from infoplace.testing import (
    LawError,
    LikelihoodLaws,
    ObjectiveLaws,
    PairLaws,
    PriorLaws,
    TransformLaws,
    check_likelihood,
    check_objective,
    check_pair,
    check_prior,
    check_transform,
    laws,
    statistics,
    watching,
)
from infoplace.transforms import Transform

pytest_plugins = ["pytester"]

KINDS = {
    "transform": testing.transforms._LAWS,
    "likelihood": testing.likelihoods._LAWS,
    "prior": testing.priors._LAWS,
    "objective": testing.objectives._LAWS,
    "pair": testing.pairs._LAWS,
}
ON_A_GPU = "cpu_and_cuda_agree"


# ---- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", planted.FAULTS)
def test_a_fault_is_caught_by_its_law(name: str) -> None:
    law, thunk = planted.FAULTS[name]
    with pytest.raises(LawError) as error:
        thunk()
    assert error.value.law == law, str(error.value)
    assert f"breaks the law '{law}': " in str(error.value)
    # What was seen; what to do. An error that was raised on the way says the latter itself.
    assert "; " in error.value.seen or error.value.seen.startswith("trying it raised ")
    assert not str(error.value).endswith(".")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", planted.CUDA_FAULTS)
def test_a_fault_that_shows_on_a_gpu_is_caught_there(name: str) -> None:
    law, thunk = planted.CUDA_FAULTS[name]
    with pytest.raises(LawError) as error:
        thunk()
    assert error.value.law == law, str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_law_has_a_fault_that_it_catches(kind: str) -> None:
    caught = {law for name, (law, _) in (planted.FAULTS | planted.CUDA_FAULTS).items() if name.startswith(f"{kind}: ")}
    assert caught == set(KINDS[kind].names)


def test_faults_leave_the_registries_as_they_were() -> None:
    listed = [
        *ip.list_transforms(),
        *ip.list_likelihoods(),
        *ip.list_priors(),
        *ip.list_objectives(),
        *ip.list_networks(),
    ]
    assert not [name for name in listed if name.startswith("planted_")]


# ---- stock things ----------------------------------------------------------------------------------------------------


class TestStockTransforms(TransformLaws):
    specs: ClassVar = [
        "identity",
        {"patch_shuffle": {"n": 8}},
        {"patch_shuffle": {"n": 8, "dims": 1}},
        "histogram",
        "grayscale",
        {"grayscale": {"channels": 1}},
        {"blur": {"sigma": 1.0}},
        "posterize",
        "downsample",
        "edges",
        "noise",
        "mask",
        "cover",
        {"cover": {"width": 0.4, "height": 1, "outside": True}},
        "rotate90",
        "channel_shuffle",
        "jitter",
        "affine",
        {"compose": {"transforms": ["grayscale", {"patch_shuffle": {"n": 4}}]}},
        ["jitter", ["edges", "noise"], {"mask": {"n": 4}}],
    ]


class TestStockLikelihoods(LikelihoodLaws):
    shape = (2, 3, 2)
    specs: ClassVar = [
        "bernoulli",
        "normal",
        {"normal": {"scale": 0.1}},
        "laplace",
        {"categorical": {"classes": 3}},
        "discretized_logistic",
        {"discretized_logistic": {"bins": 4}},
        {"discretized_logistic_mixture": {"components": 2, "bins": 16}},
    ]


class TestStockPriors(PriorLaws):
    specs: ClassVar = [
        "standard_normal",
        {"mixture": {"components": 3}},
        {"mixture": {"components": 3, "y": "enumerate", "y_beta": 2.0}},
        {"mixture": {"components": 3, "y": "gumbel", "final_temperature": 0.1, "anneal_steps": 10}},
        {"mixture": {"components": 3, "y": "gumbel", "straight_through": True}},
        {"vamp": {"components": 4}},
        {"flow": {"transforms": 2, "hidden": [8]}},
        {"flow": {"kind": "autoregressive", "transforms": 2, "hidden": [8]}},
    ]


class TestStockObjectives(ObjectiveLaws):
    specs: ClassVar = [
        {"elbo": {"num_particles": 2, "kl": "sampled"}},
        {"beta_elbo": {"beta": {"z_g": 4.0}, "warmup": 10, "cycles": 2, "hold": 3}},
        {"capacity": {"stop": {"z_g": 3.0, "z_l": 4.0}, "steps": 10}},
        {"free_bits": {"nats": 2.0}},
        {"balance": {"site": "z_g_y"}},
        {"agreement": {"site": "z_g_y", "redraw": ["z_l"], "view": {"affine": {"degrees": 5.0}}}},
        {"sum": {"objectives": ["elbo", {"free_bits": {"nats": 2.0}}], "weights": [1.0, 0.5]}},
    ]


class TestStockPairs(PairLaws):
    specs: ClassVar = [
        planted.declaration(),
        {
            "blocks": {
                "z_g": {"dim": 2, "prior": {"mixture": {"components": 3, "y": "enumerate"}}},
                "z_l": {"dim": 2, "beta": 2.0},
            },
            "observations": {
                "x": {"blocks": ["z_g", "z_l"]},
                "x_hat": {"blocks": ["z_l"], "transform": {"patch_shuffle": {"n": 4}}, "redraw": True, "weight": 0.5},
            },
        },
    ]
    batch = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(7)).float() / 255


@pytest.mark.parametrize(
    ("tests", "names", "classes"),
    [
        (TestStockTransforms, ip.list_transforms, ip.transforms.base._registry),
        (TestStockLikelihoods, ip.list_likelihoods, ip.distributions.likelihoods._likelihoods),
        (TestStockPriors, ip.list_priors, ip.distributions.priors._priors),
        (TestStockObjectives, ip.list_objectives, ip.objectives.base._registry),
    ],
)
def test_all_that_is_stock_is_tried(tests: type[laws.LawTests], names: Any, classes: Any) -> None:
    stock = {
        name
        for name in names()
        if classes.get(name).__module__.startswith("infoplace.") and classes.get(name).spec_name == name
    }
    stock -= {"kornia", "torchvision"}  # which are nothing by themselves, and have their own tests
    tried = {
        spec if isinstance(spec, str) else "compose" if isinstance(spec, list) else next(iter(spec))
        for spec in tests.specs
    }
    assert tried == stock


# ---- unusual things without a fault ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sound", [planted.SoundTransform, planted.SoundAndCertain, planted.Rejects], ids=lambda one: one.__name__
)
def test_transforms_without_a_fault_keep_the_laws(sound: type[Transform]) -> None:
    with planted.registered(sound):
        check_transform(sound())


def test_a_draw_that_looks_at_the_data_moves_with_the_other_samples_and_is_told_apart_from_meddling() -> None:
    x, source = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.Generator()
    bright = torch.cat([torch.ones(3, 3, 4, 4), x[3:]])
    first, other = (planted.Rejects()(batch, generator=source.manual_seed(0))[3] for batch in (x, bright))
    assert not first.equal(other)


def test_a_transform_that_says_that_it_mixes_samples_may() -> None:
    class Mixes(planted.MixesUp):
        mixes_samples = True

    case = testing.transforms._case(Mixes(), (3, 8, 8), 5, 0)
    for name in testing.transforms._LAWS.names:
        if name not in (
            "copies_are_equal",
            "spec_comes_back_equal",
        ):  # a class of a test is neither registered nor pickled
            testing.transforms._LAWS.try_law(name, case, "Mixes")


class OneHot(Likelihood):
    """One of as many classes as there are numbers: a joint distribution over a vector."""

    @property
    def parameters_per_value(self) -> int:
        return 1

    def __call__(self, raw: Tensor, data_shape: tuple[int, ...]) -> Any:
        if len(data_shape) != 1:
            raise DeclarationError("one-hot data is a vector")
        if raw.shape[-1:] != data_shape:
            raise DataError("as many raw numbers as classes are needed")
        return dist.OneHotCategorical(logits=raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw)

    def raw_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(data_shape) != 1 or data_shape[0] < 2:
            raise DeclarationError("one-hot data is a vector of at least 2 numbers")
        return super().raw_shape(data_shape)

    def round(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x.argmax(-1), x.shape[-1]).to(x.dtype)

    def check(self, x: Tensor, name: str) -> None:
        self.check_type(x, name)
        if not bool((((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1)).all()):
            raise DataError(f"{name}: a one-hot vector holds a single 1, and 0 elsewhere")


class Correlated(Likelihood):
    """Numbers that are correlated with their neighbours: a joint density over a vector."""

    @property
    def parameters_per_value(self) -> int:
        return 1

    def distribution(self, raw: Tensor, dim: int) -> Any:
        raise NotImplementedError

    def __call__(self, raw: Tensor, data_shape: tuple[int, ...]) -> Any:
        super().raw_shape(data_shape)
        size = math.prod(data_shape)
        if len(data_shape) != 1 or raw.shape[-1:] != data_shape:
            raise DataError("as many raw numbers as numbers are needed")
        mean = raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
        factor = (torch.eye(size) + 0.7 * torch.eye(size).roll(1, 0).tril()).to(mean)
        return dist.MultivariateNormal(mean, scale_tril=factor)

    def raw_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(data_shape) != 1:
            raise DeclarationError("correlated data is a vector")
        return super().raw_shape(data_shape)


class Poisson(planted.SoundNormal):
    """Counts without an end."""

    @property
    def parameters_per_value(self) -> int:
        return 1

    def distribution(self, raw: Tensor, dim: int) -> Any:
        return dist.Poisson(self.least + 10 * torch.sigmoid(raw.squeeze(dim)))

    def round(self, x: Tensor) -> Tensor:
        return x.round().clamp(min=0)

    def check(self, x: Tensor, name: str) -> None:
        super().check(x, name)
        if not bool(((x >= 0) & (x == x.round())).all()):
            raise DataError(f"{name}: counts are whole numbers of at least 0")


class Shares(planted.SoundNormal):
    """Numbers between 0 and 1."""

    def distribution(self, raw: Tensor, dim: int) -> Any:
        one, other = (1 + 2 * torch.sigmoid(part) for part in raw.unbind(dim))
        return dist.Beta(one + self.least, other)

    def round(self, x: Tensor) -> Tensor:
        return x.clamp(0.01, 0.99)

    def check(self, x: Tensor, name: str) -> None:
        super().check(x, name)
        if not bool(((x > 0) & (x < 1)).all()):
            raise DataError(f"{name}: shares lie between 0 and 1")


class OftenZero(planted.SoundNormal):
    """Zero with a probability, and else normal: a density with an atom."""

    def distribution(self, raw: Tensor, dim: int) -> Any:
        mean, scale = raw.unbind(dim)
        base = dist.Normal(mean, self.scale(scale))
        return planted.Bent(
            base,
            sample=lambda base, drawn: torch.where(torch.rand_like(drawn) < 0.3, 0.0, drawn),
            log_prob=lambda base, value, score: torch.where(value == 0, math.log(0.3), score + math.log(0.7)),
            mean=lambda base: 0.7 * base.mean,
        )


@pytest.mark.parametrize(
    ("sound", "shape"),
    [
        (planted.SoundNormal, (2, 2, 2)),
        (planted.SoundGrid, (2, 2, 2)),
        (OneHot, (4,)),
        (Correlated, (3,)),
        (Poisson, (3,)),
        (Shares, (3,)),
        (OftenZero, (3,)),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_likelihoods_without_a_fault_keep_the_laws(sound: type[Likelihood], shape: tuple[int, ...]) -> None:
    with planted.registered(sound):
        check_likelihood(sound(), shape)


class Sphere(dist.TorchDistribution):
    """The von Mises-Fisher distribution on the sphere in three dimensions, after Ulrich (1984)."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = dist.constraints.sphere

    def __init__(self, direction: Tensor, concentration: Tensor) -> None:
        self.direction, self.concentration = direction / direction.norm(), concentration
        super().__init__(torch.Size(), torch.Size([3]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        kappa = self.concentration
        normaliser = kappa.log() - math.log(2 * math.pi) - kappa - torch.log1p(-(-2 * kappa).exp())
        return kappa * (value @ self.direction) + normaliser

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            kappa = self.concentration
            u = torch.rand(sample_shape).to(kappa)
            along = 1 + (u + (1 - u) * (-2 * kappa).exp()).log() / kappa
            across = torch.randn(*sample_shape, 3).to(kappa)
            across = across - (across @ self.direction)[..., None] * self.direction
            across = across / across.norm(dim=-1, keepdim=True)
            return along[..., None] * self.direction + (1 - along**2).clamp(min=0).sqrt()[..., None] * across

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = Sphere(self.direction, self.concentration)
        new._batch_shape = torch.Size(batch_shape)
        return new


class OnSphere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.tensor([1.0, 0.5, -0.5]))
        self.raw = nn.Parameter(torch.tensor(0.5))

    def forward(self) -> Any:
        return Sphere(self.direction, self.raw.exp())


class SpherePrior(Prior):
    """Directions in space."""

    def build(self, dim: int) -> nn.Module:
        planted.check_size(dim)
        return OnSphere()


class SharesPrior(Prior):
    """Shares of a whole."""

    def build(self, dim: int) -> nn.Module:
        planted.check_size(dim)
        return OnSimplex(dim)


class OnSimplex(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.linspace(0.0, 1.0, dim))

    def forward(self) -> Any:
        return dist.Dirichlet(1.5 + self.raw.exp())


@pytest.mark.parametrize(
    "sound", [planted.SoundPrior, planted.SoundClusters, SpherePrior, SharesPrior], ids=lambda one: one.__name__
)
def test_priors_without_a_fault_keep_the_laws(sound: type[Prior]) -> None:
    with planted.registered(sound):
        check_prior(sound())


def test_a_prior_of_one_dimension_is_integrated_exactly() -> None:
    check_prior({"mixture": {"components": 3}}, dim=1)


class Network(planted.SoundObjective):
    """With a small network of its own."""

    def __init__(self, strength: float = 0.5, num_particles: int = 1, vectorize_particles: bool = False) -> None:
        super().__init__(strength, num_particles, vectorize_particles)
        self.module = nn.Linear(2, 1).double()

    def penalty(self, evidence: Any) -> Tensor:
        (_, penalty), *_ = [(one, self.module(one.latents["z_l"].value).square().sum()) for one in evidence.passes]
        return penalty if len(evidence.passes) == 1 == evidence.particles else self.average(evidence)

    def average(self, evidence: Any) -> Tensor:
        each = [self.module(one.latents["z_l"].value).square().sum() for one in evidence.passes]
        return torch.stack(each).sum() / evidence.particles


@pytest.mark.parametrize("sound", [planted.SoundObjective, planted.Warm, Network], ids=lambda one: one.__name__)
def test_objectives_without_a_fault_keep_the_laws(sound: type[Objective]) -> None:
    with planted.registered(sound):
        check_objective(sound())


def test_an_objective_is_tried_on_a_pair_of_ones_own() -> None:
    pair = planted.pair_of()
    check_objective("beta_elbo", pair, pair.partition.observe(planted.images()))


def test_a_pair_without_a_fault_keeps_the_laws() -> None:
    check_pair(planted.pair_of(), planted.images())


def test_a_pair_of_several_sources_is_made_of_its_declaration() -> None:
    partition = ip.Partition(
        {"z": ip.Block(2, reads=("signal",)), "w": ip.Block(2, reads=("signal",))},
        {
            "signal": ip.Observation(source="signal", likelihood="normal"),
            "label": ip.Observation(blocks=("z",), source="label", likelihood={"categorical": {"classes": 3}}),
        },
    )
    check_pair(partition, {"signal": torch.randn(5, 6), "label": torch.tensor([0, 1, 2, 0, 1])})


# ---- what is left as it was ------------------------------------------------------------------------------------------


def test_checks_leave_the_random_state_the_parameters_of_pyro_and_what_is_checked_alone() -> None:
    pair = planted.pair_of()
    weights = {name: value.clone() for name, value in pair.state_dict().items()}
    observations = pair.partition.observe(planted.images())
    given = {name: value.clone() for name, value in observations.items()}
    objective = ip.make_objective("beta_elbo", warmup=10)
    before = laws.random_states(), sorted(pyro.get_param_store().keys()), objective.state_dict(), pair.training
    check_transform("noise")
    check_prior("standard_normal", dim=2)
    check_objective(objective, pair, observations)
    check_pair(pair, planted.images())
    assert (
        laws.random_states(),
        sorted(pyro.get_param_store().keys()),
        objective.state_dict(),
        pair.training,
    ) == before
    assert all(value.equal(weights[name]) for name, value in pair.state_dict().items())
    assert all(value.equal(given[name]) for name, value in observations.items())
    assert all(parameter.grad is None for parameter in pair.parameters())


def test_the_outcome_hangs_on_the_seed_alone() -> None:
    def outcome() -> str:
        with pytest.raises(LawError) as error:
            check_transform(planted.BatchMean(), seed=3)
        return str(error.value)

    first = outcome()
    torch.rand(5)
    assert outcome() == first


# ---- what a caller gets wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: check_transform("no_such_thing"), UnknownNameError, r"there is no transform named 'no_such_thing'"),
        (lambda: check_transform("mask", shape=(3, 9, 9)), DeclarationError, r"n=8 does not divide height 9"),
        (
            lambda: check_transform("noise", batch=2),
            DeclarationError,
            r"laws need a batch of at least 3 samples.*got batch=2",
        ),
        (lambda: check_likelihood("normal", batch=1), DeclarationError, r"at least 2 samples.*got batch=1"),
        (
            lambda: check_likelihood("normal", shape=(0,)),
            DeclarationError,
            r"normal: a data shape is made of positive integers",
        ),
        (lambda: check_prior("standard_normal", dim=0), DeclarationError, r"dim must be a positive integer; got 0"),
        (lambda: check_prior("standard_normal", batch=1), DeclarationError, r"at least 2 points.*got batch=1"),
        (
            lambda: check_objective("elbo", planted.pair_of()),
            DeclarationError,
            r"pair and observations go together; give both",
        ),
        (lambda: check_objective("balance", None), DeclarationError, r"balance needs 'site': balance\(site=...\)"),
        (
            lambda: check_objective({"balance": {"site": "nowhere"}}),
            DeclarationError,
            r"balance: there is no latent site 'nowhere'",
        ),
        (lambda: check_pair("small", planted.images()), DeclarationError, r"need a pair, or a partition.*got str"),
        (lambda: check_pair(planted.pair_of(), planted.images(2)), DeclarationError, r"at least 3 samples.*got 2"),
        (lambda: check_pair(planted.pair_of(), planted.images() * 255), DataError, r"values must lie in \[0, 1\]"),
    ],
)
def test_a_callers_mistake_breaks_no_law(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_an_error_on_the_way_is_told_with_its_cause() -> None:
    class Fails(planted.SoundAndCertain):
        def change(self, x: Tensor) -> Tensor:
            raise KeyError("palette")

    with pytest.raises(LawError) as error:
        check_transform(Fails())
    assert "raised KeyError ('palette')" in str(error.value)
    assert isinstance(error.value.__cause__ or error.value.__context__, Exception)


# ---- as tests --------------------------------------------------------------------------------------------------------


def test_every_law_is_a_test_of_its_own_for_every_spec(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from infoplace.testing import TransformLaws
        from infoplace.transforms import Transform

        class BatchMean(Transform):
            destroys = "something"
            stochastic = False
            def apply(self, x, generator):
                return (x.double() * 0.5 + 0.5 * x.double().mean()).to(x.dtype)

        class TestStock(TransformLaws):
            specs = ["identity", {"patch_shuffle": {"n": 4}}, ["grayscale", {"mask": {"n": 8}}]]

        class TestMine(TransformLaws):
            specs = [BatchMean()]
            shape = (1, 4, 4)

            def test_uint8_agrees_with_floats(self, spec):
                "It rounds down, and is to."
        """
    )
    tried = "range_is_kept or uint8 or independent or every_sample or spec_comes"
    result = pytester.runpytest_inprocess("-v", "-rs", "-p", "no:cacheprovider", "-W", "error", "-k", tried)
    # Drawing for each sample is nothing for two that draw nothing; and the last is not registered, besides meddling.
    count = len(KINDS["transform"].names) - 5
    result.assert_outcomes(passed=5 * 4 - 2 - 2, skipped=2, failed=2, deselected=4 * count)
    result.stdout.fnmatch_lines_random(
        [
            "*::TestStock::test_range_is_kept[[]identity[]] PASSED*",
            "*::TestStock::test_range_is_kept[[]patch_shuffle-n=4[]] PASSED*",
            "*::TestStock::test_range_is_kept[[]grayscale+mask-n=8[]] PASSED*",
            "*::TestStock::test_every_sample_is_drawn_for[[]identity[]] SKIPPED*",
            "SKIPPED*it is not random*",
            "*::TestMine::test_samples_are_independent[[]BatchMean[]] FAILED*",
            "*::TestMine::test_uint8_agrees_with_floats[[]BatchMean[]] PASSED*",
            "*LawError: BatchMean() breaks the law 'samples_are_independent': *",
        ]
    )


class Collecting:
    """What pytest hands to a class that says which specs its tests run on."""

    fixturenames: ClassVar = ["spec"]

    def parametrize(self, name: str, values: list[Any], ids: list[str]) -> None:
        self.ids = ids


def test_ids_can_be_read_and_differ() -> None:
    collecting = Collecting()
    TestStockTransforms().pytest_generate_tests(collecting)
    assert collecting.ids[1:3] == ["patch_shuffle-n=8", "patch_shuffle-n=8-dims=1"]
    assert collecting.ids[-1] == "jitter+edges+noise+mask-n=4"
    assert len(set(collecting.ids)) == len(collecting.ids)
    assert laws.short(ip.make_transform("blur", sigma=1.5)) == "blur-sigma=1.5"
    assert laws.short(planted.pair_of()) == "pair"
    assert laws.unique(["a", "b", "a"]) == ["a", "b", "a#2"]


def test_a_class_that_lacks_what_to_try_says_so() -> None:
    class TestNothing(TransformLaws):
        pass

    with pytest.raises(DeclarationError, match=r'^TestNothing tries nothing; set specs = \["name", ...\] in its body$'):
        TestNothing().pytest_generate_tests(Collecting())

    class TestPairs(PairLaws):
        specs: ClassVar = [planted.declaration()]

    with pytest.raises(DeclarationError, match=r"TestPairs has no data; set batch = a tensor"):
        TestPairs().test_shapes_are_as_declared(TestPairs.specs[0])


def test_each_base_has_the_laws_of_its_kind() -> None:
    bases = {
        "transform": TransformLaws,
        "likelihood": LikelihoodLaws,
        "prior": PriorLaws,
        "objective": ObjectiveLaws,
        "pair": PairLaws,
    }
    for kind, base in bases.items():
        tests = {name.removeprefix("test_") for name in vars(base) if name.startswith("test_")}
        assert tests == set(KINDS[kind].names)
        for name in tests:
            assert getattr(base, f"test_{name}").__doc__, f"{kind}: {name} says nothing"
    assert "pytest_generate_tests" in dir(laws.LawTests)


def test_pytest_is_imported_only_where_a_test_is_skipped() -> None:
    for file in Path(testing.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inside = {
            node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            assert node in inside or "pytest" not in [*names, getattr(node, "module", None)], file


# ---- what the laws are judged by -------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 3, 20])
def test_chi_square_deviates_are_those_of_scipy(freedom: int) -> None:
    source = torch.Generator().manual_seed(freedom)
    expected = torch.full((freedom + 1,), 400.0, dtype=torch.float64)
    shares = expected / expected.sum() + 0.02 * torch.randn(freedom + 1, generator=source).double() / freedom
    observed = (shares / shares.sum() * expected.sum()).round()
    observed[-1] += expected.sum() - observed.sum()
    p = scipy.stats.chisquare(observed.numpy(), expected.numpy()).pvalue
    assert abs(statistics.chi_square_deviate(observed, expected) - scipy.stats.norm.isf(p)) < 0.15


def test_rare_cells_are_joined() -> None:
    expected = torch.tensor([1000.0, *[0.01] * 100, 1000.0])
    observed = torch.tensor([1000.0, 1.0, *[0.0] * 99, 1000.0])
    assert abs(statistics.chi_square_deviate(observed, expected)) < 3


@pytest.mark.parametrize(
    ("distribution", "support"),
    [
        (dist.Normal(3.0, 0.01), constraints.real),
        (dist.Laplace(-50.0, 20.0), constraints.real),
        (dist.StudentT(2.0, 0.0, 1.0), constraints.real),
        (dist.Gamma(0.7, 3.0), constraints.positive),
        (dist.Beta(0.8, 3.0), constraints.unit_interval),
    ],
    ids=lambda one: type(one).__name__,
)
def test_densities_of_one_number_integrate_to_one_and_others_do_not(distribution: Any, support: Any) -> None:
    with laws.seeded(0):
        draws = distribution.sample((4000, 1)).double()
    density = statistics.Density(lambda x: distribution.log_prob(x)[:, 0], draws, support)
    assert abs(density.total()[0] - 1) < 1e-3
    assert abs(density.deviate()) < statistics.SIGMAS
    half = statistics.Density(lambda x: distribution.log_prob(x)[:, 0] - math.log(2), draws, support)
    assert abs(half.total()[0] - 0.5) < 1e-3
    wider = statistics.Density(density.log_prob, draws.median() + 1.2 * (draws - draws.median()), constraints.real)
    if support is constraints.real:
        assert wider.deviate() > statistics.SIGMAS


def test_mass_that_is_never_drawn_is_found() -> None:
    near, far = (dist.Normal(torch.full((3,), mean).double(), 1.0).to_event(1) for mean in (0.0, 4.0))
    with laws.seeded(0):
        draws = near.sample((4000,))
    both = statistics.Density(lambda x: torch.logaddexp(near.log_prob(x), far.log_prob(x)), draws, near.support)
    total, allowed = both.total()
    assert abs(total - 2) < allowed < 0.5


def test_equal_distributions_are_seldom_told_apart_and_others_are() -> None:
    source = torch.Generator().manual_seed(0)
    told = []
    for seed in range(30):
        left, right = torch.randn(2, 40, 20, generator=source, dtype=torch.float64)
        told.append(statistics.differ_in_distribution(left, right, seed))
        assert statistics.differ_in_distribution(left, right + 0.8, seed)
    assert not any(told)


def test_directional_derivatives_are_those_of_the_formula() -> None:
    at, directions = torch.tensor([0.3, -1.2]).double(), torch.tensor([[1.0, 0.0], [1.0, -1.0]]).double()
    found = statistics.directional_derivatives(lambda x: x[0].exp() * x[1], at, directions)
    value, slope = -1.2 * math.exp(0.3), math.exp(0.3)
    torch.testing.assert_close(found, torch.tensor([value, value - slope]).double(), rtol=1e-7, atol=1e-8)


def test_what_gradients_leave_out_on_purpose_is_held_fixed() -> None:
    def loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            target = (3 * x).exp()
        return (x.detach() * x).sum() + (x * target).sum()

    x = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    with watching.Fixed() as fixed:
        value = loss(x)
    (gradient,) = torch.autograd.grad(value, [x])
    step = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    moved = []
    for at in (x.detach() + step, x.detach() - step):
        with fixed.again():
            moved.append(loss(at))
    torch.testing.assert_close((moved[0] - moved[1]) / 2e-6, gradient[0], rtol=1e-6, atol=1e-6)
    assert abs((loss(x + step) - loss(x - step)) / 2e-6 - gradient[0]) > 0.1


def test_reads_of_values_are_seen() -> None:
    x = torch.ones(3)
    with watching.Reads() as seen:
        x.sum().item()
        x[x > 0]
        torch.where(x > 0, x, 0).clamp(min=1).sum()
    assert seen.found == ["_local_scalar_dense", "a boolean mask"]


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), True),
        (torch.tensor([1.0]), torch.tensor([1.0]).double(), False),
        (torch.zeros(2), torch.zeros(1, 2), False),
        ({"a": [torch.ones(1), 2]}, {"a": (torch.ones(1), 2)}, True),
        ({"a": 1}, {"b": 1}, False),
        (torch.ones(1), 1.0, False),
    ],
)
def test_nested_values_are_compared_to_the_last_bit(left: Any, right: Any, equal: bool) -> None:
    assert laws.same(left, right) is equal


def test_distances_count_what_is_not_finite() -> None:
    assert laws.furthest(torch.tensor([1.0, math.inf]), torch.tensor([1.5, math.inf])) == 0.5
    assert laws.furthest(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0])) == math.inf
    assert laws.furthest(torch.zeros(2), torch.zeros(3)) == math.inf


@pytest.mark.parametrize(
    ("value", "annotation", "some"),
    [
        (True, "bool", [False]),
        (3, "int", [4, 2, 6]),
        (0.5, "float", [0.75, 0.25, 1.0]),
        (None, "float | None", [0.5, 2.0]),
        ((2, 5), "tuple[int, ...]", [(3, 5), (1, 5)]),
        ({"z": 1.0}, "dict", [{"z": 1.5}]),
        ("name", "str", []),
    ],
)
def test_parameters_are_tried_at_other_values(value: Any, annotation: str, some: list[Any]) -> None:
    found = laws.variations(value, annotation)
    assert value not in found
    assert all(one in found for one in some)
    assert bool(found) == bool(some)
