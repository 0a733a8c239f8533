"""TensorBoard's event files in the folder of the run, which every local run writes."""

import html
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rayprob.files import storage
from rayprob.runs.paths import RunFolder
from rayprob.runs.tracking.sink import NUMBERS, Notes, Sink, SinkSpec, TrackedRun, scalars
from rayprob.text import printable

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

log = logging.getLogger(__name__)


class TensorBoardSink(Sink):
    """Scalars of every row, and example images; nothing for a remote folder, to which event files cannot be appended."""

    is_remote: ClassVar[bool] = False

    def __init__(self, spec: SinkSpec, run: TrackedRun) -> None:
        self._run = run
        self._board: SummaryWriter | None = None

    def open(self, known: Notes) -> Notes:
        """Start a new event file; TensorBoard drops the scalars of earlier files after the step at which this start begins."""
        folder, step = self._run.folder, self._run.step
        if not storage.is_local(folder):
            log.warning("no TensorBoard files: the run folder %s is remote; metrics.jsonl contains the same numbers", folder)
            return {}
        from torch.utils.tensorboard.writer import SummaryWriter  # it takes a second to import, which readers need not pay

        board = storage.local_path(RunFolder(folder).tensorboard)
        number_event_files(board)
        self._board = SummaryWriter(str(board), purge_step=step + 1 if step else 0)
        return {}

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write the scalars of a step or an evaluation."""
        if self._board and kind in NUMBERS:
            for name, value in scalars(values):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def show_images(self, step: int, images_BCHW: NDArray[np.uint8], captions: Sequence[str]) -> None:
        """Write example images with their label names."""
        if self._board:
            self._board.add_images("examples/images", images_BCHW, step)
            self._board.add_text(
                "examples/labels", "  \n".join(f"{n}: {as_markdown(text)}" for n, text in enumerate(captions)), step
            )

    def flush(self) -> None:
        """Write what TensorBoard buffers."""
        if self._board:
            self._board.flush()

    def close(self, ending: str) -> None:
        """Close the event file."""
        if self._board:
            self._board.close()


def number_event_files(board: Path) -> None:
    """Rename the event files of earlier starts so that they sort before any new one, in the order they were written.

    TensorBoard reads event files by name: second, host, process, count. Two starts in one second, or on hosts whose clocks
    differ, would be read in the wrong order, and the curves would show the steps that the resumed run replaced.
    """
    for place, path in enumerate(sorted(board.glob("events.out.tfevents.*"))):
        path.rename(board / f"events.out.tfevents.{0:010d}.{place:06d}")


def as_markdown(text: str) -> str:
    """Return text escaped so that TensorBoard, which renders Markdown, shows it unchanged."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!>|])", r"\\\1", html.escape(printable(text), quote=False).replace("&gt;", ">"))


SINKS = {"tensorboard": TensorBoardSink}
