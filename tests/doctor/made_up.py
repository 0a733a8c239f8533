"""Facts of made-up nodes: everything in order, but for what a test changes."""

from dataclasses import replace
from typing import Any

from rayprob.doctor.cluster import ClockOffset, ClusterFacts
from rayprob.doctor.facts import Disk, NodeFacts, Versions
from rayprob.doctor.finding import Finding
from rayprob.doctor.findings import findings
from rayprob.doctor.storage_probe import UriFacts

VERSIONS = Versions("3.11.9", "2.60.0", "2.14.1+cu130", "0.2.0", "0a1b2c3d", "13.0", "580.65.06")
FINE = NodeFacts(
    host="a",
    versions=VERSIONS,
    gpus=("A10G", "A10G"),
    torch_gpus=2,
    memory_bytes=100 * 10**9,
    shm_bytes=16 * 10**9,
    open_files=65536,
    cache=Disk("/mnt/cache", 500 * 10**9, 800e6),
)


def node(**changes: Any) -> NodeFacts:
    """Return a node that is fine, with changes; a change of `versions` is a dict of its own."""
    changes["versions"] = replace(VERSIONS, **changes.pop("versions", {}))
    return replace(FINE, **changes)


def cluster(num_nodes: int = 3, odd: NodeFacts = FINE, **changes: Any) -> ClusterFacts:
    """Return a cluster of nodes a, b, c, ... that is fine but for `odd`, the facts of its last node, and changes."""
    names = [chr(ord("a") + place) for place in range(num_nodes)]
    shared = UriFacts("/mnt/shared", dict.fromkeys(names, ""), {name: dict.fromkeys(names, "") for name in names}, 0.02)
    fine = ClusterFacts(
        nodes={**dict.fromkeys(names, FINE), names[-1]: odd},
        ray_gpus=dict.fromkeys(names, 2),
        storage=(shared,),
        clocks={name: ClockOffset(0.001 * place, 0.001) for place, name in enumerate(names)},
    )
    return replace(fine, **changes)


def amiss(facts: ClusterFacts) -> list[Finding]:
    """Return the findings that are not ok."""
    return [finding for finding in findings(facts) if finding.level != "ok"]


def only(facts: ClusterFacts) -> Finding:
    """Return the one finding that is not ok."""
    (finding,) = amiss(facts)
    return finding
