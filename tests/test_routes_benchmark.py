"""The comparison of routes: which dimensions are whose, what is measured of them, and the command from end to end."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy
import pytest
import torch

import infoplace as ip
from infoplace.data import ImageData, load
from infoplace.probes import predictor_for

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "routes.py"
CLAIMS = ("digit_kept", "digit_crossed", "colour_kept", "colour_crossed", "margin")


@pytest.fixture(scope="module")
def routes():
    spec = importlib.util.spec_from_file_location("routes", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["routes"] = module  # its dataclasses look themselves up there
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARK.parent))
        spec.loader.exec_module(module)
    return module


def planted(count=800):
    """Latents of which it is known what each dimension tells, with the factors."""
    draw = torch.Generator().manual_seed(0)
    digit = torch.randint(10, (count,), generator=draw)
    colour = torch.rand(count, 3, generator=draw)
    noise = torch.randn(count, 5, generator=draw)
    latents = torch.stack(
        [
            colour[:, 0] + 0.05 * noise[:, 0],
            digit.float() + 0.3 * noise[:, 1],
            colour.sum(1) + 0.05 * noise[:, 2],
            (digit - 5).float().square() + 0.3 * noise[:, 3],
        ],
        1,
    )
    return latents, {"digit": digit, "colour": colour}


# ---- which dimensions are whose ----------------------------------------------------------------------------------------


def test_every_dimension_goes_to_the_factor_that_is_read_best_from_it(routes):
    latents, factors = planted()
    assert routes.assigned_dimensions(latents, factors) == {"digit": [1, 3], "colour": [0, 2]}


def test_a_factor_may_be_left_without_dimensions(routes):
    latents, factors = planted()
    assert routes.assigned_dimensions(latents[:, [0, 2]], factors) == {"digit": [], "colour": [0, 1]}


def test_two_blocks_take_the_roles_in_which_more_is_read(routes):
    latents, factors = planted()
    blocks = {"z_1": latents[:, [0, 2]], "z_2": latents[:, [1, 3]]}
    assert routes.assigned_blocks(blocks, factors) == {"digit": "z_2", "colour": "z_1"}
    assert routes.assigned_blocks(dict(reversed(blocks.items())), factors) == {"digit": "z_2", "colour": "z_1"}


def test_latents_by_set_and_by_block_again(routes):
    pair = ip.make_pair(ip.Partition({"a": ip.Block(3), "b": ip.Block(2)}, {"x": ip.Observation()}), (1, 8, 8))
    sets = {"digit": {"a": [2, 0], "b": []}, "colour": {"a": [1], "b": [0, 1]}}
    latents = {"a": torch.arange(12.0).reshape(4, 3), "b": torch.arange(8.0).reshape(4, 2)}
    parts = routes.taken(latents, sets)
    assert parts["digit"].equal(latents["a"][:, [2, 0]])
    assert parts["colour"].shape == (4, 3)
    again = routes.joined(parts, sets, pair)
    assert all(again[name].equal(latents[name]) for name in latents)


class Reads:
    """Reads the labels off the first channel and the colour off all of them."""

    def __init__(self, metric):
        self.metric = metric

    def predict(self, images):
        if self.metric == "accuracy":
            return (images[:, 0, 0, 0].float() * (255 if images.is_floating_point() else 1)).round().long() // 25
        return images[:, :, -1, -1].float()


class Corner(torch.nn.Module):
    """Both ways between an image of one pixel's label and one pixel's colour, and four latents."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))  # by which a pair knows its type

    def forward(self, values):
        if values.ndim == 4:
            means = torch.cat([values[:, :1, 0, 0], values[:, :, -1, -1]], 1)
            return torch.cat([means, torch.full_like(means, -20.0)], 1)
        images = torch.zeros(len(values), 3, 8, 8)
        images[:, 0, 0, 0] = values[:, 0]
        images[:, :, -1, -1] = values[:, 1:]
        return torch.distributions.Independent(torch.distributions.Normal(images, 1.0), 3)


@pytest.mark.parametrize(
    ("sets", "margin"),
    [
        ({"digit": {"z": [0]}, "colour": {"z": [1, 2, 3]}}, 1.0),
        ({"digit": {"z": [1, 2, 3]}, "colour": {"z": [0]}}, -1.0),
        ({"digit": {"z": [0, 1, 2, 3]}, "colour": {"z": []}}, -1.0),
    ],
)
def test_the_margin_of_what_is_known_to_be_placed(routes, sets, margin):
    draw = torch.Generator().manual_seed(0)
    images = torch.zeros(400, 3, 8, 8, dtype=torch.uint8)
    digit = torch.randint(10, (400,), generator=draw)
    images[:, 0, 0, 0] = (25 * digit + 10).byte()
    images[:, :, -1, -1] = torch.randint(256, (400, 3), generator=draw, dtype=torch.uint8)
    data = ImageData(images, {"digit": digit, "ground": images[:, :, -1, -1].float() / 255}, "corners", "test")
    corner = {"encoders": {"z": Corner()}, "decoders": {"x": Corner()}}
    pair = ip.make_pair(ip.Partition({"z": ip.Block(4)}, {"x": ip.Observation()}), (3, 8, 8), networks=corner)
    found = routes.measured(pair, sets, data, {"digit": Reads("accuracy"), "ground": Reads("squared_correlation")})
    assert [found["digit_reconstructed"], found["colour_reconstructed"]] == pytest.approx([1.0, 1.0], abs=1e-4)
    assert found["margin_other_image"] == pytest.approx(margin, abs=0.1)
    if not sets["colour"]["z"]:
        # Nothing is swapped: the colour is not kept, and all of it crosses.
        assert found["colour_crossed"] == pytest.approx(1.0, abs=1e-4)
        assert found["digit_kept"] == pytest.approx(1.0, abs=1e-4)


