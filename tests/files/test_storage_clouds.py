"""gs:// and abfs:// on loopback: Google's storage as gcp-storage-emulator plays it, Azure's as azurite does.

pip brings the first (pip install -e .[dev]); npm the second: npm install azurite, and RAYPROB_AZURITE=.../azurite-blob.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from rayprob.data.manifest.dataset import Dataset, Manifest
from rayprob.errors import StorageError
from rayprob.files import storage
from rayprob.loader.augment import TransformSpec, build_transform
from rayprob.loader.order import Cursor, Place
from rayprob.loader.streams import StreamSpec, TrainStream
from tests.loader.tiny import write_dataset
from tests.servers import free_port, wait_for_server

AZURITE = os.environ.get("RAYPROB_AZURITE") or shutil.which("azurite-blob")
# The account and key that azurite has by default, and that its documentation names.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gs://shards, reached as on a cluster: by the URI alone, with endpoint and credentials from the environment."""
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator (pip install -e .[dev])")
    port = free_port()
    # In a process of its own: Arrow's client can hold Python's lock while it waits for an answer.
    start = f"from gcp_storage_emulator.server import *; create_server('127.0.0.1', {port}, True, 'shards').run()"
    server = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    credentials = tmp_path_factory.mktemp("google") / "account.json"
    credentials.write_text(json.dumps(service_account()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{port}")
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
        try:
            wait_for_server(server, port)
            yield "gs://shards/mine"
        finally:
            server.kill()
            server.wait()


def service_account() -> dict[str, str]:
    """Return credentials with a key of our own: the client signs with it, and the emulator does not look."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    names = {"type": "service_account", "project_id": "p", "client_email": "a@p.example", "client_id": "1"}
    return {**names, "private_key_id": "k", "private_key": pem, "token_uri": "http://127.0.0.1:9/token"}


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """abfs://shards@..., with azurite in the place of the account: Arrow takes no other endpoint from the environment."""
    if AZURITE is None:
        pytest.skip("needs azurite: npm install azurite, and RAYPROB_AZURITE=.../node_modules/.bin/azurite-blob")
    port = free_port()
    options = ["--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort", str(port)]
    server = subprocess.Popen([AZURITE, *options], cwd=tmp_path_factory.mktemp("azure"), stdout=subprocess.DEVNULL)
    here = {f"{part}_storage_{what}": value for part in ("blob", "dfs") for what, value in at(port).items()}
    filesystem = fs.AzureFileSystem(account_name=ACCOUNT, account_key=KEY, **here)
    original = storage.resolve

    def resolve(uri: str) -> tuple[fs.FileSystem, str]:
        return (filesystem, original(uri)[1]) if uri.startswith("abfs://") else original(uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "resolve", resolve)
        try:
            wait_for_server(server, port)
            filesystem.create_dir("shards")
            yield f"abfs://shards@{ACCOUNT}.dfs.core.windows.net/mine"
        finally:
            server.kill()
            server.wait()


def at(port: int) -> dict[str, str]:
    return {"authority": f"127.0.0.1:{port}", "scheme": "http"}


@pytest.fixture(params=["google", "azure"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_files_are_written_read_listed_and_removed(folder: str) -> None:
    file = storage.join(folder, "a", "b.txt")
    assert not storage.exists(file)
    storage.write_text(file, "hello")
    storage.write_text(file, "HELLO")
    assert (storage.read_bytes(file), storage.read_bytes(file, 1, 3), storage.size_bytes(file)) == (b"HELLO", b"ELL", 5)
    assert storage.list_names(storage.join(folder, "a")) == ["b.txt"]
    assert storage.list_below(folder).size_of == {"a/b.txt": 5}
    assert storage.is_folder(storage.join(folder, "a"))
    storage.remove(file)
    assert not storage.exists(file)
    storage.write_text(file, "again")
    storage.remove_folder(folder)
    assert not storage.list_below(folder).size_of


def test_a_file_whose_writing_was_broken_off_is_not_there(folder: str) -> None:
    file = storage.join(folder, "half.txt")

    def break_off() -> None:
        with storage.atomic_writer(file) as target:
            target.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert not storage.list_below(folder).size_of


def test_a_missing_file_is_named(folder: str) -> None:
    file = storage.join(folder, "none.txt")
    with pytest.raises(StorageError, match=f"no file at {file}"):
        storage.read_bytes(file)


def test_training_reads_the_same_batches_from_there_as_from_the_disk(folder: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    local = write_dataset(tmp_path / "data", [9, 5, 8])
    for name in os.listdir(tmp_path / "data"):
        storage.write_bytes(storage.join(folder, "data", name), (tmp_path / "data" / name).read_bytes())
    remote = Dataset.open(storage.join(folder, "data"))
    here, there = (images(dataset.split("train"), tmp_path / "cache") for dataset in (local, remote))
    assert here.shape == (4, 4, 3, 32, 32)
    np.testing.assert_array_equal(here, there)
    storage.remove_folder(folder)


def images(manifest: Manifest, cache: Path) -> np.ndarray:
    """Return the images of the first four global batches."""
    spec = StreamSpec(global_batch=4, lanes=2, window_shards=1, loader_workers=0, cache_dir=str(cache))
    transform = build_transform(TransformSpec(name="paper", size_px=32))
    batches = TrainStream(manifest, spec, transform, seed=3, place=Place(), micro_batch=4).iterate(Cursor(0, 0))
    try:
        return np.stack([batch.images_BCHW.numpy() for batch in itertools.islice(batches, 4)])
    finally:
        batches.close()
