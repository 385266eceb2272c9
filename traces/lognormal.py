"""Two lognormal distributions whose percentiles hold for pairs under a limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from traces.errors import InputError
from traces.workload import FloatColumn, IntColumn

if TYPE_CHECKING:
    from traces.lengths import LognormalLengths

Z90 = 1.2815515655446004
GRID = 4001
LARGEST_LOG = 30.0
LEAST_KEPT = 0.01


@dataclass(frozen=True)
class Lognormal:
    """A length whose logarithm is normal with mean ``mu`` and standard deviation ``sigma``."""

    mu: float
    sigma: float

    def draw(self, count: int, rng: np.random.Generator) -> IntColumn:
        """Return lengths of at least 1, int64 [count]."""
        logs = self.mu + self.sigma * rng.standard_normal(count)
        return np.maximum(1, np.rint(np.exp(np.minimum(logs, LARGEST_LOG)))).astype(np.int64)


@dataclass(frozen=True)
class LognormalPair:
    """The distributions of prompt and output lengths, drawn apart."""

    prompt: Lognormal
    output: Lognormal


def fit(lengths: LognormalLengths) -> LognormalPair:
    """Return the pair that has the percentiles of ``lengths`` once pairs over ``total_max`` are left out.

    With a limit T and outputs distributed by G, a prompt of x tokens is kept with the probability G(T - x):
    the prompts kept have a density in proportion to f(x) G(T - x), and the outputs likewise. The four
    parameters solve the four equations that put the P50 and P90 of those densities where they should be.

    Raises
    ------
    InputError
        If no such pair exists: the percentiles are too near the limit.
    """
    wanted = np.array([lengths.prompt_p50, lengths.prompt_p90, lengths.output_p50, lengths.output_p90])
    start = LognormalPair(_plain(*wanted[:2]), _plain(*wanted[2:]))
    if lengths.total_max is None:
        return start
    if lengths.prompt_p90 + lengths.output_p90 >= lengths.total_max:
        raise _impossible(lengths)
    return _solve(lengths, start, wanted, float(lengths.total_max))


def _plain(p50: float, p90: float) -> Lognormal:
    return Lognormal(math.log(p50), math.log(p90 / p50) / Z90)


def _solve(lengths: LognormalLengths, start: LognormalPair, wanted: FloatColumn, limit: float) -> LognormalPair:
    from scipy.optimize import root

    def misses(unknown: FloatColumn) -> FloatColumn:
        one = _pair(unknown)
        prompt = _shares_below(wanted[:2], one.prompt, one.output, limit)
        output = _shares_below(wanted[2:], one.output, one.prompt, limit)
        missed: FloatColumn = np.concatenate([prompt, output]) - np.array([0.5, 0.9, 0.5, 0.9])
        return missed

    guess = [value for one in (start.prompt, start.output) for value in (one.mu, math.log(one.sigma))]
    solution = np.asarray(root(misses, guess, tol=1e-9).x)
    found = _pair(solution)
    if np.abs(misses(solution)).max() < 1e-4 and _kept(found, limit) > LEAST_KEPT:
        return found
    raise _impossible(lengths)


def _pair(unknown: FloatColumn) -> LognormalPair:
    prompt_mu, prompt_log, output_mu, output_log = (float(value) for value in unknown)
    return LognormalPair(
        Lognormal(prompt_mu, math.exp(min(prompt_log, 4.0))),
        Lognormal(output_mu, math.exp(min(output_log, 4.0))),
    )


def _kept(pair: LognormalPair, limit: float) -> float:
    """Return the share of pairs that are within the limit."""
    return float(_mass(pair.prompt, pair.output, limit)[1][-1])


def _shares_below(marks: FloatColumn, own: Lognormal, other: Lognormal, limit: float) -> FloatColumn:
    """Return the shares of the lengths kept that are at most ``marks``, float64 [marks]."""
    logs, mass = _mass(own, other, limit)
    return np.asarray(np.interp(np.log(marks), logs, mass / max(mass[-1], 1e-300)))


def _mass(own: Lognormal, other: Lognormal, limit: float) -> tuple[FloatColumn, FloatColumn]:
    """Return a grid of log lengths, and the probability of a length at most that which is kept."""
    from scipy.special import ndtr

    logs = np.linspace(min(own.mu - 8 * own.sigma, math.log(limit) - 20), math.log(limit), GRID)
    room = np.log(np.maximum(limit - np.exp(logs), 1e-9))
    score = (logs - own.mu) / own.sigma
    density = np.exp(-(score**2) / 2) / math.sqrt(2 * math.pi) * ndtr((room - other.mu) / other.sigma)
    return logs, np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(score))])


def _impossible(lengths: LognormalLengths) -> InputError:
    what = f"no lognormal lengths have these percentiles with totals up to {lengths.total_max}"
    return InputError(what, expected="lower P90s, or a higher maximum total")
