"""What a loop of schedule, execute and complete leaves in its run record, in simulated time and in real time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf, isfinite
from typing import Any

from traces.iteration_log import ROWS, Columns, Flight, IterationLog
from traces.request_log import RequestLog
from traces.run_record import RunRecorder
from traces.workload import Workload

FLIGHTS = 4096
"""So many are made into columns at a time."""


class RunLog:
    """Notes iterations as they end, and what became of each request.

    Parameters
    ----------
    writer
        Of the run record.
    requests
        Takes those that end: :class:`traces.request_log.KnownRequests`, or requests that arrive.
    complete
        Returns the columns ``flops`` and ``outside`` of iterations, see :class:`traces.iteration_log.IterationLog`.
    replicas
        How many there are.
    settled_s
        Returns a moment before which no iteration ends that is still to be noted, where they are not noted in order.

    Attributes
    ----------
    finished
        Requests that have ended.
    """

    def __init__(
        self,
        writer: RunRecorder,
        requests: RequestLog,
        complete: Callable[[Columns], Columns],
        *,
        replicas: int = 1,
        settled_s: Callable[[], float] = lambda: inf,
    ) -> None:
        self._writer, self._requests, self._settled_s = writer, requests, settled_s
        self._iterations = IterationLog(complete, replicas=replicas)
        self._flights: list[Flight] = []
        self._ended: list[Any] = []
        self.finished = 0

    def iterations(self, flight: Flight) -> None:
        """Note that a batch ran, once or several times in a row."""
        self._flights.append(flight)
        if len(self._flights) == FLIGHTS and self._iterations.take(self._flights) >= ROWS:
            self._write()

    def ended(self, sequences: Collection[Any]) -> None:
        """Note requests that have got their last token."""
        self._ended += sequences
        self.finished += len(sequences)

    def _write(self, *, rest: bool = False) -> None:
        """Hand over what is complete, and with ``rest`` what is left."""
        if self._flights:
            self._iterations.take(self._flights)
        for table in self._iterations.tables(self._settled_s(), rest=rest):
            self._writer.table(table)
        if self._ended:
            self._requests.take(self._ended)
            self._ended.clear()

    def close(self) -> None:
        """Hand everything that is left to the writer."""
        self._write(rest=True)
        self._writer.requests(self._requests.made())


def describe_workload(workload: Workload) -> dict[str, Any]:
    """Return what ``run.json`` says of a workload."""
    rate_per_s = workload.rate_per_s
    return {
        "name": workload.name,
        "requests": len(workload),
        "rate_per_s": rate_per_s if isfinite(rate_per_s) else None,
        "prompt_tokens": int(workload.prompt_tokens.sum()),
        "output_tokens": int(workload.output_tokens.sum()),
    }
