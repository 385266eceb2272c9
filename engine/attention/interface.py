"""Our attention as transformers calls it: one function, and all state in a keyword argument."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from traces.errors import InputError

ATTENTION = "charioteer_paged"
"""The name by which a model's ``attn_implementation`` asks for it."""
UNSUPPORTED = ("softcap", "s_aux", "position_bias")


class LayerAttention(Protocol):
    """What travels through ``model.forward`` as ``paged`` and is asked once a layer.

    T tokens of all sequences in one row, H query heads, G KV heads, D elements a head.
    """

    def attend(
        self,
        layer: int,
        q_thd: torch.Tensor,
        k_tgd: torch.Tensor,
        v_tgd: torch.Tensor,
        *,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Return the attention of every token to its own sequence [T, H, D].

        Parameters
        ----------
        layer
            Of the model, counted from 0.
        q_thd, k_tgd, v_tgd
            Queries, keys and values of the batch's tokens, positions already worked in.
        scale
            What scores are multiplied with.
        window
            The last so many tokens are attended to, the token itself included; None for all.
        """
        ...


def register() -> None:
    """Make :data:`ATTENTION` known to transformers; doing it again changes nothing.

    For an attention that it has no mask for, transformers makes none, and does not look at the positions, which
    would have to be read on the host.
    """
    AttentionInterface.register(ATTENTION, paged_attention)


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    paged: LayerAttention,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Compute the attention of one layer, in the form that transformers' attention modules call.

    ``query`` is [1, H, T, D], ``key`` and ``value`` [1, G, T, D]; returns [1, T, H, D] and no weights.

    Raises
    ------
    InputError
        If the model's attention has an extra that no backend computes.
    """
    extra = next((name for name in UNSUPPORTED if others.get(name) is not None), None)
    if extra is not None:
        raise InputError(f"attention with {extra}", where=type(module).__name__, expected="plain scaled dot products")
    if not getattr(module, "is_causal", True):
        raise InputError("tokens that attend to later ones", where=type(module).__name__, expected="causal attention")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q_thd, k_tgd, v_tgd = (heads[0].transpose(0, 1) for heads in (query, key, value))
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return paged.attend(layer, q_thd, k_tgd, v_tgd, scale=scale, window=sliding_window)[None], None
