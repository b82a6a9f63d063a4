"""Predictors of factors.

Images are ``[N, channels, height, width]``: uint8 (0..255) or float in [0, 1], everywhere and without exception.
"""

from infoplace.probes.images import (
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
