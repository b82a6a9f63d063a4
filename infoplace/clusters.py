"""A block's classes while it is trained: a start for its mixture from a fit of its means, and how many are in use."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

from infoplace.distributions import make_prior
from infoplace.errors import DataError, DeclarationError, did_you_mean, import_optional, join_names
from infoplace.modes import evaluating
from infoplace.names import class_name
from infoplace.objectives.agreement import Agreement, mean_entropy, unevenness
from infoplace.pair import Pair, seeded
from infoplace.recipe import AGREEMENT_FITS, MIXTURE_FITS

__all__ = ["check_start", "clusters_used", "start_mixture"]

_CHUNK = 512
_DRAWS = 4
"""How often every sample's versions are drawn for a fit by agreement."""
_STARTS, _EPOCHS, _HEAD_BATCH, _HEAD_WIDTH = 6, 60, 500, 256
"""The networks that such a fit chooses from, and their training."""
_MERGED_STARTS, _REFINED = 3, 20
"""The networks where classes are merged, and the epochs for which the best of them learns on with fewer classes."""
_EVEN = {"entropy": 0.1, "balance": 0.4}
"""The weights of that training where classes are merged: IMSAT's, at which all classes are used. At weights for which few classes
pay, those that are there when others emptied are no good, and which of them emptied is chance."""
_USER = "starting a mixture"


def start_mixture(
    pair: Pair,
    batch: Tensor | dict[str, Tensor],
    block: str | None = None,
    how: str = "kmeans",
    seed: int = 0,
    agreement: Agreement | None = None,
) -> Tensor:
    """Start the mixture of a block where its posterior means are: set its classes to a fit of them.

    Weights and means of the classes become those of the samples that the fit puts into them, and their scales those of the
    samples' draws: the spread of the means and the width of the posteriors, together. Where the class is a latent variable
    of its own, the last layer of the block's encoder is then fitted, too, so that ``q(y|x)`` says the class that the fit
    says (a logistic regression on what that layer reads, of its outputs for ``q(y|x)`` alone). An encoder of your own
    whose output is not that of a linear layer (or the sum of several) keeps its ``q(y|x)``.

    Args:
        pair: the pair; its prior and encoder are changed in place.
        batch: some thousand samples, `[samples, *data_shape]` or ``{source: tensor}``, on any device.
        block: the block; left out, the one whose prior is a mixture.
        how: ``"kmeans"`` or ``"gaussian_mixture"`` (diagonal), as scikit-learn fits them; or ``"agreement"``: the classes of
            a small network that reads the means and minimises the agreement, over versions of every sample; of several
            networks, the one with the smallest. Or ``"merged_agreement"``, where the number of classes is an upper bound:
            the networks are trained to use all classes evenly, and then classes are merged two at a time, those first by
            which the agreement falls the most (or rises the least), down to the number at which it is smallest. Then a class
            is dissolved and its samples left to the others, which learn on, for as long as that makes it smaller.
            That number falls with the agreement's ``entropy`` and rises with its ``balance``; with the former at least as
            large as the latter, classes beyond it stay empty in the training, too.
        seed: of the fit, the transforms and the versions.
        agreement: what is minimised by ``how="agreement"`` and ``"merged_agreement"``; its site is the block's class.

    Returns:
        The class of each sample under the fit, int64 `[samples]`.

    Raises:
        DeclarationError: no such block, one whose prior is no mixture of normals, an unknown way, or no agreement to fit by.
        DataError: fewer samples than classes, or means that fall into fewer clusters.
        PluginError: scikit-learn is not installed.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> mixture = {"mixture": {"components": 3, "y": "enumerate"}}
    >>> pair = make_pair(Partition({"z": Block(2, prior=mixture)}, {"x": Observation()}), (1, 8, 8))
    >>> start_mixture(pair, torch.rand(20, 1, 8, 8).mul(255).round() / 255).shape
    torch.Size([20])
    """
    block = _mixture_of(pair, block)
    if how not in MIXTURE_FITS:
        raise DeclarationError(
            f"how must be one of {join_names(MIXTURE_FITS)}; got {how!r}.{did_you_mean(how, MIXTURE_FITS)}"
        )
    check_start(pair, block, len(next(iter(batch.values())) if isinstance(batch, dict) else batch))
    count = make_prior(pair.partition.blocks[block].prior).classes
    posterior, inputs, last = _encoded(pair, batch, block, seed)
    if how in AGREEMENT_FITS:
        if agreement is None or agreement.site != class_name(block):
            raise DeclarationError(
                f"how={how!r} fits the classes of {block!r} by what an agreement says of them; pass "
                f"agreement=ip.make_objective('agreement', site={class_name(block)!r}, ...)"
            )
        versions = _means_of_versions(pair, batch, block, seed, agreement)
        classes = _agreeing(posterior.mean, versions, count, seed, agreement, merged=how == "merged_agreement")
    else:
        classes = _fitted(how, posterior.mean, count, seed, block)
    one_hot = torch.nn.functional.one_hot(classes, count).to(posterior.mean)
    sizes = one_hot.sum(0).clamp(min=1.0)
    centres = (one_hot.T @ posterior.mean) / sizes[:, None]
    # What a class has to cover is the draws of its samples: the spread of their means, and the width that each has itself.
    variances = (one_hot.T @ posterior.mean.square()) / sizes[:, None] - centres.square()
    variances = variances.clamp(min=0.0) + (one_hot.T @ posterior.variance) / sizes[:, None]
    empty = one_hot.sum(0) == 0
    variances[empty] = 1.0
    prior: Any = pair.model.priors[block]
    prior.start_at(sizes / sizes.sum(), centres, variances.sqrt())
    if last:
        _fit_last(last, inputs, classes, count)
    return classes.cpu()


