"""How few prompt tokens a batch may hold where seats are short: decodes then share each batch with some."""

from __future__ import annotations

from collections.abc import Callable

from policies.batch import Batch
from policies.budget import STEP
from policies.prospect import Prospect
from policies.sequence import Sequence

PROMPTS = 64
"""Prompts over which the mean length is taken."""
BATCHES = 32
"""Batches after which the limit is chosen anew."""
ROOM = 1.2
"""Times the prompt tokens that come that a batch may hold at least: the limit is not what holds prompts up."""
GROWTH = 1.25


class Spread:
    """Chooses how many tokens a batch holds so that each prompt token costs the decodes beside it least.

    A batch reads the weights whether its matrix products are full or not: beside few decodes the first prompt tokens
    are nearly free, later ones are not. Where all seats are taken, new prompts come only as others end, one for each;
    to run each of them as fast as it can leaves batches without any, in which what would be free goes unused. So the
    limit is where a prompt token takes the least time on top of the decodes, among limits that leave :data:`ROOM`
    times what comes with each batch, or more.

    Parameters
    ----------
    seconds_of
        Returns the expected time of a batch.
    most
        The largest limit, in tokens.
    """

    def __init__(self, seconds_of: Callable[[Prospect], float], most: int) -> None:
        self._seconds_of = seconds_of
        self._most = most
        self._limit = most
        self._batches = 0
        self._prompt = 0.0

    def note(self, prompt_tokens: int) -> None:
        """Take note of a prompt that begins to run."""
        self._prompt += (prompt_tokens - self._prompt) / (PROMPTS if self._prompt else 1)

    def limit(self, batch: Batch, residents: int, output_tokens: float) -> int:
        """Return how many tokens ``batch``, of decodes, may hold together with prompts.

        Parameters
        ----------
        residents
            All who have a seat.
        output_tokens
            The mean length of the outputs that have ended.
        """
        if self._batches % BATCHES == 0:
            tokens = batch.decodes + ROOM * residents * self._prompt / output_tokens
            self._limit = min(self._choices(tokens), key=lambda tokens: self._extra_s(batch, tokens))
        self._batches += 1
        return self._limit

    def _choices(self, tokens: float) -> list[int]:
        """Return numbers of tokens from ``tokens`` on, in whole tiles."""
        found = [self._most]
        while tokens < self._most:
            found.append(min(self._most, -(-int(tokens) // STEP) * STEP))
            tokens = max(GROWTH * tokens, tokens + STEP)
        return found

    def _extra_s(self, batch: Batch, tokens: int) -> float:
        """Return what a prompt token costs on top of the decodes: of prompts of mean length, the first half done."""
        length, joining = max(2, round(self._prompt)), max(1, tokens - batch.decodes)
        count = 2 + joining // length
        prompts = [Sequence(0, arrival_s=0.0, prompt_tokens=length, output_tokens=1) for _ in range(count)]
        prompts[0].computed = length // 2
        prospect = Prospect(batch, iter(prompts))
        alone_s = self._seconds_of(prospect)
        prospect.take(joining)
        return (self._seconds_of(prospect) - alone_s) / joining
