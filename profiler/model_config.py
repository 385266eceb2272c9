"""Reading a Hugging Face ``config.json``: which key means what in which family."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from profiler.model import DTYPE_BYTES, Model
from traces.errors import InputError

Config = Mapping[str, Any]
Place = str | PathLike[str]

MIXTURE_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size", "ffn_config")
STATE_SPACE_KEYS = ("ssm_cfg", "mamba_d_state", "state_size", "linear_num_value_heads", "rwkv_hidden_size")
ALIASES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "vocab": ("vocab_size",),
    "max_position": ("max_position_embeddings", "n_positions"),
}
BIASED: Mapping[str, Any] = {
    "qkv_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "norm": "layer",
    "gated": False,
}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gpt2": {**BIASED, "tied_embeddings": True},
    "gpt_neo": {**BIASED, "qkv_bias": False, "tied_embeddings": True},
    "gpt_neox": BIASED,
    "gptj": {**BIASED, "qkv_bias": False, "output_bias": False, "parallel_attention": True, "norms": 1},
    "opt": {**BIASED, "tied_embeddings": True},
    "phi": {**BIASED, "parallel_attention": True, "norms": 1},
    "starcoder2": {**BIASED, "tied_embeddings": True},
    "falcon": {"gated": False, "norm": "layer", "tied_embeddings": True},
    "gemma": {"tied_embeddings": True},
    "gemma2": {"tied_embeddings": True, "norms": 4},
    "gemma3_text": {"tied_embeddings": True, "norms": 4, "qk_norm": True},
    "cohere": {"tied_embeddings": True, "parallel_attention": True, "norms": 1},
    "cohere2": {"tied_embeddings": True, "parallel_attention": True, "norms": 1},
}
"""What differs from Llama, by ``model_type``; a family not listed is read as Llama's if it has its keys."""
LLAMA_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "rms_norm_eps",
)
GATED_ACTS = ("silu", "swish", "gelu", "gelu_pytorch_tanh")
FULL_LAYERS = ("gemma2", "gemma3_text", "cohere2")
"""Families of which some layers attend to all tokens, whatever the config says of a window."""
LEARNED_POSITIONS = {"gpt2": 0, "gpt_neo": 0, "opt": 2}
"""Rows that the table of position embeddings has beyond the longest context."""


def read_config(config: Config, *, name: str, where: Place) -> Model:
    """Return the model that ``config`` describes.

    Parameters
    ----------
    config
        A Hugging Face config, of a family in :data:`FAMILIES` or with the keys of Llama's.
    name, where
        What to call it; where it came from, for messages.

    Raises
    ------
    InputError
        For a key that is missing or of a wrong type, or a model that is not supported (and why).
    """
    _refuse_others(config, where)
    family = str(config.get("model_type", "llama")).lower()
    if family not in FAMILIES:
        _refuse_strangers(config, family, where)
    sizes = _sizes(config, family, where)
    traits = {**FAMILIES.get(family, {}), **_stated(config, family)}
    if family in LEARNED_POSITIONS:
        traits["learned_positions"] = sizes["max_position"] + LEARNED_POSITIONS[family]
    traits |= _attention(config, family, sizes, where)
    values: dict[str, Any] = {**sizes, **traits}
    return Model(name=name, family=family, dtype=_dtype(config, where), **values)


def _refuse_others(config: Config, where: Place) -> None:
    wish = "a dense decoder-only transformer"
    names = [str(entry) for entry in config.get("architectures") or ()]
    if config.get("is_encoder_decoder"):
        raise InputError("an encoder-decoder model: it has two KV caches a layer", where=where, expected=wish)
    if names and not any(entry.endswith(("ForCausalLM", "LMHeadModel", "HeadModel")) for entry in names):
        raise InputError(f"{names[0]} generates no tokens", where=where, expected=f"{wish} (...ForCausalLM)")
    for key in MIXTURE_KEYS:
        if config.get(key):
            what = f"a mixture of experts ({key}): which weights are read depends on the tokens"
            raise InputError(what, where=where, expected=wish)
    for key in STATE_SPACE_KEYS:
        if config.get(key):
            raise InputError(f"a state-space model ({key}): it keeps no KV cache", where=where, expected=wish)
    if config.get("kv_lora_rank"):
        raise InputError("multi-head latent attention: its KV cache is compressed", where=where, expected=wish)
    if config.get("quantization_config"):
        raise InputError("quantized weights: their kernels are not modelled", where=where, expected="16-bit weights")
    if config.get("text_config"):
        raise InputError("a multimodal model: images are no tokens", where=where, expected="its text_config alone")


