"""From outputs to HTTP: one document, or server-sent events while they grow."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from engine.server.errors import as_api_error, error_document, note
from engine.server.messages import Produced
from engine.server.outputs import ClientGoneError, Output, Outputs, while_there
from engine.server.requests import SamplingBody
from engine.server.responses import Usage

CLIENT_CLOSED_REQUEST = 499
"""What the status of an answer is that nobody reads."""
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
DONE = b"data: [DONE]\n\n"
Document = dict[str, Any]


class Form(Protocol):
    """How one kind of answer looks."""

    def whole(self, outputs: Outputs) -> Any:
        """Return the answer."""
        ...

    def opening(self, output: Output) -> Any | None:
        """Return the event before the first of an output; None for none."""
        ...

    def chunk(self, output: Output, produced: Produced) -> Any:
        """Return the event that tells what is new of an output."""
        ...

    def closing(self) -> Any:
        """Return an event without choices, for the usage."""
        ...


class EventStream(StreamingResponse):
    """Server-sent events; what the outputs hold is freed as soon as the client goes, whatever happens then."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], outputs: Outputs) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events
        self._outputs = outputs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events."""
        try:
            async with aclosing(self._events):
                await while_there(receive, self.stream_response(send))
        except ClientGoneError:
            pass
        finally:
            self._outputs.abort()


async def answer(request: Request, body: SamplingBody, outputs: Outputs, form: Form) -> Response:
    """Return the answer to a request, whose outputs have been ordered.

    A stream begins with its first token, so that what goes wrong before has a status of its own; what goes wrong
    later is an event with the error, and the end.

    Raises
    ------
    ServerError
        If there is none.
    """
    handed_on = False
    try:
        if not body.stream:
            await while_there(request.receive, outputs.finish())
            return Response(_json(form.whole(outputs)), media_type="application/json")
        news = outputs.news()
        first = await while_there(request.receive, anext(news))
        handed_on = True
        return EventStream(_events(first, news, body, outputs, form), outputs)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        if not handed_on:
            outputs.abort()


async def _events(
    first: tuple[Output, Produced],
    news: AsyncGenerator[tuple[Output, Produced]],
    body: SamplingBody,
    outputs: Outputs,
    form: Form,
) -> AsyncGenerator[bytes]:
    opened = set[int]()
    try:
        async for output, produced in _again(first, news):
            opening = form.opening(output) if output.index not in opened else None
            opened.add(output.index)
            events = [event for event in (opening, form.chunk(output, produced)) if event is not None]
            yield b"".join(_event(_with_usage(event, body, outputs)) for event in events)
        last = _event({**form.closing(), "usage": outputs.usage}) if body.with_usage else b""
    except Exception as error:
        told = as_api_error(error)
        note(told)
        last = _event(error_document(told))
    yield last + DONE


async def _again(
    first: tuple[Output, Produced], news: AsyncGenerator[tuple[Output, Produced]]
) -> AsyncGenerator[tuple[Output, Produced]]:
    async with aclosing(news):
        yield first
        async for item in news:
            yield item


def _with_usage(event: Document, body: SamplingBody, outputs: Outputs) -> Document:
    if not body.with_usage:
        return event
    usage: Usage | None = outputs.usage if body.with_usage_so_far else None
    return {**event, "usage": usage}


def _json(document: Any) -> bytes:
    return ENCODER.encode(document).encode("utf-8", errors="replace")


def _event(document: Any) -> bytes:
    return b"data: " + _json(document) + b"\n\n"
