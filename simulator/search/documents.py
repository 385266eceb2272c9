"""What a search leaves behind: policy.json, deployment.json and cluster.json to be deployed, search.json with all."""

from __future__ import annotations

from dataclasses import asdict, replace
from math import floor
from typing import Any

from policies.catalog import PolicyChoice
from simulator.cluster_settings import ClusterSettings
from simulator.interval import COVERAGE
from simulator.search.estimate import Estimate
from simulator.search.search import Found, Task
from simulator.search.space import Selection
from traces.metrics import without_nan


def policy_choice(task: Task, found: Found, reasons: str, command: str) -> PolicyChoice:
    """Return the winner's policy with what is predicted of it: the content of policy.json."""
    candidate, placed = task.candidates[found.winner], found.podium[found.winner]
    predicted = {
        "workload": {**task.demand.as_dict(), "request_rate": found.rate_per_s, "seed": task.seed},
        "deployment": candidate.deployments()[0].to_json(),
        "replicas": candidate.cluster.replicas,
        "profile": candidate.profile,
        "coverage": coverage(task.draws),
        **placed.as_dict(),
        "slo": task.slo.spelled,
        "goodput": "" if task.slo.goodput is None else task.slo.goodput.spelled,
        "goodput_share": task.slo.share,
        "objective": objective_document(task, found),
        "runners_up": [_runner_up(task, found, label) for label in list(found.podium)[1:]],
        "why": reasons,
        "command": command,
    }
    return replace(candidate.choice, predicted=predicted)


def coverage(draws: int) -> float:
    """Return the share of values that intervals of so many draws hold, in whole percent: of n exchangeable ones the
    least and the most leave out one more with a chance of 2 / (n + 1), and no interval is made to hold more than
    :data:`simulator.interval.COVERAGE`."""
    return min(COVERAGE, floor(100 * (draws - 1) / (draws + 1)) / 100)


def objective_document(task: Task, found: Found) -> dict[str, Any]:
    """Return what was wanted, and what the winner is worth."""
    objective = task.objective
    value = objective.value_of(task.candidates[found.winner], found.finals[found.winner])
    return {"name": objective.name, "value": value, "unit": objective.unit}


def _runner_up(task: Task, found: Found, label: str) -> dict[str, Any]:
    candidate, placed = task.candidates[label], found.podium[label]
    return {
        **replace(candidate.choice, predicted={}).as_dict(),
        "deployment": candidate.deployments()[0].to_json(),
        "replicas": candidate.cluster.replicas,
        **placed.as_dict(),
        "value": task.objective.value_of(candidate, found.finals[label]),
    }


def cluster_document(cluster: ClusterSettings) -> dict[str, Any] | None:
    """Return what ``--cluster`` takes; None for a single replica, which needs none."""
    if cluster.replicas == 1:
        return None
    groups = [{name: value for name, value in asdict(group).items() if value is not None} for group in cluster.groups]
    document: dict[str, Any] = {"groups": groups, "router": cluster.router.as_dict()}
    if cluster.disaggregated:
        document["link"] = {name: value for name, value in asdict(cluster.link).items() if value is not None}
    if cluster.failures != type(cluster.failures)():
        document["failures"] = {name: value for name, value in asdict(cluster.failures).items() if value is not None}
    return document


def search_document(
    task: Task, selection: Selection, found: Found, sentences: list[str], command: str
) -> dict[str, Any]:
    """Return all that was found: the content of search.json."""
    return {
        "winner": found.winner,
        "why": sentences,
        "objective": objective_document(task, found),
        "slo": str(task.slo),
        "workload": {**task.demand.as_dict(), "request_rate": found.rate_per_s, "seed": task.seed},
        "coverage": coverage(task.draws),
        "podium": [_candidate(task, found, label) for label in found.podium],
        "leads": [each.as_dict() for each in found.leads],
        "space": {"size": selection.size, "tried": len(selection.candidates), "impossible": len(selection.impossible)},
        "rungs": [
            {
                **step.rung.as_dict(),
                "refused": dict(step.refused),
                "dominated": dict(step.dominated),
                "kept": list(step.kept),
                "estimates": {label: _worth(task, label, each) for label, each in step.estimates.items()},
            }
            for step in found.steps
        ],
        "impossible": dict(selection.impossible),
        "simulations": sum(each.trials for step in found.steps for each in step.estimates.values()),
        "command": command,
    }


def _candidate(task: Task, found: Found, label: str) -> dict[str, Any]:
    candidate, placed = task.candidates[label], found.podium[label]
    return {
        "label": label,
        **_worth(task, label, found.finals[label]),
        "candidate": candidate.as_dict(),
        "gpus": candidate.gpus,
        "usd_per_hour": task.objective.prices.per_hour(candidate.gpus),
        "predicted": placed.as_dict(),
    }


def _worth(task: Task, label: str, estimate: Estimate) -> dict[str, Any]:
    value = without_nan(task.objective.value_of(task.candidates[label], estimate))
    return {"value": value, **estimate.as_dict()}
