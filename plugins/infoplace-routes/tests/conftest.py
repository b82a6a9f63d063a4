"""The networks under their names, as the entry points of an installed package bring them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import infoplace as ip
import pyro
import pytest
import torch

from infoplace_routes import Clamped, Ladder, PixelCNN


@pytest.fixture(autouse=True)
def _named() -> Iterator[None]:
    for name, network in {"ladder": Ladder, "pixelcnn": PixelCNN, "clamped": Clamped}.items():
        ip.register_network(name, network, overwrite=True)
    pyro.clear_param_store()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def two_blocks() -> ip.Partition:
    return ip.Partition({"z_l": ip.Block(3), "z_g": ip.Block(5)}, {"x": ip.Observation()})


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(1)) / 255


def steps_of_svi(pair: ip.Pair, batch: torch.Tensor, steps: int = 12) -> list[float]:
    """The losses of a few steps on one batch."""
    svi = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 3e-3}), loss=ip.make_objective("elbo"))
    observations = pair.partition.observe(batch)
    return [svi.step(observations) for _ in range(steps)]


@pytest.fixture
def descend():
    return steps_of_svi


@pytest.fixture
def refuses():
    @contextmanager
    def check(*parts: str, kind: type[Exception] = ip.DeclarationError) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        message = str(caught.value)
        assert all(part in message for part in parts), message
        assert "\n" not in message

    return check
