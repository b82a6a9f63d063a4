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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace.errors import DataError, DeclarationError, InfoplaceError, RunFolderError
from infoplace.files import make_folder, read_tensors, replacing, write_tensors

__all__ = [
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

SMALLEST_SIDE = 8
"""Three halvings leave one pixel of this side."""

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

    def __init__(self, shape: tuple[int, int, int], outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.outputs = outputs
        self.widths = widths
        self.network = _network(shape, outputs, widths)

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

    @abc.abstractmethod
    def options(self) -> dict[str, object]:
        """What the constructor needs, as JSON can hold it."""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``weights.safetensors`` and ``predictor.json`` into ``folder``, made where it is missing.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        folder = make_folder(Path(folder))
        # The description comes last: a folder that has one can be loaded.
        write_tensors(folder / "weights.safetensors", self.state_dict())
        text = json.dumps({"kind": self.kind, **self.options()}, indent=2)
        with replacing(folder / "predictor.json") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


@final
class Classifier(Predictor):
    """Labels from images. Made by :func:`train_classifier`."""

    kind = "classifier"
    metric = "accuracy"

    def __init__(self, shape: tuple[int, int, int], classes: int, widths: tuple[int, ...] = (32, 64, 64)) -> None:
        super().__init__(shape, classes, widths)

    def read(self, outputs: Tensor) -> Tensor:
        """The likeliest label of each image, int64 ``[N]``."""
        return outputs.argmax(1)

    def score(self, images: Tensor, targets: Tensor) -> float:
        """The share of ``images`` whose label ``targets`` ``[N]`` is predicted, in [0, 1].

        Raises:
            DataError: images or labels of another shape, type or range.
        """
        return accuracy(_labels(targets, images, self.outputs), self.predict(images).to(targets.device))

    def options(self) -> dict[str, object]:
        """The image shape, the number of classes and the widths of the layers."""
        return {"shape": list(self.shape), "classes": self.outputs, "widths": list(self.widths)}


@final
class Regressor(Predictor):
    """Values, such as a colour, from images. Made by :func:`train_regressor`."""

    kind = "regressor"
    metric = "squared_correlation"

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, shape: tuple[int, int, int], channels: int | None = None, widths: tuple[int, ...] = (16, 32, 32)
    ) -> None:
        super().__init__(shape, channels or 1, widths)
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
        return squared_correlation(_values(targets, images), self.predict(images))

    def options(self) -> dict[str, object]:
        """The image shape, the number of channels (None for targets ``[N]``) and the widths of the layers."""
        return {"shape": list(self.shape), "channels": self.channels, "widths": list(self.widths)}


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    classes: int | None = None,
    steps: int = 400,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch_size: int = 128,
    augment: bool = True,
    progress: Progress | None = None,
) -> Classifier:
    """Train a small convolutional network to read a label off an image.

    Args:
        images: real training images, ``[N, channels, height, width]``, uint8 or float in [0, 1].
        labels: ``[N]``, whole numbers from 0.
        classes: how many there are; the largest label plus one when None.
        steps: updates of AdamW, under one cycle of the learning rate.
        seed: of the first weights, the order of the images and the augmentation; torch's own seed is left alone.
        device: where to train; the predictor stays there.
        batch_size: images a step.
        augment: blur, shift in brightness and noise on the training images, a random amount of each. A decoder's mean
            is smoother than a photograph, and this keeps the classifier from reading that as another digit.
        progress: called as ``progress(step, steps, loss)`` every 10 steps and after the last.

    Raises:
        DataError: images or labels of another shape, type or range.
        DeclarationError: a number of steps, classes or images a step that is not positive.

    >>> images = torch.zeros(64, 1, 8, 8)
    >>> images[32:] = 1.0
    >>> classifier = train_classifier(images, torch.arange(64) // 32, steps=30, augment=False)
    >>> classifier.score(images, torch.arange(64) // 32)
    1.0
    """
    shape = _check_training(images, steps, batch_size)
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 2):
        raise DeclarationError(f"classes must be a whole number of at least 2; got {classes!r}")
    labels = _labels(labels, images, classes)
    count = classes or max(2, int(labels.max()) + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(shape, count)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=0.05)

    return _train(classifier, images, labels, loss, steps, seed, device, batch_size, 4e-3, augment, progress)


