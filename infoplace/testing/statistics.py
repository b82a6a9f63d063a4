"""What the laws of random things are judged by: tests whose outcome is fixed by a seed and that practically never err.

A normal deviate beyond six standard deviations comes once in 500 million trials; a law that does not hold is seen far
beyond it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import constraints as pyro_constraints
from torch import Tensor
from torch.distributions import StudentT, biject_to
from torch.distributions.mixture_same_family import MixtureSameFamilyConstraint

__all__ = [
    "SIGMAS",
    "Density",
    "Kernels",
    "chi_square_deviate",
    "differ_in_distribution",
    "directional_derivatives",
    "of_one_number",
]

SIGMAS = 6.0


def differ_in_distribution(left: Tensor, right: Tensor, seed: int, shuffles: int = 200) -> bool:
    """Whether two samples are of different distributions, by the energy distance against random relabellings.

    Szekely and Rizzo, 2013, "Energy statistics". A difference counts when it lies six standard deviations above what
    relabelled samples give.

    Args:
        left: `[n, d]`.
        right: `[n, d]`.
        seed: of the relabellings.
        shuffles: how many there are.

    >>> source = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(2, 64, 3, generator=source, dtype=torch.float64)
    >>> differ_in_distribution(a, b, seed=0), differ_in_distribution(a, b + 1, seed=0)
    (False, True)
    """
    together = torch.cat([left, right])
    distances = torch.cdist(together, together)
    signs = torch.ones(len(distances), dtype=distances.dtype)
    signs[len(left) :] = -1
    source = torch.Generator().manual_seed(seed)
    mixed = torch.stack([signs, *(signs[torch.randperm(len(signs), generator=source)] for _ in range(shuffles))])
    statistics = -torch.einsum("ki,ij,kj->k", mixed, distances, mixed)
    null = statistics[1:]
    return bool(statistics[0] > null.mean() + SIGMAS * null.std() + 1e-9 * distances.sum())


def chi_square_deviate(observed: Tensor, expected: Tensor) -> float:
    """How many standard deviations counts lie from what is expected; cells that expect less than 5 are joined.

    Wilson and Hilferty, 1931: the cube root of a chi-square by its degrees of freedom is nearly normal.

    Args:
        observed: `[cells]`, counts.
        expected: `[cells]`, above 0, of the same sum.

    >>> chi_square_deviate(torch.tensor([50.0, 50.0]), torch.tensor([50.0, 50.0])) < 0
    True
    >>> chi_square_deviate(torch.tensor([90.0, 10.0]), torch.tensor([50.0, 50.0])) > 6
    True
    """
    total = expected.sum()
    # Neighbours are joined, in some 50 groups at most.
    groups = (expected.cumsum(0) / (total / 50).clamp(min=5.0)).floor().long().unique(return_inverse=True)[1]
    counts, means = (
        torch.zeros(int(groups.max()) + 1).to(total).index_add_(0, groups, n) for n in (observed, expected)
    )
    if len(means) > 1 and means[-1] < 5:
        counts, means = (torch.cat([n[:-2], n[-2:].sum(0, keepdim=True)]) for n in (counts, means))
    means = means.clamp(min=1e-12)
    freedom = len(means) - 1
    if freedom == 0:
        return 0.0
    share = ((counts - means).square() / means).sum() / freedom
    return float((share ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom)))


class Kernels:
    """A heavy-tailed density around given points: a mixture of products of Student's t with 3 degrees of freedom.

    Made of draws of another density, it covers that one wherever it has mass, so that importance weights stay small; one
    wide kernel around all of them looks for mass where nothing was drawn.

    Args:
        draws: `[n, d]`, which say how wide the kernels are; the first 40 are centres.
        found: `[m, d]`, more centres.
    """

    def __init__(self, draws: Tensor, found: Tensor | None = None) -> None:
        spread = draws.std(0).clamp(min=1e-6)
        near = draws[:40] if found is None else torch.cat([draws[:40], found])
        self.centres = torch.cat([near, draws.mean(0, keepdim=True)])
        self.widths = torch.cat([0.6 * spread.expand(len(near), -1), 3 * spread[None]])
        self.shares = torch.full_like(self.centres[:, 0], 0.9 / len(near))
        self.shares[-1] = 0.1
        self.student = StudentT(torch.tensor(3.0, dtype=draws.dtype, device=draws.device))

    def sample(self, count: int) -> Tensor:
        """`[count, d]`, from torch's global generator."""
        chosen = torch.multinomial(self.shares, count, replacement=True)
        standard = self.student.sample(torch.Size((count, self.centres.shape[1])))
        return self.centres[chosen] + self.widths[chosen] * standard

    def log_prob(self, value: Tensor) -> Tensor:
        """`[n]` for `[n, d]`."""
        standard = (value[:, None] - self.centres) / self.widths
        each = (self.student.log_prob(standard) - self.widths.log()).sum(-1)
        return (each + self.shares.log()).logsumexp(1)


