"""How often in a row a policy would schedule the same batch."""

from policies import choose
from policies.batch import Batch
from policies.blocks import KVMemory
from policies.policy import Policy
from policies.sequence import Sequence

PREFIX = (1, 2, 3)


def two_alike(blocks: int, **settings: int) -> tuple[Policy, Batch]:
    """Return a policy that has scheduled the first chunk of a prompt while another that begins alike waits."""
    memory = KVMemory(blocks=blocks, block_size=16, max_model_len=64)
    policy = choose("vllm-v1", max_num_seqs=4, **settings).build(memory)
    for request in range(2):
        policy.add(Sequence(request, arrival_s=0.0, prompt_tokens=60, output_tokens=4, block_hashes=PREFIX))
    batch = policy.schedule(0.0)
    assert batch is not None
    assert requests_of(batch) == [0]
    return policy, batch


def requests_of(batch: Batch) -> list[int]:
    return [chunk.sequence.request_id for chunk in batch.chunks]


def test_a_chunk_that_fills_a_block_may_let_the_first_in_the_queue_in() -> None:
    """The second half of a block takes none, and gives the waiting request one of the blocks that it lacked."""
    policy, batch = two_alike(4, max_num_batched_tokens=64, long_prefill_token_threshold=8)
    assert policy.repeats(batch) == 1
    policy.complete(batch, 1.0)
    second = policy.schedule(1.0)
    assert second is not None
    assert requests_of(second) == [0, 1]


def test_a_chunk_that_takes_the_whole_budget_repeats_beside_a_queue() -> None:
    policy, batch = two_alike(4, max_num_batched_tokens=8)
    assert policy.repeats(batch) == 60 // 8
    for time in range(1, 60 // 8):
        policy.complete(batch, float(time))
        batch = policy.schedule(float(time))  # type: ignore[assignment]
        assert requests_of(batch) == [0]
