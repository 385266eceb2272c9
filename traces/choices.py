"""Which settings the options of ``python -m traces generate`` mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from traces.arrivals import (
    AllAtOnce,
    Arrivals,
    ConstantArrivals,
    GammaArrivals,
    PoissonArrivals,
    TraceArrivals,
    arrivals_at,
)
from traces.errors import InputError
from traces.generator import GeneratorSettings
from traces.lengths import (
    FixedLengths,
    LengthSettings,
    LognormalLengths,
    TraceLengths,
    UniformLengths,
    ZipfLengths,
)
from traces.presets import PRESET_REQUESTS, preset_lengths, preset_names

LENGTHS: Mapping[str, tuple[type[Any], Mapping[str, str]]] = {
    "fixed": (FixedLengths, {"prompt_tokens": "--input-len", "output_tokens": "--output-len"}),
    "uniform": (
        UniformLengths,
        {
            "prompt_min": "--input-len-min",
            "prompt_max": "--input-len-max",
            "output_min": "--output-len-min",
            "output_max": "--output-len-max",
        },
    ),
    "zipf": (
        ZipfLengths,
        {
            "theta": "--zipf-theta",
            "total_min": "--total-len-min",
            "total_max": "--total-len-max",
            "prompt_to_output": "--prompt-to-output",
        },
    ),
    "lognormal": (
        LognormalLengths,
        {
            "prompt_p50": "--input-len-p50",
            "prompt_p90": "--input-len-p90",
            "output_p50": "--output-len-p50",
            "output_p90": "--output-len-p90",
            "total_max": "--total-len-max",
        },
    ),
    "trace": (TraceLengths, {"path": "--lengths-from"}),
}
ARRIVALS: Mapping[str, tuple[type[Any], Mapping[str, str]]] = {
    "poisson": (PoissonArrivals, {"request_rate": "--request-rate"}),
    "gamma": (GammaArrivals, {"request_rate": "--request-rate", "burstiness": "--burstiness"}),
    "constant": (ConstantArrivals, {"request_rate": "--request-rate"}),
    "all-at-once": (AllAtOnce, {}),
    "trace": (TraceArrivals, {"path": "--arrivals-from", "request_rate": "--request-rate"}),
}


def chosen_settings(whole: Mapping[str, Any], *, when: Mapping[str, Any], what: Mapping[str, Any]) -> GeneratorSettings:
    """Return the settings that options mean.

    Parameters
    ----------
    whole
        Those of --num-prompts, --seed, --lengths and --arrivals that were given, with their values.
    when, what
        The options given about arrivals and about lengths.

    Raises
    ------
    InputError
        For an unknown kind, an option that is not the chosen kind's, or one that it needs and was not given.
    """
    kind = whole.get("--lengths") or _meant(what)
    return GeneratorSettings(
        lengths=_lengths(kind, what),
        arrivals=_arrivals(whole.get("--arrivals"), when),
        num_prompts=whole.get("--num-prompts", PRESET_REQUESTS),
        seed=whole.get("--seed", 0),
        name=kind,
    )


def _meant(what: Mapping[str, Any]) -> str:
    if not what:
        return preset_names()[0]
    kinds = [kind for kind, (_, options) in LENGTHS.items() if set(what) <= set(options.values())]
    if len(kinds) != 1:
        offered = ", ".join((*preset_names(), *LENGTHS))
        raise InputError(f"{' and '.join(what)} without --lengths", expected=f"--lengths, one of {offered}")
    return kinds[0]


def _lengths(kind: str, what: Mapping[str, Any]) -> LengthSettings:
    if kind in preset_names():
        _refuse_others(f"--lengths {kind}", what, ())
        return preset_lengths(kind)
    made: LengthSettings = _made("--lengths", kind, LENGTHS, what, preset_names())
    return made


def _arrivals(kind: str | None, when: Mapping[str, Any]) -> Arrivals | None:
    if kind is None and "--arrivals-from" not in when:
        return arrivals_at(when.get("--request-rate"), when.get("--burstiness", 1.0))
    made: Arrivals = _made("--arrivals", kind or "trace", ARRIVALS, when, ())
    return made


def _made(
    option: str,
    kind: str,
    kinds: Mapping[str, tuple[type[Any], Mapping[str, str]]],
    given: Mapping[str, Any],
    others: tuple[str, ...],
) -> Any:
    if kind not in kinds:
        raise InputError(f"unknown {kind!r}", where=option, expected=f"one of {', '.join((*others, *kinds))}")
    cls, options = kinds[kind]
    _refuse_others(f"{option} {kind}", given, tuple(options.values()))
    needed = [options[field.name] for field in fields(cls) if field.default is MISSING]
    missing = [name for name in needed if name not in given]
    if missing:
        raise InputError(f"{missing[0]} is missing", where=f"{option} {kind}", expected=" and ".join(needed))
    try:
        return cls(**{field: given[name] for field, name in options.items() if name in given})
    except InputError as error:
        raise InputError(str(error), where=f"{option} {kind}") from error


def _refuse_others(where: str, given: Mapping[str, Any], own: tuple[str, ...]) -> None:
    for name in given:
        if name not in own:
            wish = f"its own: {', '.join(own)}" if own else "no option of another kind"
            raise InputError(f"{name} is not one of its options", where=where, expected=wish)
