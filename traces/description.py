"""What a workload is like, in numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.workload import HashIds, Workload

PERCENTILES = (50, 90, 95, 99)


def describe(workload: Workload) -> dict[str, Any]:
    """Return the numbers that describe ``workload``, as a JSON object without NaN or infinity.

    ``requests``; ``timed``; ``span_s`` and ``rate_per_s`` (null where there are no arrival times, or all
    arrive at once); ``gap_cv``, the coefficient of variation of the gaps (1 for a Poisson process), and
    ``burstiness``, the shape of gamma gaps that vary as much (vLLM's option); ``prompt_tokens``,
    ``output_tokens``, ``total_tokens`` and ``prompt_to_output``, each with mean, p50, p90, p95, p99, max and,
    but for the ratio, sum; ``prefix_sharing``, the share of prompt tokens that an earlier request began with
    (what a prefix cache of endless size saves), null without prefix hashes.
    """
    timed = workload.timed and workload.span_s > 0
    ratio = workload.prompt_tokens / workload.output_tokens
    return {
        "name": workload.name,
        "requests": len(workload),
        "timed": workload.timed,
        "span_s": workload.span_s if workload.timed else None,
        "rate_per_s": workload.rate_per_s if timed else None,
        **_variation(workload),
        "prompt_tokens": _summary(workload.prompt_tokens) | {"sum": int(workload.prompt_tokens.sum())},
        "output_tokens": _summary(workload.output_tokens) | {"sum": int(workload.output_tokens.sum())},
        "total_tokens": _summary(workload.total_tokens) | {"sum": int(workload.total_tokens.sum())},
        "prompt_to_output": _summary(ratio),
        "prefix_sharing": prefix_sharing(workload),
    }


def _summary(column: npt.NDArray[Any]) -> dict[str, float]:
    marks = np.percentile(column, PERCENTILES)
    percentiles = {f"p{rank}": float(mark) for rank, mark in zip(PERCENTILES, marks, strict=True)}
    return {"mean": float(column.mean()), **percentiles, "max": column.max().item()}


def _variation(workload: Workload) -> dict[str, float | None]:
    gaps = np.diff(workload.arrival_s)
    if len(gaps) < 2 or workload.span_s == 0:
        return {"gap_cv": None, "burstiness": None}
    variation = float(gaps.std() / gaps.mean())
    steady = math.isclose(variation, 0.0, abs_tol=1e-6)
    return {"gap_cv": variation, "burstiness": None if steady else variation**-2}


def prefix_sharing(workload: Workload) -> float | None:
    """Return the share of prompt tokens in blocks whose hash an earlier request had, None without hashes."""
    if workload.hash_ids is None:
        return None
    hashes = workload.hash_ids
    _, first = np.unique(hashes.values, return_index=True)
    seen = np.ones(len(hashes.values), dtype=bool)
    seen[first] = False
    return float(_block_tokens(hashes, workload.prompt_tokens)[seen].sum() / workload.prompt_tokens.sum())


def _block_tokens(hashes: HashIds, prompt_tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    counts = np.diff(hashes.offsets)
    rank = np.arange(len(hashes.values)) - np.repeat(hashes.offsets[:-1], counts)
    left = np.repeat(prompt_tokens, counts) - rank * hashes.block_size
    tokens: npt.NDArray[np.int64] = np.minimum(left, hashes.block_size)
    return tokens
