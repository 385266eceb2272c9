"""Every router's rule against a plain oracle that looks at all replicas, and how many replicas the router looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.catalog import ROUTERS, parse_router
from policies.routing.prefix_affinity import PrefixAffinity, PrefixAffinitySettings
from policies.routing.router import Router
from policies.sequence import Sequence
from traces.errors import InputError


@dataclass
class Paper:
    """A replica that is nothing but its load; counts how often it is looked at."""

    index: int
    weight: float = 1.0
    kv_blocks: int = 100
    held: list[int] = field(default_factory=list)
    looks: int = 0

    @property
    def requests(self) -> int:
        self.looks += 1
        return len(self.held)

    def blocks_used(self, now_s: float) -> int:
        return sum(self.held)

    @property
    def load(self) -> float:
        return (len(self.held) + 1) / self.weight


def sequence(request: int, hashes: tuple[int, ...] = ()) -> Sequence:
    return Sequence(request, arrival_s=0.0, prompt_tokens=100, output_tokens=5, block_hashes=hashes)


class Plain:
    """The rules, spelled out over all replicas that are up."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.last = name, -1
        self.drawn: Iterator[float] = iter(np.random.default_rng(seed).random(100_000).tolist())
        self.known: dict[int, Paper] = {}

    def choose(self, up: list[Paper], hashes: tuple[int, ...]) -> Paper:
        least = min(up, key=lambda member: (member.load, member.index))
        if self.name == "round-robin":
            later = [member for member in up if member.index > self.last]
            self.last = (later or up)[0].index
            return (later or up)[0]
        if self.name == "random":
            return up[int(next(self.drawn) * len(up))]
        if self.name == "least-kv":
            return min(up, key=lambda member: (sum(member.held) / member.kv_blocks, member.load, member.index))
        if self.name == "power-of-two":
            first = int(next(self.drawn) * len(up))
            if len(up) == 1:
                return up[0]
            others = [member for member in up if member is not up[first]]
            pair = [up[first], others[int(next(self.drawn) * len(others))]]
            return min(pair, key=lambda member: (member.load, member.index))
        if self.name == "prefix-affinity":
            prefix = [self.known[block] for block in hashes if block in self.known]
            best = prefix[-1] if prefix else least
            chosen = least if best.load > 1.5 * least.load + 2 / best.weight else best
            self.known |= dict.fromkeys(hashes, chosen)
            return chosen
        assert self.name == "least-requests"
        return least


def built(name: str, members: list[Paper], seed: int) -> Router[Paper]:
    text = f"{name}:slack=2" if name == "prefix-affinity" else name
    return parse_router(text, where="the test").build(members, seed=seed)


@pytest.mark.parametrize("name", ROUTERS)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), count=st.integers(1, 12), seed=st.integers(0, 5), unequal=st.booleans())
def test_it_chooses_as_its_rule_says(name: str, data: st.DataObject, count: int, seed: int, unequal: bool) -> None:
    members = [
        Paper(index, weight=0.5 + index % 3 if unequal else 1.0, kv_blocks=100 + 50 * (index % 2) * unequal)
        for index in range(count)
    ]
    router, plain = built(name, members, seed), Plain(name, seed)
    up = list(members)
    for request in range(40):
        event = data.draw(st.sampled_from(["arrives", "arrives", "arrives", "ends", "fails", "returns"]))
        some = members[data.draw(st.integers(0, count - 1))]
        if event == "arrives" and up:
            hashes = tuple(range(100 * (request % 4), 100 * (request % 4) + data.draw(st.integers(0, 5))))
            chosen = router.choose(sequence(request, hashes), float(request))
            assert chosen is plain.choose(up, hashes)
            chosen.held.append(data.draw(st.integers(1, 10)))
        elif event == "ends" and some in up and some.held:
            some.held.pop(data.draw(st.integers(0, len(some.held) - 1)))
            router.lighten(some)
        elif event == "fails" and some in up:
            up.remove(some)
            some.held.clear()
            router.leave(some)
            plain.known = {block: member for block, member in plain.known.items() if member is not some}
        elif event == "returns" and some not in up:
            up = sorted([*up, some], key=lambda member: member.index)
            router.join(some)
        assert len(router) == len(up)


