"""cluster/slurm.sh among stand-ins for the commands of Slurm and Ray and for rayprob, which write down how they are called."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.scripts.scripts import cli as ray_cli

from tests.cluster.files import CLUSTER
from tests.cluster.test_commands import parse

SCRIPT = CLUSTER / "slurm.sh"
STAND_INS = {
    # exec: a signal to srun reaches the task, as srun hands USR2 on.
    "srun": """echo "srun $*" | sed 's/ bash -c.*//;q' >> $LOG
while [[ $1 == --* ]]; do shift; done
exec "$@" """,
    "scontrol": """[[ $2 == hostnames ]] && printf 'n1\\nn2\\n' && exit
echo "scontrol $*" >> $LOG""",
    "getent": "exit 2",
    "hostname": "echo 127.0.0.1",
    # The trap stands before the call is written down, since the tests send signals as soon as they read the call.
    "ray": """trap 'kill $server 2> /dev/null; echo "ray ended" >> $LOG; exit 1' TERM
echo "ray $*" >> $LOG
[[ -n ${RAY_CODE:-} ]] && echo "Ray has no luck" && exit $RAY_CODE
stat --format '%a' "${RAY_AUTH_TOKEN_PATH%/*}" "$RAY_AUTH_TOKEN_PATH" >> $LOG.modes
echo "$(cat "$RAY_AUTH_TOKEN_PATH") $RAY_AUTH_MODE ${RAY_AUTH_TOKEN-unset}" >> $LOG.tokens
if [[ "$*" == *--head* ]]; then $PYTHON -m http.server --bind 127.0.0.1 "${RAY_ADDRESS#*:}" & server=$!; fi
while true; do sleep 0.1; done""",
    "python": """[[ $1 == -c ]] && exec $PYTHON "$@"
until [[ $(grep -c "^ray start" $LOG) == 2 ]]; do sleep 0.02; done
echo "python sees $2 nodes" >> $LOG""",
    "rayprob": """trap 'echo saved >> $LOG; exit ${SAVED_CODE:-130}' INT
[[ -n ${FROZEN:-} ]] && trap '' INT
echo "rayprob $*" >> $LOG
if [[ $1 == doctor ]]; then
  until [[ -z ${GATED:-} || -e $LOG.gate ]]; do sleep 0.02; done
  exit "${DOCTOR_CODE:-0}"
fi
[[ -n ${ENDS:-} ]] && exit "$ENDS"
while true; do sleep 0.1; done""",
}
LIMIT_S = 240
TRAIN = ("train", "run.yaml", "--set", "folder=/shared/run with spaces")


@dataclass(frozen=True)
class Job:
    """One job of slurm.sh: its process, what was called so far, and the folder that it makes on each node."""

    process: subprocess.Popen[str]
    log: Path
    folder: Path
    held: socket.socket

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, call: str) -> None:
        deadline_s = time.monotonic() + LIMIT_S
        while not any(line.startswith(call) for line in self.calls):
            assert time.monotonic() < deadline_s, self.calls
            time.sleep(0.02)

    def open_gate(self) -> None:
        """Let a doctor end that was started with GATED."""
        self.log.with_name("log.gate").touch()

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and all that was said."""
        said, _ = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, said


Submit = Callable[..., Job]


@pytest.fixture
def submit(tmp_path: Path) -> Iterator[Submit]:
    jobs: list[Job] = []

    def start(*command: str, script: Path = SCRIPT, **environment: str) -> Job:
        jobs.append(start_job(tmp_path / f"job{len(jobs)}", command, script, environment))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.process.poll() is None:
            job.process.kill()
        shutil.rmtree(job.folder, ignore_errors=True)
        job.held.close()


