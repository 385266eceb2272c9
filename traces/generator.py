"""Workloads drawn from settings: when requests arrive and how long they are, all by one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any

import numpy as np

from traces.arrivals import (
    AllAtOnce,
    Arrivals,
    ConstantArrivals,
    GammaArrivals,
    PoissonArrivals,
    TraceArrivals,
)
from traces.columns import MAX_REQUESTS
from traces.errors import InputError
from traces.formats import shown
from traces.lengths import (
    FixedLengths,
    LengthSettings,
    LognormalLengths,
    TraceLengths,
    UniformLengths,
    ZipfLengths,
)
from traces.presets import PRESET_REQUESTS
from traces.settings import from_mapping
from traces.workload import Workload


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """All that a generated workload depends on.

    Attributes
    ----------
    lengths
        How long requests are.
    arrivals
        When they arrive; None for a workload of lengths only.
    num_prompts
        How many there are.
    seed
        Decides every draw; arrivals and lengths have a stream each, so that one can change alone.
    name
        What the workload is called.
    """

    lengths: LengthSettings
    arrivals: Arrivals | None = None
    num_prompts: int = PRESET_REQUESTS
    seed: int = 0
    name: str = "generated"

    def __post_init__(self) -> None:
        if not 1 <= self.num_prompts <= MAX_REQUESTS:
            raise InputError(f"num_prompts is {self.num_prompts}", expected=f"from 1 to {MAX_REQUESTS}")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}", expected="an integer >= 0")

    def document(self) -> dict[str, Any]:
        """Return the settings as a JSON object that :meth:`from_document` takes."""
        return {
            "name": self.name,
            "num_prompts": self.num_prompts,
            "seed": self.seed,
            "arrivals": self.arrivals and {"kind": self.arrivals.kind, **asdict(self.arrivals)},
            "lengths": {"kind": self.lengths.kind, **asdict(self.lengths)},
        }

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], *, where: str | PathLike[str] = "settings"
    ) -> GeneratorSettings:
        """Return the settings that a JSON object holds.

        Raises
        ------
        InputError
            For an unknown or missing key or kind, or a value that is not allowed.
        """
        parts = dict(document)
        known = [field.name for field in fields(cls)]
        unknown = next((key for key in parts if key not in known), None)
        if unknown is not None:
            what = f"unknown key {shown(unknown)}"
            raise InputError(what, where=where, expected=f"one of {', '.join(known)}")
        if "lengths" not in parts:
            raise InputError("key 'lengths' is missing", where=where)
        lengths = _part(parts.pop("lengths"), _LENGTHS, "lengths", where)
        drawn = parts.pop("arrivals", None)
        arrivals = None if drawn is None else _part(drawn, _ARRIVALS, "arrivals", where)
        plain = from_mapping(_Plain, parts, where=where)
        return cls(lengths=lengths, arrivals=arrivals, **asdict(plain))


@dataclass(frozen=True, kw_only=True)
class _Plain:
    num_prompts: int = PRESET_REQUESTS
    seed: int = 0
    name: str = "generated"


_ARRIVALS = (AllAtOnce, ConstantArrivals, PoissonArrivals, GammaArrivals, TraceArrivals)
_LENGTHS = (FixedLengths, UniformLengths, ZipfLengths, LognormalLengths, TraceLengths)


def _part(part: Any, kinds: tuple[type[Any], ...], key: str, where: str | PathLike[str]) -> Any:
    named = {kind.kind: kind for kind in kinds}
    if not isinstance(part, Mapping) or str(part.get("kind")) not in named:
        what = f"key {key!r} holds {shown(part)}"
        raise InputError(what, where=where, expected=f"an object whose kind is one of {', '.join(named)}")
    values = {name: value for name, value in part.items() if name != "kind"}
    return from_mapping(named[str(part["kind"])], values, where=f"{where}, {key}")


def generate(settings: GeneratorSettings) -> Workload:
    """Return the workload that ``settings`` describe; the same settings give the same workload.

    Raises
    ------
    InputError
        If a trace that the settings name cannot be read, or no distribution has their percentiles.
    """
    for_arrivals, for_lengths = np.random.SeedSequence(settings.seed).spawn(2)
    count = settings.num_prompts
    prompt, output = settings.lengths.draw(count, np.random.default_rng(for_lengths))
    arrivals = AllAtOnce() if settings.arrivals is None else settings.arrivals
    return Workload(
        name=settings.name,
        arrival_s=arrivals.draw(count, np.random.default_rng(for_arrivals)),
        prompt_tokens=prompt,
        output_tokens=output,
        timed=settings.arrivals is not None,
    )
