"""The laws that a transform, likelihood, prior, objective or pair must keep, as functions and as bases of tests.

:func:`check_transform` and the like try every law on one thing, and raise a :class:`LawError` that says which law is broken,
what was seen, and what to do. In a plugin's tests, a class makes one test of every law and every spec:

>>> from infoplace.testing import TransformLaws, check_transform
>>> class TestMine(TransformLaws):
...     specs = ["grayscale", {"patch_shuffle": {"n": 4}}]
>>> check_transform({"patch_shuffle": {"n": 4}})

Everything runs on the CPU, from seeds, and is compared with CUDA where torch finds a device. pytest is only needed by the
classes.
"""

from infoplace.testing.laws import LawError
from infoplace.testing.likelihoods import LikelihoodLaws, check_likelihood
from infoplace.testing.objectives import ObjectiveLaws, check_objective
from infoplace.testing.pairs import PairLaws, check_pair
from infoplace.testing.priors import PriorLaws, check_prior
from infoplace.testing.transforms import TransformLaws, check_transform

__all__ = [
    "LawError",
    "LikelihoodLaws",
    "ObjectiveLaws",
    "PairLaws",
    "PriorLaws",
    "TransformLaws",
    "check_likelihood",
    "check_objective",
    "check_pair",
    "check_prior",
    "check_transform",
]
