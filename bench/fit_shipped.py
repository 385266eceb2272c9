"""Fit again the coefficients that ship with the package, from the published tables: ``bench/fit_shipped.py``.

The same tables and library versions give the same bytes. Run it from the root of the repository; the tables are
looked for in ``$CHARIOTEER_DATA/profiles``, by default ``../shared/data/profiles``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from profiler.device import load_device  # noqa: E402
from profiler.fit import fit  # noqa: E402
from profiler.fit_table import errors_table  # noqa: E402
from profiler.fitted import FittedDevice  # noqa: E402
from profiler.importers import import_tables  # noqa: E402
from profiler.profile import Profile  # noqa: E402

TABLES = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data")) / "profiles"
FITTED = ROOT / "profiler" / "fitted"
COMMITS = {
    "aiconfigurator": "095f58a",
    "llmservingsim": "5daddb2",
    "llmservingsim_v0": "5daddb2",
    "vidur": "7d47513",
}
"""The versions of the publishers' repositories that the tables were taken from."""


@dataclass(frozen=True)
class Part:
    """Ops taken from one folder of tables; of another device they are fitted to its datasheet and borrowed."""

    folder: str
    ops: tuple[str, ...]
    device: str
    why: str = ""


SHIPPED: Mapping[str, Sequence[Part]] = {
    "a100-sxm": (
        Part("aiconfigurator/a100_sxm", ("gemm", "prefill_attention", "decode_attention", "all_reduce"), "a100-sxm"),
        Part("vidur/compute/a100", ("elementwise",), "a100-sxm"),
        Part("vidur/network/a100_dgx", ("send",), "a100-sxm"),
    ),
    "h100": (
        Part("aiconfigurator/h100_sxm", ("gemm", "prefill_attention", "decode_attention", "all_reduce"), "h100"),
        Part(
            "llmservingsim/RTX4090/meta-llama/Llama-3.1-8B/bf16/tp1",
            ("elementwise",),
            "rtx-4090",
            "no table of the H100 holds elementwise ops; these are the fused ones of a current engine",
        ),
    ),
    "a6000": (
        Part(
            "llmservingsim_v0/A6000",
            ("gemm", "prefill_attention"),
            "a6000",
            "its elementwise rows are eager mode (a norm at a tenth of the memory bandwidth), most of its decode "
            "attention beats the memory bandwidth: neither is used",
        ),
        Part("vidur/compute/a40", ("elementwise",), "a40", "the A40 is the same chip, and its table is of fused ops"),
    ),
}


def fit_device(name: str) -> FittedDevice:
    """Return the coefficients of one device, merged from its parts."""
    parts = [(part, _profile(part)) for part in SHIPPED[name]]
    fits = [(part, fit(profile, load_device(part.device))) for part, profile in parts]
    ops = {op: fitted for _, part_fit in fits for op, fitted in part_fit.ops.items()}
    borrowed = {op: part.device for part, part_fit in fits if part.device != name for op in part_fit.ops}
    measurements = [_origin(part, profile) for part, profile in parts]
    origin = {**fits[0][1].origin, "measurements": measurements}
    return replace(fits[0][1], ops=ops, borrowed=borrowed, origin=origin)


def _profile(part: Part) -> Profile:
    profile = import_tables(TABLES / part.folder, part.device)
    kept = np.isin(np.asarray(profile.table["op"].to_pylist()), part.ops)
    return Profile(profile.meta, profile.table.filter(pa.array(kept)))


def _origin(part: Part, profile: Profile) -> dict[str, object]:
    meta = profile.meta
    family = part.folder.split("/")[0]
    origin: dict[str, object] = {
        "source": f"{meta['source']}, commit {COMMITS[family]}, {part.folder}",
        "device_name": meta["device_name"],
        "versions": dict(meta["versions"]),
        "timed_by": meta["timed_by"],
        "ops": list(part.ops),
        "rows": profile.table.num_rows,
        "refused": dict(meta["refused"]),
    }
    return {**origin, "note": part.why} if part.why else origin


def main() -> None:
    """Fit all shipped devices, or those named on the command line; print their errors and sizes."""
    from rich.console import Console

    console = Console()
    for name in sys.argv[1:] or SHIPPED:
        fitted = fit_device(name)
        path = FITTED / f"{name}.json"
        fitted.save(path)
        console.print(errors_table(fitted))
        console.print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
