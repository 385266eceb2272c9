"""Refusing times that no device can reach: rows that beat the roofline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from profiler.model import DTYPE_BYTES
from profiler.profile import TEXT_COLUMNS, WHY_COLUMN

if TYPE_CHECKING:
    import pyarrow as pa

    from profiler.device import Device

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]
TOLERANCE = 0.05
"""Share by which a time may lie under the roofline: clocks rise a little above the datasheet's."""
NO_TIME = "a time of zero"
NO_WORK = "nothing to do"
HOT = "hot in L2"
MEMORY = "faster than memory"
COMPUTE = "faster than the peak rate"
LINK = "faster than the link"
LAYOUT = "more KV heads than heads"
SLOW = "slower than any kernel"
LAUNCH_S = 5e-6
"""What even an empty kernel takes."""
SLOWEST = 1e4
"""Times what the roofline and a launch leave, from which on a time is no measurement; the slowest published: 390."""


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """What bounds every time of a device from below."""

    peak_flops: float
    memory_bandwidth_bytes_per_s: float
    l2_bytes: int
    link_bandwidth_bytes_per_s: float

    @staticmethod
    def of(device: Device) -> Roofline:
        """Return the roofline of a device."""
        return Roofline(
            peak_flops=device.peak_flops,
            memory_bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
            l2_bytes=device.l2_bytes,
            link_bandwidth_bytes_per_s=device.link_bandwidth_bytes_per_s,
        )


@dataclass(frozen=True)
class Work:
    """What each row has to do.

    ``moved_bytes`` must come from or go to memory when the device's caches hold nothing useful, as in a
    serving engine, where all layers run before one runs again; ``sent_bytes`` must cross a link.
    """

    flops: Floats
    moved_bytes: Floats
    sent_bytes: Floats


