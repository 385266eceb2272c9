"""What holds and what falls short, in plain words, each time with the worst case and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from simulator.figure_style import KIND_NAMES
from simulator.scoreboard import duration
from simulator.validation.agreement import Case, IterationErrors, farthest
from simulator.validation.audit import COVERAGE
from simulator.validation.ranking import Order, Winner
from simulator.validation.validation import Finding


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a prediction may be off, as shares.

    Attributes
    ----------
    iteration
        The median iteration. Policies whose P99 TBT is within 5 % of the best count as equal when a winner is
        found, so errors below that do not decide who wins.
    latency
        The medians of ``metrics``, in every case. They add up many iterations, and the queue that a small error
        makes longer or shorter: so they get more room.
    metrics
        The latencies that are judged: what a user feels of a whole answer.
    """

    iteration: float = 0.05
    latency: float = 0.08
    metrics: tuple[str, ...] = ("TPOT P50", "End-to-end P50")


LIMITS = Limits()
QUIET = 0.1
"""Processors that other programs may keep busy on a machine that is called quiet."""


def percent(share: float, *, signed: bool = True) -> str:
    """Return a share in percent, e.g. ``"+3.1 %"``; "–" for NaN."""
    if isnan(share):
        return "–"
    return f"{100 * share:{'+' if signed else ''}.1f} %"


def verdict(
    cases: Sequence[Case],
    errors: IterationErrors,
    steady: IterationErrors,
    winners: Mapping[str, Winner],
    best: tuple[str, str],
    orders: Mapping[str, Mapping[str, Order]],
    noise: float,
    cost_model: Mapping[str, Any],
) -> tuple[Finding, ...]:
    """Return what there is to say, the sum of it first.

    Parameters
    ----------
    steady
        Errors of the iteration times, had the predictions not known how the machine's pace changed.
    best
        The best policy over all loads: (measured, predicted).
    cost_model
        What :meth:`profiler.cost_model.CostModel.describe` says.
    """
    promised = [
        _iterations(cases, errors),
        *(_latency(cases, metric) for metric in LIMITS.metrics),
        _best(winners, best, noise),
        _batches(cases),
    ]
    told = [
        _profile(cost_model.get("engine")),
        _order(orders, noise),
        _coverage(errors),
        _parting(cases),
        _drift(cases, steady),
        _others(cases),
    ]
    return (_sum(promised), *promised, *(finding for finding in told if finding.text))


def _sum(promised: Sequence[Finding]) -> Finding:
    short = [finding.subject for finding in promised if not finding.holds]
    if not short:
        text = f"The simulator predicts this engine on this machine: all {len(promised)} points hold."
    else:
        text = (
            f"The simulator falls short of this engine in {len(short)} of {len(promised)} points: {', '.join(short)}."
        )
    return Finding(subject="in sum", holds=not short, text=text)


def _iterations(cases: Sequence[Case], errors: IterationErrors) -> Finding:
    worst = max(cases, key=lambda case: -1.0 if isnan(case.errors.median) else case.errors.median)
    text = (
        f"The median iteration is {percent(errors.median, signed=False)} off over {errors.iterations:,} iterations "
        f"(limit {_limit(LIMITS.iteration)}; P90 {percent(errors.p90, signed=False)}, in all "
        f"{percent(errors.total)}). Worst case: {worst.name}, median "
        f"{percent(worst.errors.median, signed=False)}, bias {percent(worst.errors.bias)}{_drifted(worst)}."
    )
    return Finding(subject="iteration time", holds=errors.median <= LIMITS.iteration, text=text)


def _latency(cases: Sequence[Case], metric: str) -> Finding:
    worst = farthest(cases, metric)
    if worst is None:
        return Finding(subject=metric, holds=False, text=f"No case has a {metric} to compare.")
    known = [case for case in cases if not isnan(case.metrics[metric].deviation)]
    late = [case for case in known if abs(case.metrics[metric].deviation) > LIMITS.latency]
    limit = f"within {_limit(LIMITS.latency)}"
    if not late:
        text = f"All {len(known)} cases are {limit}. Worst: {_told(worst, metric)}."
    else:
        late.sort(key=lambda case: -abs(case.metrics[metric].deviation))
        others = [f"{case.name} {percent(case.metrics[metric].deviation)}" for case in late[1:]]
        rest = f". Also beyond: {'; '.join(others)}" if others else ""
        text = f"{len(known) - len(late)} of {len(known)} cases are {limit}. Worst: {_told(late[0], metric)}{rest}."
    return Finding(subject=metric, holds=not late, text=text)


def _told(case: Case, metric: str) -> str:
    pair = case.metrics[metric]
    kinds = ", ".join(f"{KIND_NAMES[kind]} {percent(errors.total)}" for kind, errors in case.by_kind.items())
    return (
        f"{case.name}: measured {duration(pair.measured)}, predicted {duration(pair.predicted)} "
        f"({percent(pair.deviation)}; its iterations: {kinds or 'none'}{_drifted(case)})"
    )


def _drifted(case: Case) -> str:
    return "" if case.drift is None else f"; machine drift {percent(case.drift)}"


