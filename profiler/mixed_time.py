"""Attention of one layer where prefill chunks and decodes share one launch, one value at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import Slice
from profiler.correction_grid import Heads
from profiler.mixed_attention import KEYS
from profiler.prefill_attention import SHORTEST_PAST

if TYPE_CHECKING:
    from profiler.decode_time import DecodeAttention
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp
    from profiler.prefill_time import PrefillAttention

FEWEST_ROWS = 200
"""A layout that was profiled with fewer mixes than this counts as unknown: they say too little of four dimensions."""
STEPS = 4
"""Chunk sizes and pasts are rounded to quarters of a doubling: what is predicted for one is then remembered."""
LEAST_DOUBLINGS = 4
MOST_DOUBLINGS = 15
"""Contexts of a slab, from 16 tokens."""


class MixedAttention:
    """Seconds of one layer's attention over chunks and decodes in one launch, on one GPU.

    What a mix is predicted to take is set in relation to what its two parts take apart, and this ratio
    interpolated over decodes and context. Several chunks count as one of as many tokens, after their average past.

    In such a launch nothing splits the context of a decode: it takes no less than the longest one alone, and that
    as long as its tokens add to one decode beside the smallest chunk.

    Parameters
    ----------
    op
        The fitted op of mixes.
    deployment
        Whose heads they have.
    prefill, decode
        The parts apart.
    """

    def __init__(
        self, op: FittedOp, deployment: Deployment, prefill: PrefillAttention, decode: DecodeAttention
    ) -> None:
        self._prefill, self._decode = prefill, decode
        self._op, self._device, self._heads = op, deployment.hardware, Heads(deployment)
        self._rows = max(1, deployment.max_num_seqs.bit_length()) + 1
        self._slabs: dict[tuple[int, int], list[list[float]]] = {}
        self._token_s = self._alone()

    @staticmethod
    def known(op: FittedOp | None, deployment: Deployment) -> bool:
        """Whether enough mixes of the deployment's heads were profiled; with a window nothing is."""
        if op is None or deployment.spec.sliding_window is not None:
            return False
        profiled = op.profiled(Heads(deployment).columns(1))
        return profiled is not None and len(profiled) >= FEWEST_ROWS

    def time(self, chunks: Sequence[Any], decodes: int, context_sum: float, context_max: float) -> float:
        """Return seconds for ``chunks`` (one or more) and ``decodes`` (>= 1) that attend to ``context_sum`` tokens."""
        mean = context_sum / decodes
        seconds = self._prefill.time(chunks) + self._decode.time(decodes, context_sum, mean)
        tokens = past = 0
        for chunk in chunks:
            tokens += chunk.tokens
            past += chunk.tokens * chunk.past
        seconds *= self._factor(tokens, past / tokens, decodes, mean)
        return max(seconds, self._token_s * context_max)

    def _factor(self, tokens: int, past: float, decodes: int, context: float) -> float:
        """Return the ratio of the mix to its parts."""
        key = round(STEPS * log2(tokens)), round(STEPS * log2(past + SHORTEST_PAST))
        slab = self._slabs.get(key)
        if slab is None:
            slab = self._slabs[key] = self._slab(2 ** (key[0] / STEPS), 2 ** (key[1] / STEPS) - SHORTEST_PAST)
        row = min(log2(decodes), self._rows - 1.0)
        column = min(max(log2(context) - LEAST_DOUBLINGS, 0.0), float(MOST_DOUBLINGS - LEAST_DOUBLINGS))
        above, right = int(row), int(column)
        low, high = slab[above], slab[min(above + 1, self._rows - 1)]
        next_right = min(right + 1, MOST_DOUBLINGS - LEAST_DOUBLINGS)
        first = low[right] + (column - right) * (low[next_right] - low[right])
        second = high[right] + (column - right) * (high[next_right] - high[right])
        return float(first + (row - above) * (second - first))

    def _slab(self, tokens: float, past: float) -> list[list[float]]:
        """Return the ratios for one chunk over [doublings of decodes][doublings of contexts]."""
        decodes = 2.0 ** np.arange(self._rows)
        contexts = 2.0 ** np.arange(LEAST_DOUBLINGS, MOST_DOUBLINGS + 1)
        together = self._together(tokens, past, np.repeat(decodes, len(contexts)), np.tile(contexts, len(decodes)))
        chunk_s = self._prefill.time([Slice(round(tokens), round(past))])
        apart = [[chunk_s + self._decode.time(int(n), n * context, context) for context in contexts] for n in decodes]
        ratios: list[list[float]] = (together.reshape(len(decodes), -1) / np.asarray(apart)).tolist()
        return ratios

    def _together(self, tokens: float, past: float, decodes: Any, contexts: Any) -> Any:
        """Return the predictions of one chunk beside each of ``decodes``, [rows], of equal contexts."""
        shape = self._heads.columns(len(decodes))
        values = (np.full(len(decodes), tokens), np.full(len(decodes), past), decodes, contexts)
        return self._op.predict(shape | dict(zip(KEYS, values, strict=False)), self._device)

    def _alone(self) -> float:
        """Return the seconds that a token of context adds to one decode beside the smallest chunk without a past."""
        profiled = self._op.profiled(self._heads.columns(1))
        least = 2 ** float(profiled[:, 0].min()) if profiled is not None else 1.0
        contexts = 2.0 ** np.arange(MOST_DOUBLINGS - 3, MOST_DOUBLINGS)
        seconds = self._together(least, 0.0, np.ones(len(contexts)), contexts)
        return max(0.0, float(np.polyfit(contexts, seconds, 1)[0]))
