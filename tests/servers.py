"""Servers that tests start as processes of their own: a port to give them, and waiting until they listen."""

import socket
import subprocess
import time
from typing import Any

LIMIT_S = 240


def free_port() -> int:
    """Return a port that the system hands to no other process for about a minute.

    A connection that this side closes first leaves the port in TIME_WAIT: nobody is given it who asks for any free port, and a
    server that names it may listen on it, for servers set SO_REUSEADDR. A port that was only looked up may be taken meanwhile.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    return port


def wait_for_server(server: subprocess.Popen[Any], port: int) -> None:
    """Wait until a process listens on a port of this machine; fail when it ends instead."""
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert server.poll() is None, f"{server.args} ended with {server.returncode}"
            assert time.monotonic() < deadline_s, f"{server.args} does not listen after {LIMIT_S} s"
            time.sleep(0.1)
