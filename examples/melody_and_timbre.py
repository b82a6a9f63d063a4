"""A melody in one latent block, what it is played on in the other: signals, placed by shuffling them in time.

The data are short synthetic melodies: the four notes of a broken chord in one of 24 orders, in one of three keys, played by
one of four instruments. Everything is known of them, so that what ends up where can be measured.

A likelihood compares two signals sample by sample, and where every partial begins at a phase of its own, hardly anything of a
melody can be explained that way. So each melody is turned into its spectrogram once: 64 frequencies by 16 times, four for
each note, in decibels. That is again a signal, of 64 channels and length 16.

``segment_shuffle`` cuts it into segments of a note's length and puts them in random order. The order of the notes, which is
the melody, is gone; the instrument and the key are in every segment. The shuffled signal x_hat is modelled from z_timbre
alone, and the melody itself, x, from both blocks. So z_timbre takes what survives the shuffling. z_melody, whose KL divergence
has a price, is left with what does not.

Then it is measured where everything went. Probes read each factor off each block (the placement matrix). And a block is
taken from another melody, both are decoded, and predictors say what is to be heard now (the swap test).

Run it with ``python examples/melody_and_timbre.py``. It needs the plugin infoplace-signals and no data, and takes three minutes
on one core. Accuracies of the small MLPs among the probes, of test melodies:

            melody  timbre  key
z_melody      1.00    0.31  0.32
z_timbre      0.04    1.00  1.00
chance        0.05    0.26  0.34
"""

from __future__ import annotations

import argparse
import time

import torch
from infoplace_signals import SignalData, melodies

import infoplace as ip
from infoplace import metrics, probes
from infoplace.evaluation import encodings

NOTE = 512
"""Samples in a note."""

FRAME = 128
"""Samples in a frame of the spectrogram."""

CARRIERS = {"melody": "z_melody", "timbre": "z_timbre", "key": "z_timbre"}
"""Which block should carry what."""

STEPS = 1500
SIZE = 8000

BETA = 8.0
"""The price of a nat in a block, from the first step on: what was free at first is written into both blocks, and stays."""

PROBED = 4000
"""Training melodies that the probes are fitted on."""


def spectrograms(size: int, split: str) -> SignalData:
    """Melodies as `[64, 16]` in bytes: a frequency is a channel, the loudness from -40 decibels up is the value."""
    # The test melodies of seed 0 were looked at while the settings were sought.
    sounds = melodies(size, seed=1 if split == "test" else 0, split=split, note_samples=NOTE)
    return sounds.transformed({"log_spectrogram": {"window": FRAME, "hop": FRAME, "decibels": 40}})


def declare() -> ip.Partition:
    """x from both blocks, the shuffled x_hat from z_timbre."""
    return ip.Partition(
        blocks={"z_melody": ip.Block(8), "z_timbre": ip.Block(8)},
        observations={
            "x": ip.Observation(blocks=("z_melody", "z_timbre")),
            "x_hat": ip.Observation(
                blocks=("z_timbre",), transform={"segment_shuffle": {"n": NOTE // FRAME}}, redraw=True
            ),
        },
    )


def placed(pair: ip.Pair, train: SignalData, test: SignalData) -> metrics.PlacementTable:
    """What probes read of every factor off draws from every block; beside it, what they read off an untrained pair's means."""
    known = train.subset(torch.arange(min(PROBED, len(train))))
    fresh = make_pair(pair.partition, test.shape, seed=1)
    return metrics.placement(
        encodings(pair, known, samples=True, seed=1),
        {name: known.factors[name] for name in CARRIERS},
        encodings(pair, test, samples=True),
        {name: test.factors[name] for name in CARRIERS},
        untrained=(encodings(fresh, known, seed=1), encodings(fresh, test)),
    )


def swapped(pair: ip.Pair, train: SignalData, test: SignalData, steps: int) -> metrics.SwapTable:
    """What is to be heard after a block was taken from another melody, by predictors of real training melodies.

    To a predictor a spectrogram is a grey image, `[1, 64, 16]`.
    """
    predictors = {
        name: probes.train_classifier(train.signals[:, None], train.factors[name], steps=steps, augment="noise")
        for name in CARRIERS
    }
    return metrics.swap(
        encodings(pair, test),
        decode=lambda blocks: pair.decode(blocks, "x").mean.clamp(0, 1)[:, None],
        prior=pair.sample_prior,
        images=test.signals[:, None],
        factors={name: test.factors[name] for name in CARRIERS},
        predictors=predictors,
        how=("other image",),
        generator=torch.Generator().manual_seed(0),
    )


def make_pair(partition: ip.Partition, shape: tuple[int, ...], seed: int) -> ip.Pair:
    """A pair whose first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ip.make_pair(partition, shape, networks={"conv1d": {"width": 64}})


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description="Place a melody in one latent block and its timbre in another.")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps; few of them show that it runs")
    parser.add_argument("--size", type=int, default=SIZE, help="melodies to train on")
    given = parser.parse_args(arguments)

    began = time.perf_counter()
    train, test = spectrograms(given.size, "train"), spectrograms(given.size // 4, "test")
    print(f"{len(train)} melodies to train on, {len(test)} to measure on, each {list(train.shape)}")
    pair = make_pair(declare(), train.shape, seed=0)
    objective = ip.make_objective("beta_elbo", beta=BETA)
    log = ip.fit(pair, train, objective, steps=given.steps, batch_size=64, learning_rate=2e-3, progress=False)
    for row in log[:: max(1, len(log) // 6)]:
        kl = ", ".join(f"{row[f'kl/{block}']:.1f} nats in {block}" for block in pair.partition.blocks)
        print(f"step {row['step']}: log p(x) {row['log_likelihood/x']:.0f} nats; {kl}")
    pair.to("cpu")
    print(f"trained after {time.perf_counter() - began:.0f} s")

    table = placed(pair, train, test)
    print("\nWhat probes read off each block (draws from the posteriors, test melodies):\n")
    print(table)
    leakage = table.leakage(CARRIERS)
    print("\nFound in the wrong block, 0 to 1: " + ", ".join(f"{name} {share:.2f}" for name, share in leakage.items()))

    heard = swapped(pair, train, test, max(10, given.steps // 5))
    print("\nWhat is to be heard after one block was taken from another melody:\n")
    print(heard)
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
