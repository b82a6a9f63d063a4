"""A mixture's start, and how many of its classes are in use."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import infoplace as ip
from infoplace import training
from infoplace.clusters import _merged, _pruned, clusters_used, start_mixture
from infoplace.errors import DataError, DeclarationError

SHAPE = (1, 4, 4)
GROUPS = 3


class Last(nn.Module):
    """Reads the mean of each half of the image; its last layer makes of it mean, scale and, if there are any, classes."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.last = nn.Linear(2, outputs)
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.bias.zero_()
            self.last.weight[:2] = torch.eye(2)
            self.last.bias[2:4] = -4.0  # a narrow posterior

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.reshape(-1, 2, 8).mean(2))


def make(y: str = "enumerate", components: int = GROUPS) -> ip.Pair:
    prior = {"mixture": {"components": components, "y": y}}
    partition = ip.Partition({"z": ip.Block(2, prior=prior), "w": ip.Block(2)}, {"x": ip.Observation()})
    torch.manual_seed(0)
    classes = 0 if y == "marginal" else components
    return ip.make_pair(partition, SHAPE, networks={"encoders": {"z": Last(4 + classes)}})


def images(count: int = 60) -> tuple[Tensor, Tensor]:
    """Three groups: dark, bright above, bright below; and which group each is of."""
    group = torch.arange(count) % GROUPS
    halves = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]])[group]
    noise = torch.rand(count, 2, 8, generator=torch.Generator().manual_seed(1)) / 50
    return ((halves[:, :, None] + noise).reshape(-1, *SHAPE) * 255).round() / 255, group


def same_partition(left: Tensor, right: Tensor) -> bool:
    return torch.equal(left[:, None] == left, right[:, None] == right)


@pytest.mark.parametrize("how", ["kmeans", "gaussian_mixture"])
@pytest.mark.parametrize("y", ["enumerate", "gumbel", "marginal"])
def test_a_start_finds_the_groups_and_says_so(y: str, how: str) -> None:
    pair = make(y)
    x, group = images()
    before = torch.random.get_rng_state()
    classes = start_mixture(pair, x, how=how)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same_partition(classes, group)
    obs = pair.partition.observe(x)
    said = pair.classify(obs)["z"].probs
    assert torch.equal(said.argmax(1), classes)
    assert said.max(1).values.min() > 0.8
    prior: Any = pair.model.priors["z"]
    means = pair.encode(obs)["z"].mean
    for number in range(GROUPS):
        own = means[classes == number]
        torch.testing.assert_close(prior.means[number], own.mean(0))
    torch.testing.assert_close(prior.logits.softmax(0), torch.full((GROUPS,), 1 / GROUPS))
    assert clusters_used(pair, x) == {"z": GROUPS}


def test_a_start_leaves_mean_and_scale_of_the_posterior_alone() -> None:
    pair = make()
    x, _ = images()
    obs = pair.partition.observe(x)
    before = pair.encode(obs)["z"]
    start_mixture(pair, x)
    after = pair.encode(obs)["z"]
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.scale, after.scale)


def test_the_mixture_has_the_spread_of_its_groups() -> None:
    pair = make("marginal", components=2)
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(400) % 2
    halves = torch.tensor([[0.2, 0.5], [0.8, 0.5]])[group]
    halves = halves + torch.tensor([0.02, 0.1]) * torch.randn(400, 2, generator=generator)
    x = (halves.clamp(0, 1)[:, :, None].expand(-1, 2, 8).reshape(-1, *SHAPE) * 255).round() / 255
    start_mixture(pair, x)
    prior: Any = pair.model.priors["z"]
    means = pair.encode(pair.partition.observe(x))["z"].mean
    for number in range(2):
        own = means[(prior.means[number, 0] > 0.5) == (means[:, 0] > 0.5)]
        width = pair.encode(pair.partition.observe(x))["z"].variance[0]
        torch.testing.assert_close(prior.scales[number], (own.var(0) + width).sqrt(), rtol=0.02, atol=0)


