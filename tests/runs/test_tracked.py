"""Sinks of a run's history: what they are told, that their errors end nothing, and what run files and bundles record."""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import rayprob as rp
from rayprob.errors import SpecError
from rayprob.runs import delivery, rules
from rayprob.runs.history import History
from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import absolute, described, identity
from rayprob.runs.tracked import summarise
from rayprob.runs.tracking import SINKS, ServiceSpec, Sink, TrackedRun

MakeRun = Callable[..., rp.Run]


class NotebookSpec(ServiceSpec):
    short: ClassVar[str] = "page"

    page: str = "one"


class Notebook(Sink):
    """Keeps what it is told; fails where a test says so."""

    told: ClassVar[list[Any]] = []
    faults: ClassVar[list[str]] = []

    def __init__(self, spec: NotebookSpec, run: TrackedRun) -> None:
        self._spec, self.run = spec, run

    def open(self, known: dict[str, Any]) -> dict[str, Any]:
        self._fail("open")
        self.told.append(("open", known))
        return {"page": known.get("page", 0) + 1}

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        self._fail("record")
        self.told.append((kind, step, *values))

    def close(self, ending: str) -> None:
        self.told.append(("close", ending))

    def summarise(self, known: dict[str, Any], numbers: Mapping[str, float]) -> None:
        self._fail("summarise")
        self.told.append((known, dict(numbers)))

    def _fail(self, where: str) -> None:
        if where in self.faults:
            self.faults.remove(where)
            raise OSError(f"no route to the service ({where})")


@pytest.fixture(autouse=True)
def notebook(monkeypatch: pytest.MonkeyPatch) -> type[Notebook]:
    monkeypatch.setitem(SINKS, "notebook", Notebook)
    monkeypatch.setattr(Notebook, "told", [])
    monkeypatch.setattr(Notebook, "faults", [])
    return Notebook


def record(run: rp.Run, start: int, *steps: int, ending: str = "finished") -> None:
    history = History(run.run_folder, start, run)
    for step in steps:
        history.record("step", step, {"loss": 1 / step})
    history.close(ending)


def tracked(make_run: MakeRun, folder: Path, **options: Any) -> rp.Run:
    return make_run(folder, tracking={"notebook": options})


def test_a_sink_gets_every_row_and_the_ending(make_run: MakeRun, tmp_path: Path) -> None:
    record(tracked(make_run, tmp_path), 0, 1, 2, ending="stopped")
    assert Notebook.told == [("open", {}), ("step", 1, "loss"), ("step", 2, "loss"), ("close", "stopped")]


def test_a_later_start_gets_the_notes_of_the_first_and_all_rows_before_it(make_run: MakeRun, tmp_path: Path) -> None:
    run = tracked(make_run, tmp_path)
    record(run, 0, 1, 2, 3)
    del Notebook.told[:]
    record(run, 2, 3)
    assert Notebook.told[:4] == [("open", {"page": 1}), ("step", 1, "loss"), ("step", 2, "loss"), ("step", 3, "loss")]
    noted = json.loads((tmp_path / "tracking.json").read_text())
    assert noted == {"recorded": {"step": 3}, "sinks": {"notebook": {"page": 2}}}


def test_an_error_of_a_sink_is_told_once_and_ends_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    Notebook.faults += ["record", "record"]
    record(tracked(make_run, tmp_path), 0, 1, 2, 3)
    rows = read_history(str(tmp_path))
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 2, 3]
    (warning,) = [row["text"] for row in rows if row["kind"] == "warning"]
    assert warning.startswith("tracking.notebook: no route to the service (record); the run continues without it")
    assert [told for told in Notebook.told if told[0] == "step"] == [("step", 3, "loss")]


def test_rows_wait_for_a_service_that_cannot_be_reached_at_first(make_run: MakeRun, tmp_path: Path) -> None:
    Notebook.faults += ["open"]
    record(tracked(make_run, tmp_path), 0, 1, 2)
    assert [told for told in Notebook.told if told[0] == "step"] == [("step", 1, "loss"), ("step", 2, "loss")]