def lint(table: pa.Table, device: Device | Roofline) -> tuple[pa.Table, dict[str, int]]:
    """Return the rows that are possible, and how many were refused for each reason (``op: reason``).

    A row is refused if its time or its work is zero, or the time more than :data:`TOLERANCE` under
    ``max(FLOPs / peak rate, bytes / bandwidth)``. Matrix products move weights, inputs and outputs; attention
    moves the KV of the past. Where everything that a row touches fits into the last cache, it is *hot in L2*:
    possible, but only because the kernel ran again and again over the same data, which serving never does. Elementwise
    ops are taken to find their inputs in the cache, where the op before left them; only what does not fit
    must move. A time :data:`SLOWEST` times over what the roofline leaves it, and attention with more KV heads than
    heads, are slips of whoever wrote the table.
    """
    import pyarrow as pa

    roofline = device if isinstance(device, Roofline) else Roofline.of(device)
    reasons = refusals(table, roofline)
    bad = reasons != ""
    ops = np.asarray(table["op"].to_pylist(), dtype=np.str_)
    names, counts = np.unique(np.char.add(np.char.add(ops[bad], ": "), reasons[bad]), return_counts=True)
    kept = table.filter(pa.array(~bad))
    return kept, {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def refusals(table: pa.Table, roofline: Roofline) -> npt.NDArray[Any]:
    """Return for each row why it is refused, "" for a row that is possible."""
    reasons = np.full(table.num_rows, "", dtype="<U40")
    for op, rows, columns in by_op(table):
        reasons[rows] = _reasons(op, columns, roofline)
    return reasons


def reached(table: pa.Table, roofline: Roofline) -> tuple[float, float]:
    """Return the highest FLOP/s and bytes/s of memory of any row: what a device can do at least."""
    flops_per_s, bytes_per_s = 0.0, 0.0
    for op, _, columns in by_op(table):
        timed = columns["time_s"] > 0
        if op in WORK and timed.any():
            work, time_s = WORK[op](columns, roofline), columns["time_s"][timed]
            flops_per_s = max(flops_per_s, float((work.flops[timed] / time_s).max()))
            bytes_per_s = max(bytes_per_s, float((work.moved_bytes[timed] / time_s).max()))
    return flops_per_s, bytes_per_s


def least_s(op: str, columns: Columns, roofline: Roofline) -> Floats:
    """Return the seconds that the roofline leaves each row at least, all bytes of an elementwise op moving."""
    work = WORK[op](columns, roofline)
    moved = columns["size_bytes"] if op == "elementwise" else work.moved_bytes
    bounds = (
        work.flops / roofline.peak_flops,
        moved / roofline.memory_bandwidth_bytes_per_s,
        work.sent_bytes / roofline.link_bandwidth_bytes_per_s,
    )
    return np.asarray(np.max(bounds, axis=0), dtype=np.float64)


def by_op(table: pa.Table) -> Iterator[tuple[str, npt.NDArray[np.bool_], Columns]]:
    """Yield each op with which rows are its, and their numbers, the bytes of an element among them."""
    numbers = [name for name in table.column_names if name not in (*TEXT_COLUMNS, WHY_COLUMN)]
    columns = {name: table[name].to_numpy().astype(np.float64) for name in numbers}
    widths = [DTYPE_BYTES.get(name, 2) for name in table["dtype"].to_pylist()]
    columns["element_bytes"] = np.asarray(widths, dtype=np.float64)
    ops = np.asarray(table["op"].to_pylist(), dtype=np.str_)
    for op in np.unique(ops):
        rows = ops == op
        yield str(op), rows, {name: values[rows] for name, values in columns.items()}


def _reasons(op: str, columns: Columns, roofline: Roofline) -> npt.NDArray[Any]:
    time_s = columns["time_s"] / (1 - TOLERANCE)
    reasons = np.full(len(time_s), "", dtype="<U40")
    if op in WORK:
        work = WORK[op](columns, roofline)
        in_cache = work.moved_bytes <= roofline.l2_bytes
        beats_memory = work.moved_bytes / roofline.memory_bandwidth_bytes_per_s > time_s
        reasons[beats_memory] = np.where(in_cache, HOT, MEMORY)[beats_memory]
        reasons[work.flops / roofline.peak_flops > time_s] = COMPUTE
        reasons[work.sent_bytes / roofline.link_bandwidth_bytes_per_s > time_s] = LINK
        if op in COMPUTING:
            reasons[work.flops <= 0] = NO_WORK
        if op in ATTENDING:
            reasons[columns["kv_heads"] > columns["heads"]] = LAYOUT
        reasons[columns["time_s"] > SLOWEST * (least_s(op, columns, roofline) + LAUNCH_S)] = SLOW
    reasons[time_s <= 0] = NO_TIME
    return reasons


def _gemm(c: Columns, _: Roofline) -> Work:
    flops = 2 * c["m"] * c["n"] * c["k"]
    moved = c["element_bytes"] * (c["n"] * c["k"] + c["m"] * c["k"] + c["m"] * c["n"])
    return Work(flops, moved, np.zeros_like(flops))


def _kv_bytes(c: Columns, tokens: Floats) -> Floats:
    return np.asarray(2 * c["element_bytes"] * c["kv_heads"] * c["head_dim"] * tokens, dtype=np.float64)


def _attention(c: Columns, _: Roofline) -> Work:
    query, past, decodes = c["query_tokens"], c["past_tokens"], c["decodes"]
    pairs = c["sequences"] * (query * past + query * (query + 1) / 2) + decodes * c["decode_context"]
    cached = c["sequences"] * past + decodes * np.maximum(c["decode_context"] - 1, 0)
    return Work(4 * c["heads"] * c["head_dim"] * pairs, _kv_bytes(c, cached), np.zeros_like(pairs))


def _elementwise(c: Columns, roofline: Roofline) -> Work:
    moved = np.maximum(c["size_bytes"] - roofline.l2_bytes, 0)
    return Work(np.zeros_like(moved), moved, np.zeros_like(moved))


def _transfer(c: Columns, _: Roofline) -> Work:
    sent = c["size_bytes"]
    return Work(np.zeros_like(sent), np.zeros_like(sent), sent)


WORK: Mapping[str, Callable[[Columns, Roofline], Work]] = {
    "gemm": _gemm,
    "prefill_attention": _attention,
    "decode_attention": _attention,
    "mixed_attention": _attention,
    "elementwise": _elementwise,
    "all_reduce": _transfer,
    "send": _transfer,
}
"""What an op has to do, by its name; an op that is not here can take any time."""
ATTENDING = ("prefill_attention", "decode_attention", "mixed_attention")
COMPUTING = ("gemm", *ATTENDING)
"""Ops that multiply: a row of theirs without a FLOP has a size of zero."""
