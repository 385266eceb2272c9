"""What the engine's iterations are in a run record, and what its ``run.json`` says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from engine import hardware
from engine.engine import Engine, Iteration
from policies.catalog import PolicyChoice
from profiler.deployment import Deployment
from profiler.device import device_called
from traces.iteration_log import Columns, Ran
from traces.run_log import describe_workload
from traces.workload import Workload


def ran(iteration: Iteration, start_s: float = 0.0) -> Ran:
    """Return an iteration as a run record takes it, whose clock began at ``start_s`` by the engine's."""
    return Ran(
        batch=iteration.batch,
        stage_start_s=(iteration.start_s - start_s,),
        stage_time_s=(iteration.end_s - iteration.start_s,),
        blocks_used=(iteration.blocks_used,),
        waiting=iteration.waiting,
        running=iteration.running,
        gaps=iteration.done.gaps,
    )


def completing(deployment: Deployment) -> Callable[[Columns], Columns]:
    """Return what adds to columns of iterations those that follow from them: FLOPs, and that they were measured."""

    def complete(columns: Columns) -> Columns:
        return {"flops": deployment.flops_of(columns), "outside": np.zeros(len(columns["end_s"]), np.int32)}

    return complete


def run_meta(engine: Engine, choice: PolicyChoice, workload: Workload, deployment: Deployment) -> dict[str, Any]:
    """Return the content of ``run.json``: ``engine`` served ``workload`` under ``choice``."""
    memory = engine.runner.memory
    return {
        "source": "engine",
        "policy": {"name": choice.name, **asdict(choice.settings)},
        "workload": describe_workload(workload),
        "seed": engine.seed,
        "groups": [
            {
                "count": 1,
                "role": "both",
                "deployment": deployment.to_json(),
                "stages": 1,
                "gpus": 1,
                "kv_blocks": memory.blocks,
                "peak_flops": _peak_flops(engine.runner.device, deployment.dtype),
                "max_num_seqs": choice.settings.max_num_seqs,
                "cost_model": None,
            }
        ],
        "block_size": memory.block_size,
        "router": None,
        "link": None,
        "failures": [],
        "versions": {
            "charioteer": hardware.package_version("charioteer"),
            **hardware.versions(),
            "transformers": hardware.package_version("transformers"),
            "attention": engine.runner.backend.name,
            "device": hardware.device_name(engine.runner.device),
        },
    }


def _peak_flops(device: torch.device, dtype: str | None) -> float | None:
    """Return the peak of a GPU that is known, at 16 bits."""
    if device.type == "cpu" or dtype == "float32":
        return None
    preset = device_called(torch.cuda.get_device_name(device))
    return None if preset is None else preset.peak_flops
