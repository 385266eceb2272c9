"""Which rows of a table are fitted and which judge the fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.accuracy.tables import OpTable
from profiler.design import farthest
from profiler.fit import every_other
from profiler.tile import Floats

Rows = npt.NDArray[np.int64]
POINTS = 200
HELD_OUT_SHARE = 0.2
EXTRAPOLATIONS: Mapping[str, tuple[tuple[str, str, float, float], ...]] = {
    "gemm": (("tokens to 1K, from 2K", "m", 1024, 2048),),
    "prefill_attention": (
        ("tokens to 1K, from 2K", "query_tokens", 1024, 2048),
        ("past to 2K, from 4K", "past_tokens", 2048, 4096),
    ),
    "decode_attention": (("context to 2K, from 4K", "past_tokens", 2048, 4095),),
    "elementwise": (("bytes to 8 MiB, from 16 MiB", "size_bytes", 2**23, 2**24),),
}
"""What is asked of shapes beyond those that were measured: the column, the most of the fitted, the least of the
judged."""
SIZES: Mapping[str, tuple[str, str]] = {
    "gemm": ("n", "k"),
    "prefill_attention": ("heads", "head_dim"),
    "decode_attention": ("heads", "head_dim"),
}
"""The columns whose product is a model's size, as far as an op sees it."""


@dataclass(frozen=True)
class Split:
    """One way to part the rows of a table; ``bands`` tells whether it also judges the bands."""

    case: str
    fitted: Rows
    judged: Rows
    bands: bool = False


def splits(table: OpTable, seed: int) -> Iterator[Split]:
    """Yield the splits of ``table`` that it has enough rows and shapes for.

    An unseen shape is one of a layer, or of a head layout, of which no row was fitted; where a table has one
    such group only, unseen rows are what it can tell.
    """
    draws = np.random.default_rng([seed, len(table.time_s)])
    everything = np.arange(len(table.time_s))
    groups = table.op.groups(table.shape)
    if len(everything) > 1.5 * POINTS:
        some = np.sort(draws.choice(everything, POINTS, replace=False))
        yield Split(f"{POINTS} random, unseen rows", some, np.setdiff1d(everything, some))
    if len(np.unique(groups)) > 1:
        yield from _unseen_shapes(table, groups, draws)
    yield _unseen_rows(groups, draws)
    if seed == 0:
        yield from _profiled(table)
        yield from _beyond(table, groups)


def _unseen_shapes(table: OpTable, groups: Floats, draws: np.random.Generator) -> Iterator[Split]:
    names = draws.permutation(np.unique(groups))
    out = np.isin(groups, names[: max(1, round(HELD_OUT_SHARE * len(names)))])
    known, judged = np.flatnonzero(~out), np.flatnonzero(out)
    if len(known) > 1.5 * POINTS:
        some = np.sort(draws.choice(known, POINTS, replace=False))
        yield Split(f"{POINTS} random, unseen shapes", some, judged, bands=True)
        chosen = known[farthest(table.op, table.take(known)[0], table.device, POINTS)]
        yield Split(f"{POINTS} chosen, unseen shapes", chosen, judged)
    yield Split("full table, unseen shapes", known, judged, bands=True)


def _unseen_rows(groups: Floats, draws: np.random.Generator) -> Split:
    out = draws.random(len(groups)) < HELD_OUT_SHARE
    return Split("full table, unseen rows", np.flatnonzero(~out), np.flatnonzero(out))


def _profiled(table: OpTable) -> Iterator[Split]:
    """Yield every other point of each shape, fitted to those between."""
    if table.op.axis is not None or table.op.plane is not None:
        out = every_other(table.op, table.shape)
        yield Split("profiled shapes", np.flatnonzero(~out), np.flatnonzero(out))


def _beyond(table: OpTable, groups: Floats) -> Iterator[Split]:
    for case, column, most, least in EXTRAPOLATIONS.get(table.op.name, ()):
        values = table.shape[column]
        yield from _both(case, values <= most, values >= least)
    if table.op.name in SIZES and len(np.unique(groups)) > 3:
        first, second = (table.shape[key] for key in SIZES[table.op.name])
        sizes = np.unique(first * second)
        small, large = sizes[(len(sizes) - 1) // 2], sizes[-max(1, len(sizes) // 4)]
        yield from _both("small models, large ones", first * second <= small, first * second >= large)


def _both(case: str, fitted: Any, judged: Any) -> Iterator[Split]:
    if fitted.sum() >= 20 and (judged & ~fitted).sum() >= 20:
        yield Split(case, np.flatnonzero(fitted), np.flatnonzero(judged & ~fitted))
