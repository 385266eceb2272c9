"""The search for the tokens that fit finds what trying all of them finds."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batch import Batch
from policies.budget import STEP, Budget, cheapest
from policies.prospect import Prospect
from policies.sequence import Sequence


def prospect_of(decodes: int, prompts: list[int]) -> Prospect:
    batch = Batch()
    batch.decodes = batch.outputs = decodes
    sequences = [
        Sequence(number, arrival_s=0.0, prompt_tokens=tokens, output_tokens=1) for number, tokens in enumerate(prompts)
    ]
    return Prospect(batch, iter(sequences))


def linear(prospect: Prospect) -> float:
    return 0.01 + 1e-4 * prospect.tokens + 1e-5 * len(prospect.chunks)


def curved(prospect: Prospect) -> float:
    return linear(prospect) + 1e-8 * prospect.prefill_tokens**2


def best(times: Callable[[Prospect], float], decodes: int, prompts: list[int], limit_s: float, most: int) -> int:
    """Try every number of tokens."""
    available = sum(prompts)
    found = 0
    for tokens in range(1, min(most - decodes, available) + 1):
        if tokens in (available, most - decodes) or (tokens + decodes) % STEP == 0:
            prospect = prospect_of(decodes, prompts)
            prospect.take(tokens)
            if times(prospect) <= limit_s:
                found = tokens
    return found


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 150), st.lists(st.integers(1, 3000), min_size=1, max_size=5), st.floats(0.005, 0.4)),
        min_size=1,
        max_size=4,
    ),
    times=st.sampled_from([linear, curved]),
    most=st.integers(200, 4000),
)
def test_it_finds_the_most_that_fits(
    turns: list[tuple[int, list[int], float]], times: Callable[[Prospect], float], most: int
) -> None:
    budget = Budget(times, most=most, least=16)
    for decodes, prompts, limit_s in turns:
        prospect = prospect_of(decodes, prompts)
        expected_s = budget.spend(prospect, limit_s)
        found = best(times, decodes, prompts, limit_s, most)
        tokens = prospect.prefill_tokens
        if tokens == found - STEP:
            assert times is curved
        else:
            assert tokens == (found or min(16, sum(prompts), most - decodes))
        assert expected_s == times(prospect)


def test_a_last_tile_that_is_half_empty_is_left_out() -> None:
    def tiled(prospect: Prospect) -> float:
        return 1e-4 * 128 * -(-prospect.tokens // 128)

    prospect = prospect_of(10, [5000])
    Budget(tiled, most=4096, least=16).spend(prospect, 1e-4 * 128 * 7.9)
    assert prospect.tokens == 7 * 128
    slow_start = prospect_of(10, [5000])
    Budget(lambda each: tiled(each) + 1.0, most=4096, least=16).spend(slow_start, 1.0 + 1e-4 * 128 * 7.5)
    assert slow_start.tokens % 64 == 0


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(decodes=st.integers(0, 9), prompts=st.lists(st.integers(1, 50), max_size=6), asked=st.integers(0, 400))
def test_a_prospect_holds_what_a_batch_would(decodes: int, prompts: list[int], asked: int) -> None:
    prospect = prospect_of(decodes, prompts)
    taken = prospect.take(asked)
    assert taken == prospect.prefill_tokens == min(asked, sum(prompts)) == sum(each.tokens for each in prospect.chunks)
    assert prospect.outputs == decodes + sum(chunk.ends_prompt for chunk in prospect.chunks)
    assert all(chunk.tokens > 0 for chunk in prospect.chunks)
    assert all(chunk.ends_prompt for chunk in prospect.chunks[:-1])


def test_the_cheapest_number_of_tokens() -> None:
    def seconds(tokens: int) -> float:
        return 0.01 + 1e-5 * 640 * -(-tokens // 640) + 1e-8 * tokens**2

    assert cheapest(seconds, 4096) == min([*range(64, 4096, 64), 4096], key=lambda each: seconds(each) / each)
    assert cheapest(lambda tokens: 1.0 + tokens, 100) == 100
    assert cheapest(lambda tokens: float(tokens), 5) == 5
