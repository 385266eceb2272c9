"""Paged attention in Triton: one kernel for batches that mix prefill chunks and decodes.

A batch is one flat row of query tokens. A program of the kernel takes a tile of it: some tokens of one sequence times
the query heads that share one key-value head, packed into the rows of one matrix, so that a decode of grouped heads
fills the tensor cores too. It walks the sequence's context through the block table with the online softmax of
FlashAttention (Dao et al., 2022, arXiv:2205.14135) in float32. Where there are too few tiles to keep the device busy,
the context is cut into splits, each a program of its own, and a second kernel joins their partial results (Flash-
Decoding, Dao et al., 2023). A tile whose context fits into one split writes its result directly.

Nothing here reads a tensor on the host: launch grids follow from shapes and from integers the caller knows, so a call
can be captured in a CUDA graph. Under ``TRITON_INTERPRET=1``, set before Triton is imported, it runs on the CPU.
"""

# mypy: allow-untyped-decorators, allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
import math

import torch
import triton
import triton.language as tl

from engine.attention.triton_plan import DTYPES, Tiling, device_limits, padded_dim, plan_launch, power_of_two


def paged_attention(
    query: torch.Tensor,
    key_pool: torch.Tensor,
    value_pool: torch.Tensor,
    block_tables: torch.Tensor,
    query_start: torch.Tensor,
    context_len: torch.Tensor,
    *,
    scale: float,
    window: int | None = None,
    out: torch.Tensor | None = None,
    num_splits: int | None = None,
    max_query_len: int | None = None,
    max_context_len: int | None = None,
    tiling: Tiling | None = None,
) -> torch.Tensor:
    """Return the causal attention of each sequence's new tokens, its last ones, to its whole context, like ``query``.

    The same input gives the same bits; another number of splits may round differently.

    Parameters
    ----------
    query
        [tokens, heads, head_dim], the new tokens of all sequences, one sequence after the other; float16, bfloat16 or
        float32.
    key_pool, value_pool
        [blocks, block_size, kv_heads, head_dim] of the same dtype, the new tokens' own already in them; block_size is
        a power of two, and heads a multiple of kv_heads.
    block_tables
        [sequences, max_blocks] int32, a sequence's blocks in order; entries past its context or wholly before its
        window are never followed.
    query_start
        [sequences + 1] int32, from 0 on, where each sequence's tokens begin, and where the last one's end. Sequences
        without tokens are allowed.
    context_len
        [sequences] int32, tokens in the KV cache with the new ones.
    scale
        What scores are multiplied with before the softmax.
    window
        The last so many tokens are attended to, the token itself included; None for all.
    out
        Where to write; a new contiguous tensor if None. Rows past ``query_start[-1]``, padding, are left as they are.
    num_splits
        At most so many splits of the context; None leaves it to :func:`~engine.attention.triton_plan.choose_splits`.
    max_query_len
        Bounds every sequence's new tokens; None for all tokens of the batch. It shapes the tiles, and 1 is a promise
        that no sequence has more than one.
    max_context_len
        Bounds ``context_len``; None for what a block table holds. It shapes the splits and nothing else.
    tiling
        Shape of a program; None leaves it to :func:`~engine.attention.triton_plan.choose_tiling`.

    Raises
    ------
    ValueError
        If shapes, dtypes or layouts do not fit together.
    """
    out = query.new_empty(query.shape) if out is None else out
    _check((query, key_pool, value_pool, out), (block_tables, query_start, context_len), window, num_splits)
    tokens, heads, head_dim = query.shape
    block_size, kv_heads = key_pool.shape[1:3]
    sequences, max_blocks = block_tables.shape
    if tokens == 0 or sequences == 0:
        return out
    plan = plan_launch(
        tokens=tokens,
        sequences=sequences,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=query.dtype,
        max_query_len=max_query_len,
        max_context_len=max_blocks * block_size if max_context_len is None else max_context_len,
        window=window,
        device=device_limits(query.device),
        num_splits=num_splits,
        tiling=tiling,
    )
    split = plan.splits > 1
    partial = query.new_empty((tokens, heads, plan.splits, head_dim), dtype=torch.float32) if split else out
    weight = query.new_empty((tokens, heads, plan.splits), dtype=torch.float32) if split else out
    tensors = (out, partial, weight, query, key_pool, value_pool, block_tables, query_start, context_len)
    row_strides = (*query.stride()[:2], *out.stride()[:2])
    pool_strides = (*key_pool.stride()[:3], *value_pool.stride()[:3], block_tables.stride(0))
    numbers = (sequences, plan.least_split, scale * math.log2(math.e))
    with torch.cuda.device_of(query):
        _attend[(plan.tiles, kv_heads, plan.splits)](
            *tensors,
            *numbers,
            *row_strides,
            *pool_strides,
            group=heads // kv_heads,
            head_dim=head_dim,
            block_size=block_size,
            window=window or 0,
            single=plan.single,
            split=split,
            widen=query.dtype == torch.float32 or query.device.type == "cpu",
            block_m=plan.tiling.block_m,
            block_n=plan.tiling.block_n,
            block_d=padded_dim(head_dim),
            num_warps=plan.tiling.num_warps,
            num_stages=plan.tiling.num_stages,
        )
        if split:
            shape = {"head_dim": head_dim, "block_s": power_of_two(plan.splits), "block_d": padded_dim(head_dim)}
            results = (out, partial, weight, query_start, sequences, plan.splits, *out.stride()[:2])
            _join[(tokens, heads)](*results, **shape, num_warps=1)
    return out


