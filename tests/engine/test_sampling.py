"""Sampling: each setting by what it must do to a distribution that is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from engine.engine import Engine  # noqa: E402
from engine.sampling import SamplingParams, choose_tokens, token_logprobs  # noqa: E402
from traces.errors import InputError  # noqa: E402

PROBS = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
SHUFFLED = [3, 0, 4, 1, 2]
LOGITS = PROBS.log()[SHUFFLED]
"""Token t has the probability PROBS[SHUFFLED[t]]."""
TOKEN = {place: token for token, place in enumerate(SHUFFLED)}


def draws(params: SamplingParams, count: int = 4000) -> Counter[int]:
    """Places in PROBS of ``count`` draws, each a sequence of one batch with a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    tokens = choose_tokens(LOGITS.expand(count, -1), [params] * count, generators)
    return Counter(SHUFFLED[token] for token in tokens)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"top_k": 2}, [0.4, 0.3]),
        ({"top_k": 99}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"top_p": 0.69}, [0.4, 0.3]),
        ({"top_p": 0.71}, [0.4, 0.3, 0.15]),
        ({"top_p": 1e-9}, [0.4]),
        ({"min_p": 0.3}, [0.4, 0.3, 0.15]),
        ({"min_p": 1.0}, [0.4]),
        ({"top_k": 3, "top_p": 0.8}, [0.4, 0.3]),
        ({"temperature": 0.5}, [0.16, 0.09, 0.0225, 0.01, 0.0025]),
        ({"temperature": 1e6}, [0.2] * 5),
    ],
)
def test_shares_of_draws(settings: dict[str, Any], kept: list[float]) -> None:
    count = 4000
    found = draws(SamplingParams(**settings), count)
    wanted = [share / sum(kept) for share in kept] + [0.0] * (5 - len(kept))
    assert set(found) <= set(range(len(kept)))
    for place, share in enumerate(wanted):
        assert found[place] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def test_top_p_is_a_share_of_what_top_k_leaves() -> None:
    """0.4 and 0.3 are 0.70 of all, and 0.82 of the first three."""
    assert set(draws(SamplingParams(top_k=3, top_p=0.82))) == {0, 1}
    assert set(draws(SamplingParams(top_p=0.82))) == {0, 1, 2}


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=30), st.integers(0, 2**40))
def test_temperature_zero_and_nearly_zero_take_the_likeliest(values: list[float], seed: int) -> None:
    logits = torch.tensor([values])
    generator = torch.Generator().manual_seed(seed)
    before = generator.get_state()
    greedy = choose_tokens(logits, [SamplingParams(temperature=0)], [generator])
    assert greedy == [int(logits.argmax())]
    assert torch.equal(generator.get_state(), before), "greedy takes no random number"
    cold = choose_tokens(logits, [SamplingParams(temperature=1e-200)], [generator])
    assert values[cold[0]] == max(values)


@given(st.data())
def test_a_row_does_not_depend_on_its_neighbours(data: st.DataObject) -> None:
    some = st.builds(
        SamplingParams,
        temperature=st.sampled_from([0, 0.7, 1.0, 2.0]),
        top_k=st.integers(-1, 12),
        top_p=st.floats(0.1, 1),
        min_p=st.floats(0, 0.5),
    )
    params = data.draw(st.lists(some, min_size=1, max_size=6))
    logits = torch.randn(len(params), 20, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    together = choose_tokens(logits, params, [torch.Generator().manual_seed(row) for row in range(len(params))])
    alone = [
        choose_tokens(logits[row : row + 1], [each], [torch.Generator().manual_seed(row)])[0]
        for row, each in enumerate(params)
    ]
    assert together == alone


def test_logprobs() -> None:
    found = token_logprobs(LOGITS, TOKEN[2], 2)
    assert found.token_id == TOKEN[2]
    assert found.logprob == pytest.approx(float(PROBS[2].log()))
    assert [token for token, _ in found.top] == [TOKEN[0], TOKEN[1]]
    assert found.top[0][1] == pytest.approx(float(PROBS[0].log()))
    assert len(token_logprobs(LOGITS, 0, 99).top) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -2),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("seed", -1),
        ("stop", ("",)),
        ("max_tokens", 0),
        ("min_tokens", 17),
        ("logprobs", -1),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"sampling: {name} is "):
        SamplingParams(**{name: value})


HOT: dict[str, Any] = {"temperature": 1.0, "max_tokens": 12}


def tokens_of(engine: Engine, prompts: list[list[int]], params: Any) -> list[list[int]]:
    return [outcome.output_token_ids for outcome in engine.generate(prompts, params)]  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_tokens_in_any_batch(make_engine: Callable[..., Engine]) -> None:
    seeded = SamplingParams(seed=5, **HOT)
    alone = tokens_of(make_engine("vllm"), [[1, 2, 3]], seeded)[0]
    others = [[9] * length for length in (3, 11, 30)]
    engine = make_engine("sarathi-serve", blocks=16, settings={"max_num_batched_tokens": 5})
    crowd = tokens_of(engine, [*others, [1, 2, 3]], [SamplingParams(**HOT)] * 3 + [seeded])
    assert crowd[-1] == alone
    assert tokens_of(make_engine("vllm"), [[1, 2, 3]], SamplingParams(seed=6, **HOT))[0] != alone


def test_requests_without_a_seed_differ_and_repeat_with_the_engines(make_engine: Callable[..., Engine]) -> None:
    prompts, params = [[1, 2, 3]] * 3, SamplingParams(**HOT)
    first = tokens_of(make_engine(seed=1), prompts, params)
    assert len({tuple(tokens) for tokens in first}) == 3
    assert tokens_of(make_engine(seed=1), prompts, params) == first
    assert tokens_of(make_engine(seed=2), prompts, params) != first
