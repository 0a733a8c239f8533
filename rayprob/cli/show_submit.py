"""The interactive part of `rayprob submit`: read the file, send it, follow the log, and ask before stopping."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console

from rayprob.calibrate.search_spec import ThresholdSearch
from rayprob.cli.terminal import show_line
from rayprob.config.spec import read_yaml
from rayprob.errors import SpecError
from rayprob.runs.spec import Run
from rayprob.serve.spec import ServeFile
from rayprob.submit.job import Job, check_run, default_id, require_absolute
from rayprob.submit.log import Log
from rayprob.submit.on_ray import DEFAULT_ADDRESS, End, Jobs
from rayprob.sweep.search import Sweep
from rayprob.systems.spec import SystemsFile, open_systems
from rayprob.text import printable

INTERRUPTED = 130
EXIT_CODES = {"SUCCEEDED": 0, "STOPPED": INTERRUPTED}


def read_job(file: str, overrides: Sequence[str]) -> tuple[str, Job]:
    """Return the name and job of a file of any kind that `train`, `tune` or `serve` takes, checked as on the cluster.

    Raises SpecError, RunError.
    """
    value = read_yaml(file, overrides)
    if "thresholds" in value:
        run = ThresholdSearch.read(file, overrides).thresholds.run
        require_absolute("thresholds.run", run, "/mnt/shared/runs/paper")
        return "thresholds", Job.of("tune", file, overrides)
    if "bundles" in value:
        served = ServeFile.read(file, overrides)
        for name, folder in served.bundles.items():
            require_absolute(f"bundles.{name}", folder, f"/mnt/shared/runs/{name}")
        if served.token_file:
            require_absolute("token_file", served.token_file, "/mnt/shared/token")
        return "serve", Job.of("serve", file, overrides)
    if "systems" in value:
        return _systems_job(file, overrides)
    if "search" in value:
        sweep = Sweep.read(file, overrides)
        check_run(sweep.run.model_copy(update={"folder": sweep.folder}))
        return sweep.run.name, Job.of("tune", file, overrides)
    run_spec = Run.read(file, overrides)
    check_run(run_spec)
    return run_spec.name, Job.of("train", file, overrides)


def _systems_job(file: str, overrides: Sequence[str]) -> tuple[str, Job]:
    """Return the name and job of a systems file, which takes the run files that it compares along."""
    opened = SystemsFile.read(file, overrides)
    require_absolute("folder", opened.folder_of_all, f"/mnt/shared/systems/{opened.name}")
    systems = open_systems(opened.systems)
    if opened.systems.source is not None:
        require_absolute("systems.source", opened.systems.source, "/mnt/shared/runs/paper")
    else:
        for system in systems:
            check_run(system.run.model_copy(update={"folder": opened.folder_of_all}))
    return opened.name, Job.of("tune", file, overrides, [system.file for system in systems])


def parse_env(assignments: Sequence[str]) -> dict[str, str]:
    """Return environment variables from NAME=VALUE texts. Raises SpecError."""
    split = [text.partition("=") for text in assignments]
    wrong = [text for text, (name, equals, _) in zip(assignments, split, strict=True) if not (name and equals)]
    if wrong:
        raise SpecError(f"--env takes NAME=VALUE, such as NCCL_SOCKET_IFNAME=eth0; found {wrong[0]!r}")
    return {name: value for name, _, value in split}


def submit(console: Console, jobs: Jobs, job: Job, job_id: str, env: Mapping[str, str]) -> None:
    """Send a job and print what was sent and how to return to it."""
    with tempfile.TemporaryDirectory(prefix="rayprob-submit-") as folder:
        job.pack(Path(folder))
        jobs.submit(job.entrypoint, folder, job_id, env)
    show_line(console, f"submitted {job_id} to {jobs.address}: {job.entrypoint}")
    show_line(console, ways_back(jobs, job_id))


def job_id_of(name: str, given: str | None) -> str:
    """Return the given id, or one made of the run's name and the time."""
    return given or default_id(name, datetime.now())


def watch(console: Console, jobs: Jobs, job_id: str) -> int:
    """Print a job's log until it ends and return the exit code. On Ctrl-C, ask whether to stop the job."""
    log, is_stopping = Log(_print_raw), False
    while True:
        try:
            return _ended(console, job_id, jobs.follow(job_id, log, lambda text: show_line(console, text)))
        except KeyboardInterrupt:
            if is_stopping or not wants_to_stop(job_id):
                show_line(console, f"{job_id} continues without this terminal. {ways_back(jobs, job_id)}")
                return INTERRUPTED
        is_stopping = jobs.stop(job_id)
        show_line(console, f"asked {job_id} to stop; it saves first. Ctrl-C stops following it")


def wants_to_stop(job_id: str) -> bool:
    """Ask whether to stop the job; without a terminal, no."""
    if not sys.stdin.isatty():
        return False
    try:
        return typer.confirm(f"\nstop {printable(job_id)}? Otherwise it continues", default=False, err=True)
    except (typer.Abort, KeyboardInterrupt):
        return False


def ways_back(jobs: Jobs, job_id: str) -> str:
    """Return the commands that follow the job again and that stop it."""
    address = "" if jobs.address == DEFAULT_ADDRESS else f" --address {jobs.address}"
    return f"follow: rayprob submit --attach {job_id}{address}    stop: rayprob submit --stop {job_id}{address}"


def stop(console: Console, jobs: Jobs, job_id: str) -> None:
    """Ask a job to stop, and print the outcome."""
    said = "asked to stop; it saves first" if jobs.stop(job_id) else "is not running; nothing to stop"
    show_line(console, f"{job_id} {said}")


def _ended(console: Console, job_id: str, end: End) -> int:
    # Ray's message repeats the end of the log, which was already printed.
    said = "" if end.status == "SUCCEEDED" else f": {end.message.partition(', last available logs')[0].strip()}"
    show_line(console, f"{job_id} {end.status.lower()}{said}")
    return EXIT_CODES.get(end.status, 1)


def _print_raw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
