"""The verb that calibrates: calibrate. Heavy imports stay inside it; app.py puts it on the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.help import one_of
from rayprob.cli.terminal import AsJson, err, out, status
from rayprob.cli.tune import search_for_thresholds
from rayprob.errors import SpecError

METHODS = ("auto", "identity", "temperature", "shared_platt", "platt", "isotonic")
PRIORS = ("auto", "none", "coco")
OPTIONS = {"method": "--method", "precision": "--precision", "smoothing": "--smoothing"}
OPTIONS |= {"objectives": "--objective", "alphas": "--alpha", "known_rate": "--known-rate"}

Run = Annotated[str | None, typer.Argument(metavar="RUN", help="The folder of a finished run, such as demo/run.")]
Method = Annotated[
    str,
    typer.Option("--method", metavar="NAME", help=f"{', '.join(METHODS[:-1])} or isotonic.", autocompletion=one_of(*METHODS)),
]
Prior = Annotated[
    str,
    typer.Option(
        "--prior",
        metavar="PRIOR",
        help="Label prior: auto (only if it helps), none, coco, or a file.",
        autocompletion=one_of(*PRIORS),
    ),
]
Precision = Annotated[
    float | None, typer.Option("--precision", metavar="P", help="Fit thresholds for this precision too, such as 0.9.")
]
Smoothing = Annotated[
    float | None,
    typer.Option("--smoothing", metavar="S", help="Smoothing for per-label thresholds; by default cross-validated."),
]
Objectives = Annotated[
    list[str] | None, typer.Option("--objective", metavar="NAME", help="Also fit thresholds for this objective: mean_F1.")
]
Alphas = Annotated[
    list[float] | None, typer.Option("--alpha", metavar="A", help="Level of a guarantee, instead of 0.05, 0.1 and 0.2; repeat.")
]
KnownRate = Annotated[
    float | None,
    typer.Option("--known-rate", metavar="R", help="Share of labels stated, at random: guarantees then cover all labels."),
]
SearchFile = Annotated[
    str | None, typer.Option("--search", metavar="FILE", help="Try the candidates of a search file on the run; change nothing.")
]


def calibrate(
    run_folder: Run = None,
    method: Method = "auto",
    prior: Prior = "auto",
    precision: Precision = None,
    smoothing: Smoothing = None,
    objectives: Objectives = None,
    alphas: Alphas = None,
    known_rate: KnownRate = None,
    search: SearchFile = None,
    as_json: AsJson = False,
) -> None:
    """Fit a calibrator, thresholds and guarantees on holdout.

    They go into the run's bundle, where `predict` uses them; val is only reported. With --search FILE, find out first which
    calibrator and rule suit the run best.

    Examples:

      rayprob calibrate demo/run
      rayprob calibrate demo/run --search tune_configs/thresholds.yaml
      rayprob calibrate demo/run --precision 0.9 --alpha 0.1
    """
    asked: dict[str, object] = {"method": method, "prior": prior, "precision": precision, "smoothing": smoothing}
    asked |= {"known_rate": known_rate, "objectives": list(dict.fromkeys(("OF1", "CF1", *(objectives or ()))))}
    asked |= {"alphas": alphas} if alphas else {}
    if search is None:
        _fit(run_folder, asked, as_json=as_json)
    else:
        _search(run_folder, asked, search, as_json=as_json)


def _fit(run_folder: str | None, asked: dict[str, object], *, as_json: bool) -> None:
    if run_folder is None:
        raise SpecError("calibrate needs the folder of a finished run, such as demo/run, or --search FILE")
    _check(run_folder, str(asked["prior"]))
    from rayprob.calibrate.crossfit import CalibrateSpec
    from rayprob.calibrate.fitting import calibrate as fit
    from rayprob.cli.show_calibration import show_calibration

    spec = CalibrateSpec.parse(asked, where="calibrate", options=OPTIONS)
    with status(err, "calibrating"):
        report = fit(run_folder, spec)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
        return
    show_calibration(out, run_folder, report)


def _check(run_folder: str, prior: str) -> None:
    """Refuse a wrong folder or prior before anything heavy is imported."""
    from rayprob.probability.priors.file import require_prior
    from rayprob.runs.kinds import require_finished

    require_finished(run_folder)
    require_prior(prior, also=("auto", "none"))


def _search(run_folder: str | None, asked: dict[str, object], file: str, *, as_json: bool) -> None:
    from rayprob.calibrate.crossfit import CalibrateSpec

    if CalibrateSpec.parse(asked, where="calibrate", options=OPTIONS) != CalibrateSpec():
        raise SpecError("--search FILE takes what to try from FILE; leave out the other options of calibrate")
    search_for_thresholds(file, [f"thresholds.run={run_folder}"] if run_folder else [], as_json=as_json)
