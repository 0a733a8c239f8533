"""Verbs that train: train, lr-find, refit, evaluate. Heavy imports stay inside them; app.py puts them on the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.terminal import AsJson, DataOption, Overrides, RunArgument, SplitOption, err, out, show_line

RunFile = Annotated[str, typer.Argument(metavar="RUN.yaml", help="A run file, such as tune_configs/demo.yaml.")]


def train(
    run_file: RunFile,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove this run's folder and start over.")] = False,
) -> None:
    """Train a run, or resume it from its last checkpoint.

    More than one worker trains on Ray. Ctrl-C saves and stops; the same command continues.

    Examples:

      rayprob train tune_configs/demo.yaml
      rayprob train tune_configs/demo.yaml --set folder=demo/again --set seed=1
    """
    from rayprob.config.kinds import RUN_FILE
    from rayprob.config.spec import check_file
    from rayprob.train.ready import num_workers_of, worker_ready

    with worker_ready(
        num_workers_of(check_file(run_file, overrides or (), RUN_FILE))
    ):  # imports side by side with this process
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
    show_line(out, f"next: {evaluate_command(run.run_folder)}    tensorboard --logdir {run.run_folder}")


def lr_find(
    run_file: RunFile,
    overrides: Overrides = None,
    lowest: Annotated[float, typer.Option("--from", metavar="LR", help="The first learning rate.")] = 1e-6,
    highest: Annotated[
        float, typer.Option("--to", metavar="LR", help="The last learning rate; the test stops earlier if the loss diverges.")
    ] = 10.0,
    num_steps: Annotated[int, typer.Option("--steps", metavar="N", help="Steps from the first to the last rate.")] = 100,
    figure: Annotated[
        str | None, typer.Option("--figure", metavar="FILE", help="The picture; by default lr-find-NAME.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Suggest a learning rate for a run, with a picture.

    A range test: a hundred steps with a rising learning rate. The run itself is not trained.

    Examples:

      rayprob lr-find tune_configs/demo.yaml
    """
    from rayprob.config.kinds import RUN_FILE
    from rayprob.config.spec import check_file

    check_file(run_file, overrides or (), RUN_FILE)
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


def refit(
    run_folder: RunArgument,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Such as head.name=bernoulli or epochs=40; repeat.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The new run's name; its folder is next to RUN.")
    ] = None,
    folder: Annotated[str | None, typer.Option("--folder", metavar="DIR", help="The new run's folder.")] = None,
) -> None:
    """Train a new head on the frozen features of a run, in minutes.

    By default a mixture of 16 components. The result is a run of its own.

    Examples:

      rayprob refit demo/run
      rayprob refit demo/run --name wide --set head.components=32 --set epochs=40
    """
    from rayprob.cli.show_run import RunView
    from rayprob.config.spec import override, with_overrides
    from rayprob.runs.folder import load_plugins
    from rayprob.train.refit import RefitSpec
    from rayprob.train.refit import refit as train_head

    load_plugins(run_folder)  # they may define the requested head
    spec = with_overrides(lambda given: RefitSpec.parse(override({}, given), where="refit"), overrides or ())
    with RunView(out) as view:
        refitted = train_head(run_folder, spec, name=name, folder=folder, tell=view.tell)
    best = refitted.best
    already = "already finished" if refitted.was_finished else "finished"
    show_line(
        out,
        f"{already}; best on holdout: NLL {best['nll_nats']:.3f} nats, mAP {best['mAP']:.4f} at step {best['step']} "
        f"of {refitted.total_steps}",
    )
    show_line(out, f"next: {evaluate_command(refitted.folder)}    rayprob calibrate {refitted.folder}")


def evaluate_command(folder: str) -> str:
    """Return the command that evaluates a run, with --split only if the dataset has no val."""
    from rayprob.runs.finished import REPORTED, split_to_report

    split = split_to_report(folder)
    return f"rayprob evaluate {folder}" + (f" --split {split}" if split != REPORTED else "")


def evaluate(
    run_folder: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a finished run; with --data, or of a bundle.")
    ],
    split: SplitOption = "val",
    data: DataOption = None,
    path: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where to write the predictions; by default in RUN.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a run's metrics on a split, and write its predictions.

    With --data, on another dataset: labels are matched by name, and the run's own predictions are kept.

    Examples:

      rayprob evaluate demo/run
      rayprob evaluate demo/run --split holdout --json
      rayprob evaluate demo/run --data shards/mine
    """
    from rayprob.runs.kinds import require_run
    from rayprob.runs.paths import is_bundle

    if not is_bundle(run_folder):
        require_run(run_folder)
    from rayprob.cli.show_run import sample_progress, show_assessment
    from rayprob.train.assess import assess

    with sample_progress(err, f"predicting {split}", "computing the numbers") as on_progress:
        assessment = assess(run_folder, split, on_progress, data=data, out=path)
    if as_json:
        typer.echo(json.dumps(assessment.to_dict()))
        return
    show_assessment(out, assessment)
    show_line(out, f"predictions: {assessment.predictions}")
    if assessment.tuned is None and assessment.threshold is not None:
        show_line(out, f"next: rayprob calibrate {run_folder}")
