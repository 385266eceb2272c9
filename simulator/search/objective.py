"""What makes one deployment better than another."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.search.estimate import Estimate
from simulator.search.prices import Prices
from simulator.search.usual import OBJECTIVES, ObjectiveName
from simulator.trials.candidate import Candidate
from traces.errors import InputError

UNITS = {"cost": "USD/M output tokens", "capacity": "requests/s", "goodput-per-gpu": "requests/s a GPU"}
Rank = tuple[bool, float, float, int]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is wanted, at a rate or at the capacity.

    Attributes
    ----------
    name
        ``cost``: USD for a million output tokens, the least. ``capacity``: the highest rate within the SLO.
        ``goodput-per-gpu``: requests a second within the SLO for each GPU, the most.
    prices
        Of devices; all that are searched must have one where the cost counts.
    output_tokens
        Mean of a request.
    request_rate_per_s
        The rate that is to be served: a deployment whose capacity does not reach it comes after all that do. None:
        each is judged at its own capacity.
    """

    name: ObjectiveName
    prices: Prices
    output_tokens: float
    request_rate_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            wish = f"one of {', '.join(OBJECTIVES)}"
            raise InputError(f"unknown objective {self.name!r}", where="--objective", expected=wish)
        if self.request_rate_per_s is not None and not 0 < self.request_rate_per_s < float("inf"):
            what = f"rate {self.request_rate_per_s:g}"
            raise InputError(what, where="--request-rate", expected="requests/s above 0")

    @property
    def unit(self) -> str:
        """The unit of :meth:`value`."""
        return UNITS[self.name]

    @property
    def lower_is_better(self) -> bool:
        """Whether the least value is the best."""
        return self.name == "cost"

    def reaches(self, rate_per_s: float) -> bool:
        """Whether a capacity is enough: above 0, and what was asked for."""
        return rate_per_s > 0 and rate_per_s >= (self.request_rate_per_s or 0.0)

    def value(self, candidate: Candidate, rate_per_s: float, good: float = 1.0) -> float:
        """Return what a deployment of this capacity is worth, in :attr:`unit`; infinity where it costs and serves none.

        ``good`` is the share of requests within their own targets, where the SLO sets any.
        """
        if self.name == "capacity":
            return rate_per_s
        served_per_s = self._served(rate_per_s)
        if self.name == "goodput-per-gpu":
            return served_per_s * good / sum(candidate.gpus.values())
        cost = self.cost(candidate, served_per_s)
        assert cost is not None
        return cost

    def cost(self, candidate: Candidate, served_per_s: float) -> float | None:
        """Return USD for a million output tokens where so many requests are served; None where a price is missing."""
        usd_per_hour = self.prices.per_hour(candidate.gpus)
        if usd_per_hour is None:
            return None
        return 1e6 * usd_per_hour / 3600 / (served_per_s * self.output_tokens) if served_per_s > 0 else float("inf")

    def value_of(self, candidate: Candidate, estimate: Estimate) -> float:
        """Return :meth:`value` of what was found of a candidate."""
        return self.value(candidate, estimate.rate_per_s, estimate.good)

    def factor(self, winner: Candidate, other: Candidate) -> float:
        """Return by what the ratio of two capacities is to be multiplied to be that of what the two are worth."""
        if self.compared == "capacity":
            return 1.0
        if self.name == "cost":
            ours, theirs = self.prices.per_hour(winner.gpus), self.prices.per_hour(other.gpus)
            assert ours is not None
            assert theirs is not None
            return theirs / ours
        return sum(other.gpus.values()) / sum(winner.gpus.values())

    @property
    def compared(self) -> str:
        """What two candidates are compared by, the more the better: at a rate that both serve, their headroom."""
        if self.request_rate_per_s is not None or self.name == "capacity":
            return "capacity"
        return {"cost": "output tokens a USD", "goodput-per-gpu": "goodput a GPU"}[self.name]

    def rank(self, candidate: Candidate, estimate: Estimate) -> Rank:
        """Return what sorts the best candidate first: among equals that with the higher capacity, then fewer GPUs."""
        value, gpus = self.value_of(candidate, estimate), sum(candidate.gpus.values())
        short = not self.reaches(estimate.rate_per_s)
        if short and self.request_rate_per_s is not None:
            return True, -estimate.rate_per_s, 0.0, gpus
        return short, value if self.lower_is_better else -value, -estimate.rate_per_s, gpus

    def _served(self, rate_per_s: float) -> float:
        return rate_per_s if self.request_rate_per_s is None else min(rate_per_s, self.request_rate_per_s)
