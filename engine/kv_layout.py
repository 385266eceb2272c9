"""What a model keeps for each token, found by letting it run one."""

from __future__ import annotations

from typing import Any

import torch

from engine.kv_cache import KVLayout
from engine.shortage import is_shortage
from traces.errors import InputError


class _Probe:
    """Notes the shape of every layer's keys."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[int, int, torch.dtype]] = {}

    def attend(
        self,
        layer: int,
        q_thd: torch.Tensor,
        k_tgd: torch.Tensor,
        v_tgd: torch.Tensor,
        *,
        scale: float,  # noqa: ARG002
        window: int | None,  # noqa: ARG002
    ) -> torch.Tensor:
        if k_tgd.shape != v_tgd.shape:
            raise InputError("keys and values differ in size", expected="a plain KV cache")
        self.layers[layer] = k_tgd.shape[1], k_tgd.shape[2], k_tgd.dtype
        return torch.zeros_like(q_thd)


@torch.inference_mode()
def kv_layout(model: Any) -> KVLayout:
    """Return what one token of a transformers causal language model leaves in the cache.

    Raises
    ------
    InputError
        If the model does not use the attention interface, its layers differ in their KV, or its attention
        has an extra that is not supported.
    """
    probe, name = _Probe(), type(model).__name__
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    try:
        model(input_ids=token, position_ids=token, use_cache=False, paged=probe)
    except InputError:
        raise
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        if is_shortage(error):
            raise
        what = f"cannot run a token through the attention interface: {error}"
        raise InputError(what, where=name, expected="a model that uses it") from error
    if sorted(probe.layers) != list(range(len(probe.layers))) or not probe.layers:
        raise InputError("not every layer uses the attention interface", where=name, expected="a model that does")
    if len(set(probe.layers.values())) > 1:
        raise InputError("layers that differ in their KV heads", where=name, expected="the same in all layers")
    kv_heads, head_dim, dtype = probe.layers[0]
    return KVLayout(layers=len(probe.layers), kv_heads=kv_heads, head_dim=head_dim, dtype=dtype)
