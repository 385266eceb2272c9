"""The judge of the server under load tells a right answer from a wrong one."""

from __future__ import annotations

import asyncio
import json

import pytest

from bench.serving.kinds import draw_kinds, problem, read_answer
from bench.serving.load import Load

(KIND,) = draw_kinds(1, prompt_tokens=4, output_tokens=1, seed=0)
TOKEN = {"id": "a", "choices": [{"index": 0, "text": "x", "finish_reason": "length"}]}
USAGE = {"id": "a", "choices": [], "usage": {"completion_tokens": 1}}


def body(*events: object, done: str = "data: [DONE]\n\n") -> bytes:
    parts = [*(f"data: {json.dumps(event)}\n\n" for event in events), done]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part.encode()) for part in parts if part) + b"0\r\n\r\n"


def test_a_right_answer() -> None:
    answer = read_answer(body(TOKEN, USAGE))
    assert (answer.text, answer.tokens, answer.ids) == ("x", 1, {"a"})
    assert problem(KIND, answer) is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (body(TOKEN, TOKEN, USAGE), "ended by"),
        (body(TOKEN), "-1 tokens"),
        (body(TOKEN, {**USAGE, "usage": {"completion_tokens": 2}}), "2 tokens instead of 1"),
        (body(TOKEN, {**USAGE, "id": "b"}), "2 ids"),
        (body(TOKEN, USAGE, done="data: x\n\n"), "no \\[DONE\\]"),
        (body(TOKEN, {"error": {"message": "broken"}}), "an error in the stream"),
    ],
)
def test_a_wrong_answer(wrong: bytes, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        assert (said := problem(KIND, read_answer(wrong))) is None, said


def test_bytes_behind_an_answer() -> None:
    with pytest.raises(ValueError, match="bytes behind the end"):
        read_answer(body(TOKEN, USAGE) + body(TOKEN, USAGE))


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (body(TOKEN, USAGE), None),
        (body(TOKEN, TOKEN, USAGE), "ended by"),
        (b"5\r\ndata:", "the connection ended within an answer"),
    ],
)
def test_what_is_lost_or_wrong_is_counted(said: bytes, says: str | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"}}"):
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + said)
            if not said.endswith(b"0\r\n\r\n"):
                writer.close()
                return

    async def scene() -> Load:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        load = Load(*server.sockets[0].getsockname(), [KIND], ["x"], leaving=0, seed=0)
        async with server:
            assert await load.run(1, duration_s=1.2, drain_s=5) == 0
        return load

    outcome = asyncio.run(scene()).outcome
    wrong = sum(outcome.wrong.values())
    assert outcome.sent == outcome.answered + wrong > 0
    assert (outcome.answered == 0, wrong > 0) == (says is not None, says is not None)
    assert all(str(says) in what for what in outcome.wrong)
