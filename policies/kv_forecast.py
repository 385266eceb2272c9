"""How much KV the residents will hold, as far as outputs that have ended let expect."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Listing
from itertools import accumulate
from operator import itemgetter

from policies.batch import Batch
from policies.blocks import KVMemory
from policies.sequence import Sequence

MOST = 256
"""The latest outputs that count."""
SPREAD = 0.6180339887498949
"""Multiples of the golden ratio, less their whole parts, are spread evenly however many there are."""


class KVForecast:
    """Learns the lengths of requests that have ended, and says whether more residents fit until they end, too.

    A scheduler does not know when an output ends. One of ``n`` tokens so far is expected to become as long as those
    became that were longer than ``n``: alone, as on average; among others, some less and some more, so that they do not
    all end at once.
    """

    def __init__(self, memory: KVMemory) -> None:
        self._memory = memory
        self._recent: deque[int] = deque()
        self._outputs: list[int] = []
        self._sums: list[int] = [0]

    def note(self, sequence: Sequence) -> None:
        """Take note of a request that has ended."""
        self._recent.append(sequence.generated)
        insort(self._outputs, sequence.generated)
        if len(self._recent) > MOST:
            del self._outputs[bisect_left(self._outputs, self._recent.popleft())]
        self._sums = list(accumulate(self._outputs, initial=0))

    @property
    def mean(self) -> float:
        """The mean length of the outputs that have ended; 0 before the first."""
        return self._sums[-1] / len(self._outputs) if self._outputs else 0.0

    def rest(self, generated: int) -> int:
        """Return how many more tokens an output of ``generated`` tokens is expected to get."""
        ended = self._outputs
        first = bisect_right(ended, generated)
        if first == len(ended):
            return 0 if not ended else 1
        return (self._sums[-1] - self._sums[first]) // (len(ended) - first) - generated

    def fits(
        self, free: int, residents: int, batch: Batch, prefilling: Iterable[Sequence], newcomers: Listing[Sequence]
    ) -> bool:
        """Whether ``free`` blocks are enough for what residents and newcomers grow by.

        Parameters
        ----------
        free
            Blocks that are left when the newcomers have those of their prompts.
        residents
            How many there are. Those in other batches of a pipeline are taken to be like those in ``batch`` and in
            ``prefilling``.
        """
        blocks_for, most = self._memory.blocks_for, residents + len(newcomers)
        if free >= most * (blocks_for(self.rest(0)) + 1):
            return True
        seen = [(each.generated, each.target) for each in [*prefilling, *newcomers]]
        if batch.group is not None:
            clock = batch.group.clock
            for each in batch.group:
                ticks = clock - each.joined
                seen.append((each.generated + ticks, each.computed + ticks))
        needs = self._needs(sorted(seen))
        growth = peak_tokens(needs) - sum([held for held, _ in needs])
        return free >= blocks_for(growth * most // len(seen))

    def _needs(self, seen: Listing[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the tokens that each of ``seen`` holds, and how many more it gets.

        ``seen`` are outputs so far, ascending, and tokens held. Of those that ended longer than one is now, its end is
        drawn: spread over them from place to place.
        """
        ended, count, first = self._outputs, len(self._outputs), 0
        needs = []
        for place, (generated, held) in enumerate(seen):
            first = bisect_right(ended, generated, first)
            if first == count:
                needs.append((held, self.rest(generated)))
            else:
                drawn = ended[first + int(SPREAD * place % 1 * (count - first))]
                needs.append((held, drawn - generated))
        return needs


def peak_tokens(residents: Iterable[tuple[int, int]]) -> int:
    """Return the most KV tokens that residents will hold at once, if nobody is added.

    Parameters
    ----------
    residents
        Of each: the tokens it holds, and those that it will get before it ends and gives all of them back.

    Notes
    -----
    The most is held when one of them ends: those that end no earlier have then grown by as much as it has (R. Gong et
    al., "Past-Future Scheduler for LLM Serving under SLA Guarantees", ASPLOS 2025).
    """
    most = held = 0
    for count, (tokens, rest) in enumerate(sorted(residents, key=itemgetter(1), reverse=True), start=1):
        held += tokens
        peak = held + count * rest
        if peak > most:
            most = peak
    return most
