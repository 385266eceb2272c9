"""Prompts for a workload that has only their lengths."""

from __future__ import annotations

import numpy as np

from traces.workload import IntColumn, Workload

OWN, SHARED = 0, 1


class RandomPrompts:
    """Random token ids of the traced lengths; where the trace says that prompts begin alike, these do.

    Parameters
    ----------
    workload
        The trace.
    vocab
        Token ids are 0 to this, exclusive.
    seed
        Decides every draw.
    """

    def __init__(self, workload: Workload, vocab: int, seed: int) -> None:
        self._workload = workload
        self._vocab = vocab
        self._seed = seed

    def prompt(self, request: int) -> list[int]:
        """Return the prompt of one request."""
        length = int(self._workload.prompt_tokens[request])
        shared = self._shared(request)[:length]
        own = self._draw(OWN, request, length - len(shared))
        return [*shared.tolist(), *own.tolist()]

    def _shared(self, request: int) -> IntColumn:
        hashes = self._workload.hash_ids
        if hashes is None:
            return np.empty(0, np.int64)
        parts = [self._draw(SHARED, int(value) % 2**64, hashes.block_size) for value in hashes.of(request)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _draw(self, kind: int, name: int, count: int) -> IntColumn:
        return np.random.default_rng([self._seed, kind, name]).integers(self._vocab, size=count, dtype=np.int64)
