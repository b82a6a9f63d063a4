"""Metrics by name: what a trained pair is measured with, and how a plugin adds a measurement.

A metric reads a :class:`Subject`, which holds everything an evaluation knows (latents, factors, a decoder, predictors, the
model and the guide), and returns tidy tables. ``infoplace evaluate`` builds the subject of a run folder; anybody else may
build one of plain tensors, with only the parts that the metric asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from infoplace.errors import DataError, DeclarationError, import_optional, is_whole, join_names
from infoplace.metrics.clustering import ClusteringTable, clustering
from infoplace.metrics.disentanglement import dci, mig, sap
from infoplace.metrics.likelihood import bits_per_dim, block_kl
from infoplace.metrics.placing import LEAST_RESAMPLES, placement
from infoplace.metrics.swapping import CHANGES, Decode, DrawPrior, ReadsFactor, swap
from infoplace.probes import LATENT_PROBES
from infoplace.probes.latents import as_factor, as_latents
from infoplace.registry import Configurable, Description, Registry

__all__ = [
    "LackingError",
    "Metric",
    "Rows",
    "Subject",
    "Tables",
    "describe_metric",
    "list_metrics",
    "make_metric",
    "register_metric",
]

Rows = list[dict[str, Any]]
"""A tidy table: one finding a row, of plain values, ready for a CSV or a data frame."""

Tables = dict[str, Rows]
"""Table name to rows."""

Latents = Mapping[str, Tensor]


class LackingError(DataError):
    """A metric was asked of a subject that has not got what it needs."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a metric may look at. Leave out what is not known: a metric that needs it says so.

    Args:
        latents: ``{block: [N, dim]}``, encodings of the test images.
        factors: ``{factor: [N] or [N, channels]}``, their true factors; integers are labels, floats are values.
        train_latents: the same of training images; probes are fitted on them.
        train_factors: their factors.
        samples: draws from the posteriors of the training and of the test images, ``(train, test)``; what a block tells
            when its noise is counted in.
        untrained: what encoders that were never trained make of both, ``(train, test)``, without noise.
        classes: ``{block: [N, k]}``, how probable each of a block's k classes (clusters) is for each test image.
        train_classes: the same for the training images.
        carriers: ``{factor: block}``, the block that is declared to carry each; not every factor needs one.
        given: ``{factor: other factor}``, what the swap test also holds a factor's score against.
        images: the test images `[N, channels, height, width]`, uint8 or float in [0, 1].
        predictors: ``{factor: predictor}``, which read factors off images.
        decode: ``{block: [n, dim]}`` to images in [0, 1].
        prior: ``(block, n, generator)`` to draws `[n, dim]` of that block's prior.
        model: the Pyro model.
        guide: its guide.
        observations: ``{observation: [N, ...]}`` of the test images, what model and guide are called with.
        hangs_on: ``{observation: blocks}``, the latent sites that each observed site hangs on.
        described: what ``latents`` are, for the reader: posterior means, or samples.
        seed: of every random choice.
        device: where probes are fitted.
        progress: called as ``progress(done, total)``.
    """

    latents: Latents = dataclasses.field(default_factory=dict)
    factors: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    train_latents: Latents | None = None
    train_factors: Mapping[str, Tensor] | None = None
    samples: tuple[Latents, Latents] | None = None
    untrained: tuple[Latents, Latents] | None = None
    classes: Latents | None = None
    train_classes: Latents | None = None
    carriers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    images: Tensor | None = None
    predictors: Mapping[str, ReadsFactor] | None = None
    decode: Decode | None = None
    prior: DrawPrior | None = None
    model: Callable[..., Any] | None = None
    guide: Callable[..., Any] | None = None
    observations: Mapping[str, Tensor] | None = None
    hangs_on: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    described: str = "posterior means"
    seed: int = 0
    device: str | torch.device = "cpu"
    progress: Callable[[int, int], None] | None = None

    def say(self, done: int, total: int) -> None:
        """Tell whoever listens how far a metric is."""
        if self.progress is not None:
            self.progress(done, total)

    def need(self, metric: str, *parts: str) -> list[Any]:
        """The named parts, in order.

        Raises:
            LackingError: this subject has not got one.
        """
        found = {part: getattr(self, part) for part in parts}
        missing = [part for part, value in found.items() if value is None or (isinstance(value, Mapping) and not value)]
        if missing:
            raise LackingError(
                f"{metric} needs {join_names(missing)}, which this subject lacks; pass Subject({missing[0]}=..., ...)"
            )
        return list(found.values())


class Metric(Configurable):
    """A measurement of a trained pair. A subclass has parameters as fields and defines :meth:`tables`."""

    def tables(self, subject: Subject) -> Tables:
        """Measure; what a subclass defines.

        Args:
            subject: what there is to look at; ask :meth:`Subject.need` for the parts.

        Returns:
            ``{table: rows}``, each row a dict of plain values.

        Raises:
            LackingError: the subject has not got what this metric needs.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no tables(self, subject)")


