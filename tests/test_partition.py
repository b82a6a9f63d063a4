"""The declaration: what it refuses and in which words, what it fills in, how it is written, and what it observes."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
import yaml
from torch import Tensor, nn

from infoplace.distributions import Likelihood, Prior, make_likelihood, make_prior, register_likelihood, register_prior
from infoplace.errors import DataError, DeclarationError, RunFolderError, UnknownNameError
from infoplace.partition import Block, Covariate, Observation, Partition, read_yaml
from infoplace.registry import Registry
from infoplace.transforms import Transform, compose, make_transform, register_transform


@pytest.fixture(autouse=True)
def registries_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Transform, Likelihood, Prior):
        registry = next(item for item in vars(sys.modules[kind.__module__]).values() if isinstance(item, Registry))
        for field in ("_implementations", "_owners", "_presets"):
            monkeypatch.setattr(registry, field, dict(getattr(registry, field)))
        # Other tests may have left presets of their own behind.
        registry._presets.clear()
    yield
    monkeypatch.undo()


def message(call: Callable[[], Any], error: type[Exception] = DeclarationError) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 4, shape: tuple[int, ...] = (3, 16, 16), seed: int = 3) -> Tensor:
    return torch.randint(0, 256, (batch, *shape), generator=seeded(seed)).float() / 255


def on_the_grid(x: Tensor, bins: int = 256) -> bool:
    scaled = x.double() * (bins - 1)
    return bool((scaled - scaled.round()).abs().max() < 1e-4)


def one(**observation: Any) -> Partition:
    """The data, and one observation derived from it."""
    return Partition({"z": Block(2)}, {"x": Observation(), "x_hat": Observation(**observation)})


SHUFFLE = {"patch_shuffle": {"n": 4}}
LABEL = Observation(source="label", likelihood="categorical")


def paper() -> Partition:
    return Partition(
        blocks={"z_g": Block(64), "z_l": Block(64)},
        observations={
            "x": Observation(blocks=("z_g", "z_l")),
            "x_hat": Observation(blocks=("z_l",), transform="patch_shuffle"),
        },
    )


def everything() -> Partition:
    """A partition that says all that can be said."""
    return Partition(
        blocks={
            "z_g": Block(8, prior={"mixture": {"components": 3}}, beta=0.5),
            "z_l": Block(4, reads=("x", "x_hat")),
            "z_y": Block(2, beta=0),
        },
        observations={
            "x_grey": Observation(of="x_hat", blocks=("z_l",), transform={"grayscale": {"channels": 1}}, weight=2),
            "x": Observation(),
            "x_hat": Observation(blocks=("z_l",), transform=SHUFFLE, of="x", redraw=True),
            "y": Observation(blocks=["z_y"], source="label", likelihood={"categorical": {"classes": 4}}),
            "x_soft": Observation(
                blocks=("z_g", "z_y"), source="x", transform=["blur", {"mask": {"n": 4}}], likelihood="normal"
            ),
        },
    )


ALL = [
    paper,
    everything,
    lambda: one(transform="blur"),
    lambda: Partition({"z": Block(1)}, {"x": Observation()}),
    lambda: Partition({"z": Block(1)}, {"x": Observation(), "y": LABEL}),
    lambda: one(transform=compose("grayscale", SHUFFLE), likelihood="laplace"),
]
laws = pytest.mark.parametrize("make", ALL)


# ---- what a block and an observation refuse ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"dim": 0}, "a block's dim must be a whole number of at least 1; got 0"),
        ({"dim": -3}, "a block's dim must be a whole number of at least 1; got -3"),
        ({"dim": 2.0}, "a block's dim must be a whole number of at least 1; got 2.0"),
        ({"dim": True}, "a block's dim must be a whole number of at least 1; got True"),
        ({"dim": "64"}, "a block's dim must be a whole number of at least 1; got '64'"),
        ({"dim": 2, "beta": -1}, "a block's beta must be at least 0; got -1"),
        ({"dim": 2, "beta": float("nan")}, "a block's beta must be at least 0; got nan"),
        ({"dim": 2, "beta": float("inf")}, "a block's beta must be at least 0; got inf"),
        ({"dim": 2, "beta": None}, "a block's beta must be a number; got None"),
        (
            {"dim": 2, "beta": "much"},
            "a block's beta must be a number; got 'much'",
        ),
        (
            {"dim": 2, "prior": {"mixture": {"components": 1}}},
            "mixture: components must be an integer of at least 2; got 1",
        ),
        ({"dim": 2, "prior": 3}, "a prior is written as a name or as {name: {parameter: value}}; got 3"),
        ({"dim": 2, "reads": "x"}, "a block's reads is a list of names; write ('x',) for a single one"),
        ({"dim": 2, "reads": {"x"}}, "a block's reads is a list of names; got {'x'}"),
        ({"dim": 2, "reads": (1,)}, "a block's reads is a list of names; got (1,)"),
        ({"dim": 2, "reads": ()}, "a block's reads is empty; name at least one, or leave it out for the default"),
        ({"dim": 2, "reads": ("x", "y", "x")}, "a block's reads names 'x' twice"),
    ],
)
def test_a_block_that_cannot_be(arguments: dict[str, Any], expected: str) -> None:
    assert message(lambda: Block(**arguments)).startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"blocks": "z"}, "an observation's blocks is a list of names; write ('z',) for a single one"),
        ({"blocks": ()}, "an observation's blocks is empty; name at least one, or leave it out for the default"),
        ({"blocks": ("z", "z")}, "an observation's blocks names 'z' twice"),
        ({"source": 3}, "an observation's source is one name; got 3"),
        ({"of": ("x",), "transform": "blur"}, "an observation's of is one name; got ('x',)"),
        (
            {"source": "x", "of": "y", "transform": "blur"},
            "an observation has source='x' and of='y'; give one: source= takes it from the batch, of= derives it from "
            "another observation",
        ),
        ({"of": "x"}, "an observation derived of='x' needs a transform="),
        ({"transform": "blur", "redraw": 1}, "redraw is True or False; got 1"),
        ({"redraw": True}, "redraw=True draws a transform twice, and this observation has none; add transform="),
        (
            {"redraw": True, "transform": "blur"},
            "redraw=True draws a transform twice, and Blur(sigma=2.0) is not random; leave redraw out",
        ),
        ({"weight": 0}, "an observation's weight must be above 0; got 0"),
        ({"weight": -1.5}, "an observation's weight must be above 0; got -1.5"),
        ({"weight": float("nan")}, "an observation's weight must be above 0; got nan"),
        ({"weight": True}, "an observation's weight must be a number; got True"),
        ({"transform": {"blur": {"sigma": 0}}}, "blur: sigma must be a number above 0; got 0"),
        ({"transform": {"blur": {"sgma": 1}}}, "blur has no parameter 'sgma'. Did you mean 'sigma'? It takes: sigma"),
        ({"transform": []}, "compose: transforms must be a list of at least one transform; got ()"),
        ({"likelihood": None}, "a likelihood is written as a name or as {name: {parameter: value}}; got None"),
    ],
)
def test_an_observation_that_cannot_be(arguments: dict[str, Any], expected: str) -> None:
    assert message(lambda: Observation(**arguments)).startswith(expected)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: Observation(transform="patchshuffle"),
            "there is no transform named 'patchshuffle'. Did you mean 'patch_shuffle'?",
        ),
        (
            lambda: Observation(likelihood="bernouli"),
            "there is no likelihood named 'bernouli'. Did you mean 'bernoulli'?",
        ),
        (lambda: Block(2, prior="mixtur"), "there is no prior named 'mixtur'. Did you mean 'mixture'?"),
    ],
)
def test_an_unknown_name_in_a_part(make: Callable[[], Any], expected: str) -> None:
    assert message(make, UnknownNameError).startswith(expected)


# ---- what a partition refuses ------------------------------------------------------------------------------------------


Z = {"z": Block(2)}
X = {"x": Observation()}


@pytest.mark.parametrize(
    ("blocks", "observations", "expected"),
    [
        # unknown, unused, nothing to read
        (
            {"z_g": Block(2), "z_l": Block(2)},
            {"x": Observation(blocks=("z_g", "z_1"))},
            "observation 'x' hangs on 'z_1', and there is no such block. Did you mean 'z_l'? "
            "The blocks are 'z_g', 'z_l'",
        ),
        (
            {"z_g": Block(2), "z_l": Block(2)},
            {"x": Observation(blocks=("z_g",))},
            "no observation hangs on block 'z_l'; name it in an observation's blocks, or remove it",
        ),
        (
            {"z": Block(2, reads=("x_hut",))},
            {"x": Observation(), "x_hat": Observation(transform="blur")},
            "block 'z' reads 'x_hut', and there is no such observation. Did you mean 'x_hat'? "
            "The observations are 'x', 'x_hat'",
        ),
        # derivations
        (
            Z,
            {"x_hat": Observation(transform="blur")},
            "every observation is derived by a transform, so nothing models the data itself; add one without a "
            "transform that hangs on all the blocks: 'x': ip.Observation(blocks=('z',))",
        ),
        (
            {"z_g": Block(2), "z_l": Block(2)},
            {"x_hat": Observation(transform="blur", source="x")},
            "every observation is derived by a transform, so nothing models the data itself; add one without a "
            "transform that hangs on all the blocks: 'x': ip.Observation(blocks=('z_g', 'z_l'))",
        ),
        (
            Z,
            {**X, "x_hat": Observation(transform="blur", of="y")},
            "observation 'x_hat' is derived of='y', and there is no such observation. "
            "The observations are 'x', 'x_hat'",
        ),
        (
            Z,
            {**X, "y": LABEL, "x_hat": Observation(transform="blur")},
            "observation 'x_hat' is derived by a transform, and there are 2 given observations to derive it from "
            "('x', 'y'); say which with of=..., or take it from the batch with source=...",
        ),
        (
            Z,
            {**X, "a": Observation(transform="blur", of="a")},
            "the observations are derived from each other in a circle: a -> a",
        ),
        (
            Z,
            {
                "d": Observation(transform="blur", of="a"),
                "a": Observation(transform="blur", of="c"),
                "b": Observation(transform="blur", of="a"),
                "c": Observation(transform="blur", of="b"),
                **X,
            },
            "the observations are derived from each other in a circle: a -> c -> b -> a",
        ),
        # names
        ({"x": Block(2)}, X, "'x' names both a block and an observation; rename one of them"),
        (
            Z,
            {**X, "y": Observation(transform=SHUFFLE, redraw=True), "y_read": Observation(transform="blur")},
            "'y_read' is the name of 'y''s second draw (redraw=True); rename that one",
        ),
        (
            {"y_read": Block(2)},
            {**X, "y": Observation(transform=SHUFFLE, redraw=True)},
            "'y_read' is the name of 'y''s second draw (redraw=True); rename that one",
        ),
        # forms
        ({}, X, "a partition's blocks are a dict with at least one entry, {name: ip.Block(64)}; got {}"),
        (
            Z,
            {},
            'a partition\'s observations are a dict with at least one entry, {name: ip.Observation(blocks=("z",))}',
        ),
        ([Block(2)], X, "a partition's blocks are a dict with at least one entry, {name: ip.Block(64)}; got [Block("),
        ({"z": 64}, X, "blocks['z'] must be an ip.Block, as ip.Block(64); got 64"),
        (
            Z,
            {"x": "blur"},
            "observations['x'] must be an ip.Observation, as ip.Observation(blocks=(\"z\",)); got 'blur'",
        ),
        (Z, {"x": Block(2)}, "observations['x'] must be an ip.Observation"),
    ],
)
def test_a_partition_that_cannot_be(blocks: Any, observations: Any, expected: str) -> None:
    assert message(lambda: Partition(blocks, observations)).startswith(expected)


@pytest.mark.parametrize("name", ["z-g", "8", "", "_z", "z g", "z.g", 3, None])
@pytest.mark.parametrize("part", ["blocks", "observations"])
def test_a_bad_name(name: Any, part: str) -> None:
    make = (
        (lambda: Partition({name: Block(2)}, X)) if part == "blocks" else (lambda: Partition(Z, {name: Observation()}))
    )
    assert message(make) == (
        f"{name!r} cannot be a name in {part}: use letters, digits and underscores, a letter first, as in 'z_g'"
    )


@pytest.mark.parametrize("name", ["type", "float", "keys", "forward", "training"])
def test_a_name_that_modules_use(name: str) -> None:
    assert message(lambda: Partition({name: Block(2)}, X)) == (
        f"'{name}' cannot be a name in blocks: torch's modules use it; try '{name}_'"
    )
    with pytest.raises(KeyError):  # so that the reason stays true
        nn.ModuleDict({name: nn.Identity()})


# ---- what a partition fills in ------------------------------------------------------------------------------------------


def test_the_papers_factorised_posterior_is_the_default() -> None:
    partition = paper()
    assert partition.blocks["z_g"].reads == ("x",)
    assert partition.blocks["z_l"].reads == ("x_hat",)
    assert partition.observations["x"].source == "x"
    assert partition.observations["x_hat"].of == "x"
    assert partition.observations["x_hat"].source is None
    assert partition.sources == ("x",)


def test_a_block_reads_every_derived_observation_that_hangs_on_it_or_else_every_given_one() -> None:
    partition = Partition(
        {"a": Block(1), "b": Block(1), "c": Block(1, reads=["y"])},
        {
            "x": Observation(),
            "y": LABEL,
            "x_blur": Observation(blocks=("a",), transform="blur", of="x"),
            "x_edge": Observation(blocks=("a", "c"), transform="edges", of="x"),
        },
    )
    assert {name: block.reads for name, block in partition.blocks.items()} == {
        "a": ("x_blur", "x_edge"),
        "b": ("x", "y"),
        "c": ("y",),
    }


def test_an_observation_without_blocks_hangs_on_all_of_them() -> None:
    assert paper().observations["x"].blocks == ("z_g", "z_l")
    partition = Partition({"a": Block(1), "b": Block(1)}, {"x": Observation()})
    assert partition.observations["x"].blocks == ("a", "b")


def test_sources_are_named_once_and_an_observations_own_name_is_the_default() -> None:
    assert everything().sources == ("x", "label")
    assert Partition(Z, {"y": LABEL, "image": Observation(source="image")}).sources == ("label", "image")


def test_what_was_given_is_not_changed() -> None:
    block, observation = Block(2), Observation()
    blocks, observations = {"z": block}, {"x": observation}
    Partition(blocks, observations)
    assert block.reads is None
    assert observation.blocks is None
    assert observation.source is None
    assert blocks == {"z": block}
    assert observations == {"x": observation}


def test_what_has_a_name_is_made_when_it_is_declared() -> None:
    partition = everything()
    assert partition.blocks["z_g"].prior == make_prior("mixture", components=3)
    assert partition.observations["x_hat"].transform == make_transform(SHUFFLE)
    assert partition.observations["y"].likelihood == make_likelihood("categorical", classes=4)
    assert partition.blocks["z_y"].beta == 0.0


# ---- round trips, equality, freezing --------------------------------------------------------------------------------------


@laws
def test_a_partition_comes_back_equal_from_every_form(make: Callable[[], Partition], tmp_path: Path) -> None:
    partition = make()
    (tmp_path / "partition.yaml").write_text(partition.to_yaml(), encoding="utf-8")
    (tmp_path / "partition.json").write_text(partition.to_json(), encoding="utf-8")
    others = [
        Partition.from_dict(partition.to_dict()),
        Partition.from_json(partition.to_json()),
        Partition.from_yaml(partition.to_yaml()),
        Partition.from_file(tmp_path / "partition.yaml"),
        Partition.from_file(str(tmp_path / "partition.json")),
        copy.copy(partition),
        copy.deepcopy(partition),
        pickle.loads(pickle.dumps(partition)),
        make(),
    ]
    for other in others:
        assert other == partition
        assert hash(other) == hash(partition)
        assert other.to_dict() == partition.to_dict()
        assert other.observed_names == partition.observed_names
        assert other.diagram() == partition.diagram()


@laws
def test_a_spec_is_made_of_plain_values_with_nothing_left_out(make: Callable[[], Partition]) -> None:
    partition = make()
    spec = partition.to_dict()
    assert json.loads(json.dumps(spec)) == yaml.safe_load(yaml.safe_dump(spec)) == spec
    for part, item in (("blocks", Block), ("observations", Observation), ("covariates", Covariate)):
        for fields in spec[part].values():
            assert list(fields) == [field.name for field in dataclasses.fields(item)]
    assert all(fields["reads"] for fields in spec["blocks"].values())
    assert all(fields["blocks"] for fields in spec["observations"].values())


@laws
def test_a_copy_observes_the_same(make: Callable[[], Partition]) -> None:
    partition = make()
    batch = {"x": images(), "label": torch.tensor([0, 1, 2, 3])}
    expected = partition.observe(batch, generator=seeded())
    for other in (
        copy.deepcopy(partition),
        pickle.loads(pickle.dumps(partition)),
        Partition.from_yaml(partition.to_yaml()),
    ):
        found = other.observe(batch, generator=seeded())
        assert list(found) == list(expected)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_partitions_that_differ_are_not_equal() -> None:
    made = [make() for make in ALL]
    made += [
        Partition({"z": Block(1, beta=2)}, {"x": Observation()}),
        Partition({"z": Block(1, prior="mixture")}, {"x": Observation()}),
        Partition({"z": Block(1)}, {"x": Observation(weight=2)}),
        Partition({"z": Block(1)}, {"x": Observation(likelihood="normal")}),
        Partition({"z": Block(1)}, {"x": Observation(source="image")}),
    ]
    assert len(set(made)) == len(made)
    assert paper() != paper().to_dict()
    assert paper() != "paper"


def test_names_specs_and_objects_declare_the_same() -> None:
    declared = [
        one(transform="blur", likelihood="discretized_logistic"),
        one(transform={"blur": {"sigma": 2}}, likelihood={"discretized_logistic": {"bins": 256}}, weight=1),
        one(transform=make_transform("blur"), likelihood=make_likelihood("discretized_logistic"), of="x", blocks=["z"]),
    ]
    assert len(set(declared)) == 1


def test_a_partition_does_not_depend_on_the_presets_of_the_day() -> None:
    register_transform("patch_shuffle", n=4)
    register_likelihood("normal", scale=0.5)
    register_prior("mixture", components=7)

    def declare() -> Partition:
        return Partition(
            {"z": Block(2, prior="mixture")},
            {"x": Observation(likelihood="normal"), "x_hat": Observation(transform="patch_shuffle")},
        )

    partition, number, spec = declare(), hash(declare()), declare().to_dict()
    text = partition.to_yaml()
    register_transform("patch_shuffle", n=2)
    register_likelihood("normal", scale=0.1)
    register_prior("mixture", components=3)
    assert partition.to_dict() == spec
    assert hash(partition) == number
    assert partition.shapes((3, 4, 4))["x_hat"] == (3, 4, 4)
    assert Partition.from_yaml(text) == Partition.from_dict(spec) == copy.deepcopy(partition) == partition
    assert declare() != partition
    assert spec["observations"]["x_hat"]["transform"] == {"patch_shuffle": {"n": 4, "dims": 2}}


def test_nothing_of_a_partition_can_be_changed() -> None:
    partition = paper()
    with pytest.raises(dataclasses.FrozenInstanceError):
        partition.blocks = {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        partition.blocks["z_g"].dim = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        partition.observations["x"].weight = 3.0
    with pytest.raises(TypeError):
        partition.blocks["z_new"] = Block(2)
    with pytest.raises(TypeError):
        del partition.observations["x"]


def test_the_mappings_read_as_dicts_do() -> None:
    blocks = paper().blocks
    assert list(blocks) == ["z_g", "z_l"]
    assert len(blocks) == 2
    assert dict(blocks) == blocks
    assert hash(blocks) == hash(paper().blocks)
    assert repr(blocks) == repr(dict(blocks))
    assert "z_g" in repr(paper())


# ---- reading what people write ---------------------------------------------------------------------------------------------


def test_a_file_as_people_write_it() -> None:
    text = """
    blocks:
      z_g: {dim: 64, prior: {mixture: {components: 30}}}
      z_l: {dim: 64}
    observations:
      x:     {blocks: [z_g, z_l], likelihood: discretized_logistic}
      x_hat: {blocks: [z_l], transform: {patch_shuffle: {n: 8}}}
    """
    assert Partition.from_yaml(text) == Partition(
        {"z_g": Block(64, prior=make_prior("mixture", components=30)), "z_l": Block(64)},
        {"x": Observation(), "x_hat": Observation(blocks=("z_l",), transform=make_transform("patch_shuffle", n=8))},
    )


GOOD = {"blocks": {"z": {"dim": 2}}, "observations": {"x": {}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"block": {}}, "a partition has no 'block'. Did you mean 'blocks'? It takes: blocks, observations"),
        ({"blocks": None}, "a partition's blocks are written as {name: {...}}; got None"),
        ({"observations": ["x"]}, "a partition's observations are written as {name: {...}}; got ['x']"),
        ({"blocks": {"z": 64}}, "blocks.z is written as {key: value}; got 64"),
        ({"blocks": {"z": {}}}, "blocks.z needs its number of dimensions: z: {dim: 64}"),
        (
            {"blocks": {"z": {"dims": 2}}},
            "blocks.z has no 'dims'. Did you mean 'dim'? It takes: dim, prior, beta, reads",
        ),
        ({"blocks": {"z": {"dim": 0}}}, "blocks.z: a block's dim must be a whole number of at least 1; got 0"),
        (
            {"observations": {"x": {"likelyhood": "normal"}}},
            "observations.x has no 'likelyhood'. Did you mean 'likelihood'? It takes: blocks, transform, source, of, "
            "likelihood, weight, redraw",
        ),
        ({"observations": {"x": {"weight": -1}}}, "observations.x: an observation's weight must be above 0; got -1"),
        (
            {"observations": {"x": {"blocks": ["y"]}}},
            "observation 'x' hangs on 'y', and there is no such block. The blocks are 'z'",
        ),
        ({"blocks": {}}, "a partition's blocks are a dict with at least one entry"),
    ],
)
def test_a_typo_in_a_spec(change: dict[str, Any], expected: str) -> None:
    assert message(lambda: Partition.from_dict({**GOOD, **change})).startswith(expected)


def test_an_unknown_name_in_a_spec_says_where_it_is() -> None:
    spec = {**GOOD, "observations": {"x": {}, "x_hat": {"transform": "blurr"}}}
    text = message(lambda: Partition.from_dict(spec), UnknownNameError)
    assert text.startswith("observations.x_hat: there is no transform named 'blurr'. Did you mean 'blur'?")


@pytest.mark.parametrize("spec", [None, "blocks", [1], 3])
def test_something_that_is_no_spec(spec: Any) -> None:
    expected = f"a partition is written as {{blocks: ..., observations: ...}}; got {spec!r}"
    assert message(lambda: Partition.from_dict(spec)) == expected
    assert message(lambda: Partition.from_json(json.dumps(spec))) == expected


def test_text_of_another_language() -> None:
    assert message(lambda: Partition.from_json("{blocks: ")).startswith("the partition is not JSON: Expecting property")
    assert message(lambda: Partition.from_yaml("blocks: {z: [")).startswith("the partition is not YAML: while parsing")


def test_a_name_that_is_written_twice_is_an_error_instead_of_the_last_one_winning() -> None:
    expected = "'z' is written 2 times in one place; rename or remove all but one"
    twice = '{"blocks": {"z": {"dim": 2}, "z": {"dim": 3}}, "observations": {"x": {}}}'
    assert message(lambda: Partition.from_json(twice)) == expected
    assert message(lambda: Partition.from_yaml(twice)) == expected
    assert (
        message(lambda: Partition.from_yaml("blocks:\n  z: {dim: 2}\n  z: {dim: 3}\nobservations: {x: {}}")) == expected
    )


def test_yaml_may_still_repeat_itself_by_anchors() -> None:
    text = "blocks:\n  a: &block {dim: 2, beta: 3}\n  b: {<<: *block, dim: 5}\nobservations: {x: {}}"
    partition = Partition.from_yaml(text)
    assert (partition.blocks["b"].dim, partition.blocks["b"].beta) == (5, 3.0)
    assert read_yaml(text) == yaml.safe_load(text)


def test_yaml_makes_no_objects() -> None:
    assert message(lambda: Partition.from_yaml("!!python/object/apply:os.getcwd []")).startswith(
        "the partition is not YAML"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, binary, bad = tmp_path / "missing.yaml", tmp_path / "binary.yaml", tmp_path / "bad.json"
    binary.write_bytes(b"\xff\xfe\x00\xd8")
    bad.write_text('{"blocks": {}}')
    assert message(lambda: Partition.from_file(missing), RunFolderError) == (
        f"cannot read the partition {missing}: No such file or directory"
    )
    assert message(lambda: Partition.from_file(tmp_path), RunFolderError) == (
        f"cannot read the partition {tmp_path}: Is a directory"
    )
    assert message(lambda: Partition.from_file(binary), RunFolderError) == (
        f"cannot read the partition {binary}: it is not UTF-8 text"
    )
    assert message(lambda: Partition.from_file(bad)) == (
        f"{bad}: a partition's observations are written as {{name: {{...}}}}; got None"
    )


# ---- observing ---------------------------------------------------------------------------------------------------------------


def test_what_is_given_is_passed_on_and_what_is_derived_is_the_transform_of_it() -> None:
    x = images()
    observed = one(transform=SHUFFLE).observe(x, generator=seeded())
    assert list(observed) == ["x", "x_hat"]
    assert observed["x"] is x
    assert torch.equal(observed["x_hat"], make_transform(SHUFFLE)(x, generator=seeded()))
    assert not torch.equal(observed["x_hat"], x)


def test_the_same_generator_state_gives_the_same_draws_and_another_gives_others() -> None:
    x, partition = images(), one(transform=SHUFFLE, redraw=True)
    first, again, other = (partition.observe(x, generator=seeded(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["x_hat"], other["x_hat"])


def test_a_generator_leaves_the_global_randomness_alone_and_without_one_it_is_used() -> None:
    x, partition = images(), one(transform=SHUFFLE)
    state = torch.get_rng_state()
    partition.observe(x, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = partition.observe(x)["x_hat"], partition.observe(x)["x_hat"]
        torch.manual_seed(0)
        assert torch.equal(partition.observe(x)["x_hat"], first)
        assert not torch.equal(first, second)


def test_redraw_gives_a_second_and_independent_draw() -> None:
    # One patch of 9 marks where it went: independent draws put it in the same place one time in 9.
    x = torch.zeros(4000, 1, 3, 3)
    x[:, :, 0, 0] = 1
    partition = one(transform={"patch_shuffle": {"n": 1}}, redraw=True)
    assert partition.observed_names == ("x", "x_hat", "x_hat_read")
    assert partition.read_name("x_hat") == "x_hat_read"
    assert partition.read_name("x") == "x"
    observed = partition.observe(x, generator=seeded())
    assert list(observed) == ["x", "x_hat", "x_hat_read"]
    places = [observed[name].flatten(1).argmax(1) for name in ("x_hat", "x_hat_read")]
    together = torch.bincount(places[0] * 9 + places[1], minlength=81).float()
    expected = 4000 / 81
    assert ((together - expected) ** 2 / expected).sum() < 140  # chi-square, 80 degrees of freedom: 1 in 30,000


def test_chains_are_derived_in_order_however_they_are_declared() -> None:
    parts = {
        "x": Observation(),
        "a": Observation(transform={"posterize": {"levels": 2}}, of="x"),
        "b": Observation(transform="blur", of="a"),
        "c": Observation(transform="edges", of="b"),
    }
    x, grid = images(), make_likelihood("discretized_logistic")
    expected = {"x": x}
    for name, transform, of in (("a", "posterize", "x"), ("b", "blur", "a"), ("c", "edges", "b")):
        spec = {"posterize": {"levels": 2}} if name == "a" else transform
        expected[name] = grid.round(make_transform(spec)(expected[of]))
    for order in (["x", "a", "b", "c"], ["c", "b", "a", "x"], ["b", "x", "c", "a"]):
        observed = Partition(Z, {name: parts[name] for name in order}).observe(x)
        assert list(observed) == order
        for name in order:
            torch.testing.assert_close(observed[name], expected[name], rtol=0, atol=0)


def test_a_source_is_transformed_straight_from_the_batch() -> None:
    partition = Partition(Z, {"x": Observation(), "other": Observation(source="second", transform="posterize")})
    batch = {"x": images(seed=1), "second": images(shape=(1, 5, 5), seed=2)}
    observed = partition.observe(batch)
    torch.testing.assert_close(observed["other"], make_transform("posterize")(batch["second"]), rtol=0, atol=1e-6)
    assert partition.sources == ("x", "second")


def test_derived_values_are_rounded_to_the_grid_of_their_own_likelihood() -> None:
    x = images()
    raw = make_transform("blur")(x)
    assert not on_the_grid(raw)
    for likelihood, bins in (("discretized_logistic", 256), ({"discretized_logistic": {"bins": 8}}, 8)):
        rounded = one(transform="blur", likelihood=likelihood).observe(x)["x_hat"]
        assert on_the_grid(rounded, bins)
        assert (rounded - raw).abs().max() <= 0.5 / (bins - 1) + 1e-6
        make_likelihood(likelihood).check(rounded, "x_hat")
    twice = one(transform=["noise"], redraw=True).observe(x)
    assert on_the_grid(twice["x_hat"])
    assert on_the_grid(twice["x_hat_read"])
    assert torch.equal(one(transform="blur", likelihood="normal").observe(x)["x_hat"], raw)


def test_labels_are_given_beside_images() -> None:
    partition = Partition({"z": Block(2)}, {"x": Observation(), "y": LABEL})
    batch = {"x": images(), "label": torch.tensor([3, 0, 9, 1]), "index": "ignored"}
    observed = partition.observe(batch)
    assert list(observed) == ["x", "y"]
    assert observed["y"] is batch["label"]
    assert "index" not in observed


def test_a_single_source_may_be_the_tensor_or_a_dict() -> None:
    x, partition = images(), one(transform="blur")
    assert torch.equal(partition.observe(x)["x_hat"], partition.observe({"x": x, "label": None})["x_hat"])


def test_the_batch_is_never_modified() -> None:
    x = images()
    before = x.clone()
    everything().observe({"x": x, "label": torch.tensor([0, 1, 2, 3])})
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (
            np.zeros((2, 3, 8, 8)),
            "a batch is a tensor [batch, ...] or a dict of tensors; got ndarray. A numpy array becomes one with "
            "torch.from_numpy(array)",
        ),
        (None, "a batch is a tensor [batch, ...] or a dict of tensors; got NoneType."),
        (
            [torch.zeros(2, 3, 8, 8)],
            "a batch is a tensor [batch, ...] or a dict of tensors; got list. A data loader's batch is a list of "
            "tensors: pass the one that is meant, as batch[0]",
        ),
        (torch.zeros(0, 3, 8, 8), "x is an empty batch of shape [0, 3, 8, 8]; give at least one sample"),
        (torch.tensor(1.0), "x must be a tensor [batch, ...]; got a single number"),
        ({"image": torch.zeros(2, 3, 8, 8)}, "the batch has no 'x'. It holds 'image'"),
        ({"X_": torch.zeros(2), "xs": torch.zeros(2)}, "the batch has no 'x'. Did you mean 'xs'? It holds 'X_', 'xs'"),
        ({}, "the batch has no 'x'. It holds (none)"),
        ({"x": np.zeros((2, 3, 8, 8))}, "x must be a tensor [batch, ...]; got ndarray"),
    ],
)
def test_a_batch_that_is_none(batch: Any, expected: str) -> None:
    for read in (one(transform="blur").observe, one(transform="blur").check):
        assert message(lambda read=read: read(batch), DataError).startswith(expected)


def test_a_batch_of_several_sources_that_does_not_fit() -> None:
    partition = Partition(Z, {"x": Observation(), "y": LABEL})
    x, label = images(), torch.tensor([0, 1, 2])
    assert message(lambda: partition.observe(x), DataError) == (
        "this partition has 2 sources, so a batch is a dict: {'x': ..., 'label': ...}"
    )
    assert message(lambda: partition.observe({"x": x, "labels": label}), DataError) == (
        "the batch has no 'label'. Did you mean 'labels'? It holds 'x', 'labels'"
    )
    assert message(lambda: partition.observe({"x": x, "label": label}), DataError) == (
        "label has 3 samples and the source before it 4; they must agree"
    )


BAD_VALUES = [
    (images() * 255, "x: values must lie in [0, 1] on the grid k/255; got .* Divide by 255"),
    (images() * 2 - 1, "x: values must lie in [0, 1] .* Use (x + 1) / 2"),
    (images().index_fill(0, torch.tensor([1]), float("nan")), "x: 768 of 3072 values are NaN or infinite"),
    (images() * 0.999, "x: values must lie in [0, 1] on the grid k/255; .* Round them first"),
    ((images() * 255).to(torch.uint8), "x: discretized_logistic scores floating-point values; got torch.uint8"),
]


@pytest.mark.parametrize(("batch", "expected"), BAD_VALUES, ids=["pixels", "signed", "nan", "off", "uint8"])
def test_values_are_checked_under_validation_and_by_check(batch: Tensor, expected: str) -> None:
    partition = Partition(Z, X)
    start, _, advice = expected.partition(" .* ")
    with pyro.validation_enabled(True):
        text = message(lambda: partition.observe(batch), DataError)
    assert text.startswith(start.partition(" got .*")[0])
    assert advice in text
    with pyro.validation_enabled(False):
        if batch.is_floating_point():
            assert partition.observe(batch)["x"] is batch
        else:
            assert message(lambda: partition.observe(batch), DataError) == text
        assert message(lambda: partition.check(batch), DataError) == text


def test_labels_are_checked_by_their_own_likelihood() -> None:
    partition = Partition(Z, {"x": Observation(), "y": LABEL})
    for batch in ({"x": images(), "label": torch.tensor([0, 1, 2, 10])}, {"x": images(), "label": torch.rand(4)}):
        assert message(lambda batch=batch: partition.check(batch), DataError).startswith("y: c")
    partition.check({"x": images(), "label": torch.tensor([0, 1, 2, 9])})


def test_every_value_that_check_accepts_is_observed_under_validation() -> None:
    with pyro.validation_enabled(True):
        everything().observe({"x": images(), "label": torch.tensor([0, 1, 2, 3])})


# ---- shapes --------------------------------------------------------------------------------------------------------------------


def test_the_shapes_are_those_of_what_is_observed() -> None:
    partition = everything()
    shapes = partition.shapes({"x": (3, 16, 16), "label": ()})
    assert list(shapes) == list(partition.observations)
    assert shapes["x_grey"] == (1, 16, 16)
    observed = partition.observe({"x": images(), "label": torch.tensor([0, 1, 2, 3])})
    assert {name: tuple(value.shape[1:]) for name, value in observed.items() if not name.endswith("_read")} == shapes


@pytest.mark.parametrize("shape", [(3, 16, 16), [3, 16, 16], torch.Size((3, 16, 16)), {"x": (3, 16, 16)}])
def test_a_data_shape_may_be_any_sequence_of_sizes(shape: Any) -> None:
    assert one(transform="blur").shapes(shape) == {"x": (3, 16, 16), "x_hat": (3, 16, 16)}


@pytest.mark.parametrize("shape", [32, (3, 0, 32), (3, -1, 32), (3.0, 32, 32), "abc", (True, 2), None])
def test_something_that_is_no_shape(shape: Any) -> None:
    assert message(lambda: Partition(Z, X).shapes(shape)) == (
        f"the data shape of 'x' is a tuple of sizes without the batch, as (3, 32, 32); got {shape!r}"
    )


def test_shapes_of_several_sources() -> None:
    partition = Partition(Z, {"x": Observation(), "y": LABEL})
    assert message(lambda: partition.shapes((3, 8, 8))) == (
        "this partition has 2 sources: data_shape={'x': (...), 'label': (...)}"
    )
    assert message(lambda: partition.shapes({"x": (3, 8, 8)})) == "data_shape has no 'label'; it holds 'x'"
    assert message(lambda: partition.shapes({"x": (3, 8, 8), "label": (), "z": ()})) == (
        "data_shape names 'z', and the sources are 'x', 'label'"
    )


def test_a_shape_that_a_transform_cannot_take_names_the_observation() -> None:
    text = message(lambda: one(transform={"patch_shuffle": {"n": 5}}).shapes((3, 32, 32)))
    assert text.startswith("observation 'x_hat': patch_shuffle")
    assert "32" in text
    chain = Partition(
        Z,
        {
            "x": Observation(),
            "a": Observation(transform={"grayscale": {"channels": 1}}, of="x"),
            "b": Observation(transform="jitter", of="a"),
        },
    )
    assert message(lambda: chain.shapes((3, 8, 8))).startswith("observation 'b': jitter")


# ---- showing -------------------------------------------------------------------------------------------------------------------


def test_the_diagram_shows_every_part_of_the_declaration() -> None:
    assert everything().diagram() == "\n".join(
        [
            "flowchart LR",
            '    z_g(("z_g<br/>8 dims<br/>mixture"))',
            '    z_l(("z_l<br/>4 dims"))',
            '    z_y(("z_y<br/>2 dims"))',
            '    x_grey["x_grey<br/>discretized_logistic"]',
            '    x["x<br/>discretized_logistic"]',
            '    x_hat["x_hat<br/>discretized_logistic"]',
            '    y["y<br/>categorical"]',
            '    x_soft["x_soft<br/>normal"]',
            '    source-0[/"x"/]',
            "    z_l --> x_grey",
            "    z_g --> x",
            "    z_l --> x",
            "    z_y --> x",
            "    z_l --> x_hat",
            "    z_y --> y",
            "    z_g --> x_soft",
            "    z_y --> x_soft",
            '    x_hat -. "grayscale(channels=1)" .-> x_grey',
            '    x -. "patch_shuffle(n=4, dims=2)" .-> x_hat',
            '    source-0 -. "blur(sigma=2.0), mask(share=0.5, n=4)" .-> x_soft',
        ]
    )


def test_words_of_the_diagrams_language_are_fine_names() -> None:
    partition = Partition(
        {"style": Block(2), "end": Block(2)},
        {"graph": Observation(), "blurred": Observation(transform="blur", source='a "quoted" [name]')},
    )
    lines = partition.diagram().splitlines()
    assert '    node-style(("style<br/>2 dims"))' in lines
    assert "    node-end --> node-graph" in lines
    assert "    source-0[/\"a 'quoted' [name]\"/]" in lines
    assert not any(line.split()[0] in {"style", "end", "graph"} for line in lines)


def test_a_notebook_renders_the_diagram() -> None:
    partition = paper()
    bundle = partition._repr_mimebundle_()
    assert bundle["text/vnd.mermaid"] == partition.diagram()
    assert bundle["text/markdown"] == f"```mermaid\n{partition.diagram()}\n```"
    assert bundle["text/plain"] == repr(partition)


# ---- the user's own parts ------------------------------------------------------------------------------------------------------


class Roll(Transform):
    """Moves every image down, and what leaves it comes in at the top."""

    rows: int = 1

    destroys = "position"
    stochastic = False

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x.roll(self.rows, -2)


def test_a_transform_of_ones_own_takes_part_in_everything() -> None:
    register_transform("roll", Roll)
    partition = one(transform={"roll": {"rows": 3}})
    assert Partition.from_yaml(partition.to_yaml()) == partition == pickle.loads(pickle.dumps(partition))
    assert torch.equal(partition.observe(images())["x_hat"], images().roll(3, -2))
    assert "roll(rows=3)" in partition.diagram()


def test_what_cannot_be_written_down_is_refused_when_it_is_declared() -> None:
    class Nameless(Transform):
        destroys = "nothing"
        stochastic = False

        def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
            return x.clone()

    class NamelessPrior(Prior):
        pass

    class NamelessLikelihood(Likelihood):
        pass

    for make, name in (
        (lambda: Observation(transform=Nameless()), "Nameless"),
        (lambda: Observation(transform=["blur", Nameless()]), "Nameless"),
        (lambda: Observation(likelihood=NamelessLikelihood()), "NamelessLikelihood"),
        (lambda: Block(2, prior=NamelessPrior()), "NamelessPrior"),
    ):
        assert message(make) == f"{name} is registered under no name, so it has no spec; register the class first"
