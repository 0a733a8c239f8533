"""MLflow's local store: a run of it per run, each row once, also across a resume, and the numbers of an evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import rayprob as rp
from rayprob.loader.order import Place
from rayprob.runs import folder
from rayprob.runs.history import History
from rayprob.runs.history_rows import read_history
from rayprob.runs.tracked import SinkNotes
from rayprob.runs.tracking.mlflow import MlflowSink, key_of
from rayprob.sweep.search import SearchSpec, Sweep
from rayprob.train import loop
from rayprob.train.assess import assess
from rayprob.train.step import take_step

mlflow = pytest.importorskip("mlflow", reason="pip install 'rayprob[mlflow]'")
pytest.importorskip("sqlalchemy")
MakeRun = Callable[..., rp.Run]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of an empty local store, whose tables take seconds to create."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(store: str) -> Any:
    return mlflow.MlflowClient(store)


def runs_of(client: Any, experiment: str) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def points(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


@pytest.fixture(scope="module")
def resumed(make_run: MakeRun, store: str, tmp_path_factory: pytest.TempPathFactory) -> rp.Run:
    """A run that broke two steps after its first checkpoint, was resumed from that, and evaluated on val."""
    run = make_run(
        tmp_path_factory.mktemp("run"),
        tracking={"mlflow": {"uri": store, "experiment": "resumed"}},
        log_every_steps=1,
        duration={"steps": 6},
        evaluation={"every": {"steps": 3}, "micro_batch": 20},
    )
    folder.claim(run, run.data.open())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_step", breaks_at_step(6))
        with pytest.raises(OSError, match="unplugged"):
            loop.fit(run, Place(), torch.device("cpu"))
    assert max(row["step"] for row in read_history(run.run_folder)) > 3
    assert loop.fit(run, Place(), torch.device("cpu")).ending == "finished"
    assess(run.run_folder, "val")
    return run


def breaks_at_step(number: int) -> Callable[..., Any]:
    def step(job: Any, batches: Any) -> Any:
        if job.state.progress.step + 1 == number:
            raise OSError("unplugged")
        return take_step(job, batches)

    return step


def test_a_resumed_run_is_one_run_with_each_row_once(resumed: rp.Run, client: Any) -> None:
    (tracked,) = runs_of(client, "resumed")
    assert (tracked.info.run_name, tracked.info.status) == ("tiny", "FINISHED")
    rows = read_history(resumed.run_folder)
    for kind, name in (("step", "loss"), ("step", "lr"), ("evaluation", "mAP"), ("evaluation", "nll_nats")):
        assert points(client, tracked, f"{kind}/{name}") == [(row["step"], row[name]) for row in rows if row["kind"] == kind]
    aps = [row["ap"]["red"] for row in rows if row["kind"] == "evaluation"]
    assert [value for _, value in points(client, tracked, "evaluation/ap/red")] == aps


def test_the_run_file_is_its_parameters_and_what_it_came_from_its_tags(resumed: rp.Run, client: Any) -> None:
    (tracked,) = runs_of(client, "resumed")
    parameters, tags = tracked.data.params, tracked.data.tags
    assert (parameters["optimizer.lr"], parameters["model.backbone"], parameters["seed"]) == ("0.001", "squeezenet1_1", "0")
    assert not [name for name in parameters if name.startswith("tracking")]
    assert tags["rayprob.dataset_fingerprint"] == resumed.data.open().fingerprint
    assert (tags["rayprob.version"], tags["rayprob.torch"]) == (rp.__version__, torch.__version__.partition("+")[0])
    (dataset,) = [given.dataset for given in tracked.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("built", resumed.data.open().fingerprint)
    assert (tags["rayprob.device"], tags["rayprob.world_size"]) == ("cpu", "1")


def test_the_numbers_of_an_evaluation_are_added_once(resumed: rp.Run, client: Any) -> None:
    found = assess(resumed.run_folder, "val")
    (tracked,) = runs_of(client, "resumed")
    assert points(client, tracked, "val/mAP") == [(0, found.at_half.mAP)]
    assert tracked.data.metrics["val/OF1"] == found.at_half.OF1


def test_the_bundle_does_not_tell_where_the_run_was_tracked(resumed: rp.Run) -> None:
    texts = [path.read_text() for path in Path(resumed.run_folder, "bundle").glob("*.json")]
    assert texts
    assert not [text for text in texts if "mlflow" in text]


@pytest.mark.parametrize(
    ("owner", "name"), [(MlflowSink, "_log_parameters"), (MlflowSink, "_log_dataset"), (SinkNotes, "keep")]
)
def test_a_call_that_fails_after_the_run_was_created_does_not_create_another(
    make_run: MakeRun, store: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    run = make_run(tmp_path, tracking={"mlflow": {"uri": store, "group": f"{name} fails"}})
    folder.claim(run, run.data.open())
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails(2, getattr(owner, name)))
        record_steps(run, 0, 1, 2, 3)
    (tracked,) = runs_of(client, f"{name} fails")
    assert tracked.info.status == "FINISHED"
    record_steps(run, 3, 4)
    (tracked,) = runs_of(client, f"{name} fails")
    assert [step for step, _ in points(client, tracked, "step/loss")] == [1, 2, 3, 4]
    assert tracked.data.params["optimizer.lr"] == "0.001"
    assert [given.dataset.name for given in tracked.inputs.dataset_inputs] == ["built"]


def test_rows_that_failed_are_sent_at_the_next_start_and_no_others(
    make_run: MakeRun, store: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, tracking={"mlflow": {"uri": store, "group": "rows fail"}})
    with monkeypatch.context() as patch:
        patch.setattr(MlflowSink, "_log", fails_at({2, 3}, MlflowSink._log))
        record_steps(run, 0, 1, 2, 3, 4)
    record_steps(run, 4, 5)
    (tracked,) = runs_of(client, "rows fail")
    assert sorted(step for step, _ in points(client, tracked, "step/loss")) == [1, 2, 3, 4, 5]
    assert [step for step, _ in points(client, tracked, "evaluation/elapsed_s")] == [0, 4]


def fails_at(steps: set[int], method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that fails at some steps."""

    def called(*args: Any, step: int = 0, **values: Any) -> Any:
        if step in steps:
            raise OSError("no route to the service")
        return method(*args, step=step, **values)

    return called


