"""What a client is told when it gets no answer, in the shape that OpenAI's clients read."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as RoutingError
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import TypedDict

from engine.server.client import QueueFullError, ServerError
from traces.errors import InputError

log = logging.getLogger(__name__)
LONGEST_MESSAGE = 1000
"""Characters of a message; what is longer quotes the request too much."""
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""The ``type`` of an error by its status; other 4xx are ``invalid_request_error``, 5xx ``server_error``."""
UNAVAILABLE = 503
CODES = {429: "rate_limit_exceeded", UNAVAILABLE: "service_unavailable", 504: "timeout"}


class ErrorObject(TypedDict):
    """What went wrong, and the parameter that is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorDocument(TypedDict):
    """The body of every answer that is none."""

    error: ErrorObject


class ApiError(HTTPException):
    """An answer with a status of 400 or more.

    Parameters
    ----------
    status, message
        The HTTP status; one line for the person who sent the request.
    param
        The parameter that is wrong.
    code
        What a program can tell it by; that of the status where None.
    headers
        Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers=dict(headers) if headers else None)
        self.param = param
        self.code = code or CODES.get(status)


def error_document(error: ApiError) -> ErrorDocument:
    """Return the body of an error's answer, and of its event in a stream."""
    status = error.status_code
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    message = str(error.detail)
    if len(message) > LONGEST_MESSAGE:
        message = message[: LONGEST_MESSAGE - 3] + "..."
    return {"error": {"message": message, "type": kind, "param": error.param, "code": error.code}}


def error_body(error: ApiError) -> bytes:
    """Return the body as JSON, in ASCII whatever the request held."""
    return json.dumps(error_document(error)).encode("ascii")


def error_response(error: ApiError) -> Response:
    """Return an error as an answer."""
    note(error)
    return Response(error_body(error), error.status_code, error.headers, media_type="application/json")


def note(error: ApiError) -> None:
    """Log an error that is the server's own; what ends all service (503) is logged where it happens, once."""
    if error.status_code < 500 or error.status_code == UNAVAILABLE:
        return
    cause = error.__cause__
    if cause is None:
        log.error("%d: %s", error.status_code, error.detail)
    else:
        log.error("unforeseen: %s", _where(cause), exc_info=cause if log.isEnabledFor(logging.DEBUG) else None)


def as_api_error(error: Exception) -> ApiError:
    """Return what a client is told of an exception; the unforeseen ones tell it nothing of the server's insides."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        return ApiError(error.status, str(error), headers={"Retry-After": str(error.retry_after_s)})
    if isinstance(error, ServerError):
        return ApiError(error.status, str(error))
    if isinstance(error, InputError):
        named = re.match(r"sampling: (\w+) is ", str(error))
        return ApiError(400, str(error), param=named[1] if named else None)
    if isinstance(error, RequestValidationError):
        return _validation_error(error)
    if isinstance(error, RoutingError):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    unforeseen = ApiError(500, "the server failed at this request; its log says more")
    unforeseen.__cause__ = error
    return unforeseen


def _where(error: BaseException) -> str:
    """Return an exception and the line that it comes from, in one line."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    place = f" at {Path(step.tb_frame.f_code.co_filename).name}:{step.tb_lineno}" if step is not None else ""
    return " ".join(f"{type(error).__name__}{place}: {error}".split())


def _validation_error(error: RequestValidationError) -> ApiError:
    """Return the first of what is wrong with a body; of a value that may be of several types, what it may be.

    Names of types stand in the place too, capitalised, where a body may be of several.
    """
    found = error.errors()
    first: dict[str, Any] = found[0]
    place = [part for part in first["loc"] if part != "body" and not str(part)[:1].isupper()]
    if not place:
        message = "the body is missing" if first["type"] == "missing" else "the body must be a JSON object"
        return ApiError(400, message)
    param = str(place[0])
    alike = dict.fromkeys(str(each["msg"]) for each in found if place[0] in each["loc"])
    return ApiError(400, f"{param}: {', or '.join(list(alike)[:4])}", param=param)


class LastResort:
    """ASGI middleware around all others: whatever they raise is an answer, and one line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            answer = as_api_error(error)
            if started:
                note(answer)
                raise
            await error_response(answer)(scope, receive, send)


def install(app: FastAPI) -> None:
    """Let every error of an application leave it in OpenAI's shape."""

    async def answer(_request: Request, error: Exception) -> Response:
        return error_response(as_api_error(error))

    for kind in (RoutingError, RequestValidationError, ServerError, InputError):
        app.add_exception_handler(kind, answer)
