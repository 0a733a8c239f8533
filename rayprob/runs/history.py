"""The log of a run: one line per event in `metrics.jsonl`, and the same numbers as TensorBoard scalars.

Only rank 0 has a History. Rows are dicts with `kind` ("start", "step", "evaluation" or "notice") and `step`. A resumed run
first drops the rows after its checkpoint, because it writes them again.
"""

import html
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rayprob.files import storage
from rayprob.runs.history_rows import read_history, read_rows
from rayprob.runs.paths import RunFolder
from rayprob.text import printable

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

REMOTE_POLL_S = 5.0
log = logging.getLogger(__name__)


class History:
    """Append-only record of a run from `step` on; a remote folder, which cannot append, is written at each `flush`."""

    def __init__(self, folder: str, step: int) -> None:
        self._uri = RunFolder(folder).history
        self._rows = [row for row in read_history(folder) if row["step"] <= step]
        self._is_local = storage.is_local(folder)
        self._write_all()
        self._board = self._open_board(folder, step)

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add one row and its scalars."""
        row = {"kind": kind, "step": step, **values}
        self._rows.append(row)
        if self._is_local:
            with open(storage.local_path(self._uri), "a") as file:
                file.write(json.dumps(row) + "\n")
        if self._board and kind not in ("start", "notice"):
            for name, value in scalars(values):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def show_images(self, step: int, images_BCHW: NDArray[np.uint8], captions: Sequence[str]) -> None:
        """Write example images with their label names to TensorBoard."""
        if self._board:
            self._board.add_images("examples/images", images_BCHW, step)
            self._board.add_text(
                "examples/labels", "  \n".join(f"{n}: {as_markdown(text)}" for n, text in enumerate(captions)), step
            )

    def flush(self) -> None:
        """Make everything recorded so far visible to readers."""
        if not self._is_local:
            self._write_all()
        if self._board:
            self._board.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self.flush()
        if self._board:
            self._board.close()

    def _write_all(self) -> None:
        storage.write_text(self._uri, "".join(json.dumps(row) + "\n" for row in self._rows))

    def _open_board(self, folder: str, step: int) -> "SummaryWriter | None":
        if not self._is_local:
            log.warning("no TensorBoard files: the run folder %s is remote; metrics.jsonl contains the same numbers", folder)
            return None
        from torch.utils.tensorboard.writer import SummaryWriter  # it takes a second to import, which readers need not pay

        board = storage.local_path(RunFolder(folder).tensorboard)
        number_event_files(board)
        return SummaryWriter(str(board), purge_step=step + 1 if step else 0)


def number_event_files(board: Path) -> None:
    """Rename the event files of earlier starts so that they sort before any new one, in the order they were written.

    TensorBoard reads event files by name: second, host, process, count. Two starts in one second, or on hosts whose clocks
    differ, would be read in the wrong order, and the curves would show the steps that the resumed run replaced.
    """
    for place, path in enumerate(sorted(board.glob("events.out.tfevents.*"))):
        path.rename(board / f"events.out.tfevents.{0:010d}.{place:06d}")


def scalars(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return every finite number in `values` with its tag: its name, nested mappings joined by slashes, with `_` for spaces.

    Names that would share a tag, such as the labels `hot dog` and `hot_dog`, keep their spaces instead.
    """
    found = list(_numbers(values))
    shared = Counter(_underscored(name) for name, _ in found)
    tags = ((name if shared[_underscored(name)] > 1 else _underscored(name), number) for name, number in found)
    return [(tag, number) for tag, number in tags if np.isfinite(number)]


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _underscored(name: str) -> str:
    return name.replace(" ", "_")


def as_markdown(text: str) -> str:
    """Return text escaped so that TensorBoard, which renders Markdown, shows it unchanged."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!>|])", r"\\\1", html.escape(printable(text), quote=False).replace("&gt;", ">"))


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
