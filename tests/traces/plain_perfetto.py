"""The events of a timeline one by one, each a dict: what the lines made from whole columns must be equal to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from traces.downtime import outages
from traces.run_columns import RunRecord
from traces.utilisation import KINDS, iteration_kinds

Event = dict[str, Any]
NS_PER_S = 1e9
REQUEST_CATEGORY = "request"
SLICE_ARGUMENTS = (
    "iteration",
    "prefill_tokens",
    "chunks",
    "decodes",
    "outputs",
    "prefill_context_sum",
    "decode_context_sum",
    "decode_context_max",
    "preemptions",
    "outside",
)


def timeline(run: RunRecord, *, max_requests: int, window: tuple[float, float]) -> bytes:
    """Return the content of the file."""
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    events = ",\n".join(encode(event) for event in _events(run, max_requests, window))
    return f'{{"displayTimeUnit":"ms","traceEvents":[\n{events}\n]}}\n'.encode()


def _events(run: RunRecord, max_requests: int, window: tuple[float, float]) -> Iterator[Event]:
    for replica in range(run.meta.replicas):
        yield from _names(run, replica)
        yield from _down(run, replica)
        yield from _slices(run, replica, window)
        yield from _counters(run, replica, window)
        yield from _requests(run, replica, window, max_requests)


def _names(run: RunRecord, replica: int) -> Iterator[Event]:
    policy = str(run.meta.policy.get("name", "")) or run.meta.source
    pid = replica + 1
    role = run.meta.group_of(replica).role
    what = policy if role == "both" else f"{role}, {policy}"
    yield _metadata("process_name", pid, 0, name=f"replica {replica} ({what})")
    yield _metadata("process_sort_index", pid, 0, sort_index=replica)
    for stage in range(run.meta.group_of(replica).stages):
        yield _metadata("thread_name", pid, stage + 1, name=f"stage {stage}")
        yield _metadata("thread_sort_index", pid, stage + 1, sort_index=stage)


def _metadata(kind: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": args}


def _down(run: RunRecord, replica: int) -> Iterator[Event]:
    pid, tid = replica + 1, run.meta.group_of(replica).stages + 1
    down = outages(run)[replica]
    if down:
        yield _metadata("thread_name", pid, tid, name="failures")
    for outage in down:
        times = {"ts": _us(outage.start_s), "dur": _us(outage.end_s - outage.start_s)}
        yield {"ph": "X", "name": "down", "cat": "failure", "pid": pid, "tid": tid, **times, "args": {}}


def _slices(run: RunRecord, replica: int, window: tuple[float, float]) -> Iterator[Event]:
    columns = run.iterations
    rows = _inside(run, replica, window)
    kinds = iteration_kinds(columns)
    for stage in range(run.meta.group_of(replica).stages):
        starts = columns.stage_start_s[rows, stage]
        begin = _ns(starts)
        end = _ns(starts + columns.stage_time_s[rows, stage])
        end[:-1] = np.minimum(end[:-1], begin[1:])
        for row, begin_ns, end_ns in zip(rows.tolist(), begin.tolist(), end.tolist(), strict=True):
            yield {
                "ph": "X",
                "name": KINDS[kinds[row]] + (" (outside)" if columns.outside[row] else ""),
                "cat": "iteration,outside" if columns.outside[row] else "iteration",
                "pid": replica + 1,
                "tid": stage + 1,
                "ts": begin_ns / 1e3,
                "dur": max(end_ns - begin_ns, 0) / 1e3,
                **_flow(int(columns.iteration[row]), stage, run.meta.group_of(replica).stages),
                "args": _arguments(run, row),
            }


def _flow(iteration: int, stage: int, stages: int) -> Event:
    if stages == 1:
        return {}
    into, out = {"flow_in": True} if stage else {}, {"flow_out": True} if stage + 1 < stages else {}
    return {"bind_id": iteration + 1, **into, **out}


def _arguments(run: RunRecord, row: int) -> dict[str, int]:
    return {name: int(getattr(run.iterations, name)[row]) for name in SLICE_ARGUMENTS}


def _counters(run: RunRecord, replica: int, window: tuple[float, float]) -> Iterator[Event]:
    columns = run.iterations
    for row in _inside(run, replica, window).tolist():
        ts = int(_ns(columns.start_s[row])) / 1e3
        used = round(int(columns.blocks_used[row]) / run.meta.group_of(replica).kv_blocks, 6)
        values = {"waiting": int(columns.waiting[row]), "running": int(columns.running[row]), "KV use": used}
        for name, value in values.items():
            yield {"ph": "C", "name": name, "pid": replica + 1, "tid": 0, "ts": ts, "args": {"value": value}}


def _requests(run: RunRecord, replica: int, window: tuple[float, float], max_requests: int) -> Iterator[Event]:
    requests = run.requests
    until = np.where(np.isnan(requests.finished_s), run.end_s, requests.finished_s)
    overlaps = (requests.arrival_s < window[1]) & (until >= window[0]) & (requests.replica == replica)
    for row in np.flatnonzero(overlaps)[:max_requests].tolist():
        yield from _request(run, row)


def _request(run: RunRecord, row: int) -> Iterator[Event]:
    requests = run.requests
    moments = [float(requests.arrival_s[row])]
    for times in (requests.scheduled_s, requests.first_token_s, requests.finished_s):
        moments.append(max(float(times[row]), moments[-1]) if times[row] == times[row] else run.end_s)
    moments.insert(3, min(moments[2] + float(requests.transfer_s[row]), moments[3]))
    names = ("queued", "prefill", "transfer", "decode")
    home, last = int(requests.replica[row]), int(requests.decode_replica[row])
    spans = [(home, names, moments)]
    if home != last:
        spans = [(home, names[:2], moments[:3])]
        if moments[-1] > moments[2]:
            spans.append((last, names[2:], moments[2:]))
    request = int(requests.request_id[row])
    tokens = ("prompt_tokens", "output_tokens", "generated_tokens", "cached_tokens", "preemptions", "restarts")
    args = {name: int(getattr(requests, name)[row]) for name in tokens}
    for replica, phases, times in spans:
        identity = {"cat": REQUEST_CATEGORY, "id": str(request), "pid": replica + 1, "tid": 0}
        yield {"ph": "b", "name": f"request {request}", "ts": _us(times[0]), "args": args, **identity}
        for name, begin_s, end_s in zip(phases, times[:-1], times[1:], strict=True):
            if end_s > begin_s:
                yield {"ph": "b", "name": name, "ts": _us(begin_s), **identity}
                yield {"ph": "e", "name": name, "ts": _us(end_s), **identity}
        yield {"ph": "e", "name": f"request {request}", "ts": _us(times[-1]), **identity}


def _inside(run: RunRecord, replica: int, window: tuple[float, float]) -> Any:
    rows = run.rows_of(replica)
    inside = (run.iterations.start_s[rows] < window[1]) & (run.iterations.end_s[rows] > window[0])
    return rows[inside]


def _ns(times_s: Any) -> Any:
    return np.rint(np.asarray(times_s) * NS_PER_S).astype(np.int64)


def _us(time_s: float) -> float:
    return round(time_s * NS_PER_S) / 1e3
