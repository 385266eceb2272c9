"""How the demand on few candidates grows as the many are sorted out: synchronous successive halving."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil, log
from typing import Any

SHARE = 3.0
"""About one in so many goes on from a rung to the next (Jamieson & Talwalkar 2016; Li et al. 2020)."""
FEWEST_REQUESTS = 200
FIRST_TRIALS, NEXT_TRIALS = 6, 5
FIRST_TOLERANCE, NEXT_TOLERANCE = 0.15, 0.08


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What each candidate is asked on a rung.

    Attributes
    ----------
    candidates
        How many there are at most.
    requests
        Of the demand.
    most_trials, tolerance
        Of the search for one capacity.
    seed, seeds
        The first draw of the requests, and how many; of one alone there is no interval.
    """

    candidates: int
    requests: int
    most_trials: int
    tolerance: float
    seed: int = 0
    seeds: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def rungs(
    candidates: int, requests: int, *, finalists: int, seed: int, seeds: int, most_trials: int, tolerance: float
) -> tuple[Rung, ...]:
    """Return the rungs for so many candidates: each has a third of them and twice the requests, the last has the
    finalists, all requests and all seeds.
    """
    turns = max(0, round(log(candidates / finalists) / log(SHARE))) if candidates > finalists else 0
    if candidates > finalists:
        turns = max(1, turns)
    share = (finalists / candidates) ** (1 / turns) if turns else 1.0
    early = tuple(
        Rung(
            candidates=max(finalists, ceil(candidates * share**turn)),
            requests=min(requests, max(FEWEST_REQUESTS, requests >> (turns - turn))),
            most_trials=FIRST_TRIALS if turn == 0 else NEXT_TRIALS,
            tolerance=FIRST_TOLERANCE if turn == 0 else NEXT_TOLERANCE,
            seed=seed,
        )
        for turn in range(turns)
    )
    last = Rung(
        candidates=min(candidates, finalists),
        requests=requests,
        most_trials=most_trials,
        tolerance=tolerance,
        seed=seed,
        seeds=seeds,
    )
    return (*early, last)
