"""Replays: the run record, the clock, and the simulator on the engine's own iteration times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the engine needs torch")

from engine.clock import WallClock
from engine.engine import Engine, Iteration
from engine.prompts import RandomPrompts
from engine.replay import replay, serve
from policies import POLICIES, Batch, Completion, choose
from policies.arrivals import Arrivals
from simulator.clock import Clock
from simulator.flight import Flight
from simulator.replica import Replica
from simulator.simulation import feed
from traces.errors import InputError
from traces.metrics import measure
from traces.run_record import RunRecord, read_run
from traces.workload import HashIds, Workload

BLOCK_SIZE, BLOCKS = 4, 24
SETTINGS: dict[str, dict[str, Any]] = {
    "sarathi": {"chunk_size": 16, "tile_size": 8},
    "sarathi-serve": {"max_num_batched_tokens": 16},
    "chunked-only": {"max_num_batched_tokens": 16},
    "vllm-v1": {"max_num_batched_tokens": 16, "max_num_seqs": 8},
}


def random_workload(seed: int, count: int = 24, span_s: float = 0.15) -> Workload:
    rng = np.random.default_rng(seed)
    return Workload(
        name="random",
        arrival_s=np.sort(rng.uniform(0, span_s, count)),
        prompt_tokens=rng.integers(1, 40, count),
        output_tokens=rng.integers(1, 24, count),
    )


def prefix_workload(count: int = 12) -> Workload:
    """Prompts of 3 hashed parts of 8 tokens and one of 5; 2 beginnings, each with 2 ways to go on."""
    rng = np.random.default_rng(0)
    branch = rng.integers(4, size=count)
    values = np.stack([branch // 2, 10 + branch, 100 + np.arange(count), 200 + np.arange(count)], axis=1)
    return Workload(
        name="prefixes",
        arrival_s=np.arange(count) * 0.004,
        prompt_tokens=np.full(count, 29),
        output_tokens=rng.integers(1, 9, count),
        hash_ids=HashIds(offsets=4 * np.arange(count + 1), values=values.ravel(), block_size=8),
    )


class SlowMotion:
    """A clock that is not the world's: each look at it takes a random time, always the same ones."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.start()

    def start(self) -> None:
        self._rng = np.random.default_rng(self._seed)
        self._now_s = 0.0

    def now_s(self) -> float:
        self._now_s += self._rng.exponential(0.005)
        return self._now_s

    def wait_until(self, time_s: float) -> None:
        self._now_s = max(self._now_s, time_s)


class Recorded:
    """Iteration times that have been measured, handed out again in their order."""

    def __init__(self, times_s: list[float]) -> None:
        self._times_s = deque(times_s)

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        return self._times_s.popleft()

    def hand_off_time(self, tokens: int) -> float:
        raise AssertionError("one stage hands nothing off")


Row = tuple[Any, ...]


def row(batch: Batch, members: list[int], done: Completion, waiting: int, running: int, used: int) -> Row:
    """All that the two must agree on: chunks, decodes, who ended, the queue, the blocks."""
    return (
        [(chunk.sequence.request_id, chunk.tokens, chunk.past) for chunk in batch.chunks],
        members,
        batch.decode_context_sum,
        batch.preemptions,
        [sequence.request_id for sequence in done.finished],
        (waiting, running, used),
    )


def engine_rows(engine: Engine, workload: Workload) -> tuple[list[Row], list[float]]:
    """Serve; return what each iteration held and how long it took."""
    rows, times_s, decodes = [], [], deque[list[int]]()
    schedule = engine.policy.schedule

    def noting(now_s: float) -> Batch | None:
        batch = schedule(now_s)
        if batch is not None:
            decodes.append([sequence.request_id for sequence in batch.decode_sequences()])
        return batch

    engine.policy.schedule = noting  # type: ignore[method-assign]

    def take(it: Iteration) -> None:
        rows.append(row(it.batch, decodes.popleft(), it.done, it.waiting, it.running, it.blocks_used))
        times_s.append(it.end_s - it.start_s)

    serve(engine, workload, take)
    return rows, times_s


def simulator_rows(engine: Engine, choice: Any, workload: Workload, times_s: list[float]) -> list[Row]:
    """Replay the same workload in the simulator, iterations taking ``times_s``."""
    rows: list[Row] = []
    clock, policy = Clock(), choice.build(engine.runner.memory, costs=engine.policy.costs)
    decodes = deque[list[int]]()
    schedule = policy.schedule

    def noting(now_s: float) -> Batch | None:
        batch = schedule(now_s)
        if batch is not None:
            decodes.append([sequence.request_id for sequence in batch.decode_sequences()])
        return batch

    policy.schedule = noting

    def take(flight: Flight, done: Completion) -> None:
        (used,) = flight.blocks_used
        rows.append(row(flight.batch, decodes.popleft(), done, flight.waiting, flight.running, used))

    feed(clock, Arrivals(workload, BLOCK_SIZE), Replica(clock, policy, Recorded(times_s), take).submit)
    clock.run()
    return rows


def built(make_engine: Callable[..., Engine], policy: str, **others: Any) -> Engine:
    return make_engine(policy, blocks=BLOCKS, block_size=BLOCK_SIZE, settings=SETTINGS.get(policy), **others)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_simulator_makes_the_same_batches(policy: str, seed: int, make_engine: Callable[..., Engine]) -> None:
    engine = built(make_engine, policy, clock=SlowMotion(seed))
    workload = random_workload(seed)
    rows, times_s = engine_rows(engine, workload)
    assert simulator_rows(engine, choose(policy, **SETTINGS.get(policy, {})), workload, times_s) == rows
    assert len({entry[5][0] for entry in rows}) > 2, "the queue was of several lengths"


