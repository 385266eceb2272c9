"""The journal: what is in it is never lost, never taken for something else, never two processes' at once."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.search.journal import Journal
from simulator.search.journalled import Journalled
from simulator.trials.crew import Alone, carry_out_all
from simulator.trials.plan import TrialError
from tests.simulator.trials.test_trials import TRIAL, sums
from traces.errors import InputError

QUESTION = {"what": ["anything", 1.5], "pairs": (1, 2)}
TRIALS = [replace(TRIAL, seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def outcomes():
    return [trial.run() for trial in TRIALS]


@pytest.fixture
def path(tmp_path, outcomes):
    path = tmp_path / "out" / "journal.jsonl"
    with Journal.open(path, QUESTION) as journal:
        journal.add(zip(TRIALS[:2], [outcomes[0], InputError("cannot", where="here", expected="more")], strict=True))
        journal.add([])
    return path


def test_answers_are_there_again(path, outcomes):
    with Journal.open(path, QUESTION) as journal:
        assert journal.resumed == len(journal) == 2
        assert journal.get(TRIALS[0]).as_dict() == outcomes[0].as_dict()
        assert str(journal.get(TRIALS[1])) == "here: cannot; expected more"
        assert journal.get(TRIALS[2]) is None


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 10**6))
def test_a_journal_that_was_cut_anywhere_goes_on(path, outcomes, cut):
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: cut % (len(whole) + 1)])
        with Journal.open(path, QUESTION) as journal:
            kept = journal.resumed
            missing = [trial for trial in TRIALS if journal.get(trial) is None]
            journal.add([(trial, outcomes[0]) for trial in missing])
        assert kept == max(0, whole[: cut % (len(whole) + 1)].count(b"\n") - 1)
        with Journal.open(path, QUESTION) as journal:
            assert len(journal) == 3
        assert all(json.loads(line) for line in path.read_text().splitlines())
    finally:
        path.write_bytes(whole)


def test_the_journal_of_another_search_is_refused_and_stays(path):
    before = path.read_bytes()
    with (
        pytest.raises(InputError, match=r"another search \(what differ\).*another --output"),
        Journal.open(path, {**QUESTION, "what": 1}),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "text"), [(1, "nonsense"), (2, "{}"), (2, '{"key": "x", "trial": {}, "refused": "no"}'), (3, "\x00" * 20)]
)
def test_a_broken_line_is_named(path, line, text):
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=rf"journal.jsonl:{line}: "), Journal.open(path, QUESTION):
        pass


def test_nobody_else_may_write_it(path):
    with Journal.open(path, QUESTION), pytest.raises(InputError, match="another search is running"):
        Journal.open(path, QUESTION).__enter__()


class Counting(Alone):
    def __init__(self):
        super().__init__()
        self.taken = []

    def start(self, ticket, trial):
        self.taken.append(trial)
        super().start(ticket, trial)


def test_no_trial_is_run_twice_whoever_asks(tmp_path):
    def plans():
        return {"one": sums([TRIALS[:2], TRIALS[:1]]), "two": sums([TRIALS[1:], TRIALS[:1]])}

    found = []
    for runs in (3, 0):
        crew = Counting()
        crew.places = 5
        with Journal.open(tmp_path / "journal.jsonl", QUESTION) as journal:
            found.append(carry_out_all(plans(), Journalled(crew, journal)))
        assert len(crew.taken) == runs
    assert found[0] == found[1] == carry_out_all(plans(), Alone())


class Dying(Alone):
    def wait(self):
        return [(ticket, TrialError("the process died")) for ticket, _ in super().wait()]


def test_what_failed_is_tried_again_by_who_goes_on(tmp_path, outcomes):
    path, found = tmp_path / "journal.jsonl", []
    for crew in (Dying(), Alone()):
        with Journal.open(path, QUESTION) as journal:
            carry_out_all({"one": asks(TRIALS[0], found)}, Journalled(crew, journal))
    assert isinstance(found[0], TrialError)
    assert found[1].as_dict() == outcomes[0].as_dict()


def asks(trial, found):
    found += yield [trial]
