"""Adapters: what kornia and torchvision do themselves under the seed that was drawn, specs that come back, and refusals."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Callable
from typing import Any, ClassVar

import kornia.augmentation as ka
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torchvision.transforms import v2

import infoplace as ip
from infoplace.errors import DataError, DeclarationError, InfoplaceError, UnknownNameError
from infoplace.testing import TransformLaws
from infoplace.transforms import Transform, adapters, make_transform
from infoplace.transforms.adapters import (
    KorniaTransform,
    TorchvisionTransform,
    from_callable,
    from_kornia,
    from_torchvision,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def message(action: Callable[[], object], error: type[InfoplaceError] = DeclarationError) -> str:
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) is error
    return str(caught.value)


@pytest.fixture(autouse=True)
def names_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    from infoplace.transforms.base import _registry

    for field in ("_implementations", "_owners", "_presets"):
        monkeypatch.setattr(_registry, field, dict(getattr(_registry, field)))


def globals_now() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002


# Each class with what it needs to be made, and with p=1 where it would leave images as they are.
KORNIA: dict[str, dict[str, Any]] = {
    "CenterCrop": {"size": 8},
    "CenterCrop3D": {"size": (4, 8, 8)},
    "ColorJiggle": {"brightness": 0.3, "hue": 0.1},
    "ColorJitter": {"brightness": 0.4, "contrast": (0.5, 1.5), "order": (0, 1)},
    "PadTo": {"size": (20, 20)},
    "RandomAffine": {"degrees": 10, "translate": (0.1, 0.1), "padding_mode": "border", "p": 1.0},
    "RandomAffine3D": {"degrees": 10, "p": 1.0},
    "RandomAutoContrast": {},
    "RandomBoxBlur": {},
    "RandomBrightness": {"brightness": (0.8, 1.2)},
    "RandomChannelDropout": {"num_drop_channels": 2, "p": 1.0},
    "RandomChannelShuffle": {},
    "RandomClahe": {"grid_size": (4, 4)},
    "RandomContrast": {"contrast": (0.8, 1.2)},
    "RandomCrop": {"size": (8, 8)},
    "RandomCrop3D": {"size": (4, 8, 8)},
    "RandomDepthicalFlip3D": {},
    "RandomElasticTransform": {"kernel_size": (7, 7), "sigma": (4.0, 4.0), "p": 1.0},
    "RandomEqualize": {},
    "RandomEqualize3D": {},
    "RandomErasing": {"value": 0.5, "p": 1.0},
    "RandomGamma": {"gamma": (0.5, 2.0)},
    "RandomGaussianBlur": {"kernel_size": (3, 3), "sigma": (0.1, 2.0)},
    "RandomGaussianIllumination": {},
    "RandomGaussianNoise": {"std": 0.1},
    "RandomGrayscale": {"p": 1.0},
    "RandomHorizontalFlip": {},
    "RandomHorizontalFlip3D": {},
    "RandomHue": {"hue": (-0.1, 0.3)},
    "RandomInvert": {},
    "RandomJPEG": {"jpeg_quality": (10.0, 50.0)},
    "RandomJigsaw": {"p": 1.0},
    "RandomLinearCornerIllumination": {},
    "RandomLinearIllumination": {},
    "RandomMedianBlur": {},
    "RandomMotionBlur": {"kernel_size": 3, "angle": 35.0, "direction": 0.5},
    "RandomMotionBlur3D": {"kernel_size": 3, "angle": 35.0, "direction": 0.5},
    "RandomPerspective": {},
    "RandomPerspective3D": {},
    "RandomPlanckianJitter": {},
    "RandomPlasmaBrightness": {"roughness": (0.3, 0.4)},
    "RandomPlasmaContrast": {},
    "RandomPlasmaShadow": {},
    "RandomPosterize": {"bits": 2},
    "RandomRGBShift": {},
    "RandomRain": {"number_of_drops": (5, 9), "drop_height": (2, 4), "drop_width": (-2, 2)},
    "RandomResizedCrop": {"size": (8, 8)},
    "RandomRotation": {"degrees": 10.0, "p": 1.0},
    "RandomRotation3D": {"degrees": 10.0},
    "RandomRotation90": {"times": (1, 3)},
    "RandomSaltAndPepperNoise": {"amount": (0.1, 0.2)},
    "RandomSaturation": {"saturation": (0.2, 1.8)},
    "RandomSharpness": {"sharpness": 0.9},
    "RandomShear": {"shear": 10.0},
    "RandomSnow": {"snow_coefficient": (0.2, 0.5), "brightness": (1.0, 2.0)},
    "RandomSolarize": {"thresholds": 0.2},
    "RandomThinPlateSpline": {"p": 1.0},
    "RandomTranslate": {"translate_x": (0.1, 0.3)},
    "RandomVerticalFlip": {},
    "RandomVerticalFlip3D": {},
    "Resize": {"size": (8, 8)},
}
TORCHVISION: dict[str, dict[str, Any]] = {
    "AugMix": {},
    "AutoAugment": {"policy": v2.AutoAugmentPolicy.SVHN},
    "CenterCrop": {"size": 8},
    "ColorJitter": {"brightness": 0.4, "contrast": 0.2},
    "ElasticTransform": {"alpha": 20.0, "sigma": 1.0},
    "GaussianBlur": {"kernel_size": 3},
    "GaussianNoise": {},
    "Grayscale": {"num_output_channels": 3},
    "Pad": {"padding": 2, "padding_mode": "reflect"},
    "RandAugment": {"num_ops": 3},
    "RandomAdjustSharpness": {"sharpness_factor": 2.0},
    "RandomAffine": {"degrees": 10, "interpolation": v2.InterpolationMode.BILINEAR},
    "RandomAutocontrast": {},
    "RandomChannelPermutation": {},
    "RandomCrop": {"size": 8},
    "RandomEqualize": {},
    "RandomErasing": {"value": 0.5},
    "RandomGrayscale": {"p": 0.7},
    "RandomHorizontalFlip": {},
    "RandomInvert": {},
    "RandomPerspective": {"distortion_scale": 0.3},
    "RandomPhotometricDistort": {},
    "RandomPosterize": {"bits": 2},
    "RandomResizedCrop": {"size": 8},
    "RandomRotation": {"degrees": 90},
    "RandomSolarize": {"threshold": 0.5},
    "RandomVerticalFlip": {},
    "Resize": {"size": 8},
    "TrivialAugmentWide": {},
}
EVERY = [(from_kornia, ka, name, given) for name, given in KORNIA.items()]
EVERY += [(from_torchvision, v2, name, given) for name, given in TORCHVISION.items()]
every = pytest.mark.parametrize(
    ("adapt", "home", "name", "given"), EVERY, ids=[f"{h.__name__}.{n}" for _, h, n, _ in EVERY]
)


def images(transform: Transform, count: int = 4) -> Tensor:
    shape = (3, 8, 16, 16) if len(transform.axes) == 4 else (3, 16, 16)
    return torch.rand((count, *shape), generator=seeded(7))


@every
def test_it_does_what_the_library_does_under_the_seed_drawn(adapt: Any, home: Any, name: str, given: Any) -> None:
    module = getattr(home, name)(**given)
    transform = adapt(module, destroys="something")
    x = images(transform)
    before, state = x.clone(), globals_now()
    made = transform(x, generator=seeded(3))
    assert globals_now() == state
    assert torch.equal(x, before)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=seeded(3))))
        expected = torch.stack([module(each) for each in x]) if home is v2 else module(x)
    assert torch.equal(made, expected.clamp(0, 1))
    assert transform.output_shape(tuple(x.shape[1:])) == tuple(made.shape[1:])


@every
def test_its_spec_brings_it_back(adapt: Any, home: Any, name: str, given: Any) -> None:
    transform = adapt(getattr(home, name)(**given), destroys="something", stochastic=False)
    spec = transform.to_spec()
    x = images(transform, count=2)
    expected = transform(x, generator=seeded(3))
    for written in (spec, json.loads(json.dumps(spec)), yaml.safe_load(yaml.safe_dump(spec))):
        again = make_transform(written)
        assert again == transform
        assert hash(again) == hash(transform)
        assert repr(again) == repr(transform)
        assert torch.equal(again(x, generator=seeded(3)), expected)
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert other == transform
        assert torch.equal(other(x, generator=seeded(3)), expected)
    ((_, written),) = spec.items()
    assert (written["destroys"], written["stochastic"]) == ("something", False)
    named = adapt(name, destroys="something", stochastic=False, **written["parameters"])
    assert named == transform


@pytest.mark.parametrize(
    ("library", "home", "listed"), [(KorniaTransform, ka, KORNIA), (TorchvisionTransform, v2, TORCHVISION)]
)
def test_the_lists_above_have_most_classes(library: Any, home: Any, listed: dict[str, Any]) -> None:
    assert all(hasattr(home, name) for name in library.refused)
    usable = {name for name in library._classes() if name not in library.refused}
    # Left out above: those that need tensors or labels, or that convert.
    assert listed.keys() <= usable
    assert len(listed) > len(usable) / 2


# ---- randomness --------------------------------------------------------------------------------------------------------

RANDOM = [
    from_kornia("RandomAffine", degrees=90, p=1.0, destroys="pose"),
    from_torchvision("RandomAffine", degrees=90, destroys="pose"),
    from_torchvision(v2.RandomApply([v2.RandomRotation(90)], p=0.9), destroys="pose"),
    from_callable(lambda x: (x + 0.1 * torch.randn_like(x)).clamp(0, 1), destroys="detail", stochastic=True),
    from_callable(lambda x: x * np.random.rand(), destroys="tone", stochastic=True, per_sample=True),  # noqa: NPY002
    from_callable(lambda x: x * random.random(), destroys="tone", stochastic=True, per_sample=True),
]
each_random = pytest.mark.parametrize("transform", RANDOM, ids=lambda t: f"{type(t).__name__}")


@each_random
def test_each_sample_and_each_call_has_draws_of_its_own(transform: Transform) -> None:
    x = torch.rand(1, 3, 16, 16, generator=seeded(0)).expand(8, -1, -1, -1)
    generator = seeded(5)
    first, second = transform(x, generator=generator), transform(x, generator=generator)
    assert len({str(each.tolist()) for each in first}) >= 5
    assert not torch.equal(first, second)
    assert torch.equal(transform(x, generator=seeded(5)), first)
    other = x.clone()
    other[4:] = 0
    assert torch.equal(transform(other, generator=seeded(5))[:4], first[:4])


@each_random
def test_without_a_generator_torchs_own_decides_and_no_other_is_touched(transform: Transform) -> None:
    x = torch.rand(4, 3, 16, 16, generator=seeded(0))
    python, numpy = random.getstate(), str(np.random.get_state())  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        first, after, second = transform(x), torch.get_rng_state(), transform(x)
        torch.manual_seed(11)
        again = transform(x)
        assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert (random.getstate(), str(np.random.get_state())) == (python, numpy)  # noqa: NPY002


def test_the_global_generators_come_back_when_the_function_fails() -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError(f"{random.random()} {torch.rand(1)}")

    x, state = torch.rand(2, 3), globals_now()
    with pytest.raises(RuntimeError):
        from_callable(fail, destroys="all", stochastic=True)(x, generator=seeded(0))
    assert globals_now() == state


def test_a_given_object_stays_the_givers() -> None:
    module = ka.RandomAffine(10.0, p=1.0)
    transform = from_kornia(module, destroys="pose")
    x = images(transform)
    before = transform(x, generator=seeded(0))
    module.p, module.flags["padding_mode"] = 0.0, 9
    assert torch.equal(transform(x, generator=seeded(0)), before)
    assert module._params == {}


class TestLaws(TransformLaws):
    specs: ClassVar[list[Any]] = [
        {"kornia": {"name": "RandomAffine", "parameters": {"degrees": 30.0, "p": 1.0}}},
        {"torchvision": {"name": "RandomHorizontalFlip"}},
        from_callable(torch.clone, destroys="nothing", stochastic=False, name="adapted_copy"),
    ]
    shape = (3, 8, 8)
    # What an adapter is said to destroy, and to be random, are words about it.
    test_every_parameter_matters = None


# ---- types and shapes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform",
    [
        from_kornia("RandomAffine", degrees=30, p=1.0, destroys="pose"),
        from_torchvision("RandomAffine", degrees=30, interpolation="bilinear", destroys="pose"),
        from_callable(lambda x: x.mean(-1, keepdim=True).expand_as(x), destroys="x", stochastic=False, in_floats=True),
    ],
)
def test_bytes_and_floats_mean_the_same(transform: Transform) -> None:
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=seeded(0))
    floats = transform(pixels / 255, generator=seeded(1))
    made = transform(pixels, generator=seeded(1))
    assert made.dtype == torch.uint8
    assert torch.equal(made, (floats * 255).round().to(torch.uint8))
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 5e-2)):
        other = transform((pixels / 255).to(dtype), generator=seeded(1))
        assert other.dtype == dtype
        assert (other.float() - floats).abs().mean() < tolerance
    assert "takes floats in [0, 1] or uint8 in 0..255; got torch.int64" in message(
        lambda: transform(pixels.long(), generator=seeded(1)), DataError
    )


def test_shapes_are_checked_in_words() -> None:
    crop = from_torchvision("RandomCrop", size=40, destroys="place")
    assert message(lambda: crop.output_shape((3, 16, 16))).startswith(
        "torchvision: RandomCrop cannot take samples of shape (3, 16, 16): Required crop size (40, 40)"
    )
    turn = from_kornia("RandomAffine", degrees=10, destroys="pose")
    assert message(lambda: turn.output_shape((2, 3, 16, 16))) == (
        "kornia: RandomAffine takes samples of shape (channels, height, width); got (2, 3, 16, 16)"
    )
    assert "kornia takes samples of shape (channels, height, width), all of them positive; got (16, 16)" in message(
        lambda: turn.output_shape((16, 16))
    )
    zoom = from_torchvision("RandomZoomOut", p=1.0, destroys="scale")
    assert "gives samples of different shapes, (3, " in message(lambda: zoom(torch.rand(4, 3, 8, 8)))
    assert message(lambda: from_torchvision("TenCrop", size=4, destroys="place").output_shape((3, 8, 8))) == (
        "torchvision: TenCrop makes a tuple of a sample, not a tensor"
    )
    assert message(lambda: from_torchvision(v2.ToDtype(torch.float64), destroys="x").output_shape((3, 8, 8))) == (
        "torchvision: ToDtype returned torch.float64 for torch.float32; a transform keeps the type"
    )


# ---- specs and names ---------------------------------------------------------------------------------------------------


def test_a_short_spec_is_resolved() -> None:
    transform = make_transform({"kornia": {"name": "RandomRotation", "parameters": {"degrees": 10}}})
    assert transform.to_spec() == {
        "kornia": {
            "name": "RandomRotation",
            "parameters": {
                "degrees": 10, "resample": "BILINEAR", "same_on_batch": False, "align_corners": True, "p": 0.5, "keepdim": False,
            },
            "destroys": "what RandomRotation destroys",
            "stochastic": True,
        }
    }  # fmt: skip
    assert transform.destroys == "what RandomRotation destroys"
    assert make_transform("torchvision", name="AutoAugment", parameters={"policy": "svhn"}) == make_transform(
        from_torchvision(v2.AutoAugment(v2.AutoAugmentPolicy.SVHN), destroys="what AutoAugment destroys").to_spec()
    )


def test_a_partition_holds_one() -> None:
    partition = ip.Partition(
        blocks={"z_g": ip.Block(2), "z_l": ip.Block(2)},
        observations={
            "x": ip.Observation(),
            "x_hat": ip.Observation(
                blocks=("z_l",), transform=from_kornia("RandomAffine", degrees=90, p=1.0, destroys="pose")
            ),
            "small": ip.Observation(
                blocks=("z_l",), transform=from_torchvision(v2.Resize([4, 4]), destroys="fine detail", stochastic=False)
            ),
        },
    )
    again = ip.Partition.from_yaml(partition.to_yaml())
    assert again == partition
    x = torch.randint(0, 256, (3, 1, 8, 8)) / 255
    observed, observed_again = (each.observe(x, generator=seeded(0)) for each in (partition, again))
    assert all(torch.equal(observed[name], observed_again[name]) for name in observed)
    assert observed["small"].shape == (3, 1, 4, 4)


@pytest.mark.parametrize("library", ["kornia", "torchvision"])
@pytest.mark.parametrize(
    "name",
    ["os", "Tensor", "nn", "RandomAfine", "kornia.augmentation.RandomAffine", "__name__", "functional", "Transform",
     "AugmentationBase2D", "_geometry", "InterpolationMode", "", None, ["RandomAffine"]],
)  # fmt: skip
def test_only_public_classes_go_by_name(library: str, name: Any) -> None:
    text = message(lambda: make_transform({library: {"name": name}}), UnknownNameError)
    assert f"has no transform named {name!r}." in text
    assert ("Did you mean 'RandomAffine'?" in text) is (name in ("RandomAfine", ["RandomAffine"]))


REFUSED = [
    ({"kornia": {}}, "kornia needs 'name': kornia(name=...)"),
    ({"kornia": {"name": "RandomCutMixV2"}}, f"kornia: RandomCutMixV2 {adapters.MIXES}"),
    ({"kornia": {"name": "Normalize"}}, f"kornia: Normalize {adapters.LEAVES}"),
    ({"kornia": {"name": "ImageSequential"}}, f"kornia: ImageSequential {adapters.HOLDS}"),
    (
        {"kornia": {"name": "RandomDissolving"}},
        "kornia: RandomDissolving fetches a network from elsewhere, which no spec may",
    ),
    ({"kornia": {"name": "RandomAffine"}}, "kornia: RandomAffine needs 'degrees'; write parameters={'degrees': ...}"),
    (
        {"kornia": {"name": "RandomAffine", "parameters": {"degree": 9}}},
        "kornia: RandomAffine has no 'degree'. Did you mean 'degrees'? It takes: degrees, translate",
    ),
    (
        {"kornia": {"name": "RandomAffine", "parameters": [9]}},
        "kornia: RandomAffine: parameters must be a dict, as {'p': 1.0}",
    ),
    (
        {"kornia": {"name": "RandomAffine", "parameters": {"degrees": "far"}}},
        "kornia: RandomAffine refuses its parameters: ",
    ),
    (
        {"kornia": {"name": "RandomInvert", "parameters": {"same_on_batch": True}}},
        "kornia: a transform draws anew for every sample, and RandomInvert has same_on_batch=True; leave it out",
    ),
    (
        {"kornia": {"name": "RandomVerticalFlip", "parameters": {"p_batch": 0.5}}},
        "kornia: a transform draws anew for every sample, and RandomVerticalFlip has p_batch=0.5; use p=",
    ),
    ({"kornia": {"name": "RandomInvert", "destroys": ""}}, "kornia: destroys must be a phrase, as 'pose'; got ''"),
    ({"kornia": {"name": "RandomInvert", "stochastic": "no"}}, "kornia: stochastic must be True or False; got 'no'"),
    ({"kornia": {"name": "RandomInvert", "module": 3}}, "kornia has no parameter 'module'."),
    ({"torchvision": {"name": "MixUp"}}, f"torchvision: MixUp {adapters.MIXES}"),
    ({"torchvision": {"name": "Compose"}}, f"torchvision: Compose {adapters.HOLDS}"),
    ({"torchvision": {"name": "JPEG"}}, "torchvision: JPEG takes bytes alone"),
    (
        {"torchvision": {"name": "AutoAugment", "parameters": {"policy": "none"}}},
        "torchvision: AutoAugment refuses its parameters: ",
    ),
    (
        {"torchvision": {"name": "ToDtype", "parameters": {"dtype": torch.float32}}},
        "torchvision: ToDtype.dtype holds a dtype, which cannot be written to a file",
    ),
]


@pytest.mark.parametrize(("spec", "text"), REFUSED, ids=[text[:60] for _, text in REFUSED])
def test_what_cannot_be_is_refused(spec: Any, text: str) -> None:
    assert message(lambda: make_transform(spec)).startswith(text)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: from_kornia(nn.Identity(), destroys="x"), "from_kornia takes an augmentation of kornia.augmentation, or the"),
        (lambda: from_kornia(ka.RandomMixUpV2(), destroys="x"), f"kornia: RandomMixUpV2 {adapters.MIXES}"),
        (lambda: from_kornia(ka.ImageSequential(ka.RandomInvert()), destroys="x"), f"kornia: ImageSequential {adapters.HOLDS}"),
        (lambda: from_kornia(ka.RandomInvert(same_on_batch=True), destroys="x"), "kornia: a transform draws anew for every"),
        (
            lambda: from_kornia(ka.RandomInvert(), destroys="x", p=1.0),
            "from_kornia: a RandomInvert that was made already takes no p; give its name to change that",
        ),
        (lambda: from_torchvision(len, destroys="x"), "from_torchvision takes a transform of torchvision.transforms.v2, or"),
        (lambda: from_torchvision(v2.Normalize([0.5], [0.5]), destroys="x"), f"torchvision: Normalize {adapters.LEAVES}"),
        (lambda: from_callable(3, destroys="x", stochastic=False), "from_callable takes a function from a tensor to a tensor"),
        (lambda: from_callable(nn.Identity, destroys="x", stochastic=False), "from_callable takes a function from a tensor"),
        (lambda: from_callable(len, destroys="", stochastic=False), "from_callable: destroys must be a phrase, as 'pose'; got"),
        (lambda: from_callable(len, destroys="x", stochastic=1), "from_callable: stochastic must be True or False; got 1"),
        (lambda: from_callable(len, destroys="x", stochastic=False, name="blur"), "the transform name 'blur' belongs to"),
    ],
)  # fmt: skip
def test_what_is_no_augmentation_is_refused(make: Callable[[], object], text: str) -> None:
    assert message(make).startswith(text)


class Own(ka.IntensityAugmentationBase2D):
    """An augmentation of a user's own."""

    def apply_transform(self, input: Tensor, *_: Any, **__: Any) -> Tensor:
        return 1 - input