RegisteredMetric = TypeVar("RegisteredMetric", bound=type[Metric])
_metrics: Registry[Metric] = Registry("metric", Metric, "infoplace.metrics")


@overload
def register_metric(
    name: str, implementation: None = None, /, *, overwrite: bool = False
) -> Callable[[RegisteredMetric], RegisteredMetric]: ...
@overload
def register_metric(name: str, implementation: RegisteredMetric, /, *, overwrite: bool = False) -> RegisteredMetric: ...
@overload
def register_metric(
    name: str, /, *, alias: str | None = None, overwrite: bool = False, **parameters: Any
) -> Metric: ...
def register_metric(
    name: str,
    implementation: Any = None,
    /,
    *,
    alias: str | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Any:
    """Configure a known metric, or register a new one.

    With parameters, they become what the bare name means from now on, and the configured metric is returned. With a class
    (or as a decorator, from the name alone), the class is registered and returned.

    Args:
        name: the metric's name.
        implementation: a class derived from :class:`Metric`.
        alias: a second name to keep the parameters under, leaving ``name`` as it was.
        overwrite: take a name that another owner holds.
        parameters: the metric's parameters.

    Raises:
        DeclarationError: parameters that the metric refuses, a name that another owner holds, or a class that is not a
            metric.
        UnknownNameError: parameters for an unknown name.

    >>> @register_metric("dimensions")
    ... class Dimensions(Metric):
    ...     def tables(self, subject):
    ...         return {"dimensions": [{"block": name, "dims": z.shape[1]} for name, z in subject.latents.items()]}
    >>> make_metric("dimensions").tables(Subject(latents={"z": torch.zeros(5, 2)}))
    {'dimensions': [{'block': 'z', 'dims': 2}]}
    """
    register: Callable[..., Any] = _metrics.register  # its overloads leave out the mistakes that it has messages for
    return register(name, implementation, alias=alias, overwrite=overwrite, **parameters)


def make_metric(spec: Metric | str | Mapping[str, Any], /, **parameters: Any) -> Metric:
    """The metric that a name or a spec means; a metric is returned as it is.

    Args:
        spec: ``"swap"``, ``{"swap": {"how": ["prior"]}}`` or a :class:`Metric`.
        parameters: more of its parameters.

    Raises:
        UnknownNameError: no metric of that name.
        DeclarationError: parameters that it refuses.

    >>> make_metric("swap", how=["prior"])
    Swap(how=('prior',))
    """
    return _metrics.make(spec, **parameters)


def list_metrics() -> list[str]:
    """The names of all metrics: built in, registered, and of installed plugins.

    >>> "placement" in list_metrics()
    True
    """
    return _metrics.names()


def describe_metric(name: str) -> Description:
    """A metric's description and parameters.

    Raises:
        UnknownNameError: no metric of that name.

    >>> list(describe_metric("bits_per_dim").parameters)
    ['samples', 'images']
    """
    return _metrics.describe(name)


def _check_counts(metric: Metric, *fields: str, least: int = 1) -> None:
    for field in fields:
        value = getattr(metric, field)
        if not is_whole(value) or value < least:
            raise DeclarationError(
                f"{metric.spec_name}: {field} must be a whole number of at least {least}; got {value!r}"
            )


def _check_choices(metric: Metric, field: str, known: Sequence[str]) -> None:
    """Some of ``known``, as a tuple; a single one may be written without a list."""
    given = getattr(metric, field)
    chosen = (given,) if isinstance(given, str) else given
    if not isinstance(chosen, (tuple, list)) or not chosen or any(each not in known for each in chosen):
        raise DeclarationError(f"{metric.spec_name}: {field} must list some of {join_names(known)}; got {given!r}")
    metric._set(field, tuple(chosen))


def _first(images: int, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:images] for name, value in values.items()}


