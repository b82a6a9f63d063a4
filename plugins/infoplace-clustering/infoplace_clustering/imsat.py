"""IMSAT: a network whose clusters share the most information with the data and do not change under small perturbations.

The method of Hu, Miyato, Tokui, Matsumoto and Sugiyama, "Learning discrete representations via information maximizing
self-augmented training" (2017). A perceptron gives the probabilities `p(y|x)` of the clusters and is trained to minimise

    R + lambda [H(Y|X) - mu H(Y)],        R = mean over x of KL( p(y|x) || p(y|x + r) ),

where `H(Y|X)` is the mean entropy of `p(y|x)` and `H(Y)` the entropy of its mean, both over a batch: every sample shall
belong to one cluster, and the clusters shall be of one size. The perturbation `r` has a length of its own for every
sample: 0.25 times the distance to its 10th nearest neighbour. Its direction is the one that changes `p` most (virtual
adversarial training, VAT), or a random one (random perturbation training, RPT).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from infoplace.errors import DeclarationError, UnknownNameError, did_you_mean, join_names
from numpy.typing import NDArray
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

__all__ = [
    "IMSAT",
    "adversarial_direction",
    "information_terms",
    "neighbour_distances",
    "perturbation_loss",
    "random_direction",
]

REGULARISERS = ("vat", "rpt")

_ROWS, _COLUMNS = 2048, 8192
"""How many distances are held at once while neighbours are sought: 64 MiB."""

_OUTPUT_SCALE = 1e-4
_HIDDEN_SCALE = 0.1


class IMSAT(DeepClusterer):
    """Information maximizing self-augmented training (Hu et al., 2017).

    Settings are the published ones. What they leave open is done as in the authors' code: images come into the network in
    [-1, 1]; the perturbed passes normalise by the statistics of their own batch and leave the running averages of batch
    normalisation as they are; a last batch that is not full is left out. Weights are normal with a standard deviation of
    `s sqrt(2 / inputs)` (He et al., 2015), with that code's scales `s`: 0.1 in the hidden layers and 0.0001 in the last.

    Two things are this implementation's own. Vectors have their mean taken away and are divided by one number, after which
    the mean variance of a feature is 1: distances keep their proportions, and `xi` means the same at any scale. And the
    neighbour that sets the length of a perturbation is the 10th without the sample itself, as the paper has it (the
    authors' code takes the 11th).

    Args:
        n_clusters: how many clusters, 2 or more.
        regulariser: ``"vat"`` or ``"rpt"``.
        epochs: passes over the data.
        batch_size: samples a step, 2 or more. `H(Y)` is measured on a batch, so it should be many times ``n_clusters``.
        learning_rate: Adam's.
        hidden: the widths of the hidden layers, each followed by batch normalisation and a ReLU.
        information_weight: lambda.
        marginal_weight: mu.
        radius: the length of a perturbation, in units of the distance to the neighbour.
        neighbour: which neighbour that is; the last one where there are fewer.
        xi: the length of the step at which VAT takes its gradient, in units of the network's input.
        power_iterations: how often VAT refines its direction.
        seed: of the weights, the order of the samples and the directions.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: whether to show a progress bar.

    Attributes:
        labels_: the cluster of each sample that was learned from, int64 `[N]`.
        n_features_in_: how many numbers a sample has.
        history_: one dict an epoch: ``epoch``, ``loss``, its terms ``perturbation`` (R), ``conditional_entropy``
            (`H(Y|X)`) and ``marginal_entropy`` (`H(Y)`) in nats, and ``seconds``.
        network_: the trained network, from scaled samples `[N, features]` to logits `[N, n_clusters]`.

    Raises:
        DataError: from :meth:`fit`, data that cannot be clustered.
        DeclarationError: from :meth:`fit`, a parameter that cannot mean anything.

    Example:
        >>> x = np.repeat([[0.0, 0.0], [5.0, 5.0]], 20, axis=0) + np.linspace(0, 1, 40)[:, None]
        >>> found = IMSAT(n_clusters=2, hidden=(16,), epochs=20, batch_size=20, device="cpu").fit(x).labels_
        >>> found.shape, len(set(found.tolist()))
        ((40,), 2)
    """

    flatten = True

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        regulariser: str = "vat",
        epochs: int = 50,
        batch_size: int = 250,
        learning_rate: float = 0.002,
        hidden: Sequence[int] = (1200, 1200),
        information_weight: float = 0.1,
        marginal_weight: float = 4.0,
        radius: float = 0.25,
        neighbour: int = 10,
        xi: float = 10.0,
        power_iterations: int = 1,
        seed: int = 0,
        device: str | torch.device = "auto",
        progress: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.regulariser = regulariser
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.hidden = hidden
        self.information_weight = information_weight
        self.marginal_weight = marginal_weight
        self.radius = radius
        self.neighbour = neighbour
        self.xi = xi
        self.power_iterations = power_iterations
        self.seed = seed
        self.device = device
        self.progress = progress

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803 (scikit-learn's name)
        """The probabilities `p(y|x)`, float32 `[N, n_clusters]`, each row with a sum of 1.

        Args:
            X: as :meth:`fit` takes it, with as many numbers a sample.

        Raises:
            sklearn.exceptions.NotFittedError: nothing was learned yet.
            DataError: ``X`` is of another shape or range than in :meth:`fit`, or is not finite.
        """
        return F.softmax(self._logits(self._checked(X)), dim=1).numpy()

    def _check_parameters(self) -> None:
        if self.regulariser not in REGULARISERS:
            raise UnknownNameError(
                f"regulariser must be one of {join_names(REGULARISERS)}; got {self.regulariser!r}."
                f"{did_you_mean(self.regulariser, REGULARISERS)}"
            )
        check_whole("epochs", self.epochs, 1)
        check_whole("batch_size", self.batch_size, 2)  # batch normalisation has no statistics of a single sample
        check_number("learning_rate", self.learning_rate, open_below=True)
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence) or not self.hidden:
            raise DeclarationError(
                f"hidden must be the widths of one or more layers, as (1200, 1200); got {self.hidden!r}"
            )
        for index, width in enumerate(self.hidden):
            check_whole(f"hidden[{index}]", width, 1)
        check_number("information_weight", self.information_weight)
        check_number("marginal_weight", self.marginal_weight)
        check_number("radius", self.radius)
        check_whole("neighbour", self.neighbour, 1)
        check_number("xi", self.xi, open_below=True)
        check_whole("power_iterations", self.power_iterations, 1)

    def _fit(self, x: Tensor, device: torch.device) -> None:
        if len(self._shape_in) == 3:
            self._shift, self._scale = torch.full((x.shape[1],), 0.5), 0.5
        else:
            self._shift = x.mean(0)
            self._scale = math.sqrt(float((x - self._shift).square().mean())) or 1.0
        x = place(self._scaled(x), device)
        radii = (self.radius * neighbour_distances(x, self.neighbour, device, self.progress)).to(device)
        network = _perceptron(x.shape[1], self.hidden, self.n_clusters).to(device)
        self.network_ = network
        optimiser = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        order = torch.Generator().manual_seed(self.seed)
        for epoch in progress_over(range(1, self.epochs + 1), "IMSAT", self.progress):
            started, steps = time.perf_counter(), 0
            totals = torch.zeros(4, device=device)
            network.train()
            for index in batches(len(x), self.batch_size, order, drop_last=True):
                terms = self._terms(x[index].to(device), radii[index])
                optimiser.zero_grad()
                terms[0].backward()
                optimiser.step()
                totals += torch.stack(terms).detach()
                steps += 1
            loss, perturbation, conditional, marginal = (totals / steps).tolist()
            record(
                self.history_,
                epoch,
                started,
                loss,
                perturbation=perturbation,
                conditional_entropy=conditional,
                marginal_entropy=marginal,
            )
        network.eval()

    def _terms(self, x: Tensor, radii: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss of a batch, and `R`, `H(Y|X)` and `H(Y)`."""
        logits = self.network_(x)
        conditional, marginal = information_terms(logits)
        with _frozen_statistics(self.network_):
            if self.regulariser == "vat":
                direction = adversarial_direction(self.network_, x, logits, self.xi, self.power_iterations)
            else:
                direction = random_direction(x)
            perturbed = self.network_(x + radii[:, None] * direction)
        perturbation = perturbation_loss(logits, perturbed)
        loss = perturbation + self.information_weight * (conditional - self.marginal_weight * marginal)
        return loss, perturbation, conditional, marginal

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self._shift) / self._scale

    def _logits(self, x: Tensor) -> Tensor:
        device = next(self.network_.parameters()).device
        shift = self._shift.to(device)
        return apply_batched(lambda batch: self.network_((batch - shift) / self._scale), x, device)

    def _labels(self, x: Tensor) -> Tensor:
        return self._logits(x).argmax(1)


