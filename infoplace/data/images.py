"""Images kept as bytes on one device, with everything that is known about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from infoplace.errors import DataError, is_whole

__all__ = ["ImageData"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """A set of images held in memory as bytes, with the factors known of each.

    A batch is an indexing and a division, done where the images are, so :meth:`to` an accelerator once and nothing is
    copied to it afterwards.

    Args:
        images: `[images, channels, height, width]`, uint8, grey or colour values 0..255.
        factors: name -> `[images]` or `[images, values]`; integers for classes, floats for measured values. Real data
            usually have one, ``"label"``.
        name: what the set is called in results, such as ``"street_numbers/easy"``.
        split: which part of it this is, such as ``"train"``.

    Raises:
        DataError: if the images are not bytes of four dimensions, if there are none, or if a factor has another
            length or device than the images.

    Example:
        >>> import torch
        >>> images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
        >>> data = ImageData(images, {"label": torch.tensor([7, 1])}, name="two", split="train")
        >>> len(data), data.shape
        (2, (3, 4, 4))
        >>> data.batch([1]).shape, data.factors["label"].tolist()
        (torch.Size([1, 3, 4, 4]), [7, 1])
    """

    images: Tensor
    factors: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    name: str = "images"
    split: str = "train"

    def __post_init__(self) -> None:
        images = self.images
        if not isinstance(images, Tensor):
            raise DataError(
                f"{self.name}: images must be a uint8 tensor [images, channels, height, width]; got "
                f"{type(images).__name__}. Turn arrays into tensors with torch.from_numpy(array)."
            )
        if images.dtype != torch.uint8:
            raise DataError(
                f"{self.name}: images must be uint8 with values 0..255; got {images.dtype}. "
                "For values in [0, 1] write (images * 255).round().to(torch.uint8)."
            )
        if images.ndim != 4:
            raise DataError(
                f"{self.name}: images must have the shape [images, channels, height, width]; got {list(images.shape)}. "
                "Grey images without a channel dimension need images.unsqueeze(1)."
            )
        if images.numel() == 0:
            raise DataError(
                f"{self.name}: the {self.split!r} split holds no images (shape {list(images.shape)}); at least one is "
                "needed."
            )
        for factor, values in self.factors.items():
            if not isinstance(values, Tensor):
                raise DataError(f"{self.name}: factor {factor!r} must be a tensor; got {type(values).__name__}.")
            if values.ndim == 0 or len(values) != len(images):
                raise DataError(
                    f"{self.name}: factor {factor!r} must have one entry for each of the {len(images)} images; got the "
                    f"shape {list(values.shape)}."
                )
            if values.device != images.device:
                raise DataError(
                    f"{self.name}: factor {factor!r} is on {values.device} and the images are on {images.device}; "
                    "build the set on one device and move it with .to(device)."
                )
        object.__setattr__(self, "factors", dict(self.factors))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        factors = ", ".join(self.factors) or "none"
        return (
            f"ImageData({self.name!r}, split={self.split!r}, images={len(self)}, shape={self.shape}, "
            f"factors: {factors}, device={str(self.device)!r})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, `(channels, height, width)`."""
        return tuple(self.images.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    def to(self, device: torch.device | str) -> ImageData:
        """The same set with images and factors on ``device``; shares memory where it is there already."""
        factors = {name: values.to(device) for name, values in self.factors.items()}
        return dataclasses.replace(self, images=self.images.to(device), factors=factors)

    def batch(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The images at ``indices``, as floats.

        Args:
            indices: `[batch]` integers in 0..len-1.

        Returns:
            `[batch, channels, height, width]`, float32, values k/255 in [0, 1], on the images' device.

        Raises:
            DataError: if an index is not an integer or lies outside the set. Indices that are on an accelerator
                already are not read back for this check.
        """
        return self.images[self._indices(indices)].to(torch.float32).div_(255)

    def subset(self, indices: Tensor | Sequence[int]) -> ImageData:
        """The images and factors at ``indices`` (`[images]` integers in 0..len-1), as a set of its own.

        Raises:
            DataError: as for :meth:`batch`, and if no index is given.
        """
        chosen = self._indices(indices)
        factors = {name: values[chosen] for name, values in self.factors.items()}
        return dataclasses.replace(self, images=self.images[chosen], factors=factors)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> Iterator[Tensor]:
        """One pass over the set, in float batches on the images' device.

        Args:
            batch_size: images in a batch.
            generator: where the order comes from; torch's global generator if not given.
            shuffle: a fresh random order; ``False`` keeps the order of the set.
            drop_last: leave out the last batch when it is smaller than the others.

        Returns:
            An iterator of `[batch, channels, height, width]` float32 tensors with values in [0, 1].

        Raises:
            DataError: if ``batch_size`` is no positive integer, or larger than the set while ``drop_last`` is set.

        Example:
            >>> import torch
            >>> data = ImageData(torch.zeros(10, 1, 2, 2, dtype=torch.uint8))
            >>> [len(batch) for batch in data.batches(4)], [len(batch) for batch in data.batches(4, drop_last=False)]
            ([4, 4], [4, 4, 2])
        """
        if not is_whole(batch_size) or batch_size < 1:
            raise DataError(f"{self.name}: batch_size must be a positive integer; got {batch_size!r}.")
        if drop_last and batch_size > len(self):
            raise DataError(
                f"{self.name}: batch_size {batch_size} is larger than the {len(self)} images of the {self.split!r} "
                f"split, so no batch would come; use batch_size={len(self)} or less, or drop_last=False."
            )
        return self._batches(batch_size, generator, shuffle, drop_last)

    def _batches(
        self, batch_size: int, generator: torch.Generator | None, shuffle: bool, drop_last: bool
    ) -> Iterator[Tensor]:
        count = len(self)
        if shuffle:
            place = generator.device if generator is not None else "cpu"
            order = torch.randperm(count, generator=generator, device=place).to(self.device)
        else:
            order = torch.arange(count, device=self.device)
        end = count - count % batch_size if drop_last else count
        for start in range(0, end, batch_size):
            yield self.images[order[start : min(start + batch_size, end)]].to(torch.float32).div_(255)

    def _indices(self, indices: Tensor | Sequence[int]) -> Tensor:
        chosen = torch.as_tensor(indices)
        if chosen.numel() == 0 and not isinstance(indices, Tensor):
            chosen = chosen.to(torch.int64)  # torch reads an empty list as floats
        if chosen.ndim != 1 or chosen.dtype.is_floating_point or chosen.dtype.is_complex or chosen.dtype == torch.bool:
            raise DataError(
                f"{self.name}: indices must be a list or tensor [batch] of integers; got {chosen.dtype} of shape "
                f"{list(chosen.shape)}. For a mask write mask.nonzero().squeeze(1)."
            )
        if chosen.device.type == "cpu" and chosen.numel() > 0:
            lowest, highest = int(chosen.min()), int(chosen.max())
            if lowest < 0 or highest >= len(self):
                wrong = lowest if lowest < 0 else highest
                raise DataError(f"{self.name}: index {wrong} is outside 0..{len(self) - 1}.")
        return chosen.to(device=self.device, dtype=torch.int64)
