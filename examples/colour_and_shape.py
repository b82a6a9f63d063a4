"""Shape in one block and colour in another: grayscale as the transform, on rendered street numbers.

Grayscale destroys colour and leaves shape and brightness. The grey picture x_grey is modelled from z_shape alone, the picture x
from z_shape and z_colour. So z_shape takes what survives in grey; z_colour, whose KL divergence is dearer, is left with the
colour.

This is the recipe ``grayscale`` with smaller networks and 600 steps instead of 6,000. That is enough for the colours and the
brightness of the ground, which are learned first; digits take the recipe's whole time. Linear probes say how much of each can
be read off draws of each block, for held-out pictures: squared correlations, 0 for nothing and 1 for all of it.

Run it with ``python examples/colour_and_shape.py``; it takes 30 seconds of one core and renders its data itself. It printed:

              ground_chroma  ground_luminance
    z_shape   0.001          0.604
    z_colour  0.950          0.066
"""

from __future__ import annotations

import argparse

import torch

import infoplace as ip
from infoplace import metrics
from infoplace.data import load
from infoplace.evaluation import encodings

CARRIERS = {"ground_chroma": "z_colour", "ground_luminance": "z_shape"}
"""Which block should carry what. The chroma is two numbers, the luminance is one."""


def declare() -> ip.Partition:
    """x from both blocks, the grey picture from z_shape."""
    mixture = {"mixture": {"components": 30}}
    return ip.Partition(
        blocks={"z_shape": ip.Block(16, prior=mixture), "z_colour": ip.Block(4, prior=mixture, beta=8.0)},
        observations={
            "x": ip.Observation(),
            "x_grey": ip.Observation(blocks=("z_shape",), transform={"grayscale": {"channels": 1}}),
        },
    )


def main(steps: int = 600, size: int = 4000) -> metrics.PlacementTable:
    """Train, probe, and print the placement matrix.

    Args:
        steps: training steps.
        size: rendered training pictures; half as many are held out.
    """
    train, test = load("street_numbers/easy", "train", size=size), load("street_numbers/easy", "test", size=size // 2)
    torch.manual_seed(0)
    pair = ip.make_pair(declare(), train.shape, networks={"small": {"width": 32, "hidden": 128}})
    objective = ip.make_objective("beta_elbo", beta=10.0)
    ip.fit(pair, train, objective, steps=steps, batch_size=32, learning_rate=4e-3, device="cpu", progress=False)
    table = metrics.placement(
        encodings(pair, train, samples=True),
        {name: train.factors[name] for name in CARRIERS},
        encodings(pair, test, samples=True),
        {name: test.factors[name] for name in CARRIERS},
        probes=["linear"],
    )
    print(table)
    leaked = table.leakage(CARRIERS, "linear")
    print("in the wrong block, above the floor: " + ", ".join(f"{name} {leaked[name]:.3f}" for name in CARRIERS))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Shape in one block and colour in another.")
    parser.add_argument("--steps", type=int, default=600, help="training steps")
    main(parser.parse_args().steps)
