"""Paged attention by our Triton kernels: one launch for chunks and decodes together, and one that writes their KV."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from engine.attention.tables import BlockTables
from engine.attention.triton_plan import DTYPES, power_of_two
from engine.input import BatchInput, BatchShape
from engine.kv_cache import KVCache, KVLayout
from traces.errors import InputError

MOST_HEAD_DIM = 256


class TritonBackend:
    """See the module.

    Parameters
    ----------
    device
        Where it is to run.

    Raises
    ------
    InputError
        If Triton is not installed, or cannot run there.
    """

    name = "triton"
    capturable = True

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            what, wish = f"triton does not run on {device}", "sdpa, or TRITON_INTERPRET=1 for its interpreter"
            raise InputError(what, where="--attention-backend", expected=wish)
        try:
            from engine.attention.triton_kernel import paged_attention
            from engine.attention.triton_write import write_kv
        except ImportError as error:
            what, wish = "Triton is not installed", "sdpa, or pip install 'charioteer[gpu]'"
            raise InputError(what, where="--attention-backend", expected=wish) from error
        self.attention, self.write = paged_attention, write_kv

    def check(self, layout: KVLayout, block_size: int) -> None:
        """Raise InputError if the kernels do not know such a cache."""
        if block_size != power_of_two(block_size):
            what = f"is {block_size}, which the triton attention cannot take"
            raise InputError(what, where="--block-size", expected="a power of two, or --attention-backend sdpa")
        if layout.head_dim > MOST_HEAD_DIM or layout.dtype not in DTYPES:
            dtype = str(layout.dtype).removeprefix("torch.")
            what = f"the triton attention does not know heads of {layout.head_dim} {dtype} elements"
            wish = f"up to {MOST_HEAD_DIM} of float16, bfloat16 or float32, or sdpa"
            raise InputError(what, where="--attention-backend", expected=wish)

    def plan(self, inputs: BatchInput, cache: KVCache) -> TritonPlan:
        """Return the attention of one batch."""
        return TritonPlan(
            self,
            cache,
            inputs.slots_t,
            BlockTables.of(inputs, cache.block_size, cache.device),
            max_query_len=max(each.tokens for each in inputs.slices),
            max_context_len=max(each.context for each in inputs.slices),
        )

    def static_tables(self, cache: KVCache, most: BatchShape, max_context_len: int) -> TritonTables:
        """Return tables that stay where they are."""
        return TritonTables(self, cache, most, max_context_len)


class TritonTables:
    """Tables for batches of up to ``most`` (see :class:`engine.attention.backend.StaticTables`)."""

    def __init__(self, backend: TritonBackend, cache: KVCache, most: BatchShape, max_context_len: int) -> None:
        self._backend = backend
        self._cache = cache
        self._most = most
        self._max_context_len = max_context_len
        rows, width = most.sequences, -(-max_context_len // cache.block_size)
        sizes = ((rows + 1,), (rows,), (rows, width))
        self._tables = BlockTables(*(torch.zeros(size, dtype=torch.int32, device=cache.device) for size in sizes))
        self._results: dict[torch.Size, torch.Tensor] = {}

    def plan(self, shape: BatchShape, slots_t: torch.Tensor) -> TritonPlan:
        """Return a plan for the first rows of the tables."""
        rows, all_rows = shape.sequences, self._tables
        tables = BlockTables(all_rows.query_start_q[: rows + 1], all_rows.context_q[:rows], all_rows.blocks_qn[:rows])
        return TritonPlan(
            self._backend,
            self._cache,
            slots_t,
            tables,
            max_query_len=1 if shape.single else shape.tokens,
            max_context_len=self._max_context_len,
            result=self._result,
        )

    def load(self, inputs: BatchInput) -> None:
        """Copy a batch's tables, on the device, over those of the batch before; what is left of them is not read."""
        tables = BlockTables.of(inputs, self._cache.block_size, self._cache.device)
        rows, (own, width) = len(tables.context_q), tables.blocks_qn.shape
        self._tables.query_start_q[: rows + 1].copy_(tables.query_start_q)
        self._tables.context_q[:rows].copy_(tables.context_q)
        self._tables.blocks_qn[:own, :width].copy_(tables.blocks_qn)

    def _result(self, q_thd: torch.Tensor) -> torch.Tensor:
        """Return where a layer's result goes: one place for all layers, each is done with it before the next begins."""
        heads = q_thd.shape[1:]
        if heads not in self._results:
            self._results[heads] = q_thd.new_zeros(self._most.tokens, *heads)
        return self._results[heads][: len(q_thd)]


class TritonPlan:
    """The attention of one batch."""

    def __init__(
        self,
        backend: TritonBackend,
        cache: KVCache,
        slots_t: torch.Tensor,
        tables: BlockTables,
        *,
        max_query_len: int,
        max_context_len: int,
        result: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._backend = backend
        self._cache = cache
        self._slots_t = slots_t
        self._tables = tables
        self._max_query_len = max_query_len
        self._max_context_len = max_context_len
        self._result = result

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
        keys, values = self._cache.pools(layer)
        self._backend.write(k_tgd, v_tgd, keys, values, self._slots_t)
        return self._backend.attention(
            q_thd,
            keys,
            values,
            self._tables.blocks_qn,
            self._tables.query_start_q,
            self._tables.context_q,
            scale=scale,
            window=window,
            out=None if self._result is None else self._result(q_thd),
            max_query_len=self._max_query_len,
            max_context_len=self._max_context_len,
        )
