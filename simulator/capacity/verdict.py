"""What a capacity means, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.capacity.capacity import Capacity
from simulator.capacity.ratio import ratio
from simulator.capacity.saturation import SATURATION, drift
from simulator.interval import COVERAGE
from simulator.scoreboard import three_digits


def verdicts(capacities: Mapping[str, Capacity]) -> list[str]:
    """Return the sentences of a report, the most important first: which is best, then each by itself."""
    return [*_best(capacities), *(verdict(label, capacity) for label, capacity in capacities.items())]


def verdict(label: str, capacity: Capacity) -> str:
    """Say how much a policy sustains, how sure that is, and what ends it."""
    if capacity.unmet:
        return f"{label} does not meet the SLO at any rate: {unmet(capacity)}."
    if capacity.unlimited:
        return (
            f"{label} meets the SLO even with all requests at once, of which it served "
            f"{three_digits(capacity.rate_per_s)}/s: they are too few to find the limit (more --num-prompts)."
        )
    seeds = "1 seed" if len(capacity.seeds) == 1 else f"{len(capacity.seeds)} seeds"
    sure = f"{interval(capacity)}, {seeds}, {capacity.trials} simulations"
    return (
        f"{label} sustains {three_digits(capacity.rate_per_s)} requests/s ({sure}). {_end(capacity)}{_doubt(capacity)}"
    )


def interval(capacity: Capacity) -> str:
    """Return the interval with what it is: 2.94 to 3.16 with 90 % confidence."""
    span = f"{three_digits(capacity.low_per_s)} to {three_digits(capacity.high_per_s)}"
    if len(capacity.seeds) == 1:
        return f"{span} by the search alone: one seed does not say how much requests drawn anew change it"
    return f"{span} with {100 * COVERAGE:g} % confidence"


def unmet(capacity: Capacity) -> str:
    """Say what a policy that never meets the SLO comes to at best."""
    best = min(capacity.samples, key=lambda sample: sample.margin)
    return f"at best {best.worst} at {best.rate_per_s:.3g} requests/s"


def _best(capacities: Mapping[str, Capacity]) -> list[str]:
    ranked = sorted(capacities, key=lambda label: -capacities[label].rate_per_s)
    doubtful = any(each.unlimited or not (each.seen or each.unmet) for each in capacities.values())
    if len(ranked) < 2 or doubtful:
        return []
    first, second, last = ranked[0], ranked[1], ranked[-1]
    sentences = [_against(first, second, capacities)]
    return sentences if last == second else [*sentences, _against(first, last, capacities)]


def _against(one: str, other: str, capacities: Mapping[str, Capacity]) -> str:
    found = ratio(capacities[one], capacities[other])
    if found is None:
        return f"{one} meets the SLO; {other} does not." if capacities[one].rate_per_s else "None meets the SLO."
    span = f"{three_digits(found.low)} to {three_digits(found.high)}"
    if not found.certain:
        return f"{one} and {other} cannot be told apart: a ratio of {three_digits(found.value)} ({span})."
    return f"{one} sustains {three_digits(found.value)} times the rate of {other} ({span}, seed by seed)."


def _end(capacity: Capacity) -> str:
    limit = capacity.service_limit_per_s
    if capacity.bound_by == SATURATION:
        most = f"more than {three_digits(limit)} requests/s are not served" if limit else "requests stay behind"
        return f"Beyond that it is saturated: {most}, whatever the latencies of a short run."
    failed = [above for seed in capacity.seeds if (above := seed.above) and above.bound_by == capacity.bound_by]
    seen = f" ({failed[0].worst} at {three_digits(failed[0].rate_per_s)}/s)" if failed else ""
    share = f"; it would saturate at {three_digits(limit)}" if limit else ""
    return f"Beyond that the {capacity.bound_by} breaks the SLO{seen}{share}."


def _doubt(capacity: Capacity) -> str:
    """Say what the runs do not tell."""
    if not capacity.seen:
        return " Caution: no rate was seen to hold; the trials ended before (a lower --guess, more --most-trials)."
    if not capacity.stability:
        drowns = " Caution: that is more than is served for ever; in a longer run the queue grows without end."
        return drowns if capacity.stable is False else ""
    if capacity.stable is None:
        return " The requests are too few to tell how much it serves; only a queue that grows beyond doubt was refused."
    growing = [seed for seed in capacity.seeds if (below := seed.below) and drift(below.outcome).grows]
    if 2 * len(growing) > len(capacity.seeds):
        return " Caution: the requests in the system increased during the run even at the rate that held."
    return ""
