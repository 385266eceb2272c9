"""What an engine takes beside its kernels, where nobody measured it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiler.layer import kernels

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedDevice

OVERHEAD_S = 0.27e-3
"""The engine's overhead, charged once a stage and iteration: the difference between the sum of ops and measured
decode-only iterations of vLLM 0.19 (CUDA graphs, asynchronous scheduling) on an RTX 4090. A CPU has none."""
GRAPH_GAP_S = 1e-6
"""From the end of a kernel to the start of the next that depends on it, within a CUDA graph: the order of magnitude, a
microsecond, assumed and not fitted. Tables hold the kernels' own times; where a deployment captures graphs this counts
instead of :data:`OVERHEAD_S`, so that nothing of a run that is to be predicted is in it."""
LAUNCH_GAP_S = 5e-6
"""The same where a batch is larger than any captured graph and its kernels are launched one by one: the usual few
microseconds of a launch, assumed too."""


def overhead_s(deployment: Deployment, fitted: FittedDevice) -> float:
    """Return the seconds beside the kernels of a stage and iteration: as measured, else as assumed."""
    if fitted.overhead_s is not None:
        return fitted.overhead_s
    if deployment.cudagraph_capture_sizes:
        return GRAPH_GAP_S * kernels(deployment)
    return 0.0 if deployment.hardware.is_cpu else OVERHEAD_S


def launches_s(deployment: Deployment, fitted: FittedDevice, stage: int, tokens: int) -> float:
    """Return what launching kernels one by one adds, beyond the largest captured graph, if nobody measured it."""
    sizes = deployment.cudagraph_capture_sizes
    known = fitted.engine is not None or fitted.overhead_s is not None
    if known or not sizes or tokens <= sizes[-1]:
        return 0.0
    return (LAUNCH_GAP_S - GRAPH_GAP_S) * kernels(deployment, stage)
