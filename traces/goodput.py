"""Goodput: the requests that were served within their latency targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.errors import InputError
from traces.workload import FloatColumn

BoolColumn = npt.NDArray[np.bool_]

FIELDS = {"ttft": "ttft_s", "tpot": "tpot_s", "e2el": "end_to_end_s"}
EXPECTED = "targets in milliseconds such as ttft:500 tpot:50 e2el:10000"
TARGET = re.compile(r"(\w+):([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)")


@dataclass(frozen=True, kw_only=True)
class GoodputRule:
    """Latency targets that a request has to meet, all of them, to count; None sets no target.

    The targets and their spelling are those of vLLM's ``--goodput``: TTFT, TPOT and end-to-end latency. A
    request of a single output token has no TPOT and meets that target. One that did not finish meets none.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    end_to_end_s: float | None = None

    def met(self, ttft_s: FloatColumn, tpot_s: FloatColumn, end_to_end_s: FloatColumn) -> BoolColumn:
        """Return which requests met every target, bool [requests]; latencies NaN where there is none."""
        good = ~np.isnan(end_to_end_s)
        if self.ttft_s is not None:
            good &= ttft_s <= self.ttft_s
        if self.tpot_s is not None:
            good &= np.isnan(tpot_s) | (tpot_s <= self.tpot_s)
        if self.end_to_end_s is not None:
            good &= end_to_end_s <= self.end_to_end_s
        return good

    @property
    def spelled(self) -> str:
        """The targets as :func:`parse_goodput` takes them."""
        limits_s = {word: getattr(self, field) for word, field in FIELDS.items()}
        return " ".join(f"{word}:{1e3 * limit_s:.12g}" for word, limit_s in limits_s.items() if limit_s is not None)

    def __str__(self) -> str:
        targets = {"TTFT": self.ttft_s, "TPOT": self.tpot_s, "end-to-end": self.end_to_end_s}
        return ", ".join(f"{name} ≤ {1e3 * s:g} ms" for name, s in targets.items() if s is not None)


def parse_goodput(targets: str | Sequence[str], *, where: str = "--goodput") -> GoodputRule:
    """Return the rule that ``"ttft:500 tpot:50"``, or a list of such words, spells (milliseconds).

    Raises
    ------
    InputError
        If a word is no known name and positive number, or a name comes twice, or there is no word.
    """
    words = (targets if isinstance(targets, str) else " ".join(targets)).split()
    found: dict[str, float] = {}
    for word in words:
        match = TARGET.fullmatch(word)
        if match is None or match[1] not in FIELDS or not 0 < float(match[2]) < float("inf"):
            raise InputError(f"cannot read the target {word!r}", where=where, expected=EXPECTED)
        if FIELDS[match[1]] in found:
            raise InputError(f"the target {match[1]!r} is there twice", where=where, expected=EXPECTED)
        found[FIELDS[match[1]]] = float(match[2]) / 1e3
    if not found:
        raise InputError("no target", where=where, expected=EXPECTED)
    return GoodputRule(**found)
