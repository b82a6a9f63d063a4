"""A pair in a ``LightningModule``, trained by Lightning's ``Trainer``.

An objective on a pair is an ``nn.Module``, so it is an attribute of the LightningModule, and Lightning finds its parameters,
moves them to the device and saves them in checkpoints. The transform is drawn in ``training_step``, where the batch already is on
the device. ``infoplace.fit`` needs none of this; use it where a project trains everything with a Trainer already.

infoplace depends on Lightning Fabric alone. The Trainer comes with ``pip install lightning``.

Run it with ``python examples/lightning_trainer.py``; it takes 15 seconds of one core and renders its data itself. It printed:

    nats a picture            before     after
    log_likelihood/x        -17654.6  -12611.1
    log_likelihood/x_hat    -17826.5  -14793.8
    kl/z_g                       6.9      46.9
    kl/z_l                       3.5      29.1
    loss                     35522.7   27708.7
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import infoplace as ip
from infoplace.data import load

try:
    import lightning
except ImportError:
    sys.exit("this example needs Lightning's Trainer, which infoplace does not install; type: pip install lightning")


class Placed(lightning.LightningModule):
    """A pair and its loss."""

    def __init__(self, pair: ip.Pair, objective: ip.Objective) -> None:
        super().__init__()
        self.partition = pair.partition
        self.loss = objective(pair.model, pair.guide)

    def per_picture(self, x: Tensor) -> dict[str, Tensor]:
        """Every term in nats a picture; ``"loss"`` is what is minimised."""
        loss, terms = self.loss.evaluate(self.partition.observe(x))
        return {name: value / len(x) for name, value in {**terms, "loss": loss}.items()}

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        found = self.per_picture(batch[0])
        self.log_dict({name: value.detach() for name, value in found.items()})
        return found["loss"]

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.0)


def main(steps: int = 200, size: int = 2000) -> list[dict[str, float]]:
    """Train, and print every term before and after, on 200 held-out pictures."""
    lightning.seed_everything(0, verbose=False)
    train, test = load("street_numbers/easy", "train", size=size), load("street_numbers/easy", "test", size=200)
    partition = ip.Partition(
        blocks={"z_g": ip.Block(16), "z_l": ip.Block(8)},
        observations={
            "x": ip.Observation(),
            "x_hat": ip.Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 8}}),
        },
    )
    pair = ip.make_pair(partition, train.shape, networks={"small": {"width": 32, "hidden": 128}})
    module = Placed(pair, ip.make_objective("beta_elbo", beta=4.0))
    pictures = TensorDataset(train.batch(torch.arange(len(train))))
    held_out = test.batch(torch.arange(len(test)))

    def terms() -> dict[str, float]:
        with torch.no_grad():
            return {name: float(value) for name, value in module.eval().per_picture(held_out).items()}

    before = terms()
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pyro.validation_enabled(False):  # the line above checked the declaration and the data once
        trainer.fit(module.train(), DataLoader(pictures, batch_size=32, shuffle=True, drop_last=True))
    after = terms()

    print(f"{'nats a picture':22} {'before':>9} {'after':>9}")
    for name in after:
        print(f"{name:22} {before[name]:9.1f} {after[name]:9.1f}")
    return [before, after]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pair trained by Lightning's Trainer.")
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    main(parser.parse_args().steps)
