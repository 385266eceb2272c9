"""A request as the engine serves it: its tokens, its text, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from typing import Literal

import torch

from engine.sampling import SamplingParams, TokenLogprobs
from engine.text import TextStream
from policies.sequence import Sequence

FinishReason = Literal["stop", "length", "cancelled"]


class Request:
    """What the engine hands out for a request, filled in while it is served.

    Attributes
    ----------
    sequence
        The policy's side of it: times, preemptions, cached tokens. Its counts are the policy's business.
    params
        How it is sampled.
    token_ids
        The prompt and what has been generated so far.
    logprobs
        One entry a generated token, where they were asked for.
    finish_reason
        None while it is served; ``stop`` at a stop token or string, ``length`` at ``max_tokens``.
    """

    def __init__(
        self,
        sequence: Sequence,
        prompt_token_ids: Listing[int],
        params: SamplingParams,
        *,
        stop_ids: frozenset[int],
        generator: torch.Generator,
        stream: TextStream | None,
    ) -> None:
        self.sequence = sequence
        self.params = params
        self.generator = generator
        self.token_ids = list(prompt_token_ids)
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: FinishReason | None = None
        self._stop_ids = stop_ids
        self._stream = stream

    @property
    def request_id(self) -> int:
        """Ascending in order of arrival."""
        return self.sequence.request_id

    @property
    def prompt_token_ids(self) -> list[int]:
        """What was sent."""
        return self.token_ids[: self.sequence.prompt_tokens]

    @property
    def output_token_ids(self) -> list[int]:
        """What has been generated so far, a stop token included."""
        return self.token_ids[self.sequence.prompt_tokens :]

    @property
    def text(self) -> str:
        """The text so far, without special tokens and stop string; empty where there is no tokenizer."""
        return "" if self._stream is None else self._stream.text

    def take_text(self) -> str:
        """Return the text since the last call, as far as no stop string to come can take it back."""
        return "" if self._stream is None else self._stream.take()

    @property
    def banned(self) -> list[int]:
        """The tokens that must not come next: those that would end it before ``min_tokens``."""
        return sorted(self._stop_ids) if self._generated < self.params.min_tokens else []

    @property
    def _generated(self) -> int:
        return len(self.token_ids) - self.sequence.prompt_tokens

    def accept(self, token_id: int) -> None:
        """Take the next token, and see whether it is the last."""
        self.token_ids.append(token_id)
        if token_id in self._stop_ids:
            self.finish("stop")
            return
        if self._stream is not None:
            self._stream.push(token_id, may_stop=self._generated >= self.params.min_tokens)
            if self._stream.stopped:
                self.finish("stop")
                return
        if self._generated == self.sequence.output_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """Note why it ended."""
        self.finish_reason = reason
        if self._stream is not None:
            self._stream.finish()
