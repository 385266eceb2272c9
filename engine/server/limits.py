"""What the server takes on of one engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server takes on.

    Attributes
    ----------
    max_queue
        Requests beyond those that can be resident.
    request_timeout_s
        How long a request may take; None for as long as it takes.
    stall_timeout_s
        How long the engine may be silent while there are requests, before it counts as unhealthy.
    """

    max_queue: int = 1024
    request_timeout_s: float | None = None
    stall_timeout_s: float = 60.0
