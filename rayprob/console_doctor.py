"""What `rayprob doctor` shows a person: a table of findings, and whether the nodes are fit."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayprob.doctor.cluster import ClusterFacts, gather_here
from rayprob.doctor.finding import Finding
from rayprob.doctor.findings import is_fit

STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def examine(console: Console, uris: tuple[str, ...], cache_folder: str, *, cluster: bool) -> ClusterFacts:
    """Return the facts of this machine or of the cluster, saying meanwhile what is looked at."""
    with console.status("looking at this machine") as status:
        if not cluster:
            return gather_here(uris, cache_folder)
        from rayprob.doctor.on_ray import gather_cluster

        return gather_cluster(uris, cache_folder, status.update)


def show_findings(console: Console, found: list[Finding]) -> None:
    """Print a row for each finding, and below it what is wanted and what to do where something is to be done."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=32)
    table.add_column(overflow="fold")
    for finding in found:
        table.add_row(Text(finding.level, STYLES[finding.level]), Text(finding.check), _said(finding))
    console.print(table)
    console.print(verdict(found), highlight=False, soft_wrap=True)


def _said(finding: Finding) -> Text:
    said = Text(f"{finding.where}: {finding.found}")
    if finding.wanted:
        said.append(f"\nwanted: {finding.wanted}", "dim")
    if finding.remedy:
        said.append(f"\ndo: {finding.remedy}")
    return said


def verdict(found: list[Finding]) -> str:
    """Return the findings in one line."""
    counts = {level: sum(finding.level == level for finding in found) for level in STYLES}
    said = f"{counts['fault']} fault(s), {counts['warning']} warning(s), {counts['ok']} ok"
    return f"{said}: fit for a long job" if is_fit(found) else f"{said}: mend the faults before a long job"
