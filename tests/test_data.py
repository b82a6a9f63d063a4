"""Street numbers are what their factors say; every real format is read from files written here in that format."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infoplace.data import (
    DATA_SETS,
    STREET_NUMBER_PRESETS,
    TYPEFACES,
    ImageData,
    StreetNumbers,
    load,
    luminance,
    street_numbers,
)
from infoplace.data.rendering import _stream
from infoplace.errors import DataError, DeclarationError, UnknownNameError

PRESETS = sorted(STREET_NUMBER_PRESETS)
SPLITS = ("train", "validation", "test")
REAL_DATA = os.environ.get("INFOPLACE_DATA")

# One upright digit without anything that disturbs it; each test adds what it looks at.
PLAIN = {
    "typefaces": ("DejaVuSans-Bold",),
    "neighbour": 0.0,
    "height": (20.0, 20.0),
    "shift": 0.0,
    "rotation": 0.0,
    "slant": 0.0,
    "ground_luminance": (0.4, 0.6),
    "contrast": 0.35,
    "shading": (0.0, 0.0),
    "noise": (0.0, 0.0),
}


def draw(size: int = 300, **changes: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    data = street_numbers("test", size=size, preset=StreetNumbers(**{**PLAIN, **changes}))
    return data.batch(range(size)), dict(data.factors)


def ink_share(images: torch.Tensor, factors: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far each pixel is on the way from ground to ink, `[n, 32, 32]`."""
    way = (factors["ink"] - factors["ground"])[:, :, None, None]
    return ((images - factors["ground"][:, :, None, None]) * way).sum(1) / (way * way).sum(1)


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.float(), second.float()]))[0, 1])


class TestImageData:
    def data(self, count: int = 10) -> ImageData:
        images = (torch.arange(count * 3 * 2 * 2) % 256).to(torch.uint8).reshape(count, 3, 2, 2)
        return ImageData(images, {"label": torch.arange(count), "pair": torch.rand(count, 2)}, "toy", "train")

    def test_a_batch_is_the_bytes_divided_by_255(self) -> None:
        data = self.data()
        batch = data.batch([3, 1])
        assert batch.dtype == torch.float32
        assert torch.equal(batch, data.images[[3, 1]].float() / 255)
        assert torch.equal(data.batch(torch.tensor([3, 1], dtype=torch.int32)), batch)
        assert data.batch([]).shape == (0, 3, 2, 2)

    def test_a_subset_keeps_images_and_factors_together(self) -> None:
        data = self.data()
        part = data.subset(torch.tensor([7, 2]))
        assert len(part) == 2
        assert part.factors["label"].tolist() == [7, 2]
        assert torch.equal(part.images, data.images[[7, 2]])
        assert torch.equal(part.factors["pair"], data.factors["pair"][[7, 2]])

    def test_moving_to_the_device_it_is_on_copies_nothing(self) -> None:
        data = self.data()
        moved = data.to("cpu")
        assert moved.images.data_ptr() == data.images.data_ptr()
        assert (moved.name, moved.split, moved.shape, len(moved)) == ("toy", "train", (3, 2, 2), 10)

    def test_moving_takes_the_factors_along(self) -> None:
        moved = self.data().to("meta")
        assert moved.device.type == "meta"
        assert all(values.device.type == "meta" for values in moved.factors.values())

    def test_one_pass_sees_every_image_once(self) -> None:
        data = self.data()
        seen = torch.cat(list(data.batches(3, drop_last=False)))
        assert sorted(seen.flatten(1).sum(1).tolist()) == sorted(data.batch(range(10)).flatten(1).sum(1).tolist())
        assert [len(batch) for batch in data.batches(3)] == [3, 3, 3]
        assert torch.equal(torch.cat(list(data.batches(5, shuffle=False))), data.batch(range(10)))

    def test_the_generator_decides_the_order(self) -> None:
        data = self.data()
        orders = [torch.cat(list(data.batches(5, torch.Generator().manual_seed(seed)))) for seed in (1, 1, 2)]
        assert torch.equal(orders[0], orders[1])
        assert not torch.equal(orders[0], orders[2])

    def test_it_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            self.data().name = "other"  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("images", "factors", "text"),
        [
            (np.zeros((1, 3, 2, 2), np.uint8), {}, "got ndarray. Turn arrays into tensors with torch.from_numpy"),
            (torch.zeros(1, 3, 2, 2), {}, "must be uint8 with values 0..255; got torch.float32"),
            (torch.zeros(1, 2, 2, dtype=torch.uint8), {}, r"got \[1, 2, 2\]. Grey images .* images.unsqueeze\(1\)"),
            (torch.zeros(0, 3, 2, 2, dtype=torch.uint8), {}, "the 'train' split holds no images"),
            (torch.zeros(2, 3, 2, 2, dtype=torch.uint8), {"a": torch.zeros(3)}, r"'a' must have one entry .* 2 images"),
            (torch.zeros(2, 3, 2, 2, dtype=torch.uint8), {"a": [1, 2]}, "'a' must be a tensor; got list"),
            (
                torch.zeros(2, 3, 2, 2, dtype=torch.uint8),
                {"a": torch.zeros(2, device="meta")},
                "'a' is on meta and the images are on cpu",
            ),
        ],
    )
    def test_what_is_no_image_set_is_refused(self, images: object, factors: dict, text: str) -> None:
        with pytest.raises(DataError, match=text):
            ImageData(images, factors)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("indices", "text"),
        [
            ([10], r"index 10 is outside 0\.\.9"),
            ([-1], r"index -1 is outside 0\.\.9"),
            ([0.5], "of integers; got torch.float32"),
            (torch.ones(10, dtype=torch.bool), r"mask.nonzero\(\)"),
            ([[1]], r"of shape \[1, 1\]"),
        ],
    )
    def test_indices_that_cannot_be(self, indices: object, text: str) -> None:
        with pytest.raises(DataError, match=text):
            self.data().batch(indices)  # type: ignore[arg-type]

    def test_batch_sizes_that_cannot_be(self) -> None:
        with pytest.raises(DataError, match=r"positive integer; got 0"):
            self.data().batches(0)
        with pytest.raises(DataError, match=r"batch_size 11 is larger than the 10 images .* drop_last=False"):
            self.data().batches(11)


