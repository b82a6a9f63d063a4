"""The literature's scores of a code against known factors: MIG, SAP and DCI, on plain arrays.

All three start from a table of dimension x factor that says how much each dimension of the code tells of each factor, and
score how far that table is from one dimension a factor. They differ in the table:

- :func:`mig`: the mutual information of a dimension and a factor, both discrete (Chen et al., "Isolating sources of
  disentanglement in variational autoencoders", 2018).
- :func:`sap`: the score of a linear predictor that reads one dimension alone (Kumar et al., "Variational inference of
  disentangled latent concepts from unlabeled observations", 2018).
- :func:`dci`: the importance of a dimension to a predictor that reads them all (Eastwood and Williams, "A framework for the
  quantitative evaluation of disentangled representations", 2018).

The conventions are those of disentanglement_lib (Locatello et al., 2019) where it has any; each function names where it
leaves them. These scores ask for one *dimension* a factor. Who places a factor in a *block* does not mind over how many of
its dimensions it is spread; so for a code that is given in blocks, the gaps and completeness are also taken over the blocks,
under the same name with ``_blocks``.

Factors: whole numbers (or booleans) are labels, floats are values. Every channel of a factor of shape ``[N, channels]``
counts as a factor of its own, named ``"ground[0]"`` and so on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infoplace.errors import DataError, DeclarationError, did_you_mean, import_optional, is_whole, join_names
from infoplace.probes import squared_correlation

__all__ = ["Array", "CodeScores", "dci", "mig", "sap"]

Array = Tensor | NDArray[Any]
"""A tensor on any device, or a numpy array."""

PREDICTORS = ("forest", "boosting")

_UNSEEN = 1e-11  # disentanglement_lib's, added to every importance


@dataclass(frozen=True, eq=False)
class CodeScores:
    """What :func:`mig`, :func:`sap` or :func:`dci` found.

    Attributes:
        scores: ``{metric: score}``, each in [0, 1] where 1 is best.
        detail: one row for each metric and factor: ``metric``, ``factor``, ``score``, and the two dimensions (or blocks)
            that tell most of it, ``best`` and ``second``; both None where the score is of all dimensions together.
        matrix: ``[dims, factors]``, what the scores are made of.
        dims: the names of its rows, ``"z_g[0]"``.
        factors: the names of its columns.
        measure: what the matrix holds.
    """

    scores: Mapping[str, float]
    detail: tuple[Mapping[str, Any], ...]
    matrix: Tensor
    dims: tuple[str, ...]
    factors: tuple[str, ...]
    measure: str

    def rows(self) -> list[dict[str, Any]]:
        """One row a metric: ``metric``, ``score``."""
        return [{"metric": metric, "score": score} for metric, score in self.scores.items()]

    def factor_rows(self) -> list[dict[str, Any]]:
        """One row a metric and factor; see ``detail``."""
        return [dict(row) for row in self.detail]

    def __str__(self) -> str:
        """The scores, and under each those of the factors."""
        width = max(len(name) for name in (*self.scores, *(f"  {factor}" for factor in self.factors)))
        lines = []
        for metric, score in self.scores.items():
            lines.append(f"{metric:<{width}}  {score:.3f}")
            for row in self.detail:
                if row["metric"] == metric:
                    places = "" if row["best"] is None else f"  {row['best']}, then {row['second']}"
                    lines.append(f"{'  ' + row['factor']:<{width}}  {row['score']:.3f}{places}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Factor:
    name: str
    values: NDArray[Any]
    discrete: bool


@dataclass(frozen=True)
class _Code:
    values: NDArray[np.float64]
    dims: tuple[str, ...]
    blocks: Mapping[str, slice]
    """The dimensions of each block; empty where there are not two."""
    factors: tuple[_Factor, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factors)


def mig(codes: Array | Mapping[str, Array], factors: Mapping[str, Array], bins: int = 20) -> CodeScores:
    """The mutual information gap: `mean_v (I(z_best; v) - I(z_second; v)) / H(v)` over the factors `v`.

    Every dimension is cut into ``bins`` bins of equal width between its own least and greatest value, as
    disentanglement_lib does; so is a factor of values, which that library leaves to its data sets. Section 4 of Chen et al.
    (2018) is for a posterior; here a code is one point for each sample (a posterior's mean, say).

    ``mig_blocks``, for codes in two blocks or more, is the gap between the best dimension of the best block and the best
    dimension of any other block.

    Args:
        codes: ``[N, dim]``, or ``{block: [N, dim]}``, which are joined; two dimensions or more.
        factors: ``{factor: [N] or [N, channels]}``; whole numbers are labels, floats values.
        bins: how many bins, 2 or more.

    Returns:
        The scores ``mig`` and ``mig_blocks``. The matrix holds the mutual information in nats.

    Raises:
        DataError: arrays of the wrong shape or length, not finite, a constant factor, or labels with fewer than two samples
            a class on average.
        DeclarationError: fewer than 2 bins.

    >>> grid = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    >>> factors = {"row": grid[:, 0], "column": grid[:, 1]}
    >>> mig(grid.float(), factors).rows()
    [{'metric': 'mig', 'score': 1.0}]
    >>> print(mig({"z_g": grid[:, :1].float(), "z_l": grid.float()}, factors))
    mig         0.500
      row       0.000  z_g[0], then z_l[0]
      column    1.000  z_l[1], then z_g[0]
    mig_blocks  0.500
      row       0.000  z_g, then z_l
      column    1.000  z_l, then z_g
    """
    if not is_whole(bins) or bins < 2:
        raise DeclarationError(f"mig: bins must be a whole number, 2 or more; got {bins!r}")
    code = _read("mig", codes, factors)
    dims = [_binned(column, bins) for column in code.values.T]
    classes = [factor.values if factor.discrete else _binned(factor.values, bins) for factor in code.factors]
    matrix = np.array([[_mutual_information(column, values) for values in classes] for column in dims])
    entropy = np.array([_mutual_information(values, values) for values in classes])
    return _gaps("mig", code, matrix, entropy, "mutual information in nats")


def sap(
    codes: Array | Mapping[str, Array],
    factors: Mapping[str, Array],
    *,
    train_share: float = 0.8,
    seed: int = 0,
) -> CodeScores:
    """The separated attribute predictability: `mean_v (S(z_best, v) - S(z_second, v))` over the factors `v`.

    `S` is the score of one dimension alone, as in section 3 of Kumar et al. (2018) and in disentanglement_lib: for labels,
    the held-out accuracy of a linear support vector machine (C = 0.01, classes weighted to balance); for values,
    `cov(z, v)^2 / (var z * var v)` over all samples, 0 for a constant dimension. Labels and values may be mixed.

    ``sap_blocks``, for codes in two blocks or more, is the gap between the best dimension of the best block and the best
    dimension of any other block.

    Args:
        codes: ``[N, dim]``, or ``{block: [N, dim]}``, which are joined; two dimensions or more.
        factors: ``{factor: [N] or [N, channels]}``; whole numbers are labels, floats values.
        train_share: the share of the samples that a predictor is trained on, in (0, 1); the rest is held out.
        seed: of the split: the first ``ceil(train_share * N)`` of ``torch.randperm`` train.

    Returns:
        The scores ``sap`` and ``sap_blocks``. The matrix holds `S`.

    Raises:
        DataError: arrays of the wrong shape or length, not finite, a constant factor, labels with fewer than two samples a
            class on average.
        DeclarationError: a share outside (0, 1).
        PluginError: there are labels, and scikit-learn is not installed.

    >>> step = torch.linspace(-1, 1, 101)
    >>> sap(torch.stack([step, step**2], 1), {"place": step}).rows()
    [{'metric': 'sap', 'score': 1.0}]
    """
    code = _read("sap", codes, factors)
    train, test = _split("sap", code, train_share, seed)
    columns: list[Any] = []
    for factor in code.factors:
        if not factor.discrete:
            columns.append(_squared_correlations(code.values, factor.values))
            continue
        known = factor.values[train]
        columns.append(
            [_alone(column[train, None], known, column[test, None], factor.values[test]) for column in code.values.T]
        )
    return _gaps("sap", code, np.array(columns).T, np.ones(len(columns)), "score of one dimension alone")


def dci(
    codes: Array | Mapping[str, Array],
    factors: Mapping[str, Array],
    *,
    predictor: Literal["forest", "boosting"] = "forest",
    train_share: float = 0.8,
    seed: int = 0,
) -> CodeScores:
    """Disentanglement, completeness and informativeness, from the importances `R` of a predictor of each factor.

    Completeness of a factor is `1 - H(R_v / sum R_v)`, the entropy over the dimensions to the base of their number;
    disentanglement of a dimension is the same over the factors; both are averaged with the share of `R` as weights.
    Informativeness is the held-out score of the predictor: accuracy for labels, squared correlation for values (Eastwood and
    Williams, 2018, section 2, report an error instead; disentanglement_lib, an accuracy).

    The predictor is a random forest, one of the two of the paper: 30 trees that look at every dimension at every split, a
    leaf of at least 1/200 of the samples, so that no importance is spent on noise. Some 20 seconds for 5,000 samples, 44
    dimensions and 6 factors. disentanglement_lib trains scikit-learn's gradient boosting instead, which costs a minute for
    every factor of ten classes; ``predictor="boosting"`` does that.

    ``dci_completeness_blocks``, for codes in two blocks or more, is completeness with the importances summed over each
    block. (Disentanglement has no such form: a block is meant to carry several factors.) With a single factor there is
    nothing to disentangle it from, and ``dci_disentanglement`` is left out. Channels of one factor count as factors: a
    dimension that carries the grey of a colour in all three is not disentangled by this score.

    Args:
        codes: ``[N, dim]``, or ``{block: [N, dim]}``, which are joined; two dimensions or more.
        factors: ``{factor: [N] or [N, channels]}``; whole numbers are labels, floats values.
        predictor: ``"forest"`` or ``"boosting"``.
        train_share: the share of the samples that the predictors are trained on, in (0, 1); the rest is held out.
        seed: of the split (the first ``ceil(train_share * N)`` of ``torch.randperm`` train) and of the predictor.

    Returns:
        The scores ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness`` and ``dci_completeness_blocks``.
        The matrix holds the importances; each column sums to 1.

    Raises:
        DataError: arrays of the wrong shape or length, not finite, a constant factor, labels with fewer than two samples a
            class on average.
        DeclarationError: an unknown predictor, or a share outside (0, 1).
        PluginError: scikit-learn is not installed.

    >>> grid = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    >>> scores = dci(grid.float(), {"row": grid[:, 0].float(), "column": grid[:, 1].float()}).scores
    >>> {name: round(score, 1) for name, score in scores.items()}
    {'dci_disentanglement': 1.0, 'dci_completeness': 1.0, 'dci_informativeness': 1.0}
    """
    if predictor not in PREDICTORS:
        raise DeclarationError(
            f"dci: predictor must be one of {join_names(PREDICTORS)}; got {predictor!r}."
            f"{did_you_mean(predictor, PREDICTORS)}"
        )
    code = _read("dci", codes, factors)
    train, test = _split("dci", code, train_share, seed)
    importances, informative = [], []
    for factor in code.factors:
        fitted = _predictor(predictor, factor.discrete, seed).fit(code.values[train], factor.values[train])
        importances.append(fitted.feature_importances_)
        true, read = factor.values[test], fitted.predict(code.values[test])
        informative.append(
            float(np.mean(read == true))
            if factor.discrete
            else squared_correlation(torch.from_numpy(true), torch.from_numpy(read))
        )
    matrix = np.array(importances).T

    each = _concentration(matrix)
    scores: dict[str, float] = {}
    if len(code.factors) > 1:
        scores["dci_disentanglement"] = float(_concentration(matrix.T) @ _shares(matrix.sum(1)))
    scores["dci_completeness"] = float(each @ _shares(matrix.sum(0)))
    scores["dci_informativeness"] = float(np.mean(informative))
    detail = _details("dci_completeness", code, each, matrix, code.dims)
    detail += [
        {"metric": "dci_informativeness", "factor": name, "score": score, "best": None, "second": None}
        for name, score in zip(code.names, informative, strict=True)
    ]
    if code.blocks:
        sums = np.stack([matrix[part].sum(0) for part in code.blocks.values()])
        each = _concentration(sums)
        scores["dci_completeness_blocks"] = float(each @ _shares(sums.sum(0)))
        detail += _details("dci_completeness_blocks", code, each, sums, tuple(code.blocks))
    measure = f"importance to a {predictor}"
    return CodeScores(scores, tuple(detail), torch.from_numpy(matrix), code.dims, code.names, measure)


# ---- the parts of the scores -----------------------------------------------------------------------------------------


def _gaps(
    metric: str, code: _Code, matrix: NDArray[np.float64], scale: NDArray[np.float64], measure: str
) -> CodeScores:
    """The gap between the highest and the second highest of each column, over the dimensions and over the blocks."""
    tables = [(metric, matrix, code.dims)]
    if code.blocks:
        bests = np.stack([matrix[part].max(0) for part in code.blocks.values()])
        tables.append((f"{metric}_blocks", bests, tuple(code.blocks)))
    scores: dict[str, float] = {}
    detail: list[dict[str, Any]] = []
    for name, table, places in tables:
        ranked = np.sort(table, axis=0)
        each = (ranked[-1] - ranked[-2]) / scale
        scores[name] = float(each.mean())
        detail += _details(name, code, each, table, places)
    return CodeScores(scores, tuple(detail), torch.from_numpy(matrix), code.dims, code.names, measure)


def _details(
    metric: str, code: _Code, each: NDArray[np.float64], table: NDArray[np.float64], places: tuple[str, ...]
) -> list[dict[str, Any]]:
    ranks = np.argsort(-table, axis=0, kind="stable")
    return [
        {
            "metric": metric,
            "factor": name,
            "score": float(each[column]),
            "best": places[ranks[0, column]],
            "second": places[ranks[1, column]],
        }
        for column, name in enumerate(code.names)
    ]


def _binned(values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Which of ``bins`` bins of equal width each value is in, the greatest in the last."""
    edges = np.histogram_bin_edges(values, bins)
    return np.searchsorted(edges[1:-1], values, side="right")


def _mutual_information(left: NDArray[Any], right: NDArray[Any]) -> float:
    """`I(left; right)` of two discrete variables `[N]`, in nats, from their counts."""
    rows, row = np.unique(left, return_inverse=True)
    columns, column = np.unique(right, return_inverse=True)
    joint = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns)) / len(left)
    joint = joint.reshape(len(rows), len(columns))
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float(np.sum(joint[there] * np.log(joint[there] / apart[there])))