class RandomInvert(ka.RandomInvert):
    """One that has a public name and is another."""


HELD = [
    (lambda: from_torchvision(v2.RandomApply([v2.RandomInvert()]), destroys="x"), f"torchvision: RandomApply {adapters.HOLDS}"),
    (lambda: from_kornia(Own(p=1.0), destroys="x"), "kornia: kornia.augmentation has no transform named 'Own'."),
    (lambda: from_kornia(RandomInvert(), destroys="x"), "kornia: RandomInvert is not the one in kornia.augmentation"),
    (lambda: from_kornia(ka.LongestMaxSize(8), destroys="x"), "kornia: LongestMaxSize: what it was made with cannot be read"),
    (lambda: from_torchvision(v2.ToDtype(torch.float32), destroys="x"), "torchvision: ToDtype.dtype holds a dtype, which"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), HELD, ids=[text[:40] for _, text in HELD])
def test_an_object_without_plain_parameters_works_and_has_no_spec(make: Callable[[], Transform], text: str) -> None:
    transform = make()
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(transform(x, generator=seeded(0)), transform(x, generator=seeded(0)))
    sentence = message(transform.to_spec)
    assert sentence.startswith(text)
    assert "so it has no spec. Give its name and plain parameters" in sentence
    assert message(lambda: ip.Observation(transform=transform)).startswith(text)
    assert transform == transform
    assert transform != make()
    assert transform != from_kornia("RandomInvert", destroys="x")
    assert from_kornia("RandomInvert", destroys="x") != transform
    assert len({transform, make()}) == 2


