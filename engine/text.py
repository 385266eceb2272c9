"""From token ids to text, as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

HALF_CHARACTER = "�"


class Tokenizer(Protocol):
    """What the engine asks of a tokenizer (those of transformers have it)."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a prompt."""
        ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of token ids."""
        ...


class TextStream:
    """The text of one output while it grows, up to the first stop string.

    A token may end in the middle of a character, and what it reads as may depend on the one before; so each
    is decoded together with the last ones that gave whole text, and held back until it gives some itself.

    Attributes
    ----------
    text
        What is there so far.
    stopped
        Whether a stop string has come; ``text`` ends before it.
    ended
        Whether ``text`` stays as it is.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._token_ids: list[int] = []
        self._read = self._whole = 0
        self._given = 0
        self.text = ""
        self.stopped = False
        self.ended = False

    def push(self, token_id: int, *, may_stop: bool = True) -> None:
        """Take the next token; ``may_stop`` is False where stop strings do not count yet."""
        self._token_ids.append(token_id)
        text = self._decode(self._whole, None)
        if not text.endswith(HALF_CHARACTER):
            self._take(text[len(self._decode(self._whole, self._read)) :], may_stop=may_stop)
            self._whole, self._read = self._read, len(self._token_ids)

    def finish(self) -> None:
        """Take what was held back, half a character or not: no more will come."""
        if not self.stopped and self._read < len(self._token_ids):
            text = self._decode(self._whole, None)
            self._take(text[len(self._decode(self._whole, self._read)) :], may_stop=False)
            self._read = len(self._token_ids)
        self.ended = True

    def take(self) -> str:
        """Return what has come since the last call and stays: what may be the beginning of a stop string waits."""
        end = len(self.text) if self.ended or self.stopped else self._undoubted()
        new, self._given = self.text[self._given : end], end
        return new

    def _undoubted(self) -> int:
        """Return the length of the text before the first place at which a stop string may have begun."""
        return min((self._doubtful(stop) for stop in self._stop), default=len(self.text))

    def _doubtful(self, stop: str) -> int:
        """Return the first place from which on the text is the beginning of ``stop``, its end where there is none."""
        place = self.text.find(stop[0], max(0, len(self.text) - len(stop) + 1))
        while place >= 0 and not stop.startswith(self.text[place:]):
            place = self.text.find(stop[0], place + 1)
        return len(self.text) if place < 0 else place

    def _decode(self, start: int, end: int | None) -> str:
        return self._tokenizer.decode(self._token_ids[start:end], skip_special_tokens=True)

    def _take(self, new: str, *, may_stop: bool) -> None:
        searched = len(self.text)
        self.text += new
        if not may_stop:
            return
        places = [self.text.find(stop, max(0, searched - len(stop) + 1)) for stop in self._stop]
        first = min((place for place in places if place >= 0), default=None)
        if first is not None:
            self.stopped = True
            self.text = self.text[:first]
