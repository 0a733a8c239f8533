"""Images that a source holds in files of its own, such as Parquet, laid out one after the other so that shards can read any."""

from contextlib import ExitStack
from typing import IO

from rayprob.data.sources.rows import ImageRow
from rayprob.files import storage, uris


class Spool:
    """One file under `.build` of the dataset, for one split; it is made with the first image, and the build removes it."""

    def __init__(self, root: str, split: str) -> None:
        self._uri = storage.join(root, ".build", "images", split)
        self._file: IO[bytes] | None = None
        self._stack = ExitStack()
        self._size_bytes = 0

    def put(self, row: ImageRow) -> ImageRow:
        """Return a row that leads to its image here; a row without content as it is. Raises StorageError."""
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
