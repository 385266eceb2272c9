"""A fitted device: coefficients, residuals, and how well they fit. JSON that people can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.bands import Bands
from profiler.engine_fit import EngineFit
from profiler.measured_range import MeasuredRange
from profiler.op import OPS, Shape
from profiler.residual import LARGEST_CORRECTION, Curves, Residual, residual_from_json
from profiler.surface import Surfaces
from profiler.tile import Floats
from traces.errors import InputError
from traces.files import read_json, whole_file

if TYPE_CHECKING:
    from profiler.device import Device

SCHEMA_VERSION = 3
"""Coefficients and what residuals look at belong to the physics of one version: files of another are refused."""


@dataclass(frozen=True, kw_only=True)
class FittedOp:
    """One op of a fitted device.

    Attributes
    ----------
    name
        A key of :data:`profiler.op.OPS`.
    coefficients
        What the op's physics takes.
    residual, curves, surfaces
        Corrections to the physics, for any shape and for the shapes that were profiled.
    profiled_alone
        Whether the residual counts for layouts with a surface alone.
    rows
        Measurements it was fitted to.
    errors
        ``{"unseen shapes": {"rows", "median", "p90", "time_weighted"}, "profiled shapes": {...}}``, shares of
        the measured time, on rows held out of the fit.
    bands
        ``{"unseen shapes": how wide a band around a prediction is, ...}``, from the same rows.
    measured
        What it was measured on; None where nothing says so.
    """

    name: str
    coefficients: Mapping[str, float]
    residual: Residual | None = None
    curves: Curves | None = None
    surfaces: Surfaces | None = None
    profiled_alone: bool = False
    rows: int = 0
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    bands: Mapping[str, Bands] = field(default_factory=dict)
    measured: MeasuredRange | None = None

    def predict(self, shape: Shape, device: Device) -> Floats:
        """Return seconds for each row of ``shape``."""
        op = OPS[self.name]
        seconds = op.physics(self.coefficients, shape, device)
        return np.asarray(seconds * np.exp(self.correction(shape, device)), dtype=np.float64)

    def correction(self, shape: Shape, device: Device) -> Floats:
        """Return log(expected / physics): the clipped residual, and for a profiled shape its curve or surface."""
        op = OPS[self.name]
        correction = np.zeros(len(shape[op.keys[-1]]))
        if self.residual is not None and op.features is not None:
            raw = self.residual.evaluate(op.residual_features(self.coefficients, shape, device))
            correction = np.clip(raw, -LARGEST_CORRECTION, LARGEST_CORRECTION)
        if self.profiled_alone:
            known = list(self.surfaces.points) if self.surfaces is not None else []
            correction = np.where(np.isin(op.groups(shape), known), correction, 0.0)
        if self.curves is not None and op.axis is not None:
            correction = correction + self.curves.evaluate(op.curve_of(shape), op.axis(shape))
        if self.surfaces is not None and op.plane is not None:
            correction = correction + self.surfaces.evaluate(op.groups(shape), op.plane(shape))
        return correction

    def profiled(self, shape: Shape) -> Floats | None:
        """Return where the layout of the one row of ``shape`` was profiled, [points, dimensions] in doublings."""
        if self.surfaces is None:
            return None
        points = self.surfaces.points.get(float(OPS[self.name].groups(shape)[0]))
        return None if points is None else points[:, :-1]

    def band(self, coverage: float, predicted_s: float) -> float:
        """Return the half width, in log time, of a band around ``predicted_s`` that holds ``coverage`` of the
        rows held out at such times.

        Those of unseen shapes count, which err on the wide side for shapes that were profiled. It is a promise
        for rows measured as these were: another software build moves times by more than any band.
        """
        bands = next((each for kind, each in self.bands.items() if kind != "profiled shapes"), None)
        return LARGEST_CORRECTION if bands is None else bands.width(coverage, predicted_s)

    def physics_only(self) -> FittedOp:
        """Return the same op without its corrections and the coefficients of its device alone, for another device."""
        own = OPS[self.name].own_coefficients
        coefficients = {name: value for name, value in self.coefficients.items() if name not in own}
        return replace(self, coefficients=coefficients, residual=None, curves=None, surfaces=None, profiled_alone=False)

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        return {
            "rows": self.rows,
            "measured": None if self.measured is None else self.measured.to_json(),
            "errors": self.errors,
            "bands": {kind: bands.to_json() for kind, bands in self.bands.items()},
            "coefficients": {name: float(f"{value:.6g}") for name, value in self.coefficients.items()},
            "curves": None if self.curves is None else self.curves.to_json(),
            "residual": None if self.residual is None else self.residual.to_json(),
            **({} if self.surfaces is None else {"surfaces": self.surfaces.to_json()}),
            **({"profiled_alone": True} if self.profiled_alone else {}),
        }

    @staticmethod
    def from_json(name: str, document: Mapping[str, Any]) -> FittedOp:
        """Return the op that :meth:`to_json` described."""
        residual, curves, surfaces = document["residual"], document["curves"], document.get("surfaces")
        unknown = set(document["coefficients"]) - {*OPS[name].coefficients, *OPS[name].own_coefficients}
        if unknown:
            raise ValueError(f"{name} has no coefficient {min(unknown)!r}")
        return FittedOp(
            name=name,
            coefficients=document["coefficients"],
            residual=None if residual is None else residual_from_json(residual),
            curves=None if curves is None else Curves.from_json(curves),
            surfaces=None if surfaces is None else Surfaces.from_json(surfaces),
            profiled_alone=bool(document.get("profiled_alone", False)),
            rows=document["rows"],
            errors=document["errors"],
            bands={kind: Bands.from_json(bands) for kind, bands in document["bands"].items()},
            measured=MeasuredRange.from_json(document.get("measured")),
        )


@dataclass(frozen=True, kw_only=True)
class FittedDevice:
    """What was learned about one device.

    Attributes
    ----------
    device
        Preset name of the device whose measurements these are.
    origin
        Where the measurements come from, with what they were fitted, rows read and refused.
    ops
        By name; ops that nobody measured are absent.
    borrowed
        Ops that come from another device's measurements, with that device's preset name.
    overhead_s
        Seconds of the engine beside its kernels, where the profile measured them: charged once a stage and
        iteration.
    engine
        What the engine's iterations cost beyond their ops, where the profile measured whole ones; it counts in
        place of ``overhead_s``.
    """

    device: str
    origin: Mapping[str, Any]
    ops: Mapping[str, FittedOp]
    borrowed: Mapping[str, str] = field(default_factory=dict)
    overhead_s: float | None = None
    engine: EngineFit | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        ops = {name: op.to_json() for name, op in self.ops.items()}
        header = {"schema_version": SCHEMA_VERSION, "device": self.device, "origin": self.origin}
        engine = {} if self.engine is None else {"engine": self.engine.to_json()}
        return {**header, "borrowed": dict(self.borrowed), "overhead_s": self.overhead_s, **engine, "ops": ops}

    @staticmethod
    def from_json(document: Mapping[str, Any], *, where: str | PathLike[str]) -> FittedDevice:
        """Return the device that :meth:`to_json` described.

        Raises
        ------
        InputError
            If ``document`` is of another version or lacks what it should hold.
        """
        if document.get("schema_version") != SCHEMA_VERSION:
            version = document.get("schema_version")
            wish = f"{SCHEMA_VERSION}: fit its profile again"
            raise InputError(f"schema_version is {version!r}", where=where, expected=wish)
        try:
            ops = {name: FittedOp.from_json(name, op) for name, op in document["ops"].items()}
            keys = ("device", "origin", "borrowed", "overhead_s")
            engine = EngineFit.from_json(document.get("engine"))
            return FittedDevice(ops=ops, engine=engine, **{key: document[key] for key in keys})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"not a fitted device: {error}", where=where, expected="a file that `profiler fit` wrote"
            ) from error

    def source_of(self, op: str) -> str:
        """Return the preset name of the device that ``op`` was measured on."""
        return self.borrowed.get(op, self.device)

    def through_json(self) -> FittedDevice:
        """Return what reading the written file would give: the same, with rounded numbers."""
        import json

        return FittedDevice.from_json(json.loads(compact_json(self.to_json())), where=f"fit of {self.device}")

    def save(self, path: str | PathLike[str]) -> None:
        """Write to ``path``; the same measurements give the same bytes."""
        with whole_file(path) as temporary:
            temporary.write_text(compact_json(self.to_json()) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | PathLike[str]) -> FittedDevice:
        """Read what :meth:`save` wrote."""
        return FittedDevice.from_json(read_json(path), where=path)


def compact_json(value: Any, indent: int = 0) -> str:
    """Return JSON with objects on lines of their own and each list on one line."""
    import json

    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, allow_nan=False, separators=(", ", ": ") if indent < 6 else (",", ":"))
    pad = " " * (indent + 1)
    items = [f"{pad}{json.dumps(str(key))}: {compact_json(item, indent + 1)}" for key, item in value.items()]
    return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
