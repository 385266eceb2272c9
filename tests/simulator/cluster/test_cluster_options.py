"""A cluster from options and from a file, and what is refused before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulator.cluster_options import ClusterOptions
from simulator.cluster_settings import GroupSettings, read_cluster
from simulator.failures import Outage
from simulator.session import Request, compare, prepare
from traces.errors import InputError
from traces.run_record import read_run

ROOT = Path(__file__).resolve().parents[3]
FILE = {
    "groups": [
        {"count": 2, "device": "a100-sxm", "max_num_seqs": 32},
        {"device": "h100", "tensor_parallel_size": 2, "pipeline_parallel_size": 2, "max_num_batched_tokens": 1024},
    ],
    "router": {"name": "prefix-affinity", "overload": 2.0},
    "failures": {"listed": [{"replica": 2, "failed_s": 5, "down_s": 3}]},
}


def request(tmp_path: Path, **options: Any) -> Request:
    settings: dict[str, Any] = {
        "workload": "chat",
        "policies": "sarathi-serve",
        "output": tmp_path / "out",
        "model": "llama-3.1-8b",
        "device": "a100-sxm",
        "num_prompts": 30,
        "request_rate": 10.0,
    }
    return Request(**{**settings, **options})


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "cluster.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_equal_replicas_from_options(tmp_path: Path) -> None:
    settings = ClusterOptions(replicas=3, router="least-kv", fail=["1@2+3"]).cluster_settings()
    assert settings.groups == (GroupSettings(count=3),)
    assert settings.router.name == "least-kv"
    assert settings.failures.listed == (Outage(1, 2.0, 3.0),)
    alone, _ = prepare(request(tmp_path))
    assert alone.cluster.replicas == 1
    assert alone.cluster.link is None


def test_disaggregation_from_options(tmp_path: Path) -> None:
    scenario, _ = prepare(request(tmp_path, prefill_replicas=2, decode_replicas=3, tensor_parallel_size=2))
    cluster = scenario.cluster
    assert [(group.role, group.count) for group in cluster.groups] == [("prefill", 2), ("decode", 3)]
    assert cluster.link is not None
    assert cluster.link.bandwidth_bytes_per_s == 2 * 25e9, "an adapter a GPU, by the data sheet"
    assert cluster.link.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2
    asked, _ = prepare(request(tmp_path, prefill_replicas=1, decode_replicas=1, link_bandwidth=10.0, link_latency=5.0))
    assert asked.cluster.link is not None
    assert (asked.cluster.link.bandwidth_bytes_per_s, asked.cluster.link.latency_s) == (10e9, 0.005)


def test_a_file_of_unequal_replicas(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    compare(request(tmp_path, cluster=path, output=tmp_path / "out"))
    meta = read_run(tmp_path / "out" / "sarathi-serve").meta
    first, second = meta.groups
    assert (first.count, first.deployment["device"], first.max_num_seqs, first.stages, first.gpus) == (
        *(2, "a100-sxm", 32),
        *(1, 1),
    )
    assert (second.count, second.deployment["device"], second.max_num_seqs, second.stages, second.gpus) == (
        *(1, "h100", 128),
        *(2, 4),
    )
    assert first.deployment["max_num_batched_tokens"] == 512
    assert second.deployment["max_num_batched_tokens"] == 1024
    assert second.kv_blocks > first.kv_blocks
    assert meta.router is not None
    assert (meta.router["name"], meta.router["overload"]) == ("prefix-affinity", 2.0)
    assert [failure.replica for failure in meta.failures] == [2]


def test_options_come_before_the_file(tmp_path: Path) -> None:
    settings = ClusterOptions(cluster=written(tmp_path, FILE), router="random", mtbf=9.0, mttr=1.0).cluster_settings()
    assert settings.groups == read_cluster(tmp_path / "cluster.json").groups
    assert (settings.router.name, settings.failures.mtbf_s, settings.failures.listed) == ("random", 9.0, ())


def test_a_faster_replica_gets_more_requests(tmp_path: Path) -> None:
    groups = [{"device": "a100-sxm"}, {"device": "h100", "tensor_parallel_size": 4}]
    path = written(tmp_path, {"groups": groups})
    compare(request(tmp_path, cluster=path, num_prompts=100))
    replicas = read_run(tmp_path / "out" / "sarathi-serve").requests.replica
    assert (replicas == 1).sum() > 2 * (replicas == 0).sum() > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"replicas": 0}, "--replicas: count is 0; expected an integer >= 1"),
        ({"router": "best"}, "--router: unknown router 'best'; expected one of round-robin"),
        ({"prefill_replicas": 2}, "one of --prefill-replicas and --decode-replicas alone; expected both, or neither"),
        ({"prefill_replicas": 1, "decode_replicas": 0}, "--decode-replicas: count is 0"),
        ({"replicas": 4, "decode_replicas": 1}, "--replicas together with --prefill-replicas"),
        ({"replicas": 2, "link_bandwidth": 3.0}, "a link, but no KV that goes over it"),
        ({"prefill_replicas": 1, "decode_replicas": 1, "link_bandwidth": 0.0}, "bandwidth is 0 bytes/s"),
        ({"prefill_replicas": 1, "decode_replicas": 1, "link_latency": -1.0}, "latency is -0.001 s"),
        ({"replicas": 2, "fail": ["2@1+1"]}, "a failure of replica 2, which is not there; expected one of 0 to 1"),
        ({"replicas": 2, "fail": ["1@5"]}, "--fail: '1@5' is no failure"),
        ({"replicas": 2, "mtbf": 5.0}, "one of mtbf and mttr is there alone"),
        ({"mtbf": -1.0, "mttr": 1.0}, "mtbf is -1 s; expected seconds > 0"),
        ({"mtbf": 0.0, "mttr": 0.0}, "mtbf is 0 s; expected seconds > 0"),
        ({"mtbf": 0.0}, "one of mtbf and mttr is there alone"),
        ({"mtbf": 1.0, "mttr": 1e308}, "mttr is 1e+308 s; expected seconds > 0, at most 1e+09"),
        ({"fail": ["0@1+1e300"]}, "replica 0 is back at 1e+300 s; expected at most 1e+09"),
        ({"fail": ["0@1+1"], "mtbf": 5.0, "mttr": 1.0}, "failures from a list and random ones at once"),
    ],
)
def test_options_that_contradict_are_refused(tmp_path: Path, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        compare(request(tmp_path, **options))
    assert complaint in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "cluster.json:1, column 2: not JSON"),
        ("[]", "cluster.json: holds a list; expected a JSON object"),
        ({}, "key 'groups' is missing or empty"),
        ({"groups": []}, "key 'groups' is missing or empty"),
        ({"groups": [3]}, "groups[0] is no object"),
        ({"groups": [{}], "routr": "random"}, "unknown key 'routr'; expected one of groups, router, link, failures"),
        ({"groups": [{"gpus": 3}]}, "groups[0]: unknown key 'gpus'; expected one of count, role, device"),
        ({"groups": [{"count": "2"}]}, "groups[0]: key 'count' is '2'; expected int"),
        ({"groups": [{"count": 0}]}, "groups[0]: count is 0"),
        ({"groups": [{"role": "prefil"}]}, "groups[0]: role is 'prefil'; expected one of both, prefill, decode"),
        ({"groups": [{"role": "prefill"}]}, "the replicas are prefill; expected prefill and decode replicas"),
        ({"groups": [{"role": "decode"}, {}]}, "the replicas are both and decode"),
        ({"groups": [{"weight": 1.0}, {}]}, "only some of the groups have a weight"),
        ({"groups": [{"weight": 0}]}, "weight is 0.0"),
        ({"groups": [{}], "router": {"overload": 1}}, "router: key 'name' is missing"),
        ({"groups": [{}], "router": "fastest"}, "router: unknown router 'fastest'"),
        ({"groups": [{}], "link": {"latency_s": 1.0}}, "a link, but no KV that goes over it"),
        ({"groups": [{}], "link": {"gbps": 1}}, "link: unknown key 'gbps'"),
        ({"groups": [{}], "failures": {"listed": {}}}, "failures: key 'listed' is no list"),
        (
            {"groups": [{}], "failures": {"listed": [{"replica": 0, "failed_s": -1, "down_s": 1}]}},
            "failures: listed[0]: fails at -1 s",
        ),
        (
            {"groups": [{}], "failures": {"listed": [{"replica": 1, "failed_s": 1, "down_s": 1}]}},
            "cluster.json: a failure of replica 1, which is not there",
        ),
        ({"groups": [{"device": "a100"}, {}]}, "group of 1 x a100 (both): unknown device 'a100'"),
        ({"groups": [{}, {"device": "rtx-4090", "gpu_memory_utilization": 0.5}]}, "group of 1 x rtx-4090 (both): "),
        ({"groups": [{}, {"max_num_seqs": 0}]}, "max_num_seqs is 0"),
        ({"groups": [{}, {"profile": "nothing"}]}, "group of 1 x a100-sxm (both): nothing"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, document: Any, complaint: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(InputError) as caught:
        compare(request(tmp_path, cluster=path))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cluster.json"]


def test_replicas_in_a_file_and_on_the_command_line_contradict(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--replicas together with --cluster"):
        prepare(request(tmp_path, cluster=written(tmp_path, FILE), replicas=2))


def simulator(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulator", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_the_command_line_of_a_cluster(tmp_path: Path) -> None:
    options = ["run", "-w", "chat", "--num-prompts", "40", "--request-rate", "10", "--json"]
    cluster = ["--prefill-replicas", "1", "--decode-replicas", "2", "--router", "power-of-two", "--fail", "1@1+1"]
    done = simulator(*options, *cluster, "--link-bandwidth", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["sarathi-serve"]
    assert metrics["transfer_s"]["count"] == 40
    assert metrics["failures"]["count"] == 1
    report = (tmp_path / "out" / "run" / "report.html").read_text()
    assert "--prefill-replicas 1 --decode-replicas 2 --router power-of-two --link-bandwidth 5.0 --fail 1@1+1" in report
    wrong = simulator(*options, *cluster, "--fail", "3@1+1", "--output", "wrong", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert wrong.stderr.startswith("error: a failure of replica 3, which is not there")
    assert not (tmp_path / "wrong").exists()
