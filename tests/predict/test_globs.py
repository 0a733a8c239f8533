"""Globs give what Python's own give, where that ends."""

import glob
from pathlib import Path

import pytest

from rayprob.predict.globs import matching

FILES = ("a.jpg", "b/a.jpg", "b/c/a.jpg", "b/c/d/x.png", "c/b/a.jpg", "b/[x].jpg")
STARS = ("**", "**/*.jpg", "b/**/*.jpg", "**/c/*", "*/**/a.*", "**/b/**/a.jpg", "**/**/*.png", "b/**", "**/[[]x].jpg")
PATTERNS = (*STARS, "?/a.jpg", "*")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_the_files_that_pythons_glob_finds(tmp_path: Path, pattern: str) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    whole = f"{tmp_path}/{pattern}"
    expected = {name for name in glob.glob(whole, recursive=True) if Path(name).is_file()}
    assert {name for name in matching(whole) if Path(name).is_file()} == expected != set()
