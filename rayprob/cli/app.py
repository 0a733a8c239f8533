"""The front door: one verb a function, and only verbs print. Heavy imports stay inside them, so that --help is fast."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rayprob.cli.cluster import doctor, submit
from rayprob.cli.prior import prior
from rayprob.cli.terminal import LogLines, Overrides, err, out, show_line, show_message, show_what_can_be_shown, status
from rayprob.cli.trained import export, predict, report
from rayprob.errors import RayprobError

app = typer.Typer(
    name="rayprob",
    help="Multi-label image classification with honest probabilities: scenes -> shard -> train -> evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def setup(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the package logs.")] = False) -> None:
    """Set up logging before any verb."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


@app.command()
def scenes(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or empty folder, such as demo/scenes.")],
    num_train: Annotated[int, typer.Option("--train", help="Images to train on.")] = 4000,
    num_val: Annotated[int, typer.Option("--val", help="Images to test on.")] = 1000,
    size_px: Annotated[int, typer.Option("--size", help="Long side of the images in pixels.")] = 160,
    num_labels: Annotated[int, typer.Option("--labels", help="How many of COCO's labels, the most prevalent first.")] = 80,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 0,
    label_noise: Annotated[float, typer.Option("--label-noise", help="Fraction of the annotated labels to falsify.")] = 0.0,
    num_processes: Annotated[int | None, typer.Option("--processes", help="Default: one for each core.")] = None,
) -> None:
    """Draw a dataset in the layout of COCO-2014, with COCO's 80 labels and their real co-occurrence."""
    from rayprob.cli.show_data import scenes_progress, show_scenes
    from rayprob.scenes.generate import ScenesSpec, generate_scenes

    asked = {"num_train": num_train, "num_val": num_val, "size_px": size_px, "num_labels": num_labels}
    options = {"num_train": "--train", "num_val": "--val", "size_px": "--size", "num_labels": "--labels"}
    options |= {"seed": "--seed", "label_noise": "--label-noise"}
    spec = ScenesSpec.parse({**asked, "seed": seed, "label_noise": label_noise}, where="scenes", options=options)
    processes = (os.cpu_count() or 1) if num_processes is None else num_processes
    try:
        with scenes_progress(err, spec.num_images) as on_progress:
            summary = generate_scenes(folder, spec, num_processes=processes, on_progress=on_progress)
    except KeyboardInterrupt:
        show_line(err, "stopped; the same command continues from there")
        raise typer.Exit(130) from None
    show_scenes(out, folder, summary)


@app.command()
def shard(
    recipe_file: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="A recipe, such as shards/coco2014.yaml.")],
    overrides: Overrides = None,
) -> None:
    """Build a dataset of WebDataset shards, or resume a stopped build."""
    from rayprob.cli.show_data import shard_progress, show_summary
    from rayprob.data.building.build import build, on_ray
    from rayprob.data.building.recipe import Recipe

    recipe = Recipe.read(recipe_file, overrides or ())
    try:
        with shard_progress(err) as on_progress:
            summary = build(recipe, run_tasks=on_ray(), on_progress=on_progress)
    except KeyboardInterrupt as stopped:
        show_message(err, str(stopped) or "stopped")
        raise typer.Exit(130) from None
    show_summary(out, summary)


