"""Profile files: measured op times of one device, a folder with ``profile.json`` and ``ops.parquet``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traces.errors import InputError
from traces.files import read_json, whole_folder, write_json
from traces.settings import from_mapping

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
META_FILE = "profile.json"
OPS_FILE = "ops.parquet"
OPS = (
    "gemm",
    "prefill_attention",
    "decode_attention",
    "mixed_attention",
    "elementwise",
    "all_reduce",
    "send",
    "overhead",
    "iteration",
)
TEXT_COLUMNS = ("op", "kind", "dtype")
SHAPE_COLUMNS = (
    "m",
    "n",
    "k",
    "sequences",
    "query_tokens",
    "past_tokens",
    "heads",
    "kv_heads",
    "head_dim",
    "decodes",
    "decode_context",
    "gpus",
    "size_bytes",
)
TIME_COLUMNS = ("time_s", "spread_s")
COUNT_COLUMN = "count"
WHY_COLUMN = "why"
COLUMNS = (*TEXT_COLUMNS, *SHAPE_COLUMNS, *TIME_COLUMNS, COUNT_COLUMN, WHY_COLUMN)
MOST_ROWS = 5_000_000


@dataclass(frozen=True, kw_only=True)
class Meta:
    """The keys of ``profile.json``.

    Attributes
    ----------
    device, device_name
        The device preset, and the device as its driver calls it.
    model, sizes
        The model whose shapes were measured, None for a general grid; the fields of its
        :class:`profiler.model.Model`, where it was measured here.
    driver, clocks, versions
        What the measurements depend on beside the device: driver, clock rates, library versions.
    timed_by, source
        How the times were taken; where they come from (address, commit, licence) or ``measured here``.
    rows
        Rows of ``ops.parquet``.
    refused
        Rows that were left out, by reason.
    plan
        How a machine measured here was measured: the rounds of :class:`profiler.plan.MeasuringPlan`.
    ceilings
        What no row may beat: the keys of :class:`profiler.lint.Roofline`; for a measured machine also what it
        reached (``measured_...``) and its ``memory_bytes``.
    """

    schema_version: int = SCHEMA_VERSION
    device: str
    device_name: str
    model: str | None = None
    sizes: dict[str, Any] = field(default_factory=dict)
    dtype: str
    driver: str = ""
    clocks: str = ""
    versions: dict[str, Any] = field(default_factory=dict)
    timed_by: str
    source: str
    rows: int = 0
    refused: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {self.schema_version}; this version reads {SCHEMA_VERSION}")
        for name, count in self.refused.items():
            if not isinstance(count, int):
                raise ValueError(f"refused {name!r} is {count!r}; expected how many rows")
        for name, rate in self.ceilings.items():
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
                raise ValueError(f"ceiling {name!r} is {rate!r}; expected a number > 0")


@dataclass(frozen=True)
class Profile:
    """Measured op times of one device.

    Attributes
    ----------
    meta
        The keys of :class:`Meta`.
    table
        One row per op and shape, with :data:`COLUMNS` in that order. A row is one kernel call on one GPU;
        columns that do not apply hold 0 or "". ``past_tokens`` are in the KV cache before the call, for each
        of ``sequences``; a decode has ``query_tokens`` 1 and attends to ``past_tokens + 1``. ``m`` is tokens.
        ``size_bytes`` is each rank's buffer of a collective, or what an elementwise op reads and writes.
        ``spread_s`` is NaN and ``count`` 0 where unknown. ``why`` says of a row measured here why it was chosen
        (:mod:`profiler.plan`); files without the column are read too.
    """

    meta: Mapping[str, Any]
    table: pa.Table


def schema() -> pa.Schema:
    """Return the schema of ``ops.parquet``."""
    import pyarrow as pa

    kinds = dict.fromkeys((*TEXT_COLUMNS, WHY_COLUMN), pa.string()) | dict.fromkeys(TIME_COLUMNS, pa.float64())
    return pa.schema([(name, kinds.get(name, pa.int64())) for name in COLUMNS])


def ops_table(rows: int, **columns: Any) -> pa.Table:
    """Return a table of ``rows`` rows; a scalar fills its column, a column not given holds 0, "" or NaN.

    Parameters
    ----------
    columns
        Arrays of length ``rows``, or scalars, by the names of :data:`COLUMNS`; ``op`` and ``time_s`` at
        least.
    """
    import numpy as np
    import pyarrow as pa

    defaults = dict.fromkeys((*TEXT_COLUMNS, WHY_COLUMN), "") | {"spread_s": math.nan}
    filled = []
    for name, kind in zip(COLUMNS, schema().types, strict=True):
        values = columns.pop(name, defaults.get(name, 0))
        if np.isscalar(values):
            filled.append(pa.repeat(pa.scalar(values, kind), rows))
        else:
            filled.append(pa.array(np.asarray(values), type=kind, from_pandas=False))
    if columns:
        raise TypeError(f"no such column: {', '.join(columns)}")
    return pa.Table.from_arrays(filled, schema=schema())


@contextmanager
def profile_folder(path: str | PathLike[str]) -> Iterator[Callable[[Profile], None]]:
    """Yield a function that writes a profile, which becomes the folder ``path`` when the block ends well.

    To be opened before a long measurement, so that a path that cannot be written is known at once.

    Raises
    ------
    InputError
        If ``path`` exists and holds something else, or cannot be written.
    """
    with whole_folder(path, marker=META_FILE) as folder:
        yield partial(_write, folder)


def write_profile(path: str | PathLike[str], profile: Profile) -> None:
    """Write ``profile`` to the folder ``path``, whole or not at all.

    Raises
    ------
    InputError
        If ``path`` exists and holds something else, or cannot be written.
    """
    with profile_folder(path) as write:
        write(profile)


def _write(folder: Path, profile: Profile) -> None:
    import pyarrow.parquet as pq

    write_json(folder / META_FILE, {**profile.meta, "rows": profile.table.num_rows})
    pq.write_table(profile.table, folder / OPS_FILE, compression="zstd")


def read_profile(path: str | PathLike[str], *, check: bool = True) -> Profile:
    """Read the folder ``path`` that :func:`write_profile` wrote.

    Parameters
    ----------
    check
        Refuse a profile of a known device with rows that beat its roofline (:mod:`profiler.lint`).

    Raises
    ------
    InputError
        If files, keys, columns or values are not as they should be, or rows beat the roofline.
    """
    from profiler.profile_check import check_rows

    folder = Path(path)
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, expected=f"a profile: {META_FILE} and {OPS_FILE}")
    meta = from_mapping(Meta, read_json(folder / META_FILE), where=folder / META_FILE)
    table = _read_ops(folder / OPS_FILE, meta.rows)
    check_rows(table, meta, where=folder / OPS_FILE, roofline=check)
    return Profile(dataclasses.asdict(meta), table)


def _read_ops(path: Path, rows: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows != min(rows, MOST_ROWS):
                what, wish = f"{file.metadata.num_rows} rows", f"{rows}, as in {META_FILE}, and at most {MOST_ROWS:,}"
                raise InputError(what, where=path, expected=wish)
            table = file.read()
    except FileNotFoundError as error:
        raise InputError("no such file", where=path, expected="a parquet file") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read: {str(error).splitlines()[0]}", where=path, expected="a parquet file") from error
    if WHY_COLUMN not in table.column_names:
        table = table.append_column(WHY_COLUMN, pa.repeat("", table.num_rows))
    for column in schema():
        if table.column_names.count(column.name) != 1:
            problem = "is missing" if column.name not in table.column_names else "is there twice"
            raise InputError(f"column {column.name!r} {problem}", where=path)
        if table.schema.field(column.name).type != column.type:
            kind = table.schema.field(column.name).type
            raise InputError(f"is {kind}", where=f"{path}, column {column.name!r}", expected=str(column.type))
    return table.select(COLUMNS)
