"""What a model makes of data it observes, in bits and nats: bounds on the likelihood, and each latent's KL.

Both functions take any Pyro model and guide and know sites by name. They ask one thing of them: that each sample of the batch
is a row of the observations' first dimension, and that every site involved has the batch shape ``[batch]`` (one
``pyro.plate`` over the batch, and distributions that end in ``.to_event``). A model or guide that is a module, or a method of
one, is run in evaluation mode; nothing keeps gradients. A site's ``poutine.scale`` does not count, so that the weights of an
objective do not change what is measured.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from infoplace.errors import DataError, DeclarationError, UnknownNameError, did_you_mean, is_whole, join_names
from infoplace.evidence import Latent, Pass, read_pass, sample_sites, trace_pair
from infoplace.modes import evaluating

__all__ = ["Bound", "KLTable", "bits_per_dim", "block_kl"]

ACTIVE = 0.01
"""The KL, in nats per image, above which a dimension counts as active."""


@dataclass(frozen=True)
class Bound:
    """What :func:`bits_per_dim` found: lower bounds on ``log p(x)`` of one observed site, averaged over the images."""

    observation: str
    """The observed site."""
    nats: float
    """The importance-weighted bound on ``log p(x)``, in nats per image: higher is better."""
    nats_standard_error: float
    """Of ``nats``, over the images; NaN for a single one."""
    elbo_nats: float
    """The same with one sample: the evidence lower bound."""
    samples: int
    """Draws from the guide for each image."""
    images: int
    dims: int
    """How many numbers one image has."""

    @property
    def bits_per_dim(self) -> float:
        """``-nats / (dims ln 2)``: lower is better."""
        return -self.nats / (self.dims * math.log(2))

    @property
    def standard_error(self) -> float:
        """Of ``bits_per_dim``, over the images; NaN for a single one."""
        return self.nats_standard_error / (self.dims * math.log(2))

    @property
    def elbo_bits_per_dim(self) -> float:
        """``bits_per_dim`` with one sample."""
        return -self.elbo_nats / (self.dims * math.log(2))

    def rows(self) -> list[dict[str, Any]]:
        """One row; a number that is not finite is None."""
        return [
            {
                "observation": self.observation,
                "bits_per_dim": _plain(self.bits_per_dim),
                "standard_error": _plain(self.standard_error),
                "elbo_bits_per_dim": _plain(self.elbo_bits_per_dim),
                "samples": self.samples,
                "images": self.images,
                "dims": self.dims,
            }
        ]

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.observation}: {self.bits_per_dim:.4f} bits per dim (standard error {self.standard_error:.4f}; "
            f"{self.samples} samples an image, {self.elbo_bits_per_dim:.4f} with one; {self.images} images of "
            f"{self.dims} dims)"
        )


@dataclass(frozen=True)
class KLTable:
    """What :func:`block_kl` found: one row for each latent site.

    A row has ``block``, ``nats`` (per image), ``standard_error`` (of the nats, over the images), ``bits``, ``dims``, and
    ``active``: how many dims have a KL of more than 0.01 nat, or None where the KL is no sum over the dims.
    """

    table: tuple[Mapping[str, Any], ...]
    images: int
    sampled: tuple[str, ...]
    """The sites whose KL has no closed form and was estimated from draws."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows, as plain dicts."""
        return [dict(row) for row in self.table]

    def row(self, block: str) -> dict[str, Any]:
        """The row of one latent site.

        Raises:
            UnknownNameError: the table has no such site.
        """
        blocks = [row["block"] for row in self.table]
        if block not in blocks:
            raise UnknownNameError(
                f"the table has no block {block!r}; it has {join_names(blocks)}.{did_you_mean(block, blocks)}"
            )
        return dict(self.table[blocks.index(block)])

    def __str__(self) -> str:
        """A line for each latent site."""
        width = max((len(row["block"]) for row in self.table), default=0)
        lines = []
        for row in self.table:
            error = "" if row["standard_error"] is None else f" ({row['standard_error']:.3f})"
            active = "" if row["active"] is None else f", {row['active']} active"
            nats, bits = (math.nan if row[key] is None else row[key] for key in ("nats", "bits"))
            sampled = ", sampled" if row["block"] in self.sampled else ""
            lines.append(
                f"{row['block']:<{width}}  {nats:.3f}{error} nats, {bits:.3f} bits; {row['dims']} dims{active}{sampled}"
            )
        return "\n".join([*lines, f"KL(q || p) per image, over {self.images} images (standard error)"])