def test_a_service_that_does_not_answer_delays_the_end_by_a_bounded_time(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(delivery, "CLOSE_WAIT_S", 0.05)
    monkeypatch.setattr(Notebook, "open", lambda self, known: {"late": answers.wait(60)})
    record(tracked(make_run, tmp_path), 0, 1)
    answers.set()
    assert "did not answer within" in read_history(str(tmp_path))[-1]["text"]


def test_settings_that_cannot_work_are_refused_before_the_run_starts(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Notebook, spec: NotebookSpec, run: TrackedRun) -> None:
        raise SpecError("tracking.notebook.page is torn out")

    monkeypatch.setattr(Notebook, "__init__", refuse)
    with pytest.raises(SpecError, match="torn out"):
        record(tracked(make_run, tmp_path), 0, 1)


@pytest.mark.parametrize("service", ["mlflow", "wandb"])
def test_a_missing_package_is_refused_with_the_line_that_installs_it(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    run = make_run(tmp_path, tracking={service: "http://mlflow:5000"})
    monkeypatch.setattr(rules, "find_spec", lambda package: None)
    with pytest.raises(
        SpecError, match=rf"tracking\.{service} needs the package {service}.*pip install 'rayprob\[{service}\]'"
    ):
        rules.check(run, run.data.open(), 1)


def test_tracking_changes_neither_the_identity_of_a_run_nor_what_its_bundle_records(make_run: MakeRun, tmp_path: Path) -> None:
    plain, other = make_run(tmp_path), tracked(make_run, tmp_path, page="two")
    assert identity(other) == identity(plain)
    assert described(other) == described(plain)
    assert described(plain)["run_fingerprint"] == plain.fingerprint
    assert "tracking" not in plain.model_dump(mode="json")
    assert "tracking" not in described(other)["run"]


def test_a_text_stands_for_the_first_option_and_a_run_file_reads_back_equal(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path, tracking={"notebook": "two"})
    assert run == tracked(make_run, tmp_path, page="two")
    assert rp.Run.read_text(run.to_yaml(), where="run.yaml") == run
    assert run.model_dump(mode="json")["tracking"] == {"notebook": {"group": None, "page": "two"}}
    assert make_run(tmp_path, tracking={"notebook": None}) == tracked(make_run, tmp_path)


@pytest.mark.parametrize(
    ("tracking", "fault"),
    [
        ({"mlfow": "http://m"}, "tracking: unknown tracking service 'mlfow'; nearest: mlflow"),
        ({"mlflow": {}}, "tracking.mlflow.uri: required, but missing"),
        ({"mlflow": {"uri": "http://m", "projekt": 1}}, "projekt"),
        ({"mlflow": "./mlruns"}, "for a local store use sqlite:///mlflow.db"),
        ({"mlflow": 3}, "tracking.mlflow"),
        (["mlflow"], "tracking: expected a mapping"),
    ],
)
def test_a_wrong_part_is_refused_by_its_key(make_run: MakeRun, tmp_path: Path, tracking: Any, fault: str) -> None:
    with pytest.raises(SpecError) as refused:
        make_run(tmp_path, tracking=tracking)
    assert fault in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["https://me:hunter2@mlflow", "https://hunter2@mlflow", "postgresql://me:hunter2@db/x", "https://m/?token=hunter2"]
)
def test_credentials_are_refused_and_not_repeated(make_run: MakeRun, tmp_path: Path, uri: str) -> None:
    with pytest.raises(SpecError, match="MLFLOW_TRACKING_TOKEN") as refused:
        make_run(tmp_path, tracking={"mlflow": uri})
    assert "hunter2" not in str(refused.value)


def test_a_local_store_is_the_same_one_for_a_worker_in_another_folder(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = absolute(make_run(tmp_path, tracking={"mlflow": "sqlite:///m.db"}))
    assert run.tracking["mlflow"].model_dump()["uri"] == f"sqlite:///{tmp_path}/m.db"
    assert absolute(run) == run


def test_numbers_of_an_evaluation_reach_the_services_that_tracked_the_run(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracked(make_run, tmp_path)
    summarise(run, {"val/mAP": 0.5})  # it was never tracked
    assert Notebook.told == []
    record(run, 0, 1)
    Notebook.faults += ["summarise"]
    summarise(run, {"val/mAP": 0.5})
    assert "the numbers of this evaluation are not in tracking: no route" in caplog.text
    summarise(run, {"val/mAP": 0.5})
    assert Notebook.told[-1] == ({"page": 1}, {"val/mAP": 0.5})
