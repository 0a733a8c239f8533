"""Verbs about clusters: submit, doctor. Heavy imports stay inside them; cli.py puts them on the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.terminal import Overrides, err, out


def submit(
    run_file: Annotated[
        str | None, typer.Argument(metavar="RUN_OR_SWEEP.yaml", help="What to train, or to tune where it has a search part.")
    ] = None,
    overrides: Overrides = None,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="The cluster's job server; by default http://127.0.0.1:8265.")
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="The job's name; by default the run's and the time.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="An environment variable of the job; repeat.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the log.")] = False,
    attach: Annotated[
        str | None, typer.Option("--attach", metavar="ID", help="Follow a job that was submitted before.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--stop", metavar="ID", help="Stop a job; it saves first.")] = None,
) -> None:
    """Run a run or sweep file as a job of a Ray cluster, and follow its log; the exit code is that of the job's end.

    The job brings this package and the file with what it extends, and nothing else. Ctrl-C leaves it running.
    """
    if sum(part is not None for part in (run_file, attach, stop)) != 1:
        raise typer.BadParameter("give one of RUN_OR_SWEEP.yaml, --attach ID, --stop ID")
    from rayprob.cli import show_submit
    from rayprob.submit.on_ray import Jobs

    if stop:
        show_submit.stop(err, Jobs(address), stop)
        return
    if run_file:
        name, job = show_submit.read_job(run_file, overrides or ())
        variables = show_submit.parse_env(env or ())
        jobs, attach = Jobs(address), show_submit.job_id_of(name, job_id)
        show_submit.submit(err, jobs, job, attach, variables)
        if no_wait:
            return
    else:
        jobs = Jobs(address)
    assert attach
    raise typer.Exit(show_submit.watch(err, jobs, attach))


def doctor(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at every node of the cluster, instead of this machine.")
    ] = False,
    uris: Annotated[
        list[str] | None, typer.Option("--storage", metavar="URI", help="A folder to write to and read from; repeat for more.")
    ] = None,
    cache_dir: Annotated[
        str, typer.Option("--cache-dir", metavar="DIR", help="Where shards would be cached: stream.cache_dir.")
    ] = "~/.cache/rayprob/shards",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Look before a long job: versions, GPUs, memory, storage, clocks, network, and what to do; exit code 1 for a fault.

    With --cluster, on every node of the cluster that RAY_ADDRESS names: inside a submitted job, that of the job.
    """
    from rayprob.cli.show_doctor import examine, show_findings
    from rayprob.doctor.findings import findings, is_fit

    facts = examine(err, tuple(uris or ()), cache_dir, cluster=cluster)
    found = findings(facts)
    if as_json:
        said = [finding.to_dict() for finding in found]
        typer.echo(json.dumps({"is_fit": is_fit(found), "findings": said, "facts": facts.to_dict()}))
    else:
        show_findings(out, found)
    if not is_fit(found):
        raise typer.Exit(1)
