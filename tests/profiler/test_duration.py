"""Durations on a command line."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.duration import parse_duration
from traces.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("60s", 60), ("2m", 120), ("1h", 3600), ("0.5h", 1800), (" 90 S ", 90), (".5", 0.5)],
)
def test_seconds_minutes_and_hours(text: str, seconds: float) -> None:
    assert parse_duration(text, option="--budget") == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "0", "0s", "-5", "1d", "1h30m", "nan", "inf", "1e3", "soon", "60 s s", "8761h"]
)
def test_nonsense_is_answered_with_what_would_do(text: str) -> None:
    with pytest.raises(InputError, match=r"--budget: .*; expected a time above 0, up to a week: 60, 60s, 2m or 1h"):
        parse_duration(text, option="--budget")


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_an_input_error(text: str) -> None:
    with suppress(InputError):
        assert 0 < parse_duration(text, option="--budget") <= 7 * 24 * 3600
