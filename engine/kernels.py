"""Kernels one at a time, for the profiler: matrix products and elementwise ops as the engine's models run them, and
PyTorch's attention over contiguous keys and values. What the engine's own paged attention costs beyond that only whole
iterations show (:mod:`engine.iterations`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from engine import hardware
from engine.arena import Arena
from engine.stopwatch import CudaStopwatch, cpu_seconds
from profiler.kernels import Kernels, Machine, OpShape, Run, Timed
from traces.errors import InputError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
CPU_CACHES, GPU_CACHES = 2, 8
"""How many times the last cache the arena is: a CPU's is large, and its memory slow to fill."""
MOST_MEMORY = 0.25
FLUSH_BYTES = 2**30
EMBEDDING_ROWS = 2**15


class TorchKernels(Kernels):
    """PyTorch's kernels on one CPU or one CUDA device; transformers' models run every matrix by itself."""

    fused = False

    def __init__(self, *, accelerator: str, dtype: str, threads: int) -> None:
        if accelerator == "cuda" and not torch.cuda.is_available():
            raise InputError("PyTorch finds no CUDA device", where="--device", expected="cpu on this machine")
        self._device = torch.device(accelerator)
        self._dtype = DTYPES[dtype]
        torch.set_num_threads(threads)
        machine = self.machine()
        caches = CPU_CACHES if machine.is_cpu else GPU_CACHES
        size_bytes = min(caches * machine.cache_bytes, int(MOST_MEMORY * machine.memory_bytes))
        self.arena = Arena(size_bytes, self._dtype, self._device)
        self._stopwatch = None if machine.is_cpu else CudaStopwatch(FLUSH_BYTES, self._device)

    def machine(self) -> Machine:
        """Return what the kernels run on, with clock rates of this moment."""
        return self._cpu() if self._device.type == "cpu" else self._gpu()

    def prepare(self, shape: OpShape) -> Run:
        """Return a call that runs one op once, each time on weights and KV that no cache holds."""
        makers: dict[str, Callable[[OpShape], Run]] = {
            "gemm": self._gemm,
            "elementwise": self._elementwise,
            "prefill_attention": self._attention,
            "decode_attention": self._attention,
            "mixed_attention": self._mixed_attention,
            "copy": self._copy,
            "read": self._read,
        }
        return makers[shape.op](shape)

    def seconds(self, run: Run, repeats: int) -> Sequence[float]:
        """Return the seconds that each of ``repeats`` calls took on the device."""
        with torch.inference_mode():
            return cpu_seconds(run, repeats) if self._stopwatch is None else self._stopwatch.seconds(run, repeats)

    def iterations(self, model: str, shapes: Sequence[OpShape]) -> Timed:
        """Return what times whole iterations of the engine on ``model`` with random weights.

        Raises
        ------
        InputError
            If there is no such model, or the device has no room for it.
        """
        from engine.iterations import engine_iterations

        dtype = str(self._dtype).removeprefix("torch.")
        return engine_iterations(model, shapes, device=self._device.type, dtype=dtype)

    def _cpu(self) -> Machine:
        return Machine(
            device_name=hardware.cpu_name(),
            clocks=hardware.cpu_clocks(),
            versions=hardware.versions(),
            is_cpu=True,
            threads=torch.get_num_threads(),
            cache_bytes=hardware.cpu_cache_bytes(),
            memory_bytes=hardware.cpu_memory_bytes(),
        )

    def _gpu(self) -> Machine:
        properties = torch.cuda.get_device_properties(self._device)
        state = hardware.gpu_state(f"GPU-{properties.uuid}")
        return Machine(
            device_name=properties.name,
            driver=state.pop("driver_version", ""),
            clocks=", ".join(f"{name} {value}" for name, value in state.items()),
            versions=hardware.versions(),
            is_cpu=False,
            threads=1,
            cache_bytes=properties.L2_cache_size,
            memory_bytes=properties.total_memory,
        )

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self._device).to(self._dtype)

    def _gemm(self, shape: OpShape) -> Run:
        x_mk = self._random(shape.m, shape.k)
        return lambda: functional.linear(x_mk, self.arena.view(shape.n, shape.k))

    def _attention(self, shape: OpShape) -> Run:
        keys = shape.past_tokens + shape.query_tokens
        q_bhqd = self._random(shape.sequences, shape.heads, shape.query_tokens, shape.head_dim)
        cached = (shape.sequences, shape.kv_heads, keys, shape.head_dim)
        return lambda: attention(q_bhqd, self.arena.view(*cached), self.arena.view(*cached))

    def _mixed_attention(self, shape: OpShape) -> Run:
        """Return a call that runs a chunk's attention and the decodes', one after the other as in a batch."""
        chunk = self._attention(shape)
        past = max(shape.decode_context - 1, 0)
        decodes = self._attention(replace(shape, sequences=shape.decodes, query_tokens=1, past_tokens=past))
        return lambda: (chunk(), decodes())

    def _elementwise(self, shape: OpShape) -> Run:
        x_tn = self._random(shape.m, shape.n)
        if shape.kind.endswith("layernorm"):
            weight_n = self._random(shape.n)
            return lambda: functional.rms_norm(x_tn, (shape.n,), weight_n)
        if shape.kind == "embedding":
            return self._embedding(shape)
        if shape.kind == "kv_cache_save":
            return self._save(x_tn)
        other_tn = self._random(shape.m, shape.n)
        gated = shape.size_bytes > 2 * x_tn.nbytes
        runs: dict[str, Run] = {
            "add": lambda: x_tn + other_tn,
            "act": lambda: functional.silu(x_tn) * other_tn if gated else functional.gelu(x_tn),
            "rope": lambda: _rotate(x_tn, other_tn),
            "sampler": lambda: x_tn.argmax(dim=-1),
        }
        return runs[shape.kind]

    def _embedding(self, shape: OpShape) -> Run:
        table_vn = self.arena.view(EMBEDDING_ROWS, shape.n)
        rows_t = torch.randint(len(table_vn), (shape.m,), device=self._device)
        return lambda: functional.embedding(rows_t, table_vn)

    def _save(self, x_tn: torch.Tensor) -> Run:
        slots = torch.randperm(2 * len(x_tn), device=self._device)[: len(x_tn)]
        cache_sn = torch.zeros(2 * x_tn.shape[0], x_tn.shape[1], dtype=self._dtype, device=self._device)
        return lambda: cache_sn.index_copy_(0, slots, x_tn)

    def _copy(self, shape: OpShape) -> Run:
        target = torch.empty(shape.size_bytes // self._dtype.itemsize, dtype=self._dtype, device=self._device)
        return lambda: target.copy_(self.arena.view(len(target)))

    def _read(self, shape: OpShape) -> Run:
        return lambda: self.arena.view(shape.size_bytes // self._dtype.itemsize).amax()


def attention(q_bhqd: torch.Tensor, k_bhkd: torch.Tensor, v_bhkd: torch.Tensor) -> torch.Tensor:
    """Return attention [b, heads, q, d] of the last q of k tokens, each to those up to itself.

    ``k_bhkd`` and ``v_bhkd`` may have fewer heads, each shared by as many query heads.
    """
    queries, keys = q_bhqd.shape[-2], k_bhkd.shape[-2]
    mask = causal_lower_right(queries, keys) if queries > 1 else None
    shared = q_bhqd.shape[1] != k_bhkd.shape[1]
    return functional.scaled_dot_product_attention(q_bhqd, k_bhkd, v_bhkd, attn_mask=mask, enable_gqa=shared)


def _rotate(x_tn: torch.Tensor, angles_tn: torch.Tensor) -> torch.Tensor:
    """Return rotary embedding of x: ``x cos + rotate_half(x) sin``, one table for both here."""
    half = x_tn.shape[-1] // 2
    turned_tn = torch.cat((-x_tn[:, half:], x_tn[:, :half]), dim=-1)
    return x_tn * angles_tn + turned_tn * angles_tn
