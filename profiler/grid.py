"""Which shapes to measure: few, and where the curves bend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from profiler.kernels import OpShape
from profiler.model import Model

SMALL = (1, 2, 4, 8, 16, 24, 32, 48)
SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORTEST_CONTEXT = 16


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How far a grid reaches.

    Attributes
    ----------
    tokens, sequences, context
        The most tokens of a batch, sequences of a batch, and tokens of one context.
    edge
        Tokens of a tile: up to ``8 * edge`` each multiple is measured, and one token beyond it, where a
        kernel that works in tiles starts another one.
    kv_tokens
        The most tokens of KV that one call of decode attention may read.
    dense
        Up to so many tokens, matrix products are measured at every count: a CPU's small products have a time
        of their own at each.
    """

    tokens: int
    sequences: int
    context: int
    edge: int
    kv_tokens: int
    dense: int = 1


def cpu_grid(model: Model) -> Grid:
    """Return the grid for one CPU: as far as it gets in a minute."""
    context = min(model.max_position, 2048)
    return Grid(tokens=1024, sequences=32, context=context, edge=64, kv_tokens=16 * context, dense=16)


def gpu_grid(model: Model, memory_bytes: int) -> Grid:
    """Return the grid for one GPU, one layer's KV in at most a sixteenth of the memory."""
    layer_bytes = 2 * model.kv_heads * model.head_dim * model.dtype_bytes
    return Grid(
        tokens=8192,
        sequences=256,
        context=min(model.max_position, 131072),
        edge=64,
        kv_tokens=memory_bytes // (16 * layer_bytes),
    )


def token_counts(grid: Grid) -> list[int]:
    """Return the batch sizes at which matrix products are measured: small ones, then pairs around tile edges.

    The steps are ``edge`` up to 8 tiles, twice that up to 16, and so on.
    """
    counts = {count for count in (*range(1, grid.dense + 1), *SMALL) if count < grid.edge}
    step, edge = grid.edge, grid.edge
    while edge <= grid.tokens:
        counts |= {edge, edge + 1}
        if edge >= 8 * step:
            step *= 2
        edge += step
    return sorted(count for count in counts if count <= grid.tokens)


def design(model: Model, grid: Grid, tp: int = 1) -> list[OpShape]:
    """Return the shapes to measure for ``model`` on each of ``tp`` GPUs."""
    shapes = [*_gemms(model, grid, tp), *_elementwise(model, grid, tp)]
    return [*shapes, *_prefills(model, grid, tp), *_decodes(model, grid, tp)]


def _powers(start: int, end: int, factor: int = 2) -> list[int]:
    """Return start, start * factor, ... below ``end``, and ``end``."""
    values = []
    while start < end:
        values.append(start)
        start *= factor
    return [*values, end]


def _gemms(model: Model, grid: Grid, tp: int) -> Iterator[OpShape]:
    products = {(linear.n, linear.k): linear for linear in model.linears(tp)}
    for tokens in token_counts(grid):
        for kind, n, k in products.values():
            yield OpShape(op="gemm", kind=kind, m=tokens, n=n, k=k)
    head = model.head_linear(tp)
    for tokens in sorted({*_sequences(grid), *range(1, grid.dense + 1)}):
        yield OpShape(op="gemm", kind=head.kind, m=tokens, n=head.n, k=head.k)


def _elementwise(model: Model, grid: Grid, tp: int) -> Iterator[OpShape]:
    ops = dict.fromkeys(model.elementwise(tp))
    for tokens in _powers(1, grid.tokens, 4):
        for kind, elements, size_bytes in ops:
            yield OpShape(op="elementwise", kind=kind, m=tokens, n=elements, size_bytes=tokens * size_bytes)
        moved = 2 * tokens * model.hidden_bytes
        yield OpShape(op="elementwise", kind="embedding", m=tokens, n=model.hidden, size_bytes=moved)
    rows = model.head_linear(tp).n
    for tokens in _sequences(grid):
        moved = tokens * rows * model.dtype_bytes
        yield OpShape(op="elementwise", kind="sampler", m=tokens, n=rows, size_bytes=moved)


def _sequences(grid: Grid) -> Sequence[int]:
    return [count for count in SEQUENCES if count <= grid.sequences]


def _prefills(model: Model, grid: Grid, tp: int) -> Iterator[OpShape]:
    heads, kv_heads = model.heads_on(tp)
    longest = min(grid.tokens, grid.context)
    for chunk in _powers(min(SHORTEST_CONTEXT, longest), longest):
        for past in (0, *_powers(chunk, grid.context - chunk)) if 2 * chunk <= grid.context else (0,):
            yield OpShape(
                op="prefill_attention",
                kind="sdpa",
                sequences=1,
                query_tokens=chunk,
                past_tokens=past,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=model.head_dim,
            )


def _decodes(model: Model, grid: Grid, tp: int) -> Iterator[OpShape]:
    heads, kv_heads = model.heads_on(tp)
    for count in _sequences(grid):
        for context in _powers(min(SHORTEST_CONTEXT, grid.context), grid.context):
            if count * context <= grid.kv_tokens:
                yield OpShape(
                    op="decode_attention",
                    kind="sdpa",
                    sequences=count,
                    query_tokens=1,
                    past_tokens=context - 1,
                    heads=heads,
                    kv_heads=kv_heads,
                    head_dim=model.head_dim,
                )
