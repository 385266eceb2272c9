"""What clients send: names, defaults and meanings are OpenAI's, and vLLM's where OpenAI has none."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.sampling import SEEDS, SamplingParams
from engine.server.neutral import refuse_unsupported

MOST_CHOICES = 1024
"""Prompts times ``n`` of one HTTP request."""
MOST_LOGPROBS = 20
COMPLETION_TOKENS = 16
"""The default of ``max_tokens`` for completions."""

Texts = Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MOST_CHOICES)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True, min_length=1)]
TokenLists = Annotated[list[TokenIds], Field(fail_fast=True, min_length=1, max_length=MOST_CHOICES)]
StopText = Annotated[str, Field(min_length=1, max_length=1024)]
StopTexts = Annotated[list[StopText], Field(fail_fast=True, max_length=32)]
StopTokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=SEEDS)]], Field(fail_fast=True, max_length=256)]


class Body(BaseModel):
    """JSON types as they are: no number from a string. Unknown names change nothing."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class StreamOptions(Body):
    """What a stream tells beside its text."""

    include_usage: bool | None = Field(None, description="A last event with the usage, and no choice.")
    continuous_usage_stats: bool | None = Field(None, description="The usage so far in every event.")


class SamplingBody(Body):
    """How the output of a request is chosen, and where it ends."""

    model: str | None = Field(None, description="A name that /v1/models lists. Default: the first of them.")
    n: int | None = Field(
        None, ge=1, le=128, description="Choices; each has a seed of its own, derived from seed. Default: 1."
    )
    stream: bool | None = Field(None, description="Answer by server-sent events.")
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, description="0 takes the likeliest token. Default: 1.")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=SEEDS, description="0 or -1 for all tokens.")
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-SEEDS, lt=SEEDS)
    stop: StopText | StopTexts | None = Field(None, description="Where the output ends; no part of it.")
    stop_token_ids: StopTokenIds | None = None
    min_tokens: int | None = Field(None, ge=0, lt=SEEDS)
    ignore_eos: bool | None = Field(None, description="Go on at the model's own end token.")

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, document: Any) -> Any:
        return refuse_unsupported(document)

    @property
    def choices(self) -> int:
        """How many outputs there are for each prompt."""
        return self.n or 1

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def with_usage_so_far(self) -> bool:
        """Whether every event of a stream has the usage so far."""
        return self.with_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    def params(self, *, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """Return the settings for the engine; InputError if they contradict each other."""
        return SamplingParams(
            temperature=1.0 if self.temperature is None else float(self.temperature),
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else float(self.top_p),
            min_p=float(self.min_p or 0),
            seed=None if self.seed is None else self.seed % SEEDS,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            max_tokens=max_tokens,
            min_tokens=self.min_tokens or 0,
            logprobs=logprobs,
        )


class CompletionRequest(SamplingBody):
    """A body of ``/v1/completions``."""

    prompt: str | Texts | TokenIds | TokenLists = Field(description="Text or token ids, or a list of either.")
    max_tokens: int | None = Field(
        None, ge=1, lt=SEEDS, description="Default: 16, or what the context has room for if that is less."
    )
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS, description="Of each token, and of so many likeliest.")
    echo: bool | None = Field(None, description="Begin with the prompt; not together with logprobs.")
    add_special_tokens: bool | None = Field(None, description="Those that the model wants around a text. Default: yes.")


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """What one side said; further keys go to the chat template."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    def plain(self) -> dict[str, Any]:
        """Return the message for a chat template, its content as one text."""
        parts = self.content
        text = parts if isinstance(parts, str) else "\n".join(part.text for part in parts or ())
        return {**(self.model_extra or {}), "role": self.role, "content": text}


class Conversation(Body):
    """Messages, and how they become one text."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    add_generation_prompt: bool | None = Field(None, description="End where the assistant's turn begins. Default: yes.")
    continue_final_message: bool | None = Field(None, description="Go on with the last message.")
    add_special_tokens: bool | None = Field(None, description="Besides those of the template. Default: no.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Variables for the chat template.")


class ChatRequest(SamplingBody, Conversation):
    """A body of ``/v1/chat/completions``."""

    max_completion_tokens: int | None = Field(
        None, ge=1, lt=SEEDS, description="Default: what the context has room for."
    )
    max_tokens: int | None = Field(None, ge=1, lt=SEEDS, description="The older name of max_completion_tokens.")
    logprobs: bool | None = Field(None, description="The log probability of each token.")
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS, description="With logprobs: of so many likeliest.")
    reasoning_effort: str | None = Field(None, description="A variable for the chat template.")

    @property
    def longest(self) -> int | None:
        """The most tokens of an output; None for what fits."""
        return self.max_completion_tokens or self.max_tokens


class TokenizeText(Body):
    """A body of ``/tokenize``: a text."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = Field(None, description="Those that the model wants around a text. Default: yes.")
    return_token_strs: bool | None = Field(None, description="What each token stands for, too.")


class TokenizeChat(Conversation):
    """A body of ``/tokenize``: a conversation."""

    model: str | None = None
    return_token_strs: bool | None = Field(None, description="What each token stands for, too.")


class Detokenize(Body):
    """A body of ``/detokenize``."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)]
