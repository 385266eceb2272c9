"""What an attention backend is."""

from __future__ import annotations

from typing import Protocol

import torch

from engine.attention.interface import LayerAttention
from engine.input import BatchInput, BatchShape
from engine.kv_cache import KVCache, KVLayout


class AttentionPlan(LayerAttention, Protocol):
    """The attention of one batch, for all layers.

    ``attend`` first writes the batch's own keys and values to the cache, all of them before any query is
    answered: a sequence may share blocks with one that fills them in the same batch.
    """


class AttentionBackend(Protocol):
    """Turns batches into plans; knows nothing of one when it makes the next.

    Attributes
    ----------
    name
        By which a person asks for it.
    capturable
        Whether it is a :class:`CapturableBackend`.
    """

    name: str
    capturable: bool

    def check(self, layout: KVLayout, block_size: int) -> None:
        """Raise InputError if it cannot attend to such a cache."""
        ...

    def plan(self, inputs: BatchInput, cache: KVCache) -> AttentionPlan:
        """Prepare once what all layers of a batch need."""
        ...


class StaticTables(Protocol):
    """What plans read of a batch, at places that stay the same from batch to batch."""

    def plan(self, shape: BatchShape, slots_t: torch.Tensor) -> AttentionPlan:
        """Return a plan for whichever batch of ``shape`` was loaded last; until then, one without sequences.

        Its ``attend`` reads nothing on the host, and gives zeros, or what a batch before gave, for rows that
        no sequence has. ``slots_t`` is where KV goes, int64 [shape.tokens], a place that stays the same, too.
        """
        ...

    def load(self, inputs: BatchInput) -> None:
        """Take a batch that is filled up to a shape."""
        ...


class CapturableBackend(AttentionBackend, Protocol):
    """One whose attention a CUDA graph may hold."""

    def static_tables(self, cache: KVCache, most: BatchShape, max_context_len: int) -> StaticTables:
        """Make room for batches of up to ``most`` tokens and sequences with contexts of ``max_context_len`` tokens."""
        ...
