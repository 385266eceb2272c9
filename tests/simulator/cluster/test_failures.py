"""When replicas fail, and what a failure does to the requests on them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from policies import choose
from simulator.cluster import Group
from simulator.dispatcher import MOST_RESTARTS
from simulator.failures import FailureSettings, Outage, parse_failures
from simulator.simulation import Scenario, simulate
from traces.errors import InputError
from traces.run_record import RunRecord, read_run
from traces.workload import Workload


def several(count: int, prompt: int = 100, output: int = 10, gap_s: float = 0.0) -> Workload:
    return Workload(
        name="several",
        arrival_s=gap_s * np.arange(count),
        prompt_tokens=np.full(count, prompt),
        output_tokens=np.full(count, output),
    )


def served(scenario: Scenario, folder: Path, name: str = "sarathi-serve") -> RunRecord:
    simulate(scenario, choose(name), folder / "run")
    return read_run(folder / "run")


def test_a_list_is_read() -> None:
    assert parse_failures(["3@120+30", "0@1e-2+.5"]) == (Outage(3, 120.0, 30.0), Outage(0, 0.01, 0.5))


@pytest.mark.parametrize(
    "text", ["3@120", "120+30", "x@1+2", "-1@1+2", "1@-1+2", "1@1+0", "1@nan+2", "1@1+inf", "1@a+b"]
)
def test_what_is_no_failure_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--fail: '.*'"):
        parse_failures([text])


def test_contradictions_are_refused() -> None:
    for wrong, complaint in (
        ({"mtbf_s": 3.0}, "both, or neither"),
        ({"mtbf_s": 0.0, "mttr_s": 1.0}, "mtbf is 0 s"),
        ({"mtbf_s": 1.0, "mttr_s": 1.0, "listed": (Outage(0, 1.0, 1.0),)}, "expected one of the two"),
        ({"listed": (Outage(1, 5.0, 2.0), Outage(1, 2.0, 4.0))}, "replica 1 fails at 5 s, while it is down"),
    ):
        with pytest.raises(ValueError, match=complaint):
            FailureSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a failure of replica 4, which is not there; expected one of 0 to 3"):
        FailureSettings(listed=(Outage(4, 1.0, 1.0),)).check(4)


def test_random_failures_have_the_means_and_streams_of_their_own() -> None:
    settings = FailureSettings(mtbf_s=100.0, mttr_s=10.0)
    outages = [list(islice(stream, 2000)) for stream in settings.outages(2, seed=7)]
    again = [list(islice(stream, 2000)) for stream in settings.outages(3, seed=7)]
    assert outages == again[:2], "a third replica changes nothing for the others"
    for mine in outages:
        recovered = np.array([0.0, *(outage.recovered_s for outage in mine[:-1])])
        up_s = np.array([outage.failed_s for outage in mine]) - recovered
        assert (up_s >= 0).all()
        assert np.mean(up_s) == pytest.approx(100, rel=0.1)
        assert np.mean([outage.down_s for outage in mine]) == pytest.approx(10, rel=0.1)
    assert np.corrcoef(*[[outage.down_s for outage in mine] for mine in outages])[0, 1] < 0.1


def test_a_failure_by_hand(
    tmp_path: Path, paper_group: Callable[..., Group], cluster_scenario: Callable[..., Scenario]
) -> None:
    """A prompt of 100 tokens takes 20 ms, a decode 10.1 ms; the replica is down from 35 ms to 1 s.

    By then the first token is out at 20 ms and the second at 30.1 ms; the third is lost on its way. 102 tokens are
    computed again in 20.2 ms, which yields the third, and the fourth comes 10.1 ms later.
    """
    failures = FailureSettings(listed=(Outage(0, 0.035, 0.965),))
    run = served(cluster_scenario(several(1, output=4), paper_group(1), failures=failures), tmp_path)
    np.testing.assert_allclose(run.requests.first_token_s, [0.020])
    np.testing.assert_allclose(run.requests.finished_s, [1.0 + 0.0202 + 0.0101])
    assert run.iterations.prefill_tokens.tolist() == [100, 0, 102, 0]
    assert run.requests.restarts.tolist() == [1]
    assert run.requests.preemptions.tolist() == [0]
    (failure,) = run.meta.failures
    assert (failure.replica, failure.failed_s, failure.recovered_s) == (0, 0.035, 1.0)
    assert (failure.requests, failure.tokens) == (1, 101)


def test_requests_of_a_failed_replica_go_to_others_ahead_of_younger_ones(
    tmp_path: Path, paper_group: Callable[..., Group], cluster_scenario: Callable[..., Scenario]
) -> None:
    workload = several(40, prompt=500, output=20, gap_s=0.001)
    failures = FailureSettings(listed=(Outage(1, 0.2, 1000.0),))
    run = served(cluster_scenario(workload, paper_group(2), router="round-robin", failures=failures), tmp_path)
    requests = run.requests
    (failure,) = run.meta.failures
    assert failure.recovered_s is None
    assert failure.requests == requests.restarts.sum() > 10
    assert (requests.decode_replica[requests.restarts > 0] == 0).all()
    waited = np.flatnonzero(requests.scheduled_s > 0.2)
    assert len(set(requests.arrival_s[waited] < requests.arrival_s[20])) == 2
    assert (np.diff(requests.first_token_s[waited]) >= 0).all(), "a younger request was served first"


def test_requests_wait_until_a_replica_is_up(
    tmp_path: Path, paper_group: Callable[..., Group], cluster_scenario: Callable[..., Scenario]
) -> None:
    workload = several(30, gap_s=0.01)
    failures = FailureSettings(listed=(Outage(0, 0.05, 2.0), Outage(1, 0.1, 1.0)))
    run = served(cluster_scenario(workload, paper_group(2), failures=failures), tmp_path)
    np.testing.assert_array_equal(run.requests.generated_tokens, workload.output_tokens)
    late = run.requests.arrival_s > 0.1
    assert (run.requests.scheduled_s[late] >= 1.1).all()
    assert (run.requests.replica[late] == 1).all()


def test_replicas_that_fail_faster_than_they_serve_are_an_error(
    tmp_path: Path, paper_group: Callable[..., Group], cluster_scenario: Callable[..., Scenario]
) -> None:
    scenario = cluster_scenario(several(1), paper_group(2), failures=FailureSettings(mtbf_s=1e-4, mttr_s=1e-4))
    with pytest.raises(InputError, match=f"request 1 was on {MOST_RESTARTS} replicas that failed"):
        served(scenario, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failure_after_the_end_leaves_nothing_in_the_record(
    tmp_path: Path, paper_group: Callable[..., Group], cluster_scenario: Callable[..., Scenario]
) -> None:
    scenario = cluster_scenario(several(5), paper_group(2), failures=FailureSettings(listed=(Outage(0, 1e6, 1.0),)))
    run = served(scenario, tmp_path)
    assert run.meta.failures == ()
    assert run.requests.restarts.sum() == 0