def _refuse_strangers(config: Config, family: str, where: Place) -> None:
    """Refuse a family that is not listed and does not look like Llama: its keys would mean something else."""
    wish = f"one of {', '.join(FAMILIES)}, or a model with all keys of Llama's"
    missing = [key for key in LLAMA_KEYS if config.get(key) is None]
    if missing:
        raise InputError(f"unknown model_type {family!r} without {', '.join(missing)}", where=where, expected=wish)
    if config["hidden_act"] not in GATED_ACTS:
        what = f"unknown model_type {family!r} with hidden_act {config['hidden_act']!r}"
        raise InputError(what, where=where, expected=f"{wish} and a gated MLP")


def _sizes(config: Config, family: str, where: Place) -> dict[str, int]:
    wide = {"hidden": config.get("hidden_size", config.get("n_embd"))}
    sizes = {}
    for size, keys in ALIASES.items():
        given = [key for key in keys if config.get(key) is not None]
        if given:
            sizes[size] = _integer(config[given[0]], given[0], where)
        elif size == "intermediate" and family in ("gpt2", "gpt_neo", "gptj", "falcon"):
            sizes[size] = 4 * _integer(wide["hidden"], "hidden_size", where)
        elif size == "max_position" and family == "falcon":
            sizes[size] = 2048
        else:
            raise InputError(f"key {keys[0]!r} is missing", where=where, expected="a positive integer")
    if config.get("word_embed_proj_dim", sizes["hidden"]) != sizes["hidden"]:
        raise InputError("word_embed_proj_dim is not hidden_size", where=where, expected="the same width")
    return sizes


def _attention(config: Config, family: str, sizes: Mapping[str, int], where: Place) -> dict[str, Any]:
    heads = sizes["heads"]
    if config.get("head_dim") is not None:
        head_dim = _integer(config["head_dim"], "head_dim", where)
    elif sizes["hidden"] % heads:
        raise InputError(f"{heads} heads do not divide hidden_size {sizes['hidden']}", where=where)
    else:
        head_dim = sizes["hidden"] // heads
    kv_heads = _kv_heads(config, family, heads, where)
    if heads % kv_heads:
        raise InputError(f"{kv_heads} KV heads do not divide {heads} heads", where=where)
    return {"head_dim": head_dim, "kv_heads": kv_heads, "sliding_window": _window(config, family, where)}


def _kv_heads(config: Config, family: str, heads: int, where: Place) -> int:
    if family == "falcon":
        if config.get("new_decoder_architecture"):
            return _integer(config.get("num_kv_heads") or heads, "num_kv_heads", where)
        return 1 if config.get("multi_query", True) else heads
    value = config.get("num_key_value_heads")
    return heads if value is None else _integer(value, "num_key_value_heads", where)


def _window(config: Config, family: str, where: Place) -> int | None:
    """Return the window if every layer has it: one layer that keeps all its KV decides the memory."""
    window = config.get("sliding_window")
    mixed = any(kind != "sliding_attention" for kind in config.get("layer_types") or ())
    later_layers = config.get("use_sliding_window", True) and not config.get("max_window_layers")
    pattern = config.get("sliding_window_pattern") not in (None, 1)
    if window is None or mixed or pattern or not later_layers or family in FULL_LAYERS:
        return None
    return _integer(window, "sliding_window", where)


def _stated(config: Config, family: str) -> dict[str, Any]:
    """Return the traits that the config itself states."""
    keys: dict[str, tuple[str, ...]] = {
        "tie_word_embeddings": ("tied_embeddings",),
        "attention_bias": ("qkv_bias", "output_bias"),
        "mlp_bias": ("mlp_bias",),
        "enable_bias": ("qkv_bias", "output_bias", "mlp_bias"),
        "use_bias": ("qkv_bias", "output_bias", "mlp_bias"),
        "use_parallel_residual": ("parallel_attention",),
    }
    if family == "falcon":
        keys |= {"bias": ("qkv_bias", "output_bias", "mlp_bias"), "parallel_attn": ("parallel_attention",)}
    traits: dict[str, Any] = {name: bool(config[key]) for key, names in keys.items() if key in config for name in names}
    if family == "gpt_neox":
        traits.setdefault("parallel_attention", True)
    if family == "falcon":
        new = bool(config.get("new_decoder_architecture"))
        parallel = traits.setdefault("parallel_attention", True) or new
        traits |= {"parallel_attention": parallel, "norms": _falcon_norms(config, new, parallel)}
    return traits


def _falcon_norms(config: Config, new: bool, parallel: bool) -> int:
    if new:
        return int(config.get("num_ln_in_parallel_attn") or 2)
    return 1 if parallel else 2


def _dtype(config: Config, where: Place) -> str:
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise InputError(f"dtype is {dtype!r}", where=where, expected=f"one of {', '.join(DTYPE_BYTES)}")
    return dtype


def _integer(value: Any, key: str, where: Place) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"key {key!r} is {value!r}", where=where, expected="a positive integer")
    return value
