"""What is asked of a cluster: options, and the cluster.json of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.server.ray_cluster import resources  # noqa: E402
from engine.server.scale_out import ScaleOut, scale_out  # noqa: E402
from engine.server.serve_options import parsed  # noqa: E402
from engine.session import EngineSettings  # noqa: E402
from policies.routing.catalog import parse_router  # noqa: E402
from simulator.cluster_settings import ClusterSettings, GroupSettings  # noqa: E402
from simulator.search.documents import cluster_document  # noqa: E402
from traces.errors import InputError  # noqa: E402
from traces.files import write_json  # noqa: E402

ENGINE = EngineSettings(model="llama-60m", load_format="dummy", policy="sarathi-serve", max_num_seqs=16)


def asked(settings: EngineSettings = ENGINE, **options: Any) -> ScaleOut | None:
    return scale_out(settings, **{"replicas": None, "router": None, "cluster": None, "ray_address": None, **options})


def written(tmp_path: Path, document: Any) -> Path:
    write_json(tmp_path / "cluster.json", document)
    return tmp_path / "cluster.json"


def test_options() -> None:
    assert asked() is None
    assert asked(replicas=1) is None
    assert asked(replicas=1, ray_address="auto") == ScaleOut(ray_address="auto")
    router = parse_router("prefix-affinity:overload=3", where="test")
    assert asked(replicas=3, router="prefix-affinity:overload=3") == ScaleOut(weights=(1.0, 1.0, 1.0), router=router)


def test_what_a_search_wrote_is_taken(tmp_path: Path) -> None:
    groups = (GroupSettings(count=2, device="a100-sxm", weight=2.0), GroupSettings(max_num_seqs=16, weight=0.5))
    found = ClusterSettings(groups=groups, router=parse_router("power-of-two", where="test"))
    path = written(tmp_path, cluster_document(found))
    assert asked(cluster=path) == ScaleOut(weights=(2.0, 2.0, 0.5), router=found.router)
    other = asked(cluster=path, router="random")
    assert other is not None
    assert other.router.name == "random"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "key 'groups' is missing"),
        ({"groups": [3]}, r"groups\[0\]: is no object"),
        ({"groups": [{"size": 3}]}, "unknown key 'size'"),
        ({"groups": [{"count": 0}]}, "count is 0"),
        ({"groups": [{"count": True}]}, "count is True"),
        ({"groups": [{"weight": -1}]}, "weight is -1"),
        ({"groups": [{"role": "prefill"}]}, "replicas of role 'prefill'"),
        ({"groups": [{}, {"tensor_parallel_size": 2}]}, r"groups\[1\]: tensor_parallel_size is 2, and the engine's 1"),
        ({"groups": [{"max_num_seqs": 32}]}, "max_num_seqs is 32, and the engine's 16; expected --max-num-seqs 32"),
        ({"groups": [{}], "router": {"overload": 2}}, "router: key 'name' is missing"),
        ({"groups": [{}], "router": "best"}, "unknown router 'best'"),
    ],
)
def test_what_the_engine_is_not(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        asked(cluster=written(tmp_path, document))


def test_contradictions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--replicas together with --cluster"):
        asked(cluster=written(tmp_path, {"groups": [{}]}), replicas=2)
    with pytest.raises(InputError, match="--router: unknown router 'best'"):
        asked(replicas=2, router="best")


def test_what_a_replica_takes() -> None:
    assert resources(EngineSettings(model="m")) == {"num_cpus": 1}
    assert resources(EngineSettings(model="m", device="cuda")) == {"num_cpus": 1, "num_gpus": 1}
    with pytest.raises(InputError, match="--device: is cuda:1, and Ray chooses"):
        resources(EngineSettings(model="m", device="cuda:1"))


def test_options_by_name() -> None:
    settings, served = parsed({"model": "m", "served_model_name": ["a", "b"], "replicas": "2", "enforce-eager": "True"})
    assert (settings.model, settings.enforce_eager) == ("m", True)
    assert served.served_model_name == ["a", "b"]
    assert served.scale == ScaleOut(weights=(1.0, 1.0))
    for wrong in ({"model": "m", "colour": "red"}, {"model": "m", "replicas": "many"}, {}):
        with pytest.raises(InputError, match="arguments: "):
            parsed(wrong)
