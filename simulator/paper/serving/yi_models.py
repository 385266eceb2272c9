"""Yi-34B as the authors served it, with what their own times say of their engine put in, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from profiler.cost_model import CostModel, load_cost_model
from profiler.engine_fit import GROUPS, EngineFit
from profiler.published import Published, published_for
from simulator.paper.serving.authors_engine import base_iteration, told, with_base, with_engine
from simulator.paper.serving.setup import YI_34B


@dataclass(frozen=True, kw_only=True)
class Models:
    """One deployment with one thing changed at a time, then with both.

    Attributes
    ----------
    plain
        As it is everywhere in this project.
    base, attention, both
        With the authors' base iteration; with attention of whole prompts as slow as the artifact's table 2 has it for
        one of 1,024 tokens; with both.
    attention_factor
        How slow that is.
    """

    plain: CostModel
    base: CostModel
    attention: CostModel
    both: CostModel
    attention_factor: float

    @staticmethod
    def load() -> Models:
        """Return them for Yi-34B as the authors served it."""
        plain = load_cost_model(YI_34B.deployment)
        (row,) = [each for each in parted_rows() if not each.batch.decodes]
        factor = (row.attention_s or 0.0) / plain.breakdown(row.batch)["prefill attention"]
        factors = {**dict.fromkeys(GROUPS, 1.0), "prefill attention": factor}
        overhead_s = plain.breakdown(row.batch)["overhead"]
        slow = EngineFit(factors=factors, iteration_s=overhead_s, layers=YI_34B.deployment.spec.layers)
        return Models(
            plain=plain,
            base=with_base(YI_34B.deployment),
            attention=with_engine(YI_34B.deployment, slow),
            both=with_engine(YI_34B.deployment, replace(base_iteration(), factors=factors)),
            attention_factor=factor,
        )

    @property
    def slow(self) -> str:
        """What was changed of the attention, in words."""
        return f"attention of whole prompts {self.attention_factor:.2f} times as slow (artifact, table 2)"

    def on(self, row: Published) -> dict[str, CostModel]:
        """Return those that change something of a batch, by what was changed: where decodes run beside a chunk the
        artifact's attention is as fast as ours."""
        changed = {told(): self.base}
        if not row.batch.decodes:
            changed |= {self.slow: self.attention, "both": self.both}
        return changed


def parted_rows() -> list[Published]:
    """Return the rows of table 2, which say what linear layers and attention took."""
    rows = published_for(YI_34B.model, YI_34B.device, YI_34B.tensor_parallel_size)
    return [row for row in rows if row.attention_s is not None]
