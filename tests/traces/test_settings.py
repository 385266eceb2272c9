"""Frozen settings from JSON objects."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from traces.errors import InputError
from traces.settings import from_mapping


@dataclass(frozen=True, kw_only=True)
class Example:
    count: int
    rate: float = 1.0
    name: str | None = None
    sizes: tuple[int, ...] = ()
    fast: bool = False

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count is {self.count}; expected an integer >= 0")


def test_values_of_the_right_type_are_taken() -> None:
    document = {"count": 3, "rate": 2, "name": None, "sizes": [1, 2], "fast": True}
    assert from_mapping(Example, document, where="x.json") == Example(
        count=3, rate=2.0, name=None, sizes=(1, 2), fast=True
    )


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"count": 1, "raet": 2}, "unknown key 'raet'; expected one of count, rate, name, sizes, fast"),
        ({"rate": 2}, "key 'count' is missing"),
        ({"count": "1"}, "key 'count' is '1'; expected int"),
        ({"count": True}, "key 'count' is True; expected int"),
        ({"count": 1.5}, "key 'count' is 1.5; expected int"),
        ({"count": 1, "name": 3}, "key 'name' is 3; expected str or null"),
        ({"count": 1, "sizes": [1, "2"]}, "key 'sizes' is [1, '2']; expected tuple"),
        ({"count": 1, "fast": 1}, "key 'fast' is 1; expected bool"),
        ({"count": -1}, "count is -1; expected an integer >= 0"),
    ],
)
def test_anything_else_is_one_error_with_the_place(document: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        from_mapping(Example, document, where="x.json")
    assert str(error.value).startswith(f"x.json: {complaint}")
