"""Run records of what the scheduler's loop does: what is in them, where they begin and end, and what stops them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.clock import WallClock  # noqa: E402
from engine.engine import Engine, Iteration  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from engine.server import recorder as module  # noqa: E402
from engine.server.messages import Abort, Stop, Submit, Swap, ToEngine  # noqa: E402
from engine.server.record_folder import RecordFolder  # noqa: E402
from engine.server.recorder import Books, Recorder  # noqa: E402
from engine.server.segment import Segment, prefix_names  # noqa: E402
from engine.server.service import Service  # noqa: E402
from policies import choose  # noqa: E402
from traces.errors import InputError  # noqa: E402
from traces.metrics import measure  # noqa: E402
from traces.perfetto import export_perfetto  # noqa: E402
from traces.run_record import RunRecord, read_run  # noqa: E402
from traces.source import open_workload  # noqa: E402
from traces.workload import Workload  # noqa: E402

DRAIN = Stop(drain=True)
PROMPT = tuple(range(30, 46))
Served = Callable[..., Path]


def submit(key: int, prompt: Sequence[int] = PROMPT, arrival_s: float | None = None, **params: Any) -> Submit:
    asked = SamplingParams(**{"temperature": 0, "max_tokens": 6, **params})
    when = 100.0 + key if arrival_s is None else arrival_s
    return Submit(key=key, prompt_token_ids=tuple(prompt), params=asked, arrival_s=when)


class Script:
    """Hands commands out, the next ones after so many iterations."""

    def __init__(self, engine: Engine, inbox: SimpleQueue[Sequence[ToEngine]], commands: Sequence[Any]) -> None:
        self._left, self._inbox, self._wait = list(commands), inbox, 0
        step = engine.step

        def stepping(start_s: float | None = None) -> Iteration | None:
            try:
                return step(start_s)
            finally:
                self._wait -= 1
                self.go_on()

        engine.step = stepping  # type: ignore[method-assign]
        self.go_on()

    def go_on(self) -> None:
        while self._left and self._wait <= 0:
            command = self._left.pop(0)
            if isinstance(command, int):
                self._wait = command
            else:
                self._inbox.put((command,))


@pytest.fixture
def record(make_engine: Callable[..., Engine], tiny_folder: Path, tmp_path: Path) -> Served:
    """record(*commands, policy=..., period_s=...): serve, a number among the commands being iterations to wait."""

    def run(
        *commands: Any, policy: str = "vllm-v1", period_s: float = inf, settings: Any = None, engine: Any = None
    ) -> Path:
        engine = engine or make_engine(policy, settings=settings, clock=WallClock(0.0))
        inbox: SimpleQueue[Sequence[ToEngine]] = SimpleQueue()
        Script(engine, inbox, commands)
        recorder = Recorder(RecordFolder(tmp_path / "records"), engine, model=str(tiny_folder), period_s=period_s)
        service = Service(engine, inbox, lambda _: None, follower=recorder)
        try:
            service.run()
        finally:
            service.close()
        return tmp_path / "records"

    return run


def records(folder: Path) -> dict[str, tuple[RunRecord, Workload]]:
    """All that is there, which is complete: nothing else is."""
    return {each.name: (read_run(each), open_workload(each / "workload.jsonl")) for each in sorted(folder.iterdir())}


def only(folder: Path) -> tuple[RunRecord, Workload]:
    ((run, workload),) = records(folder).values()
    return run, workload


@pytest.mark.parametrize("policy", ["vllm-v1", "sarathi-serve", "vllm", "orca"])
def test_lengths_and_times_of_what_was_served(policy: str, record: Served) -> None:
    run, workload = only(record(submit(1), 2, submit(2, PROMPT[:9], max_tokens=3), submit(3), DRAIN, policy=policy))
    requests, iterations = run.requests, run.iterations
    assert run.meta.source == "engine"
    assert run.meta.policy["name"] == policy
    assert requests.arrival_s.tolist() == [0.0, 1.0, 2.0]
    assert requests.prompt_tokens.tolist() == [16, 9, 16]
    assert requests.output_tokens.tolist() == requests.generated_tokens.tolist() == [6, 3, 6]
    assert (requests.finished_s >= requests.first_token_s).all()
    assert iterations.outputs.sum() == 15
    assert requests.finished_s.max() == iterations.end_s[-1]
    assert workload.arrival_s.tolist() == [0.0, 1.0, 2.0]
    assert workload.prompt_tokens.tolist() == [16, 9, 16]
    assert workload.output_tokens.tolist() == [6, 3, 6]
    assert measure(run).finished == 3


def test_prefixes_are_known_and_say_nothing(record: Served) -> None:
    folder = record(submit(1, range(40)), submit(2, range(36)), submit(3, [*range(20), 3, *range(20)]), DRAIN)
    _, workload = only(folder)
    assert workload.hash_ids is not None
    size = workload.hash_ids.block_size
    assert size == 16
    one, two, three = (workload.hash_ids.of(each).tolist() for each in range(3))
    assert one[:2] == two[:2]
    assert (len(one), len(two), len(three)) == (3, 3, 3)
    assert one[2] != two[2]
    assert one[0] == three[0]
    assert one[1] != three[1]
    again = prefix_names([b"a", b"b"], b"salt")
    assert again.tolist() == prefix_names([b"a", b"b"], b"salt").tolist()
    assert not set(again.tolist()) & set(prefix_names([b"a", b"b"], b"pepper").tolist())
    assert ((again >= 0) & (again < 2**53)).all()


def test_no_prefixes_where_nobody_asks_for_them(record: Served) -> None:
    assert only(record(submit(1), DRAIN, policy="sarathi-serve"))[1].hash_ids is None


def test_what_was_aborted_stays_unfinished(record: Served, tmp_path: Path) -> None:
    commands = [submit(1), submit(2), submit(3), 3, Abort(keys=(2,)), submit(4), Abort(keys=(4,)), DRAIN]
    run, workload = only(record(*commands))
    requests = run.requests
    assert np.isnan(requests.finished_s).tolist() == [False, True, False, True]
    assert requests.output_tokens.tolist() == [6, 6, 6, 6]
    assert requests.generated_tokens.tolist() == [6, 3, 6, 0]
    assert np.isnan(requests.scheduled_s).tolist() == [False, False, False, True]
    assert workload.output_tokens.tolist() == [6, 3, 6]
    metrics = measure(run)
    assert (metrics.requests, metrics.finished, metrics.unfinished) == (4, 2, 2)
    export_perfetto(run, tmp_path / "timeline.json.gz")


def test_stop_tokens_end_outputs_before_what_was_asked_for(record: Served, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(clock=WallClock(0.0))
    (request,) = engine.generate([list(PROMPT)], SamplingParams(temperature=0, max_tokens=9))
    stop = request.token_ids[18]  # type: ignore[union-attr]
    run, workload = only(record(submit(1, max_tokens=9, stop_token_ids=(stop,)), DRAIN))
    assert run.requests.output_tokens.tolist() == [9]
    assert run.requests.generated_tokens.tolist() == workload.output_tokens.tolist()
    assert 1 <= workload.output_tokens[0] <= 3
    assert not np.isnan(run.requests.finished_s[0])


def test_what_failed_stays_unfinished(record: Served, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("sarathi-serve", settings={"max_num_seqs": 1}, clock=WallClock(0.0))
    forward = engine.runner.forward

    def failing(inputs: Any) -> Any:
        if 29 in inputs.token_ids_t.tolist():
            raise RuntimeError("a fever")
        return forward(inputs)

    engine.runner.forward = failing  # type: ignore[method-assign]
    run, workload = only(record(submit(1), submit(2, [*PROMPT, 29]), submit(3), DRAIN, engine=engine))
    assert np.isnan(run.requests.finished_s).tolist() == [False, True, False]
    assert np.isnan(run.requests.scheduled_s).tolist() == [False, False, False]
    assert workload.output_tokens.tolist() == [6, 1, 6]


def test_a_policy_a_record(record: Served) -> None:
    swap = Swap(ticket=0, policy=choose("sarathi-serve", max_num_batched_tokens=32).as_dict())
    found = records(record(submit(1), submit(2), 3, swap, 1, submit(3), DRAIN))
    assert list(found) == ["0001", "0002"]
    (first, first_load), (second, second_load) = found.values()
    assert first.meta.policy["name"] == "vllm-v1"
    assert second.meta.policy["name"] == "sarathi-serve"
    assert second.meta.policy["max_num_batched_tokens"] == 32
    assert first.requests.generated_tokens.tolist() == first_load.output_tokens.tolist() == [6, 6]
    assert len(first.iterations) == 3
    assert not np.isnan(first.requests.finished_s).any()
    assert second.requests.arrival_s.tolist() == second_load.arrival_s.tolist() == [0.0]
    assert second.iterations.start_s[0] >= 0


def test_a_policy_that_is_refused_changes_nothing(record: Served) -> None:
    run, _ = only(record(submit(1), 2, Swap(ticket=0, policy={"policy": "unheard-of"}), submit(2), DRAIN))
    assert len(run.requests) == 2


def test_a_record_is_as_long_as_it_may_be(record: Served) -> None:
    commands = [submit(1), submit(2), submit(3), 2, submit(4), submit(5), submit(6), DRAIN]
    found = records(record(*commands, period_s=2.0))
    assert [workload.arrival_s.tolist() for _, workload in found.values()] == [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    assert sum(int(run.iterations.outputs.sum()) for run, _ in found.values()) == 36


def test_nothing_that_was_never_scheduled_makes_a_record(record: Served) -> None:
    folder = record(submit(1), Abort(keys=(1,)), Swap(ticket=0, policy=choose("vllm").as_dict()), submit(2), DRAIN)
    assert list(records(folder)) == ["0002"]


def test_dropped_requests_are_in_the_last_record(record: Served) -> None:
    run, workload = only(record(submit(1), 2, Stop(drain=False)))
    assert run.requests.generated_tokens.tolist() == workload.output_tokens.tolist() == [2]
    assert np.isnan(run.requests.finished_s).all()


def test_where_the_disk_does_not_keep_up(
    record: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The record ends without a gap, and the next one begins when all is written."""
    monkeypatch.setattr(module, "BACKLOG", 8)
    caught_up, arrived, ran = Event(), Recorder.arrived, Books.ran

    def slow(books: Books, iteration: Iteration) -> None:
        caught_up.wait(20)
        ran(books, iteration)

    def late(recorder: Recorder, request: Any) -> None:
        if request.request_id == 2:
            caught_up.set()
            while recorder._queue.qsize():
                Event().wait(0.001)
        arrived(recorder, request)

    monkeypatch.setattr(Books, "ran", slow)
    monkeypatch.setattr(Recorder, "arrived", late)
    with caplog.at_level(logging.WARNING):
        found = records(record(submit(1, max_tokens=40), 20, submit(2), 10, submit(3), DRAIN))
    assert list(found) == ["0001", "0002"]
    first, second = (run for run, _ in found.values())
    assert first.requests.generated_tokens.tolist() == [40]
    assert 8 <= len(first.iterations) <= 10
    assert second.requests.prompt_tokens.tolist() == [16]
    said = [each.getMessage() for each in caplog.records]
    missed = 30 - len(first.iterations)
    assert said == [
        "the disk does not keep up with --record: the record ends",
        f"--record goes on; {missed} iterations are in no record",
    ]


