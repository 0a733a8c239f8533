"""The validated rows of a run's `metrics.jsonl`, even if the file is damaged."""

import logging
from typing import Annotated, Any

from pydantic import Field

from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.files.documents import Count, Shape, row_of, whole_lines
from rayprob.runs.paths import RunFolder
from rayprob.text import counted, first_of

log = logging.getLogger(__name__)


class Row(Shape):
    """The keys of every row. Keys with a default, below, may be missing, because versions differ."""

    step: Count


class StartRow(Row):
    """A start or resumption of the run."""

    steps_per_epoch: Annotated[int, Field(gt=0, lt=2**53)] = 1
    total_steps: Count = 0
    train_samples: Count = 0
    trainable_parameters: Count = 0
    micro_batch: Count = 0


class StepRow(Row):
    """The mean over the steps since the last logged one."""

    images_per_s: Annotated[float, Field(gt=0)] = 1.0


class EvaluationRow(Row):
    """The numbers of one evaluation."""

    mAP: float = 0.0
    is_best: bool = False
    elapsed_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


KINDS: dict[str, type[Shape]] = {"start": StartRow, "step": StepRow, "evaluation": EvaluationRow, "notice": Row, "warning": Row}


def read_history(folder: str) -> list[dict[str, Any]]:
    """Return the rows of a run's `metrics.jsonl`.

    A last line cut short by a crash is left out; damaged lines before it are left out with a warning.
    """
    rows, damaged = read_rows(folder)
    if damaged:
        lines = counted(len(damaged), "damaged line")
        log.warning("%s: %s left out: line %s", RunFolder(folder).history, lines, first_of(damaged, 5))
    return rows


def read_rows(folder: str) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rows that can be read, and the numbers of the lines that cannot."""
    uri = RunFolder(folder).history
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, line in whole_lines(uri) if storage.exists(uri) else ():
        try:
            rows.append(row_of(line, KINDS, f"{uri}, line {number}", error=RunError))
        except RunError:
            damaged.append(number)
    return rows, damaged
