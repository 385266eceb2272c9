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
"""The files of one name, by their paths within a folder; a single file is alone, by its own name."""


def named_files(trial: Trial) -> list[str]:
    """Return the files and folders that a trial names, which a machine elsewhere has to have."""
    names = trial.candidate.names | {trial.demand.source}
    return sorted(name for name in names if Path(name).exists())


def pack(name: str) -> Parcel:
    """Return the contents of a file or folder.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = Path(name)
    files = [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
    try:
        return {str(each.relative_to(path if path.is_dir() else path.parent)): each.read_bytes() for each in files}
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=name) from error


def unpack(name: str, parcel: Parcel) -> str:
    """Write a parcel to this machine's disk, once a process; return the path that takes the place of its name."""
    folder = _folder(_digest(parcel))
    for relative, content in parcel.items():
        target = folder / relative
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    is_file = list(parcel) == [Path(name).name]
    return str(folder / Path(name).name if is_file else folder)


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
def _folder(digest: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"charioteer-{digest[:8]}-"))
