"""All attention backends by name."""

from __future__ import annotations

from engine.attention.backend import AttentionBackend
from engine.attention.sdpa import SdpaBackend
from traces.errors import InputError

BACKENDS: dict[str, type[AttentionBackend]] = {SdpaBackend.name: SdpaBackend}
"""Name -> backend."""


def attention_backend(name: str) -> AttentionBackend:
    """Return the backend ``name``; InputError if there is none."""
    if name not in BACKENDS:
        what = f"unknown attention backend {name!r}"
        raise InputError(what, where="--attention-backend", expected=f"one of {', '.join(BACKENDS)}")
    return BACKENDS[name]()
