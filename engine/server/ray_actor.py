"""The engine of a replica, in a process that Ray places, starts, and starts again."""

from __future__ import annotations

import os
import time
from threading import Thread

from engine.server.blueprint import Blueprint
from engine.server.process import live
from engine.server.switchboard import Hotline, call

PAUSE_S = 1.0
"""Before a process ends that came to no good, for Ray starts the next at once."""


class EngineActor:
    """Builds an engine, calls the server, and serves it as an engine's process of its own would.

    Whatever breaks ends the process, and Ray starts it again; only one that was told to stop stays, until whoever owns
    it lets it go.

    Parameters
    ----------
    hotline, index
        Where to call, as which replica.
    blueprint
        What to build.
    """

    def __init__(self, hotline: Hotline, index: int, blueprint: Blueprint) -> None:
        self._stopped = False
        Thread(target=self._live, args=(hotline, index, blueprint), name="engine", daemon=True).start()

    def _live(self, hotline: Hotline, index: int, blueprint: Blueprint) -> None:
        status = 1
        try:
            line, hang_up = call(hotline, index)
            status = live(line, blueprint, self._lose)
            self._stopped = status == 0
            hang_up()
        finally:
            if status:
                time.sleep(PAUSE_S)
                os._exit(status)

    def _lose(self) -> None:
        """The server is gone, or has been left in good order."""
        if not self._stopped:
            os._exit(1)
