"""The facts of all nodes in one value, and how to gather them for this machine only."""

import uuid
from dataclasses import asdict, dataclass, field

from rayprob.doctor.all_reduce import AllReduce
from rayprob.doctor.facts import NodeFacts, gather
from rayprob.doctor.storage_probe import UriFacts, read_probe, remove_probe, write_probe


@dataclass(frozen=True)
class ClockOffset:
    """How far a node's clock is ahead of the driver's, and the error of that: half the shortest round trip."""

    ahead_s: float
    uncertainty_s: float


@dataclass(frozen=True)
class ClusterFacts:
    """Facts by node name; `silent` gives the reason for nodes without facts. Fields from `ray_gpus` on: clusters only."""

    nodes: dict[str, NodeFacts]
    silent: dict[str, str] = field(default_factory=dict)
    ray_gpus: dict[str, int] = field(default_factory=dict)
    storage: tuple[UriFacts, ...] = ()
    clocks: dict[str, ClockOffset] = field(default_factory=dict)
    all_reduce: AllReduce | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain data."""
        return asdict(self)


def gather_here(uris: tuple[str, ...], cache_folder: str) -> ClusterFacts:
    """Return the facts of this machine, without Ray."""
    facts = gather(cache_folder)
    return ClusterFacts({facts.host: facts}, storage=tuple(_probe_here(uri, facts.host) for uri in uris))


def _probe_here(uri: str, host: str) -> UriFacts:
    probe = new_probe()
    try:
        fault, elapsed_s = write_probe(uri, probe, host)
        reads = {} if fault else {host: read_probe(uri, probe, [host])}
    finally:
        remove_probe(uri, probe)
    return UriFacts(uri, {host: fault}, reads, elapsed_s)


def new_probe() -> str:
    """Return a unique name for a probe, so that two doctors do not collide."""
    return uuid.uuid4().hex[:8]


def clock_of(exchanges: list[tuple[float, float, float]]) -> ClockOffset:
    """Return a clock from exchanges (time asked, node's time, time answered) as in NTP, by the shortest round trip."""
    asked_at_s, its_time_s, answered_at_s = min(exchanges, key=lambda exchange: exchange[2] - exchange[0])
    return ClockOffset(its_time_s - (asked_at_s + answered_at_s) / 2, (answered_at_s - asked_at_s) / 2)
