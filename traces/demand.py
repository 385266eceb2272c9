"""What users ask for, at any rate, drawn anew with every seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from os import PathLike
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.arrivals import arrivals_at, check_rate
from traces.errors import InputError
from traces.presets import preset_lengths, preset_names
from traces.settings import from_mapping
from traces.source import at_rate, open_workload
from traces.workload import Workload

ArrivalKind = Literal["poisson", "trace"]
STREAM = 0xDE3A
"""Keeps the draws of requests apart from all others of the same seed."""
STRETCH = 64
"""Requests of a trace that follow each other in a redrawn one as they did there."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Requests of one kind, of which :meth:`workload` draws as many as wanted.

    Attributes
    ----------
    source
        A preset, or the path of a trace, as :func:`traces.source.open_workload` takes it.
    num_prompts
        As there: the first so many of a trace (None: all), so many drawn from a preset (None: 2048).
    arrivals
        ``poisson``: random gaps (with ``burstiness`` other than 1, gamma). ``trace``: the trace's own gaps, scaled.
    burstiness
        The shape of gamma gaps.
    length_scale
        Factor on all lengths, for models of short contexts.
    sort
        Put the rows of a trace in order of arrival.
    """

    source: str
    num_prompts: int | None = None
    arrivals: ArrivalKind = "poisson"
    burstiness: float = 1.0
    length_scale: float = 1.0
    sort: bool = False

    def __post_init__(self) -> None:
        if self.arrivals not in ("poisson", "trace"):
            raise InputError(f"arrivals are {self.arrivals!r}", where="--arrivals", expected="poisson or trace")
        if self.arrivals == "trace" and self.source in preset_names():
            raise InputError("has no arrival times", where=self.source, expected="--arrivals poisson")
        if self.arrivals == "trace" and self.burstiness != 1:
            what = f"burstiness {self.burstiness:g} of a trace's own gaps"
            raise InputError(what, where="--burstiness", expected="--arrivals poisson")
        arrivals_at(1.0, self.burstiness)

    def workload(self, rate_per_s: float, seed: int = 0) -> Workload:
        """Return requests at a mean rate, all at once if it is infinite.

        One seed draws the same requests with the same gaps, scaled, at every rate: two rates, and two policies, differ
        by nothing else. Of a preset a seed draws lengths and gaps. A trace is itself with seed 0; other seeds put
        stretches of it, cut at random, one after the other (the moving-block bootstrap; Künsch 1989), each request
        with its own gap and prefix hashes. Where gaps are Poisson they are drawn by the seed.

        Raises
        ------
        InputError
            If the source is not sound, has no arrival times where its own are asked for, or the rate is none.
        """
        if rate_per_s != math.inf:
            check_rate(rate_per_s)
        if self.source in preset_names():
            drawn = open_workload(
                self.source,
                num_prompts=self.num_prompts,
                request_rate=rate_per_s,
                burstiness=self.burstiness,
                seed=seed,
            )
            return drawn.shortened(self.length_scale)
        workload = self._redrawn(_read(self), seed)
        if self.arrivals == "trace":
            return at_rate(workload, rate_per_s)
        gaps = arrivals_at(rate_per_s, self.burstiness)
        assert gaps is not None
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
        return replace(workload, arrival_s=gaps.draw(len(workload), rng), timed=True)

    @property
    def longest(self) -> int:
        """Tokens that prompt and output of a request may have together, whatever the seed."""
        if self.source in preset_names():
            longest = preset_lengths(self.source).total_max
            assert longest is not None
            return longest if self.length_scale == 1 else max(2, round(longest * self.length_scale) + 1)
        return int(_read(self).total_tokens.max())

    @property
    def requests(self) -> int:
        """How many requests a workload holds."""
        return len(self.workload(1.0))

    def first(self, count: int) -> Demand:
        """Return the same for ``count`` requests at most."""
        return self if self.requests <= count else replace(self, num_prompts=count)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, as JSON values."""
        return asdict(self)

    def _redrawn(self, workload: Workload, seed: int) -> Workload:
        if seed == 0 or len(workload) <= 1:
            return workload
        order = _stretches(len(workload), np.random.default_rng([STREAM, seed]))
        drawn = workload.take(order)
        if not workload.timed:
            return drawn
        gaps = np.diff(workload.arrival_s, prepend=0.0)
        gaps[0] = workload.span_s / (len(workload) - 1)
        arrival_s = np.cumsum(gaps[order])
        return replace(drawn, arrival_s=arrival_s - arrival_s[0])


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A workload that can be drawn again: of a demand, at a rate, by a seed."""

    demand: Demand
    request_rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_rate(self.request_rate)
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}", expected="an integer >= 0")

    @staticmethod
    def from_dict(document: Mapping[str, Any], *, where: str | PathLike[str]) -> Drawn:
        """Return what :meth:`as_dict` described.

        Raises
        ------
        InputError
            For an unknown or missing key, or a value that is not allowed.
        """
        own = {name: document[name] for name in ("request_rate", "seed") if name in document}
        demand = from_mapping(Demand, {key: each for key, each in document.items() if key not in own}, where=where)
        return from_mapping(Drawn, {"demand": demand, **own}, where=where)

    def as_dict(self) -> dict[str, Any]:
        """Return the demand's fields, ``request_rate`` and ``seed`` as JSON values."""
        return {**self.demand.as_dict(), "request_rate": self.request_rate, "seed": self.seed}

    def workload(self) -> Workload:
        """Return the requests (:meth:`Demand.workload`)."""
        return self.demand.workload(self.request_rate, self.seed)


def _stretches(count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    starts = rng.integers(count, size=-(-count // STRETCH))
    return np.asarray((starts[:, None] + np.arange(STRETCH)).ravel()[:count] % count, dtype=np.intp)


@lru_cache(maxsize=8)
def _read(demand: Demand) -> Workload:
    """Return the requests of a trace, shortened."""
    workload = open_workload(demand.source, num_prompts=demand.num_prompts, sort=demand.sort)
    if demand.arrivals == "trace" and not workload.timed:
        raise InputError("has no arrival times", where=demand.source, expected="--arrivals poisson")
    return workload.shortened(demand.length_scale)
