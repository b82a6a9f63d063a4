"""What is added to a bound about classes: against numpy, at its known minima, and in how it draws its versions."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

import infoplace as ip
from infoplace import Block, Observation, Partition
from infoplace.transforms import make_transform

BATCH, SHAPE, CLASSES = 6, (1, 4, 4), 3
PIXELS = math.prod(SHAPE)
LEVELS = {"posterize": {"levels": 3}}


@pytest.fixture(autouse=True)
def _float64_and_a_clean_store() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(before)
    pyro.clear_param_store()


def images(count: int = BATCH, seed: int = 1) -> dict[str, Tensor]:
    return {"x": torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))}


class Model(nn.Module):
    """The image's left half shows one block and its right half the other."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(CLASSES, 8, generator=torch.Generator().manual_seed(3)))

    def forward(self, observations: dict[str, Tensor], **other) -> None:
        x = observations["x"]
        with pyro.plate("batch", len(x), dim=-1):
            y = pyro.sample("c_y", dist.Categorical(logits=torch.zeros(CLASSES)))
            content = pyro.sample("c", dist.Normal(self.means[y], 1.0).to_event(1))
            style = pyro.sample("s", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            halves = torch.cat([content, style], -1).sigmoid().unflatten(-1, (1, 2, 4, 2)).transpose(-3, -2).flatten(-2)
            pyro.sample("x", dist.Normal(halves, 0.5).to_event(3), obs=x)


def shown(image: Tensor) -> tuple[Tensor, Tensor]:
    """The blocks that an image of the model's decoder shows."""
    values = image.logit()
    return values[:, 0, :, :2].flatten(1), values[:, 0, :, 2:].flatten(1)


class Guide(nn.Module):
    """Remembers the images that it was run on, and what it drew of the first."""

    enumerate = True

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.Linear(PIXELS, CLASSES)
        self.code = nn.Linear(PIXELS, 16)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.seen: list[Tensor] = []
        self.drawn: dict[str, Tensor] = {}

    def classes(self, x: Tensor) -> Tensor:
        return self.logits(x.flatten(1))

    def forward(self, observations: dict[str, Tensor], **other) -> None:
        x = observations["x"]
        self.seen.append(x.detach().clone())
        content, style = self.code(x.flatten(1)).chunk(2, -1)
        with pyro.plate("batch", len(x), dim=-1):
            infer = {"enumerate": "parallel"} if self.enumerate else {}
            pyro.sample("c_y", dist.Categorical(logits=self.classes(x)), infer=infer)
            drawn = {
                "c": pyro.sample("c", dist.Normal(content, 0.1).to_event(1)),
                "s": pyro.sample("s", dist.Normal(style, 0.1).to_event(1)),
            }
        self.drawn = self.drawn or drawn


def agreement(**parameters):
    return ip.make_objective("agreement", **{"site": "c_y", **parameters})


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def probabilities(guide: Guide, x: Tensor) -> np.ndarray:
    weight, bias = guide.logits.weight.detach().numpy(), guide.logits.bias.detach().numpy()
    return softmax(x.numpy().reshape(len(x), -1) @ weight.T + bias)


def expected(guide: Guide) -> dict[str, float]:
    """The three terms, in numpy, from the images that the guide was shown: the batch, then its versions."""
    batch, *versions = guide.seen
    own = probabilities(guide, batch)
    disagreements = []
    for version in versions:
        other = probabilities(guide, version)
        disagreements.append(np.mean([np.sum(p * (np.log(p) - np.log(q))) for p, q in zip(own, other, strict=True)]))
    shares = own.mean(0)
    return {
        "disagreement/c_y": len(batch) * float(np.mean(disagreements)),
        "class_entropy/c_y": len(batch) * float(np.mean([-np.sum(p * np.log(p)) for p in own])),
        "balance/c_y": len(batch) * float(np.log(CLASSES) + np.sum(shares * np.log(shares))),
    }


VERSIONS = {
    "redrawn": ({"redraw": ["s"]}, 1),
    "viewed": ({"view": LEVELS}, 1),
    "both": ({"redraw": ["s"], "view": LEVELS}, 2),
}
every_version = pytest.mark.parametrize(("parameters", "count"), list(VERSIONS.values()), ids=list(VERSIONS))


class TestTerms:
    @every_version
    @pytest.mark.parametrize("enumerate", [True, False])
    def test_are_those_of_numpy(self, parameters, count, enumerate):
        guide = Guide()
        guide.enumerate = enumerate
        terms = agreement(**parameters, entropy=0.3, balance=0.7).terms(Model(), guide, images())
        assert len(guide.seen) == 1 + count
        loss = terms.pop("loss").item()
        by_hand = expected(guide)
        assert {name: value.item() for name, value in terms.items()} == pytest.approx(by_hand, rel=1e-9)
        total = by_hand["disagreement/c_y"] + 0.3 * by_hand["class_entropy/c_y"] + 0.7 * by_hand["balance/c_y"]
        assert loss == pytest.approx(total, rel=1e-9)
        assert all(value > 1e-3 for value in by_hand.values())

    def test_balance_alone(self):
        guide = Guide()
        terms = ip.make_objective("balance", site="c_y").terms(Model(), guide, images())
        assert set(terms) == {"balance/c_y", "loss"}
        shares = probabilities(guide, guide.seen[0]).mean(0)
        by_hand = BATCH * (math.log(CLASSES) + np.sum(shares * np.log(shares)))
        assert terms["loss"].item() == pytest.approx(by_hand, rel=1e-9)
        assert terms["loss"] == terms["balance/c_y"]

    @pytest.mark.parametrize("vectorised", [False, True])
    @pytest.mark.parametrize("name", ["balance", "agreement"])
    def test_averaged_over_particles_as_all_losses_are(self, name, vectorised):
        """The classes' posteriors hang on no draw, so the number of draws changes nothing."""
        parameters = {"site": "c_y"} if name == "balance" else {"site": "c_y", "view": LEVELS}
        one = ip.make_objective(name, **parameters).terms(Model(), Guide(), images())
        many = ip.make_objective(name, num_particles=4, vectorize_particles=vectorised, **parameters)
        for key, value in many.terms(Model(), Guide(), images()).items():
            assert value.item() == pytest.approx(one[key].item(), rel=1e-9), key

    def test_a_guide_that_does_not_look_agrees_with_itself(self):
        guide = Guide()
        with torch.no_grad():
            guide.logits.weight.zero_()
        terms = agreement(redraw=["s"], view=LEVELS).terms(Model(), guide, images())
        assert terms["disagreement/c_y"].abs() < 1e-12

    @pytest.mark.parametrize("height", [50.0, 1e4])
    def test_sure_and_even_classes_cost_nothing(self, height):
        class Sure(Guide):
            def classes(self, x: Tensor) -> Tensor:
                return height * torch.eye(CLASSES).repeat(len(x) // CLASSES, 1) + 0 * self.logits.bias

        terms = agreement(redraw=["s"], view=LEVELS).evaluate(Model(), Sure(), images())[1]
        for name, value in terms.items():
            assert value.item() == pytest.approx(0.0, abs=1e-9), name

    def test_one_class_for_all_is_the_most_uneven(self):
        class Collapsed(Guide):
            def classes(self, x: Tensor) -> Tensor:
                return 1e4 * torch.eye(CLASSES)[:1].expand(len(x), -1) + 0 * self.logits.bias

        guide = Collapsed()
        loss = ip.make_objective("balance", site="c_y")(Model(), guide)(images())
        assert loss.item() == pytest.approx(BATCH * math.log(CLASSES))
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in guide.parameters())

    def test_a_relaxed_class_too(self):
        pair, observations = make_pair("gumbel")
        terms = agreement(redraw=["s"], view=LEVELS).terms(pair.model, pair.guide, observations)
        own = pair.classify(observations)["c"].probs.detach().numpy()
        assert terms["class_entropy/c_y"].item() == pytest.approx(-np.sum(own * np.log(own)), rel=1e-9)
        assert terms["disagreement/c_y"] > 0


class TestGradients:
    @every_version
    def test_are_those_with_the_images_own_classes_held(self, parameters, count):
        guide = Guide()
        agreement(**parameters, entropy=0.0, balance=0.0)(Model(), guide)(images()).backward()
        found = guide.logits.weight.grad.clone()
        guide.zero_grad()
        batch, *versions = guide.seen
        target = torch.from_numpy(probabilities(guide, batch))
        logs = [guide.classes(version).log_softmax(-1) for version in versions]
        # Only the cross-entropy has a gradient.
        (-sum((target * log).sum() for log in logs) / count).backward()
        torch.testing.assert_close(found, guide.logits.weight.grad, rtol=1e-9, atol=1e-12)

    @every_version
    def test_go_to_the_versions_and_not_to_the_target(self, parameters, count):
        class Two(Guide):
            """One map for the batch, another for whatever comes after it."""

            def __init__(self) -> None:
                super().__init__()
                self.later = copy.deepcopy(self.logits)

            def classes(self, x: Tensor) -> Tensor:
                return (self.logits if len(self.seen) == 1 else self.later)(x.flatten(1))

        model, guide = Model(), Two()
        agreement(**parameters, entropy=0.0, balance=0.0)(model, guide)(images()).backward()
        assert guide.later.weight.grad.abs().sum() > 0
        assert guide.logits.weight.grad is None or not guide.logits.weight.grad.any()
        # Versions are made without gradients: neither the decoder nor what a block says of the image is trained.
        for parameter in (model.means, guide.code.weight):
            assert parameter.grad is None or not parameter.grad.any()

    def test_entropy_and_balance_are_those_of_the_images_own(self):
        guide = Guide()
        objective = agreement(view=LEVELS, entropy=0.3, balance=0.7) + (-1.0) * agreement(
            view=LEVELS, entropy=0.0, balance=0.0
        )
        objective(Model(), guide)(images()).backward()
        found = guide.logits.weight.grad.clone()
        guide.zero_grad()
        q = guide.classes(images()["x"]).softmax(-1)
        shares = q.mean(0)
        (-0.3 * (q * q.log()).sum() + 0.7 * BATCH * (shares * shares.log()).sum()).backward()
        torch.testing.assert_close(found, guide.logits.weight.grad, rtol=1e-8, atol=1e-10)

    def test_descending_makes_classes_agree_and_even(self):
        guide, model, batch = Guide(), Model(), images(30)
        objective = agreement(view=LEVELS, entropy=0.0, balance=1.0)
        loss = objective(model, guide)
        optimiser = torch.optim.Adam(guide.parameters(), lr=0.1)
        before = objective.terms(model, guide, batch)
        for _ in range(30):
            optimiser.zero_grad()
            loss(batch).backward()
            optimiser.step()
        after = objective.terms(model, guide, batch)
        for name in ("disagreement/c_y", "balance/c_y"):
            assert after[name] < 0.6 * before[name], name


class TestVersions:
    def test_only_the_named_blocks_are_drawn_anew(self):
        guide = Guide()
        agreement(redraw=["s"]).terms(Model(), guide, images())
        _, version = guide.seen
        content, style = (
            torch.isclose(value, guide.drawn[name], atol=1e-9).all(1)
            for name, value in zip(("c", "s"), shown(version), strict=True)
        )
        assert content.all()
        assert not style.any()

    def test_they_are_drawn_from_the_prior(self):
        guide = Guide()
        agreement(redraw=["s"]).terms(Model(), guide, images(600))
        style = shown(guide.seen[1])[1]
        assert abs(style.mean()) < 0.06
        assert style.std().item() == pytest.approx(1.0, abs=0.05)

    def test_an_encoder_that_reads_a_second_draw_reads_the_version_in_its_place(self):
        prior = {"mixture": {"components": 3, "y": "enumerate"}}
        shuffled = ip.Observation(blocks=("l",), transform={"patch_shuffle": {"n": 4}}, redraw=True)
        partition = ip.Partition(
            {"g": ip.Block(2), "l": ip.Block(2, prior=prior)}, {"x": ip.Observation(), "x_hat": shuffled}
        )
        pair = ip.make_pair(partition, (1, 8, 8)).double()
        observations = partition.observe((torch.rand(4, 1, 8, 8, dtype=torch.float64) * 255).round() / 255)
        objective = ip.make_objective("agreement", site="l_y", observation="x_hat", view=LEVELS)
        assert objective.terms(pair.model, pair.guide, observations)["disagreement/l_y"] > 1e-6

    def test_they_can_be_had_alone(self):
        pair, observations = make_pair()
        view = {"posterize": {"levels": 2}}
        both = ip.make_objective("agreement", site="c_y", redraw=["s"], view=view)
        shown, redrawn = both.versions(pair.model, pair.guide, observations)
        assert shown.equal(make_transform(view)(observations["x"]))
        assert redrawn.shape == shown.shape
        assert not redrawn.requires_grad
        (alone,) = ip.make_objective("agreement", site="c_y", view=view).versions(pair.model, pair.guide, observations)
        assert alone.equal(shown)
        with pytest.raises(ip.DeclarationError, match="redraw names 't', which is no latent site"):
            ip.make_objective("agreement", site="c_y", redraw=["t"]).versions(pair.model, pair.guide, observations)

    def test_a_view_sees_the_image_and_what_was_redrawn(self):
        guide = Guide()
        agreement(redraw=["s"], view=LEVELS).terms(Model(), guide, images())
        batch, viewed, redrawn = guide.seen
        assert torch.equal(viewed, make_transform(LEVELS)(batch))
        levels = torch.tensor([0.0, 0.5, 1.0])
        assert (redrawn.unsqueeze(-1) == levels).any(-1).all()
        before = torch.sigmoid(guide.drawn["c"].unflatten(-1, (4, 2)))
        torch.testing.assert_close(redrawn[:, 0, :, :2], make_transform(LEVELS)(before))

    def test_of_particles_drawn_at_once_one_is_shown(self):
        guide = Guide()
        objective = agreement(redraw=["s"], num_particles=3, vectorize_particles=True)
        objective.terms(Model(), guide, images())
        batch, version = guide.seen
        assert version.shape == batch.shape
        content = guide.drawn["c"]
        assert content.shape == (3, BATCH, 8)
        torch.testing.assert_close(shown(version)[0], content[0])

    def test_the_seed_decides(self):
        objective = agreement(redraw=["s"], view={"affine": {}})
        found = []
        for seed in (3, 3, 4):
            pyro.set_rng_seed(seed)
            guide = Guide()
            found.append((objective.loss(Model(), guide, images()), guide.seen))
        assert found[0][0] == found[1][0] != found[2][0]
        for one, other, third in zip(*(seen for _, seen in found), strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, third) == torch.equal(one, found[0][1][0])

    def test_every_evaluation_draws_anew(self):
        objective, guide = agreement(redraw=["s"]), Guide()
        for _ in range(2):
            objective.loss(Model(), guide, images())
        assert not torch.equal(guide.seen[1], guide.seen[3])

    def test_the_batch_is_left_alone(self):
        batch = images()
        before = batch["x"].clone()
        agreement(redraw=["s"], view={"affine": {}}).loss(Model(), Guide(), batch)
        assert list(batch) == ["x"]
        assert torch.equal(batch["x"], before)


# ---- with a pair, in a sum ----------------------------------------------------------------------------------------------


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


def make_pair(y: str = "enumerate") -> tuple[ip.Pair, dict[str, Tensor]]:
    partition = Partition(
        {"c": Block(2, prior={"mixture": {"components": CLASSES, "y": y}}), "s": Block(3)},
        {
            "x": Observation(blocks=("c", "s"), likelihood={"normal": {"scale": 0.5}}),
            "x_hat": Observation(
                blocks=("s",), transform={"patch_shuffle": {"n": 2}}, likelihood={"normal": {"scale": 0.5}}
            ),
        },
    )
    encoders = {"c": Linear(PIXELS, 4 + CLASSES), "s": Linear(PIXELS, 6)}
    decoders = {
        name: nn.Sequential(nn.Linear(inputs, PIXELS), nn.Unflatten(1, SHAPE))
        for name, inputs in (("x", 5), ("x_hat", 3))
    }
    pair = ip.make_pair(partition, SHAPE, {"encoders": encoders, "decoders": decoders})
    return pair, partition.observe(images()["x"], torch.Generator().manual_seed(2))


class TestInASum:
    def test_its_terms_are_added_to_those_of_the_bound(self):
        pair, observations = make_pair()
        bound = ip.make_objective("beta_elbo", beta=20.0)
        total = bound + 100 * agreement(redraw=["s"], view={"affine": {}})
        losses = {}
        for name, objective in (("bound", bound), ("total", total)):
            pyro.set_rng_seed(3)
            losses[name] = {
                key: value.item() for key, value in objective.terms(pair.model, pair.guide, observations).items()
            }
        for key, value in losses["bound"].items():
            assert key == "loss" or losses["total"][key] == value
        added = (
            losses["total"]["disagreement/c_y"]
            + 0.1 * losses["total"]["class_entropy/c_y"]
            + 0.4 * losses["total"]["balance/c_y"]
        )
        assert losses["total"]["loss"] == pytest.approx(losses["bound"]["loss"] + 100 * added, rel=1e-9)

    def test_a_version_runs_the_networks_that_it_needs_and_no_others(self):
        pair, observations = make_pair()
        ran = []
        for kind, modules in (("encoder", pair.guide.encoders), ("decoder", pair.model.decoders)):
            for name, module in modules.items():
                module.register_forward_hook(lambda *_, key=f"{kind} {name}": ran.append(key))
        one = ip.make_objective("agreement", site="c_y", redraw=["s"], view={"blur": {"sigma": 1.0}})
        one.loss(pair.model, pair.guide, observations)
        assert ran.count("encoder c") == 3  # the image, its view, and its redrawn version
        assert ran.count("decoder x") == 2
        assert ran.count("encoder s") == ran.count("decoder x_hat") == 1

    def test_a_warm_up_leaves_it_alone(self):
        pair, observations = make_pair()
        total = ip.make_objective("beta_elbo", beta=2.0, warmup=4) + 5 * ip.make_objective("balance", site="c_y")
        svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.0}), loss=total)
        for step in range(6):
            pyro.set_rng_seed(3)
            terms = {name: v.item() for name, v in total.terms(pair.model, pair.guide, observations).items()}
            kl = sum(value for name, value in terms.items() if name.startswith("kl/"))
            log_likelihood = terms["log_likelihood/x"] + terms["log_likelihood/x_hat"]
            weight = 2 * min(1, (step + 1) / 4)
            assert terms["loss"] == pytest.approx(weight * kl - log_likelihood + 5 * terms["balance/c_y"], rel=1e-9)
            pyro.set_rng_seed(3)
            assert svi.step(observations) == pytest.approx(terms["loss"], rel=1e-9)

    def test_one_that_is_added_twice_counts_twice(self):
        pair, observations = make_pair()
        one = ip.make_objective("balance", site="c_y")
        assert (one + one).loss(pair.model, pair.guide, observations) == pytest.approx(
            2 * one.loss(pair.model, pair.guide, observations)
        )

    def test_specs_come_back(self):
        total = ip.make_objective("beta_elbo", beta=20.0, warmup=10) + 100 * agreement(
            redraw=["s"], view={"affine": {"degrees": 5}}, balance=1
        )
        spec = total.to_spec()
        assert ip.make_objective(spec) == total
        parameters = spec["sum"]["objectives"][1]["agreement"]
        assert parameters["view"] == {"affine": {"degrees": 5.0, "shift": 0.1, "scale": 0.1, "slant": 0.0}}
        assert (parameters["redraw"], parameters["entropy"], parameters["balance"]) == (["s"], 0.1, 1.0)
        assert agreement(redraw=["s"]) != agreement(redraw=["t"])
        assert copy.deepcopy(total) == total

    @pytest.mark.parametrize("y", ["enumerate", "gumbel"])
    def test_training_with_it(self, y):
        pair, observations = make_pair(y)
        total = ip.make_objective("elbo") + agreement(redraw=["s"], view={"affine": {}})
        before = {name: parameter.clone() for name, parameter in pair.named_parameters()}
        svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), loss=total)
        assert math.isfinite(svi.step(observations))
        assert all(not torch.equal(parameter, before[name]) for name, parameter in pair.named_parameters())

    @pytest.mark.parametrize(
        "parameters",
        [{"redraw": ["s"]}, {"view": {"affine": {}}}],
        ids=["redrawn", "viewed"],
    )
    def test_compiled_it_is_the_same(self, parameters):
        pair, observations = make_pair()
        total = ip.make_objective("elbo") + agreement(**parameters)
        results = []
        for loss in (total(pair.model, pair.guide), ip.compile(pair, total, backend="eager")):
            pair.zero_grad()
            torch.manual_seed(3)
            value, terms = loss.evaluate(observations)
            value.backward()
            results.append((value.detach(), terms, {name: p.grad.clone() for name, p in pair.named_parameters()}))
        torch.testing.assert_close(results[0], results[1])


