"""Files that trials name arrive whole on machines that do not share a disk."""

from dataclasses import replace
from pathlib import Path

from simulator.cluster_settings import ClusterSettings, GroupSettings
from simulator.trials.shipment import moved, named_files, pack, unpack
from tests.simulator.trials.test_trials import TRIAL, write_trace


def test_a_trial_that_was_moved_comes_to_the_same(tmp_path):
    source = write_trace(tmp_path / "trace.jsonl", count=30)
    trial = replace(TRIAL, demand=replace(TRIAL.demand, source=source))
    assert named_files(trial) == [source]
    paths = {name: unpack(name, pack(name)) for name in named_files(trial)}
    assert paths[source] != source
    there = moved(trial, paths)
    Path(source).unlink()
    assert there.demand.source == paths[source]
    assert there.run().metrics["TBT P99"] > 0


def test_folders_and_the_files_of_groups_are_taken_along(tmp_path):
    profile = tmp_path / "profile"
    (profile / "inner").mkdir(parents=True)
    (profile / "profile.json").write_text("{}")
    (profile / "inner" / "ops").write_bytes(b"\x00\x01")
    groups = (GroupSettings(profile=str(profile)), GroupSettings(device="h100"))
    trial = replace(TRIAL, candidate=replace(TRIAL.candidate, cluster=ClusterSettings(groups=groups)))
    assert named_files(trial) == [str(profile)]
    (tmp_path / "model").mkdir()
    for name in ("config.json", "weights.safetensors"):
        (tmp_path / "model" / name).touch()
    assert list(pack(str(tmp_path / "model"))) == ["config.json"]
    place = unpack(str(profile), pack(str(profile)))
    assert unpack(str(profile), pack(str(profile))) == place
    assert (Path(place) / "inner" / "ops").read_bytes() == b"\x00\x01"
    there = moved(trial, {str(profile): place}).candidate
    assert [group.profile for group in there.cluster.groups] == [place, None]
    assert there.model == trial.candidate.model
