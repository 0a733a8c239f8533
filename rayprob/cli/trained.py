"""Verbs about what was trained: calibrate, predict, export, report. Heavy imports stay inside them; app.py has the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.help import one_of
from rayprob.cli.terminal import AsJson, err, out, show_line, status
from rayprob.cli.tune import search_for_thresholds
from rayprob.errors import SpecError

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a run's, such as runs/demo.")]
METHODS = ("auto", "identity", "temperature", "shared_platt", "platt", "isotonic")


def calibrate(
    run_folder: Annotated[
        str | None, typer.Argument(metavar="RUN", help="The folder of a finished run, such as runs/demo.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method", metavar="NAME", help=f"{', '.join(METHODS[:-1])} or isotonic.", autocompletion=one_of(*METHODS)
        ),
    ] = "auto",
    prior_name: Annotated[
        str,
        typer.Option(
            "--prior",
            metavar="PRIOR",
            help="Label prior: auto (only if it helps), none, coco, or a file.",
            autocompletion=one_of("auto", "none", "coco"),
        ),
    ] = "auto",
    precision: Annotated[
        float | None, typer.Option("--precision", metavar="P", help="Fit thresholds for this precision too, such as 0.9.")
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option("--smoothing", metavar="S", help="Smoothing for per-label thresholds; by default cross-validated."),
    ] = None,
    objectives: Annotated[
        list[str] | None, typer.Option("--objective", metavar="NAME", help="Also fit thresholds for this objective: mean_F1.")
    ] = None,
    alphas: Annotated[
        list[float] | None,
        typer.Option("--alpha", metavar="A", help="Level of a guarantee, instead of 0.05, 0.1 and 0.2; repeat."),
    ] = None,
    known_rate: Annotated[
        float | None,
        typer.Option("--known-rate", metavar="R", help="Share of labels stated, at random: guarantees then cover all labels."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="FILE", help="Try the candidates of a search file on the run; change nothing."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a calibrator, thresholds and guarantees on holdout.

    They go into the run's bundle, where `predict` uses them; val is only reported. With --search FILE, find out first which
    calibrator and rule suit the run best.

    Examples:

      rayprob calibrate runs/paper
      rayprob calibrate runs/paper --search tune_configs/thresholds.yaml
      rayprob calibrate runs/paper --precision 0.9 --alpha 0.1
    """
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
    if search is not None:
        if spec != CalibrateSpec():
            raise SpecError("--search FILE takes what to try from FILE; leave out the other options of calibrate")
        search_for_thresholds(search, [f"thresholds.run={run_folder}"] if run_folder else [], as_json=as_json)
        return
    if run_folder is None:
        raise SpecError("calibrate needs the folder of a finished run, such as runs/demo, or --search FILE")
    with status(err, "calibrating"):
        report = fit(run_folder, spec)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
        return
    show_calibration(out, run_folder, report)


def predict(
    bundle: BundleArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="JPEG, PNG or WebP files, folders, globs, built datasets.")
    ],
    queries: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="Q", help="Such as 'P(fork | dining table, !person)'; repeat.")
    ] = None,
    evidence: Annotated[
        list[str] | None,
        typer.Option("--evidence", "-e", metavar="LABEL=1", help="What is known about every image; repeat."),
    ] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="RULE", help="How label sets are chosen: label_OF1, recall@0.1, 0.5...")
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="N", help="How many labels and label sets to list.")] = 5,
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Which split of a built dataset.")] = "val",
    others: Annotated[
        list[str] | None, typer.Option("--ensemble", metavar="BUNDLE", help="Another bundle to average with; repeat.")
    ] = None,
    mc_dropout: Annotated[
        int, typer.Option("--mc-dropout", metavar="N", help="Estimate uncertainty from N dropout passes.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image and nothing else.")] = False,
    parquet: Annotated[
        str | None, typer.Option("--parquet", metavar="FILE", help="Write a table; the same command resumes a stopped one.")
    ] = None,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Write the table on Ray: on a cluster, or on all CPUs of this machine.")
    ] = False,
    figure: Annotated[
        str | None, typer.Option("--figure", metavar="DIR", help="Write a PNG per image, with bars next to it.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Exit with 0 even if some images cannot be read.")] = False,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Images per forward pass.")] = 16,
) -> None:
    """Predict labels, and answer questions about images.

    Prints label sets with their guarantee, answers to queries given evidence, and uncertainty. Images that cannot be read
    are listed, the others are predicted, and the exit code is 1.

    Examples:

      rayprob predict runs/paper photo.jpg
      rayprob predict runs/paper photo.jpg -q 'P(fork | dining table)'
      rayprob predict runs/paper photos/ --parquet predictions.parquet
    """
    from rayprob.cli.show_predictions import finish, show_outcomes, write_parquet
    from rayprob.predict.job import PredictJob

    if (parquet and (as_json or figure)) or (on_ray and not parquet):
        raise typer.BadParameter(_table_alone(parquet, as_json=as_json))
    asked = {"queries": queries or (), "evidence": evidence or (), "rule": rule, "top": top}
    asked |= {"mc_dropout": mc_dropout, "batch": batch}
    job = PredictJob((bundle, *(others or ())), tuple(images), asked, split)
    if parquet:
        counts = write_parquet(out, err, job, parquet, on_ray=on_ray)
    else:
        counts = show_outcomes(out, err, job, as_json=as_json, figures=figure)
    finish(err, *counts, skip_bad=skip_bad)


def _table_alone(parquet: str | None, *, as_json: bool) -> str:
    if not parquet:
        return "--ray writes a table; add --parquet FILE"
    return f"--parquet cannot be combined with {'--json' if as_json else '--figure'}; run the command once for each"


def export(
    bundle: BundleArgument,
    onnx: Annotated[str, typer.Option("--onnx", metavar="FILE", help="Where to write the ONNX graph, such as demo.onnx.")],
) -> None:
    """Write a bundle as one ONNX graph, checked against PyTorch.

    The graph takes pixels and returns calibrated probabilities.

    Examples:

      rayprob export runs/paper --onnx paper.onnx
    """
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
        f"onnxruntime differs from PyTorch by at most {exported.largest_difference:.1e} (allowed {TOLERANCE:.0e}), "
        f"for batches of {batches} images of several sizes",
    )


def report(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of an evaluated run, such as runs/demo.")],
    split: Annotated[
        str | None, typer.Option("--split", metavar="SPLIT", help="Which split; by default val, else holdout.")
    ] = None,
    path: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The file to write; by default RUN/report.html.")
    ] = None,
) -> None:
    """Write an HTML page about a run or a sweep.

    One self-contained file: metrics, charts, images, and how the run was made.

    Examples:

      rayprob report runs/paper
      rayprob report sweeps/learning-rate --out sweep.html
    """
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
