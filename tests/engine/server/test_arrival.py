"""Requests that do not arrive, or are more head than body."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.engine.server.http_double import FakeClient, listening
from tests.engine.server.test_http_edges import POST, opened, raw


@pytest.fixture(scope="module")
def hasty() -> Iterator[str]:
    """A server that waits half a second for a request."""
    with listening(FakeClient(), read_timeout_s=0.5) as url:
        yield url


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"POST /v1/comp",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: ",
        f"{POST}Content-Length: 100\r\n\r\n{{".encode(),
        f"{POST}Transfer-Encoding: chunked\r\n\r\n5\r\n".encode(),
    ],
)
def test_a_request_that_does_not_arrive(hasty: str, part: bytes) -> None:
    answer = raw(hasty, part)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.5 s" in answer


def test_a_request_that_trickles_in_has_no_longer(hasty: str) -> None:
    with opened(hasty) as connection:
        begin_s = time.monotonic()
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        answer = b""
        connection.settimeout(0.05)
        while time.monotonic() - begin_s < 20 and not answer:
            try:
                connection.sendall(b"X")
                answer = connection.recv(4096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_trickling_second_request(hasty: str) -> None:
    with opened(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /hea")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_an_answer_may_take_longer_than_a_request(fake: FakeClient) -> None:
    fake.script.hold = True
    with listening(fake, read_timeout_s=0.2) as url:
        threading.Timer(0.6, setattr, (fake.script, "hold", False)).start()
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 5}, timeout=30)
    assert answer.status_code == 200


def test_heads_that_are_too_long(url: str) -> None:
    for head in (b"X-A: " + b"a" * 100_000, b"\r\n".join(b"X-%d: %s" % (place, b"a" * 90) for place in range(1000))):
        whole = raw(url, b"GET /health HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
        assert whole.startswith(b"HTTP/1.1 431 "), whole[:100]
        endless = raw(url, b"GET /health HTTP/1.1\r\nHost: x\r\n" + head)
        assert endless.startswith(b"HTTP/1.1 431 "), endless[:100]
    assert raw(url, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 431 ")
    fits = httpx.get(f"{url}/health", headers={"X-A": "a" * 16_000})
    assert fits.status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
        b"GET /health\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_tricks_with_headers(url: str, head: bytes) -> None:
    status = int(raw(url, head).split()[1])
    assert 400 <= status < 500 or status == 501
    assert httpx.get(f"{url}/health").status_code == 200
