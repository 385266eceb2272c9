"""What is no proper request gets 4xx in OpenAI's shape; what nobody waits for is freed."""

from __future__ import annotations

import json
import logging
import socket
import struct
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from engine.server.keys import read_keys
from tests.engine.server.http_double import CONTEXT, FakeClient, listening, wait_until
from traces.errors import InputError

JSON = {"Content-Type": "application/json"}
POST = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, once it is sure to have OpenAI's shape."""
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert isinstance(document["error"]["message"], str)
    assert "Traceback" not in answer.text
    return dict(document["error"])


def raw(url: str, *parts: bytes) -> bytes:
    """Send bytes as they are; return what comes until the server closes, or has answered one request."""
    with opened(url) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
            head, _, body = answer.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if lengths and len(body) >= int(lengths[0].split(b":")[1]):
                break
        return answer


def opened(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{'prompt': 1}",
        b'{"prompt": "x", "temperature": NaN}',
        b'{"prompt": "x", "temperature": Infinity}',
        b'{"prompt": "x", "temperature": 1e999}',
        b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}",
        b'{"prompt": "x", "max_tokens": ' + b"9" * 100 + b"}",
        b'{"prompt": [' + b"9" * 100 + b"]}",
        b'{"prompt": "x", "seed": ' + b"9" * 30 + b"}",
        b'{"prompt": "x", "n": true}',
        b'{"prompt": "x", "n": "1"}',
        b'{"prompt": "x", "n": 1.5}',
        b'{"prompt": {"a": 1}}',
        b'{"prompt": [1, "a"]}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\ud800\\u0041"}',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b'\xef\xbb\xbf{"prompt": "x"',
        b'{"model": "\xf0\x9f\x92\xa9", "prompt": "x"}',
        b'{"prompt": "x", "stop": [' + b",".join([b'"a"'] * 100) + b"]}",
    ],
)
def test_a_body_that_is_wrong(url: str, fake: FakeClient, body: bytes) -> None:
    answer = httpx.post(f"{url}/v1/completions", content=body, headers=JSON)
    error_of(answer)
    assert answer.status_code in (400, 404)
    assert not fake.script.seen


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/v1/../v1/none", 404),
        ("GET", "/docs", 404),
        ("POST", "/admin/policy", 403),
        ("GET", "/admin", 403),
        ("GET", "/%61dmin/x", 403),
    ],
)
def test_a_path_or_method_that_is_wrong(url: str, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, url + path)
    assert answer.status_code == status
    error_of(answer)


def test_another_type_of_content(url: str) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        answer = httpx.post(f"{url}/v1/completions", content=b'{"prompt": "x"}', headers=headers)
        assert answer.status_code == 415
        error_of(answer)
    typed = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert httpx.post(f"{url}/v1/completions", content=b'{"prompt": "x"}', headers=typed).status_code == 200


def test_a_body_that_is_too_long_whether_it_says_so_or_not(fake: FakeClient) -> None:
    with listening(fake, max_body_bytes=1000) as url:
        said = httpx.post(f"{url}/v1/completions", content=b" " * 1001, headers=JSON)
        chunked = httpx.post(f"{url}/v1/completions", content=iter([b" " * 600] * 3), headers=JSON)
        unsent = raw(url, f"{POST}Content-Length: 99999999999999\r\n\r\n".encode())
        fits = httpx.post(f"{url}/v1/completions", json={"prompt": "x"})
    assert said.status_code == chunked.status_code == 413
    error_of(said)
    error_of(chunked)
    assert unsent.startswith(b"HTTP/1.1 413 ")
    assert fits.status_code == 200


def test_a_prompt_of_a_megabyte_is_refused_with_the_numbers(url: str) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": "x" * 2**20}),
        ("/v1/completions", {"prompt": [5] * 2**18}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 2**20}]}),
        ("/tokenize", {"prompt": "x" * 2**20}),
    ):
        answer = httpx.post(url + path, json=body)
        assert answer.status_code == 400
        assert error_of(answer)["code"] == "context_length_exceeded"
        assert str(CONTEXT) in error_of(answer)["message"]


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /he alth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        POST.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_header_tricks(url: str, head: bytes) -> None:
    answer = raw(url, head)
    status, body = answer.split(b" ")[1], answer.partition(b"\r\n\r\n")[2]
    assert status.startswith(b"4")
    assert set(json.loads(body)) == {"error"}


