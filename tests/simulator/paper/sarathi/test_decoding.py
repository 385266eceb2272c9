"""Decode speedup against plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.costs import BatchLike
from simulator.paper.sarathi.decoding import alone_s, beside_s, decode_speedup


@dataclass(frozen=True)
class Weights:
    """Reading the weights takes 36 s, tokens are for free; a decode attends for 2 s per 1,000 tokens of context."""

    token_s: float = 0.0

    def iteration_time(self, batch: BatchLike, stage: int = 0) -> float:
        tokens = batch.prefill_tokens + batch.decodes
        return 36.0 + self.token_s * tokens + 0.002 * batch.decode_context_sum

    def interval(self, batch: BatchLike, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        return self.iteration_time(batch), self.iteration_time(batch)


def test_alone_a_decode_pays_its_share_of_the_weights() -> None:
    assert alone_s(Weights(), 4, 1000) == pytest.approx(36 / 4 + 2)


def test_beside_a_prefill_it_pays_for_its_attention_alone() -> None:
    assert beside_s(Weights(), 253, 3, 1000) == pytest.approx(2)


@given(batch=st.integers(2, 64), context=st.integers(1, 8192))
def test_the_speedup_is_the_weights_over_attention(batch: int, context: int) -> None:
    attention_s = 0.002 * context
    expected = (36 / batch + attention_s) / attention_s
    assert decode_speedup(Weights(), chunk=256, batch=batch, context=context) == pytest.approx(expected)


def test_tokens_that_cost_something_count_beside_the_prefill_too() -> None:
    """24 decodes' tokens beside a prefill that leaves them room: each pays for itself."""
    found = decode_speedup(Weights(token_s=0.5), chunk=256, batch=25, context=1000)
    assert found == pytest.approx((36 / 25 + 0.5 + 2) / (0.5 + 2))
