"""Run records from arrow tables: every value looked at, wrong ones named by row and column."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.errors import InputError
from traces.run_columns import IterationColumns, RequestColumns, RunMeta
from traces.run_schema import ITERATION_TYPES, REQUEST_TYPES, type_name
from traces.workload import IntColumn

if TYPE_CHECKING:
    import pyarrow as pa

CLOCK_SLACK_S = 1e-6


def request_columns(table: pa.Table, meta: RunMeta, where: PathLike[str]) -> RequestColumns:
    """Return the requests of a table with the right columns; InputError if a value cannot be."""
    _check_nulls(table, where)
    made = RequestColumns(**{name: table[name].to_numpy() for name in REQUEST_TYPES})
    check = _Check(where)
    check.all(np.isfinite(made.arrival_s), "arrival_s", "a finite time")
    check.ascending(made.arrival_s, "arrival_s")
    for name in ("replica", "decode_replica"):
        check.replica(getattr(made, name), name, meta)
    before = made.arrival_s
    for name in ("scheduled_s", "first_token_s", "finished_s"):
        times = getattr(made, name)
        check.all(~np.isinf(times) & ~(times < before - CLOCK_SLACK_S), name, "a time after the one before")
        before = times
    for name in ("prompt_tokens", "output_tokens"):
        check.all(getattr(made, name) >= 1, name, "an integer >= 1")
    for name in ("generated_tokens", "cached_tokens", "preemptions", "restarts"):
        check.all(getattr(made, name) >= 0, name, "an integer >= 0")
    for name in ("transfer_s", "bubble_s"):
        check.all(np.isfinite(getattr(made, name)) & (getattr(made, name) >= 0), name, "seconds >= 0")
    return made


def iteration_columns(table: pa.Table, meta: RunMeta, where: PathLike[str]) -> IterationColumns:
    """Return the iterations of a table with the right columns; InputError if a value cannot be."""
    _check_nulls(table, where)
    lists = {name for name, kind in ITERATION_TYPES.items() if kind.startswith("list")}
    columns = {name: table[name].to_numpy() for name in ITERATION_TYPES if name not in lists}
    check = _Check(where)
    check.replica(columns["replica"], "replica", meta)
    stages = meta.of_each("stages").astype(np.int64)[columns["replica"]]
    for name, missing in (("stage_start_s", np.nan), ("stage_time_s", 0.0)):
        offsets, values = _ragged(table, name)
        check.all(np.diff(offsets) == stages, name, "a value for each stage of the replica")
        check.all(np.isfinite(values), name, "finite numbers", rows=np.repeat(np.arange(len(stages)), stages))
        columns[name] = _padded(values, stages, meta.stages, missing)
    columns["gap_offsets"], columns["gap_s"] = _ragged(table, "gap_s")
    offsets, columns["gap_count"] = _ragged(table, "gap_count")
    check.all(np.diff(offsets) == np.diff(columns["gap_offsets"]), "gap_count", "as many values as gap_s")
    made = IterationColumns(**columns)
    _check_iterations(made, meta, check)
    return made


def _padded(values: npt.NDArray[np.float64], counts: IntColumn, width: int, missing: float) -> npt.NDArray[np.float64]:
    """Return rows of ``counts`` values each as float64 [rows, width]."""
    if len(values) == len(counts) * width:
        return values.reshape(-1, width)
    padded = np.full((len(counts), width), missing)
    padded[np.arange(width) < counts[:, np.newaxis]] = values
    return padded


def _check_iterations(made: IterationColumns, meta: RunMeta, check: _Check) -> None:
    for name in ("start_s", "flops"):
        check.all(np.isfinite(getattr(made, name)), name, "a finite number")
    check.all(np.isfinite(made.end_s) & (made.end_s >= made.start_s), "end_s", "a time >= start_s")
    for replica in range(meta.replicas):
        check.ascending(made.end_s[made.replica == replica], f"end_s of replica {replica}")
    check.all((made.stage_time_s >= 0).all(axis=1), "stage_time_s", "seconds >= 0")
    whole = [name for name, kind in ITERATION_TYPES.items() if kind in ("int32", "int64")]
    for name in whole:
        check.all(getattr(made, name) >= 0, name, "an integer >= 0")
    sound = np.isfinite(made.gap_s) & (made.gap_s >= 0)
    check.all(sound, "gap_s", "seconds >= 0", rows=made.gap_iteration)
    check.all(made.gap_count >= 1, "gap_count", "an integer >= 1", rows=made.gap_iteration)


def _check_nulls(table: pa.Table, where: PathLike[str]) -> None:
    import pyarrow.compute as pc

    for name in table.column_names:
        column = table[name]
        inner = pc.list_flatten(column).null_count if type_name(column.type).startswith("list") else 0
        if column.null_count or inner:
            raise InputError(f"column {name!r} has missing values", where=where, expected="none")


def _ragged(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int64], Any]:
    import pyarrow.compute as pc

    counts = pc.list_value_length(table[name]).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return offsets, pc.list_flatten(table[name]).to_numpy()


class _Check:
    """Says of which row and column a wrong value is."""

    def __init__(self, where: PathLike[str]) -> None:
        self._where = where

    def all(self, right: Any, name: str, expected: str, *, rows: Any = None) -> None:
        if not right.all():
            wrong = int(np.flatnonzero(~right)[0])
            row = wrong if rows is None else int(rows[wrong])
            raise InputError("wrong value", where=f"{self._where}: row {row}, column {name!r}", expected=expected)

    def ascending(self, times: Any, name: str) -> None:
        if (np.diff(times) < 0).any():
            row = int(np.flatnonzero(np.diff(times) < 0)[0]) + 1
            raise InputError(f"{name} goes back at row {row}", where=self._where, expected="ascending times")

    def replica(self, replicas: Any, name: str, meta: RunMeta) -> None:
        expected = f"a replica from 0 to {meta.replicas - 1}"
        self.all((replicas >= 0) & (replicas < meta.replicas), name, expected)
