"""The predictions table, which passes results from GPU to CPU work: Parquet with one row per sample. N samples, L labels.

Columns: sample_id int64, labels and unknown_labels as lists of columns, and one fixed-size list of float32 per output of the
head. The rest is in the schema metadata: outputs that all samples share as compressed safetensors, everything else (label
space, family, shapes, facts) as JSON.
"""

import io
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError

from rayprob.errors import LabelError, MetricError
from rayprob.files import storage
from rayprob.files.documents import Shape, parse_json, require_shape
from rayprob.files.tables import parse_table, require_schema
from rayprob.labels import LabelSpace
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.families import FAMILIES, from_outputs

FORMAT_VERSION = 1
ROW_GROUP_BYTES = 64 * 2**20
REMEDY = "write it again with `rayprob evaluate` or `rayprob predict`"
# Parquet's metadata holds 100 MB, and Arrow's copy of it counts too; label sets compress to a fraction.
_KEY, _SHARED_KEY, _SHARED_BYTES = b"rayprob", b"rayprob.shared", b"rayprob.shared_bytes"
SHARED_AT_MOST = 32 * 2**20
_LISTS = ("labels", "unknown_labels")
_SCHEMA = pa.schema([("sample_id", pa.int64()), *((name, pa.list_(pa.int32())) for name in _LISTS)])


@dataclass(frozen=True)
class Predictions:
    """A classifier's outputs for N samples, with their annotations."""

    label_space: LabelSpace
    sample_ids_N: NDArray[np.int64]
    targets_NL: NDArray[np.bool_]
    known_NL: NDArray[np.bool_]
    family: str  # of distributions, which defines the meaning of the outputs
    outputs: dict[str, NDArray[np.float32]]  # as the head returns them, each [N, ...] unless all images share it
    facts: dict[str, Any]  # plain data: run and dataset fingerprint, split, step

    def __post_init__(self) -> None:
        shape = (len(self.sample_ids_N), len(self.label_space))
        for name, table_NL in (("targets_NL", self.targets_NL), ("known_NL", self.known_NL)):
            if table_NL.shape != shape or table_NL.dtype != np.bool_:
                raise MetricError(
                    f"{name} is {table_NL.dtype} {list(table_NL.shape)}; give bool {list(shape)}: samples x labels"
                )
        family = FAMILIES.get(self.family)
        per_label, shared = (family.per_label if family else ()), self._shared
        for name, values in self.outputs.items():
            if name in ("sample_id", *_LISTS):
                raise MetricError(f"output {name!r} has the name of a reserved column; rename the output")
            if (name not in shared and len(values) != shape[0]) or values.dtype != np.float32:
                raise MetricError(
                    f"output {name!r} is {values.dtype} {list(values.shape)}; give float32 with {shape[0]:,} rows"
                )
            if name in per_label and values.shape[-1] != shape[1]:
                raise MetricError(f"output {name!r} has {values.shape[-1]} labels, but the label space has {shape[1]}")
        ids, times = np.unique(self.sample_ids_N, return_counts=True)
        if len(ids) < shape[0]:
            raise MetricError(f"sample_id {_some(ids[times > 1])} is in more than one row; each sample must be predicted once")

    def __len__(self) -> int:
        return len(self.sample_ids_N)

    @property
    def _shared(self) -> frozenset[str]:
        return FAMILIES[self.family].shared if self.family in FAMILIES else frozenset()

    def distribution(self) -> LabelDistribution:
        """Return the distributions that the outputs state, uncalibrated. Raises ModelError for a family that is not here."""
        return from_outputs(self.family, self.outputs)

    def write(self, uri: str) -> None:
        """Write the table to a path or URI; it appears complete or not at all. Raises StorageError."""
        row_bytes = sum(values[:1].nbytes for name, values in self.outputs.items() if name not in self._shared) + 64
        content = io.BytesIO()
        pq.write_table(
            self._table(),
            content,
            row_group_size=max(1, ROW_GROUP_BYTES // row_bytes),
            compression="zstd",
            use_dictionary=False,
        )
        storage.write_bytes(uri, content.getbuffer())

    @classmethod
    def read(cls, uri: str) -> "Predictions":
        """Read a table that `write` wrote, bit for bit. Raises StorageError or MetricError naming the file."""
        table = parse_table(storage.read_bytes(uri), uri, error=MetricError, remedy=REMEDY)
        header = _header(table.schema, uri)
        require_schema(table, _SCHEMA, uri, error=MetricError, remedy=REMEDY)
        try:
            label_space = LabelSpace.from_dict(header["label_space"])
            shape = (table.num_rows, len(label_space))
            targets_NL, unknown_NL = (_dense(table[name], shape) for name in _LISTS)
            return cls(
                label_space=label_space,
                sample_ids_N=table["sample_id"].to_numpy(),
                targets_NL=targets_NL,
                known_NL=~unknown_NL,
                family=header["family"],
                outputs={
                    **{name: _values(table[name], tuple(row_shape)) for name, row_shape in header["shapes"].items()},
                    **_shared_in(table.schema.metadata or {}),
                },
                facts=header["facts"],
            )
        except (LabelError, MetricError) as error:
            raise MetricError(f"{uri} is a damaged predictions table: {error}; {REMEDY}") from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, pa.ArrowException, SafetensorError) as error:
            raise MetricError(f"{uri} is a damaged predictions table ({type(error).__name__}: {error}); {REMEDY}") from error

    def rows(self, rows_M: NDArray[np.int64] | NDArray[np.bool_]) -> "Predictions":
        """Return the predictions of the given rows, in their order."""
        return Predictions(
            self.label_space,
            self.sample_ids_N[rows_M],
            self.targets_NL[rows_M],
            self.known_NL[rows_M],
            self.family,
            {name: values if name in self._shared else values[rows_M] for name, values in self.outputs.items()},
            self.facts,
        )

    def _table(self) -> pa.Table:
        columns = {"sample_id": pa.array(self.sample_ids_N, type=pa.int64())}
        columns |= {name: _lists(table_NL) for name, table_NL in zip(_LISTS, (self.targets_NL, ~self.known_NL), strict=True)}
        shared = {name: np.ascontiguousarray(values) for name, values in self.outputs.items() if name in self._shared}
        per_sample = {name: values for name, values in self.outputs.items() if name not in shared}
        columns |= {name: _fixed_lists(values) for name, values in per_sample.items()}
        header = {
            "format_version": FORMAT_VERSION,
            "label_space": self.label_space.to_dict(),
            "family": self.family,
            "shapes": {name: list(values.shape[1:]) for name, values in per_sample.items()},
            "facts": self.facts,
        }
        metadata = {_KEY: json.dumps(header).encode()} | _as_metadata(shared)
        return pa.table(columns).replace_schema_metadata(metadata)


