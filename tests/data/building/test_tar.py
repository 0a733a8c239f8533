"""The tar writer: what tarfile and GNU tar would make of the same members, and errors of its thread that are not lost."""

import errno
import hashlib
import io
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprob.data.building import tar
from rayprob.data.building.tar import TarWriter, header

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100)


def write(file: io.BytesIO, sizes: Sequence[int]) -> tuple[TarWriter, list[int]]:
    with TarWriter(file) as writer:
        offsets = [writer.add(f"{size}.bin", bytes([size % 251]) * size) for size in sizes]
    return writer, offsets


def reference(sizes: Sequence[int]) -> bytes:
    """The same members by tarfile, which then fills up to a record of 10 KiB."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as whole:
        for size in sizes:
            member = tarfile.TarInfo(f"{size}.bin")
            member.size = size
            whole.addfile(member, io.BytesIO(bytes([size % 251]) * size))
    return buffer.getvalue()


@given(name=NAMES, size_bytes=st.integers(0, 8**11 - 1))
def test_a_header_is_tarfiles_header(name: str, size_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    assert header(name, size_bytes) == member.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("block_bytes", [1, 1000, tar.BLOCK_BYTES])
def test_the_bytes_are_tarfiles_for_any_size_of_block(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(tar, "BLOCK_BYTES", block_bytes)
    sizes = [0, 1, 511, 512, 513, 3000, 600_000, 7]
    file = io.BytesIO()
    writer, offsets = write(file, sizes)
    content = file.getvalue()
    expected = reference(sizes)
    assert content == expected[: len(content)]
    assert set(expected[len(content) :]) <= {0}
    assert (writer.size_bytes, writer.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    with tarfile.open(fileobj=io.BytesIO(content)) as whole:
        assert [(m.offset_data, m.size) for m in whole.getmembers()] == list(zip(offsets, sizes, strict=True))


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
def test_gnu_tar_reads_it_without_a_complaint(tmp_path: Path) -> None:
    with open(tmp_path / "x.tar", "wb") as file, TarWriter(file) as writer:
        writer.add("000000000009.jpg", bytes(700))
        writer.add("000000000009.json", b"{}")
    listed = subprocess.run(["tar", "-tvf", tmp_path / "x.tar"], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["000000000009.jpg", "000000000009.json"]


class FullDisk(io.BytesIO):
    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("sizes", [[3], [600_000] * 5])
def test_an_error_of_the_file_reaches_the_caller(sizes: list[int]) -> None:
    with pytest.raises(OSError, match="No space left"):
        write(FullDisk(), sizes)


def interrupted(file: io.BytesIO) -> None:
    with TarWriter(file) as writer:
        writer.add("a.bin", bytes(600_000))
        raise KeyboardInterrupt


def test_a_block_that_raises_leaves_neither_an_end_mark_nor_a_thread() -> None:
    file = io.BytesIO()
    with pytest.raises(KeyboardInterrupt):
        interrupted(file)
    assert len(file.getvalue()) == 512 + 600_064
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tar")]
