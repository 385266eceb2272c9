"""The ready decodes against plain lists: who is taken, and how few change sets."""

from __future__ import annotations

from random import Random

import pytest

from policies import Sequence
from policies.decode_set import DecodeSet, rank_of
from policies.ready_decodes import MOST_OTHERS, ReadyDecodes


def decode(number: int) -> Sequence:
    """A sequence whose first output token is out."""
    sequence = Sequence(number, arrival_s=0.0, prompt_tokens=5, output_tokens=10_000)
    sequence.computed, sequence.generated, sequence.last_token_s = 5, 1, 0.0
    return sequence


@pytest.mark.parametrize("seed", range(40))
def test_the_first_in_order_of_priority_are_taken(seed: int) -> None:
    random = Random(seed)
    ready, plain, in_flight = ReadyDecodes(4), [], []
    numbers = random.sample(range(10_000), 400)
    for _ in range(400):
        action = random.choice(("add", "add", "take", "take", "back", "back", "leave"))
        if action == "add" and numbers:
            plain.append(decode(numbers.pop()))
            ready.add(plain[-1])
        elif action == "take" and len(in_flight) < 4:
            count = random.choice((0, 1, 3, 8, 20))
            taken = ready.take(count)
            plain.sort(key=rank_of)
            assert taken.by_rank() == plain[:count]
            del plain[:count]
            in_flight.append(taken)
        elif action == "back" and in_flight:
            back = in_flight.pop(random.randrange(len(in_flight)))
            back.advance(1.0)
            plain += back
            ready.put_back(back)
        elif action == "leave" and plain:
            leaving = plain.pop(random.randrange(len(plain)))
            leaving.group.remove(leaving)
        check(ready, plain, in_flight)
    assert numbers != []


def check(ready: ReadyDecodes, plain: list[Sequence], in_flight: list[DecodeSet]) -> None:
    in_order = sorted(plain, key=rank_of)
    assert ready.by_rank() == in_order
    assert len(ready) == ready.size == len(plain)
    assert ready.latest == (in_order[-1] if in_order else None)
    assert all(sequence in ready for sequence in plain)
    assert not any(sequence in ready for group in in_flight for sequence in group)
    assert len(ready._sets()) <= MOST_OTHERS + 1


def test_micro_batches_that_stay_the_same_move_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that come back together are told apart again by who was in which."""
    ready = ReadyDecodes(4)
    for number in range(60):
        ready.add(decode(number))
    first, second = ready.take(30), ready.take(30)
    moved: list[Sequence] = []
    monkeypatch.setattr(DecodeSet, "remove", lambda _, sequence: moved.append(sequence))
    for _ in range(10):
        ready.put_back(second)
        ready.put_back(first)
        assert (ready.take(30), ready.take(30)) == (first, second)
    assert moved == []


def test_only_those_that_differ_change_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = ReadyDecodes(4)
    for number in range(61):
        ready.add(decode(number))
    first, second = ready.take(30), ready.take(30)
    leaving = first.by_rank()[3]
    first.remove(leaving)
    moved = 0
    remove = DecodeSet.remove

    def counted(group: DecodeSet, sequence: Sequence) -> None:
        nonlocal moved
        moved += 1
        remove(group, sequence)

    monkeypatch.setattr(DecodeSet, "remove", counted)
    ready.put_back(second)
    ready.put_back(first)
    assert [sequence.rank for sequence in ready.take(30).by_rank()] == [n for n in range(31) if n != leaving.rank]
    assert moved == 1