@register_metric("swap")
class Swap(Metric):
    """Change one block, decode, and read every factor off the image: the paper's Figure 3, for all blocks and factors.

    Tables ``swap`` and, for factors that have a carrier, ``kept_crossed``; see :func:`~infoplace.metrics.swap`.

    Args:
        how: what a block is replaced with: ``"prior"``, ``"other image"``, or both.
    """

    how: tuple[str, ...] = CHANGES

    def __post_init__(self) -> None:
        _check_choices(self, "how", CHANGES)

    def tables(self, subject: Subject) -> Tables:
        parts = ("latents", "decode", "prior", "images", "factors", "predictors")
        table = swap(
            *subject.need("swap", *parts),
            given=subject.given,
            how=self.how,
            generator=torch.Generator().manual_seed(subject.seed),
            described=subject.described,
        )
        measured = [
            (factor, block, way)
            for factor in table.factors
            if (block := subject.carriers.get(factor.partition(" given ")[0])) is not None
            for way in self.how
        ]
        declared = [
            {
                "factor": factor,
                "block": block,
                "how": way,
                "kept": table.kept(factor, block, way),
                "crossed": table.crossed(factor, block, way),
            }
            for factor, block, way in measured
        ]
        return {"swap": table.rows(), "kept_crossed": declared}


@register_metric("placement")
class Placement(Metric):
    """Which block tells which factor: probes of every factor from every block, with their controls.

    Tables ``placement`` and ``placement_summary``; see :func:`~infoplace.metrics.placement`.

    Args:
        latents: ``"samples"`` probes draws from the posteriors, which tell no more than the KL of their block allows;
            ``"means"`` probes what the subject has as ``latents``. A mean also shows what the block's noise drowns, which
            no decoder ever gets to see.
        probes: ``"linear"``, ``"mlp"``, or both.
        bootstrap: resamples of the test images behind each interval, 20 or more.
    """

    latents: str = "samples"
    probes: tuple[str, ...] = LATENT_PROBES
    bootstrap: int = 200

    def __post_init__(self) -> None:
        _check_choices(self, "probes", LATENT_PROBES)
        if self.latents not in ("samples", "means"):
            raise DeclarationError(f"placement: latents must be 'samples' or 'means'; got {self.latents!r}")
        _check_counts(self, "bootstrap", least=LEAST_RESAMPLES)

    def tables(self, subject: Subject) -> Tables:
        train_factors, factors = subject.need("placement", "train_factors", "factors")
        if self.latents == "samples":
            ((train, test),) = subject.need("placement", "samples")
        else:
            train, test = subject.need("placement", "train_latents", "latents")
        table = placement(
            train,
            train_factors,
            test,
            factors,
            untrained=subject.untrained,
            probes=self.probes,
            bootstrap=self.bootstrap,
            seed=subject.seed,
            device=subject.device,
            progress=lambda done, total, what: subject.say(done, total),
        )
        carriers = {factor: block for factor, block in subject.carriers.items() if factor in subject.factors}
        return {"placement": table.rows(), "placement_summary": table.summary(carriers or None)}


