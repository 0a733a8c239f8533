"""What lies below a folder: each real folder once, in one order, whatever links and names there are."""

import os
from pathlib import Path

import pytest

from rayprob.files import storage
from rayprob.files.folders import DANGLING, NOT_UTF8, Listing, file_names, walk


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * len(name))


@pytest.mark.parametrize("num_links", [1, 2, 5])
def test_links_to_a_parent_end_at_once(tmp_path: Path, num_links: int) -> None:
    write(tmp_path, "a.jpg", "sub/b.jpg")
    for link in range(num_links):
        (tmp_path / "sub" / f"up-{link}").symlink_to("..")
    listing = walk(str(tmp_path))
    assert listing.size_of == {"a.jpg": 5, "sub/b.jpg": 9}
    assert listing.again == tuple(f"sub/up-{link}" for link in range(num_links))


def test_a_folder_is_listed_under_its_own_name_before_a_link(tmp_path: Path) -> None:
    write(tmp_path, "inside/real/x.jpg", "outside/deep/y.jpg")
    (tmp_path / "inside" / "a-link").symlink_to("real")
    (tmp_path / "inside" / "first").symlink_to("../outside")
    (tmp_path / "inside" / "second").symlink_to("../outside/deep")
    (tmp_path / "inside" / "z.jpg").symlink_to("../outside/deep/y.jpg")
    listing = walk(str(tmp_path / "inside"))
    assert list(listing.size_of) == ["first/deep/y.jpg", "real/x.jpg", "z.jpg"]
    assert listing.again == ("a-link", "second")


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    write(tmp_path, "ok.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
    os.mkdir(os.fsencode(tmp_path) + b"/d\xe9")
    os.mkfifo(tmp_path / "pipe.jpg")
    listing = walk(str(tmp_path))
    assert listing.size_of == {"ok.jpg": 6}
    expected = {"caf\\xe9.jpg": NOT_UTF8, "d\\xe9": NOT_UTF8, "gone.jpg": DANGLING, "itself.jpg": DANGLING}
    assert listing.unusable == expected
    assert file_names(str(tmp_path)) == ["caf\\xe9.jpg", "ok.jpg"]
    assert storage.list_names(str(tmp_path)) == ["caf\\xe9.jpg", "ok.jpg"]


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/x.jpg", "closed/y.jpg")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listing = walk(str(tmp_path))
    assert (list(listing.size_of), listing.unusable) == (
        ["a/x.jpg"],
        {"closed": "a folder that cannot be read (Permission denied)"},
    )
    with pytest.raises(PermissionError):
        walk(str(tmp_path / "closed"))


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert storage.list_below(str(tmp_path / "none")) == Listing()
    assert storage.list_names(str(tmp_path / "none")) == []
    write(tmp_path, "file")
    assert storage.list_names(str(tmp_path / "file")) == []


def test_removing_a_folder_leaves_what_its_links_lead_to(tmp_path: Path) -> None:
    write(tmp_path, "kept/x.txt", "run/y.txt")
    (tmp_path / "run" / "link").symlink_to("../kept")
    Path(os.fsdecode(os.fsencode(tmp_path / "run") + b"/caf\xe9")).write_bytes(b"x")
    storage.remove_folder(str(tmp_path / "run"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert (tmp_path / "kept" / "x.txt").exists()


def test_a_folder_on_another_disk_is_emptied_and_stays_there(tmp_path: Path) -> None:
    write(tmp_path, "disk/run/y.txt", "disk/z.txt")
    (tmp_path / "runs").symlink_to("disk")
    storage.remove_folder(str(tmp_path / "runs"))
    assert (tmp_path / "runs").is_symlink()
    assert not list((tmp_path / "disk").iterdir())
