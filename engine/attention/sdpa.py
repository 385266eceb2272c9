"""Paged attention by PyTorch's scaled_dot_product_attention, on any device: the oracle of the others.

Each chunk gathers its own blocks. Decodes with equally many blocks are gathered together, so that no more is
read than by themselves and many short ones cost few calls; on a CPU only so many at a time that what was
gathered is still in the core's cache when it is attended to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from engine.input import BatchInput, Slice
from engine.kv_cache import KVCache, KVLayout

GATHERED_BYTES = 2**20
"""On a CPU, the most keys that decodes gather at once (and as many values): both fit a level-2 cache of today."""


@dataclass(frozen=True, slots=True)
class Span:
    """A prefill slice within a window: its rows, its blocks, and which of their tokens it attends to.

    ``mask_tk`` is None where the queries are the only keys: then plain causal attention is meant.
    """

    start: int
    end: int
    blocks_n: torch.Tensor
    first: int
    keys: int
    mask_tk: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decodes within a window that attend to equally many blocks: their rows, blocks, and which tokens count.

    ``rows_s`` is a slice where the rows follow each other; ``mask_s11k`` is None where every token of the blocks
    counts for every decode.
    """

    rows_s: torch.Tensor | slice
    blocks_sn: torch.Tensor
    mask_s11k: torch.Tensor | None


class SdpaBackend:
    """See the module."""

    name = "sdpa"
    capturable = False

    def check(self, layout: KVLayout, block_size: int) -> None:
        """Every size of a block and of a head will do."""

    def plan(self, inputs: BatchInput, cache: KVCache) -> SdpaPlan:
        """Return the attention of one batch."""
        return SdpaPlan(inputs, cache)


