"""The time of an iteration on one pipeline stage, from what a batch says of itself."""

from __future__ import annotations

from copy import copy
from math import exp, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import BatchLike, decode_tokens_read
from profiler.decode_time import DecodeAttention
from profiler.deployment import GPUS_PER_NODE, Deployment
from profiler.engine_fit import EngineFit
from profiler.layer import kernels, layer_matrices
from profiler.mixed_time import MixedAttention
from profiler.prefill_time import PrefillAttention
from profiler.profiled_range import ProfiledRange
from profiler.stage import StageOps, StageTables
from profiler.transfer import load_fitted

if TYPE_CHECKING:
    from os import PathLike

    import pyarrow as pa

    from profiler.fitted import FittedDevice

LEAST_TABLE = 8192
MOST_DECODES = 1024
OVERHEAD_S = 0.27e-3
"""The engine's overhead, charged once a stage and iteration: the difference between the sum of ops and measured
decode-only iterations of vLLM 0.19 (CUDA graphs, asynchronous scheduling) on an RTX 4090. A CPU has none."""
GRAPH_GAP_S = 1e-6
"""From the end of a kernel to the start of the next that depends on it, within a CUDA graph: the order of magnitude, a
microsecond, assumed and not fitted. Tables hold the kernels' own times; where a deployment captures graphs this counts
instead of :data:`OVERHEAD_S`, so that nothing of a run that is to be predicted is in it."""
GROUPS = ("linear", "prefill attention", "decode attention", "head", "communication", "overhead")


