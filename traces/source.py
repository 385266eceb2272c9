"""Where a workload comes from: a preset by its name, or a file, with arrivals as asked for."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np

from traces.arrivals import Arrivals, arrivals_at, check_rate
from traces.errors import InputError
from traces.generator import GeneratorSettings, generate
from traces.presets import PRESET_REQUESTS, preset_lengths, preset_names
from traces.readers import read_workload
from traces.stream import TraceFile
from traces.workload import Workload


def open_workload(
    name_or_path: str | os.PathLike[str],
    *,
    num_prompts: int | None = None,
    request_rate: float | None = None,
    burstiness: float = 1.0,
    seed: int = 0,
    sort: bool = False,
    window: tuple[float, float] | None = None,
    scale: float | None = None,
    zero_output_as_one: bool = False,
) -> Workload:
    """Return a preset's workload or a file's, at the arrivals asked for.

    Parameters
    ----------
    name_or_path
        ``chat``, ``summarization`` (:func:`traces.presets.preset_names`), or a file of any known format. A
        file that is named as a preset is reached as ``./chat``.
    num_prompts
        The first so many requests of a file (all without it); so many drawn from a preset (2048 without it).
    request_rate
        Requests per second, infinite for all at once. A source with arrival times has its gaps scaled to
        that mean rate, their burst shape kept. One without (a preset, a file of lengths) gets a Poisson
        process, or gamma gaps with ``burstiness``; without a rate it stays a workload of lengths, whose
        requests are there at time 0.
    burstiness
        The shape of gamma gaps, as vLLM's; for a source without arrival times, with a finite rate.
    seed
        Decides every draw.
    sort
        Put the rows of a file in order of arrival instead of refusing a time that runs backwards.
    window
        Only the requests that arrive in [start, end) seconds; for a source with arrival times.
    scale
        Multiply the rate of a source with arrival times; not together with ``request_rate``.
    zero_output_as_one
        As in :func:`traces.readers.read_workload`.

    Raises
    ------
    InputError
        If there is no such preset or file, it is not sound, or an option does not fit it.
    """
    if str(name_or_path) in preset_names():
        name = str(name_or_path)
        _need_clock(name, window=window, scale=scale)
        return _draw(name, num_prompts, arrivals_at(request_rate, burstiness), seed)
    whole = read_workload(_find(name_or_path), sort=sort, zero_output_as_one=zero_output_as_one)
    workload = part(whole, window=window, num_prompts=num_prompts, scale=scale)
    if not workload.timed:
        return _arrive(workload, arrivals_at(request_rate, burstiness), seed)
    if burstiness != 1.0:
        what = f"burstiness {burstiness} of a workload that has arrival times"
        raise InputError(what, where=name_or_path, expected="a source of lengths only")
    if scale is not None and request_rate is not None:
        raise InputError("a scale and a request rate", where=name_or_path, expected="one of the two")
    return workload if request_rate is None else at_rate(workload, request_rate)


def _find(path: str | os.PathLike[str]) -> TraceFile:
    trace = TraceFile(path)
    if trace.missing:
        wish = f"a workload file, or one of {', '.join(preset_names())}"
        raise InputError("no such file", where=trace.path, expected=wish)
    return trace


def _need_clock(name: str, **options: object) -> None:
    for option, value in options.items():
        if value is not None:
            what = f"a {option} of a workload without arrival times"
            raise InputError(what, where=name, expected="a file that has them")


def _draw(name: str, num_prompts: int | None, arrivals: Arrivals | None, seed: int) -> Workload:
    settings = GeneratorSettings(
        lengths=preset_lengths(name),
        arrivals=arrivals,
        num_prompts=PRESET_REQUESTS if num_prompts is None else num_prompts,
        seed=seed,
        name=name,
    )
    return generate(settings)


def _arrive(workload: Workload, arrivals: Arrivals | None, seed: int) -> Workload:
    if arrivals is None:
        return workload
    if seed < 0:
        raise InputError(f"seed is {seed}", expected="an integer >= 0")
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    return replace(workload, arrival_s=arrivals.draw(len(workload), rng), timed=True)


def part(
    workload: Workload,
    *,
    window: tuple[float, float] | None = None,
    num_prompts: int | None = None,
    scale: float | None = None,
) -> Workload:
    """Return a window of ``workload``, of that the first ``num_prompts``, of that ``scale`` times the rate.

    Raises
    ------
    InputError
        If a value is not allowed, the window holds no request, or there are no arrival times to cut or scale.
    """
    if not workload.timed:
        _need_clock(workload.name, window=window, scale=scale)
    if num_prompts is not None and num_prompts < 1:
        raise InputError(f"{num_prompts} requests", where=workload.name, expected="an integer >= 1")
    if window is not None:
        workload = cut(workload, window)
    if num_prompts is not None:
        workload = workload.head(num_prompts)
    return workload if scale is None else workload.scaled(scale)


def cut(workload: Workload, window: tuple[float, float]) -> Workload:
    """Return the requests of ``workload`` in the window [start, end) seconds.

    Raises
    ------
    InputError
        If the window is none or holds no request.
    """
    start, end = window
    if not (0 <= start < end):
        raise InputError(f"the window {start:g}:{end:g}", expected="0 <= start < end, in seconds")
    kept = workload.window(start, end)
    if not len(kept):
        last = f"arrivals from {workload.arrival_s[0]:g} to {workload.arrival_s[-1]:g} s"
        what = f"no request in the window {start:g}:{end:g}"
        raise InputError(what, where=workload.name, expected=f"one that overlaps its {last}")
    return kept


def at_rate(workload: Workload, request_rate: float) -> Workload:
    """Return ``workload`` with its gaps scaled to the mean rate ``request_rate``, all at once if infinite.

    Raises
    ------
    InputError
        If the rate is none, or all requests arrive at once, so that there is nothing to scale.
    """
    if request_rate == math.inf:
        return replace(workload, arrival_s=np.zeros(len(workload)))
    check_rate(request_rate)
    if len(workload) == 1:
        return workload
    if workload.span_s == 0:
        what = f"all {len(workload)} requests arrive at once"
        raise InputError(what, where=workload.name, expected="gaps to scale to a request rate")
    return workload.scaled(request_rate / workload.rate_per_s)


def parse_window(text: str) -> tuple[float, float]:
    """Return the window that ``START:END`` means, in seconds; either end may be left out.

    Raises
    ------
    InputError
        If it is none.
    """
    start, colon, end = text.partition(":")
    try:
        window = float(start or 0), float(end or math.inf)
    except ValueError:
        window = math.nan, math.nan
    if not colon or not 0 <= window[0] < window[1]:
        raise InputError(f"{text!r}", where="--window", expected="START:END in seconds, such as 600:1200")
    return window