def both_polarities(preset: str) -> StreetNumbers:
    """The preset with bright ink as often as dark, on grounds that leave room for both."""
    settings = STREET_NUMBER_PRESETS[preset]
    room = (settings.contrast, 1 - settings.contrast)
    return dataclasses.replace(settings, bright_ink=0.5, ground_luminance=room)


class TestStreetNumbers:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_the_same_arguments_give_the_same_bytes(self, preset: str) -> None:
        first, again = (street_numbers("test", size=40, preset=preset, seed=3) for _ in range(2))
        assert torch.equal(first.images, again.images)
        assert all(torch.equal(first.factors[name], again.factors[name]) for name in first.factors)
        other = street_numbers("test", size=40, preset=preset, seed=4)
        assert not torch.equal(first.factors["ground"], other.factors["ground"])

    def test_a_smaller_draw_is_the_beginning_of_a_larger_one(self) -> None:
        large = street_numbers("train", size=1100)
        for size in (1, 33, 501):
            small = street_numbers("train", size=size)
            assert torch.equal(small.images, large.images[:size])
            assert all(torch.equal(values, large.factors[name][:size]) for name, values in small.factors.items())

    def test_the_bytes_do_not_hang_on_the_number_of_threads(self) -> None:
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = street_numbers("test", size=200)
            torch.set_num_threads(2)
            two = street_numbers("test", size=200)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(one.images, two.images)

    def test_the_bytes_do_not_hang_on_the_processor(self) -> None:
        # Products and sums that are rounded one by one, as NumPy's are, come out alike everywhere; a matrix product's do not.
        colours = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
        red, green, blue = colours.numpy().T
        weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
        expected = red * weights[0] + green * weights[1] + blue * weights[2]
        assert np.array_equal(luminance(colours).numpy(), expected)

    def test_drawing_leaves_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        street_numbers("test", size=5)
        assert torch.equal(before, torch.get_rng_state())

    def test_no_two_splits_share_a_stream(self) -> None:
        settings = [*STREET_NUMBER_PRESETS.values(), StreetNumbers(**PLAIN)]
        streams = {
            split: {
                _stream(each, split, seed, chunk) for each in settings for seed in range(20) for chunk in range(100)
            }
            for split in SPLITS
        }
        for split, own in streams.items():
            assert all(0 <= stream < 2**32 for stream in own)
            others = set().union(*(streams[other] for other in SPLITS if other != split))
            assert not own & others

    def test_no_image_is_in_two_splits(self) -> None:
        images = [bytes(image.numpy().tobytes()) for split in SPLITS for image in street_numbers(split, 500).images]
        assert len(set(images)) == len(images)

    def test_the_default_sizes(self) -> None:
        assert len(street_numbers("validation", preset="easy")) == 5_000

    @pytest.mark.parametrize("preset", PRESETS)
    def test_every_factor_is_within_its_range(self, preset: str) -> None:
        settings, factors = STREET_NUMBER_PRESETS[preset], street_numbers("validation", 2000, preset).factors
        for name in ("digit", "left", "right", "count", "typeface", "polarity"):
            assert factors[name].dtype == torch.int64
        assert set(factors["digit"].tolist()) == set(range(10))
        for side in ("left", "right"):
            assert set(factors[side].tolist()) == set(range(-1, 10))
            assert float((factors[side] >= 0).float().mean()) == pytest.approx(settings.neighbour, abs=0.05)
        assert set(factors["typeface"].tolist()) == set(range(len(settings.typefaces)))
        assert set(factors["polarity"].tolist()) == ({0, 1} if settings.bright_ink else {0})
        assert torch.equal(factors["count"], 1 + (factors["left"] >= 0).int() + (factors["right"] >= 0).int())
        ranges = {
            "slant": (-settings.slant, settings.slant),
            "rotation": (-settings.rotation, settings.rotation),
            "scale": settings.height,
            "position_x": (-settings.shift, settings.shift),
            "position_y": (-settings.shift, settings.shift),
            "shading_direction": (0.0, 360.0),
            "shading_strength": settings.shading,
            "noise": settings.noise,
        }
        for name, (low, high) in ranges.items():
            values = factors[name]
            assert values.dtype == torch.float32
            assert low - 1e-6 <= float(values.min()) <= low + 0.1 * (high - low)
            assert high - 0.1 * (high - low) <= float(values.max()) <= high + 1e-6
        for name in ("ink", "ground"):
            assert factors[name].shape == (2000, 3)
            assert 0 <= float(factors[name].min()) <= float(factors[name].max()) <= 1
        low, high = settings.ground_luminance
        brightness = luminance(factors["ground"])
        assert low - 1e-5 <= float(brightness.min()) <= float(brightness.max()) <= high + 1e-5
        assert torch.equal(factors["ground_luminance"], brightness)
        # Luminance and chroma are another way to write the ground down: it can be had back from them.
        red, blue = (factors["ground_chroma"] + brightness.unsqueeze(1)).unbind(1)
        green = (brightness - 0.299 * red - 0.114 * blue) / 0.587
        assert torch.allclose(torch.stack([red, green, blue], dim=1), factors["ground"], atol=1e-5)

    @pytest.mark.parametrize("preset", PRESETS)
    def test_polarity_and_contrast_are_those_of_the_colours(self, preset: str) -> None:
        factors = street_numbers("train", 3000, preset).factors
        difference = luminance(factors["ink"]) - luminance(factors["ground"])
        assert torch.equal(difference > 0, factors["polarity"] == 1)
        assert float(difference.abs().min()) >= STREET_NUMBER_PRESETS[preset].contrast - 1e-5
        assert float(factors["polarity"].float().mean()) == pytest.approx(
            STREET_NUMBER_PRESETS[preset].bright_ink, abs=0.05
        )

    def test_factors_are_independent_of_one_another(self) -> None:
        factors = street_numbers("train", 10_000, both_polarities("easy")).factors
        columns = {name: values for name, values in factors.items() if values.ndim == 1 and name != "count"}
        columns |= {f"ground_{channel}": factors["ground"][:, channel] for channel in range(3)}
        table = torch.corrcoef(torch.stack([values.float() for values in columns.values()]))
        for first in range(len(columns)):
            for second in range(first):
                names = [list(columns)[first], list(columns)[second]]
                # The channels of one colour are tied by the luminance that is drawn for it.
                if not all(name.startswith("ground") for name in names):
                    assert abs(float(table[first, second])) < 0.05, names

    @pytest.mark.parametrize("preset", PRESETS)
    def test_the_border_shows_the_ground_where_there_is_no_neighbour(self, preset: str) -> None:
        data = street_numbers("test", 1500, preset)
        alone = (data.factors["count"] == 1).nonzero().squeeze(1)
        images = data.batch(alone)
        border = torch.cat([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], dim=2)
        error = (border.median(dim=2).values - data.factors["ground"][alone]).abs().mean(dim=1)
        assert float(error.median()) < 0.02

    def test_every_pixel_lies_between_ground_and_ink(self) -> None:
        images, factors = draw(neighbour=0.5, rotation=5.0, slant=0.1, shift=1.0, typefaces=TYPEFACES)
        share = ink_share(images, factors)
        assert float(share.min()) > -0.02
        assert float(share.max()) < 1.02
        expected = torch.lerp(
            factors["ground"][:, :, None, None], factors["ink"][:, :, None, None], share[:, None].clamp(0, 1)
        )
        assert float((expected - images).abs().max()) < 0.01

    def test_scale_and_position_are_those_of_the_digit_seen(self) -> None:
        images, factors = draw(height=(14.0, 24.0), shift=3.0)
        share = ink_share(images, factors)
        for index in range(0, 300, 10):
            height = float(share[index].amax(dim=1).sum())  # a row half covered counts half
            assert height == pytest.approx(float(factors["scale"][index]), abs=1.5)
            for name, axis in (("position_x", 0), ("position_y", 1)):
                covered = (share[index].amax(dim=axis) > 0.4).nonzero()
                middle = float(covered.min() + covered.max()) / 2 + 0.5 - 16
                assert middle == pytest.approx(float(factors[name][index]), abs=1.2)

    @pytest.mark.parametrize(("slant", "rotation"), [(0.3, 0.0), (0.0, 15.0), (0.3, 15.0)])
    def test_slant_and_rotation_are_those_that_pillow_gives_a_plain_digit(self, slant: float, rotation: float) -> None:
        typefaces = ("DejaVuSerif-Bold",)
        upright = ink_share(*draw(100, typefaces=typefaces))
        digits = draw(100, typefaces=typefaces)[1]["digit"].tolist()
        images, factors = draw(100, typefaces=typefaces, slant=slant, rotation=rotation)
        share = ink_share(images, factors)
        for index in range(40):
            lean, angle = float(factors["slant"][index]), float(factors["rotation"][index])
            plain = Image.fromarray(upright[digits.index(int(factors["digit"][index]))].numpy())
            # Pillow is given where a pixel comes from, with y downward, and turns counter-clockwise.
            bilinear = Image.Resampling.BILINEAR
            sheared = plain.transform((32, 32), Image.Transform.AFFINE, (1, lean, -16 * lean, 0, 1, 0), bilinear)
            turned = torch.from_numpy(np.array(sheared.rotate(-angle, bilinear)))
            assert correlation(turned.flatten(), share[index].flatten()) > 0.98

    def test_neighbours_are_where_the_factors_say(self) -> None:
        images, factors = draw(neighbour=0.5)
        share = ink_share(images, factors)
        for name, columns in (("left", slice(0, 6)), ("right", slice(26, 32))):
            inked = (share[:, :, columns] > 0.5).flatten(1).any(1)
            assert torch.equal(inked, factors[name] >= 0)

    def test_a_digit_looks_the_same_in_the_middle_and_beside_it(self) -> None:
        _, factors = draw(neighbour=1.0, height=(12.0, 12.0))
        images, _ = draw(neighbour=1.0, height=(12.0, 12.0))
        share = ink_share(images, factors)
        advance = 12 * 0.915  # of DejaVu Sans Bold, 0.696 em for digits 0.76 em high with their overshoot
        for index in range(20):
            same = (factors["digit"] == factors["right"][index]).nonzero()
            if len(same):
                beside = float(share[index, :, 22:32].sum())
                middle = share[int(same[0, 0])]
                start = 22 - advance
                whole = round(start)
                assert beside == pytest.approx(float(middle[:, whole : whole + 10].sum()), rel=0.2)

    def test_shading_brightens_toward_its_direction(self) -> None:
        images, factors = draw(shading=(0.2, 0.2))
        angle = torch.deg2rad(factors["shading_direction"])
        corners = luminance(images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].transpose(1, 2))
        slope_x = corners[:, [1, 3]].mean(1) - corners[:, [0, 2]].mean(1)
        slope_y = corners[:, [2, 3]].mean(1) - corners[:, [0, 1]].mean(1)
        assert correlation(slope_x, angle.cos()) > 0.95
        assert correlation(slope_y, angle.sin()) > 0.95
        # From edge to edge along an axis the light changes by twice the strength over the square root of two.
        steep = (slope_x.square() + slope_y.square()).sqrt() / luminance(factors["ground"])
        assert float(steep.median()) == pytest.approx(2 * 0.2 / 2**0.5, rel=0.1)

    def test_noise_has_the_standard_deviation_that_is_given(self) -> None:
        images, factors = draw(noise=(0.02, 0.06))
        measured = (images[:, :, :5] - factors["ground"][:, :, None, None]).flatten(1).std(1)
        middling = (factors["ground"] > 0.2).all(1) & (factors["ground"] < 0.8).all(1)  # nothing is cut off at 0 or 1
        ratio = measured[middling] / factors["noise"][middling]
        assert float(ratio.mean()) == pytest.approx(1, abs=0.02)

    def test_digits_and_typefaces_differ(self) -> None:
        images, factors = draw(1000, typefaces=("DejaVuSans", "DejaVuSerif-Bold"))
        share = ink_share(images, factors)
        looks = {
            (digit, typeface): share[(factors["digit"] == digit) & (factors["typeface"] == typeface)].mean(0)
            for digit in range(10)
            for typeface in range(2)
        }
        names = list(looks)
        for first in range(len(names)):
            for second in range(first):
                assert float((looks[names[first]] - looks[names[second]]).abs().sum()) > 10

    @pytest.mark.parametrize("typeface", TYPEFACES)
    def test_every_typeface_has_its_ten_digits_inside_their_cells(self, typeface: str) -> None:
        images, factors = draw(120, typefaces=(typeface,), height=(18.0, 18.0))
        share = ink_share(images, factors)
        for digit in range(10):
            looks = share[factors["digit"] == digit].mean(0)
            assert float(looks.max()) > 0.5
            assert float(looks[:4].abs().max()) < 0.02
            assert float(looks[-4:].abs().max()) < 0.02

    @pytest.mark.parametrize(
        ("parameters", "text"),
        [
            ({"typefaces": ()}, "typefaces must name at least one font"),
            ({"typefaces": ("DejavuSans",)}, "no typeface 'DejavuSans'. Did you mean 'DejaVuSans'?"),
            ({"height": (20.0, 10.0)}, r"height must be a pair \(lowest, highest\) within 4..128; got \(20.0, 10.0\)"),
            ({"height": 20.0}, "height must be a pair .* got 20.0"),
            ({"noise": (0.0, 2.0)}, "noise must be a pair .* within 0..1"),
            ({"shading": ("a", "b")}, "shading must be a pair"),
            ({"neighbour": 1.5}, "neighbour must be a number within 0..1; got 1.5"),
            ({"rotation": "much"}, "rotation must be a number within 0..180; got 'much'"),
            ({"slant": float("nan")}, "slant must be a number within 0..1; got nan"),
            ({"contrast": 0.6}, "contrast must be a number above 0 and at most 0.5, .* got 0.6"),
        ],
    )
    def test_settings_that_cannot_be(self, parameters: dict, text: str) -> None:
        with pytest.raises(DeclarationError, match=text):
            StreetNumbers(**parameters)

    def test_arguments_that_cannot_be(self) -> None:
        with pytest.raises(UnknownNameError, match=r"no split 'tests'. Did you mean 'test'\? Available: 'train', 'val"):
            street_numbers("tests")
        with pytest.raises(UnknownNameError, match=r"no preset 'hard'. Available: 'easy', 'full', or a StreetNumbers"):
            street_numbers(preset="hard")
        with pytest.raises(DataError, match=r"size must be a positive integer; got 0"):
            street_numbers(size=0)
        with pytest.raises(DataError, match=r"seed must be an integer; got 'a'"):
            street_numbers(size=1, seed="a")  # type: ignore[arg-type]


