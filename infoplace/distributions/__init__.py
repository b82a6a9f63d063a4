"""Likelihoods and priors, and the distributions behind them.

:class:`DiscretizedLogistic` and :class:`DiscretizedLogisticMixture` are ordinary Pyro distributions over grey values. A
:class:`Likelihood` turns a decoder's raw output into a distribution over the data; a :class:`Prior` builds the module that
gives a block's prior. Both have names, which :func:`make_likelihood` and :func:`make_prior` look up.
"""

from infoplace.distributions.flows import FlowPrior
from infoplace.distributions.grey import DiscretizedLogistic, DiscretizedLogisticMixture
from infoplace.distributions.likelihoods import (
    Likelihood,
    describe_likelihood,
    list_likelihoods,
    make_likelihood,
    register_likelihood,
)
from infoplace.distributions.mixtures import GumbelSoftmax, MixturePrior, StraightThroughGumbelSoftmax
from infoplace.distributions.priors import BlockEncoder, Prior, describe_prior, list_priors, make_prior, register_prior
from infoplace.distributions.vamp import VampPrior

__all__ = [
    "BlockEncoder",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "FlowPrior",
    "GumbelSoftmax",
    "Likelihood",
    "MixturePrior",
    "Prior",
    "StraightThroughGumbelSoftmax",
    "VampPrior",
    "describe_likelihood",
    "describe_prior",
    "list_likelihoods",
    "list_priors",
    "make_likelihood",
    "make_prior",
    "register_likelihood",
    "register_prior",
]
