"""Replicas that fail and come back: when."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from traces.errors import InputError

STREAM = 0xFA11
"""Keeps the draws of failures apart from all others of the same seed."""
LONGEST_S = 1e9
"""Beyond that, some 30 years, the clock of a simulation is too coarse for iterations."""
FORM = re.compile(r"(\d{1,9})@(.+)\+(.+)")


@dataclass(frozen=True, order=True)
class Outage:
    """A time in which ``replica`` is down: from ``failed_s`` on, for ``down_s``."""

    replica: int
    failed_s: float
    down_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.failed_s < math.inf and 0 < self.down_s < math.inf):
            raise ValueError(f"fails at {self.failed_s:g} s for {self.down_s:g} s; expected seconds >= 0, down for > 0")

    @property
    def recovered_s(self) -> float:
        """When it is up again."""
        return self.failed_s + self.down_s


@dataclass(frozen=True, kw_only=True)
class FailureSettings:
    """Which replicas fail when.

    Attributes
    ----------
    listed
        Outages, those of a replica apart from each other.
    mtbf_s, mttr_s
        Mean time from a recovery to the next failure, and from a failure to its recovery, of every replica: both
        exponential. None: nothing fails but what is listed.
    """

    listed: tuple[Outage, ...] = ()
    mtbf_s: float | None = None
    mttr_s: float | None = None

    def __post_init__(self) -> None:
        if (self.mtbf_s is None) != (self.mttr_s is None):
            raise ValueError("one of mtbf and mttr is there alone; expected both, or neither")
        for name, value in (("mtbf", self.mtbf_s), ("mttr", self.mttr_s)):
            if value is not None and not 0 < value <= LONGEST_S:
                raise ValueError(f"{name} is {value:g} s; expected seconds > 0, at most {LONGEST_S:g}")
        if self.listed and self.mtbf_s is not None:
            raise ValueError("failures from a list and random ones at once; expected one of the two")
        for outage in self.listed:
            if outage.recovered_s > LONGEST_S:
                what = f"replica {outage.replica} is back at {outage.recovered_s:g} s"
                raise ValueError(f"{what}; expected at most {LONGEST_S:g}")
        for before, after in pairwise(sorted(self.listed)):
            if before.replica == after.replica and after.failed_s <= before.recovered_s:
                what = f"replica {after.replica} fails at {after.failed_s:g} s, while it is down"
                raise ValueError(f"{what}; expected a time after {before.recovered_s:g} s")

    def __bool__(self) -> bool:
        return bool(self.listed) or self.mtbf_s is not None

    def check(self, replicas: int) -> None:
        """Refuse a failure of a replica that is not there.

        Raises
        ------
        InputError
            If one of the list is not one of ``replicas``.
        """
        for outage in self.listed:
            if not 0 <= outage.replica < replicas:
                what = f"a failure of replica {outage.replica}, which is not there"
                raise InputError(what, expected=f"one of 0 to {replicas - 1}")

    def outages(self, replicas: int, seed: int) -> list[Iterator[Outage]]:
        """Return, for each replica, its outages in order; random ones never end.

        Each replica draws from a stream of its own, so that one more replica changes nothing for the others.
        """
        if self.mtbf_s is not None and self.mttr_s is not None:
            return [_random(replica, self.mtbf_s, self.mttr_s, seed) for replica in range(replicas)]
        listed: list[list[Outage]] = [[] for _ in range(replicas)]
        for outage in sorted(self.listed):
            listed[outage.replica].append(outage)
        return [iter(outages) for outages in listed]


def _random(replica: int, mtbf_s: float, mttr_s: float, seed: int) -> Iterator[Outage]:
    rng = np.random.default_rng((seed, STREAM, replica))
    up_s = 0.0
    while True:
        outage = Outage(replica, up_s + float(rng.exponential(mtbf_s)), float(rng.exponential(mttr_s)))
        yield outage
        up_s = outage.recovered_s


def parse_failures(texts: Iterable[str]) -> tuple[Outage, ...]:
    """Return the outages that ``--fail REPLICA@SECONDS+DOWN`` lists.

    Raises
    ------
    InputError
        If a text is not of that form.
    """
    return tuple(map(_parse, texts))


def _parse(text: str) -> Outage:
    match = FORM.fullmatch(text.strip())
    try:
        if match is not None:
            return Outage(int(match[1]), float(match[2]), float(match[3]))
    except ValueError as error:
        raise InputError(f"{text!r}: {error}", where="--fail") from error
    raise InputError(f"{text!r} is no failure", where="--fail", expected="REPLICA@SECONDS+DOWN, such as 3@120+30")
