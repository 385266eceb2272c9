"""Conversations as the one text that a model continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers.utils.chat_template_utils import render_jinja_template

from engine.server.errors import ApiError
from traces.errors import InputError

RESERVED = frozenset(
    (
        "conversations",
        "messages",
        "tools",
        "documents",
        "chat_template",
        "return_assistant_tokens_mask",
        "continue_final_message",
        "add_generation_prompt",
    )
)
"""What a request may not set by ``chat_template_kwargs``."""
Message = Mapping[str, Any]


class ChatTemplate:
    """A template, in the sandbox of Jinja that transformers keeps.

    Parameters
    ----------
    template
        Jinja; None for a model that has none, which refuses every conversation.
    special_tokens
        What the template may name besides, such as ``bos_token``.
    """

    def __init__(self, template: str | None, special_tokens: Mapping[str, Any]) -> None:
        self._template = template
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of a conversation.

        Raises
        ------
        ApiError
            400 if there is no template, or it does not take these messages; of sandboxed code that a request
            drives, whatever goes wrong is the request's.
        """
        if self._template is None:
            says = "this model has no chat template: start the server with --chat-template, or use /v1/completions"
            raise ApiError(400, says)
        taken = RESERVED.intersection(variables or ())
        if taken:
            raise ApiError(400, f"{min(taken)} is not for a request to set", param="chat_template_kwargs")
        try:
            texts: Any = render_jinja_template(
                conversations=[[dict(message) for message in messages]],
                chat_template=self._template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **{**self._special_tokens, **(variables or {})},
            )
        except Exception as error:
            says = f"the chat template does not take these messages: {error}"
            raise ApiError(400, " ".join(says.split()), param="messages") from error
        return str(texts[0][0])


def read_template(file: Path) -> str:
    """Return a chat template; InputError if it cannot be read or is no Jinja."""
    try:
        template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read", where=file, expected="a chat template (Jinja)") from error
    try:
        ChatTemplate(template, {}).render([{"role": "user", "content": "Hi"}])
    except ApiError as error:
        if isinstance(error.__cause__, TemplateSyntaxError):
            raise InputError(
                f"line {error.__cause__.lineno}: {error.__cause__}", where=file, expected="Jinja"
            ) from error
    return template
