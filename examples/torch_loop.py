"""A training loop in plain PyTorch: an objective on a pair is a module, and its value is the loss.

``objective(pair.model, pair.guide)`` is an ``nn.Module``: its parameters go into any optimiser, any learning-rate schedule and
``clip_grad_norm_``, and ``loss(obs)`` is a scalar to call ``backward()`` on. ``loss.evaluate(obs)`` gives the loss and every
named term from one run.

The data are rendered street numbers; the paper's partition puts global structure into z_g and colours into z_l.

Run it with ``python examples/torch_loop.py``; it takes 12 seconds of one core and renders its data itself. It printed:

    nats a picture            before     after
    log_likelihood/x        -17654.6  -12720.8
    log_likelihood/x_hat    -17826.5  -14842.1
    kl/z_g                       6.9      50.0
    kl/z_l                       3.5      30.7
    loss                     35522.7   27885.6
"""

from __future__ import annotations

import argparse

import pyro
import torch

import infoplace as ip
from infoplace.data import load


def declare() -> ip.Partition:
    """x from both blocks, the shuffled x_hat from z_l."""
    return ip.Partition(
        blocks={"z_g": ip.Block(16), "z_l": ip.Block(8)},
        observations={
            "x": ip.Observation(),
            "x_hat": ip.Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 8}}),
        },
    )


def main(steps: int = 200, size: int = 2000) -> list[dict[str, float]]:
    """Train, and print every term before and after, on 200 held-out pictures."""
    torch.manual_seed(0)
    train, test = load("street_numbers/easy", "train", size=size), load("street_numbers/easy", "test", size=200)
    partition = declare()
    pair = ip.make_pair(partition, train.shape, networks={"small": {"width": 32, "hidden": 128}})
    loss = ip.make_objective("beta_elbo", beta=4.0)(pair.model, pair.guide)
    optimiser = torch.optim.AdamW(loss.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    held_out = partition.observe(test.batch(torch.arange(len(test))))

    def terms() -> dict[str, float]:
        _, found = loss.eval().evaluate(held_out)
        loss.train()
        return {name: float(value) / len(test) for name, value in found.items()}

    before = terms()
    with pyro.validation_enabled(False):  # the line above checked the declaration and the data once
        for _ in range(steps):
            obs = partition.observe(train.batch(torch.randint(len(train), (32,))))
            optimiser.zero_grad()
            (loss(obs) / 32).backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 10_000.0)
            optimiser.step()
            schedule.step()
    after = terms()

    print(f"{'nats a picture':22} {'before':>9} {'after':>9}")
    for name in after:
        print(f"{name:22} {before[name]:9.1f} {after[name]:9.1f}")
    return [before, after]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pair trained in a plain PyTorch loop.")
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    main(parser.parse_args().steps)
