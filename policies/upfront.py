"""What the policies share that take all blocks of a prompt when they admit it."""

from __future__ import annotations

from abc import abstractmethod

from policies.batch import Batch
from policies.policy import Policy
from policies.sequence import Sequence


class UpfrontPolicy(Policy):
    """The verbs that the rules of all policies up to vLLM v0 and Sarathi-Serve are written with.

    A chunk never lacks blocks, since the whole prompt has them; only decodes grow.
    """

    def _decode_all(self, batch: Batch) -> None:
        """Put every ready decode into an empty batch, oldest first, each with the KV block that it needs."""
        if not self.decodes.size:
            return
        group = self.decodes.take(self.batch_limit)
        self._grow(group)
        batch.decode(group)
        if not group.size:
            self.decodes.put_back(group)

    def _continue_prefills(self, batch: Batch, budget: int) -> None:
        """Give unfinished prompts, oldest first, what is left of the token budget."""
        prefilling = self.prefilling
        if not prefilling:
            return
        left, room = budget - batch.prefill_tokens - batch.decodes, self._room(batch)
        while prefilling and left > 0 and room > 0:
            sequence = prefilling.pop(0)
            tokens = min(sequence.target - sequence.computed, left)
            batch.prefill(sequence, tokens)
            left, room = left - tokens, room - 1

    def _admit_chunks(self, batch: Batch, budget: int) -> None:
        """Admit requests first come, first served, with what is left of the token budget."""
        while self.waiting and (left := budget - batch.prefill_tokens - batch.decodes) > 0 and self._can_admit(batch):
            self._admit(batch, min(self.waiting[0].left, left))

    def _same_chunks(self, batch: Batch, budget: int) -> int:
        """How often the one chunk of a batch that fills its budget runs, each time after itself, before the last."""
        if len(batch.chunks) > 1 or batch.prefill_tokens + batch.decodes < budget:
            return 1
        sequence, tokens, past = batch.chunks[0]
        return (sequence.target - past - 1) // tokens

    def _can_admit(self, batch: Batch) -> bool:
        """Whether the first waiting request finds a seat and its KV blocks."""
        return (
            bool(self.waiting)
            and self.residents < self.settings.max_num_seqs
            and self._room(batch) > 0
            and self.pool.free - self._upfront_blocks(self.waiting[0]) >= self._spared_blocks
        )

    def _admit(self, batch: Batch, tokens: int) -> None:
        """Make the first waiting request resident and run its first ``tokens`` tokens."""
        sequence = self.waiting.popleft()
        self.residents += 1
        self.pool.allocate(sequence, self._upfront_blocks(sequence))
        batch.prefill(sequence, tokens)

    def _house(self, sequence: Sequence) -> bool:
        blocks = self._upfront_blocks(sequence)
        if self.pool.free - blocks < self._spared_blocks:
            return False
        self.residents += 1
        self.pool.allocate(sequence, blocks)
        return True

    def _resident_blocks(self, sequence: Sequence) -> int:
        return max(self._upfront_blocks(sequence), super()._resident_blocks(sequence))

    @abstractmethod
    def _upfront_blocks(self, sequence: Sequence) -> int:
        """Blocks that a waiting sequence gets when it is admitted."""
