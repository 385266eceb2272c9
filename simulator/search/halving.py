"""Successive halving: all candidates on a short demand, the better ones on longer ones, the last ones on all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

from simulator.capacity.slo import Slo
from simulator.search.estimate import Estimate, Refusal, estimate
from simulator.search.objective import Objective
from simulator.search.rung import Rung
from simulator.trials.candidate import Candidate
from simulator.trials.crew import Rounds
from traces.demand import Demand
from traces.errors import InputError

PODIUM = 3
"""The winner and the runners-up, who are not left out for being dominated."""
KV_USE = "KV use, max"
NOISE = 4.0
"""Over the root of the number of requests: the share by which one run must be better than another, beyond the brackets
of both capacities, before longer ones are taken to agree. 25 % at 256 requests."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A rung that is over.

    Attributes
    ----------
    estimates
        What was found, by label, the best first.
    refused
        Why candidates could not be tried, by label.
    dominated
        Candidates that went no further since another one, on no more of the same devices, clearly serves more: label ->
        its label.
    kept
        Those that went on to the next rung; on the last one, all.
    """

    rung: Rung
    estimates: Mapping[str, Estimate]
    refused: Mapping[str, str] = field(default_factory=dict)
    dominated: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def halve(
    candidates: Mapping[str, Candidate], demand: Demand, slo: Slo, objective: Objective, ladder: Sequence[Rung]
) -> Rounds[list[Step]]:
    """Return the rounds that sort candidates out, one for each rung.

    A candidate begins a rung at the rate that the one before found. Results depend on answers alone: a rung is judged
    when all of its candidates are through.

    Raises
    ------
    InputError
        If no candidate meets the SLO, or none reaches the rate that is asked for: with the one that comes nearest.
    """
    going, guesses, steps = list(candidates), dict[str, float | None](), list[Step]()
    for rung, following in zip(ladder, [*ladder[1:], None], strict=True):
        plans = {label: estimate(candidates[label], demand, slo, rung, guesses.get(label)) for label in going}
        found = yield plans
        keep = None if following is None else following.candidates
        step = judge(found, candidates, objective, rung, keep, last_cut=following in (ladder[-1], None))
        check(step, slo)
        steps.append(step)
        going = list(step.kept)
        guesses = {label: step.estimates[label].rate_per_s for label in going}
    check_reached(steps[-1], slo, objective)
    return steps


def judge(
    found: Mapping[str, Estimate | Refusal],
    candidates: Mapping[str, Candidate],
    objective: Objective,
    rung: Rung,
    keep: int | None,
    *,
    last_cut: bool = False,
) -> Step:
    """Return a rung that is over, with up to ``keep`` candidates that go on; None: it was the last.

    Whom no rate was seen to hold for comes last and goes no further. At the last cut those who did exactly what a
    better one did come after all others.
    """
    known = {label: each for label, each in found.items() if isinstance(each, Estimate)}
    order = sorted(known, key=lambda label: (not known[label].seen, objective.rank(candidates[label], known[label])))
    dominated = {} if keep is None else _dominated(order, known, candidates)
    going = [label for label in order if label not in dominated and known[label].rate_per_s > 0 and known[label].seen]
    if last_cut:
        going = distinct(going, known)
    return Step(
        rung=rung,
        estimates={label: known[label] for label in order},
        refused={label: each.reason for label, each in found.items() if isinstance(each, Refusal)},
        dominated=dominated,
        kept=tuple(going[:keep]),
    )


def distinct(order: Sequence[str], known: Mapping[str, Estimate]) -> list[str]:
    """Return labels in order, but those last whose simulations came out to the last digit as those of one before.

    The share of the KV blocks does not count, of which there are more or fewer by the size of the largest batch.
    """
    first: dict[str, str] = {}
    for label in order:
        each = known[label]
        metrics = {name: value for name, value in each.metrics.items() if name != KV_USE}
        first.setdefault(repr((each.seeds_per_s, each.held_per_s, metrics)), label)
    leading = set(first.values())
    return [label for label in order if label in leading] + [label for label in order if label not in leading]


def _dominated(
    order: Sequence[str], known: Mapping[str, Estimate], candidates: Mapping[str, Candidate]
) -> dict[str, str]:
    """Return who is dominated by whom: no fewer devices of the same kinds, and all of its interval below."""
    found = {}
    for label in order[PODIUM:]:
        by = next((other for other in order if _dominates(other, label, known, candidates)), None)
        if by is not None:
            found[label] = by
    return found


def _dominates(other: str, label: str, known: Mapping[str, Estimate], candidates: Mapping[str, Candidate]) -> bool:
    ours, theirs = candidates[label].gpus, candidates[other].gpus
    no_more = ours.keys() == theirs.keys() and all(theirs[device] <= ours[device] for device in ours)
    beyond = 1 + NOISE / sqrt(known[label].requests)
    return no_more and known[other].low_per_s > beyond * known[label].high_per_s


def check(step: Step, slo: Slo) -> None:
    """Raise :class:`InputError` if there is nobody to go on with."""
    if not step.estimates:
        label, reason = next(iter(step.refused.items()))
        raise InputError(f"none of {len(step.refused)} candidates can serve the demand; {label}: {reason}")
    if not step.kept:
        nearest = next((f"{label}: {each.nearest}" for label, each in step.estimates.items() if each.nearest), "")
        few = "at any rate that was tried" if any(each.rate_per_s for each in step.estimates.values()) else ""
        what = f"none of {len(step.estimates)} candidates meets {slo}, {few or 'however few requests arrive'}"
        what += f" (such as {nearest})" if nearest else ""
        raise InputError(what, where="--slo", expected="a looser one, other settings, or more or faster devices")


def check_reached(step: Step, slo: Slo, objective: Objective) -> None:
    """Raise :class:`InputError` if the best candidate of the last rung does not reach the rate that is asked for."""
    best = step.kept[0]
    capacity_per_s = step.estimates[best].rate_per_s
    if not objective.reaches(capacity_per_s):
        what = f"no candidate reaches {objective.request_rate_per_s:g} requests/s within {slo}"
        what += f": the most is {capacity_per_s:.3g}, {best}"
        raise InputError(what, where="--request-rate", expected="more --replicas, or a lower rate")