def _check(
    floats: tuple[torch.Tensor, ...], tables: tuple[torch.Tensor, ...], window: int | None, num_splits: int | None
) -> None:
    query, key_pool, value_pool, out = floats
    block_tables, query_start, context_len = tables
    if query.dim() != 3 or out.shape != query.shape:
        raise ValueError("query must be [tokens, heads, head_dim], and out like it")
    if key_pool.dim() != 4 or value_pool.shape != key_pool.shape or key_pool.shape[3] != query.shape[2]:
        raise ValueError("both pools must be [blocks, block_size, kv_heads, head_dim], with the query's head_dim")
    if key_pool.shape[1] != power_of_two(key_pool.shape[1]) or query.shape[1] % key_pool.shape[2]:
        raise ValueError("block_size must be a power of two, and heads a multiple of kv_heads")
    sequences = block_tables.shape[0]
    if block_tables.dim() != 2 or query_start.shape != (sequences + 1,) or context_len.shape != (sequences,):
        raise ValueError("block_tables must be [sequences, max_blocks], query_start one longer than context_len")
    if any(table.dtype != torch.int32 for table in tables):
        raise ValueError("block_tables, query_start and context_len must be int32")
    if query.dtype not in DTYPES or any(tensor.dtype != query.dtype for tensor in floats):
        raise ValueError("query, pools and out must share one dtype of float16, bfloat16 and float32")
    if any(tensor.stride(-1) != 1 and tensor.shape[-1] > 1 for tensor in floats + tables):
        raise ValueError("every tensor must be contiguous in its last dimension")
    if any(tensor.device != query.device for tensor in floats + tables):
        raise ValueError("all tensors must be on one device")
    if (window is not None and window < 1) or (num_splits is not None and num_splits < 1):
        raise ValueError("window and num_splits must be at least 1")


