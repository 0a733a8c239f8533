"""The output of `rayprob doctor`: a table of findings, and whether the nodes are ready."""

from rich.console import Console
from rich.text import Text

from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line, status, styled
from rayprob.doctor.cluster import ClusterFacts, gather_here
from rayprob.doctor.finding import Finding
from rayprob.doctor.findings import is_fit
from rayprob.text import counted

STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def examine(console: Console, uris: tuple[str, ...], cache_folder: str, *, cluster: bool) -> ClusterFacts:
    """Return the facts of this machine or of the cluster, showing what is being checked."""
    with status(console, "checking this machine") as look_at:
        if not cluster:
            return gather_here(uris, cache_folder)
        from rayprob.doctor.on_ray import gather_cluster

        return gather_cluster(uris, cache_folder, look_at)


def show_findings(console: Console, found: list[Finding]) -> None:
    """Print one row per finding; below a warning or fault, what is required and what to do."""
    table = Table()
    table.word()
    table.prose()
    table.prose()
    for finding in found:
        table.row(styled(finding.level, STYLES[finding.level]), finding.check, _said(finding))
    show_table(console, table)
    show_line(console, verdict(found))


def _said(finding: Finding) -> Text:
    lines = [styled(f"{finding.where}: {finding.found}")]
    if finding.wanted:
        lines.append(styled(f"wanted: {finding.wanted}", "dim"))
    if finding.remedy:
        lines.append(styled(f"do: {finding.remedy}"))
    return Text("\n").join(lines)


def verdict(found: list[Finding]) -> str:
    """Return the findings in one line."""
    counts = {level: sum(finding.level == level for finding in found) for level in STYLES}
    found_counts = f"{counted(counts['fault'], 'fault')}, {counted(counts['warning'], 'warning')}, {counts['ok']} ok"
    return f"{found_counts}: ready for a long job" if is_fit(found) else f"{found_counts}: fix the faults before a long job"
