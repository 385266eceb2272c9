"""A demand that was written down is drawn again, request by request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traces.demand import Demand, Drawn
from traces.errors import InputError

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2024-05-10 00:00:{second:02d},{100 + second},{5 + second % 3}\n" for second in range(40)
)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("own", [{"source": "chat", "num_prompts": 20, "burstiness": 0.5}, {"arrivals": "trace"}])
def test_what_is_written_down_is_drawn_again(trace: str, own: dict[str, Any], seed: int) -> None:
    demand = Demand(**{"source": trace, "length_scale": 0.5, **own})
    drawn = Drawn(demand=demand, request_rate=3.5, seed=seed)
    again = Drawn.from_dict(json.loads(json.dumps(drawn.as_dict())), where="policy.json")
    assert again == drawn
    one, other = demand.workload(3.5, seed), again.workload()
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"request_rate": 0}, "request rate 0"),
        ({"request_rate": "fast"}, "key 'request_rate' is 'fast'"),
        ({"seed": -1}, "seed is -1"),
        ({"arrivals": "trace"}, "chat: has no arrival times; expected --arrivals poisson"),
        ({"arrivals": "gamma"}, "key 'arrivals' is 'gamma'; expected poisson or trace"),
        ({"num_prompts": 2.5}, "key 'num_prompts' is 2.5"),
        ({"speed": 2}, "unknown key 'speed'"),
        ({"source": None}, "key 'source' is None"),
    ],
)
def test_what_is_no_workload_is_refused(changes: dict[str, Any], complaint: str) -> None:
    document = {"source": "chat", "request_rate": 2.0, "seed": 0, **changes}
    with pytest.raises(InputError, match=complaint):
        Drawn.from_dict(document, where="policy.json")


def test_a_rate_is_needed() -> None:
    with pytest.raises(InputError, match="'request_rate' is missing"):
        Drawn.from_dict({"source": "chat"}, where="policy.json")
