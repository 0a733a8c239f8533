"""The names and sizes of a folder's files, found by a hash: 16 bytes of memory per file, however long the names. F files."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.sources.batch_file import BatchFile
from rayprob.data.sources.sample_ids import filled, hashes_of, repeated

FILES = pa.schema([("name", pa.string()), ("size_bytes", pa.int64())])
NOT_THERE = -1


class FileSizes:
    """The sizes of files by their names. The names are kept on disk, for the rare cases that need them."""

    def __init__(self, chunks: Iterable[list[tuple[str, int]]], scratch: str | None = None) -> None:
        self._files = BatchFile(FILES, scratch)
        for chunk in chunks:
            columns = zip(*chunk, strict=True)
            arrays = [to_array(list(column), field.type) for column, field in zip(columns, FILES, strict=True)]
            self._files.append(pa.RecordBatch.from_arrays(arrays, schema=FILES))
        hashes_F = filled(len(self), map(hashes_of, self._names()))
        order_F = np.argsort(hashes_F)
        self._hashes_F = hashes_F[order_F]
        self._sizes_F = filled(len(self), (numbers(batch.column("size_bytes")) for batch in self._files))[order_F]
        # Names with the same hash; among a billion names there may be some.
        shared = repeated(self._hashes_F)
        self._alike = {name: size for name, size in self.items() if hash(name) in shared} if len(shared) else {}

    def __len__(self) -> int:
        return self._files.num_rows

    def __iter__(self) -> Iterator[str]:
        for some in self._names():
            yield from some

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def items(self) -> Iterator[tuple[str, int]]:
        """Yield names and sizes in arbitrary order."""
        for batch in self._files:
            yield from zip(batch.column("name").to_pylist(), numbers(batch.column("size_bytes")).tolist(), strict=True)

    def get(self, name: str) -> int | None:
        """Return the size of the file of that name; None if there is no such file."""
        size_bytes = int(self.of([name])[0])
        return size_bytes if size_bytes != NOT_THERE else None

    def of(self, names: list[str]) -> NDArray[np.int64]:
        """Return the size of the file of each name [N], NOT_THERE if there is no such file."""
        if not len(self):
            return np.full(len(names), NOT_THERE)
        wanted_N = hashes_of(names)
        order_N = np.argsort(wanted_N)  # searching in ascending order takes a fraction of the time
        place_N = np.empty_like(order_N)
        place_N[order_N] = np.minimum(np.searchsorted(self._hashes_F, wanted_N[order_N]), len(self) - 1)
        sizes_N = np.where(self._hashes_F[place_N] == wanted_N, self._sizes_F[place_N], NOT_THERE)
        for row, name in enumerate(names) if self._alike else ():
            if name in self._alike:
                sizes_N[row] = self._alike[name]
        return sizes_N

    def _names(self) -> Iterator[list[str]]:
        return (batch.column("name").to_pylist() for batch in self._files)
