"""Text to tokens and back: the model's own tokenizer, or one of bytes where it has none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from engine.loading import load_tokenizer
from profiler.model import model_path
from traces.files import read_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
BYTES = 256
LONGEST_TOKEN = 256
"""Characters that a token of a model's tokenizer stands for at most, on average over a prompt."""


class ServerTokenizer(Protocol):
    """What the server asks of a tokenizer; the engine's :class:`engine.text.Tokenizer` is part of it.

    Attributes
    ----------
    longest_token
        No prompt of more characters than this times the context can fit into it.
    template
        Its chat template, as Jinja; None where it has none.
    special_tokens
        What a chat template may name, such as ``bos_token``.
    """

    longest_token: int
    template: str | None
    special_tokens: dict[str, Any]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text."""
        ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of token ids."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token stands for, which may be part of a character."""
        ...


class ByteTokenizer:
    """Token ``b`` is byte ``b`` of UTF-8, for models that come without a tokenizer (random weights).

    Nothing is special. Tokens from 256 on, which no text encodes to but a model may generate, read as ``<256>``.
    """

    longest_token = 1
    template: str | None = (
        "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )

    def __init__(self) -> None:
        self.special_tokens: dict[str, Any] = {}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:  # noqa: ARG002
        """Return the bytes of a text."""
        return list(text.encode("utf-8"))

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:  # noqa: ARG002
        """Return the text of bytes; what is no UTF-8 among them reads as U+FFFD."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the byte, or the number in angle brackets."""
        return bytes([token_id]) if token_id < BYTES else f"<{token_id}>".encode()


class ModelTokenizer:
    """A tokenizer of transformers."""

    longest_token = LONGEST_TOKEN

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.special_tokens: dict[str, Any] = dict(tokenizer.special_tokens_map)
        try:
            self.template: str | None = tokenizer.get_chat_template()
        except ValueError:
            self.template = None
        self.encode("threads that encode at once change nothing of it once it has encoded")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text, by default with those that the model wants around it."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of token ids."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token stands for, its leading space included where the vocabulary has it."""
        raw = self._tokenizer.convert_ids_to_tokens(token_id)
        if raw is None:
            return b""
        fallback = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", raw)
        if fallback:
            return bytes([int(fallback[1], 16)])
        text = self.decode([token_id], skip_special_tokens=False)
        if "\ufffd" in text and all(character in BYTE_OF for character in raw):
            return bytes(BYTE_OF[character] for character in raw)
        return (f" {text}" if raw.startswith("\u2581") and not text.startswith(" ") else text).encode()


def _byte_of() -> dict[str, int]:
    """Return the byte that each character of byte-level vocabularies stands for: those that print are themselves."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTES) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(BYTES + place): byte for place, byte in enumerate(others)}


BYTE_OF = _byte_of()


def server_tokenizer(model: str) -> ServerTokenizer | None:
    """Return the tokenizer of a model's folder; where there is none, that of bytes.

    Returns
    -------
    ServerTokenizer or None
        None for a model without a tokenizer whose vocabulary has no room for 256 bytes: it takes token ids alone.

    Raises
    ------
    InputError
        If there is no such model, or its tokenizer cannot be read.
    """
    config = model_path(model)
    if Path(model).is_dir() and any((Path(model) / name).is_file() for name in TOKENIZER_FILES):
        return ModelTokenizer(load_tokenizer(model))
    vocab = read_json(config).get("vocab_size")
    return ByteTokenizer() if isinstance(vocab, int) and vocab >= BYTES else None