def check_start(pair: Pair, block: str, samples: int) -> None:
    """Check that :func:`start_mixture` can start a block from so many samples.

    Raises:
        DeclarationError, DataError, PluginError: see :func:`start_mixture`.
    """
    _mixture_of(pair, block)
    count = make_prior(pair.partition.blocks[block].prior).classes
    if samples < count:
        raise DataError(f"there are {samples} samples and {count} classes; give as many samples as classes, or more")
    for module in ("sklearn.cluster", "threadpoolctl"):
        import_optional(module, _USER)


def clusters_used(pair: Pair, batch: Tensor | dict[str, Tensor], seed: int = 0) -> dict[str, int]:
    """How many classes of each block are the likeliest of some sample.

    Args:
        pair: the pair.
        batch: samples, `[samples, *data_shape]` or ``{source: tensor}``, on the pair's device.
        seed: of the transforms.

    Returns:
        ``{block: number}`` of the blocks whose prior is a mixture.

    >>> from infoplace import Block, Observation, Partition, make_pair
    >>> partition = Partition({"z": Block(2, prior={"mixture": {"components": 3}})}, {"x": Observation()})
    >>> 1 <= clusters_used(make_pair(partition, (1, 8, 8)), torch.zeros(4, 1, 8, 8))["z"] <= 3
    True
    """
    with torch.no_grad(), evaluating(pair):
        found = pair.classify(pair.partition.observe(batch, torch.Generator().manual_seed(seed)))
    return {name: len(q.probs.argmax(-1).unique()) for name, q in found.items()}


def _mixture_of(pair: Pair, block: str | None) -> str:
    mixtures = [name for name in pair.partition.blocks if hasattr(pair.model.priors[name], "start_at")]
    if not mixtures:
        raise DeclarationError(
            "no block's prior is a mixture of normals, so there is none to start; declare one, as "
            "ip.Block(16, prior={'mixture': {'components': 10, 'y': 'enumerate'}})"
        )
    if block is None:
        if len(mixtures) > 1:
            raise DeclarationError(
                f"the priors of {join_names(mixtures)} are mixtures; say which with block={mixtures[0]!r}"
            )
        return mixtures[0]
    if block not in mixtures:
        raise DeclarationError(
            f"{block!r} is no block whose prior is a mixture of normals.{did_you_mean(block, mixtures)} "
            f"Those are {join_names(mixtures)}"
        )
    return block


