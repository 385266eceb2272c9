"""``python -m traces`` as people and machines use it."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from traces.__main__ import app
from traces.command_line import run

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def traces(*arguments: object, folder: Path = ROOT) -> Done:
    """Run the command line in this process."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["traces", *map(str, arguments)])
        try:
            run(app, "python -m traces")
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def process(*arguments: object, folder: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "traces", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        encoding="utf-8",
        check=False,
    )


def fails(*arguments: object, says: str, folder: Path = ROOT) -> None:
    done = traces(*arguments, folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize("command", ["info", "generate", "convert"])
def test_help_has_an_example(command):
    done = process(command, "--help")
    assert done.returncode == 0
    assert done.stdout.count(f"python -m traces {command}") >= 2


def test_help_loads_nothing_heavy():
    code = (
        "import sys, traces.__main__, traces.errors; "
        "print([name for name in ('numpy', 'pyarrow', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_generate_then_info_then_convert(tmp_path):
    made = traces("generate", "--request-rate", 5, "--num-prompts", 50, "--seed", 3, "--output", tmp_path / "a.csv")
    assert made.returncode == 0, made.stderr
    assert "50" in made.stdout
    facts = json.loads(traces("info", tmp_path / "a.csv", "--json").stdout)
    assert (facts["format"], facts["requests"]) == ("Charioteer", 50)
    done = traces("convert", tmp_path / "a.csv", tmp_path / "b.jsonl.gz", "--head", 10, "--scale", 2, "--json")
    assert json.loads(done.stdout)["requests"] == 10
    assert len(gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()).splitlines()) == 10


def test_the_same_command_writes_the_same_bytes(tmp_path):
    for name in ("a.csv.gz", "b.csv.gz"):
        done = traces("generate", "--request-rate", 5, "--burstiness", 0.5, "--output", tmp_path / name)
        assert done.returncode == 0
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_settings_printed_as_json_make_the_same_workload(tmp_path):
    arguments = ("--input-len", 10, "--output-len", 20, "--request-rate", 2, "--num-prompts", 7)
    done = traces("generate", *arguments, "--output", tmp_path / "a.csv", "--json")
    (tmp_path / "s.json").write_text(json.dumps(json.loads(done.stdout)["settings"]))
    traces("generate", "--settings", tmp_path / "s.json", "--output", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((), "lognormal"),
        (("--input-len", 1, "--output-len", 2), "fixed"),
        (
            ("--input-len-min", 1, "--input-len-max", 2, "--output-len-min", 1, "--output-len-max", 2),
            "uniform",
        ),
        (("--zipf-theta", 0.5), "zipf"),
        (("--lengths-from", "t.csv", "--arrivals-from", "t.csv"), "trace"),
    ],
)
def test_the_options_given_tell_the_kind(tmp_path, arguments, kind):
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,1,2\n1,3,4\n")
    done = traces("generate", *arguments, "--num-prompts", 3, "--output", "o.csv", "--json", folder=tmp_path)
    assert json.loads(done.stdout)["settings"]["lengths"]["kind"] == kind, done.stderr


def test_a_terminal_without_unicode_gets_a_plain_sketch(tmp_path):
    (tmp_path / "t\u00fc.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,1,2\n1,3,4\n")
    done = process("info", "t\u00fc.csv", folder=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "arrivals in each" in done.stdout


def test_lost_prefix_hashes_are_said(tmp_path):
    row = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}\n'
    (tmp_path / "m.jsonl").write_text(row)
    assert "note: " in traces("convert", tmp_path / "m.jsonl", tmp_path / "o.csv").stderr
    assert traces("convert", tmp_path / "m.jsonl", tmp_path / "o.jsonl").stderr == ""
    assert (tmp_path / "o.jsonl").read_text() == row


BAD = [
    (("--request-rate", "nan"), "request rate nan"),
    (("--num-prompts", 0), "num_prompts is 0"),
    (("--seed", -1), "seed is -1"),
    (("--burstiness", 0.5), "burstiness 0.5 without a request rate"),
    (("--lengths", "nope"), "--lengths: unknown 'nope'"),
    (("--arrivals", "nope"), "--arrivals: unknown 'nope'"),
    (("--input-len", 5), "--lengths fixed: --output-len is missing"),
    (("--lengths", "chat", "--input-len", 5), "--lengths chat: --input-len is not one of its options"),
    (("--zipf-theta", 3, "--input-len", 5), "without --lengths"),
    (("--lengths", "zipf", "--zipf-theta", -3), "--lengths zipf: theta is -3.0"),
    (
        ("--arrivals", "constant", "--request-rate", 1, "--burstiness", 2),
        "--burstiness is not one of its options",
    ),
    (("--arrivals-from", "nowhere.csv"), "nowhere.csv: cannot read"),
    (("--settings", "nowhere.json"), "nowhere.json: cannot read"),
    (("--settings", "nowhere.json", "--seed", 2), "--seed beside --settings"),
    (("--to", "xml"), "unknown format 'xml'"),
    (("--to", "azure"), "chat has no arrival times"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD)
def test_bad_options_are_one_line_and_nothing_is_written(tmp_path, arguments, says):
    fails("generate", *arguments, "--output", "out.csv", says=says, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bad_file_ends_a_process_with_status_2(tmp_path):
    (tmp_path / "empty.csv").touch()
    done = process("info", "empty.csv", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: empty.csv: is empty; expected a CSV or JSONL workload\n"


def test_bad_files_are_one_line_and_nothing_is_written(tmp_path):
    (tmp_path / "back.csv").write_text("arrival_s,prompt_tokens,output_tokens\n2,1,2\n1,3,4\n")
    fails("info", "back.csv", says="back.csv:3, column 'arrival_s'", folder=tmp_path)
    fails("convert", "back.csv", "out.csv", says="--sort", folder=tmp_path)
    fails("convert", "back.csv", "out.csv", "--sort", "--window", "9:", says="no request", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["back.csv"]
    assert traces("convert", "back.csv", "out.csv", "--sort", folder=tmp_path).returncode == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["1.0,3,4", "2.0,1,2"]