def _as_metadata(shared: dict[str, NDArray[np.float32]]) -> dict[bytes, bytes]:
    """Return outputs that all samples share as metadata. Raises MetricError if they are too large for it."""
    if not shared:
        return {}
    whole = safetensors.numpy.save(shared)
    compressed = pa.compress(whole, codec="zstd", asbytes=True)
    if len(compressed) > SHARED_AT_MOST:
        sizes = ", ".join(f"{name} {list(values.shape)}" for name, values in shared.items())
        raise MetricError(
            f"the outputs that all samples share take {len(compressed) / 2**20:,.0f} MiB ({sizes}); predictions store at most "
            f"{SHARED_AT_MOST / 2**20:.0f} MiB of them: use a smaller head"
        )
    return {_SHARED_KEY: compressed, _SHARED_BYTES: str(len(whole)).encode()}


def _shared_in(metadata: dict[bytes, bytes]) -> dict[str, NDArray[np.float32]]:
    if _SHARED_KEY not in metadata:
        return {}
    whole = pa.decompress(metadata[_SHARED_KEY], decompressed_size=int(metadata[_SHARED_BYTES]), codec="zstd", asbytes=True)
    shared: dict[str, NDArray[np.float32]] = safetensors.numpy.load(whole)
    return shared


class _Header(Shape):
    """The schema metadata that describes the rows."""

    label_space: dict[str, Any]
    family: str
    shapes: dict[str, list[Annotated[int, Field(ge=0, lt=2**31)]]]
    facts: dict[str, Any]


def _header(schema: pa.Schema, uri: str) -> dict[str, Any]:
    text = (schema.metadata or {}).get(_KEY)
    if text is None:
        raise MetricError(f"{uri} is Parquet but not a predictions table; its columns are {', '.join(schema.names)}; {REMEDY}")
    where = f"{uri} is a damaged predictions table: its header"
    header = require_shape(parse_json(text, where, MetricError, REMEDY), None, where, error=MetricError, remedy=REMEDY)
    if header.get("format_version") != FORMAT_VERSION:
        raise MetricError(
            f"{uri} has predictions format {header.get('format_version')!r}, but this version reads {FORMAT_VERSION}; {REMEDY}"
        )
    return require_shape(header, _Header, where, error=MetricError, remedy=REMEDY)


def _lists(present_NL: NDArray[np.bool_]) -> pa.ListArray:
    starts = np.concatenate([[0], np.cumsum(present_NL.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(starts, np.nonzero(present_NL)[1].astype(np.int32))


def _dense(column: pa.ChunkedArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    present_NL = np.zeros(shape, dtype=bool)
    row = 0
    for chunk in column.chunks:
        lengths, columns = np.diff(np.asarray(chunk.offsets)), np.asarray(chunk.flatten())
        if len(columns) and not 0 <= columns.min() <= columns.max() < shape[1]:
            raise MetricError(f"label columns must be from 0 to {shape[1] - 1}; found {columns.min()} to {columns.max()}")
        present_NL[row + np.repeat(np.arange(len(chunk)), lengths), columns] = True
        row += len(chunk)
    return present_NL


def _fixed_lists(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    width = math.prod(values.shape[1:])
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), width)


def _values(column: pa.ChunkedArray, row_shape: tuple[int, ...]) -> NDArray[np.float32]:
    flat = [np.asarray(chunk.flatten(), dtype=np.float32) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.float32), *flat]).reshape(len(column), *row_shape)


def _some(ids: NDArray[np.int64]) -> str:
    if not len(ids):
        return "none"
    more = f" and {len(ids) - 8:,} more" if len(ids) > 8 else ""
    return ", ".join(map(str, ids[:8])) + more