def _encoded(
    pair: Pair, batch: Tensor | dict[str, Tensor], block: str, seed: int
) -> tuple[Normal, Tensor, list[nn.Linear]]:
    """The block's posterior, what the first of the encoder's last layers reads, and those layers.

    The last layers are linear ones whose outputs add up to the encoder's; there are none where the encoder says no class.
    """
    encoder: Any = pair.guide.encoders[block]
    prior = make_prior(pair.partition.blocks[block].prior)
    outputs = 2 * pair.partition.blocks[block].dim + prior.classes
    linear = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear) and layer.out_features == outputs]
    last = linear if prior.draws_class else []
    read: list[Tensor] = []
    said: dict[nn.Module, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda own, _, output: said.update({own: output})) for layer in [*last, encoder]
    ]
    hooks += [layer.register_forward_hook(lambda _, inputs, __: read.append(inputs[0])) for layer in last[:1]]
    generator, means, scales = torch.Generator().manual_seed(seed), [], []
    tensors = batch if isinstance(batch, dict) else {pair.partition.sources[0]: batch}
    try:
        with torch.no_grad(), evaluating(pair):
            for start in range(0, len(next(iter(tensors.values()))), _CHUNK):
                part = {name: value[start : start + _CHUNK].to(pair.device) for name, value in tensors.items()}
                found = pair.encode(pair.partition.observe(part, generator))[block]
                means.append(found.mean)
                scales.append(found.stddev)
                parts = [said[layer] for layer in last if layer in said]
                if last and (
                    len(parts) < len(last) or not torch.allclose(sum(parts[1:], parts[0]), said[encoder], atol=1e-4)
                ):
                    last = []
    finally:
        for hook in hooks:
            hook.remove()
    return Normal(torch.cat(means), torch.cat(scales)), torch.cat(read) if last else torch.empty(0), last


def _fitted(how: str, means: Tensor, count: int, seed: int, block: str) -> Tensor:
    points = means.double().cpu().numpy()
    if how == "gaussian_mixture":
        model = import_optional("sklearn.mixture", _USER).GaussianMixture(
            count, covariance_type="diag", n_init=3, random_state=seed
        )
    else:
        model = import_optional("sklearn.cluster", _USER).KMeans(count, n_init=10, random_state=seed)
    # One thread: sums over several are not the same in every run.
    with import_optional("threadpoolctl", _USER).threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("error", import_optional("sklearn.exceptions", _USER).ConvergenceWarning)
        try:
            labels = model.fit_predict(points)
        except UserWarning as warning:
            raise DataError(
                f"the means of {block!r} fall into fewer than {count} clusters ({warning}); start the mixture later in the "
                "training, or from more samples"
            ) from warning
    return torch.from_numpy(labels).long().to(means.device)


def _means_of_versions(
    pair: Pair, batch: Tensor | dict[str, Tensor], block: str, seed: int, agreement: Agreement
) -> Tensor:
    """The block's means of several versions of every sample, `[samples, versions, dim]`."""
    generator, means = torch.Generator().manual_seed(seed), []
    tensors = batch if isinstance(batch, dict) else {pair.partition.sources[0]: batch}
    with torch.no_grad(), evaluating(pair), seeded(seed, pair.device):
        for start in range(0, len(next(iter(tensors.values()))), _CHUNK):
            part = {name: value[start : start + _CHUNK].to(pair.device) for name, value in tensors.items()}
            observations = pair.partition.observe(part, generator)
            found = []
            for _ in range(_DRAWS):
                for version in agreement.versions(pair.model, pair.guide, observations):
                    seen = {**observations, **agreement.seen(version, observations)}
                    found.append(pair.guide.posteriors(block, seen)[0].mean)
            means.append(torch.stack(found, 1))
    return torch.cat(means)


