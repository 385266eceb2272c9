"""Two things measured side by side, again and again: which is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf, isnan, sqrt
from typing import Any, Literal

import numpy as np

from traces.metrics import without_nan
from traces.workload import FloatColumn

Better = Literal["low", "high"]
Side = Literal["A", "B"]
LEVEL = 0.05
"""The share of comparisons of equals in which one may be called better."""
LEAST_DIFFERENCE = 0.005
"""Values that differ by half a percent or less count as equal, as in the table of a comparison."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What pairs of values say of A and B.

    Attributes
    ----------
    pairs
        How many there are.
    better
        Whether low or high values are.
    ratio
        Whether differences are those of logarithms, so that A is exp(difference) times B; else they are A - B.
    mean_a, mean_b
        Averages of the values: geometric ones where they are compared by their ratio.
    difference, low, high
        The mean difference and the interval that holds the true one with confidence 1 - ``level``, by itself.
    least
        Up to which difference the two count as equal, in the same terms.
    p_value
        How often equals would differ as much; corrected where several metrics were looked at.
    level
        Up to which p-value one is called better.
    seed_variance, cost_variance
        Of the difference in one pair: what drawing requests anew adds, and what the cost model may be wrong by,
        together with the chance that its errors bring into single runs (other requests meet in a batch): an upper
        bound, close where runs are long. NaN where it was not looked at and all counts as that of seeds.
    """

    pairs: int
    better: Better
    ratio: bool
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    least: float
    p_value: float
    level: float
    seed_variance: float
    cost_variance: float

    @property
    def winner(self) -> Side | None:
        """Which is better; None: they cannot be told apart."""
        if not (self.p_value <= self.level and abs(self.difference) > self.least):
            return None
        return "A" if (self.difference < 0) == (self.better == "low") else "B"

    @property
    def equal(self) -> bool:
        """Whether they hardly differ: no value of the interval is beyond the least difference."""
        return self.winner is None and -self.least <= self.low and self.high <= self.least

    @property
    def cost_share(self) -> float:
        """The share of the variance of one pair's difference that is the cost model's; NaN if unknown or none."""
        whole = self.seed_variance + self.cost_variance
        return self.cost_variance / whole if whole > 0 else np.nan

    @property
    def wants(self) -> Literal["", "more seeds", "longer runs or a better profile"]:
        """What might decide: with any number of seeds the cost model's share of the interval stays."""
        if self.winner is not None or self.equal:
            return ""
        beyond = abs(self.difference) - self.least
        if isnan(self.cost_variance) or beyond > _quantile(self.level, inf) * sqrt(self.cost_variance):
            return "more seeds"
        wide = self.seed_variance / self.pairs > self.cost_variance
        return "more seeds" if wide else "longer runs or a better profile"

    def text(self, a: str = "A", b: str = "B") -> str:
        """Return the verdict in words."""
        if self.winner is None:
            return "equal" if self.equal else "cannot be told apart"
        return f"{a if self.winner == 'A' else b} is better"

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values, null for NaN."""
        found = {**asdict(self), "winner": self.winner, "equal": self.equal, "wants": self.wants}
        document: dict[str, Any] = without_nan(found)
        return document


def paired(
    a: Sequence[float],
    b: Sequence[float],
    *,
    better: Better = "low",
    fitted: tuple[Sequence[float], Sequence[float]] | None = None,
    level: float = LEVEL,
    least_difference: float = LEAST_DIFFERENCE,
) -> Verdict:
    """Return which of A and B is better by their values in the same draws.

    Values that are all positive are compared by their ratio, others by their difference. The interval is Student's;
    A is called better where that of confidence 1 - ``level`` lies beyond the least difference as a whole.

    Requests are drawn anew in every pair, so that their share of the uncertainty shrinks with the number of pairs.
    The cost model's does not: the real machine is one draw, and which one no simulation tells. So where it is known
    from ``fitted`` the interval is one for the difference on the machine: its variance is seed_variance / pairs +
    cost_variance (1 + 1 / pairs), with the degrees of freedom of Welch and Satterthwaite.

    Parameters
    ----------
    a, b
        Values of A and B: equal places share seed and draw of the cost model. At least two.
    better
        Whether low or high values are.
    fitted
        Values with the same seeds and the cost model as it was fitted. Without them all of the spread counts as that
        of seeds.
    level, least_difference
        As :class:`Verdict` has them; the latter as a share of the values.

    Raises
    ------
    ValueError
        If there are fewer than two pairs, their numbers differ, or a value is not finite.
    """
    columns = [np.asarray(each, dtype=np.float64) for each in (a, b, *(fitted or ()))]
    count = len(columns[0])
    if count < 2 or any(len(column) != count or not np.isfinite(column).all() for column in columns):
        raise ValueError("at least two pairs of finite values")
    ratio = all(bool((column > 0).all()) for column in columns)
    mean_a, mean_b = (_average(column, ratio=ratio) for column in columns[:2])
    drawn, plain = _differences(columns, ratio=ratio)
    seed, cost = _variances(drawn, plain)
    difference, least = float(drawn.mean()), float(least_difference)
    if ratio:
        least = float(np.log1p(least))
    else:
        least *= (abs(mean_a) + abs(mean_b)) / 2
    error, freedom = _standard_error(count, seed, cost)
    half = _quantile(level, freedom) * error
    return Verdict(
        pairs=count,
        better=better,
        ratio=ratio,
        mean_a=mean_a,
        mean_b=mean_b,
        difference=difference,
        low=difference - half,
        high=difference + half,
        least=least,
        p_value=_p_value(abs(difference) - least, error, freedom, count),
        level=level,
        seed_variance=seed,
        cost_variance=cost,
    )


def _average(values: FloatColumn, *, ratio: bool) -> float:
    return float(np.exp(np.log(values).mean()) if ratio else values.mean())


def _differences(columns: Sequence[FloatColumn], *, ratio: bool) -> tuple[FloatColumn, FloatColumn | None]:
    values = [np.log(column) for column in columns] if ratio else list(columns)
    return values[0] - values[1], values[2] - values[3] if len(values) == 4 else None


def _variances(drawn: FloatColumn, plain: FloatColumn | None) -> tuple[float, float]:
    """Return the variances that seeds and the cost model add to a difference; the latter NaN where unknown.

    With the cost model as fitted only seeds differ; at the same seed only the cost model does.
    """
    if plain is None:
        return float(drawn.var(ddof=1)), np.nan
    return float(plain.var(ddof=1)), float((drawn - plain).var(ddof=1))


def _standard_error(count: int, seed: float, cost: float) -> tuple[float, float]:
    """Return the standard error of the difference on the machine, and its degrees of freedom."""
    parts = [seed / count, 0.0 if isnan(cost) else cost * (1 + 1 / count)]
    whole = sum(parts)
    if whole == 0:
        return 0.0, count - 1.0
    return sqrt(whole), (count - 1) * whole**2 / sum(part * part for part in parts)


def _quantile(level: float, freedom: float) -> float:
    """Return how many standard errors an interval of confidence 1 - ``level`` reaches to either side."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(1 - level / 2) if freedom == inf else stdtrit(freedom, 1 - level / 2))


def _p_value(beyond: float, error: float, freedom: float, count: int) -> float:
    """Return how often equals differ so far beyond the least difference.

    Pairs that all differ by the same say what their signs say: equals would agree so once in 2^(count - 1) times.
    """
    from scipy.special import stdtr

    if beyond <= 0:
        return 1.0
    if error == 0:
        return float(2.0 ** (1 - count))
    return float(2 * stdtr(freedom, -beyond / error))
