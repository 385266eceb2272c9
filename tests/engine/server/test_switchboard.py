"""Engines that call in: who is let in, what they hear, and whose clock counts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import AuthenticationError
from queue import SimpleQueue
from time import perf_counter

import pytest

torch = pytest.importorskip("torch")

from engine.sampling import SamplingParams  # noqa: E402
from engine.server import switchboard  # noqa: E402
from engine.server.clock_shift import ShiftedLine  # noqa: E402
from engine.server.messages import Abort, Idle, Load, Produced, Served, Submit  # noqa: E402
from engine.server.switchboard import Caller, EngineLine, Switchboard, call  # noqa: E402
from tests.engine.server.watched import served, step  # noqa: E402

Calls = SimpleQueue[tuple[Caller, EngineLine]]


@pytest.fixture
def board() -> Iterator[tuple[Switchboard, Calls]]:
    calls: Calls = SimpleQueue()
    made = Switchboard("127.0.0.1", lambda caller, line: calls.put((caller, line)))
    yield made, calls
    made.close()


def test_a_call(board: tuple[Switchboard, Calls]) -> None:
    made, calls = board
    line, hang_up = call(made.hotline, 3)
    caller, theirs = calls.get(timeout=10)
    assert caller.index == 3
    assert theirs.pid == caller.pid
    line.send(["hello"])
    assert theirs.recv() == ["hello"]
    theirs.send(["you", 2])
    assert line.recv() == ["you", 2]
    hang_up()
    with pytest.raises(EOFError):
        theirs.recv()
    theirs.join()


def test_hanging_up_ends_the_other_end(board: tuple[Switchboard, Calls]) -> None:
    made, calls = board
    line, _ = call(made.hotline, 0)
    _, theirs = calls.get(timeout=10)
    theirs.kill()
    theirs.join()
    with pytest.raises(EOFError):
        line.recv()


def test_nobody_gets_in_who_does_not_know_the_secret(board: tuple[Switchboard, Calls]) -> None:
    made, calls = board
    with pytest.raises((AuthenticationError, EOFError)):
        call(replace(made.hotline, secret=b"guess"), 0)
    with socket.create_connection(("127.0.0.1", made.hotline.port)) as rude, suppress(OSError):
        rude.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    silent = socket.create_connection(("127.0.0.1", made.hotline.port))
    _line, _ = call(made.hotline, 1)
    assert calls.get(timeout=10)[0].index == 1
    assert calls.empty()
    silent.close()
    assert repr(made.hotline.secret) not in repr(made.hotline)


def test_a_switchboard_that_is_closed(board: tuple[Switchboard, Calls]) -> None:
    board[0].close()
    with pytest.raises(OSError, match="refused"):
        call(board[0].hotline, 0)


def test_another_boot_has_another_clock(board: tuple[Switchboard, Calls], monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks of two boots are compared; here both are one, and moments read as they were."""
    made, calls = board
    boots = iter(["theirs", "ours", "theirs"])
    monkeypatch.setattr(switchboard, "_boot", lambda: next(boots))
    line, _ = call(made.hotline, 0)
    _, theirs = calls.get(timeout=10)
    assert isinstance(line, ShiftedLine)
    line.send([step(end_s=perf_counter())])
    assert abs(theirs.recv()[0].end_s - perf_counter()) < 1


class Loop:
    """A line that gives back what is sent."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def send(self, obj: object, /) -> None:
        self.kept.append(obj)

    def recv(self) -> object:
        return self.kept.pop(0)


def test_moments_are_shifted_and_durations_are_not() -> None:
    raw = Loop()
    line = ShiftedLine(raw, 1000.0)
    ended = Produced(1, (2,), finish="stop", served=served(5.0))
    told = step(ended, Produced(2, (3,)), end_s=9.0, time_s=0.5, ttfts_s=(0.25,))
    load = Load(waiting=0, running=0, blocks_used=0)
    line.send([told, Idle(produced=(ended,), load=load)])
    (shifted, idle) = raw.recv()  # type: ignore[misc]
    assert (shifted.start_s, shifted.end_s, shifted.ttfts_s, shifted.model_s) == (1008.5, 1009.0, (0.25,), 0.25)
    expected = Served(
        arrival_s=1005.0,
        scheduled_s=1005.5,
        first_token_s=1006.5,
        finished_s=1009.0,
        prompt_tokens=100,
        cached_tokens=0,
        generated_tokens=11,
        preemptions=0,
    )
    assert shifted.produced[0].served == idle.produced[0].served == expected
    assert shifted.produced[1] == Produced(2, (3,))
    raw.send([Submit(key=1, prompt_token_ids=(1,), params=SamplingParams(), arrival_s=1003.0), Abort(keys=(1,))])
    submit, abort = line.recv()
    assert (submit.arrival_s, abort) == (3.0, Abort(keys=(1,)))
