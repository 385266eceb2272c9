"""A profile as people read it: rows and reach of each op, and what was refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.profile import OPS
from traces.command_line import new_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from profiler.profile import Profile


def summary(profile: Profile) -> dict[str, Any]:
    """Return what :func:`print_profile` prints, as JSON."""
    return {
        "device": profile.meta["device"],
        "device_name": profile.meta["device_name"],
        "model": profile.meta["model"],
        "dtype": profile.meta["dtype"],
        "rows": profile.table.num_rows,
        "ops": [_facts(profile, op) for op in OPS if op in profile.table["op"].to_pylist()],
        "refused": dict(profile.meta["refused"]),
        "plan": dict(profile.meta["plan"]),
        "ceilings": dict(profile.meta["ceilings"]),
    }


def _facts(profile: Profile, op: str) -> dict[str, Any]:
    rows = np.asarray(profile.table["op"].to_pylist(), dtype=np.str_) == op
    time_s, spread_s = (profile.table[name].to_numpy()[rows] for name in ("time_s", "spread_s"))
    known = np.isfinite(spread_s)
    return {
        "op": op,
        "rows": int(rows.sum()),
        "shortest_s": float(time_s.min()),
        "longest_s": float(time_s.max()),
        "median_spread": float(np.median(spread_s[known] / time_s[known])) if known.any() else None,
    }


def print_profile(console: Console, profile: Profile, folder: Path) -> None:
    """Print the ops of a profile, what was refused and why, and where it was written."""
    facts = summary(profile)
    of_model = f", {facts['model']}" if facts["model"] else ""
    console.print(f"[bold]{facts['device']}[/] ({facts['device_name']}{of_model}, {facts['dtype']})", highlight=False)
    console.print(_ops_table(facts))
    if facts["refused"]:
        console.print(_refused_table(facts))
    if facts["plan"]:
        console.print(_plan(facts["plan"]), highlight=False)
    measured = {name: value for name, value in facts["ceilings"].items() if name.startswith("measured_")}
    if measured:
        console.print(_rates(measured), highlight=False)
    console.print(f"written: {folder}", highlight=False, soft_wrap=True)


def _ops_table(facts: dict[str, Any]) -> Table:
    table = new_table("", "op", "rows", "shortest", "longest", "spread")
    for op in facts["ops"]:
        spread = "unknown" if op["median_spread"] is None else f"{op['median_spread']:.1%}"
        table.add_row(op["op"], f"{op['rows']:,}", _time(op["shortest_s"]), _time(op["longest_s"]), spread)
    return table


def _refused_table(facts: dict[str, Any]) -> Table:
    table = new_table("", "left out", "rows")
    for reason, count in facts["refused"].items():
        table.add_row(reason, f"{count:,}")
    return table


def _plan(plan: dict[str, Any]) -> str:
    visits = ", ".join(f"{count:,} {why}" for why, count in plan["visits"].items())
    return f"plan: {len(plan['rounds'])} rounds; visits by reason: {visits}"


def _rates(measured: dict[str, float]) -> str:
    copy, read = measured["measured_copy_bytes_per_s"], measured["measured_read_bytes_per_s"]
    product = measured["measured_product_flops"]
    moves = f"copy {copy / 1e9:,.1f} GB/s, read {read / 1e9:,.1f} GB/s"
    return f"{moves}, matrix product {product / 1e9:,.0f} GFLOP/s"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms"
