"""The sweep of latency targets, and the same on later devices."""

from dataclasses import replace

import pytest

from simulator.paper.serving import serving_today, slo_sweep
from simulator.paper.serving.setup import MISTRAL_7B, RELAXED, STRICT, YI_34B
from simulator.trials.plan import carry_out


def test_the_sweep_of_few_requests(tmp_path):
    found = carry_out(slo_sweep.plan(tmp_path, requests=16))
    assert [each.published for each in found.findings] == [3.5, 3.5, 1.65, 1.0, 1.0]
    figure = found.panels[0].figure
    assert len(figure.data) == len(slo_sweep.SETUPS) * len(slo_sweep.SETTINGS)
    assert "(ms)" in figure.layout.xaxis.title.text
    assert "requests/s" in figure.layout.yaxis.title.text
    for curve in figure.data:
        assert list(curve.y) == sorted(curve.y)


def test_the_targets_swept_run_from_strict_to_relaxed():
    for setup in slo_sweep.SETUPS:
        limits = slo_sweep.TBT_S[setup.model]
        assert (limits[0], limits[-1]) == (setup.tbt_s[STRICT], setup.tbt_s[RELAXED])


def test_targets_are_multiples_of_an_iteration_of_each_device():
    limits = {device: serving_today.targets_s(replace(YI_34B, device=device)) for device in serving_today.DEVICES}
    for each in limits.values():
        assert each[RELAXED] == pytest.approx(5 * each[STRICT])
    assert limits["a100-pcie"][STRICT] == pytest.approx(YI_34B.tbt_s[STRICT], rel=0.1)
    assert limits["h200"][STRICT] < limits["h100"][STRICT] < limits["a100-pcie"][STRICT]


def test_slack_is_told_the_target():
    choice = serving_today.choice_of(MISTRAL_7B, serving_today.SLACK, RELAXED)
    assert choice.settings.tbt_s == 0.5
    assert serving_today.choice_of(MISTRAL_7B, serving_today.VLLM_V1, STRICT).settings.max_num_batched_tokens == 2048


def test_later_devices_with_few_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_today, "SETUPS", (MISTRAL_7B,))
    found = carry_out(serving_today.plan(tmp_path, requests=8))
    assert len(found.tables[0].rows) == 6
    bars = found.panels[0].figure.data
    assert len(bars) == len(serving_today.POLICIES) * 2
    assert all(len(bar.x) == len(serving_today.DEVICES) for bar in bars)
