"""Whether all nodes have the same software, and the GPUs that Ray and torch expect."""

from collections import Counter
from collections.abc import Callable, Mapping

from rayprob.doctor.cluster import ClusterFacts
from rayprob.doctor.facts import NodeFacts
from rayprob.doctor.finding import SHOWN, Finding, Level, by_level, everywhere, named

# The oldest driver for each CUDA major version, from NVIDIA's table of minor version compatibility.
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
INSTALL = "install the same constraints.txt on every node (cluster/node/setup.sh does), then restart Ray there"


def check_nodes(cluster: ClusterFacts) -> list[Finding]:
    """Return which nodes answered, and the errors of the others."""
    findings = [Finding("nodes", "ok", everywhere(cluster.nodes), f"{len(cluster.nodes)} answer")] if cluster.nodes else []
    reasons: dict[str, list[str]] = {}
    for node, reason in cluster.silent.items():
        reasons.setdefault(reason, []).append(node)
    return findings + [_silent(nodes, reason) for reason, nodes in reasons.items()]


def _silent(nodes: list[str], reason: str) -> Finding:
    if "No module named" in reason:
        remedy = "submit it as a job, which includes the package: ray job submit --working-dir . -- rayprob doctor --cluster"
    else:
        remedy = "see `ray status` and /tmp/ray/session_latest/logs on that node; restart Ray there"
    return Finding("nodes", "fault", named(nodes), reason, "an answer", remedy)


def check_versions(cluster: ClusterFacts) -> list[Finding]:
    """Return whether Python, Ray, torch, rayprob, CUDA and the driver have the same version on all nodes."""
    nodes = cluster.nodes
    with_gpus = {node: facts for node, facts in nodes.items() if facts.gpus}
    findings = [
        *_compare("python", nodes, lambda facts: facts.versions.python, _python_level),
        *_compare("ray", nodes, lambda facts: facts.versions.ray),
        *_compare("torch", nodes, lambda facts: facts.versions.torch.partition("+")[0]),
        *_compare("rayprob", nodes, lambda facts: f"{facts.versions.rayprob} (code {facts.versions.code})"),
        *_compare("CUDA of torch", with_gpus, lambda facts: facts.versions.cuda or "none"),
        *_compare("NVIDIA driver", with_gpus, lambda facts: facts.versions.driver or "none", lambda values: "warning"),
    ]
    return findings + _drivers(with_gpus)


def _compare(
    check: str,
    nodes: Mapping[str, NodeFacts],
    version: Callable[[NodeFacts], str],
    level_of: Callable[[list[str]], Level] = lambda values: "fault",
) -> list[Finding]:
    values = {node: version(facts) for node, facts in nodes.items()}
    counts = Counter(values.values()).most_common()
    if len(counts) <= 1:
        return [Finding(check, "ok", everywhere(values), value) for value, _ in counts]
    said = "; ".join(f"{value} on {named([n for n in values if values[n] == value])}" for value, _ in counts[:SHOWN])
    odd = [node for node in values if values[node] != counts[0][0]]
    return [Finding(check, level_of(list(values.values())), named(odd), said, "one version", INSTALL)]


def _python_level(values: list[str]) -> Level:
    """Ray refuses a different minor version, and only warns about a different patch version."""
    return "fault" if len({value.rpartition(".")[0] for value in values}) > 1 else "warning"


def _drivers(nodes: Mapping[str, NodeFacts]) -> list[Finding]:
    findings = []
    for node, facts in nodes.items():
        cuda, driver = facts.versions.cuda, facts.versions.driver
        oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0])) if cuda else None
        if cuda and driver and oldest and int(driver.split(".")[0]) < oldest:
            remedy = f"install driver {oldest} or newer, or a torch built for an older CUDA"
            findings.append(
                Finding(
                    "driver and CUDA", "fault", node, f"driver {driver}, torch for CUDA {cuda}", f"{oldest} or newer", remedy
                )
            )
    return findings


def check_gpus(cluster: ClusterFacts) -> list[Finding]:
    """Return whether driver, torch and Ray agree on how many GPUs each node has."""
    if not any(facts.gpus for facts in cluster.nodes.values()) and not any(cluster.ray_gpus.values()):
        return by_level("GPUs", dict.fromkeys(cluster.nodes, "ok"), lambda nodes: "none", "", "")
    levels = {node: _gpu_level(facts, cluster.ray_gpus.get(node)) for node, facts in cluster.nodes.items()}
    wanted = "the same number for driver, torch and Ray"
    remedy = (
        "if nvidia-smi lists none, install the driver, and NVIDIA's container runtime for docker; if torch sees none, install "
        "its CUDA build and check CUDA_VISIBLE_DEVICES; if Ray's count differs, restart it there without --num-gpus"
    )

    def found(nodes: list[str]) -> str:
        return "; ".join(dict.fromkeys(_gpus_said(cluster.nodes[node], cluster.ray_gpus.get(node)) for node in nodes))

    return by_level("GPUs", levels, found, wanted, remedy)


def _gpu_level(facts: NodeFacts, of_ray: int | None) -> Level:
    if facts.torch_gpus < len(facts.gpus) or (of_ray is not None and of_ray > len(facts.gpus)):
        return "fault"
    return "warning" if of_ray is not None and of_ray < len(facts.gpus) else "ok"


def _gpus_said(facts: NodeFacts, of_ray: int | None) -> str:
    kinds = Counter(facts.gpus)
    listed = ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "none"
    counted = "" if of_ray is None else f", Ray counts {of_ray}"
    return f"{listed}; torch sees {facts.torch_gpus}{counted}"