@register_metric("kl")
class BlockKL(Metric):
    """The KL of every block, which bounds what it knows of its input; see :func:`~infoplace.metrics.block_kl`.

    Table ``kl``.

    Args:
        images: at most so many images are read.
    """

    images: int = 2000

    def __post_init__(self) -> None:
        _check_counts(self, "images")

    def tables(self, subject: Subject) -> Tables:
        model, guide, observations = subject.need("kl", "model", "guide", "observations")
        return {"kl": block_kl(model, guide, _first(self.images, observations), seed=subject.seed).rows()}


@register_metric("bits_per_dim")
class BitsPerDim(Metric):
    """The importance-weighted bound of every observation, in bits per dim; see :func:`~infoplace.metrics.bits_per_dim`.

    Table ``bits_per_dim``.

    Args:
        samples: draws from the guide behind each bound.
        images: at most so many images are read.
    """

    samples: int = 64
    images: int = 200

    def __post_init__(self) -> None:
        _check_counts(self, "samples", "images")

    def tables(self, subject: Subject) -> Tables:
        model, guide, observed, hangs_on = subject.need("bits_per_dim", "model", "guide", "observations", "hangs_on")
        observations = _first(self.images, observed)
        rows: Rows = []
        for done, (site, latents) in enumerate(hangs_on.items()):
            subject.say(done, len(hangs_on))
            bound = bits_per_dim(
                model, guide, observations, site,
                samples=self.samples, latents=latents, seed=subject.seed,
            )  # fmt: skip
            rows += bound.rows()
        return {"bits_per_dim": rows}


@register_metric("disentanglement")
class Disentanglement(Metric):
    """MIG, DCI and SAP over the joined dimensions of all blocks, for comparison with the literature.

    Table ``disentanglement``; see :func:`~infoplace.metrics.mig`, :func:`~infoplace.metrics.dci` and
    :func:`~infoplace.metrics.sap`.

    Args:
        images: at most so many images are read.
    """

    images: int = 5000

    def __post_init__(self) -> None:
        _check_counts(self, "images")

    def tables(self, subject: Subject) -> Tables:
        parts = subject.need("disentanglement", "latents", "factors")
        latents, factors = (_first(self.images, part) for part in parts)
        return {"disentanglement": [row for score in (mig, dci, sap) for row in score(latents, factors).rows()]}


_MOST_LABELS = 100
"""Whole numbers of more values than that are no labels but numbers of something."""


