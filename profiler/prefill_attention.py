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
OP = "prefill_attention"
KEYS = ("sequences", "query_tokens", "past_tokens", "heads", "kv_heads", "head_dim", "element_bytes")
NAMES = ("launch", "flops", "tiled_flops", "longest_block", "bytes", "blocks", "waves")


def terms(shape: Shape, device: Device) -> Floats:
    """Return [rows, terms] in seconds; the time is their weighted sum.

    A chunk of q tokens after c others attends to q c + q (q + 1) / 2 pairs. The terms: a launch, the FLOPs
    of those pairs at the peak rate, the same in whole query tiles and whole waves, the thread block with
    the longest context on its one multiprocessor, the bytes of queries, outputs and KV, and thread blocks
    (and waves of them) per multiprocessor, a microsecond each.
    """
    b, q, past = shape["sequences"], shape["query_tokens"], shape["past_tokens"]
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    blocks = b * heads * np.ceil(q / QUERY_TILE)
    waves = np.ceil(blocks / device.sms)
    flops = 4 * b * heads * width * (q * past + q * (q + 1) / 2)
    tiled = 4 * width * QUERY_TILE * waves * device.sms * (past + q / 2)
    longest = 4 * width * np.minimum(QUERY_TILE, q) * (past + q) * device.sms
    size_bytes = shape["element_bytes"] * 2 * b * width * (q * heads + (past + q) * kv_heads)
    columns = [np.full_like(flops, 1e-6), flops / device.peak_flops, tiled / device.peak_flops]
    columns += [longest / device.peak_flops, size_bytes / device.memory_bandwidth_bytes_per_s]
    columns += [1e-6 * blocks / device.sms, 1e-6 * waves]
    return np.stack(columns, axis=1)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of one layer's attention over ``sequences`` chunks of ``query_tokens`` each."""
    return np.asarray(terms(shape, device) @ [coefficients[name] for name in NAMES], dtype=np.float64)


def features(shape: Shape, device: Device) -> Floats:
    """Return [rows, features] for the residual; a chunk's past counts as a longer mean context."""
    b, q, past = shape["sequences"], shape["query_tokens"], shape["past_tokens"]
    heads = shape["heads"]
    blocks = b * heads * np.ceil(q / QUERY_TILE) / device.sms
    columns = [blocks, q, past + q / 2, heads / shape["kv_heads"], b, shape["head_dim"]]
    waste = np.ceil(blocks) / blocks
    return np.stack([np.log2(column) for column in [*columns, waste]], axis=1)
