"""A workload against the wall clock, into a run record."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import torch

from engine.engine import Engine, Iteration
from engine.progress import OnProgress
from engine.prompts import RandomPrompts
from engine.recording import completing, ran, run_meta
from engine.runner import Runner
from engine.sampling import SamplingParams
from policies.catalog import PolicyChoice
from profiler.deployment import Deployment
from profiler.device import device_called
from traces.errors import InputError
from traces.request_log import KnownRequests
from traces.run_log import RunLog
from traces.run_record import RunWriter
from traces.workload import Workload

OnIteration = Callable[[Iteration], None]


def replay(
    engine: Engine,
    choice: PolicyChoice,
    workload: Workload,
    folder: Path,
    *,
    model: str,
    on_progress: OnProgress | None = None,
    on_iteration: OnIteration | None = None,
) -> None:
    """Serve ``workload`` at its arrival times and write the run record to ``folder``.

    Prompts are random token ids of the traced lengths, outputs have exactly the traced lengths. The first
    iteration begins when the first request arrives, and each one when the one before has ended as long as
    there is work: what it costs to take requests in and to schedule is part of the iteration's time.

    Parameters
    ----------
    engine
        Fresh: it has served nothing yet.
    choice
        The policy that it runs.
    model
        The preset, folder or ``config.json`` that the engine's model comes from.
    on_progress
        Called with the number of finished requests after each iteration that finished one.
    on_iteration
        Called after each iteration; what it takes counts as part of the next one, unless it stops the clock.

    Raises
    ------
    InputError
        If a request can never be served, or the model's FLOPs cannot be told from its config; nothing is
        written then.
    """
    deployment = deployment_of(engine.runner, [choice], model)
    check_lengths(engine, workload)
    engine.runner.warm_up()
    with RunWriter(folder) as writer:
        log = RunLog(writer, KnownRequests(workload), completing(deployment))

        def take(iteration: Iteration) -> None:
            log.ended(iteration.done.finished)
            log.iterations(ran(iteration))
            if on_progress is not None and iteration.finished:
                on_progress(log.finished)
            if on_iteration is not None:
                on_iteration(iteration)

        serve(engine, workload, take)
        assert log.finished == len(workload), "requests were left behind"
        log.close()
        writer.meta(run_meta(engine, choice, workload, deployment))


def serve(engine: Engine, workload: Workload, on_iteration: OnIteration) -> None:
    """Serve ``workload`` by the engine's clock, which is started anew."""
    prompts = RandomPrompts(workload, engine.runner.vocab, engine.seed)
    arrivals_s, outputs = workload.arrival_s.tolist(), workload.output_tokens.tolist()
    following, now_s = 0, 0.0
    engine.clock.start()
    while following < len(workload) or engine.has_work:
        while following < len(workload) and arrivals_s[following] <= now_s:
            params = SamplingParams(temperature=0, max_tokens=outputs[following], ignore_eos=True)
            engine.add_request(prompts.prompt(following), params, arrival_s=arrivals_s[following])
            following += 1
        iteration = engine.step(now_s)
        if iteration is None:
            now_s = arrivals_s[following]
            engine.clock.wait_until(now_s)
        else:
            on_iteration(iteration)
            now_s = iteration.end_s


def check_lengths(engine: Engine, workload: Workload) -> None:
    """Refuse a workload of which a request can never be served, and say which.

    Raises
    ------
    InputError
        For the first such request.
    """
    lengths = zip(workload.prompt_tokens.tolist(), workload.output_tokens.tolist(), strict=True)
    for request, (prompt_tokens, output_tokens) in enumerate(lengths):
        try:
            engine.policy.check(prompt_tokens, output_tokens)
        except InputError as error:
            raise InputError(str(error), where=f"{workload.name}, request {request + 1}") from error


def deployment_of(runner: Runner, choices: Collection[PolicyChoice], model: str) -> Deployment:
    """Return the deployment that a runner is, for the largest batch that any of ``choices`` may run.

    Raises
    ------
    InputError
        If ``model`` is no preset, folder or ``config.json`` that can be read.
    """
    layout, memory = runner.cache.layout, runner.memory
    return Deployment(
        model=model,
        device=_device(runner.device),
        block_size=memory.block_size,
        max_model_len=memory.max_model_len,
        max_num_batched_tokens=max(choice.settings.most_tokens(memory.max_model_len) for choice in choices),
        max_num_seqs=max(choice.settings.max_num_seqs for choice in choices),
        dtype=str(layout.dtype).removeprefix("torch."),
    )


def _device(device: torch.device) -> str:
    """Return the preset of a device, or what the driver calls it."""
    if device.type == "cpu":
        return "cpu"
    name = torch.cuda.get_device_name(device)
    preset = device_called(name)
    return name if preset is None else preset.name
