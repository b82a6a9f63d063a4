"""A transform of your own in ten lines: registered, checked against the laws of transforms, and used in a partition by name.

``row_shuffle`` puts the rows of every picture in a random order: what stands above what is gone, and every row stays as it was.
The class says what it destroys and whether it is random; ``check_transform`` then tries every law that a transform has to keep
(same result for the same seed, samples apart, the input untouched, and so on) and names one that is broken.

In an installed package the class is the same, and an entry point in ``pyproject.toml`` takes the place of the import:

    [project.entry-points."infoplace.transforms"]
    row_shuffle = "my_package:RowShuffle"

Run it with ``python examples/plugin_in_ten_lines.py``; it takes 8 seconds of one core and renders its data itself. It printed
that the laws are kept, and four rows of the training's log, of which the last says, in nats a picture:

    step 100, loss 28161, log_likelihood/x -13434, log_likelihood/x_hat -14615, kl/z_order 53, kl/z_rows 59
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import infoplace as ip
from infoplace.data import load
from infoplace.testing import check_transform


@ip.register_transform("row_shuffle")
class RowShuffle(ip.Transform):
    """Puts the rows of every picture in a random order."""

    destroys = "what stands above what"
    stochastic = True
    axes = ("channels", "height", "width")

    def apply(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        device = x.device if generator is None else generator.device
        order = torch.rand(len(x), x.shape[-2], generator=generator, device=device).argsort(1).to(x.device)
        return x.gather(-2, order.view(len(x), *[1] * (x.ndim - 3), -1, 1).expand_as(x))


def main(steps: int = 100, size: int = 1000) -> list[dict[str, float]]:
    """Check the transform, and train a pair with it; returns the log."""
    check_transform("row_shuffle", shape=(3, 8, 8))
    print(f"row_shuffle keeps the laws; it destroys {ip.make_transform('row_shuffle').destroys}")
    partition = ip.Partition(
        blocks={"z_order": ip.Block(16), "z_rows": ip.Block(16)},
        observations={
            "x": ip.Observation(),
            "x_hat": ip.Observation(blocks=("z_rows",), transform="row_shuffle", redraw=True),
        },
    )
    train = load("street_numbers/easy", "train", size=size)
    torch.manual_seed(0)
    pair = ip.make_pair(partition, train.shape, networks={"small": {"width": 32, "hidden": 128}})
    settings = ip.Settings(steps=steps, batch_size=32, learning_rate=4e-3, log_every=max(1, steps // 4))
    log = ip.fit(pair, train, "elbo", settings, device="cpu", progress=False)
    columns = ("step", "loss", "log_likelihood/x", "log_likelihood/x_hat", "kl/z_order", "kl/z_rows")
    print("  ".join(f"{name:>20}" for name in columns))
    for row in log:
        print("  ".join(f"{row[name]:20.0f}" for name in columns))
    return log


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A transform of your own, registered, checked and used.")
    parser.add_argument("--steps", type=int, default=100, help="training steps")
    main(parser.parse_args().steps)
