"""The tiny dataset of tests/train, and sweeps on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayprob.sweep.search import Sweep
from tests.train.conftest import MakeRun, make_run, tiny

__all__ = ["make_run", "tiny"]

MakeSweep = Callable[..., Sweep]
LR = {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}}


@pytest.fixture
def make_sweep(make_run: MakeRun, tmp_path: Path) -> MakeSweep:
    """A sweep over the learning rate in `tmp_path/sweep`; `changes` are keys of its search, `run` those of its run file."""

    def make(run: dict[str, Any] | None = None, **changes: Any) -> Sweep:
        base = {**make_run(tmp_path / "sweep").model_dump(mode="json", exclude_none=True), **(run or {})}
        value = {**base, "search": {"metric": "mAP", "trials": 4, "space": LR, **changes}}
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(value))
        return Sweep.read(file)

    return make
