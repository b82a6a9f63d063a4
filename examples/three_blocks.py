"""Two auxiliary observations and three blocks at once: the recipe ``three_blocks``, cut short.

Shuffling patches destroys the layout; shuffling and grayscale also destroy the colour. Each observation hangs on one block more,
and that block takes what the last transform destroyed: z_texture what is left at the end, z_colour the colour, z_layout the rest.

The recipe takes 5,000 steps; here are 500, with smaller networks and fewer pictures. That is enough for the ground's colour and
brightness to come to their blocks, and too few for them to leave the others, or for the digits. Linear probes on draws of each
block, for held-out pictures, give squared correlations.

Run it with ``python examples/three_blocks.py``; it takes 35 seconds of one core and renders its data itself. It printed:

               ground_chroma  ground_luminance
    z_layout   0.513          0.356
    z_colour   0.994          0.525
    z_texture  0.000          0.604
"""

from __future__ import annotations

import argparse
import dataclasses

import torch

import infoplace as ip
from infoplace import metrics
from infoplace.data import load
from infoplace.evaluation import encodings
from infoplace.recipe import shipped_recipes

CARRIERS = {"ground_chroma": "z_colour", "ground_luminance": "z_texture"}
"""As in the recipe."""


def main(steps: int = 500, size: int = 4000) -> metrics.PlacementTable:
    """Train, probe, and print the placement matrix.

    Args:
        steps: training steps.
        size: rendered training pictures; half as many are held out.
    """
    recipe = ip.load_recipe(shipped_recipes()["three_blocks"])
    train, test = load(str(recipe.data), "train", size=size), load(str(recipe.data), "test", size=size // 2)
    torch.manual_seed(0)
    pair = ip.make_pair(recipe.partition, train.shape, networks={"small": {"width": 32, "hidden": 128}})
    settings = dataclasses.replace(recipe.settings, steps=steps)
    ip.fit(pair, train, recipe.objective, settings, device="cpu", progress=False)
    table = metrics.placement(
        encodings(pair, train, samples=True),
        {name: train.factors[name] for name in CARRIERS},
        encodings(pair, test, samples=True),
        {name: test.factors[name] for name in CARRIERS},
        probes=["linear"],
    )
    print(table)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Three blocks, two auxiliary observations.")
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    main(parser.parse_args().steps)
