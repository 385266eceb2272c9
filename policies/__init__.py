"""The schedulers: requests in service, KV block accounting, batches, policies.

A policy is plain Python, knows no torch, no SimPy and no wall clock, and is the same object in the simulator
and in the engine.
"""

from policies.batch import Batch, Chunk, Completion
from policies.blocks import BlockPool, KVMemory
from policies.catalog import POLICIES, PolicyChoice, choose, parse_choice, read_policy
from policies.policy import Policy
from policies.sequence import Sequence
from policies.settings import Settings

__all__ = [
    "POLICIES",
    "Batch",
    "BlockPool",
    "Chunk",
    "Completion",
    "KVMemory",
    "Policy",
    "PolicyChoice",
    "Sequence",
    "Settings",
    "choose",
    "parse_choice",
    "read_policy",
]
