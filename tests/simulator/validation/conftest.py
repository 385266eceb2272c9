"""Engines that are not there: the real policies on a plain model of a GPU, slower or noisier than predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice, choose
from simulator.cluster import Cluster
from simulator.simulation import Scenario, simulate
from simulator.validation import Judge
from tests.simulator.plain_times import PlainTimes
from traces.files import read_json, write_json
from traces.workload import Workload

BAND = 0.1


@dataclass(frozen=True)
class PlainGPU(PlainTimes):
    """Roughly a 7B model on a large GPU, with an interval of ±10 %; deployment and cost model in one."""

    pipeline_parallel_size: int = 1
    gpus: int = 1
    peak_flops: float = 312e12
    pace: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return {"model": "plain-7b", "device": "plain-gpu", "dtype": None}

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        prefill_s = sum(2e-9 * chunk.tokens * (chunk.past + chunk.tokens) for chunk in batch.chunks)
        return self.pace * (
            12e-3 * max(1.0, (batch.prefill_tokens + batch.decodes) / 256) + prefill_s + 8e-8 * batch.decode_context_sum
        )

    def at_pace(self, pace: float) -> PlainGPU:
        return replace(self, pace=pace)

    def drawn(self, draw: int) -> PlainGPU:
        return replace(self, pace=self.pace * exp(BAND / 1.645 * np.random.default_rng(draw).standard_normal()))

    def interval(self, batch: Batch, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        time_s = self.iteration_time(batch)
        return (1 - BAND) * time_s, (1 + BAND) * time_s

    def hand_off_time(self, tokens: int) -> float:
        return 0.0

    def describe(self) -> dict[str, Any]:
        return {"device": "plain-gpu", "from": "plain-gpu", "transferred": False}


@dataclass(frozen=True)
class Engine(PlainGPU):
    """The same GPU as an engine finds it: all of its iterations slower, those with a prefill more so, with noise."""

    slower: float = 1.0
    prefill_slower: float = 1.0
    noise: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        factor = self.slower * (self.prefill_slower if batch.chunks else 1.0)
        return super().iteration_time(batch) * factor * exp(self.noise * self.rng.standard_normal())


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A folder with measured runs, and what they were runs of."""

    folder: Path
    workloads: Mapping[str, Workload]
    choices: Mapping[str, PolicyChoice]
    judge: Judge

    def validation(self, **others: Any) -> Any:
        return self.judge.judge(self.folder, self.workloads, self.choices, **others)


def chat(load: str, rate_per_s: float, requests: int) -> Workload:
    rng = np.random.default_rng(1)
    return Workload(
        name=f"chat at {load} <load>",
        arrival_s=np.cumsum(rng.exponential(1 / rate_per_s, requests)),
        prompt_tokens=np.clip(rng.lognormal(6.6, 0.9, requests), 16, 2000).astype(np.int64),
        output_tokens=np.clip(rng.lognormal(4.0, 0.7, requests), 2, 200).astype(np.int64),
    )


def write_measured(path: Path, workload: Workload, choice: PolicyChoice, memory: KVMemory, **engine: float) -> None:
    """Write the run record of an engine of the given properties."""
    gpu, slow = (cast("Any", each) for each in (PlainGPU(), Engine(**engine)))
    simulate(Scenario(workload=workload, cluster=Cluster.single(gpu, slow, memory)), choice, path)
    document = read_json(path / "run.json")
    own = {"source": "engine", "versions": {"torch": "2", "device": "a plain GPU"}}
    groups = [group | {"cost_model": None} for group in document["groups"]]
    write_json(path / "run.json", document | own | {"groups": groups})


@pytest.fixture(scope="session")
def memory() -> KVMemory:
    return KVMemory(blocks=1500, max_model_len=4096)


@pytest.fixture
def choices() -> dict[str, PolicyChoice]:
    return {
        "orca": choose("orca"),
        "vllm": choose("vllm"),
        "sarathi-serve": choose("sarathi-serve", max_num_batched_tokens=256),
    }


@pytest.fixture
def judge(memory: KVMemory) -> Judge:
    gpu: Any = PlainGPU()
    return Judge(deployment=gpu, memory=memory, profile=None, seed=0, cost_model=gpu)


@pytest.fixture
def measured(
    tmp_path: Path, memory: KVMemory, choices: dict[str, PolicyChoice], judge: Judge
) -> Callable[..., Measured]:
    """Make measured runs on an engine of the given properties, at the given rates by load."""

    def make(rates: Mapping[str, float] | None = None, *, requests: int = 40, **engine: float) -> Measured:
        rates = {"below": 3.0, "above": 9.0} if rates is None else rates
        workloads = {load: chat(load, rate, requests) for load, rate in rates.items()}
        for load, workload in workloads.items():
            for label, choice in choices.items():
                write_measured(tmp_path / "measured" / load / label, workload, choice, memory, **engine)
        return Measured(folder=tmp_path, workloads=workloads, choices=choices, judge=judge)

    return make