# Files in the formats of real sets


def pictures(count: int, side: int = 8, seed: int = 0) -> np.ndarray:
    """Random images, uint8 `[count, side, side, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def write_parquet(path: Path, cells: list[object], labels: list[object], column: str = "image", **more: list) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: cells, "label": labels, **more}), path, row_group_size=3)
    return path


def hub_folder(folder: Path, train: int = 10, test: int = 4) -> tuple[np.ndarray, np.ndarray]:
    images, held = pictures(train), pictures(test, seed=1)
    half = train // 2
    for name, part, start in (
        ("train-00000-of-00002.parquet", images[:half], 0),
        ("train-00001-of-00002.parquet", images[half:], half),
        ("test-00000-of-00001.parquet", held, 0),
    ):
        cells: list[object] = [{"bytes": png(image), "path": "x.png"} for image in part]
        write_parquet(folder / name, cells, list(range(start, start + len(part))))
    return images, held


def write_mat(path: Path, images: np.ndarray, labels: list[int]) -> Path:
    from scipy.io import savemat

    savemat(str(path), {"X": images.transpose(1, 2, 3, 0), "y": np.array(labels, dtype=np.uint8)[:, None]})
    return path


class TestLoadStreetNumbers:
    def test_the_names_draw_the_presets(self) -> None:
        for name, preset in (
            ("street_numbers", "full"),
            ("street_numbers/full", "full"),
            ("street_numbers/easy", "easy"),
        ):
            data = load(name, "test", size=6, seed=2)
            assert torch.equal(data.images, street_numbers("test", 6, preset, seed=2).images)
            assert data.name == f"street_numbers/{preset}"
        assert len(load("street_numbers/easy", "validation", limit=7)) == 7
        assert len(load("street_numbers/easy", "validation", limit=7, size=3)) == 3
        assert {"street_numbers/easy", "street_numbers/full"} <= set(DATA_SETS)

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(UnknownNameError, match=r"no preset 'hard'"):
            load("street_numbers/hard")
        with pytest.raises(DataError, match=r"no option 'holdout'. This set takes 'limit', 'size', 'seed'"):
            load("street_numbers", holdout=0.1)
        with pytest.raises(UnknownNameError, match=r"no split 'extra'"):
            load("street_numbers", "extra", limit=3)


class TestParquet:
    @pytest.mark.parametrize("inside", ["", "data"])
    def test_a_hub_folder(self, tmp_path: Path, inside: str) -> None:
        images, held = hub_folder(tmp_path / "digits" / inside)
        train, test = load(tmp_path / "digits"), load(str(tmp_path / "digits"), "test")
        assert torch.equal(train.images, channels_first(images))
        assert torch.equal(test.images, channels_first(held))
        assert train.factors["label"].tolist() == list(range(10))
        assert (train.name, train.split, test.split) == ("digits", "train", "test")

    def test_a_name_finds_parquet_under_the_root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, held = hub_folder(tmp_path / "svhn")
        assert torch.equal(load("svhn", "test", root=tmp_path).images, channels_first(held))
        monkeypatch.setenv("INFOPLACE_DATA", str(tmp_path))
        assert load("svhn", "test").name == "svhn"

    def test_splits_can_be_joined(self, tmp_path: Path) -> None:
        images, held = hub_folder(tmp_path)
        both = load(tmp_path, "train+test")
        assert torch.equal(both.images, channels_first(np.concatenate([images, held])))
        assert both.split == "train+test"

    def test_a_limit_is_spread_over_the_split(self, tmp_path: Path) -> None:
        images, _ = hub_folder(tmp_path)
        some = load(tmp_path, limit=5)
        assert some.factors["label"].tolist() == [0, 2, 4, 6, 8]
        assert torch.equal(some.images, channels_first(images[::2]))
        assert len(load(tmp_path, limit=99)) == 10
        assert len(load(tmp_path, "train+test", limit=7)) == 7

    def test_a_held_out_share_is_the_same_every_time_and_not_in_train(self, tmp_path: Path) -> None:
        hub_folder(tmp_path)
        train, validation = (load(tmp_path, split, holdout=0.3) for split in ("train", "validation"))
        assert torch.equal(validation.images, load(tmp_path, "validation", holdout=0.3).images)
        kept, held = train.factors["label"].tolist(), validation.factors["label"].tolist()
        assert (len(kept), len(held)) == (7, 3)
        assert sorted(kept + held) == list(range(10))
        assert len(load(tmp_path, "test", holdout=0.3)) == 4

    def test_a_validation_split_of_its_own(self, tmp_path: Path) -> None:
        hub_folder(tmp_path)
        write_parquet(tmp_path / "validation-00000-of-00001.parquet", [png(pictures(1)[0])], [5])
        assert load(tmp_path, "validation").factors["label"].tolist() == [5]
        with pytest.raises(DataError, match=r"has a validation split of its own; leave holdout out"):
            load(tmp_path, holdout=0.1)

    def test_other_columns_and_layouts(self, tmp_path: Path) -> None:
        images = pictures(4)
        Image.fromarray(images[3]).save(tmp_path / "on_disk.png")
        cells: list[object] = [{"bytes": png(image), "path": None} for image in images[:3]]
        cells.append({"bytes": None, "path": "on_disk.png"})
        file = write_parquet(
            tmp_path / "all.parquet", cells, [1, 2, 3, 4], "img", slant=[0.5] * 4, caption=["a"] * 4, odd=[True] * 4
        )
        data = load(file)
        assert torch.equal(data.images, channels_first(images))
        assert {name: values.dtype for name, values in data.factors.items()} == {
            "label": torch.int64,
            "slant": torch.float32,
            "odd": torch.int64,
        }

    def test_jpeg_and_grey(self, tmp_path: Path) -> None:
        smooth = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
        data = load(write_parquet(tmp_path / "test.parquet", [png(smooth, "JPEG")], [0]), "test")
        assert data.shape == (1, 16, 16)
        assert int((data.images[0, 0].int() - torch.from_numpy(smooth).int()).abs().max()) < 8
        mixed = write_parquet(tmp_path / "mixed.parquet", [png(pictures(1)[0]), png(pictures(1)[0][:, :, 0])], [0, 1])
        with pytest.raises(DataError, match=r"row 1 is 8x8 with 1 channel while .*row 0 is 8x8 with 3 .*channels=3"):
            load(mixed)
        assert load(mixed, channels=3).shape == (3, 8, 8)
        assert load(mixed, channels=1, resize=(4, 6)).shape == (1, 4, 6)

    def test_what_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        good = png(pictures(1)[0])
        with pytest.raises(DataError, match=r"broken.parquet, row 1: this is not an image that can be read"):
            load(write_parquet(tmp_path / "broken.parquet", [good, good[:60]], [0, 1]))
        with pytest.raises(DataError, match=r"empty.parquet, row 1: the image must be bytes.* got NoneType"):
            load(write_parquet(tmp_path / "empty.parquet", [good, None], [0, 1]))
        with pytest.raises(DataError, match=r"column 'label' has rows without a value"):
            load(write_parquet(tmp_path / "nulls.parquet", [good, good], [0, None]))
        with pytest.raises(DataError, match=r"a column 'image' or 'img' .* the columns are 'picture', 'label'"):
            load(write_parquet(tmp_path / "columns.parquet", [good], [0], "picture"))
        (tmp_path / "text.parquet").write_text("no parquet")
        with pytest.raises(DataError, match=r"text.parquet: this is not a Parquet file that can be read"):
            load(tmp_path / "text.parquet")
        import pyarrow as pa

        none = write_parquet(tmp_path / "none.parquet", pa.array([], pa.binary()), pa.array([], pa.int64()))
        with pytest.raises(DataError, match=r"the 'train' split holds no images"):
            load(none)

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub_folder(tmp_path)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(DataError, match=r"needs pyarrow; type: pip install 'infoplace\[parquet\]'"):
            load(tmp_path)


class TestMat:
    def test_the_cropped_digits(self, tmp_path: Path) -> None:
        images = pictures(4, side=32)
        data = load(write_mat(tmp_path / "test_32x32.mat", images, [1, 10, 9, 10]), "test")
        assert torch.equal(data.images, channels_first(images))
        assert data.factors["label"].tolist() == [1, 0, 9, 0]

    def test_a_folder_of_splits(self, tmp_path: Path) -> None:
        for split, count in (("train", 3), ("extra", 2), ("test", 1)):
            write_mat(tmp_path / f"{split}_32x32.mat", pictures(count, 32), [1] * count)
        assert [len(load(tmp_path, split)) for split in ("train", "extra", "test", "train+extra")] == [3, 2, 1, 5]

    def test_a_test_file_is_not_read_as_training_images(self, tmp_path: Path) -> None:
        file = write_mat(tmp_path / "test_32x32.mat", pictures(2, 32), [1, 2])
        with pytest.raises(UnknownNameError, match=r"no split 'train'. Available: 'test'"):
            load(file)

    def test_what_cannot_be_read_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from scipy.io import savemat

        savemat(str(tmp_path / "other.mat"), {"Z": np.zeros(3)})
        with pytest.raises(DataError, match=r"the arrays 'X' .* and 'y' .* are expected; the file has 'Z'"):
            load(tmp_path / "other.mat")
        savemat(str(tmp_path / "grey.mat"), {"X": np.zeros((4, 4, 2), np.uint8), "y": np.ones((2, 1))})
        with pytest.raises(DataError, match=r"'X' must be uint8 \[height, width, 3, images\].* got uint8 \[4, 4, 2\]"):
            load(tmp_path / "grey.mat")
        (tmp_path / "text.mat").write_text("nothing of the kind")
        with pytest.raises(DataError, match=r"text.mat: this is not a MATLAB file that can be read"):
            load(tmp_path / "text.mat")
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        with pytest.raises(DataError, match=r"needs scipy; type: pip install 'infoplace\[svhn\]'"):
            load(tmp_path / "other.mat")


class TestNpz:
    @pytest.mark.parametrize("name", ["images", "x"])
    @pytest.mark.parametrize("layout", ["last", "first", "float"])
    def test_layouts(self, tmp_path: Path, name: str, layout: str) -> None:
        images = pictures(5)
        stored = {
            "last": images,
            "first": images.transpose(0, 3, 1, 2),
            "float": images.astype(np.float32) / 255,
        }[layout]
        np.savez(tmp_path / "set.npz", **{name: stored}, digit=np.arange(5), colour=np.zeros((5, 3)))
        data = load(tmp_path / "set.npz")
        assert torch.equal(data.images, channels_first(images))
        assert data.factors["digit"].dtype == torch.int64
        assert data.factors["colour"].shape == (5, 3)
        assert data.factors["colour"].dtype == torch.float32

    def test_grey_without_a_channel_dimension(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "test.npz", images=pictures(5)[..., 0])
        assert load(tmp_path / "test.npz", "test").shape == (1, 8, 8)

    @pytest.mark.parametrize(
        ("arrays", "text"),
        [
            ({"data": np.zeros(3)}, "an array 'images' or 'x' is expected; the file has 'data'"),
            ({"images": np.full((2, 4, 4, 3), 200.0)}, r"must be in \[0, 1\]; got 200 to 200. Divide by 255"),
            ({"images": np.full((2, 4, 4, 3), np.nan)}, r"must be in \[0, 1\]; got nan to nan\."),
            ({"images": np.zeros((2, 4, 4, 3), np.int64)}, "must be uint8 .* or float .*; got int64"),
            ({"images": np.zeros((2, 4, 4, 5), np.uint8)}, r"1 or 3 channels, .* got \[2, 4, 4, 5\]"),
            ({"images": np.zeros((2, 4), np.uint8)}, r"got \[2, 4\]"),
            (
                {"images": pictures(2), "digit": np.arange(3)},
                "'digit' must have one entry for each of the 2 images; got 3",
            ),
            ({"images": pictures(2), "word": np.array(["a", "b"])}, "factor 'word' must be an array of numbers"),
            ({"images": pictures(2)[:0]}, "the 'train' split holds no images"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, arrays: dict, text: str) -> None:
        np.savez(tmp_path / "set.npz", **arrays)
        with pytest.raises(DataError, match=text):
            load(tmp_path / "set.npz")

    def test_no_archive_and_no_pickles(self, tmp_path: Path) -> None:
        (tmp_path / "text.npz").write_text("nothing of the kind")
        with pytest.raises(DataError, match=r"text.npz: this is not an .npz archive that can be read"):
            load(tmp_path / "text.npz")
        np.savez(tmp_path / "objects.npz", images=np.array([{}, {}], dtype=object))
        with pytest.raises(DataError, match=r"objects.npz: this is not an .npz archive that can be read"):
            load(tmp_path / "objects.npz")


class TestImageFolder:
    def write(self, folder: Path, count: int, seed: int = 0, side: int = 8) -> np.ndarray:
        folder.mkdir(parents=True, exist_ok=True)
        images = pictures(count, side, seed)
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{index}.png")
        return images

    def test_a_class_for_each_sub_folder(self, tmp_path: Path) -> None:
        cats, dogs = self.write(tmp_path / "cat", 2), self.write(tmp_path / "dog" / "brown", 3, seed=1)
        (tmp_path / ".DS_Store").write_text("x")
        (tmp_path / "notes").mkdir()
        data = load(tmp_path)
        assert data.factors["label"].tolist() == [0, 0, 1, 1, 1]
        assert torch.equal(data.images, channels_first(np.concatenate([cats, dogs])))

    def test_a_flat_folder_has_no_labels(self, tmp_path: Path) -> None:
        images = self.write(tmp_path, 3)
        data = load(tmp_path)
        assert not data.factors
        assert torch.equal(data.images, channels_first(images))

    def test_splits_are_folders(self, tmp_path: Path) -> None:
        for split, count in (("train", 3), ("val", 2), ("test", 1)):
            self.write(tmp_path / split / "zero", count)
        assert [len(load(tmp_path, split)) for split in ("train", "validation", "test")] == [3, 2, 1]

    def test_the_odd_one_out_is_named_and_resize_brings_it_in(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a", 2)
        self.write(tmp_path / "b", 1, side=12)
        with pytest.raises(DataError, match=r"b.0.png is 12x12 with 3 channels while .*a.0.png is 8x8 .*resize="):
            load(tmp_path)
        assert load(tmp_path, resize=6).shape == (3, 6, 6)

    def test_resizing_crops_about_the_centre(self, tmp_path: Path) -> None:
        wide = np.zeros((4, 12, 3), np.uint8)
        wide[:, 4:8] = 200
        Image.fromarray(wide).save(tmp_path / "wide.png")
        assert bool((load(tmp_path, resize=4).images == 200).all())

    def test_what_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a", 1)
        (tmp_path / "a" / "9.png").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"9.png: this is not an image that can be read"):
            load(tmp_path)
        deep = tmp_path / "deep"
        deep.mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep / "deep.png")
        with pytest.raises(DataError, match=r"deep.png: images of 8 bits a channel are expected"):
            load(deep)
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"empty: no images here; files ending in .bmp, "):
            load(tmp_path / "empty")
        self.write(tmp_path, 1)
        with pytest.raises(DataError, match=r"images lie beside class folders .'0.png' beside 'a'"):
            load(tmp_path)


def write_cifar10(root: Path) -> np.ndarray:
    """Torchvision's folder, with two images in each batch; returns the test images."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]:
        images = pictures(2, 32, seed=len(name))
        content = {"data": images.transpose(0, 3, 1, 2).reshape(2, -1), "labels": [3, 7]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(index) for index in range(10)]}))
    return images


