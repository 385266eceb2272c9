"""How many requests the server takes on, and when one should come again that it does not."""

from __future__ import annotations

from collections import deque
from math import ceil
from time import perf_counter

from engine.server.client import QueueFullError, UnservableError

MEMORY = 256
"""The latest requests that ended, by which a rate is estimated."""
LONGEST_S = 60
"""Nobody is told to stay away for longer."""


class Admission:
    """A bound on the requests that wait and run.

    Parameters
    ----------
    max_queue
        How many there may be beyond those that can be resident.
    """

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._ended_s: deque[float] = deque(maxlen=MEMORY)

    def note_end(self) -> None:
        """Take note that a request ended, just now."""
        self._ended_s.append(perf_counter())

    def check(self, inside: int, coming: int, *, residents: int) -> None:
        """Refuse ``coming`` requests where there is no room for them beside those ``inside``.

        Parameters
        ----------
        residents
            How many can be resident at once.

        Raises
        ------
        QueueFullError
            If there is no room now.
        UnservableError
            If there never is.
        """
        most = residents + self._max_queue
        if coming > most:
            raise UnservableError(f"{coming} outputs at once; expected at most {most}")
        if inside + coming > most:
            message = f"{inside} requests wait or run; at most {most} may"
            raise QueueFullError(message, retry_after_s=self.retry_after_s(inside + coming - most))

    def retry_after_s(self, places: int) -> int:
        """Return in how many seconds ``places`` more requests will have ended, if they go on ending as lately.

        1 where none has ended lately: nothing is known then, and to ask again costs little.
        """
        now_s = perf_counter()
        lately = [moment_s for moment_s in self._ended_s if now_s - moment_s <= LONGEST_S]
        if not lately:
            return 1
        return min(LONGEST_S, max(1, ceil(places * (now_s - lately[0]) / len(lately))))
