"""Block tables of a batch as tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.input import BatchInput, on_device


@dataclass(frozen=True, slots=True)
class BlockTables:
    """Where the tokens of Q sequences are; the sequences behind the slices' own, if any, have no tokens.

    Attributes
    ----------
    query_start_q
        int32 [Q + 1]: where each sequence's tokens begin in the batch, and where those of the last one end.
    context_q
        int32 [Q]: tokens in the KV cache, the batch's own included.
    blocks_qn
        int32 [Q, N]: its blocks in order, N those of the longest context; as laid out, the slices' own rows alone.
    """

    query_start_q: torch.Tensor
    context_q: torch.Tensor
    blocks_qn: torch.Tensor

    @classmethod
    def of(cls, inputs: BatchInput, block_size: int, device: torch.device) -> BlockTables:
        """Lay out the tables of a batch, in one copy to the device."""
        own = len(inputs.slices)
        rows = own if inputs.shape is None else inputs.shape.sequences
        held = [each.held(block_size) for each in inputs.slices]
        width = max(map(len, held))
        packed = np.zeros(2 * rows + 1 + own * width, np.int32)
        query_start, context, blocks = np.split(packed, (rows + 1, 2 * rows + 1))
        np.cumsum([each.tokens for each in inputs.slices], out=query_start[1 : own + 1])
        query_start[own + 1 :] = query_start[own]
        context[:own] = [each.context for each in inputs.slices]
        for row, table in zip(blocks.reshape(own, width), held, strict=True):
            row[: len(table)] = table
        there = on_device(packed, device)
        query_start_q, context_q, flat = torch.split(there, [rows + 1, rows, own * width])
        return cls(query_start_q, context_q, flat.view(own, width))
