"""The tars that a dataset reads in place, and where they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayprob.data.manifest.shard_list import Shards, shard_uri
from rayprob.files import uris


@dataclass(frozen=True)
class TarsInPlace:
    """The tars of the splits that are read in place: their number, total size and folders."""

    splits: list[str]
    tars: int
    size_bytes: int
    folders: list[str]


def tars_in_place(root: str, facts: Mapping[str, Any], shards: Shards) -> TarsInPlace | None:
    """Return the tars that a dataset with these facts (dataset.json) reads in place; None if it has only its own shards."""
    splits = list(facts.get("in_place", ()))
    if not splits:
        return None
    places = [place for split in splits for place in shards.splits[split]]
    size_of = {shards[place]: int(shards.size_bytes_S[place]) for place in places}  # a tar with two splits counts once
    folders = {uris.split(shard_uri(root, name))[0] for name in size_of}
    return TarsInPlace(splits, len(size_of), sum(size_of.values()), sorted(folders))
