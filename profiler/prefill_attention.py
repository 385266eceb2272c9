"""What the attention of prefill chunks costs by its physics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, Floats]
QUERY_TILE = 128
NARROW_TILE = 192
"""Query rows of a thread block, and those of kernels that pack heads of at most :data:`NARROW` numbers."""
NARROW = 96
WIDE = 128
KV_TILE, WIDE_KV_TILE = 128, 80
"""Keys that a thread block takes at a time; those of heads wider than :data:`WIDE`."""
UNSPLIT_TILES = 4
FULL_WAVE = 0.8
"""A kernel that packs heads takes its variant that splits contexts where the longest has more KV tiles than these, and
the thread blocks of one sequence fill less than this share of the multiprocessors: it does not count the others."""
SOFTMAX_WIDTH = 64
"""Numbers of a head whose product costs about what the softmax of one pair does."""
WRITE_THREADS, SM_THREADS = 512, 2048
"""Threads with which a block writes one token's keys and values, at most, and those a multiprocessor holds."""
CACHE_STEEPNESS = 17.0
"""How sharply reads miss the last cache, as a power of bytes over its share."""
SHORTEST_PAST = 16
"""Tokens; what is shorter is told from no past at all by little."""
OP = "prefill_attention"
KEYS = ("sequences", "query_tokens", "past_tokens", "heads", "kv_heads", "head_dim", "element_bytes")
COEFFICIENTS: Mapping[str, tuple[float, float, float, float]] = {
    "launch": (6.0, 1e-4, np.inf, 0.0),
    "split_launch": (8.0, 1e-4, np.inf, 0.0),
    "flops": (1.2, 1e-4, np.inf, 0.0),
    "softmax": (0.9, 1e-4, np.inf, 0.0),
    "sustained": (0.15, 1e-4, np.inf, 0.0),
    "query_bytes": (1.0, 1e-4, np.inf, 0.0),
    "kv_bytes": (1.5, 1e-4, np.inf, 0.0),
    "kv_write": (1.2, 1e-4, np.inf, 0.0),
    "combine": (0.5, 1e-4, np.inf, 0.0),
    "blocks": (1.0, 1e-4, np.inf, 0.0),
    "waves": (2.0, 1e-4, np.inf, 0.0),
    "longest_block": (0.8, 1e-4, np.inf, 0.0),
    "longest_softmax": (0.5, 1e-4, np.inf, 0.0),
    "longest_start": (5.0, 1e-4, np.inf, 0.0),
    "cached_cost": (0.5, 0.0, 1.0, 1.0),
    "cache_share": (0.7, 0.3, 1.5, 0.5),
    "sustained_from": (3.0, 1.0, 20.0, 3.0),
    "overlap_exponent": (2.5, 1.0, 8.0, 1.0),
}
"""Start, least and most of each coefficient, and the value that leaves its term out: microseconds, shares of a perfect
device's time, milliseconds for ``sustained_from``."""
PACKED = "packed"
"""1 where the kernel packs the query heads of a KV head into its tiles, 0 where it does not; the fit tries both."""
NAMES = (*COEFFICIENTS, PACKED)


