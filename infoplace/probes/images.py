"""Predictors of factors: small networks that read a digit, a colour or a brightness off an image.

A measurement of placement needs someone to say what a generated image shows. A predictor is trained once, on real
*training* images and their known factors, and never sees a test image or a generated one. Its score on real test images
is the most that a generated image can be expected to reach.

Images are ``[N, channels, height, width]``: uint8 (0..255) or float in [0, 1], everywhere and without exception.
"""

from __future__ import annotations

import abc
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace.errors import (
    DataError,
    DeclarationError,
    InfoplaceError,
    RunFolderError,
    UnknownNameError,
    did_you_mean,
    is_whole,
    join_names,
)
from infoplace.files import make_folder, read_tensors, write_json, write_tensors

__all__ = [
    "AUGMENTATIONS",
    "NETWORKS",
    "Classifier",
    "Predictor",
    "Regressor",
    "accuracy",
    "check_images",
    "load_predictor",
    "squared_correlation",
    "train_classifier",
    "train_regressor",
]

Progress = Callable[[int, int, float], None]
AnyPredictor = TypeVar("AnyPredictor", bound="Predictor")

AUGMENTATIONS = ("crop", "flip", "blur", "brightness", "noise")
"""What ``augment`` may name, in the order in which they are done."""

NETWORKS = ("small", "residual")
"""What ``network`` may be."""

SMALLEST_SIDE = 8
"""Three halvings leave one pixel of this side."""

TRAINING_VERSION = 1
"""Raised with every change of the code below that trains other weights, so that no cache gives back the old ones."""

DEFAULT_AUGMENTATIONS = ("blur", "brightness", "noise")
CLASSIFIER_STEPS = 1000
REGRESSOR_STEPS = 400
DEFAULT_WIDTHS = {
    "classifier": {"small": (32, 64, 64), "residual": (64, 128, 256, 512)},
    "regressor": {"small": (16, 32, 32), "residual": (64, 128, 256, 512)},
}

_OVERSHOOT = 1e-4
"""How far outside [0, 1] rounding may take a pixel."""


def check_images(images: Tensor, name: str = "images", shape: tuple[int, ...] | None = None) -> None:
    """Raise unless ``images`` is a batch of images in the one value range used here.

    Args:
        images: should be ``[N, channels, height, width]``, uint8, or float in [0, 1].
        name: what to call the tensor in the error.
        shape: the ``(channels, height, width)`` it must have; any when None.

    Raises:
        DataError: the type, rank, shape or range is another, or a value is NaN.

    >>> check_images(torch.rand(4, 3, 32, 32))
    >>> check_images(torch.arange(256.0).reshape(1, 1, 16, 16))
    Traceback (most recent call last):
    ...
    infoplace.errors.DataError: images hold values from 0 to 255; float pixels must lie in [0, 1]; divide by 255
    """
    if not isinstance(images, Tensor):
        raise DataError(f"{name} must be a tensor; got a {type(images).__name__}; use torch.as_tensor")
    if images.ndim != 4:
        raise DataError(
            f"{name} must be [N, channels, height, width]; got {list(images.shape)}; "
            "add a leading dimension with images[None], or a channel with images[:, None]"
        )
    if shape is not None and tuple(images.shape[1:]) != tuple(shape):
        raise DataError(f"{name} are {list(images.shape[1:])} each; expected {list(shape)}, channels first")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise DataError(f"{name} are {images.dtype}; expected uint8 in 0..255 or float in [0, 1]")
    if not images.numel():
        return
    low, high = (value.item() for value in images.detach().aminmax())
    if math.isnan(low):
        raise DataError(f"{name} hold NaN; look for the step that divides by zero")
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        advice = "divide by 255" if low >= 0 and high > 2 else "shift and scale, or images.clamp(0, 1) for a mean"
        raise DataError(f"{name} hold values from {low:.3g} to {high:.3g}; float pixels must lie in [0, 1]; {advice}")


