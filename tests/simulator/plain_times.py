"""What a deployment and a cost model that are plain formulas have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.batch import Batch
from profiler.aggregates import later
from profiler.profiled_range import ProfiledRange


class PlainTimes:
    """Everything follows from ``iteration_time`` and from FLOPs a token."""

    flops_per_token = 1.4e10

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        raise NotImplementedError

    def repeated(self, batch: Batch, start_s: float, until_s: float, most: int) -> tuple[list[float], list[float]]:
        times_s, ends_s, end_s = [], [], start_s
        while len(times_s) < most and end_s < until_s:
            times_s.append(self.iteration_time(later(batch, len(times_s))))
            end_s += times_s[-1]
            ends_s.append(end_s)
        return times_s, ends_s

    def interval(self, batch: Batch, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        time_s = self.iteration_time(batch, stage)
        return time_s, time_s

    def profiled_range(self) -> ProfiledRange:
        return ProfiledRange("nobody's")

    def flops_of(self, columns: Mapping[str, Any]) -> Any:
        return self.flops_per_token * (columns["prefill_tokens"] + columns["decodes"])


@dataclass(frozen=True)
class PaperDeployment(PlainTimes):
    pipeline_parallel_size: int = 1
    gpus: int = 1
    peak_flops: float = 1e12

    def to_json(self) -> dict[str, Any]:
        return {"model": "paper", "device": "paper"}
