"""Rendered street numbers: house-number crops of which every factor is known.

A picture is drawn the way a crop of the Street View House Numbers set looks: a digit in the middle of 32x32 colour
pixels, other digits of the number to its left and right, partly cut by the frame. The digits come from the outline
fonts that matplotlib ships, so nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from infoplace.data.images import ImageData
from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, is_whole, join_names

__all__ = ["STREET_NUMBER_PRESETS", "TYPEFACES", "StreetNumbers", "luminance", "street_numbers"]

SIDE = 32
SIZES = {"train": 50_000, "validation": 5_000, "test": 10_000}

# Images are drawn in chunks of this many, each from a generator of its own, so that a short set is the beginning of a
# longer one. Changing it changes every set.
CHUNK = 500

# One glyph: its digit is GLYPH_HEIGHT pixels high with GLYPH_MARGIN empty rows above and below, and its advance width
# is stretched to GLYPH_WIDTH. The height is near the drawn one, so bilinear sampling neither blurs nor skips.
GLYPH_HEIGHT = 24
GLYPH_MARGIN = 2
GLYPH_WIDTH = 20
OVERSAMPLING = 8
BLANK = 10

#: The fonts that matplotlib ships and that have upright or slanted digits, by the names of their files.
TYPEFACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmtt10",
)

_LUMINANCE = (0.299, 0.587, 0.114)


def luminance(colour: Tensor) -> Tensor:
    """The brightness of colours, `[..., 3]` in [0, 1] -> `[...]` in [0, 1], with the weights of ITU-R BT.601.

    >>> luminance(torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]))
    tensor([1.0000, 0.5870])
    """
    # A sum of products, in this order: a matrix product's last bits, and so some images' bytes, hang on the processor.
    red, green, blue = (colour[..., channel] * weight for channel, weight in enumerate(_LUMINANCE))
    return red + green + blue


@dataclasses.dataclass(frozen=True)
class StreetNumbers:
    """What street numbers are drawn from: the ranges of the factors, each drawn uniformly and independently.

    Args:
        typefaces: names out of :data:`TYPEFACES`.
        neighbour: probability of a digit on the left, and likewise on the right, in [0, 1].
        height: height of a digit, in pixels.
        shift: largest distance of the middle digit from the centre, in pixels, along x and along y.
        rotation: largest rotation of the number, in degrees, either way.
        slant: largest shear of the number, in pixels along x for each pixel along y, either way.
        ground_luminance: range of the luminance of the ground, in [0, 1].
        contrast: smallest difference between the luminances of ink and ground, in (0, 0.5].
        bright_ink: probability that the ink is the brighter of the two where the ground leaves room for both, in [0, 1].
        shading: range of the strength of the light's gradient: along the light's direction, the colours are multiplied
            by 1 + strength where the circle around the image begins and by 1 - strength where it ends.
        noise: range of the standard deviation of the noise of each pixel and channel, in units where white is 1.

    With ``ground_luminance`` inside `[contrast, 1 - contrast]` there is room for both everywhere, and polarity (which of
    the two is the brighter) says nothing of the ground.

    Raises:
        DeclarationError: if a range is empty or impossible.
        UnknownNameError: if a typeface is not one of :data:`TYPEFACES`.

    Example:
        >>> settings = StreetNumbers(typefaces=("DejaVuSans-Bold",), rotation=0.0)
        >>> street_numbers("test", size=4, preset=settings).shape
        (3, 32, 32)
    """

    typefaces: tuple[str, ...] = (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSansMono",
        "DejaVuSansMono-Bold",
        "DejaVuSerif",
        "DejaVuSerif-Bold",
        "STIXGeneral",
        "STIXGeneralBol",
        "cmb10",
        "cmr10",
        "cmss10",
        "cmtt10",
    )
    neighbour: float = 0.6
    height: tuple[float, float] = (16.0, 26.0)
    shift: float = 2.5
    rotation: float = 12.0
    slant: float = 0.3
    ground_luminance: tuple[float, float] = (0.05, 0.95)
    contrast: float = 0.2
    bright_ink: float = 0.5
    shading: tuple[float, float] = (0.0, 0.35)
    noise: tuple[float, float] = (0.0, 0.06)

    def __post_init__(self) -> None:
        typefaces = (self.typefaces,) if isinstance(self.typefaces, str) else tuple(self.typefaces)
        object.__setattr__(self, "typefaces", typefaces)
        if not typefaces:
            raise DeclarationError("street_numbers: typefaces must name at least one font; got none.")
        for typeface in typefaces:
            if typeface not in TYPEFACES:
                raise UnknownNameError(
                    f"street_numbers: no typeface {typeface!r}.{did_you_mean(typeface, TYPEFACES)} "
                    f"Available: {join_names(TYPEFACES)}."
                )
        for field, low, high in (
            ("height", 4.0, 128.0),
            ("ground_luminance", 0.0, 1.0),
            ("shading", 0.0, 1.0),
            ("noise", 0.0, 1.0),
        ):
            value = getattr(self, field)
            is_pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))
            if not is_pair or not low <= value[0] <= value[1] <= high:
                raise DeclarationError(
                    f"street_numbers: {field} must be a pair (lowest, highest) within {low:g}..{high:g}; got {value!r}."
                )
            object.__setattr__(self, field, (float(value[0]), float(value[1])))
        for field, high in (
            ("neighbour", 1.0),
            ("bright_ink", 1.0),
            ("shift", 16.0),
            ("rotation", 180.0),
            ("slant", 1.0),
        ):
            value = getattr(self, field)
            if not _is_number(value) or not 0.0 <= value <= high:
                raise DeclarationError(f"street_numbers: {field} must be a number within 0..{high:g}; got {value!r}.")
            object.__setattr__(self, field, float(value))
        if not _is_number(self.contrast) or not 0.0 < self.contrast <= 0.5:
            raise DeclarationError(
                f"street_numbers: contrast must be a number above 0 and at most 0.5, because a ground of luminance 0.5 "
                f"leaves no more on either side; got {self.contrast!r}."
            )
        object.__setattr__(self, "contrast", float(self.contrast))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


#: The settings that have a name: ``full`` is as varied as real crops are; ``easy``, of few typefaces and strong
#: contrast, is learnt in minutes on two cores.
STREET_NUMBER_PRESETS: Mapping[str, StreetNumbers] = MappingProxyType(
    {
        "easy": StreetNumbers(
            typefaces=("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif-Bold", "STIXGeneralBol"),
            neighbour=0.4,
            height=(20.0, 22.0),
            shift=1.0,
            rotation=3.0,
            slant=0.08,
            # Room for ink of either polarity everywhere, so that polarity says nothing of the ground.
            ground_luminance=(0.4, 0.6),
            contrast=0.4,
            shading=(0.0, 0.1),
            noise=(0.01, 0.02),
        ),
        "full": StreetNumbers(),
    }
)


def street_numbers(
    split: str = "train",
    size: int | None = None,
    preset: str | StreetNumbers = "full",
    seed: int = 0,
) -> ImageData:
    """Draw rendered street numbers.

    The same arguments give the same bytes. A smaller ``size`` gives the beginning of a larger one. No two splits share
    a random stream, whatever their seeds and presets.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        size: number of images; 50,000, 5,000 and 10,000 for the three splits if not given.
        preset: ``"easy"``, ``"full"``, or a :class:`StreetNumbers` of your own.
        seed: which draw of the set; any integer.

    Returns:
        Images `[images, 3, 32, 32]` with these factors, `[images]` unless said otherwise.

        Integers: ``digit`` 0..9, the digit in the middle; ``left`` and ``right`` 0..9, its neighbours, -1 where there
        is none; ``count`` 1..3, the number of digits; ``typeface``, an index into the settings' typefaces;
        ``polarity``, 1 where ink is brighter than ground.

        Floats: ``slant`` (pixels along x for each pixel along y, positive leans right); ``rotation`` (degrees, positive
        turns clockwise as seen); ``scale`` (height of a digit in pixels); ``position_x`` and ``position_y`` (pixels
        from the centre to the right and down); ``ink`` and ``ground`` `[images, 3]` (red, green and blue in [0, 1],
        before shading and noise); ``ground_luminance`` (:func:`luminance` of the ground, what grayscale leaves of it) and
        ``ground_chroma`` `[images, 2]` (red and blue of the ground less its luminance, in [-1, 1], what grayscale destroys);
        ``shading_direction`` (degrees in [0, 360), where the light comes from: 0 is the
        right, 90 the bottom); ``shading_strength``; ``noise`` (standard deviation, white is 1).

    Raises:
        UnknownNameError: if there is no such split or preset.
        DataError: if ``size`` is not a positive integer.

    Example:
        >>> data = street_numbers("test", size=3, preset="easy")
        >>> data
        ImageData('street_numbers/easy', split='test', images=3, shape=(3, 32, 32), ...)
        >>> data.factors["digit"].shape, data.factors["ground"].shape
        (torch.Size([3]), torch.Size([3, 3]))
    """
    if split not in SIZES:
        raise UnknownNameError(
            f"street_numbers: no split {split!r}.{did_you_mean(split, SIZES)} Available: {join_names(SIZES)}."
        )
    if isinstance(preset, StreetNumbers):
        settings, title = preset, "custom"
    elif preset in STREET_NUMBER_PRESETS:
        settings, title = STREET_NUMBER_PRESETS[preset], preset
    else:
        raise UnknownNameError(
            f"street_numbers: no preset {preset!r}.{did_you_mean(preset, STREET_NUMBER_PRESETS)} "
            f"Available: {join_names(STREET_NUMBER_PRESETS)}, or a StreetNumbers(...) of your own."
        )
    if size is None:
        size = SIZES[split]
    if not is_whole(size) or size < 1:
        raise DataError(f"street_numbers: size must be a positive integer; got {size!r}.")
    if not is_whole(seed):
        raise DataError(f"street_numbers: seed must be an integer; got {seed!r}.")

    images = torch.empty(size, 3, SIDE, SIDE, dtype=torch.uint8)
    pieces: list[dict[str, Tensor]] = []
    for chunk, start in enumerate(range(0, size, CHUNK)):
        generator = torch.Generator().manual_seed(_stream(settings, split, seed, chunk))
        count = min(CHUNK, size - start)
        # A whole chunk is drawn even where a part is wanted: the numbers of an image must not hang on the size.
        factors = {name: values[:count] for name, values in _draw_factors(settings, generator).items()}
        grain = torch.randn(CHUNK, 3, SIDE, SIDE, generator=generator)[:count]
        images[start : start + count] = _draw_images(settings, factors, grain)
        pieces.append(factors)
    factors = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    return ImageData(images, factors, name=f"street_numbers/{title}", split=split)


def _stream(settings: StreetNumbers, split: str, seed: int, chunk: int) -> int:
    """The seed of one chunk. Its remainder by the number of splits is the split, so that no two splits ever meet.

    torch's CPU generator reads 32 bits of a seed, which is why the remainder is kept and not left to a hash alone.
    """
    splits = list(SIZES)
    digest = hashlib.sha256(repr((settings, seed)).encode()).digest()
    room = 2**32 // len(splits)
    return (int.from_bytes(digest[:8], "big") + chunk) % room * len(splits) + splits.index(split)


def _draw_factors(settings: StreetNumbers, generator: torch.Generator) -> dict[str, Tensor]:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(CHUNK, *shape, generator=generator)

    def integers(high: int) -> Tensor:
        return torch.randint(high, (CHUNK,), generator=generator)

    def neighbour() -> Tensor:
        present = torch.rand(CHUNK, generator=generator) < settings.neighbour
        return torch.where(present, integers(10), -1)

    digit, left, right = integers(10), neighbour(), neighbour()
    ground_luminance = uniform(*settings.ground_luminance)
    ground = _with_luminance(uniform(0, 1, 3), ground_luminance)
    brighter = torch.rand(CHUNK, generator=generator) < settings.bright_ink
    brighter = (brighter & (ground_luminance <= 1 - settings.contrast)) | (ground_luminance < settings.contrast)
    share = uniform(0, 1)
    ink_luminance = torch.where(
        brighter,
        1 - share * (1 - settings.contrast - ground_luminance),
        share * (ground_luminance - settings.contrast),
    )
    ink = _with_luminance(uniform(0, 1, 3), ink_luminance)
    return {
        "digit": digit,
        "left": left,
        "right": right,
        "count": 1 + (left >= 0).long() + (right >= 0).long(),
        "typeface": integers(len(settings.typefaces)),
        "polarity": brighter.long(),
        "slant": uniform(-settings.slant, settings.slant),
        "rotation": uniform(-settings.rotation, settings.rotation),
        "scale": uniform(*settings.height),
        "position_x": uniform(-settings.shift, settings.shift),
        "position_y": uniform(-settings.shift, settings.shift),
        "ink": ink,
        "ground": ground,
        "ground_luminance": luminance(ground),
        "ground_chroma": ground[:, [0, 2]] - luminance(ground).unsqueeze(1),
        "shading_direction": uniform(0, 360),
        "shading_strength": uniform(*settings.shading),
        "noise": uniform(*settings.noise),
    }


def _with_luminance(colour: Tensor, target: Tensor) -> Tensor:
    """`[n, 3]` colours moved straight toward white or black until they have the `[n]` luminances."""
    own = luminance(colour)
    toward_white = 1 - (1 - colour) * ((1 - target) / (1 - own).clamp_min(1e-6)).unsqueeze(1)
    toward_black = colour * (target / own.clamp_min(1e-6)).unsqueeze(1)
    return torch.where((target > own).unsqueeze(1), toward_white, toward_black).clamp(0, 1)


def _draw_images(settings: StreetNumbers, factors: dict[str, Tensor], grain: Tensor) -> Tensor:
    """Factors `[n]` and unit noise `[n, 3, 32, 32]` -> images, uint8 `[n, 3, 32, 32]`."""
    glyphs, aspects = _typefaces(settings.typefaces)
    count = len(grain)

    # The number as a flat strip of three cells, left, middle and right.
    digits = torch.stack([factors["left"], factors["digit"], factors["right"]], dim=1)
    cells = glyphs[factors["typeface"].unsqueeze(1), torch.where(digits < 0, BLANK, digits)]
    strip = cells.transpose(1, 2).reshape(count, 1, cells.shape[2], 3 * GLYPH_WIDTH)

    # grid_sample asks for each pixel of the image where in the strip it comes from: the inverse of
    # shear, then rotate, then scale, then shift. Both sides are in its own units, -1..1 from edge to edge.
    angle = torch.deg2rad(factors["rotation"])
    cos, sin, slant = torch.cos(angle), torch.sin(angle), factors["slant"]
    inverse = torch.stack(
        [torch.stack([cos - slant * sin, sin + slant * cos], dim=1), torch.stack([-sin, cos], dim=1)], dim=1
    )
    half_width = 1.5 * aspects[factors["typeface"]]
    half_height = torch.full_like(half_width, (GLYPH_HEIGHT / 2 + GLYPH_MARGIN) / GLYPH_HEIGHT)
    inverse = inverse / torch.stack([half_width, half_height], dim=1).unsqueeze(2) / factors["scale"].view(-1, 1, 1)
    # Sums of products and no matrix product, so that the bytes do not hang on the number of threads.
    pixel = torch.arange(SIDE) + 0.5 - SIDE / 2
    across = (pixel - factors["position_x"].unsqueeze(1)).view(count, 1, SIDE, 1)
    down = (pixel - factors["position_y"].unsqueeze(1)).view(count, SIDE, 1, 1)
    columns = inverse.view(count, 1, 1, 2, 2)
    grid = columns[..., 0] * across + columns[..., 1] * down
    coverage = F.grid_sample(strip, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    axis = pixel * (2 / SIDE)
    direction = torch.deg2rad(factors["shading_direction"])
    strength = factors["shading_strength"]
    along_x = (strength * torch.cos(direction)).view(-1, 1, 1, 1) * axis
    along_y = (strength * torch.sin(direction)).view(-1, 1, 1, 1) * axis.unsqueeze(1)
    light = 1 + (along_x + along_y) / math.sqrt(2)

    ground = factors["ground"].view(-1, 3, 1, 1)
    image = torch.lerp(ground.expand_as(grain), factors["ink"].view(-1, 3, 1, 1).expand_as(grain), coverage)
    image = image.mul_(light).addcmul_(grain, factors["noise"].view(-1, 1, 1, 1))
    return image.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


@functools.cache
def _typefaces(names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Coverages `[typefaces, 11, rows, columns]` in [0, 1], the last blank, and `[typefaces]` advance over height."""
    drawn = [_glyphs(name) for name in names]
    return torch.stack([glyphs for glyphs, _ in drawn]), torch.tensor([aspect for _, aspect in drawn])


