"""What an engine of vLLM 0.19 ran with, from its ``meta.json`` and, where that is silent, from its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from traces.errors import InputError

GIB = 2**30
LARGE_GPU_BYTES = 70 * GIB
"""From this memory on vLLM's defaults are larger: 1,024 sequences and 8,192 tokens instead of 256 and 2,048."""
MOST_CAPTURED = 512
SPARE_BLOCKS = 1
"""vLLM keeps the first of its blocks for itself."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Settings of the engine that ran.

    Attributes
    ----------
    max_num_seqs, max_num_batched_tokens, long_prefill_token_threshold, enable_prefix_caching,
    scheduler_reserve_full_isl, async_scheduling
        Those of policy ``vllm-v1`` (see :class:`policies.vllm_v1.VLLMV1Settings`).
    max_model_len
        Longest prompt and output together; None: the model's own limit.
    tensor_parallel_size, gpu_memory_utilization, block_size
        Of the deployment.
    cudagraph_capture_sizes
        Tokens of the captured CUDA graphs.
    kv_blocks
        Blocks that requests could use, one less than vLLM reports; None where it does not.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int | None
    long_prefill_token_threshold: int | None
    enable_prefix_caching: bool
    scheduler_reserve_full_isl: bool
    async_scheduling: bool
    tensor_parallel_size: int
    gpu_memory_utilization: float
    block_size: int
    cudagraph_capture_sizes: tuple[int, ...]
    kv_blocks: int | None

    def policy(self) -> dict[str, Any]:
        """Return the settings of policy ``vllm-v1``."""
        names = (
            "max_num_seqs",
            "max_num_batched_tokens",
            "long_prefill_token_threshold",
            "enable_prefix_caching",
            "scheduler_reserve_full_isl",
            "async_scheduling",
        )
        return {name: getattr(self, name) for name in names}


class _Found:
    """Looks settings up in several places of a document, the first that has one wins."""

    def __init__(self, document: Mapping[str, Any], where: str | PathLike[str]) -> None:
        resolved = _inner(document, "resolved_config", where)
        sections = ("scheduler_config", "cache_config", "parallel_config", "model_config", "compilation_config")
        places = [_inner(document, "kv_cache", where), *(_inner(resolved, name, where) for name in sections)]
        self._places = [*places, _inner(document, "engine_kwargs", where)]
        self._where = where

    def integer(self, name: str, default: int | None, *, least: int = 1) -> int | None:
        """Return a whole number, ``default`` where no place names one."""
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}", where=self._where, expected=f"an integer >= {least}")
        return value

    def count(self, name: str, default: int) -> int:
        """Return a whole number >= 1."""
        value = self.integer(name, default)
        assert value is not None
        return value

    def switch(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self._value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}", where=self._where, expected="true or false")
        return value

    def share(self, name: str, default: float) -> float:
        """Return a number in (0, 1]."""
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise InputError(f"{name} is {value!r}", where=self._where, expected="a number in (0, 1]")
        return float(value)

    def sizes(self, name: str) -> tuple[int, ...] | None:
        """Return different whole numbers, ascending."""
        value = self._value(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(each) is int and each >= 1 for each in value):
            raise InputError(f"{name} is {value!r}", where=self._where, expected="a list of integers >= 1")
        return tuple(sorted(set(value)))

    def _value(self, name: str) -> Any:
        return next((place[name] for place in self._places if place.get(name) is not None), None)


def _inner(document: Mapping[str, Any], name: str, where: str | PathLike[str]) -> Mapping[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"key {name!r} is no object", where=where)
    return value


def read_settings(document: Mapping[str, Any], memory_bytes: float, *, where: str | PathLike[str]) -> EngineSettings:
    """Return the settings that ``meta.json`` gives, with the defaults of vLLM 0.19 on a GPU of ``memory_bytes``.

    What vLLM itself resolved counts before what it was told.

    Raises
    ------
    InputError
        If one has a value that it cannot have, or the run used what is not simulated: several replicas or
        pipeline stages, or speculative decoding.
    """
    found, large = _Found(document, where), memory_bytes >= LARGE_GPU_BYTES
    for name in ("data_parallel_size", "pipeline_parallel_size"):
        if found.count(name, 1) > 1:
            raise InputError(f"{name} is above 1", where=where, expected="one replica of one stage")
    if _inner(document, "resolved_config", where).get("speculative_config") is not None:
        raise InputError("the run decoded speculatively", where=where, expected="no speculative_config")
    max_num_seqs = found.count("max_num_seqs", 1024 if large else 256)
    blocks = found.integer("num_gpu_blocks", None, least=1 + SPARE_BLOCKS)
    sizes = found.sizes("cudagraph_capture_sizes")
    if found.switch("enforce_eager", False):
        sizes = ()
    return EngineSettings(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=found.count("max_num_batched_tokens", 8192 if large else 2048),
        max_model_len=found.integer("max_model_len", None),
        long_prefill_token_threshold=found.integer("long_prefill_token_threshold", None, least=0) or None,
        enable_prefix_caching=found.switch("enable_prefix_caching", True),
        scheduler_reserve_full_isl=found.switch("scheduler_reserve_full_isl", True),
        async_scheduling=found.switch("async_scheduling", True),
        tensor_parallel_size=found.count("tensor_parallel_size", 1),
        gpu_memory_utilization=found.share("gpu_memory_utilization", 0.9),
        block_size=found.count("block_size", 16),
        cudagraph_capture_sizes=captured(max_num_seqs) if sizes is None else sizes,
        kv_blocks=None if blocks is None else blocks - SPARE_BLOCKS,
    )


def captured(max_num_seqs: int) -> tuple[int, ...]:
    """Return the sizes for which vLLM 0.19 captures CUDA graphs by default: up to twice the sequences, at most 512."""
    most = min(2 * max_num_seqs, MOST_CAPTURED)
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, MOST_CAPTURED + 1, 16))
    return tuple(size for size in sizes if size <= most)
