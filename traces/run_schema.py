"""The tables of a run record: their columns and types."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from traces.arrow_arrays import arrow_type
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

REQUEST_TYPES = {
    "request_id": "int64",
    "replica": "int32",
    "arrival_s": "float64",
    "scheduled_s": "float64",
    "first_token_s": "float64",
    "finished_s": "float64",
    "prompt_tokens": "int64",
    "output_tokens": "int64",
    "generated_tokens": "int64",
    "cached_tokens": "int64",
    "preemptions": "int32",
    "decode_replica": "int32",
    "transfer_s": "float64",
    "restarts": "int32",
    "bubble_s": "float64",
}
ITERATION_TYPES = {
    "iteration": "int64",
    "replica": "int32",
    "start_s": "float64",
    "end_s": "float64",
    "stage_start_s": "list<float64>",
    "stage_time_s": "list<float64>",
    "prefill_tokens": "int32",
    "chunks": "int32",
    "decodes": "int32",
    "outputs": "int32",
    "decode_context_sum": "int64",
    "decode_context_max": "int64",
    "prefill_context_sum": "int64",
    "waiting": "int32",
    "running": "int32",
    "blocks_used": "int32",
    "preemptions": "int32",
    "flops": "float64",
    "outside": "int32",
    "gap_s": "list<float64>",
    "gap_count": "list<int32>",
}
ADDED = {"outside": 2, "decode_replica": 3, "transfer_s": 3, "restarts": 3, "bubble_s": 3}
"""Column -> the schema version since which it is there."""


def types_of(version: int, types: dict[str, str]) -> dict[str, str]:
    """Return those of ``types`` that a schema version has."""
    return {name: kind for name, kind in types.items() if ADDED.get(name, 1) <= version}


def arrow_schema(types: dict[str, str]) -> pa.Schema:
    """Return the arrow schema with the columns ``types``; none of them holds nulls."""
    import pyarrow as pa

    return pa.schema([pa.field(name, arrow_type(kind), nullable=False) for name, kind in types.items()])


def check_columns(schema: pa.Schema, types: dict[str, str], where: PathLike[str]) -> None:
    """Refuse a table whose columns are not those of ``types``, in any order."""
    problems = (
        ("missing", set(types) - set(schema.names)),
        ("unknown", set(schema.names) - set(types)),
        ("repeated", {name for name in types if schema.names.count(name) > 1}),
    )
    for problem, names in problems:
        if names:
            expected = f"the columns {', '.join(types)}"
            raise InputError(f"{problem} column {min(names)!r}", where=where, expected=expected)
    for name, kind in types.items():
        if type_name(schema.field(name).type) != kind:
            what = f"column {name!r} is {schema.field(name).type}"
            raise InputError(what, where=where, expected=kind)


def type_name(kind: Any) -> str:
    """Return what :func:`arrow_type` calls an arrow type."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return {"double": "float64"}.get(str(kind), str(kind))
