"""Other routes to information placement, as networks for infoplace's partitions.

:class:`Ladder` places by depth (Zhao et al., 2017), :class:`PixelCNN` by what the decoder keeps for itself (Chen et al., 2016;
Gulrajani et al., 2016), :class:`Clamped` by batches in which one factor varies (Kulkarni et al., 2015). All three are discussed
in "Explicit information placement on latent variables using auxiliary generative modelling task", and are here to be
compared with it.
"""

from infoplace_routes.clamped import Clamped, ClampedBatch, ClampedEncoder, clamped_batches, varying
from infoplace_routes.ladder import Ladder
from infoplace_routes.pixelcnn import AutoregressiveLogistic, FieldNetwork, PixelCNN

__version__ = "0.1.0"

__all__ = [
    "AutoregressiveLogistic",
    "Clamped",
    "ClampedBatch",
    "ClampedEncoder",
    "FieldNetwork",
    "Ladder",
    "PixelCNN",
    "clamped_batches",
    "varying",
]
