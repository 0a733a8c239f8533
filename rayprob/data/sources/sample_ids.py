"""Sample ids: the source's own numbers if they are unique over all splits, else hashes of split and key. N rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rayprob.data.sources.batch_file import BatchFile
from rayprob.data.sources.faults import doubles
from rayprob.errors import SourceError
from rayprob.seeds import derive_each

LIMIT = 2**63
NO_NUMBER = -1


@dataclass(frozen=True)
class Keys:
    """The column `key` of the rows of a split."""

    rows: BatchFile

    def __iter__(self) -> Iterator[list[str]]:
        return (batch.column("key").to_pylist() for batch in self.rows)

    @cached_property
    def hashes_N(self) -> NDArray[np.int64]:
        """A hash of each key; equal keys have equal hashes, which differ from run to run."""
        return filled(self.rows.num_rows, (hashes_of(some) for some in self))

    def numbers(self) -> NDArray[np.int64]:
        """Return each key as a number, or NO_NUMBER if it is not one [N]."""
        return filled(self.rows.num_rows, (np.fromiter(map(_number, some), np.int64, len(some)) for some in self))

    def hashes_under(self, split: str) -> NDArray[np.int64]:
        """Return the 63-bit hash of a split's name and each key [N], the same on every machine."""
        each = (np.fromiter(derive_each(0, "sample", split, last=some), np.int64, len(some)) for some in self)
        return filled(self.rows.num_rows, each)

    def doubles(self) -> list[str]:
        """Return the keys that occur more than once, in the order of the rows."""
        twice = repeated(self.hashes_N)
        return doubles(self.at(np.flatnonzero(np.isin(self.hashes_N, twice)))) if len(twice) else []

    def at(self, rows: NDArray[np.int64]) -> Iterator[str]:
        """Yield the keys of some rows, which must be ascending."""
        for first, batch in self.rows.with_starts():
            start, end = np.searchsorted(rows, [first, first + batch.num_rows])
            column = batch.column("key")
            yield from (column[row - first].as_py() for row in rows[start:end].tolist())


def sample_ids(keys: Mapping[str, Keys]) -> dict[str, NDArray[np.int64]]:
    """Return the sample ids of the keys of each split [N]. Raises SourceError if two hashes are equal."""
    numbers = {split: some.numbers() for split, some in keys.items()}
    if all((some_N != NO_NUMBER).all() for some_N in numbers.values()) and _are_unique(numbers):
        return numbers
    del numbers
    hashes = {split: some.hashes_under(split) for split, some in keys.items()}
    if not _are_unique(hashes):
        raise SourceError("two images have the same 63-bit hash of split and name; rename one of them")
    return hashes


def why_hashed(keys: Mapping[str, Keys], ids: Mapping[str, NDArray[np.int64]]) -> str:
    """Return why the ids of `sample_ids` are hashes; "" if they are the source's own numbers."""
    split, first = next((split, key) for split, some in keys.items() for batch in some for key in batch)
    if _number(first) == ids[split][0]:
        return ""
    every = (key for some in keys.values() for batch in some for key in batch)
    odd = next((key for key in every if _number(key) == NO_NUMBER), None)
    return "ids repeat" if odd is None else f"{odd!a} is not a number"


def shared_keys(keys: Mapping[str, Keys]) -> tuple[int, str, str, str] | None:
    """Return how many keys are in two splits, and the first of them with both splits; None if all differ."""
    found: list[tuple[int, str, str, str]] = []
    splits = list(keys)
    for place, split in enumerate(splits):
        others = {other: np.isin(keys[split].hashes_N, keys[other].hashes_N) for other in reversed(splits[:place])}
        shared_N = np.logical_or.reduce(list(others.values())) if others else np.zeros(0, dtype=bool)
        if shared_N.any():
            first = np.flatnonzero(shared_N)[:1]
            latest = next(other for other, is_shared_N in others.items() if is_shared_N[first[0]])
            found.append((int(shared_N.sum()), next(keys[split].at(first)), latest, split))
    return (sum(count for count, *_ in found), *found[0][1:]) if found else None


def hashes_of(texts: list[str]) -> NDArray[np.int64]:
    """Return a hash of each text [N], which differs from run to run; different texts hardly ever collide."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def filled(length: int, arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Concatenate arrays of a known total length, without keeping any of them twice in memory."""
    found, start = np.empty(length, np.int64), 0
    for some in arrays:
        found[start : start + len(some)] = some
        start += len(some)
    assert start == length
    return found


def repeated(values_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values that occur more than once, ascending."""
    ordered = np.sort(values_N)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _number(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 19):
        return NO_NUMBER
    return number if (number := int(key)) < LIMIT else NO_NUMBER


def _are_unique(ids: Mapping[str, NDArray[np.int64]]) -> bool:
    return not len(repeated(np.concatenate(list(ids.values()))))
