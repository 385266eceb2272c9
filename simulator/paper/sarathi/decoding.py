"""What a token of decode costs, alone and beside a prefill (SARATHI, section 5.1.1)."""

from __future__ import annotations

from policies.costs import Costs
from profiler.aggregates import Aggregates


def alone_s(costs: Costs, batch: int, context: int) -> float:
    """Return the seconds a token of a batch of decodes alone, each with ``context`` tokens of context."""
    return costs.iteration_time(Aggregates.of(decodes=batch, context=context)) / batch


def beside_s(costs: Costs, prefill: int, decodes: int, context: int) -> float:
    """Return the seconds that each of some decodes adds to a batch of ``prefill`` prompt tokens."""
    with_decodes_s = costs.iteration_time(Aggregates.of(prefill, decodes=decodes, context=context))
    return (with_decodes_s - costs.iteration_time(Aggregates.of(prefill))) / decodes


def decode_speedup(costs: Costs, *, chunk: int, batch: int, context: int) -> float:
    """Return how much cheaper SARATHI's decodes are than those of a batch of ``batch`` (>= 2) of them alone.

    SARATHI's batch holds one decode less, beside a prefill that fills it up to ``chunk`` tokens (section 4.4). What
    comes before the chunk in its prompt does not matter: it is attended to in both batches whose difference is taken.
    """
    decodes = batch - 1
    return alone_s(costs, batch, context) / beside_s(costs, chunk - decodes, decodes, context)
