"""The model runner: one rank's weights and KV cache."""

from __future__ import annotations

from typing import Any

import torch

from engine.attention import AttentionBackend
from engine.input import BatchInput, Slice
from engine.kv_cache import KVCache, KVLayout
from policies.blocks import KVMemory


class Runner:
    """Runs batches through a transformers causal language model with a paged KV cache.

    It owns all state of its rank; nothing of it is global.

    Parameters
    ----------
    model
        From :mod:`engine.loading`: its attention is :data:`engine.attention.ATTENTION`.
    layout
        Of its KV cache (:func:`engine.kv_layout.kv_layout`).
    memory
        The blocks that the policy may fill.
    backend
        What computes attention.

    Raises
    ------
    InputError
        If the device has no room for the KV cache.
    """

    def __init__(self, model: Any, layout: KVLayout, memory: KVMemory, backend: AttentionBackend) -> None:
        self.model = model
        self.memory = memory
        self.backend = backend
        self.device: torch.device = model.device
        self.cache = KVCache(layout, memory, self.device)

    @property
    def vocab(self) -> int:
        """Token ids that the model knows are 0 to this, exclusive."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def batch_input(self, slices: list[Slice]) -> BatchInput:
        """Lay the slices of a batch out as :meth:`forward` takes them."""
        return BatchInput.of(slices, self.memory.block_size, self.device)

    @torch.inference_mode()
    def forward(self, inputs: BatchInput) -> torch.Tensor:
        """Run a batch; return the logits of the tokens that are to be sampled from, float32 [S, vocab]."""
        output = self.model(
            input_ids=inputs.token_ids_t[None],
            position_ids=inputs.positions_t[None],
            use_cache=False,
            logits_to_keep=inputs.sampled_s,
            paged=self.backend.plan(inputs, self.cache),
        )
        logits_sv: torch.Tensor = output.logits[0]
        return logits_sv.float()

    def wait(self) -> None:
        """Return once everything that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def warm_up(self) -> None:
        """Run a chunk and a decode on whatever lies in the first block, while nobody holds any.

        The first pass through a model is slower than all others.
        """
        tokens = min(self.memory.block_size, 16)
        slices = [Slice([0] * tokens, 0, [0], samples=True), Slice([0], tokens - 1, [0], samples=True)]
        for each in slices:
            self.forward(self.batch_input([each]))
