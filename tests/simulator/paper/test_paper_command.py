"""``simulator paper`` as a person types it, with experiments that are made up; and what goes wrong, in one line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.paper.session import run_papers
from tests.simulator.paper.made_up import EXPERIMENTS
from tests.simulator.paper.test_page import never
from traces.errors import InputError

NEVER = tuple(replace(each, plan=never) for each in EXPERIMENTS)
ROOT = Path(__file__).resolve().parents[3]
NO_BROWSER = {"BROWSER_PATH": "/nowhere/chromium"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.simulator.paper.made_up", *arguments]


def paper(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, **NO_BROWSER, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*arguments), cwd=cwd, env=own, capture_output=True, text=True, timeout=300, check=False
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_without_a_name_the_experiments_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    done = paper(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "made-up-iterations" in done.stdout
    assert "Stalls are gone." in done.stdout
    assert "2 min" in done.stdout
    assert "simulator paper --all" in done.stdout
    assert not list(tmp_path.iterdir())
    listed = json.loads(paper("--json", cwd=tmp_path).stdout)
    assert list(listed) == ["made-up-iterations", "made-up-chat"]


def test_all_of_them_print_misses_at_the_end_and_write_the_same_bytes_again(tmp_path: Path) -> None:
    first = paper("--all", "-o", "first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    *_, miss, summary, page, report = first.stdout.splitlines()
    assert re.fullmatch(
        r"missed: made-up-iterations, decode 4: published 49\.96 ms, ours 42\S* ms \(-1\d\.\d %\)", miss
    )
    assert summary == "2 of 3 judged figures lie within their limits; of the headline figures 2 of 2."
    assert (page, report) == ("Page: first/papers.md", "Report: first/papers.html")
    assert "Three iterations (made-up-iterations)" in first.stdout
    second = paper("--all", "-o", "second", cwd=tmp_path)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert second.stdout.replace("second/", "first/") == first.stdout


def test_without_a_browser_one_line_says_so_and_the_page_leaves_images_out(tmp_path: Path) -> None:
    done = paper("made-up-iterations", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "charioteer[figures]" in done.stderr
    folder = tmp_path / "out" / "paper"
    assert sorted(digests(folder)) == ["papers.html", "papers.md"]
    text = (folder / "papers.md").read_text()
    assert "![" not in text
    assert "BROWSER\\_PATH" in text
    assert '<div id="figure-made-up-iterations"' in (folder / "papers.html").read_text()


def test_json_holds_every_finding(tmp_path: Path) -> None:
    found = json.loads(paper("made-up-iterations", "--json", cwd=tmp_path).stdout)
    assert found["command"] == "python -m simulator paper made-up-iterations"
    assert (found["judged"], found["within"]) == (3, 2)
    assert found["missed"] == ["made-up-iterations: decode 4"]
    prefill, decodes, _ = found["experiments"]["made-up-iterations"]["findings"]
    assert prefill["published"] == 234.8
    assert prefill["deviation"] == prefill["ours"] / 234.8 - 1
    assert decodes["missed"]
    assert decodes["reason"] == "their kernels are launched one by one."


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["made-up-caht"],
            "no experiment is called 'made-up-caht'; expected made-up-chat or made-up-iterations "
            "(`python -m simulator paper` lists them)",
        ),
        (["zzz"], "no experiment is called 'zzz'; expected another name"),
        (["--all", "made-up-chat"], "--all: made-up-chat stands beside it; expected names, or --all"),
        (["--all", "-o", "mine"], "mine/papers.md: is not a page of this command, and would be lost"),
        (["--all", "-o", "mine/papers.md"], "mine/papers.md: exists and is something else"),
        (["--all", "-o", "mine/papers.md/x"], "mine/papers.md/x: cannot write: Not a directory"),
        (["--all", "-o", "odd"], "odd/papers.html: exists and is no file; expected another folder"),
        (["--all", "-o", "even"], "even/figures: exists and is something else"),
    ],
)
def test_a_bad_option_is_told_before_anything_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "papers.md").write_text("my own notes\n")
    (tmp_path / "odd" / "papers.html").mkdir(parents=True)
    (tmp_path / "even").mkdir()
    (tmp_path / "even" / "figures").write_text("drawn by hand\n")
    before = digests(tmp_path)
    names = [each for each in arguments[:2] if not each.startswith("-")]
    output = Path(arguments[-1] if "-o" in arguments else "out")
    with pytest.raises(InputError) as raised:
        run_papers(names, "--all" in arguments, output, experiments=NEVER)
    assert str(raised.value).startswith(complaint)
    assert digests(tmp_path) == before


def test_a_bad_option_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = paper("made-up-caht", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: no experiment is called 'made-up-caht'; expected made-up-chat")
    assert not list(tmp_path.iterdir())


def test_a_page_takes_the_place_of_an_older_one_and_other_files_stay(tmp_path: Path) -> None:
    figures = tmp_path / "docs" / "figures"
    figures.mkdir(parents=True)
    (tmp_path / "docs" / "papers.md").write_text("# The papers, reproduced\n\n![old](figures/old.svg)\n")
    for name in ("old.svg", "mine.svg"):
        (figures / name).write_text("<svg/>")
    (tmp_path / "docs" / "guide.md").write_text("how to")
    done = paper("made-up-chat", "-o", "docs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(digests(tmp_path / "docs")) == ["figures/mine.svg", "guide.md", "papers.html", "papers.md"]
    assert "made-up-chat" in (tmp_path / "docs" / "papers.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_leaves_nothing_here_and_no_scratch_there(tmp_path: Path, name: str) -> None:
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    own = {**os.environ, **NO_BROWSER, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    process = subprocess.Popen(
        command("--all"), cwd=here, env=own, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(scratch.glob("charioteer-paper-*/made-up-chat")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.Signals[name])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.Signals[name]
    assert errors == f"error: stopped by {name}; what was not complete has been removed\n"
    assert not list(here.iterdir())
    assert not list(scratch.iterdir())


def test_the_experiments_of_the_project_are_listed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "paper"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m simulator paper NAME" in done.stdout


def test_listing_them_loads_nothing_slow() -> None:
    script = (
        "from pathlib import Path\nfrom simulator.paper.session import run_papers\n"
        "run_papers([], False, Path('none'), as_json=True)\nimport sys\n"
        "print({'torch', 'transformers', 'sklearn', 'scipy', 'plotly', 'pandas', 'kaleido'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
