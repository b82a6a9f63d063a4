"""How results are brought into [0, 1], and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.transforms import make_transform

import infoplace_spectral as spectral
from infoplace_spectral.base import FITS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wild(spread: float, dims: int = 2) -> torch.Tensor:
    """Values around each channel's own mean, as a transform may give them: `[6, 3, *[5] * dims]`."""
    means = 0.2 + 0.6 * torch.rand(6, 3, *([1] * dims), generator=seeded(1), dtype=torch.float64)
    noise = torch.randn(6, 3, *([5] * dims), generator=seeded(2), dtype=torch.float64)
    spatial = tuple(range(-dims, 0))
    return means + spread * (noise - noise.mean(spatial, keepdim=True))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_shrinking_keeps_means_and_proportions_and_shrinks_no_more_than_needed(dims: int) -> None:
    x = wild(0.5, dims).numpy()
    y = spectral.fit_range(torch.from_numpy(x), "shrink", dims).numpy()
    spatial = tuple(range(-dims, 0))
    means = x.mean(spatial, keepdims=True)
    np.testing.assert_allclose(y.mean(spatial, keepdims=True), means, atol=1e-12)
    for before, after, mean in zip(x, y, means, strict=True):
        factors = (after - mean) / (before - mean)
        assert np.ptp(factors) < 1e-9
        assert 0 < factors.max() < 1
        assert min(after.min(), 1 - after.max()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("fit", FITS)
def test_values_inside_stay_as_they_are(fit: str) -> None:
    x = wild(0.01)
    assert x.min() > 0
    assert x.max() < 1
    torch.testing.assert_close(spectral.fit_range(x, fit), x, rtol=0, atol=1e-15)


def test_shifting_moves_no_further_than_needed_and_shrinks_only_what_is_too_wide() -> None:
    narrow = torch.tensor([[[-0.3, 0.1, 0.5]], [[0.7, 1.1, 1.3]]], dtype=torch.float64)
    expected = torch.tensor([[[0.0, 0.4, 0.8]], [[0.4, 0.8, 1.0]]], dtype=torch.float64)
    torch.testing.assert_close(spectral.fit_range(narrow, "shift", dims=1), expected)
    wide = wild(0.5)
    y = spectral.fit_range(wide, "shift")
    for before, after in zip(wide.numpy(), y.numpy(), strict=True):
        # One line through all channels of the sample takes the lowest value to 0 and the highest to 1.
        np.testing.assert_allclose(after, (before - before.min()) / np.ptp(before), atol=1e-12)


def test_clipping_clips() -> None:
    x = wild(0.5).numpy()
    np.testing.assert_array_equal(spectral.fit_range(torch.from_numpy(x), "clip").numpy(), np.clip(x, 0, 1))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 100.0])
def test_everything_comes_into_the_range(fit: str, spread: float) -> None:
    for x in (wild(spread), 3 * wild(spread) - 1, wild(spread).float()):
        y = spectral.fit_range(x, fit)
        assert bool(y.isfinite().all())
        assert y.min() >= 0
        assert y.max() <= 1


def test_a_channel_that_is_white_but_for_rounding_does_not_flatten_the_others() -> None:
    x = 0.5 + 0.1 * torch.randn(1, 3, 8, 8, generator=seeded())
    x[:, 0] = 1 + 1e-7 * torch.randn(8, 8, generator=seeded())
    x[:, 1] = 1e-7 * torch.randn(8, 8, generator=seeded())
    y = spectral.fit_range(x)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["phase_scramble", "low_pass", "high_pass", "band_stop", "amplitude_flatten"])
def test_constant_samples_stay_constant(name: str) -> None:
    x = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    y = make_transform(name)(x, generator=seeded())
    torch.testing.assert_close(y, torch.full_like(x, 0.5) if name == "high_pass" else x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["phase_scramble", "low_pass", "high_pass", "amplitude_flatten", "amplitude_swap"])
def test_fit_changes_what_leaves_the_range(name: str) -> None:
    x = (torch.rand(4, 1, 8, 8, generator=seeded()) > 0.8).float()
    results = [make_transform(name, fit=fit)(x, generator=seeded(1)) for fit in FITS]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert not torch.allclose(results[one], results[other], atol=1e-3)


@pytest.mark.parametrize(
    "name", ["phase_scramble", "low_pass", "amplitude_flatten", "amplitude_swap", "wavelet_shuffle"]
)
@pytest.mark.parametrize("fit", FITS)
def test_gradients_pass(name: str, fit: str) -> None:
    transform = make_transform(name, fit=fit)
    x = torch.rand(2, 1, 8, 8, generator=seeded(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: transform(x, generator=seeded(1)), x, fast_mode=True)


@pytest.mark.parametrize(
    "name", ["phase_scramble", "low_pass", "amplitude_flatten", "amplitude_swap", "wavelet_shuffle"]
)
def test_gradients_of_flat_samples_are_finite(name: str) -> None:
    x = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).repeat(1, 2, 8, 8).requires_grad_()
    make_transform(name)(x, generator=seeded()).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_half_precision_is_computed_with_in_float32() -> None:
    x = torch.rand(2, 3, 8, 8, generator=seeded()).bfloat16()
    y = spectral.PhaseScramble()(x, generator=seeded())
    expected = spectral.PhaseScramble()(x.float(), generator=seeded()).bfloat16()
    assert y.equal(expected)


