"""The placement matrix: how much of every factor can be read off every block.

Probes (linear and small mlp) are fitted on the latents of training samples and scored on those of test samples. Beside
every score stand its bootstrap interval and two controls: the same probe on the latents of an untrained encoder, which
says what the architecture gives away, and one of the factor shuffled, in training and test alike, which is the floor: what
a probe scores of something that has the factor's values and nothing to do with the latents. *Leakage* is what is found of
a factor outside the block that should carry it, *redundancy* what two blocks both hold of it; both are counted above the
floor, on a scale where 0 is chance and 1 is everything.

A score says what can be read off, not what a decoder uses: a dimension that the decoder ignores still counts, and where
the latents are posterior means even a faint trace in it does. Samples of the posterior hide such traces in its noise.

Plain arrays are enough, so any model can be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, is_whole, join_names
from infoplace.metrics.scores import accuracy, chance, normalised, squared_correlation
from infoplace.probes.latents import LATENT_PROBES, as_factor, as_latents, fit_probes

__all__ = ["PlacementProgress", "PlacementTable", "placement"]

PlacementProgress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, what)`` after each fit; ``what`` is like ``"z_g, mlp probes"``."""

LEAST_RESAMPLES = 20
"""Fewer have no 2.5th and 97.5th percentile to speak of."""

_COUNTED_AT_ONCE = 4_000_000
"""Cells of the bootstrap's matrix of counts that are held at once."""


