"""An engine in a process of its own, for the coroutines of an event loop."""

from __future__ import annotations

import asyncio
import atexit
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from threading import Thread
from time import perf_counter
from typing import Any, TypeVar

from engine.sampling import SamplingParams, each_output
from engine.server.admission import Admission
from engine.server.blueprint import Blueprint
from engine.server.channel import Channel, Line
from engine.server.client import (
    EngineDownError,
    IterationError,
    OnFailed,
    OnIdle,
    OnStep,
    ServerError,
    Stream,
    TimeLimitError,
    UnservableError,
)
from engine.server.limits import Limits
from engine.server.messages import (
    Abort,
    Dead,
    Failed,
    FromEngine,
    Idle,
    Produced,
    Ready,
    Refused,
    Step,
    Stop,
    Stopped,
    Submit,
    Swap,
    Swapped,
    Unready,
)
from engine.server.process import EngineProcess, spawn_engine
from engine.server.stall import Stall
from engine.server.stream import RequestStream
from traces.errors import InputError

log = logging.getLogger(__name__)
Told = TypeVar("Told", Step, Idle, Failed)

STOPPED = "the server has stopped"
GONE = "the engine's process is gone"
GRACE_S = 5.0
"""How long an engine that is told to drop everything may take, before it is killed."""
PART = 16
"""Of an iteration's requests so many are woken in one turn of the event loop, so that others get theirs."""


