"""A deployment: a model on devices, how it is split over them, and what memory is left for KV blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler.aggregates import BatchLike, columns_of, decode_tokens_read, prefill_pairs
from profiler.device import Device, load_device
from profiler.memory import StageMemory, stage_memory
from profiler.model import DTYPE_BYTES, Model, load_model
from traces.errors import InputError
from traces.files import read_json
from traces.settings import from_mapping

LONGEST_UNASKED = 16_384
GPUS_PER_NODE = 8
"""Of the machines that are sold for serving, unless one says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model on devices. As a JSON file it holds these keys; those with a default may be left out.

    Attributes
    ----------
    model, device
        Names of presets, or paths of files as :func:`profiler.model.load_model` and
        :func:`profiler.device.load_device` take them; or, not from a file, a model itself.
    tensor_parallel_size
        GPUs that share each layer: of one node, or of whole nodes, between which all-reduces go over the network.
    pipeline_parallel_size
        Stages that share the layers.
    gpu_memory_utilization
        Share of a device's memory that weights, activations and KV may fill.
    block_size
        Tokens of a KV block.
    max_model_len
        Longest prompt and output together; None: what the model was trained for, up to 16,384 tokens
        (see :attr:`context_limit`).
    max_num_batched_tokens
        Tokens of the largest batch: sizes the activation peak.
    max_num_seqs
        Tokens sampled at once in the largest batch: sizes the logits.
    dtype
        Of weights, activations and KV; None: the model's.
    cudagraph_capture_sizes
        Tokens of a batch, ascending, for which the engine captures CUDA graphs: it pads smaller batches to the
        next of them. Empty: it pads none.
    gpus_per_node
        GPUs of a machine; what a replica needs beyond them is in others.
    """

    model: str | Model
    device: str
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    block_size: int = 16
    max_model_len: int | None = None
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256
    dtype: str | None = None
    cudagraph_capture_sizes: tuple[int, ...] = ()
    gpus_per_node: int = GPUS_PER_NODE

    def __post_init__(self) -> None:
        for name in (
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "block_size",
            "max_num_batched_tokens",
            "gpus_per_node",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", where="deployment", expected="an integer >= 1")
        if not 0 < self.gpu_memory_utilization <= 1:
            share = self.gpu_memory_utilization
            raise InputError(f"gpu_memory_utilization is {share}", where="deployment", expected="a number in (0, 1]")
        if self.max_num_seqs < 1 or (self.max_model_len is not None and self.max_model_len < 1):
            raise InputError("max_num_seqs or max_model_len below 1", where="deployment", expected="integers >= 1")
        if self.dtype is not None and self.dtype not in DTYPE_BYTES:
            raise InputError(
                f"dtype is {self.dtype!r}", where="deployment", expected=f"one of {', '.join(DTYPE_BYTES)}"
            )
        sizes = tuple(self.cudagraph_capture_sizes)
        if sizes != tuple(sorted(set(sizes))) or any(size < 1 for size in sizes):
            what = f"cudagraph_capture_sizes are {list(sizes)}"
            raise InputError(what, where="deployment", expected="different integers >= 1, ascending")
        if self.spans_nodes and self.tensor_parallel_size % self.gpus_per_node:
            what = f"tensor_parallel_size is {self.tensor_parallel_size}"
            wish = f"at most {self.gpus_per_node}, the GPUs of a node, or those of whole nodes"
            raise InputError(what, where="deployment", expected=wish)
        self.spec.check_parallel(self.tensor_parallel_size, self.pipeline_parallel_size)

    @staticmethod
    def load(path: str | PathLike[str]) -> Deployment:
        """Read a deployment from a JSON file; unknown keys are refused."""
        return from_mapping(Deployment, read_json(Path(path)), where=path)

    def to_json(self) -> dict[str, Any]:
        """Return the keys of the JSON file."""
        document = asdict(self)
        if not self.cudagraph_capture_sizes:
            del document["cudagraph_capture_sizes"]
        if self.gpus_per_node == GPUS_PER_NODE:
            del document["gpus_per_node"]
        return document

    @cached_property
    def spec(self) -> Model:
        """The model, in the deployment's type."""
        model = self.model if isinstance(self.model, Model) else load_model(self.model)
        return model if self.dtype is None else replace(model, dtype=self.dtype)

    @cached_property
    def hardware(self) -> Device:
        """The device."""
        return load_device(self.device)

    def on(self, hardware: Device, *, fused: bool = True) -> Deployment:
        """Return the same deployment on ``hardware``, its device with other figures, such as measured ones.

        ``fused`` says how the engine there runs its matrices (see :class:`profiler.model.Model`).
        """
        placed = replace(self)
        vars(placed).update(hardware=hardware, spec=replace(self.spec, fused=fused))
        return placed

    @property
    def gpus(self) -> int:
        """Devices of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def spans_nodes(self) -> bool:
        """Whether a layer is shared by GPUs of several nodes."""
        return self.tensor_parallel_size > self.gpus_per_node

    @property
    def peak_flops(self) -> float:
        """FLOP/s of one replica's devices at their peak."""
        return self.hardware.peak_flops * self.gpus

    @cached_property
    def stage_layers(self) -> tuple[int, ...]:
        """Layers of each stage."""
        stages = self.pipeline_parallel_size
        return tuple(self.spec.layers_on(stages, stage) for stage in range(stages))

    @cached_property
    def stage_memory(self) -> tuple[StageMemory, ...]:
        """What fills the memory of a GPU of each stage, bytes."""
        return tuple(stage_memory(self, stage) for stage in range(self.pipeline_parallel_size))

    @cached_property
    def kv_blocks(self) -> int:
        """KV blocks of one replica: what fits on the GPU with the least room.

        Raises
        ------
        InputError
            If the weights and activations leave no room for one block, with the numbers.
        """
        return min(memory.kv_blocks(self) for memory in self.stage_memory)

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV fits."""
        return self.kv_blocks * self.block_size

    @property
    def context_limit(self) -> int:
        """The longest prompt and output together that is accepted: ``max_model_len``, or by default the
        least of what the model was trained for, 16,384 tokens and what the KV blocks hold.
        """
        if self.max_model_len is not None:
            return self.max_model_len
        return min(self.spec.max_position, LONGEST_UNASKED, self.kv_tokens)

    def flops(self, batch: BatchLike) -> float:
        """Return the model FLOPs of ``batch``: :meth:`flops_of` of one."""
        return float(self.flops_of(columns_of(batch))[0])

    def flops_of(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Return the model FLOPs of batches over all GPUs: 2 per weight and token, 4 per head element and pair.

        The head counts for sampled tokens only, the embedding not at all.

        Parameters
        ----------
        columns
            Of :func:`profiler.aggregates.columns_of`, each [batches], those of chunks end to end.
        """
        per_token, per_output, per_pair = self._flops
        window = self.spec.sliding_window
        tokens = columns["prefill_tokens"] + columns["decodes"]
        pairs = decode_tokens_read(columns, window) + prefill_pairs(columns, window)
        made = per_token * tokens + per_output * columns["outputs"] + per_pair * pairs
        return np.asarray(made, dtype=np.float64)

    @cached_property
    def _flops(self) -> tuple[float, float, float]:
        """FLOPs of the layers a token, of the head an output, of attention a (query, key) pair of all heads."""
        model = self.spec
        per_pair = 4.0 * model.layers * model.heads * model.head_dim
        return 2.0 * layer_weights(model) * model.layers, 2.0 * model.hidden * model.vocab, per_pair


def layer_weights(model: Model) -> int:
    """Return the elements of one layer's matrices."""
    return sum(linear.n * linear.k for linear in model.linears())