@dataclass(frozen=True)
class PlacementTable:
    """What :func:`placement` found: one row for each block, factor and probe.

    A row has ``block``, ``factor``, ``probe`` (``"linear"`` or ``"mlp"``), ``metric`` (``"accuracy"`` or
    ``"squared_correlation"``), the held-out ``score`` with its 95% interval from ``low`` to ``high``, ``chance`` (the
    share of the commonest test label; 0 for a squared correlation), the controls ``untrained`` (None where no untrained
    encoder was given) and ``shuffled``, and ``normalised``, which is ``(score - chance) / (1 - chance)``.

    >>> row = {"probe": "linear", "metric": "accuracy", "low": 0.0, "high": 1.0, "chance": 0.5, "untrained": None}
    >>> scores = {("z_g", "digit"): 0.9, ("z_l", "digit"): 0.6, ("z_g", "ground"): 0.5, ("z_l", "ground"): 1.0}
    >>> table = PlacementTable(tuple(
    ...     {**row, "block": block, "factor": factor, "score": score, "shuffled": 0.5, "normalised": 2 * score - 1}
    ...     for (block, factor), score in scores.items()
    ... ))
    >>> found = table.leakage({"digit": "z_g", "ground": "z_l"}, probe="linear")
    >>> {factor: round(value, 3) for factor, value in found.items()}
    {'digit': 0.2, 'ground': 0.0, 'all': 0.1}
    """

    table: tuple[Mapping[str, Any], ...]

    def rows(self) -> list[dict[str, Any]]:
        """The rows, as plain dicts that a CSV or JSON writer takes."""
        return [dict(row) for row in self.table]

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks, in the order they were given."""
        return tuple(dict.fromkeys(row["block"] for row in self.table))

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors, in the order they were given."""
        return tuple(dict.fromkeys(row["factor"] for row in self.table))

    @property
    def probes(self) -> tuple[str, ...]:
        """The probes, in the order they were given."""
        return tuple(dict.fromkeys(row["probe"] for row in self.table))

    def row(self, block: str, factor: str, probe: str = "mlp") -> dict[str, Any]:
        """One row.

        Raises:
            UnknownNameError: the table has no such block, factor or probe.
        """
        self._check(block=block, factor=factor, probe=probe)
        found = (row for row in self.table if (row["block"], row["factor"], row["probe"]) == (block, factor, probe))
        return dict(next(found))

    def score(self, block: str, factor: str, probe: str = "mlp") -> float:
        """The held-out score of ``factor`` in ``block``, in [0, 1]; see :meth:`row`."""
        return float(self.row(block, factor, probe)["score"])

    def excess(self, block: str, factor: str, probe: str = "mlp") -> float:
        """What ``block`` holds of ``factor`` above the floor, in [0, 1].

        The normalised score, less that of the shuffled factor where it is above chance, and not below 0.

        Raises:
            UnknownNameError: the table has no such block, factor or probe.
        """
        row = self.row(block, factor, probe)
        floor = max(0.0, normalised(row["shuffled"], 1.0, row["chance"]))
        return float(max(0.0, row["normalised"] - floor))

    def matrix(self, probe: str = "mlp") -> tuple[tuple[str, ...], tuple[str, ...], list[list[float]]]:
        """The blocks, the factors, and ``normalised`` as one list of factors for each block.

        Raises:
            UnknownNameError: the table has no such probe.
        """
        self._check(probe=probe)
        values = [
            [float(self.row(block, factor, probe)["normalised"]) for factor in self.factors] for block in self.blocks
        ]
        return self.blocks, self.factors, values

    def leakage(self, carriers: Mapping[str, str], probe: str = "mlp") -> dict[str, float]:
        """What is found of each factor in a block that should not have it: the largest :meth:`excess` of those blocks.

        Args:
            carriers: ``{factor: the block that should carry it}``; a factor that is left out has no carrier and is not
                counted.
            probe: a probe of the table.

        Returns:
            ``{factor: leakage}`` for the factors of ``carriers``, and ``"all"``, their mean; each in [0, 1].

        Raises:
            UnknownNameError: ``carriers`` names a factor or block that the table lacks, or it has no such probe.
            DeclarationError: ``carriers`` is empty, or the table has one block only.
        """
        self._check_carriers(carriers)
        self._check(probe=probe)
        if not carriers:
            raise DeclarationError("leakage needs the block of at least one factor, as in {'digit': 'z_g'}; got none")
        self._check_two("leakage")
        return _with_mean(
            {
                factor: max(self.excess(block, factor, probe) for block in self.blocks if block != carrier)
                for factor, carrier in carriers.items()
            }
        )

    def redundancy(self, probe: str = "mlp") -> dict[str, float]:
        """How much of each factor two blocks both hold: the second largest :meth:`excess` over the blocks.

        Returns:
            ``{factor: redundancy}``, and ``"all"``, their mean; each in [0, 1].

        Raises:
            UnknownNameError: the table has no such probe.
            DeclarationError: the table has one block only.
        """
        self._check(probe=probe)
        self._check_two("redundancy")
        return _with_mean(
            {factor: sorted(self.excess(block, factor, probe) for block in self.blocks)[-2] for factor in self.factors}
        )

    def summary(self, carriers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Leakage and redundancy as rows: ``probe``, ``factor`` (or ``"all"``), ``leakage``, ``redundancy``.

        Args:
            carriers: as :meth:`leakage` takes them; ``leakage`` is None for a factor that is left out. Both are None in
                a table of one block.

        Raises:
            UnknownNameError: ``carriers`` names a factor or block that the table lacks.
        """
        carriers = carriers or {}
        self._check_carriers(carriers)
        several = len(self.blocks) > 1
        rows: list[dict[str, Any]] = []
        for probe in self.probes:
            leakage = self.leakage(carriers, probe) if carriers and several else {}
            redundancy = self.redundancy(probe) if several else {}
            rows += [
                {
                    "probe": probe,
                    "factor": factor,
                    "leakage": leakage.get(factor),
                    "redundancy": redundancy.get(factor),
                }
                for factor in (*self.factors, "all")
            ]
        return rows

    def __str__(self) -> str:
        """For each probe a matrix to read: the blocks down, the factors across, the controls under each block."""
        return "\n\n".join(self._text(probe) for probe in self.probes)

    def _text(self, probe: str) -> str:
        first = [self.row(self.blocks[0], factor, probe) for factor in self.factors]
        lines: list[tuple[str, list[str]]] = [(f"{probe} probes", list(self.factors))]
        for block in self.blocks:
            found = [self.row(block, factor, probe) for factor in self.factors]
            lines.append((block, [f"{row['score']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in found]))
            for name, key in (("untrained encoder", "untrained"), ("shuffled factor", "shuffled")):
                lines.append((f"  {name}", ["-" if row[key] is None else f"{row[key]:.3f}" for row in found]))
        lines.append(("chance", [f"{row['chance']:.3f}" for row in first]))
        label = max(len(name) for name, _ in lines)
        widths = [max(len(cells[column]) for _, cells in lines) for column in range(len(self.factors))]
        texts = [
            f"{name:<{label}}  "
            + "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
            for name, cells in lines
        ]
        metrics = ", ".join(f"{row['factor']}: {row['metric'].replace('_', ' ')}" for row in first)
        return "\n".join([*texts, f"{metrics}; held out, with 95% bootstrap intervals"])

    def _check(self, **names: str) -> None:
        options = {"block": self.blocks, "factor": self.factors, "probe": self.probes}
        for kind, name in names.items():
            if name not in options[kind]:
                raise UnknownNameError(
                    f"the table has no {kind} {name!r}; it has {join_names(options[kind])}."
                    f"{did_you_mean(name, options[kind])}"
                )

    def _check_carriers(self, carriers: Mapping[str, str]) -> None:
        for factor, block in carriers.items():
            for kind, name, options in (("factor", factor, self.factors), ("block", block, self.blocks)):
                if name not in options:
                    raise UnknownNameError(
                        f"carriers name the {kind} {name!r}; the table has {join_names(options)}."
                        f"{did_you_mean(name, options)}"
                    )

    def _check_two(self, what: str) -> None:
        if len(self.blocks) < 2:
            raise DeclarationError(
                f"{what} compares blocks and the table has {join_names(self.blocks)} only; measure two or more"
            )


def placement(
    train_latents: Mapping[str, Any],
    train_factors: Mapping[str, Any],
    test_latents: Mapping[str, Any],
    test_factors: Mapping[str, Any],
    *,
    untrained: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
    probes: Sequence[str] = LATENT_PROBES,
    shuffles: int = 1,
    bootstrap: int = 200,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: PlacementProgress | None = None,
) -> PlacementTable:
    """Fit probes of every factor on every block, and score them on held-out samples.

    Args:
        train_latents: ``{block: [N, dim]}``: tensors, or anything that ``numpy.asarray`` takes.
        train_factors: ``{factor: [N] or [N, channels]}``: whole numbers are labels, scored by accuracy; floats are
            values, scored by the squared correlation. Labels may be any whole numbers.
        test_latents: the same blocks for M other samples, ``{block: [M, dim]}``.
        test_factors: the same factors for them. A label that training never has counts as wrong.
        untrained: ``(train latents, test latents)`` of the same shapes, from an untrained encoder of the same kind.
            None leaves that control out: it is None in every row.
        probes: some of ``"linear"`` and ``"mlp"``; see :func:`infoplace.probes.latents.fit_probes`.
        shuffles: how many shufflings of the samples' factors ``shuffled`` is the mean of.
        bootstrap: resamples of the test samples that an interval comes from, 20 or more. The probes stay as they are:
            an interval speaks of the choice of test samples, not of training samples.
        seed: of the probes, the shuffling and the resamples; torch's own seed is left alone.
        device: where to fit.
        progress: called as ``progress(done, total, what)`` after each block and probe.

    Raises:
        DataError: latents or factors of the wrong shape, length, width or type, empty, not finite, a constant factor,
            or fewer samples than classes.
        DeclarationError: an option out of its range.
        UnknownNameError: an unknown probe, or other blocks or factors in one place than in another.

    >>> draw = torch.Generator().manual_seed(0)
    >>> digit, ground = torch.randint(3, (600,), generator=draw), torch.rand(600, generator=draw)
    >>> latents = {"z_g": torch.nn.functional.one_hot(digit), "z_l": ground[:, None]}
    >>> factors = {"digit": digit, "ground": ground}
    >>> halves = [{name: part[half] for name, part in each.items()}
    ...           for half in (slice(300), slice(300, 600)) for each in (latents, factors)]
    >>> table = placement(*halves, probes=["linear"])
    >>> table.score("z_g", "digit", "linear"), round(table.score("z_l", "ground", "linear"), 3)
    (1.0, 1.0)
    """
    probes = _check_options(probes, shuffles, bootstrap)
    _check_names(train_latents, train_factors, test_latents, test_factors)
    train, test = _blocks(train_latents, "train_latents"), _blocks(test_latents, "test_latents")
    _check_widths(train, test, "train_latents", "test_latents")
    controls = None if untrained is None else _untrained(untrained, train, test)
    factors = _factors(train_factors, test_factors, len(_first(train)), len(_first(test)))
    draw = torch.Generator().manual_seed(seed)
    # The test samples are shuffled, too: a one-dimensional block that holds the factor correlates with it by whatever
    # slope was found in noise, and would be its own floor.
    orders = [[torch.randperm(len(_first(part)), generator=draw) for part in (train, test)] for _ in range(shuffles)]
    # Real, shuffled and, where there is one, the untrained encoder's: one target for each, factor by factor.
    targets = [
        values
        for known, _ in factors.values()
        for values in (known, *(known[order] for order, _ in orders), *([known] if controls else []))
    ]

    rows: list[dict[str, Any]] = []
    columns: list[Tensor] = []
    total = len(train) * len(probes)
    for block in train:
        sources = [
            [own[block]] * (1 + shuffles) + ([other[block]] if other else [])
            for own, other in ((train, controls and controls[0]), (test, controls and controls[1]))
        ]
        for probe in probes:
            fitted = fit_probes(sources[0] * len(factors), targets, probe=probe, seed=seed, device=device)
            predicted = iter(fitted.predict(sources[1] * len(factors)))
            for factor, (_, true) in factors.items():
                own = next(predicted)
                shuffled = [_score(true[order], next(predicted)) for _, order in orders]
                score, base = _score(true, own), 0.0 if true.is_floating_point() else chance(true)
                rows.append(
                    {
                        "block": block,
                        "factor": factor,
                        "probe": probe,
                        "metric": "squared_correlation" if true.is_floating_point() else "accuracy",
                        "score": score,
                        "low": score,
                        "high": score,
                        "chance": base,
                        "untrained": _score(true, next(predicted)) if controls else None,
                        "shuffled": sum(shuffled) / shuffles,
                        "normalised": normalised(score, 1.0, base),
                    }
                )
                columns.append(_columns(true, own))
            if progress is not None:
                progress(len(rows) // len(factors), total, f"{block}, {probe} probes")
    for row, resampled in zip(rows, _bootstrap(columns, bootstrap, draw), strict=True):
        row["low"], row["high"] = torch.quantile(resampled, torch.tensor([0.025, 0.975]).double()).tolist()
    return PlacementTable(tuple(rows))


def _score(true: Tensor, predicted: Tensor) -> float:
    return squared_correlation(true, predicted) if true.is_floating_point() else accuracy(true, predicted)


def _columns(true: Tensor, predicted: Tensor) -> Tensor:
    """What has to be summed over a resample to score it: ``[N, 1]`` for labels, ``[N, 5 channels]`` for values."""
    if not true.is_floating_point():
        return (true == predicted).double().unsqueeze(1)
    scaled = []
    for values in (true, predicted):
        values = values.reshape(len(values), -1)
        centred = values - values.mean(0)
        deviation = centred.square().mean(0).sqrt()
        # What is left of a constant prediction is rounding: it stays 0, and so does its correlation.
        constant = deviation <= 1e-12 * values.abs().amax(0)
        scaled.append(torch.where(constant, 0.0, centred / torch.where(constant, 1.0, deviation)))
    x, y = scaled
    return torch.cat([x, y, x * x, y * y, x * y], dim=1)


def _resampled_score(sums: Tensor) -> Tensor:
    """The score of each resample ``[resamples]`` from the means of :func:`_columns` over it."""
    if sums.shape[1] == 1:
        return sums[:, 0]
    x, y, xx, yy, xy = sums.chunk(5, dim=1)
    spread = (xx - x * x) * (yy - y * y)
    safe = spread > 1e-12
    squares = torch.where(safe, (xy - x * y).square() / torch.where(safe, spread, 1.0), 0.0)
    return squares.clamp(max=1.0).mean(1)


def _bootstrap(columns: list[Tensor], resamples: int, generator: torch.Generator) -> list[Tensor]:
    """The score of each row in each resample: for each row ``[resamples]``. All rows see the same resamples.

    How often each sample is drawn, a matrix ``[resamples, N]``, times the columns is every sum that is needed.
    """
    joined = torch.cat(columns, dim=1)
    count, sums = len(joined), []
    at_once = max(1, _COUNTED_AT_ONCE // count)
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = torch.randint(count, (size, count), generator=generator)
        drawn += count * torch.arange(size).unsqueeze(1)
        counts = torch.bincount(drawn.flatten(), minlength=size * count).view(size, count)
        sums.append(counts.double() @ joined / count)
    parts = torch.cat(sums).split([each.shape[1] for each in columns], dim=1)
    return [_resampled_score(part) for part in parts]


def _with_mean(values: dict[str, float]) -> dict[str, float]:
    return {**values, "all": sum(values.values()) / len(values)}


def _first(blocks: Mapping[str, Tensor]) -> Tensor:
    return next(iter(blocks.values()))


def _check_options(probes: Sequence[str], shuffles: int, bootstrap: int) -> tuple[str, ...]:
    if isinstance(probes, str) or not probes:
        raise DeclarationError(f"probes must list some of {join_names(LATENT_PROBES)}; got {probes!r}")
    for probe in probes:
        if probe not in LATENT_PROBES:
            raise UnknownNameError(
                f"probes name {probe!r}; there are {join_names(LATENT_PROBES)}.{did_you_mean(probe, LATENT_PROBES)}"
            )
    for name, value, least in (("shuffles", shuffles, 1), ("bootstrap", bootstrap, LEAST_RESAMPLES)):
        if not is_whole(value) or value < least:
            raise DeclarationError(f"{name} must be a whole number of {least} or more; got {value!r}")
    return tuple(dict.fromkeys(probes))


def _check_names(
    train_latents: Mapping[str, Any],
    train_factors: Mapping[str, Any],
    test_latents: Mapping[str, Any],
    test_factors: Mapping[str, Any],
) -> None:
    for name, given, key in (
        ("train_latents", train_latents, "block"),
        ("train_factors", train_factors, "factor"),
        ("test_latents", test_latents, "block"),
        ("test_factors", test_factors, "factor"),
    ):
        if not isinstance(given, Mapping) or not given:
            came = "none" if isinstance(given, Mapping) else f"a {type(given).__name__}"
            raise DataError(f"{name} must be a dict {{{key}: array}} with at least one {key}; got {came}")
    _same_names("block", "train_latents", train_latents, "test_latents", test_latents)
    _same_names("factor", "train_factors", train_factors, "test_factors", test_factors)
    if "all" in train_factors:
        raise DataError("a factor is named 'all', which is the name of the mean over factors; give it another name")


def _same_names(kind: str, one: str, first: Mapping[str, Any], two: str, second: Mapping[str, Any]) -> None:
    for name, given, other, expected in ((one, first, two, second), (two, second, one, first)):
        for missing in expected:
            if missing not in given:
                raise UnknownNameError(
                    f"{other} has the {kind} {missing!r} and {name} has not; "
                    f"it has {join_names(given)}.{did_you_mean(missing, given)}"
                )


def _blocks(latents: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    blocks = {block: as_latents(values, f"{name}[{block!r}]").cpu() for block, values in latents.items()}
    count = len(_first(blocks))
    for block, values in blocks.items():
        if len(values) != count:
            raise DataError(
                f"{name}[{block!r}] has {len(values)} samples and {name}[{next(iter(blocks))!r}] has {count}; "
                "every block needs the same samples"
            )
    return blocks


def _check_widths(first: Mapping[str, Tensor], second: Mapping[str, Tensor], one: str, two: str) -> None:
    for block, values in first.items():
        if values.shape[1] != second[block].shape[1]:
            raise DataError(
                f"{one}[{block!r}] has {values.shape[1]} dimensions and {two}[{block!r}] has "
                f"{second[block].shape[1]}; both must come from one encoder"
            )


def _untrained(
    untrained: tuple[Mapping[str, Any], Mapping[str, Any]], train: dict[str, Tensor], test: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if not isinstance(untrained, (tuple, list)) or len(untrained) != 2:
        raise DataError("untrained must be a pair (train latents, test latents), each a dict {block: array}")
    pair = []
    for index, (name, given, real) in enumerate(
        (("train_latents", untrained[0], train), ("test_latents", untrained[1], test))
    ):
        if not isinstance(given, Mapping):
            raise DataError(f"untrained[{index}] must be a dict {{block: array}}; got a {type(given).__name__}")
        _same_names("block", name, real, f"untrained[{index}]", given)
        blocks = _blocks(given, f"untrained[{index}]")
        for block, values in blocks.items():
            if values.shape != real[block].shape:
                raise DataError(
                    f"untrained[{index}][{block!r}] is {list(values.shape)} and {name}[{block!r}] is "
                    f"{list(real[block].shape)}; the control needs the same samples and dimensions"
                )
        pair.append(blocks)
    return pair[0], pair[1]


def _factors(
    train: Mapping[str, Any], test: Mapping[str, Any], train_count: int, test_count: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Training and test values of each factor, checked."""
    factors = {}
    for factor in train:
        parts = []
        for name, given, count in (("train_factors", train, train_count), ("test_factors", test, test_count)):
            values = as_factor(given[factor], count, f"{name}[{factor!r}]").cpu()
            low, high = values.amin(0), values.amax(0)
            if (low == high).any():
                which = " in one of its channels" if values.ndim == 2 else ""
                raise DataError(
                    f"{name}[{factor!r}] is constant{which}, so nothing can be read of it; "
                    "leave it out, or give samples in which it varies"
                )
            parts.append(values)
        known, held = parts
        if known.dtype != held.dtype or known.shape[1:] != held.shape[1:]:
            raise DataError(
                f"factor {factor!r} is {_form(known)} in train_factors and {_form(held)} in test_factors; "
                "give both in one form"
            )
        if not known.is_floating_point():
            classes = len(torch.cat(parts).unique())
            if min(train_count, test_count) < classes:
                raise DataError(
                    f"factor {factor!r} has {classes} classes and there are {train_count} training and {test_count} test "
                    "samples; give at least one for each class, or floats where it is a value"
                )
        factors[factor] = known, held
    return factors


def _form(factor: Tensor) -> str:
    if not factor.is_floating_point():
        return "labels"
    return "values [N]" if factor.ndim == 1 else f"values [N, {factor.shape[1]}]"
