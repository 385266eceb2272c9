"""Tables of LLMServingSim's current release, measured under vLLM: CSV, microseconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.importers.family import Family, Part, degree_of, needed
from profiler.importers.layer_shape import LayerShape, layer_table
from profiler.importers.raw_file import read_bytes
from profiler.profile import ops_table
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.importers.raw_table import RawTable
    from profiler.model import Model

DTYPE = "bfloat16"
KINDS = {
    "embedding": "embedding",
    "layernorm": "fused_add_norm",
    "final_layernorm": "fused_add_final_norm",
    "rotary_emb": "rope",
    "act_fn": "act",
    "qkv_proj": "qkv_proj",
    "o_proj": "o_proj",
    "gate_up_proj": "gate_up_proj",
    "down_proj": "down_proj",
    "lm_head": "lm_head",
    "sampler": "sampler",
}
"""The layers of ``dense.csv`` and ``per_sequence.csv`` and what a profile calls them."""
SKEW = "skew: unequal contexts are modelled by a rule, and these times count several calls"
"""``skew.csv``: batches of decodes of two contexts, beside the same at their mean. Its times are three of those that
``attention.csv`` of the same GPU holds (a median of 2.98 to 3.01 times, on both published GPUs), which no column says;
they serve to check the rule in :class:`profiler.decode_time.DecodeAttention` by the ratio of the two."""
META_FILES = ("meta.yaml", "meta.yaml.gz")
OVERRIDES = {
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "intermediate",
    "vocab_size": "vocab",
}


def convert(kind: str, raw: RawTable, model: Model | None) -> Part:
    """Return the rows of one table; a folder ``tpN`` names the degree whose share was measured."""
    if kind == "skew":
        return Part(left_out={SKEW: len(raw)})
    model, tp = needed(model, raw.path), degree_of(raw.path)
    meta = _meta(raw.path)
    _check_shape(meta, model, raw.path)
    tables = [_attention(raw, model, tp)] if kind == "attention" else _layers(raw, kind, model, tp)
    versions = {"vllm": _text(meta, "vllm_version"), "cuda": _text(meta, "cuda_version")}
    return Part(
        tables=tables,
        device_name=_text(meta, "gpu"),
        versions={name: version for name, version in versions.items() if version},
    )


def _layers(raw: RawTable, kind: str, model: Model, tp: int) -> list[Any]:
    names, time_s = raw.texts("layer"), raw.times("time_us", "us")
    tokens = raw.integers("tokens" if kind == "dense" else "sequences", minimum=1)
    unknown = np.flatnonzero(~np.isin(names, list(KINDS)))
    if len(unknown):
        where, wish = raw.where("layer", int(unknown[0])), ", ".join(KINDS)
        raise InputError(f"unknown layer {names[unknown[0]]}", where=where, expected=wish)
    tables = []
    for name in np.unique(names):
        rows, layer = names == name, KINDS[str(name)]
        tables.append(layer_table(LayerShape.of(model, layer, tp), layer, DTYPE, tokens[rows], time_s[rows]))
    return tables


def _attention(raw: RawTable, model: Model, tp: int) -> Any:
    chunk, past = raw.integers("prefill_chunk"), raw.integers("kv_prefill")
    decodes, context = raw.integers("n_decode"), raw.integers("kv_decode")
    idle = np.flatnonzero((chunk == 0) & (decodes == 0))
    if len(idle):
        wish = "a chunk or decodes"
        raise InputError("value is 0", where=raw.where("prefill_chunk", int(idle[0])), expected=wish)
    heads, kv_heads = model.heads_on(tp)
    only_decodes, mixed = chunk == 0, (chunk > 0) & (decodes > 0)
    op = np.where(only_decodes, "decode_attention", np.where(mixed, "mixed_attention", "prefill_attention"))
    return ops_table(
        len(raw),
        op=op,
        kind="vllm",
        dtype=DTYPE,
        sequences=np.where(only_decodes, decodes, 1),
        query_tokens=np.where(only_decodes, 1, chunk),
        past_tokens=np.where(only_decodes, np.maximum(context - 1, 0), past),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=model.head_dim,
        decodes=np.where(mixed, decodes, 0),
        decode_context=np.where(mixed, context, 0),
        time_s=raw.times("time_us", "us"),
    )


def _text(meta: dict[str, Any], key: str) -> str:
    value = meta.get(key)
    return str(value) if isinstance(value, str | int | float) else ""


def _meta(path: Path) -> dict[str, Any]:
    """Return what ``meta.yaml`` beside or above a table says, or nothing."""
    import yaml

    for folder in path.resolve().parents[:2]:
        for name in META_FILES:
            if (folder / name).is_file():
                try:
                    document = yaml.safe_load(read_bytes(folder / name))
                except (yaml.YAMLError, UnicodeDecodeError) as error:
                    what = f"not YAML: {str(error).splitlines()[0]}"
                    raise InputError(what, where=folder / name) from error
                return document if isinstance(document, dict) else {}
    return {}


def _check_shape(meta: dict[str, Any], model: Model, path: Path) -> None:
    """Refuse tables of another model: the sizes they ran with must be a share of this one's.

    ``hf_overrides`` holds the sizes of the last degree that was measured, divided by it.
    """
    effective = meta.get("engine_effective")
    overrides = effective.get("hf_overrides") if isinstance(effective, dict) else None
    degrees = meta.get("tp_degrees", [1])
    if not isinstance(overrides, dict):
        return
    if not isinstance(degrees, list) or not all(isinstance(tp, int) and tp > 0 for tp in degrees):
        raise InputError("tp_degrees is no list of integers >= 1", where=path.parent, expected="a sound meta.yaml")
    for key, name in OVERRIDES.items():
        whole = getattr(model, name)
        shares = {max(1, whole // tp) for tp in degrees}
        if key in overrides and overrides[key] not in shares:
            wish = f"the share of {model.name} at TP {', '.join(map(str, degrees))}"
            raise InputError(f"was measured with {key} {overrides[key]}", where=path, expected=wish)


LLMSERVINGSIM = Family(
    name="llmservingsim",
    source="github.com/casys-kaist/LLMServingSim, MIT",
    timed_by="layers inside vLLM, CUDA events",
    kinds={
        "dense": frozenset({"layer", "tokens", "time_us"}),
        "per_sequence": frozenset({"layer", "sequences", "time_us"}),
        "attention": frozenset({"prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"}),
        "skew": frozenset({"regime", "skew", "kv_big", "t_skew_us", "alpha"}),
    },
    convert=convert,
)
