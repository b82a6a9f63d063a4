"""Numbers that say where information went.

- The swap test (:func:`swap`): change one block, decode, and read every factor off the image.
- The placement matrix (:func:`placement`): read every factor off every block with probes, beside their controls.
- The model itself: :func:`block_kl` bounds what a block knows, :func:`bits_per_dim` how well an observation is explained.
- Scores of the literature over all dimensions: :func:`mig`, :func:`dci`, :func:`sap`.
- Clusters against labels (:func:`clustering`): majority and Hungarian accuracy by a mapping fitted on training data, NMI,
  ARI, calibration.
- Scores: :func:`accuracy`, :func:`squared_correlation`, :func:`partial_squared_correlation`, and what they are compared
  with, :func:`chance` and :func:`normalised`.
- Metrics by name, for ``infoplace evaluate`` and for plugins: :class:`Metric`, :func:`register_metric`.

Nothing here knows how the latents were made: blocks are named tensors, decoders and priors are callables, and a model is any
Pyro model.
"""

from infoplace.metrics.clustering import ClusteringTable, ClusterMap, clustering, fit_mapping
from infoplace.metrics.disentanglement import CodeScores, dci, mig, sap
from infoplace.metrics.kinds import (
    LackingError,
    Metric,
    Subject,
    Tables,
    describe_metric,
    list_metrics,
    make_metric,
    register_metric,
)
from infoplace.metrics.likelihood import Bound, KLTable, bits_per_dim, block_kl
from infoplace.metrics.placing import PlacementTable, placement
from infoplace.metrics.scores import accuracy, chance, normalised, partial_squared_correlation, squared_correlation
from infoplace.metrics.swapping import CHANGES, Decode, DrawPrior, ReadsFactor, SwapTable, swap

__all__ = [
    "CHANGES",
    "Bound",
    "ClusterMap",
    "ClusteringTable",
    "CodeScores",
    "Decode",
    "DrawPrior",
    "KLTable",
    "LackingError",
    "Metric",
    "PlacementTable",
    "ReadsFactor",
    "Subject",
    "SwapTable",
    "Tables",
    "accuracy",
    "bits_per_dim",
    "block_kl",
    "chance",
    "clustering",
    "dci",
    "describe_metric",
    "fit_mapping",
    "list_metrics",
    "make_metric",
    "mig",
    "normalised",
    "partial_squared_correlation",
    "placement",
    "register_metric",
    "sap",
    "squared_correlation",
    "swap",
]
