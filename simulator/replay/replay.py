"""Simulating a published run again, and judging the simulation by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from policies.blocks import KVMemory
from policies.catalog import choose
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.device import Device, device_called, device_names, load_device
from profiler.model import load_model, model_names
from simulator.cluster import Cluster
from simulator.range_marks import check_measured
from simulator.replay.engine_settings import SPARE_BLOCKS, EngineSettings, read_settings
from simulator.replay.latencies import Latencies, Row, compare, disagreements
from simulator.replay.prefix_hits import prefix_hits
from simulator.replay.published_run import PublishedRun
from simulator.replay.seconds import Audit, audit
from simulator.simulation import Scenario, simulate
from traces.errors import InputError
from traces.run_record import RunRecord, read_run

POLICY = "vllm-v1"
PROFILE_FILE = "profile.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """A real run and its simulation.

    Attributes
    ----------
    published, settings
        The real run, and what its engine ran with.
    derived_blocks
        Whether the KV blocks were derived, since the run does not say how many it had.
    run
        The simulation.
    measured, simulated
        Latencies of both.
    rows, audit
        The judgement: figures, and second by second (None without a time series).
    cautions
        What does not add up in the folder of the run.
    """

    published: PublishedRun
    settings: EngineSettings
    derived_blocks: bool
    run: RunRecord
    measured: Latencies
    simulated: Latencies
    rows: list[Row]
    audit: Audit | None
    cautions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for machines."""
        latencies: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            document = {key: value for key, value in asdict(row).items() if key != "key"}
            latencies.setdefault(row.key[0], {})[row.key[1]] = document
        seconds = () if self.audit is None else self.audit.series
        return {
            "run": self.published.workload().name,
            "settings": asdict(self.settings),
            "kv_blocks": self.run.meta.kv_blocks,
            "kv_blocks_derived": self.derived_blocks,
            "latencies": latencies,
            "seconds": {each.name: {"deviation": each.deviation, "measured_mean": each.mean} for each in seconds},
            "preemptions": int(self.run.iterations.preemptions.sum()),
            "iterations": len(self.run.iterations.end_s),
            "cautions": list(self.cautions),
        }


def replay(
    published: PublishedRun,
    folder: Path,
    *,
    profile: Path | None,
    device: str | None,
    model: str | None,
    strict: bool = False,
) -> Replay:
    """Simulate ``published`` into the run record ``folder`` and judge it.

    Parameters
    ----------
    profile
        A profile folder, or a folder of tables that ``profiler import`` takes; None: the shipped measurements.
    device, model
        In place of what the run's ``config.json`` names.
    strict
        Whether a batch outside of what was measured is an error.

    Raises
    ------
    InputError
        If the run, the profile and this package's models and devices do not go together.
    """
    hardware = _device(published, device)
    settings = read_settings(published.meta, hardware.memory_bytes, where=published.folder / "vllm" / "meta.json")
    scenario = _scenario(published, settings, hardware, model or _model(published), profile)
    if strict:
        check_measured(scenario.cluster.groups[0].cost_model)
    simulate(replace(scenario, strict=strict), choose(POLICY, **settings.policy()), folder)
    run = read_run(folder)
    measured, simulated = Latencies.measured(published.requests), Latencies.simulated(run)
    rows = compare(measured, simulated, published.summary)
    lead_s = float(published.requests.arrival_s[0]) - published.start_s
    return Replay(
        published=published,
        settings=settings,
        derived_blocks=settings.kv_blocks is None,
        run=run,
        measured=measured,
        simulated=simulated,
        rows=rows,
        audit=audit(published.seconds, run, lead_s),
        cautions=(*disagreements(rows, published.summary), *prefix_hits(published.requests, settings)),
    )


def _scenario(
    published: PublishedRun, settings: EngineSettings, device: Device, model: str, profile: Path | None
) -> Scenario:
    placed = Deployment(
        model=model,
        device=device.name,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        block_size=settings.block_size,
        max_model_len=settings.max_model_len or load_model(model).max_position,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=settings.max_num_seqs,
        cudagraph_capture_sizes=settings.cudagraph_capture_sizes,
    )
    blocks = settings.kv_blocks or placed.kv_blocks - SPARE_BLOCKS
    memory = KVMemory(blocks=blocks, block_size=settings.block_size, max_model_len=placed.context_limit)
    with _profile(profile, device) as folder:
        cost_model: CostModel = load_cost_model(placed, profile=folder, one_launch=True)
    return Scenario(workload=published.workload(), cluster=Cluster.single(placed, cost_model, memory))


@contextmanager
def _profile(path: Path | None, device: Device) -> Iterator[Path | None]:
    """Yield a profile folder: ``path`` itself, or what its tables import as."""
    if path is None or path.suffix == ".json" or (path / PROFILE_FILE).is_file():
        yield path
        return
    from profiler.importers import import_tables
    from profiler.profile import write_profile

    with TemporaryDirectory() as folder:
        imported = Path(folder) / "profile"
        write_profile(imported, import_tables(path, device.name))
        yield imported


def _device(published: PublishedRun, given: str | None) -> Device:
    if given is not None:
        return load_device(given)
    known = device_called(published.hardware)
    if known is None:
        wish = f"--device, one of {', '.join(device_names())} or a file"
        raise InputError(f"unknown hardware {published.hardware!r}", where=published.folder, expected=wish)
    return known


def _model(published: PublishedRun) -> str:
    name = published.model.rsplit("/", 1)[-1].lower()
    if name not in model_names():
        wish = f"--model, one of {', '.join(model_names())} or a config.json"
        raise InputError(f"unknown model {published.model!r}", where=published.folder, expected=wish)
    return name
