"""What is predicted of a candidate, and how sure that is, from draws of what the cost model may be wrong by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeVar

from simulator.capacity.capacity import find_capacity
from simulator.capacity.slo import Slo
from simulator.search.estimate import Estimate
from simulator.search.interval import Interval, of_draws, widened
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Plan, side_by_side
from simulator.trials.trial import Trial
from traces.demand import Demand
from traces.errors import InputError

Result = TypeVar("Result")
SHARE = 0.9
"""Of the lower bound of the winner's capacity (of the capacity, where no seed was seen to hold anything): the rate for
which metrics are predicted if none is asked for."""
DRAWS = 19
"""The fewest of which the least and the most hold 90 % (see :func:`simulator.search.interval.of_draws`)."""
CAPACITY_TRIALS, CAPACITY_TOLERANCE = 5, 0.04


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is predicted of a candidate.

    Attributes
    ----------
    outcome
        Of the cost model as it was fitted, at the rate of prediction.
    metrics
        Its metrics, and where they lie in draws of the cost model, for these very requests. Those without a value, or
        without one in a draw, are not there.
    capacity
        Requests/s: from the seeds and the draws together.
    drawn_per_s
        The capacity for the requests of the first seed, by the model as it was fitted and then in each draw.
    """

    outcome: Outcome
    metrics: Mapping[str, Interval]
    capacity: Interval
    drawn_per_s: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by name."""
        return {name: interval.as_dict() for name, interval in self.metrics.items()}


def predict(
    candidate: Candidate, estimate: Estimate, demand: Demand, slo: Slo, rate_per_s: float, *, seed: int, draws: int
) -> Plan[Prediction]:
    """Return the plan that predicts a candidate at a rate, and its capacity, with intervals.

    Raises
    ------
    InputError
        If a simulation fails (out of the plan).
    """
    trial = Trial(candidate=candidate, demand=demand, rate_per_s=rate_per_s, seed=seed, goodput=slo.goodput)
    outcomes = _known((yield [trial, *(replace(trial, cost_draw=draw) for draw in range(draws))]))
    plans = {str(draw): _capacity(candidate, estimate, demand, slo, seed, draw) for draw in (None, *range(draws))}
    drawn_per_s = tuple((yield from side_by_side(plans)).values())
    fitted, *others = drawn_per_s
    sampled = Interval(value=estimate.rate_per_s, low=estimate.low_per_s, high=estimate.high_per_s)
    return Prediction(
        outcome=outcomes[0],
        metrics=_metrics(outcomes),
        capacity=widened(sampled, of_draws(fitted, others)),
        drawn_per_s=drawn_per_s,
    )


def _known(answers: Any) -> list[Outcome]:
    for answer in answers:
        if isinstance(answer, InputError):
            raise answer
    return list(answers)


def _metrics(outcomes: list[Outcome]) -> dict[str, Interval]:
    fitted, *drawn = (outcome.metrics for outcome in outcomes)
    return {
        name: of_draws(value, [each[name] for each in drawn])
        for name, value in fitted.items()
        if isfinite(value) and all(isfinite(each[name]) for each in drawn)
    }


def _capacity(
    candidate: Candidate, estimate: Estimate, demand: Demand, slo: Slo, seed: int, draw: int | None
) -> Plan[float]:
    plan = find_capacity(
        candidate,
        demand,
        slo,
        seeds=1,
        seed=seed,
        tolerance=CAPACITY_TOLERANCE,
        most_trials=CAPACITY_TRIALS,
        guess_per_s=estimate.rate_per_s,
    )
    return (yield from drawn(plan, draw)).rate_per_s


def drawn(plan: Plan[Result], draw: int | None) -> Plan[Result]:
    """Return a plan whose trials run with a draw of the cost model."""
    try:
        trials = next(plan)
        while True:
            trials = plan.send((yield [replace(trial, cost_draw=draw) for trial in trials]))
    except StopIteration as end:
        result: Result = end.value
        return result
