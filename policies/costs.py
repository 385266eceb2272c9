"""What a policy may know of the time that a batch takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class BatchLike(Protocol):
    """What the time of a batch depends on (see :class:`policies.batch.Batch`)."""

    @property
    def chunks(self) -> Sequence[Any]:
        """The prefill slices, each with ``tokens`` new prompt tokens after ``past`` whose KV is there."""

    @property
    def prefill_tokens(self) -> int:
        """Tokens of the chunks."""

    @property
    def decodes(self) -> int:
        """Sequences that decode one token."""

    @property
    def outputs(self) -> int:
        """Tokens sampled."""

    @property
    def decode_context_sum(self) -> int:
        """KV tokens that the decodes attend to, their own included."""

    @property
    def decode_context_max(self) -> int:
        """The longest of those contexts."""


class Costs(Protocol):
    """A cost model, as far as a policy asks it: handed in where the policy is built."""

    def iteration_time(self, batch: BatchLike, stage: int = 0) -> float:
        """Return the seconds for which a batch is expected to keep pipeline stage ``stage`` busy."""
        ...

    def interval(self, batch: BatchLike, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        """Return the seconds between which the stage is busy, for about a share ``coverage`` of batches."""
        ...
