"""Devices: what a datasheet says of a GPU, or a plain default for a CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path

from traces.errors import InputError
from traces.files import read_json
from traces.settings import from_mapping

ARCHITECTURES = ("ampere", "ada", "hopper", "blackwell", "cpu")
PRESETS = "presets/devices"


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU (or one CPU), with how it is linked to its neighbours.

    Attributes
    ----------
    name, title
        The short name of the preset; the name people use.
    architecture
        One of :data:`ARCHITECTURES`.
    peak_flops
        Dense 16-bit tensor rate with 32-bit accumulation, FLOP/s, no sparsity.
    memory_bandwidth_bytes_per_s, memory_bytes
        Of the device's own memory; the size is what programs can get.
    sms
        Streaming multiprocessors; threads that compute, on a CPU.
    l2_bytes
        The last cache before memory.
    link_bandwidth_bytes_per_s, link_gpus
        One direction of NVLink, or of PCIe where there is none; how many GPUs share that link.
    pcie_bandwidth_bytes_per_s
        One direction to any other GPU of the node.
    internode_bandwidth_bytes_per_s
        One direction to a GPU of another node.
    driver_names
        What the driver calls this device.
    sources
        Where the figures come from.
    """

    name: str
    title: str
    architecture: str
    peak_flops: float
    memory_bandwidth_bytes_per_s: float
    memory_bytes: int
    sms: int
    l2_bytes: int
    link_bandwidth_bytes_per_s: float
    link_gpus: int
    pcie_bandwidth_bytes_per_s: float
    internode_bandwidth_bytes_per_s: float
    driver_names: tuple[str, ...] = ()
    sources: str

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is {self.architecture!r}; expected one of {', '.join(ARCHITECTURES)}")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; expected a positive number")

    @property
    def is_cpu(self) -> bool:
        """Whether this is a CPU."""
        return self.architecture == "cpu"

    def bandwidth_between(self, gpus: int) -> float:
        """Return bytes/s, one direction, of the slowest hop among ``gpus`` GPUs of one node."""
        return self.link_bandwidth_bytes_per_s if gpus <= self.link_gpus else self.pcie_bandwidth_bytes_per_s


def device_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(entry.name.removesuffix(".json") for entry in files("profiler").joinpath(PRESETS).iterdir())


def load_device(name_or_path: str | PathLike[str]) -> Device:
    """Return a preset by its name, or the device that a JSON file describes.

    Raises
    ------
    InputError
        For an unknown name, or a file with an unknown or missing key or a value out of range.
    """
    text = fspath(name_or_path)
    if text in device_names():
        path = Path(str(files("profiler").joinpath(PRESETS, f"{text}.json")))
    elif text.endswith(".json") or "/" in text:
        path = Path(text)
    else:
        wish = f"one of {', '.join(device_names())}, or a JSON file"
        raise InputError(f"unknown device {text!r}", expected=wish)
    return from_mapping(Device, read_json(path), where=path)


def device_called(name: str) -> Device | None:
    """Return the preset of the device that a driver or a folder calls ``name``, if there is one.

    Case, spaces and punctuation do not count: ``RTX4090``, ``a100_sxm`` and ``NVIDIA H100 80GB HBM3`` are
    known.
    """
    wanted = _plain(name)
    for preset in map(load_device, device_names()):
        if wanted in {_plain(alias) for alias in (preset.name, preset.title, *preset.driver_names)}:
            return preset
    return None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
