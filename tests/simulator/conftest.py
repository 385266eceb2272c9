"""A small deployment whose iteration times are a plain formula, so that schedules can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from policies.batch import Batch
from policies.blocks import KVMemory
from profiler.profiled_range import ProfiledRange
from simulator.cluster import Cluster
from simulator.simulation import Scenario
from traces.workload import Workload


@dataclass(frozen=True)
class LinearTimes:
    """10 ms, and 0.1 ms a token, on every stage; 1 ms to the next stage."""

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        return 0.010 + 0.0001 * (batch.prefill_tokens + batch.decodes)

    def repeated(self, batch: Batch, start_s: float, until_s: float, most: int) -> tuple[list[float], list[float]]:
        time_s, times_s, ends_s = self.iteration_time(batch), [], [start_s]
        while len(times_s) < most and (not times_s or ends_s[-1] < until_s):
            times_s.append(time_s)
            ends_s.append(ends_s[-1] + time_s)
        return times_s, ends_s[1:]

    def hand_off_time(self, tokens: int) -> float:
        return 0.001

    def profiled_range(self) -> ProfiledRange:
        return ProfiledRange("nobody's")

    def interval(self, batch: Batch, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        return self.iteration_time(batch, stage), self.iteration_time(batch, stage)

    def describe(self) -> dict[str, Any]:
        return {"device": "paper", "from": "paper", "transferred": False}


@dataclass(frozen=True)
class PaperDeployment:
    pipeline_parallel_size: int = 1
    gpus: int = 1
    peak_flops: float = 1e12

    def to_json(self) -> dict[str, Any]:
        return {"model": "paper", "device": "paper"}

    def prefill_pairs(self, chunks: Sequence[Any]) -> float:
        return 0.0

    def flops_of(self, columns: Mapping[str, Any]) -> Any:
        return 1e9 * (columns["prefill_tokens"] + columns["decodes"])


@pytest.fixture(scope="session")
def random_workload() -> Callable[..., Workload]:
    def make(requests: int = 200, seed: int = 0, rate_per_s: float = 8.0) -> Workload:
        rng = np.random.default_rng(seed)
        return Workload(
            name="random",
            arrival_s=np.cumsum(rng.exponential(1 / rate_per_s, requests)),
            prompt_tokens=rng.integers(1, 600, requests),
            output_tokens=rng.integers(1, 120, requests),
        )

    return make


@pytest.fixture(scope="session")
def paper_scenario() -> Callable[..., Scenario]:
    def make(workload: Workload, *, blocks: int = 2000, stages: int = 1) -> Scenario:
        return Scenario(
            workload=workload,
            cluster=Cluster.single(
                PaperDeployment(pipeline_parallel_size=stages),  # type: ignore[arg-type]
                LinearTimes(),  # type: ignore[arg-type]
                KVMemory(blocks=blocks, max_model_len=1024),
            ),
        )

    return make
