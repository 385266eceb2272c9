"""A cost model with slower kernels, as SARATHI's authors measured them a year later on Yi-34B (TP2, A100 PCIe)."""

from __future__ import annotations

from functools import cache

from policies.batch import Batch
from profiler.aggregates import Aggregates, BatchLike
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.fitted import FittedDevice

YI_PREFILL_S = {4096: 0.7576, 16384: 4.408}
"""Seconds of prompts of so many tokens, alone (the iteration times that the artifact of Sarathi-Serve ships)."""
YI_DECODE_S = 46.8e-3
"""The same of one decode at a context of about 1K tokens: the least that an iteration takes, whatever is in it."""


class OlderKernels(CostModel):
    """A cost model whose prefill attention takes longer, and whose layers take no less than some time.

    Parameters
    ----------
    prefill_factor
        What the time of prefill attention is multiplied with.
    least_layer_s
        Seconds that a layer takes at least.
    """

    def __init__(
        self, deployment: Deployment, fitted: FittedDevice, *, prefill_factor: float = 1.0, least_layer_s: float = 0.0
    ) -> None:
        super().__init__(deployment, fitted)
        self._least_s = [least_layer_s * layers for layers in deployment.stage_layers]
        self._prefill_factor *= prefill_factor
        self._costs = self._stage_costs()

    def iteration_time(self, batch: BatchLike, stage: int = 0) -> float:
        """Return the seconds that ``stage`` is busy with ``batch``."""
        return max(self._least_s[stage], super().iteration_time(batch, stage))

    def repeated(self, batch: Batch, start_s: float, until_s: float, most: int) -> tuple[list[float], list[float]]:  # type: ignore[override]  # noqa: ARG002
        """Run a batch once: whoever wants it again asks again."""
        time_s = self.iteration_time(batch)
        return [time_s], [start_s + time_s]


@cache
def yi_prefill_factor() -> float:
    """Return how much slower prefill attention was measured for Yi-34B than it is predicted here.

    Of both, what a prompt of 16K tokens takes beyond four of 4K is attention alone: all else is in proportion.
    """
    deployment = Deployment(
        model="yi-34b", device="a100-pcie", tensor_parallel_size=2, max_model_len=16384, max_num_batched_tokens=16384
    )
    cost_model = load_cost_model(deployment)
    predicted_s = {tokens: cost_model.iteration_time(Aggregates.of(tokens)) for tokens in YI_PREFILL_S}
    return _beyond_four(YI_PREFILL_S) / _beyond_four(predicted_s)


def yi_least_layer_s() -> float:
    """Return the seconds that a layer took at least in those measurements."""
    return YI_DECODE_S / Deployment(model="yi-34b", device="a100-pcie", tensor_parallel_size=2).spec.layers


def _beyond_four(prefill_s: dict[int, float]) -> float:
    return prefill_s[16384] - 4 * prefill_s[4096]
