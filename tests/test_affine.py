"""The random change of pose: against turns, shifts and enlargements that are known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from infoplace import transforms
from infoplace.errors import DataError, DeclarationError
from infoplace.transforms import make_transform


def images(count: int = 3, shape: tuple[int, ...] = (2, 8, 8), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=seeded(seed), dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def draws(monkeypatch):
    """Lets a test say what is drawn of turn, size, shift along each axis, and slant, from -1 to 1."""

    def draw(turn: float = 0.0, size: float = 0.0, right: float = 0.0, down: float = 0.0, lean: float = 0.0) -> None:
        values = torch.tensor([turn, size, right, down, lean], dtype=torch.float64).unsqueeze(1)

        def given(shape: tuple[int, ...], x: Tensor, generator: torch.Generator | None) -> Tensor:
            return (values.expand(shape) + 1) / 2

        monkeypatch.setattr(transforms.stock, "draw_uniform", given)

    return draw


def test_all_amounts_zero_are_refused() -> None:
    with pytest.raises(
        DeclarationError, match="affine: degrees, shift, scale and slant are all 0, so nothing is changed; use 'id"
    ):
        make_transform("affine", degrees=0, shift=0, scale=0)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"degrees": 181}, "affine: degrees must be a number of at least 0 and at most 180; got 181"),
        ({"degrees": -1}, "affine: degrees must be a number of at least 0"),
        ({"shift": 1.5}, "affine: shift must be a number of at least 0 and at most 1; got 1.5"),
        ({"scale": -0.1}, "affine: scale must be a number of at least 0; got -0.1"),
        ({"scale": math.inf}, "affine: scale must be a number of at least 0; got inf"),
        ({"degrees": "ten"}, "affine: degrees must be a number"),
    ],
)
def test_amounts_out_of_range_are_refused(parameters: dict, text: str) -> None:
    with pytest.raises(DeclarationError, match=text):
        make_transform("affine", **parameters)


@pytest.mark.parametrize("amount", [{"degrees": 1e-6}, {"shift": 1e-8}, {"scale": 1e-8}], ids=str)
def test_tiny_amounts_change_next_to_nothing(amount: dict) -> None:
    x = images()
    transform = make_transform("affine", **{"degrees": 0, "shift": 0, "scale": 0, **amount})
    torch.testing.assert_close(transform(x, generator=seeded()), x, atol=1e-6, rtol=0)


def test_half_a_draw_is_no_change(draws) -> None:
    draws()
    x = images()
    torch.testing.assert_close(make_transform("affine")(x), x, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (-1, 0), (0.5, -1)])
def test_a_shift_of_whole_pixels_is_a_roll_inside(draws, right: float, down: float) -> None:
    draws(right=right, down=down)
    x = images(shape=(2, 8, 12))
    # A quarter of the side: two of 8 rows, three of 12 columns; the grid says where a pixel comes from.
    shifts = (-round(2 * down), -round(3 * right)) if right != 0.5 else None
    found = make_transform("affine", degrees=0, shift=0.25, scale=0)(x)
    if shifts is None:
        halves = [x.roll((2, -columns), (-2, -1)) for columns in (1, 2)]
        expected = (halves[0] + halves[1]) / 2
    else:
        expected = x.roll(shifts, (-2, -1))
    torch.testing.assert_close(found[..., 2:-2, 3:-3], expected[..., 2:-2, 3:-3], atol=1e-12, rtol=0)


def test_the_borders_pixels_are_repeated_outwards(draws) -> None:
    draws(right=1, down=1)
    x = images()
    found = make_transform("affine", degrees=0, shift=0.25, scale=0)(x)
    torch.testing.assert_close(found[..., -1, -1], x[..., -1, -1], atol=1e-12, rtol=0)
    torch.testing.assert_close(found[..., 0, -2:], x[..., 2, -1:].expand(-1, -1, 2), atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 7])
def test_a_right_angle_is_a_right_angle(draws, channels: int, side: int) -> None:
    x = images(shape=(channels, side, side))
    quarter = make_transform("affine", degrees=90, shift=0, scale=0)
    draws(turn=1)
    one = quarter(x)
    draws(turn=-1)
    other = quarter(x)
    turned = [torch.rot90(x, turns, (-2, -1)) for turns in (1, -1)]
    first = 0 if torch.allclose(one, turned[0], atol=1e-9) else 1
    torch.testing.assert_close(one, turned[first], atol=1e-9, rtol=0)
    torch.testing.assert_close(other, turned[1 - first], atol=1e-9, rtol=0)
    draws(turn=1)
    half = make_transform("affine", degrees=180, shift=0, scale=0)(x)
    torch.testing.assert_close(half, x.flip(-2, -1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(1, 20, 20), (1, 16, 24)])
def test_a_turn_is_scipys_in_pixels_not_in_shares_of_the_side(draws, shape: tuple) -> None:
    draws(turn=1)
    x = images(1, shape)
    angle = math.radians(25)
    centre = torch.tensor([(shape[1] - 1) / 2, (shape[2] - 1) / 2]).double()
    found = make_transform("affine", degrees=25, shift=0, scale=0)(x)[0, 0]
    errors = []
    for sign in (1, -1):
        cos, sin = math.cos(angle), sign * math.sin(angle)
        turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
        expected = ndimage.affine_transform(
            x[0, 0].numpy(), turn.numpy(), (centre - turn @ centre).numpy(), order=1, mode="nearest"
        )
        errors.append((found - torch.from_numpy(expected)).abs().max().item())
    assert min(errors) < 1e-9
    assert max(errors) > 0.1


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 12, 20)])
@pytest.mark.parametrize(("size", "zoom"), [(1, 2.0), (-1, 0.5), (0.5, math.sqrt(2.0))])
def test_the_scale_is_uniform_in_its_logarithm(draws, shape: tuple, size: float, zoom: float) -> None:
    draws(size=size)
    x = images(1, shape)
    centre = torch.tensor([(shape[1] - 1) / 2, (shape[2] - 1) / 2]).double()
    found = make_transform("affine", degrees=0, shift=0, scale=1.0)(x)[0, 0]
    expected = ndimage.affine_transform(
        x[0, 0].numpy(), [1 / zoom, 1 / zoom], (centre - centre / zoom).numpy(), order=1, mode="nearest"
    )
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 12, 20)])
def test_a_slant_is_a_shear_of_rows_and_comes_before_the_turn(draws, shape: tuple) -> None:
    x = images(1, shape)
    centre = torch.tensor([(shape[1] - 1) / 2, (shape[2] - 1) / 2]).double()
    slope, angle = math.tan(math.radians(20)), math.radians(25)
    # In (row, column) order: a row keeps its place, a column moves with its row.
    shear = torch.tensor([[1.0, 0.0], [slope, 1.0]], dtype=torch.float64)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    for drawn, degrees, matrix in ((0.0, 0.0, shear), (1.0, 25.0, turn @ shear)):
        draws(turn=drawn, lean=1)
        found = make_transform("affine", degrees=degrees, shift=0, scale=0, slant=20)(x)[0, 0]
        expected = ndimage.affine_transform(
            x[0, 0].numpy(), matrix.numpy(), (centre - matrix @ centre).numpy(), order=1, mode="nearest"
        )
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-9, rtol=0)


def test_shifts_fill_the_range_they_may() -> None:
    """On a ramp, a shift is read off as a difference of values."""
    width = 64
    ramp = (torch.arange(width, dtype=torch.float64) / width).expand(400, 1, 4, width).contiguous()
    found = make_transform("affine", degrees=0, shift=0.25, scale=0)(ramp, generator=seeded())
    shifts = (found - ramp)[:, 0, 2, width // 2]
    assert shifts.abs().max() <= 0.25 + 1e-9
    assert shifts.min() < -0.24
    assert shifts.max() > 0.24
    assert abs(shifts.mean()) < 0.03
    assert shifts.std().item() == pytest.approx(0.5 / math.sqrt(12), rel=0.08)


def test_the_same_seed_gives_the_same_and_another_seed_another() -> None:
    x, transform = images(), make_transform("affine")
    one = transform(x, generator=seeded(1))
    assert torch.equal(one, transform(x, generator=seeded(1)))
    assert not torch.allclose(one, transform(x, generator=seeded(2)))


def test_every_sample_has_a_pose_of_its_own_and_all_channels_share_it() -> None:
    x = images(1, (1, 8, 8)).expand(4, 3, 8, 8)
    found = make_transform("affine")(x, generator=seeded())
    for one in range(4):
        assert torch.equal(found[one, 0], found[one, 2])
        assert not any(torch.allclose(found[one], found[other]) for other in range(one))


def test_samples_do_not_see_each_other() -> None:
    x = images(4)
    other = x.clone()
    other[1] = 0.5
    one, two = (make_transform("affine")(batch, generator=seeded()) for batch in (x, other))
    kept = [0, 2, 3]
    assert torch.equal(one[kept], two[kept])


def test_bytes_come_back_as_bytes() -> None:
    x = (images(4) * 255).round().to(torch.uint8)
    found = make_transform("affine")(x, generator=seeded())
    assert found.dtype == torch.uint8
    in_floats = make_transform("affine")(x.double() / 255, generator=seeded())
    assert (found.double() - 255 * in_floats).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_floats_keep_their_type(dtype: torch.dtype) -> None:
    x = images().to(dtype)
    found = make_transform("affine")(x, generator=seeded())
    assert found.dtype == dtype
    reference = make_transform("affine")(x.double(), generator=seeded())
    torch.testing.assert_close(found.double(), reference, atol=1e-2 if dtype.itemsize == 2 else 1e-5, rtol=0)


def test_integers_other_than_bytes_are_refused() -> None:
    with pytest.raises(DataError, match="affine takes floats in"):
        make_transform("affine")(torch.zeros(2, 1, 8, 8, dtype=torch.int64))


def test_more_dimensions_in_front_go_with_their_sample() -> None:
    x = images(3, (5, 2, 8, 8))
    found = make_transform("affine")(x, generator=seeded())
    assert found.shape == x.shape
    for frame in range(5):
        alone = make_transform("affine")(x[:, frame], generator=seeded())
        torch.testing.assert_close(found[:, frame], alone, atol=1e-12, rtol=0)


def test_what_is_not_contiguous_gives_the_same() -> None:
    x = images()
    other = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert not other.is_contiguous()
    one, two = (make_transform("affine")(batch, generator=seeded()) for batch in (x, other))
    torch.testing.assert_close(one, two)


def test_the_input_is_left_alone() -> None:
    x = images()
    before = x.clone()
    found = make_transform("affine")(x, generator=seeded())
    found.zero_()
    assert torch.equal(x, before)


def test_a_flat_image_stays_flat_and_values_stay_in_range() -> None:
    transform = make_transform("affine", degrees=180, shift=0.5, scale=2.0)
    flat = torch.full((6, 1, 8, 8), 0.37)
    torch.testing.assert_close(transform(flat, generator=seeded()), flat)
    x = images(6)
    found = transform(x, generator=seeded())
    assert found.min() >= x.min()
    assert found.max() <= x.max()


def test_its_spec_says_all_and_it_says_what_it_destroys() -> None:
    transform = make_transform({"affine": {"degrees": 5, "shift": 0}})
    assert transform.to_spec() == {"affine": {"degrees": 5.0, "shift": 0.0, "scale": 0.1, "slant": 0.0}}
    assert make_transform(transform.to_spec()) == transform
    assert (transform.destroys, transform.stochastic) == ("pose", True)
    assert "affine" in transforms.list_transforms(destroys="pose")


def test_single_images_are_refused_with_advice() -> None:
    with pytest.raises(DataError, match=r"add a batch dimension with x\[None\]"):
        make_transform("affine")(torch.rand(3, 8, 8))
