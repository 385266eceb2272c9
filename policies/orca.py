"""Orca: iteration-level batching."""

from __future__ import annotations

from policies.batch import Batch
from policies.reserving import ReservingPolicy


class Orca(ReservingPolicy):
    """All decodes, and whole prompts beside them as seats and memory allow (Orca, OSDI'22, section 3)."""

    name = "orca"
    continues_prompts = False

    def _fill(self, batch: Batch) -> None:
        self._decode_all(batch)
        while self._can_admit(batch):
            self._admit(batch, self.waiting[0].left)
