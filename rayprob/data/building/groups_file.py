"""groups.parquet: the group of each image of a dataset whose recipe groups images, as the source had it. N images.

A growth reads it, since the source may have lost images by then whose groups new ones must join.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayprob.arrays import Ints
from rayprob.data.building.disk_full import disk_full_explained
from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.sources.image import SourceImages
from rayprob.data.sources.rows import ALONE
from rayprob.errors import DatasetError
from rayprob.files import storage
from rayprob.files.tables import parse_table, require_schema

GROUPS_FILE = "groups.parquet"
GROUPS = pa.schema([("sample_id", pa.int64()), ("group", pa.int64())])
REMEDY = "restore it from a copy, or remove it: the dataset then grows without the groups of images that its source has lost"


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each image, ALONE for one without a group."""

    ids_N: Ints  # ascending
    groups_N: Ints

    @classmethod
    def of(cls, ids_N: Ints, groups_N: Ints) -> "Groups":
        """Return groups in the order of ids; of two of one id the first counts."""
        ids, firsts = np.unique(ids_N, return_index=True)
        return cls(ids, groups_N[firsts])

    @classmethod
    def read(cls, root: str) -> "Groups":
        """Return the groups in the file of a dataset; none without a file. Raises DatasetError."""
        listed = storage.join(root, GROUPS_FILE)
        if not storage.exists(listed):
            return NO_GROUPS
        table = parse_table(storage.read_bytes(listed), listed, error=DatasetError, remedy=REMEDY)
        require_schema(table, GROUPS, listed, error=DatasetError, remedy=REMEDY)
        return cls.of(*(numbers(table[name]) for name in GROUPS.names))

    def updated(self, images: Iterable[SourceImages]) -> "Groups":
        """Return the groups with those of grouped images, which count where an image has both."""
        grouped = [(some.ids_N, some.groups_N) for some in images if some.groups_N is not None]
        return Groups.of(*(np.concatenate(some) for some in zip(*grouped, (self.ids_N, self.groups_N), strict=True)))

    def write_updated(self, root: str, images: Iterable[SourceImages]) -> None:
        """Write the file of a dataset as `updated` has it, if any image is grouped. Raises StorageError."""
        grouped = [(some.ids_N, some.groups_N) for some in images if some.groups_N is not None]
        lost_N = np.ones(len(self.ids_N), dtype=bool)
        for ids_N, _ in grouped:
            lost_N &= ~np.isin(self.ids_N, ids_N)
        if not grouped and not len(self.ids_N):
            return
        with (
            disk_full_explained(),
            storage.atomic_writer(storage.join(root, GROUPS_FILE)) as file,
            pq.ParquetWriter(file, GROUPS) as writer,
        ):
            for columns in (*grouped, (self.ids_N[lost_N], self.groups_N[lost_N])):
                writer.write_table(pa.Table.from_arrays([to_array(one, pa.int64()) for one in columns], schema=GROUPS))

    def among(self, ids: Ints) -> Ints:
        """Return the groups, without ALONE, of those of some ids that are known, each once."""
        found: Ints = np.unique(self.groups_N[np.isin(self.ids_N, ids)])
        known: Ints = found[found != ALONE]
        return known


NO_GROUPS = Groups(np.zeros(0, np.int64), np.zeros(0, np.int64))