@pytest.mark.parametrize("networks", ["small", "paper"])
def test_the_class_that_stock_encoders_say_is_that_of_the_fit(networks: str) -> None:
    prior = {"mixture": {"components": GROUPS, "y": "enumerate"}}
    partition = ip.Partition({"z": ip.Block(4, prior=prior)}, {"x": ip.Observation()})
    torch.manual_seed(0)
    pair = ip.make_pair(partition, (1, 8, 8), networks=networks)
    x = images()[0].repeat_interleave(2, 2).repeat_interleave(2, 3)
    classes = start_mixture(pair, x)
    assert torch.equal(pair.classify(partition.observe(x))["z"].probs.argmax(1), classes)


def test_a_start_makes_the_bound_no_worse_where_dimensions_are_unused() -> None:
    """Posteriors of width 1 with equal means: what a class has to cover is their width."""
    pair = make()
    with torch.no_grad():
        encoder: Any = pair.guide.encoders["z"]
        encoder.last.bias[2:4] = 0.5413  # the raw value of a scale of 1
        encoder.last.weight[1] = 0.0
    x, _ = images()
    obs = pair.partition.observe(x)
    objective = ip.make_objective("elbo")
    before = objective.terms(pair.model, pair.guide, obs)["kl/z"]
    start_mixture(pair, x)
    after = objective.terms(pair.model, pair.guide, obs)["kl/z"]
    assert after < before
    assert after / len(x) < 1.0


class Wider(nn.Module):
    """Its hidden layer is as wide as its output, which a rectifier makes no sum of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_an_encoder_that_ends_otherwise_keeps_its_class() -> None:
    prior = {"mixture": {"components": GROUPS, "y": "enumerate"}}
    pair = ip.make_pair(
        ip.Partition({"z": ip.Block(2, prior=prior)}, {"x": ip.Observation()}),
        SHAPE,
        networks={"encoders": {"z": Wider()}},
    )
    x, _ = images()
    obs = pair.partition.observe(x)
    before = pair.classify(obs)["z"].probs
    start_mixture(pair, x)
    assert torch.equal(pair.classify(obs)["z"].probs, before)


def test_means_that_are_alike_are_said_to_be() -> None:
    with pytest.raises(DataError, match="the means of 'z' fall into fewer than 3 clusters"):
        start_mixture(make(), torch.zeros(9, *SHAPE))


def test_how_many_classes_are_in_use() -> None:
    pair = make(components=7)
    x, _ = images()
    start_mixture(pair, x[:8])
    one = x[:1].expand(5, -1, -1, -1)
    assert clusters_used(pair, one) == {"z": 1}
    assert 2 <= clusters_used(pair, x)["z"] <= 7


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"block": "w"}, DeclarationError, "'w' is no block whose prior is a mixture of normals. Those are 'z'"),
        (
            {"how": "kmean"},
            DeclarationError,
            "how must be one of 'kmeans', 'gaussian_mixture', 'agreement', 'merged_agreement'; got 'kmean'. Did you mean",
        ),
        ({"how": "agreement"}, DeclarationError, "pass agreement=ip.make_objective('agreement', site='z_y', ...)"),
        (
            {"how": "merged_agreement"},
            DeclarationError,
            "how='merged_agreement' fits the classes of 'z' by what an agreement says of them; pass agreement=",
        ),
        (
            {"how": "agreement", "agreement": ip.make_objective("agreement", site="w_y", view="blur")},
            DeclarationError,
            "how='agreement' fits the classes of 'z' by what an agreement says of them",
        ),
        ({"batch": torch.zeros(2, *SHAPE)}, DataError, "there are 2 samples and 3 classes; give as many samples"),
        ({"batch": torch.zeros(0, *SHAPE)}, DataError, "there are 0 samples and 3 classes; give as many samples"),
    ],
)
def test_what_cannot_be_started(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"batch": images()[0], **change}
    with pytest.raises(error) as caught:
        start_mixture(make(), **arguments)
    assert text in str(caught.value)


class Halves(nn.Module):
    """Shows the first number of z in the upper half, and the first of w in the lower one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(-3.0))

    def forward(self, codes: Tensor) -> Tensor:
        shown = codes[:, [0, 2]].clamp(0, 1)[:, :, None].expand(-1, 2, 8).reshape(-1, *SHAPE) - 0.5
        return torch.cat([shown, self.scale.expand_as(shown)], 1)


