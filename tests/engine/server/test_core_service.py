"""The scheduler's loop by itself: commands that are all there, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from oracle.costs import COSTS  # noqa: E402

from engine.clock import WallClock  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from engine.server.messages import (  # noqa: E402
    Abort,
    Failed,
    Idle,
    Produced,
    Ready,
    Refused,
    Step,
    Stop,
    Stopped,
    Submit,
    Swap,
    Swapped,
    ToEngine,
)
from engine.server.service import BrokenEngineError, Service  # noqa: E402
from policies import choose  # noqa: E402

PROMPT = tuple(range(30, 46))
DRAIN = Stop(drain=True)


def submit(key: int, prompt: Sequence[int] = PROMPT, **params: Any) -> Submit:
    asked = SamplingParams(**{"temperature": 0, "max_tokens": 6, **params})
    return Submit(key=key, prompt_token_ids=tuple(prompt), params=asked, arrival_s=0.0)


@pytest.fixture
def make(make_engine: Callable[..., Engine]) -> Callable[..., Engine]:
    return lambda *policy, **others: make_engine(*policy, clock=WallClock(0.0), **others)


def serve(engine: Engine, *commands: ToEngine) -> list[Any]:
    """Hand commands in and return what came out."""
    inbox: SimpleQueue[Sequence[ToEngine]] = SimpleQueue()
    inbox.put(commands)
    sent: list[Any] = []
    Service(engine, inbox, sent.append).run()
    return sent


def produced(sent: list[Any], key: int) -> list[Produced]:
    return [
        each for message in sent if isinstance(message, (Step, Idle)) for each in message.produced if each.key == key
    ]


def test_it_says_what_it_is_and_when_it_is_done(make: Callable[..., Engine]) -> None:
    ready, stopped = serve(make(), DRAIN)[:: len(serve(make(), DRAIN)) - 1]
    assert isinstance(ready, Ready)
    assert (ready.max_model_len, ready.vocab, ready.kv_blocks, ready.block_size) == (64, 128, 64, 4)
    assert ready.policy["policy"] == "vllm-v1"
    assert not ready.predicts
    assert isinstance(stopped, Stopped)


def test_draining_finishes_and_dropping_does_not(make: Callable[..., Engine]) -> None:
    assert [len(each.token_ids) for each in produced(serve(make(), submit(5), DRAIN), 5)] == [1] * 6
    (only,) = produced(serve(make(), submit(5), Stop(drain=False)), 5)
    assert (only.token_ids, only.finish) == ((), "cancelled")
    assert only.served is not None
    assert only.served.generated_tokens == 0


def test_an_abort_comes_before_the_next_iteration(make: Callable[..., Engine]) -> None:
    sent = serve(make(), submit(1), submit(2), Abort(keys=(1, 1, 77)), DRAIN)
    assert [each.finish for each in produced(sent, 1)] == ["cancelled"]
    assert [each.finish for each in produced(sent, 2)] == [None] * 5 + ["length"]


def test_iterations_come_with_their_prediction(make: Callable[..., Engine]) -> None:
    sent = serve(make(predictor=COSTS), submit(1), DRAIN)
    steps = [each for each in sent if isinstance(each, Step)]
    assert sent[0].predicts
    assert steps[0].predicted_s == COSTS.seconds(16, 0, 0)
    assert steps[1].predicted_s == COSTS.seconds(1, 17, 0)


def test_what_the_prefix_cache_found(make: Callable[..., Engine]) -> None:
    engine = make("vllm-v1", settings={"max_num_batched_tokens": 16, "max_num_seqs": 8})
    steps = [each for each in serve(engine, submit(1), submit(2), submit(3), DRAIN) if isinstance(each, Step)]
    assert sum(step.cache_queries for step in steps) == 48
    assert sum(step.cache_hits for step in steps) == 24
    plain = make("sarathi-serve")
    assert {step.cache_queries for step in serve(plain, submit(1), DRAIN) if isinstance(step, Step)} == {0}


class SickError(Exception):
    """What goes wrong."""


def fail_with(engine: Engine, error: Exception, *, token: int) -> None:
    """Have the model fail in every batch that holds ``token``."""
    forward = engine.runner.forward

    def failing(inputs: Any) -> Any:
        if token in inputs.token_ids_t.tolist():
            raise error
        return forward(inputs)

    engine.runner.forward = failing  # type: ignore[method-assign]


@pytest.mark.parametrize("policy", ["vllm", "sarathi-serve", "vllm-v1", "orca", "slack"])
@pytest.mark.parametrize("error", [SickError("a fever"), torch.OutOfMemoryError("CUDA out of memory. More")])
def test_a_failing_iteration_takes_its_batch_along(policy: str, error: Exception, make: Callable[..., Engine]) -> None:
    engine = make(policy, settings={"max_num_seqs": 2})
    right = [each.token_ids for each in produced(serve(engine, submit(1), DRAIN), 1)]
    engine = make(policy, settings={"max_num_seqs": 2})
    fail_with(engine, error, token=29)
    commands = [submit(1), submit(2, [*PROMPT, 29]), submit(3), submit(4)]
    sent = serve(engine, *commands, DRAIN)
    failures = [each for each in sent if isinstance(each, Failed)]
    assert 2 in failures[0].keys
    assert failures[0].message == f"the model failed: {type(error).__name__}: {error}"
    for key in {1, 3, 4} - {key for each in failures for key in each.keys}:
        assert [each.token_ids for each in produced(sent, key)] == right
    assert produced(sent, 4)[-1].finish == "length"
    assert produced(sent, 2) == []
    assert engine.policy.pool.used == 0


def test_the_prefix_cache_forgets_what_was_never_computed(make: Callable[..., Engine]) -> None:
    right = produced(serve(make(), submit(1), DRAIN), 1)
    engine = make("vllm-v1", settings={"max_num_seqs": 1})
    forward, failures = engine.runner.forward, [SickError("once")]

    def failing(inputs: Any) -> Any:
        if failures:
            raise failures.pop()
        return forward(inputs)

    engine.runner.forward = failing  # type: ignore[method-assign]
    sent = serve(engine, submit(1), submit(2), submit(3), DRAIN)
    assert [each.keys for each in sent if isinstance(each, Failed)] == [(1,)]
    hits = [each.served.cached_tokens for key in (2, 3) for each in produced(sent, key) if each.served is not None]
    assert hits == [0, 12]
    for key in (2, 3):
        assert [each.token_ids for each in produced(sent, key)] == [each.token_ids for each in right]


def test_it_gives_up_after_three_failures_in_a_row(make: Callable[..., Engine]) -> None:
    engine = make("vllm", settings={"max_num_seqs": 1})
    fail_with(engine, SickError("a fever"), token=29)
    bad = [*PROMPT, 29]
    serve(engine, submit(1, bad), submit(2, bad), submit(3), submit(4, bad), submit(5, bad), DRAIN)
    message = "3 iterations in a row failed; the last: the model failed: SickError: a fever"
    with pytest.raises(BrokenEngineError, match=message):
        serve(engine, submit(1, bad), submit(2, bad), submit(3, bad), submit(4), DRAIN)


def test_a_scheduler_that_fails_ends_the_engine(make: Callable[..., Engine]) -> None:
    engine = make()

    def failing(batch: Any) -> None:
        raise SickError("dizzy")

    engine.policy._fill = failing  # type: ignore[method-assign]
    with pytest.raises(BrokenEngineError, match="the scheduler failed: SickError: dizzy"):
        serve(engine, submit(1), DRAIN)


def test_kv_that_does_not_add_up_ends_the_engine(make: Callable[..., Engine]) -> None:
    engine = make("vllm")
    allocate = engine.policy.pool.allocate

    def sharing(sequence: Any, count: int) -> None:
        allocate(sequence, count)
        sequence.blocks[:] = sequence.blocks[:1] * len(sequence.blocks)

    engine.policy.pool.allocate = sharing  # type: ignore[method-assign]
    with pytest.raises(BrokenEngineError, match="the KV cache does not add up"):
        serve(engine, submit(1), DRAIN)


def test_what_is_wrong_with_a_request_is_its_own_affair(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    hashes = engine._block_hashes

    def failing(policy: Any, prompt: Any) -> Any:
        if len(prompt) == 3:
            raise SickError("a prompt of three")
        return hashes(policy, prompt)

    monkeypatch.setattr(engine, "_block_hashes", failing)
    sent = serve(engine, submit(1), submit(2, [5, 6, 7]), submit(3, []), submit(4), DRAIN)
    assert Failed(keys=(2,), message="the request could not be taken in: a prompt of three") in sent
    assert Refused(key=3, message="an empty prompt; expected at least one token") in sent
    for key in (1, 4):
        assert produced(sent, key)[-1].finish == "length"


def test_another_policy_from_the_next_iteration_on(make: Callable[..., Engine]) -> None:
    engine = make()
    documents: list[dict[str, Any]] = [
        {"policy": "sarathi-serve", "max_num_batched_tokens": 64},
        {"policy": "no such"},
        {"policy": "vllm", "max_num_batched_tokens": 1},
    ]
    swaps = [Swap(ticket=number, policy=document) for number, document in enumerate(documents)]
    sent = serve(engine, submit(1), *swaps, DRAIN)
    good, unknown, refused = (each for each in sent if isinstance(each, Swapped))
    assert engine.choice == choose("sarathi-serve", max_num_batched_tokens=64)
    assert (good.error, good.policy["max_num_batched_tokens"]) == (None, 64)
    assert unknown.error is not None
    assert unknown.error.startswith("policy: unknown policy 'no such'")
    assert refused.error is not None
    assert refused.error.startswith("policy vllm: max_num_batched_tokens is 1; expected at least max_model_len")
    assert good.policy == unknown.policy == refused.policy == engine.choice.as_dict()
    assert produced(sent, 1)[-1].finish == "length"
