"""What measuring needs of whoever runs the kernels: the engine offers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

ENTRY_POINTS = "charioteer.kernels"
"""The group of entry points under which an engine announces its :class:`Kernels`."""


@dataclass(frozen=True, kw_only=True)
class OpShape:
    """One op to measure, by the names of a profile's columns (see :class:`profiler.profile.Profile`)."""

    op: str
    kind: str
    m: int = 0
    n: int = 0
    k: int = 0
    sequences: int = 0
    query_tokens: int = 0
    past_tokens: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    decodes: int = 0
    decode_context: int = 0
    size_bytes: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations of matrix products; 0 for an op that only moves bytes."""
        pairs = 2 * self.query_tokens * self.past_tokens + self.query_tokens * (self.query_tokens + 1)
        pairs = self.sequences * pairs + 2 * self.decodes * self.decode_context
        return 2 * self.m * self.n * self.k + 2 * self.heads * self.head_dim * pairs


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the kernels run on.

    Attributes
    ----------
    device_name, driver, clocks, versions
        As in :class:`profiler.profile.Meta`.
    is_cpu, threads
        Whether it is a CPU; threads that compute.
    cache_bytes, memory_bytes
        The last cache before memory; memory that programs can get.
    """

    device_name: str
    driver: str = ""
    clocks: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    is_cpu: bool
    threads: int
    cache_bytes: int
    memory_bytes: int


Run = Callable[[], object]


class Timed(Protocol):
    """Something of an engine that can be run and timed."""

    def prepare(self, shape: OpShape) -> Run:
        """Return a call that runs ``shape`` once."""
        ...

    def seconds(self, run: Run, repeats: int) -> Sequence[float]:
        """Return the seconds that each of ``repeats`` calls took."""
        ...


class Kernels(Timed, Protocol):
    """The kernels of an engine, one at a time, on one device.

    ``fused`` says whether the engine runs query, key and value in one product, and gate and up in one.

    Made as ``Kernels(accelerator=..., dtype=..., threads=...)``: ``cpu`` or ``cuda``, an element type of a
    profile, and how many threads compute on a CPU.

    Raises
    ------
    InputError
        If this machine has no such device.
    """

    fused: bool

    def __init__(self, *, accelerator: str, dtype: str, threads: int) -> None: ...

    def machine(self) -> Machine:
        """Return what the kernels run on, with clock rates of this moment."""
        ...

    def prepare(self, shape: OpShape) -> Run:
        """Return a call that runs one op once, each time on weights and KV that no cache holds.

        Besides the ops of a profile there are two to find the ceilings: ``copy`` and ``read`` of
        ``size_bytes``.
        """
        ...

    def seconds(self, run: Run, repeats: int) -> Sequence[float]:
        """Return the seconds that each of ``repeats`` calls took on the device."""
        ...

    def iterations(self, model: str, shapes: Sequence[OpShape]) -> Timed:
        """Return what times whole iterations of the engine on a model with random weights.

        Parameters
        ----------
        model
            A preset, or the path of a folder or ``config.json``.
        shapes
            The iterations to come; the largest decides how large the KV cache is.

        Raises
        ------
        InputError
            If the device has no room for the model.
        """
        ...
