"""Objectives: what stochastic variational inference minimises, built from named terms.

An :class:`Objective` is a ``pyro.infer.ELBO``. It is the ``loss`` of a ``pyro.infer.SVI``; called with a model and a
guide it is an ``nn.Module`` for any torch optimiser; and :meth:`Objective.terms` says what the loss is made of. Sites are
known by name only, so any Pyro model and guide will do. Every loss and term is in nats, summed over the batch and averaged
over particles.

>>> import pyro, torch
>>> import pyro.distributions as dist
>>> class Model(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.decode = torch.nn.Linear(2, 3)
...     def forward(self, x):
...         pyro.module("decoder", self)
...         with pyro.plate("batch", len(x)):
...             z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
...             pyro.sample("x", dist.Normal(self.decode(z), 1.0).to_event(1), obs=x)
>>> class Guide(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.encode = torch.nn.Linear(3, 2)
...     def forward(self, x):
...         pyro.module("encoder", self)
...         with pyro.plate("batch", len(x)):
...             pyro.sample("z", dist.Normal(self.encode(x), 1.0).to_event(1))
>>> model, guide, x = Model(), Guide(), torch.randn(5, 3)
>>> objective = make_objective("beta_elbo", beta=4.0, warmup=100)
>>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective)
>>> isinstance(svi.step(x), float)
True
>>> sorted(objective.terms(model, guide, x))
['kl/z', 'log_likelihood/x', 'loss']
>>> loss = objective(model, guide)
>>> optimiser = torch.optim.Adam(loss.parameters(), lr=1e-3)
>>> loss(x).backward()
>>> optimiser.step()

Objectives add and scale; the sum runs the model and the guide once:

>>> (make_objective("elbo") + 0.5 * make_objective("free_bits", nats=2.0)).to_spec()["sum"]["weights"]
[1.0, 0.5]
"""

from infoplace.errors import is_finite, is_whole
from infoplace.evidence import Evidence, Latent, Observed, Pass, Term
from infoplace.objectives.agreement import Agreement, Balance
from infoplace.objectives.base import (
    Objective,
    ObjectiveModule,
    WeightedSum,
    amount,
    check,
    describe_objective,
    label,
    list_objectives,
    make_objective,
    register_objective,
)
from infoplace.objectives.bounds import BetaElbo, Capacity, Elbo, FreeBits

__all__ = [
    "Agreement",
    "Balance",
    "BetaElbo",
    "Capacity",
    "Elbo",
    "Evidence",
    "FreeBits",
    "Latent",
    "Objective",
    "ObjectiveModule",
    "Observed",
    "Pass",
    "Term",
    "WeightedSum",
    "amount",
    "check",
    "describe_objective",
    "is_finite",
    "is_whole",
    "label",
    "list_objectives",
    "make_objective",
    "register_objective",
]