# ---- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("balance", {"site": 3}, "balance: site must be the name of a class's site, as 'z_g_y'; got 3"),
        ("agreement", {"site": "c_y"}, "agreement: there is nothing that makes a version of an image; say redraw="),
        (
            "agreement",
            {"site": "c_y", "redraw": []},
            r"say redraw=\['z_l'\] \(the blocks that the class should not hang on",
        ),
        (
            "agreement",
            {"site": "c_y", "redraw": ["s", "c"]},
            "agreement: redraw names 'c', which is what 'c_y' is the class",
        ),
        (
            "agreement",
            {"site": "c_y", "redraw": ["c_y"]},
            "agreement: redraw names 'c_y', which is what 'c_y' is the class",
        ),
        ("agreement", {"site": "c_y", "redraw": "s"}, "agreement: redraw must be a list of blocks; got 's'"),
        ("agreement", {"site": None, "redraw": ["s"]}, "agreement: site must be the name of a class's site"),
        (
            "agreement",
            {"site": "c_y", "redraw": ["s"], "observation": 1},
            "observation must be an observation's name; got 1",
        ),
        (
            "agreement",
            {"site": "c_y", "redraw": ["s"], "entropy": -1},
            "agreement: entropy must be a finite number, at least",
        ),
        (
            "agreement",
            {"site": "c_y", "redraw": ["s"], "balance": math.nan},
            "agreement: balance must be a finite number",
        ),
        ("agreement", {"site": "c_y", "view": "afine"}, "Did you mean 'affine'"),
    ],
)
def test_objectives_that_cannot_be(name, parameters, text):
    with pytest.raises(ip.DeclarationError, match=text):
        ip.make_objective(name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        (
            "balance",
            {"site": "y_c"},
            "balance: there is no latent site 'y_c'.*The latent sites: .*'c_y'.*a prior that draws",
        ),
        ("balance", {"site": "c_yy"}, "balance: there is no latent site 'c_yy'. Did you mean 'c_y'"),
        ("balance", {"site": "s"}, "balance: 's' is no class; its posterior is Independent"),
        ("agreement", {"site": "x", "redraw": ["s"]}, "agreement: there is no latent site 'x'"),
        ("agreement", {"site": "c", "redraw": ["s"]}, "agreement: 'c' is no class"),
        (
            "agreement",
            {"site": "c_y", "redraw": ["s", "ss"]},
            "agreement: redraw names 'ss', which is no latent site. Did you",
        ),
        ("agreement", {"site": "c_y", "redraw": ["x"]}, "agreement: redraw names 'x', which is no latent site"),
        (
            "agreement",
            {"site": "c_y", "redraw": ["s"], "observation": "image"},
            r"agreement: there is no observation 'image' among what the model is called with \('x'\)",
        ),
    ],
)
def test_sites_that_are_not_there(name, parameters, text):
    with pytest.raises(ip.DeclarationError, match=text):
        ip.make_objective(name, **parameters).loss(Model(), Guide(), images())


