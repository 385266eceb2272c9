"""A batch on its way through the stages of a replica."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from policies.batch import Batch
from policies.decode_set import Gap
from policies.policy import Policy
from policies.sequence import Sequence


class Flight:
    """A batch on its way: once through all stages, or, on one stage, several times in a row.

    Attributes
    ----------
    replica
        Where.
    batch
        What runs.
    waiting, running
        Queue length and residents when it had been scheduled; the same each time that it runs.
    blocks_used
        KV blocks in use then, one figure for each time; those after the first follow when they are over.
    stage_start_s, stage_time_s
        When each stage begins and for how long it is busy; of several times on one stage one after the other.
    ends_s
        When the last stage is done, each time.
    gaps
        The gaps that its first time ended.
    decoding
        The sequences that decode in it, where there are several stages; the batch itself forgets them when it is back.
    """

    __slots__ = (
        "batch",
        "blocks_used",
        "decoding",
        "ends_s",
        "gaps",
        "replica",
        "running",
        "stage_start_s",
        "stage_time_s",
        "waiting",
    )

    def __init__(
        self,
        batch: Batch,
        policy: Policy,
        replica: int,
        stage_start_s: list[float],
        stage_time_s: list[float],
        ends_s: list[float],
    ) -> None:
        self.replica = replica
        self.batch = batch
        self.waiting = len(policy.waiting) + len(policy.incoming)
        self.running = policy.residents
        self.blocks_used = [policy.pool.used]
        self.stage_start_s = stage_start_s
        self.stage_time_s = stage_time_s
        self.ends_s = ends_s
        self.gaps: list[Gap] = []
        self.decoding: list[Sequence] = list(batch.group or ()) if policy.stages > 1 else []

    def over_by(self, moment_s: float, *, ended: bool) -> int:
        """Return how many of its times are over at ``moment_s``; one that ends then is, if it has ``ended``."""
        return bisect_right(self.ends_s, moment_s) if ended else bisect_left(self.ends_s, moment_s)

    def cut(self, times: int) -> None:
        """Let it run only so many times."""
        del self.ends_s[times:], self.stage_start_s[times:], self.stage_time_s[times:]