def unalike(count: int = 300) -> tuple[Tensor, Tensor]:
    """The upper half is of three groups that differ little; the lower one is black or white, which says nothing of them."""
    group = torch.arange(count) % GROUPS
    generator = torch.Generator().manual_seed(1)
    lower = torch.randint(2, (count,), generator=generator).float()
    halves = torch.stack([0.3 + 0.15 * group, lower], 1)
    noise = torch.rand(count, 2, 8, generator=generator) / 50 - 0.01
    return ((halves[:, :, None] + noise).clamp(0, 1).reshape(-1, *SHAPE) * 255).round() / 255, group


def halves(components: int = GROUPS) -> ip.Pair:
    prior = {"mixture": {"components": components, "y": "enumerate"}}
    partition = ip.Partition({"z": ip.Block(2, prior=prior), "w": ip.Block(2)}, {"x": ip.Observation()})
    torch.manual_seed(0)
    networks = {"encoders": {"z": Last(4 + components)}, "decoders": {"x": Halves()}}
    return ip.make_pair(partition, SHAPE, networks=networks)


AGREEMENT = {"agreement": {"site": "z_y", "redraw": ["w"], "balance": 2.0}}


def test_a_start_by_agreement_finds_what_redrawing_leaves_alone() -> None:
    x, group = unalike()
    pair = halves()
    assert not same_partition(start_mixture(pair, x), group)
    before = torch.random.get_rng_state()
    classes = start_mixture(pair, x, how="agreement", agreement=ip.make_objective(AGREEMENT))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same_partition(classes, group)
    again = halves()
    assert torch.equal(start_mixture(again, x, how="agreement", agreement=ip.make_objective(AGREEMENT)), classes)
    said = pair.classify(pair.partition.observe(x))["z"].probs.argmax(1)
    assert (said == classes).float().mean() > 0.95


def test_a_merged_start_leaves_classes_beyond_the_groups_empty() -> None:
    x, group = unalike()
    pair = halves(components=7)
    agreement = ip.make_objective("agreement", site="z_y", redraw=["w"], entropy=0.4, balance=0.2)
    classes = start_mixture(pair, x, how="merged_agreement", agreement=agreement)
    assert same_partition(classes, group)
    assert clusters_used(pair, x) == {"z": GROUPS}
    prior: Any = pair.model.priors["z"]
    weights = prior.logits.softmax(0)
    torch.testing.assert_close(weights[classes.unique()], torch.full((GROUPS,), 1 / GROUPS), rtol=0.05, atol=0)
    again = halves(components=7)
    assert torch.equal(start_mixture(again, x, how="merged_agreement", agreement=agreement), classes)


def split_groups(sure: float) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of six classes for images and two versions of each: two a group, and which of the two is a coin's toss."""
    group = torch.arange(600) % GROUPS
    generator = torch.Generator().manual_seed(0)

    def said() -> Tensor:
        side = torch.randint(2, group.shape, generator=generator)
        one_hot = torch.nn.functional.one_hot(2 * group + side, 2 * GROUPS).double()
        return sure * one_hot + (1 - sure) / (2 * GROUPS)

    return said(), torch.stack([said(), said()]), group


def agreement_of(own: Tensor, versions: Tensor, entropy: float, balance: float) -> float:
    """The objective less its constant, by torch's distributions."""
    from torch.distributions import Categorical, kl_divergence

    image, both = Categorical(probs=own), Categorical(probs=versions)
    disagreement = kl_divergence(image.expand(both.batch_shape), both).mean()
    return float(disagreement + entropy * image.entropy().mean() - balance * Categorical(probs=own.mean(0)).entropy())


