"""What the attention of decodes costs by its physics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, Floats]
OP = "decode_attention"
KEYS = ("sequences", "past_tokens", "heads", "kv_heads", "head_dim", "element_bytes")
COEFFICIENTS: Mapping[str, tuple[float, float, float, float]] = {
    "launch": (8.0, 1e-4, np.inf, 0.0),
    "combine": (1.0, 1e-4, np.inf, 0.0),
    "split_doubling": (0.5, 1e-4, np.inf, 0.0),
    "packing": (1.0, 1e-4, np.inf, 0.0),
    "packed_bytes": (1.0, 1e-4, np.inf, 0.0),
    "sequence": (0.01, 1e-4, np.inf, 0.0),
    "wave_of_one": (0.5, 1e-4, np.inf, 0.0),
    "wave_of_two": (0.5, 1e-4, np.inf, 0.0),
    "tile_of_one": (1.0, 1e-4, np.inf, 0.0),
    "tile_of_two": (1.0, 1e-4, np.inf, 0.0),
    "queries": (0.1, 1e-4, np.inf, 0.0),
    "block": (0.5, 1e-4, np.inf, 0.0),
    "block_width": (0.5, 1e-4, np.inf, 0.0),
    "planned_block": (0.5, 1e-4, np.inf, 0.0),
    "planned_sequence": (0.01, 1e-4, np.inf, 0.0),
    "memory": (1.2, 1e-4, np.inf, 0.0),
    "cache": (0.6, 1e-4, np.inf, 0.0),
    "memory_start": (1.0, 1e-4, np.inf, 0.0),
    "idle_memory": (0.5, 0.0, 1.0, 0.0),
    "unsplit": (0.3, 0.0, 1.0, 0.0),
    "cache_share": (0.75, 0.3, 1.5, 0.75),
    "overlap_exponent": (2.0, 1.0, 6.0, 2.0),
}
"""Start, least and most of each coefficient, and the value that leaves its term out: microseconds, shares, and the
exponent."""
NAMES = tuple(COEFFICIENTS)
KV_TILE = 128
MOST_SPLITS = 128
GOOD_WAVES = 0.85
FULL_WAVE = 0.8
"""As FlashAttention chooses into how many parts to split the contexts: none while blocks fill 0.8 of the slots, else
the fewest parts whose waves are within 0.85 of the fullest."""
BLOCKS_PER_SM: Mapping[str, int] = {"hopper": 1}
"""Thread blocks that run at once on a multiprocessor where it is not two: kernels for Hopper take one whole."""
PLANNED: Mapping[str, int] = {"hopper": 992}
"""Sequences up to which kernels for an architecture plan their thread blocks on the device, before they start."""
CACHE_SHARPNESS = 12.0
REFERENCE_WIDTH = 128


@dataclass(frozen=True)
class Blocks:
    """How a launch lays out its work, [rows] each.

    Attributes
    ----------
    blocks
        Thread blocks before splitting: one a sequence and KV head, which its query heads share.
    tiles
        KV tiles of a context.
    splits
        Parts that each context is split into.
    kv_bytes
        Keys and values of all contexts.
    """

    blocks: Floats
    tiles: Floats
    splits: Floats
    kv_bytes: Floats

    @staticmethod
    def of(shape: Shape, device: Device) -> Blocks:
        """Return the layout of ``shape`` on ``device``."""
        b, context, kv_heads = shape["sequences"], shape["past_tokens"] + 1, shape["kv_heads"]
        tiles, slots = np.ceil(context / KV_TILE), float(device.sms * BLOCKS_PER_SM.get(device.architecture, 2))
        kv_bytes = shape["element_bytes"] * 2 * b * context * kv_heads * shape["head_dim"]
        return Blocks(b * kv_heads, tiles, splits_of(b * kv_heads, tiles, slots), kv_bytes)

    def waves(self, slots: float) -> Floats:
        """Return the waves of all parts with ``slots`` running at once."""
        return np.ceil(self.blocks * self.splits / slots)


def splits_of(blocks: Floats, tiles: Floats, slots: float) -> Floats:
    """Return into how many parts each context of ``tiles`` tiles is split, [rows], as FlashAttention chooses."""
    best, chosen = np.zeros(len(blocks)), np.ones(len(blocks))
    shares = []
    most = int(min(MOST_SPLITS, slots, tiles.max(initial=1)))
    for splits in range(1, most + 1):
        waves = blocks * splits / slots
        useful = (splits <= tiles) & (np.ceil(tiles / splits) != np.ceil(tiles / max(splits - 1, 1)))
        shares.append(np.where(useful | (splits == 1), waves / np.ceil(waves), 0.0))
        best = np.maximum(best, shares[-1])
    for splits in range(most, 0, -1):
        chosen = np.where(shares[splits - 1] >= GOOD_WAVES * best, float(splits), chosen)
    return np.where(blocks >= FULL_WAVE * slots, 1.0, chosen)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of one layer's attention over ``sequences`` decodes of equal context.

    It is ``launch + (chain^p + memory^p)^(1/p)``. The chain is what the thread blocks of a multiprocessor do
    one after the other: waves of blocks, each with a start and the tiles of its part of a context. The memory
    time is that of the KV bytes; where they fit into a share of the last cache, a repeated measurement reads
    them from there. Splitting contexts costs a second launch that combines the parts; so does packing the
    query heads of several KV heads, which are copied. Kernels that do not split where each head has KV of its
    own show in ``unsplit``. Planning the blocks of up to :data:`PLANNED` sequences on the device costs something
    for each sequence and block.

    Parameters
    ----------
    coefficients
        By :data:`NAMES`; one that is absent leaves its term out.
    """
    return seconds(coefficients, shape, Blocks.of(shape, device), device)


