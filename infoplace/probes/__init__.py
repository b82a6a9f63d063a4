"""Predictors of factors: from images, which say what a generated image shows, and from frozen latents.

- :func:`predictor_for` trains a predictor of any factor of a set of images and keeps it; :func:`train_classifier` and
  :func:`train_regressor` are what it calls.
- :func:`fit_probes` fits linear probes and small MLPs on latents, many at once.

Images are ``[N, channels, height, width]``: uint8 (0..255) or float in [0, 1], everywhere and without exception.
"""

from infoplace.probes.cache import LabelledImages, cache_folder, predictor_for
from infoplace.probes.images import (
    AUGMENTATIONS,
    NETWORKS,
    Classifier,
    Predictor,
    Regressor,
    accuracy,
    check_images,
    load_predictor,
    squared_correlation,
    train_classifier,
    train_regressor,
)
from infoplace.probes.latents import LATENT_PROBES, LatentProbes, fit_probes

__all__ = [
    "AUGMENTATIONS",
    "LATENT_PROBES",
    "NETWORKS",
    "Classifier",
    "LabelledImages",
    "LatentProbes",
    "Predictor",
    "Regressor",
    "accuracy",
    "cache_folder",
    "check_images",
    "fit_probes",
    "load_predictor",
    "predictor_for",
    "squared_correlation",
    "train_classifier",
    "train_regressor",
]
