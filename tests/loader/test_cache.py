"""The cache of shards: whole or absent, within its budget, never losing what is needed, shared by processes."""

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.data.manifest.dataset import Manifest
from rayprob.errors import DatasetError, SpecError, StorageError
from rayprob.files import storage
from rayprob.loader import workers
from rayprob.loader.cache import ShardCache, check_budget
from rayprob.loader.prefetch import Prefetcher
from rayprob.loader.shards import FactsByName
from tests.loader.tiny import content_of, read_all, used_bytes

Faults = list[str]


@pytest.fixture
def cache(manifest: Manifest, tmp_path: Path) -> ShardCache:
    """A cache with room for all shards of a dataset; that its source is a folder makes no difference to it."""
    return ShardCache(
        root=manifest.root,
        fingerprint="f",
        facts=FactsByName(manifest.root),
        folder=tmp_path / "cache",
        budget_bytes=10**9,
        retries=3,
        backoff_s=0.001,
    )


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults for the next downloads, first to last; a download removes its own, and an empty list lets it through."""
    planned: Faults = []
    monkeypatch.setattr(storage, "open_input", _faulty(storage.open_input, planned))
    return planned


class _Body:
    def __init__(self, content: bytes, fault: str) -> None:
        self._content, self._fault = content, fault

    def read(self, _: int) -> bytes:
        content, self._content = self._content, b""
        if self._fault == "reset":
            raise OSError(errno.ECONNRESET, "Connection reset by peer")
        if self._fault == "short":
            return content[:-100]
        return content[:-1] + bytes([content[-1] ^ 1]) if self._fault == "flip" and content else content


def _faulty(open_input: Callable[[str], object], planned: Faults) -> Callable[[str], object]:
    @contextmanager
    def opened(uri: str) -> Iterator[object]:
        fault = planned.pop(0) if planned else ""
        if fault == "500":
            raise StorageError("cannot read: Internal Server Error")
        with open_input(uri) as source:
            yield _Body(source.read(), fault) if fault else source

    return opened


def cached(cache: ShardCache) -> set[str]:
    return {path.name.removeprefix("f-") for path in cache.folder.glob("*.tar")}


def with_room_for(cache: ShardCache, shards: list[str]) -> ShardCache:
    return replace(cache, budget_bytes=sum(cache.facts[shard].size_bytes for shard in shards))


def test_a_shard_is_fetched_once_and_whole(cache: ShardCache, manifest: Manifest) -> None:
    for shard in manifest.shards:
        assert cache.read(shard, 100, 50) == content_of(manifest, shard)[100:150]
        assert cache.path(shard).read_bytes() == content_of(manifest, shard)
    modified = {path: path.stat().st_ino for path in cache.folder.glob("*.tar")}
    assert len(modified) == len(manifest.shards)
    for shard in manifest.shards:
        cache.read(shard, 0, 10)
    assert modified == {path: path.stat().st_ino for path in cache.folder.glob("*.tar")}
    assert not list(cache.folder.glob("*.part"))


@given(places=st.lists(st.integers(0, 6), max_size=25), room=st.integers(1, 4))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_budget_is_kept_and_the_bytes_are_right(
    cache: ShardCache, manifest: Manifest, places: list[int], room: int
) -> None:
    largest_bytes = max(facts.size_bytes for facts in cache.facts.values())
    cache = replace(cache, budget_bytes=room * largest_bytes, folder=cache.folder / uuid.uuid4().hex)
    for place in places:
        shard = manifest.shards[place]
        assert cache.read(shard, 512, 200) == content_of(manifest, shard)[512:712]
        assert shard in cached(cache)
        assert used_bytes(cache) <= cache.budget_bytes


def test_the_shard_used_longest_ago_is_evicted(cache: ShardCache, manifest: Manifest) -> None:
    first, second, third = sorted(manifest.shards[:3], key=lambda shard: cache.facts[shard].size_bytes, reverse=True)
    cache = with_room_for(cache, [first, second])
    for age, shard in ((30, first), (20, second), (10, first)):
        cache.read(shard, 0, 1)
        os.utime(cache.path(shard), ns=(0, 10**18 - age))
    cache.read(third, 0, 1)
    assert cached(cache) == {first, third}


def test_a_shard_in_use_is_never_evicted(cache: ShardCache, manifest: Manifest) -> None:
    first, second, third = sorted(manifest.shards[:3], key=lambda shard: cache.facts[shard].size_bytes, reverse=True)
    cache = with_room_for(cache, [first, second])
    held = cache.open(first)
    assert held is not None
    os.utime(cache.path(first), ns=(0, 0))
    cache.read(second, 0, 1)
    cache.read(third, 0, 1)
    assert cached(cache) == {first, third}
    also_held = cache.open(third)
    assert also_held is not None
    # With all of the budget in use, a read goes past the cache; it neither waits nor evicts.
    assert cache.read(second, 30, 40) == content_of(manifest, second)[30:70]
    assert cached(cache) == {first, third}
    os.close(held)
    os.close(also_held)


def test_what_a_dead_process_left_is_removed(cache: ShardCache, manifest: Manifest) -> None:
    shard = manifest.shards[0]
    cache = with_room_for(cache, [shard])
    left = cache.folder / "f-train-000003.part"
    left.write_bytes(bytes(cache.budget_bytes))
    assert cache.read(shard, 0, 10) == content_of(manifest, shard)[:10]
    assert cached(cache) == {shard}
    assert not left.exists()


@pytest.mark.parametrize("room", [2, 7])
def test_processes_share_a_cache(cache: ShardCache, manifest: Manifest, room: int) -> None:
    largest_bytes = max(facts.size_bytes for facts in cache.facts.values())
    cache = replace(cache, budget_bytes=room * largest_bytes)
    with workers._context().Pool(3) as pool:
        assert pool.starmap(read_all, [(cache, manifest, seed) for seed in range(3)]) == [""] * 3


@pytest.mark.parametrize("fault", ["500", "reset", "short", "flip"])
def test_a_fault_of_the_network_is_tried_again(cache: ShardCache, manifest: Manifest, faults: Faults, fault: str) -> None:
    shard = manifest.shards[0]
    faults += [fault] * 3
    assert cache.read(shard, 0, 10**6) == content_of(manifest, shard)
    assert not faults


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "cannot read: Internal Server Error"),
        ("reset", "Connection reset by peer"),
        ("short", r"its body has [\d,]+ bytes, but [\d,]+ in dataset\.json"),
        ("flip", r"its body has sha256 [0-9a-f]+\.\.\., but [0-9a-f]+\.\.\. in dataset\.json"),
    ],
)
def test_a_lasting_fault_names_uri_attempts_and_last_reason(
    cache: ShardCache, manifest: Manifest, faults: Faults, fault: str, reason: str
) -> None:
    shard = manifest.shards[0]
    faults += [fault] * 4
    with pytest.raises(
        StorageError, match=rf"cannot fetch {manifest.root}/{shard}: 4 attempts failed; the last error: .*{reason}"
    ):
        cache.read(shard, 0, 10)
    assert not cached(cache)
    assert not list(cache.folder.glob("*.part"))


def test_a_missing_shard_is_not_tried_again(cache: ShardCache, manifest: Manifest) -> None:
    cache = replace(cache, root=f"{manifest.root}/nowhere", backoff_s=1000.0)
    with pytest.raises(DatasetError, match=r"cannot open shard .*/nowhere/train-000000.tar: it does not exist; run `rayprob"):
        cache.read(manifest.shards[0], 0, 10)


def test_a_full_disk_is_named(cache: ShardCache, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"cannot reserve [\d,]+ bytes in the cache .*: No space left on device; lower"):
        cache.read(manifest.shards[0], 0, 10)
    assert not list(cache.folder.glob("*.part"))


def test_a_cache_folder_that_cannot_be_made_is_named(cache: ShardCache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=rf"cannot make the cache folder {tmp_path}/file/cache: Not a directory; set"):
        replace(cache, folder=tmp_path / "file" / "cache")


def test_a_budget_below_a_window_names_the_least_that_does(cache: ShardCache, manifest: Manifest) -> None:
    sizes_bytes = sorted(facts.size_bytes for facts in cache.facts.values())
    wanted_bytes = sum(sizes_bytes[-4:])
    check_budget(replace(cache, budget_bytes=wanted_bytes), manifest.shards.size_bytes_S, at_once=4, why="")
    small = replace(cache, budget_bytes=wanted_bytes - 1)
    expected = rf"cache_bytes {wanted_bytes - 1:,} cannot hold .* at once \(2 lanes x 2\); set at least {wanted_bytes:,}"
    with pytest.raises(SpecError, match=expected):
        check_budget(small, manifest.shards.size_bytes_S, at_once=4, why="2 lanes x 2")


def test_the_prefetcher_fetches_ahead_within_its_budget_and_lets_go(cache: ShardCache, manifest: Manifest) -> None:
    shards = list(manifest.shards)
    cache = with_room_for(cache, shards[:3])
    prefetcher = Prefetcher(cache, iter([[shard] for shard in shards]), cache.budget_bytes)
    for shard in shards:
        for future in list(prefetcher._held.values()):
            future.result()
        assert shard in cached(cache)
        assert used_bytes(cache) <= cache.budget_bytes
        prefetcher.decoded([shard], ends_pass=False)
    prefetcher.close()
    assert cached(cache) >= set(shards[-1:])
    held = [descriptor for descriptor in os.listdir("/proc/self/fd") if _points_into(descriptor, cache.folder)]
    assert not held


def _points_into(descriptor: str, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder))
    except OSError:
        return False
