"""Which requests the benchmarks serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bench_workload import BenchWorkload
from traces.errors import InputError


def test_the_shared_script_has_its_published_tokens() -> None:
    """nano-vllm's page reports 133,966 output tokens for its 256 requests."""
    workload = BenchWorkload(dataset="nano-vllm").open(seed=5)
    assert len(workload) == 256
    assert workload.output_tokens.sum() == 133_966
    for lengths in (workload.prompt_tokens, workload.output_tokens):
        assert (lengths.min() >= 100, lengths.max() <= 1024) == (True, True)
    assert not workload.arrival_s.any()


def test_a_smaller_shared_script_is_its_beginning() -> None:
    whole, some = (BenchWorkload(dataset="nano-vllm", num_prompts=count).open(0) for count in (None, 7))
    assert some.prompt_tokens.tolist() == whole.prompt_tokens[:7].tolist()
    assert some.output_tokens.tolist() == whole.output_tokens[:7].tolist()


@given(
    input_len=st.integers(1, 500),
    output_len=st.integers(1, 500),
    ratio=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
def test_random_lengths_stay_in_their_range(input_len: int, output_len: int, ratio: float, seed: int) -> None:
    asked = BenchWorkload(num_prompts=20, input_len=input_len, output_len=output_len, range_ratio=ratio)
    workload = asked.open(seed)
    for lengths, middle in ((workload.prompt_tokens, input_len), (workload.output_tokens, output_len)):
        assert lengths.min() >= max(1, int(middle * (1 - ratio)))
        assert lengths.max() <= np.ceil(middle * (1 + ratio))
    assert workload.prompt_tokens.tolist() == asked.open(seed).prompt_tokens.tolist()


def test_equal_lengths_without_a_range_and_others_by_seed() -> None:
    assert set(BenchWorkload(num_prompts=9, input_len=12, output_len=3).open(0).total_tokens.tolist()) == {15}
    wide = BenchWorkload(num_prompts=9, range_ratio=0.9)
    assert wide.open(0).prompt_tokens.tolist() != wide.open(1).prompt_tokens.tolist()


def test_a_trace_gives_its_lengths_and_no_times(tmp_path: Path) -> None:
    rows = "\n".join(f"2024-05-10 00:00:0{second},{10 + second},{3 + second}" for second in range(6))
    (tmp_path / "trace.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n")
    workload = BenchWorkload(workload=str(tmp_path / "trace.csv"), num_prompts=4, length_scale=0.5).open(0)
    assert workload.prompt_tokens.tolist() == [5, 6, 6, 6]
    assert workload.output_tokens.tolist() == [2, 2, 2, 3]
    assert workload.arrival_s.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "sharegpt"}, "--dataset-name: unknown dataset 'sharegpt'; expected one of random, nano-vllm"),
        ({"num_prompts": 0}, "--num-prompts: is 0; expected an integer >= 1"),
        ({"input_len": 0}, "--input-len: is 0"),
        ({"output_len": -3}, "--output-len: is -3"),
        ({"range_ratio": 1.0}, "--random-range-ratio: is 1.0; expected a number in [0, 1)"),
        ({"dataset": "nano-vllm", "num_prompts": 257}, "--num-prompts: is 257; expected at most 256"),
        ({"workload": "chat", "input_len": 5}, "--input-len: does not go with --workload"),
        ({"workload": "chat", "dataset": "nano-vllm"}, "--dataset-name: does not go with --workload"),
    ],
)
def test_what_cannot_be_served(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        BenchWorkload(**values)
    assert str(caught.value).startswith(message)
