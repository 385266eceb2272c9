"""Which shapes a measuring plan starts with and why, and among which it chooses the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from profiler.grid import SHORTEST_CONTEXT, Grid, design, token_counts
from profiler.iteration import design_iterations
from profiler.kernels import OpShape
from profiler.model import Model
from profiler.surrogate import features
from profiler.tile import Floats

EDGE, LONGEST, SPACE_FILLING, MIXED = "edge", "longest context", "space-filling", "mixed batch"
FILLING = {"gemm": 4, "elementwise": 4, "prefill_attention": 8, "decode_attention": 10, "mixed_attention": 8}
"""Of the start, the shapes that fill the space: for each product and kind of sweep, for all calls of attention."""
FIRST_ITERATIONS = 20
MORE_ITERATIONS = 256
PER_OCTAVE, COUNTS_PER_OCTAVE = 4, 8


@dataclass(frozen=True)
class Candidates:
    """Shapes of some ops.

    Attributes
    ----------
    start
        What is measured first, with the reason.
    pool
        What may be measured after that.
    """

    start: dict[OpShape, str]
    pool: Sequence[OpShape]


def op_candidates(model: Model, grid: Grid, tp: int = 1) -> Candidates:
    """Return the single ops of ``model`` on each of ``tp`` GPUs.

    The start holds, of each product, both sides of the tile edges at 1, 2, 4, ... tiles; the longest contexts; and
    shapes that fill the space, mixed batches among them, which are an op of their own. The pool has every product
    at :func:`profiler.grid.token_counts` and at eighths of doublings between them, and attention at quarters of
    doublings of chunk, past, sequences and context.
    """
    mixed = list(dict.fromkeys(_mixed(model, grid, tp)))
    pool = list(dict.fromkeys([*design(model, grid, tp), *_between(model, grid, tp), *mixed]))
    start = dict.fromkeys((shape for shape in pool if _at_edge(shape, grid)), EDGE)
    start |= dict.fromkeys(_longest(pool), LONGEST)
    for group in grouped(pool).values():
        known = [shape for shape in group if shape in start]
        why = MIXED if group[0].op == "mixed_attention" else SPACE_FILLING
        start |= dict.fromkeys(_spread_out(group, known), why)
    return Candidates(start, [shape for shape in pool if shape not in start and shape not in mixed])


def iteration_candidates(model: Model, grid: Grid) -> Candidates:
    """Return whole iterations: the first of a sequence that fills the space, and the rest of it."""
    shapes = design_iterations(model, grid, count=MORE_ITERATIONS)
    first = shapes[:FIRST_ITERATIONS]
    why = {shape: MIXED if shape.sequences and shape.decodes else SPACE_FILLING for shape in first}
    return Candidates(why, shapes[FIRST_ITERATIONS:])


def grouped(shapes: Iterable[OpShape]) -> dict[tuple[str, ...], list[OpShape]]:
    """Return shapes by what has one model of its times: an op, or one kind of elementwise sweep."""
    groups: dict[tuple[str, ...], list[OpShape]] = {}
    for shape in shapes:
        groups.setdefault((shape.op, shape.kind) if shape.op == "elementwise" else (shape.op,), []).append(shape)
    return groups


def _at_edge(shape: OpShape, grid: Grid) -> bool:
    tiles, beyond = divmod(shape.m, grid.edge)
    return shape.op == "gemm" and shape.kind != "lm_head" and tiles > 0 and beyond < 2 and tiles & (tiles - 1) == 0


def _longest(pool: Sequence[OpShape]) -> list[OpShape]:
    """Return, of each kind of attention, the shapes with the longest context: the smallest and the largest one."""
    found = []
    for op in ("prefill_attention", "decode_attention"):
        calls = [shape for shape in pool if shape.op == op]
        longest = max(shape.past_tokens + shape.query_tokens for shape in calls)
        calls = [shape for shape in calls if shape.past_tokens + shape.query_tokens == longest]
        found += [min(calls, key=lambda shape: shape.flops), max(calls, key=lambda shape: shape.flops)]
    return found


def _spread_out(group: Sequence[OpShape], known: Sequence[OpShape]) -> list[OpShape]:
    """Return shapes of ``group`` that lie farthest from each other and from ``known``, by greedy choice."""
    products = len({(shape.n, shape.k) for shape in group}) if group[0].op == "gemm" else 1
    count = min(len(group) - len(known), products * FILLING[group[0].op])
    points = features(group)
    nearest = np.full(len(group), np.inf)
    for shape in known:
        nearest = np.minimum(nearest, _distance(points, group.index(shape)))
    chosen: list[OpShape] = []
    for _ in range(count):
        farthest = int(np.argmax(nearest))
        chosen.append(group[farthest])
        nearest = np.minimum(nearest, _distance(points, farthest))
    return chosen


def _distance(points: Floats, row: int) -> Floats:
    return np.asarray(np.linalg.norm(points - points[row], axis=1), dtype=np.float64)


def steps(start: int, end: int, per_octave: int = PER_OCTAVE) -> list[int]:
    """Return whole numbers from ``start`` to ``end``, so many to a doubling."""
    count = int(np.ceil(per_octave * np.log2(max(end / start, 1)))) + 1
    return sorted({round(float(each)) for each in np.geomspace(start, end, count)})


def _between(model: Model, grid: Grid, tp: int) -> list[OpShape]:
    """Return shapes between those of :func:`profiler.grid.design`."""
    found: list[OpShape] = []
    counts = sorted({*token_counts(grid), *steps(1, grid.tokens, COUNTS_PER_OCTAVE)})
    for first in _first_of_each_weight(design(model, grid, tp)):
        most = grid.sequences if first.kind == "lm_head" else grid.tokens
        found += [replace(first, m=count) for count in counts if count <= most]
    calls, longest, shortest = _Calls(model, tp), min(grid.tokens, grid.context), min(SHORTEST_CONTEXT, grid.context)
    for chunk in steps(min(shortest, longest), longest):
        room = grid.context - chunk
        found += [calls.prefill(chunk, past) for past in (0, *(steps(shortest, room) if room >= shortest else ()))]
    for count in steps(1, grid.sequences):
        contexts = [context for context in steps(shortest, grid.context) if count * context <= grid.kv_tokens]
        found += [calls.decode(count, context) for context in contexts]
    return found


class _Calls:
    """Calls of attention with the heads of a model."""

    def __init__(self, model: Model, tp: int) -> None:
        heads, kv_heads = model.heads_on(tp)
        self._any = OpShape(op="", kind="sdpa", heads=heads, kv_heads=kv_heads, head_dim=model.head_dim)

    def prefill(self, chunk: int, past: int) -> OpShape:
        return replace(self._any, op="prefill_attention", sequences=1, query_tokens=chunk, past_tokens=past)

    def decode(self, count: int, context: int) -> OpShape:
        return replace(self._any, op="decode_attention", sequences=count, query_tokens=1, past_tokens=context - 1)

    def mixed(self, batch: OpShape) -> OpShape:
        chunk = self.prefill(batch.query_tokens, batch.past_tokens)
        return replace(chunk, op="mixed_attention", decodes=batch.decodes, decode_context=batch.decode_context)


def _first_of_each_weight(shapes: Iterable[OpShape]) -> list[OpShape]:
    found: dict[tuple[int, int], OpShape] = {}
    for shape in shapes:
        if shape.op == "gemm":
            found.setdefault((shape.n, shape.k), shape)
    return list(found.values())


def _mixed(model: Model, grid: Grid, tp: int) -> list[OpShape]:
    """Return calls of attention over a chunk and decodes, as a mixed batch makes them."""
    calls = _Calls(model, tp)
    batches = design_iterations(model, grid, kv_tokens=grid.kv_tokens, count=MORE_ITERATIONS)
    return [calls.mixed(batch) for batch in batches if batch.sequences and batch.decodes]
