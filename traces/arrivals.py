"""When requests arrive: processes that draw arrival times, all by the generator they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from traces.errors import InputError
from traces.workload import FloatColumn


@dataclass(frozen=True, kw_only=True)
class AllAtOnce:
    """Every request arrives at time 0 (vLLM's ``--request-rate inf``)."""

    kind: ClassVar[str] = "all-at-once"

    def draw(self, count: int, _rng: np.random.Generator) -> FloatColumn:
        """Return ``count`` zeros, float64 [count]."""
        return np.zeros(count)


@dataclass(frozen=True, kw_only=True)
class ConstantArrivals:
    """Requests arrive ``1 / request_rate`` seconds apart, the first at time 0."""

    kind: ClassVar[str] = "constant"
    request_rate: float

    def __post_init__(self) -> None:
        check_rate(self.request_rate)

    def draw(self, count: int, _rng: np.random.Generator) -> FloatColumn:
        """Return ``count`` arrival times, float64 [count], seconds."""
        return _after(np.ones(count - 1), self.request_rate)


@dataclass(frozen=True, kw_only=True)
class PoissonArrivals:
    """A Poisson process: exponential gaps of mean ``1 / request_rate``, none of them cut.

    The first request arrives at time 0. One seed draws the same unit gaps at every rate, so that two rates
    differ by nothing else.
    """

    kind: ClassVar[str] = "poisson"
    request_rate: float

    def __post_init__(self) -> None:
        check_rate(self.request_rate)

    def draw(self, count: int, rng: np.random.Generator) -> FloatColumn:
        """Return ``count`` arrival times, float64 [count], seconds."""
        return _after(rng.standard_exponential(count - 1), self.request_rate)


@dataclass(frozen=True, kw_only=True)
class GammaArrivals:
    """Gaps from a gamma distribution of shape ``burstiness`` and mean ``1 / request_rate``.

    As vLLM's ``--burstiness``: 1 is a Poisson process, less is burstier, more is steadier; the gaps'
    coefficient of variation is ``1 / sqrt(burstiness)``. The first request arrives at time 0.
    """

    kind: ClassVar[str] = "gamma"
    request_rate: float
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        check_rate(self.request_rate)
        if not 1e-3 <= self.burstiness <= 1e6:
            raise InputError(f"burstiness is {self.burstiness}", expected="a number from 0.001 to 1000000")

    def draw(self, count: int, rng: np.random.Generator) -> FloatColumn:
        """Return ``count`` arrival times, float64 [count], seconds."""
        gaps = rng.standard_gamma(self.burstiness, count - 1) / self.burstiness
        return _after(gaps, self.request_rate)


@dataclass(frozen=True, kw_only=True)
class TraceArrivals:
    """The gaps of a workload file, in its order, scaled to the mean rate ``request_rate``.

    Without a rate the trace's own is kept. Where more requests are wanted than the trace has, its gaps are
    repeated from its start. Rows out of order are put in order.
    """

    kind: ClassVar[str] = "trace"
    path: str
    request_rate: float | None = None

    def __post_init__(self) -> None:
        if self.request_rate is not None:
            check_rate(self.request_rate)

    def draw(self, count: int, _rng: np.random.Generator) -> FloatColumn:
        """Return ``count`` arrival times, float64 [count], seconds."""
        from traces.readers import read_workload

        gaps = np.diff(read_workload(self.path, sort=True).arrival_s)
        if not gaps.any():
            raise InputError("all requests arrive at once", where=self.path, expected="a trace with gaps")
        used = np.resize(gaps, count - 1)
        if self.request_rate is None or count == 1:
            return _after(used, 1.0)
        if not used.any():
            what = f"its first {count} requests arrive at once"
            raise InputError(what, where=self.path, expected="more requests")
        return _after(used / used.mean(), self.request_rate)


Arrivals = AllAtOnce | ConstantArrivals | PoissonArrivals | GammaArrivals | TraceArrivals


def arrivals_at(request_rate: float | None, burstiness: float = 1.0) -> Arrivals | None:
    """Return the arrivals that vLLM's two options mean.

    Parameters
    ----------
    request_rate
        Requests per second; infinite for all at once, None for no arrival times.
    burstiness
        The shape of gamma gaps; 1 for a Poisson process. Another needs a finite rate.

    Raises
    ------
    InputError
        For a rate or a burstiness that is none.
    """
    if request_rate is None or request_rate == math.inf:
        if burstiness != 1.0:
            what = f"burstiness {burstiness} without a request rate"
            raise InputError(what, expected="a finite request rate with it")
        return None if request_rate is None else AllAtOnce()
    if burstiness == 1.0:
        return PoissonArrivals(request_rate=request_rate)
    return GammaArrivals(request_rate=request_rate, burstiness=burstiness)


def check_rate(request_rate: float) -> None:
    """Raise :class:`InputError` unless ``request_rate`` is one that requests can arrive at."""
    if not 1e-6 <= request_rate <= 1e9:
        raise InputError(f"request rate {request_rate}", expected="requests per second, from 0.000001 to 1e9")


def _after(gaps: FloatColumn, scale: float) -> FloatColumn:
    return np.concatenate([[0.0], np.cumsum(gaps)]) / scale