def accuracy(true: Tensor, predicted: Tensor) -> float:
    """The share of labels ``[N]`` that agree, in [0, 1].

    Raises:
        DataError: the two are not one-dimensional and of one length, or empty.

    >>> accuracy(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    if true.ndim != 1 or true.shape != predicted.shape or not len(true):
        raise DataError(
            "accuracy compares two label tensors [N]; "
            f"got true {list(true.shape)} and predicted {list(predicted.shape)}"
        )
    return (true == predicted.to(true.device)).double().mean().item()


def squared_correlation(true: Tensor, predicted: Tensor) -> float:
    """The squared Pearson correlation of each channel, averaged over the channels: in [0, 1].

    ``mean over c of cov(true_c, predicted_c)^2 / (var(true_c) var(predicted_c))``. Unlike ``1 - SSE/SST`` it asks only
    how much of the truth the prediction tells, whatever its gain and offset. A channel that is constant in either
    tensor counts 0.

    Args:
        true: ``[N]`` or ``[N, channels]``, any units.
        predicted: the same shape.

    Raises:
        DataError: the shapes differ, there are fewer than 2 samples, or a value is not finite.

    >>> true = torch.tensor([0.0, 1.0, 2.0])
    >>> round(squared_correlation(true, 5 - 2 * true), 9)
    1.0
    >>> squared_correlation(true, torch.ones(3))
    0.0
    """
    if true.ndim not in (1, 2) or true.shape != predicted.shape or len(true) < 2 or not true[0].numel():
        raise DataError(
            "squared_correlation compares two tensors [N] or [N, channels] with N of 2 or more; "
            f"got true {list(true.shape)} and predicted {list(predicted.shape)}"
        )
    channels = []
    for name, values in (("true", true), ("predicted", predicted)):
        values = values.detach().double().cpu().reshape(len(values), -1)
        if not values.isfinite().all():
            raise DataError(f"squared_correlation: {name} holds NaN or infinite values; remove those samples first")
        centred = values - values.mean(0)
        length = centred.norm(dim=0)
        # What is left of a constant after its mean is taken away is rounding, and rounding correlates with anything.
        constant = length <= 1e-12 * values.norm(dim=0)
        channels.append(torch.where(constant, torch.zeros(()).double(), centred / length.clamp_min(1e-300)))
    return min(1.0, (channels[0] * channels[1]).sum(0).square().mean().item())


class Predictor(nn.Module, abc.ABC):
    """A network that reads one factor off an image. Final children: :class:`Classifier`, :class:`Regressor`."""

    kind: ClassVar[str]
    metric: ClassVar[str]
    """What :meth:`score` computes: ``"accuracy"`` or ``"squared_correlation"``."""

    def __init__(self, shape: tuple[int, int, int], outputs: int, widths: Iterable[int] | None, network: str) -> None:
        super().__init__()
        self.shape = shape
        self.outputs = outputs
        self.widths = check_network(self.kind, network, widths, shape)
        self.architecture = network
        build = _small if network == "small" else _residual
        self.network = build(shape[0], outputs, self.widths).to(memory_format=torch.channels_last)

    @abc.abstractmethod
    def read(self, outputs: Tensor) -> Tensor:
        """The factor, from the network's outputs ``[N, outputs]``."""

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs ``[N, outputs]`` for float images in [0, 1]."""
        # Centred pixels, and channels-last memory: the faster layout of a convolution on a CPU.
        result: Tensor = self.network(images.sub(0.5).contiguous(memory_format=torch.channels_last))
        return result

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 500) -> Tensor:
        """The factor of every image, computed in batches on the predictor's device.

        Args:
            images: ``[N, channels, height, width]``, uint8 or float in [0, 1].
            batch_size: images held on the predictor's device at once.

        Returns:
            labels ``[N]`` (a classifier) or values ``[N]`` or ``[N, channels]`` (a regressor), on the images' device.

        Raises:
            DataError: the images are of another shape, type or range.
        """
        check_images(images, shape=self.shape)
        if not len(images):
            raise DataError("images are empty; a predictor needs at least one")
        training = self.training
        self.eval()
        device = next(self.parameters()).device
        parts = [self.read(self(_floats(batch, device))) for batch in images.split(batch_size)]
        self.train(training)
        return torch.cat(parts).to(images.device)

    @abc.abstractmethod
    def score(self, images: Tensor, targets: Tensor) -> float:
        """How well the predictions agree with ``targets``, by :attr:`metric`."""

    def options(self) -> dict[str, object]:
        """What the constructor needs, as JSON can hold it."""
        return {"shape": list(self.shape), "widths": list(self.widths), "network": self.architecture}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``weights.safetensors`` and ``predictor.json`` into ``folder``, made where it is missing.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        folder = make_folder(Path(folder))
        # The description comes last: a folder that has one can be loaded.
        write_tensors(folder / "weights.safetensors", self.state_dict())
        write_json(folder / "predictor.json", {"kind": self.kind, **self.options()})


@final
class Classifier(Predictor):
    """Labels from images. Made by :func:`train_classifier`.

    Args:
        shape: ``(channels, height, width)`` of the images.
        classes: how many labels there are.
        widths: channels of the network's layers; None for its own.
        network: one of :data:`NETWORKS`.
    """

    kind = "classifier"
    metric = "accuracy"

    labels: Tensor
    """``[classes]``, int64, ascending: what each of the network's outputs stands for; 0, 1, ... unless set otherwise."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        widths: Iterable[int] | None = None,
        network: str = "small",
    ) -> None:
        super().__init__(shape, classes, widths, network)
        self.register_buffer("labels", torch.arange(classes))

    def read(self, outputs: Tensor) -> Tensor:
        """The likeliest label of each image, int64 ``[N]``."""
        return self.labels[outputs.argmax(1)]

    def score(self, images: Tensor, targets: Tensor) -> float:
        """The share of ``images`` whose label ``targets`` ``[N]`` is predicted, in [0, 1].

        Raises:
            DataError: images or labels of another shape, type or range.
        """
        known = self.labels.cpu()
        return accuracy(_labels(targets, images, known), self.predict(images).to(targets.device))

    def options(self) -> dict[str, object]:
        """The image shape, the number of classes, and the network with the widths of its layers."""
        return {**super().options(), "classes": self.outputs}


