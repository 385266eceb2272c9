"""The time of an iteration on one pipeline stage, from what a batch says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from functools import partial
from itertools import count, islice
from math import exp, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import BatchLike, later
from profiler.decode_time import DecodeAttention
from profiler.deployment import Deployment
from profiler.engine_fit import EngineFit
from profiler.layer import layer_matrices
from profiler.lazy_table import LazyTable
from profiler.mixed_time import MixedAttention
from profiler.overhead import launches_s, overhead_s
from profiler.prefill_time import PrefillAttention
from profiler.profiled_range import ProfiledRange
from profiler.stage import StageOps, StageTables
from profiler.stage_costs import StageCosts
from profiler.transfer import across_nodes, load_fitted
from profiler.uncertainty import COVERAGE, EXACT, TYPICAL, drawn_factors, relative, widths_s

if TYPE_CHECKING:
    from os import PathLike

    from profiler.fitted import FittedDevice

LEAST_TABLE = 8192
MOST_DECODES = 1024
Parts = Mapping[str, float]
GROUPS = ("linear", "prefill attention", "decode attention", "head", "communication", "overhead")


class CostModel:
    """Predicts iterations of one deployment.

    The linear layers run once over all tokens of a batch; where the deployment captures CUDA graphs, over the
    next captured size. Prefill chunks and decodes attend in two launches, one after the other, as
    FlashAttention-style kernels are best used (one launch over both costs 1.3 to 1.5 times its parts on
    FlashAttention-2); in one with ``one_launch``. Nothing overlaps: on one stream kernels follow each other.

    Parameters
    ----------
    deployment
        What runs where.
    fitted
        What was learned about the device; its physics use the deployment's datasheet, so that a fit to
        another device transfers. Where it knows an engine (:class:`profiler.engine_fit.EngineFit`), that
        scales the ops and adds its own costs; else a constant overhead is added.
    one_launch
        Whether the engine attends to chunks and decodes in one launch: as mixes were profiled (see
        :class:`profiler.mixed_time.MixedAttention`). Where none of the model's heads were, two launches.
    """

    def __init__(self, deployment: Deployment, fitted: FittedDevice, *, one_launch: bool = False) -> None:
        self.deployment = deployment
        self.fitted = fitted = across_nodes(fitted) if deployment.spans_nodes else fitted
        self._layers = deployment.stage_layers
        self._pace = 1.0
        self._draw: int | None = None
        self._drawn: Parts = EXACT
        engine = fitted.engine or EngineFit(iteration_s=overhead_s(deployment, fitted))
        self._engines = [engine if fitted.engine is None else engine.on(layers) for layers in self._layers]
        most_tokens = max(LEAST_TABLE, deployment.max_num_batched_tokens)
        most_outputs = max(MOST_DECODES, deployment.max_num_seqs)
        self._ops = [StageOps(deployment, fitted, stage, each) for stage, each in enumerate(self._engines)]
        self._stages = self._tables(most_tokens, most_outputs)
        self._prefill_factor = engine.factors["prefill attention"]
        self._decode_factor = engine.factors["decode attention"]
        self._decode = DecodeAttention(deployment, fitted.ops["decode_attention"], most_outputs)
        self._prefill = PrefillAttention(deployment, fitted.ops["prefill_attention"], most_tokens)
        self._mixed: MixedAttention | None = None
        mixes = fitted.ops.get("mixed_attention") if one_launch else None
        if mixes is not None and MixedAttention.known(mixes, deployment):
            self._mixed = MixedAttention(mixes, deployment, self._prefill, self._decode)
        self._send = self._send_terms()
        self._costs = self._stage_costs()

    def iteration_time(self, batch: BatchLike, stage: int = 0) -> float:
        """Return the seconds that ``stage`` is busy with ``batch``."""
        costs, decodes, chunks = self._costs[stage], batch.decodes, batch.chunks
        seconds = costs.token_s[batch.prefill_tokens + decodes] + costs.output_s[batch.outputs]
        if chunks:
            seconds += costs.chunk_s * len(chunks)
            if decodes and self._mixed is not None:
                return seconds + costs.decode_s * decodes + costs.layer * self._mixed_s(batch, self._mixed)
            if len(chunks) == 1:
                seconds += costs.prefill_layer * self._prefill.alone(chunks[0].tokens, chunks[0].past)
            else:
                seconds += costs.prefill_layer * self._prefill.time(chunks)
        if decodes:
            attention_s = self._decode.time(decodes, batch.decode_context_sum, batch.decode_context_max)
            seconds += costs.decode_s * decodes + costs.decode_layer * attention_s
        return seconds

    def repeated(self, batch: BatchLike, start_s: float, until_s: float, most: int) -> tuple[list[float], list[float]]:
        """Run a batch again and again from ``start_s`` on, each decode's context longer by one, its only chunk, where
        there is one, after itself.

        Returns
        -------
        tuple
            How long each time takes, as :meth:`iteration_time` has it to the last bit, and when it ends: ``most``
            times, or fewer if one ends at or after ``until_s``.
        """
        times_s, ends_s, end_s = [], [], start_s
        for time_s in islice(self._with_chunk(batch) if batch.chunks else self._of_decodes(batch), most):
            end_s += time_s
            times_s.append(time_s)
            ends_s.append(end_s)
            if end_s >= until_s:
                break
        return times_s, ends_s

    def _of_decodes(self, batch: BatchLike) -> Iterator[float]:
        """Yield the times of a batch of decodes alone, time after time."""
        costs, decodes = self._costs[0], batch.decodes
        fixed_s, decode_s = costs.token_s[decodes] + costs.output_s[decodes], costs.decode_s * decodes
        for attention_s in self._decode.times(decodes, batch.decode_context_sum, batch.decode_context_max):
            yield fixed_s + (decode_s + costs.decode_layer * attention_s)

    def _with_chunk(self, batch: BatchLike) -> Iterator[float]:
        """Yield the times of a batch with one chunk, which does not end its prompt, time after time."""
        costs, decodes, (chunk,) = self._costs[0], batch.decodes, batch.chunks
        fixed_s = costs.token_s[batch.prefill_tokens + decodes] + costs.output_s[batch.outputs] + costs.chunk_s
        decode_s, tokens, alone = costs.decode_s * decodes, chunk.tokens, self._prefill.alone
        if not decodes:
            for past in count(chunk.past, tokens):
                yield fixed_s + costs.prefill_layer * alone(tokens, past)
        if self._mixed is not None:
            for turn in count():
                yield self.iteration_time(later(batch, turn))
        decoding = self._decode.times(decodes, batch.decode_context_sum, batch.decode_context_max)
        for past, attention_s in zip(count(chunk.past, tokens), decoding, strict=False):
            yield fixed_s + costs.prefill_layer * alone(tokens, past) + (decode_s + costs.decode_layer * attention_s)

    def breakdown(self, batch: BatchLike, stage: int = 0) -> dict[str, float]:
        """Return the seconds of :data:`GROUPS` of ops; they add up to :meth:`iteration_time`."""
        return self._scaled(self._undrawn(batch, stage), batch)

    def _scaled(self, parts_s: Parts, batch: BatchLike) -> dict[str, float]:
        """Return seconds of groups at the machine's pace, by what was drawn for each in this batch."""
        factors = dict(self._drawn)
        if self._in_one_launch(batch):
            factors |= dict.fromkeys(("prefill attention", "decode attention"), factors["mixed attention"])
        return {group: self._pace * factors[group] * part_s for group, part_s in parts_s.items()}

    def _undrawn(self, batch: BatchLike, stage: int) -> dict[str, float]:
        """Return the seconds of :data:`GROUPS` at the fit's own pace, without what was drawn."""
        tables, layers = self._stages[stage], self._layers[stage]
        tokens = batch.prefill_tokens + batch.decodes
        linear_s, communication_s, _ = self._row(stage, tokens)
        head_s, gather_s = self._head_s(tables, batch.outputs) if tables.head_s and batch.outputs else (0.0, 0.0)
        prefill_s = self._prefill_s(batch) if batch.chunks else 0.0
        decode_s = self._decode_s(batch) if batch.decodes else 0.0
        if self._mixed is not None and self._in_one_launch(batch):
            share = self._mixed_s(batch, self._mixed) / (prefill_s + decode_s)
            prefill_s, decode_s = share * prefill_s, share * decode_s
        parts = (
            linear_s,
            layers * prefill_s,
            layers * decode_s,
            head_s,
            communication_s + gather_s,
            self._engine_s(batch, stage) + launches_s(self.deployment, self.fitted, stage, tokens),
        )
        return dict(zip(GROUPS, parts, strict=True))

    def _in_one_launch(self, batch: BatchLike) -> bool:
        return self._mixed is not None and bool(batch.chunks) and batch.decodes > 0

    def profiled_range(self) -> ProfiledRange:
        """Return what the ops were measured on, which says whether a batch lies within."""
        return ProfiledRange.of(self.deployment, self.fitted, one_launch=self._mixed is not None)

    def at_pace(self, pace: float) -> CostModel:
        """Return the same for a machine that takes ``pace`` times as long, all its sends excepted."""
        changed = copy(self)
        changed._pace = self._pace * pace
        changed._costs = changed._stage_costs()
        return changed

    def drawn(self, draw: int) -> CostModel:
        """Return the same with what the fit may be wrong by drawn by the seed ``draw`` (>= 0), its sends excepted.

        Each group of ops takes a factor, in all iterations the same, from the band of 90 % that :meth:`interval`
        gives it in :data:`profiler.uncertainty.TYPICAL` batches; where whole iterations were measured, all take one.
        On one device equal draws are as far from the fit, in widths of its bands, for all deployments.

        Raises
        ------
        InputError
            If ``draw`` is negative.
        """
        changed, last = copy(self), len(self._layers) - 1
        changed._draw = draw
        changed._drawn = drawn_factors(self._half_widths(last), self.deployment.hardware.name, draw)
        changed._costs = changed._stage_costs()
        return changed

    def op_times(self, batch: BatchLike) -> dict[str, float]:
        """Return the seconds of the groups of ops that an engine is fitted in terms of, on the first stage.

        They are :data:`profiler.engine_fit.GROUPS`: those of :meth:`breakdown`, matrices and elementwise ops apart.
        """
        parts, pace = self.breakdown(batch), self._pace * self._drawn["linear"]
        tokens = np.asarray([float(batch.prefill_tokens + batch.decodes)])
        *_, elementwise, added = (pace * float(part[0]) for part in self._ops[0].linear_parts(tokens))
        return {**parts, "matrices": parts["linear"] - elementwise - added, "elementwise": elementwise}

    def hand_off_time(self, tokens: int) -> float:
        """Return the seconds of sending the hidden states of ``tokens`` tokens to the next stage."""
        launch_s, byte_s = self._send
        return launch_s + byte_s * tokens * self.deployment.spec.hidden_bytes

    def interval(self, batch: BatchLike, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        """Return seconds between which the iteration takes, for about a share ``coverage`` of batches.

        Each op brings the half width, in log time, that held this share of its held-out rows. A kernel
        repeats in every layer with the same error, so within one op widths add; different ops and matrices
        are taken to err independently, so between them squares add. The overhead is taken as exact. The band
        belongs to the software the op tables were measured with: the same op on the same GPU differs by up
        to 25 % between builds. Where whole iterations were measured, those that their fit did not see give
        the width.
        """
        if self.fitted.engine is not None:
            half = self.fitted.engine.band(coverage, seconds := self.iteration_time(batch, stage))
            return seconds * exp(-half), seconds * exp(half)
        undrawn = self._undrawn(batch, stage)
        parts = self._scaled(undrawn, batch)
        widths = self._scaled(self._widths_s(undrawn, batch, coverage, stage), batch).values()
        kernels_s = sum(parts.values()) - parts["overhead"]
        half = sqrt(sum(width * width for width in widths)) / kernels_s if kernels_s > 0 else 0.0
        return kernels_s * exp(-half) + parts["overhead"], kernels_s * exp(half) + parts["overhead"]

    def _widths_s(self, undrawn: Parts, batch: BatchLike, coverage: float, stage: int) -> dict[str, float]:
        """Return the half widths of the groups that err independently, in seconds of :meth:`_undrawn`."""
        return widths_s(
            undrawn,
            self.fitted.ops,
            coverage,
            spread_s=self._row(stage, batch.prefill_tokens + batch.decodes)[2],
            matrices=len(layer_matrices(self.deployment, stage)),
            layers=self._layers[stage],
            one_launch=self._in_one_launch(batch),
        )

    def _half_widths(self, stage: int) -> dict[str, float]:
        """Return half the width, in log time, of the band of 90 % of each group, in typical batches."""
        if self.fitted.engine is not None:
            return {"iteration": self.fitted.engine.band(COVERAGE, sum(self._undrawn(TYPICAL[-1], stage).values()))}
        found: dict[str, float] = {}
        for batch in TYPICAL:
            undrawn = self._undrawn(batch, stage)
            found |= relative(self._widths_s(undrawn, batch, COVERAGE, stage), undrawn)
        return found

    def describe(self) -> dict[str, Any]:
        """Return what a run record says of its cost model: the device, whose measurements, how well they fit.

        ``measured`` lists the ops that were measured on the device itself, of a transferred one too;
        ``borrowed`` those that are neither its own nor of the device its model is ``from``.
        """
        device = self.deployment.hardware.name
        borrowed = {op: source for op, source in self.fitted.borrowed.items() if source != device}
        measured = [op for op in self.fitted.ops if self.fitted.source_of(op) == device]
        errors: dict[str, Any] = {name: dict(op.errors) for name, op in self.fitted.ops.items()}
        engine = self.fitted.engine
        if engine is not None:
            errors["iteration"] = {"unseen batches": dict(engine.errors)}
        return {
            "device": device,
            "from": self.fitted.device,
            "transferred": self.fitted.device != device,
            "measured": measured,
            "borrowed": borrowed,
            "pace": self._pace,
            **({} if self._draw is None else {"draw": self._draw}),
            "overhead_s": self._engines[0].iteration_s,
            "engine": None if engine is None else engine.to_json(),
            "errors": errors,
        }

    def _tables(self, most_tokens: int, most_outputs: int) -> list[StageTables]:
        """Build the tables of each stage; stages that hold the same share one."""
        made: dict[tuple[int, bool, bool], StageTables] = {}
        last = len(self._layers) - 1
        keys = [(layers, stage == 0, stage == last) for stage, layers in enumerate(self._layers)]
        for key, ops in zip(keys, self._ops, strict=True):
            if key not in made:
                made[key] = ops.tables(most_tokens, most_outputs)
        return [made[key] for key in keys]

    def _stage_costs(self) -> list[StageCosts]:
        """Add up what :meth:`iteration_time` reads of each stage."""
        made, drawn = [], self._drawn
        for stage, engine in enumerate(self._engines):
            layer, own = self._pace * self._layers[stage], self._pace * drawn["overhead"]
            made.append(
                StageCosts(
                    token_s=LazyTable(partial(self._token_s, stage)),
                    output_s=LazyTable(partial(self._output_s, stage)),
                    chunk_s=own * engine.chunk_s,
                    decode_s=own * engine.decode_s,
                    layer=layer * drawn["mixed attention"],
                    prefill_layer=layer * drawn["prefill attention"] * self._prefill_factor,
                    decode_layer=layer * drawn["decode attention"] * self._decode_factor,
                )
            )
        return made

    def _token_s(self, stage: int, tokens: int) -> float:
        linear_s, communication_s, _ = self._row(stage, tokens)
        linear_s, communication_s = self._drawn["linear"] * linear_s, self._drawn["communication"] * communication_s
        own_s = self._drawn["overhead"] * launches_s(self.deployment, self.fitted, stage, tokens)
        return self._pace * (linear_s + communication_s + own_s)

    def _output_s(self, stage: int, outputs: int) -> float:
        tables = self._stages[stage]
        head_s, gather_s = self._head_s(tables, outputs) if tables.head_s else (0.0, 0.0)
        head_s, gather_s = self._drawn["head"] * head_s, self._drawn["communication"] * gather_s
        return self._pace * (head_s + gather_s + self._drawn["overhead"] * self._engines[stage].iteration_s)

    def _row(self, stage: int, tokens: int) -> tuple[float, float, float]:
        tables = self._stages[stage]
        if tokens < len(tables.linear_s):
            return tables.linear_s[tokens], tables.communication_s[tokens], tables.spread_s[tokens]
        return self._beyond(stage, tokens)

    def _beyond(self, stage: int, tokens: int) -> tuple[float, float, float]:
        parts = [float(part[0]) for part in self._ops[stage].linear_parts(np.asarray([float(tokens)]))]
        communication_s = float(self._ops[stage].communication(np.asarray([float(tokens)]))[0])
        return sum(parts), communication_s, sqrt(sum(part * part for part in parts))

    def _head_s(self, tables: StageTables, outputs: int) -> tuple[float, float]:
        if outputs < len(tables.head_s):
            return tables.head_s[outputs], tables.gather_s[outputs]
        rows = np.asarray([float(outputs)])
        return float(self._ops[-1].head(rows)[0]), float(self._ops[-1].gather(rows)[0])

    def _engine_s(self, batch: BatchLike, stage: int) -> float:
        """Return what the engine adds beside what its tables by tokens hold."""
        engine = self._engines[stage]
        return engine.iteration_s + engine.chunk_s * len(batch.chunks) + engine.decode_s * batch.decodes

    def _prefill_s(self, batch: BatchLike) -> float:
        """Return the seconds of one layer."""
        return self._prefill_factor * self._prefill.time(batch.chunks)

    def _decode_s(self, batch: BatchLike) -> float:
        """Return the seconds of one layer."""
        context_sum, context_max = batch.decode_context_sum, batch.decode_context_max
        return self._decode_factor * self._decode.time(batch.decodes, context_sum, context_max)

    def _mixed_s(self, batch: BatchLike, mixed: MixedAttention) -> float:
        """Return the seconds of one layer."""
        return mixed.time(batch.chunks, batch.decodes, batch.decode_context_sum, batch.decode_context_max)

    def _send_terms(self) -> tuple[float, float]:
        """Return seconds a send and a byte, for all stages as where they lie farthest apart: in a node, or beyond."""
        deployment, send = self.deployment, self.fitted.ops["send"].coefficients
        device = deployment.hardware
        if deployment.gpus <= deployment.gpus_per_node:
            rate = device.bandwidth_between(deployment.gpus)
        else:
            rate = device.internode_bandwidth_bytes_per_s
        return 1e-6 * send["launch"], send["link_bytes"] / rate


def load_cost_model(
    deployment: Deployment, *, profile: str | PathLike[str] | None = None, one_launch: bool = False
) -> CostModel:
    """Return the cost model of ``deployment``.

    Parameters
    ----------
    profile
        A profile folder to fit (seconds; cached by its content), or a JSON file that ``profiler fit`` or ``profiler
        calibrate`` wrote. None: the coefficients that ship with the package, of the device itself or of its nearest
        architecture.
    one_launch
        Whether the engine attends to chunks and decodes in one launch, as vLLM does.

    Raises
    ------
    InputError
        If the profile is broken or measures another device.
    """
    if profile is None:
        return CostModel(deployment, load_fitted(deployment.hardware))
    from profiler.refit import placed_fit

    placed, fitted = placed_fit(profile, deployment)
    return CostModel(placed, fitted, one_launch=one_launch)
