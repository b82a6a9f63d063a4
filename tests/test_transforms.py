"""The laws that every transform keeps, run on a list of instances; and what each one does, against references."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torch import Tensor

import infoplace.transforms as transforms
from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.transforms import (
    Transform,
    compose,
    describe_transform,
    list_transforms,
    make_transform,
    register_transform,
)

SPECS = [
    "identity",
    "patch_shuffle",
    {"patch_shuffle": {"n": 3}},
    {"patch_shuffle": {"n": 4}},
    {"patch_shuffle": {"n": 6, "dims": 1}},
    "histogram",
    "grayscale",
    {"grayscale": {"channels": 1}},
    "blur",
    {"blur": {"sigma": 9}},
    "posterize",
    "downsample",
    "edges",
    "noise",
    "mask",
    {"mask": {"share": 0.25, "n": 2}},
    "cover",
    {"cover": {"width": 0.4, "height": 1, "outside": True}},
    "rotate90",
    "channel_shuffle",
    "jitter",
    ["grayscale", {"patch_shuffle": {"n": 8}}],
    ["jitter", ["blur", "noise"], {"mask": {"n": 4}}],
]
INSTANCES = [make_transform(spec) for spec in SPECS]
laws = pytest.mark.parametrize("transform", INSTANCES, ids=[str(spec) for spec in SPECS])
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8)
SHAPE = (3, 24, 24)


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry = transforms.base._registry
    for field in ("_implementations", "_owners", "_presets"):
        monkeypatch.setattr(registry, field, dict(getattr(registry, field)))
    yield
    monkeypatch.undo()
    for name, implementation in registry._implementations.items():
        implementation.spec_name = name


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def images(batch: int = 5, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float32, seed: int = 7) -> Tensor:
    x = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=seeded(seed))
    return x if dtype == torch.uint8 else (x.double() / 255).to(dtype)


# ---- laws -----------------------------------------------------------------------------------------------------------


@laws
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shape_type_and_range_are_kept(transform: Transform, dtype: torch.dtype) -> None:
    x = images(dtype=dtype)
    y = transform(x, generator=seeded())
    assert tuple(y.shape) == (5, *transform.output_shape(SHAPE))
    assert y.dtype == dtype
    assert y.device == x.device
    assert bool(y.isfinite().all())
    assert y.min() >= 0
    assert y.max() <= (255 if dtype == torch.uint8 else 1)


@laws
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_the_input_is_not_modified_nor_shared(transform: Transform, dtype: torch.dtype) -> None:
    x = images(dtype=dtype)
    before = x.clone()
    y = transform(x, generator=seeded())
    assert x.equal(before)
    y.fill_(0)
    assert x.equal(before)


@laws
def test_the_same_seed_gives_the_same_result_and_another_seed_another(transform: Transform) -> None:
    x = images()
    first = transform(x, generator=seeded(1))
    assert first.equal(transform(x, generator=seeded(1)))
    assert first.equal(transform(x, generator=seeded(2))) is not transform.stochastic


@laws
def test_without_a_generator_torchs_own_is_used(transform: Transform) -> None:
    x = images()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = transform(x)
        second = transform(x)
        torch.manual_seed(3)
        assert first.equal(transform(x))
    assert first.equal(second) is not transform.stochastic


@laws
def test_samples_do_not_see_each_other(transform: Transform) -> None:
    x = images()
    changed = x.clone()
    changed[2] = 1 - changed[2] ** 2
    y, z = transform(x, generator=seeded()), transform(changed, generator=seeded())
    others = [0, 1, 3, 4]
    assert y[others].equal(z[others])
    assert not y[2].equal(z[2])


@laws
def test_samples_are_drawn_for_separately(transform: Transform) -> None:
    y = transform(images(1).expand(16, *SHAPE), generator=seeded())
    distinct = len(torch.unique(y.flatten(1), dim=0))
    assert distinct > 1 if transform.stochastic else distinct == 1


@laws
def test_memory_layout_does_not_matter(transform: Transform) -> None:
    x = images()
    layouts = [
        x.to(memory_format=torch.channels_last),
        torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape),  # starts in the middle of a wider word
        x.mT.contiguous().mT,
    ]
    expected = transform(x, generator=seeded())
    for layout in layouts:
        torch.testing.assert_close(transform(layout, generator=seeded()), expected, rtol=0, atol=1e-6)


@laws
def test_uint8_and_float_agree_to_a_rounding(transform: Transform) -> None:
    x = images(dtype=torch.uint8)
    y = transform(x, generator=seeded()).float()
    z = transform(x.float() / 255, generator=seeded()) * 255
    # Each part of a composition rounds once.
    parts = len(transform.transforms) if isinstance(transform, transforms.base.Compose) else 1
    assert (y - z).abs().max() <= 0.5 * parts + 1e-3


@laws
def test_specs_pickles_and_copies_come_back_equal(transform: Transform) -> None:
    x = images()
    expected = transform(x, generator=seeded())
    for back in (make_transform(transform.to_spec()), pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert back == transform
        assert hash(back) == hash(transform)
        assert back.to_spec() == transform.to_spec()
        assert (back.destroys, back.stochastic, back.axes) == (transform.destroys, transform.stochastic, transform.axes)
        assert back(x, generator=seeded()).equal(expected)


@laws
def test_it_says_what_it_destroys(transform: Transform) -> None:
    assert isinstance(transform.destroys, str)
    assert transform.destroys
    assert isinstance(transform.stochastic, bool)


@laws
def test_one_sample_and_videos_are_fine(transform: Transform) -> None:
    assert transform(images(1), generator=seeded()).shape[0] == 1
    shape = (2, *SHAPE)
    assert tuple(transform(images(3, shape), generator=seeded()).shape) == (3, *transform.output_shape(shape))


@laws
def test_empty_batches_and_empty_sides_are_refused(transform: Transform) -> None:
    with pytest.raises(DataError, match=r"got an empty batch of shape \(0, 3, 24, 24\); give it at least one sample"):
        transform(torch.zeros(0, *SHAPE))
    with pytest.raises(DataError, match=r"all of them positive|positive sizes"):
        transform(torch.zeros(2, 3, 24, 0))


@laws
def test_a_non_tensor_and_a_non_generator_are_refused(transform: Transform) -> None:
    with pytest.raises(DataError, match=r"as a torch.Tensor; got a list; use torch.as_tensor\(x\)"):
        transform([[0.5]])
    with pytest.raises(DataError, match=r"generator must be a torch.Generator; got 0; use torch.Generator\(\)"):
        transform(images(), generator=0)


@laws
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_what_the_cpu_gives_for_a_cpu_generator(transform: Transform) -> None:
    for dtype in (torch.float32, torch.uint8):
        x = images(dtype=dtype)
        y = transform(x.cuda(), generator=seeded())
        assert y.is_cuda
        atol = 1 if dtype == torch.uint8 else 1e-5
        torch.testing.assert_close(y.cpu(), transform(x, generator=seeded()), rtol=0, atol=atol)


@laws
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generators_serve_both_devices(transform: Transform) -> None:
    x = images()
    y = transform(x.cuda(), generator=seeded(0, "cuda"))
    z = transform(x, generator=seeded(0, "cuda"))
    assert y.is_cuda
    assert not z.is_cuda
    torch.testing.assert_close(y.cpu(), z, rtol=0, atol=1e-5)


PARAMETERS = [
    ("patch_shuffle", {"n": 8}, {"n": 4}),
    ("patch_shuffle", {"dims": 2}, {"dims": 1}),
    ("mask", {"share": 0.5}, {"share": 0.25}),
    ("mask", {"n": 8}, {"n": 4}),
    ("cover", {"width": 0.5}, {"width": 0.25}),
    ("cover", {"height": 0.5}, {"height": 1.0}),
    ("cover", {"outside": False}, {"outside": True}),
    ("grayscale", {"channels": 3}, {"channels": 1}),
    ("jitter", {}, {"brightness": 0}),
    ("jitter", {}, {"contrast": 0}),
    ("jitter", {}, {"saturation": 0}),
    ("jitter", {}, {"hue": 0}),
    ("blur", {"sigma": 1}, {"sigma": 2}),
    ("posterize", {"levels": 4}, {"levels": 5}),
    ("downsample", {"factor": 2}, {"factor": 4}),
    ("noise", {"std": 0.1}, {"std": 0.2}),
    ("affine", {}, {"degrees": 0}),
    ("affine", {}, {"shift": 0}),
    ("affine", {}, {"scale": 0}),
    ("affine", {}, {"slant": 20}),
    ("compose", {"transforms": ["grayscale"]}, {"transforms": ["blur"]}),
]


@pytest.mark.parametrize(("name", "one", "other"), PARAMETERS)
def test_every_parameter_changes_the_output(name: str, one: dict, other: dict) -> None:
    x = images()
    first, second = make_transform(name, **one), make_transform(name, **other)
    assert first != second
    y, z = first(x, generator=seeded()), second(x, generator=seeded())
    assert y.shape != z.shape or not torch.allclose(y, z)


def test_every_parameter_of_every_stock_transform_is_among_those() -> None:
    own = ("infoplace.transforms.base", "infoplace.transforms.stock")
    tried = {(name, key) for name, _, other in PARAMETERS for key in other}
    stock = [name for name in list_transforms() if transforms.base._registry.get(name).__module__ in own]
    assert tried == {(name, key) for name in stock for key in transforms.base._registry.get(name).spec_parameters()}


# ---- patch_shuffle ----------------------------------------------------------------------------------------------------


def patches(x: Tensor, n: int, dims: int) -> list[Counter[bytes]]:
    """The multiset of patches of every sample, by slicing; channels stay with their patch."""
    found = []
    for sample in x.numpy():
        corners = itertools.product(*[range(0, side, n) for side in sample.shape[-dims:]])
        cut = [sample[(..., *[slice(start, start + n) for start in corner])] for corner in corners]
        found.append(Counter(np.ascontiguousarray(patch).tobytes() for patch in cut))
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize(
    ("shape", "n", "dims"),
    [
        ((3, 32, 32), 8, 2),
        ((3, 12, 18), 6, 2),
        ((3, 9, 15), 3, 2),
        ((1, 10, 6), 2, 2),
        ((3, 5, 7), 1, 2),
        ((2, 3, 8, 8), 4, 2),
        ((40,), 8, 1),
        ((2, 15), 5, 1),
        ((2, 8, 12, 4), 4, 3),
        ((1, 3, 6, 9), 3, 3),
    ],
)
def test_patch_shuffle_permutes_whole_patches(dtype: torch.dtype, shape: tuple, n: int, dims: int) -> None:
    x = torch.randint(0, 256, (6, *shape), generator=seeded()).to(dtype)
    y = make_transform("patch_shuffle", n=n, dims=dims)(x, generator=seeded())
    assert patches(y, n, dims) == patches(x, n, dims)
    assert not y.equal(x)


def test_patch_shuffle_has_the_patches_of_kornias_jigsaw() -> None:
    from kornia.augmentation import RandomJigsaw

    x = images(20, (3, 32, 32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        jigsaw = RandomJigsaw(grid=(4, 4), p=1.0)(x)
    shuffled = make_transform("patch_shuffle", n=8)(x, generator=seeded())
    assert patches(shuffled, 8, 2) == patches(jigsaw, 8, 2)
    assert not shuffled.equal(jigsaw)


def counts_of_rearrangements(y: Tensor) -> list[int]:
    return list(Counter(tuple(row) for row in y.tolist()).values())


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        ({"patch_shuffle": {"n": 2}}, [0, 2, 8, 10]),
        ({"patch_shuffle": {"n": 4, "dims": 1}}, [0, 4, 8, 12]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_patch_shuffle_is_uniform_over_permutations(spec: dict, cells: list[int], dtype: torch.dtype) -> None:
    if "dims" in spec["patch_shuffle"]:
        x = torch.arange(16).to(dtype).expand(24_000, 16)
    else:
        x = torch.arange(16).to(dtype).view(1, 4, 4).expand(24_000, 1, 4, 4)
    y = make_transform(spec)(x, generator=seeded(20261122)).flatten(1)
    counts = counts_of_rearrangements(y[:, cells])
    assert len(counts) == math.factorial(4)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_patch_shuffle_puts_every_patch_everywhere_equally_often() -> None:
    x = torch.arange(16.0).view(1, 4, 4).expand(16_000, 1, 4, 4)
    y = make_transform("patch_shuffle", n=1)(x, generator=seeded(20261122)).flatten(1).long()
    table = torch.zeros(16, 16).index_put_((torch.arange(16).expand_as(y), y), torch.tensor(1.0), accumulate=True)
    # Rows and columns of the table are bound to add up, which leaves 15 x 15 free counts.
    statistic = float(((table - 1000) ** 2 / 1000).sum())
    assert scipy.stats.chi2(15 * 15).sf(statistic) > 1e-3


def test_histogram_is_patch_shuffle_with_single_pixels() -> None:
    x = images(dtype=torch.uint8)
    y = make_transform("histogram")(x, generator=seeded())
    assert y.equal(make_transform("patch_shuffle", n=1)(x, generator=seeded()))
    assert patches(y, 1, 2) == patches(x, 1, 2)


def test_gradients_follow_their_patch() -> None:
    x = images(3).requires_grad_()
    transform = make_transform("patch_shuffle", n=8)
    y = transform(x, generator=seeded())
    assert y.equal(transform(x.detach(), generator=seeded()))
    (y * y.detach()).sum().backward()
    assert x.grad is not None
    assert x.grad.equal(x.detach())


def test_patch_shuffle_errors() -> None:
    shuffle = make_transform("patch_shuffle", n=8)
    with pytest.raises(DataError) as error:
        shuffle(torch.zeros(3, 32, 32))
    assert str(error.value).startswith(
        "patch_shuffle takes a batch [batch, channels, height, width]; got a single image of shape (3, 32, 32); "
        "add a batch dimension with x[None]"
    )
    with pytest.raises(DataError, match=r"got shape \(32, 32\), which has 2 dimensions too few"):
        shuffle(torch.zeros(32, 32))
    with pytest.raises(DeclarationError) as declared:
        make_transform("patch_shuffle", n=5).output_shape((3, 32, 48))
    assert str(declared.value) == (
        "patch_shuffle: n=5 does not divide height 32 and width 48 of a sample of shape (3, 32, 48); "
        "n can be 1, 2, 4, 8, 16"
    )
    with pytest.raises(DataError, match=r"n can be 1, 2, 3, 4, 6, 12 \(in a batch of shape \(2, 3, 12, 12\)\)"):
        shuffle(torch.zeros(2, 3, 12, 12))
    with pytest.raises(DeclarationError, match=r"n=8 does not divide length 12 of a sample of shape \(12,\)"):
        make_transform("patch_shuffle", n=8, dims=1).output_shape((12,))
    with pytest.raises(
        DeclarationError, match=r"takes samples of shape \(channels, height, width\).*\(1, height, width\)"
    ):
        shuffle.output_shape((32, 32))
    with pytest.raises(DataError, match=r"takes a batch \[batch, length\]; got a single sample of shape \(16,\)"):
        make_transform("patch_shuffle", n=8, dims=1)(torch.zeros(16))
    with pytest.raises(DataError, match=r"identity takes a batch \[batch, ...\]; got a single number"):
        make_transform("identity")(torch.tensor(0.5))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"patch_shuffle": {"n": 0}}, "patch_shuffle: n must be a positive integer; got 0"),
        ({"patch_shuffle": {"n": 2.5}}, "patch_shuffle: n must be a positive integer; got 2.5"),
        ({"patch_shuffle": {"n": True}}, "patch_shuffle: n must be a positive integer; got True"),
        ({"patch_shuffle": {"dims": 4}}, "patch_shuffle: dims must be an integer from 1 to 3; got 4"),
        ({"mask": {"share": 0}}, "mask: share must be a number above 0 and at most 1; got 0"),
        ({"mask": {"share": 1.5}}, "mask: share must be a number above 0 and at most 1; got 1.5"),
        ({"mask": {"n": -1}}, "mask: n must be a positive integer; got -1"),
        ({"cover": {"width": 0}}, "cover: width must be a number above 0 and at most 1; got 0"),
        ({"cover": {"height": 1.5}}, "cover: height must be a number above 0 and at most 1; got 1.5"),
        ({"cover": {"outside": 1}}, "cover: outside must be true or false; got 1"),
        (
            {"cover": {"width": 1, "height": 1}},
            "cover: width and height are both 1, so nothing or everything is covered; give less",
        ),
        ({"blur": {"sigma": 0.0}}, "blur: sigma must be a number above 0; got 0.0"),
        ({"blur": {"sigma": math.inf}}, "blur: sigma must be a number above 0; got inf"),
        ({"blur": {"sigma": math.nan}}, "blur: sigma must be a number above 0; got nan"),
        ({"noise": {"std": "much"}}, "noise: std must be a number above 0; got 'much'"),
        ({"posterize": {"levels": 1}}, "posterize: levels must be an integer from 2 to 256; got 1"),
        ({"downsample": {"factor": 1}}, "downsample: factor must be an integer of at least 2; got 1"),
        ({"jitter": {"hue": 0.6}}, "jitter: hue must be a number of at least 0 and at most 0.5; got 0.6"),
        ({"jitter": {"contrast": -1}}, "jitter: contrast must be a number of at least 0; got -1"),
        ({"grayscale": {"channels": 2}}, "grayscale: channels must be 1 or 3; got 2"),
        ({"grayscale": {"channels": 3.0}}, "grayscale: channels must be 1 or 3; got 3.0"),
    ],
    ids=str,
)
def test_parameters_are_checked_when_built(spec: dict, text: str) -> None:
    with pytest.raises(DeclarationError) as error:
        make_transform(spec)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("rotate90", (3, 32, 48), r"rotate90 takes square images; got height 32 and width 48 .* crop or pad them"),
        ("channel_shuffle", (1, 8, 8), r"at least 2 channels; got 1 in shape \(1, 8, 8\).*leave it out"),
        (
            "grayscale",
            (1, 8, 8),
            r"3 channels \(red, green, blue\); got 1 in shape \(1, 8, 8\); it has no colour to lose",
        ),
        ("grayscale", (4, 8, 8), r"3 channels \(red, green, blue\); got 4 .* give red, green and blue alone"),
        ("jitter", (2, 8, 8), r"jitter takes images of 3 channels"),
        ("downsample", (3, 10, 20), r"factor=4 does not divide height 10 and width 20 .*; factor can be 1, 2, 5, 10"),
        ("mask", (3, 10, 20), r"mask: n=8 does not divide height 10 and width 20"),
        ("blur", (8,), r"blur takes samples of shape \(channels, height, width\)"),
    ],
)
def test_shapes_that_cannot_be_taken_are_refused_with_advice(name: str, shape: tuple, text: str) -> None:
    transform = make_transform(name)
    with pytest.raises(DeclarationError, match=text):
        transform.output_shape(shape)
    if len(shape) == 3:
        with pytest.raises(DataError, match=text):
            transform(torch.zeros(2, *shape))


@pytest.mark.parametrize("name", ["grayscale", "blur", "posterize", "downsample", "edges", "noise", "jitter"])
def test_transforms_that_compute_refuse_integers_other_than_uint8(name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} takes floats in \[0, 1\] or uint8 in 0..255; got torch.int64"):
        make_transform(name)(torch.zeros(2, *SHAPE, dtype=torch.int64))


# ---- the others, against references -------------------------------------------------------------------------------------


def test_grayscale_is_bt601_brightness() -> None:
    x = images(dtype=torch.float64)
    expected = np.tensordot([0.299, 0.587, 0.114], x.numpy(), axes=(0, 1))
    for channels in (1, 3):
        y = make_transform("grayscale", channels=channels)(x)
        assert y.shape[1] == channels
        for channel in range(channels):
            np.testing.assert_allclose(y[:, channel].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.7, 2.0, 9.0])
def test_blur_is_scipys_gaussian_filter(sigma: float) -> None:
    x = images(2, dtype=torch.float64)
    expected = scipy.ndimage.gaussian_filter(
        x.numpy(), (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, math.ceil(3 * sigma), math.ceil(3 * sigma))
    )
    np.testing.assert_allclose(make_transform("blur", sigma=sigma)(x).numpy(), expected, atol=1e-7)


def test_edges_are_scipys_sobel() -> None:
    x = images(2, dtype=torch.float64)
    y = make_transform("edges")(x)
    for image, got in zip(x.flatten(0, 1).numpy(), y.flatten(0, 1).numpy(), strict=True):
        down, across = (scipy.ndimage.sobel(image, axis=axis, mode="nearest") / 4 for axis in (0, 1))
        np.testing.assert_allclose(got, np.clip(np.hypot(down, across), 0, 1), atol=2.1e-3)
    step = torch.cat([torch.zeros(1, 3, 8, 4), torch.ones(1, 3, 8, 4)], dim=-1)
    torch.testing.assert_close(make_transform("edges")(step)[..., 3:5], torch.ones(1, 3, 8, 2))


def test_posterize_keeps_the_nearest_level() -> None:
    x = torch.arange(256, dtype=torch.uint8)[None]
    for levels in (2, 3, 4, 17):
        y = make_transform("posterize", levels=levels)(x)
        grid = np.rint(np.linspace(0, 255, levels))
        assert sorted(set(y.flatten().tolist())) == grid.astype(int).tolist()
        distances = np.abs(x.numpy()[0][:, None] - np.linspace(0, 255, levels))
        np.testing.assert_array_less((x.float() - y.float()).abs()[0].numpy(), distances.min(1) + 0.51)
    assert make_transform("posterize", levels=256)(x).equal(x)


def test_downsample_keeps_the_mean_of_every_square() -> None:
    x = images(dtype=torch.float64)
    y = make_transform("downsample", factor=4)(x).numpy()
    for row, column in itertools.product(range(0, 24, 4), repeat=2):
        means = x.numpy()[:, :, row : row + 4, column : column + 4].mean((2, 3), keepdims=True)
        np.testing.assert_allclose(y[:, :, row : row + 4, column : column + 4], means.repeat(4, 2).repeat(4, 3))


def test_noise_has_the_standard_deviation_asked_for() -> None:
    x = torch.full((20, 3, 32, 32), 0.5)
    y = make_transform("noise", std=0.05)(x, generator=seeded())
    assert float((y - x).std()) == pytest.approx(0.05, rel=0.02)
    assert float((y - x).mean()) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("share", "hidden"), [(0.5, 8), (0.25, 4), (0.01, 1), (1.0, 16)])
def test_mask_blanks_the_share_of_patches_asked_for(share: float, hidden: int) -> None:
    x = images(400, (3, 32, 32), dtype=torch.uint8).clamp(min=1)
    y = make_transform("mask", share=share)(x, generator=seeded())
    blank = (y == 0).view(400, 3, 4, 8, 4, 8)
    per_patch = blank.all(dim=5).all(dim=3).all(dim=1)
    assert per_patch.flatten(1).sum(1).eq(hidden).all()
    assert blank.any(dim=5).any(dim=3).any(dim=1).equal(per_patch)
    assert y[y != 0].equal(x[y != 0])
    if hidden < 16:
        everywhere = per_patch.flatten(1).sum(0).numpy()
        assert scipy.stats.chisquare(everywhere).pvalue > 1e-3


def test_cover_blanks_the_middle_or_all_but_it() -> None:
    x = images(5, (3, 10, 12), dtype=torch.uint8).clamp(min=1)
    middle = make_transform("cover", width=0.5, height=0.2)(x)
    rest = make_transform("cover", width=0.5, height=0.2, outside=True)(x)
    assert rest[:, :, 4:6, 3:9].equal(x[:, :, 4:6, 3:9])
    assert int((rest != 0).sum()) == 5 * 3 * 2 * 6
    assert (middle + rest).equal(x)
    thin = make_transform("cover", width=0.01, height=1.0)(x)
    assert (thin == 0).any(dim=1).any(dim=1).sum(1).eq(1).all()


def test_rotate90_gives_the_four_turns_equally_often() -> None:
    x = images(1, (2, 6, 6))
    y = make_transform("rotate90")(x.expand(4000, 2, 6, 6), generator=seeded())
    turns = [torch.rot90(x[0], quarter, (1, 2)) for quarter in range(4)]
    counts = [int((y == turn).flatten(1).all(1).sum()) for turn in turns]
    assert sum(counts) == 4000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_channel_shuffle_gives_every_order_equally_often() -> None:
    x = images(1, (3, 4, 4))
    y = make_transform("channel_shuffle")(x.expand(6000, 3, 4, 4), generator=seeded())
    orders = [x[0, list(order)] for order in itertools.permutations(range(3))]
    counts = [int((y == order).flatten(1).all(1).sum()) for order in orders]
    assert sum(counts) == 6000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def muted(batch: int) -> Tensor:
    """Colours so close to grey that no jitter below clips them."""
    return 0.4 + 0.1 * images(batch, dtype=torch.float64)


def luma(x: Tensor) -> Tensor:
    return 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]


def only(**amount: float) -> Transform:
    return make_transform("jitter", **{"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, **amount})


def test_jitter_of_nothing_changes_nothing() -> None:
    torch.testing.assert_close(only()(muted(4)), muted(4))


def test_jitter_of_brightness_multiplies_an_image_by_one_factor() -> None:
    x = muted(200)
    ratio = (only(brightness=0.4)(x, generator=seeded()) / x).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert scipy.stats.kstest(ratio[:, 0].numpy(), scipy.stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3


def test_jitter_of_contrast_keeps_the_mean_brightness() -> None:
    x = muted(200)
    y = only(contrast=0.5)(x, generator=seeded())
    torch.testing.assert_close(luma(y).mean((1, 2)), luma(x).mean((1, 2)))
    spread = y.flatten(1).std(1) / x.flatten(1).std(1)
    assert spread.min() < 0.6
    assert spread.max() > 1.4


def test_jitter_of_saturation_and_hue_keeps_the_brightness_of_every_pixel() -> None:
    x = muted(200)
    saturated, turned = only(saturation=0.9)(x, generator=seeded()), only(hue=0.5)(x, generator=seeded())
    torch.testing.assert_close(luma(saturated), luma(x))
    torch.testing.assert_close(luma(turned), luma(x))
    colour, greyer = x - luma(x)[:, None], saturated - luma(saturated)[:, None]
    factor = (greyer * colour).flatten(1).sum(1) / (colour * colour).flatten(1).sum(1)
    torch.testing.assert_close(greyer, factor.view(-1, 1, 1, 1) * colour)
    assert scipy.stats.kstest(factor.numpy(), scipy.stats.uniform(0.1, 1.8).cdf).pvalue > 1e-3


def test_jitter_of_hue_leaves_grey_grey_and_reaches_every_hue() -> None:
    grey = muted(5)[:, :1].expand(5, *SHAPE)
    torch.testing.assert_close(only(hue=0.5)(grey, generator=seeded()), grey)
    red = torch.tensor([0.6, 0.4, 0.4], dtype=torch.float64).view(1, 3, 1, 1).expand(300, 3, 2, 2)
    strongest = only(hue=0.5)(red, generator=seeded())[:, :, 0, 0].argmax(1)
    assert set(strongest.tolist()) == {0, 1, 2}


# ---- compose ----------------------------------------------------------------------------------------------------------


def test_compose_goes_from_left_to_right() -> None:
    x = images(dtype=torch.float64)
    both = compose("posterize", "blur")
    assert both(x).equal(make_transform("blur")(make_transform("posterize")(x)))
    assert not torch.allclose(both(x), compose("blur", "posterize")(x))


def test_compose_draws_from_one_generator_in_order() -> None:
    x = images()
    generator = seeded()
    expected = make_transform("noise")(make_transform("rotate90")(x, generator=generator), generator=generator)
    assert compose("rotate90", "noise")(x, generator=seeded()).equal(expected)


def test_compose_flattens_and_says_what_its_parts_say() -> None:
    nested = compose("grayscale", compose("blur", ["identity", "noise"]), {"compose": {"transforms": ["blur"]}})
    flat = make_transform(["grayscale", "blur", "identity", "noise", "blur"])
    assert nested == flat
    assert nested.destroys == "colour, fine detail, faint detail"
    assert nested.stochastic is True
    assert compose("blur").stochastic is False
    assert compose("identity").destroys == "nothing"
    assert compose("grayscale", {"grayscale": {"channels": 1}}).output_shape((3, 8, 8)) == (1, 8, 8)


def test_compose_names_the_transform_that_cannot_take_the_shape() -> None:
    bad = compose({"grayscale": {"channels": 1}}, "blur", "channel_shuffle")
    with pytest.raises(DeclarationError) as error:
        bad.output_shape((3, 8, 8))
    assert str(error.value).startswith(
        "transform 2 (channel_shuffle) of compose (grayscale -> blur -> channel_shuffle): channel_shuffle takes images of "
        "at least 2 channels; got 1"
    )
    with pytest.raises(DataError, match=r"transform 2 \(channel_shuffle\).*in a batch of shape \(2, 3, 8, 8\)"):
        bad(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("nothing", [[], {"compose": {"transforms": []}}, {"compose": {"transforms": "blur"}}], ids=str)
def test_compose_of_nothing_is_refused(nothing: object) -> None:
    with pytest.raises(DeclarationError, match=r"compose: transforms must be a list of at least one transform; got"):
        make_transform(nothing)


def test_parameters_do_not_go_to_a_list() -> None:
    with pytest.raises(DeclarationError, match=r"parameters \(n\) cannot go to a list of transforms"):
        make_transform(["blur", "patch_shuffle"], n=8)


def test_specs_of_whole_and_broken_numbers_are_equal() -> None:
    assert make_transform("blur", sigma=2) == make_transform("blur", sigma=2.0)
    assert make_transform("blur", sigma=2).to_spec() == {"blur": {"sigma": 2.0}}


# ---- the registry -----------------------------------------------------------------------------------------------------


def swirl() -> type[Transform]:
    class Swirl(Transform):
        """Swirls."""

        turns: float = 1.0

        destroys = "lines"
        stochastic = False

        def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
            return x.flip(-1)

    return Swirl


def test_the_stock_transforms_are_listed() -> None:
    stock = (
        "blur channel_shuffle compose cover downsample edges grayscale histogram identity jitter mask noise patch_shuffle "
        "posterize rotate90"
    )
    assert set(stock.split()) <= set(list_transforms())
    assert {"grayscale", "jitter"} <= set(list_transforms(destroys="Colour"))
    assert "blur" not in list_transforms(destroys="colour")
    assert list_transforms(destroys="the smell") == []


def test_a_description_says_what_a_user_asks() -> None:
    text = str(describe_transform("patch_shuffle"))
    for phrase in (
        "Permutes patches of `n` pixels a side",
        "destroys: global structure",
        "random: yes, anew for every sample",
        "in: [batch, channels, height, width]",
        "parameter n: int = 8",
        "from infoplace.transforms.stock.PatchShuffle",
    ):
        assert phrase in text
    assert describe_transform("identity").details["in"] == "[batch, ...]"
    for transform in INSTANCES:
        assert describe_transform(str(transform.spec_name)).summary.endswith(".")


def test_parameters_make_a_preset_that_specs_do_not_depend_on() -> None:
    before = make_transform("patch_shuffle")
    configured = register_transform("patch_shuffle", n=4)
    assert configured.output_shape((3, 4, 4)) == (3, 4, 4)
    assert make_transform("patch_shuffle") == configured
    assert make_transform(["grayscale", "patch_shuffle"]) == compose("grayscale", configured)
    assert make_transform("patch_shuffle", dims=1).to_spec() == {"patch_shuffle": {"n": 4, "dims": 1}}
    assert make_transform(before.to_spec()) == before
    register_transform("patch_shuffle", n=2)
    assert make_transform("patch_shuffle").to_spec() == {"patch_shuffle": {"n": 2, "dims": 2}}
    assert configured.to_spec() == {"patch_shuffle": {"n": 4, "dims": 2}}


def test_an_alias_keeps_both() -> None:
    before = make_transform("patch_shuffle")
    tiny = register_transform("patch_shuffle", n=2, alias="tiny_shuffle")
    assert make_transform("tiny_shuffle") == tiny
    assert tiny.to_spec() == {"patch_shuffle": {"n": 2, "dims": 2}}
    assert make_transform("patch_shuffle") == before
    assert "tiny_shuffle" in list_transforms(destroys="global structure")
    assert "parameter n: int = 2" in str(describe_transform("tiny_shuffle"))
    with pytest.raises(DeclarationError, match=r"the alias 'blur' is a transform already"):
        register_transform("patch_shuffle", n=2, alias="blur")


def test_an_implementation_registers_by_call_and_by_decorator() -> None:
    made = register_transform("swirl", swirl())
    assert make_transform("swirl", turns=2).to_spec() == {"swirl": {"turns": 2}}
    decorated = register_transform("whirl")(swirl())
    assert isinstance(make_transform("whirl"), decorated)
    assert {"swirl", "whirl"} <= set(list_transforms(destroys="lines"))
    assert made.spec_name == "swirl"


def test_the_same_owner_may_register_again_and_another_may_not() -> None:
    register_transform("swirl", swirl())
    again = register_transform("swirl", swirl())
    assert isinstance(make_transform("swirl"), again)

    class Other(Transform):
        destroys = "order"
        stochastic = False

        def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
            return x.flip(-1)

    with pytest.raises(DeclarationError) as error:
        register_transform("swirl", Other)
    assert "swirl.<locals>.Swirl" in str(error.value)
    assert "test_the_same_owner_may_register_again_and_another_may_not.<locals>.Other" in str(error.value)
    assert "pass overwrite=True" in str(error.value)
    register_transform("swirl", Other, overwrite=True)
    assert isinstance(make_transform("swirl"), Other)


def test_what_is_not_a_transform_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"needs a class derived from infoplace.Transform; got 3"):
        register_transform("three", 3)
    with pytest.raises(DeclarationError, match=r"got an implementation and parameters at once"):
        register_transform("swirl", swirl(), turns=2)


def test_unknown_names_and_parameters_say_what_was_meant() -> None:
    with pytest.raises(UnknownNameError, match=r"no transform named 'patchshuffle'. Did you mean 'patch_shuffle'\?"):
        make_transform("patchshuffle")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'grayscale'"):
        compose("blur", "greyscale")
    with pytest.raises(DeclarationError, match=r"blur has no parameter 'sigm'. Did you mean 'sigma'\? It takes: sigma"):
        make_transform("blur", sigm=2)
    with pytest.raises(DeclarationError, match=r"histogram has no parameter 'n'. It takes: no parameters"):
        make_transform({"histogram": {"n": 2}})
    with pytest.raises(DeclarationError, match=r"compose needs 'transforms'"):
        make_transform("compose")
    with pytest.raises(DeclarationError, match=r"a transform is written as a name or as"):
        make_transform({"blur": {}, "noise": {}})


def test_a_transform_must_say_what_it_is() -> None:
    with pytest.raises(DeclarationError) as error:

        class Silent(Transform):
            def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
                return x

    assert str(error.value) == (
        "the transform Silent does not set destroys and stochastic; write in its class body\n"
        '    destroys = "colour"\n'
        "    stochastic = False"
    )


def test_a_shape_that_is_not_the_declared_one_is_an_error() -> None:
    class Shrinks(Transform):
        destroys = "the right side"
        stochastic = False

        def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
            return x[..., :-1]

    with pytest.raises(
        DeclarationError, match=r"Shrinks declares the output shape \(4,\) .* returned \(2, 3\) .* agree"
    ):
        Shrinks()(torch.zeros(2, 4))
