"""Every sweep file of tune_configs/ reads, and each of its choices makes a run."""

from pathlib import Path

import pytest

from rayprob.config.spec import read_yaml
from rayprob.sweep.ledger import Ledger
from rayprob.sweep.search import Sweep
from rayprob.sweep.study import Study, Trial

FOLDER = Path(__file__).resolve().parents[2] / "tune_configs"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if "search" in read_yaml(path))


def test_the_sweeps_that_users_ask_for_are_there() -> None:
    assert {"learning_rate.yaml", "resolution.yaml", "losses.yaml", "full.yaml", "demo-sweep.yaml"} <= {*FILES}


@pytest.mark.parametrize("name", FILES)
def test_its_trials_are_runs(name: str, tmp_path: Path) -> None:
    sweep = Sweep.read(FOLDER / name, [f"folder={tmp_path}"])
    assert sweep.description
    assert f"rayprob tune tune_configs/{name}" in (FOLDER / name).read_text()
    study = Study(sweep, Ledger(sweep.folder))
    seen = []
    for _ in range(20):
        trial = study.next()
        if not isinstance(trial, Trial):
            break
        seen.append(sweep.trial_run(trial.number, trial.params, trial.seed))
        study.end(trial.number, "failed", "not trained here")
    assert len({run.fingerprint for run in seen}) == len(seen) >= 12
