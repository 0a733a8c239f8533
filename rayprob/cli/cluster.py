"""Verbs about clusters: submit, doctor. Heavy imports stay inside them; app.py puts them on the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.terminal import AsJson, Overrides, err, out


def submit(
    run_file: Annotated[
        str | None,
        typer.Argument(metavar="RUN_OR_SWEEP.yaml", help="A run file to train, a sweep to tune, or a serve file."),
    ] = None,
    overrides: Overrides = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="The cluster's job server; by default http://127.0.0.1:8265.")
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="The job's name; by default the run's name and the time.")
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
    """Run a run, sweep, systems or serve file as a job on a Ray cluster.

    The job gets this package, the file, and the files that it extends or compares. Follows the job's log, and exits with the
    job's exit code; Ctrl-C leaves the job running.

    Examples:

      rayprob submit tune_configs/paper.yaml --set folder=/mnt/shared/runs/paper
      rayprob submit --stop paper-20261128-120000
    """
    if sum(part is not None for part in (run_file, attach, stop)) != 1:
        raise typer.BadParameter("expected exactly one of RUN_OR_SWEEP.yaml, --attach ID and --stop ID")
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
        bool, typer.Option("--cluster", help="Check every node of the cluster instead of this machine.")
    ] = False,
    uris: Annotated[
        list[str] | None,
        typer.Option("--storage", metavar="URI", help="A folder to test by writing and reading; repeat for more."),
    ] = None,
    cache_dir: Annotated[
        str, typer.Option("--cache-dir", metavar="DIR", help="Where shards would be cached: stream.cache_dir.")
    ] = "~/.cache/rayprob/shards",
    as_json: AsJson = False,
) -> None:
    """Check this machine or a cluster before a long job.

    Checks versions, GPUs, memory, storage, clocks and network, and prints what to do about each fault; the exit code is
    then 1. With --cluster it checks every node of the cluster at RAY_ADDRESS; inside a job, of the job's cluster.

    Examples:

      rayprob doctor
      rayprob doctor --cluster --storage s3://bucket/runs
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
