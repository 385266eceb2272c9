"""Many clients at once, on bare sockets: what they are sent, and when."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter

import numpy as np

from bench.serving.kinds import Kind, problem, read_answer

END = b"\r\n0\r\n\r\n"
TEXT = b'"text":'
"""What every event with tokens has, and no other."""
LEAVE_WITHIN_S = 1.0
"""A client that leaves before its first token does so after up to so long."""


@dataclass(kw_only=True)
class Outcome:
    """What became of all requests.

    Attributes
    ----------
    sent, left, answered
        Requests, those whose client left, and those with a right answer; ``other_text`` of them say something else than
        the same request did alone.
    tokens
        Of right answers.
    wrong
        What else happened, by what it was.
    ids
        How often each answer's id came.
    ttfts_s, gaps_s
        Of right answers: until the first event, and between events (several tokens where they came together).
    """

    sent: int = 0
    left: int = 0
    answered: int = 0
    other_text: int = 0
    tokens: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    ids: Counter[str] = field(default_factory=Counter)
    ttfts_s: array[float] = field(default_factory=lambda: array("d"))
    gaps_s: array[float] = field(default_factory=lambda: array("d"))


class Client(asyncio.Protocol):
    """One connection; it takes down what comes, and when."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.pieces: list[bytes] = []
        self.times_s: list[float] = []
        self._leave_at: int | None = None
        self._done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self.transport is not None and not self.transport.is_closing()

    def ask(self, request: bytes, leave_at: int | None) -> asyncio.Future[bool]:
        """Send a request; what is returned is True once it is answered, False if the connection ended before.

        With ``leave_at`` the client leaves once so many pieces have come.
        """
        assert self.transport is not None
        self.pieces, self.times_s, self._leave_at = [], [], leave_at
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        """Take down a piece."""
        self.pieces.append(data)
        self.times_s.append(perf_counter())
        if self._leave_at is not None and len(self.pieces) >= self._leave_at:
            self.leave()
        elif data.endswith(END) or (len(data) < len(END) and b"".join(self.pieces[-8:]).endswith(END)):
            self._end(True)
        elif len(self.pieces) == 1 and not data.startswith(b"HTTP/1.1 200 "):
            self.leave()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Note that no more will come."""
        self._end(False)

    def leave(self) -> None:
        """Go, whatever is on its way."""
        if self.transport is not None:
            self.transport.abort()
        self._end(False)

    def _end(self, answered: bool) -> None:
        if not self._done.done():
            self._done.set_result(answered)


class Load:
    """Clients that ask one request after the other until told to stop.

    Parameters
    ----------
    host, port
        The server's.
    kinds, texts
        What is asked, and each kind's answer when nothing else is asked.
    leaving
        The share of requests whose client leaves.
    seed
        Of everything that is drawn.
    """

    def __init__(
        self, host: str, port: int, kinds: Sequence[Kind], texts: Sequence[str], *, leaving: float, seed: int
    ) -> None:
        self._address = host, port
        self._kinds = kinds
        self._texts = texts
        self._leaving = leaving
        self._seed = seed
        self._stopping = False
        self.outcome = Outcome()

    async def run(self, clients: int, *, duration_s: float, drain_s: float) -> int:
        """Ask for ``duration_s`` with so many clients; return how many requests are unanswered ``drain_s`` later."""
        generators = [np.random.default_rng([self._seed, number]) for number in range(clients)]
        tasks = [asyncio.create_task(self._client(each)) for each in generators]
        await asyncio.sleep(duration_s)
        self._stopping = True
        done, pending = await asyncio.wait(tasks, timeout=drain_s)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()
        return len(pending)

    async def _client(self, generator: np.random.Generator) -> None:
        client: Client | None = None
        await asyncio.sleep(float(generator.uniform(0, 1)))
        while not self._stopping:
            if client is None or not client.usable:
                try:
                    _, client = await asyncio.get_running_loop().create_connection(Client, *self._address)
                except OSError as error:
                    self.outcome.wrong[f"no connection: {error}"] += 1
                    await asyncio.sleep(0.1)
                    continue
            await self._ask(client, generator)
        if client is not None:
            client.leave()

    async def _ask(self, client: Client, generator: np.random.Generator) -> None:
        kind = self._kinds[int(generator.integers(len(self._kinds)))]
        leaves = generator.random() < self._leaving
        leave_at = int(generator.integers(0, kind.max_tokens, endpoint=True)) if leaves else None
        self.outcome.sent += 1
        sent_s = perf_counter()
        done = client.ask(kind.request, leave_at or None)
        if leave_at == 0:
            asyncio.get_running_loop().call_later(float(generator.uniform(0, LEAVE_WITHIN_S)), client.leave)
        answered = await done
        if answered:
            self._judge(kind, client, sent_s)
        elif leaves:
            self.outcome.left += 1
        else:
            self.outcome.wrong[_cut_off(client)] += 1
        if leaves:
            client.leave()

    def _judge(self, kind: Kind, client: Client, sent_s: float) -> None:
        try:
            answer = read_answer(b"".join(client.pieces).partition(b"\r\n\r\n")[2])
        except (ValueError, KeyError, TypeError) as error:
            self.outcome.wrong[f"not a stream of completions: {error}"] += 1
            return
        wrong = problem(kind, answer)
        self.outcome.ids.update(answer.ids)
        if wrong is not None:
            self.outcome.wrong[wrong] += 1
            return
        self.outcome.answered += 1
        self.outcome.tokens += answer.tokens
        self.outcome.other_text += answer.text != self._texts[kind.name]
        times_s = [time_s for time_s, piece in zip(client.times_s, client.pieces, strict=True) if TEXT in piece]
        self.outcome.ttfts_s.append(times_s[0] - sent_s)
        self.outcome.gaps_s.extend(later - earlier for earlier, later in pairwise(times_s))


def _cut_off(client: Client) -> str:
    """Return what came instead of an answer."""
    if not client.pieces:
        return "no answer: the connection ended"
    head = client.pieces[0].split(b"\r\n", 1)[0].decode(errors="replace")
    return f"the connection ended within an answer: {head}"


async def ask_alone(host: str, port: int, kinds: Sequence[Kind]) -> list[str]:
    """Ask each kind by itself, one after the other; return the texts. RuntimeError if one is not answered right."""
    _, client = await asyncio.get_running_loop().create_connection(Client, host, port)
    texts = list[str]()
    for kind in kinds:
        if not await client.ask(kind.request, None):
            raise RuntimeError(f"{_cut_off(client)}: {b''.join(client.pieces)[-500:]!r}")
        answer = read_answer(b"".join(client.pieces).partition(b"\r\n\r\n")[2])
        wrong = problem(kind, answer)
        if wrong is not None:
            raise RuntimeError(wrong)
        texts.append(answer.text)
    client.leave()
    return texts
