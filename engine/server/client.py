"""The engine as the server's coroutines see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from engine.sampling import SamplingParams
from engine.server.messages import Failed, Idle, Produced, Ready, Step

OnStep = Callable[[Step], None]
OnIdle = Callable[[Idle], None]
OnFailed = Callable[[Failed], None]


class ServerError(Exception):
    """Why a request gets no answer, in one line, with the HTTP status that says so."""

    status = 500


class UnservableError(ServerError):
    """The engine can never serve the request."""

    status = 400


class QueueFullError(ServerError):
    """Too many requests wait already; ``retry_after_s`` says when to come again."""

    status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IterationError(ServerError):
    """The model failed in an iteration that held the request."""

    status = 500


class TimeLimitError(ServerError):
    """The request took longer than a request may."""

    status = 504


class EngineDownError(ServerError):
    """The engine is gone, or about to go."""

    status = 503


class Stream(Protocol):
    """What comes out for one request.

    Iterating yields what is new, the last with ``finish``; where the reader is slow, what has piled up comes as one.
    It raises :class:`ServerError` where there will be no more. Leaving before the end needs :meth:`abort`.
    """

    def __aiter__(self) -> AsyncIterator[Produced]:
        """Yield what comes out, as it comes."""
        ...

    async def whole(self) -> Produced:
        """Return all that comes, at its end; it costs nothing until then. Raises :class:`ServerError` as iterating."""
        ...

    def abort(self) -> None:
        """Nobody waits for the rest."""
        ...


class Watchable(Protocol):
    """What can be known of an engine from outside."""

    @property
    def ready(self) -> Ready:
        """What the engine said when its model was loaded, with the policy that rules now."""
        ...

    def watch(self, on_step: OnStep, on_idle: OnIdle | None = None, on_failed: OnFailed | None = None) -> None:
        """Call ``on_step`` after every iteration from now on, from the server's event loop.

        ``on_idle`` is called when there is nothing left to do, with what was aborted since the last iteration,
        ``on_failed`` when an iteration failed.
        """
        ...


class EngineClient(Watchable, Protocol):
    """One engine, in a process of its own; or several behind a router, which serve as one."""

    @property
    def replicas(self) -> Sequence[Watchable]:
        """The engines one by one."""
        ...

    @property
    def unhealthy(self) -> str | None:
        """Why the engine cannot serve; None while it can. Draining counts."""
        ...

    def submit(self, prompt_token_ids: list[int], params: SamplingParams, *, count: int = 1) -> list[Stream]:
        """Take a request ``count`` times (OpenAI's ``n``; each samples by a seed of its own), all or none.

        Raises
        ------
        QueueFullError, EngineDownError
            At once. That it is :class:`UnservableError` is said by the streams.
        """
        ...

    async def swap(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Put another policy in charge, the content of a ``policy.json``; return that of the one that rules now.

        Raises
        ------
        UnservableError
            If it is none, or does not go with the engine; the old one rules on.
        EngineDownError
            If there is no engine.
        """
        ...

    async def ended(self) -> str | None:
        """Return, once the engine's process has ended, why it did; None where it was told to."""
        ...

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take nothing on any more, finish what is there, and end the engine; drop the rest after ``timeout_s``."""
        ...

    async def close(self) -> None:
        """Drop what is there, and end the engine; a :meth:`drain` that waits returns."""
        ...
