"""What an engine adds to its ops, learned from whole iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.bands import Bands
from profiler.errors import errors
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.aggregates import BatchLike

GROUPS = ("matrices", "elementwise", "prefill attention", "decode attention", "head")
"""Groups of ops that an engine may run faster or slower than they run alone."""
COSTS = ("iteration_s", "chunk_s", "decode_s", "token_s")
NOISE = 0.03
"""Share by which medians of single iterations scatter; with :data:`FACTOR_SPREAD` it weighs what is known before."""
FACTOR_SPREAD = 0.5
"""Ops are taken to run about as fast in an engine as alone, within this share."""
FOLDS = 5
FEWEST_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class EngineFit:
    """What iterations of an engine cost, in terms of its ops: they are scaled, and costs of its own are added.

    Attributes
    ----------
    factors
        For each of :data:`GROUPS`, what the sum of its ops is multiplied with.
    iteration_s, chunk_s, decode_s, token_s
        Seconds an iteration, a prefill chunk, a decode and a token cost beside, on :attr:`layers` layers; on
        more layers as much more.
    layers
        Of the model whose iterations were measured.
    rows, errors, bands
        As in :class:`profiler.fitted.FittedOp`, on iterations that the fit did not see.
    """

    factors: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(GROUPS, 1.0))
    iteration_s: float = 0.0
    chunk_s: float = 0.0
    decode_s: float = 0.0
    token_s: float = 0.0
    layers: int = 1
    rows: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    bands: Bands = field(default_factory=Bands)

    def __post_init__(self) -> None:
        values = [*self.factors.values(), *(getattr(self, name) for name in COSTS)]
        if set(self.factors) != set(GROUPS) or not all(isinstance(each, int | float) for each in values):
            raise ValueError(f"an engine has a factor for each of {', '.join(GROUPS)}, and numbers as costs")
        if not all(0 <= each < inf for each in values):
            raise ValueError("an engine's factors and costs are not negative")

    def on(self, layers: int) -> EngineFit:
        """Return the same engine for a stage of ``layers`` layers."""
        share = layers / self.layers
        costs: dict[str, Any] = {name: share * getattr(self, name) for name in COSTS}
        return replace(self, layers=layers, **costs)

    def band(self, coverage: float, predicted_s: float) -> float:
        """Return the half width, in log time, of a band around ``predicted_s`` that holds ``coverage`` of unseen
        iterations."""
        return self.bands.width(coverage, predicted_s)

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        rounded = {name: float(f"{getattr(self, name):.6g}") for name in COSTS}
        factors = {name: float(f"{factor:.6g}") for name, factor in self.factors.items()}
        return {**asdict(self), **rounded, "factors": factors, "bands": self.bands.to_json()}

    @staticmethod
    def from_json(document: Mapping[str, Any] | None) -> EngineFit | None:
        """Return the fit that :meth:`to_json` described; None for none."""
        if document is None:
            return None
        return EngineFit(**{**document, "bands": Bands.from_json(document["bands"])})


def fit_engine(
    parts: Sequence[Mapping[str, float]],
    batches: Sequence[BatchLike],
    time_s: Floats,
    layers: int,
    *,
    spread_s: Floats | None = None,
) -> EngineFit:
    """Fit an engine to measured iterations.

    Relative errors are minimised over factors and costs that are not negative; factors are drawn towards 1.

    Parameters
    ----------
    parts
        For each iteration, the seconds of each of :data:`GROUPS` by ops alone.
    batches, time_s
        What each iteration ran, and its measured seconds.
    layers
        Of the model that ran.
    spread_s
        Half the range of the middle half of each iteration's times, NaN where unknown: ``time_s`` are medians, and
        bands are to hold single iterations.
    """
    terms = np.asarray([_terms(part, batch) for part, batch in zip(parts, batches, strict=True)])
    predicted = np.empty(len(time_s))
    order = np.random.default_rng(0).permutation(len(time_s))
    for fold in range(FOLDS):
        out = order[fold::FOLDS]
        kept = np.setdiff1d(order, out)
        predicted[out] = terms[out] @ _solve(terms[kept], time_s[kept])
    found = _solve(terms, time_s).tolist()
    return EngineFit(
        factors=dict(zip(GROUPS, found, strict=False)),
        **dict(zip(COSTS, found[len(GROUPS) :], strict=True)),
        layers=layers,
        rows=len(time_s),
        errors=errors(time_s, predicted),
        bands=Bands.of(time_s, predicted, spread_s),
    )


def _terms(parts: Mapping[str, float], batch: BatchLike) -> list[float]:
    tokens = batch.prefill_tokens + batch.decodes
    return [*(parts[group] for group in GROUPS), 1.0, len(batch.chunks), batch.decodes, tokens]


def _solve(terms: Floats, time_s: Floats) -> Floats:
    """Return the factors and costs; what is known of factors counts as rows with an error of its own size."""
    from scipy.optimize import nnls

    known = np.eye(len(GROUPS), terms.shape[1]) * NOISE / FACTOR_SPREAD
    rows = np.vstack([terms / time_s[:, None], known])
    aims = np.concatenate([np.ones(len(time_s)), np.full(len(GROUPS), NOISE / FACTOR_SPREAD)])
    found: Floats = nnls(rows, aims)[0]
    return found
