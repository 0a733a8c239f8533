"""The output of `predict`: one image as a table, several as a few lines each; figures and Parquet tables."""

import json
from collections.abc import Sequence

import typer
from rich.console import Console

from rayprob.cli.show_run import sample_progress
from rayprob.cli.table import Bar, Table, show_table
from rayprob.cli.terminal import show_line, status
from rayprob.explain.explanation import Explanation
from rayprob.predict.figure import write_figure
from rayprob.predict.figure_files import FigureFiles
from rayprob.predict.job import PredictJob
from rayprob.predict.on_ray import write_table_on_ray
from rayprob.predict.record import EstimatedAnswer, Record, Rejected
from rayprob.predict.table import write_table_here
from rayprob.probability.queries.explain import Why
from rayprob.text import counted

BAR_COLUMNS = 24
MOST_NAMED = 20
FEWEST_SHARE = 0.05  # of P(label): components below this share are not listed


def show_outcomes(out: Console, err: Console, job: PredictJob, *, as_json: bool, figures: str | None) -> tuple[int, int]:
    """Print each prediction as it arrives and write figures if requested; return the numbers of rejected and of all images."""
    with status(err, "opening the model"):
        asking, images = job.open()
    show = _show_json if as_json else show_record if len(images) == 1 else show_lines
    num_rejected = 0
    files = FigureFiles(figures) if figures else None
    for outcome in asking.outcomes(images):
        if isinstance(outcome, Rejected):
            num_rejected += 1
            show_line(err, str(outcome), style="red")
            if as_json:
                typer.echo(json.dumps(outcome.to_dict()))
            continue
        show(out, outcome)
        if files:
            write_figure(outcome, files.path_for(outcome.image))
    if files:
        show_line(err if as_json else out, files.summary())
    return num_rejected, len(images)


def write_parquet(out: Console, err: Console, job: PredictJob, path: str, *, on_ray: bool) -> tuple[int, int]:
    """Write a table and list at most MOST_NAMED rejected images; return the numbers of rejected and of all images."""
    with sample_progress(err, "predicting") as on_progress:
        written = write_table_on_ray(job, path, on_progress) if on_ray else write_table_here(job, path, on_progress)
    for text in written.rejected[:MOST_NAMED]:
        show_line(err, text, style="red")
    if len(written.rejected) > MOST_NAMED:
        show_line(err, f"... and {len(written.rejected) - MOST_NAMED:,} more; the column `error` lists them all", style="red")
    show_line(out, f"{'already there: ' if written.was_there else ''}{path}: {counted(written.num_images, 'row')}")
    return len(written.rejected), written.num_images


def finish(err: Console, num_rejected: int, num_images: int, *, skip_bad: bool) -> None:
    """Exit with code 1 if all images were rejected, or any without `skip_bad`."""
    if not num_rejected:
        return
    is_fault = not skip_bad or num_rejected == num_images
    remedy = "; --skip-bad ignores them" if not skip_bad and num_rejected < num_images else ""
    show_line(err, f"{num_rejected:,} of {num_images:,} images could not be read{remedy}", style="red" if is_fault else "")
    if is_fault:
        raise typer.Exit(1)


def show_lines(console: Console, record: Record) -> None:
    """Print the prediction for one of several images in a few lines."""
    show_line(console, record.image.name, style="bold")
    lines = [_marginal(line.label, line.marginal, line.without_evidence, record) for line in record.labels]
    show_line(console, f"  {'   '.join(lines)}")
    _facts(console, record, "  ")


def show_record(console: Console, record: Record) -> None:
    """Print the prediction for a single image, its labels as bars."""
    show_line(console, record.image.name, style="bold")
    table = Table()
    table.name()
    table.bars(BAR_COLUMNS)
    table.number(*(("marginal", "without evidence") if record.evidence else ("",)))
    table.word()
    for line in record.labels:
        is_chosen = line.label in record.label_set
        bar = Bar(line.marginal, "blue" if is_chosen else "bright_black")
        before = () if not record.evidence else ("" if line.without_evidence is None else f"{line.without_evidence:.3f}",)
        mark = "known" if line.label in record.evidence else "in the set" if is_chosen else ""
        table.row(line.label, bar, f"{line.marginal:.3f}", *before, mark)
    show_table(console, table)
    _facts(console, record, "")


def _show_json(console: Console, record: Record) -> None:
    typer.echo(json.dumps(record.to_dict(), allow_nan=False))


def _facts(console: Console, record: Record, indent: str) -> None:
    show_line(console, f"{indent}label set by {record.rule}: {', '.join(record.label_set) or '(no label)'}")
    if record.guarantee:
        show_line(console, f"{indent}this rule {record.guarantee}")
    if record.top_sets is not None:
        sets = "   ".join(f"{line.probability:.3f} {{{', '.join(line.labels)}}}" for line in record.top_sets)
        show_line(console, f"{indent}most probable sets: {sets}")
    error = f" +- {record.entropy_standard_error:.2f}" if record.entropy_standard_error >= 0.005 else ""
    show_line(console, f"{indent}entropy {record.entropy_nats:.2f}{error} nats{_doubt(record)}")
    for answer in record.answers:
        if answer.probability is not None:
            error = f" +- {answer.standard_error:.2g}" if isinstance(answer, EstimatedAnswer) else ""
            show_line(console, f"{indent}{answer.query} = {answer.probability:.4g}{error}", style="green")
    for line in _maps(record.explanations or ()):
        show_line(console, f"{indent}{line}")
    for why in record.why:
        show_line(console, f"{indent}why {why.label}: {_why(why)}")
    for note in record.notes:
        show_line(console, f"{indent}{note}", style="dim")


def _maps(explanations: Sequence[Explanation]) -> list[str]:
    """Return a line per label: where its map is largest, and what that place adds to the logit if the map is exact."""
    return [
        f"seen {one.where}: {one.label}, by {one.method}"
        + (f": {one.grid_HW.max():+.2f} of the logit {one.logit:+.2f}" if one.exact else "")
        for one in explanations
    ]


def _marginal(label: str, marginal: float, without_evidence: float | None, record: Record) -> str:
    if label in record.evidence:
        return f"[{'' if record.evidence[label] else '!'}{label} known]"
    before = "" if without_evidence is None else f" (was {without_evidence:.2f})"
    return f"{label} {marginal:.2f}{before}"


def _doubt(record: Record) -> str:
    doubt = record.uncertainty
    if doubt is None:
        return ""
    return (
        f"; {doubt.members} members, summed over labels: total {doubt.total_nats:.2f} = aleatoric {doubt.aleatoric_nats:.2f} "
        f"+ epistemic {doubt.epistemic_nats:.2f} nats"
    )


def _why(why: Why) -> str:
    pieces = ", ".join(f"{'' if piece.is_present else '!'}{piece.name} {piece.last:+.2f}" for piece in why.pieces)
    scenes = "; ".join(
        f"<{scene.name}> {scene.weight_before:.2f} -> {scene.weight:.2f}" for scene in why.scenes if scene.share >= FEWEST_SHARE
    )
    return f"log-odds {why.log_odds_before:+.2f} -> {why.log_odds:+.2f} by {pieces}" + (
        f"; components {scenes}" if scenes else ""
    )