def test_an_object_that_another_would_not_repeat_has_no_spec() -> None:
    # `order` is nowhere on the object, so only what it does tells.
    fixed = ka.ColorJitter(0.9, 0.9, 0.9, 0.4, order=(3, 2, 1, 0))
    assert "cannot be read off it" in message(from_kornia(fixed, destroys="colour").to_spec)
    spline = ka.RandomThinPlateSpline(scale=0.21)
    assert "cannot be read off it" in message(from_kornia(spline, destroys="shape").to_spec)
    free = from_kornia(ka.ColorJitter(0.9, 0.9, 0.9, 0.4), destroys="colour")
    assert free.to_spec()["kornia"]["parameters"]["order"] is None


# ---- callables ---------------------------------------------------------------------------------------------------------


def halve(x: Tensor) -> Tensor:
    """Halves every value."""
    return x.div_(2)


def test_a_function_becomes_a_transform() -> None:
    transform = from_callable(halve, destroys="brightness", stochastic=False)
    x = torch.rand(2, 5)
    before = x.clone()
    assert torch.equal(transform(x), before / 2)
    assert torch.equal(x, before)
    assert (transform.destroys, transform.stochastic) == ("brightness", False)
    assert message(transform.to_spec) == (
        "from_callable: the function halve cannot be written to a file; give it a name, "
        "from_callable(..., name='my_transform'), and make it in every session that reads the file"
    )


