"""A digest of a manifest's rows that does not depend on how Parquet stores them or where their shards are."""

import hashlib

import numpy as np
import pyarrow as pa

from rayprob.data.manifest.columns import Ragged, numbers

NUMBERS = ("sample_id", "offset_bytes", "size_bytes", "crc32")
LISTS = ("labels", "unknown_labels", "absent_labels")
LENGTHS_OF = "lengths of {}"


class RowsDigest:
    """A digest of rows, by column: the same rows give the same digest however they are split into tables."""

    def __init__(self) -> None:
        self._of_column = {name: hashlib.sha256() for name in ("split", *NUMBERS, *LISTS, *map(LENGTHS_OF.format, LISTS))}

    def update(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        for name in NUMBERS:
            self._of_column[name].update(numbers(table[name]).tobytes())
        for name in {*LISTS} & {*table.column_names}:
            lists = Ragged.from_column(table[name])
            self._of_column[name].update(lists.values.tobytes())
            self._of_column[LENGTHS_OF.format(name)].update(np.diff(lists.starts).tobytes())
        self._of_column["split"].update("".join(f"{split};" for split in table["split"].to_pylist()).encode())

    def hexdigest(self) -> str:
        """Return the digest in hexadecimal digits."""
        return hashlib.sha256("".join(digest.hexdigest() for digest in self._of_column.values()).encode()).hexdigest()