@final
class Regressor(Predictor):
    """Values, such as a colour, from images. Made by :func:`train_regressor`.

    Args:
        shape: ``(channels, height, width)`` of the images.
        channels: how many values each image has; None for targets ``[N]``.
        widths: channels of the network's layers; None for its own.
        network: one of :data:`NETWORKS`.
    """

    kind = "regressor"
    metric = "squared_correlation"

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: int | None = None,
        widths: Iterable[int] | None = None,
        network: str = "small",
    ) -> None:
        super().__init__(shape, channels or 1, widths, network)
        self.channels = channels
        self.register_buffer("mean", torch.zeros(self.outputs))
        self.register_buffer("deviation", torch.ones(self.outputs))

    def read(self, outputs: Tensor) -> Tensor:
        """The values in the targets' own units, ``[N, channels]``, or ``[N]`` when the targets were ``[N]``."""
        values = outputs * self.deviation + self.mean
        return values if self.channels else values.squeeze(1)

    def score(self, images: Tensor, targets: Tensor) -> float:
        """The squared correlation of ``targets`` with the predictions; see :func:`squared_correlation`.

        Raises:
            DataError: images or targets of another shape, type or range.
        """
        return squared_correlation(check_values(targets, images), self.predict(images))

    def options(self) -> dict[str, object]:
        """The image shape, the number of channels (None for targets ``[N]``), and the network with its widths."""
        return {**super().options(), "channels": self.channels}


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    classes: int | None = None,
    steps: int = CLASSIFIER_STEPS,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch_size: int = 128,
    network: str = "small",
    widths: tuple[int, ...] | None = None,
    augment: bool | str | Iterable[str] = True,
    progress: Progress | None = None,
) -> Classifier:
    """Train a convolutional network to read a label off an image.

    Args:
        images: real training images, ``[N, channels, height, width]``, uint8 or float in [0, 1].
        labels: ``[N]``, whole numbers from 0. Of others, :func:`predictor_for` makes such.
        classes: how many there are; the largest label plus one when None.
        steps: updates of AdamW, under one cycle of the learning rate.
        seed: of the first weights, the order of the images and the augmentation; torch's own seed is left alone.
        device: where to train; the predictor stays there.
        batch_size: images a step.
        network: ``"small"``, three convolutions that halve the side, which is enough for digits; or ``"residual"``, a residual
            network for photographs, which wants an accelerator (there it computes in bfloat16).
        widths: channels of the layers, each but the residual network's first halving the side; None for the network's
            own, (32, 64, 64) and (64, 128, 256, 512).
        augment: names out of :data:`AUGMENTATIONS`; True for blur, brightness and noise, False for none. Blur, a shift
            in brightness and noise come in a random amount for each image: a decoder's mean is smoother than a
            photograph, and this keeps the classifier from reading that as another digit. ``"crop"`` shifts the image
            by up to an eighth of its side, with its edge mirrored; ``"flip"`` mirrors half of the images, which digits
            do not survive.
        progress: called as ``progress(step, steps, loss)`` every 10 steps and after the last.

    Raises:
        DataError: images or labels of another shape, type or range, or fewer images than classes.
        DeclarationError: a number of steps, classes or images a step that is not positive; widths that do not fit.
        UnknownNameError: a network or an augmentation that does not exist.

    The defaults are for digits. For photographs such as CIFAR-10's, on a GPU: ``network="residual",
    augment=("crop", "flip"), batch_size=512, steps=2500``; on a CPU ``widths=(16, 32, 64, 128)``, too, and patience.
    SVHN is not measured here, for want of the images. The recipe meant for 95% on its test digits is a GPU,
    ``load("svhn", "train+extra")``, and ``network="residual", augment=("crop", "blur", "brightness", "noise"),
    batch_size=512, steps=10_000`` (some eight passes); with ``"train"`` alone the same for 3,000 steps.

    >>> images = torch.zeros(64, 1, 8, 8)
    >>> images[32:] = 1.0
    >>> classifier = train_classifier(images, torch.arange(64) // 32, steps=30, augment=False)
    >>> classifier.score(images, torch.arange(64) // 32)
    1.0
    """
    shape = check_training(images, steps, batch_size)
    if classes is not None and (not is_whole(classes) or classes < 2):
        raise DeclarationError(f"classes must be a whole number of at least 2; got {classes!r}")
    names = augmentations(augment)
    labels = _labels(labels, images, None if classes is None else torch.arange(classes))
    count = classes or max(2, int(labels.max()) + 1)
    if len(images) < count:
        raise DataError(f"{len(images)} images cannot teach {count} classes; give at least one of each")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = Classifier(shape, count, widths, network)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=0.05)

    return _train(classifier, images, labels, loss, steps, seed, device, batch_size, 4e-3, names, progress)