def train_regressor(
    images: Tensor,
    targets: Tensor,
    *,
    steps: int = 150,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch_size: int = 128,
    progress: Progress | None = None,
) -> Regressor:
    """Train a small convolutional network to read values, such as a colour, off an image.

    Args:
        images: real training images, ``[N, channels, height, width]``, uint8 or float in [0, 1].
        targets: float ``[N]`` or ``[N, channels]``, in any units: they are standardised for the training.
        steps: updates of AdamW, under one cycle of the learning rate.
        seed: of the first weights and the order of the images; torch's own seed is left alone.
        device: where to train; the predictor stays there.
        batch_size: images a step.
        progress: called as ``progress(step, steps, loss)`` every 10 steps and after the last.

    Raises:
        DataError: images or targets of another shape, type or range.
        DeclarationError: a number of steps or images a step that is not positive.

    >>> images = torch.linspace(0, 1, 64).reshape(64, 1, 1, 1).expand(64, 1, 8, 8)
    >>> regressor = train_regressor(images, images.mean((1, 2, 3)), steps=20)
    >>> regressor.predict(images[:5]).shape
    torch.Size([5])
    """
    shape = _check_training(images, steps, batch_size)
    values = _values(targets, images).float()
    columns = values.reshape(len(values), -1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        regressor = Regressor(shape, None if values.ndim == 1 else values.shape[1])
    regressor.mean.copy_(columns.mean(0))
    regressor.deviation.copy_(columns.std(0).clamp_min(1e-6))
    scaled = (columns - regressor.mean.to(columns.device)) / regressor.deviation.to(columns.device)
    return _train(regressor, images, scaled, F.mse_loss, steps, seed, device, batch_size, 1e-2, False, progress)


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


def _network(shape: tuple[int, int, int], outputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Strided 5x5, then 3x3 convolutions with pooling between, then a linear layer that still knows where things are.

    The digit of a street number is the one in the middle, so the features must not be averaged over the image.
    """
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip((shape[0], *widths), widths, strict=False)):
        size, stride = (5, 2) if index == 0 else (3, 1)
        layers += [
            nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
        if index:
            layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * widths[-1], outputs)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


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
    augment: bool,
    progress: Progress | None,
) -> AnyPredictor:
    predictor.to(device).train()
    images, targets = images.to(device), targets.to(device)
    noise = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=learning_rate, weight_decay=1e-2)
    # A caller may be inside no_grad, as a callback of an evaluation is.
    with torch.enable_grad():
        for step, indices in enumerate(_batches(len(images), batch_size, steps, seed)):
            optimizer.param_groups[0]["lr"] = learning_rate * _one_cycle(step, steps)
            indices = indices.to(device)
            batch = _floats(images[indices], device)
            loss = loss_of(predictor(_augment(batch, noise) if augment else batch), targets[indices])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if progress is not None and ((step + 1) % 10 == 0 or step + 1 == steps):
                progress(step + 1, steps, loss.item())
    return predictor.eval()


def _one_cycle(step: int, steps: int) -> float:
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


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image blurred, brightened or darkened, and made noisy by amounts of its own."""

    def amounts() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)

    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    images = images.lerp(blurred, amounts()) + 0.1 * (2 * amounts() - 1) + 0.05 * amounts() * noise
    return images.clamp(0, 1)


def _floats(images: Tensor, device: str | torch.device) -> Tensor:
    """Float32 in [0, 1] on ``device``; bytes travel as bytes."""
    moved = images.to(device)
    return moved.float().div(255) if images.dtype == torch.uint8 else moved.float()


def _check_training(images: Tensor, steps: int, batch_size: int) -> tuple[int, int, int]:
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
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


def _labels(labels: Tensor, images: Tensor, classes: int | None) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        came = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError(f"labels must be a tensor of whole numbers; got {came}; use labels.long(), or a regressor")
    if tuple(labels.shape) != (len(images),):
        raise DataError(f"labels must be [{len(images)}], one for each image; got {list(labels.shape)}")
    labels = labels.long()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        expected = "0 and up" if classes is None else f"0..{classes - 1}"
        raise DataError(f"labels run from {low} to {high}; expected {expected}; shift them, or set classes")
    return labels


def _values(targets: Tensor, images: Tensor) -> Tensor:
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
