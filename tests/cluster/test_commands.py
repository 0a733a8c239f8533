"""The commands in the comments of cluster/ are real: Ray's and rayprob's own parsers take them, and every file exists."""

import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from click import Command, Context
from click.exceptions import UsageError
from pydantic import BaseModel
from ray.scripts.scripts import cli as ray_cli

from rayprob.cli.app import app
from rayprob.cli.show_submit import read_job
from rayprob.runs.spec import Run
from tests.cluster.files import CLUSTER, LAUNCHER_FILES, ROOT, commands, read_launcher_file, read_manifests

FILES = [*(CLUSTER / f"{name}.yaml" for name in LAUNCHER_FILES), CLUSTER / "kuberay" / "raycluster.yaml"]
by_name = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def parse(command: Any, arguments: list[str]) -> Context:
    """Parse as the program would, without running anything. Raises UsageError for what the program does not take."""
    context = command.make_context(command.name, list(arguments))
    rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
    if hasattr(command, "resolve_command"):
        _, below, rest = command.resolve_command(context, rest)
        return parse(below, rest)
    return context


@by_name
def test_ray_takes_its_commands(path: Path) -> None:
    found = commands(path, "ray")
    assert "train" in next(arguments for arguments in found if arguments[:2] == ["job", "submit"])
    for arguments in found:
        context = parse(ray_cli, arguments)
        cluster_file = context.params.get("cluster_config_file")
        assert cluster_file in (None, f"cluster/{path.name}")


def test_every_launcher_file_tells_the_whole_way() -> None:
    for name in LAUNCHER_FILES:
        verbs = {" ".join(arguments[: 1 + (arguments[0] == "job")]) for arguments in commands(CLUSTER / f"{name}.yaml", "ray")}
        assert {"get-auth-token", "up", "dashboard", "job submit", "job logs", "exec", "down"} <= verbs, name


@by_name
def test_rayprob_takes_its_commands(path: Path) -> None:
    found = commands(path, "rayprob")
    assert {"train", "submit", "doctor"} <= {arguments[0] for arguments in found}
    for arguments in found:
        check_rayprob(arguments)


def test_rayprob_takes_what_slurm_runs() -> None:
    lines = commands(CLUSTER / "slurm.sh", r"sbatch(?: --\S+)*")
    found = [arguments[arguments.index("cluster/slurm.sh") + 1 :] for arguments in lines]
    assert [arguments[0] for arguments in found] == ["doctor", "train"]
    for arguments in found:
        check_rayprob(arguments)


def test_rayprob_takes_the_entrypoint_of_the_rayjob() -> None:
    entrypoint = shlex.split(read_manifests("rayjob")[0]["spec"]["entrypoint"])
    assert entrypoint[0] == "rayprob"
    entrypoint[2] = entrypoint[2].removeprefix("/opt/rayprob/")
    check_rayprob(entrypoint[1:])


def check_rayprob(arguments: list[str]) -> None:
    context = parse(typer.main.get_command(app), arguments)
    if arguments[0] in ("train", "shard", "submit"):
        assert (ROOT / arguments[1]).is_file(), arguments[1]
    if arguments[0] in ("train", "submit"):
        keys = [setting.split("=")[0] for setting in context.params["overrides"]]
        assert "folder" in keys, "without a shared folder, a run is lost with the node that it ran on"
        assert not [key for key in keys if not has_key(Run, key)]
    if arguments[0] == "submit":
        read_job(str(ROOT / arguments[1]), context.params["overrides"])


def has_key(model: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    if first not in getattr(model, "model_fields", {}):
        return False
    annotation = model.model_fields[first].annotation
    parts = [part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, BaseModel)]
    return not rest or any(has_key(part, rest) for part in parts)


def test_a_command_with_a_wrong_option_or_key_is_found() -> None:
    with pytest.raises(UsageError, match="No such option"):
        parse(ray_cli, ["job", "submit", "--adress", "x", "--", "true"])
    with pytest.raises(Exception, match="No such command 'trian'"):  # of typer's own copy of click
        parse(typer.main.get_command(app), ["trian", "x"])
    assert has_key(Run, "placement.num_workers")
    assert not has_key(Run, "placement.workers")


def test_ray_takes_the_start_commands() -> None:
    starts = [
        shlex.split(command[command.index("ray start") :])[1:]
        for name in LAUNCHER_FILES
        for part in ("head", "worker")
        for command in read_launcher_file(name)[f"{part}_start_ray_commands"][-1:]
    ]
    assert len(starts) == 2 * len(LAUNCHER_FILES)
    for arguments in starts:
        assert isinstance(parse(ray_cli, arguments).command, Command)
