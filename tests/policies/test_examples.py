"""The policies side by side: three requests, and the exact batches that each policy makes of them.

A: 4 prompt tokens, 3 output tokens, at second 0. B: 6 and 2, at second 0. C: 3 and 2, at second 1.
An iteration takes a second. ``A[0:4]`` is a prefill chunk of the prompt tokens 0 to 3; the iteration that
runs the last prompt token also yields the first output token.
"""

from __future__ import annotations

from typing import Any

from oracle.job import Request
from oracle.systems import PolicySystem

from policies import Batch, KVMemory, Sequence, choose

A = Request(0, arrival_s=0.0, prompt_tokens=4, output_tokens=3)
B = Request(1, arrival_s=0.0, prompt_tokens=6, output_tokens=2)
C = Request(2, arrival_s=1.0, prompt_tokens=3, output_tokens=2)


def name(sequence: Sequence) -> str:
    return "ABCD"[sequence.request_id]


def describe(batch: Batch) -> str:
    decodes = [name(sequence) for sequence in batch.decode_sequences()]
    chunks = [f"{name(chunk.sequence)}[{chunk.past}:{chunk.past + chunk.tokens}]" for chunk in batch.chunks]
    parts = (["decode", *decodes] if decodes else []) + (["prefill", *chunks] if chunks else [])
    return " ".join(parts)


def batches(
    policy: str, *requests: Request, blocks: int = 40, block_size: int = 4, stages: int = 1, **settings: Any
) -> list[str]:
    """Play the requests, ``stages`` batches at a time; each batch takes a second."""
    memory = KVMemory(blocks=blocks, block_size=block_size, max_model_len=16)
    system = PolicySystem(choose(policy, **settings).build(memory, stages=stages))
    upcoming, seen = list(requests), []
    for second in range(50):
        while upcoming and upcoming[0].arrival_s <= second:
            system.add(upcoming.pop(0))
        while system.schedule(float(second)) is not None:
            seen.append(describe(system.flying[-1]))
        if system.in_flight:
            system.complete(second + 1.0)
    assert not system.has_work
    return seen


def test_faster_transformer_lets_nobody_join_a_batch() -> None:
    assert batches("faster-transformer", A, B, C) == [
        "prefill A[0:4] B[0:6]",
        "decode A B",
        "decode A",
        "prefill C[0:3]",
        "decode C",
    ]


def test_orca_runs_whole_prompts_beside_decodes() -> None:
    assert batches("orca", A, B, C) == [
        "prefill A[0:4] B[0:6]",
        "decode A B prefill C[0:3]",
        "decode A C",
    ]


def test_orca_reserves_the_longest_context() -> None:
    """4 blocks each: two reservations go into 8 blocks, although all three requests would fit."""
    assert batches("orca", A, B, C, blocks=8) == [
        "prefill A[0:4] B[0:6]",
        "decode A B",
        "decode A prefill C[0:3]",
        "decode C",
    ]


def test_vllm_stalls_decodes_for_a_new_prompt() -> None:
    assert batches("vllm", A, B, C) == [
        "prefill A[0:4] B[0:6]",
        "prefill C[0:3]",
        "decode A B C",
        "decode A",
    ]


def test_sarathi_runs_one_chunk_that_makes_way_for_decodes() -> None:
    assert batches("sarathi", A, B, C, chunk_size=4, tile_size=4) == [
        "prefill A[0:4]",
        "decode A prefill B[0:3]",
        "decode A prefill B[3:6]",
        "decode B prefill C[0:3]",
        "decode C",
    ]


def test_sarathi_serve_fills_the_budget_and_stalls_nobody() -> None:
    assert batches("sarathi-serve", A, B, C, max_num_batched_tokens=6) == [
        "prefill A[0:4] B[0:2]",
        "decode A prefill B[2:6] C[0:1]",
        "decode A B prefill C[1:3]",
        "decode C",
    ]


