"""Requests in and out: what ends them, what is refused, and that the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.engine import Engine  # noqa: E402
from engine.prefix import block_hashes  # noqa: E402
from engine.request import Request  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from traces.errors import InputError  # noqa: E402

PROMPT = list(range(30, 42))
GREEDY: dict[str, Any] = {"temperature": 0}


class Letters:
    """A tokenizer of one letter a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 33 for letter in text]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(chr(33 + token) for token in token_ids)


def only(engine: Engine, **params: Any) -> Request:
    (outcome,) = engine.generate([PROMPT], SamplingParams(**GREEDY, **params))
    assert isinstance(outcome, Request)
    return outcome


@pytest.fixture(scope="module")
def greedy(make_engine: Callable[..., Engine]) -> list[int]:
    """20 greedy tokens after PROMPT; the first to come a second time is well inside."""
    tokens = only(make_engine(), max_tokens=20).output_token_ids
    assert len(set(tokens[:6])) == 6
    return tokens


@pytest.mark.parametrize("policy", ["vllm", "sarathi-serve", "vllm-v1", "orca"])
def test_a_stop_token_ends_an_output(policy: str, make_engine: Callable[..., Engine], greedy: list[int]) -> None:
    engine = make_engine(policy)
    request = only(engine, max_tokens=20, stop_token_ids=(greedy[3],))
    assert request.output_token_ids == greedy[:4]
    assert request.finish_reason == "stop"
    assert request.sequence.generated == 4
    assert engine.policy.pool.used == 0


def test_a_stop_token_that_comes_first_or_last(make_engine: Callable[..., Engine], greedy: list[int]) -> None:
    first = only(make_engine(), max_tokens=20, stop_token_ids=(greedy[0],))
    assert first.output_token_ids == greedy[:1]
    last = only(make_engine(), max_tokens=4, stop_token_ids=(greedy[3],))
    assert (last.output_token_ids, last.finish_reason) == (greedy[:4], "stop")


def test_the_models_own_end_token(make_engine: Callable[..., Engine], families: Any, greedy: list[int]) -> None:
    config = families["llama"].paged.generation_config
    config.eos_token_id = [greedy[2], 127]
    try:
        assert only(make_engine(), max_tokens=20).output_token_ids == greedy[:3]
        assert only(make_engine(), max_tokens=20, ignore_eos=True).output_token_ids == greedy
        assert only(make_engine(), max_tokens=20, min_tokens=3).output_token_ids[:2] == greedy[:2]
    finally:
        config.eos_token_id = None


def test_before_min_tokens_a_stop_token_is_not_chosen(make_engine: Callable[..., Engine], greedy: list[int]) -> None:
    tokens = only(make_engine(), max_tokens=20, min_tokens=8, stop_token_ids=(greedy[3],)).output_token_ids
    assert tokens[:3] == greedy[:3]
    assert greedy[3] not in tokens[:8]


def test_a_stop_string_over_two_tokens(make_engine: Callable[..., Engine], greedy: list[int]) -> None:
    text = Letters().decode(greedy, skip_special_tokens=True)
    request = only(make_engine(tokenizer=Letters()), max_tokens=20, stop=("no such", text[3:5]))
    assert request.text == text[:3]
    assert request.output_token_ids == greedy[:5]
    assert request.finish_reason == "stop"
    late = only(make_engine(tokenizer=Letters()), max_tokens=20, stop=(text[0],), min_tokens=3)
    assert late.text.startswith(text[:2])
    assert only(make_engine(tokenizer=Letters()), max_tokens=20).text == text


