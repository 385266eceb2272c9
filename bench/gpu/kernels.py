"""Stage ``kernels``: attention backends side by side, as a share of what the device's ceilings allow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from traces.command_line import new_app, run
from traces.errors import InputError

app = new_app("Attention backends side by side, as a share of what the device's ceilings allow.")
BLOCK_SIZE = 16
MOST_KV_BYTES = 16 * 2**30
"""Shapes with more KV a layer are left out."""
ROTATED_BYTES = 2**28
"""Layers are taken in turn, so many that their KV is larger than any cache."""
MOST_LAYERS = 8


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A batch: (tokens, past) of each chunk, and the contexts of the decodes."""

    name: str
    chunks: tuple[tuple[int, int], ...] = ()
    contexts: tuple[int, ...] = ()

    @property
    def slices(self) -> list[tuple[int, int]]:
        """(tokens, past) of every slice."""
        return [*self.chunks, *((1, context - 1) for context in self.contexts)]

    @property
    def blocks(self) -> int:
        """KV blocks that it holds."""
        return sum(-(-(tokens + past) // BLOCK_SIZE) for tokens, past in self.slices)

    def parts(self) -> tuple[Shape, Shape]:
        """Return its chunks and its decodes by themselves."""
        return Shape(name="chunks", chunks=self.chunks), Shape(name="decodes", contexts=self.contexts)


def shapes(quick: bool) -> list[Shape]:
    """Return what is measured: decodes, chunks after a past, both together."""
    sizes, lengths = ((1, 4), (32, 64)) if quick else ((1, 8, 32, 64, 128, 256), (256, 1024, 4096, 32768))
    chunks, pasts = ((16,), (0, 32)) if quick else ((128, 512, 2048, 8192), (0, 4096))
    found = [Shape(name=f"decode {size} x {length}", contexts=(length,) * size) for length in lengths for size in sizes]
    found += [Shape(name=f"chunk {size} after {past}", chunks=((size, past),)) for size in chunks for past in pasts]
    beside = (
        [((16, 32), (64,) * 4)]
        if quick
        else [((size, 2048), (1024,) * decodes) for size in (256, 512, 2048) for decodes in (32, 128)]
    )
    found += [
        Shape(
            name=f"mixed {size} after {past} + {len(contexts)} x {contexts[0]}",
            chunks=((size, past),),
            contexts=contexts,
        )
        for (size, past), contexts in beside
    ]
    return found


class Bench:
    """One attention layer of a model on one device, on a cache large enough for any one of ``shapes_``."""

    def __init__(self, model: str, device: Any, shapes_: Sequence[Shape]) -> None:
        import torch

        from engine.kv_cache import KVCache, KVLayout
        from policies.blocks import KVMemory
        from profiler.model import load_model

        spec = load_model(model)
        self.device = device
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.heads, self.kv_heads, self.head_dim = spec.heads, spec.kv_heads, spec.head_dim
        self.shapes = [shape for shape in shapes_ if self._kv_bytes(shape) <= MOST_KV_BYTES]
        blocks = max(shape.blocks for shape in self.shapes)
        smallest = min(map(self._kv_bytes, self.shapes))
        most = max(1, MOST_KV_BYTES // max(map(self._kv_bytes, self.shapes)))
        self.layers = int(min(MOST_LAYERS, most, 1 + ROTATED_BYTES // smallest))
        layout = KVLayout(layers=self.layers, kv_heads=self.kv_heads, head_dim=self.head_dim, dtype=self.dtype)
        memory = KVMemory(blocks=blocks, block_size=BLOCK_SIZE, max_model_len=blocks * BLOCK_SIZE)
        self.cache = KVCache(layout, memory, device)
        self._order = torch.randperm(blocks).tolist()

    def _kv_bytes(self, shape: Shape) -> int:
        return shape.blocks * BLOCK_SIZE * 2 * self.kv_heads * self.head_dim * self.dtype.itemsize

    def needs(self, shape: Shape) -> tuple[float, float]:
        """Return the bytes that a layer must move for ``shape`` and the FLOPs that it must compute."""
        kept = 2 * self.kv_heads * self.head_dim * self.dtype.itemsize
        asked = 2 * self.heads * self.head_dim * self.dtype.itemsize
        contexts = sum(tokens + past for tokens, past in shape.slices)
        tokens = sum(tokens for tokens, _ in shape.slices)
        pairs = sum(tokens * past + tokens * (tokens + 1) // 2 for tokens, past in shape.slices)
        return float(contexts * kept + tokens * (asked + kept)), 4.0 * self.heads * self.head_dim * pairs

    def run(self, backend: Any, shape: Shape) -> Callable[[], object]:
        """Return a call that runs one layer's attention of ``shape``, each time another layer."""
        import torch

        from engine.input import BatchInput, Slice

        free = iter(self._order)
        slices = [
            Slice([0] * tokens, past, [next(free) for _ in range(-(-(tokens + past) // BLOCK_SIZE))], samples=True)
            for tokens, past in shape.slices
        ]
        plan = backend.plan(BatchInput.of(slices, BLOCK_SIZE, self.device), self.cache)
        count = sum(each.tokens for each in slices)
        q_thd, k_tgd, v_tgd = (
            torch.randn(count, heads, self.head_dim, device=self.device).to(self.dtype)
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        )
        turns = cycle(range(self.layers))
        attend = partial(plan.attend, scale=self.head_dim**-0.5, window=None)
        return lambda: attend(next(turns), q_thd, k_tgd, v_tgd)


def backends(device: Any, layout: Any) -> dict[str, Any]:
    """Return the attention backends that run on ``device``."""
    from engine.attention import BACKENDS, attention_backend

    found: dict[str, Any] = {}
    for name in BACKENDS:
        try:
            backend = attention_backend(name, device)
            backend.check(layout, BLOCK_SIZE)
            found[name] = backend
        except InputError as error:
            print(f"({name} does not run here: {error})", flush=True)
    return found


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Whose heads: a preset or a config.json.")] = "llama-3.1-8b",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    output: Annotated[Path, typer.Option(help="A JSON file to write.")] = Path("out/gpu/kernels.json"),
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes.")] = False,
) -> None:
    """Print, for every shape, microseconds of each backend and the share of the ceiling that it reaches."""
    from dataclasses import asdict

    from ceilings import Timer, device_facts, measure_ceilings, open_device

    from traces.files import write_json

    where = open_device(device)
    timer = Timer(where)
    ceilings = measure_ceilings(where, timer, quick=quick)
    bench = Bench(model, where, shapes(quick))
    found = backends(where, bench.cache.layout)
    repeats = 3 if quick else 12
    rows: list[dict[str, Any]] = []
    print(f"{model}: microseconds of a layer's attention, and % of the ceiling", flush=True)
    print(f"{'':34}" + "".join(f"{name:>20}" for name in found))
    for shape in bench.shapes:
        seconds = {name: timer(bench.run(backend, shape), repeats) for name, backend in found.items()}
        floor_s = ceilings.floor_s(*bench.needs(shape))
        two_s = {}
        if shape.chunks and shape.contexts:
            two_s = {
                name: sum(timer(bench.run(backend, part), repeats) for part in shape.parts())
                for name, backend in found.items()
            }
        rows.append({"shape": shape.name, "floor_s": floor_s, "seconds": seconds, "two_calls_s": two_s})
        cells = "".join(f"{1e6 * value:>13,.1f}{100 * floor_s / value:>6.1f}%" for value in seconds.values())
        print(f"{shape.name:34}{cells}", flush=True)
        if two_s:
            cells = "".join(f"{1e6 * value:>13,.1f}{'':7}" for value in two_s.values())
            print(f"{'  in two calls':34}{cells}", flush=True)
    write_json(output, {"model": model, **device_facts(where), **asdict(ceilings), "rows": rows})


if __name__ == "__main__":
    run(app, "bench/gpu/kernels.py")
