"""How many prompt tokens fit into the time that there is."""

from __future__ import annotations

from collections.abc import Callable

from policies.prospect import Prospect

STEP = 64
"""Tokens of a batch are tried in multiples of this: matrix products run in tiles, usually of so many rows or twice."""
TRIES = 8


class Budget:
    """Chooses the tokens of one batch after another; where it found them last, it looks first.

    Parameters
    ----------
    seconds_of
        Returns the expected time of a batch.
    most
        Most tokens of a batch.
    least
        Prompt tokens that a batch gets even where there is no time left.
    """

    def __init__(self, seconds_of: Callable[[Prospect], float], *, most: int, least: int) -> None:
        self._seconds_of = seconds_of
        self._most = most
        self._least = least
        self._last = 8 * STEP

    def spend(self, prospect: Prospect, limit_s: float, most: int | None = None) -> float:
        """Let ``prospect`` hold as many prompt tokens as take no longer than ``limit_s``; at least the first few.

        ``most`` are the most tokens of the batch, where that is less than usual.

        Returns the expected seconds.
        """
        most = max(1, min(most or self._most, self._most) - prospect.decodes)
        tokens, time_s = self._fitting(prospect, limit_s, most)
        if prospect.take(tokens or min(self._least, most)) == tokens:
            return time_s
        return self._seconds_of(prospect)

    def _fitting(self, prospect: Prospect, limit_s: float, most: int) -> tuple[int, float]:
        """Return the most prompt tokens within the limit, to a multiple of :data:`STEP` of all tokens, and their time.

        Each try tells by its mean time a token where to look next. That is more than another token takes, so that the
        search comes near from below; it ends at the step that is too much.
        """
        decodes = prospect.decodes
        low, low_s, high = 0, 0.0, most + STEP
        asked = min(most, max(self._last, (decodes // STEP + 1) * STEP) - decodes)
        for _ in range(TRIES):
            tried = prospect.take(asked)
            time_s = self._seconds_of(prospect)
            if time_s <= limit_s:
                low, low_s = tried, time_s
                if tried < asked or tried == most:
                    return low, low_s
            else:
                high = tried
            reach = tried + int((limit_s - time_s) / time_s * (tried + decodes))
            first, last = (low + decodes) // STEP + 1, (high + decodes - 1) // STEP
            if first > last:
                break
            asked = min(most, max(first, min(last, (reach + decodes) // STEP)) * STEP - decodes)
        self._last = low + decodes
        return self._faster(prospect, low, low_s)

    def _faster(self, prospect: Prospect, tokens: int, time_s: float) -> tuple[int, float]:
        """Return one step of tokens less, where that makes more tokens a second: a last tile that is half empty."""
        fewer = prospect.take(max(tokens - STEP, 0))
        if fewer:
            fewer_s = self._seconds_of(prospect)
            if fewer_s * (tokens + prospect.decodes) < time_s * (fewer + prospect.decodes):
                return fewer, fewer_s
        return tokens, time_s


def cheapest(seconds_of: Callable[[int], float], most: int) -> int:
    """Return the number of tokens, up to ``most``, of which each costs least where they run together.

    In small batches nobody shares the weights that have to be read; in large ones attention costs more, and matrix
    products run in waves, of which the last may be nearly empty.
    """
    tried: list[int] = [*range(STEP, most, STEP), most]
    return min(tried, key=lambda tokens: seconds_of(tokens) / tokens)
