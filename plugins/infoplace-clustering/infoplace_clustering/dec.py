"""Deep embedded clustering: an autoencoder's codes and the centres of clusters among them, sharpened together.

Source: Xie, Girshick and Farhadi, "Unsupervised deep embedding for clustering analysis" (2016). What the paper leaves open
(which values are dropped, how the loss is scaled) is taken from what the authors say of their own experiments there and in
their public code.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from infoplace.errors import DeclarationError
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from infoplace_clustering.base import (
    DeepClusterer,
    apply_batched,
    batches,
    check_number,
    check_whole,
    place,
    progress_over,
    record,
)

__all__ = ["DEC", "soft_assignment", "target_distribution"]

LEARNING_RATE_FACTOR = 0.1
"""What the autoencoder's learning rate is multiplied by at every drop."""
PRETRAINING = (
    "widths",
    "pretrain_steps",
    "finetune_steps",
    "pretrain_learning_rate",
    "learning_rate_drop",
    "dropout",
    "weight_scale",
    "momentum",
    "batch_size",
    "seed",
)
"""The parameters that the autoencoder hangs on."""


class DEC(TransformerMixin, DeepClusterer):
    """Deep embedded clustering (Xie et al., 2016).

    1. A stacked denoising autoencoder learns codes of the samples: layer by layer, each from the layer below with a share of
       its values dropped, then all layers end to end with nothing dropped.
    2. k-means finds the first centres `mu` among the codes `z`.
    3. Encoder and centres minimise `KL(P || Q)`, where `q_ij` is the soft assignment of sample i to cluster j
       (:func:`soft_assignment`) and `p_ij` its sharpened target (:func:`target_distribution`). The target is taken of the
       full set and renewed every ``update_interval`` steps, until fewer than ``tolerance`` of the labels change in between.

    Images are read as vectors. As in the paper, all numbers are multiplied by one factor, ``scale_``, after which
    `|x_i|^2 / d` is 1 on average over the samples given to :meth:`fit`, d being the numbers of a sample.

    Args:
        n_clusters: how many clusters there are.
        widths: the units of the encoder's layers, the last one being the code; the decoder mirrors them.
        pretrain_steps: how many steps each layer is trained for.
        finetune_steps: how many steps the whole autoencoder is trained for.
        pretrain_learning_rate: of the autoencoder, per layer and as a whole.
        learning_rate_drop: after how many steps each time the autoencoder's learning rate falls to a tenth.
        dropout: the share of values that is dropped while a layer is trained, in [0, 1).
        weight_scale: the standard deviation of the first weights.
        n_init: how many starts k-means has.
        learning_rate: of encoder and centres, in the third part.
        momentum: of stochastic gradient descent, in all parts.
        batch_size: how many samples a step reads.
        update_interval: how many steps there are between two targets.
        tolerance: the third part ends when less than this share of the labels changes between two targets.
        max_steps: the third part ends after so many steps in any case.
        memory: where the autoencoder is kept, a folder or a ``joblib.Memory``, as scikit-learn's ``memory``; a fit with the
            same samples and settings of the first part then begins with the second, whatever ``n_clusters`` is. None keeps
            nothing.
        seed: what the weights, the order of the samples, what is dropped and the starts of k-means are drawn from.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, or a ``torch.device``.
        progress: whether to show progress bars.

    Attributes:
        network_: the autoencoder, and its ``centres`` `[n_clusters, code]`.
        scale_: what the numbers are multiplied by.
        n_steps_: how many steps the third part took.
        history_: one row a pass over the data in the phases ``"layer 1"`` ... and ``"finetune"``, with half the mean squared
            error as ``loss``; one row a target in the phase ``"clustering"``, with the divergence in nats as ``loss`` and
            the share of labels that changed as ``changed``. Of an autoencoder that was kept, its rows are as they were.

    >>> dec = DEC(2, widths=(8, 2), pretrain_steps=20, finetune_steps=20, weight_scale=0.5, update_interval=10)
    >>> dec.fit_predict([[0.0, 1.0], [0.1, 1.0], [4.0, 0.0], [4.1, 0.0]]).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    """

    network_: _Network

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        widths: Sequence[int] = (500, 500, 2000, 10),
        pretrain_steps: int = 50_000,
        finetune_steps: int = 100_000,
        pretrain_learning_rate: float = 0.1,
        learning_rate_drop: int = 20_000,
        dropout: float = 0.2,
        weight_scale: float = 0.01,
        n_init: int = 20,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        batch_size: int = 256,
        update_interval: int = 160,
        tolerance: float = 0.001,
        max_steps: int = 100_000,
        memory: Any = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        progress: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.widths = widths
        self.pretrain_steps = pretrain_steps
        self.finetune_steps = finetune_steps
        self.pretrain_learning_rate = pretrain_learning_rate
        self.learning_rate_drop = learning_rate_drop
        self.dropout = dropout
        self.weight_scale = weight_scale
        self.n_init = n_init
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size
        self.update_interval = update_interval
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.memory = memory
        self.seed = seed
        self.device = device
        self.progress = progress

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803 (scikit-learn's name)
        """The codes `z`, float32 `[N, code]`, where ``code`` is the last of ``widths``.

        Args:
            X: as :meth:`fit` takes it, with as many numbers a sample.

        Raises:
            sklearn.exceptions.NotFittedError: nothing was learned yet.
            DataError: ``X`` is of another shape or range than in :meth:`fit`, or is not finite.
        """
        return self._apply(self._checked(X), self.network_.encode).numpy()

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803 (scikit-learn's name)
        """The soft assignments `q`, float32 `[N, n_clusters]`, each row of sum 1.

        Args:
            X: as :meth:`fit` takes it, with as many numbers a sample.

        Raises:
            sklearn.exceptions.NotFittedError: nothing was learned yet.
            DataError: ``X`` is of another shape or range than in :meth:`fit`, or is not finite.
        """
        return self._apply(self._checked(X), self.network_).numpy()

    def _check_parameters(self) -> None:
        if isinstance(self.widths, str) or not isinstance(self.widths, Sequence) or not self.widths:
            raise DeclarationError(
                f"widths must be the units of the encoder's layers, such as (500, 500, 2000, 10); got {self.widths!r}"
            )
        for index, width in enumerate(self.widths):
            check_whole(f"widths[{index}]", width, 1)
        for name in ("pretrain_steps", "finetune_steps"):
            check_whole(name, getattr(self, name), 0)
        for name in ("learning_rate_drop", "n_init", "batch_size", "update_interval", "max_steps"):
            check_whole(name, getattr(self, name), 1)
        for name in ("pretrain_learning_rate", "learning_rate", "weight_scale"):
            check_number(name, getattr(self, name), open_below=True)
        check_number("momentum", self.momentum, most=1, open_above=True)
        check_number("dropout", self.dropout, most=1, open_above=True)
        check_number("tolerance", self.tolerance, most=1, open_below=True)

    def _fit(self, x: Tensor, device: torch.device) -> None:
        mean_square = float(x.double().square().mean())
        self.scale_ = 1 / math.sqrt(mean_square) if mean_square else 1.0
        weights = self._remembered(PRETRAINING, x.numpy() * np.float32(self.scale_), device)
        x = place(x * self.scale_, device)
        network = _Network((x.shape[1], *self.widths), self.n_clusters, self.weight_scale).to(device)
        network.stack.load_state_dict(weights)
        self.network_ = network
        codes = apply_batched(network.encode, x, device)
        # Of several threads whichever is done first adds first, and the last bits of a centre depend on it.
        with threadpool_limits(1):
            found = KMeans(self.n_clusters, n_init=self.n_init, random_state=self.seed).fit(codes.numpy())
        with torch.no_grad():
            network.centres.copy_(torch.from_numpy(found.cluster_centers_))
        self._sharpen(x, network, torch.Generator().manual_seed(self.seed), device)

    def _learn(self, x: Tensor, device: torch.device) -> nn.Module:
        """The autoencoder of scaled samples."""
        network = _Network((x.shape[1], *self.widths), self.n_clusters, self.weight_scale).to(device)
        order = torch.Generator().manual_seed(self.seed)
        x = below = place(x, device)
        for number, layer in enumerate(network.layers(), start=1):
            restored = partial(layer.restored, dropout=self.dropout)
            self._restore(below, restored, layer.parameters(), self.pretrain_steps, f"layer {number}", order, device)
            below = place(apply_batched(layer.encode, below, device), device)
        weights = network.stack.parameters()
        self._restore(x, network.restored, weights, self.finetune_steps, "finetune", order, device)
        return network.stack

    def _restore(
        self,
        x: Tensor,
        restored: Callable[[Tensor], Tensor],
        weights: Iterator[nn.Parameter],
        steps: int,
        phase: str,
        order: torch.Generator,
        device: torch.device,
    ) -> None:
        """Learn weights with which ``restored(batch)`` is near the batch, in half the mean squared error."""
        optimiser = torch.optim.SGD(weights, lr=self.pretrain_learning_rate, momentum=self.momentum, fused=True)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, self.learning_rate_drop, LEARNING_RATE_FACTOR)
        stream = _forever(len(x), self.batch_size, order)
        epoch, seen, total, started = 1, 0, torch.zeros((), device=device), time.perf_counter()
        for step in progress_over(range(1, steps + 1), phase, self.progress):
            batch = x[next(stream).to(x.device)].to(device)
            loss = F.mse_loss(restored(batch), batch) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            seen += len(batch)
            total += loss.detach() * len(batch)
            if seen == len(x) or step == steps:
                record(self.history_, epoch, started, float(total) / seen, phase)
                epoch, seen, total, started = epoch + 1, 0, torch.zeros_like(total), time.perf_counter()

    def _sharpen(self, x: Tensor, network: _Network, order: torch.Generator, device: torch.device) -> None:
        """Learn encoder and centres from targets, until the labels stay as they are."""
        weights = [*network.encoder_parameters(), network.centres]
        optimiser = torch.optim.SGD(weights, lr=self.learning_rate, momentum=self.momentum, fused=True)
        stream = _forever(len(x), self.batch_size, order)
        assigned = apply_batched(network, x, device)
        self.n_steps_, rounds = 0, math.ceil(self.max_steps / self.update_interval)
        for number in progress_over(range(1, rounds + 1), "clustering", self.progress):
            target = target_distribution(assigned).to(device)
            seen, total, started = 0, torch.zeros((), device=device), time.perf_counter()
            for _ in range(min(self.update_interval, self.max_steps - self.n_steps_)):
                index = next(stream)
                wanted = target[index.to(device)]
                log_assigned = _log_assignment(network.encode(x[index.to(x.device)].to(device)), network.centres)
                loss = F.kl_div(log_assigned, wanted, reduction="batchmean")
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                self.n_steps_ += 1
                seen += len(index)
                total += loss.detach() * len(index)
            renewed = apply_batched(network, x, device)
            changed = float((renewed.argmax(1) != assigned.argmax(1)).float().mean())
            record(self.history_, number, started, float(total) / seen, "clustering", changed=changed)
            assigned = renewed
            if changed < self.tolerance:
                return
        warnings.warn(
            f"DEC took max_steps={self.max_steps} steps, and {changed:.2%} of the labels still changed after the last target "
            f"(tolerance={self.tolerance:g}); give it more max_steps, or a larger tolerance",
            ConvergenceWarning,
            stacklevel=4,
        )

    def _labels(self, x: Tensor) -> Tensor:
        return self._apply(x, self.network_).argmax(1)

    def _apply(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        device = self.network_.centres.device
        return apply_batched(lambda part: function(part * self.scale_), x, device)


def soft_assignment(codes: Tensor, centres: Tensor) -> Tensor:
    """How far each code belongs to each centre: Student's t distribution with one degree of freedom, normalised.

    `q_ij = (1 + |z_i - mu_j|^2)^-1 / sum_j' (1 + |z_i - mu_j'|^2)^-1`, equation 1 of Xie et al. (2016) with `alpha = 1`.

    Args:
        codes: `z`, `[N, code]`.
        centres: `mu`, `[n_clusters, code]`.

    Returns:
        `q`, `[N, n_clusters]`, each row of sum 1.

    >>> soft_assignment(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
    tensor([[0.8333, 0.1667],
            [0.5000, 0.5000]])
    """
    return _log_assignment(codes, centres).exp()


def target_distribution(assigned: Tensor) -> Tensor:
    """Soft assignments sharpened: squared, and weighted against large clusters.

    `p_ij = (q_ij^2 / f_j) / sum_j' (q_ij'^2 / f_j')` with the soft sizes `f_j = sum_i q_ij`, equation 3 of Xie et al. (2016).

    Args:
        assigned: `q` of the full set, `[N, n_clusters]`.

    Returns:
        `p`, `[N, n_clusters]`, each row of sum 1.

    >>> target_distribution(torch.tensor([[0.8, 0.2], [0.5, 0.5]]))
    tensor([[0.8960, 0.1040],
            [0.3500, 0.6500]])
    """
    weighted = assigned.square() / assigned.sum(0)
    return weighted / weighted.sum(1, keepdim=True)


def _log_assignment(codes: Tensor, centres: Tensor) -> Tensor:
    distances = (codes[:, None] - centres).square().sum(2)
    return torch.log_softmax(-torch.log1p(distances), 1)


def _dropped(values: Tensor, share: float) -> Tensor:
    """``F.dropout``, which on a CPU draws its mask at half this speed."""
    return values * torch.rand_like(values).ge_(share).mul_(1 / (1 - share))


def _forever(n: int, batch_size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Batches of one pass after another, each in an order of its own."""
    while True:
        yield from batches(n, batch_size, order)


class _Layer(nn.Module):
    """A layer of the encoder and its mirror image in the decoder.

    Both end in a ReLU, but for two: what the first layer restores are the samples, which may be negative, and what the last
    one makes is the code, which is to keep all it can.
    """

    def __init__(self, below: int, above: int, first: bool, last: bool, weight_scale: float) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.up, self.down = nn.Linear(below, above), nn.Linear(above, below)
        for linear in (self.up, self.down):
            nn.init.normal_(linear.weight, std=weight_scale)
            nn.init.zeros_(linear.bias)

    def encode(self, below: Tensor) -> Tensor:
        above = self.up(below)
        return above if self.last else F.relu(above)

    def decode(self, above: Tensor) -> Tensor:
        below = self.down(above)
        return below if self.first else F.relu(below)

    def restored(self, below: Tensor, dropout: float) -> Tensor:
        """What is made of the values below after a share of them, and of those above, was dropped; never of the code."""
        above = self.encode(_dropped(below, dropout))
        return self.decode(above if self.last else _dropped(above, dropout))


class _Network(nn.Module):
    """The autoencoder, and the centres of the clusters among its codes."""

    def __init__(self, widths: Sequence[int], n_clusters: int, weight_scale: float) -> None:
        super().__init__()
        last = len(widths) - 2
        self.stack = nn.ModuleList(
            _Layer(below, above, index == 0, index == last, weight_scale)
            for index, (below, above) in enumerate(pairwise(widths))
        )
        self.centres = nn.Parameter(torch.zeros(n_clusters, widths[-1]))

    def layers(self) -> list[_Layer]:
        return [cast(_Layer, layer) for layer in self.stack]

    def encode(self, x: Tensor) -> Tensor:
        """The codes, `[N, code]`."""
        for layer in self.layers():
            x = layer.encode(x)
        return x

    def restored(self, x: Tensor) -> Tensor:
        """What the decoder makes of the codes of ``x``, `[N, features]`."""
        z = self.encode(x)
        for layer in reversed(self.layers()):
            z = layer.decode(z)
        return z

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        for layer in self.layers():
            yield from layer.up.parameters()

    def forward(self, x: Tensor) -> Tensor:
        """The soft assignments, `[N, n_clusters]`."""
        return soft_assignment(self.encode(x), self.centres)
