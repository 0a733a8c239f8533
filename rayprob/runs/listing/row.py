"""A row of the table of runs, and how the files that it is made of are read: never more of a file than a bounded part."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from rayprob.errors import RunError
from rayprob.files import storage, uris
from rayprob.files.storage import FolderEntry

WHOLE_BYTES = 2**22  # a file of JSON lines is read as a whole up to this size
# libyaml if PyYAML has it: `strict_yaml` takes ten times as long, and these files were written by rayprob.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FINISHED, RUNNING, STOPPED, FAILED, BROKEN = "finished", "running", "stopped", "failed", "broken"


@dataclass(frozen=True)
class ListedRun:
    """A run, sweep or comparison of systems; `because` says how its state is known, or what is wrong with its folder.

    `best` is the best value of `metric` on `split`. For a sweep, `done` and `total` count trials, and for systems, systems;
    otherwise they are epochs. `written_s` is the time of the last row, in seconds since 1970.
    """

    folder: str
    name: str
    kind: str
    state: str
    because: str
    dataset: str = ""
    done: float | None = None
    total: float | None = None
    metric: str = "mAP"
    split: str = ""
    best: float | None = None
    images_per_s: float | None = None
    written_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; `written` is a time in ISO 8601."""
        written = datetime.fromtimestamp(self.written_s, UTC).isoformat(timespec="seconds") if self.written_s else None
        return {**asdict(self), "written": written}


@dataclass(frozen=True)
class FoundFolder:
    """A folder of one of the three kinds, with what is directly in it."""

    folder: str
    kind: str
    entries: Mapping[str, FolderEntry] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """Return whether a file or folder of this path is directly in it."""
        return last_name(path) in self.entries

    def modified_s(self, path: str) -> float:
        """Return when an entry was last written; 0 if it does not exist."""
        entry = self.entries.get(last_name(path))
        return entry.modified_s if entry else 0.0

    def size_bytes(self, path: str) -> int:
        """Return the size of an entry; 0 if it does not exist."""
        entry = self.entries.get(last_name(path))
        return entry.size_bytes if entry else 0


def json_mapping(uri: str) -> dict[str, Any]:
    """Return the mapping in a JSON file. Raises RunError, ValueError, StorageError."""
    return mapping_of(uri, json.loads(storage.read_bytes(uri)))


def yaml_mapping(uri: str) -> dict[str, Any]:
    """Return the mapping in a YAML file that rayprob wrote. Raises RunError, YAMLError, StorageError."""
    return mapping_of(uri, yaml.load(storage.read_bytes(uri), Loader=LOADER))


def mapping_of(uri: str, value: Any) -> dict[str, Any]:
    """Return a value. Raises RunError unless it is a mapping."""
    if not isinstance(value, dict):
        raise RunError(f"{uri} contains {type(value).__name__}, not a mapping")
    return value


def last_lines(found: FoundFolder, uri: str) -> list[dict[str, Any]]:
    """Return the last lines of a file of JSON lines, all of them if it is not enormous."""
    size = found.size_bytes(uri)
    content = storage.read_bytes(uri, max(0, size - WHOLE_BYTES), min(size, WHOLE_BYTES)) if size else b""
    return [row for line in content.splitlines() if isinstance(row := _parsed(line), dict)]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def dataset_of(data: Mapping[str, Any]) -> str:
    """Return the names of the datasets of a run file."""
    root = data.get("root", "")
    roots = root if isinstance(root, list) else [root]
    return " + ".join(last_name(str(one)) for one in roots)


def last_name(path: str) -> str:
    """Return the last part of a path or URI."""
    return uris.split(path)[1] if path else ""
