"""The log of a run: one line per event in `metrics.jsonl`, and the same numbers in TensorBoard and other sinks.

Only rank 0 has a History. Rows are dicts with `kind` ("start", "step", "evaluation", "notice" or "warning") and `step`. A
resumed run first drops the rows after its checkpoint, because it writes them again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.files import storage
from rayprob.runs.delivery import Delivery
from rayprob.runs.history_rows import read_history, read_rows
from rayprob.runs.paths import RunFolder
from rayprob.runs.spec import Run
from rayprob.runs.tracked import open_sinks

REMOTE_POLL_S = 5.0


class History:
    """Append-only record of a run from `step` on; a remote folder, which cannot append, is written at each `flush`.

    The sinks of `run` get each row, besides TensorBoard; without one, there is only TensorBoard. Raises what a sink raises that
    cannot work.
    """

    def __init__(self, folder: str, step: int, run: Run | None = None) -> None:
        self._uri = RunFolder(folder).history
        earlier = read_history(folder)
        self._rows = [row for row in earlier if row["step"] <= step]
        self._is_local = storage.is_local(folder)
        self._warnings: SimpleQueue[str] = SimpleQueue()
        last = {row["kind"]: row["step"] for row in sorted(earlier, key=itemgetter("step"))}
        self._sinks = open_sinks(folder, step, run, last, self._warnings.put)
        self._write_all()
        for sink in self._sinks:
            if sink.is_remote:
                for row in self._rows:
                    _pass_on(sink, row)

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add one row, and pass it to the sinks."""
        self._add_warnings(step)
        row = {"kind": kind, "step": step, **values}
        self._add(row)
        for sink in self._sinks:
            _pass_on(sink, row)

    def show_images(self, step: int, images_BCHW: NDArray[np.uint8], captions: Sequence[str]) -> None:
        """Pass example images with their label names to the sinks."""
        for sink in self._sinks:
            sink.show_images(step, images_BCHW, captions)

    def flush(self) -> None:
        """Make everything recorded so far visible to readers."""
        if not self._is_local:
            self._write_all()
        for sink in self._sinks:
            sink.flush()

    def close(self, ending: str = "finished") -> None:
        """Flush and close the files, and tell the sinks how the run ended: "finished", "early", "stopped" or "failed"."""
        for sink in self._sinks:
            sink.flush()
            sink.close(ending)
        self._add_warnings(self._rows[-1]["step"] if self._rows else 0)
        if not self._is_local:
            self._write_all()

    def _add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if self._is_local:
            with open(storage.local_path(self._uri), "a") as file:
                file.write(json.dumps(row) + "\n")

    def _add_warnings(self, step: int) -> None:
        """Add a row for each sink that has failed since the last row, for the terminal of the user."""
        while not self._warnings.empty():
            self._add({"kind": "warning", "step": step, "text": self._warnings.get()})

    def _write_all(self) -> None:
        storage.write_text(self._uri, "".join(json.dumps(row) + "\n" for row in self._rows))


def _pass_on(sink: Delivery, row: Mapping[str, Any]) -> None:
    sink.record(row["kind"], row["step"], {name: value for name, value in row.items() if name not in ("kind", "step")})


class HistoryTail:
    """Follows a run's history from another process: yields each new row once, also across restarts of its workers."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._num_told = len(read_rows(folder)[0])
        self._size_bytes = _size_bytes(folder)
        self._looked_at_s = time.monotonic()

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows added since the last call; a remote folder is polled only every few seconds."""
        now_s = time.monotonic()
        if not storage.is_local(self._folder) and now_s - self._looked_at_s < REMOTE_POLL_S:
            return []
        self._looked_at_s = now_s
        size_bytes = _size_bytes(self._folder)
        if size_bytes == self._size_bytes:
            return []
        rows, _ = read_rows(self._folder)
        if len(rows) < self._num_told:
            # A restarted worker drops the rows after its checkpoint; its new rows begin with its start row.
            self._num_told = max((n for n, row in enumerate(rows) if row["kind"] == "start"), default=0)
        new, self._num_told, self._size_bytes = rows[self._num_told :], len(rows), size_bytes
        return new


def _size_bytes(folder: str) -> int:
    uri = RunFolder(folder).history
    return storage.size_bytes(uri) if storage.exists(uri) else 0
