"""How fast a deployment serves at most: all requests arrive at once, or twice as fast as they are served."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.capacity.saturation import (
    ALL_AT_ONCE_PER_S,
    FLOOD,
    LEAST_LONGER,
    LONGER,
    MOST_LONGER,
    saturated_by,
    service_limit_per_s,
)
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Answer, Plan
from simulator.trials.trial import Trial
from traces.demand import Demand
from traces.errors import InputError
from traces.goodput import GoodputRule
from traces.presets import preset_names


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of one search: what is the same in all of them."""

    candidate: Candidate
    demand: Demand
    goodput: GoodputRule | None
    seed: int

    def at(self, rate_per_s: float, demand: Demand | None = None) -> Trial:
        """Return the trial at a rate, with another demand if one is given."""
        return Trial(
            candidate=self.candidate,
            demand=demand or self.demand,
            rate_per_s=rate_per_s,
            seed=self.seed,
            goodput=self.goodput,
        )


@dataclass
class Budget:
    """Simulations that searches side by side may still ask for."""

    left: int

    def take(self) -> bool:
        """Take one, if there is one left."""
        self.left -= 1
        return self.left >= 0


@dataclass(frozen=True, kw_only=True)
class Service:
    """How fast requests are served where more arrive than can be.

    Attributes
    ----------
    served_per_s
        About how many a second.
    limit_per_s
        The same where it may be relied on: a queue grows for ever at higher rates. None where the requests were too
        few to tell (of a trace, which has no more).
    stability
        Whether rates beyond it fail.
    demand
        The requests that it took to know.
    at_once
        What came of all requests of the search's own demand arriving at once; None where that was not looked at.
    flooded
        Whether more was served of a flood (:func:`flood`) than of all requests at once; None where none was tried.
    trials
        Simulations that it took.
    """

    served_per_s: float
    limit_per_s: float | None
    stability: bool
    demand: Demand
    at_once: Outcome | None
    trials: int
    flooded: bool | None = None

    @property
    def ceiling_per_s(self) -> float | None:
        """The rate from which on all fail; None where there is none, or it is not known."""
        return self.limit_per_s if self.stability else None

    def excess(self, rate_per_s: float, outcome: Outcome) -> float:
        """Return by how much a rate is too high to be kept up for ever, as a log; at most 0 where it is not."""
        return saturated_by(rate_per_s, self.limit_per_s, outcome) if self.stability else 0.0


def find_service(trials: Trials, budget: Budget, *, stability: bool, like: Service | None) -> Plan[Service]:
    """Return the plan that lets all requests arrive at once, and more where these do not tell how fast they are served.

    ``like`` is what another seed has found: how many it takes, and whether a flood tells it. Where ``stability`` does
    not count that does as well.
    """
    if like is not None and not stability:
        return replace(like, at_once=None, trials=0)
    budget.take()
    if like is not None and like.flooded:
        return (yield from flood(trials, replace(like, at_once=None, trials=0), known=False))
    demand = trials.demand if like is None else like.demand
    at_once = outcome = outcome_of((yield [trials.at(ALL_AT_ONCE_PER_S, demand)])[0])
    count, limit = 1, service_limit_per_s(outcome)
    while stability and like is None and limit is None and count <= MOST_LONGER and (more := _longer(demand)):
        if budget.left < 2:
            break
        budget.take()
        demand, count = more, count + 1
        outcome = outcome_of((yield [trials.at(ALL_AT_ONCE_PER_S, demand)])[0])
        limit = service_limit_per_s(outcome)
    return Service(
        served_per_s=limit or outcome.metrics["Requests/s"],
        limit_per_s=limit,
        stability=stability,
        demand=demand,
        at_once=at_once if demand == trials.demand or like is None else None,
        trials=count,
        flooded=like.flooded if like else None,
    )


def flood(trials: Trials, service: Service, *, known: bool = True) -> Plan[Service]:
    """Return the plan that looks whether more is served where requests arrive :data:`FLOOD` times as fast as that.

    Of all requests at once a policy that puts some of them first serves a mix that no stream of them brings, and is
    left with a worse one in the end. What was served either way can be served.

    Parameters
    ----------
    service
        What was found of all requests at once; its limit is known.
    known
        Whether it is of the same seed; otherwise the flood alone counts.
    """
    before = service.limit_per_s
    assert before is not None
    outcome = outcome_of((yield [trials.at(FLOOD * before, service.demand)])[0])
    limit = service_limit_per_s(outcome)
    if known:
        limit, flooded = max(before, limit or 0.0), (limit or 0.0) > before
    else:
        flooded = True
    served = limit or outcome.metrics["Requests/s"]
    return replace(service, served_per_s=served, limit_per_s=limit, trials=service.trials + 1, flooded=flooded)


def outcome_of(answer: Answer) -> Outcome:
    """Return the outcome of a trial, or raise the error in its input."""
    if isinstance(answer, InputError):
        raise answer
    return answer


def _longer(demand: Demand) -> Demand | None:
    """Return the same demand for more requests; None for a trace, which has no more."""
    if demand.source not in preset_names():
        return None
    return replace(demand, num_prompts=max(LONGER * demand.requests, LEAST_LONGER))
