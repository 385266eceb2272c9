"""Model presets, Hugging Face configs, and what is counted from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.model import Linear, load_model, model_names, model_path
from traces.errors import InputError

PUBLISHED = {
    "falcon-180b": 180e9,
    "gpt3-175b": 175e9,
    "llama-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-33b": 32_528_943_616,
    "llama-60m": 58_073_600,
    "mistral-7b": 7_241_732_096,
    "qwen3-32b": 32_762_123_264,
    "yi-34b": 34_388_917_248,
}
"""Parameters: exact where the published weights were counted, a round figure from the paper otherwise."""
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 256,
    "torch_dtype": "float16",
}


def config(tmp_path: Path, document: dict[str, Any]) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    return path


def test_the_presets_are_the_models_of_the_papers_and_of_today() -> None:
    assert model_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    exact = PUBLISHED[name] % 1000 != 0 or name == "llama-60m"
    assert load_model(name).parameters() == pytest.approx(PUBLISHED[name], rel=0 if exact else 0.02)


def test_the_count_agrees_with_the_weights_that_transformers_makes() -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    for name in PUBLISHED:
        document = json.loads(model_path(name).read_text(encoding="utf-8"))
        with torch.device("meta"):
            made = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(document.pop("model_type"), **document)
            )
        assert load_model(name).parameters() == sum(weight.numel() for weight in made.parameters()), name


def test_llama_13b_has_the_shapes_of_its_paper() -> None:
    model = load_model("llama-13b")
    assert model.linears() == (
        Linear("qkv_proj", 3 * 5120, 5120),
        Linear("o_proj", 5120, 5120),
        Linear("gate_up_proj", 2 * 13824, 5120),
        Linear("down_proj", 5120, 13824),
    )
    assert model.kv_bytes_per_token() == 2 * 40 * 5120 * 2
    assert (model.sliding_window, load_model("mistral-7b").sliding_window) == (None, 4096)


def test_tensor_parallelism_splits_the_products_and_copies_kv_heads_that_are_too_few() -> None:
    model = load_model("llama-3.1-8b")
    assert model.linears(8)[0] == Linear("qkv_proj", (4 + 2) * 128, 4096)
    assert model.linears(16)[0] == Linear("qkv_proj", (2 + 2) * 128, 4096)
    assert model.kv_bytes_per_token(8) * 8 == model.kv_bytes_per_token()
    assert model.kv_bytes_per_token(16) == model.kv_bytes_per_token(8)


def test_an_all_reduce_follows_attention_and_mlp_or_both_at_once() -> None:
    assert load_model("llama-2-70b").all_reduces(4) == ("o_proj", "down_proj")
    assert load_model("falcon-180b").all_reduces(4) == ("down_proj",)
    assert load_model("falcon-180b").all_reduces(1) == ()


@pytest.mark.parametrize(
    ("name", "tp", "pp", "message"),
    [
        ("llama-33b", 8, 1, "--tensor-parallel-size: 8 does not divide the 52 query heads of llama-33b"),
        ("llama-3.1-8b", 0, 1, "--tensor-parallel-size"),
        ("llama-60m", 1, 9, "--pipeline-parallel-size: 9 stages; expected 1 to 8"),
    ],
)
def test_a_model_that_cannot_be_split_so_is_refused(name: str, tp: int, pp: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(name).weight_bytes(tp, pp)


def test_kv_heads_are_split_evenly_or_copied_whole(tmp_path: Path) -> None:
    path = config(tmp_path, LLAMA | {"hidden_size": 96, "num_attention_heads": 12, "num_key_value_heads": 4})
    with pytest.raises(InputError, match=r"4 KV heads of .* can neither be split nor copied over 3 GPUs"):
        load_model(path).linears(3)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(PUBLISHED)), pp=st.integers(1, 8))
def test_the_stages_share_all_layers_and_all_weights(name: str, pp: int) -> None:
    model = load_model(name)
    layers = [model.layers_on(pp, stage) for stage in range(pp)]
    assert sum(layers) == model.layers
    assert max(layers) - min(layers) <= 1
    total = sum(model.weight_bytes(1, pp, stage) for stage in range(pp))
    twice = model.vocab * model.hidden * model.dtype_bytes if model.tied_embeddings and pp > 1 else 0
    assert total == model.parameters() * model.dtype_bytes + twice


@settings(deadline=None)
@given(tp=st.sampled_from([1, 2, 4, 8]))
def test_gpus_share_all_weights_but_the_norms(tp: int) -> None:
    model = load_model("llama-3.1-70b")
    norms = (model.norms * model.layers + 1) * model.norm_parameters * model.dtype_bytes
    assert model.weight_bytes(tp) * tp == model.weight_bytes() + (tp - 1) * norms


def test_any_config_may_be_given_as_a_file_or_as_its_folder(tmp_path: Path) -> None:
    path = config(tmp_path, LLAMA)
    assert load_model(path) == load_model(tmp_path)
    model = load_model(str(path))
    assert (model.name, model.dtype, model.head_dim, model.kv_heads) == (tmp_path.name, "float16", 8, 2)


OPT = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "hidden_size": 64,
    "ffn_dim": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 1000,
    "max_position_embeddings": 128,
    "word_embed_proj_dim": 64,
}
GPT_NEOX = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 1000,
    "max_position_embeddings": 128,
}
GPT_NEO = {
    "architectures": ["GPTNeoForCausalLM"],
    "model_type": "gpt_neo",
    "hidden_size": 64,
    "intermediate_size": None,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 1000,
    "max_position_embeddings": 128,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 32,
}
QWEN2 = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}
COHERE2 = LLAMA | {"architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2"}
GEMMA3 = LLAMA | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "head_dim": 8}
FALCON = {
    "architectures": ["FalconForCausalLM"],
    "model_type": "falcon",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 1000,
    "multi_query": True,
    "parallel_attn": True,
    "bias": False,
}


@pytest.mark.parametrize(
    "document",
    [LLAMA, QWEN2, OPT, GPT_NEO, GPT_NEOX, FALCON, COHERE2, GEMMA3],
    ids=lambda document: str(document["model_type"]),
)
def test_families_count_as_transformers_counts(tmp_path: Path, document: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = load_model(config(tmp_path, document))
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
    assert model.parameters() == sum(weight.numel() for weight in made.parameters())


def test_a_layer_that_sees_everything_decides_the_window(tmp_path: Path) -> None:
    sliding = LLAMA | {"sliding_window": 32}
    assert load_model(config(tmp_path, sliding)).sliding_window == 32
    mixed = sliding | {"layer_types": ["sliding_attention"] * 4 + ["full_attention"]}
    assert load_model(config(tmp_path, mixed)).sliding_window is None
    pattern = sliding | {"sliding_window_pattern": 6}
    assert load_model(config(tmp_path, pattern)).sliding_window is None
    for family in ("gemma3_text", "cohere2"):
        assert load_model(config(tmp_path, sliding | {"model_type": family})).sliding_window is None
    off = sliding | {"use_sliding_window": False}
    assert load_model(config(tmp_path, off)).sliding_window is None


LIKE_LLAMA = LLAMA | {"model_type": "another", "hidden_act": "silu", "rms_norm_eps": 1e-5}
GPT_BIGCODE = {"model_type": "gpt_bigcode", "n_embd": 64, "n_head": 4, "n_layer": 3, "multi_query": True}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (GPT_BIGCODE | {"vocab_size": 1000, "n_positions": 128, "n_inner": 256}, "'gpt_bigcode' without hidden_size"),
        (LLAMA | {"model_type": "qwen", "no_bias": True}, "unknown model_type 'qwen' without hidden_act"),
        (LIKE_LLAMA | {"hidden_act": "relu2"}, "unknown model_type 'another' with hidden_act 'relu2'"),
    ],
)
def test_a_family_nobody_knows_is_not_guessed(tmp_path: Path, document: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_model(config(tmp_path, document))
    assert "\n" not in str(error.value)


def test_a_family_with_all_keys_of_llama_is_read_as_llama(tmp_path: Path) -> None:
    assert load_model(config(tmp_path, LIKE_LLAMA)).parameters() == load_model(config(tmp_path, LLAMA)).parameters()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_encoder_decoder": True}, "an encoder-decoder model"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM generates no tokens"),
        ({"num_local_experts": 8}, "a mixture of experts"),
        ({"kv_lora_rank": 512}, "multi-head latent attention"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
        ({"text_config": {"hidden_size": 64}}, "a multimodal model"),
        ({"mamba_d_state": 16}, "a state-space model"),
        ({"hidden_size": None}, "key 'hidden_size' is missing"),
        ({"hidden_size": 65}, "8 heads do not divide hidden_size 65"),
        ({"hidden_size": -64}, "key 'hidden_size' is -64"),
        ({"num_hidden_layers": 2.5}, "key 'num_hidden_layers' is 2.5"),
        ({"vocab_size": True}, "key 'vocab_size' is True"),
        ({"num_key_value_heads": 3}, "3 KV heads do not divide 8 heads"),
        ({"torch_dtype": "int8"}, "dtype is 'int8'"),
    ],
)
def test_a_model_that_is_not_supported_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_model(config(tmp_path, LLAMA | change))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"unknown model 'llama-9'; expected one of falcon-180b, .*yi-34b, or a"):
        load_model("llama-9")