@triton.jit
def _sequence_of(tile, query_start, sequences, tile_tokens: tl.constexpr):
    """The sequence a tile belongs to: the last whose first tile is not after it.

    Sequence i begins at tile query_start[i] // tile_tokens + i, which leaves room for all its tiles whatever the
    lengths are, and makes tokens // tile_tokens + sequences a bound of all tiles that needs no look at the lengths.
    """
    low = 0
    high = sequences
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(query_start + middle) // tile_tokens + middle <= tile
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def _step(
    rows,
    best,
    total,
    result,
    begin,
    end,
    position,
    table,
    keys,
    values,
    scale,
    key_block_stride,
    key_slot_stride,
    value_block_stride,
    value_slot_stride,
    head_dim: tl.constexpr,
    block_size: tl.constexpr,
    window: tl.constexpr,
    widen: tl.constexpr,
    masked: tl.constexpr,
    block_n: tl.constexpr,
    block_d: tl.constexpr,
):
    """Takes the `block_n` keys from `begin` on into the running maximum, sum and result of the softmax.

    Slots from `end` on are neither read nor counted. Without `masked` every row sees every key. `widen` multiplies in
    full float32: for float32, and under the interpreter, which takes the bits of bfloat16 for integers.
    """
    precision: tl.constexpr = "ieee" if widen else "tf32"
    slot = begin + tl.arange(0, block_n)
    dim = tl.arange(0, block_d)
    live = slot < end
    if masked:
        block = tl.load(table + slot // block_size, mask=live, other=0).to(tl.int64)
    else:
        block = tl.load(table + slot // block_size).to(tl.int64)
    key_at = keys + (block * key_block_stride + slot % block_size * key_slot_stride)[None, :] + dim[:, None]
    value_at = values + (block * value_block_stride + slot % block_size * value_slot_stride)[:, None] + dim[None, :]
    if masked:
        key = tl.load(key_at, mask=live[None, :] & (dim < head_dim)[:, None], other=0.0)
        value = tl.load(value_at, mask=live[:, None] & (dim < head_dim)[None, :], other=0.0)
    elif head_dim != block_d:
        key = tl.load(key_at, mask=(dim < head_dim)[:, None], other=0.0)
        value = tl.load(value_at, mask=(dim < head_dim)[None, :], other=0.0)
    else:
        key = tl.load(key_at)
        value = tl.load(value_at)
    if widen:
        key = key.to(tl.float32)
    scores = tl.dot(rows, key, input_precision=precision) * scale
    if masked:
        seen = live[None, :] & (slot[None, :] <= position[:, None])
        if window > 0:
            seen = seen & (slot[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, float("-inf"))
    new_best = tl.maximum(best, tl.max(scores, 1))
    shift = tl.where(new_best == float("-inf"), 0.0, new_best)
    share = tl.exp2(scores - shift[:, None])
    fade = tl.exp2(best - shift)
    total = total * fade + tl.sum(share, 1)
    share = share.to(value.dtype)
    if widen:
        share = share.to(tl.float32)
        value = value.to(tl.float32)
    result = tl.dot(share, value, result * fade[:, None], input_precision=precision)
    return new_best, total, result


@triton.jit(
    do_not_specialize=["sequences", "least_split", "table_stride"],
    do_not_specialize_on_alignment=["block_tables", "query_start", "context_len"],
)
def _attend(
    out,
    partial,
    weight,
    query,
    key_pool,
    value_pool,
    block_tables,
    query_start,
    context_len,
    sequences,
    least_split,
    scale,
    query_token_stride,
    query_head_stride,
    out_token_stride,
    out_head_stride,
    key_block_stride,
    key_slot_stride,
    key_head_stride,
    value_block_stride,
    value_slot_stride,
    value_head_stride,
    table_stride,
    group: tl.constexpr,
    head_dim: tl.constexpr,
    block_size: tl.constexpr,
    window: tl.constexpr,
    single: tl.constexpr,
    split: tl.constexpr,
    widen: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_d: tl.constexpr,
):
    """One tile of query rows over one split of its context. Grid: tiles, key-value heads, splits.

    With `split` a tile divides its own context among the splits, `least_split` tokens to each at least, and `weight`
    [tokens, heads, splits] receives the base-2 logarithm of the sum that each part of the softmax was divided by, -inf
    where a part is empty or the tile wrote to `out` itself.
    """
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    parts = tl.num_programs(2)
    tile_tokens: tl.constexpr = block_m // group
    sequence = tile if single else _sequence_of(tile, query_start, sequences, tile_tokens)
    start = tl.load(query_start + sequence)
    query_len = tl.load(query_start + sequence + 1) - start
    first = 0 if single else (tile - start // tile_tokens - sequence) * tile_tokens
    if first >= query_len:
        return
    row = tl.arange(0, block_m)
    dim = tl.arange(0, block_d)
    token = first + row // group
    head = kv_head * group + row % group
    live = (row < tile_tokens * group) & (token < query_len)
    stored = live[:, None] & (dim < head_dim)[None, :]
    flat = (start + token).to(tl.int64)
    at = query + (flat * query_token_stride + head * query_head_stride)[:, None] + dim[None, :]
    rows = tl.load(at, mask=stored, other=0.0)
    if widen:
        rows = rows.to(tl.float32)

    past = tl.load(context_len + sequence) - query_len
    position = past + token
    high = past + tl.minimum(first + tile_tokens, query_len)
    low = past * 0
    if window > 0:
        low = tl.maximum(past + first - window + 1, 0)
    used = 1
    begin = low
    end = high
    if split:
        split_len = tl.maximum(tl.cdiv(tl.cdiv(high - low, parts), block_n) * block_n, least_split)
        used = tl.cdiv(high - low, split_len)
        begin = low + part * split_len
        end = tl.minimum(begin + split_len, high)
    clear = begin
    if window == 0:
        clear = begin + tl.maximum(tl.minimum(end, past + first + 1) - begin, 0) // block_n * block_n

    table = block_tables + sequence.to(tl.int64) * table_stride
    keys = key_pool + kv_head * key_head_stride
    values = value_pool + kv_head * value_head_stride
    best = tl.full([block_m], float("-inf"), tl.float32)
    total = tl.zeros([block_m], tl.float32)
    result = tl.zeros([block_m, block_d], tl.float32)
    for at_key in range(begin, clear, block_n):
        best, total, result = _step(
            rows, best, total, result, at_key, end, position, table, keys, values, scale,
            key_block_stride, key_slot_stride, value_block_stride, value_slot_stride,
            head_dim, block_size, window, widen, False, block_n, block_d,
        )  # fmt: skip
    for at_key in range(clear, end, block_n):
        best, total, result = _step(
            rows, best, total, result, at_key, end, position, table, keys, values, scale,
            key_block_stride, key_slot_stride, value_block_stride, value_slot_stride,
            head_dim, block_size, window, widen, True, block_n, block_d,
        )  # fmt: skip

    divisor = tl.where(total > 0, total, 1.0)
    result = result / divisor[:, None]
    if (used == 1) & (part == 0):
        at_out = out + (flat * out_token_stride + head * out_head_stride)[:, None] + dim[None, :]
        tl.store(at_out, result.to(out.dtype.element_ty), mask=stored)
    if split:
        heads = tl.num_programs(1) * group
        cell = (flat * heads + head) * parts + part
        whole = tl.where((total > 0) & (used > 1), best + tl.log2(divisor), float("-inf"))
        tl.store(weight + cell, whole, mask=live)
        if (used > 1) & (begin < end):
            tl.store(partial + cell[:, None] * head_dim + dim[None, :], result, mask=stored)


@triton.jit(do_not_specialize=["sequences", "parts"], do_not_specialize_on_alignment=["query_start"])
def _join(
    out,
    partial,
    weight,
    query_start,
    sequences,
    parts,
    out_token_stride,
    out_head_stride,
    head_dim: tl.constexpr,
    block_s: tl.constexpr,
    block_d: tl.constexpr,
):
    """Joins the parts of one token and head, unless its tile wrote to `out` itself. Grid: tokens, heads."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    if token >= tl.load(query_start + sequences):
        return
    part = tl.arange(0, block_s)
    dim = tl.arange(0, block_d)
    cell = (token * tl.num_programs(1) + head) * parts + part
    exponent = tl.load(weight + cell, mask=part < parts, other=float("-inf"))
    best = tl.max(exponent, 0)
    if best == float("-inf"):
        return
    share = tl.exp2(exponent - best)
    filled = (exponent > float("-inf"))[:, None] & (dim < head_dim)[None, :]
    results = tl.load(partial + cell[:, None] * head_dim + dim[None, :], mask=filled, other=0.0)
    result = tl.sum(results * share[:, None], 0) / tl.sum(share, 0)
    at = out + token * out_token_stride + head * out_head_stride + dim
    tl.store(at, result.to(out.dtype.element_ty), mask=dim < head_dim)
