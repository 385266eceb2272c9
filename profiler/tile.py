"""Matrix products run in whole tiles, and tiles in whole waves over the multiprocessors of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Tile(NamedTuple):
    """The part of an output that one thread block computes: ``rows`` x ``columns`` elements."""

    rows: int
    columns: int


LARGE = (Tile(256, 128), Tile(128, 256))
MIDDLE = (Tile(128, 128),)
NARROW = (Tile(128, 64), Tile(64, 128))
SMALL = (Tile(64, 64),)
FAMILIES: tuple[tuple[Tile, ...], ...] = (LARGE, MIDDLE, NARROW, SMALL)
ALL_TILES = tuple(tile for family in FAMILIES for tile in family)


def tiles_of(m: Floats, n: Floats, tile: Tile) -> Floats:
    """Return how many tiles cover an [m, n] output."""
    return np.asarray(np.ceil(m / tile.rows) * np.ceil(n / tile.columns), dtype=np.float64)


def wave_waste(m: Floats, n: Floats, tile: Tile, sms: int) -> Floats:
    """Return work done / work needed when ``sms`` multiprocessors run whole waves of whole tiles (>= 1)."""
    waves = np.ceil(tiles_of(m, n, tile) / sms)
    return np.asarray(waves * sms * tile.rows * tile.columns / (m * n), dtype=np.float64)


def quantised_flops(m: Floats, n: Floats, k: Floats, sms: int, efficiency: Sequence[float], stiffness: float) -> Floats:
    """Return the FLOPs a perfect device would do in the time that the best tile shape needs.

    Parameters
    ----------
    m, n, k
        The product [m, k] x [k, n].
    sms
        Multiprocessors that share the tiles.
    efficiency
        Share of the peak that a tile of each of :data:`FAMILIES` reaches.
    stiffness
        1: a wave that is not full costs as much as a full one; 0: it costs its share.
    """
    best = np.full(np.broadcast(m, n, k).shape, np.inf)
    for family, share in zip(FAMILIES, efficiency, strict=True):
        for tile in family:
            tiles = tiles_of(m, n, tile)
            paid = stiffness * np.ceil(tiles / sms) * sms + (1 - stiffness) * tiles
            best = np.minimum(best, paid * (2.0 * tile.rows * tile.columns) * k / share)
    return best
