"""Simulated time."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from heapq import heappush
from math import inf

import simpy

RANKS = 1 << 32


class Order(IntEnum):
    """What comes first of what happens at the same moment."""

    ARRIVAL = 0
    COMPLETION = 1
    FAILURE = 2
    RECOVERY = 3
    TRANSFER = 4
    START = 5


def place_of(order: Order, rank: int = 0) -> int:
    """Return the turn of what has this order and rank among all that happens at the same moment."""
    return order * RANKS + rank


class Moment(simpy.Event):
    """Something that happens at some moment, unless it is called off before."""

    def __init__(self, clock: Clock, action: Callable[[], None], place: int) -> None:
        self.env: Clock = clock
        self.action: Callable[[], None] | None = action
        self.place = place
        self.callbacks = [Moment._happen]
        self._ok, self._value = True, None

    def _happen(self) -> None:
        if self.action is not None:
            self.env.place = self.place
            self.action()

    def call_off(self) -> None:
        """Let nothing happen."""
        self.action = None


class Clock(simpy.Environment):
    """A simulation in which things happen at absolute moments.

    SimPy counts delays from now; adding one to now may miss a sum of times by a rounding, and with it the order of two
    events. Here the moment itself is given, so that equal ones are equal however they came about.

    Attributes
    ----------
    place
        Whose turn it is among all that happens now (see :func:`place_of`).
    """

    place = 0

    def at(self, moment_s: float, action: Callable[[], None], order: Order, rank: int = 0) -> Moment:
        """Call ``action`` at ``moment_s``; at the same moment by ``order``, then ``rank``, then first come."""
        moment = Moment(self, action, place_of(order, rank))
        heappush(self._queue, (moment_s, moment.place, next(self._eid), moment))  # type: ignore[misc]
        return moment

    def skip(self, moment_s: float, place: int) -> None:
        """Let it be ``moment_s``, before which nothing happens, and the turn of what has this :func:`place_of`."""
        self._now = moment_s
        self.place = place

    def is_over(self, place: int) -> bool:
        """Whether what has this :func:`place_of`, and happens at this very moment, has happened before."""
        return self.place > place

    @property
    def next_s(self) -> float:
        """When something happens next, infinity for never."""
        queue = self._queue
        return queue[0][0] if queue else inf
