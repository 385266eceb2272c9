"""A real engine in a process of its own: what comes out of it, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.engine import Engine  # noqa: E402
from engine.request import Request  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from engine.server.blueprint import Blueprint  # noqa: E402
from engine.server.client import QueueFullError, TimeLimitError, UnservableError  # noqa: E402
from engine.server.limits import Limits  # noqa: E402
from engine.server.messages import Idle, Produced, Step  # noqa: E402
from engine.server.process_client import ProcessClient  # noqa: E402
from engine.session import EngineSettings  # noqa: E402
from policies import choose  # noqa: E402

PROMPT = list(range(30, 42))
GREEDY: dict[str, Any] = {"temperature": 0}
LONG = SamplingParams(max_tokens=240, temperature=0)
QUEUE = 8


class Letters:
    """A tokenizer of one letter a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 33 for letter in text]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(chr(33 + token) for token in token_ids)


def letters(model: str) -> Letters:
    return Letters()


class House:
    """A client and its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: ProcessClient) -> None:
        self.loop, self.client = loop, client
        self.steps: list[Step] = []
        self.idles: list[Idle] = []
        client.watch(self.steps.append, self.idles.append)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    async def until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            await asyncio.sleep(0.005)

    async def rest(self) -> None:
        """Until the engine has nothing to do, and has said so."""
        await self.until(lambda: bool(self.idles) and self.idles[-1].load.running + self.idles[-1].load.waiting == 0)


@pytest.fixture(scope="module")
def house(tiny_folder: Path) -> Iterator[House]:
    loop = asyncio.new_event_loop()
    settings = EngineSettings(model=str(tiny_folder), max_model_len=256, block_size=4, num_gpu_blocks_override=256)
    choice = choose("sarathi-serve", max_num_seqs=4, max_num_batched_tokens=16)
    plan = Blueprint(settings=settings, choice=choice, tokenizer=letters)
    client = loop.run_until_complete(ProcessClient.start(plan, Limits(max_queue=QUEUE)))
    made = House(loop, client)
    yield made
    made.run(client.close())
    loop.close()


@pytest.fixture
def expected(make_engine: Callable[..., Engine]) -> Callable[..., Request]:
    """What Engine.generate makes of PROMPT."""

    def serve(**params: Any) -> Request:
        engine = make_engine("vllm", blocks=256, context=256, tokenizer=Letters())
        (outcome,) = engine.generate([PROMPT], SamplingParams(**params))
        assert isinstance(outcome, Request)
        return outcome

    return serve


async def collect(stream: Any) -> list[Produced]:
    return [produced async for produced in stream]


def joined(parts: list[Produced]) -> tuple[list[int], str]:
    return [token for part in parts for token in part.token_ids], "".join(part.text for part in parts)


def test_tokens_are_those_of_the_engine(house: House, expected: Callable[..., Request]) -> None:
    params: dict[str, Any] = {"max_tokens": 30, "logprobs": 2, **GREEDY}
    request = expected(**params)
    (stream,) = house.client.submit(PROMPT, SamplingParams(**params))
    parts = house.run(collect(stream))
    assert joined(parts) == (request.output_token_ids, request.text)
    assert [entry.token_id for part in parts for entry in part.logprobs] == request.output_token_ids
    assert [part.finish for part in parts[:-1]] == [None] * (len(parts) - 1)
    last = parts[-1]
    assert last.finish == "length"
    assert last.served is not None
    assert (last.served.prompt_tokens, last.served.generated_tokens) == (12, 30)
    assert last.served.arrival_s <= last.served.scheduled_s < last.served.first_token_s < last.served.finished_s


def test_a_stop_string_never_shows(house: House, expected: Callable[..., Request]) -> None:
    text = expected(max_tokens=30, **GREEDY).text
    stop = (text[9:14], "no such")
    request = expected(max_tokens=30, stop=stop, **GREEDY)
    (stream,) = house.client.submit(PROMPT, SamplingParams(max_tokens=30, stop=stop, **GREEDY))
    parts = house.run(collect(stream))
    assert joined(parts) == (request.output_token_ids, request.text)
    assert parts[-1].finish == "stop"


def test_several_outputs_differ_and_are_there_whole(house: House) -> None:
    async def ask(seed: int | None) -> list[Produced]:
        streams = house.client.submit(PROMPT, SamplingParams(max_tokens=12, seed=seed), count=4)
        return list(await asyncio.gather(*(stream.whole() for stream in streams)))

    for seed in (None, 2**63 - 2):
        outputs = house.run(ask(seed))
        assert len({each.token_ids for each in outputs}) == 4
        assert [len(each.text) for each in outputs] == [12] * 4
    assert [each.token_ids for each in house.run(ask(7))] == [each.token_ids for each in house.run(ask(7))]
    one, two = house.run(ask(7)), house.run(ask(8))
    assert [each.token_ids for each in one[1:]] == [each.token_ids for each in two[:3]]


def test_steps_say_what_happened(house: House) -> None:
    async def serve() -> None:
        await house.rest()
        house.steps.clear()
        streams = house.client.submit(PROMPT, SamplingParams(max_tokens=8, **GREEDY), count=2)
        await asyncio.gather(*(stream.whole() for stream in streams))

    house.run(serve())
    steps = house.steps
    assert sum(step.prefill_tokens for step in steps) == 24
    assert sum(step.decodes for step in steps) == 14 == sum(count for step in steps for _, count in step.gaps)
    assert max(step.load.running for step in steps) <= 2
    assert (steps[-1].load.running, steps[-1].load.waiting, steps[-1].load.blocks_used) == (0, 0, 0)
    for before, after in pairwise(steps):
        assert after.start_s >= before.end_s
        assert 0 < after.model_s <= after.end_s - after.start_s
    assert all(step.predicted_s is None for step in steps)


def test_who_leaves_gives_its_kv_back(house: House) -> None:
    async def leave() -> tuple[Step, Idle, set[int]]:
        await house.rest()
        house.idles.clear()
        streams = house.client.submit(PROMPT, LONG, count=6)
        await anext(aiter(streams[0]))
        holding = house.steps[-1]
        for stream in streams:
            stream.abort()
            stream.abort()
        assert await collect(streams[0]) == []
        await house.rest()
        return holding, house.idles[-1], {stream.key for stream in streams}

    holding, idle, keys = house.run(leave())
    assert holding.load.blocks_used > 0
    assert idle.load.blocks_used == 0
    told = [each for message in [*house.steps, *house.idles] for each in message.produced if each.key in keys]
    told = [each for each in told if each.finish is not None]
    assert sorted(each.key for each in told) == sorted(keys)
    assert {each.finish for each in told} == {"cancelled"}
    assert all(each.served is not None and each.served.generated_tokens < 240 for each in told)


def test_a_slow_reader_gets_all_at_once_and_holds_up_nobody(house: House, expected: Callable[..., Request]) -> None:
    async def read() -> list[Produced]:
        slow, quick = house.client.submit(PROMPT, SamplingParams(max_tokens=40, **GREEDY), count=2)
        await collect(quick)
        await house.rest()
        return await collect(slow)

    parts = house.run(read())
    assert len(parts) == 1
    request = expected(max_tokens=40, **GREEDY)
    assert joined(parts) == (request.output_token_ids, request.text)


def test_what_cannot_be_served_says_so(house: House) -> None:
    async def ask(prompt: list[int], **params: Any) -> None:
        (stream,) = house.client.submit(prompt, SamplingParams(**params))
        with pytest.raises(UnservableError, match="expected"):
            await collect(stream)

    for prompt, params in (([], {}), ([128], {}), (PROMPT, {"max_tokens": 250}), (PROMPT, {"stop_token_ids": (999,)})):
        house.run(ask(prompt, **params))


def test_the_queue_is_bounded(house: House) -> None:
    async def crowd() -> None:
        most = 4 + QUEUE
        streams = house.client.submit(PROMPT, LONG, count=most)
        with pytest.raises(QueueFullError) as refused:
            house.client.submit(PROMPT, LONG)
        assert 1 <= refused.value.retry_after_s <= 60
        with pytest.raises(UnservableError, match=f"{most + 1} outputs at once; expected at most {most}"):
            house.client.submit(PROMPT, LONG, count=most + 1)
        streams[0].abort()
        streams[0] = house.client.submit(PROMPT, LONG)[0]
        for stream in streams:
            stream.abort()
        await house.rest()

    house.run(crowd())


def test_a_request_takes_no_longer_than_it_may(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        monkeypatch.setattr(house.client, "_limits", Limits(max_queue=QUEUE, request_timeout_s=0.05))
        streams = house.client.submit(PROMPT, LONG, count=QUEUE)
        house.idles.clear()
        outcomes = await asyncio.gather(*(collect(stream) for stream in streams), return_exceptions=True)
        late = [each for each in outcomes if isinstance(each, TimeLimitError)]
        assert late
        assert str(late[0]) == "the request took longer than 0.05 s"
        await house.rest()

    house.run(ask())
    assert house.idles[-1].load.blocks_used == 0
