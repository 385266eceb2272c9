"""A cost model that is a formula, for the policies that ask one."""

from __future__ import annotations

from dataclasses import dataclass

from policies.costs import BatchLike


@dataclass(frozen=True)
class PlainCosts:
    """Seconds a batch, a token and a token of context; the last stage takes ``head_s`` more."""

    base_s: float = 0.25
    token_s: float = 0.0625
    context_s: float = 0.0
    head_s: float = 0.0
    upper: float = 2.0
    """The upper end of the band, as a factor."""

    def seconds(self, tokens: int, contexts: int, stage: int) -> float:
        """Return what such a batch takes."""
        return self.base_s + stage * self.head_s + self.token_s * tokens + self.context_s * contexts

    def iteration_time(self, batch: BatchLike, stage: int = 0) -> float:
        return self.seconds(batch.prefill_tokens + batch.decodes, batch.decode_context_sum, stage)

    def interval(self, batch: BatchLike, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        time_s = self.iteration_time(batch, stage)
        return time_s / self.upper, time_s * self.upper


COSTS = PlainCosts(context_s=0.001, head_s=0.125)
"""Of all cases."""
