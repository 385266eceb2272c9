"""What was run, on what, and where its times come from, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.scoreboard import three_digits
from traces.run_record import ReplicaGroup, RunMeta, RunRecord


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the times of a run come from; ``caution`` where they rest on another device's measurements."""

    text: str
    caution: bool


def provenance(meta: RunMeta) -> Provenance:
    """Say where the times of a run come from."""
    each = dict.fromkeys(_source(group.cost_model) for group in meta.groups)
    return Provenance(text=" ".join(one.text for one in each), caution=any(one.caution for one in each))


def _source(model: Mapping[str, Any] | None) -> Provenance:
    if model is None:
        return Provenance(text="Measured: the requests ran on a real engine.", caution=False)
    device, source = str(model.get("device", "?")), str(model.get("from", "?"))
    if model.get("transferred"):
        there = f"only {', '.join(model['measured'])}" if model.get("measured") else "nothing"
        text = (
            f"Simulated by transfer: {there} was measured on {device}. Its iteration times come from "
            f"measurements of {source}, scaled by the data sheets of the two devices."
        )
        return Provenance(text=text + _borrowed(model), caution=True)
    text = f"Simulated: iteration times come from a cost model fitted to measurements of {source}."
    return Provenance(text=text + _borrowed(model), caution=False)


def band_note(meta: RunMeta) -> str:
    """Say how sure the iteration times of a run are, "" where that is not known."""
    return _of_groups(meta, _band)


def _band(group: ReplicaGroup) -> str:
    band = (group.cost_model or {}).get("interval")
    if not isinstance(band, Mapping) or not {"low", "high", "coverage"} <= band.keys():
        return ""
    low, high = (f"{100 * (band[side] - 1):+.1f} %" for side in ("low", "high"))
    return f"{100 * band['coverage']:.3g} % band of an iteration's time, by errors on rows held out: {low} to {high}."


def range_note(meta: RunMeta) -> str:
    """Say how much of a run rests on batches outside of what was measured and where they leave it, "" if none does."""
    return _of_groups(meta, _outside)


def _outside(group: ReplicaGroup) -> str:
    known = (group.cost_model or {}).get("profiled_range")
    if not isinstance(known, Mapping) or not known.get("iterations_share"):
        return ""
    left = "; ".join(str(limit["said"]) for limit in known.get("limits", ()) if limit.get("said") is not None)
    iterations, time = (f"{100 * known.get(f'{name}_share', 0):.3g} %" for name in ("iterations", "time"))
    return f"{iterations} of iterations, {time} of their time, outside the profiled range: {left}."


def _of_groups(meta: RunMeta, make: Callable[[ReplicaGroup], str], between: str = " ") -> str:
    """Return what there is to say of the groups of replicas: once, or where they differ of each."""
    texts = [make(group) for group in meta.groups]
    if len(set(texts)) == 1:
        return texts[0]
    return between.join(f"{group_name(group)}: {text}" for group, text in zip(meta.groups, texts, strict=True) if text)


def group_name(group: ReplicaGroup) -> str:
    """Return what a group is called beside others: 4 prefill h100."""
    role = "" if group.role == "both" else f"{group.role} "
    return f"{group.count:,} {role}{group.deployment.get('device', '?')}"


def _borrowed(model: Mapping[str, Any]) -> str:
    borrowed = model.get("borrowed")
    if not isinstance(borrowed, Mapping) or not borrowed:
        return ""
    ops = ", ".join(f"{op} from {source}" for op, source in borrowed.items())
    return f" Not measured there, and taken over: {ops}."


def facts(runs: Mapping[str, RunRecord]) -> list[tuple[str, str]]:
    """Return what was run as (name, text), where the runs differ one text for each."""
    makers: dict[str, Callable[[RunMeta], str]] = {
        "Workload": _workload,
        "Model": _model,
        "Device": _device,
        "Parallelism": _parallelism,
        "Cluster": _cluster,
        "Failures": _failures,
        "KV cache": _kv_cache,
        "Longest request": lambda meta: _of_groups(meta, _longest, "; "),
        "Peak": _peak,
        "Seed": lambda meta: "none" if meta.seed is None else str(meta.seed),
        "Made with": lambda meta: ", ".join(f"{name} {version}" for name, version in meta.versions.items()),
    }
    texts = {name: [make(run.meta) for run in runs.values()] for name, make in makers.items()}
    return [(name, _joined(list(runs), each)) for name, each in texts.items() if any(each)]


