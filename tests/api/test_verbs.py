"""The verbs as functions: their defaults are those of the command line, Ctrl-C has a reason, and scripts need no guard."""

import inspect
import multiprocessing.spawn
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rayprob as rp
from rayprob.api import verbs
from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.loader import workers
from rayprob.processes import without_main
from rayprob.scenes.generate import ScenesSpec
from rayprob.sweep.tune import Swept
from rayprob.train.loop import Outcome
from tests.train.conftest import MakeRun

STOPPED = Outcome("stopped", 40, 100, None, None)


def defaults(function: Any) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


@pytest.mark.parametrize(
    ("function", "spec", "left_out"),
    [(rp.calibrate, CalibrateSpec, {"num_folds", "seed"}), (rp.draw_scenes, ScenesSpec, set())],
)
def test_keywords_have_the_names_and_defaults_of_the_spec(function: Any, spec: Any, left_out: set[str]) -> None:
    stated = {name: field.default for name, field in spec.model_fields.items()}
    found = {name: value for name, value in defaults(function).items() if name not in ("num_processes", "on_progress")}
    assert found == {name: value for name, value in stated.items() if name not in left_out}


def test_keywords_reach_the_spec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[str, CalibrateSpec]] = []
    monkeypatch.setattr(verbs, "fit_on_holdout", lambda folder, spec: seen.append((folder, spec)))
    rp.calibrate(tmp_path, method="platt", alphas=[0.1], precision=0.9, objectives=["OF1"])
    assert seen == [(str(tmp_path), CalibrateSpec(method="platt", alphas=(0.1,), precision=0.9, objectives=("OF1",)))]
    with pytest.raises(rp.RayprobError, match="precision"):
        rp.calibrate(tmp_path, precision=2)


def test_ctrl_c_raises_once_saved_and_a_stop_that_others_asked_for_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def launch(run: object, tell: Any, fresh: bool) -> Outcome:
        for kind in run:  # type: ignore[attr-defined]
            tell({"kind": kind})
        return STOPPED

    monkeypatch.setattr(verbs, "launch", launch)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 40 of 100, saved; call again to continue from there"):
        rp.train(["step", "stopping"], on_event=lambda event: events.append(event["kind"]))  # type: ignore[arg-type]
    assert events == ["step", "stopping"]
    assert rp.train(["step"]) is STOPPED  # type: ignore[arg-type]


def test_a_stopped_sweep_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    swept = Swept("runs/x", False, {"trials": [1, 2], "best": None})
    assert repr(swept) == "runs/x: stopped, 2 trials, no best yet"
    monkeypatch.setattr(verbs, "run_sweep", lambda *_, **__: swept)
    with pytest.raises(KeyboardInterrupt, match="the trials of runs/x are saved"):
        rp.tune(None)  # type: ignore[arg-type]


def test_processes_do_not_run_the_program_again(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    monkeypatch.setattr(main, "__spec__", None, raising=False)
    assert "init_main_from_path" in multiprocessing.spawn.get_preparation_data("x")
    with without_main():
        assert not {key for key in multiprocessing.spawn.get_preparation_data("x") if key.startswith("init_main")}
    assert sys.modules["__main__"] is main
    preloaded: list[list[str]] = []
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(type(context), "set_forkserver_preload", lambda self, names: preloaded.append(names))
    monkeypatch.setattr(workers, "_start_server", lambda: None)
    workers._context()
    assert preloaded == [[workers.__name__]]


def test_a_script_without_a_main_guard_draws_on_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import rayprob as rp\nprint('runs')\n"
        "print(rp.draw_scenes('scenes', num_train=3, num_val=1, size_px=64, num_labels=3, num_processes=2).images)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(rp.__file__).parents[1])}
    said = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (said.stdout, said.returncode) == ("runs\n4\n", 0), said.stderr


@pytest.mark.slow
def test_a_script_without_a_main_guard_trains_stops_at_ctrl_c_and_evaluates(tmp_path: Path, make_run: MakeRun) -> None:
    stream = {"global_batch": 16, "lanes": 4, "window_shards": 2, "loader_workers": 1}
    for name, steps in (("endless", 100_000), ("short", 2)):
        run = make_run(tmp_path / name, stream=stream, duration={"steps": steps}, evaluation={"every": {"steps": steps}})
        (tmp_path / f"{name}.yaml").write_text(run.to_yaml())
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\nimport rayprob as rp\nprint('begins')\nsent = []\n"
        "def interrupt(event):\n"
        "    if event['kind'] == 'start' and not sent:\n"
        "        sent.append(os.kill(os.getpid(), signal.SIGINT))\n"
        "try:\n    rp.train(rp.Run.read('endless.yaml'), on_event=interrupt)\n"
        "except KeyboardInterrupt as stopped:\n    print(stopped)\n"
        "print(rp.train(rp.Run.read('short.yaml')).ending, rp.evaluate('short').num_samples)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(rp.__file__).parents[1])}
    said = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    begins, stopped, evaluated = said.stdout.splitlines() or [said.stderr] * 3
    assert (begins, evaluated, said.returncode) == ("begins", "finished 40", 0), said.stderr
    assert stopped.startswith("stopped at step ")
    assert stopped.endswith(" of 100000, saved; call again to continue from there")
    assert list((tmp_path / "endless" / "checkpoints").iterdir())
