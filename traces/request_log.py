"""What became of each request, as columns that fill or grow while a run happens."""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from traces.run_schema import REQUEST_TYPES
from traces.workload import Workload

Columns = dict[str, npt.NDArray[Any]]
OF_SEQUENCE = attrgetter(
    "request_id", "scheduled_s", "first_token_s", "finished_s", "generated", "cached_tokens", "preemptions"
)
SEQUENCE_COLUMNS = ("scheduled_s", "first_token_s", "finished_s", "generated_tokens", "cached_tokens", "preemptions")
OF_ARRIVAL = attrgetter("arrival_s", "prompt_tokens", "output_tokens")
ARRIVAL_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
WIDTH = 1 + len(SEQUENCE_COLUMNS) + len(ARRIVAL_COLUMNS)


class RequestLog(Protocol):
    """Takes requests that have ended, in any order."""

    def take(self, ended: Collection[Any]) -> None:
        """Note what became of requests (:class:`policies.sequence.Sequence`, or what has its attributes)."""
        ...

    def made(self) -> Columns:
        """Return the columns of all requests, in order of arrival."""
        ...


class KnownRequests:
    """The requests of a workload, of which request i is the sequence with request id i.

    Attributes
    ----------
    columns
        By name; those that have not ended are there as well. What only a cluster knows of a request is set by it.
    """

    def __init__(self, workload: Workload) -> None:
        size = len(workload)
        self.columns: Columns = _empty(size) | {
            "arrival_s": workload.arrival_s,
            "prompt_tokens": workload.prompt_tokens,
            "output_tokens": workload.output_tokens,
            "scheduled_s": np.full(size, np.nan),
            "first_token_s": np.full(size, np.nan),
            "finished_s": np.full(size, np.nan),
        }

    def take(self, ended: Collection[Any]) -> None:
        """Note what became of requests."""
        request, *columns = np.asarray(list(map(OF_SEQUENCE, ended))).T
        for name, column in zip(SEQUENCE_COLUMNS, columns, strict=True):
            self.columns[name][request.astype(np.int64)] = column

    def made(self) -> Columns:
        """Return the columns of all requests, in order of arrival."""
        return self.columns


class ArrivingRequests:
    """Requests that nobody knows of before they come: each is there once it has been taken, in order of its id.

    They take 100 bytes each.
    """

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.float64]] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def take(self, ended: Collection[Any]) -> None:
        """Note what became of requests."""
        rows = [(*OF_SEQUENCE(each), *OF_ARRIVAL(each)) for each in ended]
        self._parts.append(np.asarray(rows, np.float64).reshape(-1, WIDTH))

    def ids(self) -> npt.NDArray[np.int64]:
        """Return the ids by which they were taken, int64 [requests], in order of arrival."""
        return np.sort(self._rows()[:, 0]).astype(np.int64)

    def made(self) -> Columns:
        """Return the columns of all requests, numbered anew, in order of arrival."""
        rows = self._rows()
        columns = rows[np.argsort(rows[:, 0], kind="stable"), 1:].T
        names = (*SEQUENCE_COLUMNS, *ARRIVAL_COLUMNS)
        known = {name: column.astype(REQUEST_TYPES[name]) for name, column in zip(names, columns, strict=True)}
        return _empty(len(rows)) | known

    def _rows(self) -> npt.NDArray[np.float64]:
        return np.concatenate([np.empty((0, WIDTH)), *self._parts])


def _empty(size: int) -> Columns:
    """Return all columns of requests, numbered from 0, zero otherwise."""
    made: Columns = {name: np.zeros(size, kind) for name, kind in REQUEST_TYPES.items()}
    made["request_id"] = np.arange(size)
    return made
