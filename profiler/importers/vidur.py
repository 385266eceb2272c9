"""Tables of microsoft/vidur: CSV, milliseconds with a resolution of a microsecond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.importers.family import Family, Part
from profiler.importers.layer_shape import LayerShape, layer_table
from profiler.model import Model
from profiler.profile import ops_table
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.importers.raw_table import Mask, RawTable

DTYPE = "float16"
KINDS = {
    "emb": "embedding",
    "input_layernorm": "input_layernorm",
    "attn_pre_proj": "qkv_proj",
    "attn_rope": "rope",
    "attn_post_proj": "o_proj",
    "post_attention_layernorm": "post_attention_layernorm",
    "mlp_up_proj": "gate_up_proj",
    "mlp_act": "act",
    "mlp_down_proj": "down_proj",
    "add": "add",
}
"""The ops of ``mlp.csv`` and what a profile calls them."""
SIZES = ("n_head", "n_kv_head", "n_embd", "n_expanded_embd", "vocab_size", "num_tensor_parallel_workers")
PREFILL, DECODE, SAVE = "time_stats.attn_prefill", "time_stats.attn_decode", "time_stats.attn_kv_cache_save"


def convert(kind: str, raw: RawTable, _model: Model | None) -> Part:
    """Return the rows of one table; every table states its sizes itself."""
    if kind == "mlp":
        return Part(tables=_layers(raw))
    if kind == "attention":
        return Part(tables=_attention(raw))
    return _network(raw, kind)


def _layers(raw: RawTable) -> list[Any]:
    sizes = np.stack([raw.integers(name, minimum=1) for name in SIZES], axis=1)
    gated, tokens = raw.flags("use_gated_mlp"), raw.integers("num_tokens", minimum=1)
    times = {name: raw.times(f"time_stats.{name}.median", "ms") for name in KINDS}
    spreads = {name: raw.times(f"time_stats.{name}.std", "ms") for name in KINDS}
    tables = []
    for shape in np.unique(np.column_stack([sizes, gated]), axis=0):
        rows = np.all(sizes == shape[:-1], axis=1) & (gated == shape[-1])
        model, tp = _measured_model(shape), int(shape[-2])
        for name, kind in KINDS.items():
            kind = kind if model.gated or kind != "gate_up_proj" else "up_proj"
            layer = LayerShape.of(model, kind, tp)
            tables.append(layer_table(layer, kind, DTYPE, tokens[rows], times[name][rows], spreads[name][rows]))
    return tables


def _measured_model(shape: Any) -> Model:
    heads, kv_heads, hidden, wide, vocab, _, gated = (int(value) for value in shape)
    return Model(
        name="the measured model",
        family="llama",
        layers=1,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate=wide,
        vocab=vocab,
        max_position=1,
        gated=bool(gated),
        dtype=DTYPE,
    )


def _attention(raw: RawTable) -> list[Any]:
    """Return attention rows, and the writes to the KV cache where they were timed.

    ``kv_cache_size`` is what each sequence has in the cache before the call.
    """
    prefill, degree = raw.flags("is_prefill"), raw.integers("num_tensor_parallel_workers", minimum=1)
    hidden, heads = raw.integers("n_embd", minimum=1), raw.integers("n_q_head", minimum=1)
    kv_heads = np.maximum(1, raw.integers("n_kv_head", minimum=1) // degree)
    sequences = raw.integers("batch_size", minimum=1)
    query = np.where(prefill, raw.integers("prefill_chunk_size"), 1)
    empty = np.flatnonzero(query < 1)
    if len(empty):
        where = raw.where("prefill_chunk_size", int(empty[0]))
        raise InputError("value is 0", where=where, expected="at least 1 for a prefill")
    attention = ops_table(
        len(raw),
        op=np.where(prefill, "prefill_attention", "decode_attention"),
        kind=np.char.replace(np.char.lower(raw.texts("attention_backend")), "attentionbackend.", ""),
        dtype=DTYPE,
        sequences=sequences,
        query_tokens=query,
        past_tokens=raw.integers("kv_cache_size"),
        heads=heads // degree,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        time_s=_either(raw, prefill, "median"),
        spread_s=_either(raw, prefill, "std"),
    )
    if f"{SAVE}.median" not in raw.columns:
        return [attention]
    elements = 2 * kv_heads * (hidden // heads)
    return [attention, _saves(raw, sequences * query, elements)]


def _saves(raw: RawTable, tokens: Any, elements: Any) -> Any:
    return ops_table(
        len(raw),
        op="elementwise",
        kind="kv_cache_save",
        dtype=DTYPE,
        m=tokens,
        n=elements,
        size_bytes=2 * 2 * tokens * elements,
        time_s=raw.times(f"{SAVE}.median", "ms"),
        spread_s=raw.times(f"{SAVE}.std", "ms"),
    )


def _either(raw: RawTable, prefill: Mask, statistic: str) -> Any:
    at_prefill = raw.times(f"{PREFILL}.{statistic}", "ms", rows=prefill)
    return at_prefill + raw.times(f"{DECODE}.{statistic}", "ms", rows=~prefill)


def _network(raw: RawTable, op: str) -> Part:
    """Return collectives inside a node; ``size`` is in bytes."""
    gpus, on_node = raw.integers("num_workers", minimum=2), raw.integers("devices_per_node", minimum=1)
    inside = on_node == gpus
    column = "all_reduce" if op == "all_reduce" else "send_recv"
    rows = {
        "gpus": gpus,
        "size_bytes": raw.integers("size", minimum=1),
        "time_s": raw.times(f"time_stats.{column}.median", "ms"),
        "spread_s": raw.times(f"time_stats.{column}.std", "ms"),
    }
    kept = {name: values[inside] for name, values in rows.items()}
    table = ops_table(int(inside.sum()), op=op, kind="nccl", dtype=DTYPE, **kept)
    between = int((~inside).sum())
    reason = f"{op} between nodes: a property of the cluster, not of the device"
    return Part(tables=[table], left_out={reason: between} if between else {})


VIDUR = Family(
    name="vidur",
    source="github.com/microsoft/vidur, MIT",
    timed_by="single kernels, PyTorch profiler, resolution 1 us",
    kinds={
        "mlp": frozenset(
            {
                *(f"time_stats.{name}.{statistic}" for name in KINDS for statistic in ("median", "std")),
                *SIZES,
                *("use_gated_mlp", "num_tokens"),
            }
        ),
        "attention": frozenset(
            {
                *(f"{op}.{statistic}" for op in (PREFILL, DECODE) for statistic in ("median", "std")),
                *(
                    "n_embd",
                    "n_q_head",
                    "n_kv_head",
                    "num_tensor_parallel_workers",
                    "batch_size",
                    "block_size",
                ),
                *("prefill_chunk_size", "kv_cache_size", "is_prefill", "attention_backend"),
            }
        ),
        "all_reduce": frozenset(
            {
                "time_stats.all_reduce.median",
                "time_stats.all_reduce.std",
                "num_workers",
                "size",
                "devices_per_node",
            }
        ),
        "send": frozenset(
            {
                "time_stats.send_recv.median",
                "time_stats.send_recv.std",
                "num_workers",
                "size",
                "devices_per_node",
            }
        ),
    },
    convert=convert,
)
