"""A run as a timeline for https://ui.perfetto.dev or chrome://tracing (the Trace Event Format, JSON)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from traces.errors import InputError
from traces.files import whole_file
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
)


def export_perfetto(
    run: RunRecord,
    path: str | PathLike[str],
    *,
    max_requests: int = 1000,
    start_s: float = 0.0,
    end_s: float = float("inf"),
) -> Path:
    """Write a timeline of a run, whole or not at all.

    Each replica is a process. Its threads are the pipeline stages, whose slices are iterations (with prompt
    tokens, decodes and contexts as arguments); its counters are queue length, residents and KV use; its first
    ``max_requests`` requests that overlap the window are asynchronous rows: queued, prefill, decode.

    Parameters
    ----------
    run
        The run. Events are written one by one, so that memory does not grow with it.
    path
        The file; compressed if its name ends in ``.gz``. Perfetto opens both.
    max_requests
        Most requests to draw, of each replica; 0 for none.
    start_s, end_s
        Only iterations and requests that overlap this window.

    Raises
    ------
    InputError
        If the file cannot be written, or the window or ``max_requests`` makes no sense.
    """
    if not start_s < end_s:
        raise InputError(f"a window from {start_s} s to {end_s} s", expected="a start before the end")
    if max_requests < 0:
        raise InputError(f"max_requests is {max_requests}", expected="an integer >= 0")
    with whole_file(path) as temporary, _text(temporary, str(path).endswith(".gz")) as file:
        _write(file, _events(run, max_requests, (start_s, end_s)))
    return Path(path)


@contextmanager
def _text(path: Path, compressed: bool) -> Iterator[BinaryIO | gzip.GzipFile]:
    with path.open("wb") as raw:
        if not compressed:
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file:
            yield file


def _write(file: BinaryIO | gzip.GzipFile, events: Iterable[Event]) -> None:
    separator = b'{"displayTimeUnit":"ms","traceEvents":[\n'
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    for event in events:
        file.write(separator + encode(event).encode())
        separator = b",\n"
    file.write(b"\n]}\n")


def _events(run: RunRecord, max_requests: int, window: tuple[float, float]) -> Iterator[Event]:
    for replica in range(run.meta.replicas):
        yield from _names(run, replica)
        yield from _slices(run, replica, window)
        yield from _counters(run, replica, window)
        yield from _requests(run, replica, window, max_requests)


def _names(run: RunRecord, replica: int) -> Iterator[Event]:
    policy = str(run.meta.policy.get("name", "")) or run.meta.source
    pid = replica + 1
    yield _metadata("process_name", pid, 0, name=f"replica {replica} ({policy})")
    yield _metadata("process_sort_index", pid, 0, sort_index=replica)
    for stage in range(run.meta.group_of(replica).stages):
        yield _metadata("thread_name", pid, stage + 1, name=f"stage {stage}")
        yield _metadata("thread_sort_index", pid, stage + 1, sort_index=stage)


def _metadata(kind: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": args}


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
                "name": KINDS[kinds[row]],
                "cat": "iteration",
                "pid": replica + 1,
                "tid": stage + 1,
                "ts": begin_ns / 1e3,
                "dur": max(end_ns - begin_ns, 0) / 1e3,
                "args": _arguments(run, row),
            }


def _arguments(run: RunRecord, row: int) -> dict[str, int]:
    return {name: int(getattr(run.iterations, name)[row]) for name in SLICE_ARGUMENTS}


def _counters(run: RunRecord, replica: int, window: tuple[float, float]) -> Iterator[Event]:
    columns, blocks = run.iterations, run.meta.group_of(replica).kv_blocks
    for row in _inside(run, replica, window).tolist():
        ts = int(_ns(columns.start_s[row])) / 1e3
        used = round(int(columns.blocks_used[row]) / blocks, 6)
        values = {"waiting": int(columns.waiting[row]), "running": int(columns.running[row]), "KV use": used}
        for name, value in values.items():
            yield {"ph": "C", "name": name, "pid": replica + 1, "tid": 0, "ts": ts, "args": {"value": value}}


def _requests(run: RunRecord, replica: int, window: tuple[float, float], max_requests: int) -> Iterator[Event]:
    requests = run.requests
    until = np.where(np.isnan(requests.finished_s), run.end_s, requests.finished_s)
    overlaps = (requests.arrival_s < window[1]) & (until >= window[0]) & (requests.replica == replica)
    for row in np.flatnonzero(overlaps)[:max_requests].tolist():
        yield from _request(run, row, replica + 1)


def _request(run: RunRecord, row: int, pid: int) -> Iterator[Event]:
    requests = run.requests
    moments = [float(requests.arrival_s[row])]
    for times in (requests.scheduled_s, requests.first_token_s, requests.finished_s):
        moments.append(max(float(times[row]), moments[-1]) if times[row] == times[row] else run.end_s)
    request = int(requests.request_id[row])
    identity = {"cat": REQUEST_CATEGORY, "id": str(request), "pid": pid, "tid": 0}
    tokens = ("prompt_tokens", "output_tokens", "generated_tokens", "cached_tokens", "preemptions")
    args = {name: int(getattr(requests, name)[row]) for name in tokens}
    yield {"ph": "b", "name": f"request {request}", "ts": _us(moments[0]), "args": args, **identity}
    for name, begin_s, end_s in zip(("queued", "prefill", "decode"), moments[:-1], moments[1:], strict=True):
        if end_s > begin_s:
            yield {"ph": "b", "name": name, "ts": _us(begin_s), **identity}
            yield {"ph": "e", "name": name, "ts": _us(end_s), **identity}
    yield {"ph": "e", "name": f"request {request}", "ts": _us(moments[-1]), **identity}


def _inside(run: RunRecord, replica: int, window: tuple[float, float]) -> Any:
    rows = run.rows_of(replica)
    inside = (run.iterations.start_s[rows] < window[1]) & (run.iterations.end_s[rows] > window[0])
    return rows[inside]


def _ns(times_s: Any) -> Any:
    return np.rint(np.asarray(times_s) * NS_PER_S).astype(np.int64)


def _us(time_s: float) -> float:
    return round(time_s * NS_PER_S) / 1e3
