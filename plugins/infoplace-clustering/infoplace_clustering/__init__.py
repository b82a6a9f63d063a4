"""Deep clustering methods as scikit-learn estimators, to compare a clustering by infoplace with.

:class:`DEC`, :class:`IMSAT` and :class:`ACOL` are the methods of Table 1 of "Explicit information placement on latent
variables using auxiliary generative modelling task"; :class:`PixelKMeans` is what each of them has to beat. None of them
reads a label. :func:`hog_features` gives vectors in place of pixels.
"""

from infoplace_clustering.acol import ACOL
from infoplace_clustering.dec import DEC
from infoplace_clustering.features import hog_features
from infoplace_clustering.imsat import IMSAT
from infoplace_clustering.kmeans import PixelKMeans

__version__ = "0.1.0"

__all__ = ["ACOL", "DEC", "IMSAT", "PixelKMeans", "hog_features"]
