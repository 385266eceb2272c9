"""The set of decodes against one that counts each member by itself, and what it keeps of those that left."""

from __future__ import annotations

from random import Random

import pytest

from policies import Sequence
from policies.decode_set import DecodeSet


def member(number: int, *, computed: int = 5, output_tokens: int = 100, last_token_s: float = 0.0) -> Sequence:
    """A sequence whose first output token is out."""
    sequence = Sequence(number, arrival_s=0.0, prompt_tokens=computed, output_tokens=output_tokens)
    sequence.computed, sequence.generated, sequence.last_token_s = computed, 1, last_token_s
    return sequence


def test_an_empty_set() -> None:
    empty = DecodeSet(4)
    assert (len(empty), empty.context_sum, empty.context_max, empty.latest) == (0, 0, 0, None)
    assert not empty.crossing()
    assert empty.by_rank() == []


def test_contexts_count_the_token_that_runs() -> None:
    decodes = DecodeSet(4)
    decodes.add(member(0, computed=5))
    decodes.add(member(1, computed=7))
    assert (decodes.context_sum, decodes.context_max) == (14, 8)
    decodes.advance(1.0)
    assert (decodes.context_sum, decodes.context_max) == (16, 9)


def test_a_block_is_due_when_the_tokens_there_fill_whole_blocks() -> None:
    decodes = DecodeSet(4)
    sequence = member(0, computed=6)
    decodes.add(sequence)
    due = []
    for tokens in range(6, 18):
        if decodes.crossing():
            due.append(tokens)
        decodes.advance(0.0)
    assert due == [8, 12, 16]


def test_gaps_are_told_apart_by_when_the_token_before_came_out() -> None:
    decodes = DecodeSet(4)
    decodes.add(member(0, last_token_s=1.0))
    decodes.add(member(1, last_token_s=1.0))
    decodes.add(member(2, last_token_s=2.5))
    assert sorted(decodes.advance(3.0)[1]) == [(0.5, 1), (2.0, 2)]
    assert decodes.advance(4.0)[1] == [(1.0, 3)]


def test_a_member_that_leaves_takes_its_counts_along() -> None:
    decodes = DecodeSet(4)
    stays, leaves = member(0), member(1, computed=9, last_token_s=0.5)
    decodes.add(stays)
    decodes.add(leaves)
    for second in (1.0, 2.0, 3.0):
        decodes.advance(second)
    decodes.remove(leaves)
    assert (leaves.computed, leaves.generated, leaves.last_token_s) == (12, 4, 3.0)
    assert (len(decodes), decodes.context_sum, decodes.latest) == (1, 9, stays)


def test_members_end_with_their_last_token() -> None:
    decodes = DecodeSet(4)
    short, long = member(0, output_tokens=3), member(1, output_tokens=4)
    decodes.add(short)
    decodes.add(long)
    ended = [decodes.advance(float(second))[0] for second in range(1, 4)]
    assert ended == [[], [short], [long]]
    assert (short.generated, long.generated) == (3, 4)


@pytest.mark.parametrize("seed", range(20))
def test_like_members_that_are_counted_one_by_one(seed: int) -> None:
    random = Random(seed)
    size = random.randint(1, 8)
    sets = [DecodeSet(size), DecodeSet(size)]
    plain: list[dict[Sequence, int]] = [{}, {}]
    for number in range(200):
        one = random.randrange(2)
        action = random.choice(("add", "add", "advance", "remove", "move"))
        if action == "add":
            sequence = member(number, computed=random.randint(1, 30))
            sets[one].add(sequence)
            plain[one][sequence] = sequence.computed
        elif action == "advance":
            sets[one].advance(float(number))
            plain[one] = {sequence: computed + 1 for sequence, computed in plain[one].items()}
        elif action == "remove" and plain[one]:
            sequence = random.choice(list(plain[one]))
            sets[one].remove(sequence)
            assert sequence.computed == plain[one].pop(sequence)
        elif action == "move":
            for sequence in random.sample(list(plain[0]), random.randint(0, len(plain[0]))):
                sets[0].remove(sequence)
                sets[1].add(sequence)
                plain[1][sequence] = plain[0].pop(sequence)
        for decodes, counted in zip(sets, plain, strict=True):
            same(decodes, counted, size)


def same(decodes: DecodeSet, counted: dict[Sequence, int], size: int) -> None:
    in_order = sorted(counted, key=lambda sequence: sequence.rank)
    assert decodes.by_rank() == in_order
    assert decodes.latest == (in_order[-1] if in_order else None)
    assert decodes.earliest == (in_order[0] if in_order else None)
    assert decodes.context_sum == sum(computed + 1 for computed in counted.values())
    assert decodes.context_max == max((computed + 1 for computed in counted.values()), default=0)
    assert set(decodes.crossing()) == {sequence for sequence, computed in counted.items() if computed % size == 0}


def test_little_is_kept_of_members_that_left() -> None:
    decodes = DecodeSet(4)
    decodes.add(member(0, computed=1000))
    for number in range(1, 5000):
        passing = member(number, computed=2000, output_tokens=number)
        decodes.add(passing)
        decodes.remove(passing)
    assert (len(decodes), decodes.context_sum) == (1, 1001)
    assert len(decodes._ending) == 1
    assert len(decodes._longest._entries) < 100
    assert len(decodes._latest._entries) < 100