class TestTorchvision:
    def test_svhn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchvision.datasets import SVHN

        monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
        images = {split: pictures(3, 32, seed) for seed, split in enumerate(("train", "extra", "test"))}
        for split, each in images.items():
            write_mat(tmp_path / f"{split}_32x32.mat", each, [10, 1, 2])
        both = load("svhn", "train+extra", root=tmp_path)
        assert torch.equal(both.images, channels_first(np.concatenate([images["train"], images["extra"]])))
        assert both.factors["label"].tolist() == [0, 1, 2, 0, 1, 2]
        assert torch.equal(load("svhn", "test", root=tmp_path).images, channels_first(images["test"]))
        with pytest.raises(DataError, match=r"no validation split; give holdout=0.1 to both"):
            load("svhn", "validation", root=tmp_path)
        with pytest.raises(UnknownNameError, match=r"no split 'all'. Available: 'train', 'extra', 'test'"):
            load("svhn", "all", root=tmp_path)

    def test_cifar10(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchvision import datasets

        monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
        monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *arguments: True)
        held = write_cifar10(tmp_path)
        assert len(load("cifar10", root=tmp_path)) == 10
        test = load("cifar10", "test", root=tmp_path)
        assert torch.equal(test.images, channels_first(held))
        assert test.factors["label"].tolist() == [3, 7]

    def test_mnist(self, tmp_path: Path) -> None:
        folder = tmp_path / "MNIST" / "raw"
        folder.mkdir(parents=True)
        images = pictures(3, 28)[..., 0]
        for prefix in ("train", "t10k"):
            # The IDX format: zero, zero, type (8: bytes), dimensions, then their sizes.
            for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", np.array([5, 0, 4], np.uint8))):
                header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
                (folder / f"{prefix}-{name}").write_bytes(header + array.tobytes())
                (folder / f"{prefix}-{name}.gz").write_bytes(gzip.compress(b""))
        data = load("mnist", "test", root=tmp_path)
        assert torch.equal(data.images, torch.from_numpy(images.copy())[:, None])
        assert data.factors["label"].tolist() == [5, 0, 4]

    @pytest.mark.parametrize("name", ["svhn", "cifar10", "mnist"])
    def test_missing_files_say_what_to_type(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            DataError, match=rf"Type load\('{name}', 'test', download=True\) to fetch them \(.*--download\), or root="
        ):
            load(name, "test", root=tmp_path)

    def test_a_failed_download_says_what_else_there_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchvision import datasets

        def fail(self: object) -> None:
            raise OSError("Network is unreachable")

        monkeypatch.setattr(datasets.SVHN, "download", fail)
        with pytest.raises(DataError, match=r"download to .* failed \(Network is unreachable\).*'street_numbers'"):
            load("svhn", root=tmp_path / "new", download=True)

    def test_arrays_are_not_resized(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"mnist: resize and channels are for Parquet and image folders"):
            load("mnist", root=tmp_path, resize=32)


