"""A batch as the model takes it: one flat row of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Slice:
    """One sequence's share of a batch.

    Attributes
    ----------
    token_ids
        What it runs; one token for a decode.
    past
        Tokens of the sequence before them, whose KV is in the cache.
    blocks
        The sequence's block table; it may hold more blocks than the slice reaches.
    samples
        Whether a token is sampled after the last of them.
    """

    token_ids: Sequence[int]
    past: int
    blocks: Sequence[int]
    samples: bool

    @property
    def tokens(self) -> int:
        """Tokens it runs."""
        return len(self.token_ids)

    @property
    def context(self) -> int:
        """Tokens that its last one attends to, itself included."""
        return self.past + len(self.token_ids)

    def held(self, block_size: int) -> list[int]:
        """Return the blocks that hold its context."""
        return list(self.blocks[: -(-self.context // block_size)])

    def slots(self, block_size: int) -> Iterator[int]:
        """Return where in the cache the KV of each of its tokens goes, from one block to the next."""
        position, context = self.past, self.context
        while position < context:
            block, offset = divmod(position, block_size)
            count = min(block_size - offset, context - position)
            first = self.blocks[block] * block_size + offset
            yield from range(first, first + count)
            position += count


@dataclass(frozen=True, order=True, slots=True)
class BatchShape:
    """What a batch is filled up to, so that batches of many sizes look alike.

    Attributes
    ----------
    tokens, sequences
        Rows of the batch; sequences, and rows of logits.
    single
        Whether every sequence has one token at most.
    """

    tokens: int
    sequences: int
    single: bool


@dataclass(frozen=True, slots=True)
class BatchInput:
    """The slices of a batch one behind the other, T tokens of which S are followed by a sampled one.

    A batch that is filled up to a shape has more rows than its slices: T and S are those of the shape, the rows
    behind the slices' own run token 0 at position 0 into the scratch slot, and the logits behind their own are
    those of row 0.

    Attributes
    ----------
    slices
        The slices, in the order of their tokens.
    columns
        All of the following in one tensor, int64 [3 T + S]: it takes one copy to the device.
    token_ids_t, positions_t, slots_t
        int64 [T]: tokens, their positions in their sequences, where in the cache their KV goes.
    sampled_s
        int64 [S]: the tokens whose logits are wanted, in the order of the slices.
    shape
        What it is filled up to; None if it is not.
    """

    slices: tuple[Slice, ...]
    columns: torch.Tensor
    token_ids_t: torch.Tensor
    positions_t: torch.Tensor
    slots_t: torch.Tensor
    sampled_s: torch.Tensor
    shape: BatchShape | None = None

    @classmethod
    def of(
        cls,
        slices: Sequence[Slice],
        block_size: int,
        device: torch.device,
        *,
        shape: BatchShape | None = None,
        scratch_slot: int = 0,
    ) -> BatchInput:
        """Lay ``slices`` out one behind the other, filled up to ``shape``, which holds them, if there is one."""
        ends = list(accumulate(each.tokens for each in slices))
        sampled = [end - 1 for each, end in zip(slices, ends, strict=True) if each.samples]
        own, tokens = ends[-1], ends[-1] if shape is None else shape.tokens
        columns = np.zeros(3 * tokens + (len(sampled) if shape is None else shape.sequences), np.int64)
        ids, places, slots, rows = np.split(columns, (tokens, 2 * tokens, 3 * tokens))
        ids[:own] = np.fromiter(chain.from_iterable(each.token_ids for each in slices), np.int64, own)
        spans = (range(each.past, each.context) for each in slices)
        places[:own] = np.fromiter(chain.from_iterable(spans), np.int64, own)
        slots[:own] = np.fromiter(chain.from_iterable(each.slots(block_size) for each in slices), np.int64, own)
        slots[own:] = scratch_slot
        rows[: len(sampled)] = sampled
        there = on_device(columns, device)
        ids_t, positions_t, slots_t, sampled_s = torch.split(there, [tokens, tokens, tokens, len(rows)])
        return cls(tuple(slices), there, ids_t, positions_t, slots_t, sampled_s, shape)

    @property
    def starts(self) -> list[int]:
        """The place of the first token of each slice."""
        return list(accumulate((each.tokens for each in self.slices[:-1]), initial=0))

    @property
    def samples(self) -> int:
        """Slices that a token is sampled after."""
        return sum(each.samples for each in self.slices)


def on_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device; nothing waits for the copy to a GPU."""
    host = torch.from_numpy(values)
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)