@torch.no_grad()
def bits_per_dim(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    observations: Mapping[str, Tensor],
    site: str,
    *,
    samples: int = 64,
    latents: Sequence[str] | None = None,
    batch_size: int = 512,
    seed: int = 0,
) -> Bound:
    """A lower bound on the likelihood of one observed site, by importance weighting.

        `log p(x) >= E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|.)`,  `z_k ~ q(z|.)`,  K = ``samples``

    Section 3 of Burda et al., "Importance weighted autoencoders" (2016). It rises with K and reaches `log p(x)` in the
    limit; K = 1 is the evidence lower bound. The guide may read anything.

    For a likelihood over discrete values, grey values among them (:class:`~infoplace.DiscretizedLogistic` gives bins'
    probabilities), the bits per dim are a code length and 8 bits is what 256 equally likely values take. For a density (a
    Normal), they hang on the unit of the data and may be negative: compare them only with those of other densities.

    Each image is repeated along the batch, next to itself, for its ``samples`` draws.

    Args:
        model: the Pyro model, called as ``model(observations)``.
        guide: its guide, called alike.
        observations: ``{name: [N, ...]}``, on the device of the model; handed over in parts along the first dimension.
        site: the observed site.
        samples: draws from the guide for each image.
        latents: the latent sites that the observed site hangs on; the others drop out of the weights, which makes the bound
            tighter. Their priors must not hang on the others. None: all latents.
        batch_size: rows, images times samples, that the model runs on at once.
        seed: of the draws; torch's own random state is as before afterwards.

    Returns:
        The bound, averaged over the images, with its standard error over the images, and the one with K = 1 beside it.

    Raises:
        DataError: observations that are empty or of unequal length, fewer than 1 sample, a masked site, or a log-probability
            that is NaN.
        UnknownNameError: no observed site, or no latent, of that name.
        DeclarationError: model and guide do not go together, a site's batch shape is not ``[batch]``, or ``latents`` is
            empty or no list.

    >>> import pyro, pyro.distributions as dist
    >>> def model(observations):
    ...     with pyro.plate("batch", len(observations["x"])):
    ...         z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
    ...         pyro.sample("x", dist.Bernoulli(0.25 + 0.5 * z), obs=observations["x"])
    >>> def guide(observations):
    ...     with pyro.plate("batch", len(observations["x"])):
    ...         pyro.sample("z", dist.Bernoulli(0.25 + 0.5 * observations["x"]))  # the exact posterior
    >>> print(bits_per_dim(model, guide, {"x": torch.tensor([0.0, 1.0, 1.0])}, "x", samples=4))
    x: 1.0000 bits per dim (standard error 0.0000; 4 samples an image, 1.0000 with one; 3 images of 1 dims)
    """
    _check_number("samples", samples)
    if isinstance(latents, str):
        raise DeclarationError(f"latents is a list of names; write latents=({latents!r},)")
    if latents is not None and not latents:
        raise DeclarationError(
            f"latents is empty, and without the latents that {site!r} hangs on the number is no bound; name them, or "
            "leave latents out"
        )
    images = _check("bits_per_dim", observations, batch_size)
    bounds, elbos, dims = [], [], 0

    def keep(model_sites: Mapping[str, Any], guide_sites: Mapping[str, Any]) -> set[str]:
        _check_site(site, model_sites)
        drawn = [name for name, node in model_sites.items() if not node["is_observed"]]
        if latents is None:
            return {site, *drawn, *guide_sites}
        there = [name for name in drawn if name in guide_sites]
        for name in latents:
            if name not in there:
                raise UnknownNameError(
                    f"model and guide have no latent site {name!r}; they have {join_names(there)}."
                    f"{did_you_mean(name, there)}"
                )
        return {site, *latents}

    with _measuring(model, guide, observations, seed):
        for rows, copies in _parts(observations, images, samples, batch_size):
            weights = []
            for count in copies:
                shown = _pass(model, guide, rows, count, keep, kl="sampled")
                observed = shown.observed[site]
                dims = observed.value.numel() // len(observed.log_prob)
                weight = observed.log_prob.double() - sum(latent.kl.double() for latent in shown.latents.values())
                if weight.isnan().any():
                    raise DataError(f"bits_per_dim: the log-probability of {site!r}, or of a latent, is NaN")
                weights.append(weight.reshape(-1, count))
            joined = torch.cat(weights, 1)
            bounds.append(joined.logsumexp(1) - math.log(samples))
            elbos.append(joined.mean(1))
    mean, error = _mean(torch.cat(bounds))
    return Bound(site, mean, error, _mean(torch.cat(elbos))[0], samples, images, dims)


