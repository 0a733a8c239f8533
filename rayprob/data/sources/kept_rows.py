"""Selects the rows of a split that become samples, checks and counts them, and maps them to the dataset's columns."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources.batch_file import BatchFile, taken
from rayprob.data.sources.faults import ODD_NAME, Faults
from rayprob.data.sources.join_labels import ColumnMap
from rayprob.data.sources.rows import ROWS, Stated, lengths
from rayprob.data.sources.sample_ids import Keys
from rayprob.data.sources.spec import Source
from rayprob.data.sources.spool import Spool
from rayprob.errors import SourceError

NOTHING_STATED = "no label is stated, present or absent"


def kept_rows(
    recipe: Recipe, split: str, stated: Stated, columns: ColumnMap, scratch: str | None
) -> tuple[BatchFile, dict[str, int]]:
    """Return the rows that become samples, with the dataset's columns, and how much was left out, by reason.

    Raises SourceError for counts that the recipe does not expect, a split without samples, and unusable names.
    """
    source, kept = recipe.splits[split], BatchFile(ROWS, scratch)
    num_rows = num_labelled = 0
    with Spool(recipe.root, split) as spool:
        for batch in stated.batches:
            num_rows += batch.num_rows
            num_labelled += int((lengths(batch.column("labels")) > 0).sum())
            moved = columns.of_batch(spool.put(batch))
            kept.append(moved if recipe.keep_unlabelled else _with_a_label(moved))
    _check_counts(split, source, num_labelled, num_rows - num_labelled)
    if not kept.num_rows:
        raise SourceError(
            f"split {split} is empty: {source.described} lists {num_rows:,} images but states no label of them; "
            "annotate some, drop the split, or set keep_unlabelled: true"
        )
    _check_names(source, kept)
    unstated = {NOTHING_STATED: num_rows - kept.num_rows} if kept.num_rows < num_rows else {}
    return kept, {**stated.dropped, **columns.dropped, **unstated}


def _with_a_label(batch: pa.RecordBatch) -> pa.RecordBatch:
    states_N = (lengths(batch.column("labels")) > 0) | (lengths(batch.column("absent_labels")) > 0)
    return batch if states_N.all() else taken(batch, np.flatnonzero(states_N))


def _check_counts(split: str, source: Source, labelled: int, unlabelled: int) -> None:
    expected = source.expect
    if expected and (labelled, unlabelled) != (expected.labelled, expected.unlabelled):
        raise SourceError(
            f"{source.described} lists {labelled:,} images with a label and {unlabelled:,} without; splits.{split}.expect "
            f"is {expected.labelled:,} and {expected.unlabelled:,}; download it again, or correct or remove `expect`"
        )


def _check_names(source: Source, rows: BatchFile) -> None:
    fail = Faults(source.described)
    columns = (batch.column("file_name") for batch in rows)
    odd = [column.filter(pc.match_substring_regex(column, ODD_NAME)).to_pylist() for column in columns]
    fail.on_file_names([name for names in odd for name in names])
    fail.on_any("image listed twice", map(ascii, Keys(rows).doubles()), "list each image once; drop one entry")
