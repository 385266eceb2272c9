"""Service level objectives: which latencies a deployment has to keep, and by how much it keeps or misses them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, log

from simulator.scoreboard import duration
from simulator.trials.outcome import FIGURES, LATENCIES, Outcome
from traces.errors import InputError
from traces.goodput import GoodputRule

WORDS = {"ttft": "TTFT", "tbt": "TBT", "itl": "TBT", "tpot": "TPOT", "e2el": "End-to-end", "delay": "Scheduling delay"}
"""How latencies are spelled in a term -> their names in an outcome. ``itl`` is vLLM's word for TBT."""
SPOKEN = {"TTFT": "TTFT", "TBT": "TBT", "TPOT": "TPOT", "End-to-end": "end-to-end", "Scheduling delay": "delay"}
USUAL = {"Scheduling delay": "p50"}
"""The figure that a word without one means, where it is not P99: the papers' median scheduling delay."""
TAILS = ("p95", "p99", "max")
"""Figures that hold for nearly all."""
WAITING = ("TTFT", "End-to-end", "Scheduling delay")
"""Latencies that hold the time a request waits before it is served."""
TERM = re.compile(rf"(?:({'|'.join(FIGURES)})-)?(\w+):([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)")
EXPECTED = (
    f"terms in milliseconds such as tbt:100 or p90-ttft:500; words {', '.join(WORDS)}; figures {', '.join(FIGURES)}"
)
GOODPUT = "goodput"
LEAST = 1e-6
"""What values, and limits, count as at least, in seconds or as a share: their logs are finite."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One figure of one latency, and the most that it may be."""

    latency: str
    figure: str
    limit_s: float

    def __post_init__(self) -> None:
        if self.latency not in LATENCIES or self.figure not in FIGURES or not 0 < self.limit_s < float("inf"):
            raise ValueError(f"no term: {self.figure} of {self.latency} within {self.limit_s} s")

    @property
    def name(self) -> str:
        """What is limited, as people say it: P99 TBT."""
        figure = {"p50": "median"}.get(self.figure, self.figure)
        return f"{figure.upper() if figure[1:].isdigit() else figure} {SPOKEN[self.latency]}"

    @property
    def metric(self) -> str:
        """The name of the figure among the metrics of an outcome."""
        return f"{self.latency} {self.figure.upper()}"

    def value_s(self, outcome: Outcome) -> float:
        """Return the figure in seconds; NaN where no request has that latency."""
        return outcome.metrics[self.metric]

    @property
    def spelled(self) -> str:
        """The term as :func:`parse_slo` takes it."""
        word = next(word for word, latency in WORDS.items() if latency == self.latency)
        return f"{self.figure}-{word}:{1e3 * self.limit_s:.12g}"

    def __str__(self) -> str:
        return f"{self.name} ≤ {1e3 * self.limit_s:g} ms"


