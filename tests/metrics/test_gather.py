"""Rows of 1, 2 and 3 ranks gathered over gloo: the same numbers to the last bit, and one error on every rank."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from rayprob.errors import MetricError
from rayprob.metrics import gather
from rayprob.metrics.counting import count_metrics, label_sets
from rayprob.metrics.gather import gather_rows
from rayprob.metrics.ranking import average_precision
from tests.ranks import run_ranks

ROWS, LABELS = 103, 37


def split_table():
    """Ids, scores with ties, targets and known of a whole split, in no order, and one label without positives."""
    rng = np.random.default_rng(5)
    ids_N = rng.permutation(ROWS).astype(np.int64) * 3 + 2**40
    scores_NL = (rng.integers(0, 50, (ROWS, LABELS)) / 7).astype(np.float32)
    targets_NL = rng.random((ROWS, LABELS)) < 0.15
    targets_NL[:, 4] = False
    return ids_N, scores_NL, targets_NL, rng.random((ROWS, LABELS)) < 0.8


def arrays_of(table, rows):
    _, scores_NL, targets_NL, known_NL = table
    mixture_NKL = np.stack([scores_NL, -scores_NL], axis=1)
    return {"scores": scores_NL[rows], "targets": targets_NL[rows], "known": known_NL[rows], "mixture": mixture_NKL[rows]}


def rows_of(rank, world_size):
    """Unequal parts, and none for the last of three ranks."""
    ends = {1: [0, ROWS], 2: [0, 71, ROWS], 3: [0, 40, ROWS, ROWS]}[world_size]
    return slice(ends[rank], ends[rank + 1])


def everything(rank, world_size, table):
    """What one rank gets."""
    rows, ids_N = rows_of(rank, world_size), table[0]
    arrays = arrays_of(table, rows) if rows.start < rows.stop else {}
    return gather_rows(ids_N[rows], arrays, expected_ids=ids_N)


def errors(rank, world_size, table):
    """The message that each fault raises on this rank; the fault is on rank 1 only."""
    ids_N, scores_NL = table[:2]
    rows = rows_of(rank, world_size)
    ids_n, scores_nL = ids_N[rows], scores_NL[rows]
    faulty = rank == 1
    faults = {
        "missing": lambda: gather_rows(ids_n[3:] if faulty else ids_n, {}, expected_ids=ids_N),
        "double": lambda: gather_rows(np.append(ids_n, ids_N[0]) if faulty else ids_n, {}, expected_ids=ids_N),
        "foreign": lambda: gather_rows(np.append(ids_n, 7) if faulty else ids_n, {}, expected_ids=ids_N),
        "layout": lambda: gather_rows(ids_n, {"scores": scores_nL[:, :9] if faulty else scores_nL}),
        "length": lambda: gather_rows(ids_n, {"scores": scores_nL[1:] if faulty else scores_nL}),
    }
    return {name: np.array(message_of(fault)) for name, fault in faults.items()}


def message_of(fault):
    try:
        fault()
    except MetricError as error:
        return str(error)
    return "no error"


def on_rank(rank, folder):
    """Be this rank of 1, then of 2, then of 3; one start of the interpreter serves them all."""
    torch.set_num_threads(1)
    for world_size in range(rank + 1, 4):
        gather.CHUNK_BYTES = world_size * 1000
        store = dist.FileStore(f"{folder}/store{world_size}", world_size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
        np.savez(f"{folder}/{rank}of{world_size}.npz", **everything(rank, world_size, split_table()))
        if world_size == 3:
            np.savez(f"{folder}/errors{rank}.npz", **errors(rank, world_size, split_table()))
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Files with what every rank of 1, 2 and 3 found, the arrays going in many small chunks."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(on_rank, 3, str(folder))
    return folder


PLACES = [(rank, world_size) for world_size in (1, 2, 3) for rank in range(world_size)]


@pytest.mark.parametrize(("rank", "world_size"), PLACES)
def test_rows_of_any_number_of_ranks_are_the_split_in_order(found, rank, world_size):
    table = split_table()
    expected = arrays_of(table, np.argsort(table[0]))
    with np.load(found / f"{rank}of{world_size}.npz") as arrays:
        for name, values in expected.items():
            np.testing.assert_array_equal(arrays[name], values, strict=True)


@pytest.mark.parametrize(("rank", "world_size"), PLACES)
def test_metrics_of_any_number_of_ranks_are_bit_equal(found, rank, world_size):
    _, scores_NL, targets_NL, known_NL = split_table()
    expected_ap_L = average_precision(scores_NL, targets_NL, known_NL)
    with np.load(found / f"{rank}of{world_size}.npz") as arrays:
        gathered = (arrays["scores"], arrays["targets"], arrays["known"])
        np.testing.assert_array_equal(average_precision(*gathered), expected_ap_L)
        six = count_metrics(label_sets(gathered[0], 3.0), *gathered[1:])
    assert six == count_metrics(label_sets(scores_NL, 3.0), targets_NL, known_NL)
    assert np.isnan(expected_ap_L[4])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "of 103 samples, gathered as 40 + 60 + 0 rows, 3 missing (sample_id {ids[40:43]}); each sample must be"),
        ("double", "of 103 samples, gathered as 40 + 64 + 0 rows, 1 duplicate (sample_id {ids[0:1]}); each sample must be"),
        ("foreign", "of 103 samples, gathered as 40 + 64 + 0 rows, 1 not of this split (sample_id 7); each sample must be"),
        (
            "layout",
            "rank 0 has scores float32 [37], but rank 1 has scores float32 [9]; every rank must run the same classifier",
        ),
        ("length", "rank 1: array 'scores' has 62 rows but there are 63 sample ids"),
    ],
)
def test_a_fault_on_one_rank_is_the_same_error_on_all(found, fault, message):
    ids_N = split_table()[0]
    for place in ("[40:43]", "[0:1]"):
        start, stop = map(int, place.strip("[]").split(":"))
        message = message.replace("{ids" + place + "}", ", ".join(map(str, sorted(ids_N[start:stop]))))
    for rank in range(3):
        with np.load(found / f"errors{rank}.npz") as messages:
            assert str(messages[fault]).startswith(message)


def test_without_a_process_group_the_rows_are_those_of_this_process():
    table = split_table()
    arrays = everything(0, 1, table)
    np.testing.assert_array_equal(arrays["scores"], table[1][np.argsort(table[0])])
    assert gather_rows(np.empty(0, np.int64), {"scores": np.empty((0, 3), np.float32)})["scores"].shape == (0, 3)


def test_faults_are_raised_without_a_process_group_too():
    with pytest.raises(
        MetricError, match=r"of 2 samples, gathered as 2 rows, 1 duplicate \(sample_id 5\) and 1 missing \(sample_id 6\)"
    ):
        gather_rows(np.array([5, 5]), {}, expected_ids=[5, 6])


@pytest.mark.parametrize(("backend", "device"), [("gloo", "cpu"), ("cpu:gloo,cuda:nccl", "cpu"), ("nccl", "cuda:3")])
def test_rows_travel_on_the_device_that_the_backend_serves(monkeypatch, backend, device):
    monkeypatch.setattr(dist, "get_backend_config", lambda: str(dist.distributed_c10d.BackendConfig(backend)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert str(gather._device()) == device
