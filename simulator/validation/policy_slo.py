"""Whether what a search predicted within, its SLO, was kept as measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.prediction import Interval, Prediction
from simulator.capacity.slo import GOODPUT, Slo, parse_slo
from simulator.trials.outcome import Outcome
from simulator.validation.validation import Finding
from simulator.validation.verdict import percent
from traces.goodput import parse_goodput

SUBJECT = "SLO"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How a setting kept an SLO: as the replay in the middle did, of two middle ones the worse.

    Attributes
    ----------
    margins
        One a replay (:meth:`simulator.capacity.slo.Slo.margin`): <= 0 where it held.
    worst
        What was missed by most, or kept by least, with its value: P99 TBT 143 ms.
    off
        By what share of its limit that was missed (+) or kept (-); of goodput, by what share of the requests.
    open
        Whether the predicted intervals reach beyond a limit: no more than that was promised.
    """

    margins: tuple[float, ...]
    worst: str
    off: float
    open: bool

    @property
    def held(self) -> bool:
        """Whether it held."""
        return self.off <= 0


def slo_of(prediction: Prediction, *, where: str = "predicted") -> Slo | None:
    """Return the SLO of a search, whose prediction comes from ``where``; None where it names none.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if not prediction.slo and not prediction.goodput:
        return None
    goodput = parse_goodput(prediction.goodput, where=f"{where}, goodput") if prediction.goodput else None
    return parse_slo(prediction.slo, goodput=goodput, share=prediction.goodput_share, where=f"{where}, slo")


def kept(slo: Slo, metrics: Mapping[str, Interval], outcomes: Sequence[Outcome]) -> Kept:
    """Return how ``outcomes``, one a replay, kept an SLO for which ``metrics`` were predicted."""
    middle = sorted(outcomes, key=slo.margin)[len(outcomes) // 2]
    value, limit = slo.measured(middle)[slo.bound_by(middle)]
    return Kept(
        margins=tuple(map(slo.margin, outcomes)),
        worst=slo.worst(middle),
        off=value - limit if slo.bound_by(middle) == GOODPUT else value / limit - 1,
        open=_open(slo, metrics),
    )


def _open(slo: Slo, metrics: Mapping[str, Interval]) -> bool:
    ends = [(metrics[each.metric].high, each.limit_s) for each in slo.terms if each.metric in metrics]
    if slo.goodput is not None and "Goodput" in metrics:
        ends.append((1 - metrics["Goodput"].low, 1 - slo.share))
    return any(end > limit for end, limit in ends)


def slo_finding(settings: Mapping[str, Kept | None]) -> Finding | None:
    """Return whether the winner, the first of the settings by label, kept the SLO, and which others did not.

    A miss falls short where the intervals left no room for it; where they did, it is told.
    """
    (_, winner), *others = settings.items()
    if winner is None:
        return None
    missed = [f"{label} ({each.worst})" for label, each in others if each is not None and not each.held]
    also = f" Runners-up that missed it: {', '.join(missed)}." if missed else ""
    return Finding(
        subject=SUBJECT, holds=True if winner.held else None if winner.open else False, text=f"{_told(winner)}{also}"
    )


def _told(winner: Kept) -> str:
    by = f"{percent(abs(winner.off), signed=False)}{' of the requests' if winner.worst.startswith(GOODPUT) else ''}"
    if winner.held:
        return f"The winner held it as measured: nearest to its limit came {winner.worst}, {by} within."
    allowed = ", as the predicted interval leaves open" if winner.open else ""
    return f"The winner missed it as measured by {by}: {winner.worst}{allowed}."