def _agreeing(means: Tensor, versions: Tensor, count: int, seed: int, agreement: Agreement, merged: bool) -> Tensor:
    """The classes of the network that agrees best, of several starts; by the objective, which needs no label."""
    weights = {"entropy": agreement.entropy, "balance": agreement.balance}
    found: list[tuple[float, nn.Module, Tensor | None]] = []
    with torch.enable_grad(), seeded(seed, means.device):
        for _ in range(_MERGED_STARTS if merged else _STARTS):
            network = _head(means.shape[1], count).to(means)
            _learn(network, None, means, versions, _EPOCHS, _EVEN if merged else weights)
            own, others = _said(network, None, means, versions)
            if merged:
                groups, value = _merged(own.softmax(1), others.softmax(2), **weights)
                used = own.softmax(1).argmax(1).unique().tolist()
                found.append((value, network, _members([g for g in groups if set(g) & set(used)], own)))
            else:
                found.append((_loss_over(own, others, weights), network, None))
        value, network, members = min(found, key=lambda one: one[0])
        if members is not None:
            network, members = _pruned(network, members, means, versions, weights)
        return _said(network, members, means, versions)[0].argmax(1)


def _loss(own: Tensor, other: Tensor, weights: Mapping[str, float]) -> Tensor:
    """The agreement a sample, of logits `[samples, classes]`."""
    disagreement = F.kl_div(other.log_softmax(1), own.softmax(1).detach(), reduction="batchmean")
    return (
        disagreement
        + weights["entropy"] * mean_entropy(own.softmax(1))
        + weights["balance"] * unevenness(own.softmax(1))
    )


def _loss_over(own: Tensor, others: Tensor, weights: Mapping[str, float]) -> float:
    """The same summed over versions `[versions, samples, classes]`."""
    return float(sum(_loss(own, other, weights) for other in others))


def _logits(network: nn.Module, members: Tensor | None, x: Tensor) -> Tensor:
    """What a network says of its outputs, or of classes that are made of some of them.

    ``members`` `[classes, outputs]` is 0 where an output belongs to a class and minus infinity elsewhere. A class has the
    probabilities of its members; those of outputs without a class are shared out by what the others say.
    """
    outputs: Tensor = network(x)
    return outputs if members is None else torch.logsumexp(outputs[:, None] + members, 2)