def test_a_yes_or_no_is_no_class():
    def flag(observations: dict[str, Tensor]) -> None:
        with pyro.plate("batch", len(observations["x"])):
            pyro.sample("flag", dist.Bernoulli(torch.full((len(observations["x"]),), 0.3)))

    with pytest.raises(ip.DeclarationError, match="balance: 'flag' is no class; its posterior is Bernoulli"):
        ip.make_objective("balance", site="flag").loss(flag, flag, images())


def test_a_class_that_is_summed_out_has_no_site():
    partition = Partition(
        {"c": Block(2, prior={"mixture": {"components": 3}})}, {"x": Observation(likelihood="normal")}
    )
    pair = ip.make_pair(partition, (4,))
    observations = partition.observe(torch.randn(5, 4))
    text = "there is no latent site 'c_y'.*a prior that draws its class gives it one, as .*'y': 'enumerate'"
    with pytest.raises(ip.DeclarationError, match=text):
        ip.make_objective("balance", site="c_y").loss(pair.model, pair.guide, observations)


def test_a_model_that_is_called_with_bare_tensors():
    class Bare(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> None:
            self.inner({"x": x})

    text = "agreement: there is no observation 'x' among what the model.*model and guide are called with a dict of obs"
    with pytest.raises(ip.DeclarationError, match=text):
        agreement(redraw=["s"]).loss(Bare(Model()), Bare(Guide()), images()["x"])
    assert math.isfinite(ip.make_objective("balance", site="c_y").loss(Bare(Model()), Bare(Guide()), images()["x"]))
