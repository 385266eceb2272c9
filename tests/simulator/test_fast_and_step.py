"""Running ahead writes what scheduling every iteration by itself writes, to the byte, whatever is simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import choose
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.routing.catalog import RouterChoice
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from simulator.cluster import Cluster, Group
from simulator.failures import FailureSettings, Outage
from simulator.link import Link
from simulator.simulation import Scenario, simulate
from tests.simulator.random_scenarios import TICK_S, FormulaTimes, PaperDeployment, make_scenario
from traces import iteration_log, run_log
from traces.run_record import FILES, read_run
from traces.workload import Workload


def written(scenario: Scenario, choice: PolicyChoice, folder: Path) -> dict[str, bytes]:
    simulate(scenario, choice, folder)
    return {name: (folder / name).read_bytes() for name in FILES}


def check_same_bytes(scenario: Scenario, choice: PolicyChoice) -> None:
    """Simulate in both ways; compare the files, and look that no token is missing."""
    with TemporaryDirectory() as folder:
        fast = written(scenario, choice, Path(folder) / "fast")
        step = written(replace(scenario, step=True), choice, Path(folder) / "step")
        assert [name for name in FILES if fast[name] != step[name]] == []
        run = read_run(Path(folder) / "fast")
    outputs = scenario.workload.output_tokens
    np.testing.assert_array_equal(run.requests.generated_tokens, outputs)
    assert run.iterations.outputs.sum() == outputs.sum()
    assert run.iterations.gap_count.sum() == (outputs - 1).sum()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_fast_and_step_write_the_same_bytes(data: st.DataObject) -> None:
    """Cases that hypothesis makes smaller where they fail."""
    check_same_bytes(*make_scenario(lambda low, high: data.draw(st.integers(low, high))))


@pytest.mark.parametrize("first", range(0, 250, 50))
def test_fast_and_step_write_the_same_bytes_in_larger_cases(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tables so small that a run has several."""
    for module in (iteration_log, run_log):
        monkeypatch.setattr(module, "ROWS", 50)
    monkeypatch.setattr(run_log, "FLIGHTS", 7)
    for seed in range(first, first + 50):
        check_same_bytes(*make_scenario(Random(seed).randint))


def constant(groups: tuple[tuple[str, int], ...], arrival_s: list[float], failures: FailureSettings) -> Scenario:
    """Iterations and transfers of a tick each, on groups of so many replicas with these roles."""
    memory = KVMemory(blocks=100, max_model_len=100)
    apart = groups[0][0] != "both"
    return Scenario(
        workload=Workload(
            name="ticks",
            arrival_s=np.array(arrival_s),
            prompt_tokens=np.full(len(arrival_s), 20),
            output_tokens=np.full(len(arrival_s), 40),
        ),
        cluster=Cluster(
            groups=tuple(
                Group(deployment=PaperDeployment(), cost_model=FormulaTimes(), memory=memory, role=role, count=count)  # type: ignore[arg-type]
                for role, count in groups
            ),
            router=RouterChoice(name="least-kv"),
            link=Link(bandwidth_bytes_per_s=1.0, latency_s=TICK_S, kv_bytes_per_token=0) if apart else None,
            failures=failures,
        ),
    )


@pytest.mark.parametrize(
    "groups",
    [(("prefill", 1), ("decode", 2)), (("decode", 2), ("prefill", 1))],
    ids=["prefill first", "decode first"],
)
def test_kv_that_comes_or_is_sent_when_a_decode_ends(groups: tuple[tuple[str, int], ...]) -> None:
    arrival_s = [TICK_S * number for number in (0, 3, 6, 8, 9, 17, 18, 25)]
    check_same_bytes(constant(groups, arrival_s, FailureSettings()), choose("sarathi-serve"))


def test_a_request_of_a_failed_replica_comes_when_a_decode_ends() -> None:
    failures = FailureSettings(listed=(Outage(0, 10 * TICK_S, 3 * TICK_S), Outage(2, 12 * TICK_S, 2 * TICK_S)))
    arrival_s = [TICK_S * number for number in (0, 0, 0, 4, 5, 6, 11)]
    check_same_bytes(constant((("both", 3),), arrival_s, failures), choose("orca"))


@pytest.fixture(scope="module")
def fitted() -> Callable[[str], Group]:
    """A group on the fitted cost model of a model on a100-sxm."""

    @cache
    def of(model: str) -> Group:
        deployment = Deployment(model=model, device="a100-sxm", max_model_len=8192)
        memory = KVMemory(blocks=700, max_model_len=8192)
        return Group(deployment=deployment, cost_model=load_cost_model(deployment), memory=memory)

    return of


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mistral-7b"])
@pytest.mark.parametrize("name", ["vllm", "sarathi-serve", "vllm-v1"])
@pytest.mark.parametrize(("count", "draw"), [(1, None), (3, None), (1, 4)])
def test_times_of_the_fitted_cost_model_round_alike(
    model: str, name: str, count: int, draw: int | None, fitted: Callable[[str], Group]
) -> None:
    """Contexts on both sides of mistral's window of 4,096 tokens; too few blocks for all."""
    rng = np.random.default_rng(count)
    workload = Workload(
        name="random",
        arrival_s=np.cumsum(rng.exponential(0.5 / count, 60)),
        prompt_tokens=rng.choice([5, 300, 1000, 4050], 60) + rng.integers(0, 40, 60),
        output_tokens=rng.integers(1, 250, 60),
    )
    failures = FailureSettings(mtbf_s=8.0, mttr_s=1.0) if count > 1 else FailureSettings()
    cluster = Cluster(groups=(replace(fitted(model), count=count),), failures=failures)
    if draw is not None:
        cluster = cluster.drawn(draw)
    check_same_bytes(Scenario(workload=workload, cluster=cluster), choose(name))
