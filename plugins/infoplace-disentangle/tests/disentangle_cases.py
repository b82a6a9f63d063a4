"""A small Pyro model and guide with two blocks, what they drew as numpy arrays, and formulas written as loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

BATCH, DIMS, INPUTS = 6, {"a": 2, "b": 3}, 4


@pytest.fixture(autouse=True)
def float64_and_a_clean_store() -> Iterator[None]:
    """Every test in float64, from seed 0, with no parameters of Pyro's from before."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(before)
    pyro.clear_param_store()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Model(nn.Module):
    """Two blocks and one observation, a linear function of both."""

    def __init__(self, beta: dict[str, float] | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.decode = nn.Parameter(torch.randn(sum(DIMS.values()), INPUTS, generator=generator(1)))
        self.beta, self.scale = beta or {}, scale

    def forward(self, x: Tensor) -> None:
        pyro.module("model", self)
        with pyro.plate("batch", len(x), dim=-1), poutine.scale(scale=self.scale):
            drawn = [
                pyro.sample(
                    name, dist.Normal(torch.zeros(size), 1.5).to_event(1), infer={"beta": self.beta.get(name, 1.0)}
                )
                for name, size in DIMS.items()
            ]
            pyro.sample("x", dist.Normal(torch.cat(drawn, -1) @ self.decode, 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    """Normal posteriors, linear in the data; ``kind`` says as what distribution."""

    def __init__(self, kind: str = "independent", scale: float = 1.0) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.encode = nn.ParameterDict(
            {name: torch.randn(INPUTS, size, generator=generator(2)) for name, size in DIMS.items()}
        )
        self.widths = nn.ParameterDict(
            {name: -0.5 + 0.3 * torch.randn(INPUTS, size, generator=generator(3)) for name, size in DIMS.items()}
        )
        self.mix = nn.ParameterDict(
            {name: 0.4 * torch.randn(size, size, generator=generator(4)) for name, size in DIMS.items()}
        )

    def posterior(self, name: str, x: Tensor) -> Any:
        mean, scale = x @ self.encode[name], 0.2 + (x @ self.widths[name]).sigmoid()
        if self.kind == "independent":
            return dist.Normal(mean, scale).to_event(1)
        tril = torch.diag_embed(scale)
        if self.kind == "correlated":
            tril = tril + self.mix[name].tril(-1)
        return dist.MultivariateNormal(mean, scale_tril=tril)

    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        with pyro.plate("batch", len(x), dim=-1), poutine.scale(scale=self.scale):
            for name in DIMS:
                pyro.sample(name, self.posterior(name, x))


def data(count: int = BATCH, seed: int = 5) -> Tensor:
    return torch.randn(count, INPUTS, generator=generator(seed))


def run(objective: Any, model: Any, guide: Any, x: Any, seed: int = 7) -> dict[str, float]:
    """The objective's terms from a seed."""
    pyro.set_rng_seed(seed)
    return {name: float(value) for name, value in objective.terms(model, guide, x).items()}


def drawn(guide: Any, x: Tensor, seed: int = 7, particles: int = 1, vectorised: bool = False) -> list[dict[str, Any]]:
    """What an objective's runs of the guide from that seed drew: each block's code and the posterior's mean and scale."""
    pyro.set_rng_seed(seed)
    runs = 1 if vectorised else particles
    many = pyro.plate("particles", particles, dim=-2)(guide) if vectorised else guide
    found = []
    for _ in range(runs):
        nodes = poutine.trace(many).get_trace(x).nodes
        for particle in range(particles if vectorised else 1):
            one = {}
            for name in DIMS:
                q, z = nodes[name]["fn"], nodes[name]["value"]
                parts = [part[particle] if vectorised else part for part in (z, q.mean, q.variance.sqrt())]
                one[name] = tuple(part.detach().numpy() for part in parts)
            found.append(one)
    return found


def normal_log_density(value: float, mean: float, scale: float) -> float:
    return -0.5 * ((value - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def directional_check(objective: Any, model: nn.Module, guide: nn.Module, x: Tensor, seed: int = 7) -> None:
    """The loss's gradient in the guide's and the model's weights, from one seed, against central differences."""
    parameters = [*guide.parameters(), *model.parameters()]
    rng = np.random.default_rng(0)
    directions = [torch.from_numpy(rng.standard_normal(tuple(one.shape))) for one in parameters]

    def loss() -> Tensor:
        pyro.set_rng_seed(seed)
        return objective.differentiable_loss(model, guide, x)

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    ours = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)

    def moved(step: float) -> float:
        with torch.no_grad():
            for one, direction in zip(parameters, directions, strict=True):
                one += step * direction
            value = float(loss())
            for one, direction in zip(parameters, directions, strict=True):
                one -= step * direction
        return value

    step = 1e-6
    assert ours == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-5)
