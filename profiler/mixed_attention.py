"""What the attention of a chunk and decodes in one launch costs by its physics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from profiler.prefill_attention import QUERY_TILE, SHORTEST_PAST
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, Floats]
OP = "mixed_attention"
KEYS = (
    "query_tokens",
    "past_tokens",
    "decodes",
    "decode_context",
    "heads",
    "kv_heads",
    "head_dim",
    "element_bytes",
)
NAMES = (
    "launch",
    "flops",
    "longest_block",
    "longest_chunk",
    "decode_bytes",
    "head_bytes",
    "missed_bytes",
    "chunk_kv_bytes",
    "query_bytes",
    "blocks",
    "waves",
    "decode_waves",
)


def terms(shape: Shape, device: Device) -> Floats:
    """Return [rows, terms] in seconds; the time is their weighted sum.

    One launch over both kinds runs the kernel of prefills: contexts are not split and query heads not packed,
    so that each head of each decode is a thread block with one query in a whole tile. The terms: a launch; the
    FLOPs of the chunk's pairs; the block with the longest context of all, and of the chunk, on its one
    multiprocessor; the KV bytes of the decodes, once, and once for each query head, the latter also where they
    miss the last cache (:func:`_missed`); those of the chunk; its
    queries and outputs; thread blocks and waves of them per multiprocessor, a microsecond each; and waves of
    the decodes' blocks, each as long as a context.
    """
    q, past, decodes, context = (shape[key] for key in KEYS[:4])
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    end, decode_blocks = past + q, decodes * heads
    tile_s = 4 * width * QUERY_TILE * device.sms / device.peak_flops
    token_s = 2 * shape["element_bytes"] * width / device.memory_bandwidth_bytes_per_s
    blocks = heads * np.ceil(q / QUERY_TILE) + decode_blocks
    columns = [np.full_like(tile_s, 1e-6), 4 * width * heads * (q * past + q * (q + 1) / 2) / device.peak_flops]
    columns += [tile_s * np.maximum(end, context), tile_s * end]
    columns += [token_s * decodes * context * count for count in (kv_heads, heads)]
    columns.append(columns[-1] * _missed(shape, device))
    columns += [token_s * end * kv_heads, token_s * q * heads]
    columns += [1e-6 * blocks / device.sms, 1e-6 * np.ceil(blocks / device.sms)]
    columns.append(tile_s * context * np.ceil(decode_blocks / device.sms))
    return np.stack(columns, axis=1)


def _missed(shape: Shape, device: Device) -> Floats:
    """Return 1 where the query heads of a KV head find nothing of each other's in the last cache.

    They run one after the other over all sequences: where not all run at once, and one KV head of all
    sequences is larger than the cache, each reads from memory.
    """
    decodes, ratio = shape["decodes"], shape["heads"] / shape["kv_heads"]
    between = 2 * shape["element_bytes"] * shape["head_dim"] * decodes * shape["decode_context"]
    return np.asarray((decodes * ratio > 2 * device.sms) & (between > device.l2_bytes), dtype=np.float64)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of one layer's attention over a chunk and ``decodes`` decodes of equal context."""
    return np.asarray(terms(shape, device) @ [coefficients[name] for name in NAMES], dtype=np.float64)


def features(shape: Shape, device: Device) -> Floats:
    """Return [rows, features] for the residual."""
    q, past, decodes, context = (shape[key] for key in KEYS[:4])
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    blocks = (heads * np.ceil(q / QUERY_TILE) + decodes * heads) / device.sms
    pairs = heads * (q * past + q * (q + 1) / 2) / device.sms
    columns = [
        q,
        past + q / 2,
        decodes,
        context,
        heads,
        blocks,
        np.ceil(blocks) / blocks,
        np.maximum(past + q, context),
    ]
    columns += [decodes * context * kv_heads * width, (past + q) / context, pairs / context]
    return np.stack([*(np.log2(column) for column in columns), _missed(shape, device)], axis=1)


def plane(shape: Shape) -> Floats:
    """Return where each row lies on its layout's surface, [rows, 4]: doublings of chunk, past, decodes, context."""
    past = shape["past_tokens"] + SHORTEST_PAST
    return np.log2(np.stack([shape["query_tokens"], past, shape["decodes"], shape["decode_context"]], axis=1))
