"""Verbs about what was trained: predict, report. Heavy imports stay inside them; app.py has the app."""

from typing import Annotated

import typer

from rayprob.cli.terminal import err, out, show_line, status

COMPARISON = "comparison.html"
BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a run's, such as demo/run.")]


Images = Annotated[list[str], typer.Argument(metavar="IMAGES", help="JPEG, PNG or WebP files, folders, globs, built datasets.")]
Queries = Annotated[
    list[str] | None, typer.Option("--query", "-q", metavar="Q", help="Such as 'P(fork | dining table, !person)'; repeat.")
]
Evidence = Annotated[
    list[str] | None, typer.Option("--evidence", "-e", metavar="LABEL=1", help="What is known about every image; repeat.")
]
Rule = Annotated[
    str | None, typer.Option("--rule", metavar="RULE", help="How label sets are chosen: label_OF1, recall@0.1, 0.5...")
]
Top = Annotated[int, typer.Option("--top", metavar="N", help="How many labels and label sets to list.")]
Split = Annotated[str, typer.Option("--split", metavar="SPLIT", help="Which split of a built dataset.")]
Others = Annotated[
    list[str] | None, typer.Option("--ensemble", metavar="BUNDLE", help="Another bundle to average with; repeat.")
]
Dropout = Annotated[int, typer.Option("--mc-dropout", metavar="N", help="Estimate uncertainty from N dropout passes.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object per image and nothing else.")]
TableFile = Annotated[
    str | None, typer.Option("--parquet", metavar="FILE", help="Write a table; the same command resumes a stopped one.")
]
OnRay = Annotated[bool, typer.Option("--ray", help="Write the table on Ray: on a cluster, or on all CPUs of this machine.")]
Figures = Annotated[str | None, typer.Option("--figure", metavar="DIR", help="Write a PNG per image, with bars next to it.")]
Explained = Annotated[bool, typer.Option("--explain", help="Map where the label set and the most probable labels are seen.")]
ExplainedLabels = Annotated[
    list[str] | None, typer.Option("--explain-label", metavar="LABEL", help="Map where this label is seen instead; repeat.")
]
ExplainMethod = Annotated[
    str | None,
    typer.Option("--explain-method", metavar="M", help="contributions, attention, gradcam, integrated_gradients or auto."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Exit with 0 even if some images cannot be read.")]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Images per forward pass.")]


def predict(
    bundle: BundleArgument,
    images: Images,
    queries: Queries = None,
    evidence: Evidence = None,
    rule: Rule = None,
    top: Top = 5,
    split: Split = "val",
    others: Others = None,
    mc_dropout: Dropout = 0,
    as_json: JsonLines = False,
    parquet: TableFile = None,
    on_ray: OnRay = False,
    figure: Figures = None,
    explain: Explained = False,
    explain_labels: ExplainedLabels = None,
    explain_method: ExplainMethod = None,
    skip_bad: SkipBad = False,
    batch: Batch = 16,
) -> None:
    """Predict labels, and answer questions about images.

    Prints label sets with their guarantee, answers to queries given evidence, and uncertainty. Images that cannot be read
    are listed, the others are predicted, and the exit code is 1.

    Examples:

      rayprob predict demo/run photo.jpg -q 'P(chair | dining table)'
      rayprob predict demo/run photo.jpg --explain --figure figures
      rayprob predict demo/run photos/ --parquet predictions.parquet
    """
    is_explained = explain or bool(explain_labels) or explain_method is not None
    if (parquet and (as_json or figure or is_explained)) or (on_ray and not parquet):
        raise typer.BadParameter(_table_alone(parquet, as_json=as_json, figure=figure))
    bundles = require_bundles(bundle, *(others or ()))
    from rayprob.cli.show_predictions import finish, show_outcomes, write_parquet
    from rayprob.predict.job import Explain, PredictJob

    maps = Explain(tuple(explain_labels or ()), explain_method or "auto") if is_explained else None
    asked = {"queries": queries or (), "evidence": evidence or (), "rule": rule, "top": top, "explain": maps}
    job = PredictJob(bundles, tuple(images), {**asked, "mc_dropout": mc_dropout, "batch": batch}, split)
    if parquet:
        counts = write_parquet(out, err, job, parquet, on_ray=on_ray)
    else:
        counts = show_outcomes(out, err, job, as_json=as_json, figures=figure)
    finish(err, *counts, skip_bad=skip_bad)


