"""The commands ``generate`` and ``replay``, in processes of their own where what they print matters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the engine needs transformers")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.__main__ import app
from engine.session import EngineSettings, build_engine, policy_choice
from policies import choose
from traces.errors import InputError
from traces.files import write_json
from traces.run_record import read_run

PROMPT = "30,31,32,33,34,35"


@pytest.fixture(scope="module")
def worded_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a tokenizer of 128 words, w0 to w127."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("worded") / "model"))
    words = Tokenizer(models.WordLevel({f"w{token}": token for token in range(128)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture
def engine(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """engine(*arguments) -> exit status and standard output, within this process."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        try:
            app(args=[str(argument) for argument in arguments], prog_name="engine")
            status: Any = 0
        except SystemExit as ended:
            status = ended.code
        return int(status or 0), capfd.readouterr().out

    return call


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_loads_nothing_slow() -> None:
    script = "import engine.__main__, sys; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "scipy", "sklearn", "plotly", "pandas"} & set(loaded)


def test_a_prompt_that_is_wrong_is_one_line_and_the_others_are_served(tiny_folder: Path, families: Any) -> None:
    greedy = ("--tokens", "--temperature", "0", "--max-tokens", "5")
    prompts = ("--prompt-tokens", PROMPT, "--prompt-tokens", "7 999", "--prompt-tokens", "")
    done = process("generate", "--model", tiny_folder, *greedy, *prompts)
    expected = families["llama"].generate([30, 31, 32, 33, 34, 35], 5)
    assert done.stdout == ",".join(map(str, expected)) + "\n"
    assert done.stderr.splitlines() == [
        "error: prompt 2: unknown token id 999; expected 0 to 127",
        "error: prompt 3: an empty prompt; expected at least one token",
    ]
    assert done.returncode == 2


def test_an_error_of_the_whole_command_is_one_line(tmp_path: Path) -> None:
    done = process("generate", "--model", tmp_path / "absent", "--tokens", "--prompt-tokens", "1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown model ")
    assert done.stderr.count("\n") == 1