def test_a_named_function_has_a_spec_in_this_session() -> None:
    transform = from_callable(halve, destroys="brightness", stochastic=False, name="halve")
    assert transform.to_spec() == {"halve": {}}
    assert make_transform("halve") == transform
    described = ip.describe_transform("halve")
    assert (described.summary, described.details["destroys"]) == ("Halves every value.", "brightness")
    assert described.owner == f"{__name__}.halve"
    again = from_callable(halve, destroys="brightness", stochastic=False, name="halve")
    for other in (again, copy.copy(transform), copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert other == transform
        assert torch.equal(other(torch.ones(1, 2)), torch.full((1, 2), 0.5))
    observation = ip.Observation(transform=transform, likelihood="normal")
    assert ip.Observation(**observation.to_spec()) == observation
    assert message(lambda: from_callable(len, destroys="x", stochastic=False, name="halve")).startswith(
        f"the transform name 'halve' belongs to {__name__}.halve, and builtins.len asks for it too"
    )


def test_shapes_types_and_axes_of_a_function() -> None:
    pool = from_callable(
        lambda x: x.mean(-1), destroys="width", stochastic=False, axes=("channels", "height", "width"),
        shape=lambda shape: shape[:-1], per_sample=True,
    )  # fmt: skip
    assert pool(torch.ones(2, 3, 4, 5)).shape == (2, 3, 4)
    assert "add a batch dimension with x[None]" in message(lambda: pool(torch.ones(3, 4, 5)), DataError)
    wrong = from_callable(lambda x: x[..., 1:], destroys="x", stochastic=False)
    assert "declares the output shape (4,) for one sample of shape (4,), but returned (2, 3)" in message(
        lambda: wrong(torch.ones(2, 4))
    )
    labels = from_callable(lambda y: y // 5, destroys="which of five", stochastic=False)
    assert labels(torch.tensor([3, 7])).tolist() == [0, 1]
    assert message(
        lambda: from_callable(lambda x: x.double(), destroys="x", stochastic=False)(torch.ones(2, 3)), DataError
    ) == (
        "<lambda>: the function returned torch.float64 for torch.float32; return the type that came, or convert pixels to "
        "floats and back with from_callable(..., in_floats=True)"
    )
    assert message(lambda: from_callable(lambda x: None, destroys="x", stochastic=False)(torch.ones(2, 3))) == (
        "<lambda>: the function returned a NoneType, not a torch.Tensor"
    )
    uneven = from_callable(lambda x: x[: int(x[0])], destroys="x", stochastic=False, per_sample=True)
    assert "gives samples of different shapes, (1,) and (2,)" in message(
        lambda: uneven(torch.tensor([[1.0, 1], [2, 2]]))
    )


def test_a_module_is_a_callable_too() -> None:
    container = ka.ImageSequential(ka.RandomAffine(30.0, p=1.0), ka.RandomErasing(p=1.0))
    transform = from_callable(container, destroys="pose", stochastic=True, in_floats=True, name="augmented")
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(transform(pixels, generator=seeded(0)), transform(pixels, generator=seeded(0)))
    assert transform.to_spec() == {"augmented": {}}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@each_random
def test_on_a_gpu_too(transform: Transform) -> None:
    x = torch.rand(4, 3, 16, 16, generator=seeded(0)).cuda()
    state, cuda = globals_now(), torch.cuda.get_rng_state().tolist()
    for generator in (seeded, lambda seed: torch.Generator("cuda").manual_seed(seed)):
        made = transform(x, generator=generator(1))
        assert made.is_cuda
        assert torch.equal(made, transform(x, generator=generator(1)))
        assert not torch.equal(made, transform(x, generator=generator(2)))
    assert (globals_now(), torch.cuda.get_rng_state().tolist()) == (state, cuda)
