"""Choosing few points that tell the most: farthest apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from profiler.device import Device
    from profiler.op import Op, Shape


def farthest(op: Op, shape: Shape, device: Device, count: int) -> npt.NDArray[np.int64]:
    """Return ``count`` rows of ``shape``, each the farthest from those before it, in the op's features."""
    features = np.stack([np.log2(shape[key] + 1) for key in op.keys if key != "kind"], axis=1)
    if op.features is not None:
        features = op.features(shape, device)
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    chosen = [int(np.argmin((features**2).sum(axis=1)))]
    distance = np.full(len(features), np.inf)
    while len(chosen) < min(count, len(features)):
        distance = np.minimum(distance, ((features - features[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(distance)))
    return np.asarray(chosen, dtype=np.int64)
