"""A small model of one op's times while it is measured: what a shape takes, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiler.kernels import OpShape
from profiler.tile import Floats

TILE = 64
"""Tokens of a tile: how full the last one is makes the steps in a product's time."""
STEP_SCALE = 4.0
SIZES = ("m", "n", "k", "sequences", "query_tokens", "past_tokens", "heads", "decodes", "decode_context", "size_bytes")
SCALES = (0.7, 1.4, 2.8, 5.6)
"""Lengths, in doublings of a size, over which times are tried to be alike."""
SPREADS = (0.1, 0.2, 0.4, 0.8)
"""Standard deviations, in log time, by which physics is tried to be off."""
NUGGET = 0.005
MOST_TO_TUNE = 160
NEIGHBOURHOOD = 1.5
"""Doublings of a size within which misses tell of how sure a prediction is."""
SUREST, LEAST_SURE = 0.3, 10.0


def features(shapes: Sequence[OpShape]) -> Floats:
    """Return [shapes, features]: the logarithms of all sizes, and how empty the last tile is."""
    sizes = np.asarray([[getattr(shape, name) for name in SIZES] for shape in shapes], dtype=np.float64)
    tokens = np.maximum(sizes[:, [SIZES.index("m"), SIZES.index("query_tokens")]], 1.0)
    waste = np.log2(np.ceil(tokens / TILE) * TILE / tokens)
    return np.hstack([np.log2(1 + sizes), STEP_SCALE * np.minimum(waste, 1.0)])


