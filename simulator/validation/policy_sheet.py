"""What the validation of a search's prediction found as rows of text, for the terminal and for the report alike."""

from __future__ import annotations

from collections.abc import Mapping

from policies.prediction import Interval
from simulator.validation.policy_validation import JudgedSetting, PolicyValidation, Promise
from simulator.validation.policy_verdict import shown
from simulator.validation.sheet import NONE, Sheet, workload_text
from simulator.validation.verdict import percent

PLACES = {"inside": "inside", "above": "above", "below": "below", None: NONE}


def setting_sheet(setting: JudgedSetting) -> Sheet:
    """Return every predicted metric of a setting beside the measured value."""
    paced = any(each.at_pace is not None for each in setting.promises)
    drift = "" if setting.drift is None else f", machine {percent(setting.drift)}"
    return Sheet(
        title=f"{setting.label}{drift}",
        note="",
        columns=(
            *("", "predicted", "low", "high", "measured", "it lies"),
            *(("at the machine's pace\nlow", "\nhigh", "\nit lies") if paced else ()),
        ),
        rows=tuple(_row(each, paced=paced) for each in setting.promises),
        short=frozenset((row, 5) for row, each in enumerate(setting.promises) if each.known and each.place != "inside"),
    )


def _row(promise: Promise, *, paced: bool) -> tuple[str, ...]:
    name, predicted = promise.metric, promise.predicted
    own = (shown(name, predicted.value), *_ends(name, predicted), shown(name, promise.value))
    there = PLACES[promise.place if promise.known else None]
    if not paced:
        return (name, *own, there)
    return (name, *own, there, *_ends(name, promise.at_pace), PLACES[promise.place_at_pace if promise.known else None])


def _ends(name: str, interval: Interval | None) -> tuple[str, str]:
    return (NONE, NONE) if interval is None else (shown(name, interval.low), shown(name, interval.high))


def order_sheet(validation: PolicyValidation) -> Sheet:
    """Return, for each two settings, which one is better as predicted and as measured."""
    rows = tuple(
        (
            f"{each.one} or {each.other}",
            each.by or NONE,
            each.predicted or NONE,
            each.measured or NONE,
            "yes" if each.agrees else "no",
        )
        for each in validation.preferences
    )
    return Sheet(
        title="Which is better?",
        note=(
            "By the first figure in which both tell the two apart: more than 5 % from each other, and every replay "
            "of one better than every replay of the other."
        ),
        columns=("settings", "by", "predicted", "measured", "agrees"),
        rows=rows,
        short=frozenset((row, 4) for row, cells in enumerate(rows) if cells[4] == "no"),
    )


def policy_provenance_rows(validation: PolicyValidation) -> list[tuple[str, str]]:
    """Return what was run, on what, as (name, text)."""
    known, deployment = validation.provenance, validation.provenance["deployment"]
    objective: Mapping[str, object] = known["objective"]
    return [
        ("Model", f"{deployment.get('model', '?')}, {deployment.get('dtype') or 'its own type'}"),
        ("Device", str(known["versions"].get("device", deployment.get("device", "?")))),
        ("KV cache", f"{known['kv_blocks']:,} blocks of {known['block_size']}"),
        ("Workload", workload_text(known["workload"])),
        ("Replays of each setting", str(known["replays"])),
        ("Profile", str(known["profile"] or "ships with the package")),
        *([("Objective", str(objective["name"]))] if "name" in objective else []),
        *([("SLO", str(known["slo"]))] if known["slo"] else []),
        *([("Why it won", str(known["why"]))] if known["why"] else []),
    ]
