"""The loop without Ray: it learns, resumes bit for bit, stops when asked, and says where a loss broke."""

import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from rayprob.errors import NonFiniteLoss
from rayprob.files import patience
from rayprob.loader.order import Place
from rayprob.runs import folder
from rayprob.runs.bundle import Bundle
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.history_rows import read_history
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.runs.spec import Run
from rayprob.train import loop
from rayprob.train import step as stepping
from rayprob.train.assess import assess
from rayprob.train.job import label_mixture, prepare, prevalence
from rayprob.train.loop import Outcome, fit
from tests.loader.s3 import ask_once, serve
from tests.ranks import run_ranks

CPU = torch.device("cpu")
MakeRun = Callable[..., Run]


def start(run: Run, report: Callable[[dict[str, Any]], None] = lambda numbers: None) -> Outcome:
    os.makedirs(run.run_folder, exist_ok=True)
    (Path(run.run_folder) / "run.yaml").write_text(run.to_yaml())
    return fit(run, Place(), CPU, report)


@pytest.fixture(scope="module")
def finished(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The default run, trained without a disturbance; tests only read it."""
    run = make_run(tmp_path_factory.mktemp("finished"))
    start(run)
    return run


# A log line is a mean over steps, of which some may lie before a stop.
DROPOUT: dict[str, Any] = {"model": {"backbone": "squeezenet1_1", "head": {"dropout": 0.3}}, "log_every_steps": 4}


@pytest.fixture(scope="module")
def finished_with_dropout(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that draws random numbers in every step, trained without a disturbance; tests only read it."""
    run = make_run(tmp_path_factory.mktemp("dropout"), **DROPOUT)
    start(run)
    return run


def last_tensors(run: Run) -> dict[str, Any]:
    checkpoint = latest(list_checkpoints(run.run_folder))
    assert checkpoint
    return checkpoint.load()


def assert_equal_states(left: Any, right: Any) -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal_states(left[key], right[key])
    elif isinstance(left, list):
        for one, other in zip(left, right, strict=True):
            assert_equal_states(one, other)
    else:
        assert left == right


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in read_history(run.run_folder) if row["kind"] == "step"]