@pytest.mark.parametrize("policy", ["vllm", "sarathi-serve", "vllm-v1"])
def test_the_simulator_makes_the_same_batches_as_against_the_wall_clock(
    policy: str, make_engine: Callable[..., Engine]
) -> None:
    engine = built(make_engine, policy)
    workload = random_workload(3)
    rows, times_s = engine_rows(engine, workload)
    assert simulator_rows(engine, choose(policy, **SETTINGS.get(policy, {})), workload, times_s) == rows
    assert all(time_s > 0 for time_s in times_s)


def first_chunks(rows: list[Row]) -> list[tuple[set[int], int, int]]:
    """Each chunk as (requests that had one before, request, past)."""
    begun, found = set[int](), []
    for chunks, *_ in rows:
        for request, _, past in chunks:
            found.append((set(begun), request, past))
            begun.add(request)
    return found


def test_shared_prefixes_of_a_trace_hit_in_both(make_engine: Callable[..., Engine]) -> None:
    engine = built(make_engine, "vllm-v1", clock=SlowMotion(0))
    workload = prefix_workload()
    rows, times_s = engine_rows(engine, workload)
    assert any(past > 0 and request not in begun for begun, request, past in first_chunks(rows))
    assert simulator_rows(engine, choose("vllm-v1", **SETTINGS["vllm-v1"]), workload, times_s) == rows


def recorded(make_engine: Callable[..., Engine], workload: Workload, folder: Path, model: Path) -> RunRecord:
    engine = built(make_engine, "sarathi-serve", seed=4)
    seen: list[int] = []
    choice = choose("sarathi-serve", **SETTINGS["sarathi-serve"])
    replay(engine, choice, workload, folder, model=str(model), on_progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == len(workload)
    return read_run(folder)


def test_a_replay_leaves_a_run_record(make_engine: Callable[..., Engine], tiny_folder: Path, tmp_path: Path) -> None:
    workload = random_workload(5)
    run = recorded(make_engine, workload, tmp_path / "run", tiny_folder)
    requests, iterations = run.requests, run.iterations
    np.testing.assert_array_equal(requests.generated_tokens, workload.output_tokens)
    np.testing.assert_array_equal(requests.arrival_s, workload.arrival_s)
    assert (requests.arrival_s <= requests.scheduled_s).all()
    assert (requests.scheduled_s < requests.first_token_s).all()
    assert iterations.outputs.sum() == workload.output_tokens.sum()
    assert iterations.gap_count.sum() == (workload.output_tokens - 1).sum()
    np.testing.assert_allclose(iterations.stage_time_s[:, 0], iterations.end_s - iterations.start_s)
    busy = (iterations.waiting + iterations.running)[:-1] > 0
    assert (iterations.start_s[1:] >= iterations.end_s[:-1])[busy].all()
    assert (iterations.flops > 0).all()
    assert iterations.blocks_used.max() <= BLOCKS
    (group,) = run.meta.groups
    assert (run.meta.source, group.cost_model, run.meta.seed, group.kv_blocks) == ("engine", None, 4, BLOCKS)
    assert run.meta.policy["max_num_batched_tokens"] == 16
    assert group.deployment["max_model_len"] == 64
    assert {"torch", "transformers", "device", "attention"} <= run.meta.versions.keys()
    assert measure(run).finished == len(workload)


def test_between_two_iterations_no_time_is_lost(
    make_engine: Callable[..., Engine], tiny_folder: Path, tmp_path: Path
) -> None:
    at_once = random_workload(6, span_s=0)
    iterations = recorded(make_engine, at_once, tmp_path / "run", tiny_folder).iterations
    assert iterations.start_s[0] == 0
    np.testing.assert_array_equal(iterations.start_s[1:], iterations.end_s[:-1])


def test_a_request_that_can_never_be_served_is_named_before_anything_runs(
    make_engine: Callable[..., Engine], tiny_folder: Path, tmp_path: Path
) -> None:
    workload = Workload(
        name="long", arrival_s=np.zeros(3), prompt_tokens=np.array([5, 60, 70]), output_tokens=np.array([5, 5, 5])
    )
    with pytest.raises(InputError, match=r"long, request 2: 60 prompt \+ 5 output = 65 tokens; expected at most"):
        recorded(make_engine, workload, tmp_path / "run", tiny_folder)
    assert not (tmp_path / "run").exists()


def test_random_prompts() -> None:
    workload = prefix_workload()
    prompts, again, other = (RandomPrompts(workload, 128, seed) for seed in (0, 0, 1))
    made = [prompts.prompt(request) for request in range(len(workload))]
    assert [len(prompt) for prompt in made] == workload.prompt_tokens.tolist()
    assert all(0 <= token < 128 for prompt in made for token in prompt)
    assert made == [again.prompt(request) for request in range(len(workload))]
    assert made[0] != other.prompt(0)
    for one in range(len(workload)):
        for two in range(one):
            alike = (workload.hash_ids.of(one) == workload.hash_ids.of(two)).tolist().index(False)  # type: ignore
            assert made[one][: 8 * alike] == made[two][: 8 * alike]
            assert made[one][8 * alike : 8 * alike + 5] != made[two][8 * alike : 8 * alike + 5]
    plain = RandomPrompts(random_workload(0), 128, 0)
    assert plain.prompt(0)[:5] != plain.prompt(1)[:5]


def test_the_wall_clock_waits_until_the_time_has_come() -> None:
    clock = WallClock()
    for time_s in (0.001, 0.02, 0.0):
        clock.wait_until(time_s)
        assert clock.now_s() >= time_s
    before_s = clock.now_s()
    clock.start()
    assert clock.now_s() < before_s