def fails(times: int, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method whose first calls fail."""
    faults = iter(range(times))

    def called(*args: Any) -> Any:
        if next(faults, None) is not None:
            raise OSError("no route to the service")
        return method(*args)

    return called


def record_steps(run: rp.Run, start: int, *steps: int) -> None:
    history = History(run.run_folder, start, run)
    history.record("evaluation", start, {"mAP": float("nan"), "elapsed_s": 0.5})
    for step in steps:
        history.record("step", step, {"loss": 1 / step})
    history.close()


@pytest.mark.parametrize(("ending", "status"), [("early", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED")])
def test_a_run_ends_as_the_training_did(
    make_run: MakeRun, store: str, client: Any, tmp_path: Path, ending: str, status: str
) -> None:
    run = make_run(tmp_path, tracking={"mlflow": {"uri": store, "group": f"ends {ending}"}})
    History(run.run_folder, 0, run).close(ending)
    assert [found.info.status for found in runs_of(client, f"ends {ending}")] == [status]


def test_the_trials_of_a_sweep_share_an_experiment_of_its_name(make_run: MakeRun, store: str, tmp_path: Path) -> None:
    search = SearchSpec.parse({"metric": "mAP", "space": {"optimizer.lr": {"grid": [0.1, 0.2]}}}, where="search")
    sweep = Sweep(run=make_run(tmp_path, tracking={"mlflow": store}), search=search)
    trial = sweep.trial_run(1, {"optimizer.lr": 0.2})
    assert trial.tracking["mlflow"].model_dump() == {"uri": store, "experiment": None, "group": "tiny"}
    assert trial.name == "tiny-001"


def test_every_name_has_a_key_of_its_own_that_mlflow_takes(client: Any) -> None:
    from mlflow.utils.validation import _validate_metric_name

    names = ["a [b]", "a (b)", "a_b", "été", "/a", "a//b", "..", "x" * 300, "x" * 301, "a b", "日本", "a\nb"]
    keys = [key_of(f"evaluation/ap/{name}") for name in names]
    assert len({*keys}) == len(names)
    for key in keys:
        _validate_metric_name(key)
    assert key_of("evaluation/ap/hot_dog") == "evaluation/ap/hot_dog"
