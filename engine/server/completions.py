"""``/v1/completions``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import Response

from engine.sampling import TokenLogprobs
from engine.server.answer import answer
from engine.server.body import JsonRoute
from engine.server.errors import ApiError
from engine.server.messages import Produced
from engine.server.openapi import documented
from engine.server.outputs import Order, Output, Outputs
from engine.server.requests import COMPLETION_TOKENS, MOST_CHOICES, CompletionRequest
from engine.server.responses import Completion, CompletionChoice, CompletionLogprobs, FinishReason
from engine.server.served_model import ServedModel

LEAST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON has not got."""


class CompletionForm:
    """How the answer looks.

    Parameters
    ----------
    served
        For the text of tokens.
    model
        The name that was asked for.
    echoes
        What the text of each output begins with.
    wants_logprobs
        Whether there are log probabilities.
    """

    def __init__(self, served: ServedModel, model: str, *, echoes: Sequence[str], wants_logprobs: bool) -> None:
        self._served = served
        self._model = model
        self._echoes = echoes
        self._wants_logprobs = wants_logprobs
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._offsets = [0] * len(echoes)

    def whole(self, outputs: Outputs) -> Completion:
        """Return the answer."""
        choices = [
            self._choice(each, self._echoes[each.index] + each.text, each.logprobs, each.finish_reason)
            for each in outputs.all
        ]
        return {**self._document(choices), "usage": outputs.usage}

    def opening(self, output: Output) -> Completion | None:
        """Return the prompt, where it is asked for."""
        echo = self._echoes[output.index]
        return self._document([self._choice(output, echo, (), None)]) if echo else None

    def chunk(self, output: Output, produced: Produced) -> Completion:
        """Return what is new of an output."""
        return self._document([self._choice(output, produced.text, produced.logprobs, output.finish_reason)])

    def closing(self) -> Completion:
        """Return an event without choices."""
        return self._document([])

    def _document(self, choices: list[CompletionChoice]) -> Completion:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
            "choices": choices,
        }

    def _choice(
        self, output: Output, text: str, tokens: Sequence[TokenLogprobs], finish: FinishReason | None
    ) -> CompletionChoice:
        logprobs = self._logprobs(output, tokens) if self._wants_logprobs else None
        return {"index": output.index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, output: Output, tokens: Sequence[TokenLogprobs]) -> CompletionLogprobs:
        texts = [self._served.token_text(each.token_id) for each in tokens]
        offsets = list[int]()
        for text in texts:
            offsets.append(self._offsets[output.index])
            self._offsets[output.index] += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [max(each.logprob, LEAST_LOGPROB) for each in tokens],
            "top_logprobs": [self._top(each) for each in tokens],
            "text_offset": offsets,
        }

    def _top(self, each: TokenLogprobs) -> dict[str, float]:
        pairs = dict(each.top) | {each.token_id: each.logprob}
        return {self._served.token_text(token): max(value, LEAST_LOGPROB) for token, value in pairs.items()}


def completions(served: ServedModel) -> APIRouter:
    """Return the route."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/v1/completions", **documented(Completion, stream_of="the same with what is new"))
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """Go on with each prompt.

        Unknown parameters are accepted and change nothing, `user` among them; known ones that this server cannot
        honour (such as `logit_bias`, `suffix`, or penalties other than none) are refused unless they ask for nothing.
        """
        model = served.name(body.model)
        prompts = await _prompts(served, body)
        if body.echo and body.logprobs is not None:
            raise ApiError(400, "echo together with logprobs is not supported", param="echo", code="unsupported")
        echoes = await _echoes(served, body, prompts)
        outputs = Outputs(served.client, [_order(served, body, prompt) for prompt in prompts])
        each = [echo for echo in echoes for _ in range(body.choices)]
        form = CompletionForm(served, model, echoes=each, wants_logprobs=body.logprobs is not None)
        return await answer(request, body, outputs, form)

    return router


def _order(served: ServedModel, body: CompletionRequest, prompt: list[int]) -> Order:
    room = served.room(prompt, body.max_tokens, param="prompt")
    longest = body.max_tokens or min(COMPLETION_TOKENS, room)
    params = body.params(max_tokens=longest, logprobs=body.logprobs)
    return Order(token_ids=prompt, params=params, choices=body.choices)


async def _prompts(served: ServedModel, body: CompletionRequest) -> list[list[int]]:
    """Return the token ids of each prompt."""
    given = body.prompt
    listed = cast(
        "list[str] | list[list[int]]", [given] if isinstance(given, str) or isinstance(given[0], int) else given
    )
    if len(listed) * body.choices > MOST_CHOICES:
        message = f"{len(listed)} prompts x {body.choices} choices are more than {MOST_CHOICES} outputs at once"
        raise ApiError(400, message, param="n")
    special, prompts = body.add_special_tokens is not False, list[list[int]]()
    for prompt in listed:
        if isinstance(prompt, str):
            prompts.append(await served.encode(prompt, param="prompt", add_special_tokens=special))
        else:
            served.known(prompt, param="prompt")
            prompts.append(prompt)
    return prompts


async def _echoes(served: ServedModel, body: CompletionRequest, prompts: list[list[int]]) -> list[str]:
    """Return the text that each prompt's outputs begin with."""
    if not body.echo:
        return [""] * len(prompts)
    if isinstance(body.prompt, str):
        return [body.prompt]
    tokenizer = served.tokenizer
    return [
        given if isinstance(given, str) else tokenizer.decode(prompt, skip_special_tokens=True)
        for given, prompt in zip(body.prompt, prompts, strict=False)
    ]
