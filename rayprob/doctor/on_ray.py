"""The facts of a cluster: one actor pinned to each live node, and one more per GPU for the all-reduce.

The actors reserve no CPU, so that nodes without CPUs for Ray (a head node) and busy nodes are checked, too.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rayprob.cluster import cluster_address, import_ray, start_ray
from rayprob.doctor.all_reduce import SIZE_BYTES, AllReduce, all_reduce, free_address
from rayprob.doctor.cluster import ClockOffset, ClusterFacts, clock_of, new_probe
from rayprob.doctor.facts import NodeFacts, gather
from rayprob.doctor.storage_probe import UriFacts, read_probe, remove_probe, write_probe
from rayprob.errors import RunError
from rayprob.text import counted

ANSWER_S = 180  # the first call starts a process and imports torch, possibly from a network disk
FREE_GPU_S = 60
NUM_EXCHANGES = 20
Tell = Callable[[str], None]


class Probe:
    """An actor that checks the node it runs on."""

    def gather(self, cache_folder: str) -> NodeFacts:
        """Return the node's facts."""
        return gather(cache_folder)

    def write(self, uri: str, probe: str, node: str) -> tuple[str, float]:
        """Write this node's file of a storage probe."""
        return write_probe(uri, probe, node)

    def read(self, uri: str, probe: str, writers: list[str]) -> dict[str, str]:
        """Read the files that all nodes wrote."""
        return read_probe(uri, probe, writers)

    def remove(self, uri: str, probe: str) -> None:
        """Remove the files of a probe that this node sees."""
        remove_probe(uri, probe)

    def now_s(self) -> float:
        """Return this node's time."""
        return time.time()

    def address(self) -> str:
        """Return an address on this node where ranks can meet."""
        return free_address(import_ray().util.get_node_ip_address())

    def all_reduce(self, address: str, rank: int, world_size: int, backend: str) -> tuple[str, float]:
        """Take part in an all-reduce."""
        return all_reduce(address, rank, world_size, backend)


def gather_cluster(uris: tuple[str, ...], cache_folder: str, tell: Tell = lambda what: None) -> ClusterFacts:
    """Return the facts of every node of the cluster at RAY_ADDRESS or of a submitted job. Raises RunError without a cluster."""
    with _joined() as ray:
        nodes = _alive(ray)
        tell(f"checking {counted(len(nodes), 'node')}")
        probes = {name: _pinned(ray, node["NodeID"]) for name, node in nodes.items()}
        facts, silent = _ask(probes, lambda name: ("gather", cache_folder))
        probes = {name: probes[name] for name in facts}
        tell("writing to storage and reading it back")
        stored = tuple(_probe_storage(uri, probes) for uri in uris)
        clocks = {name: _clock(ray, probe) for name, probe in probes.items()}
        gpus = {name: int(nodes[name]["Resources"].get("GPU", 0)) for name in nodes}
        tell("summing over all ranks")
        return ClusterFacts(facts, silent, gpus, stored, clocks, _reduce(ray, probes, gpus, nodes))


@contextmanager
def _joined() -> Iterator[Any]:
    if cluster_address() is None:
        raise RunError(
            "--cluster needs RAY_ADDRESS, but it names no cluster: on a node of the cluster set "
            "RAY_ADDRESS=auto; from outside: ray job submit --working-dir . -- rayprob doctor --cluster"
        )
    ray = import_ray()
    started_here = not ray.is_initialized()
    try:
        if started_here:
            start_ray()
        yield ray
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise RunError(
            f"lost the Ray cluster at RAY_ADDRESS={cluster_address()}: {' '.join(str(error).split())}; run the same command "
            "to try again"
        ) from error
    finally:
        if started_here:
            ray.shutdown()


