"""Whether every node can write to a URI and read what the others wrote: all nodes write, then all read, then all remove."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rayprob.errors import StorageError
from rayprob.files import storage

PROBE_FOLDER = ".rayprob-doctor"
PATIENCE_S = 5.0  # an NFS client may not see a new file for some seconds


@dataclass(frozen=True)
class UriFacts:
    """The result for a URI. `writes`: the error of each node, or "". `reads`: by reader, then by writer, the same."""

    uri: str
    writes: dict[str, str]
    reads: dict[str, dict[str, str]]
    slowest_write_s: float = 0.0


def probe_folder(uri: str, probe: str) -> str:
    """Return the folder below `uri` that belongs to one probe."""
    return storage.join(uri, f"{PROBE_FOLDER}-{probe}")


def write_probe(uri: str, probe: str, node: str) -> tuple[str, float]:
    """Write this node's file; return the error, or "", and the seconds it took."""
    started_at_s = time.monotonic()
    try:
        # Creating a missing folder would hide a missing mount.
        if storage.is_local(uri) and not storage.is_folder(uri):
            return f"the folder {uri} does not exist", 0.0
        storage.write_text(storage.join(probe_folder(uri, probe), node), _content(probe, node))
    except StorageError as error:
        return str(error), 0.0
    return "", time.monotonic() - started_at_s


def read_probe(uri: str, probe: str, writers: Sequence[str], patience_s: float = PATIENCE_S) -> dict[str, str]:
    """Read the files of the nodes `writers`; return the error by node, or ""."""
    deadline_s = time.monotonic() + patience_s
    met = {node: _read(uri, probe, node) for node in writers}
    while any(met.values()) and time.monotonic() < deadline_s:
        time.sleep(0.2)
        met |= {node: _read(uri, probe, node) for node, fault in met.items() if fault}
    return met


def remove_probe(uri: str, probe: str) -> None:
    """Remove what this node sees of a probe."""
    try:
        storage.remove_folder(probe_folder(uri, probe))
    except StorageError:
        return  # a node that cannot remove could not write either, which the facts record


def _read(uri: str, probe: str, node: str) -> str:
    try:
        found = storage.read_bytes(storage.join(probe_folder(uri, probe), node)).decode(errors="replace")
    except StorageError as error:
        return str(error)
    return "" if found == _content(probe, node) else f"read {found[:40]!r} instead of what {node} wrote"


def _content(probe: str, node: str) -> str:
    return f"{probe} {node}\n"
