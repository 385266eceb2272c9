"""A Ray cluster of two workers: a process that dies takes nothing with it, and what cannot be reached is said."""

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.trials.plan import run_here
from simulator.trials.ray_workers import ray_tasks
from tests.simulator.trials.test_trials import TRIAL
from tests.simulator.trials.test_workers import Deadly, like
from traces.errors import InputError

pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")


@pytest.fixture
def nothing_left(monkeypatch):
    """A folder for temporary files, with a name short enough for sockets; nothing may stay in it, or run from it."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield
        assert not list(Path(folder).iterdir())
        assert not [line for line in command_lines() if folder in line]


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_text()


@pytest.mark.usefixtures("nothing_left")
def test_a_task_that_dies_is_run_again_and_given_up_the_second_time(tmp_path):
    trials = [TRIAL, like(Deadly, TRIAL), like(Deadly, TRIAL, once=str(tmp_path / "died")), replace(TRIAL, seed=4)]
    answers = {}
    with ray_tasks("local", 2) as crew:
        assert crew.places == 4
        for ticket, trial in enumerate(trials):
            crew.start(ticket, trial)
        while len(answers) < len(trials):
            answers.update(crew.wait())
    assert (tmp_path / "died").exists()
    assert isinstance(answers[1], InputError)
    assert "died 2 times" in str(answers[1])
    expected = [each.as_dict() for each in run_here([TRIAL, TRIAL, trials[3]])]
    assert [answers[ticket].as_dict() for ticket in (0, 2, 3)] == expected


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_is_one_line(address, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(InputError, match=f"cannot reach a cluster at {address}"), ray_tasks(address):
        pass
