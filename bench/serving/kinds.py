"""The requests of the load: few kinds, each with one right answer: the server's when it has nothing else to do."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

ALPHABET = "abcdefghijklmnopqrstuvwxyz     "


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A request; its seed makes its output different from that of every other kind.

    Attributes
    ----------
    name
        Its number.
    max_tokens
        How many tokens its answer has: it goes on at the end token.
    request
        The whole HTTP request.
    """

    name: int
    max_tokens: int
    request: bytes


def draw_kinds(count: int, *, prompt_tokens: int, output_tokens: int, seed: int) -> list[Kind]:
    """Return kinds of request: prompts of 1 to ``prompt_tokens`` letters, outputs of 1 to ``output_tokens`` tokens."""
    generator = np.random.default_rng(seed)
    return [
        _kind(name, _text(generator, prompt_tokens), int(generator.integers(1, output_tokens, endpoint=True)))
        for name in range(count)
    ]


def _text(generator: np.random.Generator, most: int) -> str:
    return "".join(generator.choice(list(ALPHABET), size=int(generator.integers(1, most, endpoint=True))))


def _kind(name: int, prompt: str, max_tokens: int) -> Kind:
    body = {
        "model": "tiny",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "seed": name,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Kind(name=name, max_tokens=max_tokens, request=_post(json.dumps(body).encode()))


def _post(body: bytes) -> bytes:
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a stream of events said.

    Attributes
    ----------
    ids
        Of all its events; of one answer they are the same.
    text, finishes, tokens
        The whole text, the reasons why it ended, and the tokens that it had by its usage (-1: it told none).
    whole
        Whether it ended with the one ``[DONE]``.
    error
        What went wrong after it had begun.
    """

    ids: frozenset[str]
    text: str
    finishes: tuple[str, ...]
    tokens: int
    whole: bool
    error: str | None = None


def read_answer(body: bytes) -> Answer:
    """Read the body of an answer, in HTTP's chunks; ValueError if it is not what a stream of completions is."""
    *events, last, rest = _dechunked(body).split(b"\n\n")
    documents = [json.loads(event.removeprefix(b"data: ")) for event in events]
    choices = [choice for each in documents for choice in each.get("choices", ())]
    usages = [each["usage"]["completion_tokens"] for each in documents if each.get("usage")]
    return Answer(
        ids=frozenset(each["id"] for each in documents if "id" in each),
        text="".join(choice["text"] for choice in choices),
        finishes=tuple(choice["finish_reason"] for choice in choices if choice["finish_reason"]),
        tokens=usages[0] if len(usages) == 1 else -1,
        whole=last == b"data: [DONE]" and not rest,
        error=next((str(each["error"]) for each in documents if "error" in each), None),
    )


def _dechunked(body: bytes) -> bytes:
    parts, place = list[bytes](), 0
    while True:
        end = body.index(b"\r\n", place)
        size = int(body[place:end], 16)
        if size == 0:
            break
        parts.append(body[end + 2 : end + 2 + size])
        place = end + 4 + size
    if body[end:] != b"\r\n\r\n":
        raise ValueError("bytes behind the end of an answer")
    return b"".join(parts)


def problem(kind: Kind, answer: Answer) -> str | None:
    """Return what is wrong with the answer to a request, apart from its text; None where all is right."""
    if answer.error is not None:
        return f"an error in the stream: {answer.error}"
    if not answer.whole:
        return "no [DONE] at the end"
    if len(answer.ids) != 1:
        return f"{len(answer.ids)} ids in one answer"
    if answer.finishes != ("length",):
        return f"ended by {answer.finishes}"
    if answer.tokens != kind.max_tokens:
        return f"{answer.tokens} tokens instead of {kind.max_tokens}"
    return None
