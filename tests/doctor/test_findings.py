"""What is said of made-up nodes: each thing that is amiss is one finding, which names the nodes and what to do."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from rayprob.cli.show_doctor import show_findings
from rayprob.doctor.all_reduce import AllReduce
from rayprob.doctor.cluster import ClockOffset, clock_of
from rayprob.doctor.facts import Disk
from rayprob.doctor.findings import findings, is_fit
from rayprob.doctor.storage_probe import UriFacts
from tests.doctor.made_up import amiss, cluster, node, only


def test_nodes_in_order_give_nothing_but_ok() -> None:
    found = findings(cluster())
    assert {finding.level for finding in found} == {"ok"}
    assert is_fit(found)
    said = {finding.check: f"{finding.where}: {finding.found}" for finding in found}
    assert said["python"] == "all 3 nodes: 3.11.9"
    assert said["GPUs"] == "all 3 nodes: 2 x A10G; torch sees 2, Ray counts 2"
    assert said["clocks"] == "all 3 nodes: within 0.004 s of one another"
    assert said["storage /mnt/shared"] == "all 3 nodes: written and read by all; the slowest write took 0.02 s"


@pytest.mark.parametrize(
    ("versions", "check", "level", "said"),
    [
        ({"python": "3.12.1"}, "python", "fault", "3.11.9 on a, b; 3.12.1 on c"),
        ({"python": "3.11.2"}, "python", "warning", "3.11.9 on a, b; 3.11.2 on c"),
        ({"ray": "2.59.0"}, "ray", "fault", "2.60.0 on a, b; 2.59.0 on c"),
        ({"torch": "2.10.0+cu130"}, "torch", "fault", "2.14.1 on a, b; 2.10.0 on c"),
        ({"code": "ffffffff"}, "rayprob", "fault", "0.2.0 (code 0a1b2c3d) on a, b; 0.2.0 (code ffffffff) on c"),
        ({"cuda": "12.8"}, "CUDA of torch", "fault", "13.0 on a, b; 12.8 on c"),
        ({"driver": "590.1"}, "NVIDIA driver", "warning", "580.65.06 on a, b; 590.1 on c"),
    ],
)
def test_another_version_on_one_node_is_found(versions: dict[str, str], check: str, level: str, said: str) -> None:
    finding = only(cluster(odd=node(versions=versions)))
    assert (finding.check, finding.level, finding.where, finding.found) == (check, level, "c", said)
    assert "cluster/node/setup.sh" in finding.remedy


def test_a_torch_for_cpus_on_a_head_without_gpus_is_no_fault() -> None:
    head = node(versions={"torch": "2.14.1+cpu", "cuda": None, "driver": None}, gpus=(), torch_gpus=0)
    assert not amiss(cluster(odd=head, ray_gpus={"a": 2, "b": 2, "c": 0}))


def test_a_driver_too_old_for_the_cuda_of_torch_is_a_fault() -> None:
    faults = [finding for finding in amiss(cluster(odd=node(versions={"driver": "535.1"}))) if finding.level == "fault"]
    assert [(finding.where, finding.found, finding.wanted) for finding in faults] == [
        ("c", "driver 535.1, torch for CUDA 13.0", "580 or newer")
    ]


@pytest.mark.parametrize(
    ("gpus", "torch_gpus", "of_ray", "level", "said"),
    [
        (("A10G", "A10G"), 0, 2, "fault", "2 x A10G; torch sees 0, Ray counts 2"),
        (("A10G",), 1, 2, "fault", "1 x A10G; torch sees 1, Ray counts 2"),
        (("A10G", "A10G"), 2, 1, "warning", "2 x A10G; torch sees 2, Ray counts 1"),
        ((), 0, 2, "fault", "none; torch sees 0, Ray counts 2"),
    ],
)
def test_gpus_that_driver_torch_and_ray_count_differently_are_found(
    gpus: tuple[str, ...], torch_gpus: int, of_ray: int, level: str, said: str
) -> None:
    finding = only(cluster(odd=node(gpus=gpus, torch_gpus=torch_gpus), ray_gpus={"a": 2, "b": 2, "c": of_ray}))
    assert (finding.check, finding.level, finding.where, finding.found) == ("GPUs", level, "c", said)


@pytest.mark.parametrize(
    ("change", "check", "level", "said", "remedy"),
    [
        ({"shm_bytes": 64 * 2**20}, "free /dev/shm", "fault", "67 MB", "--shm-size=16g"),
        ({"shm_bytes": 10**9}, "free /dev/shm", "warning", "1.0 GB", "--shm-size=16g"),
        ({"memory_bytes": 5 * 10**8}, "free memory", "fault", "500 MB", "larger machines"),
        ({"open_files": 1024}, "open files", "warning", "1,024", "ulimit -n 65536"),
        ({"cache": Disk("/c", 10**9, 8e8)}, "shard cache, space", "fault", "1.0 GB", "stream.cache_dir"),
        ({"cache": Disk("/c", 10**12, 20e6)}, "shard cache, writing", "warning", "20 MB/s", "stream.cache_dir"),
        (
            {"cache": Disk("/c", error="Read-only file system")},
            "shard cache",
            "fault",
            "/c: Read-only file system",
            "--cache-dir",
        ),
    ],
)
def test_too_little_on_one_node_is_found(change: dict[str, Any], check: str, level: str, said: str, remedy: str) -> None:
    finding = only(cluster(odd=node(**change)))
    assert (finding.check, finding.level, finding.where, finding.found) == (check, level, "c", said)
    assert remedy in finding.remedy


def test_many_nodes_with_too_little_are_one_finding() -> None:
    facts = cluster(nodes={f"node{place}": node(open_files=1000 + place) for place in range(9)}, ray_gpus={})
    finding = only(facts)
    assert (finding.level, finding.where, finding.found) == (
        "fault",
        "node0, node1, node2, node3 and 5 more",
        "1,000 to 1,008",
    )


def test_a_node_that_cannot_write_is_named_with_its_reason() -> None:
    uri = "s3://bucket/runs"
    writes = {"a": "", "b": "", "c": "cannot write s3://bucket/runs: ACCESS_DENIED"}
    read = {name: {"a": "", "b": ""} for name in "abc"}
    finding = only(cluster(storage=(UriFacts(uri, writes, read),)))
    assert (finding.level, finding.where, finding.found) == ("fault", "c", writes["c"])
    assert "credentials" in finding.remedy


def test_a_folder_of_each_nodes_own_is_not_a_shared_one() -> None:
    names = ("a", "b")
    reads = {reader: {writer: "" if writer == reader else f"no file at /runs/{writer}" for writer in names} for reader in names}
    faults = amiss(cluster(2, storage=(UriFacts("/runs", dict.fromkeys(names, ""), reads),)))
    assert [finding.found for finding in faults] == [
        "cannot read what b wrote: no file at /runs/b",
        "cannot read what a wrote: no file at /runs/a",
    ]
    assert all("mount one shared folder at this path on all nodes" in finding.remedy for finding in faults)


def test_storage_that_nobody_named_is_a_warning_for_a_cluster_and_nothing_for_one_machine() -> None:
    assert only(cluster(storage=())).remedy == "--storage URI for each of the run's folder and data.root"
    assert not amiss(cluster(1, storage=(), ray_gpus={}))


@pytest.mark.parametrize(
    ("ahead_s", "uncertainty_s", "level"),
    [(0.5, 0.001, "ok"), (3.0, 0.001, "warning"), (3.0, 2.5, "ok"), (90.0, 0.001, "fault")],
)
def test_clocks_are_apart_only_as_far_as_round_trips_prove(ahead_s: float, uncertainty_s: float, level: str) -> None:
    clocks = {"a": ClockOffset(0.0, uncertainty_s), "b": ClockOffset(ahead_s, uncertainty_s)}
    (finding,) = [finding for finding in findings(cluster(2, clocks=clocks)) if finding.check == "clocks"]
    assert finding.level == level
    if level != "ok":
        assert finding.found.startswith(f"b is {ahead_s:.1f} s ahead of a")
        assert "chrony" in finding.remedy


def test_the_shortest_round_trip_tells_a_clock_best() -> None:
    clock = clock_of([(100.0, 105.0, 102.0), (110.0, 115.01, 110.02), (120.0, 129.0, 124.0)])
    assert clock.ahead_s == pytest.approx(5.0)
    assert clock.uncertainty_s == pytest.approx(0.01)


def test_an_all_reduce_is_judged_by_what_a_step_would_wait() -> None:
    fast = AllReduce("nccl", ("a", "a", "b", "b"), 10**8, 0.01)
    assert fast.bus_bytes_per_s == pytest.approx(1.5e10)
    assert not amiss(cluster(all_reduce=fast))
    slow = only(cluster(all_reduce=AllReduce("gloo", ("a", "b"), 10**8, 1.0)))
    assert (slow.level, slow.found) == (
        "warning",
        "gloo, 2 ranks: 0.10 GB/s bus bandwidth; ResNet-101's gradients (171 MB) in 1.71 s",
    )


def test_ranks_that_cannot_meet_are_a_fault_that_names_the_variable() -> None:
    broken = AllReduce("gloo", ("a", "b"), errors=(("b", "Gloo connectFullMesh failed"),))
    finding = only(cluster(all_reduce=broken))
    assert (finding.level, finding.where, finding.found) == ("fault", "b", "gloo, 2 ranks: Gloo connectFullMesh failed")
    assert "GLOO_SOCKET_IFNAME" in finding.remedy
    assert "NCCL_SOCKET_IFNAME" in only(cluster(all_reduce=AllReduce("nccl", ("a", "b"), errors=(("b", "x"),)))).remedy


def test_gpus_that_are_busy_leave_the_all_reduce_unknown() -> None:
    finding = only(cluster(all_reduce=AllReduce("nccl", ("a", "b"), not_run="b GPU 0: no answer within 60 s")))
    assert (finding.level, finding.found) == ("warning", "not run: b GPU 0: no answer within 60 s")


def test_a_node_that_does_not_answer_is_a_fault() -> None:
    facts = cluster(2, silent={"c": "ModuleNotFoundError: No module named 'rayprob'", "d": "no answer within 180 s"})
    lost, deaf = amiss(facts)
    assert (lost.where, lost.level) == ("c", "fault")
    assert "ray job submit --working-dir ." in lost.remedy
    assert (deaf.where, deaf.found) == ("d", "no answer within 180 s")
    assert "ray status" in deaf.remedy


def test_the_table_shows_what_to_do_and_the_verdict() -> None:
    console = Console(file=StringIO(), width=200)
    show_findings(console, findings(cluster(odd=node(shm_bytes=10**8))))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "fault  free /dev/shm" in said
    assert "wanted: at least 2.0 GB" in said
    assert "do: loader workers pass batches through it" in said
    assert said.rstrip().endswith("1 fault, 0 warnings, 14 ok: fix the faults before a long job")


def test_nothing_is_said_of_a_cluster_of_which_no_node_answers_but_that() -> None:
    facts = cluster(1, nodes={}, ray_gpus={"a": 0}, storage=(), clocks={}, silent={"a": "no answer within 180 s"})
    assert [(finding.check, finding.level) for finding in amiss(facts)] == [("nodes", "fault"), ("storage", "warning")]