def test_hybrid_only_does_not_chunk() -> None:
    assert batches("hybrid-only", A, B, C) == [
        "prefill A[0:4] B[0:6]",
        "decode A B prefill C[0:3]",
        "decode A C",
    ]


def test_chunked_only_takes_turns() -> None:
    """B's second chunk leaves 2 tokens of the budget, but C is not admitted beside an unfinished prompt."""
    assert batches("chunked-only", A, B, C, max_num_batched_tokens=6) == [
        "prefill A[0:4] B[0:2]",
        "decode A",
        "prefill B[2:6]",
        "decode A B",
        "prefill C[0:3]",
        "decode C",
    ]


def test_chunked_only_keeps_its_turn_when_asked_in_vain() -> None:
    """A's prefill is in flight, its decode turn comes next, even though nothing was ready for it at first."""
    one = Request(0, arrival_s=0.0, prompt_tokens=4, output_tokens=2)
    two = Request(1, arrival_s=1.0, prompt_tokens=4, output_tokens=1)
    assert batches("chunked-only", one, two, stages=2) == ["prefill A[0:4]", "decode A", "prefill B[0:4]"]


def test_vllm_v1_serves_all_in_order_of_admission_from_one_budget() -> None:
    assert batches("vllm-v1", A, B, C, max_num_seqs=4, max_num_batched_tokens=6, long_prefill_token_threshold=3) == [
        "prefill A[0:3] B[0:3]",
        "prefill A[3:4] B[3:6] C[0:2]",
        "decode A B prefill C[2:3]",
        "decode A C",
    ]


def test_vllm_v1_ahead_sees_arrivals_and_free_seats_one_batch_later() -> None:
    """C comes while the first batch runs, when the second is chosen already. With two seats it waits for B's, whose
    last token comes out with the second batch, when the third is chosen already.
    """
    one_by_one = ["prefill A[0:4] B[0:6]", "decode A B prefill C[0:3]", "decode A C"]
    assert batches("vllm-v1", A, B, C) == one_by_one
    late = Request(2, arrival_s=0.5, prompt_tokens=3, output_tokens=2)
    ahead = ["prefill A[0:4] B[0:6]", "decode A B", "decode A prefill C[0:3]", "decode C"]
    assert batches("vllm-v1", A, B, late, async_scheduling=True) == ahead
    seats = ["prefill A[0:4] B[0:6]", "decode A B", "decode A", "prefill C[0:3]", "decode C"]
    assert batches("vllm-v1", A, B, late, max_num_seqs=2, async_scheduling=True) == seats


def test_vllm_v1_ahead_takes_the_blocks_of_one_that_is_ending_rather_than_preempt() -> None:
    """B's only token comes out with the first batch; its block is still held when A needs a third."""
    a = Request(0, arrival_s=0.0, prompt_tokens=8, output_tokens=2)
    b = Request(1, arrival_s=0.0, prompt_tokens=4, output_tokens=1)
    assert batches("vllm-v1", a, b, blocks=3, async_scheduling=True) == ["prefill A[0:8] B[0:4]", "decode A"]


def test_vllm_v1_ahead_serves_at_once_what_arrives_while_nothing_runs() -> None:
    assert batches("vllm-v1", C, async_scheduling=True) == ["prefill C[0:3]", "decode C"]


def test_vllm_v1_finds_a_common_beginning_again() -> None:
    """A and B share their first block of 4 tokens, of C's prompt at least one token is left to run."""
    a = Request(0, 0.0, prompt_tokens=6, output_tokens=2, block_hashes=(11,))
    b = Request(1, 0.0, prompt_tokens=9, output_tokens=1, block_hashes=(11, 12))
    c = Request(2, 0.0, prompt_tokens=8, output_tokens=1, block_hashes=(11, 12))
    assert batches("vllm-v1", a, b, c) == ["prefill A[0:6] B[4:9] C[4:8]", "decode A"]


