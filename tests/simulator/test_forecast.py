"""A running engine's load, simulated."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pytest

from policies import KVMemory, choose
from profiler.deployment import Deployment
from simulator.forecast import Forecaster
from traces.errors import InputError
from traces.workload import Workload

DEPLOYMENT = Deployment(model="mistral-7b", device="a100-sxm", max_model_len=4096)
MEMORY = KVMemory(blocks=2000, max_model_len=4096)


def load(rate_per_s: float, count: int = 60) -> Workload:
    return Workload(
        name="load",
        arrival_s=np.arange(count) / rate_per_s,
        prompt_tokens=np.full(count, 1000),
        output_tokens=np.full(count, 50),
    )


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster(deployment=DEPLOYMENT, memory=MEMORY, profile=None)


def test_more_load_more_latency(forecaster: Forecaster) -> None:
    low, high = (forecaster.forecast(choose("sarathi-serve"), load(rate)) for rate in (1.0, 20.0))
    assert low["TTFT P99"] < high["TTFT P99"]
    assert low["TBT P99"] < high["TBT P99"]
    assert low["Requests/s"] == pytest.approx(1.0, rel=0.1)
    assert all(np.isfinite(list(low.values())))
    assert forecaster.forecast(choose("sarathi-serve"), load(1.0)) == low


def test_policies_differ_under_load(forecaster: Forecaster) -> None:
    """Whole prompts between decodes stall them (Sarathi-Serve, section 3)."""
    stalling, free = (forecaster.forecast(choose(name), load(6.0))["TBT P99"] for name in ("vllm", "sarathi-serve"))
    assert stalling > free


def test_what_cannot_be_served_is_an_error_of_input(forecaster: Forecaster) -> None:
    with pytest.raises(InputError, match="max_model_len"):
        forecaster.forecast(choose("vllm", max_num_batched_tokens=16), load(1.0))
    with pytest.raises(InputError, match="nowhere: no such"):
        Forecaster(deployment=DEPLOYMENT, memory=MEMORY, profile=Path("nowhere"))


def test_simulating_for_an_engine_loads_no_engine() -> None:
    script = "import sys, simulator.forecast, engine.server.forecast; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"
