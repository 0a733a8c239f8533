"""Images from a source's own files, such as Parquet, written one after the other so that a shard can read any of them."""

from contextlib import ExitStack
from typing import IO

import pyarrow as pa

from rayprob.data.sources.rows import ImageRow, batch_of, has_text, rows_of
from rayprob.files import storage, uris


class Spool:
    """One file per split under `.build` of the dataset; the first image creates it, and the build removes it."""

    def __init__(self, root: str, split: str) -> None:
        self._uri = storage.join(root, ".build", "images", split)
        self._file: IO[bytes] | None = None
        self._stack = ExitStack()
        self._size_bytes = 0

    def put(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows of ROWS that refer to their images here; rows without content are unchanged. Raises StorageError."""
        if not has_text(batch.column("content")).any():
            return batch
        return batch_of([self._put(row) for row in rows_of([batch])])

    def _put(self, row: ImageRow) -> ImageRow:
        if not row.content:
            return row
        if self._file is None:
            self._file = self._stack.enter_context(storage.atomic_writer(self._uri))
        self._file.write(row.content)
        offset_bytes, size_bytes = self._size_bytes, len(row.content)
        self._size_bytes += size_bytes
        return row._replace(content=b"", container=uris.absolute(self._uri), offset_bytes=offset_bytes, size_bytes=size_bytes)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]
