"""A batch effect kept out of the latent variables, on simulated counts of gene expression.

Cells of four types were measured in three batches, and every batch changes how much of each gene is counted. A model of the
counts alone puts both into its latent variable z: what the cell is, and where it was measured. Told the batch as a covariate,
its encoder and its decoder need not keep it in z, and the KL divergence makes them drop it.

Counts are no grey values, so the file brings a likelihood of its own: a negative binomial, registered by name as one of a
plugin would be. Linear probes then read cell type and batch off z, for held-out cells, with the covariate and without.

Run it with ``python examples/batch_effect.py``; it takes 15 seconds of one core and needs no data.
Accuracy of the probes, where 0.27 and 0.35 are chance:

                 cell type  batch
    z, not told  0.998      0.995
    z, told      0.999      0.352
"""

from __future__ import annotations

import argparse

import torch
from pyro.distributions import NegativeBinomial
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

import infoplace as ip
from infoplace import metrics

GENES, TYPES, BATCHES = 50, 4, 3


@ip.register_likelihood("negative_binomial")
class CountLikelihood(ip.Likelihood):
    """Counts 0, 1, 2, ... as floats, with more spread than a Poisson; the raw numbers are log mean and log dispersion."""

    @property
    def parameters_per_value(self) -> int:
        return 2

    def distribution(self, raw: Tensor, dim: int) -> TorchDistributionMixin:
        mean, dispersion = raw.clamp(-8, 8).unbind(dim)  # the log of a mean between 0.0003 and 3000
        return NegativeBinomial(dispersion.exp(), logits=mean - dispersion)

    def encode(self, x: Tensor, data_shape: tuple[int, ...]) -> Tensor:
        """Encoders read the logarithm, whose size does not hang on how much a gene is expressed."""
        return x.log1p()

    def round(self, x: Tensor) -> Tensor:
        return x.round().clamp(min=0)

    def check(self, x: Tensor, name: str) -> None:
        super().check(x, name)
        if (x < 0).any() or (x != x.round()).any():
            raise ip.DataError(
                f"{name}: counts are 0, 1, 2, ...; got {x.min():g} to {x.max():g}, not all of them whole"
            )


def simulate(cells: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Counts `[cells, genes]`, cell types and batches `[cells]`; the first draws, which set the truth, are always the same."""
    truth = torch.Generator().manual_seed(0)
    level = 1.5 + torch.randn(GENES, generator=truth)
    of_type = 0.7 * torch.randn(TYPES, GENES, generator=truth)
    of_batch = 0.5 * torch.randn(BATCHES, GENES, generator=truth)
    kind = torch.randint(TYPES, (cells,), generator=generator)
    batch = torch.randint(BATCHES, (cells,), generator=generator)
    depth = 0.2 * torch.randn(cells, 1, generator=generator)
    mean = (level + of_type[kind] + of_batch[batch] + depth).exp()
    # A Poisson around the mean of five squares of normals has a variance above its mean, as counts of genes do.
    spread = torch.randn(5, cells, GENES, generator=generator).square().mean(0)
    return torch.poisson(mean * spread, generator=generator), kind, batch


def declare(told: bool) -> ip.Partition:
    """One block z; told the batch or not."""
    return ip.Partition(
        blocks={"z": ip.Block(8)},
        observations={"x": ip.Observation(likelihood="negative_binomial")},
        covariates={"batch": ip.Covariate(classes=BATCHES)} if told else {},
    )


def codes(told: bool, steps: int, train: dict[str, Tensor], test: dict[str, Tensor]) -> list[Tensor]:
    """Train a pair, and give the posterior means of both sets, `[cells, 8]`."""
    partition = declare(told)
    torch.manual_seed(0)
    pair = ip.make_pair(partition, (GENES,), networks={"small": {"hidden": 64}})
    sets = [{name: part[name] for name in partition.sources} for part in (train, test)]
    ip.fit(pair, sets[0], "elbo", steps=steps, batch_size=128, learning_rate=4e-3, device="cpu", progress=False)
    with torch.no_grad():
        return [pair.encode(partition.observe(part))["z"].mean for part in sets]


def main(steps: int = 600, cells: int = 3000) -> metrics.PlacementTable:
    """Train both pairs on ``cells`` cells, probe them on half as many others, and print the table."""
    generator = torch.Generator().manual_seed(1)
    (x, kind, batch), (held_x, held_kind, held_batch) = (simulate(count, generator) for count in (cells, cells // 2))
    train, test = {"x": x, "batch": batch}, {"x": held_x, "batch": held_batch}
    both = {("told" if told else "not told"): codes(told, steps, train, test) for told in (False, True)}
    table = metrics.placement(
        {f"z, {name}": pair[0] for name, pair in both.items()},
        {"cell type": kind, "batch": batch},
        {f"z, {name}": pair[1] for name, pair in both.items()},
        {"cell type": held_kind, "batch": held_batch},
        probes=["linear"],
    )
    print(table)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A batch effect kept out of the latent variables.")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each of the two pairs")
    main(parser.parse_args().steps)
