"""The suite's own surroundings: what it takes from a shell, and the ports it gives to servers."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from tests.environment import FOREIGN, OURS, ROOT
from tests.servers import free_port

SHELL = {
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_AUTH_MODE": "token",
    "AWS_PROFILE": "mine",
    "HTTPS_PROXY": "http://10.0.0.1:3128",
    "WORLD_SIZE": "8",
    "GITHUB_ACTIONS": "true",
    "COLUMNS": "200",
    "OMP_NUM_THREADS": "64",
}


def test_settings_of_a_shell_do_not_reach_the_suite() -> None:
    program = "import json, os\nfrom tests.environment import isolate\nisolate()\nprint(json.dumps(dict(os.environ)))"
    command, environment = [sys.executable, "-c", program], {**os.environ, **SHELL}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert os.path.isdir(found["RAY_TMPDIR"])
    shutil.rmtree(found["RAY_TMPDIR"])
    assert OURS.items() <= found.items()
    assert not {"RAY_ADDRESS", "AWS_PROFILE", "HTTPS_PROXY", *FOREIGN} & found.keys()
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


def test_this_process_runs_in_these_surroundings() -> None:
    assert OURS.items() <= os.environ.items()
    assert "RAY_ADDRESS" not in os.environ


def test_a_free_port_is_kept_from_others_and_open_to_a_server_that_names_it() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)):
        pass
