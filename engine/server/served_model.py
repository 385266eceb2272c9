"""What the routes share: the engine, the model's names, its tokenizer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.server.chat_template import ChatTemplate
from engine.server.client import EngineClient
from engine.server.errors import ApiError
from engine.server.requests import Conversation
from engine.server.tokenizers import ServerTokenizer

TOKENIZER_THREADS = 2
SHORT_TEXT = 1024
"""Characters that are encoded in less time than it takes to hand them to a thread, and to get the GIL back."""
Result = TypeVar("Result")


class ServedModel:
    """One model, as clients may ask for it.

    Parameters
    ----------
    client
        The engine.
    names
        What requests may call the model; the first is the default.
    tokenizer
        None for a model that takes and gives token ids alone.
    template
        A chat template instead of the tokenizer's own.
    """

    def __init__(
        self,
        client: EngineClient,
        *,
        names: Sequence[str],
        tokenizer: ServerTokenizer | None,
        template: str | None = None,
    ) -> None:
        self.client = client
        self.names = tuple(names)
        self.created = int(time.time())
        self._tokenizer = tokenizer
        special = tokenizer.special_tokens if tokenizer else {}
        self._template = ChatTemplate(template or (tokenizer.template if tokenizer else None), special)
        self._threads = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix="tokenizer")

    @property
    def tokenizer(self) -> ServerTokenizer:
        """The tokenizer; ApiError (400) where there is none."""
        if self._tokenizer is None:
            raise ApiError(400, "this model has no tokenizer: send token ids, and no stop strings")
        return self._tokenizer

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its output."""
        return self.client.ready.max_model_len

    def name(self, asked: str | None) -> str:
        """Return the name to answer by; ApiError (404) if the model asked for is another."""
        if asked is None:
            return self.names[0]
        if asked not in self.names:
            message = f"the model {asked[:200]!r} does not exist; this server has {', '.join(self.names)}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return asked

    def token_text(self, token_id: int) -> str:
        """Return a token as OpenAI's log probabilities name it: its text, or its bytes if they are no characters."""
        data = self.token_bytes(token_id)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token stands for; its number where there is no tokenizer."""
        if self._tokenizer is None:
            return f"token_id:{token_id}".encode()
        return self._tokenizer.token_bytes(token_id)

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Run what would hold up the event loop, in one of few threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def encode(self, text: str, *, param: str, add_special_tokens: bool) -> list[int]:
        """Return the tokens of a text; ApiError (400) for one too long to be worth the work."""
        tokenizer, most = self.tokenizer, self.context
        if len(text) > most * tokenizer.longest_token:
            raise _too_long(f"{len(text)} characters, which are more tokens than that", most, param)
        if len(text) <= SHORT_TEXT:
            return tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return await self.in_thread(lambda: tokenizer.encode(text, add_special_tokens=add_special_tokens))

    async def encode_chat(self, body: Conversation, **variables: str) -> list[int]:
        """Return the tokens of a conversation; ApiError (400) if it is too long or the template refuses it."""
        text = await self.in_thread(lambda: self._render(body, variables))
        return await self.encode(text, param="messages", add_special_tokens=bool(body.add_special_tokens))

    def _render(self, body: Conversation, variables: dict[str, str]) -> str:
        begins = body.add_generation_prompt is not False and not body.continue_final_message
        return self._template.render(
            [message.plain() for message in body.messages],
            add_generation_prompt=begins,
            continue_final_message=bool(body.continue_final_message),
            variables={**variables, **(body.chat_template_kwargs or {})},
        )

    def room(self, token_ids: Sequence[int], asked: int | None, *, param: str) -> int:
        """Return the tokens that an output may have.

        Raises
        ------
        ApiError
            400 if the prompt is empty, or does not fit into the context together with the ``asked`` output.
        """
        if not token_ids:
            raise ApiError(400, f"{param} is empty: at least one token is needed", param=param)
        room = self.context - len(token_ids)
        if room < 1:
            raise _too_long(f"{len(token_ids)} tokens and needs room for another", self.context, param)
        if asked is not None and asked > room:
            raise _too_long(f"{len(token_ids)} tokens and max_tokens asks for {asked} more", self.context, param)
        ready = self.client.ready
        return max(1, min(room, ready.kv_blocks * ready.block_size - len(token_ids)))

    def known(self, token_ids: Sequence[int], *, param: str) -> None:
        """Refuse token ids that the model has not got: ApiError (400)."""
        vocab = self.client.ready.vocab
        if token_ids and max(token_ids) >= vocab:
            message = f"token id {max(token_ids)} is not one of the model's, 0 to {vocab - 1}"
            raise ApiError(400, message[:200], param=param)


def _too_long(what: str, context: int, param: str) -> ApiError:
    message = f"the model's context is {context} tokens; the prompt has {what}"
    return ApiError(400, message, param=param, code="context_length_exceeded")
