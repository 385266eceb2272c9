"""Routers that look for the replica with the least load."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Listing
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic

from policies.routing.router import M, Member, Router, request_load
from policies.sequence import Sequence

Load = tuple[float, ...]
NOTHING: Load = ()
"""Below every load."""
SPARE = 64


class LeastLoaded(Generic[M]):
    """The member with the least load, where loads grow without telling.

    A heap holds, for each member, a load that it had once: no more than the one it has now, since whoever makes it
    less says so (:meth:`lighten`). So when the load on top is still true, it is the least; when it is not, the true
    one takes its place. Each look at a member is paid for by a change of its load, and costs O(log members).

    Parameters
    ----------
    load_of
        Returns a member's load at a moment.
    """

    def __init__(self, members: Iterable[M], load_of: Callable[[M, float], Load]) -> None:
        self._load_of = load_of
        self._members: dict[int, M] = {}
        self._known: dict[int, Load] = {}
        self._heap: list[tuple[Load, int]] = []
        for member in members:
            self.enter(member)

    def enter(self, member: M) -> None:
        """Take in a member with whatever load."""
        self._members[member.index] = member
        self._note(member.index, NOTHING)

    def remove(self, member: M) -> None:
        """Let a member go."""
        del self._known[member.index]

    def lighten(self, member: M) -> None:
        """Take note that the load of ``member`` may have become less; nothing to note of one that was removed."""
        if self._known.get(member.index, NOTHING) != NOTHING:
            self._note(member.index, NOTHING)

    def _note(self, index: int, load: Load) -> None:
        self._known[index] = load
        heappush(self._heap, (load, index))
        if len(self._heap) > 2 * len(self._known) + SPARE:
            self._heap = [(known, member) for member, known in self._known.items()]
            heapify(self._heap)

    def least(self, now_s: float) -> M:
        """Return the member with the least load at ``now_s``, of several the one with the lowest index."""
        heap, known = self._heap, self._known
        while True:
            noted, index = heap[0]
            if known.get(index) != noted:
                heappop(heap)
                continue
            load = self._load_of(self._members[index], now_s)
            if load == noted:
                return self._members[index]
            known[index] = load
            heapreplace(heap, (load, index))


class LeastLoadedRouter(Router[M]):
    """A router with an index of loads that is kept up to date."""

    def __init__(self, members: Listing[M], *, seed: int = 0) -> None:
        super().__init__(members, seed=seed)
        self.loads = LeastLoaded(members, self._load)

    @staticmethod
    def _load(member: Member, now_s: float) -> Load:  # noqa: ARG004
        return (request_load(member),)

    def leave(self, member: M) -> None:
        """Choose ``member`` no more."""
        super().leave(member)
        self.loads.remove(member)

    def join(self, member: M) -> None:
        """Choose ``member`` again."""
        super().join(member)
        self.loads.enter(member)

    def lighten(self, member: M) -> None:
        """Take note that the load of ``member`` may have become less."""
        self.loads.lighten(member)

    def choose(self, sequence: Sequence, now_s: float) -> M:  # noqa: ARG002
        """Return the replica with the least load."""
        return self.loads.least(now_s)


class LeastRequests(LeastLoadedRouter[M]):
    """The one that has the fewest requests, for its weight."""

    name = "least-requests"


class LeastKV(LeastLoadedRouter[M]):
    """The one with the least KV in use, as a share of its own blocks; of several, that with the fewest requests.

    Requests that wait hold no KV: where many arrive at one moment, only their number tells replicas apart.
    """

    name = "least-kv"
    watches_kv = True

    @staticmethod
    def _load(member: Member, now_s: float) -> Load:
        return (member.blocks_used(now_s) / member.kv_blocks, request_load(member))
