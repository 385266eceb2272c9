"""What a candidate will do under one very workload, and how sure that is: intervals to hold a measurement to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan

from policies.prediction import Interval
from simulator.interval import COVERAGE, of_draws
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import LATENCIES, Outcome
from simulator.trials.plan import Plan
from simulator.trials.trial import Trial
from traces.demand import Demand
from traces.goodput import GoodputRule

FIGURES = ("mean", "p50", "p90", "p99")
"""Of each latency; those between them would only say the same again."""
PREDICTED = (
    *(f"{latency} {figure.upper()}" for latency in LATENCIES for figure in FIGURES),
    *("Requests/s", "Output tokens/s", "Goodput", "Goodput, requests/s"),
)
"""The metrics of an outcome that a user feels or pays for."""
DRAWS = 19
"""Of the cost model, unless told otherwise: the fewest of which the least and the most hold 90 %."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a candidate will do.

    Attributes
    ----------
    outcome
        Of the cost model as it was fitted.
    metrics
        Those of :data:`PREDICTED` that have a value, with their intervals.
    """

    outcome: Outcome
    metrics: Mapping[str, Interval]


def predict(
    candidate: Candidate,
    demand: Demand,
    rate_per_s: float,
    seed: int = 0,
    draws: int = DRAWS,
    *,
    goodput: GoodputRule | None = None,
    coverage: float = COVERAGE,
) -> Plan[Predicted]:
    """Return the plan that predicts the metrics of ``candidate`` under ``demand``, drawn by ``seed``.

    The value is that of the cost model as it was fitted. The interval holds the middle share ``coverage`` of what comes
    out when the cost model is drawn within its own bands (:meth:`profiler.cost_model.CostModel.drawn`): whole
    simulations each, so that what a slower iteration does to a queue is in it. Requests and arrivals are the same in
    all of them, and in the measurement to come; what a machine does that was not profiled is in none.

    Raises
    ------
    InputError
        If the candidate cannot serve the demand.
    """
    fitted = Trial(candidate=candidate, demand=demand, rate_per_s=rate_per_s, seed=seed, goodput=goodput)
    answers = yield [fitted, *(replace(fitted, cost_draw=draw) for draw in range(draws))]
    outcomes = []
    for each in answers:
        if not isinstance(each, Outcome):
            raise each
        outcomes.append(each)
    first, *others = (outcome.metrics for outcome in outcomes)
    return Predicted(outcome=outcomes[0], metrics=intervals(first, others, coverage))


def intervals(
    fitted: Mapping[str, float], drawn: Sequence[Mapping[str, float]], coverage: float = COVERAGE
) -> dict[str, Interval]:
    """Return the metrics of :data:`PREDICTED` with their intervals; without those that have no value.

    Parameters
    ----------
    fitted, drawn
        The metrics of the cost model as it was fitted, and of each draw of it.
    """
    return {
        name: of_draws(fitted[name], [each[name] for each in drawn], coverage)
        for name in PREDICTED
        if isfinite(fitted.get(name, nan))
    }
