"""A measured run once more, by its own clock: the batches that a policy makes of the same requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.arrivals import Arrivals
from policies.batch import Batch
from policies.policy import Policy

if TYPE_CHECKING:
    from traces.run_columns import IterationColumns

COMPARED = (
    "prefill_tokens",
    "chunks",
    "decodes",
    "outputs",
    "decode_context_sum",
    "decode_context_max",
    "prefill_context_sum",
)
"""Two batches with equal values in these columns of a run record hold the same."""


def follow(policy: Policy, arrivals: Arrivals, iterations: IterationColumns) -> list[Batch | None]:
    """Run a policy by the clock of a measured run, whose iterations begin and end when they did.

    It is the simulator's loop with the measured times in place of a cost model's. They are used as they are, so that
    every request arrives on the same side of every iteration's start as it did in the measured run; adding up
    simulated times could put it on the other by a rounding.

    Returns
    -------
    list
        A batch for each iteration of the measured run; None where the policy had nothing to run then.
    """
    batches = []
    for start_s, end_s in zip(iterations.start_s.tolist(), iterations.end_s.tolist(), strict=True):
        for sequence in arrivals.due(start_s):
            policy.add(sequence)
        batch = policy.schedule(start_s)
        if batch is not None:
            policy.complete(batch, end_s)
        batches.append(batch)
    return batches


def held(batch: Batch) -> list[int]:
    """Return what a batch holds, by :data:`COMPARED`."""
    values = (getattr(batch, name) for name in COMPARED)
    return [len(value) if isinstance(value, list) else value for value in values]
