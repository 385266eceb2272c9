"""The columns of a table one at a time, from a parquet file or from tables in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.arrow_arrays import to_numpy
from traces.errors import InputError
from traces.run_schema import check_columns
from traces.workload import IntColumn

if TYPE_CHECKING:
    import pyarrow as pa


class ColumnSource(ABC):
    """Columns of numbers, and of lists of numbers, without missing values.

    Parameters
    ----------
    where
        What to call the table when something is wrong with it.
    types
        Of the columns by name, see :mod:`traces.run_schema`.
    """

    def __init__(self, where: Path, types: Mapping[str, str]) -> None:
        self.where, self.types = where, types

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def _parts(self, name: str) -> Iterator[pa.Array]:
        """Yield a column in parts."""

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """Return a column [rows]; InputError if a value is missing or the table cannot be read."""
        made, row = np.empty(len(self), self.types[name]), 0
        for part in self._whole_parts(name):
            made[row : row + len(part)] = to_numpy(part)
            row += len(part)
        return made

    def lists(self, name: str) -> tuple[IntColumn, npt.NDArray[Any]]:
        """Return a column of lists as offsets [rows + 1] and, end to end, values; InputError as above."""
        offsets, row = np.zeros(len(self) + 1, np.int64), 0
        values = [np.empty(0, self.types[name][5:-1])]
        for part in self._whole_parts(name):
            begin = to_numpy(part.offsets).astype(np.int64)
            offsets[row + 1 : row + len(begin)] = offsets[row] + begin[1:] - begin[0]
            row += len(begin) - 1
            inner = part.values[int(begin[0]) : int(begin[-1])]
            self._refuse_missing(inner, name)
            values.append(to_numpy(inner))
        return offsets, np.concatenate(values)

    def _whole_parts(self, name: str) -> Iterator[pa.Array]:
        for part in self._parts(name):
            self._refuse_missing(part, name)
            yield part

    def _refuse_missing(self, part: pa.Array, name: str) -> None:
        if part.null_count:
            raise InputError(f"column {name!r} has missing values", where=self.where, expected="none")


class TablesInMemory(ColumnSource):
    """The columns of tables one after the other."""

    def __init__(self, tables: Sequence[pa.RecordBatch], where: Path, types: Mapping[str, str]) -> None:
        super().__init__(where, types)
        self._tables = tables

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def _parts(self, name: str) -> Iterator[pa.Array]:
        for table in self._tables:
            yield table.column(name)


class ParquetFile(ColumnSource):
    """The columns of a file, which stays open as long as this.

    Raises
    ------
    InputError
        If it is no parquet file with exactly the columns ``types``.
    """

    def __init__(self, path: Path, types: dict[str, str]) -> None:
        from pyarrow import parquet

        super().__init__(path, types)
        with self._readable():
            self._file = parquet.ParquetFile(path)
        check_columns(self._file.schema_arrow, types, path)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def _parts(self, name: str) -> Iterator[pa.Array]:
        with self._readable():
            for group in range(self._file.num_row_groups):
                yield from self._file.read_row_group(group, columns=[name], use_threads=False).column(0).chunks

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except OSError as error:
            raise InputError("cannot read", where=self.where, expected="a parquet file") from error
        except pa.ArrowException as error:
            raise InputError("not a whole parquet file", where=self.where, expected="a parquet file") from error
