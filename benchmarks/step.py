"""A `beta_elbo` training step against the same networks and loss written by hand in plain PyTorch.

Run it alone (`python benchmarks/step.py`), or all speed claims with `python benchmarks/core_speed.py`. Both steps are the
loss of experiment 1 on 128 images of 3x32x32, its gradient and one AdamW update, eager, float32, on the CPU; they share
one set of networks and one log-probability, so they do the same arithmetic. The steps alternate in one process, and the
ratio of their medians is reported. Memory is the most that the step's own tensors take at one time, by torch's profiler.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.nn import functional as F

import infoplace as ip

BATCH, BETA, ROUNDS = 128, 20.0, 40


def make_steps() -> tuple[Callable[[], None], Callable[[], None]]:
    """The library's step and the hand-written one, on the same weights."""
    torch.manual_seed(0)
    partition = ip.Partition(
        blocks={"z_g": ip.Block(64), "z_l": ip.Block(64)},
        observations={
            "x": ip.Observation(blocks=("z_g", "z_l")),
            "x_hat": ip.Observation(blocks=("z_l",), transform={"patch_shuffle": {"n": 8}}),
        },
    )
    pair = ip.make_pair(partition, (3, 32, 32))
    observations = partition.observe(torch.randint(0, 256, (BATCH, 3, 32, 32)).float() / 255)
    module = ip.make_objective("beta_elbo", beta=BETA)(pair.model, pair.guide)

    def library_loss() -> Tensor:
        return module(observations)

    encode, decode = pair.guide.encoders, pair.model.decoders

    likelihood = ip.make_likelihood("discretized_logistic")

    def log_likelihood(raw: Tensor, x: Tensor) -> Tensor:
        # The library's own log-probability, a plain torch function: what is compared is all the rest.
        return likelihood(raw, (3, 32, 32)).log_prob(x).sum()

    def posterior(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = encode[name](x).chunk(2, dim=-1)
        scale = F.softplus(raw) + 1e-5
        kl = 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum()
        return mean + scale * torch.randn_like(mean), kl

    def hand_written_loss() -> Tensor:
        z_g, kl_g = posterior("z_g", observations["x"])
        z_l, kl_l = posterior("z_l", observations["x_hat"])
        evidence = log_likelihood(decode["x"](torch.cat([z_g, z_l], dim=-1)), observations["x"])
        evidence = evidence + log_likelihood(decode["x_hat"](z_l), observations["x_hat"])
        return BETA * (kl_g + kl_l) - evidence

    optimiser = torch.optim.AdamW(pair.parameters(), lr=1e-4)

    def step(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()

        return run

    torch.manual_seed(1)
    ours = float(library_loss().detach())
    torch.manual_seed(1)
    theirs = float(hand_written_loss().detach())
    if abs(ours - theirs) > 1e-4 * abs(theirs):
        raise SystemExit(f"the two losses differ, so their times say nothing: {ours} and {theirs}")
    return step(library_loss), step(hand_written_loss)


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_bytes(run: Callable[[], None]) -> int:
    """The most bytes of tensors alive at one time during a run, above those alive before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    alive = [event["args"] for event in sorted(events, key=lambda e: e.get("ts", 0)) if event.get("name") == "[memory]"]
    before = alive[0]["Total Allocated"] - alive[0]["Bytes"]
    return max(event["Total Allocated"] for event in alive) - before


def measure() -> list[dict[str, Any]]:
    """The claims `step_time_ratio` and `step_memory_ratio`."""
    ours, theirs = make_steps()
    with pyro.validation_enabled(False):
        for _ in range(5):
            ours(), theirs()
        times = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
        memory = peak_bytes(ours) / peak_bytes(theirs)
    ratios = [a / b for a, b in times]
    medians = [statistics.median(column) * 1e3 for column in zip(*times, strict=True)]
    print(f"step: infoplace {medians[0]:.1f} ms, by hand {medians[1]:.1f} ms, ratio {medians[0] / medians[1]:.3f}")
    print(f"memory of a step: ratio {memory:.3f}")
    context = {"batch": BATCH, "data": "3x32x32", "networks": "small", "mode": "eager, float32, CPU, validation off"}
    return [
        {
            "name": "step_time_ratio",
            "value": round(medians[0] / medians[1], 3),
            "spread": round(statistics.stdev(ratios), 3),
            "runs": ROUNDS,
            "unit": "times the hand-written step's",
            "goal": "<=1.20",
            "context": {**context, "infoplace_ms": round(medians[0], 1), "by_hand_ms": round(medians[1], 1)},
        },
        {
            "name": "step_memory_ratio",
            "value": round(memory, 3),
            "spread": 0.0,
            "runs": 1,
            "unit": "times the hand-written step's",
            "goal": "<=1.1",
            "context": context,
        },
    ]


if __name__ == "__main__":
    measure()
