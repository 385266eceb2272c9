"""Weights from files, weights drawn, and files that are wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from engine.engine import Engine  # noqa: E402
from engine.kv_layout import kv_layout  # noqa: E402
from engine.loading import load_model, load_tokenizer  # noqa: E402
from traces.errors import InputError  # noqa: E402

Tensors = dict[str, Any]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[Tensors], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def reconfigure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_stored_model_is_the_one_that_was_saved(tiny_folder: Path, families: Any) -> None:
    loaded = load_model(tiny_folder)
    saved = families["llama"].stock.state_dict()
    assert loaded.state_dict().keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.state_dict().items())
    assert kv_layout(loaded) == families["llama"].layout
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_another_dtype(tiny_folder: Path) -> None:
    layout = kv_layout(load_model(tiny_folder, dtype="bfloat16"))
    assert layout.dtype == torch.bfloat16
    assert layout.bytes_per_token == 2 * 2 * 2 * 16 * 2


def test_random_weights_come_from_the_seed_alone(tiny_folder: Path) -> None:
    state = torch.random.get_rng_state()
    one, same, other = (load_model(tiny_folder / "config.json", load_format="dummy", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


def test_a_preset_by_its_name() -> None:
    model = load_model("llama-60m", load_format="dummy")
    layout = kv_layout(model)
    assert (layout.layers, layout.kv_heads, layout.head_dim) == (8, 8, 64)


def drop(name: str) -> Callable[[Tensors], None]:
    return lambda weights: weights.pop(name)


def cut(name: str) -> Callable[[Tensors], None]:
    return lambda weights: weights.update({name: weights[name][:5].clone()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("model.layers.1.mlp.up_proj.weight"), "1 weights missing: model.layers.1.mlp.up_proj.weight"),
        (
            cut("model.layers.0.self_attn.q_proj.weight"),
            "1 weights of another shape: model.layers.0.self_attn.q_proj.weight is 5 x 64, not 64 x 64",
        ),
        (
            lambda weights: weights.update(extra=torch.zeros(2)),
            "1 weights that the config has no place for: extra",
        ),
    ],
)
def test_weights_that_do_not_fit(folder: Path, change: Callable[[Tensors], None], message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert str(caught.value) == f"{folder}: {message}; expected those of config.json"


def test_only_the_first_few_weights_are_named(folder: Path) -> None:
    rewrite(folder, lambda weights: [weights.pop(name) for name in list(weights) if "layers.0" in name])
    with pytest.raises(InputError, match=r"9 weights missing: model\.layers\.0\.[^,]*(, [^,]*){2}, \.\.\.; expected"):
        load_model(folder)


def test_files_that_are_not_there_or_not_whole(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(InputError, match="not whole safetensors"):
        load_model(folder)
    weights.unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no safetensors weights; expected model\.safetensors"):
        load_model(folder)
    with pytest.raises(InputError, match="unknown model"):
        load_model(tmp_path / "absent")
    with pytest.raises(InputError, match="no tokenizer that can be read"):
        load_tokenizer(folder)
    with pytest.raises(InputError, match="no tokenizer; expected"):
        load_tokenizer("llama-60m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "no-such"}, "transformers cannot read the config of model_type 'no-such'"),
        ({"hidden_size": "wide"}, "model_type 'llama': Field 'hidden_size' expected int, got str"),
        ({"model_type": "t5"}, "t5: transformers cannot build it with paged attention: Unrecognized"),
    ],
)
def test_a_config_that_is_no_causal_language_model(folder: Path, values: dict[str, Any], message: str) -> None:
    reconfigure(folder, **values)
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder, load_format="dummy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_format": "pickle"}, "--load-format: unknown load format 'pickle'; expected one of safetensors, dummy"),
        ({"dtype": "int8"}, "--dtype: dtype is 'int8'"),
        ({"device": "abacus"}, "--device: unknown device 'abacus'"),
        ({"device": "cpu:0"}, "--device: unknown device 'cpu:0'"),
        ({"device": "cuda:x"}, "--device: unknown device 'cuda:x'"),
        ({"device": "cuda:99"}, "--device: PyTorch finds "),
    ],
)
def test_options_that_cannot_be(tiny_folder: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(tiny_folder, **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bloom", "BloomForCausalLM: not every layer uses the attention interface; expected a model that does"),
        ("falcon", "falcon: transformers cannot build it with paged attention"),
        ("stablelm", "StableLmForCausalLM: cannot run a token through the attention interface"),
        ("gemma2", "Gemma2Attention: attention with softcap; expected plain scaled dot products"),
        ("bert", "BertSelfAttention: tokens that attend to later ones; expected causal attention"),
    ],
)
def test_a_model_that_attends_in_another_way_is_refused(kind: str, message: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "intermediate_size": 48, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **sizes}))
    with pytest.raises(InputError) as caught:
        kv_layout(load_model(tmp_path, load_format="dummy"))
    assert str(caught.value).startswith(message)


def test_no_room_for_the_cache_is_one_error(make_engine: Callable[..., Engine]) -> None:
    with pytest.raises(InputError, match=r"cpu: no room for \d+ KV blocks, .* GiB; expected fewer blocks"):
        make_engine(blocks=10**13)
