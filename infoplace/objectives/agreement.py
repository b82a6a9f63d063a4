"""What can be added to a bound about classes: that they are all used, and that they say what they should.

Both objectives read ``q(y|x)`` off the site of a block's class, as ``{"mixture": {"components": 10, "y": "enumerate"}}`` gives
it one. They are additions: alone they say nothing about the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn import functional as F

from infoplace.errors import DeclarationError, did_you_mean, join_names
from infoplace.evidence import Evidence, Latent, Source, Term, sample_sites
from infoplace.modes import evaluating
from infoplace.names import READ_SUFFIX, class_name
from infoplace.objectives.base import Objective, amount, check, label, register_objective
from infoplace.transforms import make_transform

__all__ = ["Agreement", "Balance"]


@register_objective("balance")
class Balance(Objective):
    """How uneven the classes of a batch are: ``log k - H(mean_images q(y|x))`` times the images, 0 where all are equally used.

    Made to be added to a bound, against classes that nothing is assigned to: ``beta_elbo + 10 * balance``. The term is
    ``"balance/<site>"``. A small batch has no more than its own number of classes in it, so the term counts for little unless
    batches are several times as large as ``k``.

    Krause et al., 2010, "Discriminative clustering by regularized information maximization", section 2.

    Args:
        site: the class's site: ``<block>_y`` of a block whose prior draws its class.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`Objective`.

    Raises:
        DeclarationError: when it is first evaluated, a site that is no class.
    """

    def __init__(
        self,
        site: str,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        check(self, "site", isinstance(site, str), "the name of a class's site, as 'z_g_y'", site)
        self.site = site

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """The unevenness at weight 1."""
        probabilities = _class_probabilities(self, self.site, evidence)
        images = len(probabilities) / evidence.particles
        return {f"balance/{self.site}": Term(unevenness(probabilities) * images, 1.0)}


@register_objective("agreement")
class Agreement(Objective):
    """How far the class of an image hangs on what it should not hang on, and how little it says: an addition to a bound.

    Two versions are made of every image. One has the blocks in ``redraw`` drawn anew from their priors and comes out of the
    model's own decoder: another style, as the model knows styles. Both pass through the transform ``view`` (small changes of
    pose, say). The classes of the versions should be that of the image (:math:`D`, the mean over the versions of
    ``KL(q(y|image) || q(y|version))``, in which the image's own is the target), sure (``H(Y|X)``, the mean entropy of
    ``q(y|x)``) and evenly used (``H(Y)``, the entropy of its mean over the batch):

        ``D + entropy H(Y|X) + balance (log k - H(Y))``

    times the number of images. Versions are read in evaluation mode. The terms are ``"disagreement/<site>"``,
    ``"class_entropy/<site>"`` and ``"balance/<site>"``.

    Hu et al., 2017, "Learning discrete representations via information maximizing self-augmented training", equations 3 and 5;
    the defaults are theirs. There, the versions are made by a transform alone.

    Args:
        site: the class's site: ``<block>_y`` of a block whose prior draws its class.
        observation: the observation of which versions are made: one that the class's encoder reads, or else every version
            looks alike to it.
        redraw: the latent sites to draw anew; empty for versions by ``view`` alone.
        view: a transform's spec; None for versions by ``redraw`` alone.
        entropy: the weight of ``H(Y|X)``, at least 0.
        balance: the weight of ``log k - H(Y)``, at least 0.
        num_particles, vectorize_particles, max_plate_nesting, kl: see :class:`Objective`.

    Raises:
        DeclarationError: neither ``redraw`` nor ``view``, a weight below 0; when it is first evaluated, a site that is no
            class, a site to redraw or an observation that is not there.

    >>> from infoplace import make_objective
    >>> bound = make_objective("beta_elbo", beta=20.0)
    >>> objective = bound + 100 * make_objective("agreement", site="z_g_y", redraw=["z_l"], view={"affine": {"degrees": 5.0}})
    """

    def __init__(
        self,
        site: str,
        observation: str = "x",
        redraw: Sequence[str] = (),
        view: Any = None,
        entropy: float = 0.1,
        balance: float = 0.4,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
        kl: str = "analytic",
    ) -> None:
        super().__init__(num_particles, vectorize_particles, max_plate_nesting, kl)
        check(self, "site", isinstance(site, str), "the name of a class's site, as 'z_g_y'", site)
        check(self, "observation", isinstance(observation, str), "an observation's name", observation)
        listed = isinstance(redraw, (list, tuple)) and all(isinstance(name, str) for name in redraw)
        check(self, "redraw", listed, "a list of blocks", redraw)
        if not redraw and view is None:
            raise DeclarationError(
                f"{label(self)}: there is nothing that makes a version of an image; say redraw=['z_l'] (the blocks that the "
                "class should not hang on), view={'affine': {}}, or both"
            )
        own = [name for name in redraw if name == site or site == class_name(name)]
        if own:
            raise DeclarationError(
                f"{label(self)}: redraw names {own[0]!r}, which is what {site!r} is the class of; name the other blocks, whose "
                "change should not matter"
            )
        self.site = site
        self.observation = observation
        self.redraw = list(redraw)
        self.view = None if view is None else make_transform(view).to_spec()
        self.entropy: float = amount(self, "entropy", entropy)
        self.balance: float = amount(self, "balance", balance)

    def weigh(self, evidence: Evidence) -> dict[str, Term]:
        """The disagreement at weight 1, the entropy of the classes and their unevenness at theirs."""
        probabilities = _class_probabilities(self, self.site, evidence)
        images = len(probabilities) / evidence.particles
        target = probabilities.detach()
        latents = {name: self._first(name, one, evidence) for name, one in evidence.passes[0].latents.items()}
        disagreements = []
        for version in self._versions(evidence.source, latents):
            seen = self.seen(version, evidence.source.observations)
            posterior = evidence.source.posteriors(seen, [self.site])[self.site]
            log_q = posterior.logits.log_softmax(-1)
            # Particles share their images' versions.
            log_q = log_q.repeat(len(target) // len(log_q), 1)
            disagreements.append(F.kl_div(log_q, target, reduction="batchmean"))
        return {
            f"disagreement/{self.site}": Term(torch.stack(disagreements).mean() * images, 1.0),
            f"class_entropy/{self.site}": Term(mean_entropy(probabilities) * images, self.entropy),
            f"balance/{self.site}": Term(unevenness(probabilities) * images, self.balance),
        }

    def seen(self, version: Tensor, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A version under the names that encoders find it by: an observation's second draw is replaced too."""
        names = (self.observation, self.observation + READ_SUFFIX)
        return {name: version for name in names if name in observations}

    @torch.no_grad()
    def versions(
        self, model: Callable[..., Any], guide: Callable[..., Any], observations: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """New versions of observed images, drawn anew at every call, by torch's global random state.

        Args:
            model: a Pyro model that is called with ``observations``.
            guide: its guide.
            observations: `{name: [batch, *shape]}`.

        Returns:
            By ``view`` and by ``redraw``, as far as they are declared: `[batch, *shape]` each.

        Raises:
            DeclarationError: see the class.
        """
        source = Source(model, guide, observations)
        latents = {}
        with evaluating(guide):
            for name, site in sample_sites(poutine.trace(guide).get_trace(observations)).items():
                latents[name] = None if site["fn"].has_enumerate_support else site["value"]
        return list(self._versions(source, latents))

    @torch.no_grad()
    def _versions(self, source: Source, latents: Mapping[str, Tensor | None]) -> Iterator[Tensor]:
        """The versions of the images, `[batch, *shape]` each: as they are, and as the model redraws them.

        ``latents`` are the values to hold where they are not redrawn; None, what hangs on what is held.
        """
        if self.observation not in source.observations:
            raise DeclarationError(
                f"{label(self)}: there is no observation {self.observation!r} among what the model is called with "
                f"({join_names(source.observations)}); model and guide are called with a dict of observations"
            )
        images = source.observations[self.observation]
        view = make_transform(self.view or "identity")
        if self.view is not None:
            yield view(images)
        if self.redraw:
            for name in self.redraw:
                if name not in latents:
                    raise DeclarationError(
                        f"{label(self)}: redraw names {name!r}, which is no latent site.{did_you_mean(name, latents)} "
                        f"The latent sites: {join_names(latents)}"
                    )
            held = {name: value for name, value in latents.items() if name not in self.redraw and value is not None}
            yield view(source.likelihoods(held, [self.observation])[self.observation].mean)

    def _first(self, name: str, latent: Latent, evidence: Evidence) -> Tensor | None:
        """A latent's value; the first particle's, where several are drawn at once; None of a class that is summed over."""
        if not self.redraw or name in self.redraw or latent.posterior.has_enumerate_support:
            # A class that is summed over has all its values at once, and what hangs on it is held.
            return None
        if len(latent.posterior.batch_shape) > latent.kl.ndim:
            raise DeclarationError(
                f"{label(self)}: the posterior of {name!r} hangs on a class that is summed over, so it has one value a class "
                "and none to make versions of; leave redraw out, or let it not hang on the class"
            )
        return latent.value[0] if evidence.particles > len(evidence.passes) else latent.value


def _class_probabilities(objective: Objective, site: str, evidence: Evidence) -> Tensor:
    """``q(y|x)``, `[images, classes]`."""
    found = []
    for one in evidence.passes:
        if site not in one.latents:
            raise DeclarationError(
                f"{label(objective)}: there is no latent site {site!r}.{did_you_mean(site, one.latents)} "
                f"The latent sites: {join_names(one.latents)}; a prior that draws its class gives it one, as "
                "{'mixture': {'components': 10, 'y': 'enumerate'}}"
            )
        posterior = one.latents[site].posterior
        logits = getattr(posterior, "logits", None)
        if logits is None or logits.shape[:-1] != posterior.batch_shape or logits.shape[-1:] == (1,):
            raise DeclarationError(
                f"{label(objective)}: {site!r} is no class; its posterior is {type(posterior).__name__}"
            )
        found.append(posterior.logits.softmax(-1).flatten(0, -2))
    return torch.cat(found)


def mean_entropy(probabilities: Tensor) -> Tensor:
    """``H(Y|X)``, the mean entropy of ``q(y|x)`` `[images, classes]`, in nats."""
    logs = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    return -(probabilities * logs).sum(-1).mean()


def unevenness(probabilities: Tensor) -> Tensor:
    """``log k - H(Y)`` of ``q(y|x)`` `[images, classes]`, in nats: 0 where all classes are equally used."""
    shares = probabilities.mean(0).clamp(min=torch.finfo(probabilities.dtype).tiny)
    return math.log(len(shares)) + (shares * shares.log()).sum()
