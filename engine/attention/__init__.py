"""Paged attention: what transformers calls, and the backends that compute it."""

from engine.attention.backend import AttentionBackend, AttentionPlan
from engine.attention.catalog import BACKENDS, attention_backend
from engine.attention.interface import ATTENTION, LayerAttention, register

__all__ = [
    "ATTENTION",
    "BACKENDS",
    "AttentionBackend",
    "AttentionPlan",
    "LayerAttention",
    "attention_backend",
    "register",
]
