"""What a file is, by its content; and damaged files: each one is refused by name, whatever byte is hit."""

import io
import json
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.errors import ModelError, StorageError
from rayprob.labels import LabelSpace
from rayprob.models.tensor_files import header_of, read_tensors
from rayprob.models.weights import read_weights

TENSORS = {"a.weight": torch.arange(12.0).view(3, 4), "a.bias": torch.ones(3), "count": torch.tensor(7)}
LABELS = {"rayprob_labels": json.dumps(LabelSpace(("cat", "dog"), (1, 2)).to_dict())}
SAFE = bytes(safetensors.torch.save(TENSORS, LABELS))


def saved(value: object, is_zip: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def numpy_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


FOREIGN = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a Git LFS pointer.*git lfs pull"),
    "html": (b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>", "is an HTML page, from a failed download"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a text file, not weights: .*xml version"),
    "text": ("Zugriff verweigert: nö".encode(), "is a text file, not weights: 'Zugriff verweigert: nö'"),
    "empty": (b"", r"is empty \(0 bytes\)"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file, as Keras writes it"),
    "npz": (zipped("weights.npy"), "is a NumPy archive"),
    "npy": (numpy_array(), "is a NumPy array"),
    "flax": (b"\x82\xa6params\x81\xa1a\x01\xa3opt\xc0", r"is a Flax \(msgpack\) file"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(99), "is a GGUF file"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(99), "is a TensorFlow Lite model"),
    "tensorflow": (bytes(99) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "is a TensorFlow checkpoint"),
    "export": (zipped("m/serialized_exported_program.json"), "is a torch.export program"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "unpack it and use the file in it"),
    "tar": (tarred(), "unpack it and use the file in it"),
    "noise": (bytes(range(128, 256)) * 4, "cannot be read safely"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_something_else_is_recognised_by_its_content(kind: str) -> None:
    content, message = FOREIGN[kind]
    with pytest.raises(ModelError, match=f"x.pth {message}" if message.startswith("is ") else message):
        read_tensors(content, "x.pth")


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "safe.pth").write_bytes(SAFE)
    (tmp_path / "pickle.safetensors").write_bytes(saved(TENSORS))
    for name in ("safe.pth", "pickle.safetensors"):
        tensors, _ = read_weights(str(tmp_path / name))
        assert torch.equal(tensors["a.weight"], TENSORS["a.weight"])


def test_a_folder_names_the_weight_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(SAFE)
    with pytest.raises(ModelError, match=r"is a folder without weights.safetensors; give a file: model.safetensors"):
        read_weights(str(tmp_path))


def test_a_flipped_bit_in_a_pickles_data_is_noticed_by_its_checksum() -> None:
    content = bytearray(saved(TENSORS))
    content[content.find(TENSORS["a.weight"].numpy().tobytes()) + 6] ^= 1
    with pytest.raises(ModelError, match="the checksum of its part archive/data/0 does not match"):
        read_tensors(bytes(content), "x.pth")


def test_a_pickle_written_without_checksums_loads() -> None:
    torch.serialization.set_crc32_options(False)
    try:
        content = saved(TENSORS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_tensors(content, "x.pth")["a.bias"], torch.ones(3))


@pytest.mark.parametrize("length", [0, 1, 7, 2**20, 2**40, 2**63, 2**64 - 1])
def test_a_header_length_that_lies_is_refused(length: int) -> None:
    with pytest.raises(ModelError):
        read_tensors(length.to_bytes(8, "little") + SAFE[8:], "x.safetensors")


def test_every_cut_of_a_safetensors_file_is_refused() -> None:
    for length in range(len(SAFE)):
        with pytest.raises(ModelError):
            read_tensors(SAFE[:length], "x.safetensors")


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", "[" * 50_000, '{"names": ["a"], "category_ids": [1e999]}', '{"names": ["a"]}']
)
def test_damaged_labels_in_a_header_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(safetensors.torch.save(TENSORS, {"rayprob_labels": text}))
    with pytest.raises(ModelError, match=r"the labels in the header of .*x.safetensors are damaged"):
        read_weights(str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("metadata", [b"null", b"{}"])
def test_a_header_without_texts_has_none(metadata: bytes) -> None:
    header = b'{"__metadata__":' + metadata + b',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    assert header_of(len(header).to_bytes(8, "little") + header + bytes(4)) == {}


FILES = {"zip": saved(TENSORS), "legacy": saved({"state_dict": TENSORS}, is_zip=False), "safetensors": SAFE}
hits = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=20)


@given(kind=st.sampled_from(sorted(FILES)), hits=hits, cut=st.one_of(st.none(), st.integers(0, 10_000)))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_damaged_bytes_end_in_tensors_or_in_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, hits: list[tuple[int, int]], cut: int | None
) -> None:
    content = bytearray(FILES[kind])
    for at, byte in hits:
        content[at % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(content if cut is None else content[: cut % len(content)])
    with suppress(ModelError, StorageError):
        tensors, _ = read_weights(str(path))
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
