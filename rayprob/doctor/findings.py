"""From the facts of all nodes to findings: what was found, what is required, what to do. Pure."""

from rayprob.doctor.amounts import check_amounts, check_cache
from rayprob.doctor.cluster import ClusterFacts
from rayprob.doctor.finding import Finding
from rayprob.doctor.reach import check_all_reduce, check_clocks, check_storage
from rayprob.doctor.versions import check_gpus, check_nodes, check_versions

CHECKS = (
    check_nodes,
    check_versions,
    check_gpus,
    check_amounts,
    check_cache,
    check_storage,
    check_clocks,
    check_all_reduce,
)


def findings(cluster: ClusterFacts) -> list[Finding]:
    """Return the findings of all checks."""
    return [finding for check in CHECKS for finding in check(cluster)]


def is_fit(found: list[Finding]) -> bool:
    """Return whether nothing found would break a run."""
    return all(finding.level != "fault" for finding in found)
