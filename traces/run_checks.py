"""Values of a run record looked at, wrong ones named by row and column."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.errors import InputError
from traces.workload import FloatColumn

CLOCK_SLACK_S = 1e-6
Values = npt.NDArray[Any]


class Check:
    """Says of which row and column a wrong value is; each method raises InputError for the first one."""

    def __init__(self, where: PathLike[str]) -> None:
        self._where = where

    def all(self, right: npt.NDArray[np.bool_], name: str, expected: str, *, offsets: Values | None = None) -> None:
        """Refuse values of which one is not right; ``offsets`` are those of lists, where the values are of lists."""
        if not right.all():
            wrong = int(np.argmin(right))
            row = wrong if offsets is None else int(np.searchsorted(offsets, wrong, side="right")) - 1
            raise InputError("wrong value", where=f"{self._where}: row {row}, column {name!r}", expected=expected)

    def whole(self, values: Values, name: str, least: int = 0) -> None:
        """Refuse integers below ``least``."""
        self.all(values >= least, name, f"an integer >= {least}")

    def finite(self, values: Values, name: str, *, offsets: Values | None = None) -> None:
        """Refuse NaN and infinity."""
        self.all(np.isfinite(values), name, "a finite number", offsets=offsets)

    def seconds(self, values: FloatColumn, name: str, *, offsets: Values | None = None) -> None:
        """Refuse what is no duration."""
        self.all((values >= 0) & (values < np.inf), name, "seconds >= 0", offsets=offsets)

    def after(self, times: FloatColumn, before: FloatColumn, name: str) -> None:
        """Refuse times before those of the event before; NaN is never."""
        right = ~np.isinf(times) & ~(times < before - CLOCK_SLACK_S)
        self.all(right, name, "a time after the one before")

    def ascending(self, times: FloatColumn, name: str) -> None:
        """Refuse times that go back."""
        back = np.diff(times) < 0
        if back.any():
            row = int(np.argmax(back)) + 1
            raise InputError(f"{name} goes back at row {row}", where=self._where, expected="ascending times")

    def replica(self, replicas: Values, name: str, count: int) -> None:
        """Refuse what is no replica out of ``count``."""
        self.all((replicas >= 0) & (replicas < count), name, f"a replica from 0 to {count - 1}")
