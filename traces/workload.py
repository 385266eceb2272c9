"""A workload: requests with arrival times and lengths, as columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from traces.errors import InputError

FloatColumn = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class HashIds:
    """Prefix hashes of every request, ragged: request i has ``values[offsets[i]:offsets[i + 1]]``.

    Each value names ``block_size`` prompt tokens together with all before them: equal values mean equal
    prefixes. The last value of a request may name fewer tokens, where its prompt ends inside the block; the
    published traces have ceil(prompt / block_size) values a request (512 tokens in Mooncake's, 16 in
    Qwen-Bailian's). :meth:`of_blocks` gives what a KV cache with blocks of its own size needs.
    """

    offsets: IntColumn
    values: IntColumn
    block_size: int = 512

    def of(self, request: int) -> IntColumn:
        """Return the hashes of one request as the trace has them, int64 [<= ceil(prompt / block_size)]."""
        return self.values[self.offsets[request] : self.offsets[request + 1]]

    def of_blocks(self, request: int, prompt_tokens: int, size: int) -> IntColumn:
        """Return one hash for every full block of ``size`` tokens of a prompt, int64 [<= prompt // size].

        Raises
        ------
        InputError
            If neither of the two block sizes divides the other.
        """
        values = self.of(request)
        if size % self.block_size == 0:
            step = size // self.block_size
            return values[step - 1 :: step][: prompt_tokens // size]
        if self.block_size % size == 0:
            step = self.block_size // size
            parts = values[:, None] * step + np.arange(step)
            return parts.ravel()[: prompt_tokens // size]
        what = f"prefix hashes of {self.block_size} tokens do not fit KV blocks of {size}"
        raise InputError(what, expected=f"a block size that divides {self.block_size}")

    def take(self, order: npt.NDArray[np.intp]) -> HashIds:
        """Return the hashes of the requests ``order``, in that order."""
        counts = np.diff(self.offsets)[order]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][order] - offsets[:-1], counts)
        return HashIds(offsets=offsets, values=self.values[index], block_size=self.block_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """Requests in order of arrival.

    Attributes
    ----------
    name
        Where it comes from, for people: a file name or a generator with its settings.
    arrival_s
        float64 [requests], seconds since the first moment of the workload, ascending, >= 0.
    prompt_tokens, output_tokens
        int64 [requests], >= 1 each.
    hash_ids
        Prefix hashes, where the source has them.
    timed
        False where the source holds lengths only; ``arrival_s`` is then all zero.
    """

    name: str
    arrival_s: FloatColumn
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    hash_ids: HashIds | None = None
    timed: bool = True

    def __post_init__(self) -> None:
        count = len(self.arrival_s)
        if not count == len(self.prompt_tokens) == len(self.output_tokens):
            raise ValueError("columns of a workload must have one length")
        if self.hash_ids is not None and len(self.hash_ids.offsets) != count + 1:
            raise ValueError("hash_ids must have one entry a request")

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def total_tokens(self) -> IntColumn:
        """Prompt and output tokens of each request, int64 [requests]."""
        return self.prompt_tokens + self.output_tokens

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last arrival."""
        return float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) else 0.0

    @property
    def rate_per_s(self) -> float:
        """Mean arrivals per second over the span (infinite where all arrive at once)."""
        if self.span_s == 0:
            return float("inf")
        return (len(self) - 1) / self.span_s

    def take(self, order: npt.NDArray[np.intp]) -> Workload:
        """Return the requests ``order``, in that order, with their own arrival times."""
        return replace(
            self,
            arrival_s=self.arrival_s[order],
            prompt_tokens=self.prompt_tokens[order],
            output_tokens=self.output_tokens[order],
            hash_ids=None if self.hash_ids is None else self.hash_ids.take(order),
        )

    def head(self, count: int) -> Workload:
        """Return the first ``count`` requests."""
        return self.take(np.arange(min(count, len(self))))

    def window(self, start_s: float, end_s: float) -> Workload:
        """Return the requests arriving in [``start_s``, ``end_s``), their clock starting at ``start_s``."""
        inside = np.flatnonzero((self.arrival_s >= start_s) & (self.arrival_s < end_s))
        kept = self.take(inside)
        return replace(kept, arrival_s=kept.arrival_s - start_s)

    def scaled(self, factor: float) -> Workload:
        """Return the same requests at ``factor`` times the rate (every gap divided by ``factor``)."""
        if not 0 < factor < math.inf:
            raise InputError(f"rate factor {factor}", expected="a number > 0")
        return replace(self, arrival_s=self.arrival_s / factor)

    def shortened(self, factor: float) -> Workload:
        """Return requests of ``factor`` times the lengths, at least a token each, for a model of short contexts."""
        if not 0 < factor <= 1:
            raise InputError(f"length factor {factor}", expected="a number in (0, 1]")
        if factor != 1 and self.hash_ids is not None:
            raise InputError("the hashed blocks of prompts cannot be shortened", where=self.name, expected="factor 1")
        prompts, outputs = (
            np.maximum(np.rint(tokens * factor), 1).astype(np.int64)
            for tokens in (self.prompt_tokens, self.output_tokens)
        )
        return replace(self, prompt_tokens=prompts, output_tokens=outputs)