@dataclasses.dataclass
class Density:
    """A distribution to be looked at: whether its probabilities sum to 1, and whether its draws follow them."""

    log_prob: Callable[[Tensor], Tensor]
    """From `[n, d]` to `[n]`."""
    draws: Tensor
    """`[m, d]`, float64."""
    support: Any
    """torch's constraint on its values."""
    points: Tensor | None = None
    """`[k, d]`, all values, where they are finitely many."""
    values: Tensor | None = None
    """`[k]`, ascending, all values of each of the `d` numbers, where they are finitely many."""
    seed: int = 0

    @property
    def discrete(self) -> bool:
        """Whether it has probabilities, in place of a density."""
        return self.points is not None or self.values is not None

    def __post_init__(self) -> None:
        self.log_prob = torch.no_grad()(self.log_prob)

    def total(self) -> tuple[float, float]:
        """What the probabilities sum, or the density integrates, to; and how far from 1 that may be by chance."""
        if self.points is not None:
            return float(self.log_prob(self.points).exp().sum()), 1e-4
        if self.draws.shape[1] == 1 and not self.discrete:
            return float(self._curve[1][-1]), 1e-3
        weights = self._weighted[1]
        error = float(weights.std() / math.sqrt(len(weights)))
        return float(weights.mean()), 1e-3 + SIGMAS * error

    def deviate(self) -> float:
        """How many standard deviations the draws lie from what ``log_prob`` says."""
        if self.points is not None:
            return self._deviate_of_points(self.points)
        if self.draws.shape[1] == 1 and not self.discrete:
            return self._deviate_of_curve()
        inner, weights = self._weighted
        return float(_moment_deviates(weights, inner, self._inner(self.draws)).max())

    # ---- finitely many values ---------------------------------------------------------------------------------------

    def _deviate_of_points(self, points: Tensor) -> float:
        expected = self.log_prob(points).exp() * len(self.draws)
        if self.values is not None:
            digits = torch.searchsorted(self.values, self.draws.contiguous() - 1e-9).clamp(max=len(self.values) - 1)
            place = torch.zeros(len(digits), dtype=torch.long)
            for digit in digits.unbind(1):
                place = place * len(self.values) + digit
        else:
            place = torch.cdist(self.draws, points).argmin(1)
        observed = torch.bincount(place, minlength=len(points)).to(expected.dtype)
        deviates = [chi_square_deviate(observed, expected)]
        if self.values is not None and self.draws.shape[1] > 1:
            grid = (len(self.values),) * self.draws.shape[1]
            for number in range(len(grid)):
                others = tuple(other for other in range(len(grid)) if other != number)
                margins = observed.view(grid).sum(others), expected.view(grid).sum(others)
                deviates.append(chi_square_deviate(*margins))
        return max(deviates)

    # ---- one continuous number ---------------------------------------------------------------------------------------

    @functools.cached_property
    def _atoms(self) -> Tensor:
        """The values that come up again and again: there, a "density" is a probability."""
        values, counts = self.draws[:, 0].unique(return_counts=True)
        return values[counts >= max(10, len(self.draws) // 200)]

    @functools.cached_property
    def _curve(self) -> tuple[Tensor, Tensor]:
        """Points `[k]` in ascending order, and the probability `[k]` of everything up to each.

        By the trapezoidal rule, after the support is mapped to the real line. There, points lie close together around the
        draws' middle, and farther and farther apart out to some 20,000 times their spread.
        """
        to_support = biject_to(of_one_number(self.support))
        draws, atoms = self.draws[:, 0], self._atoms
        for atom in atoms:
            draws = draws[draws != atom]
        if not len(draws):
            x = atoms
            cumulative = torch.zeros_like(x)
        else:
            inner = to_support.inv(draws)
            middle = inner.median()
            spread = (inner - middle).abs().median().clamp(min=1e-9)
            steps = torch.linspace(-10.6, 10.6, 6001, dtype=inner.dtype, device=inner.device)
            u = middle + spread * steps.sinh()
            x = to_support(u)
            slope = to_support.log_abs_det_jacobian(u, x) + (spread * steps.cosh()).log()
            density = (self.log_prob(x[:, None]) + slope).exp().nan_to_num(0.0, 0.0) * (steps[1] - steps[0])
            halves = (density[1:] + density[:-1]) / 2
            cumulative = torch.cat([torch.zeros_like(halves[:1]), halves.cumsum(0)])
        for atom in atoms:
            cumulative = cumulative + (x >= atom) * self.log_prob(atom.view(1, 1)).exp()
        return x, cumulative

    def _deviate_of_curve(self) -> float:
        points, cumulative = self._curve
        heights = torch.arange(1, 24, dtype=cumulative.dtype) / 24 * cumulative[-1]
        edges = torch.searchsorted(cumulative, heights).clamp(max=len(points) - 1).unique()
        below = torch.cat([cumulative[edges], cumulative[-1:]])
        expected = torch.diff(below, prepend=torch.zeros_like(below[:1])) / cumulative[-1] * len(self.draws)
        cells = torch.searchsorted(points[edges], self.draws[:, 0].contiguous())
        observed = torch.bincount(cells, minlength=len(below)).to(expected.dtype)
        return chi_square_deviate(observed, expected.clamp(min=1e-12))

    # ---- several numbers that hang together -----------------------------------------------------------------------------

    def _inner(self, values: Tensor) -> Tensor:
        """Values without bounds, `[n, e]`, for values in the support."""
        if self.values is not None or _is_sphere(self.support):
            return values
        return self._to_support.inv(values)

    @functools.cached_property
    def _to_support(self) -> Any:
        return biject_to(plain_support(self.support))

    @functools.cached_property
    def _weighted(self) -> tuple[Tensor, Tensor]:
        """Points that another density drew, without bounds, and how much likelier each is under this one."""
        count = 8_000
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(self.seed)
            if self.values is not None:
                return self._weighted_values(self.values, count)
            if _is_sphere(self.support):
                x = torch.randn(count, self.draws.shape[1], dtype=self.draws.dtype)
                x = x / x.norm(dim=1, keepdim=True)
                half = self.draws.shape[1] / 2
                return x, (self.log_prob(x) + math.log(2) + half * math.log(math.pi) - math.lgamma(half)).exp()
            inner = self._inner(self.draws)
            first = Kernels(inner)
            u, weights = self._weigh(first, count // 4)
            # Where the weights are large, log_prob sees mass that was not drawn.
            found = u[torch.multinomial(weights.nan_to_num(0.0, 0.0, 0.0) + 1e-12, 40, replacement=True)]
            return self._weigh(Kernels(inner, found), count)

    def _weigh(self, other: Kernels, count: int) -> tuple[Tensor, Tensor]:
        u = other.sample(count)
        x = self._to_support(u)
        jacobian = self._to_support.log_abs_det_jacobian(u, x)
        jacobian = jacobian if jacobian.dim() == 1 else jacobian.sum(-1)
        return u, (self.log_prob(x) + jacobian - other.log_prob(u)).exp()

    def _weighted_values(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Half of the numbers are drawn from all values alike, half as often as they were drawn before."""
        columns, log_q = [], torch.zeros(count, dtype=self.draws.dtype)
        for column in self.draws.unbind(1):
            place = torch.searchsorted(values, column.contiguous() - 1e-9).clamp(max=len(values) - 1)
            seen = torch.bincount(place, minlength=len(values)).to(self.draws.dtype)
            q = 0.5 * seen / seen.sum() + 0.5 / len(values)
            chosen = torch.multinomial(q, count, replacement=True)
            columns.append(values[chosen])
            log_q = log_q + q[chosen].log()
        x = torch.stack(columns, dim=1)
        return x, (self.log_prob(x) - log_q).exp()


def _moment_deviates(weights: Tensor, points: Tensor, draws: Tensor) -> Tensor:
    """By how many standard errors weighted means and plain means of test functions differ, `[functions]`.

    The functions are waves, which are bounded, along every axis and along some slanted directions.
    """
    centre, spread = draws.mean(0), draws.std(0).clamp(min=1e-9)
    source = torch.Generator().manual_seed(0)
    directions = torch.cat(
        [torch.eye(draws.shape[1]), torch.randn(6, draws.shape[1], generator=source) / math.sqrt(draws.shape[1])]
    ).to(draws)

    def waves(x: Tensor) -> Tensor:
        phases = ((x - centre) / spread) @ directions.T
        return torch.cat([phases.sin(), phases.cos(), (2 * phases).sin(), (2 * phases).cos()], dim=1)

    weighted, plain = weights[:, None] * waves(points), waves(draws)
    error = (weighted.var(0) / len(weighted) + plain.var(0) / len(plain)).sqrt()
    return (weighted.mean(0) - plain.mean(0)).abs() / (error + 1e-3 / SIGMAS)


def plain_support(support: Any) -> Any:
    """A constraint that a map to the real numbers is known of, where there is one: a mixture has that of its components."""
    return support.base_constraint if isinstance(support, MixtureSameFamilyConstraint) else support


def of_one_number(support: Any) -> Any:
    """The constraint on one number, of a constraint on vectors of them."""
    support = plain_support(support)
    while support.event_dim > 0 and hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _is_sphere(support: Any) -> bool:
    return support is pyro_constraints.sphere


def directional_derivatives(function: Callable[[Tensor], Tensor], at: Tensor, directions: Tensor) -> Tensor:
    """Central differences of a function of a vector: `[directions]`.

    Args:
        function: from `[d]` to a number.
        at: `[d]`, float64.
        directions: `[n, d]`.
    """
    step = 1e-6  # a short one: networks have kinks, and float64 has digits to spare
    found = [(function(at + step * one) - function(at - step * one)) / (2 * step) for one in directions]
    return torch.stack([slope.detach().reshape(()) for slope in found])
