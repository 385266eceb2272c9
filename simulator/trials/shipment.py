"""Files that trials name, taken along to machines that do not share a disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from simulator.cluster_settings import GroupSettings
from simulator.trials.trial import Trial
from traces.errors import InputError

Parcel = Mapping[str, bytes]
"""The files of one name, by their paths within a folder; a single file is alone, by the name "" (:data:`ITSELF`)."""
ITSELF = ""
CONFIG = "config.json"


def named_files(trial: Trial) -> list[str]:
    """Return the files and folders that a trial names, which a machine elsewhere has to have."""
    names = trial.candidate.names | {trial.demand.source}
    return sorted(name for name in names if Path(name).exists())


def files_in(path: Path) -> list[str]:
    """Return the files that count in a folder, within it; of a model's folder its configuration alone, for weights are
    not simulated. Of a file, :data:`ITSELF`."""
    if not path.is_dir():
        return [ITSELF]
    if (path / CONFIG).is_file():
        return [CONFIG]
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if each.is_file())


def pack(name: str) -> Parcel:
    """Return the contents of a file or folder.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = Path(name)
    try:
        return {relative: (path / relative).read_bytes() for relative in files_in(path)}
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=name) from error


def unpack(name: str, parcel: Parcel) -> str:
    """Write a parcel to this machine's disk, once a process; return the path that takes the place of its name."""
    folder = Path(_folder(_digest(parcel)).name)
    for relative, content in parcel.items():
        target = folder / (relative or Path(name).name)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return str(folder / Path(name).name if ITSELF in parcel else folder)


def moved(trial: Trial, paths: Mapping[str, str]) -> Trial:
    """Return a trial that names other paths in the place of its own; what comes out is the same."""

    def there(name: str | None) -> str | None:
        return paths.get(name, name) if name is not None else None

    def known(name: str) -> str:
        return paths.get(name, name)

    def group(settings: GroupSettings) -> GroupSettings:
        return replace(settings, device=there(settings.device), profile=there(settings.profile))

    candidate = trial.candidate
    cluster = replace(candidate.cluster, groups=tuple(group(each) for each in candidate.cluster.groups))
    candidate = replace(
        candidate,
        model=known(candidate.model),
        device=known(candidate.device),
        profile=there(candidate.profile),
        cluster=cluster,
    )
    return replace(trial, candidate=candidate, demand=replace(trial.demand, source=known(trial.demand.source)))


def _digest(parcel: Parcel) -> str:
    found = hashlib.sha256()
    for relative, content in parcel.items():
        found.update(relative.encode() + b"\0" + hashlib.sha256(content).digest())
    return found.hexdigest()[:32]


@cache
def _folder(digest: str) -> tempfile.TemporaryDirectory[str]:
    """Return a folder for these contents, which goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix=f"charioteer-{digest[:8]}-")
