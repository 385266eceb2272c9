"""Sarathi-Serve: stall-free batches within a token budget."""

from __future__ import annotations

from dataclasses import dataclass

from policies.batch import Batch
from policies.paged import PagedPolicy
from policies.settings import PagedSettings


@dataclass(frozen=True, kw_only=True)
class SarathiServeSettings(PagedSettings):
    """Settings of Sarathi-Serve.

    Attributes
    ----------
    max_num_batched_tokens
        The token budget of an iteration (in the paper 512 for a strict latency target, 2048 for a relaxed).
    """

    max_num_batched_tokens: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("max_num_batched_tokens", 1)

    def most_tokens(self, max_model_len: int) -> int:  # noqa: ARG002
        """Return the tokens of the largest batch; decodes alone may exceed the budget."""
        return max(self.max_num_batched_tokens, self.max_num_seqs)


class SarathiServe(PagedPolicy):
    """Decodes first, then chunks of unfinished prompts, then chunks of new ones (OSDI'24, Algorithm 3)."""

    name = "sarathi-serve"
    settings: SarathiServeSettings

    def _chunk_repeats(self, batch: Batch) -> int:
        return self._same_chunks(batch, self.settings.max_num_batched_tokens)

    def _fill(self, batch: Batch) -> None:
        budget = self.settings.max_num_batched_tokens
        self._decode_all(batch)
        self._continue_prefills(batch, budget)
        self._admit_chunks(batch, budget)
