"""Resources that a node must have: memory, shared memory, open files, space and speed of the shard cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rayprob.doctor.cluster import ClusterFacts
from rayprob.doctor.facts import NodeFacts
from rayprob.doctor.finding import Finding, Level, by_level, named


@dataclass(frozen=True)
class Amount:
    """A quantity of each node, with limits below which it is a warning or a fault."""

    check: str
    value: Callable[[NodeFacts], float]
    fault_below: float
    warning_below: float
    show: Callable[[float], str]
    remedy: str

    def findings(self, nodes: Mapping[str, NodeFacts]) -> list[Finding]:
        """Return the findings for these nodes."""
        values = {node: self.value(facts) for node, facts in nodes.items()}
        levels = {node: self._level(value) for node, value in values.items()}
        wanted = f"at least {self.show(self.warning_below)}"
        return by_level(self.check, levels, lambda named: self._found([values[node] for node in named]), wanted, self.remedy)

    def _level(self, value: float) -> Level:
        if value < self.fault_below:
            return "fault"
        return "warning" if value < self.warning_below else "ok"

    def _found(self, values: list[float]) -> str:
        shown = list(dict.fromkeys(map(self.show, (min(values), max(values)))))
        return " to ".join(shown)


def _gb(value: float) -> str:
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"


AMOUNTS = (
    Amount(
        "free memory",
        lambda facts: facts.memory_bytes,
        1e9,
        4e9,
        _gb,
        "stop other programs there, or use larger machines; each loader worker is a separate process",
    ),
    Amount(
        "free /dev/shm",
        lambda facts: facts.shm_bytes,
        0.25e9,
        2e9,
        _gb,
        "loader workers pass batches through it: docker run --shm-size=16g, an emptyDir of medium Memory on Kubernetes, or "
        "a smaller `ray start --object-store-memory`",
    ),
    Amount(
        "open files",
        lambda facts: facts.open_files,
        1024,
        8192,
        lambda value: f"{value:,.0f}",
        "`ulimit -n 65536` before `ray start`, or --ulimit nofile=65536:65536 for docker",
    ),
)
CACHE_AMOUNTS = (
    Amount(
        "shard cache, space",
        lambda facts: facts.cache.free_bytes,
        2e9,
        20e9,
        _gb,
        "for remote datasets: set stream.cache_dir to a larger disk of the node, or stream.cache_bytes to what is free",
    ),
    Amount(
        "shard cache, writing",
        lambda facts: facts.cache.write_bytes_per_s,
        5e6,
        50e6,
        lambda value: f"{_gb(value)}/s",
        "for remote datasets: set stream.cache_dir to a local disk, NVMe if possible, not to a network folder",
    ),
)


def check_amounts(cluster: ClusterFacts) -> list[Finding]:
    """Return the findings on memory, shared memory and open files."""
    return [finding for amount in AMOUNTS for finding in amount.findings(cluster.nodes)]


def check_cache(cluster: ClusterFacts) -> list[Finding]:
    """Return the findings on the disk that caches the shards of remote datasets."""
    errors = {node: facts.cache for node, facts in cluster.nodes.items() if facts.cache.error}
    found = "; ".join(dict.fromkeys(f"{disk.folder}: {disk.error}" for disk in errors.values()))
    wanted, remedy = "a writable folder", "set stream.cache_dir (here: --cache-dir) to a local folder of the node"
    findings = [Finding("shard cache", "fault", named(errors), found, wanted, remedy)] if errors else []
    written = {node: facts for node, facts in cluster.nodes.items() if node not in errors}
    return findings + [finding for amount in CACHE_AMOUNTS for finding in amount.findings(written)]
