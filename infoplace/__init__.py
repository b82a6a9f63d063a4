"""infoplace: decide which latent variable of a generative model carries which information, and prove that it went there.

Declare blocks of latent variables and the observations that hang on them (:class:`Partition`), make a Pyro model and
guide of it (:func:`make_pair`), and train them in any loop.
"""

from infoplace import agreement as agreement
from infoplace.adapters import from_callable, from_kornia, from_torchvision
from infoplace.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Likelihood,
    Prior,
    describe_likelihood,
    describe_prior,
    list_likelihoods,
    list_priors,
    make_likelihood,
    make_prior,
    register_likelihood,
    register_prior,
)
from infoplace.errors import (
    DataError,
    DeclarationError,
    InfoplaceError,
    PluginError,
    RunFolderError,
    TrainingError,
    UnknownNameError,
)
from infoplace.metrics import Metric, describe_metric, list_metrics, make_metric, register_metric
from infoplace.networks import Network, describe_network, list_networks, make_network, register_network
from infoplace.objectives import (
    Objective,
    describe_objective,
    list_objectives,
    make_objective,
    register_objective,
)
from infoplace.pair import Pair, load_pair, make_pair
from infoplace.partition import Block, Covariate, Observation, Partition
from infoplace.recipe import Recipe, Settings, load_recipe
from infoplace.step import CompiledLoss, compile
from infoplace.training import fit, train
from infoplace.transforms import (
    Transform,
    compose,
    describe_transform,
    list_transforms,
    make_transform,
    register_transform,
)

__version__ = "0.1.0"

__all__ = [
    "Block",
    "CompiledLoss",
    "Covariate",
    "DataError",
    "DeclarationError",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "InfoplaceError",
    "Likelihood",
    "Metric",
    "Network",
    "Objective",
    "Observation",
    "Pair",
    "Partition",
    "PluginError",
    "Prior",
    "Recipe",
    "RunFolderError",
    "Settings",
    "TrainingError",
    "Transform",
    "UnknownNameError",
    "compile",
    "compose",
    "describe_likelihood",
    "describe_metric",
    "describe_network",
    "describe_objective",
    "describe_prior",
    "describe_transform",
    "fit",
    "from_callable",
    "from_kornia",
    "from_torchvision",
    "list_likelihoods",
    "list_metrics",
    "list_networks",
    "list_objectives",
    "list_priors",
    "list_transforms",
    "load_pair",
    "load_recipe",
    "make_likelihood",
    "make_metric",
    "make_network",
    "make_objective",
    "make_pair",
    "make_prior",
    "make_transform",
    "register_likelihood",
    "register_metric",
    "register_network",
    "register_objective",
    "register_prior",
    "register_transform",
    "train",
]
