"""Device presets and device files."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from profiler.device import device_called, device_names, load_device
from traces.errors import InputError

NAMES = ["a100-pcie", "a100-sxm", "a40", "a6000", "cpu", "h100", "h200", "l40s", "rtx-4090", "rtx-pro-6000"]


def preset(name: str) -> dict[str, object]:
    text = files("profiler").joinpath("presets/devices", f"{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def test_every_preset_loads_under_its_own_name_and_says_where_its_figures_are_from() -> None:
    assert device_names() == NAMES
    for name in NAMES:
        device = load_device(name)
        assert device.name == name
        assert len(device.sources) > 60


@pytest.mark.parametrize(
    ("name", "tflops", "gigabytes_per_s", "sms"),
    [
        ("a6000", 154.8, 768, 84),
        ("a40", 149.7, 696, 84),
        ("a100-sxm", 312, 2039, 108),
        ("a100-pcie", 312, 1935, 108),
        ("l40s", 362.05, 864, 142),
        ("h100", 989.4, 3350, 132),
        ("h200", 989.4, 4800, 132),
        ("rtx-4090", 165.2, 1008, 128),
        ("rtx-pro-6000", 503.8, 1597, 188),
    ],
)
def test_figures_are_those_of_the_datasheet(name: str, tflops: float, gigabytes_per_s: float, sms: int) -> None:
    device = load_device(name)
    assert device.peak_flops == pytest.approx(tflops * 1e12)
    assert device.memory_bandwidth_bytes_per_s == pytest.approx(gigabytes_per_s * 1e9)
    assert device.sms == sms


def test_two_presets_agree_with_the_published_system_files(data: Path) -> None:
    import yaml

    for name, system in (("a100-sxm", "a100_sxm"), ("h100", "h100_sxm")):
        published = yaml.safe_load((data / f"profiles/aiconfigurator/{system}.yaml").read_text(encoding="utf-8"))
        device = load_device(name)
        assert device.peak_flops == pytest.approx(published["gpu"]["bfloat16_tc_flops"], rel=1e-3)
        assert device.memory_bandwidth_bytes_per_s == published["gpu"]["mem_bw"]
        assert device.link_bandwidth_bytes_per_s == published["node"]["intra_node_bw"]
        assert device.internode_bandwidth_bytes_per_s == published["node"]["inter_node_bw"]
        assert 0.97 < device.memory_bytes / published["gpu"]["mem_capacity"] < 1


def test_memory_of_the_rtx_4090_is_what_an_engine_saw(data: Path) -> None:
    meta = json.loads((data / "runs/vllm019/RTX4090/Llama-3.1-8B/vllm/meta.json").read_text(encoding="utf-8"))
    assert load_device("rtx-4090").memory_bytes == meta["hardware"]["device_total_memory_bytes"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("RTX4090", "rtx-4090"),
        ("a100_sxm", "a100-sxm"),
        ("A6000", "a6000"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("h100_sxm", "h100"),
    ],
)
def test_a_device_is_known_by_what_drivers_and_folders_call_it(said: str, name: str) -> None:
    found = device_called(said)
    assert found is not None
    assert found.name == name


def test_a_name_that_is_none_is_no_device() -> None:
    assert device_called("profiles") is None
    assert device_called("") is None


def test_beyond_the_bridge_only_the_bus_is_left() -> None:
    device = load_device("a100-pcie")
    assert device.bandwidth_between(2) == device.link_bandwidth_bytes_per_s
    assert device.bandwidth_between(4) == device.pcie_bandwidth_bytes_per_s < device.link_bandwidth_bytes_per_s


def test_a_device_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(preset("a100-sxm") | {"name": "mine", "sms": 100}))
    assert (load_device(path).name, load_device(str(path)).sms) == ("mine", 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tflops": 1}, "unknown key 'tflops'"),
        ({"sms": "many"}, "key 'sms' is 'many'"),
        ({"sms": 0}, "sms is 0"),
        ({"peak_flops": -1.0}, "peak_flops is -1"),
        ({"architecture": "volta"}, "architecture is 'volta'"),
    ],
)
def test_a_device_file_with_a_wrong_key_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(preset("a100-sxm") | change))
    with pytest.raises(InputError, match=message) as error:
        load_device(path)
    assert str(error.value).startswith(str(path))


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"unknown device 'a1000'; expected one of a100-pcie, .*rtx-pro-6000"):
        load_device("a1000")
