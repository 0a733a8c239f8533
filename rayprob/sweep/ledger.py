"""The events of a sweep in order: `ledger.jsonl`, the only record from which a sweep continues.

Each row is appended and flushed before it is acted on, so a killed driver loses no decision:
  ask     {number, what, params, seed, of}      a trial to train; `what` is default, search or confirm
  result  {number, epoch, values, decision}     one of its evaluations, and whether it continues or is pruned
  end     {number, state, reason}               finished, pruned or failed; a trial without an end continues next time
Each row has `at_s`, its time in seconds since 1970.
"""

import json
import os
import time
from typing import Annotated, Any, Literal

from pydantic import Field

from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.files.documents import Count, Shape, read_lines
from rayprob.runs.paths import SweepFolder

REMEDY = "cut the file before that row, or start the sweep over with --fresh"
Row = dict[str, Any]


class AskRow(Shape):
    """A trial to train."""

    number: Count
    what: Literal["default", "search", "confirm"]
    params: dict[str, Any]
    seed: int
    of: int | None
    draws: Count = 0
    at_s: float


class ResultRow(Shape):
    """One evaluation of a trial."""

    number: Count
    epoch: Annotated[float, Field(ge=0, le=1e9)]
    values: dict[str, float]


class EndRow(Shape):
    """The end of a trial."""

    number: Count
    state: Literal["finished", "pruned", "failed"]
    reason: str
    at_s: float


KINDS: dict[str, type[Shape]] = {"ask": AskRow, "result": ResultRow, "end": EndRow}


class Ledger:
    """Append-only rows in a sweep's folder; remote storage cannot append, so the whole file is rewritten there."""

    def __init__(self, folder: str) -> None:
        self.uri = SweepFolder(folder).ledger
        self.rows = read_ledger(folder)
        # A row that a crash cut short is removed, or the next row would be appended to it.
        self._write_all()

    def append(self, row: Row) -> None:
        """Add a row with the time; it is on disk when this returns."""
        row = {**row, "at_s": time.time()}
        self.rows.append(row)
        if not storage.is_local(self.uri):
            self._write_all()
            return
        with open(storage.local_path(self.uri), "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _write_all(self) -> None:
        storage.write_text(self.uri, "".join(json.dumps(row) + "\n" for row in self.rows))


def read_ledger(folder: str) -> list[Row]:
    """Return the rows of a sweep's ledger; a last row that a crash cut short is left out.

    Raises RunError for an invalid row, and for a row of a trial that has no earlier `ask` row.
    """
    uri = SweepFolder(folder).ledger
    rows = read_lines(uri, KINDS, error=RunError, remedy=REMEDY) if storage.exists(uri) else []
    asked: set[int] = set()
    for row in rows:
        number, is_ask = row["number"], row["kind"] == "ask"
        if is_ask != (number not in asked) or number > len(asked):
            what = f"asks for trial {number}" if is_ask else f"has a row of kind {row['kind']} of trial {number}"
            raise RunError(f"{uri} {what} after {len(asked)} trials; {REMEDY}")
        asked.add(number)
    return rows