@pytest.mark.parametrize("entropy", [0.0, 0.4])
def test_merging_stops_where_the_objective_is_smallest(entropy: float) -> None:
    own, versions, _ = split_groups(0.97)
    groups, value = _merged(own, versions, entropy, 0.5)
    assert sorted(map(sorted, groups)) == [[0, 1], [2, 3], [4, 5]]
    merged, seen = (torch.stack([part[..., one].sum(-1) for one in groups], -1) for part in (own, versions))
    assert value == pytest.approx(agreement_of(merged, seen, entropy, 0.5), rel=1e-9)
    for others in ([[0, 1, 2, 3], [4, 5]], [[0, 1], [2, 3], [4], [5]], [[0, 2], [1, 3], [4, 5]]):
        merged, seen = (torch.stack([part[..., one].sum(-1) for one in others], -1) for part in (own, versions))
        assert value < agreement_of(merged, seen, entropy, 0.5)


def test_the_number_of_classes_falls_with_the_entropy_and_rises_with_the_balance() -> None:
    own, versions, _ = split_groups(0.6)
    # A coin's toss says nothing, but a balance that pays for it all keeps it.
    used = [len(_merged(own, versions, entropy, balance)[0]) for entropy, balance in ((0, 8), (0, 0.5), (4, 0.1))]
    assert used == [6, 3, 2]


def test_what_is_merged_is_left_as_it_was() -> None:
    own, versions, _ = split_groups(0.97)
    before = own.clone(), versions.clone()
    _merged(own, versions, 0.4, 0.2)
    assert torch.equal(own, before[0])
    assert torch.equal(versions, before[1])