def _members(groups: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    members = torch.full((len(groups), like.shape[1]), -torch.inf, dtype=like.dtype, device=like.device)
    for number, group in enumerate(groups):
        members[number, list(group)] = 0.0
    return members


def _learn(
    network: nn.Module,
    members: Tensor | None,
    means: Tensor,
    versions: Tensor,
    epochs: int,
    weights: Mapping[str, float],
) -> None:
    """Train a network on the agreement, and leave it in evaluation mode."""
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    size = min(_HEAD_BATCH, len(means))
    for _ in range(epochs):
        order = torch.randperm(len(means), device=means.device)
        for indices in order[: len(means) // size * size].split(size):
            which = torch.randint(versions.shape[1], (size,), device=means.device)
            own, other = (_logits(network, members, x) for x in (means[indices], versions[indices, which]))
            value = _loss(own, other, weights)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    network.eval()


@torch.no_grad()
def _said(network: nn.Module, members: Tensor | None, means: Tensor, versions: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of all samples `[samples, classes]` and of their versions `[versions, samples, classes]`."""
    others = [_logits(network, members, versions[:, which]) for which in range(versions.shape[1])]
    return _logits(network, members, means), torch.stack(others)


def _merged(own: Tensor, versions: Tensor, entropy: float, balance: float) -> tuple[list[list[int]], float]:
    """Merge classes two at a time, greedily, down to two.

    The agreement is a sum over the classes, so that what a merger does to it hangs on the two alone.

    Args:
        own: `q(y|image)`, `[samples, classes]`.
        versions: `q(y|version)`, `[versions, samples, classes]`.
        entropy: the agreement's weight.
        balance: the agreement's weight.

    Returns:
        The classes that belong together at the number of classes at which the agreement is smallest, and the agreement
        there, but for the constant ``balance log k``.
    """
    own, versions = own.clone(), versions.clone()
    smallest = torch.finfo(own.dtype).tiny

    def parts(own: Tensor, versions: Tensor) -> Tensor:
        logs, sizes = torch.xlogy(own, own), own.mean(0)
        disagreement = logs.mean(0) - (own * versions.clamp(min=smallest).log()).mean((0, 1))
        return disagreement - entropy * logs.mean(0) + balance * torch.xlogy(sizes, sizes)

    def changes(number: int) -> Tensor:
        """What a merger of this class with each other one does; infinite where there is none."""
        one = [number]
        change = parts(own + own[:, one], versions + versions[:, :, one]) - single - single[number]
        change[gone] = change[number] = torch.inf
        return change

    count = own.shape[1]
    groups = [[number] for number in range(count)]
    gone = torch.zeros(count, dtype=torch.bool, device=own.device)
    single = parts(own, versions)
    change = torch.stack([changes(number) for number in range(count)])
    value = best = float(single.sum())
    kept_groups = [list(group) for group in groups]
    for _ in range(count - 2):
        kept, merged = divmod(int(change.argmin()), count)
        value += float(change[kept, merged])
        own[:, kept] += own[:, merged]
        versions[:, :, kept] += versions[:, :, merged]
        groups[kept] += groups[merged]
        groups[merged] = []
        own[:, merged], versions[:, :, merged] = 0.0, 0.0
        gone[merged] = True
        single[kept] = parts(own[:, [kept]], versions[:, :, [kept]])[0]
        single[merged] = 0.0
        change[merged], change[:, merged] = torch.inf, torch.inf
        change[kept] = change[:, kept] = changes(kept)
        if value < best:
            best, kept_groups = value, [list(group) for group in groups if group]
    return kept_groups, best


def _pruned(
    network: nn.Module, members: Tensor, means: Tensor, versions: Tensor, weights: Mapping[str, float]
) -> tuple[nn.Module, Tensor]:
    """Dissolve classes one at a time, and learn on without them, for as long as the agreement falls.

    A merger leaves a class that collects what fits nowhere as it is; its samples find their places when it is gone.
    """

    def learned(network: nn.Module, members: Tensor) -> tuple[Tensor, Tensor, float]:
        _learn(network, members, means, versions, _REFINED, _EVEN)
        own, others = _said(network, members, means, versions)
        # With fewer classes log k is less; what is compared is the agreement without that constant.
        constant = len(others) * weights["balance"] * math.log(len(members))
        return own, others, _loss_over(own, others, weights) - constant

    own, others, value = learned(network, members)
    while len(members) > 2:
        rest = [[other for other in range(len(members)) if other != number] for number in range(len(members))]
        kept = min(rest, key=lambda one: _loss_over(own[:, one], others[:, :, one], weights))
        trial = copy.deepcopy(network)
        own, others, found = learned(trial, members[kept])
        if found >= value:
            break
        network, members, value = trial, members[kept], found
    return network, members


def _head(inputs: int, count: int) -> nn.Module:
    layers: list[nn.Module] = []
    for size in (inputs, _HEAD_WIDTH):
        layers += [nn.Linear(size, _HEAD_WIDTH), nn.BatchNorm1d(_HEAD_WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(_HEAD_WIDTH, count))


def _fit_last(layers: list[nn.Linear], inputs: Tensor, classes: Tensor, count: int) -> None:
    """Fit the last ``count`` outputs of the first layer to the classes by logistic regression; the others add nothing."""
    weight = torch.zeros_like(layers[0].weight[-count:], requires_grad=True)
    bias = torch.zeros(count, dtype=weight.dtype, device=weight.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        with torch.enable_grad():
            found = (
                -Categorical(logits=inputs @ weight.T + bias).log_prob(classes).mean() + 1e-3 * weight.square().sum()
            )
            found.backward()
        return found

    optimiser.step(loss)
    with torch.no_grad():
        for layer in layers:
            layer.weight[-count:] = weight if layer is layers[0] else 0.0
            if layer.bias is not None:
                layer.bias[-count:] = bias if layer is layers[0] else 0.0
