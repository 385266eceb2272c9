"""SARATHI, the first paper: chunked prefills and decode-maximal batches."""

from __future__ import annotations

from dataclasses import dataclass

from policies.batch import Batch
from policies.reserving import ReservingPolicy
from policies.settings import Settings


@dataclass(frozen=True, kw_only=True)
class SarathiSettings(Settings):
    """Settings of SARATHI.

    Attributes
    ----------
    chunk_size
        Tokens of a batch, a multiple of ``tile_size``: the chunk is this less the decodes beside it.
    tile_size
        Rows of a tile of the device's matrix products.
    """

    chunk_size: int = 256
    tile_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("tile_size", 1)
        if self.chunk_size < 1 or self.chunk_size % self.tile_size:
            raise ValueError(f"chunk_size is {self.chunk_size}; expected a multiple of tile_size {self.tile_size}")

    def most_tokens(self, max_model_len: int) -> int:  # noqa: ARG002
        """Return the tokens of the largest batch."""
        return max(self.chunk_size, self.max_num_seqs)


class Sarathi(ReservingPolicy):
    """One prefill chunk, and decodes that ride along (SARATHI, sections 4.2 to 4.4).

    The chunk gives way to the decodes, so that the linear layers see exactly a multiple of the tile size.
    """

    name = "sarathi"
    settings: SarathiSettings

    def _chunk_repeats(self, batch: Batch) -> int:
        return self._same_chunks(batch, self.settings.chunk_size)

    def _fill(self, batch: Batch) -> None:
        self._decode_all(batch)
        room = self.settings.chunk_size - batch.tokens
        if room <= 0 or self._room(batch) <= 0:
            return
        if self.prefilling:
            sequence = self.prefilling.pop(0)
            batch.prefill(sequence, min(sequence.left, room))
        elif self._can_admit(batch):
            self._admit(batch, min(self.waiting[0].left, room))
