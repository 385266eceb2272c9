"""What a cost model adds up for a batch on one stage."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.lazy_table import LazyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCosts:
    """What :meth:`profiler.cost_model.CostModel.iteration_time` adds up for one stage, at the machine's pace.

    Attributes
    ----------
    token_s, output_s
        What runs by the batch's tokens, and by those sampled with what the engine takes for any batch.
    chunk_s, decode_s
        What the engine takes for each chunk and decode.
    layer, prefill_layer, decode_layer
        By how much attention of one layer counts: that of mixes, of chunks and of decodes.
    """

    token_s: LazyTable[float]
    output_s: LazyTable[float]
    chunk_s: float
    decode_s: float
    layer: float
    prefill_layer: float
    decode_layer: float
