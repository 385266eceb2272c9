"""Iteration times that others published, to be printed beside predictions. Nothing is fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.aggregates import Aggregates

SARATHI = "SARATHI (arXiv 2308.16369), LLaMA-13B on one A6000"
OSDI = "public artifact of Sarathi-Serve (OSDI'24), Yi-34B-200K, TP2 on two A100 80 GB PCIe"
CONTEXT = 1024


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published iteration.

    Attributes
    ----------
    label
        What the batch holds.
    batch
        The same as aggregates.
    total_s, linear_s, attention_s
        Published seconds; None where only other parts were published.
    linear_holds_rest
        Whether ``linear_s`` is all but attention, or the linear layers alone.
    source
        Where.
    """

    label: str
    batch: Aggregates
    total_s: float
    linear_s: float | None = None
    attention_s: float | None = None
    linear_holds_rest: bool = True
    source: str


def published_for(model: str, device: str, tensor_parallel_size: int) -> list[Published]:
    """Return the iterations that were published for this model on devices of this kind."""
    if (model, device, tensor_parallel_size) == ("llama-13b", "a6000", 1):
        return _sarathi()
    if model == "yi-34b" and device in ("a100-pcie", "a100-sxm") and tensor_parallel_size == 2:
        return _osdi()
    return []


def _sarathi() -> list[Published]:
    """Table 2 and the tile quantisation steps of section 4."""
    table = [
        ("prefill 1024", Aggregates.of(1024), 234.8, 224.8, 10.0),
        ("decode 4", Aggregates.of(decodes=4, context=CONTEXT), 49.96, 44.28, 5.68),
        ("prefill 1021 + decode 3", Aggregates.of(1021, decodes=3, context=CONTEXT), 238.4, 223.2, 15.2),
    ]
    rows = [
        Published(
            label=label,
            batch=batch,
            total_s=total / 1e3,
            linear_s=linear / 1e3,
            attention_s=attention / 1e3,
            source=f"{SARATHI}, table 2",
        )
        for label, batch, total, linear, attention in table
    ]
    steps = ((128, 55.0), (256, 69.8), (257, 92.33))
    return rows + [_prefill(tokens, total, f"{SARATHI}, tile quantisation") for tokens, total in steps]


def _osdi() -> list[Published]:
    """Figure 2 and table 2 of the artifact; without its prefill of 256 tokens, the first batch of its run, which took
    longer than that of 512."""
    prefills = ((128, 48.1), (512, 105.6), (1024, 214.3), (2048, 366.0), (4096, 757.6), (8192, 1863.0), (16384, 4407.5))
    decodes = ((1, 46.8), (2, 47.5), (4, 48.8), (8, 69.7), (16, 77.3), (32, 87.9), (64, 127.8), (128, 189.3))
    rows = [_prefill(tokens, total, f"{OSDI}, figure 2") for tokens, total in prefills]
    for count, total in decodes:
        batch = Aggregates.of(decodes=count, context=CONTEXT)
        label = f"decode {count}"
        rows.append(Published(label=label, batch=batch, total_s=total / 1e3, source=f"{OSDI}, figure 2"))
    table = [
        ("prefill 1024", Aggregates.of(1024), 217.24, 160.93, 13.67),
        ("decode 4", Aggregates.of(decodes=4, context=CONTEXT), 68.12, 25.50, 3.00),
        ("prefill 1021 + decode 3", Aggregates.of(1021, decodes=3, context=CONTEXT), 217.65, 159.00, 3.99),
    ]
    for label, batch, total, linear, attention in table:
        rows.append(
            Published(
                label=label,
                batch=batch,
                total_s=total / 1e3,
                linear_s=linear / 1e3,
                attention_s=attention / 1e3,
                linear_holds_rest=False,
                source=f"{OSDI}, table 2",
            )
        )
    return rows


def _prefill(tokens: int, total_ms: float, source: str) -> Published:
    return Published(label=f"prefill {tokens}", batch=Aggregates.of(tokens), total_s=total_ms / 1e3, source=source)
