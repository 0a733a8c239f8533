"""Paths and URIs: what a user writes names one place, and nothing of it is lost."""

import posixpath
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import fs

from rayprob.errors import StorageError
from rayprob.files import storage, uris

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0") | st.sampled_from("#?% ~$+&=;[]|"), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
OPTIONS = "?endpoint_override=localhost:1&scheme=http"


@given(NAMES, NAMES)
@example("run#1", "a?b")
@example("100%", "%20")
def test_a_file_uri_and_its_path_are_each_other(folder: str, name: str) -> None:
    path = f"/data/{folder}/{name}"
    assert str(uris.local_path(uris.file_uri(path))) == str(Path(path))
    assert uris.join(uris.file_uri(f"/data/{folder}"), name) == path
    assert storage.resolve(uris.file_uri(path))[1] == str(Path(path))


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/run%201", "/data/run 1"),
        ("file:///data/run%231", "/data/run#1"),
        ("file:///data/run#1", "/data/run#1"),
        ("file:///data/run?a=1", "/data/run?a=1"),
        ("file:///data/100%", "/data/100%"),
        ("file:/data/x", "/data/x"),
        ("FILE://localhost/data/x", "/data/x"),
        ("/data/run%201#?", "/data/run%201#?"),
        ("runs/a://b", "runs/a://b"),
    ],
)
def test_a_local_path_keeps_all_of_its_characters(uri: str, path: str) -> None:
    assert uris.is_local(uri)
    assert str(uris.local_path(uri)) == str(Path(path))


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    for name in ("run", "run#1", "run?2", "run%201", "run 1"):
        for uri in (str(tmp_path / name), uris.file_uri(tmp_path / name)):
            storage.write_text(storage.join(uri, "name.txt"), name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run 1", "run#1", "run%201", "run?2"]
    for folder in tmp_path.iterdir():
        assert storage.read_bytes(uris.file_uri(folder / "name.txt")).decode() == folder.name


def test_a_file_uri_of_another_machine_is_refused() -> None:
    with pytest.raises(StorageError, match=r"file://data/x names a file of the machine 'data'; .* three slashes"):
        uris.local_path("file://data/x")


@given(NAMES, NAMES)
@example("what?", "a%20b#c")
def test_the_key_of_a_file_below_a_remote_folder_is_its_name(folder: str, name: str) -> None:
    uri = uris.join(f"s3://bucket{OPTIONS}", folder, name)
    assert uri.endswith(OPTIONS)
    filesystem, key = fs.FileSystem.from_uri(uris.for_arrow(uri))
    assert (filesystem.type_name, key) == ("s3", f"bucket/{folder}/{name}")


@pytest.mark.parametrize(
    ("written", "key"),
    [("a b/c", "a b/c"), ("a#b", "a#b"), ("a%23b%3F", "a#b?"), ("100%", "100%"), ("käse/[1]|", "käse/[1]|"), ("~x", "~x")],
)
def test_a_remote_uri_keeps_all_of_its_key(written: str, key: str) -> None:
    assert storage.resolve(f"s3://bucket/{written}{OPTIONS}")[1] == f"bucket/{key}"


@pytest.mark.parametrize("lost", ["?", "?.jpg", "?a=1&", "?c/d"])
def test_a_question_mark_that_starts_no_options_is_refused(lost: str) -> None:
    with pytest.raises(StorageError, match=r"is not KEY=VALUE; write a \? that is part of the key as %3F"):
        storage.resolve(f"s3://bucket/what{lost}")


def test_other_libraries_find_the_same_place() -> None:
    assert uris.canonical("file:///data/run%231") == uris.canonical("/data/run#1") == "/data/run#1"
    for uri in ("s3://bucket/run#1", f"s3://bucket/run#1{OPTIONS}", "s3://bucket/run%231"):
        assert uris.canonical(uri) == uri.replace("#", "%23")


@given(NAMES, NAMES)
@example("100%", "a?b")
def test_a_name_below_a_folder_leads_back_to_the_file(folder: str, name: str) -> None:
    for root in ("/data", "s3://bucket/x", f"s3://bucket/x{OPTIONS}", "data"):
        below = uris.below(root, uris.join(root, folder, name))
        assert below is not None
        assert uris.join(root, below) == uris.join(root, folder, name)


@pytest.mark.parametrize(
    ("folder", "uri"),
    [
        ("/data/set", "/data/set2/0.tar"),
        ("/data/set", "/data/0.tar"),
        ("/data/set", "/data/set"),
        ("/data/set", "s3://data/set/0.tar"),
        ("s3://data/set", "/data/set/0.tar"),
        ("s3://data/set", "s3://data/set2/0.tar"),
        (f"s3://data/set{OPTIONS}", "s3://data/set/0.tar"),  # of another server
    ],
)
def test_what_lies_elsewhere_has_no_name_below_a_folder(folder: str, uri: str) -> None:
    assert uris.below(folder, uri) is None


def test_parts_of_a_table_lie_beside_it() -> None:
    assert uris.beside(f"s3://bucket/t.parquet{OPTIONS}", ".parts") == f"s3://bucket/t.parquet.parts{OPTIONS}"
    assert uris.beside("out/t?.parquet", ".parts") == "out/t?.parquet.parts"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and an empty working folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_home_is_meant_only_where_there_is_one(home: Path) -> None:
    import pwd

    user = pwd.getpwuid(0)
    here = Path.cwd()
    assert uris.local_path("~/x") == home / "x"
    assert uris.local_path("~") == home
    assert uris.local_path(f"~{user.pw_name}/x") == Path(user.pw_dir) / "x"
    assert uris.local_path("./~/x") == here / "~" / "x"
    assert uris.local_path("~$photo.jpg") == here / "~$photo.jpg"
    assert uris.local_path("a/~/b") == Path("a/~/b")
    Path(f"~{user.pw_name}").mkdir()
    assert uris.local_path(f"~{user.pw_name}/x") == here / f"~{user.pw_name}" / "x"


@given(st.text("~./ax$", max_size=8))
def test_a_path_means_the_same_when_it_is_read_twice(text: str) -> None:
    once = uris.local_path(text)
    assert uris.local_path(str(once)) == once


def test_without_a_home_a_tilde_is_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("~nobody-of-that-name", "~\udce9", "~~", "~ x"):
        assert uris.local_path(name) == tmp_path / name


def test_names_that_no_store_can_have_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"'a\\x00b' contains a NUL character"):
        storage.exists("a\0b")
    for uri in (f"{tmp_path}/caf\udce9.jpg", f"file://{tmp_path}/caf%E9.jpg"):
        with pytest.raises(StorageError, match=r"the name .*/caf\\xe9.jpg is not UTF-8; rename the file"):
            storage.read_bytes(uri)
    with pytest.raises(StorageError, match=r"is not UTF-8"):
        storage.resolve("s3://bucket/caf\udce9")


@given(st.text())
def test_any_text_is_a_place_or_a_storage_error(text: str) -> None:
    try:
        path = storage.resolve(text)[1] if uris.is_local(text) else uris.for_arrow(text)
    except StorageError:
        return
    assert posixpath.isabs(path) or "://" in path


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("a/b/c.tar", ("a/b", "c.tar")),
        ("c.tar", ("", "c.tar")),
        ("a/b/", ("a", "b")),
        (f"s3://bucket/a/b.tar{OPTIONS}", (f"s3://bucket/a{OPTIONS}", "b.tar")),
        ("s3://bucket/a#1/b?x=/y/z", ("s3://bucket/a#1?x=/y/z", "b")),
    ],
)
def test_a_uri_is_split_into_folder_and_name(uri: str, parts: tuple[str, str]) -> None:
    assert uris.split(uri) == parts
