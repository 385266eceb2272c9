"""The engine of the first paper on one GPU, and how long its iterations take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.layer import kernels
from profiler.overhead import LAUNCH_GAP_S
from profiler.transfer import load_fitted


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A model on one GPU, and whether kernels are launched one by one.

    The paper's engine is nanoGPT's code: PyTorch in eager mode, without CUDA graphs (section 4.5). Where it is not
    ``eager``, the overhead is that of today's engines (:data:`profiler.overhead.OVERHEAD_S`).

    Attributes
    ----------
    model, device
        Names of presets.
    eager
        Whether each kernel waits for a launch of its own (:data:`profiler.overhead.LAUNCH_GAP_S`).
    """

    model: str = "llama-13b"
    device: str = "a6000"
    eager: bool = True

    @cached_property
    def deployment(self) -> Deployment:
        """Where it runs."""
        return Deployment(model=self.model, device=self.device)

    @property
    def costs(self) -> CostModel:
        """How long batches take: the coefficients that ship with the package."""
        return _costs(self)

    @property
    def title(self) -> str:
        """Model and device, for people."""
        return f"{self.deployment.spec.name} on {self.deployment.hardware.title}"


@cache
def _costs(engine: Engine) -> CostModel:
    fitted = load_fitted(engine.deployment.hardware)
    if engine.eager:
        fitted = replace(fitted, overhead_s=LAUNCH_GAP_S * kernels(engine.deployment))
    return CostModel(engine.deployment, fitted)
