"""Routers: which replica of a cluster gets a request, in simulated time as in a deployment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence as Listing
from typing import ClassVar, Generic, Protocol, TypeVar

from policies.sequence import Sequence
from traces.random_draws import RandomDraws


class Member(Protocol):
    """What a router knows of a replica.

    Attributes
    ----------
    index
        Its number in the cluster; of two that are as good the lower one is chosen.
    weight
        How much it serves compared with the other replicas, > 0.
    kv_blocks
        KV blocks it has.
    """

    index: int
    weight: float
    kv_blocks: int

    @property
    def requests(self) -> int:
        """Requests it has been given and has not finished."""

    def blocks_used(self, now_s: float) -> int:
        """Return the KV blocks in use at ``now_s``."""


M = TypeVar("M", bound=Member)


def request_load(member: Member) -> float:
    """Return the requests a replica would have with one more, for each unit of its weight."""
    return (member.requests + 1) / member.weight


class Router(ABC, Generic[M]):
    """Chooses among the replicas that are up.

    Whoever runs the cluster says what happens to a replica: :meth:`leave` when it fails, :meth:`join` when it is
    back, :meth:`lighten` when its requests or its KV in use may have become fewer. That they become more needs no
    telling. So choosing costs O(log replicas) at most, amortised, and no router looks at all of them.

    Parameters
    ----------
    members
        The replicas, all up, in ascending order of their index.
    seed
        Of the router's random draws.
    """

    name: ClassVar[str]
    watches_kv: ClassVar[bool] = False
    """Whether it is to be told of KV that becomes less, not of requests alone."""
    reads_prompts: ClassVar[bool] = False
    """Whether it asks for the block hashes of a sequence."""

    def __init__(self, members: Listing[M], *, seed: int = 0) -> None:  # noqa: ARG002
        self.members = {member.index: member for member in members}
        self.up = list(self.members)

    def __len__(self) -> int:
        """Replicas that are up."""
        return len(self.up)

    def leave(self, member: M) -> None:
        """Choose ``member`` no more: it has failed."""
        del self.up[bisect_left(self.up, member.index)]

    def join(self, member: M) -> None:
        """Choose ``member`` again, which lost all that it held when it failed."""
        insort(self.up, member.index)

    def lighten(self, member: M) -> None:
        """Take note that the load of ``member``, which is up, may have become less."""

    @abstractmethod
    def choose(self, sequence: Sequence, now_s: float) -> M:
        """Return the replica that gets ``sequence`` at ``now_s``; at least one must be up."""


class RoundRobin(Router[M]):
    """The next one in turn, by index."""

    name = "round-robin"

    def __init__(self, members: Listing[M], *, seed: int = 0) -> None:
        super().__init__(members, seed=seed)
        self._last = -1

    def choose(self, sequence: Sequence, now_s: float) -> M:  # noqa: ARG002
        """Return the next replica in turn."""
        self._last = self.up[bisect_right(self.up, self._last) % len(self.up)]
        return self.members[self._last]


class RandomRouter(Router[M]):
    """Any of them, each with the same probability."""

    name = "random"

    def __init__(self, members: Listing[M], *, seed: int = 0) -> None:
        super().__init__(members, seed=seed)
        self._draws = RandomDraws(seed)

    def choose(self, sequence: Sequence, now_s: float) -> M:  # noqa: ARG002
        """Return one drawn at random."""
        return self.members[self.up[self._draws.below(len(self.up))]]


class PowerOfTwo(RandomRouter[M]):
    """Of two drawn at random the one with fewer requests for its weight (Mitzenmacher, "power of two choices")."""

    name = "power-of-two"

    def choose(self, sequence: Sequence, now_s: float) -> M:  # noqa: ARG002
        """Return the less loaded of two different replicas."""
        first = self._draws.below(len(self.up))
        if len(self.up) == 1:
            return self.members[self.up[first]]
        second = self._draws.below(len(self.up) - 1)
        second += second >= first
        pair = (self.members[self.up[place]] for place in sorted((first, second)))
        return min(pair, key=request_load)