# ---- the command -------------------------------------------------------------------------------------------------------


def words(message):
    """A message without the line breaks that argparse puts in."""
    return " ".join(message.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "beta_tcvea"], "there is no route 'beta_tcvea'; there are explicit, beta_vae, beta_tcvae"),
        (["--only", "beta_tcvea"], "Did you mean 'beta_tcvae'?"),
        (["--steps", "0"], "--steps must be 1 or more; got 0"),
        (["--images", "1"], "--images must be 2 or more; got 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(routes, capsys, arguments, message):
    with pytest.raises(SystemExit):
        routes.parsed(arguments)
    assert message in words(capsys.readouterr().err)


def test_data_that_cannot_be_are_refused(routes, tmp_path):
    images = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
    for split in ("train", "test"):
        numpy.savez(tmp_path / f"{split}.npz", images=images.permute(0, 2, 3, 1).numpy(), label=numpy.arange(8))
    with pytest.raises(
        SystemExit, match=r"has no factor 'digit' that varies.*; choose data that have both, such as --data"
    ):
        routes.main(["--data", str(tmp_path)])
    with pytest.raises(
        SystemExit, match=r"a batch takes 64 images and there are 40 to train on; choose a smaller --batch"
    ):
        routes.main(["--train-images", "40", "--images", "10"])


def test_all_routes_have_as_many_dimensions_and_strengths(routes):
    for route in routes.ROUTES.values():
        partition = ip.Partition.from_dict(route.partition)
        assert sum(block.dim for block in partition.blocks.values()) == routes.GLOBAL + routes.LOCAL
        assert len(route.values) == 3
        objectives = {json.dumps(ip.make_objective(route.objective(v, 100)).to_spec()) for v in route.values}
        assert len(objectives) == 3
    assert list(routes.ROUTES) == [
        "explicit", "beta_vae", "beta_tcvae", "factor_vae", "hfvae", "ladder", "pixelcnn", "clamped",
    ]  # fmt: skip


def test_the_command_from_end_to_end(routes, tmp_path, monkeypatch, capsys):
    train = load("street_numbers/easy", "train", limit=300)
    # Trained once for all the commands; what they reach is not what is tested.
    made = {
        factor: predictor_for(train, factor, steps=steps, batch_size=32, cache=False)
        for factor, steps in (("digit", 30), ("ground", 15))
    }
    monkeypatch.setattr(routes, "predictors_of", lambda train, options: made)
    monkeypatch.setattr(routes, "PROBED", 60)
    common = ["--steps", "2", "--seeds", "1", "--images", "60", "--train-images", "300", "--batch", "8"]
    common += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit, match=r"no finished run in .*; run python benchmarks/routes\.py --runs"):
        routes.main([*common, "--only"])
    routes.main([*common, "--only", "explicit", "beta_vae", "clamped"])
    routes.main([*common, "--only", "hfvae", "--tune"])
    told = capsys.readouterr().out
    assert told.count("training ") == 6  # three strengths of hfvae, and the chosen one's run is not made again
    assert not (tmp_path / "out").exists()
    routes.main([*common, "--only"])
    read = capsys.readouterr()
    assert "training" not in read.out
    assert "not measured yet: beta_tcvae (0 of 1 seeds), factor_vae (0 of 1 seeds)" in read.err

    result = json.loads((tmp_path / "out" / "routes.json").read_text())
    assert {"name", "command", "commit", "date", "machine", "claims"} <= set(result)
    assert result["name"] == "routes"
    assert "--steps 2 --batch 8 --seeds 1 --images 60 --train-images 300 --tune" in result["command"]
    claims = {claim["name"]: claim for claim in result["claims"]}
    expected = {f"{route}_{score}" for route in ("explicit", "beta_vae", "hfvae", "clamped") for score in CLAIMS}
    assert expected | {"explicit_lead", "explicit_lead_over_clamped"} <= set(claims)
    assert not any(name.startswith("ladder") for name in claims)
    for claim in claims.values():
        assert set(claim) == {"name", "value", "spread", "runs", "unit", "goal", "context"}
        assert -2.5 < claim["value"] < 2.5
        assert claim["runs"] == 1
    for route in ("explicit", "beta_vae", "hfvae", "clamped"):
        value = {score: claims[f"{route}_{score}"]["value"] for score in CLAIMS}
        margin = min(value["digit_kept"] - value["digit_crossed"], value["colour_kept"] - value["colour_crossed"])
        assert value["margin"] == pytest.approx(margin, abs=2e-4)
    tuned = json.loads((tmp_path / "runs" / "hfvae" / "tuned.json").read_text())
    assert tuned["scores"][f"{tuned['strength']:g}"] == max(tuned["scores"].values())
    assert claims["hfvae_margin"]["context"]["change"] == f"hfvae, beta {tuned['strength']:g}"
    assert "| ladder | the depth of the way to a block | not measured yet |" in result["notes"]
    assert (tmp_path / "out" / "routes.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match=r"holds a run of other settings .*steps: 2 there, 3 now"):
        routes.main([*common, "--only", "explicit", "--steps", "3"])
