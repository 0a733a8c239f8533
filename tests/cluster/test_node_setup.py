"""What reaches a node: cluster/node/setup.sh, run with a stand-in for pip, and what `ray job submit --working-dir .` takes."""

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from tests.cluster.files import CLUSTER, ROOT

TOKEN = "a-token-for-this-test"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's home folder as `ray up` leaves it, with a `python` first in PATH that only writes down how it was called."""
    home = tmp_path / "home"
    shutil.copytree(CLUSTER / "node", home / "rayprob-node")
    (home / "rayprob-token").mkdir()
    (home / "rayprob-token" / "auth_token").write_text(TOKEN)
    (home / "bin").mkdir()
    python = home / "bin" / "python"
    python.write_text('#!/bin/sh\nif [ "$2" = pip ]; then echo "$@" >> ~/pip.log; else exec ' + sys.executable + ' "$@"; fi\n')
    python.chmod(0o755)
    return home


def run_in(home: Path, *command: str, cwd: Path | None = None) -> str:
    environment = {"HOME": str(home), "PATH": f"{home / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    done = subprocess.run(command, env=environment, cwd=cwd or home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def set_up(home: Path) -> None:
    run_in(home, "bash", str(home / "rayprob-node" / "setup.sh"))


def test_setup_installs_the_pinned_requirements_and_turns_the_token_on(home: Path) -> None:
    set_up(home)
    set_up(home)  # as `ray up` does again after a change
    assert f"--requirement {home / 'rayprob-node' / 'requirements.txt'}" in (home / "pip.log").read_text()
    token = home / ".ray" / "auth_token"
    assert token.read_text() == TOKEN
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert (home / ".bashrc").read_text().count("RAY_AUTH_MODE=token") == 1


def test_the_command_on_a_node_runs_the_code_of_the_current_folder(home: Path, tmp_path: Path) -> None:
    set_up(home)
    submitted = tmp_path / "submitted"
    (submitted / "rayprob").mkdir(parents=True)
    (submitted / "rayprob" / "__main__.py").write_text("import sys; print('submitted code', *sys.argv[1:])")
    assert run_in(home, "rayprob", "train", "x y.yaml", cwd=submitted) == "submitted code train x y.yaml\n"


def test_an_installed_rayprob_is_left_as_it_is(home: Path) -> None:
    installed = home / "bin" / "rayprob"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    set_up(home)
    assert installed.read_text() == "#!/bin/sh\n"


def test_a_node_without_the_token_fails_to_start(home: Path) -> None:
    (home / "rayprob-token" / "auth_token").unlink()
    with pytest.raises(AssertionError, match="auth_token"):
        set_up(home)


def test_a_job_takes_the_package_and_the_run_files_along_and_nothing_else(tmp_path: Path) -> None:
    project = tmp_path / "project"
    code = [path for path in (ROOT / "rayprob").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files = [*code, *ROOT.glob("tune_configs/*.yaml"), *ROOT.glob("shards/*.yaml"), *CLUSTER.glob("*.yaml")]
    at_hand = [str(path.relative_to(ROOT)) for path in (*files, ROOT / ".gitignore", ROOT / ".rayignore")]
    heavy = [".venv/lib/torch.so", ".git/objects/a", "shards/coco2014/train-000000.tar", "runs/paper/x.pt", "data/a.jpg"]
    for name in (*at_hand, *heavy):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"" if name in heavy else (ROOT / name).read_bytes())
    create_package(str(project), tmp_path / "package.zip", include_gitignore=True, excludes=[])
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        taken = set(package.namelist())
    wanted = {name for name in at_hand if name.startswith(("rayprob/", "tune_configs/", "shards/"))}
    assert wanted <= taken
    assert not {name for name in taken if name.split("/")[0] in (".venv", ".git", "runs", "data", "tests", "cluster")}
    assert not taken & set(heavy)
    assert (tmp_path / "package.zip").stat().st_size < 10 * 2**20, "Ray warns of files from 10 MiB on"