def test_vllm_v1_forgets_what_was_unused_for_longest() -> None:
    """3 blocks: B takes the one never used and A's second, so C finds only the first of A's blocks."""
    a = Request(0, 0.0, prompt_tokens=8, output_tokens=1, block_hashes=(11, 12))
    b = Request(1, 1.0, prompt_tokens=8, output_tokens=1, block_hashes=(21, 22))
    c = Request(2, 2.0, prompt_tokens=9, output_tokens=1, block_hashes=(11, 12))
    assert batches("vllm-v1", a, b, c, blocks=3) == ["prefill A[0:8]", "prefill B[0:8]", "prefill C[4:9]"]


def test_vllm_v1_keeps_a_second_block_of_equal_content_once_the_first_is_gone() -> None:
    """A and B run the same block, since one token is always left to run; C then takes A's, D finds B's."""
    a = Request(0, 0.0, prompt_tokens=4, output_tokens=1, block_hashes=(11,))
    b = Request(1, 0.0, prompt_tokens=4, output_tokens=3, block_hashes=(11,))
    c = Request(2, 1.0, prompt_tokens=8, output_tokens=1, block_hashes=(31, 32))
    d = Request(3, 3.0, prompt_tokens=5, output_tokens=1, block_hashes=(11,))
    assert batches("vllm-v1", a, b, c, d, blocks=4) == [
        "prefill A[0:4] B[0:4]",
        "decode B prefill C[0:8]",
        "decode B",
        "prefill D[4:5]",
    ]


def test_vllm_v1_frees_in_order_of_admission_what_ends_together() -> None:
    """A was admitted before B but decodes after it; C takes blocks of A's, so that D still finds B's."""
    a = Request(0, 0.0, prompt_tokens=8, output_tokens=2, block_hashes=(11, 12))
    b = Request(1, 0.0, prompt_tokens=4, output_tokens=3, block_hashes=(21,))
    c = Request(2, 3.0, prompt_tokens=8, output_tokens=1, block_hashes=(31, 32))
    d = Request(3, 5.0, prompt_tokens=5, output_tokens=1, block_hashes=(21,))
    assert batches("vllm-v1", a, b, c, d, blocks=5, long_prefill_token_threshold=4) == [
        "prefill A[0:4] B[0:4]",
        "decode B prefill A[4:8]",
        "decode A B",
        "prefill C[0:4]",
        "prefill C[4:8]",
        "prefill D[4:5]",
    ]


def test_a_decode_without_a_block_preempts_the_latest_arrival() -> None:
    """11 blocks of one token: there B lacks its sixth, goes, and later runs its 3 output tokens as prompt."""
    one = Request(0, 0.0, prompt_tokens=3, output_tokens=5)
    two = Request(1, 0.0, prompt_tokens=3, output_tokens=5)
    assert batches("sarathi-serve", one, two, blocks=11, block_size=1, watermark=0.0) == [
        "prefill A[0:3] B[0:3]",
        "decode A B",
        "decode A B",
        "decode A",
        "decode A",
        "prefill B[0:6]",
        "decode B",
    ]


def test_the_watermark_keeps_blocks_free_for_decodes() -> None:
    """10 blocks, 2 of them spared: A's 4 and B's 6 would fill them all."""
    assert batches("sarathi-serve", A, B, blocks=10, block_size=1, watermark=0.2) == [
        "prefill A[0:4]",
        "decode A",
        "decode A",
        "prefill B[0:6]",
        "decode B",
    ]


def test_a_pipeline_splits_the_seats_into_micro_batches() -> None:
    """Four seats, two stages: two sequences a batch, and what is in flight is not ready for the next."""
    requests = [Request(number, 0.0, prompt_tokens=4, output_tokens=2) for number in range(4)]
    assert batches("orca", *requests, stages=2, max_num_seqs=4) == [
        "prefill A[0:4] B[0:4]",
        "prefill C[0:4] D[0:4]",
        "decode A B",
        "decode C D",
    ]
