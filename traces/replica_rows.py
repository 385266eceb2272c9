"""Rows of a table by the replica that they are of."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

SMALL = 1 << 16
Kind = TypeVar("Kind", bound=np.generic)


class ReplicaRows:
    """Which rows are of which replica: found once, in a time that grows with the rows alone.

    Parameters
    ----------
    replica
        The replica of each row, int [rows].
    count
        How many replicas there are.
    """

    def __init__(self, replica: npt.NDArray[np.integer], count: int) -> None:
        self._rows = len(replica)
        self._order = None if count == 1 else _order(replica, count)
        counts = np.bincount(replica, minlength=count) if count > 1 else [self._rows]
        self._bounds = np.concatenate([[0], np.cumsum(counts)])

    def of(self, replica: int) -> npt.NDArray[np.intp]:
        """Return the rows of a replica, ascending."""
        if self._order is None:
            return np.arange(self._rows)
        return self._order[self._bounds[replica] : self._bounds[replica + 1]]

    def pick(self, column: npt.NDArray[Kind], replica: int) -> npt.NDArray[Kind]:
        """Return the part of a column [rows] that is of a replica, all of it where there is one replica only."""
        return column if self._order is None else column[self.of(replica)]


def _order(replica: npt.NDArray[np.integer], count: int) -> npt.NDArray[np.intp]:
    """Rows by replica, those of a replica in order; few replicas are sorted by their digits."""
    return np.argsort(replica.astype(np.uint16) if count <= SMALL else replica, kind="stable")
