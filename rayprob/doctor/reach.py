"""Whether the nodes reach storage and one another: files, clocks, an all-reduce."""

from rayprob.doctor.all_reduce import AllReduce
from rayprob.doctor.cluster import ClusterFacts
from rayprob.doctor.finding import Finding, Level, everywhere, named
from rayprob.doctor.storage_probe import UriFacts
from rayprob.files import storage

SKEW_WARNING_S, SKEW_FAULT_S = 1.0, 60.0
GRADIENT_BYTES = 4 * 42_664_080  # ResNet-101 with 80 labels, float32
SLOW_STEP_S = 1.0


def check_storage(cluster: ClusterFacts) -> list[Finding]:
    """Return whether every node can write to each URI and read what all wrote; on a cluster, warn if no URI is given."""
    if not cluster.storage and not cluster.ray_gpus:
        return []
    if not cluster.storage:
        remedy = "--storage URI for each of the run's folder and data.root"
        where = everywhere({**cluster.nodes, **cluster.silent})
        return [Finding("storage", "warning", where, "not checked", "readable and writable from every node", remedy)]
    return [finding for facts in cluster.storage for finding in _of_uri(facts)]


def _of_uri(facts: UriFacts) -> list[Finding]:
    check = f"storage {facts.uri}"
    unwritten = {node: fault for node, fault in facts.writes.items() if fault}
    findings = [
        Finding(check, "fault", named(nodes), _masked(fault), "writable from every node", _write_remedy(facts.uri))
        for fault, nodes in _grouped(unwritten).items()
    ]
    unread = {node: _unread(met) for node, met in facts.reads.items() if any(met.values())}
    findings += [
        Finding(check, "fault", named(nodes), said, "every node reads what each wrote", _read_remedy(facts.uri))
        for said, nodes in _grouped(unread).items()
    ]
    fine = f"written and read by all; the slowest write took {facts.slowest_write_s:.2f} s"
    return findings or [Finding(check, "ok", everywhere(facts.writes), fine)]


def _grouped(said: dict[str, str]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = {}
    for node, text in said.items():
        nodes.setdefault(text, []).append(node)
    return nodes


def _unread(met: dict[str, str]) -> str:
    faults = {writer: fault for writer, fault in met.items() if fault}
    return f"cannot read what {named(faults)} wrote: {_masked(next(iter(faults.values())))}"


def _masked(text: str) -> str:
    return " ".join(text.split())[:300]


def _write_remedy(uri: str) -> str:
    if storage.is_local(uri):
        return "create the folder, mount it on that node, and give the user that Ray runs as write access"
    return "give that node credentials (an instance role, or environment variables at `ray start`) and access to the store"


def _read_remedy(uri: str) -> str:
    if storage.is_local(uri):
        return "a local folder per node is not enough: mount one shared folder at this path on all nodes, or use a URI"
    return "give every node's credentials read access to this folder, and set the same endpoint on all nodes"


def check_clocks(cluster: ClusterFacts) -> list[Finding]:
    """Return how far apart the nodes' clocks are, within the error of the round trips."""
    if len(cluster.clocks) < 2:
        return []
    behind, ahead = (pick(cluster.clocks, key=lambda node: cluster.clocks[node].ahead_s) for pick in (min, max))
    apart_s = cluster.clocks[ahead].ahead_s - cluster.clocks[behind].ahead_s
    error_s = cluster.clocks[ahead].uncertainty_s + cluster.clocks[behind].uncertainty_s
    sure_s = max(0.0, apart_s - error_s)
    level: Level = "fault" if sure_s > SKEW_FAULT_S else "warning" if sure_s > SKEW_WARNING_S else "ok"
    if level == "ok":
        return [Finding("clocks", "ok", everywhere(cluster.clocks), f"within {apart_s + error_s:.3f} s of one another")]
    found = f"{ahead} is {apart_s:.1f} s ahead of {behind} (+/- {error_s:.3f} s)"
    wanted = f"within {SKEW_WARNING_S:g} s; S3 refuses requests that are 15 minutes off"
    return [Finding("clocks", level, named([behind, ahead]), found, wanted, "run chrony or systemd-timesyncd on every node")]


def check_all_reduce(cluster: ClusterFacts) -> list[Finding]:
    """Return whether all ranks can sum a tensor, and how long the gradients of a ResNet-101 take."""
    facts = cluster.all_reduce
    if facts is None:
        return []
    where = everywhere(dict.fromkeys(facts.ranks))
    if facts.not_run:
        remedy = "stop what uses the GPUs (`ray status`), or run the check again when they are free"
        return [Finding("all-reduce", "warning", where, f"not run: {facts.not_run}", "a sum over all ranks", remedy)]
    if facts.errors:
        return [_broken(facts)]
    step_s = facts.elapsed_s * GRADIENT_BYTES / facts.size_bytes
    found = (
        f"{facts.backend}, {len(facts.ranks)} ranks: {facts.bus_bytes_per_s / 1e9:.2f} GB/s bus bandwidth; ResNet-101's "
        f"gradients ({GRADIENT_BYTES / 1e6:.0f} MB) in {step_s:.2f} s"
    )
    if step_s <= SLOW_STEP_S:
        return [Finding("all-reduce", "ok", where, found)]
    remedy = "put the nodes in one zone and placement group; select the fast network: NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME"
    return [Finding("all-reduce", "warning", where, found, f"{SLOW_STEP_S:g} s or less, as each step waits for it", remedy)]


def _broken(facts: AllReduce) -> Finding:
    said = dict(facts.errors)
    found = f"{facts.backend}, {len(facts.ranks)} ranks: {next(iter(said.values()))}"
    variable = "NCCL_SOCKET_IFNAME" if facts.backend == "nccl" else "GLOO_SOCKET_IFNAME"
    remedy = (
        f"open all ports between the nodes; if hosts have several networks or their name resolves to 127.0.1.1, set {variable} "
        "to the interface that connects them, in the job's env_vars"
    )
    return Finding("all-reduce", "fault", named(said), found, "a sum over all ranks", remedy)
