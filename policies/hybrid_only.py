"""Hybrid batches without chunks: an ablation of Sarathi-Serve."""

from __future__ import annotations

from policies.batch import Batch
from policies.paged import PagedPolicy


class HybridOnly(PagedPolicy):
    """Sarathi-Serve with the budget of a whole prompt, ``max_model_len`` (OSDI'24, section 5.4)."""

    name = "hybrid-only"

    def _fill(self, batch: Batch) -> None:
        self._decode_all(batch)
        self._continue_prefills(batch, self.memory.max_model_len)
        self._admit_chunks(batch, self.memory.max_model_len)
