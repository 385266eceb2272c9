"""Small run records for the tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import Any

import numpy as np
import pytest

from traces.run_record import IterationRow, RunRecord, RunRecorder

META = {
    "source": "simulator",
    "policy": {"name": "toy", "max_num_seqs": 8},
    "workload": {"name": "toy"},
    "seed": 0,
    "block_size": 16,
    "router": None,
    "link": None,
    "failures": [],
    "versions": {"charioteer": "0"},
}
GROUP = {
    "count": 1,
    "role": "both",
    "deployment": {"model": "toy", "device": "toy"},
    "stages": 1,
    "gpus": 1,
    "kv_blocks": 100,
    "peak_flops": 1e12,
    "max_num_seqs": 8,
    "cost_model": None,
}
REQUEST = {
    "replica": 0,
    "arrival_s": 0.0,
    "scheduled_s": nan,
    "first_token_s": nan,
    "finished_s": nan,
    "prompt_tokens": 10,
    "output_tokens": 1,
    "generated_tokens": 0,
    "cached_tokens": 0,
    "preemptions": 0,
    "decode_replica": None,
    "transfer_s": 0.0,
    "restarts": 0,
    "bubble_s": 0.0,
}
ITERATION = {
    "replica": 0,
    "prefill_tokens": 0,
    "chunks": 0,
    "decodes": 0,
    "outputs": 0,
    "decode_context_sum": 0,
    "decode_context_max": 0,
    "prefill_context_sum": 0,
    "waiting": 0,
    "running": 0,
    "blocks_used": 0,
    "preemptions": 0,
    "flops": 0.0,
    "outside": 0,
    "gaps": [],
}
Rows = Sequence[dict[str, Any]]


def _iteration(index: int, given: dict[str, Any]) -> IterationRow:
    stage = {"stage_start_s": [given["start_s"]], "stage_time_s": [given["end_s"] - given["start_s"]]}
    return IterationRow(**{"iteration": index, **ITERATION, **stage, **given})


def _request(index: int, given: dict[str, Any]) -> dict[str, Any]:
    filled = {"request_id": index, **REQUEST, **given}
    return filled if "decode_replica" in given else {**filled, "decode_replica": filled["replica"]}


def _make_run(*, requests: Rows = (), iterations: Rows = (), groups: Rows = ({},), **meta: Any) -> RunRecord:
    recorder = RunRecorder()
    for index, given in enumerate(iterations):
        recorder.iteration(_iteration(index, given))
    filled = [_request(index, given) for index, given in enumerate(requests)]
    names = ["request_id", *REQUEST]
    recorder.requests({name: [row[name] for row in filled] for name in names})
    recorder.meta({**META, "groups": [{**GROUP, **group} for group in groups], **meta})
    return recorder.record()


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunRecord]:
    """A run record from the columns that matter; the others at harmless values."""
    return _make_run


class TokenTimes:
    """Serves random requests one iteration at a time, and keeps the time of every token."""

    def __init__(self, seed: int, replicas: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.replicas = replicas
        count = int(self.rng.integers(1, 30))
        self.arrival_s = np.sort(self.rng.uniform(0, 3, count))
        self.home = self.rng.integers(0, replicas, count)
        self.output = self.rng.integers(1, 12, count)
        self.tokens: list[list[float]] = [[] for _ in range(count)]
        self.scheduled = [nan] * count
        self.iterations: list[dict[str, Any]] = []
        for replica in range(replicas):
            self._serve(replica)
        self.iterations.sort(key=lambda row: row["end_s"])

    def _serve(self, replica: int) -> None:
        now = 0.0
        mine = [index for index in range(len(self.home)) if self.home[index] == replica]
        while left := [index for index in mine if len(self.tokens[index]) < self.output[index]]:
            now = max(now, min(self.arrival_s[index] for index in left))
            here = [index for index in left if self.arrival_s[index] <= now]
            fresh = [index for index in here if not self.tokens[index]][: int(self.rng.integers(0, 3))]
            old = [index for index in here if self.tokens[index]]
            if not fresh and not old:
                fresh = here[:1]
            waiting = [index for index in here if not self.tokens[index] and index not in fresh]
            now = self._iteration(
                replica, now, fresh, old if not fresh or self.rng.random() < 0.4 else [], len(waiting)
            )

    def _iteration(self, replica: int, now: float, fresh: list[int], old: list[int], waiting: int) -> float:
        end = now + float(self.rng.uniform(0.01, 0.06)) + 0.2 * len(fresh)
        gaps = [(end - self.tokens[index][-1], 1) for index in old]
        for index in fresh:
            self.scheduled[index] = now
        for index in fresh + old:
            self.tokens[index].append(end)
        self.iterations.append(
            {
                "replica": replica,
                "start_s": now,
                "end_s": end,
                "prefill_tokens": 10 * len(fresh),
                "chunks": len(fresh),
                "decodes": len(old),
                "outputs": len(fresh) + len(old),
                "waiting": waiting,
                "running": len(fresh) + len(old),
                "blocks_used": len(fresh) + len(old),
                "flops": 1e9 * (10 * len(fresh) + len(old)),
                "gaps": gaps,
            }
        )
        return end

    def record(self) -> RunRecord:
        requests = [
            {
                "replica": int(self.home[index]),
                "arrival_s": float(self.arrival_s[index]),
                "scheduled_s": self.scheduled[index],
                "first_token_s": times[0],
                "finished_s": times[-1],
                "output_tokens": int(self.output[index]),
                "generated_tokens": len(times),
            }
            for index, times in enumerate(self.tokens)
        ]
        return _make_run(requests=requests, iterations=self.iterations, groups=[{"count": self.replicas}])


@pytest.fixture(scope="session")
def token_times() -> type[TokenTimes]:
    """Random runs with the time of every token known."""
    return TokenTimes
