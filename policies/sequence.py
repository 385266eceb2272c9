"""A request in service."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from math import nan
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.decode_set import DecodeSet


class Sequence:
    """A request in service: how far it is, and which KV blocks it holds.

    While it decodes, its counts stand still and its decode set's clock runs for it (see
    :class:`policies.decode_set.DecodeSet`); ``computed`` and ``generated`` are brought up to date when it
    leaves.

    Attributes
    ----------
    request_id
        Ascending in order of arrival: the priority among requests (first come, first served).
    arrival_s, scheduled_s, first_token_s, last_token_s, finished_s
        Moments in seconds; NaN until they happen. ``scheduled_s`` is the start of its first batch.
    prompt_tokens, output_tokens
        What the user sent and asked for.
    target
        Prompt tokens to run before the next output token: the prompt, and after a preemption also the
        output produced so far.
    computed
        Tokens whose KV is in the cache.
    generated
        Output tokens produced.
    blocks
        Its block table: the id of the KV block of every ``block_size`` tokens.
    block_hashes
        For prefix caching: one hashable a full block of the prompt, equal where the tokens up to the end of
        that block are equal.
    """

    __slots__ = (
        "arrival_s",
        "block_hashes",
        "blocks",
        "cached_tokens",
        "computed",
        "finished_s",
        "first_token_s",
        "generated",
        "group",
        "joined",
        "last_token_s",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "rank",
        "request_id",
        "scheduled_s",
        "target",
    )

    def __init__(
        self,
        request_id: int,
        *,
        arrival_s: float,
        prompt_tokens: int,
        output_tokens: int,
        block_hashes: Listing[int | bytes] = (),
    ) -> None:
        self.request_id = request_id
        self.rank = request_id
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.block_hashes = block_hashes
        self.target = prompt_tokens
        self.computed = 0
        self.generated = 0
        self.cached_tokens = 0
        self.preemptions = 0
        self.blocks: list[int] = []
        self.group: DecodeSet | None = None
        self.joined = 0
        self.scheduled_s = nan
        self.first_token_s = nan
        self.last_token_s = nan
        self.finished_s = nan

    def __repr__(self) -> str:
        return (
            f"Sequence({self.request_id}, computed={self.computed}/{self.target}, "
            f"generated={self.generated}/{self.output_tokens}, blocks={len(self.blocks)})"
        )

    @property
    def left(self) -> int:
        """Prompt tokens still to run."""
        return self.target - self.computed

    def restart(self) -> None:
        """Forget the KV: the output so far joins the prompt, and the output budget does not start anew."""
        self.target = self.prompt_tokens + self.generated
        self.computed = 0
        self.blocks = []


by_rank, by_arrival = attrgetter("rank"), attrgetter("request_id")
"""Keys to sort sequences by."""
