"""The verbs of the command line as functions: they return typed results, log, and never print.

Ctrl-C, or a notebook's interrupt, does what it does on the command line: `train` and `tune` save, then raise KeyboardInterrupt,
whose message names where they stopped; the same call continues from there.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import CalibrationReport
from rayprob.calibrate.fitting import calibrate as fit_on_holdout
from rayprob.data.building.build import BuildProgress, Summary, build, in_process, on_ray
from rayprob.data.building.recipe import Recipe
from rayprob.runs.spec import Run
from rayprob.scenes.generate import ScenesSpec, ScenesSummary, generate_scenes
from rayprob.sweep.search import Sweep
from rayprob.sweep.tune import Swept, run_sweep
from rayprob.train.assess import Assessment, assess
from rayprob.train.launch import launch
from rayprob.train.loop import Outcome

Folder = str | os.PathLike[str]
Event = dict[str, Any]


def draw_scenes(
    folder: Folder,
    *,
    num_train: int = 4000,
    num_val: int = 1000,
    size_px: int = 160,
    num_labels: int = 80,
    seed: int = 0,
    label_noise: float = 0.0,
    num_processes: int = 1,
    on_progress: Callable[[int], None] = lambda num_images: None,
) -> ScenesSummary:
    """Draw a dataset in the layout of COCO-2014, with COCO's labels in their real co-occurrence, as `rayprob scenes` does.

    `folder` must be new or empty, or hold an unfinished call with the same arguments, which is continued. `size_px` is the long
    side of the images; equal arguments give equal bytes, whatever `num_processes`. `on_progress` gets the number of images
    drawn since it was last called.

    Raises SpecError for a number out of range, SourceError for a folder with something else, StorageError for one that cannot
    be written.

    Example::

        rp.draw_scenes("scenes", num_train=1000, num_val=200, size_px=128, num_labels=20)
    """
    asked = {"num_train": num_train, "num_val": num_val, "size_px": size_px, "num_labels": num_labels}
    spec = ScenesSpec.parse({**asked, "seed": seed, "label_noise": label_noise}, where="scenes")
    return generate_scenes(os.fspath(folder), spec, num_processes=num_processes, on_progress=on_progress)


def shard(
    recipe: Recipe, *, use_ray: bool = True, on_progress: Callable[[BuildProgress], None] = lambda progress: None
) -> Summary:
    """Build the dataset of a recipe as WebDataset shards in `recipe.root`, or continue a stopped build; as `rayprob shard`.

    Shards are written by Ray tasks, on the cluster of RAY_ADDRESS or all cores of this machine; with `use_ray=False` one after
    the other in this process, which is faster for a few thousand images. `on_progress` gets the shards and images done.

    Raises SourceError for annotations or images that cannot be used, DatasetError for too many rejected images or a folder with
    another dataset, StorageError, and RunError where the cluster does not answer.

    Example::

        recipe = rp.Recipe.read("shards/coco2014.yaml")
        rp.shard(recipe)
        rp.Dataset.open(recipe.root)
    """
    return build(recipe, run_tasks=on_ray() if use_ray else in_process, on_progress=on_progress)


def train(run: Run, *, fresh: bool = False, on_event: Callable[[Event], None] = lambda event: None) -> Outcome:
    """Train a run, or resume it from its last checkpoint, as `rayprob train` does; everything lies in `run.run_folder`.

    One worker trains in a process of its own, several train on Ray. A finished run returns at once; `fresh=True` removes its
    folder and starts over. `on_event` gets dictionaries whose `kind` is, among others, `launch`, `start`, `step` (with `step`,
    `loss`, `images_per_s`) and `evaluation` (with `step`, `mAP`, `OF1`, `nll_nats`, `is_best`); it is called in this thread,
    and an exception in it abandons the steps since the last checkpoint.

    Scripts need no `if __name__ == "__main__"`. Ctrl-C saves after the current step and raises KeyboardInterrupt; a second one
    abandons the steps since the last checkpoint.

    Raises RunError for a folder with another run and a run that failed, SpecError for parts that do not fit the dataset,
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
        raise KeyboardInterrupt(f"{at}; the same call continues from there")
    return outcome


def evaluate(
    run_folder: Folder, split: str = "val", *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Assessment:
    """Return a finished run's numbers on a split, and write `predictions/<split>.parquet`, as `rayprob evaluate` does.

    All numbers are fractions of one; thresholds come from holdout. `on_progress` gets the samples done and their number.

    Raises RunError for a folder without a finished run, DatasetError for an unknown split.

    Example::

        rp.evaluate("demo/run").at_half.mAP                 # 0.7048
    """
    return assess(os.fspath(run_folder), split, on_progress)


def calibrate(
    run_folder: Folder,
    *,
    method: str = "auto",
    prior: str = "none",
    objectives: Sequence[Literal["OF1", "CF1", "mean_F1"]] = ("OF1", "CF1"),
    smoothing: float | None = None,
    precision: float | None = None,
    alphas: Sequence[float] = (0.05, 0.1, 0.2),
    known_rate: float | None = None,
) -> CalibrationReport:
    """Fit a calibrator, thresholds and guarantees on holdout and put them into the run's bundle, as `rayprob calibrate` does.

    `method` is a calibrator by name, or `auto` for the best by cross-validated likelihood. `prior` adds a label prior: auto,
    none, coco or a file. Thresholds per label and for all labels are fitted for each of `objectives`, and for a `precision`
    where one is given; `smoothing` pulls those per label together, by default as far as cross-validation asks. `alphas` are
    the shares of missed labels that the rules `recall@ALPHA` guarantee; with `known_rate`, the share of present labels that the
    annotations state, they cover the labels not stated as well.

    Raises RunError for a run without a bundle or holdout predictions, SpecError for an unknown method or a number out of range,
    CalibrationError where the holdout is too small.

    Example::

        report = rp.calibrate("demo/run", precision=0.9)
        report.holdout.after.ECE                            # 0.012
    """
    asked: dict[str, object] = {"method": method, "prior": prior, "objectives": list(objectives), "smoothing": smoothing}
    asked |= {"precision": precision, "alphas": list(alphas), "known_rate": known_rate}
    return fit_on_holdout(os.fspath(run_folder), CalibrateSpec.parse(asked, where="calibrate"))


def tune(sweep: Sweep, *, fresh: bool = False, on_event: Callable[[Event], None] = lambda event: None) -> Swept:
    """Train the trials of a sweep on Ray Tune, or resume it, as `rayprob tune` does; everything lies in `sweep.folder`.

    A finished trial is never repeated; `fresh=True` removes the sweep's folder and starts over. `on_event` gets dictionaries
    whose `kind` is, among others, `launch`, `trial`, `result` and `end`. Ctrl-C saves the trials under way and raises
    KeyboardInterrupt; a second one abandons them.

    Raises RunError for a folder with another sweep, SpecError, DatasetError.

    Example::

        swept = rp.tune(rp.Sweep.read("tune_configs/demo-sweep.yaml"))
        swept.summary["best"]
    """
    swept = run_sweep(sweep, on_event, fresh=fresh)
    if not swept.is_finished:
        raise KeyboardInterrupt(f"stopped; the trials of {swept.folder} are saved; the same call continues from there")
    return swept
