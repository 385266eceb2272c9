"""Names for the blocks of a prompt by what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np


def block_hashes(token_ids: Sequence[int], block_size: int) -> list[bytes]:
    """Return one hash for every full block of ``token_ids``, of its tokens and all before them."""
    data = np.asarray(token_ids, dtype="<i8").tobytes()
    width, name, hashes = 8 * block_size, b"", []
    for start in range(0, len(token_ids) // block_size * width, width):
        name = sha256(name + data[start : start + width]).digest()
        hashes.append(name)
    return hashes
