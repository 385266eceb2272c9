"""What is searched, and for what, where nothing else is asked for."""

from __future__ import annotations

from typing import Literal, get_args

from policies.catalog import POLICIES

ObjectiveName = Literal["cost", "capacity", "goodput-per-gpu"]
OBJECTIVES: tuple[ObjectiveName, ...] = get_args(ObjectiveName)
USUAL_POLICIES = tuple(name for name in ("sarathi-serve", "vllm-v1", "vllm", "orca", "slack") if name in POLICIES)
DEVICES = ("a100-sxm",)
INTEGERS = {
    "max_num_batched_tokens": (256, 512, 1024, 2048, 4096, 8192),
    "max_num_seqs": (32, 64, 128, 256, 512),
    "tensor_parallel_size": (1, 2, 4),
    "pipeline_parallel_size": (1,),
    "replicas": (1,),
}
"""Axes of integers, by the options' names."""