class CostModel:
    """Predicts iterations of one deployment.

    The linear layers run once over all tokens of a batch; where the deployment captures CUDA graphs, over the
    next captured size. Prefill chunks and decodes attend in two launches, one after the other, as
    FlashAttention-style kernels are best used (one launch over both costs 1.3 to 1.5 times its parts on
    FlashAttention-2); in one where ``mixes`` hold measurements of that. Nothing overlaps: on one stream kernels
    follow each other.

    Parameters
    ----------
    deployment
        What runs where.
    fitted
        What was learned about the device; its physics use the deployment's datasheet, so that a fit to
        another device transfers. Where it knows an engine (:class:`profiler.engine_fit.EngineFit`), that
        scales the ops and adds its own costs; else a constant overhead is added.
    mixes
        Rows of a profile of an engine that attends to chunks and decodes in one launch (see
        :class:`profiler.mixed_time.MixedAttention`). None, or too few of the model's heads: two launches.
    """

    def __init__(self, deployment: Deployment, fitted: FittedDevice, *, mixes: pa.Table | None = None) -> None:
        self.deployment = deployment
        self.fitted = fitted
        model = deployment.spec
        self._window = model.sliding_window
        self._layers = deployment.stage_layers
        self._pace = 1.0
        engine = fitted.engine or EngineFit(iteration_s=_overhead(deployment, fitted))
        self._engines = [engine if fitted.engine is None else engine.on(layers) for layers in self._layers]
        most_tokens = max(LEAST_TABLE, deployment.max_num_batched_tokens)
        most_outputs = max(MOST_DECODES, deployment.max_num_seqs)
        self._ops = [StageOps(deployment, fitted, stage, each) for stage, each in enumerate(self._engines)]
        self._stages = self._tables(most_tokens, most_outputs)
        self._fast = [_Fast(tables, each) for tables, each in zip(self._stages, self._engines, strict=True)]
        self._prefill_factor = engine.factors["prefill attention"]
        self._decode_factor = engine.factors["decode attention"]
        self._long: dict[tuple[int, int], tuple[float, float, float]] = {}
        self._decode = DecodeAttention(deployment, fitted.ops["decode_attention"], most_outputs)
        self._prefill = PrefillAttention(deployment, fitted.ops["prefill_attention"], most_tokens)
        self._mixed: MixedAttention | None = None
        if mixes is not None and MixedAttention.known(mixes, deployment):
            self._mixed = MixedAttention(mixes, deployment, self._prefill, self._decode)
        self._send = self._send_terms()

    def iteration_time(self, batch: BatchLike, stage: int = 0) -> float:
        """Return the seconds that ``stage`` is busy with ``batch``."""
        tokens, decodes, chunks = batch.prefill_tokens + batch.decodes, batch.decodes, batch.chunks
        fast, engine = self._fast[stage], self._engines[stage]
        if tokens < len(fast.token_s):
            seconds = fast.token_s[tokens]
        else:
            linear_s, communication_s, _ = self._beyond(stage, tokens)
            seconds = linear_s + communication_s
        if self._mixed is not None and chunks and decodes:
            attention_s = self._mixed_s(batch, self._mixed)
        else:
            attention_s = self._decode_s(batch) if decodes else 0.0
            if chunks:
                attention_s += self._prefill_s(batch)
        own_s = engine.iteration_s if fast.plain else self._engine_s(batch, stage)
        seconds += self._layers[stage] * attention_s + own_s
        if fast.output_s and batch.outputs:
            outputs = batch.outputs
            known = outputs < len(fast.output_s)
            seconds += fast.output_s[outputs] if known else sum(self._head_s(self._stages[stage], outputs))
        return self._pace * seconds

    def breakdown(self, batch: BatchLike, stage: int = 0) -> dict[str, float]:
        """Return the seconds of :data:`GROUPS` of ops; they add up to :meth:`iteration_time`."""
        tables, layers = self._stages[stage], self._layers[stage]
        linear_s, communication_s, _ = self._row(stage, batch.prefill_tokens + batch.decodes)
        head_s, gather_s = self._head_s(tables, batch.outputs) if tables.head_s and batch.outputs else (0.0, 0.0)
        prefill_s = self._prefill_s(batch) if batch.chunks else 0.0
        decode_s = self._decode_s(batch) if batch.decodes else 0.0
        if self._mixed is not None and prefill_s and decode_s:
            share = self._mixed_s(batch, self._mixed) / (prefill_s + decode_s)
            prefill_s, decode_s = share * prefill_s, share * decode_s
        parts = (
            linear_s,
            layers * prefill_s,
            layers * decode_s,
            head_s,
            communication_s + gather_s,
            self._engine_s(batch, stage),
        )
        return {group: self._pace * part for group, part in zip(GROUPS, parts, strict=True)}

    def profiled_range(self) -> ProfiledRange:
        """Return what the ops were measured on, which says whether a batch lies within."""
        return ProfiledRange.of(self.deployment, self.fitted, one_launch=self._mixed is not None)

    def at_pace(self, pace: float) -> CostModel:
        """Return the same for a machine that takes ``pace`` times as long, all its sends excepted."""
        changed = copy(self)
        changed._pace = self._pace * pace
        return changed

    def op_times(self, batch: BatchLike) -> dict[str, float]:
        """Return the seconds of the groups of ops that an engine is fitted in terms of, on the first stage.

        They are :data:`profiler.engine_fit.GROUPS`: those of :meth:`breakdown`, matrices and elementwise ops apart.
        """
        parts = self.breakdown(batch)
        tokens = np.asarray([float(batch.prefill_tokens + batch.decodes)])
        *_, elementwise, added = (self._pace * float(part[0]) for part in self._ops[0].linear_parts(tokens))
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
            seconds = self.iteration_time(batch, stage)
            half = self.fitted.engine.band(coverage, seconds)
            return seconds * exp(-half), seconds * exp(half)
        parts = self.breakdown(batch, stage)
        _, _, spread_s = self._row(stage, batch.prefill_tokens + batch.decodes)
        matrices = len(layer_matrices(self.deployment, stage))
        wholes = (  # what is uncertain, its op, how many kernels it is
            (self._pace * spread_s, parts["linear"], "gemm", matrices * self._layers[stage]),
            (parts["prefill attention"], parts["prefill attention"], "prefill_attention", self._layers[stage]),
            (parts["decode attention"], parts["decode attention"], "decode_attention", self._layers[stage]),
            (parts["head"], parts["head"], "gemm", 1),
            (parts["communication"], parts["communication"], "all_reduce", 2 * self._layers[stage]),
        )
        widths = [
            spread * self.fitted.ops[op].band(coverage, whole / (self._pace * count))
            for spread, whole, op, count in wholes
        ]
        kernels_s = sum(parts.values()) - parts["overhead"]
        half = sqrt(sum(width * width for width in widths)) / kernels_s if kernels_s > 0 else 0.0
        return kernels_s * exp(-half) + parts["overhead"], kernels_s * exp(half) + parts["overhead"]

    def describe(self) -> dict[str, Any]:
        """Return what a run record says of its cost model: the device, whose measurements, how well they fit.

        ``measured`` lists the ops that were measured on the device itself, of a transferred one too;
        ``borrowed`` those that are neither its own nor of the device its model is ``from``.
        """
        device = self.deployment.hardware.name
        transferred = self.fitted.device != device
        borrowed = {op: source for op, source in self.fitted.borrowed.items() if source != device}
        measured = [op for op in self.fitted.ops if self.fitted.source_of(op) == device]
        errors: dict[str, Any] = {name: dict(op.errors) for name, op in self.fitted.ops.items()}
        engine = self.fitted.engine
        if engine is not None:
            errors["iteration"] = {"unseen batches": dict(engine.errors)}
        return {
            "device": device,
            "from": self.fitted.device,
            "transferred": transferred,
            "measured": measured,
            "borrowed": borrowed,
            "pace": self._pace,
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

    def _row(self, stage: int, tokens: int) -> tuple[float, float, float]:
        tables = self._stages[stage]
        if tokens < len(tables.linear_s):
            return tables.linear_s[tokens], tables.communication_s[tokens], tables.spread_s[tokens]
        return self._beyond(stage, tokens)

    def _beyond(self, stage: int, tokens: int) -> tuple[float, float, float]:
        key = (stage, tokens)
        if key not in self._long:
            parts = [float(part[0]) for part in self._ops[stage].linear_parts(np.asarray([float(tokens)]))]
            communication_s = float(self._ops[stage].communication(np.asarray([float(tokens)]))[0])
            self._long[key] = sum(parts), communication_s, sqrt(sum(part * part for part in parts))
        return self._long[key]

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
        window, longest = self._window, batch.decode_context_max
        if window is None:
            return self._decode_factor * self._decode.time(batch.decodes, batch.decode_context_sum, longest)
        read = decode_tokens_read(batch, window)
        return self._decode_factor * self._decode.time(batch.decodes, read, min(longest, window))

    def _mixed_s(self, batch: BatchLike, mixed: MixedAttention) -> float:
        """Return the seconds of one layer."""
        return mixed.time(batch.chunks, batch.decodes, batch.decode_context_sum, batch.decode_context_max)

    def _send_terms(self) -> tuple[float, float]:
        """Return seconds a send and a byte: within a node at the link's rate, else at the network's."""
        deployment, send = self.deployment, self.fitted.ops["send"].coefficients
        device = deployment.hardware
        if deployment.gpus <= GPUS_PER_NODE:
            rate = device.bandwidth_between(deployment.gpus)
        else:
            rate = device.internode_bandwidth_bytes_per_s
        return 1e-6 * send["launch"], send["link_bytes"] / rate


class _Fast:
    """What :meth:`CostModel.iteration_time` reads of a stage, added up beforehand."""

    __slots__ = ("output_s", "plain", "token_s")

    def __init__(self, tables: StageTables, engine: EngineFit) -> None:
        self.token_s = [a + b for a, b in zip(tables.linear_s, tables.communication_s, strict=True)]
        self.output_s = [a + b for a, b in zip(tables.head_s, tables.gather_s, strict=True)]
        self.plain = engine.chunk_s == engine.decode_s == 0


def _overhead(deployment: Deployment, fitted: FittedDevice) -> float:
    if fitted.overhead_s is not None:
        return fitted.overhead_s
    if deployment.cudagraph_capture_sizes:
        return GRAPH_GAP_S * kernels(deployment)
    return 0.0 if deployment.hardware.is_cpu else OVERHEAD_S


def load_cost_model(
    deployment: Deployment, *, profile: str | PathLike[str] | None = None, one_launch: bool = False
) -> CostModel:
    """Return the cost model of ``deployment``.

    Parameters
    ----------
    profile
        A profile folder to fit (seconds; cached by its content), or a JSON file that ``profiler fit`` or ``profiler
        calibrate`` wrote. None: the coefficients that ship with the
        package, of the device itself or of its nearest architecture.
    one_launch
        Whether the engine attends to chunks and decodes in one launch, as vLLM does: as the profile measured it,
        where it did.

    Raises
    ------
    InputError
        If the profile is broken or measures another device.
    """
    if profile is None:
        return CostModel(deployment, load_fitted(deployment.hardware))
    from profiler.profile import read_profile
    from profiler.refit import placed_fit

    placed, fitted = placed_fit(profile, deployment)
    mixes = read_profile(profile).table if one_launch and Path(profile).is_dir() else None
    return CostModel(placed, fitted, mixes=mixes)
