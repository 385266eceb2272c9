"""Clusters of small replicas whose iteration times are a plain formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from policies.routing.catalog import parse_router
from simulator.cluster import Cluster, Group
from simulator.failures import FailureSettings
from simulator.link import Link
from simulator.simulation import Scenario
from traces.workload import Workload

LINK = Link(bandwidth_bytes_per_s=1e9, latency_s=0.002, kv_bytes_per_token=100_000)


@pytest.fixture(scope="session")
def paper_group(
    paper_scenario: Callable[..., Scenario], random_workload: Callable[..., Workload]
) -> Callable[..., Group]:
    def make(count: int = 1, *, blocks: int = 300, stages: int = 1, **rest: Any) -> Group:
        scenario = paper_scenario(random_workload(1), blocks=blocks, stages=stages)
        return replace(scenario.cluster.groups[0], count=count, **rest)

    return make


@pytest.fixture(scope="session")
def cluster_scenario() -> Callable[..., Scenario]:
    """Make a scenario of groups behind a router, with a link where prefill and decode replicas are apart."""

    def make(
        workload: Workload,
        *groups: Group,
        router: str = "least-requests",
        failures: FailureSettings | None = None,
        step: bool = False,
        seed: int = 0,
    ) -> Scenario:
        cluster = Cluster(
            groups=groups,
            router=parse_router(router, where="the test"),
            link=LINK if any(group.role != "both" for group in groups) else None,
            failures=failures or FailureSettings(),
        )
        return Scenario(workload=workload, cluster=cluster, seed=seed, step=step)

    return make
