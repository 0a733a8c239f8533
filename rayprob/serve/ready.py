"""What is checked before Ray starts, so that a first mistake is answered at once."""

import errno
import importlib.util
import ipaddress
import socket

from rayprob.errors import ServeError
from rayprob.runs.kinds import require_bundle
from rayprob.serve.access import MAKE_ONE, read_token
from rayprob.serve.spec import ServeFile

NEEDED = {"fastapi": "ray[serve]", "uvicorn": "ray[serve]", "python_multipart": "python-multipart"}
LOCALHOST = "localhost"


def require_ready(file: ServeFile) -> None:
    """Raise ServeError or BundleError unless the bundles, the packages, the token and the address are there to be used."""
    missing = sorted({package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None})
    if missing:
        raise ServeError(f"serve needs {', '.join(missing)}, which is missing; run pip install 'rayprob[serve]'")
    for folder in file.bundles.values():
        require_bundle(folder)
    token = read_token(file.token_file, file.token_variable)
    if token is None and not is_of_this_machine(file.host):
        raise ServeError(
            f"others can reach {file.host}, so it needs a token; make one, (umask 077; {MAKE_ONE} > token), and add "
            "--token-file token; or listen at 127.0.0.1"
        )
    _require_free(file.host, file.port)


def is_of_this_machine(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return host == LOCALHOST or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def url_of(host: str, port: int) -> str:
    """Return the address for a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _require_free(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ServeError(f"unknown host {host}; give an address of this machine, such as 127.0.0.1") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = f"stop what uses it, or choose another: --port {port % (2**16 - 1) + 1}"
            raise ServeError(f"port {port} of {host} is in use; {advice}") from error
        advice = "choose a port above 1023" if error.errno == errno.EACCES else "give an address of this machine"
        raise ServeError(f"cannot listen at {host}:{port}: {error.strerror}; {advice}") from error
