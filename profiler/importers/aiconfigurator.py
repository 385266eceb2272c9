"""Tables of ai-dynamo/aiconfigurator: parquet, milliseconds, one folder a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from profiler.importers.family import Family, Part
from profiler.model import DTYPE_BYTES
from profiler.profile import ops_table
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.importers.raw_table import Mask, RawTable
    from profiler.model import Model

ATTENTION = {
    "batch_size",
    "isl",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "step",
    "attn_dtype",
    "kv_cache_dtype",
}
DTYPES = {"bfloat16": "bfloat16", "float16": "float16", "half": "float16"}
REUSE = "reuse.yaml"


def convert(kind: str, raw: RawTable, _model: Model | None) -> Part:
    """Return the 16-bit rows of one table; ``latency`` is in ms, ``message_size`` in elements."""
    convert_kind = {
        "gemm": _gemm,
        "attention": _attention,
        "nccl": _collective,
        "custom_all_reduce": _collective,
    }
    tables, left_out = convert_kind[kind](raw)
    names = {"framework": "", "version": ""}
    for column in names:
        if column in raw.columns:
            names[column] = ", ".join(sorted(set(raw.texts(column))))
    device_name = raw.only("device") if "device" in raw.columns else ""
    library = "nccl" if kind == "nccl" else names["framework"].lower()
    versions = {library: names["version"] or raw.path.parent.name} if library else {}
    return Part(tables=tables, left_out=left_out, device_name=device_name, versions=versions)


def _gemm(raw: RawTable) -> tuple[list[Any], dict[str, int]]:
    wanted, left_out = _sixteen_bit(raw, "gemm_dtype", "gemm")
    sizes = {name: raw.integers(name, minimum=1)[wanted] for name in ("m", "n", "k")}
    time_s = raw.times("latency", "ms")[wanted]
    kernel = raw.texts("kernel_source")[wanted] if "kernel_source" in raw.columns else "gemm"
    dtype = _dtypes(raw, "gemm_dtype", wanted)
    return [ops_table(len(time_s), op="gemm", kind=kernel, dtype=dtype, time_s=time_s, **sizes)], left_out


def _attention(raw: RawTable) -> tuple[list[Any], dict[str, int]]:
    decode = raw.texts("op_name") == "generation_attention"
    op = np.where(decode, "decode_attention", "prefill_attention")
    wanted, left_out = _sixteen_bit(raw, "attn_dtype", str(op[0]))
    wanted, more = _sixteen_bit(raw, "kv_cache_dtype", f"{op[0]}: KV cache", wanted)
    left_out |= more
    if "window_size" in raw.columns:
        wanted, count = _without(wanted, raw.integers("window_size") > 0)
        left_out |= {f"{op[0]}: sliding window": count} if count else {}
    query, step = raw.integers("isl", minimum=1), raw.integers("step")
    time_s = raw.times("latency", "ms")
    columns = {
        "op": op,
        "kind": raw.texts("kernel_source"),
        "sequences": raw.integers("batch_size", minimum=1),
        "query_tokens": query,
        "past_tokens": np.where(decode, query + step - 1, step),
        "heads": raw.integers("num_heads", minimum=1),
        "kv_heads": raw.integers("num_key_value_heads", minimum=1),
        "head_dim": raw.integers("head_dim", minimum=1),
        "time_s": time_s,
    }
    columns["query_tokens"] = np.where(decode, 1, query)
    rows = {name: values[wanted] for name, values in columns.items()}
    return [ops_table(int(wanted.sum()), dtype=_dtypes(raw, "attn_dtype", wanted), **rows)], left_out


def _collective(raw: RawTable) -> tuple[list[Any], dict[str, int]]:
    column = "nccl_dtype" if "nccl_dtype" in raw.columns else "allreduce_dtype"
    names = raw.texts("op_name")
    others = {str(name): int((names == name).sum()) for name in np.unique(names) if name != "all_reduce"}
    left_out = {f"{name}: not an op of tensor parallelism": count for name, count in others.items()}
    wanted, more = _sixteen_bit(raw, column, "all_reduce", names == "all_reduce")
    kernel = raw.texts("kernel_source")
    kinds = np.where(kernel == "vLLM_custom_graph", "custom_all_reduce", "nccl")
    wanted, eager = _without(wanted, kernel == "vLLM_custom_eager")
    left_out |= more | ({"all_reduce: eager, with the launch from Python": eager} if eager else {})
    dtype = _dtypes(raw, column, wanted)
    width = np.asarray([DTYPE_BYTES[name] for name in dtype], dtype=np.int64)
    table = ops_table(
        len(dtype),
        op="all_reduce",
        kind=kinds[wanted],
        dtype=dtype,
        gpus=raw.integers("num_gpus", minimum=2)[wanted],
        size_bytes=raw.integers("message_size", minimum=1)[wanted] * width,
        time_s=raw.times("latency", "ms")[wanted],
    )
    return [table], left_out


def _dtypes(raw: RawTable, column: str, wanted: Mask) -> npt.NDArray[Any]:
    return np.asarray([DTYPES[name] for name in raw.texts(column)[wanted]], dtype=np.str_)


def _sixteen_bit(raw: RawTable, column: str, label: str, among: Mask | None = None) -> tuple[Mask, dict[str, int]]:
    """Return which rows are 16-bit, and how many others there are of each dtype."""
    names = raw.texts(column)
    rows = np.ones(len(raw), dtype=np.bool_) if among is None else among
    wanted = rows & np.isin(names, list(DTYPES))
    left = names[rows & ~wanted]
    left_out = {f"{label} dtype {name}": int((left == name).sum()) for name in np.unique(left)}
    return wanted, left_out


def _without(wanted: Mask, unwanted: Mask) -> tuple[Mask, int]:
    return wanted & ~unwanted, int((wanted & unwanted).sum())


def choose(paths: Sequence[Path]) -> tuple[Sequence[Path], Mapping[str, str]]:
    """Take the newest version of each table; ``reuse.yaml`` of a newer one may point back to it.

    Raises
    ------
    InputError
        If a ``reuse.yaml`` points to a version that is not there.
    """
    tables: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        tables.setdefault((path.parent.parent, path.name), []).append(path)
    chosen: list[Path] = []
    others: dict[str, str] = {}
    for (folder, name), found in tables.items():
        best = folder / _version(folder, name, [path.parent.name for path in found]) / name
        if best not in found:
            raise InputError(f"{REUSE} points to it, and it is not there", where=best)
        chosen.append(best)
        others |= {str(path): f"superseded by version {best.parent.name}" for path in found if path != best}
    return chosen, others


def _version(folder: Path, name: str, versions: Sequence[str]) -> str:
    newest = max(versions, key=_version_key)
    for entry in folder.glob(f"*/{REUSE}"):
        source = _reused(entry, name.removesuffix(".parquet"))
        if source is not None and _version_key(entry.parent.name) > _version_key(newest):
            newest = source
    return newest


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _reused(path: Path, table: str) -> str | None:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = {entry["table"]: str(entry["from_version"]) for entry in document["reuse"]}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        wish = "reuse: a list of table and from_version"
        raise InputError(f"cannot read: {str(error).splitlines()[0]}", where=path, expected=wish) from error
    return entries.get(table)


AICONFIGURATOR = Family(
    name="aiconfigurator",
    source="github.com/ai-dynamo/aiconfigurator, Apache-2.0",
    timed_by="single kernels in CUDA graphs, without launch gaps",
    kinds={
        "gemm": frozenset({"gemm_dtype", "m", "n", "k", "latency"}),
        "attention": frozenset({"op_name", "kernel_source", "latency", *ATTENTION}),
        "nccl": frozenset({"op_name", "kernel_source", "nccl_dtype", "num_gpus", "message_size", "latency"}),
        "custom_all_reduce": frozenset(
            {"op_name", "kernel_source", "allreduce_dtype", "num_gpus", "message_size", "latency"}
        ),
    },
    convert=convert,
    choose=choose,
)
