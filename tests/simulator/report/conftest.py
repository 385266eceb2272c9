"""Runs of the real policies on a plain model of a GPU, for the tests of tables and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import choose
from simulator.cluster import Cluster
from simulator.simulation import Scenario, simulate
from tests.simulator.plain_times import PlainTimes
from traces.run_record import RunRecord, read_run
from traces.workload import Workload

BUDGETS = {"vllm": 4096, "sarathi-serve": 512}


@dataclass(frozen=True)
class PlainGPU(PlainTimes):
    """Roughly a 7B model on a large GPU: memory bound below 256 tokens, compute bound above."""

    pipeline_parallel_size: int = 1

    @property
    def gpus(self) -> int:
        return self.pipeline_parallel_size

    @property
    def peak_flops(self) -> float:
        return 312e12 * self.gpus

    def to_json(self) -> dict[str, Any]:
        return {"model": "plain-7b", "device": "plain-gpu", "tensor_parallel_size": 1, "max_model_len": 4096}

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        prefill_s = sum(2e-9 * chunk.tokens * (chunk.past + chunk.tokens) for chunk in batch.chunks)
        linear_s = 12e-3 * max(1.0, (batch.prefill_tokens + batch.decodes) / 256)
        return (linear_s + prefill_s + 8e-8 * batch.decode_context_sum) / self.pipeline_parallel_size

    def hand_off_time(self, tokens: int) -> float:
        return 1e-4

    def describe(self) -> dict[str, Any]:
        return {"device": "plain-gpu", "from": "other-gpu", "transferred": True}


def chat(requests: int, rate_per_s: float) -> Workload:
    rng = np.random.default_rng(1)
    return Workload(
        name="chat <script>alert(1)</script>",
        arrival_s=np.cumsum(rng.exponential(1 / rate_per_s, requests)),
        prompt_tokens=np.clip(rng.lognormal(7.0, 0.9, requests), 16, 3500).astype(np.int64),
        output_tokens=np.clip(rng.lognormal(4.6, 0.7, requests), 1, 500).astype(np.int64),
    )


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, RunRecord]]:
    """Runs of the named policies over the same workload; made once for equal arguments."""

    @cache
    def runs(*names: str, requests: int = 80, rate_per_s: float = 4.0, stages: int = 1) -> dict[str, RunRecord]:
        folder = tmp_path_factory.mktemp("runs")
        gpu: Any = PlainGPU(pipeline_parallel_size=stages)
        scenario = Scenario(
            workload=chat(requests, rate_per_s),
            cluster=Cluster.single(gpu, gpu, KVMemory(blocks=2500, max_model_len=4096)),
        )
        for name in names:
            budget = {"max_num_batched_tokens": BUDGETS[name]} if name in BUDGETS else {}
            simulate(scenario, choose(name, **budget), folder / name)
        return {name: read_run(folder / name) for name in names}

    return runs