def test_logprobs_are_those_of_the_model(make_engine: Callable[..., Engine], families: Any, greedy: list[int]) -> None:
    request = only(make_engine(), max_tokens=5, logprobs=2)
    logprobs = families["llama"].logits([*PROMPT, *greedy[:5]]).log_softmax(-1)[len(PROMPT) - 1 :]
    assert [each.token_id for each in request.logprobs] == greedy[:5]
    for place, each in enumerate(request.logprobs):
        assert each.logprob == pytest.approx(float(logprobs[place, greedy[place]]), abs=1e-4)
        assert each.top[0] == (greedy[place], pytest.approx(each.logprob))
        assert len(each.top) == 2


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], {}, "an empty prompt; expected at least one token"),
        ([5, 128], {}, "unknown token id 128; expected 0 to 127"),
        ([-1], {}, "unknown token id -1; expected 0 to 127"),
        ([5], {"stop_token_ids": (1000,)}, "unknown token id 1000; expected 0 to 127"),
        ([5] * 64, {}, "a prompt of 64 tokens; expected fewer than --max-model-len 64"),
        ([5] * 60, {"max_tokens": 5}, "60 prompt + 5 output = 65 tokens; expected at most --max-model-len 64"),
        ([5] * 50, {"max_tokens": 9}, "59 tokens need 15 KV blocks; expected at most the 12 that can be had"),
        ([5], {"stop": ("x",)}, "a stop string without a tokenizer; expected stop_token_ids"),
    ],
)
@pytest.mark.parametrize("policy", ["vllm-v1", "sarathi-serve"])
def test_a_request_that_cannot_be_served_harms_no_other(
    policy: str,
    prompt: list[int],
    params: dict[str, Any],
    message: str,
    make_engine: Callable[..., Engine],
    greedy: list[int],
) -> None:
    engine = make_engine(policy, blocks=12)
    asked = [SamplingParams(max_tokens=20, **GREEDY), SamplingParams(**GREEDY, **params)]
    before, wrong, after = engine.generate([PROMPT, prompt, PROMPT], [*asked, asked[0]])
    assert isinstance(wrong, InputError)
    assert str(wrong) == message
    for request in (before, after):
        assert isinstance(request, Request)
        assert request.output_token_ids == greedy
    assert engine.policy.pool.used == 0


def test_an_output_without_a_limit_fills_the_context(make_engine: Callable[..., Engine]) -> None:
    request = only(make_engine(), max_tokens=None)
    assert len(request.token_ids) == 64
    assert request.finish_reason == "length"


def test_a_request_can_be_cancelled_at_any_point(make_engine: Callable[..., Engine], greedy: list[int]) -> None:
    engine = make_engine("sarathi-serve", settings={"max_num_batched_tokens": 5, "max_num_seqs": 2})
    params = SamplingParams(max_tokens=20, **GREEDY)
    kept, prefilling, waiting = (engine.add_request(PROMPT, params) for _ in range(3))
    while not kept.output_token_ids:
        engine.step()
    engine.step()
    assert prefilling.sequence.blocks
    assert not waiting.sequence.blocks
    for request in (prefilling, waiting, prefilling):
        engine.cancel(request)
        assert request.finish_reason == "cancelled"
    while engine.has_work:
        engine.step()
    assert kept.output_token_ids == greedy
    engine.cancel(kept)
    assert kept.finish_reason == "length"
    assert (prefilling.output_token_ids, waiting.output_token_ids) == ([], [])
    assert engine.step() is None


def test_a_policy_that_chooses_ahead_lets_go_of_everything(
    make_engine: Callable[..., Engine], greedy: list[int]
) -> None:
    engine = make_engine("vllm-v1", settings={"async_scheduling": True})
    for _ in range(2):
        assert only(engine, max_tokens=20).output_token_ids == greedy
        assert engine.policy.pool.used == engine.running == engine.waiting == 0
        assert engine.kv_problem() is None


def test_requests_may_come_while_others_run(make_engine: Callable[..., Engine], greedy: list[int]) -> None:
    engine = make_engine("vllm-v1", settings={"enable_prefix_caching": False})
    requests, finished = [], []
    for _ in range(60):
        if len(requests) < 5:
            requests.append(engine.add_request(PROMPT, SamplingParams(max_tokens=20, **GREEDY)))
        iteration = engine.step()
        finished += [] if iteration is None else iteration.finished
    assert [request.output_token_ids for request in requests] == [greedy] * 5
    assert finished == requests


def test_a_pool_that_leaks_is_noticed(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("vllm")
    request = engine.add_request(PROMPT, SamplingParams(max_tokens=2, **GREEDY))
    engine.policy.pool.release = lambda sequence, **_: None  # type: ignore[method-assign]
    engine.step()
    with pytest.raises(AssertionError, match="blocks leaked"):
        engine.step()
    assert request.finish_reason == "length"


def test_block_hashes_name_a_block_and_all_before_it() -> None:
    one, two = block_hashes([1, 2, 3, 4, 5, 6, 7], 2), block_hashes([1, 2, 3, 9, 5, 6], 2)
    assert len(one) == len(two) == 3
    assert one[0] == two[0]
    assert one[1] != two[1]
    assert one[2] != two[2], "the same tokens after others"
    assert len(set(one)) == 3
    assert block_hashes([1], 2) == []
