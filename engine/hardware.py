"""What this machine is: its processor or GPU, driver, clocks, caches, memory."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

SMI_FIELDS = ("driver_version", "clocks.sm", "clocks.mem", "clocks_throttle_reasons.active", "power.limit")
CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CPU_TIMES = Path("/proc/stat")
DEFAULT_CACHE_BYTES = 32 * 2**20
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def versions() -> dict[str, str]:
    """Return the versions of what runs the kernels."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda is not None and torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
    return found


def package_version(name: str) -> str:
    """Return the version of an installed package, or that it is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """Return what a device calls itself, a processor with the threads that compute on it."""
    if device.type == "cpu":
        return f"{cpu_name()}, threads: {torch.get_num_threads()}"
    return torch.cuda.get_device_name(device)


def cpu_clocks() -> str:
    """Return the rate at which the first core runs at this moment, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    rate = next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("cpu mhz")), "")
    return f"{float(rate):.0f} MHz" if rate else ""


def cpu_cache_bytes() -> int:
    """Return the size of the last cache, or a plain default where the system does not tell."""
    sizes = []
    for path in CPU_CACHES.glob("index*/size"):
        text = path.read_text(encoding="utf-8").strip()
        sizes.append(int(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else int(text))
    return max(sizes, default=DEFAULT_CACHE_BYTES)


def cpu_memory_bytes() -> int:
    """Return the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def others_busy_s() -> float | None:
    """Return the seconds for which processors have run anything but this process, since the machine started.

    All processors add up; None where the system does not tell.
    """
    try:
        columns = CPU_TIMES.read_text(encoding="utf-8").splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return None
    user, nice, system, _, _, interrupts, soft = (int(column) for column in columns[:7])
    own = os.times()
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def gpu_state(identity: str) -> dict[str, str]:
    """Return :data:`SMI_FIELDS` of the GPU ``identity``, or nothing where ``nvidia-smi`` is not there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--id={identity}", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (subprocess.SubprocessError, OSError):
        return {}
    return dict(zip(SMI_FIELDS, (value.strip() for value in done.stdout.split(",")), strict=False))
