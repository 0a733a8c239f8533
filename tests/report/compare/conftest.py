"""Three runs on one dataset with odd names, as training would leave them: the second's predictions are noisier."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import yaml

from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions
from rayprob.runs.spec import Run
from tests.report.run_folders import write_run


class MakeFolder(Protocol):
    """Writes a run's folder whose predictions have some noise."""

    def __call__(self, folder: Path, noise: float = 0.0) -> str: ...


@pytest.fixture(scope="session")
def make_folder(root: str) -> MakeFolder:
    def make(folder: Path, noise: float = 0.0) -> str:
        write_run(folder, root)
        value = {
            "name": folder.name[:5],
            "folder": str(folder),
            "data": {"root": root},
            "stream": {"global_batch": 16, "loader_workers": 0},
            "transforms": {"train": {"name": "paper", "size_px": 32}, "evaluate": {"name": "resize", "size_px": 32}},
            "model": {"backbone": "squeezenet1_1"},
            "duration": {"steps": 1},
        }
        run = Run.parse(value).model_dump(mode="json")
        (folder / "run.yaml").write_text(yaml.safe_dump(run))
        bundle = Bundle.load(str(folder / "bundle"))
        replace(bundle, facts={**bundle.facts, "run": run}).save(str(folder / "bundle"))
        for path in (folder / "predictions").iterdir():
            table = Predictions.read(str(path))
            random = np.random.default_rng(0)
            table.outputs["logits"] += (noise * random.normal(size=table.targets_NL.shape)).astype(np.float32)
            table.write(str(path))
        return str(folder)

    return make


@pytest.fixture(scope="session")
def folders(make_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    base = tmp_path_factory.mktemp("compared")
    return tuple(
        make_folder(base / name, noise) for name, noise in (("first", 0.0), ("other [b] $x$ :cat:", 4.0), ("third", 0.0))
    )
