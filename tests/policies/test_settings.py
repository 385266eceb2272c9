"""Settings and policy.json: defaults, and one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oracle.costs import COSTS

from policies import POLICIES, KVMemory, PolicyChoice, choose, read_policy
from traces.errors import InputError

every_policy = pytest.mark.parametrize("policy", POLICIES)

DEFAULTS: dict[str, dict[str, Any]] = {
    "faster-transformer": {"max_num_seqs": 128},
    "orca": {"max_num_seqs": 128},
    "vllm": {"max_num_seqs": 128, "watermark": 0.01, "max_num_batched_tokens": None},
    "sarathi": {"max_num_seqs": 128, "chunk_size": 256, "tile_size": 128},
    "sarathi-serve": {"max_num_seqs": 128, "watermark": 0.01, "max_num_batched_tokens": 512},
    "hybrid-only": {"max_num_seqs": 128, "watermark": 0.01},
    "chunked-only": {"max_num_seqs": 128, "watermark": 0.01, "max_num_batched_tokens": 512},
    "vllm-v1": {
        "max_num_seqs": 128,
        "max_num_batched_tokens": 2048,
        "long_prefill_token_threshold": None,
        "enable_prefix_caching": True,
        "scheduler_reserve_full_isl": True,
        "async_scheduling": False,
    },
    "slack": {
        "max_num_seqs": 128,
        "watermark": 0.01,
        "max_num_batched_tokens": 8192,
        "tbt_s": 0.1,
        "ttft_s": 2.0,
        "patience": 40.0,
    },
}


def message(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


PREDICTED: dict[str, Any] = {
    "workload": {"source": "chat", "request_rate": 2.0, "seed": 0},
    "deployment": {"model": "llama-60m", "device": "cpu"},
    "metrics": {"TTFT P99": {"value": 0.5, "low": 0.4, "high": 0.6}},
}


def write(folder: Path, document: object) -> Path:
    path = folder / "policy.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


@every_policy
def test_defaults(policy: str) -> None:
    assert choose(policy).as_dict() == {"policy": policy, **DEFAULTS[policy]}


@every_policy
def test_a_file_with_a_name_alone_means_the_defaults(policy: str, tmp_path: Path) -> None:
    assert read_policy(write(tmp_path, {"policy": policy})) == choose(policy)


@every_policy
def test_what_is_written_is_read_back(policy: str, tmp_path: Path) -> None:
    choice = choose(policy, max_num_seqs=7)
    predicted = PolicyChoice(name=policy, settings=choice.settings, predicted=PREDICTED)
    for one in (choice, predicted):
        assert read_policy(write(tmp_path, one.as_dict())) == one
    assert "predicted" not in choice.as_dict()
    assert predicted.as_dict()["predicted"] == PREDICTED


@every_policy
def test_the_policy_that_is_built_is_the_one_that_was_chosen(policy: str) -> None:
    choice = choose(policy, max_num_seqs=6)
    built = choice.build(KVMemory(blocks=400), stages=3, costs=COSTS)
    assert (built.name, built.settings, built.stages) == (policy, choice.settings, 3)
    assert built is not choice.build(KVMemory(blocks=400), stages=3, costs=COSTS)


def test_settings_stay_as_they_are() -> None:
    with pytest.raises(AttributeError):
        choose("orca").settings.max_num_seqs = 3  # type: ignore[misc]


def test_an_unknown_policy() -> None:
    with pytest.raises(InputError) as error:
        choose("sarathi-serv")
    assert message(error) == (
        "--policies: unknown policy 'sarathi-serv'; expected one of faster-transformer, orca, vllm, sarathi, "
        "sarathi-serve, hybrid-only, chunked-only, vllm-v1, slack"
    )


def test_an_unknown_policy_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"policy": "orka"})
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert message(error).startswith(f"{path}: unknown policy 'orka'; expected one of faster-transformer,")


@every_policy
def test_an_unknown_key(policy: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"policy": policy, "max_seqs": 4})
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert message(error).startswith(f"{path}: {policy}: unknown key 'max_seqs'; expected one of max_num_seqs")


@pytest.mark.parametrize(
    ("policy", "foreign"),
    [
        ("orca", "watermark"),
        ("hybrid-only", "max_num_batched_tokens"),
        ("vllm", "chunk_size"),
        ("sarathi", "watermark"),
    ],
)
def test_a_key_of_another_policy(policy: str, foreign: str) -> None:
    settings: dict[str, Any] = {foreign: 1}
    with pytest.raises(InputError, match=f"unknown key '{foreign}'"):
        choose(policy, **settings)


@pytest.mark.parametrize(
    ("policy", "key", "value", "wish"),
    [
        ("orca", "max_num_seqs", "8", "int"),
        ("orca", "max_num_seqs", 8.5, "int"),
        ("orca", "max_num_seqs", True, "int"),
        ("orca", "max_num_seqs", None, "int"),
        ("orca", "max_num_seqs", [8], "int"),
        ("vllm", "watermark", "low", "float"),
        ("vllm", "max_num_batched_tokens", "many", "int or null"),
        ("vllm-v1", "enable_prefix_caching", 1, "bool"),
        ("vllm-v1", "long_prefill_token_threshold", 0.5, "int or null"),
    ],
)
def test_a_value_of_the_wrong_type(policy: str, key: str, value: object, wish: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"policy": policy, key: value})
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert message(error) == f"{path}: {policy}: key {key!r} is {value!r}; expected {wish}"


@pytest.mark.parametrize(
    ("policy", "settings", "complaint"),
    [
        ("orca", {"max_num_seqs": 0}, "max_num_seqs is 0; expected an integer >= 1"),
        ("vllm", {"watermark": -0.1}, "watermark is -0.1; expected a number in [0, 1)"),
        ("vllm", {"watermark": 1}, "watermark is 1.0; expected a number in [0, 1)"),
        ("vllm", {"max_num_batched_tokens": 0}, "max_num_batched_tokens is 0; expected an integer >= 1"),
        (
            "sarathi-serve",
            {"max_num_batched_tokens": -5},
            "max_num_batched_tokens is -5; expected an integer >= 1",
        ),
        (
            "chunked-only",
            {"max_num_batched_tokens": 0},
            "max_num_batched_tokens is 0; expected an integer >= 1",
        ),
        ("sarathi", {"tile_size": 0}, "tile_size is 0; expected an integer >= 1"),
        ("sarathi", {"chunk_size": 200}, "chunk_size is 200; expected a multiple of tile_size 128"),
        ("sarathi", {"chunk_size": 0}, "chunk_size is 0; expected a multiple of tile_size 128"),
        (
            "vllm-v1",
            {"long_prefill_token_threshold": 0},
            "long_prefill_token_threshold is 0; expected an integer >= 1",
        ),
        (
            "vllm-v1",
            {"max_num_batched_tokens": 127},
            "max_num_batched_tokens is 127; expected at least max_num_seqs 128",
        ),
    ],
)
def test_a_wrong_value(policy: str, settings: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"policy": policy, **settings})
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert message(error) == f"{path}: {policy}: {complaint}"


def test_not_a_number_is_no_watermark() -> None:
    with pytest.raises(InputError, match="watermark is nan"):
        choose("vllm", watermark=float("nan"))


def test_settings_that_do_not_go_with_the_memory() -> None:
    choice = choose("vllm", max_num_batched_tokens=4095)
    with pytest.raises(InputError) as error:
        choice.build(KVMemory(blocks=400, max_model_len=4096))
    assert message(error) == (
        "policy vllm: max_num_batched_tokens is 4095; expected at least max_model_len 4096, "
        "since this policy runs prompts whole"
    )
    assert choice.build(KVMemory(blocks=400, max_model_len=4095)).stages == 1


def test_no_stages_is_an_error() -> None:
    with pytest.raises(InputError, match="stages is 0"):
        choose("orca").build(KVMemory(blocks=400), stages=0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("[]", "holds a list"),
        ('{"policy": ', "not JSON"),
        ("{}", "key 'policy' is missing or not a name"),
        ('{"policy": 3}', "key 'policy' is missing or not a name"),
        ('{"policy": "orca", "predicted": 3}', "key 'predicted' is not an object"),
    ],
)
def test_a_file_that_is_no_policy(text: str, complaint: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert message(error).startswith(str(path))
    assert complaint in message(error)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_policy(tmp_path / "policy.json")


@pytest.mark.parametrize("key", ["name", "where", "settings"])
def test_a_key_that_no_policy_has_is_an_unknown_key_whatever_it_is_called(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=f"unknown key '{key}'"):
        read_policy(write(tmp_path, {"policy": "orca", key: "x"}))
    with pytest.raises(InputError, match=f"unknown key '{key}'"):
        choose("orca", **{key: 1})


@pytest.mark.parametrize(
    ("policy", "settings", "tokens"),
    [
        ("orca", {}, 4096),
        ("vllm", {}, 4096),
        ("vllm", {"max_num_batched_tokens": 9000}, 9000),
        ("hybrid-only", {}, 4096),
        ("sarathi", {"chunk_size": 512}, 512),
        ("sarathi-serve", {"max_num_batched_tokens": 64}, 128),
        ("chunked-only", {"max_num_batched_tokens": 65536}, 65536),
        ("vllm-v1", {}, 2048),
    ],
)
def test_the_largest_batch_follows_from_the_settings(policy: str, settings: dict[str, int], tokens: int) -> None:
    assert choose(policy, **settings).settings.most_tokens(4096) == tokens
