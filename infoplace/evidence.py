"""What one run of a Pyro model and guide shows: the sites an objective weighs, by name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, Distribution, Independent
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from infoplace.errors import DataError, DeclarationError, did_you_mean, join_names
from infoplace.modes import evaluating

__all__ = ["Evidence", "Latent", "Observed", "Pass", "Source", "Term"]


@dataclass(frozen=True, eq=False)
class Term:
    """A named part of a loss: the loss is the sum of ``weight * value`` over its terms.

    A weight of exactly 0.0 marks a value that is reported and not minimised.
    """

    value: Tensor
    """A scalar: the raw value, in nats, summed over the batch."""
    weight: float | Tensor


@dataclass(frozen=True, eq=False)
class Latent:
    """A latent site in one pass."""

    name: str
    posterior: TorchDistributionMixin
    """The guide's distribution."""
    prior: TorchDistributionMixin | None
    """The model's distribution; None for a site that only the guide has (marked ``is_auxiliary``)."""
    value: Tensor
    """`[*batch_shape, *event_shape]`; all values along a dimension of their own where the site is enumerated."""
    kl: Tensor
    """`[*batch_shape]`: the KL divergence or its one-sample estimate, with the site's scale and mask applied, averaged over
    enumerated sites."""
    closed: bool
    """Whether ``kl`` is the closed form."""
    beta: float
    """What the model's site says: ``pyro.sample(..., infer={"beta": 2.0})``; 1 by default."""
    count: float | Tensor
    """How many elements of the batch shape ``kl.sum()`` adds up, each counted by its scale and mask."""
    plates: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Observed:
    """An observed site in one pass."""

    name: str
    likelihood: TorchDistributionMixin
    value: Tensor
    log_prob: Tensor
    """`[*batch_shape]`, with the site's scale and mask applied."""
    plates: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """The sites of one run of the guide and, on what it drew, the model."""

    latents: dict[str, Latent]
    observed: dict[str, Observed]
    scores: dict[str, tuple[Tensor, tuple[Any, ...]]]
    """The score function (and plates) of each guide site that is not fully reparameterised."""

    def total(self, values: Tensor, plates: Iterable[Any], but: str | None = None) -> Tensor:
        """The sum of ``values``, whose gradient is an unbiased estimate of its expectation's gradient.

        Where every latent is reparameterised, that is ``values.sum()``. For each that is not, the score function times the
        values in its plates is added at value zero, as ``Trace_ELBO`` does.

        Args:
            values: `[*batch_shape]` of the site they belong to.
            plates: the plates of that site.
            but: a latent site on whose draw the values do not depend.
        """
        summed = values.sum()
        for name, (score, own_plates) in self.scores.items():
            if name != but:
                cost = MultiFrameTensor((plates, values.detach())).sum_to(own_plates)
                summed = summed + (cost * (score - score.detach())).sum()
        return summed


@dataclass(frozen=True, eq=False)
class Source:
    """The model and the guide that were run, for an objective that needs to run them on something else.

    Modules run in evaluation mode here, with gradients as they are: their running statistics and schedules are of the data
    alone that they are trained on.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    observations: Mapping[str, Tensor]
    """What both were called with, as their one argument; empty where they were called otherwise."""

    def posteriors(self, observations: Mapping[str, Tensor], sites: Iterable[str]) -> dict[str, Any]:
        """The guide's distributions at some sites, on observations in place of those that were seen."""
        with evaluating(self.guide), _Look(sites) as look:
            self.guide({**self.observations, **observations})
        return look.found

    def likelihoods(self, held: Mapping[str, Tensor], sites: Iterable[str]) -> dict[str, Any]:
        """The model's distributions at some sites, with some latents held and the others drawn anew."""
        with evaluating(self.model), _Look(sites) as look:
            poutine.condition(self.model, dict(held))(self.observations)
        return look.found


class _Look(Messenger):
    """Looks at the distributions of some sites, and ends the run as soon as it has seen them all.

    What comes after them costs time and is not asked for: a guide's other encoders, a model's other decoders.
    """

    def __init__(self, sites: Iterable[str]) -> None:
        super().__init__()
        self.missing = set(sites)
        self.found: dict[str, Any] = {}

    def _pyro_post_sample(self, message: Any) -> None:
        if message["name"] in self.missing:
            self.missing.remove(message["name"])
            self.found[message["name"]] = message["fn"]
            if not self.missing:
                raise _SeenError

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        super().__exit__(kind, error, traceback)
        return kind is _SeenError


