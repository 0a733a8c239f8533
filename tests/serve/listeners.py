"""Which addresses a process and its descendants listen at, from Linux' /proc."""

import os
import socket
from pathlib import Path

LISTEN = "0A"


def descendants(pid: int) -> set[int]:
    """Return a process and all that it has started, directly or not."""
    parent_of: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent_of[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
    found = {pid}
    while more := {child for child, parent in parent_of.items() if parent in found} - found:
        found |= more
    return found


def addresses(pids: set[int]) -> set[tuple[str, int]]:
    """Return host and port of each TCP socket that these processes listen at."""
    ours = {inode for pid in pids for inode in _sockets(pid)}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTEN and rest[5] in ours:
                host, _, port = local.partition(":")
                found.add((_host(host), int(port, 16)))
    return found


def _sockets(pid: int) -> list[str]:
    try:
        names = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []
    return [name[len("socket:[") : -1] for name in names if name.startswith("socket:[")]


def _host(text: str) -> str:
    words = b"".join(bytes.fromhex(text[place : place + 8])[::-1] for place in range(0, len(text), 8))
    if len(words) == 4:
        return socket.inet_ntop(socket.AF_INET, words)
    return socket.inet_ntop(socket.AF_INET6, words).removeprefix("::ffff:")
