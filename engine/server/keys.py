"""Who may ask for what: keys for ``/v1``, others for ``/admin``."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import Security
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.server.errors import ApiError, error_response
from traces.errors import InputError

BEARER = Security(HTTPBearer(auto_error=False, description="A key of the server, where it has any."))
"""For the routes of a guarded prefix: lets the OpenAPI document say that they take a key. :class:`KeyGuard` checks."""


class Keys:
    """Keys of which any opens; they are compared in a time that tells nothing of them."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def open_to(self, authorization: bytes) -> bool:
        """Whether a header ``Authorization: Bearer KEY`` holds one of them."""
        scheme, _, key = authorization.partition(b" ")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(given: Iterable[str] | None, file: Path | None, variable: str, *, option: str) -> list[str]:
    """Return the keys of a command line, of a file with one a line, and of an environment variable.

    Raises
    ------
    InputError
        If the file cannot be read or holds none, or a key is not of printable ASCII without spaces.
    """
    found = [(key, option) for key in given or ()]
    if file is not None:
        found += [(key, str(file)) for key in _lines(file)]
    if os.environ.get(variable):
        found.append((os.environ[variable], variable))
    for key, where in found:
        if not key.isascii() or not key.isprintable() or not key or " " in key:
            raise InputError("not a key", where=where, expected="printable ASCII without spaces")
    return [key for key, _ in found]


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read", where=file, expected="a key a line") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise InputError("holds no key", where=file, expected="a key a line")
    return keys


@dataclass(frozen=True, kw_only=True)
class Door:
    """What opens the paths under a prefix; without keys they are open, or shut to all where ``shut`` says why."""

    keys: Keys
    shut: str | None = None

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> ApiError | None:
        """Return why a request may not pass; None if it may."""
        if not self.keys:
            return ApiError(403, self.shut) if self.shut else None
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) == 1 and self.keys.open_to(given[0]):
            return None
        says = "the API key is wrong" if given else "no API key: send it as 'Authorization: Bearer KEY'"
        return ApiError(401, says, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class KeyGuard:
    """ASGI middleware that lets requests pass by their path and key, before a byte of their body is read."""

    def __init__(self, app: ASGIApp, *, doors: Mapping[str, Door]) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        for prefix, door in self._doors.items():
            path = scope.get("path", "")
            if path == prefix or path.startswith(f"{prefix}/"):
                refusal = door.refusal(scope["headers"])
                if refusal is not None:
                    await error_response(refusal)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def doors(api_keys: Iterable[str], admin_keys: Iterable[str]) -> dict[str, Door]:
    """Return the doors of the server: without keys ``/v1`` and the dashboard's data are open, ``/admin`` is shut."""
    shut = "this server was started without an admin key (--admin-key)"
    api = Door(keys=Keys(api_keys))
    return {"/v1": api, "/dashboard/data": api, "/admin": Door(keys=Keys(admin_keys), shut=shut)}
