"""A small deployment whose iteration times are a plain formula, so that schedules can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from policies.batch import Batch
from policies.blocks import KVMemory
from simulator.cluster import Cluster
from simulator.simulation import Scenario
from tests.simulator.plain_times import PaperDeployment, PlainTimes
from traces.workload import Workload


@dataclass(frozen=True)
class LinearTimes(PlainTimes):
    """10 ms, and 0.1 ms a token, on every stage; 1 ms to the next stage."""

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        return 0.010 + 0.0001 * (batch.prefill_tokens + batch.decodes)

    def hand_off_time(self, tokens: int) -> float:
        return 0.001

    def describe(self) -> dict[str, Any]:
        return {"device": "paper", "from": "paper", "transferred": False}


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
