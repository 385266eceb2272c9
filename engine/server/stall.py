"""Whether the engine still moves."""

from __future__ import annotations

import logging
from time import perf_counter

log = logging.getLogger(__name__)


class Stall:
    """Watches an engine that has work; it has stalled from when that is seen until it says something.

    Parameters
    ----------
    timeout_s
        How long nothing may be heard of it while it has work.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since_s = perf_counter()
        self._stalled: str | None = None

    def begin(self) -> None:
        """Take note that the engine has work, and had none."""
        self._since_s = perf_counter()

    def hear(self) -> None:
        """Take note that the engine has said something."""
        self._since_s = perf_counter()
        if self._stalled is not None:
            log.warning("the engine goes on")
            self._stalled = None

    def check(self, *, busy: bool) -> str | None:
        """Return why the engine is taken to hang; None while it is not. ``busy``: whether it has work."""
        if self._stalled is None and busy and perf_counter() - self._since_s >= self._timeout_s:
            self._stalled = f"the engine has not finished an iteration for {self._timeout_s:g} s"
            log.error("stalled: %s", self._stalled)
        return self._stalled
