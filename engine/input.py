"""A batch as the model takes it: one flat row of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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

    def slots(self, block_size: int) -> list[int]:
        """Return where in the cache the KV of each of its tokens goes."""
        places = (divmod(position, block_size) for position in range(self.past, self.context))
        return [self.blocks[block] * block_size + offset for block, offset in places]


@dataclass(frozen=True, slots=True)
class BatchInput:
    """The slices of a batch one behind the other, T tokens of which S are followed by a sampled one.

    Attributes
    ----------
    slices
        The slices, in the order of their tokens.
    token_ids_t, positions_t, slots_t
        int64 [T]: tokens, their positions in their sequences, where in the cache their KV goes.
    sampled_s
        int64 [S]: the tokens whose logits are wanted, in the order of the slices.
    """

    slices: tuple[Slice, ...]
    token_ids_t: torch.Tensor
    positions_t: torch.Tensor
    slots_t: torch.Tensor
    sampled_s: torch.Tensor

    @classmethod
    def of(cls, slices: Sequence[Slice], block_size: int, device: torch.device) -> BatchInput:
        """Lay ``slices`` out one behind the other."""
        ends = accumulate(each.tokens for each in slices)
        columns = (
            [token for each in slices for token in each.token_ids],
            [position for each in slices for position in range(each.past, each.context)],
            [slot for each in slices for slot in each.slots(block_size)],
            [end - 1 for each, end in zip(slices, ends, strict=True) if each.samples],
        )
        return cls(tuple(slices), *(torch.from_numpy(np.array(c, np.int64)).to(device) for c in columns))

    @property
    def starts(self) -> list[int]:
        """The place of the first token of each slice."""
        return list(accumulate((each.tokens for each in self.slices[:-1]), initial=0))
