"""Another policy between two iterations: the same tokens, and no request lost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.engine import Engine  # noqa: E402
from engine.request import Request  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from policies import POLICIES, choose  # noqa: E402
from traces.errors import InputError  # noqa: E402

SHARED = list(range(40, 53))
PROMPTS = [[*SHARED, number, *range(60, 60 + 3 * number)] for number in range(6)]
GREEDY = SamplingParams(temperature=0, max_tokens=12)
SEEDED = SamplingParams(temperature=1.0, seed=7, max_tokens=12)


def outputs(requests: list[Request]) -> list[list[int]]:
    return [request.output_token_ids for request in requests]


@pytest.fixture(scope="module")
def unswapped(make_engine: Callable[..., Engine]) -> dict[SamplingParams, list[list[int]]]:
    def serve(params: SamplingParams) -> list[list[int]]:
        requests = make_engine("sarathi-serve").generate(PROMPTS, params)
        return outputs([request for request in requests if isinstance(request, Request)])

    return {params: serve(params) for params in (GREEDY, SEEDED)}


def swapping(engine: Engine, params: SamplingParams, names: list[str], random: Random) -> list[Request]:
    """Serve the prompts, one policy after the other."""
    requests = [engine.add_request(prompt, params) for prompt in PROMPTS]
    while engine.step() is not None:
        if random.random() < 0.4:
            engine.swap_policy(choose(random.choice(names), max_num_seqs=random.randint(1, 8)))
    assert engine.policy.pool.used == 0
    return requests


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("blocks", [32, 96])
def test_the_tokens_are_those_of_one_policy(
    params: SamplingParams,
    blocks: int,
    make_engine: Callable[..., Engine],
    unswapped: dict[SamplingParams, list[list[int]]],
) -> None:
    for seed in range(3):
        requests = swapping(make_engine(blocks=blocks), params, list(POLICIES), Random(seed))
        assert outputs(requests) == unswapped[params]
        assert {request.finish_reason for request in requests} == {"length"}
        assert any(request.sequence.preemptions for request in requests)


def test_blocks_that_policies_share_are_computed_once(
    make_engine: Callable[..., Engine], unswapped: dict[SamplingParams, list[list[int]]]
) -> None:
    """Under a policy without prefix cache prompts begin alike; the next one has a cache, and finds them."""
    engine = make_engine("orca", blocks=96)
    requests = [engine.add_request(PROMPTS[0], GREEDY)]
    engine.step()
    assert engine.swap_policy(choose("vllm-v1")) == []
    assert (engine.choice.name, engine.policy.name) == ("vllm-v1", "vllm-v1")
    requests += [engine.add_request(prompt, GREEDY) for prompt in PROMPTS[1:]]
    while engine.step() is not None:
        pass
    assert outputs(requests) == unswapped[GREEDY]
    assert [request.sequence.cached_tokens for request in requests] == [0, 12, 12, 12, 12, 12]


def test_a_cancelled_request_stays_cancelled(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("sarathi-serve")
    requests = [engine.add_request(prompt, GREEDY) for prompt in PROMPTS]
    engine.step()
    for request in requests[::2]:
        engine.cancel(request)
    lost = engine.swap_policy(choose("vllm-v1", max_num_seqs=1))
    assert not {request.request_id for request in lost} & {0, 2, 4}
    while engine.step() is not None:
        pass
    assert [request.finish_reason for request in requests] == ["cancelled", "length"] * 3


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "orca",
            {},
            "policy orca, a request in service: 35 tokens need 16 KV blocks; expected at most the 12 that can be had",
        ),
        ("slack", {}, "policy slack: chooses its batches by a cost model"),
        ("vllm", {"max_num_batched_tokens": 8}, "policy vllm: max_num_batched_tokens is 8; expected at least"),
    ],
)
def test_a_policy_that_does_not_go_with_the_engine_changes_nothing(
    name: str,
    settings: dict[str, Any],
    message: str,
    make_engine: Callable[..., Engine],
    unswapped: dict[SamplingParams, list[list[int]]],
) -> None:
    engine = make_engine("sarathi-serve", blocks=12, costs=None)
    requests = [engine.add_request(prompt, GREEDY) for prompt in reversed(PROMPTS[:4])]
    engine.step()
    policy, tables = engine.policy, [list(request.sequence.blocks) for request in requests]
    with pytest.raises(InputError, match=message):
        engine.swap_policy(choose(name, **settings))
    assert engine.policy is policy
    assert [request.sequence.blocks for request in requests] == tables
    while engine.step() is not None:
        pass
    assert outputs(requests)[::-1] == unswapped[GREEDY][:4]