def start_job(home: Path, command: tuple[str, ...], script: Path, environment: dict[str, str]) -> Job:
    """Run the script as Slurm does, with Slurm's variables, and the stand-ins first in PATH."""
    (home / "bin").mkdir(parents=True)
    for name, body in STAND_INS.items():
        (home / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (home / "bin" / name).chmod(0o755)
    held, tens = hold_ports()
    job_id = 1000 * os.getpid() + tens
    slurm = {"SLURM_JOB_ID": str(job_id), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    slurm |= {"SLURM_CPUS_PER_TASK": "12", "SLURM_CPUS_ON_NODE": "24", "SLURM_GPUS_ON_NODE": "4"}
    ours = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "LOG": str(home / "log"), "PYTHON": sys.executable, "HOME": str(home)}
    process = subprocess.Popen(
        ["bash", str(script), *command],
        env={**ours, **slurm, "RAY_AUTH_TOKEN": "of-another-cluster", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Job(process, home / "log", Path(f"/tmp/rayprob-{job_id}"), held)


def hold_ports() -> tuple[socket.socket, int]:
    """Return n for a job whose ten ports from 20000 + 10 n on no other test has: who listens on the last has all ten."""
    for tens in random.Random().sample(range(1000), 1000):
        try:
            return socket.create_server(("127.0.0.1", 20009 + 10 * tens)), tens
        except OSError:
            continue
    raise AssertionError("every port of 20009, 20019, ... 29999 is taken")


def test_the_head_comes_first_then_the_workers_the_doctor_and_the_run(submit: Submit) -> None:
    job = submit(*TRAIN, ENDS="0")
    code, said = job.end()
    assert code == 0, said
    port = 20000 + int(job.folder.name.removeprefix("rayprob-")) % 1000 * 10
    token, head_step, head, worker_step, worker, nodes, doctor, train = sorted(job.calls[:8], key=place)
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1" in token
    assert "--nodes=1 --ntasks=1" in head_step
    assert "--nodelist=n1" in head_step
    assert "--nodes=1 --ntasks=1" in worker_step
    assert "--exclude=n1" in worker_step
    assert all("--overlap --export=ALL" in step and "--cpus-per-task=12" in step for step in (token, head_step, worker_step))
    assert head.startswith(f"ray start --head --node-ip-address=127.0.0.1 --port={port} --dashboard-host=127.0.0.1 ")
    assert worker.startswith(f"ray start --address=127.0.0.1:{port} ")
    assert all("--block --num-gpus=4" in start and "--num-cpus=12" in start for start in (head, worker))
    for start in (head, worker):
        parse(ray_cli, start.split()[1:])
    assert nodes == "python sees 2 nodes"
    assert (doctor, train) == ("rayprob doctor --cluster", f"rayprob {' '.join(TRAIN)}")
    assert job.calls.index(head) < job.calls.index(worker_step)
    assert job.calls.index(nodes) < job.calls.index(doctor) < job.calls.index(train)


def place(call: str) -> int:
    """Return where a call stands in the story; the worker and the wait for it run side by side."""
    marks = ("--nodes=2", "--nodelist", "ray start --head", "--exclude", "ray start --address", "python", "doctor", "train")
    return next(number for number, mark in enumerate(marks) if mark in call)


def test_each_job_has_its_own_token_that_only_its_user_can_read(submit: Submit) -> None:
    jobs = [submit(*TRAIN, ENDS="0") for _ in range(2)]
    saids = [job.end()[1] for job in jobs]
    tokens = set()
    for job, said in zip(jobs, saids, strict=True):
        modes = job.log.with_name("log.modes").read_text().split()
        assert modes == ["700", "600"] * 2, said
        (given,) = set(job.log.with_name("log.tokens").read_text().splitlines())  # the same on head and worker
        token, mode, variable = given.split()
        assert (len(token), mode, variable) == (64, "token", "unset")
        assert not [call for call in job.calls if token in call]
        assert token not in said
        assert f"RAY_AUTH_TOKEN_PATH={job.folder}/auth_token" in said
        assert not job.folder.exists()
        tokens.add(token)
    assert len(tokens) == 2


def test_before_the_time_limit_the_run_saves_and_the_job_is_queued_again(submit: Submit) -> None:
    job = submit(*TRAIN)
    job.wait_for("rayprob train")
    job.process.send_signal(signal.SIGUSR1)
    code, said = job.end()
    requeue = f"scontrol requeue {job.folder.name.removeprefix('rayprob-')}"
    assert job.calls[-4:] == ["saved", "ray ended", "ray ended", requeue], said
    assert code == 130
    assert not job.folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_job_saves_and_ends(submit: Submit, number: signal.Signals) -> None:
    job = submit(*TRAIN)
    job.wait_for("rayprob train")
    job.process.send_signal(number)
    code, said = job.end()
    assert job.calls[-3:] == ["saved", "ray ended", "ray ended"], said
    assert code == 130


def test_a_run_that_does_not_save_in_time_is_ended_and_queued_again(submit: Submit, tmp_path: Path) -> None:
    hurried = tmp_path / "slurm.sh"
    text = SCRIPT.read_text()
    assert "\nsave_s=240 " in text
    hurried.write_text(text.replace("\nsave_s=240 ", "\nsave_s=1 "))
    job = submit(*TRAIN, script=hurried, FROZEN="yes")
    job.wait_for("rayprob train")
    job.process.send_signal(signal.SIGUSR1)
    code, said = job.end()
    assert code == 137, said
    assert "saved" not in job.calls
    assert job.calls[-1].startswith("scontrol requeue")


@pytest.mark.parametrize("code", [0, 1])
def test_a_run_that_ends_by_itself_is_not_queued_again(submit: Submit, code: int) -> None:
    job = submit(*TRAIN, SAVED_CODE=str(code))  # finished, or failed, in the moment of the signal
    job.wait_for("rayprob train")
    job.process.send_signal(signal.SIGUSR1)
    assert job.end()[0] == code
    assert job.calls[-3:] == ["saved", "ray ended", "ray ended"]


def test_a_signal_before_the_run_starts_keeps_it_from_starting(submit: Submit) -> None:
    job = submit(*TRAIN, GATED="yes")
    job.wait_for("rayprob doctor")
    job.process.send_signal(signal.SIGUSR1)
    job.open_gate()
    assert job.end()[0] == 130
    assert not [call for call in job.calls if call.startswith("rayprob train")]
    assert job.calls[-1].startswith("scontrol requeue")


def test_a_cancelled_job_is_not_queued_again_although_its_time_is_up_too(submit: Submit) -> None:
    job = submit(*TRAIN, GATED="yes")
    job.wait_for("rayprob doctor")
    job.process.send_signal(signal.SIGINT)
    job.process.send_signal(signal.SIGUSR1)
    job.open_gate()
    assert job.end()[0] == 130
    assert job.calls[-2:] == ["ray ended", "ray ended"]


def test_a_fault_that_the_doctor_finds_ends_the_job(submit: Submit) -> None:
    job = submit(*TRAIN, DOCTOR_CODE="1")
    assert job.end()[0] == 1
    assert job.calls[-3:] == ["rayprob doctor --cluster", "ray ended", "ray ended"]


def test_the_doctor_can_be_the_command_and_then_runs_once(submit: Submit) -> None:
    job = submit("doctor", "--cluster", "--storage", "/shared/runs")
    assert job.end()[0] == 0
    assert [call for call in job.calls if call.startswith("rayprob")] == ["rayprob doctor --cluster --storage /shared/runs"]


def test_a_head_that_does_not_start_ends_the_job_with_its_words(submit: Submit) -> None:
    code, said = submit(*TRAIN, RAY_CODE="3").end()
    assert code == 1
    assert "Ray has no luck" in said
    assert "Ray did not start on n1; see its output above" in said


def test_without_a_command_nothing_starts(submit: Submit) -> None:
    job = submit()
    code, said = job.end()
    assert (code, job.calls) == (1, [])
    assert "no command given; for example: sbatch cluster/slurm.sh train" in said


@pytest.mark.parametrize("path", [SCRIPT, CLUSTER / "node" / "setup.sh"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path, tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("needs shellcheck (pip install -e .[dev])")

    def check(script: Path) -> int:
        return subprocess.run([shellcheck, "--severity=warning", script], stdout=subprocess.DEVNULL, check=False).returncode

    assert check(path) == 0
    (tmp_path / "faulty.sh").write_text(path.read_text() + '\nrm -rf "$nowhere/"*\n')
    assert check(tmp_path / "faulty.sh") == 1
