"""CUDA graphs: batches filled up to a few shapes, each recorded once and replayed without launching every kernel anew.

Decodes alone are filled up to numbers of sequences, batches with chunks to token budgets; what is larger, or would be
filled up too far, runs as it is. All shapes share one set of input tensors and one memory pool.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engine.attention.backend import CapturableBackend
from engine.input import BatchInput, BatchShape, Slice
from engine.kv_cache import KVCache
from engine.shortage import first_line
from traces.errors import InputError

MOST_DECODES = 512
DECODE_STEP = 8
LEAST_BUDGET, MOST_BUDGET, MOST_POLICY_BUDGET = 16, 1024, 2048
STEPS_PER_OCTAVE = 4
MOST_PADDING = 0.25
"""Share of a token budget that may be padding."""

Replay = Callable[[], None]
OnProgress = Callable[[int, int], None]
"""Called with the shapes that are captured, and how many there will be."""


class Capture(Protocol):
    """Records what a call asks of the device."""

    def __call__(self, run: Callable[[], None]) -> Replay:
        """Run ``run``, then record it; return what repeats it on whatever its tensors hold then."""
        ...


class CudaCapture:
    """Records into CUDA graphs of one memory pool: those that are captured later reuse what earlier ones needed.

    Parameters
    ----------
    device
        Where everything runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, run: Callable[[], None]) -> Replay:
        """Run once aside, so that everything is compiled and allocated, then record."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                run()
            torch.cuda.current_stream().wait_stream(self._stream)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                run()
        return graph.replay


@dataclass(frozen=True, kw_only=True)
class GraphSizes:
    """The shapes that batches are filled up to.

    Attributes
    ----------
    decodes
        Sequences of batches that only decode, ascending.
    budgets
        Tokens of batches with chunks, ascending.
    max_num_seqs
        Most sequences of a batch with chunks.
    """

    decodes: tuple[int, ...]
    budgets: tuple[int, ...]
    max_num_seqs: int

    @classmethod
    def of(cls, max_num_seqs: int, *token_budgets: int | None) -> GraphSizes:
        """Return sizes for batches of so many sequences, and of so many tokens where a policy has a budget.

        Decodes: 1, 2, 4, then every 8. Budgets: four to each doubling, as long as launching kernels takes about as
        long as they run, and the policy's own, which it fills whenever it can.
        """
        most, limits = min(max_num_seqs, MOST_DECODES), [budget or MOST_BUDGET for budget in token_budgets or (None,)]
        decodes = {1, 2, 4, *range(DECODE_STEP, most, DECODE_STEP), most}
        octaves = (MOST_BUDGET // LEAST_BUDGET).bit_length() - 1
        parts = range(STEPS_PER_OCTAVE, 2 * STEPS_PER_OCTAVE)
        budgets = {(LEAST_BUDGET << octave) * part // STEPS_PER_OCTAVE for octave in range(octaves) for part in parts}
        budgets |= {MOST_BUDGET} | {limit for limit in limits if limit <= MOST_POLICY_BUDGET}
        return cls(
            decodes=tuple(sorted(size for size in decodes if size <= most)),
            budgets=tuple(sorted(size for size in budgets if size <= max(limits))),
            max_num_seqs=max_num_seqs,
        )

    @property
    def shapes(self) -> list[BatchShape]:
        """All shapes, largest first."""
        shapes = {self._decoding(size) for size in self.decodes} | {self._mixed(size) for size in self.budgets}
        return sorted(shapes, reverse=True)

    @property
    def most(self) -> BatchShape:
        """What holds every shape."""
        shapes = self.shapes
        most = (max(shape.tokens for shape in shapes), max(shape.sequences for shape in shapes))
        return BatchShape(*most, single=False)

    def fitting(self, slices: Sequence[Slice]) -> BatchShape | None:
        """Return what a batch is to be filled up to; None if it had better run as it is."""
        tokens, sequences = sum(each.tokens for each in slices), len(slices)
        sizes, shape_of = (self.decodes, self._decoding) if tokens == sequences else (self.budgets, self._mixed)
        place = bisect_left(sizes, tokens)
        if place == len(sizes) or sequences > self.max_num_seqs:
            return None
        size = sizes[place]
        wasteful = tokens != sequences and size > LEAST_BUDGET and size - tokens > MOST_PADDING * size
        return None if wasteful else shape_of(size)

    def _mixed(self, tokens: int) -> BatchShape:
        return BatchShape(tokens, min(tokens, self.max_num_seqs), single=False)

    @staticmethod
    def _decoding(sequences: int) -> BatchShape:
        return BatchShape(sequences, sequences, single=True)


class Graphs:
    """The captured shapes of one runner.

    Parameters
    ----------
    logits
        Runs a batch through the model: input ids [T], positions [T], sampled rows [S], plan -> logits [S, vocab].
    backend, cache
        What computes attention, and over what.
    sizes
        What to capture.
    capture
        How.
    max_context_len
        Longest context, in tokens.
    vocab
        Columns of the logits.
    """

    def __init__(
        self,
        logits: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Any], torch.Tensor],
        backend: CapturableBackend,
        cache: KVCache,
        sizes: GraphSizes,
        capture: Capture,
        *,
        max_context_len: int,
        vocab: int,
    ) -> None:
        self._logits = logits
        self._sizes = sizes
        self._capture = capture
        most, device = sizes.most, cache.device
        self._tables = backend.static_tables(cache, most, max_context_len)
        self._columns_3t = torch.zeros(3, most.tokens, dtype=torch.int64, device=device)
        self._columns_3t[2] = cache.scratch_slot
        self._sampled_s = torch.zeros(most.sequences, dtype=torch.int64, device=device)
        self._logits_sv = torch.zeros(most.sequences, vocab, device=device)
        self._replays: dict[BatchShape, Replay] = {}

    def capture(self, on_progress: OnProgress | None = None) -> None:
        """Capture all shapes, largest first, unless that is done.

        Raises
        ------
        InputError
            If the model cannot be captured, or there is no memory for it.
        """
        shapes = self._sizes.shapes
        for done, shape in enumerate(shapes[len(self._replays) :], start=len(self._replays) + 1):
            try:
                self._replays[shape] = self._capture(self._run(shape))
            except torch.OutOfMemoryError as error:
                wish = "a smaller --gpu-memory-utilization, or --enforce-eager"
                raise InputError("no memory is left to capture CUDA graphs", expected=wish) from error
            except RuntimeError as error:
                what = f"the model cannot be captured in a CUDA graph: {first_line(error)}"
                raise InputError(what, expected="--enforce-eager") from error
            if on_progress is not None:
                on_progress(done, len(shapes))

    def fitting(self, slices: Sequence[Slice]) -> BatchShape | None:
        """Return the captured shape that a batch is to be filled up to, if there is one."""
        shape = self._sizes.fitting(slices)
        return shape if shape in self._replays else None

    def run(self, inputs: BatchInput) -> torch.Tensor:
        """Run a batch that is filled up to a captured shape.

        Returns the logits of its own sampled tokens, float32, until the next call.
        """
        shape = inputs.shape
        assert shape is not None
        tokens, columns = shape.tokens, inputs.columns
        self._columns_3t[:, :tokens].copy_(columns[: 3 * tokens].view(3, tokens))
        self._sampled_s[: shape.sequences].copy_(inputs.sampled_s)
        self._tables.load(inputs)
        self._replays[shape]()
        return self._logits_sv[: inputs.samples]

    def _run(self, shape: BatchShape) -> Callable[[], None]:
        tokens, sequences = shape.tokens, shape.sequences
        ids_t, positions_t, slots_t = self._columns_3t[:, :tokens]
        sampled_s, logits_sv = self._sampled_s[:sequences], self._logits_sv[:sequences]
        plan = self._tables.plan(shape, slots_t)

        def run() -> None:
            logits_sv.copy_(self._logits(ids_t, positions_t, sampled_s, plan))

        return run
