"""The model runner: one rank's weights and KV cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch

from engine.attention import AttentionBackend, AttentionPlan
from engine.attention.backend import CapturableBackend
from engine.compilation import compiled_forward
from engine.graphs import Capture, CudaCapture, Graphs, GraphSizes, OnProgress
from engine.input import BatchInput, Slice
from engine.kv_cache import KVCache, KVLayout
from engine.shortage import memory_for
from policies.blocks import KVMemory

WARM_UP_TOKENS = 16
CHUNK_TOKENS = (1, 2, 16, 128)
"""Chunks for which attention kernels differ."""


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
    graphs
        What :meth:`warm_up` is to capture in CUDA graphs, if the backend can be captured; None for nothing.
    capture
        How; None for CUDA graphs proper.
    compiled
        Whether the model goes through torch.compile.

    Raises
    ------
    InputError
        If the device has no room for the KV cache, the backend does not know such a cache, or the model is to be
        compiled where there is no compiler.
    """

    def __init__(
        self,
        model: Any,
        layout: KVLayout,
        memory: KVMemory,
        backend: AttentionBackend,
        *,
        graphs: GraphSizes | None = None,
        capture: Capture | None = None,
        compiled: bool = False,
    ) -> None:
        backend.check(layout, memory.block_size)
        self.model = model
        self.memory = memory
        self.backend = backend
        self.device: torch.device = model.device
        self._forward = compiled_forward(model) if compiled else model
        self.cache = KVCache(layout, memory, self.device)
        self._warm = False
        self._graphs: Graphs | None = None
        if graphs is not None and backend.capturable:
            with memory_for(
                "the inputs and outputs of CUDA graphs", expected="fewer --max-num-seqs, or --enforce-eager"
            ):
                self._graphs = self._make_graphs(cast(CapturableBackend, backend), graphs, capture)

    @torch.inference_mode()
    def _make_graphs(self, backend: CapturableBackend, sizes: GraphSizes, capture: Capture | None) -> Graphs:
        return Graphs(
            self._logits,
            backend,
            self.cache,
            sizes,
            CudaCapture(self.device) if capture is None else capture,
            max_context_len=self.memory.max_model_len,
            vocab=self.model.get_output_embeddings().weight.shape[0],
        )

    @property
    def vocab(self) -> int:
        """Token ids that the model knows are 0 to this, exclusive."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def batch_input(self, slices: list[Slice]) -> BatchInput:
        """Lay the slices of a batch out as :meth:`forward` takes them."""
        return BatchInput.of(
            slices,
            self.memory.block_size,
            self.device,
            shape=None if self._graphs is None else self._graphs.fitting(slices),
            scratch_slot=self.cache.scratch_slot,
        )

    @torch.inference_mode()
    def forward(self, inputs: BatchInput) -> torch.Tensor:
        """Run a batch; return the logits of the tokens that are to be sampled from, float32 [S, vocab].

        They may be overwritten by the next call.
        """
        if self._graphs is not None and inputs.shape is not None:
            return self._graphs.run(inputs)
        plan = self.backend.plan(inputs, self.cache)
        return self._logits(inputs.token_ids_t, inputs.positions_t, inputs.sampled_s, plan).float()

    def _logits(
        self, token_ids_t: torch.Tensor, positions_t: torch.Tensor, sampled_s: torch.Tensor, plan: AttentionPlan
    ) -> torch.Tensor:
        output = self._forward(
            input_ids=token_ids_t[None],
            position_ids=positions_t[None],
            use_cache=False,
            logits_to_keep=sampled_s,
            paged=plan,
        )
        logits_sv: torch.Tensor = output.logits[0]
        return logits_sv

    def wait(self) -> None:
        """Return once everything that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def warm_up(self, on_progress: OnProgress | None = None) -> None:
        """Run small batches of every kind, in the block that no sequence owns, and capture what is to be captured.

        The first passes through a model are slower than all others, and on CUDA each way of splitting a context is
        compiled when it is first needed. Doing it again compiles and captures nothing anew.

        Parameters
        ----------
        on_progress
            Called with the number of captured graphs and that of all.

        Raises
        ------
        InputError
            If the model cannot be captured.
        """
        tokens = min(self.memory.block_size, self.memory.max_model_len, WARM_UP_TOKENS)
        chunk, decode = self._anyone(tokens, tokens), self._anyone(1, tokens)
        for slices in ([replace(chunk, samples=False)], [chunk], [decode], [decode, decode], [chunk, decode]):
            self.forward(self.batch_input(slices))
        if self.device.type == "cuda" and not self._warm:
            self._warm_up_kernels()
        if self._graphs is not None:
            self._graphs.capture(on_progress)
        self._warm = True
        self.wait()

    def _warm_up_kernels(self) -> None:
        """Run chunks of several sizes at contexts of all lengths, each alone and beside a decode."""
        longest = self.memory.max_model_len
        for context in (*(1 << power for power in range(longest.bit_length() - 1)), longest):
            for tokens in CHUNK_TOKENS:
                chunk, decode = self._anyone(min(tokens, context), context), self._anyone(1, context)
                self.forward(self.batch_input([chunk]))
                self.forward(self.batch_input([chunk, decode]))

    def _anyone(self, tokens: int, context: int) -> Slice:
        """Return a slice of a sequence whose whole context is the block that no sequence owns, over and over."""
        blocks = [self.cache.scratch_block] * self.memory.blocks_for(context)
        return Slice([0] * tokens, context - tokens, blocks, samples=True)
