"""The two ceilings of a device, measured: bytes/s of copies and FLOP/s of matrix products."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.stopwatch import CudaStopwatch, cpu_seconds

FLUSH_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What no kernel beats: ``copy_bytes_per_s`` counts reads and writes, ``flops_per_s`` is of square products."""

    copy_bytes_per_s: float
    flops_per_s: float

    def floor_s(self, size_bytes: float, flops: float) -> float:
        """Return the least seconds that moving ``size_bytes`` and computing ``flops`` takes."""
        return max(size_bytes / self.copy_bytes_per_s, flops / self.flops_per_s)


class Timer:
    """Median seconds of calls on one device: events behind a flush of the caches on CUDA, the clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._watch = CudaStopwatch(FLUSH_BYTES, device) if device.type == "cuda" else None

    def __call__(self, run: Callable[[], object], repeats: int = 16) -> float:
        """Return the median of ``repeats`` calls, after one that does not count."""
        with torch.inference_mode():
            run()
            seconds: Sequence[float] = (
                cpu_seconds(run, repeats) if self._watch is None else self._watch.seconds(run, repeats)
            )
        return statistics.median(seconds)


def measure_ceilings(device: torch.device, timer: Timer, *, quick: bool) -> Ceilings:
    """Return the ceilings of ``device``: bfloat16 products on CUDA, float32 ones on a CPU."""
    on_cuda = device.type == "cuda"
    dtype = torch.bfloat16 if on_cuda else torch.float32
    size_bytes, side = (2**24, 256) if quick else (2**32, 8192) if on_cuda else (2**28, 1024)
    source = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = timer(lambda: target.copy_(source))
    a_mk, b_kn = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product_s = timer(lambda: a_mk @ b_kn)
    return Ceilings(copy_bytes_per_s=2 * size_bytes / copy_s, flops_per_s=2 * side**3 / product_s)


def open_device(name: str) -> torch.device:
    """Return the device ``name``, one thread computing on a CPU; InputError where it is not there."""
    from engine.loading import check_device

    check_device(name)
    torch.set_num_threads(1)
    return torch.device(name)


def device_facts(device: torch.device) -> dict[str, str]:
    """Return the device's name, its clocks and power, and the versions of what runs on it."""
    from importlib.metadata import PackageNotFoundError, version

    from engine import hardware

    facts = {"device": hardware.cpu_name(), "clock": hardware.cpu_clocks()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts = {"device": properties.name, **hardware.gpu_state(f"GPU-{properties.uuid}")}
    facts |= hardware.versions()
    for library in ("transformers", "triton", "numpy"):
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            facts[library] = "not installed"
    return facts