def train_regressor(
    images: Tensor,
    targets: Tensor,
    *,
    steps: int = REGRESSOR_STEPS,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch_size: int = 128,
    network: str = "small",
    widths: tuple[int, ...] | None = None,
    augment: bool | str | Iterable[str] = False,
    progress: Progress | None = None,
) -> Regressor:
    """Train a convolutional network to read values, such as a colour, off an image.

    Args:
        images: real training images, ``[N, channels, height, width]``, uint8 or float in [0, 1].
        targets: float ``[N]`` or ``[N, channels]``, in any units: they are standardised for the training.
        steps: updates of AdamW, under one cycle of the learning rate.
        seed: of the first weights, the order of the images and the augmentation; torch's own seed is left alone.
        device: where to train; the predictor stays there.
        batch_size: images a step.
        network: ``"small"`` or ``"residual"``, as for :func:`train_classifier`.
        widths: channels of the layers; None for the network's own, (16, 32, 32) and (64, 128, 256, 512).
        augment: as for :func:`train_classifier`; none by default, because a shift in brightness changes a colour and
            a crop a position.
        progress: called as ``progress(step, steps, loss)`` every 10 steps and after the last.

    Raises:
        DataError: images or targets of another shape, type or range.
        DeclarationError: a number of steps or images a step that is not positive; widths that do not fit.
        UnknownNameError: a network or an augmentation that does not exist.

    >>> images = torch.linspace(0, 1, 64).reshape(64, 1, 1, 1).expand(64, 1, 8, 8)
    >>> regressor = train_regressor(images, images.mean((1, 2, 3)), steps=20)
    >>> regressor.predict(images[:5]).shape
    torch.Size([5])
    """
    shape = check_training(images, steps, batch_size)
    names = augmentations(augment)
    values = check_values(targets, images).float()
    columns = values.reshape(len(values), -1)
    channels = None if values.ndim == 1 else values.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        regressor = Regressor(shape, channels, widths, network)
    regressor.mean.copy_(columns.mean(0))
    regressor.deviation.copy_(columns.std(0).clamp_min(1e-6))
    scaled = (columns - regressor.mean.to(columns.device)) / regressor.deviation.to(columns.device)
    return _train(regressor, images, scaled, F.mse_loss, steps, seed, device, batch_size, 1e-2, names, progress)


