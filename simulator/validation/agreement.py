"""How far the predictions are off: iteration by iteration, and in each metric of each run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.validation.audit import AuditColumns, kinds, leading, same_batches
from traces.metrics import Metrics
from traces.run_columns import RunRecord
from traces.utilisation import KINDS
from traces.workload import FloatColumn

LATENCIES = {"TTFT": "ttft_s", "TBT": "tbt_s", "TPOT": "tpot_s", "End-to-end": "end_to_end_s"}
STATISTICS = {"P50": "p50", "P90": "p90", "P99": "p99", "mean": "mean"}
RATES = {"Output tokens/s": "output_tokens_per_s", "Requests/s": "requests_per_s"}
METRICS: dict[str, tuple[str, str]] = {
    **{f"{name} {word}": (key, part) for name, key in LATENCIES.items() for word, part in STATISTICS.items()},
    **{name: ("throughput", key) for name, key in RATES.items()},
}
"""Name -> where :class:`traces.metrics.Metrics` has it. Latencies are in seconds."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A metric as measured and as predicted; NaN where there is none."""

    measured: float
    predicted: float

    @property
    def deviation(self) -> float:
        """``predicted`` / ``measured`` - 1; NaN where there is none."""
        return self.predicted / self.measured - 1 if self.measured > 0 else nan


@dataclass(frozen=True, kw_only=True)
class IterationErrors:
    """Errors of iteration times, as shares; NaN where there is no iteration to compare.

    Attributes
    ----------
    iterations
        Those whose batch is the same in the audit, and nothing else counts here.
    median, p90
        Of |predicted / measured - 1| over iterations.
    by_time
        Sum of |predicted - measured| over the sum of measured times.
    bias
        Median of predicted / measured - 1: negative where the engine was slower than predicted.
    total
        Sum of predicted times over that of measured ones, - 1: how far off the busy time is as a whole.
    coverage
        Share of iterations within the cost model's 90 % interval.
    """

    iterations: int
    median: float
    p90: float
    by_time: float
    bias: float
    total: float
    coverage: float

    @classmethod
    def of(cls, audits: Iterable[AuditColumns], kind: int | None = None) -> IterationErrors:
        """Return the errors of all iterations of ``audits``, or of those of one kind (index into ``KINDS``)."""
        error, measured_s, held = _samples(audits, kind)
        if not len(error):
            return cls(iterations=0, median=nan, p90=nan, by_time=nan, bias=nan, total=nan, coverage=nan)
        whole_s = float(measured_s.sum())
        median, p90 = np.percentile(np.abs(error), (50, 90))
        return cls(
            iterations=len(error),
            median=float(median),
            p90=float(p90),
            by_time=float(np.abs(error * measured_s).sum()) / whole_s,
            bias=float(np.median(error)),
            total=float((error * measured_s).sum()) / whole_s,
            coverage=float(held.mean()),
        )


def _samples(
    audits: Iterable[AuditColumns], kind: int | None
) -> tuple[FloatColumn, FloatColumn, npt.NDArray[np.bool_]]:
    parts: list[tuple[FloatColumn, FloatColumn, npt.NDArray[np.bool_]]] = []
    for audit in audits:
        error = audit.error
        known = ~np.isnan(error) & (True if kind is None else kinds(audit) == kind)
        parts.append((error[known], audit.measured_s[known], audit.held[known]))
    error, measured_s, held = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return error, measured_s, held


def errors_by_kind(audits: Iterable[AuditColumns]) -> dict[str, IterationErrors]:
    """Return the errors by kind of batch, for the kinds that occur: "prefill", "mixed", "decode"."""
    audits = list(audits)
    found = {name: IterationErrors.of(audits, kind) for kind, name in enumerate(KINDS)}
    return {name: errors for name, errors in found.items() if errors.iterations}


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Whether simulator and engine made the same batches.

    Attributes
    ----------
    measured, simulated
        Iterations of the measured run, and of the simulation that ran freely.
    same
        Iterations with the same batch where the simulator was given the measured times.
    first_different
        The first iteration there with another batch; None where all are the same.
    leading
        How many iterations the free simulation has in common with the measured run before they part, which they
        do when a request arrives on the other side of an iteration's end.
    """

    measured: int
    simulated: int
    same: int
    first_different: int | None
    leading: int

    @classmethod
    def of(cls, audit: AuditColumns, measured: RunRecord, simulated: RunRecord) -> Batches:
        """Compare a measured run, its audit and the free simulation."""
        return cls(
            measured=len(measured.iterations),
            simulated=len(simulated.iterations),
            same=int(audit.same.sum()),
            first_different=None if audit.same.all() else int(audit.iteration[leading(audit.same)]),
            leading=leading(same_batches(measured.iterations, simulated.iterations)),
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One policy under one load, predicted beside measured.

    Attributes
    ----------
    metrics
        By the names of :data:`METRICS`.
    errors, by_kind
        Of the iteration times: all, and by kind of batch.
    drift
        How much longer (+) iterations took on average during the replay than in the profile, as a share, which the
        predictions are told; None where unknown.
    others
        Processors that other programs kept busy during the replay, on average; None where unknown.
    """

    load: str
    policy: str
    metrics: Mapping[str, Pair]
    errors: IterationErrors
    by_kind: Mapping[str, IterationErrors]
    batches: Batches
    drift: float | None = None
    others: float | None = None

    @property
    def name(self) -> str:
        """The policy and the load, for people."""
        return f"{self.policy}, {self.load}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything, NaN as it is."""
        metrics = {name: {**asdict(pair), "deviation": pair.deviation} for name, pair in self.metrics.items()}
        return {**asdict(self), "metrics": metrics}


def pairs(measured: Metrics, predicted: Metrics) -> dict[str, Pair]:
    """Return all :data:`METRICS` of two runs of one workload."""
    return {
        name: Pair(measured=_value(measured, path), predicted=_value(predicted, path)) for name, path in METRICS.items()
    }


def _value(metrics: Metrics, path: tuple[str, str]) -> float:
    group, name = path
    return float(getattr(getattr(metrics, group), name))


def farthest(cases: Iterable[Case], metric: str) -> Case | None:
    """Return the case whose prediction of a metric is farthest off; None where no case has the metric."""
    known = [case for case in cases if not isnan(case.metrics[metric].deviation)]
    return max(known, key=lambda case: abs(case.metrics[metric].deviation), default=None)
