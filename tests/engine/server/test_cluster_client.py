"""A cluster of doubles behind every router: who gets what, what becomes of the requests of a replica that dies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.sampling import SamplingParams  # noqa: E402
from engine.server.client import (  # noqa: E402
    EngineDownError,
    IterationError,
    OnFailed,
    OnIdle,
    OnStep,
    QueueFullError,
    UnservableError,
)
from engine.server.cluster_client import ClusterClient  # noqa: E402
from engine.server.limits import Limits  # noqa: E402
from engine.server.messages import Idle, Load, Produced, Ready, Step  # noqa: E402
from engine.server.metrics import registry_of  # noqa: E402
from engine.server.process_client import ProcessClient  # noqa: E402
from engine.server.stream import RequestStream  # noqa: E402
from policies import KVMemory, choose  # noqa: E402
from policies.routing.catalog import ROUTERS, RouterChoice, parse_router  # noqa: E402
from profiler.cost_model import load_cost_model  # noqa: E402
from simulator.cluster import Cluster, Group  # noqa: E402
from simulator.simulation import Scenario, simulate_in_memory  # noqa: E402
from tests.engine.server.watched import DEPLOYMENT, ready, step  # noqa: E402
from traces.workload import HashIds, Workload  # noqa: E402

PARAMS = SamplingParams()
LAST = Produced(0, (9,), "z", finish="length")


class Double:
    """An engine of which the test says what it does."""

    def __init__(self, said: Ready) -> None:
        self.ready = said
        self.unhealthy: str | None = None
        self.streams: list[RequestStream] = []
        self.prompts: list[list[int]] = []
        self.seeds: list[int | None] = []
        self.refuses: set[str] = set()
        self._on_step: list[OnStep] = []
        self._on_idle: list[OnIdle] = []
        self._over = asyncio.Event()

    def on_end(self) -> None:
        raise AssertionError("it is set by who joins it")

    @property
    def requests(self) -> int:
        return len(self.streams)

    def submit(
        self, prompt: list[int], params: SamplingParams, *, count: int = 1, arrival_s: float | None = None
    ) -> list[RequestStream]:
        assert (count, arrival_s is None) == (1, False)
        if self.unhealthy is not None:
            raise EngineDownError(self.unhealthy)
        self.prompts.append(prompt)
        self.seeds.append(params.seed)
        self.streams.append(RequestStream(0, self._leave))
        return self.streams[-1:]

    def _leave(self, stream: RequestStream) -> None:
        self.streams.remove(stream)
        self.on_end()

    def end(self, stream: RequestStream) -> None:
        stream.put(LAST)
        self._leave(stream)

    async def swap(self, policy: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.unhealthy is not None:
            raise EngineDownError(self.unhealthy)
        if policy["policy"] in self.refuses:
            raise UnservableError(f"no {policy['policy']} here")
        self.ready = replace(self.ready, policy=policy)
        return policy

    def watch(self, on_step: OnStep, on_idle: OnIdle | None = None, on_failed: OnFailed | None = None) -> None:
        self._on_step.append(on_step)
        self._on_idle.append(cast(OnIdle, on_idle))

    def say(self, load: Load) -> None:
        for on_step in self._on_step:
            on_step(step(load=load))

    def die(self) -> None:
        self.unhealthy = "it was killed"
        for stream in list(self.streams):
            self.streams.remove(stream)
            self.on_end()
            stream.fail(EngineDownError("it was killed"))
        self._over.set()

    async def ended(self) -> str | None:
        await self._over.wait()
        return self.unhealthy

    async def drain(self, timeout_s: float | None = None) -> None:
        self._over.set()

    close = drain


Scene = Callable[[ClusterClient, list[Double]], Awaitable[None]]


def play(scene: Scene, router: str = "least-requests", *, count: int = 2, **others: Any) -> None:
    async def whole() -> None:
        cluster = ClusterClient([1.0] * count, parse_router(router, where="test"), **others)
        doubles = [Double(ready()) for _ in range(count)]
        for index, double in enumerate(doubles):
            await cluster.join(index, cast(ProcessClient, double))
        await cluster.all_up()
        await scene(cluster, doubles)
        await cluster.close()
        assert await cluster.ended() is None

    asyncio.run(asyncio.wait_for(whole(), 60))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- one router, two clocks ---


def workload(count: int, seed: int) -> Workload:
    """Conversations that share prefixes, at moments that no two events have in common."""
    rng = np.random.default_rng(seed)
    talks = rng.integers(0, 6, count)
    blocks = rng.integers(1, 6, count)
    values = [int(10 * talk + block) for talk, length in zip(talks, blocks, strict=True) for block in range(length)]
    return Workload(
        name="test",
        arrival_s=np.cumsum(rng.exponential(0.05, count)),
        prompt_tokens=16 * blocks + rng.integers(1, 16, count),
        output_tokens=rng.integers(5, 60, count),
        hash_ids=HashIds(
            offsets=np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64),
            values=np.array(values, np.int64),
            block_size=16,
        ),
    )


@pytest.mark.parametrize("name", [name for name in ROUTERS if name != "least-kv"])
def test_a_deployment_routes_as_the_simulator_does(name: str) -> None:
    """Given the moments at which requests came and ended in a simulation, each gets the replica that it had there."""
    requests = workload(150, seed=3)
    memory = KVMemory(blocks=2000, max_model_len=4096)
    group = Group(deployment=DEPLOYMENT, cost_model=load_cost_model(DEPLOYMENT), memory=memory, count=3)
    simulated = Cluster(groups=(group,), router=parse_router(name, where="test"))
    record = simulate_in_memory(Scenario(workload=requests, cluster=simulated, seed=5), choose("sarathi-serve"))
    columns, hashes = record.requests, requests.hash_ids
    assert hashes is not None
    events = [(at_s, each, "come") for each, at_s in enumerate(columns.arrival_s)]
    events += [(at_s, each, "end") for each, at_s in enumerate(columns.finished_s)]

    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        where: dict[int, tuple[int, RequestStream]] = {}
        for _, each, what in sorted(events):
            if what == "end":
                index, stream = where.pop(each)
                doubles[index].end(stream)
                continue
            cluster.submit([int(value) for value in hashes.of(each) for _ in range(16)], PARAMS)
            (index,) = [index for index, double in enumerate(doubles) if len(double.prompts) > seen[index]]
            seen[index] += 1
            where[each] = index, doubles[index].streams[-1]
            assert index == columns.replica[each], f"request {each}"

    seen = [0, 0, 0]
    play(scene, name, count=3, seed=5)
    assert min(seen) > 0


def test_the_least_kv_is_what_the_engines_say() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        for blocks, expected in (((5, 3), 1), ((5, 9), 0), ((5, 4), 1), ((4, 4), 0)):
            for double, used in zip(doubles, blocks, strict=True):
                double.say(Load(waiting=0, running=1, blocks_used=used))
            before = [len(double.prompts) for double in doubles]
            (stream,) = cluster.submit([1, 2], PARAMS)
            assert [len(double.prompts) for double in doubles][expected] == before[expected] + 1
            stream.abort()
            assert cluster.requests == 0
        assert cluster.load() == Load(waiting=0, running=2, blocks_used=4)

    play(scene, "least-kv")


# --- replicas that fail ---


def test_what_nothing_was_given_out_of_goes_elsewhere() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        first, second = doubles
        streams = [cluster.submit([each], PARAMS)[0] for each in range(4)]
        assert [len(double.streams) for double in doubles] == [2, 2]
        begun, waiting = streams[0], streams[2]
        first.streams[0].put(Produced(0, (5,), "a"))
        first.streams[1].put(Produced(0, (5,), "a"))
        assert (await anext(aiter(begun))).text == "a"
        whole = asyncio.create_task(waiting.whole())
        await settled()
        first.die()
        with pytest.raises(EngineDownError, match="it was killed"):
            await anext(aiter(begun))
        await settled()
        assert [len(double.streams) for double in doubles] == [0, 3]
        assert second.prompts == [[1], [3], [2]]
        assert cluster.unhealthy is None
        second.end(second.streams[2])
        assert (await whole).text == "z"
        assert len(cluster.submit([9], PARAMS)) == 1
        assert second.prompts[-1] == [9]

    play(scene)


def test_nobody_is_left() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        (stream,) = cluster.submit([1], PARAMS)
        for double in doubles:
            double.die()
        with pytest.raises(EngineDownError, match="no replica is up"):
            await stream.whole()
        assert cluster.unhealthy == "no replica is up"
        with pytest.raises(EngineDownError, match="no replica is up"):
            cluster.submit([1], PARAMS)
        back = Double(ready())
        await cluster.join(1, cast(ProcessClient, back))
        assert cluster.unhealthy is None
        cluster.submit([4], PARAMS)
        assert back.prompts == [[4]]

    play(scene)


def test_who_left_is_not_sent_elsewhere() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        (stream,) = cluster.submit([1], PARAMS)
        stream.abort()
        doubles[0].die()
        await settled()
        assert doubles[1].prompts == []
        assert cluster.requests == 0

    play(scene)


def test_an_iteration_that_fails_is_no_reason_to_go_elsewhere() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        (stream,) = cluster.submit([1], PARAMS)
        doubles[0].streams[0].fail(IterationError("out of luck"))
        with pytest.raises(IterationError, match="out of luck"):
            await stream.whole()
        assert doubles[1].prompts == []

    play(scene)


# --- all of them as one ---


def test_the_outputs_of_a_request_share_a_replica_and_no_seed() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        assert len(cluster.submit([1, 2], SamplingParams(seed=7), count=3)) == 3
        assert doubles[0].seeds == [7, 8, 9]
        cluster.submit([3], PARAMS)
        assert doubles[1].prompts == [[3]]

    play(scene)


def test_the_bound_is_that_of_all_replicas_together() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        seats = sum(int(double.ready.policy["max_num_seqs"]) for double in doubles)
        streams = [cluster.submit([1], PARAMS)[0] for _ in range(seats + 3)]
        with pytest.raises(QueueFullError):
            cluster.submit([1], PARAMS)
        streams[0].abort()
        cluster.submit([1], PARAMS)

    play(scene, "round-robin", limits=Limits(max_queue=3))


def test_a_policy_rules_everywhere_or_nowhere() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        old, new = cluster.ready.policy, choose("orca").as_dict()
        doubles[1].refuses.add("orca")
        with pytest.raises(UnservableError, match="no orca here"):
            await cluster.swap(new)
        assert [double.ready.policy for double in doubles] == [old, old]
        assert cluster.ready.policy == old
        doubles[1].refuses.clear()
        assert await cluster.swap(new) == new
        assert [double.ready.policy for double in doubles] == [new, new]
        doubles[0].die()
        await settled()
        back = Double(ready())
        await cluster.join(0, cast(ProcessClient, back))
        assert back.ready.policy == cluster.ready.policy == new

    play(scene)


def test_each_replica_has_metrics_of_its_own() -> None:
    async def scene(cluster: ClusterClient, doubles: list[Double]) -> None:
        whole: list[Step | Idle] = []
        registry = registry_of(cluster, model_name="tiny")
        cluster.watch(whole.append, whole.append)

        def value(name: str, engine: int) -> float | None:
            return registry.get_sample_value(name, {"model_name": "tiny", "engine": str(engine)})

        doubles[0].say(Load(waiting=1, running=2, blocks_used=250))
        doubles[1].say(Load(waiting=0, running=5, blocks_used=750))
        assert [value("vllm:num_requests_running", engine) for engine in (0, 1)] == [2, 5]
        assert [value("vllm:kv_cache_usage_perc", engine) for engine in (0, 1)] == [0.25, 0.75]
        assert [value("vllm:inter_token_latency_seconds_count", engine) for engine in (0, 1)] == [0, 0]
        assert whole[-1].load == Load(waiting=1, running=7, blocks_used=500)
        doubles[1].die()
        await settled()
        assert value("vllm:num_requests_running", 1) == 0
        assert whole[-1].load == Load(waiting=1, running=2, blocks_used=125)

    play(scene)


def test_a_replica_that_hangs_is_not_left_out_for_good() -> None:
    asked = Limits(max_queue=3, request_timeout_s=5.0, stall_timeout_s=1.0)
    own = ClusterClient([1.0], RouterChoice(), asked).member_limits()
    assert (own.stall_timeout_s, own.request_timeout_s) == (math.inf, 5.0)
