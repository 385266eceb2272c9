"""Policies judged against one of them, by pairs of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from simulator.significance.metrics import JUDGED, compare_paired
from simulator.significance.verdict import LEAST_DIFFERENCE, LEVEL, Verdict
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Answer, Plan
from simulator.trials.trial import Trial
from traces.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What came out of a policy, seed by seed: with a draw of the cost model for each, and as it was fitted."""

    drawn: tuple[Outcome, ...]
    fitted: tuple[Outcome, ...]


@dataclass(frozen=True, kw_only=True)
class Significance:
    """Verdicts on policies against one of them.

    Attributes
    ----------
    baseline
        The policy that the others are held against.
    seeds
        Of the pairs; equal numbers are draws of the cost model.
    level, least_difference
        As :class:`simulator.significance.verdict.Verdict` has them; the latter as a share.
    verdicts
        For each other policy (A; the baseline is B) and metric.
    runs
        What they rest on, of all policies.
    """

    baseline: str
    seeds: tuple[int, ...]
    level: float
    least_difference: float
    verdicts: Mapping[str, Mapping[str, Verdict]]
    runs: Mapping[str, Runs]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values: of the runs the metrics that are judged, seed by seed."""
        return {
            "baseline": self.baseline,
            "seeds": list(self.seeds),
            "level": self.level,
            "least_difference": self.least_difference,
            "verdicts": {
                label: {name: verdict.as_dict() for name, verdict in verdicts.items()}
                for label, verdicts in self.verdicts.items()
            },
            "runs": {
                label: {"drawn": [*map(_judged, runs.drawn)], "fitted": [*map(_judged, runs.fitted)]}
                for label, runs in self.runs.items()
            },
        }


def _judged(outcome: Outcome) -> dict[str, float | None]:
    values = {metric.name: outcome.metrics[metric.name] for metric in JUDGED}
    return {name: None if value != value else value for name, value in values.items()}


def find_significance(
    trials: Mapping[str, Trial],
    baseline: str,
    seeds: Sequence[int],
    *,
    level: float = LEVEL,
    least_difference: float = LEAST_DIFFERENCE,
) -> Plan[Significance]:
    """Return the plan that runs each of ``trials`` with every seed twice and judges them.

    Once the seed draws what the cost model may be wrong by too, once the model is as it was fitted: so the difference
    between two policies that the requests make is told from that which the cost model makes.

    Parameters
    ----------
    trials
        One for each policy, by its label, whatever its seed.
    baseline
        The label of the one that the others are held against.
    seeds
        At least two.

    Raises
    ------
    InputError
        If one of the trials cannot run.
    """
    asked = [
        (label, replace(trial, seed=seed, cost_draw=draw))
        for label, trial in trials.items()
        for seed in seeds
        for draw in (seed, None)
    ]
    answers = yield [trial for _, trial in asked]
    found: dict[str, list[Outcome]] = {label: [] for label in trials}
    for (label, trial), answer in zip(asked, answers, strict=True):
        found[label].append(_outcome(label, trial, answer))
    runs = {label: Runs(drawn=tuple(each[::2]), fitted=tuple(each[1::2])) for label, each in found.items()}
    judge = partial(_against, runs[baseline], level=level, least_difference=least_difference)
    return Significance(
        baseline=baseline,
        seeds=tuple(seeds),
        level=level,
        least_difference=least_difference,
        verdicts={label: judge(each) for label, each in runs.items() if label != baseline},
        runs=runs,
    )


def _outcome(label: str, trial: Trial, answer: Answer) -> Outcome:
    if isinstance(answer, InputError):
        raise InputError(f"{label} with seed {trial.seed}: {answer}") from answer
    return answer


def _against(baseline: Runs, runs: Runs, **settings: float) -> dict[str, Verdict]:
    return compare_paired(runs.drawn, baseline.drawn, fitted=(runs.fitted, baseline.fitted), **settings)
