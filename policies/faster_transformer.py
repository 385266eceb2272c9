"""FasterTransformer: request-level batching."""

from __future__ import annotations

from policies.batch import Batch
from policies.reserving import ReservingPolicy


class FasterTransformer(ReservingPolicy):
    """Decode a batch to its last token before any new request joins (SARATHI, section 2; Orca, section 2)."""

    name = "faster-transformer"
    continues_prompts = False

    def _seat_incoming(self) -> None:
        if not self.decodes:
            super()._seat_incoming()

    def _fill(self, batch: Batch) -> None:
        if self.decodes:
            self._decode_all(batch)
        else:
            while self._can_admit(batch):
                self._admit(batch, self.waiting[0].left)
