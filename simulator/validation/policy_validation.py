"""What the validation of a policy that a search found says: is what was predicted of it what was measured?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, Literal

import numpy as np

from policies.prediction import Interval
from simulator.scoreboard import TIE
from simulator.validation.agreement import IterationErrors
from simulator.validation.policy_order import MetricOrder, Preference
from simulator.validation.policy_slo import Kept
from simulator.validation.validation import Finding
from traces.metrics import without_nan

SCHEMA_VERSION = 1
Place = Literal["inside", "above", "below"]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One metric of one setting.

    Attributes
    ----------
    metric
        By the name that a trial's outcome has.
    predicted
        As the search wrote it.
    at_pace
        As it is predicted for the pace that the machine had during the replays; None where that is not known.
    measured
        One value a replay; NaN where it has none.
    """

    metric: str
    predicted: Interval
    at_pace: Interval | None
    measured: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median over the replays; NaN where one has no value."""
        return float(np.median(self.measured))

    @property
    def known(self) -> bool:
        """Whether it was measured."""
        return not isnan(self.value)

    @property
    def place(self) -> Place:
        """Where the measured value lies as to what was predicted."""
        return place(self.value, self.predicted)

    @property
    def place_at_pace(self) -> Place | None:
        """The same as to the prediction for the machine's pace."""
        return None if self.at_pace is None else place(self.value, self.at_pace)

    @property
    def off(self) -> float:
        """By what share the measured value lies beyond the nearer end of the interval; 0 inside."""
        end = {"inside": self.value, "above": self.predicted.high, "below": self.predicted.low}[self.place]
        return abs(self.value - end) / end if end else 0.0 if self.value == end else float("inf")


def place(value: float, interval: Interval) -> Place:
    """Return where ``value`` lies; half a per cent is no difference, as in every comparison here."""
    if value < interval.low * (1 - TIE):
        return "below"
    return "above" if value > interval.high * (1 + TIE) else "inside"


@dataclass(frozen=True, kw_only=True)
class JudgedSetting:
    """A policy with its settings, predicted and measured.

    Attributes
    ----------
    label, policy
        What it is called here, and the content of its ``policy.json``, without the prediction.
    promises
        Its metrics.
    drift, others
        How much longer (+) designed iterations took during the replays than in the profile, as a share; how many
        processors other programs kept busy. None where not known.
    errors
        Of iteration times, all replays together, as predicted.
    kept
        How the SLO was kept; None where there is none, or none that can be read.
    deviation
        The largest share by which a metric that is predicted here and now differs from what the file says.
    """

    label: str
    policy: Mapping[str, Any]
    promises: tuple[Promise, ...]
    drift: float | None
    others: float | None
    errors: IterationErrors
    kept: Kept | None
    deviation: float

    @property
    def known(self) -> list[Promise]:
        """The metrics that were measured."""
        return [each for each in self.promises if each.known]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        promises = {
            each.metric: {
                **asdict(each.predicted),
                "measured": each.value,
                "replays": list(each.measured),
                "place": each.place if each.known else None,
                "at_pace": None if each.at_pace is None else asdict(each.at_pace),
                "place_at_pace": each.place_at_pace if each.known else None,
            }
            for each in self.promises
        }
        own = {"label": self.label, "policy": dict(self.policy), "drift": self.drift, "others": self.others}
        own |= {"slo": None if self.kept is None else {"held": self.kept.held, **asdict(self.kept)}}
        return {**own, "deviation": self.deviation, "errors": asdict(self.errors), "metrics": promises}


@dataclass(frozen=True, kw_only=True)
class PolicyValidation:
    """A search's prediction, judged.

    Attributes
    ----------
    settings
        The winner first, then its runners-up.
    coverage
        Share of the metrics that the intervals promise to hold.
    preferences
        For each two settings, which one is better as predicted and as measured.
    orders
        The same in each metric alone.
    verdict
        What holds and what falls short, in words; the first sentence sums up.
    provenance
        What was run, on what: JSON values.
    """

    settings: tuple[JudgedSetting, ...]
    coverage: float
    preferences: tuple[Preference, ...]
    orders: Mapping[str, MetricOrder]
    verdict: tuple[Finding, ...]
    provenance: Mapping[str, Any]

    @property
    def holds(self) -> bool:
        """Whether everything that was promised holds."""
        return all(finding.holds is not False for finding in self.verdict)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``validation.json``; null where there is no value."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "kind": "policy",
            "holds": self.holds,
            "verdict": [asdict(finding) for finding in self.verdict],
            "coverage": {
                "promised": self.coverage,
                "found": share_inside(self.settings),
                "at_pace": share_inside(self.settings, at_pace=True),
            },
            "preferences": [{**asdict(each), "agrees": each.agrees} for each in self.preferences],
            "orders": {name: asdict(each) for name, each in self.orders.items()},
            "settings": [setting.as_dict() for setting in self.settings],
            "provenance": dict(self.provenance),
        }
        known: dict[str, Any] = without_nan(document)
        return known


def places(settings: Sequence[JudgedSetting], *, at_pace: bool = False) -> list[Place]:
    """Return where the measured metrics of all settings lie; at the machine's pace, of those it is known for."""
    found = [each.place_at_pace if at_pace else each.place for setting in settings for each in setting.known]
    return [each for each in found if each is not None]


def share_inside(settings: Sequence[JudgedSetting], *, at_pace: bool = False) -> float:
    """Return the share of the measured metrics within their intervals; NaN where there is none."""
    found = places(settings, at_pace=at_pace)
    return found.count("inside") / len(found) if found else float("nan")
