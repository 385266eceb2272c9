"""From measured and simulated runs to what they say of the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simulator.validation.agreement import METRICS, Batches, Case, IterationErrors, errors_by_kind, pairs
from simulator.validation.audit import AuditColumns
from simulator.validation.ranking import noise_of, order, overall, winners
from simulator.validation.validation import Validation
from simulator.validation.verdict import verdict
from traces.metrics import Metrics, measure
from traces.run_record import RunRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One policy under one load: the measured run, the simulated one, and the audit."""

    load: str
    policy: str
    measured: RunRecord
    simulated: RunRecord
    audit: AuditColumns


def judged(
    trials: Sequence[Trial],
    drift: Mapping[tuple[str, str], float],
    others: Mapping[tuple[str, str], float],
    provenance: Mapping[str, Any],
) -> Validation:
    """Return what trials, load by load, say of the simulator; ``drift`` and ``others`` are those of cases."""
    measured, predicted = _metrics(trials, "measured"), _metrics(trials, "simulated")
    cases = tuple(
        replace(
            _case(trial, measured[trial.load], predicted[trial.load]),
            drift=drift.get((trial.load, trial.policy)),
            others=others.get((trial.load, trial.policy)),
        )
        for trial in trials
    )
    audits = [trial.audit for trial in trials]
    errors = IterationErrors.of(audits)
    steady = IterationErrors.of([at_steady_pace(trial, drift) for trial in trials]) if drift else errors
    noise = noise_of(errors.median)
    found = winners(measured, predicted, cases, noise)
    best = overall(found)
    scopes = {"all": cases} | {load: tuple(case for case in cases if case.load == load) for load in measured}
    orders = {name: {scope: order(own, name, noise) for scope, own in scopes.items()} for name in METRICS}
    return Validation(
        cases=cases,
        errors=errors,
        steady_errors=steady,
        by_kind=errors_by_kind(audits),
        winners=found,
        best_measured=best[0],
        best_predicted=best[1],
        orders=orders,
        noise=noise,
        verdict=verdict(cases, errors, steady, found, best, orders, noise, provenance["cost_model"]),
        provenance=provenance,
    )


def at_steady_pace(trial: Trial, drift: Mapping[tuple[str, str], float]) -> AuditColumns:
    """Return the audit with what the cost model gives for a machine that never changes its pace."""
    predicted_s = trial.audit.predicted_s / (1 + drift.get((trial.load, trial.policy), 0.0))
    return replace(trial.audit, predicted_s=predicted_s)


def _metrics(trials: Sequence[Trial], name: str) -> dict[str, dict[str, Metrics]]:
    found: dict[str, dict[str, Metrics]] = {}
    for trial in trials:
        found.setdefault(trial.load, {})[trial.policy] = measure(getattr(trial, name))
    return found


def _case(trial: Trial, measured: Mapping[str, Metrics], predicted: Mapping[str, Metrics]) -> Case:
    return Case(
        load=trial.load,
        policy=trial.policy,
        metrics=pairs(measured[trial.policy], predicted[trial.policy]),
        errors=IterationErrors.of([trial.audit]),
        by_kind=errors_by_kind([trial.audit]),
        batches=Batches.of(trial.audit, trial.measured, trial.simulated),
    )
