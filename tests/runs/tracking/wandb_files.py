"""What an offline run of Weights & Biases has in its file: a LevelDB log of protobuf records."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
FULL, LAST = 1, 4


def records(folder: Path) -> Iterator[Any]:
    """Yield the records of each offline run in the folder of a run, in the order of their starts."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for content in _contents(path.read_bytes()):
            record = Record()
            record.ParseFromString(content)
            yield record


def history(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Return the steps of an offline run with what was logged at each, without what W&B adds."""
    entries = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [
        (entry.step.num, {key: json.loads(item.value_json) for item in entry.item if not (key := _key(item)).startswith("_")})
        for entry in entries
    ]


def summary(folder: Path) -> dict[str, Any]:
    """Return what was set in the summary of an offline run."""
    updates = [record.summary.update for record in records(folder) if record.WhichOneof("record_type") == "summary"]
    return {_key(item): json.loads(item.value_json) for update in updates for item in update}


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _contents(file: bytes) -> Iterator[bytes]:
    place, whole = HEADER, b""
    while place + HEADER <= len(file):
        if BLOCK - place % BLOCK < HEADER:  # too little room for a header is left empty
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", file[place : place + HEADER])
        whole += file[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield whole
            whole = b""
