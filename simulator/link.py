"""The link between prefill and decode replicas."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Link:
    """One direction of what lies between two replicas.

    Attributes
    ----------
    bandwidth_bytes_per_s, latency_s
        Bytes/s that it carries, and the time from the start of a transfer to its first byte.
    kv_bytes_per_token
        KV of one token over all layers.
    """

    bandwidth_bytes_per_s: float
    latency_s: float
    kv_bytes_per_token: int

    def time_s(self, tokens: int) -> float:
        """Return the seconds for which sending the KV of ``tokens`` tokens keeps the link."""
        return self.latency_s + tokens * self.kv_bytes_per_token / self.bandwidth_bytes_per_s
