"""What a cluster must never do, whatever happens to it: lose a request, or an output token of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies import POLICIES, choose
from policies.routing.catalog import ROUTERS
from policies.routing.least_loaded import LeastLoadedRouter
from simulator.cluster import Group
from simulator.failures import FailureSettings
from simulator.simulation import Scenario, simulate
from traces.run_record import RunRecord, read_run
from traces.workload import HashIds, Workload

SMALL = {"vllm-v1": {"max_num_seqs": 64}}
ASYNC = {"max_num_seqs": 64, "async_scheduling": True}
RANDOM = FailureSettings(mtbf_s=4.0, mttr_s=1.0)
Make = Callable[..., Scenario]
MakeGroup = Callable[..., Group]


def simulated(scenario: Scenario, name: str, folder: Path, **settings: int) -> RunRecord:
    simulate(scenario, choose(name, **(SMALL.get(name, {}) | settings)), folder)
    return read_run(folder)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def hashed(workload: Workload, prefixes: int = 5) -> Workload:
    """Let prompts begin with one of a few common prefixes, of up to 20 blocks."""
    rng = np.random.default_rng(1)
    of, counts = rng.integers(0, prefixes, len(workload)), -(-workload.prompt_tokens // 16)
    values = [
        1_000_000 * (common + 1) + block if block < 4 * (common + 1) else 100_000_000 + 1000 * request + block
        for request, (common, count) in enumerate(zip(of.tolist(), counts.tolist(), strict=True))
        for block in range(count)
    ]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return replace(workload, hash_ids=HashIds(offsets=offsets, values=np.array(values), block_size=16))


def check_whole(run: RunRecord, workload: Workload) -> None:
    requests, iterations = run.requests, run.iterations
    np.testing.assert_array_equal(requests.generated_tokens, workload.output_tokens)
    assert (requests.arrival_s <= requests.scheduled_s).all()
    assert (requests.scheduled_s < requests.first_token_s).all()
    assert (requests.first_token_s <= requests.finished_s).all()
    assert iterations.outputs.sum() == workload.output_tokens.sum(), "a token came out twice, or never"
    assert iterations.gap_count.sum() == (workload.output_tokens - 1).sum()


def clusters(paper_group: MakeGroup, stages: int) -> dict[str, tuple[Group, ...]]:
    return {
        "alike": (paper_group(3, blocks=130, stages=stages),),
        "apart": (
            paper_group(2, role="prefill", blocks=100, stages=stages),
            paper_group(3, role="decode", blocks=130, stages=stages),
        ),
    }


@pytest.mark.parametrize("name", [*POLICIES, "vllm-v1 async"])
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("kind", ["alike", "apart"])
def test_nothing_is_lost_when_replicas_fail_and_every_step_is_the_same_either_way(
    name: str,
    stages: int,
    kind: str,
    tmp_path: Path,
    random_workload: Callable[..., Workload],
    paper_group: MakeGroup,
    cluster_scenario: Make,
) -> None:
    settings = ASYNC if name == "vllm-v1 async" else {}
    workload = hashed(random_workload(120, rate_per_s=20.0))
    runs = {}
    for step in (False, True):
        scenario = cluster_scenario(workload, *clusters(paper_group, stages)[kind], failures=RANDOM, step=step)
        runs[step] = simulated(scenario, name.partition(" ")[0], tmp_path / str(step), **settings)
    check_whole(runs[False], workload)
    assert runs[False].requests.restarts.sum() > 0
    assert sum(failure.requests for failure in runs[False].meta.failures) == runs[False].requests.restarts.sum()
    assert digest(tmp_path / "False") == digest(tmp_path / "True")


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_serves_unequal_replicas_that_fail(
    router: str,
    tmp_path: Path,
    random_workload: Callable[..., Workload],
    paper_group: MakeGroup,
    cluster_scenario: Make,
) -> None:
    workload = hashed(random_workload(150, rate_per_s=30.0))
    groups = (paper_group(2, weight=1.0), paper_group(1, blocks=150, stages=2, weight=0.5))
    for folder in ("first", "second"):
        scenario = cluster_scenario(workload, *groups, router=router, failures=RANDOM, seed=3)
        run = simulated(scenario, "sarathi-serve", tmp_path / folder)
    check_whole(run, workload)
    assert set(run.requests.replica) == {0, 1, 2}
    assert run.meta.router is not None
    assert run.meta.router["name"] == router
    assert digest(tmp_path / "first") == digest(tmp_path / "second")


@pytest.mark.parametrize("router", ["least-requests", "least-kv"])
@pytest.mark.parametrize("name", ["sarathi-serve", "vllm-v1", "vllm-v1 async"])
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("kind", ["alike", "apart"])
def test_the_least_loaded_replica_is_found_whatever_happens(
    router: str,
    name: str,
    stages: int,
    kind: str,
    tmp_path: Path,
    random_workload: Callable[..., Workload],
    paper_group: MakeGroup,
    cluster_scenario: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every choice is compared with a look at all replicas."""
    choices = []
    found = LeastLoadedRouter.choose

    def choose_and_compare(self: LeastLoadedRouter[Any], sequence: Any, now_s: float) -> Any:
        chosen = found(self, sequence, now_s)
        up = [self.members[index] for index in self.up]
        assert chosen is min(up, key=lambda member: (*self._load(member, now_s), member.index))
        choices.append(chosen.index)
        return chosen

    monkeypatch.setattr(LeastLoadedRouter, "choose", choose_and_compare)
    workload = hashed(random_workload(120, rate_per_s=20.0))
    scenario = cluster_scenario(workload, *clusters(paper_group, stages)[kind], failures=RANDOM, router=router)
    settings = ASYNC if name == "vllm-v1 async" else {}
    run = simulated(scenario, name.partition(" ")[0], tmp_path / "run", **settings)
    assert len(set(choices)) == run.meta.replicas
    assert len(choices) > len(workload), "no request was ever sent again"
