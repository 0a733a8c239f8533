"""The verb that searches: tune. Heavy imports stay inside it; app.py puts it on the app."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from rayprob.cli.terminal import Overrides, err, out, show_line
from rayprob.text import counted


def tune(
    sweep_file: Annotated[
        str, typer.Argument(metavar="SWEEP.yaml", help="A sweep file, such as tune_configs/demo-sweep.yaml.")
    ],
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove this sweep's folder with all its trials and start over.")
    ] = False,
) -> None:
    """Search hyperparameters on Ray Tune, or resume a search.

    The same command resumes a stopped search, and never repeats a finished trial. A file with `thresholds:` instead of
    `search:` trains nothing: it searches thresholds and calibrators of a finished run. A file with `systems:` compares run
    files: each with its own learning rate, several seeds, and a table of all.

    Examples:

      rayprob tune tune_configs/demo-sweep.yaml
      rayprob tune tune_configs/systems.yaml --set systems.source=demo/run
      rayprob tune tune_configs/thresholds.yaml --set thresholds.run=demo/run
    """
    from rayprob.config.kinds import SWEEP_FILE
    from rayprob.config.spec import check_file, read_yaml

    keys = read_yaml(sweep_file, overrides or ())
    if "thresholds" in keys:
        if fresh:
            raise typer.BadParameter("a search of thresholds keeps nothing to start over from; leave out --fresh")
        search_for_thresholds(sweep_file, overrides or ())
        return
    if "systems" in keys:
        tune_systems(sweep_file, overrides or (), fresh=fresh)
        return
    check_file(sweep_file, overrides or (), SWEEP_FILE)
    from rayprob.cli.show_sweep import SweepView, show_sweep
    from rayprob.report.sweep.page import sweep_report
    from rayprob.sweep.search import Sweep
    from rayprob.sweep.tune import run_sweep

    sweep = Sweep.read(sweep_file, overrides or ())
    with SweepView(out) as view:
        swept = run_sweep(sweep, view.tell, fresh=fresh)
    if not swept.is_finished:
        done = sum(row["state"] != "running" for row in swept.summary["trials"])
        words = f"{counted(done, 'trial')} done, the running ones saved"
        show_line(out, f"stopped; {words}; the same command continues from there")
        raise typer.Exit(130)
    show_sweep(out, sweep.folder, swept.summary)
    show_line(out, f"the page: {sweep_report(sweep.folder).path}")


def tune_systems(file: str, overrides: Sequence[str], *, fresh: bool) -> None:
    """Compare the systems of a file, and print the table."""
    from rayprob.cli.show_systems import SystemsView, show_systems
    from rayprob.systems.compare import compare_systems
    from rayprob.systems.page import write_page
    from rayprob.systems.spec import SystemsFile

    opened = SystemsFile.read(file, overrides)
    try:
        with SystemsView(err) as view:
            compared = compare_systems(opened, view.tell, fresh=fresh)
    except KeyboardInterrupt:
        show_line(out, "stopped; the same command continues from there")
        raise typer.Exit(130) from None
    show_systems(out, compared)
    show_line(out, f"the page: {write_page(compared)}")


def search_for_thresholds(file: str, overrides: Sequence[str], *, as_json: bool = False) -> None:
    """Run the search of a file with `thresholds:`, and print what it found."""
    from rayprob.calibrate.search import search_thresholds
    from rayprob.calibrate.search_spec import ThresholdSearch
    from rayprob.cli.show_run import sample_progress
    from rayprob.cli.show_search import show_threshold_search

    with sample_progress(err, "judging candidates") as on_progress:
        report = search_thresholds(ThresholdSearch.read(file, overrides), on_progress)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        show_threshold_search(out, report)
