"""The Haar transform against matrices written out, and wavelet_shuffle against what every band must keep."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from infoplace.errors import DataError, DeclarationError
from numpy.typing import NDArray

from infoplace_spectral import WaveletShuffle, haar, inverse_haar

CASES = [((2, 16), 3), ((3, 12), 2), ((3, 8, 8), 3), ((2, 4, 12), 2), ((2, 4, 8, 4), 2), ((1, 6, 2, 10), 1)]


def samples(shape: tuple[int, ...], batch: int = 4, contrast: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(0.5 + contrast * (np.random.default_rng(0).random((batch, *shape)) - 0.5))


def run(transform: WaveletShuffle, x: torch.Tensor, seed: int = 1) -> torch.Tensor:
    return transform(x, generator=torch.Generator().manual_seed(seed))


def matrix(side: int, differences: bool) -> NDArray[np.float64]:
    """The half of the Haar matrix that takes sums, or differences, of neighbours: `[side / 2, side]`."""
    rows = np.zeros((side // 2, side))
    for row in range(side // 2):
        rows[row, 2 * row], rows[row, 2 * row + 1] = np.sqrt(0.5), -np.sqrt(0.5) if differences else np.sqrt(0.5)
    return rows


def band(x: NDArray[Any], dims: int, kinds: tuple[bool, ...]) -> NDArray[Any]:
    """One band of one level, by multiplying each side with its matrix."""
    for axis, differences in zip(range(-dims, 0), kinds, strict=True):
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix(x.shape[axis], differences).T, -1, axis)
    return x


@pytest.mark.parametrize(("shape", "levels"), CASES)
def test_the_haar_transform_is_its_matrices(shape: tuple[int, ...], levels: int) -> None:
    dims = len(shape) - 1
    x = samples(shape)
    approximation, details = haar(x, levels, dims)
    assert len(details) == levels
    rest = x.numpy()
    for level in range(levels):
        for index in range(1, 2**dims):
            kinds = tuple(bool(index >> axis & 1) for axis in range(dims))
            np.testing.assert_allclose(details[level][index - 1].numpy(), band(rest, dims, kinds), atol=1e-14)
        rest = band(rest, dims, (False,) * dims)
    np.testing.assert_allclose(approximation.numpy(), rest, atol=1e-14)
    block = 2**levels
    means = rest / block ** (dims / 2)  # the approximation is means over blocks, scaled
    block_of_all: tuple[Any, ...] = (..., *[slice(block)] * dims)
    corner = x.numpy()[block_of_all].mean(tuple(range(-dims, 0)))
    np.testing.assert_allclose(means[(..., *[0] * dims)], corner, atol=1e-14)


@pytest.mark.parametrize(("shape", "levels"), CASES)
def test_it_is_orthonormal_and_comes_back(shape: tuple[int, ...], levels: int) -> None:
    dims = len(shape) - 1
    x = samples(shape)
    approximation, details = haar(x, levels, dims)
    torch.testing.assert_close(inverse_haar(approximation, details, dims), x, rtol=0, atol=1e-14)
    energy = approximation.square().sum() + sum(each.square().sum() for each in details)
    torch.testing.assert_close(energy, x.square().sum())
    assert approximation.numel() + sum(each.numel() for each in details) == x.numel()
    # An orthonormal transform keeps the product of any two samples.
    one, other = [torch.cat([approximation[i].flatten(), *[d[:, i].flatten() for d in details]]) for i in (0, 1)]
    torch.testing.assert_close(one @ other, (x[0] * x[1]).sum())


def test_known_coefficients() -> None:
    flat, details = haar(torch.full((1, 4, 4), 0.5), 2)
    assert flat.item() == pytest.approx(2)
    assert max(each.abs().max().item() for each in details) < 1e-7
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    approximation, (details_of_one_level,) = haar(board.double(), 1)
    torch.testing.assert_close(approximation, torch.ones(2, 2, dtype=torch.float64))
    expected = torch.stack([torch.zeros(2, 2), torch.zeros(2, 2), -torch.ones(2, 2)]).double()
    torch.testing.assert_close(details_of_one_level, expected)
    stripes = torch.tensor([1.0, 0.0]).repeat(2).expand(4, 4)  # they change along the width, the second side
    _, (along,) = haar(stripes, 1)
    torch.testing.assert_close(along, torch.stack([torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2, 2)]))


def bands_of(x: torch.Tensor, levels: int, dims: int) -> list[tuple[int, NDArray[Any]]]:
    """Each detail band with its level: `[batch, ..., places]`."""
    _, details = haar(x, levels, dims)
    return [(level, each.flatten(-dims).numpy()) for level, stack in enumerate(details) for each in stack]


@pytest.mark.parametrize(("shape", "levels"), CASES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_band_keeps_its_histogram_and_energy(shape: tuple[int, ...], levels: int, per_channel: bool) -> None:
    dims = len(shape) - 1
    x = samples(shape, contrast=0.05)
    y = run(WaveletShuffle(levels=levels, per_channel=per_channel, dims=dims), x)
    torch.testing.assert_close(haar(y, levels, dims)[0], haar(x, levels, dims)[0], rtol=0, atol=1e-14)
    for (_, before), (_, after) in zip(bands_of(x, levels, dims), bands_of(y, levels, dims), strict=True):
        np.testing.assert_allclose(np.sort(after), np.sort(before), atol=1e-14)
        np.testing.assert_allclose((after**2).sum(-1), (before**2).sum(-1), rtol=1e-10)
        if before.shape[-1] > 3:
            assert (np.abs(after - before).max(-1) > 1e-4).any()
    torch.testing.assert_close(y.square().sum(), x.square().sum())


@pytest.mark.parametrize("fit", ["shrink", "shift"])
def test_in_samples_of_full_contrast_all_bands_have_one_factor(fit: str) -> None:
    x = (samples((1, 16, 16)) > 0.7).double()
    y = run(WaveletShuffle(fit=fit), x)
    ratios = []
    for (_, before), (_, after) in zip(bands_of(x, 3, 2), bands_of(y, 3, 2), strict=True):
        ratios.append(np.sqrt((after**2).sum(-1) / (before**2).sum(-1)))
        np.testing.assert_allclose(np.sort(after), np.sort(before) * ratios[-1][..., None], atol=1e-12)
    assert np.ptp(ratios, axis=0).max() < 1e-9
    assert np.max(ratios) < 1


def test_channels_move_together_unless_each_is_asked_for() -> None:
    x = samples((3, 8, 8), contrast=0.05)

    def together(y: torch.Tensor) -> bool:
        pairs = zip(bands_of(x, 2, 2), bands_of(y, 2, 2), strict=True)
        return all(
            Counter(map(tuple, before[sample].T.round(9))) == Counter(map(tuple, after[sample].T.round(9)))
            for (_, before), (_, after) in pairs
            for sample in range(len(x))
        )

    assert together(run(WaveletShuffle(levels=2), x))
    assert not together(run(WaveletShuffle(levels=2, per_channel=True), x))


def test_every_place_is_equally_likely_and_bands_move_on_their_own() -> None:
    one = torch.full((1, 4), 0.5, dtype=torch.float64)
    one[0, :2] += torch.tensor([0.1, -0.1])
    x = one.expand(4000, 1, 4)
    y = run(WaveletShuffle(levels=1, dims=1), x.contiguous())
    moved = (y[:, 0, 2] - 0.5).abs() > 0.05
    assert moved.double().mean().item() == pytest.approx(0.5, abs=0.04)
    image = torch.zeros(2, 1, 1, 2, 2, dtype=torch.float64)
    details = image.new_zeros(3, 4000, 1, 2, 2)
    details[..., 0, 0] = 0.1
    x = inverse_haar(details.new_ones(4000, 1, 2, 2), [details])
    _, (after,) = haar(run(WaveletShuffle(levels=1), x), 1)
    places = after[:, :, 0].flatten(2).argmax(2)  # [3, 4000]
    seen = Counter(map(tuple, places.T.tolist()))
    assert len(seen) == 4**3
    assert min(seen.values()) > 30
    assert max(seen.values()) < 100


def test_coarse_shuffles_the_approximation_too() -> None:
    x = samples((3, 8, 8), contrast=0.05)
    kept, shuffled = run(WaveletShuffle(levels=1), x), run(WaveletShuffle(levels=1, coarse=True), x)
    before, after = haar(x, 1)[0].flatten(2), haar(shuffled, 1)[0].flatten(2)
    torch.testing.assert_close(haar(kept, 1)[0].flatten(2), before)
    torch.testing.assert_close(after.sort().values, before.sort().values)
    assert not torch.allclose(after, before, atol=1e-3)
    for sample in range(len(x)):
        colours = [Counter(map(tuple, each[sample].T.numpy().round(9))) for each in (before, after)]
        assert colours[0] == colours[1]


def test_more_levels_leave_less_of_the_layout() -> None:
    x = samples((1, 16, 16), 32, contrast=0.05)
    x += torch.linspace(-0.1, 0.1, 16)[:, None]

    def correlation(levels: int) -> float:
        return float(np.corrcoef(x.flatten().numpy(), run(WaveletShuffle(levels=levels), x).flatten().numpy())[0, 1])

    found = [correlation(levels) for levels in (1, 2, 3, 4)]
    assert found[0] > found[1] > found[2]
    # The fourth level has one coefficient of each kind, and nowhere to move it.
    assert found[3] == pytest.approx(found[2], rel=1e-9)


def test_sides_that_cannot_be_halved_so_often_are_refused() -> None:
    with pytest.raises(
        DeclarationError,
        match=r"levels=3 needs sides that 8 divides; got 28 x 28 in shape \(1, 28, 28\); levels can be 1 to 2$",
    ):
        WaveletShuffle().output_shape((1, 28, 28))
    with pytest.raises(DeclarationError, match=r"got 12 x 10 in shape \(1, 12, 10\); levels can be 1$"):
        WaveletShuffle(levels=2).output_shape((1, 12, 10))
    with pytest.raises(DataError, match=r"got 9 in shape \(1, 9\); crop or pad them to even sides"):
        WaveletShuffle(dims=1)(torch.rand(2, 1, 9))
    with pytest.raises(
        DeclarationError, match=r"takes samples of at least 4 values along a side; got shape \(3, 2, 2\)"
    ):
        WaveletShuffle(levels=1).output_shape((3, 2, 2))
    with pytest.raises(DataError, match=r"^haar: levels=2 needs sides that 4 divides; got 6 x 8 in shape \(1, 6, 8\)"):
        haar(torch.rand(1, 6, 8), 2)
    with pytest.raises(DataError, match=r"^haar: levels must be an integer of at least 1; got 0$"):
        haar(torch.rand(4, 4), 0)
    with pytest.raises(
        DataError, match=r"^haar takes floats of at least 2 dimensions; got torch.int64 of shape \(4, 4\)$"
    ):
        haar(torch.ones(4, 4, dtype=torch.int64))
    approximation, details = haar(torch.rand(1, 8, 8), 2)
    with pytest.raises(DataError, match=r"the details of level 2 must have shape \(3, 1, 2, 2\); got \(3, 1, 4, 4\)"):
        inverse_haar(approximation, details[::-1])


@pytest.mark.parametrize("shape", list(itertools.product([4, 8], repeat=2)))
def test_a_sample_that_is_flat_stays(shape: tuple[int, int]) -> None:
    x = torch.full((2, 3, *shape), 0.3)
    torch.testing.assert_close(run(WaveletShuffle(levels=2), x), x)