def _best(winners: Mapping[str, Winner], best: tuple[str, str], noise: float) -> Finding:
    other = [each for each in winners.values() if not each.agree]
    holds = not other and best[0] == best[1]
    if holds:
        same = dict.fromkeys(each.measured for each in winners.values())
        where = (
            f"{best[0]} at every load"
            if len(same) == 1
            else ", ".join(f"{each.load}: {each.measured}" for each in winners.values())
        )
        return Finding(
            subject="best policy", holds=True, text=f"Measurement and prediction choose the same policy: {where}."
        )
    parts = [_chosen(each, noise) for each in other]
    if best[0] != best[1]:
        parts.append(f"over all loads the best is {best[0]} as measured and {best[1]} as predicted")
    else:
        parts.append(f"over all loads both choose {best[0]}")
    text = "; ".join(parts)
    return Finding(subject="best policy", holds=False, text=f"{text[0].upper()}{text[1:]}.")


def _chosen(each: Winner, noise: float) -> str:
    costs = ", ".join(f"{name} {percent(cost)}" for name, cost in each.cost.items())
    tie = f", a tie within the noise of {percent(noise, signed=False)}" if each.tie else ""
    return (
        f"at load {each.load} the best is {each.measured} as measured and {each.predicted} as predicted{tie} "
        f"(to choose by prediction costs: {costs})"
    )


def _batches(cases: Sequence[Case]) -> Finding:
    measured, same = (sum(getattr(case.batches, name) for case in cases) for name in ("measured", "same"))
    other = [case for case in cases if case.batches.first_different is not None]
    subject = "same batches"
    if not other:
        text = f"Given the measured times, the simulator makes all {measured:,} batches as the engine made them."
        return Finding(subject=subject, holds=True, text=text)
    where = "; ".join(f"{case.name}: iteration {case.batches.first_different:,} is the first" for case in other)
    text = (
        f"Given the measured times, the simulator makes {same:,} of {measured:,} batches as the engine made them; "
        f"others differ: {where}. Errors of iteration times leave the others out."
    )
    return Finding(subject=subject, holds=False, text=text)


def _order(orders: Mapping[str, Mapping[str, Order]], noise: float) -> Finding:
    known = {name: own["all"] for name, own in orders.items() if not isnan(own["all"].tau)}
    if not known:
        return Finding(subject="order", holds=None, text="")
    low, high = min(known, key=lambda name: known[name].tau), max(known, key=lambda name: known[name].tau)
    turned, ties = (sum(getattr(each, key) for each in known.values()) for key in ("reversed", "reversed_ties"))
    pairs = sum(each.pairs for each in known.values())
    least = f"{known[low].tau:.2f}"
    span = f"{least} ({low}) to {known[high].tau:.2f} ({high})" if low != high else f"{least} for every metric"
    text = (
        f"Kendall's tau between measured and predicted over all cases: {span}. {turned:,} of {pairs:,} pairs come in "
        f"another order, {ties:,} of them ties that lie within {percent(noise, signed=False)} as measured."
    )
    return Finding(subject="order", holds=None, text=text)


def _profile(engine: Mapping[str, Any] | None) -> Finding:
    text = "No whole iterations were measured, or too few: the cost model knows the engine's ops alone."
    if engine is not None:
        median, p90 = (percent(engine["errors"][key], signed=False) for key in ("median", "p90"))
        text = (
            f"The cost model stands on {engine['rows']} designed iterations; those that it had not seen it predicts "
            f"{median} off (median; P90 {p90})."
        )
    return Finding(subject="profile", holds=None, text=text)


def _coverage(errors: IterationErrors) -> Finding:
    text = (
        f"{percent(errors.coverage, signed=False)} of the iterations lie within the interval that the cost model "
        f"gives for {100 * COVERAGE:.0f} %."
    )
    return Finding(subject="interval", holds=None, text="" if isnan(errors.coverage) else text)


def _parting(cases: Sequence[Case]) -> Finding:
    parted = [case for case in cases if case.batches.leading < case.batches.measured]
    if not parted:
        return Finding(subject="free run", holds=None, text="The free simulations make the same batches to the end.")
    soonest = min(parted, key=lambda case: case.batches.leading)
    audited = all(case.batches.same == case.batches.measured for case in parted)
    why = " when a request arrives on the other side of an iteration's end" if audited else ""
    text = (
        f"On predicted times {len(cases) - len(parted)} of {len(cases)} simulations make the engine's batches to the "
        f"end; the others part from it{why}, {soonest.name} the soonest: after {soonest.batches.leading:,} of "
        f"{soonest.batches.measured:,} iterations."
    )
    return Finding(subject="free run", holds=None, text=text)


def _drift(cases: Sequence[Case], steady: IterationErrors) -> Finding:
    known = sorted((case.drift, case.name) for case in cases if case.drift is not None)
    if not known:
        return Finding(subject="drift", holds=None, text="")
    span = " to ".join(f"{percent(drift)} ({name})" for drift, name in dict.fromkeys((known[0], known[-1])))
    text = (
        f"During the replays iterations took {span} longer (+) or shorter (-) on average than in the profile, by "
        "designed batches that ran while a replay's clock stood still; each prediction is for the machine as it was. "
        f"Had it not known, the median iteration would be {percent(steady.median, signed=False)} off, and all together "
        f"{percent(steady.total)}."
    )
    return Finding(subject="drift", holds=None, text=text)


def _others(cases: Sequence[Case]) -> Finding:
    known = sorted((case.others, case.name) for case in cases if case.others is not None)
    if not known:
        return Finding(subject="other programs", holds=None, text="")
    most, name = known[-1]
    text = f"They kept up to {most:.2f} processors busy during a replay ({name})"
    text += ": the machine was quiet." if most <= QUIET else ", which slows an engine; the simulator knows of none."
    return Finding(subject="other programs", holds=None, text=text)


def _limit(share: float) -> str:
    return f"{100 * share:.0f} %"
