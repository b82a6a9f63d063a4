"""Recipes: a training run as a file, checked when it is read."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import yaml

import infoplace as ip
from infoplace.recipe import shipped_recipes

SPEC = {
    "partition": {"blocks": {"z": {"dim": 2}}, "observations": {"x": {}}},
    "objective": {"beta_elbo": {"beta": 4.0}},
    "training": {"steps": 100, "learning_rate": 2e-3},
}


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_are_whole(name):
    recipe = ip.load_recipe(shipped_recipes()[name])
    assert recipe.data is not None
    pair = recipe.make_pair((3, 32, 32))
    observations = recipe.partition.observe(torch.zeros(2, 3, 32, 32))
    assert torch.isfinite(recipe.objective.terms(pair.model, pair.guide, observations)["loss"])


def test_round_trip(tmp_path):
    recipe = ip.Recipe.from_dict(SPEC)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.to_dict()))
    assert ip.load_recipe(file) == recipe


def test_numbers_without_a_dot_are_numbers(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "partition: {blocks: {z: {dim: 2, beta: 1e-3}}, observations: {x: {weight: 2E+1}}}\n"
        "objective: {beta_elbo: {beta: 1e1}}\ntraining: {learning_rate: 2e-3}\n"
    )
    recipe = ip.load_recipe(file)
    assert recipe.settings.learning_rate == 2e-3
    assert recipe.partition.blocks["z"].beta == 1e-3
    assert recipe.partition.observations["x"].weight == 20.0
    assert recipe.objective.beta == 10.0


def test_a_name_written_twice_is_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("partition: {blocks: {z: {dim: 2}}, observations: {x: {}}}\ndata: mnist\ndata: cifar10\n")
    with pytest.raises(ip.DeclarationError, match="'data' is written 2 times"):
        ip.load_recipe(file)


def test_the_seed_decides_the_start_and_leaves_the_global_state():
    recipe = ip.Recipe.from_dict(SPEC)
    state = torch.get_rng_state()
    one, two = (recipe.make_pair((1, 8, 8)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
    other = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, seed=1)).make_pair((1, 8, 8))
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"trainning": {}}, "a recipe has no 'trainning'. Did you mean 'training'"),
        ({"training": {"step": 5}}, "a recipe's training has no 'step'. Did you mean 'steps'"),
        ({"training": {"steps": 0}}, "steps must be a whole number of at least 1; got 0"),
        ({"training": {"steps": "many"}}, "steps must be a whole number"),
        ({"training": {"learning_rate": "fast"}}, "learning_rate must be a number above 0; got 'fast'"),
        ({"training": {"learning_rate": -1}}, "learning_rate must be a number above 0"),
        ({"training": {"clip": 0}}, "clip must be a number above 0"),
        ({"training": {"schedule": "one_cyle"}}, "Did you mean 'one_cycle'"),
        ({"training": {"precision": "bf16"}}, "precision must be one of"),
        ({"training": {"betas": [0.9]}}, "betas must be two numbers"),
        ({"training": {"seed": -1}}, "seed must be a whole number"),
        ({"training": 5}, "training is written as"),
        ({"objective": {"beta_elbo": {"bta": 1}}}, "Did you mean 'beta'"),
        ({"objective": "beta_elb"}, "Did you mean 'beta_elbo'"),
        ({"data": 3}, "data is a name or a path"),
        ({"partition": {"blocks": {"z": {"dims": 2}}, "observations": {"x": {}}}}, "blocks.z has no 'dims'"),
    ],
)
def test_a_typo_is_named(tmp_path, change, text):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**SPEC, **change}))
    with pytest.raises(ip.DeclarationError, match=text) as caught:
        ip.load_recipe(file)
    assert str(caught.value).startswith(str(file))


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(ip.RunFolderError, match="cannot read the recipe"):
        ip.load_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ip.DeclarationError, match="is not YAML"):
        ip.load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ip.DeclarationError, match="a recipe is written as"):
        ip.load_recipe(tmp_path / "empty.yaml")
    (tmp_path / "no_partition.yaml").write_text("data: mnist\n")
    with pytest.raises(ip.DeclarationError, match="a recipe needs a partition"):
        ip.load_recipe(tmp_path / "no_partition.yaml")


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_learning_rates(schedule):
    settings = ip.Settings(steps=200, learning_rate=1.0, schedule=schedule)
    rates = [settings.learning_rate_at(step) for step in range(200)]
    assert max(rates) == pytest.approx(1.0)
    peak = {"one_cycle": 20, "cosine": 0, "constant": 0}[schedule]
    assert rates[peak] == pytest.approx(1.0)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == (1.0 if schedule == "constant" else pytest.approx(0.0, abs=1e-3))
