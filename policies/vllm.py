"""vLLM v0: prefill first, never mixed."""

from __future__ import annotations

from dataclasses import dataclass

from policies.batch import Batch
from policies.blocks import KVMemory
from policies.costs import Costs
from policies.paged import PagedPolicy
from policies.settings import PagedSettings


@dataclass(frozen=True, kw_only=True)
class VLLMSettings(PagedSettings):
    """Settings of vLLM v0.

    Attributes
    ----------
    max_num_batched_tokens
        Most prompt tokens of a batch; at least ``max_model_len``, which is the default.
    """

    max_num_batched_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("max_num_batched_tokens", 1)

    def most_tokens(self, max_model_len: int) -> int:
        """Return the tokens of the largest batch."""
        return max(self.max_num_batched_tokens or max_model_len, self.max_num_seqs)


class VLLM(PagedPolicy):
    """Admit whole prompts whenever they fit; decode only when none does (vLLM v0, SOSP'23, section 4.5)."""

    name = "vllm"
    continues_prompts = False
    settings: VLLMSettings

    def __init__(
        self, settings: VLLMSettings, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None
    ) -> None:
        super().__init__(settings, memory, stages=stages, costs=costs)
        self.max_num_batched_tokens = settings.max_num_batched_tokens or memory.max_model_len
        if self.max_num_batched_tokens < memory.max_model_len:
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}; expected at least max_model_len "
                f"{memory.max_model_len}, since this policy runs prompts whole"
            )

    def _fill(self, batch: Batch) -> None:
        while self._can_admit(batch):
            if batch.tokens + self.waiting[0].left > self.max_num_batched_tokens:
                break
            self._admit(batch, self.waiting[0].left)
        if not batch.chunks:
            self._decode_all(batch)