@dataclass(frozen=True, kw_only=True)
class Slo:
    """What has to hold, all of it.

    Attributes
    ----------
    terms
        Limits on figures of latencies over all requests.
    goodput, share
        Targets that each request has to meet, and the share of requests that must.
    """

    terms: tuple[Term, ...] = ()
    goodput: GoodputRule | None = None
    share: float = 0.99

    def __post_init__(self) -> None:
        if not self.terms and self.goodput is None:
            raise ValueError("an SLO without a limit")
        if not 0 < self.share <= 1:
            raise InputError(f"a share of {self.share:g}", where="--goodput-share", expected="above 0, at most 1")

    @property
    def spelled(self) -> str:
        """The terms as :func:`parse_slo` takes them, which takes a goodput rule and its share beside them."""
        return " ".join(term.spelled for term in self.terms)

    @property
    def tbt_s(self) -> float | None:
        """The time between tokens, in seconds, within which a scheduler keeps the SLO: the least limit on a tail of the
        TBT, else on the TPOT, whose average no request misses then; None where it limits neither."""
        tails = [term.limit_s for term in self.terms if term.latency == "TBT" and term.figure in TAILS]
        averages = [term.limit_s for term in self.terms if term.latency == "TPOT"]
        if self.goodput is not None and self.goodput.tpot_s is not None:
            averages.append(self.goodput.tpot_s)
        return min(tails or averages, default=None)

    def measured(self, outcome: Outcome) -> dict[str, tuple[float, float]]:
        """Return the value of each part and its limit, by name: seconds; of a goodput rule shares of requests that
        miss a target. NaN where no request has that latency."""
        found = {term.name: (term.value_s(outcome), term.limit_s) for term in self.terms}
        if self.goodput is not None:
            found[GOODPUT] = (1 - outcome.metrics["Goodput"], 1 - self.share)
        return found

    def margins(self, outcome: Outcome) -> dict[str, float]:
        """Return the log of the value of each part over its limit, by name: <= 0 where it holds, or has no value."""
        return {
            name: log(max(0.0 if isnan(value) else value, LEAST) / max(limit, LEAST))
            for name, (value, limit) in self.measured(outcome).items()
        }

    def margin(self, outcome: Outcome) -> float:
        """Return the worst of the margins: the SLO holds where it is <= 0."""
        return max(self.margins(outcome).values())

    def bound_by(self, outcome: Outcome) -> str:
        """Return the name of the part that is missed by most, or kept by least."""
        margins = self.margins(outcome)
        return max(margins, key=lambda name: margins[name])

    def worst(self, outcome: Outcome) -> str:
        """Return that part with its value, as people say it: P99 TBT 143 ms."""
        name = self.bound_by(outcome)
        if name == GOODPUT:
            return f"goodput {100 * outcome.metrics['Goodput']:.3g} %"
        return f"{name} {duration(self.measured(outcome)[name][0])}"

    def __str__(self) -> str:
        parts = [str(term) for term in self.terms]
        if self.goodput is not None:
            parts.append(f"{100 * self.share:g} % of requests with {self.goodput}")
        return " and ".join(parts)


def parse_slo(
    terms: str | Sequence[str] = "", *, goodput: GoodputRule | None = None, share: float = 0.99, where: str = "--slo"
) -> Slo:
    """Return the SLO that ``"tbt:100"``, or a list of such terms, spells (milliseconds), with a goodput rule or none.

    A term is a word (:data:`WORDS`), with a figure before it or not (``p90-ttft:500``); without one it means the P99,
    or the median of the scheduling delay. Terms of which none holds the time that requests wait say nothing of a queue;
    then the papers' median scheduling delay of at most 2 s is added, so that ``tbt:100`` is their SLO.

    Raises
    ------
    InputError
        If a term cannot be read, or comes twice, or there is neither a term nor a rule.
    """
    found: dict[str, Term] = {}
    for text in (terms if isinstance(terms, str) else " ".join(terms)).replace(",", " ").split():
        term = _term(text, where)
        if term.name in found:
            raise InputError(f"{term.name} is there twice", where=where, expected=EXPECTED)
        found[term.name] = term
    if not found and goodput is None:
        raise InputError("no term", where=where, expected=EXPECTED)
    if found and not any(term.latency in WAITING for term in found.values()):
        delay = PAPER_DELAY
        found[delay.name] = delay
    return Slo(terms=tuple(found.values()), goodput=goodput, share=share)


def _term(text: str, where: str) -> Term:
    match = TERM.fullmatch(text.lower())
    if match is None or match[2] not in WORDS or not 0 < float(match[3]) < float("inf"):
        raise InputError(f"cannot read the term {text!r}", where=where, expected=EXPECTED)
    latency = WORDS[match[2]]
    return Term(latency=latency, figure=match[1] or USUAL.get(latency, "p99"), limit_s=float(match[3]) / 1e3)


PAPER_DELAY = Term(latency="Scheduling delay", figure="p50", limit_s=2.0)
"""Sarathi-Serve (OSDI 2024, section 5.1): the median scheduling delay is at most 2 s."""
