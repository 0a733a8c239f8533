"""Rows of all ranks in one place, by sample_id, through torch.distributed; without a process group, the rows of this process.

n samples on this rank, N on all ranks, L labels. Every rank must call, with its own rows; an error on one rank is raised on
all, so that none waits forever. Nothing is pickled: a header and the ids are sent first, then rows as bytes in bounded chunks.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import AnyFloats, Bools
from rayprob.errors import MetricError
from rayprob.metrics.inputs import check_scores, listed
from rayprob.metrics.ranking import VARIANTS, average_precision
from rayprob.registry import choose

CHUNK_BYTES = 64 * 2**20  # in flight at a time, over all ranks
LABELS_AT_ONCE = 64


def gather_rows(
    sample_ids_n: NDArray[np.int64],
    arrays: Mapping[str, NDArray[Any]],
    *,
    expected_ids: ArrayLike | None = None,
    destination: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Return each array with the rows of all ranks, ascending by sample_id, on every rank or on `destination` only.

    Ranks other than the destination get an empty dict. A rank without samples may leave out its arrays. Raises MetricError
    on every rank if an id is duplicate, missing or not in `expected_ids`, or if ranks have different arrays.
    """
    plan = RowPlan.agree(sample_ids_n, arrays, expected_ids=expected_ids)
    gathered = {name: plan.gather(arrays.get(name), layout, destination) for name, layout in plan.layouts.items()}
    return gathered if destination in (None, rank()) else {}


def sharded_average_precision(
    sample_ids_n: NDArray[np.int64],
    scores_nL: AnyFloats,
    targets_nL: Bools,
    known_nL: Bools | None = None,
    *,
    expected_ids: ArrayLike | None = None,
    variant: str = "exact",
) -> NDArray[np.float64]:
    """Return `average_precision` over the rows of all ranks, on every rank, for label spaces too large to gather.

    Blocks of labels are assigned to ranks in turn: each rank gathers all rows of its block and computes its APs, and only APs
    are gathered at the end, so a rank stores N x LABELS_AT_ONCE scores besides its own. Raises MetricError on every rank.
    """
    choose(VARIANTS, variant, "AP variant", MetricError)
    arrays: dict[str, NDArray[Any]] = {"scores": scores_nL, "targets": targets_nL}
    if known_nL is not None:
        arrays["known"] = known_nL
    plan = RowPlan.agree(sample_ids_n, arrays, expected_ids=expected_ids, fault=_fault_in(scores_nL, targets_nL, known_nL))
    ap_L = np.zeros(plan.layouts["scores"].row_shape)
    blocks = [slice(start, start + LABELS_AT_ONCE) for start in range(0, len(ap_L), LABELS_AT_ONCE)]
    for first in range(0, len(blocks), world_size()):
        # Every owner of this round gets its block before any rank computes, so that they compute in parallel.
        owned = blocks[first : first + world_size()]
        gathered = [[plan.gather_columns(v, labels, owner) for v in arrays.values()] for owner, labels in enumerate(owned)]
        if rank() < len(owned):
            scores_Nl, targets_Nl, *known = gathered[rank()]
            ap_L[owned[rank()]] = average_precision(scores_Nl, targets_Nl, *known, variant=variant)
    return _sum_over_ranks(ap_L)


@dataclass(frozen=True)
class Layout:
    """The dtype and shape of one row of an array."""

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * math.prod(self.row_shape)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.row_shape)}"


