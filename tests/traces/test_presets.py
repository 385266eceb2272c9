"""The presets against the statistics that were published, and against the data they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from traces.generator import GeneratorSettings, generate
from traces.presets import preset_lengths, preset_names
from traces.readers import read_workload

PUBLISHED = {
    "chat": {"prompt": (1730, 5696, 2088), "output": (415, 834, 265), "longest": 8192},
    "summarization": {"prompt": (7059, 12985, 3638), "output": (208, 371, 101), "longest": 16384},
}


def test_there_is_a_preset_for_each_dataset_of_the_paper():
    assert set(preset_names()) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("side", ["prompt", "output"])
def test_percentiles_and_spread_are_the_published_ones(name, side):
    workload = generate(GeneratorSettings(lengths=preset_lengths(name), num_prompts=50_000, seed=11))
    lengths = getattr(workload, f"{side}_tokens")
    p50, p90, spread = PUBLISHED[name][side]
    assert np.percentile(lengths, [50, 90]) == pytest.approx([p50, p90], rel=0.02)
    assert lengths.std() == pytest.approx(spread, rel=0.1)
    assert workload.total_tokens.max() <= PUBLISHED[name]["longest"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_2048_requests_of_an_experiment_are_near_them(name):
    for seed in range(5):
        workload = generate(GeneratorSettings(lengths=preset_lengths(name), seed=seed))
        for side in ("prompt", "output"):
            p50, p90, _ = PUBLISHED[name][side]
            found = np.percentile(getattr(workload, f"{side}_tokens"), [50, 90])
            assert found == pytest.approx([p50, p90], rel=0.08)


@pytest.mark.data
def test_the_chat_preset_has_the_lengths_of_the_chat_data(data):
    real = read_workload(data / "traces" / "sharegpt_8k.csv.gz")
    drawn = generate(GeneratorSettings(lengths=preset_lengths("chat"), num_prompts=len(real)))
    assert np.percentile(real.prompt_tokens, [50, 90]).tolist() == [1730, 5696]
    assert drawn.prompt_tokens.mean() == pytest.approx(real.prompt_tokens.mean(), rel=0.03)
    assert drawn.output_tokens.mean() == pytest.approx(real.output_tokens.mean(), rel=0.1)
