"""How many times faster `patch_shuffle` is than kornia's `RandomJigsaw` with every image shuffled.

    python benchmarks/patch_shuffle.py

Both cut 32 x 32 colour images into 4 x 4 patches of 8 x 8 pixels. They are timed in turn, one round after the other, with
torch's default number of threads. kornia takes no uint8, so its conversion to float and back counts there; the pixels are
only moved, so that conversion is a plain cast each way.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import kornia
import torch
from torch import Tensor

import infoplace.transforms as transforms

CASES = (
    # images, type, rounds, calls in a round
    (128, torch.float32, 100, 4),
    (4096, torch.float32, 25, 1),
    (4096, torch.uint8, 25, 1),
)
SHAPE, N = (3, 32, 32), 8


def seconds(function: Callable[[Tensor], Tensor], x: Tensor, calls: int) -> float:
    """The mean time of a call."""
    start = time.perf_counter()
    for _ in range(calls):
        function(x)
    return (time.perf_counter() - start) / calls


def measure() -> list[dict[str, Any]]:
    """One claim for each case: the median over rounds of kornia's time over ours."""
    shuffle = transforms.make_transform("patch_shuffle", n=N)
    jigsaw = kornia.augmentation.RandomJigsaw(grid=(SHAPE[1] // N, SHAPE[2] // N), p=1.0)

    def converted_jigsaw(x: Tensor) -> Tensor:
        return jigsaw(x.float()).to(torch.uint8)

    claims = []
    for images, dtype, rounds, calls in CASES:
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (images, *SHAPE), dtype=torch.uint8, generator=generator)
        if dtype.is_floating_point:
            x = x.to(dtype) / 255
        theirs: Callable[[Tensor], Tensor] = converted_jigsaw if dtype == torch.uint8 else jigsaw
        seconds(shuffle, x, 3)
        seconds(theirs, x, 3)
        times = [(seconds(shuffle, x, calls), seconds(theirs, x, calls)) for _ in range(rounds)]
        ratios = [kornia_time / own_time for own_time, kornia_time in times]
        claims.append(
            {
                "name": f"patch_shuffle_speedup_{images}_{str(dtype).removeprefix('torch.')}",
                "value": statistics.median(ratios),
                "spread": statistics.stdev(ratios),
                "runs": rounds,
                "unit": "times",
                "goal": ">=2",
                "context": {
                    "against": f"kornia {kornia.__version__} RandomJigsaw(grid=(4, 4), p=1.0)",
                    "shape": [images, *SHAPE],
                    "n": N,
                    "milliseconds": 1e3 * statistics.median(own for own, _ in times),
                    "kornia_milliseconds": 1e3 * statistics.median(kornia_time for _, kornia_time in times),
                    "threads": torch.get_num_threads(),
                },
            }
        )
    return claims


def main() -> None:
    """Measure and print a table."""
    print(f"{'claim':<38}{'patch_shuffle':>14}{'RandomJigsaw':>14}{'times faster':>14}{'spread':>9}")
    for claim in measure():
        context = claim["context"]
        print(
            f"{claim['name']:<38}{context['milliseconds']:>11.2f} ms{context['kornia_milliseconds']:>11.2f} ms"
            f"{claim['value']:>14.2f}{claim['spread']:>9.2f}"
        )


if __name__ == "__main__":
    main()
