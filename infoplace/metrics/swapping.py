"""The swap test, the paper's Figure 3 for any block and any factor.

It asks of every factor (a digit, a colour) what happens to it when one block is taken away. Test images are
encoded, one block is redrawn from its prior or taken from another image, the latents are decoded, and a predictor reads
the factor off the result. *Kept* is a factor's score with a block changed that should not carry it; *crossed* is its
score with the block changed that should. Both are normalised: 0 is chance, 1 is what the predictor reaches on the real
images. The paper ("Explicit information placement on latent variables using auxiliary generative modelling task")
measures this for the digit in its Figure 3: kept 0.82, crossed 0.01.

Nothing here knows how the latents were made: blocks are named tensors, decoders and priors are callables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, is_whole, join_names
from infoplace.metrics.scores import (
    accuracy,
    chance,
    normalised,
    partial_squared_correlation,
    squared_correlation,
)
from infoplace.probes import check_images

__all__ = ["CHANGES", "Decode", "DrawPrior", "ReadsFactor", "SwapTable", "swap"]

Decode = Callable[[dict[str, Tensor]], Tensor]
"""From ``{block: [n, dim]}`` to images ``[n, channels, height, width]`` in [0, 1]."""

DrawPrior = Callable[[str, int, torch.Generator | None], Tensor]
"""From a block's name, ``n`` and a generator to ``n`` draws of its prior, ``[n, dim]``."""

CHANGES = ("prior", "other image")
"""What a changed block can be replaced with."""


class ReadsFactor(Protocol):
    """What :func:`swap` asks of a predictor; those of :mod:`infoplace.probes` have it."""

    @property
    def metric(self) -> str:
        """``"accuracy"`` or ``"squared_correlation"``."""
        ...

    def predict(self, images: Tensor) -> Tensor:
        """The factor of each image, in the form the true factor has."""
        ...


