"""How a batch is spread over a device by the Triton attention: tiles, splits of the context, and their sizes.

Everything follows from shapes and from bounds the caller knows, never from the contents of a tensor, so that a plan
costs no wait for the device and holds for every replay of a CUDA graph.
"""

import functools
from dataclasses import dataclass

import torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
"""Of queries, keys and values."""
PROGRAMS_PER_PROCESSOR = 3
SPLIT_TOKENS = 256
MIXED_SPLIT_TOKENS = 2048
PARTIAL_BYTES = 128 * 2**20
SHARED_BYTES = 96 * 1024


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a plan needs to know of a device: its multiprocessors, and the shared memory of one program in bytes."""

    processors: int
    shared_bytes: int


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Shape of one program: rows of queries, keys per step, warps, and steps whose loads are in flight."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One launch: an upper bound of the tiles, splits of the context, fewest tokens of a split but the last, tiling.

    `single` says that every sequence has at most one new token, so that tile and sequence are the same.
    """

    tiles: int
    splits: int
    least_split: int
    single: bool
    tiling: Tiling


@functools.cache
def device_limits(device: torch.device) -> Device:
    """Limits of a CUDA device; of any other (the CPU under the interpreter) those of one small multiprocessor."""
    if device.type != "cuda":
        return Device(processors=1, shared_bytes=SHARED_BYTES)
    found = torch.cuda.get_device_properties(device)
    shared_bytes = getattr(found, "shared_memory_per_block_optin", SHARED_BYTES)
    return Device(processors=found.multi_processor_count, shared_bytes=shared_bytes)


def padded_dim(head_dim: int) -> int:
    """The power of two, at least 16, that a head of `head_dim` takes up inside a program."""
    return max(16, power_of_two(head_dim))


def power_of_two(count: int) -> int:
    """The smallest power of two that is not below `count`, a positive number."""
    return 1 << (count - 1).bit_length()


def choose_tiling(*, group: int, max_query_len: int, head_dim: int, dtype: torch.dtype, shared_bytes: int) -> Tiling:
    """A tiling for sequences of up to `max_query_len` new tokens and `group` query heads to a key-value head.

    Rows are 16, 64 or 128 by the work, so that a decode wastes few, a chunk reads its context seldom, and few variants
    are compiled. Wide heads, and float32, which has no tensor-core path of full precision, take smaller tiles to stay
    within the registers. Loads in flight are bounded by shared memory.
    """
    width = padded_dim(head_dim)
    most_rows = 16 if dtype == torch.float32 else 64 if width > 128 else 128
    rows = next((size for size in (16, 64) if size >= group * max_query_len), 128)
    block_m = max(min(rows, most_rows), power_of_two(group))
    block_n = 32 if width > 128 or dtype == torch.float32 else 64
    stages = (shared_bytes // (width * dtype.itemsize) - block_m) // (2 * block_n)
    warps = 8 if block_m >= 128 else 4
    return Tiling(block_m=block_m, block_n=block_n, num_warps=warps, num_stages=max(1, min(3, stages)))


def choose_splits(*, programs: int, span: int, processors: int, mixed: bool, split_bytes: int) -> int:
    """Into how many splits to cut a context of `span` tokens; 1 where splitting would not pay.

    As many as keep `PROGRAMS_PER_PROCESSOR` programs (what the registers of a multiprocessor hold) on each, but none
    shorter than `SPLIT_TOKENS`, and all partial results, `split_bytes` a split, within `PARTIAL_BYTES`. In a mixed
    batch splits are longer, `MIXED_SPLIT_TOKENS`, so that chunks without much past stay whole.
    """
    wanted = PROGRAMS_PER_PROCESSOR * processors // programs
    longest = span // (MIXED_SPLIT_TOKENS if mixed else SPLIT_TOKENS)
    return max(1, min(wanted, longest, PARTIAL_BYTES // split_bytes))


def plan_launch(
    *,
    tokens: int,
    sequences: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    max_query_len: int | None,
    max_context_len: int,
    window: int | None,
    device: Device,
    num_splits: int | None = None,
    tiling: Tiling | None = None,
) -> Plan:
    """The launch for a batch of `tokens` new tokens in `sequences` sequences, both positive.

    `max_query_len` and `max_context_len` bound every sequence; None is the whole batch. In a mixed batch (several
    sequences, some with chunks) the tiles of the chunks say nothing of a decode that may have the longest context, so
    splits are chosen as if each sequence were one tile.

    Raises:
        ValueError: a given tiling whose rows cannot hold one token of the grouped heads.
    """
    group = heads // kv_heads
    longest = tokens if max_query_len is None else max(1, min(max_query_len, tokens))
    tiling = tiling or choose_tiling(
        group=group, max_query_len=longest, head_dim=head_dim, dtype=dtype, shared_bytes=device.shared_bytes
    )
    tile_tokens = tiling.block_m // group
    if tile_tokens == 0:
        raise ValueError(f"a tile of {tiling.block_m} rows cannot hold one token of {group} grouped heads")
    single = longest == 1
    tiles = sequences if single else tokens // tile_tokens + sequences
    span = max(1, max_context_len if window is None else min(max_context_len, window + tile_tokens - 1))
    mixed = sequences > 1 and not single
    splits = num_splits or choose_splits(
        programs=(sequences if mixed else tiles) * kv_heads,
        span=span,
        processors=device.processors,
        mixed=mixed,
        split_bytes=4 * tokens * heads * (head_dim + 1),
    )
    least_split = tiling.block_n if num_splits else MIXED_SPLIT_TOKENS if mixed else SPLIT_TOKENS
    splits = min(splits, rounded_up(span, least_split) // least_split)
    return Plan(tiles=tiles, splits=splits, least_split=least_split, single=single, tiling=tiling)


def rounded_up(count: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `count`."""
    return -(-count // unit) * unit
