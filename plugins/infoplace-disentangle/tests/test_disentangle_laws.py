"""The laws that infoplace asks of every objective; and that every objective is found by its name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from infoplace import describe_objective, list_objectives
from infoplace.testing import check_objective

import infoplace_disentangle
from infoplace_disentangle import Club

SPECS = [
    {"beta_tcvae": {"dataset_size": 100, "estimator": "stratified"}},
    {"hfvae": {"dataset_size": 100, "gamma": {"z_l": 0.5}}},
    {"factor_vae": {"dims": 4, "width": 8, "layers": 1}},
    {"dip_vae": {"kind": "II"}},
    {"info_vae": {"alpha": 0.5, "kernel": "imq"}},
    "hsic",
    Club(["z_g", "z_l"], [2, 2], 8, 1),
]


@pytest.mark.parametrize(
    "spec", SPECS, ids=["beta_tcvae", "hfvae", "factor_vae", "dip_vae", "info_vae", "hsic", "club"]
)
def test_every_law_holds(spec):
    # As one call: the laws as tests of their own make a new pair for each.
    check_objective(spec)


def test_every_entry_point_is_a_class_that_is_registered_under_its_name():
    folder = Path(__file__).parents[1]
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = project["entry-points"]["infoplace.objectives"]
    classes = {name: getattr(infoplace_disentangle, value.partition(":")[2]) for name, value in named.items()}
    assert {name: one.spec_name for name, one in classes.items()} == {name: name for name in named}
    assert {one.__name__ for one in classes.values()} == set(infoplace_disentangle.__all__)
    assert set(named) <= set(list_objectives())
    assert project["version"] == infoplace_disentangle.__version__


@pytest.mark.parametrize("name", infoplace_disentangle.__all__)
def test_every_parameter_is_described(name):
    objective = getattr(infoplace_disentangle, name)
    assert describe_objective(objective.spec_name).summary
    assert [one for one in objective.spec_parameters() if one not in objective.__doc__] == []