@dataclass(frozen=True)
class RowPlan:
    """Where the rows of each rank belong: agreed once, then used for any number of arrays."""

    layouts: dict[str, Layout]
    places: tuple[NDArray[np.int64], ...]  # of each rank's rows among all rows in ascending order of sample_id

    @classmethod
    def agree(
        cls,
        sample_ids_n: NDArray[np.int64],
        arrays: Mapping[str, NDArray[Any]],
        *,
        expected_ids: ArrayLike | None = None,
        fault: str | None = None,
    ) -> "RowPlan":
        """Exchange headers and ids. Raises MetricError on every rank if any rank has a `fault`, and as `gather_rows`."""
        layouts = _agreed_layouts(_exchange(_header(sample_ids_n, arrays, fault)))
        ids_of_ranks = [np.frombuffer(ids, np.int64) for ids in _exchange(np.asarray(sample_ids_n, np.int64).tobytes())]
        sorted_N = np.sort(np.concatenate(ids_of_ranks))
        _require_each_once(sorted_N, ids_of_ranks, expected_ids)
        return cls(layouts, tuple(np.searchsorted(sorted_N, ids_n) for ids_n in ids_of_ranks))

    def gather(self, values: NDArray[Any] | None, layout: Layout, destination: int | None = None) -> NDArray[Any]:
        """Return the rows of all ranks in order; no rows on ranks other than the destination. Every rank must call."""
        most_rows = max(map(len, self.places))
        rows_at_once = max(1, CHUNK_BYTES // max(1, layout.row_bytes * world_size()))
        own_rows = _as_bytes(values, layout, len(self.places[rank()]))
        num_rows = sum(map(len, self.places)) if destination in (None, rank()) else 0
        gathered = np.empty((num_rows, layout.row_bytes), np.uint8)
        for start in range(0, most_rows, rows_at_once):
            chunk = slice(start, start + rows_at_once)
            parts = _exchange_rows(own_rows[chunk], min(rows_at_once, most_rows - start), destination)
            for number, part in parts.items():
                places_n = self.places[number][chunk]
                gathered[places_n] = part[: len(places_n)]
        return gathered.reshape(-1).view(layout.dtype).reshape(num_rows, *layout.row_shape)

    def gather_columns(self, values_nL: NDArray[Any], labels: slice, destination: int) -> NDArray[Any]:
        """Return `gather` of some columns of an array [n, L]."""
        block = values_nL[:, labels]
        return self.gather(block, Layout(block.dtype, block.shape[1:]), destination)


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if _is_distributed() else 1


def rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return dist.get_rank() if _is_distributed() else 0


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _header(sample_ids_n: NDArray[np.int64], arrays: Mapping[str, NDArray[Any]], fault: str | None) -> bytes:
    for name, values in arrays.items():
        if fault is None and len(values) != len(sample_ids_n):
            fault = f"array {name!r} has {len(values):,} rows but there are {len(sample_ids_n):,} sample ids"
    layouts = {name: [values.dtype.str, list(values.shape[1:])] for name, values in arrays.items()}
    return json.dumps({"rows": len(sample_ids_n), "layouts": layouts, "fault": fault}).encode()


def _agreed_layouts(headers: list[bytes]) -> dict[str, Layout]:
    ranks = [json.loads(header) for header in headers]
    faults = [f"rank {number}: {header['fault']}" for number, header in enumerate(ranks) if header["fault"]]
    if faults:
        raise MetricError("; ".join(faults))
    with_rows = [number for number, header in enumerate(ranks) if header["rows"]] or [0]
    first, *others = ({name: Layout(np.dtype(d), tuple(s)) for name, (d, s) in ranks[n]["layouts"].items()} for n in with_rows)
    for number, layouts in zip(with_rows[1:], others, strict=True):
        if layouts != first:
            raise MetricError(
                f"rank {with_rows[0]} has {_described(first)}, but rank {number} has {_described(layouts)}; "
                "every rank must run the same classifier"
            )
    return first


def _described(layouts: dict[str, Layout]) -> str:
    return ", ".join(f"{name} {layout}" for name, layout in layouts.items()) or "no arrays"


def _require_each_once(
    sorted_N: NDArray[np.int64], ids_of_ranks: list[NDArray[np.int64]], expected_ids: ArrayLike | None
) -> None:
    double = np.unique(sorted_N[1:][sorted_N[1:] == sorted_N[:-1]])
    expected = sorted_N if expected_ids is None else np.asarray(expected_ids, np.int64)
    missing, foreign = np.setdiff1d(expected, sorted_N), np.setdiff1d(sorted_N, expected)
    kinds = (("duplicate", double), ("missing", missing), ("not of this split", foreign))
    faults = [f"{len(ids):,} {kind} (sample_id {listed(ids)})" for kind, ids in kinds if len(ids)]
    if faults:
        counts = " + ".join(f"{len(ids):,}" for ids in ids_of_ranks)
        raise MetricError(
            f"of {len(np.unique(expected)):,} samples, gathered as {counts} rows, {' and '.join(faults)}; "
            "each sample must be predicted once, on one rank"
        )


def _fault_in(scores_nL: AnyFloats, targets_nL: Bools, known_nL: Bools | None) -> str | None:
    if not len(scores_nL):
        return None
    try:
        check_scores(scores_nL, targets_nL, known_nL)
    except MetricError as error:
        return str(error)
    return None


def _as_bytes(values: NDArray[Any] | None, layout: Layout, num_rows: int) -> NDArray[np.uint8]:
    if values is None or not num_rows:
        return np.empty((0, layout.row_bytes), np.uint8)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(num_rows, layout.row_bytes)


def _exchange(content: bytes) -> list[bytes]:
    """Return the bytes of every rank."""
    lengths = _exchange_rows(np.array([len(content)]).view(np.uint8), 8).values()
    sizes = [int(length.view(np.int64)[0]) for length in lengths]
    parts = _exchange_rows(np.frombuffer(content, np.uint8), max(sizes)).values()
    return [part[:size].tobytes() for part, size in zip(parts, sizes, strict=True)]


def _exchange_rows(own: NDArray[np.uint8], padded_to: int, destination: int | None = None) -> dict[int, NDArray[np.uint8]]:
    """Return the rows of every rank, each padded to `padded_to`; nothing on ranks other than the destination."""
    if world_size() == 1:
        return {0: own}
    padded = np.zeros((padded_to, *own.shape[1:]), np.uint8)
    padded[: len(own)] = own
    tensor = torch.from_numpy(padded).to(_device())
    parts = [torch.empty_like(tensor) for _ in range(world_size())] if destination in (None, rank()) else []
    if destination is None:
        dist.all_gather(parts, tensor)
    else:
        dist.gather(tensor, parts or None, destination)
    return {number: part.cpu().numpy() for number, part in enumerate(parts)}


def _sum_over_ranks(ap_L: NDArray[np.float64]) -> NDArray[np.float64]:
    if world_size() == 1:
        return ap_L
    tensor = torch.from_numpy(ap_L).to(_device())
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def _device() -> torch.device:
    """Return the device that the default group's backend needs its tensors on."""
    if "cpu" in str(dist.get_backend_config()):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
