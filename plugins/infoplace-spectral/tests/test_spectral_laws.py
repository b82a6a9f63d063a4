"""The laws of transforms on every transform of the package, over one, two and three dimensions; and the package itself."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from infoplace.errors import DataError
from infoplace.testing import TransformLaws
from infoplace.transforms import Transform, compose, describe_transform, make_transform

import infoplace_spectral as spectral

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def over(dims: int) -> list[Transform]:
    """Every transform that treats each sample on its own."""
    return [
        spectral.PhaseScramble(dims=dims),
        spectral.LowPass(dims=dims),
        spectral.HighPass(dims=dims),
        spectral.BandStop(dims=dims),
        spectral.AmplitudeFlatten(dims=dims),
        spectral.WaveletShuffle(levels=2, dims=dims),
    ]


class TestImages(TransformLaws):
    specs: ClassVar = [
        *over(2),
        spectral.PhaseScramble(strength=0.5, per_channel=True, fit="shift"),
        spectral.LowPass(cutoff=0.2, edge="gaussian", fit="clip"),
        spectral.HighPass(cutoff=0.2, edge="gaussian", fit="shift"),
        spectral.BandStop(low=0.1, high=0.4, edge="gaussian", fit="clip"),
        spectral.AmplitudeFlatten(alpha=0.0, fit="clip"),
        spectral.WaveletShuffle(levels=1, coarse=True, per_channel=True, fit="shift"),
    ]


class TestOddImages(TransformLaws):
    specs: ClassVar = [spec for spec in over(2) if not isinstance(spec, spectral.WaveletShuffle)]
    shape = (2, 9, 7)


class TestSeries(TransformLaws):
    specs: ClassVar = over(1)
    shape = (2, 32)


class TestVolumes(TransformLaws):
    specs: ClassVar = over(3)
    shape = (2, 8, 4, 12)


class TestAmplitudeSwap(TransformLaws):
    """All laws but those that a transform between samples cannot keep, in whose place stand what it does keep."""

    specs: ClassVar = [spectral.AmplitudeSwap(), spectral.AmplitudeSwap(fit="clip")]

    def test_output_shape_is_as_declared(self, spec: Transform) -> None:
        for shape in ((3, 16, 16), (2, 3, 6, 5)):
            assert spec.output_shape(shape) == shape
            assert spec(torch.rand(4, *shape)).shape == (4, *shape)
        with pytest.raises(DataError, match=r"takes a batch of at least 2 samples, which swap amplitudes; got 1; give"):
            spec(torch.rand(1, 3, 16, 16))

    def test_stochastic_is_as_declared(self, spec: Transform) -> None:
        x = torch.rand(8, 1, 6, 6, generator=seeded())
        assert not torch.equal(spec(x, generator=seeded(1)), spec(x, generator=seeded(2)))

    def test_samples_are_independent(self, spec: Transform) -> None:
        x = torch.rand(3, 1, 6, 6, generator=seeded())
        changed = torch.cat([x[:1], x[1:] / 2])
        assert not torch.allclose(spec(x, generator=seeded())[0], spec(changed, generator=seeded())[0], atol=0.01)
        assert spectral.AmplitudeSwap.mixes_samples is True


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- in infoplace -----------------------------------------------------------------------------------------------------


def test_every_transform_is_an_entry_point_under_its_name_and_is_written_in_the_readme() -> None:
    points = PROJECT["entry-points"]["infoplace.transforms"]
    offered = {
        thing.__name__
        for thing in vars(spectral).values()
        if isinstance(thing, type)
        and issubclass(thing, Transform)
        and not thing.__name__.endswith(("Transform", "Filter"))
    }
    assert {place.removeprefix("infoplace_spectral:") for place in points.values()} == offered
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in points:
        made = make_transform(name)
        assert made.to_spec().keys() == {name}
        assert f"| `{name}` | {made.destroys} |" in readme


def test_the_version_is_the_projects() -> None:
    assert spectral.__version__ == PROJECT["version"]


def test_parameters_are_described_with_the_shared_ones_last() -> None:
    described = describe_transform("low_pass")
    assert list(described.parameters.values()) == [
        "cutoff: float = 0.125",
        "dims: int = 2",
        "fit: str = 'shrink'",
        "edge: str = 'sharp'",
    ]
    assert described.details["destroys"] == "fine detail"
    assert describe_transform("wavelet_shuffle").details["random"] == "yes, anew for every sample"


def test_whole_numbers_from_a_file_give_equal_specs() -> None:
    assert make_transform({"phase_scramble": {"strength": 1}}) == make_transform("phase_scramble", strength=1.0)
    assert make_transform({"amplitude_flatten": {"alpha": 1}}) == make_transform("amplitude_flatten")


def test_they_compose_with_stock_transforms() -> None:
    both = compose("grayscale", {"phase_scramble": {"strength": 0.5}})
    assert both.destroys == "colour, layout"
    assert both(torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)


def test_they_work_in_a_partition() -> None:
    import infoplace as ip

    partition = ip.Partition(
        blocks={"z_g": ip.Block(2), "z_l": ip.Block(2)},
        observations={
            "x": ip.Observation(blocks=("z_g", "z_l")),
            "x_hat": ip.Observation(blocks=("z_l",), transform={"wavelet_shuffle": {"levels": 2}}),
        },
    )
    x = torch.randint(0, 256, (4, 1, 8, 8)) / 255
    assert partition.observe(x)["x_hat"].shape == x.shape
    assert ip.Partition.from_dict(partition.to_dict()) == partition
    with pytest.raises(ip.DeclarationError, match=r"'x_hat': wavelet_shuffle: levels=2 needs sides that 4 divides"):
        partition.shapes((1, 10, 10))
