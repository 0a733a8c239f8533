"""A tar read once: the parts that were asked for, and the sha256 of everything."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.data.building import tar_reader
from rayprob.errors import StorageError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tar") / "0.tar"
    path.write_bytes(bytes(place * 7 % 251 for place in range(5000)))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5000), max_size=9), st.integers(1, 6000), st.integers(1, 6000))
def test_parts_in_order_and_the_digest_are_those_of_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, bounds: list[int], chunk_bytes: int, piece_bytes: int
) -> None:
    monkeypatch.setattr(tar_reader, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(tar_reader, "PIECE_BYTES", piece_bytes)
    content = file.read_bytes()
    starts = sorted(bounds)
    with tar_reader.tar_reader(str(file)) as tar:
        for start, end in zip(starts[::2], starts[1::2], strict=False):
            assert tar.read(start, end - start) == content[start:end]
    assert (tar.size_bytes, tar.sha256) == (5000, hashlib.sha256(content).hexdigest())


def test_images_that_overlap_and_files_that_end_too_early_are_errors(file: Path) -> None:
    with tar_reader.tar_reader(str(file)) as tar:
        tar.read(100, 50)
        with pytest.raises(StorageError, match=r"0.tar: byte 120 belongs to two images; write the tar again"):
            tar.read(120, 10)
        with pytest.raises(StorageError, match=r"0.tar ends at byte 5,000, before its image at byte 4,990 does"):
            tar.read(4990, 20)