class _SeenError(Exception):
    """What a look wanted is there."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an objective weighs: every site's value, summed over the batch and averaged over the particles."""

    source: Source
    passes: tuple[Pass, ...]
    """One for each particle; a single one with a leading particle dimension where particles are vectorised."""
    particles: int
    log_likelihood: dict[str, Tensor]
    """`log p(x | its parents)` of each observed site, a scalar in nats."""
    kl: dict[str, Tensor]
    """`KL(q || p)` of each latent site, a scalar in nats."""
    beta: dict[str, float]
    """Each latent's own factor, from the model's site."""
    count: dict[str, float | Tensor]
    """How many images (elements of its batch shape, scaled and masked as the site is) each latent's KL adds up."""
    auxiliary: frozenset[str]
    """The latents that only the guide has; their "KL" is `log q` alone."""

    @classmethod
    def of(cls, source: Source, passes: Sequence[Pass], particles: int) -> Evidence:
        """Sum up ``passes`` of a source, which hold ``particles`` particles in all."""
        log_likelihood: dict[str, Any] = {}
        kl: dict[str, Any] = {}
        count: dict[str, Any] = {}
        beta: dict[str, float] = {}
        for one in passes:
            for name, site in one.observed.items():
                _add(log_likelihood, name, one.total(site.log_prob, site.plates))
            for name, latent in one.latents.items():
                _add(kl, name, one.total(latent.kl, latent.plates, but=name if latent.closed else None))
                _add(count, name, latent.count)
                beta[name] = latent.beta
        if particles > 1:
            for sums in (log_likelihood, kl, count):
                sums.update({name: value / particles for name, value in sums.items()})
        auxiliary = frozenset(name for one in passes for name, latent in one.latents.items() if latent.prior is None)
        return cls(source, tuple(passes), particles, log_likelihood, kl, beta, count, auxiliary)

    def likelihood_terms(self) -> dict[str, Term]:
        """``"log_likelihood/<site>"`` of every observed site, at weight -1."""
        return {f"log_likelihood/{name}": Term(value, -1.0) for name, value in self.log_likelihood.items()}

    def kl_terms(self, weight: float | Tensor | Mapping[str, float | Tensor]) -> dict[str, Term]:
        """``"kl/<site>"`` of every latent site, at ``weight`` (one, or one for each site) times the site's own beta."""
        weights = weight if isinstance(weight, Mapping) else dict.fromkeys(self.kl, weight)
        return {f"kl/{name}": Term(value, weights[name] * self.beta[name]) for name, value in self.kl.items()}


def _add(sums: dict[str, Any], name: str, value: Any) -> None:
    sums[name] = sums[name] + value if name in sums else value


class _Replay(Messenger):
    """Gives the model's latent sites the guide's values.

    ``poutine.replay`` would also overwrite the model's ``infer``, and with it the site's beta.
    """

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        super().__init__()
        self.nodes = nodes

    def _pyro_sample(self, message: Any) -> None:
        node = self.nodes.get(message["name"])
        if node is not None and node["type"] == "sample" and not message["is_observed"] and not node["is_observed"]:
            message["done"] = True
            message["value"] = node["value"]


def trace_pair(
    model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any, nesting: int | None = None
) -> tuple[Any, Any]:
    """The traces of the guide and, on what it drew, the model.

    Args:
        model: a Pyro model.
        guide: a Pyro guide.
        args: what both are called with.
        kwargs: what both are called with.
        nesting: how many plate dimensions they use. Given, the guide's sites that say ``infer={"enumerate": "parallel"}``
            take all their values at once, along dimensions left of the plates; left out, they are drawn.
    """
    if nesting is not None:
        guide = poutine.enum(guide, first_available_dim=-nesting - 1)
    unwrapped = poutine.unwrap(guide)
    if isinstance(unwrapped, Messenger):
        # Pyro's messenger guides run the model themselves.
        guide(*args, **kwargs)
        model_trace, guide_trace = unwrapped.get_traces()
    else:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        if nesting is not None:
            _check_nesting(sample_sites(guide_trace), nesting)
        model_trace = poutine.trace(_Replay(guide_trace.nodes)(model)).get_trace(*args, **kwargs)
    return model_trace, guide_trace


