"""Greedy tokens and logits against the stock models of transformers, under every policy."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.engine import Engine  # noqa: E402
from engine.input import Slice  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from policies import POLICIES  # noqa: E402

FAMILIES = ["llama", "mistral", "qwen2", "qwen2-window", "qwen3"]
ODD: dict[str, dict[str, float]] = {
    "sarathi": {"chunk_size": 7, "tile_size": 7},
    "sarathi-serve": {"max_num_batched_tokens": 7},
    "chunked-only": {"max_num_batched_tokens": 7},
    "vllm-v1": {"max_num_batched_tokens": 7, "max_num_seqs": 5},
    "slack": {"max_num_batched_tokens": 7, "watermark": 0.0, "tbt_s": 100.0, "ttft_s": 100.0},
}
RESERVING = ("faster-transformer", "orca", "sarathi")


@pytest.fixture(scope="module")
def requests() -> list[tuple[list[int], int]]:
    """Prompts with output lengths; some are one token long, some begin alike."""
    rng = random.Random(7)
    prompts = [[rng.randrange(128) for _ in range(length)] for length in (1, 5, 17, 33, 40, 26)]
    prompts.append([*prompts[4][:18], 3, 5])
    return [(prompt, outputs) for prompt, outputs in zip(prompts, (9, 1, 20, 14, 12, 18, 6), strict=True)]


@pytest.fixture(scope="module")
def expected(families: dict[str, Any], requests: list[tuple[list[int], int]]) -> dict[str, list[list[int]]]:
    return {name: [families[name].generate(*request) for request in requests] for name in FAMILIES}


def served(engine: Engine, requests: list[tuple[list[int], int]]) -> list[Any]:
    params = [SamplingParams(temperature=0, max_tokens=outputs, ignore_eos=True) for _, outputs in requests]
    return engine.generate([prompt for prompt, _ in requests], params)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_tokens_are_those_of_transformers(
    policy: str,
    family: str,
    make_engine: Callable[..., Engine],
    requests: list[tuple[list[int], int]],
    expected: dict[str, list[list[int]]],
) -> None:
    blocks = 64 if policy in RESERVING else 16
    engine = make_engine(policy, family=family, blocks=blocks, settings=ODD.get(policy))
    done = served(engine, requests)
    assert [request.output_token_ids for request in done] == expected[family]
    assert {request.finish_reason for request in done} == {"length"}
    if policy not in (*RESERVING, "slack"):
        assert sum(request.sequence.preemptions for request in done) > 0
    assert engine.policy.pool.used == 0


@pytest.mark.parametrize("family", ["gpt2", "phi", "gemma3"])
def test_other_models_that_use_the_attention_interface(
    family: str, make_engine: Callable[..., Engine], families: dict[str, Any], requests: list[tuple[list[int], int]]
) -> None:
    engine = make_engine("sarathi-serve", family=family, blocks=16, settings=ODD["sarathi-serve"])
    expected = [families[family].generate(*request) for request in requests]
    assert [request.output_token_ids for request in served(engine, requests)] == expected


def test_a_prefix_hit_changes_no_token(
    make_engine: Callable[..., Engine],
    requests: list[tuple[list[int], int]],
    expected: dict[str, list[list[int]]],
) -> None:
    engine = make_engine("vllm-v1", settings={"max_num_batched_tokens": 13, "max_num_seqs": 8})
    first = served(engine, requests[4:5])
    again = served(engine, requests[4:])
    assert first[0].sequence.cached_tokens == 0
    assert again[0].sequence.cached_tokens == 36, "all full blocks but the one of the last token"
    assert again[2].sequence.cached_tokens == 16, "the four blocks that begin alike"
    assert [request.output_token_ids for request in again] == expected["llama"][4:]


def test_a_prefix_is_shared_within_one_batch(make_engine: Callable[..., Engine], families: dict[str, Any]) -> None:
    """The second prompt attends to blocks that the first one fills in the very same forward pass."""
    engine, prompt = make_engine("vllm-v1"), list(range(20))
    done = served(engine, [(prompt, 5), ([*prompt[:16], 99], 5)])
    assert done[1].sequence.cached_tokens == 16
    assert done[0].sequence.scheduled_s == done[1].sequence.scheduled_s
    assert done[1].output_token_ids == families["llama"].generate([*prompt[:16], 99], 5)


def test_without_prefix_caching_nothing_is_shared(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("vllm-v1", settings={"enable_prefix_caching": False})
    done = served(engine, [(list(range(20)), 2), (list(range(20)), 2)])
    assert [request.sequence.cached_tokens for request in done] == [0, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_chunks_and_decodes_in_one_batch(
    family: str, make_engine: Callable[..., Engine], families: dict[str, Any]
) -> None:
    """Two sequences in scattered blocks: one in chunks of 1, 5 and 17 tokens, one decoding beside them."""
    rng = np.random.default_rng(3)
    runner = make_engine(family=family).runner
    one, two = rng.integers(128, size=(2, 23)).tolist()
    blocks_one, blocks_two = rng.permutation(64)[:12].reshape(2, 6).tolist()
    wanted_one, wanted_two = families[family].logits(one), families[family].logits(two)
    runner.forward(runner.batch_input([Slice(two[:20], 0, blocks_two, samples=False)]))
    past, position = 0, 20
    for tokens in (1, 5, 17):
        slices = [
            Slice(one[past : past + tokens], past, blocks_one, samples=True),
            Slice(two[position : position + 1], position, blocks_two, samples=True),
        ]
        logits_sv = runner.forward(runner.batch_input(slices))
        torch.testing.assert_close(logits_sv[0], wanted_one[past + tokens - 1], atol=1e-4, rtol=0)
        torch.testing.assert_close(logits_sv[1], wanted_two[position], atol=1e-4, rtol=0)
        past, position = past + tokens, position + 1


def test_the_window_matters(families: dict[str, Any]) -> None:
    """A window that were ignored would give other logits: the test above could not miss it."""
    mistral = families["mistral"]
    tokens = list(range(40, 70))
    far = mistral.logits([1, *tokens])[-1] - mistral.logits([2, *tokens])[-1]
    near = mistral.logits([*tokens, 1, 3])[-1] - mistral.logits([*tokens, 2, 3])[-1]
    assert far.abs().max() < 1e-4 < near.abs().max()


def test_a_chunk_that_ends_no_prompt_has_no_logits(make_engine: Callable[..., Engine]) -> None:
    runner = make_engine().runner
    assert runner.forward(runner.batch_input([Slice([1, 2, 3], 0, [5], samples=False)])).shape == (0, 128)
