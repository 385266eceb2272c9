"""Prompts that a real run cannot have computed whole: what its times betray of prefix hits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from traces.workload import FloatColumn

if TYPE_CHECKING:
    from simulator.replay.engine_settings import EngineSettings
    from simulator.replay.published_run import Measured

SAME_S = 1e-3
"""Times of one iteration differ by less."""


def prefix_hits(requests: Measured, settings: EngineSettings) -> Iterator[str]:
    """Yield what must be said of prompts that the simulation computes whole, though the engine did not.

    Requests that are first scheduled together and have their first tokens together ran in one iteration. Prompt
    tokens there beyond the token budget came from the prefix cache. That is the least: which prompts begin alike is
    nowhere recorded, only how long they are.
    """
    if not settings.enable_prefix_caching:
        return
    together: dict[tuple[int, int], list[int]] = defaultdict(list)
    times = zip(_moments(requests.scheduled_s), _moments(requests.first_token_s), requests.prompt_tokens, strict=True)
    for scheduled, first, tokens in times:
        together[scheduled, first].append(int(tokens))
    budget = settings.max_num_batched_tokens
    beyond = [sum(tokens) - budget for tokens in together.values() if len(tokens) > 1 and sum(tokens) > budget]
    if beyond:
        yield (
            f"{len(beyond)} iterations finished more prompt tokens than the budget of {budget:,}: at least "
            f"{sum(beyond):,} were prefix hits. Which prompts share what is not recorded; the simulation computes "
            "them whole, which takes longer and more KV blocks."
        )


def _moments(times_s: FloatColumn) -> list[int]:
    """Number the times, those of one iteration alike."""
    order = np.argsort(times_s, kind="stable")
    moments = np.empty(len(order), dtype=np.int64)
    moments[order] = np.cumsum(np.diff(times_s[order], prepend=times_s[order[:1]]) > SAME_S)
    return [int(each) for each in moments]