class TestLoad:
    def test_unknown_names_and_paths(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match=r"no data set, file or folder 'cifar11'. Did you mean 'cifar10'?"):
            load("cifar11")
        with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
            load(tmp_path / "nowhere")
        (tmp_path / "one.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"\.parquet, \.mat, \.npz and folders .* Give the folder that the image"):
            load(tmp_path / "one.png")

    def test_a_path_object_is_a_path(self) -> None:
        with pytest.raises(UnknownNameError, match=r"file or folder 'mnist'"):
            load(Path("mnist"))

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"holdout": 1.0}, "holdout must be a share between 0 and 1, such as 0.1; got 1.0"),
            ({"holdout": 0.01}, "holdout=0.01 of 10 images leaves none for one of"),
            ({"limit": 0}, "limit must be a positive number of images; got 0"),
            ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(colour\); got 4"),
            ({"resize": (8, 0)}, r"resize must be a side in pixels or a pair \(height, width\); got \(8, 0\)"),
            ({"holdouts": 0.1}, "no option 'holdouts'. Did you mean 'holdout'?"),
        ],
    )
    def test_options_that_cannot_be(self, tmp_path: Path, options: dict, text: str) -> None:
        hub_folder(tmp_path)
        with pytest.raises(DataError, match=text):
            load(tmp_path, **options)

    def test_splits_that_do_not_fit_together(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "train.npz", images=pictures(2, 8))
        np.savez(tmp_path / "test.npz", images=pictures(2, 9))
        with pytest.raises(DataError, match=r"do not fit together: shapes \[3, 8, 8\] and \[3, 9, 9\]"):
            load(tmp_path, "train+test")

    def test_two_archives_of_one_split(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            np.savez(tmp_path / f"{name}.npz", images=pictures(2))
        with pytest.raises(DataError, match=r"several .npz files make one split .'one.npz', 'two.npz'.; name one"):
            load(tmp_path)

    @pytest.mark.skipif(REAL_DATA is None, reason="set INFOPLACE_DATA to the folder that holds cifar10/ and mnist/")
    @pytest.mark.parametrize(("name", "shape"), [("cifar10", (3, 32, 32)), ("mnist", (1, 28, 28))])
    def test_the_real_sets(self, name: str, shape: tuple[int, ...]) -> None:
        data = load(name, "test", root=REAL_DATA, limit=2000)
        assert (len(data), data.shape, data.name) == (2000, shape, name)
        counts = torch.bincount(data.factors["label"], minlength=10)
        assert len(counts) == 10
        assert int(counts.min()) > 100
        assert 20 < float(data.images.float().mean()) < 140
