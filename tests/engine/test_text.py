"""Text as it comes, with a real byte-level tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("transformers", reason="the engine needs transformers")

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.text import TextStream


def byte_tokenizer() -> Any:
    """One token a byte, so that a character may take four."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


TOKENIZER = byte_tokenizer()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="�")))
def test_text_comes_whole_whatever_its_characters(text: str) -> None:
    stream, seen = TextStream(TOKENIZER), [""]
    for token in TOKENIZER.encode(text):
        stream.push(token)
        assert stream.text.startswith(seen[-1])
        assert "�" not in stream.text
        seen.append(stream.text)
    stream.finish()
    assert stream.text == text
    assert not stream.stopped


@given(st.text("ab€", min_size=1), st.lists(st.text("ab€", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_first_stop_string_ends_it(text: str, stop: list[str]) -> None:
    stream = TextStream(TOKENIZER, stop)
    for token in TOKENIZER.encode(text):
        stream.push(token)
        if stream.stopped:
            break
    ends = [place + len(each) for each in stop if (place := text.find(each)) >= 0]
    assert stream.stopped == bool(ends)
    if ends:
        seen = text[: min(ends)]
        starts = [seen.find(each) for each in stop if each in seen]
        assert stream.text == seen[: min(starts)]
    else:
        assert stream.text == text


def test_half_a_character_at_the_end_is_shown() -> None:
    stream = TextStream(TOKENIZER)
    for token in TOKENIZER.encode("a€")[:-1]:
        stream.push(token)
    assert stream.text == "a"
    stream.finish()
    assert stream.text == "a�"


def test_stop_strings_may_be_told_to_wait() -> None:
    stream = TextStream(TOKENIZER, ["b"])
    for place, token in enumerate(TOKENIZER.encode("abcb")):
        stream.push(token, may_stop=place >= 2)
    assert stream.stopped
    assert stream.text == "abc"


@given(st.text("ab€", min_size=1), st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3), st.integers(0, 6))
def test_what_is_taken_is_never_taken_back(text: str, stop: list[str], least: int) -> None:
    stream, taken = TextStream(TOKENIZER, stop), ""
    for place, token in enumerate(TOKENIZER.encode(text)):
        stream.push(token, may_stop=place >= least)
        taken += stream.take()
        assert stream.text.startswith(taken)
        if stream.stopped:
            break
        held = stream.text[len(taken) :]
        assert (not held) or any(each.startswith(held) for each in stop), "nothing is held back in vain"
    stream.finish()
    assert taken + stream.take() == stream.text
    assert stream.take() == ""
