"""The options of the command line that say of which replicas a cluster is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policies.routing.catalog import parse_router
from simulator.cluster_settings import ClusterSettings, GroupSettings, LinkSettings, read_cluster
from simulator.failures import FailureSettings, parse_failures
from traces.errors import InputError
from traces.settings import from_mapping


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """What a person asked of the cluster; each field is the option of that name, None or empty where not given.

    Attributes
    ----------
    link_bandwidth, link_latency
        In GB/s and in milliseconds, as people write them.
    mtbf, mttr
        In seconds.
    """

    cluster: Path | None = None
    replicas: int | None = None
    prefill_replicas: int | None = None
    decode_replicas: int | None = None
    router: str | None = None
    link_bandwidth: float | None = None
    link_latency: float | None = None
    fail: list[str] | None = None
    mtbf: float | None = None
    mttr: float | None = None

    def cluster_settings(self) -> ClusterSettings:
        """Return the cluster that is asked for: of a file, or of equal replicas; other options come before a file.

        Raises
        ------
        InputError
            If an option is out of range, or two contradict each other.
        """
        settings = self._replicas() if self.cluster is None else self._of_file(self.cluster)
        changes: dict[str, Any] = {}
        if self.router is not None:
            changes["router"] = parse_router(self.router, where="--router")
        if link := self._link():
            changes["link"] = from_mapping(LinkSettings, link, where="--link-bandwidth, --link-latency")
        failures = {"mtbf_s": self.mtbf, "mttr_s": self.mttr, "listed": parse_failures(self.fail or ())}
        if self.fail or self.mtbf is not None or self.mttr is not None:
            changes["failures"] = from_mapping(FailureSettings, failures, where="--fail, --mtbf, --mttr")
        return replace(settings, **changes)

    def _of_file(self, path: Path) -> ClusterSettings:
        for name in ("replicas", "prefill_replicas", "decode_replicas"):
            if getattr(self, name) is not None:
                what = f"--{name.replace('_', '-')} together with --cluster"
                raise InputError(what, expected="the file alone, which says how many there are")
        return read_cluster(path)

    def _replicas(self) -> ClusterSettings:
        if self.prefill_replicas is None and self.decode_replicas is None:
            count = 1 if self.replicas is None else self.replicas
            return ClusterSettings(groups=(_group("both", count, "--replicas"),))
        if self.replicas is not None:
            what = "--replicas together with --prefill-replicas or --decode-replicas"
            raise InputError(what, expected="replicas that do both, or replicas for each")
        if self.prefill_replicas is None or self.decode_replicas is None:
            what = "one of --prefill-replicas and --decode-replicas alone"
            raise InputError(what, expected="both, or neither")
        prefill = _group("prefill", self.prefill_replicas, "--prefill-replicas")
        return ClusterSettings(groups=(prefill, _group("decode", self.decode_replicas, "--decode-replicas")))

    def _link(self) -> Mapping[str, float]:
        link = {}
        if self.link_bandwidth is not None:
            link["bandwidth_bytes_per_s"] = 1e9 * self.link_bandwidth
        if self.link_latency is not None:
            link["latency_s"] = self.link_latency / 1e3
        return link


def _group(role: str, count: int, where: str) -> GroupSettings:
    return from_mapping(GroupSettings, {"role": role, "count": count}, where=where)
