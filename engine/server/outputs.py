"""The outputs of one HTTP request while they grow: one for each prompt and choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.types import Receive

from engine.sampling import SamplingParams, TokenLogprobs
from engine.server.client import EngineClient, EngineDownError, Stream
from engine.server.messages import Produced, Served
from engine.server.responses import FinishReason, Usage

Result = TypeVar("Result")


class ClientGoneError(Exception):
    """Nobody waits for the answer any longer."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One prompt for the engine, and how often."""

    token_ids: list[int]
    params: SamplingParams
    choices: int


@dataclass(kw_only=True)
class Output:
    """One choice.

    Attributes
    ----------
    index
        Among all of its HTTP request.
    text, logprobs
        So far.
    tokens
        Generated so far, a stop token or string included.
    finish_reason, served
        None while it goes on.
    """

    index: int
    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    tokens: int = 0
    finish_reason: FinishReason | None = None
    served: Served | None = None

    def take(self, produced: Produced) -> None:
        """Add what is new; EngineDownError if the engine dropped it."""
        self.text += produced.text
        self.logprobs += produced.logprobs
        self.tokens += len(produced.token_ids)
        if produced.finish == "cancelled":
            raise EngineDownError("the server dropped the request")
        self.finish_reason, self.served = produced.finish, produced.served


class Outputs:
    """All outputs of an HTTP request.

    Parameters
    ----------
    client
        The engine.
    orders
        What it is to do: all or nothing.

    Raises
    ------
    QueueFullError, EngineDownError
        If the engine takes no more; nothing of the request is left with it.
    """

    def __init__(self, client: EngineClient, orders: Sequence[Order]) -> None:
        self.orders = orders
        self._streams: list[Stream] = []
        try:
            for order in orders:
                self._streams += client.submit(order.token_ids, order.params, count=order.choices)
        except Exception:
            self.abort()
            raise
        self.all = [Output(index=index) for index in range(len(self._streams))]

    def abort(self) -> None:
        """Free what the engine holds for it."""
        for stream in self._streams:
            stream.abort()

    async def news(self) -> AsyncGenerator[tuple[Output, Produced]]:
        """Yield what comes out for each, once it has been taken in; ServerError where an output cannot go on."""
        async with aclosing(_merged(self._streams)) as merged:
            async for index, produced in merged:
                self.all[index].take(produced)
                yield self.all[index], produced

    async def finish(self) -> None:
        """Wait until all have ended, and take them in; ServerError where one does not end well."""
        waiting = [asyncio.ensure_future(stream.whole()) for stream in self._streams]
        try:
            for output, produced in zip(self.all, await asyncio.gather(*waiting), strict=True):
                output.take(produced)
        finally:
            await _cancelled(*waiting)

    @property
    def usage(self) -> Usage:
        """Tokens so far. A prompt's cached tokens are those of the choice that found fewest."""
        prompt = sum(len(order.token_ids) for order in self.orders)
        generated = sum(output.tokens for output in self.all)
        cached, first = 0, 0
        for order in self.orders:
            own = self.all[first : first + order.choices]
            cached += min((each.served.cached_tokens for each in own if each.served is not None), default=0)
            first += order.choices
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


async def _merged(streams: Sequence[Stream]) -> AsyncGenerator[tuple[int, Produced]]:
    """Yield from all streams as it comes; a slow reader leaves the rest with the streams, which pile it up."""
    if len(streams) == 1:
        async for produced in streams[0]:
            yield 0, produced
        return
    news: asyncio.Queue[tuple[int, Produced] | Exception | None] = asyncio.Queue(1)

    async def pump(index: int, stream: AsyncIterator[Produced]) -> None:
        try:
            async for produced in stream:
                await news.put((index, produced))
            await news.put(None)
        except Exception as error:
            await news.put(error)

    pumps = [asyncio.create_task(pump(index, aiter(stream))) for index, stream in enumerate(streams)]
    try:
        left = len(streams)
        while left:
            item = await news.get()
            if item is None:
                left -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        await _cancelled(*pumps)


async def while_there(receive: Receive, work: Awaitable[Result]) -> Result:
    """Return what ``work`` returns; where the client goes first, cancel it and raise :class:`ClientGoneError`.

    ``receive`` is that of a request whose body has been read.
    """
    done = asyncio.ensure_future(work)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ClientGoneError
        return done.result()
    finally:
        await _cancelled(done, gone)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: asyncio.Future[Result] | asyncio.Future[None]) -> None:
    """Cancel what still runs, and wait until it has cleaned up."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task