def require_bundles(*folders: str) -> tuple[str, ...]:
    """Return the folders; a wrong one is refused before anything heavy is imported."""
    from rayprob.runs.kinds import require_bundle

    for folder in folders:
        require_bundle(folder)
    return folders


def _table_alone(parquet: str | None, *, as_json: bool, figure: str | None) -> str:
    if not parquet:
        return "--ray writes a table; add --parquet FILE"
    other = "--json" if as_json else "--figure" if figure else "--explain"
    return f"--parquet cannot be combined with {other}; run the command once for each"


def report(
    folders: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Folders of evaluated runs, such as demo/run; or that of a sweep.")
    ],
    split: Annotated[
        str | None, typer.Option("--split", metavar="SPLIT", help="Which split; by default val, else holdout.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="The page; by default RUN/report.html, of several runs comparison.html."),
    ] = None,
) -> None:
    """Write an HTML page about a run or a sweep, or to compare runs.

    One self-contained file: metrics, charts, images, and how the run was made. The page of several runs is that of
    `rayprob compare --out`: each run compared with the first, with intervals, and a link to its own page.

    Examples:

      rayprob report demo/run
      rayprob report demo/run demo/again --out both.html
      rayprob report demo/sweep --out sweep.html
    """
    from rayprob.runs.kinds import is_sweep

    if len(folders) > 1:
        _report_several(folders, split, path)
    elif is_sweep(folders[0]):
        _report_sweep(folders[0], split, path)
    else:
        _report_run(folders[0], split, path)


def _report_run(folder: str, split: str | None, path: str | None) -> None:
    from rayprob.runs.kinds import require_run

    require_run(folder)
    from rayprob.report.run.write import report as write_page

    with status(err, "drawing the page"):
        written = write_page(folder, split, path)
    size = f"{written.size_bytes / 1e6:.1f} MB"
    show_line(out, f"{written.path}: {written.num_samples:,} images of {written.split}, {size}")
    for note in written.notes:
        show_line(out, f"note: {note}")


def _report_several(folders: list[str], split: str | None, path: str | None) -> None:
    """Compare runs on val unless another split is asked for, because nothing was chosen on val; without val, on holdout."""
    from rayprob.runs.finished import REPORTED, split_to_report
    from rayprob.runs.kinds import require_run

    for folder in folders:
        require_run(folder)
    without_val = (found for found in map(split_to_report, folders) if found != REPORTED)
    split = split or next(without_val, REPORTED)
    from rayprob.cli.show_compare import compared, show_written
    from rayprob.metrics.bootstrap import DRAWS
    from rayprob.report.compare.words import lead

    comparison, written = compared(err, folders, split, None, path or COMPARISON, draws=DRAWS, seed=0)
    assert written is not None
    show_line(out, lead(comparison))
    show_written(out, written)
    for note in comparison.notes:
        show_line(out, f"note: {note}")


def _report_sweep(folder: str, split: str | None, path: str | None) -> None:
    from rayprob.report.sweep.page import sweep_report

    if split is not None:
        raise typer.BadParameter(
            "--split does not apply to a sweep, whose page shows the split that chose its trials; leave it out"
        )
    with status(err, "drawing the page"):
        written = sweep_report(folder, path)
    show_line(out, f"{written.path}: {written.num_trials:,} trials, {written.size_bytes / 1e6:.1f} MB")
