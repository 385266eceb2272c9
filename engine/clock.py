"""The engine's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

NAP_S = 0.002
"""The last so many seconds of a wait are not slept through: sleeping ends late."""


class Clock(Protocol):
    """Seconds since it was started, never less than before."""

    def start(self) -> None:
        """Count from now on."""
        ...

    def now_s(self) -> float:
        """Return the seconds since the start."""
        ...

    def wait_until(self, time_s: float) -> None:
        """Return once ``time_s`` has come."""
        ...

    def stopped(self) -> AbstractContextManager[None]:
        """Stand still as long as the block runs."""
        ...


class WallClock:
    """The time that passes in the world.

    Parameters
    ----------
    start_s
        Moment of ``time.perf_counter`` from which it counts, 0 for the machine's own count, which all processes share;
        None for when it is made.
    """

    def __init__(self, start_s: float | None = None) -> None:
        self._start_s = time.perf_counter() if start_s is None else start_s

    def start(self) -> None:
        """Count from now on."""
        self._start_s = time.perf_counter()

    def now_s(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._start_s

    def wait_until(self, time_s: float) -> None:
        """Sleep for most of the time left, and watch the clock for the rest of it."""
        time.sleep(max(0.0, time_s - self.now_s() - NAP_S))
        while self.now_s() < time_s:
            pass

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stand still as long as the block runs."""
        begun_s = time.perf_counter()
        try:
            yield
        finally:
            self._start_s += time.perf_counter() - begun_s
