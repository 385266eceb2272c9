"""Where a margin that rises with the rate becomes positive, in few evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import NamedTuple

CUT = 1.0
"""Margins are cut to this much either way before a line is drawn from one that holds to one that fails: a delay
explodes within a few percent."""
USUAL_SLOPE = 1.5
LEAST_SLOPE, MOST_SLOPE = 0.2, 20.0
BEYOND = 0.45
"""A point is put this many tolerances beyond the expected crossing, to have it between two points."""
FIRST_STEP = (0.15, 1.0)
"""Least and most, in logs of the rate, of a step towards the crossing while its slope is not known."""
NEAR = 4
"""Most tolerances of such a step where the slope is known from another seed: its crossing is not far."""
MOST_GROWTH = 1.5
"""How much longer a step may be than the one before."""
WIDE = 2.0
"""What holds so far below what fails, in logs, tells nothing of the slope at the crossing."""
FLATTEST = 0.05
"""A line that rises by less does not say where it crosses zero."""


class Point(NamedTuple):
    """A log rate, and the margin there."""

    x: float
    margin: float


@dataclass(kw_only=True)
class Bracket:
    """A search for the LOWEST rate at which the margin is positive, on a log scale.

    Bracketing by growing steps, then lines between both ends (regula falsi) that aim a little beyond the crossing, and
    bisection where three steps did not halve the bracket, or margins that hold are flat. Where two steps down promise
    nothing the floor is looked at. A margin that is not monotone has one of its crossings found: nothing above a rate
    that failed is looked at.

    Attributes
    ----------
    guess
        Log rate at which to begin.
    tolerance
        Width of the bracket that is good enough.
    floor, top
        Log rates that end the search: a failure at or below the floor means that no rate holds; what holds at the top
        holds at any rate.
    ceiling
        Log rate from which on it is known to fail.
    probable
        Log rate beyond which it is likely to fail: the first step up goes there.
    slope
        What the margin rises by, about, when the log rate rises by one; None: not known.
    """

    guess: float
    tolerance: float
    floor: float
    top: float
    ceiling: float = inf
    probable: float = -inf
    slope: float | None = None
    points: list[Point] = field(default_factory=list)
    _widths: list[float] = field(default_factory=list)

    @property
    def high(self) -> Point | None:
        """The lowest point that failed; None where none did."""
        failed = [point for point in self.points if point.margin > 0]
        return min(failed) if failed else None

    @property
    def low(self) -> Point | None:
        """The highest point below all that failed; None where none held."""
        high = self.high
        held = [point for point in self.points if point.margin <= 0 and (high is None or point.x < high.x)]
        return max(held) if held else None

    @property
    def low_x(self) -> float:
        """Up to where it holds; minus infinity where it never does."""
        return self.low.x if self.low else -inf

    @property
    def high_x(self) -> float:
        """From where on it fails; infinity where it never does."""
        return self.high.x if self.high else self.ceiling

    @property
    def width(self) -> float:
        """How far apart they are."""
        return self.high_x - self.low_x

    @property
    def unmet(self) -> bool:
        """Whether it fails at the floor."""
        return self.high_x <= self.floor

    @property
    def unlimited(self) -> bool:
        """Whether it holds at the top."""
        return self.low_x >= self.top

    def add(self, x: float, margin: float) -> None:
        """Take in the margin at a log rate."""
        self.points.append(Point(x, margin))
        self._widths.append(self.width)

    def next_x(self, *, last: bool = False) -> float | None:
        """Return the log rate to look at next; None where the crossing is known well enough.

        ``last``: there is no other look, so that the floor says most where all has failed so far.
        """
        if not self.points:
            return min(self.top, max(self.floor, self._below_ceiling(self.guess)))
        if self.unmet or self.unlimited or self.width <= self.tolerance:
            return None
        if self.low is None:
            return self.floor if self._hopeless(last=last) else max(self.floor, self.high_x - self._step())
        if self.high_x == inf:
            return min(self.top, self.low_x + self._step())
        return self._within()

    def crossing(self) -> float:
        """Return the log rate at which the margin becomes positive, as well as it is known."""
        low, high = self._beside()
        if self.unmet:
            return -inf
        if low is None or high is None:
            end = low or high
            assert end is not None
            far = self.width if self.low and self.high else 1.0
            crossing = min(self.ceiling, end.x - min(far, max(-far, end.margin / self.steepness())))
        else:
            crossing = low.x + (high.x - low.x) * _share(low.margin, high.margin)
        return max(crossing, 0.5 * (self.low_x + self.high_x)) if self._flat and self.width < inf else crossing

    def ends(self) -> tuple[float, float]:
        """Return the log rates between which the crossing is.

        Where no point is on the other side of it, the end there is as far again as the line through the points goes
        beyond them, and a tolerance: a slope that is wrong by a factor of 2 is within that.
        """
        if self.unlimited:
            return self.low_x, inf
        crossing = self.crossing()
        low_x = self.low_x if self.low or self.unmet else 2 * crossing - self.high_x - self.tolerance
        if self.high or not self.low:
            return low_x, self.high_x
        return low_x, min(self.ceiling, 2 * crossing - self.low_x + self.tolerance)

    def steepness(self) -> float:
        """Return the slope: between the points beside the crossing, else as it was given, else a usual one."""
        near = _nearest(self.points, *self._beside())
        if len(near) == 2 and near[1].x > near[0].x:
            below, above = (point.margin for point in near)
            rise = _cut(above) - _cut(below) if below <= 0 < above else above - below
            return min(MOST_SLOPE, max(LEAST_SLOPE, rise / (near[1].x - near[0].x)))
        return self.slope or USUAL_SLOPE

    def _beside(self) -> tuple[Point | None, Point | None]:
        """The points on either side of the crossing, without a low one that is far from it."""
        return None if self.high and self.width >= WIDE else self.low, self.high

    @property
    def _flat(self) -> bool:
        """Whether the margin hardly rises up to where it holds, so that no line tells when it will fail: a policy that
        fills every iteration up to its limit is just within it until it breaks down."""
        held = sorted(point for point in self.points if point.x <= self.low_x)[-2:]
        return len(held) == 2 and held[1].margin - held[0].margin < FLATTEST * (held[1].x - held[0].x)

    def _hopeless(self, *, last: bool) -> bool:
        """Whether only the floor is left: two failed, and the line through the lowest two fails there as well."""
        if len(self.points) < 2:
            return False
        one, two = _nearest(self.points, None, self.high)
        rise = (two.margin - one.margin) / (two.x - one.x)
        return last or one.margin > rise * (one.x - self.floor)

    def _below_ceiling(self, x: float) -> float:
        return min(x, self.ceiling - 0.9 * self.tolerance)

    def _step(self) -> float:
        """How far to go from the outermost point, all of whose fellows are on the same side."""
        end = self.low or self.high
        assert end is not None
        if len(self.points) > 1:
            return self._further(abs(end.margin))
        if self.slope is not None:
            return min(NEAR * self.tolerance, abs(_cut(end.margin)) / self.slope + BEYOND * self.tolerance)
        if self.low and self.probable > end.x:
            return self.probable + BEYOND * self.tolerance - end.x
        least, most = FIRST_STEP
        return min(most, max(least, abs(end.margin) / USUAL_SLOPE))

    def _further(self, distance: float) -> float:
        """A step by the line through the two outermost points: longer where such steps have fallen short before."""
        near = _nearest(self.points, self.low, self.high)
        before = max(self.tolerance, near[1].x - near[0].x)
        slope = (near[1].margin - near[0].margin) / (near[1].x - near[0].x)
        if slope < FLATTEST:
            return 2 * before
        step = distance / slope + BEYOND * self.tolerance
        return min(MOST_GROWTH * before, max(self.tolerance * 2.0 ** (len(self.points) - 2), step))

    def _within(self) -> float:
        low_x, width = self.low_x, self.width
        slow = len(self._widths) >= 4 and width > 0.5 * self._widths[-4]
        if width <= 2 * self.tolerance or slow:
            return low_x + 0.5 * width
        return min(self.high_x - 0.1 * width, max(low_x + 0.1 * width, self._aimed()))

    def _aimed(self) -> float:
        """The expected crossing, and a little beyond it on the side that leaves more."""
        crossing, beyond = self.crossing(), BEYOND * self.tolerance
        if self.high is None:
            return min(crossing + beyond, self.ceiling - 0.9 * self.tolerance)
        return crossing + beyond if self.high_x - crossing > crossing - self.low_x else crossing - beyond


def _cut(margin: float) -> float:
    return min(CUT, max(-CUT, margin))


def _share(low: float, high: float) -> float:
    """Where between two margins a line between them is zero."""
    low, high = _cut(low), _cut(high)
    return -low / (high - low)


def _nearest(points: Sequence[Point], low: Point | None, high: Point | None) -> list[Point]:
    """Return the two points beside the crossing, or the two nearest to it where all are on one side."""
    if low is not None and high is not None:
        return [low, high]
    ordered = sorted(points)
    return ordered[-2:] if high is None else [point for point in ordered if point.x >= high.x][:2]


def log_tolerance(tolerance: float) -> float:
    """Return the width in logs of a bracket whose upper end is so much above its lower, as a share."""
    return log(1 + tolerance)
