"""How many requests fit on one GPU (SARATHI, sections 3.1 and 4.3.1)."""

from __future__ import annotations

from dataclasses import replace

from profiler.deployment import Deployment


def largest_batch(deployment: Deployment, length: int) -> int:
    """Return how many requests of ``length`` tokens fit, with the activations of a prefill of all of them at once.

    The engine keeps room for the longest request in each seat, and the baseline runs all prompts in one batch.
    """
    seats = 0
    while fits(deployment, seats + 1, length):
        seats += 1
    return seats


def fits(deployment: Deployment, seats: int, length: int) -> bool:
    """Return whether so many requests fit."""
    sized = replace(deployment, max_num_batched_tokens=seats * length, max_num_seqs=seats, max_model_len=length)
    (memory,) = sized.stage_memory
    usable = int(sized.hardware.memory_bytes * sized.gpu_memory_utilization)
    kv = seats * -(-length // sized.block_size) * memory.kv_block
    return memory.weights + memory.activations + memory.reserve + kv <= usable


def by_formula(deployment: Deployment, length: int) -> int:
    """Return the paper's formula: memory less weights, over the KV cache of a request; nothing else takes room."""
    free = deployment.hardware.memory_bytes - deployment.stage_memory[0].weights
    return int(free // (length * deployment.spec.kv_bytes_per_token()))
