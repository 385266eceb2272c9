"""Requests that arrive make the same run record as those that are known before."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.batch import Batch
from traces.iteration_log import Columns, Ran
from traces.request_log import ArrivingRequests, KnownRequests
from traces.run_log import RunLog, describe_workload
from traces.run_record import RunWriter, read_run
from traces.workload import Workload


class Sequence(NamedTuple):
    request_id: int
    arrival_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float
    prompt_tokens: int
    output_tokens: int
    generated: int
    cached_tokens: int
    preemptions: int


def sequences(count: int, first_id: int = 0) -> list[Sequence]:
    return [
        Sequence(first_id + each, 0.25 * each, each + 0.5, each + 1.0, each + 3.0, 10 + each, 4, 4, each % 3, each % 2)
        for each in range(count)
    ]


def workload_of(served: list[Sequence]) -> Workload:
    return Workload(
        name="some",
        arrival_s=np.array([each.arrival_s for each in served]),
        prompt_tokens=np.array([each.prompt_tokens for each in served]),
        output_tokens=np.array([each.output_tokens for each in served]),
    )


def complete(columns: Columns) -> Columns:
    rows = len(columns["end_s"])
    return {"flops": np.zeros(rows), "outside": np.zeros(rows, np.int32)}


def meta(workload: Workload) -> dict[str, Any]:
    group = {
        "count": 1,
        "role": "both",
        "deployment": {},
        "stages": 1,
        "gpus": 1,
        "kv_blocks": 10,
        "peak_flops": None,
        "max_num_seqs": 4,
        "cost_model": None,
    }
    return {
        "source": "engine",
        "policy": {"name": "vllm-v1"},
        "workload": describe_workload(workload),
        "seed": 0,
        "groups": [group],
        "block_size": 16,
        "router": None,
        "link": None,
        "failures": [],
        "versions": {},
    }


def write(path: Path, requests: KnownRequests | ArrivingRequests, served: list[Sequence], order: list[int]) -> None:
    with RunWriter(path) as writer:
        log = RunLog(writer, requests, complete)
        for turn, each in enumerate(order):
            batch = Batch()
            batch.decodes = batch.outputs = 1
            log.iterations(Ran(batch, (turn + 1.0,), (0.5,), (1,), 0, 1, [(0.5, 1)]))
            log.ended([served[each]])
        assert log.finished == len(served)
        log.close()
        writer.meta(meta(workload_of(served)))


@pytest.mark.parametrize("first_id", [0, 700])
def test_the_bytes_are_those_of_a_workload_known_before(first_id: int, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(50).tolist()
    known = sequences(50)
    write(tmp_path / "known", KnownRequests(workload_of(known)), known, order)
    write(tmp_path / "arriving", ArrivingRequests(), sequences(50, first_id), order)
    for name in ("run.json", "requests.parquet", "iterations.parquet"):
        assert (tmp_path / "arriving" / name).read_bytes() == (tmp_path / "known" / name).read_bytes(), name
    assert read_run(tmp_path / "arriving").requests.cached_tokens[:4].tolist() == [0, 1, 2, 0]


@given(st.permutations(range(12)), st.lists(st.integers(0, 12), max_size=3))
def test_whatever_the_order_and_however_many_at_once(order: list[int], cuts: list[int]) -> None:
    served, whole, parts = sequences(12, 5), ArrivingRequests(), ArrivingRequests()
    whole.take(served)
    mixed = [served[each] for each in order]
    bounds = [0, *sorted(cuts), 12]
    for first, last in pairwise(bounds):
        parts.take(mixed[first:last])
    assert len(parts) == 12
    assert parts.ids().tolist() == list(range(5, 17))
    one, other = whole.made(), parts.made()
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert one["request_id"].tolist() == list(range(12))


def test_no_requests_are_no_rows() -> None:
    columns = ArrivingRequests().made()
    assert {len(column) for column in columns.values()} == {0}
