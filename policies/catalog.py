"""All policies by name, and the file that says which one to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from policies.blocks import KVMemory
from policies.chunked_only import ChunkedOnly
from policies.costs import Costs
from policies.faster_transformer import FasterTransformer
from policies.hybrid_only import HybridOnly
from policies.orca import Orca
from policies.policy import Policy
from policies.sarathi import Sarathi, SarathiSettings
from policies.sarathi_serve import SarathiServe, SarathiServeSettings
from policies.settings import PagedSettings, Settings
from policies.slack import Slack, SlackSettings
from policies.vllm import VLLM, VLLMSettings
from policies.vllm_v1 import VLLMV1, VLLMV1Settings
from traces.errors import InputError
from traces.files import read_json
from traces.settings import from_mapping

POLICIES: dict[str, tuple[type[Policy], type[Settings]]] = {
    FasterTransformer.name: (FasterTransformer, Settings),
    Orca.name: (Orca, Settings),
    VLLM.name: (VLLM, VLLMSettings),
    Sarathi.name: (Sarathi, SarathiSettings),
    SarathiServe.name: (SarathiServe, SarathiServeSettings),
    HybridOnly.name: (HybridOnly, PagedSettings),
    ChunkedOnly.name: (ChunkedOnly, SarathiServeSettings),
    VLLMV1.name: (VLLMV1, VLLMV1Settings),
    Slack.name: (Slack, SlackSettings),
}
"""Name -> (policy, its settings)."""


@dataclass(frozen=True, kw_only=True)
class PolicyChoice:
    """Which policy to run, with its settings, and what was predicted of it when it was chosen.

    ``policy.json`` holds the name under ``policy``, each setting under its own key, and optionally
    ``predicted``: an object that :func:`policies.prediction.read_prediction` takes.
    """

    name: str
    settings: Settings
    predicted: dict[str, Any] = field(default_factory=dict, hash=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``policy.json``."""
        document: dict[str, Any] = {"policy": self.name, **dataclasses.asdict(self.settings)}
        if self.predicted:
            document["predicted"] = self.predicted
        return document

    @property
    def needs_costs(self) -> bool:
        """Whether the policy asks a cost model."""
        return POLICIES[self.name][0].needs_costs

    def check_costs(self, *, known: bool) -> None:
        """Refuse a policy that needs a cost model where none is ``known``.

        Raises
        ------
        InputError
            If so.
        """
        if self.needs_costs and not known:
            what = "chooses its batches by a cost model, and there is none for this device"
            raise InputError(what, where=f"policy {self.name}", expected="--profile, a folder of python -m profiler")

    def build(self, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None) -> Policy:
        """Return a fresh policy object.

        Raises
        ------
        InputError
            If the settings do not go with the memory, e.g. a budget below ``max_model_len`` for a policy that
            runs prompts whole; or the policy needs ``costs``, and has none.
        """
        self.check_costs(known=costs is not None)
        try:
            return POLICIES[self.name][0](self.settings, memory, stages=stages, costs=costs)
        except ValueError as error:
            raise InputError(str(error), where=f"policy {self.name}") from error


def choose(name: str, /, **settings: Any) -> PolicyChoice:
    """Return the policy ``name`` with ``settings`` (the others at their defaults); see :func:`parse_choice`."""
    return parse_choice(name, settings, where="--policies")


def parse_choice(name: str, settings: Mapping[str, Any], *, where: str | PathLike[str]) -> PolicyChoice:
    """Return the policy ``name`` with ``settings``, which come from ``where``.

    Raises
    ------
    InputError
        If there is no such policy, or it has no such setting, or the setting's value is wrong.
    """
    if name not in POLICIES:
        raise InputError(f"unknown policy {name!r}", where=where, expected=f"one of {', '.join(POLICIES)}")
    return PolicyChoice(name=name, settings=from_mapping(POLICIES[name][1], settings, where=f"{where}: {name}"))


def read_policy(path: str | PathLike[str]) -> PolicyChoice:
    """Read ``policy.json``.

    Raises
    ------
    InputError
        If the file is not a JSON object, names no known policy, holds an unknown key, or what was predicted is not
        sound.
    """
    return policy_of(read_json(path), where=path)


def policy_of(document: Mapping[str, Any], *, where: str | PathLike[str]) -> PolicyChoice:
    """Return the policy of the content of a ``policy.json``, which comes from ``where``; see :func:`read_policy`."""
    from policies.prediction import read_prediction

    settings = dict(document)
    name = settings.pop("policy", None)
    predicted = settings.pop("predicted", {})
    if not isinstance(name, str):
        raise InputError("key 'policy' is missing or not a name", where=where, expected=", ".join(POLICIES))
    if not isinstance(predicted, dict):
        raise InputError("key 'predicted' is not an object", where=where)
    choice = dataclasses.replace(parse_choice(name, settings, where=where), predicted=predicted)
    if predicted:
        read_prediction(choice, where=where)
    return choice