@functools.cache
def _glyphs(name: str) -> tuple[Tensor, float]:
    """The ten digits of a font and a blank, `[11, rows, columns]`, and the ratio of advance width to height."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(_font_folder() / f"{name}.ttf"), size=GLYPH_HEIGHT * OVERSAMPLING)
    boxes = [font.getbbox(str(digit), anchor="ls") for digit in range(10)]
    top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
    height, advance = bottom - top, max(font.getlength(str(digit)) for digit in range(10))
    margin = height * GLYPH_MARGIN / GLYPH_HEIGHT
    glyphs = torch.zeros(BLANK + 1, GLYPH_HEIGHT + 2 * GLYPH_MARGIN, GLYPH_WIDTH)
    for digit, box in enumerate(boxes):
        page = Image.new("L", (math.ceil(advance), math.ceil(height + 2 * margin)))
        # Centred in its cell: a narrow digit of a proportional font is not pushed to one side.
        at = (advance / 2 - (box[0] + box[2]) / 2, margin - top)
        ImageDraw.Draw(page).text(at, str(digit), fill=255, font=font, anchor="ls")
        small = page.resize((GLYPH_WIDTH, GLYPH_HEIGHT + 2 * GLYPH_MARGIN), Image.Resampling.BOX)
        glyphs[digit] = torch.from_numpy(np.array(small)) / 255
    return glyphs, advance / height


def _font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
