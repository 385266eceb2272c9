"""Paged attention by FlashInfer's kernels, an extra (https://docs.flashinfer.ai).

Its wrappers plan on the host and then run for all layers; a wrapper holds one plan, and a plan one window and scale.
So there is a wrapper for each of them, kept from batch to batch for its workspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch

from engine.input import BatchInput, on_device
from engine.kv_cache import KVCache, KVLayout
from traces.errors import InputError

DTYPES = (torch.float16, torch.bfloat16)
HEAD_DIMS = (64, 128, 256)
WORKSPACE_BYTES = 128 * 2**20
"""What its documentation recommends for partial results of split contexts."""


@dataclass(frozen=True, slots=True)
class Pages:
    """A batch as FlashInfer takes it, int32: pages are blocks.

    Attributes
    ----------
    query_start_q
        [Q + 1], on the host: where each sequence's tokens begin in the batch, and where those of the last one end.
    page_start_q
        [Q + 1], on the host: the same of its pages in ``pages_n``.
    pages_n
        [N], on the device: the blocks of all sequences one behind the other.
    last_page_q
        [Q], on the host: tokens in the last block of each sequence, 1 to the block size.
    """

    query_start_q: torch.Tensor
    page_start_q: torch.Tensor
    pages_n: torch.Tensor
    last_page_q: torch.Tensor

    @classmethod
    def of(cls, inputs: BatchInput, block_size: int, device: torch.device) -> Pages:
        """Lay out the blocks of a batch."""
        held = [each.held(block_size) for each in inputs.slices]
        last = [(each.context - 1) % block_size + 1 for each in inputs.slices]
        pages = np.array([block for blocks in held for block in blocks], np.int32)
        starts = (_starts([each.tokens for each in inputs.slices]), _starts([len(blocks) for blocks in held]))
        return cls(*starts, on_device(pages, device), torch.tensor(last, dtype=torch.int32))


def _starts(counts: list[int]) -> torch.Tensor:
    return torch.tensor([0, *counts]).cumsum(0).int()


class FlashInferBackend:
    """See the module.

    Parameters
    ----------
    device
        A CUDA device.
    module
        The package ``flashinfer``; None to import it.

    Raises
    ------
    InputError
        If FlashInfer is not installed, or ``device`` is not one of CUDA.
    """

    name = "flashinfer"
    capturable = False

    def __init__(self, device: torch.device, module: ModuleType | None = None) -> None:
        if module is None:
            module = _flashinfer(device)
        self._module: Any = module
        self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._wrappers: dict[tuple[bool, int | None, float, int], Any] = {}

    def check(self, layout: KVLayout, block_size: int) -> None:  # noqa: ARG002
        """Raise InputError if FlashInfer has no kernels for such heads."""
        if layout.dtype not in DTYPES or layout.head_dim not in HEAD_DIMS:
            dtype = str(layout.dtype).removeprefix("torch.")
            what = f"flashinfer does not know heads of {layout.head_dim} {dtype} elements"
            wish = f"{', '.join(map(str, HEAD_DIMS))} of float16 or bfloat16, or triton"
            raise InputError(what, where="--attention-backend", expected=wish)

    def plan(self, inputs: BatchInput, cache: KVCache) -> FlashInferPlan:
        """Return the attention of one batch."""
        return FlashInferPlan(self, inputs, cache)

    def wrapper(self, *, decodes: bool, window: int | None, scale: float, heads: int) -> Any:
        """Return FlashInfer's wrapper for batches that only decode, or for any."""
        key = decodes, window, scale, heads
        if key not in self._wrappers:
            # The decode kernels proper know few ratios of query to KV heads; those on tensor cores know all.
            make = self._module.BatchDecodeWithPagedKVCacheWrapper
            prefill = self._module.BatchPrefillWithPagedKVCacheWrapper
            self._wrappers[key] = (
                make(self._workspace, "NHD", use_tensor_cores=True) if decodes else prefill(self._workspace, "NHD")
            )
        return self._wrappers[key]


class FlashInferPlan:
    """The attention of one batch; what depends on a window is planned when a layer first asks for it."""

    def __init__(self, backend: FlashInferBackend, inputs: BatchInput, cache: KVCache) -> None:
        self._backend = backend
        self._inputs = inputs
        self._cache = cache
        self._pages = Pages.of(inputs, cache.block_size, cache.device)
        self._decodes = all(each.tokens == 1 for each in inputs.slices)
        self._planned: dict[tuple[int | None, float, int], Any] = {}

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
        key = window, scale, q_thd.shape[1]
        if key not in self._planned:
            self._planned[key] = self._plan(q_thd, scale, window)
        out_thd: torch.Tensor = self._planned[key].run(q_thd.contiguous(), self._cache.pools(layer))
        return out_thd

    def _plan(self, q_thd: torch.Tensor, scale: float, window: int | None) -> Any:
        layout, pages, heads = self._cache.layout, self._pages, q_thd.shape[1]
        wrapper = self._backend.wrapper(decodes=self._decodes, window=window, scale=scale, heads=heads)
        tables = (pages.page_start_q, pages.pages_n, pages.last_page_q)
        sizes = (heads, layout.kv_heads, layout.head_dim, self._cache.block_size)
        settings: dict[str, Any] = {
            "window_left": -1 if window is None else window - 1,
            "sm_scale": scale,
            "q_data_type": q_thd.dtype,
            "kv_data_type": layout.dtype,
        }
        if self._decodes:
            wrapper.plan(*tables, *sizes, **settings)
        else:
            wrapper.plan(pages.query_start_q, *tables, *sizes, causal=True, **settings)
        return wrapper


def _flashinfer(device: torch.device) -> ModuleType:
    if device.type != "cuda":
        raise InputError(f"flashinfer does not run on {device}", where="--attention-backend", expected="sdpa")
    try:
        return import_module("flashinfer")
    except ImportError as error:
        what, wish = "FlashInfer is not installed", "triton, or pip install 'charioteer[flashinfer]'"
        raise InputError(what, where="--attention-backend", expected=wish) from error