@register_metric("clustering")
class Clustering(Metric):
    """Every block's classes, as clusters, against every factor; see :func:`~infoplace.metrics.clustering` for the scores.

    Only blocks whose prior draws a class have any. An image is in the cluster that is most probable for it. The mappings from
    clusters to labels are fitted on training images. Table ``clustering``: a row for each block, factor and metric, with the
    number of classes. Labels (2 to 100 whole numbers) get all scores. Values, such as a colour, are put into bins by k-means
    of the training values and get ``nmi``, under a name as ``"ground (10 bins)"``.

    Table ``clustering_labels``, for each factor of labels: each cluster's share of the test images, and the label that it has
    under either mapping, in the order of :meth:`~infoplace.metrics.ClusteringTable.arranged`. Table
    ``clustering_confusion``: how many test images each cluster holds of each label, where it holds any.

    Args:
        bins: how many bins values are put into, at least 2.
    """

    bins: int = 10

    def __post_init__(self) -> None:
        _check_counts(self, "bins", least=2)

    def tables(self, subject: Subject) -> Tables:
        classes, train_classes = subject.need("clustering", "classes", "train_classes")
        factors, train_factors = subject.need("clustering", "factors", "train_factors")
        labels = self._labels(train_factors, factors, subject.seed)
        if not labels:
            raise LackingError(
                f"clustering needs a factor of values, or of at most {_MOST_LABELS} labels; got {join_names(factors)}"
            )
        scores: Rows = []
        of_clusters: Rows = []
        confusion: Rows = []
        for index, (block, shares) in enumerate(classes.items()):
            train, test = (as_latents(given, f"classes[{block!r}]") for given in (train_classes[block], shares))
            for kind, given in (("training", train), ("test", test)):
                if len(given) < given.shape[1]:
                    raise LackingError(
                        f"clustering: {block!r} has {given.shape[1]} classes and there are {len(given)} {kind} images; "
                        "give as many images as classes, or more"
                    )
            for number, (factor, (train_true, true, binned)) in enumerate(labels.items()):
                subject.say(index * len(labels) + number, len(classes) * len(labels))
                _check_length(block, factor, train, train_true)
                _check_length(block, factor, test, true)
                table = clustering(train.argmax(1), train_true, test.argmax(1), true, probabilities=test)
                where = {"block": block, "factor": factor}
                scores += [
                    {**where, "classes": table.clusters, **row}
                    for row in table.rows()
                    if not binned or row["metric"] == "nmi"
                ]
                if not binned:
                    of_clusters += [{**where, **row} for row in _cluster_rows(table)]
                    confusion += [{**where, **row} for row in _confusion_rows(table)]
        return {"clustering": scores, "clustering_labels": of_clusters, "clustering_confusion": confusion}

    def _labels(
        self, train_factors: Mapping[str, Tensor], factors: Mapping[str, Tensor], seed: int
    ) -> dict[str, tuple[Tensor, Tensor, bool]]:
        """``{factor: (training labels, test labels, whether they are bins)}``"""
        found = {}
        for name, values in factors.items():
            train, test = (as_factor(given, name=f"factors[{name!r}]").cpu() for given in (train_factors[name], values))
            for kind, given in (("training", train), ("test", test)):
                if bool((given == given[:1]).all()):
                    raise DataError(
                        f"clustering: factor {name!r} has one value in all {len(given)} {kind} images, so no clustering "
                        "can be told from another by it; leave it out"
                    )
            if train.is_floating_point():
                # So few training images may have fewer values than bins.
                count = min(self.bins, len(train.reshape(len(train), -1).unique(dim=0)))
                found[f"{name} ({count} bins)"] = (*_bins(train, test, count, seed), True)
            elif len(train.unique()) <= _MOST_LABELS:
                found[name] = (train, test, False)
        return found


def _check_length(block: str, factor: str, classes: Tensor, labels: Tensor) -> None:
    if len(classes) != len(labels):
        raise DataError(
            f"clustering: factor {factor!r} has {len(labels)} images and the classes of {block!r} have {len(classes)}; "
            "give one of each for each image"
        )


def _bins(train: Tensor, test: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    module = import_optional("sklearn.cluster", "clustering")
    known, new = (values.reshape(len(values), -1).numpy() for values in (train, test))
    fitted = module.KMeans(count, n_init=4, random_state=seed).fit(known)
    return torch.from_numpy(fitted.labels_).long(), torch.from_numpy(fitted.predict(new)).long()


def _cluster_rows(table: ClusteringTable) -> Rows:
    sizes = table.confusion.sum(0)
    return [
        {
            "cluster": cluster,
            "share": float(sizes[cluster] / sizes.sum()),
            "majority": table.majority.labels[cluster],
            "hungarian": table.hungarian.labels[cluster],
        }
        for cluster in table.arranged().tolist()
    ]


def _confusion_rows(table: ClusteringTable) -> Rows:
    return [
        {"label": table.labels[row], "cluster": cluster, "images": int(table.confusion[row, cluster])}
        for row, cluster in table.confusion.nonzero().tolist()
    ]
