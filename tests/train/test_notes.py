"""What preparing a run warns of reaches its history and its user, although workers' output stays in Ray's logs."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from rich.console import Console

from rayprob.cli.show_run import RunView, waiting_line
from rayprob.loader.order import Place
from rayprob.runs.checkpoints import save_checkpoint
from rayprob.runs.spec import Run
from rayprob.train.job import RankJob, prepare
from rayprob.train.loop import start_facts
from rayprob.train.notes import noted_warnings

MakeRun = Callable[..., Run]


def prepared(run: Run) -> RankJob:
    job = prepare(run, Place(), torch.device("cpu"))
    assert job.history
    job.history.close()
    return job


def test_warnings_are_noted_inside_and_nowhere_else() -> None:
    log = logging.getLogger("rayprob.train.something")
    with noted_warnings() as notes:
        log.warning("%d things", 3)
        log.info("nothing")
    log.warning("later")
    assert notes == ["3 things"]


def test_which_of_two_sets_of_weights_was_taken_stands_in_the_runs_first_row(make_run: MakeRun, tmp_path: Path) -> None:
    state = torchvision.models.get_model("squeezenet1_1").state_dict()
    torch.save({"model": state, "model_ema": {name: tensor + 1 for name, tensor in state.items()}}, tmp_path / "both.pth")
    model = {"backbone": "squeezenet1_1", "weights": str(tmp_path / "both.pth")}
    (note,) = start_facts(prepared(make_run(tmp_path / "one", model=model)))["notes"]
    assert "both.pth has two sets of weights: using its EMA weights (model_ema), not its raw weights (model)" in note
    chosen = model | {"weights_part": "model"}
    assert "notes" not in start_facts(prepared(make_run(tmp_path / "two", model=chosen)))


def test_a_checkpoint_that_was_passed_over_stands_in_the_row_of_the_resume(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    job = prepared(run)
    for step in (1, 2):
        job.state.progress = type(job.state.progress)(step=step)
        save_checkpoint(run.run_folder, job.state.tensors(), job.state.progress, None)
    (tmp_path / "checkpoints" / "step-00000002.pt").write_bytes(b"")
    (note,) = start_facts(prepared(run))["notes"]
    assert "step-00000002.pt cannot be read" in note
    assert "using the checkpoint of step 1 instead" in note


def test_notes_are_shown_as_they_are() -> None:
    facts = {"kind": "start", "step": 0, "steps_per_epoch": 2, "train_samples": 9, "trainable_parameters": 1e6}
    console = Console(file=io.StringIO(), width=200)
    with RunView(console) as view:
        view.tell({**facts, "total_steps": 4, "world_size": 1, "device": "cpu", "notes": ["took [/b] of x.pth"]})
    assert "took [/b] of x.pth" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("number", "words"), [(25_620, "25,620 trainable"), (99_999, "99,999 trainable"), (100_000, "0.1 M trainable")]
)
def test_a_small_head_has_its_number_of_parameters(number: int, words: str) -> None:
    facts = {"kind": "start", "step": 0, "steps_per_epoch": 2, "train_samples": 9, "trainable_parameters": number}
    console = Console(file=io.StringIO(), width=200)
    with RunView(console) as view:
        view.tell({**facts, "total_steps": 4, "world_size": 1, "device": "cpu"})
    assert words in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "resources", "words"),
    [
        (
            {},
            {"CPU": 2.0},
            "still waiting for 2 workers: they are starting, which takes longer on a busy machine; Ctrl-C stops",
        ),
        (
            {},
            {"CPU": 1.0},
            "still waiting for 2 workers with 1 CPU each; the cluster currently has 1 CPU and 0 GPUs. `ray status`",
        ),
        (
            {"use_gpu": True},
            {"CPU": 8.0, "GPU": 1.0},
            "with 1 CPU and 1 GPU each; the cluster currently has 8 CPUs and 1 GPU. ",
        ),
        ({"use_gpu": True}, {"CPU": 8.0, "GPU": 2.0}, "still waiting for 2 workers: they are starting"),
        ({"num_workers": 8, "least": 2}, {"CPU": 2.0}, "still waiting for 2 workers: they are starting"),
        (
            {"is_shared": True},
            {"CPU": 2.0},
            "with 1 CPU each: they are starting, or others use the cluster, as `ray status` shows",
        ),
    ],
)
def test_what_a_run_waits_for_depends_on_what_the_cluster_has(
    changes: dict[str, Any], resources: dict[str, float], words: str
) -> None:
    event = {"num_workers": 2, "least": None, "use_gpu": False, "cpus_per_worker": 1, "resources": resources, **changes}
    assert words in waiting_line(event)
