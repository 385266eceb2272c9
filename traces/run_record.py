"""Run records: the one format in which the simulator and the engine say what happened.

A folder with ``run.json`` (:class:`RunMeta`), ``requests.parquet`` (:class:`RequestColumns`) and
``iterations.parquet`` (:class:`IterationColumns`). Equal runs have equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from traces.column_source import ParquetFile, TablesInMemory
from traces.errors import InputError
from traces.files import read_json, whole_folder, write_json
from traces.run_columns import IterationColumns, RequestColumns, RunRecord
from traces.run_meta import SCHEMA_VERSION, ReplicaFailure, ReplicaGroup, RunMeta, read_meta
from traces.run_schema import ITERATION_TYPES, REQUEST_TYPES, arrow_schema, types_of
from traces.run_tables import iteration_batch, iteration_batches, request_table
from traces.settings import from_mapping
from traces.stored_iterations import StoredIterations
from traces.stored_requests import stored_requests

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "IterationColumns",
    "IterationRow",
    "ReplicaFailure",
    "ReplicaGroup",
    "RequestColumns",
    "RunMeta",
    "RunRecord",
    "RunRecorder",
    "RunWriter",
    "read_run",
    "write_run",
]

ROW_GROUP = 65_536
FILES = META, REQUESTS, ITERATIONS = "run.json", "requests.parquet", "iterations.parquet"


class IterationRow(NamedTuple):
    """One iteration, as :meth:`RunRecorder.iteration` takes it (a plain tuple in this order will do).

    The fields are those of :class:`IterationColumns`; ``gaps`` lists (gap_s, gap_count), the TBT samples that
    end with this iteration, as a policy's ``Completion.gaps`` has them.
    """

    iteration: int
    replica: int
    start_s: float
    end_s: float
    stage_start_s: Sequence[float]
    stage_time_s: Sequence[float]
    prefill_tokens: int
    chunks: int
    decodes: int
    outputs: int
    decode_context_sum: int
    decode_context_max: int
    prefill_context_sum: int
    waiting: int
    running: int
    blocks_used: int
    preemptions: int
    flops: float
    outside: int
    gaps: Sequence[tuple[float, int]]


class RunRecorder:
    """Keeps a run in memory while it happens.

    Call :meth:`iteration` for each iteration as it ends, then :meth:`requests` and :meth:`meta` once, then
    :meth:`record`.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []
        self._requests: pa.RecordBatch | None = None
        self._meta: RunMeta | None = None

    def iteration(self, row: IterationRow | tuple[Any, ...]) -> None:
        """Take one iteration: an :class:`IterationRow`, or a tuple of the same fields (cheaper)."""
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def table(self, iterations: pa.RecordBatch) -> None:
        """Take iterations as a table, see :class:`traces.iteration_log.IterationLog`; not beside :meth:`iteration`."""
        self._take(iterations)

    def requests(self, columns: Mapping[str, npt.ArrayLike]) -> None:
        """Take all requests, in order of arrival: the columns of :class:`RequestColumns` by name."""
        self._requests = request_table(columns)

    def meta(self, document: Mapping[str, Any]) -> None:
        """Take what was run: the keys of :class:`RunMeta` (``schema_version`` may be left out).

        Raises
        ------
        InputError
            If a key is missing, unknown or of the wrong type.
        """
        self._meta = from_mapping(RunMeta, {"schema_version": SCHEMA_VERSION, **document}, where=META)

    def record(self) -> RunRecord:
        """Return the run.

        Raises
        ------
        InputError
            If a value cannot be, as in :func:`read_run`.
        """
        self._flush()
        requests, meta = self._complete()
        iterations = TablesInMemory(tuple(self._batches), Path(ITERATIONS), ITERATION_TYPES)
        return RunRecord(
            meta=meta,
            requests=stored_requests(TablesInMemory([requests], Path(REQUESTS), REQUEST_TYPES), meta),
            iterations=StoredIterations(iterations, meta),
        )

    def _complete(self) -> tuple[pa.RecordBatch, RunMeta]:
        if self._requests is None or self._meta is None:
            raise ValueError("a run record needs its requests and its meta")
        return self._requests, self._meta

    def _flush(self) -> None:
        if self._rows:
            self._take(iteration_batch(self._rows))
            self._rows.clear()

    def _take(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)


class RunWriter(RunRecorder):
    """Writes a run record to a folder while the run happens, 65,536 iterations at a time.

    A context manager: the folder is there, whole, when the block ends well, and not at all otherwise.

    Parameters
    ----------
    path
        The folder. An existing run record is replaced; anything else is left alone.

    Raises
    ------
    InputError
        On entry, if ``path`` cannot be written or is something else.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__()
        self._context: AbstractContextManager[RunWriter] = self._open(path)

    def __enter__(self) -> RunWriter:
        return self._context.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._context.__exit__(kind, error, traceback)

    def record(self) -> RunRecord:
        """Not kept in memory: use :func:`read_run` once the folder is written."""
        raise TypeError("a RunWriter keeps nothing in memory; read_run(path) gives the record")

    @contextmanager
    def _open(self, path: str | PathLike[str]) -> Iterator[RunWriter]:
        with whole_folder(path, marker=META, is_ours=lambda entry: entry.name in FILES) as folder:
            with _parquet_writer(folder / ITERATIONS, ITERATION_TYPES) as self._parquet:
                yield self
                self._flush()
            requests, meta = self._complete()
            with _parquet_writer(folder / REQUESTS, REQUEST_TYPES) as parquet:
                parquet.write_batch(requests, row_group_size=ROW_GROUP)
            write_json(folder / META, meta.as_dict())

    def _take(self, batch: pa.RecordBatch) -> None:
        self._parquet.write_batch(batch)


def write_run(path: str | PathLike[str], run: RunRecord) -> Path:
    """Write a run that is in memory, byte for byte as a :class:`RunWriter` would have written it."""
    with RunWriter(path) as writer:
        for batch in iteration_batches(run.iterations, ROW_GROUP):
            writer._take(batch)
        writer.requests({name: getattr(run.requests, name) for name in REQUEST_TYPES})
        writer.meta(run.meta.as_dict())
    return Path(path)


def read_run(path: str | PathLike[str]) -> RunRecord:
    """Read a run record; one of an older version becomes one of this.

    The columns of its iterations are read when they are asked for (:class:`traces.stored_iterations.StoredIterations`),
    from a file that stays open, so that a long run fits into memory.

    Raises
    ------
    InputError
        If ``path`` is no run record of a readable schema version, a column is missing, unknown or of another type,
        or a value cannot be (with file, row and column; of iterations, when the column is asked for).
    """
    folder = Path(path)
    if not (folder / META).is_file():
        raise InputError("no run record", where=folder, expected=f"a folder with {META}")
    document = read_json(folder / META)
    meta = read_meta(document, folder / META)
    version = document["schema_version"]
    requests = ParquetFile(folder / REQUESTS, types_of(version, REQUEST_TYPES))
    iterations = ParquetFile(folder / ITERATIONS, types_of(version, ITERATION_TYPES))
    return RunRecord(meta=meta, requests=stored_requests(requests, meta), iterations=StoredIterations(iterations, meta))


def _parquet_writer(path: Path, types: dict[str, str]) -> Any:
    from pyarrow import parquet

    deltas = {name: "DELTA_BINARY_PACKED" for name, kind in types.items() if kind in ("int32", "int64")}
    return parquet.ParquetWriter(
        path, arrow_schema(types), compression="zstd", use_dictionary=False, column_encoding=deltas
    )