def test_float64_is_computed_with_as_it_is() -> None:
    x = torch.rand(2, 3, 8, 8, generator=seeded(), dtype=torch.float64)
    both = spectral.LowPass()(x) + spectral.HighPass()(x) - 0.5
    fine = 0.5 + (x - 0.5) / 100
    assert not torch.allclose(both, x)  # both were shrunk
    back = spectral.LowPass()(fine) + spectral.HighPass()(fine) - 0.5
    torch.testing.assert_close(back, fine, rtol=0, atol=1e-14)


# ---- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("phase_scramble", {"dims": 4}, r"^phase_scramble: dims must be an integer from 1 to 3; got 4$"),
    ("low_pass", {"dims": True}, r"^low_pass: dims must be an integer from 1 to 3; got True$"),
    ("band_stop", {"dims": 2.0}, r"dims must be an integer from 1 to 3; got 2.0"),
    (
        "wavelet_shuffle",
        {"fit": "shrinks"},
        r"^wavelet_shuffle: fit must be one of 'shrink', 'shift', 'clip'; got 'shrinks'. Did you mean 'shrink'\?$",
    ),
    ("phase_scramble", {"strength": 0}, r"strength must be a number above 0 and at most 1; got 0$"),
    ("phase_scramble", {"strength": 1.5}, r"strength must be a number above 0 and at most 1; got 1.5$"),
    ("phase_scramble", {"strength": "all"}, r"strength must be a number above 0 and at most 1; got 'all'$"),
    ("phase_scramble", {"strength": float("nan")}, r"strength must be a number above 0 and at most 1; got nan$"),
    ("phase_scramble", {"strength": True}, r"strength must be a number above 0 and at most 1; got True$"),
    ("phase_scramble", {"per_channel": 1}, r"per_channel must be true or false; got 1$"),
    ("low_pass", {"cutoff": 0}, r"^low_pass: cutoff must be a number above 0 and at most 0.5; got 0$"),
    ("high_pass", {"cutoff": 8}, r"^high_pass: cutoff must be a number above 0 and at most 0.5; got 8$"),
    ("low_pass", {"edge": "gauss"}, r"edge must be one of 'sharp', 'gaussian'; got 'gauss'. Did you mean 'gaussian'\?"),
    ("band_stop", {"low": 0.3, "high": 0.2}, r"^band_stop: low must be below high; got low=0.3 and high=0.2$"),
    ("band_stop", {"high": 0.6}, r"high must be a number above 0 and at most 0.5; got 0.6$"),
    ("band_stop", {"low": -0.1}, r"low must be a number above 0 and at most 0.5; got -0.1$"),
    (
        "amplitude_flatten",
        {"alpha": -1},
        r"^amplitude_flatten: alpha must be a number of at least 0 and at most 4; got -1$",
    ),
    ("wavelet_shuffle", {"levels": 0}, r"^wavelet_shuffle: levels must be a positive integer; got 0$"),
    ("wavelet_shuffle", {"coarse": "yes"}, r"coarse must be true or false; got 'yes'$"),
    ("wavelet_shuffle", {"per_channel": None}, r"per_channel must be true or false; got None$"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), REFUSED)
def test_parameters_that_mean_nothing_are_refused(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make_transform(name, **parameters)


@pytest.mark.parametrize(
    "name", ["phase_scramble", "low_pass", "amplitude_flatten", "amplitude_swap", "wavelet_shuffle"]
)
def test_shapes_and_types_that_cannot_be_taken_are_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match=rf"^{name} takes samples of shape \(channels, height, width\)"):
        make_transform(name).output_shape((8, 8))
    with pytest.raises(DataError, match=r"takes a batch \[batch, channels, length\]; got a single sample of shape"):
        make_transform(name, dims=1)(torch.rand(4, 8))
    with pytest.raises(
        DataError, match=r"takes a batch \[batch, channels, depth, height, width\]; got a single sample"
    ):
        make_transform(name, dims=3)(torch.rand(2, 4, 8, 8))
    with pytest.raises(
        DeclarationError, match=rf"^{name} takes samples of at least 2 values a channel; got shape \(3, 1, 1\)"
    ):
        make_transform(name).output_shape((3, 1, 1))
    with pytest.raises(
        DataError, match=rf"^{name} takes floats in \[0, 1\] or uint8 in 0..255; got torch.int64; use x.to"
    ):
        make_transform(name)(torch.zeros(2, 1, 8, 8, dtype=torch.int64))


def test_functions_refuse_what_they_cannot_take() -> None:
    with pytest.raises(UnknownNameError, match=r"^fit must be one of .*; got 'clamp'. Did you mean 'clip'\?$"):
        spectral.fit_range(torch.rand(1, 1, 2), "clamp", dims=1)
    with pytest.raises(DataError, match=r"over 2 dimensions needs as many; got shape \(3,\)"):
        spectral.amplitude_spectrum(torch.rand(3))
    with pytest.raises(DataError, match=r"is of floats or uint8; got torch.int64; use x.float\(\)"):
        spectral.amplitude_spectrum(torch.ones(3, 3, dtype=torch.int64))