def load_predictor(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> Classifier | Regressor:
    """Read what :meth:`Predictor.save` wrote.

    Raises:
        RunFolderError: no predictor was saved there, or one of its files is damaged.
    """
    folder = Path(folder)
    kinds: dict[str, Callable[..., Classifier | Regressor]] = {"classifier": Classifier, "regressor": Regressor}
    for name in ("predictor.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise RunFolderError(f"{folder} holds no predictor: {name} is missing; save one there first")
    try:
        options: dict[str, Any] = json.loads((folder / "predictor.json").read_text(encoding="utf-8"))
        kind = kinds[options.pop("kind")]
        predictor = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()})
        predictor.load_state_dict(read_tensors(folder / "weights.safetensors")[0])
    except (InfoplaceError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        cause = " ".join(str(error).split())
        raise RunFolderError(f"the predictor in {folder} cannot be read ({cause}); train and save it again") from error
    return predictor.to(device).eval()


def augmentations(augment: bool | str | Iterable[str]) -> tuple[str, ...]:
    """The names that ``augment`` stands for, in the order in which they are done.

    Raises:
        UnknownNameError: a name that is none of :data:`AUGMENTATIONS`.

    >>> augmentations(True), augmentations(("flip", "crop")), augmentations(False)
    (('blur', 'brightness', 'noise'), ('crop', 'flip'), ())
    """
    if isinstance(augment, bool):
        return DEFAULT_AUGMENTATIONS if augment else ()
    names = (augment,) if isinstance(augment, str) else tuple(augment)
    for name in names:
        if name not in AUGMENTATIONS:
            raise UnknownNameError(
                f"no augmentation {name!r}.{did_you_mean(name, AUGMENTATIONS)} Available: {join_names(AUGMENTATIONS)}"
            )
    return tuple(name for name in AUGMENTATIONS if name in names)


def check_network(
    kind: str, network: str, widths: Iterable[int] | None, shape: tuple[int, int, int]
) -> tuple[int, ...]:
    """The widths of the network, its own when None, if it can be built for images of this shape.

    Raises:
        UnknownNameError: a network that is none of :data:`NETWORKS`.
        DeclarationError: widths that are no positive whole numbers, or so many that nothing is left of the image.
    """
    if network not in NETWORKS:
        raise UnknownNameError(
            f"no network {network!r}.{did_you_mean(network, NETWORKS)} Available: {join_names(NETWORKS)}"
        )
    widths = DEFAULT_WIDTHS[kind][network] if widths is None else tuple(widths)
    if not widths or any(not is_whole(width) or width < 1 for width in widths):
        raise DeclarationError(f"widths must be positive whole numbers such as (32, 64, 64); got {widths!r}")
    halvings = len(widths) - (network == "residual")
    if min(shape[1:]) < 2**halvings:
        raise DeclarationError(
            f"widths {widths!r} halve the side {halvings} times, and images of {shape[1]}x{shape[2]} pixels have not "
            "that many halvings in them; give fewer widths"
        )
    return widths


def _convolution(before: int, after: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]


def _head(width: int, outputs: int) -> list[nn.Module]:
    """A linear layer that still knows where things are.

    The digit of a street number is the one in the middle, so the features must not be averaged over the image.
    """
    return [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, outputs)]


