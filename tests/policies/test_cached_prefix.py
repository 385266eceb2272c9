"""The cached blocks of the request that waits, kept up to date, against a search from the beginning each time."""

from __future__ import annotations

from random import Random

import pytest

from policies import KVMemory, Sequence
from policies.prefix_cache import PrefixCachePool

SIZE = 4


def request(number: int, hashes: list[int]) -> Sequence:
    tokens = SIZE * len(hashes) + 1
    return Sequence(number, arrival_s=0.0, prompt_tokens=tokens, output_tokens=9, block_hashes=hashes)


def searched(pool: PrefixCachePool, sequence: Sequence) -> list[int]:
    """The hits as the rule says it: block after block, until one is not there."""
    found = []
    for name in sequence.block_hashes:
        block = pool._named.get(name)
        if block is None:
            break
        found.append(block)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_what_is_remembered_is_what_a_new_search_finds(seed: int) -> None:
    """With names that occur twice in a prompt, and prompts that are no prefixes of each other."""
    random = Random(seed)
    pool = PrefixCachePool(KVMemory(blocks=24, block_size=SIZE))
    names = [random.randrange(12) if random.random() < 0.2 else number for number in range(10)]
    waiting, resident, seen, asked = request(0, names), [], set(), 0
    for number in range(1, 300):
        action = random.choice(("admit", "admit", "leave", "leave", "grow", "ask", "ask", "admit waiting", "other"))
        if action == "admit" and pool.free > 11:
            sequence = request(number, [*names[: random.randint(0, 10)], 100 + number])
            pool.share(sequence, pool.hits(sequence))
            pool.allocate(sequence, len(sequence.block_hashes) - len(sequence.blocks))
            sequence.computed = SIZE * len(sequence.blocks)
            pool.register(sequence, 0, sequence.computed)
            resident.append(sequence)
        elif action == "leave" and resident:
            pool.release(resident.pop(random.randrange(len(resident))))
        elif action == "grow" and resident and pool.free:
            pool.allocate(random.choice(resident), 1)
        elif action == "admit waiting" and pool.free > 11 and random.random() < 0.1:
            pool.share(waiting, pool.hits(waiting))
            resident.append(waiting)
            waiting = request(number, names)
        elif action == "other" and random.random() < 0.2:
            assert pool.hits(other := request(number, names[::-1])).blocks == searched(pool, other)
        if action != "other" and random.random() < 0.7:
            found = pool.hits(waiting)
            assert found.blocks == searched(pool, waiting)
            assert found.idle == sum(not pool._holders[block] for block in found.blocks)
            seen.add(len(found))
            asked += 1
    assert asked > 100
    assert len(seen) > 1