@app.command()
def verify(dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A built dataset: a folder or URI.")]) -> None:
    """Read every byte of a dataset again and name each fault; exit code 1 where there is one."""
    from rayprob.cli.show_data import bytes_progress
    from rayprob.data.verify import verify as find_faults

    with bytes_progress(err, "verifying") as on_progress:
        faults = find_faults(dataset, on_progress)
    for fault in faults:
        show_line(out, str(fault))
    if faults:
        show_line(err, f"{len(faults):,} faults in {dataset}", "red")
        raise typer.Exit(1)
    show_line(out, f"{dataset}: every byte is as it was built")


@app.command()
def inspect(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A built dataset: a folder or URI.")],
    top: Annotated[int, typer.Option("--top", help="How many label sets and co-occurrences to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Show what a dataset holds: counts, prevalence per label, label-set sizes, strongest co-occurrences."""
    from rayprob.cli.show_data import show_inspection
    from rayprob.data.inspect import inspect as find_facts

    found = find_facts(dataset, top=top)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    show_inspection(out, found)


@app.command()
def train(
    run_file: Annotated[str, typer.Argument(metavar="RUN.yaml", help="A run file, such as tune_configs/demo.yaml.")],
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove this run's folder and start over.")] = False,
) -> None:
    """Train a run, or resume it from its last checkpoint. More than one worker trains on Ray."""
    from rayprob.config.spec import override, read_yaml
    from rayprob.train.ready import num_workers_of, worker_ready

    with worker_ready(num_workers_of(override(read_yaml(run_file), overrides or ()))):  # imports side by side with this process
        from rayprob.cli.show_run import RunView
        from rayprob.runs.spec import Run
        from rayprob.train.launch import launch

        run = Run.read(run_file, overrides or ())
        with RunView(out) as view:
            outcome = launch(run, view.tell, fresh=fresh)
    if outcome.ending == "stopped":
        show_line(out, f"stopped at step {outcome.step} of {outcome.total_steps}, saved; the same command continues from there")
        raise typer.Exit(130)
    early = ", stopped early: no evaluation was better for a while" if outcome.ending == "early" else ""
    best = f"best holdout mAP {outcome.best_score:.4f} at step {outcome.best_step}"
    show_line(out, f"finished at step {outcome.step}{early}; {best}")
    show_line(out, f"next: rayprob evaluate {run.run_folder}    tensorboard --logdir {run.run_folder}")


@app.command("lr-find")
def lr_find(
    run_file: Annotated[str, typer.Argument(metavar="RUN.yaml", help="A run file, such as tune_configs/demo.yaml.")],
    overrides: Overrides = None,
    lowest: Annotated[float, typer.Option("--from", metavar="LR", help="The first learning rate.")] = 1e-6,
    highest: Annotated[
        float, typer.Option("--to", metavar="LR", help="The last one; the test ends once the loss leaves.")
    ] = 10.0,
    num_steps: Annotated[int, typer.Option("--steps", help="How many steps the range takes.")] = 100,
    figure: Annotated[str | None, typer.Option(metavar="FILE", help="The picture; by default lr-find-NAME.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Suggest optimizer.lr for a run: a hundred steps with a rising learning rate, and their picture. Trains nothing."""
    from rayprob.cli.show_lr import show_lr_range
    from rayprob.cli.show_run import sample_progress
    from rayprob.runs.spec import Run
    from rayprob.train.lr_figure import write_figure
    from rayprob.train.lr_range import find_lr

    run = Run.read(run_file, overrides or ())
    path = figure or f"lr-find-{run.name}.png"
    with sample_progress(err, "learning rate rises") as on_step:
        found = find_lr(run, lowest=lowest, highest=highest, num_steps=num_steps, on_step=on_step)
    write_figure(found, f"learning-rate range test of {run.name}", path)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    show_lr_range(out, found, run_file, overrides or (), path)


@app.command()
def tune(
    sweep_file: Annotated[
        str, typer.Argument(metavar="SWEEP.yaml", help="A sweep file, such as tune_configs/demo-sweep.yaml.")
    ],
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove this sweep's folder with all its trials and start over.")
    ] = False,
) -> None:
    """Search a run's hyperparameters on Ray Tune, or resume the search; or, of a finished run, thresholds and calibrators.

    The same command resumes a stopped search, and never repeats a finished trial. A file with `thresholds:` instead of
    `search:` trains nothing.
    """
    from rayprob.config.spec import override, read_yaml

    if "thresholds" in override(read_yaml(sweep_file), overrides or ()):
        _tune_thresholds(sweep_file, overrides or ())
        return
    from rayprob.cli.show_sweep import SweepView, show_sweep
    from rayprob.report.sweep.page import sweep_report
    from rayprob.sweep.search import Sweep
    from rayprob.sweep.tune import run_sweep

    sweep = Sweep.read(sweep_file, overrides or ())
    with SweepView(out) as view:
        swept = run_sweep(sweep, view.tell, fresh=fresh)
    if not swept.is_finished:
        done = sum(row["state"] != "running" for row in swept.summary["trials"])
        words = f"{done} trial(s) are done and those under way are saved"
        show_line(out, f"stopped; {words}; the same command continues from there")
        raise typer.Exit(130)
    show_sweep(out, sweep.folder, swept.summary)
    show_line(out, f"the page: {sweep_report(sweep.folder).path}")


def _tune_thresholds(file: str, overrides: Sequence[str]) -> None:
    from rayprob.calibrate.search import ThresholdSearch, search_thresholds
    from rayprob.cli.show_run import sample_progress
    from rayprob.cli.show_search import show_threshold_search

    with sample_progress(err, "judging candidates") as on_progress:
        report = search_thresholds(ThresholdSearch.read(file, overrides), on_progress)
    show_threshold_search(out, report)


@app.command()
def refit(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run, such as runs/demo.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Such as head.name=bernoulli or epochs=40; repeat.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The new run's name; its folder lies beside RUN.")] = None,
    folder: Annotated[str | None, typer.Option("--folder", metavar="DIR", help="The new run's folder.")] = None,
) -> None:
    """Train a new head, by default a mixture of 16 components, on the frozen features of a run: a new run, in minutes."""
    from rayprob.cli.show_run import RunView
    from rayprob.config.spec import override
    from rayprob.runs.folder import load_plugins
    from rayprob.train.refit import RefitSpec
    from rayprob.train.refit import refit as train_head

    load_plugins(run_folder)  # which may bring the head that is asked for
    spec = RefitSpec.parse(override({}, overrides or ()), where="refit")
    with RunView(out) as view:
        refitted = train_head(run_folder, spec, name=name, folder=folder, tell=view.tell)
    best = refitted.best
    already = "was there already" if refitted.was_finished else "finished"
    show_line(
        out,
        f"{already}; best holdout NLL {best['nll_nats']:.3f} nats, mAP {best['mAP']:.4f} at step {best['step']} "
        f"of {refitted.total_steps}",
    )
    show_line(out, f"next: rayprob evaluate {refitted.folder}    rayprob calibrate {refitted.folder}")


@app.command()
def evaluate(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run, such as runs/demo.")],
    split: Annotated[str, typer.Option("--split", help="Which split of the run's dataset.")] = "val",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Print a run's numbers on a split beside the paper's, and write its predictions."""
    from rayprob.cli.show_run import sample_progress, show_assessment
    from rayprob.train.assess import assess

    with sample_progress(err, f"predicting {split}") as on_progress:
        assessment = assess(run_folder, split, on_progress)
    if as_json:
        typer.echo(json.dumps(assessment.to_dict()))
        return
    show_assessment(out, assessment)
    show_line(out, f"predictions: {run_folder.rstrip('/')}/predictions/{split}.parquet")
    if assessment.tuned is None:
        show_line(out, f"next: rayprob calibrate {run_folder}")


@app.command()
def calibrate(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run, such as runs/demo.")],
    method: Annotated[
        str, typer.Option("--method", help="auto, identity, temperature, shared_platt, platt or isotonic.")
    ] = "auto",
    prior_name: Annotated[
        str,
        typer.Option("--prior", metavar="PRIOR", help="Which labels go together: auto, none, coco, or a file."),
    ] = "none",
    precision: Annotated[
        float | None, typer.Option("--precision", metavar="P", help="Fit thresholds for this precision too, such as 0.9.")
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option("--smoothing", metavar="S", help="Of thresholds a label; by default cross-validated.")
    ] = None,
    objectives: Annotated[
        list[str] | None, typer.Option("--objective", metavar="NAME", help="Fit thresholds for it too: mean_F1.")
    ] = None,
    alphas: Annotated[
        list[float] | None, typer.Option("--alpha", metavar="A", help="Of guarantees, instead of 0.05, 0.1 and 0.2; repeat.")
    ] = None,
    known_rate: Annotated[
        float | None,
        typer.Option("--known-rate", metavar="R", help="Share of labels stated, at random: guarantees then cover all labels."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Fit a calibrator, thresholds and guarantees on holdout, and put them into the run's bundle."""
    from rayprob.calibrate.crossfit import CalibrateSpec
    from rayprob.calibrate.fitting import calibrate as fit
    from rayprob.cli.show_calibration import show_calibration

    asked: dict[str, object] = {
        "method": method,
        "prior": prior_name,
        "precision": precision,
        "smoothing": smoothing,
        "known_rate": known_rate,
    }
    asked |= {"objectives": list(dict.fromkeys(("OF1", "CF1", *(objectives or ()))))}
    asked |= {"alphas": alphas} if alphas else {}
    options = {"method": "--method", "precision": "--precision", "smoothing": "--smoothing"}
    options |= {"objectives": "--objective", "alphas": "--alpha", "known_rate": "--known-rate"}
    spec = CalibrateSpec.parse(asked, where="calibrate", options=options)
    with status(err, "calibrating"):
        report = fit(run_folder, spec)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
        return
    show_calibration(out, run_folder, report)


for verb in (prior, predict, export, report, submit, doctor):
    app.command()(verb)


def main() -> None:
    """Run the CLI; a RayprobError becomes its message and exit code 1, Ctrl-C exit code 130."""
    show_what_can_be_shown()
    try:
        app()
    except RayprobError as error:
        show_message(err, f"error: {error}", "red")
        sys.exit(1)
    except KeyboardInterrupt:
        show_line(err, "stopped")
        sys.exit(130)