class SdpaPlan:
    """The attention of one batch; what depends on a window is prepared when a layer first asks for it."""

    def __init__(self, inputs: BatchInput, cache: KVCache) -> None:
        self._inputs = inputs
        self._cache = cache
        self._windows: dict[int | None, tuple[list[Span], list[DecodeGroup]]] = {}

    def attend(
        self,
        layer: int,
        q_thd: torch.Tensor,
        k_tgd: torch.Tensor,
        v_tgd: torch.Tensor,
        *,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Return the attention of one layer (see :class:`engine.attention.interface.LayerAttention`)."""
        self._cache.write(layer, self._inputs.slots_t, k_tgd, v_tgd)
        spans, groups = self._prepared(window)
        out_thd = torch.empty_like(q_thd, memory_format=torch.contiguous_format)
        for span in spans:
            out_thd[span.start : span.end] = self._chunk(layer, span, q_thd[span.start : span.end], scale)
        for group in groups:
            out_thd[group.rows_s] = self._decodes(layer, group, q_thd[group.rows_s], scale)
        return out_thd

    def _prepared(self, window: int | None) -> tuple[list[Span], list[DecodeGroup]]:
        if window not in self._windows:
            inputs, starts = self._inputs, self._inputs.starts
            chunks = [(start, each) for start, each in zip(starts, inputs.slices, strict=True) if each.tokens > 1]
            decodes = [(start, each) for start, each in zip(starts, inputs.slices, strict=True) if each.tokens == 1]
            spans = [self._span(start, each, window) for start, each in chunks]
            self._windows[window] = spans, self._groups(decodes, window)
        return self._windows[window]

    def _span(self, start: int, chunk: Slice, window: int | None) -> Span:
        size, device = self._cache.block_size, self._cache.device
        first = 0 if window is None else max(0, chunk.past + 1 - window)
        block = first // size
        return Span(
            start=start,
            end=start + chunk.tokens,
            blocks_n=torch.tensor(chunk.held(size)[block:], device=device),
            first=first - block * size,
            keys=chunk.context - first,
            mask_tk=_mask(chunk, first, window, device),
        )

    def _groups(self, decodes: list[tuple[int, Slice]], window: int | None) -> list[DecodeGroup]:
        size = self._cache.block_size
        alike: defaultdict[int, list[tuple[int, int, int, list[int]]]] = defaultdict(list)
        for row, decode in decodes:
            first = 0 if window is None else max(0, decode.context - window)
            block = first // size
            blocks = decode.held(size)[block:]
            alike[len(blocks)].append((row, first - block * size, decode.context - block * size, blocks))
        return [
            self._group(members[start : start + most])
            for blocks, members in alike.items()
            for most in (self._most_together(blocks),)
            for start in range(0, len(members), most)
        ]

    def _most_together(self, blocks: int) -> int:
        """Return how many decodes of so many blocks are gathered at once."""
        if self._cache.device.type != "cpu":
            return len(self._inputs.slices)
        layout = self._cache.layout
        keys_bytes = blocks * self._cache.block_size * layout.kv_heads * layout.head_dim * layout.dtype.itemsize
        return max(1, GATHERED_BYTES // keys_bytes)

    def _group(self, members: list[tuple[int, int, int, list[int]]]) -> DecodeGroup:
        device = self._cache.device
        rows, firsts, ends, blocks = zip(*members, strict=True)
        blocks_sn = torch.tensor(blocks, device=device)
        keys = blocks_sn.shape[1] * self._cache.block_size
        mask_s11k = None
        if any(firsts) or any(end < keys for end in ends):
            place_k = torch.arange(keys, device=device)
            first_s1, end_s1 = (torch.tensor(values, device=device)[:, None] for values in (firsts, ends))
            mask_s11k = ((place_k >= first_s1) & (place_k < end_s1))[:, None, None]
        return DecodeGroup(_rows(rows, device), blocks_sn, mask_s11k)

    def _chunk(self, layer: int, span: Span, q_thd: torch.Tensor, scale: float) -> torch.Tensor:
        k_kgd, v_kgd = (kv[span.first : span.first + span.keys] for kv in self._cache.read(layer, span.blocks_n))
        out_1htd = functional.scaled_dot_product_attention(
            q_thd.transpose(0, 1)[None],
            k_kgd.transpose(0, 1)[None],
            v_kgd.transpose(0, 1)[None],
            attn_mask=span.mask_tk,
            is_causal=span.mask_tk is None,
            scale=scale,
            enable_gqa=q_thd.shape[1] != k_kgd.shape[1],
        )
        return out_1htd[0].transpose(0, 1)

    def _decodes(self, layer: int, group: DecodeGroup, q_shd: torch.Tensor, scale: float) -> torch.Tensor:
        """Query heads that share a KV head take the place of query tokens, so that no KV is repeated."""
        sequences, heads, width = q_shd.shape
        k_skgd, v_skgd = (
            kv.view(sequences, -1, *kv.shape[1:]) for kv in self._cache.read(layer, group.blocks_sn.flatten())
        )
        kv_heads = k_skgd.shape[2]
        out_sgrd = functional.scaled_dot_product_attention(
            q_shd.reshape(sequences, kv_heads, heads // kv_heads, width),
            k_skgd.transpose(1, 2),
            v_skgd.transpose(1, 2),
            attn_mask=group.mask_s11k,
            scale=scale,
        )
        return out_sgrd.reshape(sequences, heads, -1)


def _rows(rows: Sequence[int], device: torch.device) -> torch.Tensor | slice:
    """Return ascending rows as what picks them, without a copy where they follow each other."""
    first, last = rows[0], rows[-1]
    return slice(first, last + 1) if last - first + 1 == len(rows) else torch.tensor(rows, device=device)


def _mask(chunk: Slice, first: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Return which keys, counted from token ``first``, each query of a chunk attends to; bool [T, K]."""
    if not chunk.past and (window is None or chunk.tokens <= window):
        return None
    query_t1 = torch.arange(chunk.past, chunk.context, device=device)[:, None]
    key_k = torch.arange(first, chunk.context, device=device)
    mask_tk = key_k <= query_t1
    return mask_tk if window is None else mask_tk & (key_k > query_t1 - window)
