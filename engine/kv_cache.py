"""The KV cache of one rank: a pool of blocks for each layer, filled where the policy's block tables say."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from policies.blocks import KVMemory
from traces.errors import InputError


@dataclass(frozen=True, kw_only=True)
class KVLayout:
    """What one token leaves in the cache: ``kv_heads`` x ``head_dim`` keys and as many values in every layer."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize


class KVCache:
    """Keys and values of every layer, [blocks, block_size, kv_heads, head_dim] each.

    Which block holds what is the policy's business; here it is only written and read. Never-written places
    are zero, so that what a mask leaves out is a number. Behind the policy's blocks is one more, of which it
    does not know: what has to go somewhere and is never read, such as the KV of padding, goes there.

    Raises
    ------
    InputError
        If the device has no room for it.
    """

    def __init__(self, layout: KVLayout, memory: KVMemory, device: torch.device) -> None:
        self.layout = layout
        self.block_size = memory.block_size
        self.device = device
        self.scratch_block = memory.blocks
        shape = (memory.blocks + 1, memory.block_size, layout.kv_heads, layout.head_dim)
        try:
            self._keys = [torch.zeros(shape, dtype=layout.dtype, device=device) for _ in range(layout.layers)]
            self._values = [torch.zeros_like(keys) for keys in self._keys]
        except RuntimeError as error:
            size = memory.blocks * memory.block_size * layout.bytes_per_token
            what = f"no room for {memory.blocks} KV blocks, {size / 2**30:.1f} GiB"
            raise InputError(what, where=str(device), expected="fewer blocks") from error

    @property
    def scratch_slot(self) -> int:
        """A place in the block that no sequence owns."""
        return self.scratch_block * self.block_size

    def pools(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and the values of a layer themselves, [blocks + 1, block_size, kv_heads, head_dim] each."""
        return self._keys[layer], self._values[layer]

    def write(self, layer: int, slots_t: torch.Tensor, k_tgd: torch.Tensor, v_tgd: torch.Tensor) -> None:
        """Put keys and values of T tokens where ``slots_t`` says (block x block_size + place in it)."""
        self._keys[layer].flatten(0, 1).index_copy_(0, slots_t, k_tgd)
        self._values[layer].flatten(0, 1).index_copy_(0, slots_t, v_tgd)

    def read(self, layer: int, blocks_n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a copy of the keys and values in ``blocks_n``, [N x block_size, kv_heads, head_dim] each."""
        return (
            self._keys[layer].index_select(0, blocks_n).flatten(0, 1),
            self._values[layer].index_select(0, blocks_n).flatten(0, 1),
        )
