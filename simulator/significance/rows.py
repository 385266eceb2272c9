"""Verdicts as people read them: a row a metric, and a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isnan
from statistics import median

from simulator.scoreboard import duration, three_digits
from simulator.significance.metrics import JUDGED
from simulator.significance.significance import Significance
from simulator.significance.verdict import Side, Verdict

HEADINGS = ("difference", "95 % interval", "cost model", "verdict")
LARGE = 2.0
"""From this ratio on differences are written as factors."""
UNITS = {metric.name: metric.unit for metric in JUDGED}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric of a policy (A) and of the baseline (B), as texts."""

    name: str
    a: str
    b: str
    difference: str
    interval: str
    cost_share: str
    verdict: str
    winner: Side | None

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the columns after the name."""
        return self.a, self.b, self.difference, self.interval, self.cost_share, self.verdict


def rows(significance: Significance, label: str) -> list[Row]:
    """Return a row for each metric in which a policy was judged."""
    return [
        Row(
            name=name,
            a=_amount(name, verdict.mean_a),
            b=_amount(name, verdict.mean_b),
            difference=_change(name, verdict, verdict.difference),
            interval=_interval(_change(name, verdict, verdict.low), _change(name, verdict, verdict.high)),
            cost_share="–" if isnan(verdict.cost_share) else f"{100 * verdict.cost_share:.0f} %",
            verdict=verdict.text(label, significance.baseline),
            winner=verdict.winner,
        )
        for name, verdict in significance.verdicts[label].items()
    ]


def sentences(significance: Significance) -> list[str]:
    """Return for each policy who is better in how much, where the spread comes from, and what would decide the rest."""
    found = []
    for label, verdicts in significance.verdicts.items():
        found.append(f"{label} against {significance.baseline}: {_tally(label, significance.baseline, verdicts)}.")
        found.append(f"{_spread(verdicts)}{_wanted(verdicts)}")
    return found


def explanation(significance: Significance) -> str:
    """Return how to read the rows."""
    return (
        f"Averages over {len(significance.seeds)} pairs of runs with the same requests and the same draw of what the "
        "cost model may be wrong by. The interval is for the difference on the machine, each by itself: chance in the "
        "requests averages out in it, an error of the cost model does not; the latter's share of the variance between "
        "pairs stands beside it. A policy is called better where that holds for all metrics together (Holm, "
        f"{100 * significance.level:g} %) and beyond {100 * significance.least_difference:g} %."
    )


def _amount(name: str, value: float) -> str:
    if UNITS[name] == "time":
        return duration(value)
    return f"{three_digits(100 * value)} %" if UNITS[name] == "percent" else three_digits(value)


def _change(name: str, verdict: Verdict, difference: float) -> str:
    """Return a difference as people say it: in percent of B, as a factor where it may be large, else in units."""
    if verdict.ratio:
        large = exp(verdict.high) >= LARGE
        return f"x{three_digits(exp(difference))}" if large else f"{100 * (exp(difference) - 1):+.1f} %"
    sign = "-" if difference < 0 else "+"
    if UNITS[name] == "percent":
        return f"{sign}{three_digits(100 * abs(difference))} pts"
    return sign + _amount(name, abs(difference))


def _interval(low: str, high: str) -> str:
    """Return both ends, with their unit once where it is the same."""
    unit = high.partition(" ")[2]
    return f"{low.removesuffix(f' {unit}')} … {high}" if unit else f"{low} … {high}"


def _tally(label: str, baseline: str, verdicts: Mapping[str, Verdict]) -> str:
    texts = [verdict.text(label, baseline) for verdict in verdicts.values()]
    better = [f"{name} is better in {texts.count(f'{name} is better')}" for name in (label, baseline)]
    parts = [part for part in better if not part.endswith(" in 0")]
    parts += [f"{texts.count(text)} {text}" for text in ("equal", "cannot be told apart") if text in texts]
    return f"of {len(texts)} metrics {', '.join(parts)}"


def _spread(verdicts: Mapping[str, Verdict]) -> str:
    known = [verdict.cost_share for verdict in verdicts.values() if not isnan(verdict.cost_share)]
    if not known:
        return "No run differs from another."
    share = median(known)
    return (
        f"Of the variance between pairs {100 * (1 - share):.0f} % comes from the requests drawn and "
        f"{100 * share:.0f} % from the cost model (median over metrics)."
    )


def _wanted(verdicts: Mapping[str, Verdict]) -> str:
    """Return what would decide the metrics that are not decided: to simulate more, or to profile better."""
    text = ""
    for want in ("more seeds", "longer runs or a better profile"):
        names = [name for name, verdict in verdicts.items() if verdict.wants == want]
        if names:
            text += f" {want.capitalize()} might decide {'; '.join(names)}."
    return text
