"""Workloads that papers published statistics of, to be drawn without their data."""

from __future__ import annotations

from traces.lengths import LognormalLengths

PRESET_REQUESTS = 2048


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets."""
    return ("chat", "summarization")


def preset_lengths(name: str) -> LognormalLengths:
    """Return the lengths of a preset, from the statistics that Sarathi-Serve printed of its two datasets.

    ``chat`` is ShareGPT4 with totals up to 8192 tokens, ``summarization`` arXiv papers with totals up to
    16384. The paper's medians and 90th percentiles are met; the shape between them is an assumption.

    Raises
    ------
    KeyError
        If there is no preset of that name.
    """
    return {
        "chat": LognormalLengths(prompt_p50=1730, prompt_p90=5696, output_p50=415, output_p90=834, total_max=8192),
        "summarization": LognormalLengths(
            prompt_p50=7059, prompt_p90=12985, output_p50=208, output_p90=371, total_max=16384
        ),
    }[name]