@dataclass(frozen=True)
class SwapTable:
    """What :func:`swap` found: one row for each change and factor.

    A row has ``changed`` (a block, or None for the reconstruction), ``how`` (``"kept"``, ``"prior"`` or
    ``"other image"``), ``factor``, ``metric``, ``score``, and, the same in every row of a factor, ``real`` and
    ``chance``; ``normalised`` is ``(score - chance) / (real - chance)``.
    """

    table: tuple[Mapping[str, Any], ...]
    blocks: tuple[str, ...]
    latents: str = "posterior means"
    """What the unchanged blocks hold, for the reader: posterior means, or samples."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows, as plain dicts that a CSV or JSON writer takes."""
        return [dict(row) for row in self.table]

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors, in the order they were given."""
        return tuple(dict.fromkeys(row["factor"] for row in self.table))

    def row(self, factor: str, changed: str | None = None, how: str | None = None) -> dict[str, Any]:
        """One row.

        Args:
            factor: a factor of the table.
            changed: the changed block; None for the reconstruction.
            how: ``"prior"`` or ``"other image"``; None takes the first there is.

        Raises:
            UnknownNameError: the table has no such factor, block or change.
        """
        for name, value, options in (("factor", factor, self.factors), ("block", changed, self.blocks)):
            if value is not None and value not in options:
                raise UnknownNameError(
                    f"the table has no {name} {value!r}; it has {join_names(options)}.{did_you_mean(value, options)}"
                )
        found = [row for row in self.table if (row["factor"], row["changed"]) == (factor, changed)]
        for row in found:
            if how is None or row["how"] == how:
                return dict(row)
        raise UnknownNameError(
            f"the table has no row where {changed or 'no block'} is {how!r}; "
            f"it has {join_names(row['how'] for row in found)}"
        )

    def score(self, factor: str, changed: str | None = None, how: str | None = None) -> float:
        """The score of ``factor`` with block ``changed`` changed (None: the reconstruction); see :meth:`row`."""
        return float(self.row(factor, changed, how)["score"])

    def kept(self, factor: str, carrier: str, how: str | None = None) -> float:
        """What is left of ``factor`` with a block changed that should not carry it: the lowest, over those blocks.

        Args:
            factor: a factor of the table.
            carrier: the block that should carry it.
            how: ``"prior"`` or ``"other image"``; None takes the first there is.

        Raises:
            UnknownNameError: the table has no such factor, block or change.
        """
        self.row(factor, carrier, how)
        others = [self.row(factor, block, how)["normalised"] for block in self.blocks if block != carrier]
        return float(min(others, default=self.row(factor)["normalised"]))

    def crossed(self, factor: str, carrier: str, how: str | None = None) -> float:
        """What is left of ``factor`` with the block changed that should carry it; see :meth:`kept`."""
        return float(self.row(factor, carrier, how)["normalised"])

    def __str__(self) -> str:
        """A table to read: a line for each change, two columns (score, normalised) for each factor."""
        lines: list[tuple[str, list[str]]] = [("", [cell for factor in self.factors for cell in (factor, "norm.")])]
        first = [self.row(factor) for factor in self.factors]
        for name, level in (("chance", 0.0), ("real images", 1.0)):
            key = name.split()[0]
            lines.append((name, [cell for row in first for cell in (f"{row[key]:.3f}", f"{level:.2f}")]))
        for changed, how in dict.fromkeys((row["changed"], row["how"]) for row in self.table):
            name = "reconstruction" if changed is None else f"{changed} from {'its ' if how == 'prior' else ''}{how}"
            found = [self.row(factor, changed, how) for factor in self.factors]
            lines.append((name, [cell for row in found for cell in (f"{row['score']:.3f}", _plain(row["normalised"]))]))
        widths = [max(len(cells[column]) for _, cells in lines) for column in range(len(lines[0][1]))]
        label = max(len(name) for name, _ in lines)
        texts = [
            f"{name:<{label}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            for name, cells in lines
        ]
        metrics = ", ".join(f"{row['factor']}: {row['metric'].replace('_', ' ')}" for row in first)
        return "\n".join([*texts, f"{metrics}; unchanged blocks hold {self.latents}"])


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


@torch.no_grad()
def swap(
    latents: Mapping[str, Tensor],
    decode: Decode,
    prior: DrawPrior,
    images: Tensor,
    factors: Mapping[str, Tensor],
    predictors: Mapping[str, ReadsFactor],
    *,
    given: Mapping[str, str] | None = None,
    how: Sequence[str] = CHANGES,
    generator: torch.Generator | None = None,
    batch_size: int = 500,
    described: str = "posterior means",
) -> SwapTable:
    """Change one block at a time, decode, and score every factor against that of the image the other blocks came from.

    Args:
        latents: ``{block: [N, dim]}``: the encodings of ``images``, posterior means or samples.
        decode: ``{block: [n, dim]}`` to images ``[n, channels, height, width]`` in [0, 1].
        prior: ``(block, n, generator)`` to ``n`` draws of that block's prior, ``[n, dim]``.
        images: the ``N`` real images, uint8 or float in [0, 1]; a predictor's score on them is the row's ``real``.
            They must be images that no predictor was trained on.
        factors: ``{factor: [N] or [N, channels]}``: the true factors of ``images``.
        predictors: ``{factor: predictor}``, each of a factor in ``factors``.
        given: ``{factor: other factor}``: adds rows named ``"ground given polarity"``, the partial squared correlation
            of the one given the (discrete) other.
        how: what to replace a changed block with: ``"prior"``, ``"other image"`` (another test image's), or both.
        generator: on the CPU; makes the draws repeatable. It is handed to ``prior``.
        batch_size: images decoded at once.
        described: what ``latents`` are, for the table's reader.

    Returns:
        A table with the reconstruction, then every block under every ``how``.

    Raises:
        DataError: tensors of the wrong shape, length or range, from the caller or from ``decode`` and ``prior``; a factor
            with a predictor that is the same for all images.
        DeclarationError: an unknown ``how``, or ``given`` for a factor that is not a squared correlation.
        UnknownNameError: ``predictors`` or ``given`` name a factor that ``factors`` lacks.

    >>> class Brightness:
    ...     metric = "squared_correlation"
    ...     def predict(self, images):
    ...         return images.mean((1, 2, 3))
    >>> value = torch.linspace(0, 1, 100)
    >>> table = swap(
    ...     {"z_g": torch.zeros(100, 1), "z_l": value[:, None]},
    ...     decode=lambda z: z["z_l"][:, :, None, None].expand(-1, 1, 8, 8),
    ...     prior=lambda block, n, generator: torch.rand(n, 1, generator=generator),
    ...     images=value[:, None, None, None].expand(-1, 1, 8, 8),
    ...     factors={"brightness": value},
    ...     predictors={"brightness": Brightness()},
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> round(table.kept("brightness", carrier="z_l"), 3)
    1.0
    >>> table.crossed("brightness", carrier="z_l") < 0.1
    True
    """
    count = _check_swap(latents, images, factors, predictors, given or {}, how, batch_size)
    measures = _measures(factors, predictors, given or {})
    real = _score(measures, {name: _predict(name, predictors[name], images, factors[name]) for name in predictors})
    changes: list[tuple[str | None, str, Mapping[str, Tensor]]] = [(None, "kept", latents)]
    for way in how:
        for block, values in latents.items():
            if way == "prior":
                drawn = prior(block, count, generator)
                if drawn.shape != values.shape:
                    raise DataError(
                        f"prior({block!r}, {count}, generator) gave {list(drawn.shape)}; "
                        f"expected {list(values.shape)}, as that block's latents have"
                    )
            else:
                drawn = values[_others(count, generator).to(values.device)]
            changes.append((block, way, {**latents, block: drawn}))
    rows = []
    for changed, way, mixed in changes:
        scores = _score(measures, _read(mixed, decode, images, factors, predictors, batch_size))
        for (factor, metric, _), score, best in zip(measures, scores, real, strict=True):
            base = chance(factors[factor]) if metric == "accuracy" else 0.0
            rows.append(
                {
                    "changed": changed,
                    "how": way,
                    "factor": factor,
                    "score": score,
                    "metric": metric,
                    "real": best,
                    "chance": base,
                    "normalised": normalised(score, best, base),
                }
            )
    return SwapTable(tuple(rows), tuple(latents), described)


Score = Callable[[Mapping[str, Tensor]], float]


def _measures(
    factors: Mapping[str, Tensor], predictors: Mapping[str, ReadsFactor], given: Mapping[str, str]
) -> list[tuple[str, str, Score]]:
    """(row name, metric, score of the predictions) for each predictor, then for each partial one."""

    def plain(factor: str) -> Score:
        measure = accuracy if predictors[factor].metric == "accuracy" else squared_correlation
        return lambda predicted: measure(factors[factor], predicted[factor])

    def partial(factor: str, other: str) -> Score:
        return lambda predicted: partial_squared_correlation(factors[factor], predicted[factor], factors[other])

    measures = [(factor, predictors[factor].metric, plain(factor)) for factor in predictors]
    for factor, other in given.items():
        measures.append((f"{factor} given {other}", "partial_squared_correlation", partial(factor, other)))
    return measures


def _score(measures: list[tuple[str, str, Score]], predicted: Mapping[str, Tensor]) -> list[float]:
    return [measure(predicted) for _, _, measure in measures]


def _others(count: int, generator: torch.Generator | None) -> Tensor:
    """An index of another sample for each: one cycle through all of them, in random order."""
    order = torch.randperm(count, generator=generator)
    others = torch.empty_like(order)
    others[order] = order.roll(1)
    return others


def _predict(name: str, predictor: ReadsFactor, images: Tensor, true: Tensor) -> Tensor:
    predicted = predictor.predict(images).to(true.device)
    expected = (len(images), *true.shape[1:])
    if tuple(predicted.shape) != expected:
        raise DataError(
            f"the predictor of {name!r} gave {list(predicted.shape)} for {len(images)} images; "
            f"expected {list(expected)}, as the factor has"
        )
    return predicted


def _read(
    latents: Mapping[str, Tensor],
    decode: Decode,
    images: Tensor,
    factors: Mapping[str, Tensor],
    predictors: Mapping[str, ReadsFactor],
    batch_size: int,
) -> dict[str, Tensor]:
    """What each predictor reads off the decoded latents."""
    parts: dict[str, list[Tensor]] = {name: [] for name in predictors}
    for start in range(0, len(images), batch_size):
        batch = {block: values[start : start + batch_size] for block, values in latents.items()}
        decoded = decode(batch)
        check_images(decoded, "decoded images", tuple(images.shape[1:]))
        expected = min(batch_size, len(images) - start)
        if len(decoded) != expected:
            raise DataError(f"decode gave {len(decoded)} images for {expected} latents; expected one for each")
        for name, predictor in predictors.items():
            parts[name].append(_predict(name, predictor, decoded.clamp(0, 1), factors[name]))
    return {name: torch.cat(values) for name, values in parts.items()}


def _check_swap(
    latents: Mapping[str, Tensor],
    images: Tensor,
    factors: Mapping[str, Tensor],
    predictors: Mapping[str, ReadsFactor],
    given: Mapping[str, str],
    how: Sequence[str],
    batch_size: int,
) -> int:
    if isinstance(how, str) or not how or any(way not in CHANGES for way in how):
        raise DeclarationError(f"how must list some of {join_names(CHANGES)}; got {how!r}")
    if not is_whole(batch_size) or batch_size < 1:
        raise DeclarationError(f"batch_size must be a positive whole number; got {batch_size!r}")
    if not latents or not predictors:
        raise DeclarationError(f"swap needs a block and a predictor; got {len(latents)} and {len(predictors)}")
    check_images(images)
    count = len(images)
    if count < 2:
        raise DataError(f"swap needs at least 2 images; got {count}")
    for block, values in latents.items():
        if values.ndim != 2 or len(values) != count:
            raise DataError(
                f"latents[{block!r}] must be [{count}, dim], one row for each image; got {list(values.shape)}"
            )
    for use, names in (("predictors", predictors), ("given", [*given, *given.values()])):
        for name in names:
            if name not in factors:
                raise UnknownNameError(
                    f"{use} name the factor {name!r}; factors has {join_names(factors)}.{did_you_mean(name, factors)}"
                )
    for name, predictor in predictors.items():
        if predictor.metric not in ("accuracy", "squared_correlation"):
            raise DeclarationError(
                f"the predictor of {name!r} has the metric {predictor.metric!r}; "
                "expected 'accuracy' or 'squared_correlation'"
            )
        shape, ranks = factors[name].shape, (1,) if predictor.metric == "accuracy" else (1, 2)
        if len(shape) not in ranks or shape[0] != count:
            raise DataError(
                f"factors[{name!r}] must be [{count}]{' or with channels' * (len(ranks) - 1)}, "
                f"one row for each image; got {list(shape)}"
            )
        if (factors[name] == factors[name][:1]).reshape(count, -1).all(0).any():
            which = " in one of its channels" if len(shape) == 2 else ""
            raise DataError(
                f"factors[{name!r}] is constant{which}, so nothing can be read of it; "
                "leave its predictor out, or give images in which it varies"
            )
    for name, other in given.items():
        if name not in predictors or predictors[name].metric != "squared_correlation":
            raise DeclarationError(
                f"given names {name!r}, which needs a predictor that is scored by squared_correlation; "
                f"leave it out, or give one in predictors"
            )
        if tuple(factors[other].shape) != (count,):
            raise DataError(f"factors[{other!r}] must be [{count}] to be given; got {list(factors[other].shape)}")
    return count