def work(shapes: Sequence[OpShape]) -> Floats:
    """Return [shapes, terms]: what seconds are about proportional to, each op to some of them."""
    c = {name: np.asarray([getattr(shape, name) for shape in shapes], dtype=np.float64) for name in SIZES}
    query, past = c["sequences"] * c["query_tokens"], c["sequences"] * c["past_tokens"]
    pairs = query * (c["past_tokens"] + (c["query_tokens"] + 1) / 2)
    contexts = c["decodes"] * c["decode_context"]
    attention = (c["sequences"], query, past, pairs, c["decodes"], contexts)
    products = (c["m"] * c["n"] * c["k"], c["n"] * c["k"], c["m"] * (c["n"] + c["k"]))
    return np.stack([np.ones(len(shapes)), c["m"], *products, c["size_bytes"], *attention], axis=1)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a surrogate says of some shapes.

    Attributes
    ----------
    time_s
        float64 [shapes].
    deviation
        How unsure that is: a standard deviation of the log time, float64 [shapes].
    """

    time_s: Floats
    deviation: Floats


class Surrogate:
    """Physics with coefficients that are not negative, and a Gaussian process for what that misses.

    The process says how far a shape is from those that were measured. Where its own predictions of measured
    shapes from the others (leave one out) miss by more than it expected, it is made that much less sure: at a cliff
    the measured shapes lie close together, and still miss each other.

    Parameters
    ----------
    shapes, time_s
        What was measured, and its seconds.
    noise
        Standard error of the log of each time.

    Attributes
    ----------
    surprise
        By how much the log of each time misses what the others say of it, beyond what was to be expected, [points].
    remaining
        The variance that is left of the log of each time, given all of them, [points].
    """

    def __init__(self, shapes: Sequence[OpShape], time_s: Floats, noise: Floats) -> None:
        from scipy.linalg import cho_factor, cho_solve

        self._terms = work(shapes)
        self._coefficients = _physics(self._terms, time_s)
        self._features = features(shapes)
        left = np.log(time_s / (self._terms @ self._coefficients))
        self._offset = float(np.median(left))
        left = left - self._offset
        variance = noise**2 + NUGGET**2
        self._scale, self._spread = _tuned(self._features, left, variance)
        kernel = self._kernel(self._features, self._features) + np.diag(variance)
        self._factor = cho_factor(kernel, lower=True)
        self._weights = cho_solve(self._factor, left)
        inverse = np.diag(cho_solve(self._factor, np.eye(len(left))))
        miss, expected = np.abs(self._weights / inverse), np.sqrt(1 / inverse)
        self.surprise: Floats = np.maximum(miss - 2 * expected, 0.0)
        self.remaining: Floats = variance - variance**2 * inverse
        self._misses = np.clip((miss / expected) ** 2, SUREST**2, LEAST_SURE**2)

    def predict(self, shapes: Sequence[OpShape]) -> Prediction:
        """Return what ``shapes`` should take."""
        from scipy.linalg import solve_triangular

        points = features(shapes)
        across = self._kernel(self._features, points)
        seen = solve_triangular(self._factor[0], across, lower=True)
        variance = np.maximum(self._spread**2 - (seen**2).sum(axis=0), 0.0)
        correction = self._offset + across.T @ self._weights
        time_s = work(shapes) @ self._coefficients * np.exp(correction)
        return Prediction(time_s, np.sqrt(variance * self._unease(points)))

    def batch(
        self, shapes: Sequence[OpShape], worth: Floats, cost_s: Floats, budget_s: float, noise: float
    ) -> list[tuple[int, float]]:
        """Return which of ``shapes`` to measure, for about ``budget_s`` seconds, each with what it takes away a second.

        One after the other, the one that takes away the most variance a second is taken; what it will tell of the
        others is then taken as known.

        Parameters
        ----------
        worth
            What each shape counts, [shapes].
        cost_s
            What measuring it takes, [shapes].
        noise
            Standard error of the log of each time that a visit gives.
        """
        from scipy.linalg import solve_triangular

        points = features(shapes)
        seen = solve_triangular(self._factor[0], self._kernel(self._features, points), lower=True)
        variance = np.maximum(self._spread**2 - (seen**2).sum(axis=0), 0.0)
        value = self._unease(points) * worth**2 / np.maximum(cost_s, 1e-9)
        chosen: list[tuple[int, float]] = []
        while budget_s > 0 and len(chosen) < len(shapes):
            gain = taken_away(variance, noise**2) * value
            best = int(np.argmax(gain))
            if variance[best] <= NUGGET**2:
                break
            chosen.append((best, float(gain[best])))
            across = self._kernel(points[[best]], points)[0] - seen[:, best] @ seen
            seen = np.vstack([seen, across / np.sqrt(variance[best] + noise**2 + NUGGET**2)])
            variance = np.maximum(variance - seen[-1] ** 2, 0.0)
            variance[best] = 0.0
            budget_s -= float(cost_s[best])
        return chosen

    def _unease(self, points: Floats) -> Floats:
        """Return by how much variances are to be multiplied, [points]: squared misses nearby over those expected."""
        near = np.exp(-0.5 * (_distances(self._features, points) / NEIGHBOURHOOD) ** 2) + 1e-9
        return np.asarray((near * self._misses[:, None]).sum(axis=0) / near.sum(axis=0), dtype=np.float64)

    def _kernel(self, one: Floats, other: Floats) -> Floats:
        return matern(_distances(one, other) / self._scale, self._spread)


def taken_away(variance: Floats, noise: Floats | float) -> Floats:
    """Return by how much a measurement with variance ``noise`` makes ``variance`` smaller."""
    return np.asarray(variance**2 / (variance + noise + NUGGET**2), dtype=np.float64)


def matern(distance: Floats, spread: float) -> Floats:
    """Return the covariance of a process that is once differentiable (Matern 3/2)."""
    scaled = np.sqrt(3.0) * distance
    return np.asarray(spread**2 * (1 + scaled) * np.exp(-scaled), dtype=np.float64)


def _distances(one: Floats, other: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(one, other), dtype=np.float64)


def _physics(terms: Floats, time_s: Floats) -> Floats:
    """Return coefficients, none negative, by which ``terms`` explain times with the least relative error."""
    from scipy.optimize import nnls

    scale = np.maximum(terms.max(axis=0), 1e-30)
    found = nnls(terms / scale / time_s[:, None], np.ones(len(time_s)))[0] / scale
    floor = 1e-3 * float(time_s.min())
    found[0] = max(found[0], floor)
    return np.asarray(found, dtype=np.float64)


def _tuned(points: Floats, left: Floats, variance: Floats) -> tuple[float, float]:
    """Return the length and the spread under which what is ``left`` is likeliest, by some of the points."""
    some = np.arange(0, len(left), -(-len(left) // MOST_TO_TUNE))
    points, left, variance = points[some], left[some], variance[some]
    distance = _distances(points, points)
    tried = [(scale, spread) for scale in SCALES for spread in SPREADS]
    likelihood = [_likelihood(matern(distance / scale, spread), left, variance) for scale, spread in tried]
    return tried[int(np.argmax(likelihood))]


def _likelihood(kernel: Floats, left: Floats, variance: npt.NDArray[np.float64]) -> float:
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(kernel + np.diag(variance), lower=True)
    return float(-0.5 * left @ cho_solve(factor, left) - np.log(np.diag(factor[0])).sum())
