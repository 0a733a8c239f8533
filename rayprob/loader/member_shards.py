"""The shards of one dataset of a stream: where their bytes come from, and what looks after them while it runs."""

from collections.abc import Iterator

import numpy as np

from rayprob.arrays import Rows
from rayprob.data.manifest.dataset import Manifest
from rayprob.files import storage
from rayprob.loader.cache import ShardCache
from rayprob.loader.check import LocalCheck, check_sizes
from rayprob.loader.order import Place
from rayprob.loader.prefetch import Prefetcher
from rayprob.loader.reader import SampleReader
from rayprob.loader.shards import FactsByName, LocalShards, ShardKeeper, are_local
from rayprob.loader.stream_spec import StreamSpec


class MemberShards:
    """The shards of a split of one dataset: local ones in place, remote ones through the cache of this node."""

    def __init__(self, manifest: Manifest, spec: StreamSpec, place: Place) -> None:
        """Raises DatasetError if a local shard is missing or has another size, StorageError without a cache folder."""
        self.manifest = manifest
        self._contents = spec.check_shards
        self._facts = FactsByName(manifest.root, manifest.shards)
        self.source = self._open(spec, place)
        self.reader = SampleReader(manifest.root, self.source)

    @property
    def cache(self) -> ShardCache | None:
        """The cache through which they are read; None if they are local."""
        return self.source if isinstance(self.source, ShardCache) else None

    def names(self, rows: Rows) -> list[str]:
        """Return the shards with the given rows, in order."""
        return [self.manifest.shards[shard] for shard in np.unique(self.manifest.shard_of(rows))]

    def keeper(self, shards_ahead: Iterator[list[str]], budget_bytes: int) -> ShardKeeper:
        """Return what looks after the shards of each upcoming micro batch, within a share of the cache's budget."""
        if self.cache:
            return Prefetcher(self.cache, shards_ahead, budget_bytes)
        return LocalCheck(self.manifest.root, self._facts, contents=self._contents)

    def _open(self, spec: StreamSpec, place: Place) -> LocalShards | ShardCache:
        root, shards = self.manifest.root, self.manifest.shards
        if are_local(root, shards):
            # The ranks of a node divide the shards, so that they do not all query a shared folder for a million shards.
            mine = range(place.rank % place.local_world_size, len(shards), place.local_world_size)
            check_sizes(root, (shards[shard] for shard in mine), self._facts)
            return LocalShards(root)
        return ShardCache(
            root=root,
            fingerprint=self.manifest.fingerprint,
            facts=self._facts,
            folder=storage.local_path(spec.cache_dir),
            budget_bytes=spec.cache_bytes,
            retries=spec.retries,
        )
