"""The state of the real engine second by second, beside that of its simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.run_record import RunRecord
from traces.workload import FloatColumn

TITLES = {
    "running": "running requests",
    "waiting": "waiting requests",
    "kv_cache_pct": "KV cache in use (%)",
    "prompt_throughput": "prompt tokens/s",
    "gen_throughput": "output tokens/s",
}
"""The columns of ``timeseries.csv`` that are compared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One quantity at every second of the real run, float64 [seconds] each."""

    name: str
    measured: FloatColumn
    simulated: FloatColumn

    @property
    def deviation(self) -> float:
        """Mean absolute difference."""
        return float(np.abs(self.simulated - self.measured).mean())

    @property
    def mean(self) -> float:
        """Mean of the real run."""
        return float(self.measured.mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """Every quantity of ``timeseries.csv`` that the real run recorded, at ``at_s``, seconds since its start."""

    at_s: FloatColumn
    series: tuple[Series, ...]


def audit(seconds: Mapping[str, FloatColumn], run: RunRecord, lead_s: float) -> Audit | None:
    """Compare second by second; None where the real run has no time series.

    ``lead_s`` is how long the series began before the first arrival. A quantity that is 0 throughout was not
    recorded (the KV use of some runs) and is left out.
    """
    if not seconds or not len(seconds["t"]):
        return None
    at_s = seconds["t"]
    simulated = _simulated(run, at_s - lead_s)
    series = [Series(name=name, measured=seconds[name], simulated=simulated[name]) for name in TITLES]
    return Audit(at_s=at_s, series=tuple(each for each in series if each.measured.any()))


def _simulated(run: RunRecord, at_s: FloatColumn) -> dict[str, FloatColumn]:
    """Return what the last iteration that ended before each moment left, and tokens of the second before it."""
    iterations, requests = run.iterations, run.requests
    ended = np.searchsorted(iterations.end_s, at_s, side="right")
    held = np.clip(ended, 0, len(iterations.end_s) - 1)
    going = (ended < len(iterations.end_s)) & (ended > 0)
    state: dict[str, npt.NDArray[np.number]] = {
        "running": iterations.running,
        "waiting": iterations.waiting,
        "kv_cache_pct": 100.0 * iterations.blocks_used / run.meta.kv_blocks,
    }
    columns = {name: np.where(going, values[held], 0.0) for name, values in state.items()}
    columns["prompt_throughput"] = _flow(requests.first_token_s, requests.prompt_tokens, at_s)
    columns["gen_throughput"] = _flow(iterations.end_s, iterations.outputs, at_s)
    return columns


def _flow(moments_s: FloatColumn, amounts: npt.NDArray[np.integer], at_s: FloatColumn) -> FloatColumn:
    order = np.argsort(moments_s, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(amounts[order])])
    ends = np.searchsorted(moments_s[order], at_s, side="right")
    starts = np.searchsorted(moments_s[order], at_s - 1.0, side="right")
    return np.asarray(total[ends] - total[starts], dtype=np.float64)
