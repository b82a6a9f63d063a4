"""A model and a guide of your own in plain Pyro, with infoplace's objective and its measurements.

The data are rows of 12 numbers with a bump at one of six places, of some height. Sorting the numbers of a row destroys the
place and leaves the height. As in every placement, the sorted row x_hat is modelled from z_height alone and the row x from
z_place and z_height.

``make_pair`` draws every block's posterior apart. Here the guide is q(z_height | x_hat) q(z_place | x, z_height): what is to be
said of the place may depend on the height that was drawn. That takes a guide of one's own. The objective finds the sites by
their names and the beta on one of them, and ``placement`` takes plain tensors, so nothing else has to change.

Run it with ``python examples/own_guide.py``; it takes 15 seconds of one core and needs no data.
What small networks read off draws of each block, for held-out rows: accuracy of the place (0.19 is chance), squared correlation
of the height. Some of the height is in z_place, too.

              place  height
    z_place   0.984  0.311
    z_height  0.189  0.964
"""

from __future__ import annotations

import argparse

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import infoplace as ip
from infoplace import metrics

LENGTH, PLACES = 12, 6
Rows = dict[str, Tensor]


def rows(count: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """`[count, 12]`, and what is known of each: the place of its bump, 0 to 5, and its height, 0.3 to 1."""
    place = torch.randint(PLACES, (count,), generator=generator)
    height = 0.3 + 0.7 * torch.rand(count, generator=generator)
    distance = torch.arange(LENGTH) - (2 * place[:, None] + 0.5)
    bump = height[:, None] * torch.exp(-(distance.square()) / 2)
    return bump + 0.03 * torch.randn(count, LENGTH, generator=generator), {"place": place, "height": height}


def observe(x: Tensor) -> Rows:
    """The rows, and what is left of them without their order."""
    return {"x": x, "x_hat": x.sort(dim=1).values}


def layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, outputs))


class Model(nn.Module):
    """p(z_height) p(z_place) p(x_hat | z_height) p(x | z_place, z_height)."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.x_hat = layers(4 + 2, LENGTH), layers(2, LENGTH)

    def forward(self, obs: Rows) -> None:
        pyro.module("own_model", self)
        with pyro.plate("batch", len(obs["x"])):
            # In the order in which the guide draws them. The KL of z_place is dearer, so the height goes to z_height.
            z_height = pyro.sample("z_height", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z_place = pyro.sample("z_place", dist.Normal(torch.zeros(4), 1.0).to_event(1), infer={"beta": 4.0})
            x = self.x(torch.cat([z_place, z_height], dim=-1))
            pyro.sample("x", dist.Normal(x, 0.05).to_event(1), obs=obs["x"])
            pyro.sample("x_hat", dist.Normal(self.x_hat(z_height), 0.05).to_event(1), obs=obs["x_hat"])


class Guide(nn.Module):
    """q(z_height | x_hat) q(z_place | x, z_height)."""

    def __init__(self) -> None:
        super().__init__()
        self.height, self.place = layers(LENGTH, 4), layers(LENGTH + 2, 8)

    def forward(self, obs: Rows) -> tuple[Tensor, Tensor]:
        pyro.module("own_guide", self)
        with pyro.plate("batch", len(obs["x"])):
            mean, raw = self.height(obs["x_hat"]).chunk(2, dim=-1)
            z_height = pyro.sample("z_height", dist.Normal(mean, raw.clamp(-6, 6).exp()).to_event(1))
            mean, raw = self.place(torch.cat([obs["x"], z_height], dim=-1)).chunk(2, dim=-1)
            z_place = pyro.sample("z_place", dist.Normal(mean, raw.clamp(-6, 6).exp()).to_event(1))
        return z_place, z_height


def main(steps: int = 1000) -> metrics.PlacementTable:
    """Train, probe draws of the guide, and print the table."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    (x, known), (held_x, held) = rows(4000, generator), rows(1000, generator)
    model, guide = Model(), Guide()
    loss = ip.make_objective("beta_elbo", beta=1.0)(model, guide)
    optimiser = torch.optim.Adam(loss.parameters(), lr=2e-3)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,), generator=generator)]
        optimiser.zero_grad()
        loss(observe(batch)).backward()
        optimiser.step()
    with torch.no_grad():
        draws = [guide(observe(part)) for part in (x, held_x)]
    latents = [dict(zip(("z_place", "z_height"), draw, strict=True)) for draw in draws]
    table = metrics.placement(latents[0], known, latents[1], held, probes=["mlp"])
    print(table)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A model and a guide in plain Pyro, measured by infoplace.")
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    main(parser.parse_args().steps)