@dataclass(frozen=True)
class Launch:
    """What one launch has to do, [rows] each: seconds on a perfect device, if not said otherwise.

    Attributes
    ----------
    pairs_s, longest_s
        The FLOPs of all (query, key) pairs on all multiprocessors; of a query tile with the longest context on one.
    query_s, kv_s
        Reading queries and writing outputs; reading keys and values.
    width, blocks
        Numbers of a head; thread blocks for each multiprocessor.
    write_s
        What writing the KV of the new tokens would take if each thread block of it took a microsecond.
    split
        1 where contexts may be split: partial outputs, of four bytes a number, are then combined by a second launch.
    combine_s
        Writing and reading those.
    cached
        Bytes of queries, outputs, keys and values as a share of the last cache.
    """

    pairs_s: Floats
    longest_s: Floats
    query_s: Floats
    kv_s: Floats
    width: Floats
    blocks: Floats
    write_s: Floats
    split: Floats
    combine_s: Floats
    cached: Floats

    @staticmethod
    def of(shape: Shape, device: Device, packed: bool) -> Launch:
        """Return the launches over ``shape`` on ``device``."""
        b, q, past = shape["sequences"], shape["query_tokens"], shape["past_tokens"]
        heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
        tile = np.where(packed & (width <= NARROW), NARROW_TILE, QUERY_TILE)
        each = kv_heads * np.ceil(q * heads / kv_heads / tile) if packed else heads * np.ceil(q / tile)
        keys = np.where(width <= WIDE, KV_TILE, WIDE_KV_TILE)
        split = packed & (each < FULL_WAVE * device.sms) & (np.ceil((past + q) / keys) > UNSPLIT_TILES)
        bandwidth = device.memory_bandwidth_bytes_per_s
        token_s = shape["element_bytes"] * 2 * b * width / bandwidth
        query_s, kv_s = token_s * q * heads, token_s * (past + q) * kv_heads
        return Launch(
            pairs_s=4 * width * b * heads * (q * past + q * (q + 1) / 2) / device.peak_flops,
            longest_s=4 * width * tile * (past + q) * device.sms / device.peak_flops,
            query_s=query_s,
            kv_s=kv_s,
            width=width,
            blocks=b * each / device.sms,
            write_s=1e-6 * b * q * np.minimum(kv_heads * width, WRITE_THREADS) / SM_THREADS / device.sms,
            split=np.asarray(split, dtype=np.float64),
            combine_s=8 * split * b * q * heads * width / bandwidth,
            cached=(query_s + kv_s) * bandwidth / device.l2_bytes,
        )


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of one layer's attention over ``sequences`` chunks of ``query_tokens`` each.

    A chunk of q tokens after c others attends to q c + q (q + 1) / 2 pairs. The time is a launch and
    ``(all^p + longest^p)^(1/p)``. All multiprocessors share the FLOPs of the pairs, and more of them the softmax,
    which does not grow with the head's width; both slow down where the load lasts and clocks fall under it. They share
    the bytes, which cost less while a repeated measurement finds them in the last cache; writing the new tokens' KV, a
    thread block each; and thread blocks, in waves. The longest is the block with the longest context. Where
    contexts may be split there is none, but a second launch, and partial outputs.

    Parameters
    ----------
    coefficients
        By :data:`NAMES`; one that is absent leaves its term out.
    """
    return seconds(coefficients, Launch.of(shape, device, bool(coefficients.get(PACKED, 0))))


def seconds(coefficients: Mapping[str, float], launch: Launch) -> Floats:
    """Return what :func:`physics` does, for launches that are known already."""
    c = {name: coefficients.get(name, absent) for name, (*_, absent) in COEFFICIENTS.items()}
    everything = _work_s(c, launch) + _bytes_s(c, launch) + c["combine"] * launch.combine_s
    everything += 1e-6 * (c["blocks"] * launch.blocks + c["waves"] * np.ceil(launch.blocks))
    per_width = c["longest_block"] + c["longest_softmax"] * SOFTMAX_WIDTH / launch.width
    longest = (1 - launch.split) * (per_width * launch.longest_s + 1e-6 * c["longest_start"])
    more, less, p = np.maximum(everything, longest), np.minimum(everything, longest), c["overlap_exponent"]
    started = 1e-6 * (c["launch"] + c["split_launch"] * launch.split)
    return np.asarray(started + more * (1 + (less / more) ** p) ** (1 / p), dtype=np.float64)


def _work_s(c: Mapping[str, float], launch: Launch) -> Floats:
    """Return seconds of products and softmax; wide heads keep tensor cores busier, and draw more power."""
    tensor = launch.width / (launch.width + SOFTMAX_WIDTH)
    loaded = np.clip(np.log2(1e3 * launch.pairs_s / c["sustained_from"]) / 2, 0, 1)
    per_pair = c["flops"] + c["softmax"] * SOFTMAX_WIDTH / launch.width + c["sustained"] * tensor * loaded
    return np.asarray(per_pair * launch.pairs_s, dtype=np.float64)


def _bytes_s(c: Mapping[str, float], launch: Launch) -> Floats:
    """Return seconds of reading and writing, between cached and not."""
    missed = 1 / (1 + (c["cache_share"] / launch.cached) ** CACHE_STEEPNESS)
    moved = c["query_bytes"] * launch.query_s + c["kv_bytes"] * launch.kv_s + c["kv_write"] * launch.write_s
    return np.asarray((c["cached_cost"] + (1 - c["cached_cost"]) * missed) * moved, dtype=np.float64)


def features(shape: Shape, device: Device) -> Floats:
    """Return [rows, features] for the residual; a chunk's past counts as a longer mean context."""
    b, q, past = shape["sequences"], shape["query_tokens"], shape["past_tokens"]
    heads, kv_heads, width = shape["heads"], shape["kv_heads"], shape["head_dim"]
    blocks = b * heads * np.ceil(q / QUERY_TILE) / device.sms
    packed = b * kv_heads * np.ceil(q * heads / kv_heads / QUERY_TILE) / device.sms
    columns = [blocks, q, past + q / 2, heads / kv_heads, b, width, np.ceil(blocks) / blocks, kv_heads]
    columns += [packed, np.ceil(packed) / packed, b * width * (past + q) * kv_heads]
    columns.append(b * heads * width * q * (past + q / 2))
    return np.stack([np.log2(column) for column in columns], axis=1)


def plane(shape: Shape) -> Floats:
    """Return where each row lies on its layout's surface, [rows, 3]: doublings of sequences, chunk and past."""
    past = shape["past_tokens"] + SHORTEST_PAST
    return np.log2(np.stack([shape["sequences"], shape["query_tokens"], past], axis=1))