@pytest.mark.parametrize("place", ["ran", "ended", "workload"])
def test_a_full_disk_stops_recording_alone(
    place: str, record: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, calls = getattr(Segment, place), [0]

    def full(own: Segment, *given: Any) -> Any:
        calls[0] += 1
        if own._first_id > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(own, *given)

    monkeypatch.setattr(Segment, place, full)
    swap = Swap(ticket=0, policy=choose("vllm").as_dict())
    run, _ = only(record(submit(1), 6, swap, submit(2), submit(3), 3, swap, submit(4), DRAIN))
    assert run.requests.generated_tokens.tolist() == [6]
    (said,) = caplog.records
    assert said.getMessage() == "recording has stopped, and serving goes on: [Errno 28] No space left on device"


def test_one_server_a_folder(tmp_path: Path) -> None:
    (tmp_path / "0007").mkdir()
    (tmp_path / "0007" / "run.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".0008.4711-00c0ffee").mkdir()
    (tmp_path / "..0008.4711-00c0ffee.4711-00c0ffee").mkdir()
    held = RecordFolder(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0007", "notes.txt"]
    assert [held.following().name for _ in range(2)] == ["0008", "0009"]
    with pytest.raises(InputError, match="another server records there"):
        RecordFolder(tmp_path)
    with pytest.raises(InputError, match="cannot write: Not a directory"):
        RecordFolder(tmp_path / "notes.txt" / "more")
    with pytest.raises(InputError, match=r"--record .*notes.txt: cannot write"):
        RecordFolder(tmp_path / "notes.txt")
