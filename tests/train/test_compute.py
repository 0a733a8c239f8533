"""What a run sets for its process holds while it computes on a GPU, and is restored; none of this needs a GPU."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rayprob.data.manifest.dataset import Dataset
from rayprob.loader.order import Place
from rayprob.runs.folder import claim
from rayprob.runs.spec import PrecisionSpec
from rayprob.train.assess import assess
from rayprob.train.compute import Compute
from rayprob.train.loop import fit
from rayprob.train.lr_range import find_lr
from rayprob.train.refit import RefitSpec, refit
from tests.models.systems import with_patches
from tests.train.conftest import MakeRun

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def flags() -> tuple[str, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark


PYTORCHS_OWN = flags()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ("highest", True, False)),
        ({"tf32": True}, ("high", True, False)),
        ({"tf32": False}, ("highest", False, False)),
        ({"cudnn_benchmark": True}, ("highest", True, True)),
        ({"tf32": True, "cudnn_benchmark": True}, ("high", True, True)),
    ],
)
def test_settings_of_the_process_last_as_long_as_their_run(spec: dict[str, Any], expected: tuple[str, bool, bool]) -> None:
    assert PYTORCHS_OWN == ("highest", True, False)
    compute = Compute.plan(PrecisionSpec(**spec), Place(), GPU)
    with compute.settings():
        assert flags() == expected
    assert flags() == PYTORCHS_OWN
    with pytest.raises(KeyError), compute.settings():
        raise KeyError
    assert flags() == PYTORCHS_OWN


def test_settings_that_the_program_has_made_are_left_or_restored() -> None:
    torch.backends.cudnn.benchmark = True
    try:
        with Compute.plan(PrecisionSpec(), Place(), GPU).settings():
            assert flags() == ("highest", True, True)
        with Compute.plan(PrecisionSpec(cudnn_benchmark=True), Place(), GPU).settings():
            pass
        assert flags() == ("highest", True, True)
    finally:
        torch.backends.cudnn.benchmark = False


def test_a_cpu_is_left_as_it_is() -> None:
    with Compute.plan(PrecisionSpec(tf32=True, cudnn_benchmark=True), Place(), CPU).settings():
        assert flags() == PYTORCHS_OWN


def test_every_verb_that_trains_or_evaluates_computes_within_the_settings(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []

    @contextlib.contextmanager
    def noted(self: Compute) -> Iterator[None]:
        entered.append(doing)
        yield
        entered.append("end")

    monkeypatch.setattr(Compute, "settings", noted)
    with with_patches():
        run = make_run(
            tmp_path / "run", model={"backbone": "patches"}, duration={"steps": 2}, evaluation={"every": {"steps": 2}}
        )
        doing = "train"
        claim(run, Dataset.open(run.data.root))
        fit(run, Place(), CPU)
        doing = "evaluate"
        assess(run.run_folder, "val")
        doing = "refit"  # features of two splits, and the head
        refit(run.run_folder, RefitSpec.parse({"epochs": 1, "global_batch": 16, "head": {"name": "bernoulli"}}))
        doing = "lr-find"
        find_lr(run, lowest=1e-3, highest=3.0, num_steps=20)
    assert entered == ["train", "end", "evaluate", "end", *3 * ["refit", "end"], "lr-find", "end"]
