"""``/v1/chat/completions``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from engine.sampling import TokenLogprobs
from engine.server.answer import answer
from engine.server.body import JsonRoute
from engine.server.completions import LEAST_LOGPROB
from engine.server.errors import ApiError
from engine.server.messages import Produced
from engine.server.openapi import documented
from engine.server.outputs import Order, Output, Outputs
from engine.server.requests import ChatRequest
from engine.server.responses import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprob,
    ChatLogprobs,
    ChunkChoice,
    Delta,
    FinishReason,
    TopLogprob,
)
from engine.server.served_model import ServedModel

CHUNKS = "a `chat.completion.chunk` with a `delta` in place of the `message`"


class ChatForm:
    """How the answer looks.

    Parameters
    ----------
    served
        For the text of tokens.
    model
        The name that was asked for.
    top
        How many of the likeliest tokens are told; None for no log probabilities at all.
    """

    def __init__(self, served: ServedModel, model: str, *, top: int | None) -> None:
        self._served = served
        self._model = model
        self._top = top
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, outputs: Outputs) -> ChatCompletion:
        """Return the answer."""
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
            "choices": [self._choice(output) for output in outputs.all],
            "usage": outputs.usage,
        }

    def opening(self, output: Output) -> ChatChunk:
        """Return whose turn it is."""
        return self._chunk(output, {"role": "assistant", "content": ""}, None, None)

    def chunk(self, output: Output, produced: Produced) -> ChatChunk:
        """Return what is new of an output."""
        delta: Delta = {"content": produced.text} if produced.text or not produced.finish else {}
        return self._chunk(output, delta, self._logprobs(produced.logprobs), output.finish_reason)

    def closing(self) -> ChatChunk:
        """Return an event without choices."""
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
            "choices": [],
        }

    def _choice(self, output: Output) -> ChatChoice:
        assert output.finish_reason is not None
        return {
            "index": output.index,
            "message": {"role": "assistant", "content": output.text, "refusal": None},
            "logprobs": self._logprobs(output.logprobs),
            "finish_reason": output.finish_reason,
        }

    def _chunk(
        self, output: Output, delta: Delta, logprobs: ChatLogprobs | None, finish: FinishReason | None
    ) -> ChatChunk:
        choice: ChunkChoice = {
            "index": output.index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }
        return {**self.closing(), "choices": [choice]}

    def _logprobs(self, tokens: Sequence[TokenLogprobs]) -> ChatLogprobs | None:
        return None if self._top is None else {"content": [self._logprob(each) for each in tokens], "refusal": None}

    def _logprob(self, each: TokenLogprobs) -> ChatLogprob:
        top = [self._token(token, value) for token, value in each.top]
        return {**self._token(each.token_id, each.logprob), "top_logprobs": top}

    def _token(self, token_id: int, logprob: float) -> TopLogprob:
        data = self._served.token_bytes(token_id)
        text = data.decode("utf-8", errors="replace")
        return {"token": text, "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(data)}


def chat(served: ServedModel) -> APIRouter:
    """Return the route."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/chat/completions", **documented(ChatCompletion, stream_of=CHUNKS))
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """Give the assistant's next message, text for text.

        Unknown parameters are accepted and change nothing, `user`, `metadata` and `store` among them; known ones that
        this server cannot honour (such as `tools`, a `response_format` other than text, `logit_bias` or penalties)
        are refused unless they ask for nothing.
        """
        model = served.name(body.model)
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
        top = (body.top_logprobs or 0) if body.logprobs else None
        effort = {"reasoning_effort": body.reasoning_effort} if body.reasoning_effort is not None else {}
        prompt = await served.encode_chat(body, **effort)
        room = served.room(prompt, body.longest, param="messages")
        params = body.params(max_tokens=body.longest or room, logprobs=top)
        outputs = Outputs(served.client, [Order(token_ids=prompt, params=params, choices=body.choices)])
        return await answer(request, body, outputs, ChatForm(served, model, top=top))

    return router
