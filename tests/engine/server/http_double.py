"""A double of the engine for the tests of HTTP, and a real uvicorn in front of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from engine.sampling import SamplingParams, TokenLogprobs
from engine.server.app import build_app
from engine.server.client import EngineDownError, OnFailed, OnIdle, OnStep, QueueFullError, ServerError, UnservableError
from engine.server.connection import connection_type
from engine.server.head import MOST_HEAD_BYTES
from engine.server.keys import doors
from engine.server.messages import Produced, Ready, Served
from engine.server.served_model import ServedModel
from engine.server.tokenizers import ByteTokenizer
from engine.text import TextStream

CONTEXT, VOCAB = 4096, 300


class Script:
    """What the double does: the tests set it."""

    def __init__(self) -> None:
        self.fail_after: int | None = None
        self.failure: ServerError = ServerError("the model failed")
        self.full = False
        self.unhealthy: str | None = None
        self.hold = False
        self.seen: list[tuple[list[int], SamplingParams, int]] = []
        self.live: set[FakeStream] = set()
        self.aborted = 0


class FakeStream:
    """Says the prompt again and again, a byte a token; where there are stop strings, all of the text at the end."""

    def __init__(self, script: Script, prompt: list[int], params: SamplingParams) -> None:
        self._script, self._prompt, self._params = script, prompt, params
        script.live.add(self)

    async def __aiter__(self) -> AsyncIterator[Produced]:
        script, params = self._script, self._params
        text = TextStream(ByteTokenizer(), params.stop)
        told, longest = 0, params.max_tokens or CONTEXT - len(self._prompt)
        if len(self._prompt) + longest > CONTEXT or (params.stop_token_ids and max(params.stop_token_ids) >= VOCAB):
            raise UnservableError("can never be served")
        for count in range(1, longest + 1):
            while script.hold:
                await asyncio.sleep(0.01)
            if script.fail_after is not None and count > script.fail_after:
                raise script.failure
            token = self._prompt[(count - 1) % len(self._prompt)]
            text.push(token)
            finish = "stop" if text.stopped else "length" if count == longest else None
            if finish:
                text.finish()
                self._script.live.discard(self)
            new = text.text[told:] if finish or not params.stop else ""
            told += len(new)
            lasts = Served(
                arrival_s=0.0,
                scheduled_s=0.0,
                first_token_s=0.0,
                finished_s=1.0,
                prompt_tokens=len(self._prompt),
                cached_tokens=len(self._prompt) // 2,
                generated_tokens=count,
                preemptions=0,
            )
            top = tuple((other, -1.0 - other) for other in range(65, 65 + (params.logprobs or 0)))
            yield Produced(
                key=0,
                token_ids=(token,),
                text=new,
                logprobs=(TokenLogprobs(token, float("-inf") if token == 90 else -0.5, top),)
                if params.logprobs is not None
                else (),
                finish=finish,
                served=lasts if finish else None,
            )
            if finish:
                return

    async def whole(self) -> Produced:
        parts = [produced async for produced in self]
        return Produced(
            key=0,
            token_ids=tuple(token for part in parts for token in part.token_ids),
            text="".join(part.text for part in parts),
            logprobs=tuple(entry for part in parts for entry in part.logprobs),
            finish=parts[-1].finish,
            served=parts[-1].served,
        )

    def abort(self) -> None:
        if self in self._script.live:
            self._script.live.discard(self)
            self._script.aborted += 1


class FakeClient:
    """The engine, as :class:`engine.server.client.EngineClient` has it."""

    def __init__(self) -> None:
        self.script = Script()
        self.replicas = (self,)
        policy = {"policy": "vllm-v1"}
        self.ready = Ready(
            max_model_len=CONTEXT, vocab=VOCAB, kv_blocks=1024, block_size=16, policy=policy, predicts=False
        )

    @property
    def unhealthy(self) -> str | None:
        return self.script.unhealthy

    def submit(self, prompt_token_ids: list[int], params: SamplingParams, *, count: int = 1) -> list[FakeStream]:
        if self.script.full:
            raise QueueFullError("1024 requests wait already", retry_after_s=7)
        if self.script.unhealthy:
            raise EngineDownError(self.script.unhealthy)
        self.script.seen.append((prompt_token_ids, params, count))
        return [FakeStream(self.script, prompt_token_ids, params) for _ in range(count)]

    async def swap(self, policy: dict[str, Any]) -> dict[str, Any]:
        return policy

    def watch(self, on_step: OnStep, on_idle: OnIdle | None = None, on_failed: OnFailed | None = None) -> None:
        pass

    async def ended(self) -> str | None:
        return self.script.unhealthy

    async def drain(self, timeout_s: float | None = None) -> None:
        pass

    async def close(self) -> None:
        pass


@contextmanager
def listening(
    client: FakeClient,
    *,
    api_keys: tuple[str, ...] = (),
    write_timeout_s: float = 60.0,
    read_timeout_s: float = 60.0,
    **others: Any,
) -> Iterator[str]:
    """Serve on a free port; yield the URL."""
    served = ServedModel(client, names=("tiny", "other"), tokenizer=ByteTokenizer())
    app = build_app(served, guarded=doors(api_keys, ()), **others)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=connection_type(write_timeout_s=write_timeout_s, read_timeout_s=read_timeout_s),
        h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        ws="none",
        lifespan="off",
        log_level="error",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Return once the condition holds; fail if it never does."""
    event = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it never came to hold")
