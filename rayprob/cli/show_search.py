"""The output of a threshold search."""

from rich.console import Console

from rayprob.calibrate.candidates import best_of
from rayprob.calibrate.search import SearchReport
from rayprob.cli.show_calibration import plain_table
from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line
from rayprob.runs.paths import RunFolder

LEGEND = (
    "holdout: cross-validated; calibrator and thresholds are fitted, and the parameter chosen, on the other folds; best: "
    "the candidate's own cross-validated value, optimistic as the highest of many. val decides nothing; gains on it have "
    "a 95 % interval over images. raw, identity: the network's uncalibrated marginals, which are fine for label sets but not "
    "for probabilities."
)
SHORT = {"temperature": "temp.", "shared_platt": "shared", "identity": "raw"}


def show_threshold_search(console: Console, report: SearchReport) -> None:
    """Print the speed, the policies side by side, the winners with their gains on val, and how to use them."""
    show_line(
        console,
        f"{report.run}: {report.num_candidates:,} candidates on {report.num_samples:,} images of holdout and "
        f"{report.num_labels} labels in {report.elapsed_s:.1f} s: {report.candidates_per_s:,.0f} per second",
    )
    show_table(console, _policies_table(report))
    show_table(console, _winners_table(report))
    if report.num_reported is not None:
        show_table(console, _gains_table(report))
    show_line(console, LEGEND, "dim")
    for note in report.notes:
        show_line(console, f"note: {note}")
    paths = RunFolder(report.folder)
    show_line(console, f"written: {paths.threshold_candidates}    {paths.threshold_search}")
    for winner in report.winners:
        if winner.command:
            show_line(console, f"for {winner.objective}: {winner.command}    then --rule {winner.rule}")


def _policies_table(report: SearchReport) -> Table:
    aims = [winner.objective for winner in report.winners]
    table = plain_table("policies on holdout, each with its best calibrator", aims)
    for name in dict.fromkeys(one.name for one in report.references):
        found = [f"{one.holdout:.4f}" for one in report.references if one.name == name]
        table.row(f"{name}, raw", *found, style="dim")
    for policy in dict.fromkeys(family.policy for family in report.families):
        best = [best_of([family for family in report.families if family.policy == policy], aim) for aim in aims]
        cells = zip(best, aims, strict=True)
        table.row(policy, *(f"{one.nested[aim]:.4f} {SHORT.get(one.calibrator, one.calibrator)}" for one, aim in cells))
    return table


def _winners_table(report: SearchReport) -> Table:
    table = plain_table("winners", [])
    table.name("calibrator")
    table.name("policy")
    table.number("parameter", "holdout", "best", "val")
    for one in report.winners:
        parameter = "-" if one.parameter is None else f"{one.parameter:.4g}"
        on_val = f"{one.val[one.objective]:.4f}" if one.val else "-"
        numbers = (parameter, f"{one.nested:.4f}", f"{one.cross_validated:.4f}", on_val)
        table.row(one.objective, one.calibrator, one.policy, *numbers)
    return table


def _gains_table(report: SearchReport) -> Table:
    table = plain_table(f"gains on val ({report.num_reported:,} images)", ["winner"])
    table.name("over")
    table.number("there", "gain", "95 % interval")
    for winner in report.winners:
        for gain in winner.gains:
            value = (winner.val or {})[gain.metric]
            numbers = (f"{value - gain.value:.4f}", f"{gain.value:+.4f}", f"{gain.low:+.4f} to {gain.high:+.4f}")
            table.row(f"for {winner.objective}: {gain.metric}", f"{value:.4f}", gain.over, *numbers)
    return table
