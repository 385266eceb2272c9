"""What would come out if matrix products took as long as the paper's iterations say they did."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from profiler.cost_model import CostModel
from profiler.published import Published, published_for
from simulator.paper.sarathi.engine import Engine

WHAT = "linear layers at the pace of the five iterations that the paper prints (table 2, section 4.4)"


class PublishedLinears(CostModel):
    """LLaMA-13B on an A6000, its linear layers as much slower or faster as the paper's were; all else is as it was.

    The paper prints iterations of 4, 128, 256, 257 and 1,024 tokens of LLaMA-13B on an A6000. What is not attention in
    them, less our head and overhead, over our linear layers, is a factor at these tokens; between them it is
    interpolated over the logarithm of tokens. Attention stays ours.
    """

    def __init__(self) -> None:
        self._base = Engine().costs
        super().__init__(self._base.deployment, self._base.fitted)

    def _row(self, stage: int, tokens: int) -> tuple[float, float, float]:
        linear_s, communication_s, spread_s = super()._row(stage, tokens)
        factor = float(np.interp(np.log(tokens), *self._factors))
        return factor * linear_s, communication_s, factor * spread_s

    @cached_property
    def _factors(self) -> tuple[list[float], list[float]]:
        """Logarithms of the published batches' tokens, ascending, and the factors there."""
        found: dict[float, float] = {}
        for row in published_for("llama-13b", "a6000", 1):
            found.setdefault(float(np.log(row.batch.prefill_tokens + row.batch.decodes)), self._factor(row))
        return sorted(found), [found[key] for key in sorted(found)]

    def _factor(self, row: Published) -> float:
        parts = self._base.breakdown(row.batch)
        attention_s = parts["prefill attention"] if row.attention_s is None else row.attention_s
        return (row.total_s - attention_s - parts["head"] - parts["overhead"]) / parts["linear"]