def test_a_key_is_asked_for_before_the_body_is_read(fake: FakeClient) -> None:
    with listening(fake, api_keys=("secret",)) as url:
        unsent = raw(url, f"{POST}Content-Length: 100\r\n\r\n".encode())
        wrongs = ("secret", "Basic secret", "Bearer", "Bearer secre", "Bearer secret2", "bearer sécret")
        for header in wrongs:
            answer = httpx.get(f"{url}/v1/models", headers={"Authorization": header.encode()})
            assert answer.status_code == 401
            assert error_of(answer)["code"] == "invalid_api_key"
        twice = [("Authorization", "Bearer secret"), ("Authorization", "Bearer secret")]
        assert httpx.get(f"{url}/v1/models", headers=twice).status_code == 401
        assert httpx.get(f"{url}/%76%31/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "bearer secret"}).status_code == 200
        assert httpx.get(f"{url}/health").status_code == 200
        security = httpx.get(f"{url}/openapi.json").json()["paths"]["/v1/completions"]["post"]["security"]
    assert unsent.startswith(b"HTTP/1.1 401 ")
    assert security


def test_health(url: str, fake: FakeClient) -> None:
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.post(f"{url}/ping").status_code == 200
    fake.script.unhealthy = "the engine's process is gone"
    answer = httpx.get(f"{url}/health")
    assert answer.status_code == 503
    assert error_of(answer)["message"] == "the engine's process is gone"


def test_tokens_and_back(url: str) -> None:
    there = httpx.post(f"{url}/tokenize", json={"prompt": "hé", "return_token_strs": True}).json()
    assert there == {
        "count": 3,
        "max_model_len": CONTEXT,
        "tokens": [104, 195, 169],
        "token_strs": ["h", "bytes:\\xc3", "bytes:\\xa9"],
    }
    assert httpx.post(f"{url}/detokenize", json={"tokens": [104, 195, 169, 256]}).json() == {"prompt": "hé<256>"}
    chat = httpx.post(f"{url}/tokenize", json={"messages": [{"role": "user", "content": "x"}]}).json()
    assert bytes(chat["tokens"]) == b"<|user|>\nx\n<|assistant|>\n"
    for wrong in ({"tokens": [10**30]}, {"tokens": [-1]}, {}):
        answer = httpx.post(f"{url}/detokenize", json=wrong)
        assert answer.status_code == 400
        assert error_of(answer)["param"] == "tokens"


def test_an_unforeseen_error_is_one_line_in_the_log(
    url: str, fake: FakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("insides")

    monkeypatch.setattr(fake, "submit", broken)
    with caplog.at_level(logging.INFO):
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "x"})
    assert answer.status_code == 500
    assert "insides" not in error_of(answer)["message"]
    [record] = [each for each in caplog.records if each.name.startswith("engine.server")]
    assert "KeyError" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_frees_what_the_engine_holds(
    url: str, fake: FakeClient, stream: bool, held: bool, reset: bool
) -> None:
    fake.script.hold = held
    body = json.dumps({"prompt": "abc", "n": 3, "max_tokens": 4000, "stream": stream}).encode()
    if not (held or stream):
        fake.script.hold = True
    connection = opened(url)
    connection.sendall(f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    wait_until(lambda: len(fake.script.live) == 3)
    if stream and not held:
        fake.script.hold = True
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_until(lambda: fake.script.aborted == 3)
    assert not fake.script.live


def test_a_client_that_does_not_read_is_dropped(fake: FakeClient) -> None:
    body = json.dumps({"prompt": "abc", "n": 128, "max_tokens": 4000, "stream": True, "logprobs": 5}).encode()
    with listening(fake, write_timeout_s=0.3) as url, opened(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: fake.script.aborted > 0)
        wait_until(lambda: not fake.script.live)
        assert httpx.get(f"{url}/health").status_code == 200


def test_keys_of_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n two \n")
    monkeypatch.setenv("THE_KEY", "three")
    assert read_keys(["zero"], file, "THE_KEY", option="--api-key") == ["zero", "one", "two", "three"]
    file.write_text("\n")
    with pytest.raises(InputError, match="holds no key"):
        read_keys(None, file, "THE_KEY", option="--api-key")
    with pytest.raises(InputError, match="not a key"):
        read_keys(["a b"], None, "THE_KEY", option="--api-key")
    with pytest.raises(InputError, match="cannot read"):
        read_keys(None, tmp_path / "absent", "THE_KEY", option="--api-key")
