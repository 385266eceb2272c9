"""The options of the command line that say how sure a comparison is to be."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.significance.verdict import LEAST_DIFFERENCE
from traces.errors import InputError

SEEDS = 10
"""Pairs of runs, unless told otherwise: an interval of 10 is wider than one of many by 15 %, one of 5 by 42 %."""


@dataclass(frozen=True, kw_only=True)
class SignificanceOptions:
    """What a person asked of the verdict; each field is the option of that name, None where not given.

    Attributes
    ----------
    least_difference
        In percent, as people write it.
    """

    significance: bool = False
    seeds: int | None = None
    baseline: str | None = None
    least_difference: float | None = None

    def check_significance(self, labels: list[str]) -> None:
        """Raise :class:`InputError` unless what was asked for can be judged for policies of these labels."""
        given = {"seeds": self.seeds, "baseline": self.baseline, "least-difference": self.least_difference}
        if not self.significance:
            for name, value in given.items():
                if value is not None:
                    raise InputError(f"--{name} without --significance", expected="both, or neither")
            return
        if len(labels) < 2:
            raise InputError(f"{labels[0]} alone", where="--significance", expected="two policies or more")
        if self.seeds is not None and self.seeds < 2:
            what = f"{self.seeds} pairs of runs say nothing of how they scatter"
            raise InputError(what, where="--seeds", expected="2 or more")
        if self.baseline is not None and self.baseline not in labels:
            raise InputError(f"no policy is {self.baseline}", where="--baseline", expected=" or ".join(labels))
        if self.least_difference is not None and not 0 <= self.least_difference < 100:
            what = f"a least difference of {self.least_difference:g} %"
            raise InputError(what, where="--least-difference", expected="percent, from 0 to below 100")

    def numbers(self, seed: int) -> range:
        """Return the seeds of the pairs: those after the comparison's own, by which the baseline is chosen."""
        return range(seed + 1, seed + 1 + (SEEDS if self.seeds is None else self.seeds))

    @property
    def least_share(self) -> float:
        """The least difference, as a share."""
        return LEAST_DIFFERENCE if self.least_difference is None else self.least_difference / 100
