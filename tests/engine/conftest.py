"""Tiny random models of several families, stock and with our attention, and what the tests ask of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine needs torch")
pytest.importorskip("transformers", reason="the engine needs transformers")

from oracle.costs import PlainCosts  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from engine.attention import ATTENTION, attention_backend, register  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.kv_cache import KVLayout  # noqa: E402
from engine.kv_layout import kv_layout  # noqa: E402
from engine.runner import Runner  # noqa: E402
from policies import KVMemory, choose  # noqa: E402

VOCAB, WINDOW, CONTEXT = 128, 9, 256
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=WINDOW),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen2-window": lambda: Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
    "gpt2": lambda: GPT2Config(**SIZES),
    "phi": lambda: PhiConfig(**SIZES),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=WINDOW),
}


@dataclass(frozen=True)
class Family:
    """A model twice with the same weights: as transformers runs it, and with our attention."""

    stock: Any
    paged: Any
    layout: KVLayout

    def generate(self, prompt: list[int], tokens: int) -> list[int]:
        """The tokens that transformers generates greedily."""
        ids = torch.tensor([prompt])
        out = self.stock.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )
        return [int(token) for token in out[0, len(prompt) :]]

    def logits(self, token_ids: list[int]) -> Any:
        """The stock model's logits after every token [tokens, vocab]."""
        with torch.inference_mode():
            return self.stock(torch.tensor([token_ids])).logits[0]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def families() -> dict[str, Family]:
    """One of each; weights are large enough for tokens to depend on all that is attended to."""
    register()
    made = {}
    for seed, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(seed)
        stock = AutoModelForCausalLM.from_config(config(), dtype=torch.float32, attn_implementation="eager").eval()
        for parameter in stock.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2)
        paged = AutoModelForCausalLM.from_config(config(), dtype=torch.float32, attn_implementation=ATTENTION).eval()
        paged.load_state_dict(copy.deepcopy(stock.state_dict()))
        made[name] = Family(stock, paged, kv_layout(paged))
    return made


@pytest.fixture(scope="session")
def make_engine(families: dict[str, Family]) -> Callable[..., Engine]:
    """make_engine(policy, family="llama", blocks=64, block_size=4, context=64, settings={}, **engine's own)."""

    def make(
        policy: str = "vllm-v1",
        *,
        family: str = "llama",
        blocks: int = 64,
        block_size: int = 4,
        context: int = 64,
        settings: dict[str, Any] | None = None,
        **others: Any,
    ) -> Engine:
        memory = KVMemory(blocks=blocks, block_size=block_size, max_model_len=context)
        found = families[family]
        runner = Runner(found.paged, found.layout, memory, attention_backend("sdpa"))
        return Engine(runner, choose(policy, **(settings or {})), **{"costs": PlainCosts(), **others})

    return make


@pytest.fixture(scope="session")
def tiny_folder(families: dict[str, Family], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama as a folder with config.json and safetensors."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    families["llama"].stock.save_pretrained(folder)
    return folder
