"""The audit follows a measured run, and says where its batches differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from policies import POLICIES, Policy, Sequence, choose
from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.rerun import COMPARED
from simulator.validation.agreement import IterationErrors, errors_by_kind
from simulator.validation.audit import AuditColumns, audit, leading, same_batches, write_audit
from traces.run_columns import IterationColumns
from traces.workload import Workload

MEMORY = KVMemory(blocks=24, block_size=4, max_model_len=64)
SETTINGS: dict[str, dict[str, Any]] = {
    "sarathi": {"chunk_size": 16, "tile_size": 8},
    "sarathi-serve": {"max_num_batched_tokens": 16},
    "chunked-only": {"max_num_batched_tokens": 16},
    "vllm-v1": {"max_num_batched_tokens": 16, "max_num_seqs": 8},
}


class Flat:
    """100 ms for every batch, 90 to 110 ms in its interval."""

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        return 0.1

    def interval(self, batch: Batch, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        return 0.09, 0.11


FLAT: Any = Flat()


def chosen(name: str) -> PolicyChoice:
    return choose(name, **SETTINGS.get(name, {}))


def random_workload(seed: int, count: int = 24) -> Workload:
    rng = np.random.default_rng(seed)
    return Workload(
        name="random",
        arrival_s=np.sort(rng.uniform(0, 3.0, count)),
        prompt_tokens=rng.integers(1, 40, count),
        output_tokens=rng.integers(1, 24, count),
    )


def engine_run(policy: Policy, workload: Workload, rng: np.random.Generator, *, waits: bool) -> IterationColumns:
    """Serve as an engine does, by random times; with ``waits`` also between two iterations while there is work."""
    rows: list[tuple[float, ...]] = []
    now_s, following = 0.0, 0
    while following < len(workload) or policy.has_work:
        while following < len(workload) and workload.arrival_s[following] <= now_s:
            policy.add(
                Sequence(
                    following,
                    arrival_s=float(workload.arrival_s[following]),
                    prompt_tokens=int(workload.prompt_tokens[following]),
                    output_tokens=int(workload.output_tokens[following]),
                )
            )
            following += 1
        batch = policy.schedule(now_s)
        if batch is None:
            now_s = float(workload.arrival_s[following])
            continue
        end_s = now_s + rng.exponential(0.02)
        held = [len(value) if isinstance(value := getattr(batch, name), list) else value for name in COMPARED]
        rows.append((now_s, end_s, *held))
        policy.complete(batch, end_s)
        now_s = end_s + (rng.exponential(0.01) if waits else 0.0)
    return iterations_of(np.array(rows))


def iterations_of(rows: np.ndarray[Any, Any]) -> IterationColumns:
    held = {name: rows[:, 2 + index].astype(np.int64) for index, name in enumerate(COMPARED)}
    others = ("replica", "waiting", "running", "blocks_used", "preemptions", "flops", "outside")
    values: dict[str, Any] = dict.fromkeys(others, np.zeros(len(rows), np.int64)) | held
    return IterationColumns(
        iteration=np.arange(len(rows)),
        start_s=rows[:, 0],
        end_s=rows[:, 1],
        stage_start_s=rows[:, :1],
        stage_time_s=rows[:, 1:2] - rows[:, :1],
        gap_offsets=np.zeros(len(rows) + 1, np.int64),
        gap_s=np.empty(0),
        gap_count=np.empty(0, np.int32),
        **values,
    )


def taken(iterations: IterationColumns, rows: slice) -> IterationColumns:
    names = ("iteration", "start_s", "end_s", "stage_start_s", "stage_time_s", *COMPARED)
    return replace(iterations, **{name: getattr(iterations, name)[rows] for name in names})


@pytest.mark.parametrize("policy", POLICIES)
@given(seed=st.integers(0, 2**32 - 1), waits=st.booleans())
@settings(max_examples=15, deadline=None)
def test_whatever_the_times_were_every_batch_is_the_same(policy: str, seed: int, waits: bool) -> None:
    workload = random_workload(seed)
    run = engine_run(chosen(policy).build(MEMORY, costs=FLAT), workload, np.random.default_rng(seed), waits=waits)
    found = audit(run, workload, chosen(policy), MEMORY, FLAT)
    assert found.same.all()
    assert len(found) == len(run)
    np.testing.assert_array_equal(found.predicted_s, 0.1)
    np.testing.assert_allclose(found.measured_s, run.end_s - run.start_s)
    np.testing.assert_array_equal(found.tokens, run.prefill_tokens + run.decodes)


@pytest.fixture
def run() -> IterationColumns:
    return engine_run(chosen("vllm").build(MEMORY), random_workload(7), np.random.default_rng(7), waits=False)


@pytest.mark.parametrize("name", COMPARED)
def test_one_changed_batch_is_one_different_batch(run: IterationColumns, name: str) -> None:
    changed = getattr(run, name).copy()
    changed[9] += 1
    found = audit(replace(run, **{name: changed}), random_workload(7), chosen("vllm"), MEMORY, FLAT)
    assert np.flatnonzero(~found.same).tolist() == [9]
    assert np.flatnonzero(np.isnan(found.error)).tolist() == [9]
    assert IterationErrors.of([found]).iterations == len(run) - 1
    assert leading(found.same) == 9
    assert leading(same_batches(run, replace(run, **{name: changed}))) == 9


def test_a_run_of_another_policy_is_told_from_this_one(run: IterationColumns) -> None:
    found = audit(run, random_workload(7), chosen("sarathi-serve"), MEMORY, FLAT)
    assert len(found) == len(run)
    assert 0 < found.same.sum() < len(run)
    assert np.isnan(found.error[~found.same]).all()
    assert not np.isnan(found.error[found.same]).any()


def test_iterations_beyond_the_last_batch_are_different_ones(run: IterationColumns) -> None:
    again = taken(run, slice(-1, None))
    names = ("iteration", "start_s", "end_s", "stage_start_s", "stage_time_s", *COMPARED)
    longer = replace(run, **{name: np.concatenate([getattr(run, name), getattr(again, name)]) for name in names})
    longer.start_s[-1], longer.end_s[-1] = longer.end_s[-2], longer.end_s[-2] + 1
    found = audit(longer, random_workload(7), chosen("vllm"), MEMORY, FLAT)
    assert np.flatnonzero(~found.same).tolist() == [len(run)]
    assert np.isnan(found.predicted_s[-1])
    shorter = audit(taken(run, slice(0, 5)), random_workload(7), chosen("vllm"), MEMORY, FLAT)
    assert shorter.same.tolist() == [True] * 5


def columns(measured_s: list[float], *, chunks: int = 0, decodes: int = 1) -> AuditColumns:
    count = len(measured_s)
    return AuditColumns(
        iteration=np.arange(count),
        measured_s=np.array(measured_s),
        predicted_s=np.full(count, 0.1),
        low_s=np.full(count, 0.09),
        high_s=np.full(count, 0.11),
        same=np.ones(count, dtype=np.bool_),
        tokens=np.full(count, decodes + 8 * chunks),
        chunks=np.full(count, chunks),
        decodes=np.full(count, decodes),
        contexts=np.full(count, 10),
    )


def test_errors_of_known_times() -> None:
    found = IterationErrors.of([columns([0.1, 0.125]), columns([0.08, 0.1])])
    assert found.iterations == 4
    assert found.median == pytest.approx((0.0 + 0.2) / 2)
    assert found.bias == pytest.approx(0.0)
    assert found.by_time == pytest.approx((0.025 + 0.02) / 0.405)
    assert found.total == pytest.approx(0.4 / 0.405 - 1)
    assert found.coverage == 0.5
    none = IterationErrors.of([replace(columns([0.1]), same=np.array([False]))])
    assert none.iterations == 0
    assert np.isnan(none.median)


def test_errors_by_kind_of_batch() -> None:
    audits = [columns([0.1]), columns([0.2], chunks=1, decodes=0), columns([0.05, 0.05], chunks=1)]
    found = errors_by_kind(audits)
    assert {name: (errors.iterations, round(errors.bias, 9)) for name, errors in found.items()} == {
        "prefill": (1, -0.5),
        "mixed": (2, 1.0),
        "decode": (1, 0.0),
    }
    assert errors_by_kind(audits[:1]).keys() == {"decode"}


def test_the_file_has_the_columns(tmp_path: Path) -> None:
    write_audit(tmp_path / "below" / "vllm.parquet", columns([0.1, 0.2]))
    table = parquet.read_table(tmp_path / "below" / "vllm.parquet")
    assert table.column_names == [
        *("iteration", "measured_s", "predicted_s", "low_s", "high_s", "same"),
        *("tokens", "chunks", "decodes", "contexts"),
    ]
    assert table["measured_s"].to_pylist() == [0.1, 0.2]