def _squared_correlations(codes: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    codes, values = codes - codes.mean(0), values - values.mean()
    variance = (codes**2).mean(0)
    # disentanglement_lib's threshold: a dimension with less variance than that is constant.
    alive = variance > 1e-12
    covariance = (codes * values[:, None]).mean(0)
    score = np.where(alive, covariance**2 / (np.where(alive, variance, 1.0) * (values**2).mean()), 0.0)
    return np.minimum(score, 1.0)


def _alone(train: NDArray[Any], known: NDArray[Any], test: NDArray[Any], true: NDArray[Any]) -> float:
    """The held-out accuracy of a linear support vector machine."""
    machine = (
        import_optional("sklearn.svm", "sap")
        .LinearSVC(C=0.01, class_weight="balanced", dual=False, random_state=0)
        .fit(train, known)
    )
    return float(np.mean(machine.predict(test) == true))


def _predictor(kind: str, discrete: bool, seed: int) -> Any:
    ensemble = import_optional("sklearn.ensemble", "dci")
    if kind == "boosting":
        boosted = ensemble.GradientBoostingClassifier if discrete else ensemble.GradientBoostingRegressor
        return boosted(random_state=seed)
    forest = ensemble.RandomForestClassifier if discrete else ensemble.RandomForestRegressor
    return forest(30, max_features=None, min_samples_leaf=0.005, random_state=seed)


def _concentration(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """`1 - H` of each column, to the base of the number of rows."""
    shares = table + _UNSEEN
    shares = shares / shares.sum(0)
    return 1 + (shares * np.log(shares)).sum(0) / math.log(len(table))


def _shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total = sums.sum()
    return sums / total if total > 0 else np.full(len(sums), 1 / len(sums))


# ---- reading what was given ------------------------------------------------------------------------------------------


def _read(metric: str, codes: Array | Mapping[str, Array], factors: Mapping[str, Array]) -> _Code:
    parts = codes if isinstance(codes, Mapping) else {"codes": codes}
    arrays = {name: _array(f"{metric}: codes {name!r}", value) for name, value in parts.items()}
    if not arrays:
        raise DataError(f"{metric}: there are no codes; give an array [N, dim], or {{block: [N, dim]}}")
    count = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if array.ndim != 2 or not array.shape[1] or len(array) != count:
            raise DataError(
                f"{metric}: codes {name!r} have shape {list(array.shape)}; expected [{count}, dim], one row for each sample"
            )
    joined = np.concatenate([array.astype(np.float64) for array in arrays.values()], axis=1)
    if joined.shape[1] < 2:
        raise DataError(f"{metric} compares the dimensions of a code with each other; give codes of 2 or more")
    dims = tuple(f"{name}[{place}]" for name, array in arrays.items() for place in range(array.shape[1]))
    blocks, start = {}, 0
    for name, array in arrays.items():
        blocks[name] = slice(start, start + array.shape[1])
        start += array.shape[1]
    if not factors:
        raise DataError(f"{metric}: there are no factors; give {{name: [N] or [N, channels]}}")
    read = tuple(each for name, value in factors.items() for each in _factors(metric, name, value, count))
    return _Code(joined, dims, blocks if len(blocks) > 1 else {}, read)


def _factors(metric: str, name: str, value: Array, count: int) -> list[_Factor]:
    array = _array(f"{metric}: factor {name!r}", value)
    if array.ndim not in (1, 2) or len(array) != count or not array.size:
        raise DataError(
            f"{metric}: factor {name!r} has shape {list(array.shape)}, and the codes hold {count} samples; "
            f"expected [{count}] or [{count}, channels]"
        )
    discrete = array.dtype.kind in "iub"
    columns = array.reshape(count, -1).T
    named = [name] if len(columns) == 1 else [f"{name}[{channel}]" for channel in range(len(columns))]
    found = []
    for label, column in zip(named, columns, strict=True):
        classes = len(np.unique(column))
        if classes == 1:
            raise DataError(
                f"{metric}: factor {label!r} is constant ({column[0]}), so nothing can tell of it; leave it out"
            )
        if discrete and 2 * classes > count:
            raise DataError(
                f"{metric}: factor {label!r} has {classes} classes in {count} samples, and takes 2 samples a class or more; "
                "give more samples, or a factor of values as floats"
            )
        found.append(_Factor(label, column if discrete else column.astype(np.float64), discrete))
    return found


def _array(what: str, value: Array) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise DataError(f"{what} must be a tensor or numpy array of numbers; got {kind}")
    if not np.isfinite(value).all():
        raise DataError(f"{what} holds values that are not finite")
    return value


def _split(metric: str, code: _Code, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise DeclarationError(f"{metric}: train_share must lie between 0 and 1; got {share!r}")
    count = len(code.values)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    cut = math.ceil(share * count)
    if cut == count:
        raise DataError(f"{metric}: of {count} samples, train_share={share} leaves none to hold out; give more samples")
    for factor in code.factors:
        if len(np.unique(factor.values[order[:cut]])) == 1:
            raise DataError(
                f"{metric}: factor {factor.name!r} is constant among the {cut} samples that train; give more samples, "
                "or leave it out"
            )
    return order[:cut], order[cut:]