def seconds(coefficients: Mapping[str, float], shape: Shape, layout: Blocks, device: Device) -> Floats:
    """Return what :func:`physics` does, for a layout that is known already."""
    c = {name: coefficients.get(name, absent) for name, (*_, absent) in COEFFICIENTS.items()}
    whole = c["unsplit"] * (shape["heads"] == shape["kv_heads"])
    chain = _chain(c, shape, layout, device)
    unsplit = _chain(c, shape, Blocks(layout.blocks, layout.tiles, np.ones_like(chain), layout.kv_bytes), device)
    chain = chain + whole * np.maximum(unsplit - chain, 0)
    memory = _memory(c, layout, device)
    longer, shorter, p = np.maximum(chain, memory), np.minimum(chain, memory), c["overlap_exponent"]
    busy = longer * (1 + (shorter / longer) ** p) ** (1 / p)
    combine = (c["combine"] + c["split_doubling"] * np.log2(layout.splits)) * (layout.splits > 1) * (1 - whole)
    planned = c["planned_sequence"] * _planned(shape, device)
    added = c["launch"] + combine + _packing(c, shape, device) + (c["sequence"] + planned) * shape["sequences"]
    return np.asarray(1e-6 * (added + busy), dtype=np.float64)


def _packed(shape: Shape) -> Floats:
    """Return 1 where query heads are packed by a copy of their own: several sequences, several KV heads."""
    several = (shape["sequences"] > 1) & (shape["kv_heads"] > 1)
    return np.asarray(several & (shape["heads"] > shape["kv_heads"]), dtype=np.float64)


def _packing(c: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return microseconds of that copy: a launch, and the bytes of queries and outputs."""
    size_bytes = 2 * shape["element_bytes"] * shape["sequences"] * shape["heads"] * shape["head_dim"]
    copied = c["packed_bytes"] * 1e6 * size_bytes / device.memory_bandwidth_bytes_per_s
    return np.asarray((c["packing"] + copied) * _packed(shape), dtype=np.float64)


def _planned(shape: Shape, device: Device) -> Floats:
    """Return 1 where the thread blocks are planned on the device."""
    return np.asarray(shape["sequences"] <= PLANNED.get(device.architecture, 0), dtype=np.float64)


def _chain(c: Mapping[str, float], shape: Shape, layout: Blocks, device: Device) -> Floats:
    """Return microseconds of what one multiprocessor does one after the other."""
    tiles, width = np.ceil(layout.tiles / layout.splits), shape["head_dim"] / REFERENCE_WIDTH
    one, two = layout.waves(device.sms), layout.waves(2 * device.sms)
    queries = c["queries"] * shape["heads"] / shape["kv_heads"] * width
    waves = one * (c["wave_of_one"] + c["tile_of_one"] * tiles * width + queries)
    waves += two * (c["wave_of_two"] + c["tile_of_two"] * tiles * width)
    per_block = c["block"] + c["block_width"] * width + c["planned_block"] * _planned(shape, device)
    return np.asarray(waves + per_block * layout.blocks * layout.splits / device.sms, dtype=np.float64)


def _memory(c: Mapping[str, float], layout: Blocks, device: Device) -> Floats:
    """Return microseconds of reading the KV; what waves of blocks leave idle at their end counts in part."""
    parts, slots = layout.blocks * layout.splits, 2 * device.sms
    idle = np.where(parts > slots, np.ceil(parts / slots) * slots / parts - 1, 0.0)
    doublings = np.log2(layout.kv_bytes / (c["cache_share"] * device.l2_bytes))
    missed = 1 / (1 + np.exp(-CACHE_SHARPNESS * np.clip(doublings, -4, 4)))
    read = 1e6 * layout.kv_bytes / device.memory_bandwidth_bytes_per_s * (1 + c["idle_memory"] * idle)
    return np.asarray((c["cache"] + (c["memory"] - c["cache"]) * missed) * read + c["memory_start"] * missed)


def features(shape: Shape, device: Device) -> Floats:
    """Return [rows, features] for the residual."""
    layout = Blocks.of(shape, device)
    parts = layout.blocks * layout.splits
    columns = [layout.blocks / device.sms, layout.kv_bytes, shape["past_tokens"] + 1]
    columns += [shape["heads"] / shape["kv_heads"], shape["sequences"], shape["kv_heads"], shape["head_dim"]]
    columns += [layout.waves(slots) * slots / parts for slots in (device.sms, 2 * device.sms)]
    logarithms = [np.log2(column) for column in [*columns, layout.splits]]
    kinds = [layout.splits > 1, shape["heads"] == shape["kv_heads"], _packed(shape), _planned(shape, device)]
    kinds.append(layout.kv_bytes < COEFFICIENTS["cache_share"][0] * device.l2_bytes)
    return np.stack([*logarithms, *(np.asarray(kind, dtype=np.float64) for kind in kinds)], axis=1)


def plane(shape: Shape) -> Floats:
    """Return where each row lies on its layout's surface, [rows, 2]: doublings of sequences and context."""
    return np.log2(np.stack([shape["sequences"], shape["past_tokens"] + 1], axis=1))
