"""The ``openai`` package against the server, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from engine.server.client import EngineDownError, IterationError, TimeLimitError
from tests.engine.server.http_double import CONTEXT, FakeClient, listening, wait_until


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as found:
        yield found


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].text for chunk in stream if chunk.choices)


def test_a_completion_and_its_usage(client: openai.OpenAI) -> None:
    made = client.completions.create(model="tiny", prompt="hello", max_tokens=7)
    assert made.object == "text_completion"
    assert made.model == "tiny"
    assert made.id.startswith("cmpl-")
    assert made.system_fingerprint is None
    assert [(choice.index, choice.text, choice.finish_reason) for choice in made.choices] == [(0, "hellohe", "length")]
    usage = made.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 7, 12)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["aba"]),
        (["ab", "xyz"], ["aba", "xyz"]),
        ([97, 98], ["aba"]),
        ([[97, 98], [120]], ["aba", "xxx"]),
    ],
)
def test_every_kind_of_prompt(client: openai.OpenAI, prompt: Any, texts: list[str]) -> None:
    made = client.completions.create(model="tiny", prompt=prompt, max_tokens=3)
    assert [choice.text for choice in made.choices] == texts
    streamed: dict[int, str] = {}
    for chunk in client.completions.create(model="tiny", prompt=prompt, max_tokens=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] = streamed.get(choice.index, "") + choice.text
    assert [streamed[index] for index in range(len(texts))] == texts


def test_a_stop_string_is_counted_and_not_told(client: openai.OpenAI) -> None:
    made = client.completions.create(model="tiny", prompt="abcdef", max_tokens=50, stop=["zz", "de"])
    assert made.choices[0].text == "abc"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    assert made.usage.completion_tokens == 5


def test_a_stream_is_the_same_text_and_ends_with_its_usage(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.completions.create(model="tiny", prompt="héllo", max_tokens=9, stream=True, stream_options=options)
    )
    assert text_of(chunks) == "hélloh" + "é"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices] == [None] * 8 + ["length"]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 9
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_so_far(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(
        client.completions.create(model="tiny", prompt="abc", max_tokens=3, stream=True, stream_options=options)
    )
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [1, 2, 3, 3]


def test_logprobs_of_a_completion(client: openai.OpenAI) -> None:
    made = client.completions.create(model="tiny", prompt="hZé", max_tokens=4, logprobs=2)
    logprobs = made.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["h", "Z", "bytes:\\xc3", "bytes:\\xa9"]
    assert logprobs.token_logprobs == [-0.5, -9999.0, -0.5, -0.5]
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"A": -66.0, "B": -67.0, "h": -0.5}
    assert logprobs.text_offset == [0, 1, 2, 12]


def test_echo_begins_with_the_prompt(client: openai.OpenAI) -> None:
    made = client.completions.create(model="tiny", prompt=["ab", "c"], max_tokens=1, echo=True, n=2)
    assert [choice.text for choice in made.choices] == ["aba", "aba", "cc", "cc"]
    assert text_of(
        client.completions.create(model="tiny", prompt=[104, 105], max_tokens=1, echo=True, stream=True)
    ) == ("hih")


def test_the_prompt_counts_once_for_all_choices(client: openai.OpenAI, fake: FakeClient) -> None:
    made = client.completions.create(model="tiny", prompt="abcd", max_tokens=2, n=3, seed=-5)
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (4, 6)
    [(_, params, count)] = fake.script.seen
    assert count == 3
    assert params.seed == 2**63 - 5


def test_a_chat(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    made = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "s"}, {"role": "user", "content": parts}],
        max_completion_tokens=12,
        logprobs=True,
        top_logprobs=1,
    )
    assert made.object == "chat.completion"
    choice = made.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "<|system|>\ns")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert choice.logprobs.content[0].token == "<"
    assert choice.logprobs.content[0].bytes == [60]
    assert [top.token for top in choice.logprobs.content[0].top_logprobs] == ["A"]


def test_a_chat_without_a_limit_may_fill_the_context(client: openai.OpenAI, fake: FakeClient) -> None:
    client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}], stop="user")
    [(prompt, params, _)] = fake.script.seen
    assert bytes(prompt) == b"<|user|>\nx\n<|assistant|>\n"
    assert params.max_tokens == CONTEXT - len(prompt)


def test_a_chat_stream_says_first_who_speaks(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], max_tokens=3, stream=True, n=2
        )
    )
    for index in range(2):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert own[0].delta.role == "assistant"
        assert own[0].delta.content == ""
        assert "".join(choice.delta.content or "" for choice in own) == "<|u"
        assert [choice.finish_reason for choice in own] == [None, None, None, "length"]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_vllm_s_own_parameters(client: openai.OpenAI, fake: FakeClient) -> None:
    extra = {"top_k": 5, "min_p": 0.1, "ignore_eos": True, "min_tokens": 2, "stop_token_ids": [3], "unheard_of": 1}
    client.completions.create(
        model="other", prompt="x", max_tokens=4, temperature=0, top_p=0.5, user="u", extra_body=extra
    )
    [(_, params, _)] = fake.script.seen
    assert (params.top_k, params.min_p, params.ignore_eos, params.min_tokens) == (5, 0.1, True, 2)
    assert (params.stop_token_ids, params.temperature, params.top_p, params.max_tokens) == ((3,), 0.0, 0.5, 4)


def test_many_at_once_with_the_asynchronous_client(url: str) -> None:
    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:

            async def one(number: int) -> str:
                stream = await client.completions.create(model="tiny", prompt=f"{number};", max_tokens=9, stream=True)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return list(await asyncio.gather(*(one(number) for number in range(50))))

    assert asyncio.run(all_of_them()) == [(f"{number};" * 9)[:9] for number in range(50)]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "other"]
    assert client.models.retrieve("other").object == "model"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("no/such")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (IterationError("the model failed"), openai.InternalServerError),
        (TimeLimitError("too long"), openai.InternalServerError),
        (EngineDownError("the engine is gone"), openai.InternalServerError),
    ],
)
def test_what_fails_before_the_first_token_has_a_status(
    client: openai.OpenAI, fake: FakeClient, failure: Any, kind: type[openai.APIStatusError]
) -> None:
    fake.script.fail_after, fake.script.failure = 0, failure
    for stream in (False, True):
        with pytest.raises(kind, match=str(failure)) as caught:
            client.completions.create(model="tiny", prompt="x", stream=stream)
        assert caught.value.status_code == failure.status
    assert not fake.script.live


def test_what_fails_later_is_an_event(client: openai.OpenAI, fake: FakeClient) -> None:
    fake.script.fail_after, fake.script.failure = 2, IterationError("the model failed")
    seen = []
    with pytest.raises(openai.APIError, match="the model failed"):
        for chunk in client.completions.create(model="tiny", prompt="abc", n=2, max_tokens=5, stream=True):
            seen.append(chunk.choices[0].text)
    assert set(seen) == {"a", "b"}
    wait_until(lambda: not fake.script.live)


def test_a_full_queue_says_when_to_come_again(client: openai.OpenAI, fake: FakeClient) -> None:
    fake.script.full = True
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model="tiny", prompt=["a", "b"])
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.code == "rate_limit_exceeded"


def test_an_unhealthy_engine(client: openai.OpenAI, fake: FakeClient) -> None:
    fake.script.unhealthy = "the server is draining"
    with pytest.raises(openai.InternalServerError, match="draining") as caught:
        client.completions.create(model="tiny", prompt="a")
    assert caught.value.status_code == 503


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": CONTEXT}, "prompt"),
        ({"temperature": -1}, "temperature"),
        ({"n": 129}, "n"),
        ({"stop": ""}, "stop"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [1, 300]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": ["a"] * 600, "n": 2}, "n"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"suffix": "."}, "suffix"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"best_of": 2}, "best_of"),
        ({"extra_body": {"min_tokens": 17}}, "min_tokens"),
        ({"extra_body": {"guided_json": {}}}, "guided_json"),
    ],
)
def test_a_bad_request_names_its_parameter(client: openai.OpenAI, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "tiny", "prompt": "x", **wrong})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"extra_body": {"chat_template_kwargs": {"chat_template": "x"}}}, "chat_template_kwargs"),
    ],
)
def test_a_bad_chat_names_its_parameter(client: openai.OpenAI, asked: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": [{"role": "user", "content": "x"}], **asked})
    assert caught.value.param == param


def test_what_changes_nothing_is_taken(client: openai.OpenAI) -> None:
    neutral: Any = {"tools": [], "response_format": {"type": "text"}, "frequency_penalty": 0, "logit_bias": {}}
    client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "x"}], max_tokens=1, metadata={"a": "b"}, **neutral
    )


def test_a_key(fake: FakeClient) -> None:
    with listening(fake, api_keys=("one", "two")) as guarded:
        for key in ("one", "two"):
            with openai.OpenAI(base_url=f"{guarded}/v1", api_key=key) as client:
                assert client.completions.create(model="tiny", prompt="x", max_tokens=1).choices[0].text == "x"
        for key in ("three", "on", "one two", "onee"):
            with (
                openai.OpenAI(base_url=f"{guarded}/v1", api_key=key) as client,
                pytest.raises(openai.AuthenticationError),
            ):
                client.models.list()
