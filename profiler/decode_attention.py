"""What the attention of decodes costs by its physics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, Floats]
OP = "decode_attention"
KEYS = ("sequences", "past_tokens", "heads", "kv_heads", "head_dim", "element_bytes")
NAMES = ("launch", "kv_bytes", "idle_kv_bytes", "query_blocks", "kv_blocks", "kv_steps")


def terms(shape: Shape, device: Device) -> Floats:
    """Return [rows, terms] in seconds; the time is their weighted sum.

    The terms: a launch; the KV bytes of all contexts at the memory bandwidth; where each head has KV of its
    own, so that some kernels leave a context to one thread block, what waves of such blocks leave idle;
    query heads and KV heads of all sequences per multiprocessor (a microsecond each); and the doublings of
    the context.
    """
    b, context = shape["sequences"], shape["past_tokens"] + 1
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    kv_s = shape["element_bytes"] * 2 * b * context * kv_heads * width / device.memory_bandwidth_bytes_per_s
    whole = heads == kv_heads
    idle_s = np.where(whole, kv_s * (_waste(shape, device) - 1), 0.0)
    columns = [np.full_like(kv_s, 1e-6), kv_s, idle_s]
    columns += [1e-6 * b * heads / device.sms, 1e-6 * b * kv_heads / device.sms, 1e-6 * np.log2(context)]
    return np.stack(columns, axis=1)


def _waste(shape: Shape, device: Device) -> Floats:
    blocks = shape["sequences"] * shape["kv_heads"] / device.sms
    return np.asarray(np.ceil(blocks) / blocks, dtype=np.float64)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of one layer's attention over ``sequences`` decodes of equal context."""
    return np.asarray(terms(shape, device) @ [coefficients[name] for name in NAMES], dtype=np.float64)


def features(shape: Shape, device: Device) -> Floats:
    """Return [rows, features] for the residual."""
    b, context = shape["sequences"], shape["past_tokens"] + 1
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    blocks = b * kv_heads / device.sms
    columns = [
        blocks,
        b * context * kv_heads * width,
        context,
        heads / kv_heads,
        b,
        kv_heads,
        width,
        _waste(shape, device),
    ]
    return np.stack([np.log2(column) for column in columns], axis=1)