# ---- the terms of the loss -------------------------------------------------------------------------------------------


def information_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`H(Y|X)`, the mean entropy of the clusters' probabilities, and `H(Y)`, the entropy of their mean, in nats.

    Their difference `H(Y) - H(Y|X)` is the mutual information of cluster and sample (Hu et al., 2017).

    Args:
        logits: of the clusters, `[batch, n_clusters]`.

    Returns:
        Two scalars, `H(Y|X)` and `H(Y)`, each in [0, log n_clusters].

    >>> conditional, marginal = information_terms(torch.tensor([[50.0, 0.0], [0.0, 50.0]]))
    >>> round(float(conditional), 4), round(float(marginal), 4)
    (0.0, 0.6931)
    """
    logs = F.log_softmax(logits, dim=1)
    log_mean = torch.logsumexp(logs, dim=0) - math.log(len(logs))
    return -(logs.exp() * logs).sum(1).mean(), -(log_mean.exp() * log_mean).sum()


def perturbation_loss(logits: Tensor, perturbed: Tensor) -> Tensor:
    """The mean of `KL( p(y|x) || p(y|x + r) )` over a batch, in nats; no gradient passes through `p(y|x)`.

    Args:
        logits: of the samples as they are, `[batch, n_clusters]`.
        perturbed: of the perturbed samples, likewise.

    Returns:
        A scalar, 0 or more (Hu et al., 2017).

    >>> float(perturbation_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])))
    0.0
    """
    return _divergence(F.log_softmax(logits.detach(), dim=1), perturbed).mean()


def adversarial_direction(
    network: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor, xi: float = 10.0, iterations: int = 1
) -> Tensor:
    """For each sample, a direction in which the network's probabilities change much (Hu et al., 2017, after Miyato et al., 2016).

    It is what the power method makes of a random direction `d`: the gradient of `KL( p(y|x) || p(y|x + xi d) )` with
    respect to `d`, brought to length 1, as often as asked for. Parameters get no gradient from it.

    Args:
        network: from samples to logits.
        x: the samples, `[batch, features]`.
        logits: the network's of these, `[batch, n_clusters]`.
        xi: the length of the step, in the units of ``x``.
        iterations: how often; one is the published setting.

    Returns:
        `[batch, features]`, without a gradient, of length 1; 0 where the gradient is.

    >>> x = torch.zeros(1, 2)
    >>> network = lambda x: torch.stack([3 * x[:, 0], 4 * x[:, 1] + 1], dim=1)
    >>> direction = adversarial_direction(network, x, network(x), xi=1e-3)
    >>> [round(value, 1) for value in direction.abs()[0].tolist()]
    [0.6, 0.8]
    """
    logs = F.log_softmax(logits.detach(), dim=1)
    direction = random_direction(x)
    for _ in range(iterations):
        direction.requires_grad_()
        divergence = _divergence(logs, network(x.detach() + xi * direction)).sum()
        direction = _unit(torch.autograd.grad(divergence, direction)[0])
    return direction


def random_direction(x: Tensor) -> Tensor:
    """For each sample, a direction that is uniform over the sphere, by torch's own random state.

    Args:
        x: the samples, `[batch, features]`; only their shape, type and device matter.

    Returns:
        `[batch, features]`, of length 1.

    >>> bool(torch.allclose(random_direction(torch.zeros(3, 5)).norm(dim=1), torch.ones(3)))
    True
    """
    return _unit(torch.randn_like(x))


def _divergence(logs: Tensor, perturbed: Tensor) -> Tensor:
    return (logs.exp() * (logs - F.log_softmax(perturbed, dim=1))).sum(1)


def _unit(vectors: Tensor) -> Tensor:
    # The gradients of an untrained network are so small that their squares are 0 in float32: hence two divisions.
    tiny = torch.finfo(vectors.dtype).tiny
    vectors = vectors / vectors.abs().amax(1, keepdim=True).clamp_min(tiny)
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(tiny)


@contextlib.contextmanager
def _frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Batch normalisation by the statistics of the batch that leaves its running averages as they are."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


# ---- neighbours ------------------------------------------------------------------------------------------------------


def neighbour_distances(
    x: Tensor, neighbour: int = 10, device: torch.device | None = None, progress: bool = False
) -> Tensor:
    """The Euclidean distance from each sample to its k-th nearest among the others, exact.

    Candidates come from inner products, block by block, so that some 200 MiB are held beside the data however many
    samples there are; the distances to the k nearest are then computed anew from differences, without the inner products'
    loss of digits.

    Args:
        x: the samples, float `[N, features]`, at least two.
        neighbour: k, from 1; the farthest is taken where there are fewer others.
        device: where to compute; None is where the samples are.
        progress: whether to show a progress bar.

    Returns:
        `[N]`, in the units of ``x``, on the CPU.

    >>> neighbour_distances(torch.tensor([[0.0], [1.0], [3.0]]), 1)
    tensor([1., 1., 2.])
    """
    device = x.device if device is None else device
    count = len(x)
    nearest = min(neighbour, count - 1)
    mean = x.mean(0).to(device)
    found = []
    rows = min(_ROWS, max(1, 2**24 // (x.shape[1] * nearest)))
    for first in progress_over(range(0, count, rows), "neighbours", progress):
        centred = x[first : first + rows].to(device) - mean  # inner products lose fewer digits about the mean
        best = torch.empty(len(centred), 0, device=device)
        which = torch.empty(len(centred), 0, dtype=torch.long, device=device)
        for start in range(0, count, _COLUMNS):
            others = x[start : start + _COLUMNS].to(device) - mean
            squared = torch.addmm(others.square().sum(1), centred, others.T, alpha=-2)
            low, high = max(first, start), min(first + len(centred), start + len(others))
            if low < high:  # no sample is its own neighbour
                itself = torch.arange(low, high, device=device)
                squared[itself - first, itself - start] = math.inf
            close, position = squared.topk(min(nearest, len(others)), dim=1, largest=False)
            best, which = torch.cat([best, close], dim=1), torch.cat([which, position + start], dim=1)
            best, position = best.topk(min(nearest, best.shape[1]), dim=1, largest=False)
            which = which.gather(1, position)
        neighbours = x[which.to(x.device)].to(device) - mean
        found.append((neighbours - centred[:, None]).norm(dim=2).amax(1).cpu())
    return torch.cat(found)


def _perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([inputs, *hidden]):
        layers += [_linear(before, after, _HIDDEN_SCALE), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, _linear(hidden[-1], outputs, _OUTPUT_SCALE))


def _linear(inputs: int, outputs: int, scale: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=scale * math.sqrt(2 / inputs))
    nn.init.zeros_(layer.bias)
    return layer
