"""Several datasets of which some have grown: the version of each is found by the fingerprint that they had together."""

import itertools
from pathlib import Path

import pytest

from rayprob.data.joined import dataset as joined
from rayprob.data.joined.dataset import at_versions, joined_fingerprint, open_datasets
from rayprob.data.manifest.dataset import Dataset
from tests.data.building.test_grow import gain, grow
from tests.data.small_source import write_source


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The versions of three datasets, as ROOT@FINGERPRINT, the newest last."""
    found = []
    for name, growths in (("a", 2), ("b", 1), ("c", 0)):
        folder = tmp_path_factory.mktemp(name)
        source = write_source(folder)
        fingerprints = [source.build(seed=len(found)).facts["fingerprint"]]
        for first in range(300, 300 + 10 * growths, 10):
            gain(source, range(first, first + 5))
            fingerprints.append(grow(source, seed=len(found)).facts["fingerprint"])
        found.append([f"{source.built}@{fingerprint}" for fingerprint in fingerprints])
    return found


def newest(root: str) -> str:
    folder = root.partition("@")[0]
    return folder if Dataset.open(folder).fingerprint == Dataset.open(root).fingerprint else root


def test_each_combination_of_versions_is_found_by_its_fingerprint(versions: list[list[str]]) -> None:
    roots = [root.partition("@")[0] for root, *_ in versions]
    for combination in itertools.product(*versions):
        fingerprint = open_datasets(combination, (1, 1, 1)).fingerprint
        assert at_versions(roots, fingerprint) == tuple(map(newest, combination))
        assert open_datasets(at_versions(roots, fingerprint), (1, 1, 1)).fingerprint == fingerprint


def test_a_version_that_is_asked_for_stays_and_one_that_never_was_changes_nothing(versions: list[list[str]]) -> None:
    roots = [root.partition("@")[0] for root, *_ in versions]
    fixed = [versions[0][0], *roots[1:]]
    first = open_datasets([some[0] for some in versions], (1, 1, 1)).fingerprint
    assert at_versions(fixed, first) == (versions[0][0], versions[1][0], roots[2])
    second = joined_fingerprint([versions[0][1][-16:], *(root[-16:] for root, *_ in versions[1:])])
    assert at_versions(roots, second)[0] == versions[0][1]
    assert at_versions(fixed, second) == tuple(fixed)
    for fingerprint in ("0" * 16, None, 7):
        assert at_versions(roots, fingerprint) == tuple(roots)


def test_too_many_combinations_are_left_alone(versions: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [root.partition("@")[0] for root, *_ in versions]
    monkeypatch.setattr(joined, "MOST_COMBINATIONS", 5)
    assert at_versions(roots, open_datasets([some[0] for some in versions], (1, 1, 1)).fingerprint) == tuple(roots)


def test_files_that_are_no_versions_are_passed_over(versions: list[list[str]]) -> None:
    roots = [root.partition("@")[0] for root, *_ in versions]
    Path(roots[0], "versions", "notes.json").write_text("{}")
    assert at_versions(roots, open_datasets([some[0] for some in versions], (1, 1, 1)).fingerprint)[0] == versions[0][0]
