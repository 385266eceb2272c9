"""Which metrics policies are judged by, and two policies' verdict in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

from simulator.significance.verdict import LEAST_DIFFERENCE, LEVEL, Better, Verdict, paired
from simulator.trials.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A metric of :class:`simulator.trials.outcome.Outcome`, which way is better, and how to write it."""

    name: str
    better: Better = "low"
    unit: Literal["time", "percent", "none"] = "time"


JUDGED = (
    *(Judged(name=f"TTFT {figure}") for figure in ("P50", "P90", "P99")),
    *(
        Judged(name=f"{latency} {figure}")
        for latency in ("TBT", "TPOT", "End-to-end", "Scheduling delay")
        for figure in ("P50", "P99")
    ),
    Judged(name="Output tokens/s", better="high", unit="none"),
    Judged(name="Goodput", better="high", unit="percent"),
    Judged(name="Waiting, mean", unit="none"),
    Judged(name="Preemptions", unit="none"),
    Judged(name="MFU while busy", better="high", unit="percent"),
)
"""Requests/s, all tokens/s and good requests/s are not among them: of equal requests they say what others here say."""


def compare_paired(
    a: Sequence[Outcome],
    b: Sequence[Outcome],
    *,
    fitted: tuple[Sequence[Outcome], Sequence[Outcome]] | None = None,
    level: float = LEVEL,
    least_difference: float = LEAST_DIFFERENCE,
) -> dict[str, Verdict]:
    """Return the verdict on A and B in each metric of :data:`JUDGED` that all outcomes have.

    p-values are corrected for the number of metrics (:func:`corrected`), so that in comparisons of equals any of
    them is called better in a share ``level`` at most.

    Parameters
    ----------
    a, b, fitted, level, least_difference
        As :func:`simulator.significance.verdict.paired` has them.
    """
    runs = (a, b, *(fitted or ()))
    found = {}
    for metric in JUDGED:
        columns = [[outcome.metrics[metric.name] for outcome in outcomes] for outcomes in runs]
        if all(isfinite(value) for column in columns for value in column):
            found[metric.name] = paired(
                columns[0],
                columns[1],
                better=metric.better,
                fitted=(columns[2], columns[3]) if fitted else None,
                level=level,
                least_difference=least_difference,
            )
    p_values = corrected({name: verdict.p_value for name, verdict in found.items()})
    return {name: replace(verdict, p_value=p_values[name]) for name, verdict in found.items()}


def corrected(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values that may each be held against the level as if it were the only one (Holm 1979)."""
    ascending = sorted(p_values, key=lambda name: p_values[name])
    found, most = {}, 0.0
    for place, name in enumerate(ascending):
        most = max(most, min(1.0, (len(ascending) - place) * p_values[name]))
        found[name] = most
    return {name: found[name] for name in p_values}