def test_text_in_and_text_out(
    engine: Callable[..., tuple[int, str]], worded_folder: Path, families: Any, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("w5 w6\nw9\n")
    options = ("--temperature", "0", "--max-tokens", "4", "--prompt-file", tmp_path / "prompts.txt", "--json")
    status, out = engine("generate", "w30 w31 w32", "--model", worded_folder, *options, "--logprobs", "1")
    outputs = json.loads(out)["outputs"]
    assert status == 0
    assert [output["prompt_token_ids"] for output in outputs] == [[30, 31, 32], [5, 6], [9]]
    for output in outputs:
        tokens = families["llama"].generate(output["prompt_token_ids"], 4)
        assert output["token_ids"] == tokens == [each["token_id"] for each in output["logprobs"]]
        assert output["text"].split() == [f"w{token}" for token in tokens]
        assert output["finish_reason"] == "length"


def test_a_stop_string_and_a_policy_file(
    engine: Callable[..., tuple[int, str]], worded_folder: Path, families: Any, tmp_path: Path
) -> None:
    write_json(tmp_path / "policy.json", {"policy": "sarathi-serve", "max_num_batched_tokens": 3, "max_num_seqs": 2})
    tokens = families["llama"].generate([30, 31, 32], 6)
    options = ("--temperature", "0", "--max-tokens", "6", "--stop", f"w{tokens[2]}", "--policy")
    status, out = engine("generate", "w30 w31 w32", "--model", worded_folder, *options, tmp_path / "policy.json")
    assert status == 0
    assert out.split() == [f"w{token}" for token in tokens[:2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no prompt; expected a prompt, --prompt-file or --prompt-tokens"),
        (("w1", "--tokens"), "text prompts with --tokens; expected --prompt-tokens"),
        (("--prompt-tokens", "1,x"), "--prompt-tokens: '1,x'; expected integers, such as 5,17,3"),
        (("--prompt-file", "/absent"), "/absent: cannot read; expected UTF-8 text, a prompt a line"),
        (("--prompt-tokens", "1"), ": no tokenizer that can be read"),
        (("--tokens", "--prompt-tokens", "1", "--top-p", "2"), "sampling: top_p is 2.0; expected a number in (0, 1]"),
        (("--tokens", "--prompt-tokens", "1", "--policy", "fifo"), "--policy: unknown policy 'fifo'"),
        (("--tokens", "--prompt-tokens", "1", "--seed", "-1"), "--seed: is -1; expected an integer in"),
        (("--tokens", "--prompt-tokens", "1", "--max-model-len", "999"), "--max-model-len: 999 tokens, longer than"),
        (("--tokens", "--prompt-tokens", "1", "--attention-backend", "x"), "--attention-backend: unknown attention"),
    ],
)
def test_a_command_that_cannot_be(tiny_folder: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        app(args=["generate", "--model", str(tiny_folder), *arguments], standalone_mode=False)
    assert message in str(caught.value)


def test_replay_prints_metrics_and_writes_a_record(
    engine: Callable[..., tuple[int, str]], tiny_folder: Path, tmp_path: Path
) -> None:
    rows = "\n".join(f"2024-05-10 00:00:0{second},{10 + second},{3 + second}" for second in range(6))
    (tmp_path / "trace.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n")
    options = ("--model", tiny_folder, "--output", tmp_path / "run", "--speed", "100", "--num-prompts", "5")
    status, out = engine("replay", tmp_path / "trace.csv", *options, "--policy", "vllm", "--json")
    assert status == 0
    assert json.loads(out)["finished"] == 5
    run = read_run(tmp_path / "run")
    assert run.requests.generated_tokens.tolist() == [3, 4, 5, 6, 7]
    assert run.requests.arrival_s == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])
    assert run.meta.groups[0].deployment["max_model_len"] == 256
    status, out = engine("replay", tmp_path / "trace.csv", *options, "--goodput", "ttft:100000")
    assert "End-to-end" in out
    assert "Goodput           100.0% of requests" in out
    assert str(tmp_path / "run") in out.replace("\n", "")


def test_the_options_lie_on_top_of_a_policy_file(tmp_path: Path) -> None:
    write_json(tmp_path / "p.json", {"policy": "sarathi-serve", "max_num_batched_tokens": 64, "max_num_seqs": 9})
    choice = policy_choice(EngineSettings(model="", policy=str(tmp_path / "p.json"), max_num_seqs=4))
    assert choice.as_dict() | {"watermark": 0} == {
        "policy": "sarathi-serve",
        "max_num_seqs": 4,
        "watermark": 0,
        "max_num_batched_tokens": 64,
    }
    with pytest.raises(InputError, match="--max-num-batched-tokens: policy orca has no such setting"):
        policy_choice(EngineSettings(model="", policy="orca", max_num_batched_tokens=4))


def test_the_cache_is_as_large_as_residents_can_fill_or_memory_holds(tiny_folder: Path) -> None:
    settings = EngineSettings(model=str(tiny_folder))
    small = build_engine(settings, choose("orca", max_num_seqs=3), longest=40)
    assert small.runner.memory.blocks == 3 * 256 // 16
    memory = build_engine(settings, choose("vllm", max_num_seqs=10**6), longest=None).runner.memory
    assert memory.blocks == 2**30 // (2 * 2 * 2 * 16 * 4 * 16)
    assert memory.max_model_len == 256


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threads": 0}, "--threads: is 0; expected an integer >= 1"),
        ({"threads": 100_000}, "--threads: is 100000; expected at most"),
        ({"seed": 2**63}, f"--seed: is {2**63}; expected an integer in"),
        ({"gpu_memory_utilization": 1.5}, "--gpu-memory-utilization: is 1.5; expected a number in (0, 1]"),
        ({"gpu_memory_utilization": 0.5}, "--gpu-memory-utilization: there is no GPU memory on a cpu"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        EngineSettings(model="", **values)
    assert str(caught.value).startswith(message)