def sample_sites(trace: Any) -> dict[str, Any]:
    return {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node) and not node["infer"].get("_deterministic")
    }


def _check_nesting(guide: Mapping[str, Any], nesting: int) -> None:
    """Stop where values of an enumerated site took a plate's dimension, before the model meets them there."""
    enumerated = [name for name, site in guide.items() if "_enumerate_dim" in site["infer"]]
    for name, site in guide.items() if enumerated else ():
        deepest = min((plate.dim for plate in site["cond_indep_stack"] if plate.vectorized), default=0)
        if -deepest > nesting:
            raise DeclarationError(
                f"site {name!r} is in more plates than the objective's max_plate_nesting allows, and the values of "
                f"{join_names(enumerated)} took the dimension of one; say max_plate_nesting={-deepest} or more"
            )


class _Classes:
    """The enumerated sites of a guide: what takes the exact expectation over them."""

    def __init__(self, guide: Mapping[str, Any]) -> None:
        self.sites = {name: site for name, site in guide.items() if "_enumerate_dim" in site["infer"]}
        dims = [site["infer"]["_enumerate_dim"] for site in self.sites.values()]
        self.nesting = -max(dims) - 1 if dims else None
        """How many dimensions on the right are plates; None where nothing is enumerated."""
        # In the order of drawing: the later may hang on the earlier.
        self.probabilities = [
            (dim, _scored(name, site, site["fn"].log_prob).exp())
            for dim, (name, site) in zip(dims, self.sites.items(), strict=True)
        ]

    def __contains__(self, name: str) -> bool:
        return name in self.sites

    def check_score(self, name: str, score: Tensor) -> None:
        if self.plated(score.shape) != score.shape:
            raise DeclarationError(
                f"site {name!r} cannot be reparameterised, and its posterior hangs on {join_names(self.sites)}, whose values "
                "are all taken at once; let it be enumerated too, or leave out their infer={'enumerate': 'parallel'}"
            )

    def plated(self, shape: torch.Size) -> torch.Size:
        """A batch shape without the dimensions of enumerated values."""
        return shape if self.nesting is None else shape[max(len(shape) - self.nesting, 0) :]

    def mean(self, values: Tensor) -> Tensor:
        """``values``, averaged over the enumerated sites under the guide."""
        for dim, probability in reversed(self.probabilities):
            if values.ndim >= -dim and values.shape[dim] > 1:
                values = (probability * values).sum(dim, keepdim=True)
        return values.reshape(self.plated(values.shape))


