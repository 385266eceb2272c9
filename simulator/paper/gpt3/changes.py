"""The same figures with one thing changed: what the deviations come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from simulator.paper.experiment import Change
from simulator.paper.gpt3.older_kernels import yi_least_layer_s, yi_prefill_factor
from simulator.paper.gpt3.setup import ORCA, SARATHI, STAGES, TP, Setup, bubble_s, completion_s
from traces.lengths import FixedLengths, Lengths, ZipfLengths
from traces.run_record import RunRecord

PIPELINED_BATCH, REPLICA_BATCH = "sequences a micro-batch, TP8-PP8", "sequences a batch, TP8"
BUBBLES = "median bubble time of a request, Orca over SARATHI"
PIPELINES = "completion time, TP8-PP8 with Orca over SARATHI"
AGAINST_TP = "completion time, 8 x TP8 over TP8-PP8 with SARATHI"
TP_AHEAD = "completion time, TP8-PP8 with Orca over 8 x TP8"
REQUESTS = 3_000
"""Of each change: enough for the ratios, and a third of the time."""
LENGTHS_STEP = 1024
VLLM_SHARE = 0.9

FEWER = "3,000 requests (so have all that follow)"
READY = "each micro-batch formed from what is ready when the first stage is free"
THOUSANDS = "totals of 1K, 2K, 3K or 4K only (the first with Zipf's highest weight)"
EQUAL = "all requests of 2K tokens"
ATTENTION = "prefill attention slower by as much as the authors later measured for Yi-34B"
FLOOR = "no layer faster than the authors later measured for Yi-34B (0.78 ms)"
WHOLE_CHUNK = "chunks of 256 tokens whatever decodes ride along (282 tokens a batch)"
ONE_ADAPTER = "hand-offs over one network adapter a node, not eight"
BOTH = "totals of 1K, 2K, 3K or 4K, and the slower prefill attention"


@dataclass(frozen=True, kw_only=True)
class WholeThousands:
    """Totals are whole multiples of 1,024 tokens, by the same law over their four ranks and split as before."""

    of: ZipfLengths = field(default_factory=ZipfLengths)

    def draw(self, count: int, rng: np.random.Generator, /) -> Lengths:
        """Return prompt and output tokens, int64 [count] each."""
        totals = np.arange(self.of.total_min, self.of.total_max + 1, LENGTHS_STEP)
        weights = np.arange(1.0, len(totals) + 1) ** -self.of.theta
        total = rng.choice(totals, count, p=weights / weights.sum())
        output = np.ceil(total / (1 + self.of.prompt_to_output)).astype(np.int64)
        return total - output, output


def ratios(runs: dict[str, RunRecord]) -> dict[str, float]:
    """Return the figures that are compared with the published ones, by the names of the findings."""
    end_s = {way: completion_s(run) for way, run in runs.items()}
    return {
        BUBBLES: bubble_s(runs[ORCA]) / bubble_s(runs[SARATHI]),
        PIPELINES: end_s[ORCA] / end_s[SARATHI],
        AGAINST_TP: end_s[TP] / end_s[SARATHI],
        TP_AHEAD: end_s[ORCA] / end_s[TP],
    }


def changed(requests: int = REQUESTS) -> dict[str, Setup]:
    """Return the set-ups with one thing changed, by what that is."""
    base = Setup(requests=requests)
    attention = yi_prefill_factor()
    output = -(-2048 // 11)
    return {
        FEWER: base,
        READY: replace(base, fixed=False),
        EQUAL: replace(base, lengths=FixedLengths(prompt_tokens=2048 - output, output_tokens=output)),
        THOUSANDS: replace(base, lengths=WholeThousands()),
        ATTENTION: replace(base, prefill_factor=attention),
        BOTH: replace(base, lengths=WholeThousands(), prefill_factor=attention),
        FLOOR: replace(base, least_layer_s=yi_least_layer_s()),
        WHOLE_CHUNK: replace(base, chunk_tokens=base.chunk_tokens + base.batch_limit(STAGES) - 1),
        ONE_ADAPTER: replace(base, adapter_share=1 / 8),
    }


def batch_changes() -> list[Change]:
    """Return the batch limits with as much memory as vLLM takes by default."""
    setup, what = Setup(memory_share=VLLM_SHARE), "90 % of the memory used, vLLM's default, not 85 %"
    return [
        Change(finding=PIPELINED_BATCH, what=what, ours=setup.batch_limit(STAGES)),
        Change(finding=REPLICA_BATCH, what=what, ours=setup.batch_limit(1)),
    ]
