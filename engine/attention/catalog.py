"""All attention backends by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

from engine.attention.backend import AttentionBackend
from engine.attention.flashinfer import FlashInferBackend
from engine.attention.sdpa import SdpaBackend
from engine.attention.triton import TritonBackend
from traces.errors import InputError

AUTO = "auto"
BACKENDS: dict[str, Callable[[torch.device], AttentionBackend]] = {
    SdpaBackend.name: lambda _: SdpaBackend(),
    TritonBackend.name: TritonBackend,
    FlashInferBackend.name: FlashInferBackend,
}
"""Name -> what makes the backend for a device."""


def attention_backend(name: str, device: str | torch.device = "cpu") -> AttentionBackend:
    """Return the backend ``name`` for a device; ``auto`` is triton on CUDA, where it is installed, else sdpa.

    Raises
    ------
    InputError
        If there is none of that name, or it does not run there.
    """
    device = torch.device(device)
    if name == AUTO:
        name = TritonBackend.name if device.type == "cuda" and find_spec("triton") else SdpaBackend.name
    if name not in BACKENDS:
        what, known = f"unknown attention backend {name!r}", ", ".join((AUTO, *BACKENDS))
        raise InputError(what, where="--attention-backend", expected=f"one of {known}")
    return BACKENDS[name](device)
