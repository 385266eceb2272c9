"""What is predicted of the best candidates of a search: their metrics at one rate, and their capacities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from policies.prediction import Interval
from simulator.capacity.capacity import find_capacity
from simulator.capacity.slo import Slo
from simulator.interval import of_draws, widened
from simulator.prediction import predict
from simulator.search.estimate import Estimate
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Plan, side_by_side
from traces.demand import Demand
from traces.metrics import without_nan

Result = TypeVar("Result")
SHARE, LEAST_SHARE = 0.9, 0.5
"""Of the lower bound of the winner's capacity, but at least of the capacity itself: the rate for which metrics are
predicted if none is asked for."""
CAPACITY_TRIALS, CAPACITY_TOLERANCE = 5, 0.04


def prediction_rate(winner: Estimate) -> float:
    """Return the rate for which metrics are predicted if none is asked for."""
    return max(SHARE * winner.low_per_s, LEAST_SHARE * winner.rate_per_s)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A candidate on the podium.

    Attributes
    ----------
    outcome, metrics
        As :class:`simulator.prediction.Predicted` has them, at the rate of prediction.
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
        """Return metrics and capacity as JSON values: null for a capacity without a bound."""
        return {
            "metrics": {name: interval.as_dict() for name, interval in self.metrics.items()},
            "capacity": without_nan(self.capacity.as_dict()),
        }


def place(
    candidate: Candidate, estimate: Estimate, demand: Demand, slo: Slo, rate_per_s: float, *, seed: int, draws: int
) -> Plan[Placed]:
    """Return the plan that predicts a candidate at a rate, and its capacity, with intervals.

    Raises
    ------
    InputError
        If a simulation fails (out of the plan).
    """
    predicted = yield from predict(candidate, demand, rate_per_s, seed, draws, goodput=slo.goodput)
    plans = {str(draw): _capacity(candidate, estimate, demand, slo, seed, draw) for draw in (None, *range(draws))}
    drawn_per_s = tuple((yield from side_by_side(plans)).values())
    fitted, *others = drawn_per_s
    sampled = Interval(value=estimate.rate_per_s, low=estimate.low_per_s, high=estimate.high_per_s)
    return Placed(
        outcome=predicted.outcome,
        metrics=predicted.metrics,
        capacity=widened(sampled, of_draws(fitted, others)),
        drawn_per_s=drawn_per_s,
    )


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
