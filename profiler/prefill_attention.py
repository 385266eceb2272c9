"""What the attention of prefill chunks costs by its physics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, Floats]
QUERY_TILE = 128
SOFTMAX_WIDTH = 64
"""Numbers of a head whose product costs about what the softmax of one pair does."""
SUSTAINED_S = 1e-3
"""Seconds at the peak rate from which on clocks may fall under the load."""
SHORTEST_PAST = 16
"""Tokens; what is shorter is told from no past at all by little."""
OP = "prefill_attention"
KEYS = ("sequences", "query_tokens", "past_tokens", "heads", "kv_heads", "head_dim", "element_bytes")
NAMES = (
    "launch",
    "flops",
    "softmax",
    "sustained_flops",
    "longest_block",
    "longest_softmax",
    "query_bytes",
    "kv_bytes",
    "blocks",
    "waves",
    "packed_waves",
    "kv_heads",
)


def terms(shape: Shape, device: Device) -> Floats:
    """Return [rows, terms] in seconds; the time is their weighted sum.

    A chunk of q tokens after c others attends to q c + q (q + 1) / 2 pairs. The terms: a launch; the FLOPs of
    those pairs at the peak rate, and the softmax of each, which does not grow with the head's width; what of
    them is beyond a millisecond; both again of the thread block with the longest context, a whole query
    tile, on its one multiprocessor; the bytes of queries and outputs, and of KV; and, a microsecond each per
    multiprocessor, thread blocks and waves of them, also with the query heads of one KV head packed into a
    tile, and KV heads.
    """
    b, q, past = shape["sequences"], shape["query_tokens"], shape["past_tokens"]
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    pair_s = 4 * b * heads * (q * past + q * (q + 1) / 2) / device.peak_flops
    longest_s = 4 * QUERY_TILE * (past + q) * device.sms / device.peak_flops
    token_s = shape["element_bytes"] * 2 * b * width / device.memory_bandwidth_bytes_per_s
    blocks, packed = _blocks(shape)
    columns = [np.full_like(pair_s, 1e-6), width * pair_s, SOFTMAX_WIDTH * pair_s]
    columns += [np.maximum(width * pair_s - SUSTAINED_S, 0), width * longest_s, SOFTMAX_WIDTH * longest_s]
    columns += [token_s * q * heads, token_s * (past + q) * kv_heads, 1e-6 * blocks * width / 128 / device.sms]
    columns += [1e-6 * np.ceil(each / device.sms) for each in (blocks, packed)]
    return np.stack([*columns, 1e-6 * b * kv_heads / device.sms], axis=1)


def _blocks(shape: Shape) -> tuple[Floats, Floats]:
    """Return the thread blocks of all sequences: a query tile of a head each, or of a KV head's packed heads."""
    b, q, heads, kv_heads = (shape[key] for key in ("sequences", "query_tokens", "heads", "kv_heads"))
    packed = b * kv_heads * np.ceil(q * heads / kv_heads / QUERY_TILE)
    return np.asarray(b * heads * np.ceil(q / QUERY_TILE), dtype=np.float64), np.asarray(packed, dtype=np.float64)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of one layer's attention over ``sequences`` chunks of ``query_tokens`` each."""
    return np.asarray(terms(shape, device) @ [coefficients[name] for name in NAMES], dtype=np.float64)


def features(shape: Shape, device: Device) -> Floats:
    """Return [rows, features] for the residual; a chunk's past counts as a longer mean context."""
    b, q, past = shape["sequences"], shape["query_tokens"], shape["past_tokens"]
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    blocks, packed = (each / device.sms for each in _blocks(shape))
    columns = [blocks, q, past + q / 2, heads / kv_heads, b, width, np.ceil(blocks) / blocks, kv_heads]
    columns += [packed, np.ceil(packed) / packed, b * width * (past + q) * kv_heads]
    columns.append(b * heads * width * q * (past + q / 2))
    return np.stack([np.log2(column) for column in columns], axis=1)


def plane(shape: Shape) -> Floats:
    """Return where each row lies on its layout's surface, [rows, 3]: doublings of sequences, chunk and past."""
    past = shape["past_tokens"] + SHORTEST_PAST
    return np.log2(np.stack([shape["sequences"], shape["query_tokens"], past], axis=1))
