"""Generated workloads: the same settings give the same requests, also through JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from traces.arrivals import (
    AllAtOnce,
    ConstantArrivals,
    GammaArrivals,
    PoissonArrivals,
    TraceArrivals,
)
from traces.errors import InputError
from traces.generator import GeneratorSettings, generate
from traces.lengths import (
    FixedLengths,
    LognormalLengths,
    TraceLengths,
    UniformLengths,
    ZipfLengths,
)

ARRIVALS = [
    None,
    AllAtOnce(),
    ConstantArrivals(request_rate=2.0),
    PoissonArrivals(request_rate=2.0),
    GammaArrivals(request_rate=2.0, burstiness=0.5),
    TraceArrivals(path="a.csv"),
]
LENGTHS = [
    FixedLengths(prompt_tokens=3, output_tokens=4),
    UniformLengths(prompt_min=1, prompt_max=9, output_min=1, output_max=9),
    ZipfLengths(),
    LognormalLengths(prompt_p50=100, prompt_p90=300, output_p50=10, output_p90=20, total_max=500),
    TraceLengths(path="b.csv"),
]


@pytest.mark.parametrize("arrivals", ARRIVALS)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_settings_survive_json(arrivals, lengths):
    settings = GeneratorSettings(lengths=lengths, arrivals=arrivals, num_prompts=7, seed=9, name="x")
    document = json.loads(json.dumps(settings.document(), allow_nan=False))
    assert GeneratorSettings.from_document(document) == settings


@pytest.mark.parametrize("arrivals", ARRIVALS[:-1])
@pytest.mark.parametrize("lengths", LENGTHS[:-1])
def test_the_same_settings_give_the_same_workload_and_another_seed_another(arrivals, lengths):
    settings = GeneratorSettings(lengths=lengths, arrivals=arrivals, num_prompts=100)
    one, two = generate(settings), generate(settings)
    for column in ("arrival_s", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(one, column), getattr(two, column))
    assert len(one) == 100
    assert one.timed == (arrivals is not None)
    if not isinstance(lengths, FixedLengths):
        other = generate(replace(settings, seed=1))
        assert other.prompt_tokens.tolist() != one.prompt_tokens.tolist()


def test_arrivals_can_change_alone():
    settings = GeneratorSettings(lengths=ZipfLengths(), arrivals=PoissonArrivals(request_rate=1.0))
    other = replace(settings, arrivals=GammaArrivals(request_rate=9.0, burstiness=0.1))
    np.testing.assert_array_equal(generate(settings).prompt_tokens, generate(other).prompt_tokens)


BAD = [
    ({}, "key 'lengths' is missing"),
    (
        {"lengths": {"kind": "normal"}},
        r"key 'lengths' holds .*; expected an object whose kind is one of fixed",
    ),
    ({"lengths": {"kind": ["fixed"]}}, "key 'lengths' holds"),
    ({"lengths": "fixed"}, "key 'lengths' holds 'fixed'"),
    ({"lengths": {"kind": "fixed", "prompt_tokens": 1}}, "s.json, lengths: key 'output_tokens' is missing"),
    ({"lengths": {"kind": "zipf", "theta": "a"}}, "s.json, lengths: key 'theta' is 'a'; expected float"),
    ({"lengths": {"kind": "zipf", "alpha": 1}}, "s.json, lengths: unknown key 'alpha'"),
    (
        {"lengths": {"kind": "zipf"}, "arrivals": {"kind": "poisson"}},
        "arrivals: key 'request_rate' is missing",
    ),
    ({"lengths": {"kind": "zipf"}, "rate": 1}, "s.json: unknown key 'rate'"),
    ({"lengths": {"kind": "zipf"}, "num_prompts": 0}, "num_prompts is 0"),
    ({"lengths": {"kind": "zipf"}, "seed": -1}, "seed is -1"),
]


@pytest.mark.parametrize(("document", "message"), BAD)
def test_settings_that_are_none_are_refused(document, message):
    with pytest.raises(InputError, match=message):
        GeneratorSettings.from_document(document, where="s.json")
