"""Whether the KV cache adds up: every block is free, or held by whoever should hold it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from math import isnan

from policies.policy import Policy
from policies.sequence import Sequence


def count_problem(policy: Policy) -> str | None:
    """Return what is wrong with the mere counts of a policy with no batch in flight, None where nothing is; O(1)."""
    used, residents, most = policy.pool.used, policy.residents, policy.memory.blocks
    if not 0 <= used <= most or policy.pool.free != most - used:
        return f"{used} KV blocks in use and {policy.pool.free} free are not the {most} that there are"
    if residents < len(policy.decodes) + len(policy.prefilling):
        return f"{len(policy.decodes)} decodes and {len(policy.prefilling)} prefills are not {residents} residents"
    if bool(used) != bool(residents):
        return f"{residents} residents hold {used} KV blocks"
    return None


def kv_problem(policy: Policy, live: Collection[Sequence]) -> str | None:
    """Return what does not add up in the KV cache of a policy with no batch in flight, None where all does.

    Parameters
    ----------
    live
        The requests that have not ended; a policy that chooses ahead lets those go later that have.
    """
    holders = policy.holders
    held = Counter(block for sequence in holders for block in sequence.blocks)
    free = policy.pool.free_blocks()
    unknown = {sequence for sequence in live if sequence.blocks} - set(holders)
    gone = {sequence for sequence in holders if isnan(sequence.finished_s)} - set(live)
    for wrong, what in (
        (len(holders) != policy.residents, f"{len(holders)} sequences hold KV, not {policy.residents}"),
        (bool(unknown), f"{len(unknown)} requests hold KV that the policy does not know of"),
        (bool(gone), f"{len(gone)} sequences hold KV and are no request's"),
        (len(held) != policy.pool.used, f"{len(held)} KV blocks are held and {policy.pool.used} in use"),
        (len(set(free)) != len(free), "a KV block is free twice"),
        (not held.keys().isdisjoint(free), "a KV block is free and held"),
        (any(policy.pool.holders(block) != count for block, count in held.items()), "a KV block has a wrong owner"),
    ):
        if wrong:
            return what
    return count_problem(policy)
