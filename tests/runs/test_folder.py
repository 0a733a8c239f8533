"""A run's folder: whose it is, and when a run may go on in it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import NonFiniteLoss, RayprobError, RunError
from rayprob.runs import folder
from rayprob.runs.spec import Run

MakeRun = Callable[..., Run]


def test_a_run_may_claim_an_empty_folder_and_its_own(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    dataset = Dataset.open(tiny)
    run = make_run(tmp_path / "run")
    assert folder.claim(run, dataset) == folder.Claim(str(tmp_path / "run"), 0, False, True)
    assert folder.claim(make_run(tmp_path / "run", placement={"num_workers": 2}), dataset).step == 0
    assert folder.open_run(str(tmp_path / "run")).model == run.model


def test_a_claim_is_taken_back_but_not_that_of_an_earlier_start(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    dataset = Dataset.open(tiny)
    folder.let_go(folder.claim(make_run(tmp_path), dataset))
    folder.claim(make_run(tmp_path, seed=3), dataset)
    folder.let_go(folder.claim(make_run(tmp_path, seed=3), dataset))
    with pytest.raises(RunError, match="seed: 3 -> 0"):
        folder.claim(make_run(tmp_path), dataset)


def test_a_changed_run_file_is_refused_with_the_keys_that_differ(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    dataset = Dataset.open(tiny)
    folder.claim(make_run(tmp_path), dataset)
    with pytest.raises(
        RunError, match=r"differs from this one in 2 keys:\n  duration.steps: 12 -> 5\n  seed: 0 -> 3\n.*--fresh"
    ):
        folder.claim(make_run(tmp_path, seed=3, duration={"steps": 5}), dataset)


def test_a_rebuilt_dataset_is_another_run(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    dataset = Dataset.open(tiny)
    folder.claim(make_run(tmp_path), dataset)
    changed = replace(dataset, facts={**dataset.facts, "fingerprint": "0" * 16})
    with pytest.raises(RunError, match=r"dataset fingerprint: [0-9a-f]{16} -> 0{16}"):
        folder.claim(make_run(tmp_path), changed)


def test_a_folder_of_something_else_is_neither_claimed_nor_cleared(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and is not a run folder"):
        folder.claim(make_run(tmp_path), Dataset.open(tiny))
    with pytest.raises(RunError, match="is not a run folder, so --fresh does not remove it"):
        folder.clear(make_run(tmp_path))
    assert (tmp_path / "thesis.tex").exists()


def test_fresh_removes_a_run(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    folder.clear(run)
    folder.claim(run, Dataset.open(tiny))
    folder.clear(run)
    assert not (tmp_path / "run").exists()


def test_notes_are_read_and_forgotten_by_the_next_claim(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    run, dataset = make_run(tmp_path / "run"), Dataset.open(tiny)
    folder.claim(run, dataset)
    assert not folder.stop_is_asked(run.run_folder)
    folder.ask_to_stop(run.run_folder)
    folder.note_failure(run.run_folder, NonFiniteLoss("step 3"))
    assert folder.stop_is_asked(run.run_folder)
    assert folder.read_failure(run.run_folder) == {"kind": "NonFiniteLoss", "message": "step 3"}
    folder.claim(run, dataset)
    assert not folder.stop_is_asked(run.run_folder)
    assert folder.read_failure(run.run_folder) is None


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no run.yaml"):
        folder.open_run(str(tmp_path))


def test_a_damaged_run_json_says_what_to_do_wherever_it_is_cut(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    run, dataset = make_run(tmp_path / "run"), Dataset.open(tiny)
    folder.claim(run, dataset)
    path = tmp_path / "run" / "run.json"
    content = path.read_bytes()
    cuts = [content[: len(content) * part // 40] for part in range(40)]
    for damaged in (*cuts, b"[]", b"{}", b'{"identity": 3, "dataset_fingerprint": "a"}', b"[" * 50_000, b"\xff"):
        path.write_bytes(damaged)
        with pytest.raises(
            RunError, match=r"run.json.*; the file records whose folder this is: restore it from a copy, set another name,"
        ):
            folder.claim(run, dataset)


@pytest.mark.parametrize("content", [b"", b'{"kind": "Run', b"[]", b"{}", b"\xff"])
def test_a_damaged_note_of_a_failure_is_still_a_failure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "failed.json").write_bytes(content)
    failure = folder.read_failure(str(tmp_path))
    assert failure is not None
    assert "the file with the reason is damaged" in failure["message"]


@pytest.mark.parametrize("content", [b"name: [", b"\xff\xfe", b"a: &a [*a"])
def test_a_damaged_run_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(RayprobError, match=r"run.yaml (is not valid YAML: line 1|has 1 fault:\n.*expected a mapping)"):
        folder.open_run(str(tmp_path))


def test_a_fault_counts_as_repeated_only_in_another_attempt_of_the_same_rank(
    make_run: MakeRun, tiny: str, tmp_path: Path
) -> None:
    at = str(tmp_path)
    folder.claim(make_run(tmp_path), Dataset.open(tiny))
    assert not folder.note_fault(at, 0, "host:1", "ValueError: x, after step 7")
    assert not folder.note_fault(at, 1, "host:1", "ValueError: x, after step 7")
    assert not folder.note_fault(at, 0, "host:1", "ValueError: x, after step 7")
    assert folder.note_fault(at, 0, "host:2", "ValueError: x, after step 7")
    assert not folder.note_fault(at, 1, "host:2", "ValueError: x, after step 9")
    folder.claim(make_run(tmp_path), Dataset.open(tiny))  # the same command, given again, starts to count anew
    assert not folder.note_fault(at, 0, "host:3", "ValueError: x, after step 7")


@pytest.mark.parametrize("content", [b"", b'{"fault": "ValueErr', b"[]", b'{"fault": 3}', b"\xff"])
def test_a_damaged_note_of_a_fault_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fault-0.json").write_bytes(content)
    assert not folder.note_fault(str(tmp_path), 0, "host:1", "ValueError: x")
    assert folder.note_fault(str(tmp_path), 0, "host:2", "ValueError: x")