def policy_settings(runs: Mapping[str, RunRecord]) -> list[tuple[str, str]]:
    """Return the settings of each run's policy as (label, text)."""
    return [
        (label, ", ".join(f"{key} = {value}" for key, value in run.meta.policy.items())) for label, run in runs.items()
    ]


def headline(run: RunRecord) -> str:
    """Say in two lines what was run, on what, and where the times come from."""
    meta = run.meta
    where = f"{_model(meta)} on {_device(meta)}, {_parallelism(meta)}"
    parts = [_workload(meta), where, _cluster(meta), _kv_cache(meta)]
    return f"{' · '.join(part for part in parts if part)}\n{provenance(meta).text}"


def sureness(runs: Mapping[str, RunRecord]) -> list[tuple[str, bool]]:
    """Return what is to be said of how sure simulated times are, each with whether it is a caution."""
    found = []
    for note, caution in ((band_note, False), (range_note, True)):
        texts = {label: note(run.meta) for label, run in runs.items()}
        one = len(set(texts.values())) == 1
        told = [text if one else f"{label}: {text}" for label, text in texts.items() if text]
        found += [(text, caution) for text in dict.fromkeys(told)]
    return found


def _joined(labels: Sequence[str], texts: Sequence[str]) -> str:
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{label}: {text or 'none'}" for label, text in zip(labels, texts, strict=True))


def _workload(meta: RunMeta) -> str:
    requests, rate = meta.workload.get("requests"), meta.workload.get("rate_per_s")
    parts = [str(meta.workload.get("name", "?"))]
    parts += [f"{requests:,} requests"] if isinstance(requests, int) else []
    parts += [f"{three_digits(rate)}/s"] if isinstance(rate, int | float) else []
    return ", ".join(parts)


def _model(meta: RunMeta) -> str:
    return _of_groups(meta, lambda group: str(group.deployment.get("model", "?")), "; ")


def _device(meta: RunMeta) -> str:
    gpus: dict[str, int] = {}
    for group in meta.groups:
        device = str(group.deployment.get("device", "?"))
        gpus[device] = gpus.get(device, 0) + group.count * group.gpus
    return " + ".join(f"{count:,} x {device}" for device, count in gpus.items())


def _parallelism(meta: RunMeta) -> str:
    return _of_groups(meta, _ways, "; ")


def _ways(group: ReplicaGroup) -> str:
    return f"TP {group.deployment.get('tensor_parallel_size', 1)}, PP {group.stages}"


def _cluster(meta: RunMeta) -> str:
    """Say how many replicas there are, of which roles, behind which router; "" for a single one."""
    if meta.replicas == 1:
        return ""
    roles: dict[str, int] = {}
    for group in meta.groups:
        roles[group.role] = roles.get(group.role, 0) + group.count
    counts = [
        f"{count:,} {'' if role == 'both' else role + ' '}replica{'' if count == 1 else 's'}"
        for role, count in roles.items()
    ]
    router = f", {meta.router.get('name', '?')}" if meta.router else ""
    return " + ".join(counts) + router


def _failures(meta: RunMeta) -> str:
    if not meta.failures:
        return ""
    down = len({failure.replica for failure in meta.failures})
    return f"{len(meta.failures):,}, of {down:,} of {meta.replicas:,} replicas"


def _kv_cache(meta: RunMeta) -> str:
    each = " a replica" if meta.replicas > 1 else ""
    return _of_groups(meta, lambda group: _blocks(group.kv_blocks, meta.block_size) + each, "; ")


def _blocks(blocks: int, block_size: int) -> str:
    return f"{blocks:,} KV blocks of {block_size} ({blocks * block_size:,} tokens)"


def _longest(group: ReplicaGroup) -> str:
    count = group.deployment.get("max_model_len")
    return f"{count:,} tokens" if isinstance(count, int) else ""


def _peak(meta: RunMeta) -> str:
    return _of_groups(meta, _peak_of, "; ")


def _peak_of(group: ReplicaGroup) -> str:
    return "" if group.peak_flops is None else f"{three_digits(group.peak_flops / 1e12)} TFLOP/s a replica"
