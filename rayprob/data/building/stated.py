"""What is stated of each image as one number, so that the samples of a dataset can be compared with its source. N images."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import Ragged

LISTS = ("labels", "unknown_labels", "absent_labels")
# The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def stated_of(tables: Iterable[pa.Table], *, with_absent: bool = True) -> NDArray[np.uint64]:
    """Return a 64-bit digest of the labels of each row, whatever their order [N]: present, unknown, and listed absent ones."""
    digests = [_digest(table, LISTS if with_absent else LISTS[:-1]) for table in tables]
    return np.concatenate([np.zeros(0, np.uint64), *digests])


def _digest(table: pa.Table, lists: Iterable[str]) -> NDArray[np.uint64]:
    digest_n = np.zeros(len(table), np.uint64)
    for place, name in enumerate(lists):
        if name not in table.column_names:
            continue
        columns = Ragged.from_column(table[name])
        numbered = columns.values.astype(np.uint64) + np.uint64((place + 1) << 32)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(numbered), dtype=np.uint64)])
        digest_n += sums[columns.starts[1:]] - sums[columns.starts[:-1]]
    return digest_n


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in STEPS:
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
