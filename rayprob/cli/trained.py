"""Verbs about what was trained: predict, export, report. Heavy imports stay inside them; cli.py puts them on the app."""

from typing import Annotated

import typer

from rayprob.cli.terminal import err, out, show_line, status


def predict(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a run's, such as runs/demo.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="JPEG or PNG files, folders, globs, built datasets.")
    ],
    queries: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="Q", help="Such as 'P(fork | dining table, !person)'; repeat.")
    ] = None,
    evidence: Annotated[
        list[str] | None,
        typer.Option(
            "--evidence", "-e", metavar="LABEL=1", help="What you know of all images; repeat. A name may be in double quotes."
        ),
    ] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="How label sets are chosen: label_OF1, recall@0.1, 0.5...")] = None,
    top: Annotated[int, typer.Option("--top", help="How many labels and label sets to list.")] = 5,
    split: Annotated[str, typer.Option("--split", help="Which split of a built dataset.")] = "val",
    others: Annotated[
        list[str] | None, typer.Option("--ensemble", metavar="BUNDLE", help="Another bundle, to predict together; repeat.")
    ] = None,
    mc_dropout: Annotated[int, typer.Option("--mc-dropout", metavar="N", help="Uncertainty by N passes with dropout.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line for each image, nothing else.")] = False,
    parquet: Annotated[str | None, typer.Option(metavar="FILE", help="Write a table; goes on where it was stopped.")] = None,
    on_ray: Annotated[bool, typer.Option("--ray", help="Write the table's parts on Ray: a cluster, or all CPUs.")] = False,
    figure: Annotated[str | None, typer.Option(metavar="DIR", help="Write a PNG for each image, with bars beside it.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Exit with 0 although some images could not be read.")] = False,
    batch: Annotated[int, typer.Option("--batch", help="Images computed at a time.")] = 16,
) -> None:
    """Say what is in images: label sets, their guarantee, answers to queries given evidence, and how uncertain they are.

    Images that cannot be read are named; the others are predicted all the same, and the exit code is 1 at the end.
    """
    from rayprob.cli.show_predictions import finish, show_outcomes, write_parquet
    from rayprob.predict.job import PredictJob

    if (parquet and (as_json or figure)) or (on_ray and not parquet):
        raise typer.BadParameter("--parquet writes a table and nothing else, and --ray needs it: leave out --json and --figure")
    asked = {"queries": queries or (), "evidence": evidence or (), "rule": rule, "top": top}
    asked |= {"mc_dropout": mc_dropout, "batch": batch}
    job = PredictJob((bundle, *(others or ())), tuple(images), asked, split)
    if parquet:
        counts = write_parquet(out, err, job, parquet, on_ray=on_ray)
    else:
        counts = show_outcomes(out, err, job, as_json=as_json, figures=figure)
    finish(err, *counts, skip_bad=skip_bad)


def export(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a run's, such as runs/demo.")],
    onnx: Annotated[str, typer.Option("--onnx", metavar="FILE", help="Where to write the ONNX graph, such as demo.onnx.")],
) -> None:
    """Write a bundle as one ONNX graph, from pixels to calibrated probabilities, checked against PyTorch."""
    from rayprob.export.onnx_file import TOLERANCE, export_onnx
    from rayprob.predict.job import bundle_fingerprint
    from rayprob.runs.bundle import Bundle
    from rayprob.runs.paths import bundle_folder

    folder = bundle_folder(bundle)
    exported = export_onnx(Bundle.load(folder), onnx, fingerprint=bundle_fingerprint(folder))
    show_line(out, f"{exported.path}: {exported.size_bytes / 1e6:.1f} MB; {', '.join(exported.outputs)}")
    batches = ", ".join(map(str, exported.batches))
    show_line(
        out,
        f"onnxruntime differs from PyTorch by {exported.largest_difference:.1e} at most (allowed {TOLERANCE:.0e}), "
        f"for batches of {batches} images of several sizes",
    )


def report(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of an evaluated run, such as runs/demo.")],
    split: Annotated[str | None, typer.Option("--split", help="Which split: val, or holdout where val is not there.")] = None,
    path: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where to write; by default RUN/report.html.")
    ] = None,
) -> None:
    """Write one HTML page about a run, or about a sweep: numbers, charts, images, how it was made."""
    from rayprob.runs.sweep_summary import is_sweep

    if is_sweep(run_folder):
        _report_sweep(run_folder, split, path)
        return
    from rayprob.report.run.write import report as write_page

    with status(err, "drawing the page"):
        written = write_page(run_folder, split, path)
    size = f"{written.size_bytes / 1e6:.1f} MB"
    show_line(out, f"{written.path}: {written.num_samples:,} images of {written.split}, {size}")
    for note in written.notes:
        show_line(out, f"note: {note.text}{f' {note.command}' if note.command else ''}")


def _report_sweep(folder: str, split: str | None, path: str | None) -> None:
    from rayprob.report.sweep.page import sweep_report

    if split is not None:
        raise typer.BadParameter("the page of a sweep is about the split it chose on: leave out --split")
    with status(err, "drawing the page"):
        written = sweep_report(folder, path)
    show_line(out, f"{written.path}: {written.num_trials:,} trials, {written.size_bytes / 1e6:.1f} MB")
