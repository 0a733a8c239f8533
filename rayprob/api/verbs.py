"""The commands that train, as functions: they return typed results, log, and never print.

Ctrl-C, or a notebook's interrupt, works as on the command line: `train` and `tune` save, then raise KeyboardInterrupt with a
message that states where they stopped; the same call continues from there.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import CalibrationReport
from rayprob.calibrate.fitting import calibrate as fit_on_holdout
from rayprob.runs.spec import Run
from rayprob.sweep.search import Sweep
from rayprob.sweep.tune import Swept, run_sweep
from rayprob.train.assess import Assessment, assess
from rayprob.train.launch import launch
from rayprob.train.loop import Outcome

Folder = str | os.PathLike[str]
Event = dict[str, Any]


def train(run: Run, *, fresh: bool = False, on_event: Callable[[Event], None] = lambda event: None) -> Outcome:
    """Train a run, or resume it from its last checkpoint, as `rayprob train` does; everything is written to `run.run_folder`.

    A single worker trains in its own process, several train on Ray. A finished run returns at once; `fresh=True` removes its
    folder and starts over. `on_event` gets dictionaries whose `kind` is, among others, `launch`, `start`, `step` (with `step`,
    `loss`, `images_per_s`) and `evaluation` (with `step`, `mAP`, `OF1`, `nll_nats`, `is_best`); it is called in this thread,
    and an exception in it abandons the steps since the last checkpoint.

    Scripts need no `if __name__ == "__main__"`. Ctrl-C saves after the current step and raises KeyboardInterrupt; a second one
    abandons the steps since the last checkpoint.

    Raises RunError for a folder with another run and if the run fails, SpecError for parts that do not fit the dataset,
    DatasetError, NonFiniteLoss, OutOfMemory.

    Example::

        run = rp.Run.read("tune_configs/demo.yaml", ["optimizer.lr=0.1"])
        outcome = rp.train(run, on_event=lambda e: e["kind"] == "evaluation" and print(e["mAP"]))
        outcome.best_score                                  # the best mAP on holdout, a fraction of one
    """
    kinds: set[str] = set()

    def tell(event: Event) -> None:
        kinds.add(event["kind"])
        on_event(event)

    outcome = launch(run, tell, fresh=fresh)
    if outcome.ending == "stopped" and "stopping" in kinds:
        at = f"stopped at step {outcome.step} of {outcome.total_steps}, saved"
        raise KeyboardInterrupt(f"{at}; call again to continue from there")
    return outcome


def evaluate(
    run_folder: Folder,
    split: str = "val",
    *,
    data: Folder | None = None,
    out: Folder | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Assessment:
    """Return a finished run's numbers on a split, and write `predictions/<split>.parquet`, as `rayprob evaluate` does.

    `data` is the root of another dataset; labels are matched by name, `Assessment.labels` has those that only the model or
    only the dataset has, and `run_folder` may then be that of a bundle. Its predictions are written to
    `predictions/<fingerprint of the dataset>/<split>.parquet`, or `out`.

    All numbers are fractions of one; thresholds come from holdout. `on_progress` gets the samples done and the total.

    Raises RunError for a folder without a finished run, DatasetError for an unknown split, LabelError for a dataset without
    common labels.

    Example::

        rp.evaluate("demo/run").at_half.mAP                 # 0.7048, of `make demo`
    """
    other, table = (None if path is None else os.fspath(path) for path in (data, out))
    return assess(os.fspath(run_folder), split, on_progress, data=other, out=table)


def calibrate(
    run_folder: Folder,
    *,
    method: str = "auto",
    prior: str = "auto",
    objectives: Sequence[Literal["OF1", "CF1", "mean_F1"]] = ("OF1", "CF1"),
    smoothing: float | None = None,
    precision: float | None = None,
    alphas: Sequence[float] = (0.05, 0.1, 0.2),
    known_rate: float | None = None,
) -> CalibrationReport:
    """Fit a calibrator, thresholds and guarantees on holdout and store them in the run's bundle, as `rayprob calibrate` does.

    `method` is a calibrator by name, or `auto` for the best by cross-validated likelihood. `prior` adds a label prior: auto,
    none, coco or a file. Per-label and global thresholds are fitted for each of `objectives`, and for a `precision` if
    given; `smoothing` pulls the per-label ones together, by default as far as cross-validation suggests. `alphas` are the
    shares of missed labels that the rules `recall@ALPHA` guarantee; with `known_rate`, the share of present labels that the
    annotations state, they also cover the labels that are not stated.

    Raises RunError for a run without a bundle or holdout predictions, SpecError for an unknown method or a number out of range,
    CalibrationError if the holdout is too small.

    Example::

        report = rp.calibrate("runs/quickstart")
        report.holdout.after.ECE                            # 0.0245, of examples/quickstart.py
    """
    asked: dict[str, object] = {"method": method, "prior": prior, "objectives": list(objectives), "smoothing": smoothing}
    asked |= {"precision": precision, "alphas": list(alphas), "known_rate": known_rate}
    return fit_on_holdout(os.fspath(run_folder), CalibrateSpec.parse(asked, where="calibrate"))


def tune(sweep: Sweep, *, fresh: bool = False, on_event: Callable[[Event], None] = lambda event: None) -> Swept:
    """Train the trials of a sweep on Ray Tune, or resume it, as `rayprob tune` does; everything is written to `sweep.folder`.

    A finished trial is never repeated; `fresh=True` removes the sweep's folder and starts over. `on_event` gets dictionaries
    whose `kind` is, among others, `launch`, `trial`, `result` and `end`. Ctrl-C saves the running trials and raises
    KeyboardInterrupt; a second one abandons them.

    Raises RunError for a folder with another sweep, SpecError, DatasetError.

    Example::

        swept = rp.tune(rp.Sweep.read("tune_configs/demo-sweep.yaml"))
        swept.summary["best"]
    """
    swept = run_sweep(sweep, on_event, fresh=fresh)
    if not swept.is_finished:
        raise KeyboardInterrupt(f"stopped; the trials of {swept.folder} are saved; call again to continue from there")
    return swept
