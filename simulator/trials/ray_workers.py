"""A Ray cluster that runs trials."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from simulator.child_processes import ONE_THREAD
from simulator.trials.plan import Answer
from simulator.trials.shipment import Parcel, moved, named_files, pack, unpack
from simulator.trials.trial import Trial
from simulator.trials.workers import MOST_DEATHS, answer_always, gave_up
from traces.errors import InputError

INSTALL = "pip install 'charioteer[ray]'"
MOST_LOSSES = 10
"""Times that a trial is begun again because its machine was lost, which is not its own doing."""
REACH_S = 10.0
"""How long a machine may take to answer at all."""
PACKAGES = ("traces", "policies", "profiler", "simulator")


@contextmanager
def ray_tasks(address: str, count: int | None = None) -> Iterator[RayTasks]:
    """Yield a crew of up to ``count`` tasks at once on the Ray cluster at ``address`` (by default one a CPU of it).

    The program's own code and the files that trials name are sent there; the libraries it needs must be installed.

    Raises
    ------
    InputError
        If Ray is not installed, or there is no cluster.
    """
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray = _connect(address, count, folder)
        try:
            yield RayTasks(ray, count or max(1, int(ray.cluster_resources().get("CPU", 1))))
        finally:
            ray.shutdown()


def _connect(address: str, count: int | None, folder: str) -> Any:
    """Return Ray, connected; what a cluster that is begun here leaves behind lies in ``folder``."""
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed", where="--ray", expected=INSTALL) from error
    _check_reachable(address)
    here = address == "local"
    environment = {"py_modules": [__import__(name) for name in PACKAGES], "env_vars": ONE_THREAD}
    try:
        ray.init(
            address=address,
            runtime_env=environment,
            num_cpus=count if here else None,
            include_dashboard=False if here else None,
            _temp_dir=folder if here else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        what = f"cannot reach a cluster at {address}: {str(error).strip().splitlines()[0]}"
        raise InputError(what, where="--ray", expected="the address of a running one, or local") from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise :class:`InputError` where nobody listens at HOST:PORT: Ray itself tries that for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        wish = "the address of a running one, or local"
        raise InputError(f"cannot reach a cluster at {address}: {error}", where="--ray", expected=wish) from error


class RayTasks:
    """A crew (:class:`simulator.trials.crew.Crew`) whose trials are Ray tasks.

    A trial whose process dies, or whose machine is lost, is run again elsewhere; one over which
    :data:`simulator.trials.workers.MOST_DEATHS` processes died is answered with an error.
    """

    def __init__(self, ray: Any, count: int) -> None:
        self._ray = ray
        self._count = count
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._parcels: dict[str, Any] = {}
        self._running: dict[Any, tuple[int, Trial]] = {}
        self._deaths: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()

    @property
    def places(self) -> int:
        """Two for each task at once: one that runs, and one to go on with."""
        return 2 * self._count

    def start(self, ticket: int, trial: Trial) -> None:
        """Take a trial."""
        names = named_files(trial)
        for name in names:
            if name not in self._parcels:
                self._parcels[name] = self._ray.put(pack(name))
        future = self._remote.remote(trial, {name: [self._parcels[name]] for name in names})
        self._running[future] = ticket, trial

    def wait(self) -> list[tuple[int, Answer]]:
        """Wait until at least one trial is over; return those that are, by ticket."""
        over: list[tuple[int, Answer]] = []
        while not over:
            ended, _ = self._ray.wait(list(self._running))
            for future in ended:
                over += self._take(future)
        return over

    def _take(self, future: Any) -> list[tuple[int, Answer]]:
        errors = self._ray.exceptions
        ticket, trial = self._running.pop(future)
        try:
            answered = self._ray.get(future)
        except errors.RayTaskError as error:
            raise RuntimeError(f"a Ray task failed: {error}") from error
        except errors.RayError as error:
            return self._again(ticket, trial, error)
        return [(ticket, answered)]

    def _again(self, ticket: int, trial: Trial, error: Exception) -> list[tuple[int, Answer]]:
        """Start a trial anew whose process or machine is gone, unless that has happened too often."""
        errors = self._ray.exceptions
        own = isinstance(error, errors.WorkerCrashedError | errors.OutOfMemoryError)
        counter, most = (self._deaths, MOST_DEATHS) if own else (self._losses, MOST_LOSSES)
        counter[ticket] += 1
        if counter[ticket] >= most:
            return [(ticket, gave_up(trial, type(error).__name__, most))]
        self.start(ticket, trial)
        return []


def _run(trial: Trial, parcels: Mapping[str, list[Any]]) -> Answer:
    """Answer a trial, on a machine of the cluster; references come in lists, or Ray would fetch them each time."""
    return answer_always(moved(trial, {name: _unpacked(name, reference) for name, (reference,) in parcels.items()}))


@cache
def _unpacked(name: str, reference: Any) -> str:
    """Return where this process has put the files of a name."""
    import ray

    parcel: Parcel = ray.get(reference)
    return unpack(name, parcel)
