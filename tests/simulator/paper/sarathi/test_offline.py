"""End-to-end throughput against plain arithmetic, with iterations of 10 ms and 0.1 ms a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.batch import Batch
from simulator.paper.sarathi.offline import Load, baseline, gain, orca_best, orca_worst, sarathi, tokens_per_s
from tests.simulator.plain_times import PaperDeployment, PlainTimes

LOAD = Load(length=512, output_tokens=15, seats=8)


@dataclass(frozen=True)
class Iterations(PlainTimes):
    """10 ms and 0.1 ms a token."""

    deployment: Any = field(default_factory=PaperDeployment)
    token_s: float = 0.0001

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        return 0.010 + self.token_s * (batch.prefill_tokens + batch.decodes)

    def describe(self) -> dict[str, Any]:
        return {"device": "paper", "from": "paper", "transferred": False}


COSTS: Any = Iterations()


def test_the_baseline_runs_all_prompts_and_then_decodes_alone() -> None:
    round_s = 0.010 + 0.0001 * 8 * 497 + 14 * (0.010 + 0.0001 * 8)
    assert tokens_per_s(COSTS, LOAD, baseline(LOAD)) == pytest.approx(8 * 512 / round_s)


def test_a_balanced_load_fills_every_batch_of_sarathi() -> None:
    """512 tokens in chunks of 256 less 7 decodes: two iterations of 256 tokens a request, but for one token."""
    load = Load.balanced(256, length=512, seats=8)
    assert load == LOAD
    request_s = 2 * 0.010 + 0.0001 * (512 - 1)
    assert tokens_per_s(COSTS, load, sarathi(load, 256)) == pytest.approx(512 / request_s)


def test_orcas_best_case_runs_each_whole_prompt_beside_all_other_decodes() -> None:
    """Eight requests take turns: each prompt in one iteration with seven decodes, and seven with decodes alone."""
    turn_s = 15 * 0.010 + 0.0001 * 8 * (512 - 1)
    assert tokens_per_s(COSTS, LOAD, orca_best(LOAD)) == pytest.approx(8 * 512 / turn_s)


def test_orcas_worst_case_is_the_baseline() -> None:
    assert gain(COSTS, LOAD, orca_worst(LOAD)) == pytest.approx(1.0)


@pytest.mark.parametrize("ratio", [1.0, 5.0, 33.1, 200.0])
def test_more_rounds_give_the_same_throughput(ratio: float) -> None:
    load = Load.at(ratio, length=512, seats=8)
    for choice in (baseline(load), sarathi(load, 128), orca_best(load)):
        assert tokens_per_s(COSTS, load, choice, 2) == pytest.approx(tokens_per_s(COSTS, load, choice, 12), rel=0.01)


@given(ratio=st.floats(0.1, 300), length=st.integers(64, 8192), seats=st.integers(1, 64))
def test_a_load_has_its_length_and_nearly_its_ratio(ratio: float, length: int, seats: int) -> None:
    load = Load.at(ratio, length=length, seats=seats)
    assert load.prompt_tokens + load.output_tokens == length
    assert load.prompt_tokens >= 1
    assert load.output_tokens == pytest.approx(max(1, length / (1 + ratio)), abs=0.5)


@given(chunks=st.integers(1, 16), seats=st.integers(2, 40))
def test_balanced_prompts_fill_their_chunks_but_for_a_token(chunks: int, seats: int) -> None:
    load = Load.balanced(128, length=128 * chunks, seats=seats)
    assert load.prompt_tokens == chunks * (128 - seats + 1) - 1
    assert load.output_tokens - 1 == chunks * (seats - 1)
