"""What ``generate`` does: prompts in, text or token ids out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.engine import Engine
from engine.loading import load_tokenizer
from engine.request import Request
from engine.sampling import SamplingParams
from engine.session import EngineSettings, build_engine, policy_choice
from engine.text import Tokenizer
from traces.errors import InputError


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """What a person asked of ``generate``; each field is the option of that name."""

    prompts: Sequence[str] = ()
    prompt_file: Path | None = None
    prompt_tokens: Sequence[str] = ()
    tokens: bool = False
    sampling: SamplingParams = field(default_factory=SamplingParams)


def generate(settings: EngineSettings, asked: GenerationSettings, *, as_json: bool = False) -> int:
    """Serve the prompts and print what came out, in order; return the exit status.

    A prompt that cannot be served is one line on standard error (and an ``error`` in the JSON), the others
    are served, and the status is 2.

    Raises
    ------
    InputError
        If what concerns all prompts is wrong.
    """
    choice = policy_choice(settings)
    texts, listed = _texts(asked), [_token_ids(text) for text in asked.prompt_tokens]
    if not texts and not listed:
        raise InputError("no prompt", expected="a prompt, --prompt-file or --prompt-tokens")
    if texts and asked.tokens:
        raise InputError("text prompts with --tokens", expected="--prompt-tokens")
    tokenizer = None if asked.tokens else load_tokenizer(settings.model)
    prompts = [tokenizer.encode(text) for text in texts] if tokenizer is not None else []
    prompts += listed
    engine = build_engine(settings, choice, longest=_longest(prompts, asked.sampling), tokenizer=tokenizer)
    outcomes = engine.generate(prompts, asked.sampling)
    documents = [_document(prompt, outcome) for prompt, outcome in zip(prompts, outcomes, strict=True)]
    _report(documents, engine, tokenizer, as_json)
    return 2 if any("error" in document for document in documents) else 0


def _texts(asked: GenerationSettings) -> list[str]:
    """Return the prompts given as text: those of the command line, then the lines of the file."""
    if asked.prompt_file is None:
        return list(asked.prompts)
    try:
        lines = asked.prompt_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read", where=asked.prompt_file, expected="UTF-8 text, a prompt a line") from error
    return [*asked.prompts, *lines]


def _token_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(repr(text), where="--prompt-tokens", expected="integers, such as 5,17,3") from error


def _longest(prompts: Sequence[Sequence[int]], sampling: SamplingParams) -> int | None:
    """Return the tokens of the longest request; None where its output may fill the context."""
    return None if sampling.max_tokens is None else max(map(len, prompts)) + sampling.max_tokens


def _document(prompt: list[int], outcome: Request | InputError) -> dict[str, Any]:
    if isinstance(outcome, InputError):
        return {"prompt_token_ids": prompt, "error": str(outcome)}
    document: dict[str, Any] = {
        "prompt_token_ids": prompt,
        "token_ids": outcome.output_token_ids,
        "text": outcome.text,
        "finish_reason": outcome.finish_reason,
        "time_to_first_token_s": outcome.sequence.first_token_s - outcome.sequence.arrival_s,
        "end_to_end_s": outcome.sequence.finished_s - outcome.sequence.arrival_s,
        "preemptions": outcome.sequence.preemptions,
        "cached_tokens": outcome.sequence.cached_tokens,
    }
    if outcome.params.logprobs is not None:
        document["logprobs"] = [
            {"token_id": each.token_id, "logprob": each.logprob, "top": [list(pair) for pair in each.top]}
            for each in outcome.logprobs
        ]
    return document


def _report(documents: list[dict[str, Any]], engine: Engine, tokenizer: Tokenizer | None, as_json: bool) -> None:
    for number, document in enumerate(documents, start=1):
        if "error" in document:
            print(f"error: prompt {number}: {document['error']}", file=sys.stderr)
    if as_json:
        print(json.dumps({"policy": engine.policy.name, "outputs": documents}, indent=2))
        return
    for document in documents:
        if "error" not in document:
            print(document["text"] if tokenizer is not None else ",".join(map(str, document["token_ids"])))