class ProcessClient:
    """An :class:`engine.server.client.EngineClient`; made by :meth:`start`, in the event loop that it belongs to.

    Messages reach the event loop in one go, however many there are, and streams are woken only where somebody waits, a
    few in each of its turns.

    Attributes
    ----------
    on_end
        Called whenever a request has ended, however it did.
    """

    def __init__(self, process: EngineProcess, connection: Line, limits: Limits, name: str) -> None:
        self.on_end: Callable[[], None] = _nothing
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._admission = Admission(limits.max_queue)
        self._stall = Stall(limits.stall_timeout_s)
        self._process = process
        self._channel = Channel(connection, self._arrive, lambda: self._call(self._lose))
        self._arrived: deque[FromEngine] = deque()
        self._called = False
        self._parts = self._taken()
        self._streams: dict[int, RequestStream] = {}
        self._next = 0
        self._swaps: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._on_step: list[OnStep] = []
        self._on_idle: list[OnIdle] = []
        self._on_failed: list[OnFailed] = []
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self._now: Ready | None = None
        self._refusal: str | None = None
        self._fault: str | None = None
        self._orderly = False
        self._ended = asyncio.Event()

    @classmethod
    async def start(cls, blueprint: Blueprint, limits: Limits | None = None) -> ProcessClient:
        """Start an engine, and return once it is ready to serve.

        Raises
        ------
        InputError
            If there is no engine as asked for.
        EngineDownError
            If it broke.
        """
        return await cls.attach(*spawn_engine(blueprint), limits or Limits())

    @classmethod
    async def attach(
        cls, process: EngineProcess, connection: Line, limits: Limits, *, name: str = "the engine"
    ) -> ProcessClient:
        """Take in an engine that has been started, called ``name`` in the log; as :meth:`start`."""
        client = cls(process, connection, limits, name)
        atexit.register(client._process.kill)
        client._channel.start()
        Thread(target=client._reap, name="reaper", daemon=True).start()
        try:
            client._now = await client._ready
        except BaseException:
            client._orderly = True
            client._process.kill()
            raise
        return client

    # --- for the server ---

    @property
    def ready(self) -> Ready:
        """What the engine said when its model was loaded, with the policy that rules now."""
        assert self._now is not None, "made by start()"
        return self._now

    @property
    def unhealthy(self) -> str | None:
        """Why the engine cannot serve; None while it can. Draining counts."""
        return self._fault or self._refusal or self._stall.check(busy=bool(self._streams))

    @property
    def replicas(self) -> tuple[ProcessClient]:
        """Itself alone."""
        return (self,)

    @property
    def requests(self) -> int:
        """Requests that it was given and that have not ended."""
        return len(self._streams)

    @property
    def pid(self) -> int:
        """The id of the engine's process."""
        assert self._process.pid is not None
        return self._process.pid

    def submit(
        self, prompt_token_ids: list[int], params: SamplingParams, *, count: int = 1, arrival_s: float | None = None
    ) -> list[Stream]:
        """Take a request ``count`` times, all or none; see :class:`engine.server.client.EngineClient`.

        With a seed, the others take the seeds after it. ``arrival_s`` is when it came, if that was not now.
        """
        self._check_health()
        self._admission.check(len(self._streams), count, residents=int(self.ready.policy["max_num_seqs"]))
        prompt, came_s = tuple(prompt_token_ids), perf_counter() if arrival_s is None else arrival_s
        return [self._open(prompt, own, came_s) for own in each_output(params, count)]

    def _open(self, prompt: tuple[int, ...], params: SamplingParams, arrival_s: float) -> RequestStream:
        if not self._streams:
            self._stall.begin()
        key, self._next = self._next, self._next + 1
        stream = self._streams[key] = RequestStream(key, self._leave)
        if self._limits.request_timeout_s is not None:
            left_s = arrival_s + self._limits.request_timeout_s - perf_counter()
            stream.timer = self._loop.call_later(left_s, self._expire, stream)
        self._channel.send(Submit(key=key, prompt_token_ids=prompt, params=params, arrival_s=arrival_s))
        return stream

    async def swap(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Put another policy in charge; see :class:`engine.server.client.EngineClient`."""
        self._check_health()
        ticket, self._next = self._next, self._next + 1
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._swaps[ticket] = answer
        self._channel.send(Swap(ticket=ticket, policy=policy))
        try:
            return await answer
        finally:
            self._swaps.pop(ticket, None)

    def watch(self, on_step: OnStep, on_idle: OnIdle | None = None, on_failed: OnFailed | None = None) -> None:
        """Call ``on_step`` after every iteration from now on; see :class:`engine.server.client.EngineClient`."""
        self._on_step.append(on_step)
        if on_idle is not None:
            self._on_idle.append(on_idle)
        if on_failed is not None:
            self._on_failed.append(on_failed)

    async def ended(self) -> str | None:
        """Return, once the engine's process has ended, why it did; None where it was told to."""
        await self._ended.wait()
        return self._fault

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take nothing on any more, finish what is there, and end the engine; drop the rest after ``timeout_s``."""
        self._refuse("the server is draining")
        self._channel.send(Stop(drain=True))
        try:
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        except TimeoutError:
            await self.close()

    async def close(self) -> None:
        """Drop what is there, and end the engine."""
        self._refuse(STOPPED)
        self._end_all(STOPPED)
        self._orderly = True
        self._channel.send(Stop(drain=False))
        try:
            await asyncio.wait_for(self._ended.wait(), GRACE_S)
        except TimeoutError:
            self._process.kill()
            await self._ended.wait()

    def _refuse(self, why: str) -> None:
        """Take no more requests; the first reason is the one that counts."""
        self._refusal = self._refusal or why

    def _check_health(self) -> None:
        if self.unhealthy is not None:
            raise EngineDownError(self.unhealthy)

    # --- what streams ask ---

    def _leave(self, stream: RequestStream) -> None:
        self._close(stream.key)
        self._channel.send(Abort(keys=(stream.key,)))

    def _expire(self, stream: RequestStream) -> None:
        stream.fail(TimeLimitError(f"the request took longer than {self._limits.request_timeout_s:g} s"))
        self._leave(stream)

    def _close(self, key: int) -> RequestStream | None:
        """Forget a request, whose stream ends."""
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._admission.note_end()
            if stream.timer is not None:
                stream.timer.cancel()
            self.on_end()
        return stream

    # --- what the engine says ---

    def _arrive(self, messages: Sequence[FromEngine]) -> None:
        """Hand messages to the event loop, from the thread that takes them in; it is called once for all of them."""
        self._arrived.extend(messages)
        if not self._called:
            self._called = True
            self._call(self._take_some)

    def _call(self, function: Callable[[], None]) -> None:
        """Have the event loop call a function, unless it is closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _take_some(self) -> None:
        """Take in a part of what has come; the loop sees to its sockets before the next."""
        if next(self._parts, False):
            self._loop.call_soon(self._take_some)
            return
        self._parts, self._called = self._taken(), False
        if self._arrived:
            self._called = True
            self._loop.call_soon(self._take_some)

    def _take_all(self) -> None:
        for _ in self._parts:
            pass
        self._parts = self._taken()

    def _taken(self) -> Iterator[bool]:
        """Take in all that has come, and yield True now and then."""
        while self._arrived:
            self._stall.hear()
            message = self._arrived.popleft()
            self._take(message)
            if isinstance(message, Step):
                for first in range(0, len(message.produced), PART):
                    self._deliver(message.produced[first : first + PART])
                    yield True

    def _take(self, message: FromEngine) -> None:
        match message:
            case Step():
                _tell(self._on_step, message)
            case Idle():
                _tell(self._on_idle, message)
            case Failed():
                for key in message.keys:
                    self._fail(key, IterationError(message.message))
                _tell(self._on_failed, message)
            case Refused():
                self._fail(message.key, UnservableError(message.message))
            case Swapped():
                self._swapped(message)
            case Ready():
                if not self._ready.done():
                    self._ready.set_result(message)
            case Unready():
                if not self._ready.done():
                    self._ready.set_exception(InputError(message.message))
            case Dead():
                self._fault = message.message
                self._end_all(message.message)
            case Stopped():
                self._orderly = True

    def _deliver(self, produced: Iterable[Produced]) -> None:
        streams = self._streams
        for each in produced:
            stream = streams.get(each.key)
            if stream is not None:
                stream.put(each)
                if each.finish is not None:
                    self._close(each.key)

    def _fail(self, key: int, error: ServerError) -> None:
        stream = self._close(key)
        if stream is not None:
            stream.fail(error)

    def _swapped(self, message: Swapped) -> None:
        self._now = replace(self.ready, policy=message.policy)
        answer = self._swaps.get(message.ticket)
        if answer is None or answer.done():
            return
        if message.error is None:
            answer.set_result(message.policy)
        else:
            answer.set_exception(UnservableError(message.error))

    # --- its end ---

    def _end_all(self, why: str) -> None:
        """End all that anybody waits for."""
        for key in list(self._streams):
            self._fail(key, EngineDownError(why))
        for answer in self._swaps.values():
            if not answer.done():
                answer.set_exception(EngineDownError(why))

    def _lose(self) -> None:
        """The connection broke: nothing will come any more."""
        self._take_all()
        if not self._orderly:
            self._fault = self._fault or GONE
        self._end_all(self._fault or STOPPED)

    def _reap(self) -> None:
        """Wait for the process to end, in a thread of its own."""
        self._process.join()
        self._call(self._bury)

    def _bury(self) -> None:
        self._lose()
        if self._fault is not None:
            if self._process.exitcode is not None:
                self._fault = f"{self._fault} (exit status {self._process.exitcode})"
            log.error("%s is down: %s", self._name, self._fault)
        if not self._ready.done():
            self._ready.set_exception(EngineDownError(self._fault or STOPPED))
        atexit.unregister(self._process.kill)
        self._channel.close(timeout_s=0)
        self._ended.set()


def _nothing() -> None:
    """Nobody wants to know."""


def _tell(listeners: Sequence[Callable[[Told], None]], message: Told) -> None:
    """Call those who watch; one that fails harms nobody else."""
    for listener in listeners:
        try:
            listener(message)
        except Exception:
            log.exception("somebody who watches the engine failed")
