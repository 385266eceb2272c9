"""What moving activations between GPUs costs: all-reduces of tensor parallelism, sends of pipeline stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, Floats]
OP = "all_reduce"
KEYS = ("gpus", "size_bytes")
NAMES = ("launch", "per_gpu", "link_bytes")
SEND = "send"
SEND_NAMES = ("launch", "link_bytes")


def terms(shape: Shape, device: Device) -> Floats:
    """Return [rows, terms] in seconds for an all-reduce over n GPUs of ``size_bytes`` on each.

    A launch, a microsecond for each other GPU, and the ring's 2 (n - 1) / n of the bytes at its slowest hop's rate: the
    link's, that of any two GPUs of a node, or the network's where ``shape`` says that there are more GPUs than
    ``gpus_per_node``, which it may leave out.
    """
    gpus, size_bytes = shape["gpus"], shape["size_bytes"]
    moved = 2 * (gpus - 1) / gpus * size_bytes
    rate = np.where(gpus <= device.link_gpus, device.link_bandwidth_bytes_per_s, device.pcie_bandwidth_bytes_per_s)
    rate = np.where(gpus <= shape.get("gpus_per_node", gpus), rate, device.internode_bandwidth_bytes_per_s)
    columns = [np.full_like(moved, 1e-6), 1e-6 * (gpus - 1), moved / rate]
    return np.stack(columns, axis=1)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of one all-reduce."""
    return np.asarray(terms(shape, device) @ [coefficients[name] for name in NAMES], dtype=np.float64)


def send_terms(shape: Shape, device: Device) -> Floats:
    """Return [rows, terms] in seconds: a launch, and the bytes at the link's rate."""
    size_bytes = np.asarray(shape["size_bytes"], float)
    return np.stack([np.full_like(size_bytes, 1e-6), size_bytes / device.link_bandwidth_bytes_per_s], axis=1)


def send_physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds of sending ``size_bytes`` to the GPU of the next stage."""
    return np.asarray(send_terms(shape, device) @ [coefficients[name] for name in SEND_NAMES], dtype=np.float64)


def axis(shape: Shape) -> Floats:
    """Return where a row lies on its curve: doublings of the message."""
    return np.asarray(np.log2(shape["size_bytes"]), dtype=np.float64)


def groups(shape: Shape) -> Floats:
    """Return the number of GPUs."""
    return np.asarray(shape["gpus"], dtype=np.float64)
