"""Why the winner won, in a few sentences made of figures."""

from __future__ import annotations

from collections.abc import Mapping
from math import isinf

from simulator.capacity.saturation import SATURATION
from simulator.scoreboard import duration
from simulator.search.estimate import Estimate
from simulator.search.lead import Lead
from simulator.search.mean_batch import MeanBatch, mean_batch
from simulator.search.search import Found, Task
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome

FULL = 0.95
"""Share of the KV blocks, or of the seats of a batch, from which on they are said to be short."""


def explain(task: Task, found: Found) -> list[str]:
    """Return why the winner won and how sure that is: what it is worth, what holds it back, where its time goes, and
    how it compares with each runner-up."""
    winner, objective = task.candidates[found.winner], task.objective
    estimate, outcome = found.finals[found.winner], found.podium[found.winner].outcome
    value = objective.value_of(winner, estimate)
    workload = task.demand.workload(found.rate_per_s, task.seed)
    held_per_s, metrics = estimate.held_per_s or found.rate_per_s, estimate.metrics or outcome.metrics
    batch = mean_batch(winner.scenario(workload).cluster, metrics, workload)
    return [
        f"{found.winner}: {value:.3g} {objective.unit} within {task.slo}.",
        bound(winner, estimate, metrics, batch),
        mean_batch_text(batch, metrics, held_per_s),
        *(against(each, outcome, found.podium[each.over].outcome, found.rate_per_s) for each in found.leads),
    ]


def bound(candidate: Candidate, estimate: Estimate, metrics: Mapping[str, float], batch: MeanBatch) -> str:
    """Return what holds the winner back: what fails first beyond its capacity, and which resource it is short of."""
    short = _short_of(candidate, metrics, batch)
    if isinf(estimate.high_per_s):
        return f"The requests are too few to find its limit: the SLO holds even with all of them at once; {short}."
    grows = estimate.bound_by == SATURATION
    fails = "the queue grows without end" if grows else f"{estimate.bound_by} misses its limit"
    return f"Beyond {estimate.rate_per_s:.3g} requests/s {fails}; {short}."


def _short_of(candidate: Candidate, metrics: Mapping[str, float], batch: MeanBatch) -> str:
    kv, preemptions = metrics["KV use, max"], metrics["Preemptions"]
    if preemptions > 0 or kv > FULL:
        return f"KV memory is what it is short of there ({100 * kv:.0f} % of the blocks, {preemptions:.0f} preemptions)"
    seats = candidate.choice.settings.max_num_seqs
    if metrics["Decodes an iteration"] > FULL * seats:
        return f"the cap of {seats} sequences is what it is short of there"
    share = 100 * batch.shares[batch.most]
    return f"{batch.most} is what it is short of there ({share:.0f} % of the time of its mean batch)"


def mean_batch_text(batch: MeanBatch, metrics: Mapping[str, float], rate_per_s: float) -> str:
    """Return where the time of the mean batch goes at a rate, the highest that was seen to hold."""
    shares = ", ".join(f"{100 * share:.0f} % {name}" for name, share in batch.shares.items() if share >= 0.005)
    mfu = metrics["MFU while busy"]
    busy = "" if mfu != mfu else f"; MFU while busy {100 * mfu:.0f} %"
    return (
        f"At {rate_per_s:.3g} requests/s its mean batch holds {batch.decodes} decodes and {batch.prompt_tokens} prompt "
        f"tokens and takes {duration(batch.time_s)} on a stage: {shares}{busy}."
    )


def against(lead: Lead, ours: Outcome, theirs: Outcome, rate_per_s: float) -> str:
    """Return how sure the winner is better than another, and in what the two differ at the same rate, requests/s."""
    names = ("TTFT P99", "TBT P99", "Tokens an iteration", "MFU while busy")
    differing = [
        f"{name} {_figure(name, ours.metrics[name])} against {_figure(name, theirs.metrics[name])}"
        for name in names
        if abs(ours.metrics[name] - theirs.metrics[name]) > 0.02 * abs(theirs.metrics[name])
    ]
    text = f"{lead.verdict[0].upper()}{lead.verdict[1:]}"
    at = f"both at {rate_per_s:.3g} requests/s"
    return f"{text}; {at}: {', '.join(differing)}." if differing else f"{text}."


def _figure(name: str, value: float) -> str:
    if name.startswith("T") and "iteration" not in name:
        return duration(value)
    return f"{100 * value:.0f} %" if name.startswith("MFU") else f"{value:.3g}"
