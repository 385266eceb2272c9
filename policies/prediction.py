"""What a search says of the policies that it found best, as ``policy.json`` carries it under ``predicted``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from os import PathLike
from typing import Any

from policies.catalog import PolicyChoice, parse_choice
from traces.errors import InputError
from traces.settings import from_mapping

NOT_SETTINGS = ("policy", "metrics", "deployment", "replicas", "capacity", "value")
"""Keys of a runner-up that are no settings of its policy."""
OF_THE_POLICY = ("max_num_batched_tokens", "max_num_seqs")
"""Keys of a deployment that follow from its policy's largest batch."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value, and the least and the most that it may be; seconds, shares, or amounts a second."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"the value {self.value:g} is not within its interval [{self.low:g}, {self.high:g}]")

    def as_dict(self) -> dict[str, float]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """A policy with its settings, and its metrics as predicted, by the names that a trial's outcome has.

    ``deployment`` and ``replicas`` are what it runs on, as :class:`Prediction` has them.
    """

    choice: PolicyChoice
    metrics: Mapping[str, Interval]
    deployment: Mapping[str, Any]
    replicas: int

    @staticmethod
    def of(document: Mapping[str, Any], stated: _Stated, *, where: str) -> Foretold:
        """Return what an entry of ``runners_up`` says; what it runs on is as ``stated`` for the winner by default."""
        if not isinstance(document, Mapping) or not isinstance(document.get("policy"), str):
            raise InputError("key 'policy' is missing or not a name", where=where)
        settings = {key: value for key, value in document.items() if key not in NOT_SETTINGS}
        choice = parse_choice(document["policy"], settings, where=where)
        deployment, replicas = document.get("deployment", stated.deployment), document.get("replicas", stated.replicas)
        if not isinstance(deployment, Mapping) or not isinstance(replicas, int):
            raise InputError("deployment or replicas of another type", where=where, expected="an object, an integer")
        metrics = _metrics(document.get("metrics"), where=where)
        return Foretold(choice=choice, metrics=metrics, deployment=deployment, replicas=replicas)

    def beside(self, other: Foretold) -> bool:
        """Return whether both run on the same."""
        own, theirs = (
            {key: value for key, value in each.deployment.items() if key not in OF_THE_POLICY} for each in (self, other)
        )
        return own == theirs and self.replicas == other.replicas


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was predicted, of what.

    Attributes
    ----------
    settings
        The winner first, then its runners-up on the same deployment.
    elsewhere
        Policies of the runners-up on another one.
    workload
        A demand with ``request_rate`` and ``seed``, as :class:`traces.demand.Drawn` takes it.
    deployment
        As :class:`profiler.deployment.Deployment` takes it.
    replicas
        How many of it.
    profile
        The measurements that the cost model was fitted to; None: those that ship with the package.
    coverage
        Share of the metrics that the intervals are to hold.
    goodput
        Targets, as ``--goodput`` takes them, of which the share of requests that meet them was predicted; "" for none.
    goodput_share
        The share that is to meet them.
    slo
        Limits, as ``--slo`` takes them, within which the search looked; "" for none but ``goodput``.
    objective, why, command
        What was asked of the search, and what it said.
    """

    settings: tuple[Foretold, ...]
    elsewhere: tuple[str, ...] = ()
    workload: Mapping[str, Any]
    deployment: Mapping[str, Any]
    replicas: int = 1
    profile: str | None = None
    coverage: float = 0.9
    goodput: str = ""
    goodput_share: float = 0.99
    slo: str = ""
    objective: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    command: str = ""

    @property
    def labelled(self) -> dict[str, Foretold]:
        """The settings by labels: the policy, and the values of what sets it apart from others of its name."""
        found: dict[str, Foretold] = {}
        for each in self.settings:
            own = asdict(each.choice.settings)
            alike = [asdict(other.choice.settings) for other in self.settings if other.choice.name == each.choice.name]
            apart = [str(own[key]) for key in own if any(other[key] != own[key] for other in alike)]
            found["-".join([each.choice.name, *apart])] = each
        return found


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """The keys of ``predicted`` that are read."""

    workload: dict[str, Any]
    deployment: dict[str, Any]
    metrics: dict[str, Any]
    runners_up: tuple[dict[str, Any], ...] = ()
    replicas: int = 1
    profile: str | None = None
    coverage: float = 0.9
    goodput: str | None = None
    goodput_share: float = 0.99
    slo: str | None = None
    objective: dict[str, Any] | None = None
    why: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage is {self.coverage:g}; expected a number in (0, 1)")
        if not 0 < self.goodput_share <= 1:
            raise ValueError(f"goodput_share is {self.goodput_share:g}; expected a number in (0, 1]")
        if self.replicas < 1:
            raise ValueError(f"replicas is {self.replicas}; expected an integer >= 1")


def read_prediction(choice: PolicyChoice, *, where: str | PathLike[str]) -> Prediction:
    """Return what was predicted of ``choice``, which comes from ``where``.

    Keys that nothing here reads are left alone: a search may say more.

    Raises
    ------
    InputError
        If nothing was predicted, or a key is missing or has a value of another type.
    """
    if not choice.predicted:
        raise InputError("holds no prediction", where=where, expected="what `python -m simulator search` writes")
    place = f"{where}, predicted"
    known = {key: value for key, value in choice.predicted.items() if key in _Stated.__dataclass_fields__}
    stated = from_mapping(_Stated, known, where=place)
    winner = Foretold(
        choice=choice,
        metrics=_metrics(stated.metrics, where=place),
        deployment=stated.deployment,
        replicas=stated.replicas,
    )
    others = [
        Foretold.of(entry, stated, where=f"{place}, runners_up[{index}]")
        for index, entry in enumerate(stated.runners_up)
    ]
    settings = (winner, *(each for each in others if each.beside(winner)))
    if len({(each.choice.name, each.choice.settings) for each in settings}) < len(settings):
        raise InputError("the same settings are there twice", where=f"{place}, runners_up", expected="different ones")
    return Prediction(
        settings=settings,
        elsewhere=tuple(each.choice.name for each in others if not each.beside(winner)),
        workload=stated.workload,
        deployment=stated.deployment,
        replicas=stated.replicas,
        profile=stated.profile,
        coverage=stated.coverage,
        goodput=stated.goodput or "",
        goodput_share=stated.goodput_share,
        slo=stated.slo or "",
        objective=stated.objective or {},
        why=stated.why,
        command=stated.command,
    )


def _metrics(stated: Any, *, where: str) -> dict[str, Interval]:
    if not isinstance(stated, Mapping) or not stated:
        wish = "an object of metrics, each with value, low and high"
        raise InputError("key 'metrics' is missing or empty", where=where, expected=wish)
    found = {}
    for name, each in stated.items():
        place = f"{where}, metrics, {name!r}"
        if not isinstance(each, Mapping):
            raise InputError(f"is {each!r}", where=place, expected="an object with value, low and high")
        found[name] = from_mapping(Interval, each, where=place)
        if not all(isfinite(end) for end in found[name].as_dict().values()):
            raise InputError(f"{each} are not finite numbers", where=place)
    return found