@torch.no_grad()
def block_kl(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    observations: Mapping[str, Tensor],
    *,
    samples: int = 1,
    batch_size: int = 512,
    seed: int = 0,
) -> KLTable:
    """`KL(q || p)` of every latent site, averaged over the images.

    It bounds, from above, the information that the block carries about its input: the average KL is the mutual
    information of image and draw, plus the KL of the draws' own distribution from the prior (Hoffman and Johnson, "ELBO
    surgery", 2016). A block of 3 bits tells apart no more than 8 kinds of image, whatever a probe says.

    The closed form where torch has one and model and guide draw their latents in the same order, otherwise the average of
    `log q(z) - log p(z)` over ``samples`` draws. Latents that only the guide has (``is_auxiliary``) are left out.

    Args:
        model: the Pyro model, called as ``model(observations)``.
        guide: its guide, called alike.
        observations: ``{name: [N, ...]}``, on the device of the model; handed over in parts along the first dimension.
        samples: draws for each image. One is enough where all KLs are closed and no site hangs on another.
        batch_size: rows, images times samples, that the model runs on at once.
        seed: of the draws; torch's own random state is as before afterwards.

    Returns:
        A table with a row for each latent site, in the model's order.

    Raises:
        DataError: observations that are empty or of unequal length, fewer than 1 sample, or a KL that is NaN.
        DeclarationError: model and guide do not go together, or a site's batch shape is not ``[batch]``.

    >>> import pyro, pyro.distributions as dist
    >>> def model(observations):
    ...     with pyro.plate("batch", len(observations["x"])):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
    >>> def guide(observations):
    ...     with pyro.plate("batch", len(observations["x"])):
    ...         pyro.sample("z", dist.Normal(observations["x"], 1).to_event(1))
    >>> print(block_kl(model, guide, {"x": torch.tensor([[2.0, 0.0], [2.0, 0.0]])}))
    z  2.000 (0.000) nats, 2.885 bits; 2 dims, 1 active
    KL(q || p) per image, over 2 images (standard error)
    """
    _check_number("samples", samples)
    images = _check("block_kl", observations, batch_size)
    divergences: dict[str, list[Tensor]] = {}
    of_dims: dict[str, Tensor | None] = {}
    dims: dict[str, int] = {}
    sampled: dict[str, bool] = {}

    def keep(model_sites: Mapping[str, Any], guide_sites: Mapping[str, Any]) -> set[str]:
        latent = {name for name, node in model_sites.items() if not node["is_observed"]}
        return latent | {name for name, node in guide_sites.items() if not node["infer"].get("is_auxiliary")}

    with _measuring(model, guide, observations, seed):
        for rows, copies in _parts(observations, images, samples, batch_size):
            sums: dict[str, Tensor] = {}
            for count in copies:
                for name, latent in _pass(model, guide, rows, count, keep, kl="analytic").latents.items():
                    if latent.kl.isnan().any():
                        raise DataError(f"block_kl: the KL of {name!r} is NaN")
                    value = latent.kl.double().reshape(-1, count).sum(1) / samples
                    sums[name] = sums[name] + value if name in sums else value
                    dims[name] = latent.posterior.event_shape.numel()
                    sampled[name] = sampled.get(name, False) or not latent.closed
                    each = _by_dim(latent) if latent.closed else None
                    if each is None:
                        of_dims[name] = None
                    elif (so_far := of_dims.setdefault(name, torch.zeros_like(each[0]))) is not None:
                        of_dims[name] = so_far + each.sum(0) / (images * samples)
            for name, value in sums.items():
                divergences.setdefault(name, []).append(value)
    table = []
    for name, parts in divergences.items():
        nats, error = _mean(torch.cat(parts))
        by_dim = of_dims[name]
        table.append(
            {
                "block": name,
                "nats": _plain(nats),
                "standard_error": _plain(error),
                "bits": _plain(nats / math.log(2)),
                "dims": dims[name],
                "active": None if by_dim is None else int((by_dim > ACTIVE).sum()),
            }
        )
    return KLTable(tuple(table), images, tuple(name for name in divergences if sampled[name]))


# ---- one run of model and guide --------------------------------------------------------------------------------------


