"""How far physics fitted on one device misses the tables of another: ``bench/transfer.py``.

Each table is predicted by physics alone (as the package transfers it) and with the source's residual, which does
not transfer. The last lines pool the transfers that the package makes, each target weighing the same; they are
the numbers in ``profiler/transfer.py``. Tables: ``$CHARIOTEER_DATA/profiles``, by default
``../shared/data/profiles``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from profiler.device import load_device  # noqa: E402
from profiler.fit import rows_of, trusted  # noqa: E402
from profiler.importers import import_tables  # noqa: E402
from profiler.op import OPS  # noqa: E402
from profiler.tile import Floats  # noqa: E402
from profiler.transfer import by_distance, load_shipped, shipped_names  # noqa: E402

TABLES = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data")) / "profiles"
TARGETS: Mapping[str, str] = {
    "aiconfigurator/a100_sxm": "a100-sxm",
    "vidur/compute/a40": "a40",
    "llmservingsim_v0/A6000": "a6000",
    "aiconfigurator/h100_sxm": "h100",
    "llmservingsim/RTX4090": "rtx-4090",
    "llmservingsim/RTXPRO6000": "rtx-pro-6000",
}
FEWEST_ROWS = 20


def main() -> None:
    """Print each transfer, then the pool."""
    pool: dict[str, list[tuple[Floats, Floats]]] = {}
    print(f"{'op':18} {'source -> target':26} {'rows':>6}  physics: median P90 by time bias | with residual: ...")
    for folder, target in TARGETS.items():
        profile = import_tables(TABLES / folder, target)
        for op in OPS.values():
            shape, time_s = rows_of(profile.table, op)
            eager = (target, op.name) == ("a6000", "elementwise")
            if len(time_s) < FEWEST_ROWS or eager or not trusted(profile, op.name):
                continue
            sources = [name for name in shipped_names() if op.name in load_shipped(name).ops and name != target]
            for source in sources:
                fitted = load_shipped(source).ops[op.name]
                made = [each.predict(shape, load_device(target)) for each in (fitted.physics_only(), fitted)]
                cells = " | ".join(_cell(time_s, predicted) for predicted in made)
                print(f"{op.name:18} {source + ' -> ' + target:26} {len(time_s):6}  {cells}", flush=True)
                if source == _nearest(target, op.name) and load_shipped(source).borrowed.get(op.name) != target:
                    pool.setdefault(op.name, []).append((time_s, made[0]))
    for name, pairs in pool.items():
        misses = [np.abs(np.log(measured / predicted)) for measured, predicted in pairs]
        bands = [np.mean([np.quantile(miss, share) for miss in misses]) for share in (0.5, 0.8, 0.9, 0.95, 0.99)]
        errors = np.mean([_errors(measured, predicted) for measured, predicted in pairs], axis=0)
        rows = sum(len(measured) for measured, _ in pairs)
        shown = [", ".join(f"{value:.3f}" for value in values) for values in (errors, bands)]
        print(f"{name}: {len(pairs)} transfers, {rows} rows: median, P90, by time {shown[0]}; bands {shown[1]}")


def _nearest(target: str, op: str) -> str:
    names = [name for name in by_distance(load_device(target), op) if name != target]
    return next(name for name in names if op in load_shipped(name).ops)


def _errors(measured: Floats, predicted: Floats) -> list[float]:
    share = np.abs(predicted / measured - 1)
    by_time = np.abs(predicted - measured).sum() / measured.sum()
    return [float(np.median(share)), float(np.quantile(share, 0.9)), float(by_time)]


def _cell(measured: Floats, predicted: Floats) -> str:
    shown = " ".join(f"{100 * value:6.1f}" for value in _errors(measured, predicted))
    return f"{shown} {100 * np.median(predicted / measured - 1):+6.1f}"


if __name__ == "__main__":
    main()
