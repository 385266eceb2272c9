"""What is searched: lists as people write them, prices, files, what cannot run."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.routing.catalog import RouterChoice
from simulator.cluster_settings import ClusterSettings, GroupSettings, LinkSettings
from simulator.failures import FailureSettings
from simulator.search.axis import parse_integers, parse_pairs
from simulator.search.prices import parse_prices
from simulator.search.request import Request, prepare
from simulator.search.space import PolicyAxes, Space, select
from simulator.search.space_file import read_space
from traces.errors import InputError

SMALL = Space(
    model="mistral-7b",
    max_model_len=4096,
    policies=(PolicyAxes(name="sarathi-serve"), PolicyAxes(name="vllm")),
    max_num_seqs=(32, 64),
    max_num_batched_tokens=(256, 512),
    tensor_parallel_size=(1, 2),
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("256, 512", (256, 512)),
        ("64..600*2", (64, 128, 256, 512)),
        ("1..4", (1, 2, 3, 4)),
        ("1..8+3,2", (1, 4, 7, 2)),
        ("5,5", (5,)),
    ],
)
def test_lists_and_ranges(text, values):
    assert parse_integers(text, where="--x") == values


@pytest.mark.parametrize("text", ["", "a", "0", "4..2", "1..8*1", "-3", "1..", "1..9999999", "2.5", "1..8+0"])
def test_wrong_lists_are_refused(text):
    with pytest.raises(InputError, match="--x"):
        parse_integers(text, where="--x")


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_a_list_of_integers_is_read_as_it_is(values):
    assert parse_integers(",".join(map(str, values)), where="--x") == tuple(dict.fromkeys(values))


def test_pairs():
    assert parse_pairs("1:1, 2:1", where="--x") == ((1, 1), (2, 1))
    for wrong in ("", "1", "1:0", "1:1:1", "a:b"):
        with pytest.raises(InputError):
            parse_pairs(wrong, where="--x")


def test_prices(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"h100": 3}))
    prices = parse_prices(["a100-sxm=1.5", str(path)])
    assert prices.per_hour({"a100-sxm": 2, "h100": 1}) == 6.0
    assert prices.per_hour({"a40": 1}) is None
    with pytest.raises(InputError, match=r"no price for a40.*--price a40=USD"):
        prices.require(["a40", "h100"])
    for wrong in ("a100", "a=0", "a=x", "=1", "a=nan", "h100=1,h100=2"):
        with pytest.raises(InputError):
            parse_prices([wrong])


def test_a_space_is_every_combination_once():
    selection = select(SMALL, 100, 0)
    assert selection.size == 2 * (2 * 2 + 2) == len(selection.candidates)
    assert not selection.impossible
    assert len(set(selection.candidates.values())) == selection.size
    assert all(label == candidate.label for label, candidate in selection.candidates.items())


def test_a_large_space_is_drawn_from_by_seed_in_its_own_order():
    every = list(select(SMALL, 100, 0).candidates)
    drawn = [list(select(SMALL, 5, seed).candidates) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(each) == 5 and each == [label for label in every if label in each] for each in drawn)


def test_what_does_not_fit_or_is_refused_is_listed_and_not_tried():
    space = Space(
        model="llama-2-70b",
        max_model_len=4096,
        policies=(PolicyAxes(name="vllm-v1"),),
        max_num_seqs=(256,),
        max_num_batched_tokens=(128, 512),
        tensor_parallel_size=(1, 3, 4),
    )
    selection = select(space, 100, 0)
    assert [each.tensor_parallel_size for each in selection.candidates.values()] == [4]
    reasons = list(selection.impossible.values())
    assert len(reasons) == 3
    assert any("does not fit" in reason for reason in reasons)
    assert any("at least max_num_seqs" in reason for reason in reasons)


def test_a_space_in_which_nothing_can_run_is_an_error():
    with pytest.raises(InputError, match=r"nothing in the search space can run.*does not fit"):
        select(Space(model="llama-2-70b", max_model_len=4096, tensor_parallel_size=(1,)), 10, 0)
    with pytest.raises(InputError, match="is empty"):
        select(Space(model="mistral-7b", max_model_len=4096, devices=()), 10, 0)
    with pytest.raises(InputError, match=r"is empty.*at least max_num_seqs"):
        refused = PolicyAxes(name="vllm-v1", settings={"max_num_batched_tokens": (8,), "max_num_seqs": (64,)})
        select(Space(model="mistral-7b", max_model_len=4096, policies=(refused,)), 10, 0)


def test_replicas_and_disaggregation_are_counted_in_gpus():
    space = Space(
        model="mistral-7b",
        max_model_len=4096,
        policies=(PolicyAxes(name="vllm"),),
        max_num_seqs=(64,),
        tensor_parallel_size=(2,),
        replicas=(1, 3),
        disaggregation=((2, 1),),
    )
    found = select(space, 10, 0).candidates.values()
    assert [each.gpus for each in found] == [{"a100-sxm": 2}, {"a100-sxm": 6}, {"a100-sxm": 6}]


def write(tmp_path, document):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(document))
    return path


def test_clusters_that_differ_in_anything_are_told_apart():
    two, split = (GroupSettings(count=2),), (GroupSettings(role="prefill"), GroupSettings(role="decode"))
    clusters = (
        ClusterSettings(groups=two),
        ClusterSettings(groups=two, router=RouterChoice(name="least-kv")),
        ClusterSettings(groups=two, failures=FailureSettings(mtbf_s=100.0, mttr_s=10.0)),
        ClusterSettings(groups=(GroupSettings(count=2, max_num_seqs=8),)),
        ClusterSettings(groups=split),
        ClusterSettings(groups=split, link=LinkSettings(latency_s=0.01)),
    )
    space = replace(SMALL, policies=(PolicyAxes(name="orca"),), max_num_seqs=(32,), tensor_parallel_size=(1,))
    found = select(replace(space, replicas=(2,), clusters=clusters), 100, 0).candidates
    assert [each.cluster for each in found.values()] == list(clusters)


def test_a_space_file(tmp_path):
    found = read_space(
        write(
            tmp_path,
            {
                "policies": ["vllm", {"policy": "vllm-v1", "enable_prefix_caching": [True, False]}],
                "max_num_seqs": [16, "32..64*2"],
                "replicas": 2,
                "devices": ["h100"],
                "disaggregation": ["1:1"],
                "prices": {"h100": 3},
            },
        )
    )
    assert found["max_num_seqs"] == (16, 32, 64)
    assert found["replicas"] == (2,)
    assert found["policies"][1].settings == {"enable_prefix_caching": (True, False)}
    assert found.pop("prices").usd_per_hour == {"h100": 3.0}
    assert select(Space(model="mistral-7b", max_model_len=4096, **found), 1000, 0).size > 0


@pytest.mark.parametrize(
    "document",
    [
        {"policy": []},
        {"policies": []},
        {"policies": [{"max_num_seqs": 1}]},
        {"policies": [{"policy": "vllm", "max_num_seqs": []}]},
        {"max_num_seqs": [True]},
        {"max_num_seqs": {}},
        {"devices": "h100"},
        {"prices": {"h100": -1}},
        {"clusters": ["missing.json"]},
    ],
)
def test_wrong_space_files_are_refused(tmp_path, document):
    with pytest.raises(InputError, match="json"):
        read_space(write(tmp_path, document))


@pytest.mark.parametrize(
    ("slo", "goodput", "tbt_s"),
    [("tbt:40", None, 0.04), ("max-tbt:90 p50-tbt:20", None, 0.09), ("", "tpot:30", 0.03), ("ttft:500", None, 0.1)],
)
def test_slack_keeps_the_tbt_of_the_slo_unless_told_otherwise(slo, goodput, tbt_s):
    request = Request(
        workload="chat", num_prompts=20, model="mistral-7b", max_num_seqs="8", max_num_batched_tokens="64",
        policies="sarathi-serve,slack,slack:tbt_s=0.07", tensor_parallel_size="1",
        slo=[slo] if slo else None, goodput=[goodput] if goodput else None,
    )  # fmt: skip
    choices = [each.choice for each in prepare(request).task.candidates.values()]
    assert [each.settings.tbt_s for each in choices if each.name == "slack"] == [tbt_s, 0.07]


def test_unknown_policies_and_settings_are_refused():
    for wrong in (PolicyAxes(name="fifo"), PolicyAxes(name="vllm", settings={"speed": (1,)})):
        with pytest.raises(InputError, match=r"fifo|speed"):
            select(Space(model="mistral-7b", max_model_len=4096, policies=(wrong,)), 10, 0)