def read_pass(model_trace: Any, guide_trace: Any, kl: str) -> Pass:
    """The pass that two traces show, averaged over the values of enumerated sites."""
    model, guide = sample_sites(model_trace), sample_sites(guide_trace)
    classes = _Classes(guide)
    _check_sites(model, guide, classes)
    validate = is_validation_enabled()
    out_of_order = _out_of_order(model, guide) if kl == "analytic" else {}

    latents: dict[str, Latent] = {}
    scores: dict[str, tuple[Tensor, tuple[Any, ...]]] = {}
    for name, site in guide.items():
        plates = site["cond_indep_stack"]
        prior = model[name] if name in model and not model[name]["is_observed"] else None
        posterior = site["fn"]
        reparameterised = posterior.has_rsample and type(posterior).score_parts is Distribution.score_parts
        divergence = None
        if kl == "analytic" and prior is not None and not _is_delta(posterior):
            divergence = _closed_form(name, prior, site, out_of_order.get(name), validate)
        closed = divergence is not None
        if name in classes:
            # All values are there, so the sum over them has the whole gradient.
            log_q = _scored(name, site, posterior.log_prob) if divergence is None else None
        elif not reparameterised or divergence is None:
            log_q, score, entropy = _scored(name, site, posterior.score_parts)
            if not is_identically_zero(score) and torch.is_tensor(score) and score.requires_grad:
                scores[name] = (score, plates)
                classes.check_score(name, score)
            # Pathwise gradients flow through the entropy term alone; the score function is added in Pass.total.
            if entropy is not log_q:
                log_q = log_q.detach() + (entropy - entropy.detach() if torch.is_tensor(entropy) else 0.0)
        if divergence is None:
            divergence = scale_and_mask(log_q, site["scale"], site["mask"])
            if prior is not None:
                log_p = _scored(name, prior, prior["fn"].log_prob)
                divergence = divergence - scale_and_mask(log_p, prior["scale"], prior["mask"])
        divergence = classes.mean(divergence)
        latents[name] = Latent(
            name=name,
            posterior=posterior,
            prior=None if prior is None else prior["fn"],
            value=site["value"],
            kl=divergence,
            closed=closed,
            beta=1.0 if prior is None else _site_beta(name, prior["infer"]),
            count=_count(site, classes.plated(posterior.batch_shape), divergence),
            plates=plates,
        )
        if validate:
            _check_plates(name, divergence.shape, plates)

    observed: dict[str, Observed] = {}
    for name, site in model.items():
        if site["is_observed"]:
            plates = site["cond_indep_stack"]
            log_prob = scale_and_mask(_scored(name, site, site["fn"].log_prob), site["scale"], site["mask"])
            log_prob = classes.mean(log_prob)
            if validate:
                _check_plates(name, log_prob.shape, plates)
            observed[name] = Observed(name, site["fn"], site["value"], log_prob, plates)
    return Pass(latents, observed, scores)


def _scored(name: str, site: Any, score: Callable[..., Any]) -> Any:
    try:
        return score(site["value"], *site["args"], **site["kwargs"])
    except ValueError as error:
        raise DataError(
            f"site {name!r}: its distribution (batch shape {tuple(site['fn'].batch_shape)}, event shape "
            f"{tuple(site['fn'].event_shape)}) cannot score the value of shape {tuple(site['value'].shape)}: {error}"
        ) from error


def _is_delta(distribution: Any) -> bool:
    # Pyro's closed form for a Delta drops its log density, which automatic guides use; sampling is exact there.
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def _closed_form(name: str, prior: Any, site: Any, earlier: str | None, validate: bool) -> Tensor | None:
    """The closed-form KL of a site, scaled and masked, or None where it must be sampled."""
    reason = None
    if earlier is not None:
        reason = (
            f"the model draws {earlier!r} before it and the guide draws {earlier!r} after it, so that its prior may hang "
            "on what its posterior leads to; draw the latents in the same order in both"
        )
    elif not (_same(prior["scale"], site["scale"]) and _same(prior["mask"], site["mask"])):
        reason = "its scale or mask differ between model and guide; scale and mask both alike"
    if reason is not None:
        if validate:
            warnings.warn(
                f"the KL of {name!r} is sampled instead of taken in closed form: {reason}, "
                'or say that it is meant with kl="sampled"',
                stacklevel=2,
            )
        return None
    try:
        divergence = kl_divergence(*_alike(site["fn"], prior["fn"]))
    except NotImplementedError:
        return None
    return scale_and_mask(divergence, site["scale"], site["mask"])


def _alike(posterior: Any, prior: Any) -> tuple[Any, Any]:
    """Both at one batch shape: a prior that hangs on an enumerated site has a dimension more, and not every KL broadcasts."""
    if posterior.batch_shape == prior.batch_shape:
        return posterior, prior
    shape = torch.broadcast_shapes(posterior.batch_shape, prior.batch_shape)
    return posterior.expand(shape), prior.expand(shape)


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if torch.is_tensor(left) and torch.is_tensor(right):
        return left.shape == right.shape and torch.equal(left, right)
    if torch.is_tensor(left) or torch.is_tensor(right):
        return False
    return left == right


def _out_of_order(model: Mapping[str, Any], guide: Mapping[str, Any]) -> dict[str, str]:
    """Each latent that the model draws after, and the guide before, another; with that other.

    The closed form needs that no parent of a site in the model is a descendant of it in the guide. The order of the sites
    shows that this holds; without the order it may or may not.
    """
    latents = [name for name, site in model.items() if not site["is_observed"]]
    drawn = [name for name in guide if name in model]
    if latents == drawn:
        return {}
    position = {name: place for place, name in enumerate(drawn)}
    found: dict[str, str] = {}
    for place, name in enumerate(latents):
        later = [other for other in latents[:place] if position[other] > position[name]]
        if later:
            found[name] = later[0]
    return found


