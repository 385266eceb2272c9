"""A replica as a member of a cluster."""

from __future__ import annotations

from simulator.cluster import Group
from simulator.replica import Replica


class Host:
    """A replica with what routers ask of it (see :class:`policies.routing.router.Member`).

    Attributes
    ----------
    replica, group
        The replica, and the group it is of.
    index, weight, kv_blocks
        Its number, how much it serves compared with others, its KV blocks.
    coming
        Sequences whose KV is on its way here.
    """

    __slots__ = ("coming", "group", "index", "kv_blocks", "replica", "weight")

    def __init__(self, replica: Replica, group: Group, weight: float) -> None:
        self.replica, self.group = replica, group
        self.index, self.weight, self.kv_blocks = replica.index, weight, group.memory.blocks
        self.coming = 0

    @property
    def requests(self) -> int:
        """Requests it has been given and has not finished, those on their way included."""
        return self.replica.requests + self.coming

    def blocks_used(self, now_s: float) -> int:
        """Return the KV blocks in use at ``now_s``."""
        return self.replica.blocks_used(now_s)
