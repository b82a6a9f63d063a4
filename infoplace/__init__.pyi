"""The public names, and the module each comes from. ``__init__.py`` reads this file and imports a module when it is asked for."""

from . import distributions, metrics, networks, objectives, transforms
from .distributions import (
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
from .errors import (
    DataError,
    DeclarationError,
    InfoplaceError,
    PluginError,
    RunFolderError,
    TrainingError,
    UnknownNameError,
)
from .metrics import Metric, describe_metric, list_metrics, make_metric, register_metric
from .networks import Network, describe_network, list_networks, make_network, register_network
from .objectives import (
    Objective,
    describe_objective,
    list_objectives,
    make_objective,
    register_objective,
)
from .pair import Pair, load_pair, make_pair
from .partition import Block, Covariate, Observation, Partition
from .recipe import Recipe, Settings, load_recipe
from .step import CompiledLoss, compile
from .training import fit, train
from .transforms import (
    Transform,
    compose,
    describe_transform,
    from_callable,
    from_kornia,
    from_torchvision,
    list_transforms,
    make_transform,
    register_transform,
)

__version__: str

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
    "distributions",
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
    "metrics",
    "networks",
    "objectives",
    "register_likelihood",
    "register_metric",
    "register_network",
    "register_objective",
    "register_prior",
    "register_transform",
    "train",
    "transforms",
]
