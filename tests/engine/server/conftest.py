"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

for name in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(name, reason="the server needs the extra [serve], its tests [test]")

from tests.engine.server.http_double import FakeClient, Script, listening  # noqa: E402


@pytest.fixture(scope="session")
def _served() -> Iterator[tuple[FakeClient, str]]:
    client = FakeClient()
    with listening(client) as url:
        yield client, url


@pytest.fixture
def fake(_served: tuple[FakeClient, str]) -> FakeClient:
    """The engine's double behind ``url``, with a fresh script."""
    _served[0].script = Script()
    return _served[0]


@pytest.fixture
def url(_served: tuple[FakeClient, str], fake: FakeClient) -> str:
    """Where the server listens."""
    return _served[1]