def _small(channels: int, outputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A strided 5x5, then 3x3 convolutions with pooling after each."""
    layers = _convolution(channels, widths[0], 5, 2)
    for before, after in pairwise(widths):
        layers += [*_convolution(before, after), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, *_head(widths[-1], outputs))


class _Residual(nn.Module):
    """``x + f(x)``, with two 3x3 convolutions for ``f``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(*_convolution(width, width), *_convolution(width, width))

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = features + self.change(features)
        return result


def _residual(channels: int, outputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A 3x3 convolution, then for each width another with pooling and a residual block."""
    layers = _convolution(channels, widths[0])
    for before, after in pairwise(widths):
        layers += [*_convolution(before, after), nn.MaxPool2d(2), _Residual(after)]
    return nn.Sequential(*layers, *_head(widths[-1], outputs))


def _train(
    predictor: AnyPredictor,
    images: Tensor,
    targets: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    seed: int,
    device: str | torch.device,
    batch_size: int,
    learning_rate: float,
    augment: tuple[str, ...],
    progress: Progress | None,
) -> AnyPredictor:
    predictor.to(device).train()
    on_gpu = torch.device(device).type == "cuda"
    mixed = on_gpu and predictor.architecture == "residual" and torch.cuda.is_bf16_supported(False)
    images, targets = images.to(device), targets.to(device)
    noise = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=learning_rate, weight_decay=1e-2)
    # A caller may be inside no_grad, as a callback of an evaluation is.
    with torch.enable_grad():
        for step, indices in enumerate(_batches(len(images), batch_size, steps, seed)):
            optimizer.param_groups[0]["lr"] = learning_rate * one_cycle(step, steps)
            indices = indices.to(device)
            batch = _augment(_floats(images[indices], device), augment, noise)
            with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                outputs = predictor(batch)
            loss = loss_of(outputs.float(), targets[indices])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if progress is not None and ((step + 1) % 10 == 0 or step + 1 == steps):
                progress(step + 1, steps, loss.item())
    return predictor.eval()


def one_cycle(step: int, steps: int) -> float:
    """The share of the peak learning rate: linear up over the first fifth, then half a cosine down to nearly 0."""
    place = (step + 0.5) / steps
    return place / 0.2 if place < 0.2 else 0.5 * (1 + math.cos(math.pi * (place - 0.2) / 0.8))


def _batches(count: int, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Index tensors, every image once before any comes twice."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def _augment(images: Tensor, names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Each image changed by amounts of its own."""

    def amounts() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)

    if "crop" in names:
        images = _crop(images, generator)
    if "flip" in names:
        images = torch.where(amounts() < 0.5, images.flip(3), images)
    if "blur" in names:
        images = images.lerp(F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False), amounts())
    if "brightness" in names:
        images = images + 0.1 * (2 * amounts() - 1)
    if "noise" in names:
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + 0.05 * amounts() * noise
    return images.clamp(0, 1)


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to an eighth of its side along both axes, with its edge mirrored."""
    count, _, height, width = images.shape
    rooms = height // 8, width // 8
    padded = F.pad(images, (rooms[1], rooms[1], rooms[0], rooms[0]), mode="reflect").permute(0, 2, 3, 1)

    def places(side: int, room: int) -> Tensor:
        first = torch.randint(2 * room + 1, (count, 1), generator=generator, device=images.device)
        return first + torch.arange(side, device=images.device)

    rows, columns = places(height, rooms[0]), places(width, rooms[1])
    each = torch.arange(count, device=images.device)
    return padded[each[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _floats(images: Tensor, device: str | torch.device) -> Tensor:
    """Float32 in [0, 1] on ``device``; bytes travel as bytes."""
    moved = images.to(device)
    return moved.float().div(255) if images.dtype == torch.uint8 else moved.float()


def check_training(images: Tensor, steps: int, batch_size: int) -> tuple[int, int, int]:
    """The images' shape, if a predictor can be trained on them."""
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if not is_whole(value) or value < 1:
            raise DeclarationError(f"{name} must be a positive whole number; got {value!r}")
    check_images(images)
    if len(images) < 2:
        raise DataError(f"a predictor cannot be trained on {len(images)} images; give at least 2")
    channels, height, width = images.shape[1:]
    if min(height, width) < SMALLEST_SIDE:
        raise DataError(
            f"images of {height}x{width} pixels are too small to read; give {SMALLEST_SIDE}x{SMALLEST_SIDE} or more"
        )
    return channels, height, width


def _labels(labels: Tensor, images: Tensor, known: Tensor | None) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        came = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError(f"labels must be a tensor of whole numbers; got {came}; use labels.long(), or a regressor")
    if tuple(labels.shape) != (len(images),):
        raise DataError(f"labels must be [{len(images)}], one for each image; got {list(labels.shape)}")
    labels = labels.long()
    if int(labels.min()) < 0 if known is None else not torch.isin(labels, known.to(labels.device)).all():
        expected = "0 and up" if known is None else _listed(known)
        raise DataError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; expected {expected}; shift them, set classes, "
            "or let predictor_for find them"
        )
    return labels


def _listed(labels: Tensor) -> str:
    low, high = int(labels[0]), int(labels[-1])
    return f"{low}..{high}" if high - low == len(labels) - 1 else ", ".join(str(int(label)) for label in labels)


def check_values(targets: Tensor, images: Tensor) -> Tensor:
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        came = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise DataError(f"targets must be a float tensor; got {came}; use targets.float(), or a classifier for labels")
    if targets.ndim not in (1, 2) or len(targets) != len(images) or not targets[0].numel():
        raise DataError(
            f"targets must be [{len(images)}] or [{len(images)}, channels], one row for each image; "
            f"got {list(targets.shape)}"
        )
    if not targets.isfinite().all():
        raise DataError("targets hold NaN or infinite values; remove those samples first")
    return targets