@pytest.mark.parametrize("name", ROUTERS)
def test_the_same_seed_chooses_the_same(name: str) -> None:
    def chosen(seed: int) -> list[int]:
        members = [Paper(index) for index in range(20)]
        router = built(name, members, seed)
        found = []
        for request in range(200):
            member = router.choose(sequence(request), 0.0)
            member.held.append(1)
            found.append(member.index)
        return found

    assert chosen(1) == chosen(1)
    assert (chosen(1) != chosen(2)) == (name in ("random", "power-of-two"))


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("count", [10, 1000])
def test_it_looks_at_few_replicas_however_many_there_are(name: str, count: int) -> None:
    """Requests come and go; a look that finds a load changed is paid for by what changed it."""
    rng = np.random.default_rng(0)
    members = [Paper(index) for index in range(count)]
    router = built(name, members, 0)
    requests = 5 * count
    for request in range(requests):
        member = router.choose(sequence(request, (request % 50,)), float(request))
        member.held.append(1)
        if request > 2 * count:
            busy = members[int(rng.integers(count))]
            if busy.held:
                busy.held.pop()
                router.lighten(busy)
    looks = sum(member.looks for member in members)
    assert looks <= 8 * requests + count


def test_prefix_affinity_sends_a_prompt_to_the_longest_known_beginning() -> None:
    members = [Paper(index) for index in range(3)]
    router = PrefixAffinity(members, settings=PrefixAffinitySettings(overload=1.0, slack=2.0))
    first = router.choose(sequence(0, (1, 2, 3)), 0.0)
    first.held.append(1)
    assert first.index == 0
    assert router.choose(sequence(1, (1, 2, 9)), 0.0) is first, "two of its three blocks are known there"
    other = router.choose(sequence(2, (7, 8)), 0.0)
    assert other.index == 1, "nothing known: the least loaded"
    first.held += [1, 1, 1]
    assert router.choose(sequence(3, (1, 2, 3)), 0.0).index == 1, "four requests against none are too many"
    first.held.clear()
    router.lighten(first)
    assert router.choose(sequence(4, (1, 2)), 0.0).index == 1, "the prompt is known to be there now"
    router.leave(members[1])
    assert router.choose(sequence(5, (7, 8)), 0.0).index == 0, "what a failed replica held is lost"
    router.join(members[1])
    members[0].held.append(1)
    members[2].held.append(1)
    assert router.choose(sequence(6, (1, 2)), 0.0).index == 1, "the least loaded: it came back empty"


def test_prefix_affinity_remembers_no_more_than_it_may() -> None:
    router = PrefixAffinity([Paper(0), Paper(1)], settings=PrefixAffinitySettings(known_blocks=10))
    for request in range(100):
        router.choose(sequence(request, tuple(range(4 * request, 4 * request + 4))), 0.0)
    assert len(router._where) == 10
    assert set(range(392, 400)) < set(router._where), "the latest are kept"
    assert 388 in router._where, "of a prompt that is half forgotten the beginning is kept"


def test_unequal_replicas_share_by_weight() -> None:
    members = [Paper(0, weight=1.0), Paper(1, weight=3.0)]
    router = built("least-requests", members, 0)
    for request in range(40):
        router.choose(sequence(request), 0.0).held.append(1)
    assert [len(member.held) for member in members] == [10, 30]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("least-tokens", "--router: unknown router 'least-tokens'; expected one of round-robin, random"),
        ("least-kv:overload=2", "--router: least-kv has no setting 'overload'"),
        ("prefix-affinity:overlod=2", "unknown key 'overlod'; expected one of overload, slack, known_blocks"),
        ("prefix-affinity:overload=0.5", "overload is 0.5"),
        ("prefix-affinity:known_blocks=0", "known_blocks is 0"),
        ("prefix-affinity:overload", "setting 'overload'; expected name:setting=value"),
    ],
)
def test_an_unknown_router_or_setting_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_router(text, where="--router")
    assert complaint in str(caught.value)
