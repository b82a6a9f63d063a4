"""A training loop in plain Pyro: a pair's model and guide in ``pyro.infer.SVI``, and what Pyro does with them afterwards.

``pair.model`` and ``pair.guide`` are an ordinary Pyro model and guide, and an objective of infoplace is a ``pyro.infer.ELBO``. So
SVI takes them as they are, and takes Pyro's own ELBO as well: the last line of the table is ``TraceMeanField_ELBO``'s value for
the pair, which ``elbo`` has to agree with. Pyro's ``Predictive`` then draws pictures.

The data are rendered street numbers; the paper's partition puts global structure into z_g and colours into z_l.

Run it with ``python examples/pyro_svi.py``; it takes 15 seconds of one core and renders its data itself. It printed:

    nats a picture            before     after
    beta_elbo, beta 4        35459.6   28340.5
    elbo                     35428.4   28100.9
    TraceMeanField_ELBO      35428.4   28100.9
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
    """Train, and print three losses before and after, on 200 held-out pictures."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    train, test = load("street_numbers/easy", "train", size=size), load("street_numbers/easy", "test", size=200)
    partition = declare()
    pair = ip.make_pair(partition, train.shape, networks={"small": {"width": 32, "hidden": 128}})
    losses = {
        "beta_elbo, beta 4": ip.make_objective("beta_elbo", beta=4.0),
        "elbo": ip.make_objective("elbo"),
        "TraceMeanField_ELBO": pyro.infer.TraceMeanField_ELBO(),
    }
    optimiser = pyro.optim.ClippedAdam({"lr": 3e-3, "lrd": 0.1 ** (1 / steps)})  # to a tenth of the rate at the end
    svi = pyro.infer.SVI(pair.model, pair.guide, optimiser, loss=losses["beta_elbo, beta 4"])
    held_out = partition.observe(test.batch(torch.arange(len(test))))

    def values() -> dict[str, float]:
        found = {}
        for name, loss in losses.items():
            with torch.random.fork_rng(devices=[]):  # the same draws from the posterior for all three
                torch.manual_seed(1)
                measured = pyro.infer.SVI(pair.model, pair.guide, optimiser, loss=loss)
                found[name] = measured.evaluate_loss(held_out) / len(test)
        return found

    before = values()
    with pyro.validation_enabled(False):  # the line above checked the declaration and the data once
        for _ in range(steps):
            svi.step(partition.observe(train.batch(torch.randint(len(train), (32,)))))
    after = values()

    drawn = pyro.infer.Predictive(pyro.poutine.uncondition(pair.model), guide=pair.guide, num_samples=5)(held_out)
    print(f"{'nats a picture':22} {'before':>9} {'after':>9}")
    for name in after:
        print(f"{name:22} {before[name]:9.1f} {after[name]:9.1f}")
    print(f"posterior predictive draws of x: {list(drawn['x'].shape)}")
    return [before, after]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pair trained with pyro.infer.SVI.")
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    main(parser.parse_args().steps)