def _alive(ray: Any) -> dict[str, dict[str, Any]]:
    """Return Ray's record of each live node by host name, with the address if two nodes have the same name."""
    alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeManagerHostname"])
    hosts = [node["NodeManagerHostname"] for node in alive]
    names = [
        host if hosts.count(host) == 1 else f"{host}-{node['NodeManagerAddress']}-{node['NodeID'][:4]}"
        for host, node in zip(hosts, alive, strict=True)
    ]
    return dict(zip(names, alive, strict=True))


def _pinned(ray: Any, node_id: str, num_gpus: int = 0) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    return ray.remote(num_cpus=0, num_gpus=num_gpus, scheduling_strategy=where)(Probe).remote()


def _ask(
    probes: dict[str, Any], call: Callable[[str], tuple[Any, ...]], timeout_s: float = ANSWER_S
) -> tuple[dict[str, Any], dict[str, str]]:
    """Call all probes in parallel: `call` gives (method, arguments...) for each. Return the answers, and errors by node."""
    ray = import_ray()
    calls = {name: call(name) for name in probes}
    asked = {name: getattr(probes[name], method).remote(*arguments) for name, (method, *arguments) in calls.items()}
    deadline_s = time.monotonic() + timeout_s
    answers, silent = {}, {}
    for name, answer in asked.items():
        try:
            answers[name] = ray.get(answer, timeout=max(0.0, deadline_s - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            silent[name] = f"no answer within {timeout_s:.0f} s"
        except ray.exceptions.RayError as error:
            silent[name] = _cause(error)
    return answers, silent


def _cause(error: Exception) -> str:
    """Return the cause of a Ray error: the last line of its remote traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = [line for line in lines if "No module named" in line]
    return (missing or lines or [type(error).__name__])[-1][:300]


def _probe_storage(uri: str, probes: dict[str, Any]) -> UriFacts:
    probe = new_probe()
    try:
        written, lost = _ask(probes, lambda name: ("write", uri, probe, name))
        writers = [name for name, (fault, _) in written.items() if not fault]
        reads, deaf = _ask(probes, lambda name: ("read", uri, probe, writers))
    finally:
        _ask(probes, lambda name: ("remove", uri, probe))
    writes = {**{name: fault for name, (fault, _) in written.items()}, **lost, **deaf}
    return UriFacts(uri, writes, reads, max((elapsed_s for _, elapsed_s in written.values()), default=0.0))


def _clock(ray: Any, probe: Any) -> ClockOffset:
    return clock_of([(time.time(), ray.get(probe.now_s.remote()), time.time()) for _ in range(NUM_EXCHANGES)])


def _reduce(ray: Any, probes: dict[str, Any], gpus: dict[str, int], nodes: dict[str, Any]) -> AllReduce | None:
    """Sum over one rank per GPU with NCCL, or over one rank per node with gloo if the cluster has no GPUs."""
    backend = "nccl" if any(gpus[name] for name in probes) else "gloo"
    if backend == "nccl":
        where = {f"{name} GPU {place}": name for name in probes for place in range(gpus[name])}
        ranks = {rank: _pinned(ray, nodes[name]["NodeID"], num_gpus=1) for rank, name in where.items()}
    else:
        where, ranks = {name: name for name in probes}, probes
    if len(ranks) < 2:
        return None
    addresses, waiting = _ask(ranks, lambda rank: ("address",), timeout_s=FREE_GPU_S)
    if waiting:
        return AllReduce(backend, tuple(where.values()), not_run="; ".join(f"{rank}: {why}" for rank, why in waiting.items()))
    places, address = list(ranks), next(iter(addresses.values()))
    met, lost = _ask(ranks, lambda rank: ("all_reduce", address, places.index(rank), len(places), backend))
    errors = {**{rank: fault for rank, (fault, _) in met.items() if fault}, **lost}
    elapsed_s = max((seconds for _, seconds in met.values()), default=0.0)
    return AllReduce(backend, tuple(where.values()), SIZE_BYTES[backend], elapsed_s, tuple(errors.items()))
