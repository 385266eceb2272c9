"""The router that sends a prompt to where its beginning is cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from typing import Generic

from policies.routing.least_loaded import LeastLoadedRouter
from policies.routing.router import M, request_load
from policies.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class PrefixAffinitySettings:
    """Settings of :class:`PrefixAffinity`.

    Attributes
    ----------
    overload
        A replica is overloaded with more than so many times the requests, for its weight, of the least loaded one ...
    slack
        ... and so many requests more.
    known_blocks
        Blocks of prompts that the router remembers at most (some 150 bytes each); the least recently seen go first.
    """

    overload: float = 1.5
    slack: float = 8.0
    known_blocks: int = 1_000_000

    def __post_init__(self) -> None:
        if not self.overload >= 1 or not self.slack >= 0:
            raise ValueError(f"overload is {self.overload} and slack {self.slack}; expected numbers >= 1 and >= 0")
        if self.known_blocks < 1:
            raise ValueError(f"known_blocks is {self.known_blocks}; expected an integer >= 1")


class Cache(Generic[M]):
    """What a replica holds between two failures."""

    __slots__ = ("lost", "member")

    def __init__(self, member: M) -> None:
        self.member = member
        self.lost = False


class PrefixAffinity(LeastLoadedRouter[M]):
    """The replica that last got the longest known beginning of the prompt, unless it is overloaded.

    Beginnings are known by the prefix hashes of the workload. Where none is known, and where that replica is
    overloaded against the least loaded one, the least loaded one gets the request (see :class:`LeastRequests
    <policies.routing.least_loaded.LeastRequests>`) and the prompt is known to be there from then on.
    """

    name = "prefix-affinity"
    reads_prompts = True

    def __init__(self, members: Listing[M], *, seed: int = 0, settings: PrefixAffinitySettings | None = None) -> None:
        super().__init__(members, seed=seed)
        self.settings = settings or PrefixAffinitySettings()
        self._caches = {member.index: Cache(member) for member in members}
        self._where: OrderedDict[Hashable, Cache[M]] = OrderedDict()

    def leave(self, member: M) -> None:
        """Choose ``member`` no more, whose cache is lost."""
        super().leave(member)
        self._caches[member.index].lost = True

    def join(self, member: M) -> None:
        """Choose ``member`` again, its cache empty."""
        super().join(member)
        self._caches[member.index] = Cache(member)

    def choose(self, sequence: Sequence, now_s: float) -> M:
        """Return the replica with the longest known beginning, or the least loaded one."""
        least = self.loads.least(now_s)
        known = self._longest(sequence)
        chosen = least if known is None or self._overloaded(known, least) else known
        self._remember(sequence, self._caches[chosen.index])
        return chosen

    def _longest(self, sequence: Sequence) -> M | None:
        found = None
        for block in sequence.block_hashes:
            cache = self._where.get(block)
            if cache is None:
                break
            if not cache.lost:
                found = cache.member
        return found

    def _overloaded(self, member: M, least: M) -> bool:
        return request_load(member) > self.settings.overload * request_load(least) + self.settings.slack / member.weight

    def _remember(self, sequence: Sequence, cache: Cache[M]) -> None:
        """Note the blocks of a prompt, its beginning last, so that no block is forgotten before those after it."""
        where = self._where
        for block in reversed(sequence.block_hashes):
            where[block] = cache
            where.move_to_end(block)
        while len(where) > self.settings.known_blocks:
            where.popitem(last=False)
