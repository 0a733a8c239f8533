"""Sample ids: the source's own numbers where they are unique over all splits, else hashes of split and key."""

from collections.abc import Iterator, Mapping, Sequence

from rayprob.errors import SourceError
from rayprob.seeds import derive

LIMIT = 2**63


def sample_ids(keys: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return the sample ids of the keys of each split. Raises SourceError where two hashes are equal."""
    numbers = {split: [*map(_number, some)] for split, some in keys.items()}
    if _are_unique(numbers):
        return numbers  # type: ignore[return-value]  # None is not unique
    hashes = {split: [derive(0, "sample", split, key) for key in some] for split, some in keys.items()}
    if not _are_unique(hashes):
        raise SourceError("two images have the same 63-bit hash of split and name; rename one of them")
    return hashes


def shared_keys(keys: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield each key that two splits have, with both."""
    split_of: dict[str, str] = {}
    for split, some in keys.items():
        yield from ((key, split_of[key], split) for key in some if key in split_of)
        split_of |= dict.fromkeys(some, split)


def _number(key: str) -> int | None:
    if not (key.isascii() and key.isdecimal() and len(key) <= 19):
        return None
    return number if (number := int(key)) < LIMIT else None


def _are_unique(ids: Mapping[str, Sequence[int | None]]) -> bool:
    count = sum(map(len, ids.values()))
    distinct = {one for some in ids.values() for one in some}
    return None not in distinct and len(distinct) == count
