"""Signals held in memory on one device, with everything that is known about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from infoplace import make_transform
from infoplace.errors import DataError
from torch import Tensor

__all__ = ["SignalData"]

_TRANSFORMED_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SignalData:
    """A set of signals and the factors known of each: for signals what ``infoplace.data.ImageData`` is for images.

    ``infoplace.fit`` and ``infoplace.evaluation.encodings`` take it in place of one.

    Args:
        signals: `[signals, channels, length]`: uint8 in 0..255, or floats in [0, 1].
        factors: name -> `[signals]` or `[signals, values]`; integers for classes, floats for measured values.
        name: what the set is called in results.
        split: which part of it this is, such as ``"train"``.

    Raises:
        DataError: signals of another shape, type or range, or none; a factor of another length or device.

    >>> data = SignalData(torch.zeros(3, 1, 8, dtype=torch.uint8), {"label": torch.arange(3)}, name="three")
    >>> data
    SignalData('three', split='train', signals=3, shape=(1, 8), factors: label, device='cpu')
    >>> data.batch([0, 2]).dtype, data.subset([1]).factors["label"]
    (torch.float32, tensor([1]))
    """

    signals: Tensor
    factors: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    name: str = "signals"
    split: str = "train"

    def __post_init__(self) -> None:
        signals = self.signals
        if not isinstance(signals, Tensor):
            raise DataError(
                f"{self.name}: signals must be a tensor [signals, channels, length]; got {type(signals).__name__}; "
                "turn arrays into tensors with torch.from_numpy(array)"
            )
        if signals.ndim != 3 or signals.numel() == 0:
            advice = "; signals of one channel need signals.unsqueeze(1)" if signals.ndim == 2 else ""
            raise DataError(
                f"{self.name}: signals must have the shape [signals, channels, length], none of them 0; got "
                f"{list(signals.shape)}{advice}"
            )
        if signals.dtype != torch.uint8 and not signals.is_floating_point():
            raise DataError(f"{self.name}: signals must be uint8 in 0..255 or floats in [0, 1]; got {signals.dtype}")
        if signals.is_floating_point() and not (signals.min() >= 0 and signals.max() <= 1):  # never true of NaN
            raise DataError(
                f"{self.name}: signals that are floats must lie in [0, 1]; got {signals.min().item():.4g} to "
                f"{signals.max().item():.4g}; audio in [-1, 1] becomes (signals + 1) / 2"
            )
        for factor, values in self.factors.items():
            if not isinstance(values, Tensor):
                raise DataError(f"{self.name}: factor {factor!r} must be a tensor; got {type(values).__name__}")
            if values.ndim == 0 or len(values) != len(signals):
                raise DataError(
                    f"{self.name}: factor {factor!r} must have one entry for each of the {len(signals)} signals; got the "
                    f"shape {list(values.shape)}"
                )
            if values.device != signals.device:
                raise DataError(
                    f"{self.name}: factor {factor!r} is on {values.device} and the signals are on {signals.device}; build "
                    "the set on one device and move it with .to(device)"
                )
        object.__setattr__(self, "factors", dict(self.factors))

    def __len__(self) -> int:
        return len(self.signals)

    def __repr__(self) -> str:
        factors = ", ".join(self.factors) or "none"
        return (
            f"SignalData({self.name!r}, split={self.split!r}, signals={len(self)}, shape={self.shape}, "
            f"factors: {factors}, device={str(self.device)!r})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one signal, `(channels, length)`."""
        return tuple(self.signals.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the signals are."""
        return self.signals.device

    def to(self, device: torch.device | str) -> SignalData:
        """The same set on ``device``; shares memory where it is there already."""
        factors = {name: values.to(device) for name, values in self.factors.items()}
        return dataclasses.replace(self, signals=self.signals.to(device), factors=factors)

    def batch(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The signals at ``indices`` (`[batch]` integers), as floats `[batch, channels, length]` in [0, 1].

        Bytes become float32, k/255; floats keep their type.

        Raises:
            DataError: an index that is no integer or outside the set. Indices on an accelerator are not read back for this.
        """
        chosen = self.signals[self._indices(indices)]
        return chosen.to(torch.float32).div_(255) if chosen.dtype == torch.uint8 else chosen

    def subset(self, indices: Tensor | Sequence[int]) -> SignalData:
        """The signals and factors at ``indices`` (`[signals]` integers), as a set of its own.

        Raises:
            DataError: as for :meth:`batch`, and if no index is given.
        """
        chosen = self._indices(indices)
        factors = {name: values[chosen] for name, values in self.factors.items()}
        return dataclasses.replace(self, signals=self.signals[chosen], factors=factors)

    def transformed(self, transform: Any, generator: torch.Generator | None = None) -> SignalData:
        """The set with every signal transformed once, of the same type, with the same factors.

        For what should be computed once and not for every batch, such as ``log_spectrogram``.

        Args:
            transform: a transform, a name, a spec or a list of them, as ``infoplace.make_transform`` takes it.
            generator: where the randomness of a random transform comes from.

        Raises:
            DataError: the transform does not take these signals, or makes something else than signals of them.
            DeclarationError: a spec that means no transform.
            UnknownNameError: an unknown name.

        >>> data = SignalData(torch.rand(3, 1, 256))
        >>> data.transformed({"time_reverse": {}}).shape
        (1, 256)
        """
        function = make_transform(transform)
        parts = [function(part, generator=generator) for part in self.signals.split(_TRANSFORMED_AT_ONCE)]
        return dataclasses.replace(self, signals=torch.cat(parts))

    def _indices(self, indices: Tensor | Sequence[int]) -> Tensor:
        chosen = torch.as_tensor(indices)
        if chosen.numel() == 0 and not isinstance(indices, Tensor):
            chosen = chosen.to(torch.int64)  # torch reads an empty list as floats
        if chosen.ndim != 1 or chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
            raise DataError(
                f"{self.name}: indices must be a list or tensor [batch] of integers; got {chosen.dtype} of shape "
                f"{list(chosen.shape)}; for a mask write mask.nonzero().squeeze(1)"
            )
        if chosen.device.type == "cpu" and chosen.numel() > 0:
            lowest, highest = int(chosen.min()), int(chosen.max())
            if lowest < 0 or highest >= len(self):
                raise DataError(f"{self.name}: index {lowest if lowest < 0 else highest} is outside 0..{len(self) - 1}")
        return chosen.to(device=self.device, dtype=torch.int64)
