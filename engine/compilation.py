"""Models through torch.compile, optional: attention stays as it is, everything between is fused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface

from engine.attention.interface import paged_attention
from traces.errors import InputError

UNCOMPILED = "charioteer_paged_uncompiled"
"""Our attention as a call that the compiler does not look into."""
CPU_COMPILERS = ("g++", "clang++")


def compiled_forward(model: Any) -> Callable[..., Any]:
    """Return ``model.forward`` compiled for batches of any size; its first calls take long.

    Raises
    ------
    InputError
        If there is no compiler for the model's device.
    """
    if model.device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), *CPU_COMPILERS))):
        what = "there is no C++ compiler"
        raise InputError(what, where="--torch-compile", expected=f"{' or '.join(CPU_COMPILERS)}, or CXX set to one")
    AttentionInterface.register(UNCOMPILED, torch.compiler.disable(paged_attention))  # type: ignore[no-untyped-call]
    model.config._attn_implementation = UNCOMPILED
    compiled: Callable[..., Any] = torch.compile(model.forward, dynamic=True)
    return compiled
