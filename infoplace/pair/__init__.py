"""A partition and networks make a pair: a Pyro model and its guide, and what people do with them."""

from infoplace.pair.modules import check_observations
from infoplace.pair.pair import Pair, load_pair, make_pair
from infoplace.pair.tensors import load_tensors, resolve_device, seeded, tensors_of

__all__ = [
    "Pair",
    "check_observations",
    "load_pair",
    "load_tensors",
    "make_pair",
    "resolve_device",
    "seeded",
    "tensors_of",
]
