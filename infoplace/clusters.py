"""A block's classes while it is trained: a start for its mixture from a fit of its means, and how many are in use."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from infoplace.distributions import make_prior
from infoplace.errors import DataError, DeclarationError, PluginError, did_you_mean, join_names
from infoplace.pair import Pair, evaluating
from infoplace.recipe import MIXTURE_FITS

__all__ = ["clusters_used", "start_mixture"]

_CHUNK = 512
_LEAST_SCALE = 0.05
"""In units of the means' spread: a class of one sample would have none."""


def start_mixture(
    pair: Pair,
    batch: Tensor | dict[str, Tensor],
    block: str | None = None,
    how: str = "kmeans",
    seed: int = 0,
) -> Tensor:
    """Start the mixture of a block where its posterior means are: set its classes to a fit of them.

    Weights, means and scales of the classes become those of the fit. Where the class is a latent variable of its own, the
    last layer of the block's encoder is then fitted, too, so that ``q(y|x)`` says the class that the fit says (a logistic
    regression on what that layer reads, of its outputs for ``q(y|x)`` alone). An encoder of your own that does not end in a
    linear layer keeps its ``q(y|x)``.

    Args:
        pair: the pair; its prior and encoder are changed in place.
        batch: some thousand samples, `[samples, *data_shape]` or ``{source: tensor}``, on any device.
        block: the block; left out, the one whose prior is a mixture.
        how: ``"kmeans"`` or ``"gaussian_mixture"`` (diagonal), as scikit-learn fits them.
        seed: of the fit and of the transforms.

    Returns:
        The class of each sample under the fit, int64 `[samples]`.

    Raises:
        DeclarationError: no such block, one whose prior is no mixture of normals, or an unknown way.
        DataError: fewer samples than classes.
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
    count = make_prior(pair.partition.blocks[block].prior).classes
    last = _last_layers(pair, block)
    means, inputs = _encoded(pair, batch, block, last, seed)
    if len(means) < count:
        raise DataError(f"there are {len(means)} samples and {count} classes; give as many samples as classes, or more")
    classes = _fitted(how, means, count, seed)
    prior: Any = pair.model.priors[block]
    one_hot = torch.nn.functional.one_hot(classes, count).to(means)
    sizes = one_hot.sum(0).clamp(min=1.0)
    centres = (one_hot.T @ means) / sizes[:, None]
    spreads = ((one_hot.T @ means.square()) / sizes[:, None] - centres.square()).clamp(min=0.0)
    # The posterior has a width of its own, which the prior must cover besides.
    scales = spreads.sqrt().clamp(min=_LEAST_SCALE * float(means.std(0).mean().clamp(min=0.1)))
    prior.start_at(sizes / sizes.sum(), centres, scales)
    if inputs is not None:
        _fit_last(last, inputs, classes, count)
    return classes.cpu()


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
        found = pair.classify(pair.partition.observe(batch, _generator(seed)))
    return {name: len(q.probs.argmax(-1).unique()) for name, q in found.items()}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def _last_layers(pair: Pair, block: str) -> list[nn.Linear]:
    """The linear layers that the encoder's output is, or is the sum of; none where the encoder says no class."""
    if block not in pair.guide.class_posteriors:
        return []
    item = pair.partition.blocks[block]
    outputs = 2 * item.dim + make_prior(item.prior).classes
    encoder: Any = pair.guide.encoders[block]
    return [layer for layer in encoder.modules() if isinstance(layer, nn.Linear) and layer.out_features == outputs]


def _encoded(
    pair: Pair, batch: Tensor | dict[str, Tensor], block: str, last: list[nn.Linear], seed: int
) -> tuple[Tensor, Tensor | None]:
    """The block's means, and what the first of the ``last`` layers reads (None where there is none)."""
    seen: list[Tensor] = []
    handle = last[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0])) if last else None
    generator, means = _generator(seed), []
    tensors = batch if isinstance(batch, dict) else {pair.partition.sources[0]: batch}
    try:
        with torch.no_grad(), evaluating(pair):
            for start in range(0, len(next(iter(tensors.values()))), _CHUNK):
                part = {name: value[start : start + _CHUNK].to(pair.device) for name, value in tensors.items()}
                means.append(pair.encode(pair.partition.observe(part, generator))[block].mean)
    finally:
        if handle is not None:
            handle.remove()
    return torch.cat(means), torch.cat(seen) if seen else None


def _fitted(how: str, means: Tensor, count: int, seed: int) -> Tensor:
    try:
        cluster = importlib.import_module("sklearn.cluster")
        mixture = importlib.import_module("sklearn.mixture")
    except ImportError as error:
        raise PluginError(
            "starting a mixture needs scikit-learn, which is not installed; type: pip install 'infoplace[metrics]'"
        ) from error
    points = means.double().cpu().numpy()
    model: Any = cluster.KMeans(count, n_init=10, random_state=seed)
    if how == "gaussian_mixture":
        model = mixture.GaussianMixture(count, covariance_type="diag", n_init=3, random_state=seed)
    return torch.from_numpy(model.fit_predict(points)).long().to(means.device)


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