def _site_beta(name: str, infer: Mapping[str, Any]) -> float:
    beta = infer.get("beta", 1.0)
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta < math.inf:
        raise DeclarationError(
            f'site {name!r}: infer={{"beta": ...}} must be a finite number, at least 0; got {beta!r}'
        )
    return beta


def _count(site: Any, shape: torch.Size, divergence: Tensor) -> float | Tensor:
    scale, mask = site["scale"], site["mask"]
    if torch.is_tensor(scale) or torch.is_tensor(mask):
        ones = torch.ones(shape, dtype=divergence.dtype, device=divergence.device)
        return scale_and_mask(ones, scale, mask).sum()
    return 0.0 if mask is False else float(shape.numel() * scale)


def _check_sites(model: Mapping[str, Any], guide: Mapping[str, Any], classes: _Classes) -> None:
    latents = [name for name, site in model.items() if not site["is_observed"]]
    for name, site in guide.items():
        if name in model and model[name]["is_observed"]:
            raise DeclarationError(
                f"site {name!r} is drawn in the guide and observed in the model; draw it in the guide only where the "
                "model does not observe it"
            )
        if name in model:
            if site["is_observed"]:
                raise DeclarationError(
                    f"site {name!r} is observed in the guide and latent in the model; drop obs= in the guide"
                )
            _check_shapes(name, model[name]["fn"], site["fn"], classes)
        elif not site["infer"].get("is_auxiliary"):
            raise DeclarationError(
                f"the guide has a site {name!r} that the model lacks (the model's latent sites: {join_names(latents)})."
                f"{did_you_mean(name, latents)} Rename it, add it to the model, or mark it in the guide with "
                "infer={'is_auxiliary': True}"
            )
    for name in latents:
        if name not in guide:
            enumerated = (
                "; these objectives do not enumerate, pyro.infer.TraceEnum_ELBO does"
                if model[name]["infer"].get("enumerate")
                else ""
            )
            raise DeclarationError(
                f"the model has a latent site {name!r} that the guide lacks (the guide's sites: {join_names(guide)}). "
                f"Draw it in the guide with pyro.sample({name!r}, ...), or observe it in the model with obs={enumerated}"
            )


def _check_shapes(name: str, prior: Any, posterior: Any, classes: _Classes) -> None:
    if prior.event_shape != posterior.event_shape:
        short, long = ("guide", "model") if posterior.event_dim < prior.event_dim else ("model", "guide")
        missing = abs(posterior.event_dim - prior.event_dim)
        advice = (
            f"end the {short}'s distribution in .to_event({missing}), as the {long}'s does"
            if missing
            else "make them of one size"
        )
        raise DeclarationError(
            f"site {name!r}: the model's event shape is {tuple(prior.event_shape)} and the guide's is "
            f"{tuple(posterior.event_shape)}; {advice}"
        )
    shapes = classes.plated(prior.batch_shape), classes.plated(posterior.batch_shape)
    if shapes[0] != shapes[1] and is_validation_enabled():
        raise DeclarationError(
            f"site {name!r}: the model's batch shape is {tuple(prior.batch_shape)} and the guide's is "
            f"{tuple(posterior.batch_shape)}; put it inside the same pyro.plate in both"
        )


def _check_plates(name: str, shape: torch.Size, plates: Iterable[Any]) -> None:
    sizes = {plate.dim: plate.size for plate in plates if plate.vectorized}
    deepest = -min(sizes, default=0)
    for dim in range(-len(shape), 0):
        if shape[dim] != sizes.get(dim, shape[dim] if -dim <= deepest else 1):
            covered = ", ".join(f"dim {plate}: {sizes[plate]}" for plate in sorted(sizes)) or "(none)"
            raise DeclarationError(
                f"site {name!r}: its batch shape is {tuple(shape)} and its plates cover {covered}; end the distribution in "
                f".to_event({len(shape) - deepest or 1}), or put the site inside a pyro.plate for each batch dimension"
            )
