"""The client by itself, on a connection at whose other end the test says what an engine says."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.sampling import SamplingParams  # noqa: E402
from engine.server import process_client  # noqa: E402
from engine.server.admission import Admission  # noqa: E402
from engine.server.blueprint import Blueprint  # noqa: E402
from engine.server.client import EngineDownError, UnservableError  # noqa: E402
from engine.server.messages import (  # noqa: E402
    Abort,
    Dead,
    Idle,
    Load,
    Produced,
    Ready,
    Step,
    Stop,
    Stopped,
    Submit,
    Swap,
    Swapped,
    Unready,
)
from engine.server.process import _life  # noqa: E402
from engine.server.process_client import ProcessClient  # noqa: E402
from engine.session import EngineSettings  # noqa: E402
from policies import choose  # noqa: E402
from traces.errors import InputError  # noqa: E402

READY = Ready(
    max_model_len=64, vocab=128, kv_blocks=9, block_size=16, policy={"policy": "a", "max_num_seqs": 2}, predicts=False
)
PLAN = Blueprint(settings=EngineSettings(model="no such model"), choice=choose("vllm"))
PARAMS = SamplingParams()


class Stage:
    """A process that is none, and its end of the connection."""

    exitcode, pid = 7, 1

    def __init__(self) -> None:
        self.ours, self.theirs = Pipe()
        self.killed = threading.Event()
        self._heard: list[Any] = []

    def kill(self) -> None:
        self.theirs.close()
        self.killed.set()

    end = kill

    def join(self) -> None:
        self.killed.wait()

    def say(self, *messages: Any) -> None:
        self.theirs.send(messages)

    async def hear(self, kind: type) -> Any:
        """The next command, which is of that kind."""
        if not self._heard:
            self._heard = list(await asyncio.get_running_loop().run_in_executor(None, self.theirs.recv))
        command = self._heard.pop(0)
        assert isinstance(command, kind)
        return command


def step(*produced: Produced) -> Step:
    load = Load(waiting=0, running=0, blocks_used=0)
    return Step(
        produced=produced,
        load=load,
        start_s=0.0,
        end_s=1.0,
        model_s=1.0,
        predicted_s=None,
        prefill_tokens=0,
        decodes=0,
        preemptions=0,
        gaps=(),
        ttfts_s=(),
        cache_queries=0,
        cache_hits=0,
    )


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(scene: Callable[[Stage, ProcessClient], Awaitable[None]], first: Any = READY) -> None:
        stage = Stage()
        monkeypatch.setattr(process_client, "spawn_engine", lambda plan: (stage, stage.ours))
        stage.say(first)

        @asynccontextmanager
        async def started() -> AsyncIterator[ProcessClient]:
            client = await ProcessClient.start(PLAN)
            try:
                yield client
            finally:
                if not stage.killed.is_set():
                    stage.end()
                await client.ended()

        async def whole() -> None:
            async with started() as client:
                await scene(stage, client)

        asyncio.run(asyncio.wait_for(whole(), 30))

    return run


def test_an_engine_that_cannot_be_built(play: Callable[..., None]) -> None:
    with ExitStack() as records:
        said = _life(PLAN, SimpleQueue(), None, records)  # type: ignore[arg-type]
    assert isinstance(said, Unready)
    assert said.message.startswith("unknown model 'no such model'")

    async def never(stage: Stage, client: ProcessClient) -> None:
        pytest.fail("it started")

    with pytest.raises(InputError, match="unknown model 'no such model'"):
        play(never, said)


def test_an_engine_that_breaks_before_it_is_ready(play: Callable[..., None]) -> None:
    async def never(stage: Stage, client: ProcessClient) -> None:
        pytest.fail("it started")

    stage_end = Stage.say

    def say_and_die(self: Stage, *messages: Any) -> None:
        stage_end(self, *messages)
        self.end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "say", say_and_die)
        with pytest.raises(EngineDownError, match=r"out of luck \(exit status 7\)"):
            play(never, Dead(message="out of luck"))


def test_what_piles_up_comes_as_one(play: Callable[..., None]) -> None:
    async def scene(stage: Stage, client: ProcessClient) -> None:
        seen: list[Step] = []
        client.watch(seen.append)
        (stream,) = client.submit([1, 2], PARAMS)
        key = (await stage.hear(Submit)).key
        stage.say(step(Produced(key, (5,), "a")), step(Produced(key, (6,), "")), step(Produced(77, (6,), "no")))
        stage.say(step(Produced(key, (7,), "bc")))
        while len(seen) < 4:
            await asyncio.sleep(0.001)
        assert await anext(aiter(stream)) == Produced(key, (5, 6, 7), "abc")
        stage.say(step(Produced(key, (8,), "d", finish="stop")))
        assert [each async for each in stream] == [Produced(key, (8,), "d", finish="stop")]
        assert [each async for each in stream] == []

    play(scene)


def test_what_came_before_a_failure_can_be_read(play: Callable[..., None]) -> None:
    async def scene(stage: Stage, client: ProcessClient) -> None:
        (stream,) = client.submit([1, 2], PARAMS)
        key = (await stage.hear(Submit)).key
        stage.say(step(Produced(key, (5,), "a")), Dead(message="tired"))
        while client.unhealthy is None:
            await asyncio.sleep(0.001)
        assert await anext(aiter(stream)) == Produced(key, (5,), "a")
        with pytest.raises(EngineDownError, match="tired"):
            await anext(aiter(stream))

    play(scene)


def test_a_reader_that_is_cancelled_can_abort(play: Callable[..., None]) -> None:
    async def scene(stage: Stage, client: ProcessClient) -> None:
        (stream,) = client.submit([1, 2], PARAMS)
        key = (await stage.hear(Submit)).key
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.whole(), 0.01)
        stream.abort()
        assert await stage.hear(Abort) == Abort(keys=(key,))

    play(scene)


def test_the_policy_that_rules_counts_for_the_queue(play: Callable[..., None]) -> None:
    async def scene(stage: Stage, client: ProcessClient) -> None:
        document = {"policy": "b", "max_num_seqs": 99}
        swapping = asyncio.create_task(client.swap(document))
        asked = await stage.hear(Swap)
        assert asked.policy == document
        stage.say(Swapped(ticket=asked.ticket, policy=document))
        assert await swapping == document == client.ready.policy
        swapping = asyncio.create_task(client.swap({"policy": "c"}))
        asked = await stage.hear(Swap)
        stage.say(Swapped(ticket=asked.ticket, policy=document, error="there is no c"))
        with pytest.raises(UnservableError, match="there is no c"):
            await swapping
        with pytest.raises(UnservableError, match="at most 1123"):
            client.submit([1], PARAMS, count=1124)
        swapping = asyncio.create_task(client.swap({"policy": "d"}))
        await stage.hear(Swap)
        stage.end()
        with pytest.raises(EngineDownError):
            await swapping

    play(scene)


def test_who_watches_and_fails_harms_nobody(play: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    async def scene(stage: Stage, client: ProcessClient) -> None:
        seen: list[Step | Idle] = []

        def failing(_: Step) -> None:
            raise ZeroDivisionError

        client.watch(failing)
        client.watch(seen.append, seen.append)
        idle = Idle(produced=(), load=Load(waiting=0, running=0, blocks_used=0))
        stage.say(step(), idle)
        while len(seen) < 2:
            await asyncio.sleep(0.001)
        assert seen == [step(), idle]

    with caplog.at_level(logging.ERROR):
        play(scene)
    assert caplog.messages[0] == "somebody who watches the engine failed"


def test_who_does_not_drain_in_time_is_dropped(play: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    async def scene(stage: Stage, client: ProcessClient) -> None:
        (stream,) = client.submit([1, 2], PARAMS)
        await stage.hear(Submit)
        draining = asyncio.create_task(client.drain(0.01))
        assert await stage.hear(Stop) == Stop(drain=True)
        assert await stage.hear(Stop) == Stop(drain=False)
        with pytest.raises(EngineDownError, match="the server has stopped"):
            await stream.whole()
        stage.say(Stopped())
        stage.end()
        await draining
        assert await client.ended() is None

    with caplog.at_level(logging.ERROR):
        play(scene)
    assert caplog.messages == []


def test_an_engine_that_is_lost_while_it_drains(play: Callable[..., None]) -> None:
    async def scene(stage: Stage, client: ProcessClient) -> None:
        (stream,) = client.submit([1, 2], PARAMS)
        draining = asyncio.create_task(client.drain())
        await stage.hear(Submit)
        await stage.hear(Stop)
        stage.end()
        with pytest.raises(EngineDownError, match="the engine's process is gone"):
            await stream.whole()
        await draining
        assert await client.ended() == client.unhealthy == "the engine's process is gone (exit status 7)"

    play(scene)


def test_an_engine_that_does_not_end_is_killed(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_client, "GRACE_S", 0.01)

    async def scene(stage: Stage, client: ProcessClient) -> None:
        await client.close()
        assert stage.killed.is_set()
        assert await client.ended() is None

    play(scene)


def test_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr("engine.server.admission.perf_counter", lambda: now_s)
    admission = Admission(4)
    assert admission.retry_after_s(50) == 1
    for _ in range(10):
        admission.note_end()
        now_s += 2.0
    assert admission.retry_after_s(1) == 2
    assert admission.retry_after_s(8) == 16
    assert admission.retry_after_s(500) == 60
    now_s += 50.0
    assert admission.retry_after_s(1) == 12
    now_s += 100.0
    assert admission.retry_after_s(1) == 1
