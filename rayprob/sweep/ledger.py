"""What has happened in a sweep, in the order in which it happened: `ledger.jsonl`, the one truth from which a sweep goes on.

Rows are appended and flushed before anything follows from them, so a killed driver loses no decision:
  ask     {number, what, params, seed, of}      a trial is to be trained: what is default, search or confirm
  result  {number, epoch, values, decision}     one evaluation of it, and whether it goes on or is pruned
  end     {number, state, reason}               finished, pruned or failed; a trial without an end goes on next time
and each has `at_s`, when that was, in seconds since 1970.
"""

import json
import os
import time
from typing import Any

from rayprob import storage

FILE = "ledger.jsonl"
Row = dict[str, Any]


class Ledger:
    """Append-only rows in a sweep's folder; a remote folder, which has no append, gets the whole file each time."""

    def __init__(self, folder: str) -> None:
        self._uri = storage.join(folder, FILE)
        self.rows = read_ledger(folder)
        # A row that a crash has cut is dropped for good, or the next one would be written behind it.
        self._write_all()

    def append(self, row: Row) -> None:
        """Add a row and the time; when this returns, it is on the disk."""
        row = {**row, "at_s": time.time()}
        self.rows.append(row)
        if not storage.is_local(self._uri):
            self._write_all()
            return
        with open(storage.local_path(self._uri), "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _write_all(self) -> None:
        storage.write_text(self._uri, "".join(json.dumps(row) + "\n" for row in self.rows))


def read_ledger(folder: str) -> list[Row]:
    """Return the rows of a sweep's ledger; a last row that was cut by a crash is left out."""
    uri = storage.join(folder, FILE)
    if not storage.exists(uri):
        return []
    lines = storage.read_bytes(uri).decode().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
