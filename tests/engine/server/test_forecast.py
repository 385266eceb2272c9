"""The load that there was as a workload, and the process that simulates it."""

from __future__ import annotations

import asyncio
import os
import signal
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from engine.server import forecast
from engine.server.forecast import Ended, Engine, ForecastProcess, workload_of
from policies import KVMemory, choose
from policies.arrivals import Arrivals
from tests.engine.server.watched import DEPLOYMENT
from traces.errors import InputError

WHERE = EntryPoint("simulator", "simulator.forecast:Forecaster", forecast.ENTRY_POINTS)
ENGINE = Engine(deployment=DEPLOYMENT, memory=KVMemory(blocks=1000, max_model_len=4096), profile=None)


def requests(count: int = 20) -> list[Ended]:
    return [
        Ended(arrival_s=5.0 + number, ended_s=9.0, prompt_tokens=100, cached_tokens=48, output_tokens=10 + number)
        for number in reversed(range(count))
    ]


def test_requests_as_a_workload() -> None:
    workload = workload_of(requests(4), 16)
    assert workload.arrival_s.tolist() == [0, 1, 2, 3]
    assert workload.output_tokens.tolist() == [10, 11, 12, 13]
    hashes = [sequence.block_hashes for sequence in Arrivals(workload, 16).due(9.0)]
    assert [len(each) for each in hashes] == [6] * 4
    assert len({tuple(each[:3]) for each in hashes}) == 1
    own = [name for each in hashes for name in each[3:]]
    assert len(set(own)) == len(own) == 12
    assert not set(own) & set(hashes[0][:3])


def test_no_requests_are_no_workload() -> None:
    with pytest.raises(ValueError, match="at least one"):
        workload_of([], 16)


def test_a_process_of_its_own_simulates_and_ends() -> None:
    """As often as asked; a policy that cannot serve the load is said so, and the process goes on."""
    process = ForecastProcess(WHERE, ENGINE)
    workload = workload_of(requests(), 16)
    first = asyncio.run(process.ask(choose("sarathi-serve"), workload))
    assert 0 < first["TTFT P50"] <= first["TTFT P99"] < 1
    assert first["Output tokens/s"] == pytest.approx(np.sum(workload.output_tokens) / first["Makespan"])
    with pytest.raises(InputError, match="max_num_batched_tokens is 8"):
        asyncio.run(process.ask(choose("vllm", max_num_batched_tokens=8), workload))
    assert asyncio.run(process.ask(choose("sarathi-serve"), workload)) == first
    running = process._process
    assert running is not None
    process.close()
    process.close()
    assert not running.is_alive() if running._popen else True  # type: ignore[attr-defined]


def test_who_dies_is_started_again() -> None:
    process = ForecastProcess(WHERE, ENGINE)
    process._start()
    assert process._process is not None
    assert process._process.pid is not None
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.join()
    with pytest.raises(InputError, match="has died"):
        asyncio.run(process.ask(choose("orca"), workload_of(requests(), 16)))
    assert asyncio.run(process.ask(choose("orca"), workload_of(requests(), 16)))["Requests/s"] > 0
    process.close()


def test_a_simulation_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "LONGEST_S", 0.01)
    process = ForecastProcess(WHERE, ENGINE)
    with pytest.raises(InputError, match=r"longer than 0\.01 s"):
        asyncio.run(process.ask(choose("orca"), workload_of(requests(), 16)))
    assert process._process is None
