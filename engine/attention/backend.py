"""What an attention backend is."""

from __future__ import annotations

from typing import Protocol

from engine.attention.interface import LayerAttention
from engine.input import BatchInput
from engine.kv_cache import KVCache


class AttentionPlan(LayerAttention, Protocol):
    """The attention of one batch, for all layers.

    ``attend`` first writes the batch's own keys and values to the cache, all of them before any query is
    answered: a sequence may share blocks with one that fills them in the same batch.
    """


class AttentionBackend(Protocol):
    """Turns batches into plans; keeps no state between them."""

    name: str

    def plan(self, inputs: BatchInput, cache: KVCache) -> AttentionPlan:
        """Prepare once what all layers of a batch need."""
        ...
