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

from rayprob.errors import MetricError
from rayprob.metrics.inputs import listed

CHUNK_BYTES = 64 * 2**20  # in flight at a time, over all ranks


def gather_rows(
    sample_ids_n: NDArray[np.int64], arrays: Mapping[str, NDArray[Any]], *, expected_ids: ArrayLike | None = None
) -> dict[str, NDArray[Any]]:
    """Return each array with the rows of all ranks, ascending by sample_id, on every rank.

    A rank without samples may leave out its arrays. Raises MetricError on every rank if an id is duplicate, missing or not in
    `expected_ids`, or if ranks have different arrays.
    """
    plan = RowPlan.agree(sample_ids_n, arrays, expected_ids=expected_ids)
    return {name: plan.gather(arrays.get(name), layout) for name, layout in plan.layouts.items()}


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
    ) -> "RowPlan":
        """Exchange headers and ids. Raises MetricError on every rank, as `gather_rows`."""
        layouts = _agreed_layouts(_exchange(_header(sample_ids_n, arrays)))
        ids_of_ranks = [np.frombuffer(ids, np.int64) for ids in _exchange(np.asarray(sample_ids_n, np.int64).tobytes())]
        sorted_N = np.sort(np.concatenate(ids_of_ranks))
        _require_each_once(sorted_N, ids_of_ranks, expected_ids)
        return cls(layouts, tuple(np.searchsorted(sorted_N, ids_n) for ids_n in ids_of_ranks))

    def gather(self, values: NDArray[Any] | None, layout: Layout) -> NDArray[Any]:
        """Return the rows of all ranks in order. Every rank must call."""
        most_rows = max(map(len, self.places))
        rows_at_once = max(1, CHUNK_BYTES // max(1, layout.row_bytes * world_size()))
        own_rows = _as_bytes(values, layout, len(self.places[rank()]))
        num_rows = sum(map(len, self.places))
        gathered = np.empty((num_rows, layout.row_bytes), np.uint8)
        for start in range(0, most_rows, rows_at_once):
            chunk = slice(start, start + rows_at_once)
            parts = _exchange_rows(own_rows[chunk], min(rows_at_once, most_rows - start))
            for places, part in zip(self.places, parts, strict=True):
                gathered[places[chunk]] = part[: len(places[chunk])]
        return gathered.reshape(-1).view(layout.dtype).reshape(num_rows, *layout.row_shape)


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if _is_distributed() else 1


def rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return dist.get_rank() if _is_distributed() else 0


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _header(sample_ids_n: NDArray[np.int64], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    num_rows = len(sample_ids_n)
    wrong = ((name, len(values)) for name, values in arrays.items() if len(values) != num_rows)
    faults = (f"array {name!r} has {rows:,} rows but there are {num_rows:,} sample ids" for name, rows in wrong)
    layouts = {name: [values.dtype.str, list(values.shape[1:])] for name, values in arrays.items()}
    return json.dumps({"rows": num_rows, "layouts": layouts, "fault": next(faults, None)}).encode()


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


def _as_bytes(values: NDArray[Any] | None, layout: Layout, num_rows: int) -> NDArray[np.uint8]:
    if values is None or not num_rows:
        return np.empty((0, layout.row_bytes), np.uint8)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(num_rows, layout.row_bytes)


def _exchange(content: bytes) -> list[bytes]:
    """Return the bytes of every rank."""
    lengths = _exchange_rows(np.array([len(content)]).view(np.uint8), 8)
    sizes = [int(length.view(np.int64)[0]) for length in lengths]
    parts = _exchange_rows(np.frombuffer(content, np.uint8), max(sizes))
    return [part[:size].tobytes() for part, size in zip(parts, sizes, strict=True)]


def _exchange_rows(own: NDArray[np.uint8], padded_to: int) -> list[NDArray[np.uint8]]:
    """Return the rows of every rank, each padded to `padded_to`."""
    if world_size() == 1:
        return [own]
    padded = np.zeros((padded_to, *own.shape[1:]), np.uint8)
    padded[: len(own)] = own
    tensor = torch.from_numpy(padded).to(_device())
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor)
    return [part.cpu().numpy() for part in parts]


def _device() -> torch.device:
    """Return the device that the default group's backend needs its tensors on."""
    if "cpu" in str(dist.get_backend_config()):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
