"""A run as a timeline for https://ui.perfetto.dev or chrome://tracing (the Trace Event Format, JSON)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from traces.downtime import Outage, outages
from traces.errors import InputError
from traces.event_lines import chunks, column, lines, microseconds, picked
from traces.files import whole_file
from traces.run_columns import IterationColumns, ReplicaGroup, RunRecord, SmallColumn
from traces.utilisation import KINDS, iteration_kinds
from traces.workload import IntColumn

if TYPE_CHECKING:
    import pyarrow as pa

Window = tuple[float, float]
Rows = npt.NDArray[np.intp]
NS_PER_S = 1e9
REQUEST_CATEGORY = "request"
SEPARATOR = b",\n"
"""Every event begins with it, but for the first of the file."""
SLICE_NAMES = tuple(f'{kind}","cat":"iteration' for kind in KINDS)
OUTSIDE_NAMES = tuple(f'{kind} (outside)","cat":"iteration,outside' for kind in KINDS)
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
REQUEST_ARGUMENTS = ("prompt_tokens", "output_tokens", "generated_tokens", "cached_tokens", "preemptions", "restarts")


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
    tokens, decodes and contexts as arguments), those of one batch linked by flow arrows from stage to stage; a
    batch outside of the profiled range has that in its name, its category and, as the number of the limit, in
    ``outside``. Its counters are queue length, residents and KV use. The first ``max_requests`` requests that began on
    it and overlap the window are asynchronous rows: queued, prefill and decode. What a request does after its first
    token is shown on the replica from which its last one came, with the transfer of its KV before. A replica that
    fails is "down" in a thread of its own; its requests compute their KV again, within the same spans.

    Parameters
    ----------
    run
        The run. Of its iterations those in the window are held in memory, without their gaps.
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
    with whole_file(path) as temporary, _opened(temporary, str(path).endswith(".gz")) as file:
        texts = _events(run, max_requests, (start_s, end_s))
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n' + bytes(next(texts)).removeprefix(SEPARATOR))
        for text in texts:
            file.write(text)
        file.write(b"\n]}\n")
    return Path(path)


@contextmanager
def _opened(path: Path, compressed: bool) -> Iterator[BinaryIO | gzip.GzipFile]:
    with path.open("wb") as raw:
        if not compressed:
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file:
            yield file


def _events(run: RunRecord, max_requests: int, window: Window) -> Iterator[bytes | memoryview]:
    """Yield the text of the events, each with its separator before it, those of a replica after another's."""
    columns, requests = run.iterations, run.requests
    until_s = np.where(np.isnan(requests.finished_s), run.end_s, requests.finished_s)
    rows = _by_replica(run, columns.replica, (columns.start_s < window[1]) & (columns.end_s > window[0]))
    served = _by_replica(run, requests.replica, (requests.arrival_s < window[1]) & (until_s >= window[0]))
    shown, until = _selected(columns, np.concatenate(rows)), np.cumsum([len(each) for each in rows]).tolist()
    down = outages(run)
    for replica in range(run.meta.replicas):
        group = run.meta.group_of(replica)
        mine = _selected(shown, slice(until[replica] - len(rows[replica]), until[replica]))
        yield _names(run, replica, group)
        if down[replica]:
            yield _outages(down[replica], replica, group.stages + 1)
        for stage in range(group.stages):
            yield from _slices(mine, replica, stage, group.stages)
        for part in chunks(len(mine)):
            yield _counters(_selected(mine, part), replica, group.kv_blocks)
        for row in served[replica][:max_requests].tolist():
            yield _request(run, row)


def _by_replica(run: RunRecord, replica: SmallColumn, inside: npt.NDArray[np.bool_]) -> list[Rows]:
    """Return the rows inside the window, those of each replica, in order."""
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(replica[rows], kind="stable")]
    return np.split(rows, np.searchsorted(replica[rows], np.arange(1, run.meta.replicas)))


def _selected(columns: IterationColumns, rows: Rows | slice) -> IterationColumns:
    """Return some of the iterations, without their gaps."""
    names = [field.name for field in fields(IterationColumns) if not field.name.startswith("gap_")]
    gaps: dict[str, Any] = {
        "gap_offsets": np.zeros(1, np.int64),
        "gap_s": np.zeros(0),
        "gap_count": np.zeros(0, np.int32),
    }
    return IterationColumns(**{name: getattr(columns, name)[rows] for name in names}, **gaps)


def _line(**event: Any) -> bytes:
    return SEPARATOR + json.dumps(event, separators=(",", ":"), allow_nan=False).encode()


def _names(run: RunRecord, replica: int, group: ReplicaGroup) -> bytes:
    policy = str(run.meta.policy.get("name", "")) or run.meta.source
    what = policy if group.role == "both" else f"{group.role}, {policy}"
    texts = [
        _metadata("process_name", replica, 0, name=f"replica {replica} ({what})"),
        _metadata("process_sort_index", replica, 0, sort_index=replica),
    ]
    for stage in range(group.stages):
        texts.append(_metadata("thread_name", replica, stage + 1, name=f"stage {stage}"))
        texts.append(_metadata("thread_sort_index", replica, stage + 1, sort_index=stage))
    return b"".join(texts)