def _pass(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    rows: Mapping[str, Tensor],
    copies: int,
    keep: Callable[[Mapping[str, Any], Mapping[str, Any]], set[str]],
    kl: str,
) -> Pass:
    """The sites to ``keep`` in one run on ``rows``, each repeated ``copies`` times, without scales and masks."""
    repeated = {name: value.repeat_interleave(copies, 0) for name, value in rows.items()}
    count = len(next(iter(repeated.values())))
    traces = trace_pair(model, guide, (repeated,), {})
    kept = keep(*(sample_sites(trace) for trace in traces))
    for trace in traces:
        for name, node in list(trace.nodes.items()):
            if node["type"] == "sample" and name not in kept:
                trace.remove_node(name)
            elif node["type"] == "sample":
                if node["is_observed"] and not _all(node["mask"]):
                    raise DataError(f"site {name!r} is masked; give only images where it is observed")
                node["scale"], node["mask"] = 1.0, None
    with warnings.catch_warnings():
        # It is meant: the table says which were sampled.
        warnings.filterwarnings("ignore", message="the KL of .* is sampled instead of taken in closed form")
        shown = read_pass(*traces, kl)
    shapes = {name: latent.kl.shape for name, latent in shown.latents.items()}
    shapes.update({name: observed.log_prob.shape for name, observed in shown.observed.items()})
    for name, shape in shapes.items():
        if tuple(shape) != (count,):
            raise DeclarationError(
                f"site {name!r} has batch shape {list(shape)} for {count} samples; expected [{count}]: put it inside a "
                "pyro.plate over the batch, and end its distribution in .to_event(...) over all other dimensions"
            )
    return shown


def _all(mask: Any) -> bool:
    return bool(mask.all()) if torch.is_tensor(mask) else mask is None or bool(mask)


def _check_site(site: str, sites: Mapping[str, Any]) -> None:
    observed = [name for name, node in sites.items() if node["is_observed"]]
    if site not in observed:
        latent = " (it is a latent one)" if site in sites else ""
        raise UnknownNameError(
            f"the model has no observed site {site!r}{latent}; it observes {join_names(observed)}."
            f"{did_you_mean(site, [name for name in observed if name != site])}"
        )
    if not sites[site]["value"].numel():
        raise DataError(f"site {site!r} has no dimensions, so it has no bits per dim")


def _by_dim(latent: Latent) -> Tensor | None:
    """`[batch, dims]`: the KL of each dim, where posterior and prior are both diagonal normals."""
    posterior, prior = (_normal(distribution) for distribution in (latent.posterior, latent.prior))
    if posterior is None or prior is None:
        return None
    return kl_divergence(posterior, prior).double().reshape(len(latent.kl), -1)


def _normal(distribution: Any) -> dist.Normal | None:
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, dist.Normal) else None


@contextmanager
def _measuring(model: Any, guide: Any, observations: Mapping[str, Tensor], seed: int) -> Iterator[None]:
    """Modules in evaluation mode and torch's random state set from ``seed``; both as they were afterwards."""
    devices = {value.device for value in observations.values() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), evaluating(model, guide):
        torch.manual_seed(seed)
        yield


def _parts(
    observations: Mapping[str, Tensor], images: int, samples: int, batch_size: int
) -> Iterator[tuple[dict[str, Tensor], list[int]]]:
    """Some images, and how often they are repeated in each run, so that no run has more than ``batch_size`` rows."""
    together = max(1, batch_size // samples)
    most = batch_size // together
    copies = [min(most, samples - start) for start in range(0, samples, most)]
    for start in range(0, images, together):
        yield {name: value[start : start + together] for name, value in observations.items()}, copies


# ---- checks and numbers ----------------------------------------------------------------------------------------------


def _check(what: str, observations: Mapping[str, Tensor], batch_size: int) -> int:
    _check_number("batch_size", batch_size)
    if not isinstance(observations, Mapping) or not all(isinstance(value, Tensor) for value in observations.values()):
        raise DataError(
            f"{what} takes observations as a dict {{name: tensor [N, ...]}}, what model and guide are called with"
        )
    counts = {name: len(value) if value.ndim else 0 for name, value in observations.items()}
    if not counts or not all(counts.values()):
        raise DataError(f"{what}: the observations are empty ({counts}); give at least one sample of each")
    if len(set(counts.values())) > 1:
        raise DataError(f"{what}: the observations differ in their number of samples: {counts}")
    return next(iter(counts.values()))


def _check_number(name: str, value: int) -> None:
    if not is_whole(value) or value < 1:
        raise DataError(f"{name} must be a whole number, 1 or more; got {value!r}")


def _mean(values: Tensor) -> tuple[float, float]:
    """The mean of `[images]` and its standard error, NaN for a single one."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean().item(), error


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
