"""Tables of LLMServingSim's first release: CSV; layers in nanoseconds, attention in milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.importers.family import Family, Part, needed
from profiler.importers.layer_shape import LayerShape, layer_table
from profiler.profile import ops_table
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.importers.raw_table import RawTable
    from profiler.model import Model

DTYPE = "bfloat16"
PREFILL, DECODE = "time_stats.attn_prefill", "time_stats.attn_decode"
KINDS = {
    "embedding": "embedding",
    "input_layernorm": "input_layernorm",
    "post_layernorm": "post_attention_layernorm",
    "final_layernorm": "final_layernorm",
    "rope": "rope",
    "act_fn": "act",
    "q_proj": "q_proj",
    "k_proj": "k_proj",
    "v_proj": "v_proj",
    "o_proj": "o_proj",
    "gate_proj": "gate_proj",
    "up_proj": "up_proj",
    "down_proj": "down_proj",
    "lm_head": "lm_head",
}
"""The layers of ``layers.csv`` and what a profile calls them."""


def convert(kind: str, raw: RawTable, model: Model | None) -> Part:
    """Return the rows of one table."""
    return _layers(raw, needed(model, raw.path)) if kind == "layers" else _attention(raw)


def _layers(raw: RawTable, model: Model) -> Part:
    names, degrees = raw.texts("layer_name"), raw.integers("tp_size", minimum=1)
    tokens, time_s = raw.integers("input", minimum=1), raw.times("latency(ns)", "ns")
    tables: list[Any] = []
    for tp in np.unique(degrees):
        for name, kind in KINDS.items():
            rows = (names == name) & (degrees == tp)
            shape = LayerShape.of(model, kind, int(tp))
            tables.append(layer_table(shape, kind, DTYPE, tokens[rows], time_s[rows]))
    known = np.isin(names, [*KINDS, "attn"])
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        where, wish = raw.where("layer_name", row), ", ".join(KINDS)
        raise InputError(f"unknown layer {names[row]}", where=where, expected=wish)
    whole = int((names == "attn").sum())
    return Part(tables=tables, left_out={"attn: its contexts are not recorded": whole} if whole else {})


def _attention(raw: RawTable) -> Part:
    """Return attention rows; ``kv_cache_size`` of a prefill counts the chunk itself.

    That it does shows in the rows: it is never smaller than the chunk, and read as a past it would put the
    fastest of them at 98 % of the peak rate. A decode's is its context, itself included.
    """
    prefill = raw.flags("is_prefill")
    degree = raw.integers("num_tensor_parallel_workers", minimum=1)
    query = np.where(prefill, raw.integers("prefill_chunk_size"), 1)
    context = raw.integers("kv_cache_size", minimum=1)
    short = np.flatnonzero(context < query)
    if len(short):
        where = raw.where("kv_cache_size", int(short[0]))
        raise InputError(f"value is {context[short[0]]}", where=where, expected="at least the prefill_chunk_size")
    hidden, heads = raw.integers("n_embd", minimum=1), raw.integers("n_q_head", minimum=1)
    table = ops_table(
        len(raw),
        op=np.where(prefill, "prefill_attention", "decode_attention"),
        kind=np.char.lower(raw.texts("attention_backend")),
        dtype=DTYPE,
        sequences=raw.integers("batch_size", minimum=1),
        query_tokens=query,
        past_tokens=context - query,
        heads=heads // degree,
        kv_heads=np.maximum(1, raw.integers("n_kv_head", minimum=1) // degree),
        head_dim=hidden // heads,
        time_s=_either(raw, prefill, "median"),
        spread_s=_either(raw, prefill, "std"),
    )
    return Part(tables=[table])


def _either(raw: RawTable, prefill: Any, statistic: str) -> Any:
    at_prefill = raw.times(f"{PREFILL}.{statistic}", "ms", rows=prefill)
    return at_prefill + raw.times(f"{DECODE}.{statistic}", "ms", rows=~prefill)


LLMSERVINGSIM_V0 = Family(
    name="llmservingsim_v0",
    source="github.com/casys-kaist/LLMServingSim, first release, MIT",
    timed_by="single modules in eager mode, PyTorch profiler",
    kinds={
        "layers": frozenset({"layer_name", "input", "tp_size", "latency(ns)"}),
        "attention": frozenset(
            {
                *(f"{op}.{statistic}" for op in (PREFILL, DECODE) for statistic in ("median", "std")),
                *("n_embd", "n_q_head", "n_kv_head", "num_tensor_parallel_workers", "batch_size"),
                *("prefill_chunk_size", "kv_cache_size", "is_prefill", "attention_backend"),
            }
        ),
    },
    convert=convert,
)