def _metadata(kind: str, replica: int, tid: int, **args: Any) -> bytes:
    return _line(ph="M", name=kind, pid=replica + 1, tid=tid, ts=0, args=args)


def _outages(down: Sequence[Outage], replica: int, tid: int) -> bytes:
    texts = [_metadata("thread_name", replica, tid, name="failures")]
    for outage in down:
        times = {"ts": _us(outage.start_s), "dur": _us(outage.end_s - outage.start_s)}
        texts.append(_line(ph="X", name="down", cat="failure", pid=replica + 1, tid=tid, **times, args={}))
    return b"".join(texts)


def _slices(columns: IterationColumns, replica: int, stage: int, stages: int) -> Iterator[memoryview]:
    """Yield the iterations of one stage; to the nanosecond none begins before the one before has ended."""
    starts = columns.stage_start_s[:, stage]
    begin, end = _ns(starts), _ns(starts + columns.stage_time_s[:, stage])
    end[:-1] = np.minimum(end[:-1], begin[1:])
    lengths = np.maximum(end - begin, 0)
    for part in chunks(len(columns)):
        rows = _selected(columns, part)
        yield lines(
            ',\n{"ph":"X","name":"',
            picked(SLICE_NAMES + OUTSIDE_NAMES, iteration_kinds(rows) + len(KINDS) * (rows.outside > 0)),
            f'","pid":{replica + 1},"tid":{stage + 1},"ts":',
            microseconds(begin[part]),
            ',"dur":',
            microseconds(lengths[part]),
            *_flow(rows, stage, stages),
            *_arguments(rows),
            "}}",
        )


def _flow(rows: IterationColumns, stage: int, stages: int) -> Iterator[str | pa.Array]:
    """Yield what links the slices of a batch: arrows into all but the first stage, out of all but the last."""
    if stages > 1:
        yield ',"bind_id":'
        yield column(rows.iteration + 1)
        yield ',"flow_in":true' if stage else ""
        yield ',"flow_out":true' if stage + 1 < stages else ""


def _arguments(rows: IterationColumns) -> Iterator[str | pa.Array]:
    separator = ',"args":{'
    for name in SLICE_ARGUMENTS:
        yield f'{separator}"{name}":'
        yield column(getattr(rows, name))
        separator = ","


def _counters(rows: IterationColumns, replica: int, kv_blocks: int) -> memoryview:
    used, shares = np.unique(rows.blocks_used, return_inverse=True)
    values = {
        "waiting": column(rows.waiting),
        "running": column(rows.running),
        "KV use": picked([repr(round(each / kv_blocks, 6)) for each in used.tolist()], shares),
    }
    ts, where = microseconds(_ns(rows.start_s)), f'"pid":{replica + 1},"tid":0,"ts":'
    parts: list[str | pa.Array] = []
    for name, each in values.items():
        parts += [f',\n{{"ph":"C","name":"{name}",{where}', ts, ',"args":{"value":', each, "}}"]
    return lines(*parts)


def _request(run: RunRecord, row: int) -> bytes:
    """Return the spans of a request: until its first token where it began, then where its last token came from."""
    requests = run.requests
    moments = [float(requests.arrival_s[row])]
    for times in (requests.scheduled_s, requests.first_token_s, requests.finished_s):
        moments.append(max(float(times[row]), moments[-1]) if times[row] == times[row] else run.end_s)
    arrival_s, scheduled_s, first_s, end_s = moments
    moved_s = min(first_s + float(requests.transfer_s[row]), end_s)
    here = [("queued", arrival_s, scheduled_s), ("prefill", scheduled_s, first_s)]
    there = [("transfer", first_s, moved_s), ("decode", moved_s, end_s)]
    home, last = int(requests.replica[row]), int(requests.decode_replica[row])
    if home == last:
        return _spans(run, row, home, here + there)
    return _spans(run, row, home, here) + (_spans(run, row, last, there) if end_s > first_s else b"")


def _spans(run: RunRecord, row: int, replica: int, phases: list[tuple[str, float, float]]) -> bytes:
    request = int(run.requests.request_id[row])
    whole, where = f"request {request}", {"cat": REQUEST_CATEGORY, "id": str(request), "pid": replica + 1, "tid": 0}
    args = {name: int(getattr(run.requests, name)[row]) for name in REQUEST_ARGUMENTS}
    texts = [_line(ph="b", name=whole, ts=_us(phases[0][1]), args=args, **where)]
    for name, begin_s, end_s in phases:
        if end_s > begin_s:
            texts.append(_line(ph="b", name=name, ts=_us(begin_s), **where))
            texts.append(_line(ph="e", name=name, ts=_us(end_s), **where))
    return b"".join([*texts, _line(ph="e", name=whole, ts=_us(phases[-1][2]), **where)])


def _ns(times_s: Any) -> IntColumn:
    return np.rint(np.asarray(times_s) * NS_PER_S).astype(np.int64)


def _us(time_s: float) -> float:
    return round(time_s * NS_PER_S) / 1e3