def test_a_run_learns_and_leaves_everything_in_its_folder(make_run: MakeRun, tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = []
    run = make_run(tmp_path, duration={"steps": 80}, evaluation={"every": {"steps": 40}})
    outcome = start(run, reported.append)
    assert outcome.ending == "finished"
    assert outcome.best_score is not None
    assert outcome.best_score > 0.8
    assert [numbers["step"] for numbers in reported] == [40, 80]
    assert losses(run)[-1] < losses(run)[0] / 2
    bundle = Bundle.load(str(tmp_path / "bundle"))
    assert bundle.label_space.names == ("red", "green", "blue", "bright")
    assert bundle.facts["step"] == outcome.best_step
    assert len(Predictions.read(str(tmp_path / "predictions" / "holdout.parquet"))) > 10
    numbers = assess(str(tmp_path), "val")
    assert numbers.num_samples == 40
    assert numbers.at_half.mAP > 0.8
    assert numbers.at_threshold.OF1 > 0.6
    assert json.loads(json.dumps(numbers.to_dict()))["ap"].keys() == {"red", "green", "blue", "bright"}


def test_a_removed_bundle_is_written_again_without_training(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    start(run)
    before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    steps_taken = len(losses(run))
    shutil.rmtree(tmp_path / "bundle")
    assert start(run).ending == "finished"
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == before
    assert len(losses(run)) == steps_taken


@pytest.mark.parametrize("stop_at", [1, 5, 6, 8])
def test_a_run_stopped_at_any_step_ends_bit_identical(
    finished_with_dropout: Run, make_run: MakeRun, tmp_path: Path, stop_at: int
) -> None:
    stopped = make_run(tmp_path, **DROPOUT)
    original = loop.take_step

    def asking(job: Any, batches: Any) -> Any:
        if job.state.progress.step + 1 == stop_at:
            folder.ask_to_stop(stopped.run_folder)
        return original(job, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_step", asking)
        outcome = start(stopped)
    assert outcome.ending == "stopped"
    assert stop_at <= outcome.step <= stop_at + 1
    (tmp_path / "stop").unlink()
    assert start(stopped).ending == "finished"
    assert_equal_states(last_tensors(finished_with_dropout), last_tensors(stopped))
    assert losses(finished_with_dropout) == losses(stopped)


MIXTURE: dict[str, Any] = {
    "model": {"backbone": "squeezenet1_1", "norm": "frozen", "head": {"name": "mixture", "components": 3, "rank": 1}},
    "loss": {"name": "mixture"},
}


def test_a_mixture_head_learns_end_to_end_and_counts_its_components(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path, **MIXTURE, duration={"steps": 60}, evaluation={"every": {"steps": 30}})
    outcome = start(run)
    assert outcome.best_score is not None
    assert outcome.best_score > 0.8
    evaluations = [row for row in read_history(run.run_folder) if row["kind"] == "evaluation"]
    assert all(1 <= row["components_in_use"] <= 3 for row in evaluations)
    predictions = Predictions.read(str(tmp_path / "predictions" / "holdout.parquet"))
    assert predictions.outputs["component_logits"].shape == (len(predictions), 3, 4)
    assert assess(str(tmp_path), "val").at_half.mAP > 0.8


def test_a_mixture_run_starts_from_the_label_sets_of_its_training_split(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path, **MIXTURE)
    job = prepare(run, Place(), CPU)
    assert job.history
    job.history.close()
    head = job.state.classifier.head
    train_split = job.dataset.split("train")
    mixing_K, probabilities_KL = label_mixture(run, train_split)
    assert np.allclose(torch.softmax(head.mixing.bias, 0).detach().numpy(), mixing_K, atol=1e-6)
    assert np.allclose(torch.sigmoid(head.offsets).detach().numpy().reshape(3, 4), probabilities_KL, atol=1e-6)
    assert np.allclose(mixing_K @ probabilities_KL, prevalence(train_split), atol=0.03)


def test_a_stopped_mixture_run_ends_bit_identical(make_run: MakeRun, tmp_path: Path) -> None:
    undisturbed, stopped = make_run(tmp_path / "one", **MIXTURE), make_run(tmp_path / "two", **MIXTURE)
    start(undisturbed)
    folder.ask_to_stop(stopped.run_folder)
    assert start(stopped).ending == "stopped"
    (tmp_path / "two" / "stop").unlink()
    assert start(stopped).ending == "finished"
    assert_equal_states(last_tensors(undisturbed), last_tensors(stopped))
    assert losses(undisturbed) == losses(stopped)


class Killed(BaseException):
    """Stands for a power cut: nothing in the package may catch it."""


def test_a_run_killed_between_checkpoints_ends_bit_identical(finished: Run, make_run: MakeRun, tmp_path: Path) -> None:
    killed = make_run(tmp_path, checkpoint={"every_steps": 4})
    original = loop.take_step

    def dying(job: Any, batches: Any) -> Any:
        if job.state.progress.step == 10:
            raise Killed
        return original(job, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_step", dying)
        with pytest.raises(Killed):
            start(killed)
    assert [c.step for c in list_checkpoints(killed.run_folder)] == [6, 8]
    start(killed)
    assert_equal_states(last_tensors(finished), last_tensors(killed))
    assert losses(finished) == losses(killed)


@pytest.mark.slow
def test_a_run_on_a_remote_store_keeps_every_row_through_an_outage_and_a_kill(
    finished: Run, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(Path("unused"), checkpoint={"every_steps": 4}).model_copy(update={"folder": "s3://shards/run"})
    original = loop.take_step

    with serve(tmp_path, monkeypatch) as store:
        ask_once(store, monkeypatch)

        def troubled(job: Any, batches: Any) -> Any:
            if job.state.progress.step == 3 and not store.outage:
                store.outage = 503
                threading.Timer(1, setattr, (store, "outage", 0)).start()
            if job.state.progress.step == 10:
                raise Killed
            return original(job, batches)

        with pytest.MonkeyPatch.context() as patch, patience.patient(60):
            patch.setattr(loop, "take_step", troubled)
            with pytest.raises(Killed):
                fit(run, Place(), CPU)
        assert "HTTP status 503" in caplog.text
        assert [c.step for c in list_checkpoints(run.run_folder)] == [6, 8]
        fit(run, Place(), CPU)
        assert_equal_states(last_tensors(finished), last_tensors(run))
        assert losses(finished) == losses(run)


def test_gradient_accumulation_changes_nothing_but_rounding(make_run: MakeRun, tmp_path: Path) -> None:
    whole = make_run(tmp_path / "one", duration={"steps": 4})
    parts = make_run(tmp_path / "two", duration={"steps": 4}, placement={"micro_batch": 4})
    for run in (whole, parts):
        start(run)
    assert losses(whole) == pytest.approx(losses(parts), rel=1e-5)


def _rank(rank: int, world_size: int, run: dict[str, Any], meeting: str) -> None:
    dist.init_process_group("gloo", meeting, rank=rank, world_size=world_size)
    fit(Run.model_validate(run), Place(rank, world_size, world_size), CPU)
    dist.destroy_process_group()


def spawn_ranks(target: Callable[..., None], world_size: int, run: Run, *arguments: int) -> None:
    """Run `target` in a process per rank; they meet in a file, which cannot be taken as a port can."""
    with tempfile.TemporaryDirectory() as folder:
        run_ranks(target, world_size, world_size, run.model_dump(mode="json"), f"file://{folder}/meeting", *arguments)


def test_two_ranks_see_the_losses_and_predictions_of_one(finished: Run, make_run: MakeRun, tmp_path: Path) -> None:
    two = make_run(tmp_path)
    spawn_ranks(_rank, 2, two)
    assert losses(finished) == pytest.approx(losses(two), rel=1e-3)
    left, right = (Predictions.read(f"{run.run_folder}/predictions/holdout.parquet") for run in (finished, two))
    assert np.array_equal(left.sample_ids_N, right.sample_ids_N)
    assert np.allclose(left.outputs["logits"], right.outputs["logits"], atol=2e-3)


def _rank_until(rank: int, world_size: int, run: dict[str, Any], meeting: str, until: int) -> None:
    dist.init_process_group("gloo", meeting, rank=rank, world_size=world_size)
    original = loop.take_step

    def noting(job: Any, batches: Any) -> Any:
        step = job.state.progress.step
        if step == until and rank == 0:
            folder.ask_to_stop(job.run.run_folder)
        ids = [batch.sample_ids_B.tolist() for batch in batches]
        with open(f"{job.run.run_folder}/seen-{rank}.jsonl", "a") as file:
            file.write(json.dumps([step, *ids]) + "\n")
        return original(job, batches)

    loop.take_step = noting
    fit(Run.model_validate(run), Place(rank, world_size, world_size), CPU)
    dist.destroy_process_group()


def seen(run: Run) -> dict[int, set[tuple[int, ...]]]:
    """Return the micro batches of each step, over all ranks; a step that was taken again must have met the same."""
    found: dict[int, dict[int, list[tuple[int, ...]]]] = {}
    for path in Path(run.run_folder).glob("seen-*.jsonl"):
        for line in path.read_text().splitlines():
            step, *ids = json.loads(line)
            found.setdefault(step, {}).setdefault(int(path.stem[5:]), []).extend(map(tuple, ids))
    return {step: set(itertools.chain(*by_rank.values())) for step, by_rank in found.items()}


@pytest.mark.slow
def test_an_elastic_run_sees_the_same_micro_batches_and_losses_with_any_number_of_ranks(
    make_run: MakeRun, tmp_path: Path
) -> None:
    stream = {"global_batch": 12, "lanes": 6, "loader_workers": 0}
    elastic = {**DROPOUT, "placement": {"num_workers": [1, 3]}, "stream": stream, "duration": {"steps": 8}}
    constant, changing = (make_run(tmp_path / name, **elastic) for name in ("constant", "changing"))
    for run, phases in ((constant, [(1, 99)]), (changing, [(3, 3), (2, 99)])):
        os.makedirs(run.run_folder)
        for world_size, until in phases:
            spawn_ranks(_rank_until, world_size, run, until)
            Path(RunFolder(run.run_folder).stop).unlink(missing_ok=True)
    starts = [row["world_size"] for row in read_history(changing.run_folder) if row["kind"] == "start"]
    assert starts == [3, 2]
    assert seen(changing) == seen(constant)
    assert all(len(batches) == 3 for batches in seen(constant).values())
    assert losses(changing) == pytest.approx(losses(constant), rel=1e-3)


@pytest.mark.parametrize(("quiet", "at"), [(2, 4), (4, 6)])
def test_a_notice_of_an_end_is_written_down_and_saved_before_anything_else(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: int, at: int
) -> None:
    monkeypatch.setattr(stepping, "HEED_EVERY_S", 0.0)
    run = make_run(tmp_path)
    notices = iter([*[None] * quiet, {"nodes": ["ab12"], "ranks": [0], "seconds_left": 30.0}])
    saves: list[int | None] = []
    monkeypatch.setattr(loop, "evaluate", lambda *rest, before=loop.evaluate: (saves.append(None), before(*rest)))
    monkeypatch.setattr(
        loop, "save", lambda job, score, before=loop.save: (saves.append(job.state.progress.step), before(job, score))
    )
    os.makedirs(run.run_folder, exist_ok=True)
    fit(run, Place(), CPU, heed=lambda: next(notices, None))
    rows = [row for row in read_history(run.run_folder) if row["kind"] == "notice"]
    assert [(row["nodes"], row["seconds_left"]) for row in rows] == [(["ab12"], 30.0)]
    assert rows[0]["step"] == at
    assert saves[:3] == [at, None, 6]


def test_a_loss_that_is_not_finite_names_its_step_and_samples(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path, optimizer={"name": "sgd", "lr": 1e12, "momentum": 0.0})
    with pytest.raises(
        NonFiniteLoss, match=r"the loss of step \d+ is not finite, from \d+ samples?: \d+, .*lower optimizer.lr"
    ):
        start(run)
    checkpoint = latest(list_checkpoints(run.run_folder))
    assert checkpoint is None or checkpoint.step == 6


def test_training_stops_early_when_evaluations_get_no_better(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path, evaluation={"every": {"steps": 2}, "patience": 2, "min_gain": 1.0}, duration={"steps": 40})
    outcome = start(run)
    assert (outcome.ending, outcome.step, outcome.best_step) == ("early", 6, 2)
    assert start(run).ending == "early"


@pytest.mark.parametrize("precision", [{"autocast": "bf16"}, {"channels_last": False}, {"compile": True}])
def test_other_arithmetic_stays_near_float32(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: dict[str, Any]
) -> None:
    # The real graph capture, without the minutes that generating C++ takes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = make_run(tmp_path / "one", duration={"steps": 2})
    other = make_run(tmp_path / "two", duration={"steps": 2}, precision=precision)
    for run in (plain, other):
        start(run)
    assert losses(plain) == pytest.approx(losses(other), rel=0.05)
    assert list_checkpoints(other.run_folder)[-1].load()["classifier"].keys() == last_tensors(plain)["classifier"].keys()


def test_a_damaged_newest_checkpoint_costs_steps_and_no_bit(
    finished: Run, make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, checkpoint={"every_steps": 2})
    start(run, stop_after(run, step=6))
    (Path(run.run_folder) / "stop").unlink()
    checkpoints = sorted(Path(run.run_folder, "checkpoints").glob("*.pt"))
    assert len(checkpoints) >= 2
    checkpoints[-1].write_bytes(checkpoints[-1].read_bytes()[:-100])
    start(run)
    assert f"using the checkpoint of step {int(checkpoints[-2].stem.removeprefix('step-'))} instead" in caplog.text
    assert_equal_states(last_tensors(run), last_tensors(finished))


def stop_after(run: Run, step: int) -> Callable[[dict[str, Any]], None]:
    """Return a report that asks the run to stop at its evaluation after `step`."""

    def report(numbers: dict[str, Any]) -> None:
        if numbers["step"] == step:
            folder.ask_to_stop(run.run_folder)

    return report
