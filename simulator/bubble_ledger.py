"""Which requests waited in which pipeline bubbles."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter

import numpy as np

from policies.sequence import Sequence
from simulator.flight import Flight
from traces.workload import FloatColumn

PENDING = 4096
request_of = attrgetter("request_id")


class BubbleLedger:
    """Adds the bubble before each batch to the account of every request that the batch held.

    The bubble of a batch on a stage is how long that stage waited for it while something was in flight: since the batch
    before it left the stage, less the time from when that one left the last stage until this one began on the
    first. The first batch of a replica has none. What a request pays is the sum over all stages and over all of
    its micro-batches (SARATHI, arXiv 2308.16369, section 5.3). :func:`traces.bubbles.batch_bubbles` finds the
    same bubbles in the run record, which does not say who was in a batch.

    Batches are entered as they complete, those of a replica in order; replicas with one stage have no bubbles, and
    their flights need not come here.

    Parameters
    ----------
    bubble_s
        The accounts, float64 [requests], up to date after :meth:`close`.
    """

    def __init__(self, bubble_s: FloatColumn) -> None:
        self._bubble_s = bubble_s
        self._ends_s: dict[int, list[float]] = {}
        self._held: list[list[Sequence]] = []
        self._bubbles_s: list[float] = []

    def enter(self, flight: Flight) -> None:
        """Take note of a batch that has gone through all stages."""
        starts_s = flight.stage_start_s
        ends_s = [start_s + time_s for start_s, time_s in zip(starts_s, flight.stage_time_s, strict=True)]
        before_s = self._ends_s.get(flight.replica)
        self._ends_s[flight.replica] = ends_s
        if before_s is None:
            return
        nothing_s = max(0.0, starts_s[0] - before_s[-1])
        bubble_s = sum(
            [max(0.0, start_s - free_s - nothing_s) for start_s, free_s in zip(starts_s, before_s, strict=True)]
        )
        if bubble_s > 0.0:
            chunks = flight.batch.chunks
            self._held.append(flight.decoding + [chunk.sequence for chunk in chunks] if chunks else flight.decoding)
            self._bubbles_s.append(bubble_s)
            if len(self._held) == PENDING:
                self.close()

    def close(self) -> None:
        """Settle what is pending."""
        sizes = np.fromiter(map(len, self._held), np.int64, len(self._held))
        requests = np.fromiter(map(request_of, chain.from_iterable(self._held)), np.int64, int(sizes.sum()))
        np.add.at(self._bubble_s, requests, np.repeat(self._bubbles_s, sizes))
        self._held.clear()
        self._bubbles_s.clear()
