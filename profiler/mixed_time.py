"""Attention of one layer where prefill chunks and decodes share one launch, from measured mixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import Slice
from profiler.correction_grid import Heads
from profiler.tile import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from profiler.decode_time import DecodeAttention
    from profiler.deployment import Deployment
    from profiler.prefill_time import PrefillAttention

OP = "mixed_attention"
FEWEST_ROWS = 200
"""Fewer mixes than this say too little about four dimensions."""
NEIGHBOURS = 8
SHORTEST = 16.0
STEPS = 4
"""Chunk sizes and pasts are rounded to quarters of a doubling: what is interpolated for one is then remembered."""


class MixedAttention:
    """Seconds of one layer's attention over chunks and decodes in one launch, on one GPU.

    What a mix takes is measured over what its two parts take apart, and this ratio interpolated between the
    measured mixes (inverse distance of the nearest, in doublings of chunk, past, decodes and context); beyond
    them the nearest edge holds. Several chunks count as one of as many tokens, after their average past.

    In such a launch nothing splits the context of a decode, so the longest one can end after all others. It
    starts at any moment, which adds a^2 / 2t on average if it alone takes a of the launch's t seconds; how
    long it takes is read off the measured mixes of one decode.

    Parameters
    ----------
    table
        Rows of a profile (see :class:`profiler.profile.Profile`).
    deployment
        Whose heads the rows must have.
    prefill, decode
        The parts apart.

    Raises
    ------
    ValueError
        If the table holds too few mixes of these heads; ask :meth:`known` first.
    """

    def __init__(
        self, table: pa.Table, deployment: Deployment, prefill: PrefillAttention, decode: DecodeAttention
    ) -> None:
        self._prefill, self._decode = prefill, decode
        rows = _mixes(table, deployment)
        if len(rows) < FEWEST_ROWS:
            raise ValueError(f"{len(rows)} measured mixes; expected at least {FEWEST_ROWS}")
        ratios = [_log_ratio(row, self._apart) for row in rows]
        self._slabs = _Slabs(rows[:, :4], np.asarray(ratios))
        self._token_s = _alone(rows)

    @staticmethod
    def known(table: pa.Table, deployment: Deployment) -> bool:
        """Whether ``table`` holds enough mixes of the deployment's heads; with a window nothing is."""
        return deployment.spec.sliding_window is None and len(_mixes(table, deployment)) >= FEWEST_ROWS

    def _apart(self, chunks: Sequence[Any], decodes: int, context: float) -> float:
        return self._prefill.time(chunks) + self._decode.time(decodes, decodes * context, context)

    def time(self, chunks: Sequence[Any], decodes: int, context_sum: float, context_max: float) -> float:
        """Return seconds for ``chunks`` (one or more) and ``decodes`` (>= 1) that attend to ``context_sum`` tokens."""
        mean = context_sum / decodes
        seconds = self._prefill.time(chunks) + self._decode.time(decodes, context_sum, mean)
        tokens = past = 0
        for chunk in chunks:
            tokens += chunk.tokens
            past += chunk.tokens * chunk.past
        seconds *= self._slabs.factor(tokens, past / tokens, decodes, mean)
        if context_max > mean:
            alone = self._token_s * context_max
            seconds += alone * alone / (2 * seconds) if alone < seconds else alone - seconds / 2
        return seconds


class _Slabs:
    """Factors over (decodes, context) for each (chunk, past), made when first asked for."""

    def __init__(self, points: Floats, log_ratio: Floats) -> None:
        from scipy.spatial import KDTree

        where = _doublings(points)
        self._tree, self._log_ratio = KDTree(where), log_ratio
        self._low, self._high = where.min(axis=0), where.max(axis=0)
        self._slabs: dict[tuple[int, int], list[list[float]]] = {}
        self._rows = int(self._high[2]) + 1
        self._columns = int(self._high[3] - self._low[3]) + 1

    def factor(self, tokens: int, past: float, decodes: int, context: float) -> float:
        """Return the ratio of the mix to its parts."""
        key = round(STEPS * log2(tokens)), round(STEPS * log2(past + SHORTEST))
        slab = self._slabs.get(key)
        if slab is None:
            slab = self._slabs[key] = self._slab(key[0] / STEPS, key[1] / STEPS)
        row = min(log2(decodes), self._rows - 1.0)
        column = min(max(log2(context) - self._low[3], 0.0), self._columns - 1.0)
        above, right = int(row), int(column)
        low, high = slab[above], slab[min(above + 1, self._rows - 1)]
        next_right = min(right + 1, self._columns - 1)
        first = low[right] + (column - right) * (low[next_right] - low[right])
        second = high[right] + (column - right) * (high[next_right] - high[right])
        return float(first + (row - above) * (second - first))

    def _slab(self, chunk: float, past: float) -> list[list[float]]:
        rows, columns = np.meshgrid(np.arange(self._rows), self._low[3] + np.arange(self._columns), indexing="ij")
        wanted = np.stack([np.full(rows.shape, chunk), np.full(rows.shape, past), rows, columns], axis=-1)
        wanted = np.clip(wanted, self._low, self._high)
        distance, index = self._tree.query(wanted, k=NEIGHBOURS)
        weight = 1 / np.maximum(distance, 1e-6) ** 2
        mean = (weight * self._log_ratio[index]).sum(axis=-1) / weight.sum(axis=-1)
        factors: list[list[float]] = np.exp(mean).tolist()
        return factors


def _mixes(table: pa.Table, deployment: Deployment) -> Floats:
    """Return tokens, past, decodes, context and seconds of the mixes of the deployment's heads, [rows, 5]."""
    heads = Heads(deployment)
    keep = table["op"].to_numpy(zero_copy_only=False) == OP
    for name, value in (("heads", heads.heads), ("kv_heads", heads.kv_heads), ("head_dim", heads.width)):
        keep &= table[name].to_numpy() == value
    names = ("query_tokens", "past_tokens", "decodes", "decode_context", "time_s")
    return np.stack([table[name].to_numpy()[keep].astype(np.float64) for name in names], axis=1)


def _doublings(points: Floats) -> Floats:
    shifted = points + np.asarray([0.0, SHORTEST, 0.0, 0.0])
    return np.asarray(np.log2(shifted), dtype=np.float64)


def _log_ratio(row: Floats, apart: Callable[[Sequence[Any], int, float], float]) -> float:
    tokens, past, decodes, context, seconds = row
    return float(np.log(seconds / apart([Slice(int(tokens), int(past))], int(decodes), float(context))))


def _alone(rows: Floats) -> float:
    """Return the seconds a token of context adds to a mix of one decode and the smallest chunk without a past."""
    one = rows[(rows[:, 2] == rows[:, 2].min()) & (rows[:, 0] == rows[:, 0].min()) & (rows[:, 1] == rows[:, 1].min())]
    if len(one) < 2:
        return 0.0
    long = one[one[:, 3] >= np.median(one[:, 3])]
    return max(0.0, float(np.polyfit(long[:, 3], long[:, 4], 1)[0])) if len(long) > 1 else 0.0