def test_a_class_that_collects_what_fits_nowhere_is_dissolved() -> None:
    group = torch.arange(600) % GROUPS
    generator = torch.Generator().manual_seed(0)

    def seen() -> Tensor:
        # The second number is another one in every version; where it is large, a fourth class has the sample.
        noise = torch.rand(600, generator=generator)
        return torch.stack([group - 1.0, noise], 1)

    means, versions = seen(), torch.stack([seen() for _ in range(4)], 1)
    network = nn.Linear(2, 5)
    with torch.no_grad():
        # The last output belongs to no class.
        network.weight.copy_(torch.tensor([[-9.0, 0.0], [0.0, 0.0], [9.0, 0.0], [0.0, 60.0], [0.0, 0.0]]))
        network.bias.copy_(torch.tensor([0.0, 4.0, 0.0, -40.0, 9.0]))
    members = torch.full((4, 5), -torch.inf).fill_diagonal_(0.0)
    before = network(means)[:, :4].argmax(1)
    assert (before == 3).float().mean() > 0.1
    assert same_partition(before[before != 3], group[before != 3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found, kept = _pruned(network, members, means, versions, {"entropy": 1.0, "balance": 0.8})
    assert len(kept) == GROUPS
    assert kept.isfinite().nonzero()[:, 1].tolist() == [0, 1, 2]
    with torch.no_grad():
        classes = torch.logsumexp(found(means)[:, None] + kept, 2).argmax(1)
    assert same_partition(classes, group)


@pytest.mark.parametrize("fit", ["agreement", "merged_agreement"])
def test_a_training_starts_by_the_agreement_of_its_objective(fit: str) -> None:
    x, group = unalike()
    options: dict[str, Any] = {
        "steps": 2, "batch_size": 50, "mixture_start": 1, "mixture_fit": fit, "learning_rate": 1e-6, "device": "cpu",
        "progress": False,
    }  # fmt: skip
    pair = halves()
    parts = ["elbo", AGREEMENT]
    ip.fit(pair, x, {"sum": {"objectives": parts, "weights": [1.0, 1.0]}}, **options)
    said = pair.classify(pair.partition.observe(x))["z"].probs.argmax(1)
    assert max((said[group == one] == said[group == one].mode().values).float().mean() for one in range(GROUPS)) > 0.95
    with pytest.raises(
        DeclarationError,
        match=f"mixture_fit='{fit}' fits the classes of 'z' by the agreement on 'z_y', and there is none",
    ):
        ip.fit(halves(), x, "elbo", **options)


def test_a_pair_without_a_mixture_has_nothing_to_start() -> None:
    pair = ip.make_pair(ip.Partition({"z": ip.Block(2)}, {"x": ip.Observation()}), SHAPE)
    with pytest.raises(DeclarationError, match="no block's prior is a mixture of normals, so there is none to start"):
        start_mixture(pair, images()[0])
    with pytest.raises(
        DeclarationError, match=r"mixture_start=\[1\] starts the mixture of a block whose class is a latent"
    ):
        ip.fit(pair, images()[0], steps=2, mixture_start=1, device="cpu", progress=False)


def test_too_few_samples_are_found_before_the_first_step() -> None:
    with pytest.raises(DataError, match="there are 2 samples and 3 classes"):
        ip.fit(make(), images()[0][:2], steps=100, batch_size=2, mixture_start=99, device="cpu", progress=False)


@pytest.mark.parametrize("value", [-1, 5, True, 1.5, [1, 5], [[1]], "1"])
def test_a_start_outside_the_training(value: Any) -> None:
    with pytest.raises(DeclarationError, match="mixture_start must be a step, from 0 to below the number of steps"):
        ip.Settings(steps=5, mixture_start=value)


def test_a_training_starts_the_mixture_anew_at_every_step_that_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, x = make(), images()[0]
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        training, "start_mixture", lambda _, batch, *arguments: seen.append((len(batch["x"]), *arguments))
    )
    starts = {"steps": 6, "mixture_start": [1, 4], "mixture_fit": "gaussian_mixture", "seed": 3}
    log = ip.fit(pair, x, **starts, batch_size=8, log_every=1, device="cpu", progress=False)
    assert seen == [(len(x), "z", "gaussian_mixture", 3, None)] * 2
    assert len(log) == 6
    recipe = ip.Recipe(pair.partition, settings=ip.Settings(mixture_start=[1, 4]))
    assert recipe.settings.mixture_start == (1, 4)
    assert recipe.to_dict()["training"]["mixture_start"] == [1, 4]
    assert ip.Settings(mixture_start=[]).mixture_start is None
    assert ip.Settings(mixture_start=3) == ip.Settings(mixture_start=[3])


def test_a_training_starts_the_mixture_at_its_step_and_logs_the_classes_in_use(tmp_path: Path) -> None:
    x, group = images()
    options: dict[str, Any] = {
        "batch_size": 8, "log_every": 1, "mixture_start": 2, "learning_rate": 1e-6, "device": "cpu", "progress": False,
    }  # fmt: skip
    pair = make()
    log = ip.fit(pair, x, steps=4, checkpoint_every=2, out=tmp_path / "whole", **options)
    assert [row["clusters_used/z"] for row in log[2:]] == [GROUPS, GROUPS]
    assert log[1]["clusters_used/z"] < GROUPS
    assert same_partition(pair.classify(pair.partition.observe(x))["z"].probs.argmax(1), group)
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        assert [row["clusters_used/z"] for row in csv.DictReader(file)][2:] == ["3", "3"]


def test_a_resumed_training_starts_the_mixture_as_an_uninterrupted_one(tmp_path: Path) -> None:
    x, _ = images()
    options: dict[str, Any] = {
        "batch_size": 8, "schedule": "constant", "mixture_start": 2, "checkpoint_every": 1, "device": "cpu",
        "progress": False,
    }  # fmt: skip
    whole, halved = make(), make()
    ip.fit(whole, x, steps=4, **options)
    for steps in (3, 4):
        ip.fit(halved, x, steps=steps, out=tmp_path / "run", resume=steps > 3, **options)
    for left, right in zip(whole.parameters(), halved.parameters(), strict=True):
        assert torch.equal(left, right)
